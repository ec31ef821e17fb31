DROP TABLE employee_backfill_rows;
DROP TABLE employee_backfills;
ALTER TABLE employees DROP COLUMN profile_last_updated, DROP COLUMN profile_source;
