"""XNNPACK with what the plain interpreter does not offer: 16-bit floats, on cores that compute with them.

The interpreter on the CPU uses XNNPACK anyway; asking for it by name only makes sense with an option.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_sdk.delegates.contract import DelegateRequest
from edge_sdk.delegates.delegation import Delegation
from edge_sdk.errors import UsageError
from edge_sdk.machine import cpu_features
from edge_sdk.runtime import Unavailable, compiled_reason

XNNPACK = "xnnpack"
# `true` computes in 16-bit floats.
FP16 = "fp16"

# Arithmetic of 16-bit floats, as `/proc/cpuinfo` spells it: ARMv8.2 (Raspberry Pi 5, Jetson Orin, i.MX 93), and x86-64
# from Sapphire Rapids on. Elsewhere XNNPACK fails (ARM) or converts back and forth, which is slower (x86-64).
_HAS_FP16 = (frozenset({"fphp", "asimdhp"}), frozenset({"avx512_fp16"}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Xnnpack:
    """The CPU in 16-bit floats."""

    name: str = XNNPACK
    summary: str = "the CPU in 16-bit floats (option fp16=true), where its cores have them"

    def find(self, request: DelegateRequest, root: Path) -> Delegation | Unavailable:
        """See `Backend.find`.

        Raises:
            UsageError: A device, a library or an option that there is not.
        """
        if request.device or request.library or dict(request.options) not in ({}, {FP16: "true"}):
            raise UsageError(f"{self.name} has the one option {FP16}=true", hint="the CPU uses XNNPACK without asking")
        if not request.options:
            return Unavailable(
                name=self.name, reason="the CPU uses it anyway", hint=f"for 16-bit floats, give the option {FP16}=true"
            )
        features = cpu_features(root) or frozenset()
        if not any(needed <= features for needed in _HAS_FP16):
            return Unavailable(
                name=self.name, reason="this CPU does not compute in 16-bit floats", hint="leave it in 32-bit floats"
            )
        reason = compiled_reason("cpu", root=root)
        if reason is not None:
            return Unavailable(name=self.name, reason=reason.reason, hint=reason.hint)
        return Delegation(name=self.name, options=dict(request.options))
