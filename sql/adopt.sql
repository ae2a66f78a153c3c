-- Adopting plain tables of events: what is refused, what comes along, and the way back.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
\set ECHO all

-- A plain table as an application has it; the argument is its schema.
CREATE FUNCTION checks.make_source (schema name, rows integer DEFAULT 200) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	SET LOCAL client_min_messages = error;
	EXECUTE format('DROP SCHEMA IF EXISTS %1$I CASCADE; CREATE SCHEMA %1$I;
		CREATE TABLE %1$I.events (
			global_seq bigserial PRIMARY KEY, stream_id uuid NOT NULL, stream_seq integer NOT NULL,
			event_type text NOT NULL, body jsonb, created_at timestamptz NOT NULL DEFAULT now(),
			region text NOT NULL DEFAULT ''north'', UNIQUE (stream_id, stream_seq));
		INSERT INTO %1$I.events (stream_id, stream_seq, event_type, body, created_at)
		SELECT md5((n %% 10)::text)::uuid, n / 10 + 1, ''type'', jsonb_build_object(''n'', n),
			timestamptz ''2024-01-01 00:00+00'' + n * interval ''1 day'' FROM generate_series(0, %2$s - 1) AS n',
		schema, rows);
END $$;

-- What is left of an adoption that was refused: nothing.
CREATE FUNCTION checks.traces () RETURNS TABLE (schemas bigint, triggers bigint, events bigint, events_in_store bigint) LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY SELECT (SELECT count(*) FROM pg_namespace WHERE nspname ~ '^rf_adopt'),
		(SELECT count(*) FROM pg_trigger WHERE tgrelid = 'other.events'::regclass AND NOT tgisinternal),
		(SELECT count(*) FROM other.events), (SELECT count(*) FROM store.events_all);
END $$;

\set VERBOSITY default

--
-- Rows that no store could hold: the first of them are named
--
SELECT checks.make_source('other');
ALTER TABLE other.events DROP CONSTRAINT events_stream_id_stream_seq_key;
UPDATE other.events SET stream_seq = 3 WHERE stream_seq = 4 AND body ->> 'n' IN ('31', '35');
CALL rf_adopt('other.events');
\echo :SQLSTATE
SELECT * FROM checks.traces();

SELECT checks.make_source('other');
ALTER TABLE other.events DROP CONSTRAINT events_pkey;
UPDATE other.events SET global_seq = 1 WHERE global_seq = 2;
CALL rf_adopt('other.events');
\echo :SQLSTATE

SELECT checks.make_source('other');
UPDATE other.events SET body = NULL WHERE global_seq IN (7, 9);
CALL rf_adopt('other.events');
\echo :SQLSTATE
SELECT * FROM checks.traces();

SELECT checks.make_source('other');
ALTER TABLE other.events ALTER COLUMN stream_id DROP NOT NULL;
UPDATE other.events SET stream_id = NULL WHERE global_seq = 7;
UPDATE other.events SET created_at = 'infinity' WHERE global_seq = 8;
CALL rf_adopt('other.events');
\echo :SQLSTATE

SELECT checks.make_source('other');
DELETE FROM other.events WHERE global_seq IN (21, 42);
CALL rf_adopt('other.events');
\echo :SQLSTATE
SELECT * FROM checks.traces();

SELECT checks.make_source('other');
UPDATE other.events SET stream_seq = stream_seq + 100 WHERE stream_id = md5('3')::uuid;
CALL rf_adopt('other.events');
\echo :SQLSTATE

-- an event that is hot and cold
SELECT checks.make_source('other');
CREATE TABLE other.events_archive (LIKE other.events INCLUDING ALL);
INSERT INTO other.events_archive SELECT * FROM other.events WHERE global_seq IN (1, 2);
CALL rf_adopt('other.events');
\echo :SQLSTATE
SELECT * FROM checks.traces();

-- without the indexes that keep them apart
SELECT checks.make_source('other');
ALTER TABLE other.events DROP CONSTRAINT events_stream_id_stream_seq_key;
CALL rf_adopt('other.events');
\echo :SQLSTATE
SELECT checks.make_source('other');
ALTER TABLE other.events DROP CONSTRAINT events_pkey;
CALL rf_adopt('other.events');
\echo :SQLSTATE

--
-- Tables that no store could be made of
--
SELECT checks.make_source('other');
ALTER TABLE other.events ALTER COLUMN body TYPE json USING body::json;
CALL rf_adopt('other.events');
\echo :SQLSTATE
ALTER TABLE other.events ALTER COLUMN body TYPE jsonb USING body::jsonb, ALTER COLUMN event_type TYPE varchar(20);
CALL rf_adopt('other.events');
\echo :SQLSTATE
ALTER TABLE other.events ALTER COLUMN event_type TYPE text COLLATE "C";
CALL rf_adopt('other.events');
\echo :SQLSTATE
ALTER TABLE other.events ALTER COLUMN event_type TYPE text COLLATE "default", ALTER COLUMN stream_seq TYPE bigint;
CALL rf_adopt('other.events');
\echo :SQLSTATE
SELECT checks.make_source('other');
ALTER TABLE other.events DROP COLUMN created_at;
CALL rf_adopt('other.events');
\echo :SQLSTATE
SELECT checks.make_source('other');
ALTER TABLE other.events ADD COLUMN migrated_at timestamptz;
CALL rf_adopt('other.events');
\echo :SQLSTATE
ALTER TABLE other.events DROP COLUMN migrated_at;

-- What is tied to the table is named.
CREATE TABLE other.notes (event bigint CONSTRAINT notes_event REFERENCES other.events);
CALL rf_adopt('other.events');
\echo :SQLSTATE
DROP TABLE other.notes;
CREATE TABLE other.types (type text PRIMARY KEY);
INSERT INTO other.types VALUES ('type');
ALTER TABLE other.events ADD CONSTRAINT events_event_type FOREIGN KEY (event_type) REFERENCES other.types;
CALL rf_adopt('other.events');
\echo :SQLSTATE
ALTER TABLE other.events DROP CONSTRAINT events_event_type;
CREATE VIEW other.recent AS SELECT * FROM other.events WHERE created_at > '2024-06-01';
CALL rf_adopt('other.events');
\echo :SQLSTATE
DROP VIEW other.recent;
CREATE FUNCTION other.last_event () RETURNS other.events LANGUAGE sql AS 'SELECT * FROM other.events LIMIT 1';
CALL rf_adopt('other.events');
\echo :SQLSTATE
DROP FUNCTION other.last_event();
CREATE RULE forget AS ON DELETE TO other.events DO INSTEAD NOTHING;
CALL rf_adopt('other.events');
\echo :SQLSTATE
DROP RULE forget ON other.events;
CREATE TABLE other.child () INHERITS (other.events);
CALL rf_adopt('other.events');
\echo :SQLSTATE
CALL rf_adopt('other.child');
\echo :SQLSTATE
DROP TABLE other.child;
ALTER TABLE other.events ADD COLUMN twice bigint GENERATED ALWAYS AS (global_seq * 2) STORED;
CALL rf_adopt('other.events');
\echo :SQLSTATE
ALTER TABLE other.events DROP COLUMN twice;
ALTER TABLE other.events ADD COLUMN n serial;
CALL rf_adopt('other.events');
\echo :SQLSTATE
ALTER TABLE other.events DROP COLUMN n;
CREATE UNIQUE INDEX one_n ON other.events ((body ->> 'n'));
CALL rf_adopt('other.events');
\echo :SQLSTATE
DROP INDEX other.one_n;
ALTER TABLE other.events ADD CONSTRAINT positive CHECK (global_seq > 0) NOT VALID;
CALL rf_adopt('other.events');
\echo :SQLSTATE
ALTER TABLE other.events DROP CONSTRAINT positive;
ALTER TABLE other.events FORCE ROW LEVEL SECURITY;
CALL rf_adopt('other.events');
\echo :SQLSTATE
ALTER TABLE other.events NO FORCE ROW LEVEL SECURITY;
SET client_min_messages = error;
CREATE PUBLICATION other_events FOR TABLE other.events;
RESET client_min_messages;
CALL rf_adopt('other.events');
\echo :SQLSTATE
DROP PUBLICATION other_events;
ALTER TABLE other.events SET UNLOGGED;
CALL rf_adopt('other.events');
\echo :SQLSTATE
ALTER TABLE other.events SET LOGGED;
SELECT * FROM checks.traces();

-- Things that are no plain table, or nothing at all.
CREATE VIEW other.a_view AS SELECT 1 AS global_seq;
CALL rf_adopt('other.a_view');
\echo :SQLSTATE
DROP VIEW other.a_view;
CREATE TABLE other.parted (LIKE other.events) PARTITION BY RANGE (created_at);
CALL rf_adopt('other.parted');
\echo :SQLSTATE
DROP TABLE other.parted;
CALL rf_adopt(NULL);
\echo :SQLSTATE
CALL rf_adopt(0);
\echo :SQLSTATE
CALL rf_adopt('other.nothing');
\echo :SQLSTATE
CALL rf_adopt('store.events');
\echo :SQLSTATE
CALL rf_adopt('store.events_hot_default');
\echo :SQLSTATE

-- It commits, so it can't be part of anything, and an old snapshot would not show what it needs.
BEGIN;
CALL rf_adopt('other.events');
\echo :SQLSTATE
ROLLBACK;
SET default_transaction_isolation = 'repeatable read';
CALL rf_adopt('other.events');
\echo :SQLSTATE
RESET default_transaction_isolation;
SET default_transaction_read_only = on;
CALL rf_adopt('other.events');
\echo :SQLSTATE
RESET default_transaction_read_only;

-- Who does not own the tables may not; and who owns them needs to make a schema.
CREATE ROLE regress_rillflow_owner;
CREATE ROLE regress_rillflow_app;
GRANT USAGE ON SCHEMA store, other TO regress_rillflow_owner, regress_rillflow_app;
SET ROLE regress_rillflow_owner;
CALL rf_adopt('other.events');
\echo :SQLSTATE
RESET ROLE;
GRANT EXECUTE ON PROCEDURE rf_adopt(regclass, text) TO regress_rillflow_owner;
SET ROLE regress_rillflow_owner;
CALL rf_adopt('other.events');
\echo :SQLSTATE
RESET ROLE;
SELECT * FROM checks.traces();

-- A store that holds something takes no more.
SELECT stream_seq FROM rf_append('00000000-0000-0000-0000-000000000001', 'a', '{}');
CALL rf_adopt('other.events');
\echo :SQLSTATE
SELECT * FROM checks.traces();
SET client_min_messages = error;
DROP EXTENSION rillflow CASCADE;
DROP SCHEMA store CASCADE;
CREATE SCHEMA store;
CREATE EXTENSION rillflow SCHEMA store;
RESET client_min_messages;

--
-- From elsewhere, with what is its own: columns, checks, indexes, triggers, rights, policies
--
SELECT rf_archive_set_redirect(true);
CREATE FUNCTION other.seen () RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'seen %', new.event_type; RETURN new; END $$;
CREATE TRIGGER seen AFTER INSERT ON other.events FOR EACH ROW EXECUTE FUNCTION other.seen();
CREATE INDEX by_region ON other.events (region, created_at DESC) WHERE region <> 'north';
ALTER TABLE other.events ADD CONSTRAINT known_region CHECK (region IN ('north', 'south')),
	ADD COLUMN headers jsonb, ADD COLUMN "odd ""name" numeric(9,3) DEFAULT 1.5;
UPDATE other.events SET headers = jsonb_build_object('idempotency_key', 'key ' || global_seq);
COMMENT ON TABLE other.events IS 'what happened';
COMMENT ON COLUMN other.events.region IS 'where';
GRANT INSERT, SELECT ON store.events TO regress_rillflow_app;
SELECT count(*), sum(hashtextextended(row(global_seq, stream_id, stream_seq, event_type, body, headers, created_at, region, "odd ""name")::text, 0)) FROM other.events \gset source_
\set VERBOSITY terse
CALL rf_adopt('other.events');
\set VERBOSITY default
SELECT to_regclass('other.events') AS gone, to_regnamespace('other') AS stays;
SELECT count(*) = :source_count AND sum(hashtextextended(row(global_seq, stream_id, stream_seq, event_type, body, headers, created_at, region, "odd ""name")::text, 0)) = :source_sum AS same,
	bool_and(event_version = 1 AND NOT is_tombstone AND retention_class = 'hot' AND bucket_month = date_trunc('month', created_at AT TIME ZONE 'UTC')::date) AS filled_in
FROM events_all;
SELECT * FROM checks.check_union('store') \gset
SELECT :events AS events, :broken_streams AS broken_streams;
SELECT tableoid::regclass, count(*) FROM events GROUP BY tableoid ORDER BY tableoid::regclass::text COLLATE "C";
SELECT count(*) AS keys FROM rf_event_keys;
SELECT action, events, streams, detail ~ '^other.events, ' AS source FROM rf_archive_log WHERE action ~ '^adopt' ORDER BY log_id;
SELECT rf_archive_redirect_enabled(), has_table_privilege('regress_rillflow_app', 'events', 'INSERT') AS may_insert;
SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute WHERE attrelid = 'events_archive'::regclass AND attname IN ('region', 'odd "name') ORDER BY attnum;
SELECT obj_description('events'::regclass, 'pg_class'), col_description('events'::regclass, attnum) FROM pg_attribute WHERE attrelid = 'events'::regclass AND attname = 'region';
SELECT indexname FROM pg_indexes WHERE schemaname = 'store' AND tablename = 'events';
SELECT conname FROM pg_constraint WHERE conrelid = 'events'::regclass AND contype = 'c' ORDER BY conname COLLATE "C";
SELECT global_seq > :source_count AS higher, stream_seq FROM rf_append(md5('3')::uuid, 'more', '{}', expected_seq => 20, created_at => '2024-07-30 00:00+00');
SELECT stream_seq FROM rf_append(md5('3')::uuid, 'again', '{}', '{"idempotency_key": "key 14"}');
\set VERBOSITY sqlstate
INSERT INTO events (stream_id, event_type, body, region) VALUES (md5('4')::uuid, 'x', '{}', 'west');
\set VERBOSITY default
-- and then it is a store like all others
SELECT events_moved > 0 AS moved, months_flipped > 0 AS flipped FROM rf_archive_move('2024-03-15 00:00+00');
SELECT count(*), count(DISTINCT (stream_id, stream_seq)) FROM events_all;

--
-- And back
--
CREATE VIEW other.reader AS SELECT * FROM store.events_all;
SELECT rf_flatten();
\echo :SQLSTATE
DROP VIEW other.reader;
SELECT * FROM checks.check_union('store') \gset before_
\set VERBOSITY terse
SELECT rf_flatten();
\set VERBOSITY default
\d events
\d events_archive
SELECT * FROM checks.check_union('store') \gset after_
SELECT count(*) AS tables FROM pg_class WHERE relnamespace = 'store'::regnamespace AND relkind IN ('r', 'p', 'v') AND relname <> 'rf_stores';
SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM events_archive) AS events;
SELECT action, events FROM rf_archive_log ORDER BY log_id DESC LIMIT 1;
SELECT has_table_privilege('regress_rillflow_app', 'events', 'INSERT') AS may_insert;
SELECT * FROM rf_read_all();
\echo :SQLSTATE
SELECT rf_flatten();
\echo :SQLSTATE
UPDATE events SET event_type = 'changed' WHERE stream_id = md5('3')::uuid AND stream_seq = 21;
UPDATE events SET event_type = 'more' WHERE stream_id = md5('3')::uuid AND stream_seq = 21;
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (md5('3')::uuid, 22, 'y', '{}');
DELETE FROM events WHERE stream_seq = 22;

-- In place again.
\set VERBOSITY terse
CALL rf_adopt('events');
\set VERBOSITY default
SELECT * FROM checks.check_union('store') \gset again_
SELECT :before_events = :again_events AND :before_checksum = :again_checksum AS same, :before_events > 0 AS some, :again_broken_streams AS broken;
SELECT action, count(*) FROM rf_archive_log WHERE action ~ 'adopt$|flatten' GROUP BY action ORDER BY action COLLATE "C";
UPDATE events SET event_type = 'z';
\echo :SQLSTATE
UPDATE rf_archive_log SET events = 0;
\echo :SQLSTATE

--
-- A tenant's table, in place, of an ordinary role; nothing in it
--
SELECT checks.make_source('other', 0);
ALTER SCHEMA other OWNER TO regress_rillflow_owner;
ALTER TABLE other.events OWNER TO regress_rillflow_owner;
CREATE POLICY own ON other.events USING (region = 'south');
ALTER TABLE other.events ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT (stream_id, event_type, body) ON other.events TO regress_rillflow_app;
GRANT USAGE ON SCHEMA store, other TO regress_rillflow_owner, regress_rillflow_app;
GRANT EXECUTE ON PROCEDURE rf_adopt(regclass, text) TO regress_rillflow_owner;
SELECT current_database() AS db \gset
GRANT CREATE ON DATABASE :"db" TO regress_rillflow_owner;
SET ROLE regress_rillflow_owner;
SET search_path = other, store, checks;
\set VERBOSITY terse
CALL rf_adopt('events', tenant => 'o');
\set VERBOSITY default
CALL rf_adopt('events', tenant => 'o');
\echo :SQLSTATE
SELECT policyname, tablename FROM pg_policies WHERE schemaname = 'other' ORDER BY 2;
SELECT relname, pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = 'other'::regnamespace AND relowner <> 'regress_rillflow_owner'::regrole;
SELECT grantee, privilege_type, column_name FROM information_schema.column_privileges WHERE table_schema = 'other' AND table_name = 'events' AND grantee = 'regress_rillflow_app' AND privilege_type = 'INSERT' ORDER BY 3;
SELECT stream_seq FROM rf_append('00000000-0000-0000-0000-000000000009', 'a', '{}', created_at => '2024-07-30 00:00+00', tenant => 'o');
RESET ROLE;
SELECT schema, tenant FROM rf_stores WHERE tenant = 'o';
GRANT EXECUTE ON FUNCTION rf_flatten(text) TO regress_rillflow_owner;
SET ROLE regress_rillflow_app;
SELECT rf_flatten('o');
\echo :SQLSTATE
SET ROLE regress_rillflow_owner;
\set VERBOSITY terse
SELECT rf_flatten('o');
\set VERBOSITY default
SELECT policyname, tablename FROM pg_policies WHERE schemaname = 'other' ORDER BY 2;
SELECT rf_flatten('o');
\echo :SQLSTATE
RESET ROLE;
REVOKE CREATE ON DATABASE :"db" FROM regress_rillflow_owner;
