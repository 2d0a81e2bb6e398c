"""Whatever ends a writer, and whenever: what stands at the place is the old or the new, whole."""

from __future__ import annotations

import fcntl
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from bundle_stage import write_bundle

from edge_sdk import atomic
from edge_sdk.bundle import Bundle
from edge_sdk.errors import EdgeError, StorageError

pytestmark = pytest.mark.device

TESTS = Path(__file__).resolve().parents[1]


def child(script: str, *args: str | Path, **options: object) -> subprocess.Popen[str]:
    """A Python that can import what these tests can."""
    command = [sys.executable, "-c", script, *map(str, args)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)])}
    return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)  # type: ignore[call-overload, no-any-return]  # options of Popen


def hidden(place: Path) -> list[str]:
    return [p.name for p in place.iterdir() if p.name.startswith(".")]


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic.write_bytes(path, b"old")
    atomic.write_bytes(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("linked", [False, True])
def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path, linked: bool) -> None:
    path = tmp_path / "null"
    if linked:
        path.symlink_to("/dev/null")
    else:
        os.mkfifo(path)
    before = path.lstat()
    with pytest.raises(StorageError, match="is a device, a pipe or a socket"):
        atomic.write_bytes(path, b"new")
    assert path.lstat() == before


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_block_that_ends_with_an_error_changes_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    atomic.write_bytes(path, b"old")

    def half_a_file() -> None:
        with atomic.file(path) as stream:
            stream.write(b"half of the new")
            raise error

    def half_a_directory() -> None:
        with atomic.directory(tmp_path / "folder") as folder:
            (folder / "half").write_bytes(b"half")
            raise error

    for write in (half_a_file, half_a_directory):
        with pytest.raises(error):
            write()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_directory_is_replaced_whole(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with atomic.directory(tmp_path / "deep" / "folder") as folder:
            (folder / content).write_text(content)
    assert [p.name for p in (tmp_path / "deep" / "folder").iterdir()] == ["new"]
    assert (tmp_path / "deep" / "folder").stat().st_mode & 0o777 == 0o755
    assert hidden(tmp_path / "deep") == []


def test_where_the_kernel_cannot_exchange_names_the_old_one_is_moved_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "_exchange", lambda *_: False)
    test_a_directory_is_replaced_whole(tmp_path)


def test_a_replacement_that_was_cut_between_its_two_steps_is_undone(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    (tmp_path / ".edge-old-folder").mkdir()
    (tmp_path / ".edge-old-folder" / "old").write_text("old")
    with pytest.raises(RuntimeError), atomic.directory(target):
        raise RuntimeError
    assert [p.name for p in target.iterdir()] == ["old"]
    assert hidden(tmp_path) == []


def test_a_replacement_that_was_cut_after_its_two_steps_is_finished(tmp_path: Path) -> None:
    for name in (".edge-old-folder", "folder"):
        (tmp_path / name).mkdir()
    with pytest.raises(RuntimeError), atomic.directory(tmp_path / "folder"):
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("place", ["no/such/folder/file", "a-file/file", "a-folder"])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "a-file").write_text("")
    (tmp_path / "a-folder").mkdir()
    with pytest.raises(StorageError, match="cannot be written") as caught:
        atomic.write_bytes(tmp_path / place, b"x")
    assert caught.value.where == str(tmp_path / place)
    assert caught.value.exit_status == 1
    assert hidden(tmp_path) == []


def test_abandoned_names_are_swept_and_those_being_written_are_not(tmp_path: Path) -> None:
    long_ago = time.time() - 3600
    (tmp_path / ".edge-tmp-abandoned").mkdir()
    (tmp_path / ".edge-tmp-abandoned" / "half").write_text("half")
    (tmp_path / ".edge-tmp-abandoned-file").write_text("half")
    (tmp_path / ".edge-tmp-young").write_text("half")
    (tmp_path / ".edge-tmp-written").write_text("half")
    (tmp_path / ".other").write_text("mine")
    for path in tmp_path.iterdir():
        if path.name != ".edge-tmp-young":
            os.utime(path, (long_ago, long_ago))
    with (tmp_path / ".edge-tmp-written").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        atomic.write_bytes(tmp_path / "file", b"x")
    assert sorted(hidden(tmp_path)) == [".edge-tmp-written", ".edge-tmp-young", ".other"]


def test_many_writers_of_one_place_leave_one_whole_bundle(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def write(number: int) -> None:
        try:
            (tmp_path / str(number)).mkdir()
            for version in range(5):
                bundle = write_bundle(
                    tmp_path / str(number), "../same.edge", {"only": bytes([number]) * 999}, version=str(version)
                )
                assert bundle.path.exists()
        except EdgeError:
            pass  # somebody else's bundle was just being put there: an error of ours, and nothing is broken
        except BaseException as error:  # noqa: BLE001 - shown by the main thread
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert Bundle(tmp_path / "same.edge").manifest.name == "digits"
    assert hidden(tmp_path) == []


# ----------------------------------------------------------------------------------------------- killed writers

# In a child of each: count what the writer does to files, and kill it before the Nth of these.
CRASH_POINTS = """
import os, signal, sys
from pathlib import Path
from bundle_stage import write_bundle
place, number = Path(sys.argv[1]), 0
while True:
    number += 1
    pid = os.fork()
    if pid == 0:
        seen = 0
        def hook(event, args, kinds=("open", "os.", "shutil.", "tempfile.", "fcntl.", "ctypes.")):
            global seen
            if event.startswith(kinds):
                seen += 1
                if seen == number:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        write_bundle(place, contents={"only": b"new" * 1000}, version="2")
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    print(number, os.waitstatus_to_exitcode(status), flush=True)
    if os.waitstatus_to_exitcode(status) == 0:
        break
    sys.stdin.readline()
"""


def test_a_writer_killed_before_any_of_its_steps_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    writer = child(CRASH_POINTS, tmp_path, stdin=subprocess.PIPE)
    versions = []
    with writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        for line in writer.stdout:
            versions.append(Bundle(tmp_path / "digits-1.edge").manifest.version)
            if line.split()[1] == "0":
                break
            writer.stdin.write("\n")
            writer.stdin.flush()
        assert writer.stderr is not None
        complaint = writer.stderr.read()
    assert complaint == ""
    assert len(versions) > 20
    assert versions == sorted(versions)  # the old up to some step, from then on the new
    assert set(versions) == {"1", "2"}
    long_ago = time.time() - 3600
    for name in hidden(tmp_path):
        os.utime(tmp_path / name, (long_ago, long_ago))
    write_bundle(tmp_path)
    assert hidden(tmp_path) == []


WRITE_ON = """
import sys
from pathlib import Path
from bundle_stage import write_bundle
print("ready", flush=True)
version = 1
while True:
    version += 1
    write_bundle(Path(sys.argv[1]), contents={"only": b"%d" % version * 100_000}, version=str(version))
"""


def test_a_writer_killed_at_any_moment_leaves_a_whole_bundle(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    chance = random.Random(7)
    for _ in range(6):
        writer = child(WRITE_ON, tmp_path)
        with writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            time.sleep(chance.uniform(0, 0.06))
            writer.kill()
        Bundle(tmp_path / "digits-1.edge")


# -------------------------------------------------------------------------------------------------- full disks

# Replace the bundle at a place by one whose blob lies elsewhere, and say how that ended.
REPLACE = """
import hashlib, resource, sys
from pathlib import Path
from bundle_stage import EVIDENCE, manifest_of, write_bundle
from edge_sdk import bundle
from edge_sdk.errors import StorageError
place, content, limit = Path(sys.argv[1]), Path(sys.argv[2]).read_bytes(), int(sys.argv[3])
old = write_bundle(place)
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
manifest = manifest_of({"only": content}, version="2")
blobs = {hashlib.sha256(content).hexdigest(): Path(sys.argv[2])}
try:
    bundle.write(old.path, manifest, blobs, evidence=EVIDENCE, report="")
except StorageError as error:
    print(error)
try:
    old.add_latencies(EVIDENCE.latency * 5000)
except StorageError as error:
    print(error)
print(bundle.Bundle(old.path).manifest.version, len(old.evidence().latency), len([*place.glob(".*")]))
"""


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.write_bytes(bytes(range(256)) * 2000)
    return path


def _said(place: Path, why: str) -> str:
    hint = "free some space or choose another place; nothing was changed"
    bundle = f"{place}/digits-1.edge"
    return (
        f"{bundle}: cannot be written: {why}; {hint}\n{bundle}/evidence.json: cannot be written: {why}; {hint}\n1 2 0\n"
    )


def test_files_that_may_not_grow_leave_the_old_bundle(tmp_path: Path, large: Path) -> None:
    with child(REPLACE, tmp_path, large, "100000") as writer:
        said, complaint = writer.communicate(timeout=60)
    assert complaint == ""
    assert said == _said(tmp_path, "File too large")


# A file system of its own, seen by this process only. As an ordinary user where the kernel allows that.
SMALL_DISK = """
for own in --mount -rm; do
    unshare $own true 2>/dev/null || continue
    exec unshare $own sh -c 'mount -t tmpfs -o size=300k none "$1" && shift && exec "$@"' - "$@"
done
exit 77
"""


def test_a_full_disk_leaves_the_old_bundle(tmp_path: Path, large: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)])}
    python = [sys.executable, "-c", REPLACE, str(place), str(large), "0"]
    done = subprocess.run(
        ["sh", "-c", SMALL_DISK, "-", str(place), *python],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode == 77 or "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no file system may be mounted here: {done.stderr.strip()}")
    assert done.stderr == ""
    assert done.stdout == _said(place, "No space left on device")
