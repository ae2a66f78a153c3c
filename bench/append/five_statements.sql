-- What the guide's application sends for one event. It would take max + 1 itself; pgbench can't with a NULL,
-- so the query does.
\set stream random(1, :streams) + (:clients + :client_id) * 1000000
BEGIN;
SELECT archived_at, retention_class, tenant_id FROM rf_streams
WHERE stream_id = ('00000000-0000-4000-8000-' || 100000000000 + :stream)::uuid;
INSERT INTO rf_streams (stream_id, tenant_id)
VALUES (('00000000-0000-4000-8000-' || 100000000000 + :stream)::uuid, NULL)
ON CONFLICT (stream_id) DO NOTHING;
SELECT coalesce(max(stream_seq), 0) + 1 AS next_seq FROM events
WHERE stream_id = ('00000000-0000-4000-8000-' || 100000000000 + :stream)::uuid \gset
INSERT INTO events (stream_id, stream_seq, event_type, body, headers, causation_id, correlation_id,
	event_version, user_id)
VALUES (('00000000-0000-4000-8000-' || 100000000000 + :stream)::uuid, :next_seq, 'modified',
	'{"path": "src/backend/access/heap/heapam.c", "lines": {"added": 12, "removed": 3}, "commit": "9f86d081884c"}',
	'{"trace": "4bf92f3577b34da6a3ce929d0e0e4736"}', NULL, NULL, 1, current_user);
COMMIT;
