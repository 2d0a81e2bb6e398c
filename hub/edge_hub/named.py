"""Devices as somebody names them on a command line: a name that is none is wrong usage, not a message that arrived."""

from __future__ import annotations

from edge_sdk.errors import UsageError, WireError
from edge_sdk.mqtt import DeviceId


def device_named(text: str) -> DeviceId:
    """The device that is meant by `tenant/device`.

    Raises:
        UsageError: The text is not two names with a slash between them.
    """
    try:
        return DeviceId.parse(text)
    except WireError as cause:
        raise UsageError(cause.what, hint=cause.hint) from cause
