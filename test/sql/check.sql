-- Begins a regression test: cleans up after the ones before, makes a store in schema "store" (unless the
-- variable without_store is set), and the functions by which tests compare what hot and cold hold together.
\set VERBOSITY default
\set SHOW_CONTEXT never
SET client_min_messages = error;
DROP EXTENSION IF EXISTS rillflow CASCADE;
DO $$
DECLARE
	role name;
BEGIN
	FOR role IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname LIKE 'regress\_rillflow\_%' LOOP
		EXECUTE format('DROP OWNED BY %I CASCADE', role);
		EXECUTE format('DROP ROLE %I', role);
	END LOOP;
END $$;
DROP SCHEMA IF EXISTS store, other, checks CASCADE;
CREATE SCHEMA checks;
CREATE SCHEMA store;
SET search_path = store, checks;
\if :{?without_store}
\else
CREATE EXTENSION rillflow SCHEMA store;
\endif
RESET client_min_messages;

-- The columns of an event as a list, in the order of their names; NULL where `target` lacks one.
CREATE FUNCTION checks.event_columns (schema name, target name)
RETURNS text
LANGUAGE sql STABLE
AS $$
	SELECT string_agg(coalesce(quote_ident(t.attname), 'NULL'), ', ' ORDER BY e.attname)
	FROM pg_catalog.pg_attribute AS e
	LEFT JOIN pg_catalog.pg_attribute AS t
		ON t.attname = e.attname AND NOT t.attisdropped
		AND t.attrelid = format('%I.%I', schema, target)::pg_catalog.regclass
	WHERE e.attrelid = format('%I.events', schema)::pg_catalog.regclass
		AND e.attnum > 0 AND NOT e.attisdropped AND e.attname <> 'retention_class'
$$;

-- Whose a stream is, as an expression: in a conjoined store, where the tenant is part of the key, its tenant.
CREATE FUNCTION checks.owner (schema name)
RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog
AS $$
	SELECT CASE WHEN (SELECT indnkeyatts FROM pg_index WHERE indexrelid = to_regclass(format('%I.rf_streams_pkey', schema))) > 1
		THEN 'tenant_id' ELSE 'NULL::text' END
$$;

-- What a store holds, hot and cold: the number of events, a checksum that depends on every column of each but
-- not on their order, and how many streams (of a tenant, where they have one) do not have exactly the numbers 1
-- to last_seq, or lie outside of their two event times; an event that is there twice counts as broken, too.
CREATE FUNCTION checks.check_union (
	schema name, OUT events bigint, OUT checksum numeric, OUT broken_streams bigint)
LANGUAGE plpgsql STABLE
SET timezone = 'UTC'
SET search_path = pg_catalog
AS $$
BEGIN
	EXECUTE format('
		WITH everything AS (
			SELECT coalesce(%4$s, '''') AS owner, stream_id, stream_seq, global_seq, created_at, ROW(%2$s)::text AS content FROM %1$I.events
			UNION ALL
			SELECT coalesce(%4$s, ''''), stream_id, stream_seq, global_seq, created_at, ROW(%3$s)::text FROM %1$I.events_archive
		), heads AS (
			SELECT coalesce(%4$s, '''') AS owner, * FROM %1$I.rf_streams
		), seen AS (
			SELECT owner, stream_id, count(*) AS n, count(DISTINCT stream_seq) AS numbers, min(stream_seq) AS lowest,
				max(stream_seq) AS highest, min(created_at) AS first, max(created_at) AS last
			FROM everything GROUP BY owner, stream_id
		)
		SELECT (SELECT count(*) FROM everything),
			(SELECT coalesce(sum(hashtextextended(content, 0)::numeric), 0) FROM everything),
			(SELECT count(*) FROM seen FULL JOIN heads USING (owner, stream_id)
				WHERE NOT coalesce(n = last_seq AND numbers = n AND lowest = 1 AND highest = last_seq
					AND first_event_at <= first AND last_event_at >= last, last_seq = 0 AND n IS NULL, false))
			+ (SELECT count(*) - count(DISTINCT global_seq) FROM everything)',
		schema, checks.event_columns(schema, 'events'), checks.event_columns(schema, 'events_archive'), checks.owner(schema))
	INTO events, checksum, broken_streams;
END
$$;

CREATE TABLE checks.kept (schema name PRIMARY KEY, events bigint, checksum numeric);

-- Remember what a store holds.
CREATE FUNCTION checks.check_keep (schema name DEFAULT 'store', OUT events bigint, OUT broken_streams bigint)
LANGUAGE plpgsql
AS $$
DECLARE
	now_there record;
BEGIN
	SELECT * INTO now_there FROM checks.check_union(schema);
	DELETE FROM checks.kept AS k WHERE k.schema = check_keep.schema;
	INSERT INTO checks.kept VALUES (schema, now_there.events, now_there.checksum);
	events := now_there.events;
	broken_streams := now_there.broken_streams;
END
$$;

-- Does the store hold the same as then?
CREATE FUNCTION checks.check_same (
	schema name DEFAULT 'store', OUT events bigint, OUT same boolean, OUT broken_streams bigint)
LANGUAGE sql
AS $$
	SELECT u.events, (u.events, u.checksum) = (k.events, k.checksum), u.broken_streams
	FROM checks.check_union(schema) AS u LEFT JOIN checks.kept AS k ON k.schema = check_same.schema
$$;

-- Where the events of a store lie.
CREATE FUNCTION checks.check_places (schema name DEFAULT 'store')
RETURNS TABLE (place name, events bigint)
LANGUAGE plpgsql STABLE
AS $$
BEGIN
	RETURN QUERY EXECUTE format('
		SELECT c.relname, count(*) FROM (
			SELECT tableoid FROM %1$I.events UNION ALL SELECT tableoid FROM %1$I.events_archive) AS e
		JOIN pg_catalog.pg_class AS c ON c.oid = e.tableoid GROUP BY c.relname ORDER BY c.relname COLLATE "C"',
		schema);
END
$$;

-- The CHECKs of a store that would read otherwise once they were restored: whether it has any, and which.
CREATE FUNCTION checks.restored_checks (schema name DEFAULT 'store', OUT present boolean, OUT changed text)
LANGUAGE plpgsql
AS $$
DECLARE
	original record;
	again text;
BEGIN
	present := false;
	FOR original IN SELECT conname, conrelid::regclass AS rel, pg_get_constraintdef(oid) AS def FROM pg_constraint
		WHERE connamespace = schema::regnamespace AND contype = 'c' ORDER BY conrelid, conname LOOP
		present := true;
		EXECUTE format('ALTER TABLE %s ADD CONSTRAINT again %s', original.rel, original.def);
		SELECT pg_get_constraintdef(oid) INTO again FROM pg_constraint WHERE conrelid = original.rel AND conname = 'again';
		EXECUTE format('ALTER TABLE %s DROP CONSTRAINT again', original.rel);
		IF again IS DISTINCT FROM original.def THEN
			changed := concat_ws(' ', changed, original.rel || '.' || original.conname);
		END IF;
	END LOOP;
END $$;

-- Run a statement, and tell how it failed, or what it did not do; whatever it did is undone.
CREATE FUNCTION checks.try (statement text)
RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
	hint text;
BEGIN
	BEGIN
		EXECUTE statement;
		RAISE EXCEPTION USING errcode = 'TT000';
	EXCEPTION
		WHEN SQLSTATE 'TT000' THEN RETURN 'no error';
		WHEN OTHERS THEN
			GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
			RETURN SQLSTATE || ' ' || SQLERRM || CASE WHEN hint <> '' THEN ' [' || hint || ']' ELSE '' END;
	END;
END
$$;

-- Where a leaf hangs, with its indexes, the columns particular to its tier, and the rest.
CREATE FUNCTION checks.leaf (leaf regclass) RETURNS TABLE (what text) LANGUAGE sql AS $$
	SELECT format('%s of %s %s', leaf, inhparent::regclass, pg_get_expr(relpartbound, oid)) FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE oid = leaf
	UNION ALL
	(SELECT format('index %s%s%s', i.indexrelid::regclass, ' of ' || inhparent::regclass, CASE WHEN NOT indisvalid THEN ' invalid' END)
		FROM pg_index AS i LEFT JOIN pg_inherits ON inhrelid = i.indexrelid WHERE i.indrelid = leaf ORDER BY i.indexrelid::regclass::text COLLATE "C")
	UNION ALL
	(SELECT format('column %s%s%s', attname, ' default ' || pg_get_expr(adbin, adrelid), CASE WHEN attnotnull THEN ' not null' END)
		FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
		WHERE attrelid = leaf AND attname IN ('retention_class', 'migrated_at', 'migrated_by') ORDER BY attname)
	UNION ALL
	(SELECT format('check %s', conname) FROM pg_constraint WHERE conrelid = leaf AND contype = 'c' ORDER BY conname)
	UNION ALL
	(SELECT format('trigger %s', tgname) FROM pg_trigger WHERE tgrelid = leaf ORDER BY tgname)
	UNION ALL
	(SELECT format('policy %s', polname) FROM pg_policy WHERE polrelid = leaf ORDER BY polname)
$$;
