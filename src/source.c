/*-------------------------------------------------------------------------
 *
 * source.c
 *	  Plain tables of events, which are to be adopted.
 *
 * A source is a table of events without months, as applications have it that
 * do not archive, or archive by themselves: with a second table for cold
 * events, and one of streams, beside it.  Here it is looked through for all
 * that a store could not keep, and refused by name: what hangs on the table,
 * columns of other types, and rows that break an invariant.
 *
 * Nothing is changed here.  The functions expect to be called inside a scope
 * of the source's owner.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "access/htup_details.h"
#include "compat.h"
#include "query.h"
#include "source.h"
#include "store.h"

/* How many rows that break a rule are named. */
#define OFFENDERS "5"

/* A column that we know. */
typedef struct SourceColumn
{
	const char *name;
	Oid			type;
	bool		required; /* must it be there? */
	bool		filled;	  /* must it not be null, where it is there? */
} SourceColumn;

static const SourceColumn event_columns[] =
	{{"global_seq", INT8OID, true, true},
	 {"stream_id", UUIDOID, true, true},
	 {"stream_seq", INT4OID, true, true},
	 {"event_type", TEXTOID, true, true},
	 {"body", JSONBOID, true, true},
	 {"headers", JSONBOID, false, true},
	 {"causation_id", UUIDOID, false, false},
	 {"correlation_id", UUIDOID, false, false},
	 {"event_version", INT4OID, false, true},
	 {"tenant_id", TEXTOID, false, false},
	 {"user_id", TEXTOID, false, false},
	 {"is_tombstone", BOOLOID, false, true},
	 {"created_at", TIMESTAMPTZOID, true, true},
	 {NULL, InvalidOid, false, false}};

static const SourceColumn audit_columns[] = {{"migrated_at", TIMESTAMPTZOID,
											  false, false},
											 {"migrated_by", TEXTOID, false,
											  false},
											 {NULL, InvalidOid, false, false}};

static const SourceColumn stream_columns[] =
	{{"stream_id", UUIDOID, true, true},
	 {"tenant_id", TEXTOID, false, false},
	 {"archived_at", TIMESTAMPTZOID, false, false},
	 {"archived_by", TEXTOID, false, false},
	 {"archive_reason", TEXTOID, false, false},
	 {"created_at", TIMESTAMPTZOID, false, false},
	 {"updated_at", TIMESTAMPTZOID, false, false},
	 {NULL, InvalidOid, false, false}};

/*
 * What must not hang on a table: a query for its name, with the table as $1,
 * and what to say of it.
 */
typedef struct Obstacle
{
	const char *sql;
	const char *what; /* table, name */
	const char *hint;
} Obstacle;

static const Obstacle obstacles[] = {
	{"SELECT inhparent::regclass::text FROM pg_inherits WHERE inhrelid = $1",
	 "table \"%s\" inherits from %s", "Run: ALTER TABLE ... NO INHERIT."},
	{"SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = $1",
	 "table \"%s\" has the child table %s", "Run: ALTER TABLE ... NO INHERIT."},
	{"SELECT reloftype::regtype::text FROM pg_class"
	 " WHERE oid = $1 AND reloftype <> 0",
	 "table \"%s\" is of type %s", "Run: ALTER TABLE ... NOT OF."},
	{"SELECT quote_ident(conname) || ' of table ' || conrelid::regclass"
	 " FROM pg_constraint WHERE confrelid = $1 AND contype = 'f'"
	 " ORDER BY 1",
	 "table \"%s\" is referenced by foreign key %s",
	 "Events move between tables. Drop the foreign key, and keep what it refers to without one."},
	{"SELECT quote_ident(conname) FROM pg_constraint"
	 " WHERE conrelid = $1 AND contype = 'f' ORDER BY 1",
	 "table \"%s\" has foreign key %s",
	 "Drop it; each event of a store has its row in \"rf_streams\"."},
	{"SELECT quote_ident(rulename) FROM pg_rewrite"
	 " WHERE ev_class = $1 ORDER BY 1",
	 "table \"%s\" has rule %s", "Drop the rule."},
	{"SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = $1"
	 " AND attnum > 0 AND NOT attisdropped AND attgenerated <> ''",
	 "table \"%s\" has the generated column %s",
	 "Run: ALTER TABLE ... ALTER COLUMN ... DROP EXPRESSION."},
	{"SELECT quote_ident(a.attname) FROM pg_attribute AS a"
	 " WHERE a.attrelid = $1 AND a.attname <> 'global_seq' AND a.attnum > 0"
	 " AND NOT a.attisdropped AND (a.attidentity <> '' OR EXISTS (SELECT"
	 " FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass"
	 " AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1"
	 " AND d.refobjsubid = a.attnum AND d.deptype = 'a'"
	 " AND EXISTS (SELECT FROM pg_class AS s WHERE s.oid = d.objid"
	 " AND s.relkind = 'S')))",
	 "table \"%s\" owns the sequence of column %s",
	 "Run: ALTER SEQUENCE ... OWNED BY NONE, or ALTER TABLE ... DROP IDENTITY."},
	{"SELECT i.indexrelid::regclass::text FROM pg_index AS i"
	 " WHERE i.indrelid = $1 AND (i.indisexclusion OR i.indisunique AND NOT"
	 " (i.indpred IS NULL AND i.indexprs IS NULL AND (SELECT array_agg(a.attname"
	 " ORDER BY k.n) FROM unnest(i.indkey::smallint[]) WITH ORDINALITY"
	 " AS k(attnum, n) JOIN pg_attribute AS a ON a.attrelid = $1"
	 " AND a.attnum = k.attnum WHERE k.n <= i.indnkeyatts)"
	 " IN ('{global_seq}', '{stream_id,stream_seq}', CASE WHEN EXISTS (SELECT"
	 " FROM pg_attribute AS q WHERE q.attrelid = $1 AND q.attname = 'stream_seq')"
	 " THEN '{}' ELSE '{stream_id}' END::name[]))) ORDER BY 1",
	 "table \"%s\" has the unique index %s",
	 "It could not be unique over all months. Drop it, or make an ordinary one."},
	{"SELECT quote_ident(conname) FROM pg_constraint WHERE conrelid = $1"
	 " AND contype = 'c' AND (NOT convalidated OR connoinherit) ORDER BY 1",
	 "table \"%s\" has the constraint %s, which is not valid, or not inherited",
	 "Run: ALTER TABLE ... VALIDATE CONSTRAINT, or drop it."},
	{"SELECT quote_ident(p.pubname) FROM pg_publication_rel AS r"
	 " JOIN pg_publication AS p ON p.oid = r.prpubid WHERE r.prrelid = $1"
	 " ORDER BY 1",
	 "table \"%s\" is in publication %s",
	 "A subscriber would delete what moves. Drop the table from the publication."},
	{"SELECT relname::text FROM pg_class WHERE oid = $1"
	 " AND relforcerowsecurity",
	 "table \"%s\" forces row security on its owner (%s)",
	 "Run: ALTER TABLE ... NO FORCE ROW LEVEL SECURITY."},
	{"SELECT quote_ident(p.polname) FROM pg_policy AS p JOIN pg_depend AS d"
	 " ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid"
	 " AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1"
	 " JOIN pg_attribute AS a ON a.attrelid = $1 AND a.attnum = d.refobjsubid"
	 " AND a.attname IN ('bucket_month', 'retention_class')"
	 " WHERE p.polrelid = $1 AND EXISTS (SELECT FROM pg_attribute AS e"
	 " WHERE e.attrelid = $1 AND e.attname = 'stream_seq') ORDER BY 1",
	 "table \"%s\" has policy %s on \"bucket_month\" or \"retention_class\"",
	 "The store makes these columns anew. Drop the policy, and create it again afterwards."},
	{"SELECT quote_ident(tgname) FROM pg_trigger WHERE tgrelid = $1"
	 " AND NOT tgisinternal AND tgname !~ '^rf_adopt_'"
	 " AND (tgenabled IN ('A', 'R')"
	 " OR (tgtype & 1 = 1 AND (tgoldtable IS NOT NULL OR tgnewtable IS NOT NULL)))"
	 " ORDER BY 1",
	 "table \"%s\" has trigger %s, which a partitioned table cannot have, or which would fire for moves",
	 "Drop the trigger, or run: ALTER TABLE ... ENABLE TRIGGER."},
};

/*
 * A dependency d of an own part on the table itself, or on one of its columns;
 * what names the table as a whole in an expression is none.
 */
#define OWN_EXPRESSION "(d.deptype <> 'n' OR d.refobjsubid <> 0)"
#define IS_PART(catalog, table_column)           \
	"EXISTS (SELECT FROM " catalog " AS o WHERE" \
	" o.oid = d.objid AND o." table_column " = $1)"

/*
 * Whatever is tied to the table, or its row type, but for parts of the table.
 * A view is told by its name.
 */
static const char *const find_user =
	"SELECT DISTINCT coalesce((SELECT pg_describe_object('pg_class'::regclass,"
	" w.ev_class, 0) FROM pg_rewrite AS w WHERE d.classid ="
	" 'pg_rewrite'::regclass AND w.oid = d.objid),"
	" pg_describe_object(d.classid, d.objid, d.objsubid))"
	" FROM pg_depend AS d WHERE ((d.refclassid = 'pg_class'::regclass"
	" AND d.refobjid = $1) OR (d.refclassid = 'pg_type'::regclass"
	" AND d.refobjid IN (SELECT t.oid FROM pg_type AS t WHERE t.typrelid = $1"
	" UNION ALL SELECT t.typarray FROM pg_type AS t WHERE t.typrelid = $1)))"
	" AND NOT CASE d.classid"
	" WHEN 'pg_class'::regclass THEN d.objid = $1 OR " OWN_EXPRESSION
	" AND d.refclassid = d.classid"
	" WHEN 'pg_type'::regclass THEN d.deptype = 'i'"
	" WHEN 'pg_attrdef'::regclass"
	" THEN " OWN_EXPRESSION " AND " IS_PART(
		"pg_attrdef",
		"adrelid") " WHEN 'pg_constraint'::regclass"
				   " THEN " OWN_EXPRESSION " AND " IS_PART(
					   "pg_constraint",
					   "conrelid") " WHEN 'pg_policy'::regclass"
								   " THEN " OWN_EXPRESSION
								   " AND " IS_PART("pg_policy", "polrelid") " WHEN 'pg_trigger'::regclass THEN " IS_PART(
									   "pg_trigger",
									   "tgrelid") " WHEN 'pg_statistic_ext'::regclass"
												  " THEN " IS_PART(
													  "pg_statistic_ext",
													  "stxrelid") " WHEN 'pg_rewrite'::regclass THEN EXISTS (SELECT FROM pg_rewrite AS w"
																  " WHERE w.oid = d.objid AND w.ev_class = $2)"
																  " ELSE false END ORDER BY 1 LIMIT 1";

/* Who else draws from the sequence $1, but for the tables $2 and $3. */
static const char *const find_drawer =
	"SELECT pg_describe_object(d.classid, d.objid, d.objsubid)"
	" FROM pg_depend AS d WHERE d.refclassid = 'pg_class'::regclass"
	" AND d.refobjid = $1 AND d.deptype = 'n' AND NOT EXISTS (SELECT"
	" FROM pg_attrdef AS f WHERE d.classid = 'pg_attrdef'::regclass"
	" AND f.oid = d.objid AND f.adrelid IN ($2, $3)) ORDER BY 1 LIMIT 1";

/*
 * Finding it
 */

static Oid
find_beside(Oid relid, const char *name)
{
	Oid result = get_relname_relid(name, get_rel_namespace(relid));

	return result == relid ? InvalidOid : result;
}

/* The sequence that the default of global_seq draws from. */
static Oid
find_sequence(Oid relid)
{
	Oid	  types[1] = {OIDOID};
	Datum values[1];

	values[0] = ObjectIdGetDatum(relid);
	if (rf_query_once(
			"SELECT s.oid FROM pg_attribute AS a JOIN pg_depend AS d"
			" ON (d.classid = 'pg_class'::regclass AND d.refobjid = $1"
			" AND d.refclassid = 'pg_class'::regclass"
			" AND d.refobjsubid = a.attnum AND d.deptype IN ('a', 'i'))"
			" OR (d.classid = 'pg_attrdef'::regclass AND d.deptype = 'n'"
			" AND d.objid = (SELECT f.oid FROM pg_attrdef AS f"
			" WHERE f.adrelid = $1 AND f.adnum = a.attnum))"
			" JOIN pg_class AS s ON s.relkind = 'S' AND s.oid ="
			" CASE d.classid WHEN 'pg_class'::regclass THEN d.objid"
			" ELSE d.refobjid END"
			" WHERE a.attrelid = $1 AND a.attname = 'global_seq'"
			" AND NOT a.attisdropped ORDER BY d.classid DESC LIMIT 1",
			1, types, values, NULL) == 0)
		return InvalidOid;
	return DatumGetObjectId(rf_query_must(0, 1));
}

/* Does the sequence go with the column global_seq of the table? */
static bool
owns(Oid relid, Oid sequence)
{
	Oid	  table;
	int32 column;

	return OidIsValid(sequence) &&
		   (sequenceIsOwned(sequence, DEPENDENCY_AUTO, &table, &column) ||
			sequenceIsOwned(sequence, DEPENDENCY_INTERNAL, &table, &column)) &&
		   table == relid && column == get_attnum(relid, "global_seq");
}

static bool
is_identity(Oid relid, const char *name)
{
	HeapTuple tuple = SearchSysCacheAttName(relid, name);
	bool	  result = HeapTupleIsValid(tuple) &&
				  ((Form_pg_attribute) GETSTRUCT(tuple))->attidentity != '\0';

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return result;
}

/*
 * A source as it is, unchecked.  Alone: what else is in its schema belongs to
 * a store.
 */
void
rf_source_find(Oid relid, bool alone, RfSource *source)
{
	memset(source, 0, sizeof(*source));
	source->events = relid;
	source->owner = rf_store_relation_owner(relid);
	source->sequence = find_sequence(relid);
	source->owns_sequence = owns(relid, source->sequence);
	source->has_identity = is_identity(relid, "global_seq");
	if (alone)
		return;
	source->archive = find_beside(relid, "events_archive");
	source->streams = find_beside(relid, "rf_streams");
}

/* The tables of a source; returns how many there are. */
int
rf_source_tables(const RfSource *source, Oid *tables)
{
	int count = 0;

	if (OidIsValid(source->events))
		tables[count++] = source->events;
	if (OidIsValid(source->archive))
		tables[count++] = source->archive;
	if (OidIsValid(source->streams))
		tables[count++] = source->streams;
	return count;
}

/*
 * Its shape
 */

static void
check_kind(Oid relid, const RfSource *source)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	char	  kind;
	char	  persistence;
	char	 *name = get_rel_name(relid);

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	kind = ((Form_pg_class) GETSTRUCT(tuple))->relkind;
	persistence = ((Form_pg_class) GETSTRUCT(tuple))->relpersistence;
	ReleaseSysCache(tuple);
	if (kind != RELKIND_RELATION)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("\"%s\" is not a plain table", name),
						errhint("Adopt a table that is not partitioned.")));
	if (persistence != RELPERSISTENCE_PERMANENT)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("table \"%s\" is temporary or unlogged", name),
						errhint("Run: ALTER TABLE ... SET LOGGED.")));
	if (rf_store_relation_owner(relid) != source->owner)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("tables \"%s\" and \"%s\" have different owners",
							   get_rel_name(source->events), name),
						errhint("Run: ALTER TABLE ... OWNER TO.")));
}

static void
check_column(Oid relid, const SourceColumn *column)
{
	AttrNumber attnum = get_attnum(relid, column->name);
	Oid		   type;
	int32	   typmod;
	Oid		   collation;

	if (attnum == InvalidAttrNumber && !column->required)
		return;
	if (attnum == InvalidAttrNumber)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
						errmsg("table \"%s\" has no column \"%s\"",
							   get_rel_name(relid), column->name),
						errhint("Add it, of type %s, and fill it in.",
								format_type_be(column->type))));
	get_atttypetypmodcoll(relid, attnum, &type, &typmod, &collation);
	if (type != column->type || typmod != -1 ||
		(OidIsValid(collation) && collation != DEFAULT_COLLATION_OID))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of table \"%s\" is of type %s%s, not %s",
						column->name, get_rel_name(relid),
						format_type_with_typemod(type, typmod),
						OidIsValid(collation) &&
								collation != DEFAULT_COLLATION_OID ?
							" with a collation" :
							"",
						format_type_be(column->type)),
				 errhint("Run: ALTER TABLE %s ALTER COLUMN %s TYPE %s%s;",
						 rf_store_relation_name(relid), column->name,
						 format_type_be(column->type),
						 OidIsValid(collation) ? " COLLATE \"default\"" : "")));
}

static void
check_columns(Oid relid, const SourceColumn *columns)
{
	for (; columns->name != NULL; columns++)
		check_column(relid, columns);
}

static void
check_obstacles(Oid relid)
{
	Oid	  types[1] = {OIDOID};
	Datum values[1];

	values[0] = ObjectIdGetDatum(relid);
	for (int i = 0; i < lengthof(obstacles); i++)
	{
		const Obstacle *obstacle = &obstacles[i];

		if (rf_query_once(obstacle->sql, 1, types, values, NULL) > 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg_internal(obstacle->what, get_rel_name(relid),
									 TextDatumGetCString(rf_query_must(0, 1))),
					 errhint("%s", obstacle->hint)));
	}
}

/* Nothing but one view, which goes with it, may be tied to a table. */
void
rf_source_check_use(Oid relid, Oid but)
{
	Oid	  types[2] = {OIDOID, OIDOID};
	Datum values[2];

	values[0] = ObjectIdGetDatum(relid);
	values[1] = ObjectIdGetDatum(but);
	if (rf_query_once(find_user, 2, types, values, NULL) > 0)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("%s is tied to table \"%s\"",
							   TextDatumGetCString(rf_query_must(0, 1)),
							   get_rel_name(relid)),
						errdetail("Another table takes the place of this one."),
						errhint("Drop it, and create it again afterwards.")));
}

/* A sequence that the table owns goes with it. */
static void
check_sequence(const RfSource *source)
{
	Oid	  types[3] = {OIDOID, OIDOID, OIDOID};
	Datum values[3];

	if (!source->owns_sequence)
		return;
	values[0] = ObjectIdGetDatum(source->sequence);
	values[1] = ObjectIdGetDatum(source->events);
	values[2] = ObjectIdGetDatum(source->archive);
	if (rf_query_once(find_drawer, 3, types, values, NULL) > 0)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("%s draws from the sequence of table \"%s\"",
							   TextDatumGetCString(rf_query_must(0, 1)),
							   get_rel_name(source->events)),
						errdetail("The sequence goes with the table."),
						errhint("Run: ALTER SEQUENCE %s OWNED BY NONE;",
								rf_store_relation_name(source->sequence))));
}

static bool
has_unique_index(Oid relid, const char *columns)
{
	Oid	  types[2] = {OIDOID, TEXTOID};
	Datum values[2];

	values[0] = ObjectIdGetDatum(relid);
	values[1] = CStringGetTextDatum(columns);
	return rf_query_once(
			   "SELECT 1 FROM pg_index AS i WHERE i.indrelid = $1"
			   " AND i.indisunique AND i.indisvalid AND i.indimmediate"
			   " AND i.indpred IS NULL AND i.indexprs IS NULL"
			   " AND (SELECT string_agg(a.attname, ', ' ORDER BY k.n)"
			   " FROM unnest(i.indkey::smallint[]) WITH ORDINALITY"
			   " AS k(attnum, n) JOIN pg_attribute AS a ON a.attrelid = $1"
			   " AND a.attnum = k.attnum WHERE k.n <= i.indnkeyatts) = $2",
			   2, types, values, NULL) > 0;
}

#define BY_NUMBER "global_seq"
#define BY_STREAM "stream_id, stream_seq"

static bool
is_unique(Oid relid)
{
	return has_unique_index(relid, BY_NUMBER) &&
		   has_unique_index(relid, BY_STREAM);
}

/* Rows are found by these indexes later on. */
static void
require_unique_index(Oid relid, const char *columns)
{
	if (!has_unique_index(relid, columns))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" has no unique index on (%s)",
						get_rel_name(relid), columns),
				 errhint("Run: CREATE UNIQUE INDEX CONCURRENTLY ON %s (%s);",
						 rf_store_relation_name(relid), columns)));
}

static void
require_unique(Oid relid)
{
	require_unique_index(relid, BY_NUMBER);
	require_unique_index(relid, BY_STREAM);
}

/* The store has its own columns of these names. */
static void
check_free_columns(const RfSource *source)
{
	for (const SourceColumn *column = audit_columns; column->name != NULL;
		 column++)
	{
		if (get_attnum(source->events, column->name) != InvalidAttrNumber)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("table \"%s\" has a column \"%s\"",
							get_rel_name(source->events), column->name),
					 errdetail("That column is of \"events_archive\" alone."),
					 errhint("Rename the column.")));
	}
}

/* What the archive lacks it gets as a column without values. */
static void
check_archive_columns(const RfSource *source)
{
	Oid	  types[2] = {OIDOID, OIDOID};
	Datum values[2];

	values[0] = ObjectIdGetDatum(source->events);
	values[1] = ObjectIdGetDatum(source->archive);
	if (rf_query_once(
			"SELECT b.attrelid::regclass::text, b.attname::text,"
			" format_type(a.atttypid, a.atttypmod)"
			" FROM pg_attribute AS a JOIN pg_attribute AS b"
			" ON b.attrelid = $2 AND b.attname = a.attname"
			" WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped"
			" AND a.attname NOT IN ('bucket_month', 'retention_class')"
			" AND (a.atttypid, a.atttypmod, a.attcollation)"
			" <> (b.atttypid, b.atttypmod, b.attcollation) ORDER BY a.attnum",
			2, types, values, NULL) > 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("column \"%s\" has different types in \"%s\" and \"%s\"",
					TextDatumGetCString(rf_query_must(0, 2)),
					get_rel_name(source->events),
					get_rel_name(source->archive)),
			 errhint("Run: ALTER TABLE %s ALTER COLUMN %s TYPE %s;",
					 TextDatumGetCString(rf_query_must(0, 1)),
					 quote_identifier(TextDatumGetCString(rf_query_must(0, 2))),
					 TextDatumGetCString(rf_query_must(0, 3)))));
}

/* Has a store that column of events, whatever its source has? */
static bool
is_known(const char *name)
{
	for (const SourceColumn *column = event_columns; column->name != NULL;
		 column++)
	{
		if (strcmp(column->name, name) == 0)
			return true;
	}
	return false;
}

/* Nor could events that are cold come back into a column that must be filled.
 */
static void
check_archive_lacks(const RfSource *source)
{
	Oid	  types[2] = {OIDOID, OIDOID};
	Datum values[2];
	char *name;

	values[0] = ObjectIdGetDatum(source->events);
	values[1] = ObjectIdGetDatum(source->archive);
	if (rf_query_once(
			"SELECT a.attname::text FROM pg_attribute AS a WHERE a.attrelid = $1"
			" AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull"
			" AND a.attname NOT IN ('bucket_month', 'retention_class')"
			" AND NOT EXISTS (SELECT FROM pg_attribute AS b"
			" WHERE b.attrelid = $2 AND b.attname = a.attname"
			" AND NOT b.attisdropped) ORDER BY a.attnum",
			2, types, values, NULL) == 0)
		return;
	for (uint64 i = 0; i < rf_query_rows(); i++)
	{
		name = TextDatumGetCString(rf_query_must(i, 1));
		if (!is_known(name))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("table \"%s\" has no column \"%s\", which is NOT"
							" NULL in \"%s\"",
							get_rel_name(source->archive), name,
							get_rel_name(source->events)),
					 errhint("Add it there, with a default.")));
	}
}

/* A new stream's row has no value for columns that the store does not know. */
static void
check_stream_columns(Oid relid)
{
	Oid	  types[1] = {OIDOID};
	Datum values[1];

	values[0] = ObjectIdGetDatum(relid);
	if (rf_query_once(
			"SELECT quote_ident(a.attname) FROM pg_attribute AS a"
			" JOIN pg_type AS t ON t.oid = a.atttypid WHERE a.attrelid = $1"
			" AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull"
			" AND NOT a.atthasdef AND a.attidentity = ''"
			" AND t.typdefault IS NULL AND a.attname NOT IN ('stream_id',"
			" 'tenant_id', 'last_seq', 'first_event_at', 'last_event_at',"
			" 'archived_at', 'archived_by', 'archive_reason',"
			" 'retention_class', 'created_at', 'updated_at')"
			" ORDER BY a.attnum LIMIT 1",
			1, types, values, NULL) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("column %s of table \"%s\" is NOT NULL and has no"
						" default",
						TextDatumGetCString(rf_query_must(0, 1)),
						get_rel_name(relid)),
				 errdetail("The first event of a stream makes its row there."),
				 errhint("Give the column a default.")));
}

/* Refuse tables that a store could not be made of. */
void
rf_source_check_shape(const RfSource *source)
{
	check_kind(source->events, source);
	check_columns(source->events, event_columns);
	check_free_columns(source);
	check_obstacles(source->events);
	rf_source_check_use(source->events, InvalidOid);
	check_sequence(source);
	if (OidIsValid(source->archive))
	{
		check_kind(source->archive, source);
		check_columns(source->archive, event_columns);
		check_columns(source->archive, audit_columns);
		check_archive_columns(source);
		check_archive_lacks(source);
		check_obstacles(source->archive);
		rf_source_check_use(source->archive, InvalidOid);
	}
	if (OidIsValid(source->streams))
	{
		check_kind(source->streams, source);
		check_columns(source->streams, stream_columns);
		check_stream_columns(source->streams);
		check_obstacles(source->streams);
		rf_source_check_use(source->streams, InvalidOid);
	}
}

/*
 * Its rows
 */

/* Columns of all events, hot and cold, as a table to select from. */
char *
rf_source_rows(const RfSource *source, const char *columns)
{
	if (!OidIsValid(source->archive))
		return psprintf("(SELECT %s FROM ONLY %s)", columns,
						rf_store_relation_name(source->events));
	return psprintf("(SELECT %s FROM ONLY %s UNION ALL SELECT %s FROM ONLY %s)",
					columns, rf_store_relation_name(source->events), columns,
					rf_store_relation_name(source->archive));
}

/* The condition on rows: of the streams, which are $1 then, or NULL of all. */
static const char *
of_streams(const ArrayType *streams)
{
	return streams == NULL ? "true" : "stream_id = ANY ($1)";
}

/* Fail when a query names rows that break a rule. */
static void
refuse_rows(const char *sql, ArrayType *streams, int sqlstate, const char *what,
			const char *hint)
{
	Oid	  types[1] = {UUIDARRAYOID};
	Datum values[1];
	char *offenders;

	values[0] = PointerGetDatum(streams);
	rf_query_once(psprintf("SELECT string_agg(o, '; ') FROM"
						   " (%s ORDER BY 1 LIMIT " OFFENDERS ") AS named(o)",
						   sql),
				  streams == NULL ? 0 : 1, types, values, NULL);
	if (rf_query_null(0, 1))
		return;
	offenders = TextDatumGetCString(rf_query_must(0, 1));
	ereport(ERROR,
			(errcode(sqlstate), errmsg_internal("%s", what),
			 errdetail("The first are: %s.", offenders), errhint("%s", hint)));
}

/* Must the column not be null, wherever it is? */
bool
rf_source_is_filled(const char *name)
{
	for (const SourceColumn *column = event_columns; column->name != NULL;
		 column++)
	{
		if (column->filled && strcmp(column->name, name) == 0)
			return true;
	}
	return false;
}

/* The condition that a row of the table does not hold what it has to. */
static char *
unfilled(Oid relid, const SourceColumn *columns)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (; columns->name != NULL; columns++)
	{
		if (columns->filled &&
			get_attnum(relid, columns->name) != InvalidAttrNumber)
			appendStringInfo(&buf, "%s%s IS NULL", buf.len > 0 ? " OR " : "",
							 columns->name);
	}
	return buf.data;
}

static void
check_filled(Oid relid, ArrayType *streams)
{
	refuse_rows(
		psprintf(
			"SELECT format('global_seq %%s, stream_id %%s, stream_seq %%s',"
			" coalesce(global_seq::text, 'null'),"
			" coalesce(stream_id::text, 'null'),"
			" coalesce(stream_seq::text, 'null')) FROM ONLY %s"
			" WHERE %s AND (%s OR NOT isfinite(created_at)"
			" OR stream_seq < 1)",
			rf_store_relation_name(relid), of_streams(streams),
			unfilled(relid, event_columns)),
		streams, ERRCODE_NOT_NULL_VIOLATION,
		psprintf("table \"%s\" holds events without what an event must have",
				 get_rel_name(relid)),
		"No column but causation_id, correlation_id, tenant_id and user_id may be null, created_at has to be finite, and stream_seq to be positive.");
}

#define SAME_NUMBER "events have the same stream_id and stream_seq"
#define SAME_NUMBER_HINT "A number is given once in a stream, hot or cold."
#define SAME_GLOBAL "events have the same global_seq"
#define SAME_GLOBAL_HINT "A global_seq is given once, hot or cold."

static void
check_repeats(const RfSource *source, ArrayType *streams)
{
	char *rows = rf_source_rows(source, "stream_id, stream_seq, global_seq");

	refuse_rows(psprintf("SELECT stream_id || ' ' || stream_seq FROM %s AS e"
						 " WHERE %s GROUP BY stream_id, stream_seq"
						 " HAVING count(*) > 1",
						 rows, of_streams(streams)),
				streams, ERRCODE_UNIQUE_VIOLATION, SAME_NUMBER,
				SAME_NUMBER_HINT);
	refuse_rows(psprintf("SELECT global_seq::text FROM %s AS e WHERE %s"
						 " GROUP BY global_seq HAVING count(*) > 1",
						 rows, of_streams(streams)),
				streams, ERRCODE_UNIQUE_VIOLATION, SAME_GLOBAL,
				SAME_GLOBAL_HINT);
}

/* The rows of a table that have a value of a note t, by an index. */
#define MATCH(columns, condition)                                      \
	"SELECT " columns " FROM %s AS t,"                                 \
	" LATERAL (SELECT FROM ONLY %s AS e WHERE " condition " OFFSET 0)" \
	" AS hot, LATERAL (SELECT FROM ONLY %s AS e WHERE " condition      \
	" OFFSET 0) AS cold"

/*
 * The same of single events, which are noted in a table, and of whichever
 * stream: each table keeps its own numbers apart, but not from those of the
 * other one.
 */
void
rf_source_check_noted(const RfSource *source, const char *notes)
{
	const char *hot = rf_store_relation_name(source->events);
	const char *cold;

	if (!OidIsValid(source->archive))
		return;
	cold = rf_store_relation_name(source->archive);
	refuse_rows(psprintf(MATCH("DISTINCT t.stream_id || ' ' || t.stream_seq",
							   "e.stream_id = t.stream_id"
							   " AND e.stream_seq = t.stream_seq"),
						 notes, hot, cold),
				NULL, ERRCODE_UNIQUE_VIOLATION, SAME_NUMBER, SAME_NUMBER_HINT);
	refuse_rows(psprintf(MATCH("DISTINCT t.global_seq::text",
							   "e.global_seq = t.global_seq"),
						 notes, hot, cold),
				NULL, ERRCODE_UNIQUE_VIOLATION, SAME_GLOBAL, SAME_GLOBAL_HINT);
}

/* Where none is repeated, these are the numbers 1 to their count. */
static void
check_gaps(const RfSource *source, ArrayType *streams)
{
	refuse_rows(psprintf("SELECT format('%%s has %%s events, %%s to %%s',"
						 " stream_id, count(*), min(stream_seq),"
						 " max(stream_seq)) FROM %s AS e WHERE %s"
						 " GROUP BY stream_id HAVING min(stream_seq) <> 1"
						 " OR max(stream_seq) <> count(*)",
						 rf_source_rows(source, "stream_id, stream_seq"),
						 of_streams(streams)),
				streams, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
				"streams are not numbered from 1 without gaps",
				"Number the events of these streams anew.");
}

static void
check_stream_rows(const RfSource *source)
{
	if (!OidIsValid(source->streams))
		return;
	refuse_rows(psprintf("SELECT coalesce(stream_id::text, 'null') FROM ONLY %s"
						 " GROUP BY stream_id"
						 " HAVING count(*) > 1 OR stream_id IS NULL",
						 rf_store_relation_name(source->streams)),
				NULL, ERRCODE_UNIQUE_VIOLATION,
				"streams have no row of their own in \"rf_streams\"",
				"Each stream has one row there, with its stream_id.");
}

/*
 * Refuse rows that break an invariant, of the streams given or, NULL, of all.
 * The report names the first.
 */
void
rf_source_check_rows(const RfSource *source, ArrayType *streams)
{
	bool in_two = OidIsValid(source->archive);

	check_filled(source->events, streams);
	if (in_two)
		check_filled(source->archive, streams);
	if (streams == NULL)
		check_stream_rows(source);
	/* repeats are to be named, rather than the index that allowed them */
	if (in_two || !is_unique(source->events))
		check_repeats(source, streams);
	check_gaps(source, streams);
	require_unique(source->events);
	if (in_two)
		require_unique(source->archive);
}
