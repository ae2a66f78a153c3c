# The worker is in nobody's way: databases are dropped, renamed and copied while it works, also in the middle of a
# batch. Nothing is lost, it goes on by itself, and the log stays quiet.
use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowCluster;
use RillflowDump;
use RillflowWorker;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = PostgreSQL::Test::Cluster->new('neighbours');
$node->init;
$node->append_conf('postgresql.conf', join("\n", "timezone = 'UTC'", preloaded()));
$node->start;

sub ask { return $node->safe_psql('postgres', $_[0]); }

# within(seconds, name, sql): the statement works, in less than that.
sub within
{
	my ($seconds, $name, $sql) = @_;
	my $begin = time();
	my ($status, undef, $messages) = $node->psql('postgres', $sql);
	is($status, 0, "$name: works") or diag($messages);
	cmp_ok(time() - $begin, '<', $seconds, "$name: soon");
	return;
}

# ---- preloaded, and no extension anywhere

usleep(2_500_000);
is(join("\n", messages($node, qr/rillflow|exited with/)), '', 'without the extension nothing is logged')
  or diag(slurp_file($node->logfile));

# ---- databases that are dropped, renamed and copied

make_store($node, 'busy');
at_work($node, 'busy', 'busy');
ask('CREATE DATABASE unrelated');
my $log = length slurp_file($node->logfile);
for my $held (0, 1)
{
	my $how = $held ? 'in the middle of a batch' : 'at work';

	hold_batches($node, 'busy', 'public') if $held;
	add_old_events($node, 'busy', 'public', "work $held", 20, 100);
	my $before = union_state($node, 'busy');
	held_worker($node, 'busy') if $held;
	within(6, "DROP DATABASE of another, $how", 'DROP DATABASE unrelated');
	ask('CREATE DATABASE unrelated');
	within(6, "a copy, $how", 'CREATE DATABASE copy TEMPLATE busy');
	is(union_state($node, 'copy'), $before, "a copy, $how: it has all events");
	held_worker($node, 'busy') if $held;
	within(6, "ALTER DATABASE RENAME, $how", 'ALTER DATABASE busy RENAME TO renamed');
	held_worker($node, 'renamed') if $held;
	free_batches($node, 'renamed', 'public') if $held;
	moved_by_worker($node, 'renamed', 'public');
	same_union($node, 'renamed', $before, "$how: nothing lost");
	is($node->safe_psql('copy', 'SELECT state FROM rf_worker_status'), 'disarmed', "a copy, $how: does nothing by itself");
	ask('DROP DATABASE copy');
	ask('ALTER DATABASE renamed RENAME TO busy');
}
at_work($node, 'busy', 'afterwards');
for my $force ('', ' WITH (FORCE)')
{
	make_store($node, 'doomed');
	hold_batches($node, 'doomed', 'public');
	add_old_events($node, 'doomed', 'public', 'doomed', 5, 20);
	held_worker($node, 'doomed');
	within(6, "DROP DATABASE$force in the middle of a batch", "DROP DATABASE doomed$force");
	make_store($node, 'doomed');
	within(6, "DROP DATABASE$force at work", "DROP DATABASE doomed$force");
}
at_work($node, 'busy', 'after the others');
usleep(2_000_000);
is(scalar messages($node, qr/still waiting for backend/, $log), 0, 'nobody waited for a process of ours to take part');
my @fatal = messages($node, qr/FATAL/, $log);
cmp_ok(scalar @fatal, '<', 10, 'no more processes ended than had to') or diag(join "\n", @fatal);
my $quiet = length slurp_file($node->logfile);
usleep(3_000_000);
is(scalar messages($node, qr/FATAL|exited with/, $quiet), 0, 'and none does afterwards');

$node->stop;
is(join("\n", messages($node, qr/TRAP:|PANIC:|terminated by signal (?!9)/)), '', 'nothing crashed');

done_testing();
