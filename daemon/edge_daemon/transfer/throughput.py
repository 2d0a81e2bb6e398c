"""What a link carries: learned from transfers and stalls, robust against one absurd window.

Throughput varies by factors, not by differences, so it is kept as a logarithm: a running mean, and a running mean
deviation for the spread. Residuals are clipped. Seconds in which nothing arrived say nothing of the rate; they are the
share of outages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

# Before anything was seen: 1 Mbit/s, give or take a factor of 2.7. The mobile traces in the project's tests have
# medians of 1.3 to 2.4 Mbit/s; a wrong guess is corrected by the first window.
_FIRST_BYTES_PER_S: Final = 125_000.0
_FIRST_SD: Final = 1.0
_GAIN: Final = 0.1
_RESIDUAL_MAX: Final = 1.5  # a factor of 4.5 per window
_SD_MIN, _SD_MAX = 0.05, 1.5
_FROM_MEAN_DEVIATION: Final = 1.2533  # of a normal distribution: sqrt(pi / 2)
_OUTAGE_TAU_S: Final = 120.0
_OUTAGE_MAX: Final = 0.95
_LEAST_BYTES, _LEAST_S = 16 * 1024, 0.05  # less than this is the start of a connection, not its rate
_SLOWEST, _FASTEST = 1.0, 1e10


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """What a link carries while it carries anything.

    Attributes:
        log_bytes_per_s: Natural logarithm of the median.
        sd: Standard deviation of that logarithm from window to window.
        outage: Share of the time in which nothing arrives.
        windows: Seen so far.
    """

    log_bytes_per_s: float = math.log(_FIRST_BYTES_PER_S)
    sd: float = _FIRST_SD
    outage: float = 0.0
    windows: int = 0

    @property
    def bytes_per_s(self) -> float:
        """The median."""
        return math.exp(self.log_bytes_per_s)

    def seconds(self, size_bytes: float, z: float | None = None) -> float:
        """How long so many bytes take, outages included.

        Args:
            size_bytes: So many.
            z: At this many standard deviations below the median rate; None is the expectation, which for a log-normal
                rate lies above the time at the median.
        """
        shift = self.sd**2 / 2 if z is None else z * self.sd
        return size_bytes / self.bytes_per_s * math.exp(shift) / (1 - self.outage)


def seen(link: Throughput, size_bytes: float, seconds: float) -> Throughput:
    """After so many bytes arrived in so many seconds; none at all is an outage."""
    if not (0 <= size_bytes < math.inf and _LEAST_S <= seconds < math.inf):  # NaN fails too
        return link
    stalled = size_bytes == 0
    share = 1 - math.exp(-seconds / _OUTAGE_TAU_S)
    outage = min(link.outage + share * (stalled - link.outage), _OUTAGE_MAX)
    if stalled or size_bytes < _LEAST_BYTES:
        return replace(link, outage=outage)
    rate = math.log(min(max(size_bytes / seconds, _SLOWEST), _FASTEST))
    if link.windows == 0:
        return Throughput(log_bytes_per_s=rate, sd=_FIRST_SD / 2, outage=outage, windows=1)
    windows = link.windows + 1
    gain = max(_GAIN, 1 / windows)
    residual = min(max(rate - link.log_bytes_per_s, -_RESIDUAL_MAX), _RESIDUAL_MAX)
    sd = link.sd + gain * (abs(residual) * _FROM_MEAN_DEVIATION - link.sd)
    return Throughput(
        log_bytes_per_s=link.log_bytes_per_s + gain * residual,
        sd=min(max(sd, _SD_MIN), _SD_MAX),
        outage=outage,
        windows=windows,
    )
