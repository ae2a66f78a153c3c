# PostgreSQL, both exporters of Debian and Prometheus, with the files of monitoring/ and the role of the README: what
# is done arrives by exact amounts, every sample is that of rf_metrics(), each query of the dashboard and each rule
# runs, and the role sees no event.
use strict;
use warnings FATAL => 'all';
use IPC::Run ();
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowCluster;
use RillflowMonitoring;
use RillflowWorker;
use Test::More;
use Time::HiRes qw(time usleep);

my @missing = missing_programs(qw(prometheus promtool prometheus-postgres-exporter));
plan skip_all => "not installed: @missing" if @missing;

# ---- what needs no server

# Goes on while the rest does.
my $rule_tests = IPC::Run::start([ 'promtool', 'test', 'rules', monitoring('alerts_test.yml') ],
	'<', \undef, '>', \my $rule_tests_out, '2>', \my $rule_tests_err);

# promtool(input, argument...): is it content? And what it says.
sub promtool
{
	my ($input, @arguments) = @_;
	my $out;
	my $content = IPC::Run::run([ 'promtool', @arguments ], '<', \$input, '>', \$out, '2>&1');
	return ($content, $out);
}

foreach ([ 'rules', 'alerts.yml' ], [ 'config', 'prometheus.yml' ])
{
	my ($what, $file) = @$_;
	my ($content, $said) = promtool('', 'check', $what, monitoring($file));
	ok($content, "promtool accepts $file") or diag $said;
}

my %anchors = map { lc(s/[^\w\- ]//gr) =~ s/ /-/gr => 1 } slurp_file(monitoring('../README.md')) =~ /^#+ (.*)$/mg;
my @runbooks = slurp_file(monitoring('alerts.yml')) =~ /^ *runbook: README\.md#(.*)$/mg;
my @alerts = slurp_file(monitoring('alerts.yml')) =~ /^ *- alert: (\w+)$/mg;
is(join(' ', grep { !$anchors{$_} } @runbooks), '', 'the runbook of each alert is a section of the README');
is(scalar @runbooks, scalar @alerts, 'each alert has one');
foreach my $alert (@alerts)
{
	my @cases = slurp_file(monitoring('alerts_test.yml')) =~ /alertname: $alert\n *exp_alerts:(.*)/g;
	cmp_ok(scalar(grep { /\[\]/ } @cases), '>', 0, "$alert has a test in which it must not fire");
	cmp_ok(scalar(grep { !/\S/ } @cases), '>', 0, "$alert has a test in which it must");
}

# ---- a server with a store, one of a tenant with a difficult name, and one that nobody has granted

my $name = qq(A "b" \\ c\\n {d="e"},\nf);
my $node = new_store('main', preloaded('autovacuum = off', "rillflow.worker = off"));

sub run_sql { return $node->safe_psql('postgres', $_[0]); }

# as_monitor(SQL): by the role that scrapes.
sub as_monitor
{
	my ($sql) = @_;
	my ($status, $out, $err) = $node->psql('postgres', $sql, extra_params => [ '-U', 'monitor' ]);
	return $status == 0 ? $out : $err;
}

run_sql("SELECT rf_create_tenant(\$name\$$name\$name\$)");
my $schema = run_sql("SELECT schema FROM rf_stores WHERE tenant = \$name\$$name\$name\$");
run_sql(readme_block('CREATE ROLE monitor LOGIN'));
run_sql("SELECT rf_create_tenant('hidden')");
foreach my $query ('SELECT body FROM events', 'SELECT body FROM events_all', 'SELECT body FROM events_hot_default',
	'SELECT body FROM events_archive', 'SELECT * FROM rf_event_keys', 'SELECT * FROM rf_read_all()',
	"SELECT * FROM $schema.events", 'SELECT * FROM rf_archive_plan(now())', 'SELECT rf_policy_set($$x$$, $$1 day$$)',
	"UPDATE rf_archive_config SET notify_enabled = true")
{
	like(as_monitor($query), qr/permission denied|must be owner/, "the role that scrapes is refused: $query");
}

my ($exporter, $exporter_log) = start_postgres_exporter($node, 'monitor');
my $sql_exporter = missing_programs('prometheus-sql-exporter') ? undef : (start_sql_exporter($node, 'monitor'))[0];
my $prometheus = start_prometheus($exporter, $sql_exporter);
my %jobs = ('rillflow' => 'prometheus-postgres-exporter', $sql_exporter ? ('rillflow-sql' => 'prometheus-sql-exporter') : ());

# await(code): until it returns something true, or so long that what is missing won't come; did it come?
sub await
{
	my ($code) = @_;
	my $limit = time() + 40;

	my $come;

	usleep(100_000) until ($come = $code->()) || time() > $limit;
	return $come;
}

# arrives(metric, selector, value, name, tolerance): through each exporter, Prometheus comes to know that value.
sub arrives
{
	my ($metric, $selector, $value, $test, $tolerance) = @_;
	foreach my $job (sort keys %jobs)
	{
		my $expression = "$metric\{job=\"$job\", $selector}";
		my $seen;
		ok(await(sub { $seen = ask_value($prometheus, $expression); return defined $seen && abs($seen - $value) <= ($tolerance // 0); }),
			"$test, by $jobs{$job}")
		  or diag "$expression is " . ($seen // 'not there') . ", expected: $value";
	}
	return;
}

# ---- the guide's metrics, by exact amounts

my $main = 'schema="public"';
my @counters = (
	[ 'archive_streams_marked_total' ], [ 'archive_streams_reactivated_total' ],
	[ 'archive_events_moved_total', 'method="rows"' ], [ 'archive_events_moved_total', 'method="flip"' ],
	[ 'archive_move_batches_total' ], [ 'archive_move_duration_seconds_count' ], [ 'archive_flip_duration_seconds_count' ],
	[ 'archive_events_redirected_total' ]);

# counted(step, marked, reactivated, rows, flip, batches, flips, redirected): in the store of that selector.
sub counted
{
	my ($step, $store, $marked, $reactivated, $rows, $flip, $batches, $flips, $redirected) = @_;
	my @values = ($marked, $reactivated, $rows, $flip, $batches, $batches, $flips, $redirected);
	foreach my $n (0 .. $#counters)
	{
		my ($metric, $label) = @{ $counters[$n] };
		arrives($metric, join(', ', $store, $label // ()), $values[$n], "$step: $metric " . ($label // ''));
	}
	return;
}

sub hot_bytes
{
	return run_sql("SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('events_hot') WHERE isleaf");
}

counted('a new store', $main, (0) x 7);
arrives('archive_events_hot_bytes', $main, my $empty = hot_bytes(), 'a new store: hot bytes');

run_sql(<<'SQL');
INSERT INTO events (stream_id, event_type, body)
	SELECT md5('stream ' || s)::uuid, 'now', '{}' FROM generate_series(1, 4) AS s, generate_series(1, 10) AS n;
SELECT rf_create_partition('hot', '2024-01-01');
INSERT INTO events (stream_id, event_type, body, created_at, bucket_month)
	SELECT md5('stream ' || s)::uuid, 'then', '{}', '2024-01-15 12:00+00', '2024-01-01'
	FROM generate_series(11, 17) AS s, generate_series(1, 9) AS n;
SQL
# In a session of its own: what the one before has still to report of its rows would count twice.
run_sql('ANALYZE');
arrives('archive_events_hot_bytes', $main, my $full = hot_bytes(), 'events: hot bytes');
cmp_ok($full, '>', $empty, 'events: they take space');

run_sql("SELECT rf_archive_mark(md5('stream ' || s)::uuid) FROM generate_series(1, 3) AS s");
counted('three marks', $main, 3, 0, 0, 0, 0, 0, 0);

run_sql('SELECT rf_archive_move(now() + interval $$1 day$$, batch_size => 7, only_archived => true)');
counted('a move of 30 events in batches of 7', $main, 3, 0, 30, 0, 5, 0, 0);

run_sql("SELECT rf_archive_reactivate(md5('stream 1')::uuid)");
counted('a reactivation', $main, 3, 1, 30, 0, 5, 0, 0);

run_sql("SELECT rf_flip_partition('2024-01-01', 'cold')");
counted('a flip of 63 events', $main, 3, 1, 30, 63, 5, 1, 0);
arrives('archive_events_hot_bytes', $main, my $less = hot_bytes(), 'a flip: hot bytes');
cmp_ok($less, '<', $full, 'a flip: the hot tier is smaller');

run_sql(<<'SQL');
SELECT rf_archive_set_redirect(true);
INSERT INTO events (stream_id, event_type, body) SELECT md5('stream 2')::uuid, 'late', '{}' FROM generate_series(1, 4);
SQL
counted('four redirected events', $main, 3, 1, 30, 63, 5, 1, 4);

# The sum of what batches took is in the ledger, too.
my $took = run_sql("SELECT extract(epoch FROM sum(duration))::float8 FROM rf_archive_log WHERE action = 'batch'");
arrives('archive_move_duration_seconds_sum', $main, $took, 'the duration of batches is that of the ledger', 1e-6);

# ---- the tenant's store, and one that is not to be read

my $in_promql = encode_json([$name]) =~ s/^\[|\]$//gr;
run_sql("SELECT rf_archive_mark(md5('stream ' || s)::uuid, tenant => \$name\$$name\$name\$) FROM generate_series(1, 2) AS s");
counted('marks in the store of the tenant', "tenant=$in_promql", 2, (0) x 6);
arrives('archive_stores_readable', '', 2, 'two stores are read');
arrives('archive_stores_unreadable', '', 1, 'one is counted as not readable');
is(scalar ask($prometheus, '{schema="tenant_hidden"}'), 0, 'and nothing of it is told');

# ---- policies, consumers, default partitions: data for the dashboard

run_sql(<<"SQL");
SELECT rf_consumer_advance('orders', 10);
SELECT rf_policy_set('p "q" \\ r', '30 days', '1 second');
SELECT rf_policy_set('other', '30 days', tenant => \$name\$$name\$name\$);
SELECT rf_policy_pause('other', tenant => \$name\$$name\$name\$);
INSERT INTO events (stream_id, event_type, body, created_at, bucket_month)
	SELECT md5('stream 21')::uuid, 'stray', '{}', '2023-01-15 12:00+00', '2023-01-01' FROM generate_series(1, 8);
ALTER SYSTEM SET rillflow.worker = on;
SELECT pg_reload_conf();
SQL
wait_until('the policy has run', sub { return runs($node, 'postgres', 'count(*)', 'finished_at IS NOT NULL AND error IS NULL') > 0; });
run_sql(<<'SQL');
ALTER SYSTEM SET rillflow.worker = off;
SELECT pg_reload_conf();
SQL
wait_until('no worker runs', sub { return !processes($node, 'worker'); });

# ---- every sample is one of rf_metrics()

# What can't be the same at two times, and by how much it may differ.
my %moving = (archive_scrape_duration_seconds => 10, archive_policy_oldest_hot_age_seconds => 300);

sub expected_samples
{
	my $rows = decode_json(as_monitor("SELECT jsonb_agg(jsonb_build_object('name', name, 'labels', labels, 'value', value)) FROM rf_metrics()"));
	return { map { sample_key($_->{name}, $_->{labels}) => $_->{value} } @$rows };
}

# seen_samples(job): what Prometheus has of it now.
sub seen_samples
{
	my ($job) = @_;
	my %samples;
	foreach my $series (ask($prometheus, "{job=\"$job\", __name__=~\"archive_.*\"}"))
	{
		my %label = %{ $series->{metric} };
		my $metric = delete $label{__name__};
		delete @label{qw(job instance server database host)};
		$samples{ sample_key($metric, \%label) } = $series->{value}[1];
	}
	return \%samples;
}

# differences(expected, seen): a line each.
sub differences
{
	my ($expected, $seen) = @_;
	my %keys = map { $_ => 1 } keys %$expected, keys %$seen;
	my @lines;
	foreach my $key (sort keys %keys)
	{
		my ($here, $there) = ($expected->{$key}, $seen->{$key});
		my ($metric) = split /\0/, $key;
		next if defined $here && defined $there && $there !~ /NaN/ && abs($here - $there) <= ($moving{$metric} // 0);
		push @lines, ($key =~ s/\0/ /gr) . ': ' . ($here // 'none') . ', seen: ' . ($there // 'none');
	}
	return join("\n", @lines);
}

foreach my $job (sort keys %jobs)
{
	my $differences;
	await(sub { $differences = differences(expected_samples(), seen_samples($job)); return $differences eq ''; });
	is($differences, '', "each sample is that of rf_metrics(), and there is no other, by $jobs{$job}");
}

my $text = fetch("http://$exporter/metrics");
my $errors = samples_of($text);
is(join(' ', map { "$errors->{$_}" } grep { /^pg_exporter_user_queries_load_error/ } keys %$errors), '0', 'the exporter could read its queries');
is($errors->{pg_exporter_last_scrape_error}, 0, 'and run them');
# Later versions miss a file that they can do without, and have collectors of their own, for which the role has no right.
is(join("\n", grep { /level=error|err=/i && !/Error loading config|collector failed/ } split /\n/, slurp_file($exporter_log)), '', 'its log has no error');
is(join("\n", sort grep { / archive_/ } split /\n/, $text =~ s/^(?!# TYPE).*\n//mgr),
	as_monitor(q(SELECT DISTINCT '# TYPE ' || CASE WHEN type = 'histogram' THEN regexp_replace(name, '_(bucket|sum|count)$', '') ELSE name END
		|| ' ' || type FROM rf_metrics() ORDER BY 1)), 'it tells the types that rf_metrics() tells');

my $exposed = as_monitor('SELECT rf_metrics_text()');
my ($content, $said) = promtool("$exposed\n", 'check', 'metrics');
ok($content, 'promtool accepts rf_metrics_text()');
is($said, '', 'and has nothing to say to it');
is(differences(expected_samples(), samples_of($exposed)), '', 'each of its samples is that of rf_metrics()');

# ---- the dashboard and the rules

# What only shows while a run is held back.
my %may_be_empty = ('Runs held back' => 1);

my $dashboard = decode_json(slurp_file(monitoring('dashboard.json')));
foreach my $variable (grep { $_->{type} eq 'query' } @{ $dashboard->{templating}{list} })
{
	my ($metric, $label) = $variable->{query}{query} =~ /^label_values\((.*), (\w+)\)$/;
	my @values;
	await(sub { @values = grep { defined } map { $_->{metric}{$label} } ask($prometheus, $metric =~ s/\$\w+/.*/gr); return @values > 0; });
	cmp_ok(scalar @values, '>', 0, "dashboard: there are values of \$$variable->{name}");
}
foreach my $panel (@{ $dashboard->{panels} })
{
	foreach my $target (@{ $panel->{targets} })
	{
		my $expression = $target->{expr} =~ s/\$__rate_interval/1h/gr =~ s/\$\w+/.*/gr;
		my @series;
		await(sub {
			@series = grep { $_->{value}[1] !~ /NaN/ } ask($prometheus, $expression);
			return @series || $may_be_empty{ $panel->{title} };
		});
		ok(@series || $may_be_empty{ $panel->{title} }, "dashboard: $panel->{title} $target->{refId} has data") or diag $expression;
	}
}

my @rules;

sub load_rules
{
	my $groups = decode_json(fetch("http://$prometheus/api/v1/rules"))->{data}{groups};
	@rules = map { @{ $_->{rules} } } @$groups;
	return;
}

wait_until('all rules are evaluated', sub {
	load_rules();
	return @rules && !grep { $_->{health} eq 'unknown' } @rules;
});
is(join(' ', map { "$_->{name}: $_->{lastError}" } grep { $_->{health} ne 'ok' } @rules), '', 'rules: none has an error');
is(scalar @rules, scalar @alerts, 'rules: all are loaded');

# They may have been evaluated last before Prometheus knew what it knows now.
my @states;
my @expected = qw(pending inactive pending inactive inactive);
await(sub {
	load_rules();
	my %states = map { $_->{name} => $_->{state} } @rules;
	@states = map { $states{"Rillflow$_"} } qw(PolicyPaused EventsInDefault StoresUnreadable PolicyDisarmed NotScraped);
	return "@states" eq "@expected";
});
is_deeply(\@states, \@expected, 'rules: those that should are about to fire');

IPC::Run::finish($rule_tests);
is($rule_tests->result(0), 0, 'promtool: each alert fires when it must, and does not when it must not') or diag "$rule_tests_out$rule_tests_err";

SKIP:
{
	skip 'prometheus-sql-exporter is not installed', 1 unless $sql_exporter;
	my ($failed) = grep { /^sql_exporter_last_scrape_failed\{/ } split /\n/, fetch("http://$sql_exporter/metrics");
	like($failed // 'none', qr/ 0$/, 'prometheus-sql-exporter could run its query');
}

done_testing();
