-- 5,000 hot streams, 150,000 rows to be inserted that go to them by turns, and the leaf of this month as a plain
-- table: same columns, indexes and CHECKs, no triggers.

CREATE EXTENSION rillflow;
CREATE SCHEMA plain;

CREATE TABLE staged AS
SELECT md5((n % 5000)::text)::uuid AS stream_id, n / 5000 + 1 AS stream_seq,
	jsonb_build_object('repository', 'repository ' || n % 8, 'path', 'src/part' || n % 90 || '/file' || n % 5000 || '.c',
		'commit', left(md5(n::text), 12), 'lines', jsonb_build_object('added', n % 97, 'removed', n % 31)) AS body,
	jsonb_build_object('trace', md5((n / 10)::text)) AS headers
FROM generate_series(0, 149999) AS n;

INSERT INTO rf_streams (stream_id)
SELECT DISTINCT stream_id FROM staged;

SELECT format('CREATE TABLE plain.events (LIKE %I INCLUDING ALL)',
	to_char(now() AT TIME ZONE 'UTC', '"events_hot_"YYYY_MM'))
\gexec

VACUUM ANALYZE;
