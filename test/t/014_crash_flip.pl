# A flip dies at each of its places, by kill -9 of its backend or with the whole server: the month is in one tier
# then, with the same events, and flips when asked again.
use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowCluster;
use Test::More;

my @points = qw(flip_before_locks flip_detached flip_before_attach flip_before_commit);
my $month = '2024-02-01';

# Wait points count as waits for locks, and must outlast the test's own steps.
my $node = new_store('flip', 'restart_after_crash = on', 'fsync = on', "rillflow.lock_timeout = '60s'",
	"deadlock_timeout = '120s'");
load_events($node, 40, 60);
$node->safe_psql('postgres', "SELECT rf_create_partition('hot', '$month')");
my $before = checksum($node, 'base');
like($before, qr/^2400:/, 'there are events');
my $events = $node->safe_psql('postgres', "SELECT count(*) FROM events WHERE bucket_month = '$month'");
cmp_ok($events, '>', 500, 'there are events in the month');

# where the events of the month lie, and the leaves that it has
sub places
{
	return $node->safe_psql('postgres', <<"SQL");
SELECT string_agg(DISTINCT tableoid::regclass || ' ' || retention_class, ', '), count(*) FROM
	(SELECT tableoid, bucket_month, retention_class FROM events
		UNION ALL SELECT tableoid, bucket_month, retention_class FROM events_archive) AS e
	WHERE bucket_month = '$month'
UNION ALL
SELECT 'leaves: ' || string_agg(relid::regclass::text, ', '), count(*) FROM
	(SELECT relid FROM pg_partition_tree('events') UNION ALL SELECT relid FROM pg_partition_tree('events_archive')) AS t
	WHERE relid::regclass::text LIKE '%2024_02'
UNION ALL
SELECT 'tables', count(*) FROM pg_class WHERE relkind = 'r' AND relname LIKE '%2024_02'
SQL
}

my $old = "events_hot_2024_02 hot|$events\nleaves: events_hot_2024_02|1\ntables|1";
my $new = "events_archive_2024_02 cold|$events\nleaves: events_archive_2024_02|1\ntables|1";

for my $how ('kill -9', 'immediate stop')
{
	for my $point (@points)
	{
		my $name = "$how at $point";
		is(places(), $old, "$name: the month is hot before");

		my $holder = hold_point($node, $point);
		my $flipper = start_psql($node, "SELECT rf_flip_partition('$month', 'cold');", 'flipper');
		my $pid = wait_at_point($node, $point, 'flipper', $flipper);
		if ($how eq 'kill -9')
		{
			kill 'KILL', $pid;
		}
		else
		{
			$node->safe_psql('postgres', 'CHECKPOINT') if $point ne 'flip_detached';
			$node->stop('immediate');
		}
		my (undef, $out, $messages) = finish_psql($flipper);
		release_point($holder);
		if ($how eq 'kill -9')
		{
			wait_until_up($node);
		}
		else
		{
			restart_until_up($node);
		}

		like($messages, qr/server closed the connection|terminating connection/, "$name: the flip died");
		is($out, '', "$name: it told of no success");
		is(places(), $old, "$name: the month is hot after");
		is(checksum($node, 'base'), $before, "$name: the events are what they were");
		is(violations($node), '', "$name: heads, numbers and closed streams are right");
		is(broken_indexes($node), '', "$name: indexes and heaps agree");

		$node->safe_psql('postgres', "SELECT rf_flip_partition('$month', 'cold')");
		is(places(), $new, "$name: it flips when asked again");
		is(checksum($node, 'base'), $before, "$name: and changes nothing");
		$node->safe_psql('postgres', "SELECT rf_flip_partition('$month', 'hot')");
	}
}

# A flip that was committed is there after a crash.
$node->safe_psql('postgres', "SELECT rf_flip_partition('$month', 'cold')");
$node->stop('immediate');
restart_until_up($node);
is(places(), $new, 'a flip that was committed is there after a crash');
is(checksum($node, 'base'), $before, 'with the same events');
is(broken_indexes($node), '', 'indexes and heaps agree');
is($node->safe_psql('postgres', "SELECT count(*) FROM rf_archive_log WHERE action = 'flip'"),
	2 * @points + 1, 'the ledger tells of the flips that were committed, and no others');

done_testing();
