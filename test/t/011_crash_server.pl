# The whole server goes down, by immediate stop or by kill -9 of the postmaster, in the middle of a move and of
# appends, with fsync on: it comes up without any manual step, and nothing that was acknowledged is lost.
use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowCluster;
use Test::More;

my $clients = 4;
my $rounds = $ENV{RF_SLOW_TESTS} ? 10 : 4;
my @points = qw(move_before_commit move_before_close);

my $node = new_store('server', 'fsync = on', 'synchronous_commit = on', 'full_page_writes = on',
	"rillflow.lock_timeout = '100ms'");
load_events($node, 30, 60);
my $before = checksum($node, 'base');
like($before, qr/^1800:/, 'there are events');

for my $round (1 .. $rounds)
{
	my $point = $points[ int($round / 2) % @points ];
	my $how = $round % 2 ? 'immediate stop' : 'kill -9';
	my $name = "round $round, $how";
	my $holder = hold_point($node, $point);
	my $appenders = start_appenders($node, "r$round", $clients, 2000);
	my $mover = start_psql($node, "CALL rf_archive_run('2024-05-01', 25);", 'mover');

	for (1 .. 3)
	{
		wait_at_point($node, $point, 'mover', $mover);
		step_point($holder);
	}
	wait_at_point($node, $point, 'mover', $mover);
	wait_until('clients have appended', sub { return acknowledged($appenders) >= 20; });
	my $moved = $node->safe_psql('postgres', q(SELECT sum(events) FROM rf_archive_log WHERE action = 'batch'));

	# Half of the rounds, a checkpoint has half of it on disk.
	$node->safe_psql('postgres', 'CHECKPOINT') if $round % 4 < 2;
	if ($how eq 'kill -9')
	{
		$node->kill9;
	}
	else
	{
		$node->stop('immediate');
	}
	stop_appenders([ $mover, @$appenders ]);
	release_point($holder);
	restart_until_up($node);

	is($node->safe_psql('postgres', q(SELECT sum(events) FROM rf_archive_log WHERE action = 'batch')),
		$moved, "$name: batches that were committed are there, the one in progress is not");
	is(checksum($node, 'base'), $before, "$name: the events are what they were");
	check_acknowledged($node, "r$round", $appenders, $name);
	is(violations($node), '', "$name: heads, numbers and closed streams are right");
	is(broken_indexes($node), '', "$name: indexes and heaps agree");
}

$node->safe_psql('postgres', "CALL rf_archive_run('2024-05-01', 1000)");
is($node->safe_psql('postgres', "SELECT count(*) FROM events WHERE retention_class = 'hot' AND created_at < '2024-05-01'"),
	0, 'the next move takes all that is left');
is(checksum($node, 'base'), $before, 'and changes nothing');
is(violations($node), '', 'heads, numbers and closed streams are right in the end');

done_testing();
