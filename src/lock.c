/*-------------------------------------------------------------------------
 *
 * lock.c
 *	  Locks on tables, taken within a limit, so that nobody waits for long.
 *
 * Who asks for an exclusive lock and has to wait for it makes everybody wait
 * who comes after him.  So all locks of an attempt together are waited for no
 * longer than rillflow.lock_timeout; then everything is let go, and tried
 * again after a pause, which grows.
 *
 * Nobody else is to fall victim to a deadlock that we are part of.  Others can
 * have begun to wait for us at the start of the attempt at the earliest, and
 * look for a deadlock after deadlock_timeout: the attempt is over by then.  We
 * look for one ourselves much sooner, which also makes autovacuum give way.
 *
 * The functions here expect to be called inside a scope (query.h), which gives
 * the settings back.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_database.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "guc.h"
#include "lock.h"
#include "query.h"

/* key space of the advisory lock that who makes or flips months takes */
#define MAKERS_LOCK_CLASS 7271

/* and of the one that moves share, and who registers a consumer takes alone */
#define CHECKPOINTS_LOCK_CLASS 7274

/* and of the one that who runs a policy of a store holds for his session */
#define RUN_LOCK_CLASS 7275

/* and of the one that who has counted a month that has flipped takes */
#define COUNTERS_LOCK_CLASS 7277

/* How often locks are tried for, and the pauses between. */
#define MAX_ATTEMPTS 8
#define FIRST_PAUSE_MS 50
#define LONGEST_PAUSE_MS 2000

/* What part of an attempt has passed when we look for a deadlock. */
#define DEADLOCK_CHECKS 5

void
rf_lock_pause(long ms)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* Until the scope ends, wait for no lock longer than that. */
void
rf_lock_limit_waits(int longest_ms)
{
	rf_query_limit_lock_waits(longest_ms);
	rf_query_detect_deadlocks_after(Max(longest_ms / DEADLOCK_CHECKS, 1));
}

/* Begin to take the locks of an attempt, or of the next part of one. */
void
rf_lock_begin(RfLockLimit *limit)
{
	int others = rf_query_deadlock_timeout();
	int longest = others - others / 4;

	if (rf_guc_lock_timeout > 0)
		longest = Min(longest, rf_guc_lock_timeout);
	limit->deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												  longest);
	rf_query_detect_deadlocks_after(Max(longest / DEADLOCK_CHECKS, 1));
}

static void
limit_wait(const RfLockLimit *limit)
{
	long left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
												limit->deadline);

	rf_query_limit_lock_waits(Max((int) left, 1));
}

/* Lock a table, but not those below it; 55P03 when the limit is reached. */
void
rf_lock_table(const RfLockLimit *limit, Oid relid, LOCKMODE mode)
{
	limit_wait(limit);
	LockRelationOid(relid, mode);
}

/* Does anybody wait for a table that we have locked wholly? */
bool
rf_lock_is_wanted(Oid relid)
{
	Relation rel = table_open(relid, NoLock);
	bool	 result = LockHasWaitersRelation(rel, AccessExclusiveLock);

	table_close(rel, NoLock);
	return result;
}

/*
 * Does anybody lock the database, to drop, rename or copy it?  He waits some
 * seconds for whoever is connected to it.
 */
bool
rf_lock_database_is_wanted(Oid database)
{
	LOCKTAG tag;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, database, 0);
	if (LockAcquire(&tag, RowExclusiveLock, false, true) ==
		LOCKACQUIRE_NOT_AVAIL)
		return true;
	LockRelease(&tag, RowExclusiveLock, false);
	return false;
}

/*
 * Keep those apart who make, drop or flip months of one store.  What the last
 * of them has done is seen from here on.
 */
void
rf_lock_makers(const RfLockLimit *limit, Oid namespace_id)
{
	limit_wait(limit);
	DirectFunctionCall2(pg_advisory_xact_lock_int4,
						Int32GetDatum(MAKERS_LOCK_CLASS),
						Int32GetDatum((int32) namespace_id));
	AcceptInvalidationMessages();
}

/*
 * Keep who registers a consumer apart from moves, which share the lock, until
 * the transaction ends.
 */
void
rf_lock_checkpoints(const RfLockLimit *limit, Oid namespace_id, bool shared)
{
	limit_wait(limit);
	DirectFunctionCall2(shared ? pg_advisory_xact_lock_shared_int4 :
								 pg_advisory_xact_lock_int4,
						Int32GetDatum(CHECKPOINTS_LOCK_CLASS),
						Int32GetDatum((int32) namespace_id));
}

/* Share the lock if that can be had without waiting. */
bool
rf_lock_try_checkpoints(Oid namespace_id)
{
	return DatumGetBool(
		DirectFunctionCall2(pg_try_advisory_xact_lock_shared_int4,
							Int32GetDatum(CHECKPOINTS_LOCK_CLASS),
							Int32GetDatum((int32) namespace_id)));
}

/* Be the one who runs a policy of the store; false: another session does. */
bool
rf_lock_run(Oid namespace_id)
{
	return DatumGetBool(
		DirectFunctionCall2(pg_try_advisory_lock_int4,
							Int32GetDatum(RUN_LOCK_CLASS),
							Int32GetDatum((int32) namespace_id)));
}

/* No run begins until the transaction ends; false: there is one. */
bool
rf_lock_keep_runs_away(Oid namespace_id)
{
	return DatumGetBool(
		DirectFunctionCall2(pg_try_advisory_xact_lock_int4,
							Int32GetDatum(RUN_LOCK_CLASS),
							Int32GetDatum((int32) namespace_id)));
}

/* Who only looks lets go at once, and not when his transaction ends. */
bool
rf_lock_run_is_free(Oid namespace_id)
{
	if (!rf_lock_run(namespace_id))
		return false;
	DirectFunctionCall2(pg_advisory_unlock_int4, Int32GetDatum(RUN_LOCK_CLASS),
						Int32GetDatum((int32) namespace_id));
	return true;
}

/* Keep those apart who say how many events of a month have flipped. */
void
rf_lock_counters(Oid namespace_id)
{
	DirectFunctionCall2(pg_advisory_xact_lock_int4,
						Int32GetDatum(COUNTERS_LOCK_CLASS),
						Int32GetDatum((int32) namespace_id));
}

/*
 * Do work that takes locks, in a subtransaction, until they are to be had or
 * it has been tried often enough.
 */
void
rf_lock_retry(void (*work)(void *arg), void *arg)
{
	long pause = FIRST_PAUSE_MS;

	for (int attempt = 1;; attempt++)
	{
		ErrorData *error;

		if (rf_query_attempt(work, arg, ERRCODE_LOCK_NOT_AVAILABLE, &error))
			return;
		if (attempt == MAX_ATTEMPTS)
			ReThrowError(error);
		FreeErrorData(error);
		rf_lock_pause(pause);
		pause = Min(pause * 2, LONGEST_PAUSE_MS);
	}
}
