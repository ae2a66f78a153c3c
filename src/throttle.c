/*-------------------------------------------------------------------------
 *
 * throttle.c
 *	  How large a batch of a worker is, and when it waits for others.
 *
 * A batch is to take BATCH_TIME, so that nobody waits for its locks for long,
 * and a replica has it replayed soon.  The next one is larger or smaller as
 * the last one was quicker or slower.  One that others stand in the way of,
 * with locks or by coming first, was too large whatever it took: the next one
 * is half the size, after a pause that grows.
 *
 * A replica is behind when it has not replayed what was written longer ago
 * than the limit, and a replication slot when its consumer has not confirmed
 * that.  There are two ways to know.
 *
 * The lag that the server measures (replay_lag of pg_stat_replication) is there
 * at once.  But it is told when the replica has replayed something: of one that
 * is paused it knows nothing, nor of a slot.  It is not taken back for a while
 * after the replica has caught up, so it counts only until then.
 *
 * Beside it we note where the WAL ended when.  Whoever has not come to where
 * it ended longer ago than the limit is behind, whatever he says.  These
 * samples are in shared memory; the launcher adds to them, often where a policy
 * has a limit, and each run that has one.  While they do not reach back as far
 * as the limit, as after the start of a server, they prove nothing, and nothing
 * is concluded: the lag that the server measures is all there is until the
 * oldest one is old enough.
 *
 * A limit may be a second or a day, and a sample is taken each second at most.
 * When there is no room for another one those are dropped without which the
 * rest is dense enough, in proportion to age, so that a limit is noticed late
 * by a small part of itself.
 *
 * The memory is asked for when the library is preloaded, and else taken from
 * what the server keeps for such a case.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "replication/slot.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "guc.h"
#include "throttle.h"

/* How long a batch is to take, its commit included, in microseconds. */
#define BATCH_TIME 100000

/* No batch gets smaller than that by itself. */
#define SMALLEST_BATCH 10

/* Pauses before what others stood in the way of is tried again. */
#define FIRST_PAUSE_MS 20
#define LONGEST_PAUSE_MS 1000

/* How long it is tried, when nothing else was moved meanwhile. */
#define PATIENCE_MS 60000

#define MAX_SAMPLES 360
#define SAMPLE_INTERVAL USECS_PER_SEC

/* What part of their age may lie between two samples. */
#define SAMPLE_DENSITY 25

typedef struct Sample
{
	TimestampTz time;
	XLogRecPtr	lsn; /* the WAL ended there */
} Sample;

typedef struct History
{
	LWLock lock;
	int	   count;
	Sample samples[MAX_SAMPLES]; /* in order of time */
} History;

static History *history = NULL;

/*
 * Batches
 */

static int64
microseconds(const Interval *interval)
{
	double days = interval->day + interval->month * (double) DAYS_PER_MONTH;
	double result = interval->time + days * USECS_PER_DAY;

	return (int64) Min(Max(result, 1), (double) (PG_INT64_MAX / 4));
}

/*
 * batch_size is what a batch may hold at most, 0 when nobody has said.  No
 * max_replica_lag, no limit.
 */
void
rf_throttle_init(RfThrottle *throttle, int batch_size,
				 const Interval *max_replica_lag)
{
	memset(throttle, 0, sizeof(*throttle));
	throttle->largest = batch_size > 0 ? batch_size : RF_MAX_BATCH;
	throttle->smallest = Min(SMALLEST_BATCH, throttle->largest);
	throttle->size = Min(rf_guc_batch_size, throttle->largest);
	throttle->patience = PATIENCE_MS;
	if (max_replica_lag == NULL)
		return;
	throttle->max_lag = microseconds(max_replica_lag);
	rf_throttle_sample();
}

static void
resize(RfThrottle *throttle, double factor)
{
	double size = throttle->size * Min(Max(factor, 0.5), 2.0);

	throttle->size = (int) Min(Max(size, throttle->smallest),
							   throttle->largest);
}

/* Something was moved: whoever stood in the way does so no longer. */
void
rf_throttle_moved(RfThrottle *throttle)
{
	throttle->pause = throttle->waited = 0;
	if (!throttle->is_behind)
		throttle->held_back_by[0] = '\0';
}

/*
 * A batch took so many microseconds, and its commit so many more.  One that
 * was not full tells nothing of larger ones.  Where commits wait for a slow
 * disk or a synchronous replica, smaller batches would have more of them and
 * none shorter: no more of the commit counts than the batch took.
 */
void
rf_throttle_took(RfThrottle *throttle, bool full, int64 work, int64 commit)
{
	double took = Max(work + Min(commit, work), 1);

	rf_throttle_moved(throttle);
	if (full || took > BATCH_TIME)
		resize(throttle, BATCH_TIME / took);
}

/*
 * Others stood in the way.  The caller pauses, and tries again unless it has
 * tried for so long that it had better see what else there is to do: false.
 */
bool
rf_throttle_refused(RfThrottle *throttle, int sqlstate)
{
	resize(throttle, 0.5);
	throttle->pause = Min(Max(throttle->pause * 2, FIRST_PAUSE_MS),
						  LONGEST_PAUSE_MS);
	throttle->waited += throttle->pause;
	throttle->is_behind = false;
	snprintf(throttle->held_back_by, RF_HELD_BACK_LEN, "%s",
			 sqlstate == ERRCODE_T_R_SERIALIZATION_FAILURE ? "conflicts" :
															 "locks");
	return throttle->waited <= throttle->patience;
}

/*
 * Where the WAL was
 */

void
rf_throttle_shmem_request(void)
{
	RequestAddinShmemSpace(MAXALIGN(sizeof(History)));
}

/*
 * Find the samples in shared memory, made by whoever comes first.  The
 * postmaster comes here again when it starts anew after a crash.
 */
void
rf_throttle_shmem_init(void)
{
	bool found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	history = ShmemInitStruct("Rillflow WAL history", sizeof(History), &found);
	if (!found)
	{
		LWLockInitialize(&history->lock, LWLockNewTrancheId());
		history->count = 0;
	}
	LWLockRelease(AddinShmemInitLock);
	LWLockRegisterTranche(history->lock.tranche, "RillflowWalHistory");
}

/*
 * Drop samples between two others that are close enough for their age; where
 * that makes no room, the oldest.
 */
static void
make_room(TimestampTz now)
{
	Sample *samples = history->samples;
	int		kept = 1;

	for (int i = 1; i < history->count; i++)
	{
		if (i + 1 == history->count ||
			samples[i + 1].time - samples[kept - 1].time >
				(now - samples[i].time) / SAMPLE_DENSITY)
			samples[kept++] = samples[i];
	}
	if (kept == MAX_SAMPLES)
		memmove(samples, samples + 1, sizeof(Sample) * --kept);
	history->count = kept;
}

/*
 * Note where the WAL ends now, unless that was done a moment ago.  A clock that
 * was set back takes the samples of what is the future now with it.
 */
void
rf_throttle_sample(void)
{
	TimestampTz now = GetCurrentTimestamp();

	if (RecoveryInProgress())
		return;
	if (history == NULL)
		rf_throttle_shmem_init();
	LWLockAcquire(&history->lock, LW_EXCLUSIVE);
	while (history->count > 0 &&
		   history->samples[history->count - 1].time > now)
		history->count--;
	if (history->count == 0 ||
		now - history->samples[history->count - 1].time >= SAMPLE_INTERVAL)
	{
		if (history->count == MAX_SAMPLES)
			make_room(now);
		history->samples[history->count].time = now;
		history->samples[history->count++].lsn = GetFlushRecPtr(NULL);
	}
	LWLockRelease(&history->lock);
}

/* Where the WAL ended at that time, or before it; invalid: not known. */
static XLogRecPtr
end_of_wal_at(TimestampTz time)
{
	XLogRecPtr result = InvalidXLogRecPtr;

	LWLockAcquire(&history->lock, LW_SHARED);
	for (int i = history->count - 1; i >= 0; i--)
	{
		if (history->samples[i].time <= time)
		{
			result = history->samples[i].lsn;
			break;
		}
	}
	LWLockRelease(&history->lock);
	return result;
}

/*
 * Replicas and slots
 */

/* How far one is to be at least, when the lag has a limit. */
typedef struct Goal
{
	int64	   max_lag;
	XLogRecPtr due; /* the WAL ended there as long ago; invalid: not known */
	XLogRecPtr end; /* … ends there now */
} Goal;

/*
 * Is the replica of that WAL sender behind?  What takes a backup, or keeps WAL
 * without replaying it, has no place where it is.
 */
static bool
sender_is_behind(const Goal *goal, WalSnd *sender, pid_t *pid)
{
	XLogRecPtr apply;
	TimeOffset lag;

	SpinLockAcquire(&sender->mutex);
	*pid = sender->pid;
	apply = sender->state == WALSNDSTATE_BACKUP ? InvalidXLogRecPtr :
												  sender->apply;
	lag = sender->applyLag;
	SpinLockRelease(&sender->mutex);
	if (*pid == 0 || XLogRecPtrIsInvalid(apply))
		return false;
	return apply < goal->due || (apply < goal->end && lag > goal->max_lag);
}

/*
 * Is the consumer of that slot behind, be it connected or not?  A slot that
 * goes with its session, or that has lost its WAL, waits for nobody.
 */
static bool
slot_is_behind(const Goal *goal, ReplicationSlot *slot, NameData *name)
{
	XLogRecPtr place = InvalidXLogRecPtr;

	SpinLockAcquire(&slot->mutex);
	if (slot->data.persistency == RS_PERSISTENT &&
		!rf_compat_slot_is_lost(&slot->data))
		place = SlotIsLogical(slot) ? slot->data.confirmed_flush :
									  slot->data.restart_lsn;
	*name = slot->data.name;
	SpinLockRelease(&slot->mutex);
	return !XLogRecPtrIsInvalid(place) && place < goal->due;
}

static bool
find_sender(const Goal *goal, char *found)
{
	for (int i = 0; i < max_wal_senders; i++)
	{
		char  name[NAMEDATALEN];
		pid_t pid;

		if (!sender_is_behind(goal, &WalSndCtl->walsnds[i], &pid))
			continue;
		rf_compat_application_name(pid, name);
		snprintf(found, RF_HELD_BACK_LEN, "replica \"%s\"", name);
		return true;
	}
	return false;
}

static bool
find_slot(const Goal *goal, char *found)
{
	bool result = false;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots && !result; i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];
		NameData		 name;

		if (!slot->in_use || !slot_is_behind(goal, slot, &name))
			continue;
		snprintf(found, RF_HELD_BACK_LEN, "slot \"%s\"", NameStr(name));
		result = true;
	}
	LWLockRelease(ReplicationSlotControlLock);
	return result;
}

/*
 * Does a replica or a slot hold the run back?  The caller pauses then, and asks
 * again.
 */
bool
rf_throttle_is_behind(RfThrottle *throttle)
{
	bool was_behind = throttle->is_behind;
	Goal goal;

	if (throttle->max_lag == 0)
		return false;
	rf_throttle_sample();
	goal.max_lag = throttle->max_lag;
	goal.due = end_of_wal_at(GetCurrentTimestamp() - throttle->max_lag);
	goal.end = GetFlushRecPtr(NULL);
	throttle->is_behind = find_sender(&goal, throttle->held_back_by) ||
						  find_slot(&goal, throttle->held_back_by);
	if (was_behind && !throttle->is_behind)
		throttle->held_back_by[0] = '\0';
	return throttle->is_behind;
}
