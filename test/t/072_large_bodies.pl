# What is large: bodies near the limit of jsonb and beyond it, a reason of a megabyte, a batch of 100,000 events.
# It is stored and moved whole, or refused with nothing changed; and the server's memory stays in bounds.
use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowDump;
use Test::More;

my $megabytes = 200;
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "timezone = 'UTC'");
$node->start;
my $session = session($node, 'postgres');
my $pid = $session->ask('SELECT pg_backend_pid()');

# What succeeds, in the one session whose memory is watched.
sub ask
{
	my $result = $session->ask($_[0]);
	die $session->error if $session->error =~ /ERROR|FATAL/;
	return $result;
}

# Nothing here is about compression, which would take most of the time.
ask("ALTER SYSTEM SET default_toast_compression = 'lz4'; SELECT pg_reload_conf()")
  if ask("SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression'") =~ /t/;
ask('CREATE EXTENSION rillflow');

# ---- 200 MB

ask(<<SQL);
CREATE UNLOGGED TABLE material (body jsonb);
ALTER TABLE material ALTER COLUMN body SET STORAGE EXTERNAL;
INSERT INTO material SELECT to_jsonb(repeat(string_agg(md5(i::text), ''), $megabytes)) FROM generate_series(1, 32768) AS i;
SQL
cmp_ok(ask("SELECT pg_column_size(body) FROM material"), '>=', $megabytes * 1024 * 1024, "a body of $megabytes MB");

my $large = "md5('large')::uuid";
is(ask("SELECT stream_seq FROM material, rf_append($large, 'large', body)"), '1', 'rf_append() takes it');
is(ask("INSERT INTO events (stream_id, event_type, body) SELECT $large, 'large', body FROM material RETURNING stream_seq"),
	'2', 'a raw INSERT takes it');
ask("SELECT rf_append($large, 'small', '{}')");

# Count, and checksums of the bodies and of all else; the shared one would write each body out as text twice.
sub state
{
	return ask(<<SQL);
SELECT count(*), count(DISTINCT global_seq), sum(body_hash), sum(hashtextextended(r::text, 0))
  FROM (SELECT global_seq, stream_id, stream_seq, event_type, headers, causation_id, correlation_id, event_version, tenant_id,
			user_id, is_tombstone, created_at, bucket_month, jsonb_hash_extended(body, 0) AS body_hash
		  FROM events_all) AS r
SQL
}

my $state = state();
like($state, qr/^3\|3\|/, 'all are there');
is(ask("SELECT events_moved FROM rf_archive_move('infinity')"), '3', 'they are moved');
is(state(), $state, 'whole');
is(ask('SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM events_archive)'), '0|3', 'to the cold tier');
is( ask("SELECT count(*) FROM rf_read_stream($large, include_archived => true) AS e JOIN material AS m ON e.body = m.body"),
	'2', 'as they were given');
ask("SELECT rf_archive_reactivate($large)");
is(state(), $state, 'reactivated: whole');
is(broken_streams($node, 'postgres'), '0', 'streams are whole');

# ---- 300 MB, and 200 MB in an array that is too large with it

my $before = ask('SELECT count(*), sum(last_seq), (SELECT count(*) FROM events_all), (SELECT count(*) FROM rf_event_keys) FROM rf_streams');
my $too_large = "to_jsonb(repeat('x', 300 * 1024 * 1024))";
foreach my $sql ("SELECT rf_append(md5('huge')::uuid, 'huge', $too_large)",
	"INSERT INTO events (stream_id, event_type, body) VALUES (md5('huge')::uuid, 'huge', $too_large)",
	"SELECT rf_append_batch(md5('huge')::uuid, jsonb_build_array('{\"type\": \"t\", \"body\": 1}'::jsonb,"
	. ' jsonb_build_object(\'type\', \'huge\', \'body\', body), body)) FROM material')
{
	$session->ask($sql);
	like($session->error, qr/ERROR:\s+54000:/, 'too large: 54000: ' . substr($sql, 0, 70));
}
is(ask('SELECT count(*), sum(last_seq), (SELECT count(*) FROM events_all), (SELECT count(*) FROM rf_event_keys) FROM rf_streams'),
	$before, 'and nothing is changed');
is(ask("SELECT stream_seq FROM rf_append($large, 'after', '{}')"), '4', 'the stream goes on');

# ---- a reason of 1 MB, with what needs quoting

my $reason = "repeat(E'a''b\"\\n\\\\\\t\$\$%é', 100000)";
is(ask("SELECT archive_reason = $reason, length(archive_reason) >= 1000000 FROM rf_archive_mark($large, $reason)"), 't|t', 'a reason of 1 MB');
is(ask("SELECT archive_reason = $reason FROM rf_streams WHERE stream_id = $large"), 't', 'is kept');
is(ask("SELECT detail = $reason FROM rf_archive_log WHERE action = 'mark'"), 't', 'and in the ledger');
ask("SELECT rf_archive_reactivate($large)");

# ---- a batch of 100,000 events, in a store without large ones

ask("CREATE SCHEMA other; SET client_min_messages = error; SELECT rf_install('other', 't'); SET search_path = other, public");

my $many = "md5('many')::uuid";
is( ask(<<SQL), '100000|1|100000|t|t', 'a batch of 100,000 events, numbered in order');
SELECT count(*), min(stream_seq), max(stream_seq), bool_and(stream_seq = n), bool_and(global_seq > before OR before IS NULL)
  FROM (SELECT *, lag(global_seq) OVER (ORDER BY n) AS before FROM
	rf_append_batch($many, (SELECT jsonb_agg(jsonb_build_object('type', 'many', 'body', n, 'headers',
			CASE WHEN n % 10 = 0 THEN jsonb_build_object('idempotency_key', 'key ' || n) ELSE '{}' END) ORDER BY n)
		FROM generate_series(1, 100000) AS n), 0, tenant => 't') WITH ORDINALITY AS b (global_seq, stream_seq, n)) AS r
SQL
is(ask("SELECT count(*), count(*) FILTER (WHERE body = to_jsonb(stream_seq)) FROM events WHERE stream_id = $many"),
	'100000|100000', 'is stored in order');
is(ask('SELECT count(*) FROM rf_event_keys'), '10000', 'with its keys');
is(ask("SELECT last_seq FROM rf_streams WHERE stream_id = $many"), '100000', 'and its head');
my $repeat = '{"type": "x", "body": 0, "headers": {"idempotency_key": "key 99990"}}';
is( ask(<<SQL), "99990\n100001", 'a batch with one new event among repeats appends that one');
SELECT stream_seq FROM rf_append_batch($many, '[$repeat, {"type": "x", "body": 0}]', tenant => 't')
SQL
moved_whole($node, 'postgres', 100001, 'a move in one batch', sub {
	is( ask("SELECT events_moved, streams_touched, batches FROM rf_archive_move('infinity', 100000, stream_id => $many, tenant => 't')"),
		'100001|1|2', 'a move in batches of 100,000');
}, 'other');
is(ask("SELECT count(*), count(*) FILTER (WHERE body = to_jsonb(stream_seq)) FROM events_archive WHERE stream_id = $many"),
	'100001|100000', 'the events are cold');
like(($session->ask("SELECT rf_archive_move('infinity', 100001)") // '') . $session->error, qr/22023/, 'more than that is refused');

if (open(my $status, '<', "/proc/$pid/status"))
{
	my ($peak) = join('', <$status>) =~ /^VmHWM:\s+(\d+) kB/m;
	cmp_ok($peak, '<', 4 * 1024 * 1024, 'the session needed less than 4 GB') if defined $peak;
}
$session->leave;

done_testing();
