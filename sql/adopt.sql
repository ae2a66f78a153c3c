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
CREATE FUNCTION other.seen () RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'seen %', new.event_type; RETURN new; END $$;
CREATE TRIGGER seen AFTER INSERT ON other.events FOR EACH ROW EXECUTE FUNCTION other.seen();
CREATE INDEX by_region ON other.events (region, created_at DESC) WHERE region <> 'north';
ALTER TABLE other.events ADD CONSTRAINT known_region CHECK (region IN ('north', 'south')),
	ADD COLUMN headers jsonb, ADD COLUMN "odd ""name" numeric(9,3) DEFAULT 1.5;
UPDATE other.events SET headers = jsonb_build_object('idempotency_key', 'key ' || global_seq);
COMMENT ON TABLE other.events IS 'what happened';
COMMENT ON COLUMN other.events.region IS 'where';
GRANT INSERT, SELECT ON store.events TO regress_rillflow_app;
SELECT count(*), sum(hashtextextended(row(global_seq, stream_id, stream_seq, event_type, body, headers, created_at, region, "odd ""name")::text, 0)) FROM other.events \gset source_
SET client_min_messages = warning;
CALL rf_adopt('other.events');
RESET client_min_messages;
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
SET client_min_messages = warning;
CALL rf_adopt('events');
RESET client_min_messages;
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
SET client_min_messages = warning;
CALL rf_adopt('events', tenant => 'o');
RESET client_min_messages;
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

--
-- What would stop the source from being dropped at the end is named at the beginning
--
SELECT checks.make_source('other');
CREATE TABLE other.readers (name text, last_seq bigint DEFAULT nextval('other.events_global_seq_seq'));
CALL rf_adopt('other.events', tenant => 'o');
\echo :SQLSTATE
DROP TABLE other.readers;
CREATE TABLE other.readers (name text, source regclass DEFAULT 'other.events'::regclass);
CALL rf_adopt('other.events', tenant => 'o');
\echo :SQLSTATE
ALTER TABLE other.readers ALTER COLUMN source DROP DEFAULT;
CREATE POLICY known ON other.readers USING (EXISTS (SELECT FROM other.events AS e WHERE e.event_type = name));
CALL rf_adopt('other.events', tenant => 'o');
\echo :SQLSTATE
DROP POLICY known ON other.readers;
CREATE DOMAIN other.one_event AS other.events;
CALL rf_adopt('other.events', tenant => 'o');
\echo :SQLSTATE
DROP DOMAIN other.one_event;
ALTER TABLE other.events ADD COLUMN origin regclass DEFAULT 'other.events'::regclass;
CALL rf_adopt('other.events', tenant => 'o');
\echo :SQLSTATE
ALTER TABLE other.events DROP COLUMN origin;
SELECT * FROM checks.traces();
-- its own parts don't
CREATE STATISTICS other.kinds ON event_type, region FROM other.events;
CREATE FUNCTION other.noted () RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
CREATE TRIGGER noted BEFORE UPDATE ON other.events FOR EACH ROW WHEN (old.* IS DISTINCT FROM new.*) EXECUTE FUNCTION other.noted();
CREATE POLICY north ON other.events USING (region = 'north');
ALTER TABLE other.events ADD CHECK (global_seq > 0 AND stream_seq > 0);
CREATE INDEX by_n ON other.events ((body ->> 'n')) WHERE stream_seq > 1;
SET client_min_messages = warning;
CALL rf_adopt('other.events', tenant => 'o');
RESET client_min_messages;
SELECT * FROM checks.check_union('other') \gset
SELECT :events AS events, :broken_streams AS broken_streams;
-- and the way back asks the same
ALTER TABLE other.readers ALTER COLUMN source SET DEFAULT 'other.events'::regclass;
SELECT rf_flatten('o');
\echo :SQLSTATE
ALTER TABLE other.readers ALTER COLUMN source DROP DEFAULT;
CREATE POLICY known ON other.readers USING (EXISTS (SELECT FROM other.events_archive AS e WHERE e.event_type = name));
SELECT rf_flatten('o');
\echo :SQLSTATE
DROP POLICY known ON other.readers;
CREATE VIEW other.january AS SELECT global_seq FROM other.events_hot_2024_01;
SELECT rf_flatten('o');
\echo :SQLSTATE
DROP VIEW other.january;
SET client_min_messages = error;
CREATE PUBLICATION other_events FOR TABLE other.events;
RESET client_min_messages;
SELECT rf_flatten('o');
\echo :SQLSTATE
DROP PUBLICATION other_events;
\set VERBOSITY terse
SELECT rf_flatten('o');
\set VERBOSITY default

--
-- A sequence that the table draws from and does not own stays what it is
--
SELECT checks.make_source('other', 50);
CREATE SEQUENCE other.numbers START 1000;
ALTER TABLE other.events ALTER COLUMN global_seq SET DEFAULT nextval('other.numbers');
DROP SEQUENCE other.events_global_seq_seq;
CREATE TABLE other.more (n bigint DEFAULT nextval('other.numbers'), t text);
INSERT INTO other.more (t) VALUES ('a');
SET client_min_messages = warning;
CALL rf_adopt('other.events', tenant => 'o');
RESET client_min_messages;
INSERT INTO other.more (t) VALUES ('b') RETURNING n;
SELECT nextval('other.numbers') AS shared;
SELECT global_seq FROM rf_append(md5('3')::uuid, 'more', '{}', created_at => '2024-02-01 00:00+00', tenant => 'o');
DROP TABLE other.more;
\set VERBOSITY terse
SELECT rf_flatten('o');
\set VERBOSITY default
-- one that has the name of ours is named
SELECT checks.make_source('other', 50);
ALTER SEQUENCE other.events_global_seq_seq OWNED BY NONE;
CALL rf_adopt('other.events', tenant => 'o');
\echo :SQLSTATE

--
-- Rights that nobody had on the source nobody has on the store
--
SELECT checks.make_source('other', 50);
GRANT USAGE ON SCHEMA other TO regress_rillflow_app;
GRANT SELECT (stream_id) ON other.events TO regress_rillflow_app;
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO regress_rillflow_app;
SET client_min_messages = warning;
CALL rf_adopt('other.events', tenant => 'o');
RESET client_min_messages;
SELECT r.relname, has_table_privilege('regress_rillflow_app', r.oid, 'SELECT') AS reads, has_column_privilege('regress_rillflow_app', r.oid, 'stream_id', 'SELECT') AS reads_one
FROM pg_class AS r WHERE oid IN ('other.events'::regclass, 'other.events_archive'::regclass, 'other.events_all'::regclass, 'other.events_hot_2024_01'::regclass) ORDER BY relname;
\set VERBOSITY terse
SELECT rf_flatten('o');
\set VERBOSITY default
SELECT has_table_privilege('regress_rillflow_app', 'other.events', 'SELECT') AS reads, has_column_privilege('regress_rillflow_app', 'other.events', 'stream_id', 'SELECT') AS reads_one;
ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM regress_rillflow_app;

--
-- With an archive and streams beside it: the older event has the key, whatever tier it is in; CHECKs of
-- rf_streams come along; index names may be as long as names can be, and end as ours do
--
SELECT checks.make_source('other', 50);
ALTER TABLE other.events ADD COLUMN headers jsonb NOT NULL DEFAULT '{}';
CREATE TABLE other.events_archive (LIKE other.events INCLUDING ALL);
WITH old AS (DELETE FROM other.events WHERE stream_seq <= 2 RETURNING *) INSERT INTO other.events_archive SELECT * FROM old;
UPDATE other.events SET headers = '{"idempotency_key": "one"}' WHERE stream_id = md5('3')::uuid AND stream_seq = 4;
UPDATE other.events_archive SET headers = '{"idempotency_key": "one"}' WHERE stream_id = md5('3')::uuid AND stream_seq = 2;
CREATE TABLE other.rf_streams (stream_id uuid PRIMARY KEY, archived_at timestamptz, colour text NOT NULL, CONSTRAINT known_colour CHECK (colour IN ('red', 'blue')));
CALL rf_adopt('other.events', tenant => 'o');
\echo :SQLSTATE
ALTER TABLE other.rf_streams ALTER COLUMN colour SET DEFAULT 'red';
INSERT INTO other.rf_streams (stream_id) SELECT DISTINCT stream_id FROM other.events;
CREATE INDEX an_index_with_a_name_of_sixty_three_bytes_which_is_the_most_of_ ON other.events (event_type);
CREATE INDEX an_index_with_a_name_of_sixty_three_bytes_which_is_the_most_ot_ ON other.events_archive (event_type);
CREATE INDEX my_interim_ix ON other.events (region);
CREATE INDEX by_interim ON other.events (region, event_type);
-- into an empty store whose cold tier is the other one
CREATE SCHEMA checks_third;
SELECT rf_install('checks_third', 't');
SELECT rf_archive_set_backend('partitioned', 't');
SET client_min_messages = warning;
CALL rf_adopt('other.events', tenant => 't');
RESET client_min_messages;
SELECT backend, default_events FROM rf_archive_status('t');
SELECT event_type, stream_seq, retention_class FROM rf_read_stream(md5('3')::uuid, tenant => 't') ORDER BY stream_seq;
SELECT stream_seq FROM checks_third.rf_event_keys WHERE idempotency_key = 'one';
SELECT stream_seq FROM rf_append(md5('77')::uuid, 'new', '{}', created_at => '2024-02-01 00:00+00', tenant => 't');
SELECT conname FROM pg_constraint WHERE conrelid = 'checks_third.rf_streams'::regclass AND contype = 'c' ORDER BY conname COLLATE "C";
SELECT rf_archive_set_backend('partitioned', 't');
SELECT events, broken_streams FROM checks.check_union('checks_third');
\set VERBOSITY terse
SELECT rf_flatten('t');
\set VERBOSITY default
SELECT tablename, indexname FROM pg_indexes WHERE schemaname = 'checks_third' AND tablename ~ '^events' ORDER BY tablename, indexname COLLATE "C";
SET client_min_messages = warning;
CALL rf_adopt('checks_third.events', tenant => 't');
RESET client_min_messages;
SELECT events, broken_streams FROM checks.check_union('checks_third');
SET client_min_messages = error;
DROP SCHEMA checks_third CASCADE;
RESET client_min_messages;

--
-- Names that we use ourselves, or look for; an identity column; streams without a row
--
SELECT checks.make_source('other', 50);
ALTER TABLE other.events ADD COLUMN e text, ADD COLUMN bucket_month date DEFAULT '2024-01-01', ALTER COLUMN global_seq DROP DEFAULT;
DROP SEQUENCE other.events_global_seq_seq;
ALTER TABLE other.events ALTER COLUMN global_seq ADD GENERATED BY DEFAULT AS IDENTITY (START 51);
GRANT USAGE ON SCHEMA other TO regress_rillflow_app;
GRANT SELECT, INSERT ON other.events TO regress_rillflow_app;
CREATE FUNCTION other.seen () RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'seen %', new.event_type; RETURN new; END $$;
CREATE TRIGGER " ON other.events x" BEFORE INSERT ON other.events FOR EACH ROW EXECUTE FUNCTION other.seen();
CREATE TABLE other.rf_streams (stream_id uuid PRIMARY KEY, colour text DEFAULT 'red', rank integer NOT NULL DEFAULT 2 + 3);
INSERT INTO other.rf_streams VALUES (md5('3')::uuid, 'blue', 1);
CREATE POLICY this_month ON other.events USING (bucket_month > '2024-01-01');
CALL rf_adopt('other.events', tenant => 'o');
\echo :SQLSTATE
DROP POLICY this_month ON other.events;
CREATE TABLE other.events_archive (LIKE other.events);
ALTER TABLE other.events_archive DROP COLUMN region, ADD UNIQUE (global_seq), ADD UNIQUE (stream_id, stream_seq);
CALL rf_adopt('other.events', tenant => 'o');
\echo :SQLSTATE
ALTER TABLE other.events_archive ADD COLUMN region text NOT NULL DEFAULT 'nowhere';
SET client_min_messages = warning;
CALL rf_adopt('other.events', tenant => 'o');
RESET client_min_messages;
SELECT colour, rank, count(*) FROM other.rf_streams GROUP BY colour, rank ORDER BY colour;
SELECT tgname, count(*) FROM pg_trigger WHERE tgname ~ 'ON other' AND tgparentid = 0 GROUP BY tgname;
SELECT detail ~ 'checksum -?[1-9]' AS checksum FROM other.rf_archive_log WHERE action = 'adopt';
SET ROLE regress_rillflow_app;
INSERT INTO other.events (stream_id, stream_seq, event_type, body, created_at, bucket_month) VALUES (md5('3')::uuid, 6, 'x', '{}', '2024-02-01 00:00+00', '2024-02-01');
RESET ROLE;
SELECT events, broken_streams FROM checks.check_union('other');
SELECT rf_flatten('o');
SELECT regexp_replace(detail, '-?[1-9][0-9]{6,}', 'N') AS detail FROM other.rf_archive_log WHERE action = 'flatten';

--
-- Our trigger on a table of somebody else's: columns of other types, and notes that are none
--
CREATE SCHEMA checks_notes;
CREATE TABLE checks_notes.rf_adopt_changes (kind "char", stream_id uuid, stream_seq integer, created_at timestamptz, global_seq bigint);
CREATE TABLE checks_notes.t (stream_id bigint, stream_seq text, created_at integer, global_seq text);
CREATE TRIGGER x AFTER INSERT OR UPDATE OR DELETE ON checks_notes.t FOR EACH ROW EXECUTE FUNCTION rf_adopt_changed('checks_notes');
INSERT INTO checks_notes.t VALUES (42, 'a', 7, 'b');
UPDATE checks_notes.t SET stream_id = NULL;
SELECT kind, stream_id, stream_seq, created_at, global_seq FROM checks_notes.rf_adopt_changes;
ALTER TABLE checks_notes.rf_adopt_changes ADD COLUMN note text;
INSERT INTO checks_notes.t VALUES (43);
ALTER TABLE checks_notes.rf_adopt_changes DROP COLUMN note;
INSERT INTO checks_notes.t VALUES (44);
SELECT count(*) FROM checks_notes.rf_adopt_changes;
DROP TABLE checks_notes.rf_adopt_changes;
INSERT INTO checks_notes.t VALUES (45);
SELECT count(*) FROM checks_notes.t;
DROP SCHEMA checks_notes CASCADE;
