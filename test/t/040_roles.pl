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

my $node;

sub ask { return value($node, 'postgres', @_); }

# ---- The recipes

my $readme = slurp_file(dirname(abs_path(__FILE__)) . '/../../README.md');
my ($chapter) = $readme =~ /^## Roles and grants\n(.*?)^## /ms;

# The blocks below a heading of the chapter, as they stand; one by one, or joined.
sub recipes
{
	my ($heading) = @_;
	my ($section) = $chapter =~ /^### \Q$heading\E\n(.*?)(?=^### |\z)/ms or die "README.md has no recipe for $heading";
	my @blocks = $section =~ /^```sql\n(.*?)^```/msg;
	die "the recipe for $heading is empty" unless @blocks;
	return @blocks;
}

sub recipe { return join("\n", recipes(@_)); }

# ---- Functions: what right opens each, and calls that succeed with it. %T is the tenant's argument, %S its schema, %O
# the owner of its store, %1 a stream with hot events, %2 one that is archived and cold, %3 one on hold, %P a policy, %M
# the highest global_seq. Where a store is that of many tenants, those marked with "whole" concern all of it.

my $release = 'rf_release(%3, tenant => %T)';
my %functions = (
	rf_append => [ 'append', "rf_append(%1, 'e', '{}', tenant => %T)",
		"rf_append(%1, 'e', '{}', '{\"idempotency_key\": \"k\"}', tenant => %T)", "rf_append(%2, 'e', '{}', allow_archived => true, tenant => %T)" ],
	rf_append_batch => [ 'append', "rf_append_batch(%1, '[{\"type\": \"e\", \"body\": 1}]', tenant => %T)" ],
	rf_read_stream => [ 'read', 'rf_read_stream(%1, tenant => %T)', 'rf_read_stream(%2, include_archived => true, tenant => %T)' ],
	rf_read_all => [ 'read', 'rf_read_all(include_archived => true, tenant => %T)' ],
	rf_archive_status => [ 'status', 'rf_archive_status(%T)' ],
	rf_partitions => [ 'whole status', 'rf_partitions(%T)' ],
	rf_metrics => [ 'monitor', 'rf_metrics(%T)' ],
	rf_metrics_text => [ 'monitor', 'rf_metrics_text(%T)' ],
	rf_archive_redirect_enabled => [ 'whole read', 'rf_archive_redirect_enabled(%T)' ],
	rf_archive_mark => [ 'archive', 'rf_archive_mark(%1, tenant => %T)', 'rf_archive_mark(gen_random_uuid(), tenant => %T)' ],
	rf_archive_reactivate => [ 'archive', 'rf_archive_reactivate(%2, tenant => %T)' ],
	rf_archive_move => [ 'archive', "rf_archive_move('2024-01-03 00:00+00', tenant => %T)", "rf_archive_move('infinity', dry_run => true, tenant => %T)" ],
	rf_archive_plan => [ 'archive', "rf_archive_plan('infinity', tenant => %T)" ],
	rf_archive_candidates => [ 'archive', "rf_archive_candidates('infinity', tenant => %T)" ],
	rf_consumer_advance => [ 'whole consume', "rf_consumer_advance('c', %M, %T)", "rf_consumer_advance('new', 0, %T)" ],
	rf_consumer_remove => [ 'whole consume', "rf_consumer_remove('c', %T)" ],
	rf_prune_keys => [ 'whole own', "rf_prune_keys('infinity', %T)" ],
	rf_prune_log => [ 'whole own', "rf_prune_log('infinity', %T)" ],
	rf_redact => [ 'own', "rf_redact(%1, 1, 'r', %T)", "rf_redact(%2, NULL, 'r', %T)" ],
	rf_hold => [ 'own', "rf_hold(%1, 'r', %T)", "rf_hold(NULL, 'r', %T)" ],
	rf_release => [ 'own', $release ],
	rf_create_partition => [ 'whole own', "rf_create_partition('hot', '2030-05-01', tenant => %T)", "rf_create_partition('cold', '2030-05-01', tenant => %T)" ],
	rf_drop_partition => [ 'whole own', "rf_drop_partition('hot', '2024-05-01', tenant => %T)" ],
	rf_drain_default => [ 'whole own', 'rf_drain_default(%T)' ],
	rf_flip_partition => [ 'whole own', "rf_flip_partition('2024-05-01', 'cold', %T)" ],
	rf_archive_set_redirect => [ 'whole own', 'rf_archive_set_redirect(true, %T)' ],
	rf_archive_set_include_archived => [ 'whole own', 'rf_archive_set_include_archived(true, %T)' ],
	rf_archive_set_notify => [ 'whole own', 'rf_archive_set_notify(true, %T)' ],
	rf_archive_set_backend => [ 'whole own', "rf_archive_set_backend('partitioned', %T)" ],
	rf_policy_set => [ 'own', "rf_policy_set('new', '1 year', tenant => %T)" ],
	(map { ("rf_policy_$_" => [ 'own', "rf_policy_$_(%P, %T)" ]) } qw(remove pause resume)),
	rf_policy_run => [ 'own:55000', "rf_policy_run(%P, %T)" ], # nobody is there who would run it
	rf_policy_arm => [ 'own', 'rf_policy_arm(%T)' ],
	rf_policy_due => [ 'own', "rf_policy_due('2030-01-01 00:00+00', %T)" ],
	rf_enable_rls => [ 'whole own', "rf_enable_rls('app.tenant', %T)" ],
	rf_disable_rls => [ 'whole own', 'rf_disable_rls(%T)' ],
	rf_upgrade_store => [ 'whole own', 'rf_upgrade_store(%T)' ],
	rf_set_owner => [ 'whole own', "rf_set_owner('%O', %T)" ],
	rf_flatten => [ 'whole own', 'rf_flatten(%T)' ],
	rf_install => [ 'whole own', "rf_install('%S')" ],
	rf_uninstall => [ 'whole own', "rf_uninstall('%S', '%S', true)" ],
	rf_drop_tenant => [ 'whole own', 'rf_drop_tenant(%T, %T, true)' ],
	rf_create_tenant => [ 'create', "rf_create_tenant('hooli')" ],
	rf_tenants => [ 'none', 'rf_tenants()' ],
	rf_worker_list => [ 'none', 'rf_worker_list()' ],
	rf_worker_start => [ 'procedure:create', 'rf_worker_start()' ],
	rf_archive_run => [ 'procedure:archive', "rf_archive_run('-infinity', tenant => %T)" ],
	rf_adopt => [ 'procedure:create', "rf_adopt('legacy_%S.events', 'adopted_%S')" ],
	(map { ("rf_$_" => [ 'trigger', "rf_$_()" ]) }
		  qw(events_open events_redirect_archived events_close events_append_only config_changed policies_changed adopt_changed)));

# A hold stands in their way, which is released before.
my %in_the_way = map { $_ => 1 } qw(rf_uninstall rf_drop_tenant rf_flatten);

my %opens = (
	appender => [qw(append)],
	reader => [qw(read status)],
	archivist => [qw(archive)],
	consumer => [qw(read status consume)],
	monitor => [qw(monitor)],
	owner => [qw(append read status archive consume monitor own)],
	nobody => [],
	superuser => [qw(append read status archive consume monitor own create)]);

# ---- Statements on the tables, likewise; %N is the tenant's name, and %C the condition for its rows

my $columns = 'stream_id, tenant_id, event_type, body';
my $row = "%1, '%N', 'e', '{}'";
my %statements = (
	"INSERT INTO %S.events ($columns) VALUES ($row)" => { appender => 'ok' },
	"INSERT INTO %S.events ($columns, stream_seq, created_at, bucket_month) VALUES ($row, 1, '2024-01-02 12:00+00', '2024-01-01') ON CONFLICT DO NOTHING" => { appender => 'ok' },
	"INSERT INTO %S.events ($columns, global_seq) VALUES ($row, 1)" => { owner => 'ok' },
	"INSERT INTO %S.events ($columns, retention_class) VALUES ($row, 'cold')" => { owner => '55000' },
	"INSERT INTO %S.events ($columns) VALUES ($row) RETURNING global_seq" => {},
	"UPDATE %S.events SET body = '1'" => { owner => '55000' },
	"UPDATE %S.events_hot_2024_01 SET body = '1'" => { owner => '55000' },
	"UPDATE %S.events_archive SET body = '1'" => { owner => '55000' },
	'DELETE FROM %S.events' => { owner => '55000' },
	'DELETE FROM %S.events_archive' => { owner => '55000' },
	'TRUNCATE %S.events' => { owner => '55000' },
	'TRUNCATE %S.events_archive_2024_01' => { owner => '55000' },
	"MERGE INTO %S.events AS e USING (VALUES (1)) AS v ON true WHEN MATCHED THEN DELETE" => { owner => '55000' },
	"INSERT INTO %S.events_archive ($columns, global_seq, stream_seq) VALUES ($row, 99, 99)" => { owner => '55000', walled_appender => '55000' },
	"INSERT INTO %S.events_hot_default ($columns, global_seq, stream_seq) VALUES ($row, 99, 99)" => { owner => '55000' },
	"UPDATE %S.rf_streams SET archive_reason = 'x'" => { archivist => 'ok' },
	'DELETE FROM %S.rf_streams' => {},
	'SELECT 1 / count(*) FROM %S.events WHERE %C' => { reader => 'ok', consumer => 'ok' },
	'SELECT 1 / count(*) FROM %S.events_all WHERE %C' => { reader => 'ok', consumer => 'ok' },
	'SELECT 1 / count(*) FROM %S.rf_streams WHERE %C' => { reader => 'ok', consumer => 'ok' },
	'SELECT 1 / count(*) FROM %S.rf_archive_log WHERE %C' => { reader => 'ok', consumer => 'ok' },
	'DELETE FROM %S.rf_archive_log' => { owner => '55000' },
	(map { ("SELECT FROM %S.$_" => {}) }
		  qw(events_hot events_cold events_hot_default events_hot_2024_01 events_archive_2024_01 events_archive_default
		  rf_event_keys rf_holds rf_archive_policies rf_archive_runs rf_archive_config)),
	'SELECT FROM %S.rf_archive_totals' => { monitor => 'ok' },
	'SELECT FROM %S.rf_consumers' => { consumer => 'ok' },
	'UPDATE %S.rf_consumers SET updated_at = now()' => { consumer => 'ok' },
	'DELETE FROM %S.rf_consumers' => {},
	"SELECT setval('%S.events_global_seq_seq', 1)" => {},
	"SELECT nextval('%S.events_global_seq_seq')" => { appender => 'ok' },
	'ALTER TABLE %S.events DISABLE TRIGGER rf_events_append_only' => {},
	'DROP TABLE %S.rf_holds' => {},
	'ALTER TABLE %S.events OWNER TO nobody' => { owner => '42501' });
my @in_public = ('SELECT FROM public.rf_stores', 'SELECT FROM public.rf_armed', 'DELETE FROM public.rf_stores', 'CREATE SCHEMA own');

# ---- What is expected

# Is the tenant, or the store, the role's own?
sub is_own
{
	my ($role, $name) = @_;
	return $role->{kind} eq 'superuser' || grep { $_ eq $name } @{ $role->{homes} };
}

# The outcome of a call of a function, undef for one that makes no sense.
sub expect_call
{
	my ($role, $function, $tenant) = @_;
	my ($right) = @{ $functions{$function} };
	my $success = $right =~ s/:(\w{5})$// ? $1 : 'ok';
	my $whole = $right =~ s/^whole //;
	my ($name, $form) = @{$tenant}{qw(name form)};

	$right =~ s/^procedure://;
	return '39P01' if $right eq 'trigger';
	return undef if $form eq 'conjoined' && $function =~ /^rf_(install|uninstall|adopt)$/;
	return undef if $form eq 'mall' && !$whole && $function !~ /^rf_(tenants|worker_list)$/;
	return undef if $function eq 'rf_drop_tenant' && $form =~ /default|mall/;
	$success = '22023' if $form eq 'conjoined' && $whole;
	$success = '0A000' if $form eq 'mall' && $function eq 'rf_flatten' || $form eq 'conjoined' && $function eq 'rf_drop_tenant';
	# the schema of the extension is not the store's own, and does not go along with it
	$success = '42501' if $form eq 'mall' && $function eq 'rf_install' && $role->{kind} ne 'superuser';
	# the switches of a store are no rows of anybody's
	return 'ok' if $form eq 'mall' && $function eq 'rf_archive_redirect_enabled' && $role->{kind} eq 'reader' && $role->{walled};
	# who may read the registry is told what is wrong
	$success = '42501' if $form eq 'conjoined' && $function eq 'rf_upgrade_store' && $role->{kind} ne 'superuser';
	return $success if $right eq 'none' || is_own($role, $name) && grep { $_ eq $right } @{ $opens{ $role->{kind} } };
	return '42501';
}

# The same of a statement.
sub expect_statement
{
	my ($role, $statement, $tenant) = @_;
	my %outcome = %{ $statements{$statement} };
	my $owner = $outcome{owner} // 'ok';
	my $granted = $role->{walled} && $outcome{"walled_$role->{kind}"} || $outcome{ $role->{kind} };

	return undef if $tenant->{form} eq 'mall';
	# what stands in the way of the owner does not let a superuser through, but rights do
	return $owner eq '42501' ? 'ok' : $owner if $role->{kind} eq 'superuser';
	if (is_own($role, $tenant->{name}))
	{
		return $owner if $role->{kind} eq 'owner';
		return $granted // '42501';
	}
	return '42501' unless $granted && $role->{walled} && $tenant->{form} eq 'conjoined';
	# tenants of one store: the tables are the same, and the rows are not
	return $statement =~ /%C/ ? '22012' : $statement =~ /INTO %S.events \(/ ? '42501' : undef;
}

# ---- Trying

# All of a database that could have changed: rows, sequences, and what there is.
sub everything
{
	return join("\n", table_states($node, 'postgres') =~ s/^checks\..*\n?//mgr,
		ask("SELECT string_agg(schemaname || sequencename || coalesce(last_value::text, '-'), ' ' ORDER BY schemaname, sequencename) FROM pg_sequences WHERE schemaname <> 'checks'"),
		ask("SELECT count(*), md5(string_agg(c.oid || relname || relowner || relrowsecurity || coalesce(relacl::text, ''), ' ' ORDER BY c.oid)) FROM pg_class AS c WHERE relnamespace <> 'checks'::regnamespace"),
		ask("SELECT count(*), md5(string_agg(oid || nspname || nspowner, ' ' ORDER BY oid)) FROM pg_namespace"),
		ask('SELECT count(*) FROM pg_trigger'), ask('SELECT count(*) FROM pg_policy'));
}

sub fill_in
{
	my ($call, $tenant) = @_;
	my %words = (T => $tenant->{argument}, S => $tenant->{schema}, O => $tenant->{owner}, N => $tenant->{name},
		C => $tenant->{form} eq 'conjoined' ? "tenant_id = '$tenant->{name}'" : 'true',
		P => "'p of $tenant->{name}'", M => $tenant->{max}, map { $_ => "'00000000-0000-0000-0000-00000000000$_'" } 1 .. 3);
	return $call =~ s/%(\w)/$words{$1}/gr;
}

# Something for each call: streams in all states, a consumer, a hold, a policy, and tables to be adopted.
sub make_fixture
{
	my ($tenant) = @_;
	my ($argument, $schema, $form) = @{$tenant}{qw(argument schema form)};
	my $whole = $form eq 'conjoined' ? 'NULL' : $argument;

	ask("SELECT rf_create_partition('hot', m::date, tenant => $whole), rf_create_partition('cold', '2024-01-01', tenant => $whole)"
		. " FROM (VALUES ('2024-01-01'), ('2024-05-01')) AS v(m)");
	ask("SELECT rf_append(lpad(s::text, 32, '0')::uuid, 'e', to_jsonb(n), jsonb_build_object('idempotency_key', s || '-' || n),"
		. " created_at => '2024-01-01 12:00+00'::timestamptz + n * interval '1 day', tenant => $argument)"
		. ' FROM generate_series(1, 3) AS s, generate_series(1, 2) AS n') if $form ne 'mall';
	ask("SELECT rf_archive_mark(lpad('2', 32, '0')::uuid, tenant => $argument); SELECT rf_archive_move('infinity', only_archived => true, tenant => $argument)")
		if $form ne 'mall';
	ask(fill_in("SELECT rf_hold(lpad('3', 32, '0')::uuid, 'r', %T), rf_policy_set(%P, '1 year', tenant => %T)", $tenant)) if $form ne 'mall';
	$tenant->{max} = ask("SELECT coalesce(max(global_seq), 0) FROM $schema.events_all");
	ask("SELECT rf_consumer_advance('c', $tenant->{max}, $whole)");
	$tenant->{owner} = ask("SELECT relowner::regrole FROM pg_class WHERE oid = '$schema.events'::regclass");
	return if $form eq 'conjoined';
	ask("CREATE SCHEMA legacy_$schema; CREATE TABLE legacy_$schema.events (LIKE $schema.events, PRIMARY KEY (global_seq), UNIQUE (stream_id, stream_seq));"
		. "ALTER TABLE legacy_$schema.events DROP COLUMN bucket_month, DROP COLUMN retention_class;"
		. "INSERT INTO legacy_$schema.events (global_seq, stream_id, stream_seq, tenant_id, event_type, body, headers, event_version, is_tombstone, created_at)"
		. " VALUES (1, lpad('1', 32, '0')::uuid, 1, 'x', 'e', '{}', '{}', 1, false, '2024-01-01 00:00+00')");
	return;
}

sub make_checks
{
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
	return;
}

# The cells that turn out otherwise than they should.
sub try_cells
{
	my ($which) = @_;
	ask("SET client_min_messages = error; UPDATE checks.cells SET outcome = checks.try(role, call, before) WHERE $which");
	return ask("SELECT role, tenant, call, outcome || ' instead of ' || expected FROM checks.cells WHERE ($which) AND outcome IS DISTINCT FROM expected ORDER BY n LIMIT 100");
}

# The same for what commits, or starts something, and so is called by itself.
sub call_all
{
	my @them = @_;
	my $script = join('', map { "RESET ROLE;\nSET ROLE $_->{role};\n$_->{text};\n\\echo outcome :SQLSTATE\n" } @them);
	my (undef, $out, undef) = $node->psql('postgres', "\\set ON_ERROR_STOP 0\nSET client_min_messages = error;\n$script");
	my @outcomes = $out =~ /^outcome (\w+)$/mg;
	return join("\n", map { my $state = shift(@outcomes) // 'none'; $state eq $_->{expected} ? () : "$_->{role}: $_->{text}: $state instead of $_->{expected}" } @them);
}

# The cells of the table for some roles and tenants; returns what is to be called by itself.
sub fill_table
{
	my ($roles, $tenants) = @_;
	my (@cells, @calls);

	foreach my $role (@$roles)
	{
		foreach my $tenant (@$tenants)
		{
			foreach my $function (sort keys %functions)
			{
				my ($right, @texts) = @{ $functions{$function} };
				my $expected = expect_call($role, $function, $tenant) // next;
				foreach my $text (map { fill_in($_, $tenant) } @texts)
				{
					if ($right =~ /^procedure/)
					{
						my $verb = $function eq 'rf_worker_start' ? 'SELECT' : 'CALL';
						push @calls, { role => $role->{name}, text => "$verb public.$text", expected => $expected eq 'ok' ? '00000' : $expected };
						next;
					}
					my $hold = $tenant->{form} eq 'mall' ? '' : 'SELECT ' . fill_in($release, $tenant);
					push @cells, [ $role->{name}, $tenant->{name}, ($right eq 'trigger' ? 'SELECT ' : 'SELECT FROM ') . $text,
						$in_the_way{$function} ? $tenant->{before} // $hold : '', $expected ];
				}
			}
			foreach my $statement (sort keys %statements)
			{
				my $expected = expect_statement($role, $statement, $tenant) // next;
				# a row that row security turns down has drawn its number by then
				my $draws = $role->{walled} && $statement =~ /^INSERT/ ? 'SELECT' : '';
				push @cells, [ $role->{name}, $tenant->{name}, fill_in($statement, $tenant), $draws, $expected ];
			}
		}
		push @cells, [ $role->{name}, '', $_, '', $role->{kind} eq 'superuser' ? 'ok' : '42501' ] foreach @in_public;
	}
	ask('INSERT INTO checks.cells (role, tenant, call, before, expected) VALUES '
		. join(', ', map { '(' . join(', ', map { quote_text($_) } @$_) . ')' } @cells));
	return @calls;
}

sub try_table
{
	my ($roles, $tenants) = @_;
	my ($before, @calls, %once);

	is(ask(<<'SQL'), join("\n", sort keys %functions), 'the table knows every function, and no other');
SELECT DISTINCT proname COLLATE "C" FROM pg_proc AS p JOIN pg_depend AS d
	ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
	JOIN pg_extension AS x ON d.refclassid = 'pg_extension'::regclass AND x.oid = d.refobjid
	WHERE extname = 'rillflow' ORDER BY 1
SQL
	is(ask('SELECT rolname FROM pg_roles WHERE rolsuper OR rolbypassrls'), ask('SELECT current_user'), 'no recipe makes a superuser');
	make_fixture($_) foreach @$tenants;
	make_checks();
	@calls = fill_table($roles, $tenants);
	$before = everything();
	like($before, qr/rf_holds\|[1-9]/, 'the checksum covers the tables of the stores');
	is(try_cells("expected IN ('42501', '22012') AND before = ''"), '', 'what is not one\'s part is refused');
	is(everything(), $before, 'and has changed nothing, not even a sequence');
	is(try_cells("expected <> 'ok' AND outcome IS NULL"), '', 'also where something else is in the way');
	is(try_cells("expected = 'ok'"), '', 'what is one\'s part succeeds');
	is(ask("SELECT DISTINCT role FROM checks.cells AS c WHERE (SELECT count(*) FROM checks.cells WHERE role = c.role AND outcome <> 'ok') < 5"
			. " OR (SELECT count(*) FROM checks.cells WHERE role = c.role AND outcome = 'ok') < 2"), '', 'each is refused something, and can do something');
	$before = everything();
	is(call_all(grep { $_->{expected} ne '00000' } @calls), '', 'procedures that are not one\'s part are refused');
	is(everything(), $before, 'and have changed nothing');
	is(call_all(sort { ($a->{text} =~ /worker/) <=> ($b->{text} =~ /worker/) }
			  grep { $_->{expected} eq '00000' && !($_->{text} =~ /rf_adopt|worker/ && $once{ $_->{text} }++) } @calls),
		'', 'those that are succeed');
	return;
}

sub start
{
	my ($name, @recipes) = @_;
	$node = PostgreSQL::Test::Cluster->new($name);
	$node->init;
	$node->append_conf('postgresql.conf', "timezone = 'UTC'\nmax_locks_per_transaction = 256\nrillflow.worker = off");
	$node->start;
	ask('CREATE EXTENSION rillflow');
	ask(recipe($_)) foreach @recipes;
	ask('CREATE ROLE nobody');
	return;
}

sub role
{
	my ($name, $kind, @homes) = @_;
	return { name => $name, kind => $kind, homes => \@homes };
}

# ---- A single default store

start('single', 'The store in public', 'Owners');
my @strangers = (role('nobody', 'nobody'), role(ask('SELECT current_user'), 'superuser'));
try_table([ (map { role($_, $_, 'public') } qw(appender reader archivist)), role('projection', 'consumer', 'public'), role('monitor', 'monitor', 'public'), @strangers ],
	[ { name => 'public', form => 'default', argument => 'NULL', schema => 'public' } ]);
$node->stop;

# ---- Two tenants with schemas, and two of a conjoined store

start('tenants', 'Owners', 'A conjoined store');
ask(recipe('A tenant with a schema'));
ask(recipe('A tenant with a schema') =~ s/acme/globex/gr);
my ($once, $each) = recipes('The wall: a role for each tenant');
ask($once);
ask($each);
ask($each =~ s/initech/umbrella/gr);
# the owner of the conjoined store, and a consumer of all its tenants
ask('CREATE ROLE mall_owner LOGIN IN ROLE store_owner; GRANT CREATE ON SCHEMA public TO mall_owner');
ask("SELECT rf_set_owner('mall_owner')");
ask('CREATE ROLE mall_projection; GRANT SELECT ON events_all, events, events_archive, rf_streams, rf_archive_log TO mall_projection;'
	. 'GRANT SELECT, UPDATE ON rf_consumers TO mall_projection;'
	. join('', map { "CREATE POLICY projection ON $_ TO mall_projection USING (true);" } qw(events events_archive rf_streams rf_archive_log)));
my @mall = qw(mall initech umbrella);
try_table(
	[
		(map { role("acme_$_", $_, 'acme') } qw(appender reader archivist consumer owner)),
		role('globex_owner', 'owner', 'globex'),
		(map { my $role = role("initech_$_", $_, 'initech'); $role->{walled} = 1; $role } qw(appender reader archivist)),
		role('mall_projection', 'consumer', @mall), role('mall_owner', 'owner', @mall), @strangers
	],
	[
		(map { { name => $_, form => 'schema', argument => "'$_'", schema => "tenant_$_" } } qw(acme globex)),
		(map { { name => $_, form => 'conjoined', argument => "'$_'", schema => 'public' } } qw(initech umbrella)),
		{
			name => 'mall', form => 'mall', argument => 'NULL', schema => 'public',
			before => "SELECT rf_release('00000000-0000-0000-0000-000000000003', tenant => t) FROM (VALUES ('initech'), ('umbrella')) AS v(t)"
		}
	]);
$node->stop;
done_testing();
