-- Networks of the target site, and which of them stands for a network of the source.
CREATE TABLE networks (
    id INTEGER PRIMARY KEY,
    vault INTEGER NOT NULL REFERENCES vaults,
    name TEXT NOT NULL COLLATE NOCASE,
    body TEXT NOT NULL,                     -- vault::NetworkSettings as JSON
    revision INTEGER NOT NULL DEFAULT 1,
    created INTEGER NOT NULL,
    UNIQUE (vault, name)
) STRICT;
INSERT INTO networks (vault, name, body, created) SELECT id, 'isolated', '{"kind":"isolated"}', created FROM vaults;
INSERT INTO networks (vault, name, body, created) SELECT id, 'user', '{"kind":"user"}', created FROM vaults;

CREATE TABLE network_mappings (
    vault INTEGER NOT NULL REFERENCES vaults,
    source TEXT NOT NULL,                   -- subnet of the source (192.0.2.0/24), or *
    target INTEGER REFERENCES networks,     -- for a failover
    test INTEGER REFERENCES networks,       -- for a test failover
    PRIMARY KEY (vault, source)
) STRICT;

CREATE TRIGGER changes_network_made AFTER INSERT ON networks BEGIN
    INSERT INTO changes (vault, kind, object) VALUES (new.vault, 'network', new.name); END;
CREATE TRIGGER changes_network AFTER UPDATE ON networks BEGIN
    INSERT INTO changes (vault, kind, object) VALUES (new.vault, 'network', new.name); END;
CREATE TRIGGER changes_network_gone AFTER DELETE ON networks BEGIN
    INSERT INTO changes (vault, kind, object) VALUES (old.vault, 'network', old.name); END;
