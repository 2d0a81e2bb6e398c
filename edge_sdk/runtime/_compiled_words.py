"""What LiteRT's accelerators write to standard error while they compile, in this product's words.

The exceptions they raise name lines of their source and nothing else. The texts were collected from ai-edge-litert
2.3.0: on a software GPU, and without a driver, without a loader and without an NPU.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edge_sdk.errors import DelegateUnavailableError

_MAX_LEFT_OUT = 20

_DRIVER = (
    "install the GPU's Vulkan driver (apt-get install libvulkan1 mesa-vulkan-drivers) and be in the group 'render'"
)
_VENDOR = "install the vendor's library for LiteRT"

# The first that is found counts: a pattern, the reason, and what mends it.
_REASONS: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (re.compile(r"Couldn't load Vulkan: ([\w.-]{1,80})"), "no Vulkan: the loader {} cannot be opened", _DRIVER),
    (re.compile(r"vkCreateInstance failed with (\w{1,80})"), "no Vulkan: vkCreateInstance failed with {}", _DRIVER),
    (
        re.compile(r"Warning: (Vulkan [^\n]{1,120} required)"),
        "no GPU that can be used: {}",
        "install a newer Vulkan driver",
    ),
    (re.compile(r"(No adapters found)"), "no GPU: {}", _DRIVER),
    (re.compile(r"(No compiler plugin found)"), "no NPU: {}", _VENDOR),
    (re.compile(r"(NPU accelerator could not be loaded)"), "no NPU: {}", _VENDOR),
)

# The model is the cause, not the device; `load_error` knows the wording.
_MODELS_FAULT = re.compile(r"(?:Encountered unresolved custom op: |Didn't find op for builtin opcode )[^\n]{1,200}")

_SHARE = re.compile(
    r"not supported by GPU delegate:\n(?P<why>.{0,20000}?)\n"
    r"(?P<gpu>\d{1,9}) operations will run on the GPU, and the remaining (?P<cpu>\d{1,9}) operations",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How much of a model an accelerator computes.

    Attributes:
        delegated: Operators on the accelerator.
        total: All operators.
        why: What stays on the CPU, such as `REVERSE_SEQUENCE: Operation is not supported.`
    """

    delegated: int
    total: int
    why: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Nothing stays on the CPU."""
        return self.delegated == self.total


def share(said: str, *, operators: int) -> Share:
    """What a GPU took, read from what was written while a model of so many operators was compiled for it.

    The library counts only where something is left out.
    """
    found = _SHARE.search(said)
    if found is None:
        return Share(delegated=operators, total=operators)
    gpu, cpu = int(found["gpu"]), int(found["cpu"])
    return Share(delegated=gpu, total=gpu + cpu, why=tuple(found["why"].splitlines()[:_MAX_LEFT_OUT]))


def refusal(said: str, raised: str, *, where: str) -> DelegateUnavailableError | RuntimeError:
    """What to raise where compiling failed.

    Args:
        said: What was written to standard error.
        raised: The text of the exception.
        where: The runtime, for the message.

    Returns:
        A `DelegateUnavailableError` where there is no such accelerator; a `RuntimeError` for `load_error` where the
        model is refused.
    """
    if found := _MODELS_FAULT.search(said):
        return RuntimeError(found[0])
    for pattern, reason, hint in _REASONS:
        if found := pattern.search(said):
            return DelegateUnavailableError(reason.format(found[1]), where=where, hint=f"{hint}, or take the CPU")
    errors = [line.partition("] ")[2] for line in said.splitlines() if line.startswith("ERROR: [")]
    return RuntimeError("; ".join([*errors[-3:], raised.rpartition("└ ")[2]]))
