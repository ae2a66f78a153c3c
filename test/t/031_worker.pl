# The background worker, left to itself: a policy moves what is due, again and again, and says what it does. It is
# paused, resumed, cancelled, removed and told to run, and keeps to its window.
use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowCluster;
use RillflowWorker;
use Test::More;
use Time::HiRes qw(usleep);

my $node = new_store('worker', preloaded());

sub ask { return $node->safe_psql('postgres', $_[0]); }

# ---- a policy at work

is(scalar processes($node, 'launcher'), 1, 'preloaded: a launcher runs');
load_events($node, 30, 40);
ask("SELECT rf_append(md5('young')::uuid, 'base-young', '{}')");
like(know($node), qr/^1201:/, 'there are events');
is(ask('SELECT count(*) > 1000 FROM events_hot_default'), 't', 'old ones are in the default partition');
ask("SELECT rf_policy_set('p', older_than => '30 days', every => '2 seconds', batch_size => 50, premake => 2)");
settled($node, 'at work');
is(cold($node, 'postgres', 'public'), 1200, 'at work: what is due was moved, and nothing else');
is(ask('SELECT count(*) FROM events_hot_default'), 0, 'at work: the default partition was drained');
is( ask(<<'SQL'), 3, 'at work: there are months ahead');
SELECT count(*) FROM rf_partitions() WHERE retention = 'hot'
	AND from_month IN (SELECT date_trunc('month', now() AT TIME ZONE 'UTC') + n * interval '1 month' FROM generate_series(0, 2) AS n)
SQL
is(runs($node, 'postgres', "concat_ws(' ', sum(events), sum(batches) >= 24, count(error), bool_and(finished_at >= started_at))"),
	'1200 t 0 t', 'at work: the runs are on record');
is(runs($node, 'postgres', "count(*)", "events > 0 AND (expected IS NULL OR batch_size NOT BETWEEN 1 AND 50)"), 0,
	'at work: with what they expected, and batches no larger than allowed');
wait_until('a second run is on record', sub { return runs($node, 'postgres', 'count(*)') > 1 });
wait_until('the policy waits', sub { return status($node, 'postgres', 'p') eq 'waiting' });
is(status($node, 'postgres', 'p', "concat_ws('|', failures, last_error, due_at > now() - interval '2 seconds', pid, events)"), '0|t',
	'at work: the status says when it is due again');
is(scalar messages($node, qr/LOG:  policy run: schema=public policy=p events=\d+ batches=\d+ months=\d+ ms=\d+\.\d{3}$/),
	runs($node, 'postgres', 'count(*)', 'events > 0'), 'at work: the log has a line for a run that moved events');

prepare_hold($node, 'postgres', 'public');
hold_batches($node, 'postgres', 'public');
add_known($node, 'later', 10, 20);
my $pid = held_worker($node, 'postgres');
is(status($node, 'postgres', 'p', "concat_ws('|', state, pid, expected >= 200, events, started_at < clock_timestamp())"),
	"running|$pid|t|0|t", 'running: the status says so');
is(ask("SELECT concat_ws('|', usename, query) FROM pg_stat_activity WHERE pid = $pid"),
	ask('SELECT current_user') . '|rillflow: policy "p" of schema "public"', 'running: as the owner of the policy');

# Nobody looks all the time for what can't begin: each look is a transaction.
my $commits = "SELECT xact_commit FROM pg_stat_database WHERE datname = 'postgres'";
ask("UPDATE rf_archive_policies SET every = '1 second'");
usleep(2_000_000);
my $first = ask($commits);
usleep(5_000_000);
cmp_ok(ask($commits) - $first, '<', 40, 'running: a policy that is due again meanwhile waits quietly');

# Who reads the status does not keep the worker from its work.
my $reader = $node->background_psql('postgres');
free_batches($node, 'postgres', 'public');
settled($node, 'later');
wait_until('no worker runs', sub { return !processes($node, 'worker') });
like($reader->query_safe("BEGIN; SELECT count(*) FROM rf_worker_status"), qr/1/, 'a session has read the status');
my $runs = runs($node, 'postgres', 'count(*)');
wait_until('runs go on', sub { return runs($node, 'postgres', 'count(*)') > $runs + 1 });
$reader->query_safe('COMMIT');
$reader->quit;

# ---- pause, resume, cancel, run, remove

hold_batches($node, 'postgres', 'public');
add_known($node, 'paused', 10, 20);
held_worker($node, 'postgres');
ask("SELECT rf_policy_pause('p')");
wait_until('no worker runs', sub { return !processes($node, 'worker') });
is(status($node, 'postgres', 'p', "concat_ws('|', state, failures)"), 'paused|0', 'pause: the status says so');
is( ask(<<'SQL'), 'pause|t', 'pause: the run stops within a second');
SELECT concat_ws('|', r.held_back_by, r.error, r.finished_at - p.paused_at < interval '1 second')
FROM rf_archive_policies AS p JOIN rf_archive_runs AS r ON r.policy = p.name ORDER BY r.run_id DESC LIMIT 1
SQL
is(hot_old($node, 'postgres', 'public'), 200, 'pause: the batch was undone');
check_known($node, 'pause');
like(($node->psql('postgres', "SELECT rf_policy_run('p')"))[2], qr/policy "p" does not act/, 'pause: it does not run');
ask("SELECT rf_policy_resume('p')");
$pid = held_worker($node, 'postgres');
ask("SELECT pg_cancel_backend($pid)");
wait_until('it is on record', sub { return runs($node, 'postgres', 'count(*)', "held_back_by = 'cancel'") == 1 });
is(status($node, 'postgres', 'p', 'failures'), 0, 'cancel: a run that is cancelled is no failure');
held_worker($node, 'postgres');
my $cancels = runs($node, 'postgres', 'count(*)', "held_back_by = 'cancel'");
ask("BEGIN; SAVEPOINT s; SELECT rf_policy_pause('p'); ROLLBACK TO s; COMMIT");
usleep(1_000_000);
is(runs($node, 'postgres', 'count(*)', "held_back_by = 'cancel'"), $cancels, 'pause: one that is undone stops nothing');
free_batches($node, 'postgres', 'public');
settled($node, 'resume');

ask("UPDATE rf_archive_policies SET every = '1 day'");
wait_until('the policy waits', sub { return status($node, 'postgres', 'p') eq 'waiting' });

# A worker that is cancelled as soon as there is one, even before it has connected, ends as one should.
add_known($node, 'early', 5, 20);
cmp_ok(cancel_workers($node, <<'SQL'), '>', 3, 'early cancel: workers were cancelled');
DO $$ BEGIN FOR i IN 1 .. 100 LOOP PERFORM rf_policy_run('p'); COMMIT; PERFORM pg_sleep(0.03); END LOOP; END $$
SQL
ask("SELECT rf_policy_run('p')");
settled($node, 'early cancel: the store is not left alone for that, and');

hold_batches($node, 'postgres', 'public');
add_known($node, 'asked', 5, 20);
ask("SELECT rf_policy_run('p')");
held_worker($node, 'postgres');
ask("SELECT rf_policy_remove('p')");
wait_until('no worker runs', sub { return !processes($node, 'worker') });
is(runs($node, 'postgres', 'count(*)', 'finished_at IS NULL'), 0, 'remove: the run stops, and is finished');
is(ask('SELECT count(*) FROM rf_worker_status'), 0, 'remove: the policy is gone');
is(hot_old($node, 'postgres', 'public'), 100, 'remove: the batch was undone');
check_known($node, 'remove');
free_batches($node, 'postgres', 'public');

# ---- windows, and archived streams only

ask("SELECT rf_policy_set('w', '30 days', '1 second', window_start => (now() AT TIME ZONE 'UTC' + interval '2 hours')::time,"
	  . " window_end => (now() AT TIME ZONE 'UTC' + interval '3 hours')::time, only_archived => true)");
like(status($node, 'postgres', 'w', "concat_ws('|', state, detail)"), qr/^waiting\|waits for its window/, 'window: the policy waits');
usleep(2_500_000);
is(hot_old($node, 'postgres', 'public'), 100, 'window: nothing is moved out of it');
ask("SELECT rf_archive_mark(md5('asked 3')::uuid)");
ask("UPDATE rf_archive_policies SET window_start = (now() AT TIME ZONE 'UTC' - interval '1 hour')::time,"
	  . " window_end = (now() AT TIME ZONE 'UTC' + interval '1 hour')::time");
wait_until('something is moved', sub { return hot_old($node, 'postgres', 'public') < 100 });
wait_until('a run more', sub { return runs($node, 'postgres', 'count(*)', "policy = 'w' AND finished_at IS NOT NULL") > 1 });
is(hot_old($node, 'postgres', 'public'), 80, 'only_archived: within its window the policy moves archived streams alone');
check_known($node, 'only_archived');
ask("SELECT rf_policy_remove('w'); SELECT rf_policy_set('p', '30 days', '1 second', batch_size => 25)");
settled($node, 'all streams');

is(join("\n", messages($node, qr/TRAP:|PANIC:|terminated by signal|background worker "rillflow \w+" .* exited/)), '',
	'no process died');
$node->stop;

done_testing();
