"""Bundles to test on: their blobs are a few bytes, because what a blob means is the runtime's business."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from edge_sdk import bundle
from edge_sdk.bundle import Bundle
from edge_sdk.manifest import Delegate, EvidenceFile, Latency, Manifest, Origin
from edge_sdk.wire import decode, encode


def manifest_of(blobs: dict[str, bytes], **changes: Any) -> Manifest:
    """A manifest with one variant for each blob; `changes` replace top-level fields, given as plain values."""

    def variant(index: int, id_: str, content: bytes) -> dict[str, Any]:
        return {
            "id": id_,
            "source": "digits",
            "blob": hashlib.sha256(content).hexdigest(),
            "size_bytes": len(content),
            "transfer_bytes": len(content),
            "precision": "fp32" if index == 0 else "int8",
            "target": {"delegate": Delegate.CPU.value},
            "quality": {
                "metric": "accuracy",
                "value": 98.0 - index,
                "drop": float(index),
                "interval": 0.5,
                "agreement": 100.0 - index,
                "samples": 360,
            },
            "cost": {"macs": 1000, "parameters": 100},
        }

    plain = {
        "format": 1,
        "name": "digits",
        "version": "1",
        "created": 1_700_000_000.0,
        "sources": [{"name": "digits", "framework": "keras", "sha256": "0" * 64}],
        "inputs": [{"name": "image", "shape": [-1, 8, 8, 1], "dtype": "float32"}],
        "outputs": [{"name": "scores", "shape": [-1, 10], "dtype": "float32"}],
        "metric": "accuracy",
        "reference": next(iter(blobs)),
        "variants": [variant(index, id_, content) for index, (id_, content) in enumerate(blobs.items())],
        "fronts": {"rpi4": list(blobs)},
        "refused": [{"id": "pruned", "reason": "drop of 12.50 points is more than --max-drop 2.00"}],
    }
    return decode(encode(plain | changes), Manifest, where="test")


CONTENTS = {"float": b"the float model" * 40, "int8": b"the int8 model" * 20}
EVIDENCE = EvidenceFile(
    format=1,
    latency=(
        Latency(variant="float", origin=Origin.MEASURED, machine="bench", samples=50, median_ms=3.25, at=1.7e9),
        Latency(variant="int8", origin=Origin.PREDICTED, machine="rpi4", profile="rpi4", median_ms=1.5, band=1.25),
    ),
)


def write_bundle(
    place: Path, name: str = "digits-1.edge", contents: dict[str, bytes] | None = None, **changes: Any
) -> Bundle:
    """A bundle of these contents in the folder `place`, beside the files it is made from."""
    contents = CONTENTS if contents is None else contents
    blobs = {}
    for content in contents.values():
        path = place / f"blob-{hashlib.sha256(content).hexdigest()[:12]}"
        path.write_bytes(content)
        blobs[hashlib.sha256(content).hexdigest()] = path
    manifest = manifest_of(contents, **changes)
    return bundle.write(place / name, manifest, blobs, evidence=EVIDENCE, report="<html></html>")
