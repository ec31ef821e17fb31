-- People who work for a university.

CREATE TABLE employees (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- E.164 by its form. Several may share one.
    phone text NOT NULL,
    -- Their user_id at MAX, if it is known.
    max_id text COLLATE "C",
    first_name text NOT NULL,
    last_name text NOT NULL,
    university_id bigint,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX employees_phone_idx ON employees (phone);
CREATE INDEX employees_max_id_idx ON employees (max_id) WHERE max_id IS NOT NULL;
CREATE INDEX employees_university_idx ON employees (university_id, id);
