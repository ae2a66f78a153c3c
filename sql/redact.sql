-- Redactions: what they blank, what they leave, where, and what they refuse.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
\set ECHO all

CREATE FUNCTION checks.id (n int) RETURNS uuid IMMUTABLE LANGUAGE sql AS $$ SELECT lpad(n::text, 32, '0')::uuid $$;

-- What every column of every event was; and which columns of how many events have changed since, by stream.
CREATE TABLE checks.was (schema name, global_seq bigint, content jsonb);
CREATE FUNCTION checks.remember (schema name DEFAULT 'store') RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	events bigint;
BEGIN
	DELETE FROM checks.was AS w WHERE w.schema = remember.schema;
	EXECUTE format('INSERT INTO checks.was SELECT %1$L, global_seq, to_jsonb(e) - ''retention_class'' FROM %1$I.events_all AS e', schema);
	GET DIAGNOSTICS events = ROW_COUNT;
	RETURN events;
END $$;
CREATE FUNCTION checks.changed (schema name DEFAULT 'store')
RETURNS TABLE (stream text, columns text, events bigint, now_body jsonb, now_headers jsonb) LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY EXECUTE format('
		SELECT ltrim(stream, ''0-''), columns, count(*), body, headers FROM (
			SELECT coalesce(w.content, n.content) ->> ''stream_id'' AS stream,
				CASE WHEN w.content IS NULL THEN ''new'' WHEN n.content IS NULL THEN ''lost''
				ELSE (SELECT string_agg(key, '', '' ORDER BY key) FROM jsonb_each(w.content) WHERE value IS DISTINCT FROM n.content -> key) END AS columns,
				n.content -> ''body'' AS body, n.content -> ''headers'' AS headers
			FROM (SELECT * FROM checks.was WHERE schema = %1$L) AS w
			FULL JOIN (SELECT global_seq, to_jsonb(e) - ''retention_class'' AS content FROM %1$I.events_all AS e) AS n USING (global_seq)
			WHERE w.content IS DISTINCT FROM n.content) AS c
		GROUP BY stream, columns, body, headers ORDER BY stream, columns', schema);
END $$;

CREATE SCHEMA other;
SELECT rf_install('other', 'other');
SELECT rf_archive_set_backend('partitioned', 'other');
SELECT rf_create_partition(tier, month, tenant => tenant) FROM unnest(ARRAY[NULL, 'other']) AS tenant,
	unnest(ARRAY['hot', 'cold']) AS tier, unnest(ARRAY[date '2024-01-01', date '2024-02-01']) AS month;
-- Streams 1 to 4 of 40 events over four months, each with a key; February's and later wait in defaults where there is no month.
SELECT count(*) FROM unnest(ARRAY[NULL, 'other']) AS tenant, generate_series(1, 40) AS n, generate_series(1, 4) AS s,
	rf_append(checks.id(s), 'type ' || n % 3, jsonb_build_object('name', 'person ' || s, 'n', n), jsonb_build_object('idempotency_key', format('person %s %s', s, n), 'ip', '192.0.2.1'),
		causation_id => checks.id(n), correlation_id => checks.id(s), event_version => 2, user_id => 'user ' || s, is_tombstone => n = 40,
		created_at => timestamptz '2024-01-02 00:00+00' + n * interval '3 days', tenant => tenant);
SELECT events_moved FROM rf_archive_move('2024-02-10');
SELECT events_moved FROM rf_archive_move('2024-02-10', tenant => 'other');
SELECT * FROM check_places();
SELECT * FROM check_places('other');
SELECT remember(), remember('other'), c.*, (SELECT count(*) FROM rf_event_keys) AS keys FROM check_keep() AS c;

--
-- One event, cold or hot; all of a stream
--
SELECT rf_redact(checks.id(1), 3, 'request 17');
SELECT rf_redact(checks.id(1), 40, reason => 'request 18');
SELECT * FROM changed();
SELECT idempotency_key FROM generate_series(1, 40) AS n JOIN rf_event_keys ON idempotency_key = 'person 1 ' || n WHERE n IN (2, 3, 4, 39, 40) ORDER BY n;
SELECT rf_redact(checks.id(1), reason => 'request 19');
SELECT * FROM changed();
-- What is redacted already is not redacted again, and no row of the ledger says so.
SELECT rf_redact(checks.id(1), reason => 'request 20'), rf_redact(checks.id(1), 3, 'request 21');
SELECT rf_redact(checks.id(2), reason => 'request 22', tenant => 'other');
SELECT * FROM changed();
SELECT * FROM changed('other');
SELECT stream_id, count(*) FROM rf_event_keys GROUP BY 1 ORDER BY 1;
SELECT stream_id, count(*) FROM other.rf_event_keys GROUP BY 1 ORDER BY 1;
-- The numbers are whole, and the tiers as they were.
SELECT events, broken_streams FROM check_union('store');
SELECT events, broken_streams FROM check_union('other');
SELECT * FROM check_places();
SELECT * FROM check_places('other');
SELECT actor = session_user AS own, stream_id, events, streams, duration IS NOT NULL AS took, detail FROM rf_archive_log WHERE action = 'redact' ORDER BY log_id;
SELECT actor = session_user AS own, stream_id, events, streams, duration IS NOT NULL AS took, detail FROM other.rf_archive_log WHERE action = 'redact' ORDER BY log_id;
-- Nothing of the person is left where a query could find it, but in what was not asked for.
SELECT count(*) FILTER (WHERE e::text ~ 'person 1|192\.0\.2') AS found, count(*) FILTER (WHERE e::text ~ 'user 1') AS users, count(*) FROM events_all AS e WHERE stream_id = checks.id(1);

-- Reads give redacted events like others; a key that was taken away can be used again, for the event that bore it is known no more.
SELECT count(*), min(body::text), max(body::text), max(headers::text), bool_or(is_tombstone) FROM rf_read_stream(checks.id(1), include_archived => true);
SELECT count(*) FILTER (WHERE headers @> '{"redacted": true}') AS redacted, count(*) FROM rf_read_all(0, 1000, include_archived => true);
SELECT stream_seq FROM rf_append(checks.id(3), 'again', '{}', '{"idempotency_key": "person 1 3"}');
SELECT stream_seq FROM rf_append(checks.id(3), 'again', '{}', '{"idempotency_key": "person 3 3"}');
SELECT stream_seq FROM rf_append(checks.id(1), 'goes on', '{"name": "person 1"}', expected_seq => 40);
SELECT rf_redact(checks.id(1), reason => 'request 23');

--
-- Redacted events go where others go: moves, flips, reactivations, drained defaults, another backend.
--
SELECT remember(), remember('other'), c.* FROM check_keep() AS c;
SELECT c.* FROM check_keep('other') AS c;
SELECT rf_drain_default() > 0 AS drained;
SELECT rf_flip_partition('2024-03-01', 'cold');
SELECT events_moved > 0 AS moved FROM rf_archive_move('infinity');
SELECT last_seq FROM rf_archive_reactivate(checks.id(1));
SELECT rf_redact(checks.id(1), reason => 'none is left'), rf_redact(checks.id(2), 7, reason => 'in a flipped month');
SELECT * FROM changed();
SELECT rf_archive_set_backend('partitioned');
SELECT rf_redact(checks.id(2), 8, reason => 'in the other backend'), rf_redact(checks.id(2), 30, reason => 'in the other backend');
SELECT * FROM changed();
SELECT events_moved > 0 AS moved FROM rf_archive_move('infinity', tenant => 'other');
SELECT c.* FROM check_same('other') AS c;
SELECT * FROM changed('other');
SELECT events, broken_streams FROM check_union('store');
-- The statement of a redaction is not one of a user.
UPDATE events SET body = '{}';
\echo :SQLSTATE
SELECT rf_redact(checks.id(2), 9, 'and after it');
UPDATE events_cold SET body = '{}';
\echo :SQLSTATE

--
-- In batches
--
SELECT count(*) FROM rf_append_batch(checks.id(5), (SELECT jsonb_agg(jsonb_build_object('type', 'many', 'body', n, 'created_at', '2024-01-05T00:00Z')) FROM generate_series(1, 10500) AS n));
SELECT remember() > 10500 AS remembered;
SELECT rf_redact(checks.id(5), reason => 'all of them');
SELECT * FROM changed();
SELECT events > 10500 AS many, broken_streams FROM check_union('store');

--
-- Triggers, rules and constraints of users
--
SELECT remember() > 10500 AS remembered;
-- No UPDATE was ever seen by a trigger, and none that keeps old rows sees what is to go.
CREATE TABLE checks.kept_rows (old jsonb);
CREATE FUNCTION checks.keep_row () RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO checks.kept_rows VALUES (to_jsonb(OLD)); RETURN coalesce(NEW, OLD); END $$;
CREATE TRIGGER audit AFTER UPDATE ON events FOR EACH ROW EXECUTE FUNCTION checks.keep_row();
CREATE TRIGGER audit AFTER DELETE ON rf_event_keys FOR EACH ROW EXECUTE FUNCTION checks.keep_row();
SELECT rf_redact(checks.id(4), 1, 'audited');
SELECT count(*) FROM checks.kept_rows;
ALTER TABLE events_cold_2024_01 ENABLE ALWAYS TRIGGER audit;
SELECT rf_redact(checks.id(4), 2, 'audited');
\echo :SQLSTATE
ALTER TABLE events_cold_2024_01 ENABLE TRIGGER audit;
ALTER TABLE rf_event_keys ENABLE REPLICA TRIGGER audit;
SELECT rf_redact(checks.id(4), 2, 'audited');
\echo :SQLSTATE
ALTER TABLE rf_event_keys ENABLE TRIGGER audit;
-- One that fires always, for something else, is not in the way.
CREATE TRIGGER at_insert AFTER INSERT ON events_cold_2024_01 FOR EACH ROW EXECUTE FUNCTION checks.keep_row();
ALTER TABLE events_cold_2024_01 ENABLE ALWAYS TRIGGER at_insert;
SELECT rf_redact(checks.id(4), 2, 'audited');
DROP TRIGGER at_insert ON events_cold_2024_01;
DROP TRIGGER audit ON events;
SELECT count(*) FROM checks.kept_rows;
-- A rule that skips rows is found out, and a CHECK of a user holds; nothing has changed then.
CREATE RULE skips AS ON UPDATE TO events_cold_2024_01 DO INSTEAD NOTHING;
ALTER TABLE events_cold_2024_01 ENABLE ALWAYS RULE skips;
SELECT rf_redact(checks.id(4), reason => 'ruled');
\echo :SQLSTATE
DROP RULE skips ON events_cold_2024_01;
ALTER TABLE events ADD CONSTRAINT has_name CHECK (body ? 'name' OR stream_id <> checks.id(4)) NOT VALID;
SELECT rf_redact(checks.id(4), reason => 'checked');
\echo :SQLSTATE
ALTER TABLE events DROP CONSTRAINT has_name;
SELECT * FROM changed();
-- A generated column follows, one that was added stays.
ALTER TABLE events ADD COLUMN name text GENERATED ALWAYS AS (body ->> 'name') STORED, ADD COLUMN note text DEFAULT 'added';
ALTER TABLE events_archive ADD COLUMN note text DEFAULT 'added';
SELECT rf_redact(checks.id(4), 3, 'generated');
SELECT stream_seq, body, name, note FROM events WHERE stream_id = checks.id(4) AND stream_seq IN (3, 5) ORDER BY 1;

--
-- Bad input
--
SELECT remember() > 10500 AS remembered;
SELECT checks.try(call) FROM unnest(ARRAY['SELECT rf_redact(NULL, reason => ''r'')', 'SELECT rf_redact(checks.id(4))', 'SELECT rf_redact(checks.id(4), 4)', 'SELECT rf_redact(checks.id(4), 4, '''')',
	'SELECT rf_redact(checks.id(4), 0, ''r'')', 'SELECT rf_redact(checks.id(4), -1, ''r'')', 'SELECT rf_redact(checks.id(4), 41, ''r'')', 'SELECT rf_redact(checks.id(4), 2147483647, ''r'')', 'SELECT rf_redact(checks.id(9), reason => ''r'')',
	'SELECT rf_redact(checks.id(4), 4, ''r'', ''nobody'')', 'SELECT rf_redact(checks.id(4), 4, ''r'', ''*'')', 'SELECT rf_redact(checks.id(4), 4, ''r'', '''')']) AS call;
-- A stream without events, and one that is marked before its first event.
SELECT last_seq FROM rf_archive_mark(checks.id(6));
SELECT rf_redact(checks.id(6), reason => 'empty');
SELECT rf_redact(checks.id(6), 1, reason => 'empty');
\echo :SQLSTATE
-- A failure undoes all of it, and a reason is what it is.
BEGIN;
SELECT rf_redact(checks.id(4), reason => 'undone');
ROLLBACK;
SELECT * FROM changed();
SELECT rf_redact(checks.id(4), 4, E'it''s "a" $$reason$$; %s\n\\');
SELECT detail FROM rf_archive_log WHERE action = 'redact' ORDER BY log_id DESC LIMIT 1;
-- An event of a statement that is not over yet is not there yet; one of this transaction is.
BEGIN;
INSERT INTO events (stream_id, event_type, body) VALUES (checks.id(7), 'raw', '{"name": "person 7"}'), (checks.id(7), 'raw', '{}');
SELECT rf_redact(checks.id(7), reason => 'at once');
SELECT stream_seq, body, headers FROM rf_read_stream(checks.id(7));
COMMIT;

-- The ledger keeps redactions, and their reasons, when it is pruned.
SELECT count(*) AS redactions FROM rf_archive_log WHERE action = 'redact' \gset
SELECT rf_prune_log('infinity') > 0 AS pruned;
SELECT count(*) = :redactions AS kept, count(*) > 5 AS several FROM rf_archive_log WHERE action = 'redact' AND entries = 1 AND detail <> 'pruned';

SELECT events, broken_streams FROM check_union('store');
SELECT events, broken_streams FROM check_union('other');
