DROP INDEX messages_send_at_idx;
DROP INDEX clients_phone_idx;
