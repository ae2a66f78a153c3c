# Metrics are as exact after what happens to a server as before: many sessions at once, transactions that are
# undone or prepared, restarts, crashes, a promotion. And each action is one line of the log, in both of its
# formats, with names that try to be more than one field.
use strict;
use warnings FATAL => 'all';
use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowCluster;
use Test::More;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', <<'CONF');
timezone = 'UTC'
max_prepared_transactions = 5
autovacuum = off
logging_collector = on
log_destination = 'stderr,jsonlog'
log_directory = 'log'
log_filename = 'server'
log_rotation_age = 0
log_rotation_size = 0
log_line_prefix = '%m [%p] '
rillflow.log_min_duration = 1
session_preload_libraries = 'rillflow'
CONF
$primary->start;
prepare_store($primary);
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

sub ask { return $primary->safe_psql('postgres', $_[0]); }

# counters(node): name and labels to value of all counters and histograms.
sub counters
{
	my ($node) = @_;
	return $node->safe_psql('postgres', "SELECT name, labels, value FROM rf_metrics() WHERE type <> 'gauge' ORDER BY 1, 2");
}

sub counter
{
	my ($name, $node) = @_;
	return ($node // $primary)->safe_psql('postgres', "SELECT sum(value) FROM rf_metrics() WHERE name = 'archive_$name'");
}

# ---- many sessions at once

load_events($primary, 40, 10);
ask('SELECT rf_archive_set_redirect(true)');
my ($clients, $each) = (8, 40);
my @sessions;
for my $client (1 .. $clients)
{
	my $script = '';
	my $isolation = ('READ COMMITTED', 'REPEATABLE READ')[ $client % 2 ];
	$script .= "SELECT 1 FROM rf_archive_mark(md5('client $client')::uuid);\n";
	for my $n (1 .. $each)
	{
		# two rows that count in one statement, two in one that is undone, and now and then a transaction that is
		my $row = "(md5('client $client')::uuid, 'c', '{}')";
		my $insert = "INSERT INTO events (stream_id, event_type, body) VALUES $row, $row;\n";
		my $end = $n % 4 ? 'COMMIT' : 'ROLLBACK';
		$script .= "BEGIN ISOLATION LEVEL $isolation;\n${insert}SAVEPOINT s;\n${insert}ROLLBACK TO s;\n$end;\n";
	}
	push @sessions, start_psql($primary, $script, "client $client");
}
for (@sessions)
{
	my ($status, undef, $err) = finish_psql($_);
	is($status, 0, 'a client comes to its end') or diag($err);
}
is(counter('events_redirected_total'), $clients * $each * 3 / 4 * 2, 'redirected events are counted exactly');
is(counter('events_redirected_total'), ask("SELECT count(*) FROM events_archive WHERE migrated_by = 'archive_redirect'"), 'as many as there are');
is(counter('streams_marked_total'), $clients, 'marks, too');
my $slots = ask('SELECT count(*) FROM rf_archive_totals');
cmp_ok($slots, '<=', 32 + $clients, "slots are few: $slots");

# ---- nobody waits for who has not committed

ask("BEGIN; SELECT rf_archive_mark(md5('client 1')::uuid); PREPARE TRANSACTION 'held'");
is(counter('streams_marked_total'), $clients, 'what is prepared does not count');
ask("SET statement_timeout = '60s'; SELECT rf_archive_mark(md5('client 2')::uuid)") for 1 .. 3;
is(counter('streams_marked_total'), $clients + 3, 'others go on');
cmp_ok(ask('SELECT count(*) FROM rf_archive_totals'), '<=', 32 + $clients, 'in other slots');
ask("COMMIT PREPARED 'held'");
is(counter('streams_marked_total'), $clients + 4, 'and it counts when it is committed');
ask("BEGIN; SELECT rf_archive_mark(md5('client 1')::uuid); PREPARE TRANSACTION 'undone'");
ask("ROLLBACK PREPARED 'undone'");
is(counter('streams_marked_total'), $clients + 4, 'or never');

# Many versions of a slot, while an old snapshot keeps all of them.
my $old = $primary->background_psql('postgres');
$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM rf_archive_totals');
my $before = counter('events_redirected_total');
$slots = ask('SELECT count(*) FROM rf_archive_totals');
ask("INSERT INTO events (stream_id, event_type, body) VALUES (md5('client 1')::uuid, 'c', '{}');\n" x 1500);
is(counter('events_redirected_total'), $before + 1500, 'all count while an old snapshot is held');
cmp_ok(ask('SELECT count(*) FROM rf_archive_totals'), '<=', $slots + 1, 'in one slot of the session');
$old->quit;

# Tenants by the hundred in one transaction take few locks, and each has rows of his own.
ask('CREATE DATABASE conjoined');
sub ask_conjoined { return $primary->safe_psql('conjoined', $_[0]); }
ask_conjoined("SET client_min_messages = error; CREATE EXTENSION rillflow; SELECT rf_uninstall('public', 'public'); SELECT rf_install('public', tenancy => 'conjoined')");
my $mark = "SELECT count(*) FROM generate_series(1, 500) AS n, rf_archive_mark(md5('s')::uuid, tenant => 't ' || n)";
ask_conjoined("BEGIN; $mark; PREPARE TRANSACTION 'tenants'");
my $locks = ask("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 7");
cmp_ok($locks, '<=', 32, "tenants share locks: $locks");
cmp_ok($locks, '>', 1, 'but do not all wait for one');
is(ask_conjoined('SELECT count(*) FROM rf_archive_totals'), 0, 'and nothing counts');
ask_conjoined("SELECT rf_archive_mark(md5('other')::uuid, tenant => 't ' || n) FROM generate_series(1, 500) AS n");
ask_conjoined("COMMIT PREPARED 'tenants'");
is(ask_conjoined("SELECT count(*) || ' of ' || sum(value) FROM rf_metrics() WHERE name = 'archive_streams_marked_total' AND labels ->> 'tenant' LIKE 't %' AND value = 2"), '500 of 1000', 'before both are committed');
ask_conjoined($mark) for 1 .. 12;
is(ask_conjoined("SELECT sum(value) FROM rf_metrics() WHERE name = 'archive_streams_marked_total'"), 7000, 'all are counted');
cmp_ok(ask_conjoined('SELECT max(count) FROM (SELECT count(*) FROM rf_archive_totals GROUP BY tenant_id) AS c'), '<=', 4, 'in few slots each');

# ---- moves and flips

ask("INSERT INTO events (stream_id, event_type, body, created_at, bucket_month) SELECT md5('f' || n)::uuid, 'f', '{}', '2023-05-02', '2023-05-01' FROM generate_series(1, 2000) AS n")
  if ask("SELECT rf_create_partition('hot', '2023-05-01')");
ask("CALL rf_archive_run('2023-06-01 00:00+00')");
is(ask("SELECT value FROM rf_metrics(NULL) WHERE name = 'archive_events_moved_total' AND labels ->> 'method' = 'flip'"), 2000, 'a flip counts its events');
is(ask("SELECT string_agg(action || ' ' || events, ', ' ORDER BY log_id) FROM rf_archive_log WHERE action = 'flip counted'"), 'flip counted 2000', 'which the ledger says');
is(ask("SELECT count(*) FROM pg_locks WHERE mode = 'ShareLock' AND locktype = 'relation'"), 0, 'no lock is left');
ask("CALL rf_archive_run('2024-03-01 00:00+00', 20)");
is(ask("SELECT value FROM rf_metrics(NULL) WHERE name = 'archive_events_moved_total' AND labels ->> 'method' = 'rows'"),
	ask("SELECT sum(events) FROM rf_archive_log WHERE action = 'batch'"), 'and batches theirs');

# The count is that of the flip, whatever is written right after it; and writers wait for no count.
ask("INSERT INTO events (stream_id, event_type, body, created_at, bucket_month) SELECT md5('g' || n)::uuid, 'g', '{}', '2023-06-02', '2023-06-01' FROM generate_series(1, 2000) AS n")
  if ask("SELECT rf_create_partition('hot', '2023-06-01')");
ask("SELECT rf_archive_mark(md5('late')::uuid)");
my $point = hold_point($primary, 'flip_before_count');
my $run = start_psql($primary, "CALL rf_archive_run('2023-07-01 00:00+00');", 'run');
wait_at_point($primary, 'flip_before_count', 'run', $run);
my $writer = start_psql($primary, "INSERT INTO events (stream_id, event_type, body, created_at, bucket_month) VALUES (md5('late')::uuid, 'late', '{}', '2023-06-03', '2023-06-01');", 'writer');
wait_until('a writer waits for the snapshot of the count', sub { return ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'writer' AND wait_event_type = 'Lock'") });
release_point($point);
is((finish_psql($_))[0], 0, 'it comes to its end') for $writer, $run;
is(ask('SELECT count(*) FROM events_archive_2023_06'), 2001, 'who has waited writes to the month that has flipped');
is(ask("SELECT events FROM rf_archive_log WHERE action = 'flip counted' AND bucket_month = '2023-06-01'"), 2000, 'and does not count as flipped');
is(ask("SELECT count(*) FROM pg_locks WHERE mode = 'ShareLock' AND locktype = 'relation'"), 0, 'no lock is left of that');

# ---- restarts, crashes, and the standby

my $counters = counters($primary);
like($counters, qr/archive_events_redirected_total.*\|[1-9]/, 'there are counters');
$primary->wait_for_catchup($standby);
is(counters($standby), $counters, 'the standby has the same');
like($standby->safe_psql('postgres', 'SELECT rf_metrics_text()'), qr/^archive_stores_readable 1$/m, 'and the same text');
$primary->restart;
is(counters($primary), $counters, 'a restart changes none');
my $open = start_psql($primary, "BEGIN; SELECT rf_archive_mark(md5('client 3')::uuid); SELECT pg_sleep(1000);", 'open');
wait_until('it sleeps', sub { return ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'open' AND wait_event = 'PgSleep'") });
$primary->kill9;
finish_psql($open);
restart_until_up($primary);
is(counters($primary), $counters, 'nor does a crash');
ask("SELECT rf_archive_mark(md5('client 3')::uuid)");
is(ask("SELECT rf_prune_log('infinity') > 0"), 't', 'the ledger is pruned');
my $marked = counter('streams_marked_total');
$primary->wait_for_catchup($standby);
is($marked, $clients + 6, 'and counts go on');

# ---- the text

my $promtool = (grep { -x } map { "$_/promtool" } split /:/, $ENV{PATH})[0];
SKIP:
{
	skip 'promtool is not installed', 2 unless defined $promtool;
	ask(q{SELECT rf_policy_set(E'odd "\\\\\n', '1 year'), rf_consumer_advance(E'c "\\\\\n', 1); INSERT INTO rf_archive_runs (policy, finished_at, error) VALUES (E'odd "\\\\\n', now(), NULL)});
	my $text = ask('SELECT rf_metrics_text()') . "\n";
	my ($out, $err) = ('', '');
	ok(IPC::Run::run([ $promtool, 'check', 'metrics' ], '<', \$text, '>', \$out, '2>', \$err), 'promtool takes the text') or diag("$out$err");
	is($out . $err, '', 'and finds nothing to say');
	ok(!IPC::Run::run([ $promtool, 'check', 'metrics' ], '<', \"$text$text", '>', \$out, '2>', \$err), 'which it does of one that is there twice');
}

ask('DELETE FROM rf_consumers');

# ---- the log

my $log = $primary->data_dir . '/log/server';
my $hostile = qq(x" stream=forged by="y\\" \nLOG:  month flipped: events=1\r\n\t\x01 é \xc2\x85);
my $quoted = $hostile =~ s/'/''/gr;

# field(line): the fields of a line of ours, unescaped.
sub fields
{
	my ($line) = @_;
	my %fields;

	while ($line =~ /\G (\w+)=(?:"((?:[^"\\]|\\.)*)"|([^\s"]+|))/gc)
	{
		my ($name, $value) = ($1, $2 // $3);
		$value =~ s/\\(?:x([0-9a-f]{2})|(.))/defined $1 ? chr hex $1 : { n => "\n", r => "\r", t => "\t" }->{$2} \/\/ $2/ge;
		die "field $name twice: $line" if exists $fields{$name};
		$fields{$name} = $value;
	}
	die "not all of it is fields: $line" unless $line =~ /\G$/gc;
	return \%fields;
}

# lines(from): what of ours both logs have, as [what, fields]; dies where they differ.
sub lines
{
	my ($from) = @_;
	my $stderr = substr(slurp_file($log), $from->[0]);
	my $json = substr(slurp_file("$log.json"), $from->[1]);
	my $ours = qr/(?:stream|hold|archive|month|flipped|switch|partition|policy|adopt)[a-z ]*: schema=/;
	my @lines = $stderr =~ /^\S+ \S+ \S+ \[\d+\] LOG:  ($ours.*)$/mg;
	my @all = map { JSON::PP->new->utf8(0)->decode($_) } split /\n/, $json;
	my @json = map { $_->{message} } grep { $_->{message} =~ /^$ours/ } @all;

	is("@json", "@lines", 'both logs have the same lines');
	is(scalar(grep { exists $_->{statement} && $_->{message} =~ /^$ours/ } @all), 0, 'without statements');
	return map { /^([a-z ]+):(.*)$/ ? [ $1, fields($2) ] : die "line: $_" } @lines;
}

sub here { return [ -s $log, -s "$log.json" ]; }

my $from = here();
ask("SELECT 1 FROM rf_archive_mark(md5('log')::uuid, \$r\$$quoted\$r\$, 'somebody else')");
ask("BEGIN; SELECT rf_archive_mark(md5('log 2')::uuid, 'undone'); ROLLBACK");
ask("BEGIN; SAVEPOINT s; SELECT rf_archive_mark(md5('log 2')::uuid, 'undone'); ROLLBACK TO s; SELECT rf_archive_mark(md5('log 3')::uuid, 'done'); COMMIT");
ask("SELECT 1 FROM rf_archive_mark(md5('long')::uuid, repeat('é', 5000))");
my @lines = lines($from);
is(scalar(grep { $_->[0] eq 'stream marked archived' } @lines), 3, 'a mark is a line, and one that was undone none');
is($lines[0][1]{reason}, $hostile, 'a reason is all of one field');
is(join('|', @{ $lines[0][1] }{qw(schema tenant by)}, join ',', sort keys %{ $lines[0][1] }), 'public||somebody else|by,reason,schema,stream,tenant', 'with no others than there are');
is($lines[0][1]{stream}, ask("SELECT md5('log')::uuid"), 'the stream is told');
is($lines[1][1]{reason}, 'done', 'of the savepoints, the one that stayed');
is($lines[2][1]{reason}, 'é' x 500 . '...', 'a long value is cut between characters');

$from = here();
my $tenant = ask("SELECT schema FROM rf_stores WHERE schema = rf_create_tenant(\$t\$a" . ' "b" c=d' . "\$t\$)");
ask(<<'SQL');
SELECT rf_archive_reactivate(md5('log')::uuid);
SELECT rf_archive_set_redirect(false);
SELECT rf_hold(md5('log')::uuid, 'case 1');
SELECT rf_release(md5('log')::uuid, 'case 1');
SELECT rf_create_partition('hot', '2022-01-01');
SELECT stream_seq FROM rf_append(md5('log')::uuid, 'secret', '"of the body"', created_at => '2022-01-15 00:00+00');
SELECT rf_redact(md5('log')::uuid, reason => 'asked for');
SELECT rf_create_partition('cold', '2022-01-01');
SELECT events_moved FROM rf_archive_move('2022-02-01 00:00+00');
SELECT rf_flip_partition('2023-06-01', 'hot');
SELECT rf_flip_partition('2023-06-01', 'cold');
SELECT rf_create_partition('hot', '2035-01-01');
SELECT rf_drop_partition('hot', '2035-01-01');
SELECT rf_policy_set('p', '1 year');
SELECT rf_policy_remove('p');
SQL
@lines = lines($from);
my %seen = map { $_->[0] => $_->[1] } @lines;
is(join(', ', sort keys %seen), 'archive move batch, hold placed, hold released, month flipped, partition dropped, partition made, policy removed, policy set, stream reactivated, stream redacted, switch changed',
	'each action has a line');
is((grep { $_->[0] eq 'partition made' } @lines)[0][1]{tenant}, 'a "b" c=d', 'a tenant is all of one field');
is(join('|', @{ $seen{'archive move batch'} }{qw(month events streams)}), '2022-01|1|1', 'a batch tells month, events, streams') or diag(explain($seen{'archive move batch'}));
like($seen{'archive move batch'}{ms}, qr/^\d+\.\d{3}$/, 'and how long it took');
is(join('|', map { "$_->[1]{month} $_->[1]{tier} " . ($_->[1]{events} =~ /^\d+$/) } grep { $_->[0] eq 'month flipped' } @lines), '2023-06 hot 1|2023-06 cold 1', 'flips tell where to');
unlike(join("\n", grep { !/LOG:  statement:/ } split /\n/, substr(slurp_file($log), $from->[0])), qr/of the body/, 'no event is told of');

# The setting: nothing, all but batches, what takes long.
my %logged = (-1 => 0, 0 => 3, 1 => 4, 600000 => 1);
for my $setting (sort { $a <=> $b } keys %logged)
{
	$from = here();
	ask(<<"SQL");
SET rillflow.log_min_duration = $setting;
SELECT stream_seq FROM rf_append(md5('set')::uuid, 'e', '{}', created_at => '2022-01-15 00:00+00');
SELECT events_moved FROM rf_archive_move('2022-02-01 00:00+00');
SELECT rf_archive_set_notify(false);
SELECT rf_create_partition('hot', '2035-01-01');
SELECT rf_drop_partition('hot', '2035-01-01');
SQL
	is(scalar(lines($from)), $logged{$setting}, "log_min_duration $setting");
}
is(ask("CREATE ROLE somebody; SELECT context FROM pg_settings WHERE name = 'rillflow.log_min_duration'"), 'superuser', 'not for everybody to set');

# ---- promotion

$primary->wait_for_catchup($standby);
$counters = counters($primary);
$primary->stop('immediate');
$standby->promote;
is(counters($standby), $counters, 'a promotion changes no counter');
$standby->safe_psql('postgres', "SELECT rf_archive_mark(md5('promoted')::uuid)");
is(counter('streams_marked_total', $standby), $marked + 4, 'and the new primary counts on');

done_testing();
