"""Whatever a device file does, reading it ends, and says a value or why there is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from unprivileged import reachable, unprivileged

from edge_daemon.sensors.files import Files
from edge_daemon.sensors.reading import Unavailable

pytestmark = pytest.mark.device


def reason(value: object) -> str:
    assert isinstance(value, Unavailable), value
    return value.reason


def test_text_is_stripped_of_newlines_and_of_the_nul_that_ends_device_tree_strings(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"Raspberry Pi 4 Model B\0\n")
    assert Files(tmp_path).text("model") == "Raspberry Pi 4 Model B"


@pytest.mark.parametrize(("raw", "value"), [("61824\n", 61824.0), ("-5\n", -5.0), ("+7", 7.0), ("3.25\n", 3.25)])
def test_a_decimal_number_is_read(tmp_path: Path, raw: str, value: float) -> None:
    (tmp_path / "n").write_text(raw)
    assert Files(tmp_path).number("n") == value


@pytest.mark.parametrize(
    "raw", ["nan", "inf", "-inf", "1e9", "0x10", "1_000", "12 34", "12\n34", "٣٤", "--1", "1.", ".5", "9" * 40, "N/A"]
)
def test_what_is_no_plain_decimal_is_no_number(tmp_path: Path, raw: str) -> None:
    (tmp_path / "n").write_text(raw, encoding="utf-8")
    assert "is not a number" in reason(Files(tmp_path).number("n"))


def test_a_number_out_of_its_bounds_is_none(tmp_path: Path) -> None:
    (tmp_path / "capacity").write_text("130\n")
    assert reason(Files(tmp_path).number("capacity", low=0, high=100)) == "capacity: 130 is out of range"


@pytest.mark.parametrize("raw", [b"", b"\n", b"\0\0\0"])
def test_an_empty_file_says_so(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "temp").write_bytes(raw)
    assert reason(Files(tmp_path).text("temp")) == "temp: is empty"


def test_binary_garbage_is_text_of_replacement_characters_and_no_number(tmp_path: Path) -> None:
    (tmp_path / "temp").write_bytes(bytes(range(128, 256)))
    files = Files(tmp_path)
    assert isinstance(files.text("temp"), str)
    assert "is not a number" in reason(files.number("temp"))


def test_of_a_huge_file_4096_bytes_are_read(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.write(b"1" * 8192)
        file.truncate(2**33)  # sparse
    text = Files(tmp_path).text("huge")
    assert isinstance(text, str)
    assert len(text) == 4096


def test_a_file_that_is_not_there_and_a_directory_where_a_file_should_be(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert reason(Files(tmp_path).text("gone/temp")) == "gone/temp: No such file or directory"
    assert reason(Files(tmp_path).text("folder")) == "folder: Is a directory"
    assert "not a path" in reason(Files(tmp_path).text("a\0b"))


def test_a_pipe_nobody_writes_to_does_not_hold_the_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "temp")
    assert reason(Files(tmp_path).text("temp")) == "temp: is empty"


def test_a_pipe_whose_writer_is_silent_answers_eagain_as_a_switched_off_zone_does(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "temp")
    writer = os.open(tmp_path / "temp", os.O_RDWR)
    try:
        assert reason(Files(tmp_path).text("temp")) == "temp: Resource temporarily unavailable"
    finally:
        os.close(writer)


def test_a_file_that_may_not_be_read_says_so() -> None:
    with reachable() as root:
        (root / "temp").write_text("1\n")
        (root / "temp").chmod(0)
        with unprivileged():
            answer = Files(root).text("temp")
    assert reason(answer) == "temp: Permission denied"


def test_a_folder_that_may_not_be_listed_holds_nothing() -> None:
    with reachable() as root:
        folder = root / "sys"
        folder.mkdir()
        (folder / "temp").write_text("1\n")
        folder.chmod(0)
        with unprivileged():
            names = Files(root).names("sys")
        folder.chmod(0o700)
    assert names == ()


def test_names_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("zone10", "zone2", "zone1", "alpha"):
        (tmp_path / name).write_text("")
    assert Files(tmp_path).names(".") == ("alpha", "zone1", "zone2", "zone10")
    assert Files(tmp_path).names("gone") == ()
