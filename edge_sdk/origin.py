"""Where a model comes from, a bundle or the daemon, and which of its variants can run here."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from edge_sdk.bundle import Bundle
from edge_sdk.delegates.contract import AUTO, Delegates
from edge_sdk.errors import BundleError, CommandError, DaemonUnreachableError, UsageError
from edge_sdk.fitness import unfit
from edge_sdk.link import DaemonLink
from edge_sdk.local import KNOWS_SERVERS, SPEAKS
from edge_sdk.manifest import Variant
from edge_sdk.preference import Preference
from edge_sdk.runtime import Runtime

_log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


def found(
    source: str | os.PathLike[str],
    variant: str | None,
    preference: Preference | None,
    socket: str | os.PathLike[str] | None,
    name: str,
    *,
    asks: bool = True,
) -> tuple[Bundle, DaemonLink | None]:
    """The bundle, and the daemon that decides, if one does.

    Raises:
        UsageError: `preference` is none.
        BundleError: There is no bundle.
        DaemonUnreachableError: `source` is a name, or `socket` is given, and no daemon answers.
        CommandError: The daemon serves no model of this name.
    """
    check_preference(preference)
    speaks = SPEAKS if asks else KNOWS_SERVERS - 1
    text = os.fspath(source)
    if Path(text).exists() or not _NAME.match(text):
        bundle = Bundle(text)
        if variant is not None:
            return bundle, None
        try:
            link = DaemonLink(
                socket=socket, model=None, manifest=bundle.manifest_sha256, preference=preference, name=name,
                speaks=speaks,
            )  # fmt: skip
        except (DaemonUnreachableError, CommandError) as error:
            if socket is not None and isinstance(error, DaemonUnreachableError):
                raise  # this daemon was asked for by name
            _log.debug("no daemon decides: %s", error)
            return bundle, None
        return bundle, link
    try:
        link = DaemonLink(socket=socket, model=text, manifest=None, preference=preference, name=name, speaks=speaks)
    except DaemonUnreachableError as error:
        raise DaemonUnreachableError(
            f"{text!r} is no bundle's directory, and no daemon serves a model of that name",
            where=error.where,
            hint="name a directory such as digits-1.edge, or start a daemon with 'edge daemon run'",
        ) from error
    try:
        bundle = Bundle(link.registered.bundle)
    except BundleError:
        link.close()
        raise
    if variant is None:
        return bundle, link
    link.close()
    return bundle, None


def check_preference(preference: object) -> None:
    """Refuse what is no preference.

    Raises:
        UsageError: It is none.
    """
    if preference is not None and not isinstance(preference, Preference):
        raise UsageError(f"preference is {preference!r:.80}", hint="give one such as Preference(mode=Mode.BALANCED)")


def usable(bundle: Bundle, runtime: Runtime, delegate: Delegates = AUTO) -> tuple[Variant, ...]:
    """The variants that can run here, the most accurate first, then the smaller.

    Those whose operators the runtime does not know, or whose accelerator is not here, are left out: `unfit` says why.
    """
    usable = [v for v in bundle.manifest.variants if unfit(v, runtime, delegate=delegate) is None]
    return tuple(sorted(usable, key=lambda v: (-v.quality.value, v.size_bytes, v.id)))
