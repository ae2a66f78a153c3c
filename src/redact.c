/*-------------------------------------------------------------------------
 *
 * redact.c
 *	  Redactions: the only change that is made to an event.
 *
 * A redaction blanks body and headers of one event, or of all of a stream, hot
 * and cold, where they are, and takes their idempotency keys away.  Everything
 * else of an event stays: number, type, times, ids, tombstone.  The headers say
 * that it is redacted, and by that it is known: an event that is redacted
 * already is left alone.
 *
 * A redaction fires no trigger: events are append-only for everybody else, so
 * no trigger of a user has ever seen an UPDATE, and one that keeps old rows
 * would keep what is to go.  Those that fire all the same are refused.
 *
 * Nobody else changes an event, but others carry events from leaf to leaf.
 * Marks, reactivations and appends wait for the stream's row, which is locked
 * first.  Flips, and who makes months, wait for the tables that are locked.  A
 * move does not: what it has deleted is waited for, row by row, and found in
 * the cold tier, which is looked through after the hot one.  A month that is
 * about to flip takes rows the other way.  So at the end one snapshot has to
 * show that nothing is left; otherwise everything is looked through again.  A
 * move that waits for us takes the event as we leave it.  Under REPEATABLE READ
 * every event stands where the snapshot shows it, or the server fails with
 * 40001.
 *
 * Locks: events, events_archive, their default partitions; rf_holds, so that
 * nothing is put on hold meanwhile; the stream's row FOR UPDATE; its events,
 * hot months before cold ones, oldest first, in the order of their numbers, as
 * moves take them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "frame.h"
#include "hold.h"
#include "ledger.h"
#include "partition.h"
#include "query.h"
#include "store.h"
#include "stream.h"
#include "wait_point.h"

/* events of one statement; after each of them progress is told */
#define BATCH_SIZE 10000

/* how often leaves are looked through, since events can come from others */
#define MAX_PASSES 10

/* what a redacted event has */
#define REDACTED_BODY "{}"
#define REDACTED_HEADERS "{\"redacted\": true}"

/* parameters of all statements below */
enum
{
	ARG_STREAM,
	ARG_AFTER,	 /* numbers from here on, exclusively … */
	ARG_UP_TO,	 /* … to here, inclusively */
	ARG_BODY,	 /* as it is when redacted */
	ARG_HEADERS, /* likewise */
	ARG_LIMIT,
	ARG_FROM, /* months */
	ARG_TO,
	NARGS
};

#define ARGS(n)                                                          \
	n,                                                                   \
	{                                                                    \
		UUIDOID, INT4OID, INT4OID, JSONBOID, JSONBOID, INT4OID, DATEOID, \
			DATEOID                                                      \
	}

/* headers come first, since they are the smaller ones to unpack */
#define IS_WANTED                              \
	"stream_id = $1{mine} AND stream_seq > $2" \
	" AND stream_seq <= $3"                    \
	" AND (headers IS DISTINCT FROM $5 OR body IS DISTINCT FROM $4)"

/* no key is changed, so raw INSERTs that hold a number are not waited for */
static const RfStatement redact_leaf =
	{"WITH old AS MATERIALIZED (SELECT stream_seq AS n,"
	 " headers ->> 'idempotency_key' AS key FROM ONLY {source}"
	 " WHERE " IS_WANTED " ORDER BY stream_seq LIMIT $6 FOR NO KEY UPDATE),"
	 " done AS (UPDATE ONLY {source} AS e SET body = $4, headers = $5"
	 " FROM old WHERE e.stream_id = $1{mine e} AND e.stream_seq = old.n"
	 " RETURNING 1),"
	 " freed AS (DELETE FROM {keys} AS k USING old"
	 " WHERE k.idempotency_key = old.key AND k.stream_id = $1{mine k}"
	 " AND k.stream_seq = old.n)"
	 " SELECT (SELECT count(*) FROM old), (SELECT max(n) FROM old),"
	 " (SELECT count(*) FROM done)",
	 ARGS(6)};

static const RfStatement find_left =
	{"SELECT 1 FROM {events} WHERE " IS_WANTED
	 " AND bucket_month BETWEEN $7 AND $8"
	 " UNION ALL SELECT 1 FROM {archive} WHERE " IS_WANTED
	 " AND bucket_month BETWEEN $7 AND $8 LIMIT 1",
	 ARGS(8)};

static const RfStatement find_event =
	{"SELECT 1 FROM {all} WHERE stream_id = $1{mine} AND stream_seq = $2",
	 2,
	 {UUIDOID, INT4OID}};

static const RfStatement lock_stream =
	{"SELECT first_event_at, last_event_at FROM {streams}"
	 " WHERE stream_id = $1{mine} FOR UPDATE",
	 1,
	 {UUIDOID}};

typedef struct Redaction
{
	RfStore			*store;
	const pg_uuid_t *stream_id;
	int32			 stream_seq; /* 0: the whole stream */
	const char		*reason;
	Datum			 values[NARGS];
	DateADT			 from; /* months of the stream */
	DateADT			 to;
	int64			 events; /* so far */
} Redaction;

/*
 * One after the other
 */

static void
report_progress(const Redaction *redaction)
{
	char *message = psprintf("redacted " INT64_FORMAT
							 " events of stream %s so far",
							 redaction->events,
							 rf_query_uuid_text(redaction->stream_id));

	CHECK_FOR_INTERRUPTS();
	ereport(NOTICE, (errmsg_internal("%s", message)));
	pgstat_report_activity(STATE_RUNNING, psprintf("rf_redact: %s", message));
}

/* A trigger that fires all the same would be shown what is to go. */
static void
require_silent(Oid relid, int16 event)
{
	Relation	 rel = table_open(relid, AccessShareLock);
	TriggerDesc *triggers = rel->trigdesc;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		Trigger *trigger = &triggers->triggers[i];

		if ((trigger->tgtype & event) != 0 &&
			(trigger->tgenabled == TRIGGER_FIRES_ALWAYS ||
			 trigger->tgenabled == TRIGGER_FIRES_ON_REPLICA))
			ereport(
				ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg(
					 "trigger \"%s\" of table \"%s\" would fire when events are redacted",
					 trigger->tgname, RelationGetRelationName(rel)),
				 errhint("Run: ALTER TABLE %s ENABLE TRIGGER %s;",
						 rf_store_relation_name(relid),
						 quote_identifier(trigger->tgname))));
	}
	table_close(rel, AccessShareLock);
}

static void
require_all_done(int64 picked, int64 done, Oid leaf)
{
	if (picked != done)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("of " INT64_FORMAT " events of \"%s\", " INT64_FORMAT
						" could be redacted",
						picked, get_rel_name(leaf), done),
				 errhint("Look for a rule that skips rows.")));
}

static void
redact_leaf_of(Redaction *redaction, Oid leaf)
{
	RfStore *store = redaction->store;
	Datum	 values[NARGS];
	int64	 picked;

	memcpy(values, redaction->values, sizeof(values));
	require_silent(leaf, TRIGGER_TYPE_UPDATE);
	for (;;)
	{
		rf_query_run_untriggered(rf_store_plan_for(store, &redact_leaf, leaf,
												   InvalidOid),
								 values, NULL);
		picked = DatumGetInt64(rf_query_must(0, 1));
		require_all_done(picked, DatumGetInt64(rf_query_must(0, 3)), leaf);
		redaction->events += picked;
		if (picked < BATCH_SIZE)
			break;
		values[ARG_AFTER] = rf_query_must(0, 2);
		report_progress(redaction);
	}
}

static void
redact_leaves(Redaction *redaction, Oid parent)
{
	List	 *leaves = rf_partition_list(parent);
	ListCell *cell;

	foreach(cell, leaves)
	{
		RfPartition *leaf = lfirst(cell);

		CHECK_FOR_INTERRUPTS();
		if (leaf->lower <= redaction->to && redaction->from < leaf->upper)
			redact_leaf_of(redaction, leaf->relid);
	}
}

/*
 * Does one snapshot show any event that is not redacted, wherever it is?  One
 * that is on its way is shown where it comes from.
 */
static bool
is_any_left(Redaction *redaction)
{
	return rf_query_run(rf_store_plan(redaction->store, &find_left),
						redaction->values, NULL) > 0;
}

static void
redact_tiers(Redaction *redaction)
{
	RfStore *store = redaction->store;

	require_silent(store->keys, TRIGGER_TYPE_DELETE);
	for (int pass = 1; pass <= MAX_PASSES; pass++)
	{
		redact_leaves(redaction, store->events_hot);
		RF_WAIT_POINT("redact_before_cold");
		redact_leaves(redaction, store->events_cold);
		redact_leaves(redaction, store->events_archive);
		if (!is_any_left(redaction))
			return;
	}
	ereport(ERROR, (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					errmsg("events of stream %s were moved meanwhile",
						   rf_query_uuid_text(redaction->stream_id)),
					errhint("Run the transaction again.")));
}

/*
 * The whole
 */

/*
 * Hold the tables as they are: no month flips, is made out of a default
 * partition or is dropped, and nothing is put on hold.  Returns the store as it
 * is under the locks.
 */
static RfStore *
lock_tables(RfStore *store)
{
	LockRelationOid(store->events, RowExclusiveLock);
	LockRelationOid(store->events_archive, RowExclusiveLock);
	if (!store->valid)
		store = rf_store_again(store);
	rf_store_require_adopted(store);
	rf_partition_lock_default(store->events_hot);
	rf_partition_lock_default(store->events_cold);
	rf_partition_lock_default(store->events_archive);
	rf_hold_keep(store, NULL);
	return store;
}

static void
set_values(Redaction *redaction)
{
	int32 number = redaction->stream_seq;

	redaction->values[ARG_STREAM] = UUIDPGetDatum(redaction->stream_id);
	redaction->values[ARG_AFTER] = Int32GetDatum(number > 0 ? number - 1 : 0);
	redaction->values[ARG_UP_TO] = Int32GetDatum(number > 0 ? number :
															  PG_INT32_MAX);
	redaction->values[ARG_BODY] =
		DirectFunctionCall1(jsonb_in, CStringGetDatum(REDACTED_BODY));
	redaction->values[ARG_HEADERS] =
		DirectFunctionCall1(jsonb_in, CStringGetDatum(REDACTED_HEADERS));
	redaction->values[ARG_LIMIT] = Int32GetDatum(BATCH_SIZE);
	redaction->values[ARG_FROM] = DateADTGetDatum(redaction->from);
	redaction->values[ARG_TO] = DateADTGetDatum(redaction->to);
}

/* Lock the stream, and find its months; false when it has no event. */
static bool
lock_row(Redaction *redaction)
{
	Datum value = UUIDPGetDatum(redaction->stream_id);

	if (rf_query_run(rf_store_plan(redaction->store, &lock_stream), &value,
					 NULL) == 0)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("stream %s does not exist",
							   rf_query_uuid_text(redaction->stream_id))));
	if (rf_query_null(0, 1) || rf_query_null(0, 2))
		return false;
	redaction->from = rf_partition_month_of(
		DatumGetTimestampTz(rf_query_must(0, 1)));
	redaction->to = rf_partition_month_of(
		DatumGetTimestampTz(rf_query_must(0, 2)));
	return true;
}

/* An event that is named has to be there. */
static void
require_event(Redaction *redaction)
{
	Datum values[2];

	values[0] = UUIDPGetDatum(redaction->stream_id);
	values[1] = Int32GetDatum(redaction->stream_seq);
	if (rf_query_run(rf_store_plan(redaction->store, &find_event), values,
					 NULL) == 0)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("stream %s has no event %d",
							   rf_query_uuid_text(redaction->stream_id),
							   redaction->stream_seq)));
}

static void
note(Redaction *redaction, TimestampTz started_at)
{
	RfLedgerEntry entry = RF_LEDGER_ENTRY("redact");

	entry.stream_id = redaction->stream_id;
	entry.events = redaction->events;
	entry.streams = 1;
	entry.started_at = started_at;
	entry.detail = redaction->stream_seq == 0 ?
					   redaction->reason :
					   psprintf("event %d: %s", redaction->stream_seq,
								redaction->reason);
	rf_ledger_write(redaction->store, &entry);
}

/* Redact, and return how many events were not redacted before. */
static int64
redact(Redaction *redaction)
{
	TimestampTz started_at = GetCurrentTimestamp();
	bool		has_events;
	RfScope		scope;

	rf_frame_flush();
	redaction->store = lock_tables(redaction->store);
	rf_query_begin(&scope, redaction->store->owner,
				   SECURITY_RESTRICTED_OPERATION);
	has_events = lock_row(redaction);
	rf_hold_require_free(redaction->store, redaction->stream_id);
	if (has_events)
	{
		set_values(redaction);
		RF_WAIT_POINT("redact_before_hot");
		redact_tiers(redaction);
	}
	if (redaction->events > 0)
		note(redaction, started_at);
	else if (redaction->stream_seq > 0)
		require_event(redaction);
	rf_query_end(&scope);
	return redaction->events;
}

static void
check_arguments(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("\"stream_id\" must not be null")));
	if (!PG_ARGISNULL(1) && PG_GETARG_INT32(1) < 1)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("\"stream_seq\" must be 1 or higher"),
						errhint("Leave it out to redact the whole stream.")));
	if (PG_ARGISNULL(2) || VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(2)) == 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("\"reason\" must not be %s",
							   PG_ARGISNULL(2) ? "null" : "empty"),
						errhint("Tell why, for those who ask later.")));
}

/*
 * SQL interface
 */

PG_FUNCTION_INFO_V1(rf_redact);

Datum
rf_redact(PG_FUNCTION_ARGS)
{
	char	 *tenant = RF_GETARG_STRING(3);
	Redaction redaction = {0};

	PreventCommandIfReadOnly("rf_redact()");
	check_arguments(fcinfo);
	redaction.store = rf_store_get(tenant, RF_RIGHT_OWN);
	redaction.stream_id = PG_GETARG_UUID_P(0);
	redaction.stream_seq = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT32(1);
	redaction.reason = text_to_cstring(PG_GETARG_TEXT_PP(2));
	PG_RETURN_INT64(redact(&redaction));
}
