# A standby runs no policies, and begins to when it is promoted, without a restart.
use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowCluster;
use RillflowWorker;
use Test::More;
use Time::HiRes qw(usleep);

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', join("\n", "timezone = 'UTC'", preloaded()));
$primary->start;
prepare_store($primary);
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

$primary->safe_psql('postgres', "SELECT rf_policy_set('p', '30 days', '1 second')");
add_old_events($primary, 'postgres', 'public', 'first', 10, 20);
moved_by_worker($primary, 'postgres', 'public');
$primary->append_conf('postgresql.conf', 'rillflow.worker = off');
$primary->reload;
wait_until('no worker runs', sub { return !processes($primary, 'worker') });
add_old_events($primary, 'postgres', 'public', 'second', 10, 20);
my $before = checksum($primary, 'base');
like($before, qr/^400:/, 'there are events');
$primary->wait_for_catchup($standby);
usleep(1_500_000);
is(scalar processes($standby, 'launcher'), 0, 'no launcher runs on a standby');
is(hot_old($standby, 'postgres', 'public'), 200, 'nothing is moved there');
is(status($standby, 'postgres', 'p'), 'due', 'the status can be read there');

$primary->stop;
$standby->promote;
moved_by_worker($standby, 'postgres', 'public');
is(scalar processes($standby, 'launcher'), 1, 'promoted: a launcher runs');
is(cold($standby, 'postgres', 'public'), 400, 'promoted: the policy is armed, and moves what is due');
is(checksum($standby, 'base'), $before, 'promoted: the events are what they were');
is(violations($standby), '', 'promoted: heads, numbers and closed streams are right');
$standby->stop;
is(join("\n", messages($standby, qr/TRAP:|PANIC:|terminated by signal/)), '', 'nothing crashed');

done_testing();
