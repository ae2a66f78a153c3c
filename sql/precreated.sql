-- What somebody has put into the schema before CREATE EXTENSION.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set without_store on
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
\set ECHO all

CREATE TABLE checks.parted (a int) PARTITION BY LIST (a);
CREATE ROLE regress_rillflow_hostile;
GRANT CREATE, USAGE ON SCHEMA store TO regress_rillflow_hostile;
CREATE FUNCTION checks.left_over () RETURNS TABLE (extension bigint, functions bigint, relations bigint) LANGUAGE sql AS $$
	SELECT (SELECT count(*) FROM pg_extension WHERE extname = 'rillflow'), (SELECT count(*) FROM pg_proc WHERE pronamespace = 'store'::regnamespace), (SELECT count(*) FROM pg_class WHERE relnamespace = 'store'::regnamespace AND relkind IN ('r', 'p', 'v', 'S', 'f', 'm', 'c'))
$$;

--
-- Functions and types of our names: CREATE EXTENSION fails, and leaves nothing.
--
SET ROLE regress_rillflow_hostile;
CREATE FUNCTION store.rf_events_open () RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'hostile'; END $$;
RESET ROLE;
CREATE EXTENSION rillflow SCHEMA store;
\echo :SQLSTATE
SELECT * FROM checks.left_over();
DROP FUNCTION store.rf_events_open();
SET ROLE regress_rillflow_hostile;
CREATE FUNCTION store.rf_archive_redirect_enabled (tenant text DEFAULT NULL) RETURNS boolean LANGUAGE sql AS 'SELECT false';
RESET ROLE;
CREATE EXTENSION rillflow SCHEMA store;
\echo :SQLSTATE
DROP FUNCTION store.rf_archive_redirect_enabled(text);
-- the one that the script makes for itself, and drops
SET ROLE regress_rillflow_hostile;
CREATE FUNCTION store.rf_create_default_store () RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'hostile'; END $$;
RESET ROLE;
CREATE EXTENSION rillflow SCHEMA store;
\echo :SQLSTATE
DROP FUNCTION store.rf_create_default_store();
-- one that could be meant instead of it
SET ROLE regress_rillflow_hostile;
CREATE FUNCTION store.rf_create_default_store (int DEFAULT 1) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'hostile'; END $$;
RESET ROLE;
\set VERBOSITY sqlstate
CREATE EXTENSION rillflow SCHEMA store;
\set VERBOSITY default
DROP FUNCTION store.rf_create_default_store(int);
-- the registry
SET ROLE regress_rillflow_hostile;
CREATE TABLE store.rf_stores (schema name, tenant text, tenancy text, layout_version int);
RESET ROLE;
CREATE EXTENSION rillflow SCHEMA store;
\echo :SQLSTATE
DROP TABLE store.rf_stores;
SELECT * FROM checks.left_over();

-- A function of the same name that takes other arguments is another function; ours is found all the same.
SET ROLE regress_rillflow_hostile;
CREATE FUNCTION store.rf_events_open (int) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION store.pg_extension_config_dump (text, text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'hostile'; END $$;
CREATE FUNCTION store.now () RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'hostile'; END $$;
CREATE FUNCTION store.date_trunc (text, timestamp) RETURNS timestamp LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'hostile'; END $$;
CREATE FUNCTION store.equal (text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'hostile'; END $$;
CREATE OPERATOR store.= (LEFTARG = text, RIGHTARG = text, FUNCTION = store.equal);
CREATE DOMAIN store.uuid AS pg_catalog.text;
CREATE DOMAIN store.bigint AS pg_catalog.text;
RESET ROLE;
CREATE EXTENSION rillflow SCHEMA store;
\echo :SQLSTATE
SELECT DISTINCT tgfoid::regproc::text FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = tgrelid WHERE relnamespace = 'store'::regnamespace AND NOT tgisinternal ORDER BY 1;
SELECT DISTINCT attname, atttypid::regtype FROM pg_attribute WHERE attrelid = to_regclass('store.events') AND attname IN ('stream_id', 'global_seq') ORDER BY 1;
SELECT stream_seq FROM rf_append('00000000-0000-0000-0000-000000000001', 'a', '{}', created_at => '2024-01-01 00:00+00');
SELECT events_moved FROM rf_archive_move('infinity');
SELECT events, broken_streams FROM check_union('store');
SET client_min_messages = error;
DROP EXTENSION rillflow CASCADE;
DROP SCHEMA store CASCADE;
RESET client_min_messages;

--
-- Tables of our names: CREATE EXTENSION warns and touches nothing, and rf_install() refuses what is no store of the caller's.
--
CREATE SCHEMA store;
GRANT CREATE, USAGE ON SCHEMA store TO regress_rillflow_hostile;
SET ROLE regress_rillflow_hostile;
CREATE TABLE store.events (secret text);
CREATE RULE r AS ON INSERT TO store.events DO INSTEAD NOTHING;
RESET ROLE;
CREATE EXTENSION rillflow SCHEMA store;
SELECT count(*) FROM rf_stores;
SELECT * FROM rf_append('00000000-0000-0000-0000-000000000001', 'a', '{}');
\echo :SQLSTATE
SELECT rf_install('store');
\echo :SQLSTATE
SELECT relname, relowner::regrole, relhasrules, relhastriggers FROM pg_class WHERE relnamespace = 'store'::regnamespace AND relkind = 'r' AND relname <> 'rf_stores' ORDER BY relname;
DROP TABLE store.events;
SELECT rf_install('store');
SELECT stream_seq FROM rf_append('00000000-0000-0000-0000-000000000001', 'a', '{}');
SET client_min_messages = error;
DROP EXTENSION rillflow CASCADE;
DROP SCHEMA store CASCADE;
RESET client_min_messages;

-- A single name is enough, of any kind of relation.
CREATE FUNCTION checks.with_relation (ddl text) RETURNS TABLE (extension bigint, functions bigint, relations bigint, install text) LANGUAGE plpgsql AS $$
BEGIN
	SET LOCAL client_min_messages = error;
	SET LOCAL search_path = store, pg_catalog;
	CREATE SCHEMA store;
	EXECUTE ddl;
	CREATE EXTENSION rillflow SCHEMA store;
	SELECT l.* INTO extension, functions, relations FROM checks.left_over() AS l;
	install := checks.try('SELECT rf_install(''store'')');
	RETURN NEXT;
	DROP SCHEMA store CASCADE;
END $$;
SELECT w.*, ddl FROM unnest(ARRAY['CREATE TABLE store.rf_streams (a int)', 'CREATE VIEW store.events_all AS SELECT 1 AS a', 'CREATE SEQUENCE store.events_global_seq_seq', 'CREATE TYPE store.rf_archive_log AS (a int)', 'CREATE TABLE store.events_hot_default (a int)',
	'CREATE MATERIALIZED VIEW store.rf_event_keys AS SELECT 1 AS a', 'CREATE TABLE store.events_cold PARTITION OF checks.parted FOR VALUES IN (1)', 'CREATE TABLE store.something_else (a int)']) AS ddl, checks.with_relation(ddl) AS w;

-- A whole store of somebody else's, a trap in every table: taken up by nobody but its owner, and then without the rights of others.
CREATE SCHEMA store;
CREATE EXTENSION rillflow SCHEMA store;
GRANT CREATE, USAGE ON SCHEMA store TO regress_rillflow_hostile;
DO $$
DECLARE
	name text;
BEGIN
	FOR name IN SELECT format('%s %I.%I', CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, 'store', relname) FROM pg_class
		WHERE relnamespace = 'store'::regnamespace AND relkind IN ('r', 'p', 'v') AND relname NOT IN ('rf_stores', 'rf_armed', 'rf_worker_status') LOOP
		EXECUTE 'ALTER ' || name || ' OWNER TO regress_rillflow_hostile';
	END LOOP;
END $$;
SET client_min_messages = error;
DROP EXTENSION rillflow CASCADE;
RESET client_min_messages;
SET ROLE regress_rillflow_hostile;
CREATE TABLE store.caught (who text);
CREATE FUNCTION store.trap () RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO store.caught VALUES (current_user); RETURN NEW; END $$;
CREATE FUNCTION store.trap_default () RETURNS text LANGUAGE plpgsql AS $$ BEGIN INSERT INTO store.caught VALUES (current_user); RETURN NULL; END $$;
CREATE TRIGGER trap BEFORE INSERT OR UPDATE ON store.rf_streams FOR EACH ROW EXECUTE FUNCTION store.trap();
CREATE TRIGGER trap BEFORE INSERT ON store.rf_archive_log FOR EACH ROW EXECUTE FUNCTION store.trap();
CREATE TRIGGER trap BEFORE INSERT ON store.events FOR EACH ROW EXECUTE FUNCTION store.trap();
ALTER TABLE store.rf_streams ALTER COLUMN tenant_id SET DEFAULT store.trap_default();
RESET ROLE;
CREATE EXTENSION rillflow SCHEMA store;
SELECT * FROM rf_stores;
SELECT count(*) FROM store.caught;
SELECT * FROM rf_append('00000000-0000-0000-0000-000000000001', 'a', '{}');
\echo :SQLSTATE
SELECT count(*) FROM store.caught;
-- Whoever takes it up on purpose runs its bookkeeping with its owner's rights; only an INSERT of his own is his own.
SELECT rf_install('store');
SELECT count(*) FROM store.caught;
SELECT 1 AS marked FROM rf_archive_mark('00000000-0000-0000-0000-000000000001');
SELECT events_moved FROM rf_archive_move('infinity');
SELECT rf_archive_set_notify(true);
SELECT DISTINCT who FROM store.caught;
-- Tables that only bear our names are no store, whatever triggers their owner puts on them; nor is a store whose
-- tables were altered under it.
CREATE SCHEMA fake AUTHORIZATION regress_rillflow_hostile;
SET ROLE regress_rillflow_hostile;
CREATE TABLE fake.events (a integer);
CREATE TABLE fake.events_hot (a integer);
CREATE TABLE fake.events_cold (a integer);
CREATE TABLE fake.events_archive (a integer);
CREATE TABLE fake.events_all (a integer);
CREATE TABLE fake.rf_streams (a integer);
CREATE TABLE fake.rf_streams_pkey (a integer);
CREATE TABLE fake.rf_event_keys (a integer);
CREATE TABLE fake.rf_archive_log (a integer);
CREATE SEQUENCE fake.events_global_seq_seq;
CREATE TABLE fake.rf_archive_config (a integer, backend bigint, redirect boolean, include boolean, notify boolean);
INSERT INTO fake.rf_archive_config VALUES (1, 4242424242, true, true, true);
CREATE TRIGGER open BEFORE INSERT ON fake.events FOR EACH STATEMENT EXECUTE FUNCTION store.rf_events_open();
INSERT INTO fake.events VALUES (1);
\echo :SQLSTATE
RESET ROLE;
ALTER TABLE store.rf_archive_config ALTER COLUMN backend DROP NOT NULL;
INSERT INTO store.rf_archive_config (backend) VALUES (NULL) ON CONFLICT (singleton) DO UPDATE SET backend = NULL;
SELECT backend FROM rf_archive_status();
ALTER TABLE store.rf_archive_config DROP CONSTRAINT rf_archive_config_backend_check, ALTER COLUMN backend DROP DEFAULT, ALTER COLUMN backend TYPE bigint USING 4242424242;
SELECT backend FROM rf_archive_status();
\echo :SQLSTATE
SET client_min_messages = error;
DROP SCHEMA fake CASCADE;
SET client_min_messages = error;
DROP EXTENSION rillflow CASCADE;
DROP SCHEMA store CASCADE;
DROP OWNED BY regress_rillflow_hostile;
DROP ROLE regress_rillflow_hostile;
