# A run yields: its batches shrink while others hold locks or come first, and grow again; it stands still while a
# replica or a slot is behind, and says which. Whatever was in the way, nothing is lost, and it is no error.
use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowCluster;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = PostgreSQL::Test::Cluster->new('primary');
$node->init(allows_streaming => 'logical');
$node->append_conf('postgresql.conf', "timezone = 'UTC'\nrillflow.batch_size = 500\nautovacuum = off");
$node->start;
prepare_store($node);

# The loop of a run, without a worker: it tells of each of its steps.
sub ask { return $node->safe_psql('postgres', $_[0]); }

ask(<<'SQL');
CREATE PROCEDURE test_run(before timestamptz, batch_size int, max_lag interval, seconds int, batches bigint, patience int)
	LANGUAGE C AS 'rillflow', 'rf_test_worker_move'
SQL

# An event of the past, in the month's leaf where there is one.
sub append
{
	my ($stream, $at) = @_;
	ask("SELECT rf_append(md5('$stream')::uuid, 'base-$stream', '{}', created_at => '$at')");
	return;
}

ask("SELECT rf_create_partition(tier, month) FROM unnest(ARRAY['hot', 'cold']) AS tier, unnest(ARRAY[date '2020-01-01', '2020-02-01']) AS month");
append('both', '2020-01-05'), append('one', '2020-01-05');
append('both', '2020-01-06'), append('both', '2020-02-05');
my $streams = 100;
my $total = 4 + $streams * 300;
load_events($node, $streams, 300);
my $before = checksum($node, 'base');
like($before, qr/^$total:/, 'there are events');

sub check_store
{
	my ($name) = @_;
	is(checksum($node, 'base'), $before, "$name: the events are what they were");
	is(violations($node), '', "$name: heads, numbers and closed streams are right");
	return;
}

my %defaults = (batch_size => 'NULL', max_lag => 'NULL', seconds => 600, batches => 1_000_000, patience => 600_000);

sub start_run
{
	my ($until, %options) = (@_);
	my %with = (%defaults, %options);
	my $settings = $with{settings} // '';
	return start_psql($node,
		"${settings}CALL test_run('$until', $with{batch_size}, $with{max_lag}, $with{seconds}, $with{batches}, $with{patience});", 'run');
}

# steps(run): what it has told until now, a hash each.
sub steps
{
	my ($run) = @_;
	my $messages = slurp_file($run->{err});
	my @steps;

	push @steps, { batches => $1, events => $2, size => $3, held => $4 }
	  while $messages =~ /step: batches=(\d+) events=(\d+) batch_size=(\d+) held_back_by='([^\n]*)'\n/g;
	return @steps;
}

# wait_for_step(run, what, code): until a step is as the code says, which is given it.
sub wait_for_step
{
	my ($run, $what, $code) = @_;
	return wait_until($what, sub {
		my $messages = slurp_file($run->{err});
		die "the run ended before: $messages" if $messages =~ /ERROR|FATAL|complete:/;
		my ($step) = grep { $code->($_) } steps($run);
		return $step;
	});
}

# end_run(run, name): until it ends, well; returns what it says at the end.
sub end_run
{
	my ($run, $name) = @_;
	my ($status, $out, $err) = finish_psql($run);

	is($status, 0, "$name: no error") or diag($err);
	$err =~ /NOTICE: .*?((?:not )?complete): expected=(\d+) batches=(\d+) events=(\d+) months=(\d+) held_back_by='(.*)'\n/
	  or die "no end: $err";
	return { complete => $1, batches => $3, events => $4, months => $5, held => $6 };
}

# shrinks_and_grows(name, run, reason, code): it shrinks to the smallest batch for that reason, and grows again when
# the code has taken the reason away.
sub shrinks_and_grows
{
	my ($name, $run, $reason, $code) = @_;
	my $smallest = wait_for_step($run, "$name: the batch shrinks", sub { $_[0]{size} == 10 && $_[0]{held} eq $reason });

	$code->();
	my $end = end_run($run, $name);
	my @steps = steps($run);
	my ($largest) = sort { $b <=> $a } map { $_->{size} } grep { $_->{events} > $smallest->{events} && !$_->{held} } @steps;
	cmp_ok($largest, '>', 200, "$name: the batch grows again");
	is($end->{complete}, 'complete', "$name: all was moved");
	is($end->{held}, '', "$name: nothing holds it back then");
	cmp_ok($end->{events}, '>', 2000, "$name: events were moved");
	is(ask("SELECT count(*) FROM events_archive WHERE retention_class = 'cold'"), $end->{events} + cold_before(),
		"$name: as many as it says");
	check_store($name);
	return @steps;
}

my $cold = 0;
sub cold_before { return $cold; }
sub note_cold { $cold = ask('SELECT count(*) FROM events_archive'); return; }

# What a batch noted down of its streams before it was undone is forgotten. 'one' is emptied by the batch of January,
# which is held where it closes; the batch of February takes the last event of 'both', two of which are hot.
ask("CREATE INDEX ON events_hot_2020_0$_ (retention_class)") foreach 1, 2;
my $holder = hold_point($node, 'close_before_lock');
my $run = start_run('2020-03-01', patience => 300);
my $end = end_run($run, 'undone');
is($end->{complete}, 'not complete', 'undone: a batch that was held is left');
is($end->{held}, 'locks', 'undone: it says why');
is($end->{events}, 1, 'undone: the batch of the next month is not');
release_point($holder);
check_store('undone');
$end = end_run(start_run('2020-03-01'), 'taken up');
is("$end->{complete}: $end->{events}", 'complete: 3', 'taken up: the next run moves what was left');
is(ask("SELECT count(*) FROM rf_streams WHERE archived_by = 'archive_move'"), 2, 'taken up: and closes the streams');
check_store('taken up');
note_cold();

# Nobody in the way: it grows by itself, and no further than it may.
$end = end_run($run = start_run('2024-01-18', batch_size => 800), 'alone');
is($end->{complete}, 'complete', 'alone: all is moved');
my ($largest) = sort { $b <=> $a } map { $_->{size} } steps($run);
is($largest, 800, 'alone: the batch grows to what the policy says');
is(join(',', grep { $_ } map { $_->{held} } steps($run)), '', 'alone: nothing holds it back');
check_store('alone');
note_cold();

# A row that somebody holds, in the middle of what is to move.
my $other = $node->background_psql('postgres');
$other->query_safe('BEGIN');
is($other->query_safe("SELECT count(*) FROM (SELECT FROM events WHERE event_type = 'base-7-60' FOR UPDATE) AS r"), 1, 'a row is held');
$run = start_run('2024-02-08');
shrinks_and_grows('row', $run, 'locks', sub { $other->query_safe('COMMIT'); });
note_cold();

# A table that somebody holds.
$other->query_safe('BEGIN; LOCK TABLE rf_archive_log IN SHARE MODE');
$run = start_run('2024-02-25');
shrinks_and_grows('table', $run, 'locks', sub { $other->query_safe('COMMIT'); });
note_cold();

# … and does not let go, from the first step on, until there is no time left.
$other->query_safe('SELECT pg_advisory_lock(30)');
$run = start_run('2024-03-01', seconds => 2,
	settings => "SELECT count(*) FROM rf_archive_status();\nSELECT pg_advisory_lock_shared(30);\n");
wait_until('the session knows its store', sub {
	return ask("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted") == 1;
});
$other->query_safe('BEGIN; LOCK TABLE events_hot; SELECT pg_advisory_unlock(30)');
$end = end_run($run, 'locked');
is("$end->{complete}: $end->{events}, $end->{held}", 'not complete: 0, locks', 'locked: the run ends, and says why');
$other->query_safe('COMMIT');
check_store('locked');

# What comes first again and again.
ask(<<'SQL');
CREATE TABLE checks.first_comer (n int);
INSERT INTO checks.first_comer VALUES (1);
CREATE FUNCTION checks.comes_last(bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	IF $1 % 100 = 0 AND EXISTS (SELECT FROM checks.first_comer) THEN
		RAISE SQLSTATE '40001' USING MESSAGE = 'somebody came first';
	END IF;
	RETURN true;
END $$;
ALTER TABLE events_archive ADD CONSTRAINT comes_last CHECK (checks.comes_last(global_seq)) NOT VALID;
SQL
$run = start_run('2024-03-15');
shrinks_and_grows('conflicts', $run, 'conflicts', sub { ask('DELETE FROM checks.first_comer'); });
ask('ALTER TABLE events_archive DROP CONSTRAINT comes_last');
note_cold();

# Its owner wants it to stop.
$end = end_run(start_run('2024-03-25', batch_size => 20, batches => 3), 'stop');
is("$end->{complete}: $end->{batches}, $end->{held}", 'not complete: 3, ', 'stop: after three batches');
check_store('stop');

# A consumer: a run goes as far as it has read, and says who it was.
my $due = "FROM events WHERE created_at < '2024-03-25'";
my $read = ask("SELECT global_seq $due ORDER BY global_seq OFFSET 99 LIMIT 1");
ask("SELECT rf_consumer_advance('slow one', $read)");
$end = end_run(start_run('2024-03-25', batch_size => 30), 'consumer');
is("$end->{complete}: $end->{events}, $end->{held}", 'not complete: 100, consumer "slow one"', 'consumer: it says by whom');
is(ask("SELECT min(global_seq) > $read AND count(*) > 100 $due"), 't', 'consumer: what has not been read is hot');
check_store('consumer');
ask("SELECT rf_consumer_remove('slow one')");

# One that is about to register, and takes its time.
$other->query_safe("BEGIN; SELECT rf_consumer_advance('new one', $read)");
$end = end_run(start_run('2024-03-25', seconds => 2), 'registering');
is("$end->{complete}: $end->{events}, $end->{held}", 'not complete: 0, locks', 'registering: the run ends, and says why');
$other->query_safe('ROLLBACK');
check_store('registering');

# ---- replicas and slots

$node->safe_psql('postgres', "SELECT pg_create_physical_replication_slot('standby_slot')");
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', "primary_slot_name = 'standby_slot'\nwal_receiver_status_interval = 1");
$standby->start;
$node->wait_for_catchup($standby);

# Samples of the WAL are older than the limit then, so that the first look of a run shows who is behind.
sub let_samples_age
{
	end_run(start_run('2000-01-01', max_lag => "'1 second'", seconds => 1), 'samples');
	usleep(2_100_000);
	return;
}

# held_by(name, who, code): a run stands still for that, before its first batch, until the code is done.
sub held_by
{
	my ($name, $until, $who, $code) = @_;
	my $run = start_run($until, max_lag => "'1 second'");
	my $step = wait_for_step($run, "$name: the run is held back", sub { $_[0]{held} });

	is($step->{held}, $who, "$name: it says by whom");
	is($step->{events}, 0, "$name: before it moves an event");
	my $seen = @{ [ steps($run) ] };
	wait_until("$name: it goes on to tell", sub { return steps($run) > $seen + 2 });
	is((grep { $_->{events} > 0 } steps($run)), 0, "$name: it stands still");
	is(ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'run' AND backend_xmin IS NOT NULL AND state <> 'active'"), 0,
		"$name: without a snapshot");
	$code->();
	my $end = end_run($run, $name);
	is("$end->{complete}, $end->{held}", 'complete, ', "$name: it goes on, to the end");
	cmp_ok($end->{events}, '>', 1000, "$name: events were moved");
	check_store($name);
	$node->wait_for_catchup($standby);
	is(checksum($standby, 'base'), $before, "$name: the standby has them, too");
	return;
}

# Nobody is behind.
$end = end_run($run = start_run('2024-03-28', max_lag => "'1 minute'"), 'in time');
is($end->{complete}, 'complete', 'in time: a run with a limit moves');
cmp_ok($end->{events}, '>', 500, 'in time: events');
is(join(',', grep { $_ } map { $_->{held} } steps($run)), '', 'in time: nothing holds it back');

# A replica that replays nothing: the server knows of no lag.
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
wait_until('replay is paused', sub { return $standby->safe_psql('postgres', 'SELECT pg_get_wal_replay_pause_state()') eq 'paused' });
append('later', '2030-01-01');
let_samples_age();
$before = checksum($node, 'base');
held_by('paused', '2024-04-04', 'replica "standby"', sub { $standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()'); });

# A replica that replays late, and no samples that are old enough: the server knows the lag.
$node->restart;
$standby->append_conf('postgresql.conf', "recovery_min_apply_delay = '4s'");
$standby->reload;
wait_until('the server knows of a lag', sub {
	append('later', '2030-01-01');
	return ask("SELECT count(*) FROM pg_stat_replication WHERE replay_lag > '2 seconds'") == 1;
});
append('later', '2030-01-01');
$before = checksum($node, 'base');
held_by('delayed', '2024-04-10', 'replica "standby"', sub {
	$standby->append_conf('postgresql.conf', "recovery_min_apply_delay = '0'");
	$standby->reload;
});

# A slot that nobody reads.
ask("SELECT pg_create_logical_replication_slot('idle', 'pgoutput')");
append('later', '2030-01-01');
$before = checksum($node, 'base');
let_samples_age();
$end = end_run(start_run('2024-04-16', max_lag => "'1 second'", seconds => 2), 'no time');
is("$end->{complete}: $end->{events}, $end->{held}", 'not complete: 0, slot "idle"', 'no time: the run ends, and says why');
$run = start_run('2024-04-16', max_lag => "'1 second'");
wait_for_step($run, 'cancel: the run is held back', sub { $_[0]{held} });
ask('SELECT pg_cancel_backend(' . backend_pid($node, 'run') . ')');
my ($status, $out, $err) = finish_psql($run);
like($err, qr/ERROR:  57014:/, 'cancel: a run that is held back is cancelled');
held_by('slot', '2024-04-16', 'slot "idle"', sub { ask("SELECT pg_drop_replication_slot('idle')"); });

$other->quit;

# ---- a policy, run by a worker: what holds it back is on record

ask("SELECT pg_create_logical_replication_slot('idle', 'pgoutput')");
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'rillflow'\nrillflow.naptime = '1s'");
$node->restart;
my $hot = "SELECT count(*) FROM events WHERE retention_class = 'hot' AND created_at < '2025-01-01'";
my $due = ask($hot);
cmp_ok($due, '>', 500, 'policy: events are due');
let_samples_age();
ask("SELECT rf_policy_set('p', older_than => '1 day', every => '2 seconds', max_replica_lag => '1 second')");
wait_until('policy: its run is held back', sub {
	return ask('SELECT held_back_by FROM rf_archive_runs ORDER BY run_id DESC LIMIT 1') eq 'slot "idle"';
});
is(ask($hot), $due, 'policy: nothing is moved');
ask("SELECT pg_drop_replication_slot('idle')");
wait_until('policy: all is moved', sub { return ask($hot) == 0; });
wait_until('policy: its run ends', sub {
	return ask("SELECT count(*) FROM rf_archive_runs WHERE events + months > 0 AND finished_at IS NOT NULL AND held_back_by IS NULL AND error IS NULL") > 0;
});
check_store('policy');

$standby->stop;
$node->stop;
unlike(slurp_file($node->logfile), qr/TRAP:|PANIC:|terminated by signal/, 'the server never crashed');

done_testing();
