"""The price of a joule to one who does not know what comes: what it is expected to be worth at the end."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from edge_lab.simulate.floor_value import Moves
from edge_lab.simulate.world import Floats, World

_RESERVE: Final = 0.001  # of the battery, less in the last five minutes
_RESERVE_S: Final = 300.0
_FORGETS_S: Final = 60.0  # after about so long contexts are independent
_HALVINGS: Final = 12
# Gaussian quadrature of what may come: deviations and their weights.
_NODES: Final = ((-2.0, 0.054), (-1.0, 0.244), (0.0, 0.404), (1.0, 0.244), (2.0, 0.054))


class Price:
    """Points of quality per joule, by what is left of the battery, or of the mean power, and the context."""

    def __init__(self, world: World, moves: Moves) -> None:
        self._world, self._moves = world, moves
        chain = moves.chain
        self._rows = np.arange(len(chain))
        self._share: Floats = np.linalg.matrix_power(chain, 1 << 20)[0]
        self._fundamental: Floats = np.linalg.inv(np.eye(len(chain)) - chain + self._share)
        # What staying alive is worth per joule: nothing is dearer.
        alive = self._share @ moves.quality.max(axis=1)
        self._dearest = float(alive / (world.setting.board.idle_w + self._share @ moves.joules.min(axis=1)))
        # Twice as long each time: I + P + ... + P^(2n-1) = (I + ... + P^(n-1)) (I + P^n).
        self._doubled: list[tuple[int, Floats, Floats]] = []
        count, summed, power = 1, np.eye(len(chain)), chain
        while count <= world.seconds:
            self._doubled.append((count, summed, power))
            count, summed, power = count * 2, summed + summed @ power, power @ power

    def at(self, second: int, drawn_j: float, context: int) -> float:
        """The price at this second, `drawn_j` after the begin, in this context."""
        world, setting = self._world, self._world.setting
        until_s = setting.until_s or float(world.seconds)
        left_s = until_s - second
        price = 0.0
        if setting.battery_j is not None and left_s > 0:
            reserve_j = _RESERVE * setting.battery_j * math.sqrt(min(left_s / _RESERVE_S, 1.0))
            drained_j = float(world.battery_w[:second].sum()) + float(world.battery_w.mean()) * left_s
            price = self._lasting(setting.battery_j - drawn_j - drained_j - reserve_j, left_s, context)
        if setting.max_power_w is not None:
            budget_j = setting.max_power_w * world.seconds - drawn_j
            price = max(price, self._lasting(budget_j, world.seconds - float(second), context))
        return price

    def _lasting(self, budget_j: float, left_s: float, context: int) -> float:
        """The mean of the prices at which it would last, over what may come: a price is a martingale."""
        moves, spent_s = self._moves, self._occupied(left_s, context)
        budget_j -= self._world.setting.board.idle_w * left_s + float(spent_s @ moves.others_w)

        def chosen(price: float) -> Floats:
            drawn: Floats = moves.joules[self._rows, (moves.quality - price * moves.joules).argmax(axis=1)]
            return drawn

        def lasting(budget: float) -> float:
            if float(spent_s @ chosen(0.0)) <= budget:
                return 0.0
            low, high = 0.0, self._dearest
            for _ in range(_HALVINGS):
                price = (low + high) / 2
                low, high = (price, high) if float(spent_s @ chosen(price)) > budget else (low, price)
            return high

        usual_w = chosen(lasting(budget_j)) + moves.others_w
        spread_j = math.sqrt(max(self._variance(usual_w), 0.0) * left_s * left_s / (left_s + _FORGETS_S))
        return sum(weight * lasting(budget_j + node * spread_j) for node, weight in _NODES)

    def _variance(self, drawn_w: Floats) -> float:
        """What a second adds to the variance of the energy of many, along the chain (Kemeny and Snell, 1960)."""
        off = drawn_w - self._share @ drawn_w
        return float((self._share * off) @ (2 * self._fundamental @ off - off))

    def _occupied(self, left_s: float, context: int) -> Floats:
        """Expected seconds in each context from now on, `[contexts]`."""
        now = np.zeros(len(self._rows))
        now[context] = 1.0
        spent = np.zeros(len(self._rows))
        rest = int(left_s)
        for many, of_many, after in reversed(self._doubled):
            if rest >= many:
                spent += now @ of_many
                now = now @ after
                rest -= many
        return spent
