-- Making months.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
\set ECHO all

CREATE VIEW checks.months AS
	SELECT relname, pg_get_expr(relpartbound, oid) AS bound FROM pg_class
	WHERE relnamespace = 'store'::regnamespace AND relispartition AND relkind = 'r' AND pg_get_expr(relpartbound, oid) ~ '\d'
		AND pg_get_expr(relpartbound, oid) !~ format('''(%s)-', (SELECT string_agg(DISTINCT to_char(now() + n * interval '1 month', 'YYYY'), '|') FROM generate_series(-1, 4) AS n))
	ORDER BY relname;

-- Bounds: the year's end, February in a leap year and not, a century that is none; the first and the last month there can be.
SELECT rf_create_partition('hot', month) FROM unnest(ARRAY['2023-12-01', '2024-02-01', '2023-02-01', '1900-02-01', '2000-02-01', '0001-01-01', '9999-12-01', '1969-12-01']::date[]) AS month;
SELECT * FROM checks.months;
SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'events_hot_2024_02'::regclass AND contype = 'c' ORDER BY 1;
SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'events_hot_9999_12'::regclass AND conname ~ 'bounds' ORDER BY 1;
-- Where the events go: the last microsecond of a month, and the first of the next; of the leap day; by UTC, whatever the session's zone.
SET timezone = 'Pacific/Kiritimati';
SELECT count(*) FROM unnest(ARRAY['2023-12-31 23:59:59.999999+00', '2024-01-01 00:00+00', '2024-02-01 00:00+00', '2024-02-29 23:59:59.999999+00', '2024-03-01 00:00+00', '2024-02-01 00:00+14', '2024-01-31 23:00-01', '2023-02-28 23:59+00', '1969-12-31 23:59+00', '1970-01-01 00:00+00']::timestamptz[]) AS t,
	rf_append('00000000-0000-0000-0000-000000000001', 'e', '{}', created_at => t);
RESET timezone;
SELECT created_at, bucket_month, tableoid::regclass FROM events ORDER BY stream_seq;
SELECT * FROM check_keep();

-- Again: the same, and no second one; in the same transaction, too.
SELECT rf_create_partition('hot', '2024-02-01');
BEGIN;
SELECT rf_create_partition('hot', '2024-05-01'), rf_create_partition('hot', '2024-05-01');
SELECT stream_seq FROM rf_append('00000000-0000-0000-0000-000000000001', 'e', '{}', created_at => '2024-05-05 00:00+00');
SELECT rf_create_partition(retention => 'hot', month => '2024-05-01', tablespace => NULL, tenant => NULL);
ROLLBACK;
SELECT to_regclass('events_hot_2024_05');
SELECT count(*) FROM rf_archive_log WHERE action = 'partition made' AND bucket_month = '2024-02-01';

-- Cold ones, where the backend keeps them; rows that wait in a default go along.
SELECT count(*) FROM events_hot_default;
SELECT rf_create_partition('hot', '2024-01-01'), rf_create_partition('hot', '2024-03-01'), rf_create_partition('hot', '1970-01-01');
SELECT count(*) FROM events_hot_default;
SELECT bucket_month, tableoid::regclass, count(*) FROM events GROUP BY 1, 2 ORDER BY 1;
SELECT * FROM check_same();
SELECT bucket_month, events, detail FROM rf_archive_log WHERE action = 'partition made' AND events > 0 ORDER BY bucket_month;
SELECT events_moved FROM rf_archive_move('2024-02-15 00:00+00');
SELECT * FROM check_places() WHERE place ~ 'archive';
SELECT rf_create_partition('cold', '2023-12-01'), rf_create_partition('cold', '2024-02-01'), rf_create_partition('cold', '2024-02-01');
SELECT * FROM check_places() WHERE place ~ 'archive';
SELECT bucket_month, events, detail FROM rf_archive_log WHERE action = 'partition made' AND detail ~ 'archive' ORDER BY bucket_month;
SELECT * FROM check_same();
-- They are full members: writers past the functions are refused, heads are kept, moves and reactivations find them.
DELETE FROM events_hot_2024_01;
\echo :SQLSTATE
INSERT INTO events_archive_2023_12 SELECT * FROM events_archive_2023_12;
\echo :SQLSTATE
SELECT events_moved FROM rf_archive_move('2025-01-01 00:00+00');
SELECT last_seq, archived_at FROM rf_archive_reactivate('00000000-0000-0000-0000-000000000001');
SELECT * FROM check_same();
SELECT bucket_month, tableoid::regclass, count(*) FROM events GROUP BY 1, 2 ORDER BY 1;

-- In the other backend cold months are branches of events.
CREATE SCHEMA other;
SELECT rf_install('other', 't2');
SELECT rf_archive_set_backend('partitioned', 't2');
SELECT rf_create_partition('cold', '2024-01-01', tenant => 't2'), rf_create_partition('hot', '2024-01-01', NULL, 't2');
SELECT parent.relname AS parent, child.relname AS child FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid JOIN pg_class AS parent ON parent.oid = inhparent
WHERE child.relnamespace = 'other'::regnamespace AND child.relname ~ '2024' ORDER BY 2;
SELECT rf_archive_set_backend('dual_table', 't2');
SELECT rf_create_partition('cold', '2024-01-01', tenant => 't2');

-- What is refused: a day that is no first, a tier that is none, a tablespace or tenant that is not there, months without a name.
SELECT rf_create_partition('hot', '2024-02-29');
\echo :SQLSTATE
SELECT rf_create_partition('warm', '2024-06-01');
\echo :SQLSTATE
SELECT rf_create_partition('hot', '2024-06-01', 'nowhere');
\echo :SQLSTATE
SELECT rf_create_partition('hot', '2024-06-01', 'pg_global');
\echo :SQLSTATE
SELECT rf_create_partition('hot', '2024-06-01', tenant => 'nobody');
\echo :SQLSTATE
SELECT rf_create_partition('hot', '0001-12-01 BC');
\echo :SQLSTATE
SELECT rf_create_partition('hot', '10000-01-01');
\echo :SQLSTATE
SELECT rf_create_partition('hot', 'infinity');
\echo :SQLSTATE
SELECT rf_create_partition('cold', '-infinity');
\echo :SQLSTATE
SELECT rf_create_partition('hot', NULL);
\echo :SQLSTATE
SELECT rf_create_partition(NULL, '2024-06-01');
\echo :SQLSTATE
BEGIN READ ONLY;
SELECT rf_create_partition('hot', '2024-06-01');
\echo :SQLSTATE
ROLLBACK;
SELECT to_regclass('events_hot_2024_06');

-- A tablespace that is there; a table that bears the name already, and is no month; a month that a wider partition covers.
SELECT rf_create_partition('hot', '2024-06-01', 'pg_default');
CREATE TABLE store.events_hot_2024_07 (id int);
SELECT rf_create_partition('hot', '2024-07-01');
\echo :SQLSTATE
DROP TABLE store.events_hot_2024_07;
-- What the default has for itself a month does not get, unless the tables above ask for it.
ALTER TABLE events ADD CONSTRAINT rf_bucket_month_tie CHECK (isfinite(created_at) AND bucket_month = date_trunc('month', created_at AT TIME ZONE 'UTC')::date);
SELECT rf_create_partition('hot', '2024-08-01');
SELECT conname FROM pg_constraint WHERE conrelid = 'events_hot_2024_08'::regclass AND contype = 'c' ORDER BY 1;
-- (that of a partition goes with that of its parents)
ALTER TABLE events DROP CONSTRAINT rf_bucket_month_tie;
SELECT rf_install('store');
SELECT rf_drop_partition('hot', '2024-08-01');
SELECT conrelid::regclass AS leaf, conname FROM pg_constraint WHERE conrelid IN ('events'::regclass, 'events_hot_default'::regclass) AND contype = 'c' ORDER BY 1;
CREATE TABLE store.year_2150 (LIKE events_hot INCLUDING DEFAULTS INCLUDING CONSTRAINTS, PRIMARY KEY (global_seq), UNIQUE (stream_id, stream_seq));
ALTER TABLE events_hot ATTACH PARTITION store.year_2150 FOR VALUES FROM ('2150-01-01') TO ('2151-01-01');
SELECT rf_create_partition('hot', '2150-05-01');
-- (a partition made by hand takes no events until rf_install() has guarded it)
SELECT stream_seq FROM rf_append('00000000-0000-0000-0000-000000000001', 'e', '{}', created_at => '2150-05-05 00:00+00');
\echo :SQLSTATE
SELECT rf_install('store');
SELECT stream_seq FROM rf_append('00000000-0000-0000-0000-000000000001', 'e', '{}', created_at => '2150-05-05 00:00+00');
SELECT stream_seq FROM rf_append('00000000-0000-0000-0000-000000000001', 'e', '{}', created_at => '2150-11-05 00:00+00');
SELECT events, broken_streams FROM check_union('store');
SELECT * FROM check_keep();
CALL rf_archive_run('2150-11-01 00:00+00');
SELECT * FROM check_same();
SELECT * FROM check_places() WHERE place ~ '2150';

-- Two defaults, and months for everything that lies in them.
SELECT stream_seq FROM rf_append('00000000-0000-0000-0000-000000000002', 'old', '{}', created_at => '0044-03-15 00:00+00 BC');
SELECT stream_seq FROM rf_append('00000000-0000-0000-0000-000000000002', 'far', '{}', created_at => '12024-03-15 00:00+00');
SELECT * FROM check_keep();
-- (events without a month that can be named stay in a default, hot or cold)
CALL rf_archive_run('infinity');
SELECT * FROM check_same();
SELECT stream_seq, bucket_month, retention_class FROM events_all WHERE stream_id = '00000000-0000-0000-0000-000000000002' ORDER BY 1;
SELECT * FROM check_places() WHERE place ~ 'default';
SELECT last_seq FROM rf_archive_reactivate('00000000-0000-0000-0000-000000000002');
SELECT * FROM check_same();

-- A list of the leaves: tier, bounds, events, tablespace. Defaults have no bounds, and are counted.
SELECT partition, retention, from_month, to_month, bytes > 0 AS has_bytes, tablespace
FROM rf_partitions() WHERE from_month = '2024-02-01' OR from_month > '2150-01-01' ORDER BY 1;
SELECT partition, retention, from_month, events FROM rf_partitions() WHERE partition::text ~ 'default' ORDER BY 1;
SELECT count(*) = (SELECT count(*) FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE relkind = 'r' AND inhparent::regclass::text IN ('events_hot', 'events_cold', 'events_archive')) AS all_leaves, count(*) > 10 AS several FROM rf_partitions();
SELECT * FROM rf_partitions('nobody');
\echo :SQLSTATE

-- Draining the defaults makes the months that lack, hot and cold, and takes their events along.
SELECT stream_seq FROM rf_append('00000000-0000-0000-0000-000000000003', 'a', '{}', created_at => '2031-03-15 00:00+00');
SELECT stream_seq FROM rf_append('00000000-0000-0000-0000-000000000003', 'b', '{}', created_at => '2031-04-15 00:00+00');
SELECT stream_seq FROM rf_append('00000000-0000-0000-0000-000000000003', 'c', '{}', created_at => '2031-04-30 23:59+00');
SELECT last_seq FROM rf_archive_mark('00000000-0000-0000-0000-000000000003');
SELECT events_moved FROM rf_archive_move('2031-04-01', stream_id => '00000000-0000-0000-0000-000000000003');
SELECT * FROM check_places() WHERE place ~ '2031|default' ORDER BY 1;
SELECT * FROM check_keep();
SELECT rf_drain_default();
SELECT * FROM check_same();
SELECT * FROM check_places() WHERE place ~ '2031|default' ORDER BY 1;
SELECT rf_drain_default();
BEGIN READ ONLY;
SELECT rf_drain_default();
\echo :SQLSTATE
ROLLBACK;

-- Dropping a month: one that holds events only when forced, and then the ledger knows; a default never.
SELECT rf_drop_partition('hot', '2031-04-01');
\echo :SQLSTATE
SELECT rf_drop_partition('cold', '2031-03-01');
\echo :SQLSTATE
SELECT * FROM check_same();
SELECT rf_drop_partition('hot', '2031-03-01');
\echo :SQLSTATE
SELECT rf_drop_partition('hot', '2031-04-15');
\echo :SQLSTATE
SELECT rf_drop_partition('mild', '2031-04-01');
\echo :SQLSTATE
SELECT rf_drop_partition('hot', NULL);
\echo :SQLSTATE
SELECT rf_drop_partition('hot', '2150-01-01');
\echo :SQLSTATE
-- (events that a transaction has moved are there for others until it commits)
BEGIN;
SELECT events_moved FROM rf_archive_move('2031-05-01', stream_id => '00000000-0000-0000-0000-000000000003');
SELECT count(*) FROM events_hot_2031_04;
SELECT rf_drop_partition('hot', '2031-04-01');
\echo :SQLSTATE
ROLLBACK;
SELECT rf_create_partition('hot', '2032-02-01');
SELECT rf_drop_partition('hot', '2032-02-01');
SELECT to_regclass('events_hot_2032_02');
SELECT * FROM check_same();
BEGIN;
SELECT rf_drop_partition('hot', '2031-04-01', force => true);
SELECT action, bucket_month, events, detail FROM rf_archive_log WHERE action = 'partition dropped' ORDER BY log_id;
SELECT to_regclass('events_hot_2031_04'), (SELECT count(*) FROM events_all WHERE stream_id = '00000000-0000-0000-0000-000000000003');
ROLLBACK;
SELECT * FROM check_same();

-- How long a lock is waited for is a setting.
SHOW rillflow.lock_timeout;
\set VERBOSITY sqlstate
SET rillflow.lock_timeout = -1;
\set VERBOSITY default
SET rillflow.lock_timeout = '1s';
SHOW rillflow.lock_timeout;
