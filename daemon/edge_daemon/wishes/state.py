"""Who wants what of each model, and what follows from it: `in_force`.

Three hands, each laid over the one before:

1. **somebody's word**: the newest of the configuration's, an operator's and the hub's; without one, the mode its apps
   agree on, `balanced` where they do not;
2. **schedules** that apply, see `edge_daemon.wishes.schedule`. A word said while one applies sets it aside for that
   model until it ends, as a hand on a thermostat does; a strict one stays;
3. **apps**: of each limit the strictest counts, of all apps that run the model and of what stands above.

Words outlive a restart; apps' wishes end with the app.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import tzinfo
from typing import Final

import msgspec

from edge_daemon.wishes.schedule import Position, Scene, Schedule, applying, effective, entered
from edge_daemon.wishes.steady import Steady, followed
from edge_daemon.wishes.strictest import BoardLimits, shared, tightened
from edge_sdk.preference import Mode, Preference
from edge_sdk.wire import Name, Wire

_MAX_BYTES: Final = 1024 * 1024
_NOBODY: Final = Preference()


class Word(Wire, frozen=True, kw_only=True):
    """Somebody's word on one model.

    Attributes:
        preference: What was said.
        aside: The schedules that applied when it was said, and still do.
    """

    model: Name
    preference: Preference
    aside: tuple[Name, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AppWish:
    """What an app wants of its model; None is nothing."""

    app: str
    model: str
    name: str = ""
    preference: Preference | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What the configuration says of the place where the board works.

    Attributes:
        zone: Of times of day; None is the machine's.
    """

    zone: tzinfo | None = None
    schedules: tuple[Schedule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """All wishes, and what is believed of time and place.

    Attributes:
        steady: None until the clocks were looked at.
        inside: The names of the schedules in whose place the board is.
    """

    words: tuple[Word, ...] = ()
    apps: tuple[AppWish, ...] = ()
    steady: Steady | None = None
    inside: frozenset[str] = frozenset()

    def word(self, model: str) -> Word | None:
        """Somebody's word on this model, if there is one."""
        return next((word for word in self.words if word.model == model), None)

    def of(self, model: str) -> tuple[AppWish, ...]:
        """The apps that run this model."""
        return tuple(app for app in self.apps if app.model == model)

    def scene(self, site: Site, now_s: float) -> Scene:
        """In what light they are looked at, at `now_s` on the monotonic clock; before any clock was read, in none."""
        at = 0.0 if self.steady is None else self.steady.wall(now_s)
        return Scene(at=at, zone=site.zone, schedules=site.schedules, inside=self.inside)


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """What counts for a model now.

    Attributes:
        schedules: The names of those that had a part in it.
        apps: Limits that are an app's: the limit's name and what the app is called.
    """

    preference: Preference
    schedules: tuple[str, ...] = ()
    apps: tuple[tuple[str, str], ...] = ()

    @property
    def why(self) -> str:
        """What had a part in it beside somebody's word, in words; empty if nothing had."""
        parts = [f"schedule {name}" for name in self.schedules]
        parts += [f"{limit} of app {app}" for limit, app in self.apps]
        return ", ".join(parts)[:500]


def said(wishes: Wishes, models: tuple[str, ...], preference: Preference, scene: Scene) -> Wishes:
    """After somebody said what they want of these models."""
    fixed = preference.fixed(scene.at)
    words = {word.model: word for word in wishes.words}
    for model in models:
        aside = tuple(each.name for each in applying(scene, model) if not each.strict)
        words[model] = Word(model=model, preference=fixed, aside=aside)
    return replace(wishes, words=tuple(words.values()))


def joined(wishes: Wishes, wish: AppWish, scene: Scene) -> Wishes:
    """After an app began to run a model, or changed its mind."""
    fixed = None if wish.preference is None else wish.preference.fixed(scene.at)
    others = tuple(app for app in wishes.apps if app.app != wish.app)
    return replace(wishes, apps=(*others, replace(wish, preference=fixed)))


def left(wishes: Wishes, app: str) -> Wishes:
    """After an app went away."""
    return replace(wishes, apps=tuple(each for each in wishes.apps if each.app != app))


def looked(wishes: Wishes, site: Site, *, now_s: float, at: float, position: Position | None) -> Wishes:
    """After clocks and position were looked at. What was set aside and has ended applies again when it comes back.

    Args:
        wishes: As they were.
        site: Whose schedules count.
        now_s: Monotonic.
        at: The wall clock, which may have been set.
        position: None while it is not known.
    """
    inside = entered(site.schedules, position, wishes.inside)
    wishes = replace(wishes, steady=followed(wishes.steady, now_s, at), inside=inside)
    if any(map(_floats, wishes.words)) or any(map(_floats, wishes.apps)):
        wishes = _fixed(wishes, wishes.scene(site, now_s).at)
    if not any(word.aside for word in wishes.words):
        return wishes
    scene, words = wishes.scene(site, now_s), []
    for word in wishes.words:
        applies = {each.name for each in applying(scene, word.model)}
        aside = tuple(name for name in word.aside if name in applies)
        words.append(word if aside == word.aside else msgspec.structs.replace(word, aside=aside))
    return replace(wishes, words=tuple(words))


def in_force(wishes: Wishes, model: str, scene: Scene) -> InForce:
    """What counts for a model."""
    word, apps = wishes.word(model), wishes.of(model)
    base = msgspec.structs.replace(_NOBODY, mode=_agreed(apps)) if word is None else word.preference
    now = effective(base, applying(scene, model), () if word is None else word.aside)
    preference, parts = now.preference, dict[str, str]()
    for app in sorted(apps, key=lambda each: (each.name, each.app)):
        if app.preference is not None:
            preference, names = tightened(preference, app.preference, scene.at, scene.zone)
            parts |= dict.fromkeys(names, app.name or app.app[:8])
    return InForce(preference=preference, schedules=now.schedules, apps=tuple(sorted(parts.items())))


def latest_ms(wishes: Wishes, app: str, scene: Scene) -> float | None:
    """After how long a call of this app is late: by what is said of its model and by its own wish, not by others'."""
    wish = next((each for each in wishes.apps if each.app == app), None)
    if wish is None:
        return None
    return in_force(replace(wishes, apps=(wish,)), wish.model, scene).preference.max_latency_ms


def board_limits(wishes: Wishes, models: tuple[str, ...], site: Site, now_s: float) -> BoardLimits:
    """What all models together ask of the board, as a policy is told it (`edge_daemon.policies.contract.Setting`)."""
    scene = wishes.scene(site, now_s)
    wanted = [in_force(wishes, model, scene).preference for model in models]
    return shared(wanted, now_s=now_s, at=scene.at, zone=scene.zone)


def dump(wishes: Wishes) -> bytes:
    """The words, for `load`."""
    return msgspec.json.encode(wishes.words)


def load(payload: bytes) -> Wishes | None:
    """What was dumped, or None where it is damaged."""
    if len(payload) > _MAX_BYTES:
        return None
    try:
        return Wishes(words=msgspec.json.decode(payload, type=tuple[Word, ...]))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _floats(one: Word | AppWish) -> bool:
    """It was said while the clock was not set, and waits for a moment."""
    return one.preference is not None and one.preference.battery_for_s is not None


def _fixed(wishes: Wishes, at: float) -> Wishes:
    words = tuple(msgspec.structs.replace(word, preference=word.preference.fixed(at)) for word in wishes.words)
    apps = tuple(
        app if app.preference is None else replace(app, preference=app.preference.fixed(at)) for app in wishes.apps
    )
    return replace(wishes, words=words, apps=apps)


def _agreed(apps: tuple[AppWish, ...]) -> Mode:
    modes = {app.preference.mode for app in apps if app.preference is not None}
    return modes.pop() if len(modes) == 1 else Mode.BALANCED
