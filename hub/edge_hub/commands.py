"""What this package contributes to the program `edge`."""

from __future__ import annotations

from edge_sdk.cli.command import Command

COMMANDS: tuple[Command, ...] = ()
