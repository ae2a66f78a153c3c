-- Hot months that are over: January 2025 with 1,000,000 events, February with 10,000, March with 100. Beside them the leaf of
-- January and of its cold month as plain tables.

CREATE EXTENSION rillflow;

SELECT rf_create_partition('hot', '2025-01-01'), rf_create_partition('hot', '2025-02-01'),
	rf_create_partition('hot', '2025-03-01');

INSERT INTO events (stream_id, stream_seq, event_type, body, created_at, bucket_month)
SELECT md5((n % 20000)::text)::uuid, n / 20000 + 1, 'modified',
	jsonb_build_object('path', 'src/file' || n % 20000 || '.c', 'commit', md5(n::text)),
	'2025-01-01 00:00+00'::timestamptz + n * interval '2.5 seconds', '2025-01-01'
FROM generate_series(0, 999999) AS n;

INSERT INTO events (stream_id, stream_seq, event_type, body, created_at, bucket_month)
SELECT md5((n % 1000)::text)::uuid, n / 1000 + 51, 'modified', '{"path": "src/main.c"}',
	'2025-02-01 00:00+00'::timestamptz + n * interval '25 seconds', '2025-02-01'
FROM generate_series(0, 9999) AS n;

INSERT INTO events (stream_id, stream_seq, event_type, body, created_at, bucket_month)
SELECT md5('march')::uuid, n, 'modified', '{"path": "src/main.c"}', '2025-03-01 00:00+00', '2025-03-01'
FROM generate_series(1, 100) AS n;

CREATE SCHEMA plain;
CREATE TABLE plain.events (LIKE events_hot_2025_01 INCLUDING ALL);
INSERT INTO plain.events SELECT * FROM events_hot_2025_01 ORDER BY global_seq;
CREATE TABLE plain.events_archive (LIKE events_hot_2025_01 INCLUDING ALL);

VACUUM ANALYZE;
