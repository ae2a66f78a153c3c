# Dump and restore, in every form that people use, of a database in which nearly everything was customised that can
# be: no form needs a flag for us or ends with an error, and in the copy all is as it was, row by row and object by
# object, and works. Months have flipped, there or there and back, in both backends; one of the stores was customised
# in one backend and then changed to the other.
use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowDump;
use Test::More;

my $schema = 'Te"nant \'x';
my $tenant = "te'nant \"q\"";
my %cold = (dual_table => 'events_archive', partitioned => 'events_cold');
# schema, tenant, backend
my @stores = ([ 'public', undef, 'dual_table' ], [ $schema, $tenant, 'partitioned' ]);

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "timezone = 'UTC'\nwal_level = logical\nallow_in_place_tablespaces = on");
$node->start;
my $dir = PostgreSQL::Test::Utils::tempdir();

sub ask { return value($node, @_); }

# The source.

$node->safe_psql('postgres', <<'SQL');
CREATE ROLE "o'wner ""q" NOLOGIN;
CREATE ROLE app LOGIN;
SET allow_in_place_tablespaces = on;
CREATE TABLESPACE cheap LOCATION '';
GRANT CREATE ON TABLESPACE cheap TO "o'wner ""q";
CREATE DATABASE source;
SQL
ask('source', <<'SQL');
CREATE EXTENSION rillflow;
ALTER DATABASE source SET statement_timeout = '1234s';
GRANT CREATE, USAGE ON SCHEMA public TO "o'wner ""q";
GRANT EXECUTE ON FUNCTION rf_install TO "o'wner ""q";
DO $$
DECLARE
	relation record;
BEGIN
	FOR relation IN SELECT oid::regclass AS name FROM pg_class AS c WHERE relnamespace = 'public'::regnamespace
			AND relkind IN ('r', 'p', 'v', 'S') AND relname ~ '^(events|rf_)' AND relname NOT IN ('rf_stores', 'rf_armed', 'rf_worker_status')
			AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND deptype IN ('a', 'i') AND c.relkind = 'S')
	LOOP
		EXECUTE format('ALTER TABLE %s OWNER TO "o''wner ""q"', relation.name);
	END LOOP;
END
$$;
SQL
ask('source', <<SQL);
CREATE SCHEMA @{[quote_name($schema)]} AUTHORIZATION "o'wner ""q";
SET ROLE "o'wner ""q";
SELECT rf_install(@{[quote_text($schema)]}, @{[quote_text($tenant)]});
SQL

# What users add, with data on both sides of it.
sub fill_store
{
	my ($name, $of, $backend) = @_;
	my $in = quote_name($name);
	my $tenant = defined $of ? quote_text($of) : 'NULL';
	return ask('source', <<SQL);
SET client_min_messages = error;
SET search_path = $in, public;

SELECT rf_create_partition('hot', month, tenant => $tenant)
	FROM (VALUES (date '2024-01-01'), ('2024-02-01'), ('2024-03-01'), ('2024-04-01')) AS m (month);
SELECT rf_create_partition('cold', '2024-01-01', 'cheap', $tenant);

SELECT rf_append(md5('stream ' || s)::uuid, 'type ' || n % 3, jsonb_build_object('n', n, 'text', E'a''b"c\\\\d\\n\\té'),
		CASE WHEN n % 4 = 0 THEN jsonb_build_object('idempotency_key', 'key '' " ' || s || ' ' || n) ELSE '{}' END,
		causation_id => CASE WHEN n % 2 = 0 THEN md5('cause')::uuid END,
		user_id => CASE n % 3 WHEN 0 THEN 'app' WHEN 1 THEN '' END, is_tombstone => n % 7 = 0, tenant => $tenant,
		created_at => timestamptz '2024-01-05 00:00+00' + n * interval '9 days' + s * interval '1 hour')
	FROM generate_series(1, 16) AS n, generate_series(1, 10) AS s;

ALTER TABLE events ADD COLUMN "re""gion" text, ADD COLUMN loud text GENERATED ALWAYS AS (upper(event_type)) STORED;
ALTER TABLE events_archive ADD COLUMN "re""gion" text, ADD COLUMN loud text GENERATED ALWAYS AS (upper(event_type)) STORED;
ALTER TABLE rf_streams ADD COLUMN kind text DEFAULT 'ordinary';
SELECT rf_install(@{[quote_text($name)]});

INSERT INTO events (stream_id, event_type, body, created_at, bucket_month, "re""gion", user_id)
	SELECT md5('raw ' || s)::uuid, 'raw', '{}', timestamptz '2024-02-07 00:00+00' + s * interval '10 days',
			date_trunc('month', timestamp '2024-02-07 00:00' + s * interval '10 days'), 'region '' " ' || s,
			CASE WHEN s % 2 = 0 THEN 'app' END
		FROM generate_series(1, 12) AS s, generate_series(1, 2);

-- Moved by date; marked and moved; marked with hot events left; redirected.
CALL rf_archive_run('2024-02-20 00:00+00', 50, tenant => $tenant);
SELECT rf_archive_mark(md5('stream 1')::uuid, E'a reason: '' " \\\\ \\n end', 'so''mebody', tenant => $tenant);
SELECT rf_archive_move('infinity', 50, only_archived => true, tenant => $tenant);
SELECT rf_archive_mark(md5('stream 2')::uuid, tenant => $tenant);
SELECT rf_append(md5('stream 2')::uuid, 'late', '{}', allow_archived => true, tenant => $tenant);
SELECT rf_archive_set_redirect(true, $tenant);
INSERT INTO events (stream_id, event_type, body, "re""gion") VALUES (md5('stream 2')::uuid, 'redirected', '{}', 'far');
SELECT rf_archive_mark(md5('no event yet')::uuid, tenant => $tenant);
-- Redacted, hot and cold; on hold.
SELECT rf_redact(md5('stream 3')::uuid, 1, 'request '' "', $tenant), rf_redact(md5('stream 4')::uuid, reason => 'all', tenant => $tenant);
SELECT rf_hold(md5('stream 5')::uuid, E'case '' " \\\\ \\n 1', $tenant), rf_hold(md5('stream 5')::uuid, 'case 2', $tenant);

SET ROLE "o'wner ""q";
CREATE TABLE "au""dit" (n bigint GENERATED ALWAYS AS IDENTITY, global_seq bigint, at timestamptz DEFAULT now());
CREATE FUNCTION "au""dit it"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
	\$\$ BEGIN INSERT INTO $in."au""dit" (global_seq) VALUES (NEW.global_seq); RETURN NULL; END \$\$;
CREATE TRIGGER "us""er trigger" AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION "au""dit it"();
COMMENT ON TRIGGER "us""er trigger" ON events IS 'a trigger of the user''s';
CREATE TABLE orders (id int PRIMARY KEY, stream_id uuid NOT NULL REFERENCES rf_streams);
INSERT INTO orders SELECT row_number() OVER (), stream_id FROM rf_streams;
CREATE INDEX "us""er index" ON events (user_id);
CREATE INDEX "us""er index, cold" ON events_archive USING gin (body);
CREATE INDEX "us""er index, leaf" ON events_hot_2024_03 (event_type) WHERE is_tombstone;
CREATE STATISTICS "us""er statistics" ON event_type, user_id FROM events_hot_2024_03;
ALTER TABLE events ALTER COLUMN body SET STORAGE EXTERNAL, ALTER COLUMN event_type SET STATISTICS 500;
ALTER TABLE events_hot_2024_03 SET (fillfactor = 77, autovacuum_enabled = off);
ALTER TABLE rf_streams SET (fillfactor = 66);
COMMENT ON COLUMN events."re""gion" IS 'a column of the user''s';
COMMENT ON TABLE events_hot_2024_03 IS 'a comment of the user''s';

GRANT USAGE ON SCHEMA $in TO app;
GRANT SELECT, INSERT (stream_id, stream_seq, event_type, body, headers, user_id, created_at, bucket_month) ON events TO app;
GRANT SELECT ON events_archive, events_all, rf_streams TO app;
GRANT USAGE ON SEQUENCE events_global_seq_seq TO app;
ALTER TABLE events ENABLE ROW LEVEL SECURITY;
ALTER TABLE events_archive ENABLE ROW LEVEL SECURITY;
CREATE POLICY "us""er policy" ON events TO app USING (user_id = current_user) WITH CHECK (user_id = current_user);
CREATE POLICY "us""er policy" ON events_archive TO app USING (user_id = current_user);
CREATE VIEW latest AS SELECT stream_id, max(stream_seq) AS stream_seq FROM events_all GROUP BY stream_id;

-- Months that flip: once, and there and back.
RESET ROLE;
SELECT rf_flip_partition('2024-04-01', 'cold', $tenant);
SELECT rf_flip_partition('2024-03-01', 'cold', $tenant);
SELECT rf_flip_partition('2024-03-01', 'hot', $tenant);
SELECT rf_archive_set_backend('$backend', $tenant);
SQL
}

ask('source', 'CREATE PUBLICATION everything FOR ALL TABLES');
fill_store(@$_) foreach @stores;

# What the database is, for comparison.
sub picture
{
	my ($db) = @_;
	my %picture = (
		schema => schema_of($node, $db),
		tables => table_states($node, $db),
		stores => ask($db, 'SELECT schema, tenant, tenancy, layout_version FROM rf_stores ORDER BY schema'));
	foreach my $store (@stores)
	{
		my ($name, $of) = @$store;
		my $in = quote_name($name);
		my $tenant = defined $of ? quote_text($of) : 'NULL';
		$picture{"$name: leaves"} = leaf_states($node, $db, $name);
		$picture{"$name: union"} = union_state($node, $db, $name);
		$picture{"$name: broken"} = broken_streams($node, $db, $name);
		$picture{"$name: status"} = ask($db, <<SQL);
SELECT backend, redirect_enabled, hot_streams, cold_streams, default_events, oldest_hot FROM rf_archive_status($tenant)
SQL
		$picture{"$name: seen by app"} = ask($db, <<SQL);
SET ROLE app;
SELECT count(*), sum(hashtextextended(r::text, 0)::numeric) FROM rf_read_all(0, 10000, include_archived => true, tenant => $tenant) AS r
SQL
		$picture{"$name: sequence"} = ask($db, "SELECT last_value, is_called FROM $in.events_global_seq_seq");
	}
	return \%picture;
}

my $source = picture('source');
foreach my $store (@stores)
{
	my ($name, undef, $backend) = @$store;
	my $in = quote_name($name);
	my $cold = $cold{$backend};
	subtest "source: $name" => sub {
		like($source->{"$name: union"}, qr/^186 186 /, 'all events are there, each once');
		is($source->{"$name: broken"}, '0', 'streams are whole');
		my @leaves = map { s/^[^.]*\.//r =~ s/\|.*//r } split /\n/, $source->{"$name: leaves"};
		my %seen = map { $_ => 1 } @leaves;
		ok($seen{$_}, "events in $_")
		  foreach qw(events_hot_2024_03 events_hot_default), map { "${cold}_2024_0$_" } 1, 2, 4;
		like($source->{"$name: status"}, qr/^$backend\|t\|[1-9]\d*\|[1-9]\d*\|[1-9]/, 'redirect on, streams hot and cold');
		like($source->{"$name: seen by app"}, qr/^([1-9]\d?)\|/, 'row security hides some events, and not all');
		is( ask('source', "SELECT count(*) > 0 FROM $in.rf_streams JOIN $in.events_hot USING (stream_id) WHERE archived_at IS NOT NULL"),
			't', 'an archived stream has hot events');
		is( ask('source', "SELECT count(*) FROM $in.$cold WHERE event_type = 'redirected'"),
			'1', 'an event was redirected');
		my $flipped = join(', ', map { quote_text("$in.$_") . '::regclass' } "${cold}_2024_04", 'events_hot_2024_03');
		is( ask('source', "SELECT count(*) FROM pg_attribute WHERE attrelid IN ($flipped)"
				. " AND attname = 'retention_class' AND atthasmissing"),
			'2', 'the class of months that have flipped is in the catalog');
		like($source->{"$name: sequence"}, qr/^(18[6-9]|19\d)\|t$/, 'the sequence is ahead');
	};
}
foreach my $object ('CREATE POLICY "us""er policy" ON', 'ENABLE ROW LEVEL SECURITY', 'CREATE TRIGGER "us""er trigger"',
	'CREATE TRIGGER rf_events_redirect_archived', 'CREATE INDEX "us""er index"', 'CREATE INDEX "us""er index, leaf"',
	'CREATE STATISTICS', 'ADD GENERATED', 'GENERATED ALWAYS AS', '"re""gion" text', "fillfactor='77'",
	'SET STORAGE EXTERNAL', 'SET STATISTICS 500', 'COMMENT ON COLUMN', 'a comment of the user', 'default_tablespace = cheap',
	'OWNER TO "o\'wner ""q"', 'GRANT INSERT(event_type)', 'FOREIGN KEY', 'CREATE PUBLICATION',
	'security_invoker', 'ENABLE ALWAYS TRIGGER')
{
	my $times = () = $source->{schema} =~ /\Q$object/g;
	cmp_ok($times, '>=', $object =~ /tablespace|PUBLICATION/ ? 1 : 2, "the dump has: $object");
}

# The copy works, for who owns the store, and goes on where the source stood.
sub works
{
	my ($db, $name, $of, $backend) = @_;
	my $in = quote_name($name);
	my $cold = $cold{$backend};
	my $tenant = defined $of ? quote_text($of) : 'NULL';
	my $owner = 'SET ROLE "o\'wner ""q"';
	my $next = ask($db, "SELECT max(global_seq) FROM $in.events_all");
	is( ask($db, <<SQL), "17|t\n18\n1\nt\nt", 'appends go on with the next numbers, hot and cold');
$owner;
SET search_path = $in, public;
SELECT stream_seq, global_seq > $next FROM rf_append(md5('stream 3')::uuid, 'after', '{}', tenant => $tenant);
INSERT INTO events (stream_id, event_type, body, created_at, bucket_month)
	VALUES (md5('stream 3')::uuid, 'after', '{}', '2024-06-01 00:00+00', '2024-06-01') RETURNING stream_seq;
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (md5('brand new')::uuid, 1, 'first', '{}')
	RETURNING stream_seq;
WITH before AS MATERIALIZED (SELECT count(*) AS n FROM $cold)
	SELECT k.stream_seq = a.stream_seq AND k.global_seq = a.global_seq
	FROM rf_event_keys AS k, rf_append(k.stream_id, 'again', '{}', jsonb_build_object('idempotency_key', idempotency_key),
		tenant => $tenant) AS a WHERE idempotency_key = 'key '' " 5 8';
INSERT INTO events (stream_id, event_type, body) VALUES (md5('stream 1')::uuid, 'after', '{}');
SELECT e.stream_seq = s.last_seq AND e.stream_seq = 17 FROM $cold AS e JOIN rf_streams AS s USING (stream_id)
	WHERE stream_id = md5('stream 1')::uuid AND event_type = 'after';
SQL
	moved_whole($node, $db, ask($db, "SELECT count(*) FROM $in.events_hot WHERE created_at < '2024-05-01 00:00+00'"), 'move',
		sub { ask($db, "$owner; SELECT rf_archive_move('2024-05-01 00:00+00', 30, tenant => $tenant)"); }, $name);
	my $back = ask($db, "SELECT count(*) FROM $in.$cold WHERE stream_id = md5('stream 2')::uuid");
	moved_whole($node, $db, -$back, 'reactivate',
		sub { ask($db, "$owner; SELECT rf_archive_reactivate(md5('stream 2')::uuid, tenant => $tenant)"); }, $name);
	is(sqlstate_of($node, $db, "DELETE FROM $in.$_"), '55000', "$_ is append-only")
	  foreach qw(events events_archive events_hot_2024_03 rf_archive_log), $cold, "${cold}_2024_01", "${cold}_2024_04";
	value($node, $db, "SELECT rf_flip_partition('2024-04-01', 'hot', $tenant), rf_flip_partition('2024-04-01', 'cold', $tenant)");
	like(union_state($node, $db, $name), qr/^19\d /, 'months flip there and back');
	is(sqlstate_of($node, $db, "SET ROLE app; INSERT INTO $in.events (stream_id, event_type, body, user_id)"
				. " VALUES (md5('theirs')::uuid, 't', '{}', 'somebody')"),
		'42501', 'row security holds for who appends');
	return;
}

my $sequel = 0;

sub restored
{
	my ($form, $db, @output) = @_;
	foreach my $step (@output)
	{
		my ($what, $status, $err) = @$step;
		is($status, 0, "$what exits with 0");
		unlike($err, qr/error|fatal|panic/i, "$what has no error");
		my @warnings = $err =~ /^.*warning.*$/gim;
		# pg_restore shows no warnings of the server.
		is(scalar(@warnings), $what eq 'psql' ? 1 : 0, "$what warns of nothing but the tables that it leaves to the dump")
		  || diag($err);
	}
	my $copy = picture($db);
	is($copy->{$_}, $source->{$_}, "$_ as in the source") foreach sort keys %$source;
	works($db, @{ $stores[ $sequel++ % @stores ] });
	return;
}

# A form is a way to dump and a way to restore.
sub try_form
{
	my ($form, $dump, $restore) = @_;
	my $db = 'copy "' . $form . '"';
	my $file = "$dir/dump" . $sequel;
	return subtest $form => sub {
		my @dump = program($node, 'pg_dump', @$dump, '-f', $file, 'source');
		ask('postgres', 'CREATE DATABASE ' . quote_name($db));
		my ($tool, @options) = @$restore;
		my @restore = program($node, $tool, @options, '-d', $db, $tool eq 'psql' ? ('-X', '-q', '-f') : (), $file);
		restored($form, $db, [ 'pg_dump', @dump[ 0, 2 ] ], [ $tool, @restore[ 0, 2 ] ]);
		ask('postgres', 'DROP DATABASE ' . quote_name($db));
	};
}

if ($ENV{RF_SLOW_TESTS})
{
	my %contents = (
		copy => [],
		inserts => ['--inserts'],
		rows => [ '--column-inserts', '--rows-per-insert=50', '--on-conflict-do-nothing' ],
		root => ['--load-via-partition-root'],
		'root, inserts' => [ '--load-via-partition-root', '--inserts' ],
		serializable => ['--serializable-deferrable'],
		'row security' => ['--enable-row-security']);
	my @single = ('-1', '-v', 'ON_ERROR_STOP=1');
	my @ways = (
		[ 'plain', [], [ 'psql' ] ],
		[ 'plain, -1', [], [ 'psql', @single ] ],
		[ '-Fc', ['-Fc'], ['pg_restore'] ],
		[ '-Fc, -1', ['-Fc'], [ 'pg_restore', '-1' ] ],
		[ '-Fc, -j4', ['-Fc'], [ 'pg_restore', '-j4' ] ],
		[ '-Ft', ['-Ft'], ['pg_restore'] ],
		[ '-Fd -j4, -j4', [ '-Fd', '-j4' ], [ 'pg_restore', '-j4' ] ]);
	foreach my $content (sort keys %contents)
	{
		try_form("$_->[0], $content", [ @{ $_->[1] }, @{ $contents{$content} } ], $_->[2]) foreach @ways;
	}
}
else
{
	try_form('plain', [], ['psql']);
	try_form('plain, -1', [], [ 'psql', '-1', '-v', 'ON_ERROR_STOP=1' ]);
	try_form('-Fc', ['-Fc'], [ 'pg_restore', '-j1' ]);
	try_form('-Fc, -j4', ['-Fc'], [ 'pg_restore', '-j4' ]);
	try_form('-Fd -j4, -j4', [ '-Fd', '-j4' ], [ 'pg_restore', '-j4' ]);
	try_form('inserts', ['--inserts'], [ 'psql', '-v', 'ON_ERROR_STOP=1' ]);
	try_form('root', ['--load-via-partition-root'], ['psql']);
}

# With -C the dump makes the database, under its name.
subtest '-C' => sub {
	my @dump = program($node, 'pg_dump', '-C', '-f', "$dir/create", 'source');
	ask('postgres', 'ALTER DATABASE source RENAME TO original');
	my @restore = program($node, 'psql', '-X', '-q', '-d', 'postgres', '-f', "$dir/create");
	restored('-C', 'source', [ 'pg_dump', @dump[ 0, 2 ] ], [ 'psql', @restore[ 0, 2 ] ]);
	is(ask('source', 'SHOW statement_timeout'), '1234s', 'settings of the database are there');
};

done_testing();
