/*-------------------------------------------------------------------------
 *
 * switch.c
 *	  The run-time switches of a store: rf_archive_config.
 *
 * A switch is a column of the one row of rf_archive_config, and none means
 * the defaults.  The functions here write it and the ledger; a plain UPDATE
 * does as well, since it is the trigger on the table that tells the sessions.
 * A change of the backend first converts the cold tier (flip.c), which an
 * UPDATE does not do.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "flip.h"
#include "ledger.h"
#include "query.h"
#include "store.h"

#define SET_SWITCH(column, type)                         \
	{                                                    \
		"INSERT INTO {config} (" column ") VALUES ($1)"  \
		" ON CONFLICT (singleton) DO UPDATE SET " column \
		" = excluded." column,                           \
			1,                                           \
		{                                                \
			type                                         \
		}                                                \
	}

static const RfStatement set_redirect = SET_SWITCH("redirect_enabled", BOOLOID);
static const RfStatement set_include = SET_SWITCH("include_archived_by_default",
												  BOOLOID);
static const RfStatement set_notify = SET_SWITCH("notify_enabled", BOOLOID);
static const RfStatement set_backend = SET_SWITCH("backend", TEXTOID);

static void
write_switch(RfStore *store, const RfStatement *statement, Datum value,
			 const char *detail)
{
	RfLedgerEntry entry = RF_LEDGER_ENTRY("switch");
	RfScope		  scope;

	entry.detail = detail;
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	rf_query_run(rf_store_plan(store, statement), &value, NULL);
	rf_ledger_write(store, &entry);
	rf_query_end(&scope);
}

static Datum
set_boolean(FunctionCallInfo fcinfo, const RfStatement *statement,
			const char *name)
{
	char *tenant = RF_GETARG_STRING(1);

	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("\"enabled\" must not be null")));
	write_switch(rf_store_get_whole(tenant, RF_RIGHT_OWN), statement,
				 PG_GETARG_DATUM(0),
				 psprintf("%s %s", name, PG_GETARG_BOOL(0) ? "on" : "off"));
	PG_RETURN_VOID();
}

/*
 * SQL interface
 */

PG_FUNCTION_INFO_V1(rf_archive_set_redirect);
PG_FUNCTION_INFO_V1(rf_archive_redirect_enabled);
PG_FUNCTION_INFO_V1(rf_archive_set_include_archived);
PG_FUNCTION_INFO_V1(rf_archive_set_notify);
PG_FUNCTION_INFO_V1(rf_archive_set_backend);

Datum
rf_archive_set_redirect(PG_FUNCTION_ARGS)
{
	PreventCommandIfReadOnly("rf_archive_set_redirect()");
	return set_boolean(fcinfo, &set_redirect, "redirect_enabled");
}

Datum
rf_archive_set_include_archived(PG_FUNCTION_ARGS)
{
	PreventCommandIfReadOnly("rf_archive_set_include_archived()");
	return set_boolean(fcinfo, &set_include, "include_archived_by_default");
}

Datum
rf_archive_set_notify(PG_FUNCTION_ARGS)
{
	PreventCommandIfReadOnly("rf_archive_set_notify()");
	return set_boolean(fcinfo, &set_notify, "notify_enabled");
}

Datum
rf_archive_redirect_enabled(PG_FUNCTION_ARGS)
{
	char *tenant = RF_GETARG_STRING(0);

	PG_RETURN_BOOL(rf_store_get_whole(tenant, RF_RIGHT_READ)->redirect_enabled);
}

Datum
rf_archive_set_backend(PG_FUNCTION_ARGS)
{
	char	*backend = PG_ARGISNULL(0) ? "" :
										 text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	*tenant = RF_GETARG_STRING(1);
	bool	 partitioned = strcmp(backend, "partitioned") == 0;
	RfStore *store;

	PreventCommandIfReadOnly("rf_archive_set_backend()");
	rf_query_require_read_committed("rf_archive_set_backend()");
	if (!partitioned && strcmp(backend, "dual_table") != 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("\"%s\" is not a backend", backend),
						errhint("Use \"dual_table\" or \"partitioned\".")));
	store = rf_store_get_whole(tenant, RF_RIGHT_OWN);
	rf_store_require_adopted(store);
	rf_flip_cold_tier(store, partitioned ? RF_PARTITIONED : RF_DUAL_TABLE);
	write_switch(rf_store_in(store->namespace_id, false), &set_backend,
				 CStringGetTextDatum(backend), psprintf("backend %s", backend));
	PG_RETURN_VOID();
}
