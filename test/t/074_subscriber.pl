# A logical subscriber of a store whose months flip: flips are DDL, and not replicated; they are done on the publisher,
# and on the subscriber once it has come so far. The rows are the same then, those too that were in flipped months
# before the subscription, and that leave them later; and the same after a change of the backend.
use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowDump;
use Test::More;

my ($publisher, $subscriber) = map
{
	my $node = PostgreSQL::Test::Cluster->new($_);
	$node->init(allows_streaming => 'logical');
	$node->append_conf('postgresql.conf', "timezone = 'UTC'\nwal_retrieve_retry_interval = '100ms'");
	$node->start;
	$node;
} qw(publisher subscriber);

sub on_both
{
	my ($sql) = @_;
	value($_, 'postgres', $sql) foreach $publisher, $subscriber;
	return;
}

sub ask { return value($publisher, 'postgres', $_[0]); }

on_both(<<'SQL');
CREATE EXTENSION rillflow;
SELECT rf_archive_set_redirect(true);
ALTER TABLE events ADD COLUMN note text DEFAULT 'none';
ALTER TABLE events_archive ADD COLUMN note text DEFAULT 'none';
SELECT rf_create_partition('hot', month)
	FROM unnest(ARRAY[date '2024-01-01', '2024-02-01', '2024-03-01', '2024-04-01']) AS month;
SQL
ask(<<'SQL');
INSERT INTO events (stream_id, event_type, body, headers, user_id, created_at, bucket_month)
	SELECT md5((n % 20)::text)::uuid, 'e' || n, jsonb_build_object('n', n), '{}', CASE n % 3 WHEN 0 THEN 'u' WHEN 1 THEN '' END,
			at, date_trunc('month', at AT TIME ZONE 'UTC')::date
		FROM generate_series(1, 1200) AS n, LATERAL (SELECT timestamptz '2024-01-01 00:00+00' + n * interval '2 hours') AS t (at);
SQL

# Months that have flipped before, there or there and back, are copied with the columns that their rows lack.
ask("SELECT rf_flip_partition('2024-01-01', tier) FROM unnest(ARRAY['cold', 'hot', 'cold']) AS tier");
ask("SELECT rf_flip_partition('2024-02-01', tier) FROM unnest(ARRAY['cold', 'hot']) AS tier");
value($subscriber, 'postgres', "SELECT rf_flip_partition('2024-01-01', 'cold')");
ask('CREATE PUBLICATION store FOR TABLE events, events_archive, rf_streams, rf_event_keys');
my $connection = quote_text($publisher->connstr('postgres'));
value($subscriber, 'postgres', "CREATE SUBSCRIPTION store CONNECTION $connection PUBLICATION store");
$subscriber->wait_for_subscription_sync($publisher, 'store');

# The rows of each leaf, but for when and by whom they were moved, which a flip says of each side.
sub leaves
{
	my ($node) = @_;
	my $tables = value($node, 'postgres', <<'SQL');
SELECT string_agg(format('SELECT %L, count(*), coalesce(sum(hashtextextended((to_jsonb(t) - ''migrated_at'' - ''migrated_by'')::text, 0)::numeric), 0) FROM ONLY %s AS t',
	relid, relid), ' UNION ALL ') FROM
	(SELECT relid FROM pg_partition_tree('events') WHERE isleaf UNION ALL SELECT relid FROM pg_partition_tree('events_archive') WHERE isleaf) AS l
SQL
	return value($node, 'postgres', "SELECT l || ' ' || n || ' ' || sum FROM ($tables) AS t (l, n, sum) WHERE n > 0 ORDER BY 1");
}

sub same
{
	my ($name, $events) = @_;
	$publisher->wait_for_catchup('store');
	my $there = leaves($publisher);
	like(union_state($publisher, 'postgres'), qr/^$events $events /, "$name: all events are there");
	is(union_state($subscriber, 'postgres'), union_state($publisher, 'postgres'), "$name: the same events");
	is(leaves($subscriber), $there, "$name: in the same leaves");
	is(broken_streams($subscriber, 'postgres'), '0', "$name: streams are whole");
	return $there;
}

like(same('at first', 1200), qr/^events_archive_2024_01 3\d\d /m, 'a flipped month is there');

# What leaves a flipped month, and comes to it.
ask("SELECT rf_archive_mark(md5('7')::uuid), rf_archive_mark(md5('8')::uuid)");
ask("SELECT rf_archive_move('infinity', only_archived => true)");
ask("SELECT rf_archive_reactivate(md5('7')::uuid)");
ask("SELECT rf_append(md5('8')::uuid, 'late', '{}', created_at => '2024-01-09 00:00+00', allow_archived => true)");
same('moved by rows', 1201);

# A flip that takes a late event along, changes that come after it, and then the flip on the subscriber; until then it waits for the month.
ask("SELECT rf_append(md5('8')::uuid, 'waits', '{}', created_at => '2024-02-09 00:00+00', allow_archived => true)");
is(ask('SELECT count(*) FROM events_archive_default WHERE event_type = \'waits\''), '1', 'a late event waits');
ask("SELECT rf_flip_partition('2024-02-01', 'cold')");
$publisher->wait_for_catchup('store');
value($subscriber, 'postgres', "SELECT rf_flip_partition('2024-02-01', 'cold')");
ask("SELECT rf_archive_reactivate(md5('9')::uuid)");
like(same('flipped', 1202), qr/^events_archive_2024_02 3\d\d /m, 'the month is cold');
ask("SELECT rf_flip_partition('2024-03-01', 'cold')");
ask("SELECT rf_archive_mark(md5('10')::uuid), rf_archive_reactivate(md5('10')::uuid)");
ok($subscriber->poll_query_until('postgres', 'SELECT apply_error_count > 0 FROM pg_stat_subscription_stats'),
	'what changes in a month that has not flipped on the subscriber waits for that');
value($subscriber, 'postgres', "SELECT rf_flip_partition('2024-03-01', 'cold')");
same('flipped late', 1202);

# Back.
ask("SELECT rf_flip_partition('2024-01-01', 'hot')");
$publisher->wait_for_catchup('store');
value($subscriber, 'postgres', "SELECT rf_flip_partition('2024-01-01', 'hot')");
ask("SELECT rf_append(md5('11')::uuid, 'on', '{}', created_at => '2024-01-10 00:00+00')");
same('back', 1203);

# The other backend.
ask("SELECT rf_archive_set_backend('partitioned')");
$publisher->wait_for_catchup('store');
value($subscriber, 'postgres', "SELECT rf_archive_set_backend('partitioned')");
ask("SELECT rf_archive_reactivate(md5('12')::uuid)");
ask("SELECT rf_archive_mark(md5('13')::uuid)");
ask("SELECT rf_archive_move('infinity', only_archived => true)");
like(same('other backend', 1203), qr/^events_cold_2024_02 /m, 'months are in the branch');
unlike(leaves($subscriber), qr/archive/, 'and none elsewhere');

# A redaction is an update of each side's own leaf, and takes the key along.
my $expected = value($publisher, 'postgres', "SELECT count(*) FROM events_all WHERE stream_id IN (md5('14')::uuid, md5('13')::uuid)");
is(ask("SELECT rf_redact(md5('14')::uuid, reason => 'r') + rf_redact(md5('13')::uuid, reason => 'r')"), $expected, 'a hot and a cold stream are redacted');
cmp_ok($expected, '>', 100, 'with many events');
same('redacted', 1203);
is(value($subscriber, 'postgres', q{SELECT count(*) FROM events_all WHERE body = '{}' AND headers = '{"redacted": true}'}), $expected, 'the subscriber has none of them');

# Once it is on its own, the subscriber goes on.
$subscriber->safe_psql('postgres', 'DROP SUBSCRIPTION store');
value($subscriber, 'postgres', "SELECT setval('events_global_seq_seq', (SELECT max(global_seq) FROM events_all))");
value($subscriber, 'postgres', "SELECT rf_append(md5('1')::uuid, 'own', '{}', created_at => '2024-01-05 00:00+00')");
value($subscriber, 'postgres', "CALL rf_archive_run('2025-01-01')");
like(union_state($subscriber, 'postgres'), qr/^1204 1204 /, 'on its own it has every event');
is(broken_streams($subscriber, 'postgres'), '0', 'and whole streams');
is(events_in($subscriber, 'postgres', 'events_hot'), '0', 'all cold');

done_testing();
