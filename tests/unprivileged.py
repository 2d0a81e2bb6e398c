"""Tests of what a user may not do, that hold where root runs them, too: root gets past every mode bit.

A test prepares its files in `reachable()` (pytest's own folders are closed to other users), and looks at them in
`unprivileged()`. Both change nothing where the tests run as another user.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_NOBODY = 65534


@contextlib.contextmanager
def reachable() -> Iterator[Path]:
    """A directory that everybody may enter and list, and that is removed at the end."""
    place = Path(tempfile.mkdtemp(prefix="edge-test-"))
    place.chmod(0o755)
    try:
        yield place
    finally:
        shutil.rmtree(place)


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """The process may do only what anybody may; what is imported in it should have been imported before."""
    if os.geteuid() != 0:
        yield
        return
    os.setresuid(_NOBODY, _NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
