"""A model as an app sees it: arrays in, arrays out, and under them a variant that may change between two calls.

Who decides which variant runs: the app, where it names one; else the daemon, where one runs that serves the model; else
`edge_sdk.deciding`, inside the process. How a switch loses no call is `edge_sdk.lease`'s business, and what is loaded
when is `edge_sdk.switching`'s.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_sdk import deciding
from edge_sdk.anyengine import AnyEngine
from edge_sdk.bundle import Bundle
from edge_sdk.delegates import DelegateRequest
from edge_sdk.delegates.contract import AUTO
from edge_sdk.errors import (
    DaemonUnreachableError,
    DelegateError,
    EdgeError,
    InputNameError,
    InputShapeError,
    MemoryShortError,
    ModelClosedError,
    SwitchCancelledError,
    SwitchTimeoutError,
    UnknownVariantError,
)
from edge_sdk.lease import Seat
from edge_sdk.link import DaemonLink
from edge_sdk.local import AppReport, Assignment
from edge_sdk.machine import machine_name
from edge_sdk.manifest import TensorSpec
from edge_sdk.opening import open_variant
from edge_sdk.origin import found, usable
from edge_sdk.preference import Preference
from edge_sdk.room import Room
from edge_sdk.runtime import choose
from edge_sdk.switch import Loading, Switch
from edge_sdk.switching import Memory, Switcher, check
from edge_sdk.tally import Tally

if TYPE_CHECKING:
    from typing_extensions import Self

_log = logging.getLogger(__name__)

_STEP_S = 1.0
_JOIN_S = 5.0
_MAX_FAILURE = 1000


class EdgeModel:
    """A model from a bundle, or from the daemon of this board.

        with EdgeModel("digits-1.edge") as model:
            scores = model(image)

    Safe for any number of threads; calls are answered one at a time, in the order they came. To compute side by side,
    open several.

    Args:
        source: A bundle's directory, or the name under which a daemon serves the model.
        variant: Run this variant and no other: neither daemon nor policy decides.
        threads: Of the interpreter, for one inference.
        delegate: Who computes. `auto` uses the accelerators that are found here for the variants made for them; `cpu`
            none. Another one, such as `edgetpu:usb:0` or the path of a library, computes every variant that was not
            made for something else. Behind each stands the CPU: what an accelerator cannot do is logged and done there.
        preference: What this app wants. With a daemon it counts only where nobody else has said what they want.
        memory: `auto` loads the next variant beside the one that runs where both fit into what is free, and closes
            the old one first where they do not: calls wait meanwhile, and `gap_ms` says how long they had to. `ample`
            and `tight` name the one or the other way.
        standby: So many variants that ran before are kept loaded while memory is not short, so that a switch back to
            one takes no load.
        socket: Of the daemon; None takes `EDGE_DAEMON_SOCKET` or the usual places.
        name: What the app calls itself, for people who ask the daemon.

    Raises:
        BundleError, BlobMismatchError: The bundle is missing or damaged.
        DaemonUnreachableError: `source` is a name and no daemon answers.
        UnknownVariantError: The bundle has no such variant.
        DelegateError: No variant can be loaded here.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        *,
        variant: str | None = None,
        threads: int = 1,
        delegate: str | DelegateRequest = AUTO,
        preference: Preference | None = None,
        memory: Memory = "auto",
        standby: int = 0,
        socket: str | os.PathLike[str] | None = None,
        name: str = "",
    ) -> None:
        check(memory, standby)
        self._threads, self._delegate, self._memory, self._standby = threads, delegate, memory, standby
        self._preference = preference
        self._runtime = choose()
        self._tally = Tally(self._hurry)
        self._turn = threading.RLock()  # one decision at a time
        self._stopped = threading.Event()
        self._link: DaemonLink | None = None
        self._deciding: threading.Thread | None = None
        self._chooser: deciding.Chooser | None = None
        self._pin: str | None = None
        self._pinning: tuple[Switch, str | None] | None = None  # the app's order under way, and its pin before that
        self._assigned: tuple[str, int, str] | None = None  # the newest: to which app, its serial, the variant
        self._failed: tuple[str, str] | None = None  # a variant that could not be loaded, and why; to be reported
        self._refused: tuple[str, int, str] | None = None  # the assignment that was about
        self._switched_ms: float | None = None
        bundle, link = found(source, variant, preference, socket, name)
        try:
            self._start(bundle, variant, link)
        except BaseException:
            if link is not None:
                link.close()
            raise
        _LIVE.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, *arrays: Any, **named: Any) -> Any:
        """The model's answer.

        Args:
            *arrays: One array per input, in the order of `inputs`; or one mapping from names to arrays. A batch of any
                size is taken, and a single sample without the batch dimension gives an answer without it.
            **named: The same by name.

        Returns:
            The output, where there is one; else a dict of outputs by name. Fresh arrays that belong to the caller.

        Raises:
            InputError: An array the model does not take.
            ModelClosedError: After `close`.
            DelegateError: The runtime failed while it computed.
        """
        # An array is looked at first: to ask of it whether it is a mapping takes longer.
        if named or (len(arrays) == 1 and type(arrays[0]) is not np.ndarray and isinstance(arrays[0], Mapping)):
            arrays = self._ordered(arrays, named)
        try:
            _, answer = self._seat.run(arrays)
        except DelegateError:
            self._tally.failed()
            raise
        if len(answer) == 1:
            return answer[0]
        return {spec.name: each for spec, each in zip(self.outputs, answer, strict=True)}

    @property
    def active(self) -> str:
        """The variant that answers calls now."""
        return self._seat.active

    @property
    def standby(self) -> tuple[str, ...]:
        """The variants that are loaded beside the active one, the one that ran last first."""
        return self._switcher.standby

    @property
    def gap_ms(self) -> float | None:
        """How long calls had to wait at the last switch for which memory did not hold two; None if there was none."""
        return self._switcher.gap_ms

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants that can run here, the best first."""
        return tuple(each.id for each in self._usable)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What a call takes."""
        return self.bundle.manifest.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What a call gives."""
        return self.bundle.manifest.outputs

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the classes, where the bundle knows them."""
        return self.bundle.manifest.labels

    def prepare(self, image: Any) -> Any:
        """A raw image or array as the model was judged on: resized, cropped and normalised as the bundle records.

        Args:
            image: A Pillow image, or an array `[height, width]` or `[height, width, channels]`.

        Returns:
            float32 without the batch dimension, to call the model with.

        Raises:
            InputError: It is no image that can be brought to the model's size.
            MissingExtraError: It has to be resized and Pillow (`adaptive-edge-sdk[images]`) is not installed.
        """
        from edge_sdk import preprocess

        shape = self.inputs[0].shape
        channels = shape[-1] if len(shape) == 4 else None  # noqa: PLR2004 - batch, height, width, channels
        return preprocess.prepare(image, self.bundle.manifest.preprocessing, channels=channels)

    def switch(self, variant: str | None, *, deadline_s: float | None = None) -> None:
        """Run this variant from now on; returns once it answers. None gives the decision back.

        With a daemon this is the app's own pin, which the hub and the operator of the board can overrule.

        Args:
            variant: Its id.
            deadline_s: Where it does not answer by then, the switch is called off.

        Raises:
            UnknownVariantError: There is none of this name, or it cannot run here.
            PinnedError: The operator or the hub has pinned another.
            ModelLoadError, MemoryShortError: It cannot be loaded; the old one goes on.
            SwitchTimeoutError: It was not loaded by the deadline; the old one goes on.
            SwitchCancelledError: A newer order took its place.
            ModelClosedError: After `close`.
        """
        if variant is None:
            self._unpin()
            return
        switch = self.begin_switch(variant)
        try:
            is_over = switch.wait(deadline_s)
        except BaseException:
            switch.cancel()
            raise
        if not is_over and switch.cancel():
            raise SwitchTimeoutError(f"{variant!r} was not loaded within {deadline_s:g} s", where=str(self.bundle.path))
        if switch.error is not None:
            raise switch.error

    def begin_switch(self, variant: str) -> Switch:
        """Order a variant and return at once; what ran goes on until it answers.

        A newer order, whoever gives it, takes the place of one that is not carried out yet.

        Raises:
            UnknownVariantError, PinnedError, ModelClosedError: As `switch` does.
        """
        self._known(variant)
        with self._turn:
            self._open()
            if self._link is not None:
                try:
                    self._note(self._link.pin(variant))
                except DaemonUnreachableError as error:
                    _log.debug("nobody is there to say no: %s", error)
            switch = self._switcher.begin(variant)
            if not switch.done:
                self._pinning = switch, self._pin
            self._pin = variant
            return switch

    def stand_by(self, variant: str) -> None:
        """Load a variant ahead, so that a switch to it takes no load; returns once it stands by.

        Raises:
            UsageError: The model was opened without `standby`.
            UnknownVariantError: There is none of this name, or it cannot run here.
            MemoryShortError: It does not fit beside the one that runs.
            ModelLoadError: It cannot be loaded.
            ModelClosedError: After `close`.
        """
        self._known(variant)
        self._open()
        self._switcher.stand_by(variant)

    def close(self) -> None:
        """End what runs in the background, wait for calls under way, free the memory. May be repeated."""
        self._stopped.set()
        if self._link is not None:
            self._link.close()
        if self._deciding is not None and self._deciding is not threading.current_thread():
            self._deciding.join(_JOIN_S)
        self._switcher.close()
        _LIVE.discard(self)

    # --------------------------------------------------------------------------------------------- beginning

    def _start(self, bundle: Bundle, variant: str | None, link: DaemonLink | None) -> None:
        self.bundle = bundle
        self._usable = usable(bundle, self._runtime, self._delegate)
        self._room = Room(bundle.manifest.variants, bundle.latencies)
        if variant is not None:
            self._begin_with(variant)
            return
        if not self._usable:
            raise DelegateError(
                "no variant of this bundle can run here", where=str(bundle.path), hint="see 'edge inspect'"
            )
        if link is not None:
            self._start_with(link)
            return
        self._chooser = deciding.first(
            self._usable,
            bundle.latencies(),
            machine_name(),
            self._preference or Preference(),
            time.monotonic(),
        )
        self._begin_with_first_that_loads()
        self._tally.limit_ms = self._chooser.preference.max_latency_ms
        self._deciding = threading.Thread(target=_decide, args=(weakref.ref(self), self._stopped), daemon=True)
        self._deciding.name = "edge-deciding"
        self._deciding.start()

    def _begin_with(self, id_: str) -> None:
        self._seat = Seat(id_, self._room.measured(id_, lambda: self._load(id_)))
        self._switcher = Switcher(
            self._seat,
            self._loading,
            self._room,
            memory=self._memory,
            standby=self._standby,
            told=self._over,
        )

    def _start_with(self, link: DaemonLink) -> None:
        assignment = link.registered.assignment
        trouble: EdgeError | None = None
        for _ in range(len(self._usable) + 1):
            try:
                self._begin_with(assignment.variant)
                break
            except EdgeError as error:
                trouble = error
                _log.warning("the daemon's choice %s cannot be loaded: %s", assignment.variant, str(error))
                tried = assignment.variant
                failure = str(error)[:_MAX_FAILURE]
                assignment = link.say(AppReport(active=tried, failed_variant=tried, failure=failure))
                if assignment.variant == tried:
                    raise
        else:
            raise trouble or DelegateError("no variant can be loaded", where=str(self.bundle.path))
        self._link = link
        self._note(assignment)
        me = weakref.ref(self)

        def report() -> AppReport:
            model = me()
            if model is None:  # forgotten without `close`
                link.abandon()
                return AppReport(active=assignment.variant)
            return model._report()  # noqa: SLF001 - a function of this class

        def adopt(told: Assignment) -> None:
            model = me()
            if model is not None:
                model._follow(told)  # noqa: SLF001 - a function of this class

        link.start(report, adopt)

    def _begin_with_first_that_loads(self) -> None:
        while True:
            chooser = self._chooser
            assert chooser is not None  # noqa: S101 - set by the only caller
            try:
                self._begin_with(chooser.active)
            except DelegateError as error:
                left = chooser.without(chooser.active)
                if not left.variants:
                    raise
                # As text: the error's traceback holds the file open for as long as a handler keeps the record.
                _log.warning("%s cannot be loaded, another one is taken: %s", chooser.active, str(error))
                self._forget(chooser.active)
            else:
                return

    # --------------------------------------------------------------------------------------------- switching

    def _known(self, variant: str) -> None:
        self.bundle.variant(variant)
        if variant not in self.variants:
            raise UnknownVariantError(
                f"{variant!r} cannot run on this machine", where=str(self.bundle.path),
                hint=f"these can: {', '.join(self.variants)}",
            )  # fmt: skip

    def _open(self) -> None:
        if self._stopped.is_set():
            raise ModelClosedError("the model was closed", hint="open it again")

    def _loading(self, id_: str) -> Loading:
        called_off = threading.Event()
        return Loading(run=lambda: self._load(id_, called_off.is_set), cancel=called_off.set)

    def _load(self, id_: str, cancelled: Callable[[], bool] = lambda: False) -> AnyEngine:
        tally = self._tally
        return open_variant(
            self.bundle,
            id_,
            delegate=self._delegate,
            threads=self._threads,
            runtime=self._runtime,
            observe=lambda ms: tally.ran(id_, ms),
            cancelled=cancelled,
        )

    def _unpin(self) -> None:
        with self._turn:
            self._open()
            if self._pinning is not None:
                self._pinning[0].cancel()
            if self._link is not None:
                try:
                    self._adopt(self._link.pin(None))
                except DaemonUnreachableError:
                    return  # there is nobody to decide; what runs goes on
            self._pin = None
            self._step()

    def _over(self, switch: Switch) -> None:
        """An order was carried out, or was not: told by the switcher."""
        with self._turn:
            error = switch.error
            if self._pinning is not None and self._pinning[0] is switch:
                if error is not None:
                    self._pin = self._pinning[1]
                self._pinning = None
            if isinstance(error, SwitchCancelledError | ModelClosedError):
                return
            if error is not None:
                self._not_loaded(switch.variant, error)
            elif switch.replaced is not None:
                self._switched_ms = switch.took_ms
                _log.info("%s runs instead of %s", switch.variant, switch.replaced)
            else:
                return
        self._hurry()

    def _not_loaded(self, id_: str, error: Exception) -> None:
        assigned = self._assigned
        _log.warning("%s cannot be loaded, %s goes on: %s", id_, self._seat.active, str(error))
        if self._link is not None:
            self._failed = (id_, str(error)[:_MAX_FAILURE])
            if assigned is not None and assigned[2] == id_:
                self._refused = assigned
        elif self._chooser is not None and self._pin is None:
            if isinstance(error, MemoryShortError):  # there may be room later
                self._chooser = replace(self._chooser, active=self._seat.active, changed_s=time.monotonic())
            else:
                self._forget(id_)

    def _step(self, window: deciding.Window | None = None) -> None:
        """Let the policy inside the process decide; called with the turn held."""
        if self._chooser is None or self._pin is not None or self._switcher.is_busy:
            return
        self._chooser = self._chooser.step(time.monotonic(), window)
        if self._chooser.active != self._seat.active:
            self._switcher.begin(self._chooser.active)

    def _forget(self, id_: str) -> None:
        """It cannot be loaded here after all."""
        self._usable = tuple(each for each in self._usable if each.id != id_)
        if self._chooser is not None:
            self._chooser = deciding.first(
                self._usable,
                self.bundle.latencies(),
                machine_name(),
                self._chooser.preference,
                time.monotonic(),
            )

    def _look(self) -> None:
        """Once a second where no daemon decides."""
        with self._turn:
            if self._stopped.is_set():
                return
            taken = self._tally.take(self._seat.active)
            window = None
            if taken.p50_ms is not None and taken.p95_ms is not None:
                window = deciding.Window(calls=taken.calls, p50_ms=taken.p50_ms, p95_ms=taken.p95_ms)
            self._step(window)
        self._switcher.tidy()

    # -------------------------------------------------------------------------------------------- the daemon

    def _hurry(self) -> None:
        if self._link is not None:
            self._link.hurry()

    def _report(self) -> AppReport:
        self._switcher.tidy()
        failed, self._failed = self._failed, None
        switched_ms, self._switched_ms = self._switched_ms, None
        taken = self._tally.take(self._seat.active)
        return AppReport(
            active=taken.variant,
            calls=taken.calls,
            late=taken.late,
            failed=taken.failed,
            p50_ms=taken.p50_ms,
            p95_ms=taken.p95_ms,
            switched_ms=switched_ms,
            failed_variant=failed[0] if failed else None,
            failure=failed[1] if failed else None,
        )

    def _follow(self, told: Assignment) -> None:
        """Carry out what the daemon says; what cannot be loaded is reported, and the old variant goes on."""
        with self._turn:
            if self._stopped.is_set():
                return
            try:
                self._adopt(told)
            except ModelClosedError as error:
                _log.debug("there is nothing to switch: %s", error)

    def _note(self, told: Assignment) -> bool:
        """Take in an assignment; whether there is none newer: two threads and the app's own pins bring them."""
        assert self._link is not None  # noqa: S101 - who else would assign
        app = self._link.registered.app
        if self._assigned is not None and self._assigned[0] == app and told.serial < self._assigned[1]:
            return False
        self._assigned = (app, told.serial, told.variant)
        self._tally.limit_ms = told.max_latency_ms
        return True

    def _adopt(self, told: Assignment) -> None:
        if not self._note(told):
            return
        if self._refused == self._assigned:
            return  # it was tried and reported; another assignment is on its way
        self._refused = None
        self._switcher.begin(told.variant)

    def _ordered(self, arrays: Sequence[Any], named: Mapping[str, Any]) -> tuple[Any, ...]:
        names = [spec.name for spec in self.inputs]
        given: dict[str, Any] = dict(named)
        if len(arrays) == 1 and isinstance(arrays[0], Mapping):
            given |= arrays[0]
        elif arrays:
            raise InputShapeError("arrays by position and by name at once", hint=f"name all of {', '.join(names)}")
        unknown = [name for name in given if name not in names]
        if unknown:
            raise InputNameError(f"no input {unknown[0]!r}", hint=f"there are: {', '.join(names)}")
        missing = [name for name in names if name not in given]
        if missing:
            raise InputNameError(f"input {missing[0]!r} is not given", hint=f"there are: {', '.join(names)}")
        return tuple(given[name] for name in names)

    def _lose(self) -> None:
        """In the child of a fork: threads and locks of the parent mean nothing here."""
        self._stopped = threading.Event()
        self._stopped.set()
        self._turn = threading.RLock()
        self._link = None
        self._deciding = None
        self._switcher.lose()


_LIVE: weakref.WeakSet[EdgeModel] = weakref.WeakSet()


def _lose_all() -> None:
    for model in tuple(_LIVE):
        model._lose()  # noqa: SLF001 - this module's own


os.register_at_fork(after_in_child=_lose_all)


def _decide(model: weakref.ref[EdgeModel], stopped: threading.Event) -> None:
    """The thread that steps the policy inside the process; ends when the model is closed or forgotten."""
    while not stopped.wait(_STEP_S):
        found = model()
        if found is None:
            return
        try:
            found._look()  # noqa: SLF001 - this module's own
        except ModelClosedError:
            return
        except EdgeError as error:
            _log.warning("the variant goes on as it is: %s", error)
        del found
