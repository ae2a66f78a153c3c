/*-------------------------------------------------------------------------
 *
 * partition.c
 *	  Months: the leaf partitions of a store.
 *
 * A month is a table of its own, made with CREATE TABLE LIKE and attached:
 * that leaves writers to other months alone, which CREATE TABLE … PARTITION
 * OF would not.  The unique indexes stand on the leaf, the parents have none.
 * A CHECK repeats the bounds, on bucket_month so that a later ATTACH needs no
 * scan, and on created_at so that the planner can prune by it.
 *
 * Locks, in this order: an advisory lock of the store, which keeps two that
 * make months apart; SHARE UPDATE EXCLUSIVE on the parent, or ACCESS EXCLUSIVE
 * where rows come to the month at once; ACCESS EXCLUSIVE on the default
 * partition, whose rows of that month go along.  None is waited for longer
 * than rillflow.lock_timeout.  To drop one: ACCESS EXCLUSIVE on all of these,
 * then the lock that keeps holds as they are.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relscan.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/partition.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/tablespace.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "parser/parse_relation.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "hold.h"
#include "ledger.h"
#include "lock.h"
#include "partition.h"
#include "query.h"
#include "row_security.h"
#include "store.h"
#include "tenancy.h"

/*
 * Months
 */

/* The first day of the UTC month of a time. */
DateADT
rf_partition_month_of(TimestampTz time)
{
	int64 day;
	int	  year, month, mday;

	if (TIMESTAMP_IS_NOBEGIN(time))
		return DATEVAL_NOBEGIN;
	if (TIMESTAMP_IS_NOEND(time))
		return DATEVAL_NOEND;
	day = time / USECS_PER_DAY;
	if (time < 0 && time % USECS_PER_DAY != 0)
		day--;
	j2date((int) day + POSTGRES_EPOCH_JDATE, &year, &month, &mday);
	return (DateADT) (day - (mday - 1));
}

/* Midnight UTC of a day. */
TimestampTz
rf_partition_start(DateADT month)
{
	if (DATE_IS_NOBEGIN(month))
		return DT_NOBEGIN;
	if (DATE_IS_NOEND(month))
		return DT_NOEND;
	return (TimestampTz) month * USECS_PER_DAY;
}

static void
split_month(DateADT date, int *year, int *month, int *day)
{
	j2date(date + POSTGRES_EPOCH_JDATE, year, month, day);
}

DateADT
rf_partition_next_month(DateADT month)
{
	int year, mon, day;

	split_month(month, &year, &mon, &day);
	if (++mon > 12)
	{
		mon = 1;
		year++;
	}
	return date2j(year, mon, 1) - POSTGRES_EPOCH_JDATE;
}

/* Does the leaf hold one month, neither more nor less? */
bool
rf_partition_is_month(const RfPartition *leaf)
{
	return !leaf->is_default &&
		   rf_partition_next_month(leaf->lower) == leaf->upper;
}

/* Can a partition be named after the month?  Its year has four digits. */
bool
rf_partition_month_has_name(DateADT month)
{
	int year, mon, day;

	if (DATE_NOT_FINITE(month))
		return false;
	split_month(month, &year, &mon, &day);
	return year >= 1 && year <= 9999;
}

/*
 * Leaves
 */

static DateADT
bound_date(const PartitionBoundInfo bounds, int i, DateADT open)
{
	if (i < 0 || i >= bounds->ndatums)
		return open;
	switch (bounds->kind[i][0])
	{
		case PARTITION_RANGE_DATUM_MINVALUE:
			return DATEVAL_NOBEGIN;
		case PARTITION_RANGE_DATUM_MAXVALUE:
			return DATEVAL_NOEND;
		default:
			return DatumGetDateADT(bounds->datums[i][0]);
	}
}

static RfPartition *
make_partition(Oid relid, DateADT lower, DateADT upper, bool is_default)
{
	RfPartition *result = palloc(sizeof(RfPartition));

	result->relid = relid;
	result->lower = lower;
	result->upper = upper;
	result->is_default = is_default;
	return result;
}

/*
 * The leaves under the parent of a tier, in order of their months, the
 * default last.
 */
List *
rf_partition_list(Oid parent)
{
	Relation		   rel = table_open(parent, AccessShareLock);
	PartitionDesc	   desc = RelationGetPartitionDesc(rel, true);
	PartitionBoundInfo bounds = desc->boundinfo;
	List			  *result = NIL;

	for (int i = 0; bounds != NULL && i < bounds->ndatums; i++)
	{
		int index = bounds->indexes[i];

		if (index >= 0)
			result = lappend(result, make_partition(desc->oids[index],
													bound_date(bounds, i - 1,
															   DATEVAL_NOBEGIN),
													bound_date(bounds, i,
															   DATEVAL_NOEND),
													false));
	}
	if (bounds != NULL && bounds->default_index >= 0)
		result = lappend(result,
						 make_partition(desc->oids[bounds->default_index],
										DATEVAL_NOBEGIN, DATEVAL_NOEND, true));
	table_close(rel, AccessShareLock);
	return result;
}

/*
 * The same, for who looks at one store after another.  A parent that has no
 * partition but the default, as the tiers of a store have where nothing is
 * cold, is locked, but not opened: that takes long.
 */
static List *
list_briefly(Oid parent)
{
	List *children;
	Oid	  default_leaf;
	bool  alone;

	LockRelationOid(parent, AccessShareLock);
	children = find_inheritance_children(parent, NoLock);
	default_leaf = get_default_partition_oid(parent);
	alone = list_length(children) == 1 &&
			linitial_oid(children) == default_leaf;
	UnlockRelationOid(parent, AccessShareLock);
	if (!alone)
		return rf_partition_list(parent);
	return list_make1(
		make_partition(default_leaf, DATEVAL_NOBEGIN, DATEVAL_NOEND, true));
}

/*
 * The leaves of both tiers of a store, at one moment: none that changes tier is
 * missed, and none is there twice.  Returns the store as it is then.
 *
 * To keep one parent locked while another is waited for would be a deadlock
 * with whoever makes or drops months in both tiers.  So each is locked alone,
 * and all are listed again when one of them has changed meanwhile.
 */
RfStore *
rf_partition_list_tiers(RfStore *store, List **hot, List **cold)
{
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		*hot = list_briefly(store->events_hot);
		*cold = list_concat(list_briefly(store->events_cold),
							list_briefly(store->events_archive));
		if (store->valid)
			return store;
		store = rf_store_again(store);
	}
}

/* The default partition; InvalidOid if there is none. */
Oid
rf_partition_default_of(Oid parent)
{
	List		*leaves = rf_partition_list(parent);
	RfPartition *last = leaves == NIL ? NULL : llast(leaves);

	return last != NULL && last->is_default ? last->relid : InvalidOid;
}

/*
 * Keep rows from leaving the default partition for a new month, until the
 * transaction ends.
 */
void
rf_partition_lock_default(Oid parent)
{
	Oid leaf = rf_partition_default_of(parent);

	if (OidIsValid(leaf))
		LockRelationOid(leaf, AccessShareLock);
}

/* The leaf that holds a month, other than the default; NULL if none. */
RfPartition *
rf_partition_find(Oid parent, DateADT month)
{
	List		*leaves = rf_partition_list(parent);
	RfPartition *result = NULL;
	ListCell	*cell;

	foreach(cell, leaves)
	{
		RfPartition *leaf = lfirst(cell);

		if (!leaf->is_default && leaf->lower <= month && month < leaf->upper)
			result = leaf;
	}
	return result;
}

/* The same by its OID; InvalidOid if none. */
Oid
rf_partition_of_month(Oid parent, DateADT month)
{
	RfPartition *leaf = rf_partition_find(parent, month);

	return leaf == NULL ? InvalidOid : leaf->relid;
}

/*
 * The leaf that a row of that month goes to, the default included; InvalidOid
 * if none.  It is looked up as the executor does it.
 */
Oid
rf_partition_receiving(Relation parent, DateADT month)
{
	PartitionDesc	   desc = RelationGetPartitionDesc(parent, true);
	PartitionKey	   key = RelationGetPartitionKey(parent);
	PartitionBoundInfo bounds = desc->boundinfo;
	Datum			   value = DateADTGetDatum(month);
	bool			   is_equal;
	int				   index;

	if (bounds == NULL)
		return InvalidOid;
	index = partition_range_datum_bsearch(key->partsupfunc, key->partcollation,
										  bounds, 1, &value, &is_equal);
	index = bounds->indexes[index + 1];
	if (index < 0)
		index = bounds->default_index;
	return index < 0 ? InvalidOid : desc->oids[index];
}

/*
 * Is there an event with those keys that the snapshot shows?  They are looked
 * up by an index, or with InvalidOid by reading the leaf.
 */
static bool
holds_any(Relation rel, Oid index, Snapshot snapshot, int nkeys, ScanKey keys)
{
	SysScanDesc scan = systable_beginscan(rel, index, OidIsValid(index),
										  snapshot, nkeys, keys);
	bool		found = HeapTupleIsValid(systable_getnext(scan));

	systable_endscan(scan);
	return found;
}

/* Does the leaf hold an event of the stream that the snapshot shows? */
bool
rf_partition_holds_stream(Oid leaf, const RfStreamId *stream, Snapshot snapshot)
{
	Relation	rel = table_open(leaf, AccessShareLock);
	RfLeaf		columns;
	ScanKeyData keys[2];
	int			nkeys;
	bool		found;

	rf_store_leaf(leaf, &columns);
	nkeys = rf_tenancy_leaf_keys(keys, stream, columns.stream_id,
								 columns.tenant_id);
	found = holds_any(rel, columns.stream_index, snapshot, nkeys, keys);
	table_close(rel, AccessShareLock);
	return found;
}

/*
 * The same of any stream of a tenant of a conjoined store.  No index has the
 * tenants together: it takes as long as to count the leaf.
 */
bool
rf_partition_holds_tenant(Oid leaf, uint32 tenant, Snapshot snapshot)
{
	Relation	rel = table_open(leaf, AccessShareLock);
	RfLeaf		columns;
	ScanKeyData key;
	bool		found;

	rf_store_leaf(leaf, &columns);
	ScanKeyInit(&key, columns.tenant_id, BTEqualStrategyNumber, F_TEXTEQ,
				rf_tenancy_datum(tenant));
	found = holds_any(rel, InvalidOid, snapshot, 1, &key);
	table_close(rel, AccessShareLock);
	return found;
}

/*
 * The global_seq of the first event of a leaf, or of the last one, by its
 * index, with the latest snapshot.  What is known if there is no event, or no
 * index, is the caller's to say.
 */
static int64
end_of_leaf(Oid leaf, ScanDirection direction, int64 if_empty, int64 if_unknown)
{
	Relation	rel = table_open(leaf, AccessShareLock);
	int64		result = if_unknown;
	RfLeaf		columns;
	Relation	index;
	Snapshot	snapshot;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		isnull;

	rf_store_leaf(leaf, &columns);
	if (OidIsValid(columns.global_index))
	{
		snapshot = RegisterSnapshot(GetLatestSnapshot());
		index = index_open(columns.global_index, AccessShareLock);
		scan = systable_beginscan_ordered(rel, index, snapshot, 0, NULL);
		tuple = systable_getnext_ordered(scan, direction);
		result = HeapTupleIsValid(tuple) ?
					 DatumGetInt64(heap_getattr(tuple, columns.global_seq,
												RelationGetDescr(rel),
												&isnull)) :
					 if_empty;
		systable_endscan_ordered(scan);
		index_close(index, AccessShareLock);
		UnregisterSnapshot(snapshot);
	}
	table_close(rel, AccessShareLock);
	return result;
}

/* No event of the leaf has a lower number. */
int64
rf_partition_lowest(Oid leaf)
{
	return end_of_leaf(leaf, ForwardScanDirection, PG_INT64_MAX, 0);
}

/* No event of the leaf has a higher number. */
int64
rf_partition_highest(Oid leaf)
{
	return end_of_leaf(leaf, BackwardScanDirection, 0, PG_INT64_MAX);
}

/*
 * The time of the oldest event of a leaf; DT_NOEND when it has none.  Read
 * without a plan, which takes longer to make than most leaves take to read.
 */
TimestampTz
rf_partition_oldest(Oid leaf)
{
	Relation		rel = table_open(leaf, AccessShareLock);
	TupleDesc		tupdesc = RelationGetDescr(rel);
	AttrNumber		column = attnameAttNum(rel, "created_at", false);
	TableScanDesc	scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TimestampTz		result = DT_NOEND;

	if (column <= 0 ||
		TupleDescAttr(tupdesc, column - 1)->atttypid != TIMESTAMPTZOID)
		elog(ERROR, "relation %u has no time of events", leaf);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool  isnull;
		Datum value = slot_getattr(slot, column, &isnull);

		CHECK_FOR_INTERRUPTS();
		if (!isnull)
			result = Min(result, DatumGetTimestampTz(value));
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

/*
 * Searching a tier for events of one stream after another
 */

/* A leaf, opened for the first stream that may have events in it. */
typedef struct SearchedLeaf
{
	RfPartition		partition;
	Relation		rel; /* NULL: not opened yet */
	Relation		index;
	IndexScanDesc	scan; /* NULL: the leaf holds nothing */
	int				nkeys;
	TupleTableSlot *slot;
} SearchedLeaf;

void
rf_partition_begin_search(RfSearch *search, Oid parent, Snapshot snapshot)
{
	List	 *leaves = rf_partition_list(parent);
	ListCell *cell;

	search->snapshot = snapshot;
	search->nleaves = 0;
	search->leaves = palloc0(sizeof(SearchedLeaf) *
							 Max(list_length(leaves), 1));
	foreach(cell, leaves)
		search->leaves[search->nleaves++].partition = *(RfPartition *) lfirst(
			cell);
	list_free_deep(leaves);
}

/* A row that the snapshot shows has its block by now. */
static void
open_searched(SearchedLeaf *leaf, Snapshot snapshot)
{
	RfLeaf columns;

	leaf->rel = table_open(leaf->partition.relid, AccessShareLock);
	if (RelationGetNumberOfBlocks(leaf->rel) == 0)
		return;
	rf_store_leaf(leaf->partition.relid, &columns);
	leaf->index = index_open(columns.stream_index, AccessShareLock);
	leaf->nkeys = columns.tenant_id == 0 ? 2 : 3;
	leaf->scan = rf_compat_index_beginscan(leaf->rel, leaf->index, snapshot,
										   leaf->nkeys);
	leaf->slot = table_slot_create(leaf->rel, NULL);
}

static bool
leaf_holds(SearchedLeaf *leaf, const RfStreamId *stream, int32 highest)
{
	ScanKeyData keys[3];
	int			n;

	if (leaf->scan == NULL)
		return false;
	n = rf_tenancy_leaf_keys(keys, stream, 1, 2);
	Assert(n + 1 == leaf->nkeys);
	ScanKeyInit(&keys[n], n + 1, BTLessEqualStrategyNumber, F_INT4LE,
				Int32GetDatum(highest));
	index_rescan(leaf->scan, keys, leaf->nkeys, NULL, 0);
	return index_getnext_slot(leaf->scan, ForwardScanDirection, leaf->slot);
}

/*
 * Does the snapshot show an event of the stream, of a number that is not
 * higher, in the months between the two times?  The default partition and the
 * late months, where it most likely has one, come last in the list.
 */
bool
rf_partition_search(RfSearch *search, const RfStreamId *stream, int32 highest,
					TimestampTz first, TimestampTz last)
{
	DateADT from = rf_partition_month_of(first);
	DateADT to = rf_partition_month_of(last);

	for (int i = search->nleaves - 1; i >= 0; i--)
	{
		SearchedLeaf *leaf = &search->leaves[i];

		if (leaf->partition.lower > to || from >= leaf->partition.upper)
			continue;
		if (leaf->rel == NULL)
			open_searched(leaf, search->snapshot);
		if (leaf_holds(leaf, stream, highest))
			return true;
	}
	return false;
}

void
rf_partition_end_search(RfSearch *search)
{
	for (int i = 0; i < search->nleaves; i++)
	{
		SearchedLeaf *leaf = &search->leaves[i];

		if (leaf->scan != NULL)
		{
			ExecDropSingleTupleTableSlot(leaf->slot);
			index_endscan(leaf->scan);
			index_close(leaf->index, AccessShareLock);
		}
		if (leaf->rel != NULL)
			table_close(leaf->rel, AccessShareLock);
	}
	pfree(search->leaves);
}

/*
 * Can history go in and out of the table with triggers off?  Foreign keys that
 * refer to it would be left dangling; and a trigger that fires all the same
 * would run user code while nothing guards the events.
 */
void
rf_partition_require_silent(Oid relid, bool is_target)
{
	Relation	 rel = table_open(relid, AccessShareLock);
	TriggerDesc *triggers = rel->trigdesc;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		Trigger *trigger = &triggers->triggers[i];

		if (RI_FKey_trigger_type(trigger->tgfoid) == RI_TRIGGER_PK)
			ereport(
				ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" is referenced by a foreign key",
						RelationGetRelationName(rel)),
				 errhint(
					 "Events move; let other tables refer to \"rf_streams\", or keep the global_seq without a constraint.")));
		if (trigger->tgenabled == TRIGGER_FIRES_ALWAYS ||
			trigger->tgenabled == TRIGGER_FIRES_ON_REPLICA)
			ereport(
				ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg(
					 "trigger \"%s\" of table \"%s\" would fire when events are moved",
					 trigger->tgname, RelationGetRelationName(rel)),
				 errhint("Run: ALTER TABLE %s ENABLE TRIGGER %s;",
						 rf_store_relation_name(relid),
						 quote_identifier(trigger->tgname))));
	}
	table_close(rel, AccessShareLock);
}

/* The same of a parent and all of its leaves, to which history goes. */
void
rf_partition_require_all_silent(Oid parent)
{
	List	 *leaves = rf_partition_list(parent);
	ListCell *cell;

	rf_partition_require_silent(parent, true);
	foreach(cell, leaves)
		rf_partition_require_silent(((RfPartition *) lfirst(cell))->relid,
									true);
}

/* What went out of a leaf has to come in elsewhere. */
void
rf_partition_require_moved(int64 gone, int64 come, Oid source)
{
	if (gone != come)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("of " INT64_FORMAT
						" events taken out of \"%s\", " INT64_FORMAT " arrived",
						gone, get_rel_name(source), come),
				 errhint("Look for a trigger or a rule that skips rows.")));
}

/*
 * Making a month
 */

char *
rf_partition_date_text(DateADT date)
{
	int year, month, day;

	if (DATE_NOT_FINITE(date))
		return pstrdup(DATE_IS_NOBEGIN(date) ? "-infinity" : "infinity");
	split_month(date, &year, &month, &day);
	return psprintf("%04d-%02d-%02d", year, month, day);
}

/* events_hot_2026_01, say. */
char *
rf_partition_name(Oid parent, DateADT month)
{
	int year, mon, day;

	split_month(month, &year, &mon, &day);
	return psprintf("%s_%04d_%02d", get_rel_name(parent), year, mon);
}

/* Refuse every writer of a table of events but our own. */
void
rf_partition_guard(const char *table)
{
	rf_query_ddl(
		"CREATE TRIGGER rf_events_append_only"
		" BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s"
		" FOR EACH STATEMENT EXECUTE FUNCTION %I.rf_events_append_only()",
		table, get_namespace_name(rf_store_extension_schema()));
}

/* Has it CHECKs beside the one that a default partition has for itself? */
static bool
has_other_checks(Oid model)
{
	Relation	 rel = table_open(model, AccessShareLock);
	TupleConstr *constr = RelationGetDescr(rel)->constr;
	bool		 result = false;

	for (int i = 0; constr != NULL && i < constr->num_check; i++)
		result |= strcmp(constr->check[i].ccname, RF_TIE_CHECK) != 0;
	table_close(rel, AccessShareLock);
	return result;
}

/*
 * Made like the default partition, which has its columns in the order of
 * leaves (install.c); where that is gone, like the parent.  CHECKs come all or
 * none.  The one that the default has for itself comes only where the parent
 * asks for it: dropped again, it leaves a dead row in pg_constraint.
 */
static void
create_table(const char *name, const char *qualified, Oid parent, Oid model,
			 const char *from, const char *to, const char *tablespace)
{
	bool tied = OidIsValid(
		get_relation_constraint_oid(parent, RF_TIE_CHECK, true));
	bool  checks = tied || has_other_checks(model);
	char *where = "";
	char *index_where = "";

	if (tablespace != NULL)
	{
		where = rf_query_format(" TABLESPACE %I", tablespace);
		index_where = rf_query_format(" USING INDEX TABLESPACE %I", tablespace);
	}
	rf_query_ddl(
		"CREATE TABLE %s (LIKE %s INCLUDING COMMENTS INCLUDING COMPRESSION"
		" INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING STORAGE%s,"
		" CONSTRAINT %I PRIMARY KEY (global_seq)%s,"
		" CONSTRAINT " RF_MONTH_CHECK " CHECK (bucket_month = DATE %L"
		" AND created_at >= TIMESTAMPTZ %L AND created_at < TIMESTAMPTZ %L))%s",
		qualified, rf_store_relation_name(model),
		checks ? " INCLUDING CONSTRAINTS" : "", psprintf("%s_pkey", name),
		index_where, from, psprintf("%s 00:00:00+00", from),
		psprintf("%s 00:00:00+00", to), where);
	if (checks && !tied)
		rf_query_ddl("ALTER TABLE %s DROP CONSTRAINT IF EXISTS " RF_TIE_CHECK,
					 qualified);
}

/*
 * The number of an event is unique in its stream, by an index: a constraint
 * would be one more row of pg_constraint for each leaf (src/README).
 */
void
rf_partition_index_streams(const char *name, const char *qualified,
						   bool conjoined, const char *tablespace)
{
	rf_query_ddl("CREATE UNIQUE INDEX %I ON %s (stream_id, %sstream_seq)%s",
				 psprintf("%s_stream_key", name), qualified,
				 conjoined ? "tenant_id, " : "",
				 tablespace == NULL ?
					 "" :
					 rf_query_format(" TABLESPACE %I", tablespace));
}

/* Rows of the month that wait in the default partition go along. */
static int64
take_waiting_rows(Oid default_leaf, const char *qualified, DateADT month,
				  DateADT next)
{
	char *columns = rf_store_column_list(default_leaf, NULL, NULL);
	char *sql = rf_query_format(
		"WITH waiting AS (DELETE FROM ONLY %s"
		" WHERE bucket_month >= $1 AND bucket_month < $2 RETURNING %s)"
		" INSERT INTO %s (%s) SELECT %s FROM waiting",
		rf_store_relation_name(default_leaf), columns, qualified, columns,
		columns);
	Oid	   types[2] = {DATEOID, DATEOID};
	Datum  values[2];
	int64  taken;
	RfPlan plan;

	values[0] = DateADTGetDatum(month);
	values[1] = DateADTGetDatum(next);
	rf_partition_require_silent(default_leaf, false);
	plan = rf_query_prepare(sql, 2, types);
	taken = (int64) rf_query_run_untriggered(plan, values, NULL);
	rf_query_forget(plan);
	return taken;
}

static bool
has_waiting_rows(Oid default_leaf, DateADT month, DateADT next)
{
	Oid	  types[2] = {DATEOID, DATEOID};
	Datum values[2];

	if (!OidIsValid(default_leaf))
		return false;
	values[0] = DateADTGetDatum(month);
	values[1] = DateADTGetDatum(next);
	return rf_query_once(
			   rf_query_format("SELECT 1 FROM ONLY %s WHERE bucket_month >= $1"
							   " AND bucket_month < $2 LIMIT 1",
							   rf_store_relation_name(default_leaf)),
			   2, types, values, NULL) > 0;
}

/*
 * Who reads the tier has looked its leaves up under a lock on the parent, and
 * may take his snapshot later.  Where rows come to the new leaf at once, all
 * who hold that lock have to end first.
 */
static void
lock_to_make(Oid parent, Oid default_leaf, bool readers_wait)
{
	RfLockLimit limit;

	rf_lock_begin(&limit);
	rf_lock_table(&limit, parent,
				  readers_wait ? AccessExclusiveLock :
								 ShareUpdateExclusiveLock);
	if (OidIsValid(default_leaf))
		rf_lock_table(&limit, default_leaf, AccessExclusiveLock);
}

static void
require_no_new_rows(Oid default_leaf, DateADT month, DateADT next)
{
	if (has_waiting_rows(default_leaf, month, next))
		ereport(ERROR, (errcode(ERRCODE_LOCK_NOT_AVAILABLE),
						errmsg("events of %s came to \"%s\" meanwhile",
							   rf_partition_date_text(month),
							   get_rel_name(default_leaf)),
						errhint("Try again.")));
}

static Oid
build_month(RfStore *store, Oid parent, Oid default_leaf, DateADT month,
			const char *tablespace)
{
	RfLedgerEntry entry = RF_LEDGER_ENTRY("partition made");
	DateADT		  next = rf_partition_next_month(month);
	char		 *from = rf_partition_date_text(month);
	char		 *to = rf_partition_date_text(next);
	char		 *name = rf_partition_name(parent, month);
	char		 *qualified = quote_qualified_identifier(store->schema, name);

	entry.started_at = GetCurrentTimestamp();
	entry.bucket_month = month;
	entry.detail = name;
	create_table(name, qualified, parent,
				 OidIsValid(default_leaf) ? default_leaf : parent, from, to,
				 tablespace);
	rf_partition_index_streams(name, qualified, store->conjoined, tablespace);
	if (OidIsValid(default_leaf))
		entry.events = take_waiting_rows(default_leaf, qualified, month, next);
	rf_partition_guard(qualified);
	rf_row_security_pass_on(parent, qualified);
	rf_query_ddl(
		"ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)",
		rf_store_relation_name(parent), qualified, from, to);
	rf_ledger_write(store, &entry);
	return get_relname_relid(name, store->namespace_id);
}

/* Make the month, under the lock of who makes months. */
static Oid
make_month(RfStore *store, RfTier tier, DateADT month, const char *tablespace)
{
	Oid		parent = rf_store_tier_parent(store, tier);
	Oid		default_leaf = rf_partition_default_of(parent);
	DateADT next = rf_partition_next_month(month);
	bool	readers_wait = tier == RF_COLD || store->adopting ||
						has_waiting_rows(default_leaf, month, next);

	lock_to_make(parent, default_leaf, readers_wait);
	if (!readers_wait)
		require_no_new_rows(default_leaf, month, next);
	return build_month(store, parent, default_leaf, month, tablespace);
}

/*
 * The month's partition in a tier, made where it lacks.  Two that make it at
 * once get the same one.
 */
Oid
rf_partition_create(RfStore *store, RfTier tier, DateADT month,
					const char *tablespace)
{
	Oid result = rf_partition_of_month(rf_store_tier_parent(store, tier),
									   month);
	RfLockLimit limit;
	RfScope		scope;

	if (OidIsValid(result))
		return result;
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	rf_lock_begin(&limit);
	rf_lock_makers(&limit, store->namespace_id);
	store = rf_store_in(store->namespace_id, false);
	result = rf_partition_of_month(rf_store_tier_parent(store, tier), month);
	if (!OidIsValid(result))
		result = make_month(store, tier, month, tablespace);
	rf_query_end(&scope);
	return result;
}

typedef struct MonthCall
{
	RfStore	   *store;
	RfTier		tier;
	DateADT		month;
	RfMonthMade made;
	ErrorData  *error;
} MonthCall;

static void
create_called(void *arg)
{
	MonthCall *call = arg;

	(void) rf_partition_create(call->store, call->tier, call->month, NULL);
}

static void
create_unless_named(void *arg)
{
	MonthCall *call = arg;

	if (!rf_query_attempt(create_called, call, ERRCODE_DUPLICATE_TABLE,
						  &call->error))
		call->made = RF_MONTH_NAMED;
}

/*
 * Make a month if that can be done now: rows that belong to it have a place to
 * wait in.  *error tells why it was not made.
 */
RfMonthMade
rf_partition_try_create(RfStore *store, RfTier tier, DateADT month,
						ErrorData **error)
{
	MonthCall call = {.store = store,
					  .tier = tier,
					  .month = month,
					  .made = RF_MONTH_MADE};

	if (!rf_query_attempt(create_unless_named, &call,
						  ERRCODE_LOCK_NOT_AVAILABLE, &call.error))
		call.made = RF_MONTH_LOCKED;
	*error = call.error;
	return call.made;
}

/*
 * Dropping a month
 */

static int64
count_events(Oid leaf)
{
	rf_query_once(rf_query_format("SELECT count(*) FROM ONLY %s",
								  rf_store_relation_name(leaf)),
				  0, NULL, NULL, NULL);
	return DatumGetInt64(rf_query_must(0, 1));
}

/* Can any snapshot that is in use show a row of the table? */
bool
rf_partition_is_seen(Oid relid)
{
	Relation		rel = table_open(relid, AccessShareLock);
	SnapshotData	snapshot;
	TableScanDesc	scan;
	TupleTableSlot *slot;
	bool			found;

	/* the horizon is computed anew by that; an idle server keeps an old one */
	(void) GetOldestNonRemovableTransactionId(rel);
	InitNonVacuumableSnapshot(snapshot, GlobalVisTestFor(rel));
	slot = table_slot_create(rel, NULL);
	scan = table_beginscan_strat(rel, &snapshot, 0, NULL, true, false);
	found = table_scan_getnextslot(scan, ForwardScanDirection, slot);
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
	return found;
}

/* Readers come from the root, and so do we. */
static void
lock_to_drop(const RfStore *store, Oid parent, Oid leaf)
{
	Oid			root = parent == store->events_archive ? parent : store->events;
	Oid			default_leaf = rf_partition_default_of(parent);
	RfLockLimit limit;

	rf_lock_begin(&limit);
	rf_lock_makers(&limit, store->namespace_id);
	rf_lock_table(&limit, root, AccessExclusiveLock);
	rf_lock_table(&limit, parent, AccessExclusiveLock);
	if (OidIsValid(default_leaf))
		rf_lock_table(&limit, default_leaf, AccessExclusiveLock);
	rf_lock_table(&limit, leaf, AccessExclusiveLock);
	rf_hold_keep(store, &limit);
}

/* Does a leaf that holds events hold any that are on hold? */
static bool
concerns_leaf(const RfHold *hold, Oid leaf, Snapshot snapshot)
{
	if (!hold->of_all)
		return rf_partition_holds_stream(leaf, &hold->stream, snapshot);
	return hold->stream.tenant == 0 ||
		   rf_partition_holds_tenant(leaf, hold->stream.tenant, snapshot);
}

/* What is on hold stays, whoever wants it dropped. */
static void
require_not_held(const RfStore *store, Oid leaf)
{
	List	 *holds = rf_hold_list(store, NULL);
	Snapshot  snapshot = RegisterSnapshot(GetLatestSnapshot());
	ListCell *cell;

	foreach(cell, holds)
	{
		const RfHold *hold = lfirst(cell);

		CHECK_FOR_INTERRUPTS();
		if (concerns_leaf(hold, leaf, snapshot))
			rf_hold_refuse(store, hold,
						   psprintf("partition \"%s\" cannot be dropped",
									get_rel_name(leaf)));
	}
	UnregisterSnapshot(snapshot);
}

/* Events go with it only when forced, and the ledger tells how many. */
static void
drop_month(RfStore *store, Oid parent, const RfPartition *leaf, bool force)
{
	RfLedgerEntry entry = RF_LEDGER_ENTRY("partition dropped");
	RfScope		  scope;

	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	lock_to_drop(store, parent, leaf->relid);
	entry.started_at = GetCurrentTimestamp();
	entry.bucket_month = leaf->lower;
	if (rf_partition_of_month(parent, leaf->lower) != leaf->relid)
		ereport(
			ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg(
				 "the partition of month %s was dropped or flipped meanwhile",
				 rf_partition_date_text(leaf->lower))));
	entry.detail = get_rel_name(leaf->relid);
	entry.events = count_events(leaf->relid);
	if (entry.events > 0)
		require_not_held(store, leaf->relid);
	if (entry.events > 0 && !force)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("partition \"%s\" holds events: " INT64_FORMAT,
							   entry.detail, entry.events),
						errhint("With force => true they are lost.")));
	if (!force && rf_partition_is_seen(leaf->relid))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("transactions that run still see events in \"%s\"",
						entry.detail),
				 errhint("Try again when they have ended.")));
	rf_query_ddl("DROP TABLE %s", rf_store_relation_name(leaf->relid));
	rf_ledger_write(store, &entry);
	rf_query_end(&scope);
}

/*
 * Draining a default partition
 */

/*
 * The months of the rows that wait in the default partition of a tier, but for
 * those with more rows than that; *events grows by how many rows they are, and
 * *left by those of the others.
 */
List *
rf_partition_waiting(RfStore *store, RfTier tier, int64 most, int64 *events,
					 int64 *left)
{
	MemoryContext context = CurrentMemoryContext;
	Oid		leaf = rf_partition_default_of(rf_store_tier_parent(store, tier));
	List   *waiting = NIL;
	RfScope scope;
	uint64	rows;

	if (!OidIsValid(leaf))
		return NIL;
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	rows = rf_query_once(
		rf_query_format("SELECT bucket_month, count(*) FROM ONLY %s"
						" GROUP BY 1 ORDER BY 1",
						rf_store_relation_name(leaf)),
		0, NULL, NULL, NULL);
	for (uint64 i = 0; i < rows; i++)
	{
		DateADT		  month = DatumGetDateADT(rf_query_must(i, 1));
		int64		  count = DatumGetInt64(rf_query_must(i, 2));
		MemoryContext old = MemoryContextSwitchTo(context);

		if (!rf_partition_month_has_name(month) || count > most)
			*left += count;
		else
		{
			waiting = lappend_int(waiting, month);
			*events += count;
		}
		MemoryContextSwitchTo(old);
	}
	rf_query_end(&scope);
	return waiting;
}

/* Make the months whose rows wait in the default; they take them along. */
static int64
drain_tier(RfStore *store, RfTier tier)
{
	int64	  events = 0;
	int64	  left = 0;
	List	 *waiting = rf_partition_waiting(store, tier, PG_INT64_MAX, &events,
											 &left);
	ListCell *cell;

	foreach(cell, waiting)
	{
		CHECK_FOR_INTERRUPTS();
		(void) rf_partition_create(rf_store_in(store->namespace_id, false),
								   tier, lfirst_int(cell), NULL);
	}
	return events;
}

/*
 * SQL interface
 */

PG_FUNCTION_INFO_V1(rf_create_partition);
PG_FUNCTION_INFO_V1(rf_drop_partition);
PG_FUNCTION_INFO_V1(rf_drain_default);

/* "hot" or "cold", the argument of a function. */
RfTier
rf_partition_tier_argument(const char *retention)
{
	if (strcmp(retention, "hot") == 0)
		return RF_HOT;
	if (strcmp(retention, "cold") == 0)
		return RF_COLD;
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("\"%s\" is not a retention class", retention),
					errhint("Use \"hot\" or \"cold\".")));
	return RF_HOT;
}

/* A month that is an argument has to be the first day of one. */
void
rf_partition_check_month(DateADT month)
{
	if (!rf_partition_month_has_name(month))
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("\"month\" is out of range"),
			 errhint(
				 "Months from 0001-01-01 to 9999-12-01 can have a partition.")));
	if (rf_partition_month_of(rf_partition_start(month)) != month)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("%s is not the first day of a month",
							   rf_partition_date_text(month)),
						errhint("Use %s.",
								rf_partition_date_text(rf_partition_month_of(
									rf_partition_start(month))))));
}

Datum
rf_create_partition(PG_FUNCTION_ARGS)
{
	char  *tablespace = PG_ARGISNULL(2) ? NULL :
										  pstrdup(NameStr(*PG_GETARG_NAME(2)));
	char  *tenant = RF_GETARG_STRING(3);
	RfTier tier;

	PreventCommandIfReadOnly("rf_create_partition()");
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"retention\" and \"month\" must not be null")));
	tier = rf_partition_tier_argument(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	rf_partition_check_month(PG_GETARG_DATEADT(1));
	if (tablespace != NULL)
		(void) get_tablespace_oid(tablespace, false);
	PG_RETURN_OID(rf_partition_create(rf_store_get_whole(tenant, RF_RIGHT_OWN),
									  tier, PG_GETARG_DATEADT(1), tablespace));
}

Datum
rf_drop_partition(PG_FUNCTION_ARGS)
{
	char		*tenant = RF_GETARG_STRING(3);
	RfStore		*store;
	RfTier		 tier;
	DateADT		 month;
	RfPartition *leaf;

	PreventCommandIfReadOnly("rf_drop_partition()");
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"retention\" and \"month\" must not be null")));
	tier = rf_partition_tier_argument(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	month = PG_GETARG_DATEADT(1);
	rf_partition_check_month(month);
	store = rf_store_get_whole(tenant, RF_RIGHT_OWN);
	leaf = rf_partition_find(rf_store_tier_parent(store, tier), month);
	if (leaf == NULL || !rf_partition_is_month(leaf))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no partition of month %s",
						rf_partition_date_text(month)),
				 errhint("rf_partitions() lists those that there are.")));
	drop_month(store, rf_store_tier_parent(store, tier), leaf,
			   !PG_ARGISNULL(2) && PG_GETARG_BOOL(2));
	PG_RETURN_VOID();
}

Datum
rf_drain_default(PG_FUNCTION_ARGS)
{
	char	*tenant = RF_GETARG_STRING(0);
	RfStore *store;
	int64	 events;

	PreventCommandIfReadOnly("rf_drain_default()");
	store = rf_store_get_whole(tenant, RF_RIGHT_OWN);
	events = drain_tier(store, RF_HOT);
	events += drain_tier(rf_store_in(store->namespace_id, false), RF_COLD);
	PG_RETURN_INT64(events);
}
