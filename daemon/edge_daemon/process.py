"""The daemon's own process, in which nothing of the program `edge` is left.

To find out what is asked of it `edge` imports a parser, the metadata of all installed packages and every package's
commands. Python gives none of that back, so the daemon begins anew in the same process (execve(2): same id, same files,
same environment) with its own modules alone: 1.6 MB less for as long as it runs, for one start of Python.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import argparse

_ASKED: Final = ("config", "socket", "record_events", "debug")
# Not -m: it would look for our modules where the daemon happens to be started.
_BEGIN: Final = (
    "import sys; sys.path[:] = filter(None, sys.path); from edge_daemon.process import main; sys.exit(main())"
)


def become(args: argparse.Namespace) -> int:
    """Be the daemon until a signal ends it; returns only where Python cannot be started anew."""
    asked = {name: str(value) for name in _ASKED if (value := getattr(args, name)) not in {None, False}}
    with contextlib.suppress(OSError, ValueError):  # no file, or an empty name
        options = [*_isolation(), "-c", _BEGIN, *(f"{name}={value}" for name, value in asked.items())]
        os.execv(sys.executable, [sys.executable, *options])  # noqa: S606 - this Python, without a shell
    return _run(asked)


def main() -> int:
    """Be the daemon that `become` asked for; returns the exit status of `edge`."""
    asked = dict(pair.split("=", 1) for pair in sys.argv[1:])
    try:
        return _run(asked)
    except (KeyboardInterrupt, Exception) as error:
        if "debug" in asked:
            raise
        from edge_sdk.cli.main import ended  # with all that it imports, now that it no longer matters

        return ended(error)


def _run(asked: dict[str, str]) -> int:
    from edge_daemon import config, logs, service

    logs.configure("info")
    loaded = config.load(config.find(asked.get("config")))
    logs.configure("debug" if "debug" in asked else loaded.log.level)
    socket, events = (Path(asked[name]) if asked.get(name) else None for name in ("socket", "record_events"))
    service.run(loaded, socket=socket, events=events)
    return 0


def _isolation() -> list[str]:
    """The options of this Python that say where it looks for modules."""
    flags = sys.flags
    given = (("-I", flags.isolated), ("-E", flags.ignore_environment), ("-s", flags.no_user_site))
    return [option for option, is_on in given if is_on]
