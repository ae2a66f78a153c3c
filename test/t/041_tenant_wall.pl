# One tenant can't read or change what another one has, nor find out what it has: with schemas of their own, in a
# conjoined store with a role for each, and in one where a setting tells. What is said of a stream, a key or a tenant
# that is another's is compared, character by character, with what is said of one that nobody has.
use strict;
use warnings FATAL => 'all';
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowDump;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "timezone = 'UTC'");
$node->start;

my $readme = slurp_file(dirname(abs_path(__FILE__)) . '/../../README.md');

# The blocks below a heading of README.md, as they stand.
sub recipes
{
	my ($heading) = @_;
	my ($section) = $readme =~ /^### \Q$heading\E\n(.*?)(?=^##)/ms or die "README.md has no recipe for $heading";
	my @blocks = $section =~ /^```sql\n(.*?)^```/msg;
	return @blocks;
}

my $theirs = "'00000000-0000-0000-0000-00000000000a'";    # a stream of the other tenant, hot
my $cold = "'00000000-0000-0000-0000-00000000000b'";      # marked and cold
my $nobodys = "'00000000-0000-0000-0000-00000000000f'";   # of nobody
my $key = '{"idempotency_key": "theirs"}';

# Each with what is another's and what is nobody's: %s the stream, %k the key, %n its number, %T the tenant.
my @calls = (
	"rf_append(%s, 'e', '{}', tenant => %T)",
	"rf_append(%s, 'e', '{}', expected_seq => 7, tenant => %T)",
	"rf_append(%s, 'e', '{}', '{\"idempotency_key\": %k}', tenant => %T)",
	"rf_append(%s, 'e', '{}', allow_archived => true, tenant => %T)",
	"rf_append_batch(%s, '[{\"type\": \"e\", \"body\": 1}]', 7, tenant => %T)",
	'rf_read_stream(%s, tenant => %T)',
	'rf_read_stream(%s, include_archived => true, tenant => %T)',
	'rf_read_all(include_archived => true, tenant => %T)',
	'rf_archive_mark(%s, tenant => %T)',
	'rf_archive_reactivate(%s, tenant => %T)',
	"rf_archive_move('infinity', stream_id => %s, tenant => %T)",
	"rf_archive_move('infinity', dry_run => true, tenant => %T)",
	"rf_archive_plan('infinity', stream_id => %s, tenant => %T)",
	"rf_archive_candidates('infinity', tenant => %T)",
	'rf_archive_status(%T)',
	'rf_partitions(%T)',
	'rf_archive_redirect_enabled(%T)',
	"rf_consumer_advance('c', %n, %T)",
	"rf_consumer_remove('c', %T)",
	"rf_policy_due('2030-01-01 00:00+00', %T)",
	'rf_policy_arm(%T)',
	"rf_redact(%s, %n, 'r', %T)",
	"rf_hold(%s, 'r', %T)",
	'rf_release(%s, tenant => %T)',
	"rf_prune_keys('infinity', %T)",
	"rf_flip_partition('2024-01-01', 'cold', %T)",
	"rf_drop_partition('hot', '2024-01-01', true, %T)",
	'rf_archive_set_redirect(true, %T)',
	'rf_upgrade_store(%T)',
	"rf_set_owner('us', %T)",
	'rf_drop_tenant(%T, %T, true)',
	'rf_enable_rls(tenant => %T)');

my @statements = (
	"INSERT INTO events (tenant_id, stream_id, event_type, body) VALUES (%T, %s, 'e', '{}')",
	"INSERT INTO events (tenant_id, stream_id, stream_seq, event_type, body) VALUES (%T, %s, %n, 'e', '{}')",
	"INSERT INTO events (tenant_id, stream_id, stream_seq, event_type, body) VALUES (%T, %s, 9, 'e', '{}')",
	"INSERT INTO events (tenant_id, stream_id, stream_seq, event_type, body, created_at, bucket_month) VALUES (%T, %s, %n, 'e', '{}', '2024-01-02 00:00+00', '2024-01-01')",
	"INSERT INTO events (tenant_id, stream_id, stream_seq, event_type, body, created_at, bucket_month) VALUES (%T, %s, %n, 'e', '{}', '2024-01-02 00:00+00', '2024-01-01') ON CONFLICT DO NOTHING",
	"INSERT INTO events (tenant_id, stream_id, event_type, body, headers) VALUES (%T, %s, 'e', '{}', '{\"idempotency_key\": %k}')",
	(map { "SELECT FROM $_ WHERE tenant_id = %T AND stream_id = %s" } qw(events events_archive events_all rf_streams rf_archive_log)),
	(map { "SELECT FROM $_ WHERE tenant_id = %T" } qw(rf_event_keys rf_holds rf_archive_policies events_hot events_cold events_hot_2024_01 events_archive_2024_01)),
	"UPDATE rf_streams SET archive_reason = 'x' WHERE tenant_id = %T AND stream_id = %s",
	"DELETE FROM rf_streams WHERE tenant_id = %T AND stream_id = %s");

sub make_checks
{
	my ($db) = @_;
	value($node, $db, <<'SQL');
CREATE SCHEMA checks;
-- all that the caller is told, with the names that he has given himself taken out; what it did is undone
CREATE FUNCTION checks.told (role name, setting text, call text, VARIADIC named text[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	told text;
	n bigint;
	state text; message text; detail text; hint text; in_schema text; in_table text; by_constraint text; context text;
	name text;
BEGIN
	PERFORM set_config('rillflow.tenant', setting, true);
	EXECUTE format('SET LOCAL ROLE %I', role);
	EXECUTE call;
	GET DIAGNOSTICS n = ROW_COUNT;
	RAISE EXCEPTION USING errcode = 'TT001', message = n || ' rows';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT,
		in_schema = SCHEMA_NAME, in_table = TABLE_NAME, by_constraint = CONSTRAINT_NAME, context = PG_EXCEPTION_CONTEXT;
	told := concat_ws('|', state, message, detail, hint, in_schema, in_table, by_constraint, regexp_replace(replace(context, call, '…'), 'PL/pgSQL function checks.*', ''));
	FOREACH name IN ARRAY named LOOP
		told := replace(told, name, '…');
	END LOOP;
	RETURN told;
END $$;
SQL
	return;
}

sub fill_in
{
	my ($call, %words) = @_;
	return $call =~ s/%(\w)/$words{$1}/gr;
}

# What somebody is told who asks for all of this; a hash by call.
sub ask_all
{
	my ($db, $role, $setting, $calls, %words) = @_;
	my @named = map { s/'//gr } @words{qw(s k T)};
	my $list = join(', ', map { quote_text($_) } @named);
	my $rows = join(', ', map { '(' . quote_text($_) . ', ' . quote_text(fill_in(/^rf_/ ? "SELECT * FROM $_" : $_, %words)) . ')' } @$calls);
	return split /\x1f|\x1e/, value($node, $db, "SELECT string_agg(call || E'\\x1f' || checks.told('$role', '$setting', filled, $list), E'\\x1e') FROM (VALUES $rows) AS v(call, filled)",
		);
}

# The same is told of what is another's, of what nobody has there, and of a tenant that there is not; nothing of it is
# allowed, and all is as it was.
sub same_told
{
	my ($name, $db, $role, $setting, $calls, $tenant, $none) = @_;
	my $before = table_states($node, $db);
	my %of_theirs = ask_all($db, $role, $setting, $calls, s => $theirs, k => '"theirs"', n => 1, T => "'$tenant'");
	my %of_cold = ask_all($db, $role, $setting, $calls, s => $cold, k => '"cold"', n => 2, T => "'$tenant'");
	my %of_nobodys = ask_all($db, $role, $setting, $calls, s => $nobodys, k => '"nobody"', n => 1000, T => "'$tenant'");
	my %of_no_tenant = ask_all($db, $role, $setting, $calls, s => $theirs, k => '"theirs"', n => 1, T => "'$none'");

	is(scalar(keys %of_theirs), scalar(@$calls), "$name: all were asked");
	foreach my $call (@$calls)
	{
		like($of_theirs{$call}, qr/^(42501|TT001\|0 rows)/, "$name: refused, or nothing is there: $call");
		is($of_theirs{$call}, $of_nobodys{$call}, "$name: a stream: $call");
		is($of_cold{$call}, $of_nobodys{$call}, "$name: a cold stream: $call");
		is($of_theirs{$call}, $of_no_tenant{$call}, "$name: a tenant: $call");
	}
	is(table_states($node, $db), $before, "$name: nothing has changed");
	return;
}

# Streams of a tenant, hot and cold, and a key.
sub make_streams
{
	my ($db, $tenant, $whole) = @_;
	value($node, $db, <<"SQL");
SELECT rf_create_partition('hot', '2024-01-01', tenant => $whole), rf_create_partition('cold', '2024-01-01', tenant => $whole);
SELECT rf_append($theirs, 'e', '{}', '$key', created_at => '2024-01-02 00:00+00', tenant => '$tenant');
SELECT rf_append($cold, 'e', to_jsonb(n), CASE n WHEN 1 THEN '{"idempotency_key": "cold"}' ELSE '{}' END::jsonb, created_at => '2024-01-03 00:00+00', tenant => '$tenant') FROM generate_series(1, 2) AS n;
SELECT rf_archive_mark($cold, tenant => '$tenant');
SELECT rf_archive_move('infinity', stream_id => $cold, tenant => '$tenant');
SELECT rf_hold($cold, 'r', '$tenant'), rf_policy_set('of $tenant', '1 year', tenant => '$tenant');
SQL
	return;
}

value($node, 'postgres', "CREATE DATABASE $_") foreach qw(schemas walled filtered);
value($node, 'schemas', "CREATE EXTENSION rillflow; $_") foreach join("\n", recipes('Owners'));
value($node, $_, 'CREATE EXTENSION rillflow') foreach qw(walled filtered);
value($node, 'postgres', 'CREATE ROLE us');

# ---- Schemas: somebody who has every right in a store of his own, and may call every function

value($node, 'schemas', $_) foreach recipes('A tenant with a schema');
value($node, 'schemas', s/acme/globex/gr) foreach recipes('A tenant with a schema');
value($node, 'schemas', 'GRANT store_owner, globex_owner, globex_appender, globex_consumer, globex_archivist TO us');
make_streams('schemas', 'acme', "'acme'");
make_checks('schemas');
same_told('schemas', 'schemas', 'us', '', \@calls, 'acme', 'nobody');
is(value($node, 'schemas', "SET ROLE us; SELECT string_agg(tenant, ' ') FROM rf_tenants()"), 'globex', 'schemas: others are not listed');

# A store that is broken is no news to others either.
value($node, 'schemas', 'DROP VIEW tenant_acme.events_all');
same_told('broken', 'schemas', 'us', '', [ 'rf_archive_status(%T)', "rf_append(%s, 'e', '{}', tenant => %T)", 'rf_upgrade_store(%T)' ], 'acme', 'nobody');
my (undef, $out, $err) = $node->psql('schemas', "SET ROLE us; SELECT tenant FROM rf_archive_status('*'); CALL rf_archive_run('-infinity', tenant => '*'); SELECT count(*) FROM rf_worker_status");
unlike("$out$err", qr/acme/, 'broken: and is not named where all stores are asked for');
like($err, qr/left out, for lack of rights/, 'broken: but counted');
(undef, $out, $err) = $node->psql('schemas', "SELECT tenant FROM rf_archive_status('*')");
like($err, qr/tenant_acme/, 'broken: whom it concerns is told');

# ---- A conjoined store, with a role for each tenant

value($node, 'walled', $_) foreach recipes('A conjoined store');
my ($once, $each) = recipes('The wall: a role for each tenant');
value($node, 'walled', $_) foreach ($once, $each, $each =~ s/initech/umbrella/gr);
value($node, 'walled', 'REVOKE globex_owner FROM us; GRANT umbrella_appender, umbrella_reader, umbrella_archivist TO us');
value($node, 'walled', "SELECT rf_create_tenant('acme')");
make_streams('walled', 'initech', 'NULL');
make_checks('walled');
value($node, 'walled', 'GRANT USAGE ON SCHEMA checks TO us');
same_told('walled', 'walled', 'us', '', [ @calls, @statements ], 'initech', 'nobody');
same_told('walled, who has a schema', 'walled', 'us', '', \@calls, 'acme', 'nobody');
is(value($node, 'walled', "SET ROLE us; SELECT count(*) FROM rf_tenants()"), '0', 'walled: others are not listed');

# What another tenant has does not stand in the way of one's own: the same ids, numbers and keys.
is( value($node, 'walled', <<"SQL"), "1|1\numbrella\n0\n1", 'walled: the same id and key are free for another tenant');
SET ROLE us;
SELECT a.stream_seq, b.stream_seq FROM rf_append($theirs, 'e', '{}', '$key', expected_seq => 0, tenant => 'umbrella') AS a,
	rf_append($cold, 'e', '{}', tenant => 'umbrella') AS b;
SELECT string_agg(tenant, ' ') FROM rf_tenants();
SELECT count(*) FROM rf_archive_mark($theirs, tenant => 'umbrella') WHERE tenant_id <> 'umbrella';
SELECT events_moved FROM rf_archive_move('infinity', only_archived => true, tenant => 'umbrella');
SQL
is(value($node, 'walled', "SELECT string_agg(concat_ws(' ', stream_id, last_seq, archived_at IS NOT NULL), ', ' ORDER BY stream_id) FROM rf_streams WHERE tenant_id = 'initech'"),
	($theirs . ' 1 f, ' . $cold . ' 2 t') =~ s/'//gr, 'walled: and what the other one has is as it was');

# ---- A conjoined store, where a setting tells

value($node, 'filtered', $_) foreach recipes('A conjoined store');
my ($made, $used) = recipes('The filter: a setting of the application');
value($node, 'filtered', $made);
like(value($node, 'filtered', $used), qr/order placed/, 'filtered: the example of the README works');
value($node, 'filtered', 'GRANT application TO us');
make_streams('filtered', 'initech', 'NULL');
make_checks('filtered');
same_told('filtered', 'filtered', 'application', 'umbrella', [ @calls, @statements ], 'initech', 'nobody');
same_told('filtered, nothing set', 'filtered', 'application', '', [ @calls, @statements ], 'initech', 'nobody');
is(value($node, 'filtered', "SET ROLE application; SET rillflow.tenant = 'initech'; SELECT count(*) FROM rf_read_all(include_archived => true, tenant => 'initech')"), '4', 'filtered: whose they are can read them');

# Leaves have the policy, however they came to be, and keep it when they flip.
sub unguarded
{
	return value($node, 'filtered', "SELECT string_agg(c.relname, ' ') FROM pg_class AS c LEFT JOIN pg_policy AS p ON polrelid = c.oid AND polname = 'rf_tenant'"
		. " WHERE relnamespace = 'public'::regnamespace AND (relispartition OR relname IN ('events', 'events_archive')) AND relkind IN ('r', 'p')"
		. ' AND (p.oid IS NULL OR NOT relrowsecurity)');
}
is(unguarded(), '', 'filtered: every leaf has the policy');
value($node, 'filtered', "SELECT rf_release($cold, tenant => 'initech')");
value($node, 'filtered', "SELECT rf_create_partition('hot', '2024-03-01'), rf_append(gen_random_uuid(), 'e', '{}', created_at => m, tenant => 'initech')"
	. " FROM (VALUES ('2023-05-05 00:00+00'::timestamptz), ('2024-03-05 00:00+00')) AS v(m)");
value($node, 'filtered', 'SELECT rf_drain_default()');
value($node, 'filtered', "SELECT rf_flip_partition('2024-03-01', 'cold')");
value($node, 'filtered', "CALL rf_archive_run('2024-01-01 00:00+00', tenant => 'initech')");
is(unguarded(), '', 'filtered: months that were made, drained, flipped, and made by a run');
value($node, 'filtered', "SELECT rf_archive_set_backend('partitioned')");
is(unguarded(), '', 'filtered: in the other backend');
value($node, 'filtered', "SELECT rf_archive_set_backend('dual_table'), rf_flip_partition('2024-03-01', 'hot')");
is(unguarded(), '', 'filtered: and back');
cmp_ok(value($node, 'filtered', "SELECT count(*) FROM pg_class WHERE relname ~ '^events_(hot|archive)_20(23_05|24_0[13])\$'"), '>=', 3, 'filtered: there were such months');
value($node, 'filtered', "CREATE POLICY own ON events_archive USING (true); SELECT rf_disable_rls()");
is(value($node, 'filtered', "SELECT string_agg(relname, ' ') FROM pg_class WHERE relrowsecurity"), 'events_archive', 'rf_disable_rls() leaves what is not its own');

$node->stop;
done_testing();
