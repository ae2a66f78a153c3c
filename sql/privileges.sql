-- What each role may do, with as few rights as it needs: the application, a reader, an archivist, an owner who is no superuser, a stranger.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
\set ECHO all

CREATE ROLE regress_rillflow_owner;
CREATE ROLE regress_rillflow_app;
CREATE ROLE regress_rillflow_reader;
CREATE ROLE regress_rillflow_archivist;
CREATE ROLE regress_rillflow_stranger;
-- The store belongs to a role that is no superuser.
DO $$
DECLARE
	name text;
BEGIN
	EXECUTE 'ALTER SCHEMA store OWNER TO regress_rillflow_owner';
	FOR name IN SELECT format('%s store.%I', CASE relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, relname) FROM pg_class
		WHERE relnamespace = 'store'::regnamespace AND relkind IN ('r', 'p', 'v') AND relname NOT IN ('rf_stores', 'rf_armed', 'rf_worker_status') LOOP
		EXECUTE 'ALTER ' || name || ' OWNER TO regress_rillflow_owner';
	END LOOP;
END $$;
GRANT USAGE ON SCHEMA checks TO PUBLIC;
GRANT USAGE ON SCHEMA store TO regress_rillflow_app, regress_rillflow_reader, regress_rillflow_archivist, regress_rillflow_stranger;
-- The application: what an append needs, and no more.
GRANT USAGE ON SEQUENCE events_global_seq_seq TO regress_rillflow_app;
GRANT INSERT (stream_id, stream_seq, event_type, body, headers, causation_id, correlation_id, event_version, user_id, is_tombstone, created_at, bucket_month) ON events TO regress_rillflow_app;
-- The reader: the view, and the tables it reads as whoever asks.
GRANT SELECT ON events_all, events, events_archive, rf_streams TO regress_rillflow_reader;
-- The archivist: a right to change streams.
GRANT UPDATE ON rf_streams TO regress_rillflow_archivist;

-- Every function, tried by every role.
CREATE TABLE checks.calls (n int GENERATED ALWAYS AS IDENTITY, call text);
INSERT INTO checks.calls (call) VALUES
	($$rf_append(lpad('1', 32, '0')::uuid, 'e', '{}')$$), ($$rf_append(lpad('1', 32, '0')::uuid, 'e', '{}', '{"idempotency_key": "k"}')$$), ($$rf_append_batch(lpad('1', 32, '0')::uuid, '[{"type": "e", "body": 1}]')$$),
	($$rf_read_stream(lpad('1', 32, '0')::uuid)$$), ($$rf_read_all()$$), ($$rf_archive_status()$$), ($$rf_archive_redirect_enabled()$$),
	($$rf_archive_mark(lpad('1', 32, '0')::uuid)$$), ($$rf_archive_reactivate(lpad('1', 32, '0')::uuid)$$), ($$rf_archive_move('infinity')$$), ($$rf_archive_move('infinity', dry_run => true)$$), ($$rf_archive_plan('infinity')$$), ($$rf_archive_candidates('infinity')$$),
	($$rf_consumer_advance('c', 0)$$), ($$rf_consumer_remove('c')$$),
	($$rf_archive_set_redirect(true)$$), ($$rf_archive_set_include_archived(true)$$), ($$rf_archive_set_notify(true)$$), ($$rf_archive_set_backend('dual_table')$$), ($$rf_create_partition('hot', '2024-05-01')$$),
	($$rf_redact(lpad('1', 32, '0')::uuid, reason => 'r')$$), ($$rf_hold(lpad('1', 32, '0')::uuid, 'r')$$), ($$rf_release(lpad('1', 32, '0')::uuid)$$),
	($$rf_prune_keys('-infinity')$$), ($$rf_prune_log('-infinity')$$), ($$rf_install('store')$$), ($$rf_uninstall('store', 'store', true)$$);
GRANT SELECT ON checks.calls TO PUBLIC;
SELECT stream_seq FROM rf_append(lpad('1', 32, '0')::uuid, 'first', '{}', created_at => '2024-01-01 00:00+00');
SET ROLE regress_rillflow_app;
SELECT call, checks.try('SELECT count(*) FROM ' || call) AS app FROM checks.calls ORDER BY n;
SET ROLE regress_rillflow_reader;
SELECT call, checks.try('SELECT count(*) FROM ' || call) AS reader FROM checks.calls ORDER BY n;
SET ROLE regress_rillflow_archivist;
SELECT call, checks.try('SELECT count(*) FROM ' || call) AS archivist FROM checks.calls ORDER BY n;
SET ROLE regress_rillflow_owner;
SELECT call, checks.try('SELECT count(*) FROM ' || call) AS owner FROM checks.calls ORDER BY n;
SET ROLE regress_rillflow_stranger;
SELECT call, checks.try('SELECT count(*) FROM ' || call) AS stranger FROM checks.calls ORDER BY n;
CALL rf_archive_run('infinity');
\echo :SQLSTATE
RESET ROLE;
-- The administrative functions can be given away, and still ask for ownership of the store.
GRANT EXECUTE ON FUNCTION rf_archive_set_redirect(boolean, text), rf_create_partition(text, date, name, text), rf_prune_keys(timestamptz, text), rf_prune_log(timestamptz, text), rf_install(name, text, text), rf_uninstall(name, name, boolean),
	rf_archive_set_include_archived(boolean, text), rf_archive_set_notify(boolean, text), rf_archive_set_backend(text, text),
	rf_redact(uuid, integer, text, text), rf_hold(uuid, text, text), rf_release(uuid, text, text) TO regress_rillflow_owner, regress_rillflow_stranger;
SET ROLE regress_rillflow_stranger;
SELECT call, checks.try('SELECT count(*) FROM ' || call) AS stranger FROM checks.calls WHERE call ~ 'set_|create|prune|install|redact|hold|release' ORDER BY n;
SET ROLE regress_rillflow_owner;
SELECT call, checks.try('SELECT count(*) FROM ' || call) AS owner FROM checks.calls WHERE call ~ 'set_|create|prune|install|redact|hold|release' ORDER BY n;
RESET ROLE;

--
-- The application
--
SET ROLE regress_rillflow_app;
SELECT stream_seq FROM rf_append(lpad('2', 32, '0')::uuid, 'a', '{}', '{"idempotency_key": "app"}', created_at => '2024-01-02 00:00+00');
SELECT stream_seq FROM rf_append(lpad('2', 32, '0')::uuid, 'a', '{}', '{"idempotency_key": "app"}');
SELECT stream_seq FROM rf_append_batch(lpad('2', 32, '0')::uuid, '[{"type": "b", "body": 2, "created_at": "2024-01-03T00:00Z"}, {"type": "c", "body": 3, "created_at": "2024-01-04T00:00Z"}]', 1);
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (lpad('2', 32, '0')::uuid, 4, 'd', '{}'), (lpad('3', 32, '0')::uuid, 1, 'a', '{}');
INSERT INTO events (stream_id, event_type, body, headers) VALUES (lpad('3', 32, '0')::uuid, 'b', '{}', '{"idempotency_key": "raw"}');
COPY events (stream_id, event_type, body) FROM stdin;
00000000000000000000000000000003	c	{}
\.
SELECT * FROM rf_append(lpad('2', 32, '0')::uuid, 'x', '{}', expected_seq => 1);
\echo :SQLSTATE
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (lpad('2', 32, '0')::uuid, 77, 'x', '{}');
\echo :SQLSTATE
INSERT INTO events (stream_id, event_type, body) VALUES (lpad('2', 32, '0')::uuid, 'd', '{}') RETURNING stream_seq;
\echo :SQLSTATE
-- Not: an explicit global_seq, a tier, a tenant; any look at tables; a leaf.
INSERT INTO events (global_seq, stream_id, event_type, body) VALUES (1, lpad('2', 32, '0')::uuid, 'x', '{}');
\echo :SQLSTATE
INSERT INTO events (stream_id, event_type, body, retention_class) VALUES (lpad('2', 32, '0')::uuid, 'x', '{}', 'cold');
\echo :SQLSTATE
SELECT count(*) FROM events;
\echo :SQLSTATE
SELECT count(*) FROM rf_streams;
\echo :SQLSTATE
SELECT count(*) FROM rf_event_keys;
\echo :SQLSTATE
SELECT setval('events_global_seq_seq', 1);
\echo :SQLSTATE
INSERT INTO events_hot_default (stream_id, event_type, body) VALUES (lpad('2', 32, '0')::uuid, 'x', '{}');
\echo :SQLSTATE
DELETE FROM events;
\echo :SQLSTATE
SELECT * FROM rf_stores;
\echo :SQLSTATE
RESET ROLE;
SELECT events, broken_streams FROM check_union('store');
-- With redirect on, its events of archived streams go cold, where it has no right at all.
SELECT 1 AS marked FROM rf_archive_mark(lpad('3', 32, '0')::uuid);
SELECT rf_archive_set_redirect(true);
SET ROLE regress_rillflow_app;
INSERT INTO events (stream_id, event_type, body) VALUES (lpad('3', 32, '0')::uuid, 'cold', '{}');
SELECT stream_seq FROM rf_append(lpad('3', 32, '0')::uuid, 'cold', '{}', allow_archived => true);
SELECT * FROM rf_append(lpad('3', 32, '0')::uuid, 'cold', '{}');
\echo :SQLSTATE
RESET ROLE;
SELECT stream_seq, event_type, retention_class FROM events_all WHERE stream_id = lpad('3', 32, '0')::uuid ORDER BY 1;
SELECT events, broken_streams FROM check_union('store');
-- Without a right on the sequence the functions do for who may insert whole rows; raw INSERTs need it.
REVOKE ALL ON SEQUENCE events_global_seq_seq FROM regress_rillflow_app;
SET ROLE regress_rillflow_app;
SELECT * FROM rf_append(lpad('2', 32, '0')::uuid, 'x', '{}');
\echo :SQLSTATE
RESET ROLE;
GRANT INSERT ON events TO regress_rillflow_app;
SET ROLE regress_rillflow_app;
SELECT stream_seq FROM rf_append(lpad('2', 32, '0')::uuid, 'e', '{}');
INSERT INTO events (stream_id, event_type, body) VALUES (lpad('2', 32, '0')::uuid, 'x', '{}');
\echo :SQLSTATE
RESET ROLE;
SELECT events, broken_streams FROM check_union('store');

--
-- The reader
--
SET ROLE regress_rillflow_reader;
SELECT stream_seq, event_type, retention_class FROM rf_read_stream(lpad('3', 32, '0')::uuid, include_archived => true);
SELECT count(*) > 5 AS replayed FROM rf_read_all(include_archived => true);
SELECT count(*) FROM events_all WHERE stream_id = lpad('3', 32, '0')::uuid;
RESET ROLE;
-- The view alone is not enough, for it reads as whoever asks.
REVOKE SELECT ON events_archive FROM regress_rillflow_reader;
SET ROLE regress_rillflow_reader;
SELECT count(*) FROM rf_read_stream(lpad('2', 32, '0')::uuid);
\echo :SQLSTATE
SELECT count(*) FROM rf_read_stream(lpad('2', 32, '0')::uuid, include_archived => false);
RESET ROLE;
GRANT SELECT ON events_archive TO regress_rillflow_reader;
-- Row security on the tables holds for reads through the functions and for what is written.
ALTER TABLE events ENABLE ROW LEVEL SECURITY;
ALTER TABLE events_archive ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON events TO regress_rillflow_reader USING (stream_id = lpad('2', 32, '0')::uuid);
CREATE POLICY own ON events_archive TO regress_rillflow_reader USING (stream_id = lpad('2', 32, '0')::uuid);
CREATE POLICY app ON events FOR INSERT TO regress_rillflow_app WITH CHECK (event_type <> 'forbidden');
CREATE POLICY app ON events_archive FOR INSERT TO regress_rillflow_app WITH CHECK (event_type <> 'forbidden');
GRANT USAGE ON SEQUENCE events_global_seq_seq TO regress_rillflow_app;
SET ROLE regress_rillflow_reader;
SELECT count(*) FROM rf_read_stream(lpad('3', 32, '0')::uuid, include_archived => true);
SELECT count(*) FROM rf_read_stream(lpad('2', 32, '0')::uuid, include_archived => true);
SELECT count(DISTINCT stream_id) FROM rf_read_all(include_archived => true);
SET ROLE regress_rillflow_app;
SELECT * FROM rf_append(lpad('2', 32, '0')::uuid, 'forbidden', '{}');
\echo :SQLSTATE
INSERT INTO events (stream_id, event_type, body) VALUES (lpad('2', 32, '0')::uuid, 'forbidden', '{}');
\echo :SQLSTATE
SELECT stream_seq FROM rf_append(lpad('2', 32, '0')::uuid, 'allowed', '{}');
INSERT INTO events (stream_id, event_type, body) VALUES (lpad('2', 32, '0')::uuid, 'allowed', '{}');
-- A redirected row is written as the caller then, who needs a right on the cold tier for it: archiving is no way round a policy.
INSERT INTO events (stream_id, event_type, body) VALUES (lpad('3', 32, '0')::uuid, 'allowed', '{}');
\echo :SQLSTATE
RESET ROLE;
GRANT INSERT ON events_archive TO regress_rillflow_app;
SET ROLE regress_rillflow_app;
INSERT INTO events (stream_id, event_type, body) VALUES (lpad('3', 32, '0')::uuid, 'forbidden', '{}');
\echo :SQLSTATE
SELECT * FROM rf_append(lpad('3', 32, '0')::uuid, 'forbidden', '{}', allow_archived => true);
\echo :SQLSTATE
INSERT INTO events (stream_id, event_type, body) VALUES (lpad('3', 32, '0')::uuid, 'allowed', '{}');
SELECT stream_seq FROM rf_append(lpad('3', 32, '0')::uuid, 'allowed', '{}', allow_archived => true);
RESET ROLE;
SELECT event_type, retention_class, count(*) FROM events_all WHERE event_type IN ('allowed', 'forbidden') GROUP BY 1, 2 ORDER BY 1, 2;
SELECT events, broken_streams FROM check_union('store');
ALTER TABLE events DISABLE ROW LEVEL SECURITY;
ALTER TABLE events_archive DISABLE ROW LEVEL SECURITY;

--
-- The archivist
--
SELECT * FROM check_keep();
SET ROLE regress_rillflow_archivist;
SELECT archived_by = session_user AS by_session_user FROM rf_archive_mark(lpad('2', 32, '0')::uuid, 'by the archivist');
SELECT events_moved > 0 AS moved FROM rf_archive_move('infinity', stream_id => lpad('2', 32, '0')::uuid);
SELECT archived_at FROM rf_archive_reactivate(lpad('2', 32, '0')::uuid);
CALL rf_archive_run('2024-02-01 00:00+00', stream_id => lpad('1', 32, '0')::uuid);
SELECT count(*) FROM events_archive;
\echo :SQLSTATE
RESET ROLE;
SELECT * FROM check_same();
SELECT DISTINCT actor = session_user AS by_session_user FROM rf_archive_log;
-- A right on a column only is not that right.
REVOKE UPDATE ON rf_streams FROM regress_rillflow_archivist;
GRANT UPDATE (archive_reason) ON rf_streams TO regress_rillflow_archivist;
SET ROLE regress_rillflow_archivist;
SELECT checks.try($$SELECT rf_archive_mark(lpad('1', 32, '0')::uuid)$$);
RESET ROLE;

--
-- Triggers of the owner run as the owner, and rows of the application as the application.
--
CREATE TABLE checks.seen (what text, who name);
GRANT ALL ON checks.seen TO PUBLIC;
CREATE FUNCTION checks.who () RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO checks.seen VALUES (TG_TABLE_NAME || ' ' || TG_OP, current_user); RETURN NEW; END $$;
CREATE TRIGGER who AFTER INSERT OR UPDATE ON rf_streams FOR EACH ROW EXECUTE FUNCTION checks.who();
CREATE TRIGGER who AFTER INSERT ON rf_event_keys FOR EACH ROW EXECUTE FUNCTION checks.who();
CREATE TRIGGER who AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION checks.who();
SET ROLE regress_rillflow_app;
SELECT stream_seq FROM rf_append(lpad('4', 32, '0')::uuid, 'a', '{}', '{"idempotency_key": "who"}');
INSERT INTO events (stream_id, event_type, body) VALUES (lpad('5', 32, '0')::uuid, 'a', '{}');
RESET ROLE;
SELECT regexp_replace(what, '\d{4}_\d\d', '…') AS what, who, count(*) FROM checks.seen GROUP BY 1, 2 ORDER BY 1, 2;

SET client_min_messages = error;
DROP EXTENSION rillflow CASCADE;
DROP SCHEMA store, checks CASCADE;
DROP OWNED BY regress_rillflow_owner, regress_rillflow_app, regress_rillflow_reader, regress_rillflow_archivist, regress_rillflow_stranger;
DROP ROLE regress_rillflow_owner, regress_rillflow_app, regress_rillflow_reader, regress_rillflow_archivist, regress_rillflow_stranger;
