# Adopting plain tables, and flattening stores, under clients that append, and with the adopter killed at each of its
# places: no event is lost or shown twice, and rf_adopt() goes on where it stopped.
use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowCluster;
use Test::More;
use Time::HiRes qw(usleep);

# Wait points count as waits for locks, and must outlast the test's own steps.
my $node = new_store('adopt', 'restart_after_crash = on', 'fsync = on', "rillflow.lock_timeout = '60s'",
	"deadlock_timeout = '120s'", 'max_connections = 60');
sub ask { return $node->safe_psql('postgres', $_[0]); }

# a database's plain tables, as an application has them that archives by itself
my $plain = <<'SQL';
CREATE TABLE public.events (
	global_seq bigserial PRIMARY KEY, stream_id uuid NOT NULL, stream_seq integer NOT NULL, event_type text NOT NULL,
	body jsonb NOT NULL, headers jsonb NOT NULL DEFAULT '{}', causation_id uuid, correlation_id uuid,
	event_version integer NOT NULL DEFAULT 1, tenant_id text, user_id text, is_tombstone boolean NOT NULL DEFAULT false,
	created_at timestamptz NOT NULL DEFAULT now(), region text DEFAULT 'north', UNIQUE (stream_id, stream_seq));
CREATE INDEX events_type ON public.events (event_type);
CREATE TABLE public.events_archive (LIKE public.events INCLUDING ALL, migrated_at timestamptz, migrated_by text);
CREATE TABLE public.rf_streams (stream_id uuid PRIMARY KEY, archived_at timestamptz, archived_by text,
	archive_reason text, retention_class text NOT NULL DEFAULT 'hot', colour text);
INSERT INTO public.events (stream_id, stream_seq, event_type, body, headers, causation_id, created_at, region)
SELECT md5('stream ' || s)::uuid, n, 'base-' || s || '-' || n, jsonb_build_object('s', s, 'n', n),
	CASE WHEN n = 2 THEN jsonb_build_object('idempotency_key', 'key ' || s) ELSE '{}' END,
	CASE WHEN n % 2 = 0 THEN md5(n::text)::uuid END,
	timestamptz '2024-01-03 00:00+00' + (n * 4 + s % 3) * interval '1 day', CASE WHEN s % 2 = 0 THEN 'south' END
FROM generate_series(1, 100) AS s, generate_series(1, 80) AS n ORDER BY n, s;
WITH old AS (DELETE FROM public.events WHERE stream_seq <= 20 RETURNING *)
INSERT INTO public.events_archive SELECT *, now(), 'application' FROM old;
INSERT INTO public.rf_streams
SELECT md5('stream ' || s)::uuid, CASE WHEN s <= 5 THEN timestamptz '2024-12-01 00:00+00' END,
	CASE WHEN s <= 5 THEN 'ada' END, CASE WHEN s <= 5 THEN 'closed' END, CASE WHEN s <= 5 THEN 'cold' ELSE 'hot' END, 'red'
FROM generate_series(1, 101) AS s;
SQL

my $columns = 'global_seq, stream_id, stream_seq, event_type, body, headers, causation_id, correlation_id, event_version,'
  . ' tenant_id, user_id, is_tombstone, created_at, region';

# Count and checksum of the events whose type begins with base, hot and cold.
sub state
{
	return ask(<<"SQL");
SELECT count(*) || ':' || coalesce(sum(hashtextextended(e::text, 0)::numeric), 0) FROM
	(SELECT $columns FROM events UNION ALL SELECT $columns FROM events_archive) AS e WHERE event_type LIKE 'base-%'
SQL
}

sub make_plain
{
	ask("SELECT rf_uninstall('public', 'public', true)")
	  if ask("SELECT count(*) FROM rf_stores WHERE schema = 'public'") > 0;
	ask('SET client_min_messages = error; DROP VIEW IF EXISTS events_all; DROP TABLE IF EXISTS events, events_archive,'
		  . ' rf_streams, rf_archive_config, rf_event_keys, rf_archive_log, rf_archive_policies, rf_consumers, rf_archive_runs, rf_holds, rf_archive_totals; DROP SCHEMA IF EXISTS checks CASCADE');
	ask($plain);
	return state();
}

# Clients that append to the plain table and to what takes its place, by raw INSERT, each to a stream of its own and
# in turns to those that are there; what the server acknowledged goes to their files.
sub start_clients
{
	my ($prefix, $count, $each) = @_;
	my @clients;

	for my $client (1 .. $count)
	{
		my $script = "SET statement_timeout = '120s';\n";
		for my $n (1 .. $each)
		{
			$script .= "INSERT INTO events (stream_id, stream_seq, event_type, body)"
			  . " VALUES (md5('own $prefix $client')::uuid, $n, '$prefix-$client-$n', '$n') RETURNING event_type;\n";
			my $shared = 6 + $client + 10 * ($n % 9);
			$script .= "INSERT INTO events (stream_id, stream_seq, event_type, body)"
			  . " SELECT md5('stream $shared')::uuid, max(stream_seq) + 1, '$prefix-$client-shared-$n', '$n' FROM events"
			  . " WHERE stream_id = md5('stream $shared')::uuid RETURNING event_type;\n";
		}
		push @clients, start_psql($node, $script, "appender $client");
	}
	return \@clients;
}

# Each number of each stream is there once, from 1 on, and the heads are right.
sub broken
{
	my $heads = ask("SELECT count(*) FROM rf_stores WHERE schema = 'public'");
	return $heads ? ask(<<'SQL') : ask(<<'SQL2');
SELECT count(*) FROM (SELECT stream_id, count(*) AS n, count(DISTINCT stream_seq) AS d, max(stream_seq) AS m,
		min(created_at) AS first, max(created_at) AS last FROM events_all GROUP BY 1) AS e
	FULL JOIN rf_streams AS s USING (stream_id)
	WHERE (n, d, m) IS DISTINCT FROM (s.last_seq, s.last_seq, s.last_seq) AND NOT (n IS NULL AND s.last_seq = 0)
		OR n > 0 AND (s.first_event_at <= e.first AND s.last_event_at >= e.last) IS NOT TRUE
SQL
SELECT count(*) FROM (SELECT stream_id, stream_seq FROM events UNION ALL SELECT stream_id, stream_seq FROM events_archive)
	AS e GROUP BY stream_id HAVING count(*) <> max(stream_seq) OR count(DISTINCT stream_seq) <> count(*) LIMIT 1
SQL2
}

# What must hold of a store that is adopted, whoever appended.
sub check_adopted
{
	my ($before, $name) = @_;

	is(state(), $before, "$name: the events are what they were");
	is(broken(), '0', "$name: streams and heads are right");
	is(ask('SELECT count(*) FROM events_all WHERE bucket_month IS DISTINCT FROM'
				. " date_trunc('month', created_at AT TIME ZONE 'UTC')::date"),
		'0', "$name: each event is in its month");
	is(ask("SELECT count(*) FROM events_archive WHERE event_type LIKE 'base-%' AND migrated_by = 'application'"),
		'2000', "$name: what was cold is cold, and tells who moved it");
	is(ask("SELECT count(*), count(archived_at), min(archived_by), min(colour) FROM rf_streams WHERE colour = 'red'"),
		'101|5|ada|red', "$name: streams are marked as before");
	is(ask('SELECT count(*) FROM rf_event_keys'), '100', "$name: the idempotency keys are known");
	is(ask("SELECT count(*) FROM pg_class WHERE relname ~ 'adopt' AND relkind IN ('r', 'S', 'p')"
				. " UNION ALL SELECT count(*) FROM pg_namespace WHERE nspname ~ '^rf_adopt'"
				. " UNION ALL SELECT count(*) FROM pg_trigger WHERE tgname ~ '^rf_adopt'"),
		"0\n0\n0", "$name: nothing is left over");
	is(ask("SELECT count(*) > 3, count(*) FILTER (WHERE NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = relid"
				. " AND convalidated AND conname IN ('rf_month_bounds', 'rf_bucket_month_tie'))) FROM"
				. " (SELECT * FROM pg_partition_tree('events') UNION ALL SELECT * FROM pg_partition_tree('events_archive')) AS t"
				. ' WHERE isleaf'),
		't|0', "$name: months are tied to times in each leaf");
	is(ask("SELECT events || ':' || substring(detail FROM 'checksum (.*)') FROM rf_archive_log WHERE action = 'adopt'"
				. ' ORDER BY log_id DESC LIMIT 1'),
		ask("SELECT sum(events) || ':' || sum(detail::numeric) FROM rf_archive_log WHERE action = 'adopt batch'"
			. " AND log_id > (SELECT max(log_id) FROM rf_archive_log WHERE action = 'adopt begun')"),
		"$name: the ledger tells what was proven");
	is(broken_indexes($node), '', "$name: indexes and heaps agree");
}

# In place, with clients that append all the time, and readers that see each event once.
my $before = make_plain();
like($before, qr/^8000:/, 'there are events');
{
	my $clients = start_clients('busy', 4, 250);
	my $reads = join '', ("SELECT count(*) FROM events_all WHERE event_type LIKE 'base-%';\n") x 40;
	my $adopter = start_psql($node, "CALL rf_adopt('events');", 'adopter');
	wait_until('the switch', sub { ask("SELECT count(*) FROM rf_stores WHERE schema = 'public'") > 0 });
	my $reader = start_psql($node, $reads, 'reader');
	my ($status, undef, $messages) = finish_psql($adopter);
	is($status, 0, 'adoption ends well') or diag($messages);
	my (undef, $counts) = finish_psql($reader);
	is(join(' ', sort keys %{ { map { $_ => 1 } split /\n/, $counts } }), '8000', 'each reader sees each event once');
	stop_appenders($clients);
	is(join(' ', map { $_->{status} } @$clients), '0 0 0 0', 'no client failed')
	  or diag(join "\n", map { slurp_file($_->{err}) } @$clients);
	check_acknowledged($node, 'busy', $clients, 'in place');
	is(ask("SELECT count(*) FROM events_all WHERE event_type LIKE 'busy-%'"), '2000', 'all were appended');
	check_adopted($before, 'in place');
	my ($next, $highest) = split /\|/,
	  ask("SELECT nextval('events_global_seq_seq'), (SELECT max(global_seq) FROM events_all)");
	cmp_ok($next, '>', $highest, 'numbers go on above the highest');
}

# And back; then UPDATE and DELETE work again, and our functions don't.
is(ask('SELECT rf_flatten()'), '10000', 'the store is flattened');
is(state(), $before, 'flat: the events are what they were');
is(ask("SELECT relkind FROM pg_class WHERE oid IN ('events'::regclass, 'events_archive'::regclass) GROUP BY 1"), 'r',
	'flat: the tables are plain');
is(ask("SELECT count(*) FROM pg_trigger WHERE tgname ~ '^rf_' AND tgrelid::regclass::text ~ '^(events|rf_)'"), '0',
	'flat: there are no triggers');
like(
	($node->psql('postgres', "\\set VERBOSITY verbose\nSELECT * FROM rf_read_all()"))[2],
	qr/ERROR:  55000/,
	'flat: functions refuse');
is(ask("UPDATE events SET user_id = 'x' WHERE event_type = 'busy-1-1' RETURNING 1"), '1', 'flat: events can be changed');
is(ask("SELECT count(*) FROM pg_indexes WHERE tablename = 'events' AND indexname IN ('events_type', 'events_pkey')"),
	'2', 'flat: indexes have the names they had');
ask("DELETE FROM events WHERE event_type LIKE 'busy-%'; DELETE FROM events_archive WHERE event_type LIKE 'busy-%'");
ask("CALL rf_adopt('events')");
check_adopted($before, 'adopted again');

# The adopter dies at each of its places; the next call goes on, or begins anew.
my @points = qw(adopt_watched adopt_checked adopt_prepared adopt_before_locks adopt_before_switch adopt_switched
  adopt_counted adopt_batch adopt_before_finish);
my %stopped_at = map { $_ => 1 } qw(adopt_prepared adopt_before_switch adopt_batch adopt_before_finish);
for my $how ('kill -9', 'immediate stop')
{
	for my $point (@points)
	{
		next if $how ne 'kill -9' && !$stopped_at{$point};
		my $name = "$how at $point";
		$before = make_plain();
		my $holder = hold_point($node, $point);
		my $adopter = start_psql($node, "CALL rf_adopt('events');", 'adopter');
		my $pid = wait_at_point($node, $point, 'adopter', $adopter);
		my $locked = $point eq 'adopt_before_switch' || $point eq 'adopt_before_finish';
		my $clients = start_clients('mid', 2, 500);
		if (!$locked)
		{
			wait_until('events are appended', sub { -s $clients->[0]{out} > 200 });
			is(state(), $before, "$name: all events are seen, each once");
		}
		if ($how eq 'kill -9')
		{
			kill 'KILL', $pid;
		}
		else
		{
			$node->stop('immediate');
		}
		my (undef, undef, $messages) = finish_psql($adopter);
		release_point($holder);
		stop_appenders($clients);
		if ($how eq 'kill -9')
		{
			wait_until_up($node);
		}
		else
		{
			restart_until_up($node);
		}
		like($messages, qr/server closed the connection|terminating connection/, "$name: the adopter died");
		is(state(), $before, "$name: the events are what they were");
		is(broken() || 0, '0', "$name: streams are whole");
		my $more = start_clients('late', 1, 20);
		ask("CALL rf_adopt('events')");
		stop_appenders($more);
		is($more->[0]{status}, 0, "$name: clients append after the crash") or diag(slurp_file($more->[0]{err}));
		my %there = map { $_ => 1 } split /\n/, ask("SELECT event_type FROM events_all");
		my @lost = grep { !$there{$_} } acknowledged([ @$clients, @$more ]);
		is("@lost", '', "$name: what was acknowledged is there");
		check_adopted($before, $name);
	}
}

# A flattening that dies leaves the store as it was.
for my $point (qw(flatten_copied flatten_before_commit))
{
	my $holder = hold_point($node, $point);
	my $flattener = start_psql($node, 'SELECT rf_flatten();', 'flattener');
	kill 'KILL', wait_at_point($node, $point, 'flattener', $flattener);
	finish_psql($flattener);
	release_point($holder);
	wait_until_up($node);
	check_adopted($before, "flattener killed at $point");
}

# What has to wait while a table is adopted says so; cancelled, the adopter stops within a second.
$before = make_plain();
my $holder = hold_point($node, 'adopt_counted');
my $adopter = start_psql($node, "CALL rf_adopt('events');", 'adopter');
my $pid = wait_at_point($node, 'adopt_counted', 'adopter', $adopter);
for my $call ("SELECT * FROM rf_archive_move('2025-01-01')", "SELECT * FROM rf_archive_plan('2025-01-01')",
	"SELECT rf_flip_partition('2024-02-01', 'cold')", "SELECT rf_archive_set_backend('partitioned')",
	"SELECT * FROM rf_archive_reactivate(md5('stream 1')::uuid)", "SELECT rf_redact(md5('stream 1')::uuid, reason => 'r')", 'SELECT rf_flatten()',
	"SELECT rf_uninstall('public', 'public', true)")
{
	like(($node->psql('postgres', "\\set VERBOSITY verbose\n$call"))[2],
		qr/ERROR:  55000: the events of schema "public" are being adopted/, "$call waits for the end");
}
like(($node->psql('postgres', "\\set VERBOSITY verbose\nCALL rf_adopt('events_adopted')"))[2],
	qr/ERROR:  55P03/, 'no other session adopts meanwhile');
is(ask("SELECT stream_seq, event_type FROM rf_read_stream(md5('stream 7')::uuid, 78) UNION ALL"
			. " SELECT stream_seq, 'x' FROM rf_append(md5('stream 7')::uuid, 'x', '{}', expected_seq => 80)"),
	"79|base-7-79\n80|base-7-80\n81|x", 'streams are read whole, and appended to');
is(ask("SELECT stream_seq FROM rf_append(md5('stream 7')::uuid, 'y', '{}', '{\"idempotency_key\": \"key 7\"}')"), '2',
	'a key of the source is known');
is(ask("SELECT count(*), min(stream_seq), max(stream_seq) FROM rf_read_stream(md5('stream 9')::uuid)"), '80|1|80',
	'cold and hot events of a stream are read');
is(ask('SELECT count(*) FROM rf_read_all(0, 100000, include_archived => true)'), '8001', 'a replay shows all');
ask("SELECT pg_cancel_backend($pid)");
my (undef, undef, $messages) = finish_psql($adopter);
like($messages, qr/57014/, 'the adopter is cancelled');
release_point($holder);
ask("CALL rf_adopt('events')");
check_adopted($before, 'cancelled');

# The source is dropped when nobody can see its rows any more, also on a server on which nothing else happens.
$before = make_plain();
my $old = $node->background_psql('postgres');
$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
$adopter = start_psql($node, "CALL rf_adopt('events');", 'adopter');
wait_until('the adopter waits for the reader', sub {
	ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'adopter' AND wait_event = 'Extension'") > 0 });
is(ask("SELECT count(*) FROM pg_class WHERE relname = 'events_adopted'"), '1', 'the source is there for an older snapshot');
$old->query_safe('COMMIT');
my ($status, undef, $refused) = finish_psql($adopter);
is($status, 0, 'adoption ends once the snapshot has gone') or diag($refused);
check_adopted($before, 'an older snapshot');
$old->quit;

done_testing();
