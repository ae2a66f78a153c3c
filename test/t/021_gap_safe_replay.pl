# Clients append in transactions of random length, commit them in any order, prepare or undo them, while pollers that
# remember nothing but the highest global_seq they got follow. Each of them gets each event once, in order.
use strict;
use warnings FATAL => 'all';
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowCluster;
use Test::More;

my $clients = 6;
my $transactions = 200;
my @pollers = ('read committed', 'repeatable read', 'planned', 'by type');

my $node = new_store('main', 'max_connections = 40', 'max_prepared_transactions = 10');
sub ask { return $node->safe_psql('postgres', $_[0]); }

ask(<<'SQL');
SELECT rf_create_partition(tier, '2024-01-01') FROM unnest(ARRAY['hot', 'cold']) AS tier;
SELECT FROM rf_archive_set_redirect(true);
SELECT FROM rf_archive_mark(md5('archived')::uuid);
CREATE TABLE got (n bigint GENERATED ALWAYS AS IDENTITY, poller text, global_seq bigint, content text);
CREATE INDEX ON got (poller, global_seq);
CREATE SEQUENCE stopped;
CREATE FUNCTION content(event jsonb) RETURNS text IMMUTABLE LANGUAGE sql AS
$$ SELECT (event - 'retention_class' - 'bucket_month')::text $$;

-- Polls until there is nothing more to come. What it was told counts, not what is committed.
CREATE PROCEDURE follow(who text, types text[]) LANGUAGE plpgsql AS $$
DECLARE
	here bigint := 0;
	reached bigint;
	stopping boolean := false;
	last boolean;
BEGIN
	LOOP
		COMMIT;
		-- a sequence shows what it is now, though the snapshot may be older
		last := stopping;
		stopping := (SELECT is_called FROM stopped);
		WITH batch AS (SELECT * FROM rf_read_all(here, 50, types, true)),
			kept AS (INSERT INTO got (poller, global_seq, content)
				SELECT who, global_seq, content(to_jsonb(b)) FROM batch AS b RETURNING global_seq)
		SELECT max(global_seq) INTO reached FROM kept;
		EXIT WHEN last AND reached IS NULL;
		here := coalesce(reached, here);
	END LOOP;
END $$;

CREATE ROLE follower LOGIN;
GRANT USAGE ON SCHEMA public TO follower;
GRANT SELECT ON events, events_archive, events_all, stopped TO follower;
GRANT INSERT, SELECT ON got TO follower;
ALTER TABLE events ENABLE ROW LEVEL SECURITY;
CREATE POLICY every_row ON events TO follower USING (true);
SQL

# ---- clients

my $wait = "\\set us random(0, 12000)\n\\sleep :us us\n";
my $numbers = "\\set a random(1, 200)\n\\set b random(1, 200)\n";
my $raw = "INSERT INTO events (stream_id, event_type, body) VALUES (md5('stream ' || :client_id || ' ' || :b)::uuid, 'raw', to_jsonb(:b));\n";
my $append = "SELECT FROM rf_append(md5('stream ' || :client_id || ' ' || :a)::uuid, 'append', to_jsonb(:a));\n";
my %scripts = (
	append => "BEGIN;\n$append${wait}COMMIT;\n",
	raw => "BEGIN;\n$raw${wait}$append${wait}COMMIT;\n",
	quick => $append,
	batch => "BEGIN;\nSELECT FROM rf_append_batch(md5('stream ' || :client_id || ' ' || :a)::uuid,"
	  . " (SELECT jsonb_agg(jsonb_build_object('type', 'batch', 'body', n)) FROM generate_series(1, 5) AS n));\n${wait}COMMIT;\n",
	undone => "BEGIN;\n$append${wait}ROLLBACK;\n",
	partly => "BEGIN;\nSAVEPOINT s;\n$append${wait}ROLLBACK TO s;\n${wait}$raw${wait}SAVEPOINT s;\n${append}RELEASE s;\n${wait}COMMIT;\n",
	prepared => "BEGIN;\n$raw${wait}PREPARE TRANSACTION 'p:client_id';\n${wait}COMMIT PREPARED 'p:client_id';\n",
	cold => "BEGIN;\nINSERT INTO events (stream_id, event_type, body)"
	  . " VALUES (md5('archived')::uuid, 'cold', to_jsonb(:client_id));\n${wait}COMMIT;\n");
my $dir = PostgreSQL::Test::Utils::tempdir();
my @files;
foreach my $name (sort keys %scripts)
{
	append_to_file("$dir/$name", $numbers . $scripts{$name});
	push @files, '-f', "$dir/$name";
}

my @sessions;
foreach my $poller (@pollers)
{
	my $isolation = $poller eq 'repeatable read' ? $poller : 'read committed';
	my $types = $poller eq 'by type' ? "ARRAY['append', 'raw', 'batch', 'cold']" : 'NULL';
	my $role = $poller eq 'planned' ? "SET ROLE follower;\n" : '';

	push @sessions, start_psql($node,
		"SET default_transaction_isolation TO '$isolation';\n${role}CALL follow('$poller', $types);\n", $poller);
}
my ($out, $err) = ('', '');
my $status = IPC::Run::run(
	[
		'pgbench', '-n', '-M', 'simple', '-c', $clients, '-j', 2, '-t', $transactions, '--random-seed=4',
		@files, $node->connstr('postgres')
	],
	'>', \$out, '2>', \$err);
ok($status, 'clients have appended') or diag($err);
ask("SELECT nextval('stopped')");

# ---- what the pollers got

my ($events, $sum, $cold) = split /\|/,
  ask("SELECT count(*), sum(hashtextextended(content(to_jsonb(e)), 0)), count(*) FILTER (WHERE retention_class = 'cold') FROM events_all AS e");
cmp_ok($events, '>', $clients * $transactions / 2, "$events events are there");
cmp_ok($cold, '>', 0, "$cold of them cold");
cmp_ok(ask('SELECT max(global_seq) - count(*) FROM events_all'), '>', 0, 'some numbers were drawn in vain');
foreach my $i (0 .. $#pollers)
{
	my ($exit, undef, $messages) = finish_psql($sessions[$i]);

	is($exit, 0, "$pollers[$i]: the poller has come to the end") or diag($messages);
	is(ask("SELECT count(*), sum(hashtextextended(content, 0)) FROM got WHERE poller = '$pollers[$i]'"),
		"$events|$sum", "$pollers[$i]: it got each event");
	is(ask("SELECT count(*) FROM (SELECT global_seq <= lag(global_seq) OVER (ORDER BY n) AS wrong FROM got WHERE poller = '$pollers[$i]') AS g WHERE wrong"),
		0, "$pollers[$i]: in order, and once");
}
# ---- a prepared transaction holds replays back, also after a crash

my $here = ask('SELECT max(global_seq) FROM events_all');
ask("BEGIN; SELECT FROM rf_append(md5('stream 0 1')::uuid, 'prepared', '1'); PREPARE TRANSACTION 'open'");
ask("SELECT FROM rf_append(md5('stream 0 2')::uuid, 'later', '1')");
my $poll = "SELECT string_agg(event_type, ' ') FROM rf_read_all($here)";
is(ask($poll), '', 'the later event has to wait');
$node->stop('immediate');
$node->start;
is(ask($poll), '', 'also after a crash');
is(ask("SELECT count(*) FROM pg_locks WHERE locktype = 'userlock' AND classid = 'events_global_seq_seq'::regclass AND pid IS NULL"),
	1, 'pg_locks shows for what');
ask("COMMIT PREPARED 'open'");
is(ask($poll), 'prepared later', 'both come in order');
is(violations($node), '', 'the store is sound');

$node->stop;
done_testing();
