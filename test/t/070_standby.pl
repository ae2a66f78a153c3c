# On a standby, and in read-only transactions: every function of the extension is called. Readers show what the
# primary shows at the same place of the WAL, writers say 25006 and change nothing. After a promotion all goes on.
use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowDump;
use Test::More;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', <<'CONF');
timezone = 'UTC'
shared_buffers = '32MB'
max_standby_streaming_delay = -1
CONF
$primary->start;
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

sub on_primary { return value($primary, 'postgres', $_[0]); }

sub catch_up
{
	$primary->wait_for_catchup($standby);
	return;
}

my $streams = 10;
my $each = 30;
on_primary(<<SQL);
CREATE EXTENSION rillflow;
SELECT count(*) FROM generate_series(1, $each) AS n, generate_series(1, $streams) AS s,
	rf_append(md5('stream ' || s)::uuid, 'type ' || n % 2, jsonb_build_object('n', n),
		headers => jsonb_build_object('idempotency_key', 'key ' || s || ' ' || n),
		created_at => timestamptz '2024-01-05 00:00+00' + n * interval '9 days');
SELECT rf_archive_mark(md5('stream 1')::uuid);
SELECT rf_archive_move('2024-05-01 00:00+00');
SELECT rf_archive_set_redirect(true);
SELECT rf_policy_set('old events', older_than => '90 days');
VACUUM ANALYZE;
SQL
catch_up();

# ---- every function there is

my $one = "md5('stream 1')::uuid";
my $two = "md5('stream 2')::uuid";
my %readers = (
	rf_read_stream => [
		"SELECT * FROM rf_read_stream($one)",
		"SELECT * FROM rf_read_stream($one, include_archived => true)",
		"SELECT * FROM rf_read_stream($two, 3, 20)",
		"SELECT * FROM rf_read_stream($two, backward => true, max_events => 4)"
	],
	rf_read_all => [
		'SELECT * FROM rf_read_all()',
		'SELECT * FROM rf_read_all(10, 100, include_archived => true)',
		"SELECT * FROM rf_read_all(0, 1000, ARRAY['type 1'], true)"
	],
	rf_archive_plan => [ "SELECT * FROM rf_archive_plan('infinity')", "SELECT * FROM rf_archive_plan('2024-06-10', $two)" ],
	rf_archive_candidates => ["SELECT * FROM rf_archive_candidates('2024-06-10', 5)"],
	rf_archive_status => [
		'SELECT schema, tenant, backend, redirect_enabled, hot_streams, cold_streams, hot_bytes, cold_bytes, default_events, oldest_hot'
		  . ' FROM rf_archive_status()',
		"SELECT schema, hot_streams FROM rf_archive_status('*')"
	],
	rf_partitions => [
		'SELECT partition, retention, from_month, to_month, bytes, tablespace FROM rf_partitions()',
		'SELECT partition, events FROM rf_partitions() WHERE from_month IS NULL'
	],
	rf_policy_due => ["SELECT * FROM rf_policy_due('2026-01-01 00:00+00')"],
	rf_tenants => ['SELECT count(*) FROM rf_tenants()'],
	rf_metrics => [
		"SELECT name, labels, value FROM rf_metrics() WHERE type <> 'gauge'",
		"SELECT name, labels, value FROM rf_metrics(NULL) WHERE name ~ 'streams|ahead|consumer_lag'"
	],
	rf_metrics_text => ["SELECT line FROM regexp_split_to_table(rf_metrics_text(), '\n') AS line WHERE line ~ 'streams|_total'"],
	rf_worker_list => ['SELECT schema, policy, state, detail FROM rf_worker_status'],
	rf_archive_redirect_enabled => ['SELECT rf_archive_redirect_enabled()'],
	rf_archive_move => [
		"SELECT * FROM rf_archive_move('2024-06-10', dry_run => true)",
		"SELECT * FROM rf_archive_move('infinity', 7, only_archived => true, dry_run => true)"
	]);
my %writers = (
	rf_install => [ "SELECT rf_install('public')", "SELECT rf_install('information_schema')" ],
	rf_create_tenant => ["SELECT rf_create_tenant('new')"],
	rf_drop_tenant => ["SELECT rf_drop_tenant('nobody', 'nobody', true)"],
	rf_set_owner => ['SELECT rf_set_owner(current_user)'],
	rf_upgrade_store => ['SELECT rf_upgrade_store()'],
	rf_enable_rls => ['SELECT rf_enable_rls()'],
	rf_disable_rls => ['SELECT rf_disable_rls()'],
	rf_uninstall => ["SELECT rf_uninstall('public', 'public', true)"],
	rf_append => [
		"SELECT rf_append($two, 't', '{}')",
		"SELECT rf_append($one, 't', '{}', allow_archived => true)",
		"SELECT rf_append(md5('new')::uuid, 't', '{}')",
		"SELECT rf_append(md5('stream 3')::uuid, 't', '{}', '{\"idempotency_key\": \"key 3 5\"}')"
	],
	rf_append_batch => ["SELECT rf_append_batch($two, '[{\"type\": \"t\", \"body\": {}}]')"],
	rf_prune_keys => [ "SELECT rf_prune_keys('infinity')", "SELECT rf_prune_keys('-infinity')" ],
	rf_prune_log => [ "SELECT rf_prune_log('infinity')", "SELECT rf_prune_log('-infinity')" ],
	rf_redact => [ "SELECT rf_redact($two, reason => 'r')", "SELECT rf_redact($one, 1, 'r')" ],
	rf_hold => [ "SELECT rf_hold($two, 'r')", "SELECT rf_hold(reason => 'r')" ],
	rf_release => [ "SELECT rf_release($two)", 'SELECT rf_release()' ],
	rf_archive_mark => [ "SELECT rf_archive_mark($two)", "SELECT rf_archive_mark(md5('new')::uuid)" ],
	rf_archive_reactivate => [ "SELECT rf_archive_reactivate($one)", "SELECT rf_archive_reactivate($one, false)" ],
	rf_archive_move => [
		"SELECT rf_archive_move('infinity')", "SELECT rf_archive_move('-infinity')",
		"SELECT rf_archive_move('infinity', stream_id => $two)"
	],
	rf_archive_run => [ "CALL rf_archive_run('infinity')", "CALL rf_archive_run('-infinity')" ],
	rf_consumer_advance => [ "SELECT rf_consumer_advance('new', 1)", "SELECT rf_consumer_advance('new', 0)" ],
	rf_consumer_remove => ["SELECT rf_consumer_remove('nobody')"],
	rf_policy_set => ["SELECT rf_policy_set('new', '1 day')"],
	rf_policy_remove => ["SELECT rf_policy_remove('old events')"],
	rf_policy_pause => ["SELECT rf_policy_pause('old events')"],
	rf_policy_resume => ["SELECT rf_policy_resume('old events')"],
	rf_policy_run => ["SELECT rf_policy_run('old events')"],
	rf_policy_arm => [ 'SELECT rf_policy_arm()', "SELECT rf_policy_arm('*')" ],
	rf_worker_start => ['SELECT rf_worker_start()'],
	rf_archive_set_redirect => [ 'SELECT rf_archive_set_redirect(false)', 'SELECT rf_archive_set_redirect(true)' ],
	rf_archive_set_include_archived => ['SELECT rf_archive_set_include_archived(true)'],
	rf_archive_set_notify => ['SELECT rf_archive_set_notify(true)'],
	rf_archive_set_backend => [ "SELECT rf_archive_set_backend('partitioned')", "SELECT rf_archive_set_backend('dual_table')" ],
	rf_create_partition => [ "SELECT rf_create_partition('hot', '2023-01-01')", "SELECT rf_create_partition('cold', '2024-02-01')" ],
	rf_drop_partition => [ "SELECT rf_drop_partition('hot', '2024-06-01', true)", "SELECT rf_drop_partition('hot', '2023-01-01')" ],
	rf_drain_default => ['SELECT rf_drain_default()'],
	rf_flip_partition => [ "SELECT rf_flip_partition('2024-06-01', 'cold')", "SELECT rf_flip_partition('2023-01-01', 'hot')" ],
	rf_adopt => [ "CALL rf_adopt('pg_class')", "CALL rf_adopt('events')" ],
	rf_flatten => ['SELECT rf_flatten()']);

my $triggers = 'rf_adopt_changed rf_config_changed rf_events_append_only rf_events_close rf_events_open rf_events_redirect_archived rf_policies_changed';
my %all = map { $_ => 1 } keys %readers, keys %writers;
is( on_primary("SELECT string_agg(DISTINCT proname, ' ' ORDER BY proname) FROM pg_proc JOIN pg_depend ON objid = pg_proc.oid"
		. " AND classid = 'pg_proc'::regclass AND deptype = 'e'"
		. " JOIN pg_extension AS x ON x.oid = refobjid AND extname = 'rillflow' WHERE prorettype <> 'trigger'::regtype AND proname <> 'rf_wait_point'"),
	join(' ', sort keys %all), 'every function of the extension is called here');
is( on_primary("SELECT string_agg(DISTINCT proname, ' ' ORDER BY proname) FROM pg_proc WHERE proname LIKE 'rf%' AND prorettype = 'trigger'::regtype"),
	$triggers, 'but for those of triggers');

foreach my $function (sort keys %readers)
{
	foreach my $sql (@{ $readers{$function} })
	{
		my $expected = on_primary($sql);
		like($expected, qr/./, "primary: $sql gives something") unless $sql =~ /rf_read_stream\($one\)$/;
		is(value($standby, 'postgres', $sql), $expected, "standby: $sql gives the same");
	}
}
is( value($standby, 'postgres', 'SELECT hot_events, cold_events FROM rf_archive_status()'),
	on_primary('SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM events_archive)'),
	'the status on the standby knows the events of the last ANALYZE');

my $raw = "INSERT INTO events (stream_id, event_type, body) VALUES ($two, 't', '{}')";
foreach my $function (sort keys %writers)
{
	is(sqlstate_of($standby, 'postgres', $_), '25006', "standby: $_ says 25006") foreach @{ $writers{$function} };
}
is(sqlstate_of($standby, 'postgres', $raw), '25006', 'standby: a raw INSERT says 25006');

# ---- read-only transactions on the primary

my $before = table_states($primary, 'postgres');
like($before, qr/events_archive.*\|[1-9]/, 'there is something to change');
is(table_states($standby, 'postgres'), $before, 'the standby has the same rows');
foreach my $function (sort keys %writers)
{
	is(sqlstate_of($primary, 'postgres', "SET default_transaction_read_only = on;\n$_"), '25006', "read only: $_ says 25006")
	  foreach @{ $writers{$function} };
}
is(sqlstate_of($primary, 'postgres', "SET default_transaction_read_only = on;\n$raw"), '25006', 'read only: a raw INSERT says 25006');
foreach my $sql (map { @{ $readers{$_} } } sort keys %readers)
{
	my $expected = on_primary($sql);
	is(on_primary("SET default_transaction_read_only = on;\n$sql"), $expected, "read only: $sql works");
}
is(table_states($primary, 'postgres'), $before, 'nothing was changed by what was refused');
is(on_primary("SET default_transaction_read_only = on; BEGIN READ WRITE; SELECT stream_seq FROM rf_append($two, 't', '{}'); COMMIT"),
	$each + 1, 'a transaction that says READ WRITE writes');

# ---- switches reach sessions that are open on the standby

my $open = session($standby, 'postgres');
is($open->ask('SELECT rf_archive_redirect_enabled()'), 't', 'a session of the standby');
my $hot_of_one = on_primary("SELECT count(*) FROM events WHERE stream_id = $one");
is($open->ask("SELECT count(*) FROM rf_read_stream($one)"), $hot_of_one, 'which does not see archived events');
on_primary('SELECT rf_archive_set_redirect(false); SELECT rf_archive_set_include_archived(true)');
catch_up();
is($open->ask('SELECT rf_archive_redirect_enabled()'), 'f', 'is told of a switch');
is($open->ask("SELECT count(*) FROM rf_read_stream($one)"), $each, 'and of the other');
on_primary('UPDATE rf_archive_config SET include_archived_by_default = false');
catch_up();
is($open->ask("SELECT count(*) FROM rf_read_stream($one)"), $hot_of_one, 'and of a plain UPDATE');
is($open->error, '', 'without an error');

# ---- reads at every place of the WAL while a move is replayed

my $total = on_primary('SELECT count(*) FROM events_all');
my $whole = union_state($primary, 'postgres');
my $hot = on_primary('SELECT count(*) FROM events');
my $mover = session($primary, 'postgres');
$mover->tell("CALL rf_archive_run('infinity', 5); SELECT rf_archive_move('infinity')");
my (%seen, %wrong);
my $deadline = time() + 60;
while (time() < $deadline)
{
	my ($cold, $hot, $all) = split /\|/, $open->ask(<<SQL);
SELECT count(*) FILTER (WHERE retention_class = 'cold'), count(*) FILTER (WHERE retention_class = 'hot'), count(DISTINCT global_seq)
  FROM rf_read_all(0, 100000, include_archived => true)
SQL
	die $open->error unless defined $all;
	$seen{$cold}++;
	$wrong{"$cold + $hot, $all different"}++ if $cold + $hot != $total || $all != $total;
	last if $cold == $total;
}
$mover->hear;
unlike($mover->error, qr/ERROR/, 'the move ends well');
is(join(', ', sort keys %wrong), '', 'the standby shows each event once, always');
cmp_ok(scalar(keys %seen), '>', 2, 'at several stages of the move');
cmp_ok($hot, '>', 100, 'which was a long one');
catch_up();
same_union($standby, 'postgres', $whole, 'nothing lost on the standby');
is(value($standby, 'postgres', 'SELECT hot_streams, cold_streams FROM rf_archive_status()'), "0|$streams", 'the status of the standby knows');
$_->leave foreach $open, $mover;

# ---- promotion

my ($highest) = on_primary('SELECT max(global_seq) FROM events_all');
$primary->stop('immediate');
$standby->promote;
is(value($standby, 'postgres', "SELECT stream_seq, global_seq > $highest FROM rf_append($two, 'promoted', '{}')"),
	($each + 2) . '|t', 'promoted: appends go on');
moved_whole($standby, 'postgres', 1, 'promoted: move', sub { value($standby, 'postgres', "CALL rf_archive_run('infinity')"); });
moved_whole($standby, 'postgres', -$each, 'promoted: reactivate', sub { value($standby, 'postgres', "SELECT rf_archive_reactivate($one)"); });
$standby->stop;
unlike(slurp_file($standby->logfile), qr/TRAP:|PANIC:|terminated by signal/, 'the standby never crashed');

done_testing();
