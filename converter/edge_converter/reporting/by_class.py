"""Which classes a variant got worse at: an average may stay while one keyword is no longer heard."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass

from edge_sdk.manifest import Manifest

ByClass = Mapping[str, Mapping[int, float]]

_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Worst:
    """What a class is worth, and the variant that is worst at it.

    Attributes:
        number: Of the class.
        name: As people call it.
        reference: Its value by the reference, in the metric's unit.
        variant: That is worst at it.
        value: By that variant.
    """

    number: int
    name: str
    reference: float
    variant: str
    value: float


def worst(manifest: Manifest, by_class: ByClass) -> tuple[Worst, ...]:
    """Every class, that which lost most first.

    Args:
        manifest: Of the bundle; variants that are not in it are left out.
        by_class: The value of each class by variant and class number, as `judge.Verdict` has it.
    """
    kept = {variant.id: by_class.get(variant.id, {}) for variant in manifest.variants}
    found = []
    for number, reference in kept.get(manifest.reference, {}).items():
        variant = min(kept, key=lambda id_: kept[id_].get(number, reference))
        name = manifest.labels[number] if number < len(manifest.labels) else str(number)
        value = kept[variant].get(number, reference)
        found.append(Worst(number=number, name=name, reference=reference, variant=variant, value=value))
    return tuple(sorted(found, key=lambda one: (one.value - one.reference, one.number)))


def section(manifest: Manifest, by_class: ByClass) -> str:
    """A part of the report; empty where the metric knows no classes, or none lost anything."""
    found = worst(manifest, by_class)
    shown = [one for one in found if one.value < one.reference][:_SHOWN]
    if not shown:
        return ""
    rows = "".join(
        f"<tr><td>{html.escape(one.name)}</td><td>{one.reference:.1f} %</td><td>{one.value:.1f} %</td>"
        f"<td>{one.reference - one.value:.1f}</td><td>{html.escape(one.variant)}</td></tr>"
        for one in shown
    )
    what = "recall" if manifest.metric in {"accuracy", "recall", "top5"} else manifest.metric
    few = f", the {_SHOWN} that lost most" if len(found) > len(shown) == _SHOWN else ""
    head = "".join(f'<th scope="col">{word}</th>' for word in ("class", manifest.reference, "worst", "lost", "by"))
    return (
        f"<h2>By class</h2><p>{html.escape(what)} of each class that a variant is worse at{few}. "
        "Few samples of a class move it by much.</p>"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )
