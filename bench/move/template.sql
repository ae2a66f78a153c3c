-- 100,000 events, from standard input, as file_events.sql says. Those of the store are in hot months whose cold
-- months are there already; with "spread" they keep their own months, else all are in March 2025.

CREATE EXTENSION rillflow;

CREATE TABLE input (at bigint, repository text, path text, kind text, hash text);

\copy input FROM pstdin

CREATE TABLE staged AS
SELECT row_number() OVER (ORDER BY at, repository, path, hash) AS n,
	md5(repository || '/' || path)::uuid AS stream_id,
	row_number() OVER (PARTITION BY repository, path ORDER BY at, hash)::integer AS stream_seq,
	jsonb_build_object('repository', repository, 'path', path, 'commit', hash) AS body,
	CASE kind WHEN 'A' THEN 'added' WHEN 'D' THEN 'deleted' ELSE 'modified' END AS event_type,
	to_timestamp(at) AS created_at
FROM input;

DROP TABLE input;

\if :spread
\else
UPDATE staged SET created_at = '2025-03-01 00:00+00'::timestamptz + n * interval '25 seconds';
\endif

SELECT rf_create_partition('hot', month), rf_create_partition('cold', month)
FROM (SELECT DISTINCT date_trunc('month', created_at)::date AS month FROM staged ORDER BY 1) AS m;

INSERT INTO events (stream_id, stream_seq, event_type, body, created_at, bucket_month)
SELECT stream_id, stream_seq, event_type, body, created_at, date_trunc('month', created_at)::date
FROM staged ORDER BY n;

DROP TABLE staged;

-- The rivals' tables: the same leaves without triggers, and no parents.
CREATE SCHEMA plain;

\if :spread
\else
CREATE TABLE plain.events (LIKE events_hot_2025_03 INCLUDING ALL);
INSERT INTO plain.events SELECT * FROM events_hot_2025_03 ORDER BY global_seq;
CREATE TABLE plain.events_archive (LIKE events_archive_2025_03 INCLUDING ALL);
CREATE TABLE plain.rf_streams (LIKE rf_streams INCLUDING ALL);
INSERT INTO plain.rf_streams SELECT * FROM rf_streams;
\endif

VACUUM ANALYZE;
