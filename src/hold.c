/*-------------------------------------------------------------------------
 *
 * hold.c
 *	  Holds: what may be neither dropped nor redacted, and why.
 *
 * A hold is a row of rf_holds: of one stream, or, without one, of a tenant of a
 * conjoined store, or of the store, and all that comes to it.  A stream can be
 * on hold for several reasons, each of which is released by itself; the reason
 * is what tells holds apart.  Held events change tier like all others, for
 * nothing of them is lost by that.
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
#include "tenancy.h"

/* columns of rf_holds */
#define HOLDS_STREAM_ID 2
#define HOLDS_TENANT_ID 3
#define HOLDS_REASON 4

/* a row of an index holds more, but not much */
#define MAX_REASON_BYTES 1000

static const RfStatement find_stream =
	{"SELECT 1 FROM {streams} WHERE stream_id = $1{mine}", 1, {UUIDOID}};

/* $1 the stream, $2 the tenant, $3 the reason */
#define HOLD_ARGS                 \
	3,                            \
	{                             \
		UUIDOID, TEXTOID, TEXTOID \
	}
#define SAME_OBJECT                            \
	" WHERE stream_id IS NOT DISTINCT FROM $1" \
	" AND tenant_id IS NOT DISTINCT FROM $2"

static const RfStatement place_hold =
	{"INSERT INTO {holds} (stream_id, tenant_id, reason, held_by)"
	 " VALUES ($1, $2, $3, session_user) ON CONFLICT DO NOTHING",
	 HOLD_ARGS};

static const RfStatement find_reasons =
	{"SELECT reason FROM {holds}" SAME_OBJECT " ORDER BY hold_id", HOLD_ARGS};

static const RfStatement remove_hold = {"DELETE FROM {holds}" SAME_OBJECT
										" AND reason = $3",
										HOLD_ARGS};

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
hold_of(HeapTuple tuple, TupleDesc tupdesc, bool conjoined)
{
	RfHold *hold = palloc0(sizeof(RfHold));
	bool	isnull;
	Datum value = heap_getattr(tuple, HOLDS_STREAM_ID, tupdesc, &hold->of_all);

	if (!hold->of_all)
		hold->stream.uuid = *DatumGetUUIDP(value);
	value = heap_getattr(tuple, HOLDS_TENANT_ID, tupdesc, &isnull);
	if (conjoined && !isnull)
		hold->stream.tenant = rf_tenancy_number_of(value);
	value = heap_getattr(tuple, HOLDS_REASON, tupdesc, &isnull);
	hold->reason = isnull ? "" : TextDatumGetCString(value);
	return hold;
}

static bool
concerns(const RfHold *hold, const RfStreamId *stream)
{
	return (hold->stream.tenant == 0 ||
			hold->stream.tenant == stream->tenant) &&
		   (hold->of_all || rf_uuid_equal(&hold->stream.uuid, &stream->uuid));
}

/*
 * The holds there are now, or those that concern one stream.  They are few,
 * since people place them.
 */
List *
rf_hold_list(const RfStore *store, const RfStreamId *stream)
{
	Relation	rel = table_open(store->holds, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0,
										  NULL);
	List	   *result = NIL;
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		RfHold *hold = hold_of(tuple, RelationGetDescr(rel), store->conjoined);

		CHECK_FOR_INTERRUPTS();
		if (stream == NULL || concerns(hold, stream))
			result = lappend(result, hold);
		else
			pfree(hold);
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return result;
}

/* What is on hold: a stream, a tenant, or the store. */
static char *
object_name(const RfStore *store, const pg_uuid_t *id, uint32 tenant)
{
	if (id != NULL)
		return psprintf("stream %s", rf_query_uuid_text(id));
	if (tenant != 0)
		return psprintf("tenant \"%s\"", rf_tenancy_name(tenant));
	return psprintf("the store in schema \"%s\"", store->schema);
}

/* What cannot be done because of a hold. */
void
rf_hold_refuse(const RfStore *store, const RfHold *hold, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("%s while %s is on hold", what,
					object_name(store, hold->of_all ? NULL : &hold->stream.uuid,
								hold->stream.tenant)),
			 errdetail("The reason is \"%s\".", hold->reason),
			 errhint("When it is over, release it with rf_release().")));
}

/* The caller keeps the holds as they are. */
void
rf_hold_require_free(const RfStore *store, const pg_uuid_t *id)
{
	RfStreamId stream = {.uuid = *id, .tenant = store->tenant_number};
	List	  *holds = rf_hold_list(store, &stream);

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

/*
 * The stream, NULL for all of the tenant or store, and the reason, NULL for the
 * only one.
 */
static void
set_values(const RfStore *store, const pg_uuid_t *id, const char *reason,
		   Datum *values, char *nulls)
{
	uint32 tenant = store->tenant_number;

	values[0] = id == NULL ? (Datum) 0 : UUIDPGetDatum(id);
	nulls[0] = id == NULL ? 'n' : ' ';
	values[1] = tenant == 0 ? (Datum) 0 : rf_tenancy_datum(tenant);
	nulls[1] = tenant == 0 ? 'n' : ' ';
	values[2] = reason == NULL ? (Datum) 0 : CStringGetTextDatum(reason);
	nulls[2] = reason == NULL ? 'n' : ' ';
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
	Datum	values[3];
	char	nulls[3];
	RfScope scope;
	bool	placed;

	set_values(store, id, reason, values, nulls);
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
	const char *what = object_name(store, id, store->tenant_number);

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
	Datum	values[3];
	char	nulls[3];
	RfScope scope;

	set_values(store, id, NULL, values, nulls);
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	if (reason == NULL)
		reason = only_reason(store, id, values, nulls);
	set_values(store, id, reason, values, nulls);
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

/* A stream has an owner; a conjoined store as a whole can be on hold, too. */
static RfStore *
get_store(FunctionCallInfo fcinfo, const char *tenant)
{
	return PG_ARGISNULL(0) ? rf_store_get_any(tenant, RF_RIGHT_OWN) :
							 rf_store_get(tenant, RF_RIGHT_OWN);
}

Datum
rf_hold(PG_FUNCTION_ARGS)
{
	char *reason = RF_GETARG_STRING(1);
	char *tenant = RF_GETARG_STRING(2);

	PreventCommandIfReadOnly("rf_hold()");
	check_reason(reason);
	PG_RETURN_BOOL(place(get_store(fcinfo, tenant),
						 PG_ARGISNULL(0) ? NULL : PG_GETARG_UUID_P(0), reason));
}

Datum
rf_release(PG_FUNCTION_ARGS)
{
	char *reason = RF_GETARG_STRING(1);
	char *tenant = RF_GETARG_STRING(2);

	PreventCommandIfReadOnly("rf_release()");
	release(get_store(fcinfo, tenant),
			PG_ARGISNULL(0) ? NULL : PG_GETARG_UUID_P(0), reason);
	PG_RETURN_VOID();
}
