/*-------------------------------------------------------------------------
 *
 * direct.c
 *	  Events that go into hot leaves without the executor.
 *
 * An INSERT into events of one row spends most of its time on what surrounds
 * the row: a plan, three levels of tables, our triggers, CHECKs that are
 * parsed for each statement.  rf_append() knows all that these would find out:
 * the number is given, the stream is locked, the leaf is that of the month.
 * So it may put the row onto the heap and into the indexes by itself.
 *
 * It does so only where nobody could tell the difference.  Row security,
 * rules, triggers, CHECKs, defaults and generated columns that are not ours,
 * a missing right, a leaf that looks otherwise than we make them: each leaves
 * the row to the statement (append.c), which also reports what is wrong.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_relation.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "compat.h"
#include "direct.h"
#include "partition.h"

/* What a column of a leaf gets that the writer does not give. */
#define PLACE_NULL (-1)
#define PLACE_HOT (-2)

/* Triggers whose work is done, or not needed, when we write. */
static const char *const own_triggers[] = {"rf_events_open", "rf_events_close",
										   "rf_events_redirect_archived",
										   "rf_events_append_only"};

static bool
is_among(const char *name, const char *const *names, int count)
{
	for (int i = 0; i < count; i++)
	{
		if (strcmp(name, names[i]) == 0)
			return true;
	}
	return false;
}

/*
 * Would an INSERT fire our own triggers only?  Ours have to be there: a table
 * that lacks them is not for us to write to.
 */
static bool
has_own_triggers_only(Relation rel, int expected)
{
	TriggerDesc *triggers = rel->trigdesc;
	int			 found = 0;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		Trigger *trigger = &triggers->triggers[i];

		if (!TRIGGER_FOR_INSERT(trigger->tgtype) ||
			trigger->tgenabled == TRIGGER_DISABLED)
			continue;
		if (trigger->tgenabled == TRIGGER_FIRES_ON_REPLICA ||
			!is_among(trigger->tgname, own_triggers, lengthof(own_triggers)))
			return false;
		found++;
	}
	return found == expected;
}

static Expr *
compare_column(Relation rel, const char *name, int strategy, Datum value)
{
	AttrNumber		  column = get_attnum(RelationGetRelid(rel), name);
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), column - 1);
	Oid				  type = att->atttypid;
	Oid	 family = lookup_type_cache(type, TYPECACHE_BTREE_OPFAMILY)->btree_opf;
	Var *variable = makeVar(1, column, type, -1, InvalidOid, 0);
	Const *constant = makeConst(type, -1, InvalidOid, att->attlen, value, false,
								att->attbyval);

	return make_opclause(get_opfamily_member(family, type, type, strategy),
						 BOOLOID, false, (Expr *) variable, (Expr *) constant,
						 InvalidOid, InvalidOid);
}

/* What the date and the time of an event have to do with each other. */
static List *
facts_of_events(Relation leaf)
{
	ParseState		   *pstate = make_parsestate(NULL);
	ParseNamespaceItem *columns = addRangeTableEntryForRelation(pstate, leaf,
																AccessShareLock,
																NULL, false,
																true);
	Node			   *tie;

	addNSItemToQuery(pstate, columns, true, true, true);
	tie = transformExpr(pstate, rf_query_parse_condition(RF_TIE),
						EXPR_KIND_CHECK_CONSTRAINT);
	assign_expr_collations(pstate, tie);
	free_parsestate(pstate);
	return make_ands_implicit((Expr *) tie);
}

/* What the rows of a month have in common. */
static List *
facts_of_month(Relation leaf, DateADT month)
{
	TimestampTz start = rf_partition_start(month);
	TimestampTz end = rf_partition_start(rf_partition_next_month(month));

	return list_make3(compare_column(leaf, "bucket_month",
									 BTEqualStrategyNumber,
									 DateADTGetDatum(month)),
					  compare_column(leaf, "created_at",
									 BTGreaterEqualStrategyNumber,
									 TimestampTzGetDatum(start)),
					  compare_column(leaf, "created_at", BTLessStrategyNumber,
									 TimestampTzGetDatum(end)));
}

/*
 * What was found out last of tables that are locked, until they change: their
 * columns, triggers, rules and CHECKs.
 */
static struct
{
	const RfColumn *columns; /* for rows that have these */
	int				ncolumns;
	Oid				events; /* has nothing that is not ours */
	Oid				leaf;	/* nor has this one, whose CHECKs hold ... */
	bool			always; /* ... for each row ... */
	DateADT			month;	/* ... or for those of this month */
	int				places[MaxHeapAttributeNumber]; /* see map_columns() */
} known;

static void
forget_table(Datum arg, Oid relid)
{
	if (!OidIsValid(relid) || relid == known.events)
		known.events = InvalidOid;
	if (!OidIsValid(relid) || relid == known.leaf)
		known.leaf = InvalidOid;
}

void
rf_direct_init(void)
{
	CacheRegisterRelcacheCallback(forget_table, (Datum) 0);
}

static void
begin_rows_of(const RfColumn *columns, int ncolumns)
{
	if (known.columns == columns && known.ncolumns == ncolumns)
		return;
	known.columns = columns;
	known.ncolumns = ncolumns;
	known.events = known.leaf = InvalidOid;
}

/* Do all CHECKs of a leaf, ours or not, follow from these facts? */
static bool
checks_follow(Relation leaf, List *facts)
{
	TupleConstr *constr = RelationGetDescr(leaf)->constr;

	for (int i = 0; constr != NULL && i < constr->num_check; i++)
	{
		Node *check = stringToNode(constr->check[i].ccbin);

		if (!predicate_implied_by(make_ands_implicit((Expr *) check), facts,
								  false))
			return false;
	}
	return true;
}

/* Do they hold for the rows of a month? */
static bool
prove_checks(Relation leaf, DateADT month)
{
	List *facts = facts_of_events(leaf);

	known.month = month;
	known.always = checks_follow(leaf, facts);
	return known.always ||
		   checks_follow(leaf, list_concat(facts, facts_of_month(leaf, month)));
}

static bool
is_known(Relation leaf, DateADT month)
{
	return known.leaf == RelationGetRelid(leaf) &&
		   (known.always || known.month == month);
}

static int
place_of(const RfDirect *direct, Form_pg_attribute att)
{
	for (int i = 0; i < direct->ncolumns; i++)
	{
		if (strcmp(NameStr(att->attname), direct->columns[i].name) == 0)
			return i;
	}
	return PLACE_NULL;
}

/* Does a row need a default from events for a column that we do not give? */
static bool
has_own_defaults_only(const RfDirect *direct)
{
	TupleDesc tupdesc = RelationGetDescr(direct->events);

	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);

		if (att->attisdropped)
			continue;
		if (att->attgenerated != '\0')
			return false;
		if (place_of(direct, att) != PLACE_NULL ||
			strcmp(NameStr(att->attname), "retention_class") == 0)
			continue;
		/* a type can have a default, and a domain can refuse a null */
		if (att->atthasdef || get_typtype(att->atttypid) == TYPTYPE_DOMAIN ||
			get_typdefault(att->atttypid) != NULL)
			return false;
	}
	return true;
}

static bool
is_plain(const RfDirect *direct)
{
	Relation events = direct->events;

	if (known.events == RelationGetRelid(events))
		return true;
	if (events->rd_rules != NULL || !has_own_triggers_only(events, 3) ||
		!has_own_defaults_only(direct))
		return false;
	known.events = RelationGetRelid(events);
	return true;
}

static bool
may_write(const RfDirect *direct)
{
	Oid events = RelationGetRelid(direct->events);

	return ExecutorCheckPerms_hook == NULL &&
		   rf_compat_may_use_schema(RelationGetNamespace(direct->events),
									GetUserId()) &&
		   pg_class_aclcheck(events, GetUserId(), ACL_INSERT) == ACLCHECK_OK &&
		   check_enable_rls(events, InvalidOid, true) != RLS_ENABLED &&
		   is_plain(direct);
}

/* Begin to write; the values of the columns come in the order given here. */
void
rf_direct_begin(RfDirect *direct, RfStore *store, const RfColumn *columns,
				int ncolumns)
{
	memset(direct, 0, sizeof(*direct));
	direct->columns = columns;
	direct->ncolumns = ncolumns;
	direct->events = table_open(store->events, RowExclusiveLock);
	direct->hot = table_open(store->events_hot, RowExclusiveLock);
	begin_rows_of(columns, ncolumns);
	direct->open = may_write(direct);
}

/*
 * Leaves
 */

/* Find out where each column of the leaf comes from; false when one can't. */
static bool
map_columns(RfDirect *direct)
{
	TupleDesc tupdesc = RelationGetDescr(direct->leaf);
	int		  given = 0;

	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);
		int				  place = PLACE_NULL;

		if (!att->attisdropped)
		{
			place = place_of(direct, att);
			if (att->attgenerated != '\0')
				return false;
			if (strcmp(NameStr(att->attname), "retention_class") == 0 &&
				att->atttypid == TEXTOID)
				place = PLACE_HOT;
			else if (place != PLACE_NULL)
			{
				if (att->atttypid != direct->columns[place].type ||
					att->atttypmod != -1)
					return false;
				given++;
			}
		}
		known.places[i] = place;
	}
	return given == direct->ncolumns;
}

static bool
leaf_suffices(RfDirect *direct, DateADT month)
{
	Relation leaf = direct->leaf;

	if (is_known(leaf, month))
		return true;
	known.leaf = InvalidOid;
	if (leaf->rd_rel->relkind != RELKIND_RELATION || leaf->rd_rules != NULL ||
		!has_own_triggers_only(leaf, 2) || !map_columns(direct) ||
		!prove_checks(leaf, month))
		return false;
	known.leaf = RelationGetRelid(leaf);
	return true;
}

/* All that was made for the leaf lives in the executor state. */
static void
close_leaf(RfDirect *direct)
{
	if (direct->leaf == NULL)
		return;
	if (direct->result != NULL)
	{
		ExecCloseIndices(direct->result);
		ExecDropSingleTupleTableSlot(direct->slot);
		ExecDropSingleTupleTableSlot(direct->row);
		direct->result = NULL;
	}
	FreeExecutorState(direct->estate);
	table_close(direct->leaf, NoLock);
	direct->leaf = NULL;
}

/*
 * Open a leaf, unless it is no longer that of the month when we have the lock:
 * its partition can have been made while we waited for the default.
 */
static Relation
lock_leaf(RfDirect *direct, Oid relid, DateADT month)
{
	Relation leaf = table_open(relid, RowExclusiveLock);

	if (rf_partition_receiving(direct->hot, month) == relid)
		return leaf;
	table_close(leaf, NoLock);
	return NULL;
}

static void
prepare_leaf(RfDirect *direct)
{
	TupleDesc tupdesc = RelationGetDescr(direct->leaf);
	int		  natts = tupdesc->natts;

	/* what is known can be forgotten while the leaf is written to */
	direct->places = palloc(sizeof(int) * natts);
	memcpy(direct->places, known.places, sizeof(int) * natts);
	direct->row = MakeSingleTupleTableSlot(tupdesc, &TTSOpsVirtual);
	direct->slot = table_slot_create(direct->leaf, NULL);
	direct->result = makeNode(ResultRelInfo);
	InitResultRelInfo(direct->result, direct->leaf, 0, NULL, 0);
	ExecOpenIndices(direct->result, false);
}

/* Open the leaf of a month; false when its rows are for the executor. */
static bool
open_leaf(RfDirect *direct, DateADT month)
{
	Oid			  relid = rf_partition_receiving(direct->hot, month);
	MemoryContext old;

	if (direct->leaf != NULL && RelationGetRelid(direct->leaf) == relid &&
		is_known(direct->leaf, month))
		return true;
	close_leaf(direct);
	if (!OidIsValid(relid))
		return false;
	direct->leaf = lock_leaf(direct, relid, month);
	if (direct->leaf == NULL)
		return false;
	direct->estate = CreateExecutorState();
	old = MemoryContextSwitchTo(direct->estate->es_query_cxt);
	if (leaf_suffices(direct, month))
		prepare_leaf(direct);
	MemoryContextSwitchTo(old);
	if (direct->result == NULL)
		close_leaf(direct);
	return direct->result != NULL;
}

/*
 * Rows
 */

/* Fill in the row; false when a column that must have a value has none. */
static bool
fill_row(RfDirect *direct, const Datum *values, const bool *nulls)
{
	TupleDesc		tupdesc = RelationGetDescr(direct->leaf);
	TupleTableSlot *slot = direct->row;

	ExecClearTuple(slot);
	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);
		int				  place = direct->places[i];

		slot->tts_isnull[i] = place == PLACE_NULL ||
							  (place >= 0 && nulls[place]);
		if (slot->tts_isnull[i] && att->attnotnull && !att->attisdropped)
			return false;
		if (place == PLACE_HOT)
			slot->tts_values[i] = CStringGetTextDatum("hot");
		else
			slot->tts_values[i] = place >= 0 ? values[place] : (Datum) 0;
	}
	ExecStoreVirtualTuple(slot);
	slot->tts_tableOid = RelationGetRelid(direct->leaf);
	return true;
}

/*
 * Write the row.  The indexes take its columns from where they are, and not
 * from the tuple that was made of them.
 */
static void
write_row(RfDirect *direct)
{
	TupleTableSlot *row = direct->row;

	ExecCopySlot(direct->slot, row);
	table_tuple_insert(direct->leaf, direct->slot, GetCurrentCommandId(true), 0,
					   NULL);
	row->tts_tid = direct->slot->tts_tid;
	if (direct->result->ri_NumIndices > 0)
		rf_compat_insert_index_entries(direct->result, row, direct->estate,
									   false, TU_None);
}

/*
 * Write a row into the leaf of its month.  False when nothing was written,
 * because that takes the executor.
 */
bool
rf_direct_insert(RfDirect *direct, DateADT month, const Datum *values,
				 const bool *nulls)
{
	if (!direct->open || !open_leaf(direct, month) ||
		!fill_row(direct, values, nulls))
		return false;
	write_row(direct);
	ResetPerTupleExprContext(direct->estate);
	CommandCounterIncrement();
	return true;
}

void
rf_direct_end(RfDirect *direct)
{
	close_leaf(direct);
	table_close(direct->hot, NoLock);
	table_close(direct->events, NoLock);
}
