/*-------------------------------------------------------------------------
 *
 * read.c
 *	  Reading a stream, and replaying a store.
 *
 * Reads run as the caller, on the snapshot of the statement that calls them,
 * and touch hot and cold on that one snapshot: an event that a move is about
 * to take along is seen once, in the one place or in the other.
 *
 * Who may read all of the tables, and is under no row security, has them read
 * leaf by leaf (scan.c), which costs nothing for the leaves that have nothing
 * to say.  For others a query on the parents is planned, once: what their
 * privileges and policies are is the server's business.
 *
 * A read of a stream opens only the months between the stream's first and
 * last event.  Whether the stream is archived is read on the statement's
 * snapshot; those bounds are read as they are now, so that no event which the
 * snapshot shows can lie outside of them.  A query opens all months where a
 * leaf is younger than the snapshot, and both do where an INSERT that is going
 * on has not raised its heads yet, and while events are adopted whose months
 * are not known yet.
 *
 * rf_read_all returns no event while one of a lower global_seq may still
 * commit; watermark.c tells how that is known.
 *
 * Locks: ACCESS SHARE on events, and on events_archive where cold events are
 * read; then on the branches; then on the leaves that are opened.  ACCESS SHARE
 * on the sequence for a moment.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "frame.h"
#include "partition.h"
#include "query.h"
#include "scan.h"
#include "store.h"
#include "stream.h"
#include "watermark.h"

#define FROM_HOT " FROM {events} WHERE retention_class = 'hot'"
#define FROM_ALL " FROM {all} WHERE true"

#define OF_STREAM " AND stream_id = $1{mine} AND bucket_month BETWEEN $4 AND $5"
#define FORWARD " AND stream_seq > $2 ORDER BY stream_seq LIMIT $3"
#define BACKWARD \
	" AND ($2 = 0 OR stream_seq < $2) ORDER BY stream_seq DESC LIMIT $3"
#define STREAM_ARGS                                 \
	5,                                              \
	{                                               \
		UUIDOID, INT4OID, INT8OID, DATEOID, DATEOID \
	}

#define IN_RANGE " AND global_seq > $1 AND global_seq <= $3{mine}"
#define OF_TYPES " AND event_type = ANY ($4)"
#define IN_ORDER " ORDER BY global_seq LIMIT $2"

/* [include archived][backward] */
static const RfStatement read_stream[2][2] =
	{{{"SELECT " RF_SCAN_COLUMNS FROM_HOT OF_STREAM FORWARD, STREAM_ARGS},
	  {"SELECT " RF_SCAN_COLUMNS FROM_HOT OF_STREAM BACKWARD, STREAM_ARGS}},
	 {{"SELECT " RF_SCAN_COLUMNS FROM_ALL OF_STREAM FORWARD, STREAM_ARGS},
	  {"SELECT " RF_SCAN_COLUMNS FROM_ALL OF_STREAM BACKWARD, STREAM_ARGS}}};

/* [include archived][of some types] */
static const RfStatement read_all[2][2] =
	{{{"SELECT " RF_SCAN_COLUMNS FROM_HOT IN_RANGE IN_ORDER,
	   3,
	   {INT8OID, INT8OID, INT8OID}},
	  {"SELECT " RF_SCAN_COLUMNS FROM_HOT IN_RANGE OF_TYPES IN_ORDER,
	   4,
	   {INT8OID, INT8OID, INT8OID, TEXTARRAYOID}}},
	 {{"SELECT " RF_SCAN_COLUMNS FROM_ALL IN_RANGE IN_ORDER,
	   3,
	   {INT8OID, INT8OID, INT8OID}},
	  {"SELECT " RF_SCAN_COLUMNS FROM_ALL IN_RANGE OF_TYPES IN_ORDER,
	   4,
	   {INT8OID, INT8OID, INT8OID, TEXTARRAYOID}}}};

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

/* The months that a query of a stream has to open. */
static void
choose_months(const RfStore *store, const RfScanStream *stream, bool archived,
			  Datum *from, Datum *to)
{
	Snapshot snapshot = GetActiveSnapshot();
	bool	 settled = !store->adopting &&
				   months_are_settled(store->events_hot, stream->from,
									  stream->to, snapshot);

	if (archived)
		settled = settled &&
				  months_are_settled(store->events_cold, stream->from,
									 stream->to, snapshot) &&
				  months_are_settled(store->events_archive, stream->from,
									 stream->to, snapshot);
	*from = DateADTGetDatum(settled ? stream->from : DATEVAL_NOBEGIN);
	*to = DateADTGetDatum(settled ? stream->to : DATEVAL_NOEND);
}

/* May the caller read every row and column of the table? */
static bool
may_read(Oid relid)
{
	int security = check_enable_rls(relid, InvalidOid, true);

	return security != RLS_ENABLED &&
		   pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) == ACLCHECK_OK;
}

/* Events that are being adopted have no month yet. */
static bool
may_scan(const RfStore *store, bool archived)
{
	return !store->adopting && may_read(store->events) &&
		   (!archived || may_read(store->events_archive));
}

static void
run_query(const RfScan *scan, const RfStatement *statement, const Datum *values,
		  const char *nulls)
{
	RfScope scope;

	tuplestore_clear(scan->rows);
	rf_query_begin(&scope, InvalidOid, 0);
	rf_query_into(rf_store_plan(scan->store, statement), values, nulls,
				  scan->rows);
	rf_query_end(&scope);
}

/*
 * Streams
 */

/* What there is to read of the stream; false: nothing. */
static bool
find_stream(RfStore *store, RfScanStream *stream, bool *archived)
{
	RfStreamState then;
	RfStreamState now;

	rf_stream_read_active(store, &stream->stream_id, &then);
	rf_stream_read_latest(store, &stream->stream_id, &now);
	/* adopted since: its row is younger than the events that are seen */
	*archived = then.exists ? then.archived : now.archived;
	stream->head = then.exists ? then.last_seq : PG_INT32_MAX;
	stream->from = rf_partition_month_of(now.first_event_at);
	stream->to = rf_partition_month_of(now.last_event_at);
	if (rf_frame_is_open(store->events))
		stream->head = PG_INT32_MAX;
	else if (!now.exists)
		return false;
	else if (!store->adopting)
		return true;
	stream->from = DATEVAL_NOBEGIN;
	stream->to = DATEVAL_NOEND;
	return true;
}

static void
query_stream(const RfScan *scan, const RfScanStream *stream, int32 after)
{
	Datum values[5];
	char  nulls[5] = {' ', ' ', ' ', ' ', ' '};

	values[0] = UUIDPGetDatum(&stream->stream_id);
	values[1] = Int32GetDatum(after);
	values[2] = Int64GetDatum(scan->limit);
	choose_months(scan->store, stream, scan->archived, &values[3], &values[4]);
	run_query(scan, &read_stream[scan->archived][stream->backward], values,
			  nulls);
}

/*
 * All streams
 */

/* The number of the next row; global_seq is the first column. */
static bool
next_number(Tuplestorestate *rows, TupleTableSlot *slot, int64 *number)
{
	bool isnull;

	CHECK_FOR_INTERRUPTS();
	if (!tuplestore_gettupleslot(rows, true, false, slot))
		return false;
	*number = DatumGetInt64(slot_getattr(slot, 1, &isnull));
	return true;
}

static void
query_all(RfScan *scan, ArrayType *event_types)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(scan->tupdesc,
													&TTSOpsMinimalTuple);
	Datum			values[4];

	values[0] = Int64GetDatum(scan->after);
	values[1] = Int64GetDatum(scan->limit);
	values[2] = Int64GetDatum(scan->upto);
	values[3] = PointerGetDatum(event_types);
	run_query(scan, &read_all[scan->archived][event_types != NULL], values,
			  NULL);
	scan->last = PG_INT64_MIN;
	while (next_number(scan->rows, slot, &scan->last))
		;
	tuplestore_rescan(scan->rows);
	ExecDropSingleTupleTableSlot(slot);
}

static void
read_range(RfScan *scan, ArrayType *event_types)
{
	tuplestore_clear(scan->rows);
	if (!may_scan(scan->store, scan->archived) ||
		!rf_scan_all(scan, event_types))
		query_all(scan, event_types);
}

/* The last number before one that the second have and the first have not. */
static int64
last_in_common(TupleDesc tupdesc, Tuplestorestate *first,
			   Tuplestorestate *second)
{
	TupleTableSlot *slots[2] = {MakeSingleTupleTableSlot(tupdesc,
														 &TTSOpsMinimalTuple),
								MakeSingleTupleTableSlot(tupdesc,
														 &TTSOpsMinimalTuple)};
	int64			there = PG_INT64_MIN;
	int64			wanted;
	bool			differs = false;

	while (!differs && next_number(second, slots[1], &wanted))
	{
		while (there < wanted && next_number(first, slots[0], &there))
			;
		differs = there != wanted;
	}
	for (int i = 0; i < lengthof(slots); i++)
		ExecDropSingleTupleTableSlot(slots[i]);
	return differs ? wanted - 1 : PG_INT64_MAX;
}

/*
 * Where what was read has to end, of which all up to a number are settled.
 * Read the rest once more, as it is shown after the locks were looked at: a
 * number that comes up in between was committed in between.
 */
static int64
find_end(const RfScan *scan, ArrayType *event_types, int64 settled)
{
	RfScan later = *scan;
	int64  bound = rf_watermark_push(scan->store,
									 rf_frame_is_open(scan->store->events));
	int64  common;

	later.after = Max(scan->after, settled);
	later.upto = Min(scan->last, bound);
	if (later.after < later.upto)
	{
		later.rows = tuplestore_begin_heap(false, false, work_mem);
		rf_scan_lock(scan->store, scan->archived);
		read_range(&later, event_types);
		common = last_in_common(scan->tupdesc, scan->rows, later.rows);
		bound = Min(bound, common);
		tuplestore_end(later.rows);
	}
	PopActiveSnapshot();
	return bound;
}

/*
 * Read events, but none while a lower number may still commit (watermark.c).
 * What was read in vain is read again from the start: at the head of the store,
 * where that happens, it is little.
 */
static void
replay(RfScan *scan, ArrayType *event_types)
{
	int64 settled = rf_watermark_settled(scan->store, GetActiveSnapshot());

	read_range(scan, event_types);
	if (scan->last <= settled)
		return;
	scan->upto = find_end(scan, event_types, settled);
	if (scan->last > scan->upto)
		read_range(scan, event_types);
	else
		tuplestore_rescan(scan->rows);
}

/*
 * SQL interface
 */

PG_FUNCTION_INFO_V1(rf_read_stream);
PG_FUNCTION_INFO_V1(rf_read_all);

/* Where the rows go, and how many of them at most: null is all. */
static void
begin_scan(FunctionCallInfo fcinfo, int limit_arg, RfScan *scan)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	scan->rows = rsinfo->setResult;
	scan->tupdesc = rsinfo->setDesc;
	scan->limit = scan->upto = PG_INT64_MAX;
	if (PG_ARGISNULL(limit_arg))
		return;
	if (PG_GETARG_INT32(limit_arg) < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("\"max_events\" must not be negative")));
	scan->limit = PG_GETARG_INT32(limit_arg);
}

Datum
rf_read_stream(PG_FUNCTION_ARGS)
{
	int32		 after = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT32(1);
	char		*tenant = RF_GETARG_STRING(5);
	RfScan		 scan;
	RfScanStream stream;
	bool		 archived;

	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("\"stream_id\" must not be null")));
	begin_scan(fcinfo, 2, &scan);
	stream.stream_id = *PG_GETARG_UUID_P(0);
	stream.backward = !PG_ARGISNULL(3) && PG_GETARG_BOOL(3);
	/* no number is higher than that */
	scan.after = stream.backward && after == 0 ? (int64) PG_INT32_MAX + 1 :
												 after;
	do
	{
		scan.store = rf_store_get(tenant, RF_RIGHT_READ);
		if (!find_stream(scan.store, &stream, &archived))
			return (Datum) 0;
		scan.archived = PG_ARGISNULL(4) ?
							!archived || scan.store->include_archived :
							PG_GETARG_BOOL(4);
		rf_scan_lock(scan.store, scan.archived);
	} while (!scan.store->valid);
	if (!may_scan(scan.store, scan.archived) || !rf_scan_stream(&scan, &stream))
		query_stream(&scan, &stream, after);
	return (Datum) 0;
}

Datum
rf_read_all(PG_FUNCTION_ARGS)
{
	char	  *tenant = RF_GETARG_STRING(4);
	ArrayType *event_types = PG_ARGISNULL(2) ? NULL : PG_GETARG_ARRAYTYPE_P(2);
	RfScan	   scan;

	begin_scan(fcinfo, 1, &scan);
	scan.after = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT64(0);
	do
	{
		scan.store = rf_store_get(tenant, RF_RIGHT_READ);
		scan.archived = PG_ARGISNULL(3) ? scan.store->include_archived :
										  PG_GETARG_BOOL(3);
		rf_scan_lock(scan.store, scan.archived);
	} while (!scan.store->valid);
	replay(&scan, event_types);
	return (Datum) 0;
}
