"""`edge demo` in its order: convert the digits family, put up the stage, play, tell the story.

Everything is made in a private working directory; what is to stay is copied out of it whole. Signals are noted and
acted upon at the next wait, so that whatever was begun is taken down in order.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_lab import acts, digits, outdir, page, view
from edge_lab.errors import LabError
from edge_lab.interrupts import Interrupts
from edge_lab.leashed import Leashed
from edge_lab.outcome import Outcome
from edge_lab.performance import Performance
from edge_lab.stage import EDGE, LIMIT_C, Stage, environment
from edge_sdk import atomic
from edge_sdk.bundle import Bundle
from edge_sdk.cli.output import say
from edge_sdk.errors import MissingExtraError

BUNDLE = "digits-1.edge"
PROFILES = ("rpi4", "jetson-orin-nano", "x86-64", "coral-usb")
_SOON_S = 0.5
_POLL_S = 0.05
_CONVERT_GRACE_S = 5.0
# A unix socket's path has 107 bytes at most (unix(7)); ours lies below this directory.
_LONGEST_PATH = 80
_SHOW_CURSOR = "\x1b[?25h"
_PASSING, _KEPT = "edge-demo-", "edge-kept-"
_ABANDONED_AFTER_S = 60  # the lock is taken a moment after the directory is made


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was asked for.

    Attributes:
        out: Where bundle and page are put.
        seconds: How long to play.
        keras: Convert from the `.keras` files, through TensorFlow.
        keep: Keep the working directory.
    """

    out: Path
    seconds: float = acts.LENGTH_S
    keras: bool = False
    keep: bool = False


def run(options: Options) -> Outcome:
    """The whole story; returns when all of it is taken down.

    Raises:
        UsageError: The directory to write to is not ours.
        MissingExtraError: TensorFlow was asked for and is not installed.
        LabError: A part failed.
        InterruptedRunError: A signal came.
        StorageError: Something could not be written.
    """
    begun_s = time.monotonic()
    if options.keras and importlib.util.find_spec("tensorflow") is None:
        raise MissingExtraError(
            "--keras converts through TensorFlow, which is not installed",
            hint="pip install 'adaptive-edge-sdk[keras]', or leave --keras away",
        )
    with (
        Interrupts() as interrupts,
        outdir.opened(options.out) as out,
        _workplace(keep=options.keep) as work,
    ):
        say(f"1 of 3  converting three digit classifiers for {', '.join(PROFILES)}")
        bundle = _convert(work, options, interrupts)
        published = out.put_bundle(bundle)
        interrupts.check()

        say("2 of 3  starting hub, broker, daemon and app")
        place = work / "stage"
        place.mkdir()
        held_out = digits.directory() / "digits_test.npz"
        patient = lambda: not interrupts.again  # noqa: E731 - a question asked later, not a function of its own
        with Stage(place, bundle=bundle, data=held_out, wait=interrupts.wait, patient=patient) as stage:
            status = stage.start()
            health = stage.hub.health()
            say(f"3 of 3  playing for {options.seconds:.0f} s: battery, heat and network are played, the rest is real")
            start, scenes = acts.play(status.conditions.temp_limit_c or LIMIT_C)
            with contextlib.closing(view.open_view()) as shown:
                story = Performance(
                    stage, acts.scaled(scenes, options.seconds), start, view=shown, wait=interrupts.wait
                ).run()
        made = Bundle(published)
        result = Outcome(
            bundle=published,
            report=out.path / outdir.REPORT,
            manifest=made.manifest,
            evidence=made.evidence(),
            profiles=PROFILES,
            broker=health.broker,
            story=story,
            kept=work if options.keep else None,
            seconds=time.monotonic() - begun_s,
        )
        out.put_report(page.render(result))
        return result


def _convert(work: Path, options: Options, interrupts: Interrupts) -> Path:
    """Convert the family in a process of its own, which a signal can end at any moment."""
    scratch = work / "tmp"
    scratch.mkdir()
    target = work / BUNDLE
    folder = digits.directory()
    command = [*EDGE, "convert", *map(str, digits.models(".keras" if options.keras else ".tflite"))]
    # Judged on what the family has never seen, calibrated on what it was trained on.
    command += ["--data", str(folder / "digits_test.npz"), "--calibration", str(folder / "digits_train.npz")]
    command += [word for profile in PROFILES for word in ("--profile", profile)]
    # To prune is to fine-tune: minutes of training that `edge convert` is for.
    command += ["--recipe", "quick", "--prune", "0", "--no-cache", "-o", str(target)]
    # In a session of its own it cannot ask the terminal how wide it is.
    env = environment(scratch) | {"COLUMNS": str(shutil.get_terminal_size().columns)}
    converting = Leashed("conversion", command, log=work / "convert.log", env=env, cwd=scratch, shown=True)
    try:
        while converting.status is None:
            interrupts.wait(_POLL_S)
        status = converting.status
        if status < 0:
            interrupts.wait(_SOON_S)  # the signal that ended it may be on its way to us, too
    finally:
        converting.stop(grace_s=_CONVERT_GRACE_S, patient=lambda: not interrupts.again)
        if sys.stderr.isatty():
            sys.stderr.write(_SHOW_CURSOR)  # a progress bar that was killed has hidden it
    if status != 0:
        raise LabError(f"the conversion ended with status {status}", hint="its own words are above")
    return target


@contextlib.contextmanager
def _workplace(*, keep: bool) -> Iterator[Path]:
    """A private directory whose path is short; removed at the end unless it is to be kept."""
    usual = tempfile.gettempdir()
    parent = Path(usual if len(os.fsencode(usual)) <= _LONGEST_PATH else "/tmp")  # noqa: S108 - mkdtemp makes it ours alone
    _sweep(parent)
    with atomic.storage_errors(parent):
        work = Path(tempfile.mkdtemp(prefix=_KEPT if keep else _PASSING, dir=parent))
    in_use = os.open(work, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(in_use, fcntl.LOCK_EX)  # until we end, however we do
        yield work
    finally:
        os.close(in_use)
        if not keep:
            shutil.rmtree(work, ignore_errors=True)


def _sweep(parent: Path) -> None:
    """Remove what demonstrations have left that were killed with SIGKILL: nobody holds the lock any more."""
    for old in parent.glob(f"{_PASSING}*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(old, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                found = os.fstat(descriptor)
                if found.st_uid == os.getuid() and time.time() - found.st_mtime > _ABANDONED_AFTER_S:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(old, ignore_errors=True)
            finally:
                os.close(descriptor)
