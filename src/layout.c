/*-------------------------------------------------------------------------
 *
 * layout.c
 *	  Stores that an earlier version has made: what their tables look like,
 *	  brought up to date.
 *
 * The registry knows which layout each store has.  A library reads and writes
 * the older ones that it still knows, down to RF_OLDEST_LAYOUT, refuses what is
 * older until it was brought up to date, and refuses what is newer.
 *
 * A step brings the tables of a store from the layout before to that of its
 * number, by DDL, and changes nothing of an event.  After the last one the
 * store has to be complete by what this library makes, and its triggers and
 * view are made anew.  All is one transaction.
 *
 * Locks: ACCESS EXCLUSIVE on what steps alter, and on what has triggers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "compat.h"
#include "guc.h"
#include "install.h"
#include "ledger.h"
#include "query.h"
#include "store.h"

/*
 * The step to each layout.  To the first one there is nothing to alter: what
 * was made before it was released has its tables, or is refused as incomplete.
 */
typedef void (*LayoutStep)(const char *schema);

static const LayoutStep steps[RF_LAYOUT_VERSION + 1] = {
	[1] = NULL,
};

static void
require_owner(Oid namespace_id)
{
	Oid events = get_relname_relid("events", namespace_id);

	if (!OidIsValid(events))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("there is no store in schema \"%s\"",
							   get_namespace_name(namespace_id))));
	if (!rf_compat_owns_relation(events, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, "events");
}

static void
take_steps(Oid namespace_id, int from)
{
	char   *schema = get_namespace_name(namespace_id);
	RfScope scope;

	rf_query_begin(&scope,
				   rf_store_relation_owner(
					   get_relname_relid("events", namespace_id)),
				   SECURITY_RESTRICTED_OPERATION);
	rf_query_be_quiet();
	rf_query_limit_lock_waits(rf_guc_lock_timeout);
	for (int version = from + 1; version <= RF_LAYOUT_VERSION; version++)
	{
		if (steps[version] != NULL)
			steps[version](schema);
	}
	rf_query_end(&scope);
}

static void
note_upgrade(Oid namespace_id, int from)
{
	RfStore		 *store = rf_store_in(namespace_id, false);
	RfLedgerEntry entry = RF_LEDGER_ENTRY("upgrade");
	RfScope		  scope;

	entry.detail = psprintf("layout %d to %d", from, RF_LAYOUT_VERSION);
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	rf_ledger_write(store, &entry);
	rf_query_end(&scope);
}

/*
 * SQL interface
 */

PG_FUNCTION_INFO_V1(rf_upgrade_store);

Datum
rf_upgrade_store(PG_FUNCTION_ARGS)
{
	char *tenant = RF_GETARG_STRING(0);
	Oid	  namespace_id;
	int	  from;

	PreventCommandIfReadOnly("rf_upgrade_store()");
	rf_query_require_read_committed("rf_upgrade_store()");
	namespace_id = rf_store_schema_for(tenant);
	require_owner(namespace_id);
	from = Max(rf_store_layout_version(get_namespace_name(namespace_id)), 0);
	if (from < RF_LAYOUT_VERSION)
	{
		take_steps(namespace_id, from);
		rf_install_take_up_layout(namespace_id);
		note_upgrade(namespace_id, from);
	}
	else
		(void) rf_store_in(namespace_id, false); /* a newer one is refused */
	PG_RETURN_INT32(RF_LAYOUT_VERSION);
}
