"""How fast the variants of a bundle are on this machine: each on the CPU, beside the bare runtime, and on delegates.

What is timed is planned first (`cases`), then loaded (`loading`), then timed in turns with all others (`timing`), so
that a busy moment of the machine falls on all alike. `edge bench` prints it.
"""

from edge_sdk.bench.result import Benched
from edge_sdk.bench.run import bench

__all__ = ["Benched", "bench"]
