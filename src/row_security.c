/*-------------------------------------------------------------------------
 *
 * row_security.c
 *	  Row security: the tenants' policies, and what they let a caller do.
 *
 * rf_enable_rls() gives each table of a store that says whose its rows are the
 * same policy, leaves included, and each month that is made later takes it over
 * from its parent.  A month that flips keeps what it has.
 *
 * Rows that are read and written as the caller meet policies in the server.
 * What we look up and write as the owner of the store does not: heads, marks,
 * keys, moves.  So before any of that is done for a caller under row security,
 * or anything is told of it, his policies are asked about a row that is not
 * there: one of that tenant, and of that stream where there is one.
 *
 * The server knows the answer only as part of a statement.  One on the table is
 * analyzed and rewritten as the caller, which puts together the conditions of
 * all policies that hold for him; what they ask of the row is filled in, and
 * the rest is run as a query without a table.  A condition on a column that is
 * not known decides nothing: of a row that the server checks by itself later it
 * is taken to hold, of all others not to.
 *
 * Locks: to make or drop the policies, ACCESS EXCLUSIVE on all tables of the
 * store that have one, under the lock of who makes months.  To ask, those of
 * the statement, which follow in any case.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/attnum.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteManip.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "ledger.h"
#include "lock.h"
#include "query.h"
#include "row_security.h"
#include "store.h"

/* the policy on each table of a store */
#define POLICY "rf_tenant"

/* the setting that says which tenant a session is of, unless another does */
#define DEFAULT_SETTING "rillflow.tenant"

/* the longest name of a setting that is taken */
#define MAX_SETTING_BYTES 127

/* A row that a caller may be allowed something with, as far as it is known. */
typedef struct Question
{
	Oid				 relid;
	CmdType			 command;
	const char		*tenant;	 /* NULL: not known */
	const pg_uuid_t *stream_id;	 /* NULL: not known */
	bool			 if_unknown; /* what a condition on something else says */
	AttrNumber		 tenant_column;
	AttrNumber		 stream_column;
	int				 varno; /* of the table, in the conditions */
	int				 depth; /* of the query that is being filled in */
} Question;

/*
 * Asking
 */

/* Is the caller under row security, as far as the table goes? */
bool
rf_row_security_applies(Oid relid)
{
	return check_enable_rls(relid, InvalidOid, true) == RLS_ENABLED;
}

/* A statement that the same policies hold for, and that reads no column. */
static char *
statement_of(const Question *question)
{
	const char *table = rf_store_relation_name(question->relid);

	switch (question->command)
	{
		case CMD_INSERT:
			return psprintf("INSERT INTO %s DEFAULT VALUES", table);
		case CMD_UPDATE:
			return psprintf("UPDATE %s SET tenant_id = NULL", table);
		default:
			return psprintf("SELECT FROM %s", table);
	}
}

/* What the policies ask of the table's rows in a query. */
static List *
conditions_in(const Query *query, Question *question)
{
	List	 *result = NIL;
	ListCell *cell;
	int		  varno = 0;

	foreach(cell, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, cell);

		varno++;
		if (rte->rtekind != RTE_RELATION || rte->relid != question->relid)
			continue;
		question->varno = varno;
		result = list_concat(result, rte->securityQuals);
	}
	foreach(cell, query->withCheckOptions)
	{
		WithCheckOption *check = lfirst_node(WithCheckOption, cell);

		if (check->kind != WCO_VIEW_CHECK)
			result = lappend(result, check->qual);
	}
	return result;
}

/* Rewritten as the caller; a rule that turns it into others has its own. */
static List *
find_conditions(Question *question)
{
	char *sql = statement_of(question);
	List *queries =
		pg_analyze_and_rewrite_fixedparams(linitial_node(RawStmt,
														 pg_parse_query(sql)),
										   sql, NULL, 0, NULL);
	ListCell *cell;

	foreach(cell, queries)
	{
		Query *query = lfirst_node(Query, cell);

		if (query->commandType == question->command && query->canSetTag)
			return conditions_in(query, question);
	}
	return NIL;
}

/* What is known of a column; NULL: nothing. */
static Const *
known_value(const Question *question, AttrNumber column)
{
	if (column == question->tenant_column && question->tenant != NULL)
		return makeConst(TEXTOID, -1, DEFAULT_COLLATION_OID, -1,
						 CStringGetTextDatum(question->tenant), false, false);
	if (column == question->stream_column && question->stream_id != NULL)
		return makeConst(UUIDOID, -1, InvalidOid, UUID_LEN,
						 UUIDPGetDatum(question->stream_id), false, false);
	return NULL;
}

/* Does a condition ask for nothing of the row but what is known? */
static bool
is_known(Node *condition, const Question *question)
{
	List	 *columns = pull_vars_of_level(condition, 0);
	ListCell *cell;

	foreach(cell, columns)
	{
		Var *column = lfirst(cell);

		if (!IsA(column, Var) || column->varno != question->varno ||
			known_value(question, column->varattno) == NULL)
			return false;
	}
	return true;
}

/* Fill in the columns of the row, in sub-selects as well. */
static Node *
fill_in(Node *node, void *context)
{
	Question *question = context;

	if (node == NULL)
		return NULL;
	if (IsA(node, Var) && castNode(Var, node)->varno == question->varno &&
		castNode(Var, node)->varlevelsup == question->depth)
		return (Node *) known_value(question, castNode(Var, node)->varattno);
	if (IsA(node, Query))
	{
		Query *result;

		question->depth++;
		result = query_tree_mutator(castNode(Query, node), fill_in, question,
									0);
		question->depth--;
		return (Node *) result;
	}
	return expression_tree_mutator(node, fill_in, question);
}

/*
 * A condition on what is known of the row.  Policies are joined by AND and OR,
 * and so are parts of them: each part that asks for something else stands for
 * the answer that was agreed on, and null is false.
 */
static Expr *
known_part(Node *condition, Question *question)
{
	BooleanTest *test;

	if (is_andclause(condition) || is_orclause(condition))
	{
		BoolExpr *joined = castNode(BoolExpr, condition);
		List	 *parts = NIL;
		ListCell *cell;

		foreach(cell, joined->args)
			parts = lappend(parts, known_part(lfirst(cell), question));
		return makeBoolExpr(joined->boolop, parts, -1);
	}
	if (!is_known(condition, question))
		return (Expr *) makeBoolConst(question->if_unknown, false);
	test = makeNode(BooleanTest);
	test->arg = (Expr *) fill_in(condition, question);
	test->booltesttype = IS_TRUE;
	test->location = -1;
	return (Expr *) test;
}

/* Run a query that returns one truth value. */
static bool
run_query(Query *query)
{
	PlannedStmt	   *planned = pg_plan_query(query, "", 0, NULL);
	QueryDesc	   *desc = CreateQueryDesc(planned, "", GetActiveSnapshot(),
										   InvalidSnapshot, None_Receiver, NULL,
										   NULL, 0);
	TupleTableSlot *slot;
	bool			isnull = true;
	bool			result = false;

	ExecutorStart(desc, 0);
	slot = ExecProcNode(desc->planstate);
	if (!TupIsNull(slot))
		result = DatumGetBool(slot_getattr(slot, 1, &isnull));
	ExecutorFinish(desc);
	ExecutorEnd(desc);
	FreeQueryDesc(desc);
	return result && !isnull;
}

static bool
evaluate(Expr *condition)
{
	Query *query = makeNode(Query);
	bool   result;

	query->commandType = CMD_SELECT;
	query->querySource = QSRC_ORIGINAL;
	query->canSetTag = true;
	query->jointree = makeFromExpr(NIL, NULL);
	query->targetList = list_make1(
		makeTargetEntry(condition, 1, "allowed", false));
	query->hasSubLinks = checkExprHasSubLink((Node *) condition);
	/* between two transactions of a procedure there is none */
	PushActiveSnapshot(ActiveSnapshotSet() ? GetActiveSnapshot() :
											 GetTransactionSnapshot());
	result = run_query(query);
	PopActiveSnapshot();
	return result;
}

/* Do the caller's policies allow it?  They do where none applies to him. */
static bool
is_allowed(Question *question)
{
	MemoryContext context;
	MemoryContext old;
	List		 *conditions;
	List		 *parts = NIL;
	ListCell	 *cell;
	bool		  result;

	if (!rf_row_security_applies(question->relid))
		return true;
	context = AllocSetContextCreate(CurrentMemoryContext,
									"Rillflow row security",
									ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	question->tenant_column = get_attnum(question->relid, "tenant_id");
	question->stream_column = get_attnum(question->relid, "stream_id");
	conditions = find_conditions(question);
	foreach(cell, conditions)
		parts = lappend(parts, known_part(lfirst(cell), question));
	result = parts == NIL || evaluate(make_ands_explicit(parts));
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return result;
}

/*
 * Refuse a caller who may not insert an event of that tenant and stream, as the
 * server would have done later.
 */
void
rf_row_security_require_insert(const RfStore *store, const char *tenant,
							   const pg_uuid_t *stream_id)
{
	Question question = {.relid = store->events,
						 .command = CMD_INSERT,
						 .tenant = tenant,
						 .stream_id = stream_id,
						 .if_unknown = true};

	if (!is_allowed(&question))
		ereport(
			ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg(
				 "new row violates row-level security policy for table \"%s\"",
				 get_rel_name(store->events))));
}

/* One error for all that there is, and all that there is not. */
static void
refuse(const Question *question)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied by row-level security of table \"%s\"",
					get_rel_name(question->relid)),
			 errhint("See which tenant the session is of.")));
}

/*
 * Refuse a caller who may not change that stream; without one, all streams of
 * the tenant; without either, all streams.
 */
void
rf_row_security_require_update(const RfStore *store, const char *tenant,
							   const pg_uuid_t *stream_id)
{
	Question question = {.relid = store->streams,
						 .command = CMD_UPDATE,
						 .tenant = tenant,
						 .stream_id = stream_id};

	if (!is_allowed(&question))
		refuse(&question);
}

/* Refuse a caller who may not see all events of the tenant. */
void
rf_row_security_require_select(const RfStore *store, const char *tenant)
{
	Question question = {.relid = store->events,
						 .command = CMD_SELECT,
						 .tenant = tenant};

	if (!is_allowed(&question))
		refuse(&question);
}

/*
 * Policies
 */

/* Tables of events from the root down, then the others. */
static const char *const find_tables =
	"SELECT t.relid FROM (SELECT 1, level, relid::oid FROM pg_partition_tree($1)"
	" UNION ALL SELECT 2, level, relid::oid FROM pg_partition_tree($2)"
	" UNION ALL SELECT 3, n::integer, relid"
	" FROM unnest($3) WITH ORDINALITY AS o(relid, n)) AS t(part, level, relid)"
	" WHERE EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = t.relid"
	" AND a.attname = 'tenant_id' AND NOT a.attisdropped)"
	" ORDER BY t.part, t.level, t.relid";

/* The tables of a store that say whose their rows are. */
static List *
tables_of_tenants(const RfStore *store)
{
	Oid	  types[3] = {REGCLASSOID, REGCLASSOID, OIDARRAYOID};
	Datum others[5];
	Datum values[3];
	List *result = NIL;

	others[0] = ObjectIdGetDatum(store->streams);
	others[1] = ObjectIdGetDatum(store->keys);
	others[2] = ObjectIdGetDatum(store->log);
	others[3] = ObjectIdGetDatum(store->policies);
	others[4] = ObjectIdGetDatum(store->holds);
	values[0] = ObjectIdGetDatum(store->events);
	values[1] = ObjectIdGetDatum(store->events_archive);
	values[2] = PointerGetDatum(
		rf_query_array(others, lengthof(others), OIDOID));
	rf_query_once(find_tables, 3, types, values, NULL);
	for (uint64 i = 0; i < rf_query_rows(); i++)
		result = lappend_oid(result, DatumGetObjectId(rf_query_must(i, 1)));
	return result;
}

static bool
has_row_security(Oid relid)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	bool	  result = HeapTupleIsValid(tuple) &&
				  ((Form_pg_class) GETSTRUCT(tuple))->relrowsecurity;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return result;
}

static void
give_policy(const char *table, const char *condition)
{
	rf_query_ddl("CREATE POLICY " POLICY " ON %s USING (%s) WITH CHECK (%s)",
				 table, condition, condition);
	rf_query_ddl("ALTER TABLE %s ENABLE ROW LEVEL SECURITY", table);
}

/*
 * A new leaf gets the policy that its parent has from us, if it has.  Policies
 * of others are theirs to make: leaves are read by their parents, which nobody
 * gets round who has no right on a leaf.
 */
void
rf_row_security_pass_on(Oid parent, const char *leaf)
{
	Oid	  types[1] = {OIDOID};
	Datum values[1];

	if (!has_row_security(parent))
		return;
	values[0] = ObjectIdGetDatum(parent);
	if (rf_query_once("SELECT pg_get_expr(polqual, polrelid) FROM pg_policy"
					  " WHERE polrelid = $1 AND polname = '" POLICY "'"
					  " AND polqual IS NOT NULL",
					  1, types, values, NULL) > 0)
		give_policy(leaf, TextDatumGetCString(rf_query_must(0, 1)));
}

/* Row security stays on where somebody else's policies are. */
static void
take_policy(Oid relid)
{
	const char *table = rf_store_relation_name(relid);
	Oid			types[1] = {OIDOID};
	Datum		values[1];

	values[0] = ObjectIdGetDatum(relid);
	if (rf_query_once("SELECT 1 FROM pg_policy WHERE polrelid = $1"
					  " AND polname = '" POLICY "'",
					  1, types, values, NULL) == 0)
		return;
	rf_query_ddl("DROP POLICY " POLICY " ON %s", table);
	if (rf_query_once("SELECT 1 FROM pg_policy WHERE polrelid = $1", 1, types,
					  values, NULL) == 0)
		rf_query_ddl("ALTER TABLE %s DISABLE ROW LEVEL SECURITY", table);
}

/* No month comes or goes until the transaction ends, and nobody reads. */
static List *
lock_tables(const RfStore *store)
{
	RfLockLimit limit;
	List	   *tables;
	ListCell   *cell;

	rf_lock_begin(&limit);
	rf_lock_makers(&limit, store->namespace_id);
	tables = tables_of_tenants(store);
	foreach(cell, tables)
		rf_lock_table(&limit, lfirst_oid(cell), AccessExclusiveLock);
	return tables;
}

/* Give all tables the policy that goes by the setting; NULL: take it. */
static void
set_policies(RfStore *store, const char *setting)
{
	RfLedgerEntry entry = RF_LEDGER_ENTRY("row security");
	Oid			  namespace_id = store->namespace_id;
	RfScope		  scope;
	List		 *tables;
	ListCell	 *cell;

	rf_store_require_adopted(store);
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	tables = lock_tables(store);
	foreach(cell, tables)
	{
		CHECK_FOR_INTERRUPTS();
		take_policy(lfirst_oid(cell));
		if (setting != NULL)
			give_policy(rf_store_relation_name(lfirst_oid(cell)),
						rf_query_format("tenant_id = current_setting(%L, true)",
										setting));
	}
	entry.detail = setting == NULL ? "off" : psprintf("by %s", setting);
	rf_ledger_write(rf_store_in(namespace_id, false), &entry);
	rf_query_end(&scope);
}

/*
 * SQL interface
 */

PG_FUNCTION_INFO_V1(rf_enable_rls);
PG_FUNCTION_INFO_V1(rf_disable_rls);

/* A part of a setting's name: its end, or NULL when it is no such thing. */
static const char *
skip_identifier(const char *name)
{
	static const char letters[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_";

	if (*name == '\0' || strchr(letters, *name) == NULL)
		return NULL;
	return name + strspn(name, psprintf("%s0123456789", letters));
}

/* Can it be the name of a setting that applications make up? */
static void
check_setting(const char *setting)
{
	const char *prefix_end = setting == NULL ? NULL : skip_identifier(setting);
	const char *end = NULL;

	if (prefix_end != NULL && *prefix_end == '.')
		end = skip_identifier(prefix_end + 1);
	if (end == NULL || *end != '\0' || strlen(setting) > MAX_SETTING_BYTES)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("\"tenant_setting\" must be the name of a setting of two"
					" parts, such as \"%s\"",
					DEFAULT_SETTING),
			 errhint(
				 "Each part is of ASCII letters, digits and underscores, and does not begin with a digit.")));
	if (pg_strncasecmp(setting, "rillflow.", strlen("rillflow.")) == 0 &&
		pg_strcasecmp(setting, DEFAULT_SETTING) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("setting \"%s\" does not name a tenant", setting),
				 errhint("Use \"%s\".", DEFAULT_SETTING)));
}

Datum
rf_enable_rls(PG_FUNCTION_ARGS)
{
	char *setting = RF_GETARG_STRING(0);
	char *tenant = RF_GETARG_STRING(1);

	PreventCommandIfReadOnly("rf_enable_rls()");
	rf_query_require_read_committed("rf_enable_rls()");
	check_setting(setting);
	set_policies(rf_store_get(tenant, RF_RIGHT_OWN), setting);
	PG_RETURN_VOID();
}

Datum
rf_disable_rls(PG_FUNCTION_ARGS)
{
	char *tenant = RF_GETARG_STRING(0);

	PreventCommandIfReadOnly("rf_disable_rls()");
	rf_query_require_read_committed("rf_disable_rls()");
	set_policies(rf_store_get(tenant, RF_RIGHT_OWN), NULL);
	PG_RETURN_VOID();
}
