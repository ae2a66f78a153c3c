/*-------------------------------------------------------------------------
 *
 * hold.c
 *	  Holds: what may be neither dropped nor redacted, and why.
 *
 * A hold is a row of rf_holds: of one stream, or, without one, of the store and
 * all that comes to it.  A stream can be on hold for several reasons, each of
 * which is released by itself; the reason is what tells holds apart.  Held
 * events change tier like all others, for nothing of them is lost by that.
 *
 * Who drops or redacts keeps the holds as they are until his transaction ends,
 * by a lock on the table that stands against all who write it, and then looks
 * at them with the latest snapshot.  So a hold that comes first is seen, and
 * one that comes later waits, also one that was inserted by hand.  Those who
 * drop or redact do not wait for each other.
 *
 * Locks: SHARE on rf_holds for who drops or redacts, after the tables of events
 * and before rows; ROW EXCLUSIVE for who places or releases a hold.
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
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "hold.h"
#include "ledger.h"
#include "lock.h"
#include "query.h"
#include "store.h"

/* columns of rf_holds */
#define HOLDS_STREAM_ID 2
#define HOLDS_REASON 4

/* a row of an index holds more, but not much */
#define MAX_REASON_BYTES 1000

static const RfStatement find_stream =
	{"SELECT 1 FROM {streams} WHERE stream_id = $1", 1, {UUIDOID}};

static const RfStatement place_hold =
	{"INSERT INTO {holds} (stream_id, reason, held_by)"
	 " VALUES ($1, $2, session_user) ON CONFLICT DO NOTHING",
	 2,
	 {UUIDOID, TEXTOID}};

static const RfStatement find_reasons =
	{"SELECT reason FROM {holds} WHERE stream_id IS NOT DISTINCT FROM $1"
	 " ORDER BY hold_id",
	 1,
	 {UUIDOID}};

static const RfStatement remove_hold =
	{"DELETE FROM {holds} WHERE stream_id IS NOT DISTINCT FROM $1"
	 " AND reason = $2",
	 2,
	 {UUIDOID, TEXTOID}};

/*
 * Asking
 */

/*
 * Keep holds as they are until the transaction ends.  The locks on tables of
 * events have been taken before, within that limit if there is one.
 */
void
rf_hold_keep(const RfStore *store, const RfLockLimit *limit)
{
	if (limit != NULL)
		rf_lock_table(limit, store->holds, ShareLock);
	else
		LockRelationOid(store->holds, ShareLock);
}

static RfHold *
hold_of(HeapTuple tuple, TupleDesc tupdesc)
{
	RfHold *hold = palloc0(sizeof(RfHold));
	bool	isnull;
	Datum	value = heap_getattr(tuple, HOLDS_STREAM_ID, tupdesc,
								 &hold->of_store);

	if (!hold->of_store)
		hold->stream_id = *DatumGetUUIDP(value);
	value = heap_getattr(tuple, HOLDS_REASON, tupdesc, &isnull);
	hold->reason = isnull ? "" : TextDatumGetCString(value);
	return hold;
}

/*
 * The holds there are now; with an id, those that concern that stream.  They
 * are few, since people place them.
 */
List *
rf_hold_list(const RfStore *store, const pg_uuid_t *id)
{
	Relation	rel = table_open(store->holds, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0,
										  NULL);
	List	   *result = NIL;
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		RfHold *hold = hold_of(tuple, RelationGetDescr(rel));

		CHECK_FOR_INTERRUPTS();
		if (id == NULL || hold->of_store || rf_uuid_equal(&hold->stream_id, id))
			result = lappend(result, hold);
		else
			pfree(hold);
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return result;
}

/* What cannot be done because of a hold. */
void
rf_hold_refuse(const RfStore *store, const RfHold *hold, const char *what)
{
	if (hold->of_store)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s while the store in schema \"%s\" is on hold", what,
						store->schema),
				 errdetail("The reason is \"%s\".", hold->reason),
				 errhint("When it is over, release it with rf_release().")));
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("%s while stream %s is on hold", what,
						   rf_query_uuid_text(&hold->stream_id)),
					errdetail("The reason is \"%s\".", hold->reason),
					errhint("When it is over, release it with rf_release().")));
}

/* The caller keeps the holds as they are. */
void
rf_hold_require_free(const RfStore *store, const pg_uuid_t *id)
{
	List *holds = rf_hold_list(store, id);

	if (holds != NIL)
		rf_hold_refuse(store, linitial(holds), "events cannot be redacted");
}

/*
 * Refuse to remove a store, or its guards, while anything in it is on hold; and
 * keep it so until the transaction ends.
 */
void
rf_hold_require_none(const RfStore *store)
{
	List *holds;

	rf_hold_keep(store, NULL);
	holds = rf_hold_list(store, NULL);
	if (holds != NIL)
		rf_hold_refuse(store, linitial(holds), "the store cannot be removed");
}

/*
 * Placing and releasing
 */

/* The stream, NULL for the whole store, and the reason, NULL for the only one.
 */
static void
set_values(const pg_uuid_t *id, const char *reason, Datum *values, char *nulls)
{
	values[0] = id == NULL ? (Datum) 0 : UUIDPGetDatum(id);
	nulls[0] = id == NULL ? 'n' : ' ';
	values[1] = reason == NULL ? (Datum) 0 : CStringGetTextDatum(reason);
	nulls[1] = reason == NULL ? 'n' : ' ';
}

static void
log_hold(RfStore *store, const char *action, const pg_uuid_t *id,
		 const char *reason)
{
	RfLedgerEntry entry = {.action = action,
						   .bucket_month = DATEVAL_NOEND,
						   .events = -1,
						   .streams = id == NULL ? -1 : 1,
						   .stream_id = id,
						   .detail = reason};

	rf_ledger_write(store, &entry);
}

/* Place a hold; false when it is there already. */
static bool
place(RfStore *store, const pg_uuid_t *id, const char *reason)
{
	Datum	values[2];
	char	nulls[2];
	RfScope scope;
	bool	placed;

	set_values(id, reason, values, nulls);
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	if (id != NULL &&
		rf_query_run(rf_store_plan(store, &find_stream), values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("stream %s does not exist", rf_query_uuid_text(id))));
	placed = rf_query_run(rf_store_plan(store, &place_hold), values, nulls) > 0;
	if (placed)
		log_hold(store, "hold", id, reason);
	rf_query_end(&scope);
	return placed;
}

static void
refuse_release(const RfStore *store, const pg_uuid_t *id, const char *reason)
{
	const char *what = id == NULL ?
						   psprintf("the store in schema \"%s\"",
									store->schema) :
						   psprintf("stream %s", rf_query_uuid_text(id));

	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 reason == NULL ? errmsg("%s is not on hold", what) :
							  errmsg("%s is not on hold for the reason \"%s\"",
									 what, reason),
			 errhint("\"rf_holds\" has the holds that there are.")));
}

/* The reason for the only hold; who does not name one must mean that. */
static char *
only_reason(RfStore *store, const pg_uuid_t *id, const Datum *values,
			const char *nulls)
{
	uint64 holds = rf_query_run(rf_store_plan(store, &find_reasons), values,
								nulls);

	if (holds == 0)
		refuse_release(store, id, NULL);
	if (holds > 1)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there are " UINT64_FORMAT " holds to choose from",
						holds),
				 errdetail("The first one has the reason \"%s\".",
						   TextDatumGetCString(rf_query_must(0, 1))),
				 errhint("Name the one to release with reason => '...'.")));
	return TextDatumGetCString(rf_query_must(0, 1));
}

static void
release(RfStore *store, const pg_uuid_t *id, char *reason)
{
	Datum	values[2];
	char	nulls[2];
	RfScope scope;

	set_values(id, NULL, values, nulls);
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	if (reason == NULL)
		reason = only_reason(store, id, values, nulls);
	set_values(id, reason, values, nulls);
	if (rf_query_run(rf_store_plan(store, &remove_hold), values, nulls) == 0)
		refuse_release(store, id, reason);
	log_hold(store, "release", id, reason);
	rf_query_end(&scope);
}

static void
check_reason(const char *reason)
{
	if (reason == NULL || *reason == '\0')
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("\"reason\" must not be %s",
							   reason == NULL ? "null" : "empty"),
						errhint("Tell why, for those who ask later.")));
	if (strlen(reason) > MAX_REASON_BYTES)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("\"reason\" is too long"),
						errdetail("It has %d bytes, of at most %d.",
								  (int) strlen(reason), MAX_REASON_BYTES)));
}

/*
 * SQL interface
 */

PG_FUNCTION_INFO_V1(rf_hold);
PG_FUNCTION_INFO_V1(rf_release);

Datum
rf_hold(PG_FUNCTION_ARGS)
{
	char *reason = RF_GETARG_STRING(1);
	char *tenant = RF_GETARG_STRING(2);

	PreventCommandIfReadOnly("rf_hold()");
	check_reason(reason);
	PG_RETURN_BOOL(place(rf_store_get(tenant, RF_RIGHT_OWN),
						 PG_ARGISNULL(0) ? NULL : PG_GETARG_UUID_P(0), reason));
}

Datum
rf_release(PG_FUNCTION_ARGS)
{
	char *reason = RF_GETARG_STRING(1);
	char *tenant = RF_GETARG_STRING(2);

	PreventCommandIfReadOnly("rf_release()");
	release(rf_store_get(tenant, RF_RIGHT_OWN),
			PG_ARGISNULL(0) ? NULL : PG_GETARG_UUID_P(0), reason);
	PG_RETURN_VOID();
}
