"""What variants answered, from the cache where it is known.

Known is what the same file answered to the same samples, prepared and kept in the same way by the same libraries. A
user's own metric is never believed to be the same: its code is not ours to follow.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np

from edge_converter import cache as caching
from edge_converter import evaluate, metrics
from edge_converter.cache import Cache
from edge_converter.labelled.data import Integers, Samples
from edge_converter.metrics import Metric
from edge_converter.quantization.values import Array

# Larger answers (segmentations of many images) are computed again.
_MOST_BYTES = 64_000_000


class Answered:
    """Answers of variants to the samples that count.

    Args:
        samples: Labelled data.
        rows: Those that count.
        metric: That says what is kept of an answer.
        cache: Of earlier answers.
    """

    def __init__(self, samples: Samples, rows: Integers, metric: Metric, cache: Cache) -> None:
        self._samples, self._rows, self._metric, self._cache = samples, rows, metric, cache
        self._key = self._of_samples()

    def kept(self, path: Path, *, advance: Callable[[int], None]) -> Array:
        """What the metric keeps of a file's answers.

        Args:
            path: The file.
            advance: Told how many more samples are done.

        Raises:
            MetricError: The answers cannot be judged.
        """
        key = self._key and caching.key("answers", self._key, path.read_bytes())
        known = self._cache.get(key) if key else None
        if known is not None:
            advance(len(self._rows))
            found: Array = np.load(BytesIO(known), allow_pickle=False)
            return found
        found = evaluate.kept(path, self._samples, self._rows, self._metric.keep, advance=advance)
        if key and found.nbytes <= _MOST_BYTES:
            stream = BytesIO()
            np.save(stream, np.asarray(found), allow_pickle=False)
            self._cache.put(key, stream.getvalue())
        return found

    def _of_samples(self) -> str:
        """A digest of samples, labels and metric; empty where answers cannot be known again."""
        labels = np.asarray(self._samples.labels)
        if self._metric.name not in metrics.METRICS or labels.dtype.kind not in "biuf" or self._cache.place is None:
            return ""
        digests = self._samples.digests()
        return caching.key(
            "counted",
            self._metric.name,
            [digests[row].hex() for row in self._rows],
            caching.digest(np.ascontiguousarray(labels[self._rows]).tobytes()),
            repr(self._samples.preprocessing),
            caching.computers(),
        )
