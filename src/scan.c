/*-------------------------------------------------------------------------
 *
 * scan.c
 *	  Reading events leaf by leaf, in order, along the leaves' indexes.
 *
 * A query that merges all leaves of a store pays for each of them, in planning
 * and in execution.  Here a leaf is opened when it may hold the next event,
 * and not before.
 *
 * In order of global_seq: there is no fixed relation between months and
 * numbers, so each leaf's index is asked for its next number (seek.c), and the
 * leaves are merged by those.  A leaf whose next number lies beyond the last
 * event that is read is not opened.
 *
 * In order of stream_seq: a stream has each number from 1 to its head once, hot
 * or cold.  While the number that comes next is found in a leaf that is open,
 * no other one is looked at.  The leaves are opened from both ends of the
 * stream's months inward, so that those come first which surely hold some; the
 * default partitions, which may hold any month, come last.
 *
 * The rows are those that the active snapshot shows, which is older than the
 * list of leaves: the caller locks the parents (rf_scan_lock) while it is
 * active.  Whatever has happened to the leaves until then, each row that the
 * snapshot shows is in one of them: months that flip or are attached keep
 * their rows, rows that were moved are shown where they were, and a table in
 * which a snapshot that is in use shows rows is not dropped (flip.c).
 *
 * What is known of leaves is kept in the backend, and thrown away when the
 * relcache says that they changed.
 *
 * A leaf is read by itself, and so neither its parents' row security nor column
 * privileges hold; who calls this has to know that none apply.  Leaves that are
 * made in another way than ours are left to the planner: the functions return
 * false, and what they have put out so far is to be thrown away.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "lib/binaryheap.h"
#include "miscadmin.h"
#include "partitioning/partdesc.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "partition.h"
#include "scan.h"
#include "seek.h"
#include "store.h"
#include "tenancy.h"

/* RF_SCAN_COLUMNS, and the places of some of them */
static const struct
{
	const char *name;
	Oid			type;
} result_columns[] = {{"global_seq", INT8OID},
					  {"stream_id", UUIDOID},
					  {"stream_seq", INT4OID},
					  {"event_type", TEXTOID},
					  {"body", JSONBOID},
					  {"headers", JSONBOID},
					  {"causation_id", UUIDOID},
					  {"correlation_id", UUIDOID},
					  {"event_version", INT4OID},
					  {"tenant_id", TEXTOID},
					  {"user_id", TEXTOID},
					  {"is_tombstone", BOOLOID},
					  {"created_at", TIMESTAMPTZOID},
					  {"retention_class", TEXTOID}};

#define NCOLUMNS lengthof(result_columns)
#define GLOBAL_SEQ 0
#define STREAM_ID 1
#define STREAM_SEQ 2
#define EVENT_TYPE 3
#define TENANT_ID 9

/* What is known of a leaf. */
typedef struct Leaf
{
	RfPartition partition;
	bool		known; /* false: all below is to be read anew */
	bool		fits;  /* can it be read here? */
	Oid			global_index;
	Oid			stream_index;
	AttrNumber	columns[NCOLUMNS];
	AttrNumber	last_column; /* the highest of them */
	Oid			type_collation;
	RfSeek		seek;
} Leaf;

/* The leaves of a parent. */
typedef struct Tier
{
	Oid			  parent; /* hash key */
	bool		  valid;
	bool		  fits;
	MemoryContext context;
	int			  nleaves;
	Leaf		 *leaves;
} Tier;

/* A leaf that a read may have to open. */
typedef struct Source
{
	Leaf		   *leaf;
	int64			next; /* the number of its next row, or a lower one */
	Relation		rel;  /* NULL: not opened */
	Relation		index;
	IndexScanDesc	scan;
	TupleTableSlot *slot;
} Source;

/* A read, while it runs. */
typedef struct Merge
{
	const RfScan *scan;
	ScanDirection direction;
	AttrNumber	  order; /* which result column it goes by */
	int			  nkeys; /* columns of a key of a stream and number */
	bool		  locks_gaps;
	Source		 *sources;
	int			  nsources;
	binaryheap	 *heap;
	int64		  last; /* number of the last event put out */
} Merge;

#define MAX_TIERS 3

static HTAB *tiers = NULL;
static bool	 tiers_changed = false; /* is any of them not valid? */

/* raised by each invalidation: what is being read may be out of date */
static uint64 invalidations = 0;

/*
 * Knowledge of leaves
 */

static void
leaf_changed(Leaf *leaf, Oid relid)
{
	if (relid != leaf->partition.relid && relid != leaf->global_index &&
		relid != leaf->stream_index)
		return;
	leaf->known = false;
	rf_seek_forget(&leaf->seek);
}

/* A read may be going on: nothing is freed here. */
static void
relation_changed(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS status;
	Tier		   *tier;

	invalidations++;
	if (tiers == NULL)
		return;
	hash_seq_init(&status, tiers);
	while ((tier = hash_seq_search(&status)) != NULL)
	{
		if (!OidIsValid(relid) || relid == tier->parent)
			tier->valid = false;
		tiers_changed |= !tier->valid;
		for (int i = 0; i < tier->nleaves; i++)
			leaf_changed(&tier->leaves[i], OidIsValid(relid) ?
											   relid :
											   tier->leaves[i].partition.relid);
	}
}

void
rf_scan_init(void)
{
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
}

/* No read is going on. */
static void
free_invalid_tiers(void)
{
	HASH_SEQ_STATUS status;
	Tier		   *tier;

	if (!tiers_changed)
		return;
	tiers_changed = false;
	hash_seq_init(&status, tiers);
	while ((tier = hash_seq_search(&status)) != NULL)
	{
		if (tier->valid && tier->fits)
			continue;
		if (tier->context != NULL)
			MemoryContextDelete(tier->context);
		hash_search(tiers, &tier->parent, HASH_REMOVE, NULL);
	}
}

/* Where the result columns are; false when one is missing, or another. */
static bool
find_columns(Leaf *leaf, TupleDesc tupdesc, bool conjoined)
{
	leaf->last_column = 0;
	for (int i = 0; i < NCOLUMNS; i++)
	{
		leaf->columns[i] = InvalidAttrNumber;
		for (int j = 0; j < tupdesc->natts; j++)
		{
			Form_pg_attribute att = TupleDescAttr(tupdesc, j);

			if (att->attisdropped || att->attgenerated != '\0' ||
				att->atttypid != result_columns[i].type ||
				strcmp(NameStr(att->attname), result_columns[i].name) != 0)
				continue;
			leaf->columns[i] = j + 1;
			leaf->last_column = Max(leaf->last_column, j + 1);
			if (i == EVENT_TYPE)
				leaf->type_collation = att->attcollation;
			/* an index is read as one that bears no null */
			if (!att->attnotnull &&
				(i <= STREAM_SEQ || (conjoined && i == TENANT_ID)))
				return false;
		}
		if (leaf->columns[i] == InvalidAttrNumber)
			return false;
	}
	return true;
}

/* Is it there, and in the order that is wanted? */
static bool
index_fits(Oid relid, const Oid *types, int ntypes)
{
	Relation index;
	bool	 result = true;

	if (!OidIsValid(relid))
		return false;
	index = index_open(relid, AccessShareLock);
	for (int i = 0; i < ntypes; i++)
		result = result && rf_seek_suits(index, i, types[i]);
	index_close(index, AccessShareLock);
	return result;
}

static bool
describe_leaf(Leaf *leaf, Relation rel, bool conjoined)
{
	static const Oid of_tenants[] = {UUIDOID, TEXTOID, INT4OID};
	static const Oid of_nobody[] = {UUIDOID, INT4OID};
	static const Oid number[] = {INT8OID};

	leaf->global_index = leaf->stream_index = InvalidOid;
	if (rel->rd_rel->relkind != RELKIND_RELATION ||
		!find_columns(leaf, RelationGetDescr(rel), conjoined))
		return false;
	leaf->global_index = rf_store_unique_index(rel, &leaf->columns[GLOBAL_SEQ],
											   1);
	leaf->stream_index = rf_store_stream_index(rel, leaf->columns[STREAM_ID],
											   conjoined ?
												   leaf->columns[TENANT_ID] :
												   0,
											   leaf->columns[STREAM_SEQ]);
	return index_fits(leaf->global_index, number, 1) &&
		   index_fits(leaf->stream_index, conjoined ? of_tenants : of_nobody,
					  conjoined ? lengthof(of_tenants) : lengthof(of_nobody));
}

/* Look at the leaf, which is open, unless it is known. */
static bool
know_leaf(const Merge *merge, Leaf *leaf, Relation rel)
{
	if (!leaf->known)
	{
		uint64 seen = invalidations;

		rf_seek_forget(&leaf->seek);
		leaf->fits = describe_leaf(leaf, rel, merge->scan->store->conjoined);
		leaf->known = seen == invalidations;
	}
	return leaf->fits;
}

/* Partitions that are being detached are shown to some and not to others. */
static bool
has_plain_partitions(Oid parent)
{
	Relation	  rel = table_open(parent, AccessShareLock);
	PartitionDesc desc = RelationGetPartitionDesc(rel, true);
	bool		  result = !desc->detached_exist;

	table_close(rel, AccessShareLock);
	return result;
}

static void
fill_tier(Tier *tier)
{
	List	 *partitions = rf_partition_list(tier->parent);
	ListCell *cell;

	tier->leaves = MemoryContextAllocZero(tier->context,
										  sizeof(Leaf) *
											  Max(list_length(partitions), 1));
	foreach(cell, partitions)
		tier->leaves[tier->nleaves++].partition = *(RfPartition *) lfirst(cell);
	list_free_deep(partitions);
	tier->fits = has_plain_partitions(tier->parent);
}

/* The leaves of a parent, which is locked; NULL: read them in another way. */
static Tier *
get_tier(Oid parent)
{
	Tier *tier;
	bool  found;

	if (tiers == NULL)
	{
		HASHCTL ctl = {0};

		ctl.keysize = sizeof(Oid);
		ctl.entrysize = sizeof(Tier);
		tiers = hash_create("Rillflow tiers", 16, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	tier = hash_search(tiers, &parent, HASH_ENTER, &found);
	if (!found)
	{
		tier->valid = true;
		tier->fits = false; /* as long as it is not filled */
		tier->nleaves = 0;
		tier->context = NULL;
		tiers_changed = true;
		tier->context = AllocSetContextCreate(CacheMemoryContext,
											  "Rillflow tier",
											  ALLOCSET_SMALL_SIZES);
		fill_tier(tier);
	}
	return tier->fits ? tier : NULL;
}

/* Has events the two branches that it is made with, and no more? */
static bool
has_our_branches(const RfStore *store)
{
	Relation	  rel = table_open(store->events, AccessShareLock);
	PartitionDesc desc = RelationGetPartitionDesc(rel, true);
	bool		  result = desc->nparts == 2 && !desc->detached_exist;

	for (int i = 0; i < desc->nparts; i++)
		result = result && (desc->oids[i] == store->events_hot ||
							desc->oids[i] == store->events_cold);
	table_close(rel, AccessShareLock);
	return result;
}

/*
 * Sources
 */

/* Ask the leaf's index for the next number, by a descent. */
static RfSought
seek_leaf(const Merge *merge, Leaf *leaf, int64 after, int64 *next)
{
	Relation rel = table_open(leaf->partition.relid, AccessShareLock);
	RfSought sought = RF_SOUGHT_NEXT;

	/* of one that does not fit, it is found out when it is opened */
	*next = PG_INT64_MIN;
	if (know_leaf(merge, leaf, rel))
	{
		Relation index = index_open(leaf->global_index, AccessShareLock);

		sought = rf_seek(index, &leaf->seek, after, next);
		index_close(index, AccessShareLock);
	}
	table_close(rel, AccessShareLock);
	return sought;
}

/* May the leaf hold a higher global_seq, and from which one on? */
static bool
may_hold(const Merge *merge, Leaf *leaf, int64 after, int64 *next)
{
	RfSought sought = RF_SOUGHT_UNKNOWN;

	*next = PG_INT64_MIN;
	if (merge->locks_gaps)
		return true;
	if (leaf->known)
		sought = rf_seek_again(&leaf->seek, after, next);
	if (sought == RF_SOUGHT_UNKNOWN)
		sought = seek_leaf(merge, leaf, after, next);
	return sought != RF_SOUGHT_NONE;
}

/* Open the leaf for a scan of one of its indexes; false when it can't be. */
static bool
open_source(const Merge *merge, Source *source)
{
	Leaf *leaf = source->leaf;
	bool  by_stream = merge->order == STREAM_SEQ;

	source->rel = table_open(leaf->partition.relid, AccessShareLock);
	if (!know_leaf(merge, leaf, source->rel))
		return false;
	source->index = index_open(by_stream ? leaf->stream_index :
										   leaf->global_index,
							   AccessShareLock);
	source->slot = table_slot_create(source->rel, NULL);
	source->scan = rf_compat_index_beginscan(source->rel, source->index,
											 GetActiveSnapshot(),
											 by_stream ? merge->nkeys : 1);
	return true;
}

/* The locks stay, as those of a query do. */
static void
close_source(Source *source)
{
	if (source->scan != NULL)
	{
		index_endscan(source->scan);
		ExecDropSingleTupleTableSlot(source->slot);
		index_close(source->index, NoLock);
	}
	if (source->rel != NULL)
		table_close(source->rel, NoLock);
	source->scan = NULL;
	source->rel = NULL;
}

/* Go to the next row; when there is none, the source is closed. */
static bool
advance(const Merge *merge, Source *source)
{
	AttrNumber column = source->leaf->columns[merge->order];
	Datum	   value;
	bool	   isnull;

	CHECK_FOR_INTERRUPTS();
	if (!index_getnext_slot(source->scan, merge->direction, source->slot))
	{
		close_source(source);
		return false;
	}
	value = slot_getattr(source->slot, column, &isnull);
	source->next = merge->order == STREAM_SEQ ? DatumGetInt32(value) :
												DatumGetInt64(value);
	return true;
}

static void
put_row(const Merge *merge, Source *source)
{
	TupleTableSlot *slot = source->slot;
	const Leaf	   *leaf = source->leaf;
	Datum			values[NCOLUMNS];
	bool			nulls[NCOLUMNS];

	slot_getsomeattrs(slot, leaf->last_column);
	for (int i = 0; i < NCOLUMNS; i++)
	{
		values[i] = slot->tts_values[leaf->columns[i] - 1];
		nulls[i] = slot->tts_isnull[leaf->columns[i] - 1];
	}
	tuplestore_putvalues(merge->scan->rows, merge->scan->tupdesc, values,
						 nulls);
}

/* What comes first is the largest. */
static int
compare_forward(Datum a, Datum b, void *arg)
{
	int64 left = ((Source *) DatumGetPointer(a))->next;
	int64 right = ((Source *) DatumGetPointer(b))->next;

	return (left < right) - (left > right);
}

static int
compare_backward(Datum a, Datum b, void *arg)
{
	return -compare_forward(a, b, arg);
}

static Source *
first_source(const Merge *merge)
{
	return binaryheap_empty(merge->heap) ?
			   NULL :
			   (Source *) DatumGetPointer(binaryheap_first(merge->heap));
}

/* Go on in the source that is first. */
static void
advance_first(const Merge *merge, Source *source)
{
	if (advance(merge, source))
		binaryheap_replace_first(merge->heap, PointerGetDatum(source));
	else
		(void) binaryheap_remove_first(merge->heap);
}

static Source *
add_source(Merge *merge, Leaf *leaf)
{
	Source *source = &merge->sources[merge->nsources++];

	memset(source, 0, sizeof(*source));
	source->leaf = leaf;
	return source;
}

/*
 * Begin a read: find the leaves of the tiers.  False: they have to be read in
 * another way.
 */
static bool
begin_merge(Merge *merge, const RfScan *scan, AttrNumber order, bool backward,
			Tier **read, int *nread)
{
	const RfStore *store = scan->store;
	const Oid	   parents[MAX_TIERS] = {store->events_hot, store->events_cold,
										 store->events_archive};
	int			   nleaves = 0;

	memset(merge, 0, sizeof(*merge));
	merge->scan = scan;
	merge->order = order;
	merge->direction = backward ? BackwardScanDirection : ForwardScanDirection;
	merge->nkeys = store->conjoined ? 3 : 2;
	merge->locks_gaps = IsolationIsSerializable() ||
						rf_compat_snapshots_expire();
	*nread = scan->archived ? MAX_TIERS : 1;
	if (!has_our_branches(store))
		return false;
	free_invalid_tiers();
	for (int i = 0; i < *nread; i++)
	{
		read[i] = get_tier(parents[i]);
		if (read[i] == NULL)
			return false;
		nleaves += read[i]->nleaves;
	}
	merge->sources = palloc(sizeof(Source) * Max(nleaves, 1));
	merge->heap = binaryheap_allocate(Max(nleaves, 1),
									  backward ? compare_backward :
												 compare_forward,
									  NULL);
	return true;
}

static void
end_merge(Merge *merge)
{
	for (int i = 0; i < merge->nsources; i++)
		close_source(&merge->sources[i]);
	binaryheap_free(merge->heap);
	pfree(merge->sources);
}

/*
 * In order of global_seq
 */

/* Is the event of one of the types?  NULL: all types. */
static bool
is_of_types(Source *source, Datum *types, int ntypes)
{
	const Leaf *leaf = source->leaf;
	bool		isnull;
	Datum		type;

	if (types == NULL)
		return true;
	type = slot_getattr(source->slot, leaf->columns[EVENT_TYPE], &isnull);
	for (int i = 0; i < ntypes && !isnull; i++)
	{
		if (DatumGetBool(DirectFunctionCall2Coll(texteq, leaf->type_collation,
												 type, types[i])))
			return true;
	}
	return false;
}

/* Is the event of the tenant that the store is restricted to? */
static bool
is_mine(const Merge *merge, Source *source)
{
	uint32 tenant = merge->scan->store->tenant_number;
	bool   isnull;

	return tenant == 0 ||
		   rf_tenancy_is(tenant, slot_getattr(source->slot,
											  source->leaf->columns[TENANT_ID],
											  &isnull));
}

/* The elements of an array, but for nulls, which are equal to nothing. */
static Datum *
elements_of(ArrayType *array, int *count)
{
	Datum *elements;
	bool  *nulls;
	int	   all;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements,
					  &nulls, &all);
	*count = 0;
	for (int i = 0; i < all; i++)
	{
		if (!nulls[i])
			elements[(*count)++] = elements[i];
	}
	return elements;
}

static void
find_sources(Merge *merge, Tier **read, int nread)
{
	for (int i = 0; i < nread; i++)
	{
		for (int j = 0; j < read[i]->nleaves; j++)
		{
			Leaf *leaf = &read[i]->leaves[j];
			int64 next;

			if (!may_hold(merge, leaf, merge->scan->after, &next))
				continue;
			binaryheap_add_unordered(merge->heap,
									 PointerGetDatum(add_source(merge, leaf)));
			merge->sources[merge->nsources - 1].next = next;
		}
	}
	binaryheap_build(merge->heap);
}

static bool
merge_all(Merge *merge, ArrayType *event_types)
{
	int64		limit = merge->scan->limit;
	int			ntypes = 0;
	Datum	   *types = event_types == NULL ? NULL :
											  elements_of(event_types, &ntypes);
	ScanKeyData key;
	Source	   *source;

	if (types != NULL && ntypes == 0)
		return true;
	ScanKeyInit(&key, 1, BTGreaterStrategyNumber, F_INT8GT,
				Int64GetDatum(merge->scan->after));
	while (limit > 0 && (source = first_source(merge)) != NULL &&
		   source->next <= merge->scan->upto)
	{
		if (source->scan == NULL)
		{
			if (!open_source(merge, source))
				return false;
			index_rescan(source->scan, &key, 1, NULL, 0);
		}
		else if (is_mine(merge, source) && is_of_types(source, types, ntypes))
		{
			put_row(merge, source);
			merge->last = source->next;
			if (--limit == 0)
				break;
		}
		advance_first(merge, source);
	}
	return true;
}

/* Put out the events of the tiers in a range, in order of global_seq. */
bool
rf_scan_all(RfScan *scan, ArrayType *event_types)
{
	Merge merge;
	Tier *read[MAX_TIERS];
	int	  nread;
	bool  result;

	if (!begin_merge(&merge, scan, GLOBAL_SEQ, false, read, &nread))
		return false;
	find_sources(&merge, read, nread);
	merge.last = PG_INT64_MIN;
	result = merge_all(&merge, event_types);
	scan->last = merge.last;
	end_merge(&merge);
	return result;
}

/*
 * In order of stream_seq
 */

static bool
holds_months_of(const Leaf *leaf, const RfScanStream *stream)
{
	return !leaf->partition.is_default && leaf->partition.lower <= stream->to &&
		   stream->from < leaf->partition.upper;
}

/* Those leaves of a tier that are still to be named. */
typedef struct Span
{
	Tier *tier;
	int	  low;
	int	  high;
} Span;

static void
begin_span(Span *span, Tier *tier, const RfScanStream *stream)
{
	span->tier = tier;
	span->low = 0;
	span->high = tier->nleaves - 1;
	while (span->low <= span->high &&
		   !holds_months_of(&tier->leaves[span->low], stream))
		span->low++;
	while (span->low <= span->high &&
		   !holds_months_of(&tier->leaves[span->high], stream))
		span->high--;
}

/*
 * The leaves of the stream's months as sources: from both ends inward, of each
 * tier by turns.
 */
static void
find_months(Merge *merge, Tier **read, int nread, const RfScanStream *stream)
{
	Span spans[MAX_TIERS];
	bool from_end = stream->backward;
	int	 before;

	for (int i = 0; i < nread; i++)
		begin_span(&spans[i], read[i], stream);
	do
	{
		before = merge->nsources;
		for (int i = 0; i < nread; i++)
		{
			Span *span = &spans[i];

			if (span->low <= span->high)
				(void) add_source(merge,
								  &span->tier->leaves[from_end ? span->high-- :
																 span->low++]);
		}
		from_end = !from_end;
	} while (merge->nsources > before);
}

static void
find_defaults(Merge *merge, Tier **read, int nread)
{
	for (int i = 0; i < nread; i++)
	{
		for (int j = 0; j < read[i]->nleaves; j++)
		{
			if (read[i]->leaves[j].partition.is_default)
				(void) add_source(merge, &read[i]->leaves[j]);
		}
	}
}

/* Open a leaf at the stream's events in it, if there are any. */
static bool
open_stream(Merge *merge, Source *source, const RfScanStream *stream)
{
	int64		after = merge->scan->after;
	RfStreamId	id = {.uuid = stream->stream_id,
					  .tenant = merge->scan->store->tenant_number};
	int64		next;
	ScanKeyData keys[3];
	int			last = merge->nkeys - 1;

	if (!may_hold(merge, source->leaf, PG_INT64_MIN, &next))
		return true;
	if (!open_source(merge, source))
		return false;
	(void) rf_tenancy_leaf_keys(keys, &id, 1, 2);
	if (stream->backward)
		ScanKeyInit(&keys[last], last + 1, BTLessStrategyNumber, F_INT48LT,
					Int64GetDatum(after));
	else
		ScanKeyInit(&keys[last], last + 1, BTGreaterStrategyNumber, F_INT48GT,
					Int64GetDatum(after));
	keys[last].sk_subtype = INT8OID;
	index_rescan(source->scan, keys, merge->nkeys, NULL, 0);
	if (advance(merge, source))
		binaryheap_add(merge->heap, PointerGetDatum(source));
	return true;
}

static bool
merge_stream(Merge *merge, const RfScanStream *stream)
{
	int	  step = stream->backward ? -1 : 1;
	int64 last = stream->backward ? 1 : stream->head;
	int64 wanted = stream->backward ?
					   Min(merge->scan->after - 1, (int64) stream->head) :
					   Max(merge->scan->after + 1, 1);
	int	  opened = 0;

	for (int64 limit = merge->scan->limit; limit > 0; limit--)
	{
		Source *source = first_source(merge);

		while (opened < merge->nsources &&
			   (source == NULL || source->next != wanted) &&
			   step * wanted <= step * last)
		{
			if (!open_stream(merge, &merge->sources[opened++], stream))
				return false;
			source = first_source(merge);
		}
		if (source == NULL)
			break;
		put_row(merge, source);
		wanted = source->next + step;
		if (limit > 1)
			advance_first(merge, source);
	}
	return true;
}

/*
 * Put out the events of a stream after a number, in order of stream_seq; or
 * before it, backward.
 */
bool
rf_scan_stream(const RfScan *scan, const RfScanStream *stream)
{
	Merge merge;
	Tier *read[MAX_TIERS];
	int	  nread;
	bool  result;

	if (!begin_merge(&merge, scan, STREAM_SEQ, stream->backward, read, &nread))
		return false;
	find_months(&merge, read, nread, stream);
	find_defaults(&merge, read, nread);
	result = merge_stream(&merge, stream);
	end_merge(&merge);
	return result;
}

/* Hold the parents of the leaves as they are until the transaction ends. */
void
rf_scan_lock(const RfStore *store, bool archived)
{
	LockRelationOid(store->events, AccessShareLock);
	if (archived)
		LockRelationOid(store->events_archive, AccessShareLock);
	LockRelationOid(store->events_hot, AccessShareLock);
	if (archived)
		LockRelationOid(store->events_cold, AccessShareLock);
	/* seek.c wants it after the snapshot, also where no lock is new */
	AcceptInvalidationMessages();
}
