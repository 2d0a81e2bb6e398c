"""How a variant's worth is said to people: its value in the metric's unit, and a drop with how sure it is."""

from __future__ import annotations

from edge_sdk.manifest import Quality

# Metrics whose value is a share of a hundred; `docs/reference/data-and-metrics.md` defines them.
PERCENT = frozenset(("accuracy", "top5", "recall", "r2", "mae-skill", "map", "miou", "cosine", "verification"))


def value_text(quality: Quality) -> str:
    """A variant's worth in its metric's unit: `91.25 %`, or `0.4183` for a user's own metric."""
    return f"{quality.value:.2f} %" if quality.metric in PERCENT else f"{quality.value:.4g}"


def drop_text(drop: float, interval: float, samples: int) -> str:
    """A drop and how sure it is, such as `0.3 ± 0.4 pt (n=500)`, with the digits the interval warrants.

    Args:
        drop: In points.
        interval: Half the width of its 95 % interval, in points.
        samples: It rests on.
    """
    digits = next((n for n in range(1, 4) if interval >= 0.95 * 10.0**-n), 4)
    return f"{drop:.{digits if interval else 1}f} ± {interval:.{digits if interval else 1}f} pt (n={samples})"
