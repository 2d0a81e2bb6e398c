"""A model as an app sees it: arrays in, arrays out, and under them a variant that may change between two calls.

Who decides which variant runs: the app, where it names one; else the daemon, where one runs that serves the model; else
`edge_sdk.deciding`, inside the process. How a switch loses no call is `edge_sdk.lease`'s business, and what is loaded
when is `edge_sdk.switching`'s.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edge_sdk.anyengine import AnyEngine
from edge_sdk.asking import SERVER, Asking, Runs
from edge_sdk.bundle import Bundle
from edge_sdk.delegates.contract import AUTO, Delegates
from edge_sdk.errors import (
    DelegateError,
    EdgeError,
    ModelClosedError,
    SwitchCancelledError,
    SwitchTimeoutError,
    UnknownVariantError,
)
from edge_sdk.faring import Falls, Faring
from edge_sdk.following import MAX_FAILURE, Follower
from edge_sdk.guard import GuardedEngine
from edge_sdk.lease import Seat
from edge_sdk.link import DaemonLink
from edge_sdk.living import Living
from edge_sdk.local import AppReport
from edge_sdk.manifest import TensorSpec
from edge_sdk.naming import ordered
from edge_sdk.opening import open_variant
from edge_sdk.origin import check_preference, found, usable
from edge_sdk.own_policy import OwnPolicy
from edge_sdk.preference import Preference
from edge_sdk.room import Room
from edge_sdk.runtime import choose
from edge_sdk.switch import Loading, Switch, check_deadline
from edge_sdk.switching import Memory, Switcher, check
from edge_sdk.tally import Tally
from edge_sdk.threads import wanted
from edge_sdk.usage import AcceleratorWatch, Usage, watch

if TYPE_CHECKING:
    from typing_extensions import Self

_log = logging.getLogger(__name__)


class EdgeModel:
    """A model from a bundle, or from the daemon of this board.

        with EdgeModel("digits-1.edge") as model:
            scores = model(image)

    Safe for any number of threads; calls are answered one at a time, in the order they came. To compute side by side,
    open several.

    Args:
        source: A bundle's directory, or the name under which a daemon serves the model.
        variant: Run this variant and no other: neither daemon nor policy decides.
        threads: Of the interpreter, for one inference. `measured` takes for each variant what `edge bench --threads
            sweep --write` found best on this machine, 1 where it did not.
        delegate: Who computes. `auto` uses the accelerators that are found here for the variants made for them; `cpu`
            none. Another one, such as `edgetpu:usb:0` or the path of a library, computes every variant that was not
            made for something else; of several, the first that works. Behind all stands the CPU: what an accelerator
            cannot do is logged and done there.
        preference: What this app wants. With a daemon its limits count beside everybody else's, the strictest of each,
            and its mode only where nobody else has said what they want.
        memory: `auto` loads the next variant beside the one that runs where both fit into what is free, and closes
            the old one first where they do not: calls wait meanwhile, and `gap_ms` says how long they had to. `ample`
            and `tight` name the one or the other way.
        standby: So many variants that ran before are kept loaded while memory is not short, so that a switch back to
            one takes no load.
        socket: Of the daemon; None takes `EDGE_DAEMON_SOCKET` or the usual places.
        name: What the app calls itself, for people who ask the daemon.
        asks_servers: Whether a server that the daemon names may be asked; else every call is computed here.
        on_advice: Told when the daemon advises a rate, see `advised_rate`; in a thread of the model, must be quick.
            If it raises, that is logged.

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
        threads: int | Literal["measured"] = 1,
        delegate: Delegates = AUTO,
        preference: Preference | None = None,
        memory: Memory = "auto",
        standby: int = 0,
        socket: str | os.PathLike[str] | None = None,
        name: str = "",
        asks_servers: bool = True,
        on_advice: Callable[[float | None], None] = lambda _: None,
    ) -> None:
        check(memory, standby)
        self._threads, self._delegate, self._memory, self._standby = threads, delegate, memory, standby
        self._preference, self._on_advice = preference, on_advice
        self._runtime = choose()
        self._tally = Tally(self._hurry)
        self._accelerated: dict[str, tuple[GuardedEngine, AcceleratorWatch]] = {}  # the engine last loaded of each
        self._falls = Falls()
        self._faring = Faring(self._accelerated, self._falls)
        self._turn, self._stopped = threading.RLock(), threading.Event()  # the turn: one decision at a time
        self._follower: Follower | None = None
        self._policy: OwnPolicy | None = None
        self._pin: str | None = None
        self._pinning: tuple[Switch, str | None] | None = None  # the app's order under way, and its pin before that
        bundle, link = found(source, variant, preference, socket, name, asks=asks_servers)
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
            arrays = ordered(self.inputs, arrays, named)
        try:
            _, answer = self._answer(arrays)
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
        """The same, and before it the variant that computed it, or `server`."""
        try:
            return self._answer(arrays)
        except DelegateError:
            self._tally.failed()
            raise

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
    def computes_on(self) -> str:
        """Who answers calls now: `cpu`, the active variant's delegate while it works, or a `server` that is asked."""
        return SERVER if self._asking.is_on else self._faring.computes_on(self.active)

    def usage(self) -> Usage | None:
        """How busy and how hot the accelerator of the active variant is; None where the variant is for the CPU.

        Busy is the share of time since the last time this was asked.
        """
        found = self._accelerated.get(self.active)
        return None if found is None else found[1].look()

    @property
    def advised_rate(self) -> float | None:
        """How many calls a second would fit, where no variant keeps up with those there are; None where any do.

        The daemon says so, from heat, charge and time. Frames left out by choice are better than frames answered late.
        """
        return None if self._follower is None else self._follower.most_per_s

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants that can run here, the best first."""
        return tuple(each.id for each in (self._policy.usable if self._policy else self._usable))

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
            UsageError: The deadline makes no sense.
            PinnedError: The operator or the hub has pinned another.
            ModelLoadError, MemoryShortError: It cannot be loaded; the old one goes on.
            SwitchTimeoutError: It was not loaded by the deadline; the old one goes on.
            SwitchCancelledError: A newer order took its place.
            ModelClosedError: After `close`.
        """
        check_deadline(deadline_s)
        if variant is None:
            self._unpin()
            return
        switch = self._begin(variant, start=deadline_s is not None)
        try:
            self._switcher.carry_out()
            is_over = switch.wait(deadline_s)
        except BaseException:
            switch.cancel()
            raise
        if not is_over and switch.cancel():
            raise SwitchTimeoutError(f"{variant!r} was not loaded within {deadline_s:g} s", where=str(self.bundle.path))
        if switch.error is not None:
            raise switch.error

    def prefer(self, preference: Preference | None) -> None:
        """Say what this app wants from now on; None is nothing. Returns at once, the variant follows.

        Raises:
            UsageError: It is no preference.
            CommandError: The daemon is of a version that takes it at the start alone.
            ModelClosedError: After `close`.
        """
        check_preference(preference)
        with self._turn:
            self._open()
            decider = self._follower or self._policy
            if decider is not None:
                decider.prefer(preference)

    def begin_switch(self, variant: str) -> Switch:
        """Order a variant and return at once; what ran goes on until it answers.

        A newer order, whoever gives it, takes the place of one that is not carried out yet.

        Raises:
            UnknownVariantError, PinnedError, ModelClosedError: As `switch` does.
        """
        return self._begin(variant)

    def _begin(self, variant: str, *, start: bool = True) -> Switch:
        self._known(variant)
        with self._turn:
            self._open()
            if self._follower is not None:
                self._follower.pin(variant)
            switch = self._switcher.begin(variant, start=start)
            if not switch.done:
                self._pinning = switch, self._pin
            self._pin_to(variant)
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
        for part in (self._follower, self._policy, self._asking, self._switcher):
            if part is not None:
                part.close()
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
        preference = self._preference or Preference()
        self._policy = OwnPolicy(bundle, self._usable, preference, self._turn, self._accelerated)
        self._policy.begin(self._begin_with)
        self._policy.start(self._seat, self._switcher, self._tally)

    def _begin_with(self, id_: str) -> None:
        self.bundle.variant(id_)
        self._seat = Seat(id_, self._room.measured(id_, lambda: self._load(id_)))
        self._switcher = Switcher(
            self._seat, self._loading, self._room, memory=self._memory, standby=self._standby, told=self._over
        )
        self._asking = Asking(self.bundle.manifest, self._seat.run, self._tally, self._hurry)
        self._answer: Runs = self._seat.run
        self._tally.waited_ms = lambda: None if self.active in self._accelerated else self._seat.waited_ms

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
                failure = str(error)[:MAX_FAILURE]
                assignment = link.say(AppReport(active=tried, failed_variant=tried, failure=failure)).assignment
                if assignment.variant == tried:
                    raise
        else:
            raise trouble or DelegateError("no variant can be loaded", where=str(self.bundle.path))
        self._answer = self._asking.run
        self._follower = Follower(
            link, assignment, seat=self._seat, switcher=self._switcher, tally=self._tally, turn=self._turn,
            runs=tuple(each.id for each in self._usable), faring=self._faring, asking=self._asking,
            advised=self._on_advice,
        )  # fmt: skip

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
        engine = open_variant(
            self.bundle, id_, delegate=self._delegate, threads=wanted(self._threads, self.bundle, id_),
            runtime=self._runtime, observe=lambda ms: tally.ran(id_, ms), report=self._falls.happened,
            cancelled=cancelled,
        )  # fmt: skip
        if isinstance(engine, GuardedEngine):
            self._accelerated[id_] = engine, watch(engine)
        return engine

    def _unpin(self) -> None:
        with self._turn:
            self._open()
            if self._pinning is not None:
                self._pinning[0].cancel()
            if self._follower is not None and not self._follower.unpin():
                return  # what runs goes on
            self._pin_to(None)
            if self._policy is not None:
                self._policy.step()

    def _pin_to(self, variant: str | None) -> None:
        self._pin = variant
        if self._policy is not None:
            self._policy.is_pinned = variant is not None

    def _over(self, switch: Switch) -> None:
        """An order was carried out, or was not: told by the switcher."""
        with self._turn:
            error = switch.error
            is_pin = self._pinning is not None and self._pinning[0] is switch
            if is_pin and self._pinning is not None:
                if error is not None:
                    self._pin_to(self._pinning[1])
                self._pinning = None
            if isinstance(error, SwitchCancelledError | ModelClosedError):
                return
            if error is not None:
                _log.warning("%s cannot be loaded, %s goes on: %s", switch.variant, self._seat.active, str(error))
            elif switch.replaced is not None:
                _log.info("%s runs instead of %s", switch.variant, switch.replaced)
            else:
                return
            if self._follower is not None:
                self._follower.over(switch)
            if self._policy is not None and not is_pin:
                self._policy.over(switch)
        self._hurry()

    def _hurry(self) -> None:
        if self._follower is not None:
            self._follower.hurry()

    def _lose(self) -> None:
        """In the child of a fork: threads and locks of the parent mean nothing here."""
        self._stopped = threading.Event()
        self._stopped.set()
        self._turn = threading.RLock()
        self._follower = self._policy = None
        self._asking.lose()
        self._switcher.lose()


_LIVE: Living[EdgeModel] = Living(EdgeModel._lose)  # noqa: SLF001 - this module's own
