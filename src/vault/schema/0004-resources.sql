-- A machine that was removed keeps its row, so that its jobs keep theirs; its name and key are free again.
ALTER TABLE machines ADD COLUMN removed INTEGER;

-- Who asked for a job, to list by.
ALTER TABLE jobs ADD COLUMN user TEXT GENERATED ALWAYS AS (json_extract(body, '$.user')) VIRTUAL;
CREATE INDEX jobs_of_user ON jobs (user, id);
CREATE INDEX jobs_by_kind ON jobs (kind, id);

-- Lists of one vault must not pass over the rows of all others.
CREATE INDEX events_of_vault ON events (vault, id);
CREATE INDEX events_by_severity ON events (vault, severity, id);
CREATE INDEX events_by_code ON events (vault, code, id);
-- From an instant to an id.
CREATE INDEX events_at ON events (at);
CREATE INDEX machines_of_vault ON machines (vault, removed, name);
