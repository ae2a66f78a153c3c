-- Objects that somebody puts in front of ours: temporary tables of our names, a hostile schema first in the path, operators and casts.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
\set ECHO all

SELECT rf_create_partition('hot', '2024-01-01'), rf_create_partition('cold', '2024-01-01');
SELECT rf_archive_set_redirect(true);
SELECT rf_archive_set_notify(true);

-- All that a session does with a store; names of the schema are used, so that the path decides about the inside of our functions only.
CREATE PROCEDURE checks.use_store (round int) LANGUAGE plpgsql AS $$
DECLARE
	a constant pg_catalog.uuid := pg_catalog.lpad(round::pg_catalog.text, 32, '0')::pg_catalog.uuid;
	b constant pg_catalog.uuid := pg_catalog.lpad((round OPERATOR(pg_catalog.+) 50)::pg_catalog.text, 32, '0')::pg_catalog.uuid;
	key constant pg_catalog.jsonb := pg_catalog.jsonb_build_object('idempotency_key', round);
	n pg_catalog.int8;
	m pg_catalog.int8;
	report pg_catalog.text := '';
BEGIN
	SELECT stream_seq INTO n FROM store.rf_append(a, 'one', '{"n": 1}', key, created_at => '2024-01-02 00:00+00');
	SELECT stream_seq INTO m FROM store.rf_append(a, 'one', '{"n": 1}', key, created_at => '2024-01-02 00:00+00');
	report := pg_catalog.format('append %s %s', n, m);
	SELECT pg_catalog.count(*) INTO n FROM store.rf_append_batch(a, '[{"type": "two", "body": 2, "created_at": "2024-01-03T00:00Z"}, {"type": "three", "body": 3, "created_at": "2024-01-04T00:00Z"}]', 1);
	INSERT INTO store.events (stream_id, stream_seq, event_type, body, created_at, bucket_month) VALUES (a, 4, 'four', '{}', '2024-01-05 00:00+00', '2024-01-01'), (b, 1, 'one', '{}', '2024-01-06 00:00+00', '2024-01-01');
	INSERT INTO store.events (stream_id, event_type, body, headers, created_at, bucket_month) VALUES (a, 'five', '{}', '{"idempotency_key": null}', '2024-01-07 00:00+00', '2024-01-01'), (b, 'two', '{}', '{}', '2024-01-08 00:00+00', '2024-01-01');
	report := pg_catalog.format('%s, batch %s', report, n);
	SELECT last_seq INTO n FROM store.rf_archive_mark(b, 'reason');
	INSERT INTO store.events (stream_id, event_type, body, created_at, bucket_month) VALUES (b, 'three', '{}', '2024-01-09 00:00+00', '2024-01-01');
	SELECT events_moved INTO m FROM store.rf_archive_move('2024-01-04 00:00+00', dry_run => true);
	report := pg_catalog.format('%s, mark %s, dry %s', report, n, m);
	SELECT pg_catalog.sum(events) INTO n FROM store.rf_archive_plan('2024-01-04 00:00+00');
	SELECT pg_catalog.sum(events) INTO m FROM store.rf_archive_candidates('2024-01-04 00:00+00');
	report := pg_catalog.format('%s, plan %s, candidates %s', report, n, m);
	SELECT events_moved INTO n FROM store.rf_archive_move('2024-01-04 00:00+00', 1);
	SELECT events_moved INTO m FROM store.rf_archive_move('infinity', only_archived => true);
	report := pg_catalog.format('%s, moved %s, archived %s', report, n, m);
	SELECT pg_catalog.count(*) INTO n FROM store.rf_read_stream(a);
	SELECT pg_catalog.count(*) INTO m FROM store.rf_read_stream(b, include_archived => true);
	report := pg_catalog.format('%s, read %s %s', report, n, m);
	SELECT pg_catalog.count(*) INTO n FROM store.rf_read_all(0, 1000, NULL, true) AS r WHERE r.stream_id OPERATOR(pg_catalog.=) a OR r.stream_id OPERATOR(pg_catalog.=) b;
	SELECT hot_streams OPERATOR(pg_catalog.+) cold_streams INTO m FROM store.rf_archive_status();
	report := pg_catalog.format('%s, all %s, status %s', report, n, m);
	SELECT last_seq INTO n FROM store.rf_archive_reactivate(b);
	PERFORM store.rf_archive_set_redirect(true), store.rf_archive_set_include_archived(false), store.rf_archive_set_notify(true), store.rf_archive_set_backend('dual_table');
	PERFORM store.rf_create_partition('hot', pg_catalog.make_date(2010 OPERATOR(pg_catalog.+) round, 1, 1)), store.rf_create_partition('cold', pg_catalog.make_date(2010 OPERATOR(pg_catalog.+) round, 1, 1));
	PERFORM store.rf_prune_keys('-infinity'), store.rf_prune_log('-infinity'), store.rf_install('store');
	RAISE NOTICE '%, reactivated %', report, n;
END $$;
CALL checks.use_store(1);
SELECT events, broken_streams FROM check_union('store');

-- Temporary tables of all our names, and a temporary view and sequence; they come first for everybody who does not say otherwise.
CREATE TEMP TABLE events (LIKE store.events);
CREATE TEMP TABLE events_archive (LIKE store.events_archive);
CREATE TEMP TABLE events_hot (LIKE store.events);
CREATE TEMP TABLE events_cold (LIKE store.events);
CREATE TEMP TABLE events_hot_2024_01 (LIKE store.events);
CREATE TEMP TABLE events_archive_2024_01 (LIKE store.events_archive);
CREATE TEMP TABLE rf_streams (LIKE store.rf_streams);
CREATE TEMP TABLE rf_archive_config (LIKE store.rf_archive_config);
CREATE TEMP TABLE rf_event_keys (LIKE store.rf_event_keys);
CREATE TEMP TABLE rf_archive_log (LIKE store.rf_archive_log);
CREATE TEMP TABLE rf_stores (LIKE store.rf_stores);
CREATE TEMP TABLE events_all (LIKE store.events);
CREATE TEMP SEQUENCE events_global_seq_seq;
SET search_path = pg_temp, store;
CALL checks.use_store(2);
SELECT (SELECT count(*) FROM pg_temp.events) + (SELECT count(*) FROM pg_temp.events_archive) + (SELECT count(*) FROM pg_temp.rf_streams) + (SELECT count(*) FROM pg_temp.rf_archive_config)
	+ (SELECT count(*) FROM pg_temp.rf_event_keys) + (SELECT count(*) FROM pg_temp.rf_archive_log) + (SELECT count(*) FROM pg_temp.rf_stores) + (SELECT count(*) FROM pg_temp.events_all)
	+ (SELECT count(*) FROM pg_temp.events_hot) + (SELECT count(*) FROM pg_temp.events_cold) + (SELECT count(*) FROM pg_temp.events_hot_2024_01) + (SELECT count(*) FROM pg_temp.events_archive_2024_01) AS in_temporary_tables,
	(SELECT is_called FROM pg_temp.events_global_seq_seq) AS sequence_used;
SELECT checks.try('CALL store.rf_archive_run(''infinity'')');
CALL store.rf_archive_run('2024-01-05 00:00+00');
SHOW search_path;
RESET search_path;
SELECT * FROM checks.check_keep();
SELECT events, broken_streams FROM checks.check_union('store');
DISCARD TEMP;

-- A schema in front of the catalog: functions, operators, types, and casts that tell when they are used.
CREATE SCHEMA other;
CREATE TABLE other.caught (what text);
CREATE FUNCTION other.catch (what text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'caught: %', what; END $$;
CREATE FUNCTION other.equal (uuid, uuid) RETURNS boolean LANGUAGE sql AS $$ SELECT other.catch('uuid =') $$;
CREATE FUNCTION other.equal (text, text) RETURNS boolean LANGUAGE sql AS $$ SELECT other.catch('text =') $$;
CREATE FUNCTION other.equal (int, int) RETURNS boolean LANGUAGE sql AS $$ SELECT other.catch('int =') $$;
CREATE FUNCTION other.less (timestamptz, timestamptz) RETURNS boolean LANGUAGE sql AS $$ SELECT other.catch('timestamptz <') $$;
CREATE FUNCTION other.plus (int, int) RETURNS int LANGUAGE sql AS $$ SELECT CASE WHEN other.catch('int +') THEN 1 END $$;
CREATE FUNCTION other.arrow (jsonb, text) RETURNS text LANGUAGE sql AS $$ SELECT CASE WHEN other.catch('jsonb ->>') THEN '' END $$;
CREATE OPERATOR other.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = other.equal);
CREATE OPERATOR other.= (LEFTARG = text, RIGHTARG = text, FUNCTION = other.equal);
CREATE OPERATOR other.= (LEFTARG = int, RIGHTARG = int, FUNCTION = other.equal);
CREATE OPERATOR other.< (LEFTARG = timestamptz, RIGHTARG = timestamptz, FUNCTION = other.less);
CREATE OPERATOR other.+ (LEFTARG = int, RIGHTARG = int, FUNCTION = other.plus);
CREATE OPERATOR other.->> (LEFTARG = jsonb, RIGHTARG = text, FUNCTION = other.arrow);
CREATE FUNCTION other.now () RETURNS timestamptz LANGUAGE sql AS $$ SELECT CASE WHEN other.catch('now()') THEN pg_catalog.now() END $$;
CREATE FUNCTION other.clock_timestamp () RETURNS timestamptz LANGUAGE sql AS $$ SELECT CASE WHEN other.catch('clock_timestamp()') THEN pg_catalog.now() END $$;
CREATE FUNCTION other.count (text) RETURNS bigint LANGUAGE sql AS $$ SELECT CASE WHEN other.catch('count()') THEN 1 END $$;
CREATE FUNCTION other.nextval (regclass) RETURNS bigint LANGUAGE sql AS $$ SELECT CASE WHEN other.catch('nextval()') THEN 1 END $$;
CREATE FUNCTION other.unnest (uuid[]) RETURNS SETOF uuid LANGUAGE sql AS $$ SELECT NULL::uuid WHERE other.catch('unnest()') $$;
CREATE FUNCTION other.greatest_of (timestamptz) RETURNS timestamptz LANGUAGE sql AS $$ SELECT $1 $$;
CREATE FUNCTION other.date_trunc (text, timestamp) RETURNS timestamp LANGUAGE sql AS $$ SELECT $2 WHERE other.catch('date_trunc()') $$;
CREATE FUNCTION other.pg_total_relation_size (oid) RETURNS bigint LANGUAGE sql AS $$ SELECT CASE WHEN other.catch('pg_total_relation_size()') THEN 1 END $$;
CREATE FUNCTION other.jsonb_array_elements (jsonb) RETURNS SETOF jsonb LANGUAGE sql AS $$ SELECT $1 WHERE other.catch('jsonb_array_elements()') $$;
CREATE FUNCTION other.pg_advisory_xact_lock (int, int) RETURNS void LANGUAGE sql AS $$ SELECT WHERE other.catch('pg_advisory_xact_lock()') $$;
CREATE DOMAIN other.text AS pg_catalog.text CHECK (false);
CREATE DOMAIN other.uuid AS pg_catalog.uuid CHECK (false);
CREATE FUNCTION other.rf_events_append_only () RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'caught: rf_events_append_only'; END $$;
CREATE TABLE other.events (LIKE store.events);
CREATE TABLE other.rf_streams (LIKE store.rf_streams);
-- (the trap works)
SET search_path = other, pg_catalog;
SELECT 1 = 1;
SELECT now();
CALL checks.use_store(3);
CALL store.rf_archive_run('2024-01-06 00:00+00', 1);
SHOW search_path;
CALL store.rf_archive_run('2024-01-07 00:00+00', tenant => '*');
COPY store.events (stream_id, event_type, body, created_at, bucket_month) FROM stdin;
00000000-0000-0000-0000-000000000003	copied	{}	2024-01-20 00:00+00	2024-01-01
\.
RESET search_path;
SELECT (SELECT count(*) FROM other.events) + (SELECT count(*) FROM other.rf_streams) AS in_other_tables;
SELECT events, broken_streams FROM checks.check_union('store');
SELECT right(stream_id::text, 2) AS s, last_seq, count(*) FROM store.rf_streams JOIN store.events_all USING (stream_id) GROUP BY 1, 2 ORDER BY 1;

-- The triggers that a month gets are ours, whatever the path was when it was made.
SELECT DISTINCT tgname, tgfoid::regprocedure FROM pg_trigger WHERE tgrelid = 'store.events_hot_2013_01'::regclass ORDER BY 1;
-- A store made under that path is a good one.
SET search_path = other, pg_catalog;
SELECT store.rf_install('checks', 't2');
RESET search_path;
SELECT stream_seq FROM store.rf_append('00000000-0000-0000-0000-000000000001', 'a', '{}', created_at => '2024-01-01 00:00+00', tenant => 't2');
SELECT events_moved FROM store.rf_archive_move('infinity', tenant => 't2');
SELECT events, broken_streams FROM checks.check_union('checks');
SELECT DISTINCT refclassid::regclass, refobjid::regclass FROM pg_depend AS d JOIN pg_rewrite AS r ON r.oid = objid
WHERE ev_class = 'checks.events_all'::regclass AND refclassid = 'pg_class'::regclass AND refobjid <> ev_class ORDER BY 2;
SET client_min_messages = error;
DROP SCHEMA other CASCADE;
RESET client_min_messages;
