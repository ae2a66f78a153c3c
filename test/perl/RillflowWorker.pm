# What the tests of the background worker share: a server that preloads the library, old events that come to a store,
# a batch that lasts as long as the test wants, and what rf_worker_status and the processes of the server tell.
package RillflowWorker;
use strict;
use warnings FATAL => 'all';
use Exporter 'import';
use IPC::Run ();
use PostgreSQL::Test::Utils qw(slurp_file);
use RillflowCluster;
use RillflowDump;
use Test::More;

our @EXPORT = qw(
  preloaded prepare_hold add_old_events hold_batches free_batches held_worker worker_at kill_at cancel_workers processes status
  runs cold hot_old moved_by_worker messages make_store at_work
  know add_known check_known settled);

# What a server needs that runs policies by itself, and comes up again after a crash.
sub preloaded
{
	return (
		"shared_preload_libraries = 'rillflow'",
		"rillflow.naptime = '1s'",
		'restart_after_crash = on',
		'log_min_messages = info',
		@_);
}

# prepare_hold(node, database, schema): from now on hold_batches() keeps moves of that store in the middle of a
# batch. No lock is waited for, so that no limit ends the wait.
sub prepare_hold
{
	my ($node, $database, $schema) = @_;

	$node->safe_psql($database, <<"SQL");
CREATE SCHEMA hold_$schema;
CREATE TABLE hold_$schema.held (n int);
CREATE FUNCTION hold_$schema.wait(bigint) RETURNS boolean LANGUAGE plpgsql AS \$\$
BEGIN
	WHILE EXISTS (SELECT FROM hold_$schema.held) LOOP
		PERFORM pg_sleep(0.05);
	END LOOP;
	RETURN true;
END \$\$;
GRANT USAGE ON SCHEMA hold_$schema TO PUBLIC;
GRANT SELECT ON hold_$schema.held TO PUBLIC;
ALTER TABLE $schema.events_archive ADD CONSTRAINT waits CHECK (hold_$schema.wait(global_seq)) NOT VALID;
SQL
	return;
}

sub hold_batches
{
	my ($node, $database, $schema) = @_;
	$node->safe_psql($database, "INSERT INTO hold_$schema.held VALUES (1)");
	return;
}

sub free_batches
{
	my ($node, $database, $schema) = @_;
	$node->safe_psql($database, "DELETE FROM hold_$schema.held");
	return;
}

# add_old_events(node, database, schema, label, streams, each, day): events of new streams, of that day on.
sub add_old_events
{
	my ($node, $database, $schema, $label, $streams, $each, $day) = @_;

	$day //= '2023-03-01';
	# The server may be one on which a commit has to wait for a replica that is not there.
	$node->safe_psql($database, <<"SQL");
SET synchronous_commit = local;
INSERT INTO $schema.events (stream_id, event_type, body, created_at, bucket_month)
SELECT md5('$label ' || s)::uuid, 'base-$label-' || s || '-' || n, jsonb_build_object('n', n), at,
	date_trunc('month', at AT TIME ZONE 'UTC')
FROM generate_series(1, $each) AS n, generate_series(1, $streams) AS s,
	LATERAL (SELECT timestamptz '$day 12:00+00' + n * interval '1 minute') AS t(at)
ORDER BY n, s
SQL
	return $streams * $each;
}

# held_worker(node, database): the process that hold_batches() holds, once there is one.
sub held_worker
{
	my ($node, $database) = @_;
	return wait_until("a worker of $database is held", sub {
		return $node->safe_psql('postgres', <<"SQL");
SELECT max(pid) FROM pg_stat_activity WHERE backend_type = 'rillflow worker' AND datname = '$database' AND wait_event = 'PgSleep'
SQL
	});
}

# worker_at(node, point): the worker that waits at that point, which somebody holds (RillflowCluster). It gives up
# soon where a throttle limits what a batch waits for, and comes again.
sub worker_at
{
	my ($point) = @_;
	return <<"SQL";
SELECT a.pid FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
WHERE l.locktype = 'advisory' AND l.classid = 7270 AND NOT l.granted AND a.backend_type = 'rillflow worker'
	AND l.objid = (hashtext('$point')::bigint & 4294967295)::oid
SQL
}

# kill_at(node, point): kills the worker where it waits at that point. A session of the server does it: the worker does
# not stay there for long.
sub kill_at
{
	my ($node, $point) = @_;
	my $query = worker_at($point);
	my (undef, undef, $messages) = $node->psql('postgres', <<"SQL");
DO \$do\$
DECLARE
	found int;
BEGIN
	FOR i IN 1 .. 20000 LOOP
		SELECT pid INTO found FROM ($query) AS q;
		IF found IS NOT NULL THEN
			EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'kill -9 ' || found);
			PERFORM pg_sleep(30);
		END IF;
		PERFORM pg_sleep(0.005), pg_stat_clear_snapshot();
	END LOOP;
	RAISE 'no worker came to the point';
END \$do\$
SQL
	die "$point: $messages" if $messages =~ /no worker came/;
	return;
}

# cancel_workers(node, sql): while that runs, cancels each worker that comes up, again and again from its first moment on;
# how often it did.
sub cancel_workers
{
	my ($node, $sql) = @_;
	my ($postmaster) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');
	my $session = IPC::Run::start([ $node->installed_command('psql'), '-X', '-d', $node->connstr('postgres'), '-c', $sql ],
		'>', \my $output);
	my $count = 0;

	while ($session->pumpable)
	{
		$count += kill INT => grep { is_worker($_) } split / /, slurp_file("/proc/$postmaster/task/$postmaster/children");
		$session->pump_nb;
	}
	$session->finish or die "psql: $output";
	return $count;
}

sub is_worker
{
	my ($pid) = @_;
	open my $file, '<', "/proc/$pid/cmdline" or return;    # it has ended
	my $title = <$file>;
	close $file;
	return defined $title && $title =~ /rillflow worker/;
}

# processes(node, kind): of the server, as 'pid' lines; kind: launcher, scout, worker.
sub processes
{
	my ($node, $kind) = @_;
	return split /\n/,
	  $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'rillflow $kind' ORDER BY 1");
}

# status(node, database, policy, columns): of rf_worker_status.
sub status
{
	my ($node, $database, $policy, $columns) = @_;
	return $node->safe_psql($database,
		'SELECT ' . ($columns // 'state') . " FROM rf_worker_status WHERE policy = '$policy'");
}

# runs(node, database, what, condition): of rf_archive_runs of the default store.
sub runs
{
	my ($node, $database, $what, $condition) = @_;
	return $node->safe_psql($database, "SELECT $what FROM rf_archive_runs WHERE " . ($condition // 'true'));
}

sub cold
{
	my ($node, $database, $schema) = @_;
	return $node->safe_psql($database, "SELECT count(*) FROM $schema.events_archive");
}

# Old events that are hot.
sub hot_old
{
	my ($node, $database, $schema) = @_;
	return $node->safe_psql($database, "SELECT count(*) FROM $schema.events WHERE created_at < '2025-01-01'");
}

# moved_by_worker(node, database, schema): until it has moved all that is old, and no run goes on.
sub moved_by_worker
{
	my ($node, $database, $schema) = @_;

	wait_until("all old events of $schema in $database are cold", sub {
		return $node->safe_psql($database, <<"SQL") eq 't';
SELECT NOT EXISTS (SELECT FROM $schema.events WHERE created_at < '2025-01-01')
	AND NOT EXISTS (SELECT FROM $schema.rf_archive_runs WHERE finished_at IS NULL)
SQL
	});
	return;
}

# messages(node, pattern, from): lines of the log from that place on in which the pattern is.
sub messages
{
	my ($node, $pattern, $from) = @_;
	return grep { /$pattern/ } split /\n/, substr(slurp_file($node->logfile), $from // 0);
}

# make_store(node, database): a database whose policy runs each second; the state of its store is returned.
sub make_store
{
	my ($node, $database) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql($database, 'CREATE EXTENSION rillflow');
	prepare_hold($node, $database, 'public');
	add_old_events($node, $database, 'public', 'first', 10, 20);
	$node->safe_psql($database, "SELECT rf_policy_set('p', '30 days', '1 second', batch_size => 20)");
	return union_state($node, $database);
}

# at_work(node, database, name): its worker moves what comes.
sub at_work
{
	my ($node, $database, $name) = @_;
	my $count = add_old_events($node, $database, 'public', $name, 5, 20);
	my $before = union_state($node, $database);

	moved_by_worker($node, $database, 'public');
	cmp_ok(cold($node, $database, 'public'), '>=', $count, "$name: events are cold");
	same_union($node, $database, $before, "$name: nothing lost");
	return;
}

# The checksum of what is in the default store of a node.
my %known;

# know(node): what is in the store now is what check_known() expects; its count and checksum are returned.
sub know
{
	my ($node) = @_;
	return $known{ $node->name } = checksum($node, 'base');
}

# add_known(node, label, streams, each, day): old events, of which the checksum is kept.
sub add_known
{
	my ($node, @what) = @_;
	add_old_events($node, 'postgres', 'public', @what);
	know($node);
	return;
}

sub check_known
{
	my ($node, $name) = @_;
	is(checksum($node, 'base'), $known{ $node->name }, "$name: the events are what they were");
	is(violations($node), '', "$name: heads, numbers and closed streams are right");
	return;
}

# settled(node, name): the worker has done what there was to do.
sub settled
{
	my ($node, $name) = @_;
	moved_by_worker($node, 'postgres', 'public');
	cmp_ok(cold($node, 'postgres', 'public'), '>', 0, "$name: events are cold");
	check_known($node, $name);
	return;
}

1;
