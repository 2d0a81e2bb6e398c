"""Who may connect and what they may touch, in mosquitto's file formats.

Passwords are random tokens made here, so few iterations suffice: nothing can be guessed that has 192 bits.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edge_sdk.mqtt import ROOT, Down, Up

HUB_USER = "hub"
# Of a program that is to hear of alerts, and of nothing else.
ALERTS_USER = "alerts"
ALERT_TOPIC = f"{ROOT}/hub/alerts"
# What mosquitto_passwd 2.0 uses; the broker computes it once per connection, in its only thread.
_ITERATIONS = 101
_SALT_BYTES = 12
_PASSWORD_BYTES = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A program that is let in beside the hub and the devices.

    Attributes:
        user: Unlike any device's name, which is `tenant/device`.
        access: What it may touch, as mosquitto's access file has it: `read TOPIC`, `write TOPIC`, `readwrite TOPIC`.
    """

    user: str
    password: str = field(repr=False)
    access: tuple[str, ...]


def new_password() -> str:
    """A fresh random password, safe in TOML and URLs."""
    return secrets.token_urlsafe(_PASSWORD_BYTES)


def hash_password(password: str) -> str:
    """The `$7$` form of mosquitto 2: PBKDF2-HMAC-SHA512 with a random salt (mosquitto's `password_mosq.c`)."""
    salt = secrets.token_bytes(_SALT_BYTES)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS)
    return f"$7${_ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def worker_user(number: int) -> str:
    """A worker's name: the broker makes client ids of names, and each worker needs one of its own. No device has it."""
    return f"{HUB_USER}-{number}"


def password_file(accounts: Mapping[str, str]) -> bytes:
    """One `user:hash` a line."""
    return "".join(f"{user}:{digest}\n" for user, digest in sorted(accounts.items())).encode()


def access_file(workers: int = 0, guests: Sequence[Guest] = ()) -> bytes:
    """The hub and its workers may touch every topic of the protocol; a device what is below its own name, kind by kind.

    The kinds are spelled out so that a device cannot fill the broker with retained messages on topics of its own
    invention.
    """
    lines = [f"user {ALERTS_USER}", f"topic read {ALERT_TOPIC}", ""]
    for user in (HUB_USER, *map(worker_user, range(workers))):
        lines += [f"user {user}", f"topic readwrite {ROOT}/#", ""]
    for guest in guests:
        lines += [f"user {guest.user}", *(f"topic {access}" for access in guest.access), ""]
    lines += [f"pattern write {ROOT}/%u/up/{kind.value}" for kind in Up]
    lines += [f"pattern read {ROOT}/%u/down/{kind.value}" for kind in Down]
    return ("\n".join(lines) + "\n").encode()
