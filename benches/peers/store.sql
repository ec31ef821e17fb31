-- One message becomes its rows: one statement, which is one transaction and one round trip. All peers run this very text,
-- as a prepared statement. It does what Weir's workers do for a batch of one.
--
-- $1 key (uuid)        $2 send_at (Unix seconds)   $3 fingerprint   $4 accepted at (Unix milliseconds)
-- $5 client's id       $6 client's phone           $7 message's id  $8 text   $9 unknown fields, a JSON object or null
WITH sent AS (
    SELECT to_timestamp($2::bigint) AS send_at, to_timestamp($4::bigint / 1000.0) AS accepted_at
),
-- Whoever inserts the key stores the message; for everybody else the statement ends here, with no row written.
key AS (
    INSERT INTO event_keys (id, send_at, fingerprint, entry_ms, entry_seq, partition)
    SELECT $1::uuid, send_at, $3::bigint, $4::bigint, 0, 0 FROM sent
    ON CONFLICT DO NOTHING
    RETURNING message_id
),
known_client AS (
    SELECT id, phone, phone_at, last_seen_at FROM clients
    WHERE source = 'messenger' AND external_client_id = $5::text
),
-- DO UPDATE, because only then the row of somebody who was faster is returned.
new_client AS (
    INSERT INTO clients (source, external_client_id, phone, phone_at, first_seen_at, last_seen_at)
    SELECT 'messenger', $5::text, $6::text, send_at, accepted_at, accepted_at
    FROM key, sent WHERE NOT EXISTS (SELECT FROM known_client)
    ON CONFLICT (source, external_client_id) DO UPDATE
        SET last_seen_at = greatest(clients.last_seen_at, excluded.last_seen_at)
    RETURNING id
),
client AS (SELECT id FROM known_client UNION ALL SELECT id FROM new_client),
-- At most once a minute and client unless the phone is another one.
touched AS (
    UPDATE clients SET
        last_seen_at = greatest(clients.last_seen_at, sent.accepted_at),
        phone = CASE WHEN sent.send_at >= clients.phone_at THEN $6::text ELSE clients.phone END,
        phone_at = greatest(clients.phone_at, sent.send_at)
    FROM key, sent, known_client k
    WHERE clients.id = k.id
      AND (sent.accepted_at - k.last_seen_at > interval '1 minute' OR (k.phone <> $6::text AND sent.send_at >= k.phone_at))
),
known_dialog AS (
    SELECT d.id FROM dialogs d JOIN known_client c ON d.client_id = c.id WHERE d.external_dialog_id = ''
),
new_dialog AS (
    INSERT INTO dialogs (client_id)
    SELECT client.id FROM key, client WHERE NOT EXISTS (SELECT FROM known_dialog)
    ON CONFLICT (client_id, external_dialog_id) DO UPDATE SET client_id = excluded.client_id
    RETURNING id
),
dialog AS (SELECT id FROM known_dialog UNION ALL SELECT id FROM new_dialog)
INSERT INTO messages (id, send_at, dialog_id, external_message_id, text, extra, accepted_at)
SELECT key.message_id, sent.send_at, dialog.id, $7::text, $8::text, $9::text::jsonb, sent.accepted_at
FROM key, sent, dialog
