"""Giving a device what it connects with: an account at the broker and a configuration file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from edge_hub.address import Endpoint
from edge_hub.api import Credentials
from edge_hub.broker.accounts import hash_password, new_password
from edge_hub.broker.backend import Papers
from edge_hub.datadir import PRIVATE_FILE, is_directory, obstacle
from edge_hub.errors import UnknownDeviceError
from edge_hub.store import Store
from edge_sdk import atomic
from edge_sdk.errors import UsageError
from edge_sdk.mqtt import DeviceId

MakePapers = Callable[..., tuple[Papers, ...]]


async def enrol_all(
    store: Store, devices: Collection[DeviceId], *, endpoint: Endpoint, papers: MakePapers, again: bool
) -> tuple[Credentials, ...]:
    """Make passwords and what goes with them, keep their hashes, and return the one copy of them.

    What takes time goes on in threads: a thousand devices are a third of a second of hashing.

    Args:
        store: Keeps the hashes.
        devices: Each once.
        endpoint: How they reach the broker.
        papers: `BrokerBackend.papers`.
        again: Replace what they have.

    Raises:
        EnrolledError: Names the first that has some, and `again` is false; none has anything new.
        StorageError: Their certificates could not be recorded; their passwords are replaced already.
    """
    passwords = {device: new_password() for device in devices}
    hashes = await asyncio.to_thread(_hashed, passwords)
    await store.enrol_all(hashes, now=time.time(), again=again)
    made = await asyncio.to_thread(papers, *map(str, passwords))
    return tuple(
        Credentials(
            device=str(device),
            host=endpoint.address.host,
            port=endpoint.address.port,
            tls=endpoint.tls,
            username=str(device),
            password=password,
            ca=paper.ca,
            certificate=paper.certificate,
            key=paper.key,
        )
        for (device, password), paper in zip(passwords.items(), made, strict=True)
    )


def _hashed(passwords: Mapping[DeviceId, str]) -> dict[DeviceId, str]:
    return {device: hash_password(password) for device, password in passwords.items()}


async def revoke(store: Store, device: DeviceId) -> None:
    """Give the device's account a password that nobody knows.

    Raises:
        UnknownDeviceError: The device has no account.
    """
    record = await store.device(device)
    if record is None or record.enrolled is None:
        raise UnknownDeviceError(
            "this device has no credentials", where=str(device), hint="'edge hub devices' lists them"
        )
    await store.enrol(device, hash_password(new_password()), now=time.time(), again=True)


def device_configuration(credentials: Credentials, models: Mapping[str, str]) -> str:
    """The TOML that `edge daemon run --config` takes."""
    device = DeviceId.parse(credentials.device)
    lines = [
        f"# Of {device}, written by `edge hub enroll`. Holds a password: keep it 0600.",
        "[device]",
        f"tenant = {_quoted(device.tenant)}",
        f"name = {_quoted(device.device)}",
        "",
        "[mqtt]",
        f"host = {_quoted(credentials.host)}",
        f"port = {credentials.port}",
        f"username = {_quoted(credentials.username)}",
        f"password = {_quoted(credentials.password)}",
        *_tls(credentials),
        "",
        "[models]",
        *(f"{_quoted(name)} = {_quoted(path)}" for name, path in models.items()),
    ]
    return "\n".join(lines) + "\n"


def _tls(credentials: Credentials) -> list[str]:
    if not credentials.tls:
        return []
    papers = {"ca_pem": credentials.ca, "cert_pem": credentials.certificate, "key_pem": credentials.key}
    if not any(papers.values()):
        return ["tls = true"]
    # A multi-line literal string begins behind its first line break.
    return ["", "[mqtt.tls]", *(f"{name} = '''\n{text}'''" for name, text in papers.items() if text is not None)]


def check_writable(path: Path) -> None:
    """Refuse a place where no file can be written, before anything is made that would go into it.

    Raises:
        UsageError: Says what is in the way.
    """
    import tempfile  # who only asks does without it

    folder = path.absolute().parent
    if is_directory(path):
        raise UsageError("is a directory", where=str(path), hint="name a file in it, such as device.toml")
    elsewhere = "name a file where you may write"
    if what := obstacle(folder):
        raise UsageError(f"cannot be written: {what}", where=str(path), hint=elsewhere)
    if not is_directory(folder):
        what = f"there is no directory {folder}"
        raise UsageError(f"cannot be written: {what}", where=str(path), hint=f"make it first: mkdir -p {folder}")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as cause:
        raise UsageError(f"cannot be written: {folder}: {cause.strerror}", where=str(path), hint=elsewhere) from cause


def write_configuration(path: Path, text: str) -> None:
    """Write it whole, readable for its owner only.

    Raises:
        StorageError: It could not be written.
    """
    atomic.write_bytes(path, text.encode(), mode=PRIVATE_FILE)


def _quoted(text: str) -> str:
    """A TOML basic string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c >= " " and c != "\x7f" else f"\\u{ord(c):04x}" for c in escaped) + '"'
