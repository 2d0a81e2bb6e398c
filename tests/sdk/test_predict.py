"""Predicted latencies: near what was published, in proportion to the work, and silent where nothing is known."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk import profile as profiles
from edge_sdk.machine import cpu_features, machine_name
from edge_sdk.manifest import Precision
from edge_sdk.predict import OpWork, predicted_ms, reference_ms
from edge_sdk.profile import LatencyModel, Profile

pytestmark = pytest.mark.device

ALL = profiles.load_all()
WITH = [profile for profile in ALL if profile.latency is not None]

# MobileNet v1 1.0 224, counted by hand from Howard et al. 2017, table 1: the first convolution, thirteen pairs of
# depthwise and 1x1 convolutions, and the dense layer.
_SIZES = [(112, 32, 64), (56, 64, 128), (56, 128, 128), (28, 128, 256), (28, 256, 256), (14, 256, 512)]
_SIZES += [(14, 512, 512)] * 5 + [(7, 512, 1024), (7, 1024, 1024)]
MOBILENET_V1 = OpWork(
    conv_macs=112 * 112 * 32 * 27,
    conv1x1_macs=sum(side * side * given * made for side, given, made in _SIZES),
    depthwise_macs=sum(side * side * given * 9 for side, given, _ in _SIZES),
    dense_macs=1024 * 1000,
    activation_elements=10_000_000,
    weights=4_200_000,
)

works = st.builds(
    OpWork,
    conv_macs=st.integers(0, 10**12),
    conv1x1_macs=st.integers(0, 10**12),
    depthwise_macs=st.integers(0, 10**12),
    dense_macs=st.integers(0, 10**12),
    activation_elements=st.integers(0, 10**10),
    weights=st.integers(0, 10**10),
)


def test_the_reference_core_takes_what_coral_published_for_mobilenet() -> None:
    # coral.ai/docs/edgetpu/benchmarks: MobileNet v1 on the Dev Board's CPU, 164 ms.
    assert reference_ms(MOBILENET_V1) == pytest.approx(164, rel=0.25)


@given(works, st.sampled_from(WITH), st.sampled_from(Precision))
def test_a_prediction_is_a_finite_time_with_a_band_never_below_one(
    work: OpWork, profile: Profile, precision: Precision
) -> None:
    found = predicted_ms(profile, work, precision)
    assert found is not None
    assert 0 <= found[0] < math.inf
    assert 1 <= found[1] < math.inf


@given(works, works)
def test_the_work_of_two_networks_takes_the_time_of_both(one: OpWork, other: OpWork) -> None:
    both = OpWork(**{name: getattr(one, name) + getattr(other, name) for name in OpWork.__dataclass_fields__})
    assert reference_ms(both) == pytest.approx(reference_ms(one) + reference_ms(other))


@pytest.mark.parametrize("profile", WITH, ids=lambda p: p.id)
def test_eight_bits_are_predicted_faster_than_float_and_sixteen_far_slower(profile: Profile) -> None:
    found = {precision: predicted_ms(profile, MOBILENET_V1, precision) for precision in Precision}
    ms = {precision: value[0] for precision, value in found.items() if value is not None}
    assert ms[Precision.INT8] < ms[Precision.FP32] < ms[Precision.INT16X8]
    assert ms[Precision.FP16] == ms[Precision.FP32]


@pytest.mark.parametrize("profile", WITH, ids=lambda p: p.id)
def test_where_the_kernels_differ_from_the_fitted_ones_the_band_is_wider(profile: Profile) -> None:
    latency: LatencyModel = profile.latency  # type: ignore[assignment]  # WITH holds those that have one
    bands = {precision: predicted_ms(profile, MOBILENET_V1, precision) for precision in Precision}
    assert bands[Precision.DYNAMIC] is not None
    assert bands[Precision.DYNAMIC][1] > latency.fp32.band


def test_a_board_without_a_latency_model_gets_no_number() -> None:
    without = msgspec.structs.replace(ALL[0], latency=None)
    assert predicted_ms(without, MOBILENET_V1, Precision.INT8) is None


# ------------------------------------------------------------------------------------------------- this machine


def test_a_machine_is_named_by_its_processor_or_board(tmp_path) -> None:
    (tmp_path / "proc").mkdir()
    info = tmp_path / "proc" / "cpuinfo"
    info.write_text("processor: 0\nmodel name\t: AMD EPYC 7B13\nflags\t\t: fpu avx2 fma\n")
    assert machine_name(tmp_path).startswith("AMD EPYC 7B13, ")
    assert cpu_features(tmp_path) == {"fpu", "avx2", "fma"}
    info.write_text(
        "processor\t: 0\nFeatures\t: fp asimd\n\nprocessor : 1\nFeatures : fp\n\nModel\t: Raspberry Pi 4 Model B\n"
    )
    assert machine_name(tmp_path).startswith("Raspberry Pi 4 Model B, ")
    assert cpu_features(tmp_path) == {"fp", "asimd"}


def test_a_machine_that_says_nothing_of_itself_has_a_name_all_the_same(tmp_path) -> None:
    assert machine_name(tmp_path)
    assert cpu_features(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_bytes(
        b"\xff\0model name : " + b"x" * 100_000 + b"\nmodel name : " + b"y" * 10_000
    )
    assert len(machine_name(tmp_path)) <= 200
