-- Consumers: how far they have read, and that no move goes beyond.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
CREATE FUNCTION checks.id (i integer) RETURNS uuid IMMUTABLE LANGUAGE sql AS $$ SELECT lpad(i::text, 32, '0')::uuid $$;
-- Events of a month, a minute apart, of so many streams.
CREATE FUNCTION checks.load (schema name, month date, events integer, streams integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('INSERT INTO %I.events (stream_id, event_type, body, headers, user_id, is_tombstone, created_at, bucket_month)
		SELECT checks.id(i %% $3), ''e'' || i, jsonb_build_object(''n'', i), CASE WHEN i %% 3 = 0 THEN ''{"k": null}'' ELSE ''{}'' END::jsonb,
			CASE i %% 4 WHEN 0 THEN '''' WHEN 1 THEN ''u'' END, i %% 7 = 0, $1::timestamp AT TIME ZONE ''UTC'' + i * interval ''1 minute'', $1
		FROM generate_series(1, $2) AS i', schema) USING month, events, streams;
END $$;
CREATE FUNCTION checks.consumers (schema name) RETURNS TABLE (name text, last_global_seq bigint) LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY EXECUTE format('SELECT c.name, c.last_global_seq FROM %I.rf_consumers AS c ORDER BY c.name COLLATE "C"', schema);
END $$;
-- The last number that is cold, and the first that is hot.
CREATE FUNCTION checks.edge (schema name, OUT cold bigint, OUT last_cold bigint, OUT first_hot bigint) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('SELECT count(*) FILTER (WHERE retention_class = ''cold''), max(global_seq) FILTER (WHERE retention_class = ''cold''),
		min(global_seq) FILTER (WHERE retention_class = ''hot'') FROM %I.events_all', schema) INTO cold, last_cold, first_hot;
END $$;
\set ECHO all

-- Two stores, one of each backend. What follows is done in both.
CREATE SCHEMA other;
SELECT rf_install('other', 't2');
SELECT rf_archive_set_backend('partitioned', 't2');
CREATE VIEW checks.both AS SELECT * FROM (VALUES (NULL::text, 'store'::name), ('t2', 'other')) AS b(tenant, store);

--
-- Checkpoints
--
-- A store without events has given out no number.
SELECT checks.try($$SELECT rf_consumer_advance('early', 1)$$);
SELECT rf_consumer_advance('early', 0);
SELECT * FROM checks.consumers('store');
SELECT held_back_by, held_back_since FROM rf_archive_status();
SELECT rf_consumer_remove('early');
-- January has 1200 events, February 1100, each of them enough for a flip; March has few.
SELECT store, rf_create_partition('hot', month, tenant => tenant)
FROM checks.both, unnest(ARRAY['2025-01-01', '2025-02-01', '2025-03-01']::date[]) AS month ORDER BY store DESC, month;
SELECT store, checks.load(store, '2025-01-01', 1200, 10), checks.load(store, '2025-02-01', 1100, 10), checks.load(store, '2025-03-01', 60, 10) FROM checks.both;
SELECT store, c.* FROM checks.both, check_keep(store) AS c;
-- Forward only; the same number is fine, and tells that the consumer lives.
SELECT rf_consumer_advance('a', 10);
UPDATE rf_consumers SET updated_at = '2025-01-01 00:00+00';
SELECT rf_consumer_advance('a', 10);
SELECT name, last_global_seq, updated_at > '2025-01-02 00:00+00' AS renewed FROM rf_consumers;
BEGIN;
SELECT rf_consumer_advance('a', 11), rf_consumer_advance('b', 3), rf_consumer_advance('b', 4);
SELECT name, last_global_seq, updated_at = now() AS renewed FROM rf_consumers ORDER BY name;
ROLLBACK;
SELECT checks.try($$SELECT rf_consumer_advance('a', 9)$$);
SELECT rf_consumer_advance('a', 9);
\echo :SQLSTATE
SELECT checks.try($$SELECT rf_consumer_advance('a', 2361)$$);
SELECT checks.try($$SELECT rf_consumer_advance('new', 9223372036854775807)$$);
SELECT checks.try($$SELECT rf_consumer_advance('a', NULL)$$);
SELECT checks.try($$SELECT rf_consumer_advance('a', -1)$$);
SELECT checks.try($$SELECT rf_consumer_advance(NULL, 1)$$);
SELECT checks.try($$SELECT rf_consumer_advance('', 1)$$);
SELECT checks.try($$SELECT rf_consumer_advance(repeat('x', 63), 1)$$);
SELECT checks.try($$SELECT rf_consumer_advance(repeat('x', 64), 1)$$);
SELECT checks.try($$SELECT rf_consumer_advance('a', 11, 'nobody')$$);
SELECT checks.try($$SELECT rf_consumer_advance('a', 11, '*')$$);
SELECT checks.try($$SELECT rf_consumer_remove('nobody')$$);
SELECT checks.try($$SELECT rf_consumer_remove(NULL)$$);
SELECT checks.try($$SELECT rf_consumer_remove('')$$);
SELECT checks.try($$SELECT rf_consumer_remove('a', 't2')$$);
BEGIN READ ONLY;
SELECT rf_consumer_advance('a', 11);
\echo :SQLSTATE
ROLLBACK;
BEGIN READ ONLY;
SELECT rf_consumer_remove('a');
\echo :SQLSTATE
ROLLBACK;
-- An owner who alters the table is told so.
BEGIN;
ALTER TABLE rf_consumers RENAME COLUMN updated_at TO changed_at;
SELECT rf_consumer_advance('a', 11);
\echo :SQLSTATE
ROLLBACK;
SELECT * FROM checks.consumers('store');
-- One that was removed may begin anew.
BEGIN;
SELECT rf_consumer_remove('a'), rf_consumer_advance('a', 5);
SELECT * FROM checks.consumers('store');
ROLLBACK;
SELECT rf_consumer_remove('a');
-- Each store has its own.
SELECT rf_consumer_advance('a', 2360, 't2');
SELECT * FROM checks.consumers('store');
SELECT * FROM checks.consumers('other');
SELECT rf_consumer_remove('a', 't2');

-- Who may: INSERT or UPDATE on rf_consumers is enough, and is needed.
CREATE ROLE regress_rillflow_projection;
CREATE ROLE regress_rillflow_advancer;
CREATE ROLE regress_rillflow_stranger;
GRANT USAGE ON SCHEMA store, other, checks TO PUBLIC;
GRANT INSERT ON rf_consumers TO regress_rillflow_projection;
GRANT UPDATE ON rf_consumers TO regress_rillflow_advancer;
GRANT SELECT ON rf_consumers, events TO regress_rillflow_stranger;
SET ROLE regress_rillflow_projection;
SELECT rf_consumer_advance('p', 1), rf_consumer_advance('p', 2);
SELECT checks.try($$SELECT rf_consumer_advance('p', 1, 't2')$$);
SET ROLE regress_rillflow_advancer;
SELECT rf_consumer_advance('p', 3), rf_consumer_advance('q', 3), rf_consumer_remove('q');
SET ROLE regress_rillflow_stranger;
SELECT checks.try($$SELECT rf_consumer_advance('p', 4)$$);
SELECT checks.try($$SELECT rf_consumer_remove('p')$$);
RESET ROLE;
SELECT * FROM checks.consumers('store');
SELECT rf_consumer_remove('p');

--
-- Rows
--
-- Two consumers; the slower one counts.
SELECT rf_consumer_advance('fast', 2000, tenant), rf_consumer_advance('slow', 100, tenant) FROM checks.both;
SELECT store, s.held_back_by, s.held_back_since = (SELECT updated_at FROM rf_consumers WHERE name = 'slow') AS since
FROM checks.both, rf_archive_status(tenant) AS s;
-- What a move would do.
SELECT p.bucket_month, p.source, p.method, p.events, p.streams, p.reason FROM checks.both, rf_archive_plan('2025-04-01 00:00+00', tenant => tenant) AS p;
SELECT p.bucket_month, p.source, p.method, p.events, p.streams, p.reason FROM rf_archive_plan('2025-04-01 00:00+00', ignore_consumers => true) AS p;
SELECT p.bucket_month, p.events FROM checks.both, rf_archive_plan('2025-01-01 01:00+00', tenant => tenant) AS p;
SELECT right(stream_id::text, 1) AS s, events, oldest, newest, closes FROM rf_archive_candidates('2025-04-01 00:00+00', max_streams => 3);
SELECT right(stream_id::text, 1) AS s, events, oldest, newest, closes FROM rf_archive_candidates('2025-04-01 00:00+00', max_streams => 3, ignore_consumers => true);
SELECT store, d.* FROM checks.both, rf_archive_move('2025-04-01 00:00+00', 30, dry_run => true, tenant => tenant) AS d;
SELECT * FROM rf_archive_move('2025-04-01 00:00+00', 30, dry_run => true, ignore_consumers => true);
SELECT * FROM rf_archive_move('2025-04-01 00:00+00', stream_id => checks.id(3), dry_run => true);
-- What it does: 100 events, and then none.
SELECT store, m.* FROM checks.both, rf_archive_move('2025-04-01 00:00+00', 30, tenant => tenant) AS m;
SELECT store, e.* FROM checks.both, checks.edge(store) AS e;
SELECT store, m.* FROM checks.both, rf_archive_move('2025-04-01 00:00+00', 30, tenant => tenant) AS m;
CALL rf_archive_run('2025-04-01 00:00+00', 30, tenant => '*');
SELECT store, e.* FROM checks.both, checks.edge(store) AS e;
-- A move that had nothing beyond to take is not held back.
SELECT events_moved FROM rf_archive_move('2025-01-01 01:00+00');
SELECT events_moved FROM rf_archive_move('-infinity');
-- One stream, and archived streams.
SELECT rf_consumer_advance('slow', 121, tenant) FROM checks.both;
SELECT store, m.* FROM checks.both, rf_archive_move('infinity', 1, checks.id(1), tenant => tenant) AS m;
SELECT count(*) FROM checks.both, rf_archive_mark(checks.id(2), tenant => tenant);
SELECT store, m.* FROM checks.both, rf_archive_move('infinity', only_archived => true, tenant => tenant) AS m;
SELECT store, m.* FROM checks.both, rf_archive_move('infinity', 10, checks.id(2), true, tenant => tenant) AS m;
SELECT store, e.* FROM checks.both, checks.edge(store) AS e;
SELECT count(*) FROM checks.both, rf_archive_reactivate(checks.id(2), false, tenant);
-- What the statement takes, where rows don't go over the heap.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT store, m.* FROM checks.both, rf_archive_move('infinity', 10, tenant => tenant) AS m;
SELECT store, e.* FROM checks.both, checks.edge(store) AS e;
COMMIT;
-- Events of months that lack wait in the default partition.
SELECT store, checks.load(store, '2025-05-01', 20, 1) FROM checks.both;
SELECT store, c.* FROM checks.both, check_keep(store) AS c;
SELECT rf_consumer_advance('slow', 200, tenant) FROM checks.both;
CALL rf_archive_run('2025-06-01 00:00+00', tenant => '*');
SELECT store, e.* FROM checks.both, checks.edge(store) AS e;
SELECT store, c.* FROM checks.both, check_same(store) AS c;

--
-- Months
--
-- January lacks one event to be read whole: it goes by rows, and a run brings nothing back for the sake of a flip.
SELECT rf_consumer_advance('slow', 1199, tenant) FROM checks.both;
SELECT p.bucket_month, p.source, p.method, p.events, p.reason FROM checks.both, rf_archive_plan('2025-02-01 00:00+00', tenant => tenant) AS p;
SELECT checks.try($$SELECT rf_flip_partition('2025-01-01', 'cold')$$), checks.try($$SELECT rf_flip_partition('2025-01-01', 'cold', 't2')$$);
SELECT rf_flip_partition('2025-02-01', 'cold');
\echo :SQLSTATE
CALL rf_archive_run('2025-02-01 00:00+00', tenant => '*');
SELECT store, e.* FROM checks.both, checks.edge(store) AS e;
SELECT rf_consumer_advance('slow', 1200, tenant) FROM checks.both;
SELECT p.bucket_month, p.source, p.method, p.events, p.reason FROM checks.both, rf_archive_plan('2025-03-01 00:00+00', tenant => tenant) AS p;
CALL rf_archive_run('2025-03-01 00:00+00', tenant => '*');
SELECT store, e.* FROM checks.both, checks.edge(store) AS e;
SELECT store, c.* FROM checks.both, check_same(store) AS c;
-- What flips back to hot asks no consumer.
SELECT rf_flip_partition('2025-01-01', 'hot', tenant) FROM checks.both;
SELECT store, e.* FROM checks.both, checks.edge(store) AS e;
-- All of February has been read: it flips, by hand or by a move, though later months have not.
SELECT rf_consumer_advance('slow', 2300, tenant), rf_consumer_advance('fast', 2300, tenant) FROM checks.both;
SELECT rf_flip_partition('2025-02-01', 'cold');
SELECT store, m.* FROM checks.both, rf_archive_move('2025-04-01 00:00+00', tenant => tenant) AS m;
SELECT store, e.* FROM checks.both, checks.edge(store) AS e;
SELECT store, p.* FROM checks.both, check_places(store) AS p;
SELECT store, c.* FROM checks.both, check_same(store) AS c;
-- A stream of which the consumers leave a hot event stays open; those that are read to their end are closed.
SELECT store, right(s.stream_id::text, 1) AS s, s.last_seq, s.archived_by FROM (SELECT 'store' AS store, * FROM rf_streams UNION ALL SELECT 'other', * FROM other.rf_streams) AS s
WHERE stream_id IN (checks.id(0), checks.id(1)) ORDER BY 1, 2;
SELECT rf_consumer_advance('slow', 2360, tenant), rf_consumer_advance('fast', 2355, tenant) FROM checks.both;
SELECT store, m.* FROM checks.both, rf_archive_move('2025-04-01 00:00+00', tenant => tenant) AS m;
SELECT store, count(*) FILTER (WHERE archived_at IS NULL) AS open, count(*) FILTER (WHERE archived_at IS NOT NULL) AS closed
FROM (SELECT 'store' AS store, * FROM rf_streams UNION ALL SELECT 'other', * FROM other.rf_streams) AS s GROUP BY 1 ORDER BY 1;
-- Who is told to goes on; the status names the one that is behind, and of two the one that has stood still for longer.
SELECT held_back_by FROM rf_archive_status('*');
UPDATE rf_consumers SET last_global_seq = 2355, updated_at = '2025-01-01 00:00+00' WHERE name = 'slow';
SELECT held_back_by, held_back_since FROM rf_archive_status();
SELECT store, m.* FROM checks.both, rf_archive_move('infinity', ignore_consumers => true, tenant => tenant) AS m;
SELECT store, e.* FROM checks.both, checks.edge(store) AS e;
SELECT store, c.* FROM checks.both, check_same(store) AS c;
-- Events that went cold are there for a consumer that reads both tiers.
SELECT count(*), min(global_seq), max(global_seq) FROM rf_read_all(2355, NULL, include_archived => true);
SELECT count(*) FROM rf_read_all(2355, NULL);
-- Consumers that have read all hold nothing back.
SELECT rf_consumer_advance('slow', last_value, tenant), rf_consumer_advance('fast', last_value, tenant)
FROM checks.both, LATERAL (SELECT max(global_seq) AS last_value FROM (SELECT 'store' AS s, global_seq FROM events_all UNION ALL SELECT 'other', global_seq FROM other.events_all) AS e WHERE s = store) AS l;
SELECT schema, held_back_by, held_back_since FROM rf_archive_status('*');
-- A projection, as the README has it: what it makes of the events and its checkpoint change together.
SELECT rf_consumer_advance('orders', 2375);
CREATE TABLE checks.orders_shipped (order_id uuid PRIMARY KEY, shipped_at timestamptz);
PREPARE project AS
WITH batch AS (
	SELECT e.* FROM rf_consumers AS c, rf_read_all(c.last_global_seq, 3, include_archived => true) AS e
	WHERE c.name = 'orders'
), shipped AS (
	INSERT INTO checks.orders_shipped
	SELECT stream_id, max(created_at) FROM batch WHERE event_type ~ '[68]$' GROUP BY stream_id
	ON CONFLICT (order_id) DO UPDATE SET shipped_at = excluded.shipped_at
)
SELECT rf_consumer_advance('orders', max(global_seq)) FROM batch HAVING count(*) > 0;
BEGIN;
EXECUTE project;
ROLLBACK;
SELECT last_global_seq, (SELECT count(*) FROM checks.orders_shipped) AS shipped FROM rf_consumers WHERE name = 'orders';
EXECUTE project;
SELECT last_global_seq, (SELECT count(*) FROM checks.orders_shipped) AS shipped FROM rf_consumers WHERE name = 'orders';
EXECUTE project;
EXECUTE project;
SELECT last_global_seq, (SELECT count(*) FROM checks.orders_shipped) AS shipped FROM rf_consumers WHERE name = 'orders';
SELECT rf_consumer_remove('orders');
-- A month that holds nothing which consumers wait for, and does not fit the index by which that is seen, goes by rows.
SELECT rf_create_partition('hot', '2025-06-01');
SELECT checks.load('store', '2025-06-01', 1000, 3);
SELECT rf_consumer_advance(name, 3380) FROM rf_consumers;
SELECT method, events, reason FROM rf_archive_plan('2025-07-01 00:00+00');
BEGIN;
ALTER TABLE events_hot_2025_06 DROP CONSTRAINT events_hot_2025_06_pkey;
SELECT method, events, reason FROM rf_archive_plan('2025-07-01 00:00+00');
SELECT * FROM rf_archive_move('2025-07-01 00:00+00');
ROLLBACK;
SELECT events, broken_streams FROM check_union('store');

-- A number that no sequence has given out, as subscribers and imports have them, is read, and so it can be a checkpoint.
SELECT max(global_seq) + 50000 AS beyond FROM store.events_all \gset
SELECT checks.try(format($$SELECT rf_consumer_advance('beyond', %s)$$, :beyond)) ~ '^22023 there is no event' AS refused;
INSERT INTO store.events (global_seq, stream_id, event_type, body) VALUES (:beyond, checks.id(9999), 'imported', '{}');
SELECT checks.try(format($$SELECT rf_consumer_advance('beyond', %s)$$, :beyond)) AS accepted, checks.try(format($$SELECT rf_consumer_advance('beyond', %s)$$, :beyond + 1)) ~ '^22023' AS refused;
