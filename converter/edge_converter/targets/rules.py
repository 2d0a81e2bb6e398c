"""Whether a row of a table takes an operator, and if not, why: one function for each condition.

A reason is a clause that reads well after the operator's name: `CONV_2D x3: dilation 2, at most 1 is taken`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from edge_converter.targets.operators import Operator, Tensor
from edge_converter.targets.optable import Axes, Row, Table

_QUANTIZED = frozenset({"int8", "uint8", "int16"})
_FLOATS = frozenset({"float32", "float16"})
_IMAGE_RANK = 4
_REDUCED_AT = 1  # the input that names the axes of a reduction
# Which input of a slice, pad or transpose says what to do, so that no type of the table's concerns it.
_SAYS_HOW = frozenset({"int32", "int64", "bool"})


def refusal(operator: Operator, table: Table, level: int | None) -> str | None:
    """Why the operator stays on the CPU, whatever stands beside it; None where it is taken.

    Args:
        operator: What is to be computed.
        table: Of the driver or compiler.
        level: The API level, for tables that have levels.
    """
    row = table.row(operator.op)
    if row is None:
        return "not in its table"
    for check in _TABLE_CHECKS:
        if reason := check(operator, row, table, level):
            return reason
    return next((reason for check in _ROW_CHECKS if (reason := check(operator, row))), None)


# ------------------------------------------------------------------------------------------- what the table asks of all


def _since(_: Operator, row: Row, __: Table, level: int | None) -> str | None:
    if row.since is not None and level is not None and level < row.since:
        return f"taken from API level {row.since} on, this is {level}"
    return None


def _free(operator: Operator, _: Row, table: Table, __: int | None) -> str | None:
    if table.is_static and any(tensor.is_free for tensor in operator.moving):
        return "a size is known only when it runs (dynamic shape)"
    return None


def _kinds(operator: Operator, row: Row, table: Table, level: int | None) -> str | None:
    wanted = row.activations or table.activations
    for tensor in operator.moving:
        if tensor.kind in wanted:
            if (
                tensor.kind == "int8"
                and table.int8_since is not None
                and level is not None
                and level < table.int8_since
            ):
                return f"int8 is taken from API level {table.int8_since} on, this is {level}"
            continue
        if (
            tensor.kind in _SAYS_HOW
            and operator.inputs
            and tensor is not operator.inputs[0]
            and not _is_output(operator, tensor)
        ):
            continue
        return f"{tensor.kind} where {' or '.join(wanted)} is computed"
    return None


def _is_output(operator: Operator, tensor: Tensor) -> bool:
    return any(tensor is output for output in operator.outputs)


def _hybrid(operator: Operator, _: Row, table: Table, __: int | None) -> str | None:
    weights = operator.weights
    if weights is None or table.takes_hybrid or weights.kind not in _QUANTIZED:
        return None
    activation = operator.inputs[0]
    if activation is not None and activation.kind in _FLOATS and not weights.is_unpacked:
        return f"{weights.kind} weights under float activations"
    return None


def _per_tensor(operator: Operator, _: Row, table: Table, __: int | None) -> str | None:
    weights = operator.weights
    if table.is_per_tensor and weights is not None and weights.scales > 1:
        return "its weights have one scale a channel, one for all (per tensor) is taken"
    return None


def _batch(operator: Operator, _: Row, table: Table, __: int | None) -> str | None:
    if table.batch is None or operator.weights is None:
        return None
    batch = max((t.shape[0] for t in operator.moving if len(t.shape) == _IMAGE_RANK), default=1)
    return f"batch {batch}, at most {table.batch} is taken" if batch > table.batch else None


def _ranks(operator: Operator, _: Row, table: Table, __: int | None) -> str | None:
    found = max((len(tensor.shape) for tensor in operator.moving), default=0)
    if table.ranks is not None and found > table.ranks:
        return f"{found} axes, at most {table.ranks} are taken"
    return None


_TABLE_CHECKS: tuple[Callable[[Operator, Row, Table, int | None], str | None], ...] = (
    _since,
    _free,
    _kinds,
    _hybrid,
    _per_tensor,
    _batch,
    _ranks,
)


# ---------------------------------------------------------------------------------------------------- what the row asks


def _version(operator: Operator, row: Row) -> str | None:
    if row.version is not None and operator.version > row.version:
        return f"operator version {operator.version}, at most {row.version} is taken"
    return None


def _weights(operator: Operator, row: Row) -> str | None:
    found = operator.weights
    if row.weights and found is not None and found.kind not in row.weights:
        return f"{found.kind} weights where {' or '.join(row.weights)} are taken"
    return None


def _fused(operator: Operator, row: Row) -> str | None:
    if row.fused is not None and operator.fused not in row.fused:
        return f"{operator.fused} fused into it"
    return None


def _constants(operator: Operator, row: Row) -> str | None:
    def given(positions: tuple[int, ...]) -> list[Tensor]:
        found = (operator.inputs[at] for at in positions if at < len(operator.inputs))
        return [tensor for tensor in found if tensor is not None]

    if any(not tensor.is_constant for tensor in given(row.constant)):
        return "a parameter is computed, not a constant"
    return "an input is a constant" if any(tensor.is_constant for tensor in given(row.computed)) else None


def _strides(operator: Operator, row: Row) -> str | None:
    most = row.stride
    if row.stride_same is not None and (operator.is_same or max(operator.dilation) > 1):
        most = row.stride_same if most is None else min(most, row.stride_same)
    if most is not None and operator.stride > most:
        return f"stride {operator.stride}, at most {most} is taken"
    return None


def _dilation(operator: Operator, row: Row) -> str | None:
    if row.dilation is not None and max(operator.dilation) > row.dilation:
        return f"dilation {max(operator.dilation)}, at most {row.dilation} is taken"
    if row.equal_dilation and len(set(operator.dilation)) > 1:
        return "another dilation in height than in width"
    return None


def _window(operator: Operator, row: Row) -> str | None:
    if operator.window is None:
        return None
    if row.kernel_same is not None and operator.is_same and max(operator.window) > row.kernel_same:
        return f"a window of {max(operator.window)} with SAME padding, at most {row.kernel_same} is taken"
    if row.kernel is not None and operator.window[0] > row.kernel:
        return f"a window of height {operator.window[0]}, at most {row.kernel} is taken"
    return None


def _unit_strides(operator: Operator, row: Row) -> str | None:
    if not row.unit_strides or len(operator.inputs) <= 3:  # noqa: PLR2004 - input, begin, end, strides
        return None
    strides = operator.inputs[3]
    if strides is None or strides.values is None or set(strides.values) != {1} or not operator.is_plain_slice:
        return "it skips elements, or changes the axes"
    return None


def _axes(operator: Operator, row: Row) -> str | None:
    if row.axes is None or not operator.outputs:
        return None
    rank = max((len(t.shape) for t in operator.inputs if t is not None), default=0)
    axes = _worked_along(operator, rank)
    if axes is None:
        return None
    if row.axes is Axes.NOT_BATCH and 0 in axes:
        return "it works along the batch"
    if row.axes is Axes.SPATIAL and not (rank == _IMAGE_RANK and axes <= {1, 2}):
        return "it works along other axes than height and width"
    return "it works along another axis than the last" if row.axes is Axes.LAST and axes != {rank - 1} else None


def _worked_along(operator: Operator, rank: int) -> set[int] | None:
    """The axes, counted from the batch; None where they cannot be read."""
    second = operator.inputs[_REDUCED_AT] if len(operator.inputs) > _REDUCED_AT else None
    if operator.op in {"PAD", "PADV2", "MIRROR_PAD"}:
        pads = second.values if second is not None else None
        return None if pads is None else {at // 2 for at, size in enumerate(pads) if size}
    if operator.axis is not None:
        packed = 1 if operator.op == "PACK" else 0
        return {operator.axis % max(1, rank + packed)}
    values = second.values if second is not None else None
    return None if values is None else {axis % max(1, rank) for axis in values}


def _factors(operator: Operator, row: Row) -> str | None:
    wanted = row.half_pixel_factors if operator.is_half_pixel and row.half_pixel_factors else row.factors
    source = operator.inputs[0] if operator.inputs else None
    if not wanted or source is None or len(source.shape) != _IMAGE_RANK or not operator.outputs:
        return None
    (height, width), (tall, wide) = source.shape[1:3], operator.outputs[0].shape[1:3]
    if (height, width) == (1, 1) and 0 in wanted:
        return None
    less = 1 if operator.is_corners else 0
    found = {(tall - less) / max(1, height - less), (wide - less) / max(1, width - less)}
    if found <= {float(factor) for factor in wanted} and len(found) == 1:
        return None
    taken = ", ".join(f"{factor}x" for factor in wanted if factor)
    return f"it resizes {height}x{width} to {tall}x{wide}, and {taken} is taken"


def _sizes(operator: Operator, row: Row) -> str | None:
    source = operator.inputs[0] if operator.inputs else None
    if source is None:
        return None
    if row.elements is not None and math.prod(source.shape) > row.elements:
        return f"{math.prod(source.shape):,} elements, at most {row.elements:,} are taken"
    if row.depth is not None and source.shape and source.shape[-1] > row.depth:
        return f"{source.shape[-1]:,} along the last axis, at most {row.depth:,} are taken"
    if row.rows is not None and operator.outputs and math.prod(operator.outputs[0].shape[:-1]) > row.rows:
        return f"it gives {math.prod(operator.outputs[0].shape[:-1]):,} rows, at most {row.rows:,} are taken"
    if row.inputs is not None and len(operator.inputs) > row.inputs:
        return f"{len(operator.inputs)} inputs, at most {row.inputs} are taken"
    return None


def _layout(operator: Operator, row: Row) -> str | None:
    if not row.keeps_layout or not operator.outputs or operator.inputs[0] is None:
        return None

    def core(shape: tuple[int, ...]) -> tuple[int, ...]:
        while shape and shape[0] == 1:
            shape = shape[1:]
        return shape

    if core(operator.inputs[0].shape) != core(operator.outputs[0].shape):
        return "it changes the layout"
    return None


_ROW_CHECKS: tuple[Callable[[Operator, Row], str | None], ...] = (
    _version,
    _weights,
    _fused,
    _constants,
    _strides,
    _dilation,
    _window,
    _unit_strides,
    _axes,
    _factors,
    _sizes,
    _layout,
)
