"""What an encoding costs on a link: its time, its energy, and both with the money as seconds of waiting.

    cost_s = time_s + megabytes * price_s_per_mb (metered) + joules * price_s_per_j
    time_s = bytes / rate / (1 - outages) * (1 + drops) + round trips * rtt + apply_s

Everything in it grows with the bytes and falls with the rate, so a smaller encoding that is no dearer to apply never
costs more, and a faster link never either.
"""

from __future__ import annotations

import math
from typing import Final

from edge_daemon.transfer.types import Bound, Device, Encoding, File, Kind, Link, Priced

LATE_Z: Final = 1.645  # 95 % of a normal distribution
_MB: Final = 1e6
# TCP and TLS 1.3 take a round trip each before the first request, which takes the third (RFC 9293, RFC 8446).
SETUP_TRIPS: Final = 3
# Then the window doubles each round trip from 10 segments (RFC 6928). Six doublings are 0.9 MB in flight: more than a
# link of 20 Mbit/s needs at 300 ms.
_FIRST_WINDOW_BYTES: Final = 14_600
_DOUBLINGS_MAX: Final = 6
_CHUNK_MIN, _CHUNK_MAX, _CHUNK = 64 * 1024, 8 * 1024 * 1024, 1024 * 1024
_DROPS_MAX: Final = 1.0
_LEAST_WORTH: Final = 0.01  # points a second: where the new file gains nothing that can be told, energy is dear
_DEAREST_S_PER_J: Final = 3600.0
RESERVE_BYTES: Final = 16 * 1024 * 1024  # of the disk, for state and logs
RESERVE_MB: Final = 32.0  # of memory, for the apps' own breath


def priced(file: File, encoding: Encoding, device: Device, link: Link) -> Priced:
    """The encoding with what it costs."""
    fixed_s = round_trips(encoding.size_bytes) * link.rtt_ms / 1000 + encoding.apply_s
    drops = 1 + min(_wasted(link), _DROPS_MAX)
    on_air_s = link.now.seconds(encoding.size_bytes) * drops
    joules = device.radio_w * on_air_s + device.cpu_w * encoding.apply_s
    time_s = on_air_s + fixed_s
    return Priced(
        variant=file.variant,
        encoding=encoding,
        time_s=time_s,
        late_s=max(time_s, link.now.seconds(encoding.size_bytes, LATE_Z) * drops + fixed_s),
        joules=joules,
        cost_s=time_s + paid_s(encoding, link) + (0.0 if device.charging else joules * device.price_s_per_j),
        chunk_bytes=chunk_bytes(link),
    )


def paid_s(encoding: Encoding, link: Link) -> float:
    """What its bytes cost, in seconds of waiting."""
    return encoding.size_bytes / _MB * link.price_s_per_mb if link.metered else 0.0


def price_s_per_j(points_per_j: float, gain_points: float, requests_per_s: float) -> float:
    """The policy's price of a joule in seconds of waiting, for `Device.price_s_per_j`.

    A second without the new file costs its gain in quality on every request of that second.

    Args:
        points_per_j: What the policy gives for a joule, in points of quality times requests; 0 on mains.
        gain_points: By how much the new file is better than what runs until then.
        requests_per_s: How many there are.
    """
    per_s = max(gain_points * requests_per_s, _LEAST_WORTH)
    return min(max(points_per_j, 0.0) / per_s, _DEAREST_S_PER_J)


def round_trips(size_bytes: int) -> float:
    """How many round trips it takes until so many bytes travel at the link's rate."""
    return SETUP_TRIPS + min(math.log2(1 + size_bytes / _FIRST_WINDOW_BYTES), _DOUBLINGS_MAX)


def chunk_bytes(link: Link) -> int:
    """How large the pieces are: a power of two from 64 KiB to 8 MiB, 1 MiB where connections hold.

    A piece costs a round trip, a lost connection half a piece, in time and where it is metered in money. The sum is
    least at sqrt(2 * cost * time between losses) seconds (Young 1974, for checkpoints, which is the same question).
    """
    if link.between_drops_s == math.inf:
        return _CHUNK
    rate = link.now.bytes_per_s
    dearer = 1 + (rate / _MB * link.price_s_per_mb if link.metered else 0.0)  # a byte twice, against one second
    best = rate * math.sqrt(2 * link.rtt_ms / 1000 * link.between_drops_s / dearer)
    if not best > _CHUNK_MIN:
        return _CHUNK_MIN
    return min(1 << round(math.log2(min(best, _CHUNK_MAX))), _CHUNK_MAX)


def after_loss(chunk: int) -> int:
    """The size of the pieces after a connection was lost within one: half.

    On a link that is lost before each piece is whole nothing would ever arrive.
    """
    return max(_CHUNK_MIN, chunk // 2)


def unfit(file: File, encoding: Encoding, device: Device) -> Bound | None:
    """What keeps an encoding from being used here; None if nothing does."""
    if encoding.base is not None and encoding.base not in device.has:
        return Bound.BASE
    if encoding.apply_mb > device.free_mb - RESERVE_MB and encoding.apply_mb > 0:
        return Bound.MEMORY
    # A full file is received in its place; of the others both the pieces and what is made of them lie on the disk.
    extra = 0 if encoding.kind is Kind.FULL else encoding.size_bytes
    needed = file.size_bytes + extra
    return Bound.DISK if needed > device.free_bytes - RESERVE_BYTES else None


def _wasted(link: Link) -> float:
    """The share of time that lost connections cost, with the best pieces."""
    return 0.0 if link.between_drops_s == math.inf else math.sqrt(2 * link.rtt_ms / 1000 / link.between_drops_s)
