-- The events of standard input, spread evenly over so many hot months that are over, in order of their times; and the
-- same rows in one flat table of the same columns and indexes.

CREATE EXTENSION rillflow;

CREATE TABLE input (at bigint, repository text, path text, kind text, hash text);

\copy input FROM pstdin

CREATE TABLE staged AS
SELECT md5(repository || '/' || path)::uuid AS stream_id,
	row_number() OVER (PARTITION BY repository, path ORDER BY at, hash)::integer AS stream_seq,
	jsonb_build_object('repository', repository, 'path', path, 'commit', hash) AS body,
	CASE kind WHEN 'A' THEN 'added' WHEN 'D' THEN 'deleted' ELSE 'modified' END AS event_type,
	'2010-01-15 00:00+00'::timestamptz + interval '1 month'
		* ((row_number() OVER (ORDER BY at, repository, path, hash) - 1) * :months / count(*) OVER ()) AS created_at,
	row_number() OVER (ORDER BY at, repository, path, hash) AS n
FROM input;

DROP TABLE input;

SELECT rf_create_partition('hot', month)
FROM (SELECT DISTINCT date_trunc('month', created_at)::date AS month FROM staged ORDER BY 1) AS m;

INSERT INTO events (stream_id, stream_seq, event_type, body, created_at, bucket_month)
SELECT stream_id, stream_seq, event_type, body, created_at, date_trunc('month', created_at)::date
FROM staged ORDER BY n;

DROP TABLE staged;

CREATE SCHEMA plain;
CREATE TABLE plain.events (LIKE events_hot_default INCLUDING ALL);
INSERT INTO plain.events SELECT e.* FROM events_hot_default AS e;
DO $$
BEGIN
	EXECUTE (SELECT 'INSERT INTO plain.events (' || c || ') SELECT ' || c || ' FROM public.events ORDER BY global_seq'
		FROM (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) AS c FROM pg_attribute
			WHERE attrelid = 'plain.events'::regclass AND attnum > 0 AND NOT attisdropped) AS columns);
END $$;

-- Streams of two months each, numbered: any two, and two that lie far apart.
CREATE TABLE two_months AS
SELECT row_number() OVER (PARTITION BY apart ORDER BY stream_id) AS n, apart, stream_id
FROM (
	SELECT stream_id, max(bucket_month) - min(bucket_month) > 365 AS apart
	FROM events GROUP BY stream_id HAVING count(DISTINCT bucket_month) = 2) AS s;
CREATE UNIQUE INDEX ON two_months (apart, n) INCLUDE (stream_id);

VACUUM ANALYZE;
