"""Temporary folders: gone with their program, and where it was killed, gone with the next one; a full disk is named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from bundle_stage import write_bundle

from edge_sdk import bundle as bundles
from edge_sdk import scratch

pytestmark = pytest.mark.device

HOLDS = """
import sys
from edge_sdk import scratch
with scratch.folder() as folder:
    (folder / "work").write_bytes(b"much")
    print(folder, flush=True)
    sys.stdin.read()
"""
LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200)); "


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files belong in this test."""
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    return place


def child(script: str, place: Path, *args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, args)],
        env={**os.environ, "TMPDIR": str(place), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_folder_is_there_for_the_block_and_no_longer(place: Path) -> None:
    with scratch.folder() as folder:
        assert folder.parent == place
        (folder / "deep").mkdir()
        (folder / "deep" / "file").touch()
    assert list(place.iterdir()) == []
    with pytest.raises(KeyError), scratch.folder():
        raise KeyError
    assert list(place.iterdir()) == []


def test_what_a_killed_program_left_goes_with_the_next_and_what_a_running_one_has_stays(place: Path) -> None:
    with child(HOLDS, place) as running:
        assert running.stdout is not None
        theirs = Path(running.stdout.readline().strip())
        with scratch.folder():
            assert (theirs / "work").read_bytes() == b"much"
        running.send_signal(signal.SIGKILL)
        running.communicate(timeout=30)
    assert (theirs / "work").exists()
    with scratch.folder() as folder:
        assert list(place.iterdir()) == [folder]


def test_links_files_and_folders_of_others_are_left_alone(place: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter").touch()
    names = [place / f"{scratch.PREFIX}{name}" for name in ("link", "file", "theirs")]
    names[0].symlink_to(mine)
    names[1].touch()
    if os.geteuid() == 0:
        names[2].mkdir()
        os.chown(names[2], 12345, 12345)
    (place / "edge-other").mkdir()
    before = sorted(place.iterdir())
    with scratch.folder():
        pass
    assert sorted(place.iterdir()) == before
    assert (mine / "letter").exists()


def test_many_at_once_never_take_each_others_away(place: Path) -> None:
    lost: list[Path] = []

    def work() -> None:
        for _ in range(40):
            with scratch.folder() as folder:
                (folder / "file").write_bytes(b"mine")
                if not (folder / "file").exists():
                    lost.append(folder)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lost == []
    assert list(place.iterdir()) == []


def test_a_full_disk_is_named_with_what_to_set(place: Path) -> None:
    # Which error the kernel gives (EFBIG for ENOSPC) is the only difference to a full disk.
    write = "from edge_sdk import scratch\nwith scratch.folder() as folder: (folder / 'x').write_bytes(bytes(2000))"
    _, said = child(LIMITED + write, place).communicate(timeout=30)
    assert f"StorageError: {place}: no temporary files can be written here: File too large; free some space" in said
    assert "set TMPDIR to a folder on a larger disk" in said
    assert list(place.iterdir()) == []


def test_an_error_of_another_file_is_none_of_ours(place: Path) -> None:
    with pytest.raises(FileNotFoundError), scratch.folder():
        (place / "absent").read_bytes()


def test_a_packed_bundle_there_is_no_room_for(place: Path, tmp_path: Path) -> None:
    packed = bundles.pack(write_bundle(tmp_path), tmp_path / "a.edgebundle")
    script = "import sys; from edge_sdk import bundle\nwith bundle.opened(sys.argv[1]): pass"
    _, said = child(LIMITED + script, place, packed).communicate(timeout=30)
    assert f"StorageError: {place}: {packed} cannot be unpacked: " in said
    assert "set TMPDIR" in said
