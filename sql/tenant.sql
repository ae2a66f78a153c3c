-- Tenants with a schema each: names, every function in a store of a tenant, who may do what with whose, all stores at once, owners, layouts.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
\set ECHO all

-- What a call gives: its SQLSTATE, or ok.
CREATE FUNCTION checks.code (statement text) RETURNS text LANGUAGE sql
AS $$ SELECT CASE WHEN t = 'no error' THEN 'ok' ELSE left(t, 5) END FROM checks.try(statement) AS t $$;
CREATE FUNCTION checks.code_as (who name, statement text) RETURNS text LANGUAGE plpgsql
AS $$
DECLARE
	result text;
BEGIN
	PERFORM set_config('role', who, true);
	result := checks.code(statement);
	PERFORM set_config('role', 'none', true);
	RETURN result;
END
$$;
GRANT USAGE ON SCHEMA checks, store TO PUBLIC;

--
-- Names
--
CREATE TABLE checks.tenants (n int GENERATED ALWAYS AS IDENTITY, tenant text, schema name);
INSERT INTO checks.tenants (tenant) VALUES ('plain'), ('UPPER Case'), ('O''Brien "x"'), ('select'), ('%s %L %I'), (' '), ('$$; DROP TABLE x; --'), (E'a\nb\tc\\d'), ('..'), ('tenant_x'),
	(U&'\00e9 \00fc \6f22\5b57'), (repeat(U&'\6f22', 21)), (repeat('w', 56)), ('*x'), ('NULL'), ('{events}');
UPDATE checks.tenants AS t SET schema = rf_create_tenant(tenant) FROM (SELECT n FROM checks.tenants ORDER BY n) AS o WHERE o.n = t.n;
SELECT n, schema, nspowner::regrole = current_user::regrole AS own FROM checks.tenants JOIN pg_namespace ON nspname = schema ORDER BY n;
SELECT n, t.tenant = c.tenant AND t.schema = c.schema AS same, tenancy, owner = current_user AS own, layout_version, state FROM rf_tenants() AS t FULL JOIN checks.tenants AS c USING (tenant) ORDER BY n;
SELECT name, checks.try(format('SELECT rf_create_tenant(%L)', name)) FROM unnest(ARRAY[NULL, '', '*', 'plain', 'PLAIN', 'Plain', 'upper-case', '. .', repeat('w', 57), repeat('w', 64), repeat(U&'\6f22', 22)]) AS name;
CREATE SCHEMA tenant_taken;
SELECT checks.try($$SELECT rf_create_tenant('taken')$$);
-- What the hint says.
SELECT rf_install('tenant_taken', 'taken');
SELECT checks.try($$SELECT rf_create_tenant('taken')$$);
SELECT rf_drop_tenant('taken', 'taken');
SELECT to_regnamespace('tenant_taken');
-- A schema with some relations of our names is refused untouched, be the tenant's name its own or another.
CREATE SCHEMA tenant_half;
CREATE TABLE tenant_half.events (a int);
SELECT checks.try($$SELECT rf_create_tenant('half')$$), checks.try($$SELECT rf_install('tenant_half', 'half')$$);
SELECT relname, relnatts FROM pg_class WHERE relnamespace = 'tenant_half'::regnamespace;
DROP SCHEMA tenant_half CASCADE;
-- A tenant whose schema is gone can be made again.
SELECT rf_create_tenant('gone');
SET client_min_messages = warning;
DROP SCHEMA tenant_gone CASCADE;
RESET client_min_messages;
SELECT checks.try($$SELECT rf_read_all(tenant => 'gone')$$), checks.try($$SELECT rf_drop_tenant('gone', 'gone')$$);
SELECT rf_create_tenant('gone');
SELECT rf_drop_tenant('gone', 'gone');
SELECT checks.try($$SELECT rf_read_all(tenant => 'gone')$$), checks.try($$SELECT rf_read_all(tenant => '')$$);

--
-- Every function, in the store of every tenant
--
-- %1$L is the tenant, %2$L its schema. What has no line here is missing in a query below.
CREATE TABLE checks.calls (n int GENERATED ALWAYS AS IDENTITY, call text);
INSERT INTO checks.calls (call) VALUES
	($$rf_append(lpad('9', 32, '0')::uuid, 'e', '{}', tenant => %1$L)$$), ($$rf_append_batch(lpad('9', 32, '0')::uuid, '[{"type": "e", "body": 1}]', tenant => %1$L)$$),
	($$rf_read_stream(lpad('1', 32, '0')::uuid, tenant => %1$L)$$), ($$rf_read_all(tenant => %1$L)$$),
	($$rf_consumer_advance('c', 6, tenant => %1$L)$$), ($$rf_consumer_remove('c', tenant => %1$L)$$), ($$rf_prune_keys('-infinity', tenant => %1$L)$$),
	($$rf_archive_mark(lpad('1', 32, '0')::uuid, tenant => %1$L)$$), ($$rf_archive_reactivate(lpad('2', 32, '0')::uuid, tenant => %1$L)$$),
	($$rf_hold(lpad('1', 32, '0')::uuid, 'case', tenant => %1$L)$$), ($$rf_release(lpad('2', 32, '0')::uuid, tenant => %1$L)$$), ($$rf_redact(lpad('1', 32, '0')::uuid, 1, 'asked for', tenant => %1$L)$$),
	($$rf_archive_move('infinity', tenant => %1$L)$$), ($$rf_archive_move('infinity', dry_run => true, tenant => %1$L)$$),
	($$rf_archive_plan('infinity', tenant => %1$L)$$), ($$rf_archive_candidates('infinity', tenant => %1$L)$$), ($$rf_archive_status(tenant => %1$L)$$), ($$rf_partitions(tenant => %1$L)$$), ($$rf_metrics(tenant => %1$L)$$), ($$rf_metrics_text(tenant => %1$L)$$),
	($$rf_archive_redirect_enabled(tenant => %1$L)$$), ($$rf_archive_set_redirect(true, tenant => %1$L)$$), ($$rf_archive_set_include_archived(true, tenant => %1$L)$$), ($$rf_archive_set_notify(true, tenant => %1$L)$$), ($$rf_archive_set_backend('partitioned', tenant => %1$L)$$),
	($$rf_policy_set('q', '1 year', tenant => %1$L)$$), ($$rf_policy_pause('p', tenant => %1$L)$$), ($$rf_policy_resume('p', tenant => %1$L)$$), ($$rf_policy_run('p', tenant => %1$L)$$), ($$rf_policy_arm(tenant => %1$L)$$), ($$rf_policy_due('2024-06-01 00:00+00', tenant => %1$L)$$), ($$rf_policy_remove('p', tenant => %1$L)$$),
	($$rf_create_partition('cold', '2031-01-01', tenant => %1$L)$$), ($$rf_drop_partition('hot', '2032-01-01', tenant => %1$L)$$), ($$rf_drain_default(tenant => %1$L)$$), ($$rf_flip_partition('2024-01-01', 'cold', tenant => %1$L)$$),
	($$rf_prune_log('-infinity', tenant => %1$L)$$), ($$rf_flatten(tenant => %1$L)$$), ($$rf_upgrade_store(tenant => %1$L)$$), ($$rf_enable_rls('app.tenant', tenant => %1$L)$$), ($$rf_disable_rls(tenant => %1$L)$$), ($$rf_set_owner(current_user, tenant => %1$L)$$),
	($$rf_install(%2$L, %1$L)$$), ($$rf_uninstall(%2$L, %2$L, true)$$), ($$rf_create_tenant(%1$L || '.')$$), ($$rf_drop_tenant(%1$L, %1$L, true)$$), ($$rf_tenants()$$),
	($$rf_worker_start()$$), ($$rf_worker_list()$$), ($$rf_archive_run('infinity', tenant => %1$L)$$), ($$rf_adopt('checks.tenants', tenant => %1$L)$$);
SELECT p.oid::regprocedure AS without_a_line FROM pg_proc AS p
WHERE pronamespace = 'store'::regnamespace AND prorettype <> 'trigger'::regtype AND NOT EXISTS (SELECT FROM checks.calls WHERE starts_with(call, p.proname || '(') AND (NOT 'tenant' = ANY (coalesce(p.proargnames[:pronargs], '{}')) OR call LIKE '%\%1$L%'));
CREATE VIEW checks.functions AS SELECT n, call, 'SELECT count(*) FROM ' || call AS statement FROM checks.calls WHERE call !~ '^rf_(archive_run|adopt|worker_start)\(';
-- The same in each store: two streams, one of them marked; months; a policy; a consumer that has read all.
CREATE FUNCTION checks.fill (tenant text) RETURNS void LANGUAGE sql AS $$
	SELECT rf_create_partition('hot', m, tenant => $1) FROM unnest(ARRAY['2024-01-01', '2024-02-01', '2032-01-01']::date[]) AS m;
	SELECT rf_append(lpad(s::text, 32, '0')::uuid, 'of ' || $1, jsonb_build_object('tenant', $1), jsonb_build_object('idempotency_key', $1 || s || m), created_at => make_timestamptz(2024, m, s, 0, 0, 0, 'UTC'), tenant => $1)
	FROM generate_series(1, 2) AS s, generate_series(1, 3) AS m;
	SELECT rf_archive_mark(lpad('2', 32, '0')::uuid, $1, tenant => $1);
	SELECT rf_policy_set('p', '1 year', tenant => $1);
	SELECT rf_consumer_advance('c', 6, tenant => $1);
$$;
SET client_min_messages = warning;
SELECT count(checks.fill(tenant)) FROM checks.tenants;
SELECT DISTINCT k.* FROM checks.tenants, checks.check_keep(schema) AS k;
SELECT * FROM checks.check_keep();
SET client_min_messages = error;
SELECT replace(replace(call, '%1$L', 'T'), '%2$L', 'S') AS call, outcome, count(*)
FROM checks.functions AS f, checks.tenants, LATERAL checks.try(format(statement, tenant, schema)) AS outcome GROUP BY f.n, call, outcome ORDER BY f.n, outcome COLLATE "C";
SELECT DISTINCT s.* FROM checks.tenants, checks.check_same(schema) AS s;
-- They work in that store, and in no other.
SELECT count(*), bool_and(s.schema = t.schema AND s.tenant = t.tenant) AS own, sum(hot_streams) AS active, sum(cold_streams) AS archived FROM checks.tenants AS t, rf_archive_status(t.tenant) AS s;
SELECT count(*), bool_and(event_type = 'of ' || tenant) AS own FROM checks.tenants AS t, rf_read_all(include_archived => true, tenant => t.tenant) AS e;
SELECT count(*), bool_and(source::text LIKE quote_ident(schema) || '.%') AS own, sum(events) AS events FROM checks.tenants AS t, rf_archive_plan('infinity', tenant => t.tenant) AS p;
SELECT format('CALL rf_archive_run(''2024-02-15 00:00+00'', tenant => %L)', tenant) FROM checks.tenants WHERE n % 2 = 0 ORDER BY n
\gexec
SELECT n % 2 = 0 AS even, count(*), sum(cold_events) AS cold, sum(hot_events) AS hot FROM (SELECT n, (SELECT count(*) FROM rf_read_all(include_archived => true, tenant => t.tenant) WHERE retention_class = 'cold') AS cold_events, (SELECT count(*) FROM rf_read_all(include_archived => true, tenant => t.tenant) WHERE retention_class = 'hot') AS hot_events FROM checks.tenants AS t) AS t GROUP BY 1 ORDER BY 1;
SELECT DISTINCT s.* FROM checks.tenants, checks.check_same(schema) AS s;
SELECT * FROM checks.check_same();
-- A plain table is adopted for a tenant of any name.
CREATE SCHEMA other;
CREATE TABLE other.events (global_seq bigserial PRIMARY KEY, stream_id uuid NOT NULL, stream_seq int NOT NULL, event_type text NOT NULL, body jsonb NOT NULL, created_at timestamptz NOT NULL DEFAULT now(), UNIQUE (stream_id, stream_seq));
INSERT INTO other.events (stream_id, stream_seq, event_type, body, created_at) SELECT lpad('1', 32, '0')::uuid, n, 'e', '{}', '2024-01-01 00:00+00' FROM generate_series(1, 3) AS n;
CALL rf_adopt('other.events', E'it''s "%s"\n*');
SELECT count(*) FROM rf_read_all(tenant => E'it''s "%s"\n*');
SELECT rf_drop_tenant(E'it''s "%s"\n*', E'it''s "%s"\n*');
\echo :SQLSTATE
RESET client_min_messages;

--
-- Dropping
--
SELECT checks.try($$SELECT rf_drop_tenant('plain', NULL)$$), checks.try($$SELECT rf_drop_tenant('plain', 'Plain', true)$$), checks.try($$SELECT rf_drop_tenant(NULL, NULL)$$), checks.try($$SELECT rf_drop_tenant('*', '*', true)$$);
SELECT checks.try($$SELECT rf_drop_tenant('plain', 'plain')$$);
CREATE TABLE tenant_plain.own (a int);
SELECT rf_drop_tenant('plain', 'plain', true);
CREATE VIEW checks.on_events AS SELECT count(*) FROM tenant_plain.events;
SELECT rf_drop_tenant('plain', 'plain', true);
SELECT * FROM checks.check_same('tenant_plain');
DROP VIEW checks.on_events;
DROP TABLE tenant_plain.own;
SELECT rf_hold(lpad('1', 32, '0')::uuid, 'case', tenant => 'plain');
SELECT rf_drop_tenant('plain', 'plain', true);
SELECT rf_release(lpad('1', 32, '0')::uuid, tenant => 'plain');
SELECT * FROM checks.check_same('tenant_plain');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT rf_drop_tenant('plain', 'plain', true);
\echo :SQLSTATE
ROLLBACK;
SELECT rf_drop_tenant('plain', 'plain', true);
SELECT to_regnamespace('tenant_plain'), (SELECT count(*) FROM rf_tenants() WHERE tenant = 'plain') AS tenants, (SELECT count(*) FROM rf_armed WHERE schema = 'tenant_plain') AS armed;
SET client_min_messages = error;
SELECT count(*) FROM (SELECT rf_drop_tenant(tenant, tenant, true) FROM checks.tenants WHERE n > 1) AS t;
SELECT rf_drop_tenant(E'it''s "%s"\n*', E'it''s "%s"\n*', true);
RESET client_min_messages;
SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'tenant%' OR nspname = 'other';
SELECT count(*) AS tenants, (SELECT count(*) FROM rf_armed) AS armed FROM rf_tenants();
SELECT action, count(*), sum(events) AS events, bool_and(estimated = (events > 0)) AS marked FROM rf_archive_log WHERE action LIKE 'tenant %' GROUP BY 1;
SELECT detail, events FROM rf_archive_log WHERE action = 'tenant dropped' AND detail LIKE '%tenant_plain';

--
-- Who may do what: function × tenant × role
--
CREATE ROLE regress_rillflow_owner_a;
CREATE ROLE regress_rillflow_owner_b;
CREATE ROLE regress_rillflow_app_a;
CREATE ROLE regress_rillflow_reader_a;
CREATE ROLE regress_rillflow_archivist_a;
CREATE ROLE regress_rillflow_consumer_a IN ROLE regress_rillflow_reader_a;
CREATE ROLE regress_rillflow_stranger;
-- An owner: EXECUTE on what is not for everybody, and CREATE on the database.
\set ECHO none
SELECT format('GRANT EXECUTE ON ROUTINE %s TO regress_rillflow_owner_a, regress_rillflow_owner_b', oid::regprocedure) FROM pg_proc WHERE pronamespace = 'store'::regnamespace AND prorettype <> 'trigger'::regtype AND proname <> 'rf_worker_start'
\gexec
\set ECHO all
SELECT checks.code_as('regress_rillflow_owner_a', $$SELECT rf_create_tenant('a')$$) AS without_create;
SELECT format('GRANT CREATE ON DATABASE %I TO regress_rillflow_owner_a, regress_rillflow_owner_b', current_database())
\gexec
SET client_min_messages = warning;
ALTER ROLE regress_rillflow_owner_a LOGIN;
ALTER ROLE regress_rillflow_owner_b LOGIN;
SET ROLE regress_rillflow_owner_a;
SELECT rf_create_tenant('a');
SELECT checks.fill('a');
GRANT USAGE ON SCHEMA tenant_a TO regress_rillflow_app_a, regress_rillflow_reader_a, regress_rillflow_archivist_a;
GRANT USAGE ON SEQUENCE tenant_a.events_global_seq_seq TO regress_rillflow_app_a;
GRANT INSERT (stream_id, stream_seq, event_type, body, headers, causation_id, correlation_id, event_version, tenant_id, user_id, is_tombstone, created_at, bucket_month) ON tenant_a.events TO regress_rillflow_app_a;
GRANT SELECT ON tenant_a.events_all, tenant_a.events, tenant_a.events_archive TO regress_rillflow_reader_a;
GRANT UPDATE ON tenant_a.rf_streams TO regress_rillflow_archivist_a;
GRANT SELECT, UPDATE ON tenant_a.rf_consumers TO regress_rillflow_consumer_a;
SET ROLE regress_rillflow_owner_b;
SELECT rf_create_tenant('b');
SELECT checks.fill('b');
RESET ROLE;
SELECT k.* FROM unnest(ARRAY['tenant_a', 'tenant_b']) AS schema, checks.check_keep(schema) AS k;
-- In tenant a, and in tenant b, which is of others.
CREATE FUNCTION checks.both (who name, statement text) RETURNS text LANGUAGE sql
AS $$ SELECT checks.code_as('regress_rillflow_' || who, format(statement, 'a', 'tenant_a')) || ' ' || checks.code_as('regress_rillflow_' || who, format(statement, 'b', 'tenant_b')) $$;
SELECT replace(replace(call, '%1$L', 'T'), '%2$L', 'S') AS call, checks.both('owner_a', s) AS owner_a, checks.both('app_a', s) AS app_a, checks.both('reader_a', s) AS reader_a, checks.both('archivist_a', s) AS archivist_a, checks.both('consumer_a', s) AS consumer_a, checks.both('stranger', s) AS stranger
FROM checks.calls, LATERAL (SELECT CASE WHEN call ~ '^rf_(archive_run|adopt)' THEN 'CALL ' ELSE 'SELECT count(*) FROM ' END || call) AS t(s) ORDER BY n;
-- The tables, by hand.
SELECT statement, checks.both('owner_a', s) AS owner_a, checks.both('app_a', s) AS app_a, checks.both('reader_a', s) AS reader_a, checks.both('archivist_a', s) AS archivist_a, checks.both('consumer_a', s) AS consumer_a, checks.both('stranger', s) AS stranger
FROM unnest(ARRAY['INSERT INTO events (stream_id, event_type, body) VALUES (lpad(''9'', 32, ''0'')::uuid, ''e'', ''{}'')', 'INSERT INTO events (global_seq, stream_id, event_type, body) VALUES (99, lpad(''9'', 32, ''0'')::uuid, ''e'', ''{}'')', 'INSERT INTO events_archive SELECT * FROM events_archive', 'UPDATE events SET body = ''1''', 'DELETE FROM events', 'TRUNCATE events',
	'SELECT count(*) FROM events', 'SELECT count(*) FROM events_all', 'SELECT count(*) FROM events_archive', 'SELECT count(*) FROM events_hot_2024_01', 'SELECT count(*) FROM rf_streams', 'SELECT count(*) FROM rf_archive_log', 'SELECT count(*) FROM rf_archive_policies', 'SELECT count(*) FROM rf_consumers', 'UPDATE rf_streams SET updated_at = now()', 'DELETE FROM rf_archive_log', 'DROP TABLE rf_event_keys', 'SELECT count(*) FROM store.rf_stores']) AS statement,
	LATERAL (SELECT regexp_replace(statement, '(INTO|FROM|UPDATE|TRUNCATE|TABLE) (events|rf_)', '\1 %2$s.\2', 'g')) AS t(s);
-- The procedure, which can't be tried.
SET ROLE regress_rillflow_reader_a;
CALL rf_archive_run('infinity', tenant => 'a');
\echo :SQLSTATE
SET ROLE regress_rillflow_archivist_a;
CALL rf_archive_run('infinity', tenant => 'b');
\echo :SQLSTATE
CALL rf_archive_run('2024-02-15 00:00+00', tenant => 'a');
\echo :SQLSTATE
SET ROLE regress_rillflow_owner_b;
CALL rf_archive_run('infinity', tenant => 'a');
\echo :SQLSTATE
-- All stores: what one has no right to is not named.
SELECT tenant, hot_streams, cold_streams FROM rf_archive_status('*');
SELECT tenant, schema, owner FROM rf_tenants();
SELECT schema, policy FROM rf_policy_due('2024-06-01 00:00+00', '*');
SET ROLE regress_rillflow_archivist_a;
SELECT count(*), min(source::text) FROM rf_archive_plan('infinity', tenant => '*');
CALL rf_archive_run('2024-02-15 00:00+00', tenant => '*');
SET ROLE regress_rillflow_stranger;
SELECT count(*) FROM rf_archive_status('*');
SELECT count(*) FROM rf_tenants();
CALL rf_archive_run('infinity', tenant => '*');
\echo :SQLSTATE
RESET ROLE;
SELECT s.* FROM unnest(ARRAY['tenant_a', 'tenant_b']) AS schema, checks.check_same(schema) AS s;

--
-- All stores, some of them broken
--
SELECT stream_seq FROM rf_append(lpad('1', 32, '0')::uuid, 'default', '{}', created_at => '2024-01-01 00:00+00');
SELECT rf_create_tenant('c');
SELECT rf_create_tenant('d');
SELECT rf_create_tenant('e');
SELECT checks.fill(t) FROM unnest(ARRAY['c', 'd', 'e']) AS t;
-- b fails in the middle of its run; c lacks its view; d has the plain table of an adoption; e comes last.
CREATE FUNCTION checks.fail () RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF (SELECT count(*) >= 2 FROM tenant_b.rf_archive_log WHERE action = 'batch') AND NEW.action = 'batch' THEN RAISE 'third batch' USING DETAIL = 'of the test', HINT = 'none', ERRCODE = 'ZZ001'; END IF; RETURN NEW; END $$;
CREATE TRIGGER fail BEFORE INSERT ON tenant_b.rf_archive_log FOR EACH ROW EXECUTE FUNCTION checks.fail();
DROP VIEW tenant_c.events_all;
CREATE TABLE tenant_d.plain (LIKE tenant_d.events_hot_2024_01 INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES);
ALTER TABLE tenant_d.plain DROP CONSTRAINT rf_month_bounds;
ALTER TABLE tenant_d.events_hot ATTACH PARTITION tenant_d.plain FOR VALUES FROM (MINVALUE) TO ('4714-11-24 BC');
SELECT k.* FROM unnest(ARRAY['store', 'tenant_a', 'tenant_b', 'tenant_c', 'tenant_d', 'tenant_e']) AS schema, checks.check_keep(schema) AS k;
SELECT tenant, schema, hot_streams, cold_streams FROM rf_archive_status('*');
SELECT tenant, schema, state FROM rf_tenants();
SELECT left(source::text, 8) AS store, sum(events) AS events FROM rf_archive_plan('infinity', tenant => '*') GROUP BY 1 ORDER BY 1;
SELECT count(*) AS streams, sum(events) AS events FROM rf_archive_candidates('infinity', tenant => '*');
SELECT schema, policy, due FROM rf_policy_due('2024-06-01 00:00+00', '*') ORDER BY 1, 2;
SELECT rf_policy_arm('*');
CALL rf_archive_run('2024-03-15 00:00+00', batch_size => 1, tenant => '*');
\echo :SQLSTATE
SELECT s.* FROM unnest(ARRAY['store', 'tenant_a', 'tenant_b', 'tenant_c', 'tenant_d', 'tenant_e']) AS schema, checks.check_same(schema) AS s;
SELECT schema, sum(events) FILTER (WHERE place LIKE 'events_hot%') AS hot, sum(events) FILTER (WHERE place LIKE 'events_archive%') AS cold FROM unnest(ARRAY['store', 'tenant_a', 'tenant_b', 'tenant_c', 'tenant_d', 'tenant_e']) AS schema, checks.check_places(schema) GROUP BY schema ORDER BY schema;
-- One whose trigger the server refuses; the session goes on in order.
DROP TRIGGER fail ON tenant_b.rf_archive_log;
CREATE FUNCTION checks.fail_late () RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'late' USING ERRCODE = 'ZZ002'; END $$;
CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON tenant_b.rf_archive_log DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.action = 'batch') EXECUTE FUNCTION checks.fail_late();
CALL rf_archive_run('infinity', batch_size => 1, tenant => '*');
\echo :SQLSTATE
DROP TRIGGER fail ON tenant_b.rf_archive_log;
SELECT rf_install('tenant_c');
ALTER TABLE tenant_d.events_hot DETACH PARTITION tenant_d.plain;
DROP TABLE tenant_d.plain;
CALL rf_archive_run('infinity', batch_size => 1, tenant => '*');
\echo :SQLSTATE
SELECT s.* FROM unnest(ARRAY['store', 'tenant_a', 'tenant_b', 'tenant_c', 'tenant_d', 'tenant_e']) AS schema, checks.check_same(schema) AS s;
SELECT schema, sum(events) FILTER (WHERE place LIKE 'events_hot%') AS hot, sum(events) FILTER (WHERE place LIKE 'events_archive%') AS cold FROM unnest(ARRAY['store', 'tenant_a', 'tenant_b', 'tenant_c', 'tenant_d', 'tenant_e']) AS schema, checks.check_places(schema) GROUP BY schema ORDER BY schema;
-- A request to stop is no failure of a store.
SET client_min_messages = error;
SELECT stream_seq FROM rf_append(lpad('1', 32, '0')::uuid, 'default', '{}', created_at => '2024-01-01 00:00+00', allow_archived => true);
SELECT 1 AS kept FROM checks.check_keep();
SET statement_timeout = '500ms';
CREATE FUNCTION checks.slow () RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(10); RETURN NEW; END $$;
CREATE TRIGGER slow BEFORE INSERT ON rf_archive_log FOR EACH ROW EXECUTE FUNCTION checks.slow();
CALL rf_archive_run('infinity', tenant => '*');
\echo :SQLSTATE
RESET statement_timeout;
DROP TRIGGER slow ON rf_archive_log;
SELECT * FROM checks.check_same();
RESET client_min_messages;

--
-- Owners
--
SELECT checks.try($$SELECT rf_set_owner(NULL, 'a')$$), checks.try($$SELECT rf_set_owner('nobody', 'a')$$), checks.try($$SELECT rf_set_owner('regress_rillflow_owner_b', '*')$$), checks.try($$SELECT rf_set_owner('regress_rillflow_owner_b', 'nobody')$$);
CREATE FUNCTION checks.owners (schema name) RETURNS TABLE (owner regrole, relations bigint) LANGUAGE sql
AS $$ SELECT relowner, count(*) FROM pg_class WHERE relnamespace = quote_ident($1)::regnamespace GROUP BY 1 $$;
SELECT relacl IS NOT NULL AS granted, count(*) FROM pg_class WHERE relnamespace = 'tenant_a'::regnamespace AND relkind IN ('r', 'p', 'v', 'S') GROUP BY 1 ORDER BY 1;
SELECT checks.code_as('regress_rillflow_owner_a', $$SELECT rf_set_owner('regress_rillflow_owner_b', 'a')$$) AS no_member;
GRANT regress_rillflow_owner_b TO regress_rillflow_owner_a;
SET client_min_messages = notice;
SET ROLE regress_rillflow_owner_a;
SELECT rf_set_owner('regress_rillflow_owner_b', 'a');
RESET ROLE;
REVOKE regress_rillflow_owner_b FROM regress_rillflow_owner_a;
SELECT owner FROM checks.owners('tenant_a');
SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'tenant_a';
SELECT tenant, owner FROM rf_tenants();
SELECT name, owner FROM tenant_a.rf_archive_policies;
SELECT actor = session_user AS by_session_user, detail FROM tenant_a.rf_archive_log WHERE action = 'owner';
-- Rights that were granted stay; those of the former owner are gone; the store works, for the new owner.
SELECT relacl IS NOT NULL AS granted, count(*) FROM pg_class WHERE relnamespace = 'tenant_a'::regnamespace AND relkind IN ('r', 'p', 'v', 'S') GROUP BY 1 ORDER BY 1;
SELECT r, checks.code_as('regress_rillflow_' || r, $$SELECT rf_read_all(tenant => 'a')$$) AS read, checks.code_as('regress_rillflow_' || r, $$SELECT rf_append(lpad('9', 32, '0')::uuid, 'e', '{}', tenant => 'a')$$) AS append, checks.code_as('regress_rillflow_' || r, $$SELECT rf_create_partition('hot', '2033-01-01', tenant => 'a')$$) AS create_partition
FROM unnest(ARRAY['owner_a', 'owner_b', 'app_a', 'reader_a']) AS r;
-- The schema of the extension stays whose it is; the new owner needs a right there, unless a superuser passes the store on.
GRANT CREATE ON SCHEMA store TO regress_rillflow_owner_a;
SELECT rf_set_owner('regress_rillflow_owner_a');
GRANT regress_rillflow_owner_b TO regress_rillflow_owner_a;
SET ROLE regress_rillflow_owner_a;
SELECT rf_set_owner('regress_rillflow_owner_b');
\echo :SQLSTATE
RESET ROLE;
GRANT CREATE ON SCHEMA store TO regress_rillflow_owner_b;
SET ROLE regress_rillflow_owner_a;
SELECT rf_set_owner('regress_rillflow_owner_b');
RESET ROLE;
REVOKE regress_rillflow_owner_b FROM regress_rillflow_owner_a;
SELECT nspowner::regrole = current_user::regrole AS own FROM pg_namespace WHERE nspname = 'store';
SELECT count(*) FROM pg_class AS c WHERE relnamespace = 'store'::regnamespace AND relkind IN ('r', 'p', 'v', 'S', 'i') AND relowner <> 'regress_rillflow_owner_b'::regrole AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
	AND NOT EXISTS (SELECT FROM pg_index JOIN pg_depend ON objid = indrelid AND deptype = 'e' WHERE indexrelid = c.oid);
SELECT s.* FROM unnest(ARRAY['tenant_a']) AS schema, checks.check_same(schema) AS s;
-- A new owner who may not log in; what is said of that depends on the server's version.
CREATE ROLE regress_rillflow_group;
SET client_min_messages = error;
SELECT rf_set_owner('regress_rillflow_group', 'e');
RESET client_min_messages;
SELECT name, owner FROM tenant_e.rf_archive_policies;

--
-- Layouts
--
SELECT rf_upgrade_store(), rf_upgrade_store('a');
UPDATE rf_stores SET layout_version = CASE tenant WHEN 'a' THEN 0 WHEN 'b' THEN 2 ELSE layout_version END;
\c -
SET search_path = store, checks;
SELECT checks.try($$SELECT rf_append(lpad('9', 32, '0')::uuid, 'e', '{}', tenant => 'a')$$), checks.try($$INSERT INTO tenant_a.events (stream_id, event_type, body) VALUES (lpad('9', 32, '0')::uuid, 'e', '{}')$$);
SELECT checks.try($$SELECT rf_append(lpad('9', 32, '0')::uuid, 'e', '{}', tenant => 'b')$$), checks.try($$SELECT rf_upgrade_store('b')$$), checks.try($$SELECT rf_upgrade_store('*')$$), checks.try($$SELECT rf_upgrade_store('nobody')$$);
SELECT tenant, layout_version, state FROM rf_tenants();
SELECT tenant FROM rf_archive_status('*');
SELECT checks.code_as('regress_rillflow_owner_a', $$SELECT rf_upgrade_store('a')$$) AS not_the_owner;
-- Triggers and view are made anew on the way.
DROP TRIGGER rf_events_open ON tenant_a.events;
SELECT rf_upgrade_store('a');
SELECT count(*) FROM pg_trigger WHERE tgrelid = 'tenant_a.events'::regclass AND tgname = 'rf_events_open';
SELECT layout_version FROM rf_stores WHERE tenant = 'a';
SELECT detail FROM tenant_a.rf_archive_log WHERE action = 'upgrade';
-- One that lacks a table is refused, and stays what it was.
UPDATE rf_stores SET layout_version = 0 WHERE tenant = 'c';
ALTER TABLE tenant_c.rf_consumers RENAME TO consumers;
SELECT checks.try($$SELECT rf_upgrade_store('c')$$);
ALTER TABLE tenant_c.consumers RENAME TO rf_consumers;
UPDATE rf_stores SET layout_version = 1;
\c -
SET search_path = store, checks;
SELECT s.* FROM unnest(ARRAY['tenant_a', 'tenant_b', 'tenant_c']) AS schema, checks.check_same(schema) AS s;

SET client_min_messages = error;
DROP FUNCTION checks.fail, checks.fail_late, checks.slow;
SELECT count(*) FROM (SELECT rf_drop_tenant(tenant, tenant, true) FROM rf_tenants()) AS t;
DROP EXTENSION rillflow CASCADE;
DROP SCHEMA store, checks CASCADE;
DROP OWNED BY regress_rillflow_owner_a, regress_rillflow_owner_b, regress_rillflow_app_a, regress_rillflow_reader_a, regress_rillflow_archivist_a, regress_rillflow_consumer_a, regress_rillflow_stranger, regress_rillflow_group;
DROP ROLE regress_rillflow_owner_a, regress_rillflow_owner_b, regress_rillflow_app_a, regress_rillflow_reader_a, regress_rillflow_archivist_a, regress_rillflow_consumer_a, regress_rillflow_stranger, regress_rillflow_group;
