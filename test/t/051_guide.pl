# The operator's guide, command by command: what it says of the command line has to be there as SQL, with the same
# words; then its verification query and its manual smoke test, step by step.
use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowDump;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "timezone = 'UTC'");
$node->start;

sub ask { return value($node, 'postgres', $_[0]); }

sub hot { return ask("SELECT count(*) FROM events WHERE stream_id = $_[0]"); }
sub cold { return ask("SELECT count(*) FROM events_archive WHERE stream_id = $_[0]"); }

sub unchanged
{
	my ($name, $code) = @_;
	my $before = table_states($node, 'postgres');
	$code->();
	return is(table_states($node, 'postgres'), $before, "$name changes nothing");
}

ask('CREATE EXTENSION rillflow');

# ---- "To verify", as it stands in the guide

my $verification = <<'SQL';
select child.relname
from pg_inherits
join pg_class parent on parent.oid = inhparent
join pg_class child on child.oid = inhrelid
join pg_namespace pn on pn.oid = parent.relnamespace
where pn.nspname = current_schema()
  and parent.relname = 'events';
SQL
is(join(' ', sort split /\n/, ask($verification)), 'events_cold events_hot', 'verification query');
is(ask($verification =~ s/'events'/'events_hot'/r =~ s/;\s*$/ and child.relname = 'events_hot_default'/r), 'events_hot_default',
	'with a default for hot events');
is(ask("SELECT count(*) FROM pg_trigger WHERE tgname = 'rf_events_redirect_archived' AND tgrelid = 'events'::regclass"),
	'1', 'the redirect trigger bears the name that the guide gives it');
is( ask("SELECT count(*) FROM information_schema.columns WHERE table_name = 'rf_streams'"
		. " AND column_name IN ('archived_at', 'archived_by', 'archive_reason', 'retention_class')"),
	'4', 'rf_streams tracks archival metadata');

# ---- Something to archive: 8 streams with 12 events each, 2023-09 to 2024-08

my $streams = 8;
my $each = 12;
ask(<<SQL);
SELECT count(*) FROM generate_series(1, $each) AS n, generate_series(1, $streams) AS s,
	rf_append(md5('stream ' || s)::uuid, 'happened', jsonb_build_object('n', n),
		created_at => timestamptz '2023-09-10 12:00+00' + (n - 1) * interval '1 month')
SQL
my @stream = map { "md5('stream $_')::uuid" } 0 .. $streams;

# ---- archive status

my $status = "SELECT schema, backend, redirect_enabled, hot_streams, cold_streams, hot_bytes > 0, cold_bytes > 0,"
	  . ' default_events, oldest_hot FROM rf_archive_status()';
is(ask($status), "public|dual_table|f|$streams|0|t|t|96|2023-09-10 12:00:00+00", 'archive status');
ask('ANALYZE');
is(ask('SELECT hot_events, cold_events FROM rf_archive_status()'), '96|0', 'with counts of events');

# ---- archive mark <stream-id> --reason

is( ask("SELECT archived_at = now(), archived_by = session_user, archive_reason, retention_class, last_seq"
		. " FROM rf_archive_mark($stream[1], reason => 'customer closed account')"),
	"t|t|customer closed account|cold|$each", 'archive mark with a reason');
is( ask("SELECT archive_reason, archived_by FROM rf_archive_mark($stream[2], archived_by => 'somebody')"),
	'manual mark|somebody', 'the reason may be left out');
is(ask('SELECT hot_streams, cold_streams FROM rf_archive_status()'), '6|2', 'status counts them');
is(sqlstate_of($node, 'postgres', "SELECT rf_append($stream[1], 'happened', '{}')"), 'RF002', 'a marked stream takes no events');
is(hot($stream[1]), $each, 'nothing was moved yet');

# ---- archive move --before 2024-01-01T00:00:00Z --batch-size 500, --dry-run, --stream

my $before = "'2024-01-01T00:00:00Z'";
unchanged('a dry run', sub {
	is(ask("SELECT * FROM rf_archive_move(before => $before, batch_size => 500, dry_run => true)"), '32|8|1|0', 'move --dry-run');
	is(ask("SELECT events_moved, streams_touched, batches FROM rf_archive_move($before, 10, dry_run => true)"), '32|8|4', 'in smaller batches');
	is(ask("SELECT events_moved, streams_touched FROM rf_archive_move($before, stream_id => $stream[3], dry_run => true)"), '4|1', 'of a stream');
	is(ask("SELECT events_moved, streams_touched FROM rf_archive_move($before, only_archived => true, dry_run => true)"), '8|2', 'of archived streams');
	is(ask("SELECT count(*), sum(events), min(oldest), max(newest), bool_or(closes) FROM rf_archive_candidates($before)"),
		'8|32|2023-09-10 12:00:00+00|2023-12-10 12:00:00+00|f', 'candidates');
	is(ask("SELECT count(*), bool_and(closes), sum(events) FROM rf_archive_candidates('infinity', max_streams => 3)"),
		'3|t|36', 'candidates that would close, a few of them');
	is(ask("SELECT count(*), sum(events), bool_and(method = 'rows'), min(bucket_month), max(bucket_month) FROM rf_archive_plan($before)"),
		'4|32|t|2023-09-01|2023-12-01', 'plan, a line a month');
});
moved_whole($node, 'postgres', 4, 'move --stream', sub {
	is(ask("SELECT * FROM rf_archive_move(before => $before, batch_size => 500, stream_id => $stream[3])"), '4|1|1|0', 'move --stream');
});
is(cold($stream[3]), 4, 'of that stream');
moved_whole($node, 'postgres', 28, 'move', sub {
	is(ask("SELECT * FROM rf_archive_move(before => $before, batch_size => 10)"), '28|7|3|0', 'move --before --batch-size');
});
is(ask("SELECT count(*) FROM events_all WHERE (retention_class = 'cold') <> (created_at < $before)"), '0', 'all that is older, and nothing else');
is(ask('SELECT hot_streams, cold_streams FROM rf_archive_status()'), '6|2', 'streams with later events stay hot');
is(ask("SELECT bool_and(migrated_by = 'archive_move' AND migrated_at <= now()) FROM events_archive"), 't', 'audit columns are filled');
moved_whole($node, 'postgres', 16, 'move --only-archived', sub {
	is(ask("SELECT events_moved, streams_touched FROM rf_archive_move('infinity', only_archived => true)"), '16|2', 'move of archived streams');
});
moved_whole($node, 'postgres', 24, 'run', sub { ask("CALL rf_archive_run('2024-05-01', 5)"); });
is(sqlstate_of($node, 'postgres', "BEGIN; CALL rf_archive_run('2024-05-01')"), '2D000', 'a run commits, so it stands alone');

# ---- reads: hot ones stay small, cold data on demand

is(ask("SELECT count(*) FROM rf_read_stream($stream[3])"), $each, 'an active stream is read whole');
is(ask("SELECT count(*) FROM rf_read_stream($stream[3], include_archived => false)"), 4, 'or its hot part');
is(ask("SELECT count(*) FROM rf_read_stream($stream[1])"), 0, 'an archived stream shows nothing');
is(ask("SELECT count(*) FROM rf_read_stream($stream[1], include_archived => true)"), $each, 'unless asked for');
is(ask('SELECT count(*) FROM rf_read_all(0, 1000)'), 24, 'a replay reads hot events');
is(ask('SELECT count(*) FROM rf_read_all(0, 1000, include_archived => true)'), 96, 'or all');
ask('SELECT rf_archive_set_include_archived(true)');
is(ask("SELECT count(*) FROM rf_read_stream($stream[1])"), $each, 'include_archived_by_default for a stream');
is(ask('SELECT count(*) FROM rf_read_all(0, 1000)'), 96, 'and for a replay');
ask('SELECT rf_archive_set_include_archived(false)');

# ---- archive redirect --enable true

is(ask('SELECT rf_archive_redirect_enabled()'), 'f', 'redirect is off at first');
ask("INSERT INTO events (stream_id, event_type, body) VALUES ($stream[1], 'late', '{}')");
is(hot($stream[1]) . cold($stream[1]), "1$each", 'off: events of an archived stream stay hot');
ask('SELECT rf_archive_set_redirect(true)');
is(ask('SELECT rf_archive_redirect_enabled(), redirect_enabled FROM rf_archive_status()'), 't|t', 'archive redirect --enable true');
ask("INSERT INTO events (stream_id, event_type, body) VALUES ($stream[1], 'late', '{}')");
is(hot($stream[1]) . cold($stream[1]), '1' . ($each + 1), 'on: they go to events_archive');
ask('SELECT rf_archive_set_redirect(false)');
is(ask('SELECT rf_archive_redirect_enabled()'), 'f', 'archive redirect --enable false');

# ---- archive reactivate <stream-id>

moved_whole($node, 'postgres', -($each + 1), 'reactivate', sub {
	is( ask("SELECT archived_at IS NULL, archived_by IS NULL, archive_reason IS NULL, retention_class FROM rf_archive_reactivate($stream[1])"),
		't|t|t|hot', 'archive reactivate');
});
is(ask("SELECT stream_seq FROM rf_append($stream[1], 'again', '{}')"), $each + 3, 'hot writes resume');
is(hot($stream[1]), $each + 3, 'in the hot tier');
moved_whole($node, 'postgres', 0, 'reactivate without events', sub {
	ask("SELECT rf_archive_reactivate($stream[2], restore_events => false)");
});
is(ask("SELECT stream_seq FROM rf_append($stream[2], 'again', '{}')"), $each + 1, 'and numbers go on');
is(sqlstate_of($node, 'postgres', "SELECT rf_archive_reactivate(md5('nobody')::uuid)"), '42704', 'an unknown stream');

# ---- archive partition --retention hot --month 2025-01-01

is(ask("SELECT rf_create_partition(retention => 'hot', month => '2025-01-01')"), 'events_hot_2025_01', 'archive partition');
is(ask("SELECT rf_create_partition('cold', '2025-01-01')"), 'events_archive_2025_01', 'for cold events, where the backend keeps them');
is(ask("SELECT rf_create_partition('hot', '2025-01-01')"), 'events_hot_2025_01', 'again');
is(sqlstate_of($node, 'postgres', "SELECT rf_create_partition('hot', '2025-01-02')"), '22023', 'a month begins on its first day');
ask("SELECT rf_append($stream[4], 'in a month', '{}', created_at => '2025-01-15')");
is(ask("SELECT tableoid::regclass FROM events WHERE event_type = 'in a month'"), 'events_hot_2025_01', 'events go there');
moved_whole($node, 'postgres', 0, 'a month for what is in the default', sub {
	is(ask("SELECT rf_create_partition('hot', '2024-08-01')"), 'events_hot_2024_08', 'a month of events that are there');
});
is(ask("SELECT count(*) FROM events_hot_2024_08"), $streams - 1, 'they went along');
ask("CREATE TABLE kept AS SELECT count(*) AS n FROM events_all; SELECT rf_create_partition('hot', '2020-01-01')");
ask('DROP TABLE events_hot_2020_01');
is(ask("SELECT count(*) = (SELECT n FROM kept), rf_create_partition('hot', '2020-01-01') FROM events_all"),
	't|events_hot_2020_01', 'an exhausted partition can be dropped, and made again');
is(ask("SELECT stream_seq FROM rf_append(md5('new')::uuid, 'first', '{}', created_at => '2020-01-31')"), '1', 'and used');

# ---- --tenant <name>

ask("CREATE SCHEMA tenant_a; SET client_min_messages = error; SELECT rf_install('tenant_a', 'a')");
ask("SELECT count(*) FROM generate_series(1, 5) AS n, rf_append(md5('stream 1')::uuid, 't', to_jsonb(n), tenant => 'a', created_at => '2024-01-01')");
is(ask("SELECT string_agg(concat_ws(' ', schema, tenant, hot_streams), ', ' ORDER BY schema) FROM rf_archive_status('*')"),
	'public 9, tenant_a a 1', 'status by schema');
is(ask("SELECT rf_create_partition('hot', '2025-01-01', tenant => 'a')"), 'tenant_a.events_hot_2025_01', 'partition --tenant');
my $default = union_state($node, 'postgres');
moved_whole($node, 'postgres', 5, 'move --tenant',
	sub { is(ask("SELECT events_moved FROM rf_archive_move('infinity', tenant => 'a')"), '5', 'move --tenant'); }, 'tenant_a');
is(union_state($node, 'postgres'), $default, 'and the default store is as it was');
is(sqlstate_of($node, 'postgres', "SELECT rf_archive_status('b')"), '42704', 'an unknown tenant');

# ---- Partition backend

ask("CREATE SCHEMA branch; SET client_min_messages = error; SELECT rf_install('branch', 'p'); SELECT rf_archive_set_backend('partitioned', 'p')");
ask("SELECT count(*) FROM generate_series(1, $each) AS n, rf_append(md5('s')::uuid, 't', '{}', tenant => 'p',"
	. " created_at => timestamptz '2023-09-10' + n * interval '1 month')");
my $branch = union_state($node, 'postgres', 'branch');
moved_whole($node, 'postgres', 3, 'move in the partition backend', sub { ask("CALL rf_archive_run($before, tenant => 'p')"); }, 'branch');
is( ask("SELECT string_agg(retention_class || ' ' || n, ', ' ORDER BY retention_class)"
		. ' FROM (SELECT retention_class, count(*) AS n FROM branch.events GROUP BY 1) AS c'),
	'cold 3, hot 9', 'cold events are in the branch');
is(ask('SELECT count(*) FROM branch.events_cold_2023_12'), '1', 'in their months');
same_union($node, 'postgres', $branch, 'nothing lost', 'branch');

# ---- "For manual smoke tests"

my $smoke = "md5('smoke')::uuid";
ask("SELECT count(*) FROM generate_series(1, 7) AS n, rf_append($smoke, 'smoke', jsonb_build_object('n', n))");
is(hot($smoke), 7, '1. insert a known stream with events');
ask("SELECT rf_archive_mark($smoke, 'smoke test')");
unchanged('the dry run of the smoke test', sub {
	is(ask("SELECT events_moved, streams_touched FROM rf_archive_move(now() + interval '1 day', only_archived => true, dry_run => true)"),
		'7|1', '2. mark the stream and move --dry-run');
	is(ask("SELECT events FROM rf_archive_candidates(now() + interval '1 day', only_archived => true) WHERE stream_id = $smoke"),
		'7', '2. it is visible');
});
my $left = ask("SELECT count(*) FROM events WHERE created_at < now() + interval '1 day'");
moved_whole($node, 'postgres', $left, '3. move --before the future', sub { ask("CALL rf_archive_run(now() + interval '1 day')"); });
is(cold($smoke), 7, '3. the events are in events_archive');
is(hot($smoke), 0, '3. and in no other place');
moved_whole($node, 'postgres', -7, '4. reactivate', sub { ask("SELECT rf_archive_reactivate($smoke)"); });
ask("SELECT rf_append($smoke, 'smoke', '{}')");
is(ask("SELECT string_agg(stream_seq::text, ' ' ORDER BY stream_seq) FROM events WHERE stream_id = $smoke"),
	'1 2 3 4 5 6 7 8', '4. and append another event: it lands back in events');
is(cold($smoke), 0, '4. and nothing stays behind');
# ---- what each action left in the ledger

is( ask("SELECT string_agg(DISTINCT action, ' ' ORDER BY action) FROM rf_archive_log"),
	'batch close mark partition made reactivate switch', 'every kind of action is in the ledger');
is(ask("SELECT sum(events) FROM rf_archive_log WHERE action = 'batch'"), 4 + 28 + 16 + 24 + $left, 'with all events that were moved');
is(ask("SELECT detail FROM rf_archive_log WHERE action = 'mark' ORDER BY log_id LIMIT 1"), 'customer closed account', 'and the reason');

is(broken_streams($node, 'postgres', $_), '0', "streams of $_ are whole") foreach qw(public tenant_a branch);

done_testing();
