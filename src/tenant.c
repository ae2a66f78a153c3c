/*-------------------------------------------------------------------------
 *
 * tenant.c
 *	  Tenants that have a schema each: made, listed, passed on, dropped.
 *
 * The schema of a tenant is named after it.  Names that differ can lead to one
 * schema, and the second of them is refused.  Who makes a tenant keeps others
 * from making one of that schema, by an advisory lock, so that they are told
 * who was there first.
 *
 * Dropping and passing on lock all tables of the store, from the root down, and
 * wait no longer than rillflow.lock_timeout.  A run of a policy holds a lock of
 * its own (7275, lock.c): whoever drops a tenant waits for that one as
 * long, too.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "guc.h"
#include "install.h"
#include "ledger.h"
#include "lock.h"
#include "partition.h"
#include "policy.h"
#include "query.h"
#include "store.h"

#define SCHEMA_PREFIX "tenant_"

/* key space of the advisory lock of who makes a tenant */
#define TENANT_LOCK_CLASS 7276

/* How often is looked whether the run of a policy has ended. */
#define RUN_INTERVAL_MS 20

/* How long is waited for it where rillflow.lock_timeout sets no limit. */
#define RUN_TIMEOUT_MS 10000

/*
 * Making
 */

/* The name of a tenant's schema: what is no ASCII letter or digit becomes _. */
static char *
schema_name(const char *tenant)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoString(&buf, SCHEMA_PREFIX);
	for (const char *p = tenant; *p != '\0'; p += pg_mblen(p))
	{
		if (pg_mblen(p) == 1 &&
			((*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9')))
			appendStringInfoChar(&buf, *p);
		else if (*p >= 'A' && *p <= 'Z')
			appendStringInfoChar(&buf, *p - 'A' + 'a');
		else
			appendStringInfoChar(&buf, '_');
	}
	if (buf.len >= NAMEDATALEN)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("tenant name \"%s\" is too long for a schema", tenant),
			 errdetail(
				 "A schema's name has %d bytes at most, and begins with \"%s\".",
				 NAMEDATALEN - 1, SCHEMA_PREFIX),
			 errhint("Make a schema of another name, and run rf_install().")));
	return buf.data;
}

static void
refuse_schema(const char *schema, const char *tenant)
{
	char *other = rf_store_tenant_of_schema(schema);
	char *hint = psprintf("SELECT rf_install(%s, %s)",
						  quote_literal_cstr(schema),
						  quote_literal_cstr(tenant));

	if (other != NULL && strcmp(other, tenant) == 0)
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT),
						errmsg("tenant \"%s\" already exists", tenant)));
	if (other != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("tenant \"%s\" would have the schema of tenant \"%s\"",
						tenant, other),
				 errdetail("Both names lead to schema \"%s\".", schema),
				 errhint(
					 "Make a schema of another name, and run rf_install().")));
	ereport(
		ERROR,
		(errcode(ERRCODE_DUPLICATE_SCHEMA),
		 errmsg("schema \"%s\" already exists", schema),
		 errhint(
			 "To make the tenant's store in it, or take up one that is there, run: %s",
			 hint)));
}

static void
create_tenant(const char *tenant, const char *schema)
{
	RfScope scope;

	/* signed: the number is read as that of an advisory lock of two */
	DirectFunctionCall2(pg_advisory_xact_lock_int4,
						Int32GetDatum(TENANT_LOCK_CLASS),
						UInt32GetDatum(
							hash_bytes((const unsigned char *) schema,
									   strlen(schema))));
	if (OidIsValid(get_namespace_oid(schema, true)))
		refuse_schema(schema, tenant);
	rf_install_require_free_tenant(schema, tenant);
	rf_query_begin(&scope, InvalidOid, 0);
	rf_query_ddl("CREATE SCHEMA %I", schema);
	rf_query_end(&scope);
	rf_install_create_store(get_namespace_oid(schema, false), tenant, "single");
}

/*
 * Dropping
 */

/*
 * Wait until no policy of the store runs, and keep others from beginning.  We
 * can't stop a run: it would be told when we commit.
 */
static void
wait_for_run(const RfStore *store)
{
	TimestampTz since = GetCurrentTimestamp();
	int			longest = rf_guc_lock_timeout > 0 ? rf_guc_lock_timeout :
													RUN_TIMEOUT_MS;

	while (!rf_lock_keep_runs_away(store->namespace_id))
	{
		CHECK_FOR_INTERRUPTS();
		if (TimestampDifferenceExceeds(since, GetCurrentTimestamp(), longest))
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("a policy of schema \"%s\" is running",
							store->schema),
					 errhint(
						 "Pause it with rf_policy_pause(), and try again.")));
		rf_lock_pause(RUN_INTERVAL_MS);
	}
}

/* How many events the heads of the streams have counted. */
static int64
count_heads(const RfStore *store)
{
	RfScope scope;
	int64	result;

	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	rf_query_once(
		rf_query_format("SELECT coalesce(sum(last_seq), 0)::bigint FROM %s",
						rf_store_relation_name(store->streams)),
		0, NULL, NULL, NULL);
	result = DatumGetInt64(rf_query_must(0, 1));
	rf_query_end(&scope);
	return result;
}

/* Its own ledger goes with it; so the one of the default store tells. */
static void
note_drop(const char *tenant, const char *schema, int64 events)
{
	RfStore		 *store = rf_store_in(rf_store_extension_schema(), true);
	RfLedgerEntry entry = RF_LEDGER_ENTRY("tenant dropped");
	RfScope		  scope;

	if (store == NULL)
		return;
	entry.events = events;
	entry.estimated = events > 0;
	entry.detail = psprintf("%s in %s", tenant, quote_identifier(schema));
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	rf_ledger_write(store, &entry);
	rf_query_end(&scope);
}

static void
drop_tenant(const char *tenant, bool force)
{
	RfStore *store = rf_store_get_any(tenant, RF_RIGHT_OWN);
	Oid		 namespace_id = store->namespace_id;
	char	*schema = pstrdup(store->schema);
	int64	 events;
	RfScope	 scope;

	if (store->tenant_number != 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg(
				 "tenant \"%s\" is one of a conjoined store, and cannot be dropped",
				 tenant),
			 errhint("What its events tell can go with rf_redact().")));
	if (!rf_compat_owns_schema(namespace_id, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_SCHEMA, schema);
	wait_for_run(store);
	store = rf_store_in(namespace_id, false);
	events = count_heads(store);
	rf_install_drop_store(store, force);
	rf_query_begin(&scope, InvalidOid, 0);
	rf_query_ddl("DROP SCHEMA %I", schema);
	rf_query_end(&scope);
	note_drop(tenant, schema, force ? events : 0);
	if (force && events > 0)
		ereport(WARNING,
				(errmsg("tenant \"%s\" was dropped with about " INT64_FORMAT
						" events",
						tenant, events)));
}

/*
 * Passing on
 */

static void
alter_owner(const char *kind, const char *name, const char *role)
{
	rf_query_ddl("ALTER %s %s OWNER TO %I", kind, name, role);
}

static void
alter_leaves(Oid parent, const char *role)
{
	List	 *leaves = rf_partition_list(parent);
	ListCell *cell;

	foreach(cell, leaves)
	{
		CHECK_FOR_INTERRUPTS();
		alter_owner("TABLE",
					rf_store_relation_name(
						((RfPartition *) lfirst(cell))->relid),
					role);
	}
}

/*
 * All that makes up the store, as the caller: the server asks whether it may.
 * The schema comes first where it is the store's own, since owning it makes the
 * role one that may create tables there.
 */
static void
alter_owners(const RfStore *store, const char *role)
{
	const Oid parents[] = {store->events, store->events_archive,
						   store->events_hot, store->events_cold};
	const Oid others[] = {store->streams, store->config,	store->keys,
						  store->log,	  store->consumers, store->policies,
						  store->runs,	  store->holds,		store->totals};

	if (store->namespace_id != rf_store_extension_schema() &&
		rf_compat_owns_schema(store->namespace_id, GetUserId()))
		alter_owner("SCHEMA", quote_identifier(store->schema), role);
	for (int i = 0; i < lengthof(parents); i++)
		alter_owner("TABLE", rf_store_relation_name(parents[i]), role);
	for (int i = 1; i < lengthof(parents); i++)
		alter_leaves(parents[i], role);
	for (int i = 0; i < lengthof(others); i++)
		alter_owner("TABLE", rf_store_relation_name(others[i]), role);
	alter_owner("VIEW", rf_store_relation_name(store->events_all), role);
}

static void
set_owner(RfStore *store, Oid role)
{
	char		 *name = GetUserNameFromId(role, false);
	char		 *before = GetUserNameFromId(store->owner, false);
	Oid			  namespace_id = store->namespace_id;
	RfLedgerEntry entry = RF_LEDGER_ENTRY("owner");
	RfScope		  scope;

	rf_store_require_adopted(store);
	rf_query_begin(&scope, InvalidOid, 0);
	rf_query_limit_lock_waits(rf_guc_lock_timeout);
	alter_owners(store, name);
	rf_query_end(&scope);
	store = rf_store_in(namespace_id, false);
	rf_policy_pass_on(store, before);
	entry.detail = psprintf("%s to %s", before, name);
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	rf_ledger_write(store, &entry);
	rf_query_end(&scope);
}

/*
 * Listing
 */

typedef struct ListCall
{
	Oid			   namespace_id;
	const char	  *tenant;
	const char	  *tenancy;
	ReturnSetInfo *rsinfo;
} ListCall;

/* Has the caller any right to it? */
static bool
may_see(Oid namespace_id)
{
	for (RfRight right = RF_RIGHT_APPEND; right <= RF_RIGHT_OWN; right++)
	{
		if (rf_store_allows(namespace_id, right))
			return true;
	}
	return false;
}

static Oid
schema_owner(Oid namespace_id)
{
	HeapTuple tuple = SearchSysCache1(NAMESPACEOID,
									  ObjectIdGetDatum(namespace_id));
	Oid		  result;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for schema %u", namespace_id);
	result = ((Form_pg_namespace) GETSTRUCT(tuple))->nspowner;
	ReleaseSysCache(tuple);
	return result;
}

static void
put_tenant(const ListCall *call, Oid owner, const char *state)
{
	char *schema = get_namespace_name(call->namespace_id);
	Datum values[6];
	bool  nulls[6] = {0};

	values[0] = CStringGetTextDatum(call->tenant);
	values[1] = DirectFunctionCall1(namein, CStringGetDatum(schema));
	values[2] = CStringGetTextDatum(call->tenancy);
	values[3] = DirectFunctionCall1(namein,
									CStringGetDatum(
										GetUserNameFromId(owner, false)));
	values[4] = Int32GetDatum(rf_store_layout_version(schema));
	values[5] = CStringGetTextDatum(state);
	tuplestore_putvalues(call->rsinfo->setResult, call->rsinfo->setDesc, values,
						 nulls);
}

static void
look_at_tenant(void *arg)
{
	ListCall *call = arg;
	RfStore	 *store;

	if (!may_see(call->namespace_id))
		return;
	store = rf_store_in(call->namespace_id, false);
	put_tenant(call, store->owner,
			   store->adopting ? "being adopted" : "complete");
}

/* One that is broken is for the owner of its schema to see. */
static void
list_tenant(ListCall *call)
{
	ErrorData *error;

	if (rf_query_look(look_at_tenant, call, RF_ANY_ERROR, &error))
		return;
	if (rf_compat_owns_schema(call->namespace_id, GetUserId()))
		put_tenant(call, schema_owner(call->namespace_id), error->message);
}

/* From each tenant to the next one by the index: there are few, of many
 * streams.
 */
#define LIST_TENANTS                                                 \
	"WITH RECURSIVE t AS ("                                          \
	"(SELECT tenant_id FROM %s ORDER BY tenant_id LIMIT 1)"          \
	" UNION ALL SELECT (SELECT s.tenant_id FROM %s AS s"             \
	" WHERE s.tenant_id > t.tenant_id ORDER BY s.tenant_id LIMIT 1)" \
	" FROM t WHERE t.tenant_id IS NOT NULL)"                         \
	" SELECT tenant_id FROM t WHERE tenant_id IS NOT NULL ORDER BY 1"

/*
 * The tenants that have streams in a conjoined default store, as far as the
 * caller may read those: by the query of his own that row security holds for.
 */
static void
list_conjoined(ListCall *call)
{
	RfStore	   *store = rf_store_in(rf_store_extension_schema(), true);
	const char *streams;
	RfScope		scope;
	uint64		rows;

	if (store == NULL || !store->conjoined ||
		pg_class_aclcheck(store->streams, GetUserId(), ACL_SELECT) !=
			ACLCHECK_OK)
		return;
	streams = rf_store_relation_name(store->streams);
	call->namespace_id = store->namespace_id;
	call->tenancy = "conjoined";
	rf_query_begin(&scope, InvalidOid, 0);
	rows = rf_query_once(rf_query_format(LIST_TENANTS, streams, streams), 0,
						 NULL, NULL, NULL);
	for (uint64 row = 0; row < rows; row++)
	{
		call->tenant = TextDatumGetCString(rf_query_must(row, 1));
		put_tenant(call, store->owner, "complete");
	}
	rf_query_end(&scope);
}

/*
 * SQL interface
 */

PG_FUNCTION_INFO_V1(rf_create_tenant);
PG_FUNCTION_INFO_V1(rf_drop_tenant);
PG_FUNCTION_INFO_V1(rf_tenants);
PG_FUNCTION_INFO_V1(rf_set_owner);

static char *
get_tenant(FunctionCallInfo fcinfo)
{
	char *tenant = RF_GETARG_STRING(0);

	if (tenant == NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("\"tenant\" must not be null")));
	rf_store_check_tenant(tenant);
	return tenant;
}

Datum
rf_create_tenant(PG_FUNCTION_ARGS)
{
	char *tenant = get_tenant(fcinfo);
	char *schema = schema_name(tenant);

	PreventCommandIfReadOnly("rf_create_tenant()");
	rf_query_require_read_committed("rf_create_tenant()");
	create_tenant(tenant, schema);
	return DirectFunctionCall1(namein, CStringGetDatum(schema));
}

Datum
rf_drop_tenant(PG_FUNCTION_ARGS)
{
	char *tenant = get_tenant(fcinfo);
	char *confirm = RF_GETARG_STRING(1);

	PreventCommandIfReadOnly("rf_drop_tenant()");
	rf_query_require_read_committed("rf_drop_tenant()");
	if (confirm == NULL || strcmp(tenant, confirm) != 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("\"confirm\" must repeat \"tenant\"")));
	drop_tenant(tenant, !PG_ARGISNULL(2) && PG_GETARG_BOOL(2));
	PG_RETURN_VOID();
}

Datum
rf_tenants(PG_FUNCTION_ARGS)
{
	ListCall  call = {.tenancy = "single",
					  .rsinfo = (ReturnSetInfo *) fcinfo->resultinfo};
	List	 *schemas = rf_store_schemas();
	ListCell *cell;

	InitMaterializedSRF(fcinfo, 0);
	foreach(cell, schemas)
	{
		CHECK_FOR_INTERRUPTS();
		call.namespace_id = lfirst_oid(cell);
		call.tenant = rf_store_tenant_of_schema(
			get_namespace_name(call.namespace_id));
		if (call.tenant != NULL)
			list_tenant(&call);
	}
	list_conjoined(&call);
	return (Datum) 0;
}

Datum
rf_set_owner(PG_FUNCTION_ARGS)
{
	char	*tenant = RF_GETARG_STRING(1);
	RfStore *store;

	PreventCommandIfReadOnly("rf_set_owner()");
	rf_query_require_read_committed("rf_set_owner()");
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("\"role\" must not be null")));
	store = rf_store_get_whole(tenant, RF_RIGHT_OWN);
	set_owner(store, get_role_oid(NameStr(*PG_GETARG_NAME(0)), false));
	PG_RETURN_VOID();
}
