DROP TABLE early_changes;
ALTER TABLE messages DROP COLUMN removed_at, DROP COLUMN edited_at;
