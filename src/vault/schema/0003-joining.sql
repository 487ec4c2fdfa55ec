-- Join tokens of machines and registration keys of servers: 256 random bits, only their BLAKE3 is kept.
CREATE TABLE invitations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,                     -- machine | server
    hash BLOB NOT NULL UNIQUE,
    vault INTEGER NOT NULL REFERENCES vaults ON DELETE CASCADE,
    made_by TEXT NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    used INTEGER,
    used_by TEXT,                           -- name of the machine or server
    revoked INTEGER
) STRICT;

-- The order to update the agent of a machine, and what became of it.
ALTER TABLE machines ADD COLUMN update_request INTEGER NOT NULL DEFAULT 0;  -- grows with each order
ALTER TABLE machines ADD COLUMN update_state TEXT;      -- null | Ordered | Trying | Confirmed | RolledBack | Failed
ALTER TABLE machines ADD COLUMN update_message TEXT NOT NULL DEFAULT '';
