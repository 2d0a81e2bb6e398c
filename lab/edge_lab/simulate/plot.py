"""The timelines of a simulation as one page that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_lab.simulate.score import Result
from edge_lab.simulate.trial import Job, Played


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One scenario on the page."""

    result: Result
    jobs: Sequence[Job]
    played: Sequence[Played]


def page(shown: Sequence[Shown]) -> str:
    """The page."""
    return f"<!doctype html><title>{shown[0].result.scenario}</title>"
