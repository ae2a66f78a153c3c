-- Idempotency keys: one event for a key, whichever month or tier it is in.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
\set ECHO all

\set s1 '''00000000-0000-0000-0000-000000000001'''
\set s2 '''00000000-0000-0000-0000-000000000002'''
SELECT rf_create_partition('hot', '2024-01-01');
SELECT * FROM rf_append(:s1, 'a', '{"n": 1}', '{"idempotency_key": "one"}', created_at => '2024-01-10 00:00+00');
SELECT * FROM rf_append(:s1, 'b', '{"n": 2}', created_at => '2024-01-11 00:00+00');
-- Repeated: the numbers of the first, whatever else is said; nothing is added.
SELECT * FROM rf_append(:s1, 'a', '{"n": 1}', '{"idempotency_key": "one"}', created_at => '2024-01-10 00:00+00');
SELECT * FROM rf_append(:s1, 'other', '[]', '{"idempotency_key": "one", "more": 1}');
-- in another month
SELECT * FROM rf_append(:s1, 'a', '{}', '{"idempotency_key": "one"}', created_at => '2024-05-10 00:00+00');
-- with a head that was expected then, and is not now
SELECT * FROM rf_append(:s1, 'a', '{}', '{"idempotency_key": "one"}', expected_seq => 0);
SELECT * FROM rf_append(:s1, 'a', '{}', '{"idempotency_key": "one"}', expected_seq => 77);
-- after a move, which closes the stream; the repeat doesn't reopen it
SELECT * FROM check_keep();
SELECT events_moved FROM rf_archive_move('infinity');
SELECT * FROM rf_append(:s1, 'a', '{}', '{"idempotency_key": "one"}');
SELECT archived_by FROM rf_streams;
SELECT * FROM check_same();
-- while the stream is marked
SELECT archive_reason FROM rf_archive_mark(:s1);
SELECT * FROM rf_append(:s1, 'a', '{}', '{"idempotency_key": "one"}');
SELECT * FROM rf_append(:s1, 'a', '{}', '{"idempotency_key": "two"}');
\echo :SQLSTATE
-- and after a reactivation
SELECT last_seq FROM rf_archive_reactivate(:s1);
SELECT * FROM rf_append(:s1, 'a', '{}', '{"idempotency_key": "one"}');
SELECT * FROM check_same();
SELECT idempotency_key, right(stream_id::text, 1) AS s, stream_seq, global_seq FROM rf_event_keys;

-- Another stream's key.
SELECT * FROM rf_append(:s2, 'a', '{}', '{"idempotency_key": "one"}');
\echo :SQLSTATE
SELECT * FROM rf_append_batch(:s2, '[{"type": "a", "body": 1}, {"type": "b", "body": 1, "headers": {"idempotency_key": "one"}}]');
\echo :SQLSTATE
INSERT INTO events (stream_id, event_type, body, headers) VALUES (:s2, 'a', '{}', '{"idempotency_key": "one"}');
\echo :SQLSTATE
SELECT count(*) FROM rf_streams WHERE stream_id = :s2;
SELECT * FROM check_same();

-- Batches: new and repeated events together, in their order; a key twice in one batch is refused.
SELECT * FROM rf_append_batch(:s1, '[{"type": "c", "body": 3, "headers": {"idempotency_key": "three"}}, {"type": "d", "body": 4}, {"type": "e", "body": 5, "headers": {"idempotency_key": "five"}}]', 2);
SELECT * FROM rf_append_batch(:s1, '[{"type": "c", "body": 3, "headers": {"idempotency_key": "three"}}, {"type": "e", "body": 5, "headers": {"idempotency_key": "five"}}]');
SELECT * FROM rf_append_batch(:s1, '[{"type": "f", "body": 6}, {"type": "c", "body": 3, "headers": {"idempotency_key": "three"}}, {"type": "g", "body": 7, "headers": {"idempotency_key": "seven"}}, {"type": "a", "body": 1, "headers": {"idempotency_key": "one"}}]', 5);
SELECT * FROM rf_append_batch(:s1, '[{"type": "x", "body": 1, "headers": {"idempotency_key": "eight"}}, {"type": "y", "body": 1, "headers": {"idempotency_key": "eight"}}]');
\echo :SQLSTATE
SELECT stream_seq, event_type, headers FROM events WHERE stream_id = :s1 ORDER BY 1;
SELECT events, broken_streams FROM check_union('store');

-- Raw rows claim their keys; a repeat is an error there, for an INSERT can't return another row's numbers.
INSERT INTO events (stream_id, event_type, body, headers) VALUES (:s1, 'h', '{}', '{"idempotency_key": "eight"}'), (:s2, 'a', '{}', '{"idempotency_key": "nine"}') RETURNING stream_seq;
SELECT stream_seq FROM rf_append(:s1, 'h', '{}', '{"idempotency_key": "eight"}');
INSERT INTO events (stream_id, event_type, body, headers) VALUES (:s1, 'i', '{}', '{"idempotency_key": "eight"}');
\echo :SQLSTATE
INSERT INTO events (stream_id, event_type, body, headers) VALUES (:s1, 'i', '{}', '{"idempotency_key": "ten"}'), (:s1, 'j', '{}', '{"idempotency_key": "ten"}');
\echo :SQLSTATE
INSERT INTO events (stream_id, event_type, body, headers) VALUES (:s1, 'i', '{}', '{"idempotency_key": "ten"}'), (:s2, 'j', '{}', '{"idempotency_key": "ten"}');
\echo :SQLSTATE
INSERT INTO events (stream_id, event_type, body, headers) VALUES (:s1, 'i', '{}', '{"idempotency_key": "eight"}') ON CONFLICT DO NOTHING;
\echo :SQLSTATE
SELECT events, broken_streams FROM check_union('store');
-- Redirected rows claim theirs, too.
SELECT rf_archive_set_redirect(true);
SELECT 1 AS marked FROM rf_archive_mark(:s2);
INSERT INTO events (stream_id, event_type, body, headers) VALUES (:s2, 'b', '{}', '{"idempotency_key": "cold"}');
SELECT stream_seq FROM rf_append(:s2, 'b', '{}', '{"idempotency_key": "cold"}', allow_archived => true);
SELECT stream_seq FROM rf_append(:s2, 'c', '{}', '{"idempotency_key": "colder"}', allow_archived => true);
INSERT INTO events (stream_id, event_type, body, headers) VALUES (:s2, 'd', '{}', '{"idempotency_key": "colder"}');
\echo :SQLSTATE
SELECT stream_seq, event_type, retention_class FROM events_all WHERE stream_id = :s2 ORDER BY 1;
SELECT idempotency_key, right(stream_id::text, 1) AS s, stream_seq FROM rf_event_keys ORDER BY 1;
SELECT count(*) = 0 AS right_numbers FROM rf_event_keys AS k LEFT JOIN events_all AS e ON (e.global_seq, e.stream_id, e.stream_seq) = (k.global_seq, k.stream_id, k.stream_seq) AND e.headers ->> 'idempotency_key' = k.idempotency_key WHERE e.global_seq IS NULL;

-- What is no key: null. What is one: every other value, as text.
SELECT stream_seq FROM rf_append(:s1, 'null', '{}', '{"idempotency_key": null}');
SELECT stream_seq FROM rf_append(:s1, 'null', '{}', '{"idempotency_key": null}');
SELECT stream_seq FROM rf_append(:s1, 'number', '{}', '{"idempotency_key": 17}');
SELECT stream_seq FROM rf_append(:s1, 'string', '{}', '{"idempotency_key": "17"}');
SELECT stream_seq FROM rf_append(:s1, 'deep', '{}', '{"deeper": {"idempotency_key": "17"}}');
SELECT stream_seq FROM rf_append(:s1, 'odd', '{}', jsonb_build_object('idempotency_key', E'''"; \\ $$ % \n ü'));
SELECT stream_seq FROM rf_append(:s1, 'odd', '{}', jsonb_build_object('idempotency_key', E'''"; \\ $$ % \n ü'));

-- What is rolled back frees its key.
BEGIN;
SELECT stream_seq FROM rf_append(:s1, 'undone', '{}', '{"idempotency_key": "undone"}');
SAVEPOINT one;
SELECT stream_seq FROM rf_append(:s1, 'undone', '{}', '{"idempotency_key": "undone, too"}');
INSERT INTO events (stream_id, event_type, body, headers) VALUES (:s1, 'undone', '{}', '{"idempotency_key": "undone as well"}');
ROLLBACK TO one;
SELECT stream_seq FROM rf_append(:s1, 'kept', '{}', '{"idempotency_key": "undone, too"}');
COMMIT;
SELECT event_type, stream_seq FROM events WHERE event_type IN ('undone', 'kept') ORDER BY 2;
SELECT idempotency_key FROM rf_event_keys WHERE idempotency_key LIKE 'undone%' ORDER BY 1;
SELECT events, broken_streams FROM check_union('store');

-- Each store has keys of its own.
CREATE SCHEMA other;
SELECT rf_install('other', 't2');
SELECT stream_seq FROM rf_append(:s2, 'a', '{}', '{"idempotency_key": "one"}', tenant => 't2');
SELECT stream_seq FROM rf_append(:s2, 'a', '{}', '{"idempotency_key": "one"}', tenant => 't2');

-- Keys are forgotten when they are old; the events stay, and the key can be used again.
SELECT * FROM check_keep();
SELECT rf_prune_keys('-infinity');
SELECT rf_prune_keys('2020-01-01');
SELECT count(*) AS keys FROM rf_event_keys \gset
SELECT rf_prune_keys('infinity', 't2');
SELECT rf_prune_keys(before => 'infinity') = :keys AS all_of_them;
SELECT rf_prune_keys('infinity');
SELECT count(*) FROM rf_event_keys;
SELECT * FROM check_same();
SELECT stream_seq > 7 AS new FROM rf_append(:s1, 'again', '{}', '{"idempotency_key": "one"}');
SELECT events, broken_streams FROM check_union('store');
BEGIN READ ONLY;
SELECT rf_prune_keys('infinity');
\echo :SQLSTATE
ROLLBACK;
SELECT rf_prune_keys(NULL);
\echo :SQLSTATE
