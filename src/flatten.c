/*-------------------------------------------------------------------------
 *
 * flatten.c
 *	  Flattening a store: the way back to plain tables.
 *
 * Events and events_archive become plain tables, which hold what was hot and
 * what was cold, in whichever backend.  Their columns are those of the store
 * but for bucket_month, which is for partitions alone.  Rows are copied, leaf
 * by leaf, in one transaction that keeps everybody else out: it is meant for a
 * window, as the migration is that it stands for.
 *
 * rf_streams, rf_archive_log, rf_archive_totals, rf_archive_runs, rf_consumers
 * and rf_holds stay as tables.  What only functions use goes: switches,
 * policies, keys, the view, triggers, the registration.
 *
 * Locks: ACCESS EXCLUSIVE on events, events_archive, all of their leaves, and
 * rf_streams, waited for as lock.c says, and held to the end of the
 * transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "install.h"
#include "ledger.h"
#include "lock.h"
#include "model.h"
#include "partition.h"
#include "query.h"
#include "source.h"
#include "store.h"
#include "wait_point.h"

/* of rows e; a column of theirs may be called e */
#define CHECKSUM                                                  \
	"coalesce(sum(hashtextextended((e.*)::text, 0)::numeric), 0)" \
	"::text"

/* A plain table that is being filled. */
typedef struct Flat
{
	RfStore	   *store;
	Oid			root;	 /* that it takes the place of */
	const char *name;	 /* of that */
	char	   *interim; /* the plain table until then, qualified */
	char	   *columns;
	int64		events;
} Flat;

typedef struct Sum
{
	int64 events;
	char *checksum;
} Sum;

/* Who opens a leaf by itself, as a subscriber does, holds no lock above. */
static void
lock_leaves(const RfLockLimit *limit, Oid parent)
{
	List	 *leaves = rf_partition_list(parent);
	ListCell *cell;

	foreach(cell, leaves)
		rf_lock_table(limit, ((RfPartition *) lfirst(cell))->relid,
					  AccessExclusiveLock);
}

static void
lock_tables(void *arg)
{
	RfStore	   *store = arg;
	RfLockLimit limit;
	RfScope		scope;

	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	rf_lock_begin(&limit);
	rf_lock_makers(&limit, store->namespace_id);
	rf_lock_table(&limit, store->events, AccessExclusiveLock);
	rf_lock_table(&limit, store->events_archive, AccessExclusiveLock);
	store = rf_store_in(store->namespace_id, false);
	rf_lock_table(&limit, store->events_hot, AccessExclusiveLock);
	rf_lock_table(&limit, store->events_cold, AccessExclusiveLock);
	lock_leaves(&limit, store->events_hot);
	lock_leaves(&limit, store->events_cold);
	lock_leaves(&limit, store->events_archive);
	rf_lock_table(&limit, store->streams, AccessExclusiveLock);
	rf_query_end(&scope);
}

static void
begin_flat(Flat *flat, RfStore *store, Oid root, const char *name,
		   const char *interim)
{
	flat->store = store;
	flat->root = root;
	flat->name = name;
	flat->interim = quote_qualified_identifier(store->schema, interim);
	flat->columns = rf_store_column_list(root, "bucket_month", NULL);
	flat->events = 0;
	rf_query_ddl("CREATE TABLE %s (LIKE %s INCLUDING COMPRESSION"
				 " INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING STORAGE)",
				 flat->interim, rf_store_relation_name(root));
	rf_query_ddl("ALTER TABLE %s DROP COLUMN bucket_month", flat->interim);
}

static void
report_progress(const Flat *flat, Oid leaf)
{
	char *message = psprintf("copied \"%s\", " INT64_FORMAT
							 " events of \"%s\" so far",
							 get_rel_name(leaf), flat->events, flat->name);

	ereport(NOTICE, (errmsg_internal("%s", message)));
	pgstat_report_activity(STATE_RUNNING, psprintf("rf_flatten: %s", message));
}

/* Copy the leaves below a parent; what is cold is told by its class. */
static void
copy_leaves(Flat *flat, Oid parent)
{
	List	 *leaves = rf_partition_list(parent);
	bool	  archive = flat->root != flat->store->events;
	bool	  audited = parent == flat->store->events_archive;
	char	 *columns = archive && !audited ?
							rf_store_column_list(parent, "bucket_month", NULL) :
							flat->columns;
	ListCell *cell;

	foreach(cell, leaves)
	{
		Oid	   leaf = ((RfPartition *) lfirst(cell))->relid;
		uint64 rows;

		CHECK_FOR_INTERRUPTS();
		rows =
			rf_query_once(psprintf("INSERT INTO %s (%s) SELECT %s FROM ONLY %s"
								   " ORDER BY global_seq",
								   flat->interim, columns, columns,
								   rf_store_relation_name(leaf)),
						  0, NULL, NULL, NULL);
		flat->events += rows;
		if (rows > 0)
			report_progress(flat, leaf);
	}
}

/* Indexes come last, which is cheaper, and so do rights. */
static void
end_flat(const Flat *flat)
{
	char *interim = psprintf("%s_interim", flat->name);
	Oid	  relid = get_relname_relid(interim, flat->store->namespace_id);

	rf_query_ddl("ALTER TABLE %s ADD CONSTRAINT %I PRIMARY KEY (global_seq),"
				 " ADD CONSTRAINT %I UNIQUE (stream_id, stream_seq)",
				 flat->interim, psprintf("%s_pkey", flat->name),
				 psprintf("%s_stream_id_stream_seq_key", flat->name));
	rf_model_take(flat->root, relid,
				  RF_MODEL_CHECKS | RF_MODEL_INDEXES | RF_MODEL_RIGHTS |
					  RF_MODEL_POLICIES | RF_MODEL_COMMENTS);
}

/* Count and checksum of two tables, or of a view, by the columns given. */
static void
sum_up(Sum *sum, const char *columns, Oid first, Oid second)
{
	rf_query_once(psprintf("SELECT count(*), " CHECKSUM " FROM (SELECT %s FROM"
						   " %s UNION ALL SELECT %s FROM %s) AS e",
						   columns, rf_store_relation_name(first), columns,
						   rf_store_relation_name(second)),
				  0, NULL, NULL, NULL);
	sum->events = DatumGetInt64(rf_query_must(0, 1));
	sum->checksum = TextDatumGetCString(rf_query_must(0, 2));
}

static void
prove(const Sum *before, const Sum *after)
{
	if (before->events != after->events ||
		strcmp(before->checksum, after->checksum) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the plain tables do not hold what the store holds"),
				 errdetail("Of " INT64_FORMAT
						   " events with checksum %s, " INT64_FORMAT
						   " with checksum %s were copied.",
						   before->events, before->checksum, after->events,
						   after->checksum),
				 errhint("Nothing was changed; report this.")));
}

/* Whoever is tied to the tables of the store would lose them. */
static void
require_unused(const RfStore *store)
{
	const Oid parents[] = {store->events_hot, store->events_cold,
						   store->events_archive};

	rf_source_check_use(store->events, store->events_all);
	rf_source_check_use(store->events_all, store->events_all);
	for (int i = 0; i < lengthof(parents); i++)
	{
		List	 *leaves = rf_partition_list(parents[i]);
		ListCell *cell;

		rf_source_check_use(parents[i], store->events_all);
		foreach(cell, leaves)
			rf_source_check_use(((RfPartition *) lfirst(cell))->relid,
								InvalidOid);
	}
}

/* The tables of the store go, and those that were filled take their names. */
static void
change_places(const RfStore *store, Flat *hot, Flat *cold)
{
	const char *sequence = rf_store_relation_name(store->sequence);
	Flat	   *flats[] = {hot, cold};
	RfScope		scope;

	rf_query_begin(&scope, InvalidOid, 0);
	rf_query_be_quiet();
	rf_query_ddl("DROP VIEW %s", rf_store_relation_name(store->events_all));
	rf_install_drop_triggers(store);
	rf_query_ddl("ALTER TABLE %s ALTER COLUMN global_seq DROP DEFAULT",
				 cold->interim);
	rf_query_ddl("ALTER SEQUENCE %s OWNED BY %s.global_seq", sequence,
				 hot->interim);
	for (int i = 0; i < lengthof(flats); i++)
	{
		Oid relid = get_relname_relid(psprintf("%s_interim", flats[i]->name),
									  store->namespace_id);

		rf_model_take(flats[i]->root, relid, RF_MODEL_TRIGGERS);
		rf_query_ddl("DROP TABLE %s", rf_store_relation_name(flats[i]->root));
		rf_query_ddl("ALTER TABLE %s RENAME TO %I", flats[i]->interim,
					 flats[i]->name);
	}
	rf_query_ddl("DROP TABLE %s, %s, %s", rf_store_relation_name(store->config),
				 rf_store_relation_name(store->keys),
				 rf_store_relation_name(store->policies));
	rf_query_end(&scope);
}

static void
note(RfStore *store, const Sum *sum, const Flat *cold, TimestampTz started_at)
{
	RfLedgerEntry entry = RF_LEDGER_ENTRY("flatten");

	entry.events = sum->events;
	entry.started_at = started_at;
	entry.detail = psprintf("%s hot, " INT64_FORMAT " cold, checksum %s",
							psprintf(INT64_FORMAT, sum->events - cold->events),
							cold->events, sum->checksum);
	rf_ledger_write(store, &entry);
}

/* Turn a store into plain tables; returns how many events they hold. */
static int64
flatten(RfStore *store)
{
	TimestampTz started_at = GetCurrentTimestamp();
	char	   *schema = pstrdup(store->schema);
	Flat		hot;
	Flat		cold;
	Sum			before;
	Sum			after;
	RfScope		scope;

	if (store->conjoined)
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg(
				 "the store in schema \"%s\" is conjoined, and cannot be flattened",
				 store->schema),
			 errhint("Copy the events of a tenant out of \"events_all\".")));
	rf_lock_retry(lock_tables, store);
	store = rf_store_in(store->namespace_id, false);
	rf_store_require_adopted(store);
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	rf_query_fix_text();
	require_unused(store);
	begin_flat(&hot, store, store->events, "events", "events_interim");
	begin_flat(&cold, store, store->events_archive, "events_archive",
			   "events_archive_interim");
	copy_leaves(&hot, store->events_hot);
	copy_leaves(&cold, store->events_archive);
	copy_leaves(&cold, store->events_cold);
	end_flat(&hot);
	end_flat(&cold);
	RF_WAIT_POINT("flatten_copied");
	sum_up(&before, hot.columns, store->events, store->events_archive);
	sum_up(&after, hot.columns,
		   get_relname_relid("events_interim", store->namespace_id),
		   get_relname_relid("events_archive_interim", store->namespace_id));
	prove(&before, &after);
	note(store, &after, &cold, started_at);
	change_places(store, &hot, &cold);
	rf_query_end(&scope);
	rf_install_unregister(schema);
	RF_WAIT_POINT("flatten_before_commit");
	return after.events;
}

/*
 * SQL interface
 */

PG_FUNCTION_INFO_V1(rf_flatten);

Datum
rf_flatten(PG_FUNCTION_ARGS)
{
	char *tenant = RF_GETARG_STRING(0);

	PreventCommandIfReadOnly("rf_flatten()");
	rf_query_require_read_committed("rf_flatten()");
	PG_RETURN_INT64(flatten(rf_store_get_whole(tenant, RF_RIGHT_OWN)));
}
