-- Months that change tier as metadata.
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
-- The files of a leaf and of its indexes.
CREATE TABLE checks.files (leaf oid PRIMARY KEY, files text);
CREATE FUNCTION checks.files (leaf regclass) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(format('%s:%s', oid, pg_relation_filenode(oid)), ' ' ORDER BY oid) FROM pg_class
	WHERE oid = leaf OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = leaf)
$$;
CREATE FUNCTION checks.keep_files (leaf regclass) RETURNS integer LANGUAGE sql AS $$
	INSERT INTO checks.files VALUES (leaf, checks.files(leaf)) ON CONFLICT ON CONSTRAINT files_pkey DO UPDATE SET files = excluded.files
	RETURNING regexp_count(files.files, ':')
$$;
CREATE FUNCTION checks.same_files (leaf regclass) RETURNS boolean LANGUAGE sql AS $$
	SELECT checks.files(leaf) = (SELECT f.files FROM checks.files AS f WHERE f.leaf = same_files.leaf)
$$;
CREATE VIEW checks.ledger AS
	SELECT action, bucket_month, CASE WHEN NOT estimated THEN events END AS events, estimated, detail FROM store.rf_archive_log
	WHERE action NOT IN ('close', 'partition made') ORDER BY log_id;
\set ECHO all

-- A month turns cold, and hot again, and cold: the same events, in the same files.
SELECT rf_create_partition('hot', '2025-03-01');
CALL load('store', '2025-03-01', 1200, 40);
SELECT * FROM check_keep();
SELECT keep_files('events_hot_2025_03');
SELECT * FROM leaf('events_hot_2025_03');
SELECT rf_flip_partition('2025-03-01', 'cold');
SELECT * FROM check_same();
SELECT * FROM check_places();
SELECT same_files('events_archive_2025_03');
SELECT * FROM leaf('events_archive_2025_03');
SELECT retention_class, migrated_by, migrated_at <= now() AND migrated_at > now() - interval '1 hour' AS recent, count(*) FROM events_archive GROUP BY 1, 2, 3;
SELECT retention_class, count(*) FROM events_all GROUP BY 1;
-- (it has been done already)
SELECT rf_flip_partition('2025-03-01', 'cold');
SELECT rf_flip_partition(month => '2025-03-01', retention => 'hot', tenant => NULL);
SELECT * FROM check_same();
SELECT * FROM check_places();
SELECT same_files('events_hot_2025_03');
SELECT * FROM leaf('events_hot_2025_03');
SELECT retention_class, count(*) FROM events GROUP BY 1;
SELECT rf_flip_partition('2025-03-01', 'cold');
SELECT rf_flip_partition('2025-03-01', 'hot');
SELECT rf_flip_partition('2025-03-01', 'cold');
SELECT * FROM check_same();
SELECT same_files('events_archive_2025_03');
-- Nobody reads its rows for that: ATTACH takes the bounds from the CHECK of the month.
BEGIN;
SELECT pg_stat_get_xact_numscans('events_archive_2025_03'::regclass) AS scans \gset
SELECT rf_flip_partition('2025-03-01', 'hot');
SELECT rf_flip_partition('2025-03-01', 'cold');
SELECT pg_stat_get_xact_numscans('events_archive_2025_03'::regclass) - :scans AS scans;
SELECT count(*) FROM events_archive_2025_03;
SELECT pg_stat_get_xact_numscans('events_archive_2025_03'::regclass) - :scans AS scans;
ROLLBACK;
SELECT retention_class, migrated_by, count(*) FROM events_archive GROUP BY 1, 2;
SELECT stream_seq, body, retention_class FROM rf_read_stream(id(7), max_events => 2, include_archived => true);
-- Streams are closed by the next move, of nothing else.
SELECT count(*) FILTER (WHERE archived_at IS NOT NULL) AS closed, count(*) FROM rf_streams;
CALL rf_archive_run('2025-04-01');
SELECT archived_by, count(*) FROM rf_streams GROUP BY 1;
SELECT * FROM check_same();
SELECT * FROM ledger;
-- In a transaction that ends otherwise, nothing has happened.
BEGIN;
SELECT rf_flip_partition('2025-03-01', 'hot');
SELECT count(*) FROM events;
ROLLBACK;
SELECT * FROM check_same();
SELECT * FROM check_places();

-- The other backend.
CREATE SCHEMA other;
SELECT rf_install('other', 't2');
SELECT rf_archive_set_backend('partitioned', 't2');
SELECT rf_create_partition('hot', '2025-03-01', NULL, 't2');
CALL load('other', '2025-03-01', 1100, 30);
SELECT * FROM check_keep('other');
SELECT keep_files('other.events_hot_2025_03');
SELECT rf_flip_partition('2025-03-01', 'cold', 't2');
SELECT * FROM check_same('other');
SELECT * FROM check_places('other');
SELECT same_files('other.events_cold_2025_03');
SELECT * FROM leaf('other.events_cold_2025_03');
SELECT tableoid::regclass, retention_class, count(*) FROM other.events GROUP BY 1, 2;
SELECT count(*) FROM other.events WHERE retention_class = 'hot';
SELECT rf_flip_partition('2025-03-01', 'hot', 't2');
SELECT * FROM leaf('other.events_hot_2025_03');
SELECT rf_flip_partition('2025-03-01', 'cold', 't2');
SELECT rf_flip_partition('2025-03-01', 'hot', 't2');
SELECT * FROM check_same('other');
SELECT same_files('other.events_hot_2025_03');
SELECT bucket_month, source, method, events, streams, reason FROM rf_archive_plan('2025-04-01', tenant => 't2');
CALL rf_archive_run('2025-04-01', tenant => 't2');
SELECT * FROM check_same('other');
SELECT * FROM check_places('other');
SELECT archived_by, count(*) FROM other.rf_streams GROUP BY 1;
-- (a closed stream that goes on is cold there, and its event joins the month)
SELECT stream_seq FROM rf_append(id(3), 'late', '{}', created_at => '2025-03-30 00:00+00', allow_archived => true, tenant => 't2');
SELECT * FROM check_places('other');

-- What is refused.
SELECT rf_flip_partition('2024-03-01', 'hot');
\echo :SQLSTATE
SELECT rf_flip_partition('2025-03-02', 'hot');
\echo :SQLSTATE
SELECT rf_flip_partition(NULL, 'hot');
\echo :SQLSTATE
SELECT rf_flip_partition('2025-03-01', NULL);
\echo :SQLSTATE
SELECT rf_flip_partition('2025-03-01', 'lukewarm');
\echo :SQLSTATE
SELECT rf_flip_partition('infinity', 'cold');
\echo :SQLSTATE
SELECT rf_flip_partition('2025-03-01', 'hot', 'nobody');
\echo :SQLSTATE
SELECT rf_flip_partition('9999-12-01', 'cold');
\echo :SQLSTATE
SELECT regexp_replace(try('SELECT rf_flip_partition(date_trunc(''month'', now() AT TIME ZONE ''UTC'')::date, ''cold'')'), '\d{4}-\d\d', 'YYYY-MM');
BEGIN READ ONLY;
SELECT rf_flip_partition('2025-03-01', 'hot');
\echo :SQLSTATE
ROLLBACK;
SELECT * FROM check_same();

-- An event that comes late waits in the default, and goes with the next move.
SELECT stream_seq FROM rf_append(id(100), 'late', '{}', created_at => '2025-03-30 00:00+00');
SELECT * FROM check_places();
SELECT * FROM check_keep();
SELECT bucket_month, source, method, events, streams, reason FROM rf_archive_plan('2025-04-01');
CALL rf_archive_run('2025-04-01');
SELECT * FROM check_same();
SELECT * FROM check_places();
SELECT archived_by FROM rf_streams WHERE stream_id = id(100);
-- One that waits in the default of the tier that the month goes to goes along.
SELECT stream_seq FROM rf_append(id(100), 'later', '{}', created_at => '2025-03-30 12:00+00', allow_archived => true);
SELECT stream_seq FROM rf_append(id(100), 'other', '{}', created_at => '2025-02-28 12:00+00', allow_archived => true);
SELECT * FROM check_places();
SELECT * FROM check_keep();
SELECT rf_flip_partition('2025-03-01', 'hot');
SELECT * FROM check_same();
SELECT * FROM check_places();
CALL rf_archive_run('2025-03-01');
SELECT * FROM check_same();
SELECT rf_create_partition('hot', '2025-02-01');
INSERT INTO events (stream_id, event_type, body, created_at, bucket_month) VALUES (id(101), 'e', '{}', '2025-02-03 00:00+00', '2025-02-01');
SELECT * FROM check_keep();
SELECT * FROM check_places();

-- Few events go by rows; part of a month does; a stream does; what is archived does.
SELECT bucket_month, source, method, events, streams, reason FROM rf_archive_plan('2025-04-01');
SELECT bucket_month, source, method, events, reason FROM rf_archive_plan('2025-03-20 00:00+00') WHERE bucket_month >= '2025-03-01';
SELECT bucket_month, source, method, events, reason FROM rf_archive_plan('2025-04-01', stream_id => id(5));
SELECT bucket_month, source, method, events, reason FROM rf_archive_plan('2025-04-01', only_archived => true) WHERE bucket_month = '2025-03-01';
-- A dry run tells how many months flip, and a move flips them.
SELECT * FROM rf_archive_move('2025-04-01', dry_run => true);
SELECT * FROM check_same();
SELECT * FROM rf_archive_move('2025-04-01');
SELECT * FROM check_same();
SELECT * FROM check_places();
SELECT * FROM ledger WHERE action ~ 'flip' ORDER BY action;

-- A cold month that is there and empty is replaced; one that is not joins by rows: all of the month in rf_flip_partition(), the smaller part in a move.
SELECT rf_create_partition(tier, month) FROM unnest(ARRAY['hot', 'cold']) AS tier, unnest(ARRAY['2025-04-01', '2025-05-01', '2025-06-01']::date[]) AS month;
CALL load('store', '2025-04-01', 1300, 20, 200);
CALL load('store', '2025-05-01', 1300, 20, 300);
CALL load('store', '2025-06-01', 1300, 20, 400);
SELECT * FROM check_keep();
SELECT keep_files('events_hot_2025_04');
SELECT rf_flip_partition('2025-04-01', 'cold');
SELECT same_files('events_archive_2025_04');
SELECT events_moved FROM rf_archive_move('2025-07-01', stream_id => id(305));
SELECT events_moved FROM rf_archive_move('2025-07-01', stream_id => id(405));
SELECT * FROM check_places() WHERE place ~ '2025_0[456]';
SELECT keep_files('events_hot_2025_06');
SELECT rf_flip_partition('2025-05-01', 'cold');
SELECT rf_flip_partition('2025-05-01', 'cold');
SELECT * FROM check_same();
SELECT * FROM check_places() WHERE place ~ '2025_0[456]';
SELECT bucket_month, source, method, events, streams, reason FROM rf_archive_plan('2025-07-01');
SELECT events_moved, months_flipped FROM rf_archive_move('2025-07-01', dry_run => true);
CALL rf_archive_run('2025-07-01');
SELECT * FROM check_same();
SELECT * FROM check_places() WHERE place ~ '2025_0[456]';
SELECT same_files('events_archive_2025_06');
SELECT archived_by, count(*) FROM rf_streams GROUP BY 1;

-- What users have added to the tables stays: columns, indexes, triggers, policies, privileges.
CREATE ROLE regress_rillflow_reader;
ALTER TABLE events ADD COLUMN note text;
ALTER TABLE events_archive ADD COLUMN note text;
CREATE INDEX events_archive_user ON events_archive (user_id, lower(event_type) DESC) WHERE is_tombstone;
SELECT rf_create_partition('hot', '2025-07-01');
CALL load('store', '2025-07-01', 1000, 20, 500);
CREATE FUNCTION checks.nothing () RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER my_trigger AFTER TRUNCATE ON events_hot_2025_07 EXECUTE FUNCTION checks.nothing();
ALTER TABLE events_hot_2025_07 ENABLE ROW LEVEL SECURITY;
CREATE POLICY my_policy ON events_hot_2025_07 USING (user_id IS NOT NULL);
GRANT SELECT (global_seq, retention_class), UPDATE (retention_class) ON events_hot_2025_07 TO regress_rillflow_reader;
GRANT SELECT (retention_class) ON events_hot_2025_07 TO PUBLIC;
GRANT DELETE ON events_hot_2025_07 TO regress_rillflow_reader WITH GRANT OPTION;
CREATE VIEW checks.types AS SELECT event_type FROM events_hot_2025_07;
SELECT * FROM check_keep();
SELECT rf_flip_partition('2025-07-01', 'cold');
SELECT * FROM check_same();
SELECT * FROM leaf('events_archive_2025_07');
SELECT relrowsecurity, has_table_privilege('regress_rillflow_reader', oid, 'DELETE WITH GRANT OPTION') AS deletes, has_table_privilege('regress_rillflow_reader', oid, 'SELECT') AS selects FROM pg_class WHERE oid = 'events_archive_2025_07'::regclass;
SELECT attname, replace(attacl::text, current_user, 'owner') AS acl FROM pg_attribute WHERE attrelid = 'events_archive_2025_07'::regclass AND attacl IS NOT NULL AND NOT attisdropped ORDER BY 1;
SELECT polname, pg_get_expr(polqual, polrelid) FROM pg_policy WHERE polrelid = 'events_archive_2025_07'::regclass;
SELECT count(*) FROM checks.types;
SELECT keep_files('events_archive_2025_07');
SELECT rf_flip_partition('2025-07-01', 'hot');
SELECT rf_flip_partition('2025-07-01', 'cold');
SELECT * FROM leaf('events_archive_2025_07');
SELECT same_files('events_archive_2025_07');
SELECT attname, replace(attacl::text, current_user, 'owner') AS acl FROM pg_attribute WHERE attrelid = 'events_archive_2025_07'::regclass AND attacl IS NOT NULL AND NOT attisdropped ORDER BY 1;
SELECT * FROM check_same();

-- What refers to a column that goes is named, and nothing happens; a move takes the rows.
SELECT rf_create_partition('hot', month) FROM unnest(ARRAY['2025-08-01', '2025-09-01', '2025-10-01', '2025-11-01']::date[]) AS month;
CALL load('store', '2025-08-01', 1000, 20, 600);
CALL load('store', '2025-09-01', 1000, 20, 700);
CALL load('store', '2025-10-01', 1000, 20, 800);
CALL load('store', '2025-11-01', 1000, 20, 900);
SELECT * FROM check_keep();
SELECT keep_files('events_hot_2025_08');
CREATE VIEW checks.classes AS SELECT retention_class FROM events_hot_2025_08;
SELECT rf_flip_partition('2025-08-01', 'cold');
\echo :SQLSTATE
DROP VIEW checks.classes;
CREATE INDEX my_index ON events_hot_2025_08 (retention_class);
SELECT rf_flip_partition('2025-08-01', 'cold');
\echo :SQLSTATE
SELECT * FROM check_same();
SELECT * FROM check_places() WHERE place ~ '2025_08';
ALTER TABLE events_hot_2025_09 RENAME TO september;
SELECT rf_flip_partition('2025-09-01', 'cold');
\echo :SQLSTATE
-- (a table of its row type)
CREATE TABLE checks.copies (e events_hot_2025_10);
SELECT rf_flip_partition('2025-10-01', 'cold');
\echo :SQLSTATE
-- (a view on the cold month that would be replaced)
SELECT rf_create_partition('cold', '2025-11-01');
CREATE VIEW checks.cold AS SELECT event_type FROM events_archive_2025_11;
SELECT rf_flip_partition('2025-11-01', 'cold');
\echo :SQLSTATE
SELECT bucket_month, source, method, events, reason FROM rf_archive_plan('2025-12-01');
CALL rf_archive_run('2025-12-01');
SELECT * FROM check_same();
SELECT * FROM check_places() WHERE place ~ '2025_(08|09|1)|september';
DROP VIEW checks.cold;
DROP TABLE checks.copies;

-- A month whose columns do not fit says which.
SELECT rf_create_partition('hot', '2025-12-01');
CALL load('store', '2025-12-01', 1000, 20, 1000);
SELECT * FROM check_keep();
ALTER TABLE events_archive ADD CONSTRAINT my_check CHECK (event_type <> '');
SELECT rf_flip_partition('2025-12-01', 'cold');
\echo :SQLSTATE
CALL rf_archive_run('2026-01-01');
SELECT * FROM check_same();
SELECT * FROM check_places() WHERE place ~ '2025_12';
SELECT count(*) FROM pg_constraint WHERE conname = 'rf_flip_bounds';

ALTER TABLE events_archive DROP CONSTRAINT my_check;
-- What was done to leaves by hand: one that is detached is none, and its name is taken; one in another schema; an index that has lost its name to another table's; one without the index that appends need; one of several months; events without a partition of their own.
SELECT rf_create_partition('hot', month) FROM unnest(ARRAY['2024-01-01', '2024-02-01', '2024-03-01', '2024-04-01', '2024-05-01']::date[]) AS month;
CALL load('store', '2024-01-01', 1000, 20, 1100);
CALL load('store', '2024-02-01', 1000, 20, 1200);
CALL load('store', '2024-03-01', 1000, 20, 1300);
CALL load('store', '2024-04-01', 1000, 20, 1400);
CALL load('store', '2024-06-01', 1000, 20, 1500);
SELECT * FROM check_keep();
ALTER TABLE events_hot DETACH PARTITION events_hot_2024_01;
SELECT rf_flip_partition('2024-01-01', 'cold');
\echo :SQLSTATE
ALTER TABLE events_hot ATTACH PARTITION events_hot_2024_01 FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
SELECT * FROM check_same();
SELECT rf_create_partition('cold', '2024-01-01');
ALTER TABLE events_archive DETACH PARTITION events_archive_2024_01;
SELECT rf_flip_partition('2024-01-01', 'cold');
\echo :SQLSTATE
ALTER TABLE events_hot_2024_02 SET SCHEMA checks;
SELECT rf_flip_partition('2024-02-01', 'cold');
\echo :SQLSTATE
CREATE TABLE store.mine (id integer);
CREATE INDEX events_archive_2024_03_pkey ON store.mine (id);
SELECT rf_flip_partition('2024-03-01', 'cold');
\echo :SQLSTATE
BEGIN;
DROP INDEX events_hot_2024_04_stream_key;
SELECT rf_flip_partition('2024-04-01', 'cold');
\echo :SQLSTATE
ROLLBACK;
SELECT rf_drop_partition('hot', '2024-05-01');
CREATE TABLE store.spring (LIKE events_hot INCLUDING DEFAULTS INCLUDING CONSTRAINTS, PRIMARY KEY (global_seq), UNIQUE (stream_id, stream_seq));
ALTER TABLE events_hot ATTACH PARTITION store.spring FOR VALUES FROM ('2024-05-01') TO ('2024-06-01');
SELECT rf_flip_partition('2024-05-01', 'cold');
\echo :SQLSTATE
ALTER TABLE events_hot DETACH PARTITION spring;
ALTER TABLE events_hot ATTACH PARTITION store.spring FOR VALUES FROM (MINVALUE) TO ('2020-01-01');
SELECT rf_flip_partition('2019-05-01', 'cold');
\echo :SQLSTATE
SELECT rf_flip_partition('2024-06-01', 'cold');
\echo :SQLSTATE
SELECT * FROM check_same();
SELECT * FROM check_places() WHERE place ~ '2024' OR place ~ 'hot_default';
-- (a move takes their events by rows)
SELECT bucket_month, source, method, events, reason FROM rf_archive_plan('2024-05-01');
CALL rf_archive_run('2024-05-01');
SELECT * FROM check_same();
SELECT * FROM check_places() WHERE place ~ '2024' OR place ~ 'archive_default';
-- An index that was renamed stays as it is named, whoever has its old name.
SELECT rf_create_partition('hot', '2024-07-01');
CALL load('store', '2024-07-01', 1000, 20, 1600);
SELECT * FROM check_keep();
ALTER INDEX events_hot_2024_07_pkey RENAME TO my_pkey;
CREATE INDEX events_hot_2024_07_pkey ON store.mine (id);
SELECT rf_flip_partition('2024-07-01', 'cold');
SELECT indexrelid::regclass FROM pg_index WHERE indrelid IN ('events_archive_2024_07'::regclass, 'store.mine'::regclass) ORDER BY indexrelid::regclass::text COLLATE "C";
SELECT * FROM check_same();
DROP TABLE store.mine;

-- A trigger of the month whose name a trigger of the other tier has, too: it could not come there.
SELECT rf_create_partition('hot', '2024-08-01');
CALL load('store', '2024-08-01', 1000, 20, 1700);
SELECT * FROM check_keep();
CREATE TRIGGER twice BEFORE INSERT ON events_hot_2024_08 FOR EACH ROW EXECUTE FUNCTION checks.nothing();
CREATE TRIGGER twice BEFORE INSERT ON events_archive FOR EACH ROW EXECUTE FUNCTION checks.nothing();
SELECT rf_flip_partition('2024-08-01', 'cold');
\echo :SQLSTATE
SELECT bucket_month, source, method, events, reason FROM rf_archive_plan('2024-09-01') WHERE bucket_month = '2024-08-01';
DROP TRIGGER twice ON events_hot_2024_08;
SELECT rf_flip_partition('2024-08-01', 'cold');
-- (one that comes from the parent goes with it, and stands in no way)
CREATE TRIGGER twice BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION checks.nothing();
SELECT rf_flip_partition('2024-08-01', 'hot');
CREATE TRIGGER other BEFORE INSERT ON events_hot_2024_08 FOR EACH ROW EXECUTE FUNCTION checks.nothing();
CREATE TRIGGER other BEFORE INSERT ON events_archive FOR EACH ROW EXECUTE FUNCTION checks.nothing();
CALL rf_archive_run('2024-09-01');
SELECT * FROM check_same();
SELECT * FROM check_places() WHERE place ~ '2024_08';
DROP TRIGGER twice ON events;
DROP TRIGGER twice ON events_archive;
DROP TRIGGER other ON events_archive;

-- Who owns the store flips, nobody else.
GRANT USAGE ON SCHEMA store TO regress_rillflow_reader;
SET ROLE regress_rillflow_reader;
SELECT rf_flip_partition('2025-07-01', 'hot');
\echo :SQLSTATE
RESET ROLE;
