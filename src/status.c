/*-------------------------------------------------------------------------
 *
 * status.c
 *	  What stands where: rf_archive_status(), rf_partitions().
 *
 * Streams are counted, and so are the events in default partitions, which
 * should be few.  Other events are taken from the statistics, for a count of
 * them would cost what archiving saves.  No statistics tell those of a tenant
 * of a conjoined store: they are counted, stream by stream.  Of the bytes
 * nothing is his alone.
 *
 * A leaf that has rows is opened, and others are not: those who monitor stores
 * look at the status of all of them, all the time.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "consumer.h"
#include "partition.h"
#include "query.h"
#include "size.h"
#include "store.h"
#include "stream.h"

static const RfStatement count_streams_of_tenant =
	{"SELECT count(*) FILTER (WHERE archived_at IS NULL),"
	 " count(*) FILTER (WHERE archived_at IS NOT NULL) FROM {streams}"
	 " WHERE true{mine}",
	 0,
	 {0}};

/* the counters of the server where it has any, else what ANALYZE found */
static const RfStatement measure_leaf =
	{"SELECT CASE WHEN pg_stat_get_live_tuples(c.oid) > 0"
	 " OR pg_stat_get_tuples_inserted(c.oid) > 0"
	 " OR pg_stat_get_tuples_deleted(c.oid) > 0"
	 " THEN greatest(pg_stat_get_live_tuples(c.oid), 0)"
	 " ELSE greatest(c.reltuples::bigint, 0) END,"
	 " pg_total_relation_size(c.oid), (SELECT spcname FROM pg_tablespace AS t"
	 " WHERE t.oid = c.reltablespace OR (c.reltablespace = 0 AND t.oid ="
	 " (SELECT dattablespace FROM pg_database"
	 " WHERE datname = current_database())))"
	 " FROM pg_class AS c WHERE c.oid = $1",
	 1,
	 {OIDOID}};

static const RfStatement count_leaf = {"SELECT count(*) FROM ONLY {source}",
									   0,
									   {0}};

/* no index of a leaf has a tenant's events together, but for each stream's */
#define OF_TENANT                                                \
	" FROM {streams} AS s JOIN ONLY {source} AS e"               \
	" ON e.stream_id = s.stream_id{same s e}"                    \
	" WHERE s.last_event_at >= $1::timestamp AT TIME ZONE 'UTC'" \
	" AND s.first_event_at < $2::timestamp AT TIME ZONE 'UTC'{mine s}"

static const RfStatement count_of_tenant = {"SELECT count(*)" OF_TENANT,
											2,
											{DATEOID, DATEOID}};

static const RfStatement oldest_of_tenant =
	{"SELECT min(e.created_at)" OF_TENANT, 2, {DATEOID, DATEOID}};

typedef struct StatusCall
{
	ReturnSetInfo *rsinfo;
	RfFiles		  *files;
} StatusCall;

typedef struct TierStatus
{
	int64 events;
	int64 bytes;
	int64 default_events;

	TimestampTz oldest; /* DT_NOEND: of none; DT_NOBEGIN: nobody asks */
} TierStatus;

/*
 * The only value of a statement on those of a tenant's streams that have events
 * of a leaf's time.  It may be null.
 */
static Datum
ask_of_tenant(RfStore *store, const RfStatement *statement,
			  const RfPartition *leaf, bool *isnull)
{
	Datum range[2];

	range[0] = DateADTGetDatum(leaf->lower);
	range[1] = DateADTGetDatum(leaf->upper);
	rf_query_run(rf_store_plan_for(store, statement, leaf->relid, InvalidOid),
				 range, NULL);
	return rf_query_value(0, 1, isnull);
}

static int64
count_in(RfStore *store, const RfPartition *leaf)
{
	bool isnull;

	if (store->tenant_number != 0)
		return DatumGetInt64(
			ask_of_tenant(store, &count_of_tenant, leaf, &isnull));
	rf_query_run(rf_store_plan_for(store, &count_leaf, leaf->relid, InvalidOid),
				 NULL, NULL);
	return DatumGetInt64(rf_query_must(0, 1));
}

/* DT_NOEND: of none. */
static TimestampTz
oldest_in(RfStore *store, const RfPartition *leaf)
{
	bool  isnull;
	Datum value;

	if (store->tenant_number == 0)
		return rf_partition_oldest(leaf->relid);
	value = ask_of_tenant(store, &oldest_of_tenant, leaf, &isnull);
	return isnull ? DT_NOEND : DatumGetTimestampTz(value);
}

static void
add_leaf(RfStore *store, const RfPartition *leaf, RfFiles *files,
		 TierStatus *status)
{
	RfSize size;

	rf_size_of_table(files, leaf->relid, &size);
	status->bytes += size.bytes;
	if (leaf->is_default || store->tenant_number != 0)
		size.rows = size.heap > 0 ? count_in(store, leaf) : 0;
	if (leaf->is_default)
		status->default_events += size.rows;
	status->events += size.rows;
	/* that of the first month that has any; a default has rows of any month */
	if (size.heap == 0 || TIMESTAMP_IS_NOBEGIN(status->oldest) ||
		(!leaf->is_default && !TIMESTAMP_IS_NOEND(status->oldest)))
		return;
	status->oldest = Min(status->oldest, oldest_in(store, leaf));
}

static void
add_tier(RfStore *store, List *leaves, RfFiles *files, TierStatus *status)
{
	ListCell *cell;

	foreach(cell, leaves)
	{
		CHECK_FOR_INTERRUPTS();
		add_leaf(store, lfirst(cell), files, status);
	}
}

static void
count_streams(RfStore *store, int64 *active, int64 *archived)
{
	if (store->tenant_number == 0)
	{
		rf_stream_count(store, active, archived);
		return;
	}
	rf_query_run(rf_store_plan(store, &count_streams_of_tenant), NULL, NULL);
	*active = DatumGetInt64(rf_query_must(0, 1));
	*archived = DatumGetInt64(rf_query_must(0, 2));
}

static void
put_status(RfStore *store, void *arg)
{
	StatusCall	*call = arg;
	RfScope		 scope;
	TierStatus	 hot = {.oldest = DT_NOEND};
	TierStatus	 cold = {.oldest = DT_NOBEGIN};
	RfCheckpoint behind;
	List		*hot_leaves;
	List		*cold_leaves;
	int64		 active;
	int64		 archived;
	Datum		 values[14];
	bool		 nulls[14] = {0};

	store = rf_partition_list_tiers(store, &hot_leaves, &cold_leaves);
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	add_tier(store, hot_leaves, call->files, &hot);
	add_tier(store, cold_leaves, call->files, &cold);
	count_streams(store, &active, &archived);
	rf_query_end(&scope);

	values[0] = DirectFunctionCall1(namein, CStringGetDatum(store->schema));
	nulls[1] = store->tenant == NULL;
	values[1] = nulls[1] ? (Datum) 0 : CStringGetTextDatum(store->tenant);
	values[2] = CStringGetTextDatum(
		store->backend == RF_PARTITIONED ? "partitioned" : "dual_table");
	values[3] = BoolGetDatum(store->redirect_enabled);
	values[4] = Int64GetDatum(active);
	values[5] = Int64GetDatum(archived);
	values[6] = Int64GetDatum(hot.events);
	values[7] = Int64GetDatum(cold.events);
	values[8] = Int64GetDatum(hot.bytes);
	values[9] = Int64GetDatum(cold.bytes);
	values[10] = Int64GetDatum(hot.default_events + cold.default_events);
	values[11] = TimestampTzGetDatum(hot.oldest);
	nulls[11] = TIMESTAMP_IS_NOEND(hot.oldest);
	nulls[8] = nulls[9] = store->tenant_number != 0;
	/* consumers are those of the store, and so is what they have not read */
	nulls[12] = nulls[13] = store->tenant_number != 0 ||
							!rf_consumer_lags(store, &behind);
	values[12] = nulls[12] ? (Datum) 0 : CStringGetTextDatum(behind.name);
	values[13] = nulls[13] ? (Datum) 0 : TimestampTzGetDatum(behind.updated_at);
	tuplestore_putvalues(call->rsinfo->setResult, call->rsinfo->setDesc, values,
						 nulls);
}

/*
 * Partitions
 */

static void
put_partition(RfStore *store, RfTier tier, const RfPartition *leaf,
			  ReturnSetInfo *rsinfo)
{
	Datum value = ObjectIdGetDatum(leaf->relid);
	Datum values[7];
	bool  nulls[7] = {0};
	bool  is_dropped;

	/* since it was listed, or while we waited for who drops it */
	if (rf_query_run(rf_store_plan(store, &measure_leaf), &value, NULL) == 0)
		return;
	values[5] = rf_query_value(0, 2, &is_dropped);
	if (is_dropped)
		return;
	values[0] = value;
	values[1] = CStringGetTextDatum(tier == RF_HOT ? "hot" : "cold");
	values[2] = DateADTGetDatum(leaf->lower);
	values[3] = DateADTGetDatum(leaf->upper);
	nulls[2] = nulls[3] = leaf->is_default;
	values[4] = rf_query_must(0, 1);
	values[6] = rf_query_must(0, 3);
	if (leaf->is_default)
	{
		rf_query_run(rf_store_plan_for(store, &count_leaf, leaf->relid,
									   InvalidOid),
					 NULL, NULL);
		values[4] = rf_query_must(0, 1);
	}
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

static void
put_partitions(RfStore *store, RfTier tier, List *leaves, ReturnSetInfo *rsinfo)
{
	RfScope	  scope;
	ListCell *cell;

	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	foreach(cell, leaves)
	{
		CHECK_FOR_INTERRUPTS();
		put_partition(store, tier, lfirst(cell), rsinfo);
	}
	rf_query_end(&scope);
}

/*
 * SQL interface
 */

PG_FUNCTION_INFO_V1(rf_archive_status);
PG_FUNCTION_INFO_V1(rf_partitions);

Datum
rf_archive_status(PG_FUNCTION_ARGS)
{
	char	  *tenant = RF_GETARG_STRING(0);
	StatusCall call = {.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo,
					   .files = rf_size_begin()};

	InitMaterializedSRF(fcinfo, 0);
	rf_store_each(tenant, RF_RIGHT_STATUS, true, put_status, &call);
	return (Datum) 0;
}

Datum
rf_partitions(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	char		  *tenant = RF_GETARG_STRING(0);
	RfStore		  *store = rf_store_get_whole(tenant, RF_RIGHT_STATUS);
	List		  *hot;
	List		  *cold;

	InitMaterializedSRF(fcinfo, 0);
	store = rf_partition_list_tiers(store, &hot, &cold);
	put_partitions(store, RF_HOT, hot, rsinfo);
	put_partitions(store, RF_COLD, cold, rsinfo);
	return (Datum) 0;
}
