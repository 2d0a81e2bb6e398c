"""Models and bundles the benchmarks make themselves: random weights are as much work as trained ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edge_converter import flatbuffer
from edge_sdk import bundle
from edge_sdk.engine import Engine
from edge_sdk.manifest import Cost, EvidenceFile, Manifest, Precision, Quality, Source, Target, Variant
from edge_sdk.runtime import choose

_CODES = {name: number for number, name in flatbuffer.OP_NAMES.items()}
_SAME, _RELU6 = 0, 3
# Channels and stride of each block: MobileNet (arXiv 1704.04861, table 1) with a longer middle.
_BLOCKS = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *[(512, 1)] * 5,
    *((1024, 2), (1024, 1)),
)

Array = np.ndarray[Any, Any]


def instant() -> bytes:
    """A dense layer of 4 x 3: next to nothing to compute. `[1, 4]` in, `[1, 3]` out."""
    made = _Graph(np.random.default_rng(1))
    x = made.tensor((1, 4))
    y = made.op("FULLY_CONNECTED", [x, made.weights(3, 4), -1], (1, 3), schema.FullyConnectedOptionsT())
    return made.content(x, y)


def convolutional(seed: int) -> bytes:
    """A MobileNet of 14 MB of float weights. `[1, 128, 128, 3]` in, `[1, 256]` out."""
    made = _Graph(np.random.default_rng(seed))
    given = made.tensor((1, 128, 128, 3))
    x, size, channels = made.conv(given, 128, 3, 32, kernel=3, stride=2), 64, 32
    for wider, stride in _BLOCKS:
        x, size = made.depthwise(x, size, channels, stride=stride), size // stride
        x, channels = made.conv(x, size, channels, wider), wider
    flat = made.op("MEAN", [x, made.axes()], (1, channels), schema.ReducerOptionsT())
    y = made.op("FULLY_CONNECTED", [flat, made.weights(256, channels), -1], (1, 256), schema.FullyConnectedOptionsT())
    return made.content(given, y)


def write_bundle(place: Path, contents: Mapping[str, bytes]) -> Path:
    """A bundle of these `.tflite` files, which take and give the same tensors; its directory."""
    hashes = {id_: hashlib.sha256(content).hexdigest() for id_, content in contents.items()}
    quality = Quality(metric="accuracy", value=97.0, drop=0.0, interval=0.0, agreement=100.0, samples=540)
    variants = tuple(
        Variant(
            id=id_,
            source="made",
            blob=hashes[id_],
            size_bytes=len(content),
            transfer_bytes=len(content),
            precision=Precision.FP32,
            target=Target(),
            quality=quality,
            cost=Cost(macs=1, parameters=1),
        )
        for id_, content in contents.items()
    )
    first = next(iter(contents))
    with Engine(contents[first]) as engine:
        manifest = Manifest(
            format=1,
            name="made",
            version="1",
            created=0.0,
            sources=(Source(name="made", framework="tflite", sha256=hashes[first]),),
            inputs=engine.inputs,
            outputs=engine.outputs,
            metric="accuracy",
            reference=first,
            variants=variants,
        )
    files = {}
    for id_, content in contents.items():
        files[hashes[id_]] = place / f"{id_}.tflite"
        files[hashes[id_]].write_bytes(content)
    written = bundle.write(place / "made-1.edge", manifest, files, evidence=EvidenceFile(format=1), report="")
    return written.path


def sample(model: bytes) -> Array:
    """One input: the same numbers each time, and no zeros."""
    with Engine(model, warm=False) as engine:
        shape = engine.inputs[0].shape
    return np.random.default_rng(0).random([abs(size) for size in shape]).astype(np.float32)


def by_hand(model: str | bytes, x: Array) -> Callable[[], Any]:
    """The call that a script without this product makes: set, invoke, get."""
    interpreter = choose().open(model, threads=1)
    interpreter.allocate_tensors()
    given, taken = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def call() -> Any:
        interpreter.set_tensor(given, x)
        interpreter.invoke()
        return interpreter.get_tensor(taken)

    return call


@dataclass
class _Graph:
    """A graph of float tensors that grows operator by operator."""

    rng: np.random.Generator
    model: Any = field(default_factory=schema.ModelT)
    graph: Any = field(default_factory=schema.SubGraphT)

    def __post_init__(self) -> None:
        self.model.version, self.model.buffers, self.model.operatorCodes = 3, [schema.BufferT()], []
        self.model.subgraphs = [self.graph]
        self.graph.tensors, self.graph.operators = [], []

    def tensor(self, shape: tuple[int, ...], data: Array | None = None) -> int:
        one = schema.TensorT()
        one.name, one.shape, one.type = f"t{len(self.graph.tensors)}".encode(), list(shape), schema.TensorType.FLOAT32
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.astype(np.float32).tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            one.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(one)
        return len(self.graph.tensors) - 1

    def weights(self, *shape: int) -> int:
        return self.tensor(shape, self.rng.normal(0, float(np.prod(shape[1:])) ** -0.5, shape))

    def axes(self) -> int:
        """Height and width."""
        index = self.tensor((2,), np.zeros(2))
        self.graph.tensors[index].type = schema.TensorType.INT32
        self.model.buffers[-1].data = np.frombuffer(np.array([1, 2], np.int32).tobytes(), np.uint8)
        return index

    def conv(self, x: int, size: int, taken: int, given: int, *, kernel: int = 1, stride: int = 1) -> int:
        options = schema.Conv2DOptionsT()
        options.padding, options.strideH, options.strideW = _SAME, stride, stride
        options.fusedActivationFunction = _RELU6
        inputs = [x, self.weights(given, kernel, kernel, taken), self.tensor((given,), np.zeros(given))]
        return self.op("CONV_2D", inputs, (1, size // stride, size // stride, given), options)

    def depthwise(self, x: int, size: int, channels: int, *, stride: int) -> int:
        options = schema.DepthwiseConv2DOptionsT()
        options.padding, options.strideH, options.strideW, options.depthMultiplier = _SAME, stride, stride, 1
        options.fusedActivationFunction = _RELU6
        weights = self.tensor((1, 3, 3, channels), self.rng.normal(0, 1 / 3, (1, 3, 3, channels)))
        inputs = [x, weights, self.tensor((channels,), np.zeros(channels))]
        return self.op("DEPTHWISE_CONV_2D", inputs, (1, size // stride, size // stride, channels), options)

    def op(self, kind: str, inputs: list[int], shape: tuple[int, ...], options: Any) -> int:
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode, code.version, code.deprecatedBuiltinCode = _CODES[kind], 1, min(_CODES[kind], 127)
        self.model.operatorCodes.append(code)
        output = self.tensor(shape)
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = inputs, [output]
        operator.builtinOptions = options
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self.graph.operators.append(operator)
        return output

    def content(self, given: int, taken: int) -> bytes:
        self.graph.inputs, self.graph.outputs = [given], [taken]
        return flatbuffer.serialize(self.model)
