# A policy on the real events: it archives them by itself, in its window only, behind a consumer, and whatever is
# killed meanwhile. What is expected of them is known exactly.
use strict;
use warnings FATAL => 'all';
use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowCluster;
use RillflowDump;
use Test::More;

my $data = $ENV{RF_TEST_DATA} // "$FindBin::Bin/../../../shared/data";
my $file = "$data/file-events.tsv.xz";

plan skip_all => "the real events are not there ($file)" unless -r $file;
plan skip_all => 'xz, which unpacks the real events, is not installed' if system('xz --version >/dev/null 2>&1');

my $events = 191163;
my $cold_events = 172203;
my $cut_off = '2026-01-01 00:00+00';

my $node = PostgreSQL::Test::Cluster->new('policy');
$node->init;
$node->append_conf('postgresql.conf', join("\n", "shared_buffers = '128MB'", "timezone = 'UTC'", 'restart_after_crash = on',
		"shared_preload_libraries = 'rillflow'", "rillflow.naptime = '1s'"));
$node->start;
sub ask { return value($node, 'postgres', $_[0]); }

ask('CREATE EXTENSION rillflow');
ask('CREATE UNLOGGED TABLE raw (position bigint GENERATED ALWAYS AS IDENTITY, seconds bigint, repository text,'
	. ' path text, kind text, commit text)');
ask("\\copy raw (seconds, repository, path, kind, commit) FROM PROGRAM 'xz -dc \"$file\"'");
ask(<<'SQL');
INSERT INTO events (stream_id, event_type, body, created_at, bucket_month)
	SELECT md5(repository || ' ' || path)::uuid, 'file_changed', jsonb_build_object('kind', kind, 'commit', commit),
			to_timestamp(seconds), date_trunc('month', to_timestamp(seconds) AT TIME ZONE 'UTC')::date
		FROM raw ORDER BY position
SQL
my $loaded = union_state($node, 'postgres');
like($loaded, qr/^$events $events /, 'all events are there');

# A consumer has read half of them, and the window opens in half a day.
my $half = ask('SELECT global_seq FROM events ORDER BY global_seq OFFSET 95000 LIMIT 1');
ask("SELECT rf_consumer_advance('projection', $half)");
ask(<<"SQL");
SELECT rf_policy_set('old events', older_than => now() - timestamptz '$cut_off', every => '1 second',
	window_start => (now() + interval '11 hours')::time, window_end => (now() + interval '13 hours')::time)
SQL
is(ask('SELECT state, detail FROM rf_worker_status'), 'waiting|waits for its window', 'the policy waits for its window');
ask('SELECT pg_sleep(3)');
is(ask('SELECT count(*) FROM rf_archive_runs'), '0', 'nothing runs outside of it');
is(events_in($node, 'postgres', 'events_hot'), $events, 'nothing is moved');

# In its window it goes as far as the consumer has read. Worker and server are killed in between.
ask('UPDATE rf_archive_policies SET window_start = (now() - interval \'1 hour\')::time, window_end = (now() + interval \'11 hours\')::time');
wait_until('the first events are cold', sub { ask('SELECT count(*) FROM (SELECT FROM events_archive LIMIT 1) AS e') > 0 });
my $worker = ask("SELECT coalesce(max(pid), 0) FROM rf_worker_status WHERE state = 'running'");
if ($worker > 0)
{
	kill 'KILL', $worker;
	wait_until('the server has noticed', sub { return !kill 0, $worker });
	wait_until_up($node);
}
wait_until('what the consumer has read is cold', sub {
	ask("SELECT count(*) FROM (SELECT FROM events_hot WHERE global_seq <= $half AND created_at < '$cut_off' LIMIT 1) AS e") == 0 });
wait_until('the run says who holds it back', sub {
	ask("SELECT held_back_by FROM rf_archive_runs WHERE finished_at IS NOT NULL ORDER BY run_id DESC LIMIT 1") eq 'consumer "projection"' });
is(ask("SELECT count(*) FROM events_archive WHERE global_seq > $half"), '0', 'nothing was moved that the consumer has not read');
same_union($node, 'postgres', $loaded, 'behind the consumer');

# When it has read all, so is all moved.
ask("SELECT rf_consumer_advance('projection', (SELECT max(global_seq) FROM events_all))");
wait_until('all is moved', sub {
	ask("SELECT count(*) FROM (SELECT FROM events_hot WHERE created_at < '$cut_off' LIMIT 1) AS e") == 0 });
$node->stop('immediate');
$node->start;
my $runs = ask('SELECT count(*) FROM rf_archive_runs');
wait_until('the worker is back', sub { ask('SELECT count(*) FROM rf_archive_runs WHERE finished_at IS NOT NULL') > $runs });
# the cut-off has moved on with the clock, by less than an hour
is(ask("SELECT count(*) FROM events_archive WHERE created_at >= timestamptz '$cut_off' + interval '1 hour'"), '0', 'none is cold after the cut-off');
cmp_ok(events_in($node, 'postgres', 'events_archive'), '>=', $cold_events, 'all events before it are cold');
cmp_ok(ask('SELECT sum(months) FROM rf_archive_runs'), '>', 50, 'most of them by months');
same_union($node, 'postgres', $loaded, 'at the end');
is(broken_streams($node, 'postgres'), '0', 'streams are whole');

done_testing();
