"""The program `edge`."""

from edge_sdk.cli.main import main

__all__ = ["main"]
