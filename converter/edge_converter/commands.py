"""What this package contributes to the program `edge`. What it does is imported when it runs."""

from __future__ import annotations

import argparse
import math
import re

from edge_sdk.cli.command import Command, Later, a_path

# In the words of `edge_sdk.manifest.Precision`; fp32 is always made, as the reference.
_PRECISIONS = ("fp32", "fp16", "dynamic", "int8", "int16x8", "weight8", "weight4", "mixed")
_OBJECTIVES = ("accuracy", "latency", "size", "transfer", "energy")
# In the words of `edge_converter.metrics.METRICS`.
_METRICS = ("accuracy", "top5", "recall", "r2", "mae-skill", "map", "miou", "cosine", "verification")
_RATES = (1000, 768_000)
_MOST_SPARSE = 0.95
_LEAST_SPEEDUP, _MOST_SPEEDUP = 1.05, 16.0
_MOST_THREADS = 256
_MOST_SEGMENTS = 64
_SLOWEST_LINK = 1e-3  # MB/s
_HIGHEST_LEVEL = 10_000_000
_LARGEST_SIZE, _MOST_DIMENSIONS = 2**20, 8
_BYTES = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(B|kB|KB|MB|GB|KiB|MiB|GiB|)\Z")
_UNITS = {"": 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_RESIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})\Z")


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models",
        nargs="+",
        type=a_path,
        metavar="MODEL",
        help=".keras, .h5, .tflite, .pt2 or .onnx file, SavedModel directory, or torch:MODULE:FUNCTION; several of the "
        "same inputs and outputs make a family",
    )
    parser.add_argument("--signature", metavar="NAME", help="of a SavedModel or .tflite that has several")
    parser.add_argument(
        "--input-shape",
        action="append",
        type=_shape,
        default=[],
        dest="input_shapes",
        metavar="N[,N...]",
        help="fix an input's sizes, such as 1,224,224,3, where more than the batch is free; once for each input",
    )
    parser.add_argument(
        "--onnx-python",
        type=a_path,
        metavar="PATH",
        help="a Python that has onnx2tf; else an environment is made for it, once",
    )
    data = parser.add_argument_group(
        "data", "an .npz file with x and y, a folder of images or .wav files with labels.csv, or module:function"
    )
    data.add_argument(
        "--data", type=a_path, required=True, metavar="PATH", help="labelled samples that the variants are judged on"
    )
    data.add_argument(
        "--calibration", type=a_path, metavar="PATH", help="samples for activation ranges; else a part of --data"
    )
    data.add_argument("--train", type=a_path, metavar="PATH", help="samples to fine-tune models on; else --calibration")
    data.add_argument("--rate", type=_rate, metavar="HZ", help="sample rate of the .wav files; else that of the first")
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
    wanted.add_argument(
        "-o", "--output", type=a_path, required=True, metavar="BUNDLE", help="directory, such as digits-1.edge"
    )
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
        "--bound",
        choices=("point", "interval"),
        default="point",
        help="of the drop compare what was measured (point, default) or the upper end of its 95 %% interval",
    )
    wanted.add_argument(
        "--metric",
        metavar="NAME",
        help=f"what variants are worth: {', '.join(_METRICS)} or module:function (default by the labels)",
    )
    wanted.add_argument(
        "--max-size",
        type=_bytes,
        metavar="SIZE",
        help="refuse variants whose file is larger, such as 3.4MB, and search weights in 4 and 8 bits that fit",
    )
    wanted.add_argument(
        "--max-latency",
        type=_millis,
        metavar="MS",
        help="leave variants that surely take longer than this on a board out of what is recommended there",
    )
    wanted.add_argument(
        "--objective",
        choices=_OBJECTIVES,
        help="what the variants recommended for a board are ordered by (default accuracy)",
    )
    wanted.add_argument(
        "--evidence",
        action="append",
        type=a_path,
        default=[],
        metavar="FILE",
        help="evidence.json of a bundle that 'edge bench --write' ran on a device: it decides for such boards; "
        "may be repeated",
    )
    wanted.add_argument(
        "--precision",
        action="append",
        choices=_PRECISIONS,
        default=[],
        dest="precisions",
        help="make only this number format of the recipe; may be repeated (mixed only with --max-size)",
    )
    wanted.add_argument(
        "--prune",
        type=_share,
        default=0.5,
        metavar="SHARE",
        help="share of weights to remove from .keras and .h5 models, 0 for none (default 0.5)",
    )
    wanted.add_argument(
        "--recipe",
        type=a_path,
        metavar="NAME|FILE",
        help="how variants are made: a .toml file, or a name such as default; else the recipes of the profiles",
    )
    wanted.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="VARIANT.PASS.OPTION=VALUE",
        help="change an option of a pass in the recipe, such as int8.calibrate.method=mse; may be repeated",
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
        "--train-steps",
        type=_steps,
        default=0,
        metavar="N",
        help="learn from so many batches of 64 samples; 0 (the default) for as many as the samples ask for",
    )

    how = parser.add_argument_group("how")
    how.add_argument("--threads", type=_threads, default=1, metavar="N", help="for calibration and timing (default 1)")
    how.add_argument("--seed", type=_seed, default=0, metavar="N", help="for everything random (default 0)")
    how.add_argument(
        "--cache", type=a_path, metavar="DIR", help="where results are kept and found again (default the user's cache)"
    )
    how.add_argument("--dry-run", action="store_true", help="say what would be made, and about how long that takes")
    how.add_argument(
        "--resume", action="store_true", help="go on with a conversion that was killed, and say how much of it is known"
    )
    how.add_argument("--no-cache", action="store_true", help="compute everything anew and keep nothing")
    how.add_argument(
        "--variant-deadline",
        type=_seconds,
        default=3600.0,
        metavar="S",
        help="most that making one variant of a large model may take (default 3600)",
    )
    how.add_argument(
        "--keras-deadline",
        type=_seconds,
        default=1800.0,
        metavar="S",
        help="most one conversion or fine-tuning may take in TensorFlow, PyTorch or onnx2tf (default 1800)",
    )
    how.add_argument(
        "--compiler-deadline",
        type=_seconds,
        default=600.0,
        metavar="S",
        help="most an accelerator's compiler may take for one file (default 600)",
    )


def _configure_coverage(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=a_path, metavar="MODEL_OR_BUNDLE", help=".tflite file, or a bundle's directory")
    parser.add_argument(
        "--delegate",
        action="append",
        default=[],
        dest="delegates",
        metavar="D",
        help="only this one, such as edgetpu, ethos-u65, teflon or nnapi; may be repeated (default all there are)",
    )
    parser.add_argument(
        "--profile",
        action="append",
        default=[],
        dest="profiles",
        metavar="ID",
        help="only what this board has, such as imx93; may be repeated",
    )
    parser.add_argument("--api", type=_level, metavar="N", help="Android's API level, for nnapi (default 30)")


def _configure_compile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=a_path, metavar="BUNDLE", help="directory with manifest.json")
    parser.add_argument(
        "-o", "--output", type=a_path, metavar="BUNDLE", help="write it there; else it is replaced, whole"
    )
    parser.add_argument(
        "--compiler-deadline",
        type=_seconds,
        default=600.0,
        metavar="S",
        help="most a compiler may take for one file (default 600)",
    )


def _configure_split(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=a_path, metavar="MODEL", help="a bundle, or a .tflite file")
    parser.add_argument("--variant", metavar="ID", help="of the bundle; 'edge inspect' names them")
    where = parser.add_argument_group("where to cut")
    where.add_argument(
        "--parts", type=_parts, metavar="N", help="cut it into N segments, the slowest as fast as can be"
    )
    where.add_argument(
        "--at",
        type=_operators,
        default=(),
        metavar="OP[,OP...]",
        help="cut it before these operators, as --list counts",
    )
    where.add_argument(
        "--link", type=_link, metavar="MB/S", help="count what is handed on at this many 10^6 bytes a second; else free"
    )
    where.add_argument(
        "--profile", metavar="ID", help="go by the times predicted for this board; else they are measured here"
    )
    where.add_argument(
        "--list", "--dry-run", action="store_true", dest="dry_run", help="print all places to cut, and write nothing"
    )
    how = parser.add_argument_group("how")
    how.add_argument("-o", "--output", type=a_path, metavar="DIR", help="directory for the segments and split.json")
    how.add_argument(
        "--data", type=a_path, metavar="PATH", help="verify on these samples as well as on noise: .npz, or images"
    )
    how.add_argument("--threads", type=_threads, default=1, metavar="N", help="of each segment (default 1)")
    how.add_argument("--seed", type=_seed, default=0, metavar="N", help="of the noise (default 0)")


def _size(text: str) -> tuple[int, int]:
    found = _RESIZE.match(text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no HxW, such as 224x224")
    return int(found[1]), int(found[2])


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(_number(part, -math.inf, math.inf) for part in text.split(","))


def _shape(text: str) -> tuple[int, ...]:
    sizes = tuple(_whole(part, 1, _LARGEST_SIZE) for part in text.split(","))
    if len(sizes) > _MOST_DIMENSIONS:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} has more than {_MOST_DIMENSIONS} sizes")
    return sizes


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


def _parts(text: str) -> int:
    return _whole(text, 2, _MOST_SEGMENTS)


def _operators(text: str) -> tuple[int, ...]:
    return tuple(_whole(part, 0, 2**31 - 1) for part in text.split(","))


def _link(text: str) -> float:
    return _number(text, _SLOWEST_LINK, 1e5)


def _millis(text: str) -> float:
    value = _number(text, 0, 1e6)
    if value == 0:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no time: nothing takes 0 ms")
    return value


def _threads(text: str) -> int:
    return _whole(text, 1, _MOST_THREADS)


def _rate(text: str) -> int:
    return _whole(text, *_RATES)


def _level(text: str) -> int:
    return _whole(text, 1, _HIGHEST_LEVEL)


def _steps(text: str) -> int:
    return _whole(text, 0, 1_000_000)


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


def _configure_choose(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", type=a_path, metavar="MODEL", help="a bundle, or a .tflite file that was not converted yet"
    )
    limits = parser.add_argument_group("limits", "a board that surely breaks one is ruled out")
    limits.add_argument("--max-latency", type=_millis, metavar="MS", help="of one inference")
    limits.add_argument("--max-power", type=_amount, metavar="W", help="of the busy board")
    limits.add_argument("--budget", type=_amount, metavar="USD", help="for one board")
    limits.add_argument("--rate", type=_amount, metavar="N", help="inferences a second, sustained for ever")
    limits.add_argument(
        "--ambient", type=_celsius, default=25.0, metavar="C", help="temperature of the air around it (default 25)"
    )
    limits.add_argument("--link", type=_amount, metavar="MBPS", help="speed of its network, in Mbit/s")
    limits.add_argument("--max-transfer", type=_amount, metavar="S", help="for the recommended variants over the link")
    limits.add_argument(
        "--min-memory", type=_megabytes, default=0, metavar="MB", help="to be left for everything else (default 0)"
    )
    limits.add_argument("--offline", action="store_true", help="there is no network: variants are carried to the board")
    shown = parser.add_argument_group("what to show")
    shown.add_argument(
        "--by",
        choices=("price", "latency", "power", "energy"),
        default="price",
        help="order of the boards that are left, the least first (default price)",
    )
    shown.add_argument(
        "--profile", action="append", default=[], dest="profiles", metavar="ID", help="only this board; may be repeated"
    )


def _amount(text: str) -> float:
    value = _number(text, 0, 1e9)
    if value == 0:
        raise argparse.ArgumentTypeError(f"{text[:40]!r}: it must be more than 0")
    return value


def _megabytes(text: str) -> int:
    return _whole(text, 0, 10**7)


def _celsius(text: str) -> float:
    return _number(text, -60, 100)


COMMANDS: tuple[Command, ...] = (
    Command(
        path=("profiles", "choose"),
        summary="which hardware for a model: boards ranked by latency, memory, transfer, power, heat and price",
        configure=_configure_choose,
        run=Later("edge_converter.selecting.choose_cli", "run"),
    ),
    Command(
        path=("convert",),
        summary="turn trained models and labelled data into a bundle of measured variants",
        configure=_configure,
        run=Later("edge_converter.cli", "run"),
    ),
    Command(
        path=("split",),
        summary="cut a variant into segments for a pipeline, bit-identical to the whole",
        configure=_configure_split,
        run=Later("edge_converter.splitting.split_cli", "run"),
    ),
    Command(
        path=("coverage",),
        summary="say which operators of a model accelerators take, and why the rest stays on the CPU",
        configure=_configure_coverage,
        run=Later("edge_converter.targets.cli", "run_coverage"),
    ),
    Command(
        path=("compile",),
        summary="finish a bundle where an accelerator's compiler is that was missing where it was made",
        configure=_configure_compile,
        run=Later("edge_converter.targets.cli", "run_compile"),
    ),
)
