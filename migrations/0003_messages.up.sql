-- The messages, by the time at which they were sent.
--
-- No foreign key to dialogs (it costs a quarter of the rate: the ids come from rows that the same transaction read or
-- that a cache read before) and no DEFAULT partition (with one, a month could not be detached without stopping writers).

CREATE TABLE messages (
    -- Given by event_keys, where it is unique.
    id bigint NOT NULL,
    send_at timestamptz NOT NULL,
    dialog_id bigint NOT NULL,
    external_message_id text COLLATE "C" NOT NULL,
    text text,
    extra jsonb,
    trace_id uuid,
    accepted_at timestamptz NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id, send_at)
) PARTITION BY RANGE (send_at);

-- A page of a dialog's history, newest first.
CREATE INDEX messages_dialog_idx ON messages (dialog_id, send_at DESC, id DESC);

-- Everything before the first month: providers do send messages that are years old.
CREATE TABLE messages_before_2025 PARTITION OF messages
    FOR VALUES FROM (MINVALUE) TO ('2025-01-01 00:00:00+00');
