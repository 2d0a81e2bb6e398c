"""All errors of the product, found by importing every module of the packages that are installed."""

from __future__ import annotations

import importlib

from edge_sdk.errors import EdgeError

PACKAGES = ("edge_sdk", "edge_converter", "edge_daemon", "edge_hub", "edge_lab")


def every_error() -> list[type[EdgeError]]:
    """Each class once, the root first; `errors` is the one module of a package that defines them (a law test)."""
    for package in PACKAGES:
        importlib.import_module(f"{package}.errors")
    found = [EdgeError]
    for kind in found:
        found += [sub for sub in kind.__subclasses__() if sub.__module__.partition(".")[0] in PACKAGES]
    return list(dict.fromkeys(found))
