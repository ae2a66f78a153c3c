-- The life of a stream: marked, closed, reopened, reactivated.
\set ECHO none
\getenv abs_srcdir PG_ABS_SRCDIR
\set check :abs_srcdir '/test/sql/check.sql'
\i :check
\set ECHO all

\set s1 '''00000000-0000-0000-0000-000000000001'''
\set s2 '''00000000-0000-0000-0000-000000000002'''
\set s3 '''00000000-0000-0000-0000-000000000003'''
\set s4 '''00000000-0000-0000-0000-000000000004'''
-- (the time of a last event of now is left out)
CREATE VIEW checks.states AS
	SELECT right(stream_id::text, 1) AS s, last_seq, archived_at IS NOT NULL AS archived,
		CASE archived_by WHEN session_user THEN 'me' ELSE archived_by END AS by, archive_reason AS reason, retention_class AS class,
		first_event_at, CASE WHEN last_event_at < '2025-01-01' THEN last_event_at END AS last_event_at
	FROM rf_streams ORDER BY 1;
CREATE VIEW checks.events AS
	SELECT right(stream_id::text, 1) AS s, stream_seq, event_type, retention_class FROM events_all ORDER BY 1, 2;
SELECT rf_create_partition('hot', '2024-01-01');

--
-- Marks
--
SELECT stream_seq FROM rf_append_batch(:s1, '[{"type": "a", "body": 1, "created_at": "2024-01-10T00:00Z"}, {"type": "b", "body": 2, "created_at": "2024-01-20T00:00Z"}]');
SELECT stream_id, tenant_id, last_seq, first_event_at, last_event_at, archived_at = now() AS now, archived_by = session_user AS by_me, archive_reason, retention_class, created_at <= now() AS created, updated_at = now() AS updated
FROM rf_archive_mark(:s1);
-- Again, with a reason, by somebody else: the time of the first mark stays.
SELECT archived_at AS first_mark FROM rf_streams WHERE stream_id = :s1 \gset
SELECT archived_at = :'first_mark' AS same_time, archived_by, archive_reason FROM rf_archive_mark(:s1, 'customer closed account', 'somebody', NULL);
SELECT archived_at = :'first_mark' AS same_time, archived_by = session_user AS by_me, archive_reason FROM rf_archive_mark(stream_id => :s1, archived_by => NULL, reason => NULL);
-- An unknown stream is made, marked; a reason may be empty.
SELECT archived_by, archive_reason, last_seq, first_event_at, retention_class FROM rf_archive_mark(:s2, '', '');
SELECT * FROM rf_archive_mark(:s2, archived_by => 'archive_move');
\echo :SQLSTATE
SELECT * FROM rf_archive_mark(NULL);
\echo :SQLSTATE
SELECT * FROM rf_archive_mark(:s2, tenant => 'nobody');
\echo :SQLSTATE
BEGIN READ ONLY;
SELECT * FROM rf_archive_mark(:s3);
\echo :SQLSTATE
ROLLBACK;
SELECT * FROM checks.states;
-- A mark moves no event, but no more come by rf_append().
SELECT * FROM checks.events;
SELECT * FROM rf_append(:s1, 'c', '{}');
\echo :SQLSTATE
SELECT * FROM rf_append(:s2, 'a', '{}', expected_seq => 0);
\echo :SQLSTATE
SELECT stream_seq FROM rf_append(:s2, 'allowed', '{}', allow_archived => true, created_at => '2024-01-10 00:00+00');
-- It is kept by a move, which does not close what a person has marked.
SELECT * FROM check_keep();
SELECT events_moved, streams_touched FROM rf_archive_move('2024-02-01 00:00+00');
SELECT * FROM check_same();
SELECT * FROM checks.states;
SELECT * FROM rf_append(:s1, 'c', '{}');
\echo :SQLSTATE

--
-- Reactivations
--
SELECT stream_id, tenant_id, last_seq, first_event_at, last_event_at, archived_at, archived_by, archive_reason, retention_class, updated_at = now() AS updated
FROM rf_archive_reactivate(:s1);
SELECT * FROM check_same();
SELECT * FROM checks.events;
SELECT stream_seq FROM rf_append(:s1, 'c', '{}', expected_seq => 2, created_at => '2024-01-21 00:00+00');
INSERT INTO events (stream_id, stream_seq, event_type, body) SELECT :s1, max(stream_seq) + 1, 'd', '{}' FROM events WHERE stream_id = :s1;
-- Its events may stay where they are; the numbers go on, and a plain read sees all of it.
SELECT last_seq, archived_at, retention_class FROM rf_archive_reactivate(:s2, restore_events => false);
SELECT stream_seq FROM rf_append(:s2, 'hot', '{}', expected_seq => 1);
SELECT * FROM checks.events;
SELECT stream_seq, event_type, retention_class FROM rf_read_stream(:s2);
SELECT * FROM checks.states;
-- One that was not archived, twice, in full and not.
SELECT last_seq, archived_at FROM rf_archive_reactivate(:s2);
SELECT last_seq, archived_at FROM rf_archive_reactivate(:s2, NULL);
SELECT last_seq, archived_at FROM rf_archive_reactivate(:s2, false);
SELECT * FROM checks.events WHERE s = '2';
-- One without any event; one that is not there.
SELECT last_seq FROM rf_archive_mark(:s3);
SELECT last_seq, archived_at, first_event_at FROM rf_archive_reactivate(:s3);
SELECT * FROM rf_archive_reactivate('00000000-0000-0000-0000-0000000000ff');
\echo :SQLSTATE
SELECT * FROM rf_archive_reactivate(NULL);
\echo :SQLSTATE
SELECT * FROM rf_archive_reactivate(:s1, tenant => 'nobody');
\echo :SQLSTATE
SELECT events, broken_streams FROM check_union('store');
SELECT action, right(stream_id::text, 1) AS s, actor = session_user AS by_me, events, detail FROM rf_archive_log WHERE action IN ('mark', 'reactivate') ORDER BY log_id;

--
-- Closed by a move, and reopened by what lands hot
--
SELECT stream_seq FROM rf_append(:s4, 'a', '{}', created_at => '2024-01-05 00:00+00');
SELECT events_moved FROM rf_archive_move('2024-02-01 00:00+00', stream_id => :s4);
SELECT * FROM checks.states WHERE s = '4';
-- by rf_append()
SELECT stream_seq FROM rf_append(:s4, 'b', '{}', expected_seq => 1, created_at => '2024-01-06 00:00+00');
SELECT * FROM checks.states WHERE s = '4';
SELECT * FROM checks.events WHERE s = '4';
-- by a raw INSERT
SELECT events_moved FROM rf_archive_move('2024-02-01 00:00+00', stream_id => :s4);
INSERT INTO events (stream_id, event_type, body, created_at, bucket_month) VALUES (:s4, 'c', '{}', '2024-01-07 00:00+00', '2024-01-01') RETURNING stream_seq;
SELECT * FROM checks.states WHERE s = '4';
-- by a batch of functions, and by COPY
SELECT events_moved FROM rf_archive_move('2024-02-01 00:00+00', stream_id => :s4);
SELECT stream_seq FROM rf_append_batch(:s4, '[{"type": "d", "body": 1, "created_at": "2024-01-08T00:00Z"}, {"type": "e", "body": 1, "created_at": "2024-01-09T00:00Z"}]');
SELECT events_moved FROM rf_archive_move('2024-02-01 00:00+00', stream_id => :s4);
SELECT archived FROM checks.states WHERE s = '4';
COPY events (stream_id, event_type, body, created_at, bucket_month) FROM stdin;
00000000-0000-0000-0000-000000000004	f	{}	2024-01-10 00:00+00	2024-01-01
\.
SELECT * FROM checks.states WHERE s = '4';
SELECT * FROM checks.events WHERE s = '4';
-- A mark on a closed stream makes it a marked one, which an append does not reopen.
SELECT events_moved FROM rf_archive_move('2024-02-01 00:00+00', stream_id => :s4);
SELECT archived_by = session_user AS by_me, archive_reason FROM rf_archive_mark(:s4, 'for good');
SELECT * FROM rf_append(:s4, 'g', '{}');
\echo :SQLSTATE
INSERT INTO events (stream_id, event_type, body, created_at, bucket_month) VALUES (:s4, 'g', '{}', '2024-01-11 00:00+00', '2024-01-01') RETURNING stream_seq;
SELECT * FROM checks.states WHERE s = '4';
-- A reason like the move's own does not make it a closed one.
SELECT archive_reason FROM rf_archive_mark(:s4, 'auto');
SELECT * FROM rf_append(:s4, 'h', '{}');
\echo :SQLSTATE
-- Reactivated, all of it is hot.
SELECT last_seq FROM rf_archive_reactivate(:s4);
SELECT retention_class, count(*) FROM events_all WHERE stream_id = :s4 GROUP BY 1;
SELECT events, broken_streams FROM check_union('store');

--
-- The guide's manual smoke test
--

-- Its verification query.
SELECT relname FROM (
select child.relname
from pg_inherits
join pg_class parent on parent.oid = inhparent
join pg_class child on child.oid = inhrelid
join pg_namespace pn on pn.oid = parent.relnamespace
where pn.nspname = current_schema()
  and parent.relname = 'events'
) AS q ORDER BY 1;
\set smoke '''00000000-0000-0000-0000-00000000000a'''
-- 1. Insert a known stream with events.
SELECT stream_seq FROM rf_append_batch(:smoke, '[{"type": "opened", "body": {"n": 1}, "created_at": "2024-01-01T10:00Z"}, {"type": "changed", "body": {"n": 2}, "created_at": "2024-01-02T10:00Z"}, {"type": "closed", "body": {"n": 3}}]');
SELECT * FROM check_keep();
-- 2. Mark the stream and confirm its visibility by a dry run.
SELECT last_seq, archive_reason FROM rf_archive_mark(:smoke, 'customer closed account');
SELECT * FROM rf_archive_move('infinity', stream_id => :smoke, dry_run => true);
SELECT right(stream_id::text, 1) AS s, events, closes FROM rf_archive_candidates('infinity', only_archived => true);
SELECT count(*) FROM events_archive WHERE stream_id = :smoke;
-- 3. Execute the move and verify events_archive.
SELECT * FROM rf_archive_move('infinity', stream_id => :smoke);
SELECT stream_seq, event_type, body, retention_class, migrated_by, migrated_at <= now() AS dated FROM events_archive WHERE stream_id = :smoke ORDER BY 1;
SELECT count(*) FROM events WHERE stream_id = :smoke;
SELECT * FROM check_same();
-- 4. Reactivate and append another event; verify it lands back in events.
SELECT last_seq, archived_at FROM rf_archive_reactivate(:smoke);
SELECT stream_seq FROM rf_append(:smoke, 'again', '{"n": 4}');
SELECT stream_seq, event_type, retention_class FROM events WHERE stream_id = :smoke ORDER BY 1;
SELECT count(*) FROM events_archive WHERE stream_id = :smoke;
SELECT events, broken_streams FROM check_union('store');

--
-- Rows that are looked for where they were found last
--
\set p1 '''00000000-0000-0000-0000-0000000000a1'''
\set p2 '''00000000-0000-0000-0000-0000000000a2'''
\set p3 '''00000000-0000-0000-0000-0000000000a3'''
CREATE VIEW checks.heads AS
	SELECT right(stream_id::text, 2) AS s, last_seq FROM rf_streams WHERE stream_id BETWEEN :p1 AND :p3 ORDER BY 1;
PREPARE one AS INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES ($1, $2, 'e', '{}');
PREPARE next AS INSERT INTO events (stream_id, event_type, body) VALUES ($1, 'n', '{}') RETURNING stream_seq;
EXECUTE one(:p1, 1);
EXECUTE one(:p2, 1);
EXECUTE one(:p2, 2);
EXECUTE one(:p1, 2);
-- Undone, altogether or in part: the next number is the same again.
BEGIN;
EXECUTE one(:p1, 3);
EXECUTE one(:p1, 4);
EXECUTE next(:p3);
EXECUTE one(:p3, 2);
ROLLBACK;
BEGIN;
SAVEPOINT before;
EXECUTE one(:p1, 3);
EXECUTE next(:p1);
ROLLBACK TO before;
EXECUTE one(:p1, 3);
RELEASE before;
EXECUTE next(:p1);
COMMIT;
\set VERBOSITY sqlstate
EXECUTE one(:p1, 4);
\set VERBOSITY default
EXECUTE next(:p3);
EXECUTE next(:p2);
SELECT * FROM checks.heads;
-- Row after row moves to where another one was.
CREATE TABLE checks.copies AS SELECT * FROM rf_streams;
CREATE PROCEDURE checks.put_back (sorted text)
LANGUAGE plpgsql
AS $$
BEGIN
	DELETE FROM rf_streams;
	COMMIT;
	EXECUTE 'INSERT INTO rf_streams SELECT * FROM checks.copies ORDER BY stream_id ' || sorted;
END $$;
CALL checks.put_back('ASC');
VACUUM FULL rf_streams;
EXECUTE one(:p1, 6);
\echo :SQLSTATE
EXECUTE one(:p1, 5);
EXECUTE next(:p2);
EXECUTE one(:p3, 2);
DROP TABLE checks.copies;
CREATE TABLE checks.copies AS SELECT * FROM rf_streams;
CALL checks.put_back('DESC');
VACUUM FULL rf_streams;
EXECUTE next(:p1);
EXECUTE one(:p2, 5);
EXECUTE next(:p3);
SELECT * FROM checks.heads;
-- The table is empty, and shorter than it was.
INSERT INTO rf_streams (stream_id) SELECT ('00000000-0000-0000-0001-' || 100000000000 + n)::uuid FROM generate_series(1, 500) AS n;
EXECUTE one('00000000-0000-0000-0001-100000000500', 2);
\echo :SQLSTATE
BEGIN;
TRUNCATE rf_streams;
EXECUTE one('00000000-0000-0000-0001-100000000500', 1);
EXECUTE next('00000000-0000-0000-0001-100000000500');
ROLLBACK;
DELETE FROM rf_streams WHERE last_seq = 0;
VACUUM FULL rf_streams;
EXECUTE one('00000000-0000-0000-0001-100000000500', 2);
\echo :SQLSTATE
EXECUTE next('00000000-0000-0000-0001-100000000500');
-- A page on which rows change is pruned in time.
DO $$
BEGIN
	FOR n IN 1..1000 LOOP
		INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES ('00000000-0000-0000-0000-0000000000a1', n + 6, 'e', '{}');
		COMMIT;
	END LOOP;
END $$;
SELECT pg_relation_size('rf_streams') < 8 * 8192 AS small;
SELECT * FROM checks.heads;
SELECT broken_streams FROM check_union('store');
