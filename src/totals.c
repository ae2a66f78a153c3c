/*-------------------------------------------------------------------------
 *
 * totals.c
 *	  rf_archive_totals: what was done since the store was made, in sums.
 *
 * The ledger tells each action, and gets long; who asks for sums, every few
 * seconds, would have to read all of it.  So what is counted is added up in a
 * table of its own, in the transaction that has done it.  The sums know nothing
 * of pruning, and are right after a crash, on a standby, and in a dump.
 *
 * A single row would make transactions wait for each other's commit.  There
 * are several, slots: who commits takes any one that nobody holds, or makes
 * another one, and what is asked for is the sum over all of them.  The counts
 * of a transaction are kept in memory and written right before it commits, so a
 * slot is held for no longer than the commit takes.  They are written on the
 * heap: a slot has to be taken as it is now, at any isolation level, and not as
 * the transaction's snapshot shows it.
 *
 * Counts may be of a subtransaction that is undone, and go with it.
 *
 * A flip is counted by an estimate, which an exact count corrects later.  What
 * was counted too many must not be taken back, for a counter never falls: it is
 * an excess, which the next flips are counted less for.  Flips of a store come
 * one after the other, up to their commits, so that no two take the same
 * excess.
 *
 * Locks: ROW EXCLUSIVE on the table, from the first count on; a row of it,
 * never waited for.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "totals.h"

/* Slots that processes share out by their numbers, before more are made. */
#define SLOTS 32

/* Tells our locks from those of pg_advisory_lock(), which has 1 and 2 there. */
#define SLOT_LOCK 7

const int64 rf_totals_bounds[RF_TIME_BUCKETS - 1] = RF_TIME_BOUNDS;

/* What a (sub)transaction has counted in a table. */
typedef struct Pending
{
	struct Pending	*next;
	Oid				 relid;
	SubTransactionId subid;
	RfTotals		 totals;
} Pending;

static Pending *pending = NULL;

/* Where this process has written last. */
static struct
{
	Oid				relid;
	int32			slot;
	ItemPointerData tid;
} last_written;

static void
add_totals(RfTotals *to, const RfTotals *more)
{
	for (int i = 0; i < RF_COUNTERS; i++)
		to->counters[i] += more->counters[i];
	for (int i = 0; i < RF_TIMERS; i++)
	{
		to->times[i].microseconds += more->times[i].microseconds;
		for (int j = 0; j < RF_TIME_BUCKETS; j++)
			to->times[i].buckets[j] += more->times[i].buckets[j];
	}
}

/*
 * Rows
 */

/*
 * Columns are read and written by their numbers, so they have to be those that
 * we make.
 */
static void
require_columns(Relation rel)
{
	TupleDesc tupdesc = RelationGetDescr(rel);
	bool	  fits = rel->rd_rel->relkind == RELKIND_RELATION &&
				rel->rd_rel->relam == HEAP_TABLE_AM_OID &&
				tupdesc->natts == RF_TOTALS_COLUMNS;

	for (int i = 0; fits && i < RF_TOTALS_COLUMNS; i++)
	{
		Oid type = INT8OID;

		if (i + 1 == RF_TOTALS_SLOT)
			type = INT4OID;
		for (int timer = 0; timer < RF_TIMERS; timer++)
		{
			if (i + 1 == RF_TOTALS_BUCKETS(timer))
				type = INT8ARRAYOID;
		}
		fits = TupleDescAttr(tupdesc, i)->atttypid == type;
	}
	if (!fits)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table \"%s\" has other columns than those it is made with",
					RelationGetRelationName(rel)),
			 errhint("Take back what was altered.")));
}

static void
read_buckets(Datum value, int64 *buckets)
{
	ArrayType *array = DatumGetArrayTypeP(value);
	int64	  *elements = (int64 *) ARR_DATA_PTR(array);

	if (ARR_NDIM(array) != 1 || ARR_DIMS(array)[0] != RF_TIME_BUCKETS ||
		ARR_HASNULL(array) || ARR_ELEMTYPE(array) != INT8OID)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("an array of rf_archive_totals must have %d elements",
						RF_TIME_BUCKETS)));
	for (int i = 0; i < RF_TIME_BUCKETS; i++)
		buckets[i] += elements[i];
}

static int64
read_number(TupleTableSlot *slot, AttrNumber attnum)
{
	return slot->tts_isnull[attnum - 1] ?
			   0 :
			   DatumGetInt64(slot->tts_values[attnum - 1]);
}

/* Add what a row says. */
static void
read_slot(TupleTableSlot *slot, RfTotals *totals)
{
	slot_getallattrs(slot);
	for (int i = 0; i < RF_COUNTERS; i++)
		totals->counters[i] += read_number(slot, RF_TOTALS_COUNTER(i));
	for (int i = 0; i < RF_TIMERS; i++)
	{
		AttrNumber buckets = RF_TOTALS_BUCKETS(i);

		totals->times[i].microseconds += read_number(slot, RF_TOTALS_TIME(i));
		if (!slot->tts_isnull[buckets - 1])
			read_buckets(slot->tts_values[buckets - 1],
						 totals->times[i].buckets);
	}
}

static Datum
bucket_array(const int64 *buckets)
{
	Datum elements[RF_TIME_BUCKETS];

	for (int i = 0; i < RF_TIME_BUCKETS; i++)
		elements[i] = Int64GetDatum(buckets[i]);
	return PointerGetDatum(construct_array(elements, RF_TIME_BUCKETS, INT8OID,
										   sizeof(int64), FLOAT8PASSBYVAL,
										   TYPALIGN_DOUBLE));
}

/* Make a row of the totals. */
static void
fill_slot(TupleTableSlot *new, int32 slot, const RfTotals *totals)
{
	ExecClearTuple(new);
	new->tts_values[RF_TOTALS_SLOT - 1] = Int32GetDatum(slot);
	new->tts_isnull[RF_TOTALS_SLOT - 1] = false;
	for (int i = 1; i < RF_TOTALS_COLUMNS; i++)
		new->tts_isnull[i] = false;
	for (int i = 0; i < RF_COUNTERS; i++)
		new->tts_values[RF_TOTALS_COUNTER(i) - 1] = Int64GetDatum(
			totals->counters[i]);
	for (int i = 0; i < RF_TIMERS; i++)
	{
		const RfTimes *times = &totals->times[i];

		new->tts_values[RF_TOTALS_TIME(i) - 1] = Int64GetDatum(
			times->microseconds);
		new->tts_values[RF_TOTALS_BUCKETS(i) - 1] = bucket_array(
			times->buckets);
	}
	ExecStoreVirtualTuple(new);
}

/*
 * Writing
 */

static void
insert_index_entries(Relation rel, TupleTableSlot *slot, bool update,
					 TU_UpdateIndexes update_indexes)
{
	EState		  *estate = CreateExecutorState();
	ResultRelInfo *result = makeNode(ResultRelInfo);

	InitResultRelInfo(result, rel, 0, NULL, 0);
	ExecOpenIndices(result, false);
	rf_compat_insert_index_entries(result, slot, estate, update,
								   update_indexes);
	ExecCloseIndices(result);
	FreeExecutorState(estate);
}

/* Take a slot that nobody else has, until the transaction ends. */
static int32
take_slot(Oid relid)
{
	LOCKTAG tag;

	for (int32 i = 0;; i++)
	{
		int32 slot = i < SLOTS ? (MyProcPid + i) % SLOTS : i;

		SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, relid, (uint32) slot,
							 SLOT_LOCK);
		if (LockAcquire(&tag, ExclusiveLock, false, true) !=
			LOCKACQUIRE_NOT_AVAIL)
			return slot;
	}
}

static bool
is_slot(TupleTableSlot *row, int32 slot)
{
	bool  isnull;
	Datum value = slot_getattr(row, RF_TOTALS_SLOT, &isnull);

	return !isnull && DatumGetInt32(value) == slot;
}

/* Is the row where we have left it?  Others may have written to it since. */
static bool
find_left(Relation rel, int32 slot, TupleTableSlot *row)
{
	return last_written.relid == RelationGetRelid(rel) &&
		   last_written.slot == slot &&
		   ItemPointerGetBlockNumber(&last_written.tid) <
			   RelationGetNumberOfBlocks(rel) &&
		   table_tuple_fetch_row_version(rel, &last_written.tid, SnapshotSelf,
										 row) &&
		   is_slot(row, slot);
}

/* The row of a slot that we have taken, as it is now; false: there is none. */
static bool
find_row(Relation rel, int32 slot, TupleTableSlot *row)
{
	TableScanDesc scan;
	bool		  found = false;

	if (find_left(rel, slot, row))
		return true;
	scan = table_beginscan(rel, SnapshotSelf, 0, NULL);
	while (!found && table_scan_getnextslot(scan, ForwardScanDirection, row))
		found = is_slot(row, slot);
	if (found)
		ExecMaterializeSlot(row); /* it outlives the scan */
	table_endscan(scan);
	return found;
}

static void
update_row(Relation rel, ItemPointer tid, TupleTableSlot *new)
{
	TU_UpdateIndexes update_indexes;

	if (rf_compat_tuple_update(rel, tid, new, true, &update_indexes) != TM_Ok)
		ereport(ERROR, (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
						errmsg("table \"%s\" is being changed by hand",
							   RelationGetRelationName(rel)),
						errhint("Run the transaction again.")));
	if (update_indexes != TU_None)
		insert_index_entries(rel, new, true, update_indexes);
}

static void
insert_row(Relation rel, TupleTableSlot *new)
{
	table_tuple_insert(rel, new, GetCurrentCommandId(true), 0, NULL);
	insert_index_entries(rel, new, false, TU_None);
}

/* Nobody else reads the table so often that dead versions would go. */
static void
prune_block(Relation rel, BlockNumber block)
{
	Buffer buffer = ReadBuffer(rel, block);

	heap_page_prune_opt(rel, buffer);
	ReleaseBuffer(buffer);
}

static void
add_to_slot(Relation rel, int32 slot, const RfTotals *more)
{
	TupleTableSlot *old = table_slot_create(rel, NULL);
	TupleTableSlot *new = MakeSingleTupleTableSlot(RelationGetDescr(rel),
												   &TTSOpsVirtual);
	RfTotals totals = *more;

	if (find_row(rel, slot, old))
	{
		ItemPointerData tid = old->tts_tid;

		read_slot(old, &totals);
		fill_slot(new, slot, &totals);
		ExecClearTuple(old); /* its pin would be in the way of pruning */
		prune_block(rel, ItemPointerGetBlockNumber(&tid));
		update_row(rel, &tid, new);
	}
	else
	{
		fill_slot(new, slot, &totals);
		insert_row(rel, new);
	}
	last_written.relid = RelationGetRelid(rel);
	last_written.slot = slot;
	last_written.tid = new->tts_tid;
	ExecDropSingleTupleTableSlot(old);
	ExecDropSingleTupleTableSlot(new);
}

/* The table may have been dropped since. */
static void
write_totals(Oid relid, const RfTotals *totals)
{
	Relation rel = try_relation_open(relid, NoLock);

	if (rel == NULL)
		return;
	require_columns(rel);
	add_to_slot(rel, take_slot(relid), totals);
	table_close(rel, NoLock);
}

/* The pending totals of the table with the lowest number; false: none. */
static bool
take_lowest(Oid *relid, RfTotals *totals)
{
	Pending **link = &pending;

	*relid = InvalidOid;
	memset(totals, 0, sizeof(*totals));
	for (Pending *item = pending; item != NULL; item = item->next)
		*relid = OidIsValid(*relid) ? Min(*relid, item->relid) : item->relid;
	while (*link != NULL)
	{
		if ((*link)->relid == *relid)
		{
			add_totals(totals, &(*link)->totals);
			*link = (*link)->next;
		}
		else
			link = &(*link)->next;
	}
	return OidIsValid(*relid);
}

/*
 * Write all that is pending, right before a commit.  Nothing here evaluates
 * anything of the users': no trigger fires, and no default is computed.
 */
static void
flush(void)
{
	ResourceOwner owner = CurrentResourceOwner;
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "Rillflow totals",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Oid			  relid;
	RfTotals	  totals;

	CurrentResourceOwner = CurTransactionResourceOwner;
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	while (take_lowest(&relid, &totals))
		write_totals(relid, &totals);
	PopActiveSnapshot();
	CurrentResourceOwner = owner;
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

/*
 * Ends of transactions
 */

static void
transaction_ended(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			if (pending != NULL)
				flush();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			pending = NULL; /* it lived in the transaction's memory */
			break;
		default:
			break;
	}
}

static Pending *
find_pending(Oid relid, SubTransactionId subid)
{
	for (Pending *item = pending; item != NULL; item = item->next)
	{
		if (item->relid == relid && item->subid == subid)
			return item;
	}
	return NULL;
}

/* What was counted in it is the parent's now, or never was. */
static void
subtransaction_ended(SubXactEvent event, SubTransactionId id,
					 SubTransactionId parent, void *arg)
{
	Pending **link = &pending;

	if (event != SUBXACT_EVENT_ABORT_SUB && event != SUBXACT_EVENT_COMMIT_SUB)
		return;
	while (*link != NULL)
	{
		Pending *item = *link;
		Pending *above = NULL;

		if (item->subid != id)
		{
			link = &item->next;
			continue;
		}
		if (event == SUBXACT_EVENT_COMMIT_SUB)
			above = find_pending(item->relid, parent);
		if (above != NULL)
			add_totals(&above->totals, &item->totals);
		if (event == SUBXACT_EVENT_COMMIT_SUB && above == NULL)
		{
			item->subid = parent;
			link = &item->next;
		}
		else
		{
			*link = item->next;
			pfree(item);
		}
	}
}

void
rf_totals_init(void)
{
	RegisterXactCallback(transaction_ended, NULL);
	RegisterSubXactCallback(subtransaction_ended, NULL);
}

/*
 * Counting
 */

static RfTotals *
totals_of(Oid relid)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	Pending			*item = find_pending(relid, subid);

	if (item != NULL)
		return &item->totals;
	LockRelationOid(relid, RowExclusiveLock);
	item = MemoryContextAllocZero(TopTransactionContext, sizeof(Pending));
	item->relid = relid;
	item->subid = subid;
	item->next = pending;
	pending = item;
	return &item->totals;
}

void
rf_totals_count(Oid relid, RfCounter counter, int64 by)
{
	if (by != 0)
		totals_of(relid)->counters[counter] += by;
}

void
rf_totals_time(Oid relid, RfTimer timer, int64 microseconds)
{
	RfTimes *times = &totals_of(relid)->times[timer];
	int		 bucket = 0;

	while (bucket < RF_TIME_BUCKETS - 1 &&
		   microseconds > rf_totals_bounds[bucket])
		bucket++;
	times->microseconds += Max(microseconds, 0);
	times->buckets[bucket]++;
}

/* A month flipped, of about so many events. */
void
rf_totals_count_flip(Oid relid, int64 estimate)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	RfTotals totals;
	int64	 settled;

	rf_totals_read(relid, snapshot, &totals);
	UnregisterSnapshot(snapshot);
	settled = Max(Min(totals.counters[RF_COUNT_EXCESS], estimate), 0);
	rf_totals_count(relid, RF_COUNT_FLIPPED, estimate - settled);
	rf_totals_count(relid, RF_COUNT_EXCESS, -settled);
}

/* A month for which so many events were counted has had this many. */
void
rf_totals_correct_flip(Oid relid, int64 estimate, int64 events)
{
	rf_totals_count(relid, RF_COUNT_FLIPPED, Max(events - estimate, 0));
	rf_totals_count(relid, RF_COUNT_EXCESS, Max(estimate - events, 0));
}

/*
 * Reading
 */

/* The totals that a snapshot shows, with what this transaction has counted. */
void
rf_totals_read(Oid relid, Snapshot snapshot, RfTotals *totals)
{
	Relation		rel = table_open(relid, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc	scan;

	require_columns(rel);
	memset(totals, 0, sizeof(*totals));
	scan = table_beginscan(rel, snapshot, 0, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
		read_slot(slot, totals);
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
	for (Pending *item = pending; item != NULL; item = item->next)
	{
		if (item->relid == relid)
			add_totals(totals, &item->totals);
	}
}
