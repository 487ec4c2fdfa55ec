-- Live views are told of what was removed, too.
CREATE TRIGGER changes_policy_gone AFTER DELETE ON policies BEGIN
    INSERT INTO changes (vault, kind, object) VALUES (old.vault, 'policy', old.name); END;
CREATE TRIGGER changes_machine_gone AFTER DELETE ON machines BEGIN
    INSERT INTO changes (vault, kind, object) VALUES (old.vault, 'machine', old.id); END;
