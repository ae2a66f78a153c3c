/*-------------------------------------------------------------------------
 *
 * row_security.c
 *	  Row security: the policies that tell tenants apart.
 *
 * rf_enable_rls() gives each table of a store that says whose its rows are the
 * same policy, leaves included, and each month that is made later takes it over
 * from its parent.  A month that flips keeps what it has.
 *
 * That is a filter for what is read and written as the caller.  What we do as
 * the owner of the store is asked about beforehand (rls.c).
 *
 * Locks: to make or drop the policies, ACCESS EXCLUSIVE on all tables of the
 * store that have one, under the lock of who makes months.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "ledger.h"
#include "lock.h"
#include "query.h"
#include "rls.h"
#include "row_security.h"
#include "store.h"

/* the policy on each table of a store */
#define POLICY "rf_tenant"

/* the setting that says which tenant a session is of, unless another does */
#define DEFAULT_SETTING "rillflow.tenant"

/* the longest name of a setting that is taken */
#define MAX_SETTING_BYTES 127

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

	if (!rf_rls_is_enabled(parent))
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

/*
 * Give all tables the policy that goes by the setting; NULL: take it.  A
 * setting that was set in a transaction before is empty, not gone.
 */
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
						rf_query_format(
							"tenant_id = nullif(current_setting(%L, true), '')",
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
	set_policies(rf_store_get_whole(tenant, RF_RIGHT_OWN), setting);
	PG_RETURN_VOID();
}

Datum
rf_disable_rls(PG_FUNCTION_ARGS)
{
	char *tenant = RF_GETARG_STRING(0);

	PreventCommandIfReadOnly("rf_disable_rls()");
	rf_query_require_read_committed("rf_disable_rls()");
	set_policies(rf_store_get_whole(tenant, RF_RIGHT_OWN), NULL);
	PG_RETURN_VOID();
}
