"""The policy inside the process at work: what it decides is ordered, what it learns comes from the app's own calls.

What it decides, and why, is in `edge_sdk.deciding`, which is pure; here are its clock and its thread.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from edge_sdk import deciding
from edge_sdk.bundle import Bundle
from edge_sdk.errors import DelegateError, EdgeError, MemoryShortError, ModelClosedError
from edge_sdk.guard import GuardedEngine
from edge_sdk.lease import Seat
from edge_sdk.machine import machine_name
from edge_sdk.manifest import Variant
from edge_sdk.parallel.condition import is_hot
from edge_sdk.preference import Preference
from edge_sdk.switch import Switch
from edge_sdk.switching import Switcher
from edge_sdk.tally import Tally
from edge_sdk.usage import AcceleratorWatch

_log = logging.getLogger(__name__)

_OF_THE_BOARD = ("max_temp_c", "max_power_w", "battery_until", "battery_for_s")
_STEP_S = 1.0
_JOIN_S = 5.0


class OwnPolicy:
    """Decides where no daemon does.

    Args:
        bundle: Whose variants they are.
        usable: Those that run here, the best first.
        preference: What the app wants.
        turn: Held while it decides.
        accelerated: The engines on accelerators by variant, with a watch each; the model keeps it up to date.

    Attributes:
        usable: The variants it decides among, the best first; one that cannot be loaded is left out.
        is_pinned: The app has decided itself.
    """

    def __init__(
        self,
        bundle: Bundle,
        usable: Sequence[Variant],
        preference: Preference,
        turn: threading.RLock,
        accelerated: Mapping[str, tuple[GuardedEngine, AcceleratorWatch]],
    ) -> None:
        self._accelerated = accelerated
        self.usable = tuple(usable)
        self.is_pinned = False
        self._bundle, self._turn = bundle, turn
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._chooser = self._first(preference)
        _say_what_does_not_bind(preference)

    @property
    def active(self) -> str:
        """The variant it wants."""
        return self._chooser.active

    def begin(self, load: Callable[[str], None]) -> None:
        """Load what is to run, or the first after it that can be.

        Raises:
            DelegateError: None of them can be loaded; the last one's error.
        """
        while True:
            tried = self.active
            try:
                load(tried)
            except DelegateError as error:
                self.forget(tried)
                if not self.usable:
                    raise
                # As text: the error's traceback holds the file open for as long as a handler keeps the record.
                _log.warning("%s cannot be loaded, another one is taken: %s", tried, str(error))
            else:
                return

    def start(self, seat: Seat, switcher: Switcher, tally: Tally) -> None:
        """Step once a second from now on, over what runs."""
        self._seat, self._switcher, self._tally = seat, switcher, tally
        tally.limit_ms = self._chooser.preference.max_latency_ms
        self._thread = threading.Thread(target=_decide, args=(weakref.ref(self), self._stopped), daemon=True)
        self._thread.name = "edge-deciding"
        self._thread.start()

    def step(self, window: deciding.Window | None = None) -> None:
        """Decide, with the turn held."""
        if self.is_pinned or self._switcher.is_busy:
            return
        self._chooser = self._chooser.step(time.monotonic(), window, self._hot())
        if self.active != self._seat.active:
            self._switcher.begin(self.active)

    def over(self, switch: Switch) -> None:
        """An order of its own was carried out or failed, with the turn held."""
        if switch.error is None:
            return
        if isinstance(switch.error, MemoryShortError):  # there may be room later
            self._chooser = replace(self._chooser, active=self._seat.active, changed_s=time.monotonic())
        else:
            self.forget(switch.variant)

    def prefer(self, preference: Preference | None) -> None:
        """Decide by this from now on, with the turn held; what was learned stays, and what is wanted counts at once."""
        preference = preference or Preference()
        _say_what_does_not_bind(preference)
        self._chooser = self._chooser.preferring(preference, time.monotonic())
        self._tally.limit_ms = preference.max_latency_ms
        self.step()

    def forget(self, id_: str) -> None:
        """It cannot be loaded here after all."""
        self.usable = tuple(each for each in self.usable if each.id != id_)
        if self.usable:
            self._chooser = self._first(self._chooser.preference)

    def close(self) -> None:
        """End the thread."""
        self._stopped.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)

    def _first(self, preference: Preference) -> deciding.Chooser:
        return deciding.first(self.usable, self._bundle.latencies(), machine_name(), preference, time.monotonic())

    def _hot(self) -> frozenset[str]:
        """Every variant on a kind of accelerator of which one is hot: another variant would heat the same device."""
        kinds = {
            self._bundle.variant(id_).target.delegate
            for id_, (_, seen) in tuple(self._accelerated.items())
            if _is_hot(seen, was=id_ in self._chooser.hot)
        }
        return frozenset(each.id for each in self.usable if each.target.delegate in kinds)

    def _look(self) -> None:
        with self._turn:
            taken = self._tally.take(self._seat.active)
            window = None
            if taken.p50_ms is not None and taken.p95_ms is not None:
                window = deciding.Window(calls=taken.calls, p50_ms=taken.p50_ms, p95_ms=taken.p95_ms)
            self.step(window)
        self._switcher.tidy()


def _say_what_does_not_bind(preference: Preference) -> None:
    named = [name for name in _OF_THE_BOARD if getattr(preference, name) is not None]
    if named:
        _log.warning("%s binds nothing here: only a daemon knows the board", " and ".join(named))


def _is_hot(seen: AcceleratorWatch, *, was: bool) -> bool:
    """A hot one whose sensor falls silent stays hot."""
    excess_c = seen.heat().excess_c
    return was if excess_c is None else is_hot(excess_c, was=was)


def _decide(policy: weakref.ref[OwnPolicy], stopped: threading.Event) -> None:
    """The thread; ends when the model is closed or forgotten."""
    while not stopped.wait(_STEP_S):
        found = policy()
        if found is None:
            return
        try:
            found._look()  # noqa: SLF001 - this module's own
        except ModelClosedError:
            return
        except EdgeError as error:
            _log.warning("the variant goes on as it is: %s", error)
        del found
