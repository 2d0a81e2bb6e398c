"""Heat: where die, board and air stand, from one noisy sensor, and how much power the next seconds bear.

Two RC stages in a row (die to board, board to air); the air's temperature is a random walk that also takes up what is
wrong with the resistances. A Kalman filter with its steady gain follows the three; the gain is found once, by doubling
in the Riccati equation.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final, cast

from edge_daemon.policies.contract import Board

# Standard deviations per second of what the model leaves out (die, board, air), and of the sensor, in degrees.
_PROCESS_C: Final = (0.05, 0.02, 0.02)
_SENSOR_C: Final = 0.35
_DOUBLINGS: Final = 16  # 65,536 seconds
# Air where nothing is known: a closed box in summer. Too warm costs some accuracy, too cold a throttled board.
_UNKNOWN_AIR_C: Final = 35.0

State = tuple[float, float, float]
Matrix = tuple[tuple[float, float, float], ...]
Vector = tuple[float, float, float]
_IDENTITY: Matrix = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


class Observer:
    """The filter of one board.

    Args:
        board: Its physics.
        horizon_s: How long a power has to be borne; `far_s` one that comes with the worst that was seen of late.
    """

    def __init__(self, board: Board, horizon_s: float, far_s: float) -> None:
        (r_die, r_board), (c_die, c_board) = board.r_c_per_w, board.c_j_per_c
        self._rise_c = (r_die * board.idle_w, (r_die + r_board) * board.idle_w)
        parts = max(1, math.ceil(4 / (r_die * c_die)), math.ceil(4 / (r_die * c_board)))
        step_s = 1 / parts
        die, inner, outer = step_s / (r_die * c_die), step_s / (r_die * c_board), step_s / (r_board * c_board)
        part: Matrix = ((1 - die, die, 0.0), (inner, 1 - inner - outer, outer), (0.0, 0.0, 1.0))
        self._second, self._heating = _repeat(part, (step_s / c_die, 0.0, 0.0), parts)
        self._gain = _steady_gain(self._second)
        ahead, heating = _repeat(self._second, self._heating, max(1, round(horizon_s)))
        self._ahead, self._ahead_heating = ahead[0], heating[0]
        ahead, heating = _repeat(self._second, self._heating, max(1, round(far_s)))
        self._far, self._far_heating = ahead[0], heating[0]

    def start(self, temp_c: float | None) -> State:
        """Where things stand when nothing but the sensor is known: as after a long time at idle."""
        die_c, air_c = self._rise_c
        if temp_c is None:
            temp_c = _UNKNOWN_AIR_C + air_c
        return temp_c, temp_c - die_c, temp_c - air_c

    def step(self, state: State, power_w: float, temp_c: float | None) -> State:
        """A second later, at this power; without a reading the model goes on alone."""
        (a, b, c), (d, e, f), _ = self._second
        die, board, air = state
        new_die = a * die + b * board + c * air + self._heating[0] * power_w
        new_board = d * die + e * board + f * air + self._heating[1] * power_w
        if temp_c is None:
            return new_die, new_board, air
        error, gain = temp_c - new_die, self._gain
        return new_die + gain[0] * error, new_board + gain[1] * error, air + gain[2] * error

    def bearable_w(self, state: State, limit_c: float) -> float:
        """The constant power of the whole board with which the die reaches the limit at the horizon, not before."""
        a, b, c = self._ahead
        return (limit_c - a * state[0] - b * state[1] - c * state[2]) / self._ahead_heating

    def bearable_far_w(self, state: State, limit_c: float) -> float:
        """The same for the far horizon."""
        a, b, c = self._far
        return (limit_c - a * state[0] - b * state[1] - c * state[2]) / self._far_heating


@lru_cache(maxsize=16)  # of a board: a policy is made anew with each setting, and this would take most of the time
def observer(board: Board, horizon_s: float, far_s: float) -> Observer:
    """The filter of a board, which knows nothing but the board."""
    return Observer(board, horizon_s, far_s)


def _repeat(step: Matrix, heating: Vector, times: int) -> tuple[Matrix, Vector]:
    """`times` steps as one."""
    total: Matrix = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    heat: Vector = (0.0, 0.0, 0.0)
    for _ in range(times):
        moved = tuple(sum(row[k] * heat[k] for k in range(3)) for row in step)
        heat = (moved[0] + heating[0], moved[1] + heating[1], moved[2] + heating[2])
        total = _product(step, total)
    return total, heat


def _product(one: Matrix, other: Matrix) -> Matrix:
    rows = [[sum(row[k] * other[k][j] for k in range(3)) for j in range(3)] for row in one]
    return tuple((row[0], row[1], row[2]) for row in rows)


def _steady_gain(step: Matrix) -> Vector:
    """The filter's gain once it has settled.

    By doubling, each round twice as far as all before: a random walk of the air settles slowly, and one second a round
    took thousands (E. K.-W. Chu et al., "A structure-preserving doubling algorithm for periodic discrete-time algebraic
    Riccati equations", 2004; here for the filter's equation, so with the step transposed).
    """
    ahead = _transposed(step)
    noise = tuple(tuple(sigma * sigma if at == row else 0.0 for at in range(3)) for row, sigma in enumerate(_PROCESS_C))
    spread = cast("Matrix", noise)
    sensed: Matrix = ((1 / (_SENSOR_C * _SENSOR_C), 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    for _ in range(_DOUBLINGS):
        inverse = _inverted(_sum(_IDENTITY, _product(sensed, spread)))
        back = _product(ahead, inverse)
        more = _product(_product(_transposed(ahead), _product(spread, inverse)), ahead)
        sensed = _sum(sensed, _product(_product(back, sensed), _transposed(ahead)))
        ahead = _product(back, ahead)
        spread = _sum(spread, more)
    total = spread[0][0] + _SENSOR_C * _SENSOR_C
    return spread[0][0] / total, spread[1][0] / total, spread[2][0] / total


def _sum(one: Matrix, other: Matrix) -> Matrix:
    return cast("Matrix", tuple(tuple(one[i][j] + other[i][j] for j in range(3)) for i in range(3)))


def _transposed(matrix: Matrix) -> Matrix:
    return cast("Matrix", tuple(tuple(matrix[j][i] for j in range(3)) for i in range(3)))


def _inverted(m: Matrix) -> Matrix:
    """By cofactors."""
    minors = [
        [
            m[(i + 1) % 3][(j + 1) % 3] * m[(i + 2) % 3][(j + 2) % 3]
            - m[(i + 1) % 3][(j + 2) % 3] * m[(i + 2) % 3][(j + 1) % 3]
            for j in range(3)
        ]
        for i in range(3)
    ]
    determinant = sum(m[0][j] * minors[0][j] for j in range(3))
    return cast("Matrix", tuple(tuple(minors[j][i] / determinant for j in range(3)) for i in range(3)))
