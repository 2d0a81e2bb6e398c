"""Which optional parts of this distribution are installed."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import metadata

from edge_sdk.doctor.contract import Finding, Place, State

DISTRIBUTION = "adaptive-edge-sdk"
_FOR = {
    "daemon": "the on-device daemon",
    "images": "apps that prepare images",
    "converter": "making bundles",
    "keras": "converting and training Keras models",
    "torch": "converting PyTorch models",
    "hub": "the hub",
    "broker": "a broker where there is no mosquitto",
    "coco": "mean average precision",
    "tflite": "tflite-runtime, for 32-bit boards",
    "ort": "running .onnx files",
    "serve": "serving models to other boards",
    "grpc": "models served over gRPC",
}
_COLLECTIONS = frozenset({"dev", "demo"})  # of the others
_UNTIL = re.compile(r"python_version < ['\"](\d+)\.(\d+)['\"]")
_NEED = re.compile(r"\A([A-Za-z0-9._-]+).*?extra == ['\"]([a-z0-9-]+)['\"]")


def look(place: Place) -> Iterator[Finding]:
    """See `Look`."""
    del place
    for extra, names in sorted(_needs().items()):
        lacking = [name for name in names if not _is_installed(name)]
        purpose = _FOR.get(extra, "")
        if lacking:
            yield Finding(
                what=extra,
                state=State.MISSING,
                reason=f"{purpose}: lacks {', '.join(lacking)}".removeprefix(": "),
                command=f"pip install '{DISTRIBUTION}[{extra}]'",
            )
        else:
            yield Finding(what=extra, state=State.OK, reason=purpose or "installed")


def _needs() -> dict[str, list[str]]:
    """The distributions of each extra that this Python is to have; those for some machines alone are left out."""
    try:
        told = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:  # run from a folder, not installed
        return {}
    needs: dict[str, list[str]] = {}
    for line in told:
        found = _NEED.match(line)
        until = _UNTIL.search(line)
        is_for_others = "platform" in line or (until and sys.version_info[:2] >= (int(until[1]), int(until[2])))
        if found and found[2] not in _COLLECTIONS and not is_for_others and found[1] != DISTRIBUTION:
            needs.setdefault(found[2], []).append(found[1])
    return needs


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
