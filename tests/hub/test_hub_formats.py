"""A database of an older version is taken over as it is: nothing lost, nothing counted twice, tables like new ones."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from history_stage import CAM, NOON, rolled_up, sample, telemetry
from store_stage import within

from edge_hub.errors import StoreError
from edge_hub.store import _opening
from edge_hub.store._schema import APPLICATION_ID, FORMAT
from edge_hub.store.sqlite import SqliteStore

WRITTEN_BY = Path(__file__).resolve().parents[1] / "data"


@pytest.fixture(params=range(1, FORMAT))
def path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A database that an older version wrote: three messages of telemetry, an event, a number that retention took.

    Of format 2 it has been rolled up, and has a label, an alert and an entry in the audit log as well.
    """
    found = tmp_path / "hub.db"
    with contextlib.closing(sqlite3.connect(found)) as connection:
        connection.executescript((WRITTEN_BY / f"hub-format-{request.param}.sql").read_text("ascii"))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {request.param}")
    return found


def wrote(path: Path) -> int:
    """The format it is in."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def shape(path: Path) -> dict[str, object]:
    """Columns and indexes of each table."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            name: (
                {row[1:4] for row in connection.execute(f"PRAGMA table_info({name})")},
                {row[1:4] for row in connection.execute(f"PRAGMA index_list({name})")},
            )
            for name in names
        }


def test_what_an_older_version_wrote_is_all_there(path: Path) -> None:
    is_first = wrote(path) == 1

    async def look(store: SqliteStore) -> None:
        record = await store.device(CAM)
        assert record is not None
        assert (record.messages, record.labels, record.skew_s) == (5, {} if is_first else {"site": "roof"}, None)
        assert len(await store.alerts()) == len(await store.audit()) == (0 if is_first else 1)
        assert [one.event.kind for one in await store.events()] == ["switch"]
        (command,) = await store.pending(device=CAM)
        assert (command.published, command.by, command.batch) == (0, "", None)
        assert await rolled_up(store) == (4 if is_first else 0)
        found = await store.history(CAM, since=NOON, until=NOON + 600, step_s=60)
        assert [point.samples for point in found] == [2, 2, 2]
        again = await store.commit([telemetry(seq, [sample(NOON)], of=1) for seq in (1, 2, 6)])
        assert (again.stored, again.duplicates) == (1, 2)

    async def look_again(store: SqliteStore) -> None:
        record = await store.device(CAM)
        assert record is not None
        assert (record.messages, len(await store.pending())) == (6, 1)

    within(path, look)

    async def remove(store: SqliteStore) -> None:
        removed = await store.remove((CAM,), now=NOON)
        assert (len(removed.commands), len(removed.alerts)) == (1, 0 if is_first else 1)
        assert await store.devices() == ()

    within(path, look_again)  # brought there once, it is opened as it is
    within(path, remove)


def test_its_tables_are_those_of_a_new_one(path: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.db"
    for each in (path, new):
        within(each, lambda store: store.totals())
    assert shape(path) == shape(new)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (FORMAT,)


def test_a_change_of_format_that_breaks_off_leaves_the_old_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = shape(path)
    step = _opening.STEPS[wrote(path)]
    monkeypatch.setitem(_opening.STEPS, wrote(path), f"{step} CREATE TABLE;")
    with pytest.raises(StoreError):
        SqliteStore(path)
    assert shape(path) == before
