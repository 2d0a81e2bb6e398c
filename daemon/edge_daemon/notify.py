"""Tells systemd how the service is: one datagram each to `$NOTIFY_SOCKET` (sd_notify(3)). Without one, silence."""

from __future__ import annotations

import os
import socket

_VARIABLE = "NOTIFY_SOCKET"
_WATCHDOG_USEC = "WATCHDOG_USEC"
_WATCHDOG_PID = "WATCHDOG_PID"


def notify(state: str) -> bool:
    """Send such as `READY=1`; False where nobody listens."""
    address = os.environ.get(_VARIABLE, "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):  # an abstract address begins with a zero byte
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.connect(address)
            sender.sendall(state.encode())
    except OSError:
        return False
    return True


def watchdog_s() -> float | None:
    """How often systemd wants to hear `WATCHDOG=1`, or None if it does not; feed it twice as often."""
    pid = os.environ.get(_WATCHDOG_PID)
    if pid is not None and pid != str(os.getpid()):
        return None
    try:
        interval_s = int(os.environ.get(_WATCHDOG_USEC, "")) / 1e6
    except ValueError:
        return None
    return interval_s if interval_s > 0 else None
