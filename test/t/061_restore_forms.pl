# What creates the tables of a store and what does not: the extension typed by hand, and from a dump; and the ways
# by which a store comes apart and together again: DROP EXTENSION CASCADE, a dump of one schema, of data alone, of
# definitions alone, in sections, over what is there, of a whole cluster, and a copy of the database.
use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowDump;
use Test::More;

my $schema = 'Te"nant \'x';
my $in = quote_name($schema);
my $tenant = "te'nant \"q\"";

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "timezone = 'UTC'");
$node->start;
my $dir = PostgreSQL::Test::Utils::tempdir();
my $databases = 0;

sub ask { return value($node, @_); }

sub new_database
{
	my (@how) = @_;
	my $db = 'db' . ++$databases;
	ask('postgres', "CREATE DATABASE $db @how");
	return $db;
}

# How many tables of stores there are, in whatever schema.
sub store_tables
{
	my ($db) = @_;
	return ask($db, "SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'p', 'v') AND oid >= 16384 AND relname NOT IN ('rf_stores', 'rf_armed', 'rf_worker_status')");
}

sub members
{
	my ($db) = @_;
	return ask($db, "SELECT string_agg(c.relname, ' ') FROM pg_depend AS d JOIN pg_class AS c ON c.oid = objid"
			. " AND classid = 'pg_class'::regclass WHERE deptype = 'e' AND refclassid = 'pg_extension'::regclass"
			. " AND c.relkind IN ('r', 'p', 'v', 'S') AND c.oid >= 16384");
}

# ---- The extension, typed by hand.

my @typed = (
	'CREATE EXTENSION rillflow',
	'create extension if not exists "rillflow"',
	'CREATE EXTENSION rillflow WITH SCHEMA "Else where"',
	'CREATE EXTENSION IF NOT EXISTS rillflow WITH SCHEMA public',
	"CREATE EXTENSION rillflow SCHEMA public VERSION '1.0' CASCADE",
	'SET check_function_bodies = off; CREATE EXTENSION rillflow',
	'BEGIN; SET LOCAL check_function_bodies = on; CREATE EXTENSION IF NOT EXISTS rillflow WITH SCHEMA public; COMMIT',
	"DO 'BEGIN CREATE EXTENSION IF NOT EXISTS rillflow; END'",
	"SET row_security = off; SET client_min_messages = warning; SET search_path = ''; CREATE EXTENSION rillflow SCHEMA public");
foreach my $statement (@typed)
{
	my $db = new_database();
	ask($db, 'CREATE SCHEMA "Else where"');
	my ($state, $messages) = sqlstate_of($node, $db, $statement);
	subtest "typed: $statement" => sub {
		is($state, '00000', 'it works');
		unlike($messages, qr/WARNING/, 'and does not warn');
		cmp_ok(store_tables($db), '>=', 14, 'it makes tables');
		is(members($db), 'rf_stores rf_armed rf_worker_status', 'of which what is of all stores is a member');
		is( ask($db, "SET search_path = public, \"Else where\"; SELECT stream_seq FROM rf_append(md5('a')::uuid, 't', '{}')"),
			'1', 'and the store works');
	};
}
ask('postgres', "DROP DATABASE db$_") foreach 1 .. $databases;

# ---- The extension, from a dump, without its tables: in all the ways that a dump goes in.

my @dumped = (
	'SET check_function_bodies = false; CREATE EXTENSION IF NOT EXISTS rillflow WITH SCHEMA public',
	'BEGIN; SET check_function_bodies = false; CREATE EXTENSION IF NOT EXISTS rillflow WITH SCHEMA public; COMMIT',
	'BEGIN; SET LOCAL check_function_bodies = false; CREATE EXTENSION IF NOT EXISTS rillflow WITH SCHEMA public; COMMIT',
	'SET check_function_bodies = false; CREATE EXTENSION IF NOT EXISTS rillflow WITH SCHEMA "Else where"',
	"SELECT set_config('check_function_bodies', 'off', false); BEGIN; CREATE EXTENSION IF NOT EXISTS rillflow; COMMIT");
foreach my $statement (@dumped)
{
	my $db = new_database();
	ask($db, 'CREATE SCHEMA "Else where"');
	my ($state, $messages) = sqlstate_of($node, $db, $statement);
	subtest "dumped: $statement" => sub {
		is($state, '00000', 'it works');
		like($messages, qr/WARNING:.*being restored.*rf_install\(/s, 'and warns');
		is(store_tables($db), '0', 'it makes no tables');
		is(members($db), 'rf_stores rf_armed rf_worker_status', 'but for what is of all stores');
		my ($append) = sqlstate_of($node, $db,
			"SET search_path = public, \"Else where\"; SELECT rf_append(md5('a')::uuid, 't', '{}')");
		is($append, '55000', 'there is no store yet');
		my $where = $statement =~ /Else/ ? 'Else where' : 'public';
		ask($db, qq(SET client_min_messages = error; SET search_path = "$where"; SELECT rf_install('$where')));
		is( ask($db, "SET search_path = public, \"Else where\"; SELECT stream_seq FROM rf_append(md5('a')::uuid, 't', '{}')"),
			'1', 'rf_install() makes it');
	};
}

# ---- A source with two stores.

ask('postgres', 'CREATE DATABASE source');
ask('source', <<SQL);
SET client_min_messages = error;
CREATE EXTENSION rillflow;
CREATE SCHEMA $in;
SELECT rf_install(@{[quote_text($schema)]}, @{[quote_text($tenant)]});
SELECT count(*) FROM generate_series(1, 16) AS n, generate_series(1, 6) AS s,
	(VALUES (NULL), (@{[quote_text($tenant)]})) AS t (tenant),
	rf_append(md5('stream ' || s)::uuid, 'type', jsonb_build_object('n', n), tenant => t.tenant,
		headers => jsonb_build_object('idempotency_key', 'key ' || s || ' ' || n),
		created_at => timestamptz '2024-01-05 00:00+00' + n * interval '9 days');
SELECT rf_archive_mark(md5('stream 1')::uuid, tenant => t.tenant) FROM (VALUES (NULL), (@{[quote_text($tenant)]})) AS t (tenant);
SELECT rf_archive_set_redirect(true);
SELECT rf_archive_set_redirect(true, @{[quote_text($tenant)]});
CALL rf_archive_run('2024-03-01 00:00+00');
CALL rf_archive_run('2024-03-01 00:00+00', tenant => @{[quote_text($tenant)]});
SQL

my @stores = ('public', $schema);
my %union = map { $_ => union_state($node, 'source', $_) } @stores;
my %leaves = map { $_ => leaf_states($node, 'source', $_) } @stores;
foreach my $store (@stores)
{
	like($union{$store}, qr/^96 96 /, 'the source has its events');
	like($leaves{$store}, qr/events_hot_default\|[1-9]/, 'hot ones');
	like($leaves{$store}, qr/events_archive_2024_02\|[1-9]/, 'and cold ones, in months');
}

# The stores are there as in the source, and go on.
sub whole
{
	my ($db, $what, @names) = @_;
	return subtest "whole: $what" => sub {
		foreach my $name (@names ? @names : @stores)
		{
			my $of = $name eq 'public' ? 'NULL' : quote_text($tenant);
			my $in = quote_name($name);
			is(union_state($node, $db, $name), $union{$name}, "$name: same events");
			is(leaf_states($node, $db, $name), $leaves{$name}, "$name: each in its leaf");
			is(broken_streams($node, $db, $name), '0', "$name: streams are whole");
			is(ask($db, "SELECT rf_archive_redirect_enabled($of)"), 't', "$name: the switch is on");
			is( ask($db, <<SQL), "17|t\n18\n17\n3", "$name: appends go on, archived ones go cold, keys are known");
SELECT stream_seq, global_seq > (SELECT max(global_seq) FROM $in.events_all)
	FROM rf_append(md5('stream 2')::uuid, 'after', '{}', tenant => $of);
INSERT INTO $in.events (stream_id, event_type, body) VALUES (md5('stream 2')::uuid, 'after', '{}') RETURNING stream_seq;
INSERT INTO $in.events (stream_id, event_type, body) VALUES (md5('stream 1')::uuid, 'after', '{}');
SELECT max(stream_seq) FROM $in.events_archive WHERE stream_id = md5('stream 1')::uuid;
SELECT stream_seq FROM rf_append(md5('stream 4')::uuid, 'x', '{}', '{"idempotency_key": "key 4 3"}', tenant => $of);
SQL
			is(sqlstate_of($node, $db, "DELETE FROM $in.events_hot_default"), '55000', "$name: events are append-only");
			moved_whole($node, $db, ask($db, "SELECT count(*) FROM $in.events WHERE created_at < '2024-04-01 00:00+00'"),
				"$name: move", sub { ask($db, "SELECT rf_archive_move('2024-04-01 00:00+00', tenant => $of)"); }, $name);
		}
	};
}

sub restore
{
	my ($what, $db, $errors, @commands) = @_;
	my @seen;
	foreach my $command (@commands)
	{
		my ($status, $out, $err) = program($node, @$command);
		push @seen, $err =~ /^.*(?:ERROR|FATAL|error): .*$/gm;
		push @seen, "@$command ended with $status" if $status != 0 && !$errors;
	}
	is(join("\n", grep { !$errors || !/$errors/ } @seen), '', "$what: no error but expected ones");
	cmp_ok(scalar(@seen), '>', 0, "$what: those come") if $errors;
	return;
}

# ---- DROP EXTENSION

my $apart = new_database('TEMPLATE source');
whole(new_database('TEMPLATE source'), 'a copy by TEMPLATE');
is(sqlstate_of($node, $apart, 'DROP EXTENSION rillflow'), '2BP01', 'plain DROP EXTENSION is refused');
ask($apart, 'SET client_min_messages = error; DROP EXTENSION rillflow CASCADE');
is(union_state($node, $apart, $_), $union{$_}, "CASCADE leaves the events of $_") foreach @stores;
is(leaf_states($node, $apart, $_), $leaves{$_}, "each in its leaf in $_") foreach @stores;
is(ask($apart, "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'rf%'"), '0', 'and takes the triggers');
is(sqlstate_of($node, $apart, 'BEGIN; UPDATE events SET user_id = user_id; ROLLBACK'), '00000', 'what is left are ordinary tables');
my ($state, $messages) = sqlstate_of($node, $apart, 'CREATE EXTENSION rillflow');
is($state, '00000', 'the extension can be created again');
like($messages, qr/WARNING:.*no store is made.*rf_install\('public'\)/s, 'warns of what is there');
is(sqlstate_of($node, $apart, "SELECT rf_append(md5('a')::uuid, 't', '{}')"), '55000', 'and takes nothing up by itself');
ask($apart, "SET client_min_messages = error; SELECT rf_install('public'); SELECT rf_install(@{[quote_text($schema)]}, @{[quote_text($tenant)]})");
is(schema_of($node, $apart), schema_of($node, 'source'), 'taken up, all objects are as they were');
whole($apart, 'taken up after DROP EXTENSION CASCADE');

# Events that came while nobody numbered them: the store is taken up with right heads, or not at all.
my $meanwhile = new_database('TEMPLATE source');
ask($meanwhile, <<'SQL');
SET client_min_messages = error;
DROP EXTENSION rillflow CASCADE;
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (md5('stream 2')::uuid, 17, 'meanwhile', '{}');
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (md5('new meanwhile')::uuid, 1, 'meanwhile', '{}');
CREATE EXTENSION rillflow;
SQL
my $grown = union_state($node, $meanwhile);
$state = sqlstate_of($node, $meanwhile, "SELECT rf_install('public')");
like($state, qr/^(?:00000|55000)$/, 'a store that got events meanwhile is taken up or refused');
if ($state eq '00000')
{
	same_union($node, $meanwhile, $grown, 'taken up with what it got meanwhile');
	is(($node->psql($meanwhile, "SELECT stream_seq FROM rf_append(md5('stream 2')::uuid, 'after', '{}')"))[1],
		'18', 'which it counts on from');
}

# ---- A dump of one schema

my $here = new_database();
ask($here, 'CREATE EXTENSION rillflow');
my $own = ask($here, "SELECT global_seq FROM rf_append(md5('mine')::uuid, 't', '{}')");
restore('a schema', $here, undef, [ 'pg_dump', '-n', $in, '-f', "$dir/schema", 'source' ],
	[ 'psql', '-Xq1', '-v', 'ON_ERROR_STOP=1', '-d', $here, '-f', "$dir/schema" ]);
is(sqlstate_of($node, $here, "SELECT rf_archive_redirect_enabled(@{[quote_text($tenant)]})"), '42704', 'its tenant is not known yet');
ask($here, "SET client_min_messages = error; SELECT rf_install(@{[quote_text($schema)]}, @{[quote_text($tenant)]})");
whole($here, 'a schema, taken up', $schema);
is(ask($here, 'SELECT count(*) FROM events_all'), '1', 'the other store has its own event and no other');

my $bare = new_database();
restore('public, without the extension', $bare,
	qr/schema "public" already exists|function public\.rf_\w+\(\) does not exist|trigger "rf_config_\w+" for table "rf_archive_config" does not exist/,
	[ 'pg_dump', '-n', 'public', '-T', 'public.rf_stores', '-f', "$dir/public", 'source' ], [ 'psql', '-Xq', '-d', $bare, '-f', "$dir/public" ]);
($state, $messages) = sqlstate_of($node, $bare, 'CREATE EXTENSION rillflow');
like($messages, qr/WARNING:.*no store is made/s, 'the extension finds the tables there');
ask($bare, "SET client_min_messages = error; SELECT rf_install('public')");
whole($bare, 'public, taken up', 'public');

# ---- Definitions and data apart

my $halves = new_database();
restore('definitions', $halves, undef, [ 'pg_dump', '--schema-only', '-f', "$dir/definitions", 'source' ],
	[ 'psql', '-Xq1', '-v', 'ON_ERROR_STOP=1', '-d', $halves, '-f', "$dir/definitions" ]);
is(schema_of($node, $halves), schema_of($node, 'source'), 'definitions are the same');
is(ask($halves, 'SELECT count(*) FROM events_all'), '0', 'without events');
my $empty = new_database("TEMPLATE $halves");
is(sqlstate_of($node, $empty, "SELECT rf_append(md5('a')::uuid, 't', '{}')"), '55000', 'nor registered');
ask($empty, "SET client_min_messages = error; SELECT rf_install('public')");
is(ask($empty, "SELECT stream_seq FROM rf_append(md5('a')::uuid, 't', '{}')"), '1', 'but as good as a new store');
program($node, 'pg_dump', '--data-only', '-f', "$dir/data", 'source');
my ($status, $out, $err) = program($node, 'psql', '-Xq1', '-v', 'ON_ERROR_STOP=1', '-d', $halves, '-f', "$dir/data");
isnt($status, 0, 'data alone are refused where triggers are');
like($err, qr/append-only/, 'for events come through events only');
is(table_states($node, $halves), '', 'and nothing came');
restore('data', $halves, undef,
	[ 'pg_dump', '--data-only', '--disable-triggers', '-f', "$dir/data", 'source' ],
	[ 'psql', '-Xq1', '-v', 'ON_ERROR_STOP=1', '-d', $halves, '-f', "$dir/data" ]);
whole($halves, 'definitions, then data without triggers');

# ---- Archives: in sections, over what is there, by non-default roads

program($node, 'pg_dump', '-Fc', '-f', "$dir/archive", 'source');
my $sections = new_database();
restore('sections', $sections, undef,
	map { [ 'pg_restore', "--section=$_", '-d', $sections, "$dir/archive" ] } qw(pre-data data post-data));
whole($sections, 'sections');
restore('clean', $sections, undef, [ 'pg_restore', '--clean', '--if-exists', '-d', $sections, "$dir/archive" ]);
whole($sections, 'over what was there');
restore('clean, plain', $sections, undef, [ 'pg_dump', '--clean', '--if-exists', '-f', "$dir/clean", 'source' ],
	[ 'psql', '-Xq1', '-v', 'ON_ERROR_STOP=1', '-d', $sections, '-f', "$dir/clean" ]);
whole($sections, 'over what was there, plain');

# ---- The extension in a schema of its own

ask('postgres', 'CREATE DATABASE apart');
ask('apart', 'CREATE SCHEMA "Else where"; CREATE EXTENSION rillflow SCHEMA "Else where";'
	. ' SET search_path = "Else where"; SELECT count(*) FROM generate_series(1, 5) AS n,'
	. " rf_append(md5('s')::uuid, 't', '{}', created_at => timestamptz '2024-01-01' + n * interval '20 days');"
	. " CALL rf_archive_run('2024-02-15')");
my $else = new_database();
restore('another schema', $else, undef, [ 'pg_dump', '-f', "$dir/else", 'apart' ],
	[ 'psql', '-Xq1', '-v', 'ON_ERROR_STOP=1', '-d', $else, '-f', "$dir/else" ]);
like(leaf_states($node, 'apart', 'Else where'), qr/archive_2024_02/, 'a store in another schema');
is(leaf_states($node, $else, 'Else where'), leaf_states($node, 'apart', 'Else where'), 'each event is in its leaf');
is( ask($else, 'SET search_path = "Else where"; SELECT stream_seq FROM rf_append(md5(\'s\')::uuid, \'t\', \'{}\')'),
	'6', 'and it goes on');

# ---- A whole cluster

my $other = PostgreSQL::Test::Cluster->new('other');
$other->init;
$other->append_conf('postgresql.conf', "timezone = 'UTC'");
$other->start;
ask('postgres', "DROP DATABASE db$_") foreach grep { ask('postgres', "SELECT count(*) FROM pg_database WHERE datname = 'db$_'") } 1 .. $databases;
program($node, 'pg_dumpall', '-f', "$dir/cluster");
($status, $out, $err) = program($other, 'psql', '-Xq', '-d', 'postgres', '-f', "$dir/cluster");
is($status, 0, 'a dump of the cluster goes in');
unlike($err =~ s/^.*role "\w+" already exists$//mr, qr/ERROR|FATAL/, 'without an error');
is(union_state($other, 'source', $_), $union{$_}, "same events in $_") foreach @stores;
is(leaf_states($other, 'source', $_), $leaves{$_}, "each in its leaf in $_") foreach @stores;
is(value($other, 'source', "SELECT stream_seq FROM rf_append(md5('stream 2')::uuid, 'after', '{}')"), '17', 'and it goes on');

done_testing();
