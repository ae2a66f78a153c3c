/*-------------------------------------------------------------------------
 *
 * stream.c
 *	  Rows of rf_streams: state, head and mark of a stream.
 *
 * The head, rf_streams.last_seq, is what makes an event's number unique: the
 * unique indexes stand on the leaves and know one month each.  Whoever adds
 * events raises the head, under the lock of the stream's row, and so is
 * ordered with every other appender, with marks and with moves that close.
 *
 * rf_append() raises the head first and then writes the row.  An INSERT of an
 * application that knows nothing of us is kept sound by three triggers.  The
 * BEFORE STATEMENT trigger opens a frame, the row trigger gives each row a
 * number and raises the stream's head in the frame, and the AFTER STATEMENT
 * trigger checks that each number has its row, and raises the heads in the
 * table by compare-and-set: where another transaction has raised one since it
 * was read, the statement fails.  Two statements of one number can therefore
 * never both commit, whichever months the rows are in.
 *
 * A statement can call functions that append in their turn.  Before anything
 * reads a head, all frames are flushed, so that it sees what the statements
 * around it have given out.  If that happened in a subtransaction which is
 * rolled back, the raise is undone in the table with it, and is pending in
 * its frame again.  A frame belongs to the subtransaction it was opened in.
 *
 * Locks: rf_streams rows, in ascending order of id within a flush.  A
 * statement that leaves stream_seq out locks its streams in row order, so
 * that two of them can deadlock as two UPDATEs can.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "ledger.h"
#include "query.h"
#include "store.h"
#include "stream.h"

/* columns of rf_streams */
#define STREAMS_STREAM_ID 1
#define STREAMS_LAST_SEQ 3
#define STREAMS_FIRST_EVENT_AT 4
#define STREAMS_LAST_EVENT_AT 5
#define STREAMS_ARCHIVED_AT 6
#define STREAMS_COLUMNS 11

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

/* Numbers first..last of a stream, whose rows went to one leaf. */
typedef struct Run
{
	Oid		   leaf;
	Oid		   stream_index;
	AttrNumber stream_id_column;
	AttrNumber stream_seq_column;
	pg_uuid_t  stream_id;
	int32	   first;
	int32	   last;
} Run;

struct RfFrame
{
	RfFrame			*below;
	RfStore			*store;
	SubTransactionId subid;
	bool			 trusted; /* rows come numbered, from our own writer */
	MemoryContext	 context;
	RfLeaf			 leaf;		 /* where the last row went */
	RfHead			*last_head;	 /* stream of the last row */
	RfHead			 first_head; /* most statements write one stream */
	HTAB			*heads;		 /* the others */
	int				 nheads;
	Run				*runs;
	int				 nruns;
	int				 maxruns;
	RfKey			*keys; /* idempotency keys of its rows */
	int				 nkeys;
	int				 maxkeys;
	int64			 max_global_seq;
};

static RfFrame *frames = NULL;
static int64	last_global_seq = 0;

static const RfStatement create_stream =
	{"INSERT INTO {streams} (stream_id) VALUES ($1)"
	 " ON CONFLICT (stream_id) DO NOTHING",
	 1,
	 {UUIDOID}};

static const RfStatement lock_stream =
	{"SELECT last_seq, archived_at IS NOT NULL, first_event_at, last_event_at"
	 " FROM {streams} WHERE stream_id = $1 FOR NO KEY UPDATE",
	 1,
	 {UUIDOID}};

static const RfStatement raise_by =
	{"UPDATE {streams} SET last_seq = last_seq + $2,"
	 " first_event_at = least(first_event_at, $3),"
	 " last_event_at = greatest(last_event_at, $4),"
	 " updated_at = now(), " REOPEN_IF(
		 "$5") " WHERE stream_id = $1"
			   " RETURNING last_seq, archived_at IS NOT NULL",
	 5,
	 {UUIDOID, INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID, BOOLOID}};

static const RfStatement lower_by =
	{"UPDATE {streams} SET last_seq = last_seq - $2 WHERE stream_id = $1",
	 2,
	 {UUIDOID, INT4OID}};

static const RfStatement raise_one =
	{"UPDATE {streams} SET last_seq = $3,"
	 " first_event_at = least(first_event_at, $4),"
	 " last_event_at = greatest(last_event_at, $5),"
	 " updated_at = now(), " REOPEN_IF(
		 "$7") " WHERE stream_id = $1 AND last_seq = $2"
			   " AND ($6 OR archived_at IS NULL)",
	 7,
	 {UUIDOID, INT4OID, INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID, BOOLOID,
	  BOOLOID}};

static const RfStatement raise_many =
	{"UPDATE {streams} SET last_seq = w.head,"
	 " first_event_at = least(first_event_at, w.first),"
	 " last_event_at = greatest(last_event_at, w.last),"
	 " updated_at = now(), " REOPEN_IF(
		 "w.hot") " FROM unnest($1, $2, $3, $4, $5, $6, $7)"
				  " AS w(id, base, head, first, last, any_state, hot)"
				  " WHERE stream_id = w.id AND last_seq = w.base"
				  " AND (w.any_state OR archived_at IS NULL)",
	 7,
	 {UUIDARRAYOID, INT4ARRAYOID, INT4ARRAYOID, TIMESTAMPTZARRAYOID,
	  TIMESTAMPTZARRAYOID, BOOLARRAYOID, BOOLARRAYOID}};

static const RfStatement create_many =
	{"INSERT INTO {streams} AS s"
	 " (stream_id, last_seq, first_event_at, last_event_at)"
	 " SELECT w.id, w.head, w.first, w.last"
	 " FROM unnest($1, $2, $3, $4) AS w(id, head, first, last)"
	 " ON CONFLICT (stream_id) DO UPDATE SET last_seq = excluded.last_seq,"
	 " first_event_at = excluded.first_event_at,"
	 " last_event_at = excluded.last_event_at, updated_at = now()"
	 " WHERE s.last_seq = 0 AND s.archived_at IS NULL",
	 4,
	 {UUIDARRAYOID, INT4ARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID}};

static const RfStatement find_unraised =
	{"SELECT w.id, s.last_seq, s.last_seq = w.base"
	 " FROM unnest($1, $2, $3) AS w(id, base, head)"
	 " LEFT JOIN {streams} AS s ON s.stream_id = w.id"
	 " WHERE s.last_seq IS DISTINCT FROM w.head LIMIT 1",
	 3,
	 {UUIDARRAYOID, INT4ARRAYOID, INT4ARRAYOID}};

static const RfStatement lock_for_mark =
	{"SELECT 1 FROM {streams} WHERE stream_id = $1 FOR UPDATE", 1, {UUIDOID}};

static const RfStatement mark_stream =
	{"INSERT INTO {streams} AS s"
	 " (stream_id, archived_at, archived_by, archive_reason, retention_class)"
	 " VALUES ($1, now(), $2, $3, 'cold')"
	 " ON CONFLICT (stream_id) DO UPDATE SET"
	 " archived_at = coalesce(s.archived_at, now()), archived_by = $2,"
	 " archive_reason = $3, retention_class = 'cold', updated_at = now()"
	 " RETURNING stream_id, tenant_id, last_seq, first_event_at, last_event_at,"
	 " archived_at, archived_by, archive_reason, retention_class, created_at,"
	 " updated_at",
	 3,
	 {UUIDOID, TEXTOID, TEXTOID}};

static const RfStatement lock_event =
	{"SELECT 1 FROM ONLY {source} WHERE stream_id = $1 AND stream_seq = $2"
	 " FOR KEY SHARE",
	 2,
	 {UUIDOID, INT4OID}};

/*
 * State
 */

char *
rf_stream_id_text(const pg_uuid_t *id)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(id)));
}

static TimestampTz
time_or(Datum value, bool isnull, TimestampTz otherwise)
{
	return isnull ? otherwise : DatumGetTimestampTz(value);
}

static void
deform_state(HeapTuple tuple, TupleDesc tupdesc, RfStreamState *state)
{
	bool  isnull;
	Datum value;

	state->exists = true;
	state->last_seq = DatumGetInt32(
		heap_getattr(tuple, STREAMS_LAST_SEQ, tupdesc, &isnull));
	value = heap_getattr(tuple, STREAMS_FIRST_EVENT_AT, tupdesc, &isnull);
	state->first_event_at = time_or(value, isnull, DT_NOEND);
	value = heap_getattr(tuple, STREAMS_LAST_EVENT_AT, tupdesc, &isnull);
	state->last_event_at = time_or(value, isnull, DT_NOBEGIN);
	state->archived = !heap_attisnull(tuple, STREAMS_ARCHIVED_AT, tupdesc);
}

/*
 * Read a stream's row without a lock.  By index scan, not by query: every raw
 * INSERT pays for this.
 */
void
rf_stream_read(RfStore *store, const pg_uuid_t *id, Snapshot snapshot,
			   RfStreamState *state)
{
	Relation	rel = table_open(store->streams, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	memset(state, 0, sizeof(*state));
	state->first_event_at = DT_NOEND;
	state->last_event_at = DT_NOBEGIN;
	ScanKeyInit(&key, STREAMS_STREAM_ID, BTEqualStrategyNumber, F_UUID_EQ,
				UUIDPGetDatum(id));
	scan = systable_beginscan(rel, store->streams_pkey, true, snapshot, 1,
							  &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		deform_state(tuple, RelationGetDescr(rel), state);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/* The same as it is now, whatever the isolation level. */
void
rf_stream_read_latest(RfStore *store, const pg_uuid_t *id, RfStreamState *state)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());

	rf_stream_read(store, id, snapshot, state);
	UnregisterSnapshot(snapshot);
}

/* Lock a stream's row until the transaction ends; make it where it lacks. */
void
rf_stream_lock(RfStore *store, const pg_uuid_t *id, RfStreamState *state)
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
							rf_stream_id_text(id)),
					 errhint("Run the transaction again.")));
	}
	state->exists = true;
	state->last_seq = DatumGetInt32(rf_query_must(0, 1));
	state->archived = DatumGetBool(rf_query_must(0, 2));
	value = rf_query_value(0, 3, &isnull);
	state->first_event_at = time_or(value, isnull, DT_NOEND);
	value = rf_query_value(0, 4, &isnull);
	state->last_event_at = time_or(value, isnull, DT_NOBEGIN);
	rf_query_end(&scope);
}

/*
 * The head, raised at once
 */

/*
 * Raise the head of a stream by so many events, and return the new head; the
 * stream's row stays locked until the transaction ends.  A stream that is not
 * there is made.  With reopen, a closed stream is open again afterwards.
 */
int32
rf_stream_raise(RfStore *store, const pg_uuid_t *id, int32 by,
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

	rf_stream_flush();
	rf_query_begin(&scope, store->owner, 0);
	while (rf_query_run(rf_store_plan(store, &raise_by), values, NULL) == 0)
		rf_query_run(rf_store_plan(store, &create_stream), values, NULL);
	head = DatumGetInt32(rf_query_must(0, 1));
	*archived = DatumGetBool(rf_query_must(0, 2));
	rf_query_end(&scope);
	return head;
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
 * Frames
 */

RfFrame *
rf_stream_open_frame(RfStore *store, bool trusted)
{
	MemoryContext context;
	RfFrame		 *frame;

	if (!trusted)
		rf_stream_flush();
	context = AllocSetContextCreate(TopTransactionContext, "Rillflow frame",
									ALLOCSET_SMALL_SIZES);
	frame = MemoryContextAllocZero(context, sizeof(RfFrame));
	frame->context = context;
	frame->store = store;
	frame->subid = GetCurrentSubTransactionId();
	frame->trusted = trusted;
	frame->below = frames;
	frames = frame;
	return frame;
}

/* The innermost open frame of a statement on that events table. */
RfFrame *
rf_stream_frame_of_events(Oid events)
{
	SubTransactionId subid = GetCurrentSubTransactionId();

	for (RfFrame *frame = frames; frame != NULL; frame = frame->below)
	{
		if (frame->store->events == events && frame->subid == subid)
			return frame;
	}
	return NULL;
}

/*
 * The frame of the statement that brings a row to this leaf; NULL when there
 * is none, because the statement does not go through events.
 */
RfFrame *
rf_stream_find_frame(Oid leaf)
{
	RfFrame		 *frame = frames;
	const RfLeaf *found;

	if (frame != NULL && frame->leaf.relid == leaf &&
		frame->subid == GetCurrentSubTransactionId())
		return frame;
	found = rf_store_leaf(leaf);
	frame = rf_stream_frame_of_events(found->root);
	if (frame != NULL)
		frame->leaf = *found;
	return frame;
}

bool
rf_stream_frame_trusted(const RfFrame *frame)
{
	return frame->trusted;
}

RfStore *
rf_stream_frame_store(const RfFrame *frame)
{
	return frame->store;
}

const RfLeaf *
rf_stream_frame_leaf(const RfFrame *frame)
{
	return &frame->leaf;
}

static RfHead *
enter_head(RfFrame *frame, const pg_uuid_t *id)
{
	RfHead *head;
	bool	found;

	if (frame->nheads == 0)
	{
		frame->nheads = 1;
		head = &frame->first_head;
		head->stream_id = *id;
		return head;
	}
	if (frame->heads == NULL)
	{
		HASHCTL ctl = {0};

		ctl.keysize = UUID_LEN;
		ctl.entrysize = sizeof(RfHead);
		ctl.hcxt = frame->context;
		frame->heads = hash_create("Rillflow heads", 256, &ctl,
								   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	head = hash_search(frame->heads, id, HASH_ENTER, &found);
	if (!found)
	{
		memset((char *) head + UUID_LEN, 0, sizeof(RfHead) - UUID_LEN);
		frame->nheads++;
	}
	return head;
}

/* What the statement knows of a stream: read once, then kept. */
RfHead *
rf_stream_head(RfFrame *frame, const pg_uuid_t *id)
{
	RfHead *head = frame->last_head;

	if (head == NULL || !rf_uuid_equal(&head->stream_id, id))
	{
		head = &frame->first_head;
		if (frame->nheads == 0 || !rf_uuid_equal(&head->stream_id, id))
			head = enter_head(frame, id);
		frame->last_head = head;
	}
	if (!head->known)
	{
		RfStreamState state;

		rf_stream_read_latest(frame->store, id, &state);
		head->known = true;
		head->exists = state.exists;
		head->archived = state.archived;
		head->locked = head->landed_hot = false;
		head->base = head->head = state.last_seq;
		head->first = DT_NOEND;
		head->last = DT_NOBEGIN;
		head->flushed_in = InvalidSubTransactionId;
	}
	return head;
}

static void
report_taken(const pg_uuid_t *id, int32 number, int32 last_seq)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_UNIQUE_VIOLATION),
		 errmsg("event %d of stream %s exists already", number,
				rf_stream_id_text(id)),
		 errdetail("The stream's last_seq is %d.", last_seq),
		 errhint(
			 "Insert number last_seq + 1 of rf_streams, or leave stream_seq out.")));
}

/* Does this leaf hold the event?  Then it holds it until we are done. */
static bool
leaf_holds(RfFrame *frame, const pg_uuid_t *id, int32 number)
{
	RfScope scope;
	Datum	values[2];
	uint64	rows;

	values[0] = UUIDPGetDatum(id);
	values[1] = Int32GetDatum(number);
	rf_query_begin(&scope, frame->store->owner, 0);
	rows = rf_query_run(rf_store_plan_for(frame->store, &lock_event,
										  frame->leaf.relid, InvalidOid),
						values, NULL);
	rf_query_end(&scope);
	return rows > 0;
}

static void
lock_head(RfFrame *frame, RfHead *head)
{
	RfStreamState state;

	rf_stream_lock(frame->store, &head->stream_id, &state);
	if (head->head == head->base)
	{
		head->base = head->head = state.last_seq;
		head->archived = state.archived;
	}
	else if (state.last_seq != head->base)
		report_taken(&head->stream_id, head->base + 1, state.last_seq);
	head->exists = head->locked = true;
}

/*
 * The number of a row: the one it wants, or the next one where it wants none
 * (0).  The result is 0 for a row that is left to the leaf's unique index,
 * which holds that number: ON CONFLICT gets its conflict there.
 */
int32
rf_stream_number(RfFrame *frame, RfHead *head, int32 wanted)
{
	if (wanted == 0 && !head->locked)
		lock_head(frame, head);
	if (wanted == 0 || wanted == head->head + 1)
	{
		if (head->head == PG_INT32_MAX)
			ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
							errmsg("stream %s is full",
								   rf_stream_id_text(&head->stream_id))));
		return head->head + 1;
	}
	if (wanted > head->head)
		ereport(ERROR, (errcode(ERRCODE_RF_WRONG_HEAD),
						errmsg("event %d of stream %s would leave a gap",
							   wanted, rf_stream_id_text(&head->stream_id)),
						errdetail("The stream is at %d.", head->head),
						errhint("Insert number %d, or leave stream_seq out.",
								head->head + 1)));
	if (!leaf_holds(frame, &head->stream_id, wanted))
		report_taken(&head->stream_id, wanted, head->head);
	return 0;
}

/* Room for twice as many elements, in the frame's memory. */
static void *
grow(RfFrame *frame, void *elements, int *room, Size element_size)
{
	Size size;

	*room = Max(4, *room * 2);
	size = element_size * *room;
	if (elements == NULL)
		return MemoryContextAllocHuge(frame->context, size);
	return repalloc_huge(elements, size);
}

static void
remember_run(RfFrame *frame, const RfHead *head)
{
	Run *run = frame->nruns > 0 ? &frame->runs[frame->nruns - 1] : NULL;

	if (run != NULL && run->leaf == frame->leaf.relid &&
		run->last + 1 == head->head &&
		rf_uuid_equal(&run->stream_id, &head->stream_id))
	{
		run->last = head->head;
		return;
	}
	if (frame->nruns == frame->maxruns)
		frame->runs = grow(frame, frame->runs, &frame->maxruns, sizeof(Run));
	run = &frame->runs[frame->nruns++];
	run->leaf = frame->leaf.relid;
	run->stream_index = frame->leaf.stream_index;
	run->stream_id_column = frame->leaf.stream_id;
	run->stream_seq_column = frame->leaf.stream_seq;
	run->stream_id = head->stream_id;
	run->first = run->last = head->head;
}

/*
 * The next number of the stream goes to a row, which the statement itself
 * brings to its leaf (in_leaf) or the redirect has written, and which reopens
 * the stream when it is closed and the row is hot.
 */
void
rf_stream_advance(RfFrame *frame, RfHead *head, TimestampTz created_at,
				  bool in_leaf, bool hot)
{
	head->head++;
	head->first = Min(head->first, created_at);
	head->last = Max(head->last, created_at);
	if (in_leaf)
	{
		head->landed_hot |= hot;
		remember_run(frame, head);
	}
}

void
rf_stream_saw_global_seq(RfFrame *frame, int64 global_seq)
{
	frame->max_global_seq = Max(frame->max_global_seq, global_seq);
}

/* The highest global_seq of the last statement that closed. */
int64
rf_stream_last_global_seq(void)
{
	return last_global_seq;
}

int64
rf_stream_frame_max_global_seq(const RfFrame *frame)
{
	return frame->max_global_seq;
}

/* A row of the statement bears a key, to be claimed when it ends. */
void
rf_stream_remember_key(RfFrame *frame, const RfKey *key)
{
	MemoryContext old = MemoryContextSwitchTo(frame->context);
	RfKey		 *copy;

	if (frame->nkeys == frame->maxkeys)
		frame->keys = grow(frame, frame->keys, &frame->maxkeys, sizeof(RfKey));
	copy = &frame->keys[frame->nkeys++];
	*copy = *key;
	copy->key = (text *) PG_DETOAST_DATUM_COPY(PointerGetDatum(key->key));
	MemoryContextSwitchTo(old);
}

const RfKey *
rf_stream_frame_keys(const RfFrame *frame, int *count)
{
	*count = frame->nkeys;
	return frame->keys;
}

/*
 * Check that each number we gave out has its row: a trigger of the user, or
 * ON CONFLICT, may have dropped it after we numbered it.
 */
static void
verify_run(Relation rel, const Run *run)
{
	ScanKeyData keys[3];
	SysScanDesc scan;
	HeapTuple	tuple;
	int64		count = 0;

	ScanKeyInit(&keys[0], run->stream_id_column, BTEqualStrategyNumber,
				F_UUID_EQ, UUIDPGetDatum(&run->stream_id));
	ScanKeyInit(&keys[1], run->stream_seq_column, BTGreaterEqualStrategyNumber,
				F_INT4GE, Int32GetDatum(run->first));
	ScanKeyInit(&keys[2], run->stream_seq_column, BTLessEqualStrategyNumber,
				F_INT4LE, Int32GetDatum(run->last));
	scan = systable_beginscan(rel, run->stream_index, true, SnapshotSelf, 3,
							  keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		if (TransactionIdIsCurrentTransactionId(
				HeapTupleHeaderGetXmin(tuple->t_data)))
			count++;
	}
	systable_endscan(scan);
	if (count != (int64) run->last - run->first + 1)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("a row of stream %s was numbered, but not inserted",
					rf_stream_id_text(&run->stream_id)),
			 errdetail("Of the numbers %d to %d, " INT64_FORMAT " have a row.",
					   run->first, run->last, count),
			 errhint(
				 "Another trigger or ON CONFLICT skips rows; let triggers that skip rows sort before \"rf_events_redirect_archived\".")));
}

static void
verify_runs(RfFrame *frame)
{
	Relation rel = NULL;

	for (int i = 0; i < frame->nruns; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (rel == NULL || RelationGetRelid(rel) != frame->runs[i].leaf)
		{
			if (rel != NULL)
				table_close(rel, AccessShareLock);
			rel = table_open(frame->runs[i].leaf, AccessShareLock);
		}
		verify_run(rel, &frame->runs[i]);
	}
	if (rel != NULL)
		table_close(rel, AccessShareLock);
}

/*
 * Flushing
 */

static int
compare_heads(const void *a, const void *b)
{
	return memcmp((*(RfHead *const *) a)->stream_id.data,
				  (*(RfHead *const *) b)->stream_id.data, UUID_LEN);
}

/*
 * The heads of a frame that wait to be raised in the table, in order of id.
 * All others are read again when they are needed next.
 */
static RfHead **
pending_heads(RfFrame *frame, int *count)
{
	RfHead		  **result = palloc(sizeof(RfHead *) * Max(frame->nheads, 1));
	HASH_SEQ_STATUS status;
	RfHead		   *head = frame->nheads > 0 ? &frame->first_head : NULL;

	*count = 0;
	if (frame->heads != NULL)
		hash_seq_init(&status, frame->heads);
	while (head != NULL)
	{
		if (head->known && head->head != head->base)
		{
			if (head->flushed_in == InvalidSubTransactionId)
				result[(*count)++] = head;
		}
		else
			head->known = false;
		head = frame->heads != NULL ? hash_seq_search(&status) : NULL;
	}
	qsort(result, *count, sizeof(RfHead *), compare_heads);
	return result;
}

typedef struct HeadArrays
{
	Datum *ids;
	Datum *bases;
	Datum *heads;
	Datum *firsts;
	Datum *lasts;
	Datum *any_states;
	Datum *hots;
	int	   count;
} HeadArrays;

static void
collect_arrays(const RfStore *store, RfHead **pending, int count, bool exist,
			   HeadArrays *arrays)
{
	bool state_matters = store->redirect_enabled ||
						 store->backend == RF_PARTITIONED;
	Datum *room = palloc(sizeof(Datum) * count * 7);
	int	   n = 0;

	arrays->ids = room;
	arrays->bases = room + count;
	arrays->heads = room + count * 2;
	arrays->firsts = room + count * 3;
	arrays->lasts = room + count * 4;
	arrays->any_states = room + count * 5;
	arrays->hots = room + count * 6;
	for (int i = 0; i < count; i++)
	{
		const RfHead *head = pending[i];

		if (head->exists != exist)
			continue;
		arrays->ids[n] = UUIDPGetDatum(&head->stream_id);
		arrays->bases[n] = Int32GetDatum(head->base);
		arrays->heads[n] = Int32GetDatum(head->head);
		arrays->firsts[n] = TimestampTzGetDatum(head->first);
		arrays->lasts[n] = TimestampTzGetDatum(head->last);
		arrays->any_states[n] = BoolGetDatum(
			!(head->landed_hot && state_matters));
		arrays->hots[n] = BoolGetDatum(head->landed_hot);
		n++;
	}
	arrays->count = n;
}

static Datum
make_array(Datum *elements, int count, Oid type)
{
	switch (type)
	{
		case UUIDOID:
			return PointerGetDatum(construct_array(elements, count, type,
												   UUID_LEN, false,
												   TYPALIGN_CHAR));
		case INT4OID:
			return PointerGetDatum(construct_array(elements, count, type,
												   sizeof(int32), true,
												   TYPALIGN_INT));
		case BOOLOID:
			return PointerGetDatum(construct_array(elements, count, type,
												   sizeof(bool), true,
												   TYPALIGN_CHAR));
		default:
			return PointerGetDatum(
				construct_array(elements, count, type, sizeof(int64),
								FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	}
}

/* Another transaction came first: say what it did. */
static void
report_unraised(RfStore *store, const HeadArrays *arrays)
{
	Datum	   values[3];
	pg_uuid_t *id;
	bool	   isnull;
	int32	   last_seq;
	bool	   same_head;

	values[0] = make_array(arrays->ids, arrays->count, UUIDOID);
	values[1] = make_array(arrays->bases, arrays->count, INT4OID);
	values[2] = make_array(arrays->heads, arrays->count, INT4OID);
	if (rf_query_run(rf_store_plan(store, &find_unraised), values, NULL) == 0)
		elog(ERROR, "could not raise the heads of %d streams", arrays->count);
	id = DatumGetUUIDP(rf_query_must(0, 1));
	last_seq = DatumGetInt32(rf_query_value(0, 2, &isnull));
	same_head = !isnull && DatumGetBool(rf_query_must(0, 3));
	if (isnull || same_head)
		ereport(
			ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg(
				 "stream %s was archived or removed while events were inserted",
				 rf_stream_id_text(id)),
			 errhint("Run the transaction again.")));
	report_taken(id, last_seq, last_seq);
}

static void
raise_existing(RfStore *store, const HeadArrays *arrays)
{
	Datum  values[7];
	uint64 raised;

	if (arrays->count == 1)
	{
		values[0] = arrays->ids[0];
		values[1] = arrays->bases[0];
		values[2] = arrays->heads[0];
		values[3] = arrays->firsts[0];
		values[4] = arrays->lasts[0];
		values[5] = arrays->any_states[0];
		values[6] = arrays->hots[0];
		raised = rf_query_run(rf_store_plan(store, &raise_one), values, NULL);
	}
	else
	{
		values[0] = make_array(arrays->ids, arrays->count, UUIDOID);
		values[1] = make_array(arrays->bases, arrays->count, INT4OID);
		values[2] = make_array(arrays->heads, arrays->count, INT4OID);
		values[3] = make_array(arrays->firsts, arrays->count, TIMESTAMPTZOID);
		values[4] = make_array(arrays->lasts, arrays->count, TIMESTAMPTZOID);
		values[5] = make_array(arrays->any_states, arrays->count, BOOLOID);
		values[6] = make_array(arrays->hots, arrays->count, BOOLOID);
		raised = rf_query_run(rf_store_plan(store, &raise_many), values, NULL);
	}
	if (raised != arrays->count)
		report_unraised(store, arrays);
}

static void
raise_new(RfStore *store, const HeadArrays *arrays)
{
	Datum values[4];

	values[0] = make_array(arrays->ids, arrays->count, UUIDOID);
	values[1] = make_array(arrays->heads, arrays->count, INT4OID);
	values[2] = make_array(arrays->firsts, arrays->count, TIMESTAMPTZOID);
	values[3] = make_array(arrays->lasts, arrays->count, TIMESTAMPTZOID);
	if (rf_query_run(rf_store_plan(store, &create_many), values, NULL) !=
		arrays->count)
		report_unraised(store, arrays);
}

/* Raise in the table what is pending in a frame. */
static void
flush_frame(RfFrame *frame)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	RfScope			 scope;
	HeadArrays		 arrays;
	int				 count;
	RfHead		   **pending = pending_heads(frame, &count);

	if (count > 0)
	{
		rf_query_begin(&scope, frame->store->owner, 0);
		collect_arrays(frame->store, pending, count, true, &arrays);
		if (arrays.count > 0)
			raise_existing(frame->store, &arrays);
		collect_arrays(frame->store, pending, count, false, &arrays);
		if (arrays.count > 0)
			raise_new(frame->store, &arrays);
		rf_query_end(&scope);
	}
	for (int i = 0; i < count; i++)
	{
		if (frame->subid == subid)
			pending[i]->known = false;
		else
			pending[i]->flushed_in = subid;
	}
	pfree(pending);
}

/* Let whoever reads a head next see what open statements have given out. */
void
rf_stream_flush(void)
{
	for (RfFrame *frame = frames; frame != NULL; frame = frame->below)
	{
		if (!frame->trusted)
			flush_frame(frame);
	}
}

static void
unlink_frame(RfFrame *frame)
{
	RfFrame **link = &frames;

	while (*link != frame)
		link = &(*link)->below;
	*link = frame->below;
	MemoryContextDelete(frame->context);
}

/* End a statement: check its rows, raise its heads. */
void
rf_stream_close_frame(RfFrame *frame)
{
	if (!frame->trusted)
	{
		verify_runs(frame);
		flush_frame(frame);
	}
	last_global_seq = frame->max_global_seq;
	unlink_frame(frame);
}

/*
 * Subtransactions
 */

static void
end_flush(RfFrame *frame, RfHead *head, SubXactEvent event, SubTransactionId id,
		  SubTransactionId parent)
{
	if (head->flushed_in != id)
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
		head->flushed_in = InvalidSubTransactionId;
	else if (frame->subid == parent)
		head->known = false;
	else
		head->flushed_in = parent;
}

static void
subtransaction_ended(SubXactEvent event, SubTransactionId id,
					 SubTransactionId parent, void *arg)
{
	RfFrame *below;

	if (event != SUBXACT_EVENT_ABORT_SUB && event != SUBXACT_EVENT_COMMIT_SUB)
		return;
	for (RfFrame *frame = frames; frame != NULL; frame = below)
	{
		HASH_SEQ_STATUS status;
		RfHead		   *head;

		below = frame->below;
		if (frame->subid == id)
		{
			unlink_frame(frame);
			continue;
		}
		if (frame->nheads > 0)
			end_flush(frame, &frame->first_head, event, id, parent);
		if (frame->heads == NULL)
			continue;
		hash_seq_init(&status, frame->heads);
		while ((head = hash_seq_search(&status)) != NULL)
			end_flush(frame, head, event, id, parent);
	}
}

static void
transaction_ended(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT ||
		event == XACT_EVENT_PREPARE)
		frames = NULL; /* they lived in the transaction's memory */
}

void
rf_stream_init(void)
{
	RegisterXactCallback(transaction_ended, NULL);
	RegisterSubXactCallback(subtransaction_ended, NULL);
}

/*
 * Marks
 */

/*
 * Archive a stream by hand.  Its row is locked first, as strongly as can be,
 * so that appends and moves in flight have ended when it is marked.
 */
static void
mark_archived(RfStore *store, const pg_uuid_t *id, const char *reason,
			  const char *archived_by, Datum *row, bool *nulls)
{
	MemoryContext context = CurrentMemoryContext;
	RfLedgerEntry entry = RF_LEDGER_ENTRY("mark");
	RfScope		  scope;
	Datum		  values[3];

	values[0] = UUIDPGetDatum(id);
	values[1] = CStringGetTextDatum(archived_by);
	values[2] = CStringGetTextDatum(reason);
	rf_stream_flush();
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	rf_query_run(rf_store_plan(store, &lock_for_mark), values, NULL);
	rf_query_run(rf_store_plan(store, &mark_stream), values, NULL);
	rf_query_copy_row(0, row, nulls, STREAMS_COLUMNS, context);
	entry.stream_id = id;
	entry.detail = reason;
	rf_ledger_write(store, &entry);
	rf_query_end(&scope);
}

/*
 * SQL interface
 */

PG_FUNCTION_INFO_V1(rf_archive_mark);

Datum
rf_archive_mark(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		   row[STREAMS_COLUMNS];
	bool		   nulls[STREAMS_COLUMNS];
	char		  *reason = PG_ARGISNULL(1) ? "manual mark" :
											  text_to_cstring(PG_GETARG_TEXT_PP(1));
	char *by = PG_ARGISNULL(2) ? GetUserNameFromId(GetSessionUserId(), false) :
								 text_to_cstring(PG_GETARG_TEXT_PP(2));
	char *tenant = PG_ARGISNULL(3) ? NULL :
									 text_to_cstring(PG_GETARG_TEXT_PP(3));

	PreventCommandIfReadOnly("rf_archive_mark()");
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("\"stream_id\" must not be null")));
	if (strcmp(by, RF_CLOSED_BY) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"archived_by\" must not be \"%s\"", RF_CLOSED_BY),
				 errhint(
					 "That name tells the streams that a move has closed.")));
	mark_archived(rf_store_get(tenant, RF_RIGHT_ARCHIVE), PG_GETARG_UUID_P(0),
				  reason, by, row, nulls);
	InitMaterializedSRF(fcinfo, 0);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, row, nulls);
	return (Datum) 0;
}
