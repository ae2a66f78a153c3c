/*-------------------------------------------------------------------------
 *
 * rls.c
 *	  What row security lets a caller do with the rows of a tenant.
 *
 * Rows that are read and written as the caller meet policies in the server.
 * What we look up and write as the owner of the store does not: heads, marks,
 * keys, moves.  So before any of that is done for a caller under row security,
 * or anything is told of it, his policies are asked about a row that is not
 * there, of which only the tenant is known.
 *
 * The server knows the answer only as part of a statement.  One on the table is
 * analyzed and rewritten as the caller, which puts together the conditions of
 * all policies that hold for him; the tenant is filled in, and the rest is run
 * as a query without a table.  A condition on another column decides nothing:
 * of a row that the server checks by itself later it is taken to hold, of all
 * others not to.
 *
 * Who is under no row security pays for a look at the table in the caches; a
 * store that has none on its tables does not ask (store.c).
 *
 * Locks: those of the statement that is asked about, which follow in any case.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/attnum.h"
#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
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

#include "rls.h"

/* A row that a caller may be allowed something with, as far as it is known. */
typedef struct Question
{
	Oid			relid;
	CmdType		command;
	const char *tenant;		/* NULL: not known */
	bool		if_unknown; /* what a condition on something else says */
	AttrNumber	column;		/* of the tenant */
	int			varno;		/* of the table, in the conditions */
	int			depth;		/* of the query that is being filled in */
} Question;

/*
 * Asking
 */

/* A statement that the same policies hold for, and that reads no column. */
static char *
statement_of(const Question *question)
{
	const char *table =
		quote_qualified_identifier(get_namespace_name(
									   get_rel_namespace(question->relid)),
								   get_rel_name(question->relid));

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

static bool
is_known_column(const Var *column, const Question *question)
{
	return column->varno == question->varno &&
		   column->varattno == question->column && question->tenant != NULL;
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

		if (!IsA(column, Var) || !is_known_column(column, question))
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
		return (Node *) makeConst(TEXTOID, -1, exprCollation(node), -1,
								  CStringGetTextDatum(question->tenant), false,
								  false);
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

/* Has the table row security, for anybody? */
bool
rf_rls_is_enabled(Oid relid)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	bool	  result = HeapTupleIsValid(tuple) &&
				  ((Form_pg_class) GETSTRUCT(tuple))->relrowsecurity;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return result;
}

/*
 * Do the caller's policies let him insert, see or update rows of the tenant,
 * NULL for any?  They do where none applies to him.  if_unknown is what a
 * condition on anything but the tenant is taken to say.
 */
bool
rf_rls_allows(Oid relid, CmdType command, const char *tenant, bool if_unknown)
{
	Question	  question = {.relid = relid,
							  .command = command,
							  .tenant = tenant,
							  .if_unknown = if_unknown};
	MemoryContext context;
	MemoryContext old;
	List		 *conditions;
	List		 *parts = NIL;
	ListCell	 *cell;
	bool		  result;

	if (check_enable_rls(relid, InvalidOid, true) != RLS_ENABLED)
		return true;
	context = AllocSetContextCreate(CurrentMemoryContext,
									"Rillflow row security",
									ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	question.column = get_attnum(relid, "tenant_id");
	conditions = find_conditions(&question);
	foreach(cell, conditions)
		parts = lappend(parts, known_part(lfirst(cell), &question));
	result = parts == NIL || evaluate(make_ands_explicit(parts));
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return result;
}
