# What others do to a table while it is being adopted: rows that no store could hold and changes of the table itself are
# noticed, columns may be added while events are carried, and who cancels is not kept waiting.
use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowCluster;
use Test::More;

# Wait points count as waits for locks, and must outlast the test's own steps.
my $node = new_store('meanwhile', "rillflow.lock_timeout = '60s'", "deadlock_timeout = '120s'");
sub ask { return $node->safe_psql('postgres', $_[0]); }

my $columns = 'global_seq, stream_id, stream_seq, event_type, body, created_at';

sub state
{
	return ask(<<"SQL");
SELECT count(*) || ':' || coalesce(sum(hashtextextended(e::text, 0)::numeric), 0) FROM
	(SELECT $columns FROM events UNION ALL SELECT $columns FROM events_archive) AS e WHERE event_type = 'base'
SQL
}

# Plain tables with so many events of ten streams, the first two of each in the archive.
sub make_plain
{
	my ($events) = @_;

	ask("SELECT rf_uninstall('public', 'public', true)")
	  if ask("SELECT count(*) FROM rf_stores WHERE schema = 'public'") > 0;
	ask(<<"SQL");
SET client_min_messages = error;
DROP VIEW IF EXISTS events_all;
DROP TABLE IF EXISTS events, events_archive, rf_streams, rf_archive_config, rf_event_keys, rf_archive_log,
	rf_archive_policies, rf_consumers, rf_archive_runs, rf_holds, rf_archive_totals CASCADE;
DROP SCHEMA IF EXISTS checks CASCADE;
CREATE TABLE public.events (
	global_seq bigserial PRIMARY KEY, stream_id uuid NOT NULL, stream_seq integer NOT NULL, event_type text NOT NULL,
	body jsonb NOT NULL DEFAULT '{}', created_at timestamptz NOT NULL DEFAULT '2024-03-01 00:00+00', region text,
	UNIQUE (stream_id, stream_seq));
CREATE TABLE public.events_archive (LIKE public.events INCLUDING ALL);
INSERT INTO public.events (stream_id, stream_seq, event_type, body, created_at, region)
SELECT md5('stream ' || n % 10)::uuid, n / 10 + 1, 'base', jsonb_build_object('n', n),
	timestamptz '2024-01-03 00:00+00' + n * interval '1 hour', n FROM generate_series(0, $events - 1) AS n;
WITH old AS (DELETE FROM public.events WHERE stream_seq <= 2 RETURNING *)
INSERT INTO public.events_archive SELECT * FROM old;
SQL
	return state();
}

# Runs the SQL while the adopter waits at the point; returns how that ended, and what it said.
sub meanwhile
{
	my ($point, $sql) = @_;
	my $holder = hold_point($node, $point);
	my $adopter = start_psql($node, "CALL rf_adopt('events');", 'adopter');

	wait_at_point($node, $point, 'adopter', $adopter);
	ask($sql);
	release_point($holder);
	my ($status, undef, $messages) = finish_psql($adopter);
	return ($status, $messages);
}

sub traces
{
	return ask("SELECT count(*) FROM pg_namespace WHERE nspname ~ '^rf_adopt'") . ' '
	  . ask("SELECT count(*) FROM pg_trigger WHERE tgname ~ '^rf_adopt'");
}

sub check_adopted
{
	my ($before, $name) = @_;

	is(state(), $before, "$name: the events are what they were");
	is(ask(<<'SQL'), '0', "$name: streams are whole");
SELECT count(*) FROM (SELECT stream_id, count(*) AS n, count(DISTINCT stream_seq) AS d, max(stream_seq) AS m
	FROM events_all GROUP BY 1) AS e FULL JOIN rf_streams AS s USING (stream_id)
	WHERE (n, d, m) IS DISTINCT FROM (s.last_seq, s.last_seq, s.last_seq) AND NOT (n IS NULL AND s.last_seq = 0)
SQL
	is(traces(), '0 0', "$name: nothing is left over");
	is(ask("SELECT count(*) FROM pg_class WHERE relname ~ 'adopt'"), '0', "$name: the source is gone");
}

# Rows that a store could not hold, before and after heads were made.
my $stream = "md5('stream 3')::uuid";
sub event { my ($seq, $table) = @_; return 'INSERT INTO ' . ($table // 'events')
	  . " (stream_id, stream_seq, event_type) VALUES ($stream, $seq, 'late');\n"; }
my @rows = (
	[ 'a gap', event(7), '55000' ],
	[ 'a number that is cold', event(2), '23505' ],
	[ 'a number that is hot', event(4, 'events_archive'), '23505' ],
	[ 'the number 0', event(0), '23502' ],
	[ 'a new number, hot and cold, and a gap', event(6) . event(6, 'events_archive') . event(8), '23505' ],
	[
		'a global_seq that is cold',
		"INSERT INTO events (global_seq, stream_id, stream_seq, event_type) SELECT min(global_seq), md5('new')::uuid, 1, 'late'"
		  . ' FROM events_archive', '23505'
	],
	[
		'a global_seq that becomes that of a cold one',
		"UPDATE events SET global_seq = (SELECT min(global_seq) FROM events_archive), event_type = 'late'"
		  . " WHERE stream_id = $stream AND stream_seq = 5", '23505'
	]);
for my $point (qw(adopt_checked adopt_prepared))
{
	for my $case (@rows)
	{
		my ($name, $sql, $sqlstate) = @$case;
		make_plain(50);
		my ($status, $messages) = meanwhile($point, $sql);
		isnt($status, 0, "$point: $name is refused");
		like($messages, qr/ERROR:  $sqlstate/, "$point: $name is told");
		is(traces(), '0 0', "$point: $name leaves nothing");
	}
	my $before = make_plain(50);
	my ($status, $messages) = meanwhile($point, event(6) . event(7) . "DELETE FROM events_archive WHERE stream_id = $stream"
		. " AND stream_seq = 2;\n" . event(2));
	is($status, 0, "$point: what is no error is none") or diag($messages);
	is(ask("SELECT string_agg(stream_seq::text, ' ' ORDER BY stream_seq) FROM events_all WHERE stream_id = $stream"),
		'1 2 3 4 5 6 7', "$point: it comes along");
}

# What belongs to the table is taken over before the switch; when it changes, all begins anew.
for my $sql (
	'GRANT SELECT ON events TO pg_monitor',
	'GRANT SELECT (body) ON events TO pg_monitor',
	'ALTER TABLE events ENABLE ROW LEVEL SECURITY',
	"CREATE POLICY mine ON events USING (region = '1')",
	'CREATE INDEX mine ON events (event_type)',
	'CREATE TRIGGER mine BEFORE UPDATE ON events FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()',
	'ALTER TABLE events ADD CONSTRAINT mine CHECK (stream_seq > 0)',
	"ALTER TABLE events ALTER COLUMN region SET DEFAULT 'here'",
	'ALTER TABLE events ADD COLUMN mine integer',
	'ALTER TABLE events_archive ALTER COLUMN region SET NOT NULL',
	"COMMENT ON TABLE events IS 'mine'",
	'DROP INDEX events_stream_id_stream_seq_key_dropped; ALTER TABLE events DROP CONSTRAINT events_stream_id_stream_seq_key',
	'CREATE TABLE mine (); ALTER TABLE mine ADD COLUMN e events',
  )
{
	my $before = make_plain(50);
	ask('CREATE INDEX events_stream_id_stream_seq_key_dropped ON events (region)') if $sql =~ /_dropped/;
	my ($status, $messages) = meanwhile('adopt_prepared', $sql);
	like($messages, qr/ERROR:  55000/, "$sql: is noticed") or diag($status);
	is(traces(), '0 0', "$sql: nothing is left over");
	is(state(), $before, "$sql: nothing has changed");
	ask('DROP TABLE mine') if $sql =~ /TABLE mine/;
	next if $sql =~ /_dropped/;
	$node->psql('postgres', "CALL rf_adopt('events')");
	check_adopted($before, $sql);
}

# A table that is dropped is told of, and nothing is left of it.
for my $table (qw(events events_archive))
{
	make_plain(50);
	my ($status, $messages) = meanwhile('adopt_prepared', "DROP TABLE $table CASCADE");
	like($messages, qr/ERROR:  42P01/, "$table dropped: that is told");
	is(traces(), '0 0', "$table dropped: nothing is left over");
}

# Columns come and change while events are carried.
{
	my $before = make_plain(6000);
	my $holder = hold_point($node, 'adopt_batch');
	my $adopter = start_psql($node, "CALL rf_adopt('events');", 'adopter');
	wait_at_point($node, 'adopt_batch', 'adopter', $adopter);
	my $owner = start_psql($node, <<'SQL', 'owner');
BEGIN;
ALTER TABLE events ADD COLUMN x integer, ADD COLUMN y text DEFAULT 'y';
ALTER TABLE events_archive ADD COLUMN x integer, ADD COLUMN y text;
COMMIT;
SQL
	wait_until('the owner waits', sub {
		ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'owner' AND wait_event_type = 'Lock'") > 0 });
	release_point($holder);
	is((finish_psql($owner))[0], 0, 'columns are added');
	my ($status, undef, $messages) = finish_psql($adopter);
	is($status, 0, 'and adoption ends') or diag($messages);
	check_adopted($before, 'columns added');
	is(ask("SELECT count(*) FROM events WHERE y = 'y' AND x IS NULL"), '5980', 'columns added: defaults are there');
}

# Events that vanish from the source are told of, and there is a way on.
{
	my $before = make_plain(50);
	my ($status, $messages) = meanwhile('adopt_counted',
		"SET session_replication_role = replica; DELETE FROM events_adopted WHERE stream_seq = 5 AND stream_id = $stream");
	like($messages, qr/ERROR:  XX001.*HINT:/s, 'an event that vanished is told');
	my ($hint) = $messages =~ /(INSERT INTO .*;)/;
	ok($hint, 'there is a way on') && ask($hint);
	ask("CALL rf_adopt('events')");
	is(traces(), '0 0', 'the adoption ends');
	is(ask('SELECT count(*) FROM events_all'), '49', 'with what is there');
}

# Who cancels is told so, whoever else has a lock; what could not be taken away is told, and goes with the next call.
{
	make_plain(50);
	my $holder = hold_point($node, 'adopt_prepared');
	my $adopter = start_psql($node, "CALL rf_adopt('events');", 'adopter');
	my $pid = wait_at_point($node, 'adopt_prepared', 'adopter', $adopter);
	ask("SELECT pg_cancel_backend($pid)");
	my (undef, undef, $messages) = finish_psql($adopter);
	like($messages, qr/ERROR:  57014/, 'cancelled between two steps: that is what it says');
	release_point($holder);
	is(traces(), '0 0', 'cancelled between two steps: nothing is left over');
}
{
	my $before = make_plain(50);
	my $reader = $node->background_psql('postgres');
	my $holder = hold_point($node, 'adopt_checked');
	my $adopter = start_psql($node, "SET rillflow.lock_timeout = '3s'; CALL rf_adopt('events');", 'adopter');
	my $pid = wait_at_point($node, 'adopt_checked', 'adopter', $adopter);
	$reader->query_safe('BEGIN; SELECT count(*) FROM events');
	ask("SELECT pg_cancel_backend($pid)");
	my (undef, undef, $messages) = finish_psql($adopter);
	like($messages, qr/ERROR:  57014/, 'cancelled: that is what it says');
	like($messages, qr/WARNING:  .*rf_adopt/s, 'cancelled: what is left is told');
	release_point($holder);
	ask(event(6));
	$reader->query_safe('COMMIT');
	$reader->quit;
	ask("CALL rf_adopt('events')");
	check_adopted($before, 'cancelled beside a reader');
}

# A transaction that is older than the switch reads streams.
{
	my $before = make_plain(50);
	my $old = $node->background_psql('postgres');
	$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
	my $adopter = start_psql($node, "CALL rf_adopt('events');", 'adopter');
	wait_until('the switch', sub { ask("SELECT count(*) FROM rf_stores WHERE schema = 'public'") > 0 });
	wait_until('the adopter has counted', sub {
		ask("SELECT count(*) FROM rf_archive_log WHERE action = 'adopt counted'") > 0 });
	ask("SELECT rf_append($stream, 'late', '{}', created_at => '2024-03-01 00:00+00')");
	is($old->query_safe("SELECT string_agg(stream_seq::text, ' ') FROM rf_read_stream($stream)"), '1 2 3 4 5',
		'an older transaction reads a stream');
	is($old->query_safe("SELECT count(*) FROM rf_read_stream(md5('none')::uuid)"), '0', 'or none');
	$old->query_safe('COMMIT');
	$old->quit;
	is((finish_psql($adopter))[0], 0, 'adoption ends after it');
	check_adopted($before, 'an older transaction');
}

# Who changes events, though he may not, comes from the root, and does not wait below it.
{
	my $before = make_plain(50);
	my $holder = hold_point($node, 'adopt_counted');
	my $adopter = start_psql($node, "CALL rf_adopt('events');", 'adopter');
	wait_at_point($node, 'adopt_counted', 'adopter', $adopter);
	my $writer = $node->background_psql('postgres');
	$writer->query_safe("SET lock_timeout = '2s'; BEGIN; LOCK TABLE ONLY events IN ROW EXCLUSIVE MODE");
	release_point($holder);
	wait_until('the adopter wants the root', sub {
		ask("SELECT count(*) FROM pg_locks WHERE relation = 'events'::regclass AND mode = 'AccessExclusiveLock'") > 0 });
	$writer->query_safe('LOCK TABLE ONLY events_adopted IN ROW EXCLUSIVE MODE');
	is(ask("SELECT count(*) FROM pg_locks WHERE relation = 'events_adopted'::regclass AND mode = 'RowExclusiveLock' AND granted"),
		'1', 'a writer waits for nothing below the root');
	like(($node->psql('postgres', "SET session_replication_role = replica; DELETE FROM ONLY events_adopted"))[2],
		qr/append-only/, 'nobody writes to the emptied source');
	$writer->query_safe('COMMIT');
	$writer->quit;
	my ($status, undef, $messages) = finish_psql($adopter);
	is($status, 0, 'adoption ends beside a writer') or diag($messages);
	check_adopted($before, 'beside a writer');
}

# Who writes to a leaf by itself, as subscribers do, has ended before it is copied.
{
	ask("CALL rf_adopt('events')") if ask("SELECT count(*) FROM rf_stores WHERE schema = 'public'") == 0;
	my $writer = $node->background_psql('postgres');
	# the second time: at first the server locks the parents, to learn of the bounds
	for my $end ('ROLLBACK', '')
	{
		$writer->query_safe('BEGIN; SET LOCAL session_replication_role = replica');
		$writer->query_safe("UPDATE events_hot_2024_01 SET event_type = 'changed' WHERE stream_id = $stream AND stream_seq = 5");
		$writer->query_safe($end) if $end;
	}
	my $flattener = start_psql($node, 'SELECT rf_flatten();', 'flattener');
	wait_until('it waits', sub {
		ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'flattener' AND wait_event_type = 'Lock'") > 0 });
	$writer->query_safe('COMMIT');
	$writer->quit;
	my ($status, undef, $messages) = finish_psql($flattener);
	is($status, 0, 'the store is flattened') or diag($messages);
	is(ask("SELECT count(*) FROM events WHERE event_type = 'changed'"), '1', 'and what was written is there');
}

done_testing();
