\set stream random(1, 5000) + :client_id * 1000000
SELECT global_seq, stream_seq FROM rf_append(
	('00000000-0000-4000-8000-' || 100000000000 + :stream)::uuid, 'modified',
	'{"path": "src/backend/access/heap/heapam.c", "lines": {"added": 12, "removed": 3}, "commit": "9f86d081884c"}');
