"""How long one inference will take on a board nobody has at hand: a prediction with a stated band.

    ms = factor(board, number format) * (rates . work)

The rates were fitted by non-negative least squares, in log space, to the 14 classification networks of Coral's
published benchmark (coral.ai/docs/edgetpu/benchmarks, column "Dev Board CPU": one Cortex-A53 at 1.5 GHz, int8): the
mean leave-one-out error is 8 %, the largest 25 %. One factor per number format carries them to another CPU: from
XNNPACK's published Raspberry Pi table (google/XNNPACK README @75db3c0), calibrated on MobileNet v1, the other networks
of that table come out within 22 %. Networks of very many tiny operators (NASNet) are underestimated by up to 38 %.

A measurement always beats a prediction; nothing here applies to accelerators.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_sdk.manifest import Precision
from edge_sdk.profile import Profile, Scale

# Milliseconds on the reference core, per 1e9 multiply-accumulates ...
_CONV_MS = 259.6
_CONV1X1_MS = 215.2
_DEPTHWISE_MS = 353.6
# ... a dense layer is a 1x1 convolution of a 1x1 image; none of the fitted networks has enough of them to tell apart.
_DENSE_MS = _CONV1X1_MS
# ... and per 1e6 elements read and written, and 1e6 weights.
_ACTIVATION_MS = 3.372
_WEIGHT_MS = 1.999

# int16x8 has no optimised convolution in XNNPACK and runs on the reference kernels: EfficientNet-Lite0 took 0.61-0.73 s
# where float took 32 ms (measured, x86-64, ai-edge-litert 2.3.0).
_INT16X8_OVER_FP32 = 20.0

# 4-bit weights are unpacked at every call, not once: EfficientNet-Lite0 took 26 ms where float and 8-bit weights took
# 8.4 ms, and a file that mixes them less (measured, x86-64, ai-edge-litert 2.3.0).
_INT4_OVER_FP32 = 2.0

# For formats whose kernels differ from both fitted ones, the band is widened by this: dynamic range took 1.8 times the
# float time on x86-64 and half of it under an emulated Cortex-A72 (measured, ai-edge-litert 2.3.0).
_WIDER = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OpWork:
    """What one inference has to do, counted from the model's graph.

    Attributes:
        conv_macs: Multiply-accumulates of convolutions with a window larger than 1x1.
        conv1x1_macs: Of 1x1 convolutions.
        depthwise_macs: Of depthwise convolutions.
        dense_macs: Of fully connected layers and matrix products.
        activation_elements: Elements that all operators read and write, weights aside.
        weights: Parameters.
    """

    conv_macs: int = 0
    conv1x1_macs: int = 0
    depthwise_macs: int = 0
    dense_macs: int = 0
    activation_elements: int = 0
    weights: int = 0


def reference_ms(work: OpWork) -> float:
    """The time on the reference core: one Cortex-A53 at 1.5 GHz, int8."""
    per_1e9 = (
        work.conv_macs * _CONV_MS
        + work.conv1x1_macs * _CONV1X1_MS
        + work.depthwise_macs * _DEPTHWISE_MS
        + work.dense_macs * _DENSE_MS
    )
    per_1e6 = work.activation_elements * _ACTIVATION_MS + work.weights * _WEIGHT_MS
    return per_1e9 / 1e9 + per_1e6 / 1e6


def predicted_ms(profile: Profile, work: OpWork, precision: Precision) -> tuple[float, float] | None:
    """The expected median of one inference on the profile's CPU, and its band.

    The prediction is for `profile.latency.threads` threads; the truth is expected within `ms / band .. ms * band`.

    Returns:
        `(ms, band)`, or None where the profile has no latency model.
    """
    if profile.latency is None:
        return None
    scale, slower, wider = _kernel(precision, profile.latency.int8, profile.latency.fp32)
    return reference_ms(work) * scale.factor * slower, scale.band * wider


def _kernel(precision: Precision, int8: Scale, fp32: Scale) -> tuple[Scale, float, float]:
    """Which scale holds for a number format, how much slower it is than that, and how much wider its band."""
    match precision:
        case Precision.INT8:
            return int8, 1.0, 1.0
        case Precision.FP32 | Precision.FP16 | Precision.WEIGHT8:
            # Weights are unpacked to float when the model is loaded; the arithmetic is float.
            return fp32, 1.0, 1.0
        case Precision.DYNAMIC:
            return fp32, 1.0, _WIDER
        case Precision.WEIGHT4 | Precision.MIXED:
            return fp32, _INT4_OVER_FP32, _WIDER
        case Precision.INT16X8:
            return fp32, _INT16X8_OVER_FP32, _WIDER
