"""How many channels each layer keeps: those that lose least for a given cost, by losses that were measured.

Channels that the same layers make are a *space*. What narrowing one space loses is measured with everything else whole,
after the layers were solved anew (`edge_converter._keras_slim`). Losses of several spaces add up well: of 14 choices
for ResNet8 at 0.45 to 0.62 of the cost, the sum of the measured losses was within 22 % of the loss of all together. So
a choice is a sum to make small under a cost, and no model is built to compare choices.

Imported in the TensorFlow process only, though it needs NumPy alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_converter._keras_channels import DEPTHWISE_COST, TILE, Channels, Ids

Keep = NDArray[np.bool_]

# Channels go this many at a time: kernels of XNNPACK work on blocks of 4 to 16 (NEON, AVX2), so fewer save nothing.
_BLOCK = 4
_MEASURED = (0.25, 0.5, 0.75)
# A pair of spaces is compared with every other; of more spaces only those next to each other in the model are.
_ALL_PAIRS = 24
_SWEEPS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Channels that the same layers make.

    Attributes:
        units: In the order in which they go, the least needed first.
        widths: How many stay, ascending; the last is all of them.
        lost: With each of them: what is lost, never more with more channels.
    """

    units: Ids
    widths: tuple[int, ...]
    lost: tuple[float, ...]

    def loss(self, width: int) -> float:
        """What is lost with so many channels, between the widths that were measured by a straight line."""
        return float(np.interp(width, self.widths, self.lost))

    def narrower(self, width: int) -> list[int]:
        """The widths below this one that are worth a look."""
        return [each for each in choices(len(self.units)) if self.widths[0] <= each < width]


def choices(count: int) -> list[int]:
    """How many of so many channels may stay: whole blocks, ascending, all of them last."""
    block = _block(count)
    return [*range(block, count, block), count]


def measured(count: int) -> list[int]:
    """For how many channels a loss is worth measuring, ascending, without all of them."""
    block = _block(count)
    found = {max(block, int(share * count) // block * block) for share in _MEASURED}
    return sorted(each for each in found if each < count)


def space(units: Ids, losses: Sequence[tuple[int, float]]) -> Space:
    """A space of what was measured.

    Args:
        units: In the order in which they go.
        losses: Widths, ascending, and what is lost with them.
    """
    widths = (*(width for width, _ in losses), len(units))
    # What chance lets a wider layer lose more is no reason to make it narrower.
    lost = np.maximum.accumulate([0.0, *(max(0.0, loss) for _, loss in reversed(losses))])[::-1]
    return Space(units=units, widths=widths, lost=tuple(float(each) for each in lost))


def choose(channels: Channels, spaces: Sequence[Space], most: float) -> Keep | None:
    """Which units stay, so that little is lost at no more than a cost; None where even the narrowest costs more.

    Channels go where they lose least for what they save, until the cost is low enough; then one space is made wider and
    another narrower for as long as that loses less. On ResNet8 that finds the best of all choices at 7 of 8 costs.
    """
    choice = _Choice(channels, spaces)
    widths = [len(each.units) for each in spaces]
    while (cost := choice.cost(widths)) > most:
        best: tuple[float, list[int]] | None = None
        for number, each in enumerate(spaces):
            for width in each.narrower(widths[number]):
                other = [*widths[:number], width, *widths[number + 1 :]]
                saved = cost - choice.cost(other)
                price = (each.loss(width) - each.loss(widths[number])) / saved if saved else np.inf
                if best is None or price < best[0]:
                    best = price, other
        if best is None:
            return None
        widths = best[1]
    for _ in range(_SWEEPS):
        better = choice.better(widths, most)
        if better is None:
            break
        widths = better
    return choice.keep(widths)


class _Choice:
    """What choices cost and lose."""

    def __init__(self, channels: Channels, spaces: Sequence[Space]) -> None:
        self._channels = channels
        self._spaces = spaces
        of = np.full(channels.units + 1, len(spaces))  # the last, for what is always kept
        for number, each in enumerate(spaces):
            of[each.units] = number
        self._inputs = np.stack([_shares(of[work.inputs], spaces) for work in channels.work])
        self._outputs = np.stack([_shares(of[work.outputs], spaces) for work in channels.work])
        self._each = np.array([work.each for work in channels.work], np.float64)
        self._pairs_up = np.array([bool(work.outputs.size) for work in channels.work])

    def keep(self, widths: Sequence[int]) -> Keep:
        kept = self._channels.all_kept()
        for each, width in zip(self._spaces, widths, strict=True):
            kept[each.units[: len(each.units) - width]] = False
        return kept

    def cost(self, widths: Sequence[int]) -> float:
        """What `Channels.cost` gives, but of all works at once: this is asked a million times."""
        counts = np.array([*widths, 1], np.float64)
        inputs, outputs = self._inputs @ counts, self._outputs @ counts
        made = np.where(self._pairs_up, outputs, inputs)
        pairs = np.where(self._pairs_up, inputs, float(DEPTHWISE_COST))
        # A sum of shares may be a hair above the whole number it stands for.
        return float(np.sum(self._each * pairs * np.ceil(made / TILE - 1e-9) * TILE))

    def better(self, widths: list[int], most: float) -> list[int] | None:
        """The choice next to this one that loses least at no more than this cost, if it loses less than this one."""
        least, found = -1e-9, None
        for one, other in self._pairs():
            for wider in (each for each in choices(len(self._spaces[one].units)) if each > widths[one]):
                won = self._spaces[one].loss(wider) - self._spaces[one].loss(widths[one])
                for narrower in [widths[other], *self._spaces[other].narrower(widths[other])]:
                    change = won + self._spaces[other].loss(narrower) - self._spaces[other].loss(widths[other])
                    if change >= least:
                        continue
                    changed = list(widths)
                    changed[one], changed[other] = wider, narrower
                    if self.cost(changed) <= most:
                        least, found = change, changed
        return found

    def _pairs(self) -> Iterator[tuple[int, int]]:
        count = len(self._spaces)
        for one in range(count):
            for other in range(count):
                if one != other and (count <= _ALL_PAIRS or abs(one - other) <= _ALL_PAIRS // 2):
                    yield one, other


def _shares(of: Ids, spaces: Sequence[Space]) -> NDArray[np.float64]:
    """How many of these channels are there for each kept one of each space, and how many always."""
    counts = np.bincount(of, minlength=len(spaces) + 1).astype(np.float64)
    found: NDArray[np.float64] = counts / np.array([*(len(each.units) for each in spaces), 1])
    return found


def _block(count: int) -> int:
    return _BLOCK if count >= 2 * _BLOCK else 1
