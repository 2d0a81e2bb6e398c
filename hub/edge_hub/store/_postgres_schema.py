"""The tables of the PostgreSQL store, as numbered steps that each database has taken up to some number.

They lie in a schema of their own, so that the database may hold other things. Log and events have a partition for each
day, which retention drops whole; a boot's numbers are unique over all days, dropped ones too, because `numbers` keeps
them as ranges, apart from the log. Times are seconds since 1970, documents are the bytes that SQLite keeps, too.
"""

from __future__ import annotations

SCHEMA = "edge_hub"
# Of `pg_advisory_lock`: one process at a time changes tables. "EDGE", as the SQLite file is marked.
LOCK = 0x45444745

_FIRST = """
CREATE TABLE devices (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    name text NOT NULL,
    password text,
    enrolled double precision,
    first_seen double precision,
    last_seen double precision,
    online smallint NOT NULL DEFAULT 0,
    boot text,
    birth_sent double precision NOT NULL DEFAULT 0,
    birth bytea,
    state_boot text,
    state_sent double precision NOT NULL DEFAULT 0,
    state bytea,
    sample_boot text,
    sample_seq bigint NOT NULL DEFAULT 0,
    sample_at double precision NOT NULL DEFAULT 0,
    sample bytea,
    messages bigint NOT NULL DEFAULT 0,
    duplicates bigint NOT NULL DEFAULT 0,
    desired_version bigint NOT NULL DEFAULT 0,
    desired_sent double precision,
    desired_message text,
    desired bytea,
    labels bytea,
    skew_s double precision,
    skew_next_s double precision,
    skew_until double precision,
    UNIQUE (tenant, name)
) WITH (fillfactor = 70);                -- room beside each row: what changes with every batch is no index's business
CREATE TABLE boots (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device bigint NOT NULL REFERENCES devices (id),
    boot text NOT NULL,
    born boolean NOT NULL DEFAULT false,
    UNIQUE (device, boot)
);
CREATE TABLE numbers (                   -- all that were ever stored, as ranges that neither overlap nor touch
    boot bigint NOT NULL REFERENCES boots (id) ON DELETE CASCADE,
    first bigint NOT NULL,
    last bigint NOT NULL,
    PRIMARY KEY (boot, first)
) WITH (fillfactor = 70);
CREATE SEQUENCE log_id;
CREATE TABLE log (
    id bigint NOT NULL DEFAULT nextval('log_id'),
    tx xid8 NOT NULL DEFAULT pg_current_xact_id(),  -- rows of a transaction that has ended never get company
    boot bigint NOT NULL,                -- of boots; not checked, each batch has just looked it up
    seq bigint NOT NULL,
    kind text NOT NULL,
    message text NOT NULL,
    sent double precision NOT NULL,
    received double precision NOT NULL,
    payload bytea NOT NULL
) PARTITION BY RANGE (received);
CREATE INDEX log_number ON log (boot, seq);
CREATE INDEX log_order ON log (tx, id);
CREATE INDEX log_telemetry ON log (boot, sent) WHERE kind = 'tele';
CREATE TABLE events (
    id bigint NOT NULL,                  -- counted under a lock: in the order in which they can be seen
    device bigint NOT NULL,              -- of devices; not checked, for the same reason
    received double precision NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (id, received)
) PARTITION BY RANGE (received);
CREATE INDEX events_by_device ON events (device, id);
CREATE TABLE births (                    -- devices that came up and were not sent their orders yet
    device bigint PRIMARY KEY REFERENCES devices (id),
    turn bigint GENERATED ALWAYS AS IDENTITY
);
CREATE TABLE commands (
    id text PRIMARY KEY,
    device bigint NOT NULL REFERENCES devices (id),
    sent double precision NOT NULL,
    expires double precision NOT NULL,
    body bytea NOT NULL,
    state text NOT NULL,
    published integer NOT NULL DEFAULT 0,
    finished double precision,
    reply bytea,
    late boolean NOT NULL DEFAULT false,
    by text NOT NULL DEFAULT '',
    batch text
);
CREATE INDEX commands_by_device ON commands (device, sent);
CREATE INDEX commands_by_time ON commands (sent);
CREATE INDEX commands_by_batch ON commands (batch) WHERE batch IS NOT NULL;
CREATE INDEX commands_ended ON commands (finished) WHERE finished IS NOT NULL;
CREATE INDEX commands_pending ON commands (expires) WHERE state = 'pending';
CREATE TABLE quarantine (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received double precision NOT NULL,
    topic text NOT NULL,
    problem text NOT NULL,
    size_bytes bigint NOT NULL,
    payload bytea NOT NULL
);
CREATE TABLE counters (name text PRIMARY KEY, value bigint NOT NULL);
CREATE TABLE audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at double precision NOT NULL,
    who text NOT NULL,
    role text NOT NULL,
    what text NOT NULL,
    target text NOT NULL,
    detail bytea NOT NULL
);
CREATE TABLE tokens (
    name text PRIMARY KEY,
    role text NOT NULL,
    digest text NOT NULL UNIQUE,
    created double precision NOT NULL,
    expires double precision,
    last_used double precision
);
CREATE TABLE rules (name text PRIMARY KEY, body bytea NOT NULL, changed double precision NOT NULL);
CREATE TABLE alerts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rule text NOT NULL,
    device bigint NOT NULL REFERENCES devices (id),
    severity text NOT NULL,
    began double precision NOT NULL,
    ended double precision,
    text text NOT NULL,
    value double precision,
    acknowledged text,
    acknowledged_at double precision
);
CREATE UNIQUE INDEX alerts_open ON alerts (rule, device) WHERE ended IS NULL;
CREATE INDEX alerts_ended ON alerts (ended) WHERE ended IS NOT NULL;
CREATE INDEX alerts_by_device ON alerts (device, id);
CREATE TABLE condensed (
    device bigint NOT NULL REFERENCES devices (id),
    step integer NOT NULL,
    at bigint NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (device, step, at)
);
CREATE INDEX condensed_by_age ON condensed (step, at);
CREATE TABLE leases (
    kind text NOT NULL,
    slot integer NOT NULL,
    holder text NOT NULL,
    until double precision NOT NULL,
    PRIMARY KEY (kind, slot)
);
CREATE TABLE identity (id text NOT NULL);  -- one row: by this name the broker knows the hub's workers
INSERT INTO identity VALUES (replace(gen_random_uuid()::text, '-', ''));
"""

_REMOVAL = """
CREATE TABLE removed (                   -- devices taken out of the fleet of which something is left
    device bigint PRIMARY KEY,           -- the id it had
    tenant text NOT NULL,
    name text NOT NULL,
    at double precision NOT NULL,
    swept boolean NOT NULL DEFAULT false -- but for its last alerts, nothing hangs on it any more
);
CREATE INDEX removed_by_name ON removed (tenant, name);
-- A device's row goes before what hangs on it. Who adds to that holds the row meanwhile, and so is never too late.
ALTER TABLE boots DROP CONSTRAINT boots_device_fkey;
ALTER TABLE commands DROP CONSTRAINT commands_device_fkey;
ALTER TABLE alerts DROP CONSTRAINT alerts_device_fkey;
ALTER TABLE condensed DROP CONSTRAINT condensed_device_fkey;
"""

# Tables with a partition for each day.
DAILY = ("log", "events")

# Append only: a step that was ever released is history.
MIGRATIONS: tuple[str, ...] = (_FIRST, _REMOVAL)
FORMAT = len(MIGRATIONS)

RECORDED = "CREATE TABLE migrations (number integer PRIMARY KEY, at timestamptz NOT NULL, version text NOT NULL)"
