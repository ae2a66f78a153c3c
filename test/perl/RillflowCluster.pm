# What the TAP tests about crashes, cancels and caches share: a cluster with a store, what must hold in it
# whatever happened, and clients that append and keep a log of what the server has acknowledged.
package RillflowCluster;
use strict;
use warnings FATAL => 'all';
use Exporter 'import';
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(
  new_store prepare_store load_events checksum violations broken_indexes
  hold_point step_point release_point wait_at_point
  start_appenders acknowledged stop_appenders check_acknowledged
  start_psql finish_psql backend_pid wait_until wait_until_up restart_until_up);

# What tests need beside the store: the invariants, as functions of a schema of their own.
my $checks = <<'SQL';
CREATE SCHEMA checks;

-- Count and checksum of all columns of the events whose type begins with that, hot and cold, NULLs told apart
-- from empty strings; neither retention_class nor the audit columns count.
CREATE FUNCTION checks.content(prefix text, OUT events bigint, OUT checksum text) LANGUAGE sql
SET search_path = public AS $$
	SELECT count(*), coalesce(sum(hashtextextended(
		(to_jsonb(e) - 'retention_class' - 'migrated_at' - 'migrated_by')::text, 0)::numeric), 0)::text
	FROM (SELECT to_jsonb(h) AS e, event_type FROM events AS h
		UNION ALL SELECT to_jsonb(c), event_type FROM events_archive AS c) AS everything(e, event_type)
	WHERE event_type LIKE prefix || '%'
$$;

-- What must not be, a line each: none when all is well.
CREATE FUNCTION checks.violations() RETURNS SETOF text LANGUAGE sql
SET search_path = public AS $$
	SELECT 'stream ' || stream_id || ' has the numbers ' || coalesce(numbers::text, 'none')
		|| ', and its head is ' || coalesce(last_seq::text, 'none')
	FROM (SELECT stream_id, count(*) AS n, count(DISTINCT stream_seq) AS different, min(stream_seq) AS first,
			max(stream_seq) AS last, array_agg(stream_seq ORDER BY stream_seq) AS numbers
		FROM events_all GROUP BY stream_id) AS seen
		FULL JOIN rf_streams USING (stream_id)
	WHERE (n, different, first, last) IS DISTINCT FROM (last_seq, last_seq, 1, last_seq)
		AND NOT (n IS NULL AND last_seq = 0)
	UNION ALL
	SELECT 'global_seq ' || global_seq || ' is there ' || count(*) || ' times'
	FROM events_all GROUP BY global_seq HAVING count(*) > 1
	UNION ALL
	SELECT 'stream ' || stream_id || ' was closed and has hot events'
	FROM rf_streams WHERE archived_by = 'archive_move'
		AND stream_id IN (SELECT stream_id FROM events WHERE retention_class = 'hot')
	UNION ALL
	SELECT 'stream ' || stream_id || ' has events outside its range'
	FROM rf_streams JOIN (SELECT stream_id, min(created_at) AS first, max(created_at) AS last
		FROM events_all GROUP BY stream_id) AS seen USING (stream_id)
	WHERE (first_event_at <= first AND last <= last_event_at) IS NOT TRUE
	UNION ALL
	SELECT 'the ledger tells of ' || told || ' moved events, ' || there || ' are there'
	FROM (SELECT coalesce(sum(events), 0) FROM rf_archive_log WHERE action = 'batch') AS l(told),
		(SELECT count(*) FROM events_all WHERE retention_class = 'cold') AS c(there)
	WHERE told <> there AND NOT EXISTS (SELECT FROM rf_archive_log WHERE action IN ('reactivate', 'mark', 'flip', 'flip back'))
$$;
SQL

# new_store(name, configuration...): a running cluster with the extension, its store in public of postgres.
sub new_store
{
	my ($name, @configuration) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init;
	$node->append_conf('postgresql.conf', join("\n", "timezone = 'UTC'", @configuration));
	$node->start;
	prepare_store($node);
	return $node;
}

# prepare_store(node): the extension, its store in public of postgres, and what tests need beside it.
sub prepare_store
{
	my ($node) = @_;

	$node->safe_psql('postgres', 'CREATE EXTENSION rillflow');
	$node->safe_psql('postgres', 'CREATE EXTENSION amcheck');
	$node->safe_psql('postgres', $checks);
}

# load_events(node, streams, events a stream): old events of January to April 2024, by raw INSERT, with all kinds
# of columns set or NULL.
sub load_events
{
	my ($node, $streams, $each) = @_;

	$node->safe_psql('postgres', <<"SQL");
INSERT INTO events (stream_id, stream_seq, event_type, body, headers, causation_id, event_version, user_id,
	is_tombstone, created_at, bucket_month)
SELECT md5('stream ' || s)::uuid, n, 'base-' || s || '-' || n, jsonb_build_object('s', s, 'n', n, 'text', 'é"\\'),
	CASE WHEN n % 3 = 0 THEN jsonb_build_object('k', NULL) ELSE '{}' END,
	CASE WHEN n % 2 = 0 THEN md5(n::text)::uuid END, n % 4, CASE WHEN n % 5 > 0 THEN repeat('', n % 5) END,
	n % 7 = 0, at, date_trunc('month', at AT TIME ZONE 'UTC')
FROM generate_series(1, $streams) AS s, generate_series(1, $each) AS n,
	LATERAL (SELECT timestamptz '2024-01-03 00:00+00' + (n * 110 / $each + s % 3) * interval '1 day') AS t(at)
ORDER BY n, s
SQL
}

# checksum(node, prefix): count and checksum of the events whose type begins with that.
sub checksum
{
	my ($node, $prefix) = @_;
	return $node->safe_psql('postgres', "SELECT events || ':' || checksum FROM checks.content('$prefix')");
}

sub violations
{
	my ($node) = @_;
	return $node->safe_psql('postgres', 'SELECT * FROM checks.violations() LIMIT 20');
}

# broken_indexes(node): what amcheck finds in the B-trees of the store, each row of the heap looked up in them.
sub broken_indexes
{
	my ($node) = @_;
	my ($status, $out, $err) = $node->psql('postgres', <<'SQL');
SELECT bt_index_check(c.oid, true)
FROM pg_class AS c JOIN pg_am AS a ON a.oid = c.relam
WHERE c.relkind = 'i' AND a.amname = 'btree' AND c.relnamespace = 'public'::regnamespace
SQL
	my $checked = () = $out =~ /^$/mg;
	return $status == 0 && $checked > 5 ? '' : "status $status, $checked indexes checked: $err";
}

# wait_until(what, code): polls until the code returns something true, which is returned.
sub wait_until
{
	my ($what, $code) = @_;
	my $limit = time() + $PostgreSQL::Test::Utils::timeout_default;
	my $pause = 20_000;

	# To ask is a process and a connection: who waits for long asks less often.
	while (time() < $limit)
	{
		my $result = $code->();
		return $result if $result;
		usleep($pause);
		$pause = $pause * 1.5 if $pause < 200_000;
	}
	die "timed out waiting until $what\n";
}

# Sessions of psql that run beside us.

# start_psql(node, sql, name): runs the SQL as a script; what it prints goes to files.
my $sessions = 0;

sub start_psql
{
	my ($node, $sql, $name) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir() . '/session-' . ++$sessions;
	my %session = (out => "$file.out", err => "$file.err");

	append_to_file("$file.sql", $sql);
	append_to_file($session{$_}, '') for qw(out err);
	local $ENV{PGAPPNAME} = $name // 'test';
	$session{handle} = IPC::Run::start(
		[
			'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-v', 'VERBOSITY=verbose',
			'-d', $node->connstr('postgres'), '-f', "$file.sql"
		],
		'<', '/dev/null', '>', $session{out}, '2>', $session{err});
	return \%session;
}

# finish_psql(session): waits until it ends; returns its exit status, what it printed, and its messages.
sub finish_psql
{
	my ($session) = @_;

	if ($session->{handle})
	{
		IPC::Run::finish($session->{handle});
		$session->{status} = $session->{handle}->result(0);
		$session->{handle} = undef;
	}
	return ($session->{status}, slurp_file($session->{out}), slurp_file($session->{err}));
}

# backend_pid(node, name): of the session that was started with that name.
sub backend_pid
{
	my ($node, $name) = @_;
	return $node->safe_psql('postgres', "SELECT max(pid) FROM pg_stat_activity WHERE application_name = '$name'");
}

# Wait points.

# hold_point(node, point): keeps backends from passing it, until release_point().
sub hold_point
{
	my ($node, $point) = @_;
	my %holder = (node => $node, lock => "7270, hashtext('$point')");

	$holder{$_} = $node->background_psql('postgres') for qw(now next);
	$holder{now}->query_safe("SELECT pg_advisory_lock($holder{lock})");
	return \%holder;
}

# step_point(holder): lets who waits there pass once. The next one to hold it queues up behind them first, so that
# they can't come by a second time before it does.
sub step_point
{
	my ($holder) = @_;
	my ($now, $next) = @$holder{qw(now next)};

	$next->query_until(qr/queueing/, "\\echo queueing\nSELECT pg_advisory_lock($holder->{lock});\n");
	wait_until('the next one to hold the point waits', sub {
		return $holder->{node}->safe_psql('postgres', <<'SQL') > 0;
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 7270 AND mode = 'ExclusiveLock' AND NOT granted
SQL
	});
	$now->query_safe("SELECT pg_advisory_unlock($holder->{lock})");
	$next->query_safe('SELECT 1');
	@$holder{qw(now next)} = ($next, $now);
}

# release_point(holder): lets all pass; the server may be gone.
sub release_point
{
	my ($holder) = @_;

	for (qw(now next))
	{
		eval { $holder->{$_}->quit; };
	}
}

# wait_at_point(node, point, name, session): until the session of that name waits there; returns its process.
sub wait_at_point
{
	my ($node, $point, $name, $session) = @_;
	return wait_until("$name waits at $point", sub {
		my $messages = slurp_file($session->{err});
		die "$name failed: $messages" if $messages =~ /ERROR|FATAL/;
		return $node->safe_psql('postgres', <<"SQL");
SELECT a.pid FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
WHERE l.locktype = 'advisory' AND l.classid = 7270 AND l.mode = 'ShareLock' AND NOT l.granted AND a.application_name = '$name'
	AND l.objid = (hashtext('$point')::bigint & 4294967295)::oid
SQL
	});
}

# Clients that append, and log what was acknowledged.

# start_appenders(node, prefix, count, events each): appends by function, raw INSERT and COPY-like batches to
# streams that all of them share; the type of an event is prefix-client-number.
sub start_appenders
{
	my ($node, $prefix, $count, $each) = @_;
	my @clients;

	for my $client (1 .. $count)
	{
		my $script = '';
		for my $n (1 .. $each)
		{
			my $stream = ($n * $client) % 20 + 1;
			my $label = "$prefix-$client-$n";
			$script .=
			  $n % 3 == 0
			  ? "INSERT INTO events (stream_id, event_type, body) VALUES (md5('stream $stream')::uuid, '$label', '$n') RETURNING event_type;\n"
			  : $n % 3 == 1
			  ? "SELECT '$label' FROM rf_append(md5('stream $stream')::uuid, '$label', '$n', created_at => '2024-02-03');\n"
			  : "SELECT '$label' FROM rf_append_batch(md5('own $client')::uuid, '[{\"type\": \"$label\", \"body\": 1}]');\n";
		}
		push @clients, start_psql($node, $script, "appender $client");
	}
	return \@clients;
}

# acknowledged(clients): the types of the events that the server said are there.
sub acknowledged
{
	my ($clients) = @_;
	my @labels;

	for my $client (@$clients)
	{
		push @labels, slurp_file($client->{out}) =~ /^(.+)\n/mg;
	}
	return @labels;
}

# stop_appenders(clients): waits for them to end, as they do when the server is gone.
sub stop_appenders
{
	my ($clients) = @_;

	finish_psql($_) for @$clients;
}

# check_acknowledged(node, prefix, clients, name): acknowledged <= there <= acknowledged + one a client.
sub check_acknowledged
{
	my ($node, $prefix, $clients, $name) = @_;
	my %there = map { $_ => 1 } split /\n/,
	  $node->safe_psql('postgres', "SELECT event_type FROM events_all WHERE event_type LIKE '$prefix-%'");
	my @acknowledged = acknowledged($clients);
	my @lost = grep { !$there{$_} } @acknowledged;

	cmp_ok(scalar @acknowledged, '>', 0, "$name: events were acknowledged");
	is("@lost", '', "$name: each of them is there");
	cmp_ok(scalar keys %there, '<=', @acknowledged + @$clients,
		"$name: at most one more a client is there");
}

# wait_until_up(node): after a crash of a backend, until the server takes connections again. Not by psql: where that
# has ended before it is given its input, the test would end too.
sub wait_until_up
{
	my ($node) = @_;

	wait_until('the server is up again',
		sub { return system_log('pg_isready', '-q', '-h', $node->host, '-p', $node->port) == 0; });
}

# restart_until_up(node): starts it; again while processes of the last one still use its memory, or hold its lock.
sub restart_until_up
{
	my ($node) = @_;

	wait_until('the server starts', sub {
		return 1 if system_log('pg_ctl', '-w', '-s', '-D', $node->data_dir, '-l', $node->logfile, 'start') == 0;
		usleep(200_000);
		return 0;
	});
	$node->_update_pid(1);
}

1;
