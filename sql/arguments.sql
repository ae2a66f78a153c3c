-- Odd arguments: each is either used as it stands or refused with an SQLSTATE that says what is wrong, and changes nothing.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
\set ECHO all

SELECT count(*) FROM generate_series(1, 3) AS s, generate_series(1, 3) AS m,
	rf_append(lpad(s::text, 32, '0')::uuid, 'e', '{}', created_at => make_timestamptz(2024, m, s, 0, 0, 0, 'UTC'));
SELECT rf_create_partition('hot', '2024-01-01');
SELECT events_moved FROM rf_archive_move('2024-01-03 00:00+00');
SELECT 1 AS marked FROM rf_archive_mark(lpad('3', 32, '0')::uuid);
SELECT * FROM check_keep();
CREATE TABLE checks.before AS SELECT (SELECT count(*) FROM rf_archive_log) AS ledger, (SELECT count(*) FROM rf_streams) AS streams;

-- Every call is tried with each of the arguments, and undone; `no error` is one of the answers. @name stands for a list of them.
CREATE TABLE checks.lists (name text PRIMARY KEY, list text[]);
INSERT INTO checks.lists VALUES
	('@times', ARRAY[$$NULL$$, $$'infinity'$$, $$'-infinity'$$, $$'4714-11-24 00:00+00 BC'$$, $$'4714-12-01 00:00+00 BC'$$, $$'294276-12-31 23:59:59.999999+00'$$,
		$$'epoch'$$, $$'0001-01-01 00:00+00'$$, $$'294277-01-01'$$, $$'4715-01-01 BC'$$, $$''$$, $$'yesterday noon'$$]),
	('@uuids', ARRAY[$$NULL$$, $$''$$, $$'x'$$, $$'00000000-0000-0000-0000-000000000000'$$, $$'ffffffff-ffff-ffff-ffff-ffffffffffff'$$,
		$$'{00000000000000000000000000000001}'$$, $$'0000000g-0000-0000-0000-000000000001'$$]),
	('@ints', ARRAY[$$NULL$$, $$0$$, $$-1$$, $$1$$, $$2147483647$$, $$'-2147483648'$$, $$'2147483648'$$, $$'1.5'$$, $$''$$]),
	('@texts', ARRAY[$$NULL$$, $$''$$, $$' '$$, $$'*'$$, $$'store'$$, $$repeat('x', 1000000)$$, $q$E'a\nb\tc\\d''e"f%s$$x'$q$]);
CREATE FUNCTION checks.grid (call text, VARIADIC arguments text[]) RETURNS TABLE (outcome text, used text) LANGUAGE sql
AS $$
	SELECT outcome, string_agg(left(argument, 60), ' · ' ORDER BY n, m)
	FROM unnest(arguments) WITH ORDINALITY AS a(word, n) LEFT JOIN checks.lists ON name = word,
		unnest(coalesce(list, ARRAY[word])) WITH ORDINALITY AS b(argument, m),
		LATERAL (SELECT regexp_replace(regexp_replace(replace(checks.try(format(call, argument)), E'\n', '\n'), 'requires \d+', 'requires …'), '^(\w+ .{90}).+', '\1…')) AS t(outcome)
	GROUP BY outcome ORDER BY min(n), min(m)
$$;

SELECT * FROM checks.grid('SELECT rf_append(%s, ''t'', ''{}'')', '@uuids');
SELECT * FROM checks.grid('SELECT rf_append(lpad(''f'', 32, ''0'')::uuid, %s, ''{}'')', '@texts');
SELECT * FROM checks.grid('SELECT rf_append(lpad(''f'', 32, ''0'')::uuid, ''t'', %s)', 'NULL', '''''', '''{}''', '''null''', '''[]''', '''0''', '''"s"''', '''{"a": "\u0000"}''', 'to_jsonb(repeat(''x'', 1000000))', '''{"a": 1e400}''', '(repeat(''['', 5000) || repeat('']'', 5000))::jsonb');
SELECT * FROM checks.grid('SELECT rf_append(lpad(''f'', 32, ''0'')::uuid, ''t'', ''{}'', %s)', 'NULL', '''{}''', '''[]''', '''null''', '''1''', '''"s"''', '''{"idempotency_key": null}''', '''{"idempotency_key": ""}''', '''{"idempotency_key": 1}''', '''{"idempotency_key": {"a": 1}}''');
SELECT left(checks.try(format('SELECT rf_append(lpad(''f'', 32, ''0'')::uuid, %L, %L, jsonb_build_object(%L, (SELECT string_agg(md5(n::text), %L) FROM generate_series(1, %s) AS n)))', 't', '{}', 'idempotency_key', '', n)), 5) AS key_of_some_length, n * 32 AS bytes
FROM unnest(ARRAY[30, 500, 40000]) AS n;
SELECT * FROM checks.grid('SELECT rf_append(lpad(''f'', 32, ''0'')::uuid, ''t'', ''{}'', expected_seq => %s)', '@ints');
SELECT * FROM checks.grid('SELECT rf_append(lpad(''f'', 32, ''0'')::uuid, ''t'', ''{}'', causation_id => %1$s, correlation_id => %1$s)', '@uuids');
SELECT * FROM checks.grid('SELECT rf_append(lpad(''f'', 32, ''0'')::uuid, ''t'', ''{}'', event_version => %s)', '@ints');
SELECT * FROM checks.grid('SELECT rf_append(lpad(''f'', 32, ''0'')::uuid, ''t'', ''{}'', user_id => %s)', '@texts');
SELECT * FROM checks.grid('SELECT rf_append(lpad(''f'', 32, ''0'')::uuid, ''t'', ''{}'', created_at => %s)', '@times');
SELECT * FROM checks.grid('SELECT rf_append(lpad(''f'', 32, ''0'')::uuid, ''t'', ''{}'', tenant => %s)', '@texts');
SELECT * FROM checks.grid('SELECT rf_append_batch(lpad(''f'', 32, ''0'')::uuid, %s)', 'NULL', '''''', '''[]''', '''{}''', '''[[]]''', '''[null]''', '''[{"type": "t"}]''', '''[{"type": ["t"], "body": 1}]''', '''[{"type": {}, "body": 1}]''', '''[{"type": 7, "body": 1}]''', '''[{"type": "t", "body": 1, "version": 1.5}]''', '''[{"type": "t", "body": 1, "created_at": 7}]''', '''[{"type": "t", "body": 1, "created_at": ""}]''', '''[{"type": "t", "body": 1, "user_id": {"a": 1}}]''', '(SELECT jsonb_agg(jsonb_build_object(''type'', ''t'', ''body'', n)) FROM generate_series(1, 10000) AS n)', '''[{"type": "t", "body": 1, "headers": {"idempotency_key": "k"}}, {"type": "t", "body": 1, "headers": {"idempotency_key": "k"}}]''');
SELECT left(checks.try($$SELECT rf_append_batch(lpad('f', 32, '0')::uuid, '[{"type": "t", "body": 1, "": 1}]')$$), 36) AS empty_key;
SELECT * FROM checks.grid('SELECT rf_append_batch(%s, ''[{"type": "t", "body": 1}]'')', '@uuids');
SELECT * FROM checks.grid('SELECT rf_append_batch(lpad(''f'', 32, ''0'')::uuid, ''[{"type": "t", "body": 1}]'', %s)', '@ints');
SELECT * FROM checks.grid('SELECT rf_append_batch(lpad(''f'', 32, ''0'')::uuid, ''[{"type": "t", "body": 1}]'', tenant => %s)', '@texts');

SELECT * FROM checks.grid('SELECT count(*) FROM rf_read_stream(%s)', '@uuids');
SELECT * FROM checks.grid('SELECT count(*) FROM rf_read_stream(lpad(''f'', 32, ''0'')::uuid, %s)', '@ints');
SELECT * FROM checks.grid('SELECT count(*) FROM rf_read_stream(lpad(''f'', 32, ''0'')::uuid, 0, %s)', '@ints');
SELECT * FROM checks.grid('SELECT count(*) FROM rf_read_stream(lpad(''1'', 32, ''0'')::uuid, %1$s, %1$s, NULL, NULL, NULL)', 'NULL', '0', '1', '2147483647');
SELECT * FROM checks.grid('SELECT count(*) FROM rf_read_stream(lpad(''f'', 32, ''0'')::uuid, tenant => %s)', '@texts');
SELECT * FROM checks.grid('SELECT count(*) FROM rf_read_all(%s)', '@ints', '9223372036854775807', '''-9223372036854775808''', '''9223372036854775808''');
SELECT * FROM checks.grid('SELECT count(*) FROM rf_read_all(0, %s)', '@ints');
SELECT * FROM checks.grid('SELECT count(*) FROM rf_read_all(0, 10, %s)', 'NULL', '''{}''', '''{NULL}''', '''{e,NULL}''', '''{{e,f},{g,h}}''', '''[5:6]={e,f}''', '''x''');
SELECT * FROM checks.grid('SELECT count(*) FROM rf_read_all(tenant => %s)', '@texts');

SELECT * FROM checks.grid('SELECT rf_archive_mark(%s)', '@uuids');
SELECT * FROM checks.grid('SELECT rf_archive_mark(lpad(''f'', 32, ''0'')::uuid, %s)', '@texts');
SELECT * FROM checks.grid('SELECT rf_archive_mark(lpad(''f'', 32, ''0'')::uuid, ''r'', %s)', '@texts', '''archive_move''');
SELECT * FROM checks.grid('SELECT rf_archive_mark(lpad(''f'', 32, ''0'')::uuid, tenant => %s)', '@texts');
SELECT * FROM checks.grid('SELECT rf_archive_reactivate(%s)', '@uuids');
SELECT * FROM checks.grid('SELECT rf_archive_reactivate(lpad(''3'', 32, ''0'')::uuid, %s)', 'NULL', 'true', 'false', '''maybe''');
SELECT * FROM checks.grid('SELECT rf_archive_reactivate(lpad(''3'', 32, ''0'')::uuid, tenant => %s)', '@texts');

SELECT * FROM checks.grid('SELECT rf_archive_move(%s)', '@times');
SELECT * FROM checks.grid('SELECT rf_archive_move(%s, dry_run => true)', '@times');
SELECT * FROM checks.grid('SELECT rf_archive_move(''infinity'', %s)', '@ints', '100000', '100001');
SELECT * FROM checks.grid('SELECT rf_archive_move(''infinity'', NULL, %s)', '@uuids');
SELECT * FROM checks.grid('SELECT rf_archive_move(''infinity'', NULL, NULL, NULL, NULL, NULL, %s)', '@texts');
-- (a procedure that commits can't be tried and undone; here it says so, after it has looked at its arguments or before)
SELECT * FROM checks.grid('CALL rf_archive_run(%s)', 'NULL', '''infinity''', '''x''');
CALL rf_archive_run('infinity', 0);
\echo :SQLSTATE
CALL rf_archive_run('infinity', 2147483647);
\echo :SQLSTATE
CALL rf_archive_run('infinity', max_runtime => '-1 second');
\echo :SQLSTATE
CALL rf_archive_run('infinity', stream_id => 'ffffffff-ffff-ffff-ffff-ffffffffffff');
\echo :SQLSTATE
CALL rf_archive_run('-infinity', max_runtime => '178000000 years');
\echo :SQLSTATE
CALL rf_archive_run('-infinity', max_runtime => '290000 years');
\echo :SQLSTATE
SELECT * FROM checks.grid('SELECT count(*) FROM rf_archive_plan(%s)', '@times');
SELECT * FROM checks.grid('SELECT count(*) FROM rf_archive_plan(''infinity'', %s)', '@uuids');
SELECT * FROM checks.grid('SELECT count(*) FROM rf_archive_plan(''infinity'', tenant => %s)', '@texts');
SELECT * FROM checks.grid('SELECT count(*) FROM rf_archive_candidates(%s)', '@times');
SELECT * FROM checks.grid('SELECT count(*) FROM rf_archive_candidates(''infinity'', %s)', '@ints');
SELECT * FROM checks.grid('SELECT count(*) FROM rf_archive_candidates(''infinity'', tenant => %s)', '@texts');
SELECT * FROM checks.grid('SELECT count(*) FROM rf_archive_status(%s)', '@texts');

SELECT * FROM checks.grid('SELECT rf_consumer_advance(%s, 1)', '@texts');
SELECT * FROM checks.grid('SELECT rf_consumer_advance(''c'', %s)', '@ints', '9223372036854775807', '''9223372036854775808''');
SELECT * FROM checks.grid('SELECT rf_consumer_advance(''c'', 1, %s)', '@texts');
SELECT * FROM checks.grid('SELECT rf_consumer_remove(%s)', '@texts');
SELECT * FROM checks.grid('SELECT rf_consumer_remove(''c'', %s)', '@texts');

SELECT * FROM checks.grid('SELECT rf_archive_set_redirect(%s)', 'NULL', 'true', '''x''');
SELECT * FROM checks.grid('SELECT rf_archive_set_include_archived(%s)', 'NULL', 'true', '''x''');
SELECT * FROM checks.grid('SELECT rf_archive_set_notify(%s)', 'NULL', 'true', '''x''');
SELECT * FROM checks.grid('SELECT rf_archive_set_redirect(true, %s)', '@texts');
SELECT * FROM checks.grid('SELECT rf_archive_set_include_archived(true, %s)', '@texts');
SELECT * FROM checks.grid('SELECT rf_archive_set_notify(true, %s)', '@texts');
SELECT * FROM checks.grid('SELECT rf_archive_redirect_enabled(%s)', '@texts');
SELECT * FROM checks.grid('SELECT rf_archive_set_backend(%s)', '@texts', '''dual_table''', '''Dual_Table''', '''partitioned''');
SELECT * FROM checks.grid('SELECT rf_archive_set_backend(''dual_table'', %s)', '@texts');

SELECT * FROM checks.grid('SELECT rf_create_partition(%s, ''2031-01-01'')', '@texts', '''hot''', '''cold''', '''HOT''', '''archive''');
SELECT * FROM checks.grid('SELECT rf_create_partition(''hot'', %s)', 'NULL', '''infinity''', '''-infinity''', '''2031-01-02''', '''2031-01-31''', '''4713-01-01 BC''', '''0001-01-01 BC''', '''0001-01-01''', '''9999-12-01''', '''10000-01-01''', '''5874897-12-01''', '''5874897-12-31''', '''''');
SELECT * FROM checks.grid('SELECT rf_create_partition(''hot'', ''2031-01-01'', %s)', 'NULL', '''''', '''pg_default''', '''pg_global''', '''nowhere''', '''"''', 'repeat(''x'', 64)::name');
SELECT * FROM checks.grid('SELECT rf_create_partition(''hot'', ''2031-01-01'', tenant => %s)', '@texts');
SELECT * FROM checks.grid('SELECT rf_redact(%s, reason => ''r'')', 'NULL', '''''', '''x''', '''00000000-0000-0000-0000-000000000001''', '''00000000-0000-0000-0000-00000000ffff''');
SELECT * FROM checks.grid('SELECT rf_redact(''00000000-0000-0000-0000-000000000001'', %s, ''r'')', 'NULL', '-2147483648', '-1', '0', '1', '2147483647', '2147483648', '''''');
SELECT * FROM checks.grid('SELECT rf_redact(''00000000-0000-0000-0000-000000000001'', 1, %s)', '@texts');
SELECT * FROM checks.grid('SELECT rf_redact(''00000000-0000-0000-0000-000000000001'', 1, ''r'', %s)', '@texts');
SELECT * FROM checks.grid('SELECT rf_hold(%s, ''r'')', 'NULL', '''''', '''x''', '''00000000-0000-0000-0000-000000000001''', '''00000000-0000-0000-0000-00000000ffff''');
SELECT * FROM checks.grid('SELECT rf_hold(NULL, %s)', '@texts');
SELECT * FROM checks.grid('SELECT rf_hold(NULL, ''r'', %s)', '@texts');
SELECT * FROM checks.grid('SELECT rf_release(%s)', 'NULL', '''''', '''x''', '''00000000-0000-0000-0000-000000000001''', '''00000000-0000-0000-0000-00000000ffff''');
SELECT * FROM checks.grid('SELECT rf_release(NULL, %s)', '@texts');
SELECT * FROM checks.grid('SELECT rf_release(NULL, NULL, %s)', '@texts');
SELECT * FROM checks.grid('SELECT rf_prune_keys(%s)', '@times');
SELECT * FROM checks.grid('SELECT rf_prune_keys(''-infinity'', %s)', '@texts');
SELECT * FROM checks.grid('SELECT rf_prune_log(%s)', '@times');
SELECT * FROM checks.grid('SELECT rf_prune_log(''-infinity'', %s)', '@texts');
SELECT * FROM checks.grid('SELECT rf_install(%s)', 'NULL', '''''', '''nowhere''', '''checks''', '''store''');
SELECT * FROM checks.grid('SELECT rf_install(''checks'', %s)', '@texts');
SELECT * FROM checks.grid('SELECT rf_install(''checks'', tenancy => %s)', 'NULL', '''''', '''single''', '''Single''', '''conjoined''');
SELECT * FROM checks.grid('SELECT rf_uninstall(%1$s, %1$s)', 'NULL', '''''', '''nowhere''', '''checks''', '''store''');
SELECT * FROM checks.grid('SELECT rf_uninstall(''store'', ''store'', %s)', 'NULL', 'false', 'true');

-- Trigger functions are not for calling, nor for other tables.
SELECT checks.try('SELECT ' || oid::regproc || '()') FROM pg_proc WHERE prorettype = 'trigger'::regtype AND pronamespace = 'store'::regnamespace ORDER BY proname;
CREATE TABLE checks.table (a int);
SELECT proname, when_, checks.try(format('CREATE TRIGGER t %s ON checks.table FOR EACH %s EXECUTE FUNCTION %s(); INSERT INTO checks.table VALUES (1); UPDATE checks.table SET a = 2', when_, level, p.oid::regproc))
FROM pg_proc AS p, (VALUES ('BEFORE INSERT', 'ROW'), ('BEFORE INSERT OR UPDATE', 'STATEMENT'), ('AFTER INSERT', 'ROW'), ('AFTER INSERT OR UPDATE', 'STATEMENT')) AS w(when_, level)
WHERE prorettype = 'trigger'::regtype AND pronamespace = 'store'::regnamespace ORDER BY proname, when_ COLLATE "C", level COLLATE "C";

-- Nothing has changed.
SELECT * FROM check_same();
SELECT (SELECT count(*) FROM rf_archive_log) - ledger AS ledger, (SELECT count(*) FROM rf_streams) - streams AS streams FROM checks.before;
