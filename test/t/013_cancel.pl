# A long move is told to stop, by a person, by a limit of time, or by a lock that others hold: it ends soon, keeps
# what it has committed, and loses nothing. While it runs it tells how far it is, once a second at most.
use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowCluster;
use Test::More;
use Time::HiRes qw(time);

my $node = new_store('cancel', 'max_connections = 20');
my $total = 60_000;
load_events($node, 200, $total / 200);
my $before = checksum($node, 'base');
like($before, qr/^$total:/, 'there are events');

# moved(): how many events are cold, and how many the ledger tells of.
sub moved
{
	my ($cold, $told) = split /\|/, $node->safe_psql('postgres', <<'SQL');
SELECT (SELECT count(*) FROM events_archive), (SELECT coalesce(sum(events), 0) FROM rf_archive_log WHERE action = 'batch')
SQL
	is($told, $cold, "the ledger tells of $cold cold events");
	return $cold;
}

sub check_store
{
	my ($name) = @_;
	is(checksum($node, 'base'), $before, "$name: the events are what they were");
	is(violations($node), '', "$name: heads, numbers and closed streams are right");
}

# A lock that a person holds: a month that has to be made waits for it only so long, and nothing has happened.
my $reader = $node->background_psql('postgres');
$reader->query_safe('BEGIN');
$reader->query_safe('SELECT count(*) FROM events_all');
my $ledger = $node->safe_psql('postgres', 'SELECT count(*) FROM rf_archive_log');
my $start = time();
my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT rf_create_partition('cold', '2024-01-01')");
like($err, qr/ERROR:  55P03:/, 'a month that is made while others read: 55P03');
cmp_ok(time() - $start, '<', 5, 'it does not wait long');
is($node->safe_psql('postgres', 'SELECT count(*) FROM rf_archive_log'), $ledger, 'the ledger has no new row');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_inherits WHERE inhparent = 'events_archive'::regclass"),
	1, 'no month is made');

# A move does without the month, and leaves the events in the default partition, for the month to take along.
$start = time();
($status, $out, $err) = $node->psql('postgres', "CALL rf_archive_run('2024-01-06', 100)");
is($status, 0, 'a move that would make a month while others read ends well') or diag($err);
cmp_ok(time() - $start, '<', 5, 'it does not wait long');
like($err, qr/NOTICE:  .*month/, 'it tells that it made no month');
my $none = moved();
cmp_ok($none, '>', 0, 'and has moved the events');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_inherits WHERE inhparent = 'events_archive'::regclass"),
	1, 'no month is made');
check_store('lock');
$reader->query_safe('COMMIT');
$reader->quit;
is($node->safe_psql('postgres', "SELECT rf_create_partition('cold', '2024-01-01')"), 'events_archive_2024_01', 'it can be made now');
is($node->safe_psql('postgres', 'SELECT count(*) FROM events_archive_2024_01'), $none, 'the events have gone along');
check_store('month');

# Cancelled by a person, in the middle.
my $mover = start_psql($node, "CALL rf_archive_run('2024-05-01', 2);", 'mover');
wait_until('some batches are committed', sub {
	return $node->safe_psql('postgres', "SELECT count(*) > $none + 40 FROM events_archive") eq 't';
});
my $pid = backend_pid($node, 'mover');
is($node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)"), 't', 'the mover is cancelled');
$start = time();
($status, $out, $err) = finish_psql($mover);
cmp_ok(time() - $start, '<', 1, 'it ends within a second');
like($err, qr/ERROR:  57014:/, 'with 57014');
my $first = moved();
cmp_ok($first, '>', $none + 40, 'the batches committed are kept');
cmp_ok($first, '<', $total, 'and it was in the middle');
is(($first - $none) % 2, 0, 'there is no half batch');
check_store('cancel');

# Cancelled while it waits at a place within a batch.
my $holder = hold_point($node, 'move_before_commit');
$mover = start_psql($node, "CALL rf_archive_run('2024-05-01', 10);", 'mover');
$pid = wait_at_point($node, 'move_before_commit', 'mover', $mover);
$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
($status, $out, $err) = finish_psql($mover);
like($err, qr/ERROR:  57014:/, 'cancelled before its commit');
is(moved(), $first, 'the batch is taken back');
release_point($holder);
check_store('cancel in a batch');

# A limit of the procedure, and one of the session.
$start = time();
($status, $out, $err) = $node->psql('postgres', "CALL rf_archive_run('2024-05-01', 1, max_runtime => '1s')");
my $took = time() - $start;
is($status, 0, 'max_runtime is no error');
cmp_ok($took, '<', 3, 'it ends soon after');
cmp_ok($took, '>', 0.9, 'and not before');
like($err, qr/stopped at max_runtime/i, 'it says so');
my $second = moved();
cmp_ok($second, '>', $first, 'what it moved is kept');
cmp_ok($second, '<', $total, 'it was in the middle');
check_store('max_runtime');

# A busy machine may need more than the shortest of these for the first batch.
my $third;
for my $timeout (300, 600, 1200, 2400)
{
	$start = time();
	($status, $out, $err) = $node->psql('postgres',
		"\\set VERBOSITY verbose\nSET statement_timeout = $timeout;\nCALL rf_archive_run('2024-05-01', 1)");
	like($err, qr/ERROR:  57014: canceling statement due to statement timeout/, 'statement_timeout');
	cmp_ok(time() - $start, '<', $timeout / 1000 + 1.7, 'it ends soon after');
	$third = moved();
	last if $third > $second;
}
cmp_ok($third, '>', $second, 'what it moved is kept');
check_store('statement_timeout');

# A stream that somebody holds does not keep a move longer than max_runtime, or lock_timeout, allow.
my $other = $node->background_psql('postgres');
$other->query_safe('BEGIN');
$other->query_safe("SELECT FROM rf_streams WHERE stream_id = md5('stream 1')::uuid FOR UPDATE");
for my $options ('', ', only_archived => true', ", max_runtime => '1s'")
{
	$start = time();
	($status, $out, $err) =
	  $node->psql('postgres', "CALL rf_archive_run('2024-01-20', 1000, md5('stream 1')::uuid$options)", timeout => 20);
	is($status, 0, "a move of a stream that somebody holds ends$options") or diag($err);
	cmp_ok(time() - $start, '<', 5, "soon$options");
}
$other->query_safe('ROLLBACK');
$other->quit;

# Progress of what is left, in batches so small that it takes some seconds.
my $left = $total - moved();
$mover = start_psql($node, "CALL rf_archive_run('2024-05-01', 1, max_runtime => '3s');", 'mover');
my $seen = wait_until('the activity shows progress', sub {
	my $activity = $node->safe_psql('postgres', "SELECT query FROM pg_stat_activity WHERE application_name = 'mover'");
	return $activity =~ /^rf_archive: moved/ ? $activity : '';
});
like($seen, qr{^rf_archive: moved \d+ of about \d+ events, \d+ a second, about \d+ s left$}, 'pg_stat_activity tells how far it is');
($status, $out, $err) = finish_psql($mover);
is($status, 0, 'it ends');
my @progress = $err =~ /NOTICE:  00000: (moved \d+ of about \d+ events, \d+ a second, about \d+ s left)\n/g;
cmp_ok(scalar @progress, '>=', 2, 'it has told how far it was');
cmp_ok(scalar @progress, '<=', 4, 'once a second at most');
my ($done) = $progress[-1] =~ /moved (\d+) of/;
cmp_ok($done, '>', 0, 'the last time it had moved some');
cmp_ok($done, '<=', $left, 'and not more than there were');

# A move in one statement is all or nothing: cancelled in its second batch, it keeps nothing of its first.
my $fourth = moved();
cmp_ok($fourth, '<', $total, 'there are events left');
$holder = hold_point($node, 'move_before_commit');
$mover = start_psql($node, "SELECT * FROM rf_archive_move('2024-05-01', 1);", 'mover');
wait_at_point($node, 'move_before_commit', 'mover', $mover);
step_point($holder);
$pid = wait_at_point($node, 'move_before_commit', 'mover', $mover);
$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
($status, $out, $err) = finish_psql($mover);
like($err, qr/ERROR:  57014:/, 'rf_archive_move is cancelled');
is(moved(), $fourth, 'nothing of it is kept');
release_point($holder);

# The rest goes in one.
is($node->safe_psql('postgres', "SELECT events_moved FROM rf_archive_move('2024-05-01', 100000)"),
	$total - $fourth, 'the rest is moved');
is(moved(), $total, 'all is cold now');
check_store('all');
is($node->safe_psql('postgres', 'SELECT count(*) FROM rf_streams WHERE archived_at IS NULL'), 0, 'every stream is closed');

# A redaction is all or nothing, too, and tells how far it is.
sub redacted { return $node->safe_psql('postgres', q{SELECT count(*) FROM events_all WHERE headers = '{"redacted": true}'}); }
my $long = "md5('long')::uuid";
my $many = 60_000;
$node->safe_psql('postgres', <<"SQL");
SELECT count(*) FROM rf_append_batch($long, (SELECT jsonb_agg(jsonb_build_object('type', 'long', 'body', n, 'created_at', '2024-01-05T00:00Z')) FROM generate_series(1, $many) AS n));
SQL
$holder = hold_point($node, 'redact_before_cold');
my $redactor = start_psql($node, "SELECT rf_redact($long, reason => 'r');", 'redactor');
$pid = wait_at_point($node, 'redact_before_cold', 'redactor', $redactor);
like($node->safe_psql('postgres', "SELECT query FROM pg_stat_activity WHERE application_name = 'redactor'"),
	qr/^rf_redact: redacted \d+ events of stream [-0-9a-f]+ so far$/, 'pg_stat_activity tells how far a redaction is');
$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
$start = time();
($status, $out, $err) = finish_psql($redactor);
cmp_ok(time() - $start, '<', 1, 'a redaction that is cancelled ends within a second');
like($err, qr/ERROR:  57014:/, 'with 57014');
is(redacted(), 0, 'nothing is redacted');
release_point($holder);
my $slow = start_psql($node, "SELECT rf_redact($long, reason => 'r');", 'redactor');
wait_until('a redaction is under way', sub {
	return $node->safe_psql('postgres', "SELECT query FROM pg_stat_activity WHERE application_name = 'redactor'") =~ /redacted/;
});
$pid = backend_pid($node, 'redactor');
is($node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)"), 't', 'a redaction is cancelled in the middle of its events');
$start = time();
($status, $out, $err) = finish_psql($slow);
cmp_ok(time() - $start, '<', 1, 'it ends within a second');
like($err, qr/ERROR:  57014:/, 'with 57014');
is(redacted(), 0, 'nothing is redacted');
is($node->safe_psql('postgres', "SELECT count(*) FROM rf_archive_log WHERE action = 'redact'"), 0, 'and the ledger tells of none');
is($node->safe_psql('postgres', "SELECT rf_redact($long, reason => 'r')"), $many, 'the next one redacts all');
is(redacted(), $many, 'which they are');
check_store('redaction');

done_testing();
