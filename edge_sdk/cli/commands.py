"""The commands of the SDK itself: their names and arguments. What they do is imported when one of them runs."""

from __future__ import annotations

import argparse

from edge_sdk.cli.command import Command


def _takes_bundle(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help="a directory such as digits-1.edge, or a .edgebundle file")


def _inspect(args: argparse.Namespace) -> int:
    from edge_sdk.cli import inspect

    return inspect.run(args)


def _takes_nothing(_: argparse.ArgumentParser) -> None:
    """The command has no arguments of its own."""


def _list_profiles(args: argparse.Namespace) -> int:
    from edge_sdk.cli import profiles

    return profiles.list_all(args)


def _takes_profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="such as rpi4; 'edge profiles list' names them all")


def _show_profile(args: argparse.Namespace) -> int:
    from edge_sdk.cli import profiles

    return profiles.show(args)


COMMANDS: tuple[Command, ...] = (
    Command(
        path=("inspect",),
        summary="what is in a bundle: its variants, what they are worth and how fast they are",
        configure=_takes_bundle,
        run=_inspect,
    ),
    Command(
        path=("profiles", "list"),
        summary="the classes of boards that are known",
        configure=_takes_nothing,
        run=_list_profiles,
    ),
    Command(
        path=("profiles", "show"),
        summary="all that is known of one, and on what it rests",
        configure=_takes_profile,
        run=_show_profile,
    ),
)
