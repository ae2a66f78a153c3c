SELECT count(*) FROM staged WHERE body IS NOT NULL;
SELECT count(*) FROM rf_streams;
\timing on
INSERT INTO events (stream_id, event_type, body, headers)
SELECT stream_id, 'modified', body, headers FROM staged;
\timing off
