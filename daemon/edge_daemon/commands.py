"""What this package contributes to the program `edge`: names and arguments.

What they do is in `edge_daemon.cli`; what `run` does in `edge_daemon.process`.
"""

from __future__ import annotations

import argparse

from edge_sdk.cli.command import Command, Later, a_path

_MODES = ("accuracy", "balanced", "speed", "battery")


def _takes_socket(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--socket", metavar="PATH", help="of the daemon, else EDGE_DAEMON_SOCKET, else the usual place")


def _takes_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", metavar="FILE", help="TOML, else EDGE_DAEMON_CONFIG, else /etc/edge/daemon.toml, else all defaults"
    )
    parser.add_argument("--socket", metavar="PATH", help="where to serve the local API; wins over the configuration")
    parser.add_argument(
        "--record-events",
        metavar="FILE",
        help="note what the policy is told and decides, to replay it (256 MiB at most)",
    )


def _takes_explain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", nargs="?", help="only of this one")
    _takes_socket(parser)


def _takes_prefer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("mode", metavar="MODE", choices=_MODES, help="one of " + ", ".join(_MODES))
    parser.add_argument("--model", metavar="MODEL", help="of this one only, else of all")
    parser.add_argument("--max-latency-ms", metavar="MS", type=float, help="of one inference, 95 of 100")
    parser.add_argument("--deadline-ms", metavar="MS", type=float, help="from the call until the answer is at the hub")
    parser.add_argument("--min-accuracy", metavar="PCT", type=float, help="nothing worse than this, in percent")
    parser.add_argument("--max-temp-c", metavar="C", type=float, help="the board stays below")
    parser.add_argument(
        "--battery-until", metavar="WHEN", help="the battery lasts until then: 18:30 (daily), or 2026-11-27T18:30"
    )
    parser.add_argument("--battery-for-s", metavar="S", type=float, help="the battery lasts so many seconds from now")
    parser.add_argument("--max-power-w", metavar="W", type=float, help="the board draws no more, in the mean")
    _takes_socket(parser)


def _takes_pin(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="the daemon's name for it")
    parser.add_argument("variant", metavar="VARIANT", help="its id; 'edge daemon status' shows what there is")
    _takes_socket(parser)


def _takes_unpin(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", nargs="?", help="this one, else all")
    _takes_socket(parser)


def _takes_watch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--every", metavar="S", type=float, default=1.0, help="seconds between two lines (default 1)")
    _takes_socket(parser)


def _takes_record(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="FILE", type=a_path, help="the trace; default edge-trace-DATE-TIME.csv here")
    parser.add_argument("--every", metavar="S", type=float, default=1.0, help="seconds between two rows (default 1)")
    parser.add_argument("--for", metavar="S", type=float, dest="for_s", help="how long, else until interrupted")
    parser.add_argument("--root", metavar="DIR", type=a_path, default="/", help="below which sys and proc lie")
    parser.add_argument("--profile", metavar="ID", help="of the board, else the one that knows it")
    _takes_socket(parser)


COMMANDS: tuple[Command, ...] = (
    Command(
        path=("daemon", "run"),
        summary="run the daemon here until it is stopped",
        configure=_takes_run,
        run=Later("edge_daemon.process", "become"),
        has_json=False,
    ),
    Command(
        path=("daemon", "status"),
        summary="what it senses, which variants run, how it stands with the hub",
        configure=_takes_socket,
        run=Later("edge_daemon.cli", "status"),
    ),
    Command(
        path=("daemon", "explain"),
        summary="the last decisions and why they fell as they did",
        configure=_takes_explain,
        run=Later("edge_daemon.cli", "explain"),
    ),
    Command(
        path=("daemon", "prefer"),
        summary="say what is wanted of a model, or of all",
        configure=_takes_prefer,
        run=Later("edge_daemon.cli", "prefer"),
    ),
    Command(
        path=("daemon", "pin"),
        summary="run this variant whatever the conditions, until unpinned",
        configure=_takes_pin,
        run=Later("edge_daemon.cli", "pin"),
    ),
    Command(
        path=("daemon", "unpin"),
        summary="let the policy decide again",
        configure=_takes_unpin,
        run=Later("edge_daemon.cli", "unpin"),
    ),
    Command(
        path=("daemon", "watch"),
        summary="a line a second: conditions and what runs, until interrupted",
        configure=_takes_watch,
        run=Later("edge_daemon.cli", "watch"),
    ),
    Command(
        path=("daemon", "record"),
        summary="write what the board meets into a trace that 'edge simulate' plays",
        configure=_takes_record,
        run=Later("edge_daemon.cli", "record"),
    ),
)
