/*-------------------------------------------------------------------------
 *
 * consumer.c
 *	  Consumers: how far readers of rf_read_all() have come.
 *
 * A consumer is a row of rf_consumers: its name, and the global_seq of the
 * last event that it has read.  A move takes no event beyond the lowest of
 * these checkpoints, so that a projection which reads the hot tier finds each
 * event there.
 *
 * Checkpoints go forward only, so a move may rely on the one that it has read:
 * whoever advances waits for no move, and no move for him.  A consumer that is
 * new can set the lowest checkpoint back.  That is why moves share an advisory
 * lock, from before they read the checkpoints to the end of their transaction,
 * which whoever registers takes alone.  They read with the latest snapshot,
 * which shows who had registered by then, at any isolation level.
 *
 * A plain INSERT or UPDATE of the table does not take that lock.
 *
 * Locks: to register, the advisory lock (7274, schema) alone, waited for no
 * longer than lock.c says; then the consumer's row.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "consumer.h"
#include "lock.h"
#include "query.h"
#include "store.h"

/* columns of rf_consumers */
#define CONSUMERS_NAME 1
#define CONSUMERS_LAST 2
#define CONSUMERS_UPDATED 3

static const RfStatement is_reached =
	{"SELECT 1 FROM {all} WHERE global_seq >= $1 LIMIT 1", 1, {INT8OID}};

static const RfStatement advance_checkpoint =
	{"UPDATE {consumers} SET last_global_seq = $2, updated_at = now()"
	 " WHERE name = $1 AND last_global_seq <= $2",
	 2,
	 {TEXTOID, INT8OID}};

static const RfStatement register_consumer =
	{"INSERT INTO {consumers} AS c (name, last_global_seq) VALUES ($1, $2)"
	 " ON CONFLICT (name) DO UPDATE SET"
	 " last_global_seq = excluded.last_global_seq, updated_at = now()"
	 " WHERE c.last_global_seq <= excluded.last_global_seq",
	 2,
	 {TEXTOID, INT8OID}};

static const RfStatement read_checkpoint =
	{"SELECT last_global_seq FROM {consumers} WHERE name = $1", 1, {TEXTOID}};

static const RfStatement remove_consumer =
	{"DELETE FROM {consumers} WHERE name = $1", 1, {TEXTOID}};

static const RfStatement highest_given_out =
	{"SELECT coalesce(pg_sequence_last_value($1), 0)", 1, {OIDOID}};

/*
 * Reading checkpoints
 */

static RfCheckpoint
checkpoint_of(HeapTuple tuple, TupleDesc tupdesc)
{
	RfCheckpoint result;
	bool		 isnull;

	result.name = TextDatumGetCString(
		heap_getattr(tuple, CONSUMERS_NAME, tupdesc, &isnull));
	result.global_seq = DatumGetInt64(
		heap_getattr(tuple, CONSUMERS_LAST, tupdesc, &isnull));
	result.updated_at = DatumGetTimestampTz(
		heap_getattr(tuple, CONSUMERS_UPDATED, tupdesc, &isnull));
	return result;
}

/* Of two that have read as far, the one that has stood there for longer. */
static bool
is_behind(const RfCheckpoint *a, const RfCheckpoint *b)
{
	if (b->name == NULL || a->global_seq != b->global_seq)
		return b->name == NULL || a->global_seq < b->global_seq;
	if (a->updated_at != b->updated_at)
		return a->updated_at < b->updated_at;
	return strcmp(a->name, b->name) < 0;
}

/*
 * How far a move may go: the lowest checkpoint, as it is now, or no limit when
 * there is none or it is to be ignored.
 */
void
rf_consumer_limit(const RfStore *store, bool ignore, RfCheckpoint *limit)
{
	Relation	rel;
	Snapshot	snapshot;
	SysScanDesc scan;
	HeapTuple	tuple;

	limit->name = NULL;
	limit->global_seq = PG_INT64_MAX;
	limit->updated_at = DT_NOEND;
	if (ignore)
		return;
	rel = table_open(store->consumers, AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		RfCheckpoint checkpoint = checkpoint_of(tuple, RelationGetDescr(rel));

		if (is_behind(&checkpoint, limit))
			*limit = checkpoint;
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
}

/* All checkpoints, as a list of RfCheckpoint. */
List *
rf_consumer_list(const RfStore *store)
{
	Relation	rel = table_open(store->consumers, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false,
										  GetActiveSnapshot(), 0, NULL);
	List	   *result = NIL;
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		RfCheckpoint *checkpoint = palloc(sizeof(RfCheckpoint));

		*checkpoint = checkpoint_of(tuple, RelationGetDescr(rel));
		result = lappend(result, checkpoint);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

/*
 * Registering, and moves
 */

typedef struct Gate
{
	Oid	 namespace_id;
	bool shared;
} Gate;

/* One attempt; the argument is a Gate. */
static void
wait_at_gate(void *arg)
{
	const Gate *gate = arg;
	RfLockLimit limit;
	RfScope		scope;

	rf_query_begin(&scope, InvalidOid, 0);
	rf_lock_begin(&limit);
	rf_lock_checkpoints(&limit, gate->namespace_id, gate->shared);
	rf_query_end(&scope);
}

/*
 * Keep consumers from registering until the transaction ends, for a move that
 * is about to read how far it may go.  Who is registering is waited for, once,
 * or until it has been tried often enough.
 */
void
rf_consumer_keep(const RfStore *store, bool patient)
{
	Gate gate = {.namespace_id = store->namespace_id, .shared = true};

	if (rf_lock_try_checkpoints(store->namespace_id))
		return;
	if (patient)
		rf_lock_retry(wait_at_gate, &gate);
	else
		wait_at_gate(&gate);
}

/* Wait for the moves that are under way, for none has read the new name. */
static void
wait_for_moves(const RfStore *store, const char *name)
{
	Gate	   gate = {.namespace_id = store->namespace_id, .shared = false};
	ErrorData *error;

	if (rf_query_attempt(wait_at_gate, &gate, ERRCODE_LOCK_NOT_AVAILABLE,
						 &error))
		return;
	ereport(
		ERROR,
		(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
		 errmsg(
			 "consumer \"%s\" cannot be registered while a move is under way",
			 name),
		 errhint(
			 "Try again, or allow for a longer wait with rillflow.lock_timeout.")));
}

/*
 * Advancing
 */

/* The highest global_seq given out; to be called in a scope of the owner. */
int64
rf_consumer_highest(RfStore *store)
{
	Datum value = ObjectIdGetDatum(store->sequence);

	rf_query_run(rf_store_plan(store, &highest_given_out), &value, NULL);
	return DatumGetInt64(rf_query_must(0, 1));
}

/* The consumer that holds moves back, if the lowest is not at the end. */
bool
rf_consumer_lags(RfStore *store, RfCheckpoint *checkpoint)
{
	RfScope scope;
	int64	last;

	rf_consumer_limit(store, false, checkpoint);
	if (checkpoint->name == NULL)
		return false;
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	last = rf_consumer_highest(store);
	rf_query_end(&scope);
	return checkpoint->global_seq < last;
}

static void
require_given_out(RfStore *store, int64 global_seq)
{
	int64 last = rf_consumer_highest(store);
	Datum value = Int64GetDatum(global_seq);

	/* a number that no sequence has given is read all the same */
	if (global_seq > last &&
		rf_query_run(rf_store_plan(store, &is_reached), &value, NULL) == 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("there is no event " INT64_FORMAT " yet", global_seq),
			 errdetail("The highest \"global_seq\" given out is " INT64_FORMAT
					   ".",
					   last),
			 errhint("Pass that of the last event that was read.")));
}

/* The checkpoint of a consumer; false when there is no such consumer. */
static bool
find_checkpoint(RfStore *store, const Datum *name, int64 *global_seq)
{
	if (rf_query_run(rf_store_plan(store, &read_checkpoint), name, NULL) == 0)
		return false;
	*global_seq = DatumGetInt64(rf_query_must(0, 1));
	return true;
}

static void
refuse_backward(const char *name, int64 stored, int64 global_seq)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		 errmsg("consumer \"%s\" has read up to " INT64_FORMAT
				" and cannot go back to " INT64_FORMAT,
				name, stored, global_seq),
		 errhint(
			 "To read again, rf_consumer_remove() it and register it anew.")));
}

/*
 * Move a checkpoint forward, or make it.  A row that changes as we look is
 * locked by the UPDATE, or by the INSERT that finds it there.
 */
static void
advance(RfStore *store, const char *name, int64 global_seq)
{
	RfScope scope;
	Datum	values[2];
	int64	stored;

	values[0] = CStringGetTextDatum(name);
	values[1] = Int64GetDatum(global_seq);
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	require_given_out(store, global_seq);
	if (rf_query_run(rf_store_plan(store, &advance_checkpoint), values, NULL) ==
		0)
	{
		if (find_checkpoint(store, values, &stored))
			refuse_backward(name, stored, global_seq);
		wait_for_moves(store, name);
		if (rf_query_run(rf_store_plan(store, &register_consumer), values,
						 NULL) == 0 &&
			find_checkpoint(store, values, &stored))
			refuse_backward(name, stored, global_seq);
	}
	rf_query_end(&scope);
}

static void
forget(RfStore *store, const char *name)
{
	RfScope scope;
	Datum	value = CStringGetTextDatum(name);

	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	if (rf_query_run(rf_store_plan(store, &remove_consumer), &value, NULL) == 0)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("consumer \"%s\" does not exist", name)));
	rf_query_end(&scope);
}

/* The name, which is the first argument. */
static char *
read_name(FunctionCallInfo fcinfo)
{
	char *name = RF_GETARG_STRING(0);

	rf_store_require_name(name);
	return name;
}

/*
 * SQL interface
 */

PG_FUNCTION_INFO_V1(rf_consumer_advance);
PG_FUNCTION_INFO_V1(rf_consumer_remove);

Datum
rf_consumer_advance(PG_FUNCTION_ARGS)
{
	char *name;
	char *tenant = RF_GETARG_STRING(2);

	PreventCommandIfReadOnly("rf_consumer_advance()");
	name = read_name(fcinfo);
	if (PG_ARGISNULL(1) || PG_GETARG_INT64(1) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"global_seq\" must not be %s",
						PG_ARGISNULL(1) ? "null" : "negative"),
				 errhint("0 is for a consumer that has read nothing yet.")));
	advance(rf_store_get_whole(tenant, RF_RIGHT_CONSUME), name,
			PG_GETARG_INT64(1));
	PG_RETURN_VOID();
}

Datum
rf_consumer_remove(PG_FUNCTION_ARGS)
{
	char *name;
	char *tenant = RF_GETARG_STRING(1);

	PreventCommandIfReadOnly("rf_consumer_remove()");
	name = read_name(fcinfo);
	forget(rf_store_get_whole(tenant, RF_RIGHT_CONSUME), name);
	PG_RETURN_VOID();
}
