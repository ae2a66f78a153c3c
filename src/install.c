/*-------------------------------------------------------------------------
 *
 * install.c
 *	  Making a store, taking one up again, and removing it.
 *
 * The tables of a store are ordinary tables.  As members of the extension
 * they would lose their row security, indexes and owners in a dump, and DROP
 * EXTENSION would drop the events.  The script of the extension calls the
 * installer that rf_install() calls, and the tables are taken out of the
 * extension right after.
 *
 * A restore creates the extension before the tables, which it brings itself;
 * so the installer makes none when the extension is created by a dump.  A
 * dump says CREATE EXTENSION IF NOT EXISTS, and has switched off
 * check_function_bodies before.  Scripts of extensions run with that setting
 * off anyway, so what it was before the script is looked up in its stack.
 *
 * What is taken up again has to be complete and of one owner.  Its triggers
 * are made anew: DROP EXTENSION CASCADE takes them, and leaves every event.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "guc.h"
#include "hold.h"
#include "install.h"
#include "partition.h"
#include "policy.h"
#include "query.h"
#include "store.h"

/* what rf_stores.tenancy says */
#define TENANCY_SINGLE "single"
#define TENANCY_CONJOINED "conjoined"

/* hot months made ahead, beside the current one */
#define MONTHS_AHEAD 1

/*
 * A branch has the columns of events in their order; its leaves have them in
 * another one.  The server converts a row on its way from events to a leaf
 * whose order differs: it ends up in the form that goes to the heap, and is
 * not formed twice, as it is for other tables that have a row trigger.  A
 * branch of that other order would have it converted once more.
 *
 * Each INSERT finds out anew which column goes where.  The server looks for a
 * column behind the one it has found last, and so is faster where columns that
 * stand in the order of events there do so here.  And it compares each row's
 * class with those of the branches, which is cheap in the collation "C".
 *
 * NOT NULL has the names that it has in events: from version 18 on a dump keeps
 * them, and two tables of a schema must not claim a name that neither states.
 */
#define BRANCH(name)                                               \
	"CREATE TABLE %s." name " (LIKE %s.events INCLUDING DEFAULTS)" \
	" PARTITION BY RANGE (bucket_month)"
#define LEAF_OF_BRANCH(name, tier)                                                            \
	"CREATE TABLE %s." name " ("                                                              \
	" global_seq bigint CONSTRAINT events_global_seq_not_null NOT NULL,"                      \
	" stream_id uuid CONSTRAINT events_stream_id_not_null NOT NULL,"                          \
	" stream_seq integer CONSTRAINT events_stream_seq_not_null NOT NULL,"                     \
	" event_version integer CONSTRAINT events_event_version_not_null NOT NULL"                \
	" DEFAULT 1,"                                                                             \
	" created_at timestamptz CONSTRAINT events_created_at_not_null NOT NULL"                  \
	" DEFAULT now(),"                                                                         \
	" bucket_month date CONSTRAINT events_bucket_month_not_null NOT NULL"                     \
	" DEFAULT date_trunc('month', now() AT TIME ZONE 'UTC')::date,"                           \
	" retention_class text COLLATE \"C\" CONSTRAINT events_retention_class_not_null NOT NULL" \
	" DEFAULT '" tier "',"                                                                    \
	" event_type text CONSTRAINT events_event_type_not_null NOT NULL,"                        \
	" body jsonb CONSTRAINT events_body_not_null NOT NULL,"                                   \
	" headers jsonb CONSTRAINT events_headers_not_null NOT NULL"                              \
	" DEFAULT '{}',"                                                                          \
	" causation_id uuid,"                                                                     \
	" correlation_id uuid,"                                                                   \
	" <events_tenant_id>,"                                                                    \
	" user_id text,"                                                                          \
	" is_tombstone boolean CONSTRAINT events_is_tombstone_not_null NOT NULL"                  \
	" DEFAULT false)"
#define ATTACH_BRANCH(name, tier)                                              \
	"ALTER TABLE %s.events ATTACH PARTITION %s." name " FOR VALUES IN ('" tier \
	"')"

/*
 * What differs where the streams are those of many tenants: the tenant is part
 * of the keys.  It comes first there, but in those of leaves (src/README).  In
 * events the trigger for rows looks at his name: a CHECK would be parsed for
 * each INSERT.
 */
typedef struct DdlWord
{
	const char *word;
	const char *single;
	const char *conjoined;
} DdlWord;

#define TENANT_CHECK                                                   \
	" CONSTRAINT rf_tenant_id_check CHECK"                             \
	" (octet_length(tenant_id) >= 1 AND octet_length(tenant_id) <= 63" \
	" AND tenant_id <> '*')"

static const DdlWord ddl_words[] = {
	{"<tenant_id>", "tenant_id text",
	 "tenant_id text COLLATE \"C\" NOT NULL" TENANT_CHECK},
	{"<events_tenant_id>", "tenant_id text",
	 "tenant_id text COLLATE \"C\""
	 " CONSTRAINT events_tenant_id_not_null NOT NULL"},
	{"<tenant_id,>", "", "tenant_id, "},
};

/*
 * The tables of a store; %s is its schema.  No CHECK has a BETWEEN beside an
 * AND: a dump of the restored store would differ in parentheses.
 */
static const char *const store_ddl[] = {
	"CREATE TABLE %s.rf_streams ("
	" stream_id uuid NOT NULL,"
	" <tenant_id>,"
	" last_seq integer NOT NULL DEFAULT 0,"
	" first_event_at timestamptz,"
	" last_event_at timestamptz,"
	" archived_at timestamptz,"
	" archived_by text,"
	" archive_reason text,"
	" retention_class text NOT NULL DEFAULT 'hot',"
	" created_at timestamptz NOT NULL DEFAULT now(),"
	" updated_at timestamptz NOT NULL DEFAULT now(),"
	" CONSTRAINT rf_streams_pkey PRIMARY KEY (<tenant_id,>stream_id),"
	" CONSTRAINT rf_streams_last_seq_check CHECK (last_seq >= 0),"
	" CONSTRAINT rf_streams_retention_class_check"
	" CHECK (retention_class IN ('hot', 'cold'))"
	") WITH (fillfactor = 60)",

	"CREATE SEQUENCE %s.events_global_seq_seq",

	"CREATE TABLE %s.events ("
	" global_seq bigint NOT NULL,"
	" stream_id uuid NOT NULL,"
	" stream_seq integer NOT NULL,"
	" event_type text NOT NULL,"
	" body jsonb NOT NULL,"
	" headers jsonb NOT NULL DEFAULT '{}',"
	" causation_id uuid,"
	" correlation_id uuid,"
	" event_version integer NOT NULL DEFAULT 1,"
	" <events_tenant_id>,"
	" user_id text,"
	" is_tombstone boolean NOT NULL DEFAULT false,"
	" created_at timestamptz NOT NULL DEFAULT now(),"
	" bucket_month date NOT NULL"
	" DEFAULT date_trunc('month', now() AT TIME ZONE 'UTC')::date,"
	" retention_class text COLLATE \"C\" NOT NULL DEFAULT 'hot'"
	") PARTITION BY LIST (retention_class)",

	"ALTER SEQUENCE %s.events_global_seq_seq OWNED BY %s.events.global_seq",

	BRANCH("events_hot"),
	ATTACH_BRANCH("events_hot", "hot"),
	LEAF_OF_BRANCH("events_hot_default", "hot"),
	BRANCH("events_cold"),
	"ALTER TABLE %s.events_cold"
	" ALTER COLUMN retention_class SET DEFAULT 'cold'",
	ATTACH_BRANCH("events_cold", "cold"),
	LEAF_OF_BRANCH("events_cold_default", "cold"),

	"CREATE TABLE %s.events_archive ("
	" LIKE %s.events INCLUDING DEFAULTS,"
	" migrated_at timestamptz,"
	" migrated_by text"
	") PARTITION BY RANGE (bucket_month)",

	"ALTER TABLE %s.events_archive"
	" ALTER COLUMN retention_class SET DEFAULT 'cold'",

	"CREATE TABLE %s.events_archive_default"
	" (LIKE %s.events_archive INCLUDING DEFAULTS)",

	"CREATE TABLE %s.rf_archive_config ("
	" singleton boolean NOT NULL DEFAULT true,"
	" backend text NOT NULL DEFAULT 'dual_table',"
	" redirect_enabled boolean NOT NULL DEFAULT false,"
	" include_archived_by_default boolean NOT NULL DEFAULT false,"
	" notify_enabled boolean NOT NULL DEFAULT false,"
	" CONSTRAINT rf_archive_config_pkey PRIMARY KEY (singleton),"
	" CONSTRAINT rf_archive_config_singleton_check CHECK (singleton),"
	" CONSTRAINT rf_archive_config_backend_check"
	" CHECK (backend IN ('dual_table', 'partitioned')))",

	"CREATE TABLE %s.rf_event_keys ("
	" idempotency_key text NOT NULL,"
	" stream_id uuid NOT NULL,"
	" <tenant_id>,"
	" stream_seq integer NOT NULL,"
	" global_seq bigint NOT NULL,"
	" created_at timestamptz NOT NULL DEFAULT now(),"
	" CONSTRAINT rf_event_keys_pkey"
	" PRIMARY KEY (<tenant_id,>idempotency_key))",

	"CREATE TABLE %s.rf_archive_log ("
	" log_id bigint GENERATED ALWAYS AS IDENTITY,"
	" logged_at timestamptz NOT NULL DEFAULT clock_timestamp(),"
	" actor text NOT NULL,"
	" action text NOT NULL,"
	" stream_id uuid,"
	" tenant_id text,"
	" bucket_month date,"
	" events bigint,"
	" estimated boolean NOT NULL DEFAULT false,"
	" streams bigint,"
	" duration interval,"
	" detail text,"
	" entries bigint NOT NULL DEFAULT 1,"
	" CONSTRAINT rf_archive_log_pkey PRIMARY KEY (log_id))",

	"CREATE INDEX rf_archive_log_stream_id ON %s.rf_archive_log"
	" (stream_id, log_id) WHERE stream_id IS NOT NULL",

	"CREATE INDEX rf_archive_log_left_open ON %s.rf_archive_log (stream_id)"
	" WHERE action = 'left open'",

	"CREATE INDEX rf_archive_log_flip ON %s.rf_archive_log (log_id)"
	" WHERE action IN ('flip', 'flips closed')",

	"CREATE INDEX rf_archive_log_flip_month ON %s.rf_archive_log"
	" (bucket_month, log_id DESC)"
	" WHERE action IN ('flip', 'flip back', 'flip counted', 'convert')",

	"CREATE TABLE %s.rf_archive_totals ("
	" slot integer NOT NULL,"
	" tenant_id text COLLATE \"C\" NOT NULL DEFAULT '',"
	" streams_marked bigint NOT NULL DEFAULT 0,"
	" streams_reactivated bigint NOT NULL DEFAULT 0,"
	" events_moved bigint NOT NULL DEFAULT 0,"
	" events_flipped bigint NOT NULL DEFAULT 0,"
	" events_flipped_excess bigint NOT NULL DEFAULT 0,"
	" events_redirected bigint NOT NULL DEFAULT 0,"
	" batch_microseconds bigint NOT NULL DEFAULT 0,"
	" batch_buckets bigint[] NOT NULL,"
	" flip_microseconds bigint NOT NULL DEFAULT 0,"
	" flip_buckets bigint[] NOT NULL,"
	" CONSTRAINT rf_archive_totals_pkey PRIMARY KEY (tenant_id, slot)"
	") WITH (fillfactor = 50)",

	"CREATE TABLE %s.rf_consumers ("
	" name text NOT NULL,"
	" last_global_seq bigint NOT NULL,"
	" updated_at timestamptz NOT NULL DEFAULT now(),"
	" CONSTRAINT rf_consumers_pkey PRIMARY KEY (name),"
	" CONSTRAINT rf_consumers_last_global_seq_check"
	" CHECK (last_global_seq >= 0)"
	") WITH (fillfactor = 50)",

	"CREATE TABLE %s.rf_archive_policies ("
	" name text NOT NULL,"
	" tenant_id text,"
	" owner name NOT NULL,"
	" older_than interval NOT NULL,"
	" every interval NOT NULL DEFAULT '1 hour',"
	" batch_size integer,"
	" window_start time,"
	" window_end time,"
	" time_zone text NOT NULL DEFAULT 'UTC',"
	" only_archived boolean NOT NULL DEFAULT false,"
	" premake integer NOT NULL DEFAULT 3,"
	" max_runtime interval NOT NULL DEFAULT '1 hour',"
	" max_replica_lag interval,"
	" created_at timestamptz NOT NULL DEFAULT now(),"
	" run_requested_at timestamptz,"
	" failures integer NOT NULL DEFAULT 0,"
	" failed_runs bigint NOT NULL DEFAULT 0,"
	" paused_at timestamptz,"
	" paused_because text,"
	" CONSTRAINT rf_archive_policies_pkey PRIMARY KEY (name),"
	" CONSTRAINT rf_archive_policies_times_check CHECK ("
	"older_than > '0' AND older_than <= '1000 years'"
	" AND every >= '1 second' AND every <= '1000 years'"
	" AND max_runtime > '0' AND max_runtime <= '1000 years'"
	" AND max_replica_lag > '0' AND max_replica_lag <= '1000 years'"
	" AND (window_start IS NULL) = (window_end IS NULL)"
	" AND window_start <> window_end"
	" AND timestamp '2000-01-01' AT TIME ZONE time_zone IS NOT NULL),"
	" CONSTRAINT rf_archive_policies_numbers_check CHECK ("
	"batch_size >= 1 AND batch_size <= 100000"
	" AND premake >= 0 AND premake <= 120"
	" AND failures >= 0))",

	"CREATE TABLE %s.rf_archive_runs ("
	" run_id bigint GENERATED ALWAYS AS IDENTITY,"
	" policy text NOT NULL,"
	" started_at timestamptz NOT NULL DEFAULT clock_timestamp(),"
	" finished_at timestamptz,"
	" events bigint NOT NULL DEFAULT 0,"
	" batches bigint NOT NULL DEFAULT 0,"
	" months bigint NOT NULL DEFAULT 0,"
	" expected bigint,"
	" batch_size integer,"
	" held_back_by text,"
	" error text,"
	" sqlstate text,"
	" pid integer,"
	" CONSTRAINT rf_archive_runs_pkey PRIMARY KEY (run_id)"
	") WITH (fillfactor = 50)",

	"CREATE INDEX rf_archive_runs_policy ON %s.rf_archive_runs"
	" (policy, run_id)",

	"CREATE TABLE %s.rf_holds ("
	" hold_id bigint GENERATED ALWAYS AS IDENTITY,"
	" stream_id uuid,"
	" tenant_id text,"
	" reason text NOT NULL,"
	" held_at timestamptz NOT NULL DEFAULT now(),"
	" held_by text NOT NULL DEFAULT session_user,"
	" CONSTRAINT rf_holds_pkey PRIMARY KEY (hold_id),"
	" CONSTRAINT rf_holds_stream_id_reason_key"
	" UNIQUE NULLS NOT DISTINCT (stream_id, tenant_id, reason),"
	" CONSTRAINT rf_holds_reason_check CHECK (reason <> ''))",
};

/* The default partitions: table, parent. */
static const char *const default_leaves[][2] = {
	{"events_hot_default", "events_hot"},
	{"events_cold_default", "events_cold"},
	{"events_archive_default", "events_archive"},
};

static const char *const comments[][2] = {
	{"rf_streams", "Streams: head, time range, mark"},
	{"events", "Events; insert here, or call rf_append()"},
	{"events_hot", "Hot events"},
	{"events_cold", "Cold events of the partitioned backend"},
	{"events_archive", "Cold events of the dual_table backend"},
	{"rf_archive_config", "Switches of the store; no row means the defaults"},
	{"rf_event_keys", "Idempotency keys of events"},
	{"rf_archive_log", "What was archived, by whom, when"},
	{"rf_archive_totals", "What was archived, in sums; read by rf_metrics()"},
	{"rf_consumers", "How far readers of rf_read_all() have come"},
	{"rf_archive_policies", "What a worker archives, and when"},
	{"rf_archive_runs", "What workers have done for the policies"},
	{"rf_holds", "What may be neither dropped nor redacted, and why"},
};

/* What a store has to have to be taken up: table, kind, columns. */
static const struct
{
	const char *name;
	char		relkind;
	const char *columns;
} expected_tables[] = {
	{"rf_streams", 'r',
	 "stream_id uuid,tenant_id text,last_seq int4,first_event_at timestamptz,"
	 "last_event_at timestamptz,archived_at timestamptz,archived_by text,"
	 "archive_reason text,retention_class text,created_at timestamptz,"
	 "updated_at timestamptz"},
	{"events", 'p',
	 "global_seq int8,stream_id uuid,stream_seq int4,event_type text,"
	 "body jsonb,headers jsonb,causation_id uuid,correlation_id uuid,"
	 "event_version int4,tenant_id text,user_id text,is_tombstone bool,"
	 "created_at timestamptz,bucket_month date,retention_class text"},
	{"events_hot", 'p', "global_seq int8"},
	{"events_cold", 'p', "global_seq int8"},
	{"events_archive", 'p',
	 "global_seq int8,stream_id uuid,stream_seq int4,event_type text,"
	 "body jsonb,headers jsonb"},
	{"rf_archive_config", 'r',
	 "singleton bool,backend text,redirect_enabled bool,"
	 "include_archived_by_default bool,notify_enabled bool"},
	{"rf_event_keys", 'r',
	 "idempotency_key text,stream_id uuid,tenant_id text,stream_seq int4,"
	 "global_seq int8,created_at timestamptz"},
	{"rf_archive_log", 'r',
	 "log_id int8,logged_at timestamptz,actor text,action text,"
	 "stream_id uuid,tenant_id text,bucket_month date,events int8,"
	 "estimated bool,streams int8,duration interval,detail text,entries int8"},
	{"rf_archive_totals", 'r',
	 "slot int4,tenant_id text,streams_marked int8,streams_reactivated int8,"
	 "events_moved int8,events_flipped int8,events_flipped_excess int8,events_redirected int8,"
	 "batch_microseconds int8,batch_buckets _int8,flip_microseconds int8,"
	 "flip_buckets _int8"},
	{"rf_consumers", 'r',
	 "name text,last_global_seq int8,updated_at timestamptz"},
	{"rf_archive_policies", 'r',
	 "name text,tenant_id text,owner name,older_than interval,every interval,batch_size int4,"
	 "window_start time,window_end time,time_zone text,only_archived bool,"
	 "premake int4,max_runtime interval,max_replica_lag interval,"
	 "created_at timestamptz,run_requested_at timestamptz,failures int4,"
	 "failed_runs int8,paused_at timestamptz,paused_because text"},
	{"rf_archive_runs", 'r',
	 "run_id int8,policy text,started_at timestamptz,finished_at timestamptz,"
	 "events int8,batches int8,months int8,expected int8,batch_size int4,"
	 "held_back_by text,error text,sqlstate text,pid int4"},
	{"rf_holds", 'r',
	 "hold_id int8,stream_id uuid,tenant_id text,reason text,"
	 "held_at timestamptz,held_by text"},
	{"rf_streams_pkey", 'i', ""},
	{"events_global_seq_seq", 'S', ""},
};

/*
 * Tables
 */

/* The length of a word of ours that the text begins with, and what it means. */
static size_t
find_ddl_word(const char *sql, bool conjoined, const char **meaning)
{
	for (int i = 0; i < lengthof(ddl_words); i++)
	{
		size_t len = strlen(ddl_words[i].word);

		if (strncmp(sql, ddl_words[i].word, len) != 0)
			continue;
		*meaning = conjoined ? ddl_words[i].conjoined : ddl_words[i].single;
		return len;
	}
	return 0;
}

/* A statement with those words replaced by what they mean. */
static char *
expand_ddl(const char *sql, bool conjoined)
{
	StringInfoData buf;

	initStringInfo(&buf);
	while (*sql != '\0')
	{
		const char *meaning;
		size_t		len = find_ddl_word(sql, conjoined, &meaning);

		if (len == 0)
			appendStringInfoChar(&buf, *sql++);
		else
			appendStringInfoString(&buf, meaning);
		sql += len;
	}
	return buf.data;
}

static void
create_tables(const char *schema, bool conjoined)
{
	const char *quoted = quote_identifier(schema);

	/* no statement names the schema more than twice */
	for (int i = 0; i < lengthof(store_ddl); i++)
		rf_query_ddl(expand_ddl(store_ddl[i], conjoined), quoted, quoted);
	for (int i = 0; i < lengthof(default_leaves); i++)
	{
		const char *name = default_leaves[i][0];
		char	   *leaf = rf_query_format("%s.%I", quoted, name);

		/* what months say by their bounds */
		rf_query_ddl("ALTER TABLE %s"
					 " ADD CONSTRAINT %I PRIMARY KEY (global_seq),"
					 " ADD CONSTRAINT " RF_TIE_CHECK " CHECK (" RF_TIE ")",
					 leaf, psprintf("%s_pkey", name));
		rf_partition_index_streams(name, leaf, conjoined, NULL);
		rf_query_ddl("ALTER TABLE %s.%I ATTACH PARTITION %s DEFAULT", quoted,
					 default_leaves[i][1], leaf);
	}
	rf_query_ddl(
		"ALTER TABLE %s.events ALTER COLUMN global_seq SET DEFAULT nextval(%L)",
		quoted, psprintf("%s.events_global_seq_seq", quoted));
	for (int i = 0; i < lengthof(comments); i++)
		rf_query_ddl("COMMENT ON TABLE %s.%I IS %L", quoted, comments[i][0],
					 comments[i][1]);
}

/*
 * The view that reads both tiers, with the columns that both tables have; the
 * generated ones can be missing in one of them.
 */
void
rf_install_create_view(Oid namespace_id)
{
	const char *quoted = quote_identifier(get_namespace_name(namespace_id));
	Oid			types[2] = {OIDOID, OIDOID};
	Datum		values[2];
	char	   *columns;

	values[0] = ObjectIdGetDatum(get_relname_relid("events", namespace_id));
	values[1] = ObjectIdGetDatum(
		get_relname_relid("events_archive", namespace_id));
	rf_query_once(
		"SELECT string_agg(quote_ident(e.attname), ', ' ORDER BY e.attnum)"
		" FROM pg_attribute AS e JOIN pg_attribute AS a"
		" ON a.attname = e.attname AND a.attrelid = $2"
		" AND NOT a.attisdropped"
		" WHERE e.attrelid = $1 AND e.attnum > 0 AND NOT e.attisdropped",
		2, types, values, NULL);
	columns = TextDatumGetCString(rf_query_must(0, 1));
	rf_query_ddl(
		"CREATE OR REPLACE VIEW %s.events_all WITH (security_invoker = true) AS"
		" SELECT %s FROM %s.events UNION ALL SELECT %s FROM %s.events_archive",
		quoted, columns, quoted, columns, quoted);
	rf_query_ddl("COMMENT ON VIEW %s.events_all IS %L", quoted,
				 "Events, hot and cold, in one statement");
}

/*
 * Triggers
 */

static void
create_trigger_calling(const char *table, const char *name, const char *when,
					   const char *level, const char *function)
{
	rf_query_ddl("DROP TRIGGER IF EXISTS %I ON %s", name, table);
	rf_query_ddl(
		"CREATE TRIGGER %I %s ON %s FOR EACH %s EXECUTE FUNCTION %I.%I()", name,
		when, table, level, get_namespace_name(rf_store_extension_schema()),
		function);
}

/* Most triggers bear the name of their function. */
static void
create_trigger(const char *table, const char *name, const char *when,
			   const char *level)
{
	create_trigger_calling(table, name, when, level, name);
}

static void
guard_leaves(Oid parent)
{
	List	 *leaves = rf_partition_list(parent);
	ListCell *cell;

	foreach(cell, leaves)
	{
		char *leaf = rf_store_relation_name(
			((RfPartition *) lfirst(cell))->relid);

		rf_query_ddl("DROP TRIGGER IF EXISTS rf_events_append_only ON %s",
					 leaf);
		rf_partition_guard(leaf);
	}
}

/*
 * What goes by months misses an event that is in another one than its time.  A
 * leaf that was made by hand may hold some: it is read for that, once.
 */
static void
tie_leaves(Oid parent)
{
	List	 *leaves = rf_partition_list(parent);
	Oid		  adopted = rf_store_adopted_leaf(parent);
	ListCell *cell;

	foreach(cell, leaves)
	{
		Oid	  leaf = ((RfPartition *) lfirst(cell))->relid;
		Oid	  types[1] = {OIDOID};
		Datum values[1] = {ObjectIdGetDatum(leaf)};

		if (leaf != adopted &&
			rf_query_once("SELECT FROM pg_constraint WHERE conrelid = $1"
						  " AND convalidated AND conname IN ('" RF_MONTH_CHECK
						  "', '" RF_TIE_CHECK "')",
						  1, types, values, NULL) == 0)
			rf_query_ddl("ALTER TABLE %s ADD CONSTRAINT " RF_TIE_CHECK
						 " CHECK (" RF_TIE ")",
						 rf_store_relation_name(leaf));
	}
}

static void
create_triggers(Oid namespace_id)
{
	const char *quoted = quote_identifier(get_namespace_name(namespace_id));
	char	   *events = psprintf("%s.events", quoted);
	char	   *config = psprintf("%s.rf_archive_config", quoted);
	const char *const parents[] = {"events_hot", "events_cold",
								   "events_archive"};

	create_trigger(events, "rf_events_open", "BEFORE INSERT", "STATEMENT");
	create_trigger(events, "rf_events_redirect_archived", "BEFORE INSERT",
				   "ROW");
	create_trigger(events, "rf_events_close", "AFTER INSERT", "STATEMENT");
	create_trigger(events, "rf_events_append_only",
				   "BEFORE UPDATE OR DELETE OR TRUNCATE", "STATEMENT");
	for (int i = 0; i < lengthof(parents); i++)
	{
		create_trigger(psprintf("%s.%s", quoted, parents[i]),
					   "rf_events_append_only",
					   "BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE",
					   "STATEMENT");
		guard_leaves(get_relname_relid(parents[i], namespace_id));
	}
	create_trigger(psprintf("%s.rf_archive_log", quoted),
				   "rf_events_append_only",
				   "BEFORE UPDATE OR DELETE OR TRUNCATE", "STATEMENT");
	/* by row, since logical replication fires no others but for TRUNCATE */
	create_trigger_calling(config, "rf_config_changed",
						   "AFTER INSERT OR UPDATE OR DELETE", "ROW",
						   "rf_config_changed");
	create_trigger_calling(config, "rf_config_truncated", "AFTER TRUNCATE",
						   "STATEMENT", "rf_config_changed");
	rf_query_ddl("ALTER TABLE %s ENABLE ALWAYS TRIGGER rf_config_changed,"
				 " ENABLE ALWAYS TRIGGER rf_config_truncated",
				 config);
	create_trigger(psprintf("%s.rf_archive_policies", quoted),
				   "rf_policies_changed",
				   "AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE", "STATEMENT");
}

static void
drop_triggers_of(const char *table, const char *const *names)
{
	for (int i = 0; names[i] != NULL; i++)
		rf_query_ddl("DROP TRIGGER IF EXISTS %I ON %s", names[i], table);
}

void
rf_install_drop_triggers(const RfStore *store)
{
	static const char *const names[] = {"rf_events_open",
										"rf_events_redirect_archived",
										"rf_events_close",
										"rf_events_append_only",
										"rf_config_changed",
										"rf_config_truncated",
										"rf_policies_changed",
										NULL};
	const Oid				 parents[] = {store->events_hot, store->events_cold,
										  store->events_archive};

	drop_triggers_of(rf_store_relation_name(store->events), names);
	drop_triggers_of(rf_store_relation_name(store->config), names);
	drop_triggers_of(rf_store_relation_name(store->log), names);
	drop_triggers_of(rf_store_relation_name(store->policies), names);
	for (int i = 0; i < lengthof(parents); i++)
	{
		List	 *leaves = rf_partition_list(parents[i]);
		ListCell *cell;

		drop_triggers_of(rf_store_relation_name(parents[i]), names);
		foreach(cell, leaves)
			drop_triggers_of(rf_store_relation_name(
								 ((RfPartition *) lfirst(cell))->relid),
							 names);
	}
}

/*
 * The registry
 */

static void
write_registry(const char *sql, const char *schema, const char *tenant,
			   const char *tenancy)
{
	Oid registry = get_relname_relid("rf_stores", rf_store_extension_schema());
	Oid types[4] = {NAMEOID, TEXTOID, TEXTOID, INT4OID};
	Datum	values[4];
	char	nulls[4] = {' ', ' ', ' ', ' '};
	RfScope scope;

	values[0] = DirectFunctionCall1(namein, CStringGetDatum(schema));
	values[1] = tenant == NULL ? (Datum) 0 : CStringGetTextDatum(tenant);
	nulls[1] = tenant == NULL ? 'n' : ' ';
	values[2] = CStringGetTextDatum(tenancy);
	values[3] = Int32GetDatum(RF_LAYOUT_VERSION);
	/* it belongs to the extension's owner, and only that role writes it */
	rf_query_begin(&scope, rf_store_relation_owner(registry),
				   SECURITY_RESTRICTED_OPERATION);
	rf_query_once(rf_query_format(sql, rf_store_relation_name(registry)), 4,
				  types, values, nulls);
	rf_query_end(&scope);
	CacheInvalidateRelcacheByRelid(registry);
	CommandCounterIncrement();
}

void
rf_install_register(const char *schema, const char *tenant, const char *tenancy)
{
	write_registry(
		"INSERT INTO %s AS s (schema, tenant, tenancy, layout_version)"
		" VALUES ($1, $2, $3, $4) ON CONFLICT (schema)"
		" DO UPDATE SET tenant = coalesce(excluded.tenant, s.tenant),"
		" tenancy = excluded.tenancy",
		schema, tenant, tenancy);
}

/* The store in a schema has the layout that we make. */
void
rf_install_note_layout(const char *schema)
{
	write_registry("UPDATE %s SET layout_version = $4 WHERE schema = $1"
				   " AND $2::text IS NULL AND $3::text IS NOT NULL",
				   schema, NULL, "");
}

void
rf_install_unregister(const char *schema)
{
	write_registry("DELETE FROM %s WHERE schema = $1 AND $2::text IS NULL"
				   " AND $3::text IS NOT NULL AND $4::integer IS NOT NULL",
				   schema, NULL, "");
	rf_policy_disarm_all(schema);
}

/*
 * Installing
 */

/* Does the schema have any relation that bears a name of ours? */
static bool
names_are_taken(Oid namespace_id)
{
	for (int i = 0; i < lengthof(expected_tables); i++)
	{
		if (OidIsValid(
				get_relname_relid(expected_tables[i].name, namespace_id)))
			return true;
	}
	for (int i = 0; i < lengthof(default_leaves); i++)
	{
		if (OidIsValid(get_relname_relid(default_leaves[i][0], namespace_id)))
			return true;
	}
	return OidIsValid(get_relname_relid("events_all", namespace_id));
}

static void
refuse_take_up(Oid namespace_id, const char *name, const char *what)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		 errmsg("schema \"%s\" does not hold a store that could be taken up",
				get_namespace_name(namespace_id)),
		 errdetail("Relation \"%s\" %s.", name, what),
		 errhint(
			 "Move the relations that bear names of a store elsewhere, or restore the store whole.")));
}

/* Columns of a relation as "name type,name type", in its order. */
static char *
column_signature(Oid relid)
{
	Oid	  types[1] = {OIDOID};
	Datum values[1];
	bool  isnull;
	Datum result;

	values[0] = ObjectIdGetDatum(relid);
	rf_query_once(
		"SELECT string_agg(a.attname || ' ' || t.typname, ','"
		" ORDER BY a.attnum)"
		" FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid"
		" WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped",
		1, types, values, NULL);
	result = rf_query_value(0, 1, &isnull);
	return isnull ? "" : TextDatumGetCString(result);
}

static void
require_in_tree(Oid namespace_id, const char *child, const char *parent)
{
	Oid	  types[2] = {OIDOID, OIDOID};
	Datum values[2];

	values[0] = ObjectIdGetDatum(get_relname_relid(child, namespace_id));
	values[1] = ObjectIdGetDatum(get_relname_relid(parent, namespace_id));
	if (rf_query_once(
			"SELECT 1 FROM pg_inherits WHERE inhrelid = $1 AND inhparent = $2",
			2, types, values, NULL) == 0)
		refuse_take_up(namespace_id, child,
					   psprintf("is no partition of \"%s\"", parent));
}

/* All leaves, months and defaults, have to belong to the store's owner. */
static void
require_leaves_of(Oid namespace_id, const char *parent, Oid owner)
{
	List *leaves = rf_partition_list(get_relname_relid(parent, namespace_id));
	ListCell *cell;

	foreach(cell, leaves)
	{
		Oid relid = ((RfPartition *) lfirst(cell))->relid;

		if (rf_store_relation_owner(relid) != owner)
			refuse_take_up(namespace_id, get_rel_name(relid),
						   "has another owner");
	}
}

/* Refuse what is not a complete store of one owner, who is the caller. */
static void
require_complete_store(Oid namespace_id)
{
	Oid owner = InvalidOid;

	for (int i = 0; i < lengthof(expected_tables); i++)
	{
		const char *name = expected_tables[i].name;
		const char *columns = expected_tables[i].columns;
		Oid			relid = get_relname_relid(name, namespace_id);

		if (!OidIsValid(relid))
			refuse_take_up(namespace_id, name, "is missing");
		if (get_rel_relkind(relid) != expected_tables[i].relkind)
			refuse_take_up(namespace_id, name, "is of another kind");
		if (*columns != '\0' &&
			strncmp(column_signature(relid), columns, strlen(columns)) != 0)
			refuse_take_up(namespace_id, name, "has other columns");
		if (OidIsValid(owner) && rf_store_relation_owner(relid) != owner)
			refuse_take_up(namespace_id, name, "has another owner");
		owner = rf_store_relation_owner(relid);
		if (!rf_compat_owns_relation(relid, GetUserId()))
			aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, name);
	}
	/* the view is made anew, unless another thing bears its name */
	if (OidIsValid(get_relname_relid("events_all", namespace_id)) &&
		get_rel_relkind(get_relname_relid("events_all", namespace_id)) !=
			RELKIND_VIEW)
		refuse_take_up(namespace_id, "events_all", "is of another kind");
	require_in_tree(namespace_id, "events_hot", "events");
	require_in_tree(namespace_id, "events_cold", "events");
	for (int i = 0; i < lengthof(default_leaves); i++)
	{
		require_in_tree(namespace_id, default_leaves[i][0],
						default_leaves[i][1]);
		require_leaves_of(namespace_id, default_leaves[i][1], owner);
	}
}

static void
create_months(Oid namespace_id)
{
	RfStore *store = rf_store_in(namespace_id, false);
	DateADT	 month = rf_partition_month_of(GetCurrentTimestamp());

	for (int i = 0; i <= MONTHS_AHEAD; i++)
	{
		(void) rf_partition_create(store, RF_HOT, month, NULL);
		month = rf_partition_next_month(month);
		store = rf_store_in(namespace_id, false);
	}
}

/*
 * With wal_level minimal a sequence that is used in the transaction which made
 * it gives out the same numbers again after a crash.  Started anew, it writes
 * the next number to the log.  That gives it another file, and to remove the
 * first one all shared buffers are searched; so it is done only where it must.
 */
void
rf_install_restart_log(const char *schema)
{
	const char *quoted = quote_identifier(schema);

	if (XLogIsNeeded())
		return;
	rf_query_once(rf_query_format("SELECT (coalesce(max(log_id), 0) + 1)::text"
								  " FROM %s.rf_archive_log",
								  quoted),
				  0, NULL, NULL, NULL);
	rf_query_ddl(
		"ALTER TABLE %s.rf_archive_log ALTER COLUMN log_id RESTART WITH %s",
		quoted, TextDatumGetCString(rf_query_must(0, 1)));
}

/* Make the store in a schema that has none of its names. */
void
rf_install_create_store(Oid namespace_id, const char *tenant,
						const char *tenancy)
{
	const char *schema = get_namespace_name(namespace_id);
	RfScope		scope;

	rf_install_register(schema, tenant, tenancy);
	/* what an earlier store of that name has left behind */
	rf_policy_disarm_all(schema);
	rf_query_begin(&scope, InvalidOid, 0);
	rf_query_be_quiet();
	create_tables(schema, strcmp(tenancy, TENANCY_CONJOINED) == 0);
	rf_install_create_view(namespace_id);
	create_triggers(namespace_id);
	create_months(namespace_id);
	rf_install_restart_log(schema);
	rf_query_end(&scope);
}

/*
 * Events may have been inserted while nobody kept the books: bring heads,
 * sequence and keys up to what the events say.
 */
static void
catch_up(const RfStore *store)
{
	const char *all = rf_store_relation_name(store->events_all);
	const char *streams = rf_store_relation_name(store->streams);
	const char *owner = store->conjoined ? "tenant_id, " : "";
	uint64		raised;

	rf_query_ddl("LOCK TABLE %s, %s IN SHARE ROW EXCLUSIVE MODE",
				 rf_store_relation_name(store->events),
				 rf_store_relation_name(store->events_archive));
	raised = rf_query_once(
		rf_query_format(
			"INSERT INTO %s AS s"
			" (%sstream_id, last_seq, first_event_at, last_event_at)"
			" SELECT %sstream_id, max(stream_seq), min(created_at),"
			" max(created_at) FROM %s GROUP BY %sstream_id"
			" ON CONFLICT (%sstream_id) DO UPDATE SET"
			" last_seq = greatest(s.last_seq, excluded.last_seq),"
			" first_event_at = least(s.first_event_at, excluded.first_event_at),"
			" last_event_at = greatest(s.last_event_at, excluded.last_event_at)"
			" WHERE s.last_seq < excluded.last_seq"
			" OR s.first_event_at IS DISTINCT FROM"
			" least(s.first_event_at, excluded.first_event_at)"
			" OR s.last_event_at IS DISTINCT FROM"
			" greatest(s.last_event_at, excluded.last_event_at)",
			streams, owner, owner, all, owner, owner),
		0, NULL, NULL, NULL);
	if (raised > 0)
		ereport(
			NOTICE,
			(errmsg(
				"rows of rf_streams that were behind their events: " UINT64_FORMAT,
				raised)));
	rf_query_once(
		rf_query_format(
			"SELECT setval(%L, greatest("
			"(SELECT max(global_seq) FROM %s), (SELECT last_value FROM %s)))",
			rf_store_relation_name(store->sequence), all,
			rf_store_relation_name(store->sequence)),
		0, NULL, NULL, NULL);
	rf_query_once(
		rf_query_format(
			"INSERT INTO %s"
			" (%sidempotency_key, stream_id, stream_seq, global_seq)"
			" SELECT %sheaders ->> 'idempotency_key', stream_id, stream_seq,"
			" global_seq FROM %s WHERE headers ->> 'idempotency_key' IS NOT NULL"
			" ORDER BY global_seq ON CONFLICT (%sidempotency_key) DO NOTHING",
			rf_store_relation_name(store->keys), owner, owner, all, owner),
		0, NULL, NULL, NULL);
}

static void
warn_of_broken_streams(const RfStore *store)
{
	const char *owner = store->conjoined ? "tenant_id, " : "";

	rf_query_once(
		rf_query_format(
			"SELECT count(*), min(stream_id::text) FROM"
			" (SELECT stream_id FROM %s AS s JOIN %s AS e USING (%sstream_id)"
			" GROUP BY %sstream_id, s.last_seq"
			" HAVING count(*) <> s.last_seq OR min(e.stream_seq) <> 1"
			" OR count(DISTINCT e.stream_seq) <> count(*)) AS broken",
			rf_store_relation_name(store->streams),
			rf_store_relation_name(store->events_all), owner, owner),
		0, NULL, NULL, NULL);
	if (DatumGetInt64(rf_query_must(0, 1)) > 0)
		ereport(
			WARNING,
			(errmsg("streams whose numbers have gaps or repeats: " INT64_FORMAT,
					DatumGetInt64(rf_query_must(0, 1))),
			 errdetail("One of them is %s.",
					   TextDatumGetCString(rf_query_must(0, 2)))));
}

/*
 * Make the triggers and the view of a store anew, which is complete and
 * registered.
 */
static void
renew_store(Oid namespace_id)
{
	RfScope scope;

	rf_query_begin(&scope,
				   rf_store_relation_owner(
					   get_relname_relid("events", namespace_id)),
				   SECURITY_RESTRICTED_OPERATION);
	rf_query_be_quiet();
	rf_query_limit_lock_waits(rf_guc_lock_timeout);
	rf_install_create_view(namespace_id);
	rf_store_require_same_columns(rf_store_in(namespace_id, false));
	create_triggers(namespace_id);
	/* after the tables above them are locked */
	for (int i = 0; i < lengthof(default_leaves); i++)
		tie_leaves(get_relname_relid(default_leaves[i][1], namespace_id));
	rf_query_end(&scope);
}

static void
check_complete_store(Oid namespace_id)
{
	RfScope scope;

	rf_query_begin(&scope, InvalidOid, 0);
	require_complete_store(namespace_id);
	rf_query_end(&scope);
}

/*
 * A store whose tables were brought to the layout that we make is taken up as
 * such.
 */
void
rf_install_take_up_layout(Oid namespace_id)
{
	check_complete_store(namespace_id);
	rf_install_note_layout(get_namespace_name(namespace_id));
	renew_store(namespace_id);
}

/* Is the tenant part of the key of streams in a complete store? */
static bool
tables_are_conjoined(Oid namespace_id)
{
	Relation index = index_open(get_relname_relid("rf_streams_pkey",
												  namespace_id),
								AccessShareLock);
	bool	 result = IndexRelationGetNumberOfKeyAttributes(index) > 1;

	index_close(index, AccessShareLock);
	return result;
}

/* Only the default store can be that of many tenants. */
static void
require_default(Oid namespace_id, const char *tenant)
{
	if (tenant != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a conjoined store is not that of one tenant"),
				 errhint(
					 "Leave \"tenant\" out; its tenants need not be made.")));
	if (namespace_id != rf_store_extension_schema())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("only the default store can be conjoined"),
				 errhint("It is in schema \"%s\", that of the extension.",
						 get_namespace_name(rf_store_extension_schema()))));
}

/* Which form has the store that is there?  It may be asked for, but not chosen.
 */
static const char *
find_tenancy(Oid namespace_id, const char *tenant, const char *asked_for)
{
	if (tables_are_conjoined(namespace_id))
	{
		require_default(namespace_id, tenant);
		return TENANCY_CONJOINED;
	}
	if (strcmp(asked_for, TENANCY_CONJOINED) == 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the store in schema \"%s\" is single",
					get_namespace_name(namespace_id)),
			 errhint(
				 "Remove it with rf_uninstall(), and install a conjoined one.")));
	return TENANCY_SINGLE;
}

/*
 * Take up a store that is there: its triggers and view are made anew.  One
 * that is registered has kept its books, and is not read through.  Its tables
 * tell of which form it is.
 */
static void
take_up_store(Oid namespace_id, const char *tenant, const char *tenancy)
{
	const char *schema = get_namespace_name(namespace_id);
	bool		registered = rf_store_is_registered(schema);
	RfScope		scope;

	check_complete_store(namespace_id);
	tenancy = find_tenancy(namespace_id, tenant, tenancy);
	rf_install_register(schema, tenant, tenancy);
	renew_store(namespace_id);
	if (!registered)
	{
		rf_query_begin(&scope, rf_store_in(namespace_id, false)->owner,
					   SECURITY_RESTRICTED_OPERATION);
		catch_up(rf_store_in(namespace_id, false));
		warn_of_broken_streams(rf_store_in(namespace_id, false));
		rf_query_end(&scope);
	}
}

/* The registry would hide a tenant that has streams in the default store. */
static void
require_no_streams_of(const char *tenant)
{
	RfStore *store = rf_store_in(rf_store_extension_schema(), true);
	Oid		 types[1] = {TEXTOID};
	Datum	 values[1];
	RfScope	 scope;
	bool	 found;

	if (store == NULL || !store->conjoined)
		return;
	values[0] = CStringGetTextDatum(tenant);
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	found = rf_query_once(
				rf_query_format("SELECT 1 FROM %s WHERE tenant_id = $1 LIMIT 1",
								rf_store_relation_name(store->streams)),
				1, types, values, NULL) > 0;
	rf_query_end(&scope);
	if (found)
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT),
						errmsg("tenant \"%s\" already exists", tenant),
						errdetail("It has streams in the conjoined store.")));
}

/* A tenant has one store. */
void
rf_install_require_free_tenant(const char *schema, const char *tenant)
{
	char *other = tenant == NULL ? NULL : rf_store_schema_of_tenant(tenant);

	if (other != NULL && !OidIsValid(get_namespace_oid(other, true)))
		rf_install_unregister(other); /* dropped, or renamed, with its schema */
	else if (other != NULL && strcmp(other, schema) != 0)
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT),
						errmsg("tenant \"%s\" already exists", tenant),
						errdetail("Its store is in schema \"%s\".", other)));
	if (tenant != NULL && other == NULL)
		require_no_streams_of(tenant);
}

static void
install_store(Oid namespace_id, const char *tenant, const char *tenancy)
{
	rf_install_require_free_tenant(get_namespace_name(namespace_id), tenant);
	if (names_are_taken(namespace_id))
		take_up_store(namespace_id, tenant, tenancy);
	else
		rf_install_create_store(namespace_id, tenant, tenancy);
}

/*
 * CREATE EXTENSION
 */

/* Is the statement being run CREATE EXTENSION IF NOT EXISTS rillflow? */
static bool
created_if_not_exists(void)
{
	List	 *statements;
	ListCell *cell;

	if (debug_query_string == NULL)
		return false;
	statements = raw_parser(debug_query_string, RAW_PARSE_DEFAULT);
	foreach(cell, statements)
	{
		Node *node = lfirst_node(RawStmt, cell)->stmt;

		if (IsA(node, CreateExtensionStmt) &&
			strcmp(castNode(CreateExtensionStmt, node)->extname, "rillflow") ==
				0)
			return castNode(CreateExtensionStmt, node)->if_not_exists;
	}
	return false;
}

/*
 * Was check_function_bodies on before the script of the extension began?  The
 * server switches it off for the script where it was on, and saves that.
 */
static bool
bodies_were_checked(void)
{
	struct config_generic *setting = rf_compat_find_setting(
		"check_function_bodies");

	return setting != NULL && setting->stack != NULL &&
		   setting->stack->state == GUC_SAVE &&
		   setting->stack->prior.val.boolval;
}

/* Tables that the script made are members now, and must not stay. */
static void
release_members(Oid namespace_id)
{
	RfScope scope;
	Oid		types[1] = {OIDOID};
	Datum	values[1];
	uint64	rows;
	char  **commands;

	values[0] = ObjectIdGetDatum(namespace_id);
	rf_query_begin(&scope, InvalidOid, 0);
	rows = rf_query_once(
		"SELECT format('ALTER EXTENSION rillflow DROP %s %I.%I',"
		" CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE'"
		" ELSE 'TABLE' END, n.nspname, c.relname)"
		" FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
		" JOIN pg_depend AS d ON d.classid = 'pg_class'::regclass"
		" AND d.objid = c.oid AND d.deptype = 'e'"
		" WHERE n.oid = $1 AND c.relname NOT IN ('rf_stores', 'rf_armed', 'rf_worker_status') ORDER BY c.oid",
		1, types, values, NULL);
	commands = palloc(sizeof(char *) * rows);
	for (uint64 i = 0; i < rows; i++)
		commands[i] = TextDatumGetCString(rf_query_must(i, 1));
	for (uint64 i = 0; i < rows; i++)
		rf_query_ddl("%s", commands[i]);
	rf_query_end(&scope);
}

/*
 * Removing
 */

static bool
holds_events(const RfStore *store)
{
	RfScope scope;
	bool	result;

	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	result =
		rf_query_once(
			psprintf("SELECT 1 FROM (SELECT FROM %s LIMIT 1) AS a"
					 " UNION ALL SELECT 1 FROM (SELECT FROM %s LIMIT 1) AS b",
					 rf_store_relation_name(store->events),
					 rf_store_relation_name(store->events_archive)),
			0, NULL, NULL, NULL) > 0;
	rf_query_end(&scope);
	return result;
}

static void
drop_tables(const RfStore *store)
{
	const Oid tables[] = {store->events,	store->events_archive,
						  store->streams,	store->config,
						  store->keys,		store->log,
						  store->consumers, store->policies,
						  store->runs,		store->holds,
						  store->totals};

	rf_query_ddl("DROP VIEW %s", rf_store_relation_name(store->events_all));
	for (int i = 0; i < lengthof(tables); i++)
		rf_query_ddl("DROP TABLE %s", rf_store_relation_name(tables[i]));
}

static void
refuse_events(const RfStore *store, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the store in schema \"%s\" holds events", store->schema),
			 errhint("%s", hint)));
}

static void
refuse_late_events(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("events were appended while the store was being removed")));
}

static void
lock_store(const RfStore *store)
{
	rf_query_ddl("LOCK TABLE %s, %s IN ACCESS EXCLUSIVE MODE",
				 rf_store_relation_name(store->events),
				 rf_store_relation_name(store->events_archive));
}

/*
 * Drop a store with all that is in it.  One with events is refused, unless
 * they may go, too; and one in which something is on hold.
 */
void
rf_install_drop_store(RfStore *store, bool with_events)
{
	RfScope scope;
	char   *schema = pstrdup(store->schema);

	rf_store_require_adopted(store);
	if (!with_events && holds_events(store))
		refuse_events(store, "With force => true they are dropped, too.");
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	rf_query_be_quiet();
	rf_query_limit_lock_waits(rf_guc_lock_timeout);
	lock_store(store);
	if (!with_events && holds_events(store))
		refuse_late_events();
	rf_hold_require_none(store);
	drop_tables(store);
	rf_query_end(&scope);
	rf_install_unregister(schema);
}

/*
 * Remove a store.  An empty one goes altogether; one with events is refused
 * or, when forced, becomes a set of ordinary tables, its events untouched.  One
 * in which something is on hold stays what it is, since those tables would
 * guard nothing.
 */
static void
uninstall_store(RfStore *store, bool force)
{
	RfScope scope;
	char   *schema = pstrdup(store->schema);
	bool	empty = !holds_events(store);

	rf_store_require_adopted(store);
	if (!empty && !force)
		refuse_events(
			store,
			"With force => true its tables become ordinary tables, which keep the events.");
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	rf_query_be_quiet();
	lock_store(store);
	if (empty && holds_events(store))
		refuse_late_events();
	rf_hold_require_none(store);
	rf_install_drop_triggers(store);
	if (empty)
		drop_tables(store);
	rf_query_end(&scope);
	rf_install_unregister(schema);
}

/*
 * SQL interface
 */

PG_FUNCTION_INFO_V1(rf_create_default_store);
PG_FUNCTION_INFO_V1(rf_install);
PG_FUNCTION_INFO_V1(rf_uninstall);

/* Called by the script of the extension, which drops it again. */
Datum
rf_create_default_store(PG_FUNCTION_ARGS)
{
	Oid namespace_id;

	if (!creating_extension)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("%s is for the script of the extension",
							   "rf_create_default_store()")));
	namespace_id = rf_store_extension_schema();
	if (created_if_not_exists() && !bodies_were_checked())
		ereport(
			WARNING,
			(errmsg(
				 "extension \"rillflow\" is being restored, and makes no tables"),
			 errhint(
				 "The dump brings them. If this is no restore, run rf_install(%s).",
				 quote_literal_cstr(get_namespace_name(namespace_id)))));
	else if (names_are_taken(namespace_id))
		ereport(
			WARNING,
			(errmsg(
				 "schema \"%s\" has relations with names of a store, and no store is made",
				 get_namespace_name(namespace_id)),
			 errhint("If they are a store, take it up with rf_install(%s).",
					 quote_literal_cstr(get_namespace_name(namespace_id)))));
	else
	{
		rf_install_create_store(namespace_id, NULL, TENANCY_SINGLE);
		release_members(namespace_id);
	}
	PG_RETURN_VOID();
}

static void
check_tenancy(const char *tenancy)
{
	if (strcmp(tenancy, TENANCY_SINGLE) != 0 &&
		strcmp(tenancy, TENANCY_CONJOINED) != 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("\"%s\" is not a form of tenancy", tenancy),
						errhint("Use \"single\" or \"conjoined\".")));
}

Datum
rf_install(PG_FUNCTION_ARGS)
{
	char *tenant = RF_GETARG_STRING(1);
	char *tenancy = PG_ARGISNULL(2) ? TENANCY_SINGLE :
									  text_to_cstring(PG_GETARG_TEXT_PP(2));
	Oid	  namespace_id;

	PreventCommandIfReadOnly("rf_install()");
	rf_query_require_read_committed("rf_install()");
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("\"schema\" must not be null")));
	if (tenant != NULL)
		rf_store_check_tenant(tenant);
	check_tenancy(tenancy);
	namespace_id = get_namespace_oid(NameStr(*PG_GETARG_NAME(0)), false);
	if (!rf_compat_owns_schema(namespace_id, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_SCHEMA,
					   NameStr(*PG_GETARG_NAME(0)));
	if (strcmp(tenancy, TENANCY_CONJOINED) == 0)
		require_default(namespace_id, tenant);
	install_store(namespace_id, tenant, tenancy);
	PG_RETURN_VOID();
}

Datum
rf_uninstall(PG_FUNCTION_ARGS)
{
	Oid		 namespace_id;
	RfStore *store;

	PreventCommandIfReadOnly("rf_uninstall()");
	rf_query_require_read_committed("rf_uninstall()");
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) ||
		strcmp(NameStr(*PG_GETARG_NAME(0)), NameStr(*PG_GETARG_NAME(1))) != 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("\"confirm\" must repeat \"schema\"")));
	namespace_id = get_namespace_oid(NameStr(*PG_GETARG_NAME(0)), false);
	store = rf_store_in(namespace_id, false);
	if (!rf_compat_owns_relation(store->events, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, "events");
	uninstall_store(store, !PG_ARGISNULL(2) && PG_GETARG_BOOL(2));
	PG_RETURN_VOID();
}
