# The real events that the project is measured by: 191,163 changes to files, loaded by raw INSERT, archived up to
# a year, replayed: by rows, and with months that flip, in both backends, which then become each other. What is
# expected of them is known exactly.
use strict;
use warnings FATAL => 'all';
use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowDump;
use Test::More;

my $data = $ENV{RF_TEST_DATA} // "$FindBin::Bin/../../../shared/data";
my $file = "$data/file-events.tsv.xz";

plan skip_all => "the real events are not there ($file)" unless -r $file;
plan skip_all => 'xz, which unpacks the real events, is not installed' if system('xz --version >/dev/null 2>&1');

my $events = 191163;
my $streams = 27164;
my $cold_events = 172203;
my $cold_streams = 21504;
my $cut_off = '2026-01-01 00:00+00';
my $batch = 5000;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(allows_streaming => 'logical');
# A cluster of the test library that allows streaming has 128 buffers, too few for a plan over 180 months; and room
# for the locks of few connections, too few to flatten them.
$node->append_conf('postgresql.conf', "shared_buffers = '128MB'\nmax_locks_per_transaction = 512\ntimezone = 'UTC'");
$node->start;

my $db = 'postgres';

sub ask { return value($node, $db, $_[0]); }

# A database as another one is, for another way to go on.
sub copy_of
{
	my ($source, $copy) = @_;
	value($node, 'template1', "CREATE DATABASE $copy TEMPLATE $source");
	return;
}

# Load.
ask('CREATE EXTENSION rillflow');
ask('CREATE PUBLICATION everything FOR ALL TABLES');
ask('CREATE UNLOGGED TABLE raw (position bigint GENERATED ALWAYS AS IDENTITY, seconds bigint, repository text,'
	. ' path text, kind text, commit text)');
ask("\\copy raw (seconds, repository, path, kind, commit) FROM PROGRAM 'xz -dc \"$file\"'");
is(ask('SELECT count(*) FROM raw'), $events, 'the file has its events');
copy_of('postgres', 'months');
my $insert = <<'SQL';
INSERT INTO events (stream_id, event_type, body, created_at, bucket_month)
	SELECT md5(repository || ' ' || path)::uuid, 'file_changed', jsonb_build_object('kind', kind, 'commit', commit),
			to_timestamp(seconds), date_trunc('month', to_timestamp(seconds) AT TIME ZONE 'UTC')::date
		FROM raw ORDER BY position
SQL
ask($insert);
is(ask('SELECT count(*) FROM events'), $events, 'all were inserted');
is(ask('SELECT count(*) FROM rf_streams'), $streams, 'each stream has its row');
is(broken_streams($node, $db), '0', 'each stream is numbered without a gap');
is(ask(<<'SQL'), '0', 'events stand in the order of the file, within their streams too');
SELECT count(*) FROM
	(SELECT row_number() OVER (ORDER BY global_seq) AS n, row_number() OVER (PARTITION BY stream_id ORDER BY global_seq)
			AS of_stream, stream_id, stream_seq, body, created_at FROM events) AS e
	FULL JOIN raw ON position = n
	WHERE md5(repository || ' ' || path)::uuid IS DISTINCT FROM stream_id OR of_stream <> stream_seq
		OR body ->> 'commit' <> commit OR created_at <> to_timestamp(seconds)
SQL
my $loaded = union_state($node, $db);
like($loaded, qr/^$events $events /, 'the checksum is of all events');

# Archive.
is( ask("SELECT concat_ws(' ', events_moved, batches) FROM rf_archive_move('$cut_off', $batch, dry_run => true)"),
	"$cold_events " . int(($cold_events + $batch - 1) / $batch),
	'the dry run knows what will be moved');
is(ask('SELECT count(*) FROM events'), $events, 'and moves nothing');
my ($status, $stdout, $stderr) = $node->psql($db, "CALL rf_archive_run('$cut_off', $batch)");
is($status, 0, 'the run ends well');
unlike($stderr, qr/ERROR|WARNING/, 'and without complaint');

sub check_archived
{
	my ($when, $cold) = @_;
	$cold //= 'events_archive';
	is(ask("SELECT count(*) FROM $cold"), $cold_events, "$when: cold events");
	is(ask('SELECT count(*) FROM events_hot'), $events - $cold_events, "$when: hot events");
	is( ask("SELECT count(*) FROM events_all WHERE retention_class <> 'cold'") + $cold_events,
		$events, "$when: and they know it");
	is(ask("SELECT count(*) FROM $cold WHERE created_at >= '$cut_off'"), '0', "$when: none after the cut-off");
	is(ask("SELECT count(*) FROM events_hot WHERE created_at < '$cut_off'"), '0', "$when: none left before it");
	is(ask("SELECT count(*) FROM ${cold}_default"), '0', "$when: each cold event is in its month");
	is( ask("SELECT concat_ws(' ', hot_streams, cold_streams) FROM rf_archive_status()"),
		"@{[$streams - $cold_streams]} $cold_streams",
		"$when: streams by the status");
	is( ask('SELECT count(*) FROM rf_streams AS s WHERE (archived_at IS NULL) <>'
			. ' EXISTS (SELECT FROM events_hot AS e WHERE e.stream_id = s.stream_id)'),
		'0',
		"$when: closed are exactly the streams without a hot event");
	return same_union($node, $db, $loaded, "$when: nothing lost");
}

check_archived('run');
is(ask("SELECT sum(events) FROM rf_archive_log WHERE action = 'batch'"), $cold_events, 'the ledger has the events');
is(ask("SELECT max(events) FROM rf_archive_log WHERE action = 'batch'"), $batch, 'in batches as large as asked for');
is( ask("SELECT concat_ws(' ', count(*), count(DISTINCT stream_id)) FROM rf_archive_log WHERE action = 'close'"),
	"$cold_streams $cold_streams",
	'the ledger has each closed stream once');
is(ask('SELECT count(*) FROM events_all'), $events, 'the view shows all');
ask('ANALYZE');
is( ask("SELECT concat_ws(' ', hot_events, cold_events) FROM rf_archive_status()"),
	"@{[$events - $cold_events]} $cold_events",
	'the status knows the events, by statistics');

# Replay.
sub replay
{
	my ($archived) = @_;
	return ask(<<SQL);
CREATE TEMP TABLE seen (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, global_seq bigint, stream_id uuid, stream_seq int, created_at timestamptz);
DO \$\$
DECLARE
	here bigint := 0;
	size int;
	sizes int[];
BEGIN
	LOOP
		INSERT INTO seen (global_seq, stream_id, stream_seq, created_at)
			SELECT e.global_seq, e.stream_id, e.stream_seq, e.created_at
				FROM rf_read_all(here, 500, include_archived => $archived) AS e;
		GET DIAGNOSTICS size = ROW_COUNT;
		EXIT WHEN size = 0;
		IF size < 500 AND cardinality(sizes) > 0 AND sizes[cardinality(sizes)] < 500 THEN
			RAISE 'two batches in a row were short';
		END IF;
		sizes := sizes || size;
		SELECT global_seq INTO here FROM seen ORDER BY n DESC LIMIT 1;
	END LOOP;
END
\$\$;
SELECT concat_ws(' ', count(*), count(*) FILTER (WHERE s.global_seq > before OR before IS NULL), count(e.global_seq))
	FROM (SELECT *, lag(global_seq) OVER (ORDER BY n) AS before FROM seen) AS s
		LEFT JOIN events_all AS e USING (global_seq, stream_id, stream_seq, created_at);
SQL
}

is(replay('true'), "$events $events $events", 'a replay sees each event once, in order');
my $hot = $events - $cold_events;
is(replay('false'), "$hot $hot $hot", 'a replay of the hot ones sees each of those once, in order');

# Again.
my $entries = ask("SELECT count(*) FROM rf_archive_log WHERE action IN ('batch', 'close')");
ask("CALL rf_archive_run('$cut_off', $batch)");
check_archived('second run');
is(ask("SELECT count(*) FROM rf_archive_log WHERE action IN ('batch', 'close')"), $entries, 'and notes nothing');

# There and back, for the largest stream that is archived.
my ($largest, $size) = split /\|/,
  ask('SELECT stream_id, last_seq FROM rf_streams WHERE archived_at IS NOT NULL ORDER BY last_seq DESC, stream_id LIMIT 1');
cmp_ok($size, '>', 100, 'the largest archived stream is large');
is(ask("SELECT count(*) FROM events_archive WHERE stream_id = '$largest'"), $size, 'and all cold');
moved_whole($node, $db, -$size, 'reactivate',
	sub { ask("SELECT * FROM rf_archive_reactivate('$largest')"); });
is(ask("SELECT count(*) FROM events WHERE stream_id = '$largest'"), $size, 'its events are hot');
is(ask("SELECT retention_class || ' ' || (archived_at IS NULL) FROM rf_streams WHERE stream_id = '$largest'"),
	'hot true', 'and so is the stream');
moved_whole($node, $db, $size, 'move of one stream', sub {
	is( ask("SELECT concat_ws(' ', events_moved, streams_touched, months_flipped)"
			. " FROM rf_archive_move('$cut_off', $batch, stream_id => '$largest')"),
		"$size 1 0",
		'the move of it says what it did');
});
check_archived('there and back');
is(ask("SELECT count(*) FROM pg_publication_tables WHERE pubname = 'everything' AND tablename LIKE 'events%'") > 100,
	1, 'the publication was there all along, with every month');

# Back to plain tables, and into a store again, where what was cold is in events_archive.
sub flatten_and_adopt
{
	my ($what) = @_;
	my $marks = "SELECT count(*) || ' ' || sum(hashtext(concat_ws(' ', stream_id, last_seq, archived_at, archived_by)))"
	  . ' FROM rf_streams';
	my $before = ask($marks);
	is(ask('SELECT rf_flatten()'), $events, "$what: flattened");
	is(ask("SELECT string_agg(relname || ' ' || relkind::text, ', ' ORDER BY relname) FROM pg_class"
				. " WHERE relname IN ('events', 'events_archive')"),
		'events r, events_archive r', "$what: into plain tables");
	is(ask("SELECT concat_ws(' ', (SELECT count(*) FROM events), (SELECT count(*) FROM events_archive))"),
		$events - $cold_events . " $cold_events", "$what: with the same counts");
	is(sqlstate_of($node, $db, 'SELECT rf_read_all()'), '55000', "$what: there is no store any more");
	my ($left, undef, $messages) = $node->psql($db, "CALL rf_adopt('events')");
	is($left, 0, "$what: the plain tables are adopted") or diag($messages);
	check_archived("$what: flattened and adopted");
	is(ask($marks), $before, "$what: streams are archived as they were");
	is(ask('SELECT count(*) FROM events_hot_default'), '0', "$what: each hot event is in its month");
	is( ask("SELECT string_agg(action || ' ' || events, ', ' ORDER BY log_id) FROM rf_archive_log"
			. " WHERE action IN ('flatten', 'adopt')"),
		"flatten $events, adopt $events",
		"$what: the ledger tells of both");
	return;
}

flatten_and_adopt('by rows');

# The same with months from the beginning. The files of those that flip are the same wherever they go.
$db = 'months';
is( ask("SELECT count(rf_create_partition('hot', m)) FROM"
		. " (SELECT DISTINCT date_trunc('month', to_timestamp(seconds) AT TIME ZONE 'UTC')::date FROM raw) AS d (m)"),
	'182', 'each month gets its partition');
ask($insert);
is(ask('SELECT count(*) FROM events_hot_default'), '0', 'no event is in the default');
is(union_state($node, $db), $loaded, 'and all are the same');
my $months = ask("SELECT count(*) FROM (SELECT FROM events WHERE created_at < '$cut_off' GROUP BY bucket_month HAVING count(*) >= 1000) AS m");
cmp_ok($months, '>', 50, 'months that are worth a flip');
copy_of('months', 'branch');

sub files
{
	my ($tier) = @_;
	return ask(<<SQL);
SELECT string_agg(format('%s %s %s', replace(l.oid::regclass::text, '$tier', ''), l.relfilenode, i.relfilenode), ', ' ORDER BY l.relname, i.relname)
FROM pg_class AS l JOIN pg_index AS x ON x.indrelid = l.oid JOIN pg_class AS i ON i.oid = x.indexrelid
WHERE l.relname ~ '${tier}_[0-9]' AND x.indisunique
SQL
}

sub archive_months
{
	my ($cold) = @_;
	is( ask("SELECT count(*) FROM rf_archive_plan('$cut_off') WHERE method = 'flip'"),
		$months, "$cold: the plan flips what is worth it");
	my ($left, undef, $messages) = $node->psql($db, "CALL rf_archive_run('$cut_off', $batch)");
	is($left, 0, "$cold: the run ends well");
	unlike($messages, qr/ERROR|WARNING/, "$cold: and without complaint");
	like($messages, qr/ $months months flipped/, "$cold: it flips them");
	check_archived("$cold, with flips", $cold);
	is(ask("SELECT count(*) FROM rf_archive_log WHERE action = 'flip'"), $months, "$cold: the ledger has the flips");
	return;
}

sub change_backend
{
	my ($backend, $from, $to) = @_;
	my $files = files($from);
	my $wal = ask('SELECT pg_current_wal_lsn()');
	my $of = ask("SELECT count(*) FROM pg_inherits WHERE inhparent = '$from'::regclass") - 1;
	ask("SELECT rf_archive_set_backend('$backend')");
	my $kilobytes = ask("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '$wal')::int / 1024 / $of");
	cmp_ok($of, '>', 150, "to $to: there are months");
	cmp_ok($kilobytes, '<', 500, "to $to: WAL of a month does not depend on its events ($kilobytes kB)");
	check_archived("to $to", $to);
	is(files($to), $files, "to $to: the files are the same");
	is(ask("SELECT count(*) FROM $from"), '0', "to $to: nothing is left");
	is(ask("SELECT sum(events) FROM rf_archive_log WHERE action = 'convert' AND NOT estimated"), '', "to $to: nothing went by rows");
	return;
}

$db = 'months';
archive_months('events_archive');
change_backend('partitioned', 'events_archive', 'events_cold');
is(replay('true'), "$events $events $events", 'a replay there sees each event once, in order');
is(replay('false'), "$hot $hot $hot", 'a replay of the hot ones there sees each of those once, in order');
moved_whole($node, $db, -$size, 'reactivate there',
	sub { ask("SELECT * FROM rf_archive_reactivate('$largest')"); });
ask("SELECT * FROM rf_archive_move('$cut_off', $batch, stream_id => '$largest')");
change_backend('dual_table', 'events_cold', 'events_archive');
is(ask("SELECT string_agg(DISTINCT migrated_by, ' ') FROM events_archive"), 'archive_set_backend', 'who moved them is the change');

$db = 'branch';
ask("SELECT rf_archive_set_backend('partitioned')");
archive_months('events_cold');
change_backend('dual_table', 'events_cold', 'events_archive');
change_backend('partitioned', 'events_archive', 'events_cold');
flatten_and_adopt('with flips');

# Every month goes back, and is what it was.
ask(<<'SQL');
SELECT format('SELECT rf_flip_partition(%L, %L)', from_month, 'hot') FROM rf_partitions()
WHERE retention = 'cold' AND to_month < now() \gexec
SQL
is(events_in($node, $db, 'events_hot'), $events, 'all months turn hot again, with all events');
is(union_state($node, $db), $loaded, 'which are what they were');

done_testing();
