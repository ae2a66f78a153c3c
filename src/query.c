/*-------------------------------------------------------------------------
 *
 * query.c
 *	  Running SQL from C: the only door to the server programming interface.
 *
 * A scope is what a statement of ours runs in: a connection to the
 * interface, a search_path that nobody can put anything in front of, and a
 * user.  Bookkeeping runs as the owner of the store, as foreign-key checks
 * do; rows that belong to the application are read and written as the caller.
 * A scope needs no cleanup when an error leaves it: the server resets user,
 * settings and connection at the end of the (sub)transaction.
 *
 * Statements name every relation with its schema and bind every value.
 * rf_query_format() quotes the names where a utility statement, which takes
 * no parameters, has to be put together.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "executor/tstoreReceiver.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "pgstat.h"
#include "storage/proc.h"
#include "tcop/dest.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/rls.h"

#include "query.h"

#define SAFE_SEARCH_PATH "pg_catalog, pg_temp"

/* Does this process let no trigger wait? */
static bool fires_at_once;

static void
set_locally(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/*
 * deadlock_timeout as we have lowered it, and as it was before.  A scope that
 * an error ends does not come by here, but the value does not stay either.
 */
static int lowered_to = -1;
static int lowered_from;

static void
note_deadlock_timeout(void)
{
	if (DeadlockTimeout == lowered_to)
		return;
	lowered_to = -1;
	lowered_from = DeadlockTimeout;
}

/*
 * Begin a scope.  as_user is the role to act as, InvalidOid for the caller;
 * sec_flags are added to the security context.  An owner whom row security is
 * forced upon gets an error, rather than books that leave events out.
 */
void
rf_query_begin(RfScope *scope, Oid as_user, int sec_flags)
{
	GetUserIdAndSecContext(&scope->userid, &scope->sec_context);
	if (OidIsValid(as_user))
		SetUserIdAndSecContext(as_user, scope->sec_context |
											SECURITY_LOCAL_USERID_CHANGE |
											sec_flags);

	scope->is_callers = !OidIsValid(as_user);
	scope->guc_level = NewGUCNestLevel();
	if (strcmp(namespace_search_path, SAFE_SEARCH_PATH) != 0)
		set_locally("search_path", SAFE_SEARCH_PATH);
	if (OidIsValid(as_user) && row_security)
		set_locally("row_security", "off");

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to the query interface");
}

/*
 * End a scope.  Where the functions of another role were called, whatever they
 * have set is undone: a search_path would be a trap for who goes on.
 */
void
rf_query_end(RfScope *scope)
{
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not disconnect from the query interface");
	AtEOXact_GUC(scope->is_callers, scope->guc_level);
	SetUserIdAndSecContext(scope->userid, scope->sec_context);
	note_deadlock_timeout();
}

/*
 * Until the scope ends, give up with 55P03 when a lock is not had in time.
 * A caller who waits less than that already keeps his own limit.
 */
void
rf_query_limit_lock_waits(int timeout_ms)
{
	char value[16];

	if (timeout_ms == 0 || (LockTimeout > 0 && LockTimeout <= timeout_ms))
		return;
	snprintf(value, sizeof(value), "%d", timeout_ms);
	set_locally("lock_timeout", value);
}

/* Until the scope ends, look for a deadlock after waiting that long. */
void
rf_query_detect_deadlocks_after(int timeout_ms)
{
	char value[16];

	if (DeadlockTimeout <= timeout_ms)
		return;
	note_deadlock_timeout();
	snprintf(value, sizeof(value), "%d", timeout_ms);
	(void) set_config_option("deadlock_timeout", value, PGC_SUSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	lowered_to = timeout_ms;
}

/* What it was before a scope has lowered it: what others go by. */
int
rf_query_deadlock_timeout(void)
{
	note_deadlock_timeout();
	return lowered_from;
}

/*
 * What looks at everything under a lock has to see what has committed until
 * then, and not what an old snapshot shows.
 */
void
rf_query_require_read_committed(const char *what)
{
	if (IsolationUsesXactSnapshot())
		ereport(
			ERROR,
			(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
			 errmsg("%s cannot run in a transaction of this isolation level",
					what),
			 errhint("Use READ COMMITTED.")));
}

/* Until the scope ends, tell the client of nothing below a warning. */
void
rf_query_be_quiet(void)
{
	if (client_min_messages < WARNING)
		set_locally("client_min_messages", "warning");
}

/*
 * Until the scope ends, values look the same as text whatever the session has
 * set: sums over it are compared with those of other sessions.
 */
void
rf_query_fix_text(void)
{
	static const char *const settings[][2] = {{"DateStyle", "ISO, YMD"},
											  {"IntervalStyle", "postgres"},
											  {"TimeZone", "UTC"},
											  {"extra_float_digits", "1"},
											  {"bytea_output", "hex"},
											  {"xmloption", "content"}};

	for (int i = 0; i < lengthof(settings); i++)
		set_locally(settings[i][0], settings[i][1]);
}

/*
 * The connection of a procedure that commits.  Scopes nest inside it, and
 * must all have ended when rf_query_commit() is called.
 */
void
rf_query_connect_nonatomic(void)
{
	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to the query interface");
}

void
rf_query_disconnect(void)
{
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not disconnect from the query interface");
}

/*
 * Of a process of our own the transactions are not those of a command, so it
 * has to say itself when one begins, and to tell the statistics of what it has
 * done; which can't be done within one.
 */
static void
commit_own(void)
{
	MemoryContext context = CurrentMemoryContext;

	rf_query_disconnect();
	CommitTransactionCommand();
	pgstat_report_stat(false);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	rf_query_connect_nonatomic();
	rf_query_fire_at_once();
	MemoryContextSwitchTo(context);
}

void
rf_query_commit(void)
{
	if (fires_at_once)
		commit_own();
	else
		SPI_commit();
}

/*
 * The same; false where it failed, as with a deferred trigger.  The server has
 * undone the transaction then, and begun another one.
 */
bool
rf_query_try_commit(ErrorData **error)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool ok = true;

	PG_TRY();
	{
		rf_query_commit();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		*error = CopyErrorData();
		FlushErrorState();
		ok = false;
	}
	PG_END_TRY();
	if (!ok && !rf_query_catches((*error)->sqlerrcode, RF_ANY_ERROR))
		ReThrowError(*error);
	return ok;
}

/*
 * From here on, deferred triggers of this transaction fire at the end of the
 * statement, and so in the scope of it: when the transaction commits it is the
 * user of the session who would call them.  For processes of our own, in each
 * transaction; rf_query_commit() does it for the next one.
 */
void
rf_query_fire_at_once(void)
{
	ConstraintsSetStmt *all = makeNode(ConstraintsSetStmt);

	all->constraints = NIL;
	all->deferred = false;
	AfterTriggerSetState(all);
	pfree(all);
	fires_at_once = true;
}

RfPlan
rf_query_prepare(const char *sql, int nargs, const Oid *types)
{
	RfPlan plan = {.spi = SPI_prepare(sql, nargs, unconstify(Oid *, types)),
				   .nargs = nargs};

	if (plan.spi == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", sql,
			 SPI_result_code_string(SPI_result));
	if (SPI_keepplan(plan.spi) != 0)
		elog(ERROR, "could not keep the plan of \"%s\"", sql);
	return plan;
}

void
rf_query_forget(RfPlan plan)
{
	SPI_freeplan(plan.spi);
}

static void
expect_ok(int code)
{
	if (code < 0)
		elog(ERROR, "could not run a statement: %s",
			 SPI_result_code_string(code));
}

/* What the caller gives, and the tenant after it. */
typedef struct Bound
{
	Datum values[RF_MAX_ARGS + 1];
	char  nulls[RF_MAX_ARGS + 1];
} Bound;

/* Bind the tenant, if the plan is about one. */
static void
bind_tenant(const RfPlan *plan, Bound *bound, const Datum **values,
			const char **nulls)
{
	if (plan->tenant == (Datum) 0)
		return;
	Assert(plan->nargs <= RF_MAX_ARGS);
	for (int i = 0; i < plan->nargs; i++)
	{
		bound->values[i] = (*values)[i];
		bound->nulls[i] = *nulls == NULL ? ' ' : (*nulls)[i];
	}
	bound->values[plan->nargs] = plan->tenant;
	bound->nulls[plan->nargs] = ' ';
	*values = bound->values;
	*nulls = bound->nulls;
}

uint64
rf_query_run(RfPlan plan, const Datum *values, const char *nulls)
{
	Bound bound;

	bind_tenant(&plan, &bound, &values, &nulls);
	expect_ok(SPI_execute_plan(plan.spi, unconstify(Datum *, values), nulls,
							   false, 0));
	return SPI_processed;
}

/*
 * Run a plan that carries history from one place to another.  It is no news
 * to the users' triggers, which have seen each event when it was appended, so
 * none of them fires, and ours need not either.  The variable is set, not the
 * setting: that would throw away all plans of the session.
 */
uint64
rf_query_run_untriggered(RfPlan plan, const Datum *values, const char *nulls)
{
	int role = SessionReplicationRole;

	PG_TRY();
	{
		SessionReplicationRole = SESSION_REPLICATION_ROLE_REPLICA;
		rf_query_run(plan, values, nulls);
	}
	PG_FINALLY();
	{
		SessionReplicationRole = role;
	}
	PG_END_TRY();
	return SPI_processed;
}

/* Who is ready for a lock that is not to be had is ready for a deadlock. */
bool
rf_query_catches(int sqlstate, int caught_sqlstate)
{
	bool canceled = sqlstate == ERRCODE_QUERY_CANCELED;
	bool locked = caught_sqlstate == ERRCODE_LOCK_NOT_AVAILABLE ||
				  caught_sqlstate == RF_ANY_CONTENTION;

	return sqlstate == caught_sqlstate || caught_sqlstate == RF_ANY_END ||
		   (caught_sqlstate == RF_ANY_ERROR && !canceled) ||
		   (locked && (sqlstate == ERRCODE_LOCK_NOT_AVAILABLE ||
					   sqlstate == ERRCODE_T_R_DEADLOCK_DETECTED)) ||
		   (caught_sqlstate == RF_ANY_CONTENTION &&
			sqlstate == ERRCODE_T_R_SERIALIZATION_FAILURE);
}

/* Do some work in a subtransaction, and keep it or not. */
static bool
work_in_subtransaction(void (*work)(void *arg), void *arg, bool keep,
					   int caught_sqlstate, ErrorData **error)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool ok = true;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		work(arg);
		if (keep)
			ReleaseCurrentSubTransaction();
		else
			RollbackAndReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		*error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		ok = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	if (!ok && !rf_query_catches((*error)->sqlerrcode, caught_sqlstate))
		ReThrowError(*error);
	return ok;
}

/*
 * Do some work in a subtransaction.  An error of the SQLSTATE that the caller
 * is ready for is caught: the subtransaction is undone, *error tells what
 * happened, and the result is false.  Every other error goes on, once the
 * subtransaction is undone.
 */
bool
rf_query_attempt(void (*work)(void *arg), void *arg, int caught_sqlstate,
				 ErrorData **error)
{
	return work_in_subtransaction(work, arg, true, caught_sqlstate, error);
}

/*
 * The same for work that looks only.  It is always undone: what it has read is
 * in memory, and the locks that it took are let go.
 */
bool
rf_query_look(void (*work)(void *arg), void *arg, int caught_sqlstate,
			  ErrorData **error)
{
	return work_in_subtransaction(work, arg, false, caught_sqlstate, error);
}

/*
 * Run a query on the snapshot of the statement that called us, and let its
 * rows flow into a tuplestore, without a copy of the result in between.
 */
void
rf_query_into(RfPlan plan, const Datum *values, const char *nulls,
			  Tuplestorestate *store)
{
	SPIExecuteOptions options = {0};
	ParamListInfo	  params = NULL;
	int				  nargs = SPI_getargcount(plan.spi);
	Bound			  bound;

	bind_tenant(&plan, &bound, &values, &nulls);
	if (nargs > 0)
	{
		params = makeParamList(nargs);
		for (int i = 0; i < nargs; i++)
		{
			params->params[i].value = values[i];
			params->params[i].isnull = nulls != NULL && nulls[i] == 'n';
			params->params[i].pflags = PARAM_FLAG_CONST;
			params->params[i].ptype = SPI_getargtypeid(plan.spi, i);
		}
	}
	options.params = params;
	options.read_only = true;
	options.dest = CreateDestReceiver(DestTuplestore);
	SetTuplestoreDestReceiverParams(options.dest, store, CurrentMemoryContext,
									false, NULL, NULL);
	expect_ok(SPI_execute_plan_extended(plan.spi, &options));
	options.dest->rDestroy(options.dest);
}

uint64
rf_query_once(const char *sql, int nargs, const Oid *types, const Datum *values,
			  const char *nulls)
{
	expect_ok(SPI_execute_with_args(sql, nargs, unconstify(Oid *, types),
									unconstify(Datum *, values), nulls, false,
									0));
	return SPI_processed;
}

/* Run a query on the active snapshot as it is; others take a newer one. */
uint64
rf_query_read(const char *sql)
{
	expect_ok(SPI_execute(sql, true, 0));
	return SPI_processed;
}

uint64
rf_query_rows(void)
{
	return SPI_processed;
}

Datum
rf_query_value(uint64 row, int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column,
						 isnull);
}

/* The value of a column that is never null. */
Datum
rf_query_must(uint64 row, int column)
{
	bool  isnull;
	Datum value = rf_query_value(row, column, &isnull);

	if (isnull)
		elog(ERROR, "unexpected null in column %d", column);
	return value;
}

bool
rf_query_null(uint64 row, int column)
{
	bool isnull;

	(void) rf_query_value(row, column, &isnull);
	return isnull;
}

/* Copy a row of the result to where it outlives the scope. */
void
rf_query_copy_row(uint64 row, Datum *values, bool *nulls, int ncolumns,
				  MemoryContext context)
{
	TupleDesc	  tupdesc = SPI_tuptable->tupdesc;
	MemoryContext old = MemoryContextSwitchTo(context);

	Assert(tupdesc->natts >= ncolumns);
	for (int i = 0; i < ncolumns; i++)
	{
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);

		values[i] = rf_query_value(row, i + 1, &nulls[i]);
		if (!nulls[i])
			values[i] = datumCopy(values[i], att->attbyval, att->attlen);
	}
	MemoryContextSwitchTo(old);
}

/* rf_query_format() with its arguments in a list. */
static char *
format_list(const char *format, va_list args)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (const char *p = format; *p != '\0'; p++)
	{
		if (*p != '%')
		{
			appendStringInfoChar(&buf, *p);
			continue;
		}
		switch (*++p)
		{
			case 'I':
				appendStringInfoString(&buf,
									   quote_identifier(va_arg(args, char *)));
				break;
			case 'L':
				appendStringInfoString(&buf, quote_literal_cstr(
												 va_arg(args, char *)));
				break;
			case 's':
				appendStringInfoString(&buf, va_arg(args, char *));
				break;
			default:
				elog(ERROR, "unknown conversion \"%c\"", *p);
		}
	}
	return buf.data;
}

/*
 * Put a statement together where names or values cannot be parameters: %I is
 * an identifier, %L a literal, %s text that was quoted before.
 */
char *
rf_query_format(const char *format, ...)
{
	va_list args;
	char   *result;

	va_start(args, format);
	result = format_list(format, args);
	va_end(args);
	return result;
}

/* Put a utility statement together like that, and run it. */
void
rf_query_ddl(const char *format, ...)
{
	va_list args;
	char   *sql;

	va_start(args, format);
	sql = format_list(format, args);
	va_end(args);
	expect_ok(SPI_execute(sql, false, 0));
	pfree(sql);
}

/* The raw tree of a condition. */
Node *
rf_query_parse_condition(const char *condition)
{
	List	   *parsed = raw_parser(condition, RAW_PARSE_PLPGSQL_EXPR);
	SelectStmt *select = castNode(SelectStmt,
								  linitial_node(RawStmt, parsed)->stmt);

	return linitial_node(ResTarget, select->targetList)->val;
}

char *
rf_query_uuid_text(const pg_uuid_t *id)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(id)));
}

/* An array of values of a type without modifiers. */
ArrayType *
rf_query_array(Datum *elements, int count, Oid type)
{
	int16 len;
	bool  byval;
	char  align;

	get_typlenbyvalalign(type, &len, &byval, &align);
	return construct_array(elements, count, type, len, byval, align);
}
