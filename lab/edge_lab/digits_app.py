"""The demonstration's app: classifies the held-out digits over and over through `EdgeModel`, as any app would.

    python -m edge_lab.digits_app --model digits --socket PATH --data digits_test.npz --rate 20

A process of its own, so that what it measures is an app and not a thread of the demonstration. It prints one JSON
object a line: `{"ready": true}` once, then an `Answer` for each call. SIGTERM ends it after the call at hand.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from edge_sdk.errors import EdgeError
from edge_sdk.wire import Millis, Name, Text, Unix, Wire, encode

MAX_LINE_BYTES = 4096


class Answer(Wire, frozen=True, kw_only=True):
    """One call and what came of it.

    Attributes:
        at: When it ended.
        ms: How long it took; None where it failed.
        variant: What answered; None where it failed.
        right: The label was the right one.
        failure: Why there is no answer.
    """

    at: Unix
    ms: Millis | None = None
    variant: Name | None = None
    right: bool = False
    failure: Text | None = None


class Ready(Wire, frozen=True, kw_only=True):
    """The model is loaded, calls begin."""

    ready: bool


def main() -> int:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="the daemon's name for it")
    parser.add_argument("--socket", required=True, help="of the daemon")
    parser.add_argument("--data", type=Path, required=True, help="an .npz file with x [n, h, w, c] and y [n]")
    parser.add_argument("--rate", type=float, default=20.0, help="calls a second at most")
    args = parser.parse_args()
    stopped = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        _classify(args.model, args.socket, args.data, 1.0 / args.rate, lambda: stopped)
    except BrokenPipeError:  # nobody listens any more
        return 1
    except EdgeError as error:
        sys.stderr.write(f"digits: {error} [{error.code}]\n")
        return 1
    return 0


def _classify(name: str, socket: str, data: Path, period_s: float, stopped: Callable[[], bool]) -> None:
    import numpy as np

    from edge_sdk.model import EdgeModel

    with np.load(data) as held_out:
        images, labels = held_out["x"], held_out["y"]
    with EdgeModel(name, socket=socket, name="edge demo") as model:
        model(images[:1])
        _print(Ready(ready=True))
        count = 0
        due_s = time.monotonic()
        while not stopped():
            sample = count % len(labels)
            count += 1
            begun_s = time.perf_counter()
            try:
                scores = np.asarray(model(images[sample : sample + 1]))
                ms = (time.perf_counter() - begun_s) * 1000
                right = int(scores.argmax()) == int(labels[sample])
                _print(Answer(at=time.time(), ms=ms, variant=model.active, right=right))
            except EdgeError as error:
                _print(Answer(at=time.time(), failure=str(error)[:1000]))
            # Late calls are not made up for: the rate is a bound, not a promise.
            due_s = max(due_s + period_s, time.monotonic())
            while (left_s := due_s - time.monotonic()) > 0 and not stopped():
                time.sleep(left_s)


def _print(line: Answer | Ready) -> None:
    sys.stdout.buffer.write(encode(line) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
