# How long a flip waits for its locks, and makes others wait behind it: as long as rillflow.lock_timeout, for all of an
# attempt, and no longer.
use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowCluster;
use Test::More;

my $node = new_store('waits', "deadlock_timeout = '60s'");
sub ask { return $node->safe_psql('postgres', $_[0]); }

load_events($node, 30, 60);
ask("SELECT rf_create_partition('hot', '2024-01-01')");
my $before = checksum($node, 'base');
like($before, qr/^1800:/, 'there are events');

# How long somebody has waited by now for a table that he wants for himself, in seconds; 0: nobody does.
sub waited
{
	return ask(<<'SQL');
SELECT coalesce(max(extract(epoch FROM clock_timestamp() - waitstart)), 0) FROM pg_locks
WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock' AND NOT granted
SQL
}

my $reader = $node->background_psql('postgres');
$reader->query_safe('BEGIN; SELECT count(*) FROM events');

# It has all of its time for the tables, though it has taken other locks before.
my $flip = start_psql($node, "SET rillflow.lock_timeout = '10s'; SELECT rf_flip_partition('2024-01-01', 'cold');", 'flip');
wait_until('the flip has waited for more than half of its time', sub {
	my $messages = slurp_file($flip->{err});
	die "it gave up: $messages" if $messages =~ /ERROR/;
	return waited() > 6;
});
$reader->query_safe('COMMIT');
my ($status, $out, $messages) = finish_psql($flip);
is($status, 0, 'the flip waits for who ends within the limit') or diag($messages);
like($out, qr/^events_archive_2024_01$/m, 'and the month is cold');

# No attempt takes longer, however often it is tried.
$reader->query_safe('BEGIN; SELECT count(*) FROM events');
$flip = start_psql($node, "SET rillflow.lock_timeout = '1s'; SELECT rf_flip_partition('2024-01-01', 'hot');", 'flip');
my ($longest, $attempts, $last) = (0, 0, 0);
wait_until('the flip gives up', sub {
	my $now = waited();
	$attempts++ if $now > 0 && ($last == 0 || $now < $last);
	$longest = $now if $now > $longest;
	$last = $now;
	return slurp_file($flip->{err}) =~ /ERROR/;
});
($status, $out, $messages) = finish_psql($flip);
like($messages, qr/ERROR:  55P03:/, 'a flip that does not get its locks says so');
cmp_ok($attempts, '>', 2, 'it has tried more than once');
cmp_ok($longest, '<', 2, 'and never kept others waiting for much longer than the limit');
$reader->query_safe('COMMIT');
$reader->quit;
is(ask("SELECT rf_flip_partition('2024-01-01', 'hot')"), 'events_hot_2024_01', 'when nobody is in the way it works at once');
is(checksum($node, 'base'), $before, 'the events are what they were');
is(violations($node), '', 'heads, numbers and closed streams are right');

done_testing();
