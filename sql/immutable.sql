-- History can't be rewritten: not by numbers given by hand, not by ON CONFLICT, not by changing what the functions go by.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
\set ECHO all

-- Stream 1 is marked and cold, stream 2 closed and cold, stream 3 partly cold, stream 4 hot.
SELECT rf_create_partition('hot', m), rf_create_partition('cold', m) FROM unnest(ARRAY['2024-01-01', '2024-02-01']::date[]) AS m;
SELECT count(*) FROM (SELECT s, n FROM generate_series(1, 4) AS s, generate_series(1, 4) AS n ORDER BY s, n) AS x,
	rf_append(lpad(s::text, 32, '0')::uuid, 'e' || n, to_jsonb(n), jsonb_build_object('idempotency_key', s || '.' || n), created_at => '2024-01-01 00:00+00'::timestamptz + (s + n * 10) * interval '1 day');
SELECT 1 AS marked FROM rf_archive_mark(lpad('1', 32, '0')::uuid);
SELECT events_moved FROM rf_archive_move('infinity', stream_id => lpad('1', 32, '0')::uuid);
SELECT events_moved FROM rf_archive_move('infinity', stream_id => lpad('2', 32, '0')::uuid);
SELECT events_moved FROM rf_archive_move('2024-01-25 00:00+00', stream_id => lpad('3', 32, '0')::uuid);
SELECT rf_archive_set_redirect(true);
CREATE TABLE checks.history AS SELECT tableoid::regclass::text AS place, * FROM events_archive;
CREATE FUNCTION checks.untouched () RETURNS TABLE (cold bigint, untouched boolean) LANGUAGE sql AS $$
	SELECT (SELECT count(*) FROM checks.history),
		NOT EXISTS (SELECT * FROM checks.history EXCEPT SELECT tableoid::regclass::text, * FROM store.events_archive)
$$;
SELECT * FROM checks.untouched();
SELECT * FROM check_keep();

CREATE TABLE checks.attempts (n int GENERATED ALWAYS AS IDENTITY, statement text);
INSERT INTO checks.attempts (statement)
-- the same number again, cold or hot: in its month, in another, for a stream in each state
SELECT format('INSERT INTO events (stream_id, stream_seq, event_type, body, created_at, bucket_month) VALUES (lpad(%L, 32, ''0'')::uuid, %s, ''forged'', ''{}'', %L, %L)%s', s, n, t, date_trunc('month', t), c)
FROM generate_series(1, 4) AS s, unnest(ARRAY[1, 4]) AS n, unnest(ARRAY['2024-01-15', '2024-02-15']::timestamp[]) AS t, unnest(ARRAY['', ' ON CONFLICT DO NOTHING']) AS c ORDER BY s, n, t, c;
INSERT INTO checks.attempts (statement) VALUES
	-- the whole of an event, global_seq and all
	('INSERT INTO events SELECT global_seq, stream_id, stream_seq, event_type, ''"forged"'', headers, causation_id, correlation_id, event_version, tenant_id, user_id, is_tombstone, created_at, bucket_month, ''hot'' FROM events_archive'),
	('INSERT INTO events SELECT global_seq, stream_id, stream_seq, event_type, ''"forged"'', headers, causation_id, correlation_id, event_version, tenant_id, user_id, is_tombstone, created_at, bucket_month, ''cold'' FROM events_archive'),
	('INSERT INTO events SELECT * FROM events ON CONFLICT DO NOTHING'),
	('INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (lpad(''4'', 32, ''0'')::uuid, 1, ''forged'', ''{}'') ON CONFLICT (global_seq) DO UPDATE SET body = ''"forged"'''),
	('INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (lpad(''4'', 32, ''0'')::uuid, 1, ''forged'', ''{}'') ON CONFLICT (stream_id, stream_seq) DO UPDATE SET body = ''"forged"'''),
	('INSERT INTO events_archive (global_seq, stream_id, stream_seq, event_type, body) VALUES (1, lpad(''1'', 32, ''0'')::uuid, 1, ''forged'', ''{}'') ON CONFLICT DO NOTHING'),
	('UPDATE events_all SET body = ''"forged"'''), ('DELETE FROM events_all'), ('INSERT INTO events_all SELECT * FROM events_all'),
	('UPDATE events_archive SET body = ''"forged"'''), ('UPDATE events SET retention_class = ''cold'''), ('DELETE FROM events_archive_2024_01'),
	('MERGE INTO events AS e USING events_archive AS a ON e.global_seq = a.global_seq WHEN NOT MATCHED THEN INSERT (global_seq, stream_id, stream_seq, event_type, body, created_at, bucket_month) VALUES (a.global_seq, a.stream_id, a.stream_seq, ''forged'', ''{}'', a.created_at, a.bucket_month)'),
	-- by functions
	('SELECT rf_append(lpad(''2'', 32, ''0'')::uuid, ''forged'', ''{}'', expected_seq => 0)'),
	('SELECT rf_append(lpad(''1'', 32, ''0'')::uuid, ''forged'', ''{}'')'),
	('SELECT rf_append_batch(lpad(''1'', 32, ''0'')::uuid, ''[{"type": "forged", "body": 1, "stream_seq": 1}]'')');
SELECT left(outcome, 5) AS state, count(*), min(regexp_replace(outcome, 'stream [-0-9]+|[eE]vent \d+|_\d{4}_\d\d|"events_\w+"', '…', 'g')) AS for_example
FROM checks.attempts, LATERAL (SELECT checks.try(statement) AS outcome) AS t GROUP BY 1 ORDER BY 1;
-- What is no error has changed nothing, for the number was taken and passed over.
SELECT statement FROM checks.attempts WHERE checks.try(statement) = 'no error' ORDER BY n;
DO $$
DECLARE
	s text;
BEGIN
	FOR s IN SELECT statement FROM checks.attempts ORDER BY n LOOP
		BEGIN
			EXECUTE s;
		EXCEPTION WHEN OTHERS THEN NULL;
		END;
	END LOOP;
END $$;
SELECT * FROM checks.untouched();
SELECT * FROM check_same();

-- Repeated keys give the numbers of the first event, and leave it as it was.
SELECT global_seq, stream_seq FROM rf_append(lpad('1', 32, '0')::uuid, 'forged', '"forged"', '{"idempotency_key": "1.2"}', is_tombstone => true, allow_archived => true);
SELECT * FROM check_same();

-- The owner lowers heads, or forgets keys: whatever the next append does, no cold event is written over.
BEGIN;
UPDATE rf_streams SET last_seq = 2;
\set VERBOSITY sqlstate
SAVEPOINT one;
INSERT INTO events (stream_id, event_type, body, created_at, bucket_month) VALUES (lpad('1', 32, '0')::uuid, 'forged', '{}', '2024-02-15', '2024-02-01');
ROLLBACK TO one;
SELECT stream_seq FROM rf_append(lpad('2', 32, '0')::uuid, 'forged', '{}', created_at => '2024-02-01 00:00+00');
ROLLBACK TO one;
SELECT events_moved FROM rf_archive_move('infinity');
ROLLBACK TO one;
\set VERBOSITY default
SELECT * FROM checks.untouched();
ROLLBACK;
BEGIN;
DELETE FROM rf_event_keys;
SELECT stream_seq FROM rf_append(lpad('4', 32, '0')::uuid, 'not forged', '{}', '{"idempotency_key": "4.1"}');
SELECT * FROM checks.untouched();
SELECT events, broken_streams FROM check_union('store');
ROLLBACK;

-- A global_seq that a cold event has already, given by who may name it: the cold one stays what it is.
BEGIN;
INSERT INTO events (global_seq, stream_id, event_type, body, created_at, bucket_month) VALUES (1, lpad('4', 32, '0')::uuid, 'same global_seq', '{}', '2024-01-31', '2024-01-01') RETURNING stream_seq;
SELECT checks.try($$SELECT rf_archive_move('infinity')$$);
SELECT left(checks.try($$SELECT rf_archive_reactivate(lpad('1', 32, '0')::uuid)$$), 5) AS reactivate;
SELECT * FROM checks.untouched();
ROLLBACK;

-- Every other way of the life cycle leaves content alone.
SELECT last_seq FROM rf_archive_reactivate(lpad('1', 32, '0')::uuid);
SELECT last_seq FROM rf_archive_reactivate(lpad('3', 32, '0')::uuid, false);
SELECT events_moved FROM rf_archive_move('infinity', stream_id => lpad('1', 32, '0')::uuid);
SELECT count(*) AS of_history, count(*) FILTER (WHERE h.content = e.content) AS as_it_was
FROM (SELECT global_seq, ROW(stream_id, stream_seq, event_type, body, headers, causation_id, correlation_id, event_version, tenant_id, user_id, is_tombstone, created_at, bucket_month)::text AS content FROM checks.history) AS h
LEFT JOIN (SELECT global_seq, ROW(stream_id, stream_seq, event_type, body, headers, causation_id, correlation_id, event_version, tenant_id, user_id, is_tombstone, created_at, bucket_month)::text AS content FROM events_all) AS e USING (global_seq);
SELECT * FROM check_same();
