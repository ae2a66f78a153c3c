# Through PgBouncer in transaction mode: statements of one client go to any backend, and each backend has served
# others before. Appends, raw INSERTs and moves of many clients at once add up, and a switch reaches every backend.
use strict;
use warnings FATAL => 'all';
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowDump;
use Test::More;

my ($pgbouncer) = grep { -x } map { "$_/pgbouncer" } split(/:/, $ENV{PATH}), '/usr/sbin', '/usr/local/sbin';
plan skip_all => 'PgBouncer is not installed' unless defined $pgbouncer;
plan skip_all => 'PgBouncer does not run as root' if $> == 0;

my $pool_size = 4;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "timezone = 'UTC'\nmax_connections = 30");
$node->start;

sub ask { return value($node, 'postgres', $_[0]); }

# ---- the pooler

my $dir = PostgreSQL::Test::Utils::tempdir_short();
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $user = ask('SELECT current_user');
append_to_file("$dir/users", qq("$user" ""\n));
append_to_file("$dir/ini", <<INI);
[databases]
postgres = host=@{[$node->host]} port=@{[$node->port]} dbname=postgres
[pgbouncer]
pool_mode = transaction
default_pool_size = $pool_size
max_client_conn = 100
listen_addr =
listen_port = $port
unix_socket_dir = $dir
auth_type = trust
auth_file = $dir/users
admin_users = $user
ignore_startup_parameters = extra_float_digits
logfile = $dir/log
pidfile = $dir/pid
INI
my $bouncer = IPC::Run::start([ $pgbouncer, '-q', "$dir/ini" ], '<', \undef, '>', "$dir/out", '2>&1');
END
{
	my $status = $?;
	$bouncer->kill_kill if defined $bouncer;
	$? = $status;
}

my $pool = "host=$dir port=$port user=$user dbname=postgres";
my $answers = 0;
for (1 .. 100)
{
	last if $answers = IPC::Run::run([ 'psql', '-XAtq', '-d', $pool, '-c', 'SELECT 1' ], '>', \my $out, '2>', \my $err);
	select(undef, undef, undef, 0.1);
}
BAIL_OUT("PgBouncer does not answer:\n" . slurp_file("$dir/out")) unless $answers;

# ---- appends of many clients, while events are moved and switches are thrown

ask(<<SQL);
CREATE EXTENSION rillflow;
INSERT INTO events (stream_id, event_type, body)
	SELECT md5('stream ' || s)::uuid, 'seed', to_jsonb(n) FROM generate_series(1, 1000) AS n, generate_series(1, 20) AS s;
SQL
my $seeds = 20000;
like(union_state($node, 'postgres'), qr/^$seeds /, 'seeds');

my %scripts = (
	append => "\\set s random(1, 20)\n"
	  . "SELECT stream_seq FROM rf_append(md5('stream ' || :s)::uuid, 'append', '{}', allow_archived => true);\n",
	raw => "\\set s random(1, 20)\n"
	  . "INSERT INTO events (stream_id, event_type, body) VALUES (md5('stream ' || :s)::uuid, 'raw', '{}');\n",
	numbered => "\\set s random(1, 1000000)\n"
	  . "INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (gen_random_uuid(), 1, 'numbered', '{}');\n",
	transaction => "\\set s random(1, 20)\nBEGIN;\n"
	  . "SELECT stream_seq FROM rf_append(md5('stream ' || :s)::uuid, 'first', '{}', allow_archived => true);\n"
	  . "INSERT INTO events (stream_id, event_type, body) VALUES (md5('stream ' || :s)::uuid, 'second', '{}');\nEND;\n");
my @files;
foreach my $name (sort keys %scripts)
{
	append_to_file("$dir/$name.sql", $scripts{$name});
	push @files, '-f', "$dir/$name.sql";
}
my $transactions = $ENV{RF_SLOW_TESTS} ? 2000 : 200;
my $clients = 12;
my %bench;
foreach my $protocol (qw(simple extended))
{
	my $of = $bench{$protocol} = { out => '', err => '' };
	$of->{run} = IPC::Run::start(
		[ 'pgbench', '-n', '-M', $protocol, '-c', $clients / 2, '-j', 2, '-t', $transactions, '--max-tries=100', @files, $pool ],
		'<', \undef, '>', \$of->{out}, '2>', \$of->{err});
}

# Rounds of what an operator does, through the pool as well, for as long as the clients run.
my $operator = session($pool);
my $rounds = 0;
my @failures;
do
{
	foreach my $sql ("CALL rf_archive_run('infinity', 500)", 'SELECT rf_archive_set_redirect(true)',
		"SELECT rf_archive_mark(md5('stream 3')::uuid)", "SELECT rf_archive_move('infinity', 100, stream_id => md5('stream 3')::uuid)",
		"SELECT rf_archive_reactivate(md5('stream 3')::uuid)", 'SELECT rf_archive_set_redirect(false)')
	{
		$operator->ask($sql);
		push @failures, "$sql: " . $operator->error if $operator->error =~ /ERROR|FATAL/;
	}
	$rounds++;
	# Pumping one that has just ended dies.
	eval { $_->{run}->pump_nb } foreach values %bench;
} while ($rounds < 3 || ($rounds < 1000 && grep { $_->{run}->pumpable } values %bench));
is(join("\n", @failures), '', 'moves, marks, reactivations and switches went well');
cmp_ok($rounds, '>=', 3, 'several times');

my $acknowledged = 0;
foreach my $protocol (sort keys %bench)
{
	my $of = $bench{$protocol};
	ok($of->{run}->finish, "$protocol protocol: the clients ended well") || diag($of->{err});
	my ($done) = $of->{out} =~ /transactions actually processed: (\d+)/;
	my ($failed) = $of->{out} =~ /number of failed transactions: (\d+)/;
	is($done, $transactions * $clients / 2, "$protocol protocol: with all transactions");
	is($failed, 0, "$protocol protocol: none failed");
}
$acknowledged = $transactions * $clients;
my $twos = ask("SELECT count(*) FROM events_all WHERE event_type = 'second'");
is(ask("SELECT count(*) FROM events_all WHERE event_type = 'first'"), $twos, 'what is in one transaction came together');
cmp_ok($twos, '>', 0, 'and came');
is(ask('SELECT count(*) FROM events_all'), $seeds + $acknowledged + $twos, 'each acknowledged event is there, and no other');
is(broken_streams($node, 'postgres'), '0', 'streams are whole');
cmp_ok(ask('SELECT count(*) FROM events_archive'), '>', 1000, 'many were moved');
cmp_ok(ask("SELECT count(DISTINCT pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"),
	'<=', $pool_size, 'by the backends of the pool');

moved_whole($node, 'postgres', ask('SELECT count(*) FROM events'), 'run through the pool', sub {
	$operator->ask("CALL rf_archive_run('infinity')");
});
is(ask("SELECT sum(events) FROM rf_archive_log WHERE action = 'batch'") >= ask('SELECT count(*) FROM events_archive'), 1, 'by batches');

# ---- switches reach every backend

my @sessions = map { session($pool) } 1 .. $pool_size;
my @marked = map { "md5('marked $_')::uuid" } 0 .. $pool_size - 1;
ask("SELECT rf_append($_, 't', '{}'); SELECT rf_archive_mark($_)") foreach @marked;

# In all backends at once: each session holds one, since it is in a transaction. %s is a stream of its own.
sub everywhere
{
	my ($sql) = @_;
	my (%pids, @results);
	foreach my $n (0 .. $#sessions)
	{
		my $session = $sessions[$n];
		$session->ask('BEGIN');
		$pids{ $session->ask('SELECT pg_backend_pid()') } = 1;
		push @results, $session->ask($sql =~ s/%s/$marked[$n]/gr);
		push @results, $session->error if $session->error =~ /ERROR/;
	}
	$_->ask('COMMIT') foreach @sessions;
	is(scalar(keys %pids), $pool_size, 'in every backend');
	return join(' ', @results);
}

my $in_archive = 'SELECT count(*) FROM events_archive WHERE stream_id IN (' . join(', ', @marked) . ')';
foreach my $state (qw(false true false true))
{
	my $cold = ask($in_archive);
	$operator->ask("SELECT rf_archive_set_redirect($state)");
	is(everywhere('SELECT rf_archive_redirect_enabled()'), join(' ', (substr($state, 0, 1)) x $pool_size), "redirect is $state");
	everywhere("INSERT INTO events (stream_id, event_type, body) VALUES (%s, 't', '{}')");
	is(ask($in_archive) - $cold, $state eq 'true' ? $pool_size : 0, 'and a raw INSERT goes where that says');
}
my $size = ask("SELECT count(*) FROM events_all WHERE stream_id = $marked[0]");
isnt(everywhere('SELECT count(*) FROM rf_read_stream(%s)'), join(' ', ($size) x $pool_size), 'reads leave out what is archived');
ask("INSERT INTO rf_archive_config (include_archived_by_default) VALUES (true)"
	. ' ON CONFLICT (singleton) DO UPDATE SET include_archived_by_default = true');
is(everywhere('SELECT count(*) FROM rf_read_stream(%s)'), join(' ', ($size) x $pool_size), 'a plain UPDATE of the configuration arrives too');

# ---- what fails leaves nothing behind for the next client

foreach my $failing ("SELECT rf_append(md5('failing')::uuid, 't', '{}', expected_seq => 7)", "SELECT rf_archive_move('infinity', 0)",
	"INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES ($marked[0], 1000, 't', '{}')",
	"DO \$\$ BEGIN PERFORM rf_append(md5('failing')::uuid, 't', '{}'); RAISE 'no'; END \$\$",
	"SELECT rf_archive_move('infinity'), 1 / (SELECT 0)")
{
	foreach my $session (@sessions)
	{
		$session->ask($failing);
		like($session->error, qr/ERROR/, 'it fails') || diag($failing);
	}
	my $refused = everywhere('DELETE FROM events_hot_default');
	my $times = () = $refused =~ /55000/g;
	is($times, $pool_size, 'and events are append-only for whoever comes next');
}
is(broken_streams($node, 'postgres'), '0', 'streams are whole at the end');
$_->leave foreach $operator, @sessions;

done_testing();
