"""What an accelerator would take for a network that was not compiled for it yet, fitted to published latencies.

    Edge TPU: ms = t0 + MACs * rate + (weights above 6 MB) * streaming       (int8, the whole graph on it)
    TensorRT: ms = t0 + floating-point operations / speed                    (a Jetson Orin Nano Super)

The Edge TPU's figures are those of its table (`edge_converter.targets`). TensorRT's were fitted to YOLO11 n to x
(ultralytics/ultralytics docs/en/guides/nvidia-jetson.md @0100750), within 13 %; nothing says how they carry to other
networks, so the band is wider. Of other accelerators nothing published predicts a latency: a Hailo's speed falls by the
factor eight between MobileNet v2 1.0 and 1.4 (hailo-ai/hailo_model_zoo @c83fc03).

None of this was run by this project, and whether a network maps whole is the vendor's compiler's to say: where that
matters, these numbers only tell whether it is worth trying.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_converter import targets
from edge_sdk.predict import OpWork


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """One accelerator on one board.

    Attributes:
        name: What computes.
        delegate: By which name a profile tells the power it draws.
        start_ms: Of every inference.
        ms_per_gmac: Per 1e9 multiply-accumulates.
        cache_mb: Weights that stay on the accelerator, in 1e6 bytes; the rest is sent anew for every inference.
        ms_per_mb: Of those that are sent.
        band: The truth is expected within `ms / band .. ms * band`.
        source: Where the figures were published.
    """

    name: str
    delegate: str
    start_ms: float
    ms_per_gmac: float
    cache_mb: float = 0.0
    ms_per_mb: float = 0.0
    band: float
    source: str


# Two operations are one multiply-accumulate: 2 / 10.61e12 seconds each.
_TENSORRT = Rates(
    name="TensorRT, int8",
    delegate="gpu",
    start_ms=3.30,
    ms_per_gmac=2 / 10.61,
    band=2.0,
    source="fitted to ultralytics/ultralytics docs/en/guides/nvidia-jetson.md @0100750",
)


def rates(profile: str) -> Rates | None:
    """Of the accelerator on this board, or None where it has none that anything published predicts."""
    if profile == "jetson-orin-nano":
        return _TENSORRT
    for table in targets.tables():
        for speed in table.speeds:
            if profile in speed.profiles:
                return Rates(
                    name=table.title.partition(" (")[0],  # without the compiler it is about
                    delegate=table.delegate.value,
                    start_ms=speed.t0_ms,
                    ms_per_gmac=speed.ms_per_gmac,
                    cache_mb=speed.cache_mb,
                    ms_per_mb=speed.ms_per_mb,
                    band=speed.band,
                    source=speed.source,
                )
    return None


def predicted_ms(rates: Rates, work: OpWork) -> float:
    """One inference of an int8 network of this work, if all of it runs there; one byte a weight."""
    macs = work.conv_macs + work.conv1x1_macs + work.depthwise_macs + work.dense_macs
    streamed_mb = max(0.0, work.weights / 1e6 - rates.cache_mb) if rates.ms_per_mb else 0.0
    return rates.start_ms + rates.ms_per_gmac * macs / 1e9 + rates.ms_per_mb * streamed_mb
