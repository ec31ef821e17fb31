-- The months are made with the rights of who ran the migrations, so that workers need no right to create tables.
--
-- What makes that safe: the one argument is a number within bounds; every name comes from a date; the search path is
-- pinned to the schema of the tables, temporary ones last, so that no caller can slip a table of theirs in; and only who
-- is granted it may call it (deploy/postgres-roles.sql).

CREATE OR REPLACE FUNCTION weir_ensure_message_partitions(months_ahead integer) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    this_month CONSTANT timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
    month timestamp;
    partition_name text;
BEGIN
    IF months_ahead IS NULL OR months_ahead NOT BETWEEN 0 AND 120 THEN
        RAISE EXCEPTION 'months are made for 0 to 120 months ahead' USING ERRCODE = 'invalid_parameter_value';
    END IF;

    -- One at a time: 'weirmont' in ASCII.
    PERFORM pg_advisory_xact_lock(8603398603344408180);

    FOR month IN
        SELECT generate_series(timestamp '2025-01-01', this_month + make_interval(months => months_ahead), '1 month')
    LOOP
        partition_name := to_char(month, '"messages_y"YYYY"m"MM');
        CONTINUE WHEN EXISTS (
            SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = 'messages'::regclass AND c.relname = partition_name
        );
        IF to_regclass(partition_name) IS NOT NULL THEN
            -- A month that was detached and kept. Only its own messages must wait for somebody to move it away.
            RAISE WARNING 'table "%" exists but is no partition of messages', partition_name;
            CONTINUE;
        END IF;
        EXECUTE format('CREATE TABLE %I (LIKE messages INCLUDING ALL)', partition_name);
        EXECUTE format(
            'ALTER TABLE messages ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
            partition_name, month AT TIME ZONE 'UTC', (month + interval '1 month') AT TIME ZONE 'UTC'
        );
        RETURN NEXT partition_name;
    END LOOP;
END
$$;

DO $$
BEGIN
    EXECUTE format(
        'ALTER FUNCTION weir_ensure_message_partitions(integer) SET search_path = %I, pg_temp',
        current_schema()
    );
END
$$;

REVOKE ALL ON FUNCTION weir_ensure_message_partitions(integer) FROM PUBLIC;
