"""What variants are judged by: the registry, and which metric fits data and model where none is named."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from edge_converter.errors import DataError, MetricError
from edge_converter.labelled import named
from edge_converter.labelled.data import check_one_hot
from edge_converter.metrics import classes, detection, regression, segmentation
from edge_converter.metrics.classes import Accuracy, Recall, Top5
from edge_converter.metrics.contract import Judged, Metric, Scores, Tally
from edge_converter.metrics.detection import MeanPrecision
from edge_converter.metrics.embedding import Cosine, Verification
from edge_converter.metrics.own import open_own
from edge_converter.metrics.regression import R2, MaeSkill
from edge_converter.metrics.segmentation import MeanIou

__all__ = ["METRICS", "Judged", "Metric", "Scores", "Tally", "choose", "guess"]

METRICS: Mapping[str, Callable[[Judged], Metric]] = {
    "accuracy": Accuracy,
    "top5": Top5,
    "recall": Recall,
    "r2": R2,
    "mae-skill": MaeSkill,
    "map": MeanPrecision,
    "miou": MeanIou,
    "cosine": Cosine,
    "verification": Verification,
}


def choose(name: str | None, judged: Judged) -> Metric:
    """The metric of this name, or the one that fits.

    Args:
        name: Of `METRICS`, or `module:function`; None guesses by labels and outputs.
        judged: What it is made for.

    Raises:
        DataError: The labels or the model's outputs do not fit it, or none fits.
        MetricError: There is no such metric.
    """
    if name is not None and named.is_named(name):
        return open_own(name, judged)
    wanted = guess(judged) if name is None else name
    if wanted not in METRICS:
        raise MetricError(
            f"there is no metric {wanted[:80]!r}", hint=f"there are {', '.join(METRICS)}, and module:function"
        )
    if judged.samples.labels[judged.rows[:1]].size == 0 and METRICS[wanted] is not Cosine:
        raise DataError(f"has no labels, and {wanted} needs them", where=judged.samples.where)
    return METRICS[wanted](judged)


def guess(judged: Judged) -> str:
    """The name of the metric that labels and outputs leave no doubt of.

    Raises:
        DataError: They do.
    """
    first = np.asarray(judged.samples.labels[judged.rows[:1]])
    if first.size == 0 and first.ndim == 2:  # noqa: PLR2004 - [n, 0]: no labels
        return "cosine"
    if detection.outputs_of(judged.outputs) is not None and first.ndim == 3:  # noqa: PLR2004 - boxes
        return "map"
    check_one_hot(judged.samples)
    is_class = first.ndim == 1 and first.dtype.kind in "iub"
    if is_class and classes.output_of(judged.outputs, binary=classes.are_binary(judged)) is not None:
        return "accuracy"
    if first.dtype.kind in "iu" and segmentation.output_of(judged) is not None:
        return "miou"
    # Whole numbers may be classes as well, so a model with one score a class was looked for before.
    if (first.ndim == 1 or (first.ndim == 2 and first.dtype.kind == "f")) and regression.output_of(judged) is not None:  # noqa: PLR2004
        return "r2"
    if first.dtype.kind == "f" and not all(np.isfinite(part).all() for part in judged.labels()):
        raise DataError(
            "a label is NaN or infinite", where=judged.samples.where, hint="label every sample, or leave it out"
        )
    shapes = ", ".join(str(list(spec.shape)) for spec in judged.outputs)
    raise DataError(
        f"labels of {first.dtype} {list(first.shape[1:]) or 'one a sample'} do not say how to judge a model that "
        f"gives {shapes}",
        where=judged.samples.where,
        hint=f"--metric {', '.join(METRICS)} or module:function",
    )
