-- Reads go leaf by leaf: which leaves they open, and that they find what a query of events_all finds.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
CREATE SCHEMA other;
SELECT rf_install('other', 't2') \gset
SELECT rf_archive_set_backend('partitioned', 't2') \gset
-- What the two functions deliver, against events_all: batches of several sizes from several numbers on, and every stream.
CREATE FUNCTION checks.wrong_reads (tenant text, OUT batches bigint, OUT wrong_batches text, OUT streams bigint, OUT wrong_streams text)
LANGUAGE plpgsql SET jit = off AS $$
DECLARE
	part constant text := 'ROW(global_seq, stream_id, stream_seq, event_type, body, headers, causation_id, correlation_id,'
		' event_version, tenant_id, user_id, is_tombstone, created_at, retention_class)::text';
	sch constant name := CASE WHEN tenant IS NULL THEN 'store' ELSE 'other' END;
BEGIN
	EXECUTE format('WITH asked AS (
			SELECT after, most, types, hot, ARRAY(SELECT e::text FROM store.rf_read_all(after, most, types, NOT hot, %2$L) AS e) AS got
			FROM (SELECT DISTINCT global_seq + d AS after FROM %1$I.events_all, unnest(ARRAY[-1, 0]) AS d WHERE global_seq %% 23 = 0 AND global_seq < 100000
					UNION SELECT unnest(ARRAY[-1, 0, 1000000])) AS a,
				unnest(ARRAY[3, NULL]) AS most, (VALUES (NULL::text[]), (''{odd,late}'')) AS t(types), unnest(ARRAY[true, false]) AS hot),
		judged AS (
			SELECT *, ARRAY(SELECT %3$s FROM %1$I.events_all WHERE global_seq > after AND (NOT hot OR retention_class = ''hot'')
				AND (types IS NULL OR event_type = ANY (types)) ORDER BY global_seq LIMIT most) AS wanted
			FROM asked)
		SELECT count(*), string_agg(format(''%%s,%%s,%%s,%%s'', after, most, types, hot), ''; '') FILTER (WHERE got <> wanted) FROM judged', sch, tenant, part)
	INTO batches, wrong_batches;
	EXECUTE format('WITH asked AS (
			SELECT stream_id AS id, after, most, back, hot, ARRAY(SELECT e::text FROM store.rf_read_stream(stream_id, after, most, back, NOT hot, %2$L) AS e) AS got
			FROM %1$I.rf_streams, unnest(ARRAY[0, 3]) AS after, unnest(ARRAY[1, NULL]) AS most,
				unnest(ARRAY[true, false]) AS back, unnest(ARRAY[true, false]) AS hot),
		judged AS (
			SELECT *, ARRAY(SELECT %3$s FROM %1$I.events_all WHERE stream_id = id AND (NOT hot OR retention_class = ''hot'')
				AND CASE WHEN back THEN after = 0 OR stream_seq < after ELSE stream_seq > after END
				ORDER BY CASE WHEN back THEN - stream_seq ELSE stream_seq END LIMIT most) AS wanted
			FROM asked)
		SELECT count(*), string_agg(format(''%%s,%%s,%%s,%%s,%%s'', right(id::text, 2), after, most, back, hot), ''; '') FILTER (WHERE got <> wanted) FROM judged', sch, tenant, part)
	INTO streams, wrong_streams;
END $$;
-- The leaves that this transaction has locked for reading, but for what reads of the catalog leave. Months from
-- today's on have no name that stays.
CREATE FUNCTION checks.leaves () RETURNS text LANGUAGE sql AS $$
	WITH locked AS (SELECT CASE WHEN right(c.relname, 7) BETWEEN to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM') AND '9999_99'
			THEN left(c.relname, -7) || 'today_or_later' ELSE c.relname::text END COLLATE "C" AS name
		FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation
		WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND c.relkind = 'r' AND c.relispartition)
	SELECT coalesce(string_agg(name, ' ' ORDER BY name), 'none') FROM locked
$$;
-- Those opened by a query, in a subtransaction that gives the locks back.
CREATE FUNCTION checks.opened (query text, OUT events bigint, OUT leaves text) LANGUAGE plpgsql AS $$
DECLARE
	answer text;
BEGIN
	BEGIN
		EXECUTE 'SELECT count(*) FROM ' || query INTO events;
		leaves := checks.leaves();
		RAISE EXCEPTION USING errcode = 'P0002', message = events || '|' || leaves;
	EXCEPTION WHEN no_data_found THEN
		events := split_part(SQLERRM, '|', 1);
		leaves := split_part(SQLERRM, '|', 2);
	END;
END $$;
CREATE FUNCTION checks.s (n int) RETURNS uuid IMMUTABLE LANGUAGE sql AS $$ SELECT lpad(n::text, 32, '0')::uuid $$;
\set ECHO all

-- Months of 2024, and events in the order of their times: 10 of each of streams 1 to 12 in the month of that number.
SELECT count(rf_create_partition('hot', m::date, tenant => t)) FROM generate_series('2024-01-01'::date, '2024-12-01', '1 month') AS m, unnest(ARRAY[NULL, 't2']) AS t;
SELECT count(*) FROM (SELECT m, n FROM generate_series(1, 12) AS m, generate_series(1, 10) AS n ORDER BY m, n) AS x, unnest(ARRAY[NULL, 't2']) AS t,
	rf_append(checks.s(m), CASE n % 2 WHEN 0 THEN 'even' ELSE 'odd' END, to_jsonb(n), created_at => make_timestamptz(2024, m, n, 0, 0, 0, 'UTC'), tenant => t);

-- A batch opens the leaves that it comes from. Read twice: the second time, more is known.
SELECT * FROM checks.opened('store.rf_read_all(0, 10)');
SELECT * FROM checks.opened('store.rf_read_all(0, 10)');
SELECT * FROM checks.opened('store.rf_read_all(15, 10)');
SELECT * FROM checks.opened('store.rf_read_all(15, 10, include_archived => true)');
SELECT * FROM checks.opened('store.rf_read_all(110, 500)');
SELECT * FROM checks.opened('store.rf_read_all(120, 500, include_archived => true)');
SELECT * FROM checks.opened($$store.rf_read_all(0, 500, '{}')$$);
SELECT * FROM checks.opened('store.rf_read_all(0, 0)');
-- A stream opens its months, from both ends, until each number is found; the defaults are empty.
SELECT stream_seq FROM rf_append(checks.s(1), 'odd', '11', created_at => '2024-12-20 00:00+00');
SELECT stream_seq FROM rf_append(checks.s(2), 'odd', '11', created_at => '2024-11-20 00:00+00');
SELECT stream_seq FROM rf_append(checks.s(2), 'even', '12', created_at => '2024-06-20 00:00+00');
SELECT * FROM checks.opened($$store.rf_read_stream(checks.s(5))$$);
SELECT * FROM checks.opened($$store.rf_read_stream(checks.s(1))$$);
SELECT * FROM checks.opened($$store.rf_read_stream(checks.s(1), max_events => 10)$$);
SELECT * FROM checks.opened($$store.rf_read_stream(checks.s(1), backward => true, max_events => 1)$$);
SELECT * FROM checks.opened($$store.rf_read_stream(checks.s(2), after_seq => 10)$$);
SELECT * FROM checks.opened($$store.rf_read_stream(checks.s(2), after_seq => 12)$$);
SELECT * FROM checks.opened($$store.rf_read_stream(checks.s(2), include_archived => false)$$);
SELECT * FROM checks.opened($$store.rf_read_stream(checks.s(99))$$);
SELECT * FROM checks.wrong_reads(NULL);

-- Numbers that are not in the order of the months, events in the defaults, months and streams of both tiers.
SELECT count(*) FROM generate_series(1, 60) AS n, unnest(ARRAY[NULL, 't2']) AS t,
	rf_append(checks.s(1 + n * 5 % 13), CASE n % 2 WHEN 0 THEN 'even' ELSE 'odd' END, to_jsonb(n), created_at => '2023-11-10 00:00+00'::timestamptz + n * interval '9 days', tenant => t);
SELECT * FROM checks.wrong_reads(NULL);
SELECT * FROM checks.wrong_reads('t2');
SELECT rf_flip_partition('2024-03-01', 'cold', tenant => t), rf_flip_partition('2024-07-01', 'cold', tenant => t) FROM unnest(ARRAY[NULL, 't2']) AS t;
SELECT * FROM checks.wrong_reads(NULL);
SELECT * FROM checks.wrong_reads('t2');
SELECT * FROM checks.opened('store.rf_read_all(19, 10)');
SELECT * FROM checks.opened('store.rf_read_all(19, 2, include_archived => true)');
SELECT * FROM checks.opened('store.rf_read_stream(checks.s(3))');
BEGIN;
SELECT rf_flip_partition('2024-03-01', 'hot'), rf_flip_partition('2024-08-01', 'cold');
SELECT * FROM checks.wrong_reads(NULL);
ROLLBACK;
SELECT * FROM checks.wrong_reads(NULL);
SELECT events_moved FROM unnest(ARRAY[NULL, 't2']) AS t, rf_archive_move('infinity', stream_id => checks.s(4), tenant => t);
SELECT events_moved FROM unnest(ARRAY[NULL, 't2']) AS t, rf_archive_move('2024-02-10 00:00+00', tenant => t);
SELECT * FROM checks.wrong_reads(NULL);
SELECT * FROM checks.wrong_reads('t2');
SELECT last_seq FROM unnest(ARRAY[NULL, 't2']) AS t, rf_archive_reactivate(checks.s(4), tenant => t);
SELECT rf_flip_partition('2024-03-01', 'hot', tenant => t) FROM unnest(ARRAY[NULL, 't2']) AS t;
SELECT rf_drain_default(t) FROM unnest(ARRAY[NULL, 't2']) AS t;
SELECT * FROM checks.wrong_reads(NULL);
SELECT * FROM checks.wrong_reads('t2');

-- What is known of a leaf is true or thrown away: rows of low numbers that come late, are rolled back, split pages; files that are written anew.
SELECT sum(n) FROM (SELECT count(*) AS n FROM rf_read_all(0, NULL, NULL, true)) AS x;
INSERT INTO events (global_seq, stream_id, event_type, body, created_at, bucket_month) VALUES (-5, checks.s(8), 'late', '0', '2024-12-02 00:00+00', '2024-12-01');
SELECT global_seq, created_at FROM rf_read_all(-10, 2);
SELECT * FROM checks.wrong_reads(NULL);
BEGIN;
SELECT count(*) FROM rf_read_all(-10, NULL);
SAVEPOINT s;
INSERT INTO events (global_seq, stream_id, event_type, body, created_at, bucket_month)
SELECT -1000 - n, checks.s(8), 'late', '0', '2024-12-02 00:00+00', '2024-12-01' FROM generate_series(1, 900) AS n;
SELECT min(global_seq), count(*) FROM rf_read_all(-10000, NULL);
ROLLBACK TO s;
SELECT min(global_seq), count(*) FROM rf_read_all(-10000, NULL);
ROLLBACK;
SELECT min(global_seq), count(*) FROM rf_read_all(-10000, NULL);
INSERT INTO events (global_seq, stream_id, event_type, body, created_at, bucket_month)
SELECT 100000 + n * 37 % 2000, checks.s(21 + n % 5), 'many', '0', '2024-12-02 00:00+00', '2024-12-01' FROM generate_series(0, 1999) AS n;
SELECT min(global_seq), max(global_seq), count(*) FROM rf_read_all(99999, NULL);
SELECT sum(n), count(*) FROM (SELECT (SELECT count(*) FROM rf_read_all(99999 + b * 100, 100)) AS n FROM generate_series(0, 20) AS b) AS x;
SELECT * FROM checks.opened('store.rf_read_all(100500, 100, include_archived => true)');
REINDEX TABLE events_hot_2024_12;
SELECT min(global_seq), max(global_seq), count(*) FROM rf_read_all(100899, NULL);
INSERT INTO events (global_seq, stream_id, event_type, body, created_at, bucket_month) VALUES (200000, checks.s(21), 'late', '0', '2024-12-02 00:00+00', '2024-12-01');
SELECT min(global_seq), max(global_seq), count(*) FROM rf_read_all(100899, NULL);
REINDEX TABLE CONCURRENTLY events_hot_2024_12;
INSERT INTO events (global_seq, stream_id, event_type, body, created_at, bucket_month) VALUES (200001, checks.s(21), 'late', '0', '2024-12-02 00:00+00', '2024-12-01');
SELECT min(global_seq), max(global_seq), count(*) FROM rf_read_all(100899, NULL);
VACUUM FULL events_hot_2024_12;
INSERT INTO events (global_seq, stream_id, event_type, body, created_at, bucket_month) VALUES (200002, checks.s(21), 'late', '0', '2024-12-02 00:00+00', '2024-12-01');
SELECT min(global_seq), max(global_seq), count(*) FROM rf_read_all(100899, NULL);
SELECT events_moved FROM rf_archive_move('infinity', stream_id => checks.s(22));
SELECT events_moved FROM rf_archive_move('infinity', stream_id => checks.s(23));
VACUUM events_hot_2024_12;
SELECT min(global_seq), max(global_seq), count(*) FROM rf_read_all(100899, NULL);
SELECT min(global_seq), max(global_seq), count(*) FROM rf_read_all(100899, NULL, include_archived => true);
BEGIN;
SET LOCAL session_replication_role = replica;
TRUNCATE events_hot_2024_12;
SELECT count(*) FROM rf_read_all(100899, NULL);
ROLLBACK;
SELECT count(*) FROM rf_read_all(100899, NULL);
SELECT * FROM checks.wrong_reads(NULL);

-- A transaction that keeps its snapshot, and one that is serializable, read the same.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM checks.wrong_reads(NULL);
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT * FROM checks.wrong_reads(NULL);
SELECT count(*) FROM rf_read_all(0, 1);
-- it tells others what it has read, the empty leaves included
SELECT count(*) > 12 AS all_leaves FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation WHERE l.pid = pg_backend_pid() AND l.mode = 'SIReadLock' AND c.relname LIKE 'events_%_pkey';
COMMIT;

-- Cursors, one that outlives its transaction with bodies out of line, and functions that read what is being inserted.
SELECT stream_seq FROM rf_append(checks.s(40), 'large', (SELECT jsonb_agg(md5(n::text)) FROM generate_series(1, 5000) AS n));
BEGIN;
DECLARE c CURSOR WITH HOLD FOR SELECT stream_seq, jsonb_array_length(body) FROM rf_read_stream(checks.s(40));
DECLARE d CURSOR WITH HOLD FOR SELECT body FROM rf_read_stream(checks.s(40));
COMMIT;
SELECT events_moved FROM rf_archive_move('infinity', stream_id => checks.s(40));
VACUUM (TRUNCATE false) events;
FETCH ALL FROM c;
CLOSE c;
CREATE TABLE checks.fetched (body jsonb);
DO $$
DECLARE
	d refcursor := 'd';
	body jsonb;
BEGIN
	FETCH d INTO body;
	INSERT INTO checks.fetched VALUES (body);
END $$;
SELECT jsonb_array_length(body), body ->> 4999 = md5('5000') AS whole FROM checks.fetched;
CLOSE d;
CREATE FUNCTION checks.count_stream () RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE NOTICE 'number %: % events, the last one is %', NEW.stream_seq, (SELECT count(*) FROM store.rf_read_stream(NEW.stream_id)),
		(SELECT stream_seq FROM store.rf_read_stream(NEW.stream_id, backward => true, max_events => 1));
	RETURN NULL;
END $$;
CREATE TRIGGER counting AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION checks.count_stream();
INSERT INTO events (stream_id, event_type, body, created_at, bucket_month) VALUES (checks.s(41), 'a', '1', '2024-05-02', '2024-05-01'), (checks.s(41), 'b', '2', '2024-01-02', '2024-01-01');
INSERT INTO events (stream_id, event_type, body, created_at, bucket_month) VALUES (checks.s(41), 'c', '3', '2024-09-02', '2024-09-01');
SELECT stream_seq FROM rf_append(checks.s(41), 'd', '4', created_at => '2024-07-02');
DROP TRIGGER counting ON events;

--
-- Who is not to see everything
--
CREATE ROLE regress_rillflow_reader;
CREATE ROLE regress_rillflow_partial;
GRANT USAGE ON SCHEMA store, other, checks TO regress_rillflow_reader, regress_rillflow_partial;
GRANT SELECT ON events_all, events, events_archive TO regress_rillflow_reader;
GRANT SELECT ON events_all TO regress_rillflow_partial;
SET ROLE regress_rillflow_reader;
SELECT count(*), count(DISTINCT stream_id) FROM rf_read_all(0, NULL, NULL, true) WHERE global_seq < 100000;
SELECT count(*) FROM rf_read_stream(checks.s(3));
RESET ROLE;
-- row security of the parents; none of the leaves has any
ALTER TABLE events ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON events TO regress_rillflow_reader USING (stream_id IN (checks.s(3), checks.s(5)));
SET ROLE regress_rillflow_reader;
SELECT count(*), array_agg(DISTINCT right(stream_id::text, 1)) FROM rf_read_all(0, NULL, NULL, false) WHERE global_seq < 100000;
SELECT stream_id, count(*) FROM rf_read_stream(checks.s(3), include_archived => false) GROUP BY 1;
SELECT count(*) FROM rf_read_stream(checks.s(4), include_archived => false);
RESET ROLE;
ALTER TABLE events_archive ENABLE ROW LEVEL SECURITY;
SET ROLE regress_rillflow_reader;
SELECT retention_class, count(*) FROM rf_read_all(0, NULL, NULL, true) GROUP BY 1;
SELECT retention_class, count(*) FROM rf_read_stream(checks.s(3)) GROUP BY 1;
SET row_security = off;
SELECT count(*) FROM rf_read_all(0, NULL);
\echo :SQLSTATE
RESET row_security;
RESET ROLE;
-- the owner is not under it, unless it is forced
SELECT count(*) FROM rf_read_stream(checks.s(4));
ALTER TABLE events DISABLE ROW LEVEL SECURITY;
SET ROLE regress_rillflow_reader;
SELECT retention_class, count(*) FROM rf_read_all(0, NULL, NULL, true) WHERE global_seq < 100000 GROUP BY 1;
RESET ROLE;
ALTER TABLE events_archive DISABLE ROW LEVEL SECURITY;
-- policies of a leaf, and rights on leaves, are not asked for from the parents
ALTER TABLE events_hot_2024_05 ENABLE ROW LEVEL SECURITY;
SET ROLE regress_rillflow_reader;
SELECT count(*) FROM rf_read_stream(checks.s(5));
SELECT count(*) FROM events_hot_2024_06;
\echo :SQLSTATE
RESET ROLE;
ALTER TABLE events_hot_2024_05 DISABLE ROW LEVEL SECURITY;
-- rights on some columns, on none, on one tier
SET ROLE regress_rillflow_partial;
SELECT count(*) FROM rf_read_all(0, 5);
\echo :SQLSTATE
RESET ROLE;
GRANT SELECT (global_seq, stream_id, stream_seq, event_type, body, headers, causation_id, correlation_id, event_version, tenant_id, user_id, is_tombstone, created_at, bucket_month, retention_class) ON events TO regress_rillflow_partial;
SET ROLE regress_rillflow_partial;
SELECT count(*) FROM rf_read_all(0, 5);
SELECT count(*) FROM rf_read_stream(checks.s(5), include_archived => false);
SELECT count(*) FROM rf_read_all(0, 5, include_archived => true);
\echo :SQLSTATE
RESET ROLE;
REVOKE SELECT (body) ON events FROM regress_rillflow_partial;
SET ROLE regress_rillflow_partial;
SELECT count(*) FROM rf_read_all(0, 5);
\echo :SQLSTATE
RESET ROLE;

--
-- Stores that were altered
--
ALTER TABLE events ADD COLUMN extra text DEFAULT 'x';
ALTER TABLE events_archive ADD COLUMN extra text;
SELECT rf_flip_partition('2024-05-01', 'cold');
SELECT * FROM checks.wrong_reads(NULL);
ALTER TABLE events DROP COLUMN extra;
ALTER TABLE events_archive DROP COLUMN extra;
SELECT * FROM checks.wrong_reads(NULL);
-- a leaf without one of its indexes is left to the planner
ALTER TABLE events_hot_2024_06 DROP CONSTRAINT events_hot_2024_06_pkey;
SELECT * FROM checks.wrong_reads(NULL);
CREATE UNIQUE INDEX ON events_hot_2024_06 (global_seq DESC);
SELECT * FROM checks.wrong_reads(NULL);
ALTER TABLE events_hot_2024_06 ADD CONSTRAINT events_hot_2024_06_pkey PRIMARY KEY (global_seq);
DROP INDEX events_hot_2024_06_stream_key;
SELECT * FROM checks.wrong_reads(NULL);
CREATE UNIQUE INDEX events_hot_2024_06_stream_key ON events_hot_2024_06 (stream_id, stream_seq);
-- months that are partitioned themselves, and a third branch
CREATE TABLE checks.quarter (LIKE events INCLUDING ALL) PARTITION BY RANGE (bucket_month);
ALTER TABLE events_hot ATTACH PARTITION checks.quarter FOR VALUES FROM ('2020-01-01') TO ('2020-04-01');
SELECT * FROM checks.wrong_reads(NULL);
DROP TABLE checks.quarter;
CREATE TABLE checks.frozen (LIKE events INCLUDING ALL);
ALTER TABLE events ATTACH PARTITION checks.frozen FOR VALUES IN ('frozen');
SELECT * FROM checks.wrong_reads(NULL);
DROP TABLE checks.frozen;
-- a month that is dropped takes its events along
SELECT rf_drop_partition('hot', '2024-10-01', force => true);
SELECT * FROM checks.wrong_reads(NULL);
SELECT * FROM checks.opened('store.rf_read_stream(checks.s(9), 0, 3)');
SELECT count(*) > 0 AS there_are, count(*) FILTER (WHERE retention_class = 'cold') > 0 AS cold_too FROM events_all;
