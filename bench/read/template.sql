-- The events of standard input, spread evenly over so many hot months that are over, in the order of their times; and
-- the same rows in one flat table of the same columns and indexes. Streams are numbered: first come those that have
-- events in two months which lie more than a year apart, then those of two months nearer to each other.

CREATE EXTENSION rillflow;

CREATE TABLE input (at bigint, repository text, path text, kind text, hash text);

\copy input FROM pstdin

CREATE TABLE numbered AS
SELECT i.*, date '2005-01-01' + interval '1 month' * ((n - 1) * :months / count(*) OVER ()) AS month
FROM (SELECT *, row_number() OVER (ORDER BY at, repository, path, hash) AS n FROM input) AS i;

CREATE TABLE files AS
SELECT repository, path, months, row_number() OVER (ORDER BY months <> 2, span < interval '1 year', repository, path) AS file,
	count(*) FILTER (WHERE months = 2 AND span > interval '1 year') OVER () AS apart,
	count(*) FILTER (WHERE months = 2) OVER () AS two
FROM (SELECT repository, path, count(DISTINCT month) AS months, max(month) - min(month) AS span
	FROM numbered GROUP BY 1, 2) AS f;

SELECT rf_create_partition('hot', month::date) FROM (SELECT DISTINCT month FROM numbered ORDER BY 1) AS m;

INSERT INTO events (stream_id, stream_seq, event_type, body, created_at, bucket_month)
SELECT md5(file::text)::uuid, row_number() OVER (PARTITION BY file ORDER BY n),
	CASE kind WHEN 'A' THEN 'added' WHEN 'D' THEN 'deleted' ELSE 'modified' END,
	jsonb_build_object('repository', repository, 'path', path, 'commit', hash),
	month AT TIME ZONE 'UTC' + interval '15 days', month
FROM numbered JOIN files USING (repository, path) ORDER BY n;

CREATE TABLE streams_of_two_months AS SELECT DISTINCT apart, two FROM files;

DROP TABLE input, numbered, files;

CREATE SCHEMA plain;
CREATE TABLE plain.events (LIKE events INCLUDING ALL);
ALTER TABLE plain.events ADD PRIMARY KEY (global_seq), ADD UNIQUE (stream_id, stream_seq);
INSERT INTO plain.events SELECT * FROM events ORDER BY global_seq;

VACUUM ANALYZE;
