-- 24 months that are over, with 20,000 events each of streams of their own.

CREATE EXTENSION rillflow;

SELECT rf_create_partition('hot', month::date)
FROM generate_series('2024-01-01'::timestamp, '2025-12-01', '1 month') AS month;

INSERT INTO events (stream_id, event_type, body, created_at, bucket_month)
SELECT md5((n % 2000)::text)::uuid, 'modified',
	jsonb_build_object('path', 'src/file' || n % 20000 || '.c', 'commit', md5(n::text)),
	month AT TIME ZONE 'UTC' + n % 20000 * interval '1 minute', month::date
FROM generate_series(0, 24 * 20000 - 1) AS n,
	LATERAL (SELECT '2024-01-01'::timestamp + n / 20000 * interval '1 month') AS m(month);

VACUUM ANALYZE;
