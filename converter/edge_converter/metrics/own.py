"""A metric of the user's own, by `module:function`: one number a sample, higher is better."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_converter.errors import MetricError
from edge_converter.labelled import named
from edge_converter.metrics.contract import Array, Floats, Judged, Metric, Scores, Tally, parts, vectors

# Answers agree whose distance is at most this share of the reference's length.
_SAME = 0.1
_LARGEST = 1e9
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_CONTRACT = ("name", "unit", "guess", "classes", "by_reference", "keep", "tally", "agreement")


def open_own(name: str, judged: Judged) -> Metric:
    """The metric that `module:function` names.

    Args:
        name: A function of the outputs and the label of one sample, or a factory of metrics as those of
            `edge_converter.metrics` (a class with a `keep`).
        judged: What it is made for.

    Raises:
        MetricError: There is no such thing, or it cannot be called.
    """
    found = named.load(name, MetricError)
    if isinstance(found, type) and hasattr(found, "keep"):
        with named.guarded(name, MetricError, doing="making the metric"):
            made: Any = found(judged)
            missing = [part for part in _CONTRACT if not hasattr(made, part)]
        if missing:
            raise MetricError(f"is no metric: it lacks {', '.join(missing)}", where=name)
        if not isinstance(made.name, str) or not _NAME.match(made.name):
            raise MetricError(
                f"its name {made.name!r:.80} is none for a manifest", where=name, hint="letters, digits, . _ -"
            )
        return _Theirs(name, made)
    if not callable(found):
        raise MetricError(f"is {type(found).__name__}, which cannot be called", where=name)
    return Own(name, found)


class Own:
    """The mean of what a function says of each sample.

    The function is given the outputs of one sample, without the batch dimension (an array, or a tuple of arrays where
    the model has several), and its label. Agreement: samples whose outputs differ from the reference's by at most a
    tenth of their length.
    """

    unit = ""
    guess: float | None = None
    classes = None
    by_reference = False

    def __init__(self, called: str, function: Any) -> None:
        self.name = called.rpartition(":")[2].rpartition(".")[2].lstrip("_")[:64] or "own"
        self._called, self._function = called, function

    def keep(self, outputs: Sequence[Array], labels: Array) -> Array:
        """The score of each sample, then its outputs, `[n, 1 + numbers] float64`."""
        scores = [self._score(tuple(each[n] for each in outputs), labels[n]) for n in range(len(labels))]
        return np.concatenate([np.array(scores, np.float64)[:, np.newaxis], vectors(outputs)], axis=1)

    def tally(self, kept: Array, reference: Array) -> Scores:  # noqa: ARG002 - the contract's
        """What the function said."""
        return Scores(scores=np.array(kept[:, 0], np.float64))

    def agreement(self, kept: Array, reference: Array) -> float:
        """Samples whose outputs differ by at most a tenth of the reference's length."""
        same = 0
        for mine, theirs in parts(kept, reference):
            apart = np.linalg.norm(mine[:, 1:] - theirs[:, 1:], axis=1)
            same += int((apart <= _SAME * np.linalg.norm(theirs[:, 1:], axis=1)).sum())
        return 100.0 * same / len(kept)

    def _score(self, outputs: tuple[Array, ...], label: Any) -> float:
        with named.guarded(self._called, MetricError, doing="judging a sample"):
            found = self._function(outputs[0] if len(outputs) == 1 else outputs, label)
        if isinstance(found, np.ndarray) and found.size == 1:
            found = found.reshape(-1)[0]
        if isinstance(found, (str, bytes)) or not hasattr(found, "__float__"):
            raise MetricError(
                f"gave {type(found).__name__} for a sample, where a number belongs", where=self._called,
                hint="return one number a sample, higher is better",
            )  # fmt: skip
        with named.guarded(self._called, MetricError, doing="turning its answer into a number"):
            score = float(found)
        if not math.isfinite(score) or abs(score) > _LARGEST:
            raise MetricError(f"gave {score:g} for a sample, where a number belongs", where=self._called)
        return score


class _Theirs:
    """A metric of the user's that fulfils the contract; what it raises, or gives that is none, is told in one line."""

    def __init__(self, called: str, made: Any) -> None:
        self._called, self._made = called, made
        with named.guarded(called, MetricError, doing="reading what it says of itself"):
            self.name: str = made.name
            self.unit = str(made.unit)
            self.guess = None if made.guess is None else float(made.guess)
            self.classes = None if made.classes is None else int(made.classes)
            self.by_reference = bool(made.by_reference)

    def keep(self, outputs: Sequence[Array], labels: Array) -> Array:
        """What it keeps."""
        with named.guarded(self._called, MetricError, doing="its keep"):
            kept = np.asarray(self._made.keep(outputs, labels))
        if kept.ndim == 0 or len(kept) != len(labels) or kept.dtype.hasobject:
            raise MetricError(
                f"its keep gave {kept.dtype} {list(kept.shape)} for {len(labels)} samples",
                where=self._called,
                hint="give one row of numbers a sample",
            )
        return kept

    def tally(self, kept: Array, reference: Array) -> Tally:
        """Its tally."""
        with named.guarded(self._called, MetricError, doing="its tally"):
            found = self._made.tally(kept, reference)
            scores = None if found.scores is None else np.asarray(found.scores, np.float64)
            by_class = {int(number): float(value) for number, value in found.by_class.items()}
        if scores is not None and scores.shape != (len(kept),):
            raise MetricError(
                f"its tally gave scores {list(scores.shape)} for {len(kept)} samples",
                where=self._called,
                hint="give one a sample, or None",
            )
        return _Told(called=self._called, tally=found, samples=len(kept), scores=scores, by_class=by_class)

    def agreement(self, kept: Array, reference: Array) -> float:
        """Its agreement."""
        with named.guarded(self._called, MetricError, doing="its agreement"):
            return float(self._made.agreement(kept, reference))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """What a metric of the user's tallied."""

    called: str
    tally: Any
    samples: int
    scores: Floats | None
    by_class: Mapping[int, float]

    def value(self, weights: Floats | None = None) -> float:
        """Its value."""
        with named.guarded(self.called, MetricError, doing="its value"):
            return float(self.tally.value(weights))
