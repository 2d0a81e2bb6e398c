"""The delegates this product knows: the built-in ones, and what other packages add.

Another package adds a backend by an entry point of the group `edge.delegates` that names an object with the contract
of `edge_sdk.delegates.contract.Backend`. One that cannot be imported is a value with a reason.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

from edge_sdk import profile
from edge_sdk.delegates.contract import CPU, Backend, DelegateRequest, parse
from edge_sdk.delegates.delegation import Delegation
from edge_sdk.delegates.external import LIBRARIES, EdgeTpu, Named
from edge_sdk.delegates.gpu import Gpu, NnApi
from edge_sdk.delegates.xnnpack import Xnnpack
from edge_sdk.errors import UsageError
from edge_sdk.profile import SiteDelegate
from edge_sdk.runtime import Unavailable

ENTRY_POINTS = "edge.delegates"

_BACKENDS: tuple[Backend, ...] = (EdgeTpu(), Gpu(), *LIBRARIES, Xnnpack(), NnApi(), Named())
BUILT_IN: Mapping[str, Backend] = MappingProxyType({each.name: each for each in _BACKENDS})


@functools.cache
def backends() -> Mapping[str, Backend | Unavailable]:
    """All backends by name; a built-in one cannot be replaced."""
    others = {entry.name: _loaded(entry) for entry in metadata.entry_points(group=ENTRY_POINTS)}
    return MappingProxyType(others | dict(BUILT_IN))


def _loaded(entry: metadata.EntryPoint) -> Backend | Unavailable:
    try:
        made: Backend = entry.load()()
    except (ImportError, AttributeError, TypeError, OSError) as cause:
        return Unavailable(name=entry.name, reason=f"its package is broken: {cause}")
    return made


def find(request: DelegateRequest | str, *, root: Path = Path("/")) -> Delegation | Unavailable:
    """Where a delegate is, or why it cannot be had here; loads nothing.

    Library and options that the request leaves out are those of the board's profile, where it has any.

    Raises:
        UsageError: There is no such delegate, or the request makes no sense to it.
        ProfileError: A profile is malformed.
    """
    wanted = parse(request) if isinstance(request, str) else request
    site = _site(root).get(wanted.name)
    if site is not None:
        wanted = replace(wanted, library=wanted.library or site.library, options=wanted.options or dict(site.options))
    backend = backends().get(wanted.name) or (Named(name=wanted.name) if site is not None else None)
    if backend is None:
        raise UsageError(
            f"no delegate {wanted.name!r}",
            hint=f"there are {', '.join([CPU, *backends()])}, or the path of a library",
        )
    if isinstance(backend, Unavailable):
        return backend
    return backend.find(wanted, root)


@functools.cache
def _site(root: Path) -> Mapping[str, SiteDelegate]:
    """What the board's profile says of delegates; profiles are read once."""
    found = profile.match(root)
    return {} if found is None else found.delegates
