"""A model as an app sees it: arrays in, arrays out, and under them a variant that may change between two calls.

Who decides which variant runs: the app, where it names one; else the daemon, where one runs that serves the model; else
`edge_sdk.deciding`, inside the process. How a switch loses no call is `edge_sdk.lease`'s business.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from edge_sdk import deciding
from edge_sdk.bundle import Bundle
from edge_sdk.engine import CPU, Engine
from edge_sdk.errors import (
    DaemonUnreachableError,
    DelegateError,
    EdgeError,
    InputNameError,
    InputShapeError,
    ModelClosedError,
    UnknownVariantError,
    UsageError,
)
from edge_sdk.lease import Seat
from edge_sdk.link import DaemonLink
from edge_sdk.local import AppReport, Assignment
from edge_sdk.machine import machine_name
from edge_sdk.manifest import TensorSpec
from edge_sdk.origin import found, on_this_cpu, usable
from edge_sdk.preference import Preference
from edge_sdk.runtime import choose
from edge_sdk.tally import Tally

if TYPE_CHECKING:
    from typing_extensions import Self

_log = logging.getLogger(__name__)

_STEP_S = 1.0
_JOIN_S = 5.0
_MAX_FAILURE = 1000

Memory = Literal["ample", "tight"]


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
        delegate: Who computes; only `cpu` so far.
        preference: What this app wants. With a daemon it counts only where nobody else has said what they want.
        memory: `ample` loads the next variant beside the one that runs. `tight` closes the old one first, for boards on
            which two do not fit: calls wait meanwhile, and `gap_ms` says how long they had to.
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
        delegate: str = CPU,
        preference: Preference | None = None,
        memory: Memory = "ample",
        socket: str | os.PathLike[str] | None = None,
        name: str = "",
    ) -> None:
        if memory not in ("ample", "tight"):
            raise UsageError(f"memory is {memory!r}", hint="it is 'ample' or 'tight'")
        self._threads, self._delegate, self._memory = threads, delegate, memory
        self._preference = preference
        self._runtime = choose()
        self._tally = Tally(self._hurry)
        self._turn = threading.RLock()  # one switch at a time
        self._stopped = threading.Event()
        self._link: DaemonLink | None = None
        self._deciding: threading.Thread | None = None
        self._chooser: deciding.Chooser | None = None
        self._pin: str | None = None
        self._failed: tuple[str, str] | None = None  # a variant that could not be loaded, and why; to be reported
        self._refused: tuple[int, str] | None = None  # the assignment that was about
        self._switched_ms: float | None = None
        self.gap_ms: float | None = None
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
        if named or (len(arrays) == 1 and isinstance(arrays[0], Mapping)):
            arrays = self._ordered(arrays, named)
        try:
            _, answer = self._seat.run(arrays)
        except DelegateError:
            self._tally.failed()
            raise
        if len(answer) == 1:
            return answer[0]
        return {spec.name: each for spec, each in zip(self.outputs, answer, strict=True)}

    def run(self, arrays: Sequence[Any]) -> list[Any]:
        """One answer per output, as every engine gives them: a model may stand where an engine is asked for.

        Raises:
            InputError: An array the model does not take.
            ModelClosedError: After `close`.
            DelegateError: The runtime failed while it computed.
        """
        return self.answered(arrays)[1]

    def answered(self, arrays: Sequence[Any]) -> tuple[str, list[Any]]:
        """The same, and before it the variant that computed it."""
        try:
            return self._seat.run(arrays)
        except DelegateError:
            self._tally.failed()
            raise

    @property
    def active(self) -> str:
        """The variant that answers calls now."""
        return self._seat.active

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

    def switch(self, variant: str | None) -> None:
        """Run this variant from now on; returns once it answers. None gives the decision back.

        With a daemon this is the app's own pin, which the hub and the operator of the board can overrule.

        Raises:
            UnknownVariantError: There is none of this name, or it cannot run here.
            PinnedError: The operator or the hub has pinned another.
            ModelLoadError: It cannot be loaded; the old one goes on.
            ModelClosedError: After `close`.
        """
        if variant is not None:
            self._known(variant)
        with self._turn:
            if self._stopped.is_set():
                raise ModelClosedError("the model was closed", hint="open it again")
            if self._link is not None:
                try:
                    self._adopt(self._link.pin(variant))
                except DaemonUnreachableError:
                    if variant is None:
                        return  # there is nobody to decide; what runs goes on
            if variant is not None:
                self._change(variant)
            self._pin = variant
            if self._chooser is not None:
                self._step()

    def close(self) -> None:
        """End what runs in the background, wait for calls under way, free the memory. May be repeated."""
        self._stopped.set()
        if self._link is not None:
            self._link.close()
        if self._deciding is not None and self._deciding is not threading.current_thread():
            self._deciding.join(_JOIN_S)
        self._seat.close()
        _LIVE.discard(self)

    # --------------------------------------------------------------------------------------------- beginning

    def _start(self, bundle: Bundle, variant: str | None, link: DaemonLink | None) -> None:
        self.bundle = bundle
        self._usable = usable(bundle, self._runtime)
        if variant is not None:
            on_this_cpu(bundle.variant(variant), where=str(bundle.path))
            self._seat = Seat(variant, self._load(variant))
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
        self._seat = self._first_that_loads()
        self._tally.limit_ms = self._chooser.preference.max_latency_ms
        self._deciding = threading.Thread(target=_decide, args=(weakref.ref(self), self._stopped), daemon=True)
        self._deciding.name = "edge-deciding"
        self._deciding.start()

    def _start_with(self, link: DaemonLink) -> None:
        assignment = link.registered.assignment
        trouble: EdgeError | None = None
        for _ in range(len(self._usable) + 1):
            try:
                self._seat = Seat(assignment.variant, self._load(assignment.variant))
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
        self._tally.limit_ms = assignment.max_latency_ms
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

    def _first_that_loads(self) -> Seat:
        while True:
            chooser = self._chooser
            assert chooser is not None  # noqa: S101 - set by the only caller
            try:
                return Seat(chooser.active, self._load(chooser.active))
            except DelegateError as error:
                left = chooser.without(chooser.active)
                if not left.variants:
                    raise
                # As text: the error's traceback holds the file open for as long as a handler keeps the record.
                _log.warning("%s cannot be loaded, another one is taken: %s", chooser.active, str(error))
                self._forget(chooser.active)

    # --------------------------------------------------------------------------------------------- switching

    def _known(self, variant: str) -> None:
        self.bundle.variant(variant)
        if variant not in self.variants:
            raise UnknownVariantError(
                f"{variant!r} cannot run on this machine", where=str(self.bundle.path),
                hint=f"these can: {', '.join(self.variants)}",
            )  # fmt: skip

    def _load(self, id_: str) -> Engine:
        variant = self.bundle.variant(id_)
        tally = self._tally
        return Engine(
            self.bundle.blob(variant),
            threads=self._threads,
            runtime=self._runtime,
            delegate=self._delegate,
            observe=lambda ms: tally.ran(id_, ms),
        )

    def _change(self, id_: str) -> None:
        """Put a variant in force; called with the turn held."""
        old = self._seat.active
        if id_ == old:
            return
        begun_s = time.perf_counter()
        if self._memory == "tight":
            self.gap_ms = self._seat.give_way(id_, lambda: self._load(id_), lambda: self._load(old))
        else:
            self._seat.swap(id_, self._load(id_))
        self._switched_ms = (time.perf_counter() - begun_s) * 1e3
        _log.info("%s runs instead of %s", id_, old)

    def _step(self, window: deciding.Window | None = None) -> None:
        """Let the policy inside the process decide; called with the turn held."""
        chooser = self._chooser
        if chooser is None or self._pin is not None:
            return
        stepped = chooser.step(time.monotonic(), window)
        if stepped.active == self._seat.active:
            self._chooser = stepped
            return
        try:
            self._change(stepped.active)
            self._chooser = stepped
        except DelegateError as error:
            _log.warning("%s cannot be loaded and is left out: %s", stepped.active, str(error))
            self._forget(stepped.active)

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

    # -------------------------------------------------------------------------------------------- the daemon

    def _hurry(self) -> None:
        if self._link is not None:
            self._link.hurry()

    def _report(self) -> AppReport:
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
            if not self._stopped.is_set():
                self._adopt(told)

    def _adopt(self, told: Assignment) -> None:
        self._tally.limit_ms = told.max_latency_ms
        if told.variant == self._seat.active:
            self._refused = None
            return
        if self._refused == (told.serial, told.variant):
            return  # it was tried and reported; another assignment is on its way
        try:
            self._change(told.variant)
        except EdgeError as error:
            self._refused = (told.serial, told.variant)
            self._failed = (told.variant, str(error)[:_MAX_FAILURE])
            _log.warning("%s cannot be loaded, %s goes on: %s", told.variant, self._seat.active, str(error))
        self._hurry()

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
        self._seat.lose()


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
