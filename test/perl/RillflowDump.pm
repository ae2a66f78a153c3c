# What tests ask of a store before and after something was done to it: fingerprints of its events, and whether
# its streams are whole. A fingerprint is a count and sums of hashes of whole rows, so it does not depend on
# their order, and tells NULL from an empty string. Everything goes through plain SQL on the tables, never
# through functions of the extension, so that these can be checked by it.
package RillflowDump;

use strict;
use warnings FATAL => 'all';
use Exporter qw(import);
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(
  union_state table_states leaf_states broken_streams events_in moved_whole same_union quote_name quote_text value
  sqlstate_of program schema_of session
);

sub quote_name
{
	my ($name) = @_;
	return '"' . $name =~ s/"/""/gr . '"';
}

sub quote_text
{
	my ($text) = @_;
	return "'" . $text =~ s/'/''/gr . "'";
}

# The result of a statement that must succeed, without the final newline.
sub value
{
	my ($node, $db, $sql, %params) = @_;
	return $node->safe_psql($db, $sql, %params);
}

# The columns of a table by name, quoted, those left out that are listed.
sub columns
{
	my ($node, $db, $table, @but) = @_;
	my $list = join(', ', map { quote_text($_) } '', @but);
	return value($node, $db, <<SQL);
SELECT string_agg(quote_ident(attname), ', ' ORDER BY attname COLLATE "C") FROM pg_attribute
 WHERE attrelid = @{[quote_text($table)]}::regclass AND attnum > 0 AND NOT attisdropped AND attname NOT IN ($list)
SQL
}

# Count, different global_seq, and the checksum of all rows that a query gives; two hashes, so that no
# coincidence of one hides a change.
sub fingerprint
{
	my ($rows) = @_;
	return <<SQL;
SELECT concat_ws(' ', count(*), count(DISTINCT global_seq),
	coalesce(sum(hashtextextended(r::text, 0)::numeric), 0), coalesce(sum(hashtextextended(r::text, 1)::numeric), 0))
  FROM ($rows) AS r
SQL
}

# The state of hot and cold together: all columns of an event but retention_class. Columns that only
# events_archive has, which say who moved an event and when, are not part of it.
sub union_state
{
	my ($node, $db, $schema) = @_;
	my $in = quote_name($schema // 'public');
	my $columns = columns($node, $db, "$in.events", 'retention_class');
	return value($node, $db,
		fingerprint("SELECT $columns FROM $in.events UNION ALL SELECT $columns FROM $in.events_archive"));
}

# A line for each of the tables that holds rows, with the state of all its columns.
sub states_of
{
	my ($node, $db, $tables) = @_;
	my $queries = value($node, $db, <<SQL);
SELECT string_agg(format('SELECT %L, count(*), coalesce(sum(hashtextextended(r::text, 0)::numeric), 0),'
		' coalesce(sum(hashtextextended(r::text, 1)::numeric), 0) FROM (SELECT %s FROM ONLY %s) AS r',
		relid, columns, relid), ' UNION ALL ')
  FROM (SELECT relid, string_agg(quote_ident(attname), ', ' ORDER BY attname COLLATE "C") AS columns
		  FROM ($tables) AS t (relid) JOIN pg_attribute ON attrelid = relid AND attnum > 0 AND NOT attisdropped
		 GROUP BY relid) AS t
SQL
	# the server may read the tables in any order
	return join("\n", sort grep { !/\|0\|0\|0$/ } split /\n/, value($node, $db, $queries));
}

# The leaves of a store.
sub leaf_states
{
	my ($node, $db, $schema) = @_;
	my $in = quote_name($schema // 'public');
	my @parents = map { quote_text("$in.$_") . '::regclass' } qw(events events_archive);
	return states_of($node, $db,
		join(' UNION ALL ', map { "SELECT relid::regclass FROM pg_partition_tree($_) WHERE isleaf" } @parents));
}

# All tables of the database.
sub table_states
{
	my ($node, $db) = @_;
	return states_of($node, $db,
		"SELECT oid::regclass FROM pg_class WHERE relkind = 'r' AND oid >= 16384 AND relpersistence = 'p'");
}

# What tells streams apart: in a conjoined store, the tenant as well.
sub stream_key
{
	my ($node, $db, $in) = @_;
	my $key = quote_text("$in.rf_streams_pkey");
	return value($node, $db, <<SQL);
SELECT coalesce(string_agg(attname, ', ' ORDER BY attnum), 'stream_id')
  FROM pg_attribute WHERE attrelid = to_regclass($key)
SQL
}

# Streams that are not gapless from 1 to last_seq, whose bounds leave an event out, or that lack their row.
sub broken_streams
{
	my ($node, $db, $schema) = @_;
	my $in = quote_name($schema // 'public');
	my $key = stream_key($node, $db, $in);
	return value($node, $db, <<SQL);
WITH e AS (
	SELECT $key, count(*) AS n, count(DISTINCT stream_seq) AS different, min(stream_seq) AS first_seq,
		max(stream_seq) AS last, min(created_at) AS oldest, max(created_at) AS newest
	  FROM (SELECT $key, stream_seq, created_at FROM $in.events
		UNION ALL SELECT $key, stream_seq, created_at FROM $in.events_archive) AS u GROUP BY $key)
SELECT count(*) FROM e FULL JOIN $in.rf_streams AS s USING ($key)
 WHERE s.last_seq IS NULL OR s.last_seq <> coalesce(e.n, 0)
	OR e.n <> e.different OR e.first_seq <> 1 OR e.last <> e.n
	OR NOT coalesce(s.first_event_at <= e.oldest AND s.last_event_at >= e.newest, e.n IS NULL)
SQL
}

# How many events a table of a store holds.
sub events_in
{
	my ($node, $db, $table, $schema) = @_;
	my $in = quote_name($schema // 'public');
	return value($node, $db, "SELECT count(*) FROM $in.$table");
}

# The union is what it was, and there is something in it; and no stream is broken.
sub same_union
{
	my ($node, $db, $before, $name, $schema) = @_;
	my $after = union_state($node, $db, $schema);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return subtest $name => sub {
		like($before, qr/^([1-9]\d*) \1 /, 'there were events, each once');
		is($after, $before, 'same events');
		is(broken_streams($node, $db, $schema), '0', 'streams are whole');
	};
}

# Run something that moves so many events out of hot, or into it, and see that the union stays.
sub moved_whole
{
	my ($node, $db, $moved, $name, $code, $schema) = @_;
	my $before = union_state($node, $db, $schema);
	my $hot = events_in($node, $db, 'events_hot', $schema);
	$code->();
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($hot - events_in($node, $db, 'events_hot', $schema), $moved, "$name: $moved events left hot");
	return same_union($node, $db, $before, "$name: nothing lost", $schema);
}

# The SQLSTATE that a statement ends with, 00000 for none; also its messages, in list context.
sub sqlstate_of
{
	my ($node, $db, $sql, %params) = @_;
	my ($status, $stdout, $stderr) = $node->psql($db, "\\set VERBOSITY verbose\n\\set ON_ERROR_STOP 1\n$sql", %params);
	my ($state) = $stderr =~ /^(?:psql:\S+ )?(?:ERROR|FATAL):\s+([0-9A-Z]{5}):/m;
	$state //= $status == 0 ? '00000' : "psql exited with $status";
	return wantarray ? ($state, $stderr) : $state;
}

# Run a client program against a server; its exit status, output and error output.
sub program
{
	my ($node, @command) = @_;
	local $ENV{PGHOST} = $node->host;
	local $ENV{PGPORT} = $node->port;
	print("# Running: " . join(' ', @command) . "\n");
	my ($out, $err) = ('', '');
	IPC::Run::run(\@command, '<', \undef, '>', \$out, '2>', \$err);
	return ($? >> 8 || $?, $out, $err);
}

# The definition of a database as pg_dump writes it, without what is made up for each run.
sub schema_of
{
	my ($node, $db, @options) = @_;
	my ($status, $dump, $err) = program($node, 'pg_dump', '--schema-only', @options, $db);
	die "pg_dump of $db: $err" if $status != 0 || $err ne '';
	return $dump =~ s/^\\(?:un)?restrict .*\n//gmr;
}

# A session that stays open, so that it has caches: connect to a database of a node, or by a connection string.
sub session
{
	my ($node, $db) = @_;
	my $self = bless { in => '', out => '', err => '', asked => 0 }, 'RillflowDump::Session';
	my $to = ref $node ? $node->connstr($db) : $node;
	$self->{psql} = IPC::Run::start(
		[ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $to ],
		'<', \$self->{in}, '>', \$self->{out}, '2>', \$self->{err}, $self->{timer} = IPC::Run::timeout(300));
	return $self;
}

package RillflowDump::Session;

# Send statements without waiting for what they give.
sub tell
{
	my ($self, $sql) = @_;
	$self->{asked}++;
	$self->{in} .= "$sql\n;\n\\echo asked $self->{asked}\n\\warn asked $self->{asked}\n";
	$self->{psql}->pump_nb;
	return;
}

# What the statements gave that were sent last; what went wrong is in error() then.
sub hear
{
	my ($self) = @_;
	my $mark = qr/^asked $self->{asked}\n/m;
	$self->{psql}->pump until $self->{out} =~ $mark && $self->{err} =~ $mark;
	my $result = $self->{out} =~ s/^asked .*\n//gmr;
	$self->{error} = $self->{err} =~ s/^asked .*\n//gmr;
	$self->{out} = $self->{err} = '';
	chomp $result;
	return $result;
}

sub ask
{
	my ($self, $sql) = @_;
	$self->tell($sql);
	return $self->hear;
}

sub error
{
	my ($self) = @_;
	return $self->{error};
}

sub leave
{
	my ($self) = @_;
	$self->{in} .= "\\q\n";
	return $self->{psql}->finish;
}

1;
