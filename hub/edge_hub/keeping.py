"""`edge hub export`, `backup` and `move`: a hub's data as files, and from SQLite to PostgreSQL."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import os
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from edge_hub import environment
from edge_hub.api import ExportQuery
from edge_hub.client import HubClient
from edge_hub.datadir import DATABASE, PRIVATE_FILE, DataDir, MovedTo, refuse_database
from edge_hub.export.choice import chosen
from edge_hub.export.files import WRITERS
from edge_hub.export.sources import open_source
from edge_hub.export.tables import TABLES, Wanted
from edge_hub.named import device_named
from edge_hub.store._backup import copy
from edge_hub.store._opening import as_store_errors, read_only
from edge_hub.store.choose import without_secrets
from edge_hub.store.records import AuditRecord
from edge_sdk import atomic
from edge_sdk.cli.output import emit, say, table
from edge_sdk.errors import UsageError
from edge_sdk.wire import encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """The result of `edge hub export --json`; how many rows a running hub sent, is not counted."""

    what: str
    format: str
    file: str
    rows: int | None
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BackedUp:
    """The result of `edge hub backup --json`."""

    file: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """The result of `edge hub move --json`: how many rows each table has, there as here."""

    store: str
    rows: dict[str, int]


def export(args: argparse.Namespace) -> int:
    """Write what is kept of one kind; the file is there whole or not at all."""
    target = _target(args)
    since = None if args.since is None else moment(args.since)
    until = None if args.until is None else moment(args.until)
    if not (since or 0.0) < (math.inf if until is None else until):
        raise UsageError("--since is not before --until")
    named = tuple(device_named(name) for name in args.device)
    if args.hub_ca is not None and args.hub is None:
        raise UsageError("--hub-ca goes with --hub", hint="without it the data directory is read, and no hub asked")
    if args.hub is not None:
        if args.store is not None:
            raise UsageError("--hub and --store name two places", hint="give one of them")
        asked = ExportQuery(
            format=args.format,
            times=args.times,
            since=since,
            until=until,
            devices=",".join(map(str, named)) or None,
            query=args.query,
        )
        client = HubClient.asked(url=args.hub, data=Path(args.data), ca=args.hub_ca)
        with client, atomic.file(target, mode=PRIVATE_FILE) as stream:
            client.export(args.what, stream, asked)
        return _exported(args, target, rows=None)
    kind = TABLES[args.what]
    store = environment.asked(args.store, option="--store", variable=environment.STORE)
    with open_source(Path(args.data) / DATABASE, store) as source:
        devices = chosen(source, named or None, args.query, now=time.time())
        wanted = Wanted(since=since or 0.0, until=math.inf if until is None else until, devices=devices)
        with atomic.file(target, mode=PRIVATE_FILE) as stream:
            unix = args.times == "unix"
            rows = WRITERS[args.format](stream, kind.columns, kind.read(source, wanted), unix=unix)
    return _exported(args, target, rows=rows)


def _target(args: argparse.Namespace) -> Path:
    if args.output == "-":
        raise UsageError("-o - names no file", hint="it is written into a file, to be there whole or not at all")
    refuse_database(Path(args.data), Path(args.output))
    return Path(args.output)


def _exported(args: argparse.Namespace, target: Path, *, rows: int | None) -> int:
    size_bytes = target.stat().st_size
    result = Exported(what=args.what, format=args.format, file=str(target), rows=rows, size_bytes=size_bytes)
    what = args.what if rows is None else f"{rows} rows of {args.what}"
    verb = "is" if rows is None else "are"
    emit(args, result, lambda: f"{what} {verb} in {target}")
    return 0


def backup(args: argparse.Namespace) -> int:
    """Copy the database as it is at one moment."""
    target = _target(args)
    copy(Path(args.data) / DATABASE, target)
    result = BackedUp(file=str(target), size_bytes=target.stat().st_size)
    emit(args, result, lambda: f"a copy of the hub's database is in {target} ({result.size_bytes / 1e6:.1f} MB)")
    return 0


def move(args: argparse.Namespace) -> int:
    """Copy everything from the SQLite file into an empty PostgreSQL, and let no hub go on with the file."""
    url = environment.asked(args.store, option="--store", variable=environment.STORE)
    if url is None:
        raise UsageError(
            "no database is named", hint=f"{environment.STORE}=postgresql://user:password@host/database, or --store"
        )
    path = Path(args.data) / DATABASE
    store, now = without_secrets(url), time.time()
    from edge_hub.store import _move  # it takes the driver, which is there by now

    def note(rows: dict[str, int]) -> AuditRecord:
        here = os.fsencode(path.absolute()).decode("utf-8", "backslashreplace")
        detail = encode({"from": here, "rows": rows})
        return AuditRecord(at=now, who="local", role="admin", what="move", target=store, detail=detail)

    with contextlib.closing(read_only(path)) as source:
        data = DataDir(args.data)
        with data.locked(), as_store_errors(path):
            rows = asyncio.run(
                _move.move(
                    source,
                    url,
                    audit=note,
                    close=lambda: data.write_moved(MovedTo(store=store, at=now)),
                    told=lambda line: say(f"edge: {line}"),
                )
            )
    lines = [(name, str(count)) for name, count in rows.items()]
    emit(
        args,
        Moved(store=store, rows=rows),
        lambda: (
            f"{table(('table', 'rows'), lines, right=frozenset({1}))}\n\n"
            f"Everything is in {store}: start the hub with --store and the same --data.\n{path} stays as it is."
        ),
    )
    return 0


def moment(text: str) -> float:
    """Seconds since 1970 of a moment that is written so, or as ISO 8601 (UTC where no zone is given).

    Raises:
        UsageError: It is neither.
    """
    try:
        at = float(text)
    except ValueError:
        try:
            told = datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            at = math.nan
        else:
            at = (told if told.tzinfo is not None else told.replace(tzinfo=timezone.utc)).timestamp()
    if not 0 <= at < math.inf:
        raise UsageError(
            f"{text[:40]!r} is no moment", hint="write 2026-11-27, 2026-11-27T18:30Z, or seconds since 1970"
        )
    return at
