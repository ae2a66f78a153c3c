-- Names, tenants, reasons and contents with characters that mean something elsewhere: stored as they are, or refused.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
\set ECHO all

CREATE TABLE checks.words (n int GENERATED ALWAYS AS IDENTITY, word text);
INSERT INTO checks.words (word) VALUES ('''; DROP TABLE store.events; --'), ('"; DROP TABLE store.events; --'), ('$$; DROP TABLE store.events; $$'), ('$1 %s %I %L %% %n'), (E'line\none'), (E'carriage\rreturn'), (E'tab\tbed'), (E'back\\slash\\'),
	('{events} {} {nonsense} {columns'), ('Ünïcödé 日本 🐘'), (repeat('x', 63)), (repeat('x', 64)), (repeat('ü', 31) || 'x'), (repeat('ü', 32)), (' leading and trailing '), ('store.events'), ('pg_catalog'), ('null'), ('NULL'), ('--'), ('/* */'), (''''''), ('""');
CREATE FUNCTION checks.shown (text) RETURNS text LANGUAGE sql AS $$ SELECT CASE WHEN octet_length($1) > 40 OR octet_length($1) <> length($1) THEN length($1) || ' characters, ' || octet_length($1) || ' bytes' ELSE replace(replace(replace($1, E'\r', '\r'), E'\n', '\n'), E'\t', '\t') END $$;
CREATE TABLE checks.objects AS SELECT oid FROM pg_class UNION ALL SELECT oid FROM pg_proc UNION ALL SELECT oid FROM pg_namespace UNION ALL SELECT oid FROM pg_roles;

-- Contents: stored literally, in both tiers, and found again.
SELECT count(*) FROM checks.words, rf_append(lpad(n::text, 32, '0')::uuid, word, to_jsonb(word), jsonb_build_object(word, word, 'idempotency_key', word), user_id => word, created_at => '2024-01-01 00:00+00');
SELECT count(*) FROM checks.words, rf_append_batch(lpad(n::text, 32, '0')::uuid, jsonb_build_array(jsonb_build_object('type', word, 'body', word, 'user_id', word, 'created_at', '2024-01-02T00:00Z'))) WHERE word <> '';
SELECT count(*) FROM checks.words, rf_archive_mark(lpad(n::text, 32, '0')::uuid, word, word);
CREATE FUNCTION checks.literal () RETURNS TABLE (words bigint, events bigint, streams bigint, ledger bigint, keys bigint) LANGUAGE sql AS $$
	SELECT (SELECT count(*) FROM checks.words),
		(SELECT count(*) FROM checks.words, store.rf_read_stream(lpad(n::text, 32, '0')::uuid, include_archived => true) AS e WHERE e.event_type = word AND e.body #>> '{}' = word AND e.user_id = word),
		(SELECT count(*) FROM checks.words JOIN store.rf_streams ON stream_id = lpad(n::text, 32, '0')::uuid WHERE archived_by = word AND archive_reason = word),
		(SELECT count(*) FROM checks.words JOIN store.rf_archive_log ON stream_id = lpad(n::text, 32, '0')::uuid WHERE action = 'mark' AND detail = word),
		(SELECT count(*) FROM checks.words JOIN store.rf_event_keys ON idempotency_key = word AND stream_id = lpad(n::text, 32, '0')::uuid)
$$;
SELECT * FROM checks.literal();
SELECT * FROM check_keep();
SELECT events_moved FROM rf_archive_move('2024-01-02 00:00+00');
SELECT * FROM check_same();
SELECT * FROM checks.literal();
SELECT sum(events) FROM (SELECT count(*) AS events FROM checks.words, rf_read_all(0, NULL, ARRAY[word], true) GROUP BY n) AS e;
SELECT rf_archive_set_redirect(true);
INSERT INTO events (stream_id, event_type, body, user_id) SELECT lpad(n::text, 32, '0')::uuid, word, to_jsonb(word), word FROM checks.words;
SELECT * FROM checks.literal();
SELECT events, broken_streams FROM check_union('store');

-- Consumers: any text of 1 to 63 bytes, told as it is.
SELECT count(*) FROM checks.words, rf_consumer_advance(word, 0) WHERE octet_length(word) < 64;
SELECT count(*) FROM checks.words JOIN rf_consumers ON name = word;
SELECT held_back_by IN (SELECT word FROM checks.words) AS literally FROM rf_archive_status();
SELECT count(*) FROM checks.words, rf_consumer_remove(word) WHERE octet_length(word) < 64;
SELECT count(*) FROM rf_consumers;

-- Policies: likewise. Holds and redactions: any reason.
SET client_min_messages = error;
SELECT count(*) FROM checks.words, rf_policy_set(word, '1 year') WHERE octet_length(word) < 64;
SELECT count(*), count(checks.try(format('SELECT rf_policy_pause(%L)', name))) FROM checks.words JOIN rf_archive_policies ON name = word;
SELECT count(*) FROM checks.words JOIN rf_policy_due('2100-01-01 00:00+00') ON policy = word;
SELECT count(*) FROM checks.words, rf_policy_remove(word) WHERE octet_length(word) < 64;
SELECT DISTINCT checks.try(format('SELECT rf_policy_set(%L, ''1 year'')', word)) FROM checks.words WHERE octet_length(word) > 63;
RESET client_min_messages;
SELECT count(*) FROM checks.words, rf_hold(lpad(n::text, 32, '0')::uuid, word) AS a, rf_hold(NULL, word) AS b;
SELECT count(*) FROM checks.words JOIN rf_holds ON reason = word AND stream_id = lpad(n::text, 32, '0')::uuid;
SELECT count(*) FROM checks.words, rf_release(lpad(n::text, 32, '0')::uuid, word) AS a, rf_release(NULL, word) AS b;
SELECT count(*) FROM rf_holds;
SELECT count(*) FROM checks.words, rf_redact(lpad(n::text, 32, '0')::uuid, 1, word);
SELECT action, count(*) FROM checks.words JOIN rf_archive_log ON detail IN (word, 'event 1: ' || word) AND action ~ 'hold|release|redact' GROUP BY 1 ORDER BY 1;
SELECT count(*) FROM rf_archive_policies;

-- Tenants: any text of 1 to 63 bytes but the star; looked up literally.
CREATE TABLE checks.outcomes (n int, outcome text);
CREATE SCHEMA other;
CREATE FUNCTION checks.tenant (word text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	n int;
	stored text;
BEGIN
	PERFORM store.rf_install('other', word);
	SELECT tenant INTO stored FROM store.rf_stores WHERE schema = 'other';
	SELECT stream_seq INTO n FROM store.rf_append(gen_random_uuid(), 'x', '{}', tenant => word);
	PERFORM store.rf_archive_move('infinity', tenant => word);
	RAISE EXCEPTION USING errcode = 'TT001', message = CASE WHEN stored = word AND n = 1 AND EXISTS (SELECT FROM other.events_archive) THEN 'literally' ELSE 'differs' END;
EXCEPTION
	WHEN SQLSTATE 'TT001' THEN RETURN SQLERRM;
	WHEN OTHERS THEN RETURN SQLSTATE;
END $$;
SELECT checks.tenant(word) AS outcome, count(*), string_agg(checks.shown(word), ' ' ORDER BY n) FROM checks.words GROUP BY 1 ORDER BY 1;
SELECT checks.tenant(''), checks.tenant('*');
SELECT outcome, count(*), string_agg(checks.shown(word), ' ' ORDER BY n) FROM checks.words, LATERAL (SELECT regexp_replace(checks.try(format('SELECT rf_append(gen_random_uuid(), ''x'', ''{}'', tenant => %L)', word)), '"[^"].*"|"""?"?.*"', '…') AS outcome) AS t GROUP BY 1;

-- Schemas: a store in a schema of any name works whole, its own statements quoted.
CREATE FUNCTION checks.schema (word text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	u record;
	a constant uuid := lpad('a', 32, '0')::uuid;
BEGIN
	EXECUTE format('CREATE SCHEMA %I', word);
	PERFORM store.rf_install(word::name, 'odd');
	PERFORM store.rf_append(a, 'x', '{}', created_at => '2024-01-01 00:00+00', tenant => 'odd');
	EXECUTE format('INSERT INTO %I.events (stream_id, event_type, body) VALUES (%L, %L, %L)', word, a, 'y', '{}');
	PERFORM store.rf_create_partition('cold', '2024-01-01', tenant => 'odd'), store.rf_create_partition('hot', '2024-01-01', tenant => 'odd');
	PERFORM store.rf_archive_move('infinity', tenant => 'odd');
	PERFORM store.rf_archive_mark(a, tenant => 'odd');
	PERFORM store.rf_archive_set_redirect(true, 'odd'), store.rf_archive_set_notify(true, 'odd');
	EXECUTE format('INSERT INTO %I.events (stream_id, event_type, body) VALUES (%L, %L, %L)', word, a, 'z', '{}');
	PERFORM store.rf_archive_reactivate(a, tenant => 'odd');
	PERFORM store.rf_archive_plan('infinity', tenant => 'odd'), store.rf_archive_candidates('infinity', tenant => 'odd'), store.rf_archive_status('odd');
	PERFORM store.rf_install(word::name);
	SELECT * INTO u FROM checks.check_union(word::name);
	PERFORM store.rf_uninstall(word::name, word::name, true);
	RAISE EXCEPTION USING errcode = 'TT001', message = format('%s events, %s broken', u.events, u.broken_streams);
EXCEPTION
	WHEN SQLSTATE 'TT001' THEN RETURN SQLERRM;
	WHEN OTHERS THEN RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
SET client_min_messages = error;
-- (one statement each, for all of it in one transaction would need too many locks)
\set ECHO none
SELECT format('INSERT INTO checks.outcomes SELECT %s, checks.schema(%L)', n, word) FROM checks.words WHERE word <> 'pg_catalog' ORDER BY n
\gexec
\set ECHO all
RESET client_min_messages;
SELECT outcome, count(*), string_agg(checks.shown(word), ' ' ORDER BY n) FROM checks.outcomes JOIN checks.words USING (n) GROUP BY 1 ORDER BY 1;

-- Other arguments that are names: refused, for there is nothing of that name.
SELECT DISTINCT left(outcome, 5) AS state FROM checks.words, LATERAL (VALUES
	(checks.try(format('SELECT rf_create_partition(%L, ''2031-01-01'')', word))), (checks.try(format('SELECT rf_create_partition(''hot'', ''2031-01-01'', %L)', word))),
	(checks.try(format('SELECT rf_archive_set_backend(%L)', word))), (checks.try(format('SELECT rf_install(''other'', NULL, %L)', word))), (checks.try(format('SELECT rf_uninstall(%1$L, %1$L)', word || ' '))),
	(checks.try(format('SELECT rf_install(%L)', word || 'x')))) AS t(outcome) ORDER BY 1;

-- No object has come or gone but the months that were asked for.
SELECT c.relname FROM pg_class AS c LEFT JOIN checks.objects AS o USING (oid) WHERE o.oid IS NULL AND relnamespace NOT IN ('checks'::regnamespace, 'pg_toast'::regnamespace) ORDER BY 1;
SELECT nspname FROM pg_namespace AS c LEFT JOIN checks.objects AS o USING (oid) WHERE o.oid IS NULL ORDER BY 1;
SELECT rolname FROM pg_roles AS c LEFT JOIN checks.objects AS o USING (oid) WHERE o.oid IS NULL ORDER BY 1;
SELECT events, broken_streams FROM check_union('store');
SELECT * FROM rf_stores;
