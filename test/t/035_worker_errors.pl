# Stores that are broken, locked, or have changed hands, among good ones: their policies fail, say so, back off, and are
# paused in the end, with a log that stays short. The good ones go on.
use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowCluster;
use RillflowDump;
use RillflowWorker;
use Test::More;
use Time::HiRes qw(usleep);

my $node = new_store('errors', preloaded());

sub ask { return $node->safe_psql('postgres', $_[0]); }

my @good = qw(good_1 good_2 good_3);
my @failing = qw(dropped_column other_owner);
my @unreadable = qw(broken_book locked_book);
my @healing = qw(dropped_month);
my @waiting = qw(locked_table no_login);
my @all = (@good, @failing, @waiting, @unreadable, @healing);

# ---- eight stores, one of them of a role of its own, all with work to do

ask('CREATE ROLE somebody LOGIN; CREATE ROLE gone LOGIN');
for my $store (@all)
{
	ask("CREATE SCHEMA $store; SELECT rf_install('$store', '$store')");
	add_old_events($node, 'postgres', $store, 'first', 5, 20);
}
ask(<<'SQL');
ALTER SCHEMA no_login OWNER TO gone;
SELECT format('ALTER TABLE %s OWNER TO gone', oid::regclass) FROM pg_class
WHERE relnamespace = 'no_login'::regnamespace AND relkind IN ('r', 'p', 'v') \gexec
SQL
my %before = map { $_ => union_state($node, 'postgres', $_) } @all;
for my $store (@all)
{
	ask("SELECT rf_policy_set('$store', '30 days', '1 day', batch_size => 20, tenant => '$store')");
	moved_by_worker($node, 'postgres', $store);
}

# ---- they break

my $before_log = length slurp_file($node->logfile);
ask('ALTER TABLE dropped_column.rf_streams DROP COLUMN archive_reason');
ask('ALTER TABLE other_owner.events OWNER TO somebody');
ask('ALTER ROLE gone NOLOGIN');
ask("SELECT rf_drop_partition('hot', date_trunc('month', now() AT TIME ZONE 'UTC')::date, true, 'dropped_month')");
my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE locked_table.events_hot_default, locked_book.rf_archive_policies');
ask('ALTER TABLE broken_book.rf_archive_runs DROP COLUMN started_at');
ask("UPDATE $_.rf_archive_policies SET every = '1 second'") foreach @good, @failing, @waiting, @healing;

# the number of failures of a policy
sub failures { return ask("SELECT failures FROM $_[0].rf_archive_policies"); }

wait_until('those that fail have failed', sub { return !grep { failures($_) == 0 } @failing });
for my $store (@failing)
{
	is(failures($store), 1, "$store: after a failure it is left alone for a while");
	is(status($node, 'postgres', $store, "concat_ws('|', state, detail)"), 'waiting|waits after 1 failure', "$store: and says so");
}
my %expected = (
	dropped_column => qr/relation "rf_streams" is not that of a store/,
	other_owner => qr/permission denied for schema other_owner/);
for my $store (@failing)
{
	my $error = ask("SELECT error FROM $store.rf_archive_runs WHERE error IS NOT NULL ORDER BY run_id DESC LIMIT 1");
	like($error, $expected{$store}, "$store: the error is on record");
	my $escaped = $error =~ s/(["\\])/\\$1/gr;
	is(scalar messages($node, qr/policy run failed: schema=$store policy=$store failures=1 sqlstate=\w{5} error="\Q$escaped\E"$/, $before_log), 1,
		"$store: and in the log, once");
}

# ---- the good ones go on all the while

my $count;
for my $round (1 .. 2)
{
	for my $store (@good, @healing)
	{
		add_old_events($node, 'postgres', $store, "round $round", 5, 20);
		$before{$store} = union_state($node, 'postgres', $store);
	}
	for my $store (@good, @healing)
	{
		moved_by_worker($node, 'postgres', $store);
		same_union($node, 'postgres', $before{$store}, "$store: round $round, nothing lost", $store);
		is(cold($node, 'postgres', $store), 100 * ($round + 1), "$store: round $round, all is moved");
	}
}
is( ask("SELECT count(*) FROM rf_partitions('dropped_month') WHERE retention = 'hot'"
		. " AND from_month = date_trunc('month', now() AT TIME ZONE 'UTC')"),
	1, 'dropped_month: the month that lacked is made again');

# ---- who has failed five times is paused

for my $failure (2 .. 5)
{
	# what rf_policy_run() does, which refuses a store that is broken
	ask("UPDATE $_.rf_archive_policies SET run_requested_at = now()") foreach @failing;
	wait_until("they fail for the ${failure}th time", sub { return !grep { failures($_) < $failure } @failing });
}
for my $store (@failing)
{
	like( ask("SELECT concat_ws('|', state, failures, detail, last_error IS NOT NULL) FROM rf_worker_status WHERE policy = '$store'"),
		qr/^paused\|5\|paused: 5 failures in a row: $expected{$store}.*\|t$/, "$store: paused after five failures, which the status says");
	is(scalar messages($node, qr/policy paused: schema=$store policy=$store failures=5 /, $before_log), 1, "$store: as does the log");
}
is(scalar messages($node, qr/policy (?:run failed|paused): schema=\w+ policy=(?:@{[join '|', @failing]}) /, $before_log), 5 * @failing, 'a failure is one line of the log');

# ---- who waits for others, or for a role that may log in, has not failed

wait_until('a run was held back', sub {
	return ask("SELECT count(*) FROM locked_table.rf_archive_runs WHERE held_back_by = 'locks' AND error IS NULL") > 0;
});
is(failures($_), 0, "$_: that is no failure") foreach @waiting;

# ---- who may not connect is told of by the status, and keeps nobody waiting

ask("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC; ALTER ROLE gone LOGIN; SELECT rf_policy_set('no_connect', '30 days', '1 second', tenant => 'no_login')");
wait_until('the status says so', sub {
	return status($node, 'postgres', 'no_connect', 'detail') eq 'neither its owner nor that of the store may connect';
});
add_old_events($node, 'postgres', 'good_1', 'beside no_connect', 5, 20);
moved_by_worker($node, 'postgres', 'good_1');
$before{good_1} = union_state($node, 'postgres', 'good_1');
is(scalar messages($node, qr/permission denied for database/, $before_log), 0, 'no_connect: no worker is sent in vain');
ask("GRANT CONNECT ON DATABASE postgres TO PUBLIC; SELECT rf_policy_remove('no_connect', 'no_login')");
is(ask("SELECT count(*) FROM rf_armed WHERE policy = 'no_connect'"), 0, 'no_connect: a policy that is removed is armed no more');

# ---- what one run leaves to others is no failure: a month whose name is taken, one that too many events wait for

ask("CREATE SCHEMA left_over; SELECT rf_install('left_over', 'left_over')");
ask("CREATE TABLE left_over.events_hot_@{[ask(q{SELECT to_char(date_trunc('month', now() AT TIME ZONE 'UTC') + interval '4 months', 'YYYY_MM')})]} (x int)");
add_old_events($node, 'postgres', 'left_over', 'due', 5, 20);
my $left_over = union_state($node, 'postgres', 'left_over');
ask("SELECT rf_policy_set('left_over', '30 days', '1 day', premake => 4, tenant => 'left_over')");
moved_by_worker($node, 'postgres', 'left_over');
like(ask('SELECT held_back_by FROM left_over.rf_archive_runs ORDER BY run_id DESC LIMIT 1'), qr/^name of month \d{4}-\d\d-01$/, 'a taken name: the run says so');
is(failures('left_over'), 0, 'a taken name: it is no failure');
same_union($node, 'postgres', $left_over, 'a taken name: what is due is moved', 'left_over');
# two months of the past that have no partition, younger than the cut-off of the policy that follows
ask(<<'SQL');
INSERT INTO left_over.events (stream_id, event_type, body, created_at, bucket_month)
	SELECT md5(n % 50 || 'many')::uuid, 'many', '{}', at, date_trunc('month', at AT TIME ZONE 'UTC')
		FROM generate_series(1, 10200) AS n, LATERAL (SELECT date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
			- CASE WHEN n > 100 THEN interval '40 days' ELSE interval '80 days' END + n * interval '1 second') AS t(at)
SQL
$left_over = union_state($node, 'postgres', 'left_over');
ask("UPDATE left_over.rf_archive_policies SET older_than = '1 year', premake = 3, run_requested_at = now()");
wait_until('the run has ended', sub {
	return ask('SELECT count(*) FROM left_over.rf_archive_runs WHERE finished_at IS NOT NULL') == 2; });
is(ask("SELECT concat_ws('|', held_back_by, error) FROM left_over.rf_archive_runs ORDER BY run_id DESC LIMIT 1"), 'default partition', 'many wait: the run says so');
is(ask('SELECT count(*) FROM ONLY left_over.events_hot_default'), 10100, 'many wait: they do so still, and the few have their month');
ask("UPDATE left_over.rf_archive_policies SET older_than = '1 day', run_requested_at = now()");
wait_until('they are moved', sub { return ask('SELECT count(*) FROM left_over.events') == 0 });
same_union($node, 'postgres', $left_over, 'many wait: what is due is moved by batches', 'left_over');

# ---- stores whose policies can't be read have no place to put that on record: the log says it, and not often

my ($status, $out, $messages) = $node->psql('postgres',
	"SELECT count(*) FROM rf_worker_status WHERE policy LIKE 'good%'");
is($out, 3, 'the status shows the others');
like($messages, qr/WARNING:  the policies of schema "$_" can't be read/, "$_: and that it can't be read") foreach @unreadable;
is(scalar messages($node, qr/LOG:  the policies of schema "$_" can't be read/, $before_log), 1, "$_: the log says so once in a while")
  foreach @unreadable;
is(scalar messages($node, qr/FATAL|exited with|ERROR.*rillflow/, $before_log), 0, 'no process died of it');

# ---- mended

$locker->query_safe('COMMIT');
$locker->quit;
ask("ALTER TABLE other_owner.events OWNER TO \"@{[ask('SELECT current_user')]}\"");
ask('ALTER ROLE gone LOGIN');
same_union($node, 'postgres', $before{dropped_column}, 'dropped_column: nothing lost', 'dropped_column');
for my $store (@waiting, grep { $_ ne 'dropped_column' } @failing)
{
	add_old_events($node, 'postgres', $store, 'mended', 5, 20);
	my $before = union_state($node, 'postgres', $store);
	like($before, qr/^200 /, "$store: there are events");
	ask("SELECT rf_policy_resume('$store', '$store')");
	moved_by_worker($node, 'postgres', $store);
	is(cold($node, 'postgres', $store), 200, "$store: once it is mended, all is moved");
	same_union($node, 'postgres', $before, "$store: nothing lost", $store);
	is(failures($store), 0, "$store: its failures are forgotten");
}

# ---- a new owner who may not log in: up to version 16 no worker can be him

ask('CREATE ROLE many');
($status, $out, $messages) = $node->psql('postgres', "SELECT rf_set_owner('many', 'good_1')");
like($messages, $node->pg_version >= 17 ? qr/NOTICE:  policies that act as role "many" from now on: 1/ :
	  qr/WARNING:  role "many" is not permitted to log in, and policies of schema "good_1" cannot act/, 'an owner who may not log in');

$node->stop;
is(join("\n", messages($node, qr/TRAP:|PANIC:|terminated by signal/)), '', 'nothing crashed');

done_testing();
