# Applications that know nothing of us, and stores that users have changed: bulk inserts as an ORM sends them,
# triggers of users, generated columns, foreign keys, logical replication. Whatever of that there is, moves and
# reactivations lose nothing and change nothing.
use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowDump;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(allows_streaming => 'logical');
$node->append_conf('postgresql.conf', "timezone = 'UTC'\nshared_buffers = '32MB'");
$node->start;

my $db;

sub ask { return value($node, $db, $_[0]); }

sub new_store
{
	($db) = @_;
	value($node, 'postgres', "CREATE DATABASE $db");
	ask('CREATE EXTENSION rillflow');
	return;
}

# There and back and there, by both ways to move.
sub round_trip
{
	my ($what) = @_;
	my $all = ask('SELECT count(*) FROM events');
	my $of_one = ask("SELECT count(*) FROM events WHERE stream_id = md5('stream 1')::uuid");
	cmp_ok($of_one, '>', 0, "$what: there are events");
	moved_whole($node, $db, $all, "$what: move", sub { ask("SELECT rf_archive_move('infinity', 7)"); });
	moved_whole($node, $db, -$of_one, "$what: reactivate", sub { ask("SELECT rf_archive_reactivate(md5('stream 1')::uuid)"); });
	moved_whole($node, $db, $of_one, "$what: run", sub { ask("CALL rf_archive_run('infinity', 5)"); });
	return;
}

# ---- Bulk inserts as an ORM sends them

new_store('orm');
is( ask(<<SQL), "1\n2\n1\n3", 'rows of several streams in one INSERT, numbered in row order, RETURNING');
INSERT INTO events (global_seq, stream_id, stream_seq, event_type, body, headers, created_at, bucket_month, is_tombstone) VALUES
	(DEFAULT, md5('stream 1')::uuid, NULL, 'a', '{"n": 1}', '{}', now(), DEFAULT, false),
	(DEFAULT, md5('stream 1')::uuid, 2, 'b', '{"n": 2}', DEFAULT, DEFAULT, DEFAULT, DEFAULT),
	(DEFAULT, md5('stream 2')::uuid, 1, 'c', '{"n": 1}', '{}', now(), DEFAULT, true),
	(DEFAULT, md5('stream 1')::uuid, NULL, 'd', '{"n": 3}', '{}', now(), DEFAULT, false)
	RETURNING stream_seq
SQL
is( ask(<<SQL), '50|1|50', 'arrays');
WITH added AS (
	INSERT INTO events (stream_id, stream_seq, event_type, body)
		SELECT * FROM unnest(array_fill(md5('stream 3')::uuid, ARRAY[50]), (SELECT array_agg(n) FROM generate_series(1, 50) AS n),
			array_fill('unnested'::text, ARRAY[50]), (SELECT array_agg(to_jsonb(n)) FROM generate_series(1, 50) AS n))
		RETURNING stream_seq)
SELECT count(*), min(stream_seq), max(stream_seq) FROM added
SQL
is( ask(<<SQL), join("\n", 4 .. 15), 'a prepared statement, past the change to its generic plan');
PREPARE bulk (uuid, text, jsonb) AS INSERT INTO events (stream_id, event_type, body) VALUES (\$1, \$2, \$3) RETURNING stream_seq;
@{[join("\n", map { "EXECUTE bulk (md5('stream 1')::uuid, 'prepared', '{\"n\": $_}');" } 4 .. 15)]}
SQL
is( ask(<<SQL), "30|50|20", 'the next numbers by subquery, as optimistic writers do');
INSERT INTO events (stream_id, stream_seq, event_type, body)
	SELECT md5('stream 4')::uuid, (SELECT coalesce(max(stream_seq), 0) FROM events WHERE stream_id = md5('stream 4')::uuid) + n, 't', to_jsonb(n)
		FROM generate_series(1, 30) AS n;
INSERT INTO events (stream_id, stream_seq, event_type, body)
	SELECT md5('stream 4')::uuid, (SELECT coalesce(max(stream_seq), 0) FROM events WHERE stream_id = md5('stream 4')::uuid) + n, 't', to_jsonb(n)
		FROM generate_series(1, 20) AS n;
SELECT count(*) FILTER (WHERE stream_seq <= 30), max(stream_seq), count(*) FILTER (WHERE stream_seq > 30)
	FROM events WHERE stream_id = md5('stream 4')::uuid;
SQL
is(ask("COPY events (stream_id, event_type, body) FROM stdin;\n"
			. join('', map { "c9f0f895-fb98-ab91-59f5-1fd0297e236d\tcopied\t{\"n\": $_}\n" } 1 .. 40)
			. "\\.\nSELECT max(stream_seq) FROM events WHERE event_type = 'copied'"),
	'40', 'COPY');
is( ask(<<SQL), "1|t\n1|f", 'INSERT ON CONFLICT of a number that is there does nothing');
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (md5('stream 5')::uuid, 1, 't', '{}')
	ON CONFLICT DO NOTHING;
SELECT count(*), bool_and(event_type = 't') FROM events WHERE stream_id = md5('stream 5')::uuid;
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (md5('stream 5')::uuid, 1, 'again', '{}')
	ON CONFLICT DO NOTHING;
SELECT count(*), bool_or(event_type = 'again') FROM events WHERE stream_id = md5('stream 5')::uuid;
SQL
is(sqlstate_of($node, $db, <<SQL), '23505', 'one wrong number in a bulk, and none of it is there');
INSERT INTO events (stream_id, stream_seq, event_type, body)
	SELECT md5('stream 4')::uuid, n, 'wrong', '{}' FROM unnest(ARRAY[51, 52, 50]) AS n
SQL
is(ask("SELECT count(*) FROM events WHERE event_type = 'wrong'"), '0', 'none');
is(broken_streams($node, $db), '0', 'streams are whole');
round_trip('ORM');
# What the numbers are asked of is hot: once all is cold, that gives a number that was used.
is( (sqlstate_of($node, $db, "INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (md5('stream 4')::uuid, 1, 't', '{}')"))[0],
	'23505', 'number 1 of a stream that is cold is refused');
is(ask("INSERT INTO events (stream_id, event_type, body) VALUES (md5('stream 4')::uuid, 't', '{}') RETURNING stream_seq"),
	'51', 'a row without number gets the next');
is(ask("SELECT retention_class FROM rf_streams WHERE stream_id = md5('stream 4')::uuid"), 'hot', 'and the stream is open again');

# ---- Triggers of users

new_store('triggers');
ask(<<'SQL');
CREATE TABLE audit (global_seq bigint, stream_seq int);
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NEW.body := NEW.body || jsonb_build_object('stamps', coalesce((NEW.body ->> 'stamps')::int, 0) + 1);
	NEW.user_id := coalesce(NEW.user_id, '') || '+';
	RETURN NEW;
END $$;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN INSERT INTO public.audit VALUES (NEW.global_seq, NEW.stream_seq); RETURN NULL; END $$;
CREATE TRIGGER a_stamp BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION stamp();
CREATE TRIGGER z_note AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION note();
SELECT count(*) FROM generate_series(1, 20) AS n, rf_append(md5('stream 1')::uuid, 't', jsonb_build_object('n', n));
INSERT INTO events (stream_id, event_type, body, created_at, bucket_month)
	SELECT md5('stream ' || s)::uuid, 'raw', jsonb_build_object('n', s), '2024-03-03', '2024-03-01'
		FROM generate_series(1, 5) AS s, generate_series(1, 4);
SQL
my $stamped = "SELECT count(*), count(*) FILTER (WHERE body ->> 'stamps' = '1' AND user_id = '+') FROM events_all";
is(ask($stamped), '40|40', 'a BEFORE ROW trigger changed each row once');
my $audited = 'SELECT count(*), count(DISTINCT global_seq), (SELECT count(*) FROM audit JOIN events_all USING (global_seq, stream_seq)) FROM audit';
is(ask($audited), '40|40|40', 'an AFTER ROW trigger saw each with its number');
round_trip('triggers');
is(ask($stamped), '40|40', 'moves and reactivations change nothing');
is(ask($audited), '40|40|40', 'and are no INSERTs that anybody audits');
ask("SELECT rf_archive_mark(md5('stream 2')::uuid); SELECT rf_archive_set_redirect(true)");
ask("INSERT INTO events (stream_id, event_type, body) VALUES (md5('stream 2')::uuid, 'redirected', '{}')");
is(ask("SELECT retention_class, body ->> 'stamps', user_id FROM events_all WHERE event_type = 'redirected'"), 'cold|1|+',
	'a trigger that sorts before ours changes redirected rows, too');
is(broken_streams($node, $db), '0', 'streams are whole');

# A trigger that skips rows sorts before ours, or the statement fails.
ask(<<'SQL');
CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN IF NEW.event_type = 'unwanted' THEN RETURN NULL; END IF; RETURN NEW; END $$;
CREATE TRIGGER a_skip BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION skip();
INSERT INTO events (stream_id, event_type, body)
	SELECT md5('skipped')::uuid, CASE n % 2 WHEN 0 THEN 'unwanted' ELSE 'wanted' END, '{}' FROM generate_series(1, 10) AS n;
SQL
is(ask("SELECT count(*), max(stream_seq) FROM events WHERE stream_id = md5('skipped')::uuid"), '5|5', 'skipped rows take no numbers');
is(sqlstate_of($node, $db, "SELECT rf_append(md5('skipped')::uuid, 'unwanted', '{}')"), '55000', 'rf_append() does not pretend');
ask('DROP TRIGGER a_skip ON events; CREATE TRIGGER z_skip BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION skip()');
is(sqlstate_of($node, $db, "INSERT INTO events (stream_id, event_type, body) VALUES (md5('skipped')::uuid, 'unwanted', '{}')"),
	'55000', 'behind ours, a skipped row fails the statement');
is(broken_streams($node, $db), '0', 'and streams stay whole');

# ---- Columns of users

new_store('columns');
ask("SELECT rf_append(md5('stream 1')::uuid, 't', jsonb_build_object('n', n)) FROM generate_series(1, 3) AS n");
ask('ALTER TABLE events ADD COLUMN region text');
is(sqlstate_of($node, $db, "SELECT rf_archive_move('infinity')"), '55000', 'a column that events_archive lacks: no move');
like((sqlstate_of($node, $db, "SELECT rf_archive_move('infinity')"))[1], qr/HINT:\s+Run: ALTER TABLE public\.events_archive ADD COLUMN region text;/,
	'with the statement that helps');
is(ask('SELECT count(*) FROM events'), '3', 'and nothing was moved');
ask(<<'SQL');
ALTER TABLE events_archive ADD COLUMN region text;
ALTER TABLE events ADD COLUMN n int GENERATED ALWAYS AS ((body ->> 'n')::int) STORED, ADD COLUMN "Odd ""name" numeric(9, 2) DEFAULT 1.5 NOT NULL;
ALTER TABLE events_archive ADD COLUMN "Odd ""name" numeric(9, 2) DEFAULT 7 NOT NULL,
	ADD COLUMN n int GENERATED ALWAYS AS ((body ->> 'n')::int) STORED;
ALTER TABLE events DROP COLUMN region;
ALTER TABLE events_archive DROP COLUMN region;
INSERT INTO events (stream_id, event_type, body, "Odd ""name")
	SELECT md5('stream ' || s)::uuid, 't', jsonb_build_object('n', s * 100), s FROM generate_series(1, 4) AS s, generate_series(1, 5);
SQL
round_trip('columns');
is(ask('SELECT count(*), count(n), sum("Odd ""name"), count(*) FILTER (WHERE n <> (body ->> \'n\')::int) FROM events_archive'),
	'23|23|54.50|0', 'columns of users came along, generated ones are right');
ask("SELECT rf_archive_mark(md5('stream 2')::uuid); SELECT rf_archive_set_redirect(true);"
	  . ' INSERT INTO events (stream_id, event_type, body, "Odd ""name") VALUES (md5(\'stream 2\')::uuid, \'redirected\', \'{"n": 5}\', 9.25)');
is(ask('SELECT n, "Odd ""name" FROM events_archive WHERE event_type = \'redirected\''), '5|9.25', 'with redirected rows, too');
ask("SET client_min_messages = error; SELECT rf_install('public')");
is(($node->psql($db, 'SELECT count(n), sum("Odd ""name") FROM events_all'))[1], '24|63.75', 'and events_all shows them');

# ---- Foreign keys

new_store('keys');
ask(<<'SQL');
CREATE TABLE users (id text PRIMARY KEY);
INSERT INTO users VALUES ('ann'), ('bob');
ALTER TABLE events ADD CONSTRAINT events_user_fkey FOREIGN KEY (user_id) REFERENCES users;
SELECT count(*) FROM generate_series(1, 12) AS n, rf_append(md5('stream ' || n % 2)::uuid, 't', to_jsonb(n), user_id => 'ann',
	created_at => timestamptz '2024-01-15' + n * interval '1 month');
CREATE TABLE orders (id int PRIMARY KEY, stream_id uuid NOT NULL REFERENCES rf_streams ON DELETE RESTRICT);
INSERT INTO orders SELECT row_number() OVER (), stream_id FROM rf_streams;
SELECT rf_create_partition('hot', '2024-05-01');
SQL
is(sqlstate_of($node, $db, "SELECT rf_append(md5('stream 1')::uuid, 't', '{}', user_id => 'nobody')"), '23503', 'a foreign key of events holds');
is(sqlstate_of($node, $db, "INSERT INTO events (stream_id, event_type, body, user_id, created_at, bucket_month)"
			. " VALUES (md5('stream 1')::uuid, 't', '{}', 'nobody', '2024-05-05', '2024-05-01')"),
	'23503', 'in a month that was made after it');
round_trip('foreign keys');
is(ask('SELECT count(*) FROM orders JOIN rf_streams USING (stream_id)'), '2', 'what refers to streams still does');
# (18 tells a RESTRICT from the rest)
is(sqlstate_of($node, $db, "DELETE FROM rf_streams"), $node->pg_version >= 18 ? '23001' : '23503', 'and holds them');
is(ask('SELECT count(*) FROM pg_constraint WHERE NOT convalidated'), '0', 'no constraint was given up');

# ---- Row security that is forced on the owner, too: what nobody sees is not taken for what is not there

new_store('forced');
value($node, $db, <<'SQL');
CREATE ROLE keeper;
CREATE SCHEMA kept AUTHORIZATION keeper;
GRANT EXECUTE ON FUNCTION rf_install, rf_uninstall, rf_archive_set_backend TO keeper;
SET client_min_messages = error;
SET ROLE keeper;
SELECT rf_install('kept', 'k');
SELECT count(*) FROM generate_series(1, 8) AS n, rf_append(md5('stream 1')::uuid, 't', to_jsonb(n), user_id => 'ann', tenant => 'k');
SELECT rf_archive_mark(md5('stream 2')::uuid, tenant => 'k');
SELECT count(*) FROM generate_series(1, 4) AS n, rf_append(md5('stream 2')::uuid, 't', to_jsonb(n), allow_archived => true, tenant => 'k');
SELECT rf_archive_move('infinity', only_archived => true, tenant => 'k');
ALTER TABLE kept.events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE kept.events_archive ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY theirs ON kept.events USING (user_id = current_setting('my.user', true));
CREATE POLICY theirs ON kept.events_archive USING (user_id = current_setting('my.user', true));
SQL
my $kept = union_state($node, $db, 'kept');
like($kept, qr/^12 12 /, 'there are events');
is(ask('SET ROLE keeper; SELECT count(*) FROM kept.events_all'), '0', 'which their owner does not see');
# What counts on there being no event is refused; all else works whole, or is refused.
foreach my $sql ("SELECT rf_archive_set_backend('partitioned', 'k')", "SELECT rf_archive_move('infinity', tenant => 'k')",
	"CALL rf_archive_run('infinity', tenant => 'k')", "SELECT rf_archive_reactivate(md5('stream 2')::uuid, tenant => 'k')",
	"SELECT rf_archive_status('k')", "SELECT rf_uninstall('kept', 'kept')")
{
	my $must_fail = $sql =~ /uninstall/;
	my $state = sqlstate_of($node, $db, "SET ROLE keeper; $sql");
	like($state, $must_fail ? qr/^(?:42501|55000)$/ : qr/^(?:00000|42501|55000)$/, "$sql is refused" . ($must_fail ? '' : ' or works'));
	if (ask("SELECT to_regclass('kept.events') IS NOT NULL") eq 't')
	{
		same_union($node, $db, $kept, "$sql loses nothing", 'kept');
	}
	else
	{
		fail("$sql loses nothing");
	}
}

value($node, $db, <<'SQL');
ALTER TABLE kept.events DISABLE ROW LEVEL SECURITY;
ALTER TABLE kept.events_archive DISABLE ROW LEVEL SECURITY;
SQL
foreach my $forced (0, 1)
{
	ask('ALTER TABLE kept.rf_streams ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY') if $forced;
	is(sqlstate_of($node, $db, "SET ROLE keeper; SELECT $_('k')"), $forced ? '42501' : '00000',
		"streams are counted by $_" . ($forced ? ' only where it sees them all' : ''))
		foreach qw(rf_archive_status rf_metrics);
}

# ---- Logical apply: rows come as they are, past our triggers, and are neither numbered nor sent elsewhere

new_store('publisher');
ask(<<'SQL');
SELECT count(*) FROM generate_series(1, 30) AS n, rf_append(md5('stream ' || n % 3)::uuid, 't', jsonb_build_object('n', n),
	created_at => timestamptz '2024-01-15' + n * interval '3 days');
SELECT rf_create_partition(tier, month) FROM (VALUES ('hot'), ('cold')) AS t (tier),
	(VALUES (date '2024-01-01'), ('2024-02-01'), ('2024-03-01'), ('2024-04-01')) AS m (month);
SELECT rf_archive_move('2024-02-10 00:00+00');
CREATE PUBLICATION everything FOR ALL TABLES;
SQL
my $subscriber = PostgreSQL::Test::Cluster->new('subscriber');
$subscriber->init;
$subscriber->append_conf('postgresql.conf', "timezone = 'UTC'");
$subscriber->start;
my $dir = PostgreSQL::Test::Utils::tempdir();
program($node, 'pg_dump', '--schema-only', '--no-publications', '-f', "$dir/definitions", 'publisher');
my ($status, $out, $err) = program($subscriber, 'psql', '-Xq1', '-v', 'ON_ERROR_STOP=1', '-d', 'postgres', '-f', "$dir/definitions");
is($status, 0, 'a subscriber has the definitions') || diag($err);
value($subscriber, 'postgres', "CREATE SUBSCRIPTION s CONNECTION @{[quote_text($node->connstr('publisher'))]} PUBLICATION everything");
$subscriber->poll_query_until('postgres', "SELECT bool_and(srsubstate IN ('s', 'r')) FROM pg_subscription_rel") || die 'no sync';

sub same_there
{
	my ($what) = @_;
	$node->wait_for_catchup('s');
	return subtest "subscriber: $what" => sub {
		like(union_state($node, 'publisher'), qr/^[1-9]\d+ /, 'there are events');
		is(leaf_states($subscriber, 'postgres'), leaf_states($node, 'publisher'), 'each event is in its leaf');
		is(table_states($subscriber, 'postgres'), table_states($node, 'publisher'), 'and all other tables are equal');
		is(broken_streams($subscriber, 'postgres'), '0', 'streams are whole');
	};
}

same_there('the first copy');
my $there = session($subscriber, 'postgres');
is($there->ask('SELECT rf_archive_redirect_enabled()'), 'f', 'a session of the subscriber');
ask("SELECT rf_append(md5('stream 1')::uuid, 'more', '{}', '{\"idempotency_key\": \"k\"}')");
ask("INSERT INTO events (stream_id, event_type, body) VALUES (md5('stream 2')::uuid, 'raw', '{}')");
same_there('appends');
ask("SELECT rf_archive_move('2024-03-10 00:00+00', 4); SELECT rf_archive_mark(md5('stream 1')::uuid)");
same_there('a move and a mark');
ask("SELECT rf_archive_set_redirect(true); INSERT INTO events (stream_id, event_type, body, created_at, bucket_month)"
	  . " VALUES (md5('stream 1')::uuid, 'redirected', '{}', '2024-04-04', '2024-04-01')");
same_there('a redirected row');
is($there->ask('SELECT rf_archive_redirect_enabled()'), 't', 'its session is told of the switch');
ask("SELECT rf_archive_reactivate(md5('stream 1')::uuid)");
same_there('a reactivation');

# Failover: sequences are not replicated, and are set by hand; then it goes on.
value($subscriber, 'postgres', 'DROP SUBSCRIPTION s');
value($subscriber, 'postgres', "SELECT setval('events_global_seq_seq', (SELECT max(global_seq) FROM events_all))");
value($subscriber, 'postgres',
	"SELECT setval(pg_get_serial_sequence('rf_archive_log', 'log_id'), (SELECT max(log_id) FROM rf_archive_log))");
is( value($subscriber, 'postgres', "SELECT (stream_seq, global_seq) = (SELECT last_seq + 1, (SELECT max(global_seq) + 1 FROM events_all) FROM rf_streams"
		. " WHERE stream_id = md5('stream 1')::uuid) FROM rf_append(md5('stream 1')::uuid, 'here', '{}')"),
	't', 'after a failover appends go on');
moved_whole($subscriber, 'postgres', value($subscriber, 'postgres', 'SELECT count(*) FROM events'), 'after a failover: move',
	sub { value($subscriber, 'postgres', "CALL rf_archive_run('infinity')"); });
$there->leave;

done_testing();
