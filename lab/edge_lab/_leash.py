"""Runs a command that ends with its parent, even when the parent is killed with SIGKILL.

    python -I -S _leash.py PARENT_PID PROGRAM [ARGUMENT...]

The kernel is asked for SIGTERM on the parent's death (PR_SET_PDEATHSIG, prctl(2)); the wish outlives execve(2). A
program of its own because `preexec_fn` is unsafe in a process with threads. The "parent" is the thread that started the
child: start leashed processes from a thread that lives as long as they may.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Put on the leash and become the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel was asked
        sys.exit(1)
    try:
        os.execvp(command[0], command)  # noqa: S606 - an argument list, and to become it is the point
    except OSError as cause:
        sys.exit(f"{command[0]}: {cause.strerror}")


if __name__ == "__main__":
    main()
