# The worker takes what the server is told: settings change, databases come and go, no slot is free; the extension goes
# and comes back; pg_upgrade runs; the library is not preloaded.
use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowCluster;
use RillflowDump;
use RillflowWorker;
use Test::More;
use Time::HiRes qw(usleep);

my $node = PostgreSQL::Test::Cluster->new('settings');
$node->init;
$node->append_conf('postgresql.conf', join("\n", "timezone = 'UTC'", preloaded('rillflow.max_workers = 1')));
$node->start;

sub ask { return $node->safe_psql('postgres', $_[0]); }

make_store($node, 'busy');
at_work($node, 'busy', 'busy');

# ---- settings

sub reload
{
	$node->append_conf('postgresql.conf', $_[0]);
	$node->reload;
	return;
}

make_store($node, 'second');
moved_by_worker($node, 'second', 'public');
hold_batches($node, $_, 'public') foreach qw(busy second);
add_old_events($node, $_, 'public', 'both', 5, 20) foreach qw(busy second);
wait_until('one is held', sub { return processes($node, 'worker') == 1 });
usleep(1_500_000);
is(scalar processes($node, 'worker'), 1, 'max_workers: one at a time');
reload('rillflow.max_workers = 2');
held_worker($node, $_) foreach qw(busy second);
is(scalar processes($node, 'worker'), 2, 'max_workers: two at a time after a reload');
reload('rillflow.worker = off');
wait_until('no worker runs', sub { return !processes($node, 'worker') });
free_batches($node, $_, 'public') foreach qw(busy second);
usleep(2_500_000);
is(hot_old($node, 'busy', 'public'), 100, 'worker off: nothing is moved');
is(status($node, 'busy', 'p', "concat_ws('|', state, detail)"), 'due|rillflow.worker is off', 'worker off: the status says so');
reload('rillflow.worker = on');
at_work($node, $_, 'on again') foreach qw(busy second);

# A database that nobody tells of is found when the launcher wakes; it sleeps no longer than it is told.
reload("rillflow.naptime = '1h'");
usleep(1_500_000);
make_store($node, 'third');
moved_by_worker($node, 'third', 'public');
pass('naptime: a policy that is set wakes a launcher that sleeps');
reload("rillflow.naptime = '1s'");
at_work($node, 'third', 'naptime');

# ---- the extension goes and comes back, while a worker and sessions use it

my $session = session($node, 'busy');
$session->ask("PREPARE a AS SELECT stream_seq FROM rf_append(md5('session')::uuid, 'x', '1', created_at => '2023-05-05')");
is($session->ask('EXECUTE a'), 1, 'a session has a plan');
for my $held (0, 1)
{
	hold_batches($node, 'busy', 'public') if $held;
	add_old_events($node, 'busy', 'public', "swap $held", 20, 20);
	my $before = union_state($node, 'busy');
	if ($held)
	{
		held_worker($node, 'busy');
		my $drop = session($node, 'busy');
		$drop->tell('DROP EXTENSION rillflow CASCADE; CREATE EXTENSION rillflow');
		wait_until('it waits for the batch', sub {
			return ask("SELECT count(*) FROM pg_stat_activity WHERE datname = 'busy' AND wait_event_type = 'Lock' AND query ~ 'DROP EXTENSION'") == 1;
		});
		free_batches($node, 'busy', 'public');
		$drop->hear;
		unlike($drop->error, qr/ERROR/, 'DROP EXTENSION in the middle of a batch');
		$drop->leave;
	}
	else
	{
		$node->safe_psql('busy', 'DROP EXTENSION rillflow CASCADE; CREATE EXTENSION rillflow');
	}
	$session->ask('EXECUTE a');
	like($session->error, qr/^(psql:\S+ )?ERROR:  \w{5}:/m, 'the session gets an error');
	wait_until('no worker runs', sub { return !processes($node, 'worker') });
	is(union_state($node, 'busy'), $before, 'every event is there');
	$node->safe_psql('busy', "SELECT rf_install('public')");
	is(status($node, 'busy', 'p'), 'disarmed', 'the policy is there, and disarmed');
	is($node->safe_psql('busy', 'SELECT rf_policy_arm()'), 1, 'it is armed');
	like($session->ask('EXECUTE a'), qr/^[1-9]\d*$/, 'the session goes on');
	$node->safe_psql('busy', "SELECT rf_policy_resume('p')"); # a run that found no store has failed
	at_work($node, 'busy', "swapped $held");
	is(runs($node, 'busy', 'count(*)', 'finished_at IS NULL AND run_id < (SELECT max(run_id) FROM rf_archive_runs)'),
		0, 'no run is left open, but for one that goes on');
}
$session->leave;

# ---- no slot is free

my $log = length slurp_file($node->logfile);
$node->append_conf('postgresql.conf', 'max_worker_processes = 2');
$node->restart;
add_old_events($node, 'busy', 'public', 'no slot', 5, 20);
wait_until('the status says so', sub {
	return status($node, 'busy', 'p', 'detail') eq 'no background worker slot is free: see max_worker_processes';
});
usleep(3_000_000);
is(scalar messages($node, qr/policies wait for a background worker slot/, $log), 1, 'no slot: the log says so once');
is(hot_old($node, 'busy', 'public'), 100, 'no slot: it waits');
$node->append_conf('postgresql.conf', 'max_worker_processes = 8');
$node->restart;
at_work($node, 'busy', 'slots');

# ---- pg_upgrade, and without the library

sub single_start
{
	my ($options) = @_;
	$node->stop;
	system_or_bail('pg_ctl', '-w', '-s', '-D', $node->data_dir, '-l', $node->logfile, '-o', "--cluster-name=x $options", 'start');
	$node->_update_pid(1);
	return;
}
single_start('-b');
usleep(1_500_000);
is(scalar processes($node, 'launcher'), 0, 'no launcher runs in pg_upgrade');

$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
add_old_events($node, 'busy', 'public', 'not preloaded', 5, 20);
usleep(1_500_000);
is(hot_old($node, 'busy', 'public'), 100, 'not preloaded: nothing is moved');
like(status($node, 'busy', 'p', 'detail'), qr/^no launcher runs: preload the library, or call rf_worker_start/,
	'not preloaded: the status says why');
my $pid = $node->safe_psql('busy', 'SELECT rf_worker_start()');
is($pid, (processes($node, 'launcher'))[0], 'rf_worker_start: a launcher runs');
like(($node->psql('busy', 'SELECT rf_worker_start()'))[2], qr/NOTICE:  a launcher serves this database already/, 'rf_worker_start: once');
at_work($node, 'busy', 'not preloaded');
hold_batches($node, 'second', 'public');
add_old_events($node, 'second', 'public', 'not served', 5, 20);
like(status($node, 'second', 'p', 'detail'), qr/^no launcher runs/, 'rf_worker_start: for its database alone');
$node->safe_psql('second', 'SELECT rf_worker_start()');
is(scalar processes($node, 'launcher'), 2, 'rf_worker_start: each database can have one');
kill 'KILL', held_worker($node, 'second');
usleep(500_000);
wait_until_up($node);
free_batches($node, 'second', 'public');
at_work($node, $_, 'after a crash') foreach qw(busy second);
ask('DROP DATABASE second');
wait_until('its launcher is gone', sub { return processes($node, 'launcher') == 1 });
pass('rf_worker_start: a launcher goes with its database');

$node->stop;
is(join("\n", messages($node, qr/TRAP:|PANIC:|terminated by signal (?!9)/)), '', 'nothing crashed');

done_testing();
