-- What the catalogs say of the extension's objects. The expected output is the list of what is allowed.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
\set ECHO all

SELECT count(rf_create_partition('hot', (date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => m))::date)) AS made FROM generate_series(2, 3) AS m;
CREATE VIEW checks.functions AS
	SELECT p.*, (SELECT EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) WHERE grantee = 0 AND privilege_type = 'EXECUTE')) AS public
	FROM pg_proc AS p JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
	JOIN pg_extension AS x ON x.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
	WHERE extname = 'rillflow';

-- Every function: kind, language, volatility, strictness, parallel safety, who it runs as, its settings, and whether everybody may call it.
SELECT proname, prokind AS kind, lanname AS lang, provolatile AS vol, proisstrict AS strict, proparallel AS par, prosecdef AS definer,
	proleakproof AS leakproof, public, proretset AS set, prorows AS rows, array_to_string(proconfig, '; ') AS settings
FROM checks.functions JOIN pg_language AS l ON l.oid = prolang ORDER BY proname;

-- The SQL name is the C symbol; all of it is in our library.
SELECT proname, prosrc, probin FROM checks.functions WHERE proname <> prosrc OR probin <> '$libdir/rillflow';
-- The tenant is always the last argument, and may be left out, as is said of every argument that may. Where it is what the function is about, it comes first.
SELECT proname, pg_get_function_arguments(oid) AS arguments FROM checks.functions WHERE prorettype <> 'trigger'::regtype ORDER BY proname;
SELECT proname, pg_get_function_result(oid) AS result FROM checks.functions WHERE prorettype <> 'trigger'::regtype AND prokind = 'f' ORDER BY proname;
SELECT proname FROM checks.functions WHERE proargnames[:pronargs] @> '{tenant}' AND proname NOT IN ('rf_install', 'rf_create_tenant', 'rf_drop_tenant')
	AND (proargnames[pronargs] <> 'tenant' OR pronargdefaults = 0) ORDER BY 1;
-- No function names a type of a table of a store, so that a restore can make functions first and tables later.
SELECT proname FROM checks.functions AS f
WHERE EXISTS (SELECT FROM pg_type AS t WHERE t.typrelid <> 0 AND t.oid = ANY (f.prorettype || f.proargtypes::oid[] || f.proallargtypes));
-- What has no fixed search_path: triggers, which find everything by OID, and the procedure that commits, where it is not possible.
SELECT proname FROM checks.functions WHERE proconfig IS NULL OR NOT proconfig @> ARRAY['search_path=pg_catalog, pg_temp'] ORDER BY 1;
-- Nothing runs with rights of another, and nothing is said to be harmless that is not.
SELECT proname FROM checks.functions WHERE prosecdef OR proleakproof OR proparallel <> 'u' ORDER BY 1;

-- Every object has a comment.
SELECT 'function' AS kind, proname AS without_comment FROM checks.functions WHERE obj_description(oid, 'pg_proc') IS NULL
UNION ALL
SELECT 'table', relname FROM pg_class WHERE relnamespace = 'store'::regnamespace AND relkind IN ('r', 'p', 'v') AND NOT relispartition AND obj_description(oid, 'pg_class') IS NULL
UNION ALL
SELECT 'extension', extname FROM pg_extension WHERE extname = 'rillflow' AND obj_description(oid, 'pg_extension') IS NULL;
SELECT proname, obj_description(oid, 'pg_proc') FROM checks.functions ORDER BY 1;

-- Rights on tables: none are given to anybody, on leaves that are made later neither.
SELECT rf_create_partition('hot', '2024-01-01'), rf_create_partition('cold', '2024-01-01');
SELECT relname FROM pg_class WHERE relnamespace = 'store'::regnamespace AND relkind IN ('r', 'p', 'v', 'S')
	AND EXISTS (SELECT FROM aclexplode(relacl) WHERE grantee <> relowner) ORDER BY 1;
SELECT count(*) AS column_rights FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = attrelid WHERE relnamespace = 'store'::regnamespace AND attacl IS NOT NULL;
-- A right on the root does not spread to leaves.
CREATE ROLE regress_rillflow_reader;
GRANT SELECT ON events, events_archive, events_all TO regress_rillflow_reader;
SELECT relname FROM pg_class WHERE relnamespace = 'store'::regnamespace AND relkind IN ('r', 'p', 'v') AND has_table_privilege('regress_rillflow_reader', oid, 'SELECT') ORDER BY 1;
DROP OWNED BY regress_rillflow_reader;
DROP ROLE regress_rillflow_reader;

-- No index contains retention_class, and none stands on a parent; every leaf has its two unique ones, of which the key is the replica identity.
SELECT relname FROM pg_class AS c JOIN pg_index ON indrelid = c.oid WHERE relnamespace = 'store'::regnamespace AND relkind = 'p';
SELECT indexrelid::regclass FROM pg_index JOIN pg_attribute AS a ON attrelid = indexrelid WHERE attname = 'retention_class';
SELECT count(*) > 8 AS leaves, bool_and((SELECT count(*) FROM pg_index WHERE indrelid = c.oid AND indisunique AND indisvalid) = 2) AS two_unique,
	bool_and(EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary)) AS key, bool_and(relreplident = 'd') AS identity
FROM pg_class AS c WHERE relnamespace = 'store'::regnamespace AND relkind = 'r' AND relispartition;
-- A dump of the restored store says the same of its CHECKs.
SELECT present, changed FROM checks.restored_checks();
-- Every leaf ties bucket_month to created_at, by one valid check, and so the planner prunes by created_at, too.
SELECT relname ~ '\d{4}_\d\d$' AS month, count(*) > 2 AS leaves, bool_and((SELECT array_agg(conname::text) FROM pg_constraint WHERE conrelid = c.oid AND contype = 'c' AND convalidated)
	= ARRAY[CASE WHEN relname ~ '\d{4}_\d\d$' THEN 'rf_month_bounds' ELSE 'rf_bucket_month_tie' END]) AS check
FROM pg_class AS c WHERE relnamespace = 'store'::regnamespace AND relkind = 'r' AND relispartition GROUP BY 1 ORDER BY 1;
CREATE FUNCTION checks.leaves_read (condition text, OUT months bigint, OUT defaults bigint) LANGUAGE plpgsql AS $$
DECLARE
	line text;
BEGIN
	months := 0;
	defaults := 0;
	FOR line IN EXECUTE 'EXPLAIN (COSTS off) SELECT FROM store.events WHERE ' || condition LOOP
		months := months + (line ~ 'Scan.* on events_\w+_\d{4}_\d\d')::integer;
		defaults := defaults + (line ~ 'Scan.* on events_\w+_default')::integer;
	END LOOP;
END $$;
SELECT l.* FROM unnest(ARRAY['true', $$created_at < '2000-01-01 00:00+00'$$, format('created_at = %L', now())]) AS w, checks.leaves_read(w) AS l;
-- A leaf that was made by hand is read for that when the store is taken up.
CREATE TABLE store.by_hand (LIKE store.events_cold_default INCLUDING DEFAULTS INCLUDING INDEXES);
INSERT INTO store.by_hand (global_seq, stream_id, stream_seq, event_type, body, created_at, bucket_month)
	VALUES (1, lpad('9', 32, '0')::uuid, 1, 'old', '{}', '2001-02-01 00:00+00', '2001-01-01');
ALTER TABLE store.events_cold ATTACH PARTITION store.by_hand FOR VALUES FROM ('2001-01-01') TO ('2001-02-01');
SELECT rf_install('store');
\echo :SQLSTATE
UPDATE store.by_hand SET created_at = '2001-01-31 23:59:59+00';
SELECT rf_install('store');
SELECT conname, convalidated FROM pg_constraint WHERE conrelid = 'store.by_hand'::regclass AND contype = 'c';
SELECT rf_install('store');
DROP TABLE store.by_hand;
SELECT count(*) FROM pg_constraint AS c JOIN pg_class AS t ON t.oid = conrelid WHERE relnamespace = 'store'::regnamespace AND (conname ~ '\d$' OR NOT convalidated);

-- Settings.
SELECT name, setting, unit, context, vartype, min_val, max_val FROM pg_settings WHERE name LIKE 'rillflow.%' ORDER BY name;
