"""What an accelerator would take for a network, fitted to what its makers and users published.

    Edge TPU: ms = t0 + MACs * rate + (weights above 6 MB) * streaming       (int8, the whole graph on it)
    TensorRT: ms = t0 + floating-point operations / speed                    (a Jetson Orin Nano Super)

The Edge TPU's rows were fitted to the 14 networks of coral.ai/docs/edgetpu/benchmarks by least squares in log space;
their mean leave-one-out error is 17 % (USB 3) and 24 % (Dev Board). DenseNet, whose time goes into moving activations,
takes twice as long as predicted, and the bands are as wide as that. TensorRT's were fitted to YOLO11 n to x
(ultralytics/ultralytics docs/en/guides/nvidia-jetson.md @0100750), within 13 %; nothing says how they carry to other
networks, so the band is wider.

None of this was run by this project, and whether a network maps whole is the vendor's compiler's to say: where that
matters, these numbers only tell whether it is worth trying.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_sdk.predict import OpWork

_CORAL = "fitted to coral.ai/docs/edgetpu/benchmarks"
_ULTRALYTICS = "fitted to ultralytics/ultralytics docs/en/guides/nvidia-jetson.md @0100750"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """One accelerator on one board.

    Attributes:
        name: What computes.
        start_ms: Of every inference.
        ms_per_gmac: Per 1e9 multiply-accumulates.
        cache_mb: Weights that stay on the accelerator, in 1e6 bytes; the rest is sent anew for every inference.
        ms_per_mb: Of those that are sent.
        band: The truth is expected within `ms / band .. ms * band`.
        source: Where the figures were published.
    """

    name: str
    start_ms: float
    ms_per_gmac: float
    cache_mb: float = 0.0
    ms_per_mb: float = 0.0
    band: float
    source: str


# By profile id. Boards that are not here have no accelerator, or none whose latencies anything published predicts: a
# Hailo's speed falls by the factor eight between MobileNet v2 1.0 and 1.4 (hailo-ai/hailo_model_zoo @c83fc03).
RATES: dict[str, Rates] = {
    "coral-usb": Rates(
        name="Edge TPU", start_ms=1.573, ms_per_gmac=1.527, cache_mb=6.0, ms_per_mb=2.005, band=2.2, source=_CORAL
    ),
    "coral-dev": Rates(
        name="Edge TPU", start_ms=1.664, ms_per_gmac=1.791, cache_mb=6.0, ms_per_mb=2.448, band=2.2, source=_CORAL
    ),
    # Twice the multiply-accumulates are operations: 2 / 10.61e12 per second.
    "jetson-orin-nano": Rates(
        name="TensorRT, int8", start_ms=3.30, ms_per_gmac=2 / 10.61, band=2.0, source=_ULTRALYTICS
    ),
}


def predicted_ms(rates: Rates, work: OpWork) -> float:
    """One inference of an int8 network of this work, if all of it runs there; one byte a weight."""
    macs = work.conv_macs + work.conv1x1_macs + work.depthwise_macs + work.dense_macs
    streamed_mb = max(0.0, work.weights / 1e6 - rates.cache_mb) if rates.ms_per_mb else 0.0
    return rates.start_ms + rates.ms_per_gmac * macs / 1e9 + rates.ms_per_mb * streamed_mb
