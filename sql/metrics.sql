-- Metrics: exact numbers after known actions, in rows and in text; rights; stores that can't be read.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
\set ECHO all

CREATE FUNCTION checks.id (n int) RETURNS uuid IMMUTABLE LANGUAGE sql AS $$ SELECT lpad(n::text, 32, '0')::uuid $$;
-- The counters that are not zero, without the labels that all of a store have.
CREATE FUNCTION checks.counters (tenant text DEFAULT NULL) RETURNS TABLE (name text, labels jsonb, value double precision) LANGUAGE sql AS $$
	SELECT name, labels - 'schema' - 'tenant', value FROM rf_metrics(tenant)
	WHERE name ~ '_total$|_count$' AND value <> 0
$$;
CREATE FUNCTION checks.gauge (name text, tenant text DEFAULT NULL) RETURNS double precision LANGUAGE sql AS $$
	SELECT value FROM rf_metrics(tenant) AS m WHERE m.name = 'archive_' || gauge.name
$$;

--
-- A store in which nothing was done
--
SELECT name, type, labels, value FROM rf_metrics() WHERE name !~ 'bytes|scrape|bucket';
SELECT name, type, help FROM (SELECT DISTINCT ON (regexp_replace(name, '_(bucket|sum)$', '_count')) regexp_replace(name, '_(bucket|sum|count)$', '') AS name, type, help FROM rf_metrics()) AS f ORDER BY name;
SELECT value BETWEEN 0 AND 60 FROM rf_metrics() WHERE name = 'archive_scrape_duration_seconds';
SELECT count(*) AS rows FROM rf_archive_totals;

--
-- Known actions
--
SELECT rf_create_partition(tier, month) FROM unnest(ARRAY['hot', 'cold']) AS tier, unnest(ARRAY[date '2024-01-01', date '2024-02-01', date '2024-03-01']) AS month;
SELECT count(*) FROM generate_series(1, 3) AS s, generate_series(1, 3) AS m, generate_series(1, 10) AS n,
	rf_append(checks.id(s), 'e', '{}', created_at => make_timestamptz(2024, m, n, 0, 0, 0, 'UTC'));
SELECT name FROM checks.counters();
-- Marks, in a transaction that commits, and in ones that do not.
BEGIN;
SELECT archived_at IS NOT NULL FROM rf_archive_mark(checks.id(1));
SAVEPOINT a;
SELECT archived_at IS NOT NULL FROM rf_archive_mark(checks.id(2));
SAVEPOINT b;
SELECT archived_at IS NOT NULL FROM rf_archive_mark(checks.id(3));
RELEASE b;
-- It sees its own,
SELECT * FROM checks.counters();
ROLLBACK TO a;
SELECT * FROM checks.counters();
SAVEPOINT c;
SELECT archived_at IS NOT NULL FROM rf_archive_mark(checks.id(4));
RELEASE c;
COMMIT;
SELECT * FROM checks.counters();
BEGIN;
SELECT archived_at IS NOT NULL FROM rf_archive_mark(checks.id(5));
ROLLBACK;
SELECT * FROM checks.counters();
-- at any isolation level.
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT count(*) FROM rf_archive_totals;
SELECT archived_at IS NOT NULL FROM rf_archive_mark(checks.id(4));
COMMIT;
SELECT * FROM checks.counters();
-- Reactivations.
SELECT archived_at FROM rf_archive_reactivate(checks.id(4));
SELECT * FROM checks.counters();
-- Redirects: raw, of several streams in one statement, by COPY, by functions; not what goes hot, fails or is undone.
SELECT rf_archive_set_redirect(true);
INSERT INTO events (stream_id, event_type, body) VALUES (checks.id(1), 'r', '{}'), (checks.id(2), 'hot', '{}'), (checks.id(1), 'r', '{}');
INSERT INTO events (stream_id, event_type, body) VALUES (checks.id(2), 'hot', '{}');
SELECT checks.try($$INSERT INTO events (stream_id, event_type, body) VALUES (checks.id(1), 'r', '{}'), (checks.id(1), NULL, '{}')$$);
COPY events (stream_id, event_type, body) FROM stdin;
00000000-0000-0000-0000-000000000001	r	{}
00000000-0000-0000-0000-000000000001	r	{}
\.
SELECT stream_seq FROM rf_append(checks.id(1), 'r', '{}', allow_archived => true);
SELECT stream_seq FROM rf_append_batch(checks.id(1), '[{"type":"r","body":{}},{"type":"r","body":{}}]', allow_archived => true);
SELECT stream_seq FROM rf_append(checks.id(1), 'r', '{}', '{"idempotency_key":"k"}', allow_archived => true);
SELECT stream_seq FROM rf_append(checks.id(1), 'r', '{}', '{"idempotency_key":"k"}', allow_archived => true);
SELECT checks.gauge('events_redirected_total') AS told, count(*) AS redirected FROM events_archive WHERE migrated_by = 'archive_redirect';
SELECT checks.gauge('redirect_enabled');
SELECT rf_archive_set_redirect(false);
SELECT checks.gauge('redirect_enabled');
-- Moves: 30 events of January by rows, in batches of 10, and a dry run.
SELECT * FROM rf_archive_move('2024-02-01', 10, dry_run => true);
SELECT * FROM rf_archive_move('2024-02-01', 10, stream_id => checks.id(1));
SELECT * FROM checks.counters();
-- A flip by hand counts as the statistics say.
SELECT rf_flip_partition('2024-03-01', 'cold');
SELECT rf_flip_partition('2024-03-01', 'hot');
SELECT pg_stat_force_next_flush();
SELECT checks.gauge('move_batches_total') AS batches, checks.gauge('flip_duration_seconds_count') AS flips;
SELECT events_moved, events_flipped - events_flipped_excess = (SELECT events FROM rf_archive_log WHERE action = 'flip') AS by_estimate FROM rf_archive_totals;

-- A histogram has as many as there were batches, each in the right bucket.
SELECT labels ->> 'le' AS le, value = (SELECT count(*) FROM rf_archive_log WHERE action = 'batch' AND extract(epoch FROM duration)::float8 <= CASE labels ->> 'le' WHEN '+Inf' THEN 'infinity' ELSE (labels ->> 'le') END::float8) AS exact
	FROM rf_metrics(NULL) WHERE name = 'archive_move_duration_seconds_bucket';
SELECT round(value::numeric, 6) = (SELECT extract(epoch FROM sum(duration)) FROM rf_archive_log WHERE action = 'batch') AS exact FROM rf_metrics(NULL) WHERE name = 'archive_move_duration_seconds_sum';
SELECT DISTINCT name, value >= lag(value) OVER (PARTITION BY name ORDER BY replace(labels ->> 'le', '+Inf', 'infinity')::float8) IS NOT FALSE AS rises FROM rf_metrics(NULL) WHERE name ~ 'bucket' ORDER BY 1, 2;

--
-- Estimates of flips, and exact counts
--
SET client_min_messages = error;
SELECT rf_create_tenant('flips') \gset
RESET client_min_messages;
CREATE VIEW checks.flips AS SELECT (SELECT sum(events_flipped) FROM tenant_flips.rf_archive_totals) AS told, (SELECT sum(events_flipped_excess) FROM tenant_flips.rf_archive_totals) AS excess,
	(SELECT string_agg(action || ' ' || events, ', ' ORDER BY log_id) FROM tenant_flips.rf_archive_log WHERE action ~ '^flip' AND events IS NOT NULL) AS ledger;
-- Months of 1000 events each, which are believed to have other numbers: nothing but reltuples tells of them.
SELECT rf_create_partition('hot', month, tenant => 'flips') FROM unnest(ARRAY['2024-01-01', '2024-02-01', '2024-03-01', '2024-04-01']::date[]) AS month;
SELECT format('ALTER TABLE tenant_flips.events_hot_2024_0%s SET (autovacuum_enabled = off)', n) FROM generate_series(1, 4) AS n
\gexec
INSERT INTO tenant_flips.events (stream_id, event_type, body, created_at, bucket_month) SELECT checks.id(n), 'e', '{}', make_timestamptz(2024, m, 2, 0, 0, 0, 'UTC'), make_date(2024, m, 1) FROM generate_series(1, 4) AS m, generate_series(1, 1000) AS n;
SELECT pg_stat_force_next_flush();
SELECT count(pg_stat_reset_single_table_counters(oid)) FROM pg_class WHERE relnamespace = 'tenant_flips'::regnamespace AND relname ~ '^events_hot_2024_\d\d$';
UPDATE pg_class SET reltuples = b FROM (VALUES ('events_hot_2024_01', 1000), ('events_hot_2024_02', 2500), ('events_hot_2024_03', 800), ('events_hot_2024_04', 1100)) AS t(n, b) WHERE relnamespace = 'tenant_flips'::regnamespace AND relname = n;
CALL rf_archive_run('2024-02-01 00:00+00', tenant => 'flips');
SELECT * FROM checks.flips;
CALL rf_archive_run('2024-03-01 00:00+00', tenant => 'flips');
SELECT * FROM checks.flips;
CALL rf_archive_run('2024-04-01 00:00+00', tenant => 'flips');
SELECT * FROM checks.flips;
CALL rf_archive_run('2024-05-01 00:00+00', tenant => 'flips');
SELECT * FROM checks.flips;
SELECT value FROM rf_metrics('flips') WHERE name = 'archive_events_moved_total' AND labels ->> 'method' = 'flip';

-- Who can't commit leaves the estimate, and the next run counts: what has flipped, and not what has come since.
SELECT rf_create_partition('hot', month, tenant => 'flips') FROM unnest(ARRAY['2024-05-01', '2024-06-01', '2024-07-01']::date[]) AS month;
SELECT format('ALTER TABLE tenant_flips.events_hot_2024_0%s SET (autovacuum_enabled = off)', n) FROM generate_series(5, 7) AS n
\gexec
INSERT INTO tenant_flips.events (stream_id, event_type, body, created_at, bucket_month) SELECT checks.id(n), 'e', '{}', make_timestamptz(2024, m, 2, 0, 0, 0, 'UTC'), make_date(2024, m, 1) FROM generate_series(5, 7) AS m, generate_series(1, 1000) AS n;
SELECT pg_stat_force_next_flush();
SELECT count(pg_stat_reset_single_table_counters(oid)) FROM pg_class WHERE relnamespace = 'tenant_flips'::regnamespace AND relname ~ '^events_hot_2024_\d\d$';
UPDATE pg_class SET reltuples = b FROM (VALUES ('events_hot_2024_05', 1300), ('events_hot_2024_06', 1600), ('events_hot_2024_07', 2900)) AS t(n, b) WHERE relnamespace = 'tenant_flips'::regnamespace AND relname = n;
SELECT * FROM rf_archive_move('2024-06-01 00:00+00', tenant => 'flips');
SELECT rf_flip_partition('2024-06-01', 'cold', tenant => 'flips');
SELECT rf_flip_partition('2024-07-01', 'cold', tenant => 'flips');
SELECT rf_flip_partition('2024-07-01', 'hot', tenant => 'flips');
SELECT archived_at IS NOT NULL AS marked FROM rf_archive_mark(checks.id(1), tenant => 'flips');
SELECT rf_archive_set_redirect(true, tenant => 'flips');
INSERT INTO tenant_flips.events (stream_id, event_type, body, created_at, bucket_month) SELECT checks.id(1), 'redirected', '{}', '2024-05-03', '2024-05-01' FROM generate_series(1, 3);
SELECT rf_create_partition('hot', '2024-06-01', tenant => 'flips');
INSERT INTO tenant_flips.events (stream_id, event_type, body, created_at, bucket_month) VALUES (checks.id(2), 'late', '{}', '2024-06-03', '2024-06-01');
SELECT rf_flip_partition('2024-06-01', 'cold', tenant => 'flips');
SELECT * FROM checks.flips;
CALL rf_archive_run('2024-04-01 00:00+00', stream_id => checks.id(1), tenant => 'flips');
SELECT excess FROM checks.flips;
CALL rf_archive_run('2024-04-01 00:00+00', only_archived => true, tenant => 'flips');
SELECT * FROM checks.flips;
SELECT bucket_month, events, estimated, detail FROM tenant_flips.rf_archive_log WHERE action = 'flip counted' AND bucket_month > '2024-04-01' ORDER BY log_id;
-- Once, also when the ledger has been pruned, which keeps flips whose streams are still to be closed.
CALL rf_archive_run('2024-04-01 00:00+00', only_archived => true, tenant => 'flips');
SELECT rf_prune_log('infinity', tenant => 'flips') > 0 AS folded;
CALL rf_archive_run('2024-04-01 00:00+00', only_archived => true, tenant => 'flips');
SELECT told, excess FROM checks.flips;
SELECT count(*) FROM tenant_flips.rf_archive_log WHERE action = 'flip' AND bucket_month >= '2024-05-01';
SELECT array_agg(DISTINCT bucket_month) AS counted FROM tenant_flips.rf_archive_log WHERE action = 'flip counted' AND detail <> 'pruned';

--
-- Pruning the ledger changes no counter
--
CREATE TABLE checks.before AS SELECT * FROM rf_metrics() WHERE type <> 'gauge';
SELECT rf_prune_log('infinity') > 0 AS folded;
SELECT count(*) > 60 AS some, count(*) FILTER (WHERE b.value IS DISTINCT FROM m.value) AS changed FROM checks.before AS b FULL JOIN (SELECT * FROM rf_metrics() WHERE type <> 'gauge') AS m USING (name, labels);

--
-- Months, consumers, policies
--
SELECT checks.gauge('months_ahead');
SELECT count(rf_create_partition('hot', (date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => m))::date)) FROM generate_series(2, 3) AS m;
SELECT checks.gauge('months_ahead');
SELECT rf_drop_partition('hot', (date_trunc('month', now() AT TIME ZONE 'UTC') + interval '2 months')::date);
SELECT checks.gauge('months_ahead');
SELECT checks.gauge('default_events');
INSERT INTO events (stream_id, event_type, body, created_at, bucket_month) VALUES (checks.id(9), 'e', '{}', '2030-01-01 00:00+00', '2030-01-01');
SELECT checks.gauge('default_events'), checks.gauge('hot_streams') = (SELECT hot_streams FROM rf_archive_status()) AS streams;
SELECT to_timestamp(value) FROM rf_metrics(NULL) WHERE name = 'archive_oldest_hot_timestamp_seconds';
SELECT rf_consumer_advance('far', (SELECT max(global_seq) FROM events)), rf_consumer_advance(E'behind "\\\n', 1), rf_consumer_advance('behind, too', 1);
SELECT labels - 'schema' AS labels, name, CASE WHEN name ~ 'timestamp' THEN value - extract(epoch FROM now()) BETWEEN -60 AND 60 ELSE CASE WHEN name ~ 'lag' THEN value = (SELECT last_value FROM events_global_seq_seq) - CASE labels ->> 'consumer' WHEN 'far' THEN (SELECT max(global_seq) FROM events) ELSE 1 END ELSE value::int::boolean END END AS value
	FROM rf_metrics(NULL) WHERE labels ? 'consumer' ORDER BY name, labels;
SET client_min_messages = warning;
SELECT rf_policy_set('old', '1 year'), rf_policy_set('marked', '1 year', only_archived => true), rf_policy_set(E'odd "\\\n', '1000 years');
SELECT rf_policy_pause('marked');
DELETE FROM rf_armed WHERE policy = 'marked';
ANALYZE;
SELECT name, labels - 'schema' - 'tenant' AS labels, value FROM rf_metrics(NULL) WHERE labels ? 'policy' AND NOT labels ? 'reason' AND name !~ 'age' ORDER BY 2, 1;
SELECT DISTINCT labels ->> 'policy' AS policy, value = (SELECT value FROM rf_metrics(NULL) WHERE name = 'archive_policy_oldest_hot_age_seconds' AND labels ->> 'policy' = 'old') OR value > 0 AS age FROM rf_metrics(NULL) WHERE name ~ 'age' ORDER BY 1;
INSERT INTO rf_archive_runs (policy, started_at, finished_at, held_back_by, error, sqlstate) VALUES
	('old', '2024-01-01 00:00+00', '2024-01-01 00:01+00', NULL, NULL, NULL), ('old', '2024-01-02 00:00+00', '2024-01-02 00:02+00', 'replica "a b"', 'e', 'XX000'), ('marked', '2024-01-03 00:00+00', NULL, 'locks', NULL, NULL);
SELECT name, labels ->> 'policy' AS policy, labels ->> 'reason' AS reason, CASE WHEN name ~ 'timestamp' THEN to_timestamp(value)::text ELSE value::text END AS value
	FROM rf_metrics(NULL) WHERE labels ? 'policy' AND (labels ? 'reason' AND value > 0 OR name ~ 'timestamp|running') ORDER BY 2, 1, 3;

--
-- The text has the same samples, each family once, with odd names escaped
--
SELECT rf_create_tenant(E'it''s "odd"\n\\n') IS NOT NULL AS made;
RESET client_min_messages;
CREATE TABLE checks.lines AS SELECT n, line FROM regexp_split_to_table(rf_metrics_text(), E'\n') WITH ORDINALITY AS t(line, n);
SELECT line FROM checks.lines WHERE line ~ 'marked_total' ORDER BY n;
SELECT line FROM checks.lines WHERE line ~ 'odd' AND line ~ 'policy_paused|holds_back' OR line ~ 'consumer_holds_back' ORDER BY n;
-- It is taken apart again, by what the format says of escapes.
CREATE VIEW checks.parsed AS SELECT (regexp_match(line, '^[a-z_]+'))[1] AS name, coalesce((SELECT jsonb_object_agg(l[1], replace(replace(replace(replace(l[2], '\\', E'\x01'), '\n', E'\n'), '\"', '"'), E'\x01', '\'))
	FROM regexp_matches(line, '[{,]([a-z]+)="((?:[^"\\]|\\.)*)"', 'g') AS l), '{}') AS labels, (regexp_match(line, '[^ ]+$'))[1]::float8 AS value FROM checks.lines WHERE line !~ '^#' AND line <> '';
SELECT count(*) > 150 AS some, count(*) FILTER (WHERE p.value IS DISTINCT FROM m.value) AS differ FROM checks.parsed AS p FULL JOIN rf_metrics() AS m USING (name, labels) WHERE name !~ 'scrape|age|bytes';
SELECT count(*) FILTER (WHERE line ~ '^# HELP') AS helps, count(DISTINCT line) FILTER (WHERE line ~ '^# HELP') AS different, count(*) FILTER (WHERE line ~ '^# TYPE') AS types, count(*) FILTER (WHERE line = '') AS empty, count(*) FILTER (WHERE line !~ '^(# (HELP|TYPE) archive_[a-z_]+ .+|archive_[a-z_]+({([a-z]+="([^"\\\n]|\\["n\\])*",?)+})? [0-9.e+-]+|)$') AS malformed FROM checks.lines;
SELECT count(*) AS families_apart FROM (SELECT family, lag(family) OVER w AS before, row_number() OVER (PARTITION BY family ORDER BY n) AS first FROM (SELECT n, regexp_replace((regexp_match(line, 'archive_[a-z_]+'))[1], '_(bucket|sum|count)$', '') AS family FROM checks.lines WHERE line <> '') AS f WINDOW w AS (ORDER BY n)) AS f WHERE family <> before AND first > 1;

--
-- Rights
--
CREATE ROLE regress_rillflow_monitor;
GRANT USAGE ON SCHEMA store, checks TO regress_rillflow_monitor;
SET ROLE regress_rillflow_monitor;
SELECT name, value FROM rf_metrics() WHERE name !~ 'scrape';
SELECT checks.try('SELECT rf_metrics(NULL)'), checks.try($$SELECT rf_metrics_text('flips')$$), checks.try($$SELECT rf_metrics_text('nobody')$$);
RESET ROLE;
GRANT SELECT ON rf_archive_totals TO regress_rillflow_monitor;
SET ROLE regress_rillflow_monitor;
SELECT value FROM rf_metrics() WHERE name ~ 'stores' ORDER BY name;
-- One that sees all metrics of the store, and no row of any other table of it.
SELECT count(DISTINCT name) FROM rf_metrics(NULL);
SELECT relname FROM pg_class WHERE relnamespace = 'store'::regnamespace AND relkind IN ('r', 'p', 'S') AND has_any_column_privilege(oid, 'SELECT') ORDER BY 1;
SELECT checks.try(statement) FROM unnest(ARRAY['SELECT FROM events', 'SELECT FROM events_all', 'SELECT FROM events_archive', 'SELECT FROM rf_streams', 'SELECT FROM rf_archive_log', 'SELECT FROM rf_read_all()', 'SELECT FROM rf_archive_status()']) AS statement;
RESET ROLE;

--
-- Stores that can't be read
--
SET client_min_messages = error;
SELECT rf_create_tenant(t) IS NOT NULL AS made FROM unnest(ARRAY['half', 'gone', 'altered', 'viewless']) AS t;
SELECT value FROM rf_metrics() WHERE name ~ 'stores' ORDER BY name;
DROP TABLE tenant_half.rf_archive_runs;
DROP SCHEMA tenant_gone CASCADE;
ALTER TABLE tenant_altered.rf_archive_totals ALTER COLUMN streams_marked TYPE text;
DROP VIEW tenant_viewless.events_all;
RESET client_min_messages;
SELECT value FROM rf_metrics() WHERE name ~ 'stores' ORDER BY name;
SELECT DISTINCT labels ->> 'schema' AS schema FROM rf_metrics() ORDER BY 1 NULLS FIRST;
SELECT checks.try($$SELECT rf_metrics('altered')$$), checks.try($$SELECT rf_metrics('half')$$);
-- What is counted can't be written there, and so the action fails, when it commits.
SELECT archived_at IS NOT NULL AS marked FROM rf_archive_mark(checks.id(1), tenant => 'altered');
\echo :SQLSTATE
SELECT count(*) FROM tenant_altered.rf_streams;
-- In a transaction that only reads.
BEGIN READ ONLY;
SELECT count(*) > 0 FROM rf_metrics();
COMMIT;
-- The totals go along with the store.
SELECT events, broken_streams FROM check_union('store');
-- No other test expects these tenants.
SET client_min_messages = error;
SELECT format('DROP SCHEMA %I CASCADE', nspname) FROM pg_namespace WHERE nspname LIKE 'tenant\_%' ORDER BY 1
\gexec
RESET client_min_messages;
