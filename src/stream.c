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
 * Locks: rf_streams rows, in ascending order of id; in a conjoined store, of
 * those of one id, in that of their tenants' names.
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
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "query.h"
#include "store.h"
#include "stream.h"
#include "tenancy.h"

/* columns of rf_streams */
#define STREAMS_STREAM_ID 1
#define STREAMS_TENANT_ID 2
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
#define OWN_CHECKS_CONJOINED 3

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
	{"INSERT INTO {streams} ({tenant_id,}stream_id) VALUES ({tenant,}$1)"
	 " ON CONFLICT ({tenant_id,}stream_id) DO NOTHING",
	 1,
	 {UUIDOID}};

static const RfStatement lock_stream = {
	"SELECT last_seq, archived_at IS NOT NULL, first_event_at, last_event_at, ctid"
	" FROM {streams} WHERE stream_id = $1{mine} FOR NO KEY UPDATE",
	1,
	{UUIDOID}};

static const RfStatement raise_by =
	{"UPDATE {streams} SET last_seq = last_seq + $2,"
	 " first_event_at = least(first_event_at, $3),"
	 " last_event_at = greatest(last_event_at, $4),"
	 " updated_at = now(), " REOPEN_IF(
		 "$5") " WHERE stream_id = $1{mine} AND last_seq <= 2147483647 - $2"
			   " RETURNING last_seq, archived_at IS NOT NULL",
	 5,
	 {UUIDOID, INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID, BOOLOID}};

static const RfStatement lower_by =
	{"UPDATE {streams} SET last_seq = last_seq - $2"
	 " WHERE stream_id = $1{mine}",
	 2,
	 {UUIDOID, INT4OID}};

/* only the versions that were read: what has changed since is left alone */
static const RfStatement close_streams =
	{"WITH free AS MATERIALIZED (SELECT stream_id{,tenant_id} FROM {streams}"
	 " WHERE stream_id = ANY ($1) AND archived_at IS NULL"
	 " AND ctid = ANY ($2)"
	 " ORDER BY stream_id{,tenant_id} FOR NO KEY UPDATE SKIP LOCKED)"
	 " UPDATE {streams} AS s SET archived_at = now(),"
	 " archived_by = '" RF_CLOSED_BY "',"
	 " archive_reason = '" RF_CLOSED_REASON "',"
	 " retention_class = 'cold', updated_at = now()"
	 " FROM free AS f WHERE s.stream_id = f.stream_id{same s f}"
	 " RETURNING s.stream_id, {owner s}",
	 2,
	 {UUIDARRAYOID, TIDARRAYOID}};

static const RfStatement raise_one =
	{"UPDATE {streams} SET last_seq = $3,"
	 " first_event_at = least(first_event_at, $4),"
	 " last_event_at = greatest(last_event_at, $5),"
	 " updated_at = now(), " REOPEN_IF(
		 "$7") " WHERE stream_id = $1{mine} AND last_seq = $2"
			   " AND ($6 IS NULL OR $6 = (archived_at IS NOT NULL))",
	 7,
	 {UUIDOID, INT4OID, INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID, BOOLOID,
	  BOOLOID}};

static const RfStatement create_many = {
	"INSERT INTO {streams} AS s"
	" (stream_id, last_seq, first_event_at, last_event_at{,tenant_id})"
	" SELECT w.id, w.head, w.first, w.last{,tenant_id}"
	" FROM unnest($1, $2, $3, $4, $5)"
	" AS w(id, head, first, last, tenant_id)"
	" ON CONFLICT ({tenant_id,}stream_id) DO UPDATE SET last_seq = excluded.last_seq,"
	" first_event_at = excluded.first_event_at,"
	" last_event_at = excluded.last_event_at, updated_at = now()"
	" WHERE s.last_seq = 0 AND s.archived_at IS NULL"
	" RETURNING s.stream_id, {owner s}",
	5,
	{UUIDARRAYOID, INT4ARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID,
	 TEXTARRAYOID}};

/*
 * State
 */

/* The stream that an id means. */
RfStreamId
rf_stream_of(const RfStore *store, const pg_uuid_t *id)
{
	RfStreamId stream = {.uuid = *id, .tenant = store->tenant_number};

	Assert(stream.tenant != 0 || !store->conjoined);
	return stream;
}

/* The stream that a row of a result is of: its id, and its tenant after it. */
RfStreamId
rf_stream_in_row(uint64 row)
{
	RfStreamId stream = {.uuid = *DatumGetUUIDP(rf_query_must(row, 1))};
	bool	   isnull;
	Datum	   tenant = rf_query_value(row, 2, &isnull);

	if (!isnull)
		stream.tenant = rf_tenancy_number_of(tenant);
	return stream;
}

/* Streams as SQL has them: their ids, and their tenants, which may be null. */
RfStreamId *
rf_stream_of_arrays(Datum ids, Datum tenants, int *count)
{
	Datum	   *uuids;
	Datum	   *names;
	bool	   *nulls;
	int			nnames;
	RfStreamId *result;

	deconstruct_array(DatumGetArrayTypeP(ids), UUIDOID, UUID_LEN, false,
					  TYPALIGN_CHAR, &uuids, NULL, count);
	deconstruct_array(DatumGetArrayTypeP(tenants), TEXTOID, -1, false,
					  TYPALIGN_INT, &names, &nulls, &nnames);
	Assert(nnames == *count);
	result = palloc0(sizeof(RfStreamId) * Max(*count, 1));
	for (int i = 0; i < *count; i++)
	{
		result[i].uuid = *DatumGetUUIDP(uuids[i]);
		if (!nulls[i])
			result[i].tenant = rf_tenancy_number_of(names[i]);
	}
	return result;
}

/* The same the other way round; in a single store there are no tenants. */
void
rf_stream_make_arrays(const RfStore *store, const RfStreamId *streams,
					  int count, Datum *values)
{
	Datum *uuids = palloc(sizeof(Datum) * count);
	Datum *names = palloc(sizeof(Datum) * count);

	for (int i = 0; i < count; i++)
	{
		uuids[i] = UUIDPGetDatum(&streams[i].uuid);
		if (store->conjoined)
			names[i] = rf_tenancy_datum(streams[i].tenant);
	}
	values[0] = PointerGetDatum(rf_query_array(uuids, count, UUIDOID));
	values[1] = PointerGetDatum(
		rf_query_array(names, store->conjoined ? count : 0, TEXTOID));
	pfree(uuids);
	pfree(names);
}

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
											 snapshot,
											 store->conjoined ? 2 : 1);
	reader->conjoined = store->conjoined;
	reader->slot = table_slot_create(reader->rel, NULL);
}

void
rf_stream_read_next(RfStreamReader *reader, const RfStreamId *stream,
					RfStreamState *state)
{
	ScanKeyData keys[2];
	bool		isnull;

	Assert(reader->conjoined == (stream->tenant != 0));
	set_no_state(state);
	index_rescan(reader->scan, keys,
				 rf_tenancy_keys(keys, stream, 1, reader->conjoined ? 2 : 1),
				 NULL, 0);
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

/*
 * How many streams of the store are active, and how many archived, of whatever
 * tenants.  Read without a plan, which for most stores takes longer to make,
 * but as a statement would: what it sees, and the error where row security
 * would hide a row.
 */
void
rf_stream_count(const RfStore *store, int64 *active, int64 *archived)
{
	Relation		rel = table_open(store->streams, AccessShareLock);
	Snapshot		snapshot = RegisterSnapshot(GetTransactionSnapshot());
	TableScanDesc	scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);

	(void) check_enable_rls(store->streams, InvalidOid, false);
	*active = *archived = 0;
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		if (slot_attisnull(slot, STREAMS_ARCHIVED_AT))
			(*active)++;
		else
			(*archived)++;
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
}

/* Read the row of one stream. */
void
rf_stream_read(RfStore *store, const pg_uuid_t *id, Snapshot snapshot,
			   RfStreamState *state)
{
	RfStreamId	   stream = rf_stream_of(store, id);
	RfStreamReader reader;

	rf_stream_begin_read(&reader, store, snapshot);
	rf_stream_read_next(&reader, &stream, state);
	rf_stream_end_read(&reader);
}

/* They are part of the primary key, and so not null. */
static bool
is_row_of(const Datum *values, const RfStreamId *stream)
{
	return rf_uuid_equal(DatumGetUUIDP(values[STREAMS_STREAM_ID - 1]),
						 &stream->uuid) &&
		   (stream->tenant == 0 ||
			rf_tenancy_is(stream->tenant, values[STREAMS_TENANT_ID - 1]));
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
	RfStreamId		stream; /* hash key */
	ItemPointerData tid;
} Place;

static HTAB *places = NULL;

static void
remember_place(const RfStreamId *stream, ItemPointer tid)
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

		ctl.keysize = sizeof(RfStreamId);
		ctl.entrysize = sizeof(Place);
		places = hash_create("Rillflow places of streams", 64, &ctl,
							 HASH_ELEM | HASH_BLOBS);
	}
	place = hash_search(places, stream, HASH_ENTER, NULL);
	place->tid = *tid;
}

/* Take what a row says of a stream; false when it is the row of another. */
static bool
deform_state(HeapTuple tuple, TupleDesc tupdesc, const RfStreamId *stream,
			 RfStreamState *state)
{
	Datum values[MaxHeapAttributeNumber];
	bool  nulls[MaxHeapAttributeNumber];

	heap_deform_tuple(tuple, tupdesc, values, nulls);
	if (!is_row_of(values, stream))
		return false;
	take_state(values, nulls, state);
	state->tid = tuple->t_self;
	state->xmin = HeapTupleHeaderGetRawXmin(tuple->t_data);
	return true;
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
look_at(Relation rel, const ItemPointerData *place, const RfStreamId *stream,
		Snapshot snapshot, RfStreamState *state)
{
	ItemPointerData tid = *place;
	Buffer			buffer = ReadBuffer(rel, ItemPointerGetBlockNumber(&tid));
	HeapTupleData	tuple;
	Look			result = LOOK_NOT_HERE;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	if (heap_hot_search_buffer(&tid, rel, buffer, snapshot, &tuple, NULL,
							   true) &&
		deform_state(&tuple, RelationGetDescr(rel), stream, state))
		result = PageGetHeapFreeSpace(BufferGetPage(buffer)) >=
						 2 * tuple.t_len ?
					 LOOK_FOUND :
					 LOOK_BY_SCAN;
	UnlockReleaseBuffer(buffer);
	return result;
}

/* Look where the row was the last time. */
static Look
look_again(Relation rel, const RfStreamId *stream, Snapshot snapshot,
		   RfStreamState *state)
{
	Place *place = places == NULL ?
					   NULL :
					   hash_search(places, stream, HASH_FIND, NULL);

	/* the table may have become shorter */
	if (place == NULL || ItemPointerGetBlockNumber(&place->tid) >=
							 RelationGetNumberOfBlocks(rel))
		return LOOK_NOT_HERE;
	return look_at(rel, &place->tid, stream, snapshot, state);
}

/* Look where the index says. */
static Look
look_up(RfStore *store, Relation rel, const RfStreamId *stream,
		Snapshot snapshot, RfStreamState *state)
{
	Look		result = LOOK_NOT_HERE;
	ScanKeyData keys[2];
	int			nkeys = rf_tenancy_keys(keys, stream, STREAMS_TENANT_ID,
										STREAMS_STREAM_ID);
	SysScanDesc scan;
	ItemPointer tid;

	scan = systable_beginscan(rel, store->streams_pkey, true, snapshot, nkeys,
							  keys);
	result = scan->irel == NULL ? LOOK_BY_SCAN : LOOK_NOT_HERE;
	while (result == LOOK_NOT_HERE &&
		   (tid = index_getnext_tid(scan->iscan, ForwardScanDirection)) != NULL)
	{
		result = look_at(rel, tid, stream, snapshot, state);
		if (result == LOOK_FOUND)
			remember_place(stream, tid);
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
	Relation   rel = table_open(store->streams, AccessShareLock);
	RfStreamId stream = rf_stream_of(store, id);
	Look	   look = LOOK_BY_SCAN;

	if (rel->rd_rel->relam == HEAP_TABLE_AM_OID)
	{
		look = look_again(rel, &stream, snapshot, state);
		if (look == LOOK_NOT_HERE)
			look = look_up(store, rel, &stream, snapshot, state);
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
heap_suffices(const RfStore *store, Relation rel)
{
	TriggerDesc *triggers = rel->trigdesc;
	TupleDesc	 tupdesc = RelationGetDescr(rel);
	int own_checks = store->conjoined ? OWN_CHECKS_CONJOINED : OWN_CHECKS;

	if (IsolationUsesXactSnapshot() || rel->rd_rules != NULL ||
		rel->rd_rel->relkind != RELKIND_RELATION)
		return false;
	if (tupdesc->constr != NULL && (tupdesc->constr->has_generated_stored ||
									tupdesc->constr->num_check > own_checks))
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

/* Is it a version of the stream's row? */
static bool
is_version_of(TupleTableSlot *slot, const RfStreamId *stream)
{
	Datum *values = slot->tts_values;
	bool  *nulls = slot->tts_isnull;

	if (nulls[STREAMS_STREAM_ID - 1] ||
		!rf_uuid_equal(DatumGetUUIDP(values[STREAMS_STREAM_ID - 1]),
					   &stream->uuid))
		return false;
	return stream->tenant == 0 ||
		   (!nulls[STREAMS_TENANT_ID - 1] &&
			rf_tenancy_is(stream->tenant, values[STREAMS_TENANT_ID - 1]));
}

/* Is it the version that was read, of a stream that is as it is relied on? */
static bool
is_version_read(TupleTableSlot *slot, const RfRaise *raise)
{
	bool archived = !slot->tts_isnull[STREAMS_ARCHIVED_AT - 1];

	return is_version_of(slot, &raise->stream) &&
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
			HeapTuple  tuple = ExecFetchSlotHeapTuple(writer.old, false, NULL);
			RfStreamId stream = rf_stream_of(store, id);

			locked = deform_state(tuple, RelationGetDescr(rel), &stream, state);
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
		rf_stream_report_full(&raise->stream.uuid);
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
	RfRaise	   raise = {.stream = rf_stream_of(store, id),
						.first = first,
						.last = last,
						.reopens = reopen};
	HeapWriter writer;
	bool	   raised = false;

	if (!heap_suffices(store, rel))
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
	return rf_tenancy_compare(&((const RfCandidate *) a)->stream,
							  &((const RfCandidate *) b)->stream);
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
		ids[i] = UUIDPGetDatum(&candidates[i].stream.uuid);
		tids[i] = PointerGetDatum(&candidates[i].tid);
	}
	values[0] = PointerGetDatum(rf_query_array(ids, count, UUIDOID));
	values[1] = PointerGetDatum(rf_query_array(tids, count, TIDOID));
	rf_query_begin(&scope, store->owner, 0);
	rows = rf_query_run(rf_store_plan(store, &close_streams), values, NULL);
	for (uint64 row = 0; row < rows; row++)
	{
		RfCandidate	 key = {.stream = rf_stream_in_row(row)};
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
		!is_version_of(old, &candidate->stream) ||
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
	if (!heap_suffices(store, rel))
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
	const pg_uuid_t *id = &raise->stream.uuid;
	RfStreamState	 state;

	rf_stream_read_latest(rf_store_of_tenant(store, raise->stream.tenant), id,
						  &state);
	if (state.exists && state.last_seq > raise->base)
		rf_stream_report_taken(id, raise->base + 1, state.last_seq);
	ereport(
		ERROR,
		(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
		 errmsg(
			 "stream %s was archived, reactivated or removed while events were inserted",
			 rf_query_uuid_text(id)),
		 errhint("Run the transaction again.")));
}

static void
raise_by_query(RfStore *store, const RfRaise *raise)
{
	RfScope scope;
	Datum	values[7];
	char	nulls[7] = {' ', ' ', ' ', ' ', ' ', ' ', ' '};

	store = rf_store_of_tenant(store, raise->stream.tenant);
	values[0] = UUIDPGetDatum(&raise->stream.uuid);
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
	bool	   on_heap = heap_suffices(store, rel);
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
	return rf_tenancy_compare(&((const RfRaise *) a)->stream,
							  &((const RfRaise *) b)->stream);
}

/* Report the first new stream that is not among those the query has made. */
static void
report_not_made(RfStore *store, const RfRaise *raises, int count)
{
	bool  *made = palloc0(count);
	uint64 rows = rf_query_rows();

	for (uint64 row = 0; row < rows; row++)
	{
		RfRaise		   key = {.stream = rf_stream_in_row(row)};
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
	static const Oid types[] = {UUIDOID, INT4OID, TIMESTAMPTZOID,
								TIMESTAMPTZOID, TEXTOID};
	Datum			*columns[lengthof(types)];
	Datum			 values[lengthof(types)] = {0};
	char	nulls[] = {' ', ' ', ' ', ' ', store->conjoined ? ' ' : 'n'};
	int		ncolumns = lengthof(types) - (store->conjoined ? 0 : 1);
	int		n = 0;
	RfScope scope;

	for (int i = 0; i < lengthof(types); i++)
		columns[i] = palloc(sizeof(Datum) * nnew);
	for (int i = 0; i < count; i++)
	{
		if (raises[i].exists)
			continue;
		columns[0][n] = UUIDPGetDatum(&raises[i].stream.uuid);
		columns[1][n] = Int32GetDatum(raises[i].head);
		columns[2][n] = TimestampTzGetDatum(raises[i].first);
		columns[3][n] = TimestampTzGetDatum(raises[i].last);
		if (store->conjoined)
			columns[4][n] = rf_tenancy_datum(raises[i].stream.tenant);
		n++;
	}
	for (int i = 0; i < ncolumns; i++)
		values[i] = PointerGetDatum(rf_query_array(columns[i], n, types[i]));
	rf_query_begin(&scope, store->owner, 0);
	if (rf_query_run(rf_store_plan(store, &create_many), values, nulls) != nnew)
		report_not_made(store, raises, count);
	rf_query_end(&scope);
}

/*
 * Raise heads from what they were when they were read; they come in the order
 * of streams.  Fails when one of them, or what it depends on, has changed.
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
