/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  Moves as a whole: the loop over leaves and batches, and its commits.
 *
 * rf_archive_move() runs the loop in the caller's transaction,
 * rf_archive_run() commits after each batch.  Whatever has to be kept over a
 * commit lives in a memory context of the loop; the store is looked up again
 * in each transaction.
 *
 * rf_archive_run() makes the cold months that lack, each in a transaction of
 * its own before the first batch that needs it.  rf_archive_move() makes none:
 * its locks would last as long as the caller's transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "tcop/tcopprot.h"
#include "utils/array.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "consumer.h"
#include "flip.h"
#include "guc.h"
#include "lock.h"
#include "move.h"
#include "partition.h"
#include "plan.h"
#include "query.h"
#include "store.h"

/* How often a long move says how far it is. */
#define PROGRESS_INTERVAL_MS 1000

/* How long to wait before streams that others hold are tried again. */
#define RETRY_INTERVAL_MS 20

/*
 * How long streams are let go after each batch: a reactivation that waits for
 * one would find it locked again otherwise.
 */
#define FAIRNESS_PAUSE_MS 1

/*
 * How long to wait for who holds streams where rillflow.lock_timeout sets no
 * limit: we poll, and the deadlock detector would not see us wait.
 */
#define HOLDERS_TIMEOUT_MS 1000

/* How many streams are closed in one transaction when a move ends. */
#define CLOSE_BATCH 1000

/*
 * After a flip that others waited for: so many times as long as it took, and
 * no longer than that.
 */
#define YIELD_FACTOR 20
#define LONGEST_YIELD_MS 1000

typedef struct MoveLoop
{
	MemoryContext context; /* lives as long as the loop */
	MemoryContext step;	   /* emptied after each step */
	Oid			  namespace_id;
	RfStore		 *store; /* of this transaction */
	RfMoveSpec	 *spec;
	bool		  commits; /* are we the owner of the transaction? */
	TimestampTz	  started_at;
	TimestampTz	  deadline; /* stop there; DT_NOEND: never */
	TimestampTz	  reported_at;
	bool		  out_of_time;
	bool		  makes_months; /* as long as it gets the locks */
	int64		  expected;		/* about how many events there are to move */
	int64		  events;
	int32		  batches;
	int32		  flips;
	HTAB		 *streams; /* RfMoveStream */
} MoveLoop;

static int64
count_touched(MoveLoop *loop)
{
	HASH_SEQ_STATUS status;
	RfMoveStream   *stream;
	int64			count = 0;

	hash_seq_init(&status, loop->streams);
	while ((stream = hash_seq_search(&status)) != NULL)
		count += stream->touched ? 1 : 0;
	return count;
}

/*
 * Transactions of the loop
 */

static void
begin_step(MoveLoop *loop)
{
	if (loop->commits)
		PushActiveSnapshot(GetTransactionSnapshot());
	loop->store = rf_store_in(loop->namespace_id, false);
	MemoryContextSwitchTo(loop->step);
}

/*
 * A step that decides what goes, or takes it.  No consumer registers until its
 * transaction ends, so that its limit holds.
 */
static void
begin_limited_step(MoveLoop *loop)
{
	RfMoveSpec *spec = loop->spec;

	begin_step(loop);
	if (!spec->ignore_consumers)
		rf_consumer_keep(loop->store);
	rf_consumer_limit(loop->store, spec->ignore_consumers, &spec->limit);
}

/* What a step leaves in its memory goes; what is to last is copied before. */
static void
end_step(MoveLoop *loop)
{
	MemoryContextSwitchTo(loop->context);
	MemoryContextReset(loop->step);
	if (!loop->commits)
		return;
	PopActiveSnapshot();
	rf_query_commit();
	MemoryContextSwitchTo(loop->context);
}

/*
 * Progress
 */

static void
report_progress(MoveLoop *loop)
{
	TimestampTz now = GetCurrentTimestamp();
	double		seconds = (now - loop->started_at) / 1000000.0;
	double		rate = seconds > 0 ? loop->events / seconds : 0;
	int64		left = Max(loop->expected - loop->events, 0);
	char	   *message;

	if (!TimestampDifferenceExceeds(loop->reported_at, now,
									PROGRESS_INTERVAL_MS))
		return;
	loop->reported_at = now;
	message = psprintf("moved " INT64_FORMAT " of about " INT64_FORMAT
					   " events, %.0f a second, about %.0f s left",
					   loop->events, loop->events + left, rate,
					   rate > 0 ? left / rate : 0.0);
	ereport(NOTICE, (errmsg_internal("%s", message)));
	pgstat_report_activity(STATE_RUNNING, psprintf("rf_archive: %s", message));
	pfree(message);
}

static bool
time_is_up(MoveLoop *loop)
{
	if (!loop->out_of_time && GetCurrentTimestamp() >= loop->deadline)
		loop->out_of_time = true;
	return loop->out_of_time;
}

/*
 * The loop
 */

typedef struct MonthCall
{
	RfStore	  *store;
	DateADT	   month;
	bool	   made;
	ErrorData *error; /* why not */
} MonthCall;

static void
make_month(void *arg)
{
	MonthCall *call = arg;

	(void) rf_partition_create(call->store, RF_COLD, call->month, NULL);
}

static void
make_unless_locked(void *arg)
{
	MonthCall *call = arg;

	call->made = rf_query_attempt(make_month, call, ERRCODE_LOCK_NOT_AVAILABLE,
								  &call->error);
}

/*
 * Make a cold month.  Where another table has its name, or its locks are not to
 * be had in time, its events go to the default partition; then we leave the
 * readers in peace from now on.
 */
static void
try_month(MoveLoop *loop, DateADT month)
{
	MonthCall call = {.store = loop->store, .month = month};

	if (!rf_query_attempt(make_unless_locked, &call, ERRCODE_DUPLICATE_TABLE,
						  &call.error))
		call.made = false;
	else if (!call.made)
		loop->makes_months = false;
	if (call.made)
		return;
	ereport(
		NOTICE,
		(errmsg(
			 "a cold month could not be made, and events go to the default partition"),
		 errdetail_internal("%s", call.error->message)));
}

/*
 * Make the cold months that the events of a leaf go to, where we may commit
 * right after: nobody should wait for a whole move to end.  False: the leaf
 * has no events to move.
 */
static bool
prepare_months(MoveLoop *loop, const RfPartition *source)
{
	List	 *months;
	ListCell *cell;

	begin_limited_step(loop);
	MemoryContextSwitchTo(loop->context);
	months = rf_plan_months(loop->store, loop->spec, source);
	end_step(loop);
	foreach(cell, months)
	{
		DateADT month = lfirst_int(cell);

		CHECK_FOR_INTERRUPTS();
		if (!loop->makes_months || !rf_partition_month_has_name(month))
			continue;
		begin_step(loop);
		try_month(loop, month);
		end_step(loop);
	}
	return months != NIL;
}

static void
start_cursor(const RfPartition *source, RfMoveCursor *cursor)
{
	memset(cursor, 0, sizeof(*cursor));
	cursor->source = source->relid;
	cursor->month = rf_partition_is_month(source) ? source->lower :
													DATEVAL_NOEND;
	cursor->upper = source->upper;
}

static void
run_batches(MoveLoop *loop, RfMoveCursor *cursor)
{
	cursor->after = 0;
	cursor->exhausted = false;
	while (!cursor->exhausted && !time_is_up(loop))
	{
		int64 events;

		CHECK_FOR_INTERRUPTS();
		begin_limited_step(loop);
		events = rf_move_batch(loop->store, loop->spec, cursor, loop->streams);
		end_step(loop);
		loop->events += events;
		loop->batches += events > 0 ? 1 : 0;
		report_progress(loop);
		if (loop->commits && loop->spec->only_archived)
			rf_lock_pause(FAIRNESS_PAUSE_MS);
	}
}

/*
 * Wait a little for others to let go of streams, until it has been as long as
 * a lock may be waited for.
 */
static bool
wait_for_holders(MoveLoop *loop, TimestampTz since)
{
	int longest = rf_guc_lock_timeout > 0 ? rf_guc_lock_timeout :
											HOLDERS_TIMEOUT_MS;

	if (time_is_up(loop) ||
		TimestampDifferenceExceeds(since, GetCurrentTimestamp(), longest))
		return false;
	rf_lock_pause(RETRY_INTERVAL_MS);
	return true;
}

/* Move what is due out of one leaf; streams that others hold come last. */
static void
move_leaf(MoveLoop *loop, const RfPartition *source)
{
	RfMoveCursor cursor;
	TimestampTz	 since;

	if (!prepare_months(loop, source))
		return;
	start_cursor(source, &cursor);
	run_batches(loop, &cursor);
	since = GetCurrentTimestamp();
	while (cursor.skipped && wait_for_holders(loop, since))
	{
		cursor.skipped = false;
		run_batches(loop, &cursor);
	}
	if (cursor.skipped)
		ereport(
			NOTICE,
			(errmsg(
				"events of streams that other transactions hold were left")));
	begin_step(loop);
	rf_store_forget_plans(loop->store, source->relid);
	end_step(loop);
}

/*
 * Flips
 */

typedef struct FlipCall
{
	RfStore	   *store;
	DateADT		month;
	bool		ignore_consumers;
	bool		had_locks;
	TimestampTz locked_at;	/* since when; 0: another session had flipped it */
	ErrorData  *locked_out; /* when they were not to be had */
} FlipCall;

static void
flip_month(void *arg)
{
	FlipCall *call = arg;

	(void) rf_flip_month(call->store, RF_COLD, call->month,
						 call->ignore_consumers, &call->locked_at);
}

static void
flip_unless_locked(void *arg)
{
	FlipCall *call = arg;

	call->had_locks = rf_query_attempt(flip_month, call,
									   ERRCODE_LOCK_NOT_AVAILABLE,
									   &call->locked_out);
}

/*
 * Flip a month.  Where that is refused, false: it goes by rows.  Where the
 * locks are not to be had, a move that commits leaves the month to the next
 * one, and one that does not fails.  *locked_at is since when we have locked
 * the tables, 0 when we have not.
 */
static bool
try_flip(MoveLoop *loop, const RfPartition *source, TimestampTz *locked_at)
{
	FlipCall   call = {.store = loop->store,
					   .month = source->lower,
					   .ignore_consumers = loop->spec->ignore_consumers};
	ErrorData *refused;

	*locked_at = 0;
	if (!rf_query_attempt(flip_unless_locked, &call,
						  ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, &refused))
	{
		ereport(NOTICE, (errmsg("%s, and goes by rows", refused->message),
						 refused->detail == NULL ?
							 0 :
							 errdetail_internal("%s", refused->detail)));
		return false;
	}
	if (call.had_locks)
	{
		*locked_at = call.locked_at;
		loop->flips += call.locked_at != 0 ? 1 : 0;
	}
	else if (loop->commits)
		ereport(NOTICE, (errmsg("month %s was left where it is",
								rf_partition_date_text(source->lower)),
						 errdetail_internal("%s", call.locked_out->message),
						 errhint("The next move takes it up.")));
	else
		ReThrowError(call.locked_out);
	return true;
}

/* Bring what is cold of a month back, for the whole of it to flip. */
static void
join_rival(MoveLoop *loop, const RfPartition *source)
{
	int64 moved = 1;

	while (moved > 0 && !time_is_up(loop))
	{
		RfStore *store;
		Oid		 rival;

		CHECK_FOR_INTERRUPTS();
		begin_step(loop);
		store = rf_store_lock_cold(loop->store);
		rival = rf_partition_of_month(rf_store_tier_parent(store, RF_COLD),
									  source->lower);
		moved = OidIsValid(rival) ?
					rf_flip_absorb(store, rival, source->relid,
								   loop->spec->batch_size, PG_INT64_MAX) :
					0;
		end_step(loop);
	}
}

/*
 * Flip in a step of its own.  Who waited for it goes first: the next flip
 * comes when they had the tables for longer than it did.
 */
static bool
flip_and_yield(MoveLoop *loop, const RfPartition *source)
{
	TimestampTz locked_at;
	bool		wanted;
	bool		done;
	long		held;

	begin_step(loop);
	done = try_flip(loop, source, &locked_at);
	wanted = loop->commits && locked_at != 0 &&
			 rf_lock_is_wanted(loop->store->events);
	end_step(loop);
	held = TimestampDifferenceMilliseconds(locked_at, GetCurrentTimestamp());
	if (wanted && !time_is_up(loop))
		rf_lock_pause(Min(YIELD_FACTOR * Max(held, 1), LONGEST_YIELD_MS));
	return done;
}

/* Flip the month of a leaf where that is how it goes; false: by rows. */
static bool
flip_leaf(MoveLoop *loop, const RfPartition *source)
{
	RfMethod method;
	char	*reason;

	begin_limited_step(loop);
	method = rf_plan_method(loop->store, loop->spec, source, &reason);
	end_step(loop);
	if (method == RF_BY_FLIP_JOINED)
		join_rival(loop, source);
	if (method == RF_BY_ROWS || time_is_up(loop))
		return false;
	return flip_and_yield(loop, source);
}

/* Close one page of the streams that flips have emptied; false: the last. */
static bool
close_page(MoveLoop *loop, DateADT until, pg_uuid_t *from)
{
	Datum *ids;
	int	   count;

	begin_step(loop);
	deconstruct_array(rf_plan_emptied(loop->store, loop->spec, until, from),
					  UUIDOID, UUID_LEN, false, TYPALIGN_CHAR, &ids, NULL,
					  &count);
	if (count > 0)
	{
		rf_move_close(loop->store, ids, count, loop->streams);
		*from = *DatumGetUUIDP(ids[count - 1]);
	}
	end_step(loop);
	return count == RF_PLAN_PAGE;
}

/*
 * Close the streams that flips have emptied, those of rf_flip_partition(), and
 * of moves that were cut short, too.
 */
static void
close_flipped(MoveLoop *loop)
{
	pg_uuid_t from = {{0}};
	DateADT	  until;

	begin_step(loop);
	until = rf_plan_flipped_until(loop->store);
	end_step(loop);
	if (DATE_IS_NOBEGIN(until))
		return;
	while (close_page(loop, until, &from))
		CHECK_FOR_INTERRUPTS();
	begin_step(loop);
	rf_move_note_flips_closed(loop->store);
	end_step(loop);
}

/*
 * Closing
 */

static Datum *
list_undecided(MoveLoop *loop, int *count)
{
	Datum		   *ids = palloc(sizeof(Datum) *
								 Max(hash_get_num_entries(loop->streams), 1));
	HASH_SEQ_STATUS status;
	RfMoveStream   *stream;

	*count = 0;
	hash_seq_init(&status, loop->streams);
	while ((stream = hash_seq_search(&status)) != NULL)
	{
		if (stream->undecided)
			ids[(*count)++] = UUIDPGetDatum(&stream->stream_id);
	}
	return ids;
}

/* Go once through the streams that are undecided; are there any still? */
static bool
close_pass(MoveLoop *loop)
{
	int	   count;
	Datum *ids = list_undecided(loop, &count);

	for (int done = 0; done < count; done += CLOSE_BATCH)
	{
		begin_step(loop);
		rf_move_close(loop->store, ids + done, Min(CLOSE_BATCH, count - done),
					  loop->streams);
		end_step(loop);
	}
	pfree(ids);
	pfree(list_undecided(loop, &count));
	return count > 0;
}

/* What others hold all the time is left to the next move. */
static void
leave_open(MoveLoop *loop)
{
	int	   count;
	Datum *ids = list_undecided(loop, &count);

	begin_step(loop);
	rf_move_leave_open(loop->store, rf_query_array(ids, count, UUIDOID));
	end_step(loop);
	ereport(NOTICE,
			(errmsg("streams that other transactions hold were not closed: %d",
					count),
			 errhint("The next move closes them.")));
}

static void
close_rest(MoveLoop *loop)
{
	TimestampTz since = GetCurrentTimestamp();

	while (close_pass(loop))
	{
		if (!wait_for_holders(loop, since))
		{
			leave_open(loop);
			break;
		}
	}
}

/* Streams that earlier moves have left open are undecided. */
static void
take_up_left_open(MoveLoop *loop)
{
	Datum *ids;
	int	   count;

	deconstruct_array(rf_plan_left_open(loop->store), UUIDOID, UUID_LEN, false,
					  TYPALIGN_CHAR, &ids, NULL, &count);
	for (int i = 0; i < count; i++)
		rf_move_stream(loop->streams, DatumGetUUIDP(ids[i]))->undecided = true;
}

/* Whose limit it was, where there was more to move. */
static void
report_held_back(MoveLoop *loop)
{
	if (time_is_up(loop))
		return;
	begin_limited_step(loop);
	rf_plan_report_held_back(loop->store, loop->spec);
	end_step(loop);
}

static void
run_loop(MoveLoop *loop)
{
	List	 *sources;
	ListCell *cell;

	loop->started_at = loop->reported_at = GetCurrentTimestamp();
	loop->streams = rf_move_make_streams(loop->context);
	begin_step(loop);
	MemoryContextSwitchTo(loop->context);
	sources = rf_plan_sources(loop->store, loop->spec);
	loop->expected = rf_plan_estimate(loop->store, loop->spec);
	if (!loop->spec->has_stream)
		take_up_left_open(loop);
	end_step(loop);
	foreach(cell, sources)
	{
		if (time_is_up(loop))
			break;
		if (!flip_leaf(loop, lfirst(cell)))
			move_leaf(loop, lfirst(cell));
	}
	if (!loop->spec->has_stream && !loop->spec->only_archived)
		close_flipped(loop);
	close_rest(loop);
	report_held_back(loop);
	pgstat_report_activity(STATE_RUNNING, debug_query_string);
}

/*
 * SQL interface
 */

PG_FUNCTION_INFO_V1(rf_archive_move);
PG_FUNCTION_INFO_V1(rf_archive_run);

/* before, batch_size, stream_id, only_archived; and, the sixth, consumers */
static void
read_spec(FunctionCallInfo fcinfo, RfMoveSpec *spec)
{
	rf_plan_read_before(fcinfo, spec);
	spec->batch_size = PG_ARGISNULL(1) ? rf_guc_batch_size : PG_GETARG_INT32(1);
	if (spec->batch_size < 1 || spec->batch_size > RF_MAX_BATCH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"batch_size\" must be from 1 to %d", RF_MAX_BATCH)));
	spec->has_stream = !PG_ARGISNULL(2);
	if (spec->has_stream)
		spec->stream_id = *PG_GETARG_UUID_P(2);
	spec->only_archived = !PG_ARGISNULL(3) && PG_GETARG_BOOL(3);
	spec->ignore_consumers = !PG_ARGISNULL(5) && PG_GETARG_BOOL(5);
}

static void
init_loop(MoveLoop *loop, RfMoveSpec *spec, RfStore *store)
{
	memset(loop, 0, sizeof(*loop));
	loop->context = CurrentMemoryContext;
	loop->step = AllocSetContextCreate(loop->context, "Rillflow step",
									   ALLOCSET_DEFAULT_SIZES);
	loop->namespace_id = store->namespace_id;
	loop->spec = spec;
	loop->commits = loop->makes_months = spec->commits;
	loop->deadline = DT_NOEND;
}

Datum
rf_archive_move(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		   dry_run = !PG_ARGISNULL(4) && PG_GETARG_BOOL(4);
	char		  *tenant = RF_GETARG_STRING(6);
	RfMoveSpec	   spec;
	MoveLoop	   loop;
	int64		   touched;
	Datum		   values[4];
	bool		   nulls[4] = {0};

	read_spec(fcinfo, &spec);
	if (!dry_run)
		PreventCommandIfReadOnly("rf_archive_move()");
	init_loop(&loop, &spec, rf_store_get(tenant, RF_RIGHT_ARCHIVE));
	if (dry_run)
	{
		loop.store = rf_store_in(loop.namespace_id, false);
		rf_consumer_limit(loop.store, spec.ignore_consumers, &spec.limit);
		rf_plan_count(loop.store, &spec, &loop.events, &touched, &loop.batches,
					  &loop.flips);
		rf_plan_report_held_back(loop.store, &spec);
	}
	else
	{
		run_loop(&loop);
		touched = count_touched(&loop);
	}
	values[0] = Int64GetDatum(loop.events);
	values[1] = Int64GetDatum(touched);
	values[2] = Int32GetDatum(loop.batches);
	values[3] = Int32GetDatum(loop.flips);
	InitMaterializedSRF(fcinfo, 0);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	return (Datum) 0;
}

static void
require_no_transaction_block(FunctionCallInfo fcinfo)
{
	if (fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
		castNode(CallContext, fcinfo->context)->atomic)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
			 errmsg("rf_archive_run() cannot run inside a transaction block"),
			 errhint(
				 "It commits after each batch; rf_archive_move() does not.")));
}

static TimestampTz
deadline_after(Interval *runtime)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz deadline = DatumGetTimestampTz(
		DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(now),
							IntervalPGetDatum(runtime)));

	if (deadline <= now)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("\"max_runtime\" must be positive")));
	return deadline;
}

Datum
rf_archive_run(PG_FUNCTION_ARGS)
{
	char	   *tenant;
	TimestampTz deadline = DT_NOEND;
	RfMoveSpec	spec;
	List	   *stores;
	List	   *schemas = NIL;
	ListCell   *cell;

	require_no_transaction_block(fcinfo);
	read_spec(fcinfo, &spec);
	spec.commits = true;
	PreventCommandIfReadOnly("rf_archive_run()");
	if (!PG_ARGISNULL(4))
		deadline = deadline_after(PG_GETARG_INTERVAL_P(4));

	/* from here on memory has to outlive the transactions */
	rf_query_connect_nonatomic();
	tenant = RF_GETARG_STRING(6);
	stores = rf_store_list(tenant, RF_RIGHT_ARCHIVE);
	foreach(cell, stores)
		schemas = lappend_oid(schemas,
							  ((RfStore *) lfirst(cell))->namespace_id);
	foreach(cell, schemas)
	{
		MoveLoop loop;

		init_loop(&loop, &spec, rf_store_in(lfirst_oid(cell), false));
		loop.deadline = deadline;
		run_loop(&loop);
		ereport(NOTICE,
				(errmsg("schema \"%s\": " INT64_FORMAT
						" events moved, " INT64_FORMAT
						" streams touched, %d batches, %d months flipped",
						get_namespace_name(lfirst_oid(cell)), loop.events,
						count_touched(&loop), loop.batches, loop.flips),
				 loop.out_of_time ? errdetail("Stopped at max_runtime.") : 0));
	}
	rf_query_disconnect();
	PG_RETURN_VOID();
}
