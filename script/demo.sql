-- What script/demo shows, for psql: each statement is printed before its output. The variable `input` is the
-- file with what script/demo-history printed.
\set QUIET on
\pset pager off
\pset linestyle ascii

CREATE TEMP TABLE history (
	position bigint GENERATED ALWAYS AS IDENTITY,
	seconds  bigint NOT NULL,
	source   text NOT NULL,
	name     text NOT NULL,
	what     text NOT NULL,
	detail   text
);
COPY history (seconds, source, name, what, detail) FROM :'input';
ALTER TABLE history ADD COLUMN at timestamptz;
UPDATE history SET at = to_timestamp(seconds);
ANALYZE history;
SELECT count(*) = 0 AS empty FROM history \gset
\if :empty
	\warn 'There is nothing to show: no git history and no package log. Name a git checkout.'
	\quit 1
\endif
-- The time of the middle event; clocks that are far off leave it where it is. There has to be something that
-- is older: where half of all happened first of all, that is all but the last, or where all did, all of it.
SELECT CASE percentile_disc(0.5) WITHIN GROUP (ORDER BY at)
			WHEN min(at) THEN greatest(max(at), min(at) + interval '1 second')
			ELSE percentile_disc(0.5) WITHIN GROUP (ORDER BY at) END AS middle
	FROM history \gset
-- How old the last quarter is at least.
SELECT greatest(date_trunc('minute', now() - percentile_disc(0.75) WITHIN GROUP (ORDER BY at)), interval '1 minute')
		AS older_than
	FROM history \gset
-- A month before all of it, for a flip.
SELECT (date_trunc('month', min(at) AT TIME ZONE 'UTC') - interval '1 month')::date AS month FROM history \gset

\set QUIET off
\set ECHO queries
\echo '\n== A store: tables for streams and for hot and cold events\n'
CREATE EXTENSION rillflow;

\echo '\n== A month per tier for each month of the input\n'
SELECT count(rf_create_partition(tier, month)) AS partitions
	FROM (SELECT DISTINCT date_trunc('month', at AT TIME ZONE 'UTC')::date AS month FROM history) AS months,
		(VALUES ('hot'), ('cold')) AS tiers (tier);

\echo '\n== Real events, by plain INSERT: a stream for each name, an event for each time that something happened to it\n'
INSERT INTO events (stream_id, event_type, body, created_at, bucket_month)
	SELECT md5(source || '/' || name)::uuid, what,
			jsonb_build_object('source', source, 'name', name, 'detail', detail),
			at, date_trunc('month', at AT TIME ZONE 'UTC')::date
		FROM history ORDER BY at, position;

\set ECHO none
\set QUIET on
DROP TABLE history;
ANALYZE;
\set QUIET off
\set ECHO queries
\echo '\n== What would be archived of all that is older than the middle, a line a month, the first twelve\n'
SELECT * FROM rf_archive_plan(:'middle') ORDER BY bucket_month LIMIT 12;

\echo '\n== Archive it, in batches of 500 events, a transaction each\n'
CALL rf_archive_run(:'middle', 500);

\set ECHO none
\set QUIET on
ANALYZE;
-- A stream that lies in both tiers, if there is one, and preferably one that fits the screen.
SELECT stream_id AS stream
	FROM events_all GROUP BY stream_id
	ORDER BY count(DISTINCT retention_class) DESC, count(*) <= 20 DESC, count(*) DESC, stream_id
	LIMIT 1 \gset
\set ECHO queries
\echo '\n== The store now: a cold stream has no hot event left, and is archived\n'
\x on
SELECT * FROM rf_archive_status();
\x off
\set QUIET off
\echo '\n== The hot part of one stream\n'
SELECT stream_seq, created_at, retention_class, event_type, body ->> 'name' AS name
	FROM rf_read_stream(:'stream', include_archived => false, max_events => 20);

\echo '\n== The same stream, with its archived events\n'
SELECT stream_seq, created_at, retention_class, event_type, body ->> 'name' AS name
	FROM rf_read_stream(:'stream', include_archived => true, max_events => 20);

\set ECHO none
\set QUIET on
SELECT rf_create_partition('hot', :'month') AS leaf \gset
\set QUIET off
\set ECHO queries
\echo '\n== A whole month: 100,000 events like these, a month before the first of them\n'
INSERT INTO events (stream_id, event_type, body, created_at, bucket_month)
	SELECT md5(n % 5000 || stream_id::text)::uuid, event_type, body, :'month'::timestamp AT TIME ZONE 'UTC' + n * interval '24 s', :'month'
		FROM generate_series(0, 99999) AS n,
			(SELECT stream_id, event_type, body FROM events_all ORDER BY global_seq LIMIT 1) AS first;

\set ECHO none
\set QUIET on
ANALYZE :leaf;
\set QUIET off
\set ECHO queries
\echo '\n== It turns cold as metadata, and no event is read or written\n'
\timing on
SELECT rf_flip_partition(:'month', 'cold');
\timing off

\echo '\n== And is read as before\n'
SELECT tableoid::regclass AS leaf, count(*) AS events, count(DISTINCT stream_id) AS streams
	FROM events_archive WHERE bucket_month = :'month' GROUP BY 1;

\echo '\n== A policy does that by itself: a worker archives what is older, again and again\n'
SELECT rf_policy_set('old events', older_than => :'older_than', every => '2 seconds');

\set ECHO none
\set QUIET on
DO $$
BEGIN
	FOR i IN 1 .. 300 LOOP
		EXIT WHEN EXISTS (SELECT FROM rf_archive_runs WHERE finished_at IS NOT NULL);
		PERFORM pg_sleep(0.1);
	END LOOP;
END $$;
\set QUIET off
\set ECHO queries
\echo '\n== What the worker has done, and when it comes again\n'
SELECT policy, started_at, finished_at - started_at AS took, events, batches, months, error
	FROM rf_archive_runs ORDER BY run_id LIMIT 1;
SELECT policy, state, due_at FROM rf_worker_status;

\echo '\n== What was done, from the ledger\n'
SELECT action, count(*) AS entries, sum(events) AS events, sum(streams) AS streams, sum(duration) AS duration
	FROM rf_archive_log GROUP BY action ORDER BY min(log_id);

\set ECHO none
\echo '\n== To go on from here'
\echo 'A marked stream refuses events, until it is reactivated:'
\echo '  SELECT rf_archive_mark(\'':stream'\', \'no longer needed\');'
\echo '  SELECT rf_append(\'':stream'\', \'file_modified\', \'{}\');'
\echo '  SELECT rf_archive_reactivate(\'':stream'\');'
