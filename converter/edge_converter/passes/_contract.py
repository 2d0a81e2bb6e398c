"""What a pass is given, what it gives back, and what it promises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edge_converter.labelled.data import Integers, Samples
from edge_converter.request import Progress, Silent
from edge_sdk.manifest import Pass as Record
from edge_sdk.manifest import Precision
from edge_sdk.wire import Wire

Evidence = dict[str, bool | int | float | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A model on its way to a variant.

    Attributes:
        floating: The float file that number formats are made of; passes that come before may have changed it.
        content: What it is now: the same bytes until a pass has quantized it.
        precision: The number format it is to have in the end.
        ranges: Of the activations, where a pass has found them.
        done: The passes so far, with their parameters and evidence.
    """

    floating: bytes
    content: bytes
    precision: Precision
    ranges: Mapping[str, Any] | None = None
    done: tuple[Record, ...] = ()

    @property
    def is_float(self) -> bool:
        """No pass has quantized it yet."""
        return self.content is self.floating or self.content == self.floating


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What passes may use beside the model.

    Attributes:
        samples: Calibration data; labels unused.
        rows: Of it, in the order of their content.
        folder: For temporary files.
        where: The model's name, for errors.
        threads: For interpreters.
        seed: For everything random.
        max_size: Bytes the variant may have; None for any.
        progress: Told how far a pass is that takes long.
    """

    samples: Samples
    rows: Integers
    folder: Path
    where: str
    threads: int = 1
    seed: int = 0
    max_size: int | None = None
    progress: Progress = field(default_factory=Silent)


class Pass(Protocol):
    """One step from a float model to a variant.

    `requires` is asked before `run` and `ensures` after it, each for the reason it does not hold, or an empty text. A
    pass whose requirement does not hold refuses the variant; one that breaks its promise is a mistake of ours, and
    refuses it too. Beside its own promise each pass keeps the model's inputs and outputs, and adds one record to
    `Work.done`. The same work, options and room give the same bytes.

    Attributes:
        name: As recipes spell it.
        version: Raised when what it does changes: the cache of earlier results is then of no use.
        options: A `Wire` type with a default for each option.
        serves_all_formats: Its result is the same whatever number format the variant is to have.
    """

    @property
    def name(self) -> str:
        """As recipes spell it."""

    @property
    def version(self) -> int:
        """Raised when what it does changes."""

    @property
    def options(self) -> type[Wire]:
        """The type of its options, with a default for each."""

    @property
    def serves_all_formats(self) -> bool:
        """Its result is the same whatever number format the variant is to have."""

    def requires(self, work: Work, options: Any, room: Room) -> str:
        """Why it cannot be applied, or an empty text."""

    def run(self, work: Work, options: Any, room: Room) -> Work:
        """Do it.

        Raises:
            QuantizationError: It cannot be done to this model.
        """

    def ensures(self, before: Work, after: Work, options: Any) -> str:
        """What does not hold of the result, or an empty text."""
