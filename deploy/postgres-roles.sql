-- Who may do what in Weir's database. For a superuser, on that database, once before the first `weir migrate up` and once
-- after every one. It may be run at any time; what is so already stays so.
--
--   psql --dbname weir --file deploy/postgres-roles.sql
--
-- It makes the roles without passwords: set them with psql's \password, or log in some other way.
--
--   weir_owner     owns the schema: `weir migrate`, and nothing else
--   weir_worker    `weir worker`: stores, and can neither delete messages nor change the schema
--   weir_api       `weir api`: reads, and writes profiles, employees and alerts
--   weir_operator  every other command: reads, and writes keys and employees

\set ON_ERROR_STOP on

SELECT format('CREATE ROLE %I LOGIN', name)
FROM unnest(ARRAY['weir_owner', 'weir_worker', 'weir_api', 'weir_operator']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec

BEGIN;

ALTER DATABASE :"DBNAME" OWNER TO weir_owner;
REVOKE ALL ON DATABASE :"DBNAME" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"DBNAME" TO weir_worker, weir_api, weir_operator;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT CREATE, USAGE ON SCHEMA public TO weir_owner;
GRANT USAGE ON SCHEMA public TO weir_worker, weir_api, weir_operator;
-- To count the connections of all roles, as `weir doctor` does.
GRANT pg_read_all_stats TO weir_operator;

DO $$
BEGIN
    IF to_regclass('public.messages') IS NULL THEN
        RAISE NOTICE 'there are no tables yet: run `weir migrate up` as weir_owner, then this file again';
        RETURN;
    END IF;

    GRANT SELECT ON clients, dialogs, event_keys, _sqlx_migrations TO weir_worker, weir_api, weir_operator;
    GRANT SELECT ON messages TO weir_api, weir_operator;
    GRANT INSERT ON clients, dialogs, event_keys, messages TO weir_worker;
    GRANT UPDATE (phone, phone_at, last_seen_at) ON clients TO weir_worker;
    -- A message that is edited or removed is written again, and not read.
    GRANT SELECT (id, dialog_id, send_at, edited_at, removed_at) ON messages TO weir_worker;
    GRANT UPDATE (text, extra, edited_at, removed_at) ON messages TO weir_worker;
    GRANT USAGE ON SEQUENCE message_ids TO weir_worker;
    GRANT SELECT, INSERT, DELETE, UPDATE ON early_changes TO weir_worker;

    GRANT SELECT ON profiles, profile_history, tallies TO weir_worker, weir_api, weir_operator;
    GRANT INSERT ON profiles, profile_history, tallies TO weir_worker, weir_api;
    GRANT UPDATE ON profiles, tallies TO weir_worker, weir_api;
    -- Counts of the past are put together.
    GRANT DELETE ON tallies TO weir_worker;

    GRANT SELECT, INSERT, UPDATE, DELETE ON employees TO weir_api;
    GRANT SELECT, UPDATE ON employees TO weir_operator;
    GRANT SELECT, INSERT, UPDATE, DELETE ON employee_backfills, employee_backfill_rows TO weir_operator;

    GRANT SELECT ON api_keys TO weir_api, weir_operator;
    GRANT UPDATE (last_used_at) ON api_keys TO weir_api;
    GRANT INSERT ON api_keys TO weir_operator;
    GRANT UPDATE (revoked_at) ON api_keys TO weir_operator;

    GRANT SELECT, INSERT, UPDATE ON alerts TO weir_api;
    GRANT SELECT ON alerts TO weir_operator;

    -- The one way to a new table: the next months of messages, made with the rights of weir_owner.
    GRANT EXECUTE ON FUNCTION weir_ensure_message_partitions(integer) TO weir_worker, weir_operator;
END
$$;

COMMIT;
