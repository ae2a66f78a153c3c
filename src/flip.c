/*-------------------------------------------------------------------------
 *
 * flip.c
 *	  Flips: a whole month changes tier as metadata.
 *
 * The leaf is detached from the one tier and attached to the other: same
 * table, same files, same indexes, and no event is read or written.  What
 * differs between the tiers, the class and who moved it when, are columns that
 * are dropped and added again with a constant default, which the server keeps
 * in the catalog for the rows that lack them.  The bounds that ATTACH would
 * look for in every row are known to hold, since the leaf was a partition with
 * the same ones, so they are stored as a CHECK that is valid already, for as
 * long as it takes.
 *
 * Where the other tier has a leaf of that month, too, it has to be empty, for
 * every snapshot that is in use: it is dropped, and who could still see rows
 * in it would miss them.  rf_flip_absorb() takes its rows out before, in a
 * transaction of its own.
 *
 * Streams are left as they are: those that have lost their last hot event are
 * closed afterwards, by the move (worker.c).
 *
 * All months of the cold tier flip together when the store's backend changes:
 * from events_archive to events_cold, or back.  What cannot flip, because the
 * tier that it goes to has events of the month, or because it waits in the
 * default partition, goes along by rows.
 *
 * A month flips to cold when all of it has been read by all consumers, which
 * is looked at again under the locks: late events may have come.  A month by
 * hand is refused otherwise.
 *
 * Locks: the advisory lock that keeps consumers from registering, for a flip
 * to cold; the advisory lock of who makes months; ACCESS EXCLUSIVE on events,
 * events_archive, and what is touched below, from the root down.  Who reads or
 * writes events holds a lock on a root, so nobody is in between, and nobody
 * sees the month missing.  They are waited for as lock.c says, and held for
 * some milliseconds; no lock on rf_streams is held.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/heap.h"
#include "catalog/index.h"
#include "catalog/partition.h"
#include "catalog/pg_attrdef.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/tablespace.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "tcop/tcopprot.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "consumer.h"
#include "flip.h"
#include "ledger.h"
#include "lock.h"
#include "partition.h"
#include "query.h"
#include "store.h"
#include "totals.h"
#include "wait_point.h"

/* who writes migrated_by: a flip of one month, or of the whole cold tier */
#define FLIPPER "archive_flip"
#define CONVERTER "archive_set_backend"

typedef struct Flip
{
	Oid			 namespace_id;
	RfStore		*store;
	DateADT		 month;
	RfTier		 tier; /* that it goes to */
	Oid			 from; /* parents */
	Oid			 to;
	Oid			 leaf;	/* the month's, below from */
	Oid			 rival; /* the month's, below to; InvalidOid: none */
	Oid			 result;
	const char	*flipper; /* who writes migrated_by */
	bool		 ignore_consumers;
	RfCheckpoint limit;		/* events beyond it stay hot */
	TimestampTz	 locked_at; /* since when we have the tables; 0: not at all */
} Flip;

/* The cold tier, on its way to the other backend. */
typedef struct Conversion
{
	Oid		 namespace_id;
	RfStore *store;
	Oid		 from; /* parents */
	Oid		 to;
	int		 months;
	int		 nmonths;	 /* that there are */
	bool	 had_events; /* was any of them cold? */
} Conversion;

/*
 * What holds on to a column that a flip drops, other than its own default and
 * what goes, or stays right, by itself: NOT NULL, triggers and indexes that
 * come from a parent.
 */
static const char *const find_dependent =
	"SELECT pg_describe_object(d.classid, d.objid, d.objsubid), a.attname::text"
	" FROM pg_depend AS d JOIN pg_attribute AS a"
	" ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid"
	" WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = $1"
	" AND a.attname IN ('retention_class', 'migrated_at', 'migrated_by')"
	" AND NOT (d.classid = 'pg_attrdef'::regclass AND EXISTS (SELECT"
	" FROM pg_attrdef AS f WHERE f.oid = d.objid AND f.adrelid = a.attrelid"
	" AND f.adnum = a.attnum))"
	" AND NOT (d.classid = 'pg_constraint'::regclass AND EXISTS (SELECT"
	" FROM pg_constraint AS c WHERE c.oid = d.objid AND c.contype = 'n'))"
	" AND NOT (d.classid = 'pg_trigger'::regclass AND EXISTS (SELECT"
	" FROM pg_trigger AS t WHERE t.oid = d.objid AND t.tgparentid <> 0))"
	" ORDER BY 1 LIMIT 1";

/*
 * Indexes of a parent that one of its future leaves lacks, as the definition
 * that makes them there.  All after the table's name says what an index is.
 */
static const char *const find_missing_indexes =
	"WITH defined AS (SELECT i.indrelid, i.indisunique, substr(d, length("
	"format('CREATE %sINDEX %I ON %s%I.%I ',"
	" CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END, x.relname,"
	" CASE WHEN t.relkind = 'p' THEN 'ONLY ' ELSE '' END, n.nspname,"
	" t.relname)) + 1) AS rest"
	" FROM pg_index AS i JOIN pg_class AS x ON x.oid = i.indexrelid"
	" JOIN pg_class AS t ON t.oid = i.indrelid"
	" JOIN pg_namespace AS n ON n.oid = t.relnamespace,"
	" pg_get_indexdef(i.indexrelid) AS d"
	" WHERE i.indrelid IN ($1, $2) AND i.indisvalid)"
	" SELECT CASE WHEN p.indisunique THEN 'UNIQUE ' ELSE '' END, p.rest"
	" FROM defined AS p WHERE p.indrelid = $1 AND NOT EXISTS (SELECT"
	" FROM defined AS l WHERE l.indrelid = $2 AND l.rest = p.rest"
	" AND l.indisunique = p.indisunique)";

/* Columns of a table that another one lacks, but for those of a tier. */
static const char *const find_lost_column =
	"SELECT attname::text FROM pg_attribute AS a WHERE attrelid = $1"
	" AND attnum > 0 AND NOT attisdropped AND attgenerated = ''"
	" AND attname NOT IN ('retention_class', 'migrated_at', 'migrated_by')"
	" AND NOT EXISTS (SELECT FROM pg_attribute AS b WHERE b.attrelid = $2"
	" AND b.attname = a.attname AND NOT b.attisdropped) ORDER BY attnum LIMIT 1";

/* privileges on a column that is dropped and added again */
static const char *const find_column_grants =
	"SELECT format('GRANT %s (retention_class) ON %s TO %s%s', privilege_type,"
	" a.attrelid::regclass, CASE grantee WHEN 0 THEN 'PUBLIC'"
	" ELSE quote_ident(pg_get_userbyid(grantee)) END,"
	" CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)"
	" FROM pg_attribute AS a, aclexplode(a.attacl)"
	" WHERE a.attrelid = $1 AND a.attname = 'retention_class'";

static bool
is_audited(const RfStore *store, Oid parent)
{
	return parent == store->events_archive;
}

static const char *
class_of(const RfStore *store, Oid parent)
{
	return parent == store->events_hot ? "hot" : "cold";
}

/*
 * May it be flipped?
 */

static BlockNumber
count_blocks(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	BlockNumber blocks = RelationGetNumberOfBlocks(rel);

	table_close(rel, AccessShareLock);
	return blocks;
}

static bool
holds_rows(Oid relid)
{
	RfScope scope;
	bool	found;

	rf_query_begin(&scope, InvalidOid, 0);
	found = rf_query_once(rf_query_format("SELECT 1 FROM ONLY %s LIMIT 1",
										  rf_store_relation_name(relid)),
						  0, NULL, NULL, NULL) > 0;
	rf_query_end(&scope);
	return found;
}

/* Does anything but its own default hold on to a column? */
static bool
has_dependents(Oid leaf, const char *name)
{
	AttrNumber	column = get_attnum(leaf, name);
	Relation	depend;
	ScanKeyData keys[3];
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		result = false;

	if (column == InvalidAttrNumber)
		return false;
	depend = table_open(DependRelationId, AccessShareLock);
	ScanKeyInit(&keys[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(RelationRelationId));
	ScanKeyInit(&keys[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(leaf));
	ScanKeyInit(&keys[2], Anum_pg_depend_refobjsubid, BTEqualStrategyNumber,
				F_INT4EQ, Int32GetDatum(column));
	scan = systable_beginscan(depend, DependReferenceIndexId, true, NULL, 3,
							  keys);
	while (!result && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend found = (Form_pg_depend) GETSTRUCT(tuple);

		result = found->classid != AttrDefaultRelationId ||
				 GetAttrDefaultColumnAddress(found->objid).objectSubId !=
					 column;
	}
	systable_endscan(scan);
	table_close(depend, AccessShareLock);
	return result;
}

/* A view, say, that would have to go with a column. */
static char *
describe_dependent(Oid leaf)
{
	Oid			  types[1] = {OIDOID};
	Datum		  values[1];
	char		 *result = NULL;
	RfScope		  scope;
	MemoryContext context = CurrentMemoryContext;

	if (!has_dependents(leaf, "retention_class") &&
		!has_dependents(leaf, "migrated_at") &&
		!has_dependents(leaf, "migrated_by"))
		return NULL;
	values[0] = ObjectIdGetDatum(leaf);
	rf_query_begin(&scope, InvalidOid, 0);
	if (rf_query_once(find_dependent, 1, types, values, NULL) > 0)
		result = MemoryContextStrdup(
			context, psprintf("%s refers to column \"%s\" of partition \"%s\"",
							  TextDatumGetCString(rf_query_must(0, 1)),
							  TextDatumGetCString(rf_query_must(0, 2)),
							  get_rel_name(leaf)));
	rf_query_end(&scope);
	return result;
}

/* What a leaf and its indexes are named after the leaf's month and tier. */
static const char *const suffixes[] = {"", "_pkey", "_stream_key"};

/* Something that is not to go bears a name that the leaf is to have. */
static char *
find_taken_name(const RfStore *store, Oid to, DateADT month, Oid rival)
{
	char *name = rf_partition_name(to, month);

	for (int i = 0; i < lengthof(suffixes); i++)
	{
		char *wanted = psprintf("%s%s", name, suffixes[i]);
		Oid	  taken = get_relname_relid(wanted, store->namespace_id);

		if (!OidIsValid(taken) || (i == 0 && taken == rival) ||
			(i > 0 && OidIsValid(rival) &&
			 IndexGetRelation(taken, true) == rival))
			continue;
		return psprintf("\"%s\" is there already, and no part of \"%s\"",
						wanted, get_rel_name(to));
	}
	return NULL;
}

/* A trigger that the leaf would get from the other parent, by its name. */
static const char *
find_taken_trigger(Oid leaf, Oid to)
{
	Relation		   rel = table_open(leaf, AccessShareLock);
	Relation		   parent = table_open(to, AccessShareLock);
	const TriggerDesc *own = rel->trigdesc;
	const TriggerDesc *coming = parent->trigdesc;
	const char		  *result = NULL;

	for (int i = 0; own != NULL && coming != NULL && i < own->numtriggers; i++)
		for (int j = 0; j < coming->numtriggers; j++)
			if (!own->triggers[i].tgisclone &&
				TRIGGER_FOR_ROW(coming->triggers[j].tgtype) &&
				strcmp(own->triggers[i].tgname, coming->triggers[j].tgname) ==
					0)
				result = pstrdup(own->triggers[i].tgname);
	table_close(parent, AccessShareLock);
	table_close(rel, AccessShareLock);
	return result;
}

/* Why the leaf can't be flipped; NULL: nothing is against it. */
static char *
find_obstacle(RfStore *store, Oid from, Oid to, const RfPartition *leaf,
			  Oid rival)
{
	char	   *name;
	char	   *taken;
	const char *trigger;

	if (!rf_partition_is_month(leaf))
		return psprintf("partition \"%s\" holds more than the month",
						get_rel_name(leaf->relid));
	name = rf_partition_name(from, leaf->lower);
	if (get_rel_relkind(leaf->relid) != RELKIND_RELATION)
		return psprintf("partition \"%s\" is not a plain table",
						get_rel_name(leaf->relid));
	if (strcmp(get_rel_name(leaf->relid), name) != 0)
		return psprintf("partition \"%s\" is not named \"%s\"",
						get_rel_name(leaf->relid), name);
	if (get_rel_namespace(leaf->relid) != store->namespace_id)
		return psprintf("partition \"%s\" lies in another schema", name);
	if (OidIsValid(rival) && get_rel_relkind(rival) != RELKIND_RELATION)
		return psprintf("partition \"%s\" is not a plain table",
						get_rel_name(rival));
	trigger = find_taken_trigger(leaf->relid, to);
	if (trigger != NULL)
		return psprintf("partition \"%s\" and table \"%s\" have a trigger"
						" \"%s\" each",
						name, get_rel_name(to), trigger);
	taken = find_taken_name(store, to, leaf->lower, rival);
	return taken != NULL ? taken : describe_dependent(leaf->relid);
}

/*
 * Can the leaf, one of those below from, be flipped to the other parent?  If
 * not, *why says what is in the way.
 */
RfFlipState
rf_flip_state(RfStore *store, Oid from, Oid to, const RfPartition *leaf,
			  char **why)
{
	Oid rival = rf_partition_of_month(to, leaf->lower);

	*why = find_obstacle(store, from, to, leaf, rival);
	if (*why != NULL)
		return RF_FLIP_REFUSED;
	if (OidIsValid(rival) &&
		get_rel_tablespace(rival) != get_rel_tablespace(leaf->relid))
	{
		*why = psprintf("partition \"%s\" lies in another tablespace",
						get_rel_name(rival));
		return RF_FLIP_RIVAL_ELSEWHERE;
	}
	if (!OidIsValid(rival) || !rf_partition_is_seen(rival))
		return RF_FLIP_READY;
	if (!holds_rows(rival))
	{
		*why = psprintf("transactions that run still see events in \"%s\"",
						get_rel_name(rival));
		return RF_FLIP_RIVAL_SEEN;
	}
	*why = psprintf("partition \"%s\" holds events of the month",
					get_rel_name(rival));
	return count_blocks(rival) > count_blocks(leaf->relid) ?
			   RF_FLIP_RIVAL_LARGER :
			   RF_FLIP_RIVAL_SMALLER;
}

/* Do the rows of the leaf go to that of the other tier, one by one? */
static bool
goes_by_rows(RfFlipState state)
{
	return state == RF_FLIP_RIVAL_SMALLER || state == RF_FLIP_RIVAL_LARGER ||
		   state == RF_FLIP_RIVAL_ELSEWHERE;
}

/*
 * Rows that are in the way
 */

/* A column of the rows that the table they go to lacks is not given up. */
static void
require_no_lost_column(Oid source, Oid target)
{
	Oid	  types[2] = {OIDOID, OIDOID};
	Datum values[2];

	values[0] = ObjectIdGetDatum(source);
	values[1] = ObjectIdGetDatum(target);
	if (rf_query_once(find_lost_column, 2, types, values, NULL) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" has no column \"%s\", which \"%s\" has",
						get_rel_name(target),
						TextDatumGetCString(rf_query_must(0, 1)),
						get_rel_name(source)),
				 errhint("Give both tables the same columns.")));
}

/*
 * Move rows from a leaf to another one, which may be one of another tier, or
 * to a parent, which finds each its leaf.  The condition picks them, and has a
 * parameter or two.
 */
static int64
carry_rows(RfStore *store, Oid source, Oid target, const char *flipper,
		   const char *condition, int nargs, const Oid *types,
		   const Datum *values)
{
	Oid			parent = get_rel_relkind(target) == RELKIND_PARTITIONED_TABLE ?
							 target :
							 get_partition_parent(target, true);
	bool		audited = is_audited(store, parent);
	const char *from = rf_store_relation_name(source);
	RfPlan		plan;
	int64		gone;

	rf_partition_require_silent(source, false);
	if (target == parent)
		rf_partition_require_all_silent(target);
	else
		rf_partition_require_silent(target, true);
	require_no_lost_column(source, target);
	plan = rf_query_prepare(
		rf_query_format(
			"WITH gone AS (DELETE FROM ONLY %s WHERE %s RETURNING %s),"
			" come AS (INSERT INTO %s (%s, retention_class%s)"
			" SELECT %s, %L%s FROM gone RETURNING 1)"
			" SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM come)",
			from, condition, store->columns, rf_store_relation_name(target),
			store->columns, audited ? ", migrated_at, migrated_by" : "",
			store->columns, class_of(store, parent),
			audited ? rf_query_format(", now(), %L", flipper) : ""),
		nargs, types);
	rf_query_run_untriggered(plan, values, NULL);
	gone = DatumGetInt64(rf_query_must(0, 1));
	rf_partition_require_moved(gone, DatumGetInt64(rf_query_must(0, 2)),
							   source);
	rf_query_forget(plan);
	return gone;
}

/*
 * Move up to so many events, of no higher global_seq than that, from the leaf
 * of a month to that of the other tier; returns how many there were.  The
 * caller commits.
 */
int64
rf_flip_absorb(RfStore *store, Oid small, Oid large, int limit, int64 up_to)
{
	Oid		types[2] = {INT4OID, INT8OID};
	Datum	values[2];
	RfScope scope;
	int64	moved;

	values[0] = Int32GetDatum(limit);
	values[1] = Int64GetDatum(up_to);
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	moved =
		carry_rows(store, small, large, FLIPPER,
				   rf_query_format("ctid = ANY (ARRAY(SELECT ctid FROM ONLY %s"
								   " WHERE global_seq <= $2 LIMIT $1))",
								   rf_store_relation_name(small)),
				   2, types, values);
	rf_query_end(&scope);
	return moved;
}

/* Late events of the month, in the default of the other tier, go along. */
static void
take_late_events(Flip *flip)
{
	Oid	  waiting = rf_partition_default_of(flip->to);
	Oid	  types[2] = {DATEOID, DATEOID};
	Datum values[2];

	if (!OidIsValid(waiting) || count_blocks(waiting) == 0)
		return;
	values[0] = DateADTGetDatum(flip->month);
	values[1] = DateADTGetDatum(rf_partition_next_month(flip->month));
	(void) carry_rows(flip->store, waiting, flip->leaf, flip->flipper,
					  "bucket_month >= $1 AND bucket_month < $2", 2, types,
					  values);
}

/*
 * Making it fit
 */

static bool
has_indexes(Oid relid)
{
	Relation rel = table_open(relid, AccessShareLock);
	bool	 result = RelationGetIndexList(rel) != NIL;

	table_close(rel, AccessShareLock);
	return result;
}

/*
 * ATTACH would make the indexes that its parent has under its exclusive locks.
 * Ours stand on the leaves only.
 */
static void
make_indexes(const Flip *flip)
{
	Oid	   types[2] = {OIDOID, OIDOID};
	Datum  values[2];
	uint64 rows;
	char **unique;
	char **rest;

	if (!has_indexes(flip->to))
		return;
	values[0] = ObjectIdGetDatum(flip->to);
	values[1] = ObjectIdGetDatum(flip->leaf);
	rows = rf_query_once(find_missing_indexes, 2, types, values, NULL);
	unique = palloc(sizeof(char *) * rows);
	rest = palloc(sizeof(char *) * rows);
	for (uint64 i = 0; i < rows; i++)
	{
		unique[i] = TextDatumGetCString(rf_query_must(i, 1));
		rest[i] = TextDatumGetCString(rf_query_must(i, 2));
	}
	for (uint64 i = 0; i < rows; i++)
		rf_query_ddl("CREATE %sINDEX ON %s %s", unique[i],
					 rf_store_relation_name(flip->leaf), rest[i]);
}

/*
 * Store a CHECK as valid that is known to hold.  SQL would read every row, or
 * leave it unvalidated, which proves nothing to ATTACH.
 */
void
rf_flip_add_proof(Oid leaf, const char *condition)
{
	Relation	rel = table_open(leaf, AccessExclusiveLock);
	Constraint *check = makeNode(Constraint);

	check->contype = CONSTR_CHECK;
	check->conname = pstrdup(RF_FLIP_PROOF);
	check->location = -1;
	check->raw_expr = rf_query_parse_condition(condition);
	check->skip_validation = true;
	check->initially_valid = true;
	rf_compat_enforce(check);
	(void) AddRelationNewConstraints(rel, NIL, list_make1(check), false, true,
									 true, condition);
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

/*
 * Does a CHECK of the leaf's own prove all that ATTACH wants to know?  It does
 * where the class is no partition key.  One of our name that says less makes
 * ATTACH read the rows, which is slow and right.
 */
static bool
is_proven(const Flip *flip)
{
	Relation	 rel;
	TupleConstr *constr;
	bool		 result = false;

	if (!is_audited(flip->store, flip->to))
		return false;
	rel = table_open(flip->leaf, AccessShareLock);
	constr = RelationGetDescr(rel)->constr;
	for (int i = 0; constr != NULL && i < constr->num_check; i++)
		result |= constr->check[i].ccvalid &&
				  strcmp(constr->check[i].ccname, RF_MONTH_CHECK) == 0;
	table_close(rel, AccessShareLock);
	return result;
}

static void
prove_bounds(const Flip *flip)
{
	rf_flip_add_proof(
		flip->leaf,
		rf_query_format(
			"bucket_month IS NOT NULL AND bucket_month >= %L::date"
			" AND bucket_month < %L::date"
			" AND retention_class IS NOT NULL AND retention_class = %L",
			rf_partition_date_text(flip->month),
			rf_partition_date_text(rf_partition_next_month(flip->month)),
			class_of(flip->store, flip->to)));
}

/* The statements that grant again what is granted on the column. */
static char **
take_column_grants(Oid leaf, uint64 *count)
{
	Oid		  types[1] = {OIDOID};
	Datum	  values[1];
	bool	  isnull;
	char	**grants;
	HeapTuple column = SearchSysCacheAttName(leaf, "retention_class");

	*count = 0;
	if (!HeapTupleIsValid(column))
		return NULL;
	(void) SysCacheGetAttr(ATTNAME, column, Anum_pg_attribute_attacl, &isnull);
	ReleaseSysCache(column);
	if (isnull)
		return NULL;
	values[0] = ObjectIdGetDatum(leaf);
	*count = rf_query_once(find_column_grants, 1, types, values, NULL);
	grants = palloc(sizeof(char *) * *count);
	for (uint64 i = 0; i < *count; i++)
		grants[i] = TextDatumGetCString(rf_query_must(i, 1));
	return grants;
}

/*
 * Drop the columns that tell of the tier, and add those of the other one.  A
 * default that is the same for all rows is kept in the catalog, and no row is
 * written; the server refuses that where other tables have columns of the
 * leaf's row type.  The audit columns have no default afterwards: one that is
 * set to NULL is dropped.
 */
static void
change_columns(void *arg)
{
	const Flip *flip = arg;
	uint64		ngrants;
	char	  **grants = take_column_grants(flip->leaf, &ngrants);

	rf_query_ddl(
		"ALTER TABLE %s DROP COLUMN retention_class%s,"
		" ADD COLUMN retention_class text COLLATE \"C\" NOT NULL DEFAULT %L%s",
		rf_store_relation_name(flip->leaf),
		is_audited(flip->store, flip->from) ?
			", DROP COLUMN migrated_at, DROP COLUMN migrated_by" :
			"",
		class_of(flip->store, flip->to),
		is_audited(flip->store, flip->to) ?
			rf_query_format(", ADD COLUMN migrated_at timestamptz"
							" DEFAULT now(), ADD COLUMN migrated_by text"
							" DEFAULT %L,"
							" ALTER COLUMN migrated_at SET DEFAULT NULL,"
							" ALTER COLUMN migrated_by SET DEFAULT NULL",
							flip->flipper) :
			"");
	for (uint64 i = 0; i < ngrants; i++)
		rf_query_ddl("%s", grants[i]);
}

/* A leaf is named after its tier and month, and its indexes after the leaf. */
static void
change_names(const Flip *flip)
{
	char *from = rf_partition_name(flip->from, flip->month);
	char *to = rf_partition_name(flip->to, flip->month);

	for (int i = 0; i < lengthof(suffixes); i++)
	{
		Oid relid = get_relname_relid(psprintf("%s%s", from, suffixes[i]),
									  flip->namespace_id);

		if (relid == flip->leaf ||
			(OidIsValid(relid) && IndexGetRelation(relid, true) == flip->leaf))
			rf_query_ddl("ALTER %s %s RENAME TO %I",
						 relid == flip->leaf ? "TABLE" : "INDEX",
						 rf_store_relation_name(relid),
						 psprintf("%s%s", to, suffixes[i]));
	}
}

/*
 * The flip
 */

/* Where the tiers are now, and their leaves of the month. */
static void
find_leaves(Flip *flip)
{
	flip->store = rf_store_in(flip->namespace_id, false);
	flip->from = rf_store_tier_parent(flip->store,
									  flip->tier == RF_HOT ? RF_COLD : RF_HOT);
	flip->to = rf_store_tier_parent(flip->store, flip->tier);
	flip->leaf = rf_partition_of_month(flip->from, flip->month);
	flip->rival = rf_partition_of_month(flip->to, flip->month);
}

static void
refuse(const Flip *flip, RfFlipState state, const char *why)
{
	ereport(ERROR, (errcode(state == RF_FLIP_RIVAL_SEEN ?
								ERRCODE_LOCK_NOT_AVAILABLE :
								ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("month %s cannot flip from \"%s\" to \"%s\"",
						   rf_partition_date_text(flip->month),
						   get_rel_name(flip->from), get_rel_name(flip->to)),
					errdetail_internal("%s", why),
					find_taken_trigger(flip->leaf, flip->to) != NULL ?
						errhint("Rename or drop one of the triggers.") :
						0));
}

/* Refuse what does not fit, by its name. */
static void
require_fit(Flip *flip)
{
	RfPartition *leaf = rf_partition_find(flip->from, flip->month);
	RfFlipState	 state;
	RfLeaf		 known;
	char		*why;

	if (is_audited(flip->store, flip->to))
		rf_store_require_same_columns(flip->store);
	state = rf_flip_state(flip->store, flip->from, flip->to, leaf, &why);
	if (state != RF_FLIP_READY)
		refuse(flip, state, why);
	rf_store_leaf(leaf->relid, &known); /* has all that our writers need */
}

/*
 * Late events that came over from the default of the other tier count as well,
 * though they are cold already: the month goes by rows then.
 */
static void
require_read(const Flip *flip)
{
	if (flip->limit.name == NULL ||
		rf_partition_highest(flip->leaf) <= flip->limit.global_seq)
		return;
	ereport(
		ERROR,
		(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		 errmsg("month %s cannot flip from \"%s\" to \"%s\"",
				rf_partition_date_text(flip->month), get_rel_name(flip->from),
				get_rel_name(flip->to)),
		 errdetail("Consumer \"%s\" has read up to " INT64_FORMAT ".",
				   flip->limit.name, flip->limit.global_seq),
		 errhint(
			 "Wait for it, rf_consumer_remove() it, or move the month with ignore_consumers.")));
}

/* How far a flip to cold may go, from here to the end of the transaction. */
static void
keep_consumers(Flip *flip, const RfLockLimit *limit)
{
	bool ignore = flip->ignore_consumers || flip->tier == RF_HOT;

	if (!ignore)
		rf_lock_checkpoints(limit, flip->namespace_id, true);
	rf_consumer_limit(flip->store, ignore, &flip->limit);
}

static void
lock_if_any(const RfLockLimit *limit, Oid relid)
{
	if (OidIsValid(relid))
		rf_lock_table(limit, relid, AccessExclusiveLock);
}

/* What lies above the leaves of two tiers, from the root down. */
static void
lock_tiers(const RfStore *store, Oid from, Oid to, const RfLockLimit *limit)
{
	const Oid parents[] = {store->events_archive, store->events_hot,
						   store->events_cold};

	lock_if_any(limit, store->events);
	for (int i = 0; i < lengthof(parents); i++)
	{
		if (parents[i] == from || parents[i] == to)
			lock_if_any(limit, parents[i]);
	}
	lock_if_any(limit, rf_partition_default_of(from));
	lock_if_any(limit, rf_partition_default_of(to));
}

/* A column, a constraint or NOT NULL that the leaf lacks, or has too much. */
static void
attach_leaf(void *arg)
{
	const Flip *flip = arg;

	rf_query_ddl(
		"ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)",
		rf_store_relation_name(flip->to), rf_store_relation_name(flip->leaf),
		rf_partition_date_text(flip->month),
		rf_partition_date_text(rf_partition_next_month(flip->month)));
}

/* A view, say, that shows the other tier's leaf. */
static void
drop_rival(void *arg)
{
	const Flip *flip = arg;

	if (OidIsValid(flip->rival))
		rf_query_ddl("DROP TABLE %s", rf_store_relation_name(flip->rival));
}

/* Do a part of it, and refuse the flip where that fails in the way given. */
static void
require_success(void (*part)(void *flip), Flip *flip, int sqlstate,
				const char *hint)
{
	ErrorData *error;

	if (!rf_query_attempt(part, flip, sqlstate, &error))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("month %s does not fit into \"%s\"",
							   rf_partition_date_text(flip->month),
							   get_rel_name(flip->to)),
						errdetail_internal("%s", error->detail != NULL ?
													 error->detail :
													 error->message),
						hint != NULL ? errhint(hint, get_rel_name(flip->from),
											   get_rel_name(flip->to)) :
									   0));
}

static void
change_parents(Flip *flip)
{
	bool proven = is_proven(flip);

	rf_query_ddl("ALTER TABLE %s DETACH PARTITION %s",
				 rf_store_relation_name(flip->from),
				 rf_store_relation_name(flip->leaf));
	RF_WAIT_POINT("flip_detached");
	require_success(change_columns, flip, ERRCODE_FEATURE_NOT_SUPPORTED, NULL);
	if (!proven)
		prove_bounds(flip);
	change_names(flip);
	RF_WAIT_POINT("flip_before_attach");
	require_success(attach_leaf, flip, ERRCODE_DATATYPE_MISMATCH,
					"Give \"%s\" and \"%s\" the same columns and constraints.");
	if (!proven)
		rf_query_ddl("ALTER TABLE %s DROP CONSTRAINT " RF_FLIP_PROOF,
					 rf_store_relation_name(flip->leaf));
}

/* How many events the server believes to be in a leaf. */
static int64
estimate_events(Oid relid)
{
	Relation			 rel = table_open(relid, AccessShareLock);
	PgStat_StatTabEntry *stats = pgstat_fetch_stat_tabentry(relid);
	int64				 result = rf_compat_live_tuples(stats);

	if (result <= 0)
		result = (int64) Max(rel->rd_rel->reltuples, 0);
	table_close(rel, AccessShareLock);
	return result;
}

static void
log_flip(const Flip *flip, const char *action, TimestampTz started_at)
{
	RfLedgerEntry entry = RF_LEDGER_ENTRY(action);

	entry.events = estimate_events(flip->leaf);
	entry.estimated = true;
	entry.bucket_month = flip->month;
	entry.started_at = started_at;
	entry.detail = psprintf("%s to %s", get_rel_name(flip->from),
							get_rel_name(flip->to));
	rf_ledger_write(flip->store, &entry);
}

/* The same, where the events went by rows. */
static void
log_rows(RfStore *store, const char *action, DateADT month, Oid source,
		 Oid target, int64 events, TimestampTz started_at)
{
	RfLedgerEntry entry = RF_LEDGER_ENTRY(action);

	entry.bucket_month = month;
	entry.events = events;
	entry.started_at = started_at;
	entry.detail = psprintf("%s to %s, by rows", get_rel_name(source),
							get_rel_name(target));
	rf_ledger_write(store, &entry);
}

/*
 * Counting
 *
 * The statistics tell about how many events have flipped.  To count them under
 * the locks of the flip would keep everybody out for as long as that takes.  So
 * they are counted in the transaction after it, on a snapshot that was taken
 * before anybody could change the month: the session keeps writers out across
 * the commit, until it has the snapshot.
 *
 * A flip of who can't commit, or whose count failed, is counted late, by a run:
 * those events of the month of which the columns of its tier tell that they
 * have flipped, or all, where they do not tell.  A month that has flipped back
 * or changed its backend since keeps its estimate.
 *
 * Who has counted takes a lock, and looks whether somebody else was first.
 */

/* What the last of these is tells whether a month is to be counted. */
#define TELLS_OF_COUNT                                           \
	"action IN ('flip', 'flip back', 'flip counted', 'convert')" \
	" AND (action <> 'flip' OR estimated)"

static const RfStatement list_uncounted =
	{"SELECT bucket_month FROM (SELECT DISTINCT ON (bucket_month)"
	 " bucket_month, action FROM {log} WHERE " TELLS_OF_COUNT
	 " AND bucket_month IS NOT NULL"
	 " ORDER BY bucket_month, log_id DESC) AS l"
	 " WHERE action = 'flip' ORDER BY 1",
	 0,
	 {0}};

/* The estimate, and what has come to the month by other flips, by rows. */
static const char *const find_estimate =
	"SELECT events, (SELECT coalesce(sum(events), 0)::bigint FROM %s AS r"
	" WHERE action = 'flip' AND NOT estimated AND log_id > f.log_id"
	" AND bucket_month = f.bucket_month)"
	" FROM (SELECT log_id, action, bucket_month, events FROM %s"
	" WHERE " TELLS_OF_COUNT " AND bucket_month = %L"
	" ORDER BY log_id DESC LIMIT 1) AS f WHERE action = 'flip'";

static LockRelId
lock_id_of(Oid leaf)
{
	LockRelId result = {.relId = leaf, .dbId = MyDatabaseId};

	return result;
}

/* In the transaction of the flip, which has a stronger lock: never waits. */
void
rf_flip_hold(Oid leaf)
{
	LockRelId id = lock_id_of(leaf);

	LockRelationIdForSession(&id, ShareLock);
}

/* In the next one, when it has its snapshot; an abort does the same. */
void
rf_flip_let_go(Oid leaf)
{
	LockRelId id = lock_id_of(leaf);

	UnlockRelationIdForSession(&id, ShareLock);
}

/* How many of a leaf have flipped, on the active snapshot; if late, by rows. */
static int64
count_events(Oid leaf, bool late)
{
	bool told = late && get_attnum(leaf, "migrated_by") > 0;

	rf_query_read(
		rf_query_format("SELECT count(*) FROM ONLY %s%s",
						rf_store_relation_name(leaf),
						told ? " WHERE migrated_by = '" FLIPPER "'" : ""));
	return DatumGetInt64(rf_query_must(0, 1));
}

/* What was told of a month that is still to be counted; false: it is not. */
static bool
read_estimate(const RfStore *store, DateADT month, int64 *estimate,
			  int64 *by_rows)
{
	char *log = rf_store_relation_name(store->log);
	bool  found;

	rf_lock_counters(store->namespace_id);
	PushActiveSnapshot(GetLatestSnapshot());
	found = rf_query_read(rf_query_format(find_estimate, log, log,
										  rf_partition_date_text(month))) > 0;
	PopActiveSnapshot();
	if (found)
	{
		*estimate = DatumGetInt64(rf_query_must(0, 1));
		*by_rows = DatumGetInt64(rf_query_must(0, 2));
	}
	return found;
}

/*
 * Count the events of a month that has flipped, on the active snapshot, which
 * is that of the moment after the flip, or late.
 */
void
rf_flip_count(RfStore *store, Oid leaf, DateADT month, bool late)
{
	RfLedgerEntry entry = RF_LEDGER_ENTRY("flip counted");
	RfScope		  scope;
	int64		  estimate;
	int64		  by_rows;

	store = store->whole;
	entry.started_at = GetCurrentTimestamp();
	entry.bucket_month = month;
	entry.detail = get_rel_name(leaf);
	if (entry.detail == NULL)
		return;
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	entry.events = count_events(leaf, late);
	if (read_estimate(store, month, &estimate, &by_rows))
	{
		if (late)
			entry.events = Max(entry.events - by_rows, 0);
		rf_ledger_write(store, &entry);
		rf_totals_correct_flip(store->totals, estimate, entry.events);
	}
	rf_query_end(&scope);
}

/* Cold months that have flipped and were not counted, the oldest first. */
List *
rf_flip_uncounted(RfStore *store)
{
	MemoryContext context = CurrentMemoryContext;
	Oid			  cold = rf_store_tier_parent(store, RF_COLD);
	List		 *result = NIL;
	RfScope		  scope;
	uint64		  count;

	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	count = rf_query_run(rf_store_plan(store, &list_uncounted), NULL, NULL);
	for (uint64 i = 0; i < count; i++)
	{
		DateADT		  month = DatumGetDateADT(rf_query_must(i, 1));
		MemoryContext old;

		if (!OidIsValid(rf_partition_of_month(cold, month)))
			continue;
		old = MemoryContextSwitchTo(context);
		result = lappend_int(result, month);
		MemoryContextSwitchTo(old);
	}
	rf_query_end(&scope);
	return result;
}

/*
 * Flipping
 */

/* Under the locks of who makes months, and not yet under those on tables. */
static void
flip_leaf(Flip *flip, RfLockLimit *limit)
{
	require_fit(flip);
	require_read(flip);
	make_indexes(flip);
	take_late_events(flip);
	RF_WAIT_POINT("flip_before_locks");
	rf_lock_begin(limit);
	lock_tiers(flip->store, flip->from, flip->to, limit);
	lock_if_any(limit, flip->leaf);
	lock_if_any(limit, flip->rival);
	flip->locked_at = GetCurrentTimestamp();
	find_leaves(flip);
	require_fit(flip);
	require_read(flip);
	take_late_events(flip);
	require_success(drop_rival, flip, ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
					NULL);
	change_parents(flip);
	log_flip(flip, flip->tier == RF_HOT ? "flip back" : "flip",
			 flip->locked_at);
	rf_store_forget_plans(flip->store, flip->leaf);
	flip->result = flip->leaf;
	RF_WAIT_POINT("flip_before_commit");
}

/* One attempt, in a subtransaction; the argument is a Flip. */
static void
try_flip(void *arg)
{
	Flip	   *flip = arg;
	RfLockLimit limit;
	RfScope		scope;

	flip->locked_at = 0;
	find_leaves(flip);
	rf_query_begin(&scope, flip->store->owner, SECURITY_RESTRICTED_OPERATION);
	rf_query_be_quiet();
	rf_lock_begin(&limit);
	keep_consumers(flip, &limit);
	rf_lock_makers(&limit, flip->namespace_id);
	find_leaves(flip);
	if (OidIsValid(flip->leaf))
		flip_leaf(flip, &limit);
	else
		flip->result = flip->rival; /* another session has flipped it */
	rf_query_end(&scope);
}

/*
 * Flip a month to a tier, and return its leaf; InvalidOid when neither that
 * tier nor the other one has it.  *locked_at tells since when we have locked
 * the tables wholly; 0 when there was nothing to flip.
 */
Oid
rf_flip_month(RfStore *store, RfTier tier, DateADT month, bool ignore_consumers,
			  TimestampTz *locked_at)
{
	Flip flip = {.namespace_id = store->namespace_id,
				 .month = month,
				 .tier = tier,
				 .flipper = FLIPPER,
				 .ignore_consumers = ignore_consumers};

	rf_lock_retry(try_flip, &flip);
	*locked_at = flip.locked_at;
	return flip.result;
}

/*
 * The whole cold tier
 */

/* A month of the tier, as a flip. */
static Flip
flip_of(const Conversion *conversion, const RfPartition *leaf)
{
	Flip flip = {.namespace_id = conversion->namespace_id,
				 .store = conversion->store,
				 .month = leaf->lower,
				 .tier = RF_COLD,
				 .from = conversion->from,
				 .to = conversion->to,
				 .leaf = leaf->relid,
				 .rival = rf_partition_of_month(conversion->to, leaf->lower),
				 .flipper = CONVERTER};

	return flip;
}

/* Is there nothing to convert?  Empty months go along with a new backend. */
static bool
is_done(const Conversion *conversion)
{
	bool in_use = rf_store_tier_parent(conversion->store, RF_COLD) ==
				  conversion->from;
	List	 *leaves = rf_partition_list(conversion->from);
	ListCell *cell;

	foreach(cell, leaves)
	{
		RfPartition *leaf = lfirst(cell);

		if ((in_use && !leaf->is_default) || holds_rows(leaf->relid))
			return false;
	}
	return true;
}

/* Can be cancelled, and tells how far it is. */
static void
report_conversion(const Conversion *conversion, const char *what)
{
	char *message = psprintf("rf_archive_set_backend: %s, %d of %d months",
							 what, conversion->months, conversion->nmonths);

	CHECK_FOR_INTERRUPTS();
	pgstat_report_activity(STATE_RUNNING, message);
	pfree(message);
}

/*
 * A month that can neither flip nor go by rows stays where it is if it has no
 * events.
 */
static void
require_no_events(const Flip *flip, RfFlipState state, const char *why)
{
	if (rf_partition_is_seen(flip->leaf))
		refuse(flip, state, why);
}

/*
 * All that takes long, before the locks; and what does not fit is refused
 * before anybody has waited.
 */
static void
prepare_conversion(Conversion *conversion)
{
	List	 *leaves = rf_partition_list(conversion->from);
	ListCell *cell;

	conversion->months = 0;
	conversion->nmonths = list_length(leaves) - 1;
	foreach(cell, leaves)
	{
		RfPartition *leaf = lfirst(cell);
		Flip		 flip = flip_of(conversion, leaf);
		RfFlipState	 state;
		char		*why;

		if (leaf->is_default)
			continue;
		report_conversion(conversion, "looking");
		state = rf_flip_state(flip.store, flip.from, flip.to, leaf, &why);
		if (state == RF_FLIP_READY)
		{
			require_fit(&flip);
			make_indexes(&flip);
		}
		else if (!goes_by_rows(state))
			require_no_events(&flip, state, why);
		conversion->months++;
	}
}

/* From the root down: the tiers, then the months, hot ones not. */
static void
lock_conversion(const Conversion *conversion, const RfLockLimit *limit)
{
	List	 *leaves;
	ListCell *cell;

	lock_tiers(conversion->store, conversion->from, conversion->to, limit);
	leaves = list_concat(rf_partition_list(conversion->from),
						 rf_partition_list(conversion->to));
	foreach(cell, leaves)
		lock_if_any(limit, ((RfPartition *) lfirst(cell))->relid);
}

/* Move all rows of a leaf to the other tier, and note it in the ledger. */
static void
convert_rows(Conversion *conversion, const RfPartition *leaf, Oid target)
{
	TimestampTz started_at = GetCurrentTimestamp();
	DateADT		month = leaf->is_default ? DATEVAL_NOEND : leaf->lower;
	int64		events;

	if (count_blocks(leaf->relid) == 0)
		return;
	events = carry_rows(conversion->store, leaf->relid, target, CONVERTER,
						"true", 0, NULL, NULL);
	if (events == 0)
		return;
	conversion->had_events = true;
	log_rows(conversion->store, "convert", month, leaf->relid, target, events,
			 started_at);
}

/*
 * A month of the tier flips, or goes by rows where the other tier has events of
 * it.
 */
static void
convert_month(Conversion *conversion, const RfPartition *leaf)
{
	TimestampTz started_at = GetCurrentTimestamp();
	Flip		flip = flip_of(conversion, leaf);
	char	   *why;
	RfFlipState state = rf_flip_state(flip.store, flip.from, flip.to, leaf,
									  &why);

	if (goes_by_rows(state))
		convert_rows(conversion, leaf, flip.rival);
	else if (state == RF_FLIP_READY)
	{
		require_fit(&flip);
		take_late_events(&flip);
		require_success(drop_rival, &flip,
						ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST, NULL);
		change_parents(&flip);
		log_flip(&flip, "convert", started_at);
		conversion->had_events |= count_blocks(flip.leaf) > 0;
		rf_store_forget_plans(flip.store, flip.leaf);
		conversion->months++;
	}
	else
		require_no_events(&flip, state, why);
}

/*
 * The default comes last: ATTACH looks through that of the other tier for rows
 * of each month.
 */
static void
convert_tier(Conversion *conversion, RfLockLimit *limit)
{
	List	 *leaves;
	ListCell *cell;

	if (conversion->to == conversion->store->events_archive)
		rf_store_require_same_columns(conversion->store);
	prepare_conversion(conversion);
	RF_WAIT_POINT("convert_before_locks");
	rf_lock_begin(limit);
	lock_conversion(conversion, limit);
	conversion->store = rf_store_in(conversion->namespace_id, false);
	conversion->months = 0;
	conversion->had_events = false;
	leaves = rf_partition_list(conversion->from);
	foreach(cell, leaves)
	{
		RfPartition *leaf = lfirst(cell);

		report_conversion(conversion, "converting");
		if (leaf->is_default)
			RF_WAIT_POINT("convert_before_rows");
		if (leaf->is_default)
			convert_rows(conversion, leaf, conversion->to);
		else
			convert_month(conversion, leaf);
	}
	RF_WAIT_POINT("convert_before_commit");
}

/*
 * Nothing is to be converted; but who writes cold events may be about to, so
 * he ends first, where the tier is in use.
 */
static void
keep_empty(const Conversion *conversion, const RfLockLimit *limit)
{
	if (rf_store_tier_parent(conversion->store, RF_COLD) != conversion->from)
		return;
	rf_lock_table(limit, conversion->from, ShareRowExclusiveLock);
	if (!is_done(conversion))
		ereport(ERROR, (errcode(ERRCODE_LOCK_NOT_AVAILABLE),
						errmsg("events came to \"%s\" meanwhile",
							   get_rel_name(conversion->from)),
						errhint("Try again.")));
}

/* One attempt, in a subtransaction; the argument is a Conversion. */
static void
try_conversion(void *arg)
{
	Conversion *conversion = arg;
	RfLockLimit limit;
	RfScope		scope;

	conversion->store = rf_store_in(conversion->namespace_id, false);
	conversion->months = 0;
	conversion->had_events = false;
	rf_query_begin(&scope, conversion->store->owner,
				   SECURITY_RESTRICTED_OPERATION);
	rf_query_be_quiet();
	rf_lock_begin(&limit);
	rf_lock_makers(&limit, conversion->namespace_id);
	conversion->store = rf_store_in(conversion->namespace_id, false);
	if (is_done(conversion))
		keep_empty(conversion, &limit);
	else
		convert_tier(conversion, &limit);
	rf_query_end(&scope);
}

/*
 * Bring all cold events to where a backend keeps them, by flips.  The locks
 * keep others from writing cold events, until the caller has switched the
 * backend and committed.
 */
void
rf_flip_cold_tier(RfStore *store, RfBackend backend)
{
	bool	   partitioned = backend == RF_PARTITIONED;
	Conversion conversion = {.namespace_id = store->namespace_id,
							 .from = partitioned ? store->events_archive :
												   store->events_cold,
							 .to = partitioned ? store->events_cold :
												 store->events_archive};

	rf_lock_retry(try_conversion, &conversion);
	pgstat_report_activity(STATE_RUNNING, debug_query_string);
	if (partitioned && conversion.had_events)
		ereport(NOTICE,
				(errmsg("cold events no longer tell who moved them, and when"),
				 errdetail("\"events_cold\" has no columns \"migrated_at\" and"
						   " \"migrated_by\".")));
}

/*
 * SQL interface
 */

PG_FUNCTION_INFO_V1(rf_flip_partition);

static void
require_over(DateADT month)
{
	DateADT current = rf_partition_month_of(GetCurrentTimestamp());

	if (month >= current)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("month %s is not over", rf_partition_date_text(month)),
			 errhint(
				 "Events of the current month and of later ones move by rows.")));
}

/*
 * Where the other tier holds events of the month, too, they all go there by
 * rows: the empty leaf of either tier could not be dropped as long as others
 * may see rows in it, which includes all who begin before this commits.
 */
static bool
join_rival(RfStore *store, RfTier tier, DateADT month, Oid *result)
{
	Flip		 flip = {.namespace_id = store->namespace_id,
						 .month = month,
						 .tier = tier};
	TimestampTz	 started_at = GetCurrentTimestamp();
	RfPartition *leaf;
	RfFlipState	 state;
	RfScope		 scope;
	char		*why;
	int64		 moved;

	find_leaves(&flip);
	leaf = rf_partition_find(flip.from, month);
	if (leaf == NULL)
		return false;
	state = rf_flip_state(flip.store, flip.from, flip.to, leaf, &why);
	if (!goes_by_rows(state))
		return false;
	if (tier == RF_COLD)
		rf_consumer_keep(flip.store, true);
	rf_consumer_limit(flip.store, tier == RF_HOT, &flip.limit);
	(void) rf_store_lock_cold(flip.store);
	find_leaves(&flip);
	if (!OidIsValid(flip.leaf) || !OidIsValid(flip.rival))
		return false;
	require_read(&flip);
	RF_WAIT_POINT("flip_before_rows");
	*result = flip.rival;
	moved = rf_flip_absorb(flip.store, flip.leaf, flip.rival, PG_INT32_MAX,
						   flip.limit.global_seq);
	if (moved == 0)
		return true;
	rf_query_begin(&scope, flip.store->owner, SECURITY_RESTRICTED_OPERATION);
	log_rows(flip.store, tier == RF_HOT ? "flip back" : "flip", month,
			 flip.leaf, flip.rival, moved, started_at);
	rf_query_end(&scope);
	ereport(NOTICE,
			(errmsg("events moved by rows: " INT64_FORMAT, moved),
			 errdetail_internal("%s", why),
			 state == RF_FLIP_RIVAL_ELSEWHERE ?
				 0 :
				 errhint("rf_archive_run() moves the smaller part only.")));
	return true;
}

Datum
rf_flip_partition(PG_FUNCTION_ARGS)
{
	char	   *tenant = RF_GETARG_STRING(2);
	DateADT		month;
	RfTier		tier;
	RfStore	   *store;
	Oid			result;
	TimestampTz locked_at;

	PreventCommandIfReadOnly("rf_flip_partition()");
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"month\" and \"retention\" must not be null")));
	month = PG_GETARG_DATEADT(0);
	tier = rf_partition_tier_argument(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	rf_partition_check_month(month);
	store = rf_store_get_whole(tenant, RF_RIGHT_OWN);
	rf_store_require_adopted(store);
	require_over(month);
	if (!join_rival(store, tier, month, &result))
		result = rf_flip_month(store, tier, month, false, &locked_at);
	if (!OidIsValid(result))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no partition of month %s",
						rf_partition_date_text(month)),
				 errhint("rf_partitions() lists those that there are.")));
	PG_RETURN_OID(result);
}
