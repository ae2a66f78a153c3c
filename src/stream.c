/*-------------------------------------------------------------------------
 *
 * stream.c
 *	  Rows of rf_streams: state and head of a stream.
 *
 * The head, rf_streams.last_seq, is what makes an event's number unique: the
 * unique indexes stand on the leaves and know one month each.  Whoever adds
 * events raises the head, under the lock of the stream's row, and so is
 * ordered with every other appender, with marks and with moves that close.
 *
 * rf_append() raises a head before it writes rows (rf_stream_raise).  A raw
 * INSERT numbers its rows first (frame.c), and raises the heads of all its
 * streams at the end, by compare-and-set (rf_stream_compare_and_raise): where
 * another transaction has raised one since it was read, the statement fails.
 * Two statements of one number can therefore never both commit, whichever
 * months the rows are in.
 *
 * Every raw INSERT pays for that, so it is done on the heap where nothing
 * forbids it: the version of the row that was read is updated in place, which
 * the heap refuses when there is a newer one.  Then, as under REPEATABLE READ,
 * or where users have put triggers on rf_streams, the same is done by SQL.
 *
 * Locks: rf_streams rows, in ascending order of id.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/relscan.h"
#include "access/stratnum.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "query.h"
#include "store.h"
#include "stream.h"

/* columns of rf_streams */
#define STREAMS_STREAM_ID 1
#define STREAMS_LAST_SEQ 3
#define STREAMS_FIRST_EVENT_AT 4
#define STREAMS_LAST_EVENT_AT 5
#define STREAMS_ARCHIVED_AT 6
#define STREAMS_ARCHIVED_BY 7
#define STREAMS_ARCHIVE_REASON 8
#define STREAMS_RETENTION_CLASS 9
#define STREAMS_UPDATED_AT 11

/* CHECK constraints that what we write satisfies by itself */
#define OWN_CHECKS 2

/* Was the stream archived by a move, and not by a person? */
#define IS_CLOSED                   \
	"(archived_by = '" RF_CLOSED_BY \
	"' AND archive_reason = '" RF_CLOSED_REASON "')"

/* SET items that reopen a closed stream where the condition holds. */
#define REOPEN_IF(condition)                                    \
	"archived_at = CASE WHEN " condition " AND " IS_CLOSED      \
	" THEN NULL ELSE archived_at END,"                          \
	" archived_by = CASE WHEN " condition " AND " IS_CLOSED     \
	" THEN NULL ELSE archived_by END,"                          \
	" archive_reason = CASE WHEN " condition " AND " IS_CLOSED  \
	" THEN NULL ELSE archive_reason END,"                       \
	" retention_class = CASE WHEN " condition " AND " IS_CLOSED \
	" THEN 'hot' ELSE retention_class END"

static const RfStatement create_stream =
	{"INSERT INTO {streams} (stream_id) VALUES ($1)"
	 " ON CONFLICT (stream_id) DO NOTHING",
	 1,
	 {UUIDOID}};

static const RfStatement lock_stream = {
	"SELECT last_seq, archived_at IS NOT NULL, first_event_at, last_event_at, ctid"
	" FROM {streams} WHERE stream_id = $1 FOR NO KEY UPDATE",
	1,
	{UUIDOID}};

static const RfStatement raise_by =
	{"UPDATE {streams} SET last_seq = last_seq + $2,"
	 " first_event_at = least(first_event_at, $3),"
	 " last_event_at = greatest(last_event_at, $4),"
	 " updated_at = now(), " REOPEN_IF(
		 "$5") " WHERE stream_id = $1 AND last_seq <= 2147483647 - $2"
			   " RETURNING last_seq, archived_at IS NOT NULL",
	 5,
	 {UUIDOID, INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID, BOOLOID}};

static const RfStatement lower_by =
	{"UPDATE {streams} SET last_seq = last_seq - $2 WHERE stream_id = $1",
	 2,
	 {UUIDOID, INT4OID}};

/* only the versions that were read: what has changed since is left alone */
static const RfStatement close_streams =
	{"WITH free AS MATERIALIZED (SELECT stream_id AS id FROM {streams}"
	 " WHERE stream_id = ANY ($1) AND archived_at IS NULL"
	 " AND ctid = ANY ($2) ORDER BY stream_id FOR NO KEY UPDATE SKIP LOCKED)"
	 " UPDATE {streams} SET archived_at = now(),"
	 " archived_by = '" RF_CLOSED_BY "',"
	 " archive_reason = '" RF_CLOSED_REASON "',"
	 " retention_class = 'cold', updated_at = now()"
	 " FROM free WHERE stream_id = id RETURNING stream_id",
	 2,
	 {UUIDARRAYOID, TIDARRAYOID}};

static const RfStatement raise_one =
	{"UPDATE {streams} SET last_seq = $3,"
	 " first_event_at = least(first_event_at, $4),"
	 " last_event_at = greatest(last_event_at, $5),"
	 " updated_at = now(), " REOPEN_IF(
		 "$7") " WHERE stream_id = $1 AND last_seq = $2"
			   " AND ($6 IS NULL OR $6 = (archived_at IS NOT NULL))",
	 7,
	 {UUIDOID, INT4OID, INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID, BOOLOID,
	  BOOLOID}};

static const RfStatement create_many =
	{"INSERT INTO {streams} AS s"
	 " (stream_id, last_seq, first_event_at, last_event_at)"
	 " SELECT w.id, w.head, w.first, w.last"
	 " FROM unnest($1, $2, $3, $4) AS w(id, head, first, last)"
	 " ON CONFLICT (stream_id) DO UPDATE SET last_seq = excluded.last_seq,"
	 " first_event_at = excluded.first_event_at,"
	 " last_event_at = excluded.last_event_at, updated_at = now()"
	 " WHERE s.last_seq = 0 AND s.archived_at IS NULL RETURNING stream_id",
	 4,
	 {UUIDARRAYOID, INT4ARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID}};

/*
 * State
 */

static TimestampTz
time_or(Datum value, bool isnull, TimestampTz otherwise)
{
	return isnull ? otherwise : DatumGetTimestampTz(value);
}

/* Of a stream that is not there. */
static void
set_no_state(RfStreamState *state)
{
	memset(state, 0, sizeof(*state));
	state->first_event_at = DT_NOEND;
	state->last_event_at = DT_NOBEGIN;
}

static void
take_state(const Datum *values, const bool *nulls, RfStreamState *state)
{
	state->exists = true;
	state->last_seq = DatumGetInt32(values[STREAMS_LAST_SEQ - 1]);
	state->first_event_at = time_or(values[STREAMS_FIRST_EVENT_AT - 1],
									nulls[STREAMS_FIRST_EVENT_AT - 1],
									DT_NOEND);
	state->last_event_at = time_or(values[STREAMS_LAST_EVENT_AT - 1],
								   nulls[STREAMS_LAST_EVENT_AT - 1],
								   DT_NOBEGIN);
	state->archived = !nulls[STREAMS_ARCHIVED_AT - 1];
}

/*
 * Read rows of streams without a lock, one after the other.  By index scan,
 * not by query: every raw INSERT and every batch of a move pay for this.
 */
void
rf_stream_begin_read(RfStreamReader *reader, RfStore *store, Snapshot snapshot)
{
	reader->rel = table_open(store->streams, AccessShareLock);
	reader->index = index_open(store->streams_pkey, AccessShareLock);
	reader->scan = rf_compat_index_beginscan(reader->rel, reader->index,
											 snapshot, 1);
	reader->slot = table_slot_create(reader->rel, NULL);
}

void
rf_stream_read_next(RfStreamReader *reader, const pg_uuid_t *id,
					RfStreamState *state)
{
	ScanKeyData key;
	bool		isnull;

	set_no_state(state);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(id));
	index_rescan(reader->scan, &key, 1, NULL, 0);
	if (!index_getnext_slot(reader->scan, ForwardScanDirection, reader->slot))
		return;
	slot_getsomeattrs(reader->slot, STREAMS_ARCHIVED_AT);
	take_state(reader->slot->tts_values, reader->slot->tts_isnull, state);
	state->tid = reader->slot->tts_tid;
	state->xmin = DatumGetTransactionId(
		slot_getsysattr(reader->slot, MinTransactionIdAttributeNumber,
						&isnull));
}

void
rf_stream_end_read(RfStreamReader *reader)
{
	ExecDropSingleTupleTableSlot(reader->slot);
	index_endscan(reader->scan);
	index_close(reader->index, AccessShareLock);
	table_close(reader->rel, AccessShareLock);
}

/* Read the row of one stream. */
void
rf_stream_read(RfStore *store, const pg_uuid_t *id, Snapshot snapshot,
			   RfStreamState *state)
{
	RfStreamReader reader;

	rf_stream_begin_read(&reader, store, snapshot);
	rf_stream_read_next(&reader, id, state);
	rf_stream_end_read(&reader);
}

static bool
is_row_of(HeapTuple tuple, TupleDesc tupdesc, const pg_uuid_t *id)
{
	bool  isnull;
	Datum value = heap_getattr(tuple, STREAMS_STREAM_ID, tupdesc, &isnull);

	return !isnull && rf_uuid_equal(DatumGetUUIDP(value), id);
}

/*
 * Places
 *
 * Where the index of rf_streams says that rows are, of streams that this
 * backend appends to.  The place of a row stays the same while its updates
 * find room on its page.  A version that a snapshot shows there, and that
 * bears the id, is the stream's row: the primary key allows no other.  That is
 * all that is relied on, and so a place is never wrong, only out of date,
 * whatever becomes of the table: then it is empty, shows nothing, or shows
 * another stream.
 */

#define MAX_PLACES 8192

typedef struct Place
{
	pg_uuid_t		stream_id; /* hash key */
	ItemPointerData tid;
} Place;

static HTAB *places = NULL;

static void
remember_place(const pg_uuid_t *id, ItemPointer tid)
{
	Place *place;

	if (places != NULL && hash_get_num_entries(places) >= MAX_PLACES)
	{
		hash_destroy(places);
		places = NULL;
	}
	if (places == NULL)
	{
		HASHCTL ctl = {0};

		ctl.keysize = UUID_LEN;
		ctl.entrysize = sizeof(Place);
		places = hash_create("Rillflow places of streams", 64, &ctl,
							 HASH_ELEM | HASH_BLOBS);
	}
	place = hash_search(places, id, HASH_ENTER, NULL);
	place->tid = *tid;
}

static void
deform_state(HeapTuple tuple, TupleDesc tupdesc, RfStreamState *state)
{
	Datum values[STREAMS_ARCHIVED_AT];
	bool  nulls[STREAMS_ARCHIVED_AT];

	for (int i = STREAMS_LAST_SEQ; i <= STREAMS_ARCHIVED_AT; i++)
		values[i - 1] = heap_getattr(tuple, i, tupdesc, &nulls[i - 1]);
	take_state(values, nulls, state);
	state->tid = tuple->t_self;
	state->xmin = HeapTupleHeaderGetRawXmin(tuple->t_data);
}

/* What came of a look at a place. */
typedef enum Look
{
	LOOK_FOUND,
	LOOK_NOT_HERE,
	LOOK_BY_SCAN /* an ordinary scan is to look */
} Look;

/*
 * Look for a stream's row at a place.  An index scan would prune the page for
 * nearly each update that was made to it, since the fillfactor leaves room; so
 * that is left to an index scan only once the page is crowded, in time for the
 * next update to find room on it.
 */
static Look
look_at(Relation rel, const ItemPointerData *place, const pg_uuid_t *id,
		Snapshot snapshot, RfStreamState *state)
{
	ItemPointerData tid = *place;
	Buffer			buffer = ReadBuffer(rel, ItemPointerGetBlockNumber(&tid));
	HeapTupleData	tuple;
	Look			result = LOOK_NOT_HERE;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	if (heap_hot_search_buffer(&tid, rel, buffer, snapshot, &tuple, NULL,
							   true) &&
		is_row_of(&tuple, RelationGetDescr(rel), id))
	{
		result = LOOK_BY_SCAN;
		if (PageGetHeapFreeSpace(BufferGetPage(buffer)) >= 2 * tuple.t_len)
		{
			deform_state(&tuple, RelationGetDescr(rel), state);
			result = LOOK_FOUND;
		}
	}
	UnlockReleaseBuffer(buffer);
	return result;
}

/* Look where the row was the last time. */
static Look
look_again(Relation rel, const pg_uuid_t *id, Snapshot snapshot,
		   RfStreamState *state)
{
	Place *place = places == NULL ? NULL :
									hash_search(places, id, HASH_FIND, NULL);

	/* the table may have become shorter */
	if (place == NULL || ItemPointerGetBlockNumber(&place->tid) >=
							 RelationGetNumberOfBlocks(rel))
		return LOOK_NOT_HERE;
	return look_at(rel, &place->tid, id, snapshot, state);
}

/* Look where the index says. */
static Look
look_up(RfStore *store, Relation rel, const pg_uuid_t *id, Snapshot snapshot,
		RfStreamState *state)
{
	Look		result = LOOK_NOT_HERE;
	ScanKeyData key;
	SysScanDesc scan;
	ItemPointer tid;

	ScanKeyInit(&key, STREAMS_STREAM_ID, BTEqualStrategyNumber, F_UUID_EQ,
				UUIDPGetDatum(id));
	scan = systable_beginscan(rel, store->streams_pkey, true, snapshot, 1,
							  &key);
	result = scan->irel == NULL ? LOOK_BY_SCAN : LOOK_NOT_HERE;
	while (result == LOOK_NOT_HERE &&
		   (tid = index_getnext_tid(scan->iscan, ForwardScanDirection)) != NULL)
	{
		result = look_at(rel, tid, id, snapshot, state);
		if (result == LOOK_FOUND)
			remember_place(id, tid);
	}
	systable_endscan(scan);
	return result;
}

/*
 * Read the row of one stream, as the snapshot shows it, at its place.  No gap
 * is locked where there is none: not for snapshots of serializable
 * transactions.
 */
static void
read_at_place(RfStore *store, const pg_uuid_t *id, Snapshot snapshot,
			  RfStreamState *state)
{
	Relation rel = table_open(store->streams, AccessShareLock);
	Look	 look = LOOK_BY_SCAN;

	if (rel->rd_rel->relam == HEAP_TABLE_AM_OID)
	{
		look = look_again(rel, id, snapshot, state);
		if (look == LOOK_NOT_HERE)
			look = look_up(store, rel, id, snapshot, state);
	}
	if (look == LOOK_NOT_HERE)
		set_no_state(state);
	else if (look == LOOK_BY_SCAN)
		rf_stream_read(store, id, snapshot, state);
	table_close(rel, AccessShareLock);
}

/*
 * The row as it is now, whatever the isolation level.  Every INSERT pays for
 * this.
 */
void
rf_stream_read_latest(RfStore *store, const pg_uuid_t *id, RfStreamState *state)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());

	read_at_place(store, id, snapshot, state);
	UnregisterSnapshot(snapshot);
}

/* The row as the active snapshot shows it.  Every read of a stream does this.
 */
void
rf_stream_read_active(RfStore *store, const pg_uuid_t *id, RfStreamState *state)
{
	if (IsolationIsSerializable())
		rf_stream_read(store, id, GetActiveSnapshot(), state);
	else
		read_at_place(store, id, GetActiveSnapshot(), state);
}

static void
lock_by_query(RfStore *store, const pg_uuid_t *id, RfStreamState *state)
{
	RfScope scope;
	Datum	value = UUIDPGetDatum(id);
	bool	isnull;

	rf_query_begin(&scope, store->owner, 0);
	if (rf_query_run(rf_store_plan(store, &lock_stream), &value, NULL) == 0)
	{
		rf_query_run(rf_store_plan(store, &create_stream), &value, NULL);
		if (rf_query_run(rf_store_plan(store, &lock_stream), &value, NULL) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("stream %s was changed by another transaction",
							rf_query_uuid_text(id)),
					 errhint("Run the transaction again.")));
	}
	state->exists = true;
	state->tid = *(ItemPointer) DatumGetPointer(rf_query_must(0, 5));
	state->last_seq = DatumGetInt32(rf_query_must(0, 1));
	state->archived = DatumGetBool(rf_query_must(0, 2));
	value = rf_query_value(0, 3, &isnull);
	state->first_event_at = time_or(value, isnull, DT_NOEND);
	value = rf_query_value(0, 4, &isnull);
	state->last_event_at = time_or(value, isnull, DT_NOBEGIN);
	rf_query_end(&scope);
}

/*
 * Rows on the heap
 */

/* What it takes to update rows of rf_streams on the heap. */
typedef struct HeapWriter
{
	MemoryContext	context; /* what is opened lives there */
	Relation		rel;
	TupleTableSlot *old;
	TupleTableSlot *new;
	EState		  *estate;
	ResultRelInfo *result; /* opened for the first that needs indexes */
} HeapWriter;

/* May rows be updated without the executor's triggers and checks? */
static bool
heap_suffices(Relation rel)
{
	TriggerDesc *triggers = rel->trigdesc;
	TupleDesc	 tupdesc = RelationGetDescr(rel);

	if (IsolationUsesXactSnapshot() || rel->rd_rules != NULL ||
		rel->rd_rel->relkind != RELKIND_RELATION)
		return false;
	if (tupdesc->constr != NULL && (tupdesc->constr->has_generated_stored ||
									tupdesc->constr->num_check > OWN_CHECKS))
		return false;
	return triggers == NULL || !(triggers->trig_update_before_row ||
								 triggers->trig_update_after_row ||
								 triggers->trig_update_before_statement ||
								 triggers->trig_update_after_statement);
}

static bool
text_is(TupleTableSlot *slot, AttrNumber column, const char *value)
{
	text *found;

	if (slot->tts_isnull[column - 1])
		return false;
	found = DatumGetTextPP(slot->tts_values[column - 1]);
	return VARSIZE_ANY_EXHDR(found) == strlen(value) &&
		   memcmp(VARDATA_ANY(found), value, strlen(value)) == 0;
}

/* Was the stream archived by a move? */
static bool
is_closed(TupleTableSlot *slot)
{
	return text_is(slot, STREAMS_ARCHIVED_BY, RF_CLOSED_BY) &&
		   text_is(slot, STREAMS_ARCHIVE_REASON, RF_CLOSED_REASON);
}

static void
set_column(TupleTableSlot *slot, AttrNumber column, Datum value)
{
	slot->tts_values[column - 1] = value;
	slot->tts_isnull[column - 1] = false;
}

/* Is it the version that was read, of a stream that is as it is relied on? */
static bool
is_version_read(TupleTableSlot *slot, const RfRaise *raise)
{
	bool archived = !slot->tts_isnull[STREAMS_ARCHIVED_AT - 1];

	return !slot->tts_isnull[STREAMS_STREAM_ID - 1] &&
		   rf_uuid_equal(DatumGetUUIDP(slot->tts_values[STREAMS_STREAM_ID - 1]),
						 &raise->stream_id) &&
		   DatumGetInt32(slot->tts_values[STREAMS_LAST_SEQ - 1]) ==
			   raise->base &&
		   (raise->expected == RF_EXPECT_NOTHING ||
			archived == (raise->expected == RF_EXPECT_ARCHIVED));
}

static void
copy_version(HeapWriter *writer)
{
	int natts = writer->old->tts_tupleDescriptor->natts;

	ExecClearTuple(writer->new);
	memcpy(writer->new->tts_values, writer->old->tts_values,
		   sizeof(Datum) * natts);
	memcpy(writer->new->tts_isnull, writer->old->tts_isnull,
		   sizeof(bool) * natts);
	set_column(writer->new, STREAMS_UPDATED_AT,
			   TimestampTzGetDatum(GetCurrentTransactionStartTimestamp()));
}

/* The new version of a row, as raise_one would make it. */
static void
fill_new_version(HeapWriter *writer, const RfRaise *raise)
{
	TupleTableSlot *old = writer->old;
	TupleTableSlot *new = writer->new;
	TimestampTz first = raise->first;
	TimestampTz last = raise->last;

	copy_version(writer);
	if (!old->tts_isnull[STREAMS_FIRST_EVENT_AT - 1])
		first = Min(first, DatumGetTimestampTz(
							   old->tts_values[STREAMS_FIRST_EVENT_AT - 1]));
	if (!old->tts_isnull[STREAMS_LAST_EVENT_AT - 1])
		last = Max(last, DatumGetTimestampTz(
							 old->tts_values[STREAMS_LAST_EVENT_AT - 1]));
	set_column(new, STREAMS_LAST_SEQ, Int32GetDatum(raise->head));
	set_column(new, STREAMS_FIRST_EVENT_AT, TimestampTzGetDatum(first));
	set_column(new, STREAMS_LAST_EVENT_AT, TimestampTzGetDatum(last));
	if (raise->reopens && is_closed(old))
	{
		new->tts_isnull[STREAMS_ARCHIVED_AT - 1] = true;
		new->tts_isnull[STREAMS_ARCHIVED_BY - 1] = true;
		new->tts_isnull[STREAMS_ARCHIVE_REASON - 1] = true;
		set_column(new, STREAMS_RETENTION_CLASS, CStringGetTextDatum("hot"));
	}
	ExecStoreVirtualTuple(new);
}

/* The row moved to another page: its indexes have to know. */
static void
insert_index_entries(HeapWriter *writer, TU_UpdateIndexes update_indexes)
{
	if (writer->result == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(writer->context);

		writer->estate = CreateExecutorState();
		writer->result = makeNode(ResultRelInfo);
		InitResultRelInfo(writer->result, writer->rel, 0, NULL, 0);
		ExecOpenIndices(writer->result, false);
		MemoryContextSwitchTo(old);
	}
	rf_compat_insert_index_entries(writer->result, writer->new, writer->estate,
								   true, update_indexes);
	ResetPerTupleExprContext(writer->estate);
}

/*
 * Put the new version of the row in the place of the one at tid, waiting for
 * who holds it or not.
 */
static TM_Result
write_version(HeapWriter *writer, ItemPointer tid, bool wait)
{
	TU_UpdateIndexes update_indexes;
	TM_Result result = rf_compat_tuple_update(writer->rel, tid, writer->new,
											  wait, &update_indexes);

	if (result == TM_Ok && update_indexes != TU_None)
		insert_index_entries(writer, update_indexes);
	return result;
}

static bool
fetch_version(HeapWriter *writer, ItemPointer tid)
{
	if (!table_tuple_fetch_row_version(writer->rel, tid, SnapshotSelf,
									   writer->old))
		return false;
	slot_getallattrs(writer->old);
	return true;
}

/*
 * Update the version of a row that was read.  False when there is a newer
 * one, or none any more.
 */
static bool
raise_on_heap(HeapWriter *writer, RfRaise *raise)
{
	if (!fetch_version(writer, &raise->tid) ||
		!is_version_read(writer->old, raise))
		return false;
	fill_new_version(writer, raise);
	return write_version(writer, &raise->tid, true) == TM_Ok;
}

static void
begin_heap(HeapWriter *writer, Relation rel)
{
	memset(writer, 0, sizeof(*writer));
	writer->context = CurrentMemoryContext;
	writer->rel = rel;
	writer->old = table_slot_create(rel, NULL);
	writer->new = table_slot_create(rel, NULL);
}

static void
end_heap(HeapWriter *writer)
{
	if (writer->result != NULL)
	{
		ExecCloseIndices(writer->result);
		FreeExecutorState(writer->estate);
	}
	ExecDropSingleTupleTableSlot(writer->old);
	ExecDropSingleTupleTableSlot(writer->new);
}

/* Lock the newest version of the row, whatever becomes of the one at tid. */
static bool
lock_newest(HeapWriter *writer, ItemPointer tid)
{
	TM_FailureData failure;

	if (table_tuple_lock(writer->rel, tid, SnapshotSelf, writer->old,
						 GetCurrentCommandId(false), LockTupleNoKeyExclusive,
						 LockWaitBlock, TUPLE_LOCK_FLAG_FIND_LAST_VERSION,
						 &failure) != TM_Ok)
		return false;
	slot_getallattrs(writer->old);
	*tid = writer->old->tts_tid;
	return true;
}

/* Lock a row that is there.  False when that takes a query. */
static bool
lock_on_heap(RfStore *store, const pg_uuid_t *id, RfStreamState *state)
{
	Relation   rel = table_open(store->streams, RowShareLock);
	bool	   locked = false;
	HeapWriter writer;

	if (!IsolationUsesXactSnapshot() &&
		rel->rd_rel->relkind == RELKIND_RELATION)
	{
		rf_stream_read_latest(store, id, state);
		begin_heap(&writer, rel);
		if (state->exists && lock_newest(&writer, &state->tid))
		{
			HeapTuple tuple = ExecFetchSlotHeapTuple(writer.old, false, NULL);

			locked = is_row_of(tuple, RelationGetDescr(rel), id);
			if (locked)
				deform_state(tuple, RelationGetDescr(rel), state);
		}
		end_heap(&writer);
	}
	table_close(rel, NoLock);
	return locked;
}

/* Lock a stream's row until the transaction ends; make it where it lacks. */
void
rf_stream_lock(RfStore *store, const pg_uuid_t *id, RfStreamState *state)
{
	if (!lock_on_heap(store, id, state))
		lock_by_query(store, id, state);
}

/*
 * The head, raised at once
 */

void
rf_stream_report_full(const pg_uuid_t *id)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("stream %s is full", rf_query_uuid_text(id)),
			 errdetail("A stream holds at most %d events.", PG_INT32_MAX)));
}

static void
require_room(RfStore *store, const pg_uuid_t *id, int32 by)
{
	RfStreamState state;

	rf_stream_read_latest(store, id, &state);
	if (state.exists && state.last_seq > PG_INT32_MAX - by)
		rf_stream_report_full(id);
}

static int32
raise_by_statement(RfStore *store, const pg_uuid_t *id, int32 by,
				   TimestampTz first, TimestampTz last, bool reopen,
				   bool *archived)
{
	RfScope scope;
	Datum	values[5];
	int32	head;

	values[0] = UUIDPGetDatum(id);
	values[1] = Int32GetDatum(by);
	values[2] = TimestampTzGetDatum(first);
	values[3] = TimestampTzGetDatum(last);
	values[4] = BoolGetDatum(reopen);
	rf_query_begin(&scope, store->owner, 0);
	if (rf_query_run(rf_store_plan(store, &raise_by), values, NULL) == 0)
	{
		rf_query_run(rf_store_plan(store, &create_stream), values, NULL);
		require_room(store, id, by);
		if (rf_query_run(rf_store_plan(store, &raise_by), values, NULL) == 0)
			ereport(
				ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the head of stream %s could not be raised",
						rf_query_uuid_text(id)),
				 errhint(
					 "Look for a trigger or a rule on \"rf_streams\" that skips rows.")));
	}
	head = DatumGetInt32(rf_query_must(0, 1));
	*archived = DatumGetBool(rf_query_must(0, 2));
	rf_query_end(&scope);
	return head;
}

static void
create_row(RfStore *store, const pg_uuid_t *id)
{
	RfScope scope;
	Datum	value = UUIDPGetDatum(id);

	rf_query_begin(&scope, store->owner, 0);
	rf_query_run(rf_store_plan(store, &create_stream), &value, NULL);
	rf_query_end(&scope);
}

/* Raise the version that writer->old shows by so many events. */
static bool
raise_version(HeapWriter *writer, RfRaise *raise, int32 by, bool *archived)
{
	TupleTableSlot *old = writer->old;

	raise->base = DatumGetInt32(old->tts_values[STREAMS_LAST_SEQ - 1]);
	if (raise->base > PG_INT32_MAX - by)
		rf_stream_report_full(&raise->stream_id);
	raise->head = raise->base + by;
	fill_new_version(writer, raise);
	*archived = !writer->new->tts_isnull[STREAMS_ARCHIVED_AT - 1];
	return write_version(writer, &raise->tid, true) == TM_Ok;
}

/*
 * Raise the head of a stream by so many events, and return the new head; the
 * stream's row stays locked until the transaction ends.  A stream that is not
 * there is made.  With reopen, a closed stream is open again afterwards.
 *
 * The version that was read is updated if it is still the newest; else the
 * newest is locked, which waits in line, and updated.
 */
int32
rf_stream_raise(RfStore *store, const pg_uuid_t *id, int32 by,
				TimestampTz first, TimestampTz last, bool reopen,
				bool *archived)
{
	Relation   rel = table_open(store->streams, RowExclusiveLock);
	RfRaise	   raise = {.stream_id = *id,
						.first = first,
						.last = last,
						.reopens = reopen};
	HeapWriter writer;
	bool	   raised = false;

	if (!heap_suffices(rel))
	{
		table_close(rel, NoLock);
		return raise_by_statement(store, id, by, first, last, reopen, archived);
	}
	begin_heap(&writer, rel);
	while (!raised)
	{
		RfStreamState state;

		CHECK_FOR_INTERRUPTS();
		rf_stream_read_latest(store, id, &state);
		if (!state.exists)
		{
			create_row(store, id);
			continue;
		}
		raise.tid = state.tid;
		raised = fetch_version(&writer, &raise.tid) &&
				 raise_version(&writer, &raise, by, archived);
		if (!raised && lock_newest(&writer, &raise.tid))
			raised = raise_version(&writer, &raise, by, archived);
	}
	end_heap(&writer);
	table_close(rel, NoLock);
	CommandCounterIncrement();
	return raise.head;
}

/* Take a raise of this transaction back, of which no number was used. */
void
rf_stream_lower(RfStore *store, const pg_uuid_t *id, int32 by)
{
	RfScope scope;
	Datum	values[2];

	values[0] = UUIDPGetDatum(id);
	values[1] = Int32GetDatum(by);
	rf_query_begin(&scope, store->owner, 0);
	rf_query_run(rf_store_plan(store, &lower_by), values, NULL);
	rf_query_end(&scope);
}

/*
 * Closing
 */

static int
compare_candidates(const void *a, const void *b)
{
	return memcmp(((const RfCandidate *) a)->stream_id.data,
				  ((const RfCandidate *) b)->stream_id.data, UUID_LEN);
}

static void
close_by_query(RfStore *store, RfCandidate *candidates, int count)
{
	Datum  *ids = palloc(sizeof(Datum) * count);
	Datum  *tids = palloc(sizeof(Datum) * count);
	Datum	values[2];
	RfScope scope;
	uint64	rows;

	for (int i = 0; i < count; i++)
	{
		ids[i] = UUIDPGetDatum(&candidates[i].stream_id);
		tids[i] = PointerGetDatum(&candidates[i].tid);
	}
	values[0] = PointerGetDatum(rf_query_array(ids, count, UUIDOID));
	values[1] = PointerGetDatum(rf_query_array(tids, count, TIDOID));
	rf_query_begin(&scope, store->owner, 0);
	rows = rf_query_run(rf_store_plan(store, &close_streams), values, NULL);
	for (uint64 row = 0; row < rows; row++)
	{
		RfCandidate	 key = {.stream_id = *DatumGetUUIDP(rf_query_must(row, 1))};
		RfCandidate *found = bsearch(&key, candidates, count,
									 sizeof(RfCandidate), compare_candidates);

		if (found != NULL)
			found->closed = true;
	}
	rf_query_end(&scope);
	pfree(ids);
}

static void
fill_closed_version(HeapWriter *writer)
{
	copy_version(writer);
	set_column(writer->new, STREAMS_ARCHIVED_AT,
			   TimestampTzGetDatum(GetCurrentTransactionStartTimestamp()));
	set_column(writer->new, STREAMS_ARCHIVED_BY,
			   CStringGetTextDatum(RF_CLOSED_BY));
	set_column(writer->new, STREAMS_ARCHIVE_REASON,
			   CStringGetTextDatum(RF_CLOSED_REASON));
	set_column(writer->new, STREAMS_RETENTION_CLASS,
			   CStringGetTextDatum("cold"));
	ExecStoreVirtualTuple(writer->new);
}

/*
 * Lock a version of the row if nobody but ourselves holds it: an update that
 * does not wait takes our own lock for somebody else's.
 */
static bool
lock_at_once(HeapWriter *writer, ItemPointer tid)
{
	TM_FailureData failure;

	return table_tuple_lock(writer->rel, tid, SnapshotSelf, writer->old,
							GetCurrentCommandId(false), LockTupleNoKeyExclusive,
							LockWaitSkip, 0, &failure) == TM_Ok;
}

/* Close a stream, unless its row has changed or somebody holds it. */
static bool
close_on_heap(HeapWriter *writer, RfCandidate *candidate)
{
	TupleTableSlot *old = writer->old;
	TM_Result		result;

	if (!fetch_version(writer, &candidate->tid) ||
		old->tts_isnull[STREAMS_STREAM_ID - 1] ||
		!rf_uuid_equal(DatumGetUUIDP(old->tts_values[STREAMS_STREAM_ID - 1]),
					   &candidate->stream_id) ||
		!old->tts_isnull[STREAMS_ARCHIVED_AT - 1])
		return false;
	fill_closed_version(writer);
	result = write_version(writer, &candidate->tid, false);
	if (result == TM_BeingModified && lock_at_once(writer, &candidate->tid))
		result = write_version(writer, &candidate->tid, true);
	return result == TM_Ok;
}

/*
 * Archive streams that had no hot event left when their rows were read.  An
 * event that came since has raised the head, and so has made a new version of
 * the row: then, and where somebody holds it, the stream stays as it is.
 */
void
rf_stream_close(RfStore *store, RfCandidate *candidates, int count)
{
	Relation   rel = table_open(store->streams, RowExclusiveLock);
	HeapWriter writer;

	qsort(candidates, count, sizeof(RfCandidate), compare_candidates);
	if (!heap_suffices(rel))
		close_by_query(store, candidates, count);
	else
	{
		MemoryContext old = CurrentMemoryContext;
		MemoryContext context = AllocSetContextCreate(old, "Rillflow closing",
													  ALLOCSET_SMALL_SIZES);

		begin_heap(&writer, rel);
		for (int i = 0; i < count; i++)
		{
			CHECK_FOR_INTERRUPTS();
			MemoryContextSwitchTo(context);
			candidates[i].closed = close_on_heap(&writer, &candidates[i]);
			MemoryContextSwitchTo(old);
			MemoryContextReset(context);
		}
		end_heap(&writer);
		MemoryContextDelete(context);
		CommandCounterIncrement();
	}
	table_close(rel, NoLock);
}

/*
 * The heads of a statement, raised by compare-and-set
 */

/* The number is lower than the stream's head, and no leaf here holds it. */
void
rf_stream_report_taken(const pg_uuid_t *id, int32 number, int32 last_seq)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_UNIQUE_VIOLATION),
		 errmsg("event %d of stream %s exists already", number,
				rf_query_uuid_text(id)),
		 errdetail("The stream's last_seq is %d.", last_seq),
		 errhint(
			 "Insert number last_seq + 1 of rf_streams, or leave stream_seq out.")));
}

/* Another transaction came first: say what it did. */
static void
report_unraised(RfStore *store, const RfRaise *raise)
{
	RfStreamState state;

	rf_stream_read_latest(store, &raise->stream_id, &state);
	if (state.exists && state.last_seq > raise->base)
		rf_stream_report_taken(&raise->stream_id, raise->base + 1,
							   state.last_seq);
	ereport(
		ERROR,
		(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
		 errmsg(
			 "stream %s was archived, reactivated or removed while events were inserted",
			 rf_query_uuid_text(&raise->stream_id)),
		 errhint("Run the transaction again.")));
}

static void
raise_by_query(RfStore *store, const RfRaise *raise)
{
	RfScope scope;
	Datum	values[7];
	char	nulls[7] = {' ', ' ', ' ', ' ', ' ', ' ', ' '};

	values[0] = UUIDPGetDatum(&raise->stream_id);
	values[1] = Int32GetDatum(raise->base);
	values[2] = Int32GetDatum(raise->head);
	values[3] = TimestampTzGetDatum(raise->first);
	values[4] = TimestampTzGetDatum(raise->last);
	values[5] = BoolGetDatum(raise->expected == RF_EXPECT_ARCHIVED);
	nulls[5] = raise->expected == RF_EXPECT_NOTHING ? 'n' : ' ';
	values[6] = BoolGetDatum(raise->reopens);
	rf_query_begin(&scope, store->owner, 0);
	if (rf_query_run(rf_store_plan(store, &raise_one), values, nulls) != 1)
		report_unraised(store, raise);
	rf_query_end(&scope);
}

static void
raise_existing(RfStore *store, RfRaise *raises, int count)
{
	Relation   rel = table_open(store->streams, RowExclusiveLock);
	bool	   on_heap = heap_suffices(rel);
	HeapWriter writer;

	begin_heap(&writer, rel);
	for (int i = 0; i < count; i++)
	{
		if (!raises[i].exists)
			continue;
		if (!on_heap || !raise_on_heap(&writer, &raises[i]))
			raise_by_query(store, &raises[i]);
	}
	end_heap(&writer);
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

static int
compare_raises(const void *a, const void *b)
{
	return memcmp(((const RfRaise *) a)->stream_id.data,
				  ((const RfRaise *) b)->stream_id.data, UUID_LEN);
}

/* Report the first new stream that is not among those the query has made. */
static void
report_not_made(RfStore *store, const RfRaise *raises, int count)
{
	bool  *made = palloc0(count);
	uint64 rows = rf_query_rows();

	for (uint64 row = 0; row < rows; row++)
	{
		RfRaise key = {.stream_id = *DatumGetUUIDP(rf_query_must(row, 1))};
		const RfRaise *found = bsearch(&key, raises, count, sizeof(RfRaise),
									   compare_raises);

		if (found != NULL)
			made[found - raises] = true;
	}
	for (int i = 0; i < count; i++)
	{
		if (!raises[i].exists && !made[i])
			report_unraised(store, &raises[i]);
	}
	elog(ERROR, "fewer streams were made than rows returned");
}

static void
raise_new(RfStore *store, const RfRaise *raises, int count, int nnew)
{
	RfScope scope;
	Datum  *ids = palloc(sizeof(Datum) * nnew);
	Datum  *heads = palloc(sizeof(Datum) * nnew);
	Datum  *firsts = palloc(sizeof(Datum) * nnew);
	Datum  *lasts = palloc(sizeof(Datum) * nnew);
	Datum	values[4];
	int		n = 0;

	for (int i = 0; i < count; i++)
	{
		if (raises[i].exists)
			continue;
		ids[n] = UUIDPGetDatum(&raises[i].stream_id);
		heads[n] = Int32GetDatum(raises[i].head);
		firsts[n] = TimestampTzGetDatum(raises[i].first);
		lasts[n++] = TimestampTzGetDatum(raises[i].last);
	}
	values[0] = PointerGetDatum(rf_query_array(ids, n, UUIDOID));
	values[1] = PointerGetDatum(rf_query_array(heads, n, INT4OID));
	values[2] = PointerGetDatum(rf_query_array(firsts, n, TIMESTAMPTZOID));
	values[3] = PointerGetDatum(rf_query_array(lasts, n, TIMESTAMPTZOID));
	rf_query_begin(&scope, store->owner, 0);
	if (rf_query_run(rf_store_plan(store, &create_many), values, NULL) != nnew)
		report_not_made(store, raises, count);
	rf_query_end(&scope);
}

/*
 * Raise heads from what they were when they were read; they come in ascending
 * order of id.  Fails when one of them, or what it depends on, has changed.
 */
void
rf_stream_compare_and_raise(RfStore *store, RfRaise *raises, int count)
{
	int nnew = 0;

	for (int i = 0; i < count; i++)
		nnew += raises[i].exists ? 0 : 1;
	if (nnew < count)
		raise_existing(store, raises, count);
	if (nnew > 0)
		raise_new(store, raises, count, nnew);
}
