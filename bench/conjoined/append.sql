\set stream random(1, :streams)
\set user 10000000000 + :stream % 100
SELECT global_seq, stream_seq FROM rf_append(
	('00000000-0000-4000-8000-' || 100000000000 + :stream)::uuid, 'modified',
	'{"path": "src/backend/access/heap/heapam.c", "lines": {"added": 12, "removed": 3}, "commit": "9f86d081884c"}',
	'{"trace": "4bf92f3577b34da6a3ce929d0e0e4736"}');
