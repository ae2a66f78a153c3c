-- Tenants that share the tables of one store: each function for each of them, hostile names, streams and keys of one id, what one may learn of another.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
\set ECHO all

CREATE FUNCTION checks.stream (n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$ SELECT lpad(n::text, 32, '0')::uuid $$;
-- What is there of a tenant; the streams by their last digits.
CREATE FUNCTION checks.streams (tenant text) RETURNS TABLE (s text, last_seq int, archived boolean, by text, class text, hot bigint, cold bigint) LANGUAGE sql AS $$
	SELECT right(stream_id::text, 2), s.last_seq, archived_at IS NOT NULL, archived_by, retention_class,
		(SELECT count(*) FROM store.events AS e WHERE e.tenant_id = s.tenant_id AND e.stream_id = s.stream_id AND e.retention_class = 'hot'),
		(SELECT count(*) FROM store.events_all AS e WHERE e.tenant_id = s.tenant_id AND e.stream_id = s.stream_id AND e.retention_class = 'cold')
	FROM store.rf_streams AS s WHERE tenant_id = tenant ORDER BY 1
$$;

--
-- Installing
--
SELECT checks.try($$SELECT rf_install('store', tenancy => 'conjoined')$$);
SELECT rf_uninstall('store', 'store');
CREATE SCHEMA other;
SELECT checks.try(format('SELECT rf_install(%s)', args)) FROM unnest(ARRAY['''other'', tenancy => ''conjoined''', '''store'', ''acme'', ''conjoined''', '''store'', tenancy => ''Conjoined''', '''store'', tenancy => ''''']) AS args;
SELECT relname FROM pg_class WHERE relnamespace IN ('store'::regnamespace, 'other'::regnamespace) AND relname <> 'rf_stores' AND relkind = 'r' ORDER BY 1;
SELECT rf_install('store', tenancy => 'conjoined');
TABLE rf_stores;
SELECT attrelid::regclass AS in_table, attnotnull AS required, c.collname FROM pg_attribute JOIN pg_collation AS c ON c.oid = attcollation
WHERE attname = 'tenant_id' AND attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'store'::regnamespace AND relkind IN ('r', 'p') AND relname !~ '20') ORDER BY attrelid::regclass::text COLLATE "C";
SELECT DISTINCT regexp_replace(relname, '20.*', 'MONTH') COLLATE "C" AS in_table, regexp_replace(pg_get_indexdef(indexrelid), '.* USING ', '') AS key
FROM pg_index JOIN pg_class AS c ON c.oid = indrelid WHERE relnamespace = 'store'::regnamespace AND indisunique AND pg_get_indexdef(indexrelid) ~ '[(].*(stream|idempotency)' ORDER BY 1;
SELECT present, changed FROM checks.restored_checks();
-- Taken up again it is what it is.
SELECT rf_install('store');
SELECT checks.try($$SELECT rf_install('store', 'acme')$$), checks.try($$SELECT rf_install('store', tenancy => 'conjoined')$$);
TABLE rf_stores;
SELECT checks.try($$SELECT rf_flatten()$$);
CALL rf_adopt('checks.kept');
\echo :SQLSTATE

--
-- Every function, for every name
--
CREATE TABLE checks.tenants (n int GENERATED ALWAYS AS IDENTITY, tenant text);
INSERT INTO checks.tenants (tenant) VALUES ('plain'), ('Plain'), ('O''Brien "x"'), ('select'), ('%s %L %I'), (' '), ('$$; DROP TABLE x; --'), (E'a\nb\tc\\d'), ('..'), ('{mine}'),
	(U&'\00e9 \00fc \6f22\5b57'), (repeat(U&'\6f22', 21)), (repeat('w', 63)), ('*x'), ('**'), ('NULL');
-- What has no line here is missing in the query below.
CREATE TABLE checks.calls (n int GENERATED ALWAYS AS IDENTITY, call text);
INSERT INTO checks.calls (call) VALUES
	($$rf_append(checks.stream(9), 'e', '{}', tenant => %1$L)$$), ($$rf_append_batch(checks.stream(9), '[{"type": "e", "body": 1}]', tenant => %1$L)$$),
	($$rf_read_stream(checks.stream(1), tenant => %1$L)$$), ($$rf_read_all(tenant => %1$L)$$),
	($$rf_archive_mark(checks.stream(1), tenant => %1$L)$$), ($$rf_archive_reactivate(checks.stream(2), tenant => %1$L)$$),
	($$rf_hold(checks.stream(1), 'case', tenant => %1$L)$$), ($$rf_hold(NULL, 'case', tenant => %1$L)$$), ($$rf_release(checks.stream(2), tenant => %1$L)$$), ($$rf_redact(checks.stream(1), 1, 'asked for', tenant => %1$L)$$),
	($$rf_archive_move('infinity', tenant => %1$L)$$), ($$rf_archive_move('infinity', dry_run => true, tenant => %1$L)$$), ($$rf_archive_move('infinity', stream_id => checks.stream(1), tenant => %1$L)$$), ($$rf_archive_move('infinity', only_archived => true, tenant => %1$L)$$),
	($$rf_archive_plan('infinity', tenant => %1$L)$$), ($$rf_archive_candidates('infinity', tenant => %1$L)$$), ($$rf_archive_status(tenant => %1$L)$$),
	($$rf_policy_set('q', '1 year', tenant => %1$L)$$), ($$rf_policy_pause('p', tenant => %1$L)$$), ($$rf_policy_resume('p', tenant => %1$L)$$), ($$rf_policy_run('p', tenant => %1$L)$$), ($$rf_policy_arm(tenant => %1$L)$$), ($$rf_policy_due('2024-06-01 00:00+00', tenant => %1$L)$$), ($$rf_policy_remove('p', tenant => %1$L)$$),
	($$rf_consumer_advance('c', 1, tenant => %1$L)$$), ($$rf_consumer_remove('c', tenant => %1$L)$$), ($$rf_prune_keys('-infinity', tenant => %1$L)$$), ($$rf_prune_log('-infinity', tenant => %1$L)$$), ($$rf_partitions(tenant => %1$L)$$),
	($$rf_archive_redirect_enabled(tenant => %1$L)$$), ($$rf_archive_set_redirect(true, tenant => %1$L)$$), ($$rf_archive_set_include_archived(true, tenant => %1$L)$$), ($$rf_archive_set_notify(true, tenant => %1$L)$$), ($$rf_archive_set_backend('partitioned', tenant => %1$L)$$),
	($$rf_create_partition('cold', '2031-01-01', tenant => %1$L)$$), ($$rf_drop_partition('hot', '2032-01-01', tenant => %1$L)$$), ($$rf_drain_default(tenant => %1$L)$$), ($$rf_flip_partition('2024-01-01', 'cold', tenant => %1$L)$$),
	($$rf_enable_rls('rillflow.tenant', tenant => %1$L)$$), ($$rf_disable_rls(tenant => %1$L)$$), ($$rf_metrics(tenant => %1$L)$$), ($$rf_metrics_text(tenant => %1$L)$$),
	($$rf_flatten(tenant => %1$L)$$), ($$rf_upgrade_store(tenant => %1$L)$$), ($$rf_set_owner(current_user, tenant => %1$L)$$),
	($$rf_install('other', %1$L)$$), ($$rf_uninstall('store', 'store', true)$$), ($$rf_create_tenant(%1$L)$$), ($$rf_drop_tenant(%1$L, %1$L, true)$$), ($$rf_tenants()$$),
	($$rf_worker_start()$$), ($$rf_worker_list()$$), ($$rf_archive_run('infinity', tenant => %1$L)$$), ($$rf_adopt('checks.tenants', tenant => %1$L)$$);
SELECT p.oid::regprocedure AS without_a_line FROM pg_proc AS p
WHERE pronamespace = 'store'::regnamespace AND prorettype <> 'trigger'::regtype AND NOT EXISTS (SELECT FROM checks.calls WHERE starts_with(call, p.proname || '(') AND (NOT 'tenant' = ANY (coalesce(p.proargnames[:pronargs], '{}')) OR call LIKE '%\%1$L%'));
CREATE VIEW checks.functions AS SELECT n, call, 'SELECT count(*) FROM ' || call AS statement FROM checks.calls WHERE call !~ '^rf_(archive_run|adopt|worker_start|uninstall)\(';
-- Each tenant has the same two streams, one of them marked, and the same keys.
SELECT rf_create_partition('hot', m) FROM unnest(ARRAY['2024-01-01', '2024-02-01', '2024-03-01', '2032-01-01']::date[]) AS m;
SELECT rf_consumer_advance('c', 0);
SELECT rf_policy_set('p', '1 year', tenant => 'plain');
SELECT count(*) FROM generate_series(1, 3) AS m, generate_series(1, 2) AS s, checks.tenants AS t,
	rf_append(checks.stream(s), 'of ' || t.tenant, jsonb_build_object('tenant', t.tenant), jsonb_build_object('idempotency_key', format('%s %s', s, m)), created_at => make_timestamptz(2024, m, s, 0, 0, 0, 'UTC'), tenant => t.tenant);
SELECT count(*) FROM checks.tenants AS t, rf_archive_mark(checks.stream(2), t.tenant, tenant => t.tenant);
SELECT * FROM checks.check_keep();
SET client_min_messages = error;
SELECT replace(call, '%1$L', 'T') AS call, o.outcome, count(*)
FROM checks.functions AS f, checks.tenants, LATERAL (SELECT regexp_replace(replace(replace(checks.try(format(statement, tenant)), quote_literal(tenant), 'T'), format('"%s"', tenant), 'T'), 'schema "tenant_.*?"', 'schema S') AS outcome) AS o
GROUP BY f.n, call, o.outcome ORDER BY f.n, count(*) DESC, o.outcome COLLATE "C";
SELECT * FROM checks.check_same();
-- Without a tenant, with all of them, and with what is no name.
SELECT replace(call, '%1$L', 'NULL') AS call, outcome FROM checks.functions AS f, LATERAL checks.try(format(statement, NULL)) AS outcome WHERE call ~ '%1' ORDER BY n;
SELECT replace(call, '%1$L', '*') AS call, outcome FROM checks.functions AS f, LATERAL checks.try(format(statement, '*')) AS outcome WHERE call ~ '%1' ORDER BY n;
SELECT o.outcome, count(*), string_agg(DISTINCT left(call, strpos(call, '(') - 1), ' ') FILTER (WHERE o.outcome !~ 'invalid tenant name') AS of
FROM checks.functions AS f, unnest(ARRAY['', repeat('w', 64), repeat(U&'\6f22', 22)]) AS tenant, LATERAL (SELECT left(checks.try(format(statement, tenant)), 120) AS outcome) AS o WHERE call ~ '%1' GROUP BY 1 ORDER BY o.outcome COLLATE "C";
RESET client_min_messages;
SELECT * FROM checks.check_same();
-- Each is told of its own.
SELECT count(*), bool_and(s.schema = 'store' AND s.tenant = t.tenant) AS own, sum(hot_streams) AS active, sum(cold_streams) AS archived, sum(hot_events) AS hot, sum(cold_events) AS cold, min(oldest_hot), max(oldest_hot) FROM checks.tenants AS t, rf_archive_status(t.tenant) AS s;
SELECT tenant, hot_streams, cold_streams, hot_bytes > 0 AS bytes, held_back_by FROM rf_archive_status('*');
SELECT count(*), bool_and(event_type = 'of ' || tenant AND tenant_id = tenant) AS own FROM checks.tenants AS t, rf_read_all(include_archived => true, tenant => t.tenant) AS e;
SELECT count(*), bool_and(event_type = 'of ' || tenant AND tenant_id = tenant) AS own FROM checks.tenants AS t, rf_read_stream(checks.stream(1), tenant => t.tenant) AS e;
SELECT count(*), sum(events) AS events, sum(streams) AS streams FROM checks.tenants AS t, rf_archive_plan('2024-03-01 00:00+00', ignore_consumers => true, tenant => t.tenant) AS p;
SELECT bucket_month, source, method, events, streams, bytes > 0 AS bytes, reason FROM rf_archive_plan('2024-03-01 00:00+00', ignore_consumers => true, tenant => 'plain') ORDER BY 1;
SELECT bucket_month, method, events, streams, reason FROM rf_archive_plan('2024-03-01 00:00+00', ignore_consumers => true, tenant => '*') ORDER BY 1;
SELECT right(stream_id::text, 2) AS s, events, closes FROM rf_archive_candidates('2024-03-01 00:00+00', ignore_consumers => true, tenant => '**') ORDER BY 1;
SELECT count(*), sum(events) FROM rf_archive_candidates('2024-03-01 00:00+00', ignore_consumers => true, tenant => '*');
SELECT n, tenancy, schema, owner = current_user AS own, state FROM rf_tenants() FULL JOIN checks.tenants USING (tenant) ORDER BY n;
SELECT rf_consumer_remove('c');

--
-- What is not there, and what is somebody else's
--
SELECT rf_append(checks.stream(77), 'e', '{}', '{"idempotency_key": "secret"}', tenant => 'plain');
SELECT statement, outcome AS of_another, outcome = checks.try(replace(statement, '77', '88')) AS as_of_nobody, regexp_replace(checks.try(replace(statement, 'Plain', 'plain')), '_20\d\d_\d\d', '_MONTH') AS own
FROM unnest(ARRAY[$$SELECT 1 / count(*) FROM rf_read_stream(checks.stream(77), tenant => 'Plain')$$, $$SELECT rf_archive_reactivate(checks.stream(77), tenant => 'Plain')$$,
	$$SELECT rf_redact(checks.stream(77), NULL, 'why', 'Plain')$$, $$SELECT rf_redact(checks.stream(77), 1, 'why', 'Plain')$$, $$SELECT rf_hold(checks.stream(77), 'why', 'Plain')$$, $$SELECT rf_release(checks.stream(77), 'why', 'Plain')$$,
	$$SELECT rf_archive_move('infinity', stream_id => checks.stream(77), tenant => 'Plain')$$, $$SELECT * FROM rf_archive_plan('infinity', checks.stream(77), tenant => 'Plain')$$,
	$$SELECT rf_append(checks.stream(77), 'e', '{}', expected_seq => 1, tenant => 'Plain')$$, $$SELECT rf_append(checks.stream(77), 'e', '{}', expected_seq => 0, tenant => 'Plain')$$,
	$$SELECT rf_append(checks.stream(5), 'e', '{}', '{"idempotency_key": "secret"}', tenant => 'Plain')$$,
	$$INSERT INTO events (tenant_id, stream_id, stream_seq, event_type, body) VALUES ('Plain', checks.stream(77), 2, 'e', '{}')$$, $$INSERT INTO events (tenant_id, stream_id, stream_seq, event_type, body) VALUES ('Plain', checks.stream(77), 1, 'e', '{}')$$,
	$$INSERT INTO events (tenant_id, stream_id, event_type, body, headers) VALUES ('Plain', checks.stream(5), 'e', '{}', '{"idempotency_key": "secret"}')$$,
	$$SELECT rf_policy_pause('p', tenant => 'Plain')$$]) AS statement, LATERAL replace(checks.try(statement), checks.stream(77)::text, checks.stream(88)::text) AS outcome;
-- A stream on hold keeps nothing of others; a tenant on hold keeps all that is his.
SELECT rf_hold(checks.stream(1), 'case', 'plain'), rf_hold(NULL, 'suit', 'Plain'), rf_hold(NULL, 'suit', 'Plain');
SELECT tenant, s, checks.try(format('SELECT rf_redact(checks.stream(%s), NULL, %L, %L)', s, 'why', tenant)) FROM unnest(ARRAY['plain', 'Plain', '..']) AS tenant, generate_series(1, 2) AS s;
SELECT checks.try($$SELECT rf_drop_partition('hot', '2024-01-01', true)$$), checks.try($$SELECT rf_release(checks.stream(1), tenant => 'Plain')$$), checks.try($$SELECT rf_release(NULL, tenant => 'plain')$$);
SELECT stream_id, tenant_id, reason FROM rf_holds ORDER BY hold_id;
SELECT rf_release(checks.stream(1), tenant => 'plain'), rf_release(NULL, tenant => 'Plain');
SELECT rf_hold(NULL, 'all');
SELECT checks.try($$SELECT rf_redact(checks.stream(1), NULL, 'why', '..')$$);
SELECT rf_release();
SELECT action, stream_id, tenant_id, detail FROM rf_archive_log WHERE action IN ('hold', 'release') ORDER BY log_id;
-- Redactions are his, keys as well.
SELECT rf_redact(checks.stream(1), NULL, 'asked for', '..');
SELECT tenant_id = '..' AS his, count(*) FILTER (WHERE body = '{}') AS blank, count(*) FILTER (WHERE body <> '{}') AS kept FROM events WHERE stream_id = checks.stream(1) GROUP BY 1 ORDER BY 1;
SELECT tenant_id = '..' AS his, count(*) FROM rf_event_keys WHERE stream_id = checks.stream(1) GROUP BY 1 ORDER BY 1;
SELECT * FROM checks.check_keep();

--
-- INSERT and COPY
--
INSERT INTO events (tenant_id, stream_id, event_type, body) SELECT t, checks.stream(s), 'raw', '{}' FROM generate_series(20, 22) AS s, unnest(ARRAY['a', 'b', 'c']) AS t, generate_series(1, 4);
SELECT * FROM checks.streams('a');
INSERT INTO events (tenant_id, stream_id, stream_seq, event_type, body) VALUES ('a', checks.stream(20), 5, 'raw', '{}'), ('b', checks.stream(20), 5, 'raw', '{}'), ('a', checks.stream(20), 6, 'raw', '{}') RETURNING tenant_id, stream_seq;
INSERT INTO events (tenant_id, stream_id, stream_seq, event_type, body) VALUES ('a', checks.stream(20), 6, 'raw', '{}'), ('b', checks.stream(20), 6, 'raw', '{}'), ('c', checks.stream(20), 4, 'raw', '{}') ON CONFLICT DO NOTHING RETURNING tenant_id, stream_seq;
COPY events (tenant_id, stream_id, event_type, body) FROM stdin;
a	00000000-0000-0000-0000-000000000020	copied	{}
b	00000000-0000-0000-0000-000000000020	copied	{}
new	00000000-0000-0000-0000-000000000020	copied	{}
a	00000000-0000-0000-0000-000000000020	copied	{}
\.
SELECT tenant_id, last_seq FROM rf_streams WHERE stream_id = checks.stream(20) ORDER BY 1;
SELECT checks.try(format('INSERT INTO events (tenant_id, stream_id, event_type, body) VALUES (%L, checks.stream(20), %L, %L)', t, 'raw', '{}')) FROM unnest(ARRAY[NULL, '', '*', repeat('w', 64)]) AS t;
SELECT checks.try($$INSERT INTO events (stream_id, event_type, body) VALUES (checks.stream(20), 'raw', '{}')$$), checks.try($$INSERT INTO events (tenant_id, stream_id, stream_seq, event_type, body) VALUES ('a', checks.stream(20), 9, 'raw', '{}'), ('b', checks.stream(20), 9, 'raw', '{}')$$);
BEGIN;
INSERT INTO events (tenant_id, stream_id, event_type, body) VALUES ('a', checks.stream(20), 'raw', '{}'), ('b', checks.stream(20), 'raw', '{}');
SAVEPOINT s;
INSERT INTO events (tenant_id, stream_id, event_type, body) VALUES ('a', checks.stream(20), 'raw', '{}');
SELECT rf_append(checks.stream(20), 'e', '{}', tenant => 'b');
ROLLBACK TO s;
INSERT INTO events (tenant_id, stream_id, stream_seq, event_type, body) VALUES ('a', checks.stream(20), 10, 'raw', '{}');
COMMIT;
-- A statement that calls functions which append in their turn, for others and for one of its own.
CREATE FUNCTION checks.append (tenant text, n int) RETURNS int LANGUAGE sql VOLATILE AS $$ SELECT stream_seq FROM store.rf_append(checks.stream(20), 'inner', '{}', tenant => append.tenant) $$;
INSERT INTO events (tenant_id, stream_id, event_type, body) SELECT t, checks.stream(20), 'outer', to_jsonb(checks.append(CASE t WHEN 'a' THEN 'b' ELSE 'new' END, n)) FROM generate_series(1, 2) AS n, unnest(ARRAY['a', 'new']) AS t;
SELECT tenant_id, last_seq FROM rf_streams WHERE stream_id = checks.stream(20) ORDER BY 1;
-- A row that another trigger drops is a gap, wherever it is.
CREATE FUNCTION checks.skip () RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN CASE WHEN NEW.event_type = 'skip' THEN NULL ELSE NEW END; END $$;
CREATE TRIGGER zz BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION checks.skip();
SELECT checks.try($$INSERT INTO events (tenant_id, stream_id, event_type, body) VALUES ('b', checks.stream(20), 'kept', '{}'), ('a', checks.stream(20), 'skip', '{}')$$);
INSERT INTO events (tenant_id, stream_id, event_type, body) VALUES ('a', checks.stream(20), 'kept', '{}'), ('b', checks.stream(20), 'kept', '{}');
DROP TRIGGER zz ON events;
SELECT broken_streams, events > 100 AS some FROM checks.check_union('store');
-- Redirect: each by the mark of its own stream.
SELECT rf_archive_set_redirect(true);
SELECT archived_by = session_user AS by_me FROM rf_archive_mark(checks.stream(20), tenant => 'a');
INSERT INTO events (tenant_id, stream_id, event_type, body) SELECT t, checks.stream(20), 'redirected', '{}' FROM unnest(ARRAY['a', 'b', 'a']) AS t;
SELECT tenant_id, retention_class, count(*) FROM events_all WHERE event_type = 'redirected' GROUP BY 1, 2 ORDER BY 1;
SELECT rf_append(checks.stream(20), 'redirected', '{}', allow_archived => true, tenant => 'a');
SELECT checks.try($$SELECT rf_append(checks.stream(20), 'e', '{}', tenant => 'a')$$), checks.try($$SELECT rf_append(checks.stream(20), 'e', '{}', tenant => 'b')$$);
SELECT rf_archive_set_redirect(false);
SELECT broken_streams FROM checks.check_union('store');

--
-- Moves
--
SELECT * FROM checks.check_keep();
SELECT * FROM rf_archive_move('2024-02-15 00:00+00', batch_size => 2, tenant => 'plain');
SELECT * FROM checks.streams('plain');
SELECT * FROM checks.streams('Plain');
SELECT * FROM rf_archive_move('infinity', stream_id => checks.stream(21), tenant => 'b');
SELECT * FROM rf_archive_move('infinity', only_archived => true, tenant => 'a');
SELECT * FROM rf_archive_move('infinity', only_archived => true, stream_id => checks.stream(21), tenant => 'c');
SELECT * FROM checks.streams('a');
SELECT * FROM checks.streams('b');
SELECT * FROM checks.streams('c');
SELECT * FROM checks.check_same();
CALL rf_archive_run('2024-03-01 00:00+00', tenant => 'Plain');
CALL rf_archive_run('2024-03-01 00:00+00', batch_size => 7, tenant => '*');
\set VERBOSITY terse
CALL rf_archive_run('2024-03-01 00:00+00', stream_id => checks.stream(1), tenant => '*');
\set VERBOSITY default
SELECT * FROM checks.streams('plain');
SELECT * FROM checks.streams('..');
SELECT * FROM checks.check_same();
SELECT count(*) FROM generate_series(1, 2) AS s, checks.tenants AS t, rf_archive_reactivate(checks.stream(s), tenant => t.tenant) WHERE n % 2 = 1;
SELECT * FROM checks.streams('plain');
SELECT * FROM checks.streams('Plain');
SELECT * FROM checks.check_same();
SELECT action, tenant_id IS NOT NULL AS of_tenant, count(*), sum(events) AS events, sum(streams) AS streams FROM rf_archive_log WHERE action IN ('batch', 'close', 'mark', 'reactivate') GROUP BY 1, 2 ORDER BY 1, 2;
-- By statements instead of the heap: under other isolation, and where rf_streams and the ledger have triggers of a user.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT rf_append(checks.stream(1), 'e', '{}', tenant => '**'), rf_append(checks.stream(30), 'e', '{}', tenant => '**');
INSERT INTO events (tenant_id, stream_id, event_type, body) SELECT t, checks.stream(s), 'raw', '{}' FROM generate_series(30, 31) AS s, unnest(ARRAY['**', 'a', 'z']) AS t;
SELECT count(*) FROM rf_archive_mark(checks.stream(31), tenant => 'a');
SELECT * FROM rf_archive_move('infinity', tenant => '**');
SELECT * FROM rf_archive_move('infinity', only_archived => true, tenant => 'a');
COMMIT;
CREATE FUNCTION checks.see () RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER see BEFORE INSERT OR UPDATE ON rf_streams FOR EACH ROW EXECUTE FUNCTION checks.see();
CREATE TRIGGER see BEFORE INSERT ON rf_archive_log FOR EACH ROW EXECUTE FUNCTION checks.see();
SELECT rf_append(checks.stream(32), 'e', '{}', tenant => 'a'), rf_append(checks.stream(32), 'e', '{}', tenant => 'z'), rf_append(checks.stream(32), 'e', '{}', tenant => 'a');
INSERT INTO events (tenant_id, stream_id, stream_seq, event_type, body) VALUES ('z', checks.stream(32), 2, 'raw', '{}'), ('a', checks.stream(32), 3, 'raw', '{}'), ('z', checks.stream(33), 1, 'raw', '{}');
SELECT * FROM rf_archive_move('infinity', stream_id => checks.stream(32), tenant => 'z');
CALL rf_archive_run('infinity', only_archived => true, tenant => '*');
CALL rf_archive_run('infinity', tenant => 'z');
DROP TRIGGER see ON rf_streams;
DROP TRIGGER see ON rf_archive_log;
SELECT * FROM checks.streams('a');
SELECT * FROM checks.streams('z');
SELECT stream_id, tenant_id, detail FROM rf_archive_log WHERE action = 'close' AND tenant_id = 'z' ORDER BY log_id;
SELECT broken_streams, events > 150 AS some FROM checks.check_union('store');

--
-- Months, and the other backend
--
INSERT INTO events (tenant_id, stream_id, event_type, body, created_at, bucket_month) SELECT 't' || n % 3, checks.stream(100 + n % 7), 'many', '{}', '2024-03-05 00:00+00', '2024-03-01' FROM generate_series(1, 1500) AS n;
SELECT * FROM checks.check_keep();
SELECT DISTINCT method, reason FROM rf_archive_plan('2024-04-01 00:00+00', tenant => 't1');
SELECT method, events > 1500 AS many, streams > 20 AS streams, reason FROM rf_archive_plan('2024-04-01 00:00+00', tenant => '*') WHERE bucket_month = '2024-03-01';
SELECT * FROM rf_archive_move('2024-04-01 00:00+00', stream_id => checks.stream(100), tenant => 't1');
CALL rf_archive_run('2024-04-01 00:00+00', tenant => '*');
SELECT tenant_id, count(*) FILTER (WHERE retention_class = 'cold') AS cold, count(*) FILTER (WHERE archived_at IS NULL) AS open FROM rf_streams WHERE stream_id >= checks.stream(100) GROUP BY 1 ORDER BY 1;
SELECT * FROM checks.leaf('events_archive_2024_03');
SELECT * FROM checks.check_same();
SELECT rf_append(checks.stream(100), 'late', '{}', created_at => '2024-03-06 00:00+00', tenant => 't2');
SELECT stream_seq, retention_class FROM rf_read_stream(checks.stream(100), after_seq => 70, tenant => 't2');
SELECT * FROM checks.check_keep();
SELECT rf_flip_partition('2024-03-01', 'hot');
SELECT * FROM checks.leaf('events_hot_2024_03');
SELECT rf_archive_set_backend('partitioned');
SELECT * FROM checks.check_same();
SELECT * FROM rf_archive_move('2024-04-01 00:00+00', batch_size => 100, tenant => 't0');
SELECT count(*) FROM generate_series(100, 103) AS s, rf_archive_mark(checks.stream(s), tenant => 't1');
INSERT INTO events (tenant_id, stream_id, event_type, body) SELECT t, checks.stream(100), 'cold', '{}' FROM unnest(ARRAY['t1', 't2']) AS t RETURNING tenant_id;
SELECT rf_append(checks.stream(101), 'cold', '{}', allow_archived => true, tenant => 't1');
SELECT tenant_id, retention_class, count(*) FROM events_all WHERE event_type = 'cold' GROUP BY 1, 2 ORDER BY 1;
SELECT * FROM rf_archive_move('infinity', only_archived => true, tenant => 't1');
CALL rf_archive_run('2024-04-01 00:00+00', tenant => '*');
SELECT tenant_id, count(*) FILTER (WHERE retention_class = 'cold') AS cold, count(*) FILTER (WHERE archived_at IS NULL) AS open FROM rf_streams WHERE stream_id >= checks.stream(100) GROUP BY 1 ORDER BY 1;
SELECT last_seq, retention_class FROM rf_archive_reactivate(checks.stream(101), tenant => 't1');
SELECT retention_class, count(*) FROM rf_read_stream(checks.stream(101), tenant => 't1') GROUP BY 1;
SELECT broken_streams, events > 1600 AS some FROM checks.check_union('store');
SELECT rf_redact(checks.stream(101), NULL, 'why', 't2');
SELECT tenant_id, count(*) FILTER (WHERE headers = '{"redacted": true}') AS redacted, count(*) > 50 AS many FROM events WHERE stream_id = checks.stream(101) GROUP BY 1 ORDER BY 1;
SELECT DISTINCT CASE WHEN stream_id IS NULL THEN tenant_id END AS tenant_id, action FROM rf_archive_log WHERE action IN ('flip', 'flips closed', 'switch', 'batch') AND bucket_month IS DISTINCT FROM '2024-01-01' ORDER BY 2, 1;

--
-- A replay of a tenant
--
SELECT count(*) FROM rf_read_all(max_events => NULL, include_archived => true, tenant => 't0');
DO $$
DECLARE
	after bigint := 0;
	last bigint;
	n bigint;
	total bigint := 0;
BEGIN
	LOOP
		SELECT max(global_seq), count(*) INTO last, n FROM store.rf_read_all(after, 37, include_archived => true, tenant => 't0');
		EXIT WHEN n = 0;
		total := total + n;
		after := last;
	END LOOP;
	RAISE NOTICE 'in batches: %', total;
END $$;
SELECT array_agg(stream_seq ORDER BY stream_seq DESC) = array_agg(stream_seq) AS backward, count(*), bool_and(tenant_id = 't0') AS own FROM rf_read_stream(checks.stream(102), backward => true, include_archived => true, tenant => 't0');
SELECT count(*), bool_and(tenant_id = 't0') AS own FROM rf_read_all(event_types => ARRAY['many'], max_events => NULL, include_archived => true, tenant => 't0');

--
-- Policies
--
SELECT rf_policy_set('of t0', '1 year', tenant => 't0'), rf_policy_set('of all', '2 years');
SELECT checks.try($$SELECT rf_policy_set('of t0', '1 year', tenant => 't1')$$), checks.try($$SELECT rf_policy_pause('of t0')$$), checks.try($$SELECT rf_policy_pause('of all', 't0')$$);
SELECT policy FROM rf_policy_due('2030-01-01 00:00+00', 't0') ORDER BY 1;
SELECT policy FROM rf_policy_due('2030-01-01 00:00+00', 't1') ORDER BY 1;
SELECT policy FROM rf_policy_due('2030-01-01 00:00+00') ORDER BY 1;
SELECT policy FROM rf_policy_due('2030-01-01 00:00+00', '*') ORDER BY 1;
SELECT rf_policy_pause('of t0', 't0');
SELECT name, tenant_id, paused_at IS NOT NULL AS paused FROM rf_archive_policies ORDER BY 1;
SELECT rf_policy_remove('of t0', 't0'), rf_policy_remove('of all');

--
-- Tenants with a schema beside those without
--
SELECT checks.try($$SELECT rf_create_tenant('plain')$$), checks.try($$SELECT rf_install('other', 'plain')$$), checks.try($$SELECT rf_drop_tenant('plain', 'plain', true)$$);
SELECT rf_create_tenant('apart');
SELECT rf_append(checks.stream(1), 'e', '{}', tenant => 'apart');
SELECT checks.try($$INSERT INTO events (tenant_id, stream_id, event_type, body) VALUES ('apart', checks.stream(1), 'e', '{}')$$);
SELECT tenant_id, count(*) FROM tenant_apart.events GROUP BY 1;
SELECT tenant, schema, tenancy FROM rf_tenants() WHERE tenant ~ '^(apart|t[0-2])$' ORDER BY 1;
SELECT schema, tenant, cold_streams > 0 AS cold FROM rf_archive_status('*') ORDER BY 1;
SELECT rf_drop_tenant('apart', 'apart', true);
-- From then on the name is free.
INSERT INTO events (tenant_id, stream_id, event_type, body) VALUES ('apart', checks.stream(1), 'e', '{}');

--
-- Rights, and what row security leaves of a list
--
CREATE ROLE regress_rillflow_app;
GRANT USAGE ON SCHEMA store, checks TO regress_rillflow_app;
GRANT INSERT (tenant_id, stream_id, stream_seq, event_type, body, headers, causation_id, correlation_id, event_version, user_id, is_tombstone, created_at, bucket_month) ON events TO regress_rillflow_app;
GRANT USAGE ON SEQUENCE events_global_seq_seq TO regress_rillflow_app;
SET ROLE regress_rillflow_app;
SELECT stream_seq FROM rf_append(checks.stream(40), 'e', '{}', tenant => 'a');
INSERT INTO events (tenant_id, stream_id, event_type, body) VALUES ('a', checks.stream(40), 'raw', '{}');
SELECT checks.try($$SELECT rf_read_all(tenant => 'a')$$), checks.try($$SELECT rf_archive_mark(checks.stream(40), tenant => 'a')$$), (SELECT count(*) FROM rf_tenants());
RESET ROLE;
GRANT SELECT ON rf_streams, events_all, events, events_archive TO regress_rillflow_app;
ALTER TABLE rf_streams ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON rf_streams TO regress_rillflow_app USING (tenant_id = 't1');
ALTER TABLE events ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON events TO regress_rillflow_app USING (tenant_id = 't1');
ALTER TABLE events_archive ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON events_archive TO regress_rillflow_app USING (tenant_id = 't1');
SET ROLE regress_rillflow_app;
SELECT tenant FROM rf_tenants();
SELECT (SELECT count(*) > 100 FROM rf_read_all(include_archived => true, tenant => 't1')) AS own, (SELECT count(*) > 10 FROM rf_read_stream(checks.stream(102), include_archived => true, tenant => 't1')) AS own_stream;
SELECT checks.try($$SELECT rf_read_all(tenant => 't0')$$), checks.try($$SELECT rf_read_stream(checks.stream(102), tenant => 't0')$$), checks.try($$SELECT rf_read_stream(checks.stream(102), tenant => 'nobody')$$);
RESET ROLE;
DROP POLICY own ON rf_streams;
DROP POLICY own ON events;
DROP POLICY own ON events_archive;
ALTER TABLE rf_streams DISABLE ROW LEVEL SECURITY;
ALTER TABLE events DISABLE ROW LEVEL SECURITY;
ALTER TABLE events_archive DISABLE ROW LEVEL SECURITY;

-- What the status tells of a tenant is what there is, also at the edges of months, and where no month is.
SELECT rf_create_partition('hot', m) FROM unnest(ARRAY['2024-05-01', '2024-06-01', '2024-07-01']::date[]) AS m;
SELECT count(*) FROM unnest(ARRAY['t1', 't2']) AS t, generate_series(1, 3) AS s, unnest(ARRAY['2024-05-01 00:00+00', '2024-05-31 23:59:59.999999+00', '2024-06-01 00:00+00', '2024-06-30 23:59:59.999999+00', '2024-08-01 00:00+00']::timestamptz[]) WITH ORDINALITY AS at(at, n), rf_append(checks.stream(200 + s), 'edge', '{}', created_at => at, tenant => t) WHERE s = 3 OR n IN (s, s + 3);
SELECT t.tenant_id, s.hot_events = t.hot AS hot, s.cold_events = t.cold AS cold, s.default_events = t.in_defaults AND t.in_defaults > 0 AS defaults, s.oldest_hot = t.oldest AS oldest
FROM (SELECT tenant_id, count(*) FILTER (WHERE retention_class = 'hot') AS hot, count(*) FILTER (WHERE retention_class = 'cold') AS cold, count(*) FILTER (WHERE tableoid IN ('events_hot_default'::regclass, 'events_cold_default'::regclass)) AS in_defaults, min(created_at) FILTER (WHERE retention_class = 'hot') AS oldest FROM events GROUP BY 1) AS t, rf_archive_status(t.tenant_id) AS s WHERE t.tenant_id IN ('t1', 't2') ORDER BY 1;
-- A month that only one has events in, at its first moment: of the others it has none.
SELECT rf_append(checks.stream(210), 'alone', '{}', created_at => '2024-07-01 00:00+00', tenant => 'alone');
SELECT hot_events, oldest_hot FROM rf_archive_status('alone');
SELECT rf_hold(NULL, 'of one', 'alone');
SELECT checks.try($$SELECT rf_drop_partition('hot', '2024-07-01', force => true)$$);
SELECT rf_release(NULL, 'of one', 'alone');

--
-- Taking up
--
SELECT * FROM checks.check_keep();
SET client_min_messages = error;
DROP EXTENSION rillflow CASCADE;
RESET client_min_messages;
INSERT INTO events (tenant_id, stream_id, stream_seq, event_type, body, headers) VALUES ('a', checks.stream(50), 1, 'unkept', '{}', '{"idempotency_key": "taken up"}'), ('b', checks.stream(50), 1, 'unkept', '{}', '{"idempotency_key": "taken up"}'), ('b', checks.stream(50), 2, 'unkept', '{}', '{}');
CREATE EXTENSION rillflow SCHEMA store;
SELECT checks.try($$SELECT rf_install('store', 'acme')$$);
SELECT rf_install('store');
TABLE rf_stores;
SELECT tenant_id, last_seq FROM rf_streams WHERE stream_id = checks.stream(50) ORDER BY 1;
SELECT tenant_id, stream_seq FROM rf_event_keys WHERE idempotency_key = 'taken up' ORDER BY 1;
SELECT stream_seq FROM rf_append(checks.stream(50), 'e', '{}', tenant => 'b');
SELECT rf_upgrade_store();
SELECT broken_streams, events > 1600 AS some FROM checks.check_union('store');
-- A store of another schema than that of the extension is no default store.
SET client_min_messages = error;
DROP EXTENSION rillflow CASCADE;
RESET client_min_messages;
CREATE EXTENSION rillflow SCHEMA other;
SELECT checks.try($$SELECT other.rf_install('store')$$), checks.try($$SELECT other.rf_install('store', tenancy => 'conjoined')$$);
TABLE other.rf_stores;
