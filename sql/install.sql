-- What CREATE EXTENSION makes, however it is spelled.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set without_store on
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
\set ECHO all

-- Months that were made follow the clock, so that their names are shown as a pattern.
-- (The type name sorts alike in every locale.)
CREATE FUNCTION checks.pattern (text) RETURNS name LANGUAGE sql IMMUTABLE
AS $$ SELECT regexp_replace($1, '\d{4}_\d\d', 'YYYY_MM', 'g')::name $$;

CREATE VIEW checks.tables AS
	SELECT c.oid, c.relname, c.relkind, c.relowner, c.relacl, c.reloptions, c.relpersistence
	FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
	WHERE n.nspname = 'store' AND c.relkind NOT IN ('i', 'I', 't');

CREATE EXTENSION rillflow SCHEMA store;

-- Members are functions and the registry (of which some versions list the type, too). An event table among them would be missing from dumps.
SELECT pg_describe_object(classid, objid, 0) AS member
FROM pg_depend JOIN pg_extension AS x ON x.oid = refobjid
WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND extname = 'rillflow' AND classid <> 'pg_type'::regclass
ORDER BY pg_describe_object(classid, objid, 0) COLLATE "C";

SELECT extversion, extrelocatable, extconfig::regclass[], extcondition, extnamespace::regnamespace
FROM pg_extension WHERE extname = 'rillflow';

SELECT * FROM rf_stores;

-- The tables, each of the one owner, none with a right given to others.
SELECT checks.pattern(relname) AS name, relkind, relpersistence AS persistence, count(*),
	bool_and(relowner = (SELECT oid FROM pg_roles WHERE rolname = current_user)) AS own,
	bool_or(EXISTS (SELECT FROM aclexplode(relacl) WHERE grantee <> relowner)) AS granted,
	regexp_replace(min(obj_description(t.oid, 'pg_class')), '\d{4}_\d\d', 'YYYY_MM') AS comment
FROM checks.tables AS t GROUP BY 1, 2, 3 ORDER BY 1;

SELECT relname, reloptions FROM checks.tables WHERE reloptions IS NOT NULL ORDER BY 1;

-- The current month and the next are there.
SELECT count(*) AS months_ahead
FROM generate_series(0, 3) AS n
WHERE to_regclass('store.events_hot_'
	|| to_char(date_trunc('month', now() AT TIME ZONE 'UTC') + n * interval '1 month', 'YYYY_MM')) IS NOT NULL;

SELECT relname, attnum, attname, format_type(atttypid, atttypmod) AS type, attnotnull AS not_null,
	pg_get_expr(adbin, adrelid) AS default
FROM checks.tables AS t JOIN pg_attribute AS a ON attrelid = t.oid LEFT JOIN pg_attrdef ON adrelid = t.oid AND adnum = attnum
WHERE attnum > 0 AND NOT attisdropped AND relkind IN ('r', 'p', 'v') AND NOT (SELECT relispartition FROM pg_class AS p WHERE p.oid = t.oid)
ORDER BY relname, attnum;

-- All tables of events have the columns of an event, of the same types and defaults, but for the tier and the sequence; the leaves of a tier in one order.
SELECT count(DISTINCT columns) AS column_sets, count(*) > 8 AS several
FROM (SELECT string_agg(format('%s %s %s %s', attname, format_type(atttypid, atttypmod), attnotnull, CASE WHEN attname NOT IN ('global_seq', 'retention_class') THEN pg_get_expr(adbin, adrelid) END), ',' ORDER BY attname) AS columns
	FROM checks.tables AS t JOIN pg_attribute ON attrelid = t.oid LEFT JOIN pg_attrdef ON adrelid = t.oid AND adnum = attnum
	WHERE attnum > 0 AND NOT attisdropped AND attname !~ '^migrated' AND relname ~ '^events' AND relkind IN ('r', 'p') GROUP BY t.oid) AS l;
SELECT inhparent::regclass AS parent, bool_and(child.columns = usual.columns) AS of_one_order, bool_and(child.columns <> parent.columns) AS of_another_than_parent
FROM pg_inherits AS i JOIN checks.tables AS t ON t.oid = inhrelid AND relkind = 'r',
	LATERAL (SELECT array_agg(attname ORDER BY attnum) FROM pg_attribute WHERE attrelid = inhrelid AND attnum > 0) AS child(columns),
	LATERAL (SELECT array_agg(attname ORDER BY attnum) FROM pg_attribute WHERE attrelid = (inhparent::regclass || '_default')::regclass AND attnum > 0) AS usual(columns),
	LATERAL (SELECT array_agg(attname ORDER BY attnum) FROM pg_attribute WHERE attrelid = inhparent AND attnum > 0) AS parent(columns)
GROUP BY 1 ORDER BY 1;

SELECT checks.pattern(i.inhparent::regclass::text) AS parent, checks.pattern(c.relname) AS partition, count(*),
	regexp_replace(min(pg_get_expr(c.relpartbound, c.oid)), '\d{4}-\d\d', 'YYYY-MM', 'g') AS bound
FROM pg_inherits AS i JOIN checks.tables AS t ON t.oid = inhrelid JOIN pg_class AS c ON c.oid = inhrelid
WHERE c.relkind IN ('r', 'p') GROUP BY 1, 2 ORDER BY 1, 2;

SELECT relname, pg_get_partkeydef(t.oid) FROM checks.tables AS t WHERE relkind = 'p' ORDER BY 1;

-- Constraints, and the indexes that stand on the leaves only.
SELECT checks.pattern(relname) AS table, checks.pattern(conname) AS constraint, count(*),
	regexp_replace(min(pg_get_constraintdef(c.oid)), '\d{4}-\d\d', 'YYYY-MM', 'g') AS definition
FROM pg_constraint AS c JOIN checks.tables AS t ON t.oid = conrelid WHERE contype <> 'n'
GROUP BY 1, 2 ORDER BY 1, 2;

SELECT checks.pattern(indrelid::regclass::text) AS table, checks.pattern(indexrelid::regclass::text) AS index, count(*),
	bool_and(indisunique) AS unique, regexp_replace(min(pg_get_indexdef(indexrelid)), '^.* USING ', '') AS definition
FROM pg_index JOIN checks.tables AS t ON t.oid = indrelid GROUP BY 1, 2 ORDER BY 1, 2;

SELECT checks.pattern(tgrelid::regclass::text) AS table, tgname, tgenabled AS enabled, count(*),
	regexp_replace(min(pg_get_triggerdef(g.oid)), 'CREATE TRIGGER \w+ |(?<=hot_)\d{4}_\d\d', '', 'g') AS definition
FROM pg_trigger AS g JOIN checks.tables AS t ON t.oid = tgrelid WHERE NOT tgisinternal
GROUP BY 1, 2, 3 ORDER BY 1, 2;

SELECT pg_get_serial_sequence('store.events', 'global_seq');

-- A store is there to be used.
SELECT * FROM rf_append('00000000-0000-0000-0000-000000000001', 'opened', '{"n": 1}');
INSERT INTO events (stream_id, stream_seq, event_type, body)
VALUES ('00000000-0000-0000-0000-000000000001', 2, 'changed', '{"n": 2}');
SELECT stream_seq, event_type, retention_class FROM events_all ORDER BY 1;
SELECT events, broken_streams FROM check_union('store');

-- Every way to say CREATE EXTENSION by hand makes the tables, pg_dump's own words too.
CREATE FUNCTION checks.made (schema name)
RETURNS TABLE (tables bigint, members bigint, registered text, usable boolean)
LANGUAGE plpgsql
AS $$
BEGIN
	SELECT count(*), count(*) FILTER (WHERE EXISTS (
			SELECT FROM pg_depend WHERE objid = c.oid AND classid = 'pg_class'::regclass AND deptype = 'e'))
	INTO tables, members FROM pg_class AS c
	WHERE relnamespace = quote_ident(schema)::regnamespace AND relkind IN ('r', 'p', 'v', 'S') AND relname <> 'rf_stores';
	EXECUTE format('SELECT string_agg(s.schema, %L) FROM %I.rf_stores AS s', ',', schema) INTO registered;
	IF to_regclass(format('%I.events', schema)) IS NOT NULL THEN
		EXECUTE format('SELECT stream_seq = 1 FROM %I.rf_append(gen_random_uuid(), %L, %L)', schema, 'x', '{}') INTO usable;
	END IF;
	RETURN NEXT;
END
$$;
CREATE PROCEDURE checks.clean ()
LANGUAGE plpgsql
AS $$
BEGIN
	PERFORM set_config('client_min_messages', 'error', true);
	DROP EXTENSION IF EXISTS rillflow CASCADE;
	DROP SCHEMA IF EXISTS other, store CASCADE;
	CREATE SCHEMA other;
END
$$;
SET search_path = other;

CALL checks.clean();
CREATE EXTENSION rillflow;
SELECT * FROM checks.made('other');

CALL checks.clean();
CREATE EXTENSION rillflow WITH SCHEMA other VERSION '1.0';
SELECT * FROM checks.made('other');

CALL checks.clean();
CREATE EXTENSION IF NOT EXISTS rillflow;
SELECT * FROM checks.made('other');

CALL checks.clean();
CREATE EXTENSION IF NOT EXISTS rillflow WITH SCHEMA other;
SELECT * FROM checks.made('other');

CALL checks.clean();
create extension if not exists "rillflow" schema other cascade;
SELECT * FROM checks.made('other');

CALL checks.clean();
DO $$ BEGIN EXECUTE 'CREATE EXTENSION IF NOT EXISTS rillflow SCHEMA other'; END $$;
SELECT * FROM checks.made('other');

-- Several statements in one message, a comment in front.
CALL checks.clean();
/* here */ SELECT 1 AS one \; CREATE EXTENSION IF NOT EXISTS rillflow WITH SCHEMA other \; SELECT 2 AS two;
SELECT * FROM checks.made('other');

-- Without function bodies checked, as some scripts set it, but without IF NOT EXISTS.
CALL checks.clean();
SET check_function_bodies = off;
CREATE EXTENSION rillflow WITH SCHEMA other;
RESET check_function_bodies;
SELECT * FROM checks.made('other');

-- In a transaction that is rolled back, nothing stays.
CALL checks.clean();
BEGIN;
CREATE EXTENSION IF NOT EXISTS rillflow WITH SCHEMA other;
SELECT * FROM checks.made('other');
ROLLBACK;
SELECT count(*) FROM pg_class WHERE relnamespace = 'other'::regnamespace;

-- A schema whose name has to be quoted.
CALL checks.clean();
CREATE SCHEMA "Odd name;.%s";
CREATE EXTENSION IF NOT EXISTS rillflow WITH SCHEMA "Odd name;.%s";
SELECT * FROM checks.made('Odd name;.%s');
DROP SCHEMA "Odd name;.%s" CASCADE;

-- A second time there is nothing to make.
CALL checks.clean();
CREATE EXTENSION IF NOT EXISTS rillflow WITH SCHEMA other;
CREATE EXTENSION IF NOT EXISTS rillflow WITH SCHEMA other;
CREATE EXTENSION rillflow WITH SCHEMA other;
SELECT * FROM checks.made('other');
ALTER EXTENSION rillflow SET SCHEMA checks;

-- A dump, which brings the tables itself, says it like this. Where it was no dump, rf_install() makes them.
CALL checks.clean();
SET check_function_bodies = false;
CREATE EXTENSION IF NOT EXISTS rillflow WITH SCHEMA other;
RESET check_function_bodies;
SELECT * FROM checks.made('other');
SELECT * FROM rf_append(gen_random_uuid(), 'x', '{}');
SELECT rf_install('other');
SELECT * FROM checks.made('other');

-- The same in one transaction, as psql -1 and a restore of one say it.
CALL checks.clean();
BEGIN;
SET check_function_bodies = false;
CREATE EXTENSION IF NOT EXISTS rillflow WITH SCHEMA other;
SELECT * FROM checks.made('other');
ROLLBACK;
BEGIN;
SET LOCAL check_function_bodies = false;
CREATE EXTENSION IF NOT EXISTS rillflow WITH SCHEMA other;
SELECT * FROM checks.made('other');
ROLLBACK;
CREATE EXTENSION IF NOT EXISTS rillflow WITH SCHEMA other;
SELECT * FROM checks.made('other');

-- What the script uses is gone.
SELECT to_regproc('other.rf_create_default_store');

-- A user who may not create C functions is refused: the extension is not trusted.
CALL checks.clean();
CREATE ROLE regress_rillflow_nobody;
GRANT CREATE ON SCHEMA other TO regress_rillflow_nobody;
SET ROLE regress_rillflow_nobody;
CREATE EXTENSION rillflow WITH SCHEMA other;
RESET ROLE;
DROP OWNED BY regress_rillflow_nobody;
DROP ROLE regress_rillflow_nobody;

-- The tests after this one find the store where they expect it.
RESET search_path;
CALL checks.clean();
DROP SCHEMA other;
CREATE SCHEMA store;
CREATE EXTENSION rillflow SCHEMA store;
