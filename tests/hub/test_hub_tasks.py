"""A task that waits again and again ends when it is asked to, at whichever moment that is."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from edge_hub.tasks import within


@pytest.mark.parametrize("turns", range(5))
def test_a_wait_that_is_cancelled_when_what_it_waits_for_comes_ends(turns: int) -> None:
    async def play() -> bool:
        came = asyncio.Event()

        async def again_and_again() -> None:
            while True:
                with contextlib.suppress(asyncio.TimeoutError):
                    await within(came.wait(), 60.0)
                came.clear()

        task = asyncio.create_task(again_and_again())
        await asyncio.sleep(0.01)
        came.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait((task,), timeout=30.0)
        task.cancel()
        return bool(done)

    assert asyncio.run(play())


def test_what_does_not_come_in_time_is_cancelled_and_what_fails_says_so() -> None:
    async def play() -> None:
        queue: asyncio.Queue[int] = asyncio.Queue()
        with pytest.raises(asyncio.TimeoutError):
            await within(queue.get(), 0.01)
        queue.put_nowait(1)
        assert await within(queue.get(), 60.0) == 1

        async def fails() -> None:
            raise LookupError("not there")

        with pytest.raises(LookupError, match="not there"):
            await within(fails(), 60.0)

    asyncio.run(play())
