"""What outlives a power cut: all or nothing, on a disk that may be full, damaged or somebody else's."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon_stage import fill, small_disk

from edge_daemon.errors import StateInUseError
from edge_daemon.memory import CommandMemory
from edge_daemon.spool import Limits, Message
from edge_daemon.store import Answer, Store
from edge_sdk.errors import StorageError
from edge_sdk.mqtt import Event, Reply, ReplyStatus, Up, unpack_up
from edge_sdk.wire import new_token

pytestmark = pytest.mark.device

LIMITS = Limits(max_bytes=1_000_000, max_age_s=3600)
EVENT = Message(body=Event(at=1.0, kind="started"))


def opened(directory: Path, *, boot: str | None = None, limits: Limits = LIMITS) -> Store:
    return Store(directory, boot=boot or new_token(), limits=limits)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = opened(tmp_path / "state")
    yield store
    store.close()


def test_what_was_committed_is_there_after_a_restart(tmp_path: Path) -> None:
    store = opened(tmp_path)
    command = new_token()
    store.commit(
        5.0,
        values={"policy": b"state"},
        messages=[Message(body=Reply(status=ReplyStatus.DONE), reply_to=command), EVENT],
        answer=Answer(command=command, sent=4.0),
    )
    store.close()
    store = opened(tmp_path)
    assert store.get("policy") == b"state"
    remembered = store.commands.recall(command)
    assert remembered is not None
    waiting = store.payloads(store.waiting(10))
    assert [one.kind for one in waiting] == [Up.REPLY, Up.EVENT]
    assert remembered.reply == waiting[0].payload
    assert unpack_up(Up.REPLY, waiting[0].payload).reply_to == command
    store.close()


def test_a_commit_that_fails_halfway_changes_nothing(store: Store) -> None:
    store.commit(1.0, values={"a": b"1"}, messages=[EVENT])
    before = store.spool.totals()

    class BrokenError(Exception):
        pass

    def values() -> Iterator[tuple[str, bytes]]:
        yield "a", b"2"
        raise BrokenError

    class Values(dict[str, bytes]):
        def items(self):  # type: ignore[no-untyped-def,override]  # fails in the middle
            return values()

    with pytest.raises(BrokenError):
        store.commit(2.0, values=Values(x=b""), messages=[EVENT])
    assert store.get("a") == b"1"
    assert store.spool.totals() == before
    assert [s.payload for s in store.commit(3.0, messages=[EVENT])]
    assert len(store.waiting(10)) == 2


def test_a_second_daemon_is_refused_in_one_line(store: Store) -> None:
    with pytest.raises(StateInUseError) as caught:
        opened(store.path.parent)
    assert "another daemon" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from edge_daemon.store import Store;"
        "from edge_daemon.spool import Limits; Store(Path(sys.argv[1]), boot='0' * 32, limits=Limits(max_bytes=1000,"
        " max_age_s=1)); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path], check=False).returncode < 0
    opened(tmp_path).close()


def test_a_damaged_file_is_moved_aside_and_a_fresh_one_begun(tmp_path: Path) -> None:
    opened(tmp_path).close()
    path = tmp_path / "state.db"
    path.write_bytes(b"not a database, but as long as one" * 1000)
    store = opened(tmp_path)
    assert store.quarantined == tmp_path / "state.db.damaged"
    assert store.quarantined.read_bytes().startswith(b"not a database")
    store.commit(1.0, values={"a": b"1"})
    store.close()
    path.write_bytes(b"again" * 1000)
    store = opened(tmp_path)
    assert (tmp_path / "state.db.damaged").read_bytes().startswith(b"again")
    store.close()


def test_a_file_of_a_later_version_is_kept_aside(tmp_path: Path) -> None:
    opened(tmp_path).close()
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    store = opened(tmp_path)
    assert store.quarantined is not None
    store.close()


def test_where_no_file_can_be_kept_memory_has_to_do(tmp_path: Path) -> None:
    (tmp_path / "state.db").mkdir()
    store = opened(tmp_path)
    assert store.trouble is not None
    assert "memory has to do" in store.trouble
    store.commit(1.0, values={"a": b"1"}, messages=[EVENT])
    assert store.get("a") == b"1"
    assert store.trouble is not None, "it is not mended by working"
    store.close()


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"\[state\] directory"):
        opened(tmp_path / "file" / "state")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_refuses_whole_commits_and_is_no_trouble_once_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "600k") as disk:
        store = opened(disk)
        store.commit(1.0, values={"a": b"1"}, messages=[EVENT])
        ballast = disk / "ballast"
        fill(ballast)
        before = store.spool.totals()
        with pytest.raises(StorageError, match="full"):
            store.commit(2.0, values={"a": b"2" * 100_000}, messages=[EVENT])
        assert store.spool.totals() == before
        assert store.trouble is not None
        assert len(store.waiting(10_000)) == before.rows, "what is there can be read"
        ballast.unlink()
        store.commit(3.0, values={"a": b"3"})
        assert store.trouble is None
        assert store.get("a") == b"3"
        store.close()
        reopened = opened(disk)
        assert reopened.get("a") == b"3"
        reopened.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_work_that_wrote_nothing_does_not_end_the_trouble_with_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "200k") as disk:
        store = opened(disk)
        fill(disk / "ballast")
        with pytest.raises(StorageError, match="full"):
            store.commit(2.0, values={"a": b"2" * 100_000})
        trouble = store.trouble
        assert store.tidy(3.0) == 0
        assert store.acknowledge("0" * 32, [(1, 2)]) == 0
        assert store.trouble == trouble is not None
        store.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_where_there_is_no_room_to_begin_anew_memory_has_to_do(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "200k") as disk:
        opened(disk).close()
        (disk / "state.db").write_bytes(b"not a database" * 1000)
        fill(disk / "ballast")
        store = opened(disk)
        assert store.trouble is not None
        assert "memory has to do" in store.trouble
        assert store.quarantined == disk / "state.db.damaged"
        store.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_where_what_is_damaged_cannot_be_moved_aside_memory_has_to_do(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "200k") as disk:
        (disk / "state.db").write_bytes(b"not a database" * 1000)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        store = opened(disk)
        assert store.trouble is not None
        assert "memory has to do" in store.trouble
        assert store.quarantined is None
        store.close()


def test_a_floor_that_is_damaged_keeps_no_command_from_being_run(store: Store) -> None:
    store.commit(1.0, values={"commands.floor": b"\xff\xfe"})
    assert store.commands.floor() == 0.0


def test_a_command_is_remembered_until_it_falls_below_the_floor(store: Store) -> None:
    memory = CommandMemory(store._connection, max_commands=3)
    for number in range(5):
        memory.answer(f"{number:032x}", sent=100.0 + number, now=200.0 + number, reply=b"done")
    assert memory.recall(f"{4:032x}") is not None
    assert memory.recall(f"{0:032x}") is None
    assert memory.floor() == 101.0, "the youngest that was forgotten"


def test_a_hub_whose_clock_runs_ahead_does_not_lift_the_floor_above_the_present(store: Store) -> None:
    memory = CommandMemory(store._connection, max_commands=1)
    memory.answer("a" * 32, sent=9e9, now=200.0, reply=b"")
    memory.answer("b" * 32, sent=9e9, now=201.0, reply=b"")
    assert memory.floor() == 201.0


def test_a_command_that_had_begun_is_found_after_a_restart(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.begin(Answer(command="a" * 32, sent=5.0), now=6.0)
    store.close()
    store = opened(tmp_path)
    assert store.commands.unfinished() == [("a" * 32, 5.0)]
    store.close()
