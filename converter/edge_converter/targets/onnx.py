"""Boards whose GPU is reached through ONNX Runtime, not through a `.tflite` file: NVIDIA's Jetsons.

Its TensorRT and CUDA execution providers build their engine on the device, for that device; so all a bundle can carry
is the ONNX file. YOLO11n takes 328 ms as `.tflite` on the CPU of an Orin Nano and 4.9 ms in TensorRT
(ultralytics/ultralytics docs/en/guides/nvidia-jetson.md @0100750). Not yet run on hardware.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_converter import blob
from edge_converter.sources import SourceModel
from edge_sdk.manifest import Delegate, Missing, Precision, Target, Variant
from edge_sdk.profile import Profile

RUNTIME = "onnxruntime"
FRAMEWORK = "onnx"
_SUFFIX = "onnx"
_VENDOR = "nvidia,"  # of a device tree's `compatible`
_MAX_ID_CHARS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """ONNX sources as variants, or what is said where there is none.

    Attributes:
        boards: All that could run them.
        variants: One for each source that is ONNX.
        files: By blob.
        missing: One line for the boards, where a source is of another kind.
    """

    boards: tuple[Profile, ...] = ()
    variants: tuple[Variant, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    missing: tuple[Missing, ...] = ()


def variants(boards: Sequence[Profile], models: Sequence[SourceModel], cpu: Mapping[str, Variant]) -> Given:
    """The sources that are ONNX, as they are, for the boards that build an engine of them.

    Args:
        boards: All that were asked for.
        models: The sources.
        cpu: The variants for the CPU, by id; the float one of the same source is the twin.
    """
    mine = tuple(board for board in boards if any(name.startswith(_VENDOR) for name in board.compatible))
    if not mine:
        return Given()
    made: list[Variant] = []
    files: dict[str, Path] = {}
    missing: list[Missing] = []
    for model in models:
        twin = next((v for v in cpu.values() if v.source == model.name and v.precision is Precision.FP32), None)
        stem = twin.id if twin else model.name
        id_ = f"{stem[: _MAX_ID_CHARS - 1 - len(_SUFFIX)]}-{_SUFFIX}"
        if twin is None or model.framework.value != FRAMEWORK:
            missing.append(
                Missing(
                    id=id_,
                    delegate=Delegate.GPU,
                    profiles=tuple(board.id for board in mine),
                    reason="its GPU is reached through ONNX Runtime, which builds its engine on the device: give the "
                    "model as .onnx (torch.onnx.export, tf2onnx) to carry it along",
                )
            )
            continue
        file = blob.of(model.path)
        files[file.sha256] = model.path
        made.append(
            Variant(
                id=id_,
                source=model.name,
                blob=file.sha256,
                size_bytes=file.size_bytes,
                transfer_bytes=file.transfer_bytes,
                precision=Precision.FP32,
                target=Target(runtime=RUNTIME, delegate=Delegate.GPU, fallback=twin.id),
                quality=twin.quality,
                cost=twin.cost,
            )
        )
    return Given(boards=mine, variants=tuple(made), files=files, missing=tuple(missing))
