"""The exporters of a running hub: which there are, as whom they connect, and what others log in with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edge_hub.auditing import Audit
from edge_hub.broker.accounts import Guest, new_password
from edge_hub.broker.backend import BrokerBackend
from edge_hub.commanding import Commander
from edge_hub.datadir import DataDir
from edge_hub.interop import discovery, metrics
from edge_hub.interop.home_assistant import HomeAssistant, remembered
from edge_hub.interop.numbers import BirthNumbers
from edge_hub.interop.orders import chooser
from edge_hub.interop.session import Connect, Heard, Session, Will
from edge_hub.interop.sparkplug import Settings, Sparkplug
from edge_hub.interop.watcher import Watcher
from edge_hub.store import Store
from edge_hub.store.records import Committed
from edge_hub.tasks import Tasks
from edge_sdk.errors import UsageError
from edge_sdk.mqtt import DeviceId

# What others log in as, with the password in a file of this name in the data directory.
HOME_ASSISTANT_USER = "home-assistant"
SPARKPLUG_HOST_USER = "sparkplug-host"
_HOME_ASSISTANT_S = 60.0
_STOP_S = 8.0
_NODE_VERBS = ("NBIRTH", "NDATA", "NDEATH")


@dataclass(frozen=True, slots=True, kw_only=True)
class Interop:
    """Who is to be shown the fleet; None shows it to nobody.

    Attributes:
        home_assistant: The prefix of its discovery topics.
    """

    home_assistant: str | None = None
    sparkplug: Settings | None = None

    @classmethod
    def asked(cls, *, prefix: str | None, group: str | None, host: str | None, most: int) -> Interop:
        """What the command line asks for.

        Raises:
            UsageError: A name cannot be one, or a setting has nothing to set.
        """
        if group is None and host is not None:
            raise UsageError("--sparkplug-host means nothing without --sparkplug GROUP")
        if most < 1:
            raise UsageError("--sparkplug-max must be at least 1")
        settings = None
        if group is not None:
            settings = Settings(
                group=metrics.check_id(group, "group id"),
                host=None if host is None else metrics.check_id(host, "host id"),
                most=most,
            )
        return cls(home_assistant=None if prefix is None else discovery.check_prefix(prefix), sparkplug=settings)


class Exporters:
    """All of them.

    Args:
        interop: Which.
        data: Where they remember what they published.
        broker: Where they connect.
        store: What they show.
        commander: Takes what somebody chose.
        audit: Notes it.
        hub: The hub's id.

    Raises:
        StorageError: What they remember cannot be read.
    """

    def __init__(
        self,
        interop: Interop,
        *,
        data: DataDir,
        broker: BrokerBackend,
        store: Store,
        commander: Commander,
        audit: Audit,
        hub: str,
    ) -> None:
        self._audit = audit
        self._data = data
        self._broker = broker
        self._hub = hub
        self._watcher = Watcher(store)
        self._home_assistant: HomeAssistant | None = None
        self._sparkplug: Sparkplug | None = None
        self._passwords: dict[DeviceId, str] = {}
        self._guests: dict[str, tuple[Guest, ...]] = {}
        memory = data.path / "home-assistant.json"
        if interop.home_assistant is not None or memory.exists():
            self._home_assistant = self._made_home_assistant(interop.home_assistant, memory, commander)
        if interop.sparkplug is not None:
            self._sparkplug = self._made_sparkplug(interop.sparkplug, commander)
        self._watcher.exporters = [each for each in (self._home_assistant, self._sparkplug) if each is not None]

    @property
    def there(self) -> bool:
        """Somebody is shown something."""
        return bool(self._watcher.exporters)

    @property
    def tells_late(self) -> bool:
        """Somebody is told telemetry of the past."""
        return self._sparkplug is not None

    def took(self, committed: Committed) -> None:
        """A batch was stored."""
        if self.there:
            self._watcher.took(committed)

    async def begin(self, tasks: Tasks) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        """Let them in at the broker, and the programs they are for, and run them.

        Returns:
            How to end each, by its name; the last one first.
        """
        for whose, guests in self._guests.items():
            await self._broker.admit(whose, guests)
        parts: dict[str, Coroutine[Any, Any, None]] = {}
        if self._home_assistant is not None:
            parts["home-assistant"] = self._home_assistant.run()
        if self._sparkplug is not None:
            parts["sparkplug"] = self._sparkplug.run()
        if self.there:
            parts["exporters"] = self._watcher.run()
        for name, part in parts.items():
            tasks.spawn(name, part)
        return [(name, partial(tasks.stop, name, patience_s=_STOP_S)) for name in parts]

    def _made_home_assistant(self, prefix: str | None, memory: Path, commander: Commander) -> HomeAssistant:
        left = remembered(memory)  # where an earlier run's topics are taken back
        prefixes = {one for one in (prefix, None if left is None else left.prefix) if one is not None}
        ours = Guest(
            user="hub-home-assistant",
            password=new_password(),
            access=(
                f"readwrite {discovery.BASE}/#",
                *(f"write {discovery.config_topic(one, '+')}" for one in sorted(prefixes)),
                *(f"read {topic}" for one in sorted(prefixes) for topic in discovery.birth_topics(one)),
            ),
        )
        theirs = Guest(
            user=HOME_ASSISTANT_USER,
            password=self._data.secret(f"{HOME_ASSISTANT_USER}-password"),
            access=(
                *(f"read {one}/#" for one in sorted(prefixes)),
                *(f"readwrite {topic}" for one in sorted(prefixes) for topic in discovery.birth_topics(one)),
                f"read {discovery.BASE}/#",
                f"write {discovery.ORDERS}",
            ),
        )
        self._guests["home-assistant"] = (ours, theirs)
        return HomeAssistant(
            hub=self._hub,
            prefix=prefix,
            memory=memory,
            connect=self._connector(ours, f"edge-hub-{self._hub}-home-assistant"),
            choose=chooser(commander, self._audit, by="home-assistant"),
            again=self._watcher.everything,
            # At a broker that started just now, Home Assistant is yet to connect.
            patience_s=0.0 if self._broker.kind == "external" else _HOME_ASSISTANT_S,
        )

    def _made_sparkplug(self, settings: Settings, commander: Commander) -> Sparkplug:
        host = Guest(
            user=SPARKPLUG_HOST_USER,
            password=self._data.secret(f"{SPARKPLUG_HOST_USER}-password"),
            access=(
                f"read {metrics.NAMESPACE}/#",
                f"write {metrics.topic(settings.group, 'NCMD', '+')}",
                f"write {metrics.state_topic('+')}",
            ),
        )
        self._guests["sparkplug"] = (host,)

        def node_of(device: DeviceId) -> Guest:
            """An account of its own: the broker knows a client by its user name."""
            name = metrics.node_id(device)
            return Guest(
                user=f"sparkplug/{device}",
                password=self._passwords.setdefault(device, new_password()),
                access=(
                    *(f"write {metrics.topic(settings.group, verb, name)}" for verb in _NODE_VERBS),
                    f"read {metrics.topic(settings.group, 'NCMD', name)}",
                    f"read {metrics.state_topic('+')}",
                ),
            )

        async def admit(devices: Collection[DeviceId]) -> None:
            self._passwords = {device: self._passwords.get(device) or new_password() for device in devices}
            await self._broker.admit("sparkplug", (host, *map(node_of, devices)))

        def connect(device: DeviceId) -> Connect:
            guest = node_of(device)
            return self._connector(guest, f"edge-hub-{self._hub}-{metrics.node_id(device)}")

        return Sparkplug(
            settings=settings,
            numbers=BirthNumbers(self._data.path / "sparkplug.json"),
            connect=connect,
            admit=admit,
            choose=chooser(commander, self._audit, by="sparkplug"),
        )

    def _connector(self, guest: Guest, client_id: str) -> Connect:
        def connect(will: Will | None, topics: Sequence[str], heard: Heard) -> Session:
            endpoint = self._broker.endpoint_of(guest)
            return Session(endpoint=endpoint, client_id=client_id, will=will, topics=topics, heard=heard)

        return connect
