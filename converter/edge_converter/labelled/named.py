"""What a user names as `module:function`: imported from where the program runs, its errors told in one line."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge_converter.signals import Signalled
from edge_sdk.errors import ConversionError

_NAMED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*\Z", re.ASCII)
_SHOWN_CHARS = 200
_OURS = tuple(f"{folder}{os.sep}" for folder in (Path(__file__).resolve().parents[1], Path(importlib.__file__).parent))


def is_named(text: str) -> bool:
    """Whether this is `module:function` and not a path."""
    return _NAMED.match(text) is not None


def load(name: str, error: type[ConversionError]) -> Any:
    """What `module:function` names.

    Args:
        name: Of it.
        error: Raised where it cannot be had.
    """
    module, _, attribute = name.partition(":")
    here = os.getcwd()  # noqa: PTH109 - the entry of sys.path, which is text
    sys.path.insert(0, here)
    try:
        with guarded(name, error, doing="importing it"):
            found: Any = importlib.import_module(module)
    finally:
        # Last from now on: a file of the user's called wave.py must not become ours.
        sys.path.remove(here)
        if here not in sys.path:
            sys.path.append(here)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise error(f"module {module} has no {part}", where=name, hint="module:function, as Python imports it")
        found = getattr(found, part)
    return found


@contextlib.contextmanager
def guarded(name: str, error: type[ConversionError], *, doing: str) -> Iterator[None]:
    """Turn whatever a user's code raises into one line.

    Args:
        name: Of the code.
        error: Raised instead.
        doing: What was being done, such as `reading sample 12`.
    """
    try:
        yield
    # A user's code may raise anything, and none of it is a mistake of ours; nor may it end the program as a success.
    except BaseException as cause:
        if isinstance(cause, (error, KeyboardInterrupt, Signalled)):
            raise
        said = _said(cause)
        raise error(
            f"{doing} raised {type(cause).__name__}{': ' if said else ''}{said}", where=name, hint=_line(cause)
        ) from cause


def _said(error: BaseException) -> str:
    try:
        return (str(error).strip().splitlines() or [""])[0][:_SHOWN_CHARS]
    except Exception:  # noqa: BLE001 - this, too, is the user's code
        return ""


def _line(error: BaseException) -> str:
    """The last line of the user's that led there; empty where none did."""
    found = ""
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith(("<", *_OURS)):
            found = f"raised at {os.path.basename(file)}:{trace.tb_lineno}"  # noqa: PTH119 - text
        trace = trace.tb_next
    return found
