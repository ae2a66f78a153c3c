# No space is left while events are moved, or nothing may be written: what was being done is undone as a whole, what
# was committed stays, and when there is space again, it goes on where it stood. The server may not write files larger
# than that, which an ordinary user can bring about.
use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowCluster;
use Test::More;

my $limit = 8 * 1024;    # kilobytes a file
my $node = PostgreSQL::Test::Cluster->new('space');
$node->init(extra => ['--wal-segsize=1']);
$node->append_conf('postgresql.conf', "timezone = 'UTC'\nmin_wal_size = '8MB'\nlog_statement = 'none'");
$node->start;
prepare_store($node);

# Months of some 4 MB each.
my $total = 9000;
$node->safe_psql('postgres', <<"SQL");
SELECT rf_create_partition('hot', month) FROM unnest(ARRAY[date '2024-01-01', '2024-02-01', '2024-03-01']) AS month;
INSERT INTO events (stream_id, event_type, body, headers, user_id, created_at, bucket_month)
	SELECT md5((n % 90)::text)::uuid, 'base-' || n,
			to_jsonb((SELECT string_agg(md5(n || ' ' || i), '') FROM generate_series(1, 36) AS i)), '{}',
			CASE n % 3 WHEN 0 THEN 'u' WHEN 1 THEN '' END, at, date_trunc('month', at AT TIME ZONE 'UTC')::date
		FROM generate_series(1, $total) AS n, LATERAL (SELECT timestamptz '2024-01-01 00:00+00' + n * interval '14 minutes') AS t (at);
SELECT count(*) FROM rf_streams AS s, rf_archive_mark(s.stream_id);
SQL
my $before = checksum($node, 'base');
like($before, qr/^$total:/, 'there are events');

# Start the server with files no larger than that; undef is no limit.
sub restart_with
{
	my ($kilobytes) = @_;
	my $files = defined $kilobytes ? $kilobytes : 'unlimited';
	$node->stop;
	my @start = ('pg_ctl', '-w', '-s', '-D', $node->data_dir, '-l', $node->logfile, 'start');
	is(system_log('bash', '-c', 'ulimit -S -f "$0" && exec "$@"', $files, @start), 0, "it starts, files: $files");
	$node->_update_pid(1);
	return;
}

sub check
{
	my ($name) = @_;
	is(checksum($node, 'base'), $before, "$name: the events are what they were");
	is(violations($node), '', "$name: heads, numbers, closed streams and the ledger are right");
	is(broken_indexes($node), '', "$name: indexes and heaps agree");
	return;
}

# A call that fails, and how.
sub fails
{
	my ($name, $sql, $how) = @_;
	my ($status, undef, $messages) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql");
	like($messages, $how, $name);
	return;
}

sub cold { return $node->safe_psql('postgres', 'SELECT count(*) FROM events_archive'); }

my $full = qr/ERROR:.*could not (extend|write to) file.*File too large/s;

# A move in one transaction is undone. By rows, since only_archived, and to one table, since it makes no months.
restart_with($limit);
fails('a move finds no space', "SELECT rf_archive_move('2024-04-01', 500, only_archived => true)", $full);
is(cold(), '0', 'and has moved nothing');
is($node->safe_psql('postgres', "SELECT count(*) FROM rf_archive_log WHERE action = 'batch'"), '0', 'nor tells of a batch');
check('after a move that failed');
# (the rows that were undone are there until they are cleaned up)
$node->safe_psql('postgres', 'VACUUM events_archive_default');
$node->safe_psql('postgres', "SELECT rf_archive_move('2024-02-01', 500, only_archived => true)");
my $moved = cold();
cmp_ok($moved, '>', 0, 'what fits is moved');
cmp_ok($moved, '<', $total, 'and that is not all');
check('after a move that fits');
fails('the next one does not fit', "SELECT rf_archive_move('2024-04-01', 500, only_archived => true)", $full);
is(cold(), $moved, 'and what was moved is moved');
check('after the next one');

# Again with space, and without for what is large then.
restart_with(undef);
$node->safe_psql('postgres', "SELECT rf_archive_move('2024-04-01', 500, only_archived => true)");
is(cold(), $total, 'with space the rest is moved');
check('with space');
restart_with($limit);
fails('a change of the backend, by rows, finds no space', "SELECT rf_archive_set_backend('partitioned')", $full);
is(cold(), $total, 'and is undone');
is($node->safe_psql('postgres', 'SELECT backend FROM rf_archive_status()'), 'dual_table', 'as a whole');
check('after a change that failed');
restart_with(undef);
is($node->safe_psql('postgres', 'SELECT rf_drain_default()'), $total, 'with space the rows get their months');

# A flip needs no space but for an index that the leaf lacks.
restart_with(1024);
$node->safe_psql('postgres', "SELECT rf_archive_set_backend('partitioned')");
$node->safe_psql('postgres', "SELECT rf_flip_partition('2024-02-01', 'hot')");
check('flips without space');
restart_with(undef);
$node->safe_psql('postgres', "CREATE INDEX ON events_hot ((body #>> '{}'))");
my $tables = $node->safe_psql('postgres', "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relname ~ '2024'");
restart_with(1024);
fails('one that has to build an index finds no space', "SELECT rf_flip_partition('2024-01-01', 'hot')", qr/ERROR:.*File too large/s);
is($node->safe_psql('postgres', "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relname ~ '2024'"),
	$tables, 'and has changed nothing');
restart_with(undef);
check('after a flip that failed');
$node->safe_psql('postgres', "SELECT rf_flip_partition('2024-01-01', 'hot')");
check('and with space');

# Nothing may be written.
$node->safe_psql('postgres', 'ALTER DATABASE postgres SET default_transaction_read_only = on');
my $hot = $node->safe_psql('postgres', 'SELECT count(*) FROM events_hot');
foreach my $call ("SELECT rf_archive_move('infinity')", "CALL rf_archive_run('infinity')", "SELECT rf_flip_partition('2024-01-01', 'cold')",
	"SELECT rf_archive_set_backend('dual_table')", "SELECT rf_create_partition('hot', '2024-05-01')", 'SELECT rf_drain_default()',
	"SELECT rf_drop_partition('hot', '2024-01-01')", "SELECT rf_append(md5('1')::uuid, 'e', '{}')",
	"SELECT rf_archive_mark(md5('1')::uuid)", "SELECT rf_archive_reactivate(md5('1')::uuid)")
{
	fails("read-only: $call", $call, qr/^psql:\S+ ERROR:  25006:/m);
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM events_hot'), $hot, 'read-only: nothing has moved');
cmp_ok($node->safe_psql('postgres', "SELECT sum(events) FROM rf_archive_plan('infinity')"), '>', 0, 'read-only: a plan is made');
check('read-only');
$node->safe_psql('postgres', 'SET default_transaction_read_only = off; ALTER DATABASE postgres RESET default_transaction_read_only');
$node->safe_psql('postgres', "CALL rf_archive_run('infinity')");
is($node->safe_psql('postgres', 'SELECT count(*) FROM events_hot'), '0', 'and again with leave to write, everything');
check('at last');

done_testing();
