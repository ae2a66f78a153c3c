/*-------------------------------------------------------------------------
 *
 * ledger.c
 *	  rf_archive_log: what was done, by whom, when, to how many events.
 *
 * A row is written in the transaction that it describes, so the ledger never
 * tells of what did not happen.  The table is append-only like the events;
 * rf_prune_log() alone takes old rows out, and leaves their sums behind.
 *
 * The functions here expect to be called inside a scope of the store's owner.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "ledger.h"
#include "query.h"
#include "store.h"

static const RfStatement insert_entry =
	{"INSERT INTO {log} (actor, action, stream_id, bucket_month, events,"
	 " streams, duration, detail)"
	 " VALUES (session_user, $1, $2, $3, $4, $5, $6, $7)",
	 7,
	 {TEXTOID, UUIDOID, DATEOID, INT8OID, INT8OID, INTERVALOID, TEXTOID}};

static const RfStatement insert_streams =
	{"INSERT INTO {log} (actor, action, stream_id, streams, detail)"
	 " SELECT session_user, $1, id, 1, $3 FROM unnest($2) AS id",
	 3,
	 {TEXTOID, UUIDARRAYOID, TEXTOID}};

/*
 * Old rows become one row per action, which bears their sums and the time of
 * the youngest of them.  A note that a stream was left open stays until the
 * stream has been taken care of.
 */
static const RfStatement fold_entries =
	{"WITH old AS (DELETE FROM {log} WHERE logged_at < $1"
	 " AND action <> 'left open' RETURNING *),"
	 " forgotten AS (DELETE FROM {log} AS l WHERE logged_at < $1"
	 " AND action = 'left open' AND EXISTS (SELECT FROM {log} AS n"
	 " WHERE n.stream_id = l.stream_id AND n.log_id > l.log_id"
	 " AND n.action IN ('close', 'mark', 'reactivate')))"
	 " INSERT INTO {log} (logged_at, actor, action, events, estimated, streams,"
	 " duration, detail, entries)"
	 " SELECT max(logged_at), session_user, action, sum(events),"
	 " bool_or(estimated), sum(streams), sum(duration), 'pruned', sum(entries)"
	 " FROM old GROUP BY action",
	 1,
	 {TIMESTAMPTZOID}};

static const RfStatement count_old_entries =
	{"SELECT count(*) FROM {log} WHERE logged_at < $1 AND entries = 1",
	 1,
	 {TIMESTAMPTZOID}};

static Datum
elapsed_since(TimestampTz start)
{
	return DirectFunctionCall2(timestamp_mi,
							   TimestampTzGetDatum(GetCurrentTimestamp()),
							   TimestampTzGetDatum(start));
}

void
rf_ledger_write(RfStore *store, const RfLedgerEntry *entry)
{
	Datum values[7] = {0};
	char  nulls[7];

	memset(nulls, 'n', sizeof(nulls));
	values[0] = CStringGetTextDatum(entry->action);
	nulls[0] = ' ';
	if (entry->stream_id != NULL)
	{
		values[1] = UUIDPGetDatum(entry->stream_id);
		nulls[1] = ' ';
	}
	if (!DATE_NOT_FINITE(entry->bucket_month))
	{
		values[2] = DateADTGetDatum(entry->bucket_month);
		nulls[2] = ' ';
	}
	values[3] = Int64GetDatum(entry->events);
	nulls[3] = entry->events < 0 ? 'n' : ' ';
	values[4] = Int64GetDatum(entry->streams);
	nulls[4] = entry->streams < 0 ? 'n' : ' ';
	if (entry->started_at != 0)
	{
		values[5] = elapsed_since(entry->started_at);
		nulls[5] = ' ';
	}
	if (entry->detail != NULL)
	{
		values[6] = CStringGetTextDatum(entry->detail);
		nulls[6] = ' ';
	}
	rf_query_run(rf_store_plan(store, &insert_entry), values, nulls);
}

/* A row for each of the streams. */
void
rf_ledger_write_streams(RfStore *store, const char *action,
						ArrayType *stream_ids, const char *detail)
{
	Datum values[3];

	values[0] = CStringGetTextDatum(action);
	values[1] = PointerGetDatum(stream_ids);
	values[2] = CStringGetTextDatum(detail);
	rf_query_run(rf_store_plan(store, &insert_streams), values, NULL);
}

/* Fold the rows older than the time given; returns how many there were. */
static int64
prune_log(RfStore *store, TimestampTz before)
{
	RfScope scope;
	Datum	value = TimestampTzGetDatum(before);
	int64	pruned;

	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	rf_query_run(rf_store_plan(store, &count_old_entries), &value, NULL);
	pruned = DatumGetInt64(rf_query_must(0, 1));
	if (pruned > 0)
	{
		rf_store_expect_write(store->log);
		rf_query_run(rf_store_plan(store, &fold_entries), &value, NULL);
		rf_store_expect_no_write();
	}
	rf_query_end(&scope);
	return pruned;
}

/*
 * SQL interface
 */

PG_FUNCTION_INFO_V1(rf_prune_log);

Datum
rf_prune_log(PG_FUNCTION_ARGS)
{
	char *tenant = RF_GETARG_STRING(1);

	PreventCommandIfReadOnly("rf_prune_log()");
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("\"before\" must not be null")));
	PG_RETURN_INT64(prune_log(rf_store_get(tenant, RF_RIGHT_OWN),
							  PG_GETARG_TIMESTAMPTZ(0)));
}
