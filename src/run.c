/*-------------------------------------------------------------------------
 *
 * run.c
 *	  Runs of policies, on record.
 *
 * A run makes months ahead, brings what waits in default partitions to its
 * months, and moves what is due.  It is a row of rf_archive_runs from its first
 * transaction on, and each step brings the row up to date in the transaction
 * that it describes, so that a run which a crash cut short tells what came of
 * it.  The next run of the store finds it and says so: a store has one run at a
 * time, and who runs holds an advisory lock of his session.
 *
 * A run that fails has undone its last step only.  What went wrong is put on
 * record in a transaction of its own.
 *
 * Nothing here runs as another role than the one that the process connected
 * as, which owns the policy, but for bookkeeping as the owner of the tables.
 * Whatever could call functions of users runs in a security-restricted context.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "board.h"
#include "compat.h"
#include "guc.h"
#include "lock.h"
#include "partition.h"
#include "policy.h"
#include "query.h"
#include "report.h"
#include "run.h"
#include "store.h"
#include "tenancy.h"
#include "throttle.h"
#include "worker.h"

/* Runs that stay on record, of each policy, and of those that are no more. */
#define RUNS_KEPT "1000"
#define RUNS_KEPT_LONGEST "30 days"

/*
 * A month of more events that wait in a default partition is not made by a
 * worker: they go along under a lock that keeps everybody out.
 */
#define MOST_WAITING 10000

/*
 * A step that goes on so long beyond the run's time is cancelled; a process
 * that does, ended.
 */
#define STEP_GRACE_MS 500
#define PROCESS_GRACE_MS 30000

typedef struct Run
{
	Oid			namespace_id;
	RfBook		book;
	const char *name;
	RfPolicy	policy;
	TimestampTz started_at;
	int64		run_id;
	RfThrottle	throttle;
	RfProgress	progress;
	char	   *stopped_by; /* who or what; NULL: nobody */
	char	   *left_for; /* why something was left to others; NULL: nothing */
	bool		begun;	  /* is it on record? */
	bool		done;	  /* has it come to its end? */
	ErrorData  *error;	  /* what it ended with; NULL: none */
} Run;

static const RfStatement update_run =
	{"UPDATE {runs} SET events = $2, batches = $3, months = $4, expected = $5,"
	 " batch_size = $6, held_back_by = nullif($7, '') WHERE run_id = $1",
	 7,
	 {INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT4OID, TEXTOID}};

static const RfStatement is_active =
	{"SELECT 1 FROM {policies} WHERE name = $1 AND paused_at IS NULL",
	 1,
	 {TEXTOID}};

/*
 * Transactions of this process
 */

static void
begin_transaction(void)
{
	MemoryContext context = CurrentMemoryContext;

	/* now() would be the time when the process began */
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	rf_query_fire_at_once();
	MemoryContextSwitchTo(context);
}

static void
end_transaction(void)
{
	MemoryContext context = CurrentMemoryContext;

	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}

/*
 * The record
 */

static int64
insert_run(const Run *run)
{
	Oid	  types[3] = {TEXTOID, TIMESTAMPTZOID, INT4OID};
	Datum values[3];

	values[0] = CStringGetTextDatum(run->name);
	values[1] = TimestampTzGetDatum(run->started_at);
	values[2] = Int32GetDatum(MyProcPid);
	rf_query_once(rf_query_format("INSERT INTO %s (policy, started_at, pid)"
								  " VALUES ($1, $2, $3) RETURNING run_id",
								  run->book.runs),
				  3, types, values, NULL);
	return DatumGetInt64(rf_query_must(0, 1));
}

/* Why a run that nobody stopped did not come to its end. */
static const char *
out_of_time(const Run *run)
{
	TimestampTz now = GetCurrentTimestamp();

	if (now >= run->policy.window_end)
		return "window";
	if (now >= run->policy.deadline)
		return "max_runtime";
	return run->progress.held_back_by;
}

static void
finish_row(const Run *run)
{
	const ErrorData *error = run->error;
	const char		*held_back_by;
	Oid				 types[5] = {INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	Datum			 values[5] = {0};
	char			 nulls[5] = {' ', 'n', 'n', 'n', ' '};

	values[0] = Int64GetDatum(run->run_id);
	held_back_by = run->stopped_by != NULL	   ? run->stopped_by :
				   !run->done && error == NULL ? out_of_time(run) :
												 run->left_for;
	if (held_back_by != NULL)
	{
		values[1] = CStringGetTextDatum(held_back_by);
		nulls[1] = ' ';
	}
	if (error != NULL)
	{
		values[2] = CStringGetTextDatum(error->message);
		values[3] = CStringGetTextDatum(unpack_sql_state(error->sqlerrcode));
		nulls[2] = nulls[3] = ' ';
	}
	values[4] = CStringGetTextDatum(run->name);
	rf_query_once(
		rf_query_format("UPDATE %s SET finished_at = clock_timestamp(),"
						" held_back_by = $2, error = $3, sqlstate = $4"
						" WHERE run_id = $1 AND policy = $5",
						run->book.runs),
		5, types, values, nulls);
}

static void
prune_runs(const Run *run)
{
	Oid	  types[1] = {TEXTOID};
	Datum values[1];

	values[0] = CStringGetTextDatum(run->name);
	rf_query_once(rf_query_format("DELETE FROM %s WHERE policy = $1"
								  " AND run_id <= (SELECT run_id FROM %s"
								  " WHERE policy = $1 ORDER BY run_id DESC"
								  " OFFSET " RUNS_KEPT " LIMIT 1)"
								  " OR started_at < now() - interval"
								  " '" RUNS_KEPT_LONGEST "' AND policy"
								  " NOT IN (SELECT name FROM %s)",
								  run->book.runs, run->book.runs,
								  run->book.policies),
				  1, types, values, NULL);
}

/* Begin a line of the log about a run. */
static void
begin_line(const Run *run, const char *what, StringInfo line)
{
	rf_report_begin(line, what);
	rf_report_text(line, "schema", run->book.schema);
	rf_report_text(line, "policy", run->name);
}

/* Finish a run that is on record, and count it for the policy. */
static void
put_end(const Run *run)
{
	const ErrorData *error = run->error;
	RfScope			 scope;
	int				 failures;
	StringInfoData	 line;

	rf_query_begin(&scope, run->book.owner, SECURITY_RESTRICTED_OPERATION);
	finish_row(run);
	prune_runs(run);
	rf_query_end(&scope);
	if (error == NULL)
	{
		rf_policy_note_success(&run->book, run->name);
		return;
	}
	failures = rf_policy_note_failure(&run->book, run->name, error->message);
	begin_line(run,
			   failures >= RF_POLICY_MAX_FAILURES ? "policy paused" :
													"policy run failed",
			   &line);
	rf_report_number(&line, "failures", failures);
	rf_report_text(&line, "sqlstate", unpack_sql_state(error->sqlerrcode));
	rf_report_text(&line, "error", error->message);
	rf_report_now(&line);
}

/*
 * Beginning
 */

/* Runs that are not finished belong to processes that are gone. */
static void
mark_cut_runs(const Run *run)
{
	rf_query_once(
		rf_query_format("UPDATE %s SET finished_at = clock_timestamp(),"
						" error = 'the run was cut short', sqlstate = '57P01'"
						" WHERE finished_at IS NULL",
						run->book.runs),
		0, NULL, NULL, NULL);
}

static bool
is_due(const Run *run)
{
	List	 *dues = rf_policy_look(&run->book, run->started_at);
	ListCell *cell;

	foreach(cell, dues)
	{
		RfPolicyDue *due = lfirst(cell);

		if (strcmp(due->policy, run->name) == 0)
			return due->due;
	}
	return false;
}

/* Put a run on record, unless there is nothing to do any more. */
static void
begin_run(Run *run)
{
	Oid		namespace_id = run->namespace_id;
	RfScope scope;
	bool	begun;

	begin_transaction();
	begun = rf_lock_run(namespace_id) &&
			rf_policy_open_book(namespace_id, &run->book) && is_due(run);
	if (begun)
	{
		rf_policy_note_cut_runs(&run->book);
		rf_query_begin(&scope, run->book.owner, SECURITY_RESTRICTED_OPERATION);
		mark_cut_runs(run);
		run->run_id = insert_run(run);
		rf_query_end(&scope);
		rf_policy_take_request(&run->book, run->name);
	}
	end_transaction();
	run->begun = begun;
}

/*
 * Steps
 */

static void
record_progress(RfStore *store, const RfProgress *progress, const Run *run)
{
	Datum values[7];

	values[0] = Int64GetDatum(run->run_id);
	values[1] = Int64GetDatum(progress->events);
	values[2] = Int64GetDatum(progress->batches);
	values[3] = Int64GetDatum(progress->months);
	values[4] = Int64GetDatum(progress->expected);
	values[5] = Int32GetDatum(progress->batch_size);
	values[6] = CStringGetTextDatum(progress->held_back_by);
	rf_query_run(rf_store_plan(store, &update_run), values, NULL);
}

/* Called in each transaction of the loop; false: it is to stop after it. */
static bool
on_step(RfStore *store, const RfProgress *progress, void *arg)
{
	Run	   *run = arg;
	Datum	name = CStringGetTextDatum(run->name);
	RfScope scope;
	bool	active;

	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	record_progress(store, progress, run);
	active = rf_query_run(rf_store_plan(store, &is_active), &name, NULL) > 0;
	rf_query_end(&scope);
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	if (!active)
		run->stopped_by = "pause";
	else if (rf_lock_database_is_wanted(MyDatabaseId))
		run->stopped_by = "database";
	return run->stopped_by == NULL;
}

/* Are we the owner of the policy, and may that one do what it asks for? */
static void
check_rights(const Run *run, RfStore *store)
{
	if (get_role_oid(run->policy.owner, true) != GetUserId())
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
			 errmsg(
				 "role \"%s\" does not exist, may not log in, or does not own the store",
				 run->policy.owner),
			 errhint("Remove the policy, and set it as the owner.")));
	if (!rf_compat_owns_relation(store->events, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE,
					   get_rel_name(store->events));
}

/* When the run has to be over. */
static TimestampTz
end_of_time(const Run *run)
{
	return Min(run->policy.deadline, run->policy.window_end);
}

/*
 * Make a month, in a transaction of its own.  Where its locks are not to be
 * had, the next run makes it; where another table has its name, nobody does,
 * and what comes to it waits in the default partition.
 */
static bool
try_month(Run *run, RfTier tier, DateADT month)
{
	Oid			namespace_id = run->book.namespace_id;
	ErrorData  *error;
	RfMonthMade made;
	bool		go_on;

	CHECK_FOR_INTERRUPTS();
	if (GetCurrentTimestamp() >= end_of_time(run))
		return false;
	PushActiveSnapshot(GetTransactionSnapshot());
	made = rf_partition_try_create(rf_store_in(namespace_id, false), tier,
								   month, &error);
	if (made == RF_MONTH_LOCKED)
		run->left_for = "locks";
	else if (made == RF_MONTH_NAMED)
		run->left_for = psprintf("name of month %s",
								 rf_partition_date_text(month));
	go_on = on_step(rf_store_in(namespace_id, false), &run->progress, run);
	PopActiveSnapshot();
	rf_query_commit();
	return go_on;
}

static bool
make_months_ahead(Run *run)
{
	DateADT month = rf_partition_month_of(run->started_at);
	bool	go_on = true;

	for (int i = 0; i <= run->policy.premake && go_on; i++)
	{
		go_on = try_month(run, RF_HOT, month);
		month = rf_partition_next_month(month);
	}
	return go_on;
}

/*
 * What waits in the default partition of a tier goes to months, but for months
 * of many events; what of them is due the move takes, by batches.
 */
static bool
drain(Run *run, RfTier tier)
{
	int64	  events = 0;
	int64	  left = 0;
	List	 *months;
	ListCell *cell;
	bool	  go_on = true;

	PushActiveSnapshot(GetTransactionSnapshot());
	months = rf_partition_waiting(rf_store_in(run->book.namespace_id, false),
								  tier, MOST_WAITING, &events, &left);
	PopActiveSnapshot();
	if (left > 0)
		run->left_for = "default partition";
	foreach(cell, months)
	{
		if (go_on)
			go_on = try_month(run, tier, lfirst_int(cell));
	}
	return go_on;
}

/* What is to be moved: events of the store, or of a tenant of it. */
static RfStore *
find_store(const Run *run)
{
	RfStore	   *store;
	const char *tenant = run->policy.tenant;

	PushActiveSnapshot(GetTransactionSnapshot());
	store = rf_store_in(run->book.namespace_id, false);
	if (tenant != NULL && !store->conjoined)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg(
				 "policy \"%s\" is for a tenant, and the store in schema \"%s\" has none",
				 run->name, store->schema)));
	if (tenant != NULL)
	{
		rf_store_check_tenant(tenant);
		store = rf_store_of_tenant(store,
								   rf_tenancy_number(tenant, strlen(tenant)));
	}
	PopActiveSnapshot();
	return store;
}

static bool
move(Run *run)
{
	RfMoveSpec	  spec = {0};
	RfLoopControl control = {0};
	RfStore		 *store = find_store(run);

	spec.before = run->policy.before;
	spec.only_archived = run->policy.only_archived;
	spec.commits = true;
	spec.now = run->started_at;
	rf_throttle_init(&run->throttle, run->policy.batch_size,
					 run->policy.max_replica_lag);
	spec.batch_size = run->throttle.size;
	control.deadline = end_of_time(run);
	control.throttle = &run->throttle;
	control.on_step = on_step;
	control.arg = run;
	return rf_worker_move(store, &spec, &control, &run->progress);
}

/*
 * What the policy says now.  Most steps are short, and the run ends after one;
 * a longer one is cancelled.
 */
static void
take_policy(Run *run)
{
	TimestampTz end;

	if (!rf_policy_read(&run->book, run->name, run->started_at, &run->policy))
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("policy \"%s\" was paused or removed", run->name)));
	end = end_of_time(run);
	enable_timeout_at(STATEMENT_TIMEOUT,
					  TimestampTzPlusMilliseconds(end, STEP_GRACE_MS));
	rf_board_set_deadline(TimestampTzPlusMilliseconds(end, PROCESS_GRACE_MS));
}

/* All that a run does, unless it is stopped. */
static void
do_steps(Run *run)
{
	MemoryContext context = CurrentMemoryContext;
	RfStore		 *store;

	begin_transaction();
	take_policy(run);
	PopActiveSnapshot(); /* each step has its own */
	rf_query_connect_nonatomic();
	MemoryContextSwitchTo(context); /* which outlives the connection */
	store = rf_store_in(run->book.namespace_id, false);
	check_rights(run, store);
	if (store->adopting)
		run->stopped_by = "adoption";
	else
		run->done = make_months_ahead(run) && drain(run, RF_HOT) &&
					drain(run, RF_COLD) && move(run);
	rf_query_disconnect();
	CommitTransactionCommand();
}

/*
 * Ending
 */

static bool
is_cancel(const ErrorData *error)
{
	return error != NULL && error->sqlerrcode == ERRCODE_QUERY_CANCELED;
}

/* Others stood in the way, outside of the loop that would have tried again. */
static bool
is_contention(const ErrorData *error)
{
	return error != NULL &&
		   rf_query_catches(error->sqlerrcode, RF_ANY_CONTENTION);
}

static void
take_contention(Run *run)
{
	snprintf(run->progress.held_back_by, sizeof(run->progress.held_back_by),
			 "%s",
			 run->error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE ?
				 "conflicts" :
				 "locks");
	run->error = NULL;
}

/* A run that somebody cancels because its policy was paused did not fail. */
static void
take_cancel(Run *run)
{
	RfPolicy policy;
	bool	 active = rf_policy_read(&run->book, run->name, run->started_at,
									 &policy);

	if (!active)
		run->stopped_by = "pause";
	else if (GetCurrentTimestamp() < end_of_time(run))
		run->stopped_by = "cancel";
	run->error = NULL;
}

static void
finish_run(Run *run)
{
	begin_transaction();
	if (is_cancel(run->error))
		take_cancel(run);
	else if (is_contention(run->error))
		take_contention(run);
	put_end(run);
	end_transaction();
}

static void
log_run(const Run *run)
{
	const RfProgress *progress = &run->progress;
	int64			  microseconds = GetCurrentTimestamp() - run->started_at;
	StringInfoData	  line;

	if (progress->events + progress->months == 0 ||
		!rf_report_wanted(RF_NOW_AND_THEN, microseconds))
		return;
	begin_line(run, "policy run", &line);
	rf_report_number(&line, "events", progress->events);
	rf_report_number(&line, "batches", progress->batches);
	rf_report_number(&line, "months", progress->months);
	rf_report_time(&line, microseconds);
	rf_report_now(&line);
}

/*
 * Do a part of a run, outside of any transaction; what error it ended with,
 * NULL for none.
 */
static ErrorData *
try_part(Run *run, void (*part)(Run *run))
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData *volatile error = NULL;

	PG_TRY();
	{
		part(run);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		AbortOutOfAnyTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return error;
}

/* What can't be put on record is logged, and the store left alone a while. */
static void
leave_run(const Run *run, const ErrorData *error)
{
	StringInfoData line;

	if (error == NULL || is_cancel(error))
		return;
	rf_board_note_trouble(MyDatabaseId, run->namespace_id);
	rf_report_begin(&line, run->begun ? "policy run not finished" :
										"policy run not begun");
	rf_report_text(&line, "policy", run->name);
	rf_report_text(&line, "sqlstate", unpack_sql_state(error->sqlerrcode));
	rf_report_text(&line, "error", error->message);
	rf_report_now(&line);
}

/*
 * Run a policy in this process, which has connected as its owner, outside of
 * any transaction.  False: it is not due any more, or could not begin.
 */
bool
rf_run_policy(Oid namespace_id, const char *policy)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext,
												  "Rillflow run",
												  ALLOCSET_DEFAULT_SIZES);
	Run			  run = {.namespace_id = namespace_id,
						 .name = policy,
						 .policy = {.window_end = DT_NOEND, .deadline = DT_NOEND}};
	ErrorData	 *error;

	/* the memory of a connection that commits hangs on a portal's */
	PortalContext = context;
	MemoryContextSwitchTo(context);
	run.started_at = GetCurrentTimestamp();
	leave_run(&run, try_part(&run, begin_run));
	if (!run.begun)
		return false;
	pgstat_report_activity(STATE_RUNNING,
						   psprintf("rillflow: policy \"%s\" of schema \"%s\"",
									run.name, run.book.schema));
	run.error = try_part(&run, do_steps);
	disable_timeout(STATEMENT_TIMEOUT, false);
	error = try_part(&run, finish_run);
	if (is_cancel(error)) /* which came too late for the steps */
		error = try_part(&run, finish_run);
	leave_run(&run, error);
	if (error == NULL && run.error == NULL)
		log_run(&run);
	pgstat_report_activity(STATE_IDLE, NULL);
	return true;
}
