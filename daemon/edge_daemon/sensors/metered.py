"""Whether the way to the network costs by the byte.

In this order: what the configuration says; NetworkManager, over D-Bus; the kind of interface that holds the default
route (a modem or a tethered phone is taken to cost, everything else not to). What NetworkManager guesses to be metered
counts as metered, as its documentation advises.
"""

from __future__ import annotations

import os

from edge_daemon.sensors.dbus import Property, get_number
from edge_daemon.sensors.files import Files
from edge_daemon.sensors.reading import Metered, Unavailable

_BUSES = ("run/dbus/system_bus_socket", "var/run/dbus/system_bus_socket")
_METERED = Property(
    service="org.freedesktop.NetworkManager",
    path="/org/freedesktop/NetworkManager",
    interface="org.freedesktop.NetworkManager",
    name="Metered",
)
# NMMetered (NetworkManager, nm-dbus-interface.h): unknown, yes, no, guessed yes, guessed no.
_SAYS = {1: True, 2: False, 3: True, 4: False}
_EVERY_READS = 30
_ROUTES = "proc/net/route"
_EVERYWHERE = "00000000"
_COLUMNS = 8  # interface, destination, gateway, flags, references, use, metric, mask (Documentation of /proc/net/route)
_BY_THE_BYTE = ("wwan", "ppp", "rmnet", "usb", "wwp")


class MeteredNetwork:
    """Whether bytes cost here.

    Args:
        files: Where routes and the bus's socket are.
        given: As the board's owner says; None asks.
    """

    name = "metered"

    def __init__(self, files: Files, given: bool | None = None) -> None:
        self._files = files
        self._given = given
        self._rest = 0
        self._said: Metered | Unavailable = Unavailable("has not been asked yet")

    def read(self) -> Metered | Unavailable:
        """The answer, at most half a minute old."""
        if self._given is not None:
            return Metered(metered=self._given, source="the configuration")
        self._rest -= 1
        if self._rest < 0:
            self._rest = _EVERY_READS - 1
            self._said = self._ask()
        return self._said

    def _ask(self) -> Metered | Unavailable:
        for name in _BUSES:
            if self._files.exists(name):
                value = get_number(os.path.join(self._files.root, name), _METERED)  # noqa: PTH118 - as `Files` does
                if value in _SAYS:
                    return Metered(metered=_SAYS[value], source="NetworkManager")
                break
        return self._by_kind()

    def _by_kind(self) -> Metered | Unavailable:
        """By the interface of the default route with the smallest metric."""
        text = self._files.text(_ROUTES)
        if isinstance(text, Unavailable):
            return text
        routes = [line.split() for line in text.splitlines()[1:]]
        default = [
            (int(words[6]), words[0])
            for words in routes
            if len(words) >= _COLUMNS and words[1] == words[7] == _EVERYWHERE and words[6].isdecimal()
        ]
        if not default:
            return Unavailable("no default route")
        _, interface = min(default)
        return Metered(metered=interface.startswith(_BY_THE_BYTE), source=f"the kind of interface: {interface[:20]}")
