-- As 0004 made it: with the rights of its caller, who may be anybody.

CREATE OR REPLACE FUNCTION weir_ensure_message_partitions(months_ahead integer) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
    this_month CONSTANT timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
    month timestamp;
    partition_name text;
BEGIN
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

ALTER FUNCTION weir_ensure_message_partitions(integer) RESET ALL;

GRANT EXECUTE ON FUNCTION weir_ensure_message_partitions(integer) TO PUBLIC;
