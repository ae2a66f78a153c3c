-- 5,000 streams with an event each, and the leaf of this month as a plain table: same columns, indexes and CHECKs,
-- no triggers.

CREATE EXTENSION rillflow;
CREATE SCHEMA plain;

INSERT INTO events (stream_id, event_type, body, headers)
SELECT ('00000000-0000-4000-8000-' || 100000000000 + n)::uuid, 'added', '{"path": "src/main.c"}', '{}'
FROM generate_series(0, 4999) AS n;

SELECT format('CREATE TABLE plain.events (LIKE %I INCLUDING ALL)', leaf),
	format('INSERT INTO plain.events SELECT * FROM %I', leaf)
FROM (SELECT to_char(now() AT TIME ZONE 'UTC', '"events_hot_"YYYY_MM') AS leaf) AS l
\gexec

VACUUM ANALYZE;
