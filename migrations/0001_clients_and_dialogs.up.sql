-- Who writes to us, and in which conversation.
--
-- External ids compare byte by byte (COLLATE "C"): it is the order in which the workers sort their batches, so that two
-- of them never wait for each other, and it is cheaper than a language's order.

CREATE TABLE clients (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source text COLLATE "C" NOT NULL,
    external_client_id text COLLATE "C" NOT NULL,
    phone text,
    -- send_at of the message that set the phone: an older message that comes late must not bring back an older phone.
    phone_at timestamptz,
    first_seen_at timestamptz NOT NULL,
    -- When a message of the client was last accepted, a minute behind at most: exact would be a write per message.
    last_seen_at timestamptz NOT NULL,
    UNIQUE (source, external_client_id),
    CHECK ((phone IS NULL) = (phone_at IS NULL))
)
-- phone and last_seen_at change in place (HOT) as long as there is room on the page.
WITH (fillfactor = 85);

CREATE TABLE dialogs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    client_id bigint NOT NULL REFERENCES clients (id),
    -- A source that knows no dialogs has one per client, with the empty id.
    external_dialog_id text COLLATE "C" NOT NULL DEFAULT '',
    UNIQUE (client_id, external_dialog_id)
);
