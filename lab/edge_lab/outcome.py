"""What a demonstration ends with: one object for scripts, a page of text for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_lab.story import Story, Switch
from edge_lab.view import arrow, cause_of, outcome
from edge_sdk.cli.output import table
from edge_sdk.manifest import EvidenceFile, Latency, Manifest, Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """All that came of one run.

    Attributes:
        bundle: Where the bundle lies.
        report: Where the page of the play lies.
        manifest: What is in the bundle.
        evidence: How fast that is.
        profiles: The boards it was converted for.
        broker: Which carried the messages.
        story: The play.
        kept: Where logs and databases of the run are, if they were to be kept.
        seconds: All of it took so long.
    """

    bundle: Path
    report: Path
    manifest: Manifest
    evidence: EvidenceFile
    profiles: tuple[str, ...]
    broker: str
    story: Story
    kept: Path | None
    seconds: float

    def measured(self) -> dict[str, Latency]:
        """What each variant took on this machine, by its id."""
        return {entry.variant: entry for entry in self.evidence.latency if entry.origin is Origin.MEASURED}


def as_json(result: Outcome) -> dict[str, Any]:
    """The object of `edge demo --json`."""
    story, work, times = result.story, result.story.work(), result.measured()
    return {
        "bundle": str(result.bundle),
        "report": str(result.report),
        "profiles": list(result.profiles),
        "variants": [
            {
                "id": variant.id,
                "precision": variant.precision.value,
                "size_bytes": variant.size_bytes,
                "accuracy": variant.quality.value,
                "median_ms": times[variant.id].median_ms if variant.id in times else None,
            }
            for variant in result.manifest.variants
        ],
        "inferences": work.answers,
        "failed": work.failed,
        "accuracy": _rounded(work.accuracy),
        "p50_ms": _rounded(work.p50_ms),
        "p95_ms": _rounded(work.p95_ms),
        "by_variant": {
            name: {"inferences": one.answers, "accuracy": _rounded(one.accuracy), "p50_ms": _rounded(one.p50_ms)}
            for name, one in story.by_variant().items()
        },
        "switches": [
            {
                "at_s": round(switch.at_s, 3),
                "from": switch.old,
                "to": switch.new,
                "because": f"{switch.code}: {switch.text}",
                "code": switch.code,
                "took_ms": switch.took_ms,
            }
            for switch in story.switches
        ],
        "commands": [
            {
                "at_s": round(command.at_s, 3),
                "command": command.words,
                "status": command.status,
                "text": command.text,
                "took_s": _rounded(command.took_s),
            }
            for command in story.commands
        ],
        "hub": {"devices": story.hub_devices, "messages": story.hub_messages, "broker": result.broker},
        "conditions": "played",
        "play_s": round(story.length_s, 3),
        "seconds": round(result.seconds, 3),
        "kept": str(result.kept) if result.kept else None,
    }


def as_text(result: Outcome) -> str:
    """The summary."""
    story, work = result.story, result.story.work()
    replied = sum(command.status is not None for command in story.commands)
    reasons = len({switch.code for switch in story.switches})
    headline = (
        f"{work.answers} digits classified, {work.failed} calls failed, {work.accuracy or 0:.1f} % right.\n"
        f"{len(story.switches)} switches for {reasons} reasons; {replied} of {len(story.commands)} commands replied; "
        f"{story.hub_messages} messages at the hub.\nBattery, heat and slow network were played."
    )
    parts = [headline, _switches(story.switches), _commands(story), _variants(result)]
    kept = [f"logs and databases of this run: {result.kept}"] if result.kept else []
    parts.append(
        "\n".join(
            [
                f"the play, as a page:      {result.report}",
                f"the variants, as a page:  {result.bundle / 'report.html'}",
                f"look into the bundle:     edge inspect {result.bundle}",
                *kept,
            ]
        )
    )
    return "\n\n".join(parts)


def _switches(switches: Sequence[Switch]) -> str:
    rows = [(f"{each.at_s:.1f} s", arrow(each), each.code, cause_of(each)) for each in switches]
    return table(("at", "switch", "bound by", "because"), rows, right=frozenset({0}))


def _commands(story: Story) -> str:
    rows = [(f"{each.at_s:.1f} s", each.words, outcome(each)) for each in story.commands]
    return table(("at", "command over MQTT", "reply"), rows, right=frozenset({0}))


def _variants(result: Outcome) -> str:
    rows = []
    for name, work in result.story.by_variant().items():
        variant = result.manifest.variant(name)
        rows.append(
            (
                name,
                str(work.answers),
                f"{work.p50_ms:.3g} ms" if work.p50_ms is not None else "-",
                f"{work.accuracy:.1f} %" if work.accuracy is not None else "-",
                f"{variant.quality.value:.2f} %" if variant else "-",
                f"{variant.size_bytes / 1e3:,.1f} kB" if variant else "-",
            )
        )
    header = ("variant that ran", "answers", "median", "right", "on all held-out digits", "size")
    return table(header, rows, right=frozenset(range(1, len(header))))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
