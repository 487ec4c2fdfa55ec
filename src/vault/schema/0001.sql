-- Times are Unix nanoseconds unless a column says otherwise. Ids of the data plane are UUIDs in text, so that a
-- person with an SQLite shell can read the database on the day it matters.
CREATE TABLE vaults (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE COLLATE NOCASE,
    created INTEGER NOT NULL
) STRICT;

CREATE TABLE settings (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE machines (
    id TEXT PRIMARY KEY,
    vault INTEGER NOT NULL REFERENCES vaults,
    name TEXT NOT NULL COLLATE NOCASE,
    key TEXT NOT NULL,                      -- stable identity of the machine
    joined INTEGER NOT NULL,
    agent_version TEXT NOT NULL,
    inventory TEXT,                         -- wire::facts::Inventory as JSON
    last_heartbeat INTEGER,
    generation INTEGER NOT NULL DEFAULT 0,  -- the highest ever used: fences hold across disable and enable
    sync_request INTEGER NOT NULL DEFAULT 0,
    resync_request INTEGER NOT NULL DEFAULT 0,
    revoked INTEGER,
    UNIQUE (vault, name),
    UNIQUE (vault, key)
) STRICT;

CREATE TABLE certificates (
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of issue
    serial TEXT NOT NULL UNIQUE,
    machine TEXT NOT NULL REFERENCES machines,
    issued INTEGER NOT NULL,
    not_after_unix INTEGER NOT NULL,        -- seconds
    revoked INTEGER
) STRICT;
CREATE INDEX certificates_of_machine ON certificates (machine, number);

CREATE TABLE policies (
    id INTEGER PRIMARY KEY,
    vault INTEGER NOT NULL REFERENCES vaults,
    name TEXT NOT NULL COLLATE NOCASE,
    rpo_threshold_seconds INTEGER NOT NULL,
    retention_hours INTEGER NOT NULL,
    crash_consistent_seconds INTEGER NOT NULL,
    app_consistent_seconds INTEGER NOT NULL,
    failback_of INTEGER REFERENCES policies ON DELETE CASCADE,  -- not null: made by itself, not editable
    revision INTEGER NOT NULL DEFAULT 1,
    created INTEGER NOT NULL,
    UNIQUE (vault, name)
) STRICT;
CREATE INDEX policies_failback ON policies (failback_of);

CREATE TABLE items (
    machine TEXT PRIMARY KEY REFERENCES machines,
    policy INTEGER NOT NULL REFERENCES policies,
    revision INTEGER NOT NULL,
    protection TEXT NOT NULL,
    body TEXT NOT NULL                      -- recovery::Item as JSON
) STRICT;
CREATE INDEX items_policy ON items (policy);

CREATE TABLE disks (
    id TEXT PRIMARY KEY,
    machine TEXT NOT NULL REFERENCES items ON DELETE CASCADE,
    position INTEGER NOT NULL,              -- the boot disk is 0
    stable_id TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    UNIQUE (machine, stable_id)
) STRICT;

CREATE TABLE jobs (
    id TEXT PRIMARY KEY,                    -- UUIDv7: sorts by age
    machine TEXT NOT NULL REFERENCES machines,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    is_over INTEGER NOT NULL,
    created INTEGER NOT NULL,
    body TEXT NOT NULL                      -- recovery::Job with its tasks as JSON
) STRICT;
CREATE INDEX jobs_of_machine ON jobs (machine, id);
CREATE INDEX jobs_by_state ON jobs (state, id);
CREATE INDEX jobs_open ON jobs (machine, created, id) WHERE is_over = 0;

CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    vault INTEGER NOT NULL REFERENCES vaults,
    at INTEGER NOT NULL,
    severity TEXT NOT NULL,                 -- Information | Warning | Critical
    code TEXT NOT NULL,
    machine TEXT,
    job TEXT,
    message TEXT NOT NULL,
    possible_causes TEXT NOT NULL,
    recommended_action TEXT NOT NULL
) STRICT;
CREATE INDEX events_of_machine ON events (machine, id);

CREATE TABLE users (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE COLLATE NOCASE,
    password_hash TEXT NOT NULL,            -- argon2id, PHC string
    must_change_password INTEGER NOT NULL,
    created INTEGER NOT NULL,
    disabled INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE role_assignments (
    user INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
    vault INTEGER NOT NULL REFERENCES vaults ON DELETE CASCADE,
    role TEXT NOT NULL,                     -- Owner | Contributor | Operator | Reader
    PRIMARY KEY (user, vault)
) STRICT;

-- Sessions and tokens are 256 random bits; only their BLAKE3 is kept.
CREATE TABLE sessions (
    hash BLOB PRIMARY KEY,
    user INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
    created INTEGER NOT NULL,
    last_used INTEGER NOT NULL,
    expires INTEGER NOT NULL
) STRICT;
CREATE INDEX sessions_of_user ON sessions (user);

CREATE TABLE api_tokens (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    hash BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    user INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
    vault INTEGER NOT NULL REFERENCES vaults ON DELETE CASCADE,
    role TEXT NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    last_used INTEGER,
    revoked INTEGER
) STRICT;

CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    user TEXT NOT NULL,
    origin TEXT NOT NULL,                   -- address, or `unix socket`
    action TEXT NOT NULL,
    object TEXT NOT NULL,
    outcome TEXT NOT NULL
) STRICT;
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_is_not_removed BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;

-- Answers to POSTs that carried an Idempotency-Key.
CREATE TABLE idempotency (
    user TEXT NOT NULL,
    key TEXT NOT NULL,
    request BLOB NOT NULL,                  -- BLAKE3 of method, path and body
    status INTEGER NOT NULL,
    body TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (user, key)
) STRICT;

-- What live views are told: one row per change, in order; old ones are dropped.
CREATE TABLE changes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    vault INTEGER NOT NULL,
    kind TEXT NOT NULL,                     -- item | job | event | policy | machine
    object TEXT NOT NULL
) STRICT;
CREATE TRIGGER changes_item_made AFTER INSERT ON items BEGIN
    INSERT INTO changes (vault, kind, object) SELECT vault, 'item', id FROM machines WHERE id = new.machine; END;
CREATE TRIGGER changes_item AFTER UPDATE ON items BEGIN
    INSERT INTO changes (vault, kind, object) SELECT vault, 'item', id FROM machines WHERE id = new.machine; END;
CREATE TRIGGER changes_item_gone AFTER DELETE ON items BEGIN
    INSERT INTO changes (vault, kind, object) SELECT vault, 'item', id FROM machines WHERE id = old.machine; END;
CREATE TRIGGER changes_job_made AFTER INSERT ON jobs BEGIN
    INSERT INTO changes (vault, kind, object) SELECT vault, 'job', new.id FROM machines WHERE id = new.machine; END;
CREATE TRIGGER changes_job AFTER UPDATE ON jobs BEGIN
    INSERT INTO changes (vault, kind, object) SELECT vault, 'job', new.id FROM machines WHERE id = new.machine; END;
CREATE TRIGGER changes_event AFTER INSERT ON events BEGIN
    INSERT INTO changes (vault, kind, object) VALUES (new.vault, 'event', new.id); END;
CREATE TRIGGER changes_machine AFTER INSERT ON machines BEGIN
    INSERT INTO changes (vault, kind, object) VALUES (new.vault, 'machine', new.id); END;
CREATE TRIGGER changes_machine_renamed AFTER UPDATE OF name, revoked, inventory ON machines BEGIN
    INSERT INTO changes (vault, kind, object) VALUES (new.vault, 'machine', new.id); END;
CREATE TRIGGER changes_policy_made AFTER INSERT ON policies BEGIN
    INSERT INTO changes (vault, kind, object) VALUES (new.vault, 'policy', new.name); END;
CREATE TRIGGER changes_policy AFTER UPDATE ON policies BEGIN
    INSERT INTO changes (vault, kind, object) VALUES (new.vault, 'policy', new.name); END;
