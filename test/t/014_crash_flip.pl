# A flip, or a change of the backend, dies at each of its places, by kill -9 of its backend or with the whole server:
# everything is in one tier then, with the same events, and it works when asked again.
use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowCluster;
use Test::More;

# Wait points count as waits for locks, and must outlast the test's own steps.
my $node = new_store('flip', 'restart_after_crash = on', 'fsync = on', "rillflow.lock_timeout = '60s'",
	"deadlock_timeout = '120s'");
load_events($node, 40, 60);
$node->safe_psql('postgres', "SELECT rf_create_partition('hot', month) FROM unnest(ARRAY[date '2024-02-01', '2024-03-01']) AS month");
my $before = checksum($node, 'base');
like($before, qr/^2400:/, 'there are events');

# where the events lie that are of these months, their class, and the tables that there are for months
sub places
{
	return $node->safe_psql('postgres', <<'SQL');
SELECT what || '|' || n FROM (SELECT tableoid::regclass::text || ' ' || retention_class, count(*) FROM
	(SELECT tableoid, retention_class FROM events UNION ALL SELECT tableoid, retention_class FROM events_archive) AS e
	GROUP BY 1
UNION ALL
SELECT 'leaf ' || relid::regclass, count(*) FROM
	(SELECT relid FROM pg_partition_tree('events') UNION ALL SELECT relid FROM pg_partition_tree('events_archive')) AS t
	WHERE relid::regclass::text ~ '2024' GROUP BY 1
UNION ALL
SELECT 'tables', count(*) FROM pg_class WHERE relkind = 'r' AND relname ~ '2024'
UNION ALL
SELECT 'backend ' || backend, 1 FROM rf_archive_status()) AS p (what, n) ORDER BY what COLLATE "C"
SQL
}

# The statement dies at the point, the way that is told, when it comes there for the n-th time.
sub die_at
{
	my ($how, $point, $times, $statement) = @_;
	my $name = "$how at $point" . ($times > 1 ? ", time $times" : '');
	my $old = places();
	my $holder = hold_point($node, $point);
	my $session = start_psql($node, $statement, 'flipper');
	my $pid = wait_at_point($node, $point, 'flipper', $session);
	for (2 .. $times)
	{
		step_point($holder);
		wait_at_point($node, $point, 'flipper', $session);
	}
	if ($how eq 'kill -9')
	{
		kill 'KILL', $pid;
	}
	else
	{
		$node->safe_psql('postgres', 'CHECKPOINT') if $point ne 'flip_detached';
		$node->stop('immediate');
	}
	my (undef, $out, $messages) = finish_psql($session);
	release_point($holder);
	if ($how eq 'kill -9')
	{
		wait_until_up($node);
	}
	else
	{
		restart_until_up($node);
	}
	like($messages, qr/server closed the connection|terminating connection/, "$name: it died");
	is($out, '', "$name: it told of no success");
	is(places(), $old, "$name: everything is where it was");
	check($name);
	return $name;
}

sub check
{
	my ($name) = @_;
	is(checksum($node, 'base'), $before, "$name: the events are what they were");
	is(violations($node), '', "$name: heads, numbers and closed streams are right");
	is(broken_indexes($node), '', "$name: indexes and heaps agree");
	return;
}

my $flips = 0;

# Flips of one month.
my $events = $node->safe_psql('postgres', "SELECT count(*) FROM events WHERE bucket_month = '2024-02-01'");
cmp_ok($events, '>', 500, 'there are events in the month');
my $flip = "SELECT rf_flip_partition('2024-02-01', 'cold');";
for my $how ('kill -9', 'immediate stop')
{
	for my $point (qw(flip_before_locks flip_detached flip_before_attach flip_before_commit))
	{
		like(places(), qr/^events_hot_2024_02 hot\|$events$/m, 'the month is hot');
		my $name = die_at($how, $point, 1, $flip);
		$node->safe_psql('postgres', $flip);
		$flips++;
		like(places(), qr/^events_archive_2024_02 cold\|$events$/m, "$name: it flips when asked again");
		unlike(places(), qr/hot_2024_02/, "$name: and leaves nothing behind");
		is(checksum($node, 'base'), $before, "$name: and changes nothing");
		$node->safe_psql('postgres', "SELECT rf_flip_partition('2024-02-01', 'hot')");
	}
}

# A flip that was committed is there after a crash.
$node->safe_psql('postgres', $flip);
$flips++;
$node->stop('immediate');
restart_until_up($node);
like(places(), qr/^events_archive_2024_02 cold\|$events$/m, 'a flip that was committed is there after a crash');
check('after a crash');
is($node->safe_psql('postgres', "SELECT count(*) FROM rf_archive_log WHERE action = 'flip'"),
	$flips, 'the ledger tells of the flips that were committed, and no others');

# Changes of the backend, of two months that flip, and rows of the default.
$node->safe_psql('postgres', "SELECT rf_flip_partition('2024-03-01', 'cold')");
$node->safe_psql('postgres', "SELECT rf_archive_move('2024-02-01')");
like(places(), qr/^events_archive_default cold\|[1-9]\d*$/m, 'there are cold rows in the default');
my @steps = (
	[ 'convert_before_locks', 1 ],
	[ 'flip_detached', 1 ],
	[ 'flip_before_attach', 2 ],
	[ 'convert_before_rows', 1 ],
	[ 'convert_before_commit', 1 ]);
my ($backend, $other) = qw(partitioned dual_table);
my ($to, $from) = qw(cold archive);
for my $how ('kill -9', 'immediate stop')
{
	for my $step (@steps)
	{
		my ($point, $times) = @$step;
		my $old = places();
		my $change = "SELECT rf_archive_set_backend('$backend');";
		like($old, qr/^events_${from}_2024_02 cold\|$events$/m, "the cold tier is in events_$from");
		my $name = die_at($how, $point, $times, $change);
		is($node->safe_psql('postgres', 'SELECT backend FROM rf_archive_status()'), $other, "$name: with its backend");
		$node->safe_psql('postgres', $change);
		is( places(),
			join("\n", sort map { s/_${from}_/_${to}_/r =~ s/$other/$backend/r } split /\n/, $old),
			"$name: it works when asked again");
		check("$name, and done then");
		($backend, $other) = ($other, $backend);
		($to, $from) = ($from, $to);
	}
}
$node->stop('immediate');
restart_until_up($node);
like(places(), qr/^events_archive_2024_02 cold\|$events$/m, 'a change that was committed is there after a crash');
check('after the last crash');
is($node->safe_psql('postgres', "SELECT count(*) FROM rf_archive_log WHERE action = 'convert'"),
	2 * 3 * @steps, 'the ledger tells of what was committed, and nothing else');

done_testing();
