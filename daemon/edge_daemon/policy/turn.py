"""One step of the frame under way: what it asks the policy, and what it makes of the answers.

A decision changes for one of four reasons: somebody said so, the policy says so, what no policy may break asks for
something cheaper, or what was to run could not be loaded. A variant that was left may not come back within one dwell;
only somebody's word and what no policy may break override that. So no input makes the frame flap, whatever the policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from edge_daemon.policies.contract import Event, Probed, Second, Setting, TaskSeen, Verdict, Why
from edge_daemon.policy import tables
from edge_daemon.policy.because import because, failed
from edge_daemon.policy.plugged import Plugged, PluginError, plug
from edge_daemon.policy.safety import allowed, best, ceiling, cheapness
from edge_daemon.policy.setting import energy_j, lasts, setting_of, spared, task_of, too_late, usable
from edge_daemon.policy.state import HISTORY, SERVER, Left, ModelRecord, PolicyState, VariantRecord, Work, with_model
from edge_daemon.policy.types import Advise, Assign, Decided, Instruction, PolicyFailed, Try
from edge_daemon.policy.way import told
from edge_sdk.mqtt import Because, Decision

if TYPE_CHECKING:
    from edge_daemon.policy.frame import Frame

_BINDING = frozenset({"thermal", "battery", "throttle", "power", "network", "latency", "deadline", "accuracy"})
_FREE = frozenset({"gain", "start", "holds"})  # a policy's codes for: nothing bound
_NOBODY = Why(code="holds")  # where no policy was asked
_SCALED_S = 1.5  # a window longer than this is told as the second that it is a sample of


class Turn:
    """A step under way.

    Args:
        frame: The policy to use, and the board.
        state: Before the step.
        ticked: Time has just passed: dwells that begin, begin now.

    Attributes:
        frame: As given.
        state: After what was done so far.
        out: What is to be done, in order.
    """

    def __init__(self, frame: Frame, state: PolicyState, *, ticked: bool = False) -> None:
        self.frame = frame
        self._ticked = ticked
        self.state = state
        self.out: list[Instruction] = []

    # ------------------------------------------------------------------------------------------- asking the policy

    def plug(self) -> None:
        """Have the policy made for the setting as it is now; what it learned is carried over."""
        state, frame = self.state, self.frame
        setting, plugged = setting_of(state, frame.site), self._plugged
        if plugged is not None and plugged.setting == setting:
            return
        learned = state.learned if plugged is None else plugged.dump()
        self.state = replace(state, plugged=None, learned=learned, use=state.use if plugged is None else plugged.use)
        if setting.tasks and not self._rests():
            try:
                self.state = replace(self.state, plugged=self._made(setting))
            except PluginError as error:
                self._broke(error)

    def ask_second(self) -> Mapping[str, Verdict]:
        """The verdicts after the second that has just passed, by model; nothing where it is not over, or none asked."""
        state, plugged = self.state, self._plugged
        passed_s = None if state.asked_s is None else state.now_s - state.asked_s
        if plugged is None:
            if state.asked_s is not None:  # what comes after a pause is told as a second and not as the whole pause
                self.state = replace(state, asked_s=None)
            return {}
        if passed_s is not None and passed_s < tables.ASK_EVERY_S:
            return {}
        self.state = replace(state, asked_s=state.now_s, models=tuple(_rested(model) for model in state.models))
        share = 1.0 if passed_s is None or passed_s < _SCALED_S else 1.0 / passed_s
        verdicts = self.ask(self._second(state, plugged.setting, share))
        if verdicts and self.state.failed_s is not None:
            self.state = replace(self.state, failed_s=None)
        return verdicts

    def ask(self, event: Event) -> Mapping[str, Verdict]:
        """The verdicts after an event; nothing where the policy fails, which is said once."""
        plugged = self._plugged
        if plugged is None:
            return {}
        try:
            after, verdicts = plugged.ask(event)
        except PluginError as error:
            self._broke(error)
            return {}
        self.state = replace(self.state, plugged=after)
        return verdicts

    def would(self, model: ModelRecord) -> Verdict | None:
        """What the policy would say of a model were a second over in which one request came; it learns nothing of it.

        So somebody's word counts at once, and a model that no app runs yet has a first choice.
        """
        state, plugged = self.state, self._plugged
        if not model.variants:
            return None
        try:
            if plugged is None or all(task.name != model.name for task in plugged.setting.tasks):
                if self._rests():
                    return None
                plugged = self._made(
                    replace(setting_of(state, self.frame.site), tasks=(task_of(state, model, self.frame.site),))
                )
            asked = replace(model, work=Work(requests=1))
            others = tuple(asked if each.name == model.name else _rested(each) for each in state.models)
            _, verdicts = plugged.ask(self._second(replace(state, models=others), plugged.setting, 1.0))
        except PluginError as error:
            self._broke(error)
            return None
        return verdicts.get(model.name)

    @property
    def _plugged(self) -> Plugged | None:
        plugged: Plugged | None = self.state.plugged
        return plugged

    def _made(self, setting: Setting) -> Plugged:
        state, frame = self.state, self.frame
        plugged = self._plugged
        learned, use = (state.learned, state.use) if plugged is None else (plugged.dump(), plugged.use)
        return plug(frame.use, frame.factory, setting, learned if use == frame.use else b"")

    def _rests(self) -> bool:
        """It failed a short while ago, and is not asked again yet."""
        state = self.state
        return state.failed_s is not None and state.now_s - state.failed_s < tables.PLUGIN_AGAIN_S

    def _broke(self, error: PluginError) -> None:
        """Go on without the policy for a while; said when it begins, not each time it is tried again."""
        state, plugged = self.state, self._plugged
        if state.failed_s is None:
            self.out.append(PolicyFailed(policy=self.frame.use, reason=str(error)[:1000]))
        if plugged is not None:
            state = replace(state, learned=plugged.dump(), use=plugged.use)
        self.state = replace(state, plugged=None, failed_s=state.now_s)

    def _second(self, state: PolicyState, setting: Setting, share: float) -> Second:
        senses = state.senses
        rtt_ms, up_mbps = senses.rtt_ms, senses.up_mbps
        if any(action.remote for task in setting.tasks for action in task.actions):  # to the server, not to the hub
            rtt_ms, up_mbps = told(state.way, state.now_s)
        return Second(
            now_s=state.now_s,
            tasks=tuple(_seen(state.model(task.name), share) for task in setting.tasks),
            temp_c=senses.temp_c,
            power_w=senses.power_w,
            battery_j=energy_j(state, self.frame.site),
            charging=bool(senses.charging),
            clock=senses.clock,
            rtt_ms=rtt_ms,
            up_mbps=up_mbps,
        )

    # -------------------------------------------------------------------------------------------------- deciding

    def decide(self, name: str, verdict: Verdict | None = None, *, word: str | None = None) -> None:
        """Decide on one model.

        Args:
            name: The model.
            verdict: The policy's, where it was asked.
            word: The code under which somebody said so.
        """
        model = self.state.model(name)
        if model is None or not model.variants:
            return
        if verdict is not None:
            model = self._advise(model, verdict)
        if not self._stands(model, word):
            self._choose(model, verdict, word)

    def _stands(self, model: ModelRecord, word: str | None) -> bool:
        """Whether a pin or a pause settles it."""
        current = model.current
        if model.pin is not None:
            if current is None or current.id != model.pin:
                self.hold_pin(model)
            return True
        if current is None or not self.state.paused:
            return False
        late = too_late(self.state, model) if model.asks else ""
        if word == "unpin":
            self._switch(model, current, because(_NOBODY, self.state, model, current, word=word))
        elif late:  # no variant changes by that, and each call would wait for a server that is gone
            reason = because(Why(code="network"), self.state, model, current, cause=late)
            left = self._bars(model, current, asks=False)
            self._switch(replace(model, left=left), current, reason, bound=model.bound)
        return True

    def _choose(self, model: ModelRecord, verdict: Verdict | None, word: str | None) -> None:
        state, current = self.state, model.current
        wanted, asks, why = self._wanted(model, verdict, word)
        late = too_late(state, model) if asks else ""
        if late:  # a policy may find that nothing is lost, since a variant stands by: but each call would wait
            asks = False
        if current is not None and asks != model.asks and (late or why.code in _FREE):
            why = Why(code="network") if late else msgspec.structs.replace(why, code="network")
        bound, cause = ceiling(state), late if model.asks and word is None else ""
        pool = allowed(bound, model, usable(state, model))
        forced = bound is not None and (wanted not in pool or (current is not None and current not in pool))
        if bound is not None and forced:
            why, cause = msgspec.structs.replace(why, code=bound.code), bound.cause
            if wanted not in pool:
                why = Why(code=bound.code, runner_up=wanted.id)
                wanted, asks = best(state, model, pool), False
        if current is not None and word is None and not forced and self._is_barred(model, wanted, asks=asks):
            wanted, asks = current, model.asks and not (late or spared(state, model))
        if wanted is current and asks == model.asks and word != "unpin":
            if verdict is not None and model.pending:
                self.state = with_model(self.state, replace(model, pending=""))
            return
        code = _code(model, wanted, why, word, forced=forced)
        reason = because(why, state, model, wanted, asks=asks, word=code, cause=cause)
        left = () if word is not None else self._bars(model, wanted, asks=asks)
        bound_by = None if asks and why.code == "network" else _bound(model, wanted, code, why)
        self._switch(replace(model, left=left), wanted, reason, bound=bound_by, asks=asks)

    def hold_pin(self, model: ModelRecord) -> None:
        """Run what the highest pin says; nothing is to be done when that is what runs by the same hand."""
        state = self.state
        variant, by, before = model.variant(model.pin), model.pinned_by, state.model(model.name)
        same = before is not None and before.pin == model.pin and before.pinned_by is by
        if variant is None or by is None or (same and model.decision is not None and model.current is variant):
            self.state = with_model(state, model)
            return
        cause = f"pinned by the {by.value}"
        bound = ceiling(state)
        if bound is not None and variant not in allowed(bound, model, usable(state, model)):
            cause += f", although {bound.cause}"
        reason = because(Why(code="pin"), state, model, variant, cause=cause)
        self._switch(replace(model, left=()), variant, reason)

    def fall_back(self, model: ModelRecord, broken: VariantRecord, why: str) -> None:
        """The assigned variant could not be loaded: what last worked runs on, if nothing forbids it.

        Bars do not count here. Where all others are in quarantine the decision stands: to try them in turn, as fast as
        they fail, would help nobody.
        """
        state = self.state
        others = [v for v in usable(state, model) if v.id != broken.id and lasts(state, v)]
        if not others:
            self.state = with_model(state, model)
            return
        pool = allowed(ceiling(state), model, others)
        proven = model.variant(model.proven)
        taken = proven if proven in pool and proven is not None else best(state, model, pool)
        reason = because(Why(code="failure"), state, model, taken, cause=f"{broken.id} {failed(why)}")
        self._switch(model, taken, reason, bound="failure")

    def _wanted(self, model: ModelRecord, verdict: Verdict | None, word: str | None) -> tuple[VariantRecord, bool, Why]:
        """The policy's choice; where it has none, what runs, else the cheapest: safe whatever the conditions.

        Returns:
            The variant, whether the server is asked while it stands by, and why.
        """
        choice, asks = (None, False) if verdict is None else model.chosen(verdict.action)
        if choice is not None and verdict is not None:
            return choice, asks, verdict.why
        may = usable(self.state, model)
        current = model.current
        if current is not None and current in may and (word is None or self.state.failed_s is None):
            return current, model.asks, _NOBODY
        return min(may, key=cheapness), False, _NOBODY

    def _advise(self, model: ModelRecord, verdict: Verdict) -> ModelRecord:
        if verdict.probe is not None and verdict.probe != verdict.action and model.variant(verdict.probe) is not None:
            self.out.append(Try(model=model.name, variant=verdict.probe))
        old, new = model.most_per_s, verdict.most_per_s
        if old == new or (old is not None and new is not None and abs(new - old) <= tables.ADVICE_MOVES * old):
            return model
        self.out.append(Advise(model=model.name, most_per_s=new))
        model = replace(model, most_per_s=new)
        self.state = with_model(self.state, model)
        return model

    def _switch(
        self,
        model: ModelRecord,
        variant: VariantRecord,
        reason: Because,
        *,
        bound: str | None = None,
        asks: bool = False,
    ) -> None:
        state = self.state
        decision = Decision(model=model.name, variant=variant.id, because=reason, at=state.at)
        before = state.model(model.name)
        model = replace(
            model,
            decision=decision,
            asks=asks,
            bound=bound,
            history=(*model.history[1 - HISTORY :], decision),
            pending="",
        )
        self.state = state = with_model(state, model)
        self.out.append(Decided(decision=decision))
        alone = before is not None and before.pin is None and model.pin is None  # an app's own pin stands as it stood
        for app in state.apps_of(model.name):
            assigned = None if alone and app.pin is not None else state.assignment(app.app)
            if assigned is not None:
                self.out.append(assigned)

    def _bars(self, model: ModelRecord, wanted: VariantRecord, *, asks: bool) -> tuple[Left, ...]:
        """What may not come back for a while: the variant that is left, and so the server."""
        current = model.current
        if current is None:
            return model.left
        leaving = [current.id] if wanted is not current else []
        leaving += [SERVER] if model.asks and not asks else []
        kept = tuple(item for item in model.left if item.variant not in leaving and self._holds(item))
        at_s = self.state.now_s if self._ticked else None
        return (*kept, *(Left(variant=id_, at_s=at_s) for id_ in leaving))

    def _is_barred(self, model: ModelRecord, variant: VariantRecord, *, asks: bool) -> bool:
        coming = [variant.id] if variant is not model.current else []
        coming += [SERVER] if asks and not model.asks else []
        return any(item.variant in coming and self._holds(item) for item in model.left)

    def _holds(self, item: Left) -> bool:
        return item.at_s is None or self.state.now_s - item.at_s < tables.DWELL_S

    def assign(self, app: str) -> None:
        """Tell an app what it is to run, unless this step did already."""
        if not any(isinstance(item, Assign) and item.app == app for item in self.out):
            assigned = self.state.assignment(app)
            if assigned is not None:
                self.out.append(assigned)


def _code(model: ModelRecord, wanted: VariantRecord, why: Why, word: str | None, *, forced: bool) -> str | None:
    """The code the frame gives a decision; None leaves the policy's own."""
    if model.current is None:
        return "start"
    if word is not None:
        return word
    if forced or not _is_free(model, why):
        return None
    if model.pending:
        return model.pending
    return "recovered" if model.bound is not None and cheapness(wanted) > cheapness(model.current) else "gain"


def _is_free(model: ModelRecord, why: Why) -> bool:
    """Nothing bound: a policy may call it accuracy that there is room for more."""
    return why.code in _FREE or (why.code == "accuracy" and model.preference.min_accuracy is None)


def _bound(model: ModelRecord, wanted: VariantRecord, code: str | None, why: Why) -> str | None:
    """What keeps the decision from something better: what bound it, or still binds."""
    if why.code in _BINDING and not _is_free(model, why):
        return why.code
    current = model.current
    cheaper = current is not None and cheapness(wanted) < cheapness(current)
    return model.bound if cheaper and code not in {"preference", "unpin"} else None


def _rested(model: ModelRecord) -> ModelRecord:
    return model if model.work is _NO_WORK else replace(model, work=_NO_WORK)


def _seen(model: ModelRecord | None, share: float) -> TaskSeen:
    if model is None:
        return TaskSeen(action="", requests=0)
    work = model.work
    ran = "" if model.decision is None else model.decision.variant
    return TaskSeen(
        action=f"{SERVER}{ran}" if model.asks else ran,
        requests=round(work.requests * share),
        late=round(work.late * share),
        latencies_ms=work.latencies_ms,
        sent=round(work.sent * share),
        replied=round(work.replied * share),
        probed=None if work.tried is None else Probed(action=work.tried[0], latency_ms=work.tried[1]),
    )


_NO_WORK = Work()

Instructions = Sequence[Instruction]
