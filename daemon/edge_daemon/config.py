"""The one configuration file of the daemon, TOML.

Every key is optional: an empty file, or none, is a daemon that senses, serves the local API and reports to nobody.
Unknown keys are refused by name and numbers out of bounds with their bound. Relative paths are relative to the file.
`docs/reference/configuration.md` describes every key; a test holds it to that.
"""

from __future__ import annotations

import functools
import logging
import os
import stat
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edge_daemon.sensors.i2c import GAUGE
from edge_daemon.wishes.schedule import Override, Schedule
from edge_daemon.wishes.state import Site
from edge_sdk.errors import ConfigError
from edge_sdk.mqtt import DeviceId
from edge_sdk.preference import Preference
from edge_sdk.tokenfile import is_open_to_all
from edge_sdk.wire import Name, Wire, decode_toml

log = logging.getLogger(__name__)

CONFIG_VARIABLE = "EDGE_DAEMON_CONFIG"
SYSTEM_CONFIG = Path("/etc/edge/daemon.toml")
STATE_VARIABLE = "STATE_DIRECTORY"  # systemd sets it for `StateDirectory=`
_MAX_PASSWORD_BYTES = 65_535  # MQTT's own limit

PathText = Annotated[str, Meta(min_length=1, max_length=4096)]
Seconds = Annotated[float, Meta(ge=1, le=86_400)]


class DeviceSection(Wire, frozen=True, kw_only=True):
    """`[device]`: who this is."""

    tenant: Name | None = None
    name: Name | None = None
    profile: Name | None = None


class ServerSection(Wire, frozen=True, kw_only=True):
    """`[models.NAME.server]`: a server that runs the model, too, for apps to ask while a variant stands by.

    Attributes:
        quality: Of what runs there, in the unit of the bundle's qualities.
        server_ms: What it takes there; of 0 it counts as the way there.
        token_file: Where apps read the token that they ask with; the daemon does not read it.
        ca_file: Certificates that apps check the server's by; None takes the system's.
        metered: Whether it is asked while the network costs by the byte.
    """

    url: Annotated[str, Meta(min_length=1, max_length=2000)]
    model: Annotated[str, Meta(min_length=1, max_length=500)]
    quality: Annotated[float, Meta(ge=-100_000, le=100_000)]
    server_ms: Annotated[float, Meta(ge=0, le=86_400_000)] = 0.0
    token_file: PathText | None = None
    ca_file: PathText | None = None
    metered: Literal["avoid", "allow"] = "avoid"


class ModelSection(Wire, frozen=True, kw_only=True):
    """`[models.NAME]`, or the path alone: what is served."""

    bundle: PathText
    preference: Preference | None = None
    server: ServerSection | None = None


PemText = Annotated[str, Meta(min_length=1, max_length=65_536)]


class TlsSection(Wire, frozen=True, kw_only=True):
    """`[mqtt.tls]`, or `tls = true`: encrypted, and checked against this authority or the system's.

    What ends with `_pem` stands in this file instead of in one of its own.
    """

    ca: PathText | None = None
    cert: PathText | None = None
    key: PathText | None = None
    ca_pem: PemText | None = None
    cert_pem: PemText | None = None
    key_pem: PemText | None = None


class MqttSection(Wire, frozen=True, kw_only=True):
    """`[mqtt]`: the broker; absent means the daemon reports to nobody."""

    host: Annotated[str, Meta(min_length=1, max_length=253)]
    port: Annotated[int, Meta(ge=1, le=65_535)] | None = None
    username: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    password: Annotated[str, Meta(max_length=1024)] | None = None
    password_file: PathText | None = None
    tls: bool | TlsSection = False
    keepalive_s: Annotated[int, Meta(ge=5, le=3600)] = 30
    will_delay_s: Annotated[int, Meta(ge=0, le=3600)] = 10
    probe_every_s: Annotated[float, Meta(ge=1, le=3600)] = 5.0

    @property
    def effective_port(self) -> int:
        """The port given, else MQTT's own: 8883 with TLS, 1883 without."""
        if self.port is not None:
            return self.port
        return 8883 if self.encryption is not None else 1883

    @property
    def encryption(self) -> TlsSection | None:
        """How it is encrypted; None if it is not."""
        if isinstance(self.tls, TlsSection):
            return self.tls
        return TlsSection() if self.tls else None


class StateSection(Wire, frozen=True, kw_only=True):
    """`[state]`: what outlives a restart."""

    directory: PathText | None = None


class ApiSection(Wire, frozen=True, kw_only=True):
    """`[api]`: the unix socket."""

    socket: PathText | None = None
    group: Annotated[str, Meta(min_length=1, max_length=32)] | None = None


class SensorsSection(Wire, frozen=True, kw_only=True):
    """`[sensors]`: where the machine's files are, and what only the board's owner knows of it."""

    root: PathText = "/"
    played: bool = False
    battery_wh: Annotated[float, Meta(ge=0.01, le=1_000_000)] | None = None
    gauges: Annotated[tuple[Annotated[str, Meta(pattern=GAUGE)], ...], Meta(max_length=8)] = ()
    metered: bool | None = None


class PolicySection(Wire, frozen=True, kw_only=True):
    """`[policy]`: which one decides, and how often it is asked."""

    use: Name = "optimal"
    tick_s: Annotated[float, Meta(ge=0.1, le=60)] = 1.0
    snapshot_every_s: Seconds = 30.0


class TelemetrySection(Wire, frozen=True, kw_only=True):
    """`[telemetry]`: what is recorded for the hub, and how much of it waits."""

    sample_every_s: Annotated[float, Meta(ge=1, le=3600)] = 5.0
    telemetry_every_s: Seconds = 30.0
    spool_max_mb: Annotated[float, Meta(ge=0.1, le=100_000)] = 64.0
    spool_max_age_h: Annotated[float, Meta(ge=0.01, le=87_600)] = 168.0


class SiteSection(Wire, frozen=True, kw_only=True):
    """`[site]`: where the board works, for schedules and times of day."""

    time_zone: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    position_file: PathText | None = None


class LogSection(Wire, frozen=True, kw_only=True):
    """`[log]`: how much is said."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(Wire, frozen=True, kw_only=True):
    """The file."""

    device: DeviceSection = DeviceSection()
    models: Annotated[dict[Name, PathText | ModelSection], Meta(max_length=100)] = {}
    mqtt: MqttSection | None = None
    state: StateSection = StateSection()
    api: ApiSection = ApiSection()
    sensors: SensorsSection = SensorsSection()
    policy: PolicySection = PolicySection()
    telemetry: TelemetrySection = TelemetrySection()
    site: SiteSection = SiteSection()
    schedule: Annotated[tuple[Schedule, ...], Meta(max_length=100)] = ()
    log: LogSection = LogSection()

    def bundles(self) -> dict[str, ModelSection]:
        """The models, each as its table."""
        return {
            name: ModelSection(bundle=entry) if isinstance(entry, str) else entry for name, entry in self.models.items()
        }

    def device_id(self) -> DeviceId | None:
        """Who the daemon is to the hub; None without `[mqtt]`."""
        if self.mqtt is None or self.device.tenant is None or self.device.name is None:
            return None
        return DeviceId(tenant=self.device.tenant, device=self.device.name)


def find(given: str | os.PathLike[str] | None = None) -> Path | None:
    """The file to read: the one given, else `EDGE_DAEMON_CONFIG`, else the system's where it exists, else none."""
    if given:
        return Path(given)
    if variable := os.environ.get(CONFIG_VARIABLE):
        return Path(variable)
    return SYSTEM_CONFIG if SYSTEM_CONFIG.exists() else None


def load(path: Path | None) -> Config:
    """Read the file; without one, everything has its default.

    Raises:
        ConfigError: It cannot be read, is not TOML, has an unknown key, a value out of bounds, or contradicts itself.
    """
    if path is None:
        return Config()
    try:
        raw = path.read_bytes()
        mode = path.stat().st_mode
    except OSError as cause:
        raise ConfigError(f"cannot be read: {cause.strerror}", where=str(path)) from cause
    config = _resolved(decode_toml(raw, Config, where=str(path), error=ConfigError), path.absolute().parent)
    _check_schedules(config, path)
    _check_servers(config, path)
    if config.mqtt is not None:
        _check_mqtt(config, config.mqtt, path)
        if config.mqtt.password is not None and mode & stat.S_IROTH:
            _warn_of(path)
    return config


def password(section: MqttSection) -> str | None:
    """The password: written in the file, or the first line of `password_file`.

    Raises:
        ConfigError: The password file cannot be read or is empty.
    """
    if section.password_file is None:
        return section.password
    path = Path(section.password_file)
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_PASSWORD_BYTES + 1)
        if os.stat(path).st_mode & stat.S_IROTH:  # noqa: PTH116 - the same file, whatever it is
            _warn_of(path)
        lines = raw.decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as cause:
        raise ConfigError(f"mqtt.password_file cannot be read: {cause}", where=str(path)) from cause
    if not lines or not lines[0] or len(raw) > _MAX_PASSWORD_BYTES:
        raise ConfigError("mqtt.password_file holds no password in its first line", where=str(path))
    return lines[0]


@functools.cache  # once: a password file is read at each connection
def _warn_of(path: Path) -> None:
    log.warning("%s holds a password and every user of this machine can read it: chmod o-r it", path)


def site(config: Config) -> Site:
    """Schedules, and the zone of their times.

    Raises:
        ConfigError: This machine knows no such zone.
    """
    name = config.site.time_zone
    if name is None:
        return Site(schedules=config.schedule)
    from zoneinfo import ZoneInfo  # half a megabyte that only this needs

    try:
        return Site(zone=ZoneInfo(name), schedules=config.schedule)
    except (KeyError, ValueError, OSError) as cause:  # not found, not a zone's name, not readable
        raise ConfigError(
            f"site.time_zone: {name!r} is not known here", hint="such as Europe/Berlin; the system's package is tzdata"
        ) from cause


def state_directory(config: Config) -> Path:
    """Where state is kept: `state.directory`, else systemd's, else `/var/lib/edge` for root, else the user's own."""
    if config.state.directory is not None:
        return Path(config.state.directory)
    if systemd := os.environ.get(STATE_VARIABLE):
        return Path(systemd.partition(":")[0])
    if os.geteuid() == 0:
        return Path("/var/lib/edge")
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "edge"


def _check_mqtt(config: Config, mqtt: MqttSection, path: Path) -> None:
    if config.device.tenant is None or config.device.name is None:
        raise ConfigError(
            "[mqtt] is there, but device.tenant or device.name is not",
            where=str(path),
            hint="the hub knows a device by both; 'edge hub enroll TENANT/DEVICE' writes them",
        )
    if mqtt.password is not None and mqtt.password_file is not None:
        raise ConfigError("mqtt.password and mqtt.password_file exclude each other", where=str(path))
    tls = mqtt.encryption
    if tls is None:
        return
    if (tls.cert is None) != (tls.key is None):
        raise ConfigError("mqtt.tls.cert and mqtt.tls.key go together", where=str(path))
    if (tls.cert_pem is None) != (tls.key_pem is None):
        raise ConfigError("mqtt.tls.cert_pem and mqtt.tls.key_pem go together", where=str(path))
    for file, text in (("ca", tls.ca_pem), ("cert", tls.cert_pem)):
        if text is not None and getattr(tls, file) is not None:
            raise ConfigError(f"mqtt.tls.{file} and mqtt.tls.{file}_pem exclude each other", where=str(path))


def _check_servers(config: Config, path: Path) -> None:
    """Their addresses make sense, and are of one host: policies know one way out of the board."""
    named = {name: model.server for name, model in config.bundles().items() if model.server is not None}
    if not named:
        return
    from edge_sdk.server_address import HINT, ServerAddress  # who has no server does without

    first: tuple[str, ServerAddress] | None = None
    for name, server in named.items():
        try:
            address = ServerAddress.read(server.url)
        except ValueError as cause:
            raise ConfigError(f"models.{name}.server.url: it {cause}", where=str(path), hint=HINT) from cause
        if first is not None and (first[1].host, first[1].port) != (address.host, address.port):
            raise ConfigError(
                f"models.{name}.server.url is of another host or port than models.{first[0]}.server.url",
                where=str(path),
                hint="the servers of all models have to be one, whose way there can be learned",
            )
        first = first or (name, address)
        if server.ca_file is not None and not address.is_encrypted:
            raise ConfigError(
                f"models.{name}.server.ca_file is given, but {address.scheme}:// is not encrypted",
                where=str(path),
                hint="an https:// or grpcs:// address, or no ca_file",
            )
        if server.token_file is not None and is_open_to_all(server.token_file):
            log.warning("%s holds a token and every user of this machine can read it: chmod o-r it", server.token_file)


def _check_schedules(config: Config, path: Path) -> None:
    site(config)
    seen: set[str] = set()
    for each in config.schedule:
        if each.name in seen:
            raise ConfigError(f"two schedules are called {each.name!r}", where=str(path))
        seen.add(each.name)
        strangers = [model for model in each.models if model not in config.models]
        if strangers:
            raise ConfigError(
                f"schedule {each.name!r} is about {strangers[0]!r}, which [models] does not name", where=str(path)
            )
        if each.preference == Override():
            raise ConfigError(f"schedule {each.name!r} prefers nothing", where=str(path), hint="name a mode or a limit")


def _resolved(config: Config, base: Path) -> Config:
    """The same with every path absolute."""

    def absolute(text: str) -> str:
        return str(base / Path(text).expanduser())

    def optional(text: str | None) -> str | None:
        return None if text is None else absolute(text)

    replace = msgspec.structs.replace

    def asking(server: ServerSection | None) -> ServerSection | None:
        if server is None:
            return None
        return replace(server, token_file=optional(server.token_file), ca_file=optional(server.ca_file))

    mqtt = config.mqtt
    if mqtt is not None:
        tls = mqtt.tls
        if isinstance(tls, TlsSection):
            tls = replace(tls, ca=optional(tls.ca), cert=optional(tls.cert), key=optional(tls.key))
        mqtt = replace(mqtt, password_file=optional(mqtt.password_file), tls=tls)
    return replace(
        config,
        models={
            name: replace(entry, bundle=absolute(entry.bundle), server=asking(entry.server))
            for name, entry in config.bundles().items()
        },
        mqtt=mqtt,
        state=replace(config.state, directory=optional(config.state.directory)),
        api=replace(config.api, socket=optional(config.api.socket)),
        site=replace(config.site, position_file=optional(config.site.position_file)),
        sensors=replace(config.sensors, root=absolute(config.sensors.root)),
    )
