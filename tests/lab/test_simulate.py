"""`edge simulate`: what it prints, writes and draws, and what it says of bad input."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from bundle_stage import write_bundle
from simulated_stage import write_scenario

from edge_daemon.policies.contract import GROUP
from edge_lab.simulate.logs import COLUMNS
from edge_sdk.cli import main

BASELINES = ("rules", "alert", "static", "static-fast")
ASKED = [word for name in BASELINES for word in ("--policy", name)]
EDGE = [sys.executable, "-m", "edge_sdk.cli"]


def told(capsys: pytest.CaptureFixture[str], *args: object) -> Any:
    assert main(["simulate", *map(str, args), "--jobs", "1", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *args: object, status: int = 2) -> str:
    """The one line that is said."""
    try:
        found = main(["simulate", *map(str, args), "--jobs", "1"])
    except SystemExit as ended:  # argparse's way
        found = ended.code
    assert found == status
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    return line


# --------------------------------------------------------------------------------------------------- what is printed


def test_one_scenario_is_one_object_with_a_row_for_each_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(capsys, write_scenario(tmp_path), *ASKED, "--seeds", 2)
    assert found["scenario"] == "made"
    assert found["seeds"] == [1, 2]
    assert [row["policy"] for row in found["policies"]] == list(BASELINES)
    for row in found["policies"]:
        asked = {"effective_accuracy", "regret_pct", "late_pct", "hot_pct", "alive_pct", "energy_wh", "switches",
                 "decision_us_p50", "decision_us_p99"}  # fmt: skip
        assert asked <= row.keys()
        assert row["regret_pct"] is None
        assert [one["seed"] for one in row["seeds"]] == [1, 2]
        mean = sum(one["effective_accuracy"] for one in row["seeds"]) / 2
        assert row["effective_accuracy"] == pytest.approx(mean)
        low, high = row["spread"]["effective_accuracy"]
        assert low <= mean <= high


def test_several_scenarios_are_a_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [write_scenario(tmp_path, name) for name in ("one", "two")]
    found = told(capsys, *files, "--policy", "static-fast")
    assert [one["scenario"] for one in found] == ["one", "two"]


def test_regret_is_what_is_missing_to_the_clairvoyant_of_the_same_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(capsys, write_scenario(tmp_path), "--policy", "static-fast", "--oracle", "--log", tmp_path / "log")
    (row,) = found["policies"]
    best = found["oracle"]["effective_accuracy"]
    assert row["regret_pct"] == pytest.approx(100 * (best - row["effective_accuracy"]) / best)
    assert 0 < row["regret_pct"] < 30
    assert found["oracle"]["gap_pct"] is not None
    assert (tmp_path / "log" / "made-oracle-1.csv").exists()


def test_the_table_has_a_line_for_each_policy_and_says_what_nothing_can_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_scenario(tmp_path)
    assert main(["simulate", str(path), *ASKED, "--set", "limits.temp_c=30", "--oracle", "--jobs", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "made: 30 s, seed 1"
    assert not any("dual bound" in line for line in lines)
    assert [line.split()[0] for line in lines[4:8]] == list(BASELINES)
    notes = [line for line in lines if line.startswith("note:")]
    assert "temp_c = 30 is less than the idle board comes to (53.4 C)" in notes[1]
    assert "even the smallest variant breaks a limit in every seed, so all count: temp in seed 1" in notes[2]


def test_two_processes_find_what_one_finds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_scenario(tmp_path)
    alone = told(capsys, path, "--policy", "rules", "--seeds", 3)
    assert main(["simulate", str(path), "--policy", "rules", "--seeds", "3", "--jobs", "2", "--json"]) == 0
    both = json.loads(capsys.readouterr().out)
    for found in (alone, both):
        for row in found["policies"]:
            for one in (row, *row["seeds"]):
                del one["decision_us_p50"], one["decision_us_p99"]
    assert both == alone


def test_a_trace_given_beside_is_a_scenarios_own_from_the_begin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_scenario(tmp_path)
    path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.startswith("network")))
    (tmp_path / "lte.csv").write_text("time_s,up_mbps\n0,4\n1,5\n")
    refused(capsys, path, "--policy", "static-fast")
    told(capsys, path, "--policy", "static-fast", "--trace", tmp_path / "lte.csv", "--set", "trace.shuffle=true")


def test_a_trace_that_says_nothing_for_long_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ("time_s,up_mbps,ambient_c,battery_w", "0,4,20,1", "10,5,20,1", "20,nan,NaN,", "40,5,20,1")
    (tmp_path / "sparse.csv").write_text("\n".join(rows))
    path = write_scenario(tmp_path, seconds=40)
    found = told(capsys, path, "--policy", "static-fast", "--trace", tmp_path / "sparse.csv")
    assert [note for note in found["notes"] if note.startswith("the trace")] == [
        "the trace says no up_mbps for 48 % of the time (a value holds 10 s): nothing goes through",
        "the trace says no ambient_c for 48 % of the time (a value holds 10 s): the scenario's own counts",
        "the trace says no battery_w for 48 % of the time (a value holds 10 s): nothing flows besides",
    ]


def test_a_plot_may_lie_in_the_folder_that_is_made_for_the_logs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new"
    told(capsys, write_scenario(tmp_path), "--policy", "static-fast", "--log", new, "--plot", new / "out.html")
    assert sorted(path.name for path in new.iterdir()) == ["made-static-fast-1.csv", "out.html"]


def test_no_more_of_a_scenario_is_read_than_one_may_have(capsys: pytest.CaptureFixture[str]) -> None:
    assert "bytes where at most" in refused(capsys, Path("/dev/zero"))


def test_the_seed_and_single_values_can_be_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_scenario(tmp_path)
    found = told(capsys, path, "--policy", "static-fast", "--seed", 7, "--set", "duration_s=12", "--set", "name=other")
    assert (found["scenario"], found["duration_s"], found["seeds"]) == ("other", 12, [7])


# --------------------------------------------------------------------------------------------------------------- logs


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("logged")
    path = write_scenario(folder, more="hidden = { burst_rate = 20.0 }")
    assert main(["simulate", str(path), *ASKED, "--seeds", "2", "--log", str(folder / "log"), "--jobs", "1"]) == 0
    return folder / "log", [f"made-{name}-{seed}.csv" for name in BASELINES for seed in (1, 2)]


def test_a_log_has_a_row_for_each_second_and_a_file_for_each_policy_and_seed(logged: tuple[Path, list[str]]) -> None:
    folder, names = logged
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    for name in names:
        with (folder / name).open() as file:
            rows = list(csv.DictReader(file))
        assert tuple(rows[0]) == COLUMNS
        assert [int(row["time_s"]) for row in rows] == list(range(1, 31))
        assert all(int(row["in_time"]) + int(row["late"]) == int(row["requests"]) for row in rows)


def test_a_log_reproduces_the_effective_accuracy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_scenario(tmp_path, more="hidden = { burst_rate = 20.0 }")
    asked = ["--policy", "static", "--policy", "static-fast", "--seeds", 2, "--log", tmp_path]
    quality = {"small": 70.0, "large": 80.0}
    for row in told(capsys, path, *asked)["policies"]:
        for one in row["seeds"]:
            with (tmp_path / f"made-{row['policy']}-{one['seed']}.csv").open() as file:
                rows = list(csv.DictReader(file))
            worth = sum(quality[each["variant"]] * int(each["in_time"]) for each in rows)
            found = worth / sum(int(each["requests"]) for each in rows)
            assert found == pytest.approx(one["effective_accuracy"])


# --------------------------------------------------------------------------------------------------------------- plot


def test_the_plot_is_one_page_that_needs_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "out.html"
    told(capsys, write_scenario(tmp_path), *ASKED, "--plot", page)
    text = page.read_text("utf-8")
    assert not re.search(r"(?:src|href)=|url\(|https?:", text)
    assert "prefers-color-scheme:dark" in text
    drawings = [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]  # noqa: S314 - ours
    assert [svg.get("aria-label") for svg in drawings] == [f"Timelines of {name}" for name in BASELINES]
    for svg in drawings:
        titles = [each.text or "" for each in svg.iter("title")]
        assert any(re.match(r"0:00, first choice: (small|large|asks the server) ", title) for title in titles)
        said = {each.text for each in svg.iter("text")}
        assert {"what runs", "die, °C", "energy drawn, Wh", "round trip, ms", "limit 75"} <= said


def test_the_plot_says_the_energy_of_a_large_board_in_full(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "out.html"
    path = write_scenario(tmp_path, seconds=600)
    told(capsys, path, "--policy", "static-fast", "--set", "board.idle_w=1000", "--plot", page)
    (energy,) = re.findall(r"energy drawn, Wh</text>.*?>0</text><text[^>]*>([^<]*)<", page.read_text("utf-8"))
    assert re.fullmatch(r"1[78]\d\.\d", energy)  # 1000 W for 10 min, what computes, and some room


def test_the_plot_draws_no_round_trip_where_nothing_goes_through(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cut.csv").write_text("time_s,rtt_ms\n0,40\n30,40\n")
    page = tmp_path / "out.html"
    path = write_scenario(tmp_path, seconds=40)
    told(capsys, path, "--policy", "static-fast", "--trace", tmp_path / "cut.csv", "--plot", page)
    paths = re.findall(r'<path class="line" style="[^"]*stroke-width:1" d="([^"]*)', page.read_text("utf-8"))
    assert [path.count("M") for path in paths] == [2, 1]  # the round trip, which is gone for 20 s, and the uplink


def test_the_table_of_the_page_counts_changes_between_server_and_board_as_the_text_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "out.html"
    path = write_scenario(tmp_path, seconds=120)
    assert main(["simulate", str(path), "--policy", "optimal", "--plot", str(page), "--jobs", "1"]) == 0
    (counted,) = re.findall(r"\d+ \+ \d+", capsys.readouterr().out)
    assert f"<td>{counted}</td>" in page.read_text("utf-8")


# ----------------------------------------------------------------------------------- where the clairvoyant is no bound


def test_a_clairvoyant_that_cannot_keep_below_the_throttle_is_told_of_and_has_no_bound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_scenario(tmp_path)
    hot = ["--set", "board.throttle_c=[40,45,38]", "--oracle"]
    found = told(capsys, path, "--policy", "static-fast", *hot)
    assert found["infeasible"] == []
    assert found["oracle"]["gap_pct"] is None
    assert any("the firmware throttles even the smallest variant in seed 1" in note for note in found["notes"])
    assert not any("throttles" in note for note in told(capsys, path, "--policy", "static-fast", "--oracle")["notes"])


def test_a_clairvoyant_fears_no_throttle_of_a_board_that_has_one_clock(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_scenario(tmp_path)
    asked = ["--policy", "static-fast", "--oracle", "--set", "board.steps=[1]"]
    hot = told(capsys, path, *asked, "--set", "board.throttle_c=[40,45,38]")
    assert not any("throttles" in note for note in hot["notes"])
    calm = told(capsys, path, *asked)
    assert hot["oracle"]["effective_accuracy"] == calm["oracle"]["effective_accuracy"]
    assert hot["oracle"]["gap_pct"] == calm["oracle"]["gap_pct"] is not None


# -------------------------------------------------------------------------------------- bundles, boards and traces


def test_variants_come_from_a_bundle_and_the_board_from_a_profile(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path)
    path = tmp_path / "bundled.toml"
    path.write_text('name = "bundled"\nduration_s = 20\nprofile = "rpi4"\nbundle = "digits-1.edge"\n')
    found = told(capsys, path, "--policy", "static", "--policy", "static-fast", "--log", tmp_path)
    assert found["policies"][0]["effective_accuracy"] > 96
    assert "nobody timed or predicted float here: taken by their operations" in found["notes"]
    with (tmp_path / "bundled-static-1.csv").open() as file:
        assert {row["variant"] for row in csv.DictReader(file)} == {"float"}


def test_a_trace_is_played_and_its_gaps_hold_for_ten_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_scenario(tmp_path)
    (tmp_path / "lte.csv").write_text("time_s,requests_per_s,battery_w\n0,4,\n5,,\n20,1,0.5\n29,1,\n")
    told(capsys, path, "--policy", "static-fast", "--trace", tmp_path / "lte.csv", "--log", tmp_path)
    with (tmp_path / "made-static-fast-1.csv").open() as file:
        rows = [int(row["requests"]) for row in csv.DictReader(file)]
    assert rows[:11] == [4] * 11
    assert sum(rows[20:30]) == pytest.approx(10, abs=1)


# ---------------------------------------------------------------------------------------------------------- bad input


def test_an_unknown_policy_is_refused_with_those_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, write_scenario(tmp_path), "--policy", "best")
    assert line.startswith("edge: no policy 'best'; there are optimal, rules,")
    assert line.endswith("[unknown-policy]")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = ", "not TOML"),
        ('name = "x"\nduration_s = 3\n', "`int` >= 10 - at `$.duration_s`"),
        ('name = "x"\nlimits = { latency_ms = nan }\n', "at `$.limits.latency_ms`"),
        ('name = "x"\nvariants = []\n', "variants"),
        ('name = "x"\n', "needs either [[variant]] entries or a bundle"),
        ('name = "x"\nvariant = [{ id = "a", accuracy = 1 }]\n', "variant 'a' has no latency_ms"),
        ('name = "x"\nbundle = "none.edge"\n', "none.edge"),
        ('name = "x"\nprofile = "abacus"\nvariant = [{ id = "a", accuracy = 1, latency_ms = 1 }]\n', "abacus"),
    ],
)
def test_a_scenario_that_cannot_be_played_is_one_line(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    assert said in refused(capsys, path, "--policy", "static-fast")


def test_a_file_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, tmp_path / "none.toml", "--policy", "static-fast")
    assert "none.toml: cannot be read: No such file" in line
    assert line.endswith("[lab-scenario]")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("time_s,rtt_ms\n", "0 rows"),
        ("time_s,colour\n1,2\n", "no column time_s, or none that is played"),
        ("time_s,rtt_ms\n1,5\n1,5\n", "line 3: time_s must ascend"),
        ("time_s,rtt_ms\n1,fast\n", "line 2: rtt_ms is 'fast'"),
        ("time_s,rtt_ms\n1,-5\n", "line 2: rtt_ms is '-5'"),
        ("# of a Monday\ntime_s,rtt_ms\n\n1,-5\n", "line 4: rtt_ms is '-5'"),
        ("time_s,rtt_ms,rtt_ms\n1,5,6\n", "two columns are called rtt_ms"),
        ("time_s,rtt_ms\n1,5,\n2,5,25\n", "line 3: more cells than names"),
    ],
)
def test_a_trace_that_cannot_be_played_is_one_line(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.csv").write_text(text)
    line = refused(capsys, write_scenario(tmp_path), "--policy", "static-fast", "--trace", tmp_path / "bad.csv")
    assert said in line


def test_a_server_that_no_network_leads_to_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "air.csv").write_text("time_s,ambient_c\n0,25\n")
    path = write_scenario(tmp_path)
    path.write_text(path.read_text().replace("network =", "trace = { file = 'air.csv' }\n#"))
    line = refused(capsys, path, "--policy", "static-fast")
    assert "a remote variant needs a network, and the trace has neither rtt_ms nor up_mbps" in line


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("limits", "'limits' is no setting"),
        ("limits.temp=70", "limits"),
        ("name.first=1", "'name.first' is no key of a scenario"),
        ("duration_s=1", ">= 10"),
        ("limits.latency_ms=inf", "limits.latency_ms"),
        ("limits.battery_until_s=20", "limits.battery_until_s without limits.battery_wh"),
        ("network.rtt_ms=[100,50]", "a 95th percentile is not below the median"),
        ("network.up_mbps=[5,1]", "a median is not below the 5th percentile"),
        ("board.throttle_c=[64,75,70]", "board.throttle_c: the first must be from the third to the second"),
    ],
)
def test_a_setting_that_makes_no_sense_is_one_line(
    setting: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(capsys, write_scenario(tmp_path), "--policy", "static-fast", "--set", setting)


def test_places_that_cannot_be_written_are_told_before_anything_is_played(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_scenario(tmp_path)
    assert "none: no such folder" in refused(capsys, path, "--policy", "static", "--plot", tmp_path / "none" / "x.html")
    assert "is a folder" in refused(capsys, path, "--policy", "static", "--plot", tmp_path)
    assert "cannot be written" in refused(capsys, path, "--policy", "static", "--log", path, status=1)


def test_a_plot_in_place_of_what_is_played_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lte.csv").write_text("time_s,up_mbps\n0,4\n1,5\n")
    path = write_scenario(tmp_path)
    before = path.read_bytes()
    assert "would replace" in refused(capsys, path, "--plot", path)
    assert "would replace" in refused(capsys, path, "--trace", tmp_path / "lte.csv", "--plot", tmp_path / "lte.csv")
    assert path.read_bytes() == before


def test_two_scenarios_of_one_name_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other").mkdir()
    files = write_scenario(tmp_path), write_scenario(tmp_path / "other")
    assert "two scenarios are called 'made'" in refused(capsys, *files, "--policy", "static-fast")


@pytest.mark.parametrize("args", [("--seeds", "0"), ("--seed", "-1"), ("--jobs", "many")])
def test_numbers_out_of_bounds_are_refused(
    args: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "is no whole number from" in refused(capsys, write_scenario(tmp_path), *args)


def test_one_variant_and_limits_that_nothing_can_hold_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "one.toml"
    path.write_text(
        textwrap.dedent("""\
        name = "one"
        duration_s = 10
        limits = { latency_ms = 5, min_accuracy = 90, max_power_w = 2, battery_wh = 0.001 }
        variant = [{ id = "only", accuracy = 70, latency_ms = 30 }]
        """)
    )
    found = told(capsys, path, *ASKED)
    said = " | ".join(found["notes"])
    for what in ("one variant runs here", "latency_ms = 5 is less", "min_accuracy = 90", "max_power_w = 2",
                 "battery_wh = 0.001"):  # fmt: skip
        assert what in said
    assert all(row["late_pct"] > 0 for row in found["policies"])


# ------------------------------------------------------------------------------------------------- policies of others


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with a policy that fails in its fifth second, and prints."""
    facts = tmp_path / "strangers-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: strangers\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(f"[{GROUP}]\nmine = strangers_tried:Mine\n")
    (tmp_path / "strangers_tried.py").write_text(
        textwrap.dedent("""\
        from edge_daemon.policies.static import StaticFast

        class Mine(StaticFast):
            def step(self, state, event):
                print("hello")
                return 1 / (5 - event.now_s) and super().step(state, event)
        """)
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("strangers_tried", None)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_policy_that_fails_is_named_with_scenario_and_seed(
    jobs: int, stranger: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_scenario(stranger)
    asked = ["simulate", str(path), "--policy", "mine", "--seeds", "2", "--jobs", str(jobs)]
    assert main([*asked, "--set", "arrivals={quiet_per_s=0,busy_per_s=0}"]) == 1
    err = capfd.readouterr().err.splitlines()
    assert re.match(
        r"edge: made, seed [12]: policy 'mine' failed: ZeroDivisionError: .* \[lab-policy-failed\]", err[-1]
    )


def test_a_policy_of_another_package_is_played_in_other_processes(
    stranger: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    module = stranger / "strangers_tried.py"
    module.write_text(module.read_text().replace("(5 - event.now_s)", "(5000 - event.now_s)"))
    path = write_scenario(stranger)
    assert main(["simulate", str(path), "--policy", "mine", "--seeds", "2", "--jobs", "2", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["policies"][0]["effective_accuracy"] > 60


# --------------------------------------------------------------------------------------------------------- interrupted


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_whoever_ends_it_ends_its_processes_and_no_file_is_cut(number: int, status: int, tmp_path: Path) -> None:
    path, log = write_scenario(tmp_path, seconds=900), tmp_path / "log"
    child = subprocess.Popen(
        [*EDGE, "simulate", path, "--policy", "static", "--seeds", "1000", "--jobs", "2", "--log", log],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert child.stderr is not None
        assert b"is played (1 of 1000)" in child.stderr.readline()
        workers = [int(pid) for pid in Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()]
        assert len(workers) == 2
        os.kill(child.pid, number)
        _, err = child.communicate(timeout=60)
        assert child.returncode == status
        if number == signal.SIGINT:
            assert err.splitlines()[-1] == b"edge: interrupted"
    finally:
        child.kill()
        child.communicate()
    for pid in workers:
        wait_until_gone(pid)
    whole = list(log.glob("*.csv"))
    assert whole
    assert {len(file.read_text().splitlines()) for file in whole} == {901}


def wait_until_gone(pid: int) -> None:
    """A process that died is a zombie until init, or the test's own parent, reaps it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state in "ZX":
            return
        time.sleep(0.02)
    pytest.fail(f"process {pid} is still there")
