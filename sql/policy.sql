-- Policies: what they take for arguments, when they are due at a time that is handed in, and where they act. Nothing runs here: no launcher is there.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
\set ECHO all

CREATE ROLE regress_rillflow_owner LOGIN;
CREATE ROLE regress_rillflow_other LOGIN;
SET TimeZone = 'UTC';

-- Set, with the defaults and without.
SELECT rf_policy_set('plain', older_than => '90 days');
SELECT rf_policy_set('all', '2 years', '10 minutes', 2000, '22:00', '04:30', 'Europe/Berlin', true, 6, '3 hours', '30 seconds', NULL);
SELECT name, owner = current_user AS own, older_than, every, batch_size, window_start, window_end, time_zone, only_archived, premake, max_runtime, max_replica_lag,
	run_requested_at, failures, paused_at, paused_because FROM rf_archive_policies ORDER BY name;
SELECT schema, policy, database = (SELECT oid FROM pg_database WHERE datname = current_database()) AS here FROM rf_armed ORDER BY policy;
SELECT action, detail FROM rf_archive_log WHERE action ~ 'polic' ORDER BY log_id;
SELECT schema, policy, state, failures, pid FROM rf_worker_status WHERE policy = 'plain';
SELECT DISTINCT detail FROM rf_worker_status WHERE state = 'due';

-- Bad input changes nothing.
SELECT call, checks.try(call) FROM unnest(ARRAY[
	$$SELECT rf_policy_set(NULL, '1 day')$$, $$SELECT rf_policy_set('', '1 day')$$, $$SELECT rf_policy_set(repeat('x', 64), '1 day')$$,
	$$SELECT rf_policy_set('plain', '1 day')$$,
	$$SELECT rf_policy_set('b', NULL)$$, $$SELECT rf_policy_set('b', '0')$$, $$SELECT rf_policy_set('b', '-1 day')$$, $$SELECT rf_policy_set('b', '1 month -31 days')$$,
	$$SELECT rf_policy_set('b', '1001 years')$$,
	$$SELECT rf_policy_set('b', '1 day', every => '0')$$, $$SELECT rf_policy_set('b', '1 day', every => '-1 s')$$, $$SELECT rf_policy_set('b', '1 day', every => NULL)$$,
	$$SELECT rf_policy_set('b', '1 day', every => '999 ms')$$, $$SELECT rf_policy_set('b', '1 day', every => '293000 years')$$,
	$$SELECT rf_policy_set('b', '1 day', batch_size => 0)$$, $$SELECT rf_policy_set('b', '1 day', batch_size => 100001)$$,
	$$SELECT rf_policy_set('b', '1 day', window_start => '01:00')$$, $$SELECT rf_policy_set('b', '1 day', window_end => '01:00')$$,
	$$SELECT rf_policy_set('b', '1 day', window_start => '01:00', window_end => '01:00')$$,
	$$SELECT rf_policy_set('b', '1 day', time_zone => 'Nowhere/Land')$$, $$SELECT rf_policy_set('b', '1 day', time_zone => NULL)$$,
	$$SELECT rf_policy_set('b', '1 day', only_archived => NULL)$$,
	$$SELECT rf_policy_set('b', '1 day', premake => -1)$$, $$SELECT rf_policy_set('b', '1 day', premake => 121)$$, $$SELECT rf_policy_set('b', '1 day', premake => NULL)$$,
	$$SELECT rf_policy_set('b', '1 day', max_runtime => '0')$$, $$SELECT rf_policy_set('b', '1 day', max_runtime => NULL)$$,
	$$SELECT rf_policy_set('b', '1 day', max_replica_lag => '0')$$,
	$$SELECT rf_policy_set('b', '1 day', tenant => 'nobody')$$, $$SELECT rf_policy_set('b', '1 day', tenant => '*')$$,
	$$SELECT rf_policy_remove('b')$$, $$SELECT rf_policy_remove(NULL)$$, $$SELECT rf_policy_pause('b')$$, $$SELECT rf_policy_resume('b')$$, $$SELECT rf_policy_run('b')$$,
	$$SELECT rf_policy_run('plain')$$, $$SELECT rf_policy_arm('nobody')$$,
	$$SELECT rf_policy_due(NULL)$$, $$SELECT rf_policy_due('infinity')$$,
	$$SET LOCAL transaction_read_only = on; SELECT rf_policy_set('b', '1 day')$$, $$SET LOCAL transaction_read_only = on; SELECT rf_policy_run('plain')$$,
	$$SET LOCAL transaction_read_only = on; SELECT rf_policy_arm()$$, $$SET LOCAL transaction_read_only = on; SELECT rf_worker_start()$$,
	$$UPDATE rf_archive_policies SET every = '-1 s'$$, $$UPDATE rf_archive_policies SET older_than = '0'$$, $$UPDATE rf_archive_policies SET window_end = NULL$$,
	$$UPDATE rf_archive_policies SET time_zone = 'Mars/One'$$, $$UPDATE rf_archive_policies SET max_runtime = '1001 years'$$,
	$$UPDATE rf_archive_policies SET premake = 121$$, $$UPDATE rf_archive_policies SET batch_size = 0$$, $$UPDATE rf_archive_policies SET failures = -1$$,
	$$UPDATE rf_archive_policies SET max_replica_lag = '0'$$, $$UPDATE rf_archive_policies SET window_start = window_end$$]) AS call;
SELECT count(*) AS policies FROM rf_archive_policies;

-- Due: at once when it never ran; then every so often, from when the last run began. Runs of an earlier policy of that name don't count.
SELECT rf_policy_remove('all');
INSERT INTO rf_archive_runs (policy, started_at, finished_at) VALUES ('plain', '2026-01-15 11:59+00', '2026-01-15 11:59+00');
SELECT * FROM rf_policy_due('2026-01-15 12:00+00');
TRUNCATE rf_archive_runs;
UPDATE rf_archive_policies SET created_at = '2026-01-01';
SELECT * FROM rf_policy_due('2026-01-15 12:00+00');
INSERT INTO rf_archive_runs (policy, started_at, finished_at) VALUES ('plain', '2026-01-15 10:00+00', '2026-01-15 10:20+00'), ('plain', '2026-01-15 11:30+00', '2026-01-15 11:31+00');
SELECT * FROM unnest(ARRAY['2026-01-15 11:30+00', '2026-01-15 12:29:59.999999+00', '2026-01-15 12:30+00', '2026-01-16 00:00+00']::timestamptz[]) AS at, rf_policy_due(at);
-- another policy's runs are not its own
INSERT INTO rf_archive_runs (policy, started_at) VALUES ('other', '2026-01-15 12:29+00');
SELECT * FROM rf_policy_due('2026-01-15 12:30+00');
-- who asks for a run need not wait
UPDATE rf_archive_policies SET run_requested_at = '2026-01-15 11:32+00';
SELECT * FROM rf_policy_due('2026-01-15 11:32+00');
UPDATE rf_archive_policies SET run_requested_at = NULL;
-- after failures it waits for longer, an hour at most; never for less than every
CREATE FUNCTION checks.failing (many int, often interval) RETURNS TABLE (every interval, failures int, due boolean, due_at timestamptz, reason text) LANGUAGE plpgsql AS $$
BEGIN
	UPDATE store.rf_archive_policies AS p SET failures = many, every = often;
	RETURN QUERY SELECT often, many, d.due, d.due_at, d.reason FROM store.rf_policy_due('2026-01-15 11:34+00') AS d;
END $$;
SELECT f.* FROM unnest(ARRAY['1 second', '20 minutes', '1 day']::interval[]) AS every, generate_series(1, 9) AS failures, checks.failing(failures, every) AS f;
UPDATE rf_archive_policies SET failures = 0, every = '1 hour';

-- Windows: the start is in it, the end is not; over midnight; in another time zone; when the clocks change.
CREATE FUNCTION checks.window_due (starts time, ends time, zone text, VARIADIC times timestamptz[]) RETURNS TABLE (at timestamptz, due boolean, due_at timestamptz, reason text) LANGUAGE plpgsql AS $$
BEGIN
	UPDATE store.rf_archive_policies SET window_start = starts, window_end = ends, time_zone = zone;
	RETURN QUERY SELECT t, d.due, d.due_at, d.reason FROM unnest(times) AS t, store.rf_policy_due(t) AS d;
END $$;
TRUNCATE rf_archive_runs;
SELECT * FROM checks.window_due('02:00', '04:00', 'UTC', '2026-01-15 00:00+00', '2026-01-15 01:59:59.999999+00', '2026-01-15 02:00+00', '2026-01-15 03:59:59.999999+00', '2026-01-15 04:00+00', '2026-12-31 23:59+00');
SELECT * FROM checks.window_due('22:00', '04:00', 'UTC', '2026-01-15 00:00+00', '2026-01-15 03:59:59+00', '2026-01-15 04:00+00', '2026-01-15 21:59:59+00', '2026-01-15 22:00+00', '2026-01-15 23:59:59+00');
SELECT * FROM checks.window_due('00:00', '24:00', 'UTC', '2026-01-15 00:00+00', '2026-01-15 23:59:59.999999+00');
SELECT * FROM checks.window_due('20:00', '00:00', 'UTC', '2026-01-15 00:00+00', '2026-01-15 19:59+00', '2026-01-15 20:00+00', '2026-01-15 23:59:59+00');
SELECT * FROM checks.window_due('22:00', '04:00', 'Asia/Tokyo', '2026-01-15 12:59+00', '2026-01-15 13:00+00', '2026-01-15 18:59+00', '2026-01-15 19:00+00');
SELECT * FROM checks.window_due('02:15', '02:45', 'Europe/Berlin', '2026-03-28 12:00+00', '2026-03-29 00:30+00', '2026-03-29 01:20+00', '2026-03-29 12:00+00', '2026-10-24 12:00+00', '2026-10-25 00:20+00', '2026-10-25 01:20+00');
-- its time comes outside of the window, and in it
INSERT INTO rf_archive_runs (policy, started_at, finished_at) VALUES ('plain', '2026-01-15 03:30+00', '2026-01-15 03:31+00');
SELECT * FROM checks.window_due('02:00', '04:00', 'UTC', '2026-01-15 03:40+00', '2026-01-15 04:30+00', '2026-01-16 02:00+00');
SELECT * FROM checks.window_due('02:00', '05:00', 'UTC', '2026-01-15 03:40+00', '2026-01-15 04:30+00', '2026-01-15 05:00+00');
-- asked for, it runs outside of its window
UPDATE rf_archive_policies SET run_requested_at = now();
SELECT * FROM rf_policy_due('2026-01-15 12:00+00');
UPDATE rf_archive_policies SET run_requested_at = NULL, window_start = NULL, window_end = NULL, time_zone = 'UTC';

-- Paused and resumed, by hand or after failures.
SELECT rf_policy_pause('plain');
SELECT policy, due, due_at, regexp_replace(reason, 'by .*', 'by somebody') AS reason FROM rf_policy_due('2026-06-15 12:00+00');
SELECT policy, state FROM rf_worker_status;
SELECT checks.try($$SELECT rf_policy_run('plain')$$) AS refused;
UPDATE rf_archive_policies SET failures = 5;
SELECT rf_policy_resume('plain');
SELECT policy, due, due_at, reason FROM rf_policy_due('2026-06-15 12:00+00');
SELECT failures, paused_at, paused_because, run_requested_at FROM rf_archive_policies;

-- A policy acts where it was set: not in a copy of the database, and not after a restore.
UPDATE rf_armed SET database = 1;
SELECT policy, due, due_at, reason FROM rf_policy_due('2026-06-15 12:00+00');
SELECT policy, state, detail FROM rf_worker_status;
SELECT checks.try($$SELECT rf_policy_run('plain')$$) AS refused;
SELECT rf_policy_set('new', '1 day');
SELECT policy, due, reason FROM rf_policy_due('2026-06-15 12:00+00') ORDER BY policy;
SELECT rf_policy_arm() AS armed, rf_policy_arm() AS again;
SELECT policy, due, reason FROM rf_policy_due('2026-06-15 12:00+00') ORDER BY policy;
TRUNCATE rf_armed;
SELECT rf_policy_arm(tenant => '*') AS armed;
SELECT action, detail FROM rf_archive_log WHERE action = 'policies armed' ORDER BY log_id;
-- one that is removed is armed no more
SELECT rf_policy_remove('new');
SELECT schema, policy FROM rf_armed;

-- Each store has policies of its own; a superuser sets them in the name of the owner.
CREATE SCHEMA second AUTHORIZATION regress_rillflow_owner;
GRANT USAGE ON SCHEMA store TO PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA store TO regress_rillflow_owner, regress_rillflow_other;
SET ROLE regress_rillflow_owner;
SELECT rf_install('second', tenant => 'two');
SELECT rf_policy_set('plain', '1 day', tenant => 'two');
RESET ROLE;
SELECT rf_policy_set('by superuser', '1 day', tenant => 'two');
SELECT name, owner FROM second.rf_archive_policies ORDER BY name;
SELECT schema, policy, due FROM rf_policy_due('2026-06-15 12:00+00', tenant => '*') ORDER BY 1, 2;
GRANT USAGE ON SCHEMA checks TO PUBLIC;
SET ROLE regress_rillflow_other;
SELECT call, checks.try(call) FROM unnest(ARRAY[$$SELECT rf_policy_set('x', '1 day')$$, $$SELECT rf_policy_set('x', '1 day', tenant => 'two')$$, $$SELECT rf_policy_remove('plain', 'two')$$,
	$$SELECT rf_policy_pause('plain', 'two')$$, $$SELECT rf_policy_run('plain', 'two')$$, $$SELECT rf_policy_arm('two')$$, $$SELECT rf_policy_due(now(), 'two')$$]) AS call;
SELECT count(*) AS seen FROM rf_worker_status;
SET ROLE regress_rillflow_owner;
SELECT schema, policy FROM rf_worker_status ORDER BY 1, 2;
SELECT checks.try($$SELECT rf_policy_set('x', '1 day')$$) AS not_his;
-- of the settings, he may change those of his session alone
SELECT name, checks.try(format('SET %I = %L', name, setting)) FROM pg_settings WHERE name ~ '^rillflow' ORDER BY name;
RESET ROLE;
-- policies of a store that is broken are shown all the same
ALTER TABLE second.rf_streams RENAME COLUMN last_seq TO last_number;
SELECT schema, policy, state FROM rf_worker_status ORDER BY 1, 2;
ALTER TABLE second.rf_archive_policies RENAME COLUMN every TO each;
SELECT schema, policy, state FROM rf_worker_status ORDER BY 1, 2;
-- a table that only looks like ours
DROP TABLE second.rf_archive_policies;
CREATE VIEW second.rf_archive_policies AS SELECT 1 / 0 AS name;
SELECT schema, policy, state FROM rf_worker_status ORDER BY 1, 2;

SET client_min_messages = warning;
DROP SCHEMA second CASCADE;
DROP OWNED BY regress_rillflow_owner, regress_rillflow_other;
DROP ROLE regress_rillflow_owner, regress_rillflow_other;
