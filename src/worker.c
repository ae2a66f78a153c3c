/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  Moves as a whole: the loop over leaves and batches, and its commits.
 *
 * rf_archive_move() runs the loop in the caller's transaction,
 * rf_archive_run() and the runs of policies commit after each step.  Whatever
 * has to be kept over a commit lives in a memory context of the loop; the store
 * is looked up again in each transaction.
 *
 * A loop that commits makes the cold months that lack, each in a transaction of
 * its own before the first batch that needs it.  rf_archive_move() makes none:
 * its locks would last as long as the caller's transaction.
 *
 * A loop with a throttle yields to others.  Each of its steps runs in a
 * subtransaction and waits for no lock for long; where others stand in the way
 * it is undone, with all that was noted down about it, and tried again in the
 * next transaction.  What can't be had for long is left to the next run.
 *
 * A run of all stores has to go on when one of them fails, and a procedure in
 * C can't catch an error and roll back: the connections of whatever failed
 * would stay behind.  So each of its steps runs in a subtransaction, too; when
 * that fails the loop ends with an empty transaction, and the next store has
 * its turn.
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
#include "portability/instr_time.h"
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
#include "throttle.h"
#include "wait_point.h"
#include "worker.h"

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

/* How long a throttled loop waits for locks where it sets none. */
#define LOCK_WAIT_MS 500

/* How often we look whether replicas are where they should be. */
#define REPLICA_INTERVAL_MS 500

/* How many streams are closed in one transaction when a move ends. */
#define CLOSE_BATCH 1000

/*
 * After a flip that others waited for: so many times as long as it took, and
 * no longer than that.
 */
#define YIELD_FACTOR 20
#define LONGEST_YIELD_MS 1000

/* Months of earlier flips that a run counts. */
#define MOST_COUNTED 12

typedef struct MoveLoop
{
	MemoryContext  context; /* lives as long as the loop */
	MemoryContext  step;	/* emptied after each step */
	Oid			   namespace_id;
	uint32		   tenant_number; /* to whom it is restricted; 0: to nobody */
	RfStore		  *store;		  /* of this transaction */
	RfMoveSpec	   spec;		  /* of this step */
	bool		   commits;		  /* are we the owner of the transaction? */
	RfLoopControl  control;
	TimestampTz	   started_at;
	TimestampTz	   reported_at;
	bool		   out_of_time;
	bool		   stopped;		 /* by the owner */
	bool		   makes_months; /* as long as it gets the locks */
	RfProgress	   progress;
	int64		   work_time; /* of the last step, in microseconds */
	int64		   commit_time;
	char		  *left_for; /* set: something was left because of that */
	bool		   catches;	 /* do others go on when this store fails? */
	ErrorData	  *failure;	 /* what it failed with, and the loop ended */
	RfMoveStreams *streams;
} MoveLoop;

static int64
count_touched(MoveLoop *loop)
{
	HASH_SEQ_STATUS status;
	RfMoveStream   *stream;
	int64			count = 0;

	hash_seq_init(&status, loop->streams->known);
	while ((stream = hash_seq_search(&status)) != NULL)
		count += stream->touched ? 1 : 0;
	return count;
}

/* Is there no time left, or does the owner want no more? */
static bool
is_over(MoveLoop *loop)
{
	if (!loop->out_of_time && GetCurrentTimestamp() >= loop->control.deadline)
		loop->out_of_time = true;
	return loop->out_of_time || loop->stopped || loop->failure != NULL;
}

static void
set_held_back(RfProgress *progress, const char *by)
{
	snprintf(progress->held_back_by, RF_HELD_BACK_LEN, "%s", by);
}

/* What is to be told of an error, in the current memory context. */
static ErrorData *
copy_error(const ErrorData *error)
{
	ErrorData *result = palloc0(sizeof(ErrorData));

	result->sqlerrcode = error->sqlerrcode;
	result->message = pstrdup(error->message);
	if (error->detail != NULL)
		result->detail = pstrdup(error->detail);
	if (error->hint != NULL)
		result->hint = pstrdup(error->hint);
	return result;
}

/* Something is left to the next run. */
static void
leave(MoveLoop *loop, const char *held_back_by)
{
	if (loop->left_for == NULL)
		loop->left_for = MemoryContextStrdup(loop->context, held_back_by);
}

/* The store failed with an error that was caught. */
static void
fail(MoveLoop *loop, const ErrorData *error)
{
	MemoryContext old = MemoryContextSwitchTo(loop->context);

	if (loop->failure == NULL)
		loop->failure = copy_error(error);
	MemoryContextSwitchTo(old);
}

/*
 * Steps: each is a transaction of a loop that commits
 */

typedef void (*StepWork)(MoveLoop *loop, void *arg);

typedef struct Step
{
	MoveLoop *loop;
	StepWork  work;
	void	 *arg;
	int		  lock_wait; /* in milliseconds, where there is a throttle */
} Step;

static void
begin_step(MoveLoop *loop)
{
	loop->store = NULL;
	if (loop->commits)
		PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(loop->step);
}

/* What a step leaves in its memory goes; what is to last is copied before. */
static void
end_step(MoveLoop *loop)
{
	ErrorData *error;

	MemoryContextSwitchTo(loop->context);
	MemoryContextReset(loop->step);
	if (!loop->commits)
		return;
	PopActiveSnapshot();
	if (!loop->catches)
		rf_query_commit();
	else if (!rf_query_try_commit(&error))
		fail(loop, error);
	MemoryContextSwitchTo(loop->context);
}

static void
find_loop_store(MoveLoop *loop)
{
	loop->store = rf_store_of_tenant(rf_store_in(loop->namespace_id, false),
									 loop->tenant_number);
}

static void
work_on_store(Step *step)
{
	MoveLoop *loop = step->loop;

	find_loop_store(loop);
	step->work(loop, step->arg);
}

static void
work_in_scope(void *arg)
{
	Step *step = arg;

	MemoryContextSwitchTo(step->loop->step);
	work_on_store(step);
}

static void
work_within_limit(void *arg)
{
	Step   *step = arg;
	RfScope scope;

	rf_query_begin(&scope, InvalidOid, 0);
	MemoryContextSwitchTo(step->loop->step);
	rf_lock_limit_waits(step->lock_wait);
	work_on_store(step);
	rf_query_end(&scope);
}

/*
 * Do the work of a step; with a throttle, false where others stand in the way,
 * and all is as before.
 */
static bool
attempt(Step *step, int *sqlstate)
{
	MoveLoop  *loop = step->loop;
	RfProgress before = loop->progress;
	ErrorData *error;

	if (loop->catches)
	{
		if (!rf_query_attempt(work_in_scope, step, RF_ANY_ERROR, &error))
			fail(loop, error);
		return true;
	}
	if (loop->control.throttle == NULL)
	{
		work_on_store(step);
		return true;
	}
	rf_move_begin_attempt(loop->streams);
	if (rf_query_attempt(work_within_limit, step, RF_ANY_CONTENTION, &error))
		return true;
	rf_move_undo_attempt(loop->streams);
	loop->progress = before;
	*sqlstate = error->sqlerrcode;
	return false;
}

static void
ask_owner(MoveLoop *loop, void *arg)
{
	const RfLoopControl *control = &loop->control;

	if (!control->on_step(loop->store, &loop->progress, control->arg))
		loop->stopped = true;
}

/*
 * Tell the owner of the loop how far it is.  Where he can't write that down at
 * once, the step is worth more than the note of it.
 */
static void
tell_owner(MoveLoop *loop)
{
	RfThrottle *throttle = loop->control.throttle;
	Step		step = {.loop = loop,
						.work = ask_owner,
						.lock_wait = RF_BATCH_LOCK_WAIT_MS};
	int			sqlstate;

	if (loop->control.on_step == NULL)
		return;
	loop->progress.batch_size = loop->spec.batch_size;
	if (throttle != NULL)
	{
		loop->progress.batch_size = throttle->size;
		set_held_back(&loop->progress, throttle->held_back_by);
	}
	(void) attempt(&step, &sqlstate);
}

static int64
microseconds_since(instr_time *begin)
{
	instr_time now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, *begin);
	return INSTR_TIME_GET_MICROSEC(now);
}

/*
 * Try a step once; false where others stand in the way.  *again tells whether
 * it may be tried again.
 */
static bool
try_step(Step *step, bool *again)
{
	MoveLoop   *loop = step->loop;
	RfThrottle *throttle = loop->control.throttle;
	RfProgress	before = loop->progress;
	instr_time	begin;
	int			sqlstate;
	bool		done;

	INSTR_TIME_SET_CURRENT(begin);
	if (throttle != NULL)
		loop->spec.batch_size = throttle->size;
	begin_step(loop);
	done = attempt(step, &sqlstate);
	if (!done)
		*again = rf_throttle_refused(throttle, sqlstate);
	tell_owner(loop);
	loop->work_time = microseconds_since(&begin);
	end_step(loop);
	if (loop->failure != NULL)
		loop->progress = before;
	loop->commit_time = microseconds_since(&begin) - loop->work_time;
	return done;
}

/*
 * Do a step; with a throttle, until nobody stands in the way.  False where that
 * would take too long: the next run has to take up what is left.
 */
static bool
do_step_within(MoveLoop *loop, int lock_wait, StepWork work, void *arg)
{
	Step step = {.loop = loop,
				 .work = work,
				 .arg = arg,
				 .lock_wait = lock_wait};
	bool again;

	if (loop->failure != NULL)
		return false;
	while (!try_step(&step, &again))
	{
		if (!again || is_over(loop))
		{
			leave(loop, loop->control.throttle->held_back_by);
			return false;
		}
		rf_lock_pause(loop->control.throttle->pause);
	}
	return loop->failure == NULL;
}

static bool
do_step(MoveLoop *loop, StepWork work, void *arg)
{
	int lock_wait = rf_guc_lock_timeout > 0 ? rf_guc_lock_timeout :
											  LOCK_WAIT_MS;

	return do_step_within(loop, lock_wait, work, arg);
}

static void
do_nothing(MoveLoop *loop, void *arg)
{
}

/*
 * As long as a replica is behind, do nothing but tell the owner, who may want
 * us to stop.  No snapshot and no lock is held meanwhile.
 */
static void
wait_for_replicas(MoveLoop *loop)
{
	Step step = {.loop = loop,
				 .work = do_nothing,
				 .lock_wait = RF_BATCH_LOCK_WAIT_MS};
	bool again;

	if (loop->control.throttle == NULL)
		return;
	while (!is_over(loop) && rf_throttle_is_behind(loop->control.throttle))
	{
		(void) try_step(&step, &again);
		rf_lock_pause(REPLICA_INTERVAL_MS);
	}
}

/*
 * Progress
 */

static void
report_progress(MoveLoop *loop)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		events = loop->progress.events;
	double		seconds = (now - loop->started_at) / 1000000.0;
	double		rate = seconds > 0 ? events / seconds : 0;
	int64		left = Max(loop->progress.expected - events, 0);
	char	   *message;

	if (!TimestampDifferenceExceeds(loop->reported_at, now,
									PROGRESS_INTERVAL_MS))
		return;
	loop->reported_at = now;
	message = psprintf("moved " INT64_FORMAT " of about " INT64_FORMAT
					   " events, %.0f a second, about %.0f s left",
					   events, events + left, rate,
					   rate > 0 ? left / rate : 0.0);
	ereport(NOTICE, (errmsg_internal("%s", message)));
	pgstat_report_activity(STATE_RUNNING, psprintf("rf_archive: %s", message));
	pfree(message);
}

/*
 * The loop
 */

/*
 * Make a cold month.  Where another table has its name, or its locks are not to
 * be had in time, its events go to the default partition; then we leave the
 * readers in peace from now on.
 */
static void
try_month(MoveLoop *loop, void *arg)
{
	ErrorData  *error;
	RfMonthMade made = rf_partition_try_create(loop->store, RF_COLD,
											   *(DateADT *) arg, &error);

	if (made == RF_MONTH_MADE)
		return;
	if (made == RF_MONTH_LOCKED)
		loop->makes_months = false;
	ereport(
		NOTICE,
		(errmsg(
			 "a cold month could not be made, and events go to the default partition"),
		 errdetail_internal("%s", error->message)));
}

/*
 * How far the step may go that decides what is taken, or takes it.  No consumer
 * registers until its transaction ends, so that the limit holds.
 */
static void
keep_consumers(MoveLoop *loop)
{
	RfMoveSpec *spec = &loop->spec;

	if (!spec->ignore_consumers)
		rf_consumer_keep(loop->store, loop->control.throttle == NULL);
	rf_consumer_limit(loop->store, spec->ignore_consumers, &spec->limit);
}

/* What is still to be asked of a leaf. */
typedef struct LeafCall
{
	const RfPartition *source;
	List			  *months; /* cold ones that it needs; NIL: no events */
	RfMethod		   method;
	int64			   events; /* about how many would flip */
} LeafCall;

static void
plan_months(MoveLoop *loop, void *arg)
{
	LeafCall *call = arg;

	keep_consumers(loop);
	MemoryContextSwitchTo(loop->context);
	call->months = rf_plan_months(loop->store, &loop->spec, call->source);
}

/*
 * Make the cold months that the events of a leaf go to, where we may commit
 * right after: nobody should wait for a whole move to end.  False: the leaf
 * has no events to move.
 */
static bool
prepare_months(MoveLoop *loop, const RfPartition *source)
{
	LeafCall  call = {.source = source};
	ListCell *cell;

	if (!do_step(loop, plan_months, &call))
		return false;
	foreach(cell, call.months)
	{
		DateADT month = lfirst_int(cell);

		CHECK_FOR_INTERRUPTS();
		if (loop->makes_months && rf_partition_month_has_name(month))
			(void) do_step(loop, try_month, &month);
	}
	return call.months != NIL;
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

typedef struct BatchCall
{
	const RfMoveCursor *from;
	RfMoveCursor		to;
	int64				events;
} BatchCall;

static void
move_batch(MoveLoop *loop, void *arg)
{
	BatchCall *call = arg;

	keep_consumers(loop);
	call->to = *call->from;
	call->events = rf_move_batch(loop->store, &loop->spec, &call->to,
								 loop->streams);
	loop->progress.events += call->events;
	loop->progress.batches += call->events > 0 ? 1 : 0;
}

/* Move a batch; false where it has to be left. */
static bool
run_batch(MoveLoop *loop, RfMoveCursor *cursor)
{
	BatchCall call = {.from = cursor};

	if (!do_step_within(loop, RF_BATCH_LOCK_WAIT_MS, move_batch, &call))
		return false;
	*cursor = call.to;
	if (loop->control.throttle != NULL && call.events > 0)
		rf_throttle_took(loop->control.throttle,
						 call.events >= loop->spec.batch_size, loop->work_time,
						 loop->commit_time);
	return true;
}

static void
run_batches(MoveLoop *loop, RfMoveCursor *cursor)
{
	cursor->after = 0;
	cursor->exhausted = false;
	wait_for_replicas(loop);
	while (!cursor->exhausted && !is_over(loop))
	{
		CHECK_FOR_INTERRUPTS();
		if (!run_batch(loop, cursor))
			break;
		report_progress(loop);
		if (loop->commits && loop->spec.only_archived)
			rf_lock_pause(FAIRNESS_PAUSE_MS);
		wait_for_replicas(loop);
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

	if (is_over(loop) ||
		TimestampDifferenceExceeds(since, GetCurrentTimestamp(), longest))
		return false;
	rf_lock_pause(RETRY_INTERVAL_MS);
	return true;
}

static void
forget_plans(MoveLoop *loop, void *arg)
{
	rf_store_forget_plans(loop->store, *(const Oid *) arg);
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
	{
		leave(loop, "locks");
		ereport(
			NOTICE,
			(errmsg(
				"events of streams that other transactions hold were left")));
	}
	(void) do_step(loop, forget_plans, &cursor.source);
}

/*
 * Flips
 */

typedef struct FlipCall
{
	RfStore	   *store;
	DateADT		month;
	Oid			leaf;	 /* set: what has flipped */
	bool		is_held; /* does the session keep writers out of it? */
	bool		late;	 /* has it flipped before this run? */
	bool		ignore_consumers;
	bool		had_locks;
	bool		refused;	/* it goes by rows */
	bool		wanted;		/* does anybody wait for the tables? */
	TimestampTz locked_at;	/* since when; 0: another session had flipped it */
	ErrorData  *locked_out; /* when they were not to be had */
} FlipCall;

static void
flip_month(void *arg)
{
	FlipCall *call = arg;

	call->leaf = rf_flip_month(call->store, RF_COLD, call->month,
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

static void
report_left_month(const FlipCall *call)
{
	ereport(NOTICE, (errmsg("month %s was left where it is",
							rf_partition_date_text(call->month)),
					 errdetail_internal("%s", call->locked_out->message),
					 errhint("The next move takes it up.")));
}

/*
 * Flip a month.  Where that is refused it goes by rows.  Where the locks are
 * not to be had, a move that commits leaves the month to the next one, and one
 * that does not fails.  locked_at is since when we have locked the tables, 0
 * when we have not.
 */
static void
try_flip(MoveLoop *loop, void *arg)
{
	FlipCall  *call = arg;
	ErrorData *reason;

	call->store = loop->store;
	call->locked_at = 0;
	call->wanted = false;
	call->refused = !rf_query_attempt(flip_unless_locked, call,
									  ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
									  &reason);
	if (call->refused)
	{
		call->locked_at = 0;
		ereport(NOTICE, (errmsg("%s, and goes by rows", reason->message),
						 reason->detail == NULL ?
							 0 :
							 errdetail_internal("%s", reason->detail)));
	}
	else if (call->had_locks)
	{
		loop->progress.months += call->locked_at != 0 ? 1 : 0;
		call->wanted = loop->commits && call->locked_at != 0 &&
					   rf_lock_is_wanted(loop->store->events);
		if (loop->commits && call->locked_at != 0)
		{
			rf_flip_hold(call->leaf);
			call->is_held = true;
		}
	}
	else if (loop->commits)
	{
		call->locked_at = 0;
		leave(loop, "locks");
		report_left_month(call);
	}
	else
		ReThrowError(call->locked_out);
}

typedef struct JoinCall
{
	DateADT month;
	Oid		large;
	int64	moved;
} JoinCall;

static void
absorb_rival(MoveLoop *loop, void *arg)
{
	JoinCall *call = arg;
	RfStore	 *store = rf_store_lock_cold(loop->store);
	Oid rival = rf_partition_of_month(rf_store_tier_parent(store, RF_COLD),
									  call->month);

	call->moved = OidIsValid(rival) ?
					  rf_flip_absorb(store, rival, call->large,
									 loop->spec.batch_size, PG_INT64_MAX) :
					  0;
}

/* Bring what is cold of a month back, for the whole of it to flip. */
static bool
join_rival(MoveLoop *loop, const RfPartition *source)
{
	JoinCall call = {.month = source->lower, .large = source->relid};

	call.moved = 1;
	while (call.moved > 0 && !is_over(loop))
	{
		CHECK_FOR_INTERRUPTS();
		wait_for_replicas(loop);
		if (!do_step_within(loop, RF_BATCH_LOCK_WAIT_MS, absorb_rival, &call))
			return false;
		if (loop->control.throttle != NULL && call.moved > 0)
			rf_throttle_took(loop->control.throttle,
							 call.moved >= loop->spec.batch_size,
							 loop->work_time, loop->commit_time);
	}
	return true;
}

/* An attempt to count what has flipped; the argument is a FlipCall. */
static void
count_month(void *arg)
{
	const FlipCall *call = arg;

	rf_flip_count(call->store, call->leaf, call->month, call->late);
}

/*
 * The step has its snapshot.  What keeps the events from being counted keeps
 * nothing else from going on: the estimate stays, and so it does when the step
 * is tried again, on a snapshot that is too late.
 */
static void
count_flipped(MoveLoop *loop, void *arg)
{
	FlipCall  *call = arg;
	ErrorData *error;

	if (!call->is_held)
		return;
	rf_flip_let_go(call->leaf);
	call->is_held = false;
	call->store = loop->store;
	if (!is_over(loop))
		(void) rf_query_attempt(count_month, call, RF_ANY_ERROR, &error);
}

/*
 * Flip in a step of its own.  Who waited for it goes first: the next flip
 * comes when they had the tables for longer than it did.
 */
static bool
flip_and_yield(MoveLoop *loop, const LeafCall *leaf)
{
	FlipCall call = {.month = leaf->source->lower,
					 .ignore_consumers = loop->spec.ignore_consumers};
	long	 held;

	if (!do_step(loop, try_flip, &call))
		return true;
	if (loop->control.throttle != NULL && call.locked_at != 0)
		rf_throttle_moved(loop->control.throttle);
	/* those need not be moved by rows, which is what is counted */
	if (call.locked_at != 0)
		loop->progress.expected = Max(loop->progress.expected - leaf->events,
									  0);
	held = TimestampDifferenceMilliseconds(call.locked_at,
										   GetCurrentTimestamp());
	if (call.is_held)
	{
		RF_WAIT_POINT("flip_before_count");
		(void) do_step(loop, count_flipped, &call);
	}
	/* that of a step that did not come so far would last as the session does */
	if (call.is_held)
		rf_flip_let_go(call.leaf);
	if (call.wanted && !is_over(loop))
		rf_lock_pause(Min(YIELD_FACTOR * Max(held, 1), LONGEST_YIELD_MS));
	return !call.refused;
}

static void
plan_method(MoveLoop *loop, void *arg)
{
	LeafCall *call = arg;
	char	 *reason;

	keep_consumers(loop);
	call->method = rf_plan_method(loop->store, &loop->spec, call->source,
								  &reason);
	if (call->method != RF_BY_ROWS)
		call->events = rf_plan_estimate_leaf(loop->store, call->source->relid);
}

/*
 * Flip the month of a leaf where that is how it goes, or leave it to the next
 * run; false: by rows.
 */
static bool
flip_leaf(MoveLoop *loop, const RfPartition *source)
{
	LeafCall call = {.source = source};

	if (!do_step(loop, plan_method, &call))
		return true;
	if (call.method == RF_BY_FLIP_JOINED && !join_rival(loop, source))
		return true;
	wait_for_replicas(loop);
	if (call.method == RF_BY_ROWS || is_over(loop))
		return false;
	return flip_and_yield(loop, &call);
}

static void
find_uncounted(MoveLoop *loop, void *arg)
{
	MemoryContextSwitchTo(loop->context);
	*(List **) arg = rf_flip_uncounted(loop->store);
}

static void
count_late(MoveLoop *loop, void *arg)
{
	FlipCall  *call = arg;
	ErrorData *error;

	call->store = loop->store;
	call->leaf = rf_partition_of_month(rf_store_tier_parent(loop->store,
															RF_COLD),
									   call->month);
	if (OidIsValid(call->leaf))
		(void) rf_query_attempt(count_month, call, RF_ANY_ERROR, &error);
}

/*
 * Count the months that who can't commit has flipped, and that other runs have
 * left, each in a step of its own; more than a run takes are left to the next.
 */
static void
count_uncounted(MoveLoop *loop)
{
	List	 *months = NIL;
	ListCell *cell;

	if (is_over(loop) || !do_step(loop, find_uncounted, &months))
		return;
	foreach(cell, months)
	{
		FlipCall call = {.month = lfirst_int(cell), .late = true};

		if (foreach_current_index(cell) == MOST_COUNTED || is_over(loop))
			break;
		(void) do_step(loop, count_late, &call);
	}
}

/* Streams that flips have emptied, by pages. */
typedef struct PageCall
{
	DateADT	   until;
	RfStreamId from;
	RfStreamId next;
	int		   count;
} PageCall;

static void
find_flipped(MoveLoop *loop, void *arg)
{
	((PageCall *) arg)->until = rf_plan_flipped_until(loop->store);
}

static void
close_page(MoveLoop *loop, void *arg)
{
	PageCall   *call = arg;
	RfStreamId *ids = rf_plan_emptied(loop->store, &loop->spec, call->until,
									  &call->from, &call->count);

	if (call->count == 0)
		return;
	rf_move_close(loop->store, ids, call->count, loop->streams);
	call->next = ids[call->count - 1];
}

static void
note_flips_closed(MoveLoop *loop, void *arg)
{
	rf_move_note_flips_closed(loop->store);
}

/*
 * Close the streams that flips have emptied, those of rf_flip_partition(), and
 * of moves that were cut short, too.  Where a run has to end before, the next
 * one does it.
 */
static void
close_flipped(MoveLoop *loop)
{
	PageCall call = {.until = DATEVAL_NOBEGIN};

	if (!do_step(loop, find_flipped, &call) || DATE_IS_NOBEGIN(call.until))
		return;
	do
	{
		CHECK_FOR_INTERRUPTS();
		wait_for_replicas(loop);
		if (loop->control.throttle != NULL && is_over(loop))
			return;
		if (!do_step(loop, close_page, &call))
			return;
		call.from = call.next;
	} while (call.count == RF_PLAN_PAGE);
	(void) do_step(loop, note_flips_closed, NULL);
}

/*
 * Closing
 */

typedef struct CloseCall
{
	RfStreamId *ids;
	int			count;
} CloseCall;

static RfStreamId *
list_undecided(MoveLoop *loop, int *count)
{
	HTAB		   *known = loop->streams->known;
	RfStreamId	   *ids = palloc(sizeof(RfStreamId) *
								 Max(hash_get_num_entries(known), 1));
	HASH_SEQ_STATUS status;
	RfMoveStream   *stream;

	*count = 0;
	hash_seq_init(&status, known);
	while ((stream = hash_seq_search(&status)) != NULL)
	{
		if (stream->undecided)
			ids[(*count)++] = stream->stream;
	}
	return ids;
}

static void
close_streams(MoveLoop *loop, void *arg)
{
	CloseCall *call = arg;

	rf_move_close(loop->store, call->ids, call->count, loop->streams);
}

/* Go once through the streams that are undecided; are there any still? */
static bool
close_pass(MoveLoop *loop)
{
	int			count;
	RfStreamId *ids = list_undecided(loop, &count);

	for (int done = 0; done < count; done += CLOSE_BATCH)
	{
		CloseCall call = {.ids = ids + done,
						  .count = Min(CLOSE_BATCH, count - done)};

		if (!do_step(loop, close_streams, &call))
			break;
	}
	pfree(ids);
	pfree(list_undecided(loop, &count));
	return count > 0;
}

static void
note_left_open(MoveLoop *loop, void *arg)
{
	CloseCall *call = arg;

	rf_move_leave_open(loop->store, call->ids, call->count);
}

/* What others hold all the time is left to the next move. */
static void
leave_open(MoveLoop *loop)
{
	CloseCall call;

	call.ids = list_undecided(loop, &call.count);
	if (!do_step(loop, note_left_open, &call))
		return;
	ereport(NOTICE,
			(errmsg("streams that other transactions hold were not closed: %d",
					call.count),
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
	int			count;
	RfStreamId *ids = rf_plan_left_open(loop->store, &count);

	for (int i = 0; i < count; i++)
		rf_move_stream(loop->streams, &ids[i])->undecided = true;
}

/* Whose checkpoint it was, where there was more to move. */
static void
report_held_back(MoveLoop *loop, void *arg)
{
	keep_consumers(loop);
	if (rf_plan_report_held_back(loop->store, &loop->spec))
		leave(loop, psprintf("consumer \"%s\"", loop->spec.limit.name));
}

static void
plan_loop(MoveLoop *loop, void *arg)
{
	List **sources = arg;

	MemoryContextSwitchTo(loop->context);
	*sources = rf_plan_sources(loop->store, &loop->spec);
	loop->progress.expected = rf_plan_estimate(loop->store, &loop->spec);
	if (!loop->spec.has_stream)
		take_up_left_open(loop);
}

/* True when all was moved that there is to move. */
static bool
run_loop(MoveLoop *loop)
{
	List	 *sources;
	ListCell *cell;

	loop->started_at = loop->reported_at = GetCurrentTimestamp();
	loop->streams = rf_move_make_streams(loop->context);
	if (!do_step(loop, plan_loop, &sources))
		return false;
	foreach(cell, sources)
	{
		if (is_over(loop))
			break;
		if (!flip_leaf(loop, lfirst(cell)))
			move_leaf(loop, lfirst(cell));
	}
	if (!loop->spec.has_stream && !loop->spec.only_archived &&
		loop->tenant_number == 0)
		close_flipped(loop);
	close_rest(loop);
	if (!is_over(loop))
		(void) do_step(loop, report_held_back, NULL);
	if (loop->commits && !loop->spec.has_stream)
		count_uncounted(loop);
	pgstat_report_activity(STATE_RUNNING, debug_query_string);
	return !loop->out_of_time && !loop->stopped && loop->left_for == NULL;
}

static void
init_loop(MoveLoop *loop, const RfMoveSpec *spec, Oid namespace_id,
		  uint32 tenant_number)
{
	memset(loop, 0, sizeof(*loop));
	loop->context = CurrentMemoryContext;
	loop->step = AllocSetContextCreate(loop->context, "Rillflow step",
									   ALLOCSET_DEFAULT_SIZES);
	loop->namespace_id = namespace_id;
	loop->tenant_number = tenant_number;
	loop->spec = *spec;
	loop->commits = loop->makes_months = spec->commits;
	loop->control.deadline = DT_NOEND;
}

/*
 * Run the loop for one store, as its owner says; false when it ended before all
 * was moved.  To be called in a connection that commits, with no snapshot.
 */
bool
rf_worker_move(const RfStore *store, const RfMoveSpec *spec,
			   const RfLoopControl *control, RfProgress *progress)
{
	MemoryContext old = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(old, "Rillflow move",
												  ALLOCSET_DEFAULT_SIZES);
	MoveLoop	  loop;
	bool		  complete;

	Assert(spec->commits);
	PreventCommandIfReadOnly("a run of a policy");
	MemoryContextSwitchTo(context);
	init_loop(&loop, spec, store->namespace_id, store->tenant_number);
	loop.control = *control;
	complete = run_loop(&loop);
	*progress = loop.progress;
	if (loop.left_for != NULL)
		set_held_back(progress, loop.left_for);
	else if (complete || control->throttle == NULL)
		set_held_back(progress, "");
	else
		set_held_back(progress, control->throttle->held_back_by);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return complete;
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

/* A loop for what a tenant argument names, which the caller has a right to. */
static void
init_loop_for(MoveLoop *loop, const RfMoveSpec *spec, const char *tenant)
{
	RfStore *store = rf_store_get(tenant, RF_RIGHT_ARCHIVE);

	init_loop(loop, spec, store->namespace_id, store->tenant_number);
}

Datum
rf_archive_move(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		   dry_run = !PG_ARGISNULL(4) && PG_GETARG_BOOL(4);
	char		  *tenant = RF_GETARG_STRING(6);
	RfMoveSpec	   spec;
	MoveLoop	   loop;
	int64		   events;
	int64		   touched;
	int32		   batches;
	int32		   months;
	Datum		   values[4];
	bool		   nulls[4] = {0};

	read_spec(fcinfo, &spec);
	if (!dry_run)
		PreventCommandIfReadOnly("rf_archive_move()");
	init_loop_for(&loop, &spec, tenant);
	if (dry_run)
	{
		find_loop_store(&loop);
		rf_consumer_limit(loop.store, spec.ignore_consumers, &spec.limit);
		rf_plan_count(loop.store, &spec, &events, &touched, &batches, &months);
		(void) rf_plan_report_held_back(loop.store, &spec);
	}
	else
	{
		(void) run_loop(&loop);
		events = loop.progress.events;
		touched = count_touched(&loop);
		batches = (int32) loop.progress.batches;
		months = (int32) loop.progress.months;
	}
	values[0] = Int64GetDatum(events);
	values[1] = Int64GetDatum(touched);
	values[2] = Int32GetDatum(batches);
	values[3] = Int32GetDatum(months);
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

static void
require_right(MoveLoop *loop, void *arg)
{
	bool *denied = arg;

	*denied = !rf_store_allows(loop->namespace_id, RF_RIGHT_ARCHIVE);
}

/* Run the loop of one store, and tell what came of it. */
static void
run_store(MoveLoop *loop)
{
	(void) run_loop(loop);
	if (loop->failure != NULL)
		(void) rf_store_warn(loop->namespace_id, loop->failure);
	ereport(NOTICE,
			(errmsg("schema \"%s\": " INT64_FORMAT
					" events moved, " INT64_FORMAT
					" streams touched, %d batches, %d months flipped",
					get_namespace_name(loop->namespace_id),
					loop->progress.events, count_touched(loop),
					(int) loop->progress.batches, (int) loop->progress.months),
			 loop->out_of_time ? errdetail("Stopped at max_runtime.") : 0));
}

/* What came of a run of all stores. */
typedef struct RunTally
{
	int		   stores;
	int		   denied;
	int		   failed;
	ErrorData *failure; /* the first one */
} RunTally;

/* Run one of all stores; one that the caller has no right to is left out. */
static void
run_one_of_all(Oid namespace_id, const RfMoveSpec *spec, TimestampTz deadline,
			   RunTally *tally)
{
	MemoryContext old = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(old, "Rillflow move",
												  ALLOCSET_DEFAULT_SIZES);
	MoveLoop	  loop;
	bool		  denied = false;

	MemoryContextSwitchTo(context);
	init_loop(&loop, spec, namespace_id, 0);
	loop.control.deadline = deadline;
	loop.catches = true;
	if (do_step(&loop, require_right, &denied) && !denied)
		run_store(&loop);
	else if (!denied && !rf_store_warn(namespace_id, loop.failure))
	{
		denied = true;
		loop.failure = NULL; /* another's store */
	}
	tally->stores += denied ? 0 : 1;
	tally->denied += denied ? 1 : 0;
	tally->failed += loop.failure == NULL ? 0 : 1;
	MemoryContextSwitchTo(old);
	if (loop.failure != NULL && tally->failure == NULL)
		tally->failure = copy_error(loop.failure);
	MemoryContextDelete(context);
}

/*
 * Run all stores.  Whoever calls has to be told when one has failed, and what
 * the others did is committed: so there is an error at the end.
 */
static void
run_all(const RfMoveSpec *spec, TimestampTz deadline)
{
	List	 *schemas = rf_store_list_all();
	RunTally  tally = {0};
	ListCell *cell;

	foreach(cell, schemas)
	{
		CHECK_FOR_INTERRUPTS();
		run_one_of_all(lfirst_oid(cell), spec, deadline, &tally);
	}
	rf_store_warn_denied(tally.denied);
	if (tally.failed > 0)
		ereport(
			ERROR,
			(errcode(tally.failure->sqlerrcode),
			 errmsg("%d of %d stores failed, the first one with: %s",
					tally.failed, tally.stores, tally.failure->message),
			 errdetail(
				 "A warning names each. What was moved in the others is committed.")));
}

Datum
rf_archive_run(PG_FUNCTION_ARGS)
{
	char	   *tenant;
	TimestampTz deadline = DT_NOEND;
	RfMoveSpec	spec;
	MoveLoop	loop;

	require_no_transaction_block(fcinfo);
	read_spec(fcinfo, &spec);
	spec.commits = true;
	PreventCommandIfReadOnly("rf_archive_run()");
	if (!PG_ARGISNULL(4))
		deadline = deadline_after(PG_GETARG_INTERVAL_P(4));

	/* from here on memory has to outlive the transactions */
	rf_query_connect_nonatomic();
	tenant = RF_GETARG_STRING(6);
	if (rf_store_is_all(tenant))
		run_all(&spec, deadline);
	else
	{
		init_loop_for(&loop, &spec, tenant);
		loop.control.deadline = deadline;
		run_store(&loop);
	}
	rf_query_disconnect();
	PG_RETURN_VOID();
}

#ifdef RF_TEST_BUILD

PG_FUNCTION_INFO_V1(rf_test_worker_move);

static bool
report_step(RfStore *store, const RfProgress *progress, void *arg)
{
	int64 last = *(int64 *) arg;

	ereport(NOTICE,
			(errmsg_internal("step: batches=" INT64_FORMAT
							 " events=" INT64_FORMAT
							 " batch_size=%d held_back_by='%s'",
							 progress->batches, progress->events,
							 progress->batch_size, progress->held_back_by)));
	return progress->batches < last;
}

/*
 * rf_worker_move() of the default store without a worker: before, batch_size,
 * max_replica_lag, seconds it may take, batches after which its owner wants it
 * to stop, milliseconds for which it tries what others stand in the way of.
 */
Datum
rf_test_worker_move(PG_FUNCTION_ARGS)
{
	RfMoveSpec	  spec = {.before = PG_GETARG_TIMESTAMPTZ(0), .commits = true};
	RfThrottle	  throttle;
	RfProgress	  progress;
	int64		  last = PG_GETARG_INT64(4);
	RfLoopControl control = {.throttle = &throttle,
							 .on_step = report_step,
							 .arg = &last};
	bool		  complete;

	spec.now = GetCurrentTimestamp();
	control.deadline = spec.now + PG_GETARG_INT32(3) * USECS_PER_SEC;
	rf_throttle_init(&throttle, PG_ARGISNULL(1) ? 0 : PG_GETARG_INT32(1),
					 PG_ARGISNULL(2) ? NULL : PG_GETARG_INTERVAL_P(2));
	throttle.patience = PG_GETARG_INT32(5);
	rf_query_connect_nonatomic();
	complete = rf_worker_move(rf_store_get(NULL, RF_RIGHT_OWN), &spec, &control,
							  &progress);
	rf_query_disconnect();
	ereport(NOTICE,
			(errmsg_internal("%s: expected=" INT64_FORMAT
							 " batches=" INT64_FORMAT " events=" INT64_FORMAT
							 " months=" INT64_FORMAT " held_back_by='%s'",
							 complete ? "complete" : "not complete",
							 progress.expected, progress.batches,
							 progress.events, progress.months,
							 progress.held_back_by)));
	PG_RETURN_VOID();
}

#endif
