-- Who changes a user says which state was read (If-Match).
ALTER TABLE users ADD COLUMN revision INTEGER NOT NULL DEFAULT 1;
CREATE TRIGGER users_changed AFTER UPDATE OF password_hash, must_change_password, disabled ON users BEGIN
    UPDATE users SET revision = revision + 1 WHERE id = new.id; END;
CREATE TRIGGER users_role_given AFTER INSERT ON role_assignments BEGIN
    UPDATE users SET revision = revision + 1 WHERE id = new.user; END;
CREATE TRIGGER users_role_changed AFTER UPDATE ON role_assignments BEGIN
    UPDATE users SET revision = revision + 1 WHERE id = new.user; END;
CREATE TRIGGER users_role_taken AFTER DELETE ON role_assignments BEGIN
    UPDATE users SET revision = revision + 1 WHERE id = old.user; END;
