-- Metrics of a conjoined store: the counts of each tenant are his own, whatever his name and whoever else is in the statement.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
\set ECHO all

CREATE FUNCTION checks.stream (n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$ SELECT lpad(n::text, 32, '0')::uuid $$;
SELECT rf_uninstall('store', 'store');
SELECT rf_install('store', tenancy => 'conjoined');
CREATE TABLE checks.tenants (n int GENERATED ALWAYS AS IDENTITY, tenant text);
INSERT INTO checks.tenants (tenant) VALUES (E'a "b"\\\nc\\n",tenant="x'), ('$$; DROP TABLE x; --'), ('quiet');
SELECT quote_literal(tenant) AS one FROM checks.tenants WHERE n = 1 \gset
SELECT quote_literal(tenant) AS two FROM checks.tenants WHERE n = 2 \gset
-- The counters that are not zero, by the tenant's number; without one, those of the store.
CREATE FUNCTION checks.counters (tenant text DEFAULT '*') RETURNS TABLE (n int, name text, labels jsonb, value double precision) LANGUAGE sql AS $$
	SELECT t.n, m.name, m.labels - 'schema' - 'tenant', m.value FROM store.rf_metrics(tenant) AS m LEFT JOIN checks.tenants AS t ON t.tenant = m.labels ->> 'tenant'
	WHERE m.name ~ '_total$|_count$' AND value <> 0 AND (t.n IS NOT NULL OR m.labels ->> 'tenant' = '') ORDER BY 1 NULLS FIRST, 2, 3
$$;
SELECT count(*) FROM checks.counters();
SELECT name, value FROM rf_metrics() WHERE name ~ 'streams' AND name !~ 'total';
SELECT rf_create_partition('hot', m) FROM unnest(ARRAY['2024-01-01', '2024-02-01']::date[]) AS m;
SELECT count(*) FROM checks.tenants AS t, generate_series(1, 3) AS s, generate_series(1, 10) AS d, rf_append(checks.stream(s), 'e', '{}', created_at => make_timestamptz(2024, 1, d, 0, 0, 0, 'UTC'), tenant => t.tenant);

-- Marks, of both in one transaction, some of which are undone.
BEGIN;
SELECT archived_at IS NOT NULL AS marked FROM rf_archive_mark(checks.stream(1), tenant => :one);
SAVEPOINT a;
SELECT archived_at IS NOT NULL AS marked FROM rf_archive_mark(checks.stream(1), tenant => :two);
SELECT archived_at IS NOT NULL AS marked FROM rf_archive_mark(checks.stream(2), tenant => :one);
SAVEPOINT b;
SELECT archived_at IS NOT NULL AS marked FROM rf_archive_mark(checks.stream(3), tenant => :one);
RELEASE b;
SELECT * FROM checks.counters();
ROLLBACK TO a;
SAVEPOINT c;
SELECT archived_at IS NOT NULL AS marked FROM rf_archive_mark(checks.stream(1), tenant => :two);
SAVEPOINT d;
SELECT archived_at IS NOT NULL AS marked FROM rf_archive_mark(checks.stream(2), tenant => :two);
RELEASE d;
RELEASE c;
SELECT * FROM checks.counters();
COMMIT;
SELECT * FROM checks.counters();
-- Redirected rows of both in one statement, beside a third whose stream is not archived.
SELECT rf_archive_set_redirect(true);
INSERT INTO events (tenant_id, stream_id, event_type, body) SELECT t.tenant, checks.stream(s), 'r', '{}' FROM checks.tenants AS t, generate_series(1, 2) AS s, generate_series(1, t.n);
SELECT * FROM checks.counters() WHERE name ~ 'redirected';
BEGIN;
INSERT INTO events (tenant_id, stream_id, event_type, body) VALUES (:one, checks.stream(1), 'r', '{}'), (:two, checks.stream(1), 'r', '{}');
SAVEPOINT a;
INSERT INTO events (tenant_id, stream_id, event_type, body) SELECT t.tenant, checks.stream(1), 'undone', '{}' FROM checks.tenants AS t, generate_series(1, 5);
ROLLBACK TO a;
SELECT stream_seq IS NOT NULL AS appended FROM rf_append(checks.stream(1), 'r', '{}', allow_archived => true, tenant => :two);
COMMIT;
SELECT c.value AS told, count(*) AS redirected, n FROM checks.counters() AS c JOIN checks.tenants AS t USING (n) JOIN events_archive AS e ON e.tenant_id = t.tenant AND migrated_by = 'archive_redirect' WHERE name ~ 'redirected' GROUP BY 1, n ORDER BY n;
SELECT rf_archive_set_redirect(false);
-- Moves of one, of all, and a flip.
SELECT * FROM rf_archive_move('2024-02-01 00:00+00', 10, stream_id => checks.stream(3), tenant => :one);
SELECT * FROM rf_archive_move('2024-02-01 00:00+00', 10, tenant => :two);
SELECT * FROM checks.counters() WHERE name ~ 'move';
CALL rf_archive_run('2024-02-01 00:00+00', tenant => '*');
SELECT rf_flip_partition('2024-02-01', 'cold');
SELECT archived_at IS NULL AS reactivated FROM rf_archive_reactivate(checks.stream(2), tenant => :two);
SELECT * FROM checks.counters();
SELECT c.n, c.value AS told, sum(l.events) AS in_ledger FROM checks.counters() AS c LEFT JOIN checks.tenants AS t USING (n) JOIN rf_archive_log AS l ON l.tenant_id IS NOT DISTINCT FROM t.tenant AND l.action = 'batch' WHERE c.name = 'archive_events_moved_total' AND c.labels ->> 'method' = 'rows' GROUP BY 1, 2 ORDER BY 1 NULLS FIRST;
-- A row for each that counts, and whose: no more for a session that comes again.
SELECT t.n, r.tenant_id = '' AS of_all, count(*) FROM rf_archive_totals AS r LEFT JOIN checks.tenants AS t ON t.tenant = r.tenant_id GROUP BY 1, 2 ORDER BY 1 NULLS FIRST;

-- What is told of one is his alone, of one who has counted nothing, too.
SELECT n, name, min(m.labels ->> 'tenant') = tenant AND max(m.labels ->> 'tenant') = tenant AS own, count(*), max(value) FILTER (WHERE name ~ 'total|streams') AS value FROM checks.tenants AS t, rf_metrics(t.tenant) AS m WHERE m.labels ? 'tenant' GROUP BY n, name, tenant ORDER BY 1, 2;
SELECT name, value FROM rf_metrics('nobody') WHERE name ~ 'total|streams';
SELECT count(*) AS differ FROM checks.tenants AS t, rf_metrics(t.tenant) AS m LEFT JOIN rf_metrics() AS a USING (name, labels) WHERE m.labels ? 'tenant' AND m.value IS DISTINCT FROM a.value AND n < 3;
SELECT checks.try('SELECT rf_metrics(NULL)');
-- What is the store's.
SELECT name FROM rf_metrics() WHERE labels ->> 'tenant' = '' GROUP BY 1 EXCEPT SELECT name FROM checks.tenants AS t, rf_metrics(t.tenant) ORDER BY 1;
SELECT t.n, name, value, count(*) FILTER (WHERE archived_at IS NULL) AS active, count(*) FILTER (WHERE archived_at IS NOT NULL) AS archived FROM rf_metrics() AS m JOIN checks.tenants AS t ON t.tenant = m.labels ->> 'tenant' JOIN rf_streams AS s ON s.tenant_id = t.tenant WHERE name ~ '(hot|cold)_streams' GROUP BY 1, 2, 3 ORDER BY 1, 2;
SELECT line FROM regexp_split_to_table(rf_metrics_text(), E'\n') AS line WHERE line ~ 'marked_total\{' ORDER BY line COLLATE "C";
SELECT line FROM regexp_split_to_table(rf_metrics_text(:one), E'\n') AS line WHERE line ~ 'redirected_total\{';

-- Without its index the table is read whole.
ALTER TABLE rf_archive_totals DROP CONSTRAINT rf_archive_totals_pkey;
SELECT archived_at IS NOT NULL AS marked FROM rf_archive_mark(checks.stream(3), tenant => :two);
SELECT value FROM rf_metrics(:two) WHERE name ~ 'marked';
SELECT count(*) FROM rf_archive_totals WHERE tenant_id = :two;
ALTER TABLE rf_archive_totals ADD CONSTRAINT rf_archive_totals_pkey PRIMARY KEY (tenant_id, slot);

-- Where there are many streams they are not counted, but told of the store.
INSERT INTO events (tenant_id, stream_id, event_type, body) SELECT 'many', checks.stream(n), 'e', '{}' FROM generate_series(1, 60000) AS n;
ANALYZE rf_streams;
SELECT pg_relation_size('rf_streams') > 4 * 1024 * 1024 AS large;
SELECT name, labels - 'schema' AS labels, value BETWEEN 59000 AND 61000 AS about FROM rf_metrics() WHERE name ~ '(hot|cold)_streams';
SELECT count(*) FROM rf_metrics(:one) WHERE name ~ '(hot|cold)_streams';

-- A policy of one has no backlog of its own: months are those of all.
SELECT rf_policy_set('of all', '1 year'), rf_policy_set('of one', '1 year', tenant => :one);
SELECT labels ->> 'policy' AS policy, count(*) FILTER (WHERE name ~ 'armed') AS states, count(*) FILTER (WHERE name ~ 'backlog') AS backlogs FROM rf_metrics() WHERE labels ? 'policy' GROUP BY 1 ORDER BY 1;
