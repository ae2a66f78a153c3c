/*-------------------------------------------------------------------------
 *
 * launcher.c
 *	  The processes that run policies by themselves.
 *
 * A launcher is connected to no database, so that it is in nobody's way.  To
 * find out what is due in one it starts a scout, which looks and is gone in
 * some milliseconds; for what is due, a worker that connects as the owner of
 * the policy, runs it once, and ends.  The scout also says when there will be
 * more to do, and until then nobody looks: a change of policies wakes the
 * launcher.
 *
 * With the library preloaded there is one launcher, which serves all databases.
 * It starts when recovery is over, on a standby after promotion, and again
 * after a crash.  Without, rf_worker_start() starts one for its database.
 *
 * Who wants to drop, rename or copy a database locks it, and waits some seconds
 * for whoever is connected.  A worker looks for that after each step; one that
 * is in the middle of a long step is ended by the launcher.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "board.h"
#include "compat.h"
#include "guc.h"
#include "launcher.h"
#include "lock.h"
#include "run.h"
#include "scout.h"
#include "store.h"
#include "throttle.h"

/* A launcher that died is back after so many seconds. */
#define RESTART_SECONDS 5

/*
 * Somebody looks at each database once in a while, whatever was told, and more
 * often at which there are.  A launcher that wakes costs some part of a
 * millisecond, mostly for caches that are cold, and has no reason to.
 */
#define LONGEST_REST_S 3600
#define LIST_INTERVAL_S 300

/* How long a database is left alone in which a process died, at first. */
#define FIRST_REST_S 60

/* How often is looked after databases that workers are in, and how long who
 * wants one waits for them. */
#define GUARD_INTERVAL_MS 500
#define GUARD_PATIENCE_MS 1000

/* How long a scout, and a worker until it knows its policy, may take. */
#define LONGEST_LOOK_S 20

/* How long a lock is waited for where rillflow.lock_timeout sets no limit. */
#define LOCK_WAIT_MS 500

/* How often is looked whether a launcher that was started is on the board. */
#define ARRIVAL_INTERVAL_MS 10

/* What a launcher knows of a database. */
typedef struct Database
{
	Oid			oid;	 /* hash key */
	bool		present; /* was it there when we looked? */
	TimestampTz look_at; /* when to send a scout */
	bool		changed; /* has a policy, since a scout was sent? */
	TimestampTz served_at;
	TimestampTz wanted_since; /* somebody waits for it; 0: nobody */
	int			deaths;		  /* of processes, in a row */
	bool		has_job;
	bool		has_more; /* was there more to do than that? */
	RfJob		job;
	bool		limits_lag; /* has a policy a max_replica_lag? */
} Database;

/* A process that runs. */
typedef struct Process
{
	BackgroundWorkerHandle *handle; /* NULL: none */
	int						number; /* its place on the board */
	Oid						database;
	bool					is_scout;
	bool					ended; /* by us */
} Process;

typedef struct Launcher
{
	Oid			database; /* the only one that we serve; InvalidOid: all */
	HTAB	   *databases;
	Process		processes[RF_MAX_PROCESSES];
	int			nworkers;
	bool		has_scout;
	TimestampTz listed_at; /* when databases were listed */
	bool		has_shortage;
	TimestampTz told_of_shortage_at;
} Launcher;

static TimestampTz
after_seconds(TimestampTz now, int seconds)
{
	return TimestampTzPlusMilliseconds(now, (int64) seconds * 1000);
}

/*
 * Databases
 */

/* Templates are left alone: to be connected would keep others from copying. */
static bool
is_served(const Launcher *launcher, Form_pg_database form)
{
	if (OidIsValid(launcher->database))
		return form->oid == launcher->database;
	return form->datallowconn && !form->datistemplate &&
		   form->datconnlimit != -2;
}

static void
note_database(Launcher *launcher, Oid oid)
{
	bool	  found;
	Database *database = hash_search(launcher->databases, &oid, HASH_ENTER,
									 &found);

	if (!found)
	{
		memset(database, 0, sizeof(*database));
		database->oid = oid;
	}
	database->present = true;
}

static void
forget_absent(Launcher *launcher)
{
	HASH_SEQ_STATUS status;
	Database	   *database;

	hash_seq_init(&status, launcher->databases);
	while ((database = hash_seq_search(&status)) != NULL)
	{
		if (!database->present)
			hash_search(launcher->databases, &database->oid, HASH_REMOVE, NULL);
	}
}

/* List the databases that there are; new ones are looked at right away. */
static void
list_databases(Launcher *launcher)
{
	HASH_SEQ_STATUS status;
	Database	   *database;
	Relation		rel;
	TableScanDesc	scan;
	HeapTuple		tuple;

	hash_seq_init(&status, launcher->databases);
	while ((database = hash_seq_search(&status)) != NULL)
		database->present = false;
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);

		if (is_served(launcher, form))
			note_database(launcher, form->oid);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	forget_absent(launcher);
	launcher->listed_at = GetCurrentTimestamp();
}

static Database *
find_database(Launcher *launcher, Oid oid)
{
	return hash_search(launcher->databases, &oid, HASH_FIND, NULL);
}

/* A scout that is on its way may have looked before. */
static void
note_changed(Database *database)
{
	database->changed = true;
	database->look_at = 0;
}

/* Somebody has told of changes. */
static void
take_changes(Launcher *launcher)
{
	Oid	 changed[RF_MAX_CHANGED];
	bool all;
	int	 count = rf_board_take_changed(launcher->database, changed, &all);
	HASH_SEQ_STATUS status;
	Database	   *database;

	if (count > 0 || all)
		list_databases(launcher); /* it may be as new as the change */
	for (int i = 0; i < count; i++)
	{
		database = find_database(launcher, changed[i]);
		if (database != NULL)
			note_changed(database);
	}
	if (!all)
		return;
	hash_seq_init(&status, launcher->databases);
	while ((database = hash_seq_search(&status)) != NULL)
		note_changed(database);
}

/*
 * Does somebody wait for the database?  Also true of one that is gone, which
 * the next round forgets.
 */
static bool
is_wanted(Launcher *launcher, Oid oid)
{
	bool wanted;
	bool gone;

	StartTransactionCommand();
	wanted = rf_lock_database_is_wanted(oid);
	gone = !wanted && get_database_name(oid) == NULL;
	CommitTransactionCommand();
	if (gone)
		launcher->listed_at = 0;
	return wanted || gone;
}

/*
 * Processes
 */

static void
tell_of_shortage(Launcher *launcher)
{
	RfBoard *board = rf_board_attach();

	LWLockAcquire(&board->lock, LW_EXCLUSIVE);
	if (board->no_slot_since == 0)
		board->no_slot_since = GetCurrentTimestamp();
	LWLockRelease(&board->lock);
	launcher->has_shortage = true;
	/* slots that others use can come and go all the time */
	if (!TimestampDifferenceExceeds(launcher->told_of_shortage_at,
									GetCurrentTimestamp(),
									LONGEST_REST_S * 1000))
		return;
	launcher->told_of_shortage_at = GetCurrentTimestamp();
	ereport(LOG, (errmsg("policies wait for a background worker slot"),
				  errhint("You might need to increase max_worker_processes.")));
}

static void
end_shortage(Launcher *launcher)
{
	RfBoard *board = rf_board_attach();

	if (!launcher->has_shortage)
		return;
	LWLockAcquire(&board->lock, LW_EXCLUSIVE);
	board->no_slot_since = 0;
	LWLockRelease(&board->lock);
	launcher->has_shortage = false;
}

static void
describe(BackgroundWorker *worker, const char *function, const char *type)
{
	memset(worker, 0, sizeof(*worker));
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS |
						BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker->bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker->bgw_restart_time = BGW_NEVER_RESTART;
	worker->bgw_notify_pid = MyProcPid;
	snprintf(worker->bgw_library_name, sizeof(worker->bgw_library_name), "%s",
			 "rillflow");
	snprintf(worker->bgw_function_name, sizeof(worker->bgw_function_name), "%s",
			 function);
	snprintf(worker->bgw_name, sizeof(worker->bgw_name), "%s", type);
	snprintf(worker->bgw_type, sizeof(worker->bgw_type), "%s", type);
}

static Process *
free_process(Launcher *launcher)
{
	for (int i = 0; i < lengthof(launcher->processes); i++)
	{
		if (launcher->processes[i].handle == NULL)
			return &launcher->processes[i];
	}
	return NULL;
}

/* Start a process for a job; false: no slot is free. */
static bool
start_process(Launcher *launcher, const RfJob *job, bool is_scout)
{
	Process	   *process = free_process(launcher);
	TimestampTz deadline = after_seconds(GetCurrentTimestamp(), LONGEST_LOOK_S);
	int			number = -1;
	RfBoardProcess	 unused;
	BackgroundWorker worker;

	if (process != NULL)
		number = rf_board_enter_process(job, deadline);
	if (number < 0)
	{
		tell_of_shortage(launcher);
		return false;
	}
	describe(&worker, is_scout ? "rf_scout_main" : "rf_worker_main",
			 is_scout ? "rillflow scout" : "rillflow worker");
	worker.bgw_main_arg = Int32GetDatum(number);
	if (!RegisterDynamicBackgroundWorker(&worker, &process->handle))
	{
		process->handle = NULL;
		rf_board_leave_process(number, &unused);
		tell_of_shortage(launcher);
		return false;
	}
	end_shortage(launcher);
	process->number = number;
	process->database = job->database;
	process->is_scout = is_scout;
	process->ended = false;
	if (is_scout)
		launcher->has_scout = true;
	else
		launcher->nworkers++;
	return true;
}

/* What a process has left behind says what comes next for its database. */
static void
take_report(Database *database, const RfBoardProcess *report,
			const Process *process)
{
	TimestampTz now = GetCurrentTimestamp();

	if (!report->reported && !process->is_scout)
	{
		/* it could not connect, was ended, or has failed to tell why */
		if (!process->ended)
			rf_board_note_trouble(database->oid, report->job.namespace_id);
		database->look_at = 0;
		return;
	}
	if (!report->reported && process->ended)
	{
		database->look_at = 0;
		return;
	}
	if (!report->reported)
	{
		int rest = FIRST_REST_S << Min(database->deaths++, 6);

		database->look_at = after_seconds(now, Min(rest, LONGEST_REST_S));
		return;
	}
	database->deaths = 0;
	if (!process->is_scout)
	{
		/* who found nothing to do need not be asked again at once */
		if (report->finding.more || database->changed)
			database->look_at = 0;
		else
			database->look_at = after_seconds(now, rf_guc_naptime);
	}
	else
	{
		database->has_job = report->finding.found;
		database->has_more = report->finding.more;
		database->job = report->finding.job;
		database->limits_lag = report->finding.limits_lag;
		if (!database->changed)
			database->look_at = Min(report->finding.due_at,
									after_seconds(now, LONGEST_REST_S));
	}
}

static void
reap_processes(Launcher *launcher)
{
	for (int i = 0; i < lengthof(launcher->processes); i++)
	{
		Process		  *process = &launcher->processes[i];
		Database	  *database;
		RfBoardProcess report;
		pid_t		   pid;

		if (process->handle == NULL ||
			GetBackgroundWorkerPid(process->handle, &pid) != BGWH_STOPPED)
			continue;
		rf_board_leave_process(process->number, &report);
		database = find_database(launcher, process->database);
		if (database != NULL)
			take_report(database, &report, process);
		if (process->is_scout)
			launcher->has_scout = false;
		else
			launcher->nworkers--;
		pfree(process->handle);
		process->handle = NULL;
	}
}

static void
end_processes(Launcher *launcher, Oid database)
{
	for (int i = 0; i < lengthof(launcher->processes); i++)
	{
		Process *process = &launcher->processes[i];

		if (process->handle != NULL &&
			(!OidIsValid(database) || process->database == database))
		{
			TerminateBackgroundWorker(process->handle);
			process->ended = true;
		}
	}
}

/* A function of a user's can keep a process for ever. */
static void
end_late_process(Process *process)
{
	if (process->handle == NULL ||
		GetCurrentTimestamp() < rf_board_deadline_of(process->number))
		return;
	/* no end of ours: it counts as a death */
	TerminateBackgroundWorker(process->handle);
}

/* Let go of databases that somebody has waited for. */
static void
guard_databases(Launcher *launcher)
{
	TimestampTz now = GetCurrentTimestamp();

	for (int i = 0; i < lengthof(launcher->processes); i++)
	{
		Process	 *process = &launcher->processes[i];
		Database *database = process->handle == NULL ?
								 NULL :
								 find_database(launcher, process->database);

		end_late_process(process);
		if (database == NULL)
			continue;
		if (!is_wanted(launcher, database->oid))
			database->wanted_since = 0;
		else if (database->wanted_since == 0)
			database->wanted_since = now;
		else if (TimestampDifferenceExceeds(database->wanted_since, now,
											GUARD_PATIENCE_MS))
			end_processes(launcher, database->oid);
	}
}

/*
 * What to do next
 */

/* The database that was served longest ago, of those that wait. */
static Database *
next_database(Launcher *launcher, bool with_job)
{
	TimestampTz		now = GetCurrentTimestamp();
	HASH_SEQ_STATUS status;
	Database	   *database;
	Database	   *result = NULL;

	hash_seq_init(&status, launcher->databases);
	while ((database = hash_seq_search(&status)) != NULL)
	{
		if (database->has_job != with_job ||
			(!with_job && database->look_at > now))
			continue;
		if (result == NULL || database->served_at < result->served_at)
			result = database;
	}
	return result;
}

/* Send a worker for each job that was found, as far as there is room. */
static void
start_workers(Launcher *launcher)
{
	Database *database;

	while (launcher->nworkers < rf_guc_max_workers &&
		   (database = next_database(launcher, true)) != NULL)
	{
		bool wanted = is_wanted(launcher, database->oid);

		if (!wanted && !start_process(launcher, &database->job, false))
			return;
		database->has_job = false;
		database->served_at = GetCurrentTimestamp();
		/* the worker's end says when to look again, unless there is more */
		if (wanted)
			database->look_at = after_seconds(database->served_at, 1);
		else if (database->has_more || database->changed)
			database->look_at = 0;
	}
}

/* Send a scout, one at a time, and only if there is room for what it finds. */
static void
start_scout(Launcher *launcher)
{
	Database *database;

	if (launcher->has_scout || launcher->nworkers >= rf_guc_max_workers)
		return;
	database = next_database(launcher, false);
	if (database == NULL)
		return;
	if (is_wanted(launcher, database->oid))
		database->look_at = after_seconds(GetCurrentTimestamp(), 1);
	else
	{
		RfJob job = {.database = database->oid};

		if (start_process(launcher, &job, true))
		{
			database->look_at = DT_NOEND; /* until it reports */
			database->changed = false;
		}
	}
}

/* Does a policy anywhere ask where the WAL was some time ago? */
static bool
is_lag_limited(Launcher *launcher)
{
	HASH_SEQ_STATUS status;
	Database	   *database;
	bool			result = false;

	hash_seq_init(&status, launcher->databases);
	while ((database = hash_seq_search(&status)) != NULL)
		result |= database->limits_lag;
	return result;
}

/* How long there is nothing to do, but for what wakes us. */
static long
time_to_sleep(Launcher *launcher)
{
	TimestampTz		now = GetCurrentTimestamp();
	long			result = LIST_INTERVAL_S * 1000L;
	HASH_SEQ_STATUS status;
	Database	   *database;

	if (launcher->has_shortage || is_lag_limited(launcher))
		result = Min(result, rf_guc_naptime * 1000L);
	if (launcher->nworkers > 0 || launcher->has_scout)
		result = Min(result, GUARD_INTERVAL_MS);
	if (!rf_guc_worker || launcher->has_scout || launcher->has_shortage ||
		launcher->nworkers >= rf_guc_max_workers)
		return result;
	hash_seq_init(&status, launcher->databases);
	while ((database = hash_seq_search(&status)) != NULL)
		result = Min(result,
					 TimestampDifferenceMilliseconds(now, database->look_at));
	return result;
}

/* Is the only database that it serves gone? */
static bool
has_lost_database(Launcher *launcher)
{
	return OidIsValid(launcher->database) &&
		   find_database(launcher, launcher->database) == NULL;
}

static void
do_round(Launcher *launcher)
{
	reap_processes(launcher);
	if (TimestampDifferenceExceeds(launcher->listed_at, GetCurrentTimestamp(),
								   LIST_INTERVAL_S * 1000))
		list_databases(launcher);
	rf_throttle_sample(); /* as often as we wake, and sooner where one asks */
	take_changes(launcher);
	if (!rf_guc_worker)
		end_processes(launcher, InvalidOid);
	else
	{
		start_workers(launcher);
		start_scout(launcher);
	}
	guard_databases(launcher);
}

/*
 * Entry points of the processes
 */

static void
make_launcher(Launcher *launcher, Oid database)
{
	HASHCTL ctl = {0};

	memset(launcher, 0, sizeof(*launcher));
	launcher->database = database;
	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(Database);
	launcher->databases = hash_create("Rillflow databases", 32, &ctl,
									  HASH_ELEM | HASH_BLOBS);
}

void
rf_launcher_main(Datum arg)
{
	static Launcher launcher;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	if (!rf_board_enter_launcher(DatumGetObjectId(arg)))
		proc_exit(0);
	make_launcher(&launcher, DatumGetObjectId(arg));
	list_databases(&launcher);
	while (!ShutdownRequestPending)
	{
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		do_round(&launcher);
		if (has_lost_database(&launcher))
			break;
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 time_to_sleep(&launcher), PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
	end_processes(&launcher, InvalidOid);
	/* who ends us does not end it for good; a database that is gone does */
	proc_exit(ShutdownRequestPending ? 1 : 0);
}

/*
 * What ends a process of ours ends it where an error could.  To be cancelled it
 * has to be connected: before, it would end without telling why.
 */
static void
take_signals(void)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGINT, SIG_IGN);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
}

/*
 * Settings of roles and databases that would make a run wait or fail.  Nothing
 * is waited for without a limit: what is not to be had is left to a later run.
 */
static void
fix_settings(void)
{
	char					 lock_timeout[16];
	static const char *const settings[][2] =
		{{"search_path", "pg_catalog, pg_temp"},
		 {"statement_timeout", "0"},
		 {"transaction_timeout", "0"}, /* from 17 on */
		 {"idle_in_transaction_session_timeout", "0"},
		 {"TimeZone", "UTC"},
		 {"default_transaction_isolation", "read committed"},
		 {"default_transaction_deferrable", "off"}};

	for (int i = 0; i < lengthof(settings); i++)
	{
		if (rf_compat_find_setting(settings[i][0]) != NULL)
			SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET,
							PGC_S_OVERRIDE);
	}
	snprintf(lock_timeout, sizeof(lock_timeout), "%d",
			 rf_guc_lock_timeout > 0 ? rf_guc_lock_timeout : LOCK_WAIT_MS);
	SetConfigOption("lock_timeout", lock_timeout, PGC_SUSET, PGC_S_OVERRIDE);
}

/*
 * Whoever paused a policy before its worker can be cancelled has committed
 * that, and the worker finds it.
 */
static void
connect_as(Oid role, const RfJob *job)
{
	rf_compat_connect_worker(job->database, role);
	fix_settings();
	pqsignal(SIGINT, StatementCancelHandler);
}

void
rf_scout_main(Datum arg)
{
	int		  number = DatumGetInt32(arg);
	RfJob	  job;
	RfFinding finding = {.due_at = DT_NOEND};

	take_signals();
	rf_board_begin_process(number, &job);
	connect_as(InvalidOid, &job);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	XactReadOnly = true; /* it is a superuser who looks */
	PushActiveSnapshot(GetTransactionSnapshot());
	if (OidIsValid(get_extension_oid("rillflow", true)))
		rf_scout_find(GetCurrentTimestamp(), &finding);
	PopActiveSnapshot();
	CommitTransactionCommand();
	rf_board_report(number, &finding);
	proc_exit(0);
}

void
rf_worker_main(Datum arg)
{
	int		  number = DatumGetInt32(arg);
	RfJob	  job;
	RfFinding finding = {0};

	take_signals();
	rf_board_begin_process(number, &job);
	connect_as(job.role, &job);
	finding.more = rf_run_policy(job.namespace_id, job.policy);
	rf_board_report(number, &finding);
	proc_exit(0);
}

/* Register the launcher of all databases, while the library is preloaded. */
void
rf_launcher_register(void)
{
	BackgroundWorker worker;

	describe(&worker, "rf_launcher_main", "rillflow launcher");
	worker.bgw_restart_time = RESTART_SECONDS;
	worker.bgw_notify_pid = 0;
	worker.bgw_main_arg = ObjectIdGetDatum(InvalidOid);
	RegisterBackgroundWorker(&worker);
}

/*
 * SQL interface
 */

PG_FUNCTION_INFO_V1(rf_worker_start);

static pid_t
start_launcher(void)
{
	BackgroundWorker		worker;
	BackgroundWorkerHandle *handle;
	pid_t					pid;

	describe(&worker, "rf_launcher_main", "rillflow launcher");
	worker.bgw_restart_time = RESTART_SECONDS;
	worker.bgw_main_arg = ObjectIdGetDatum(MyDatabaseId);
	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("no background worker slot is free"),
				 errhint("You might need to increase max_worker_processes.")));
	if (WaitForBackgroundWorkerStartup(handle, &pid) != BGWH_STARTED)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_RESOURCES),
						errmsg("the launcher did not start"),
						errhint("See the server's log.")));
	/* who asks for another one finds it */
	while (rf_board_launcher_of(MyDatabaseId) == 0 &&
		   GetBackgroundWorkerPid(handle, &pid) == BGWH_STARTED)
		rf_lock_pause(ARRIVAL_INTERVAL_MS);
	if (rf_board_launcher_of(MyDatabaseId) == 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
			 errmsg("there are too many launchers"),
			 errhint(
				 "Add \"rillflow\" to shared_preload_libraries: one launcher serves all databases then.")));
	return pid;
}

Datum
rf_worker_start(PG_FUNCTION_ARGS)
{
	pid_t pid = rf_board_launcher_of(MyDatabaseId);

	PreventCommandIfReadOnly("rf_worker_start()");
	if (pid != 0)
		ereport(NOTICE, (errmsg("a launcher serves this database already")));
	else
		pid = start_launcher();
	PG_RETURN_INT32(pid);
}
