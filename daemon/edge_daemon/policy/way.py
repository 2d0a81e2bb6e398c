"""The way to the server, as far as anybody has seen it: how long a round trip takes, and how much can be sent.

Two things tell: a look at the server, made while nothing is sent, and what apps report of the answers they got. What an
answer took beyond the round trip and the server's own time counts as sending. Where nothing was sent for a while, it is
taken that there is room, and the next request is the test of it: a variant stands by, so that costs no answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edge_daemon.policy import tables

_NO_ANSWER = float("inf")
_LEAST_MS = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What was seen; times are of the frame's clock.

    Attributes:
        rtt_ms: As last seen at `seen_s`; None where the server did not answer.
        up_mbps: As last seen at `sent_s`; None before the first answer.
    """

    rtt_ms: float | None
    seen_s: float
    up_mbps: float | None = None
    sent_s: float = 0.0


def looked(way: Way | None, now_s: float, rtt_ms: float | None) -> Way:
    """After a look. Of a server that is back, what could be sent before it went says nothing any more."""
    if way is None or (way.rtt_ms is None and rtt_ms is not None):
        return Way(rtt_ms=rtt_ms, seen_s=now_s)
    return replace(way, rtt_ms=rtt_ms, seen_s=now_s)


def answered(way: Way | None, now_s: float, took_ms: float, *, payload_kb: float, server_ms: float) -> Way:
    """After an answer that took so long, all in all."""
    before_ms = None if way is None else way.rtt_ms
    most_ms = max(took_ms - server_ms, _LEAST_MS)
    rtt_ms = most_ms if before_ms is None else min(before_ms, most_ms)
    sending_ms = max(most_ms - rtt_ms, payload_kb * 8 / tables.MOST_MBPS, _LEAST_MS)
    return Way(rtt_ms=rtt_ms, seen_s=now_s, up_mbps=min(payload_kb * 8 / sending_ms, tables.MOST_MBPS), sent_s=now_s)


def unanswered(way: Way | None, now_s: float, within_ms: float, *, payload_kb: float, server_ms: float) -> Way | None:
    """After requests of which none was answered within so long: it is taken for twice as long."""
    if way is None or way.rtt_ms is None:
        return way
    sending_ms = max(2 * within_ms - server_ms - way.rtt_ms, _LEAST_MS)
    up_mbps = min(payload_kb * 8 / sending_ms, tables.MOST_MBPS)
    return replace(way, up_mbps=min(up_mbps, known_mbps(way, now_s)), sent_s=now_s)


def is_fresh(way: Way | None, now_s: float, within_s: float) -> bool:
    """Whether something was seen of it in so many seconds."""
    return way is not None and now_s - way.seen_s < within_s


def told(way: Way | None, now_s: float) -> tuple[float | None, float | None]:
    """Round trip in ms and Mbit/s as a policy is told them: infinite where nobody answers, None while not known."""
    if way is None or not is_fresh(way, now_s, tables.WAY_STALE_S):
        return None, None
    return (_NO_ANSWER if way.rtt_ms is None else way.rtt_ms), known_mbps(way, now_s)


def expected_ms(way: Way | None, now_s: float, *, payload_kb: float, server_ms: float) -> float | None:
    """What the next answer may take; infinite where the server does not answer, None where nobody looked lately."""
    rtt_ms, up_mbps = told(way, now_s)
    return None if rtt_ms is None or up_mbps is None else rtt_ms + payload_kb * 8 / up_mbps + server_ms


def known_mbps(way: Way, now_s: float) -> float:
    """What can be sent; as much as one could wish where that was not seen lately."""
    up_mbps = way.up_mbps
    return tables.MOST_MBPS if up_mbps is None or now_s - way.sent_s > tables.SENT_HOLD_S else up_mbps
