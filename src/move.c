/*-------------------------------------------------------------------------
 *
 * move.c
 *	  Moving events to the cold tier, by rows: one batch at a time.
 *
 * A batch is one statement: DELETE … RETURNING from a hot leaf feeds a plain
 * INSERT into the cold tier.  What the DELETE did not take is not inserted,
 * and what it took is, whatever other transactions do at the same time: an
 * event that commits late stays hot, and is taken by the next move, since no
 * watermark is kept.  How many rows went out and came in is compared here.
 *
 * Moves fire no triggers, and are refused where one would have to fire.
 *
 * Nothing here loops over batches or commits: the owner of the loop does
 * (worker.c), and what to move is decided elsewhere (plan.c).
 *
 * When a batch seems to have emptied the hot part of a stream, its row is read,
 * and the hot leaves between its first and last event are looked through, with
 * one snapshot; then that version of the row is closed.  An event that came in
 * between has raised the head, which makes another version, and the stream
 * stays open; an append in flight raises the head later, and reopens it.  A
 * month that is made at the same time takes rows out of the default partition,
 * on which a lock keeps it waiting.  Rows of rf_streams that others hold are
 * skipped, and are undecided; the loop takes these up at the end.
 *
 * Numbers make that cheap.  A stream whose last number was not taken is not
 * looked at.  Of one whose last number was, only events of numbers that were
 * not can be hot still; and what earlier batches took counts as long as the
 * stream's row is the version that was read then.
 *
 * Locks: the parent of the cold tier and the hot default partition; rows of
 * rf_streams in ascending order, where only_archived asks for it; the rows
 * that are deleted; rows of rf_streams to be closed.  A stream that others
 * hold is skipped, not waited for, so that no cycle can close.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/partition.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "bulk.h"
#include "frame.h"
#include "ledger.h"
#include "move.h"
#include "partition.h"
#include "query.h"
#include "store.h"
#include "stream.h"
#include "tenancy.h"
#include "wait_point.h"

/*
 * The statement of a batch.  Parameters: $1 cursor, $2 cut-off, $3 batch
 * size, $4 stream, $5 the last event that all consumers have read.  Result: the
 * new cursor, events picked, rows deleted, rows inserted, their streams and
 * whose they are.
 */

/* any stream, in order of global_seq */
#define PICK_ANY                                        \
	"WITH top AS MATERIALIZED"                          \
	" (SELECT max(n) AS upper, count(*) AS picked FROM" \
	" (SELECT global_seq AS n FROM ONLY {source}"       \
	" WHERE global_seq > $1 AND created_at < $2"        \
	" AND global_seq <= $5{mine}"                       \
	" ORDER BY global_seq LIMIT $3) AS p)"
#define DELETE_ANY                                                     \
	", gone AS (DELETE FROM ONLY {source} AS e"                        \
	" WHERE global_seq > $1 AND global_seq <= (SELECT upper FROM top)" \
	" AND created_at < $2{mine e}"

/* one stream, in order of stream_seq */
#define PICK_STREAM                                                 \
	"WITH top AS MATERIALIZED"                                      \
	" (SELECT max(n) AS upper, count(*) AS picked FROM"             \
	" (SELECT stream_seq AS n FROM ONLY {source}"                   \
	" WHERE stream_id = $4 AND stream_seq > $1 AND created_at < $2" \
	" AND global_seq <= $5{mine}"                                   \
	" ORDER BY stream_seq LIMIT $3) AS p)"
#define DELETE_STREAM                                                \
	", gone AS (DELETE FROM ONLY {source} AS e"                      \
	" WHERE stream_id = $4 AND stream_seq > $1"                      \
	" AND stream_seq <= (SELECT upper FROM top) AND created_at < $2" \
	" AND global_seq <= $5{mine e}"

/*
 * Archived streams, which stay locked: a reactivation that commits first is
 * seen, and one that comes later waits for this batch.
 */
#define PICK_ARCHIVED                                                      \
	"WITH picked AS MATERIALIZED (SELECT global_seq AS n, stream_id"       \
	"{,tenant_id} FROM ONLY {source} AS e"                                 \
	" WHERE global_seq > $1 AND created_at < $2 AND global_seq <= $5"      \
	"{mine e} AND EXISTS (SELECT FROM {streams} AS s"                      \
	" WHERE s.stream_id = e.stream_id{same s e}"                           \
	" AND s.archived_at IS NOT NULL)"                                      \
	" ORDER BY global_seq LIMIT $3),"                                      \
	" locked AS MATERIALIZED (SELECT stream_id{,tenant_id} FROM {streams}" \
	" WHERE ({tenant_id,}stream_id) IN"                                    \
	" (SELECT {tenant_id,}stream_id FROM picked)"                          \
	" AND archived_at IS NOT NULL"                                         \
	" ORDER BY stream_id{,tenant_id} FOR NO KEY UPDATE SKIP LOCKED),"      \
	" top AS MATERIALIZED"                                                 \
	" (SELECT max(n) AS upper, count(*) AS picked FROM picked)"
#define DELETE_ARCHIVED                          \
	DELETE_ANY " AND ({tenant_id,}stream_id) IN" \
			   " (SELECT {tenant_id,}stream_id FROM locked)"

/* but for what the cold tier has already */
#define NOT_IN_COLD                                                    \
	" AND NOT EXISTS (SELECT FROM {cold} AS c"                         \
	" WHERE c.stream_id = e.stream_id AND c.stream_seq = e.stream_seq" \
	"{same c e})"                                                      \
	" AND NOT EXISTS (SELECT FROM {cold} AS c"                         \
	" WHERE c.global_seq = e.global_seq)"

#define INSERT_ARCHIVE                                           \
	" RETURNING {columns}), come AS (INSERT INTO {target}"       \
	" ({columns}, retention_class, migrated_at, migrated_by)"    \
	" SELECT {columns}, 'cold', now(), 'archive_move' FROM gone" \
	" RETURNING stream_id, {owner} AS owner)"
#define INSERT_BRANCH                                      \
	" RETURNING {columns}), come AS (INSERT INTO {events}" \
	" ({columns}, retention_class)"                        \
	" SELECT {columns}, 'cold' FROM gone"                  \
	" RETURNING stream_id, {owner} AS owner)"
#define REPORT                                                               \
	", touched AS MATERIALIZED (SELECT DISTINCT stream_id, owner FROM come)" \
	" SELECT (SELECT upper FROM top)::bigint, (SELECT picked FROM top),"     \
	" (SELECT count(*) FROM gone), (SELECT count(*) FROM come),"             \
	" (SELECT coalesce(array_agg(stream_id ORDER BY stream_id, owner),"      \
	" '{}') FROM touched),"                                                  \
	" (SELECT coalesce(array_agg(owner ORDER BY stream_id, owner),"          \
	" '{}') FROM touched)"

#define BATCH_ARGS                                         \
	5,                                                     \
	{                                                      \
		INT8OID, TIMESTAMPTZOID, INT4OID, UUIDOID, INT8OID \
	}
#define BATCH(pick, delete)                                              \
	{                                                                    \
		{{pick delete INSERT_ARCHIVE REPORT, BATCH_ARGS},                \
		 {pick delete INSERT_BRANCH REPORT, BATCH_ARGS}},                \
		{                                                                \
			{pick delete NOT_IN_COLD INSERT_ARCHIVE REPORT, BATCH_ARGS}, \
			{                                                            \
				pick delete NOT_IN_COLD INSERT_BRANCH REPORT, BATCH_ARGS \
			}                                                            \
		}                                                                \
	}

typedef enum BatchKind
{
	BATCH_ANY,
	BATCH_STREAM,
	BATCH_ARCHIVED
} BatchKind;

/* [kind][but for what is cold already][backend] */
static const RfStatement move_batch[3][2][2] = {BATCH(PICK_ANY, DELETE_ANY),
												BATCH(PICK_STREAM,
													  DELETE_STREAM),
												BATCH(PICK_ARCHIVED,
													  DELETE_ARCHIVED)};

/* Events that are in both tiers, those of different content first. */
static const RfStatement find_doubles =
	{"SELECT h.stream_id, h.stream_seq,"
	 " (SELECT r::text FROM (SELECT {columns} FROM ONLY {source}"
	 " WHERE global_seq = h.global_seq) AS r)"
	 " = (SELECT r::text FROM (SELECT {columns} FROM {cold}"
	 " WHERE global_seq = c.global_seq LIMIT 1) AS r) AS equal"
	 " FROM ONLY {source} AS h JOIN {cold} AS c"
	 " ON (c.stream_id = h.stream_id AND c.stream_seq = h.stream_seq"
	 "{same c h}) OR c.global_seq = h.global_seq"
	 " WHERE h.created_at < $1 AND h.global_seq <= $2{mine h}"
	 " ORDER BY equal, h.global_seq LIMIT 1",
	 2,
	 {TIMESTAMPTZOID, INT8OID}};

/*
 * Archived streams that others hold, or that have just been taken back: of a
 * single store, and of a conjoined one.
 */
static const RfStatement find_held[2] =
	{{"WITH free AS MATERIALIZED (SELECT stream_id AS id FROM {streams}"
	  " WHERE stream_id = ANY ($1) AND archived_at IS NOT NULL"
	  " ORDER BY stream_id FOR NO KEY UPDATE SKIP LOCKED)"
	  " SELECT id, NULL::text FROM (SELECT id FROM unnest($1) AS id"
	  " EXCEPT SELECT id FROM free) AS held",
	  2,
	  {UUIDARRAYOID, TEXTARRAYOID}},
	 {"WITH free AS MATERIALIZED (SELECT s.stream_id, s.tenant_id"
	  " FROM unnest($1, $2) AS w(id, owner) JOIN {streams} AS s"
	  " ON s.stream_id = w.id AND s.tenant_id = w.owner"
	  " WHERE s.archived_at IS NOT NULL ORDER BY s.stream_id, s.tenant_id"
	  " FOR NO KEY UPDATE OF s SKIP LOCKED)"
	  " SELECT id, owner FROM unnest($1, $2) AS w(id, owner)"
	  " EXCEPT SELECT stream_id, tenant_id FROM free",
	  2,
	  {UUIDARRAYOID, TEXTARRAYOID}}};

static const RfStatement lock_archived =
	{"SELECT 1 FROM {streams} WHERE stream_id = $1{mine}"
	 " AND archived_at IS NOT NULL FOR NO KEY UPDATE",
	 1,
	 {UUIDOID}};

/*
 * Lock the leaf, and see whether it is one of the hot tier still; then find
 * where its events go, as it is in this transaction.
 */
static bool
resolve_leaves(const RfStore *store, RfMoveCursor *cursor)
{
	Oid parent = rf_store_tier_parent(store, RF_COLD);

	LockRelationOid(cursor->source, RowExclusiveLock);
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(cursor->source)) ||
		!get_rel_relispartition(cursor->source) ||
		get_partition_parent(cursor->source, true) != store->events_hot)
		return false;
	cursor->target = DATE_NOT_FINITE(cursor->month) ?
						 InvalidOid :
						 rf_partition_of_month(parent, cursor->month);
	if (!OidIsValid(cursor->target))
		cursor->target = parent;
	return true;
}

/*
 * Closing
 */

/* A stream as it was before an attempt at a step. */
typedef struct RfMoveChange
{
	bool		 known; /* false: it was not */
	RfMoveStream before;
} RfMoveChange;

/* Streams of one move; they live in the memory given. */
RfMoveStreams *
rf_move_make_streams(MemoryContext context)
{
	RfMoveStreams *streams = MemoryContextAllocZero(context,
													sizeof(RfMoveStreams));
	HASHCTL		   ctl = {0};

	ctl.keysize = sizeof(RfStreamId);
	ctl.entrysize = sizeof(RfMoveStream);
	ctl.hcxt = context;
	streams->known = hash_create("Rillflow streams of a move", 256, &ctl,
								 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	streams->context = context;
	return streams;
}

static void
note_change(RfMoveStreams *streams, RfMoveStream *stream, bool known)
{
	RfMoveChange *change;

	if (streams->nchanges == streams->maxchanges)
	{
		int size = Max(streams->maxchanges * 2, 256);

		streams->changes = streams->changes == NULL ?
							   MemoryContextAlloc(streams->context,
												  sizeof(RfMoveChange) * size) :
							   repalloc(streams->changes,
										sizeof(RfMoveChange) * size);
		streams->maxchanges = size;
	}
	change = &streams->changes[streams->nchanges++];
	change->known = known;
	change->before = *stream;
	stream->attempt = streams->attempt;
}

/*
 * What is known of a stream, to be changed; noted down if it is not yet.
 */
RfMoveStream *
rf_move_stream(RfMoveStreams *streams, const RfStreamId *id)
{
	bool		  found;
	RfMoveStream *stream = hash_search(streams->known, id, HASH_ENTER, &found);

	if (!found)
	{
		stream->head = stream->taken = 0;
		stream->layout = 0;
		stream->xmin = InvalidTransactionId;
		ItemPointerSetInvalid(&stream->tid);
		stream->touched = stream->undecided = false;
		stream->attempt = 0;
	}
	if (stream->attempt != streams->attempt)
		note_change(streams, stream, found);
	return stream;
}

/* From here on changes can be undone, until the next attempt begins. */
void
rf_move_begin_attempt(RfMoveStreams *streams)
{
	streams->attempt++;
	streams->nchanges = 0;
}

/*
 * The transaction of the attempt is undone: what was taken in it is hot, and
 * what was closed in it is open.  Who believed otherwise would close streams
 * that have hot events.
 */
void
rf_move_undo_attempt(RfMoveStreams *streams)
{
	for (int i = 0; i < streams->nchanges; i++)
	{
		RfMoveChange *change = &streams->changes[i];
		void		 *id = &change->before.stream;

		if (change->known)
			*(RfMoveStream *) hash_search(streams->known, id, HASH_FIND,
										  NULL) = change->before;
		else
			(void) hash_search(streams->known, id, HASH_REMOVE, NULL);
	}
	streams->nchanges = 0;
}

/* Streams that a batch touched, sorted. */
typedef struct Sorted
{
	RfCandidate *empty; /* seem to have no hot event left */
	int			 nempty;
	RfStreamId	*archived; /* may be about to be reactivated */
	int			 narchived;
} Sorted;

/* Where streams are looked at, with one snapshot. */
typedef struct Sight
{
	RfStreamReader reader;
	RfSearch	   hot;
	DateADT		   upper; /* last events from here on come later */
	uint64		   layout;
} Sight;

/* Were all numbers between the lowest and the highest taken? */
static bool
is_whole(const RfTouched *touched)
{
	return touched->count > 0 &&
		   touched->count == (int64) touched->highest - touched->lowest + 1;
}

/*
 * Count on from what earlier batches took of a stream.  That is worth nothing
 * when its row is another version than before: events that come to hot, by an
 * append or a reactivation, make one.  A month that comes to hot as a whole
 * does not, but changes the store.
 */
static void
note_taken(RfMoveStream *stream, const RfTouched *touched)
{
	if (is_whole(touched) && touched->lowest <= stream->taken + 1)
		stream->taken = Max(stream->taken, touched->highest);
}

static void
note_version(RfMoveStream *stream, RfStreamState *state, uint64 layout)
{
	if (stream->layout != layout || stream->xmin != state->xmin ||
		!ItemPointerEquals(&stream->tid, &state->tid))
		stream->taken = 0;
	stream->layout = layout;
	stream->xmin = state->xmin;
	stream->tid = state->tid;
	stream->head = state->last_seq;
}

/*
 * Does the hot tier hold an event of the stream, whose head is among what was
 * taken?  No number is given twice: where all between the lowest and the
 * highest were taken, only a lower one can be hot.
 */
static bool
is_hot(Sight *sight, const RfMoveStream *stream, const RfTouched *touched,
	   const RfStreamState *state)
{
	int32 highest = is_whole(touched) ? touched->lowest - 1 : PG_INT32_MAX;

	return highest > stream->taken &&
		   rf_partition_search(&sight->hot, &touched->stream, highest,
							   state->first_event_at, state->last_event_at);
}

/*
 * Sort a stream without a lock: those that look empty, those that are
 * archived, and those to be looked at again when the move ends, because their
 * last event lies in a later leaf, or is not among those that were moved.
 * The last holds without another look while the head that was read before is
 * higher, since heads never fall.
 */
static void
sort_stream(Sight *sight, const RfTouched *touched, RfMoveStream *stream,
			Sorted *sorted)
{
	RfStreamState state;

	if (touched->highest < stream->head)
	{
		note_taken(stream, touched);
		stream->undecided = true;
		return;
	}
	rf_stream_read_next(&sight->reader, &touched->stream, &state);
	if (!state.exists)
		return;
	note_version(stream, &state, sight->layout);
	note_taken(stream, touched);
	if (state.archived)
		sorted->archived[sorted->narchived++] = touched->stream;
	else if (rf_partition_month_of(state.last_event_at) >= sight->upper ||
			 touched->highest < state.last_seq)
		stream->undecided = true;
	else if (!is_hot(sight, stream, touched, &state))
	{
		RfCandidate *candidate = &sorted->empty[sorted->nempty++];

		candidate->stream = touched->stream;
		candidate->tid = state.tid;
		candidate->closed = false;
	}
}

static int
compare_touched(const void *a, const void *b)
{
	return rf_tenancy_compare(&((const RfTouched *) a)->stream,
							  &((const RfTouched *) b)->stream);
}

/* In the order in which streams are locked. */
static void
sort_streams(RfStore *store, RfTouched *touched, int count, DateADT upper,
			 RfMoveStreams *streams, Sorted *sorted)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	Sight	 sight = {.upper = upper, .layout = store->layout};

	qsort(touched, count, sizeof(RfTouched), compare_touched);
	sorted->empty = palloc(sizeof(RfCandidate) * Max(count, 1));
	sorted->archived = palloc(sizeof(RfStreamId) * Max(count, 1));
	sorted->nempty = sorted->narchived = 0;
	rf_stream_begin_read(&sight.reader, store, snapshot);
	rf_partition_begin_search(&sight.hot, store->events_hot, snapshot);
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		sort_stream(&sight, &touched[i],
					rf_move_stream(streams, &touched[i].stream), sorted);
	}
	rf_partition_end_search(&sight.hot);
	rf_stream_end_read(&sight.reader);
	UnregisterSnapshot(snapshot);
}

/*
 * Lock the archived streams whose events were moved.  Those that others hold
 * may be about to be reactivated, or have been; these are looked at again.
 */
static void
lock_archived_streams(RfStore *store, const Sorted *sorted,
					  RfMoveStreams *streams)
{
	Datum  values[2];
	uint64 rows;

	rf_stream_make_arrays(store, sorted->archived, sorted->narchived, values);
	rows = rf_query_run(rf_store_plan(store, &find_held[store->conjoined]),
						values, NULL);
	for (uint64 row = 0; row < rows; row++)
	{
		RfStreamId held = rf_stream_in_row(row);

		rf_move_stream(streams, &held)->undecided = true;
	}
}

static void
log_closes(RfStore *store, const Sorted *sorted)
{
	RfStreamId *closed = palloc(sizeof(RfStreamId) * sorted->nempty);
	int			nclosed = 0;

	for (int i = 0; i < sorted->nempty; i++)
	{
		if (sorted->empty[i].closed)
			closed[nclosed++] = sorted->empty[i].stream;
	}
	if (nclosed > 0)
		rf_ledger_write_streams(store, "close", closed, nclosed,
								RF_CLOSED_REASON);
}

/* Close what seems to be empty; what could not be closed is undecided. */
static void
close_sorted(RfStore *store, const Sorted *sorted, RfMoveStreams *streams)
{
	RF_WAIT_POINT("close_before_lock");
	rf_stream_close(store, sorted->empty, sorted->nempty);
	for (int i = 0; i < sorted->nempty; i++)
	{
		RfCandidate *candidate = &sorted->empty[i];

		rf_move_stream(streams, &candidate->stream)->undecided =
			!candidate->closed;
	}
	log_closes(store, sorted);
}

/*
 * Archive those of the streams that have no hot event left.  Undecided are
 * those that another transaction holds, and those whose last event lies after
 * the leaf that ends at upper, or was not moved yet.
 */
static void
close_empty(RfStore *store, RfTouched *touched, int count, DateADT upper,
			RfMoveStreams *streams)
{
	Sorted sorted;

	sort_streams(store, touched, count, upper, streams, &sorted);
	if (sorted.narchived > 0)
		lock_archived_streams(store, &sorted, streams);
	if (sorted.nempty > 0)
		close_sorted(store, &sorted, streams);
}

/* Streams of which nothing but the id is known. */
static RfTouched *
touched_streams(const RfStreamId *ids, int count)
{
	RfTouched *touched = palloc0(sizeof(RfTouched) * Max(count, 1));

	for (int i = 0; i < count; i++)
	{
		touched[i].stream = ids[i];
		touched[i].highest = PG_INT32_MAX;
	}
	return touched;
}

/*
 * Close those of the streams that are empty now, wherever their last event
 * lies.  Those that other transactions hold stay undecided.
 */
void
rf_move_close(RfStore *store, const RfStreamId *ids, int count,
			  RfMoveStreams *streams)
{
	RfScope scope;

	rf_frame_flush();
	rf_partition_lock_default(store->events_hot);
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	for (int i = 0; i < count; i++)
		rf_move_stream(streams, &ids[i])->undecided = false;
	close_empty(store, touched_streams(ids, count), count, DATEVAL_NOEND,
				streams);
	rf_query_end(&scope);
}

/* Note in the ledger that streams were not closed, for the next move. */
void
rf_move_leave_open(RfStore *store, const RfStreamId *streams, int count)
{
	RfScope scope;

	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	rf_ledger_write_streams(store, "left open", streams, count,
							"held by other transactions");
	rf_query_end(&scope);
}

/* Note in the ledger that streams were closed for all flips until now. */
void
rf_move_note_flips_closed(RfStore *store)
{
	RfLedgerEntry entry = RF_LEDGER_ENTRY("flips closed");
	RfScope		  scope;

	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	rf_ledger_write(store, &entry);
	rf_query_end(&scope);
}

/*
 * Batches
 */

static RfPlan
batch_plan(RfStore *store, const RfMoveSpec *spec, const RfMoveCursor *cursor,
		   bool but_cold)
{
	BatchKind kind = spec->has_stream	 ? BATCH_STREAM :
					 spec->only_archived ? BATCH_ARCHIVED :
										   BATCH_ANY;

	return rf_store_plan_for(store, &move_batch[kind][but_cold][store->backend],
							 cursor->source, cursor->target);
}

/*
 * An event is in both tiers: somebody put it there past us.  Where the two
 * differ nobody can know which is right, and the move stops.
 */
static void
require_equal_doubles(RfStore *store, const RfMoveSpec *spec,
					  const RfMoveCursor *cursor, ErrorData *error)
{
	Datum values[2];

	values[0] = TimestampTzGetDatum(spec->before);
	values[1] = Int64GetDatum(spec->limit.global_seq);
	if (rf_query_run(rf_store_plan_for(store, &find_doubles, cursor->source,
									   InvalidOid),
					 values, NULL) == 0)
		ReThrowError(error);
	if (!DatumGetBool(rf_query_must(0, 3)))
		ereport(
			ERROR,
			(errcode(ERRCODE_UNIQUE_VIOLATION),
			 errmsg("event %d of stream %s is cold already, with other content",
					DatumGetInt32(rf_query_must(0, 2)),
					rf_query_uuid_text(DatumGetUUIDP(rf_query_must(0, 1)))),
			 errdetail("The hot event was left where it is."),
			 errhint("Find out which of the two is right.")));
}

/* What a batch did. */
typedef struct Outcome
{
	int64	   upper; /* the new cursor; 0: nothing was picked */
	int64	   picked;
	int64	   gone;
	int64	   come;
	int64	   doubles; /* left, because they are cold already */
	RfTouched *streams;
	int		   nstreams;
} Outcome;

/* The statement of a batch, and what it is run with. */
typedef struct BatchCall
{
	RfPlan plan;
	Datum  values[5];
} BatchCall;

static void
run_statement(void *arg)
{
	BatchCall *call = arg;

	rf_query_run_untriggered(call->plan, call->values, NULL);
}

static void
take_outcome(Outcome *outcome)
{
	bool		isnull;
	Datum		upper = rf_query_value(0, 1, &isnull);
	RfStreamId *ids;

	outcome->upper = isnull ? 0 : DatumGetInt64(upper);
	outcome->picked = DatumGetInt64(rf_query_must(0, 2));
	outcome->gone = DatumGetInt64(rf_query_must(0, 3));
	outcome->come = DatumGetInt64(rf_query_must(0, 4));
	ids = rf_stream_of_arrays(rf_query_must(0, 5), rf_query_must(0, 6),
							  &outcome->nstreams);
	outcome->streams = touched_streams(ids, outcome->nstreams);
}

/* Run a batch by its statement; false when it found an event in cold. */
static bool
try_statement(RfStore *store, const RfMoveSpec *spec,
			  const RfMoveCursor *cursor, BatchCall *call, Outcome *outcome,
			  ErrorData **error)
{
	call->plan = batch_plan(store, spec, cursor, false);
	call->values[0] = Int64GetDatum(cursor->after);
	call->values[1] = TimestampTzGetDatum(spec->before);
	call->values[2] = Int32GetDatum(spec->batch_size);
	call->values[3] = UUIDPGetDatum(&spec->stream_id);
	call->values[4] = Int64GetDatum(spec->limit.global_seq);
	if (!rf_query_attempt(run_statement, call, ERRCODE_UNIQUE_VIOLATION, error))
		return false;
	take_outcome(outcome);
	return true;
}

/* The same on the heap, where that will do. */
static bool
try_bulk(const RfStore *store, const RfMoveSpec *spec,
		 const RfMoveCursor *cursor, Outcome *outcome)
{
	RfBulk	   bulk = {0};
	ErrorData *error;

	bulk.source = cursor->source;
	bulk.target = cursor->target;
	bulk.after = cursor->after;
	bulk.up_to = spec->limit.global_seq;
	bulk.before = spec->before;
	bulk.tenant = store->tenant_number;
	bulk.limit = spec->batch_size;
	bulk.context = CurrentMemoryContext;
	if (spec->has_stream || spec->only_archived ||
		!rf_bulk_suffices(cursor->source, cursor->target) ||
		!rf_query_attempt(rf_bulk_move, &bulk, ERRCODE_UNIQUE_VIOLATION,
						  &error))
		return false;
	outcome->upper = bulk.upper;
	outcome->picked = bulk.picked;
	outcome->gone = outcome->come = bulk.moved;
	outcome->streams = bulk.streams;
	outcome->nstreams = bulk.nstreams;
	return true;
}

/*
 * Run a batch.  Events that are cold already, with the same content, are left
 * out and stay hot.
 */
static void
run_batch(RfStore *store, const RfMoveSpec *spec, const RfMoveCursor *cursor,
		  Outcome *outcome)
{
	BatchCall  call;
	ErrorData *error;

	memset(outcome, 0, sizeof(*outcome));
	if (try_bulk(store, spec, cursor, outcome) ||
		try_statement(store, spec, cursor, &call, outcome, &error))
		return;
	require_equal_doubles(store, spec, cursor, error);
	call.plan = batch_plan(store, spec, cursor, true);
	run_statement(&call);
	take_outcome(outcome);
	outcome->doubles = outcome->picked - outcome->gone;
	ereport(WARNING,
			(errcode(ERRCODE_UNIQUE_VIOLATION),
			 errmsg(INT64_FORMAT
					" events of \"%s\" are cold already, with equal content",
					outcome->doubles, get_rel_name(cursor->source)),
			 errdetail("The hot ones were left where they are.")));
}

static void
advance_cursor(RfMoveCursor *cursor, const RfMoveSpec *spec,
			   const Outcome *outcome)
{
	if (outcome->picked > 0)
		cursor->after = outcome->upper;
	cursor->exhausted = outcome->picked < spec->batch_size;
	if (spec->only_archived && !spec->has_stream &&
		outcome->gone + outcome->doubles < outcome->picked)
		cursor->skipped = true;
}

static void
log_batch(RfStore *store, const RfMoveSpec *spec, const RfMoveCursor *cursor,
		  const Outcome *outcome, TimestampTz started_at)
{
	RfLedgerEntry entry = RF_LEDGER_ENTRY("batch");

	if (spec->has_stream)
		entry.stream_id = &spec->stream_id;
	entry.bucket_month = cursor->month;
	entry.events = outcome->come;
	entry.streams = outcome->nstreams;
	entry.started_at = started_at;
	entry.detail = outcome->doubles == 0 ?
					   get_rel_name(cursor->source) :
					   psprintf("%s, " INT64_FORMAT
								" events left that are cold already",
								get_rel_name(cursor->source), outcome->doubles);
	rf_ledger_write(store, &entry);
}

/* Of one stream, and only if it is archived: lock it, and look. */
static bool
stream_may_move(RfStore *store, const RfMoveSpec *spec)
{
	Datum value = UUIDPGetDatum(&spec->stream_id);

	if (!spec->has_stream || !spec->only_archived)
		return true;
	return rf_query_run(rf_store_plan(store, &lock_archived), &value, NULL) > 0;
}

static void
require_silent(const RfStore *store, const RfMoveCursor *cursor)
{
	Oid cold = rf_store_tier_parent(store, RF_COLD);

	rf_partition_require_silent(cursor->source, false);
	if (store->backend == RF_PARTITIONED)
		rf_partition_require_silent(store->events, true);
	if (store->backend == RF_PARTITIONED || cursor->target == cold)
		rf_partition_require_all_silent(cold);
	else
		rf_partition_require_silent(cursor->target, true);
}

static int64
move_one_batch(RfStore *store, const RfMoveSpec *spec, RfMoveCursor *cursor,
			   RfMoveStreams *streams)
{
	TimestampTz started_at = GetCurrentTimestamp();
	Outcome		outcome;

	require_silent(store, cursor);
	RF_WAIT_POINT("move_before_delete");
	run_batch(store, spec, cursor, &outcome);
	advance_cursor(cursor, spec, &outcome);
	rf_partition_require_moved(outcome.gone, outcome.come, cursor->source);
	if (outcome.come == 0)
		return 0;
	for (int i = 0; i < outcome.nstreams; i++)
		rf_move_stream(streams, &outcome.streams[i].stream)->touched = true;
	RF_WAIT_POINT("move_before_close");
	if (!spec->only_archived)
		close_empty(store, outcome.streams, outcome.nstreams, cursor->upper,
					streams);
	log_batch(store, spec, cursor, &outcome, started_at);
	RF_WAIT_POINT("move_before_commit");
	return outcome.come;
}

/*
 * Move the next batch of a hot leaf, close the streams that it empties, and
 * write it into the ledger; the cursor goes on.  What is known of its streams
 * is noted down.  The caller commits.  Returns how many events were moved.
 */
int64
rf_move_batch(RfStore *store, const RfMoveSpec *spec, RfMoveCursor *cursor,
			  RfMoveStreams *streams)
{
	RfScope scope;
	int64	events = 0;

	rf_frame_flush();
	store = rf_store_lock_cold(store);
	if (!resolve_leaves(store, cursor))
	{
		cursor->exhausted = true;
		return 0;
	}
	rf_partition_lock_default(store->events_hot);
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	if (stream_may_move(store, spec))
		events = move_one_batch(store, spec, cursor, streams);
	else
		cursor->exhausted = true;
	rf_query_end(&scope);
	return events;
}
