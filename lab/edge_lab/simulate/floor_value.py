"""What heat and a loaded variant are worth to one who knows the chain of contexts but not which will come.

Value iteration over (context, loaded variant, the two modes of heat above their balance at idle), swept again and again
while the run goes on, with the price of a joule and the air of the moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_lab.simulate.oracle_heat import Modes
from edge_lab.simulate.world import SUBSTEPS, Floats

Singles = NDArray[np.float32]

_OVER: Final = 400.0  # points a second per degree above the limit
_ABOVE_C: Final = 2.0
_EARLY_C: Final = 0.35  # below the limit it begins to count: what comes is only expected
_NARROWEST_C: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """Where each action leads.

    Attributes:
        loaded: The variant that is loaded after each action, `[actions]`.
        chain: Probability of each context a second after each, `[contexts, contexts]`.
        quality, joules: Per second, `[contexts, actions]`; joules above idle, without what others draw.
        others_w: What others draw, `[contexts]`.
        switch_j: Of a load.
    """

    loaded: NDArray[np.int64]
    chain: Floats
    quality: Floats
    joules: Floats
    others_w: Floats
    switch_j: float


class HeatValue:
    """The value of the rest of a run that goes on for ever; differences count, not its level.

    Attributes:
        value: `[contexts, variants, fast, slow]`; `ahead` is what it is expected to be a second on, by the context now.
    """

    def __init__(self, moves: Moves, modes: Modes, room_c: float, shape: tuple[int, int]) -> None:
        """Begin at nothing.

        Args:
            moves: Of the chain.
            modes: Of the board.
            room_c: The highest difference between the limit and the balance at idle in the run's time.
            shape: Points of the fast and the slow mode.
        """
        self._moves, self._shape = moves, shape
        contexts, actions = moves.quality.shape
        variants = int(moves.loaded.max()) + 1
        even = modes.gain.sum(axis=0) / SUBSTEPS
        heat_c = (moves.joules + moves.others_w[:, None])[:, :, None] * even
        heat_c = np.stack([heat_c, heat_c + moves.switch_j * modes.gain[0]], axis=2)  # [contexts, actions, load, 2]
        most = heat_c.max(axis=(0, 1, 2)) / (1 - modes.keep)
        self.step_c: Floats = np.maximum(np.minimum(most, room_c + _ABOVE_C), _NARROWEST_C) / (np.array(shape) - 1)
        to = [
            modes.keep[mode] * self.step_c[mode] * np.arange(shape[mode]) + heat_c[..., mode, None] for mode in (0, 1)
        ]
        fast, slow = (
            np.maximum(
                0,
                1
                - np.abs(np.clip(to[mode] / self.step_c[mode], 0, shape[mode] - 1)[..., None] - np.arange(shape[mode])),
            ).astype(np.float32)
            for mode in (0, 1)
        )
        self._fast = fast.reshape(contexts, -1, shape[0], shape[0])
        self._slow = slow.reshape(contexts, -1, shape[1], shape[1]).swapaxes(-1, -2).copy()
        self._die_c = (to[0][..., :, None] + to[1][..., None, :]).astype(np.float32).reshape(contexts, -1, *shape)
        loads = moves.loaded[None, :] != np.arange(variants)[:, None]
        self._loads = loads
        self._which = 2 * np.arange(actions) + loads  # [variants, actions]
        self._target = np.repeat(moves.loaded, 2)
        self._chain = moves.chain.astype(np.float32)
        self.value: Singles = np.zeros((contexts, variants, *shape), dtype=np.float32)
        self.ahead: Singles = self.value

    def sweep(self, price: float, room_c: float, tie: float) -> None:
        """One second more.

        Args:
            price: Points of quality per joule.
            room_c: How far the limit is above the balance at idle.
            tie: Points that a load must bring.
        """
        moves, contexts = self._moves, len(self._chain)
        self.ahead = (self._chain @ self.value.reshape(contexts, -1)).reshape(self.value.shape)
        reached = self._fast @ self.ahead[:, self._target] @ self._slow
        reached -= _OVER * np.maximum(self._die_c - np.float32(room_c - _EARLY_C), 0)
        worth = (moves.quality - price * moves.joules)[:, None, :] - (price * moves.switch_j + tie) * self._loads
        worth = worth.astype(np.float32)
        best = np.empty_like(self.value)
        for variant, which in enumerate(self._which):
            value = reached[:, which]
            value += worth[:, variant, :, None, None]
            value.max(axis=1, out=best[:, variant])
        best -= best[0, 0, 0, 0]
        self.value = best

    def forget(self) -> None:
        """Begin at nothing again: as at the end of a run."""
        self.value = np.zeros_like(self.value)

    def at(self, ahead: Singles, context: int, variants: NDArray[np.int64], above_c: Floats) -> Floats:
        """The value of `ahead` for each of these variants loaded, at `above_c` (`[n, 2]`) above the balance at idle."""
        limit = np.array(self._shape) - 1
        place = np.clip(above_c / self.step_c, 0, limit)
        corner = np.minimum(place.astype(np.int64), limit - 1)
        (x, y), (u, v) = corner.T, (place - corner).T
        table = ahead[context]
        value: Floats = (1 - u) * ((1 - v) * table[variants, x, y] + v * table[variants, x, y + 1]) + u * (
            (1 - v) * table[variants, x + 1, y] + v * table[variants, x + 1, y + 1]
        )
        return value
