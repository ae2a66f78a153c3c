# The worker, its launcher and its server are killed at any point, and stopped while a batch goes on: the batch is undone,
# nothing is lost, and all goes on by itself.
use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowCluster;
use RillflowWorker;
use Test::More;
use Time::HiRes qw(time usleep);

# Wait points of flips count as waits for locks, and must outlast the test's own steps.
my $node = new_store('worker', preloaded("rillflow.lock_timeout = '60s'", "deadlock_timeout = '120s'", 'fsync = on',
	'max_wal_senders = 2', 'wal_level = replica'));

sub ask { return $node->safe_psql('postgres', $_[0]); }

sub ledger { return ask("SELECT coalesce(sum(events), 0) FROM rf_archive_log WHERE action = 'batch'"); }

prepare_hold($node, 'postgres', 'public');
load_events($node, 10, 40);
ask("SELECT rf_policy_set('p', '30 days', '1 second', batch_size => 25)");
know($node);
settled($node, 'all streams');

# ---- the worker, its launcher, and its server are killed

my $rounds = 0;

# killed(name, code): events come, and the code kills what moves them; the server is back, and the worker goes on.
sub killed
{
	my ($name, $code) = @_;
	my $cut = runs($node, 'postgres', 'count(*)', "error = 'the run was cut short'");

	$rounds++;
	$code->($name);
	settled($node, $name);
	is(runs($node, 'postgres', 'count(*)', "error = 'the run was cut short'"), $cut + 1, "$name: the run that was cut short says so");
	is(broken_indexes($node), '', "$name: indexes and heaps agree");
	is(ask("SELECT count(*) FROM pg_shmem_allocations WHERE name ~ '^Rillflow'"), 2, "$name: shared memory is ours");
	is(status($node, 'postgres', 'p', 'failures'), 0, "$name: it is no failure of the policy");
	return;
}

for my $point (qw(move_before_delete move_before_close move_before_commit))
{
	killed("kill -9 of the worker at $point", sub {
		my $holder = hold_point($node, $point);
		add_known($node, "round $rounds", 5, 20);
		kill_at($node, $point);
		release_point($holder);
		wait_until_up($node);
	});
}
for my $point (qw(flip_detached flip_before_commit))
{
	killed("kill -9 of the worker at $point", sub {
		ask('ALTER TABLE events_archive DROP CONSTRAINT IF EXISTS waits');
		ask("SELECT rf_create_partition('hot', '2022-0$rounds-01')");
		my $holder = hold_point($node, $point);
		# a run that has looked for months already would move these events by rows
		ask("SELECT rf_policy_pause('p')");
		wait_until('no run goes on', sub { usleep(300_000); return runs($node, 'postgres', 'count(*)', 'finished_at IS NULL') == 0 });
		add_known($node, "round $rounds", 20, 60, "2022-0$rounds-01");
		ask("SELECT rf_policy_resume('p')");
		kill_at($node, $point);
		release_point($holder);
		wait_until_up($node);
	});
	is(runs($node, 'postgres', 'sum(months)', "finished_at > now() - interval '1 minute'") > 0, 1, "$point: the month is flipped then");
}
ask('ALTER TABLE events_archive ADD CONSTRAINT waits CHECK (hold_public.wait(global_seq)) NOT VALID');
my $crash = sub {
	my ($how) = @_;
	return sub {
		my ($name) = @_;
		hold_batches($node, 'postgres', 'public');
		add_known($node, "round $rounds", 5, 20);
		held_worker($node, 'postgres');
		my $moved = ledger();
		$how->();
		is(ledger(), $moved, "$name: the batch in progress is undone");
		is(hot_old($node, 'postgres', 'public'), 100, "$name: all of it");
		free_batches($node, 'postgres', 'public');
	};
};
killed('kill -9 of the launcher', $crash->(sub {
	kill 'KILL', processes($node, 'launcher');
	usleep(500_000);
	wait_until_up($node);
}));
killed('kill -9 of the server', $crash->(sub { $node->kill9; restart_until_up($node); }));
killed('immediate stop', $crash->(sub { $node->stop('immediate'); restart_until_up($node); }));

# A launcher that is ended by itself is back, with all that there is to do.
my ($old) = processes($node, 'launcher');
kill 'TERM', $old;
wait_until('another launcher runs', sub { my ($new) = processes($node, 'launcher'); return $new && $new != $old });
add_known($node, 'another launcher', 5, 20);
settled($node, 'another launcher');

# ---- the server is stopped

# stop_fast(name): in less than five seconds.
sub stop_fast
{
	my ($name) = @_;
	my $begin = time();
	$node->stop('fast');
	cmp_ok(time() - $begin, '<', 5, "$name: the server stops at once");
	return;
}

killed('fast stop', $crash->(sub { stop_fast('fast stop'); $node->start; }));

killed('fast stop without a replica', sub {
	my ($name) = @_;
	wait_until('no worker runs', sub { return !processes($node, 'worker') });
	$node->append_conf('postgresql.conf', "synchronous_standby_names = 'nobody'");
	$node->reload;
	add_known($node, "round $rounds", 5, 20);
	wait_until('the worker waits for a replica', sub {
		return ask("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'rillflow worker' AND wait_event = 'SyncRep'") == 1;
	});
	stop_fast($name);
	$node->append_conf('postgresql.conf', "synchronous_standby_names = ''");
	$node->start;
});

$node->stop;
my @crashes = messages($node, qr/TRAP:|PANIC:|terminated by signal/);
is(scalar grep(!/rillflow (worker|launcher)" \(PID \d+\) was terminated by signal 9/, @crashes), 0, 'nothing crashed but what was killed')
  or diag(join "\n", @crashes);
is(scalar @crashes, 6, 'which did');

done_testing();
