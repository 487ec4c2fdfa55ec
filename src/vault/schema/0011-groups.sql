-- Replication groups: machines with shared recovery points.
CREATE TABLE replication_groups (
    id INTEGER PRIMARY KEY,
    vault INTEGER NOT NULL REFERENCES vaults,
    name TEXT NOT NULL COLLATE NOCASE,
    share_seconds INTEGER NOT NULL,             -- from one shared point to the next
    app_consistent_seconds INTEGER NOT NULL,    -- from one app-consistent one to the next; 0: off
    revision INTEGER NOT NULL DEFAULT 1,
    created INTEGER NOT NULL,
    UNIQUE (vault, name)
) STRICT;

CREATE TABLE group_members (
    machine TEXT PRIMARY KEY REFERENCES machines,
    replication_group INTEGER NOT NULL REFERENCES replication_groups ON DELETE CASCADE
) STRICT;
CREATE INDEX members_of_group ON group_members (replication_group);

CREATE TRIGGER group_member_removed AFTER UPDATE OF removed ON machines WHEN new.removed IS NOT NULL BEGIN
    DELETE FROM group_members WHERE machine = new.id; END;

CREATE TRIGGER changes_group_made AFTER INSERT ON replication_groups BEGIN
    INSERT INTO changes (vault, kind, object) VALUES (new.vault, 'replicationGroup', new.name); END;
CREATE TRIGGER changes_group AFTER UPDATE ON replication_groups BEGIN
    INSERT INTO changes (vault, kind, object) VALUES (new.vault, 'replicationGroup', new.name); END;
CREATE TRIGGER changes_group_gone AFTER DELETE ON replication_groups BEGIN
    INSERT INTO changes (vault, kind, object) VALUES (old.vault, 'replicationGroup', old.name); END;
