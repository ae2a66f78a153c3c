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
 * Locks: the advisory lock of who makes months; ACCESS EXCLUSIVE on events,
 * events_archive, and what is touched below, from the root down.  Who reads or
 * writes events holds a lock on a root, so nobody is in between, and nobody
 * sees the month missing.  They are waited for as lock.c says, and held for
 * some milliseconds; no lock on rf_streams is held.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/heap.h"
#include "catalog/partition.h"
#include "catalog/pg_type.h"
#include "commands/tablespace.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "storage/bufmgr.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "flip.h"
#include "ledger.h"
#include "lock.h"
#include "partition.h"
#include "query.h"
#include "store.h"
#include "wait_point.h"

/* who writes migrated_by */
#define FLIPPER "archive_flip"

typedef struct Flip
{
	Oid		 namespace_id;
	RfStore *store;
	DateADT	 month;
	Oid		 from; /* parents */
	Oid		 to;
	Oid		 leaf;	/* the month's, below from */
	Oid		 rival; /* the month's, below to; InvalidOid: none */
	Oid		 result;
} Flip;

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

/* A view, say, that would have to go with a column. */
static char *
describe_dependent(Oid leaf)
{
	Oid			  types[1] = {OIDOID};
	Datum		  values[1];
	char		 *result = NULL;
	RfScope		  scope;
	MemoryContext context = CurrentMemoryContext;

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

/* Why the leaf can't be flipped; NULL: nothing is against it. */
static char *
find_obstacle(RfStore *store, Oid from, Oid to, const RfPartition *leaf,
			  Oid rival)
{
	char *name = rf_partition_name(from, leaf->lower);

	if (!rf_partition_is_month(leaf))
		return psprintf("partition \"%s\" holds more than the month",
						get_rel_name(leaf->relid));
	if (get_rel_relkind(leaf->relid) != RELKIND_RELATION)
		return psprintf("partition \"%s\" is not a plain table",
						get_rel_name(leaf->relid));
	if (strcmp(get_rel_name(leaf->relid), name) != 0)
		return psprintf("partition \"%s\" is not named \"%s\"",
						get_rel_name(leaf->relid), name);
	if (OidIsValid(rival) && get_rel_relkind(rival) != RELKIND_RELATION)
		return psprintf("partition \"%s\" is not a plain table",
						get_rel_name(rival));
	if (OidIsValid(rival) &&
		get_rel_tablespace(rival) != get_rel_tablespace(leaf->relid))
		return psprintf("partition \"%s\" lies in another tablespace",
						get_rel_name(rival));
	return describe_dependent(leaf->relid);
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

/*
 * Rows that are in the way
 */

/*
 * Move rows from one leaf to another, which may be one of another tier.  The
 * condition picks them, and has a parameter or two.
 */
static int64
carry_rows(RfStore *store, Oid source, Oid target, const char *condition,
		   int nargs, const Oid *types, const Datum *values)
{
	Oid			parent = get_partition_parent(target, true);
	bool		audited = is_audited(store, parent);
	const char *from = rf_store_relation_name(source);
	RfPlan		plan;
	int64		gone;

	rf_partition_require_silent(source, false);
	rf_partition_require_silent(target, true);
	plan = rf_query_prepare(
		rf_query_format(
			"WITH gone AS (DELETE FROM ONLY %s WHERE %s RETURNING %s),"
			" come AS (INSERT INTO %s (%s, retention_class%s)"
			" SELECT %s, %L%s FROM gone RETURNING 1)"
			" SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM come)",
			from, condition, store->columns, rf_store_relation_name(target),
			store->columns, audited ? ", migrated_at, migrated_by" : "",
			store->columns, class_of(store, parent),
			audited ? ", now(), '" FLIPPER "'" : ""),
		nargs, types);
	rf_query_run_untriggered(plan, values, NULL);
	gone = DatumGetInt64(rf_query_must(0, 1));
	rf_partition_require_moved(gone, DatumGetInt64(rf_query_must(0, 2)),
							   source);
	rf_query_forget(plan);
	return gone;
}

/*
 * Move up to so many events from the leaf of a month to that of the other
 * tier; returns how many there were.  The caller commits.
 */
int64
rf_flip_absorb(RfStore *store, Oid small, Oid large, int limit)
{
	Oid		types[1] = {INT4OID};
	Datum	values[1];
	RfScope scope;
	int64	moved;

	values[0] = Int32GetDatum(limit);
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	moved =
		carry_rows(store, small, large,
				   rf_query_format("ctid = ANY (ARRAY(SELECT ctid FROM ONLY %s"
								   " LIMIT $1))",
								   rf_store_relation_name(small)),
				   1, types, values);
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
	(void) carry_rows(flip->store, waiting, flip->leaf,
					  "bucket_month >= $1 AND bucket_month < $2", 2, types,
					  values);
}

/*
 * Making it fit
 */

/*
 * ATTACH would make the indexes that its parent has under its exclusive locks.
 */
static void
make_indexes(const Flip *flip)
{
	Oid	   types[2] = {OIDOID, OIDOID};
	Datum  values[2];
	uint64 rows;
	char **unique;
	char **rest;

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
	RawStmt	   *parsed = linitial_node(RawStmt,
									   raw_parser(condition,
												  RAW_PARSE_PLPGSQL_EXPR));
	SelectStmt *select = castNode(SelectStmt, parsed->stmt);

	check->contype = CONSTR_CHECK;
	check->conname = pstrdup(RF_FLIP_PROOF);
	check->location = -1;
	check->raw_expr = linitial_node(ResTarget, select->targetList)->val;
	check->skip_validation = true;
	check->initially_valid = true;
	rf_compat_enforce(check);
	(void) AddRelationNewConstraints(rel, NIL, list_make1(check), false, true,
									 true, condition);
	table_close(rel, NoLock);
	CommandCounterIncrement();
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

/*
 * Drop the columns that tell of the tier, and add those of the other one.  A
 * default that is the same for all rows is kept in the catalog, and no row is
 * written; the server refuses that where other tables have columns of the
 * leaf's row type.
 */
static void
change_columns(void *arg)
{
	const Flip *flip = arg;
	const char *leaf = rf_store_relation_name(flip->leaf);
	Oid			types[1] = {OIDOID};
	Datum		values[1];
	uint64		rows;
	char	  **grants;

	values[0] = ObjectIdGetDatum(flip->leaf);
	rows = rf_query_once(find_column_grants, 1, types, values, NULL);
	grants = palloc(sizeof(char *) * rows);
	for (uint64 i = 0; i < rows; i++)
		grants[i] = TextDatumGetCString(rf_query_must(i, 1));
	rf_query_ddl(
		"ALTER TABLE %s DROP COLUMN retention_class%s,"
		" ADD COLUMN retention_class text COLLATE \"C\" NOT NULL DEFAULT %L%s",
		leaf,
		is_audited(flip->store, flip->from) ?
			", DROP COLUMN migrated_at, DROP COLUMN migrated_by" :
			"",
		class_of(flip->store, flip->to),
		is_audited(flip->store, flip->to) ?
			", ADD COLUMN migrated_at timestamptz DEFAULT now(),"
			" ADD COLUMN migrated_by text DEFAULT '" FLIPPER "'" :
			"");
	if (is_audited(flip->store, flip->to))
		rf_query_ddl("ALTER TABLE %s ALTER COLUMN migrated_at DROP DEFAULT,"
					 " ALTER COLUMN migrated_by DROP DEFAULT",
					 leaf);
	for (uint64 i = 0; i < rows; i++)
		rf_query_ddl("%s", grants[i]);
}

static void
rename_relation(const Flip *flip, const char *kind, const char *from,
				const char *to)
{
	if (OidIsValid(get_relname_relid(from, flip->namespace_id)))
		rf_query_ddl("ALTER %s %s RENAME TO %I", kind,
					 quote_qualified_identifier(flip->store->schema, from), to);
}

/* A leaf is named after its tier and month, and its indexes after the leaf. */
static void
change_names(const Flip *flip)
{
	const char *const suffixes[] = {"_pkey", "_stream_key"};
	char			 *old = rf_partition_name(flip->from, flip->month);
	char *new = rf_partition_name(flip->to, flip->month);

	rename_relation(flip, "TABLE", old, new);
	for (int i = 0; i < lengthof(suffixes); i++)
		rename_relation(flip, "INDEX", psprintf("%s%s", old, suffixes[i]),
						psprintf("%s%s", new, suffixes[i]));
}

/*
 * The flip
 */

static void
find_leaves(Flip *flip)
{
	flip->store = rf_store_in(flip->namespace_id, false);
	flip->leaf = rf_partition_of_month(flip->from, flip->month);
	flip->rival = rf_partition_of_month(flip->to, flip->month);
}

/* Refuse what does not fit, by its name. */
static void
require_fit(Flip *flip)
{
	RfPartition *leaf = rf_partition_find(flip->from, flip->month);
	RfFlipState	 state;
	char		*why;

	if (is_audited(flip->store, flip->to))
		rf_store_require_same_columns(flip->store);
	state = rf_flip_state(flip->store, flip->from, flip->to, leaf, &why);
	if (state != RF_FLIP_READY)
		ereport(ERROR,
				(errcode(state == RF_FLIP_RIVAL_SEEN ?
							 ERRCODE_LOCK_NOT_AVAILABLE :
							 ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("month %s cannot flip from \"%s\" to \"%s\"",
						rf_partition_date_text(flip->month),
						get_rel_name(flip->from), get_rel_name(flip->to)),
				 errdetail_internal("%s", why)));
}

static void
lock_tables(const Flip *flip, const RfLockLimit *limit)
{
	const RfStore *store = flip->store;
	const Oid	   tables[] = {store->events,
						   is_audited(store, flip->from) ||
								   is_audited(store, flip->to) ?
								   store->events_archive :
								   InvalidOid,
						   flip->from == store->events_hot ||
								   flip->to == store->events_hot ?
								   store->events_hot :
								   InvalidOid,
						   flip->from == store->events_cold ||
								   flip->to == store->events_cold ?
								   store->events_cold :
								   InvalidOid,
							   rf_partition_default_of(flip->from),
							   rf_partition_default_of(flip->to),
							   flip->leaf,
							   flip->rival};

	for (int i = 0; i < lengthof(tables); i++)
	{
		if (OidIsValid(tables[i]))
			rf_lock_table(limit, tables[i], AccessExclusiveLock);
	}
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
	rf_query_ddl("ALTER TABLE %s DETACH PARTITION %s",
				 rf_store_relation_name(flip->from),
				 rf_store_relation_name(flip->leaf));
	RF_WAIT_POINT("flip_detached");
	require_success(change_columns, flip, ERRCODE_FEATURE_NOT_SUPPORTED, NULL);
	prove_bounds(flip);
	change_names(flip);
	RF_WAIT_POINT("flip_before_attach");
	require_success(attach_leaf, flip, ERRCODE_DATATYPE_MISMATCH,
					"Give \"%s\" and \"%s\" the same columns and constraints.");
	rf_query_ddl("ALTER TABLE %s DROP CONSTRAINT " RF_FLIP_PROOF,
				 rf_store_relation_name(flip->leaf));
}

static void
log_flip(const Flip *flip, TimestampTz started_at)
{
	RfLedgerEntry entry = RF_LEDGER_ENTRY(
		flip->to == flip->store->events_hot ? "flip back" : "flip");
	Oid	  types[1] = {OIDOID};
	Datum values[1];

	values[0] = ObjectIdGetDatum(flip->leaf);
	rf_query_once("SELECT greatest(CASE WHEN pg_stat_get_live_tuples($1) > 0"
				  " THEN pg_stat_get_live_tuples($1)"
				  " ELSE reltuples::bigint END, 0) FROM pg_class"
				  " WHERE oid = $1",
				  1, types, values, NULL);
	entry.events = DatumGetInt64(rf_query_must(0, 1));
	entry.estimated = true;
	entry.bucket_month = flip->month;
	entry.started_at = started_at;
	entry.detail = psprintf("%s to %s", get_rel_name(flip->from),
							get_rel_name(flip->to));
	rf_ledger_write(flip->store, &entry);
}

/* Under the locks of who makes months, and not yet under those on tables. */
static void
flip_leaf(Flip *flip, RfLockLimit *limit)
{
	TimestampTz started_at;

	require_fit(flip);
	make_indexes(flip);
	take_late_events(flip);
	RF_WAIT_POINT("flip_before_locks");
	rf_lock_begin(limit);
	lock_tables(flip, limit);
	started_at = GetCurrentTimestamp();
	find_leaves(flip);
	require_fit(flip);
	take_late_events(flip);
	require_success(drop_rival, flip, ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
					NULL);
	change_parents(flip);
	log_flip(flip, started_at);
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

	find_leaves(flip);
	rf_query_begin(&scope, flip->store->owner, SECURITY_RESTRICTED_OPERATION);
	rf_query_be_quiet();
	rf_lock_begin(&limit);
	rf_lock_makers(&limit, flip->namespace_id);
	find_leaves(flip);
	if (OidIsValid(flip->leaf))
		flip_leaf(flip, &limit);
	else
		flip->result = flip->rival; /* it has been flipped already */
	rf_query_end(&scope);
}

/*
 * Flip a month from one parent to the other, and return its leaf; InvalidOid
 * when neither has one.
 */
Oid
rf_flip_month(RfStore *store, Oid from, Oid to, DateADT month)
{
	Flip flip = {.namespace_id = store->namespace_id,
				 .month = month,
				 .from = from,
				 .to = to};

	rf_lock_retry(try_flip, &flip);
	return flip.result;
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
join_rival(RfStore *store, Oid from, Oid to, DateADT month, Oid *result)
{
	RfPartition *leaf = rf_partition_find(from, month);
	RfFlipState	 state;
	char		*why;
	int64		 moved;

	if (leaf == NULL)
		return false;
	state = rf_flip_state(store, from, to, leaf, &why);
	if (state != RF_FLIP_RIVAL_SMALLER && state != RF_FLIP_RIVAL_LARGER)
		return false;
	store = rf_store_lock_cold(store);
	*result = rf_partition_of_month(to, month);
	moved = rf_flip_absorb(store, leaf->relid, *result, PG_INT32_MAX);
	if (moved > 0)
		ereport(NOTICE,
				(errmsg("events moved by rows: " INT64_FORMAT, moved),
				 errdetail_internal("%s", why),
				 errhint("rf_archive_run() moves the smaller part only.")));
	return true;
}

Datum
rf_flip_partition(PG_FUNCTION_ARGS)
{
	char	*tenant = RF_GETARG_STRING(2);
	DateADT	 month;
	RfTier	 tier;
	RfStore *store;
	Oid		 from;
	Oid		 to;
	Oid		 result;

	PreventCommandIfReadOnly("rf_flip_partition()");
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"month\" and \"retention\" must not be null")));
	month = PG_GETARG_DATEADT(0);
	tier = rf_partition_tier_argument(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	rf_partition_check_month(month);
	store = rf_store_get(tenant, RF_RIGHT_OWN);
	rf_store_require_adopted(store);
	from = rf_store_tier_parent(store, tier == RF_HOT ? RF_COLD : RF_HOT);
	to = rf_store_tier_parent(store, tier);
	require_over(month);
	if (!join_rival(store, from, to, month, &result))
		result = rf_flip_month(store, from, to, month);
	if (!OidIsValid(result))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no partition of month %s",
						rf_partition_date_text(month)),
				 errhint("rf_partitions() lists those that there are.")));
	PG_RETURN_OID(result);
}
