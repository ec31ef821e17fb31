-- The months stay: they hold messages, and the way up takes them as they are.
DROP FUNCTION weir_ensure_message_partitions(integer);
