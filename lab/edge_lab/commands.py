"""What this package contributes to the program `edge`. What it does is imported when it runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge_sdk.cli.command import Command, Later, a_path

_LENGTH_S = 75.0
_SHORTEST_S, _LONGEST_S = 20.0, 3600.0
_SIGNALLED = 128


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=_LENGTH_S,
        metavar="S",
        help=f"how long to play (default {_LENGTH_S:g}, at least {_SHORTEST_S:g})",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), metavar="DIR", help="where bundle and page are put (default demo)"
    )
    parser.add_argument(
        "--keras", action="store_true", help="convert from the .keras files; through TensorFlow; takes a minute more"
    )
    parser.add_argument("--keep", action="store_true", help="keep logs and databases, and say where they are")


def _demo(args: argparse.Namespace) -> int:
    from edge_lab import demo, outcome
    from edge_lab.errors import InterruptedRunError
    from edge_sdk.cli.output import emit, say

    try:
        result = demo.run(demo.Options(out=args.out, seconds=args.seconds, keras=args.keras, keep=args.keep))
    except InterruptedRunError as stopped:
        if args.debug:
            raise
        say(f"edge: {stopped}; nothing is left running")
        return _SIGNALLED + stopped.number
    emit(args, outcome.as_json(result), lambda: outcome.as_text(result))
    return 1 if result.story.work().failed else 0


def _configure_simulate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scenarios", nargs="+", type=a_path, metavar="SCENARIO.toml", help="what the board meets")
    parser.add_argument(
        "--policy",
        action="append",
        dest="policies",
        metavar="NAME",
        help="a policy to play, may be repeated (default optimal; others: rules, alert, static, static-fast)",
    )
    parser.add_argument("--seeds", type=_count, default=1, metavar="N", help="how many seeds to play (default 1)")
    parser.add_argument("--seed", type=_seed, metavar="N", help="the first seed (default the scenario's)")
    parser.add_argument("--oracle", action="store_true", help="plan the clairvoyant, too, and print each one's regret")
    parser.add_argument(
        "--floor", action="store_true", help="play the causal floor, too: all is known but the future; implies --oracle"
    )
    parser.add_argument(
        "--set",
        action="append",
        dest="settings",
        metavar="KEY=VALUE",
        help="another value than the file's, such as limits.temp_c=70; may be repeated",
    )
    parser.add_argument("--trace", type=_path, metavar="FILE", help="a trace (CSV) to play in place of the scenario's")
    parser.add_argument("--log", type=_path, metavar="DIR", help="write a CSV for each policy and seed, a row a second")
    parser.add_argument(
        "--plot", type=_path, metavar="FILE", help="draw the timelines on one self-contained page (HTML)"
    )
    parser.add_argument("--jobs", type=_count, metavar="N", help="processes at once (default one for each processor)")


def _configure_fleet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--devices", type=_devices, default=200, metavar="N", help="how many to play, at most 20000 (default 200)"
    )
    parser.add_argument("--hub", metavar="URL", help="of the hub's HTTP API; else what its data directory says")
    parser.add_argument(
        "--hub-ca",
        metavar="FILE",
        help="the authority (PEM) of the certificate it shows at https://, if neither the system's nor the directory's",
    )
    parser.add_argument(
        "--data", type=a_path, metavar="DIR", default="hub", help="the hub's data directory (default ./hub)"
    )
    parser.add_argument(
        "--duration", type=_amount, metavar="S", help="play for so long, once all are started (default until Ctrl-C)"
    )
    parser.add_argument(
        "--every", type=_amount, default=10.0, metavar="S", help="between two reports of a device (default 10)"
    )
    parser.add_argument(
        "--churn", type=_share, default=0.0, metavar="SHARE", help="of the devices drop and return each minute"
    )
    parser.add_argument(
        "--slow", type=_share, default=0.0, metavar="SHARE", help="of the devices have a slow link, 0.2 to 2 s"
    )
    parser.add_argument("--tenant", default="sim", metavar="NAME", help="whose devices they are (default sim)")
    parser.add_argument("--seed", type=_seed, default=1, metavar="N", help="of everything random (default 1)")


def _devices(text: str) -> int:
    return _whole(text, 1, 20_000)


def _share(text: str) -> float:
    return _number(text, 0.0, 1.0)


def _amount(text: str) -> float:
    return _number(text, 1.0, 30 * 86_400.0)


def _number(text: str, least: float, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = least - 1
    if not least <= value <= most:  # NaN fails too
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no number from {least:g} to {most:g}")
    return value


def _path(text: str) -> Path:
    return Path(a_path(text))


def _count(text: str) -> int:
    return _whole(text, 1, 10_000)


def _seed(text: str) -> int:
    return _whole(text, 0, 2**31)


def _whole(text: str, least: int, most: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no whole number from {least} to {most}")
    return value


def _seconds(text: str) -> float:
    return _number(text, _SHORTEST_S, _LONGEST_S)


COMMANDS: tuple[Command, ...] = (
    Command(
        path=("demo",),
        summary="the whole story on this machine: convert, switch as conditions change, steer over MQTT",
        configure=_configure,
        run=_demo,
    ),
    Command(
        path=("simulate",),
        summary="policies on a simulated board, against a clairvoyant",
        configure=_configure_simulate,
        run=Later("edge_lab.simulate.command", "run"),
    ),
    Command(
        path=("hub", "simulate"),
        summary="a fleet of played devices that reports to a hub, for demonstrations and load tests",
        configure=_configure_fleet,
        run=Later("edge_lab.fleet.command", "run"),
    ),
)
