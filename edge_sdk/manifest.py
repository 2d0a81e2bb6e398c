"""What a bundle says of itself, format 1.

Types only; reading, verifying and writing a bundle is `edge_sdk.bundle`. `docs/reference/bundle.md` describes every
field for people.
"""

from __future__ import annotations

import enum
from typing import Annotated, Literal

from msgspec import Meta

from edge_sdk.wire import Bytes, Count, Millis, Name, Percent, Sha256, Text, Unix, Wire

FORMAT = 1

Dimension = Annotated[int, Meta(ge=-1, le=2**31 - 1)]
Rank = Annotated[tuple[Dimension, ...], Meta(max_length=8)]
Score = Annotated[float, Meta(ge=-1e9, le=1e9)]
Points = Annotated[float, Meta(ge=-1e9, le=1e9)]
Millijoules = Annotated[float, Meta(ge=0, le=10**9)]


class Precision(enum.Enum):
    """The number format of the weights and activations inside a variant; its inputs and outputs stay float."""

    FP32 = "fp32"
    FP16 = "fp16"
    DYNAMIC = "dynamic"
    INT8 = "int8"
    INT16X8 = "int16x8"
    WEIGHT8 = "weight8"
    WEIGHT4 = "weight4"
    MIXED = "mixed"


class Fit(enum.Enum):
    """How an image of other proportions is brought to a size: its centre is kept, or all of it, distorted."""

    COVER = "cover"
    STRETCH = "stretch"


class Delegate(enum.Enum):
    """Who computes."""

    CPU = "cpu"
    GPU = "gpu"
    NNAPI = "nnapi"
    EDGETPU = "edgetpu"
    ETHOS_U = "ethos-u"
    TEFLON = "teflon"
    VX = "vx"
    ARMNN = "armnn"


class Origin(enum.Enum):
    """How a number came about."""

    MEASURED = "measured"
    PUBLISHED = "published"
    PREDICTED = "predicted"


class Objective(enum.Enum):
    """What the recommended variants of a board are ordered by."""

    ACCURACY = "accuracy"
    LATENCY = "latency"
    SIZE = "size"
    TRANSFER = "transfer"
    ENERGY = "energy"


class TensorSpec(Wire, frozen=True, kw_only=True):
    """One input or output as the app sees it: `-1` is a free (batch) dimension."""

    name: Annotated[str, Meta(max_length=500)]
    shape: Rank
    dtype: Annotated[str, Meta(pattern=r"\A[a-z0-9]{1,16}\Z")]


class Source(Wire, frozen=True, kw_only=True):
    """A model file (or SavedModel directory) the variants were derived from.

    Attributes:
        name: The member of the family, taken from the file's name.
        framework: `keras`, `saved_model`, `tflite`, `torch` or `onnx`.
        sha256: Of the file; of a directory, of its sorted relative paths and contents; of a function, of its module.
    """

    name: Name
    framework: Name
    sha256: Sha256


class Preprocessing(Wire, frozen=True, kw_only=True):
    """What was done to raw data before it reached the model.

    Images are brought to `resize`, then their centre is cut to `crop`; then comes `(value - mean) / std`.

    Attributes:
        resize: Height and width that images are scaled to.
        fit: How, where their proportions are others.
        crop: Height and width of the centre that is kept.
        mean: One for all channels, or one for each.
        std: Likewise.
        rate_hz: Of sounds, which are floats from -1 to 1 in one channel before mean and std.
    """

    resize: tuple[Count, Count] | None = None
    fit: Fit = Fit.COVER
    crop: tuple[Count, Count] | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    rate_hz: Count | None = None


class Pass(Wire, frozen=True, kw_only=True):
    """One step of compression.

    Attributes:
        parameters: What it was told.
        evidence: What it found and did, measured while it ran.
    """

    name: Name
    parameters: dict[str, bool | int | float | str] = {}
    evidence: dict[str, bool | int | float | str] = {}


class Target(Wire, frozen=True, kw_only=True):
    """Where a variant can run.

    Attributes:
        runtime: The file's format and the family of runtimes that load it.
        delegate: Who computes.
        isa: CPU features the file cannot do without, as `/proc/cpuinfo` spells them.
        min_runtime: The lowest TensorFlow Lite version that knows every operator version in the file.
        fallback: The id of the CPU twin of a variant for an accelerator: what runs where there is none, and what the
            variant's quality was measured on, because it cannot run where it is made.
    """

    runtime: Name = "tflite"
    delegate: Delegate = Delegate.CPU
    isa: tuple[Name, ...] = ()
    min_runtime: Name | None = None
    fallback: Name | None = None


class Coverage(Wire, frozen=True, kw_only=True):
    """How many operators the target's delegate takes, and why the rest stays on the CPU."""

    delegated: Count
    total: Count
    why: tuple[Text, ...] = ()


class Quality(Wire, frozen=True, kw_only=True):
    """What a variant is worth, on labelled data that neither calibrated nor steered anything.

    Attributes:
        metric: What `value` is, such as `accuracy` in percent; `docs/reference/data-and-metrics.md` defines each.
        value: Higher is better, whatever the metric.
        drop: The reference's value minus this one's, in points, paired on the same samples.
        interval: Half the width of the 95 % confidence interval of `drop`, in points.
        agreement: How far variant and reference give the same answers, right or wrong, in percent; what the same is,
            the metric says.
        source_drop: What compression alone cost: the value of the same source's float file minus this one's, in
            points; None where the source was quantized already.
        source_interval: Half the width of the 95 % confidence interval of `source_drop`.
        samples: How many.
    """

    metric: Name
    value: Score
    drop: Points
    interval: Points
    agreement: Percent
    source_drop: Points | None = None
    source_interval: Points | None = None
    samples: Count


class Cost(Wire, frozen=True, kw_only=True):
    """What one inference takes, independent of the machine."""

    macs: Count
    parameters: Count
    arena_bytes: Bytes | None = None


class Variant(Wire, frozen=True, kw_only=True):
    """One file of the model for one target."""

    id: Name
    source: Name
    blob: Sha256
    size_bytes: Bytes
    transfer_bytes: Bytes
    precision: Precision
    compression: tuple[Pass, ...] = ()
    exceptions: tuple[Text, ...] = ()
    target: Target
    coverage: Coverage | None = None
    quality: Quality
    cost: Cost


class Refused(Wire, frozen=True, kw_only=True):
    """A variant that was made and measured, and left out because it broke a bound."""

    id: Name
    reason: Text
    quality: Quality | None = None


class Recommended(Wire, frozen=True, kw_only=True):
    """A variant to put on a board, and what for."""

    id: Name
    why: Text


class Dominated(Wire, frozen=True, kw_only=True):
    """A variant not worth having on a board, because another is at least as good in everything that counts there."""

    id: Name
    by: Name
    why: Text


class Excluded(Wire, frozen=True, kw_only=True):
    """A variant that does not come into question on a board, whatever else there is."""

    id: Name
    reason: Text


class Selection(Wire, frozen=True, kw_only=True):
    """What to put on one board, and why not the rest.

    Attributes:
        objective: What `recommended` is ordered by, the best first.
        max_latency_ms: The bound that was set, in milliseconds.
        recommended: Few enough to ship; the files that these fall back to are among them.
        dominated: With what each is dominated by, which is itself in the board's front.
        excluded: With the reason.
        notes: What a reader should know of this choice.
    """

    objective: Objective = Objective.ACCURACY
    max_latency_ms: Millis | None = None
    recommended: Annotated[tuple[Recommended, ...], Meta(max_length=16)] = ()
    dominated: Annotated[tuple[Dominated, ...], Meta(max_length=1000)] = ()
    excluded: Annotated[tuple[Excluded, ...], Meta(max_length=1000)] = ()
    notes: Annotated[tuple[Text, ...], Meta(max_length=100)] = ()


class Missing(Wire, frozen=True, kw_only=True):
    """A variant for an accelerator that the bundle could have and has not.

    Attributes:
        id: What it would be called.
        delegate: Who would compute.
        profiles: The boards it is for.
        reason: What it lacks.
        twin: The id of the variant it would be made of.
        command: What makes it, where the compiler is.
        coverage: What the accelerator is predicted to take.
    """

    id: Name
    delegate: Delegate
    profiles: tuple[Name, ...]
    reason: Text
    twin: Name | None = None
    command: Text | None = None
    coverage: Coverage | None = None


class Manifest(Wire, frozen=True, kw_only=True):
    """What is in a bundle.

    Attributes:
        fronts: Per profile, the ids of the variants worth having there, the most accurate first; of its CPU.
        selection: Per profile, what to ship of them, and why not the rest.
        accelerated: Per profile, the ids of the variants for its accelerators. They stand apart from the fronts: what
            is known of their latency is another's word, not a measurement to rank by.
        missing: What its accelerators could have had.
        reference: The id of the variant that `quality.drop` and `quality.agreement` are counted against.
    """

    format: Literal[1]
    name: Name
    version: Name
    created: Unix
    sources: Annotated[tuple[Source, ...], Meta(min_length=1, max_length=64)]
    inputs: Annotated[tuple[TensorSpec, ...], Meta(min_length=1, max_length=64)]
    outputs: Annotated[tuple[TensorSpec, ...], Meta(min_length=1, max_length=64)]
    labels: Annotated[tuple[Text, ...], Meta(max_length=100_000)] = ()
    preprocessing: Preprocessing = Preprocessing()
    metric: Name
    reference: Name
    variants: Annotated[tuple[Variant, ...], Meta(min_length=1, max_length=1000)]
    fronts: dict[Name, tuple[Name, ...]] = {}
    selection: dict[Name, Selection] = {}
    accelerated: dict[Name, tuple[Name, ...]] = {}
    missing: Annotated[tuple[Missing, ...], Meta(max_length=1000)] = ()
    refused: tuple[Refused, ...] = ()

    def variant(self, id: str) -> Variant | None:  # noqa: A002 - `id` is the field's name everywhere
        """The variant of this id, or None."""
        return next((v for v in self.variants if v.id == id), None)


class Latency(Wire, frozen=True, kw_only=True):
    """Time of one inference of one variant on one machine.

    Attributes:
        machine: Name of the machine or board; for a prediction, the profile it is for.
        profile: The board it holds for, where that is known.
        blob: Of the file that was run; by it, or by `precision` and `macs`, evidence is known to be of a variant.
        precision: Of that file.
        macs: Multiply-accumulates of one inference of it.
        threads: Given to the interpreter.
        delegate: Who computed: a backend's name, or the file's of an external delegate's library; None is the
            delegate that the variant is for.
        samples: Inferences timed; 0 for a prediction.
        p99_ms: Only of a hundred samples or more.
        band: A prediction is expected within `median_ms / band .. median_ms * band`.
        load_ms: From the file, which the system has cached, to the first answer.
        first_ms: What of that the first inference took.
        memory_bytes: What the process grew by, from before the file was opened until after the first answer; of a
            delegate, all that its worker process holds.
        energy_mj: Millijoules of one inference, what the machine takes when idle subtracted.
        source: Where a published figure or a predictor's constants come from.
    """

    variant: Name
    blob: Sha256 | None = None
    precision: Precision | None = None
    macs: Count | None = None
    origin: Origin
    machine: Annotated[str, Meta(max_length=200)]
    profile: Name | None = None
    runtime: Annotated[str, Meta(max_length=100)] | None = None
    threads: Count = 1
    delegate: Name | None = None
    samples: Count = 0
    median_ms: Millis
    p95_ms: Millis | None = None
    p99_ms: Millis | None = None
    band: Annotated[float, Meta(ge=1, le=1000)] | None = None
    load_ms: Millis | None = None
    first_ms: Millis | None = None
    memory_bytes: Bytes | None = None
    energy_mj: Millijoules | None = None
    at: Unix | None = None
    source: Text | None = None

    def is_of(self, variant: Variant) -> bool:
        """Whether it says how fast this variant is where it is meant to run, and not on some other delegate."""
        return self.variant == variant.id and self.delegate in {None, variant.target.delegate.value}


class EvidenceFile(Wire, frozen=True, kw_only=True):
    """`evidence.json`: what was measured where. It lies outside the manifest, so measuring never changes a bundle."""

    format: Literal[1]
    latency: Annotated[tuple[Latency, ...], Meta(max_length=100_000)] = ()
