"""Boxes around things: COCO's mean average precision, matched by pycocotools.

The model's outputs are those of TFLite_Detection_PostProcess, in either of its two orders:

- boxes `[batch, n, 4]`, classes, scores `[batch, n]`, count `[batch]`, as TensorFlow 1 and the operator itself give
  them (the first output has the boxes);
- scores, boxes, count, classes, as TensorFlow 2's Object Detection API exports them (the second has the boxes).

Boxes are `ymin, xmin, ymax, xmax` in shares of the picture, as are those of the labels, `[n, most, 5 or 6]`: the box,
its class, and 1 where it is a crowd (what lies in it counts for nothing); class -1 fills up.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_converter.errors import DataError
from edge_converter.metrics.contract import Array, Floats, Judged, parts
from edge_sdk.errors import MissingExtraError
from edge_sdk.manifest import TensorSpec

# COCO's own: detections a picture, thresholds of the overlap, and points of recall that precision is averaged over.
_MOST = 100
_OVERLAPS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0.0, 1.0, 101)
_BOX, _LABEL = 4, (5, 6)
_OUTPUTS = 4
# What an app would draw: detections below this score are not asked to agree, nor those that overlap less than half.
_SHOWN, _SAME = 0.3, 0.5
_PIXELS = 1000.0  # COCO's areas and boxes are in pixels; without bounds on the area any scale will do


def outputs_of(outputs: Sequence[TensorSpec]) -> tuple[int, int, int, int] | None:
    """Where boxes, classes, scores and count are among the outputs; None where these are no detections."""
    if len(outputs) != _OUTPUTS:
        return None
    first, second = outputs[0].shape, outputs[1].shape
    if len(first) == 3 and first[2] == _BOX:  # noqa: PLR2004 - batch, boxes, corners
        return 0, 1, 2, 3
    if len(second) == 3 and second[2] == _BOX:  # noqa: PLR2004
        return 1, 3, 0, 2
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfClass:
    """All detections of one class, the surest first.

    Attributes:
        sample: In which each is, `[detections]`.
        hit: Whether it matches a thing, at each threshold, `[thresholds, detections]`.
        ignored: Whether it lies in a crowd, likewise.
        things: How many there are in each sample, `[n]`.
    """

    sample: NDArray[np.int64]
    hit: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    things: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """What matched what, from which the precision over any weighting of the samples follows."""

    classes: Mapping[int, _OfClass]
    samples: int
    scores: None = None

    @property
    def by_class(self) -> Mapping[int, float]:
        """The average precision of each class, in percent."""
        return {number: 100.0 * _precision(one, None) for number, one in self.classes.items()}

    def value(self, weights: Floats | None = None) -> float:
        """COCO's mAP over overlaps 0.50 to 0.95, in percent."""
        found = [_precision(one, weights) for one in self.classes.values()]
        known = [one for one in found if not math.isnan(one)]  # a class may be absent from a resample
        return 100.0 * float(np.mean(known)) if known else float("nan")


class MeanPrecision:
    """`map`: mean average precision of boxes at overlaps 0.50 to 0.95, as COCO counts it, in percent.

    Agreement: twice the boxes that variant and reference share over all they show, averaged over the samples; shown is
    what scores 0.3 or more, shared what is of the same class and overlaps by half.
    """

    name = "map"
    unit = "%"
    guess = 0.0
    classes = None
    by_reference = False

    def __init__(self, judged: Judged) -> None:
        where = judged.samples.where
        at = outputs_of(judged.outputs)
        if at is None:
            shapes = ", ".join(str(list(spec.shape)) for spec in judged.outputs)
            raise DataError(
                f"map needs boxes, classes, scores and a count, and the model gives {shapes}",
                where=where,
                hint="as TFLite_Detection_PostProcess does; else judge by a metric of your own, module:function",
            )
        _coco()
        self._at, self._judged = at, judged
        for labels in judged.labels():
            if labels.ndim != 3 or labels.shape[2] not in _LABEL:  # noqa: PLR2004 - samples, boxes, numbers
                raise DataError("y holds no boxes [n, most, 5]: ymin, xmin, ymax, xmax, class", where=where)
            there = labels[labels[:, :, _BOX] >= 0]
            low, high = there[:, :2], there[:, 2:_BOX]
            if not (np.isfinite(there).all() and (low >= 0).all() and (high <= 1).all() and (low <= high).all()):
                raise DataError(
                    "a box is not ymin, xmin, ymax, xmax in shares of the picture, from 0 to 1", where=where
                )
        if not any((labels[:, :, _BOX] >= 0).any() for labels in judged.labels()):
            raise DataError("no sample that counts has a box", where=where)

    def keep(self, outputs: Sequence[Array], labels: Array) -> Array:  # noqa: ARG002 - the contract's
        """Boxes, score and class, the surest first, `[n, 100 at most, 6] float32`; score -1 fills up."""
        boxes, classes, scores, count = (np.asarray(outputs[at], np.float32) for at in self._at)
        samples = len(boxes)
        rows = np.concatenate(
            [boxes, scores.reshape(samples, -1, 1), classes.reshape(samples, -1, 1)], axis=2, dtype=np.float32
        )
        beyond = np.arange(rows.shape[1])[np.newaxis] >= np.nan_to_num(count.reshape(samples, 1))
        rows[beyond | ~np.isfinite(rows).all(axis=2)] = (0, 0, 0, 0, -1, -1)
        order = np.argsort(-rows[:, :, _BOX], axis=1, kind="stable")[:, :_MOST]
        return np.take_along_axis(rows, order[:, :, np.newaxis], axis=1)

    def tally(self, kept: Array, reference: Array) -> Matches:  # noqa: ARG002 - the contract's
        """What matched what."""
        collected: dict[int, list[tuple[int, Any]]] = {}
        begin = 0
        for (found,), labels in zip(parts(kept), self._judged.labels(), strict=True):
            for number, per_sample in _matched(found, labels).items():
                collected.setdefault(number, []).extend((begin + sample, one) for sample, one in per_sample)
            begin += len(found)
        classes = {number: _of_class(entries, begin) for number, entries in sorted(collected.items())}
        return Matches(classes={number: one for number, one in classes.items() if one.things.any()}, samples=begin)

    def agreement(self, kept: Array, reference: Array) -> float:
        """Boxes that both show over all that either shows, averaged over samples."""
        total = 0.0
        for mine, theirs in parts(kept, reference):
            total += sum(_shared(one, other) for one, other in zip(mine, theirs, strict=True))
        return 100.0 * total / len(kept)


def _coco() -> Any:
    try:
        from pycocotools import cocoeval
    except ImportError as cause:
        raise MissingExtraError(
            "mean average precision needs pycocotools", hint="pip install 'adaptive-edge-sdk[coco]'"
        ) from cause
    return cocoeval


def _matched(found: Array, labels: Array) -> dict[int, list[tuple[int, Any]]]:
    """Pycocotools' matches of some samples, by class: sample and what it says of it."""
    module = _coco()
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):  # it reports to standard output
        sides = []
        for boxes, is_truth in ((labels, True), (found, False)):
            annotations = [
                _annotation(row, sample, is_truth=is_truth)
                for sample, rows in enumerate(boxes)
                for row in rows
                if row[_BOX] >= 0
            ]
            for number, one in enumerate(annotations, start=1):
                one["id"] = number
            side = COCO()
            side.dataset = {
                "images": [{"id": sample} for sample in range(len(boxes))],
                "annotations": annotations,
                "categories": [{"id": n} for n in sorted({one["category_id"] for one in annotations})],
            }
            side.createIndex()
            sides.append(side)
        judge = module.COCOeval(*sides, iouType="bbox")
        judge.params.imgIds = list(range(len(labels)))
        judge.params.catIds = sorted({*sides[0].cats, *sides[1].cats})
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
        judge.params.maxDets, judge.params.iouThrs = [_MOST], _OVERLAPS
        judge.evaluate()
    by_class: dict[int, list[tuple[int, Any]]] = {}
    for one in judge.evalImgs:
        if one is not None:
            by_class.setdefault(int(one["category_id"]), []).append((int(one["image_id"]), one))
    return by_class


def _annotation(row: Array, sample: int, *, is_truth: bool) -> dict[str, Any]:
    top, left, bottom, right = (float(edge) * _PIXELS for edge in row[:_BOX])
    box = [left, top, right - left, bottom - top]
    one: dict[str, Any] = {"image_id": sample, "bbox": box, "area": max(0.0, box[2]) * max(0.0, box[3]), "iscrowd": 0}
    if is_truth:
        crowd = len(row) > _LABEL[0] and row[_LABEL[0]] > 0
        return {**one, "category_id": int(row[_BOX]), "iscrowd": int(crowd), "ignore": int(crowd)}
    return {**one, "category_id": int(row[_BOX + 1]), "score": float(row[_BOX])}


def _of_class(entries: Sequence[tuple[int, Any]], samples: int) -> _OfClass:
    things = np.zeros(samples, np.int64)
    for sample, one in entries:
        things[sample] += int((np.asarray(one["gtIgnore"]) == 0).sum())
    scores = np.concatenate([np.asarray(one["dtScores"], np.float64) for _, one in entries])
    order = np.argsort(-scores, kind="mergesort")
    where = np.concatenate([np.full(len(one["dtScores"]), sample, np.int64) for sample, one in entries])
    hit = np.concatenate([np.asarray(one["dtMatches"]).reshape(len(_OVERLAPS), -1) for _, one in entries], axis=1) > 0
    ignored = np.concatenate([np.asarray(one["dtIgnore"]).reshape(len(_OVERLAPS), -1) for _, one in entries], axis=1)
    return _OfClass(
        sample=where[order], hit=hit[:, order], ignored=ignored.astype(bool)[:, order], things=things
    )  # fmt: skip


def _precision(one: _OfClass, weights: Floats | None) -> float:
    """Average precision over all overlaps: COCOeval.accumulate, with each sample counted as often as it weighs."""
    things = float(one.things.sum() if weights is None else one.things @ weights)
    if things == 0:
        return float("nan")
    each = 1.0 if weights is None else weights[one.sample]
    right = np.cumsum((one.hit & ~one.ignored) * each, axis=1)
    wrong = np.cumsum((~one.hit & ~one.ignored) * each, axis=1)
    if not right.shape[1]:
        return 0.0
    precision = right / np.maximum(right + wrong, np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = right / things
    total = 0.0
    for threshold in range(len(_OVERLAPS)):
        at = np.searchsorted(recall[threshold], _RECALLS, side="left")
        reached = at[at < precision.shape[1]]
        total += float(precision[threshold, reached].sum()) / len(_RECALLS)
    return total / len(_OVERLAPS)


def _shared(mine: Array, theirs: Array) -> float:
    """Twice what two models' boxes for one sample have in common, over all of them; 1 where neither shows any."""
    one, other = (boxes[boxes[:, _BOX] >= _SHOWN] for boxes in (mine, theirs))
    if not len(one) + len(other):
        return 1.0
    overlaps = _overlap(one, other)
    overlaps[one[:, np.newaxis, _BOX + 1] != other[np.newaxis, :, _BOX + 1]] = 0.0
    shared = 0
    while overlaps.size and overlaps.max() >= _SAME:
        row, column = np.unravel_index(int(overlaps.argmax()), overlaps.shape)
        overlaps[row, :] = overlaps[:, column] = 0.0
        shared += 1
    return 2.0 * shared / (len(one) + len(other))


def _overlap(one: Array, other: Array) -> Floats:
    low = np.maximum(one[:, np.newaxis, :2], other[np.newaxis, :, :2])
    high = np.minimum(one[:, np.newaxis, 2:_BOX], other[np.newaxis, :, 2:_BOX])
    both = np.prod(np.clip(high - low, 0.0, None), axis=2, dtype=np.float64)
    areas = [np.prod(np.clip(boxes[:, 2:_BOX] - boxes[:, :2], 0.0, None), axis=1) for boxes in (one, other)]
    either = areas[0][:, np.newaxis] + areas[1][np.newaxis] - both
    found: Floats = both / np.maximum(either, 1e-12)
    return found
