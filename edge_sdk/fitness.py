"""Why a variant of a bundle cannot run here, told from its manifest before a byte of it is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from edge_sdk.delegates import DelegateRequest, find
from edge_sdk.delegates.contract import AUTO, Delegates, asked, requests_for
from edge_sdk.delegates.gpu import ON_ONNX
from edge_sdk.machine import cpu_features
from edge_sdk.manifest import Delegate, Variant
from edge_sdk.runtime import ONNX_RUNTIME, Described, Runtime, Unavailable, numbers, onnx_reason

_TFLITE = "tflite"


def unfit(variant: Variant, runtime: Runtime | Described, *, delegate: Delegates = AUTO) -> str | None:
    """The reason, one clause, or None where it can be tried.

    A variant for an accelerator can be tried where its delegate is found here and `delegate` does not exclude it;
    whether it computes shows when it is opened, with its twin behind it.

    Args:
        variant: From a manifest.
        runtime: What loads `.tflite` files here.
        delegate: Who may compute, as of `EdgeModel`.

    Raises:
        UsageError: `delegate` makes no sense.
    """
    features = cpu_features()
    lacking = set(variant.target.isa) - features if features is not None else set()
    if lacking:
        return f"this CPU has no {', '.join(sorted(lacking))}"
    return _format(variant, runtime) or _delegate(variant, asked(delegate))


def speaks(runtime: Runtime | Described, needed: str | None) -> bool:
    """Whether a runtime knows the operators of TensorFlow Lite `needed`; None and what is no version rule nothing out.

    A runtime that says `2.17` means all of its patch releases.
    """
    wanted = numbers(needed or "")
    return wanted[: len(runtime.speaks)] <= runtime.speaks


def _format(variant: Variant, runtime: Runtime | Described) -> str | None:
    target = variant.target
    if target.runtime == ONNX_RUNTIME:
        reason = onnx_reason(accelerated=target.delegate is Delegate.GPU)
        return str(reason) if reason else None
    if target.runtime != _TFLITE:
        return f"it is for the runtime {target.runtime!r}, which is not known here"
    return too_new(variant, runtime)


def too_new(variant: Variant, runtime: Runtime | Described) -> str | None:
    """That a runtime does not know the operators of a `.tflite` variant, one clause; None where it does."""
    target = variant.target
    if target.runtime != _TFLITE or speaks(runtime, target.min_runtime):
        return None
    known = ".".join(map(str, runtime.speaks))
    return (
        f"its operators need TensorFlow Lite {target.min_runtime}, "
        f"and {runtime.name} {runtime.version} knows those of {known}"
    )


def _delegate(variant: Variant, asked_for: Sequence[DelegateRequest]) -> str | None:
    kind = variant.target.delegate
    if kind is Delegate.CPU:
        return None
    options = ON_ONNX if variant.target.runtime == ONNX_RUNTIME else {}
    wanted = requests_for(DelegateRequest(name=kind.value, options=options), asked_for)
    if not wanted:
        shown = ", ".join(each.name for each in asked_for)
        return f"it is for the delegate {kind.value!r}, and {shown!r} is asked for"
    found = [find(each) for each in wanted]
    missing = [each for each in found if isinstance(each, Unavailable)]
    return _one_clause(missing[0]) if len(missing) == len(found) else None


def _one_clause(found: Unavailable) -> str:
    return f"{found.name}: {found.reason}"
