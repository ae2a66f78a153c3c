-- Events that rf_append() writes without the executor, and all that makes it take the statement instead: nobody
-- may be able to tell the difference.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
\set ECHO all
SET timezone = 'UTC';
SET track_functions = 'all';

\set s1 '''00000000-0000-0000-0000-000000000001'''
\set s2 '''00000000-0000-0000-0000-000000000002'''

-- One event more, and whether a statement has written it: then the trigger of events has opened one.
CREATE FUNCTION checks.opened () RETURNS bigint LANGUAGE sql VOLATILE
	AS $$ SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_get_xact_function_calls('store.rf_events_open'::regproc) AS calls $$;
CREATE FUNCTION checks.append (body jsonb DEFAULT '{}', headers jsonb DEFAULT '{}', at timestamptz DEFAULT '2024-01-15', user_id text DEFAULT NULL)
	RETURNS text LANGUAGE plpgsql
AS $$
DECLARE
	before bigint = checks.opened();
	n integer;
BEGIN
	SELECT stream_seq INTO n
	FROM store.rf_append('00000000-0000-0000-0000-000000000001', 'a', body, headers, created_at => at, user_id => append.user_id);
	RETURN format('%s, %s', n, CASE WHEN checks.opened() > before THEN 'by a statement' ELSE 'directly' END);
END
$$;

-- Into a month, and into the default where there is none; several months in a batch; the current one.
SELECT rf_create_partition('hot', '2024-01-01');
SELECT checks.append();
SELECT checks.append(at => '2024-02-15');
SELECT checks.append(at => now());
BEGIN;
SELECT * FROM rf_append_batch(:s2, '[{"type": "a", "body": 1, "created_at": "2024-01-01 00:00+00"},
	{"type": "b", "body": 2, "created_at": "2024-02-01 00:00+00", "headers": {"idempotency_key": "b"}},
	{"type": "c", "body": {"n": null}, "created_at": "2024-01-31 23:59:59.999999+00", "is_tombstone": true, "version": 3}]');
SELECT checks.opened();
COMMIT;
SELECT tableoid::regclass, global_seq, right(stream_id::text, 1) AS stream, stream_seq AS n, event_type AS t, body, headers,
	event_version AS v, user_id, is_tombstone AS tomb, created_at, bucket_month, retention_class AS class
FROM events WHERE created_at < '2025-01-01' ORDER BY global_seq;
SELECT right(stream_id::text, 1) AS stream, last_seq, first_event_at FROM rf_streams ORDER BY 1;
SELECT events, broken_streams FROM check_keep();

-- A large body goes where large values go, and what was appended counts for the statistics.
SELECT checks.append(body => to_jsonb(repeat('0123456789abcdef', 20000)), headers => '{"idempotency_key": "large"}');
SELECT length(body #>> '{}') FROM events WHERE stream_seq = 4 AND stream_id = :s1;
BEGIN;
SELECT checks.append();
SELECT n_tup_ins FROM pg_stat_xact_user_tables WHERE relname = 'events_hot_2024_01';
-- A repeat of a key writes nothing.
SELECT stream_seq FROM rf_append(:s1, 'a', '{}', '{"idempotency_key": "large"}');
SELECT n_tup_ins FROM pg_stat_xact_user_tables WHERE relname = 'events_hot_2024_01';
ROLLBACK;

-- Seen at once by the same command, and gone with a savepoint.
BEGIN;
SAVEPOINT s;
SELECT stream_seq FROM generate_series(1, 3), LATERAL rf_append(:s1, 'a', '{}', created_at => '2024-01-16 00:00+00');
SELECT count(*) FROM events WHERE stream_id = :s1;
ROLLBACK TO s;
SELECT count(*) FROM events WHERE stream_id = :s1;
SELECT checks.append();
COMMIT;

-- Indexes of the user's are kept, and unique ones refuse.
CREATE INDEX ON events_hot_2024_01 ((body ->> 'k')) WHERE body ? 'k';
CREATE UNIQUE INDEX once ON events_hot_2024_01 ((headers ->> 'once'));
SELECT checks.append('{"k": "found"}', '{"once": "1"}');
SET enable_seqscan = off;
SELECT stream_seq FROM events_hot_2024_01 WHERE body ? 'k' AND body ->> 'k' = 'found';
RESET enable_seqscan;
SELECT checks.append('{}', '{"once": "1"}');
\echo :SQLSTATE
DROP INDEX once;

--
-- What takes the statement
--

-- Triggers of the user's, of each kind, fire; disabled ones don't matter.
CREATE TABLE checks.fired (what text);
CREATE FUNCTION checks.fire () RETURNS trigger LANGUAGE plpgsql
	AS $$ BEGIN INSERT INTO checks.fired VALUES (concat_ws(' ', TG_WHEN, TG_LEVEL, TG_TABLE_NAME)); RETURN NEW; END $$;
CREATE TRIGGER a_before BEFORE INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION checks.fire();
SELECT checks.append();
DROP TRIGGER a_before ON events;
CREATE TRIGGER z_after AFTER INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION checks.fire();
SELECT checks.append();
ALTER TABLE events DISABLE TRIGGER z_after;
SELECT checks.append();
DROP TRIGGER z_after ON events;
CREATE TRIGGER a_row BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION checks.fire();
SELECT checks.append();
DROP TRIGGER a_row ON events;
CREATE TRIGGER of_leaf AFTER INSERT ON events_hot_2024_01 FOR EACH ROW EXECUTE FUNCTION checks.fire();
SELECT checks.append();
SELECT checks.append(at => '2024-02-15');
DROP TRIGGER of_leaf ON events_hot_2024_01;
SELECT checks.append();
TABLE checks.fired;

-- CHECKs
ALTER TABLE events ADD CONSTRAINT modest CHECK (NOT body ? 'immodest');
SELECT checks.append();
SELECT checks.append('{"immodest": 1}');
\echo :SQLSTATE
ALTER TABLE events DROP CONSTRAINT modest;

-- a foreign key
CREATE TABLE store.users (id text COLLATE "default" PRIMARY KEY);
INSERT INTO store.users VALUES ('known');
ALTER TABLE events ADD CONSTRAINT by_user FOREIGN KEY (user_id) REFERENCES store.users;
SELECT checks.append(user_id => 'known');
SELECT checks.append(user_id => 'unknown');
\echo :SQLSTATE
ALTER TABLE events DROP CONSTRAINT by_user;

-- columns: without a default, with one, generated; NOT NULL; a default for the tenant
ALTER TABLE events ADD COLUMN note text;
ALTER TABLE events_archive ADD COLUMN note text;
SELECT checks.append();
ALTER TABLE events ALTER COLUMN note SET DEFAULT 'noted';
SELECT checks.append();
SELECT stream_seq, note FROM events WHERE stream_id = :s1 AND note IS NOT NULL;
ALTER TABLE events ALTER COLUMN note DROP DEFAULT;
ALTER TABLE events ALTER COLUMN tenant_id SET DEFAULT 'blue';
SELECT checks.append();
SELECT stream_seq, tenant_id FROM events WHERE stream_id = :s1 AND tenant_id IS NOT NULL;
ALTER TABLE events ALTER COLUMN tenant_id DROP DEFAULT;
SELECT rf_create_partition('hot', '2024-03-01');
ALTER TABLE events_hot_2024_03 ALTER COLUMN user_id SET NOT NULL;
SELECT checks.append(at => '2024-03-15', user_id => 'somebody');
SELECT checks.append(at => '2024-03-15');
\echo :SQLSTATE
ALTER TABLE events ADD COLUMN size int GENERATED ALWAYS AS (length(event_type)) STORED;
ALTER TABLE events_archive ADD COLUMN size int;
SELECT checks.append();
SELECT size FROM events WHERE stream_id = :s1 ORDER BY stream_seq DESC LIMIT 1;
ALTER TABLE events DROP COLUMN size;
ALTER TABLE events_archive DROP COLUMN size;
SELECT checks.append();
-- a default of the column's type, and a domain that takes no null
CREATE DOMAIN checks.noted AS text DEFAULT 'by its type';
ALTER TABLE events ADD COLUMN by_type checks.noted;
ALTER TABLE events_archive ADD COLUMN by_type checks.noted;
SELECT checks.append();
SELECT by_type FROM events WHERE stream_id = :s1 ORDER BY stream_seq DESC LIMIT 1;
SET client_min_messages = error;
ALTER TABLE events DROP COLUMN by_type CASCADE;
ALTER TABLE events_archive DROP COLUMN by_type CASCADE;
RESET client_min_messages;
SELECT checks.append();

-- a CHECK that has no more than the name of ours
ALTER TABLE events_hot_2024_01 ADD CONSTRAINT rf_bucket_month_tie CHECK (user_id IS DISTINCT FROM 'nobody');
SELECT checks.append();
SELECT checks.append(user_id => 'nobody');
\echo :SQLSTATE
ALTER TABLE events_hot_2024_01 DROP CONSTRAINT rf_bucket_month_tie;
SELECT checks.append();

-- a month that was made like another one, and has its CHECKs
CREATE TABLE events_hot_2024_05 (LIKE events_hot_2024_01 INCLUDING ALL);
ALTER TABLE events_hot ATTACH PARTITION events_hot_2024_05 FOR VALUES FROM ('2024-05-01') TO ('2024-06-01');
SET client_min_messages = error;
SELECT rf_install('store');
RESET client_min_messages;
SELECT checks.append(at => '2024-05-15');
\echo :SQLSTATE
ALTER TABLE events_hot_2024_05 DROP CONSTRAINT rf_month_bounds,
	ADD CONSTRAINT rf_month_bounds CHECK (bucket_month = DATE '2024-05-01' AND created_at < TIMESTAMPTZ '2024-05-15 00:00+00');
SELECT checks.append(at => '2024-05-15 00:00+00');
\echo :SQLSTATE
ALTER TABLE events_hot_2024_05 DROP CONSTRAINT rf_month_bounds;
SELECT checks.append(at => '2024-05-15');

-- a rule
CREATE RULE nothing AS ON INSERT TO events DO ALSO NOTIFY told;
SELECT checks.append();
DROP RULE nothing ON events;

-- an INSERT that is under way, whose trigger appends
CREATE FUNCTION checks.append_too () RETURNS trigger LANGUAGE plpgsql
	AS $$ BEGIN INSERT INTO checks.fired VALUES (checks.append()); RETURN NULL; END $$;
CREATE TRIGGER append_too AFTER INSERT ON events_hot_2024_01 FOR EACH ROW WHEN (new.event_type = 'raw') EXECUTE FUNCTION checks.append_too();
INSERT INTO events (stream_id, event_type, body, headers, created_at, bucket_month)
	VALUES (:s2, 'raw', '{}', '{}', '2024-01-20', '2024-01-01') RETURNING stream_seq;
SELECT what FROM checks.fired WHERE what ~ '^[0-9]';
DROP TRIGGER append_too ON events_hot_2024_01;

-- row security, and who may not name global_seq
CREATE ROLE regress_rillflow_app;
GRANT USAGE ON SCHEMA store, checks TO regress_rillflow_app;
GRANT SELECT, INSERT ON events TO regress_rillflow_app;
GRANT EXECUTE ON FUNCTION rf_append TO regress_rillflow_app;
SET ROLE regress_rillflow_app;
SELECT checks.append();
RESET ROLE;
ALTER TABLE events ENABLE ROW LEVEL SECURITY;
CREATE POLICY small ON events WITH CHECK (NOT body ? 'hidden') ;
SET ROLE regress_rillflow_app;
SELECT checks.append();
SELECT checks.append('{"hidden": 1}');
\echo :SQLSTATE
RESET ROLE;
SELECT checks.append('{"hidden": 1}');
ALTER TABLE events DISABLE ROW LEVEL SECURITY;
DROP POLICY small ON events;
REVOKE INSERT ON events FROM regress_rillflow_app;
GRANT INSERT (stream_id, stream_seq, event_type, body, headers, causation_id, correlation_id, event_version, user_id,
	is_tombstone, created_at, bucket_month) ON events TO regress_rillflow_app;
GRANT USAGE ON SEQUENCE events_global_seq_seq TO regress_rillflow_app;
SET ROLE regress_rillflow_app;
SELECT checks.append();
RESET ROLE;

-- without one of our own triggers
ALTER TABLE events DISABLE TRIGGER rf_events_close;
SELECT checks.append();
\echo :SQLSTATE
ALTER TABLE events ENABLE TRIGGER rf_events_close;
SELECT checks.append();

-- the schema of a tenant's store, which is not that of the function
CREATE SCHEMA other;
SELECT rf_install('other', 'two');
GRANT INSERT ON other.events TO regress_rillflow_app;
SET ROLE regress_rillflow_app;
SELECT stream_seq FROM rf_append(:s1, 'a', '{}', tenant => 'two');
\echo :SQLSTATE
RESET ROLE;
GRANT USAGE ON SCHEMA other TO regress_rillflow_app;
SET ROLE regress_rillflow_app;
SELECT stream_seq FROM rf_append(:s1, 'a', '{}', tenant => 'two');
RESET ROLE;

-- a month without its guard is not written to
DROP TRIGGER rf_events_append_only ON events_hot_2024_01;
SELECT checks.append();
\echo :SQLSTATE
SET client_min_messages = error;
SELECT rf_install('store');
RESET client_min_messages;
SELECT checks.append();

-- Nothing was lost, and all of it is archived as any other event.
SELECT right(stream_id::text, 1) AS stream, last_seq, count(*) AS events FROM rf_streams JOIN events USING (stream_id) GROUP BY 1, 2 ORDER BY 1;
SELECT events > 0 AS some, broken_streams FROM check_keep();
SELECT events_moved, streams_touched FROM rf_archive_move('infinity');
SELECT * FROM check_same();
