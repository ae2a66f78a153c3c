/*-------------------------------------------------------------------------
 *
 * adopt.c
 *	  Adopting a plain table of events: the way into a store.
 *
 * The source becomes a partition of the new store, and its rows are carried to
 * their months afterwards, in batches.  What lies in it is in the store from
 * the moment of the switch, and whoever reads or appends goes on: "events" is
 * the new table, and shows old and new events, each once, in any snapshot.
 *
 *	prepare		Rows of rf_streams and keys are made in a schema of our own,
 *				from all that the source holds.  A trigger on the source notes
 *				the streams that change meanwhile (watch.c).  All months are
 *				made, with columns, rights and whatever else is taken over.
 *	catch up	What is known of noted streams is made anew, until few are left.
 *	switch		Under ACCESS EXCLUSIVE on the source: has it been altered?  The
 *				last noted streams; the source is renamed, fitted and attached,
 *				the new tables come in.  Nothing in it depends on the number of
 *				events.
 *	count		The source, which nobody writes any more, is counted.
 *	carry		Batches: DELETE from the source feeds INSERT into its months.
 *				What comes has to have the checksum of what goes.
 *	finish		As many have to have come as were counted.  The empty source
 *				goes.
 *
 * A partition holds rows of one range of bucket_month.  Rows of the source have
 * none yet: '-infinity' for all of them, a default that is kept in the catalog,
 * and no row is written.  That partition is also how a store, and whoever
 * restores a dump of it, knows that it is being adopted: then rf_adopt() goes
 * on where it stopped.  What waits for the end, moves among them, asks
 * rf_store_require_adopted().
 *
 * What crashes before the switch leaves our schema and our triggers, which the
 * next call takes away; an error takes them away itself, where it gets the
 * locks for it at the first attempt.
 *
 * Locks, each within rillflow.lock_timeout (lock.c): SHARE ROW EXCLUSIVE on the
 * source, to make the triggers; ACCESS EXCLUSIVE on it, to switch; SHARE ROW
 * EXCLUSIVE on it once it is empty; ACCESS EXCLUSIVE on events and
 * events_archive, to finish.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "rewrite/rewriteHandler.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "flip.h"
#include "guc.h"
#include "install.h"
#include "ledger.h"
#include "lock.h"
#include "model.h"
#include "partition.h"
#include "query.h"
#include "source.h"
#include "store.h"
#include "wait_point.h"
#include "watch.h"

/* Events that go to their months in one transaction. */
#define CARRY_BATCH 5000

/* When so little has changed since we looked, it is time to switch. */
#define FEW_CHANGES 500
#define MAX_ROUNDS 20

#define PROGRESS_INTERVAL_MS 1000

/* How long to wait for those who still see rows in the emptied source. */
#define UNSEEN_PAUSE_MS 100
#define UNSEEN_LONGEST_MS 10000

/* key spaces of the session's locks on what it adopts, and where to */
#define SOURCE_LOCK_CLASS 7272
#define TARGET_LOCK_CLASS 7273

/* notes that are being looked at */
#define TAKEN "rf_adopt_taken"

/* of rows e, in any order; a column of theirs may be called e */
#define CHECKSUM                                                  \
	"coalesce(sum(hashtextextended((e.*)::text, 0)::numeric), 0)" \
	"::text"

typedef struct Adoption
{
	MemoryContext context; /* lives as long as we do */
	MemoryContext step;	   /* emptied after each step */
	RfSource	  source;
	Oid			  target; /* schemas */
	Oid			  staging;
	char		 *staging_name;
	char		 *tenant;
	char		 *name; /* of the source, for the ledger */
	bool		  in_place;
	TimestampTz	  started_at;
	TimestampTz	  reported_at;
	bool		  was_partitioned; /* the store that takes the events */
	int64		  boundary; /* global_seq of adopted events is not higher */
	int64		  events;	/* of the source */
	int64		  carried;
	char		 *checksum;
	char		 *source_state; /* as it was when it was taken over */
	char		 *target_state;
	int			  nlocks; /* of the session */
	struct
	{
		int32 class;
		Oid object;
	} locks[2];
	int64 changes; /* that the last round has taken up */
} Adoption;

/*
 * Transactions
 */

static void
begin_step(Adoption *adoption)
{
	PushActiveSnapshot(GetTransactionSnapshot());
	rf_query_require_read_committed("rf_adopt()");
	MemoryContextSwitchTo(adoption->step);
}

static void
end_step(Adoption *adoption)
{
	MemoryContextSwitchTo(adoption->context);
	MemoryContextReset(adoption->step);
	PopActiveSnapshot();
	rf_query_commit();
	MemoryContextSwitchTo(adoption->context);
}

static void
begin_scope(const Adoption *adoption, RfScope *scope)
{
	rf_query_begin(scope, adoption->source.owner,
				   SECURITY_RESTRICTED_OPERATION);
	rf_query_be_quiet();
}

/* A table of the schema where the store is prepared, by its name. */
static char *
staged(const Adoption *adoption, const char *name)
{
	return quote_qualified_identifier(adoption->staging_name, name);
}

static int64
ask_number(const char *sql)
{
	rf_query_once(sql, 0, NULL, NULL, NULL);
	return DatumGetInt64(rf_query_must(0, 1));
}

/*
 * Watching
 */

/* Lock the tables of the source; one can have been dropped until then. */
static void
lock_source(const Adoption *adoption, const RfLockLimit *limit, LOCKMODE mode)
{
	Oid tables[RF_SOURCE_TABLES];
	int count = rf_source_tables(&adoption->source, tables);

	for (int i = 0; i < count; i++)
	{
		rf_lock_table(limit, tables[i], mode);
		if (get_rel_name(tables[i]) == NULL)
			ereport(
				ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("a table was dropped while \"%s\" was being adopted",
						adoption->name),
				 errhint("Call rf_adopt() again, if there is anything left"
						 " to adopt.")));
	}
}

/* What is left of the source. */
static RfSource
remaining_source(const Adoption *adoption)
{
	RfSource source = adoption->source;

	if (get_rel_name(source.archive) == NULL)
		source.archive = InvalidOid;
	if (get_rel_name(source.streams) == NULL)
		source.streams = InvalidOid;
	if (get_rel_name(source.events) == NULL)
		source.events = InvalidOid;
	return source;
}

/* Take away what a call before has left. */
static void
clean_up(void *arg)
{
	Adoption   *adoption = arg;
	RfSource	source = remaining_source(adoption);
	Oid			tables[RF_SOURCE_TABLES];
	int			count = rf_source_tables(&source, tables);
	RfLockLimit limit;
	RfScope		scope;

	begin_scope(adoption, &scope);
	if (rf_watch_is_on(&source))
	{
		rf_lock_begin(&limit);
		for (int i = 0; i < count; i++)
			rf_lock_table(&limit, tables[i], AccessExclusiveLock);
		source = remaining_source(adoption);
		rf_watch_end(&source);
	}
	if (OidIsValid(get_namespace_oid(adoption->staging_name, true)))
		rf_query_ddl("DROP SCHEMA %I CASCADE", adoption->staging_name);
	rf_query_end(&scope);
}

/*
 * Nobody drops a table of the source in this transaction.  Whoever cancels
 * between two of them is heard here, where an error is cleaned up after.
 */
static void
hold_source(const Adoption *adoption)
{
	RfLockLimit limit;

	CHECK_FOR_INTERRUPTS();
	rf_lock_begin(&limit);
	lock_source(adoption, &limit, AccessShareLock);
}

static void
watch(void *arg)
{
	Adoption   *adoption = arg;
	RfLockLimit limit;
	RfScope		scope;

	begin_scope(adoption, &scope);
	rf_query_ddl("CREATE SCHEMA %I", adoption->staging_name);
	rf_watch_make_notes(adoption->staging_name);
	rf_query_ddl("CREATE UNLOGGED TABLE %s (LIKE %s)", staged(adoption, TAKEN),
				 staged(adoption, RF_WATCH_NOTES));
	rf_lock_begin(&limit);
	lock_source(adoption, &limit, ShareRowExclusiveLock);
	rf_watch_begin(&adoption->source, adoption->staging_name);
	rf_query_end(&scope);
	adoption->staging = get_namespace_oid(adoption->staging_name, false);
}

/*
 * Streams and keys
 */

static const char *
of_streams(const ArrayType *streams)
{
	return streams == NULL ? "true" : "stream_id = ANY ($1)";
}

/* The default of a column, for streams that have no row yet. */
static char *
default_of(Relation rel, AttrNumber attnum)
{
	Node *expression = build_column_default(rel, attnum);

	return deparse_expression(expression,
							  deparse_context_for(RelationGetRelationName(rel),
												  RelationGetRelid(rel)),
							  false, false);
}

/*
 * Columns of rf_streams that come from the source's, and the expressions over
 * its row s that they come from; what it lacks has a default.
 */
static void
list_stream_columns(const Adoption *adoption, StringInfo names,
					StringInfo values)
{
	Relation  rel = table_open(adoption->source.streams, AccessShareLock);
	TupleDesc tupdesc = RelationGetDescr(rel);

	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);
		const char		 *name = NameStr(att->attname);
		const char		 *quoted = quote_identifier(name);

		/* the events know these better */
		if (att->attisdropped || strcmp(name, "stream_id") == 0 ||
			strcmp(name, "last_seq") == 0 ||
			strcmp(name, "first_event_at") == 0 ||
			strcmp(name, "last_event_at") == 0 ||
			strcmp(name, "retention_class") == 0)
			continue;
		appendStringInfo(names, ", %s", quoted);
		if (strcmp(name, "created_at") == 0 || strcmp(name, "updated_at") == 0)
			appendStringInfo(values, ", coalesce(s.%s, now())", quoted);
		else if (att->atthasdef)
			appendStringInfo(values,
							 ", CASE WHEN s.stream_id IS NULL"
							 " THEN %s ELSE s.%s END",
							 default_of(rel, i + 1), quoted);
		else
			appendStringInfo(values, ", s.%s", quoted);
	}
	if (get_attnum(adoption->source.streams, "archived_at") !=
		InvalidAttrNumber)
	{
		appendStringInfoString(names, ", retention_class");
		appendStringInfoString(values, ", CASE WHEN s.archived_at IS NULL"
									   " THEN 'hot' ELSE 'cold' END");
	}
	table_close(rel, AccessShareLock);
}

/*
 * Make rows of rf_streams: the heads come from a query, with its WITH before
 * it; the rest from the rows of the source's rf_streams that the condition
 * takes.
 */
static void
make_streams(const Adoption *adoption, const char *with, const char *heads,
			 const char *condition, ArrayType *streams)
{
	Oid			   types[1] = {UUIDARRAYOID};
	Datum		   values[1];
	StringInfoData names;
	StringInfoData columns;
	char		  *others = "";

	initStringInfo(&names);
	initStringInfo(&columns);
	if (OidIsValid(adoption->source.streams))
	{
		list_stream_columns(adoption, &names, &columns);
		others = psprintf(" FULL JOIN (SELECT * FROM ONLY %s WHERE %s) AS s"
						  " USING (stream_id)",
						  rf_store_relation_name(adoption->source.streams),
						  condition);
	}
	values[0] = PointerGetDatum(streams);
	rf_query_once(
		psprintf(
			"%sINSERT INTO %s"
			" (stream_id, last_seq, first_event_at, last_event_at%s)"
			" SELECT stream_id, coalesce(e.head, 0), e.first, e.last%s FROM"
			" (%s) AS e%s",
			with, staged(adoption, "rf_streams"), names.data, columns.data,
			heads, others),
		streams == NULL ? 0 : 1, types, values, NULL);
}

/*
 * Make those of the streams given, or NULL of all, from their events.  Rows may
 * have come since they were looked through: streams which the snapshot that
 * gives them their heads does not show to be whole are noted, to be looked at
 * again.
 */
static void
fill_streams(const Adoption *adoption, ArrayType *streams)
{
	const RfSource *source = &adoption->source;
	const char	   *condition = of_streams(streams);
	char		   *with;

	/* within one table an index tells numbers apart */
	with = psprintf(
		"WITH seen AS MATERIALIZED (SELECT stream_id, max(stream_seq) AS head,"
		" min(created_at) AS first, max(created_at) AS last,"
		" min(stream_seq) = 1 AND max(stream_seq) = count(*)"
		" AND count(*) = count(%s) AS whole FROM %s AS r WHERE %s"
		" GROUP BY stream_id),"
		" doubtful AS (INSERT INTO %s (kind, stream_id) SELECT 'c', stream_id"
		" FROM seen WHERE whole IS NOT TRUE) ",
		OidIsValid(source->archive) ? "DISTINCT stream_seq" : "stream_seq",
		rf_source_rows(source, "stream_id, stream_seq, created_at"), condition,
		staged(adoption, RF_WATCH_NOTES));
	make_streams(adoption, with,
				 "SELECT stream_id, head, first, last FROM seen", condition,
				 streams);
}

/* Columns of the events that can have a key, as a table; NULL: there are none.
 */
static char *
keyed_rows(const RfSource *source)
{
	const Oid	   tables[] = {source->events, source->archive};
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < lengthof(tables); i++)
	{
		if (OidIsValid(tables[i]) &&
			get_attnum(tables[i], "headers") != InvalidAttrNumber)
			appendStringInfo(&buf,
							 "%s SELECT headers, stream_id, stream_seq,"
							 " global_seq FROM ONLY %s",
							 buf.len > 0 ? " UNION ALL" : "",
							 rf_store_relation_name(tables[i]));
	}
	return buf.len > 0 ? psprintf("(%s)", buf.data) : NULL;
}

/* Insert the keys of rows r; of several events with one key the first has it.
 */
static void
insert_keys(const Adoption *adoption, const char *rows, const char *condition,
			ArrayType *streams)
{
	Oid	  types[1] = {UUIDARRAYOID};
	Datum values[1];

	values[0] = PointerGetDatum(streams);
	rf_query_once(
		psprintf("INSERT INTO %s"
				 " (idempotency_key, stream_id, stream_seq, global_seq)"
				 " SELECT headers ->> 'idempotency_key', r.stream_id,"
				 " r.stream_seq, r.global_seq FROM %s AS r WHERE %s AND"
				 " octet_length(headers ->> 'idempotency_key') <= 1000"
				 " ORDER BY r.global_seq"
				 " ON CONFLICT (idempotency_key) DO NOTHING",
				 staged(adoption, "rf_event_keys"), rows, condition),
		streams == NULL ? 0 : 1, types, values, NULL);
}

/* Make the idempotency keys of those streams, or NULL of all. */
static void
fill_keys(const Adoption *adoption, ArrayType *streams)
{
	char *rows = keyed_rows(&adoption->source);

	if (rows != NULL)
		insert_keys(adoption, rows, of_streams(streams), streams);
}

/*
 * Catching up
 */

static int64
take_notes(const Adoption *adoption)
{
	return (int64)
		rf_query_once(psprintf("WITH gone AS (DELETE FROM %s RETURNING *)"
							   " INSERT INTO %s SELECT * FROM gone",
							   staged(adoption, RF_WATCH_NOTES),
							   staged(adoption, TAKEN)),
					  0, NULL, NULL, NULL);
}

/*
 * Raise heads by the events that were inserted, where they go on from the head
 * without a gap.  Numbers up to the head were all there when it was made, and
 * none comes twice: not in one table, by its index, nor in both, since
 * rf_source_check_noted() has looked.  The other streams are looked at as a
 * whole.
 */
static void
raise_heads(const Adoption *adoption)
{
	const char *streams = staged(adoption, "rf_streams");
	const char *taken = staged(adoption, TAKEN);

	rf_query_once(
		psprintf("INSERT INTO %s (stream_id) SELECT DISTINCT stream_id"
				 " FROM %s WHERE kind = 'i'"
				 " ON CONFLICT (stream_id) DO NOTHING",
				 streams, taken),
		0, NULL, NULL, NULL);
	rf_query_once(
		psprintf(
			"WITH late AS (SELECT t.stream_id, count(*) AS n,"
			" min(t.stream_seq) AS lowest, max(t.stream_seq) AS highest,"
			" min(t.created_at) AS first, max(t.created_at) AS last"
			" FROM %s AS t JOIN %s AS s USING (stream_id)"
			" WHERE t.kind = 'i' AND t.stream_seq > s.last_seq GROUP BY 1),"
			" raised AS (UPDATE %s AS s SET last_seq = highest,"
			" first_event_at = least(first_event_at, first),"
			" last_event_at = greatest(last_event_at, last) FROM late"
			" WHERE s.stream_id = late.stream_id AND lowest = last_seq + 1"
			" AND n = highest - last_seq RETURNING s.stream_id)"
			" UPDATE %s SET kind = 'c' WHERE kind = 'i' AND stream_id IN"
			" (SELECT stream_id FROM late EXCEPT"
			" SELECT stream_id FROM raised)",
			taken, streams, streams, taken),
		0, NULL, NULL, NULL);
}

/* Keys of events that were inserted; each is looked up by its number. */
static void
claim_keys(const Adoption *adoption)
{
	char *rows = keyed_rows(&adoption->source);

	if (rows != NULL)
		insert_keys(adoption,
					psprintf("%s AS t, LATERAL (SELECT * FROM %s AS k"
							 " WHERE k.global_seq = t.global_seq OFFSET 0)",
							 staged(adoption, TAKEN), rows),
					"t.kind = 'i'", NULL);
}

/* The streams of a kind of note, but for those of another; NULL: none. */
static ArrayType *
noted_streams(const Adoption *adoption, const char *kind, const char *but)
{
	rf_query_once(psprintf("SELECT array_agg(DISTINCT stream_id),"
						   " count(*) FILTER (WHERE stream_id IS NULL) FROM %s"
						   " AS t WHERE kind = '%s' AND NOT EXISTS (SELECT"
						   " FROM %s AS o WHERE o.kind = '%s'"
						   " AND o.stream_id = t.stream_id)",
						   staged(adoption, TAKEN), kind,
						   staged(adoption, TAKEN), but),
				  0, NULL, NULL, NULL);
	if (DatumGetInt64(rf_query_must(0, 2)) > 0)
		ereport(ERROR, (errcode(ERRCODE_NOT_NULL_VIOLATION),
						errmsg("events without stream_id came to table \"%s\"",
							   get_rel_name(adoption->source.events)),
						errhint("Each event belongs to a stream.")));
	return rf_query_null(0, 1) ? NULL :
								 DatumGetArrayTypePCopy(rf_query_must(0, 1));
}

/* Look at whole streams again. */
static void
redo_streams(const Adoption *adoption, ArrayType *streams)
{
	static const char *const own[] = {"rf_streams", "rf_event_keys"};
	Oid						 types[1] = {UUIDARRAYOID};
	Datum					 values[1];

	rf_source_check_rows(&adoption->source, streams);
	values[0] = PointerGetDatum(streams);
	for (int i = 0; i < lengthof(own); i++)
		rf_query_once(psprintf("DELETE FROM %s WHERE stream_id = ANY ($1)",
							   staged(adoption, own[i])),
					  1, types, values, NULL);
	fill_streams(adoption, streams);
	fill_keys(adoption, streams);
}

/* Copy rows of rf_streams again; their heads are known. */
static void
redo_stream_rows(const Adoption *adoption, ArrayType *streams)
{
	make_streams(adoption,
				 psprintf("WITH gone AS (DELETE FROM %s"
						  " WHERE stream_id = ANY ($1) RETURNING *) ",
						  staged(adoption, "rf_streams")),
				 "SELECT stream_id, last_seq AS head, first_event_at AS first,"
				 " last_event_at AS last FROM gone",
				 of_streams(streams), streams);
}

/*
 * Take up what was noted; returns how many notes there were.  This costs as
 * much as there are notes, but for streams of which events were changed.
 */
static int64
take_up_changes(const Adoption *adoption)
{
	int64	   notes = take_notes(adoption);
	ArrayType *streams;

	if (notes == 0)
		return 0;
	rf_source_check_noted(&adoption->source, staged(adoption, TAKEN));
	raise_heads(adoption);
	claim_keys(adoption);
	streams = noted_streams(adoption, "c", "-");
	if (streams != NULL)
		redo_streams(adoption, streams);
	streams = noted_streams(adoption, "s", "c");
	if (streams != NULL)
		redo_stream_rows(adoption, streams);
	rf_query_ddl("TRUNCATE %s", staged(adoption, TAKEN));
	return notes;
}

/*
 * Preparing the store
 */

/* The store that is in the target already, empty; NULL when there is none. */
static RfStore *
empty_store(const Adoption *adoption)
{
	return adoption->in_place ? NULL : rf_store_in(adoption->target, true);
}

/* Make the months of a table's events, so that none is made meanwhile. */
static void
make_months(const Adoption *adoption, Oid table, RfTier tier)
{
	uint64	 rows;
	DateADT *months;

	rows = rf_query_once(
		psprintf("SELECT DISTINCT"
				 " date_trunc('month', created_at AT TIME ZONE 'UTC')::date"
				 " FROM ONLY %s",
				 rf_store_relation_name(table)),
		0, NULL, NULL, NULL);
	months = palloc(sizeof(DateADT) * Max(rows, 1));
	for (uint64 i = 0; i < rows; i++)
		months[i] = DatumGetDateADT(rf_query_must(i, 1));
	for (uint64 i = 0; i < rows; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (rf_partition_month_has_name(months[i]))
			(void) rf_partition_create(rf_store_in(adoption->staging, false),
									   tier, months[i], NULL);
	}
}

/* Columns, and what else an application sees of its tables. */
static void
take_manners(const Adoption *adoption, RfStore *store)
{
	const RfSource *source = &adoption->source;

	rf_model_take(source->events, store->events,
				  RF_MODEL_COLUMNS | RF_MODEL_NOT_NULL | RF_MODEL_MANNERS);
	if (OidIsValid(source->archive))
	{
		rf_model_take(source->archive, store->events_archive,
					  RF_MODEL_COLUMNS | RF_MODEL_NOT_NULL | RF_MODEL_MANNERS);
		/* its rows have no value for what only events has */
		rf_model_take(source->events, store->events_archive,
					  RF_MODEL_BARE_COLUMNS);
	}
	else
		rf_model_take(source->events, store->events_archive, RF_MODEL_COLUMNS);
	if (OidIsValid(source->streams))
		rf_model_take(source->streams, store->streams,
					  RF_MODEL_COLUMNS | RF_MODEL_CHECKS | RF_MODEL_INDEXES |
						  RF_MODEL_TRIGGERS | RF_MODEL_COMMENTS);
}

/* Rights are those of the store that is there, else those of the source. */
static void
take_rights(const Adoption *adoption, RfStore *store)
{
	RfStore		   *old = empty_store(adoption);
	const RfSource *source = &adoption->source;
	const int		what = RF_MODEL_RIGHTS | RF_MODEL_POLICIES;
	Oid				archive = OidIsValid(source->archive) ? source->archive :
															source->events;

	rf_model_take(old != NULL ? old->events : source->events, store->events,
				  what);
	rf_model_take(old != NULL ? old->events_archive : archive,
				  store->events_archive, what);
	if (old != NULL || OidIsValid(source->streams))
		rf_model_take(old != NULL ? old->streams : source->streams,
					  store->streams, what);
	if (old != NULL || OidIsValid(source->sequence))
		rf_model_take(old != NULL ? old->sequence : source->sequence,
					  store->sequence, RF_MODEL_RIGHTS);
	if (old != NULL)
		rf_model_take(old->events_all, store->events_all, RF_MODEL_RIGHTS);
	else
		rf_model_take(source->events, store->events_all, RF_MODEL_READERS);
	if (old == NULL && source->has_identity)
		rf_model_take(source->events, store->sequence, RF_MODEL_DRAWERS);
	rf_model_close(adoption->staging);
}

static char *
state_of(const Oid *relids, int count)
{
	Datum elements[RF_SOURCE_TABLES + 2];

	Assert(count <= lengthof(elements));
	for (int i = 0; i < count; i++)
		elements[i] = ObjectIdGetDatum(relids[i]);
	return rf_model_state(rf_query_array(elements, count, OIDOID));
}

/* All of the source that is taken over, in a form that can be compared. */
static char *
state_of_source(const Adoption *adoption)
{
	Oid relids[RF_SOURCE_TABLES + 1];
	int count = rf_source_tables(&adoption->source, relids);

	if (OidIsValid(adoption->source.sequence))
		relids[count++] = adoption->source.sequence;
	return state_of(relids, count);
}

/* The same of the store that is there, of which rights are taken over. */
static char *
state_of_target(const Adoption *adoption)
{
	RfStore *store = empty_store(adoption);

	if (store == NULL)
		return "";
	return state_of((Oid[]){store->events, store->events_archive,
							store->events_all, store->streams, store->sequence},
					5);
}

/* What was altered since it was taken over would be lost. */
static void
require_unaltered(const Adoption *adoption, const char *before,
				  const char *after)
{
	if (strcmp(before, after) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a table was altered while \"%s\" was being adopted",
						adoption->name),
				 errdetail("Columns, constraints, indexes, triggers, privileges"
						   " and policies are taken over before the switch."),
				 errhint("Call rf_adopt() again.")));
}

/* Look the source through, and prepare the store for it. */
static void
prepare(void *arg)
{
	Adoption *adoption = arg;
	RfStore	 *store;
	RfScope	  scope;

	begin_scope(adoption, &scope);
	RF_WAIT_POINT("adopt_watched");
	hold_source(adoption);
	rf_source_check_rows(&adoption->source, NULL);
	RF_WAIT_POINT("adopt_checked");
	adoption->source_state = MemoryContextStrdup(adoption->context,
												 state_of_source(adoption));
	adoption->target_state = MemoryContextStrdup(adoption->context,
												 state_of_target(adoption));
	rf_install_create_store(adoption->staging, NULL, "single");
	store = rf_store_in(adoption->staging, false);
	take_manners(adoption, store);
	rf_install_create_view(adoption->staging);
	make_months(adoption, adoption->source.events, RF_HOT);
	if (OidIsValid(adoption->source.archive))
		make_months(adoption, adoption->source.archive, RF_COLD);
	store = rf_store_in(adoption->staging, false);
	take_rights(adoption, store);
	fill_streams(adoption, NULL);
	fill_keys(adoption, NULL);
	rf_install_restart_log(adoption->staging_name);
	rf_query_ddl("ANALYZE %s, %s", staged(adoption, "rf_streams"),
				 staged(adoption, "rf_event_keys"));
	rf_query_end(&scope);
	rf_install_unregister(adoption->staging_name);
}

/* One round of catching up. */
static void
catch_up(void *arg)
{
	Adoption *adoption = arg;
	RfScope	  scope;

	begin_scope(adoption, &scope);
	RF_WAIT_POINT("adopt_prepared");
	hold_source(adoption);
	adoption->changes = take_up_changes(adoption);
	rf_query_end(&scope);
}

/*
 * The switch
 */

static void
refuse_name(const Adoption *adoption, const char *name)
{
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("schema \"%s\" has a relation \"%s\" already",
						   get_namespace_name(adoption->target), name),
					errhint("Rename it, or move it to another schema.")));
}

/* The target may have nothing of our names but the source, or an empty store.
 */
static void
require_free_names(const Adoption *adoption)
{
	static const char *const names[] = {"events",
										"events_hot",
										"events_hot_default",
										"events_cold",
										"events_cold_default",
										"events_archive",
										"events_archive_default",
										"events_all",
										"events_global_seq_seq",
										"rf_streams",
										"rf_archive_config",
										"rf_event_keys",
										"rf_archive_policies",
										"events_adopted",
										"events_archive_adopted"};
	const RfSource			*source = &adoption->source;

	for (int i = 0; i < lengthof(names); i++)
	{
		Oid relid = get_relname_relid(names[i], adoption->target);

		if (OidIsValid(relid) && relid != source->events &&
			relid != source->archive && relid != source->streams &&
			(relid != source->sequence || !source->owns_sequence) &&
			empty_store(adoption) == NULL)
			refuse_name(adoption, names[i]);
	}
}

/* All but what keep_records() takes over. */
static void
drop_tables(const RfStore *store)
{
	const Oid tables[] = {store->events,  store->events_archive,
						  store->streams, store->config,
						  store->keys,	  store->policies};

	rf_query_ddl("DROP VIEW %s", rf_store_relation_name(store->events_all));
	for (int i = 0; i < lengthof(tables); i++)
		rf_query_ddl("DROP TABLE %s", rf_store_relation_name(tables[i]));
}

/* A store that is there is made anew, and must hold nothing. */
static void
clear_target(Adoption *adoption)
{
	RfStore	   *store = empty_store(adoption);
	RfLockLimit limit;

	if (store == NULL)
		return;
	rf_lock_begin(&limit);
	rf_lock_table(&limit, store->events, AccessExclusiveLock);
	rf_lock_table(&limit, store->events_archive, AccessExclusiveLock);
	rf_lock_table(&limit, store->streams, AccessExclusiveLock);
	require_unaltered(adoption, adoption->target_state,
					  state_of_target(adoption));
	if (rf_query_once(psprintf("SELECT 1 FROM (SELECT FROM %s LIMIT 1) AS e"
							   " UNION ALL SELECT 1 FROM"
							   " (SELECT FROM %s LIMIT 1) AS s",
							   rf_store_relation_name(store->events_all),
							   rf_store_relation_name(store->streams)),
					  0, NULL, NULL, NULL) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the store in schema \"%s\" holds events or streams",
						store->schema),
				 errhint("A table is adopted into an empty store.")));
	rf_query_ddl("INSERT INTO %s SELECT * FROM %s",
				 staged(adoption, "rf_archive_config"),
				 rf_store_relation_name(store->config));
	rf_query_ddl("INSERT INTO %s SELECT * FROM %s",
				 staged(adoption, "rf_archive_policies"),
				 rf_store_relation_name(store->policies));
	if (OidIsValid(adoption->source.archive))
		adoption->was_partitioned =
			rf_query_once(psprintf("UPDATE %s SET backend = 'dual_table'"
								   " WHERE backend <> 'dual_table'",
								   staged(adoption, "rf_archive_config")),
						  0, NULL, NULL, NULL) > 0;
	drop_tables(store);
}

/*
 * The ledger of the schema, of a store before this one, goes on; ours has only
 * told of months so far.
 */
static void
keep_ledger(const Adoption *adoption)
{
	Oid old = get_relname_relid("rf_archive_log", adoption->target);

	if (!OidIsValid(old))
		return;
	if (rf_store_relation_owner(old) != adoption->source.owner)
		refuse_name(adoption, "rf_archive_log");
	rf_query_ddl(
		"INSERT INTO %s (logged_at, actor, action, stream_id, bucket_month,"
		" events, estimated, streams, duration, detail, entries)"
		" SELECT logged_at, actor, action, stream_id, bucket_month, events,"
		" estimated, streams, duration, detail, entries FROM %s ORDER BY log_id",
		rf_store_relation_name(old), staged(adoption, "rf_archive_log"));
	rf_query_ddl("DROP TABLE %s", staged(adoption, "rf_archive_log"));
	rf_query_ddl("DROP TRIGGER IF EXISTS rf_events_append_only ON %s",
				 rf_store_relation_name(old));
	rf_query_ddl("CREATE TRIGGER rf_events_append_only"
				 " BEFORE UPDATE OR DELETE OR TRUNCATE ON %s"
				 " FOR EACH STATEMENT EXECUTE FUNCTION"
				 " %I.rf_events_append_only()",
				 rf_store_relation_name(old),
				 get_namespace_name(rf_store_extension_schema()));
}

/*
 * Checkpoints of consumers, the record of runs, holds and totals, too, outlive
 * the store that they were kept by.
 */
static void
keep_records(const Adoption *adoption)
{
	static const char *const names[] = {"rf_consumers", "rf_archive_runs",
										"rf_holds", "rf_archive_totals"};

	for (int i = 0; i < lengthof(names); i++)
	{
		Oid	  old = get_relname_relid(names[i], adoption->target);
		Oid	  made = get_relname_relid(names[i], adoption->staging);
		char *columns = rf_store_column_list(made, NULL, NULL);

		if (!OidIsValid(old))
			continue;
		if (rf_store_relation_owner(old) != adoption->source.owner ||
			strcmp(rf_store_column_list(old, NULL, NULL), columns) != 0)
			refuse_name(adoption, names[i]);
		rf_query_ddl("DROP TABLE %s", staged(adoption, names[i]));
	}
	keep_ledger(adoption);
}

/*
 * Relations that were prepared, as statements that bring them to the target.
 * What bears the name of a table of the source, or is to be caught up with,
 * comes last.
 */
#define BRING(condition)                                                 \
	"SELECT format('ALTER %s %s SET SCHEMA %I', CASE c.relkind WHEN 'v'" \
	" THEN 'VIEW' ELSE 'TABLE' END, c.oid::regclass, n.nspname)"         \
	" FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = $2"           \
	" WHERE c.relnamespace = $1 AND c.relkind IN ('r', 'p', 'v')"        \
	" AND c.relname !~ '^rf_adopt_' AND " condition
#define COMES_LAST            \
	"c.relname IN ('events'," \
	" 'events_archive', 'rf_streams', 'rf_event_keys')"

/* Rename a relation of the source that stands in the target. */
static void
step_aside(const Adoption *adoption, Oid relid, const char *kind,
		   const char *name)
{
	if (OidIsValid(relid) && get_rel_namespace(relid) == adoption->target)
		rf_query_ddl("ALTER %s %s RENAME TO %I", kind,
					 rf_store_relation_name(relid), name);
}

/*
 * Number on above all numbers of the source.  Its own sequence goes with it;
 * one that others use stays.
 */
static void
carry_numbers_on(Adoption *adoption)
{
	const RfSource *source = &adoption->source;
	const char	   *events = rf_store_relation_name(source->events);

	adoption->boundary = ask_number(
		psprintf("SELECT greatest((SELECT max(global_seq) FROM ONLY %s),"
				 " (SELECT max(global_seq) FROM ONLY %s), (SELECT %s), 0)",
				 events,
				 OidIsValid(source->archive) ?
					 rf_store_relation_name(source->archive) :
					 events,
				 OidIsValid(source->sequence) ?
					 psprintf("CASE WHEN is_called THEN last_value ELSE"
							  " last_value - 1 END FROM %s",
							  rf_store_relation_name(source->sequence)) :
					 "0"));
	if (adoption->boundary > 0)
		rf_query_ddl("SELECT pg_catalog.setval(%L, %s)",
					 staged(adoption, "events_global_seq_seq"),
					 psprintf(INT64_FORMAT, adoption->boundary));
	rf_query_ddl(
		"ALTER TABLE %s ALTER COLUMN global_seq DROP IDENTITY IF EXISTS",
		events);
	rf_query_ddl("ALTER TABLE %s ALTER COLUMN global_seq DROP DEFAULT", events);
	if (OidIsValid(source->archive))
		rf_query_ddl("ALTER TABLE %s ALTER COLUMN global_seq DROP IDENTITY"
					 " IF EXISTS, ALTER COLUMN global_seq DROP DEFAULT",
					 rf_store_relation_name(source->archive));
	if (source->owns_sequence && get_rel_name(source->sequence) != NULL)
		step_aside(adoption, source->sequence, "SEQUENCE",
				   "events_adopted_global_seq_seq");
}

/* The tables of the source make room for those of the store. */
static void
make_room(const Adoption *adoption)
{
	const RfSource *source = &adoption->source;

	rf_model_run(
		"SELECT format('DROP TRIGGER %I ON %s', tgname, tgrelid::regclass)"
		" FROM pg_trigger WHERE tgrelid IN ($1, $2)"
		" AND NOT tgisinternal",
		source->events, source->archive);
	if (OidIsValid(source->streams))
		rf_query_ddl("DROP TABLE %s", rf_store_relation_name(source->streams));
	rf_model_run("SELECT format('ALTER INDEX %s RENAME TO %I',"
				 " x.oid::regclass, 'rf_adopted_' || x.oid)"
				 " FROM pg_index AS i JOIN pg_class AS x"
				 " ON x.oid = i.indexrelid WHERE i.indrelid IN ($1, $2)",
				 source->events, source->archive);
	step_aside(adoption, source->events, "TABLE", "events_adopted");
	step_aside(adoption, source->archive, "TABLE", "events_archive_adopted");
}

/* Columns of a parent that a future partition has to have not null. */
static char *
list_nulls(Oid parent, Oid leaf)
{
	Oid	  types[2] = {OIDOID, OIDOID};
	Datum values[2];

	values[0] = ObjectIdGetDatum(parent);
	values[1] = ObjectIdGetDatum(leaf);
	rf_query_once("SELECT string_agg(quote_ident(b.attname) || ' IS NOT NULL',"
				  " ' AND ') FROM pg_attribute AS a JOIN pg_attribute AS b"
				  " ON b.attrelid = $2 AND b.attname = a.attname"
				  " WHERE a.attrelid = $1 AND a.attnum > 0 AND a.attnotnull"
				  " AND NOT a.attisdropped AND NOT b.attnotnull",
				  2, types, values, NULL);
	return rf_query_null(0, 1) ? NULL :
								 TextDatumGetCString(rf_query_must(0, 1));
}

/* They hold no null: rf_source_check_rows() has looked. */
static void
forbid_nulls(Oid parent, Oid leaf)
{
	char *proof = list_nulls(parent, leaf);

	if (proof == NULL)
		return;
	rf_flip_add_proof(leaf, proof);
	rf_model_take(parent, leaf, RF_MODEL_NOT_NULL);
	rf_query_ddl("ALTER TABLE %s DROP CONSTRAINT " RF_FLIP_PROOF,
				 rf_store_relation_name(leaf));
}

static int64
count_indexes(Oid relid)
{
	Oid	  types[1] = {OIDOID};
	Datum values[1];

	values[0] = ObjectIdGetDatum(relid);
	rf_query_once("SELECT count(*) FROM pg_index WHERE indrelid = $1", 1, types,
				  values, NULL);
	return DatumGetInt64(rf_query_must(0, 1));
}

/*
 * Make a table of the source a partition of its tier, for rows without a
 * month.  Defaults that are the same for all rows are kept in the catalog; the
 * bounds are known to hold, and nothing is read.
 */
static void
attach(Oid root, Oid parent, Oid leaf, const char *class)
{
	const char *name = rf_store_relation_name(leaf);
	int64		indexes;

	rf_query_ddl("ALTER TABLE %s DROP COLUMN IF EXISTS bucket_month,"
				 " DROP COLUMN IF EXISTS retention_class,"
				 " ADD COLUMN bucket_month date NOT NULL"
				 " DEFAULT '" RF_NO_MONTH "',"
				 " ADD COLUMN retention_class text COLLATE \"C\" NOT NULL"
				 " DEFAULT %L",
				 name, class);
	rf_model_take(root, leaf, RF_MODEL_COLUMNS);
	forbid_nulls(parent, leaf);
	rf_flip_add_proof(
		leaf, rf_query_format("bucket_month IS NOT NULL AND bucket_month <"
							  " '" RF_FIRST_DAY_TEXT "'::date"
							  " AND retention_class IS NOT NULL"
							  " AND retention_class = %L",
							  class));
	rf_partition_guard(name);
	indexes = count_indexes(leaf);
	rf_query_ddl("ALTER TABLE %s ATTACH PARTITION %s"
				 " FOR VALUES FROM (MINVALUE) TO ('" RF_FIRST_DAY_TEXT "')",
				 rf_store_relation_name(parent), name);
	if (count_indexes(leaf) != indexes)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("indexes of table \"%s\" would have to be made again",
					get_rel_name(leaf)),
			 errhint(
				 "Drop its indexes that are not unique, and create them again afterwards.")));
	rf_query_ddl("ALTER TABLE %s DROP CONSTRAINT " RF_FLIP_PROOF, name);
}

/* What comes in, once the source has made room. */
static void
bring_in(Adoption *adoption)
{
	RfStore *store;

	rf_model_run(BRING(COMES_LAST), adoption->staging, adoption->target);
	rf_query_ddl("DROP TABLE %s, %s", staged(adoption, RF_WATCH_NOTES),
				 staged(adoption, TAKEN));
	rf_query_ddl("DROP SCHEMA %I", adoption->staging_name);
	rf_install_register(get_namespace_name(adoption->target), adoption->tenant,
						"single");
	store = rf_store_in(adoption->target, false);
	attach(store->events, store->events_hot, adoption->source.events, "hot");
	if (OidIsValid(adoption->source.archive))
		attach(store->events_archive, store->events_archive,
			   adoption->source.archive, "cold");
}

static void
note_begin(Adoption *adoption, TimestampTz locked_at)
{
	RfLedgerEntry entry = RF_LEDGER_ENTRY("adopt begun");

	entry.started_at = locked_at;
	entry.detail = psprintf("%s, up to global_seq " INT64_FORMAT,
							adoption->name, adoption->boundary);
	rf_ledger_write(rf_store_in(adoption->target, false), &entry);
}

/* One attempt, in a subtransaction; the argument is an Adoption. */
static void
switch_over(void *arg)
{
	Adoption   *adoption = arg;
	RfLockLimit limit;
	RfScope		scope;
	TimestampTz locked_at;

	begin_scope(adoption, &scope);
	hold_source(adoption);
	require_free_names(adoption);
	clear_target(adoption);
	keep_records(adoption);
	rf_model_run(BRING("NOT " COMES_LAST), adoption->staging, adoption->target);
	rf_source_check_shape(&adoption->source);
	RF_WAIT_POINT("adopt_before_locks");
	(void) take_up_changes(adoption);
	rf_lock_begin(&limit);
	lock_source(adoption, &limit, AccessExclusiveLock);
	locked_at = GetCurrentTimestamp();
	require_unaltered(adoption, adoption->source_state,
					  state_of_source(adoption));
	while (take_up_changes(adoption) > 0)
		;
	carry_numbers_on(adoption);
	make_room(adoption);
	bring_in(adoption);
	note_begin(adoption, locked_at);
	RF_WAIT_POINT("adopt_before_switch");
	rf_query_end(&scope);
}

static void
switch_with_retry(void *arg)
{
	rf_lock_retry(switch_over, arg);
}

/*
 * Carrying
 */

static void
report_progress(Adoption *adoption)
{
	TimestampTz now = GetCurrentTimestamp();
	double		seconds = (now - adoption->started_at) / 1000000.0;
	char	   *message;

	if (!TimestampDifferenceExceeds(adoption->reported_at, now,
									PROGRESS_INTERVAL_MS))
		return;
	adoption->reported_at = now;
	message = psprintf("carried " INT64_FORMAT " of " INT64_FORMAT
					   " events, %.0f a second",
					   adoption->carried, adoption->events,
					   seconds > 0 ? adoption->carried / seconds : 0.0);
	ereport(NOTICE, (errmsg_internal("%s", message)));
	pgstat_report_activity(STATE_RUNNING, psprintf("rf_adopt: %s", message));
	pfree(message);
}

/* The columns of a root that a row of a leaf brings along as they are. */
static char *
carried_columns(Oid root)
{
	return rf_store_column_list(root, "bucket_month", "retention_class");
}

/*
 * A batch: up to where it goes, how many rows went and came, and the checksums
 * of both.
 */
static char *
batch_statement(Oid root, Oid parent, Oid leaf, const char *class)
{
	char	   *columns = carried_columns(root);
	const char *name = rf_store_relation_name(leaf);

	return rf_query_format(
		"WITH top AS MATERIALIZED (SELECT max(n) AS upper FROM"
		" (SELECT global_seq AS n FROM ONLY %s WHERE global_seq > $1"
		" ORDER BY global_seq LIMIT $2) AS p),"
		" gone AS (DELETE FROM ONLY %s WHERE global_seq > $1"
		" AND global_seq <= (SELECT upper FROM top) RETURNING %s),"
		" come AS (INSERT INTO %s (%s, bucket_month, retention_class)"
		" SELECT %s, date_trunc('month', created_at AT TIME ZONE 'UTC')::date,"
		" %L FROM gone RETURNING %s)"
		" SELECT (SELECT upper FROM top), (SELECT count(*) FROM gone),"
		" (SELECT count(*) FROM come), (SELECT " CHECKSUM " FROM gone AS e),"
		" (SELECT " CHECKSUM " FROM come AS e)",
		name, name, columns, rf_store_relation_name(parent), columns, columns,
		class, columns);
}

/* What came has to be what went; the row of the last query tells. */
static void
prove_batch(Oid leaf, int64 events)
{
	char *gone = TextDatumGetCString(rf_query_must(0, 4));
	char *come = TextDatumGetCString(rf_query_must(0, 5));

	rf_partition_require_moved(events, DatumGetInt64(rf_query_must(0, 3)),
							   leaf);
	if (strcmp(gone, come) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("events of \"%s\" would change on their way",
						get_rel_name(leaf)),
				 errdetail("Their checksum is %s, that of what would come to"
						   " the months %s.",
						   gone, come),
				 errhint("Nothing of this batch was carried; report this.")));
}

static void
note_batch(RfStore *store, int64 events, TimestampTz started_at)
{
	RfLedgerEntry entry = RF_LEDGER_ENTRY("adopt batch");

	entry.events = events;
	entry.detail = TextDatumGetCString(rf_query_must(0, 5));
	entry.started_at = started_at;
	rf_ledger_write(store, &entry);
}

static bool
holds_more(Oid leaf, int64 after)
{
	Oid		types[1] = {INT8OID};
	Datum	values[1];
	RfScope scope;
	bool	result;

	values[0] = Int64GetDatum(after);
	rf_query_begin(&scope, InvalidOid, 0);
	result = rf_query_once(psprintf("SELECT 1 FROM ONLY %s WHERE"
									" global_seq > $1 ORDER BY global_seq"
									" LIMIT 1",
									rf_store_relation_name(leaf)),
						   1, types, values, NULL) > 0;
	rf_query_end(&scope);
	return result;
}

/* Carry a batch of a leaf from *after on; false: it is empty. */
static bool
carry_batch(Adoption *adoption, RfTier tier, int64 *after)
{
	RfStore *store = rf_store_lock_cold(rf_store_in(adoption->target, false));
	Oid		 root = tier == RF_HOT ? store->events : store->events_archive;
	Oid		 parent = tier == RF_HOT ? store->events_hot : root;
	Oid		 leaf = rf_store_adopted_leaf(parent);
	Oid		 types[2] = {INT8OID, INT4OID};
	Datum	 values[2];
	TimestampTz started_at = GetCurrentTimestamp();
	RfPlan		plan;
	int64		gone;
	RfScope		scope;

	if (!OidIsValid(leaf) || !holds_more(leaf, *after))
		return false;
	rf_partition_require_silent(leaf, false);
	rf_partition_require_silent(parent, true);
	begin_scope(adoption, &scope);
	rf_query_fix_text();
	values[0] = Int64GetDatum(*after);
	values[1] = Int32GetDatum(CARRY_BATCH);
	plan = rf_query_prepare(batch_statement(root, parent, leaf,
											tier == RF_HOT ? "hot" : "cold"),
							2, types);
	rf_query_run_untriggered(plan, values, NULL);
	gone = DatumGetInt64(rf_query_must(0, 2));
	prove_batch(leaf, gone);
	if (gone > 0)
	{
		*after = DatumGetInt64(rf_query_must(0, 1));
		note_batch(store, gone, started_at);
	}
	rf_query_forget(plan);
	rf_query_end(&scope);
	adoption->carried += gone;
	RF_WAIT_POINT("adopt_batch");
	return gone > 0;
}

static void
carry(Adoption *adoption, RfTier tier)
{
	int64 after = PG_INT64_MIN;
	bool  more = true;

	while (more)
	{
		CHECK_FOR_INTERRUPTS();
		begin_step(adoption);
		more = carry_batch(adoption, tier, &after);
		end_step(adoption);
		report_progress(adoption);
	}
}

/*
 * Counting, and finishing
 */

/* What the ledger says of the adoption that is under way. */
static bool
read_ledger(Adoption *adoption)
{
	RfStore *store = rf_store_in(adoption->target, false);
	RfScope	 scope;
	bool	 counted;
	uint64	 rows;

	begin_scope(adoption, &scope);
	rows = rf_query_once(
		psprintf(
			"SELECT substring(b.detail FROM 'global_seq ([0-9]+)$')::bigint,"
			" c.events, b.logged_at,"
			" (SELECT coalesce(sum(n.events), 0)::bigint FROM %s AS n"
			" WHERE n.log_id > b.log_id AND n.action = 'adopt batch'),"
			" substring(b.detail FROM '^(.*), up to global_seq')"
			" FROM %s AS b LEFT JOIN %s AS c ON c.log_id > b.log_id"
			" AND c.action = 'adopt counted'"
			" WHERE b.action = 'adopt begun'"
			" ORDER BY b.log_id DESC, c.log_id DESC LIMIT 1",
			rf_store_relation_name(store->log),
			rf_store_relation_name(store->log),
			rf_store_relation_name(store->log)),
		0, NULL, NULL, NULL);
	if (rows == 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the ledger of schema \"%s\" does not tell of the adoption",
					store->schema),
			 errhint("Restore \"rf_archive_log\".")));
	adoption->boundary = DatumGetInt64(rf_query_must(0, 1));
	adoption->started_at = DatumGetTimestampTz(rf_query_must(0, 3));
	adoption->carried = DatumGetInt64(rf_query_must(0, 4));
	adoption->name = MemoryContextStrdup(adoption->context,
										 TextDatumGetCString(
											 rf_query_must(0, 5)));
	counted = !rf_query_null(0, 2);
	if (counted)
		adoption->events = DatumGetInt64(rf_query_must(0, 2));
	rf_query_end(&scope);
	return counted;
}

/* Nobody writes to the source any more: count what is in it. */
static void
count_source(Adoption *adoption)
{
	RfLedgerEntry entry = RF_LEDGER_ENTRY("adopt counted");
	RfSource	  source = {0};
	RfStore		 *store;
	RfScope		  scope;

	begin_step(adoption);
	if (!read_ledger(adoption))
	{
		store = rf_store_in(adoption->target, false);
		source.events = rf_store_adopted_leaf(store->events_hot);
		source.archive = rf_store_adopted_leaf(store->events_archive);
		entry.started_at = GetCurrentTimestamp();
		begin_scope(adoption, &scope);
		adoption->events = ask_number(psprintf("SELECT count(*) FROM %s AS e",
											   rf_source_rows(&source, "")));
		entry.events = adoption->events;
		rf_ledger_write(store, &entry);
		rf_query_end(&scope);
	}
	end_step(adoption);
}

/*
 * As many events have to have come to the months as were in the source; that
 * each came as it was, each batch has proven.
 */
static void
prove(Adoption *adoption)
{
	RfStore	   *store = rf_store_in(adoption->target, false);
	const char *log = rf_store_relation_name(store->log);
	RfScope		scope;
	int64		events;

	begin_scope(adoption, &scope);
	rf_query_once(
		psprintf("SELECT coalesce(sum(events), 0)::bigint,"
				 " coalesce(sum(detail::numeric), 0)::text FROM %s"
				 " WHERE action = 'adopt batch' AND log_id >"
				 " (SELECT max(log_id) FROM %s WHERE action = 'adopt begun')",
				 log, log),
		0, NULL, NULL, NULL);
	events = DatumGetInt64(rf_query_must(0, 1));
	adoption->checksum = MemoryContextStrdup(adoption->context,
											 TextDatumGetCString(
												 rf_query_must(0, 2)));
	if (events != adoption->events)
		ereport(
			ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("the store does not hold what was adopted"),
			 errdetail("The source held " INT64_FORMAT
					   " events, to the months came " INT64_FORMAT ".",
					   adoption->events, events),
			 errhint(
				 "Find out who wrote to the source itself. To go on with"
				 " what there is, run: INSERT INTO %s (actor, action, events)"
				 " VALUES (current_user, 'adopt counted', " INT64_FORMAT
				 "); and call rf_adopt() again.",
				 log, events)));
	rf_query_end(&scope);
}

/*
 * Who has an older snapshot sees rows in the source, and would miss them when
 * it is dropped.
 */
static void
wait_until_unseen(Adoption *adoption, RfTier tier)
{
	TimestampTz since = GetCurrentTimestamp();
	bool		seen = true;

	while (seen)
	{
		RfStore *store;
		Oid		 leaf;

		begin_step(adoption);
		store = rf_store_in(adoption->target, false);
		leaf = rf_store_adopted_leaf(tier == RF_HOT ? store->events_hot :
													  store->events_archive);
		/* our own snapshot shows nothing there, but holds the horizon back */
		PopActiveSnapshot();
		seen = OidIsValid(leaf) && rf_partition_is_seen(leaf);
		PushActiveSnapshot(GetTransactionSnapshot());
		end_step(adoption);
		if (seen && TimestampDifferenceExceeds(since, GetCurrentTimestamp(),
											   UNSEEN_LONGEST_MS))
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("transactions that run still see events in \"%s\"",
							adoption->name),
					 errdetail("All events have been carried to their months."),
					 errhint("Call rf_adopt() again when they have ended.")));
		if (seen)
			rf_lock_pause(UNSEEN_PAUSE_MS);
	}
}

/*
 * Nobody writes to the emptied source, but who fires no triggers could: so ours
 * fires always from now on.
 */
static void
close_source(void *arg)
{
	Adoption   *adoption = arg;
	RfStore	   *store = rf_store_in(adoption->target, false);
	const Oid	leaves[] = {rf_store_adopted_leaf(store->events_hot),
							rf_store_adopted_leaf(store->events_archive)};
	RfLockLimit limit;
	RfScope		scope;

	begin_scope(adoption, &scope);
	rf_lock_begin(&limit);
	for (int i = 0; i < lengthof(leaves); i++)
	{
		if (!OidIsValid(leaves[i]))
			continue;
		rf_lock_table(&limit, leaves[i], ShareRowExclusiveLock);
		rf_query_ddl("ALTER TABLE %s"
					 " ENABLE ALWAYS TRIGGER rf_events_append_only",
					 rf_store_relation_name(leaves[i]));
	}
	rf_query_end(&scope);
}

/*
 * All of its pages are read, so this comes before the locks on the roots, and
 * under none that others would wait for: they come from the root.
 */
static void
require_empty(Oid leaf)
{
	if (OidIsValid(leaf) &&
		rf_query_once(psprintf("SELECT 1 FROM ONLY %s LIMIT 1",
							   rf_store_relation_name(leaf)),
					  0, NULL, NULL, NULL) > 0)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("events were written to \"%s\" itself",
							   get_rel_name(leaf)),
						errhint("Insert into \"events\".")));
}

static void
note_end(const Adoption *adoption, RfStore *store, int64 streams)
{
	RfLedgerEntry entry = RF_LEDGER_ENTRY("adopt");

	entry.events = adoption->events;
	entry.streams = streams;
	entry.started_at = adoption->started_at;
	entry.detail = psprintf("%s, checksum %s", adoption->name,
							adoption->checksum);
	rf_ledger_write(store, &entry);
}

/* One attempt, in a subtransaction: the store becomes one like all others. */
static void
finish(void *arg)
{
	Adoption   *adoption = arg;
	RfStore	   *store = rf_store_in(adoption->target, false);
	Oid			leaves[2];
	int64		streams;
	RfLockLimit limit;
	RfScope		scope;

	begin_scope(adoption, &scope);
	rf_lock_begin(&limit);
	rf_lock_makers(&limit, store->namespace_id);
	store = rf_store_in(adoption->target, false);
	leaves[0] = rf_store_adopted_leaf(store->events_hot);
	leaves[1] = rf_store_adopted_leaf(store->events_archive);
	for (int i = 0; i < lengthof(leaves); i++)
		require_empty(leaves[i]);
	streams = ask_number(psprintf("SELECT count(*) FROM %s",
								  rf_store_relation_name(store->streams)));
	rf_lock_begin(&limit);
	rf_lock_table(&limit, store->events, AccessExclusiveLock);
	rf_lock_table(&limit, store->events_archive, AccessExclusiveLock);
	for (int i = 0; i < lengthof(leaves); i++)
	{
		if (OidIsValid(leaves[i]))
			rf_query_ddl("DROP TABLE %s", rf_store_relation_name(leaves[i]));
	}
	note_end(adoption, rf_store_in(adoption->target, false), streams);
	RF_WAIT_POINT("adopt_before_finish");
	rf_query_end(&scope);
}

/* From the switch on: the same after a crash as at once. */
static void
complete(Adoption *adoption)
{
	count_source(adoption);
	RF_WAIT_POINT("adopt_counted");
	carry(adoption, RF_HOT);
	carry(adoption, RF_COLD);
	begin_step(adoption);
	prove(adoption);
	rf_lock_retry(close_source, adoption);
	end_step(adoption);
	wait_until_unseen(adoption, RF_HOT);
	wait_until_unseen(adoption, RF_COLD);
	begin_step(adoption);
	rf_lock_retry(finish, adoption);
	end_step(adoption);
	ereport(NOTICE,
			(errmsg("schema \"%s\": " INT64_FORMAT " events adopted",
					get_namespace_name(adoption->target), adoption->events)));
}

/*
 * Beginning
 */

/*
 * An error is on its way to the caller, who may have cancelled, so this does
 * not wait for long.
 */
static void
clean_up_once(Adoption *adoption)
{
	ErrorData *error;

	if (!rf_query_attempt(clean_up, adoption, RF_ANY_END, &error))
		ereport(WARNING,
				(errmsg("could not take away what rf_adopt() has made: %s",
						error->message),
				 errdetail("Triggers on \"%s\" note what changes, in schema"
						   " \"%s\".",
						   adoption->name, adoption->staging_name),
				 errhint("Call rf_adopt() again, which takes them away"
						 " first.")));
}

/* Do a part of the beginning; when it fails, leave nothing behind. */
static void
attempt(Adoption *adoption, void (*work)(void *arg))
{
	ErrorData *error;
	bool	   done;

	begin_step(adoption);
	MemoryContextSwitchTo(adoption->context);
	done = rf_query_attempt(work, adoption, RF_ANY_END, &error);
	if (!done)
		clean_up_once(adoption);
	end_step(adoption);
	if (!done)
		ReThrowError(error);
}

static void
begin_adoption(Adoption *adoption)
{
	attempt(adoption, watch);
	attempt(adoption, prepare);
	adoption->changes = FEW_CHANGES;
	for (int i = 0; i < MAX_ROUNDS && adoption->changes >= FEW_CHANGES; i++)
		attempt(adoption, catch_up);
	attempt(adoption, switch_with_retry);
	if (adoption->was_partitioned)
		ereport(WARNING, (errmsg("cold events are kept in \"events_archive\""),
						  errdetail("The source had a table of that name."),
						  errhint("Run rf_archive_set_backend('partitioned')"
								  " afterwards.")));
	RF_WAIT_POINT("adopt_switched");
}

static void
require_owner(Oid relid)
{
	if (OidIsValid(relid) && !rf_compat_owns_relation(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, get_rel_name(relid));
}

/* Where the events go: to the store of the tenant, or where they are. */
static Oid
choose_target(Oid source, const char *tenant)
{
	char *schema = tenant == NULL ?
					   get_namespace_name(rf_store_extension_schema()) :
					   rf_store_schema_of_tenant(tenant);

	return schema == NULL ? get_rel_namespace(source) :
							get_namespace_oid(schema, false);
}

/* Rows of a plain table do not tell whose streams they are of. */
static void
require_single(const Adoption *adoption)
{
	RfStore *store = rf_store_in(adoption->target, true);

	if (store != NULL && store->conjoined)
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg(
				 "the store in schema \"%s\" is conjoined, and cannot adopt a table",
				 store->schema),
			 errhint("Insert the events into \"events\", with their tenant.")));
}

/* Check what the caller wants, and may, before anything is done. */
static void
look_through(Adoption *adoption, Oid relid)
{
	char   *schema = get_namespace_name(get_rel_namespace(relid));
	RfScope scope;

	require_single(adoption);
	adoption->in_place = get_rel_namespace(relid) == adoption->target &&
						 strcmp(get_rel_name(relid), "events") == 0;
	require_owner(relid);
	if (!rf_compat_owns_schema(adoption->target, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_SCHEMA,
					   get_namespace_name(adoption->target));
	rf_query_begin(&scope, rf_store_relation_owner(relid),
				   SECURITY_RESTRICTED_OPERATION);
	rf_source_find(relid, rf_store_is_registered(schema) && !adoption->in_place,
				   &adoption->source);
	require_owner(adoption->source.archive);
	require_owner(adoption->source.streams);
	rf_source_check_shape(&adoption->source);
	require_free_names(adoption);
	if (empty_store(adoption) != NULL &&
		empty_store(adoption)->owner != adoption->source.owner)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg(
				 "the store in schema \"%s\" has another owner than table \"%s\"",
				 get_namespace_name(adoption->target), get_rel_name(relid)),
			 errhint("Run: ALTER TABLE ... OWNER TO.")));
	rf_query_end(&scope);
	rf_install_require_free_tenant(get_namespace_name(adoption->target),
								   adoption->tenant);
}

/* The schema whose store a table is being adopted into; InvalidOid: none. */
static Oid
find_begun(Oid relid)
{
	Oid		 root = get_rel_relispartition(relid) ?
						llast_oid(get_partition_ancestors(relid)) :
						relid;
	RfStore *store = rf_store_in(get_rel_namespace(root), true);

	if (store == NULL ||
		(store->events != root && store->events_archive != root))
		return InvalidOid;
	if (!store->adopting)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" is one of the store in schema \"%s\"",
						get_rel_name(relid), store->schema),
				 errhint("There is nothing to adopt.")));
	return store->namespace_id;
}

/* One session at a time adopts a table, or into a schema. */
static void
lock_session(Adoption *adoption, int32 class, Oid object)
{
	if (DatumGetBool(DirectFunctionCall2(pg_try_advisory_lock_int4,
										 Int32GetDatum(class),
										 Int32GetDatum((int32) object))))
	{
		adoption->locks[adoption->nlocks].class = class;
		adoption->locks[adoption->nlocks++].object = object;
		return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("another session is adopting \"%s\"", adoption->name),
			 errhint("Wait for it.")));
}

static void
unlock_session(const Adoption *adoption)
{
	for (int i = 0; i < adoption->nlocks; i++)
		DirectFunctionCall2(pg_advisory_unlock_int4,
							Int32GetDatum(adoption->locks[i].class),
							Int32GetDatum((int32) adoption->locks[i].object));
}

/* Is the adoption past its switch?  If not, look the source through. */
static bool
take_up(Adoption *adoption, Oid relid)
{
	RfStore *store;

	lock_session(adoption, SOURCE_LOCK_CLASS, relid);
	adoption->target = find_begun(relid);
	if (OidIsValid(adoption->target))
	{
		store = rf_store_in(adoption->target, false);
		require_owner(store->events);
		adoption->source.owner = store->owner;
		lock_session(adoption, TARGET_LOCK_CLASS, adoption->target);
		return true;
	}
	adoption->target = choose_target(relid, adoption->tenant);
	lock_session(adoption, TARGET_LOCK_CLASS, adoption->target);
	look_through(adoption, relid);
	rf_lock_retry(clean_up, adoption);
	return false;
}

static void
adopt(Adoption *adoption, Oid relid)
{
	bool begun;

	begin_step(adoption);
	MemoryContextSwitchTo(adoption->context);
	adoption->name = rf_store_relation_name(relid);
	adoption->staging_name = psprintf("rf_adopt_%u", relid);
	begun = take_up(adoption, relid);
	end_step(adoption);
	if (!begun)
		begin_adoption(adoption);
	complete(adoption);
	pgstat_report_activity(STATE_RUNNING, debug_query_string);
}

/*
 * SQL interface
 */

PG_FUNCTION_INFO_V1(rf_adopt);

static void
require_no_transaction_block(FunctionCallInfo fcinfo)
{
	if (fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
		castNode(CallContext, fcinfo->context)->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("rf_adopt() cannot run inside a transaction block"),
				 errhint("It commits after each batch.")));
}

Datum
rf_adopt(PG_FUNCTION_ARGS)
{
	Oid		 relid;
	Adoption adoption = {0};

	require_no_transaction_block(fcinfo);
	PreventCommandIfReadOnly("rf_adopt()");
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("\"source\" must not be null")));
	relid = PG_GETARG_OID(0);
	if (get_rel_name(relid) == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("relation with OID %u does not exist", relid)));

	/* from here on memory has to outlive the transactions */
	rf_query_connect_nonatomic();
	adoption.context = CurrentMemoryContext;
	adoption.step = AllocSetContextCreate(adoption.context, "Rillflow step",
										  ALLOCSET_DEFAULT_SIZES);
	adoption.tenant = RF_GETARG_STRING(1);
	adoption.started_at = adoption.reported_at = GetCurrentTimestamp();
	PG_TRY();
	{
		adopt(&adoption, relid);
	}
	PG_FINALLY();
	{
		unlock_session(&adoption);
	}
	PG_END_TRY();
	rf_query_disconnect();
	PG_RETURN_VOID();
}
