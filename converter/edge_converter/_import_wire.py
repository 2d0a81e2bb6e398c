"""What the converter and the processes that import foreign models say to each other: one JSON object a line."""

from __future__ import annotations

import msgspec

from edge_converter._child_wire import Advance, Failed, Ready

__all__ = ["Advance", "Answer", "Failed", "Import", "Imported", "Ready"]


class Import(msgspec.Struct, frozen=True, kw_only=True, tag="import", forbid_unknown_fields=True):
    """Convert a model to a float `.tflite` file, and compare its answers.

    Attributes:
        path: Of the model, or `module:function`.
        into: The file to write.
        folder: For what is left over.
        shapes: Of its inputs, in its own layout; none where they are fixed but for the batch.
    """

    path: str
    into: str
    folder: str
    shapes: tuple[tuple[int, ...], ...] = ()


class Imported(msgspec.Struct, frozen=True, kw_only=True, tag="imported", forbid_unknown_fields=True):
    """The file is written.

    Attributes:
        difference: The largest of an answer, on random inputs, as a share of that output's largest absolute value.
        samples: Random inputs that were compared.
        turned: Inputs that became channels-last.
    """

    difference: float
    samples: int
    turned: tuple[str, ...]


Answer = Ready | Advance | Imported | Failed
