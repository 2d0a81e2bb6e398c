"""`edge profiles`: what is known of the boards, and on what it rests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_sdk import profile as profiles
from edge_sdk.cli import main
from edge_sdk.profile import Profile
from edge_sdk.wire import decode

pytestmark = pytest.mark.device


def test_the_list_has_a_line_for_each_board(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == list(profiles.ids())
    assert [line.split()[0] for line in lines[2:] if line.endswith("yes")] == ["x86-64"]


def test_the_list_for_scripts_holds_all_that_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "list", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["profiles"]
    assert tuple(decode(json.dumps(one).encode(), Profile, where="output") for one in told) == profiles.load_all()


@pytest.mark.parametrize("id_", profiles.ids())
def test_a_board_is_shown_with_the_basis_and_source_of_each_fact(id_: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "show", id_]) == 0
    out = capsys.readouterr().out
    found = profiles.load(id_)
    assert out.startswith(
        f"{id_}: {found.name}. This project was {'' if found.hardware_tested else 'not yet '}run on it."
    )
    rows = {line.split("  ")[0]: line for line in out.split("\n\n")[1].splitlines()[2:]}
    for fact in ("processor", "CPU features", "memory", "kept below"):
        assert any(basis in rows[fact] for basis in ("measured", "published", "estimated"))
    assert all(f"- {note}" in out for note in found.notes)
    assert main(["profiles", "show", id_, "--json"]) == 0
    assert decode(capsys.readouterr().out.encode(), Profile, where="output") == found


def test_an_unknown_board_is_2_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "show", "abacus"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("edge: no profile 'abacus'; there are android, coral-dev")
    assert told.err.endswith("[unknown-profile]\n")


def test_what_follows_from_its_heat_is_said_where_that_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "show", "rpi4"]) == 0
    told = "In air of 25 C it idles at 53 C and can compute 62 % of the time for ever below 75 C (estimated)."
    assert told in capsys.readouterr().out
    assert main(["profiles", "show", "x86-64"]) == 0
    assert "for ever" not in capsys.readouterr().out


def test_a_sites_own_is_shown_with_the_file_it_stands_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGE_PROFILES", str(tmp_path))
    (tmp_path / "rpi4.toml").write_text(
        'extends = "rpi4"\n[board.battery]\ncapacity_wh = { value = 18.5, basis = "published", source = "its label" }\n'
    )
    assert main(["profiles", "show", "rpi4"]) == 0
    out = capsys.readouterr().out
    assert f"It extends rpi4 in {tmp_path}/rpi4.toml." in out.splitlines()[0]
    (battery,) = [line for line in out.splitlines() if line.startswith("battery")]
    assert battery.split() == ["battery", "18.5", "Wh", "published", "its", "label"]


def test_a_malformed_profile_of_the_site_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGE_PROFILES", str(tmp_path))
    (tmp_path / "mine.toml").write_text("id = 'mine'\nlimit = nan\n")
    for args in (["profiles", "list"], ["profiles", "show", "mine"]):
        assert main(args) == 2
        told = capsys.readouterr()
        assert told.err.startswith(f"edge: {tmp_path}/mine.toml: ")
        assert told.err.endswith("[profile]\n")
