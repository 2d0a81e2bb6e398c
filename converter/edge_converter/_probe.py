"""Run in a child process: load each `.tflite` file named and run it once on zeros.

Prints the path of each file that passed; for the first that fails, `path TAB reason`, and exits with 1.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from edge_sdk.engine import Engine
from edge_sdk.errors import EdgeError


def main(paths: Sequence[str]) -> int:
    """Probe the files; returns the exit status."""
    import numpy as np

    for path in paths:
        try:
            with Engine(path, threads=1) as engine:
                zeros = [
                    np.zeros([max(1, size) for size in spec.shape], np.dtype(spec.dtype)) for spec in engine.inputs
                ]
                engine.run(zeros)
        except (EdgeError, ValueError, RuntimeError) as error:
            what = error.what if isinstance(error, EdgeError) else (str(error).strip().splitlines() or ["?"])[0]
            sys.stdout.write(f"{path}\t{what}\n")
            return 1
        sys.stdout.write(f"{path}\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
