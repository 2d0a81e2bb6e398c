"""The verbs of `edge hub` for those who steer: cancel, label, groups, alerts, rules, audit, token."""

from __future__ import annotations

import argparse
from typing import Protocol

from edge_sdk.cli.command import Command, Later, a_path

_ROLES = ("viewer", "operator", "admin")


class _Options(Protocol):
    """Adds options; `below` a parser that has the same ones, without defaults of their own."""

    def __call__(self, parser: argparse.ArgumentParser, *, below: bool = False) -> None: ...


def client_options(parser: argparse.ArgumentParser, *, below: bool = False) -> None:
    """Where the hub is, and with which token it is asked; `below` another parser that has the same options."""
    parser.add_argument(
        "--data",
        type=a_path,
        metavar="DIR",
        default=_default("hub", below),
        help="the hub's data directory (default ./hub)",
    )
    parser.add_argument(
        "--hub", metavar="URL", default=_default(None, below), help="of its HTTP API; else what the directory says"
    )
    hub_ca(parser, default=_default(None, below))


def hub_ca(parser: argparse.ArgumentParser, *, default: object = None) -> None:
    """Who may have signed the certificate of a hub that is asked."""
    parser.add_argument(
        "--hub-ca",
        metavar="FILE",
        default=default,
        help="the authority (PEM) of the certificate it shows at https://, if neither the system's nor the directory's",
    )


def _page(parser: argparse.ArgumentParser, *, below: bool = False) -> None:
    default = _default(100, below)
    parser.add_argument("--limit", type=int, default=default, metavar="N", help="how many at most (default 100)")
    client_options(parser, below=below)


def _shown(parser: argparse.ArgumentParser, *, below: bool = False) -> None:
    """What alerts are listed by."""
    default = _default(None, below)
    parser.add_argument(
        "--open", action="store_true", default=_default(default=False, below=below), help="those that have not ended"
    )
    parser.add_argument("--device", metavar="TENANT/DEVICE", default=default, help="of this one alone")
    _page(parser, below=below)


def _default(default: object, below: bool) -> object:
    return argparse.SUPPRESS if below else default


class _Verbs:
    """The verbs below one; without any, it lists.

    What the verb itself takes (where the hub is, what is listed) may stand before or after them: the parsers below have
    the same options without a default, which would go over what was given before.
    """

    def __init__(self, parser: argparse.ArgumentParser, what: str, listing: _Options = client_options) -> None:
        listing(parser)
        self._verbs = parser.add_subparsers(metavar="VERB", dest="verb")
        parser.set_defaults(verb="list")
        self.add("list", what, listing)

    def add(self, name: str, summary: str, options: _Options = client_options) -> argparse.ArgumentParser:
        """One more."""
        one = self._verbs.add_parser(name, help=summary, description=summary)
        one.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print the result as one JSON object"
        )
        options(one, below=True)
        return one


def _configure_cancel(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="of a command, or of a batch")
    client_options(parser)


def _configure_label(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", metavar="TENANT/DEVICE", help="which one")
    parser.add_argument("labels", nargs="*", metavar="KEY=VALUE", help="set these; KEY= takes one away")
    client_options(parser)


def _configure_groups(parser: argparse.ArgumentParser) -> None:
    verbs = _Verbs(parser, "named queries, and how many devices each means now")
    put = verbs.add("put", "give a query a name")
    put.add_argument("name", metavar="NAME")
    put.add_argument("query", metavar="QUERY", help="such as 'label.site = roof'")
    verbs.add("delete", "forget a name").add_argument("name", metavar="NAME")


def _configure_alerts(parser: argparse.ArgumentParser) -> None:
    verbs = _Verbs(parser, "alerts, the newest first", _shown)
    verbs.add("acknowledge", "say that somebody has seen it").add_argument("number", type=int, metavar="ID")
    silence = verbs.add("silence", "tell nobody for a while")
    silence.add_argument("--query", default="", metavar="QUERY", help="of these devices; all without it")
    silence.add_argument("--rule", metavar="NAME", help="of this rule alone")
    silence.add_argument("--for-s", type=float, required=True, metavar="S", help="from now on")
    silence.add_argument("--why", default="", help="for people")
    verbs.add("silences", "what nobody is told of now")
    verbs.add("unsilence", "tell again").add_argument("name", metavar="NAME", help="of the silence")


def _configure_rules(parser: argparse.ArgumentParser) -> None:
    verbs = _Verbs(parser, "alert rules in force")
    put = verbs.add("put", "make or replace a rule")
    put.add_argument("name", metavar="NAME")
    put.add_argument("file", metavar="FILE", help="TOML, or JSON by the end of its name")
    verbs.add("delete", "remove a rule; a built-in one is again as it came").add_argument("name", metavar="NAME")


def _configure_token(parser: argparse.ArgumentParser) -> None:
    verbs = _Verbs(parser, "tokens, without themselves")
    make = verbs.add("make", "make a token, and print it this once; one of the same name ends")
    make.add_argument("name", metavar="NAME")
    make.add_argument("role", choices=_ROLES)
    make.add_argument("--for-s", type=float, metavar="S", help="it ends after so long; never without it")
    verbs.add("withdraw", "end a token and its sessions").add_argument("name", metavar="NAME")


CONTROL: tuple[Command, ...] = (
    Command(
        path=("hub", "cancel"),
        summary="give up on a command, or on what waits of a batch",
        configure=_configure_cancel,
        run=Later("edge_hub.cli_control", "cancel"),
    ),
    Command(
        path=("hub", "label"),
        summary="words for a device",
        configure=_configure_label,
        run=Later("edge_hub.cli_control", "label"),
    ),
    Command(
        path=("hub", "groups"),
        summary="names for queries",
        configure=_configure_groups,
        run=Later("edge_hub.cli_control", "groups"),
    ),
    Command(
        path=("hub", "alerts"),
        summary="what is wrong with devices",
        configure=_configure_alerts,
        run=Later("edge_hub.cli_control", "alerts"),
    ),
    Command(
        path=("hub", "rules"),
        summary="when something is wrong",
        configure=_configure_rules,
        run=Later("edge_hub.cli_control", "rules"),
    ),
    Command(
        path=("hub", "audit"),
        summary="who did what, and when",
        configure=_page,
        run=Later("edge_hub.cli_control", "audit"),
    ),
    Command(
        path=("hub", "token"),
        summary="who may use the API",
        configure=_configure_token,
        run=Later("edge_hub.cli_control", "token"),
    ),
)
