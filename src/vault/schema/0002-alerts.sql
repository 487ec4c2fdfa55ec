-- Alerts: what is on, what waits to be told, what was told. And the history that the capacity planner reckons from.
CREATE TABLE alert_settings (
    vault INTEGER PRIMARY KEY REFERENCES vaults ON DELETE CASCADE,
    revision INTEGER NOT NULL,
    body TEXT NOT NULL                      -- vault::AlertSettings as JSON: no secrets
) STRICT;

-- Apart from the settings, so that nothing that shows settings can show them.
CREATE TABLE alert_secrets (
    vault INTEGER NOT NULL REFERENCES vaults ON DELETE CASCADE,
    channel TEXT NOT NULL,                  -- email | webhook:NAME
    value TEXT NOT NULL,
    PRIMARY KEY (vault, channel)
) STRICT;

-- Health errors that are on. A restart of the server does not tell of them again.
CREATE TABLE health_errors (
    vault INTEGER NOT NULL REFERENCES vaults ON DELETE CASCADE,
    machine TEXT NOT NULL,                  -- empty: of the site
    code TEXT NOT NULL,
    severity TEXT NOT NULL,
    summary TEXT NOT NULL,
    message TEXT NOT NULL,
    possible_causes TEXT NOT NULL,
    recommended_action TEXT NOT NULL,
    since INTEGER NOT NULL,
    PRIMARY KEY (vault, machine, code)
) STRICT;

-- What the next message of a channel will say. One row per code and machine, so a storm cannot fill it.
CREATE TABLE alert_pending (
    vault INTEGER NOT NULL REFERENCES vaults ON DELETE CASCADE,
    channel TEXT NOT NULL,
    code TEXT NOT NULL,
    machine TEXT NOT NULL,
    kind TEXT NOT NULL,                     -- Raised | Over | Occurred
    severity TEXT NOT NULL,
    summary TEXT NOT NULL,
    message TEXT NOT NULL,
    possible_causes TEXT NOT NULL,
    recommended_action TEXT NOT NULL,
    count INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    PRIMARY KEY (vault, channel, code, machine, kind)
) STRICT;

-- Health errors that a channel was told of and not yet that they are over.
CREATE TABLE alert_told (
    vault INTEGER NOT NULL REFERENCES vaults ON DELETE CASCADE,
    channel TEXT NOT NULL,
    code TEXT NOT NULL,
    machine TEXT NOT NULL,
    severity TEXT NOT NULL,
    PRIMARY KEY (vault, channel, code, machine)
) STRICT;

-- The delivery log. Pending rows are sent until they arrive: a crash between sending and noting it sends again.
CREATE TABLE alert_deliveries (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    vault INTEGER NOT NULL REFERENCES vaults ON DELETE CASCADE,
    channel TEXT NOT NULL,
    kind TEXT NOT NULL,                     -- Alert | Test
    state TEXT NOT NULL,                    -- Pending | Delivered | Failed | Cancelled
    created INTEGER NOT NULL,
    next_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    ended INTEGER,
    error TEXT NOT NULL,
    body TEXT NOT NULL                      -- vault::Digest as JSON
) STRICT;
CREATE INDEX alert_deliveries_open ON alert_deliveries (vault, channel) WHERE state = 'Pending';

-- Bytes that changed and bytes that the store grew by, per slot of time.
CREATE TABLE churn (
    machine TEXT NOT NULL REFERENCES machines ON DELETE CASCADE,
    slot_seconds INTEGER NOT NULL,          -- 300 or 3600
    start INTEGER NOT NULL,                 -- Unix seconds
    changed_bytes INTEGER NOT NULL,
    stored_bytes INTEGER NOT NULL,
    points INTEGER NOT NULL,
    PRIMARY KEY (machine, slot_seconds, start)
) STRICT, WITHOUT ROWID;
CREATE INDEX churn_by_time ON churn (slot_seconds, start);

-- The store, once an hour.
CREATE TABLE store_history (
    start INTEGER PRIMARY KEY,              -- Unix seconds
    stored_bytes INTEGER NOT NULL,
    free_bytes INTEGER NOT NULL,
    capacity_bytes INTEGER NOT NULL
) STRICT;

-- For counting jobs without reading them.
CREATE INDEX jobs_counted ON jobs (machine, kind, state);
