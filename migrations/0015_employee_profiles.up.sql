-- It is the last one, so that it goes down and up by itself.
--
-- From where an employee's name came. Of those who are there already: from whoever wrote it.

ALTER TABLE employees
    ADD COLUMN profile_source text NOT NULL DEFAULT 'manual'
        CHECK (profile_source IN ('manual', 'user_input', 'webhook', 'default')),
    ADD COLUMN profile_last_updated timestamptz;
CREATE INDEX employees_profile_source_idx ON employees (profile_source);

-- What a backfill changed, so that it can be undone.
CREATE TABLE employee_backfills (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- 'sources' or 'names'.
    kind text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    -- The last employee it has looked at: it goes on behind.
    reached bigint NOT NULL DEFAULT 0,
    finished_at timestamptz,
    undone_at timestamptz
);
CREATE TABLE employee_backfill_rows (
    backfill_id bigint NOT NULL REFERENCES employee_backfills (id) ON DELETE CASCADE,
    employee_id bigint NOT NULL,
    first_name text NOT NULL,
    last_name text NOT NULL,
    profile_source text NOT NULL,
    profile_last_updated timestamptz,
    -- The employee's updated_at as the backfill left it: what was changed since is not undone.
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (backfill_id, employee_id)
);
