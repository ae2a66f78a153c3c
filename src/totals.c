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
 * In a conjoined store there are slots for each tenant, which have his name;
 * '' is what concerns many at once, and all that a single store counts.
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

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "compat.h"
#include "tenancy.h"
#include "totals.h"

/* Slots that processes share out by their numbers, before more are made. */
#define SLOTS 32
#define TENANT_SLOTS 4

/*
 * Tenants share the locks of their slots with others, so that a transaction of
 * thousands of tenants does not fill the lock table.
 */
#define TENANT_GROUPS 32

#define ANY_SLOT (-1)

/* Tells our locks from those of pg_advisory_lock(), which has 1 and 2 there. */
#define SLOT_LOCK 7

const int64 rf_totals_bounds[RF_TIME_BUCKETS - 1] = RF_TIME_BOUNDS;

/* What was counted in a table, of a tenant. */
typedef struct PendingKey
{
	Oid	   relid;
	uint32 tenant; /* 0: of none, or of many */
} PendingKey;

typedef struct Pending
{
	PendingKey key; /* hash key */
	RfTotals   totals;
} Pending;

/* What a (sub)transaction has counted. */
typedef struct Level
{
	struct Level	*below; /* of a transaction that is around it */
	SubTransactionId subid;
	HTAB			*pending;
} Level;

static Level *levels = NULL; /* the innermost first */

/* Where this process has written last. */
static struct
{
	PendingKey		key;
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
		if (i + 1 == RF_TOTALS_TENANT)
			type = TEXTOID;
		for (int timer = 0; timer < RF_TIMERS; timer++)
		{
			if (i + 1 == RF_TOTALS_BUCKETS(timer))
				type = INT8ARRAYOID;
		}
		fits = TupleDescAttr(tupdesc, i)->atttypid == type &&
			   (type != TEXTOID ||
				TupleDescAttr(tupdesc, i)->attcollation == C_COLLATION_OID);
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

/* A tenant as the table names it: '' is none, or many. */
static Datum
tenant_datum(uint32 tenant)
{
	return tenant == 0 ? CStringGetTextDatum("") : rf_tenancy_datum(tenant);
}

/* Whose is a row? */
static uint32
read_tenant(TupleTableSlot *row)
{
	bool  isnull;
	Datum value = slot_getattr(row, RF_TOTALS_TENANT, &isnull);

	if (isnull || VARSIZE_ANY_EXHDR(DatumGetTextPP(value)) == 0)
		return 0;
	return rf_tenancy_number_of(value);
}

/* Make a row of the totals. */
static void
fill_slot(TupleTableSlot *new, uint32 tenant, int32 slot,
		  const RfTotals *totals)
{
	ExecClearTuple(new);
	for (int i = 0; i < RF_TOTALS_COLUMNS; i++)
		new->tts_isnull[i] = false;
	new->tts_values[RF_TOTALS_SLOT - 1] = Int32GetDatum(slot);
	new->tts_values[RF_TOTALS_TENANT - 1] = tenant_datum(tenant);
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

/* Which locks a tenant's slots have. */
static uint32
group_of(uint32 tenant)
{
	text *name;

	if (tenant == 0)
		return 0;
	name = DatumGetTextPP(rf_tenancy_datum(tenant));
	return 1 + DatumGetUInt32(hash_any((unsigned char *) VARDATA_ANY(name),
									   VARSIZE_ANY_EXHDR(name))) %
				   TENANT_GROUPS;
}

/* Take a slot that nobody else has, until the transaction ends. */
static int32
take_slot(const PendingKey *key)
{
	int		slots = key->tenant == 0 ? SLOTS : TENANT_SLOTS;
	uint32	group = group_of(key->tenant);
	LOCKTAG tag;

	for (int32 i = 0;; i++)
	{
		int32 slot = i < slots ? (MyProcPid + i) % slots : i;

		SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, key->relid,
							 group << 24 | (uint32) slot, SLOT_LOCK);
		if (LockAcquire(&tag, ExclusiveLock, false, true) !=
			LOCKACQUIRE_NOT_AVAIL)
			return slot;
	}
}

/* Is it the row of that slot? */
static bool
is_row_of(TupleTableSlot *row, uint32 tenant, int32 slot)
{
	bool  isnull;
	Datum value = slot_getattr(row, RF_TOTALS_SLOT, &isnull);

	return !isnull && DatumGetInt32(value) == slot &&
		   read_tenant(row) == tenant;
}

/* Is the row where we have left it?  Others may have written to it since. */
static bool
find_left(Relation rel, uint32 tenant, int32 slot, TupleTableSlot *row)
{
	return last_written.key.relid == RelationGetRelid(rel) &&
		   last_written.key.tenant == tenant && last_written.slot == slot &&
		   ItemPointerGetBlockNumber(&last_written.tid) <
			   RelationGetNumberOfBlocks(rel) &&
		   table_tuple_fetch_row_version(rel, &last_written.tid, SnapshotSelf,
										 row) &&
		   is_row_of(row, tenant, slot);
}

/* The index that begins with whose a row is; InvalidOid: it was dropped. */
static Oid
find_index(Relation rel)
{
	Oid		  result = InvalidOid;
	HeapTuple tuple;

	list_free(RelationGetIndexList(rel));
	if (!OidIsValid(rel->rd_pkindex))
		return InvalidOid;
	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(rel->rd_pkindex));
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_index index = (Form_pg_index) GETSTRUCT(tuple);

		if (index->indnkeyatts == 2 &&
			index->indkey.values[0] == RF_TOTALS_TENANT &&
			index->indkey.values[1] == RF_TOTALS_SLOT)
			result = rel->rd_pkindex;
		ReleaseSysCache(tuple);
	}
	return result;
}

/* Begin to read the rows of a tenant, or that of a slot of his. */
static SysScanDesc
begin_scan(Relation rel, uint32 tenant, int32 slot, Snapshot snapshot)
{
	Oid			index = find_index(rel);
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], RF_TOTALS_TENANT, BTEqualStrategyNumber, F_TEXTEQ,
				tenant_datum(tenant));
	ScanKeyInit(&keys[1], RF_TOTALS_SLOT, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(slot));
	return systable_beginscan(rel, index, OidIsValid(index), snapshot,
							  slot == ANY_SLOT ? 1 : 2, keys);
}

/* The row of a slot that we have taken, as it is now; false: there is none. */
static bool
find_row(Relation rel, uint32 tenant, int32 slot, TupleTableSlot *row)
{
	SysScanDesc scan;
	HeapTuple	tuple;

	if (find_left(rel, tenant, slot, row))
		return true;
	scan = begin_scan(rel, tenant, slot, SnapshotSelf);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		ExecForceStoreHeapTuple(tuple, row, false);
		row->tts_tid = tuple->t_self;
	}
	systable_endscan(scan);
	return HeapTupleIsValid(tuple);
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
add_to_slot(Relation rel, uint32 tenant, int32 slot, const RfTotals *more)
{
	TupleTableSlot *old = table_slot_create(rel, NULL);
	TupleTableSlot *new = MakeSingleTupleTableSlot(RelationGetDescr(rel),
												   &TTSOpsVirtual);
	RfTotals totals = *more;

	if (find_row(rel, tenant, slot, old))
	{
		ItemPointerData tid = old->tts_tid;

		read_slot(old, &totals);
		fill_slot(new, tenant, slot, &totals);
		ExecClearTuple(old); /* its pin would be in the way of pruning */
		prune_block(rel, ItemPointerGetBlockNumber(&tid));
		update_row(rel, &tid, new);
	}
	else
	{
		fill_slot(new, tenant, slot, &totals);
		insert_row(rel, new);
	}
	last_written.key.relid = RelationGetRelid(rel);
	last_written.key.tenant = tenant;
	last_written.slot = slot;
	last_written.tid = new->tts_tid;
	ExecDropSingleTupleTableSlot(old);
	ExecDropSingleTupleTableSlot(new);
}

/* The table may have been dropped since. */
static void
write_totals(const Pending *item)
{
	Relation rel = try_relation_open(item->key.relid, NoLock);

	if (rel == NULL)
		return;
	require_columns(rel);
	add_to_slot(rel, item->key.tenant, take_slot(&item->key), &item->totals);
	table_close(rel, NoLock);
}

/* Pending totals by table, and then in the order in which they were met. */
static int
compare_pending(const void *a, const void *b)
{
	const PendingKey *left = &(*(Pending *const *) a)->key;
	const PendingKey *right = &(*(Pending *const *) b)->key;

	if (left->relid != right->relid)
		return left->relid < right->relid ? -1 : 1;
	return left->tenant < right->tenant ? -1 : left->tenant > right->tenant;
}

static Pending **
sort_pending(HTAB *pending, int *count)
{
	Pending		  **result = palloc(sizeof(Pending *) *
									hash_get_num_entries(pending));
	HASH_SEQ_STATUS status;
	Pending		   *item;

	*count = 0;
	hash_seq_init(&status, pending);
	while ((item = hash_seq_search(&status)) != NULL)
		result[(*count)++] = item;
	qsort(result, *count, sizeof(Pending *), compare_pending);
	return result;
}

static void
write_pending(HTAB *pending)
{
	int			  count;
	Pending		**items = sort_pending(pending, &count);
	MemoryContext row = AllocSetContextCreate(CurrentMemoryContext,
											  "Rillflow totals' row",
											  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(row);

	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		write_totals(items[i]);
		MemoryContextReset(row);
	}
	MemoryContextSwitchTo(old);
}

/*
 * Write all that is pending, right before a commit, when no subtransaction is
 * left.  Nothing here evaluates anything of the users': no trigger fires, and
 * no default is computed.
 */
static void
flush(void)
{
	ResourceOwner owner = CurrentResourceOwner;
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "Rillflow totals",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	HTAB		 *pending = levels->pending;

	Assert(levels->below == NULL);
	levels = NULL;
	CurrentResourceOwner = CurTransactionResourceOwner;
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	write_pending(pending);
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
			if (levels != NULL)
				flush();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			levels = NULL; /* they lived in the transaction's memory */
			break;
		default:
			break;
	}
}

/* Totals that are pending in a level; zeros where there were none. */
static RfTotals *
pending_totals(Level *level, const PendingKey *key, bool *found)
{
	Pending *item = hash_search(level->pending, key, HASH_ENTER, found);

	if (!*found)
		memset(&item->totals, 0, sizeof(RfTotals));
	return &item->totals;
}

static void
add_level(Level *to, const Level *more)
{
	HASH_SEQ_STATUS status;
	Pending		   *item;

	bool found;

	hash_seq_init(&status, more->pending);
	while ((item = hash_seq_search(&status)) != NULL)
		add_totals(pending_totals(to, &item->key, &found), &item->totals);
}

/* What was counted in it is the parent's now, or never was. */
static void
subtransaction_ended(SubXactEvent event, SubTransactionId id,
					 SubTransactionId parent, void *arg)
{
	Level *level = levels;
	bool   kept = event == SUBXACT_EVENT_COMMIT_SUB;

	if (level == NULL || level->subid != id ||
		(!kept && event != SUBXACT_EVENT_ABORT_SUB))
		return;
	if (kept && (level->below == NULL || level->below->subid != parent))
	{
		level->subid = parent;
		return;
	}
	if (kept)
		add_level(level->below, level);
	levels = level->below;
	hash_destroy(level->pending);
	pfree(level);
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

/* The level of the current (sub)transaction. */
static Level *
current_level(void)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	HASHCTL			 ctl = {.keysize = sizeof(PendingKey),
							.entrysize = sizeof(Pending),
							.hcxt = TopTransactionContext};
	Level			*level;

	if (levels != NULL && levels->subid == subid)
		return levels;
	level = MemoryContextAllocZero(TopTransactionContext, sizeof(Level));
	level->subid = subid;
	level->pending = hash_create("Rillflow totals", 8, &ctl,
								 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	level->below = levels;
	levels = level;
	return level;
}

static RfTotals *
totals_of(Oid relid, uint32 tenant)
{
	PendingKey key = {.relid = relid, .tenant = tenant};
	bool	   found;
	RfTotals  *result = pending_totals(current_level(), &key, &found);

	if (!found)
		LockRelationOid(relid, RowExclusiveLock);
	return result;
}

void
rf_totals_count(Oid relid, uint32 tenant, RfCounter counter, int64 by)
{
	if (by != 0)
		totals_of(relid, tenant)->counters[counter] += by;
}

void
rf_totals_time(Oid relid, uint32 tenant, RfTimer timer, int64 microseconds)
{
	RfTimes *times = &totals_of(relid, tenant)->times[timer];
	int		 bucket = 0;

	while (bucket < RF_TIME_BUCKETS - 1 &&
		   microseconds > rf_totals_bounds[bucket])
		bucket++;
	times->microseconds += Max(microseconds, 0);
	times->buckets[bucket]++;
}

/* A month flipped, of about so many events: it concerns all tenants. */
void
rf_totals_count_flip(Oid relid, int64 estimate)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	RfTotals totals;
	int64	 settled;

	rf_totals_read(relid, snapshot, 0, &totals);
	UnregisterSnapshot(snapshot);
	settled = Max(Min(totals.counters[RF_COUNT_EXCESS], estimate), 0);
	rf_totals_count(relid, 0, RF_COUNT_FLIPPED, estimate - settled);
	rf_totals_count(relid, 0, RF_COUNT_EXCESS, -settled);
}

/* A month for which so many events were counted has had this many. */
void
rf_totals_correct_flip(Oid relid, int64 estimate, int64 events)
{
	rf_totals_count(relid, 0, RF_COUNT_FLIPPED, Max(events - estimate, 0));
	rf_totals_count(relid, 0, RF_COUNT_EXCESS, Max(estimate - events, 0));
}

/*
 * Reading
 *
 * What a snapshot shows, with what this transaction has counted.
 */

/* The totals of a tenant; 0: those of none, or of many. */
void
rf_totals_read(Oid relid, Snapshot snapshot, uint32 tenant, RfTotals *totals)
{
	Relation		rel = table_open(relid, AccessShareLock);
	TupleTableSlot *row = table_slot_create(rel, NULL);
	PendingKey		key = {.relid = relid, .tenant = tenant};
	SysScanDesc		scan;
	HeapTuple		tuple;

	require_columns(rel);
	memset(totals, 0, sizeof(*totals));
	scan = begin_scan(rel, tenant, ANY_SLOT, snapshot);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		ExecForceStoreHeapTuple(tuple, row, false);
		read_slot(row, totals);
	}
	systable_endscan(scan);
	ExecDropSingleTupleTableSlot(row);
	table_close(rel, AccessShareLock);
	for (Level *level = levels; level != NULL; level = level->below)
	{
		Pending *item = hash_search(level->pending, &key, HASH_FIND, NULL);

		if (item != NULL)
			add_totals(totals, &item->totals);
	}
}

static RfTotals *
totals_in(HTAB *tenants, uint32 tenant)
{
	bool			found;
	RfTenantTotals *entry = hash_search(tenants, &tenant, HASH_ENTER, &found);

	if (!found)
		memset(&entry->totals, 0, sizeof(RfTotals));
	return &entry->totals;
}

static void
add_pending(HTAB *tenants, Oid relid)
{
	for (Level *level = levels; level != NULL; level = level->below)
	{
		HASH_SEQ_STATUS status;
		Pending		   *item;

		hash_seq_init(&status, level->pending);
		while ((item = hash_seq_search(&status)) != NULL)
		{
			if (item->key.relid == relid)
				add_totals(totals_in(tenants, item->key.tenant), &item->totals);
		}
	}
}

static int
compare_tenants(const ListCell *a, const ListCell *b)
{
	const RfTenantTotals *left = lfirst(a);
	const RfTenantTotals *right = lfirst(b);

	return strcmp(left->name, right->name);
}

static List *
list_tenants(HTAB *tenants)
{
	List		   *result = NIL;
	HASH_SEQ_STATUS status;
	RfTenantTotals *entry;

	hash_seq_init(&status, tenants);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		entry->name = entry->tenant == 0 ? "" : rf_tenancy_name(entry->tenant);
		result = lappend(result, entry);
	}
	list_sort(result, compare_tenants);
	return result;
}

/*
 * The totals of each tenant that has any, as a list of RfTenantTotals, in the
 * order of their names; those of none, or of many, first.
 */
List *
rf_totals_read_all(Oid relid, Snapshot snapshot)
{
	HASHCTL			ctl = {.keysize = sizeof(uint32),
						   .entrysize = sizeof(RfTenantTotals),
						   .hcxt = CurrentMemoryContext};
	HTAB		   *tenants = hash_create("Rillflow tenants' totals", 64, &ctl,
										  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	Relation		rel = table_open(relid, AccessShareLock);
	TupleTableSlot *row = table_slot_create(rel, NULL);
	TableScanDesc	scan;

	require_columns(rel);
	(void) totals_in(tenants, 0);
	scan = table_beginscan(rel, snapshot, 0, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, row))
	{
		CHECK_FOR_INTERRUPTS();
		read_slot(row, totals_in(tenants, read_tenant(row)));
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(row);
	table_close(rel, AccessShareLock);
	add_pending(tenants, relid);
	return list_tenants(tenants);
}
