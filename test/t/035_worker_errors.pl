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
	is(scalar messages($node, qr/policy "$store" of schema "$store" failed, 1 in a row: \Q$error\E/, $before_log), 1,
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
	is(scalar messages($node, qr/policy "$store" of schema "$store" is paused after 5 failures/, $before_log), 1, "$store: as does the log");
}
is(scalar messages($node, qr/policy "(?:@{[join '|', @failing]})" of schema/, $before_log), 5 * @failing, 'a failure is one line of the log');

# ---- who waits for others, or for a role that may log in, has not failed

wait_until('a run was held back', sub {
	return ask("SELECT count(*) FROM locked_table.rf_archive_runs WHERE held_back_by = 'locks' AND error IS NULL") > 0;
});
is(failures($_), 0, "$_: that is no failure") foreach @waiting;

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

$node->stop;
is(join("\n", messages($node, qr/TRAP:|PANIC:|terminated by signal/)), '', 'nothing crashed');

done_testing();
