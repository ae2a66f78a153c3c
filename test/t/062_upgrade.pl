# pg_upgrade, to a server of the same and of each later version that is installed with the extension: months that
# have flipped, in both backends, come over leaf by leaf as they are, and flip again. Their columns of the tier are
# in the catalog, as defaults of rows that lack them. RF_UPGRADE_TO names the directories of the programs of later
# servers, separated by colons; otherwise those of Debian's packages are tried.
use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowDump;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir();
my ($old_bin) = map { chomp; $_ } scalar qx(pg_config --bindir);

sub new_cluster
{
	my ($name, %params) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name, %params);
	# Another server finds the extension in its own directories, and may not know the settings by which this one does.
	local %ENV = %ENV;
	delete $ENV{TEMP_CONFIG} if $params{install_path};
	# Later versions have checksums unless told otherwise, and both sides must agree.
	$node->init(extra => [ '--encoding', 'UTF8', '--locale', 'C', '-k' ]);
	$node->append_conf('postgresql.conf', "timezone = 'UTC'");
	return $node;
}

my $old = new_cluster('old');
$old->start;
my @stores = ([ 'public', 'NULL', 'events_archive' ], [ 'branch', "'b'", 'events_cold' ]);
value($old, 'postgres', <<'SQL');
CREATE EXTENSION rillflow;
CREATE SCHEMA branch;
SELECT rf_install('branch', 'b');
SELECT rf_archive_set_backend('partitioned', 'b');
SQL
foreach my $store (@stores)
{
	my ($schema, $tenant, $cold) = @$store;
	value($old, 'postgres', <<SQL);
SET search_path = $schema, public;
SELECT rf_create_partition('hot', month, tenant => $tenant)
	FROM unnest(ARRAY[date '2024-01-01', '2024-02-01', '2024-03-01', '2024-04-01']) AS month;
ALTER TABLE events ADD COLUMN note text DEFAULT 'none';
ALTER TABLE events_archive ADD COLUMN note text DEFAULT 'none';
INSERT INTO events (stream_id, event_type, body, headers, user_id, created_at, bucket_month)
	SELECT md5((n % 20)::text)::uuid, 'e' || n, jsonb_build_object('n', n, 'text', repeat(md5(n::text), n % 200)), '{}',
			CASE n % 3 WHEN 0 THEN 'u' WHEN 1 THEN '' END, at, date_trunc('month', at AT TIME ZONE 'UTC')::date
		FROM generate_series(1, 2000) AS n, LATERAL (SELECT timestamptz '2024-01-01 00:00+00' + n * interval '88 minutes') AS t (at);
-- once; there, back and there again; back; by rows
SELECT rf_flip_partition('2024-01-01', 'cold', $tenant);
SELECT rf_flip_partition('2024-02-01', tier, $tenant) FROM unnest(ARRAY['cold', 'hot', 'cold']) AS tier;
SELECT rf_flip_partition('2024-03-01', tier, $tenant) FROM unnest(ARRAY['cold', 'hot']) AS tier;
SELECT rf_archive_mark(md5('3')::uuid, tenant => $tenant);
SELECT rf_archive_move('infinity', only_archived => true, tenant => $tenant);
SQL
}
# One that has been elsewhere has columns of both.
value($old, 'postgres', "SELECT rf_archive_set_backend('dual_table', 'b'); SELECT rf_archive_set_backend('partitioned', 'b')");

sub picture
{
	my ($node) = @_;
	my %picture = (stores => value($node, 'postgres', 'SELECT schema, tenant FROM rf_stores ORDER BY 1'));
	foreach my $store (@stores)
	{
		my ($schema, $tenant) = @$store;
		$picture{"$schema: leaves"} = leaf_states($node, 'postgres', $schema);
		$picture{"$schema: union"} = union_state($node, 'postgres', $schema);
		$picture{"$schema: broken"} = broken_streams($node, 'postgres', $schema);
		$picture{"$schema: status"} =
		  value($node, 'postgres', "SELECT backend, hot_streams, cold_streams, default_events FROM rf_archive_status($tenant)");
		$picture{"$schema: missing"} = value($node, 'postgres', <<SQL);
SELECT attrelid::regclass, attname, CASE WHEN attname <> 'migrated_at' THEN attmissingval END, atthasmissing FROM pg_attribute
WHERE attrelid::regclass::text ~ 'events_(hot|cold|archive)_2024' AND relnamespace(attrelid) = '$schema'::regnamespace
	AND attname IN ('retention_class', 'migrated_at', 'migrated_by', 'note') AND atthasmissing
ORDER BY attrelid::regclass::text COLLATE "C", attname
SQL
	}
	return \%picture;
}

value($old, 'postgres',
	'CREATE FUNCTION public.relnamespace(oid) RETURNS oid LANGUAGE sql AS $$ SELECT relnamespace FROM pg_class WHERE oid = $1 $$');
my $source = picture($old);
foreach my $store (@stores)
{
	my ($schema, $tenant, $cold) = @$store;
	like($source->{"$schema: union"}, qr/^2000 2000 /, "$schema: all events are there");
	is($source->{"$schema: broken"}, '0', "$schema: streams are whole");
	foreach my $leaf ("${cold}_2024_01", "${cold}_2024_02", 'events_hot_2024_03', 'events_hot_2024_04', "${cold}_default")
	{
		like($source->{"$schema: leaves"}, qr/^(?:branch\.)?$leaf\|[1-9]/m, "$schema: events in $leaf");
	}
	like($source->{"$schema: missing"}, qr/${cold}_2024_01\|retention_class\|\{cold\}/, "$schema: a column is in the catalog");
}
value($old, 'postgres', "SELECT rf_policy_set('old events', older_than => '1 day')");
$old->stop;

# pg_upgrade asks for the library by the name that the functions have it by.
sub loads_by_its_name
{
	$old->start;
	my $loaded = ($old->psql('postgres', q{LOAD '$libdir/rillflow'}))[0] == 0;
	$old->stop;
	return $loaded;
}

# The server that the test runs with, and the later ones.
sub servers
{
	my @found = ([ 'the same version', undef, $old_bin ]);
	my ($running) = qx($old_bin/pg_config --version) =~ /(\d+)/;
	my @later = $ENV{RF_UPGRADE_TO} ? split(/:/, $ENV{RF_UPGRADE_TO}) : map { "/usr/lib/postgresql/$_/bin" } 17, 18;
	foreach my $bin (@later)
	{
		my ($version) = $bin =~ m{/(\d+)/bin$} ? $1 : qx($bin/pg_config --version) =~ /(\d+)/;
		push @found, [ "version $version", $bin =~ s{/bin$}{}r, $bin ] if $version > $running;
	}
	return @found;
}

sub has_extension
{
	my ($bin) = @_;
	chomp(my $directory = qx($bin/pg_config --pkglibdir));
	return -e "$directory/rillflow.so";
}

# What pg_upgrade has left, which goes with the directory.
sub why_not
{
	my ($new) = @_;
	return grep { /ERROR|FATAL|error:/ } map { split /\n/, slurp_file($_) } glob($new->data_dir . '/pg_upgrade_output.d/*/log/*.log');
}

# What of a cluster pg_upgrade has come to.
sub upgraded
{
	my ($what, $path, $bin) = @_;
	my $name = $what =~ s/\W/_/gr;
	my $new = new_cluster("new_$name", install_path => $path);
	# pg_upgrade changes to this directory.
	my $work = "$dir/$name";
	mkdir $work;
	my @command = (
		"$bin/pg_upgrade", '--no-sync', '-d', $old->data_dir, '-D', $new->data_dir, '-b', $old_bin, '-B', $bin,
		'-s', $new->host, '-p', $old->port, '-P', $new->port);
	my $in = sub { my @with = @_; return system_log('sh', '-c', 'cd "$0" && exec "$@"', $work, @command, @with) == 0; };
	ok($in->('--check'), "$what: the check finds nothing");
	ok($in->(), "$what: it is upgraded") or BAIL_OUT(join "\n", why_not($new));
	$new->start;

	is(value($new, 'postgres', 'SELECT policy, due FROM rf_policy_due(now())'), 'old events|t', "$what: the policy is armed");
	my $copy = picture($new);
	# attribute numbers are kept, and so is what rows lack
	is($copy->{$_}, $source->{$_}, "$what: $_ as before") foreach sort keys %$source;
	foreach my $store (@stores)
	{
		my ($schema, $tenant, $cold) = @$store;
		value($new, 'postgres', <<SQL);
SELECT rf_flip_partition('2024-01-01', 'hot', $tenant), rf_flip_partition('2024-03-01', 'cold', $tenant);
SELECT rf_append(md5('1')::uuid, 'after', '{}', created_at => '2024-01-05 00:00+00', tenant => $tenant);
SQL
		like(union_state($new, 'postgres', $schema), qr/^2001 2001 /, "$what: $schema: it goes on");
		is(broken_streams($new, 'postgres', $schema), '0', "$what: $schema: streams are whole");
		value($new, 'postgres', "CALL rf_archive_run('2024-06-01', tenant => $tenant)");
		is(events_in($new, 'postgres', 'events_hot', $schema), '0', "$what: $schema: and all turns cold");
		like(union_state($new, 'postgres', $schema), qr/^2001 2001 /, "$what: $schema: with every event");
	}
	$new->stop;
	return;
}

foreach my $server (servers())
{
	my ($what, $path, $bin) = @$server;
  SKIP:
	{
		skip "$what is not installed with the extension", 1
		  unless -x "$bin/pg_upgrade" && -x "$bin/postgres" && (!defined $path || has_extension($bin));
		# From 18 on LOAD, by which pg_upgrade looks for libraries, looks for this name in one directory only.
		skip "$what has the extension elsewhere than in its own directories", 1
		  if !defined $path && !loads_by_its_name();
		upgraded($what, $path, $bin);
	}
}

done_testing();
