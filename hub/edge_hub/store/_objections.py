"""What a store objects to, in the same words whichever database it is in."""

from __future__ import annotations

from edge_hub.errors import EnrolledError, UnknownDeviceError, VersionConflictError
from edge_sdk.mqtt import DeviceId


def unknown(device: DeviceId) -> UnknownDeviceError:
    """It was neither enrolled nor heard of."""
    return UnknownDeviceError(
        "no such device", where=str(device), hint="`edge hub devices` lists them, `edge hub enroll` adds one"
    )


def enrolled(device: DeviceId) -> EnrolledError:
    """It has credentials, and new ones were not asked for."""
    return EnrolledError(
        "this device has credentials already",
        where=str(device),
        hint="give it new ones with --again; the old ones end then",
    )


def check_version(device: DeviceId, present: int, expected: int | None) -> None:
    """Refuse to replace another version of the desired document than the one that is expected.

    Raises:
        VersionConflictError: Says which there is.
    """
    if expected is not None and expected != present:
        raise VersionConflictError(
            f"the desired document has version {present}, not {expected}",
            where=str(device),
            hint="read it again, and change that",
        )
