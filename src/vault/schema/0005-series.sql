-- What the charts of an item show beside churn, in the same rows; `slot_seconds` may be 60 too.
ALTER TABLE churn ADD COLUMN shipped_bytes INTEGER NOT NULL DEFAULT 0;   -- left the machine, also in copies and comparisons
ALTER TABLE churn ADD COLUMN freeze_micros_max INTEGER NOT NULL DEFAULT 0;
ALTER TABLE churn ADD COLUMN rpo_ms_max INTEGER NOT NULL DEFAULT 0;
ALTER TABLE churn ADD COLUMN rpo_ms_sum INTEGER NOT NULL DEFAULT 0;      -- of rpo_samples, for the mean
ALTER TABLE churn ADD COLUMN rpo_samples INTEGER NOT NULL DEFAULT 0;
