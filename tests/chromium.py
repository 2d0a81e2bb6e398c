"""The browser of the dashboard's tests and benchmark: Debian's chromium, driven by Playwright, never downloaded."""

from __future__ import annotations

import os
import shutil

# No GPU; no look-ups of its maker's hosts, which on a machine without a way out would only fail.
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def program() -> str | None:
    """Where it is."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def flags() -> list[str]:
    """How it is started; its sandbox does not work for root."""
    return [*FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
