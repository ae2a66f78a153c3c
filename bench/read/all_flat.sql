\set after (:after + 500) % :events
SELECT global_seq, stream_id, stream_seq, event_type, body, headers, causation_id, correlation_id, event_version,
	tenant_id, user_id, is_tombstone, created_at, retention_class
FROM plain.events WHERE global_seq > :after ORDER BY global_seq LIMIT 500;
