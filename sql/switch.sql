-- The switches of a store: each with effect in the same session, by function or by a plain UPDATE.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
\set ECHO all

\set stream '''00000000-0000-0000-0000-000000000001'''
SELECT rf_create_partition('hot', '2024-01-01'), rf_create_partition('cold', '2024-01-01');
SELECT stream_seq FROM rf_append(:stream, 'a', '{}', created_at => '2024-01-01 00:00+00');
SELECT 1 AS marked FROM rf_archive_mark(:stream);
-- No row means the defaults.
SELECT count(*) FROM rf_archive_config;
CREATE FUNCTION checks.lands () RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	n int;
	tier text;
BEGIN
	INSERT INTO store.events (stream_id, event_type, body, created_at, bucket_month) VALUES ('00000000-0000-0000-0000-000000000001', 'x', '{}', '2024-01-02', '2024-01-01');
	SELECT retention_class INTO tier FROM store.events_all WHERE stream_id = '00000000-0000-0000-0000-000000000001' ORDER BY stream_seq DESC LIMIT 1;
	RETURN tier;
END $$;

-- Redirect.
SELECT rf_archive_redirect_enabled(), checks.lands();
SELECT rf_archive_set_redirect(true);
SELECT rf_archive_redirect_enabled(), checks.lands();
SELECT * FROM rf_archive_config;
SELECT rf_archive_set_redirect(enabled => false, tenant => NULL);
SELECT rf_archive_redirect_enabled(tenant => NULL), checks.lands();
-- in one transaction, in one statement, and undone with it
BEGIN;
SELECT rf_archive_set_redirect(true);
SELECT rf_archive_redirect_enabled(), checks.lands();
SAVEPOINT one;
SELECT rf_archive_set_redirect(false);
SELECT rf_archive_redirect_enabled(), checks.lands();
ROLLBACK TO one;
SELECT rf_archive_redirect_enabled(), checks.lands();
ROLLBACK;
SELECT rf_archive_redirect_enabled(), checks.lands();
DO $$ BEGIN PERFORM rf_archive_set_redirect(true); RAISE NOTICE '%', checks.lands(); RAISE EXCEPTION 'undo'; EXCEPTION WHEN raise_exception THEN NULL; END $$;
SELECT rf_archive_redirect_enabled(), checks.lands();
-- by hand: UPDATE, DELETE, INSERT, TRUNCATE, COPY; also where triggers are off for others
UPDATE rf_archive_config SET redirect_enabled = true;
SELECT rf_archive_redirect_enabled(), checks.lands();
DELETE FROM rf_archive_config;
SELECT rf_archive_redirect_enabled(), checks.lands();
INSERT INTO rf_archive_config (redirect_enabled) VALUES (true);
SELECT rf_archive_redirect_enabled(), checks.lands();
TRUNCATE rf_archive_config;
SELECT rf_archive_redirect_enabled(), checks.lands();
COPY rf_archive_config (redirect_enabled) FROM stdin;
t
\.
SELECT rf_archive_redirect_enabled(), checks.lands();
SET session_replication_role = replica;
UPDATE rf_archive_config SET redirect_enabled = false;
RESET session_replication_role;
SELECT rf_archive_redirect_enabled(), checks.lands();
-- One row at most, of known values.
INSERT INTO rf_archive_config DEFAULT VALUES;
\echo :SQLSTATE
INSERT INTO rf_archive_config (singleton) VALUES (false);
\echo :SQLSTATE
UPDATE rf_archive_config SET backend = 'cloud';
\echo :SQLSTATE
UPDATE rf_archive_config SET redirect_enabled = NULL;
\echo :SQLSTATE

-- Reads of archived streams.
SELECT rf_archive_set_redirect(true);
SELECT count(*) AS cold FROM events_archive \gset
SELECT count(*) AS hot FROM events \gset
SELECT (SELECT count(*) FROM rf_read_stream(:stream)) = :hot AS stream, (SELECT count(*) FROM rf_read_all()) = :hot AS "all", :hot > 0 AND :cold > 0 AS some;
SELECT rf_archive_set_include_archived(true);
SELECT (SELECT count(*) FROM rf_read_stream(:stream)) = :hot + :cold AS stream, (SELECT count(*) FROM rf_read_all()) = :hot + :cold AS "all";
UPDATE rf_archive_config SET include_archived_by_default = false;
SELECT (SELECT count(*) FROM rf_read_stream(:stream)) = :hot AS stream, (SELECT count(*) FROM rf_read_all()) = :hot AS "all";

-- Notifications.
LISTEN rillflow_events;
\o | sed 's/ received from server process with PID [0-9]*\.//; s/store:[0-9]*/store:…/'
\qecho off
SELECT checks.lands();
SELECT rf_archive_set_notify(true) \g /dev/null
\qecho on
SELECT checks.lands();
UPDATE rf_archive_config SET notify_enabled = false;
\qecho off
SELECT checks.lands();
\o
UNLISTEN *;

-- The others keep their values.
SELECT * FROM rf_archive_config;

-- The backend; what is cold goes along (see backend.sql).
SELECT * FROM check_keep();
SELECT rf_archive_set_backend('partitioned');
SELECT * FROM check_same();
SELECT rf_archive_set_backend('dual_table');
SELECT rf_archive_set_backend('Partitioned');
\echo :SQLSTATE
SELECT rf_archive_set_backend(NULL);
\echo :SQLSTATE
SELECT rf_archive_set_redirect(false);
SELECT last_seq > 0 AS back FROM rf_archive_reactivate(:stream);
SELECT * FROM check_keep();
SELECT rf_archive_set_backend('partitioned');
SELECT backend FROM rf_archive_status();
SELECT events_moved > 0 AS moved FROM rf_archive_move('2024-01-02 00:00+00');
SELECT * FROM check_same();
SELECT count(*) FROM events_archive;
SELECT count(*) FROM events_cold;
SELECT rf_archive_set_backend('dual_table');
SELECT rf_archive_set_backend('partitioned');
SELECT * FROM check_same();
-- Appends to an archived stream always go cold there, redirect or not, by function where it is allowed, and by INSERT.
SELECT 1 AS marked FROM rf_archive_mark(:stream);
SELECT rf_archive_redirect_enabled(), checks.lands();
SELECT rf_archive_set_redirect(true);
SELECT rf_archive_redirect_enabled(), checks.lands();
SELECT stream_seq > 0 AS appended FROM rf_append(:stream, 'b', '{}', allow_archived => true, created_at => '2024-01-03 00:00+00');
SELECT * FROM rf_append(:stream, 'b', '{}', created_at => '2024-01-03 00:00+00');
\echo :SQLSTATE
INSERT INTO events (stream_id, event_type, body, retention_class) VALUES (:stream, 'by hand', '{}', 'cold');
SELECT event_type, retention_class, tableoid::regclass FROM events WHERE stream_id = :stream ORDER BY stream_seq DESC LIMIT 3;
SELECT events, broken_streams FROM check_union('store');
-- A cold row by hand for a stream that is active.
SELECT last_seq > 0 AS back FROM rf_archive_reactivate(:stream);
INSERT INTO events (stream_id, event_type, body, retention_class) VALUES (:stream, 'by hand', '{}', 'cold');
SELECT event_type, retention_class FROM events WHERE stream_id = :stream ORDER BY stream_seq DESC LIMIT 1;
SELECT events, broken_streams FROM check_union('store');
SELECT last_seq > 0 AS back FROM rf_archive_reactivate(:stream);
SELECT rf_archive_set_backend('dual_table');
SELECT backend FROM rf_archive_status();
SELECT count(*) FROM events_cold;
SELECT events, broken_streams FROM check_union('store');

-- The ledger has every switch that was set by a function.
SELECT detail, count(*) FROM rf_archive_log WHERE action = 'switch' GROUP BY 1 ORDER BY 1;
-- Each store has its own.
CREATE SCHEMA other;
SELECT rf_install('other', 't2');
SELECT rf_archive_set_redirect(true, 't2');
SELECT schema, backend, redirect_enabled FROM rf_archive_status('*');
SELECT rf_archive_set_redirect(false);
SELECT rf_archive_redirect_enabled('t2'), rf_archive_redirect_enabled();
BEGIN READ ONLY;
SELECT rf_archive_set_redirect(true);
\echo :SQLSTATE
ROLLBACK;
