"""How a hub is run: what it was asked for, what of that goes together, and which broker follows from it."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hashlib
import logging
import resource
from dataclasses import dataclass, field
from pathlib import Path

from edge_hub.address import Endpoint
from edge_hub.broker import BrokerBackend
from edge_hub.broker.external import ExternalBroker
from edge_hub.broker.iotcore import IotCore
from edge_hub.broker.mosquitto import Encryption, Mosquitto, find_mosquitto
from edge_hub.datadir import DataDir
from edge_hub.interop.exporters import Interop
from edge_hub.store.records import Retention
from edge_hub.web.certificate import Https
from edge_sdk.address import Address
from edge_sdk.errors import UsageError

_log = logging.getLogger(__name__)

_FILES = 4096
_M_ARENA_MAX = -8  # malloc.h of glibc


@dataclass(frozen=True, slots=True, kw_only=True)
class HubConfig:
    """How to run a hub.

    Attributes:
        data: The data directory.
        listen: Of the HTTP API.
        mqtt: Of the broker the hub starts.
        broker: A broker that runs already, instead.
        embedded: Start the embedded broker even where mosquitto is installed.
        insecure_listen: Listen beyond loopback although nothing is encrypted.
        interop: To whom else the fleet is shown.
        encryption: Of the broker it starts; None if there is none.
        https: How the HTTP API is encrypted; None if it is not.
        store: URL of a PostgreSQL database, instead of a file in the data directory.
        workers: Processes that store what devices send, instead of this one; they take PostgreSQL.
        log: Level of the workers' logs.
        requests_per_s: Of one token from one address, to the API; 0 is as many as come.
        alert_webhooks: URLs that are told of alerts, beside the topic.
    """

    data: Path
    listen: Address = field(default=Address(host="127.0.0.1", port=8080))
    mqtt: Address = field(default=Address(host="127.0.0.1", port=1883))
    broker: Endpoint | None = None
    embedded: bool = False
    insecure_listen: bool = False
    encryption: Encryption | None = None
    https: Https | None = None
    retention: Retention = field(default=Retention())
    interop: Interop = field(default=Interop())
    store: str | None = None
    workers: int = 0
    log: str = "info"
    requests_per_s: float = 200.0
    alert_webhooks: tuple[str, ...] = ()


def encryption_of(args: argparse.Namespace, *, has_broker: bool) -> Encryption | None:
    """How `edge hub run` is to encrypt MQTT.

    Raises:
        UsageError: What was asked for does not go together.
    """
    if args.tls and has_broker:
        raise UsageError("--tls is for the broker the hub starts", hint="write mqtts:// in --broker instead")
    if args.broker_ca and not has_broker:
        raise UsageError("--broker-ca names no authority of ours", hint="it goes with --broker")
    if args.client_certificates and not args.tls:
        raise UsageError("--client-certificates goes with --tls")
    if not args.tls:
        return None
    return Encryption(names=tuple(args.tls_name), client_certificates=args.client_certificates)


def https_of(args: argparse.Namespace) -> Https | None:
    """How `edge hub run` is to encrypt the HTTP API.

    Raises:
        UsageError: What was asked for does not go together.
    """
    if args.tls_name and not (args.tls or args.https):
        raise UsageError("--tls-name is for no certificate that the hub makes", hint="it goes with --tls or --https")
    if args.https_key and not args.https_certificate:
        raise UsageError("--https-key is of no certificate", hint="it goes with --https-certificate")
    if args.https_certificate:
        if args.https:
            raise UsageError(
                "--https has the hub make the certificate that --https-certificate names", hint="give one of them"
            )
        return Https(certificate=Path(args.https_certificate), key=args.https_key and Path(args.https_key))
    return Https(names=tuple(args.tls_name)) if args.https else None


def check_workers(config: HubConfig) -> None:
    """Refuse what would be no hub of several processes.

    Raises:
        UsageError: Says why.
    """
    if not config.workers:
        return
    if config.store is None:
        raise UsageError(
            "workers share a store, and an SQLite file has one writer",
            hint="name a database: --store postgresql://user:password@host/database",
        )
    if config.broker is None and (config.embedded or find_mosquitto() is None):
        raise UsageError(
            "the embedded broker keeps nothing for a worker that is away",
            hint="apt install mosquitto, or name a broker with --broker",
        )


def broker_of(config: HubConfig, data: DataDir, workers: int) -> BrokerBackend:
    """The broker that the configuration asks for, with so many workers as users; not started yet.

    Raises:
        BrokerMissingError: mosquitto is needed, and not installed or too old.
        UsageError: What was asked for does not go together.
    """
    if config.broker is not None:
        return ExternalBroker(config.broker)
    if config.encryption is not None and config.embedded:
        raise UsageError("the embedded broker encrypts nothing", hint="leave --embedded out: mosquitto does")
    if config.embedded or (find_mosquitto() is None and config.encryption is None):
        if not config.embedded:
            _log.warning("mosquitto is not installed: the embedded broker serves this machine, without access control")
        return IotCore(address=config.mqtt, directory=data.broker)
    return Mosquitto(
        address=config.mqtt,
        directory=data.broker,
        hub_password=data.secret("broker-password"),
        workers=workers,
        encryption=config.encryption,
    )


def client_id(data: DataDir) -> str:
    """Stable, and different for each hub that may share an external broker."""
    return f"edge-hub-{hashlib.sha256(data.secret('token').encode() + b' client id').hexdigest()[:16]}"


def allow_files() -> None:
    """Let this process have as many open files as the connections it takes, where the system lets it.

    Of the 1,024 that it is mostly given, a thousand connections and those on their way to TLS leave none to the store.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def share_memory() -> None:
    """Have all threads allocate from one arena: with one each, a fleet of 5,000 took 155 MB instead of 135."""
    with contextlib.suppress(AttributeError, OSError):  # glibc has it, musl and macOS do not
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
