"""What a delegate can do is tried in a process of its own, once, and remembered by what it depends on."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from accelerator_stage import delegation, request

from edge_sdk.delegates import DelegateRequest
from edge_sdk.delegates.findings import Finding, Findings, usual
from edge_sdk.delegates.probe import Probed, key, probe
from edge_sdk.guard import GuardedEngine
from edge_sdk.isolation import IsolatedEngine
from edge_sdk.opening import open_engine
from edge_sdk.runtime import Unavailable
from edge_sdk.wire import encode

pytestmark = [pytest.mark.accelerator, pytest.mark.device]

X = np.array([[0.5, -1.0, 2.0, 0.25]], np.float32)


def test_one_that_computes_right_is_told_with_its_figures(mock_library: Path, dense: Path) -> None:
    found = probe(delegation(mock_library), dense)
    assert isinstance(found, Probed)
    assert found.distance < 0.01
    assert found.median_ms > 0
    assert found.memory_bytes is None or found.memory_bytes > 1_000_000


@pytest.mark.parametrize(
    ("fail", "reason"),
    [
        ("create", "no device"),
        ("crash", "segmentation fault"),
        ("hang", "hung"),
        ("nan", "no number"),
        ("wrong", "times as far from its twin's"),
    ],
)
def test_one_that_does_not_is_a_value_with_a_reason(mock_library: Path, dense: Path, fail: str, reason: str) -> None:
    patience_s = 2.0 if fail == "hang" else 60.0
    found = probe(delegation(mock_library, fail=fail), dense, deadline_s=patience_s)
    assert isinstance(found, Unavailable)
    assert reason in found.reason


def test_a_twin_of_another_shape_is_found_out(mock_library: Path, dense: Path) -> None:
    found = probe(delegation(mock_library), dense, twin=dense.with_name("two_by_two.tflite"))
    assert isinstance(found, Unavailable)


def test_a_finding_depends_on_library_options_and_model(mock_library: Path, dense: Path, tmp_path: Path) -> None:
    other = tmp_path / "libother.so"
    other.write_bytes(mock_library.read_bytes() + b"\0")
    keys = {
        key(delegation(mock_library), dense),
        key(delegation(mock_library, op=25), dense),
        key(delegation(other), dense),
        key(delegation(mock_library), dense.with_name("dense_int8.tflite")),
    }
    assert len(keys) == 4
    same = tmp_path / "libsame.so"
    same.write_bytes(mock_library.read_bytes())
    assert key(delegation(same), dense) == key(delegation(mock_library), dense)


def test_what_crashed_is_not_tried_again_and_what_was_absent_is(
    mock_library: Path, dense: Path, tmp_path: Path
) -> None:
    findings = Findings(tmp_path)
    for fail, is_kept in (("crash-create", True), ("create", False)):
        for round_ in range(2):
            with open_engine(
                dense, delegate=request(mock_library, fail=fail), findings=findings, report=lambda _: None
            ) as engine:
                assert isinstance(engine, GuardedEngine)
                assert ("found out before" in engine.reason) == (is_kept and round_ == 1)


def test_a_device_in_use_is_tried_again_also_where_it_is_to_compute_in_this_process(
    mock_library: Path, dense: Path, tmp_path: Path
) -> None:
    held, findings = tmp_path / "device", Findings(tmp_path / "findings")
    asked = request(mock_library, hold=held)
    with IsolatedEngine(dense, delegation=delegation(mock_library, hold=held)):
        assert "in use" in reason_for(dense, asked, findings)
    assert reason_for(dense, asked, findings) == ""


def reason_for(model: Path, asked: DelegateRequest, findings: Findings) -> str:
    with open_engine(model, delegate=asked, isolated=False, findings=findings, report=lambda _: None) as engine:
        assert isinstance(engine, GuardedEngine)
        return engine.reason


def test_what_works_is_loaded_without_a_second_trial(
    mock_library: Path, dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = Findings(tmp_path)
    with open_engine(dense, delegate=request(mock_library), findings=findings):
        pass
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]

    def again(*_: object, **__: object) -> None:
        raise AssertionError("tried again")

    monkeypatch.setattr("edge_sdk.opening.probe", again)
    with open_engine(dense, delegate=request(mock_library), findings=findings, isolated=False) as engine:
        assert isinstance(engine, GuardedEngine)
        assert engine.computes_on != "cpu"


def test_findings_age_and_damaged_ones_count_for_nothing(tmp_path: Path) -> None:
    findings = Findings(tmp_path / "deep" / "place")
    assert findings.known("a") is None
    findings.note("a", Finding(works=False, reason="it crashed"))
    known = findings.known("a")
    assert known is not None
    assert (known.works, known.reason) == (False, "it crashed")
    path = tmp_path / "deep" / "place" / "a.json"
    path.write_bytes(encode(Finding(works=False, reason="long ago", at=1.0)))
    assert findings.known("a") is None
    path.write_bytes(encode(Finding(works=True, at=1.0)))
    assert findings.known("a") is not None
    path.write_bytes(b"{" * 100_000)
    assert findings.known("a") is None
    findings.note("b", Finding(works=False, reason="in use", is_lasting=False))
    assert findings.known("b") is None


def test_findings_are_bounded_in_number(tmp_path: Path) -> None:
    findings = Findings(tmp_path)
    for number in range(300):
        path = tmp_path / f"{number}.json"
        path.write_bytes(b"{}")
        os.utime(path, (number, number))
    findings.note("new", Finding(works=True))
    assert len(list(tmp_path.glob("*.json"))) == 256
    assert (tmp_path / "new.json").exists()
    assert not (tmp_path / "0.json").exists()


def test_where_nothing_can_be_kept_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    Findings(tmp_path / "file").note("a", Finding(works=True))
    assert Findings(tmp_path / "file").known("a") is None
    monkeypatch.setenv("EDGE_CACHE", "")
    assert usual().folder is None
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path))
    assert usual().folder == tmp_path / "delegates"
    monkeypatch.delenv("EDGE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert usual().folder == tmp_path / "adaptive-edge-sdk" / "delegates"


def test_a_lie_is_remembered_like_a_crash(mock_library: Path, dense: Path, tmp_path: Path) -> None:
    findings = Findings(tmp_path)
    for says in ("it computes wrong", "found out before"):
        with open_engine(
            dense, delegate=request(mock_library, fail="wrong"), findings=findings, report=lambda _: None
        ) as engine:
            assert isinstance(engine, GuardedEngine)
            assert says in engine.reason
