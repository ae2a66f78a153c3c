/*-------------------------------------------------------------------------
 *
 * board.c
 *	  Shared memory: what sessions, launchers and their processes tell each
 *	  other.
 *
 * It is small, and made on demand where the library is not preloaded.  Nothing
 * that has to outlast the server stands here, and nothing is believed that the
 * tables of a store say otherwise: a message that is lost costs time only.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "board.h"

/* How long a store in trouble is left alone: as often there is a message. */
#define TROUBLE_REST_MS 120000

static RfBoard *board;

/* The place of this process, if a launcher has started it. */
static int own_number = -1;

/* What this transaction tells of when it commits. */
static bool change_pending;

typedef struct StopPending
{
	Oid				 namespace_id;
	char			 policy[NAMEDATALEN];
	SubTransactionId subxact; /* with which it is undone */
} StopPending;

static List *stops_pending; /* of StopPending, in TopTransactionContext */

/* For shmem_request_hook. */
void
rf_board_request(void)
{
	RequestAddinShmemSpace(sizeof(RfBoard));
}

/*
 * Find the board, made by whoever comes first.  The postmaster comes here again
 * when it starts anew after a crash, with other memory.
 */
void
rf_board_shmem_init(void)
{
	bool found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	board = ShmemInitStruct("Rillflow board", sizeof(RfBoard), &found);
	if (!found)
	{
		memset(board, 0, sizeof(RfBoard));
		LWLockInitialize(&board->lock, LWLockNewTrancheId());
	}
	LWLockRelease(AddinShmemInitLock);
	LWLockRegisterTranche(board->lock.tranche, "RillflowBoard");
}

RfBoard *
rf_board_attach(void)
{
	if (board == NULL)
		rf_board_shmem_init();
	return board;
}

/*
 * Sessions
 */

static void
wake(pid_t pid)
{
	PGPROC *proc = BackendPidGetProc(pid);

	if (proc != NULL)
		SetLatch(&proc->procLatch);
}

static bool
serves(const RfBoardLauncher *launcher, Oid database)
{
	return launcher->pid != 0 &&
		   (!OidIsValid(launcher->database) || launcher->database == database);
}

static void
note_change(Oid database)
{
	for (int i = 0; i < board->nchanged; i++)
	{
		if (board->changed[i] == database)
			return;
	}
	if (board->nchanged == RF_MAX_CHANGED)
		board->all_changed = true;
	else
		board->changed[board->nchanged++] = database;
}

static void
tell_launchers(void)
{
	pid_t pids[RF_MAX_LAUNCHERS];
	int	  count = 0;

	rf_board_attach();
	LWLockAcquire(&board->lock, LW_EXCLUSIVE);
	for (int i = 0; i < RF_MAX_LAUNCHERS; i++)
	{
		if (serves(&board->launchers[i], MyDatabaseId))
			pids[count++] = board->launchers[i].pid;
	}
	if (count > 0)
		note_change(MyDatabaseId);
	LWLockRelease(&board->lock);
	for (int i = 0; i < count; i++)
		wake(pids[i]);
}

static bool
is_run(const RfBoardProcess *process, const StopPending *stop)
{
	return process->used && process->pid != 0 &&
		   process->job.database == MyDatabaseId &&
		   process->job.namespace_id == stop->namespace_id &&
		   strcmp(process->job.policy, stop->policy) == 0;
}

/* The process cancels what it does, and finds that the policy is paused. */
static void
cancel_run(const StopPending *stop)
{
	rf_board_attach();
	LWLockAcquire(&board->lock, LW_SHARED);
	for (int i = 0; i < RF_MAX_PROCESSES; i++)
	{
		/* it leaves the board, under the lock, before it ends */
		if (is_run(&board->processes[i], stop))
			(void) kill(board->processes[i].pid, SIGINT);
	}
	LWLockRelease(&board->lock);
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	ListCell *cell;

	if (event == XACT_EVENT_COMMIT)
	{
		foreach(cell, stops_pending)
			cancel_run(lfirst(cell));
		if (change_pending)
			tell_launchers();
	}
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT ||
		event == XACT_EVENT_PREPARE)
	{
		stops_pending = NIL;
		change_pending = false;
	}
}

/* What a subtransaction wanted goes with it, or is its parent's from now on. */
static void
at_subtransaction_end(SubXactEvent event, SubTransactionId subxact,
					  SubTransactionId parent, void *arg)
{
	ListCell *cell;

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;
	foreach(cell, stops_pending)
	{
		StopPending *stop = lfirst(cell);

		if (stop->subxact != subxact)
			continue;
		if (event == SUBXACT_EVENT_COMMIT_SUB)
			stop->subxact = parent;
		else
			stops_pending = foreach_delete_current(stops_pending, cell);
	}
}

void
rf_board_init(void)
{
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
}

/* When this commits, launchers look at the policies of this database. */
void
rf_board_tell_of_change(void)
{
	rf_board_attach(); /* not while it commits, where errors must not be */
	change_pending = true;
}

/* When this commits, stop the process that runs the policy. */
void
rf_board_stop_run(Oid namespace_id, const char *policy)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	StopPending	 *stop = palloc0(sizeof(StopPending));

	rf_board_attach();
	stop->namespace_id = namespace_id;
	stop->subxact = GetCurrentSubTransactionId();
	snprintf(stop->policy, sizeof(stop->policy), "%s", policy);
	stops_pending = lappend(stops_pending, stop);
	MemoryContextSwitchTo(old);
}

/* Who serves a database; 0: nobody. */
pid_t
rf_board_launcher_of(Oid database)
{
	pid_t result = 0;

	rf_board_attach();
	LWLockAcquire(&board->lock, LW_SHARED);
	for (int i = 0; i < RF_MAX_LAUNCHERS && result == 0; i++)
	{
		if (serves(&board->launchers[i], database))
			result = board->launchers[i].pid;
	}
	LWLockRelease(&board->lock);
	return result;
}

/*
 * Launchers
 */

static void
leave_launcher(int code, Datum arg)
{
	LWLockAcquire(&board->lock, LW_EXCLUSIVE);
	board->launchers[DatumGetInt32(arg)].pid = 0;
	board->no_slot_since = 0;
	LWLockRelease(&board->lock);
}

/* Become the launcher of a database, or of all; false: there is one. */
bool
rf_board_enter_launcher(Oid database)
{
	int	 place = -1;
	bool taken = false;

	rf_board_attach();
	LWLockAcquire(&board->lock, LW_EXCLUSIVE);
	for (int i = 0; i < RF_MAX_LAUNCHERS; i++)
	{
		taken = taken || serves(&board->launchers[i], database);
		if (place < 0 && board->launchers[i].pid == 0)
			place = i;
	}
	if (!taken && place >= 0)
	{
		board->launchers[place].pid = MyProcPid;
		board->launchers[place].database = database;
	}
	LWLockRelease(&board->lock);
	if (taken || place < 0)
		return false;
	on_shmem_exit(leave_launcher, Int32GetDatum(place));
	return true;
}

/*
 * The databases that have changed since the last call, of those that we serve.
 * The array has room for RF_MAX_CHANGED.
 */
int
rf_board_take_changed(Oid database, Oid *changed, bool *all)
{
	int count = 0;
	int left = 0;

	LWLockAcquire(&board->lock, LW_EXCLUSIVE);
	for (int i = 0; i < board->nchanged; i++)
	{
		if (!OidIsValid(database) || board->changed[i] == database)
			changed[count++] = board->changed[i];
		else
			board->changed[left++] = board->changed[i];
	}
	board->nchanged = left;
	*all = board->all_changed;
	board->all_changed = false;
	LWLockRelease(&board->lock);
	return count;
}

/* A place for a process that is to be started; -1: there is none. */
int
rf_board_enter_process(const RfJob *job, TimestampTz deadline)
{
	int result = -1;

	LWLockAcquire(&board->lock, LW_EXCLUSIVE);
	for (int i = 0; i < RF_MAX_PROCESSES && result < 0; i++)
	{
		RfBoardProcess *process = &board->processes[i];

		/* a launcher that was ended by SIGTERM leaves its places behind */
		if (process->used && BackendPidGetProc(process->launcher) != NULL)
			continue;
		memset(process, 0, sizeof(*process));
		process->used = true;
		process->launcher = MyProcPid;
		process->job = *job;
		process->deadline = deadline;
		result = i;
	}
	LWLockRelease(&board->lock);
	return result;
}

TimestampTz
rf_board_deadline_of(int number)
{
	TimestampTz result;

	LWLockAcquire(&board->lock, LW_SHARED);
	result = board->processes[number].deadline;
	LWLockRelease(&board->lock);
	return result;
}

/* Free the place of a process that has ended; report: what it had to tell. */
void
rf_board_leave_process(int number, RfBoardProcess *report)
{
	LWLockAcquire(&board->lock, LW_EXCLUSIVE);
	*report = board->processes[number];
	board->processes[number].used = false;
	LWLockRelease(&board->lock);
}

/*
 * Their processes
 */

/* A launcher that came after ours may have given our place away. */
static RfBoardProcess *
own_place(int number)
{
	RfBoardProcess *process = &board->processes[number];

	return process->pid == MyProcPid ? process : NULL;
}

static void
leave_process(int code, Datum arg)
{
	RfBoardProcess *process;

	LWLockAcquire(&board->lock, LW_EXCLUSIVE);
	process = own_place(DatumGetInt32(arg));
	if (process != NULL)
		process->pid = 0;
	LWLockRelease(&board->lock);
}

/* Tell who does the job. */
void
rf_board_begin_process(int number, RfJob *job)
{
	rf_board_attach();
	LWLockAcquire(&board->lock, LW_EXCLUSIVE);
	board->processes[number].pid = MyProcPid;
	own_number = number;
	*job = board->processes[number].job;
	LWLockRelease(&board->lock);
	before_shmem_exit(leave_process, Int32GetDatum(number));
}

/* When this process should have come to its end. */
void
rf_board_set_deadline(TimestampTz deadline)
{
	RfBoardProcess *process;

	if (own_number < 0)
		return;
	LWLockAcquire(&board->lock, LW_EXCLUSIVE);
	process = own_place(own_number);
	if (process != NULL)
		process->deadline = deadline;
	LWLockRelease(&board->lock);
}

void
rf_board_report(int number, const RfFinding *finding)
{
	RfBoardProcess *process;

	LWLockAcquire(&board->lock, LW_EXCLUSIVE);
	process = own_place(number);
	if (process != NULL)
	{
		process->reported = true;
		process->finding = *finding;
	}
	LWLockRelease(&board->lock);
}

/* The place of a store's trouble, or the one that can be spared best. */
static RfBoardTrouble *
find_trouble(Oid database, Oid namespace_id)
{
	RfBoardTrouble *result = &board->troubles[0];

	for (int i = 0; i < RF_MAX_TROUBLES; i++)
	{
		RfBoardTrouble *trouble = &board->troubles[i];

		if (trouble->database == database &&
			trouble->namespace_id == namespace_id)
			return trouble;
		if (trouble->rest_until < result->rest_until)
			result = trouble;
	}
	return result;
}

/* Leave a store alone for a while. */
void
rf_board_note_trouble(Oid database, Oid namespace_id)
{
	RfBoardTrouble *trouble;

	LWLockAcquire(&board->lock, LW_EXCLUSIVE);
	trouble = find_trouble(database, namespace_id);
	trouble->database = database;
	trouble->namespace_id = namespace_id;
	trouble->rest_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													  TROUBLE_REST_MS);
	LWLockRelease(&board->lock);
}

/* Until when is the store left alone?  0: it never was. */
TimestampTz
rf_board_rests_until(Oid namespace_id)
{
	RfBoardTrouble *trouble;
	TimestampTz		result = 0;

	rf_board_attach();
	LWLockAcquire(&board->lock, LW_SHARED);
	trouble = find_trouble(MyDatabaseId, namespace_id);
	if (trouble->database == MyDatabaseId &&
		trouble->namespace_id == namespace_id)
		result = trouble->rest_until;
	LWLockRelease(&board->lock);
	return result;
}

/*
 * Does a process work on the store, or is one about to?  With a policy: does it
 * run that one?
 */
bool
rf_board_has_run(Oid namespace_id, const char *policy)
{
	bool result = false;

	rf_board_attach();
	LWLockAcquire(&board->lock, LW_SHARED);
	for (int i = 0; i < RF_MAX_PROCESSES && !result; i++)
	{
		const RfBoardProcess *process = &board->processes[i];

		result = process->used && process->job.database == MyDatabaseId &&
				 process->job.namespace_id == namespace_id &&
				 (policy == NULL || (process->pid != 0 &&
									 strcmp(process->job.policy, policy) == 0));
	}
	LWLockRelease(&board->lock);
	return result;
}
