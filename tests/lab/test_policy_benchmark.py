"""`benchmarks/policy.py`: its figures, and that a run is played once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from simulated_stage import write_scenario

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "policy.py"


def measured(folder: Path, *args: str, **variables: str) -> tuple[dict[str, Any], list[str]]:
    """What it prints, and what it says."""
    told = subprocess.run(
        [sys.executable, BENCHMARK, "--json", "--scenarios", folder, "--out", folder / "runs.jsonl", "--seeds", "2",
         "--jobs", "1", "--no-floor", "--no-timing", *args],
        capture_output=True, text=True, check=True, timeout=120, env=os.environ | variables,
    )  # fmt: skip
    return json.loads(told.stdout), told.stderr.splitlines()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("benchmark")
    write_scenario(made, "one", seconds=20)
    return made


@pytest.mark.skipif(not BENCHMARK.exists(), reason="this is no checkout")
def test_a_benchmark_that_was_cut_goes_on_where_it_stopped(folder: Path) -> None:
    first, said = measured(folder)
    assert said == ["one, seed 1001: 1 of 2", "one, seed 1002: 2 of 2"]
    assert first["seeds"] == [1001, 1002]
    rows = first["scenarios"]["one"]
    assert rows["infeasible"] == []
    assert {"oracle", "optimal", "alert", "rules", "static-fast", "static"} <= rows.keys()
    assert rows["static-fast"]["regret_pct"] > 0
    assert {figure["what"] for figure in first["figures"]} >= {"regret, mean of scenarios", "late, worst scenario"}
    kept = (folder / "runs.jsonl").read_text().splitlines(keepends=True)
    (folder / "runs.jsonl").write_text("".join(kept[:-1]) + kept[-1][:40])  # the last one was cut
    again, said = measured(folder)
    assert said == ["one, seed 1002: 1 of 1"]
    for found in (again, first):
        del found["scenarios"]["one"]["oracle"]["took_s"]
    assert again["scenarios"] == first["scenarios"]
