-- The two backends: what a user does in each of them, and one turned into the other with all that is cold in it.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
CREATE FUNCTION checks.id (i integer) RETURNS uuid IMMUTABLE LANGUAGE sql AS $$ SELECT ('00000000-0000-0000-0000-' || lpad(i::text, 12, '0'))::uuid $$;
-- Events of a month, of so many streams; a raw INSERT, which numbers them.
CREATE PROCEDURE checks.load (schema name, month date, events integer, streams integer, first_stream integer DEFAULT 0) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('INSERT INTO %I.events (stream_id, event_type, body, headers, user_id, is_tombstone, created_at, bucket_month)
		SELECT checks.id($4 + i %% $3), ''e'' || i, jsonb_build_object(''n'', i), CASE WHEN i %% 3 = 0 THEN ''{"k": null}'' ELSE ''{}'' END::jsonb,
			CASE i %% 4 WHEN 0 THEN '''' WHEN 1 THEN ''u'' END, i %% 7 = 0, $1::timestamp AT TIME ZONE ''UTC'' + i * interval ''1 minute'', $1
		FROM generate_series(1, $2) AS i', schema) USING month, events, streams, first_stream;
END $$;
-- Each month of the cold tiers with its file and those of its unique indexes; the names are left out.
CREATE FUNCTION checks.cold_files (schema name) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(format('%s:%s:%s', l.relid::oid, pg_relation_filenode(l.relid),
		(SELECT string_agg(pg_relation_filenode(indexrelid)::text, ',' ORDER BY indexrelid) FROM pg_index WHERE indrelid = l.relid AND indisunique)), ' ' ORDER BY l.relid::oid)
	FROM (SELECT relid FROM pg_partition_tree(format('%I.events_cold', schema)) WHERE isleaf
		UNION ALL SELECT relid FROM pg_partition_tree(format('%I.events_archive', schema)) WHERE isleaf) AS l
	WHERE l.relid::text !~ 'default'
$$;
CREATE VIEW checks.ledger AS
	SELECT action, bucket_month, CASE WHEN NOT estimated THEN events END AS events, detail FROM store.rf_archive_log
	WHERE action IN ('convert', 'switch') ORDER BY log_id;
\set ECHO all

-- The same walk in a store of each backend: append, archive, redirect, move, read, flip, reactivate. What differs is where the events are.
CREATE SCHEMA other;
SELECT rf_install('other', 't2');
SELECT rf_archive_set_backend('partitioned', 't2');
CREATE TABLE checks.seen (n integer GENERATED ALWAYS AS IDENTITY, tenant text, step text, result text);
CREATE PROCEDURE checks.note (tenant text, step text, statement text) LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	EXECUTE format('SELECT string_agg(r::text, '' '' ORDER BY r::text COLLATE "C") FROM (%s) AS r', statement) INTO result;
	INSERT INTO checks.seen (tenant, step, result) VALUES (tenant, step, result);
END $$;
-- (hot and cold events, streams, and what a read without and with archived events shows of them)
CREATE PROCEDURE checks.look (schema name, t text, step text) LANGUAGE plpgsql AS $$
BEGIN
	CALL checks.note(t, step, format('SELECT retention_class, count(*) FROM %I.events_all GROUP BY 1', schema));
	CALL checks.note(t, step || ': streams', format('SELECT archived_by IS NOT NULL, retention_class, count(*), sum(last_seq) FROM %I.rf_streams GROUP BY 1, 2', schema));
	CALL checks.note(t, step || ': read', format('SELECT count(*), count(*) FILTER (WHERE retention_class = ''cold'') FROM rf_read_all(0, 10000, tenant => %L)', t));
	CALL checks.note(t, step || ': read archived', format('SELECT count(*), count(*) FILTER (WHERE retention_class = ''cold'') FROM rf_read_all(0, 10000, include_archived => true, tenant => %L)', t));
	CALL checks.note(t, step || ': read streams', format('SELECT s.stream_id, count(*), max(r.stream_seq) FROM %I.rf_streams AS s, LATERAL rf_read_stream(s.stream_id, tenant => %L) AS r GROUP BY 1', schema, t));
	CALL checks.note(t, step || ': read streams whole', format('SELECT s.stream_id, count(*), max(r.stream_seq) FROM %I.rf_streams AS s, LATERAL rf_read_stream(s.stream_id, include_archived => true, tenant => %L) AS r GROUP BY 1', schema, t));
	CALL checks.note(t, step || ': status', format('SELECT hot_streams, cold_streams, default_events FROM rf_archive_status(%L)', t));
	CALL checks.note(t, step || ': whole', format('SELECT events, checksum <> 0, broken_streams FROM checks.check_union(%L)', schema));
END $$;
CREATE PROCEDURE checks.walk (schema name, t text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM rf_create_partition('hot', m, tenant => t) FROM unnest(ARRAY['2025-01-01', '2025-02-01']::date[]) AS m;
	CALL checks.load(schema, '2025-01-01', 1100, 11);
	CALL checks.load(schema, '2025-02-01', 500, 5);
	CALL checks.load(schema, '2025-03-01', 60, 6);
	CALL checks.look(schema, t, 'loaded');
	CALL checks.note(t, 'mark', format('SELECT retention_class, last_seq FROM rf_archive_mark(checks.id(1), tenant => %L)', t));
	PERFORM rf_archive_set_redirect(true, t);
	EXECUTE format('INSERT INTO %I.events (stream_id, event_type, body, created_at, bucket_month) SELECT checks.id(i %% 3), ''raw'', ''{}'', ''2025-03-25 00:00+00'', ''2025-03-01'' FROM generate_series(1, 9) AS i', schema);
	CALL checks.note(t, 'append allowed', format('SELECT stream_seq FROM rf_append(checks.id(1), ''f'', ''{}'', ''{"idempotency_key": "one"}'', allow_archived => true, created_at => ''2025-01-09 00:00+00'', tenant => %L)', t));
	CALL checks.note(t, 'append again', format('SELECT stream_seq FROM rf_append(checks.id(1), ''f'', ''{}'', ''{"idempotency_key": "one"}'', allow_archived => true, tenant => %L)', t));
	CALL checks.note(t, 'batch allowed', format('SELECT stream_seq FROM rf_append_batch(checks.id(1), ''[{"type": "b", "body": 1, "created_at": "2025-03-26T00:00Z"}, {"type": "b", "body": 2, "created_at": "2025-03-26T00:00Z"}]'', allow_archived => true, tenant => %L)', t));
	CALL checks.note(t, 'append refused', format('SELECT left(checks.try(%L), 5)', format('SELECT rf_append(checks.id(1), ''f'', ''{}'', tenant => %L)', t)));
	CALL checks.note(t, 'cold by hand refused', format('SELECT left(checks.try(%L), 5)', format('UPDATE %I.events SET retention_class = ''cold''', schema)));
	CALL checks.look(schema, t, 'redirected');
	CALL checks.note(t, 'plan', format('SELECT bucket_month, method, events, streams, reason FROM rf_archive_plan(''2025-03-01'', tenant => %L)', t));
	CALL checks.note(t, 'candidates', format('SELECT stream_id, events, closes FROM rf_archive_candidates(''2025-03-01'', tenant => %L)', t));
	CALL checks.note(t, 'dry run', format('SELECT * FROM rf_archive_move(''2025-03-01'', only_archived => true, dry_run => true, tenant => %L)', t));
	CALL checks.note(t, 'move of archived', format('SELECT * FROM rf_archive_move(''2025-03-01'', only_archived => true, tenant => %L)', t));
	CALL checks.note(t, 'move of a stream', format('SELECT * FROM rf_archive_move(''2025-03-01'', 7, checks.id(2), tenant => %L)', t));
	CALL checks.look(schema, t, 'moved some');
END $$;
CREATE PROCEDURE checks.walk_on (schema name, t text) LANGUAGE plpgsql AS $$
BEGIN
	CALL checks.look(schema, t, 'archived');
	EXECUTE format('INSERT INTO %I.events (stream_id, event_type, body, created_at, bucket_month) VALUES (checks.id(9), ''late'', ''{}'', ''2025-01-03 00:00+00'', ''2025-01-01'')', schema);
	CALL checks.note(t, 'append to a closed one', format('SELECT stream_seq FROM rf_append(checks.id(8), ''reopens'', ''{}'', created_at => ''2025-01-04 00:00+00'', tenant => %L)', t));
	CALL checks.look(schema, t, 'went on');
	CALL checks.note(t, 'reactivate', format('SELECT archived_at IS NULL, last_seq FROM rf_archive_reactivate(checks.id(1), tenant => %L)', t));
	CALL checks.note(t, 'reactivate, events stay', format('SELECT archived_at IS NULL, last_seq FROM rf_archive_reactivate(checks.id(7), false, tenant => %L)', t));
	CALL checks.look(schema, t, 'reactivated');
	PERFORM rf_flip_partition('2025-02-01', 'hot', t);
	CALL checks.look(schema, t, 'flipped back');
	CALL checks.note(t, 'move again', format('SELECT events_moved > 0, months_flipped FROM rf_archive_move(''2025-03-01'', tenant => %L)', t));
	PERFORM rf_drain_default(t);
	CALL checks.look(schema, t, 'moved again');
END $$;
CALL checks.walk('store', NULL);
CALL checks.walk('other', 't2');
CALL rf_archive_run('2025-03-01');
CALL rf_archive_run('2025-03-01', tenant => 't2');
CALL checks.walk_on('store', NULL);
CALL checks.walk_on('other', 't2');
SELECT step, a.result AS dual_table, b.result AS partitioned FROM checks.seen AS a JOIN checks.seen AS b USING (step)
	WHERE a.tenant IS NULL AND b.tenant = 't2' AND a.result IS DISTINCT FROM b.result ORDER BY a.n;
SELECT count(*) > 60 AS steps, count(*) FILTER (WHERE tenant IS NULL) = count(*) FILTER (WHERE tenant = 't2') AS as_many, count(*) FILTER (WHERE result IS NULL) AS without_result FROM checks.seen;
SELECT step, result FROM checks.seen WHERE tenant IS NULL AND step !~ ':|candidates' ORDER BY n;
SELECT step, result FROM checks.seen WHERE tenant IS NULL AND step ~ ': (read|read archived|whole|streams)$' ORDER BY n;
SELECT * FROM check_places('store');
SELECT * FROM check_places('other');
-- Hot reads prune the cold branch, and a read of what is archived reads both.
CREATE FUNCTION checks.scans (statement text) RETURNS TABLE (tier text, leaves bigint) LANGUAGE plpgsql AS $$
DECLARE
	line text;
	plan text := '';
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (COSTS off) ' || statement LOOP plan := plan || line || E'\n'; END LOOP;
	RETURN QUERY SELECT m[1], count(*) FROM regexp_matches(plan, ' on (events_[a-z]+)_', 'g') AS m GROUP BY 1 ORDER BY 1;
END $$;
SELECT * FROM scans('SELECT * FROM other.events WHERE retention_class = ''hot''');
SELECT * FROM scans('SELECT * FROM other.events WHERE retention_class = ''cold'' AND created_at < ''2025-02-01 00:00+00'' AND created_at >= ''2025-01-01 00:00+00''');
SELECT * FROM scans('SELECT * FROM other.events_all WHERE stream_id = checks.id(1)');

-- One backend becomes the other: months as metadata, the rows of the default by rows.
SET client_min_messages = warning;
DROP SCHEMA other CASCADE;
RESET client_min_messages;
SELECT rf_create_partition('hot', m) FROM unnest(ARRAY['2025-04-01', '2025-05-01']::date[]) AS m;
CALL load('store', '2025-04-01', 1200, 20, 100);
CALL load('store', '2025-05-01', 30, 20, 100);
CALL load('store', '2025-06-01', 40, 20, 100);
CALL rf_archive_run('2025-06-01');
SELECT events_moved FROM rf_archive_move('2025-06-02');
SELECT rf_create_partition('cold', '2025-12-01');
CREATE INDEX my_index ON events_archive_2025_04 (user_id);
CREATE INDEX on_cold ON events (correlation_id);
ALTER TABLE events_archive_2025_04 ENABLE ROW LEVEL SECURITY;
CREATE POLICY my_policy ON events_archive_2025_04 USING (user_id IS NOT NULL);
SELECT * FROM check_places();
SELECT * FROM check_keep();
SELECT cold_files('store') AS files \gset
SELECT migrated_by, count(*) FROM events_archive GROUP BY 1 ORDER BY 1;
TRUNCATE checks.seen;
CALL checks.look('store', NULL, 'before');
SELECT rf_archive_set_backend('partitioned');
SELECT * FROM check_same();
SELECT * FROM check_places();
SELECT count(*) FROM events_archive;
SELECT string_agg(relid::text, ' ') FROM pg_partition_tree('events_archive') WHERE isleaf;
SELECT * FROM leaf('events_cold_2025_04');
SELECT * FROM ledger WHERE action = 'convert';
CALL checks.look('store', NULL, 'after');
SELECT a.step, a.result, b.result FROM checks.seen AS a JOIN checks.seen AS b ON b.step = replace(a.step, 'before', 'after') WHERE a.step ~ 'before' AND a.result IS DISTINCT FROM b.result;
SELECT count(*) FROM checks.seen;
SELECT cold_files('store') = :'files' AS same_files;
-- It works there, and again in the other one.
SELECT stream_seq FROM rf_append(id(101), 'late', '{}', created_at => '2025-04-03 00:00+00', allow_archived => true);
SELECT tableoid::regclass FROM events WHERE event_type = 'late' ORDER BY stream_id, stream_seq DESC;
SELECT * FROM check_keep();
SELECT last_seq FROM rf_archive_reactivate(id(102));
CALL rf_archive_run('2025-06-01');
SELECT * FROM check_same();
SELECT rf_flip_partition('2025-04-01', 'hot');
SELECT rf_flip_partition('2025-04-01', 'cold');
SELECT * FROM check_same();
SELECT rf_archive_set_backend(backend => 'dual_table', tenant => NULL);
SELECT * FROM check_same();
SELECT * FROM check_places();
SELECT count(*) FROM events WHERE retention_class = 'cold';
SELECT string_agg(relid::text, ' ') FROM pg_partition_tree('events_cold') WHERE isleaf;
SELECT * FROM leaf('events_archive_2025_04');
SELECT retention_class, migrated_by, migrated_at IS NULL AS no_time, count(*) FROM events_archive GROUP BY 1, 2, 3 ORDER BY 2;
SELECT cold_files('store') = :'files' AS same_files;
SELECT stream_seq FROM rf_append(id(101), 'later', '{}', created_at => '2025-04-03 00:00+00', allow_archived => true);
SELECT * FROM check_keep();
-- In a transaction that ends otherwise, nothing has happened; in one that commits, all of it has.
BEGIN;
SELECT rf_archive_set_backend('partitioned');
SELECT count(*) FROM events_archive;
SELECT rf_archive_set_backend('dual_table');
SELECT rf_archive_set_backend('partitioned');
SELECT count(*) FROM events WHERE retention_class = 'cold';
ROLLBACK;
SELECT backend FROM rf_archive_status();
SELECT * FROM check_same();
-- What is so already stays so, and locks no table that is in use.
BEGIN;
SELECT rf_archive_set_backend('dual_table');
SELECT relation::regclass, mode FROM pg_locks WHERE relation::regclass::text ~ '^events' AND mode ~ 'Exclusive' AND pid = pg_backend_pid();
COMMIT;
SELECT count(*) FROM ledger WHERE action = 'switch';

-- A backend that was changed by hand leaves events in both; the function brings them together.
UPDATE rf_archive_config SET backend = 'partitioned';
SELECT rf_create_partition('hot', '2025-07-01'), rf_create_partition('cold', '2025-04-01'), rf_create_partition('cold', '2025-12-01');
CALL load('store', '2025-07-01', 1000, 20, 100);
SELECT stream_seq FROM rf_append(id(103), 'both', '{}', created_at => '2025-04-04 00:00+00');
SELECT events_moved FROM rf_archive_move('2025-05-01');
CALL rf_archive_run('2025-08-01');
SELECT * FROM check_keep();
SELECT * FROM check_places();
SELECT rf_archive_set_backend('partitioned');
SELECT * FROM check_same();
SELECT * FROM check_places();
SELECT * FROM (SELECT * FROM ledger WHERE action = 'convert' ORDER BY detail) AS l WHERE detail ~ 'by rows';
SELECT string_agg(relid::text, ' ') FROM pg_partition_tree('events_archive') WHERE isleaf;
SELECT rf_archive_set_backend('dual_table');
SELECT * FROM check_same();
SELECT * FROM check_places() WHERE place ~ '2025_04';
SELECT string_agg(relid::text, ' ') FROM pg_partition_tree('events_archive') WHERE isleaf AND relid::text ~ '2025_(04|12)';

-- A month that lies in another tablespace there goes by rows.
SET allow_in_place_tablespaces = on;
CREATE TABLESPACE regress_rillflow_cheap LOCATION '';
UPDATE rf_archive_config SET backend = 'partitioned';
SELECT rf_create_partition('cold', '2025-07-01', 'regress_rillflow_cheap');
UPDATE rf_archive_config SET backend = 'dual_table';
SELECT rf_archive_set_backend('partitioned');
SELECT * FROM check_same();
SELECT * FROM check_places() WHERE place ~ '2025_07';
SELECT partition, tablespace FROM rf_partitions() WHERE partition::text ~ 'cold_2025_0[47]';
-- (a flip does the same; and a move)
SELECT rf_flip_partition('2025-07-01', 'hot');
SELECT rf_create_partition('cold', '2025-07-01', 'regress_rillflow_cheap');
SELECT bucket_month, source, method, events, reason FROM rf_archive_plan('2025-08-01') WHERE bucket_month = '2025-07-01';
SELECT count(*) FROM (SELECT DISTINCT stream_id FROM events_hot_2025_07) AS s, rf_archive_reactivate(s.stream_id, false);
SELECT rf_flip_partition('2025-07-01', 'cold');
SELECT * FROM check_same();
SELECT action, bucket_month, events, estimated, detail FROM rf_archive_log WHERE action ~ 'flip' ORDER BY log_id DESC LIMIT 1;
-- (and the next move closes the streams that it has emptied)
CALL rf_archive_run('2025-08-01');
SELECT count(*) FROM rf_streams AS s WHERE archived_at IS NULL AND NOT EXISTS (SELECT FROM events AS e WHERE e.stream_id = s.stream_id AND retention_class = 'hot');
SELECT partition, tablespace FROM rf_partitions() WHERE partition::text ~ '2025_07';
SELECT rf_archive_set_backend('dual_table');
SELECT partition, tablespace FROM rf_partitions() WHERE partition::text ~ '2025_07';
SELECT * FROM check_same();

-- What does not fit is named, and nothing happens.
SELECT cold_files('store') AS files \gset
CREATE VIEW checks.who AS SELECT migrated_by FROM events_archive_2025_04;
SELECT rf_archive_set_backend('partitioned');
\echo :SQLSTATE
DROP VIEW checks.who;
ALTER TABLE events_archive_2025_05 RENAME TO may;
SELECT rf_archive_set_backend('partitioned');
\echo :SQLSTATE
ALTER TABLE may RENAME TO events_archive_2025_05;
CREATE TABLE store.events_cold_2025_05 (id integer);
SELECT rf_archive_set_backend('partitioned');
\echo :SQLSTATE
DROP TABLE store.events_cold_2025_05;
ALTER TABLE events ADD CONSTRAINT my_check CHECK (event_type <> '');
SELECT rf_archive_set_backend('partitioned');
\echo :SQLSTATE
ALTER TABLE events DROP CONSTRAINT my_check;
ALTER TABLE events_archive ADD COLUMN extra text DEFAULT 'x';
SELECT rf_archive_set_backend('partitioned');
\echo :SQLSTATE
ALTER TABLE events_archive DROP COLUMN extra;
SELECT count(*) FROM check_places() WHERE place = 'events_archive_default';
ALTER TABLE events_cold_default ENABLE ALWAYS TRIGGER rf_events_append_only;
SELECT rf_archive_set_backend('partitioned');
\echo :SQLSTATE
ALTER TABLE events_cold_default ENABLE TRIGGER rf_events_append_only;
BEGIN;
DROP INDEX events_archive_2025_05_stream_key;
SELECT rf_archive_set_backend('partitioned');
\echo :SQLSTATE
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT rf_archive_set_backend('partitioned');
\echo :SQLSTATE
ROLLBACK;
SELECT backend FROM rf_archive_status();
SELECT * FROM check_same();
SELECT cold_files('store') = :'files' AS same_files;
-- A partition by hand of a whole year: with events it is refused, without it stays where it is.
CREATE TABLE store.year_2024 (LIKE events_archive INCLUDING DEFAULTS INCLUDING CONSTRAINTS, PRIMARY KEY (global_seq), UNIQUE (stream_id, stream_seq));
ALTER TABLE events_archive ATTACH PARTITION store.year_2024 FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
SELECT rf_install('store');
BEGIN;
SELECT rf_archive_set_backend('partitioned');
SELECT * FROM check_same();
SELECT string_agg(relid::text, ' ') FROM pg_partition_tree('events_archive') WHERE isleaf;
ROLLBACK;
SELECT stream_seq FROM rf_append(id(200), 'old', '{}', created_at => '2024-05-05 00:00+00');
SELECT events_moved FROM rf_archive_move('2024-06-01');
SELECT * FROM check_keep();
SELECT rf_archive_set_backend('partitioned');
\echo :SQLSTATE
SELECT * FROM check_same();
SELECT last_seq FROM rf_archive_reactivate(id(200));

-- Nor are the values of a column given up that the other table lacks, where rows go by rows.
CREATE SCHEMA other;
SELECT rf_install('other', 't2');
SELECT stream_seq FROM rf_append(id(1), 'e', '{}', created_at => '2024-05-05 00:00+00', tenant => 't2');
SELECT events_moved FROM rf_archive_move('2024-06-01', tenant => 't2');
ALTER TABLE other.events_archive ADD COLUMN extra text DEFAULT 'x';
SELECT rf_archive_set_backend('partitioned', 't2');
\echo :SQLSTATE
ALTER TABLE other.events ADD COLUMN extra text;
SELECT * FROM check_keep('other');
SELECT rf_archive_set_backend('partitioned', 't2');
SELECT * FROM check_same('other');
SELECT extra, retention_class FROM other.events;
SET client_min_messages = warning;
DROP SCHEMA other CASCADE;
RESET client_min_messages;

-- The store's owner may, nobody else.
CREATE ROLE regress_rillflow_owner;
CREATE ROLE regress_rillflow_other;
DO $$
DECLARE
	relation record;
BEGIN
	FOR relation IN SELECT oid::regclass AS name FROM pg_class AS c WHERE relnamespace = 'store'::regnamespace
			AND relkind IN ('r', 'p', 'v', 'S') AND relname NOT IN ('rf_stores', 'rf_armed', 'rf_worker_status')
			AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND deptype IN ('a', 'i') AND c.relkind = 'S')
	LOOP
		EXECUTE format('ALTER TABLE %s OWNER TO regress_rillflow_owner', relation.name);
	END LOOP;
END $$;
GRANT ALL ON SCHEMA store TO regress_rillflow_owner;
GRANT USAGE ON SCHEMA store TO regress_rillflow_other;
GRANT CREATE ON TABLESPACE regress_rillflow_cheap TO regress_rillflow_owner;
GRANT EXECUTE ON FUNCTION rf_archive_set_backend TO regress_rillflow_owner, regress_rillflow_other;
SET ROLE regress_rillflow_other;
SELECT rf_archive_set_backend('partitioned');
\echo :SQLSTATE
SET ROLE regress_rillflow_owner;
SELECT rf_archive_set_backend('partitioned');
RESET ROLE;
SELECT * FROM check_same();
SELECT count(*) FROM events_archive;
SELECT rf_archive_set_backend('dual_table');
SELECT * FROM check_same();
SELECT count(DISTINCT relowner) FROM pg_class WHERE relnamespace = 'store'::regnamespace AND relname ~ '^events_archive';
SET client_min_messages = warning;
DROP SCHEMA store CASCADE;
DROP TABLESPACE regress_rillflow_cheap;
