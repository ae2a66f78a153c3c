/*-------------------------------------------------------------------------
 *
 * read.c
 *	  Reading a stream, and replaying a store.
 *
 * Reads run as the caller, on the snapshot of the statement that calls them,
 * and touch hot and cold in one query: an event that a move is about to take
 * along is seen once, in the one place or in the other.
 *
 * A read of a stream opens only the months between the stream's first and
 * last event.  Whether the stream is archived is read on the statement's
 * snapshot; those bounds are read as they are now, so that no event which the
 * snapshot shows can lie outside of them.  Where a leaf is younger than the
 * snapshot, all months are opened.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "partition.h"
#include "query.h"
#include "store.h"
#include "stream.h"

#define RESULT_COLUMNS                                                  \
	"global_seq, stream_id, stream_seq, event_type, body, headers,"     \
	" causation_id, correlation_id, event_version, tenant_id, user_id," \
	" is_tombstone, created_at, retention_class"

#define FROM_HOT " FROM {events} WHERE retention_class = 'hot'"
#define FROM_ALL " FROM {all} WHERE true"

#define OF_STREAM " AND stream_id = $1 AND bucket_month BETWEEN $4 AND $5"
#define FORWARD " AND stream_seq > $2 ORDER BY stream_seq LIMIT $3"
#define BACKWARD \
	" AND ($2 = 0 OR stream_seq < $2) ORDER BY stream_seq DESC LIMIT $3"
#define STREAM_ARGS                                 \
	5,                                              \
	{                                               \
		UUIDOID, INT4OID, INT8OID, DATEOID, DATEOID \
	}

#define AFTER " AND global_seq > $1"
#define OF_TYPES " AND event_type = ANY ($3)"
#define IN_ORDER " ORDER BY global_seq LIMIT $2"

/* [include archived][backward] */
static const RfStatement read_stream[2][2] =
	{{{"SELECT " RESULT_COLUMNS FROM_HOT OF_STREAM FORWARD, STREAM_ARGS},
	  {"SELECT " RESULT_COLUMNS FROM_HOT OF_STREAM BACKWARD, STREAM_ARGS}},
	 {{"SELECT " RESULT_COLUMNS FROM_ALL OF_STREAM FORWARD, STREAM_ARGS},
	  {"SELECT " RESULT_COLUMNS FROM_ALL OF_STREAM BACKWARD, STREAM_ARGS}}};

/* [include archived][of some types] */
static const RfStatement read_all[2][2] =
	{{{"SELECT " RESULT_COLUMNS FROM_HOT AFTER IN_ORDER, 2, {INT8OID, INT8OID}},
	  {"SELECT " RESULT_COLUMNS FROM_HOT AFTER OF_TYPES IN_ORDER,
	   3,
	   {INT8OID, INT8OID, TEXTARRAYOID}}},
	 {{"SELECT " RESULT_COLUMNS FROM_ALL AFTER IN_ORDER, 2, {INT8OID, INT8OID}},
	  {"SELECT " RESULT_COLUMNS FROM_ALL AFTER OF_TYPES IN_ORDER,
	   3,
	   {INT8OID, INT8OID, TEXTARRAYOID}}}};

/*
 * Have all leaves between the months been there when the snapshot was taken?
 * A younger one has taken rows out of the default partition, and the snapshot
 * still shows them there, outside of its bounds.
 */
static bool
months_are_settled(Oid parent, DateADT from, DateADT to, Snapshot snapshot)
{
	List	 *leaves = rf_partition_list(parent);
	ListCell *cell;
	bool	  settled = true;

	foreach(cell, leaves)
	{
		RfPartition *leaf = lfirst(cell);
		HeapTuple	 tuple;

		if (leaf->is_default || leaf->lower > to || from >= leaf->upper)
			continue;
		tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(leaf->relid));
		if (!HeapTupleIsValid(tuple) ||
			XidInMVCCSnapshot(HeapTupleHeaderGetXmin(tuple->t_data), snapshot))
			settled = false;
		if (HeapTupleIsValid(tuple))
			ReleaseSysCache(tuple);
	}
	return settled;
}

/* The months that a read of a stream has to open. */
static void
choose_months(const RfStore *store, const RfStreamState *state, bool archived,
			  DateADT *from, DateADT *to)
{
	Snapshot snapshot = GetActiveSnapshot();

	*from = rf_partition_month_of(state->first_event_at);
	*to = rf_partition_month_of(state->last_event_at);
	if (!store->adopting &&
		months_are_settled(store->events_hot, *from, *to, snapshot) &&
		(!archived ||
		 (months_are_settled(store->events_cold, *from, *to, snapshot) &&
		  months_are_settled(store->events_archive, *from, *to, snapshot))))
		return;
	*from = DATEVAL_NOBEGIN;
	*to = DATEVAL_NOEND;
}

/* SQL interface */

PG_FUNCTION_INFO_V1(rf_read_stream);
PG_FUNCTION_INFO_V1(rf_read_all);

static void
run_read(FunctionCallInfo fcinfo, RfStore *store, const RfStatement *statement,
		 const Datum *values, const char *nulls)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	RfScope		   scope;

	rf_query_begin(&scope, InvalidOid, 0);
	rf_query_into(rf_store_plan(store, statement), values, nulls,
				  rsinfo->setResult);
	rf_query_end(&scope);
}

/* The LIMIT: null is none. */
static void
take_limit(FunctionCallInfo fcinfo, int arg, Datum *value, char *null)
{
	*null = PG_ARGISNULL(arg) ? 'n' : ' ';
	if (PG_ARGISNULL(arg))
		return;
	if (PG_GETARG_INT32(arg) < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("\"max_events\" must not be negative")));
	*value = Int64GetDatum(PG_GETARG_INT32(arg));
}

Datum
rf_read_stream(PG_FUNCTION_ARGS)
{
	bool		  backward = !PG_ARGISNULL(3) && PG_GETARG_BOOL(3);
	char		 *tenant = RF_GETARG_STRING(5);
	RfStore		 *store = rf_store_get(tenant, RF_RIGHT_READ);
	RfStreamState then;
	RfStreamState now;
	bool		  archived;
	DateADT		  from;
	DateADT		  to;
	Datum		  values[5] = {0};
	char		  nulls[5] = {' ', ' ', ' ', ' ', ' '};

	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("\"stream_id\" must not be null")));
	InitMaterializedSRF(fcinfo, 0);
	take_limit(fcinfo, 2, &values[2], &nulls[2]);
	rf_stream_read(store, PG_GETARG_UUID_P(0), GetActiveSnapshot(), &then);
	rf_stream_read_latest(store, PG_GETARG_UUID_P(0), &now);
	if (!then.exists || !now.exists)
		return (Datum) 0;
	archived = PG_ARGISNULL(4) ? !then.archived || store->include_archived :
								 PG_GETARG_BOOL(4);
	values[0] = PG_GETARG_DATUM(0);
	values[1] = PG_ARGISNULL(1) ? Int32GetDatum(0) : PG_GETARG_DATUM(1);
	choose_months(store, &now, archived, &from, &to);
	values[3] = DateADTGetDatum(from);
	values[4] = DateADTGetDatum(to);
	run_read(fcinfo, store, &read_stream[archived][backward], values, nulls);
	return (Datum) 0;
}

Datum
rf_read_all(PG_FUNCTION_ARGS)
{
	char	*tenant = RF_GETARG_STRING(4);
	RfStore *store = rf_store_get(tenant, RF_RIGHT_READ);
	bool	 of_types = !PG_ARGISNULL(2);
	bool	 archived = PG_ARGISNULL(3) ? store->include_archived :
										  PG_GETARG_BOOL(3);
	Datum	 values[3] = {0};
	char	 nulls[3] = {' ', ' ', ' '};

	InitMaterializedSRF(fcinfo, 0);
	take_limit(fcinfo, 1, &values[1], &nulls[1]);
	values[0] = PG_ARGISNULL(0) ? Int64GetDatum(0) : PG_GETARG_DATUM(0);
	values[2] = of_types ? PG_GETARG_DATUM(2) : (Datum) 0;
	run_read(fcinfo, store, &read_all[archived][of_types], values, nulls);
	return (Datum) 0;
}
