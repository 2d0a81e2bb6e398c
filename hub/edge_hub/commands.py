"""What this package contributes to the program `edge`. What it does is imported when it runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from edge_hub.commands_control import CONTROL, hub_ca
from edge_hub.commands_control import client_options as _client
from edge_sdk.cli.command import Command, Later, a_path

_KINDS = ("telemetry", "minutes", "hours", "events", "commands", "alerts", "audit")
BY_QUERY = "*"  # stands for the names of devices
_MODES = ("accuracy", "balanced", "speed", "battery")


def _configure_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=a_path, metavar="DIR", default="hub", help="everything it keeps (default ./hub)")
    parser.add_argument(
        "--listen", metavar="HOST:PORT", default="127.0.0.1:8080", help="of the HTTP API (default 127.0.0.1:8080)"
    )
    parser.add_argument(
        "--mqtt",
        metavar="HOST:PORT",
        help="of the broker it starts, as devices reach it (default 127.0.0.1:1883, with --tls 8883)",
    )
    parser.add_argument(
        "--tls", action="store_true", help="encrypt MQTT, with a certificate of an authority that the hub makes"
    )
    parser.add_argument(
        "--tls-name",
        action="append",
        default=[],
        metavar="HOST",
        help="a further name or address at which the broker or the API is reached; may be repeated",
    )
    parser.add_argument(
        "--https", action="store_true", help="encrypt the HTTP API, with a certificate of the same authority"
    )
    parser.add_argument(
        "--https-certificate",
        metavar="FILE",
        help="encrypt it with this certificate (PEM, with those between it and its authority); read anew as it changes",
    )
    parser.add_argument("--https-key", metavar="FILE", help="its key, if that is not in the same file")
    parser.add_argument(
        "--client-certificates", action="store_true", help="devices show a certificate as well as their password"
    )
    parser.add_argument(
        "--broker",
        metavar="URL",
        help="use this broker instead: mqtt[s]://user:password@host:port; with a password say it in EDGE_HUB_BROKER",
    )
    parser.add_argument(
        "--broker-ca", metavar="FILE", help="the authority of its certificate (PEM), if not the system's"
    )
    parser.add_argument(
        "--store",
        metavar="URL",
        help="keep everything in PostgreSQL instead: postgresql://user:password@host:port/database; with a password "
        "say it in EDGE_HUB_STORE",
    )
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that store what devices send; they take --store"
    )
    parser.add_argument(
        "--embedded", action="store_true", help="start the embedded broker: this machine only, no access control"
    )
    parser.add_argument(
        "--insecure-listen",
        action="store_true",
        help="listen beyond this machine although nothing is encrypted, for a network you trust",
    )
    parser.add_argument(
        "--alert-webhook",
        action="append",
        default=[],
        dest="alert_webhooks",
        metavar="URL",
        help="tell this URL of alerts, signed with the directory's webhook-secret; may be repeated, and those with a "
        "secret be said in EDGE_HUB_ALERT_WEBHOOKS",
    )
    parser.add_argument(
        "--requests-per-s",
        type=float,
        default=200.0,
        metavar="N",
        help="to the API, of one token from one address; 0 is as many as come (default 200)",
    )
    parser.add_argument(
        "--keep-days", type=float, default=30.0, metavar="D", help="of messages and events (default 30)"
    )
    parser.add_argument("--keep-mb", type=float, default=2048.0, metavar="MB", help="at most (default 2048)")
    parser.add_argument(
        "--home-assistant",
        nargs="?",
        const="homeassistant",
        metavar="PREFIX",
        help="show each device to Home Assistant, by discovery topics below this prefix (homeassistant)",
    )
    parser.add_argument(
        "--sparkplug", metavar="GROUP", help="show each device as a Sparkplug B edge node of this group"
    )
    parser.add_argument(
        "--sparkplug-host", metavar="ID", help="the primary host: edge nodes are born when it says that it is there"
    )
    parser.add_argument(
        "--sparkplug-max",
        type=int,
        default=200,
        metavar="N",
        help="edge nodes at most, a connection each (default 200)",
    )
    parser.add_argument(
        "--keep-minutes-days", type=float, default=90.0, metavar="D", help="of telemetry by minute (default 90)"
    )
    parser.add_argument(
        "--keep-hours-days",
        type=float,
        default=730.0,
        metavar="D",
        help="of telemetry by hour, alerts that ended and the audit log (default 730)",
    )
    parser.add_argument("--log", choices=("debug", "info", "warning", "error"), default="info", help="how much is said")


def _configure_enroll(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", metavar="TENANT/DEVICE", help="who it is")
    parser.add_argument(
        "-o", "--output", type=a_path, required=True, metavar="FILE", help="the daemon's configuration to write"
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        dest="models",
        metavar="NAME=BUNDLE",
        help="a model and where its bundle lies on the device; may be repeated",
    )
    parser.add_argument(
        "--mqtt", metavar="HOST:PORT", help="where the device finds the broker, if not where the hub says it listens"
    )
    parser.add_argument("--again", action="store_true", help="replace the credentials it has")
    _client(parser)


def _configure_revoke(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", metavar="TENANT/DEVICE", help="who it is")
    _client(parser)


def _configure_remove(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("devices", nargs="*", metavar="TENANT/DEVICE", help="one or several; or --query alone")
    parser.add_argument("--query", metavar="QUERY", help="each that this means now, such as 'age_s > 7776000'")
    parser.add_argument("--yes", action="store_true", help="do not ask; needed where there is no terminal")
    _client(parser)


def _configure_devices(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--query", default="", metavar="QUERY", help="these alone, such as 'temp_c > 70 and online'")
    _client(parser)


def _configure_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", metavar="TENANT/DEVICE", help="which one")
    _client(parser)


def _configure_send(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("devices", metavar="TENANT/DEVICE[,...]", help="one or several, with commas; or --query alone")
    parser.add_argument("--query", metavar="QUERY", help="each that this means now, such as 'profile = rpi4'")
    parse = parser.parse_known_args

    def fill_in(words: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """With a query there are no names, for which argparse would take the command."""
        return parse(_filled(list(words or [])), namespace)

    setattr(parser, "parse_known_args", fill_in)  # noqa: B010 - a method of this one parser
    verbs = parser.add_subparsers(metavar="COMMAND", dest="order", required=True)

    def verb(name: str, summary: str) -> argparse.ArgumentParser:
        one = verbs.add_parser(name, help=summary, description=summary)
        _client(one)
        one.add_argument("--json", action="store_true", help="print the result as one JSON object")
        one.add_argument(
            "--timeout", type=float, default=30.0, metavar="S", help="the device may take this long (default 30)"
        )
        one.add_argument("--no-wait", action="store_true", help="do not wait for the reply")
        return one

    prefer = verb("prefer", "say what is wanted")
    prefer.add_argument("mode", choices=_MODES)
    prefer.add_argument("--model", help="of this model alone")
    prefer.add_argument("--max-latency-ms", type=float, metavar="MS", help="of one inference")
    prefer.add_argument("--deadline-ms", type=float, metavar="MS", help="until the answer is at the hub")
    prefer.add_argument("--min-accuracy", type=float, metavar="PCT", help="of the variant, as measured")
    prefer.add_argument("--max-temp-c", type=float, metavar="C", help="of the board")
    prefer.add_argument(
        "--battery-until", metavar="WHEN", help="18:30 (daily, by the device's clock), 2026-11-27T18:30"
    )
    prefer.add_argument("--battery-for-s", type=float, metavar="S", help="from when the device takes it")
    prefer.add_argument("--max-power-w", type=float, metavar="W", help="of the board, in the mean")
    pin = verb("pin", "run one variant until unpinned")
    pin.add_argument("model")
    pin.add_argument("variant")
    unpin = verb("unpin", "let the policy decide again")
    unpin.add_argument("model", nargs="?")
    verb("pause", "stop switching")
    verb("resume", "switch again")
    measure = verb("measure", "time variants on the device")
    measure.add_argument("model")
    measure.add_argument("variant", nargs="?")
    verb("report", "answer with the state")
    explain = verb("explain", "answer with the last decisions and why")
    explain.add_argument("model", nargs="?")
    configure = verb("configure", "change settings while the daemon runs")
    configure.add_argument("--telemetry-every-s", type=float, metavar="S")
    configure.add_argument("--sample-every-s", type=float, metavar="S")


def _filled(words: list[str]) -> list[str]:
    for number, word in enumerate(words):
        if word == "--query":
            return [*words[: number + 2], BY_QUERY, *words[number + 2 :]]
        if word.startswith("--query="):
            return [*words[: number + 1], BY_QUERY, *words[number + 1 :]]
    return words


def _configure_watch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--after", type=int, metavar="ID", help="begin with the events after this one")
    _client(parser)


def _configure_export(parser: argparse.ArgumentParser) -> None:
    _kept(parser)
    parser.add_argument(
        "--hub", metavar="URL", help="ask the hub that runs there, with the token of an administrator in --data"
    )
    hub_ca(parser)
    parser.add_argument("--store", metavar="URL", help="of the PostgreSQL it keeps its data in, if it does")
    parser.add_argument("--what", required=True, choices=_KINDS, help="which kind of rows")
    parser.add_argument(
        "-o", "--output", type=a_path, required=True, metavar="FILE", help="written whole or not at all"
    )
    parser.add_argument("--format", choices=("csv", "parquet"), default="csv", help="default csv")
    parser.add_argument("--since", metavar="WHEN", help="2026-11-27, 2026-11-27T18:30Z, or seconds since 1970")
    parser.add_argument("--until", metavar="WHEN", help="and before that")
    parser.add_argument("--device", action="append", default=[], metavar="TENANT/DEVICE", help="may be repeated")
    parser.add_argument("--query", metavar="QUERY", help="of the devices for which it holds now")
    parser.add_argument(
        "--times", choices=("iso", "unix"), default="iso", help="how they are written (default iso, UTC)"
    )


def _configure_backup(parser: argparse.ArgumentParser) -> None:
    _kept(parser)
    parser.add_argument(
        "-o", "--output", type=a_path, required=True, metavar="FILE", help="written whole or not at all"
    )


def _configure_move(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", type=a_path, metavar="DIR", default="hub", help="of the hub, which must not run (default ./hub)"
    )
    parser.add_argument(
        "--store",
        metavar="URL",
        help="where to, an empty database: postgresql://user:password@host:port/database; with a password say it in"
        " EDGE_HUB_STORE",
    )


def _kept(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", type=a_path, metavar="DIR", default="hub", help="of the hub, which may run (default ./hub)"
    )


COMMANDS: tuple[Command, ...] = (
    Command(
        path=("hub", "run"),
        summary="run a hub: broker, store, HTTP API",
        configure=_configure_run,
        run=Later("edge_hub.cli", "run"),
        has_json=False,
    ),
    Command(
        path=("hub", "enroll"),
        summary="give a device credentials, and write the configuration its daemon takes",
        configure=_configure_enroll,
        run=Later("edge_hub.cli", "enroll"),
    ),
    Command(
        path=("hub", "revoke"),
        summary="let a device in no more: its password and its certificates end",
        configure=_configure_revoke,
        run=Later("edge_hub.cli", "revoke"),
    ),
    Command(
        path=("hub", "remove"),
        summary="take devices out of the fleet, with all that is kept of them",
        configure=_configure_remove,
        run=Later("edge_hub.cli_control", "remove"),
    ),
    Command(
        path=("hub", "devices"),
        summary="the fleet at a glance",
        configure=_configure_devices,
        run=Later("edge_hub.cli", "devices"),
    ),
    Command(
        path=("hub", "show"),
        summary="one device: what it runs, and why",
        configure=_configure_show,
        run=Later("edge_hub.cli", "show"),
    ),
    Command(
        path=("hub", "send"),
        summary="send a command to devices and print the replies",
        configure=_configure_send,
        run=Later("edge_hub.cli", "send"),
        has_json=False,
    ),
    Command(
        path=("hub", "watch"),
        summary="events and replies as they come, until interrupted",
        configure=_configure_watch,
        run=Later("edge_hub.cli", "watch"),
    ),
    Command(
        path=("hub", "export"),
        summary="telemetry, minutes and hours of it, events, commands, alerts or the audit log as CSV or Parquet",
        configure=_configure_export,
        run=Later("edge_hub.keeping", "export"),
    ),
    Command(
        path=("hub", "backup"),
        summary="copy the database, whether the hub runs or not",
        configure=_configure_backup,
        run=Later("edge_hub.keeping", "backup"),
    ),
    Command(
        path=("hub", "move"),
        summary="go from SQLite to PostgreSQL with everything: copy it, and close the file to hubs",
        configure=_configure_move,
        run=Later("edge_hub.keeping", "move"),
    ),
    *CONTROL,
)
