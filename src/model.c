/*-------------------------------------------------------------------------
 *
 * model.c
 *	  What one table takes over from another.
 *
 * Adopting and flattening put tables in the place of others, and whoever used
 * those is to notice nothing: rights, policies, defaults, the user's columns,
 * checks, indexes and triggers come along.  Each statement here reads them from
 * the catalog as statements that make them on the other table.
 *
 * What belongs to the layout stays behind: columns that tell of month and
 * tier, indexes and checks that name them, unique indexes, and our triggers.
 *
 * The functions expect to be called inside a scope of the tables' owner.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "model.h"
#include "query.h"

/* columns that the layout makes */
#define OF_LAYOUT \
	"('bucket_month', 'retention_class', 'migrated_at', 'migrated_by')"

/* does the column number array name one of them? */
#define NAMES_LAYOUT(relation, numbers)                                  \
	"EXISTS (SELECT FROM pg_attribute AS l WHERE l.attrelid = " relation \
	" AND l.attnum = ANY (" numbers ") AND l.attname IN"                 \
	" " OF_LAYOUT ")"

#define GRANTEE                           \
	"CASE g.grantee WHEN 0 THEN 'PUBLIC'" \
	" ELSE quote_ident(pg_get_userbyid(g.grantee)) END,"

#define GRANT_OPTION \
	" CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)"

/* take away what default privileges have granted, to begin with */
#define REVOKE_ALL                                                    \
	"SELECT format('REVOKE ALL ON %s %s FROM %s', CASE c.relkind"     \
	" WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass,"    \
	" CASE g.grantee WHEN 0 THEN 'PUBLIC'"                            \
	" ELSE quote_ident(pg_get_userbyid(g.grantee)) END), 0 AS step"   \
	" FROM pg_class AS c, aclexplode(c.relacl) AS g WHERE c.oid = $2" \
	" AND g.grantee <> c.relowner UNION "
#define IN_STEPS(sql) "SELECT s FROM (" sql ") AS steps(s, step) ORDER BY step"

/* Statements that make statements: $1 is the model, $2 the table it is for. */
static const struct
{
	int			what;
	const char *sql;
} statements[] = {
	{RF_MODEL_COLUMNS,
	 "SELECT format('ALTER TABLE %s ADD COLUMN %I %s%s%s%s', $2::regclass,"
	 " a.attname, format_type(a.atttypid, a.atttypmod),"
	 " CASE WHEN a.attcollation <> t.typcollation"
	 " THEN ' COLLATE ' || a.attcollation::regcollation ELSE '' END,"
	 " ' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid),"
	 " CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END)"
	 " FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid"
	 " LEFT JOIN pg_attrdef AS d ON d.adrelid = $1 AND d.adnum = a.attnum"
	 " WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped"
	 " AND NOT EXISTS (SELECT FROM pg_attribute AS b WHERE b.attrelid = $2"
	 " AND b.attname = a.attname AND NOT b.attisdropped) ORDER BY a.attnum"},

	{RF_MODEL_BARE_COLUMNS,
	 "SELECT format('ALTER TABLE %s ADD COLUMN %I %s%s', $2::regclass,"
	 " a.attname, format_type(a.atttypid, a.atttypmod),"
	 " CASE WHEN a.attcollation <> t.typcollation"
	 " THEN ' COLLATE ' || a.attcollation::regcollation ELSE '' END)"
	 " FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid"
	 " WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped"
	 " AND NOT EXISTS (SELECT FROM pg_attribute AS b WHERE b.attrelid = $2"
	 " AND b.attname = a.attname AND NOT b.attisdropped) ORDER BY a.attnum"},

	{RF_MODEL_DEFAULTS,
	 "SELECT format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT %s',"
	 " $2::regclass, a.attname, pg_get_expr(d.adbin, d.adrelid))"
	 " FROM pg_attribute AS a JOIN pg_attrdef AS d"
	 " ON d.adrelid = $1 AND d.adnum = a.attnum"
	 " WHERE a.attrelid = $1 AND a.attgenerated = ''"
	 " AND a.attname NOT IN " OF_LAYOUT " AND a.attname <> 'global_seq'"},

	{RF_MODEL_NOT_NULL,
	 "SELECT format('ALTER TABLE %s ALTER COLUMN %I SET NOT NULL',"
	 " $2::regclass, a.attname) FROM pg_attribute AS a JOIN pg_attribute AS b"
	 " ON b.attrelid = $2 AND b.attname = a.attname AND NOT b.attnotnull"
	 " WHERE a.attrelid = $1 AND a.attnum > 0 AND a.attnotnull"
	 " AND NOT a.attisdropped AND a.attname NOT IN " OF_LAYOUT},

	{RF_MODEL_CHECKS,
	 "SELECT format('ALTER TABLE %s ADD CONSTRAINT %I %s', $2::regclass,"
	 " c.conname, pg_get_constraintdef(c.oid)) FROM pg_constraint AS c"
	 " WHERE c.conrelid = $1 AND c.contype = 'c'"
	 " AND NOT " NAMES_LAYOUT(
		 "$1",
		 "c.conkey") " AND NOT EXISTS (SELECT FROM pg_constraint AS b WHERE b.conrelid = $2"
					 " AND b.conname = c.conname AND pg_get_constraintdef(b.oid)"
					 " = pg_get_constraintdef(c.oid))"},

	/*
	 * After the table's name comes all that an index is.  It keeps its own,
	 * for which that of the model makes room in the same schema.
	 */
	{RF_MODEL_INDEXES,
	 "SELECT CASE WHEN x.relnamespace = (SELECT relnamespace FROM pg_class"
	 " WHERE oid = $2) THEN format('ALTER INDEX %s RENAME TO %I; ',"
	 " x.oid::regclass, 'rf_model_' || x.oid) ELSE '' END"
	 " || format('CREATE INDEX %I ON %s %s', x.relname, $2::regclass, substr(def,"
	 " length(format('CREATE INDEX %I ON %s%s ', x.relname,"
	 " CASE WHEN r.relkind = 'p' THEN 'ONLY ' ELSE '' END, $1::regclass)) + 1))"
	 " FROM pg_index AS i JOIN pg_class AS x ON x.oid = i.indexrelid"
	 " JOIN pg_class AS r ON r.oid = i.indrelid,"
	 " pg_get_indexdef(i.indexrelid) AS def"
	 " WHERE i.indrelid = $1 AND i.indisvalid AND NOT i.indisunique"
	 " AND NOT i.indisexclusion"
	 " AND NOT EXISTS (SELECT FROM pg_depend AS d JOIN pg_attribute AS l"
	 " ON l.attrelid = $1 AND l.attnum = d.refobjsubid WHERE"
	 " d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid"
	 " AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1"
	 " AND l.attname IN " OF_LAYOUT ")"},

	/* the table is named after the trigger, whose name may be anything */
	{RF_MODEL_TRIGGERS,
	 "SELECT left(def, start) || overlay(substr(def, start + 1)"
	 " PLACING format(' ON %s ', $2::regclass)"
	 " FROM position(format(' ON %s ', $1::regclass) IN substr(def, start + 1))"
	 " FOR length(format(' ON %s ', $1::regclass)))"
	 " || CASE t.tgenabled WHEN 'D' THEN format("
	 "'; ALTER TABLE %s DISABLE TRIGGER %I', $2::regclass, t.tgname) ELSE '' END"
	 " FROM pg_trigger AS t, pg_get_triggerdef(t.oid) AS def,"
	 " LATERAL (SELECT position(' TRIGGER ' || quote_ident(tgname) IN def)"
	 " + length(' TRIGGER ' || quote_ident(tgname)) - 1) AS named(start)"
	 " WHERE t.tgrelid = $1 AND NOT t.tgisinternal AND t.tgparentid = 0"
	 " AND t.tgname !~ '^rf_(events|adopt)_'"},

	{RF_MODEL_RIGHTS,
	 IN_STEPS(
		 REVOKE_ALL
		 "SELECT format('GRANT %s ON %s %s TO %s%s', g.privilege_type,"
		 " CASE r.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,"
		 " $2::regclass, " GRANTEE GRANT_OPTION
		 ", 1 FROM pg_class AS c JOIN pg_class AS r ON r.oid = $2,"
		 " aclexplode(c.relacl) AS g WHERE c.oid = $1"
		 " AND g.grantee <> c.relowner"
		 " UNION SELECT format('GRANT %s (%I) ON TABLE %s TO %s%s',"
		 " g.privilege_type, a.attname, $2::regclass, " GRANTEE GRANT_OPTION
		 ", 1 FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid"
		 " JOIN pg_attribute AS b ON b.attrelid = $2"
		 " AND b.attname = a.attname, aclexplode(a.attacl) AS g"
		 " WHERE c.oid = $1 AND NOT a.attisdropped"
		 " AND g.grantee <> c.relowner")},

	{RF_MODEL_READERS,
	 IN_STEPS(REVOKE_ALL
			  "SELECT format('GRANT %s ON %s TO %s%s', g.privilege_type,"
			  " $2::regclass, " GRANTEE GRANT_OPTION
			  ", 1 FROM pg_class AS c, aclexplode(c.relacl) AS g"
			  " WHERE c.oid = $1 AND g.privilege_type = 'SELECT'"
			  " AND g.grantee <> c.relowner")},

	{RF_MODEL_DRAWERS,
	 "SELECT DISTINCT format('GRANT USAGE ON SEQUENCE %s TO %s', $2::regclass,"
	 " CASE g.grantee WHEN 0 THEN 'PUBLIC'"
	 " ELSE quote_ident(pg_get_userbyid(g.grantee)) END)"
	 " FROM pg_class AS c CROSS JOIN LATERAL (SELECT * FROM aclexplode(c.relacl)"
	 " UNION ALL SELECT x.* FROM pg_attribute AS a, aclexplode(a.attacl) AS x"
	 " WHERE a.attrelid = c.oid AND NOT a.attisdropped) AS g WHERE c.oid = $1"
	 " AND g.privilege_type = 'INSERT' AND g.grantee <> c.relowner"},

	{RF_MODEL_POLICIES,
	 "SELECT format('CREATE POLICY %I ON %s AS %s FOR %s TO %s%s%s', p.polname,"
	 " $2::regclass, CASE WHEN p.polpermissive THEN 'PERMISSIVE'"
	 " ELSE 'RESTRICTIVE' END, CASE p.polcmd WHEN 'r' THEN 'SELECT'"
	 " WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE'"
	 " ELSE 'ALL' END, (SELECT string_agg(CASE u WHEN 0 THEN 'PUBLIC'"
	 " ELSE quote_ident(pg_get_userbyid(u)) END, ', ')"
	 " FROM unnest(p.polroles) AS u),"
	 " ' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')',"
	 " ' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')')"
	 " FROM pg_policy AS p WHERE p.polrelid = $1"
	 " UNION ALL SELECT format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY',"
	 " $2::regclass) FROM pg_class WHERE oid = $1 AND relrowsecurity"},

	{RF_MODEL_COMMENTS,
	 "SELECT format('COMMENT ON TABLE %s IS %L', $2::regclass, d)"
	 " FROM obj_description($1, 'pg_class') AS d WHERE d IS NOT NULL"
	 " UNION ALL SELECT format('COMMENT ON COLUMN %s.%I IS %L', $2::regclass,"
	 " a.attname, col_description($1, a.attnum)) FROM pg_attribute AS a"
	 " JOIN pg_attribute AS b ON b.attrelid = $2 AND b.attname = a.attname"
	 " WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped"
	 " AND col_description($1, a.attnum) IS NOT NULL"},
};

/* Run the statements that a query over the two tables makes. */
void
rf_model_run(const char *sql, Oid first, Oid second)
{
	Oid	   types[2] = {OIDOID, OIDOID};
	Datum  values[2];
	uint64 rows;
	char **commands;

	values[0] = ObjectIdGetDatum(first);
	values[1] = ObjectIdGetDatum(second);
	rows = rf_query_once(sql, 2, types, values, NULL);
	commands = palloc(sizeof(char *) * Max(rows, 1));
	for (uint64 i = 0; i < rows; i++)
		commands[i] = TextDatumGetCString(rf_query_must(i, 1));
	for (uint64 i = 0; i < rows; i++)
		rf_query_ddl("%s", commands[i]);
}

/* Let a table have what another one has. */
void
rf_model_take(Oid from, Oid to, int what)
{
	for (int i = 0; i < lengthof(statements); i++)
	{
		if ((what & statements[i].what) != 0)
			rf_model_run(statements[i].sql, from, to);
	}
}

/*
 * Months are read by their parents; nobody gets a right on one in a schema
 * just because default privileges would have it so.
 */
void
rf_model_close(Oid namespace_id)
{
	rf_model_run("SELECT DISTINCT format('REVOKE ALL ON TABLE %s FROM %s',"
				 " c.oid::regclass, CASE g.grantee WHEN 0 THEN 'PUBLIC'"
				 " ELSE quote_ident(pg_get_userbyid(g.grantee)) END)"
				 " FROM pg_class AS c, aclexplode(c.relacl) AS g"
				 " WHERE c.relnamespace = $1 AND c.relispartition"
				 " AND c.relkind IN ('r', 'p') AND g.grantee <> c.relowner",
				 namespace_id, namespace_id);
}

/* Rows of the catalog that tell of the relations $1, or are tied to them. */
static const struct
{
	const char *catalog;
	const char *condition;
} telling[] = {
	{"pg_attribute", "attrelid = ANY ($1)"},
	{"pg_attrdef", "adrelid = ANY ($1)"},
	{"pg_constraint", "conrelid = ANY ($1)"},
	{"pg_index", "indrelid = ANY ($1)"},
	{"pg_trigger", "tgrelid = ANY ($1)"},
	{"pg_policy", "polrelid = ANY ($1)"},
	{"pg_rewrite", "ev_class = ANY ($1)"},
	{"pg_inherits", "inhrelid = ANY ($1)"},
	{"pg_description", "objoid = ANY ($1) AND classoid = 'pg_class'::regclass"},
	{"pg_depend", "refobjid = ANY ($1) AND refclassid = 'pg_class'::regclass"},
	{"pg_depend", "refclassid = 'pg_type'::regclass AND refobjid IN"
				  " (SELECT reltype FROM pg_class WHERE oid = ANY ($1))"},
};

/*
 * A text that is another one when any of the relations has been altered, or
 * anything was tied to it: who wrote those rows.  Of the row in pg_class, which
 * changes when a table is vacuumed, too, only what counts is looked at.
 */
char *
rf_model_state(ArrayType *relids)
{
	Oid			   types[1] = {OIDARRAYOID};
	Datum		   values[1];
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfoString(
		&sql, "SELECT md5(string_agg(v, ' ' ORDER BY v)) FROM (SELECT"
			  " row(relname, relnamespace, relowner, relpersistence,"
			  " relrowsecurity, relforcerowsecurity, reloftype, relacl)::text"
			  " FROM pg_class WHERE oid = ANY ($1)");
	for (int i = 0; i < lengthof(telling); i++)
		appendStringInfo(&sql,
						 " UNION ALL SELECT tableoid || ':' || xmin FROM %s"
						 " WHERE %s",
						 telling[i].catalog, telling[i].condition);
	appendStringInfoString(&sql, ") AS versions(v)");
	values[0] = PointerGetDatum(relids);
	rf_query_once(sql.data, 1, types, values, NULL);
	return TextDatumGetCString(rf_query_must(0, 1));
}
