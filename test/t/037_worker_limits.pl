# What bounds the runs of policies: their time and their window, also in the middle of a batch; each other, where there
# are more of them than workers; and what stays on record. And a database where nothing may be written.
use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowCluster;
use RillflowDump;
use RillflowWorker;
use Test::More;
use Time::HiRes qw(usleep);

my $node = new_store('limits', preloaded('rillflow.max_workers = 1'));

sub ask { return $node->safe_psql('postgres', $_[0]); }

# What the last run that has ended says.
sub last_run
{
	my ($what) = @_;
	return ask("SELECT $what FROM rf_archive_runs WHERE finished_at IS NOT NULL ORDER BY run_id DESC LIMIT 1");
}

# ---- its time

prepare_hold($node, 'postgres', 'public');
hold_batches($node, 'postgres', 'public');
add_known($node, 'first', 10, 20);
ask("SELECT rf_policy_set('p', '30 days', '1 second', batch_size => 50, max_runtime => '2 seconds')");
wait_until('a run has ended', sub { return runs($node, 'postgres', 'count(*)', 'finished_at IS NOT NULL') > 0 });
is(last_run('held_back_by'), 'max_runtime', 'max_runtime: the run says what stopped it');
is( last_run("finished_at - started_at BETWEEN interval '2 seconds' AND interval '3 seconds'"),
	't', 'max_runtime: it stops within a second, in the middle of a batch');
is(hot_old($node, 'postgres', 'public'), 200, 'max_runtime: the batch is undone');
is(status($node, 'postgres', 'p', 'failures'), 0, 'max_runtime: it is no failure');
check_known($node, 'max_runtime');

# ---- its window

ask(<<'SQL');
UPDATE rf_archive_policies SET max_runtime = '1 hour', window_start = (now() AT TIME ZONE 'UTC' - interval '1 hour')::time,
	window_end = (now() AT TIME ZONE 'UTC' + interval '6 seconds')::time
SQL
held_worker($node, 'postgres');
wait_until('the policy waits for its window', sub { return status($node, 'postgres', 'p', 'detail') eq 'waits for its window' });
is(last_run('held_back_by'), 'window', 'window: the run says what stopped it');
is(ask(<<'SQL'), 't', 'window: it stops within a second of its end, in the middle of a batch');
SELECT mod((extract(epoch FROM (finished_at AT TIME ZONE 'UTC')::time - window_end) + 86400)::numeric, 86400) <= 1
FROM rf_archive_runs, rf_archive_policies WHERE finished_at IS NOT NULL ORDER BY run_id DESC LIMIT 1
SQL
is(hot_old($node, 'postgres', 'public'), 200, 'window: the batch is undone');
is(status($node, 'postgres', 'p', 'failures'), 0, 'window: it is no failure');
check_known($node, 'window');
ask('UPDATE rf_archive_policies SET window_start = NULL, window_end = NULL');
free_batches($node, 'postgres', 'public');
settled($node, 'without a window');

# ---- the record

ask("SELECT rf_policy_pause('p')");
wait_until('no worker runs', sub { return !processes($node, 'worker') });
ask(<<'SQL');
INSERT INTO rf_archive_runs (policy, started_at, finished_at)
	SELECT 'p', now() - interval '1 day' + n * interval '1 second', now() FROM generate_series(1, 1200) AS n;
INSERT INTO rf_archive_runs (policy, started_at, finished_at) VALUES ('old', now() - interval '31 days', now()), ('gone', now() - interval '29 days', now());
SELECT rf_policy_resume('p');
SQL
my $last = ask('SELECT max(run_id) FROM rf_archive_runs');
wait_until('it runs again', sub { return runs($node, 'postgres', 'count(*)', "run_id > $last AND finished_at IS NOT NULL") > 0 });
is(runs($node, 'postgres', "count(*) BETWEEN 1000 AND 1001", "policy = 'p'"), 't', 'the record: the last runs of a policy are kept, no others');
is(runs($node, 'postgres', "string_agg(policy, ' ')", "policy <> 'p'"), 'gone', 'the record: those of policies that are no more for a month');
ask("SELECT rf_policy_remove('p')");

# ---- each other

# Four policies in two databases, each due all the time, each run of which lasts for two seconds; one runs at a time.
my @places = map { [ $_, 'public' ] } qw(many few);
make_store($node, $_) foreach qw(many few);
for my $store (qw(second third))
{
	$node->safe_psql('many', "CREATE SCHEMA $store; SELECT rf_install('$store', '$store')");
	prepare_hold($node, 'many', $store);
	push @places, [ 'many', $store ];
}
$node->safe_psql('few', "SELECT rf_policy_pause('p')");
$node->safe_psql('many', "SELECT rf_policy_pause('p')");
hold_batches($node, @$_), add_old_events($node, @$_, 'turns', 5, 20) foreach @places;
my $from = ask('SELECT clock_timestamp()');
$node->safe_psql('many', <<'SQL');
SELECT rf_policy_set('p', '30 days', '1 second', max_runtime => '2 seconds', tenant => store) FROM unnest(ARRAY['second', 'third']) AS store;
UPDATE rf_archive_policies SET max_runtime = '2 seconds';
SELECT rf_policy_resume('p');
SQL
$node->safe_psql('few', "UPDATE rf_archive_policies SET max_runtime = '2 seconds'; SELECT rf_policy_resume('p')");

sub turns
{
	my ($database, $store) = @_;
	return $node->safe_psql($database, "SELECT count(*) FROM $store.rf_archive_runs WHERE started_at > '$from'");
}

# What to know of turns that are not as they should be.
sub show_turns
{
	diag($_->[1], ' in ', $_->[0], ":\n",
		$node->safe_psql($_->[0], "SELECT * FROM $_->[1].rf_archive_runs WHERE started_at > '$from' ORDER BY run_id"))
	  foreach @places;
	return;
}
wait_until('each has had two turns', sub { return !grep { turns(@$_) < 2 } @places });
my %turns = map { ("$_->[0] $_->[1]" => turns(@$_)) } @places;
my $of_many = $turns{'many public'} + $turns{'many second'} + $turns{'many third'};
cmp_ok(abs($of_many - $turns{'few public'}), '<=', 2, 'turns: of two databases, each has as many') or show_turns();
my ($least, $most) = (sort { $a <=> $b } @turns{ 'many public', 'many second', 'many third' })[ 0, 2 ];
cmp_ok($most - $least, '<=', 2, 'turns: and so has each store of one') or show_turns();
free_batches($node, @$_) foreach @places;
moved_by_worker($node, @$_) foreach @places;
ask("DROP DATABASE $_ WITH (FORCE)") foreach qw(many few);

# ---- where nothing may be written

ask("SELECT rf_policy_set('p', '30 days', '1 second')");
settled($node, 'before');
my $log = length slurp_file($node->logfile);
ask('ALTER DATABASE postgres SET default_transaction_read_only = on');
$node->safe_psql('postgres', 'SET default_transaction_read_only = off; ' . <<'SQL');
INSERT INTO events (stream_id, event_type, body, created_at, bucket_month)
SELECT md5('read-only')::uuid, 'base-read-only-' || n, '{}', timestamptz '2023-05-05 00:00+00' + n * interval '1 minute', '2023-05-01'
FROM generate_series(1, 50) AS n
SQL
know($node);
wait_until('the log says so', sub { return messages($node, qr/LOG:  policy run not begun: policy=p sqlstate=25006 error="cannot execute \w+ in a read-only transaction"/, $log) });
usleep(5_000_000);
is(scalar messages($node, qr/cannot execute/, $log), 1, 'read-only: the log says it once in a while');
is(hot_old($node, 'postgres', 'public'), 50, 'read-only: nothing is moved');
like(status($node, 'postgres', 'p', "concat_ws('|', state, detail)"), qr/^due\|rests until .*, for what the log says/, 'read-only: the status says that the log tells');
is(status($node, 'postgres', 'p', 'failures'), 0, 'read-only: the policy has not failed');
check_known($node, 'read-only');
$node->safe_psql('postgres', 'SET default_transaction_read_only = off; ALTER DATABASE postgres RESET default_transaction_read_only');
$node->restart;    # which ends the rest
settled($node, 'writable again');

$node->stop;
is(join("\n", messages($node, qr/TRAP:|PANIC:|terminated by signal (?!9)/)), '', 'nothing crashed');

done_testing();
