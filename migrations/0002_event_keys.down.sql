-- The sequence is owned by the table and goes with it.
DROP TABLE event_keys;
