"""A demonstration overwrites only what one has written, and leaves a place it gave up as it found it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_lab import outdir
from edge_lab.errors import OutDirectoryBusyError
from edge_sdk.cli.main import main
from edge_sdk.errors import UsageError


def bundle(folder: Path, text: str) -> Path:
    made = folder / "digits-1.edge"
    (made / "blobs").mkdir(parents=True)
    (made / "manifest.json").write_text(text)
    return made


def test_what_was_put_there_is_replaced_whole_by_the_next(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    for number in ("1", "2"):
        with outdir.opened(out) as place:
            made = bundle(tmp_path / number, number)
            (made / number).touch()
            assert place.put_bundle(made) == out / "digits-1.edge"
            place.put_report(f"page {number}")
    assert sorted(path.name for path in out.iterdir()) == [".edge-demo", "digits-1.edge", "report.html"]
    assert sorted(path.name for path in (out / "digits-1.edge").iterdir()) == ["2", "blobs", "manifest.json"]
    assert (out / "report.html").read_text() == "page 2"


@pytest.mark.parametrize("there", [True, False])
def test_where_nothing_was_put_nothing_is_left(tmp_path: Path, there: bool) -> None:
    out = tmp_path / "demo"
    if there:
        out.mkdir()
    with pytest.raises(ZeroDivisionError), outdir.opened(out):
        raise ZeroDivisionError
    assert out.exists() == there
    assert not there or list(out.iterdir()) == []


def test_a_file_a_dangling_link_and_a_foreign_directory_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").touch()
    for name, words in (("file", "is no directory"), ("link", "is no directory"), ("foreign", "no demonstration")):
        with pytest.raises(UsageError, match=words), outdir.opened(tmp_path / name):
            pass
    assert [path.name for path in (tmp_path / "foreign").iterdir()] == ["thesis.tex"]


def test_two_demonstrations_do_not_write_to_one_directory(tmp_path: Path) -> None:
    with (
        outdir.opened(tmp_path / "demo"),
        pytest.raises(OutDirectoryBusyError, match="another demonstration writes here"),
        outdir.opened(tmp_path / "demo"),
    ):
        pass


def test_bad_arguments_are_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["demo", "--out", str(tmp_path / "file")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("edge: ")
    assert line.endswith("[usage]")
    for seconds in ("5", "nan", "inf", "soon"):
        with pytest.raises(SystemExit) as ended:
            main(["demo", "--seconds", seconds])
        assert ended.value.code == 2
        assert "is no number from 20 to 3600" in capsys.readouterr().err
