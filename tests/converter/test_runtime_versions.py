"""What the tables say of runtimes holds for the one that is installed: it knows every version it is said to know."""

from __future__ import annotations

from typing import Any

import pytest
from ai_edge_litert import schema_py_generated as schema

from edge_converter import _op_versions, flatbuffer
from edge_sdk.fitness import speaks
from edge_sdk.runtime import choose

_CODES = {name: number for number, name in flatbuffer.OP_NAMES.items()}


def file_of(op: str, version: int) -> bytes:
    """A graph that does nothing, in a file that lists one operator."""
    model, graph, tensor, code = schema.ModelT(), schema.SubGraphT(), schema.TensorT(), schema.OperatorCodeT()
    tensor.name, tensor.shape = b"x", [1, 4]
    graph.tensors, graph.inputs, graph.outputs, graph.operators = [tensor], [0], [0], []
    code.builtinCode, code.deprecatedBuiltinCode, code.version = _CODES[op], min(_CODES[op], 127), version
    model.version, model.buffers, model.subgraphs, model.operatorCodes = 3, [schema.BufferT()], [graph], [code]
    content: bytes = flatbuffer.serialize(model)
    return content


@pytest.mark.parametrize("op", sorted(_op_versions._FIRST_RUNTIME))
def test_the_runtime_knows_each_version_the_table_says_it_knows(op: str) -> None:
    runtime = choose()
    for version, first in enumerate(_op_versions._FIRST_RUNTIME[op], start=1):
        if speaks(runtime, first):
            opened: Any = runtime.open(file_of(op, version))
            assert opened is not None


def test_a_version_beyond_the_tables_is_told_by_the_runtime() -> None:
    with pytest.raises(ValueError, match="FULLY_CONNECTED"):
        choose().open(file_of("FULLY_CONNECTED", 99))


def test_8_bit_dense_layers_with_a_scale_a_channel_need_2_17() -> None:
    assert _op_versions.first_runtime("FULLY_CONNECTED", 12) == "2.17.0"
