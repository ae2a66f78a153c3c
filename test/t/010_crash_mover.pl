# A moving backend is killed in the middle of a batch, at each place where it can be stopped, while clients append:
# no acknowledged event is lost, none is there twice, and none has changed.
use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowCluster;
use Test::More;

my $clients = 3;
my $rounds = $ENV{RF_SLOW_TESTS} ? 24 : 9;
my @points = qw(move_before_delete move_before_close move_before_commit);

for my $backend (qw(dual_table partitioned))
{
	my $node = new_store("mover_$backend", 'restart_after_crash = on', "rillflow.lock_timeout = '100ms'");

	$node->safe_psql('postgres', "SELECT rf_archive_set_backend('$backend')");
	load_events($node, 40, 40);
	my $before = checksum($node, 'base');
	like($before, qr/^1600:/, "$backend: there are events");

	my $half = $backend eq 'dual_table' ? int(($rounds + 1) / 2) + 1 : int($rounds / 2);
	for my $round (1 .. $half)
	{
		my $point = $points[ $round % @points ];
		my $name = "$backend, round $round, $point";
		my $holder = hold_point($node, $point);
		my $appenders = start_appenders($node, "r$round", $clients, 1500);
		wait_until('clients have appended', sub { return acknowledged($appenders) >= 10; });

		my $mover = start_psql($node, "CALL rf_archive_run('2024-05-01', 30);", 'mover');
		for (1 .. $round)
		{
			wait_at_point($node, $point, 'mover', $mover);
			step_point($holder);
		}
		my $pid = wait_at_point($node, $point, 'mover', $mover);
		my $moved = $node->safe_psql('postgres', q(SELECT coalesce(sum(events), 0) FROM rf_archive_log WHERE action = 'batch'));
		kill 'KILL', $pid;

		stop_appenders([ $mover, @$appenders ]);
		release_point($holder);
		wait_until_up($node);

		like((finish_psql($mover))[2], qr/server closed the connection|terminating connection/, "$name: the mover was killed");
		is($node->safe_psql('postgres', q(SELECT sum(events) FROM rf_archive_log WHERE action = 'batch')),
			$moved, "$name: batches that were committed are there, the one in progress is not");
		cmp_ok($moved, '>', 0, "$name: there are some");
		is(checksum($node, 'base'), $before, "$name: the events are what they were");
		check_acknowledged($node, "r$round", $appenders, $name);
		is(violations($node), '', "$name: heads, numbers and closed streams are right");
		is(broken_indexes($node), '', "$name: indexes and heaps agree");
	}

	# What was left is moved now.
	$node->safe_psql('postgres', "CALL rf_archive_run('2024-05-01', 1000)");
	is($node->safe_psql('postgres', "SELECT count(*) FROM events WHERE retention_class = 'hot' AND created_at < '2024-05-01'"),
		0, "$backend: the next move takes all that is left");
	is(checksum($node, 'base'), $before, "$backend: and changes nothing");
	is(violations($node), '', "$backend: heads, numbers and closed streams are right in the end");
	$node->stop;
}

done_testing();
