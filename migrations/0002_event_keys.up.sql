-- One row per accepted event, for ever: the authority on "have we stored this already". A partitioned table cannot have
-- a unique key without its partition column, so the key lives here and not in messages.

-- A connection takes a batch's worth of ids at once; what it does not use is lost, which harms nobody.
CREATE SEQUENCE message_ids AS bigint CACHE 1000;

CREATE TABLE event_keys (
    -- A 16-byte digest of (source, key): a third cheaper than the text, and always the same width.
    id uuid PRIMARY KEY,
    -- Null for an event that makes no message.
    message_id bigint DEFAULT nextval('message_ids'),
    -- Together with message_id this names the message's row, and so its partition.
    send_at timestamptz NOT NULL,
    -- Of the content: tells a repeat from another event under the same id.
    fingerprint bigint NOT NULL,
    -- The queue's entry that was stored. Its milliseconds are also the time at which the event was accepted.
    entry_ms bigint NOT NULL,
    entry_seq bigint NOT NULL,
    partition smallint NOT NULL
);

ALTER SEQUENCE message_ids OWNED BY event_keys.message_id;

-- From an entry back to its key, for people: kilobytes where a btree would cost as much as the primary key. Rows come
-- nearly in the order of entry_ms; the multi-minmax class keeps a replayed old entry from widening its whole range.
CREATE INDEX event_keys_entry_ms_idx ON event_keys
    USING brin (entry_ms int8_minmax_multi_ops) WITH (pages_per_range = 16, autosummarize = on);
