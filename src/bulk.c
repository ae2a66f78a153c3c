/*-------------------------------------------------------------------------
 *
 * bulk.c
 *	  Events of a batch, from leaf to leaf on the heap.
 *
 * A batch that takes what comes, out of one leaf and into one leaf, is what
 * most of archiving is.  It is done without the executor: rows are read along
 * the leaf's index on global_seq and deleted one by one, and those that the
 * delete got go into the cold leaf many at a time, as COPY puts them there.
 * What another transaction deleted first is left out, so nothing is taken
 * twice; what is inserted is what was deleted, row by row.  A row that was
 * redacted meanwhile is taken as it is now.
 *
 * CHECK constraints of the cold leaf are checked, indexes are kept, the one on
 * streams at the end of the batch, and a duplicate fails as it does for the
 * executor.  Triggers do not fire for moves anyway.  Where the isolation
 * level, generated columns or rules ask for more, the caller takes the
 * statement instead (move.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "bulk.h"
#include "compat.h"
#include "store.h"
#include "tenancy.h"

/* Rows, and bytes of them, that are put into the cold leaf at a time. */
#define MAX_ROWS 1000
#define MAX_BYTES 65536

/* An event that was put in. */
typedef struct Arrival
{
	RfStreamId		stream;
	int32			stream_seq;
	ItemPointerData tid; /* in the target */
} Arrival;

typedef struct Carrier
{
	RfBulk		   *bulk;
	RfLeaf			leaf; /* columns of the source */
	Relation		source;
	Relation		target;
	AttrNumber	   *from; /* source column of each target column, or 0 */
	AttrNumber		retention_class; /* columns of the target */
	AttrNumber		migrated_at;	 /* 0 where it has none */
	AttrNumber		migrated_by;
	Datum			cold;
	Datum			mover;
	Datum		   *values; /* of the row in hand */
	bool		   *nulls;
	TupleTableSlot *newest; /* version of a row; NULL: none was wanted */
	TupleTableSlot *slots[MAX_ROWS];
	int				nslots; /* made */
	int				nrows;	/* filled */
	Size			nbytes;
	BulkInsertState state;
	EState		   *estate;
	ResultRelInfo  *result;
	CommandId		cid;
	int				stream_index; /* its place among the indexes; -1: none */
	Arrival		   *arrivals;
	int				narrivals;
	int				maxarrivals;
} Carrier;

static bool
is_plain(Relation rel)
{
	TupleDesc tupdesc = RelationGetDescr(rel);

	return rel->rd_rel->relkind == RELKIND_RELATION && rel->rd_rules == NULL &&
		   !(tupdesc->constr != NULL && tupdesc->constr->has_generated_stored);
}

/* Does each column of the target get a value, so that it needs no default? */
static bool
fills_columns(Relation from, Relation to)
{
	TupleDesc tupdesc = RelationGetDescr(to);

	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);
		const char		 *name = NameStr(att->attname);
		Oid				  type;

		if (att->attisdropped)
			continue;
		if (strcmp(name, "migrated_at") == 0)
			type = TIMESTAMPTZOID;
		else if (strcmp(name, "migrated_by") == 0)
			type = TEXTOID;
		else
			type = get_atttype(RelationGetRelid(from),
							   get_attnum(RelationGetRelid(from), name));
		if (att->atttypid != type)
			return false;
	}
	return true;
}

/* Can a batch go from the one table to the other without the executor? */
bool
rf_bulk_suffices(Oid source, Oid target)
{
	Relation from;
	Relation to;
	RfLeaf	 leaf;
	bool	 result;

	if (IsolationUsesXactSnapshot())
		return false;
	from = table_open(source, AccessShareLock);
	to = table_open(target, AccessShareLock);
	rf_store_leaf(source, &leaf);
	result = is_plain(from) && is_plain(to) && fills_columns(from, to) &&
			 OidIsValid(leaf.global_index);
	table_close(to, AccessShareLock);
	table_close(from, AccessShareLock);
	return result;
}

/*
 * Setting up
 */

static void
map_columns(Carrier *carrier)
{
	TupleDesc tupdesc = RelationGetDescr(carrier->target);
	Oid		  source = RelationGetRelid(carrier->source);

	carrier->from = palloc0(sizeof(AttrNumber) * tupdesc->natts);
	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);
		const char		 *name = NameStr(att->attname);

		if (att->attisdropped)
			continue;
		if (strcmp(name, "retention_class") == 0)
			carrier->retention_class = i + 1;
		else if (strcmp(name, "migrated_at") == 0)
			carrier->migrated_at = i + 1;
		else if (strcmp(name, "migrated_by") == 0)
			carrier->migrated_by = i + 1;
		else
			carrier->from[i] = get_attnum(source, name);
	}
}

/* Is it the target's unique index on streams and their numbers? */
static bool
is_stream_index(const Carrier *carrier, int place)
{
	Oid			target = carrier->bulk->target;
	Relation	index = carrier->result->ri_IndexRelationDescs[place];
	IndexInfo  *info = carrier->result->ri_IndexRelationInfo[place];
	AttrNumber *columns = info->ii_IndexAttrNumbers;
	int			more = carrier->leaf.tenant_id == 0 ? 0 : 1;

	return index->rd_index->indisunique && index->rd_index->indimmediate &&
		   info->ii_ReadyForInserts && info->ii_Predicate == NIL &&
		   info->ii_NumIndexAttrs == more + 2 &&
		   info->ii_NumIndexKeyAttrs == more + 2 &&
		   columns[0] == get_attnum(target, "stream_id") &&
		   (more == 0 || columns[1] == get_attnum(target, "tenant_id")) &&
		   columns[more + 1] == get_attnum(target, "stream_seq");
}

/*
 * The cold leaf's index on streams is filled in its own order when the batch
 * is complete, which spares it most of the jumping.  Set aside, it comes last
 * among the open indexes, and the executor does not see it.
 */
static void
set_stream_index_aside(Carrier *carrier)
{
	ResultRelInfo *result = carrier->result;
	int			   last = result->ri_NumIndices - 1;
	int			   place = last;
	Relation	   index;
	IndexInfo	  *info;

	while (place >= 0 && !is_stream_index(carrier, place))
		place--;
	carrier->stream_index = place < 0 ? -1 : last;
	if (place < 0)
		return;
	index = result->ri_IndexRelationDescs[place];
	info = result->ri_IndexRelationInfo[place];
	result->ri_IndexRelationDescs[place] = result->ri_IndexRelationDescs[last];
	result->ri_IndexRelationInfo[place] = result->ri_IndexRelationInfo[last];
	result->ri_IndexRelationDescs[last] = index;
	result->ri_IndexRelationInfo[last] = info;
	result->ri_NumIndices = last;
}

static void
begin_carrier(Carrier *carrier, RfBulk *bulk)
{
	int natts;

	memset(carrier, 0, sizeof(*carrier));
	carrier->bulk = bulk;
	rf_store_leaf(bulk->source, &carrier->leaf);
	carrier->source = table_open(bulk->source, RowExclusiveLock);
	carrier->target = table_open(bulk->target, RowExclusiveLock);
	map_columns(carrier);
	carrier->cold = CStringGetTextDatum("cold");
	carrier->mover = CStringGetTextDatum("archive_move");
	natts = RelationGetDescr(carrier->source)->natts;
	carrier->values = palloc(sizeof(Datum) * natts);
	carrier->nulls = palloc(sizeof(bool) * natts);
	carrier->state = GetBulkInsertState();
	carrier->estate = CreateExecutorState();
	carrier->result = makeNode(ResultRelInfo);
	InitResultRelInfo(carrier->result, carrier->target, 0, NULL, 0);
	ExecOpenIndices(carrier->result, false);
	carrier->cid = GetCurrentCommandId(true);
	set_stream_index_aside(carrier);
	carrier->maxarrivals = Min(bulk->limit, MAX_ROWS);
	carrier->arrivals = palloc(sizeof(Arrival) * carrier->maxarrivals);
}

static void
end_carrier(Carrier *carrier)
{
	for (int i = 0; i < carrier->nslots; i++)
		ExecDropSingleTupleTableSlot(carrier->slots[i]);
	if (carrier->newest != NULL)
		ExecDropSingleTupleTableSlot(carrier->newest);
	if (carrier->stream_index >= 0)
		carrier->result->ri_NumIndices = carrier->stream_index + 1;
	ExecCloseIndices(carrier->result);
	FreeExecutorState(carrier->estate);
	FreeBulkInsertState(carrier->state);
	table_finish_bulk_insert(carrier->target, 0);
	pfree(carrier->arrivals);
	table_close(carrier->target, NoLock);
	table_close(carrier->source, NoLock);
	CommandCounterIncrement();
}

/*
 * Carrying
 */

/*
 * Put what is in hand into the cold leaf, and into its indexes but for the one
 * on streams.
 */
static void
flush_rows(Carrier *carrier)
{
	Arrival *arrivals = carrier->arrivals + carrier->narrivals - carrier->nrows;

	if (carrier->nrows == 0)
		return;
	table_multi_insert(carrier->target, carrier->slots, carrier->nrows,
					   carrier->cid, 0, carrier->state);
	for (int i = 0; i < carrier->nrows; i++)
	{
		CHECK_FOR_INTERRUPTS();
		rf_compat_insert_index_entries(carrier->result, carrier->slots[i],
									   carrier->estate, false, TU_None);
		arrivals[i].tid = carrier->slots[i]->tts_tid;
		ExecClearTuple(carrier->slots[i]);
		ResetPerTupleExprContext(carrier->estate);
	}
	carrier->bulk->moved += carrier->nrows;
	carrier->nrows = 0;
	carrier->nbytes = 0;
}

static Datum
target_value(const Carrier *carrier, int column, bool *isnull)
{
	AttrNumber from = carrier->from[column];

	*isnull = false;
	if (from > 0)
	{
		*isnull = carrier->nulls[from - 1];
		return carrier->values[from - 1];
	}
	if (column + 1 == carrier->retention_class)
		return carrier->cold;
	if (column + 1 == carrier->migrated_at)
		return TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());
	if (column + 1 == carrier->migrated_by)
		return carrier->mover;
	*isnull = true;
	return (Datum) 0;
}

/* Keep the row in hand, which is deleted, until the next flush. */
static void
keep_row(Carrier *carrier, HeapTuple tuple)
{
	TupleDesc		tupdesc = RelationGetDescr(carrier->target);
	TupleTableSlot *slot;

	if (carrier->nrows == carrier->nslots)
		carrier->slots[carrier->nslots++] = table_slot_create(carrier->target,
															  NULL);
	slot = carrier->slots[carrier->nrows++];
	for (int i = 0; i < tupdesc->natts; i++)
		slot->tts_values[i] = target_value(carrier, i, &slot->tts_isnull[i]);
	ExecStoreVirtualTuple(slot);
	slot->tts_tableOid = RelationGetRelid(carrier->target);
	if (tupdesc->constr != NULL)
		ExecConstraints(carrier->result, slot, carrier->estate);
	ExecMaterializeSlot(slot);
	carrier->nbytes += tuple->t_len;
	if (carrier->nrows == MAX_ROWS || carrier->nbytes > MAX_BYTES)
		flush_rows(carrier);
}

/* Whose is the row in hand?  0 in a single store. */
static uint32
tenant_of_row(const Carrier *carrier)
{
	AttrNumber column = carrier->leaf.tenant_id;

	return column == 0 ? 0 : rf_tenancy_number_of(carrier->values[column - 1]);
}

/* The row in hand is to arrive; where, is known when it is put in. */
static void
note_arrival(Carrier *carrier)
{
	const RfLeaf *leaf = &carrier->leaf;
	Arrival		 *arrival;

	if (carrier->narrivals == carrier->maxarrivals)
	{
		carrier->maxarrivals *= 2;
		carrier->arrivals = repalloc(carrier->arrivals,
									 sizeof(Arrival) * carrier->maxarrivals);
	}
	arrival = &carrier->arrivals[carrier->narrivals++];
	arrival->stream.uuid = *DatumGetUUIDP(carrier->values[leaf->stream_id - 1]);
	arrival->stream.tenant = tenant_of_row(carrier);
	arrival->stream_seq = DatumGetInt32(carrier->values[leaf->stream_seq - 1]);
	ItemPointerSetInvalid(&arrival->tid);
}

static TM_Result
delete_version(Carrier *carrier, ItemPointer tid)
{
	TM_FailureData failure;
	TM_Result result = table_tuple_delete(carrier->source, tid, carrier->cid,
										  InvalidSnapshot, InvalidSnapshot,
										  true, &failure, false);

	if (result != TM_Ok && result != TM_Deleted && result != TM_Updated)
		elog(ERROR, "could not delete a row of \"%s\"",
			 RelationGetRelationName(carrier->source));
	return result;
}

/*
 * Take the newest version of a row that was redacted after the snapshot: lock
 * it, so that it is the last one, and delete that.  False when it is gone.
 */
static bool
delete_newest(Carrier *carrier, HeapTuple tuple, Snapshot snapshot)
{
	TM_FailureData	failure;
	ItemPointerData tid = tuple->t_self;

	if (carrier->newest == NULL)
		carrier->newest = table_slot_create(carrier->source, NULL);
	if (table_tuple_lock(carrier->source, &tid, snapshot, carrier->newest,
						 carrier->cid, LockTupleExclusive, LockWaitBlock,
						 TUPLE_LOCK_FLAG_FIND_LAST_VERSION,
						 &failure) != TM_Ok ||
		delete_version(carrier, &carrier->newest->tts_tid) != TM_Ok)
		return false;
	slot_getallattrs(carrier->newest);
	for (int i = 0; i < RelationGetDescr(carrier->source)->natts; i++)
	{
		carrier->values[i] = carrier->newest->tts_values[i];
		carrier->nulls[i] = carrier->newest->tts_isnull[i];
	}
	return true;
}

/* Delete the row in hand; false when somebody else has. */
static bool
delete_row(Carrier *carrier, HeapTuple tuple, Snapshot snapshot)
{
	switch (delete_version(carrier, &tuple->t_self))
	{
		case TM_Ok:
			return true;
		case TM_Updated:
			return delete_newest(carrier, tuple, snapshot);
		default:
			return false;
	}
}

static void
carry_row(Carrier *carrier, HeapTuple tuple, Snapshot snapshot)
{
	RfBulk		 *bulk = carrier->bulk;
	const RfLeaf *leaf = &carrier->leaf;

	heap_deform_tuple(tuple, RelationGetDescr(carrier->source), carrier->values,
					  carrier->nulls);
	if (DatumGetTimestampTz(carrier->values[leaf->created_at - 1]) >=
		bulk->before)
		return;
	if (bulk->tenant != 0 && tenant_of_row(carrier) != bulk->tenant)
		return;
	bulk->upper = DatumGetInt64(carrier->values[leaf->global_seq - 1]);
	bulk->picked++;
	if (!delete_row(carrier, tuple, snapshot))
		return;
	note_arrival(carrier);
	keep_row(carrier, tuple);
}

static void
carry_rows(Carrier *carrier)
{
	RfBulk	   *bulk = carrier->bulk;
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	Relation	index = index_open(carrier->leaf.global_index, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&keys[0], carrier->leaf.global_seq, BTGreaterStrategyNumber,
				F_INT8GT, Int64GetDatum(bulk->after));
	ScanKeyInit(&keys[1], carrier->leaf.global_seq, BTLessEqualStrategyNumber,
				F_INT8LE, Int64GetDatum(bulk->up_to));
	scan = systable_beginscan_ordered(carrier->source, index, snapshot,
									  lengthof(keys), keys);
	while (bulk->picked < bulk->limit &&
		   HeapTupleIsValid(
			   tuple = systable_getnext_ordered(scan, ForwardScanDirection)))
	{
		CHECK_FOR_INTERRUPTS();
		carry_row(carrier, tuple, snapshot);
	}
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	UnregisterSnapshot(snapshot);
	flush_rows(carrier);
}

/*
 * The index on streams, and the streams
 */

/* The first half of an id, as a number that compares as the bytes do. */
static inline uint64
id_prefix(const pg_uuid_t *id)
{
	uint64 prefix;

	memcpy(&prefix, id->data, sizeof(prefix));
	return pg_ntoh64(prefix);
}

/*
 * The order of the index, but for streams of one id that belong to several
 * tenants: those stand together, one after the other, in whatever order.
 */
static inline int
compare_arrivals(const Arrival *left, const Arrival *right)
{
	uint64 left_prefix = id_prefix(&left->stream.uuid);
	uint64 right_prefix = id_prefix(&right->stream.uuid);
	int	   order;

	if (left_prefix != right_prefix)
		return left_prefix < right_prefix ? -1 : 1;
	order = memcmp(left->stream.uuid.data, right->stream.uuid.data, UUID_LEN);
	if (order != 0)
		return order;
	if (left->stream.tenant != right->stream.tenant)
		return left->stream.tenant < right->stream.tenant ? -1 : 1;
	return (left->stream_seq > right->stream_seq) -
		   (left->stream_seq < right->stream_seq);
}

#define ST_SORT sort_arrivals
#define ST_ELEMENT_TYPE Arrival
#define ST_COMPARE(a, b) compare_arrivals(a, b)
#define ST_SCOPE static
#define ST_CHECK_FOR_INTERRUPTS
#define ST_DECLARE
#define ST_DEFINE
#include "lib/sort_template.h"

/* Fill the index on streams, in its order. */
static void
index_streams(Carrier *carrier)
{
	int		   place = carrier->stream_index;
	Relation   index = carrier->result->ri_IndexRelationDescs[place];
	IndexInfo *info = carrier->result->ri_IndexRelationInfo[place];
	Datum	   values[3];
	bool	   nulls[3] = {false, false, false};

	for (int i = 0; i < carrier->narrivals; i++)
	{
		Arrival *arrival = &carrier->arrivals[i];
		int		 n = 0;

		CHECK_FOR_INTERRUPTS();
		values[n++] = UUIDPGetDatum(&arrival->stream.uuid);
		if (arrival->stream.tenant != 0)
			values[n++] = rf_tenancy_datum(arrival->stream.tenant);
		values[n++] = Int32GetDatum(arrival->stream_seq);
		(void) index_insert(index, values, nulls, &arrival->tid,
							carrier->target, UNIQUE_CHECK_YES, false, info);
	}
}

/* The streams, in the order of the arrivals. */
static void
report_streams(Carrier *carrier)
{
	RfBulk	  *bulk = carrier->bulk;
	RfTouched *touched = NULL;

	bulk->nstreams = 0;
	bulk->streams = MemoryContextAlloc(bulk->context,
									   sizeof(RfTouched) *
										   Max(carrier->narrivals, 1));
	for (int i = 0; i < carrier->narrivals; i++)
	{
		Arrival *arrival = &carrier->arrivals[i];

		if (touched == NULL ||
			!rf_same_stream(&touched->stream, &arrival->stream))
		{
			touched = &bulk->streams[bulk->nstreams++];
			touched->stream = arrival->stream;
			touched->lowest = arrival->stream_seq;
			touched->count = 0;
		}
		touched->highest = arrival->stream_seq;
		touched->count++;
	}
}

/* Move a batch; the argument is a RfBulk. */
void
rf_bulk_move(void *arg)
{
	RfBulk *bulk = arg;
	Carrier carrier;

	bulk->upper = bulk->picked = bulk->moved = 0;
	begin_carrier(&carrier, bulk);
	carry_rows(&carrier);
	sort_arrivals(carrier.arrivals, carrier.narrivals);
	if (carrier.stream_index >= 0)
		index_streams(&carrier);
	report_streams(&carrier);
	end_carrier(&carrier);
}
