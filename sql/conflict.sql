-- A move that finds an event cold already: it never loses a hot event, and never writes over a cold one.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
\set ECHO all

CREATE SCHEMA other;
SELECT rf_install('other', 't2');
SELECT rf_archive_set_backend('partitioned', 't2');
CREATE VIEW checks.both AS SELECT * FROM (VALUES (NULL::text, 'store'::name), ('t2', 'other')) AS b(tenant, store);
SELECT store, rf_create_partition('hot', '2024-01-01', tenant => tenant), rf_create_partition('cold', '2024-01-01', tenant => tenant) FROM checks.both;
SELECT count(*) FROM checks.both, (SELECT s, n FROM generate_series(1, 3) AS s, generate_series(1, 3) AS n ORDER BY s, n) AS x,
	rf_append(lpad(s::text, 32, '0')::uuid, 'e' || n, to_jsonb(n), created_at => '2024-01-01 00:00+00'::timestamptz + (s * 10 + n) * interval '1 hour', tenant => tenant);

-- Somebody puts events into the cold tier past the functions: a superuser, with triggers off. Not even then may one be lost.
CREATE PROCEDURE checks.copy_to_cold (store name, condition text, change text DEFAULT '') LANGUAGE plpgsql AS $$
DECLARE
	cold text := CASE store WHEN 'store' THEN 'events_archive_2024_01' ELSE 'events_cold_2024_01' END;
	columns text := 'global_seq, stream_id, stream_seq, event_type, body, headers, causation_id, correlation_id, event_version, tenant_id, user_id, is_tombstone, created_at, bucket_month';
BEGIN
	SET LOCAL session_replication_role = replica;
	EXECUTE format('CREATE TEMP TABLE picked ON COMMIT DROP AS SELECT %s FROM %I.events WHERE retention_class = ''hot'' AND (%s)', columns, store, condition);
	IF change <> '' THEN EXECUTE format('UPDATE picked SET %s', change); END IF;
	EXECUTE format('INSERT INTO %I.%I (%s, retention_class) SELECT %s, ''cold'' FROM picked', store, cold, columns, columns);
	DROP TABLE picked;
	RESET session_replication_role;
END $$;
-- Take out of the cold tier again what is hot as well.
CREATE PROCEDURE checks.drop_doubles (store name) LANGUAGE plpgsql AS $$
DECLARE
	cold text := CASE store WHEN 'store' THEN 'events_archive_2024_01' ELSE 'events_cold_2024_01' END;
BEGIN
	SET LOCAL session_replication_role = replica;
	EXECUTE format('DELETE FROM %1$I.%2$I AS c USING %1$I.events AS h WHERE h.retention_class = ''hot'' AND (h.stream_id, h.stream_seq) = (c.stream_id, c.stream_seq)', store, cold);
	RESET session_replication_role;
END $$;
CREATE VIEW checks.tiers AS
	SELECT 'store'::name AS store, right(stream_id::text, 1) AS s, stream_seq AS n, retention_class AS tier, event_type, body FROM store.events_all
	UNION ALL SELECT 'other', right(stream_id::text, 1), stream_seq, retention_class, event_type, body FROM other.events_all;
SELECT store, c.* FROM checks.both, check_keep(store) AS c;

--
-- With equal content: the hot one stays, all others go, and it is reported.
--
CALL checks.copy_to_cold('store', 'stream_seq = 2 AND stream_id = lpad(''2'', 32, ''0'')::uuid');
CALL checks.copy_to_cold('other', 'stream_seq = 2 AND stream_id = lpad(''2'', 32, ''0'')::uuid');
SELECT * FROM rf_archive_move('2024-02-01 00:00+00');
SELECT * FROM rf_archive_move('2024-02-01 00:00+00', tenant => 't2');
SELECT store, tier, count(*), string_agg(s || '.' || n, ' ' ORDER BY s, n) FROM checks.tiers GROUP BY 1, 2 ORDER BY 1, 2;
SELECT events, bucket_month, detail FROM rf_archive_log WHERE action = 'batch';
-- The stream with a hot event left is not closed.
SELECT right(stream_id::text, 1) AS s, archived_by FROM rf_streams ORDER BY 1;
-- Again: it is there still, and no loop.
SELECT * FROM rf_archive_move('2024-02-01 00:00+00');
CALL rf_archive_run('2024-02-01 00:00+00');
SELECT * FROM rf_archive_move('2024-02-01 00:00+00', stream_id => lpad('2', 32, '0')::uuid, tenant => 't2');
-- Without the double, all is as it was.
CALL checks.drop_doubles('store');
CALL checks.drop_doubles('other');
SELECT store, c.* FROM checks.both, check_same(store) AS c;
SELECT store, m.* FROM checks.both, rf_archive_move('2024-02-01 00:00+00', tenant => tenant) AS m;
SELECT store, c.* FROM checks.both, check_same(store) AS c;
SELECT archived_by, count(*) FROM rf_streams GROUP BY 1;

--
-- With other content: the move stops, the hot one is kept, and no event of the batch is moved.
--
CREATE FUNCTION checks.fill (s int) RETURNS bigint LANGUAGE sql AS $$
	SELECT count(*) FROM checks.both, generate_series(1, 3) AS n,
		store.rf_append(lpad(s::text, 32, '0')::uuid, 'e' || n, to_jsonb(n), created_at => '2024-01-01 00:00+00'::timestamptz + (s * 10 + n) * interval '1 hour', tenant => tenant)
$$;
SELECT checks.fill(4);
SELECT checks.fill(5);
SELECT store, c.* FROM checks.both, check_keep(store) AS c;
CALL checks.copy_to_cold('store', 'stream_seq = 2 AND stream_id = lpad(''5'', 32, ''0'')::uuid', 'body = ''"other"''');
CALL checks.copy_to_cold('other', 'stream_seq = 2 AND stream_id = lpad(''5'', 32, ''0'')::uuid', 'body = ''"other"''');
SELECT * FROM rf_archive_move('2024-02-01 00:00+00');
\echo :SQLSTATE
SELECT * FROM rf_archive_move('2024-02-01 00:00+00', tenant => 't2');
\echo :SQLSTATE
CALL rf_archive_run('2024-02-01 00:00+00');
\echo :SQLSTATE
SELECT * FROM rf_archive_move('2024-02-01 00:00+00', stream_id => lpad('5', 32, '0')::uuid);
\echo :SQLSTATE
SELECT store, s, tier, string_agg(n || ' ' || body, ', ' ORDER BY n) FROM checks.tiers WHERE s IN ('4', '5') GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
-- What a run has committed in batches before that stays moved; the event that differs stays where it is.
CALL rf_archive_run('2024-02-01 00:00+00', 2);
\echo :SQLSTATE
SELECT s, tier, string_agg(n || ' ' || body, ', ' ORDER BY n) FROM checks.tiers WHERE s IN ('4', '5') AND store = 'store' GROUP BY 1, 2 ORDER BY 1, 2;
-- Other streams can be moved by name meanwhile.
SELECT * FROM rf_archive_move('2024-02-01 00:00+00', stream_id => lpad('4', 32, '0')::uuid, tenant => 't2');
CALL checks.drop_doubles('store');
CALL checks.drop_doubles('other');
SELECT store, c.* FROM checks.both, check_same(store) AS c;
SELECT store, m.events_moved FROM checks.both, rf_archive_move('2024-02-01 00:00+00', tenant => tenant) AS m;
SELECT store, c.* FROM checks.both, check_same(store) AS c;

-- Each column counts: null is not empty, and neither tombstone nor tenant nor headers are passed over.
SELECT checks.fill(6);
CREATE FUNCTION checks.differs (change text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	outcome text;
BEGIN
	CALL checks.copy_to_cold('store', 'stream_seq = 1 AND stream_id = lpad(''6'', 32, ''0'')::uuid', change);
	outcome := checks.try('SELECT rf_archive_move(''2024-02-01 00:00+00'', stream_id => lpad(''6'', 32, ''0'')::uuid)');
	RAISE EXCEPTION USING errcode = 'TT001', message = outcome;
EXCEPTION WHEN SQLSTATE 'TT001' THEN RETURN SQLERRM;
END $$;
SET client_min_messages = error;
SELECT change, checks.differs(change) AS outcome
FROM unnest(ARRAY['event_type = event_type', 'event_type = ''x''', 'body = ''null''', 'headers = ''{"a": 1}''', 'causation_id = stream_id', 'correlation_id = stream_id', 'event_version = 2', 'tenant_id = ''''', 'user_id = ''''', 'is_tombstone = true',
	'created_at = created_at + interval ''1 microsecond''', 'global_seq = 4711', 'stream_seq = 4711', 'stream_id = lpad(''7'', 32, ''0'')::uuid']) AS change;
RESET client_min_messages;

-- A reactivation that finds its event hot already changes nothing either.
SELECT last_seq FROM rf_archive_mark(lpad('6', 32, '0')::uuid);
SELECT store, c.* FROM checks.both, check_keep(store) AS c;
CALL checks.copy_to_cold('store', 'stream_seq = 3 AND stream_id = lpad(''6'', 32, ''0'')::uuid');
\set VERBOSITY sqlstate
SELECT * FROM rf_archive_reactivate(lpad('6', 32, '0')::uuid);
\set VERBOSITY default
SELECT last_seq, archived_at IS NOT NULL AS archived FROM rf_streams WHERE stream_id = lpad('6', 32, '0')::uuid;
CALL checks.drop_doubles('store');
SELECT store, c.* FROM checks.both, check_same(store) AS c;
