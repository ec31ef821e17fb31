-- Messages that are edited or removed after they were sent.

ALTER TABLE messages ADD COLUMN edited_at timestamptz, ADD COLUMN removed_at timestamptz;

-- Changes of messages that are not there yet: events come in no order. The workers' upkeep applies them once their
-- message is there, and gives up those whose message never comes.
CREATE TABLE early_changes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- The key of the event that makes the message.
    event_key uuid NOT NULL,
    -- When it happened, by the provider's clock.
    at timestamptz NOT NULL,
    -- A removal, or what the message is after an edit.
    removed boolean NOT NULL,
    text text,
    extra jsonb,
    noted_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX early_changes_event_key_idx ON early_changes (event_key);
