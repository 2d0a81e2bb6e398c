"""How busy and how hot an accelerator is, read from recorded trees, and what a pool makes of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from accelerator_stage import delegation, request

from edge_sdk.delegates.findings import Findings
from edge_sdk.engine import Engine
from edge_sdk.guard import GuardedEngine
from edge_sdk.isolation import IsolatedEngine
from edge_sdk.opening import open_engine
from edge_sdk.parallel import ReplicaPool
from edge_sdk.usage import AcceleratorWatch, Heat, Worker, read_millidegrees, watch

pytestmark = [pytest.mark.accelerator, pytest.mark.device]


def put(root: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def test_an_edge_tpu_on_pcie_tells_its_temperature_and_where_its_driver_slows_it_down(tmp_path: Path) -> None:
    apex = "sys/class/apex/apex_1"
    put(tmp_path, {f"{apex}/temp": "51050\n", f"{apex}/trip_point0_temp": "84800\n"})
    seen = AcceleratorWatch("edgetpu:pci:1", root=tmp_path).look()
    assert (seen.temp_c, seen.limit_c) == (51.05, 84.8)
    assert AcceleratorWatch("edgetpu:pci:0", root=tmp_path).look().temp_c is None
    assert AcceleratorWatch("edgetpu:usb:0", root=tmp_path).look().temp_c is None


@pytest.mark.parametrize("text", ["", "\n", "nan", "powered down", "\0\0"])
def test_a_sensor_that_says_nothing_is_no_temperature(tmp_path: Path, text: str) -> None:
    put(tmp_path, {"temp": text})
    assert read_millidegrees(tmp_path / "temp") is None
    assert read_millidegrees(tmp_path / "absent") is None


def test_a_jetsons_gpu_counts_its_own_load_and_is_found_by_what_it_is(tmp_path: Path) -> None:
    gpu = "sys/class/devfreq/17000000.gpu/device"
    put(tmp_path, {f"{gpu}/of_node/name": "ga10b\0", f"{gpu}/load": "312\n"})
    put(tmp_path, {"sys/class/thermal/thermal_zone7/type": "gpu-thermal\n"})
    zone = "sys/class/thermal/thermal_zone7"
    put(
        tmp_path,
        {
            f"{zone}/temp": "48500\n",
            f"{zone}/trip_point_0_type": "critical\n",
            f"{zone}/trip_point_0_temp": "104500\n",
            f"{zone}/trip_point_1_type": "passive\n",
            f"{zone}/trip_point_1_temp": "99000\n",
        },
    )
    seen = AcceleratorWatch("gpu", root=tmp_path).look()
    assert (seen.busy, seen.counted_by) == (0.312, "device")
    assert (seen.temp_c, seen.limit_c) == (48.5, 99.0)
    put(tmp_path, {f"{gpu}/load": ""})
    assert AcceleratorWatch("gpu", root=tmp_path).look().busy is None


def test_where_the_device_counts_nothing_the_calls_do(tmp_path: Path) -> None:
    now, worker = [0.0], SimpleNamespace(busy_s=5.0, memory_bytes=40_000_000)

    def found() -> Worker | None:
        return worker

    seen = AcceleratorWatch("edgetpu", found, root=tmp_path, clock=lambda: now[0])
    assert seen.look().busy is None  # there is no time before the first look
    now[0], worker.busy_s = 2.0, 6.5
    first = seen.look()
    assert (first.busy, first.counted_by, first.memory_bytes) == (0.75, "calls", 40_000_000)
    now[0] += 0.001
    assert seen.look().busy == 0.75  # too soon to tell another
    now[0] += 1
    assert seen.look().busy == 0


def test_a_new_engine_on_the_same_accelerator_is_counted_afresh(tmp_path: Path) -> None:
    now, workers = [0.0], [SimpleNamespace(busy_s=9.0, memory_bytes=None)]
    seen = AcceleratorWatch("edgetpu", lambda: workers[0], root=tmp_path, clock=lambda: now[0])
    seen.look()
    now[0], workers[0] = 1.0, SimpleNamespace(busy_s=0.1, memory_bytes=None)
    assert seen.look().busy is None
    now[0], workers[0].busy_s = 2.0, 0.6
    assert seen.look().busy == 0.5


def test_new_work_goes_elsewhere_while_an_accelerator_is_hot(mock_library: Path, dense: Path, tmp_path: Path) -> None:
    temp = tmp_path / "temp"
    temp.write_text("60000\n")
    tpu = open_engine(dense, delegate=request(mock_library, sleep_us=300), findings=Findings(None))
    assert isinstance(tpu, GuardedEngine)
    seen = watch(tpu, heat=lambda: Heat(temp_c=int(temp.read_text()) / 1e3, limit_c=80.0))
    slower = IsolatedEngine(dense, delegation=delegation(mock_library, sleep_us=900))
    batch = np.random.default_rng(5).normal(size=(32, 4)).astype(np.float32)
    with (
        Engine(dense) as alone,
        ReplicaPool([slower, tpu], names=["cpu", "tpu"], watch={"tpu": seen.condition}) as pool,
    ):
        right = alone.run([batch])[0]

        def of_the_accelerator() -> int:
            before = pool.shares().replicas[1].samples
            np.testing.assert_allclose(pool.run([batch])[0], right, atol=1e-6)
            return pool.shares().replicas[1].samples - before

        def until(wanted: Callable[[int], bool]) -> None:
            end_s = time.monotonic() + 60
            while not wanted(of_the_accelerator()):
                assert time.monotonic() < end_s

        until(lambda samples: samples > 16)  # it is the faster one
        temp.write_text("81000\n")
        until(lambda samples: samples == 0)
        assert [of_the_accelerator() for _ in range(5)] == [0] * 5
        temp.write_text("60000\n")
        until(lambda samples: samples > 16)


def test_a_busy_accelerator_gets_a_share_by_what_it_really_delivers(mock_library: Path, dense: Path) -> None:
    slow = open_engine(dense, delegate=request(mock_library, sleep_us=5000), findings=Findings(None))
    batch = np.random.default_rng(5).normal(size=(64, 4)).astype(np.float32)
    with ReplicaPool([Engine(dense), slow], names=["cpu", "tpu"]) as pool:
        for _ in range(5):
            pool.run([batch])
        got = {each.name: each.samples for each in pool.shares().replicas}
    assert got["tpu"] < got["cpu"]
