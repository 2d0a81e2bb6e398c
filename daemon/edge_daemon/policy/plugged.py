"""The plug-in policy at work: made anew for each setting with what was learned carried over, and never trusted.

Whatever a plug-in does wrong (it raises, names an action that is none, says nothing of a task) becomes a
`PluginError` here; the frame goes on without it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from edge_daemon.policies.contract import Event, Factory, Policy, Second, Setting, Verdict, Why

MAX_DUMP_BYTES = 1 << 20
_MAX_CODE_CHARS = 64


class PluginError(Exception):
    """A plug-in policy failed; internal to the frame, which says so in an instruction."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plugged:
    """A policy, the setting it was made for, and its state.

    Attributes:
        use: Its name.
    """

    use: str
    setting: Setting
    policy: Policy
    state: Any

    def ask(self, event: Event) -> tuple[Plugged, Mapping[str, Verdict]]:
        """The policy after an event, and its verdicts by the task's name.

        Raises:
            PluginError: It failed.
        """
        try:
            state, verdicts = self.policy.step(self.state, event)
            told = {self._checked(verdict): verdict for verdict in verdicts}
        except PluginError:
            raise
        except Exception as error:  # somebody else's code, which must not end the daemon
            raise PluginError(f"{type(error).__name__}: {error}"[:1000]) from error
        if isinstance(event, Second):
            silent = [task.name for task in self.setting.tasks if task.name not in told]
            if silent:
                raise PluginError(f"no verdict on {silent[0]!r} after a second")
        return replace(self, state=state), told

    def dump(self) -> bytes:
        """What was learned; nothing where the policy fails to say."""
        try:
            payload: Any = self.policy.dump(self.state)
        except Exception:  # noqa: BLE001 - as above; what it knew is lost, and nothing else
            return b""
        return payload if isinstance(payload, bytes) and len(payload) <= MAX_DUMP_BYTES else b""

    def _checked(self, verdict: Any) -> str:
        if not isinstance(verdict, Verdict) or not 0 <= verdict.task < len(self.setting.tasks):
            raise PluginError(f"no verdict on a task: {str(verdict)[:200]}")
        task = self.setting.tasks[verdict.task]
        ids = {action.id for action in task.actions}
        if verdict.action not in ids:
            raise PluginError(f"{str(verdict.action)[:100]!r} is no action of {task.name}")
        if verdict.probe is not None and verdict.probe not in ids:
            raise PluginError(f"{str(verdict.probe)[:100]!r}, to be probed, is no action of {task.name}")
        if verdict.most_per_s is not None and not 0 <= verdict.most_per_s < math.inf:
            raise PluginError(f"advice of {verdict.most_per_s} requests a second")
        why: Any = verdict.why
        if not isinstance(why, Why) or not 0 < len(why.code) <= _MAX_CODE_CHARS:
            raise PluginError(f"no reason for {verdict.action!r}")
        return task.name


def plug(use: str, factory: Factory, setting: Setting, learned: bytes) -> Plugged:
    """A policy for a setting, with what was learned before.

    Raises:
        PluginError: It could not be made.
    """
    try:
        policy = factory(setting)
        state = policy.load(learned) if learned else policy.initial()
    except Exception as error:  # as above
        raise PluginError(f"{type(error).__name__}: {error}"[:1000]) from error
    return Plugged(use=use, setting=setting, policy=policy, state=state)
