/*-------------------------------------------------------------------------
 *
 * policy.c
 *	  Policies: what a worker archives, and when.
 *
 * A policy is a row of rf_archive_policies.  Whether it is due follows from
 * that row, from the runs that are on record, and from the time, which is
 * handed in.  Nothing here starts or waits for anything: a trigger on the table
 * tells the launcher that it should look.
 *
 * A dump brings the policies along, but a copy of a database must not begin to
 * archive by itself.  So a policy acts only where rf_armed names it together
 * with this database.  That table belongs to the extension, and a dump leaves
 * its rows out; pg_upgrade and replication bring them along, and with them the
 * number of the database, which a database made from a template does not have.
 *
 * The tables are found by their names in the schema, and not through what is
 * known of a store: that a store is broken has to be put on record, too.
 *
 * Locks: ROW EXCLUSIVE on rf_archive_policies and rf_armed, and the rows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "board.h"
#include "compat.h"
#include "ledger.h"
#include "policy.h"
#include "query.h"
#include "store.h"
#include "tenancy.h"

#define INSERT_POLICY                                               \
	"INSERT INTO %s (name, owner, older_than, every, batch_size,"   \
	" window_start, window_end, time_zone, only_archived, premake," \
	" max_runtime, max_replica_lag, tenant_id)"                     \
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12,"   \
	" $13)"                                                         \
	" ON CONFLICT (name) DO NOTHING"

/*
 * After a failure the policy waits for a minute at least, and twice as long
 * after each further one.
 */
#define WAIT                                                           \
	"CASE failures WHEN 0 THEN every ELSE"                             \
	" greatest(every, least(interval '1 minute' * 2 ^ (failures - 1)," \
	" interval '1 hour')) END"

/*
 * When each policy is due: since is when its time has come, w when its window
 * is open from then on.
 */
#define LOOK                                                               \
	"SELECT name, owner, CASE WHEN paused_at IS NOT NULL THEN 'paused: '"  \
	" || coalesce(paused_because, '') WHEN NOT name = ANY ($2) THEN"       \
	" 'disarmed: not armed in this database' WHEN w > $1 AND w > t THEN"   \
	" 'waits for its window' WHEN w > $1 AND failures > 0 THEN"            \
	" 'waits after ' || failures || CASE failures WHEN 1 THEN ' failure'"  \
	" ELSE ' failures' END WHEN w > $1 THEN 'waits for its time'"          \
	" ELSE 'due' END,"                                                     \
	" paused_at IS NULL AND name = ANY ($2), w, since, tenant_id,"         \
	" max_replica_lag IS NOT NULL"                                         \
	" FROM (SELECT p.*, CASE WHEN run_requested_at IS NOT NULL"            \
	" THEN '-infinity' ELSE coalesce((SELECT started_at FROM %s AS r"      \
	" WHERE r.policy = p.name AND r.started_at >= p.created_at"            \
	" ORDER BY run_id DESC LIMIT 1) + " WAIT ","                           \
	" '-infinity') END AS since FROM %s AS p OFFSET 0) AS p,"              \
	" LATERAL (SELECT greatest(since, $1) AS t) AS t,"                     \
	" LATERAL (SELECT t AT TIME ZONE time_zone AS l) AS l,"                \
	" LATERAL (SELECT CASE WHEN run_requested_at IS NOT NULL"              \
	" OR window_start IS NULL OR CASE WHEN window_start < window_end THEN" \
	" l::time >= window_start AND l::time < window_end ELSE"               \
	" l::time >= window_start OR l::time < window_end END THEN t"          \
	" ELSE (date_trunc('day', l) + window_start + CASE WHEN l::time"       \
	" >= window_start THEN interval '1 day' ELSE interval '0' END)"        \
	" AT TIME ZONE time_zone END AS w) AS w ORDER BY 6, 5, 1"

/* What a run of a policy that begins at $2 has to do, and until when. */
#define READ_POLICY                                                       \
	"SELECT owner, (l - older_than) AT TIME ZONE time_zone,"              \
	" CASE WHEN window_start IS NULL OR run_requested_at IS NOT NULL"     \
	" THEN 'infinity' ELSE (date_trunc('day', l) + window_end +"          \
	" CASE WHEN l::time >= window_end THEN interval '1 day'"              \
	" ELSE interval '0' END) AT TIME ZONE time_zone END,"                 \
	" $2 + max_runtime, coalesce(batch_size, 0), only_archived, premake," \
	" max_replica_lag, tenant_id"                                         \
	" FROM (SELECT *, $2 AT TIME ZONE time_zone AS l FROM %s"             \
	" WHERE name = $1 AND paused_at IS NULL) AS p"

/* How each policy is doing; $1 is now, $2 those that are armed. */
#define STATES                                                              \
	"SELECT p.name, p.failures, p.failed_runs, p.paused_at IS NOT NULL,"    \
	" p.name = ANY ($2), p.only_archived OR p.tenant_id IS NOT NULL,"       \
	" ($1 AT TIME ZONE p.time_zone - p.older_than) AT TIME ZONE"            \
	" p.time_zone, r.started_at, (SELECT finished_at FROM %s AS s"          \
	" WHERE s.policy = p.name AND s.finished_at IS NOT NULL"                \
	" AND s.error IS NULL ORDER BY s.run_id DESC LIMIT 1),"                 \
	" r.run_id IS NOT NULL AND r.finished_at IS NULL, r.held_back_by"       \
	" FROM %s AS p LEFT JOIN LATERAL (SELECT * FROM %s AS r"                \
	" WHERE r.policy = p.name ORDER BY r.run_id DESC LIMIT 1) AS r ON true" \
	" ORDER BY p.name"

/* Runs that are cut short, which their policies count as failed. */
#define COUNT_CUT                                                            \
	"UPDATE %s AS p SET failed_runs = p.failed_runs + r.cut FROM (SELECT"    \
	" policy, count(*) AS cut FROM %s WHERE finished_at IS NULL GROUP BY 1)" \
	" AS r WHERE p.name = r.policy"

/*
 * Tables
 */

/* Only tables of one owner are trusted; false: there are none. */
bool
rf_policy_open_book(Oid namespace_id, RfBook *book)
{
	Oid policies = get_relname_relid("rf_archive_policies", namespace_id);
	Oid runs = get_relname_relid("rf_archive_runs", namespace_id);

	if (!OidIsValid(policies) || !OidIsValid(runs) ||
		get_rel_relkind(policies) != RELKIND_RELATION ||
		get_rel_relkind(runs) != RELKIND_RELATION ||
		rf_store_relation_owner(policies) != rf_store_relation_owner(runs))
		return false;
	book->namespace_id = namespace_id;
	book->owner = rf_store_relation_owner(policies);
	book->schema = get_namespace_name(namespace_id);
	book->policies = rf_store_relation_name(policies);
	book->runs = rf_store_relation_name(runs);
	return true;
}

static RfBook *
book_of(const RfStore *store)
{
	RfBook *book = palloc(sizeof(RfBook));

	if (!rf_policy_open_book(store->namespace_id, book))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("schema \"%s\" does not hold the policies of a store",
						store->schema)));
	return book;
}

/* Times are reckoned alike whatever the session has set. */
static void
begin_bookkeeping(const RfBook *book, RfScope *scope)
{
	rf_query_begin(scope, book->owner, SECURITY_RESTRICTED_OPERATION);
	rf_query_fix_text();
}

/*
 * Arming
 */

/* Run a statement on rf_armed: $1 a schema, $2 a policy, $3 this database. */
static uint64
run_on_armed(RfScope *scope, const char *sql, const char *schema,
			 const char *policy)
{
	Oid	  armed = get_relname_relid("rf_armed", rf_store_extension_schema());
	Oid	  types[3] = {NAMEOID, TEXTOID, OIDOID};
	Datum values[3];

	values[0] = DirectFunctionCall1(namein, CStringGetDatum(schema));
	values[1] = CStringGetTextDatum(policy);
	values[2] = ObjectIdGetDatum(MyDatabaseId);
	rf_query_begin(scope, rf_store_relation_owner(armed),
				   SECURITY_RESTRICTED_OPERATION);
	return rf_query_once(rf_query_format(sql, rf_store_relation_name(armed)), 3,
						 types, values, NULL);
}

static void
arm(const char *schema, const char *policy)
{
	RfScope scope;

	(void) run_on_armed(&scope,
						"INSERT INTO %s (schema, policy, database)"
						" VALUES ($1, $2, $3) ON CONFLICT (schema, policy)"
						" DO UPDATE SET database = excluded.database",
						schema, policy);
	rf_query_end(&scope);
}

static void
disarm(const char *schema, const char *policy)
{
	RfScope scope;

	(void) run_on_armed(&scope,
						"DELETE FROM %s WHERE schema = $1 AND policy = $2"
						" AND $3 IS NOT NULL",
						schema, policy);
	rf_query_end(&scope);
}

/* Nothing acts in a schema that has no store, or a new one. */
void
rf_policy_disarm_all(const char *schema)
{
	RfScope scope;

	(void) run_on_armed(&scope,
						"DELETE FROM %s WHERE schema = $1 AND $2 = ''"
						" AND $3 IS NOT NULL",
						schema, "");
	rf_query_end(&scope);
}

/* The policies of a schema that may act in this database. */
static Datum
armed_policies(const char *schema)
{
	MemoryContext context = CurrentMemoryContext;
	RfScope		  scope;
	Datum		  result;
	bool		  isnull;

	(void) run_on_armed(&scope,
						"SELECT ARRAY(SELECT policy FROM %s WHERE schema = $1"
						" AND database = $3 AND $2 = '')",
						schema, "");
	rf_query_copy_row(0, &result, &isnull, 1, context);
	rf_query_end(&scope);
	return result;
}

/*
 * When policies are due
 */

/* A text of the last result, to outlive it; NULL where it is null. */
static char *
copy_text(uint64 row, int column, MemoryContext context)
{
	return rf_query_null(row, column) ?
			   NULL :
			   MemoryContextStrdup(context, TextDatumGetCString(
												rf_query_must(row, column)));
}

static void *
read_due(uint64 row, TimestampTz now)
{
	RfPolicyDue *due = palloc(sizeof(RfPolicyDue));
	bool		 may_act = DatumGetBool(rf_query_must(row, 4));

	due->policy = TextDatumGetCString(rf_query_must(row, 1));
	due->tenant = copy_text(row, 7, CurrentMemoryContext);
	due->owner = pstrdup(NameStr(*DatumGetName(rf_query_must(row, 2))));
	due->reason = TextDatumGetCString(rf_query_must(row, 3));
	due->due_at = may_act ? DatumGetTimestampTz(rf_query_must(row, 5)) :
							DT_NOEND;
	due->due = due->due_at <= now;
	due->since = DatumGetTimestampTz(rf_query_must(row, 6));
	due->limits_lag = may_act && DatumGetBool(rf_query_must(row, 8));
	return due;
}

/* Makes something of a row of the last result, in the current context. */
typedef void *(*ReadRow)(uint64 row, TimestampTz now);

/* Run a query on the policies of a book: $1 now, $2 those that are armed. */
static List *
list_policies(const RfBook *book, const char *sql, TimestampTz now,
			  ReadRow read)
{
	MemoryContext context = CurrentMemoryContext;
	List		 *result = NIL;
	Oid			  types[2] = {TIMESTAMPTZOID, TEXTARRAYOID};
	Datum		  values[2];
	RfScope		  scope;
	uint64		  rows;

	values[0] = TimestampTzGetDatum(now);
	values[1] = armed_policies(book->schema);
	begin_bookkeeping(book, &scope);
	rows = rf_query_once(sql, 2, types, values, NULL);
	for (uint64 i = 0; i < rows; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		result = lappend(result, read(i, now));
		MemoryContextSwitchTo(old);
	}
	rf_query_end(&scope);
	return result;
}

/* When each policy is due that is in the book, the longest waiting first. */
List *
rf_policy_look(const RfBook *book, TimestampTz now)
{
	return list_policies(book,
						 rf_query_format(LOOK, book->runs, book->policies), now,
						 read_due);
}

static TimestampTz
time_or_none(uint64 row, int column)
{
	return rf_query_null(row, column) ?
			   DT_NOBEGIN :
			   DatumGetTimestampTz(rf_query_must(row, column));
}

static void *
read_state(uint64 row, TimestampTz now)
{
	RfPolicyState *state = palloc(sizeof(RfPolicyState));

	state->policy = TextDatumGetCString(rf_query_must(row, 1));
	state->failures = DatumGetInt32(rf_query_must(row, 2));
	state->failed_runs = DatumGetInt64(rf_query_must(row, 3));
	state->paused = DatumGetBool(rf_query_must(row, 4));
	state->armed = DatumGetBool(rf_query_must(row, 5));
	state->chooses = DatumGetBool(rf_query_must(row, 6));
	state->before = DatumGetTimestampTz(rf_query_must(row, 7));
	state->last_run = time_or_none(row, 8);
	state->last_success = time_or_none(row, 9);
	state->unfinished = DatumGetBool(rf_query_must(row, 10));
	state->held_back_by = copy_text(row, 11, CurrentMemoryContext);
	return state;
}

/* How each policy in the book is doing, in order of their names. */
List *
rf_policy_states(const RfBook *book, TimestampTz now)
{
	return list_policies(book,
						 rf_query_format(STATES, book->runs, book->policies,
										 book->runs),
						 now, read_state);
}

/* A value of the last result, to outlive it; NULL where it is null. */
static Interval *
copy_interval(uint64 row, int column, MemoryContext context)
{
	Interval *result;

	if (rf_query_null(row, column))
		return NULL;
	result = MemoryContextAlloc(context, sizeof(Interval));
	*result = *DatumGetIntervalP(rf_query_must(row, column));
	return result;
}

/* What a run that begins now has to do; false: there is no such policy. */
bool
rf_policy_read(const RfBook *book, const char *name, TimestampTz now,
			   RfPolicy *policy)
{
	MemoryContext context = CurrentMemoryContext;
	Oid			  types[2] = {TEXTOID, TIMESTAMPTZOID};
	Datum		  values[2];
	RfScope		  scope;
	bool		  found;

	values[0] = CStringGetTextDatum(name);
	values[1] = TimestampTzGetDatum(now);
	begin_bookkeeping(book, &scope);
	found = rf_query_once(rf_query_format(READ_POLICY, book->policies), 2,
						  types, values, NULL) > 0;
	if (found)
	{
		policy->owner = MemoryContextStrdup(context, NameStr(*DatumGetName(
														 rf_query_must(0, 1))));
		policy->before = DatumGetTimestampTz(rf_query_must(0, 2));
		policy->window_end = DatumGetTimestampTz(rf_query_must(0, 3));
		policy->deadline = DatumGetTimestampTz(rf_query_must(0, 4));
		policy->batch_size = DatumGetInt32(rf_query_must(0, 5));
		policy->only_archived = DatumGetBool(rf_query_must(0, 6));
		policy->premake = DatumGetInt32(rf_query_must(0, 7));
		policy->max_replica_lag = copy_interval(0, 8, context);
		policy->tenant = copy_text(0, 9, context);
	}
	rf_query_end(&scope);
	return found;
}

/*
 * What runs change in a policy
 */

/* Run a statement on the row of a policy: $1 its name, $2 a text. */
static uint64
change_policy(const RfBook *book, const char *sql, const char *name,
			  const char *value)
{
	Oid		types[2] = {TEXTOID, TEXTOID};
	Datum	values[2];
	RfScope scope;
	uint64	rows;

	values[0] = CStringGetTextDatum(name);
	values[1] = CStringGetTextDatum(value);
	begin_bookkeeping(book, &scope);
	rows = rf_query_once(rf_query_format(sql, book->policies), 2, types, values,
						 NULL);
	rf_query_end(&scope);
	return rows;
}

/* Whoever asked for a run gets one. */
void
rf_policy_take_request(const RfBook *book, const char *name)
{
	(void) change_policy(book,
						 "UPDATE %s SET run_requested_at = NULL WHERE name = $1"
						 " AND run_requested_at IS NOT NULL AND $2 = ''",
						 name, "");
}

/* Count a failure, and pause the policy when it has had its last chance. */
int
rf_policy_note_failure(const RfBook *book, const char *name,
					   const char *message)
{
	Oid		types[3] = {TEXTOID, TEXTOID, INT4OID};
	Datum	values[3];
	RfScope scope;
	int		failures = 0;

	values[0] = CStringGetTextDatum(name);
	values[1] = CStringGetTextDatum(message);
	values[2] = Int32GetDatum(RF_POLICY_MAX_FAILURES);
	begin_bookkeeping(book, &scope);
	if (rf_query_once(
			rf_query_format(
				"UPDATE %s SET failures = failures + 1,"
				" failed_runs = failed_runs + 1,"
				" paused_at = CASE WHEN failures + 1 >= $3 THEN now() END,"
				" paused_because = CASE WHEN failures + 1 >= $3"
				" THEN failures + 1 || ' failures in a row: ' || $2 END"
				" WHERE name = $1 AND paused_at IS NULL RETURNING failures",
				book->policies),
			3, types, values, NULL) > 0)
		failures = DatumGetInt32(rf_query_must(0, 1));
	rf_query_end(&scope);
	return failures;
}

/* Count the runs that are on record as going on, and do not. */
void
rf_policy_note_cut_runs(const RfBook *book)
{
	RfScope scope;

	begin_bookkeeping(book, &scope);
	rf_query_once(rf_query_format(COUNT_CUT, book->policies, book->runs), 0,
				  NULL, NULL, NULL);
	rf_query_end(&scope);
}

void
rf_policy_note_success(const RfBook *book, const char *name)
{
	(void) change_policy(book,
						 "UPDATE %s SET failures = 0 WHERE name = $1"
						 " AND failures <> 0 AND $2 = ''",
						 name, "");
}

/*
 * Arguments
 */

/* those of rf_policy_set() */
enum
{
	ARG_NAME,
	ARG_OLDER_THAN,
	ARG_EVERY,
	ARG_BATCH_SIZE,
	ARG_WINDOW_START,
	ARG_WINDOW_END,
	ARG_TIME_ZONE,
	ARG_ONLY_ARCHIVED,
	ARG_PREMAKE,
	ARG_MAX_RUNTIME,
	ARG_MAX_REPLICA_LAG,
	ARG_TENANT
};

static void
refuse_argument(const char *name, const char *what)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("\"%s\" must %s", name, what)));
}

static char *
get_name(FunctionCallInfo fcinfo)
{
	char *name = RF_GETARG_STRING(0);

	rf_store_require_name(name);
	return name;
}

#define LONGEST_YEARS 1000

static void
require_length(FunctionCallInfo fcinfo, int arg, const char *name)
{
	Interval zero = {0};
	Interval longest = {.month = LONGEST_YEARS * MONTHS_PER_YEAR};

	if (PG_ARGISNULL(arg))
		refuse_argument(name, "not be null");
	if (DatumGetBool(DirectFunctionCall2(interval_le, PG_GETARG_DATUM(arg),
										 IntervalPGetDatum(&zero))))
		refuse_argument(name, "be more than zero");
	if (DatumGetBool(DirectFunctionCall2(interval_gt, PG_GETARG_DATUM(arg),
										 IntervalPGetDatum(&longest))))
		refuse_argument(name, psprintf("be at most %d years", LONGEST_YEARS));
}

static void
require_a_second(FunctionCallInfo fcinfo, int arg, const char *name)
{
	Interval second = {.time = USECS_PER_SEC};

	if (DatumGetBool(DirectFunctionCall2(interval_lt, PG_GETARG_DATUM(arg),
										 IntervalPGetDatum(&second))))
		refuse_argument(name, "be at least a second");
}

static void
check_window(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(ARG_WINDOW_START) != PG_ARGISNULL(ARG_WINDOW_END))
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("\"window_start\" and \"window_end\" belong together"),
			 errhint(
				 "Give both, or neither: the policy acts at any time then.")));
	if (!PG_ARGISNULL(ARG_WINDOW_START) &&
		PG_GETARG_TIMEADT(ARG_WINDOW_START) ==
			PG_GETARG_TIMEADT(ARG_WINDOW_END))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the window is empty"),
				 errhint("Without a window the policy acts at any time.")));
}

static void
check_range(FunctionCallInfo fcinfo, int arg, const char *name, int from,
			int to)
{
	if (PG_GETARG_INT32(arg) < from || PG_GETARG_INT32(arg) > to)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" must be from %d to %d", name, from, to)));
}

static void
check_policy(FunctionCallInfo fcinfo)
{
	require_length(fcinfo, ARG_OLDER_THAN, "older_than");
	require_length(fcinfo, ARG_EVERY, "every");
	require_a_second(fcinfo, ARG_EVERY, "every");
	if (!PG_ARGISNULL(ARG_BATCH_SIZE))
		check_range(fcinfo, ARG_BATCH_SIZE, "batch_size", 1, RF_MAX_BATCH);
	check_window(fcinfo);
	if (PG_ARGISNULL(ARG_TIME_ZONE))
		refuse_argument("time_zone", "not be null");
	if (PG_ARGISNULL(ARG_ONLY_ARCHIVED))
		refuse_argument("only_archived", "not be null");
	if (PG_ARGISNULL(ARG_PREMAKE))
		refuse_argument("premake", "not be null");
	check_range(fcinfo, ARG_PREMAKE, "premake", 0, 120);
	require_length(fcinfo, ARG_MAX_RUNTIME, "max_runtime");
	if (!PG_ARGISNULL(ARG_MAX_REPLICA_LAG))
		require_length(fcinfo, ARG_MAX_REPLICA_LAG, "max_replica_lag");
}

/*
 * Whom a worker connects as: who sets the policy.  A superuser sets it in the
 * name of the owner, for no worker is to be a superuser on somebody's tables.
 */
static Oid
choose_owner(const RfStore *store)
{
	Oid owner = superuser() ? store->owner : GetUserId();

	if (!rf_compat_worker_may_be(owner))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("role \"%s\" is not permitted to log in",
						GetUserNameFromId(owner, false)),
				 errdetail("A worker connects as the owner of the policy."),
				 errhint("Set the policy as a member of that role.")));
	return owner;
}

/*
 * A store has got another owner.  Policies of the one before, and of roles that
 * don't have the rights of the new one, act in its name from now on.
 */
void
rf_policy_pass_on(RfStore *store, const char *before)
{
	RfBook *book = book_of(store);
	char   *owner = GetUserNameFromId(store->owner, false);
	Oid		types[2] = {NAMEOID, NAMEOID};
	Datum	values[2];
	RfScope scope;
	uint64	rows;

	values[0] = DirectFunctionCall1(namein, CStringGetDatum(owner));
	values[1] = DirectFunctionCall1(namein, CStringGetDatum(before));
	begin_bookkeeping(book, &scope);
	rows = rf_query_once(
		rf_query_format("UPDATE %s SET owner = $1 WHERE owner <> $1"
						" AND (owner = $2 OR NOT EXISTS (SELECT FROM pg_roles"
						" WHERE rolname = owner AND NOT rolsuper"
						" AND pg_has_role(oid, $1, 'USAGE')))",
						book->policies),
		2, types, values, NULL);
	rf_query_end(&scope);
	if (rows > 0 && !rf_compat_worker_may_be(store->owner))
		ereport(
			WARNING,
			(errmsg(
				 "role \"%s\" is not permitted to log in, and policies of schema \"%s\" cannot act",
				 owner, store->schema),
			 errhint("Remove them, and set them as a member of that role.")));
	else if (rows > 0)
		ereport(
			NOTICE,
			(errmsg(
				"policies that act as role \"%s\" from now on: " UINT64_FORMAT,
				owner, rows)));
}

/*
 * A time zone that is unknown, and a cut-off before all time, are found out by
 * what a run would ask.
 */
static void
try_policy(const RfBook *book, const char *name)
{
	TimestampTz now = GetCurrentTimestamp();
	RfPolicy	policy;

	(void) rf_policy_read(book, name, now, &policy);
	(void) rf_policy_look(book, now);
}

static void
note(RfStore *store, const char *action, const char *name)
{
	RfLedgerEntry entry = RF_LEDGER_ENTRY(action);
	RfScope		  scope;

	entry.detail = name;
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	rf_ledger_write(store, &entry);
	rf_query_end(&scope);
}

static void
refuse_unknown(const char *name)
{
	ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
					errmsg("policy \"%s\" does not exist", name)));
}

/*
 * SQL interface
 */

PG_FUNCTION_INFO_V1(rf_policy_set);
PG_FUNCTION_INFO_V1(rf_policy_remove);
PG_FUNCTION_INFO_V1(rf_policy_pause);
PG_FUNCTION_INFO_V1(rf_policy_resume);
PG_FUNCTION_INFO_V1(rf_policy_run);
PG_FUNCTION_INFO_V1(rf_policy_arm);
PG_FUNCTION_INFO_V1(rf_policy_due);
PG_FUNCTION_INFO_V1(rf_policies_changed);

/* The tenant of a conjoined store that a policy is for, or a null. */
static Datum
tenant_of(const RfStore *store, char *null)
{
	*null = store->tenant_number == 0 ? 'n' : ' ';
	return store->tenant_number == 0 ? (Datum) 0 :
									   rf_tenancy_datum(store->tenant_number);
}

static void
insert_policy(FunctionCallInfo fcinfo, RfStore *store, const char *name)
{
	Oid		types[13] = {TEXTOID, NAMEOID, INTERVALOID, INTERVALOID,
						 INT4OID, TIMEOID, TIMEOID,		TEXTOID,
						 BOOLOID, INT4OID, INTERVALOID, INTERVALOID,
						 TEXTOID};
	Datum	values[13];
	char	nulls[13];
	RfBook *book = book_of(store);
	RfScope scope;
	uint64	rows;

	for (int i = 0; i < lengthof(values) - 1; i++)
	{
		int arg = i == 0 ? ARG_NAME : i - 1; /* the owner stands in between */

		values[i] = PG_GETARG_DATUM(arg);
		nulls[i] = PG_ARGISNULL(arg) ? 'n' : ' ';
	}
	values[1] = DirectFunctionCall1(namein,
									CStringGetDatum(
										GetUserNameFromId(choose_owner(store),
														  false)));
	nulls[1] = ' ';
	values[12] = tenant_of(store, &nulls[12]);
	begin_bookkeeping(book, &scope);
	rows = rf_query_once(rf_query_format(INSERT_POLICY, book->policies),
						 lengthof(values), types, values, nulls);
	rf_query_end(&scope);
	if (rows == 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 errmsg("policy \"%s\" already exists", name),
			 errhint(
				 "To change it, update \"rf_archive_policies\", or remove and set it.")));
	try_policy(book, name);
}

Datum
rf_policy_set(PG_FUNCTION_ARGS)
{
	char	*name = get_name(fcinfo);
	char	*tenant = RF_GETARG_STRING(ARG_TENANT);
	RfStore *store;

	PreventCommandIfReadOnly("rf_policy_set()");
	check_policy(fcinfo);
	store = rf_store_get_any(tenant, RF_RIGHT_OWN);
	insert_policy(fcinfo, store, name);
	arm(store->schema, name);
	note(store, "policy set", name);
	if (rf_board_launcher_of(MyDatabaseId) == 0)
		ereport(
			NOTICE,
			(errmsg("no launcher runs for this database"),
			 errhint(
				 "Add \"rillflow\" to shared_preload_libraries, or call rf_worker_start().")));
	PG_RETURN_VOID();
}

/* The policy has to be that of the tenant, or of the whole store. */
static void
require_policy(const RfStore *store, const char *name)
{
	RfBook *book = book_of(store);
	Oid		types[2] = {TEXTOID, TEXTOID};
	Datum	values[2];
	char	nulls[2] = {' ', ' '};
	RfScope scope;
	uint64	rows;

	values[0] = CStringGetTextDatum(name);
	values[1] = tenant_of(store, &nulls[1]);
	begin_bookkeeping(book, &scope);
	rows =
		rf_query_once(rf_query_format("SELECT 1 FROM %s WHERE name = $1"
									  " AND tenant_id IS NOT DISTINCT FROM $2",
									  book->policies),
					  2, types, values, nulls);
	rf_query_end(&scope);
	if (rows == 0)
		refuse_unknown(name);
}

/* Change the policy that the first argument names; the second is a tenant. */
static RfStore *
change_named(FunctionCallInfo fcinfo, const char *sql, const char *value,
			 const char *action, char **name)
{
	char	*tenant = RF_GETARG_STRING(1);
	RfStore *store;

	*name = get_name(fcinfo);
	store = rf_store_get_any(tenant, RF_RIGHT_OWN);
	if (store->conjoined)
		require_policy(store, *name);
	if (change_policy(book_of(store), sql, *name, value) == 0)
		refuse_unknown(*name);
	note(store, action, *name);
	return store;
}

Datum
rf_policy_remove(PG_FUNCTION_ARGS)
{
	char	*name;
	RfStore *store;

	PreventCommandIfReadOnly("rf_policy_remove()");
	store = change_named(fcinfo, "DELETE FROM %s WHERE name = $1 AND $2 = ''",
						 "", "policy removed", &name);
	disarm(store->schema, name);
	rf_board_stop_run(store->namespace_id, name);
	PG_RETURN_VOID();
}

Datum
rf_policy_pause(PG_FUNCTION_ARGS)
{
	char	*name;
	RfStore *store;

	PreventCommandIfReadOnly("rf_policy_pause()");
	store = change_named(fcinfo,
						 "UPDATE %s SET"
						 " paused_at = coalesce(paused_at, now()),"
						 " paused_because = coalesce(paused_because, $2)"
						 " WHERE name = $1",
						 psprintf("by %s",
								  GetUserNameFromId(GetSessionUserId(), false)),
						 "policy paused", &name);
	rf_board_stop_run(store->namespace_id, name);
	PG_RETURN_VOID();
}

Datum
rf_policy_resume(PG_FUNCTION_ARGS)
{
	char *name;

	PreventCommandIfReadOnly("rf_policy_resume()");
	(void) change_named(fcinfo,
						"UPDATE %s SET paused_at = NULL, paused_because = NULL,"
						" failures = 0 WHERE name = $1 AND $2 = ''",
						"", "policy resumed", &name);
	PG_RETURN_VOID();
}

static void
require_runnable(const RfStore *store, const char *name)
{
	List	 *dues = rf_policy_look(book_of(store), GetCurrentTimestamp());
	ListCell *cell;

	foreach(cell, dues)
	{
		RfPolicyDue *due = lfirst(cell);

		if (strcmp(due->policy, name) == 0 && !due->due)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("policy \"%s\" does not act", name),
					 errdetail_internal("%s", due->reason),
					 errhint("See rf_policy_resume() and rf_policy_arm().")));
	}
	if (rf_board_launcher_of(MyDatabaseId) == 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("no launcher runs for this database"),
			 errhint(
				 "Add \"rillflow\" to shared_preload_libraries, or call rf_worker_start().")));
}

Datum
rf_policy_run(PG_FUNCTION_ARGS)
{
	char	*name;
	RfStore *store;

	PreventCommandIfReadOnly("rf_policy_run()");
	store = change_named(fcinfo,
						 "UPDATE %s SET run_requested_at = now()"
						 " WHERE name = $1 AND $2 = ''",
						 "", "policy run", &name);
	require_runnable(store, name);
	PG_RETURN_VOID();
}

/* A conjoined store as a whole can have policies, too. */
static void
each_store(const char *tenant, bool looks, RfStoreWork work, void *arg)
{
	if (rf_store_is_all(tenant))
		rf_store_each(tenant, RF_RIGHT_OWN, looks, work, arg);
	else
		work(rf_store_get_any(tenant, RF_RIGHT_OWN), arg);
}

/* Is it one of those that were asked for: of a tenant, or of all? */
static bool
is_asked_for(const RfStore *store, const RfPolicyDue *due)
{
	return store->tenant_number == 0 ||
		   (due->tenant != NULL && strcmp(due->tenant, store->tenant) == 0);
}

/* Arm all policies of a store; how many have been disarmed? */
static int
arm_store(RfStore *store)
{
	List	  *dues = rf_policy_look(book_of(store), GetCurrentTimestamp());
	ArrayType *armed = DatumGetArrayTypeP(armed_policies(store->schema));
	int		   before = ArrayGetNItems(ARR_NDIM(armed), ARR_DIMS(armed));
	ListCell  *cell;

	foreach(cell, dues)
	{
		if (is_asked_for(store, lfirst(cell)))
			arm(store->schema, ((RfPolicyDue *) lfirst(cell))->policy);
	}
	armed = DatumGetArrayTypeP(armed_policies(store->schema));
	return ArrayGetNItems(ARR_NDIM(armed), ARR_DIMS(armed)) - before;
}

static void
arm_one(RfStore *store, void *arg)
{
	int *count = arg;
	int	 armed = arm_store(store);

	if (armed > 0)
		note(store, "policies armed", psprintf("%d", armed));
	*count += armed;
}

Datum
rf_policy_arm(PG_FUNCTION_ARGS)
{
	char *tenant = RF_GETARG_STRING(0);
	int	  count = 0;

	PreventCommandIfReadOnly("rf_policy_arm()");
	each_store(tenant, false, arm_one, &count);
	rf_board_tell_of_change();
	PG_RETURN_INT32(count);
}

typedef struct DueCall
{
	TimestampTz	   now;
	ReturnSetInfo *rsinfo;
} DueCall;

static void
put_due(RfStore *store, void *arg)
{
	DueCall	 *call = arg;
	List	 *dues = rf_policy_look(book_of(store), call->now);
	ListCell *cell;

	foreach(cell, dues)
	{
		RfPolicyDue *due = lfirst(cell);
		Datum		 values[5];
		bool		 nulls[5] = {0};

		if (!is_asked_for(store, due))
			continue;
		values[0] = DirectFunctionCall1(namein, CStringGetDatum(store->schema));
		values[1] = CStringGetTextDatum(due->policy);
		values[2] = BoolGetDatum(due->due);
		values[3] = TimestampTzGetDatum(due->due_at);
		nulls[3] = TIMESTAMP_IS_NOEND(due->due_at);
		values[4] = CStringGetTextDatum(due->reason);
		tuplestore_putvalues(call->rsinfo->setResult, call->rsinfo->setDesc,
							 values, nulls);
	}
}

Datum
rf_policy_due(PG_FUNCTION_ARGS)
{
	char   *tenant = RF_GETARG_STRING(1);
	DueCall call = {.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo};

	if (PG_ARGISNULL(0) || TIMESTAMP_NOT_FINITE(PG_GETARG_TIMESTAMPTZ(0)))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("\"now\" must be a point in time")));
	call.now = PG_GETARG_TIMESTAMPTZ(0);
	InitMaterializedSRF(fcinfo, 0);
	each_store(tenant, true, put_due, &call);
	return (Datum) 0;
}

/* Have the launcher look at the policies once this commits. */
Datum
rf_policies_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(trigdata->tg_event))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("%s must be fired after a change",
							   "rf_policies_changed()")));
	rf_board_tell_of_change();
	return PointerGetDatum(NULL);
}
