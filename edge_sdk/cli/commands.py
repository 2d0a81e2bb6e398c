"""The commands of the SDK itself: their names and arguments. What they do is imported when one of them runs."""

from __future__ import annotations

import argparse
import math
import re

from edge_sdk.cli.command import Command, Later, a_path

_MOST_COUNTS = 16
_MOST_THREADS = 256  # a runtime starts as many as it is told, and a machine can be brought down so
_LONGEST_QUEUE = 10_000


def _takes_bundle(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "bundle", type=a_path, metavar="BUNDLE", help="a directory such as digits-1.edge, or a .edgebundle file"
    )


def _takes_delegates(parser: argparse.ArgumentParser, purpose: str) -> None:
    parser.add_argument(
        "--delegate",
        action="append",
        dest="delegates",
        type=a_path,
        metavar="NAME",
        help=f"{purpose}: such as edgetpu:usb:0, or the path of a library; ,option=value gives it options; "
        "may be repeated",
    )


def _configure_inspect(parser: argparse.ArgumentParser) -> None:
    _takes_bundle(parser)
    parser.add_argument(
        "other", nargs="?", type=a_path, metavar="OTHER", help="another one: say what changed from the first to it"
    )


def _inspect(args: argparse.Namespace) -> int:
    from edge_sdk.cli import compare, inspect

    return inspect.run(args) if args.other is None else compare.run(args)


def _takes_nothing(_: argparse.ArgumentParser) -> None:
    """The command has no arguments of its own."""


def _takes_profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="such as rpi4; 'edge profiles list' names them all")


def _configure_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "bundle", type=a_path, metavar="BUNDLE", help="a directory, or the name of a model that a daemon serves"
    )
    parser.add_argument(
        "--data", required=True, type=a_path, metavar="FILE", help="an .npz file with x and, for the accuracy, y"
    )
    parser.add_argument("--variant", metavar="ID", help="run this one and no other")
    parser.add_argument("--limit", type=_positive, metavar="N", help="the first N samples only")
    parser.add_argument("--threads", type=_threads, default=1, metavar="N", help="for one inference (default 1)")


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(2**31)) and 0 < int(text) <= 2**31):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 up")
    return int(text)


def _threads(text: str) -> int:
    value = _positive(text)
    if value > _MOST_THREADS:
        raise argparse.ArgumentTypeError(f"{value} threads are more than {_MOST_THREADS}")
    return value


def _configure_bench(parser: argparse.ArgumentParser) -> None:
    _takes_bundle(parser)
    parser.add_argument(
        "--variant", action="append", dest="variants", metavar="ID", help="only this one; may be repeated"
    )
    parser.add_argument(
        "--threads",
        type=_counts,
        default=(1,),
        metavar="N",
        help="for one inference (default 1); several as 1,2,4, or sweep for the powers of two up to the cores: "
        "the best is named",
    )
    _takes_delegates(parser, "time the variants on this one too, in a process of its own")
    parser.add_argument("--no-raw", action="store_true", help="leave out the runtime's bare interpreter")
    parser.add_argument("--seconds", type=_seconds, default=1.5, metavar="S", help="for each row (default 1.5)")
    parser.add_argument(
        "--write", action="store_true", help="into the bundle's evidence.json, for daemon and converter"
    )
    parser.add_argument("--profile", metavar="ID", help="the board this is, where its device tree does not tell")


def _counts(text: str) -> tuple[int, ...]:
    """Numbers of threads, none for a sweep."""
    if text == "sweep":
        return ()
    counts = tuple(dict.fromkeys(_threads(part) for part in text.split(",")))
    if len(counts) > _MOST_COUNTS:
        raise argparse.ArgumentTypeError(f"{len(counts)} numbers are more than {_MOST_COUNTS}")
    return counts


def _decimal(text: str, least: float, most: float, unit: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most:  # NaN fails as well
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no number of {unit} from {least:g} to {most:g}")
    return value


def _seconds(text: str) -> float:
    return _decimal(text, 0.01, 3600, "seconds")


def _configure_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--deep", action="store_true", help="try each accelerator, in a process of its own")
    parser.add_argument(
        "--again", action="store_true", help="forget what was found out about accelerators, and try them anew"
    )
    parser.add_argument("--model", type=a_path, metavar="FILE", help="try them on this .tflite file or bundle")
    _takes_delegates(parser, "look for this one too, and try it")


def _configure_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        type=a_path,
        metavar="MODEL",
        help="a bundle, the name of a model that a daemon serves, a .tflite file, or what 'edge split' wrote",
    )
    parser.add_argument(
        "--segment", type=_positive, metavar="N", help="of a split model: this one, its tensors as stored"
    )
    parser.add_argument("--stored", action="store_true", help="of a .tflite file: tensors as the file stores them")
    parser.add_argument("--variant", metavar="ID", help="of a bundle: this one and no other")
    parser.add_argument("--threads", type=_threads, default=1, metavar="N", help="for one inference (default 1)")
    parser.add_argument(
        "--delegate",
        type=a_path,
        metavar="NAME",
        help="who computes (default: for a bundle the accelerators found here, for a file the CPU)",
    )
    parser.add_argument("--name", type=_model_name, metavar="NAME", help="in the address; else the model's own")
    parser.add_argument("--host", default="127.0.0.1", help="to listen at (default 127.0.0.1)")
    parser.add_argument("--port", type=_port, default=8080, metavar="N", help="0 takes a free one (default 8080)")
    parser.add_argument("--grpc-port", type=_port, metavar="N", help="serve gRPC at this port, too; 0 takes any")
    parser.add_argument("--token-file", type=a_path, metavar="FILE", help="who asks must have the token in it")
    parser.add_argument("--insecure-listen", action="store_true", help="listen beyond this machine without a token")
    parser.add_argument(
        "--queue", type=_queue, default=16, metavar="N", help="requests that are in it at once (default 16)"
    )
    parser.add_argument("--max-body-mb", type=_megabytes, default=64.0, metavar="MB", help="of a request (default 64)")


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len("65535") and int(text) <= 65535):  # noqa: PLR2004
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no port from 0 to 65535")
    return int(text)


def _queue(text: str) -> int:
    value = _positive(text)
    if value > _LONGEST_QUEUE:
        raise argparse.ArgumentTypeError(f"{value} requests are more than {_LONGEST_QUEUE}")
    return value


def _megabytes(text: str) -> float:
    return _decimal(text, 0.001, 2000, "megabytes")


def _model_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", text):
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is no name of letters, digits, '.', '_' and '-'")
    return text


COMMANDS: tuple[Command, ...] = (
    Command(
        path=("bench",),
        summary="how fast the variants of a bundle are on this machine, and what memory they take",
        configure=_configure_bench,
        run=Later("edge_sdk.cli.bench", "run"),
    ),
    Command(
        path=("doctor",),
        summary="what this board has, what works, what does not, and what mends it",
        configure=_configure_doctor,
        run=Later("edge_sdk.cli.doctor", "run"),
    ),
    Command(
        path=("inspect",),
        summary="what is in a bundle: its variants, what they are worth and how fast they are; or what two differ in",
        configure=_configure_inspect,
        run=_inspect,
    ),
    Command(
        path=("run",),
        summary="labelled data through a bundle, as an app would run it",
        configure=_configure_run,
        run=Later("edge_sdk.cli.run", "run"),
    ),
    Command(
        path=("serve",),
        summary="a model of this machine for others, over the Open Inference Protocol v2, until it is told to end",
        configure=_configure_serve,
        run=Later("edge_sdk.cli.serve", "run"),
    ),
    Command(
        path=("profiles", "list"),
        summary="the classes of boards that are known",
        configure=_takes_nothing,
        run=Later("edge_sdk.cli.profiles", "list_all"),
    ),
    Command(
        path=("profiles", "show"),
        summary="all that is known of one, and on what it rests",
        configure=_takes_profile,
        run=Later("edge_sdk.cli.profiles", "show"),
    ),
)
