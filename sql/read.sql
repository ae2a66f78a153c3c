-- Reading: a stream, and the replay of a store.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
\set ECHO all

-- Stream 1: active, wholly hot. 2: active, its older part cold. 3: marked, partly cold. 4: closed, wholly cold. 5: made, but empty.
\set s1 '''00000000-0000-0000-0000-000000000001'''
\set s2 '''00000000-0000-0000-0000-000000000002'''
\set s3 '''00000000-0000-0000-0000-000000000003'''
\set s4 '''00000000-0000-0000-0000-000000000004'''
\set s5 '''00000000-0000-0000-0000-000000000005'''
SELECT rf_create_partition('hot', m), rf_create_partition('cold', m) FROM unnest(ARRAY['2024-01-01', '2024-02-01']::date[]) AS m;
SELECT count(*) FROM (SELECT s, n FROM generate_series(1, 4) AS s, generate_series(1, 6) AS n ORDER BY s, n) AS x,
	rf_append(lpad(s::text, 32, '0')::uuid, (ARRAY['a', 'b', 'c'])[1 + n % 3], to_jsonb(n), created_at => '2024-01-01 00:00+00'::timestamptz + (s + n * 12) * interval '1 day');
SELECT events_moved FROM rf_archive_move('2024-02-01 00:00+00', stream_id => :s2);
SELECT events_moved FROM rf_archive_move('2024-02-01 00:00+00', stream_id => :s3);
SELECT events_moved FROM rf_archive_move('infinity', stream_id => :s4);
SELECT 1 AS marked FROM rf_archive_mark(:s3);
INSERT INTO rf_streams (stream_id) VALUES (:s5);
SELECT right(stream_id::text, 1) AS s, count(*) FILTER (WHERE retention_class = 'hot') AS hot, count(*) FILTER (WHERE retention_class = 'cold') AS cold FROM events_all GROUP BY 1 ORDER BY 1;
SELECT * FROM check_keep();

CREATE FUNCTION checks.read (stream int, after_seq int DEFAULT 0, max_events int DEFAULT NULL, backward boolean DEFAULT false, include_archived boolean DEFAULT NULL)
RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(stream_seq || CASE retention_class WHEN 'hot' THEN '' ELSE '*' END, ' ' ORDER BY n)
	FROM store.rf_read_stream(lpad(stream::text, 32, '0')::uuid, after_seq, max_events, backward, include_archived) WITH ORDINALITY AS e(global_seq, stream_id, stream_seq,
		event_type, body, headers, causation_id, correlation_id, event_version, tenant_id, user_id, is_tombstone, created_at, retention_class, n)
$$;

-- All columns, in this order.
SELECT * FROM rf_read_stream(:s2, max_events => 2);
SELECT stream_seq, event_type, body, created_at, retention_class FROM rf_read_stream(:s2);
SELECT stream_seq, retention_class FROM rf_read_stream(stream_id => :s2, after_seq => 1, max_events => 3, backward => false, include_archived => true, tenant => NULL);
-- What a stream is read of by default: an active one is whole, an archived one is what is hot, until the store's setting is on. (* is cold)
SELECT s AS stream, checks.read(s) AS "default", checks.read(s, include_archived => true) AS with_archived, checks.read(s, include_archived => false) AS without FROM generate_series(1, 6) AS s;
SELECT rf_archive_set_include_archived(true);
SELECT s AS stream, checks.read(s) AS "default", checks.read(s, include_archived => true) AS with_archived, checks.read(s, include_archived => false) AS without FROM generate_series(1, 6) AS s;
SELECT rf_archive_set_include_archived(false);
SELECT s AS stream, checks.read(s) AS "default" FROM generate_series(1, 6) AS s;
-- From a number on, backward, and not more than so many.
SELECT after, checks.read(2, after) AS forward, checks.read(2, after, 2) AS two, checks.read(2, after, NULL, true) AS backward, checks.read(2, after, 2, true) AS two_backward
FROM unnest(ARRAY[NULL, -1, 0, 1, 3, 5, 6, 7, 2147483647]) AS after;
SELECT checks.read(2, 0, 0) AS none, checks.read(2, 0, 0, true) AS none_backward, checks.read(2, 0, 1) AS first, checks.read(2, 0, 1, true) AS last, checks.read(2, NULL, NULL, NULL) AS nulls, checks.read(2, 0, 2147483647) AS most;
SELECT checks.read(3, 0, 2, false, true) AS archived_first, checks.read(3, 0, 2, true, true) AS archived_last, checks.read(3, 0, 2) AS hot_first, checks.read(3, 0, 2, true) AS hot_last;
-- A stream that is not there, or has no event, reads as nothing.
SELECT count(*) FROM rf_read_stream('00000000-0000-0000-0000-0000000000ff');
SELECT count(*) FROM rf_read_stream(:s5);
SELECT * FROM rf_read_stream(NULL);
\echo :SQLSTATE
SELECT * FROM rf_read_stream(:s1, max_events => -1);
\echo :SQLSTATE
SELECT * FROM rf_read_stream(:s1, tenant => 'nobody');
\echo :SQLSTATE

-- Events whose times are not in the order of their numbers are found all the same.
SELECT stream_seq FROM rf_append(:s1, 'late', '7', created_at => '2023-06-01 00:00+00');
SELECT stream_seq FROM rf_append(:s1, 'early', '8', created_at => '2025-06-01 00:00+00');
SELECT checks.read(1), checks.read(1, backward => true);
SELECT events_moved FROM rf_archive_move('2023-07-01 00:00+00');
SELECT checks.read(1), checks.read(1, backward => true, max_events => 2);

-- The planner opens the months of the stream only, and none of the cold tier where none is asked for.
CREATE FUNCTION checks.opened (query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	line text;
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (COSTS off) ' || query LOOP
		IF line ~ ' on events' THEN RETURN NEXT regexp_replace(line, '^.* on (\w+).*$', '\1'); END IF;
	END LOOP;
END $$;
SELECT DISTINCT * FROM checks.opened($$SELECT * FROM store.events_all WHERE stream_id = '00000000-0000-0000-0000-000000000002' AND bucket_month = '2024-01-01'$$) AS o ORDER BY 1;
SELECT DISTINCT * FROM checks.opened($$SELECT * FROM store.events_all WHERE stream_id = '00000000-0000-0000-0000-000000000002' AND created_at < '2024-02-01' AND created_at >= '2024-01-15'$$) AS o ORDER BY 1;
SELECT DISTINCT * FROM checks.opened($$SELECT * FROM store.events WHERE retention_class = 'hot' AND bucket_month = '2024-01-01'$$) AS o ORDER BY 1;

-- In one transaction: what is not committed is read by its own transaction.
BEGIN;
SELECT stream_seq FROM rf_append(:s1, 'mine', '9', created_at => '2026-01-01 00:00+00');
SELECT checks.read(1, 7);
SELECT max(body::int) FROM rf_read_all(0, NULL) WHERE stream_id = :s1;
SELECT events_moved FROM rf_archive_move('infinity', stream_id => :s1);
SELECT checks.read(1, 0, include_archived => true), checks.read(1);
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT checks.read(2);
SELECT count(*) FROM rf_read_all(0, NULL, NULL, true);
COMMIT;

--
-- The replay
--
SELECT global_seq, right(stream_id::text, 1) AS s, stream_seq, event_type, body, created_at, retention_class FROM rf_read_all();
SELECT global_seq, right(stream_id::text, 1) AS s, stream_seq, retention_class FROM rf_read_all(include_archived => true, max_events => 7);
SELECT * FROM rf_read_all(21, 1, include_archived => true);
CREATE FUNCTION checks.replay (after bigint, max_events int, types text[], include boolean) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(global_seq || CASE retention_class WHEN 'hot' THEN '' ELSE '*' END, ' ' ORDER BY n)
	FROM store.rf_read_all(after, max_events, types, include) WITH ORDINALITY AS e(global_seq, stream_id, stream_seq,
		event_type, body, headers, causation_id, correlation_id, event_version, tenant_id, user_id, is_tombstone, created_at, retention_class, n)
$$;
SELECT after, most, types, include, checks.replay(after, most, types, include)
FROM (VALUES (0, 500, NULL::text[], NULL::boolean), (0, 500, NULL, true), (0, 500, NULL, false), (10, 5, NULL, NULL), (10, 5, NULL, true), (26, 500, NULL, true), (9223372036854775807, 500, NULL, true),
	(-5, 3, NULL, true), (NULL, NULL, NULL, NULL), (0, 0, NULL, true), (0, 500, '{a}', NULL), (0, 500, '{a}', true), (0, 4, '{a,c}', true), (12, 4, '{b,nothing}', true), (0, 500, '{}', true), (0, 500, '{nothing}', true), (0, 500, '{NULL,late}', true)) AS v(after, most, types, include);
SELECT rf_archive_set_include_archived(true);
SELECT checks.replay(0, 500, NULL, NULL) AS "default", checks.replay(0, 500, NULL, false) AS without;
SELECT rf_archive_set_include_archived(false);
-- In batches, from the last number of each on, every event comes once, in order.
DO $$
DECLARE
	last bigint := 0;
	seen bigint := 0;
	n bigint;
BEGIN
	LOOP
		SELECT count(*), max(global_seq) INTO n, last FROM rf_read_all(last, 4, NULL, true);
		EXIT WHEN n = 0;
		seen := seen + n;
	END LOOP;
	RAISE NOTICE 'seen %, there are %', seen, (SELECT count(*) FROM events_all);
END $$;
SELECT * FROM rf_read_all(0, -1);
\echo :SQLSTATE
SELECT * FROM rf_read_all(tenant => 'nobody');
\echo :SQLSTATE
SELECT * FROM rf_read_all(tenant => '*');
\echo :SQLSTATE
-- A sequence whose numbers do not ascend.
BEGIN;
ALTER SEQUENCE events_global_seq_seq CACHE 5;
SELECT count(*) FROM rf_read_all();
\echo :SQLSTATE
ROLLBACK;
BEGIN;
ALTER SEQUENCE events_global_seq_seq CYCLE;
SELECT count(*) FROM rf_read_all();
\echo :SQLSTATE
ROLLBACK;
BEGIN;
ALTER SEQUENCE events_global_seq_seq INCREMENT -1;
SELECT count(*) FROM rf_read_all();
\echo :SQLSTATE
ROLLBACK;
-- One that was set back, or that lies below the numbers that are there: nothing is left out.
BEGIN;
SELECT count(*) AS n FROM rf_read_all(0, NULL, NULL, true) \gset
SELECT setval('events_global_seq_seq', 3);
SELECT count(*) = :n AS "all" FROM rf_read_all(0, NULL, NULL, true);
INSERT INTO events (global_seq, stream_id, event_type, body) VALUES (1000000000000000, md5('far')::uuid, 'far', '1'), (9223372036854775807, md5('far')::uuid, 'far', '1');
SELECT count(*) - :n AS more, max(global_seq) FROM rf_read_all(0, NULL, NULL, true);
ROLLBACK;
SELECT setval('events_global_seq_seq', (SELECT max(global_seq) FROM events_all)) > 0 AS "set";
-- Who appends takes a lock, and two more at most for rows that bring their numbers in any order.
BEGIN;
SELECT FROM rf_append(md5('far')::uuid, 'far', '1');
SELECT FROM rf_append(md5('near')::uuid, 'near', '1');
SELECT count(*), min(mode) FROM pg_locks WHERE locktype = 'userlock' AND classid = 'events_global_seq_seq'::regclass AND pid = pg_backend_pid();
INSERT INTO events (global_seq, stream_id, event_type, body) SELECT -n, md5('far')::uuid, 'low', '1' FROM generate_series(1, 100) AS n;
SELECT count(*) FROM pg_locks WHERE locktype = 'userlock' AND classid = 'events_global_seq_seq'::regclass AND pid = pg_backend_pid();
SELECT count(*), min(global_seq) FROM rf_read_all(-200, NULL) WHERE global_seq < 0;
ROLLBACK;
-- The lock's tag has 48 bits: the highest number that it can name stands for those above.
BEGIN;
SELECT setval('events_global_seq_seq', 281474976710653) - 281474976710653 AS set;
SELECT FROM rf_append(md5('far')::uuid, 'far', '1');
SELECT FROM rf_append(md5('far')::uuid, 'far', '2');
SELECT objid::bigint + (objsubid::int & 65535) * 4294967296 - 1 AS above FROM pg_locks
WHERE locktype = 'userlock' AND classid = 'events_global_seq_seq'::regclass AND pid = pg_backend_pid();
ROLLBACK;
BEGIN;
SELECT setval('events_global_seq_seq', 9000000000000000000) - 9000000000000000000 AS set;
SELECT FROM rf_append(md5('far')::uuid, 'far', '1');
SELECT objid::bigint + (objsubid::int & 65535) * 4294967296 - 1 AS above FROM pg_locks
WHERE locktype = 'userlock' AND classid = 'events_global_seq_seq'::regclass AND pid = pg_backend_pid();
ROLLBACK;
SELECT setval('events_global_seq_seq', (SELECT max(global_seq) FROM events_all)) > 0 AS "set";
SELECT events, broken_streams FROM check_union('store');

-- The same from a store of the other backend.
CREATE SCHEMA other;
SELECT rf_install('other', 't2');
SELECT rf_archive_set_backend('partitioned', 't2');
SELECT count(*) FROM generate_series(1, 6) AS n, rf_append(:s1, 'e', to_jsonb(n), created_at => '2024-01-01 00:00+00'::timestamptz + n * interval '12 days', tenant => 't2');
SELECT events_moved FROM rf_archive_move('2024-02-01 00:00+00', tenant => 't2');
SELECT stream_seq, body, retention_class FROM rf_read_stream(:s1, tenant => 't2');
SELECT global_seq, retention_class FROM rf_read_all(tenant => 't2');
SELECT global_seq, retention_class FROM rf_read_all(include_archived => true, tenant => 't2');
