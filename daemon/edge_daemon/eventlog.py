"""What the frame was told and what it decided, one JSON object a line: `edge daemon run --record-events FILE`.

The first line holds what it began with: the policy's name, the board, the state. Since a step is a pure function,
`replay` decides the same anew: what is found out about a decision on a board is found out at a desk. The file is as
large as `MAX_BYTES` at most; then recording ends, which the log says.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from edge_daemon.policies.contract import Factory
from edge_daemon.policy import types
from edge_daemon.policy.frame import Frame
from edge_daemon.policy.setting import Site
from edge_daemon.policy.state import PolicyState, dump, load
from edge_daemon.policy.types import Decided, Event, Instruction
from edge_sdk.errors import StorageError, WireError
from edge_sdk.mqtt import Decision
from edge_sdk.wire import Name

log = logging.getLogger(__name__)

MAX_BYTES: Final = 256 * 1024 * 1024
_KINDS: Final[Mapping[str, type[Any]]] = {
    kind.__name__: kind
    for kind in (
        types.Tick, types.Preferred, types.Pinned, types.Unpinned, types.Paused, types.AppJoined, types.AppCanRun,
        types.AppCannotAsk, types.AppLeft, types.AppPinned, types.AppReported, types.ActivationFailed, types.Measured,
        types.Tried, types.Looked,
    )
}  # fmt: skip

Heard = Iterable[tuple[Event, Iterable[Instruction]]]


class _Begin(msgspec.Struct, frozen=True, kw_only=True):
    """The first line; the state as `edge_daemon.policy.state.dump` gives it."""

    use: Name
    site: Site
    state: bytes


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    """One event and what was decided on it."""

    kind: str
    event: msgspec.Raw
    decided: tuple[Decision, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """One event of a log.

    Attributes:
        recorded: What was decided on it then.
        decided: What is decided on it now.
        state: After it.
    """

    event: Event
    recorded: tuple[Decision, ...]
    decided: tuple[Decision, ...]
    state: PolicyState


class EventLog:
    """A log being written, line by line, so that of a crash no more than a line is lost.

    Args:
        path: Of the file; one that is there is replaced.

    Raises:
        StorageError: It cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("wb", buffering=0)
        except OSError as cause:
            raise StorageError(f"events cannot be recorded: {cause.strerror}", where=str(path)) from cause
        self._path = path
        self._left = MAX_BYTES

    def begin(self, frame: Frame, state: PolicyState) -> None:
        """Note what it begins with."""
        self._write(msgspec.json.encode(_Begin(use=frame.use, site=frame.site, state=dump(state))))

    def heard(self, heard: Heard) -> None:
        """Note events and what was decided on each."""
        for event, instructions in heard:
            decided = tuple(item.decision for item in instructions if isinstance(item, Decided))
            raw = msgspec.Raw(msgspec.json.encode(event))
            self._write(msgspec.json.encode(_Line(kind=type(event).__name__, event=raw, decided=decided)))

    def close(self) -> None:
        """End it."""
        self._file.close()

    def _write(self, line: bytes) -> None:
        if self._file.closed:
            return
        self._left -= len(line) + 1
        why: str | None = None if self._left >= 0 else f"it is {MAX_BYTES >> 20} MiB large"
        if why is None:
            try:
                if self._file.write(line + b"\n") <= len(line):  # what fitted of it; no whole line may follow
                    why = "the disk is full"
            except OSError as error:
                why = error.strerror
        if why is not None:
            log.warning("events are no longer recorded in %s: %s", self._path, why)
            self._file.close()


def replay(path: Path, factory: Factory) -> Iterator[Replayed]:
    """Decide on every event of a log anew. A last line that is cut short ends it.

    Args:
        path: Of the log.
        factory: Makes the policy; the one of the log's name for the same decisions, or another one for others.

    Raises:
        WireError: It is no such log.
    """
    with path.open("rb") as file:
        begin = _begin(file.readline(), path)
        state = load(begin.state)
        if state is None:
            raise WireError("the state it begins with is of another version", where=str(path))
        frame = Frame(use=begin.use, factory=factory, site=begin.site)
        for raw in file:
            if not raw.endswith(b"\n"):
                return
            try:
                line = msgspec.json.decode(raw, type=_Line)
                event: Event = msgspec.json.decode(line.event, type=_KINDS[line.kind])
            except (msgspec.DecodeError, KeyError, RecursionError) as cause:
                raise WireError(f"no event: {cause}", where=str(path)) from cause
            state, instructions = frame.step(state, event)
            decided = tuple(item.decision for item in instructions if isinstance(item, Decided))
            yield Replayed(event=event, recorded=line.decided, decided=decided, state=state)


def began(path: Path) -> bytes:
    """The state a log begins with, as `edge_daemon.policy.state.dump` gives it.

    Raises:
        WireError: It is no such log.
    """
    with path.open("rb") as file:
        return _begin(file.readline(), path).state


def _begin(line: bytes, path: Path) -> _Begin:
    try:
        return msgspec.json.decode(line, type=_Begin)
    except (msgspec.DecodeError, RecursionError) as cause:
        raise WireError(f"no log of events: {cause}", where=str(path)) from cause
