"""What a delegate's backend is asked: where the delegate is, without loading it.

Looking is cheap and safe: files of libraries, device nodes, `/sys`. Whether the library can be loaded, and computes
what it should, is found out by `edge_sdk.delegates.probe` in a process of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, TypeAlias

from edge_sdk.delegates.delegation import Delegation
from edge_sdk.errors import UsageError
from edge_sdk.runtime import Unavailable

CPU = "cpu"
AUTO = "auto"
EXTERNAL = "external"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_DEVICE = re.compile(r"[A-Za-z0-9:._/-]{0,64}\Z")
_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class DelegateRequest:
    """Who an app wants to compute.

    Attributes:
        name: Of the backend, such as `edgetpu`; `external` for a library of your own.
        device: Which, as the library spells it: `usb:0`.
        library: Its file, where it is not the usual one.
        options: For the library.
    """

    name: str
    device: str = ""
    library: str = ""
    options: Mapping[str, str] = field(default_factory=lambda: _NOTHING)

    def __str__(self) -> str:
        named = self.library or self.name
        return f"{named}:{self.device}" if self.device else named

    def __post_init__(self) -> None:
        """Refuse what no backend could be asked.

        Raises:
            UsageError: A field is malformed.
        """
        if not _NAME.match(self.name):
            raise UsageError(f"{self.name[:80]!r} names no delegate", hint="such as 'edgetpu' or 'edgetpu:usb:0'")
        if not _DEVICE.match(self.device):
            raise UsageError(f"{self.device[:80]!r} names no device", hint="such as 'usb:0' or 'pci'")


def parse(text: str) -> DelegateRequest:
    """`edgetpu`, `edgetpu:usb:0`, or the path of a library.

    Raises:
        UsageError: It is none of them.
    """
    if "/" in text or text.endswith(".so"):
        return DelegateRequest(name=EXTERNAL, library=text)
    name, _, device = text.partition(":")
    return DelegateRequest(name=name, device=device)


# One, or several in the order of preference.
Delegates: TypeAlias = str | DelegateRequest | Sequence[str | DelegateRequest]


def asked(delegate: Delegates) -> tuple[DelegateRequest, ...]:
    """The delegates that are asked for, the first choice first.

    Raises:
        UsageError: There is none, or one is malformed.
    """
    several = (delegate,) if isinstance(delegate, str | DelegateRequest) else tuple(delegate)
    if not several:
        raise UsageError("no delegate is named", hint="'cpu' needs nothing")
    return tuple(parse(each) if isinstance(each, str) else each for each in several)


def requests_for(own: DelegateRequest, asked_for: Sequence[DelegateRequest]) -> tuple[DelegateRequest, ...]:
    """Which of the delegates that are asked for may compute a variant; none, where it is for another one.

    Args:
        own: What the variant was made for.
        asked_for: From `asked`.
    """
    if own.name == CPU:
        return tuple(own if each.name == AUTO else each for each in asked_for)
    its = [own if each.name == AUTO else each for each in asked_for if each.name in (AUTO, own.name)]
    return tuple(each if each.options else replace(each, options=own.options) for each in its)


class Backend(Protocol):
    """One kind of accelerator. Third parties add theirs by an entry point of the group `edge.delegates`."""

    @property
    def name(self) -> str:
        """By which apps ask for it; for variants of a bundle, that of `target.delegate`."""

    @property
    def summary(self) -> str:
        """What it is, one clause."""

    def find(self, request: DelegateRequest, root: Path) -> Delegation | Unavailable:
        """Where it is, or why it cannot be had; loads nothing.

        Args:
            request: Its `name` is this backend's.
            root: Below which `/sys`, `/dev` and the libraries lie; another than `/` in tests.

        Raises:
            UsageError: The device or the options make no sense.
        """
