-- Recovery plans and their runs.
CREATE TABLE plans (
    id TEXT PRIMARY KEY,
    vault INTEGER NOT NULL REFERENCES vaults,
    name TEXT NOT NULL COLLATE NOCASE,
    body TEXT NOT NULL,                     -- recovery::plan::Plan as JSON
    revision INTEGER NOT NULL DEFAULT 1,
    created INTEGER NOT NULL,
    UNIQUE (vault, name)
) STRICT;

CREATE TABLE plan_runs (
    id TEXT PRIMARY KEY,                    -- UUIDv7: sorts by age
    vault INTEGER NOT NULL REFERENCES vaults,
    plan TEXT NOT NULL,                     -- stays when the plan is removed
    state TEXT NOT NULL,
    is_over INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    body TEXT NOT NULL                      -- recovery::plan::PlanRun with its steps as JSON
) STRICT;
CREATE INDEX plan_runs_of_plan ON plan_runs (plan, id);
-- One run at a time works on a plan.
CREATE UNIQUE INDEX plan_runs_open ON plan_runs (plan) WHERE is_over = 0;

CREATE TRIGGER changes_plan_made AFTER INSERT ON plans BEGIN
    INSERT INTO changes (vault, kind, object) VALUES (new.vault, 'plan', new.name); END;
CREATE TRIGGER changes_plan AFTER UPDATE ON plans BEGIN
    INSERT INTO changes (vault, kind, object) VALUES (new.vault, 'plan', new.name); END;
CREATE TRIGGER changes_plan_gone AFTER DELETE ON plans BEGIN
    INSERT INTO changes (vault, kind, object) VALUES (old.vault, 'plan', old.name); END;
CREATE TRIGGER changes_plan_run_made AFTER INSERT ON plan_runs BEGIN
    INSERT INTO changes (vault, kind, object) VALUES (new.vault, 'planRun', new.id); END;
CREATE TRIGGER changes_plan_run AFTER UPDATE ON plan_runs BEGIN
    INSERT INTO changes (vault, kind, object) VALUES (new.vault, 'planRun', new.id); END;
