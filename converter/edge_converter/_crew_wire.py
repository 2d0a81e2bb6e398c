"""What the converter and the processes that make variants say to each other: one JSON object a line."""

from __future__ import annotations

import msgspec

from edge_converter._child_wire import Advance, Failed, Ready
from edge_converter.recipe import VariantRecipe

__all__ = ["Advance", "Answer", "Failed", "Made", "Make", "Ready"]


class Make(msgspec.Struct, frozen=True, kw_only=True, tag="make", forbid_unknown_fields=True):
    """Take a model through its passes, and leave the results in the cache.

    Attributes:
        floating: Path of the float file.
        recipe: Of the variant.
        begin: The key that the keys of the results are made of.
        samples: Path of an `.npz` file with the calibration samples as the model takes them, an array for each input.
        cache: Directory that results are left in.
        folder: For temporary files; the process makes it.
        where: The model's name, for errors.
        threads: For interpreters.
        seed: For everything random.
        max_size: Bytes the variant may have.
    """

    floating: str
    recipe: VariantRecipe
    begin: str
    samples: str
    cache: str
    folder: str
    where: str
    threads: int
    seed: int
    max_size: int | None


class Made(msgspec.Struct, frozen=True, kw_only=True, tag="made", forbid_unknown_fields=True):
    """The results are in the cache.

    Attributes:
        refused: Why they are not, where the variant cannot be made.
    """

    refused: str = ""


Answer = Ready | Advance | Made | Failed
