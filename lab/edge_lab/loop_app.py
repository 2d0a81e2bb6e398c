"""The real loop's app: calls its model at a fixed rate with a batch, and says at its end what became of the calls.

    python -m edge_lab.loop_app --model digits --socket PATH --rate 10 --batch 64

SIGTERM ends it; then it prints one JSON object.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections import Counter
from types import FrameType

from edge_sdk.errors import EdgeError
from edge_sdk.wire import encode


def main() -> int:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="the daemon's name for it")
    parser.add_argument("--socket", required=True, help="of the daemon")
    parser.add_argument("--rate", type=float, required=True, help="calls a second")
    parser.add_argument("--batch", type=int, required=True, help="samples of a call")
    args = parser.parse_args()
    stopped = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    import numpy as np

    from edge_sdk.model import EdgeModel

    calls: Counter[str] = Counter()
    failed = late = 0
    with EdgeModel(args.model, socket=args.socket, name="real loop") as model:
        batch = np.zeros((args.batch, *(abs(size) for size in model.inputs[0].shape[1:])), np.float32)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        due_s = time.monotonic()
        while not stopped:
            try:
                model(batch)
                calls[model.active] += 1
            except EdgeError:
                failed += 1
            due_s += 1 / args.rate
            left_s = due_s - time.monotonic()
            if left_s < 0:  # it does not keep up: the call that would begin now was due before
                late += 1
                due_s -= left_s
            elif not stopped:
                time.sleep(left_s)
    sys.stdout.buffer.write(encode({"calls": calls, "failed": failed, "behind": late}) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
