SELECT count(*) FROM staged WHERE body IS NOT NULL;
SELECT count(*) FROM rf_streams;
\timing on
INSERT INTO events (stream_id, stream_seq, event_type, body, headers)
SELECT stream_id, stream_seq, 'modified', body, headers FROM staged
ON CONFLICT DO NOTHING;
\timing off
