SELECT count(*) FROM staged;
\timing on
INSERT INTO events (stream_id, stream_seq, event_type, body, created_at, bucket_month)
SELECT stream_id, stream_seq, event_type, body, created_at, date_trunc('month', created_at)::date
FROM staged ORDER BY n;
\timing off
