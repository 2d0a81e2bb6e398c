"""Secrets, and URLs that may hold one: an option gives them, or better a variable of the environment.

Arguments are there for every user of a machine to read (`ps`), and lie in the history of a shell; the environment of a
process is its own user's. `docs/how-to/run-a-hub.md` says how to fill it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from urllib.parse import urlsplit

_log = logging.getLogger(__name__)

BROKER = "EDGE_HUB_BROKER"
STORE = "EDGE_HUB_STORE"
WEBHOOKS = "EDGE_HUB_ALERT_WEBHOOKS"
# Of who asks a hub.
URL = "EDGE_HUB_URL"
TOKEN = "EDGE_HUB_TOKEN"  # noqa: S105 - its name
CA = "EDGE_HUB_CA"


def asked(given: str | None, *, option: str, variable: str) -> str | None:
    """The URL that an option gives, else that of a variable; None where neither does. Warns of a password in it."""
    if given and _has_password(given):
        _log.warning("every user of this machine can read the password in %s: give it in %s instead", option, variable)
    return given or value(variable)


def value(variable: str) -> str | None:
    """What a variable says; None where it says nothing."""
    return os.environ.get(variable, "").strip() or None


def asked_webhooks(given: Iterable[str]) -> tuple[str, ...]:
    """The URLs that options give, and those of the variable, which white space parts; each once."""
    return tuple(dict.fromkeys((*given, *os.environ.get(WEBHOOKS, "").split())))


def _has_password(url: str) -> bool:
    try:
        return urlsplit(url).password is not None
    except ValueError:  # whoever takes it is going to say so
        return False
