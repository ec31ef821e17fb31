-- What the API's search for messages needs, and the way of a message can afford.

-- By phone. A client's row is only rewritten whole when the phone itself changes: last_seen_at still changes in place.
CREATE INDEX clients_phone_idx ON clients (phone) WHERE phone IS NOT NULL;

-- By time. A btree would cost every message that is stored; this one is written a range of pages at a time. The
-- multi-minmax class keeps a message that came late from widening its whole range.
CREATE INDEX messages_send_at_idx ON messages
    USING brin (send_at timestamptz_minmax_multi_ops) WITH (pages_per_range = 16, autosummarize = on);
