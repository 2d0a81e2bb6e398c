"""`edge doctor`: what a board has, what works, and the command that mends the rest, here and on recorded boards."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from accelerator_stage import compiled

from edge_sdk.cli import asked, main
from edge_sdk.cli.doctor import _coloured
from edge_sdk.delegates.findings import Finding as Kept
from edge_sdk.delegates.findings import Findings
from edge_sdk.delegates.registry import backends
from edge_sdk.doctor import (
    CHECKS,
    Finding,
    Place,
    State,
    accelerators,
    all_checks,
    board,
    processor,
    runtimes,
    sensors,
    storage,
)
from edge_sdk.doctor.contract import parted
from edge_sdk.errors import EdgeError
from edge_sdk.mqtt import Conditions
from edge_sdk.runtime import Unavailable

pytestmark = pytest.mark.device

TINY = Path(__file__).parent.parent / "data" / "tiny"
PI = {
    "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
    "proc/device-tree/compatible": "raspberrypi,4-model-b\0brcm,bcm2711\0",
    "proc/cpuinfo": "Features\t: fp asimd evtstrm crc32 cpuid\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n",
    "proc/meminfo": "MemTotal: 1900000 kB\nMemAvailable: 90000 kB\nSwapTotal: 100000 kB\nSwapFree: 90000 kB\n",
    "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "45622\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
    "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "1800000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
}
EDGETPU = {
    "usr/lib/libedgetpu.so.1": "",
    "sys/bus/usb/devices/1-1/idVendor": "18d1\n",
    "sys/bus/usb/devices/1-1/idProduct": "9302\n",
    "sys/bus/usb/devices/1-1/speed": "480\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[Mapping[str, str]], Place]:
    def write(files: Mapping[str, str]) -> Place:
        for name, text in files.items():
            path = tmp_path / "root" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return Place(root=tmp_path / "root", machine="aarch64")

    return write


@pytest.fixture(scope="module")
def mock_delegate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("mock"))


def by_name(findings: Any) -> dict[str, Finding]:
    return {one.what: one for one in findings}


def examined(capsys: pytest.CaptureFixture[str], *words: object, status: int = 0) -> dict[str, dict[str, Any]]:
    """Findings by section and name."""
    capsys.readouterr()
    assert main(["doctor", *map(str, words), "--json"]) == status
    told = json.loads(capsys.readouterr().out)
    assert told["works"] is (status == 0)
    return {section["name"]: {one["what"]: one for one in section["findings"]} for section in told["sections"]}


def test_a_raspberry_pi_is_known_with_what_its_processor_can_do(tree: Callable[[Mapping[str, str]], Place]) -> None:
    place = tree(PI)
    known = by_name(board.look(place))
    assert known["board"].reason == "Raspberry Pi 4 Model B Rev 1.4; profile rpi4 (Raspberry Pi 4 Model B)"
    assert known["system"].reason.startswith("Debian GNU/Linux 12 (bookworm), kernel ")
    can = by_name(processor.look(place))
    assert can["features"].reason == "asimd: vectors of floats and integers"
    assert can["does without"].state is State.MISSING
    assert "asimddp: dot products of 8-bit integers" in can["does without"].reason
    assert can["CompiledModel"].state is State.WARNING
    assert "lacks asimddp, atomics" in can["CompiledModel"].reason


def test_a_profile_that_cannot_be_is_told_and_does_not_hide_the_board(
    tree: Callable[[Mapping[str, str]], Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cold = 'extends = "rpi4"\n[thermal]\nmax_temp_c = { value = 20, basis = "measured" }\n'
    (tmp_path / "rpi4.toml").write_text(cold)
    monkeypatch.setenv("EDGE_PROFILES", str(tmp_path))
    (found,) = [one for one in board.look(tree(PI)) if one.what == "board"]
    assert found.state is State.WARNING
    assert "profile rpi4 (Raspberry Pi 4 Model B), and a profile was left out: " in found.reason
    assert "rpi4.toml: thermal.max_temp_c: 20 C" in found.reason


def test_a_newer_core_may_use_compiled_models(tree: Callable[[Mapping[str, str]], Place]) -> None:
    place = tree({"proc/cpuinfo": "Features\t: fp asimd atomics fphp asimdhp asimddp i8mm\n"})
    can = by_name(processor.look(place))
    assert can["CompiledModel"].state is State.OK
    assert "does without" not in can


def test_heat_throttling_and_little_memory_are_told(tree: Callable[[Mapping[str, str]], Place]) -> None:
    place = tree(PI)
    seen = by_name(sensors.look(place))
    assert seen["temperature"].reason == "cpu-thermal 46 C"
    assert seen["throttling"].state is State.WARNING
    assert seen["throttling"].reason == (
        "too little voltage, throttled; since the start: too little voltage, throttled"
    )
    assert seen["throttling"].hint == "take a stronger supply and a short cable"
    assert seen["clock"].command == "echo schedutil | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
    room = by_name(storage.look(place))
    assert room["memory"].state is State.WARNING
    assert room["memory"].reason.startswith("92 MB of 1.9 GB are free")
    assert room["swap"].reason == "10 MB of 102 MB in use"


def test_a_machine_that_tells_nothing_is_no_reason_to_fail(tmp_path: Path) -> None:
    place = Place(root=tmp_path, machine="riscv64")
    told = [one for check in (board, processor, sensors, storage) for one in check.look(place)]
    assert by_name(told)["board"].state is State.WARNING
    assert by_name(told)["memory"].state is State.WARNING
    assert by_name(told)["temperature"].state is State.MISSING
    assert by_name(told)["power"].reason == "no sensor of power is known here"


def test_an_edge_tpu_on_a_slow_port_is_found_and_warned_of(tree: Callable[[Mapping[str, str]], Place]) -> None:
    seen = by_name(accelerators.look(tree(EDGETPU)))
    assert seen["edgetpu"].state is State.OK
    assert seen["edgetpu port"].state is State.WARNING
    assert "3.2 times as long" in seen["edgetpu port"].reason
    seen = by_name(accelerators.look(tree({"sys/bus/usb/devices/1-1/speed": "5000\n"})))
    assert "edgetpu port" not in seen


def test_every_delegate_is_told_and_what_is_missing_has_a_command_or_words(tmp_path: Path) -> None:
    seen = by_name(accelerators.look(Place(root=tmp_path)))
    assert set(backends()) - {"external", "xnnpack"} <= seen.keys()
    assert seen["teflon"].command == "sudo apt install mesa-teflon-delegate"
    assert seen["teflon"].hint == "Debian 13 or newer"
    for one in seen.values():
        assert one.state is not State.MISSING or one.command or one.hint, one


@pytest.mark.parametrize(
    ("hint", "command", "rest"),
    [
        ("sudo usermod -aG apex $USER, then log in again", "sudo usermod -aG apex $USER", "then log in again"),
        ("pip install 'numpy<2' mends it", "pip install 'numpy<2'", ""),
        ("install it (apt-get install libvulkan1) and try again", "sudo apt-get install libvulkan1", "and try again"),
        ("reinstall ai-edge-litert", "pip install --force-reinstall ai-edge-litert", ""),
        ("plug it in", "", "plug it in"),
        ("", "", ""),
    ],
)
def test_the_command_in_a_hint_can_be_pasted(hint: str, command: str, rest: str) -> None:
    assert parted(hint) == (command, rest)


def test_a_delegate_is_tried_in_a_process_of_its_own_and_remembered(mock_delegate: Path, tmp_path: Path) -> None:
    def tried(text: str) -> Finding:
        place = Place(
            requests=asked.delegates([text]), model=TINY / "dense_fp32.tflite", findings=Findings(tmp_path / "found")
        )
        return by_name(accelerators.look(place))["libmock_delegate.so"]

    good = tried(str(mock_delegate))
    assert good.state is State.OK
    assert good.reason.startswith("computes dense_fp32.tflite in ")
    assert tried(str(mock_delegate)).reason == f"computes (found out just now): {mock_delegate}"
    first = tried(f"{mock_delegate},fail=crash")
    assert (first.state, "crashed (segmentation fault)" in first.reason) == (State.BROKEN, True)
    again = tried(f"{mock_delegate},fail=crash")
    assert again.reason.endswith("(found out just now)")
    assert again.command == "edge doctor --deep --again"


def test_what_apps_found_out_is_told_until_it_is_forgotten(
    tmp_path: Path,
) -> None:
    kept = Findings(tmp_path / "delegates")
    kept.note("a" * 64, Kept(works=False, what="digits.tflite on edgetpu", reason="hung while it was loading"))
    kept.note("b" * 64, Kept(works=True))
    told = by_name(accelerators.look(Place(root=tmp_path, findings=kept)))["remembered"]
    assert told.reason == (
        "digits.tflite on edgetpu: hung while it was loading (found out just now; apps do not try it again for a day)"
    )
    assert told.command == "edge doctor --again"
    assert len(kept.all()) == 2
    assert kept.forget() == 2
    assert kept.all() == ()
    assert Findings(None).forget() == 0


def test_a_wrong_answer_is_the_reason(
    mock_delegate: Path, capsys: pytest.CaptureFixture[str], make_bundle: Callable[..., Any]
) -> None:
    shapes = {
        "inputs": [{"name": "x", "shape": [1, 4], "dtype": "float32"}],
        "outputs": [{"name": "scores", "shape": [1, 3], "dtype": "float32"}],
    }
    bundle = make_bundle(contents={"dense": (TINY / "dense_fp32.tflite").read_bytes()}, **shapes)
    told = examined(capsys, "--delegate", f"{mock_delegate},fail=wrong", "--model", bundle.path)["accelerators"]
    assert told["libmock_delegate.so"]["reason"].startswith("it computes wrong: ")


def test_here_models_run_and_people_get_sections_with_a_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    for check in CHECKS:
        assert f"\n{check.name.capitalize()}\n" in f"\n{told}"
    assert "a small model runs on the CPU with " in told
    assert "\nModels run here: " in told
    assert "\033" not in told, "no colour where nobody sees it"


def test_where_no_model_runs_the_exit_status_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nkill -ILL $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    told = examined(capsys, status=1)["runtimes"]
    assert list(told) == ["computing"], "what crashes there is not loaded here"
    assert told["computing"]["state"] == "broken"
    assert told["computing"]["reason"] == "ended the runtime with an illegal instruction"
    assert told["computing"]["command"]


def test_a_runtime_that_is_named_and_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_RUNTIME", "none")
    told = by_name(runtimes.look(Place()))["computing"]
    assert (told.state, told.is_vital) == (State.BROKEN, True)
    assert told.reason == "'none' is no runtime"
    assert told.command == "unset EDGE_RUNTIME"


def test_where_every_runtime_is_missing_the_broken_one_is_mended_first() -> None:
    known = [
        Unavailable(name="ai-edge-litert", reason="not installed", hint="pip install ai-edge-litert (no wheel)"),
        Unavailable(
            name="tflite-runtime", reason="2.14.0 breaks under numpy 2.2", hint="pip install 'numpy<2' mends it"
        ),
    ]
    assert runtimes._mended(known, EdgeError("none")) == ("pip install 'numpy<2'", "")
    assert runtimes._mended(known[:1], EdgeError("none")) == ("pip install ai-edge-litert", "no wheel")


def test_colour_marks_the_state_and_nothing_else() -> None:
    text = _coloured("Board\n  ✓ board  fine - really\n  ✗ x  bad\n         $ sudo mend\n")
    assert text == (
        "\033[1mBoard\033[0m\n  \033[32m✓\033[0m board  fine - really\n  \033[1;31m✗\033[0m x  bad\n"
        "         \033[36m$ sudo mend\033[0m\n"
    )


@pytest.mark.parametrize(
    "words", [("--model", "/no/such.tflite"), ("--delegate", "none"), ("--delegate", "edgetpu,option")]
)
def test_what_does_not_exist_is_refused_before_anything_is_looked_at(
    words: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", *words]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "content", "state", "word"),
    [
        ("whole.tflite", (TINY / "dense_fp32.tflite").read_bytes(), State.OK, "runs on the CPU"),
        ("torn.tflite", (TINY / "dense_fp32.tflite").read_bytes()[:300], State.WARNING, "damaged"),
        ("torn.edgebundle", b"torn", State.BROKEN, "not a packed bundle"),
    ],
)
def test_the_model_that_is_asked_about_is_looked_at_also_where_there_is_no_accelerator(
    tmp_path: Path, name: str, content: bytes, state: State, word: str
) -> None:
    model = tmp_path / name
    model.write_bytes(content)
    (found,) = (each for each in runtimes.look(Place(model=model)) if each.what == name)
    assert found.state is state
    assert word in found.reason


def test_the_small_model_is_that_of_the_tests() -> None:
    assert runtimes.TINY.read_bytes() == (TINY / "dense_fp32.tflite").read_bytes()


def test_every_value_a_daemon_senses_is_listed_with_its_source_or_its_reason(
    tree: Callable[[Mapping[str, str]], Place],
) -> None:
    place = tree(PI | {"sys/class/hwmon/hwmon0/name": "rpi_volt\n", "sys/class/hwmon/hwmon0/in0_lcrit_alarm": "1\n"})
    (check,) = [one for one in all_checks() if one.name == "conditions"]
    seen = by_name(check.look(place))
    assert {*Conditions.__struct_fields__} - {*seen} == {"missing", "played", "power_scope"}
    assert seen["temp_c"].state is State.OK
    assert seen["temp_c"].reason == "45.6 C (cpu-thermal), from sys/class/thermal/thermal_zone0/temp"
    assert seen["temp_limit_c"].reason == "75 C, from profile rpi4"
    assert (seen["throttle"].state, seen["throttle"].reason) == (State.WARNING, "power, from alarms")
    assert (seen["battery_pct"].state, seen["battery_pct"].reason) == (
        State.MISSING,
        "no battery in sys/class/power_supply",
    )


def test_checks_of_others_come_after_the_sensors_and_one_that_breaks_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    info = tmp_path / "others-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[edge.checks]\naa = no_such_module:CHECKS\nbb = os:environ\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    checks = {check.name: check for check in all_checks()}
    names = [*checks]
    assert names[names.index("sensors") + 1 :][:2] == ["aa", "bb"]
    broken = by_name([*checks["aa"].look(Place()), *checks["bb"].look(Place())])
    assert {one.state for one in broken.values()} == {State.BROKEN}
    assert "ModuleNotFoundError" in broken["aa"].reason
    assert "of another kind" in broken["bb"].reason
