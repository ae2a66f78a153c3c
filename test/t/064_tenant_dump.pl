# A dump of one tenant alone: in another database it brings that tenant's events and nobody else's, is taken up by
# rf_install(), and goes on there. And a tenant is not dropped while a policy of it runs.
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
my $dir = PostgreSQL::Test::Utils::tempdir();

sub ask { return value($node, @_); }

ask('postgres', "CREATE DATABASE $_") for ('source', 'target');
ask('source', 'CREATE EXTENSION rillflow');
foreach my $tenant ("O'Brien", 'other')
{
	my $name = quote_text($tenant);
	ask('source', "SELECT rf_create_tenant($name)");
	ask('source',
			"SELECT rf_append(lpad(s::text, 32, '0')::uuid, 'of ' || $name, to_jsonb(n), jsonb_build_object('idempotency_key', s || '-' || n),"
			. " created_at => '2024-01-01 00:00+00'::timestamptz + make_interval(days => n), tenant => $name)"
			. ' FROM generate_series(1, 5) AS s, generate_series(1, 100) AS n');
	ask('source', "CALL rf_archive_run('2024-02-15 00:00+00', tenant => $name)");
	ask('source', "SELECT rf_archive_mark(lpad('1', 32, '0')::uuid, tenant => $name)");
}
my $schema = 'tenant_o_brien';
my $before = union_state($node, 'source', $schema);
my $cold = events_in($node, 'source', 'events_archive', $schema);
cmp_ok($cold, '>', 0, 'some of the events are cold');
isnt($before, union_state($node, 'source', 'tenant_other'), 'the tenants hold different events');

# ---- Elsewhere.

my $dump = "$dir/tenant.sql";
my ($status, undef, $error) = program($node, 'pg_dump', '-n', $schema, '-f', $dump, 'source');
is($status, 0, "the tenant can be dumped\n$error");
ask('target', 'CREATE EXTENSION rillflow');
($status, undef, $error) = program($node, 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', 'target', '-f', $dump);
is($status, 0, "and restored\n$error");
is(ask('target', "SELECT string_agg(nspname, ' ') FROM pg_namespace WHERE nspname LIKE 'tenant%'"),
	$schema, 'the other tenant is absent');
is(sqlstate_of($node, 'target', "SELECT rf_create_tenant('o-brien')"), '42P06', 'its schema is taken');
is(sqlstate_of($node, 'target', "SELECT rf_read_all(tenant => 'O''Brien')"), '42704', 'it is no tenant yet');
ask('target', "SELECT rf_install('$schema', 'O''Brien')");
same_union($node, 'target', $before, 'its events are what they were', $schema);
is(events_in($node, 'target', 'events_archive', $schema), $cold, 'in the tiers where they were');
is(ask('target', "SELECT tenant || ' ' || schema || ' ' || state FROM rf_tenants()"),
	"O'Brien $schema complete", 'it is a tenant now');
is(ask('target', "SELECT stream_seq FROM rf_append(lpad('2', 32, '0')::uuid, 'e', '{}', tenant => 'O''Brien')"),
	'101', 'its streams go on');
is( sqlstate_of($node, 'target', "SELECT rf_append(lpad('3', 32, '0')::uuid, 'e', '{}', '{\"idempotency_key\": \"2-7\"}', tenant => 'O''Brien')"),
	'RF003', 'its keys are known');
is(sqlstate_of($node, 'target', "SELECT rf_append(lpad('1', 32, '0')::uuid, 'e', '{}', tenant => 'O''Brien')"),
	'RF002', 'its marks, too');
is(sqlstate_of($node, 'target', "SELECT rf_append(lpad('9', 32, '0')::uuid, 'e', '{}', tenant => 'other')"),
	'42704', 'the other one is unknown');
is(union_state($node, 'source', $schema), $before, 'nothing has changed where it came from');

# ---- While a policy runs, its store stays. Who runs holds this lock.

my $runner = session($node, 'source');
$runner->ask("SELECT pg_advisory_lock(7275, '$schema'::regnamespace::oid::int)");
my ($state, $messages) = sqlstate_of($node, 'source', "SELECT rf_drop_tenant('O''Brien', 'O''Brien', true)");
is($state, '55P03', 'a tenant whose policy runs is not dropped');
like($messages, qr/rf_policy_pause/, 'and the hint says what to do');
is(union_state($node, 'source', $schema), $before, 'its events are there');
$runner->leave;
is(sqlstate_of($node, 'source', "SELECT rf_drop_tenant('O''Brien', 'O''Brien', true)"), '00000', 'then it is');
is(ask('source', "SELECT string_agg(nspname, ' ') FROM pg_namespace WHERE nspname LIKE 'tenant%'"),
	'tenant_other', 'and only it');

# ---- Two that make the same tenant at once: the second is told.

my $first = session($node, 'source');
$first->ask("BEGIN; SELECT rf_create_tenant('twice')");
my $second = session($node, 'source');
$second->tell("SELECT rf_create_tenant('TWICE')");
ok( $node->poll_query_until('source',
		"SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND classid = 7276 AND NOT granted"),
	'it waits for the first');
$first->ask('COMMIT');
$second->hear;
like($second->error, qr/42710.*TWICE.*twice/, 'and is refused by name');
$_->leave for ($first, $second);
is(ask('source', "SELECT count(*) FROM rf_tenants() WHERE schema = 'tenant_twice'"), '1', 'there is one');

$node->stop;
done_testing();
