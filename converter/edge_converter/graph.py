"""What a `.tflite` file computes: its inputs and outputs, the number formats in it, and what one inference costs.

Read from the flatbuffer itself: what a recipe or a file's name promises is not evidence.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_converter import flatbuffer
from edge_converter.errors import UnsupportedModelError
from edge_sdk.manifest import Cost, Precision, TensorSpec
from edge_sdk.predict import OpWork

# Operator: positions of (activation, weight, bias) among its inputs.
WEIGHTED: dict[str, tuple[int, int, int]] = {
    "CONV_2D": (0, 1, 2),
    "DEPTHWISE_CONV_2D": (0, 1, 2),
    "CONV_3D": (0, 1, 2),
    "FULLY_CONNECTED": (0, 1, 2),
    "TRANSPOSE_CONV": (2, 1, 3),
    "BATCH_MATMUL": (0, 1, 2),
    # Of their many matrices the first that is never left out: input to forget gate, or features.
    "LSTM": (0, 2, 13),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (0, 2, 13),
    "BIDIRECTIONAL_SEQUENCE_LSTM": (0, 2, 13),
    "RNN": (0, 1, 3),
    "UNIDIRECTIONAL_SEQUENCE_RNN": (0, 1, 3),
    "BIDIRECTIONAL_SEQUENCE_RNN": (0, 1, 3),
    "SVDF": (0, 1, 3),
}
_RECURRENT = frozenset(op for op in WEIGHTED if "LSTM" in op or "RNN" in op or op == "SVDF")
_CONTROL_FLOW = frozenset({"WHILE", "IF", "CALL", "STABLEHLO_WHILE", "STABLEHLO_CASE"})
_QUANTIZED = ("int8", "uint8", "int16")

# (activation, stored weight, weight is dequantized before use): the number format that makes.
_FORMATS: dict[tuple[str, str, bool], Precision] = {
    ("float32", "float32", False): Precision.FP32,
    ("float32", "float16", True): Precision.FP16,
    ("float32", "int8", False): Precision.DYNAMIC,
    ("float32", "int8", True): Precision.WEIGHT8,
    ("float32", "int4", True): Precision.WEIGHT4,
    ("float32", "int4", False): Precision.WEIGHT4,
    ("int8", "int8", False): Precision.INT8,
    ("uint8", "uint8", False): Precision.INT8,
    ("int16", "int8", False): Precision.INT16X8,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedOp:
    """A convolution or dense layer.

    Attributes:
        op: Such as `CONV_2D`.
        name: Of its output tensor, which is what people recognise a layer by.
        precision: Its number format, or None where it is none of ours.
        format: Of activation and weight, in words.
        macs: Multiply-accumulates of one inference with batch 1.
        pointwise: Its window is 1x1.
    """

    op: str
    name: str
    precision: Precision | None
    format: str
    macs: int
    pointwise: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A `.tflite` file, read.

    Attributes:
        inputs: As an app sees them: quantized ones are float32 there.
        outputs: Likewise.
        weighted: Every convolution and dense layer, in order.
        operators: How many of each operator there are.
        parameters: Weights, biases and other constants of layers.
        activations: Elements that all operators read and write, weights aside.
        min_runtime: The lowest TensorFlow Lite that knows every operator version, or None where that is not known.
        variables: How many tensors keep their value from one call to the next.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    weighted: tuple[WeightedOp, ...]
    operators: dict[str, int]
    parameters: int
    activations: int
    min_runtime: str | None
    variables: int

    @property
    def stateful(self) -> bool:
        """Whether an answer depends on the calls before it."""
        return self.variables > 0

    @property
    def cost(self) -> Cost:
        """What one inference takes, independent of the machine."""
        return Cost(macs=sum(op.macs for op in self.weighted), parameters=self.parameters)

    @property
    def work(self) -> OpWork:
        """The same, by kind of work, for the latency predictor."""
        by_kind: Counter[str] = Counter()
        for op in self.weighted:
            by_kind[_kind(op)] += op.macs
        return OpWork(**by_kind, activation_elements=self.activations, weights=self.parameters)

    @property
    def precision(self) -> Precision:
        """The number format of all convolutions and dense layers, or `mixed`."""
        formats = {op.precision for op in self.weighted}
        only = formats.pop() if len(formats) == 1 else None
        if not self.weighted:
            return Precision.FP32
        return only or Precision.MIXED

    def exceptions(self, precision: Precision) -> tuple[str, ...]:
        """The convolutions and dense layers that are in another format than `precision`, one line each."""
        return tuple(f"{op.op} {op.name}: {op.format}" for op in self.weighted if op.precision is not precision)


def read(path: Path) -> Graph:
    """Read a `.tflite` file.

    Raises:
        SourceError: It is no whole `.tflite` file.
        UnsupportedModelError: It holds something this converter cannot judge.
    """
    return of(flatbuffer.read(path), where=str(path))


def parsed(content: bytes, *, where: str) -> Graph:
    """The same of a file's bytes.

    Raises:
        SourceError: They are no whole `.tflite` file.
        UnsupportedModelError: They hold something this converter cannot judge.
    """
    return of(flatbuffer.parse(content, where=where), where=where)


def of(model: Any, *, where: str) -> Graph:
    """What a model that was read computes.

    Raises:
        UnsupportedModelError: It holds something this converter cannot judge.
    """
    _check_graphs(model, where=where)
    graph = model.subgraphs[0]
    names = _signature_names(model)
    return Graph(
        inputs=tuple(_spec(graph.tensors[i], names.get(int(i))) for i in graph.inputs),
        outputs=tuple(_spec(graph.tensors[i], names.get(int(i))) for i in graph.outputs),
        weighted=tuple(_weighted(model)),
        operators=dict(Counter(flatbuffer.op_name(model, operator) for operator in graph.operators)),
        parameters=_parameters(model),
        activations=_activations(model),
        min_runtime=flatbuffer.min_runtime(model),
        variables=_variables(model),
    )


def _check_graphs(model: Any, *, where: str) -> None:
    """Refuse a file whose first graph is not all that a call computes; graphs that only set variables up are let be.

    Raises:
        UnsupportedModelError: It has several signatures, or control flow.
    """
    if len(model.signatureDefs or ()) > 1:
        count = len(model.signatureDefs)
        raise UnsupportedModelError(f"has {count} signatures", where=where, hint="choose one with --signature")
    ops = {flatbuffer.op_name(model, operator) for graph in model.subgraphs for operator in graph.operators or ()}
    if flow := sorted(ops & _CONTROL_FLOW):
        raise UnsupportedModelError(
            f"has control flow ({', '.join(flow)})",
            where=where,
            hint="--input-shape with batch and length fixed unrolls the recurrent layers of a .keras file",
        )
    if len(model.subgraphs) > 1 and "CALL_ONCE" not in ops:
        raise UnsupportedModelError(f"has {len(model.subgraphs)} subgraphs", where=where, hint="export one signature")


def _variables(model: Any) -> int:
    graph = model.subgraphs[0]
    handles = sum(flatbuffer.op_name(model, operator) == "VAR_HANDLE" for operator in graph.operators)
    return handles + sum(bool(tensor.isVariable) for tensor in graph.tensors)


def _kind(op: WeightedOp) -> str:
    """The field of `OpWork` this operator's arithmetic belongs to."""
    if op.op == "DEPTHWISE_CONV_2D":
        return "depthwise_macs"
    if op.op in {"FULLY_CONNECTED", "BATCH_MATMUL"} | _RECURRENT:
        return "dense_macs"
    return "conv1x1_macs" if op.pointwise else "conv_macs"


def _signature_names(model: Any) -> dict[int, str]:
    """What an app calls the inputs and outputs, by tensor: from the file's one signature, as the engine does."""
    signatures = model.signatureDefs or []
    if len(signatures) != 1:
        return {}
    return {int(entry.tensorIndex): _text(entry.name) for entry in (*signatures[0].inputs, *signatures[0].outputs)}


def _spec(tensor: Any, name: str | None) -> TensorSpec:
    kind = flatbuffer.TYPE_NAMES[tensor.type]
    scaled = tensor.quantization is not None and tensor.quantization.scale is not None
    shape = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
    return TensorSpec(
        name=_text(tensor.name) if name is None else name,
        shape=tuple(int(size) for size in (shape if shape is not None else ())),
        dtype="float32" if scaled and kind in _QUANTIZED else kind,
    )


def _text(name: Any) -> str:
    return bytes(name or b"").decode("utf-8", "replace")[:500]


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in (tensor.shape if tensor.shape is not None else ()))


def _elements(tensor: Any) -> int:
    return math.prod(_shape(tensor))


def _weighted(model: Any) -> Iterator[WeightedOp]:
    graph = model.subgraphs[0]
    stored = flatbuffer.unpacked(model)
    for operator in graph.operators:
        op = flatbuffer.op_name(model, operator)
        if op not in WEIGHTED:
            continue
        at_activation, at_weight, _ = WEIGHTED[op]
        activation = graph.tensors[operator.inputs[at_activation]]
        index = operator.inputs[at_weight]
        dequantized = index in stored
        weight = graph.tensors[stored.get(index, index)]
        output = graph.tensors[operator.outputs[0]]
        if op == "BATCH_MATMUL" and not (flatbuffer.is_constant(model, index) or dequantized):
            continue  # two activations: nothing is stored, so there is no weight to quantize
        a, w = flatbuffer.TYPE_NAMES[activation.type], flatbuffer.TYPE_NAMES[weight.type]
        shape = _shape(weight)
        yield WeightedOp(
            op=op,
            name=_text(output.name),
            precision=_FORMATS.get((a, w, dequantized)),
            format=f"{a} activations, {w} weights{' dequantized before use' if dequantized else ''}",
            macs=_macs(op, shape, _shape(activation), _elements(output)),
            pointwise=shape[1:3] == (1, 1),
        )


def _macs(op: str, weight: tuple[int, ...], activation: tuple[int, ...], outputs: int) -> int:
    """Multiply-accumulates, by the layout the schema gives each weight."""
    if op == "DEPTHWISE_CONV_2D":  # [1, h, w, channels]
        return outputs * weight[1] * weight[2]
    if op == "TRANSPOSE_CONV":  # [out, h, w, in], every input element meets the whole kernel of every output channel
        return math.prod(activation) * weight[0] * weight[1] * weight[2]
    if op == "CONV_3D":  # [d, h, w, in, out]
        return outputs * math.prod(weight[:4])
    if op == "BATCH_MATMUL":
        return outputs * activation[-1]
    if op in _RECURRENT:
        return _recurrent_macs(op, weight, activation, outputs)
    return outputs * math.prod(weight[1:])  # [out, ..., in]


def _recurrent_macs(op: str, weight: tuple[int, ...], activation: tuple[int, ...], outputs: int) -> int:
    """Of a matrix for the input and one for the state, [units, inputs] and [units, units], at each step; of four gates.

    SVDF has no second matrix: a filter over its memory instead, which is little.
    """
    units, inputs = weight[0], weight[-1]
    steps = math.prod(activation) // max(1, inputs)
    gates = 4 if "LSTM" in op else 1
    return steps * gates * units * (inputs + (0 if op == "SVDF" else units)) * (outputs > 0)


def _parameters(model: Any) -> int:
    """Elements of the constants that layers compute with; shapes, axes and paddings (integers) are not parameters."""
    graph = model.subgraphs[0]
    counted: dict[int, int] = {}
    for operator in graph.operators:
        at_bias = WEIGHTED.get(flatbuffer.op_name(model, operator), (-1, -1, -1))[2]
        for position, index in enumerate(operator.inputs):
            if index < 0 or not flatbuffer.is_constant(model, index):
                continue
            tensor = graph.tensors[index]
            if position == at_bias or flatbuffer.TYPE_NAMES[tensor.type] not in {"int32", "int64", "bool", "string"}:
                counted[int(tensor.buffer)] = _elements(tensor)
    return sum(counted.values())


def _activations(model: Any) -> int:
    graph = model.subgraphs[0]
    total = 0
    unpacked: set[int] = set()
    for operator in graph.operators:
        computed = (int(i) for i in operator.inputs if i >= 0 and not flatbuffer.is_constant(model, i))
        moving = [index for index in computed if index not in unpacked]
        if moving:
            total += sum(_elements(graph.tensors[i]) for i in (*moving, *operator.outputs))
        else:  # it unpacks weights, once, when the model is loaded
            unpacked.update(int(i) for i in operator.outputs)
    return total
