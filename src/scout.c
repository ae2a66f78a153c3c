/*-------------------------------------------------------------------------
 *
 * scout.c
 *	  What is due in a database, and what each policy does.
 *
 * A scout looks for work as a superuser, for it has to look into all stores.
 * It reads their books as their owners do, in a security-restricted context
 * and a read-only transaction, and writes nothing.  The status reads the same
 * books, those that the caller may see.
 *
 * A store that can't be read is told of, and does not hide the others.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "board.h"
#include "compat.h"
#include "guc.h"
#include "lock.h"
#include "policy.h"
#include "query.h"
#include "scout.h"
#include "store.h"

/* How long the status waits for a lock: it is to show what is wrong. */
#define STATUS_LOCK_WAIT_MS 200

/*
 * Finding work
 */

typedef struct LookCall
{
	Oid			namespace_id;
	TimestampTz now;
	TimestampTz look_again_at;
	RfBook		book;
	List	   *dues;
} LookCall;

/* All stores together. */
typedef struct Search
{
	RfFinding  *finding;
	TimestampTz since; /* how long has what was found waited? */
} Search;

static void
look_into_store(void *arg)
{
	LookCall *call = arg;

	if (rf_policy_open_book(call->namespace_id, &call->book))
		call->dues = rf_policy_look(&call->book, call->now);
}

static bool
may_begin(Oid role)
{
	return rf_compat_worker_may_be(role) &&
		   rf_compat_may_connect(MyDatabaseId, role);
}

/*
 * Whom to connect as.  Somebody can have written another owner into the policy
 * than who set it, or the role may have lost what it had.  Then it is the
 * owner of the tables who puts on record that the policy fails.
 */
static Oid
choose_role(const LookCall *call, const RfPolicyDue *due)
{
	Oid role = get_role_oid(due->owner, true);
	Oid owner = call->book.owner;

	if (OidIsValid(role) && may_begin(role) &&
		(role == owner ||
		 (!superuser_arg(role) && has_privs_of_role(role, owner))))
		return role;
	return may_begin(owner) ? owner : InvalidOid;
}

/*
 * Take the policy of a store that has waited longest, if that one has waited
 * longer than the one that was found before.  What is due and can't begin is
 * looked at again when a worker has ended, and after a while.
 */
static void
choose(Search *search, const LookCall *call)
{
	RfFinding *finding = search->finding;
	ListCell  *cell;

	foreach(cell, call->dues)
	{
		RfPolicyDue *due = lfirst(cell);
		Oid			 role;

		finding->limits_lag |= due->limits_lag;
		if (!due->due)
		{
			finding->due_at = Min(finding->due_at, due->due_at);
			continue;
		}
		role = choose_role(call, due);
		if (!OidIsValid(role) || rf_board_has_run(call->namespace_id, NULL) ||
			!rf_lock_run_is_free(call->namespace_id))
		{
			/* what can't begin now is looked at again, but not all the time */
			finding->due_at = Min(finding->due_at, call->look_again_at);
			continue;
		}
		finding->more = finding->found;
		if (finding->found && due->since >= search->since)
			continue;
		finding->found = true;
		search->since = due->since;
		finding->job.database = MyDatabaseId;
		finding->job.role = role;
		finding->job.namespace_id = call->namespace_id;
		snprintf(finding->job.policy, sizeof(finding->job.policy), "%s",
				 due->policy);
	}
}

/* A store that can't be read does not keep others from their runs. */
static void
leave_store(Oid namespace_id, const ErrorData *error)
{
	rf_board_note_trouble(MyDatabaseId, namespace_id);
	ereport(LOG, (errmsg("the policies of schema \"%s\" can't be read: %s",
						 get_namespace_name(namespace_id), error->message)));
}

/* What is due in this database, and is it all? */
void
rf_scout_find(TimestampTz now, RfFinding *finding)
{
	List	 *schemas = rf_store_schemas();
	Search	  search = {.finding = finding};
	ListCell *cell;

	memset(finding, 0, sizeof(*finding));
	finding->due_at = DT_NOEND;
	foreach(cell, schemas)
	{
		LookCall	call = {.namespace_id = lfirst_oid(cell), .now = now};
		TimestampTz rests_until = rf_board_rests_until(call.namespace_id);
		ErrorData  *error;

		call.look_again_at = TimestampTzPlusMilliseconds(now,
														 rf_guc_naptime * 1000);
		CHECK_FOR_INTERRUPTS();
		if (rests_until > now)
			finding->due_at = Min(finding->due_at, rests_until);
		else if (rf_query_look(look_into_store, &call, RF_ANY_ERROR, &error))
			choose(&search, &call);
		else
		{
			leave_store(call.namespace_id, error);
			finding->due_at = Min(finding->due_at, call.look_again_at);
		}
	}
}

/*
 * SQL interface
 */

PG_FUNCTION_INFO_V1(rf_worker_list);

#define LIST_POLICIES                                                     \
	"SELECT p.failures, r.pid, r.started_at, r.events, r.expected,"       \
	" CASE WHEN r.events > 0 THEN r.events / extract(epoch FROM"          \
	" clock_timestamp() - r.started_at)::float8 END,"                     \
	" CASE WHEN r.events > 0 THEN (clock_timestamp() - r.started_at)"     \
	" * (greatest(r.expected - r.events, 0) / r.events::float8) END,"     \
	" r.batch_size, r.held_back_by, e.error, e.finished_at, p.name,"      \
	" r.run_id IS NOT NULL AND r.finished_at IS NULL"                     \
	" FROM %s AS p LEFT JOIN LATERAL (SELECT * FROM %s AS r"              \
	" WHERE r.policy = p.name ORDER BY run_id DESC LIMIT 1) AS r ON true" \
	" LEFT JOIN LATERAL (SELECT error, finished_at FROM %s AS e"          \
	" WHERE e.policy = p.name AND error IS NOT NULL"                      \
	" ORDER BY run_id DESC LIMIT 1) AS e ON true ORDER BY p.name"

#define LIST_COLUMNS 16

static const RfPolicyDue *
find_due(const LookCall *call, const char *policy)
{
	ListCell *cell;

	foreach(cell, call->dues)
	{
		if (strcmp(((RfPolicyDue *) lfirst(cell))->policy, policy) == 0)
			return lfirst(cell);
	}
	return NULL;
}

/* Why a policy that is due does not run. */
static const char *
why_not_running(const LookCall *call, const RfPolicyDue *due)
{
	TimestampTz rests_until = rf_board_rests_until(call->namespace_id);

	if (rf_board_launcher_of(MyDatabaseId) == 0)
		return "no launcher runs: preload the library, or call rf_worker_start()";
	if (!rf_guc_worker)
		return "rillflow.worker is off";
	if (!OidIsValid(choose_role(call, due)))
		return "neither its owner nor that of the store may connect";
	if (rests_until > call->now)
		return psprintf("rests until %s, for what the log says",
						timestamptz_to_str(rests_until));
	if (rf_board_attach()->no_slot_since != 0)
		return "no background worker slot is free: see max_worker_processes";
	return "waits for a worker";
}

static const char *
state_of(const RfPolicyDue *due, bool running)
{
	if (running)
		return "running";
	if (due->due)
		return "due";
	if (strncmp(due->reason, "paused", strlen("paused")) == 0)
		return "paused";
	if (strncmp(due->reason, "disarmed", strlen("disarmed")) == 0)
		return "disarmed";
	return "waiting";
}

/* A line of rf_worker_list(); its first columns are about the policy. */
static void
put_policy(const LookCall *call, uint64 row, ReturnSetInfo *rsinfo)
{
	char			  *policy = TextDatumGetCString(rf_query_must(row, 12));
	const RfPolicyDue *due = find_due(call, policy);
	bool			   running = DatumGetBool(rf_query_must(row, 13)) &&
				   rf_board_has_run(call->namespace_id, policy);
	Datum values[LIST_COLUMNS];
	bool  nulls[LIST_COLUMNS] = {0};

	if (due == NULL)
		return; /* it is newer than our look */
	values[0] = DirectFunctionCall1(namein, CStringGetDatum(call->book.schema));
	values[1] = CStringGetTextDatum(policy);
	values[2] = CStringGetTextDatum(state_of(due, running));
	values[3] = CStringGetTextDatum(due->due ? why_not_running(call, due) :
											   due->reason);
	nulls[3] = running;
	values[4] = rf_query_value(row, 1, &nulls[4]);
	values[5] = TimestampTzGetDatum(due->due_at);
	nulls[5] = TIMESTAMP_IS_NOEND(due->due_at);
	for (int i = 2; i <= 9; i++)
	{
		values[i + 4] = rf_query_value(row, i, &nulls[i + 4]);
		nulls[i + 4] = nulls[i + 4] || !running;
	}
	values[14] = rf_query_value(row, 10, &nulls[14]);
	values[15] = rf_query_value(row, 11, &nulls[15]);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

typedef struct ListCall
{
	LookCall	   look;
	ReturnSetInfo *rsinfo;
} ListCall;

static void
list_store(void *arg)
{
	ListCall	 *call = arg;
	const RfBook *book = &call->look.book;
	RfScope		  scope;
	uint64		  rows;

	look_into_store(&call->look);
	if (book->policies == NULL)
		return;
	rf_query_begin(&scope, book->owner, SECURITY_RESTRICTED_OPERATION);
	rows = rf_query_once(rf_query_format(LIST_POLICIES, book->policies,
										 book->runs, book->runs),
						 0, NULL, NULL, NULL);
	for (uint64 i = 0; i < rows; i++)
		put_policy(&call->look, i, call->rsinfo);
	rf_query_end(&scope);
}

static bool
may_see(Oid namespace_id)
{
	Oid policies = get_relname_relid("rf_archive_policies", namespace_id);
	Oid runs = get_relname_relid("rf_archive_runs", namespace_id);

	return OidIsValid(policies) && OidIsValid(runs) &&
		   pg_class_aclcheck(policies, GetUserId(), ACL_SELECT) ==
			   ACLCHECK_OK &&
		   pg_class_aclcheck(runs, GetUserId(), ACL_SELECT) == ACLCHECK_OK;
}

/*
 * The policies of all stores that the caller may see, and what they do.  A
 * store that can't be read is told of, and does not hide the others.
 */
Datum
rf_worker_list(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	List		  *schemas = rf_store_schemas();
	ListCell	  *cell;
	RfScope		   scope;

	InitMaterializedSRF(fcinfo, 0);
	rf_query_begin(&scope, InvalidOid, 0);
	rf_lock_limit_waits(STATUS_LOCK_WAIT_MS);
	foreach(cell, schemas)
	{
		ListCall   call = {.rsinfo = rsinfo};
		ErrorData *error;

		call.look.namespace_id = lfirst_oid(cell);
		call.look.now = GetCurrentTimestamp();
		if (may_see(call.look.namespace_id) &&
			!rf_query_look(list_store, &call, RF_ANY_ERROR, &error))
			ereport(WARNING,
					(errmsg("the policies of schema \"%s\" can't be read: %s",
							get_namespace_name(call.look.namespace_id),
							error->message)));
	}
	rf_query_end(&scope);
	return (Datum) 0;
}
