"""News between processes: whoever could not listen for a while hears that it missed some."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from edge_hub import relay as relaying
from edge_hub.relay import Bulletin, Relay
from edge_sdk.wire import encode, new_token

PATIENCE_S = 10.0


class Wire:
    """A connection that only says what it is told to."""

    def __init__(self) -> None:
        self.say: Callable[[str], None]
        self.end: Callable[[], None]

    def add_termination_listener(self, ended: Callable[[Any], None]) -> None:
        self.end = lambda: ended(self)

    async def add_listener(self, channel: str, heard: Callable[[Any, int, str, str], None]) -> None:
        self.say = lambda text: heard(self, 1, channel, text)

    async def execute(self, statement: str) -> None:
        raise AssertionError(statement)

    def terminate(self) -> None:
        pass


class Wires:
    """A database that gives out such connections."""

    def __init__(self) -> None:
        self.given: asyncio.Queue[Wire] = asyncio.Queue()

    async def connect(self) -> Wire:
        wire = Wire()
        self.given.put_nowait(wire)
        return wire

    async def notify(self, channel: str, text: str) -> None:
        raise AssertionError((channel, text))

    def refusals(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def listening(play: Callable[[Wires, asyncio.Queue[Bulletin]], Awaitable[None]]) -> None:
    """Run with a relay that listens, and what it hears."""

    async def run() -> None:
        wires, heard = Wires(), asyncio.Queue[Bulletin]()
        task = asyncio.create_task(Relay(wires, heard.put).run_listening())
        try:
            await asyncio.wait_for(play(wires, heard), PATIENCE_S)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


def test_a_connection_that_is_lost_is_made_anew_at_once() -> None:
    async def play(wires: Wires, heard: asyncio.Queue[Bulletin]) -> None:
        first = await wires.given.get()
        await asyncio.sleep(0)  # it begins to wait
        first.end()
        await wires.given.get()
        assert (await heard.get()).missed

    listening(play)


def test_more_than_can_wait_is_said_to_be_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "_MAX_WAITING", 3)
    told = [Bulletin(by=new_token(), touched=(f"acme/cam{number}",)) for number in range(5)]

    async def play(wires: Wires, heard: asyncio.Queue[Bulletin]) -> None:
        wire = await wires.given.get()
        await asyncio.sleep(0)
        for bulletin in told:
            wire.say(encode(bulletin).decode())
        came = [await heard.get() for _ in range(4)]
        assert [one for one in came if not one.missed] == told[:3]
        assert came[1].missed
        assert heard.empty()

    listening(play)
