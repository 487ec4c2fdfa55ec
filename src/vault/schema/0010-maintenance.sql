-- Times in which nobody is told of what is wrong with a machine, or with all of a vault; it is in the events all the same.
CREATE TABLE maintenance_windows (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    vault INTEGER NOT NULL REFERENCES vaults ON DELETE CASCADE,
    machine TEXT REFERENCES machines ON DELETE CASCADE,  -- null: all of the vault
    begins INTEGER NOT NULL,
    ends INTEGER NOT NULL,
    note TEXT NOT NULL,
    made_by TEXT NOT NULL,
    told INTEGER NOT NULL DEFAULT 0         -- it is over, and what is still wrong was told
) STRICT;
CREATE INDEX maintenance_open ON maintenance_windows (vault, ends) WHERE told = 0;

-- The last day, in the server's time zone, whose summary was composed.
CREATE TABLE alert_summaries (
    vault INTEGER PRIMARY KEY REFERENCES vaults ON DELETE CASCADE,
    day TEXT NOT NULL
) STRICT;
