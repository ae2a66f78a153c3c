-- Holds: what they keep from being dropped or redacted, and what they let pass.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
\set ECHO all

CREATE FUNCTION checks.id (n int) RETURNS uuid IMMUTABLE LANGUAGE sql AS $$ SELECT lpad(n::text, 32, '0')::uuid $$;
CREATE VIEW checks.holds AS SELECT stream_id, reason, held_at = now() AS now, held_by = session_user AS by_us FROM rf_holds ORDER BY hold_id;

CREATE SCHEMA other;
SELECT rf_install('other', 'other');
SELECT rf_create_partition(tier, month, tenant => tenant) FROM unnest(ARRAY[NULL, 'other']) AS tenant,
	unnest(ARRAY['hot', 'cold']) AS tier, unnest(ARRAY[date '2024-01-01', date '2024-02-01', date '2024-03-01']) AS month;
-- Stream 1 in January and February, stream 2 in February alone, stream 3 in January alone.
SELECT count(*) FROM unnest(ARRAY[NULL, 'other']) AS tenant, generate_series(1, 40) AS n,
	rf_append(checks.id(1), 'one', jsonb_build_object('n', n), created_at => timestamptz '2024-01-15 00:00+00' + n * interval '1 day', tenant => tenant);
SELECT count(*) FROM unnest(ARRAY[NULL, 'other']) AS tenant, generate_series(1, 10) AS n,
	rf_append(checks.id(2), 'two', jsonb_build_object('n', n), created_at => timestamptz '2024-02-05 00:00+00' + n * interval '1 day', tenant => tenant);
SELECT count(*) FROM unnest(ARRAY[NULL, 'other']) AS tenant, generate_series(1, 10) AS n,
	rf_append(checks.id(3), 'three', jsonb_build_object('n', n), jsonb_build_object('idempotency_key', 'k' || n), created_at => timestamptz '2024-01-05 00:00+00' + n * interval '1 day', tenant => tenant);
SELECT * FROM check_keep();
SELECT * FROM check_keep('other');

--
-- Placing and releasing
--
SELECT rf_hold(checks.id(2), 'case 1');
SELECT rf_hold(checks.id(2), 'case 1');
SELECT rf_hold(stream_id => checks.id(2), reason => 'case 2');
SELECT * FROM checks.holds;
-- Who does not say which one must have one only.
SELECT rf_release(checks.id(2));
\echo :SQLSTATE
SELECT rf_release(checks.id(2), 'case 3');
\echo :SQLSTATE
SELECT rf_release(checks.id(2), 'case 1');
SELECT rf_release(checks.id(2));
SELECT rf_release(checks.id(2));
\echo :SQLSTATE
SELECT rf_release();
\echo :SQLSTATE
SELECT count(*) FROM rf_holds;
SELECT actor = session_user AS own, action, stream_id, streams, detail FROM rf_archive_log WHERE action IN ('hold', 'release') ORDER BY log_id;

--
-- A stream on hold
--
SELECT rf_hold(checks.id(2), 'case 1');
-- is not redacted, neither one event nor all,
SELECT checks.try(call) FROM unnest(ARRAY['SELECT rf_redact(checks.id(2), reason => ''r'')', 'SELECT rf_redact(checks.id(2), 3, ''r'')', 'SELECT rf_redact(checks.id(2), 33, ''r'')']) AS call;
SELECT rf_redact(checks.id(2), reason => 'r');
-- nor is a month dropped that has an event of it, hot or cold, forced or not;
SELECT force, checks.try(format('SELECT rf_drop_partition(''hot'', ''2024-02-01'', %L)', force)) FROM unnest(ARRAY[false, true]) AS force;
SELECT rf_flip_partition('2024-02-01', 'cold');
SELECT force, checks.try(format('SELECT rf_drop_partition(''cold'', ''2024-02-01'', %L)', force)) FROM unnest(ARRAY[false, true]) AS force;
SELECT rf_flip_partition('2024-02-01', 'hot');
SELECT rf_create_partition('cold', '2024-02-01');
-- it moves, comes back, flips, is marked and appended to as ever.
SELECT events_moved FROM rf_archive_move('2024-03-01', stream_id => checks.id(2));
SELECT retention_class, count(*) FROM events_all WHERE stream_id = checks.id(2) GROUP BY 1;
SELECT checks.try('SELECT rf_drop_partition(''cold'', ''2024-02-01'', true)');
SELECT last_seq FROM rf_archive_mark(checks.id(2));
SELECT last_seq FROM rf_archive_reactivate(checks.id(2));
SELECT rf_archive_set_backend('partitioned');
SELECT rf_archive_set_backend('dual_table');
SELECT * FROM check_same();
-- The month empties by the move: nothing of it is left there, so it may go.
SELECT events_moved > 0 AS moved FROM rf_archive_move('infinity');
SELECT rf_drop_partition('hot', '2024-02-01');
-- Other streams, and months without it, are free.
SELECT rf_redact(checks.id(3), 1, 'r');
SELECT rf_drop_partition('cold', '2024-03-01'), rf_drop_partition('hot', '2024-03-01', true);
SELECT checks.try('SELECT rf_drop_partition(''cold'', ''2024-01-01'', true)');
-- The other store has a stream of that id, too, which is not on hold.
SELECT checks.try('SELECT rf_redact(checks.id(2), reason => ''r'', tenant => ''other'')');
-- The store is not removed, and not turned into tables that guard nothing.
SELECT force, checks.try(format('SELECT rf_uninstall(''store'', ''store'', %L)', force)) FROM unnest(ARRAY[false, true]) AS force;
-- Released, all of that goes.
SELECT rf_release(checks.id(2));
SELECT checks.try(call) FROM unnest(ARRAY['SELECT rf_redact(checks.id(2), reason => ''r'')', 'SELECT rf_drop_partition(''cold'', ''2024-02-01'', true)', 'SELECT rf_uninstall(''store'', ''store'', true)']) AS call;

--
-- A store on hold
--
SELECT rf_hold(tenant => 'other', reason => 'audit');
SELECT rf_hold(tenant => 'other', reason => 'audit');
SELECT checks.try(call) FROM unnest(ARRAY['SELECT rf_redact(checks.id(2), reason => ''r'', tenant => ''other'')', 'SELECT rf_drop_partition(''hot'', ''2024-01-01'', true, ''other'')',
	'SELECT rf_drop_partition(''hot'', ''2024-03-01'', true, ''other'')', 'SELECT rf_uninstall(''other'', ''other'', true)', 'SELECT rf_redact(checks.id(2), reason => ''r'')', 'SELECT rf_release(checks.id(2), tenant => ''other'')']) AS call;
SELECT events_moved > 0 AS moved FROM rf_archive_move('infinity', tenant => 'other');
SELECT c.* FROM check_same('other') AS c;
-- A stream that is made later is on hold, too.
SELECT stream_seq FROM rf_append(checks.id(9), 'new', '{}', tenant => 'other');
SELECT checks.try('SELECT rf_redact(checks.id(9), reason => ''r'', tenant => ''other'')');
-- Of a stream and of the store: both have to go.
SELECT rf_hold(checks.id(9), 'case 9', 'other');
SELECT rf_release(tenant => 'other');
SELECT checks.try('SELECT rf_redact(checks.id(9), reason => ''r'', tenant => ''other'')');
SELECT rf_release(checks.id(9), tenant => 'other');
SELECT checks.try('SELECT rf_redact(checks.id(9), reason => ''r'', tenant => ''other'')');
SELECT actor = session_user AS own, action, stream_id, streams, detail FROM other.rf_archive_log WHERE action IN ('hold', 'release') ORDER BY log_id;

-- A hold that was placed by hand, or later than a snapshot, is one.
BEGIN;
INSERT INTO rf_holds (stream_id, reason) VALUES (checks.id(1), 'by hand');
SELECT checks.try('SELECT rf_redact(checks.id(1), reason => ''r'')');
SELECT checks.try('SELECT rf_drop_partition(''cold'', ''2024-01-01'', true)');
ROLLBACK;

--
-- The ledger: what is told of a stream on hold is not folded, nor are the holds themselves.
--
SELECT last_seq FROM rf_archive_mark(checks.id(1), 'kept');
SELECT last_seq FROM rf_archive_mark(checks.id(2), 'folded');
SELECT rf_hold(checks.id(1), 'case 1');
SELECT rf_prune_log('infinity') > 0 AS pruned;
SELECT action, stream_id, detail, count(*), sum(entries) > 1 AS folded FROM rf_archive_log WHERE action IN ('mark', 'hold', 'release', 'redact') GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
SELECT rf_prune_log('infinity');
SELECT rf_prune_keys('infinity');
SELECT rf_release(checks.id(1));
SELECT rf_prune_log('infinity');

--
-- Bad input
--
SELECT checks.try(call) FROM unnest(ARRAY['SELECT rf_hold(checks.id(1))', 'SELECT rf_hold(checks.id(1), '''')', 'SELECT rf_hold(checks.id(77), ''r'')', 'SELECT rf_hold(checks.id(1), ''r'', ''nobody'')', 'SELECT rf_hold(checks.id(1), ''r'', ''*'')',
	'SELECT rf_hold(checks.id(1), repeat(''x'', 1001))', 'SELECT rf_hold(checks.id(1), repeat(md5(random()::text), 31))', 'SELECT rf_release(checks.id(77))', 'SELECT rf_release(checks.id(1), '''')', 'SELECT rf_release(tenant => ''nobody'')']) AS call;
SELECT rf_hold(checks.id(1), E'it''s "a" $$reason$$; %s\n\\');
SELECT reason FROM rf_holds;
SELECT checks.try('SELECT rf_redact(checks.id(1), reason => ''r'')');
ALTER TABLE rf_holds RENAME COLUMN reason TO why;
SELECT rf_redact(checks.id(1), reason => 'r');
\echo :SQLSTATE
ALTER TABLE rf_holds RENAME COLUMN why TO reason;
SELECT rf_release(checks.id(1), E'it''s "a" $$reason$$; %s\n\\');

-- Who does not own the store places no hold and releases none, whatever rights on the table it has.
CREATE ROLE regress_rillflow_clerk;
GRANT USAGE ON SCHEMA store, checks TO regress_rillflow_clerk;
GRANT EXECUTE ON FUNCTION rf_hold(uuid, text, text), rf_release(uuid, text, text), rf_redact(uuid, int, text, text) TO regress_rillflow_clerk;
GRANT ALL ON ALL TABLES IN SCHEMA store TO regress_rillflow_clerk;
SET ROLE regress_rillflow_clerk;
SELECT checks.try(call) FROM unnest(ARRAY['SELECT rf_hold(checks.id(1), ''r'')', 'SELECT rf_release(checks.id(1))', 'SELECT rf_redact(checks.id(1), reason => ''r'')']) AS call;
RESET ROLE;
DROP OWNED BY regress_rillflow_clerk;
DROP ROLE regress_rillflow_clerk;

--
-- Holds outlive the store: flattened and adopted again, a stream is on hold still.
--
SELECT c.* FROM check_keep() AS c;
SELECT rf_hold(checks.id(1), 'case 1');
\set VERBOSITY terse
SET client_min_messages = warning;
SELECT rf_flatten();
SELECT stream_id, reason FROM rf_holds;
CALL rf_adopt('events');
RESET client_min_messages;
\set VERBOSITY default
SELECT c.* FROM check_same() AS c;
SELECT stream_id, reason FROM rf_holds;
SELECT checks.try('SELECT rf_redact(checks.id(1), reason => ''r'')');
SELECT rf_release(checks.id(1));
SELECT rf_redact(checks.id(1), reason => 'r');
SELECT events, broken_streams FROM check_union('store');
