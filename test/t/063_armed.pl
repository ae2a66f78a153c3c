# A policy acts where it was set, and nowhere else: not in a restore, though a launcher runs there all the while, and
# not in a database made from a template, until somebody arms it.
use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowCluster;
use RillflowDump;
use Test::More;

my $node = new_store('armed', "shared_preload_libraries = 'rillflow'", "rillflow.naptime = '1s'");
sub ask { my ($db, $sql) = @_; return $node->safe_psql($db, $sql); }

# Whether the worker of a database has run since a launcher could do so; a run that is asked for tells.
sub runs { return ask($_[0], 'SELECT count(*) FROM rf_archive_runs WHERE finished_at IS NOT NULL'); }

# All is due, but nothing is moved before the dump and the copy are made.
load_events($node, 20, 30);
ask('postgres', "INSERT INTO rf_archive_config (redirect_enabled) VALUES (true); CREATE SCHEMA other; SELECT rf_install('other', tenant => 'two')");
$node->append_conf('postgresql.conf', 'rillflow.worker = off');
$node->reload;
ask('postgres', "SELECT rf_policy_set('old events', older_than => '1 day', every => '1 second', window_start => '00:00', window_end => '24:00')");
ask('postgres', "SELECT rf_policy_set('old events', older_than => '1 day', tenant => 'two')");
ask('postgres', "CREATE DATABASE clone TEMPLATE postgres");
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
$node->command_ok([ 'pg_dump', '-Fd', '-j2', '-d', $node->connstr('postgres'), '-f', $dump ], 'dump');
is(events_in($node, 'postgres', 'events_hot'), '600', 'nothing was moved yet');

# With the worker on, the database where the policy was set is archived, while the dump is restored to another.
$node->append_conf('postgresql.conf', 'rillflow.worker = on');
$node->reload;
ask('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'pg_restore', '-j2', '-d', $node->connstr('restored'), $dump ], 'restore, beside a launcher');
wait_until('all is archived', sub { events_in($node, 'postgres', 'events_hot') eq '0' });
wait_until('and again', sub { runs('postgres') > 2 });
my $union = union_state($node, 'postgres');
like($union, qr/^600 /, 'with every event');
for my $db (qw(restored clone))
{
	is(union_state($node, $db), $union, "$db: every event is there");
	is(events_in($node, $db, 'events_hot'), '600', "$db: nothing was moved");
	is(runs($db), '0', "$db: nothing ran");
	is(ask($db, 'SELECT policy, state FROM rf_worker_status ORDER BY schema'), "old events|disarmed\nold events|disarmed",
		"$db: the policies are disarmed");
	is(ask($db, 'SELECT name, every, window_end FROM rf_archive_policies'), 'old events|00:00:01|24:00:00', "$db: and as they were");
	like(($node->psql($db, "\\set VERBOSITY verbose\nSELECT rf_policy_run('old events')"))[2],
		qr/ERROR:  55000: policy "old events" does not act\nDETAIL:  disarmed/, "$db: they don't run when they are asked to");
	# one that is set here acts, and the others still don't
	ask($db, "SELECT rf_policy_set('here', older_than => '100 years', premake => 5)");
	wait_until("$db: the run of a policy that was set here", sub { runs($db) > 0 });
	is(events_in($node, $db, 'events_hot'), '600', "$db: nothing that is younger was moved");
	is(ask($db, "SELECT string_agg(state, ' ' ORDER BY policy, schema) FROM rf_worker_status"), 'waiting disarmed disarmed',
		"$db: the others are disarmed");
	is(ask($db, 'SELECT rf_policy_arm()'), '1', "$db: armed");
	wait_until("$db: all is archived", sub { events_in($node, $db, 'events_hot') eq '0' });
	is(union_state($node, $db), $union, "$db: with every event");
	is(broken_streams($node, $db), '0', "$db: streams are whole");
	is(ask($db, "SELECT state FROM rf_worker_status WHERE schema = 'other'"), 'disarmed', "$db: the other store is not armed");
}

# A restart changes nothing.
$node->restart;
for my $db (qw(postgres restored clone))
{
	is(ask($db, "SELECT bool_and(state <> 'disarmed') FROM rf_worker_status WHERE schema = 'public'"), 't', "$db: armed after a restart");
}

done_testing();
