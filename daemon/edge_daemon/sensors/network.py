"""How far away the hub is and how much goes there and back: seen in what is sent anyway, without inventing traffic."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from edge_daemon.sensors.reading import Unavailable
from edge_daemon.sensors.tcpinfo import TcpInfo

STALE_S = 30.0
_SMOOTHING = 0.25  # a change of the path shows to 90 % after 8 samples; one straggler moves it by a quarter
_MAX_MS = 86_400_000.0

Direction = Literal["up", "down"]
THROUGHPUT_STALE_S = 600.0
# Less than this is over before a connection has found its pace: the first window is 10 segments, 15 kB.
_LEAST_BYTES = 64 * 1024
_SHORTEST_S = 0.02  # the kernel counts busy time in jiffies, of 1 to 10 ms
_MAX_MBPS = 1e6
_TRANSFER_SMOOTHING = 0.5  # transfers are few, and the path changes between them


@dataclass(frozen=True, slots=True, kw_only=True)
class Trips:
    """Round trips so far.

    Attributes:
        smoothed_ms: Exponentially weighted mean.
        min_ms: The shortest since the connection was made.
        at_s: When the last one ended.
    """

    smoothed_ms: float
    last_ms: float
    min_ms: float
    at_s: float


class RoundTrip:
    """Holds the round trips that the uplink times, and what the kernel says of the connection (TCP_INFO).

    The uplink's own include the broker's work, as every message does, so they count; the kernel's stands in while there
    are none, as where a broker does not answer the probe. May be fed from one thread and read from another.

    Args:
        clock: Monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._trips: Trips | None = None
        self._kernels: Trips | None = None

    def feed(self, rtt_ms: float) -> None:
        """One more; what is no sane time is ignored."""
        if not 0 <= rtt_ms <= _MAX_MS:  # NaN fails too
            return
        with self._lock:
            old = self._trips
            self._trips = Trips(
                smoothed_ms=rtt_ms if old is None else old.smoothed_ms + _SMOOTHING * (rtt_ms - old.smoothed_ms),
                last_ms=rtt_ms,
                min_ms=rtt_ms if old is None else min(rtt_ms, old.min_ms),
                at_s=self._clock(),
            )

    def look(self, info: TcpInfo) -> None:
        """What the kernel says of the connection now; it has smoothed it."""
        if info.rtt_ms is not None and 0 <= info.rtt_ms <= _MAX_MS:
            with self._lock:
                self._kernels = Trips(
                    smoothed_ms=info.rtt_ms, last_ms=info.rtt_ms, min_ms=info.rtt_ms, at_s=self._clock()
                )

    def forget(self) -> None:
        """The connection is gone: what follows is another path."""
        with self._lock:
            self._trips = self._kernels = None

    def read(self) -> Trips | Unavailable:
        """The round trips, unless the last is older than 30 s."""
        with self._lock:
            known = [trips for trips in (self._trips, self._kernels) if trips is not None]
        if not known:
            return Unavailable("no connection to a hub")
        now_s = self._clock()
        return next((trips for trips in known if now_s - trips.at_s <= STALE_S), Unavailable("stale"))


class Throughput:
    """Megabits a second, as seen in transfers that were large enough to tell.

    Whoever moves many bytes feeds what it took; the connection to the hub is looked at as well: bytes acknowledged over
    the time in which there was something to send. May be fed from one thread and read from another.

    Args:
        clock: Monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[Direction, tuple[float, float]] = {}
        self._looked: TcpInfo | None = None

    def feed(self, direction: Direction, size_bytes: float, seconds: float) -> None:
        """A transfer; one that is too small to tell, or takes no sane time, is ignored."""
        if not (size_bytes >= _LEAST_BYTES and seconds >= _SHORTEST_S):  # NaN fails too
            return
        mbps = size_bytes * 8 / seconds / 1e6
        if not mbps <= _MAX_MBPS:
            return
        now_s = self._clock()
        with self._lock:
            old, at_s = self._seen.get(direction, (mbps, now_s))
            fresh = now_s - at_s <= THROUGHPUT_STALE_S
            self._seen[direction] = (old + _TRANSFER_SMOOTHING * (mbps - old) if fresh else mbps), now_s

    def look(self, info: TcpInfo) -> None:
        """One more look at the connection to the hub."""
        before, self._looked = self._looked, info
        if before is None or None in {before.acked_bytes, before.busy_s, info.acked_bytes, info.busy_s}:
            return
        acked = (info.acked_bytes or 0) - (before.acked_bytes or 0)
        busy_s = (info.busy_s or 0.0) - (before.busy_s or 0.0)
        self.feed("up", acked, busy_s)  # of another connection: less than before, and ignored

    def read(self, direction: Direction) -> float | Unavailable:
        """Megabits a second, unless the last transfer is older than 10 minutes."""
        with self._lock:
            seen = self._seen.get(direction)
        if seen is None:
            return Unavailable("no transfer was large enough to tell")
        age_s = self._clock() - seen[1]
        return seen[0] if age_s <= THROUGHPUT_STALE_S else Unavailable("the last transfer is too long ago")
