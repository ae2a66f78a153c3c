-- What a client sees when the events of archived streams are redirected to the cold tier.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
\set ECHO all

-- Stream 1 is archived, stream 2 is not, stream 3 was closed by a move.
\set cold '''00000000-0000-0000-0000-000000000001'''
\set hot '''00000000-0000-0000-0000-000000000002'''
\set closed '''00000000-0000-0000-0000-000000000003'''
\set fresh '''00000000-0000-0000-0000-000000000004'''
SELECT * FROM rf_append_batch(:cold, '[{"type": "a", "body": {"n": 1}, "created_at": "2024-01-10T00:00Z", "is_tombstone": true, "user_id": ""}, {"type": "b", "body": {"n": 2}, "created_at": "2024-02-10T00:00Z"}]');
SELECT * FROM rf_append(:hot, 'a', '{}', created_at => '2024-01-10 00:00+00');
SELECT * FROM rf_append(:closed, 'a', '{}', created_at => '2024-01-10 00:00+00');
SELECT archived_by = session_user AS by_me, archive_reason, retention_class FROM rf_archive_mark(:cold);
SELECT events_moved FROM rf_archive_move('infinity', stream_id => :closed);
SELECT right(stream_id::text, 1) AS s, last_seq, retention_class, archived_by = 'archive_move' AS closed FROM rf_streams ORDER BY 1;

CREATE VIEW checks.tiers AS
	SELECT right(stream_id::text, 1) AS s, stream_seq AS n, event_type,
		CASE WHEN tableoid::regclass::text LIKE 'events_archive%' THEN 'cold' ELSE 'hot' END AS tier, retention_class
	FROM (SELECT tableoid, stream_id, stream_seq, event_type, retention_class FROM events
		UNION ALL SELECT tableoid, stream_id, stream_seq, event_type, retention_class FROM events_archive) AS e
	ORDER BY 1, 2;

--
-- Off, which is the default: a raw INSERT into an archived stream lands hot, and leaves the mark alone.
--
SELECT rf_archive_redirect_enabled();
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (:cold, 3, 'while off', '{}') RETURNING stream_seq;
SELECT * FROM rf_append(:cold, 'x', '{}');
\echo :SQLSTATE
SELECT stream_seq FROM rf_append(:cold, 'allowed', '{}', allow_archived => true);
SELECT * FROM checks.tiers;
SELECT last_seq, archived_at IS NOT NULL AS archived FROM rf_streams WHERE stream_id = :cold;
SELECT events, broken_streams FROM check_union('store');

--
-- On.
--
SELECT rf_archive_set_redirect(true);
SELECT rf_archive_redirect_enabled();
-- The command tags count what landed hot, and RETURNING returns that; the events are there all the same.
\set QUIET off
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (:cold, 5, 'insert', '{"n": 5}');
INSERT INTO events (stream_id, event_type, body) VALUES (:cold, 'numberless', '{}') RETURNING stream_seq, event_type;
INSERT INTO events (stream_id, event_type, body) VALUES (:cold, 'mixed', '{}'), (:hot, 'mixed', '{}'), (:closed, 'mixed', '{}'), (:fresh, 'mixed', '{}'), (:cold, 'mixed', '{}')
RETURNING right(stream_id::text, 1) AS s, stream_seq, event_type;
WITH ins AS (INSERT INTO events (stream_id, event_type, body) VALUES (:cold, 'with', '{}'), (:hot, 'with', '{}') RETURNING stream_id, stream_seq)
SELECT right(stream_id::text, 1) AS s, stream_seq FROM ins;
INSERT INTO events (stream_id, event_type, body) SELECT :cold, 'select', to_jsonb(n) FROM generate_series(1, 3) AS n;
COPY events (stream_id, event_type, body) FROM stdin;
00000000-0000-0000-0000-000000000001	copy	{}
00000000-0000-0000-0000-000000000002	copy	{}
00000000-0000-0000-0000-000000000001	copy	{}
\.
PREPARE ins (uuid, text) AS INSERT INTO events (stream_id, event_type, body) VALUES ($1, $2, '{}') RETURNING stream_seq;
EXECUTE ins (:cold, 'prepared');
EXECUTE ins (:hot, 'prepared');
DEALLOCATE ins;
-- ON CONFLICT: a number that is there is an error for an archived stream, whose hot leaf can't tell; a new one goes cold.
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (:cold, 16, 'conflict', '{}') ON CONFLICT DO NOTHING;
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (:cold, 5, 'conflict', '{}') ON CONFLICT DO NOTHING;
\echo :SQLSTATE
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (:hot, 2, 'conflict', '{}') ON CONFLICT DO NOTHING;
\set QUIET on
SELECT * FROM checks.tiers;
SELECT right(stream_id::text, 1) AS s, last_seq, retention_class, archived_at IS NOT NULL AS archived FROM rf_streams ORDER BY 1;
SELECT events, broken_streams FROM check_union('store');
-- What was redirected is the row that was sent, and says who brought it.
SELECT stream_seq, event_type, body, is_tombstone, user_id, retention_class, migrated_at IS NOT NULL AS when, migrated_by FROM events_archive WHERE stream_id = :cold ORDER BY 1;
SELECT count(*) = count(DISTINCT global_seq) AS unique_global_seq, count(*) FROM events_all;

-- A row of another month, with an explicit global_seq, with everything.
INSERT INTO events VALUES (1000000, :cold, 17, 'everything', '{"b": [null, ""]}', '{"h": "v"}', :hot, :closed, 9, '', 'u', true, '2024-02-29 23:00+00', '2024-02-01');
SELECT * FROM events_all WHERE stream_seq = 17 AND stream_id = :cold;
INSERT INTO events (stream_id, event_type, body, created_at) VALUES (:cold, 'x', '{}', '2024-02-29 23:00+00');
\echo :SQLSTATE

-- Numbers of an archived stream: low, high, senseless.
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (:cold, 17, 'again', '{}');
\echo :SQLSTATE
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (:cold, 1, 'again', '{}');
\echo :SQLSTATE
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (:cold, 19, 'gap', '{}');
\echo :SQLSTATE
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (:cold, 0, 'zero', '{}');
\echo :SQLSTATE
\set VERBOSITY sqlstate
INSERT INTO events (stream_id, event_type, body) VALUES (:cold, NULL, '{}');
\set VERBOSITY default

-- plpgsql: ROW_COUNT and FOUND count what landed hot.
DO $$
DECLARE
	n bigint;
BEGIN
	INSERT INTO events (stream_id, event_type, body) VALUES ('00000000-0000-0000-0000-000000000001', 'plpgsql', '{}');
	GET DIAGNOSTICS n = ROW_COUNT;
	RAISE NOTICE 'archived: ROW_COUNT %, FOUND %', n, FOUND;
	INSERT INTO events (stream_id, event_type, body) VALUES ('00000000-0000-0000-0000-000000000002', 'plpgsql', '{}');
	GET DIAGNOSTICS n = ROW_COUNT;
	RAISE NOTICE 'active: ROW_COUNT %, FOUND %', n, FOUND;
	SELECT stream_seq INTO n FROM rf_append('00000000-0000-0000-0000-000000000001', 'plpgsql', '{}', allow_archived => true);
	RAISE NOTICE 'rf_append: number %, FOUND %', n, FOUND;
END $$;

-- MERGE brings its rows by the same way.
CREATE TABLE checks.source (stream_id uuid, event_type text);
INSERT INTO checks.source VALUES (:cold, 'merge'), (:hot, 'merge');
MERGE INTO events AS e USING checks.source AS s ON e.stream_id = s.stream_id AND e.event_type = s.event_type
WHEN NOT MATCHED THEN INSERT (stream_id, event_type, body) VALUES (s.stream_id, s.event_type, '{}');
SELECT * FROM checks.tiers WHERE event_type = 'merge';
-- In a MERGE that would also change or delete, the statement is refused before it begins.
MERGE INTO events AS e USING checks.source AS s ON e.stream_id = s.stream_id AND e.event_type = s.event_type
WHEN MATCHED THEN UPDATE SET body = '[]'
WHEN NOT MATCHED THEN INSERT (stream_id, event_type, body) VALUES (s.stream_id, s.event_type, '{}');
\echo :SQLSTATE
MERGE INTO events AS e USING checks.source AS s ON e.stream_id = s.stream_id
WHEN MATCHED THEN DELETE;
\echo :SQLSTATE

-- rf_append() tells the numbers of an archived stream, hot or cold.
SELECT stream_seq FROM rf_append(:cold, 'append', '{}', allow_archived => true);
SELECT stream_seq FROM rf_append_batch(:cold, '[{"type": "batch", "body": 1}, {"type": "batch", "body": 2}]', allow_archived => true);
SELECT * FROM rf_append_batch(:cold, '[{"type": "batch", "body": 1}]');
\echo :SQLSTATE
SELECT * FROM rf_append(:cold, 'x', '{}', expected_seq => 1, allow_archived => true);
\echo :SQLSTATE
SELECT * FROM checks.tiers WHERE n > 15;
SELECT events, broken_streams FROM check_union('store');

-- A closed stream is not marked: an append that lands hot reopens it. With redirect on a raw INSERT goes cold, and it stays closed.
SELECT archived_by, last_seq FROM rf_streams WHERE stream_id = :closed;
SELECT stream_seq FROM rf_append(:closed, 'stays closed', '{}', allow_archived => true);
SELECT archived_by, last_seq FROM rf_streams WHERE stream_id = :closed;
SELECT stream_seq FROM rf_append(:closed, 'reopens', '{}');
SELECT archived_by, last_seq, retention_class FROM rf_streams WHERE stream_id = :closed;
INSERT INTO events (stream_id, event_type, body) VALUES (:closed, 'open now', '{}') RETURNING stream_seq;
SELECT * FROM checks.tiers WHERE s = '3';

-- Savepoints: a redirected row that is rolled back is gone, and its number is free.
BEGIN;
INSERT INTO events (stream_id, event_type, body) VALUES (:cold, 'kept', '{}');
SAVEPOINT one;
INSERT INTO events (stream_id, event_type, body) VALUES (:cold, 'undone', '{}'), (:cold, 'undone', '{}');
ROLLBACK TO one;
INSERT INTO events (stream_id, event_type, body) VALUES (:cold, 'kept', '{}');
COMMIT;
SELECT event_type, count(*) FROM events_all WHERE event_type IN ('kept', 'undone') GROUP BY 1;
SELECT events, broken_streams FROM check_union('store');

-- A stream that is marked in the same transaction, and reactivated again.
BEGIN;
INSERT INTO events (stream_id, event_type, body) VALUES (:fresh, 'hot', '{}');
SELECT 1 AS marked FROM rf_archive_mark(:fresh);
INSERT INTO events (stream_id, event_type, body) VALUES (:fresh, 'cold', '{}');
SELECT 1 AS back FROM rf_archive_reactivate(:fresh, restore_events => false);
INSERT INTO events (stream_id, event_type, body) VALUES (:fresh, 'hot again', '{}');
COMMIT;
SELECT * FROM checks.tiers WHERE s = '4';

-- A statement that marks the stream between its own rows: what comes after the mark goes cold.
CREATE FUNCTION checks.mark (stream uuid) RETURNS text LANGUAGE sql AS $$ SELECT 'marked'::text FROM store.rf_archive_mark(stream) $$;
INSERT INTO events (stream_id, event_type, body)
SELECT :hot::uuid, CASE WHEN n = 2 THEN checks.mark(:hot) ELSE 'row ' || n END, '{}' FROM generate_series(1, 3) AS n;
SELECT * FROM checks.tiers WHERE event_type IN ('row 1', 'marked', 'row 3');
SELECT right(stream_id::text, 1) AS s, last_seq, archived_at IS NOT NULL AS archived FROM rf_streams WHERE stream_id = :hot;
SELECT last_seq FROM rf_archive_reactivate(:hot, restore_events => false);
SELECT events, broken_streams FROM check_union('store');

-- Triggers of the user on events see each row once, redirected or not; an AFTER trigger sees what landed hot.
CREATE TABLE checks.seen (what text, n int);
CREATE FUNCTION checks.note () RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO checks.seen VALUES (TG_WHEN || ' ' || TG_LEVEL, CASE TG_LEVEL WHEN 'ROW' THEN NEW.stream_seq END);
	IF TG_LEVEL = 'ROW' THEN RETURN NEW; END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER aaa_note BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION checks.note();
CREATE TRIGGER zzz_note AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION checks.note();
CREATE TRIGGER zzz_note_statement AFTER INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION checks.note();
INSERT INTO events (stream_id, event_type, body) VALUES (:cold, 'seen', '{}'), (:hot, 'seen', '{}');
SELECT what, count(*) FROM checks.seen GROUP BY 1 ORDER BY 1;
DROP TRIGGER aaa_note ON events;
DROP TRIGGER zzz_note ON events;
DROP TRIGGER zzz_note_statement ON events;

-- A column that the user adds goes along, once events_archive has it too.
ALTER TABLE events ADD COLUMN "extra %s" numeric(6,2);
INSERT INTO events (stream_id, event_type, body, "extra %s") VALUES (:cold, 'extra', '{}', 1.5);
\echo :SQLSTATE
SELECT * FROM rf_append(:cold, 'extra', '{}', allow_archived => true);
\echo :SQLSTATE
INSERT INTO events (stream_id, event_type, body, "extra %s") VALUES (:hot, 'extra', '{}', 1.5) RETURNING "extra %s";
ALTER TABLE events_archive ADD COLUMN "extra %s" numeric(6,2);
INSERT INTO events (stream_id, event_type, body, "extra %s") VALUES (:cold, 'extra', '{}', 2.5);
SELECT retention_class, "extra %s" FROM events_archive WHERE event_type = 'extra';
ALTER TABLE events DROP COLUMN "extra %s";
ALTER TABLE events_archive DROP COLUMN "extra %s";
INSERT INTO events (stream_id, event_type, body) VALUES (:cold, 'without', '{}');
SELECT event_type, retention_class FROM events_archive WHERE event_type = 'without';
SELECT events, broken_streams FROM check_union('store');

--
-- Notifications: none while switched off; then one for each statement that brings events, whatever their tier.
--
-- (psql tells the process that notified, too, which is cut off here.)
LISTEN rillflow_events;
ALTER SEQUENCE events_global_seq_seq RESTART WITH 2000001;
\o | sed 's/ received from server process with PID [0-9]*\.//'
\qecho off:
INSERT INTO events (stream_id, event_type, body) VALUES (:hot, 'silent', '{}');
\qecho on:
SELECT rf_archive_set_notify(true) \g /dev/null
INSERT INTO events (stream_id, event_type, body) VALUES (:hot, 'n', '{}');
\qecho three rows, hot and cold:
INSERT INTO events (stream_id, event_type, body) VALUES (:hot, 'n', '{}'), (:cold, 'n', '{}'), (:hot, 'n', '{}');
\qecho all of them cold:
INSERT INTO events (stream_id, event_type, body) VALUES (:cold, 'n', '{}'), (:cold, 'n', '{}');
\qecho functions:
SELECT * FROM rf_append(:hot, 'n', '{}');
SELECT * FROM rf_append_batch(:hot, '[{"type": "n", "body": 1}, {"type": "n", "body": 2}]');
SELECT * FROM rf_append_batch(:cold, '[{"type": "n", "body": 1}, {"type": "n", "body": 2}]', allow_archived => true);
\qecho a repeat:
SELECT * FROM rf_append(:hot, 'n', '{}', '{"idempotency_key": "k"}');
SELECT * FROM rf_append(:hot, 'n', '{}', '{"idempotency_key": "k"}');
\qecho no row:
INSERT INTO events (stream_id, event_type, body) SELECT :hot::uuid, 'n', '{}' WHERE false;
\qecho three statements in a transaction, one of them undone:
BEGIN;
INSERT INTO events (stream_id, event_type, body) VALUES (:hot, 'n', '{}');
SAVEPOINT one;
INSERT INTO events (stream_id, event_type, body) VALUES (:hot, 'n', '{}');
ROLLBACK TO one;
INSERT INTO events (stream_id, event_type, body) VALUES (:hot, 'n', '{}');
COMMIT;
\qecho COPY:
COPY events (stream_id, event_type, body) FROM stdin;
00000000-0000-0000-0000-000000000001	copy	{}
00000000-0000-0000-0000-000000000002	copy	{}
\.
SELECT 1 AS after_copy;
\qecho moves and reactivations bring no event:
SELECT events_moved > 0 AS moved FROM rf_archive_move('infinity');
SELECT last_seq > 0 AS back FROM rf_archive_reactivate(:hot);
\qecho off:
SELECT rf_archive_set_notify(false) \g /dev/null
INSERT INTO events (stream_id, event_type, body) VALUES (:hot, 'silent', '{}');
\o
UNLISTEN *;
SELECT events, broken_streams FROM check_union('store');
