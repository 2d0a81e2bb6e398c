"""The tables of the SQLite store, format 3, and what leads there from formats 1 and 2.

Log and events only grow at their end; what is known now is in `devices`. A boot is a number so that the unique key of
the log stays small and grows at its end too.
"""

from __future__ import annotations

FORMAT = 3
APPLICATION_ID = 0x45444745  # "EDGE", so that `file` and we recognise the database

PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    # An acknowledged message must survive a power cut, not just a crash: NORMAL would lose the last commits.
    "PRAGMA synchronous = FULL",
    "PRAGMA busy_timeout = 5000",
    # KiB of each connection. With 16 MiB a batch for 5,000 devices costs the same: the system keeps what was read.
    "PRAGMA cache_size = -4096",
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA temp_store = MEMORY",
)

TABLES = """
CREATE TABLE devices (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    password TEXT,                       -- hash; NULL where it was never enrolled
    enrolled REAL,
    first_seen REAL,
    last_seen REAL,
    online INTEGER NOT NULL DEFAULT 0,
    boot TEXT,                           -- the current one, by its birth
    birth_sent REAL NOT NULL DEFAULT 0,
    birth BLOB,
    state_boot TEXT,
    state_sent REAL NOT NULL DEFAULT 0,
    state BLOB,
    sample_boot TEXT,
    sample_seq INTEGER NOT NULL DEFAULT 0,
    sample_at REAL NOT NULL DEFAULT 0,
    sample BLOB,
    messages INTEGER NOT NULL DEFAULT 0,
    duplicates INTEGER NOT NULL DEFAULT 0,
    desired_version INTEGER NOT NULL DEFAULT 0,
    desired_sent REAL,
    desired_message TEXT,
    desired BLOB,
    labels BLOB,                         -- JSON object; NULL where there are none
    skew_s REAL,                         -- how far its clock is ahead; the rest of `edge_hub.skew.Skew` follows
    skew_next_s REAL,
    skew_until REAL,
    UNIQUE (tenant, name)
);
CREATE TABLE boots (
    id INTEGER PRIMARY KEY,
    device INTEGER NOT NULL REFERENCES devices (id),
    boot TEXT NOT NULL,
    born INTEGER NOT NULL DEFAULT 0,     -- a birth of it was seen
    UNIQUE (device, boot)
);
CREATE TABLE log (
    id INTEGER PRIMARY KEY,
    boot INTEGER NOT NULL REFERENCES boots (id),
    seq INTEGER NOT NULL,
    kind TEXT NOT NULL,
    message TEXT NOT NULL,
    sent REAL NOT NULL,
    received REAL NOT NULL,
    payload BLOB NOT NULL,
    UNIQUE (boot, seq)
);
CREATE TABLE trimmed (                   -- what retention took from the log: numbers that must not count again
    boot INTEGER NOT NULL REFERENCES boots (id),
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (boot, first)
) WITHOUT ROWID;
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    device INTEGER NOT NULL REFERENCES devices (id),
    received REAL NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX events_by_device ON events (device, id);
CREATE TABLE commands (
    id TEXT PRIMARY KEY,
    device INTEGER NOT NULL REFERENCES devices (id),
    sent REAL NOT NULL,
    expires REAL NOT NULL,
    body BLOB NOT NULL,
    state TEXT NOT NULL,
    published INTEGER NOT NULL DEFAULT 0,
    finished REAL,
    reply BLOB,
    late INTEGER NOT NULL DEFAULT 0,
    by TEXT NOT NULL DEFAULT '',
    batch TEXT
) WITHOUT ROWID;
CREATE INDEX commands_by_device ON commands (device, sent);
CREATE INDEX commands_pending ON commands (state, expires) WHERE state = 'pending';
CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    received REAL NOT NULL,
    topic TEXT NOT NULL,
    problem TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    payload BLOB NOT NULL
);
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""

ADDED_IN_2 = """
CREATE INDEX commands_by_time ON commands (sent);
CREATE INDEX commands_by_batch ON commands (batch) WHERE batch IS NOT NULL;
CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    who TEXT NOT NULL,
    role TEXT NOT NULL,
    what TEXT NOT NULL,
    target TEXT NOT NULL,
    detail BLOB NOT NULL
);
CREATE TABLE tokens (
    name TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    digest TEXT NOT NULL UNIQUE,
    created REAL NOT NULL,
    expires REAL,
    last_used REAL
) WITHOUT ROWID;
CREATE TABLE rules (name TEXT PRIMARY KEY, body BLOB NOT NULL, changed REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE alerts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    rule TEXT NOT NULL,
    device INTEGER NOT NULL REFERENCES devices (id),
    severity TEXT NOT NULL,
    began REAL NOT NULL,
    ended REAL,
    text TEXT NOT NULL,
    value REAL,
    acknowledged TEXT,
    acknowledged_at REAL
);
CREATE UNIQUE INDEX alerts_open ON alerts (rule, device) WHERE ended IS NULL;
CREATE INDEX alerts_by_device ON alerts (device, id);
CREATE TABLE condensed (                 -- telemetry per minute (step 60) and hour (step 3600)
    device INTEGER NOT NULL REFERENCES devices (id),
    step INTEGER NOT NULL,
    at INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (device, step, at)
) WITHOUT ROWID;
CREATE INDEX condensed_by_age ON condensed (step, at);
CREATE INDEX commands_ended ON commands (finished) WHERE finished IS NOT NULL;
CREATE INDEX alerts_ended ON alerts (ended) WHERE ended IS NOT NULL;
CREATE TABLE leases (
    kind TEXT NOT NULL,
    slot INTEGER NOT NULL,
    holder TEXT NOT NULL,
    until REAL NOT NULL,
    PRIMARY KEY (kind, slot)
) WITHOUT ROWID;
"""

ADDED_IN_3 = """
CREATE TABLE removed (                   -- devices taken out of the fleet of which something is left
    device INTEGER PRIMARY KEY,          -- the id it had, which is nobody else's meanwhile
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    at REAL NOT NULL,
    swept INTEGER NOT NULL DEFAULT 0     -- but for its last alerts, nothing hangs on it any more
);
CREATE INDEX removed_by_name ON removed (tenant, name);
"""

FROM_1 = """
ALTER TABLE devices ADD COLUMN labels BLOB;
ALTER TABLE devices ADD COLUMN skew_s REAL;
ALTER TABLE devices ADD COLUMN skew_next_s REAL;
ALTER TABLE devices ADD COLUMN skew_until REAL;
ALTER TABLE commands ADD COLUMN by TEXT NOT NULL DEFAULT '';
ALTER TABLE commands ADD COLUMN batch TEXT;
"""
