-- Moving events from hot to cold by rows, in both backends.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
\set ECHO all

-- Two stores, one of each backend. What follows is done in both.
CREATE SCHEMA other;
SELECT rf_install('other', 't2');
SELECT rf_archive_set_backend('partitioned', 't2');
CREATE VIEW checks.both AS SELECT * FROM (VALUES (NULL::text, 'store'::name), ('t2', 'other')) AS b(tenant, store);

-- Streams 1 to 9 with an event every five days of January to May 2024, of which January to March have months of their
-- own; stream 0 with an old event and one of now.
SELECT store, rf_create_partition('hot', month, tenant => tenant), rf_create_partition('cold', month, tenant => tenant)
FROM checks.both, unnest(ARRAY['2024-01-01', '2024-02-01', '2024-03-01']::date[]) AS month ORDER BY store DESC, month;
CREATE FUNCTION checks.stream (n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$ SELECT lpad(n::text, 32, '0')::uuid $$;
CREATE FUNCTION checks.fill (store name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('INSERT INTO %I.events
		(stream_id, event_type, body, headers, causation_id, correlation_id, event_version, tenant_id, user_id, is_tombstone, created_at, bucket_month)
		SELECT checks.stream(s), ''e'' || n, jsonb_build_object(''n'', n, ''text'', repeat(md5(n::text), s)),
			CASE WHEN n %% 3 = 0 THEN ''{}'' ELSE ''{"h": "v"}'' END::jsonb, nullif(checks.stream(n %% 4), checks.stream(0)),
			nullif(checks.stream(n %% 5), checks.stream(0)), 1 + n %% 2, (ARRAY[NULL, '''', ''x''])[1 + n %% 3], (ARRAY[NULL, '''', ''u''])[1 + s %% 3],
			n %% 7 = 0, t, date_trunc(''month'', t AT TIME ZONE ''UTC'')
		FROM generate_series(1, 9) AS s, generate_series(0, 29) AS n,
			LATERAL (SELECT ''2024-01-01 00:00+00''::timestamptz + n * interval ''5 days'' + s * interval ''1 minute'') AS x(t)
		ORDER BY t', store);
	EXECUTE format('INSERT INTO %I.events (stream_id, event_type, body, created_at, bucket_month)
		VALUES (checks.stream(0), ''old'', ''{}'', ''2024-01-31 23:59:59.999999+00'', ''2024-01-01''), (checks.stream(0), ''new'', ''{}'', DEFAULT, DEFAULT)', store);
END
$$;
SELECT checks.fill(store) FROM checks.both;
-- Stream 8 is marked; stream 9 is, too.
SELECT store, m.last_seq, m.retention_class FROM checks.both, rf_archive_mark(checks.stream(8), tenant => tenant) AS m;
SELECT store, m.last_seq, m.retention_class FROM checks.both, rf_archive_mark(checks.stream(9), tenant => tenant) AS m;
SELECT store, c.* FROM checks.both, check_keep(store) AS c;
-- The current month has a name that changes.
CREATE FUNCTION checks.places (store name) RETURNS TABLE (place text, events bigint) LANGUAGE sql AS $$
	SELECT CASE WHEN place ~ '_\d' AND place NOT LIKE '%2024%' THEN regexp_replace(place, '\d+_\d+', 'now') ELSE place END, events
	FROM checks.check_places(store)
$$;
SELECT store, p.* FROM checks.both, checks.places(store) AS p;

--
-- What a move would do
--
SELECT p.bucket_month, p.source, p.method, p.events, p.streams, p.bytes > 0 AS bytes, p.reason
FROM checks.both, rf_archive_plan('2024-04-10 00:00+00', tenant => tenant) AS p;
SELECT bucket_month, source, events, streams, reason FROM rf_archive_plan('2024-02-10 00:00+00', checks.stream(3));
SELECT bucket_month, source, events, streams, reason FROM rf_archive_plan('2024-02-10 00:00+00', only_archived => true);
SELECT bucket_month, source, events, streams FROM rf_archive_plan('2024-02-01 00:00+00', tenant => '*');
SELECT count(*) FROM rf_archive_plan('-infinity');
SELECT sum(events) FROM rf_archive_plan('infinity');
SELECT * FROM rf_archive_plan('2024-01-02', checks.stream(77));
\echo :SQLSTATE
SELECT store, right(c.stream_id::text, 1) AS s, c.events, c.oldest, c.newest, c.closes FROM checks.both, rf_archive_candidates('2024-02-01 00:00+00', tenant => tenant) AS c;
SELECT right(stream_id::text, 1) AS s, events, oldest, newest, closes FROM rf_archive_candidates('2024-06-01 00:00+00', max_streams => 2);
SELECT right(stream_id::text, 1) AS s, events, closes FROM rf_archive_candidates('infinity', NULL, true);
SELECT count(*), sum(events), count(*) FILTER (WHERE closes) AS closes FROM rf_archive_candidates('infinity', tenant => '*');
SELECT count(*) FROM rf_archive_candidates('infinity', 0);
-- The dry run tells the same, and changes nothing.
SELECT store, d.* FROM checks.both, rf_archive_move('2024-02-10 00:00+00', 10, dry_run => true, tenant => tenant) AS d;
SELECT * FROM rf_archive_move('2024-02-10 00:00+00', 10, checks.stream(3), dry_run => true);
SELECT * FROM rf_archive_move('2024-02-10 00:00+00', 10, only_archived => true, dry_run => true);
SELECT * FROM rf_archive_move('2024-02-10 00:00+00', 10, checks.stream(3), true, true);
SELECT * FROM rf_archive_move('2024-02-10 00:00+00', 10, checks.stream(8), true, true);
SELECT * FROM rf_archive_move('-infinity', dry_run => true);
BEGIN READ ONLY;
SELECT * FROM rf_archive_move('infinity', dry_run => true);
SELECT count(*) FROM rf_archive_plan('infinity');
SELECT count(*) FROM rf_archive_candidates('infinity');
SELECT * FROM rf_archive_move('infinity');
\echo :SQLSTATE
ROLLBACK;
SELECT store, p.* FROM checks.both, checks.places(store) AS p WHERE place !~ 'hot';
SELECT store, c.* FROM checks.both, check_same(store) AS c;
CREATE FUNCTION checks.ledger (store name) RETURNS TABLE (action text, entries bigint, events numeric, streams numeric) LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY EXECUTE format('SELECT action, count(*), sum(events), sum(streams) FROM %I.rf_archive_log WHERE action <> ''partition made'' GROUP BY 1 ORDER BY 1', store);
END $$;
SELECT store, l.* FROM checks.both, checks.ledger(store) AS l ORDER BY 1 DESC, 2;

--
-- Moves
--

-- Nothing.
SELECT store, m.* FROM checks.both, rf_archive_move('-infinity', tenant => tenant) AS m;
SELECT store, m.* FROM checks.both, rf_archive_move('2024-01-01 00:00+00', tenant => tenant) AS m;
SELECT store, c.* FROM checks.both, check_same(store) AS c;

-- January, in batches of 10. No stream is empty then.
SELECT store, m.* FROM checks.both, rf_archive_move('2024-02-01 00:00+00', 10, tenant => tenant) AS m;
SELECT store, c.* FROM checks.both, check_same(store) AS c;
SELECT store, p.* FROM checks.both, checks.places(store) AS p;
SELECT store, l.* FROM checks.both, checks.ledger(store) AS l ORDER BY 1 DESC, 2;
-- Again: there is nothing left.
SELECT store, m.* FROM checks.both, rf_archive_move('2024-02-01 00:00+00', 10, tenant => tenant) AS m;

-- Up to the middle of a month, to the microsecond: the cut-off itself stays.
SELECT created_at FROM events WHERE stream_id = checks.stream(5) AND created_at > '2024-02-09' ORDER BY 1 LIMIT 2;
SELECT store, m.* FROM checks.both, rf_archive_move('2024-02-10 00:05+00', tenant => tenant) AS m;
SELECT store, c.* FROM checks.both, check_same(store) AS c;
SELECT stream_id = checks.stream(5) AS s5, min(created_at) FROM events WHERE stream_id IN (checks.stream(4), checks.stream(5)) GROUP BY 1 ORDER BY 1;

-- One stream, whole: it is closed. An unknown one is an error.
SELECT store, m.* FROM checks.both, rf_archive_move('2024-06-01 00:00+00', 3, checks.stream(1), tenant => tenant) AS m;
SELECT store, c.* FROM checks.both, check_same(store) AS c;
SELECT 'store' AS store, archived_by, archive_reason, retention_class, archived_at IS NOT NULL AS closed, last_seq FROM rf_streams WHERE stream_id = checks.stream(1)
UNION ALL SELECT 'other', archived_by, archive_reason, retention_class, archived_at IS NOT NULL, last_seq FROM other.rf_streams WHERE stream_id = checks.stream(1);
SELECT * FROM rf_archive_move('infinity', stream_id => checks.stream(77));
\echo :SQLSTATE
SELECT * FROM rf_archive_move('infinity', stream_id => checks.stream(77), dry_run => true);
\echo :SQLSTATE

-- Archived streams only: 8 and 9. One that is not archived is not touched, even by name.
SELECT store, m.* FROM checks.both, rf_archive_move('2024-03-01 00:00+00', only_archived => true, tenant => tenant) AS m;
SELECT store, m.* FROM checks.both, rf_archive_move('infinity', NULL, checks.stream(2), true, tenant => tenant) AS m;
SELECT store, m.* FROM checks.both, rf_archive_move('infinity', 4, checks.stream(8), true, NULL, NULL, tenant) AS m;
SELECT store, c.* FROM checks.both, check_same(store) AS c;
SELECT right(stream_id::text, 1) AS s, count(*) FILTER (WHERE retention_class = 'hot') AS hot, count(*) FILTER (WHERE retention_class = 'cold') AS cold FROM events_all GROUP BY 1 ORDER BY 1;
SELECT right(stream_id::text, 1) AS s, archived_by = session_user AS by_me, archive_reason FROM rf_streams WHERE archived_at IS NOT NULL ORDER BY 1;

-- The rest of 2024, whose April and May have no months; in the transaction of a caller none are made, and the default takes them.
SELECT store, m.* FROM checks.both, rf_archive_move('2025-01-01 00:00+00', 100, tenant => tenant) AS m;
SELECT store, c.* FROM checks.both, check_same(store) AS c;
SELECT store, p.* FROM checks.both, checks.places(store) AS p;
-- All streams are closed, but the one that has an event left, and the two that a person has marked.
SELECT archived_by = 'archive_move' AS closed, retention_class, count(*) FROM rf_streams GROUP BY 1, 2 ORDER BY 1, 2;
SELECT archived_by = 'archive_move' AS closed, retention_class, count(*) FROM other.rf_streams GROUP BY 1, 2 ORDER BY 1, 2;

-- All of it, the current month too.
SELECT store, m.* FROM checks.both, rf_archive_move('infinity', tenant => tenant) AS m;
SELECT store, c.* FROM checks.both, check_same(store) AS c;
SELECT count(*) AS hot FROM events;
SELECT retention_class, count(*) FROM other.events GROUP BY 1;
SELECT retention_class, migrated_by, bool_and(migrated_at IS NOT NULL) AS dated, count(*) FROM events_archive GROUP BY 1, 2;
-- Tombstones, tenants, users, headers are what they were; the checksum says so, and so does a look.
SELECT is_tombstone, tenant_id, user_id, headers, event_version, count(*) FROM events_all WHERE stream_id = checks.stream(4) GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2 NULLS FIRST, 3, 4, 5;
-- The ledger: as many events as were moved, and the streams that were closed.
SELECT store, l.* FROM checks.both, checks.ledger(store) AS l ORDER BY 1 DESC, 2;
SELECT action, actor = session_user AS by_me, right(stream_id::text, 1) AS s, bucket_month, events, streams, duration >= '0' AS timed, estimated, detail, entries
FROM rf_archive_log WHERE action NOT IN ('close', 'mark') AND bucket_month < '2025-01-01' ORDER BY log_id;
SELECT right(stream_id::text, 1) AS s, action, detail FROM rf_archive_log WHERE action IN ('close', 'mark') ORDER BY 1, 2;

-- Numbers go on; an event that lands hot reopens a closed stream, and is the only one that the next move takes.
SELECT store, a.stream_seq FROM checks.both, rf_append(checks.stream(1), 'later', '{}', created_at => '2024-01-02 00:00+00', tenant => tenant) AS a;
SELECT archived_at IS NULL AS open, last_event_at FROM rf_streams WHERE stream_id = checks.stream(1);
SELECT store, c.* FROM checks.both, check_keep(store) AS c;
SELECT store, m.* FROM checks.both, rf_archive_move('2024-02-01 00:00+00', tenant => tenant) AS m;
SELECT store, c.* FROM checks.both, check_same(store) AS c;
-- It is closed again, though its youngest event, long cold, is younger than the cut-off.
SELECT archived_by, retention_class FROM rf_streams WHERE stream_id = checks.stream(1);
SELECT archived_by, retention_class FROM other.rf_streams WHERE stream_id = checks.stream(1);

-- Everything comes back.
SELECT store, count(*), bool_and(r.archived_at IS NULL AND r.archived_by IS NULL AND r.archive_reason IS NULL AND r.retention_class = 'hot') AS active
FROM checks.both, generate_series(0, 9) AS n, rf_archive_reactivate(checks.stream(n), tenant => tenant) AS r GROUP BY 1 ORDER BY 1 DESC;
SELECT store, c.* FROM checks.both, check_same(store) AS c;
SELECT store, p.* FROM checks.both, checks.places(store) AS p;
SELECT count(*) AS reactivated, sum(events) AS events FROM rf_archive_log WHERE action = 'reactivate';

--
-- In a transaction
--
BEGIN;
SELECT events_moved FROM rf_archive_move('2024-02-01 00:00+00');
SELECT events_moved FROM rf_archive_move('2024-02-01 00:00+00', tenant => 't2');
SAVEPOINT one;
SELECT events_moved FROM rf_archive_move('2024-03-01 00:00+00');
SELECT * FROM check_same();
ROLLBACK TO one;
SELECT stream_seq FROM rf_append(checks.stream(1), 'between', '{}');
SELECT events_moved FROM rf_archive_move('2024-02-10 00:00+00');
SELECT events, broken_streams FROM check_union('store');
ROLLBACK;
SELECT store, c.* FROM checks.both, check_same(store) AS c;
SELECT count(*) FILTER (WHERE retention_class = 'cold') AS cold, count(*) FROM events_all;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT store, m.* FROM checks.both, rf_archive_move('2024-01-10 00:00+00', tenant => tenant) AS m;
COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT store, m.* FROM checks.both, rf_archive_move('2024-01-12 00:00+00', tenant => tenant) AS m;
COMMIT;
SELECT store, c.* FROM checks.both, check_same(store) AS c;
-- Called by a statement that appends to the very stream, it would take rows away under that statement, which fails whole.
CREATE FUNCTION checks.move () RETURNS text LANGUAGE sql AS $$ SELECT 'moved ' || events_moved FROM store.rf_archive_move('infinity', stream_id => checks.stream(5)) $$;
\set VERBOSITY sqlstate
INSERT INTO events (stream_id, event_type, body) SELECT checks.stream(5), CASE WHEN n = 3 THEN checks.move() ELSE 'n' || n END, '{}' FROM generate_series(1, 4) AS n;
\set VERBOSITY default
SELECT stream_seq, event_type, retention_class FROM events_all WHERE stream_id = checks.stream(5) AND stream_seq > 29 ORDER BY 1;
SELECT last_seq, archived_at FROM rf_streams WHERE stream_id = checks.stream(5);
SELECT store, c.* FROM checks.both, check_keep(store) AS c;

--
-- rf_archive_run(), which makes the months that lack
--
CALL rf_archive_run('2024-02-01 00:00+00', 10);
CALL rf_archive_run('2024-02-01 00:00+00', 10);
SELECT * FROM check_same();
CALL rf_archive_run('2024-03-01 00:00+00', stream_id => checks.stream(2), max_runtime => '1 hour', tenant => 't2');
SELECT 1 AS marked FROM rf_archive_mark(checks.stream(3));
CALL rf_archive_run('infinity', NULL, NULL, true);
CALL rf_archive_run('2024-05-01 00:00+00', 100, tenant => '*');
SELECT store, c.* FROM checks.both, check_same(store) AS c;
SELECT store, p.* FROM checks.both, checks.places(store) AS p;
CALL rf_archive_run('infinity', stream_id => checks.stream(77));
\echo :SQLSTATE
CALL rf_archive_run('infinity', max_runtime => '0');
\echo :SQLSTATE
CALL rf_archive_run('infinity', max_runtime => '-1 day');
\echo :SQLSTATE
CALL rf_archive_run('infinity', tenant => 'nobody');
\echo :SQLSTATE
-- It commits, and so is refused where that is not possible.
BEGIN;
CALL rf_archive_run('infinity');
\echo :SQLSTATE
ROLLBACK;
CREATE FUNCTION checks.run () RETURNS void LANGUAGE plpgsql AS $$ BEGIN CALL rf_archive_run('infinity'); END $$;
SELECT checks.run();
\echo :SQLSTATE
DO $$ BEGIN CALL rf_archive_run('infinity'); EXCEPTION WHEN OTHERS THEN RAISE NOTICE '%: %', SQLSTATE, SQLERRM; END $$;
SELECT store, c.* FROM checks.both, check_same(store) AS c;
-- In a block without a transaction around it is at home.
DO $$ BEGIN CALL rf_archive_run('2024-05-15'); CALL rf_archive_run('infinity', tenant => '*'); END $$;
SELECT store, c.* FROM checks.both, check_same(store) AS c;
SELECT count(*) AS hot FROM events;
SELECT count(*) AS hot FROM other.events WHERE retention_class = 'hot';

--
-- Bad arguments
--
SELECT checks.try($$SELECT rf_archive_move(NULL)$$);
SELECT checks.try($$SELECT rf_archive_move('infinity', 0)$$);
SELECT checks.try($$SELECT rf_archive_move('infinity', -1)$$);
SELECT checks.try($$SELECT rf_archive_move('infinity', 100001)$$);
SELECT checks.try($$SELECT rf_archive_move('infinity', 2147483647)$$);
SELECT checks.try($$SELECT rf_archive_move('infinity', 100000)$$);
SELECT checks.try($$SELECT rf_archive_move('infinity', tenant => '*')$$);
SELECT checks.try($$SELECT rf_archive_move('infinity', tenant => 'nobody')$$);
SELECT checks.try($$SELECT rf_archive_plan(NULL)$$);
SELECT checks.try($$SELECT rf_archive_candidates(NULL)$$);
SELECT checks.try($$SELECT rf_archive_candidates('infinity', -1)$$);
CALL rf_archive_run(NULL);
\echo :SQLSTATE
CALL rf_archive_run('infinity', 0);
\echo :SQLSTATE
SET rillflow.batch_size = 0;
\echo :SQLSTATE
SET rillflow.batch_size = 100001;
\echo :SQLSTATE
-- Without a batch size it is the setting's.
SELECT last_seq FROM rf_archive_reactivate(checks.stream(6));
SET rillflow.batch_size = 4;
SELECT * FROM rf_archive_move('infinity', dry_run => true);
SELECT * FROM rf_archive_move('infinity');
RESET rillflow.batch_size;

--
-- Columns that the user adds
--
SELECT last_seq FROM rf_archive_reactivate(checks.stream(2));
SELECT last_seq FROM rf_archive_reactivate(checks.stream(2), tenant => 't2');
ALTER TABLE events ADD COLUMN "added ""column""" text DEFAULT 'dflt';
ALTER TABLE other.events ADD COLUMN added int[];
SELECT * FROM check_keep();
SELECT * FROM rf_archive_move('infinity');
\echo :SQLSTATE
CALL rf_archive_run('infinity');
\echo :SQLSTATE
SELECT * FROM check_same();
-- (in the partitioned backend nothing lacks, for both tiers are one table)
SELECT events_moved FROM rf_archive_move('infinity', tenant => 't2');
ALTER TABLE events_archive ADD COLUMN "added ""column""" integer;
SELECT * FROM rf_archive_move('infinity');
\echo :SQLSTATE
ALTER TABLE events_archive DROP COLUMN "added ""column""";
ALTER TABLE store.events_archive ADD COLUMN "added ""column""" text;
INSERT INTO events (stream_id, event_type, body, "added ""column""") VALUES (checks.stream(2), 'given', '{}', 'given'), (checks.stream(2), 'null', '{}', NULL);
SELECT * FROM check_keep();
SELECT events_moved FROM rf_archive_move('infinity');
SELECT * FROM check_same();
SELECT "added ""column""", count(*) FROM events_archive WHERE stream_id = checks.stream(2) GROUP BY 1 ORDER BY 1;
-- The view that reads both follows when the store is taken up.
SELECT rf_install('store');
SELECT "added ""column""", count(*) FROM events_all GROUP BY 1 ORDER BY 1;
SELECT last_seq FROM rf_archive_reactivate(checks.stream(2));
SELECT * FROM check_same();

--
-- rf_archive_status()
--
-- Streams and what lies in the defaults are exact; other events and bytes are estimates, and not shown.
CREATE VIEW checks.status AS
	SELECT schema, tenant, backend, redirect_enabled AS redirect, hot_streams, cold_streams, hot_events >= 0 AND cold_events >= 0 AS counted, hot_bytes > 0 AS hot_bytes, cold_bytes > 0 AS cold_bytes, default_events, oldest_hot
	FROM rf_archive_status('*');
SELECT * FROM checks.status;
SELECT schema, tenant FROM rf_archive_status();
SELECT schema, tenant FROM rf_archive_status('t2');
SELECT schema, tenant FROM rf_archive_status('nobody');
\echo :SQLSTATE
SELECT events_moved FROM rf_archive_move('2024-02-03 00:00+00');
SELECT archived_at IS NULL AS active FROM rf_archive_reactivate(checks.stream(1));
SELECT * FROM rf_append(checks.stream(9), 'far', '{}', created_at => '2023-07-01 00:00+00', tenant => 't2', allow_archived => true) \g /dev/null
SELECT rf_archive_set_redirect(true, 't2');
SELECT * FROM checks.status;
-- After ANALYZE, the estimates are what they should be.
SELECT pg_stat_force_next_flush();
ANALYZE;
SELECT schema, hot_events = h.n AS hot_right, cold_events = c.n AS cold_right, h.n > 0 AND c.n > 0 AS some
FROM rf_archive_status() AS s, (SELECT count(*) FROM events) AS h(n), (SELECT count(*) FROM events_archive) AS c(n);

--
-- What is left of a stream
--

-- Streams whose last event is moved, and an event of a lower number is not: the first, one in between, one that a later
-- batch has passed. They stay open, as many batches as it takes; the last stream is closed.
CREATE FUNCTION checks.days (s int, days int[], tenant text) RETURNS bigint LANGUAGE sql AS $$
	SELECT count(*) FROM store.rf_append_batch(checks.stream(s), (
		SELECT jsonb_agg(jsonb_build_object('type', 'day' || d, 'body', 1, 'created_at', '2024-03-01 00:00+00'::timestamptz + d * interval '1 day') ORDER BY n)
		FROM unnest(days) WITH ORDINALITY AS u(d, n)), tenant => tenant)
$$;
SELECT store, s, checks.days(s, days, tenant) FROM checks.both, (VALUES (20, ARRAY[20, 10]), (21, ARRAY[10, 20, 11]), (22, ARRAY[10, 11, 20, 12]), (23, ARRAY[10, 11, 12])) AS v(s, days) ORDER BY 1, 2;
SELECT store, c.same, c.broken_streams FROM checks.both, check_keep(store) AS k, check_same(store) AS c;
SELECT store, m.* FROM checks.both, rf_archive_move('2024-03-16 00:00+00', 3, tenant => tenant) AS m;
SELECT right(stream_id::text, 2) AS s, archived_by FROM rf_streams WHERE stream_id BETWEEN checks.stream(20) AND checks.stream(23) ORDER BY 1;
SELECT right(stream_id::text, 2) AS s, archived_by FROM other.rf_streams WHERE stream_id BETWEEN checks.stream(20) AND checks.stream(23) ORDER BY 1;
-- The ledger tells of each close, and triggers that a user puts on it fire.
CREATE TABLE checks.seen (action text, s text);
CREATE FUNCTION checks.see () RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO checks.seen VALUES (NEW.action, right(NEW.stream_id::text, 2)); RETURN NEW; END $$;
CREATE TRIGGER see AFTER INSERT ON rf_archive_log FOR EACH ROW EXECUTE FUNCTION checks.see();
-- A column may be of another type.
ALTER TABLE other.rf_archive_log ALTER COLUMN streams TYPE numeric;
SELECT store, m.* FROM checks.both, rf_archive_move('2024-04-01 00:00+00', 3, tenant => tenant) AS m;
SELECT * FROM checks.seen WHERE action = 'close' ORDER BY 2;
SELECT right(stream_id::text, 2) AS s, actor = session_user AS by_me, events, streams, duration, estimated, detail, entries, now() - logged_at < '1 hour' AS dated
FROM other.rf_archive_log WHERE action = 'close' AND stream_id BETWEEN checks.stream(20) AND checks.stream(23) ORDER BY 1;
DROP TRIGGER see ON rf_archive_log;
SELECT store, c.same, c.broken_streams FROM checks.both, check_same(store) AS c;
SELECT archived_by, retention_class, count(*) FROM rf_streams WHERE stream_id BETWEEN checks.stream(20) AND checks.stream(23) GROUP BY 1, 2;
