-- What protects events from DROP EXTENSION, and how a store is removed or taken up again.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
\set ECHO all

CREATE FUNCTION checks.objects (schema name)
RETURNS TABLE (tables bigint, triggers bigint, functions bigint)
LANGUAGE sql
AS $$
	SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = quote_ident($1)::regnamespace AND relkind IN ('r', 'p', 'v', 'S') AND relname <> 'rf_stores'),
		(SELECT count(*) FROM pg_trigger JOIN pg_class AS c ON c.oid = tgrelid WHERE relnamespace = quote_ident($1)::regnamespace AND NOT tgisinternal),
		(SELECT count(*) FROM pg_proc WHERE pronamespace = quote_ident($1)::regnamespace)
$$;

SELECT stream_seq FROM rf_append('00000000-0000-0000-0000-000000000001', 'a', '{"n": 1}', '{"idempotency_key": "k"}', created_at => '2024-01-01 00:00+00');
SELECT stream_seq FROM rf_append('00000000-0000-0000-0000-000000000001', 'b', '{"n": 2}', created_at => '2024-01-02 00:00+00');
SELECT stream_seq FROM rf_append('00000000-0000-0000-0000-000000000002', 'c', '{"n": 3}', created_at => '2024-01-03 00:00+00');
SELECT rf_create_partition('cold', '2024-01-01');
SELECT events_moved FROM rf_archive_move('2024-01-02 00:00+00');
SELECT 1 AS marked FROM rf_archive_mark('00000000-0000-0000-0000-000000000002');
SELECT rf_archive_set_redirect(true);
SELECT * FROM check_keep();
SELECT * FROM checks.objects('store');

--
-- DROP EXTENSION
--

-- The triggers stand in the way.
\set VERBOSITY terse
DROP EXTENSION rillflow;
\echo :SQLSTATE
DROP EXTENSION rillflow RESTRICT;
\echo :SQLSTATE
DROP FUNCTION rf_events_close();
\echo :SQLSTATE
\set VERBOSITY default
SELECT * FROM check_same();

-- CASCADE takes triggers and functions, and leaves every event.
SET client_min_messages = warning;
DROP EXTENSION rillflow CASCADE;
RESET client_min_messages;
SELECT * FROM check_same();
SELECT * FROM checks.objects('store');
SELECT count(*), count(DISTINCT stream_id) FROM events_all;

-- Without the extension they are tables like any other.
BEGIN;
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES ('00000000-0000-0000-0000-000000000009', 7, 'x', '{}');
DELETE FROM events_archive;
SELECT * FROM check_same();
ROLLBACK;

-- Created anew, the extension leaves the tables alone, and says so; rf_install() takes them up.
CREATE EXTENSION rillflow SCHEMA store;
SELECT * FROM checks.objects('store');
SELECT * FROM rf_stores;
SELECT * FROM rf_append('00000000-0000-0000-0000-000000000001', 'd', '{}');
\echo :SQLSTATE
SELECT * FROM rf_archive_status();
\echo :SQLSTATE
SELECT rf_install('store');
SELECT * FROM checks.objects('store');
SELECT * FROM rf_stores;
SELECT * FROM check_same();
-- It is all as it was: heads, keys, marks, switches, ledger, append-only.
SELECT stream_seq FROM rf_append('00000000-0000-0000-0000-000000000001', 'a', '{"n": 1}', '{"idempotency_key": "k"}');
SELECT stream_seq FROM rf_append('00000000-0000-0000-0000-000000000001', 'd', '{}', expected_seq => 2);
SELECT * FROM rf_append('00000000-0000-0000-0000-000000000002', 'e', '{}');
\echo :SQLSTATE
INSERT INTO events (stream_id, event_type, body) VALUES ('00000000-0000-0000-0000-000000000002', 'e', '{}') RETURNING stream_seq;
SELECT stream_seq, event_type, retention_class FROM events_all WHERE stream_id = '00000000-0000-0000-0000-000000000002' ORDER BY 1;
SELECT rf_archive_redirect_enabled();
SELECT action FROM rf_archive_log WHERE action <> 'partition made' ORDER BY log_id;
DELETE FROM events_archive;
\echo :SQLSTATE
SELECT events_moved > 0 AS moved FROM rf_archive_move('infinity');
SELECT events, broken_streams FROM check_union('store');
-- Taken up twice, nothing changes.
SELECT rf_install('store');
SELECT * FROM checks.objects('store');
SELECT * FROM rf_stores;
-- The members are functions and the registry still.
SELECT count(*) FROM pg_depend WHERE deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'rillflow')
	AND classid = 'pg_class'::regclass AND objid <> 'rf_stores'::regclass;

-- Triggers that somebody has dropped or disabled come back; the user's own stay.
CREATE FUNCTION checks.nothing () RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER mine BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION checks.nothing();
DROP TRIGGER rf_events_close ON events;
ALTER TABLE events DISABLE TRIGGER rf_events_append_only;
DROP TRIGGER rf_events_append_only ON events_hot_default;
SELECT rf_install('store');
SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 'events'::regclass AND NOT tgisinternal ORDER BY 1;
SELECT tgname FROM pg_trigger WHERE tgrelid = 'events_hot_default'::regclass AND NOT tgisinternal ORDER BY 1;
DROP TRIGGER mine ON events;

--
-- What is refused, untouched
--
-- Each case damages a store whose triggers are gone, and takes it up: nothing of it may have changed then.
CREATE FUNCTION checks.take_up (damage text) RETURNS TABLE (outcome text, triggers bigint, registered boolean) LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	PERFORM set_config('client_min_messages', 'error', true);
	DROP SCHEMA IF EXISTS other CASCADE;
	DELETE FROM rf_stores WHERE schema = 'other';
	CREATE SCHEMA other;
	PERFORM rf_install('other');
	EXECUTE (SELECT string_agg(format('DROP TRIGGER %I ON %s', tgname, tgrelid::regclass), ';') FROM pg_trigger JOIN pg_class AS c ON c.oid = tgrelid
		WHERE relnamespace = 'other'::regnamespace AND NOT tgisinternal AND tgparentid = 0);
	DELETE FROM rf_stores WHERE schema = 'other';
	EXECUTE damage;
	BEGIN
		PERFORM rf_install('other');
		outcome := 'no error';
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
		outcome := SQLSTATE || ' ' || SQLERRM || ' ' || detail;
	END;
	SELECT count(*) INTO triggers FROM pg_trigger JOIN pg_class AS c ON c.oid = tgrelid WHERE relnamespace = 'other'::regnamespace AND NOT tgisinternal;
	registered := EXISTS (SELECT FROM rf_stores WHERE schema = 'other');
	RETURN NEXT;
END $$;
CREATE ROLE regress_rillflow_somebody;
SELECT format('SELECT * FROM checks.take_up(%L)', damage) FROM unnest(ARRAY['SELECT 1',
	'DROP TABLE other.rf_streams', 'DROP TABLE other.rf_archive_config', 'DROP TABLE other.rf_event_keys', 'DROP TABLE other.rf_archive_log', 'DROP TABLE other.rf_archive_totals',
	'DROP VIEW other.events_all', 'DROP TABLE other.events_archive CASCADE', 'DROP TABLE other.events_hot_default', 'DROP TABLE other.events CASCADE',
	'ALTER TABLE other.rf_streams RENAME TO somewhere', 'ALTER TABLE other.rf_streams ALTER COLUMN last_seq TYPE bigint',
	'ALTER TABLE other.rf_streams DROP COLUMN archived_by', 'ALTER TABLE other.events_archive RENAME COLUMN headers TO header',
	'ALTER TABLE other.rf_streams DROP CONSTRAINT rf_streams_pkey', 'DROP VIEW other.events_all; CREATE TABLE other.events_all (global_seq bigint, stream_id uuid, stream_seq int)',
	'ALTER TABLE other.events DETACH PARTITION other.events_cold', 'ALTER TABLE other.events_hot DETACH PARTITION other.events_hot_default',
	'ALTER SEQUENCE other.events_global_seq_seq OWNED BY NONE; ALTER TABLE other.events ALTER COLUMN global_seq DROP DEFAULT; DROP SEQUENCE other.events_global_seq_seq',
	'ALTER TABLE other.rf_streams OWNER TO regress_rillflow_somebody', 'ALTER TABLE other.events_hot OWNER TO regress_rillflow_somebody',
	'ALTER TABLE other.events_cold_default OWNER TO regress_rillflow_somebody', 'ALTER TABLE other.events ADD COLUMN extra int', 'ALTER TABLE other.events_archive ADD COLUMN extra int']) AS damage \gexec
SET client_min_messages = warning;
DROP SCHEMA other CASCADE;
RESET client_min_messages;
DELETE FROM rf_stores WHERE schema = 'other';

-- A table that only bears one of our names, in a schema where there is no store.
CREATE SCHEMA other;
CREATE TABLE other.events (id int);
INSERT INTO other.events VALUES (1);
SELECT rf_install('other');
\echo :SQLSTATE
SELECT * FROM other.events;
SELECT count(*) FROM pg_class WHERE relnamespace = 'other'::regnamespace;
DROP SCHEMA other CASCADE;

-- A schema that is not there, or of which the caller is not the owner; a tenant that is none, or another's.
SELECT rf_install('other');
\echo :SQLSTATE
SELECT rf_install(NULL);
\echo :SQLSTATE
CREATE SCHEMA other;
SELECT rf_install('other', '');
\echo :SQLSTATE
SELECT rf_install('other', '*');
\echo :SQLSTATE
SELECT rf_install('other', tenancy => 'double');
\echo :SQLSTATE
SELECT rf_install('pg_catalog');
\echo :SQLSTATE
SELECT rf_install('pg_temp');
\echo :SQLSTATE
SET client_min_messages = warning;
SELECT rf_install('other', 'blue');
SELECT rf_install('store', 'blue');
\echo :SQLSTATE
SELECT * FROM rf_stores ORDER BY 1;
-- The tenant of a store stays what it was when none is given.
SELECT rf_install('other');
SELECT * FROM rf_stores ORDER BY 1;
RESET client_min_messages;

--
-- rf_uninstall()
--
SELECT rf_uninstall('other', 'Other');
\echo :SQLSTATE
SELECT rf_uninstall('other', NULL);
\echo :SQLSTATE
SELECT rf_uninstall(NULL, NULL);
\echo :SQLSTATE
SELECT rf_uninstall('nowhere', 'nowhere');
\echo :SQLSTATE
SELECT rf_uninstall('checks', 'checks');
\echo :SQLSTATE
BEGIN READ ONLY;
SELECT rf_uninstall('other', 'other');
\echo :SQLSTATE
ROLLBACK;
-- An empty one goes altogether.
SELECT stream_seq FROM rf_append('00000000-0000-0000-0000-000000000001', 'a', '{}', tenant => 'blue');
SELECT rf_uninstall('other', 'other');
\echo :SQLSTATE
SELECT * FROM checks.objects('other');
BEGIN;
SELECT rf_uninstall('other', 'other', true);
SELECT * FROM checks.objects('other');
SELECT count(*) FROM rf_stores;
SELECT checks.try($$SELECT rf_append('00000000-0000-0000-0000-000000000001', 'b', '{}', tenant => 'blue')$$);
ROLLBACK;
SELECT stream_seq FROM rf_append('00000000-0000-0000-0000-000000000001', 'b', '{}', tenant => 'blue');
-- Cold events are events, too.
SELECT events_moved FROM rf_archive_move('infinity', tenant => 'blue');
SELECT rf_uninstall('other', 'other', NULL);
\echo :SQLSTATE
-- By force it becomes a set of ordinary tables, which keep the events, and can be taken up again.
SELECT * FROM check_keep('other');
SELECT rf_uninstall('other', 'other', force => true);
SELECT * FROM check_same('other');
SELECT * FROM checks.objects('other');
SELECT * FROM rf_stores;
SELECT rf_uninstall('other', 'other');
\echo :SQLSTATE
SELECT rf_install('other', 'green');
SELECT * FROM checks.objects('other');
SELECT stream_seq FROM rf_append('00000000-0000-0000-0000-000000000001', 'c', '{}', tenant => 'green');
SELECT events, broken_streams FROM check_union('other');
SELECT rf_uninstall('other', 'other', true);
\set VERBOSITY terse
DROP SCHEMA other CASCADE;
\set VERBOSITY default
CREATE SCHEMA other;
SELECT rf_install('other', 'green');
SELECT rf_uninstall('other', 'other');
SELECT * FROM checks.objects('other');
SELECT * FROM rf_stores;
-- A store whose schema was dropped is passed over with a warning, and its name is free again.
SELECT rf_install('other', 'green');
\set VERBOSITY terse
DROP SCHEMA other CASCADE;
\set VERBOSITY default
SELECT schema, tenant FROM rf_archive_status('*');
SELECT * FROM rf_append('00000000-0000-0000-0000-000000000001', 'c', '{}', tenant => 'green');
\echo :SQLSTATE
CREATE SCHEMA other;
SELECT rf_install('other', 'green');
SELECT schema, tenant FROM rf_archive_status('*');
-- When the default store is uninstalled, too, the extension can be dropped plainly.
SELECT rf_uninstall('other', 'other');
SELECT rf_uninstall('store', 'store', true);
SELECT * FROM rf_archive_status();
\echo :SQLSTATE
SELECT count(*) > 0 AS events_left FROM events_all;
DROP EXTENSION rillflow;
SELECT count(*) > 0 AS events_left FROM events_all;
DROP ROLE regress_rillflow_somebody;
