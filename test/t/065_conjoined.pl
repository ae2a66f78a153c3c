# A conjoined store as a whole: dumped and restored it is what it was, form included; what one of its tenants has is
# copied elsewhere with nothing lost; and a worker runs the policy of a tenant on that tenant's events alone.
use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowDump;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf',
	"timezone = 'UTC'\nshared_preload_libraries = 'rillflow'\nrillflow.naptime = '1s'");
$node->start;
my $dir = PostgreSQL::Test::Utils::tempdir();
my @tenants = ("O'Brien", 'back\\slash "and" quotes', "\x{c3}\x{a9}t\x{c3}\x{a9}");

sub ask { return value($node, @_); }

# What a tenant has in a database, with all columns of its events.
sub state_of
{
	my ($db, $tenant) = @_;
	my $name = quote_text($tenant);
	return ask($db, <<SQL);
SELECT concat_ws(' ', count(*), count(DISTINCT r ->> 'global_seq'), sum(hashtextextended(r::text, 0)::numeric))
  FROM (SELECT to_jsonb(e) - 'retention_class' FROM events_all AS e WHERE tenant_id = $name) AS r(r)
SQL
}

ask('postgres', "CREATE DATABASE $_") for ('source', 'other', 'single');
ask('source', 'CREATE EXTENSION rillflow');
ask('source', "SELECT rf_uninstall('public', 'public')");
ask('source', "SELECT rf_install('public', tenancy => 'conjoined')");

# The same five streams for each, with the same keys; old ones in months, and young ones.
foreach my $i (0 .. $#tenants)
{
	my $name = quote_text($tenants[$i]);
	ask('source',
			"SELECT rf_append(lpad(s::text, 32, '0')::uuid, 'of ' || $name, to_jsonb(n), jsonb_build_object('idempotency_key', s || '-' || n),"
			. " is_tombstone => n % 7 = 0, created_at => '2024-01-01 00:00+00'::timestamptz + make_interval(days => n), tenant => $name)"
			. ' FROM generate_series(1, 5) AS s, generate_series(1, 100) AS n');
	ask('source', "SELECT rf_archive_mark(lpad('1', 32, '0')::uuid, tenant => $name)") if $i != 1;
}
my ($first, $second, $third) = map { quote_text($_) } @tenants;
ask('source', "CALL rf_archive_run('2024-02-15 00:00+00', tenant => $first)");
ask('source', "SELECT rf_archive_move('2024-01-20 00:00+00', tenant => $second)");
ask('source', "SELECT rf_hold(lpad('2', 32, '0')::uuid, 'case', $first), rf_hold(NULL, 'suit', $second)");
# Nobody sees it before it is paused, as what runs it would.
ask('source', "BEGIN; SELECT rf_policy_set('p', '30 days', every => '1 second', tenant => $third);"
	. " SELECT rf_policy_pause('p', $third); COMMIT");
my $before = union_state($node, 'source');
my $cold = events_in($node, 'source', 'events_archive');
my $tables = join(' ', map { ask('source', "SELECT count(*) || ':' || sum(hashtextextended(t::text, 0)::numeric) FROM $_ AS t") }
	  qw(rf_streams rf_event_keys rf_holds rf_archive_policies));
cmp_ok($cold, '>', 0, 'some of the events are cold');
is(broken_streams($node, 'source'), '0', 'streams are whole');

# ---- Dumps

foreach my $form ('plain', 'custom')
{
	my $db = "from_$form";
	my $file = "$dir/$form.dump";
	my ($status, undef, $error) = program($node, 'pg_dump', '-F', $form, '-f', $file, 'source');
	is($status, 0, "$form: the store is dumped\n$error");
	ask('postgres', "CREATE DATABASE $db");
	($status, undef, $error) =
	  $form eq 'plain' ?
	  program($node, 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $db, '-f', $file) :
	  program($node, 'pg_restore', '--exit-on-error', '-d', $db, $file);
	is($status, 0, "$form: and restored\n$error");
	same_union($node, $db, $before, "$form: its events are what they were");
	is(events_in($node, $db, 'events_archive'), $cold, "$form: in the tiers where they were");
	is( join(' ', map { ask($db, "SELECT count(*) || ':' || sum(hashtextextended(t::text, 0)::numeric) FROM $_ AS t") }
			  qw(rf_streams rf_event_keys rf_holds rf_archive_policies)),
		$tables, "$form: with all that is kept of them");
	is(ask($db, 'SELECT tenancy FROM rf_stores'), 'conjoined', "$form: it is a conjoined store");
	is(ask($db, 'SELECT count(*) FROM rf_tenants()'), scalar @tenants, "$form: with its tenants");
	is(ask($db, "SELECT stream_seq FROM rf_append(lpad('2', 32, '0')::uuid, 'e', '{}', tenant => $_)"),
		'101', "$form: the streams of $_ go on")
	  for ($first, $second, $third);
	is( sqlstate_of($node, $db, "SELECT rf_append(lpad('3', 32, '0')::uuid, 'e', '{}', '{\"idempotency_key\": \"2-7\"}', tenant => $first)"),
		'RF003', "$form: the keys are known");
	is(sqlstate_of($node, $db, "SELECT rf_append(lpad('1', 32, '0')::uuid, 'e', '{}', tenant => $first)"),
		'RF002', "$form: the marks, too");
	is(sqlstate_of($node, $db, "SELECT rf_append(lpad('1', 32, '0')::uuid, 'e', '{}', tenant => $second)"),
		'00000', "$form: each his own");
	is(sqlstate_of($node, $db, "SELECT rf_redact(lpad('5', 32, '0')::uuid, NULL, 'why', $second)"),
		'55000', "$form: holds as well");
	ask($db, "CALL rf_archive_run('infinity', tenant => '*')");
	is(broken_streams($node, $db), '0', "$form: moves leave the streams whole");
	is(ask($db, "SELECT count(*) FROM events WHERE retention_class = 'hot'"), '0', "$form: and take everything");
}

# ---- One tenant elsewhere: a copy of its events, in order, is a copy of its streams.

my $columns = 'global_seq, tenant_id, stream_id, stream_seq, event_type, body, headers, causation_id, correlation_id,'
  . ' event_version, user_id, is_tombstone, created_at, bucket_month';
my $copy = "$dir/tenant.copy";
my ($status, undef, $error) = program($node, 'psql', '-X', '-q', '-d', 'source', '-c',
	"\\copy (SELECT $columns FROM events_all WHERE tenant_id = $first ORDER BY global_seq) TO '$copy'");
is($status, 0, "a tenant's events can be copied\n$error");
foreach my $db ('other', 'single')
{
	my $tenancy = $db eq 'single' ? 'single' : 'conjoined';
	my $argument = $db eq 'single' ? '' : ", tenant => $first";
	ask($db, 'CREATE EXTENSION rillflow');
	ask($db, "SELECT rf_uninstall('public', 'public')");
	ask($db, "SELECT rf_install('public', tenancy => '$tenancy')");
	($status, undef, $error) = program($node, 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $db, '-c',
		"\\copy events ($columns) FROM '$copy'");
	is($status, 0, "$db: they can be brought in\n$error");
	is(state_of($db, $tenants[0]), state_of('source', $tenants[0]), "$db: the same events");
	like(state_of($db, $tenants[0]), qr/^500 500 /, "$db: all of them");
	is(ask($db, 'SELECT count(*) FROM events_all'), '500', "$db: and nobody else's");
	is(broken_streams($node, $db), '0', "$db: streams are whole");
	is(ask($db, "SELECT stream_seq FROM rf_append(lpad('2', 32, '0')::uuid, 'e', '{}'$argument)"), '101', "$db: and go on");
	is( sqlstate_of($node, $db, "SELECT rf_append(lpad('3', 32, '0')::uuid, 'e', '{}', '{\"idempotency_key\": \"2-7\"}'$argument)"),
		'RF003', "$db: keys are known");
}

# ---- A policy of a tenant

my $hot_of = "SELECT count(*) FROM events WHERE retention_class = 'hot' AND tenant_id";
is(ask('source', "$hot_of = $third"), '500', 'a policy that is paused has moved nothing');
my $others = ask('source', "$hot_of <> $third");
ask('source', "SELECT rf_policy_resume('p', $third)");
ok($node->poll_query_until('source', "$hot_of = $third", '0'), 'a worker moves what is due of the tenant');
is(ask('source', "$hot_of <> $third"), $others, 'and nothing of the others');
ok($node->poll_query_until('source', "SELECT count(*) > 1 AND count(error) = 0 FROM rf_archive_runs WHERE finished_at IS NOT NULL"),
	'its runs are on record');
is(ask('source', "SELECT DISTINCT tenant_id FROM rf_archive_log WHERE action = 'batch' AND logged_at > (SELECT max(logged_at) FROM rf_archive_log WHERE action = 'policy resumed')"),
	$tenants[2], 'and its batches are the tenant\'s');
is(ask('source', "SELECT bool_and(archived_at IS NOT NULL) FROM rf_streams WHERE tenant_id = $third"), 't', 'streams are closed');
same_union($node, 'source', $before, 'nothing is lost');
ask('source', "SELECT rf_policy_remove('p', $third)");

$node->stop;
done_testing();
