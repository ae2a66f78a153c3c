-- Row security: the policies that tell tenants apart, and what functions ask of policies, whichever they are, before they do anything as the owner.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
\set ECHO all

CREATE ROLE regress_rillflow_ours;
CREATE ROLE regress_rillflow_owner;
GRANT USAGE ON SCHEMA store, checks TO regress_rillflow_ours, regress_rillflow_owner;
CREATE VIEW checks.secured AS SELECT relrowsecurity AS secured, pg_get_expr(polqual, c.oid) AS condition, pg_get_expr(polqual, c.oid) = pg_get_expr(polwithcheck, c.oid) AS same,
	count(*) > 0 AS some, string_agg(relname, ' ' ORDER BY relname) FILTER (WHERE NOT relispartition) AS tables, count(*) FILTER (WHERE relispartition)
	= (SELECT count(*) FROM pg_class WHERE relnamespace = 'store'::regnamespace AND relkind IN ('r', 'p') AND relispartition) AS leaves
	FROM pg_class AS c LEFT JOIN pg_policy AS p ON polrelid = c.oid AND polname = 'rf_tenant' WHERE relnamespace = 'store'::regnamespace AND relkind IN ('r', 'p') GROUP BY 1, 2, 3;

--
-- On and off
--
SELECT rf_enable_rls();
SELECT rf_enable_rls();
SELECT * FROM checks.secured ORDER BY 1;
SELECT rf_enable_rls('app.tenant');
SELECT rf_create_partition('hot', '2024-01-01'), rf_create_partition('cold', '2024-01-01');
SELECT * FROM checks.secured ORDER BY 1;
CREATE POLICY mine ON events USING (true);
SELECT rf_disable_rls();
SELECT rf_disable_rls();
SELECT * FROM checks.secured ORDER BY 1;
DROP POLICY mine ON events;
ALTER TABLE events DISABLE ROW LEVEL SECURITY;
SELECT action, detail FROM rf_archive_log WHERE action = 'row security' ORDER BY log_id;
-- What can't be the name of a setting, and whose store it is not.
SELECT setting, checks.try(format('SELECT rf_enable_rls(%L)', setting)) FROM (VALUES (''), ('plain'), ('a.b.c'), ('.b'), ('a.'), ('1.b'), ('a.1'), ('a.b c'), ('a.b'', true) OR true --'), ('ä.b'), (E'a.b\n'), ('rillflow.batch_size'), ('RILLFLOW.worker'), (NULL), ('a.' || repeat('x', 126)), ('a.' || repeat('x', 125)), ('_a.B_1'), ('Rillflow.Tenant')) AS v(setting);
SELECT rf_disable_rls();
GRANT EXECUTE ON FUNCTION rf_enable_rls(text, text), rf_disable_rls(text) TO regress_rillflow_ours;
SET ROLE regress_rillflow_ours;
SELECT checks.try('SELECT rf_enable_rls()'), checks.try('SELECT rf_disable_rls()');
RESET ROLE;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT rf_enable_rls();
ROLLBACK;
SELECT count(*) FROM pg_policy;

--
-- A single store: events have tenants, streams have none
--
GRANT USAGE ON SEQUENCE events_global_seq_seq TO regress_rillflow_ours;
GRANT INSERT ON events, events_archive TO regress_rillflow_ours;
GRANT SELECT ON events_all, events, events_archive TO regress_rillflow_ours;
GRANT UPDATE ON rf_streams TO regress_rillflow_ours;
ALTER TABLE events ALTER COLUMN tenant_id SET DEFAULT current_setting('rillflow.tenant', true);
SELECT rf_enable_rls();
SET rillflow.tenant = 'theirs';
SELECT stream_seq FROM rf_append(lpad('1', 32, '0')::uuid, 'theirs', '{}');
SET ROLE regress_rillflow_ours;
SET rillflow.tenant = 'ours';
SELECT stream_seq FROM rf_append(lpad('2', 32, '0')::uuid, 'ours', '{}');
SELECT event_type, tenant_id FROM rf_read_all();
SELECT event_type FROM rf_read_stream(lpad('1', 32, '0')::uuid);
SELECT checks.try('SELECT rf_archive_mark(lpad(''2'', 32, ''0'')::uuid)'), checks.try('SELECT rf_archive_move(''infinity'')');
SELECT checks.try('SELECT rf_archive_status()'), checks.try('SELECT rf_partitions()');
SELECT * FROM rf_archive_status('*');
RESET rillflow.tenant;
SELECT count(*) FROM rf_read_all();
SELECT checks.try('SELECT rf_append(lpad(''2'', 32, ''0'')::uuid, ''nobody''''s'', ''{}'')');
RESET ROLE;
SELECT rf_disable_rls();
SELECT rf_drop_partition('hot', '2024-01-01');
SELECT rf_uninstall('store', 'store', true);
DO $$
BEGIN
	EXECUTE (SELECT format('DROP TABLE %s CASCADE', string_agg(oid::regclass::text, ', ')) FROM pg_class WHERE relnamespace = 'store'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition AND relname NOT IN ('rf_stores', 'rf_armed'));
END $$;

--
-- A conjoined store, and conditions of all kinds
--
SELECT rf_install('store', tenancy => 'conjoined');
GRANT USAGE ON SEQUENCE events_global_seq_seq TO regress_rillflow_ours;
GRANT INSERT ON events TO regress_rillflow_ours;
GRANT SELECT ON events_all, events, events_archive TO regress_rillflow_ours;
GRANT UPDATE ON rf_streams TO regress_rillflow_ours;
ALTER TABLE events ENABLE ROW LEVEL SECURITY;
ALTER TABLE rf_streams ENABLE ROW LEVEL SECURITY;
CREATE TABLE checks.members (who name, tenant text);
INSERT INTO checks.members VALUES ('regress_rillflow_ours', 'ours'), ('regress_rillflow_ours', 'ours, too');
-- The outcome of an append, a read, a mark, and the status, of tenants that are ours and theirs, with one policy on both tables.
CREATE FUNCTION checks.outcomes (condition text, OUT tenant text, OUT append text, OUT raw text, OUT read text, OUT mark text, OUT status text) RETURNS SETOF record LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE POLICY tried ON store.events TO regress_rillflow_ours USING (%s)', condition);
	EXECUTE format('CREATE POLICY tried ON store.rf_streams TO regress_rillflow_ours USING (%s)', replace(condition, 'events.', 'rf_streams.'));
	SET LOCAL ROLE regress_rillflow_ours;
	FOREACH tenant IN ARRAY ARRAY['ours', 'theirs'] LOOP
		append := left(checks.try(format('SELECT store.rf_append(lpad(''1'', 32, ''0'')::uuid, ''e'', ''{}'', expected_seq => 7, tenant => %L)', tenant)), 5);
		raw := left(checks.try(format('INSERT INTO store.events (tenant_id, stream_id, stream_seq, event_type, body) VALUES (%L, lpad(''1'', 32, ''0'')::uuid, 7, ''e'', ''{}'')', tenant)), 5);
		read := left(checks.try(format('SELECT store.rf_read_all(tenant => %L)', tenant)), 8);
		mark := left(checks.try(format('SELECT store.rf_archive_mark(lpad(''1'', 32, ''0'')::uuid, tenant => %L)', tenant)), 8);
		status := left(checks.try(format('SELECT store.rf_archive_status(%L)', tenant)), 8);
		RETURN NEXT;
	END LOOP;
	RESET ROLE;
	DROP POLICY tried ON store.events;
	DROP POLICY tried ON store.rf_streams;
END $$;
GRANT SELECT ON checks.members TO regress_rillflow_ours;
-- RF001 tells the head, and so comes after the policies were asked.
SELECT condition, o.* FROM (VALUES (1, 'true'), (2, 'false'), (3, 'NULL'), (4, 'tenant_id = ''ours'''), (5, 'tenant_id <> ''theirs'''), (6, 'NOT tenant_id = ''theirs'''), (7, 'tenant_id LIKE ''our%'''), (8, 'tenant_id = current_setting(''app.unset'', true)'),
	(9, 'tenant_id IN (SELECT tenant FROM checks.members WHERE who = current_user)'), (10, 'EXISTS (SELECT FROM checks.members AS m WHERE m.tenant = events.tenant_id)'),
	(11, '(SELECT count(*) FROM checks.members AS m WHERE m.tenant = events.tenant_id AND EXISTS (SELECT FROM checks.members AS n WHERE n.tenant = events.tenant_id)) > 0'),
	(12, 'tenant_id = ''ours'' AND created_at IS NOT NULL'), (13, 'tenant_id = ''ours'' OR created_at IS NULL'), (14, 'created_at IS NOT NULL'), (15, 'CASE WHEN tenant_id = ''ours'' THEN created_at IS NOT NULL ELSE false END'), (16, 'events.* IS NOT NULL')) AS v(n, condition), LATERAL checks.outcomes(condition) AS o ORDER BY n, tenant;
-- Permissive ones add up, restrictive ones all have to hold; and who is let read, but not write.
CREATE POLICY one ON events TO regress_rillflow_ours USING (tenant_id = 'ours');
CREATE POLICY two ON events AS RESTRICTIVE TO regress_rillflow_ours USING (tenant_id = current_setting('rillflow.tenant', true));
SET ROLE regress_rillflow_ours;
SELECT checks.try('SELECT rf_append(lpad(''1'', 32, ''0'')::uuid, ''e'', ''{}'', tenant => ''ours'')');
SET rillflow.tenant = 'ours';
SELECT checks.try('SELECT rf_append(lpad(''1'', 32, ''0'')::uuid, ''e'', ''{}'', tenant => ''ours'')');
SET row_security = off;
SELECT checks.try('SELECT rf_append(lpad(''1'', 32, ''0'')::uuid, ''e'', ''{}'', tenant => ''ours'')'), checks.try('SELECT rf_archive_mark(lpad(''1'', 32, ''0'')::uuid, tenant => ''ours'')');
RESET row_security;
RESET ROLE;
DROP POLICY one ON events;
CREATE POLICY one ON events FOR SELECT TO regress_rillflow_ours USING (tenant_id = 'ours');
SET ROLE regress_rillflow_ours;
SELECT checks.try('SELECT rf_append(lpad(''1'', 32, ''0'')::uuid, ''e'', ''{}'', tenant => ''ours'')'), checks.try('SELECT rf_archive_status(''ours'')');
RESET ROLE;
-- A policy that fails, or that its tables are not to be read for, ends the function as it would end a statement.
DROP POLICY two ON events;
CREATE POLICY two ON events FOR INSERT TO regress_rillflow_ours WITH CHECK (1 / length(replace(tenant_id, 'ours', '')) = 1);
REVOKE SELECT ON checks.members FROM regress_rillflow_ours;
CREATE POLICY one ON rf_streams TO regress_rillflow_ours USING (tenant_id IN (SELECT tenant FROM checks.members));
SET ROLE regress_rillflow_ours;
SELECT checks.try('SELECT rf_append(lpad(''1'', 32, ''0'')::uuid, ''e'', ''{}'', tenant => ''ours'')'), checks.try('SELECT rf_archive_mark(lpad(''1'', 32, ''0'')::uuid, tenant => ''ours'')');
RESET ROLE;
SELECT count(*) FROM rf_streams;

SET client_min_messages = error;
DROP EXTENSION rillflow CASCADE;
DROP SCHEMA store, checks CASCADE;
DROP OWNED BY regress_rillflow_ours, regress_rillflow_owner;
DROP ROLE regress_rillflow_ours, regress_rillflow_owner;
