"""What is left of batch normalization behind a layer goes into its weights, where that changes nothing."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edge_converter import flatbuffer
from edge_converter.quantization import answers, folding
from edge_lab import digits

NONE, RELU = schema.ActivationFunctionType.NONE, schema.ActivationFunctionType.RELU6


def with_constants(*kinds: str, activation_before: bool = False, size: int | None = None) -> bytes:
    """The small network with operators by constants behind its second layer, whose activation moves to the last."""
    model = flatbuffer.parse(flatbuffer.prepare(digits.models()[0].read_bytes(), where="x"), where="x")
    graph = model.subgraphs[0]
    at = [flatbuffer.op_name(model, one) in folding._LAYERS for one in graph.operators].index(True)
    layer = graph.operators[at]
    last = int(layer.outputs[0])
    activation = layer.builtinOptions.fusedActivationFunction
    layer.builtinOptions.fusedActivationFunction = RELU if activation_before else NONE
    channels = int(graph.tensors[last].shape[-1])
    moving = _tensor(model, graph, "conv", graph.tensors[last].shape, None)
    layer.outputs = np.array([moving], np.int32)
    for number, kind in enumerate(kinds):
        values = np.random.default_rng(number).uniform(0.5, 1.5, size or channels).astype(np.float32)
        constant = _tensor(model, graph, f"constant {number}", values.shape, values)
        is_last = number == len(kinds) - 1
        output = last if is_last else _tensor(model, graph, f"between {number}", graph.tensors[last].shape, None)
        graph.operators.insert(at + 1 + number, _operator(model, kind, [moving, constant], output))
        graph.operators[at + 1 + number].builtinOptions.fusedActivationFunction = activation if is_last else NONE
        moving = output
    return flatbuffer.serialize(model)


def _tensor(model: Any, graph: Any, name: str, shape: Any, values: Any) -> int:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type = name.encode(), np.array(shape, np.int32), schema.TensorType.FLOAT32
    model.buffers.append(schema.BufferT())
    tensor.buffer = len(model.buffers) - 1
    if values is not None:
        model.buffers[-1].data = np.frombuffer(values.tobytes(), np.uint8)
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _operator(model: Any, kind: str, inputs: list[int], output: int) -> Any:
    code = copy.copy(model.operatorCodes[0])
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, kind)
    code.version = 1
    model.operatorCodes.append(code)
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
    name = f"{kind.capitalize()}Options"
    operator.builtinOptionsType = getattr(schema.BuiltinOptions, name)
    operator.builtinOptions = getattr(schema, f"{name}T")()
    return operator


@pytest.mark.parametrize("kinds", [("MUL",), ("ADD",), ("MUL", "ADD"), ("SUB", "DIV", "ADD")])
def test_the_network_answers_as_before_with_fewer_operators(kinds: tuple[str, ...]) -> None:
    content = with_constants(*kinds)
    made = folding.fold(content, where="x")
    images = [digits.held_out()[0]]
    assert len(made.folded) == len(kinds)
    assert not made.left
    before, after = (flatbuffer.parse(one, where="x").subgraphs[0].operators for one in (content, made.content))
    assert len(before) - len(after) == len(kinds)
    assert answers.distance(made.content, images, answers.scores(content, images)) < 1e-9


def test_one_constant_for_all_channels_is_folded_too() -> None:
    content = with_constants("MUL", size=1)
    assert len(folding.fold(content, where="x").folded) == 1


def test_behind_an_activation_nothing_can_be_folded_and_that_is_said() -> None:
    content = with_constants("MUL", activation_before=True)
    made = folding.fold(content, where="x")
    assert made.content == content
    assert "an activation stands between" in made.left[0]


def test_where_nothing_is_left_over_the_file_is_the_same() -> None:
    content = flatbuffer.prepare(digits.models()[0].read_bytes(), where="x")
    assert folding.fold(content, where="x") == folding.Folded(content=content, folded=(), left=())
