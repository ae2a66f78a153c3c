\set n random(:first, :last)
SELECT global_seq, stream_id, stream_seq, event_type, body, headers, causation_id, correlation_id, event_version,
	tenant_id, user_id, is_tombstone, created_at, retention_class
FROM plain.events WHERE stream_id = md5(:n::text)::uuid AND stream_seq > 0 ORDER BY stream_seq;
