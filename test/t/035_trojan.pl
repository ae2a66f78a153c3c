# The owner of a store puts functions of his wherever one is called: triggers, deferred ones too, defaults, CHECKs,
# index expressions, row security. Whoever archives his events, a worker or a superuser, gives him no rights.
use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowCluster;
use Test::More;

my $node = new_store('trojan', "shared_preload_libraries = 'rillflow'", "rillflow.naptime = '1s'");

# ask(sql[, role]): as a superuser, or as a role that has connected itself, and can't become another one again.
sub ask
{
	my ($sql, $role) = @_;
	return $node->safe_psql('postgres', $sql, extra_params => [ '-U', $role // 'postgres' ]);
}

ask(<<'SQL');
CREATE ROLE mallory LOGIN;
CREATE ROLE victim LOGIN;
GRANT mallory TO victim;
CREATE SCHEMA shop AUTHORIZATION mallory;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO mallory, victim;
GRANT CREATE ON DATABASE postgres TO mallory;
CREATE TABLE treasure (gold int);
INSERT INTO treasure VALUES (1);
GRANT ALL ON treasure TO victim;
SQL
ask(<<'SQL', 'mallory');
SELECT rf_install('shop', tenant => 'shop');
SELECT rf_create_partition('hot', '2024-01-01', tenant => 'shop'), rf_create_partition('cold', '2024-01-01', tenant => 'shop');
SELECT count(*) FROM generate_series(1, 400) AS n,
	rf_append(md5((n % 20)::text)::uuid, 'e', '{}', created_at => timestamptz '2024-01-02' + n * interval '1 minute', tenant => 'shop');

-- each attempt is noted, and so is what it was allowed
CREATE TABLE shop.attempts (place text, who text, told text);
CREATE FUNCTION shop.attack (place text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	attempt text;
BEGIN
	FOREACH attempt IN ARRAY ARRAY['ALTER ROLE mallory SUPERUSER', 'DELETE FROM public.treasure', 'RESET ROLE', 'SET ROLE victim',
		'RESET SESSION AUTHORIZATION', 'SET SESSION AUTHORIZATION postgres', 'SET search_path = shop', 'GRANT pg_execute_server_program TO mallory'] LOOP
		BEGIN
			EXECUTE attempt;
			INSERT INTO shop.attempts VALUES (place, current_user || ' of ' || session_user, 'did ' || attempt);
		EXCEPTION WHEN OTHERS THEN
			INSERT INTO shop.attempts VALUES (place, current_user || ' of ' || session_user, SQLSTATE);
		END;
	END LOOP;
	RETURN true;
END $$;
CREATE FUNCTION shop.trojan () RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM shop.attack(TG_TABLE_NAME || ' ' || TG_NAME);
	RETURN coalesce(NEW, OLD);
END $$;
CREATE FUNCTION shop.indexed (text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM shop.attack('index'); RETURN $1; END $$;
CREATE FUNCTION shop.checked (text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN shop.attack('check'); END $$;
CREATE FUNCTION shop.guarded () RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN shop.attack('policy'); END $$;
CREATE FUNCTION shop.given () RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM shop.attack('default'); RETURN 'x'; END $$;
DO $do$
DECLARE
	name text;
BEGIN
	FOREACH name IN ARRAY ARRAY['rf_streams', 'rf_archive_log', 'rf_archive_runs', 'rf_archive_policies', 'rf_event_keys', 'rf_consumers'] LOOP
		EXECUTE format('CREATE TRIGGER now BEFORE INSERT OR UPDATE ON shop.%I FOR EACH ROW EXECUTE FUNCTION shop.trojan()', name);
		EXECUTE format('ALTER TABLE shop.%I ADD COLUMN trojan text DEFAULT shop.given() CHECK (shop.checked(trojan))', name);
		EXECUTE format('CREATE INDEX ON shop.%I (shop.indexed(trojan))', name);
		EXECUTE format('CREATE POLICY p ON shop.%I USING (shop.guarded())', name);
		EXECUTE format('ALTER TABLE shop.%I ENABLE ROW LEVEL SECURITY', name);
	END LOOP;
END $do$;
CREATE INDEX ON shop.events_hot_2024_01 (shop.indexed(event_type));
CREATE INDEX ON shop.events_archive_2024_01 (shop.indexed(event_type));
TRUNCATE shop.attempts;
SQL

# What came of it: nobody but mallory was ever there, and nothing was done that she may not do.
sub check_attempts
{
	my ($name, $some) = @_;
	is(ask('SELECT rolsuper FROM pg_roles WHERE rolname = $$mallory$$'), 'f', "$name: mallory is no superuser");
	is(ask('SELECT count(*) FROM treasure'), '1', "$name: the treasure is there");
	is(ask("SELECT DISTINCT place, who FROM shop.attempts WHERE who !~ '^mallory of'"), '', "$name: functions ran as their owner");
	is(ask("SELECT DISTINCT place, told FROM shop.attempts WHERE told ~ '^did' AND told !~ 'search_path'"
			  . " AND NOT (who = 'mallory of mallory' AND told ~ 'RESET')"), '', "$name: nothing was allowed");
	cmp_ok(ask('SELECT count(DISTINCT place) FROM shop.attempts'), '>=', $some, "$name: they were called");
	ask('TRUNCATE shop.attempts');
	return;
}

sub state { return ask("SELECT count(*) || ':' || sum(hashtextextended(e::text, 0)::numeric) FROM"
		. ' (SELECT global_seq, stream_id, stream_seq, event_type, body, created_at FROM shop.events_all) AS e'); }
my $before = state();
like($before, qr/^400:/, 'there are events');

# A superuser marks, reactivates and moves.
ask("SELECT rf_archive_mark(md5('1')::uuid, tenant => 'shop'); SELECT rf_archive_reactivate(md5('1')::uuid, tenant => 'shop')");
ask("SELECT rf_archive_move('2024-01-02 01:00+00', 7, tenant => 'shop')");
ask("CALL rf_archive_run('2024-01-02 02:00+00', 7, tenant => 'shop')");
is(ask("SET search_path = pg_catalog, public; SELECT count(*) FROM public.rf_archive_mark(md5('2')::uuid, tenant => 'shop'); SHOW search_path"),
	"1\npg_catalog, public", 'a path that was set does not outlive the call');
cmp_ok(ask('SELECT count(*) FROM shop.events_archive'), '>', 100, 'events were moved');
is(state(), $before, 'the events are what they were');
check_attempts('superuser', 5);

# A worker, as mallory's, as that of a member of her role, and where she writes a superuser into the policy.
for my $owner ('mallory', 'victim', 'postgres')
{
	my $session = $owner eq 'postgres' ? 'mallory' : $owner;
	ask("SELECT rf_policy_set('by $owner', older_than => '1 day', every => '1 hour', batch_size => 100, tenant => 'shop')"
		  . ($owner eq 'postgres' ? "; UPDATE shop.rf_archive_policies SET owner = 'postgres' WHERE name = 'by postgres'" : ''), $session);
	wait_until("the run by $owner", sub {
		ask("SELECT count(*) FROM shop.rf_archive_runs WHERE finished_at IS NOT NULL AND policy = 'by $owner'") > 0 });
	is(ask("SELECT coalesce(sqlstate, 'none') FROM shop.rf_archive_runs WHERE policy = 'by $owner' ORDER BY run_id LIMIT 1"),
		$owner eq 'postgres' ? '28000' : 'none', "$owner: the run");
	is(state(), $before, "$owner: the events are what they were");
	check_attempts("worker of $owner", 2);
}
is(ask('SELECT count(*) FROM shop.events'), '0', 'all were moved');

# A superuser does everything else that there is. The trojans are on holds now, too.
ask(<<'SQL', 'mallory');
CREATE TRIGGER now BEFORE INSERT OR UPDATE OR DELETE ON shop.rf_holds FOR EACH ROW EXECUTE FUNCTION shop.trojan();
CREATE INDEX ON shop.rf_holds (shop.indexed(reason));
CREATE TRIGGER now BEFORE INSERT OR UPDATE ON shop.rf_archive_config FOR EACH ROW EXECUTE FUNCTION shop.trojan();
TRUNCATE shop.attempts;
SQL
for my $call ("rf_flip_partition('2024-01-01', 'hot', 'shop')", "rf_archive_set_backend('partitioned', 'shop')", "rf_archive_set_backend('dual_table', 'shop')",
	"rf_flip_partition('2024-01-01', 'cold', 'shop')", "rf_create_partition('cold', '2024-02-01', tenant => 'shop')", "rf_drain_default('shop')",
	"rf_hold(md5('1')::uuid, 'r', 'shop')", "rf_release(md5('1')::uuid, 'r', 'shop')", "rf_archive_set_redirect(false, 'shop')",
	"rf_archive_status('shop')", "rf_partitions('shop')", "rf_archive_plan('infinity', tenant => 'shop')", "rf_archive_candidates('infinity', tenant => 'shop')",
	"rf_policy_due('2030-01-01 00:00+00', 'shop')", "rf_worker_list()", "rf_tenants()", "rf_consumer_advance('c', 1, 'shop')", "rf_consumer_remove('c', 'shop')",
	"rf_prune_keys('infinity', 'shop')", "rf_prune_log('2000-01-01 00:00+00', 'shop')", "rf_install('shop')", "rf_upgrade_store('shop')",
	"rf_enable_rls(tenant => 'shop')", "rf_disable_rls('shop')", "rf_policy_set('of root', '1 year', tenant => 'shop')", "rf_policy_pause('of root', 'shop')",
	"rf_policy_remove('of root', 'shop')", "rf_read_all(include_archived => true, tenant => 'shop')")
{
	my (undef, undef, $error) = $node->psql('postgres', "SELECT count(*) FROM $call");
	is($error =~ s/^(psql:.*)?(NOTICE|WARNING|HINT|DETAIL):.*\n?//mgr, '', "superuser: $call: goes through");
}
is(state(), $before, 'superuser: the events are what they were');
check_attempts('superuser, each function', 5);
is(ask("SELECT rf_redact(md5('1')::uuid, NULL, 'r', 'shop')"), '20', 'superuser: rf_redact()');
is(ask("SELECT count(*) FROM shop.events_all WHERE body = '{}' AND headers = '{\"redacted\": true}'"), '20', 'superuser: rf_redact(): redacted');
check_attempts('superuser: rf_redact()', 1);
$before = state();

# Triggers that wait for the commit: a worker lets none wait, and the server refuses them to everybody else.
ask(<<'SQL', 'mallory');
CREATE CONSTRAINT TRIGGER later AFTER INSERT OR UPDATE ON shop.rf_archive_runs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION shop.trojan();
CREATE CONSTRAINT TRIGGER later AFTER INSERT OR UPDATE ON shop.rf_archive_policies DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION shop.trojan();
CREATE CONSTRAINT TRIGGER later AFTER INSERT OR UPDATE ON shop.rf_streams DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION shop.trojan();
SQL
ask("UPDATE shop.rf_archive_policies SET run_requested_at = now() WHERE name = 'by victim'", 'mallory');
wait_until('the second run by victim', sub {
	ask("SELECT count(*) FROM shop.rf_archive_runs WHERE finished_at IS NOT NULL AND policy = 'by victim'") > 1 });
is(ask("SELECT count(DISTINCT place) FROM shop.attempts WHERE place ~ 'later'"), '2', 'deferred triggers were called');
check_attempts('deferred triggers', 3);
for my $call ("SELECT rf_archive_mark(md5('1')::uuid, tenant => 'shop')", "SELECT rf_policy_pause('by victim', 'shop')")
{
	like(($node->psql('postgres', "\\set VERBOSITY verbose\n$call"))[2],
		qr/ERROR:  42501: cannot fire deferred trigger within security-restricted operation/, "$call: refused");
}
check_attempts('refused', 0);

done_testing();
