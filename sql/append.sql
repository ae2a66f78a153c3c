-- Appending: rf_append(), rf_append_batch(), and INSERT by applications that know nothing of the store.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
\set ECHO all

\set s1 '''00000000-0000-0000-0000-000000000001'''
\set s2 '''00000000-0000-0000-0000-000000000002'''
\set s3 '''00000000-0000-0000-0000-000000000003'''
\set s4 '''00000000-0000-0000-0000-000000000004'''
\set s5 '''00000000-0000-0000-0000-000000000005'''
\set s6 '''00000000-0000-0000-0000-000000000006'''
\set s7 '''00000000-0000-0000-0000-000000000007'''
\set s8 '''00000000-0000-0000-0000-000000000008'''
\set s9 '''00000000-0000-0000-0000-000000000009'''

-- The state of a stream, without its times.
CREATE VIEW checks.heads AS
	SELECT right(stream_id::text, 4) AS stream, last_seq, archived_by, archive_reason, retention_class,
		first_event_at, last_event_at
	FROM rf_streams WHERE stream_id < '00000000-0000-0000-0001-000000000000';

--
-- rf_append()
--

-- All arguments, by position and by name, and the defaults of each.
SELECT * FROM rf_append(:s1, 'a', '{"n": 1}', '{"h": [1, null]}', NULL, :s8, :s9, 7, 'someone', '2024-01-31 23:59:59.999999+00', true, false, NULL);
SELECT * FROM rf_append(stream_id => :s1, event_type => 'b', body => 'null', created_at => '2024-02-01 00:00+00');
SELECT * FROM rf_append(:s1, 'c', '[]', headers => NULL, event_version => NULL, created_at => '2023-12-31 12:00-12', is_tombstone => NULL, allow_archived => NULL);
SELECT * FROM rf_append(:s1, 'd', '"text"', created_at => '2024-02-29 12:00+00', expected_seq => 3);
SELECT global_seq AS g, stream_seq AS n, event_type AS t, body, headers, right(causation_id::text, 4) AS causation,
	right(correlation_id::text, 4) AS correlation, event_version AS v, tenant_id, user_id, is_tombstone AS tomb, created_at, bucket_month, retention_class AS class
FROM events ORDER BY 1;
SELECT * FROM checks.heads;

-- An append without a time has the transaction's.
BEGIN;
SELECT * FROM rf_append(:s2, 'now', '{}');
SELECT created_at = now() AS now, bucket_month = date_trunc('month', now() AT TIME ZONE 'UTC') AS month, tableoid <> 'events_hot_default'::regclass AS in_month
FROM events WHERE event_type = 'now';
ROLLBACK;
SELECT count(*) FROM rf_streams WHERE stream_id = :s2;

-- The expected head: any, none yet, exactly.
SELECT * FROM rf_append(:s2, 'a', '{}', expected_seq => 1, created_at => '2024-01-01 00:00+00');
\echo :SQLSTATE
SELECT * FROM rf_append(:s2, 'a', '{}', expected_seq => 0, created_at => '2024-01-01 00:00+00');
SELECT * FROM rf_append(:s2, 'b', '{}', expected_seq => 0);
\echo :SQLSTATE
SELECT * FROM rf_append(:s2, 'b', '{}', expected_seq => 2);
\echo :SQLSTATE
SELECT * FROM rf_append(:s2, 'b', '{}', expected_seq => 1, created_at => '2024-01-02 00:00+00');
SELECT * FROM checks.heads ORDER BY 1;

-- A stream that the application has made before, with its tenant.
INSERT INTO rf_streams (stream_id, tenant_id) VALUES (:s3, 'blue');
SELECT * FROM rf_append(:s3, 'a', '{}', expected_seq => 0, created_at => '2024-01-05 00:00+00');
SELECT stream_seq, retention_class FROM events WHERE stream_id = :s3;

-- Bad arguments, and events that can't be.
SELECT checks.try($$SELECT rf_append(NULL, 'a', '{}')$$);
SELECT checks.try($$SELECT rf_append(gen_random_uuid(), NULL, '{}')$$);
SELECT checks.try($$SELECT rf_append(gen_random_uuid(), '', '{}')$$);
SELECT checks.try($$SELECT rf_append(gen_random_uuid(), 'a', NULL)$$);
SELECT checks.try($$SELECT rf_append(gen_random_uuid(), 'a', '{}', '[]')$$);
SELECT checks.try($$SELECT rf_append(gen_random_uuid(), 'a', '{}', '"x"')$$);
SELECT checks.try($$SELECT rf_append(gen_random_uuid(), 'a', '{}', expected_seq => -1)$$);
SELECT checks.try($$SELECT rf_append(gen_random_uuid(), 'a', '{}', created_at => 'infinity')$$);
SELECT checks.try($$SELECT rf_append(gen_random_uuid(), 'a', '{}', created_at => '-infinity')$$);
SELECT checks.try($$SELECT rf_append(gen_random_uuid(), 'a', '{}', tenant => 'nobody')$$);
SELECT checks.try($$SELECT rf_append(gen_random_uuid(), 'a', '{}', tenant => '')$$);
SELECT checks.try($$SELECT rf_append(gen_random_uuid(), 'a', '{}', tenant => '*')$$);
SELECT * FROM check_keep();

--
-- rf_append_batch()
--
SELECT * FROM rf_append_batch(:s4, '[{"type": "a", "body": {"n": 1}, "created_at": "2024-03-01T00:00:00Z"},
	{"type": "b", "body": null, "headers": {"k": "v"}, "causation_id": "00000000-0000-0000-0000-00000000000a",
	 "correlation_id": "00000000-0000-0000-0000-00000000000b", "version": 3, "user_id": "me", "created_at": "2024-02-01T00:00:00+01",
	 "is_tombstone": true},
	{"type": "c", "body": [1], "headers": null, "causation_id": null, "correlation_id": null, "version": null, "user_id": null,
	 "created_at": "2024-04-01T00:00:00Z", "is_tombstone": null}]');
SELECT stream_seq AS n, event_type AS t, body, headers, right(causation_id::text, 4) AS causation,
	right(correlation_id::text, 4) AS correlation, event_version AS v, user_id, is_tombstone AS tomb, created_at, bucket_month
FROM events WHERE stream_id = :s4 ORDER BY 1;
SELECT * FROM checks.heads WHERE stream = '0004';
SELECT * FROM rf_append_batch(:s4, '[{"type": "d", "body": {}, "created_at": "2024-03-02T00:00:00Z"}]', 3);
SELECT * FROM rf_append_batch(:s4, '[{"type": "e", "body": {}}]', expected_seq => 3);
\echo :SQLSTATE
SELECT * FROM rf_append_batch(:s5, '[{"type": "e", "body": {}}]', expected_seq => 1);
\echo :SQLSTATE
SELECT * FROM rf_append_batch(events => '[{"type": "a", "body": {}, "created_at": "2024-03-02T00:00:00Z"}]', stream_id => :s5, expected_seq => 0, allow_archived => NULL, tenant => NULL);
-- All or none.
SELECT * FROM rf_append_batch(:s5, '[{"type": "b", "body": {}}, {"type": "", "body": {}}]');
\echo :SQLSTATE
SELECT checks.try(format('SELECT rf_append_batch(gen_random_uuid(), %L)', events)) AS outcome, events
FROM unnest(ARRAY[NULL, '[]', '{}', '"x"', '1', 'null', '[1]', '[null]', '["type"]', '[[]]', '[{}]', '[{"type": "a"}]', '[{"body": {}}]',
	'[{"type": "a", "body": {}}, 7]', '[{"type": "a", "body": {}, "Type": 1}]', '[{"type": "a", "body": {}, "stream_seq": 1}]',
	'[{"type": "a", "body": {}, "headers": []}]', '[{"type": "a", "body": {}, "causation_id": "x"}]', '[{"type": "a", "body": {}, "version": "x"}]',
	'[{"type": "a", "body": {}, "version": 2147483648}]', '[{"type": "a", "body": {}, "is_tombstone": "maybe"}]',
	'[{"type": "a", "body": {}, "created_at": "soon"}]', '[{"type": "a", "body": {}, "created_at": "infinity"}]',
	'[{"type": "a", "body": {}, "created_at": "-infinity"}]', '[{"type": null, "body": {}}]']) AS events;
SELECT checks.try($$SELECT rf_append_batch(NULL, '[{"type": "a", "body": {}}]')$$);
SELECT checks.try($$SELECT rf_append_batch(gen_random_uuid(), '[{"type": "a", "body": {}}]', -1)$$);
-- Many at once.
SELECT count(*), min(stream_seq), max(stream_seq), max(global_seq) - min(global_seq) AS span
FROM rf_append_batch(:s6, (SELECT jsonb_agg(jsonb_build_object('type', 't' || n, 'body', n, 'created_at', '2024-01-01T00:00:00Z'::timestamptz + n * interval '1 hour')) FROM generate_series(1, 2000) AS n));
SELECT bool_and(event_type = 't' || stream_seq) AS in_order FROM events WHERE stream_id = :s6;
SELECT events, broken_streams FROM check_union('store');

--
-- Raw INSERT
--

-- The statements that an application sends that knows nothing of the store, as they stand.
PREPARE stream_state (uuid) AS select archived_at, retention_class, tenant_id from rf_streams where stream_id = $1;
PREPARE new_stream (uuid, text) AS insert into rf_streams (stream_id, tenant_id) values ($1,$2) on conflict (stream_id) do nothing;
PREPARE highest (uuid) AS select max(stream_seq) from events where stream_id = $1;
PREPARE add_event (uuid, int, text, jsonb, jsonb, uuid, uuid) AS
	insert into events (stream_id, stream_seq, event_type, body, headers, causation_id, correlation_id, event_version, user_id) values ($1, $2, $3, $4, $5, $6, $7, 1, current_user);
BEGIN;
EXECUTE stream_state (:s7);
EXECUTE new_stream (:s7, 'green');
EXECUTE highest (:s7);
EXECUTE add_event (:s7, 1, 'opened', '{"n": 1}', '{}', NULL, NULL);
COMMIT;
BEGIN;
EXECUTE stream_state (:s7);
EXECUTE new_stream (:s7, 'green');
EXECUTE highest (:s7);
EXECUTE add_event (:s7, 2, 'changed', '{"n": 2}', '{}', NULL, NULL);
EXECUTE add_event (:s7, 3, 'changed', '{"n": 3}', '{}', NULL, NULL);
COMMIT;
EXECUTE stream_state (:s7);
-- Two that read the same maximum: one of them is too late. (The index that says so is named after the current month.)
\set VERBOSITY sqlstate
EXECUTE add_event (:s7, 3, 'changed', '{"n": 3}', '{}', NULL, NULL);
\set VERBOSITY default
SELECT stream, last_seq FROM checks.heads WHERE stream = '0007';
-- While all its events are hot, or some are, it works, and once all are cold, the application is told.
SELECT events_moved FROM rf_archive_move('infinity', stream_id => :s7);
SELECT count(*) FILTER (WHERE stream_id = :s7) AS of_stream, count(*) > 0 AS any FROM events;
BEGIN;
EXECUTE stream_state (:s7) \g /dev/null
EXECUTE new_stream (:s7, 'green');
EXECUTE highest (:s7);
EXECUTE add_event (:s7, 1, 'changed', '{"n": 1}', '{}', NULL, NULL);
\echo :SQLSTATE
ROLLBACK;
SELECT stream, last_seq, archived_by FROM checks.heads WHERE stream = '0007';
EXECUTE add_event (:s7, 4, 'changed', '{"n": 4}', '{}', NULL, NULL);
EXECUTE highest (:s7);
EXECUTE add_event (:s7, 5, 'changed', '{"n": 5}', '{}', NULL, NULL);
SELECT stream, last_seq, archived_by FROM checks.heads WHERE stream = '0007';
SELECT stream_seq, retention_class FROM events_all WHERE stream_id = :s7 ORDER BY 1;
DEALLOCATE ALL;

-- The numbers: left out, right, low, high, senseless.
INSERT INTO events (stream_id, event_type, body) VALUES (:s8, 'a', '{}') RETURNING stream_seq;
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (:s8, NULL, 'b', '{}') RETURNING stream_seq;
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (:s8, 3, 'c', '{}') RETURNING stream_seq;
\set VERBOSITY sqlstate
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (:s8, 3, 'again', '{}');
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (:s8, 1, 'again', '{}');
\set VERBOSITY default
INSERT INTO events (stream_id, stream_seq, event_type, body, created_at, bucket_month) VALUES (:s8, 1, 'elsewhere', '{}', '2024-01-01', '2024-01-01');
\echo :SQLSTATE
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (:s8, 5, 'gap', '{}');
\echo :SQLSTATE
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (:s8, 0, 'zero', '{}');
\echo :SQLSTATE
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (:s8, -1, 'minus', '{}');
\echo :SQLSTATE
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (:s8, 2147483647, 'highest', '{}');
\echo :SQLSTATE
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES ('00000000-0000-0000-0000-0000000000ff', 2, 'gap', '{}');
\echo :SQLSTATE
SELECT count(*) FROM rf_streams WHERE stream_id = '00000000-0000-0000-0000-0000000000ff';
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (NULL, 1, 'x', '{}');
\echo :SQLSTATE
INSERT INTO events (stream_id, event_type, body, created_at) VALUES (:s8, 'x', '{}', NULL);
\echo :SQLSTATE
INSERT INTO events (stream_id, event_type, body, headers) VALUES (:s8, 'x', '{}', NULL);
\echo :SQLSTATE
SELECT stream, last_seq FROM checks.heads WHERE stream = '0008';

-- A time of another month needs its bucket_month.
INSERT INTO events (stream_id, event_type, body, created_at) VALUES (:s8, 'x', '{}', '2024-02-29 23:59:59+00');
\echo :SQLSTATE
INSERT INTO events (stream_id, event_type, body, created_at, bucket_month) VALUES (:s8, 'x', '{}', '2024-02-29 23:59:59+00', '2024-02-01');
INSERT INTO events (stream_id, event_type, body, created_at, bucket_month) VALUES (:s8, 'x', '{}', '2024-02-29 23:59:59-01', '2024-02-01');
\echo :SQLSTATE
INSERT INTO events (stream_id, event_type, body, created_at, bucket_month) VALUES (:s8, 'x', '{}', '2024-02-29 23:59:59+00', '2024-02-29');
\echo :SQLSTATE
INSERT INTO events (stream_id, event_type, body, created_at, bucket_month) VALUES (:s8, 'x', '{}', 'infinity', 'infinity');
\echo :SQLSTATE
INSERT INTO events (stream_id, event_type, body, created_at, bucket_month) VALUES (:s8, 'x', '{}', '0044-03-15 00:00+00 BC', '0044-03-01 BC') RETURNING stream_seq, bucket_month, tableoid::regclass;
INSERT INTO events (stream_id, event_type, body, created_at, bucket_month) VALUES (:s8, 'x', '{}', '294276-12-31 00:00+00', '294276-12-01') RETURNING stream_seq, bucket_month, tableoid::regclass;
SELECT * FROM checks.heads WHERE stream = '0008';

-- Several rows, several streams, several months in one statement; numbers given, or not, or both.
SELECT rf_create_partition('hot', '2024-01-01');
SELECT rf_create_partition('hot', '2024-03-01');
INSERT INTO events (stream_id, event_type, body, created_at, bucket_month)
SELECT ('00000000-0000-0000-0001-' || lpad((n % 7)::text, 12, '0'))::uuid, 'e' || n, to_jsonb(n), t, date_trunc('month', t AT TIME ZONE 'UTC')
FROM generate_series(1, 700) AS n, LATERAL (SELECT '2024-01-01 00:00+00'::timestamptz + (n * 37 % 100) * interval '1 day') AS x(t);
SELECT count(DISTINCT tableoid) AS leaves, count(*) FROM events WHERE stream_id::text LIKE '00000000-0000-0000-0001-%';
SELECT stream_id::text LIKE '%-0001-%' AS mine, count(*), min(last_seq), max(last_seq) FROM rf_streams GROUP BY 1 HAVING stream_id::text LIKE '%-0001-%' IS NOT NULL ORDER BY 1;
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES
	(:s9, 1, 'a', '{}'), (:s9, NULL, 'b', '{}'), ('00000000-0000-0000-0000-00000000000a', 1, 'a', '{}'), (:s9, 3, 'c', '{}'),
	('00000000-0000-0000-0000-00000000000a', NULL, 'b', '{}'), (:s9, NULL, 'd', '{}')
RETURNING right(stream_id::text, 4) AS stream, stream_seq, event_type;
-- In row order; a gap, or a number twice, and none of them is there.
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (:s9, 6, 'f', '{}'), (:s9, 5, 'e', '{}');
\echo :SQLSTATE
\set VERBOSITY sqlstate
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (:s9, 5, 'e', '{}'), (:s9, 5, 'e', '{}');
\set VERBOSITY default
INSERT INTO events (stream_id, stream_seq, event_type, body, created_at, bucket_month) VALUES
	(:s9, 5, 'e', '{}', '2024-01-01', '2024-01-01'), (:s9, 5, 'e', '{}', '2024-03-01', '2024-03-01');
\echo :SQLSTATE
-- The number stands in another month than the one that is given.
INSERT INTO events (stream_id, stream_seq, event_type, body, created_at, bucket_month) VALUES (:s9, 2, 'e', '{}', '2024-01-01', '2024-01-01');
\echo :SQLSTATE
SELECT stream, last_seq FROM checks.heads WHERE stream IN ('0009', '000a') ORDER BY 1;
SELECT events, broken_streams FROM check_union('store');

-- COPY, with numbers and without.
COPY events (stream_id, stream_seq, event_type, body) FROM stdin;
00000000-0000-0000-0000-00000000000b	1	a	{}
00000000-0000-0000-0000-00000000000c	1	a	{}
00000000-0000-0000-0000-00000000000b	2	b	{}
\.
COPY events (stream_id, event_type, body) FROM stdin;
00000000-0000-0000-0000-00000000000b	c	{}
00000000-0000-0000-0000-00000000000c	b	{}
\.
COPY events (stream_id, stream_seq, event_type, body) FROM stdin;
00000000-0000-0000-0000-00000000000b	5	e	{}
\.
SELECT stream, last_seq FROM checks.heads WHERE stream IN ('000b', '000c') ORDER BY 1;

-- An empty statement, and one without a row.
INSERT INTO events (stream_id, event_type, body) SELECT :s9::uuid, 'x', '{}' WHERE false;
CREATE TABLE checks.source (stream_id uuid, event_type text, body jsonb);
INSERT INTO events (stream_id, event_type, body) TABLE checks.source;

-- ON CONFLICT.
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (:s9, 4, 'again', '{}') ON CONFLICT DO NOTHING RETURNING stream_seq;
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (:s9, 4, 'again', '{}'), (:s9, 5, 'e', '{}'), (:s9, 5, 'again', '{}'), (:s9, 6, 'f', '{}')
ON CONFLICT DO NOTHING RETURNING stream_seq, event_type;
-- (no index stands on the parent, so that none can be named)
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (:s9, 4, 'again', '{}') ON CONFLICT (stream_id, stream_seq) DO NOTHING;
\echo :SQLSTATE
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (:s9, 4, 'again', '{}') ON CONFLICT (stream_id, stream_seq) DO UPDATE SET body = '[]';
\echo :SQLSTATE
-- A number of the stream that another month holds is an error, and so is a new number that meets a used global_seq.
INSERT INTO events (stream_id, stream_seq, event_type, body, created_at, bucket_month) VALUES (:s9, 4, 'again', '{}', '2024-01-01', '2024-01-01') ON CONFLICT DO NOTHING;
\echo :SQLSTATE
INSERT INTO events (global_seq, stream_id, stream_seq, event_type, body) SELECT max(global_seq), :s9, 7, 'again', '{}' FROM events WHERE stream_id = :s9 ON CONFLICT DO NOTHING;
\echo :SQLSTATE
\set VERBOSITY sqlstate
INSERT INTO events (global_seq, stream_id, stream_seq, event_type, body) SELECT max(global_seq), :s9, 7, 'again', '{}' FROM events WHERE stream_id = :s9;
\set VERBOSITY default
SELECT stream, last_seq FROM checks.heads WHERE stream = '0009';
SELECT stream_seq, event_type FROM events WHERE stream_id = :s9 ORDER BY 1;
SELECT events, broken_streams FROM check_union('store');

-- A trigger of the user that skips rows: before ours it is asked first, after ours it would make a gap.
CREATE FUNCTION checks.skip () RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.event_type = 'skipped' THEN RETURN NULL; END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER aaa_skip BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION checks.skip();
INSERT INTO events (stream_id, event_type, body) VALUES (:s9, 'skipped', '{}'), (:s9, 'g', '{}'), (:s9, 'skipped', '{}') RETURNING stream_seq, event_type;
SELECT * FROM rf_append(:s9, 'skipped', '{}');
\echo :SQLSTATE
SELECT * FROM rf_append_batch(:s9, '[{"type": "h", "body": {}}, {"type": "skipped", "body": {}}]');
\echo :SQLSTATE
DROP TRIGGER aaa_skip ON events;
CREATE TRIGGER zzz_skip BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION checks.skip();
INSERT INTO events (stream_id, event_type, body) VALUES (:s9, 'h', '{}'), (:s9, 'skipped', '{}'), (:s9, 'i', '{}');
\echo :SQLSTATE
INSERT INTO events (stream_id, event_type, body) VALUES (:s9, 'h', '{}'), (:s9, 'skipped', '{}');
\echo :SQLSTATE
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (:s9, 8, 'skipped', '{}');
\echo :SQLSTATE
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES ('00000000-0000-0000-0000-0000000000fe', 1, 'skipped', '{}');
\echo :SQLSTATE
SELECT * FROM rf_append(:s9, 'skipped', '{}');
\echo :SQLSTATE
INSERT INTO events (stream_id, event_type, body) VALUES (:s9, 'h', '{}') RETURNING stream_seq;
DROP TRIGGER zzz_skip ON events;
-- One that changes what ours has looked at.
CREATE FUNCTION checks.change () RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NEW.stream_seq := NEW.stream_seq + 100;
	RETURN NEW;
END $$;
CREATE TRIGGER zzz_change BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION checks.change();
INSERT INTO events (stream_id, event_type, body) VALUES (:s9, 'i', '{}');
\echo :SQLSTATE
CREATE OR REPLACE FUNCTION checks.change () RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NEW.stream_id := '00000000-0000-0000-0000-0000000000fd';
	RETURN NEW;
END $$;
INSERT INTO events (stream_id, event_type, body) VALUES (:s9, 'i', '{}');
\echo :SQLSTATE
DROP TRIGGER zzz_change ON events;
DROP FUNCTION checks.change(), checks.skip();
SELECT events, broken_streams FROM check_union('store');

-- Savepoints: what is rolled back gives its numbers back.
BEGIN;
INSERT INTO events (stream_id, event_type, body) VALUES (:s1, 'kept', '{}') RETURNING stream_seq;
SAVEPOINT one;
INSERT INTO events (stream_id, event_type, body) VALUES (:s1, 'undone', '{}'), (:s1, 'undone', '{}') RETURNING stream_seq;
SELECT stream_seq FROM rf_append(:s1, 'undone', '{}');
SAVEPOINT two;
INSERT INTO events (stream_id, event_type, body) VALUES (:s1, 'undone', '{}') RETURNING stream_seq;
ROLLBACK TO two;
SELECT stream_seq FROM rf_append(:s1, 'undone', '{}', expected_seq => 8);
ROLLBACK TO one;
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (:s1, 7, 'gap', '{}');
\echo :SQLSTATE
ROLLBACK TO one;
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (:s1, 6, 'kept', '{}') RETURNING stream_seq;
SAVEPOINT three;
SELECT stream_seq FROM rf_append_batch(:s1, '[{"type": "kept", "body": {}}, {"type": "kept", "body": {}}]');
RELEASE three;
COMMIT;
SELECT stream, last_seq FROM checks.heads WHERE stream = '0001';
SELECT events, broken_streams FROM check_union('store');

-- Functions that append, called by a statement that appends; before, between and after its own rows, rolled back within or not.
CREATE FUNCTION checks.nested (stream uuid, how text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	n int;
BEGIN
	IF how LIKE 'append%' THEN
		SELECT stream_seq INTO n FROM rf_append(stream, 'inner ' || how, '{}');
	ELSE
		INSERT INTO events (stream_id, event_type, body) VALUES (stream, 'inner ' || how, '{}') RETURNING stream_seq INTO n;
	END IF;
	IF how LIKE '%fails' THEN RAISE division_by_zero; END IF;
	RETURN how || ' ' || n;
END $$;
CREATE FUNCTION checks.tried (stream uuid, how text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN checks.nested(stream, how);
EXCEPTION WHEN division_by_zero THEN
	RETURN how || ', undone';
END $$;
\set t1 '''00000000-0000-0000-0002-000000000001'''
\set t2 '''00000000-0000-0000-0002-000000000002'''
INSERT INTO events (stream_id, event_type, body)
SELECT stream::uuid, checks.nested(inner_stream::uuid, how), '{}'
FROM (VALUES (:t1, :t1, 'insert'), (:t1, :t1, 'append'), (:t1, :t2, 'insert'), (:t2, :t1, 'append'), (:t2, :t2, 'append'), (:t1, :t1, 'insert')) AS v(stream, inner_stream, how);
SELECT right(stream_id::text, 1) AS s, stream_seq, event_type FROM events WHERE stream_id IN (:t1, :t2) ORDER BY 1, 2;
SELECT right(stream_id::text, 1) AS s, last_seq FROM rf_streams WHERE stream_id IN (:t1, :t2) ORDER BY 1;
SELECT events, broken_streams FROM check_union('store');
\set t3 '''00000000-0000-0000-0002-000000000003'''
\set t4 '''00000000-0000-0000-0002-000000000004'''
INSERT INTO events (stream_id, event_type, body)
SELECT stream::uuid, checks.tried(inner_stream::uuid, how), '{}'
FROM (VALUES (:t3, :t3, 'insert fails'), (:t3, :t3, 'append fails'), (:t3, :t4, 'insert'), (:t4, :t3, 'insert fails'), (:t4, :t4, 'append'),
	(:t3, :t4, 'append fails'), (:t3, :t3, 'append'), (:t4, :t4, 'insert fails'), (:t4, :t3, 'insert')) AS v(stream, inner_stream, how);
SELECT right(stream_id::text, 1) AS s, stream_seq, event_type FROM events WHERE stream_id IN (:t3, :t4) ORDER BY 1, 2;
SELECT right(stream_id::text, 1) AS s, last_seq FROM rf_streams WHERE stream_id IN (:t3, :t4) ORDER BY 1;
SELECT events, broken_streams FROM check_union('store');
-- The same with the whole statement undone.
DO $$
BEGIN
	BEGIN
		INSERT INTO events (stream_id, event_type, body)
		SELECT ('00000000-0000-0000-0002-00000000000' || n)::uuid, checks.tried(('00000000-0000-0000-0002-00000000000' || n)::uuid, how), '{}'
		FROM generate_series(3, 5) AS n, unnest(ARRAY['insert', 'insert fails', 'append fails', 'append']) AS how;
		PERFORM 1 / 0;
	EXCEPTION WHEN division_by_zero THEN
		PERFORM rf_append('00000000-0000-0000-0002-000000000005', 'after', '{}', expected_seq => 0);
		INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES ('00000000-0000-0000-0002-000000000005', 2, 'after', '{}');
	END;
END $$;
SELECT right(stream_id::text, 1) AS s, last_seq FROM rf_streams WHERE stream_id::text LIKE '%-0002-%' ORDER BY 1;
SELECT events, broken_streams FROM check_union('store');
-- An explicit number that an inner append has taken in the meantime; nothing of the statement stays.
\set VERBOSITY sqlstate
INSERT INTO events (stream_id, stream_seq, event_type, body)
SELECT :t1::uuid, n, checks.nested(:t1, 'append'), '{}' FROM generate_series(9, 10) AS n;
\set VERBOSITY default
SELECT last_seq FROM rf_streams WHERE stream_id = :t1;
-- In a WITH, in a trigger of the application, in a default, from RETURNING.
WITH first AS (INSERT INTO events (stream_id, event_type, body) VALUES (:t1, 'with', '{}') RETURNING stream_seq)
INSERT INTO events (stream_id, event_type, body) SELECT :t1, 'after ' || stream_seq, '{}' FROM first RETURNING stream_seq, event_type;
INSERT INTO events (stream_id, event_type, body) VALUES (:t1, 'returning', '{}') RETURNING stream_seq, checks.nested(:t1, 'insert');
CREATE FUNCTION checks.echo () RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.event_type = 'echo me' THEN PERFORM rf_append(NEW.stream_id, 'echo of ' || coalesce(NEW.stream_seq::text, 'none'), '{}'); END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER aaa_echo BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION checks.echo();
INSERT INTO events (stream_id, event_type, body) VALUES (:t1, 'echo me', '{}'), (:t1, 'not me', '{}') RETURNING stream_seq, event_type;
DROP TRIGGER aaa_echo ON events;
CREATE TRIGGER zzz_echo AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION checks.echo();
INSERT INTO events (stream_id, event_type, body) VALUES (:t1, 'echo me', '{}'), (:t1, 'echo me', '{}') RETURNING stream_seq, event_type;
DROP TRIGGER zzz_echo ON events;
DROP FUNCTION checks.echo();
SELECT stream_seq, event_type FROM events WHERE stream_id = :t1 AND stream_seq > 8 ORDER BY 1;
SELECT events, broken_streams FROM check_union('store');

-- At a stream's last number there is no next one.
BEGIN;
UPDATE rf_streams SET last_seq = 2147483646 WHERE stream_id = :t2;
INSERT INTO events (stream_id, event_type, body) VALUES (:t2, 'last', '{}') RETURNING stream_seq;
SAVEPOINT one;
INSERT INTO events (stream_id, event_type, body) VALUES (:t2, 'one more', '{}') RETURNING stream_seq;
\echo :SQLSTATE
ROLLBACK TO one;
SELECT * FROM rf_append(:t2, 'one more', '{}');
\echo :SQLSTATE
ROLLBACK;

-- In a transaction that may not write.
BEGIN READ ONLY;
SELECT * FROM rf_append(:t2, 'x', '{}');
\echo :SQLSTATE
ROLLBACK;

-- Numbers go on after a move and after a reactivation, by every way to append; a fresh maximum is never needed.
SELECT * FROM check_keep();
SELECT events_moved > 0 AS moved FROM rf_archive_move('infinity');
SELECT count(*) AS hot FROM events;
SELECT * FROM check_same();
SELECT stream_seq FROM rf_append(:s2, 'moved', '{}', expected_seq => 2);
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (:s2, 4, 'moved', '{}');
INSERT INTO events (stream_id, event_type, body) VALUES (:s2, 'moved', '{}') RETURNING stream_seq;
SELECT * FROM rf_append(:s2, 'moved', '{}', expected_seq => 0);
\echo :SQLSTATE
SELECT last_seq, archived_at FROM rf_archive_reactivate(:s2);
SELECT stream_seq FROM rf_append(:s2, 'back', '{}', expected_seq => 5);
INSERT INTO events (stream_id, event_type, body) VALUES (:s2, 'back', '{}') RETURNING stream_seq;
SELECT stream_seq, event_type, retention_class FROM events WHERE stream_id = :s2 ORDER BY 1;
SELECT events, broken_streams FROM check_union('store');
