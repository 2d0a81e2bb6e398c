"""The commands of the SDK itself."""

from __future__ import annotations

from edge_sdk.cli.command import Command

COMMANDS: tuple[Command, ...] = ()
