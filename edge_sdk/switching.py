"""Which engines are loaded: one in force, at most one on its way, and those that stand by.

Loads happen on a thread of their own, outside the lock under which orders are taken, so that a newer order takes the
place of one whose load is under way: that one's engine is closed the moment it is loaded and never takes a call. How
calls move from one engine to the next is `edge_sdk.lease`'s business, how much memory there is `edge_sdk.room`'s, and
which variant is wanted is decided by whoever gives the orders.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Literal

from edge_sdk.errors import MemoryShortError, ModelClosedError, SwitchCancelledError, UsageError
from edge_sdk.lease import Loaded, Seat
from edge_sdk.room import RESERVE_BYTES, Room
from edge_sdk.switch import Loading, Switch

_log = logging.getLogger(__name__)

_DRAIN_S = 30.0
_JOIN_S = 10.0  # a load in this process cannot be ended from outside; its engine is closed whenever it comes

Memory = Literal["auto", "ample", "tight"]


class Switcher:
    """Carries out orders over a seat. Safe for any number of threads.

    Args:
        seat: With the first engine in it; closed together with this.
        load: Prepares the load of a variant.
        room: What is free, and what each variant needs.
        memory: `ample`: the next engine is loaded beside the one in force. `tight`: that one is closed first. `auto`:
            the one or the other, by what is free.
        standby: How many engines are kept loaded beside the one in force.
        told: Of every order that is over, with no lock held; also of one of its own, by which a variant comes back that
            gave way to one that did not come.

    Raises:
        UsageError: `memory` or `standby` make no sense.
    """

    def __init__(
        self,
        seat: Seat,
        load: Callable[[str], Loading],
        room: Room,
        *,
        memory: Memory = "auto",
        standby: int = 0,
        told: Callable[[Switch], None] = lambda _: None,
    ) -> None:
        check(memory, standby)
        self._seat, self._load, self._room = seat, load, room
        self._memory, self._most, self._told = memory, standby, told
        self.gap_ms: float | None = None
        self._lock = threading.Lock()
        self._one_load = threading.Lock()  # two at once would need memory for both, and gain nothing under the GIL
        self._wanted: Switch | None = None  # the newest order
        self._current: Switch | None = None  # the one being loaded
        self._loading: Loading | None = None
        self._idle = threading.Event()  # set while nobody carries out orders; cleared by whoever is about to
        self._idle.set()
        self._at_work: threading.Thread | None = None
        self._standby: dict[str, Loaded] = {}  # the one that stood by longest first
        self._away: str | None = None  # gave way, and comes back if nothing else takes its place
        self._vacated_s = 0.0
        self._is_closed = False
        seat.retire = self._retired

    @property
    def is_busy(self) -> bool:
        """Whether an order is being carried out."""
        return self._wanted is not None or not self._idle.is_set()

    @property
    def standby(self) -> tuple[str, ...]:
        """What is loaded beside the variant in force, the one used last first."""
        with self._lock:
            return tuple(reversed(self._standby))

    def begin(self, id_: str, *, start: bool = True) -> Switch:
        """Order a variant; an order under way for another one is called off.

        Args:
            id_: The variant.
            start: On a thread; without it, somebody has to call `carry_out`.

        Raises:
            ModelClosedError: After `close`.
        """
        over: list[Switch] = []
        unwanted: list[Loaded] = []
        with self._lock:
            if self._is_closed:
                raise ModelClosedError("the model was closed", hint="open it again")
            newest = self._wanted or self._current
            if newest is not None and newest.variant == id_ and newest.is_open():
                return newest
            error = SwitchCancelledError(f"a switch to {id_!r} took its place")
            over += [each for each in (self._wanted, self._current) if each is not None and each.settle(error)]
            loading = self._loading if self._current in over else None
            switch, self._wanted = Switch(id_, self._call_off), None
            if self._is_there(switch, unwanted):
                switch.settle(None)
                over.append(switch)
            else:
                self._wanted = switch
            is_claimed = start and self._claim()
        if loading is not None:
            loading.cancel()
        self._finish(over, unwanted)
        if is_claimed:
            self._start()
        self.tidy()
        return switch

    def carry_out(self) -> None:
        """Carry out the order that waits in this thread, if nobody is at work: that saves two handovers."""
        with self._lock:
            mine = self._wanted if self._claim() else None
        if mine is not None:
            self._work(mine)

    def stand_by(self, id_: str) -> None:
        """Load a variant ahead; returns once it stands by.

        Raises:
            UsageError: No engine is kept beside the one in force.
            MemoryShortError: It does not fit beside the one in force.
            DelegateError: It cannot be loaded.
            ModelClosedError: After `close`.
        """
        if not self._most:
            raise UsageError("no variant stands by", hint="open the model with standby=1, or more")
        with self._one_load:
            with self._lock:
                if id_ == self._seat.active or id_ in self._standby:
                    return
                excess = [self._standby.pop(next(iter(self._standby)))] if len(self._standby) >= self._most else []
            self._finish([], excess)
            if self._memory == "auto":
                self._fit_beside(id_)
            engine = self._room.measured(id_, self._load(id_).run)
            with self._lock:
                unwanted = self._kept(id_, engine)
                is_closed = self._is_closed
        self._finish([], unwanted)
        if is_closed:
            raise ModelClosedError("the model was closed", hint="open it again")

    def tidy(self) -> None:
        """Where memory is short, close what stands by, the one not used for longest first."""
        if self._memory != "auto":
            return
        while self._standby and (free := self._room.free_bytes()) is not None and free < RESERVE_BYTES:
            with self._lock:
                id_ = next(iter(self._standby), None)
                if id_ is None:
                    return
                engine = self._standby.pop(id_)
            engine.close()
            _log.info("%s stands by no longer: %.0f MB are free", id_, free / 1e6)

    def close(self) -> None:
        """Call off what is under way, refuse new calls and orders, free all engines. May be repeated."""
        with self._lock:
            self._is_closed = True
            error = ModelClosedError("the model was closed", hint="open it again")
            over = [e for e in (self._wanted, self._current) if e is not None and e.settle(error)]
            unwanted, self._standby = list(self._standby.values()), {}
            loading, worker = self._loading, self._at_work
        if loading is not None:
            loading.cancel()
        self._finish(over, unwanted)
        self._seat.close()
        if worker is not threading.current_thread():
            self._idle.wait(_JOIN_S)

    def lose(self) -> None:
        """In the child of a fork: whoever held a lock, and the thread that loads, stayed in the parent."""
        self._lock, self._one_load = threading.Lock(), threading.Lock()
        self._at_work = self._wanted = self._current = self._loading = self._away = None
        self._idle = threading.Event()
        self._idle.set()
        self._standby = {}
        self._is_closed = True
        self._seat.lose()

    # ------------------------------------------------------------------------------- what the lock is held for

    def _is_there(self, switch: Switch, unwanted: list[Loaded]) -> bool:
        """Whether the variant is in force, or loaded and now put in force."""
        id_, active = switch.variant, self._seat.active
        if self._seat.is_vacant:
            return False
        if id_ == active:
            return True
        is_recalled, idle = self._seat.recall(id_)
        if not is_recalled:
            if id_ not in self._standby:
                return False
            idle = self._seat.swap(id_, self._standby.pop(id_))
        switch.replaced = active
        if idle is not None:
            unwanted += self._kept(*idle)
        return True

    def _kept(self, id_: str, engine: Loaded) -> list[Loaded]:
        """Keep an engine that no call is in, if it may stand by; what is to be closed."""
        is_double = id_ in self._standby or id_ == self._seat.active
        if self._is_closed or not self._most or is_double:
            return [engine]
        self._standby[id_] = engine
        excess = list(self._standby)[: max(0, len(self._standby) - self._most)]
        return [self._standby.pop(each) for each in excess]

    def _claim(self) -> bool:
        """Whether there is an order that nobody is about to carry out; now the caller is."""
        if self._wanted is None or not self._idle.is_set():
            return False
        self._idle.clear()
        return True

    # ----------------------------------------------------------------------------------- with no lock held

    def _finish(self, over: list[Switch], unwanted: list[Loaded]) -> None:
        for switch in over:
            try:
                self._told(switch)
            finally:
                switch.end()
        for engine in unwanted:
            engine.close()

    def _call_off(self, switch: Switch, error: Exception) -> bool:
        with self._lock:
            if not switch.settle(error):
                return False
            if self._wanted is switch:
                self._wanted = None
            loading = self._loading if self._current is switch else None
        if loading is not None:
            loading.cancel()
        self._finish([switch], [])
        return True

    def _retired(self, id_: str, engine: Loaded) -> None:
        """Take over an engine that was swapped out, in the thread of its last call."""
        with self._lock:
            unwanted = self._kept(id_, engine)
        self._finish([], unwanted)

    # --------------------------------------------------------------------- in the one thread that is at work

    def _start(self) -> None:
        threading.Thread(target=self._work, name="edge-switch", daemon=True).start()

    def _work(self, mine: Switch | None = None) -> None:
        """Carry out orders until there is none; with `mine`, that one alone, and a thread does what else there is."""
        self._at_work = threading.current_thread()
        while True:
            with self._lock:
                if self._is_closed or (self._wanted is None and self._away is None):
                    self._at_work = None
                    self._idle.set()
                    return
                if mine is not None and self._wanted is not mine:
                    break
                switch = self._wanted or Switch(self._away or "", self._call_off)
                self._wanted, self._current = None, switch
            engine: Loaded | None = None
            error: Exception | None = None
            try:
                engine = self._loaded(switch)
            except Exception as cause:  # noqa: BLE001 - a task runner: whoever waits for the order is told
                error = cause
            except BaseException:
                interrupted = SwitchCancelledError(f"the switch to {switch.variant!r} was interrupted")
                self._carry_out(switch, None, interrupted)
                self._start()
                raise
            self._carry_out(switch, engine, error)
        self._start()

    def _carry_out(self, switch: Switch, engine: Loaded | None, error: Exception | None) -> None:
        unwanted: list[Loaded] = []
        gap_ms = None
        with self._lock:
            self._current = None
            if error is None and engine is not None and switch.is_open():
                active = self._seat.active
                switch.replaced = None if active == switch.variant else active
                try:
                    idle = self._seat.swap(switch.variant, engine)
                except ModelClosedError as cause:
                    error = cause
                else:
                    unwanted += [] if idle is None else self._kept(*idle)
                    if self._away is not None:
                        self._away = None
                        self.gap_ms = gap_ms = (time.perf_counter() - self._vacated_s) * 1e3
            elif engine is not None:
                unwanted.append(engine)
            is_lost = error is not None and switch.variant == self._away and self._wanted is None
            if is_lost:
                self._away, self._is_closed = None, True
            is_over = switch.settle(error)
        if is_lost:
            _log.error("%s gave way and cannot be loaded again; the model is closed: %s", switch.variant, str(error))
            self._seat.close()
        if gap_ms is not None:
            _log.info(
                "memory did not hold two variants: none answered for %.0f ms, now %s does", gap_ms, switch.variant
            )
        self._finish([switch] if is_over else [], unwanted)
        self.tidy()

    def _loaded(self, switch: Switch) -> Loaded | None:
        """The engine of an order; None where the order was called off before its load began."""
        id_ = switch.variant
        with self._one_load:
            with self._lock:
                if not switch.is_open():
                    return None
                standing = self._standby.pop(id_, None)
            if standing is not None:
                return standing
            self._make_room(id_)
            loading = self._load(id_)
            with self._lock:
                if not switch.is_open():
                    return None
                self._loading = loading
            try:
                return self._room.measured(id_, loading.run)
            finally:
                with self._lock:
                    self._loading = None

    def _make_room(self, id_: str) -> None:
        """See to it that the variant can be loaded, at the cost of what stands by, or of the one in force."""
        if self._seat.is_vacant or self._memory == "ample":
            return
        if self._memory == "auto":
            try:
                self._fit_beside(id_)
            except MemoryShortError:
                free, needed = self._room.free_bytes() or 0, self._room.needs_bytes(id_)
                if needed > free + self._room.needs_bytes(self._seat.active):
                    raise
            else:
                return
        self._vacated_s = time.perf_counter()
        old = self._seat.vacate(_DRAIN_S)
        if old is not None:
            with self._lock:
                self._away = old[0]
            old[1].close()

    def _fit_beside(self, id_: str) -> None:
        """Close of what stands by as much as another engine needs.

        Raises:
            MemoryShortError: It does not fit beside the one in force.
        """
        free = self._room.free_bytes()
        if free is None:
            return
        needed = self._room.needs_bytes(id_)
        while needed + RESERVE_BYTES > free:
            with self._lock:
                standing = [(each, self._standby.pop(each)) for each in list(self._standby)[:1]]
            if not standing:
                raise MemoryShortError(
                    f"{id_!r} needs {needed / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free",
                    hint="end other programs, or take a smaller variant",
                )
            for each, engine in standing:
                engine.close()
                # What it gives back stays partly with this process, where the next one finds it.
                free += self._room.needs_bytes(each)


def check(memory: object, standby: object) -> None:
    """Refuse what makes no sense.

    Raises:
        UsageError: With what it takes instead.
    """
    if memory not in ("auto", "ample", "tight"):
        raise UsageError(f"memory is {memory!r}", hint="it is 'auto', 'ample' or 'tight'")
    if not isinstance(standby, int) or isinstance(standby, bool) or standby < 0:
        raise UsageError(f"standby is {standby!r}", hint="give a whole number from 0 up")
    if standby > 0 and memory == "tight":
        raise UsageError("nothing can stand by where memory is tight", hint="leave out standby, or memory")
