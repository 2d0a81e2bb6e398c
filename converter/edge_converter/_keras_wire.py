"""What the converter and its TensorFlow process say to each other: one JSON object a line.

Light: the process's parent imports it without TensorFlow, and the process before it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from edge_converter._child_wire import Advance, Failed, Ready

__all__ = ["Advance", "Answer", "Ask", "Convert", "Done", "Failed", "Prune", "Ready"]


class Convert(msgspec.Struct, frozen=True, kw_only=True, tag="convert", forbid_unknown_fields=True):
    """Convert a model to a float `.tflite` file.

    Attributes:
        signature: Of a SavedModel; None for its `serving_default`, or its only one.
        shapes: Of its inputs, where more than the batch is free; none to leave them.
    """

    path: str
    framework: Literal["keras", "saved_model"]
    into: str
    signature: str | None = None
    shapes: tuple[tuple[int, ...], ...] = ()


# What a rung of channel pruning leaves of the time of an inference, by the cost its channels are chosen by.
RUNG = 0.965


class Prune(msgspec.Struct, frozen=True, kw_only=True, tag="prune", forbid_unknown_fields=True):
    """Prune and fine-tune a Keras model, then convert it.

    Attributes:
        arrays: An `.npz` file of samples `x` and, where they are known, their classes `y`.
        steps: Of fine-tuning; 0 for as many as the samples ask for.
    """

    path: str
    arrays: str
    into: str
    sparsity: float
    seed: int
    steps: int = 0


class Slim(msgspec.Struct, frozen=True, kw_only=True, tag="slim", forbid_unknown_fields=True):
    """Remove channels of a Keras model, fine-tune it if asked to, and convert it.

    Attributes:
        arrays: An `.npz` file of samples `x` and, where they are known, their classes `y`.
        rung: How far down the ladder whose rungs each leave `RUNG` of the one above.
        tune: Fine-tune; the file of a model that is not has the right shape and time, and no more.
        steps: Of fine-tuning; 0 for as many as the samples ask for.
    """

    path: str
    arrays: str
    into: str
    rung: int
    tune: bool
    seed: int
    steps: int = 0


class Qat(msgspec.Struct, frozen=True, kw_only=True, tag="qat", forbid_unknown_fields=True):
    """Fine-tune a Keras model as it will be once quantized, and convert it, still in floats.

    Attributes:
        arrays: An `.npz` file of samples `x` and, where they are known, their classes `y`.
        steps: Of fine-tuning; 0 for as many as the samples ask for.
    """

    path: str
    arrays: str
    into: str
    seed: int
    steps: int = 0


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done", forbid_unknown_fields=True):
    """The file is written.

    Attributes:
        sparsity: Share of zeros among the weights that were pruned.
        layers: How many were pruned, or learned to be quantized.
        steps: Of fine-tuning.
        taught: Steps that the original learned for before channels went; 0 where it was of no use.
        macs: Multiply-accumulates of the original, and of what is left of it.
        channels: How many were removed, and how many could have been.
    """

    sparsity: float = 0.0
    layers: int = 0
    steps: int = 0
    taught: int = 0
    macs: tuple[int, int] = (0, 0)
    channels: tuple[int, int] = (0, 0)


Ask = Convert | Prune | Slim | Qat
Answer = Ready | Advance | Done | Failed
