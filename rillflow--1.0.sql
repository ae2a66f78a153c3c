/* rillflow--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION rillflow" to load this file. \quit

SET LOCAL search_path TO @extschema@, pg_temp;

-- stores

CREATE TABLE rf_stores (
	schema name NOT NULL,
	tenant text,
	tenancy text NOT NULL DEFAULT 'single',
	layout_version integer NOT NULL,
	CONSTRAINT rf_stores_pkey PRIMARY KEY (schema),
	CONSTRAINT rf_stores_tenant_key UNIQUE (tenant)
);

COMMENT ON TABLE rf_stores IS 'Registry of the stores of this database';

REVOKE ALL ON TABLE rf_stores FROM PUBLIC;

-- who owns the database has to be able to dump it
GRANT SELECT ON TABLE rf_stores TO pg_database_owner;

SELECT pg_catalog.pg_extension_config_dump('rf_stores', '');

-- which policies may act in which database; a dump leaves the rows out
CREATE TABLE rf_armed (
	schema name NOT NULL,
	policy text NOT NULL,
	database oid NOT NULL,
	CONSTRAINT rf_armed_pkey PRIMARY KEY (schema, policy)
);

COMMENT ON TABLE rf_armed IS 'Policies that act, and the database where they were set';

REVOKE ALL ON TABLE rf_armed FROM PUBLIC;

-- install

CREATE FUNCTION rf_create_default_store ()
RETURNS void
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_create_default_store';

COMMENT ON FUNCTION rf_create_default_store () IS
	'make the default store; for this script only';

CREATE FUNCTION rf_install (
	schema name,
	tenant text DEFAULT NULL,
	tenancy text DEFAULT 'single')
RETURNS void
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_install';

COMMENT ON FUNCTION rf_install (name, text, text) IS
	'make the store in a schema, or take up again the one that is there';

REVOKE EXECUTE ON FUNCTION rf_install (name, text, text) FROM PUBLIC;

CREATE FUNCTION rf_uninstall (
	schema name,
	confirm name,
	force boolean DEFAULT false)
RETURNS void
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_uninstall';

COMMENT ON FUNCTION rf_uninstall (name, name, boolean) IS
	'remove an empty store; with force, turn one with events into ordinary tables';

REVOKE EXECUTE ON FUNCTION rf_uninstall (name, name, boolean) FROM PUBLIC;

-- layout

CREATE FUNCTION rf_upgrade_store (
	tenant text DEFAULT NULL)
RETURNS integer
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_upgrade_store';

COMMENT ON FUNCTION rf_upgrade_store (text) IS
	'bring the tables of a store up to what this version makes; returns the version of its layout';

REVOKE EXECUTE ON FUNCTION rf_upgrade_store (text) FROM PUBLIC;

-- tenant

CREATE FUNCTION rf_create_tenant (
	tenant text)
RETURNS name
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_create_tenant';

COMMENT ON FUNCTION rf_create_tenant (text) IS
	'make a schema for a tenant, and its store in it; returns the name of the schema';

REVOKE EXECUTE ON FUNCTION rf_create_tenant (text) FROM PUBLIC;

CREATE FUNCTION rf_drop_tenant (
	tenant text,
	confirm text,
	force boolean DEFAULT false)
RETURNS void
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_drop_tenant';

COMMENT ON FUNCTION rf_drop_tenant (text, text, boolean) IS
	'drop the schema and the store of a tenant that has no events; with force, with its events';

REVOKE EXECUTE ON FUNCTION rf_drop_tenant (text, text, boolean) FROM PUBLIC;

CREATE FUNCTION rf_tenants ()
RETURNS TABLE (tenant text, schema name, tenancy text, owner name,
	layout_version integer, state text)
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_tenants';

COMMENT ON FUNCTION rf_tenants () IS
	'the tenants whose stores the caller has a right to';

CREATE FUNCTION rf_set_owner (
	role name,
	tenant text DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_set_owner';

COMMENT ON FUNCTION rf_set_owner (name, text) IS
	'pass a store on to another role, with all its tables';

REVOKE EXECUTE ON FUNCTION rf_set_owner (name, text) FROM PUBLIC;

-- row_security

CREATE FUNCTION rf_enable_rls (
	tenant_setting text DEFAULT 'rillflow.tenant',
	tenant text DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_enable_rls';

COMMENT ON FUNCTION rf_enable_rls (text, text) IS
	'show each session the rows of the tenant that a setting names';

REVOKE EXECUTE ON FUNCTION rf_enable_rls (text, text) FROM PUBLIC;

CREATE FUNCTION rf_disable_rls (
	tenant text DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_disable_rls';

COMMENT ON FUNCTION rf_disable_rls (text) IS
	'take the policies of rf_enable_rls() back';

REVOKE EXECUTE ON FUNCTION rf_disable_rls (text) FROM PUBLIC;

-- triggers

CREATE FUNCTION rf_events_open ()
RETURNS trigger
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'rf_events_open';

COMMENT ON FUNCTION rf_events_open () IS
	'begins an INSERT into events';

CREATE FUNCTION rf_events_redirect_archived ()
RETURNS trigger
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'rf_events_redirect_archived';

COMMENT ON FUNCTION rf_events_redirect_archived () IS
	'numbers a row of events, and sends it to the cold tier when its stream is archived';

CREATE FUNCTION rf_events_close ()
RETURNS trigger
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'rf_events_close';

COMMENT ON FUNCTION rf_events_close () IS
	'ends an INSERT into events: raises heads, claims keys, notifies';

CREATE FUNCTION rf_events_append_only ()
RETURNS trigger
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'rf_events_append_only';

COMMENT ON FUNCTION rf_events_append_only () IS
	'refuses statements that would change history';

CREATE FUNCTION rf_config_changed ()
RETURNS trigger
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'rf_config_changed';

COMMENT ON FUNCTION rf_config_changed () IS
	'makes sessions read rf_archive_config again';

CREATE FUNCTION rf_policies_changed ()
RETURNS trigger
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'rf_policies_changed';

COMMENT ON FUNCTION rf_policies_changed () IS
	'makes the launcher look at rf_archive_policies again';

-- append

CREATE FUNCTION rf_append (
	stream_id uuid,
	event_type text,
	body jsonb,
	headers jsonb DEFAULT '{}',
	expected_seq integer DEFAULT NULL,
	causation_id uuid DEFAULT NULL,
	correlation_id uuid DEFAULT NULL,
	event_version integer DEFAULT 1,
	user_id text DEFAULT NULL,
	created_at timestamptz DEFAULT NULL,
	is_tombstone boolean DEFAULT false,
	allow_archived boolean DEFAULT false,
	tenant text DEFAULT NULL)
RETURNS TABLE (global_seq bigint, stream_seq integer)
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
ROWS 1
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_append';

COMMENT ON FUNCTION rf_append (uuid, text, jsonb, jsonb, integer, uuid, uuid, integer, text, timestamptz, boolean, boolean, text) IS
	'append an event to a stream';

CREATE FUNCTION rf_append_batch (
	stream_id uuid,
	events jsonb,
	expected_seq integer DEFAULT NULL,
	allow_archived boolean DEFAULT false,
	tenant text DEFAULT NULL)
RETURNS TABLE (global_seq bigint, stream_seq integer)
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
ROWS 10
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_append_batch';

COMMENT ON FUNCTION rf_append_batch (uuid, jsonb, integer, boolean, text) IS
	'append an array of events to a stream, all or none';

-- read

CREATE FUNCTION rf_read_stream (
	stream_id uuid,
	after_seq integer DEFAULT 0,
	max_events integer DEFAULT NULL,
	backward boolean DEFAULT false,
	include_archived boolean DEFAULT NULL,
	tenant text DEFAULT NULL)
RETURNS TABLE (global_seq bigint, stream_id uuid, stream_seq integer,
	event_type text, body jsonb, headers jsonb, causation_id uuid,
	correlation_id uuid, event_version integer, tenant_id text, user_id text,
	is_tombstone boolean, created_at timestamptz, retention_class text)
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_read_stream';

COMMENT ON FUNCTION rf_read_stream (uuid, integer, integer, boolean, boolean, text) IS
	'read the events of a stream, in order';

CREATE FUNCTION rf_read_all (
	after_global_seq bigint DEFAULT 0,
	max_events integer DEFAULT 500,
	event_types text[] DEFAULT NULL,
	include_archived boolean DEFAULT NULL,
	tenant text DEFAULT NULL)
RETURNS TABLE (global_seq bigint, stream_id uuid, stream_seq integer,
	event_type text, body jsonb, headers jsonb, causation_id uuid,
	correlation_id uuid, event_version integer, tenant_id text, user_id text,
	is_tombstone boolean, created_at timestamptz, retention_class text)
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_read_all';

COMMENT ON FUNCTION rf_read_all (bigint, integer, text[], boolean, text) IS
	'replay a store in order of global_seq; on its primary, no event before a lower one is settled';

-- consumer

CREATE FUNCTION rf_consumer_advance (
	name text,
	global_seq bigint,
	tenant text DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_consumer_advance';

COMMENT ON FUNCTION rf_consumer_advance (text, bigint, text) IS
	'note how far a consumer has read; one that is new is registered';

CREATE FUNCTION rf_consumer_remove (
	name text,
	tenant text DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_consumer_remove';

COMMENT ON FUNCTION rf_consumer_remove (text, text) IS
	'forget a consumer, which holds no move back any more';

-- key

CREATE FUNCTION rf_prune_keys (
	before timestamptz,
	tenant text DEFAULT NULL)
RETURNS bigint
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_prune_keys';

COMMENT ON FUNCTION rf_prune_keys (timestamptz, text) IS
	'forget idempotency keys older than a time; returns how many';

REVOKE EXECUTE ON FUNCTION rf_prune_keys (timestamptz, text) FROM PUBLIC;

-- mark

CREATE FUNCTION rf_archive_mark (
	stream_id uuid,
	reason text DEFAULT 'manual mark',
	archived_by text DEFAULT NULL,
	tenant text DEFAULT NULL)
RETURNS TABLE (stream_id uuid, tenant_id text, last_seq integer,
	first_event_at timestamptz, last_event_at timestamptz,
	archived_at timestamptz, archived_by text, archive_reason text,
	retention_class text, created_at timestamptz, updated_at timestamptz)
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
ROWS 1
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_archive_mark';

COMMENT ON FUNCTION rf_archive_mark (uuid, text, text, text) IS
	'archive a stream';

CREATE FUNCTION rf_archive_reactivate (
	stream_id uuid,
	restore_events boolean DEFAULT true,
	tenant text DEFAULT NULL)
RETURNS TABLE (stream_id uuid, tenant_id text, last_seq integer,
	first_event_at timestamptz, last_event_at timestamptz,
	archived_at timestamptz, archived_by text, archive_reason text,
	retention_class text, created_at timestamptz, updated_at timestamptz)
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
ROWS 1
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_archive_reactivate';

COMMENT ON FUNCTION rf_archive_reactivate (uuid, boolean, text) IS
	'take an archived stream back, with its events unless they are to stay cold';

-- redact

CREATE FUNCTION rf_redact (
	stream_id uuid,
	stream_seq integer DEFAULT NULL,
	reason text DEFAULT NULL,
	tenant text DEFAULT NULL)
RETURNS bigint
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_redact';

COMMENT ON FUNCTION rf_redact (uuid, integer, text, text) IS
	'blank body, headers and key of an event, or of all of a stream; returns of how many';

REVOKE EXECUTE ON FUNCTION rf_redact (uuid, integer, text, text) FROM PUBLIC;

-- hold

CREATE FUNCTION rf_hold (
	stream_id uuid DEFAULT NULL,
	reason text DEFAULT NULL,
	tenant text DEFAULT NULL)
RETURNS boolean
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_hold';

COMMENT ON FUNCTION rf_hold (uuid, text, text) IS
	'keep a stream, or a whole store, from being dropped or redacted; false when that hold is there already';

REVOKE EXECUTE ON FUNCTION rf_hold (uuid, text, text) FROM PUBLIC;

CREATE FUNCTION rf_release (
	stream_id uuid DEFAULT NULL,
	reason text DEFAULT NULL,
	tenant text DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_release';

COMMENT ON FUNCTION rf_release (uuid, text, text) IS
	'take a hold back';

REVOKE EXECUTE ON FUNCTION rf_release (uuid, text, text) FROM PUBLIC;

-- worker

CREATE FUNCTION rf_archive_move (
	before timestamptz,
	batch_size integer DEFAULT NULL,
	stream_id uuid DEFAULT NULL,
	only_archived boolean DEFAULT false,
	dry_run boolean DEFAULT false,
	ignore_consumers boolean DEFAULT false,
	tenant text DEFAULT NULL)
RETURNS TABLE (events_moved bigint, streams_touched bigint, batches integer, months_flipped integer)
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
ROWS 1
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_archive_move';

COMMENT ON FUNCTION rf_archive_move (timestamptz, integer, uuid, boolean, boolean, boolean, text) IS
	'move events older than a time to the cold tier, in this transaction';

CREATE PROCEDURE rf_archive_run (
	before timestamptz,
	batch_size integer DEFAULT NULL,
	stream_id uuid DEFAULT NULL,
	only_archived boolean DEFAULT false,
	max_runtime interval DEFAULT NULL,
	ignore_consumers boolean DEFAULT false,
	tenant text DEFAULT NULL)
LANGUAGE C
AS 'MODULE_PATHNAME', 'rf_archive_run';

COMMENT ON PROCEDURE rf_archive_run (timestamptz, integer, uuid, boolean, interval, boolean, text) IS
	'move events older than a time to the cold tier, committing after each batch';

-- plan

CREATE FUNCTION rf_archive_plan (
	before timestamptz,
	stream_id uuid DEFAULT NULL,
	only_archived boolean DEFAULT false,
	ignore_consumers boolean DEFAULT false,
	tenant text DEFAULT NULL)
RETURNS TABLE (bucket_month date, source regclass, method text, events bigint,
	streams bigint, bytes bigint, reason text)
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_archive_plan';

COMMENT ON FUNCTION rf_archive_plan (timestamptz, uuid, boolean, boolean, text) IS
	'what a move would do, a line a month';

CREATE FUNCTION rf_archive_candidates (
	before timestamptz,
	max_streams integer DEFAULT 100,
	only_archived boolean DEFAULT false,
	ignore_consumers boolean DEFAULT false,
	tenant text DEFAULT NULL)
RETURNS TABLE (stream_id uuid, events bigint, oldest timestamptz, newest timestamptz,
	closes boolean)
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
ROWS 100
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_archive_candidates';

COMMENT ON FUNCTION rf_archive_candidates (timestamptz, integer, boolean, boolean, text) IS
	'the streams that a move would take events from';

-- status

CREATE FUNCTION rf_archive_status (
	tenant text DEFAULT NULL)
RETURNS TABLE (schema name, tenant text, backend text, redirect_enabled boolean,
	hot_streams bigint, cold_streams bigint, hot_events bigint,
	cold_events bigint, hot_bytes bigint, cold_bytes bigint,
	default_events bigint, oldest_hot timestamptz,
	held_back_by text, held_back_since timestamptz)
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
ROWS 1
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_archive_status';

COMMENT ON FUNCTION rf_archive_status (text) IS
	'what stands where, a row a store';

CREATE FUNCTION rf_partitions (
	tenant text DEFAULT NULL)
RETURNS TABLE (partition regclass, retention text, from_month date,
	to_month date, events bigint, bytes bigint, tablespace name)
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_partitions';

COMMENT ON FUNCTION rf_partitions (text) IS
	'the leaves of a store, a row each';

-- metrics

CREATE FUNCTION rf_metrics (
	tenant text DEFAULT '*')
RETURNS TABLE (name text, type text, help text, labels jsonb,
	value double precision)
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
ROWS 100
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_metrics';

COMMENT ON FUNCTION rf_metrics (text) IS
	'metrics of stores, a row for each sample';

CREATE FUNCTION rf_metrics_text (
	tenant text DEFAULT '*')
RETURNS text
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_metrics_text';

COMMENT ON FUNCTION rf_metrics_text (text) IS
	'metrics of stores, in the text format of Prometheus';

-- switch

CREATE FUNCTION rf_archive_set_redirect (
	enabled boolean,
	tenant text DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_archive_set_redirect';

COMMENT ON FUNCTION rf_archive_set_redirect (boolean, text) IS
	'switch the redirect of archived streams on or off';

REVOKE EXECUTE ON FUNCTION rf_archive_set_redirect (boolean, text) FROM PUBLIC;

CREATE FUNCTION rf_archive_redirect_enabled (
	tenant text DEFAULT NULL)
RETURNS boolean
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_archive_redirect_enabled';

COMMENT ON FUNCTION rf_archive_redirect_enabled (text) IS
	'is the redirect of archived streams on?';

CREATE FUNCTION rf_archive_set_include_archived (
	enabled boolean,
	tenant text DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_archive_set_include_archived';

COMMENT ON FUNCTION rf_archive_set_include_archived (boolean, text) IS
	'choose whether reads include archived events by default';

REVOKE EXECUTE ON FUNCTION rf_archive_set_include_archived (boolean, text) FROM PUBLIC;

CREATE FUNCTION rf_archive_set_notify (
	enabled boolean,
	tenant text DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_archive_set_notify';

COMMENT ON FUNCTION rf_archive_set_notify (boolean, text) IS
	'switch the notification of appends on or off';

REVOKE EXECUTE ON FUNCTION rf_archive_set_notify (boolean, text) FROM PUBLIC;

CREATE FUNCTION rf_archive_set_backend (
	backend text,
	tenant text DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_archive_set_backend';

COMMENT ON FUNCTION rf_archive_set_backend (text, text) IS
	'choose where cold events are kept: dual_table or partitioned';

REVOKE EXECUTE ON FUNCTION rf_archive_set_backend (text, text) FROM PUBLIC;

-- policy

CREATE FUNCTION rf_policy_set (
	name text,
	older_than interval,
	every interval DEFAULT '1 hour',
	batch_size integer DEFAULT NULL,
	window_start time DEFAULT NULL,
	window_end time DEFAULT NULL,
	time_zone text DEFAULT 'UTC',
	only_archived boolean DEFAULT false,
	premake integer DEFAULT 3,
	max_runtime interval DEFAULT '1 hour',
	max_replica_lag interval DEFAULT NULL,
	tenant text DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_policy_set';

COMMENT ON FUNCTION rf_policy_set (text, interval, interval, integer, time, time, text, boolean, integer, interval, interval, text) IS
	'have a worker archive events of an age, again and again';

REVOKE EXECUTE ON FUNCTION rf_policy_set (text, interval, interval, integer, time, time, text, boolean, integer, interval, interval, text) FROM PUBLIC;

CREATE FUNCTION rf_policy_remove (
	name text,
	tenant text DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_policy_remove';

COMMENT ON FUNCTION rf_policy_remove (text, text) IS
	'remove a policy; a run of it stops';

REVOKE EXECUTE ON FUNCTION rf_policy_remove (text, text) FROM PUBLIC;

CREATE FUNCTION rf_policy_pause (
	name text,
	tenant text DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_policy_pause';

COMMENT ON FUNCTION rf_policy_pause (text, text) IS
	'keep a policy from running; a run of it stops';

REVOKE EXECUTE ON FUNCTION rf_policy_pause (text, text) FROM PUBLIC;

CREATE FUNCTION rf_policy_resume (
	name text,
	tenant text DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_policy_resume';

COMMENT ON FUNCTION rf_policy_resume (text, text) IS
	'let a policy run again, and forget its failures';

REVOKE EXECUTE ON FUNCTION rf_policy_resume (text, text) FROM PUBLIC;

CREATE FUNCTION rf_policy_run (
	name text,
	tenant text DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_policy_run';

COMMENT ON FUNCTION rf_policy_run (text, text) IS
	'have a worker run a policy now';

REVOKE EXECUTE ON FUNCTION rf_policy_run (text, text) FROM PUBLIC;

CREATE FUNCTION rf_policy_arm (
	tenant text DEFAULT NULL)
RETURNS integer
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_policy_arm';

COMMENT ON FUNCTION rf_policy_arm (text) IS
	'let the policies of a store act in this database; returns how many could not before';

REVOKE EXECUTE ON FUNCTION rf_policy_arm (text) FROM PUBLIC;

CREATE FUNCTION rf_policy_due (
	now timestamptz,
	tenant text DEFAULT NULL)
RETURNS TABLE (schema name, policy text, due boolean, due_at timestamptz,
	reason text)
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_policy_due';

COMMENT ON FUNCTION rf_policy_due (timestamptz, text) IS
	'which policies are due at a time, and when each is due';

-- launcher

CREATE FUNCTION rf_worker_start ()
RETURNS integer
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_worker_start';

COMMENT ON FUNCTION rf_worker_start () IS
	'start a launcher for this database, where the library is not preloaded; returns its process ID';

REVOKE EXECUTE ON FUNCTION rf_worker_start () FROM PUBLIC;

-- scout

CREATE FUNCTION rf_worker_list ()
RETURNS TABLE (schema name, policy text, state text, detail text,
	failures integer, due_at timestamptz, pid integer, started_at timestamptz,
	events bigint, expected bigint, events_per_second double precision,
	time_left interval, batch_size integer, held_back_by text, last_error text,
	last_error_at timestamptz)
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_worker_list';

COMMENT ON FUNCTION rf_worker_list () IS
	'the rows of rf_worker_status';

CREATE VIEW rf_worker_status AS SELECT * FROM rf_worker_list();

COMMENT ON VIEW rf_worker_status IS
	'Policies: what runs now, how far it is, what holds it back, what failed';

GRANT SELECT ON rf_worker_status TO PUBLIC;

-- partition

CREATE FUNCTION rf_create_partition (
	retention text,
	month date,
	tablespace name DEFAULT NULL,
	tenant text DEFAULT NULL)
RETURNS regclass
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_create_partition';

COMMENT ON FUNCTION rf_create_partition (text, date, name, text) IS
	'make the partition of a month in the hot or cold tier';

REVOKE EXECUTE ON FUNCTION rf_create_partition (text, date, name, text) FROM PUBLIC;

CREATE FUNCTION rf_drop_partition (
	retention text,
	month date,
	force boolean DEFAULT false,
	tenant text DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_drop_partition';

COMMENT ON FUNCTION rf_drop_partition (text, date, boolean, text) IS
	'drop the partition of a month that holds no events; with force, with its events';

REVOKE EXECUTE ON FUNCTION rf_drop_partition (text, date, boolean, text) FROM PUBLIC;

CREATE FUNCTION rf_drain_default (
	tenant text DEFAULT NULL)
RETURNS bigint
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_drain_default';

COMMENT ON FUNCTION rf_drain_default (text) IS
	'make the months whose events wait in default partitions; returns how many events went along';

REVOKE EXECUTE ON FUNCTION rf_drain_default (text) FROM PUBLIC;

-- flip

CREATE FUNCTION rf_flip_partition (
	month date,
	retention text,
	tenant text DEFAULT NULL)
RETURNS regclass
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_flip_partition';

COMMENT ON FUNCTION rf_flip_partition (date, text, text) IS
	'turn a whole month hot or cold, as metadata';

REVOKE EXECUTE ON FUNCTION rf_flip_partition (date, text, text) FROM PUBLIC;

-- adopt

CREATE PROCEDURE rf_adopt (
	source regclass,
	tenant text DEFAULT NULL)
LANGUAGE C
AS 'MODULE_PATHNAME', 'rf_adopt';

COMMENT ON PROCEDURE rf_adopt (regclass, text) IS
	'make a store of a plain table of events, committing after each batch';

REVOKE EXECUTE ON PROCEDURE rf_adopt (regclass, text) FROM PUBLIC;

CREATE FUNCTION rf_adopt_changed ()
RETURNS trigger
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'rf_adopt_changed';

COMMENT ON FUNCTION rf_adopt_changed () IS
	'notes streams of a table that is about to be adopted';

-- flatten

CREATE FUNCTION rf_flatten (
	tenant text DEFAULT NULL)
RETURNS bigint
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_flatten';

COMMENT ON FUNCTION rf_flatten (text) IS
	'turn a store back into plain tables; returns how many events they hold';

REVOKE EXECUTE ON FUNCTION rf_flatten (text) FROM PUBLIC;

-- ledger

CREATE FUNCTION rf_prune_log (
	before timestamptz,
	tenant text DEFAULT NULL)
RETURNS bigint
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rf_prune_log';

COMMENT ON FUNCTION rf_prune_log (timestamptz, text) IS
	'fold ledger rows older than a time into their sums; returns how many';

REVOKE EXECUTE ON FUNCTION rf_prune_log (timestamptz, text) FROM PUBLIC;

-- the default store

SELECT rf_create_default_store();

DROP FUNCTION rf_create_default_store ();
