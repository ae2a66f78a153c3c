-- A store with 50,000 events of other streams, so that every plan is one for tables that hold something, and the
-- leaf of this month as a plain table: same columns, indexes and CHECKs, no triggers.

CREATE EXTENSION rillflow;
CREATE SCHEMA plain;

INSERT INTO events (stream_id, stream_seq, event_type, body, headers)
SELECT md5((n % 2000)::text)::uuid, n / 2000 + 1, 'added', jsonb_build_object('path', md5(n::text)), '{}'
FROM generate_series(0, 49999) AS n;

SELECT format('CREATE TABLE plain.events (LIKE %I INCLUDING ALL)', leaf),
	format('INSERT INTO plain.events SELECT * FROM %I', leaf)
FROM (SELECT to_char(now() AT TIME ZONE 'UTC', '"events_hot_"YYYY_MM') AS leaf) AS l
\gexec

VACUUM ANALYZE;
