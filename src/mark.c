/*-------------------------------------------------------------------------
 *
 * mark.c
 *	  What a person does to a stream: archive it, and take that back.
 *
 * Both lock the stream's row first, as strongly as can be.  Appends and
 * batches that hold it end first; those that come later find it changed.
 *
 * A reactivation brings the stream's events back as a move takes them away:
 * DELETE … RETURNING from a cold leaf feeds an INSERT, here into events, which
 * sends each to its month, and no trigger fires.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "frame.h"
#include "ledger.h"
#include "partition.h"
#include "query.h"
#include "store.h"
#include "stream.h"

#define STREAMS_COLUMNS 11

static const RfStatement mark_stream =
	{"INSERT INTO {streams} AS s"
	 " ({tenant_id,}stream_id, archived_at, archived_by, archive_reason,"
	 " retention_class) VALUES ({tenant,}$1, now(), $2, $3, 'cold')"
	 " ON CONFLICT ({tenant_id,}stream_id) DO UPDATE SET"
	 " archived_at = coalesce(s.archived_at, now()), archived_by = $2,"
	 " archive_reason = $3, retention_class = 'cold', updated_at = now()"
	 " RETURNING stream_id, tenant_id, last_seq, first_event_at, last_event_at,"
	 " archived_at, archived_by, archive_reason, retention_class, created_at,"
	 " updated_at",
	 3,
	 {UUIDOID, TEXTOID, TEXTOID}};

static const RfStatement lock_stream =
	{"SELECT first_event_at, last_event_at FROM {streams}"
	 " WHERE stream_id = $1{mine} FOR UPDATE",
	 1,
	 {UUIDOID}};

static const RfStatement restore_leaf =
	{"WITH gone AS (DELETE FROM ONLY {source} WHERE stream_id = $1{mine}"
	 " RETURNING {columns}), come AS (INSERT INTO {events}"
	 " ({columns}, retention_class) SELECT {columns}, 'hot' FROM gone"
	 " RETURNING 1) SELECT (SELECT count(*) FROM gone),"
	 " (SELECT count(*) FROM come)",
	 1,
	 {UUIDOID}};

static const RfStatement reactivate_stream =
	{"UPDATE {streams} SET archived_at = NULL, archived_by = NULL,"
	 " archive_reason = NULL, retention_class = 'hot', updated_at = now()"
	 " WHERE stream_id = $1{mine}"
	 " RETURNING stream_id, tenant_id, last_seq, first_event_at, last_event_at,"
	 " archived_at, archived_by, archive_reason, retention_class, created_at,"
	 " updated_at",
	 1,
	 {UUIDOID}};

/*
 * Marks
 */

/*
 * Archive a stream by hand.  Its row is locked first, as strongly as can be,
 * so that appends and moves in flight have ended when it is marked.
 */
static void
mark_archived(RfStore *store, const pg_uuid_t *id, const char *reason,
			  const char *archived_by, Datum *row, bool *nulls)
{
	MemoryContext context = CurrentMemoryContext;
	RfLedgerEntry entry = RF_LEDGER_ENTRY("mark");
	RfScope		  scope;
	Datum		  values[3];

	values[0] = UUIDPGetDatum(id);
	values[1] = CStringGetTextDatum(archived_by);
	values[2] = CStringGetTextDatum(reason);
	rf_frame_flush();
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	rf_query_run(rf_store_plan(store, &lock_stream), values, NULL);
	rf_query_run(rf_store_plan(store, &mark_stream), values, NULL);
	rf_query_copy_row(0, row, nulls, STREAMS_COLUMNS, context);
	entry.stream_id = id;
	entry.streams = 1;
	entry.detail = reason;
	entry.by = archived_by;
	rf_ledger_write(store, &entry);
	rf_query_end(&scope);
}

/*
 * Reactivations
 */

/* Bring a stream's events of one cold leaf back; returns how many. */
static int64
restore_from(RfStore *store, Oid leaf, Datum id)
{
	int64 gone;

	rf_query_run_untriggered(rf_store_plan_for(store, &restore_leaf, leaf,
											   InvalidOid),
							 &id, NULL);
	gone = DatumGetInt64(rf_query_must(0, 1));
	rf_partition_require_moved(gone, DatumGetInt64(rf_query_must(0, 2)), leaf);
	return gone;
}

static int64
restore_events(RfStore *store, Datum id, DateADT from, DateADT to)
{
	List	 *leaves = list_concat(rf_partition_list(store->events_archive),
								   rf_partition_list(store->events_cold));
	int64	  restored = 0;
	ListCell *cell;

	rf_partition_require_silent(store->events, true);
	rf_partition_require_all_silent(store->events_hot);
	foreach(cell, leaves)
	{
		RfPartition *leaf = lfirst(cell);

		CHECK_FOR_INTERRUPTS();
		if (leaf->lower <= to && from < leaf->upper)
		{
			rf_partition_require_silent(leaf->relid, false);
			restored += restore_from(store, leaf->relid, id);
		}
	}
	return restored;
}

/*
 * Under REPEATABLE READ the events of a move that committed after our
 * snapshot are cold, and we have not seen them.
 */
static void
require_none_left(RfStore *store, const pg_uuid_t *id)
{
	List	  *leaves = list_concat(rf_partition_list(store->events_archive),
									rf_partition_list(store->events_cold));
	Snapshot   snapshot = RegisterSnapshot(GetLatestSnapshot());
	RfStreamId stream = rf_stream_of(store, id);
	ListCell  *cell;

	foreach(cell, leaves)
	{
		RfPartition *leaf = lfirst(cell);

		if (rf_partition_holds_stream(leaf->relid, &stream, snapshot))
			ereport(ERROR, (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
							errmsg("events of stream %s were moved meanwhile",
								   rf_query_uuid_text(id)),
							errhint("Run the transaction again.")));
	}
	UnregisterSnapshot(snapshot);
}

/*
 * Take an archived stream back, with its events unless they are to stay cold.
 * Its row is locked as strongly as can be: a batch of a move that holds it
 * ends first, and one that comes later finds it active.
 */
static void
reactivate(RfStore *store, const pg_uuid_t *id, bool with_events, Datum *row,
		   bool *nulls)
{
	MemoryContext context = CurrentMemoryContext;
	RfLedgerEntry entry = RF_LEDGER_ENTRY("reactivate");
	Datum		  value = UUIDPGetDatum(id);
	RfScope		  scope;

	entry.stream_id = id;
	entry.started_at = GetCurrentTimestamp();
	entry.events = 0;
	entry.streams = 1;
	if (with_events)
		rf_store_require_adopted(store);
	rf_frame_flush();
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	if (rf_query_run(rf_store_plan(store, &lock_stream), &value, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("stream %s does not exist", rf_query_uuid_text(id))));
	if (with_events && !rf_query_null(0, 1))
	{
		TimestampTz first = DatumGetTimestampTz(rf_query_must(0, 1));
		TimestampTz last = DatumGetTimestampTz(rf_query_must(0, 2));

		/* columns may have been added while we waited for the stream */
		store = rf_store_lock_cold(store);
		entry.events = restore_events(store, value,
									  rf_partition_month_of(first),
									  rf_partition_month_of(last));
	}
	if (with_events && IsolationUsesXactSnapshot())
		require_none_left(store, id);
	rf_query_run(rf_store_plan(store, &reactivate_stream), &value, NULL);
	rf_query_copy_row(0, row, nulls, STREAMS_COLUMNS, context);
	rf_ledger_write(store, &entry);
	rf_query_end(&scope);
}

/*
 * SQL interface
 */

PG_FUNCTION_INFO_V1(rf_archive_mark);
PG_FUNCTION_INFO_V1(rf_archive_reactivate);

Datum
rf_archive_mark(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		   row[STREAMS_COLUMNS];
	bool		   nulls[STREAMS_COLUMNS];
	char		  *reason = PG_ARGISNULL(1) ? "manual mark" :
											  text_to_cstring(PG_GETARG_TEXT_PP(1));
	char *by = PG_ARGISNULL(2) ? GetUserNameFromId(GetSessionUserId(), false) :
								 text_to_cstring(PG_GETARG_TEXT_PP(2));
	char *tenant = RF_GETARG_STRING(3);

	PreventCommandIfReadOnly("rf_archive_mark()");
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("\"stream_id\" must not be null")));
	if (strcmp(by, RF_CLOSED_BY) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"archived_by\" must not be \"%s\"", RF_CLOSED_BY),
				 errhint(
					 "That name tells the streams that a move has closed.")));
	mark_archived(rf_store_get(tenant, RF_RIGHT_ARCHIVE), PG_GETARG_UUID_P(0),
				  reason, by, row, nulls);
	InitMaterializedSRF(fcinfo, 0);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, row, nulls);
	return (Datum) 0;
}


Datum
rf_archive_reactivate(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		   with_events = PG_ARGISNULL(1) || PG_GETARG_BOOL(1);
	char		  *tenant = RF_GETARG_STRING(2);
	Datum		   row[STREAMS_COLUMNS];
	bool		   nulls[STREAMS_COLUMNS];

	PreventCommandIfReadOnly("rf_archive_reactivate()");
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("\"stream_id\" must not be null")));
	reactivate(rf_store_get(tenant, RF_RIGHT_ARCHIVE), PG_GETARG_UUID_P(0),
			   with_events, row, nulls);
	InitMaterializedSRF(fcinfo, 0);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, row, nulls);
	return (Datum) 0;
}
