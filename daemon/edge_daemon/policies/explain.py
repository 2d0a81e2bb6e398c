"""Why, in one sentence: the same one in `edge daemon explain`, on the hub, in its log and in the simulator.

Energy and power that only a model of the board knows are marked `estimated`, everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from edge_daemon.policies.contract import Action, Setting, Task, Why

MAX_CHARS: Final = 1000
_MOST_NUMBERS: Final = 6
ESTIMATED: Final = " (estimated)"

# What bound, where nobody says more.
_CAUSES: Mapping[str, str] = MappingProxyType(
    {
        "start": "first choice",
        "thermal": "heat binds",
        "battery": "the charge has to last",
        "power": "power is limited",
        "network": "the network has changed",
        "latency": "answers have to be in time",
        "deadline": "answers have to be at the hub in time",
        "accuracy": "quality has a floor",
        "gain": "it is worth more as things are",
        "holds": "nothing else is worth a switch",
        "preference": "it is what is asked for",
        "measured": "it was measured on this machine",
        "recovered": "what bound has eased",
        "throttle": "the firmware throttles",
        "failure": "what was to run could not be loaded",
        "pin": "it is pinned",
        "unpin": "it is no longer pinned",
    }
)
# A number's unit is the end of its name, the first of these that fits; those of energy are estimates. `_x` is a ratio.
_UNITS: Mapping[str, str] = MappingProxyType(
    {
        "_per_j": " points/J", "_per_s": " a second", "_w": " W", "_j": " J", "_mj": " mJ", "_wh": " Wh", "_c": " °C",
        "_ms": " ms", "_s": " s", "_pct": " %", "_mbps": " Mbit/s", "_points": " points", "_x": " times",
    }
)  # fmt: skip
_ENERGY = ("_per_j", "_w", "_j", "_mj", "_wh")


def sentence(
    why: Why, setting: Setting | None, old: Action | None, new: Action, *, cause: str = "", metered: bool = False
) -> str:
    """Why `new` is to run.

    Args:
        why: The reason, in data.
        setting: What the policy was made for; None where no policy was asked.
        old: What ran until now; None or `new` itself where nothing changes.
        new: What is to run.
        cause: What bound in words, where somebody knows better than the code.
        metered: Watts and joules come from a sensor, not from a model of the board.
    """
    text = f"{cause or _cause(why, setting, new)}: {shown(new)}"
    if old is not None and old.id != new.id:
        text += f" instead of {_left(old, new)}"
    if why.runner_up is not None:
        text += f"; next is {why.runner_up}"
        if why.margin is not None and 0 <= why.margin < math.inf:
            text += f", {_number(why.margin)} points a request behind"
    numbers = [_told(name, value, metered=metered) for name, value in why.numbers[:_MOST_NUMBERS]]
    if numbers:
        text += f"; {', '.join(numbers)}"
    return text[:MAX_CHARS]


def shown(action: Action) -> str:
    """An action with its quality and its time."""
    if action.hedge is not None:
        return f"asks the server ({_number(action.quality)} points), {action.hedge} stands by"
    where = " on the server" if action.remote else ""
    return f"{action.id} ({_number(action.quality)} points in {_ms(action.latency_ms)}{where})"


def _left(old: Action, new: Action) -> str:
    """What is no longer to run, or to stand by."""
    if old.hedge is None:
        return shown(old)
    return old.hedge if new.hedge is not None else f"asking the server ({_number(old.quality)} points)"


def _cause(why: Why, setting: Setting | None, new: Action) -> str:
    known = _CAUSES.get(why.code, why.code)
    task = None if setting is None else _task(setting, new)
    if setting is None or task is None:
        return known
    if why.code == "latency" and math.isfinite(task.limit_ms):
        return f"answers have to come within {_ms(task.limit_ms)}"
    if why.code == "thermal" and setting.temp_c is not None:
        return f"heat binds (limit {setting.temp_c:g} °C)"
    if why.code == "power" and setting.max_power_w is not None:
        return f"at most {setting.max_power_w:g} W may be drawn"
    if why.code == "accuracy":
        floor = task.min_quality
        return "there is room for more" if floor is None else f"quality is to be at least {floor:g} points"
    return known


def _task(setting: Setting, action: Action) -> Task | None:
    return next((task for task in setting.tasks if action in task.actions), None)


def _told(name: str, value: float, *, metered: bool) -> str:
    """A number by its name: `cap_w` 1.42 is "cap 1.42 W (estimated)"."""
    unit = next((unit for unit in _UNITS if name.endswith(unit) and name != unit), "")
    told = f"{name.removesuffix(unit).replace('_', ' ')} {_number(value)}{_UNITS.get(unit, '')}"
    return told + ESTIMATED if unit in _ENERGY and not metered else told


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"  # noqa: PLR2004 - below it 3 digits suffice


def _ms(value: float) -> str:
    return f"{_number(value)} ms"
