"""Delegates as a person asks for them: `edgetpu:usb:0,option=value`, or the path of a library with its options."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from edge_sdk.delegates.contract import DelegateRequest, parse
from edge_sdk.errors import UsageError


def delegates(texts: Iterable[str] | None) -> tuple[DelegateRequest, ...]:
    """What each text asks for.

    Raises:
        UsageError: One of them is malformed.
    """
    return tuple(_delegate(text) for text in texts or ())


def _delegate(text: str) -> DelegateRequest:
    named, *settings = text.split(",")
    request = parse(named)
    if request.library:
        request = dataclasses.replace(request, library=str(Path(request.library).absolute()))
    options: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise UsageError(
                f"{setting[:80]!r} is no option of a delegate", hint="write NAME,option=value,option=value"
            )
        options[name] = value
    return dataclasses.replace(request, options=options) if options else request
