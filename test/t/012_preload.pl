# The library preloaded or not, with and without the extension; a library that lacks a function that the SQL names;
# the extension dropped and made again under sessions that have plans and caches of it.
use strict;
use warnings FATAL => 'all';
use Cwd qw(abs_path);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;
use RillflowCluster;
use Test::More;

my $stream = '00000000-0000-0000-0000-00000000000a';

# error(node, database, sql): the SQLSTATE and message of what fails last.
sub error
{
	my ($node, $database, $sql) = @_;
	my (undef, undef, $err) = $node->psql($database, "\\set VERBOSITY verbose\n$sql");
	my @errors = $err =~ /ERROR:  (\w{5}: .*)/g;
	return @errors ? $errors[-1] : '';
}

# Not preloaded: all works, and the settings are there once a function was called.
my $node = new_store('preload');
is($node->safe_psql('postgres', 'SHOW shared_preload_libraries'), '', 'not preloaded');
is($node->safe_psql('postgres', "SELECT stream_seq FROM rf_append('$stream', 'one', '1', created_at => '2024-01-05')"), 1, 'append');
is($node->safe_psql('postgres', "SELECT rf_archive_redirect_enabled(); SHOW rillflow.batch_size"), "f\n500", 'setting');
is($node->safe_psql('postgres', "SET rillflow.batch_size = 1; SELECT rf_archive_redirect_enabled(); SHOW rillflow.batch_size"),
	"f\n1", 'a setting that was there before the library');
like(error($node, 'postgres', "SET rillflow.batch_size = 0; SELECT rf_archive_redirect_enabled()"), qr/^$|22023/,
	'a wrong one before the library does no harm');
is($node->safe_psql('postgres', "SELECT events_moved FROM rf_archive_move('infinity')"), 1, 'move');

# Preloaded, in a database without the extension, too.
$node->safe_psql('postgres', 'CREATE DATABASE bare');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'rillflow'");
$node->restart;
is($node->safe_psql('bare', 'SHOW rillflow.batch_size'), 500, 'preloaded, extension absent: settings are there');
is($node->safe_psql('bare', 'CREATE TABLE events (stream_seq integer); INSERT INTO events VALUES (1); SELECT * FROM events'),
	1, 'a table of that name is an ordinary one');
like(error($node, 'bare', 'SELECT rf_archive_status()'), qr/^42883: /, 'no function of ours');
like(error($node, 'bare', 'SET rillflow.batch_size = 0'), qr/^22023: /, 'a wrong setting is refused at once');
like(error($node, 'bare', 'SET rillflow.no_such_thing = 0'), qr/^42602: invalid configuration parameter name/, 'an unknown one, too');
$node->safe_psql('bare', 'DROP TABLE events; CREATE EXTENSION rillflow');
is($node->safe_psql('bare', "SELECT stream_seq FROM rf_append('$stream', 'one', '1')"), 1, 'the extension can be made there');
is($node->safe_psql('postgres', "SELECT stream_seq FROM rf_append('$stream', 'two', '2')"), 2, 'the store of before works on');

# A library that is older than the SQL, and lacks a function: a copy of what is installed, in whose library the name
# of one is another.
my $settings = slurp_file($ENV{TEMP_CONFIG});
chomp(my $pkglibdir = `pg_config --pkglibdir`);
my ($stage) = $settings =~ m{dynamic_library_path = '(.*?)\Q$pkglibdir\E} or die "no staged library in $settings";
my $older = abs_path(PostgreSQL::Test::Utils::tempdir()) . '/older';
PostgreSQL::Test::RecursiveCopy::copypath($stage, $older);
my $code = slurp_file("$older$pkglibdir/rillflow.so");
cmp_ok($code =~ s/rf_archive_status/rf_archive_statuZ/g, '>', 0, 'the library has the function');
open my $file, '>:raw', "$older$pkglibdir/rillflow.so" or die $!;
print $file $code;
close $file;
my $patched = $settings =~ s/\Q$stage\E/$older/gr;
$node->append_conf('postgresql.conf', $patched);
$node->restart;
like(error($node, 'postgres', 'SELECT * FROM rf_archive_status()'),
	qr/^42883: could not find function "rf_archive_status" in file ".*rillflow/, 'the function that it lacks is named');
is($node->safe_psql('postgres', "SELECT stream_seq FROM rf_append('$stream', 'three', '3', created_at => '2024-01-05')"), 3, 'append works');
is($node->safe_psql('postgres', "SELECT events_moved FROM rf_archive_move('2024-02-01')"), 1, 'move works');
$node->safe_psql('postgres', 'CREATE DATABASE other');
like(error($node, 'other', 'CREATE EXTENSION rillflow'), qr/^42883: could not find function "rf_archive_status"/,
	'the extension is not made with it');
is($node->safe_psql('other', "SELECT count(*) FROM pg_class WHERE relname ~ '^(rf_|events)'"), 0, 'and nothing is left of it');
$node->append_conf('postgresql.conf', $settings);
$node->restart;
is($node->safe_psql('postgres', 'SELECT schema FROM rf_archive_status()'), 'public', 'with the right one it is there');

# A trigger function that is called as what it is not.
for my $function (qw(rf_events_open rf_events_redirect_archived rf_events_close rf_events_append_only rf_config_changed))
{
	like(error($node, 'postgres', "SELECT $function()"), qr/^(0A000|39P01): /, "$function() is no function to call");
}

# Sessions with plans and caches, while others drop the extension and make it again.
my $session = $node->background_psql('postgres', on_error_stop => 0);
my $another = $node->background_psql('postgres', on_error_stop => 0);
my $number = 3;

sub ask
{
	my ($psql, $sql) = @_;
	$psql->{stderr} = '';
	my $out = $psql->query($sql);
	my ($error) = $psql->{stderr} =~ /ERROR:  (.*)/;
	return defined $error ? "ERROR: $error" : $out;
}

# What works while the extension is there.
sub check_works
{
	my ($psql, $name) = @_;
	for my $how (1 .. 6)
	{
		is(ask($psql, "SELECT stream_seq FROM rf_append('$stream', 'x', '1')"), ++$number, "$name: append $how");
		is(ask($psql, "EXECUTE raw('$stream')"), ++$number, "$name: prepared insert $how");
	}
	is(ask($psql, "EXECUTE appended('$stream')"), ++$number, "$name: prepared append");
	is(ask($psql, "SELECT events_moved > 0 FROM rf_archive_move('infinity')"), 't', "$name: move");
	is(ask($psql, "SELECT archived_at IS NULL FROM rf_archive_reactivate('$stream')"), 't', "$name: reactivate");
	is(ask($psql, "SELECT count(*) FROM rf_read_stream('$stream')"), $number, "$name: read");
	is(ask($psql, 'SELECT schema, backend FROM rf_archive_status()'), 'public|dual_table', "$name: status");
	is(violations($node), '', "$name: heads and numbers are right");
}

for my $psql ($session, $another)
{
	ask($psql, "PREPARE raw(uuid) AS INSERT INTO events (stream_id, event_type, body) VALUES (\$1, 'x', '1') RETURNING stream_seq");
	ask($psql, "PREPARE appended(uuid) AS SELECT stream_seq FROM rf_append(\$1, 'x', '1')");
}
check_works($session, 'first');
check_works($another, 'first, another session');
my $before = checksum($node, '');

for my $round (1, 2)
{
	like(error($node, 'postgres', 'DROP EXTENSION rillflow'), qr/^2BP01: /, "round $round: plain DROP EXTENSION is refused");
	$node->safe_psql('postgres', 'DROP EXTENSION rillflow CASCADE');
	is(checksum($node, ''), $before, "round $round: DROP EXTENSION CASCADE leaves every event");
	for my $psql ($session, $another)
	{
		like(ask($psql, "SELECT stream_seq FROM rf_append('$stream', 'x', '1')"),
			qr/^ERROR: .*function rf_append.* does not exist/, "round $round: append fails");
		like(ask($psql, "EXECUTE appended('$stream')"),
			qr/^ERROR: .*function rf_append.* does not exist/, "round $round: prepared append fails");
		like(ask($psql, "EXECUTE raw('$stream')"),
			qr/^ERROR: .*null value in column "stream_seq"/, "round $round: the table is an ordinary one");
	}
	$node->safe_psql('postgres', 'CREATE EXTENSION rillflow');
	for my $psql ($session, $another)
	{
		like(ask($psql, "SELECT stream_seq FROM rf_append('$stream', 'x', '1')"), qr/^ERROR: there is no store/,
			"round $round: the store is not taken up by itself");
	}
	$node->safe_psql('postgres', "SELECT rf_install('public')");
	check_works($session, "round $round");
	check_works($another, "round $round, another session");
	$before = checksum($node, '');
}

# While the extension was away, an application has gone on by itself.
$node->safe_psql('postgres', 'DROP EXTENSION rillflow CASCADE');
$node->safe_psql('postgres', 'INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES ' . "('$stream', "
	  . ($number + 1) . ", 'meanwhile', '1'), ('$stream', " . ($number + 2) . ", 'meanwhile', '1')");
$node->safe_psql('postgres', "CREATE EXTENSION rillflow; SELECT rf_install('public')");
$number += 2;
check_works($session, 'heads after a time without');

# Another schema in the place of the one that is known.
$node->safe_psql('postgres', "CREATE SCHEMA tenant; SELECT rf_install('tenant', 'tenant')");
is(ask($session, "SELECT stream_seq FROM rf_append('$stream', 'x', '1', tenant => 'tenant')"), 1, 'a tenant');
$node->safe_psql('postgres', "SELECT rf_uninstall('tenant', 'tenant', true); DROP SCHEMA tenant CASCADE;
	CREATE SCHEMA tenant; SELECT rf_install('tenant', 'tenant')");
is(ask($session, "SELECT stream_seq FROM rf_append('$stream', 'x', '1', tenant => 'tenant')"), 1, 'the tenant made anew');
is(ask($session, "INSERT INTO tenant.events (stream_id, event_type, body) VALUES ('$stream', 'x', '1') RETURNING stream_seq"),
	2, 'its raw INSERT');

$session->quit;
$another->quit;
done_testing();
