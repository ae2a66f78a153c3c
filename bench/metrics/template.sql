-- Events in 180 months of either tier, in a store that has moved a million streams.
CREATE EXTENSION rillflow;
SELECT format('SELECT rf_create_partition(%L, %L)', tier, (date '2011-01-01' + make_interval(months => m))::date)
FROM unnest(ARRAY['hot', 'cold']) AS tier, generate_series(0, 179) AS m
\gexec
INSERT INTO events (stream_id, stream_seq, event_type, body, created_at, bucket_month)
SELECT md5('stream ' || s)::uuid, m + 1, 'made', '{}', at, date_trunc('month', at AT TIME ZONE 'UTC')
FROM generate_series(1, 500) AS s, generate_series(0, 179) AS m,
	LATERAL (SELECT timestamptz '2011-01-05 00:00+00' + make_interval(months => m)) AS t(at);
SELECT events_moved FROM rf_archive_move('infinity', 1000, md5('stream 1')::uuid);
SELECT rf_archive_mark(md5('stream 2')::uuid);
INSERT INTO rf_streams (stream_id, archived_at, archived_by, archive_reason, retention_class)
SELECT md5('closed ' || n)::uuid, now(), 'archive_move', 'auto', 'cold' FROM generate_series(1, 1000000) AS n;
INSERT INTO rf_archive_log (actor, action, stream_id, streams, detail)
SELECT 'made', 'close', md5('closed ' || n)::uuid, 1, 'auto' FROM generate_series(1, 1000000) AS n;
SELECT rf_policy_set('p', '90 days');
SELECT rf_consumer_advance('c', 1000);
VACUUM ANALYZE;
