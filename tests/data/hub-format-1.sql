-- A hub's database as version 0.4 and before made it: format 1, with one device that has sent and been sent something.
CREATE TABLE devices (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    password TEXT,
    enrolled REAL,
    first_seen REAL,
    last_seen REAL,
    online INTEGER NOT NULL DEFAULT 0,
    boot TEXT,
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
    UNIQUE (tenant, name)
);
CREATE TABLE boots (
    id INTEGER PRIMARY KEY,
    device INTEGER NOT NULL REFERENCES devices (id),
    boot TEXT NOT NULL,
    born INTEGER NOT NULL DEFAULT 0,
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
CREATE TABLE trimmed (
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
    late INTEGER NOT NULL DEFAULT 0
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
INSERT INTO devices (id, tenant, name, password, enrolled, first_seen, last_seen, online, boot, birth_sent, messages)
VALUES (1, 'acme', 'cam1', 'hash', 1.0, 10.0, 12.0, 1, 'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', 10.0, 2);
INSERT INTO boots VALUES (1, 1, 'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', 1);
INSERT INTO log VALUES (1, 1, 2, 'event', '22222222222222222222222222222222', 12.0, 12.0, x'7b7d');
INSERT INTO trimmed VALUES (1, 1, 1);
INSERT INTO events VALUES (1, 1, 12.0, '{"at":12.0,"kind":"sensor","text":"two"}');
INSERT INTO commands VALUES ('cccccccccccccccccccccccccccccccc', 1, 11.0, 71.0, '{"name":"report"}', 'pending', 1, NULL, NULL, 0);
INSERT INTO counters VALUES ('malformed', 3);
PRAGMA application_id = 1162102597;
PRAGMA user_version = 1;
