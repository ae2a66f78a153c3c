# What each role can do, in each tenant, with each function: its own part and nothing else. The roles are made by the
# recipes of README.md, taken out of it as they stand. The functions are those that the catalog names: one that the
# table below does not know fails the test. Each cell is tried, in a subtransaction that is undone; the calls are such
# that they succeed for who is entitled.
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
$node->append_conf('postgresql.conf', "timezone = 'UTC'\nmax_locks_per_transaction = 256");
$node->start;

sub ask { return value($node, 'postgres', @_); }

# ---- The recipes

my $readme = slurp_file(dirname(abs_path(__FILE__)) . '/../../README.md');
my ($chapter) = $readme =~ /^## Roles and grants\n(.*?)^## /ms;

# The blocks below a heading of the chapter, as they stand.
sub recipe
{
	my ($heading) = @_;
	my ($section) = $chapter =~ /^### \Q$heading\E\n(.*?)(?=^### |\z)/ms or die "README.md has no recipe for $heading";
	my @blocks = $section =~ /^```sql\n(.*?)^```/msg;
	die "the recipe for $heading is empty" unless @blocks;
	return join("\n", @blocks);
}

ask('CREATE EXTENSION rillflow');
ask(recipe('The store in public'));
ask(recipe('Owners'));
my $tenant_recipe = recipe('A tenant with a schema');
ask($tenant_recipe);
ask($tenant_recipe =~ s/acme/globex/gr);
ask('CREATE ROLE nobody');
is(ask("SELECT string_agg(rolname, ' ' ORDER BY rolname) FROM pg_roles WHERE rolsuper AND rolname !~ '^pg_'"),
	ask('SELECT current_user'), 'no recipe makes a superuser');

# ---- Roles: the kind, and the tenant or store that is its own

my @roles = (
	(map { { name => "acme_$_", kind => $_, home => 'acme' } } qw(appender reader archivist consumer owner)),
	{ name => 'globex_owner', kind => 'owner', home => 'globex' },
	{ name => 'appender', kind => 'appender', home => 'public' },
	{ name => 'reader', kind => 'reader', home => 'public' },
	{ name => 'archivist', kind => 'archivist', home => 'public' },
	{ name => 'projection', kind => 'consumer', home => 'public' },
	{ name => 'nobody', kind => 'nobody', home => '' },
	{ name => ask('SELECT current_user'), kind => 'superuser', home => '' });

# ---- Tenants: what names them, and where they are

my %tenants = (
	public => { argument => 'NULL', schema => 'public' },
	acme => { argument => "'acme'", schema => 'tenant_acme' },
	globex => { argument => "'globex'", schema => 'tenant_globex' });

# ---- Functions: what right opens each, and calls that succeed with it. %T is the tenant's argument, %S its schema, %O
# the owner of its store, %1 a stream with hot events, %2 one that is archived and cold, %3 one on hold.

my $release = 'rf_release(%3, tenant => %T)';
my %functions = (
	rf_append => [ 'append', "rf_append(%1, 'e', '{}', tenant => %T)",
		"rf_append(%1, 'e', '{}', '{\"idempotency_key\": \"k\"}', tenant => %T)", "rf_append(%2, 'e', '{}', allow_archived => true, tenant => %T)" ],
	rf_append_batch => [ 'append', "rf_append_batch(%1, '[{\"type\": \"e\", \"body\": 1}]', tenant => %T)" ],
	rf_read_stream => [ 'read', 'rf_read_stream(%1, tenant => %T)', 'rf_read_stream(%2, include_archived => true, tenant => %T)' ],
	rf_read_all => [ 'read', 'rf_read_all(include_archived => true, tenant => %T)' ],
	rf_archive_status => [ 'read', 'rf_archive_status(%T)' ],
	rf_partitions => [ 'read', 'rf_partitions(%T)' ],
	rf_archive_redirect_enabled => [ 'read', 'rf_archive_redirect_enabled(%T)' ],
	rf_archive_mark => [ 'archive', 'rf_archive_mark(%1, tenant => %T)', 'rf_archive_mark(gen_random_uuid(), tenant => %T)' ],
	rf_archive_reactivate => [ 'archive', 'rf_archive_reactivate(%2, tenant => %T)' ],
	rf_archive_move => [ 'archive', "rf_archive_move('2024-01-03 00:00+00', tenant => %T)", "rf_archive_move('infinity', dry_run => true, tenant => %T)" ],
	rf_archive_plan => [ 'archive', "rf_archive_plan('infinity', tenant => %T)" ],
	rf_archive_candidates => [ 'archive', "rf_archive_candidates('infinity', tenant => %T)" ],
	rf_consumer_advance => [ 'consume', "rf_consumer_advance('c', 6, %T)", "rf_consumer_advance('new', 0, %T)" ],
	rf_consumer_remove => [ 'consume', "rf_consumer_remove('c', %T)" ],
	rf_prune_keys => [ 'own', "rf_prune_keys('infinity', %T)" ],
	rf_prune_log => [ 'own', "rf_prune_log('infinity', %T)" ],
	rf_redact => [ 'own', "rf_redact(%1, 1, 'r', %T)", "rf_redact(%2, NULL, 'r', %T)" ],
	rf_hold => [ 'own', "rf_hold(%1, 'r', %T)", "rf_hold(NULL, 'r', %T)" ],
	rf_release => [ 'own', $release ],
	rf_create_partition => [ 'own', "rf_create_partition('hot', '2030-05-01', tenant => %T)", "rf_create_partition('cold', '2030-05-01', tenant => %T)" ],
	rf_drop_partition => [ 'own', "rf_drop_partition('hot', '2024-05-01', tenant => %T)" ],
	rf_drain_default => [ 'own', 'rf_drain_default(%T)' ],
	rf_flip_partition => [ 'own', "rf_flip_partition('2024-05-01', 'cold', %T)" ],
	rf_archive_set_redirect => [ 'own', 'rf_archive_set_redirect(true, %T)' ],
	rf_archive_set_include_archived => [ 'own', 'rf_archive_set_include_archived(true, %T)' ],
	rf_archive_set_notify => [ 'own', 'rf_archive_set_notify(true, %T)' ],
	rf_archive_set_backend => [ 'own', "rf_archive_set_backend('partitioned', %T)" ],
	rf_policy_set => [ 'own', "rf_policy_set('new', '1 year', tenant => %T)" ],
	(map { ("rf_policy_$_" => [ 'own', "rf_policy_$_('p', %T)" ]) } qw(remove pause resume)),
	rf_policy_run => [ 'own:55000', "rf_policy_run('p', %T)" ], # nobody is there who would run it
	rf_policy_arm => [ 'own', 'rf_policy_arm(%T)' ],
	rf_policy_due => [ 'own', "rf_policy_due('2030-01-01 00:00+00', %T)" ],
	rf_enable_rls => [ 'own', "rf_enable_rls('app.tenant', %T)" ],
	rf_disable_rls => [ 'own', 'rf_disable_rls(%T)' ],
	rf_upgrade_store => [ 'own', 'rf_upgrade_store(%T)' ],
	rf_set_owner => [ 'own', "rf_set_owner('%O', %T)" ],
	rf_flatten => [ 'own', 'rf_flatten(%T)' ],
	rf_install => [ 'own', "rf_install('%S')" ],
	rf_uninstall => [ 'own', "rf_uninstall('%S', '%S', true)" ],
	rf_drop_tenant => [ 'own', 'rf_drop_tenant(%T, %T, true)' ],
	rf_create_tenant => [ 'create', "rf_create_tenant('hooli')" ],
	rf_tenants => [ 'none', 'rf_tenants()' ],
	rf_worker_list => [ 'none', 'rf_worker_list()' ],
	rf_worker_start => [ 'procedure:create', 'rf_worker_start()' ],
	rf_archive_run => [ 'procedure:archive', "rf_archive_run('-infinity', tenant => %T)" ],
	rf_adopt => [ 'procedure:create', "rf_adopt('legacy_%S.events', 'adopted_%S')" ],
	(map { ("rf_$_" => [ 'trigger', "rf_$_()" ]) }
		  qw(events_open events_redirect_archived events_close events_append_only config_changed policies_changed adopt_changed)));

# What stands in the way of a call, and is taken away before it.
my %before = (rf_uninstall => $release, rf_drop_tenant => $release, rf_flatten => $release);

is( ask(<<'SQL'), join("\n", sort keys %functions), 'the table knows every function, and no other');
SELECT DISTINCT proname COLLATE "C" FROM pg_proc AS p JOIN pg_depend AS d
	ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
	JOIN pg_extension AS x ON d.refclassid = 'pg_extension'::regclass AND x.oid = d.refobjid
	WHERE extname = 'rillflow' ORDER BY 1
SQL

my %opens = (
	appender => [qw(append)],
	reader => [qw(read)],
	archivist => [qw(archive)],
	consumer => [qw(read consume)],
	owner => [qw(append read archive consume own)],
	nobody => [],
	superuser => [qw(append read archive consume own create)]);

sub expected
{
	my ($role, $right, $tenant) = @_;
	my $entitled = $role->{home} eq $tenant || $role->{kind} eq 'superuser';
	my $success = $right =~ s/:(\w{5})$// ? $1 : 'ok';
	return '39P01' if $right eq 'trigger';
	return $success if $right eq 'none' || $entitled && grep { $_ eq $right } @{ $opens{ $role->{kind} } };
	return '42501';
}

# ---- Statements on the tables, likewise

my $row = "'00000000-0000-0000-0000-000000000001', 'e', '{}'";
my %statements = (
	"INSERT INTO %S.events (stream_id, event_type, body) VALUES ($row)" => { appender => 'ok' },
	"INSERT INTO %S.events (stream_id, event_type, body, stream_seq, created_at, bucket_month) VALUES ($row, 1, '2024-01-02 12:00+00', '2024-01-01') ON CONFLICT DO NOTHING" => { appender => 'ok' },
	"INSERT INTO %S.events (stream_id, event_type, body, tenant_id) VALUES ($row, 'x')" => { appender => 'ok' },
	"INSERT INTO %S.events (stream_id, event_type, body, global_seq) VALUES ($row, 1)" => { owner => 'ok' },
	"INSERT INTO %S.events (stream_id, event_type, body, retention_class) VALUES ($row, 'cold')" => { owner => '55000' },
	"INSERT INTO %S.events (stream_id, event_type, body) VALUES ($row) RETURNING global_seq" => {},
	"UPDATE %S.events SET body = '1'" => { owner => '55000' },
	"UPDATE %S.events_hot_2024_01 SET body = '1'" => { owner => '55000' },
	"UPDATE %S.events_archive SET body = '1'" => { owner => '55000' },
	'DELETE FROM %S.events' => { owner => '55000' },
	'DELETE FROM %S.events_archive' => { owner => '55000' },
	'TRUNCATE %S.events' => { owner => '55000' },
	'TRUNCATE %S.events_archive_2024_01' => { owner => '55000' },
	"MERGE INTO %S.events AS e USING (VALUES (1)) AS v ON true WHEN MATCHED THEN DELETE" => { owner => '55000' },
	"INSERT INTO %S.events_archive (global_seq, stream_id, stream_seq, event_type, body) SELECT 99, '00000000-0000-0000-0000-000000000001', 99, 'e', '{}'" => { owner => '55000' },
	"INSERT INTO %S.events_hot_default (global_seq, stream_id, stream_seq, event_type, body) SELECT 99, '00000000-0000-0000-0000-000000000001', 99, 'e', '{}'" => { owner => '55000' },
	"UPDATE %S.rf_streams SET archive_reason = 'x'" => { archivist => 'ok' },
	'DELETE FROM %S.rf_streams' => {},
	'SELECT FROM %S.events' => { reader => 'ok', consumer => 'ok' },
	'SELECT FROM %S.events_all' => { reader => 'ok', consumer => 'ok' },
	'SELECT FROM %S.rf_streams' => { reader => 'ok', consumer => 'ok' },
	'SELECT FROM %S.rf_archive_log' => { reader => 'ok', consumer => 'ok' },
	'DELETE FROM %S.rf_archive_log' => { owner => '55000' },
	(map { ("SELECT FROM %S.$_" => {}) }
		  qw(events_hot events_cold events_hot_default events_hot_2024_01 events_archive_2024_01 events_archive_default
		  rf_event_keys rf_holds rf_archive_policies rf_archive_runs rf_archive_config)),
	'SELECT FROM %S.rf_consumers' => { consumer => 'ok' },
	'UPDATE %S.rf_consumers SET updated_at = now()' => { consumer => 'ok' },
	'DELETE FROM %S.rf_consumers' => {},
	"SELECT setval('%S.events_global_seq_seq', 1)" => {},
	"SELECT nextval('%S.events_global_seq_seq')" => { appender => 'ok' },
	'ALTER TABLE %S.events DISABLE TRIGGER rf_events_append_only' => {},
	'DROP TABLE %S.rf_holds' => {},
	'ALTER TABLE %S.events OWNER TO nobody' => { owner => '42501' });
my @in_public = ('SELECT FROM public.rf_stores', 'SELECT FROM public.rf_armed', 'DELETE FROM public.rf_stores', 'CREATE SCHEMA own');

# ---- A store of each tenant, with something for each call

foreach my $name (sort keys %tenants)
{
	my ($tenant, $schema) = @{ $tenants{$name} }{qw(argument schema)};
	ask("SELECT rf_create_partition('hot', m::date, tenant => $tenant), rf_create_partition('cold', '2024-01-01', tenant => $tenant)"
		. " FROM (VALUES ('2024-01-01'), ('2024-05-01')) AS v(m)");
	ask("SELECT rf_append(lpad(s::text, 32, '0')::uuid, 'e', to_jsonb(n), jsonb_build_object('idempotency_key', s || '-' || n),"
		. " created_at => '2024-01-01 12:00+00'::timestamptz + n * interval '1 day', tenant => $tenant)"
		. ' FROM generate_series(1, 3) AS s, generate_series(1, 2) AS n');
	ask("SELECT rf_archive_mark(lpad('2', 32, '0')::uuid, tenant => $tenant); SELECT rf_archive_move('infinity', only_archived => true, tenant => $tenant)");
	ask("SELECT rf_consumer_advance('c', 6, $tenant), rf_hold(lpad('3', 32, '0')::uuid, 'r', $tenant), rf_policy_set('p', '1 year', tenant => $tenant)");
	ask("CREATE SCHEMA legacy_$schema; CREATE TABLE legacy_$schema.events (LIKE $schema.events, PRIMARY KEY (global_seq), UNIQUE (stream_id, stream_seq));"
		. "ALTER TABLE legacy_$schema.events DROP COLUMN bucket_month, DROP COLUMN retention_class;"
		. "INSERT INTO legacy_$schema.events (global_seq, stream_id, stream_seq, event_type, body, headers, event_version, is_tombstone, created_at)"
		. " VALUES (1, lpad('1', 32, '0')::uuid, 1, 'e', '{}', '{}', 1, false, '2024-01-01 00:00+00')");
	$tenants{$name}{owner} = ask("SELECT relowner::regrole FROM pg_class WHERE oid = '$schema.events'::regclass");
}

ask(<<'SQL');
CREATE SCHEMA checks;
CREATE TABLE checks.cells (n int GENERATED ALWAYS AS IDENTITY, role name, tenant text, call text, before text, expected text, outcome text);
-- as the role; whatever it did is undone
CREATE FUNCTION checks.try (role name, call text, before text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	IF before <> '' THEN
		EXECUTE before;
	END IF;
	EXECUTE format('SET LOCAL ROLE %I', role);
	EXECUTE call;
	RAISE EXCEPTION USING errcode = 'TT001';
EXCEPTION
	WHEN SQLSTATE 'TT001' THEN RETURN 'ok';
	WHEN OTHERS THEN RETURN SQLSTATE;
END $$;
SQL

# All of a database that could have changed: rows, sequences, and what there is.
sub everything
{
	return join("\n", table_states($node, 'postgres') =~ s/^checks\..*\n?//mgr,
		ask("SELECT string_agg(schemaname || sequencename || coalesce(last_value::text, '-'), ' ' ORDER BY 1, sequencename) FROM pg_sequences WHERE schemaname <> 'checks' GROUP BY ()"),
		ask("SELECT count(*), md5(string_agg(c.oid || relname || relowner || relrowsecurity || coalesce(relacl::text, ''), ' ' ORDER BY c.oid)) FROM pg_class AS c WHERE relnamespace <> 'checks'::regnamespace"),
		ask("SELECT count(*), md5(string_agg(oid || nspname || nspowner, ' ' ORDER BY oid)) FROM pg_namespace"),
		ask("SELECT count(*) FROM pg_trigger"), ask('SELECT count(*) FROM pg_policy'));
}

my (@cells, @calls);

sub fill_in
{
	my ($call, $name) = @_;
	my $tenant = $tenants{$name};
	$call =~ s/%([123])/'00000000-0000-0000-0000-00000000000$1'/g;
	$call =~ s/%T/$tenant->{argument}/g;
	$call =~ s/%S/$tenant->{schema}/g;
	$call =~ s/%O/$tenant->{owner}/g;
	return $call;
}

foreach my $role (@roles)
{
	foreach my $name (sort keys %tenants)
	{
		foreach my $function (sort keys %functions)
		{
			my ($right, @texts) = @{ $functions{$function} };
			# a tenant that is to be dropped has a name, and the store in the extension's schema stays there
			next if $function eq 'rf_drop_tenant' && $name eq 'public';
			foreach my $text (map { fill_in($_, $name) } @texts)
			{
				if ($right =~ /^procedure:(.*)/)
				{
					my $verb = $function eq 'rf_worker_start' ? 'SELECT' : 'CALL';
					push @calls, { role => $role->{name}, text => "$verb public.$text", expected => expected($role, $1, $name) };
					next;
				}
				my $before = exists $before{$function} ? 'SELECT ' . fill_in($before{$function}, $name) : '';
				push @cells, [ $role->{name}, $name, ($right eq 'trigger' ? 'SELECT ' : 'SELECT FROM ') . $text, $before, expected($role, $right, $name) ];
			}
		}
		foreach my $statement (sort keys %statements)
		{
			my $own = $role->{home} eq $name || $role->{kind} eq 'superuser';
			my %outcome = %{ $statements{$statement} };
			my $owner = $outcome{owner} // 'ok';
			my $state = !$own ? '42501' : $role->{kind} eq 'owner' ? $owner : $outcome{ $role->{kind} } // '42501';
			# what stands in the way of the owner does not let a superuser through, but rights do
			$state = $owner eq '42501' ? 'ok' : $owner if $role->{kind} eq 'superuser';
			push @cells, [ $role->{name}, $name, fill_in($statement, $name), '', $state ];
		}
	}
	push @cells, [ $role->{name}, '', $_, '', $role->{kind} eq 'superuser' ? 'ok' : '42501' ] foreach @in_public;
}
ask('INSERT INTO checks.cells (role, tenant, call, before, expected) VALUES '
	. join(', ', map { '(' . join(', ', map { quote_text($_) } @$_) . ')' } @cells));

# ---- The table

# The cells that turn out otherwise than they should, and how many there are.
sub try_cells
{
	my ($which) = @_;
	ask("SET client_min_messages = error; UPDATE checks.cells SET outcome = checks.try(role, call, before) WHERE $which");
	return ask("SELECT role, tenant, call, outcome || ' instead of ' || expected FROM checks.cells WHERE ($which) AND outcome IS DISTINCT FROM expected ORDER BY n LIMIT 100");
}

my $before = everything();
like($before, qr/tenant_acme\.rf_holds\|1/, 'the checksum covers the tables of all stores');
is(try_cells("expected = '42501' AND before = ''"), '', 'what is not one\'s part is refused');
is(everything(), $before, 'and has changed nothing, not even a sequence');
is(try_cells("expected <> 'ok' AND outcome IS NULL"), '', 'also where something else is in the way');
is(try_cells("expected = 'ok'"), '', 'what is one\'s part succeeds');
foreach my $role (@roles)
{
	cmp_ok(ask("SELECT count(*) FROM checks.cells WHERE role = '$role->{name}' AND outcome <> 'ok'"), '>', 5, "$role->{name} is refused something");
	cmp_ok(ask("SELECT count(*) FROM checks.cells WHERE role = '$role->{name}' AND outcome = 'ok'"), '>', 5, "$role->{name} can do something");
}

# What commits, or starts something, is called by itself, and what succeeds comes last.
sub call_all
{
	my @them = @_;
	my $script = join('', map { "RESET ROLE;\nSET ROLE $_->{role};\n$_->{text};\n\\echo outcome :SQLSTATE\n" } @them);
	my (undef, $out, undef) = $node->psql('postgres', "\\set ON_ERROR_STOP 0\nSET client_min_messages = error;\n$script");
	my @outcomes = $out =~ /^outcome (\w+)$/mg;
	return join("\n", map { my $state = shift(@outcomes) // 'none'; $state eq $_->{expected} ? () : "$_->{role}: $_->{text}: $state instead of $_->{expected}" } @them);
}
$_->{expected} =~ s/^ok$/00000/ foreach @calls;
$before = everything();
is(call_all(grep { $_->{expected} ne '00000' } @calls), '', 'procedures that are not one\'s part are refused');
is(everything(), $before, 'and have changed nothing');
my %once;
is(call_all(sort { ($a->{text} =~ /worker/) <=> ($b->{text} =~ /worker/) }
		  grep { $_->{expected} eq '00000' && !($_->{text} =~ /rf_adopt|worker/ && $once{ $_->{text} }++) } @calls),
	'', 'those that are succeed');

$node->stop;
done_testing();
