-- Events are added, never changed: nobody updates, deletes, truncates or moves them past the functions.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
\set ECHO all

CREATE SCHEMA other;
SET client_min_messages = warning;
SELECT rf_install('other', 'cold');
RESET client_min_messages;
SELECT rf_archive_set_backend('partitioned', 'cold');
SELECT rf_create_partition('hot', '2024-01-01', tenant => t), rf_create_partition('hot', '2024-02-01', tenant => t), rf_create_partition('cold', '2024-01-01', tenant => t) FROM unnest(ARRAY[NULL, 'cold']) AS t;
SELECT count(*) FROM unnest(ARRAY[NULL, 'cold']) AS t, generate_series(1, 3) AS s, generate_series(1, 3) AS m,
	rf_append(lpad(s::text, 32, '0')::uuid, 'e', '{}', created_at => make_timestamptz(2024, m, s, 0, 0, 0, 'UTC'), tenant => t);
SELECT t, events_moved FROM unnest(ARRAY[NULL, 'cold']) AS t, rf_archive_move('2024-01-03 00:00+00', tenant => t);
SELECT c.* FROM check_keep('store') AS c UNION ALL SELECT c.* FROM check_keep('other') AS c;
SELECT * FROM check_places('store');
SELECT * FROM check_places('other');

-- Every statement that changes a row, on every table that holds events: roots, branches, leaves.
CREATE FUNCTION checks.attempts (store name)
RETURNS TABLE (target name, statement text, outcome text)
LANGUAGE plpgsql
AS $$
BEGIN
	FOR target IN
		SELECT relname FROM pg_class WHERE relnamespace = quote_ident(store)::regnamespace AND relkind IN ('r', 'p') AND relname ~ '^events'
			AND (relname ~ '2024' OR relname !~ '\d') ORDER BY relname
	LOOP
		FOREACH statement IN ARRAY ARRAY[
			'UPDATE %1$I.%2$I SET body = ''[]''', 'UPDATE %1$I.%2$I SET body = body WHERE false',
			'UPDATE %1$I.%2$I SET retention_class = ''cold''', 'UPDATE %1$I.%2$I SET created_at = ''2024-02-02'', bucket_month = ''2024-02-01''',
			'UPDATE ONLY %1$I.%2$I SET stream_seq = stream_seq + 1', 'DELETE FROM %1$I.%2$I', 'DELETE FROM ONLY %1$I.%2$I', 'TRUNCATE %1$I.%2$I',
			'TRUNCATE %1$I.rf_archive_log, %1$I.%2$I CASCADE',
			'MERGE INTO %1$I.%2$I AS e USING (SELECT 1) AS s ON true WHEN MATCHED THEN DELETE',
			'MERGE INTO %1$I.%2$I AS e USING (SELECT 1) AS s ON true WHEN MATCHED THEN UPDATE SET event_type = ''x''',
			'INSERT INTO %1$I.%2$I (global_seq, stream_id, stream_seq, event_type, body, created_at, bucket_month) VALUES (999, gen_random_uuid(), 1, ''x'', ''{}'', ''2024-01-05 00:00+00'', ''2024-01-01'')']
		LOOP
			IF statement LIKE 'INSERT%' AND target = 'events' THEN CONTINUE; END IF;
			outcome := checks.try(format(statement, store, target));
			statement := regexp_replace(statement, '%1\$I\.%2\$I', '…');
			RETURN NEXT;
		END LOOP;
	END LOOP;
END
$$;
SELECT target, left(outcome, 5) AS state, count(*), string_agg(DISTINCT outcome, E'\n') AS outcomes FROM checks.attempts('store') GROUP BY 1, 2 ORDER BY 1, 2;
SELECT target, left(outcome, 5) AS state, count(*), string_agg(DISTINCT statement, E'\n') FILTER (WHERE outcome NOT LIKE '55000 table "%" is append-only%') AS otherwise FROM checks.attempts('other') GROUP BY 1, 2 ORDER BY 1, 2;

-- COPY into a branch or a leaf; into the archive; ON CONFLICT DO UPDATE; a cold row by hand; a writable view.
COPY events_hot (global_seq, stream_id, stream_seq, event_type, body) FROM stdin;
999	00000000-0000-0000-0000-000000000001	9	x	{}
\.
COPY events_hot_2024_01 (global_seq, stream_id, stream_seq, event_type, body, created_at, bucket_month) FROM stdin;
999	00000000-0000-0000-0000-000000000001	9	x	{}	2024-01-05 00:00+00	2024-01-01
\.
COPY events_archive (global_seq, stream_id, stream_seq, event_type, body) FROM stdin;
999	00000000-0000-0000-0000-000000000001	9	x	{}
\.
COPY events_archive_2024_01 (global_seq, stream_id, stream_seq, event_type, body, created_at, bucket_month) FROM stdin;
999	00000000-0000-0000-0000-000000000001	9	x	{}	2024-01-05 00:00+00	2024-01-01
\.
INSERT INTO events_hot_2024_01 (global_seq, stream_id, stream_seq, event_type, body, created_at, bucket_month)
SELECT global_seq, stream_id, stream_seq, 'x', '[]', created_at, bucket_month FROM events_hot_2024_01
ON CONFLICT (global_seq) DO UPDATE SET body = excluded.body;
\echo :SQLSTATE
INSERT INTO events (stream_id, event_type, body, retention_class) VALUES ('00000000-0000-0000-0000-000000000001', 'x', '{}', 'cold');
\echo :SQLSTATE
INSERT INTO events (stream_id, event_type, body, retention_class) VALUES ('00000000-0000-0000-0000-000000000001', 'x', '{}', 'warm');
\echo :SQLSTATE
CREATE VIEW checks.writable AS SELECT * FROM events;
UPDATE checks.writable SET body = '[]';
\echo :SQLSTATE
WITH gone AS (DELETE FROM events RETURNING *) SELECT count(*) FROM gone;
\echo :SQLSTATE
-- The ledger, too, is only added to.
UPDATE rf_archive_log SET actor = 'somebody';
\echo :SQLSTATE
DELETE FROM rf_archive_log;
\echo :SQLSTATE
TRUNCATE rf_archive_log;
\echo :SQLSTATE
SELECT count(*) > 5 AS entries FROM rf_archive_log;

-- A table that is no month of ours is no way in: a row from a partition attached by hand is refused, too.
CREATE TABLE checks.by_hand (LIKE events INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
ALTER TABLE events_hot ATTACH PARTITION checks.by_hand FOR VALUES FROM ('2150-01-01') TO ('2150-02-01');
INSERT INTO events (stream_id, event_type, body, created_at, bucket_month) VALUES ('00000000-0000-0000-0000-000000000001', 'x', '{}', '2150-01-02 00:00+00', '2150-01-01');
\echo :SQLSTATE
ALTER TABLE events_hot DETACH PARTITION checks.by_hand;

-- An application with every right on the tables is refused as well.
CREATE ROLE regress_rillflow_app;
GRANT USAGE ON SCHEMA store, other, checks TO regress_rillflow_app;
GRANT ALL ON ALL TABLES IN SCHEMA store, other TO regress_rillflow_app;
GRANT ALL ON ALL SEQUENCES IN SCHEMA store, other TO regress_rillflow_app;
SET ROLE regress_rillflow_app;
SELECT left(outcome, 5) AS state, count(*), count(DISTINCT target) AS targets FROM checks.attempts('store') GROUP BY 1 ORDER BY 1;
SELECT left(outcome, 5) AS state, count(*), count(DISTINCT target) AS targets FROM checks.attempts('other') GROUP BY 1 ORDER BY 1;
-- No setting opens the way.
SET rillflow.allow_writes = on;
\echo :SQLSTATE
SET session_replication_role = replica;
\echo :SQLSTATE
ALTER TABLE events DISABLE TRIGGER ALL;
\echo :SQLSTATE
-- What it may do, works.
SELECT stream_seq FROM rf_append('00000000-0000-0000-0000-000000000001', 'app', '{}');
INSERT INTO events (stream_id, event_type, body) VALUES ('00000000-0000-0000-0000-000000000001', 'app', '{}') RETURNING stream_seq;
RESET ROLE;
SELECT events, broken_streams FROM check_union('store');

-- Our own writers are let through once for each statement, not for what comes after, nor for what fails in between.
SELECT c.* FROM check_keep('store') AS c;
SELECT events_moved FROM rf_archive_move('2024-02-01 00:00+00');
DELETE FROM events;
\echo :SQLSTATE
BEGIN;
SAVEPOINT one;
SELECT rf_archive_move('infinity', batch_size => 0);
ROLLBACK TO one;
DELETE FROM events_hot_2024_01;
\echo :SQLSTATE
ROLLBACK;
-- Moves pass the users' triggers by, which have seen each event when it came.
CREATE FUNCTION checks.fails () RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
CREATE TRIGGER fails BEFORE INSERT ON events_archive_2024_01 FOR EACH ROW EXECUTE FUNCTION checks.fails();
CREATE TRIGGER fails BEFORE DELETE ON events_hot_2024_01 FOR EACH ROW EXECUTE FUNCTION checks.fails();
CREATE TRIGGER fails_statement AFTER INSERT OR DELETE ON events_archive_2024_01 FOR EACH STATEMENT EXECUTE FUNCTION checks.fails();
SELECT last_seq FROM rf_archive_reactivate('00000000-0000-0000-0000-000000000001');
SELECT events_moved FROM rf_archive_move('2024-02-01 00:00+00');
SELECT last_seq FROM rf_archive_reactivate('00000000-0000-0000-0000-000000000001');
SELECT c.* FROM check_same('store') AS c;
DROP TRIGGER fails ON events_hot_2024_01;
DROP TRIGGER fails_statement ON events_archive_2024_01;
-- Only those are fired that are to be fired always. One that fails undoes the move whole, and opens no way behind it.
ALTER TABLE events_archive_2024_01 ENABLE ALWAYS TRIGGER fails;
DO $$
BEGIN
	BEGIN
		PERFORM rf_archive_move('2024-02-01 00:00+00');
	EXCEPTION WHEN OTHERS THEN RAISE NOTICE '% %', SQLSTATE, SQLERRM;
	END;
	DELETE FROM events_hot_2024_01;
EXCEPTION WHEN OTHERS THEN RAISE NOTICE '% %', SQLSTATE, SQLERRM;
END $$;
SHOW session_replication_role;
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES ('00000000-0000-0000-0000-000000000001', 77, 'gap', '{}');
\echo :SQLSTATE
DROP TRIGGER fails ON events_archive_2024_01;
-- One that would use the moment.
CREATE FUNCTION checks.uses () RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM store.events WHERE stream_id = '00000000-0000-0000-0000-000000000002'; RETURN NEW; END $$;
CREATE TRIGGER uses BEFORE INSERT ON events_archive_2024_01 FOR EACH ROW EXECUTE FUNCTION checks.uses();
ALTER TABLE events_archive_2024_01 ENABLE ALWAYS TRIGGER uses;
\set VERBOSITY sqlstate
SELECT * FROM rf_archive_move('2024-02-01 00:00+00');
\set VERBOSITY default
DROP TRIGGER uses ON events_archive_2024_01;
-- One that skips rows.
CREATE FUNCTION checks.skips () RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER skips BEFORE INSERT ON events_archive_2024_01 FOR EACH ROW EXECUTE FUNCTION checks.skips();
ALTER TABLE events_archive_2024_01 ENABLE ALWAYS TRIGGER skips;
\set VERBOSITY sqlstate
SELECT * FROM rf_archive_move('2024-02-01 00:00+00');
\set VERBOSITY default
DROP TRIGGER skips ON events_archive_2024_01;
SELECT c.* FROM check_same('store') AS c;
SELECT c.* FROM check_same('other') AS c;
SELECT events_moved FROM rf_archive_move('2024-02-01 00:00+00');
SELECT c.* FROM check_same('store') AS c;
SHOW session_replication_role;

-- After rf_uninstall() they are ordinary tables again.
SELECT rf_uninstall('other', 'other', force => true);
UPDATE other.events SET body = '[]' WHERE stream_seq = 1;
DELETE FROM other.events WHERE stream_seq = 2;
INSERT INTO other.events_archive (global_seq, stream_id, stream_seq, event_type, body) VALUES (999, gen_random_uuid(), 1, 'x', '{}');
TRUNCATE other.rf_archive_log;
SELECT body, count(*) FROM other.events_all GROUP BY 1 ORDER BY 1;
TRUNCATE other.events, other.events_archive;
SELECT count(*) FROM other.events_all;
SELECT c.* FROM check_same('store') AS c;
DROP OWNED BY regress_rillflow_app;
DROP ROLE regress_rillflow_app;
