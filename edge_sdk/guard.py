"""An accelerator with its twin on the CPU behind it: no call is lost to a device that fails, hangs or lies.

A failure (an error, a worker that crashed or hung, an answer that is no number, a canary answered wrong) puts the
accelerator into quarantine: the call at hand and those that follow are answered by the twin, and after a while that
doubles with every failure the accelerator is opened and tried anew, by a thread of its own.
"""

from __future__ import annotations

import enum
import logging
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_sdk.delegates.canary import Canary, said
from edge_sdk.errors import DelegateError, EdgeError, InputError, ModelClosedError

if TYPE_CHECKING:
    from typing_extensions import Self

    from edge_sdk.anyengine import AnyEngine
    from edge_sdk.engine import Engine
    from edge_sdk.front import Array
    from edge_sdk.manifest import TensorSpec

_log = logging.getLogger(__name__)

QUARANTINE_S = 60.0
CANARY_S = 60.0
_LONGEST_S = 3600.0
_JOIN_S = 5.0
_MOST_STRIKES = 16


class Happening(enum.Enum):
    """What became of an accelerator."""

    FELL_BACK = "fell-back"
    QUARANTINED = "quarantined"
    RESTORED = "restored"


@dataclass(frozen=True, slots=True, kw_only=True)
class DelegateEvent:
    """Something that whoever watches a model should know.

    Attributes:
        delegate: As it was asked for, such as `edgetpu:usb:0`.
        reason: Why, one clause; empty where it is restored.
        again_s: When it is tried anew, from now.
    """

    happening: Happening
    delegate: str
    reason: str = ""
    again_s: float | None = None

    def __str__(self) -> str:
        text = f"{self.delegate} {_WORDS[self.happening]}"
        if self.reason:
            text += f": {self.reason}"
        return text if self.again_s is None else f"{text}; it is tried again in {self.again_s:.0f} s"


_WORDS = {
    Happening.FELL_BACK: "cannot be used, the CPU computes",
    Happening.QUARANTINED: "failed, the CPU computes",
    Happening.RESTORED: "computes again",
}


class GuardedEngine:
    """An engine that always answers as long as its twin does. Safe for any number of threads.

    Args:
        primary: Opens the accelerator's engine; called now, and anew after each quarantine.
        twin: On the CPU: what it answers is right.
        behind: Answers what the accelerator cannot, another accelerator's engine with the same twin; None is the twin.
            It is closed with this engine.
        delegate: What the accelerator is called in events.
        observe: Told the milliseconds of every call, whoever answered it.
        report: Told what becomes of the accelerator; by default it is logged. What it raises, the call raises.
        canary_s: How often the accelerator is tried with an input whose answer is known, between calls.
        quarantine_s: The first; it doubles up to an hour.
        verdict: Told of each engine that was opened whether its answer was right: an empty text, or why not.

    Attributes:
        one_at_a_time: As of `Front`: an accelerator is one device.
        reason: Why the twin stands in; empty while the accelerator computes.
    """

    one_at_a_time = True

    def __init__(
        self,
        primary: Callable[[], AnyEngine],
        twin: Engine,
        *,
        delegate: str,
        behind: GuardedEngine | None = None,
        observe: Callable[[float], None] | None = None,
        report: Callable[[DelegateEvent], None] | None = None,
        canary_s: float = CANARY_S,
        quarantine_s: float = QUARANTINE_S,
        verdict: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.delegate = delegate
        self._verdict = verdict
        self._open = primary
        self._behind: GuardedEngine | Engine = behind or twin
        self._observe = observe
        self._report = report or tell
        self._canary = Canary(twin)
        self._canary_s, self._quarantine_s = canary_s, quarantine_s
        self._lock = threading.Lock()  # guards what follows, never held while anything computes
        self._primary: AnyEngine | None = None
        self._strikes = 0
        self._stopped = threading.Event()
        # Of the event, so that whoever keeps it does not keep the engine.
        self.is_closing: Callable[[], bool] = self._stopped.is_set
        self._restorer: threading.Thread | None = None
        self._due_s = time.monotonic() + canary_s
        self.reason = ""
        try:
            self._primary = self._checked()
        except DelegateError as error:
            self._out_of_use(None, error.what, Happening.FELL_BACK)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """As the twin has them."""
        return self._behind.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """As the twin has them."""
        return self._behind.outputs

    @property
    def computes_on(self) -> str:
        """Who answers calls now: the delegate, the next of a chain, or `cpu`."""
        if self._primary is not None:
            return self.delegate
        return self._behind.computes_on if isinstance(self._behind, GuardedEngine) else "cpu"

    @property
    def accelerator(self) -> AnyEngine | None:
        """The engine on the accelerator; None while the twin stands in for it."""
        return self._primary

    def run(self, arrays: Sequence[Any]) -> list[Array]:
        """See `AnyEngine.run`; only what the twin raises is raised."""
        begun_s = time.perf_counter()
        answer = self._answer(arrays)
        if self._observe is not None:
            self._observe(1e3 * (time.perf_counter() - begun_s))
        return answer

    def close(self) -> None:
        """Close both, and end the thread that restores. May be repeated."""
        self._stopped.set()
        with self._lock:
            primary, self._primary = self._primary, None
            restorer = self._restorer
        if restorer is not None and restorer is not threading.current_thread():
            restorer.join(_JOIN_S)
        if primary is not None:
            primary.close()
        self._behind.close()

    def _answer(self, arrays: Sequence[Any]) -> list[Array]:
        primary = self._primary
        if primary is None or (time.monotonic() >= self._due_s and not self._still_right(primary)):
            return self._behind.run(arrays)
        try:
            answer = primary.run(arrays)
        except DelegateError as error:
            self._out_of_use(primary, error.what, Happening.QUARANTINED)
            return self._behind.run(arrays)
        except (ModelClosedError, InputError):
            # Another call found it broken, or this engine is closed: then so is the twin. Or it takes less than the
            # twin does, as one of integers that refuses what is no number.
            return self._behind.run(arrays)
        if _all_numbers(answer):
            return answer
        right = self._behind.run(arrays)
        if _all_numbers(right):
            self._out_of_use(primary, "it answered what is no number", Happening.QUARANTINED)
        return right

    def _still_right(self, primary: AnyEngine) -> bool:
        with self._lock:
            if time.monotonic() < self._due_s:
                return True  # another call looks right now
            self._due_s = time.monotonic() + self._canary_s
        try:
            distance = self._canary.distance(primary)
        except DelegateError as error:
            self._out_of_use(primary, error.what, Happening.QUARANTINED)
            return False
        except ModelClosedError:
            return False
        if distance <= 1:
            with self._lock:
                self._strikes = 0
            return True
        self._out_of_use(primary, f"it computes wrong: {said(distance)}", Happening.QUARANTINED)
        return False

    def _checked(self) -> AnyEngine:
        """A fresh engine on the accelerator that answers the canary right.

        Raises:
            DelegateError: There is none.
        """
        engine = self._open()
        try:
            distance = self._canary.distance(engine)
        except BaseException:
            engine.close()
            raise
        wrong = "" if distance <= 1 else f"it computes wrong: {said(distance)}"
        self._verdict(wrong)
        if not wrong:
            return engine
        engine.close()
        raise DelegateError(wrong, where=self.delegate)

    def _out_of_use(self, primary: AnyEngine | None, reason: str, happening: Happening) -> None:
        """Quarantine the accelerator, once however many calls find it broken."""
        with self._lock:
            if self._stopped.is_set() or self._primary is not primary:
                return
            self._primary = None
            self.reason = reason
            again_s: float | None = self._strike()
            thread = threading.Thread(
                target=_restore, args=(weakref.ref(self), self._stopped, primary, again_s), daemon=True
            )
            thread.name = f"edge-restore-{self.delegate}"
            try:
                thread.start()  # with the lock held: `close` joins it
                self._restorer = thread
            except RuntimeError:  # there may be no more threads, or the interpreter ends: the twin goes on alone
                again_s = None
        if again_s is None and primary is not None:
            primary.close()
        self._report(DelegateEvent(happening=happening, delegate=self.delegate, reason=reason, again_s=again_s))

    def _strike(self) -> float:
        """Seconds of the next quarantine; called with the lock held."""
        again_s: float = min(_LONGEST_S, self._quarantine_s * 2**self._strikes)
        self._strikes = min(self._strikes + 1, _MOST_STRIKES)
        return again_s

    def _try_again(self) -> float | None:
        """Seconds until the next try; None where it computes again."""
        try:
            engine = self._checked()
        except EdgeError as error:
            with self._lock:
                self.reason = error.what
                return self._strike()
        with self._lock:
            is_late = self._stopped.is_set()
            if not is_late:
                self._primary, self.reason = engine, ""
                self._due_s = time.monotonic() + self._canary_s
        if is_late:
            engine.close()
            return None
        self._report(DelegateEvent(happening=Happening.RESTORED, delegate=self.delegate))
        return None


def _restore(
    guard: weakref.ref[GuardedEngine], stopped: threading.Event, broken: AnyEngine | None, again_s: float
) -> None:
    """The thread of one quarantine; ends when the accelerator computes again, or the guard is closed or forgotten."""
    if broken is not None:
        broken.close()
        del broken
    wait_s: float | None = again_s
    while wait_s is not None and not stopped.wait(wait_s):
        found = guard()
        if found is None:
            return
        wait_s = found._try_again()  # noqa: SLF001 - this module's own
        del found


def _all_numbers(answer: Sequence[Array]) -> bool:
    return all(each.dtype.kind != "f" or bool(np.isfinite(each).all()) for each in answer)


def tell(event: DelegateEvent) -> None:
    """Log it: what is done where nobody asked for reports."""
    _log.warning("%s", event)
