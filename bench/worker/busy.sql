-- 300,000 events of one month, hot, and none of it cold.

CREATE EXTENSION rillflow;

SELECT rf_create_partition('hot', '2024-01-01'), rf_create_partition('cold', '2024-01-01');

INSERT INTO events (stream_id, event_type, body, created_at, bucket_month)
SELECT md5((n % 5000)::text)::uuid, 'happened', jsonb_build_object('n', n),
	timestamptz '2024-01-01 00:00+00' + n * interval '8 seconds', '2024-01-01'
FROM generate_series(1, 300000) AS n;

VACUUM ANALYZE;
