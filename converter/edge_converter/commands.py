"""What this package contributes to the program `edge`. What it does is imported when it runs."""

from __future__ import annotations

import argparse
import math
import re

from edge_sdk.cli.command import Command

# In the words of `edge_sdk.manifest.Precision`; fp32 is always made, as the reference.
_PRECISIONS = ("fp32", "fp16", "dynamic", "int8", "int16x8", "weight8", "weight4", "mixed")
_MOST_SPARSE = 0.95
_LEAST_SPEEDUP, _MOST_SPEEDUP = 1.05, 16.0
_FEWEST_CLUSTERS, _MOST_CLUSTERS = 3, 253
_MOST_THREADS = 256
_BYTES = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(B|kB|KB|MB|GB|KiB|MiB|GiB|)\Z")
_UNITS = {"": 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_RESIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})\Z")


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help=".keras, .h5 or .tflite file, or SavedModel directory; several of the same signature make a family",
    )
    data = parser.add_argument_group("data", "an .npz file with x and y, or a folder of images with labels.csv")
    data.add_argument("--data", required=True, metavar="PATH", help="labelled samples that the variants are judged on")
    data.add_argument("--calibration", metavar="PATH", help="samples for activation ranges; else a part of --data")
    data.add_argument("--train", metavar="PATH", help="samples to fine-tune models on; else --calibration")
    data.add_argument("--resize", type=_size, metavar="HxW", help="bring images to this size; else to the model's")
    data.add_argument(
        "--fit",
        choices=("cover", "stretch"),
        default="cover",
        help="of other proportions keep the centre (cover, default), or all, distorted (stretch)",
    )
    data.add_argument("--crop", type=_size, metavar="HxW", help="then keep the centre of this size")
    data.add_argument("--mean", type=_numbers, default=(0.0,), metavar="M[,M...]", help="subtracted from each value")
    data.add_argument("--std", type=_numbers, default=(1.0,), metavar="S[,S...]", help="then divided by")

    wanted = parser.add_argument_group("what to make")
    wanted.add_argument("-o", "--output", required=True, metavar="BUNDLE", help="directory, such as digits-1.edge")
    wanted.add_argument(
        "--profile",
        action="append",
        default=[],
        dest="profiles",
        metavar="ID",
        help="a board to choose variants for, such as rpi4; may be repeated, 'edge profiles list' names them all",
    )
    wanted.add_argument("--name", help="of the model; else from BUNDLE (digits-1.edge is digits, version 1)")
    wanted.add_argument("--version", help="of the model; else from BUNDLE")
    wanted.add_argument(
        "--max-drop",
        type=_points,
        default=2.0,
        metavar="POINTS",
        help="refuse variants that lose more accuracy than this against their own float file (default 2)",
    )
    wanted.add_argument(
        "--max-size",
        type=_bytes,
        metavar="SIZE",
        help="refuse variants whose file is larger, such as 3.4MB, and search weights in 4 and 8 bits that fit",
    )
    wanted.add_argument(
        "--precision",
        action="append",
        choices=_PRECISIONS,
        dest="precisions",
        help="number format to make; may be repeated (default all, mixed only with --max-size; fp32 is always made)",
    )
    wanted.add_argument(
        "--prune",
        type=_share,
        default=0.5,
        metavar="SHARE",
        help="share of weights to remove from .keras and .h5 models, 0 for none (default 0.5)",
    )
    wanted.add_argument(
        "--slim",
        type=_speedup,
        default=0.0,
        metavar="SPEEDUP",
        help="remove channels of .keras and .h5 models until they are so many times as fast, such as 1.6; 0 for none",
    )
    wanted.add_argument("--qat", action="store_true", help="fine-tune .keras and .h5 models for int8")
    wanted.add_argument(
        "--clusters",
        type=_clusters,
        default=49,
        metavar="N",
        help="distinct weights a channel in the twin of int8 that travels lighter, odd, 0 for none (default 49)",
    )

    how = parser.add_argument_group("how")
    how.add_argument("--threads", type=_threads, default=1, metavar="N", help="for calibration and timing (default 1)")
    how.add_argument("--seed", type=_seed, default=0, metavar="N", help="for everything random (default 0)")
    how.add_argument(
        "--keras-deadline",
        type=_seconds,
        default=1800.0,
        metavar="S",
        help="most one conversion or fine-tuning may take in TensorFlow (default 1800)",
    )


def _convert(args: argparse.Namespace) -> int:
    from edge_converter import cli

    return cli.run(args)


def _size(text: str) -> tuple[int, int]:
    found = _RESIZE.match(text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no HxW, such as 224x224")
    return int(found[1]), int(found[2])


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(_number(part, -math.inf, math.inf) for part in text.split(","))


def _bytes(text: str) -> int:
    found = _BYTES.match(text)
    if not found or float(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no size, such as 3.4MB, 500kB or 64KiB")
    return int(float(found[1]) * _UNITS[found[2]])


def _points(text: str) -> float:
    return _number(text, 0, 100)


def _share(text: str) -> float:
    return _number(text, 0, _MOST_SPARSE)


def _speedup(text: str) -> float:
    value = _number(text, 0, _MOST_SPEEDUP)
    if value and value < _LEAST_SPEEDUP:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not 0 or from {_LEAST_SPEEDUP:g} to {_MOST_SPEEDUP:g}")
    return value


def _seconds(text: str) -> float:
    return _number(text, 1, 1e6)


def _clusters(text: str) -> int:
    value = _whole(text, 0, _MOST_CLUSTERS)
    if value and (value % 2 == 0 or value < _FEWEST_CLUSTERS):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not 0 or odd from {_FEWEST_CLUSTERS} to {_MOST_CLUSTERS}")
    return value


def _threads(text: str) -> int:
    return _whole(text, 1, _MOST_THREADS)


def _seed(text: str) -> int:
    return _whole(text, 0, 2**31 - 1)


def _number(text: str, least: float, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (least <= value <= most and math.isfinite(value)):
        within = f" from {least:g} to {most:g}" if math.isfinite(most) else ""
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no number{within}")
    return value


def _whole(text: str, least: int, most: int) -> int:
    value = _number(text, least, most)
    if value != int(value):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no whole number")
    return int(value)


COMMANDS: tuple[Command, ...] = (
    Command(
        path=("convert",),
        summary="turn trained models and labelled data into a bundle of measured variants",
        configure=_configure,
        run=_convert,
    ),
)
