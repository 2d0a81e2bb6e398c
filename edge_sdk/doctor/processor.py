"""What the processor can do that makes a difference to a model, and whether LiteRT's CompiledModel would be killed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edge_sdk.doctor.contract import Finding, Place, State
from edge_sdk.machine import cpu_features
from edge_sdk.threads import cores

# Feature, as /proc/cpuinfo spells it: what XNNPACK does with it (its README @75db3c0, "Limitations").
_ARM = {
    "asimd": "vectors of floats and integers",
    "asimdhp": "16-bit floats computed as such",
    "asimddp": "dot products of 8-bit integers",
    "i8mm": "products of 8-bit matrices",
}
_X86 = {
    "avx2": "vectors of 256 bits",
    "avx512_vnni": "dot products of 8-bit integers",
    "avx_vnni": "dot products of 8-bit integers",
}
_ARM32 = {"neon": "vectors of floats and integers", "asimddp": "dot products of 8-bit integers"}
_WORTH: Mapping[str, Mapping[str, str]] = {"aarch64": _ARM, "x86_64": _X86, "armv7l": _ARM32}
# Without these, libLiteRt.so of the aarch64 wheel meets an illegal instruction (measured under qemu-user).
_COMPILED_MODEL = frozenset({"atomics", "asimddp"})


def look(place: Place) -> Iterator[Finding]:
    """See `Look`."""
    yield Finding(what="cores", state=State.OK, reason=f"{cores()} of them for this process")
    features = cpu_features(place.root)
    if features is None:
        yield Finding(what="features", state=State.WARNING, reason="/proc/cpuinfo does not tell them")
        return
    worth = _WORTH.get(place.machine, {})
    there = [name for name in worth if name in features]
    lacking = [name for name in worth if name not in features]
    if there:
        told = "; ".join(f"{name}: {worth[name]}" for name in there)
        yield Finding(what="features", state=State.OK, reason=told)
    if lacking:
        told = "; ".join(f"{name}: {worth[name]}" for name in lacking)
        yield Finding(what="does without", state=State.MISSING, reason=told)
    yield _compiled_model(place, features)


def _compiled_model(place: Place, features: frozenset[str]) -> Finding:
    lacking = sorted(_COMPILED_MODEL - features) if place.machine == "aarch64" else []
    if lacking:
        return Finding(
            what="CompiledModel",
            state=State.WARNING,
            reason=f"LiteRT's would be killed by an illegal instruction: the processor lacks {', '.join(lacking)}",
            hint="nothing to do: the interpreter is used, and no GPU",
        )
    return Finding(what="CompiledModel", state=State.OK, reason="LiteRT's may run here")
