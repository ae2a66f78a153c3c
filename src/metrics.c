/*-------------------------------------------------------------------------
 *
 * metrics.c
 *	  What a store looks like from outside: rf_metrics(), rf_metrics_text().
 *
 * Who monitors asks every few seconds, of all stores, and forever.  So nothing
 * here costs in proportion to events or to the length of the ledger: counters
 * are sums that are kept (totals.c), sizes and numbers of events are those of
 * the file system and the statistics, and what is counted, or looked for, is
 * only so where it is small.
 *
 * Nothing is kept in this process, and nothing is written: each answer comes
 * from tables and catalogs as they are, on a standby, too.
 *
 * The right to it is SELECT on rf_archive_totals.  All else is read as the
 * owner of the store, so that who monitors needs no right on events.  A store
 * that can't be read is counted as such, and hides none of the others.
 *
 * Locks: ACCESS SHARE on tables of the store, let go of after each one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "catalog/pg_statistic.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "board.h"
#include "consumer.h"
#include "partition.h"
#include "policy.h"
#include "query.h"
#include "sample.h"
#include "size.h"
#include "store.h"
#include "stream.h"
#include "totals.h"

/* A table whose rows take no more bytes than that is read to be exact. */
#define SMALL (4 * 1024 * 1024)

typedef enum Family
{
	STREAMS_MARKED,
	STREAMS_REACTIVATED,
	EVENTS_MOVED,
	EVENTS_REDIRECTED,
	MOVE_BATCHES,
	MOVE_DURATION,
	FLIP_DURATION,
	EVENTS_HOT_BYTES,
	EVENTS_COLD_BYTES,
	HOT_STREAMS,
	COLD_STREAMS,
	HOT_EVENTS,
	COLD_EVENTS,
	DEFAULT_EVENTS,
	MONTHS_AHEAD,
	REDIRECT_ENABLED,
	OLDEST_HOT,
	POLICY_BACKLOG,
	POLICY_OLDEST_HOT,
	POLICY_LAST_SUCCESS,
	POLICY_LAST_RUN,
	POLICY_FAILURES,
	POLICY_FAILURES_TOTAL,
	POLICY_PAUSED,
	POLICY_ARMED,
	POLICY_RUNNING,
	POLICY_THROTTLED,
	CONSUMER_LAG,
	CONSUMER_UPDATED,
	CONSUMER_HOLDS_BACK,
	STORES,
	STORES_UNREADABLE,
	SCRAPE_DURATION,
	FAMILIES
} Family;

static const RfFamily families[FAMILIES] = {
	[STREAMS_MARKED] = {"archive_streams_marked_total", "counter",
						"Marks of streams as archived, by people."},
	[STREAMS_REACTIVATED] = {"archive_streams_reactivated_total", "counter",
							 "Reactivations of streams."},
	[EVENTS_MOVED] =
		{"archive_events_moved_total", "counter",
		 "Events that became cold, by rows or by the flip of a month; of a flip by estimate until they are counted."},
	[EVENTS_REDIRECTED] =
		{"archive_events_redirected_total", "counter",
		 "Events of archived streams that went to the cold tier at once."},
	[MOVE_BATCHES] = {"archive_move_batches_total", "counter",
					  "Batches of moves."},
	[MOVE_DURATION] = {"archive_move_duration_seconds", "histogram",
					   "How long batches of moves took."},
	[FLIP_DURATION] = {"archive_flip_duration_seconds", "histogram",
					   "How long flips of months held their locks."},
	[EVENTS_HOT_BYTES] = {"archive_events_hot_bytes", "gauge",
						  "Size of the hot tier, with indexes and TOAST."},
	[EVENTS_COLD_BYTES] = {"archive_events_cold_bytes", "gauge",
						   "Size of the cold tier, with indexes and TOAST."},
	[HOT_STREAMS] =
		{"archive_hot_streams", "gauge",
		 "Streams that are not archived; counted where rf_streams is small, else from statistics."},
	[COLD_STREAMS] =
		{"archive_cold_streams", "gauge",
		 "Streams that are archived; counted where rf_streams is small, else from statistics."},
	[HOT_EVENTS] = {"archive_hot_events", "gauge",
					"Hot events, from statistics."},
	[COLD_EVENTS] = {"archive_cold_events", "gauge",
					 "Cold events, from statistics."},
	[DEFAULT_EVENTS] =
		{"archive_default_events", "gauge",
		 "Events in default partitions; counted where these are small, else from statistics."},
	[MONTHS_AHEAD] =
		{"archive_months_ahead", "gauge",
		 "Hot months there are after the current one, without a gap."},
	[REDIRECT_ENABLED] =
		{"archive_redirect_enabled", "gauge",
		 "Do events of archived streams go to the cold tier at once?"},
	[OLDEST_HOT] =
		{"archive_oldest_hot_timestamp_seconds", "gauge",
		 "Time of the oldest hot event; in a large month, that of its first one by global_seq."},
	[POLICY_BACKLOG] =
		{"archive_policy_backlog_events", "gauge",
		 "Hot events of months that are older than the policy wants them; whole months are taken from statistics, and of the month of its cut-off the part that time tells."},
	[POLICY_OLDEST_HOT] = {"archive_policy_oldest_hot_age_seconds", "gauge",
						   "Age of the oldest hot event."},
	[POLICY_LAST_SUCCESS] = {"archive_policy_last_success_timestamp_seconds",
							 "gauge", "End of the last run that did not fail."},
	[POLICY_LAST_RUN] = {"archive_policy_last_run_timestamp_seconds", "gauge",
						 "Begin of the last run."},
	[POLICY_FAILURES] = {"archive_policy_failures", "gauge",
						 "Runs that failed, in a row until now."},
	[POLICY_FAILURES_TOTAL] = {"archive_policy_failures_total", "counter",
							   "Runs that failed, or were cut short."},
	[POLICY_PAUSED] = {"archive_policy_paused", "gauge",
					   "Is the policy paused?"},
	[POLICY_ARMED] = {"archive_policy_armed", "gauge",
					  "May the policy act in this database?"},
	[POLICY_RUNNING] = {"archive_policy_running", "gauge",
						"Does a worker run the policy now?"},
	[POLICY_THROTTLED] =
		{"archive_policy_held_back", "gauge",
		 "Does this hold the policy back now, or did it in its last run?"},
	[CONSUMER_LAG] = {"archive_consumer_lag_events", "gauge",
					  "Numbers given out that the consumer has not read."},
	[CONSUMER_UPDATED] = {"archive_consumer_updated_timestamp_seconds", "gauge",
						  "When the consumer has last advanced."},
	[CONSUMER_HOLDS_BACK] = {"archive_consumer_holds_back", "gauge",
							 "Is its checkpoint the one that no move passes?"},
	[STORES] = {"archive_stores_readable", "gauge", "Stores that were read."},
	[STORES_UNREADABLE] =
		{"archive_stores_unreadable", "gauge",
		 "Stores left out, for lack of rights or since they are broken or half restored."},
	[SCRAPE_DURATION] = {"archive_scrape_duration_seconds", "gauge",
						 "How long it took to collect these metrics."},
};

/* Labels of buckets, as long as rf_totals_bounds. */
static const char *const bucket_labels[RF_TIME_BUCKETS] = {"0.005", "0.01",
														   "0.025", "0.05",
														   "0.1",	"0.25",
														   "0.5",	"1",
														   "2.5",	"5",
														   "10",	"+Inf"};

/* What can hold a run back: how that is told on record, and its label. */
static const char *const throttles[][2] = {
	{"locks", "locks"},
	{"conflicts", "conflicts"},
	{"replica ", "replica"},
	{"slot ", "slot"},
	{"consumer ", "consumer"},
	{"window", "window"},
	{"max_runtime", "max_runtime"},
	{"default partition", "default_partition"},
	{"name of month ", "month_name"},
	{"pause", "pause"},
	{"database", "database"},
	{"cancel", "cancel"},
	{"adoption", "adoption"},
};

static const RfStatement count_streams_of_tenants =
	{"SELECT tenant_id, count(*) FILTER (WHERE archived_at IS NULL),"
	 " count(*) FILTER (WHERE archived_at IS NOT NULL) FROM {streams}"
	 " WHERE true{mine} GROUP BY 1 ORDER BY 1",
	 0,
	 {0}};

static const RfStatement count_leaf = {"SELECT count(*) FROM ONLY {source}",
									   0,
									   {0}};

static const RfStatement first_in_leaf =
	{"SELECT created_at FROM ONLY {source} ORDER BY global_seq LIMIT 1",
	 0,
	 {0}};

/* The metrics of a store, while they are collected. */
typedef struct Survey
{
	RfSamples	samples;
	TimestampTz now;
	RfFiles	   *files;
	RfStore	   *store;
	RfLabel		labels[2];	/* those of all its samples */
	TimestampTz oldest_hot; /* DT_NOEND: no hot event */
	List	   *hot_months; /* Month */
} Survey;

/* A hot month. */
typedef struct Month
{
	const RfPartition *leaf;
	RfSize			   size;
} Month;

typedef struct TierSums
{
	int64 events;
	int64 bytes;
	int64 default_events;
} TierSums;

/*
 * Samples
 */

static void
add_labelled(Survey *survey, Family family, const char *suffix,
			 const char *label, const char *value, const char *label2,
			 const char *value2, double number)
{
	RfLabel labels[RF_MAX_LABELS];
	int		count = 2;

	memcpy(labels, survey->labels, sizeof(survey->labels));
	if (label != NULL)
		labels[count++] = (RfLabel){label, value};
	if (label2 != NULL)
		labels[count++] = (RfLabel){label2, value2};
	rf_sample_add(&survey->samples, family, suffix, labels, count, number);
}

static void
add(Survey *survey, Family family, double number)
{
	add_labelled(survey, family, "", NULL, NULL, NULL, NULL, number);
}

static void
add_with(Survey *survey, Family family, const char *label, const char *value,
		 double number)
{
	add_labelled(survey, family, "", label, value, NULL, NULL, number);
}

/* Seconds since 1970. */
static double
epoch_of(TimestampTz time)
{
	return (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * (double) SECS_PER_DAY +
		   time / (double) USECS_PER_SEC;
}

/* A time; none where there is none. */
static void
add_time(Survey *survey, Family family, const char *label, const char *value,
		 TimestampTz time)
{
	if (!TIMESTAMP_NOT_FINITE(time))
		add_labelled(survey, family, "", label, value, NULL, NULL,
					 epoch_of(time));
}

/*
 * Counters
 */

static void
add_times(Survey *survey, Family family, const RfTimes *times)
{
	int64 count = 0;

	for (int i = 0; i < RF_TIME_BUCKETS; i++)
	{
		count += times->buckets[i];
		add_labelled(survey, family, "_bucket", "le", bucket_labels[i], NULL,
					 NULL, count);
	}
	add_labelled(survey, family, "_sum", NULL, NULL, NULL, NULL,
				 times->microseconds / (double) USECS_PER_SEC);
	add_labelled(survey, family, "_count", NULL, NULL, NULL, NULL, count);
}

static int64
count_times(const RfTimes *times)
{
	int64 count = 0;

	for (int i = 0; i < RF_TIME_BUCKETS; i++)
		count += times->buckets[i];
	return count;
}

/* From here on samples are those of a tenant of a conjoined store, */
static void
label_tenant(Survey *survey, const char *tenant)
{
	survey->labels[1] = (RfLabel){"tenant", tenant};
}

/* or of what the survey is of. */
static void
label_store(Survey *survey)
{
	const char *tenant = survey->store->tenant;

	survey->labels[0] = (RfLabel){"schema", survey->store->schema};
	label_tenant(survey, tenant == NULL ? "" : tenant);
}

/* What the months that flip are counted by, which are those of all tenants. */
static void
add_flip_totals(Survey *survey, const RfTotals *totals)
{
	add_with(survey, EVENTS_MOVED, "method", "flip",
			 totals->counters[RF_COUNT_FLIPPED]);
	add_times(survey, FLIP_DURATION, &totals->times[RF_TIME_FLIP]);
}

static void
add_totals(Survey *survey, const RfTotals *totals)
{
	add(survey, STREAMS_MARKED, totals->counters[RF_COUNT_MARKED]);
	add(survey, STREAMS_REACTIVATED, totals->counters[RF_COUNT_REACTIVATED]);
	add_with(survey, EVENTS_MOVED, "method", "rows",
			 totals->counters[RF_COUNT_MOVED]);
	add(survey, EVENTS_REDIRECTED, totals->counters[RF_COUNT_REDIRECTED]);
	add(survey, MOVE_BATCHES, count_times(&totals->times[RF_TIME_BATCH]));
	add_times(survey, MOVE_DURATION, &totals->times[RF_TIME_BATCH]);
}

static void
survey_totals(Survey *survey)
{
	List	 *tenants = rf_totals_read_all(survey->store->totals,
										   GetActiveSnapshot());
	ListCell *cell;

	foreach(cell, tenants)
	{
		const RfTenantTotals *tenant = lfirst(cell);

		if (tenant->tenant != 0)
			label_tenant(survey, tenant->name);
		add_totals(survey, &tenant->totals);
		if (tenant->tenant == 0)
			add_flip_totals(survey, &tenant->totals);
	}
	label_store(survey);
}

/*
 * Tiers
 */

/* The only value of a statement on a leaf, which may be null. */
static Datum
ask_leaf(RfStore *store, const RfStatement *statement, Oid leaf, bool *isnull)
{
	*isnull = true;
	if (rf_query_run(rf_store_plan_for(store, statement, leaf, InvalidOid),
					 NULL, NULL) == 0)
		return (Datum) 0;
	return rf_query_value(0, 1, isnull);
}

static void
add_leaf(Survey *survey, const RfPartition *leaf, RfSize *size, TierSums *sums)
{
	bool isnull;

	rf_size_of_table(survey->files, leaf->relid, size);
	if (leaf->is_default && size->heap == 0)
		size->rows = 0;
	else if (leaf->is_default && size->heap <= SMALL)
		size->rows = DatumGetInt64(
			ask_leaf(survey->store, &count_leaf, leaf->relid, &isnull));
	if (leaf->is_default)
		sums->default_events += size->rows;
	sums->bytes += size->bytes;
	sums->events += size->rows;
}

/* The time of the oldest event of a hot leaf, or about that. */
static void
find_oldest(Survey *survey, const Month *month)
{
	Oid	  leaf = month->leaf->relid;
	bool  isnull;
	Datum value;

	if (month->size.heap == 0 || rf_partition_lowest(leaf) == PG_INT64_MAX)
		return;
	if (month->size.heap <= SMALL)
	{
		/* by the snapshot that found events in it, or a later one */
		PushActiveSnapshot(GetLatestSnapshot());
		survey->oldest_hot = Min(survey->oldest_hot, rf_partition_oldest(leaf));
		PopActiveSnapshot();
		return;
	}
	value = ask_leaf(survey->store, &first_in_leaf, leaf, &isnull);
	if (!isnull)
		survey->oldest_hot = Min(survey->oldest_hot,
								 DatumGetTimestampTz(value));
}

static void
survey_hot(Survey *survey, List *leaves, TierSums *sums)
{
	ListCell *cell;

	foreach(cell, leaves)
	{
		Month *month = palloc(sizeof(Month));

		CHECK_FOR_INTERRUPTS();
		month->leaf = lfirst(cell);
		add_leaf(survey, month->leaf, &month->size, sums);
		survey->hot_months = lappend(survey->hot_months, month);
		/* that of the first month that has any; a default may have any */
		if (TIMESTAMP_IS_NOEND(survey->oldest_hot) || month->leaf->is_default)
			find_oldest(survey, month);
	}
}

static void
survey_cold(Survey *survey, List *leaves, TierSums *sums)
{
	ListCell *cell;

	foreach(cell, leaves)
	{
		RfSize size;

		CHECK_FOR_INTERRUPTS();
		add_leaf(survey, lfirst(cell), &size, sums);
	}
}

static int
count_months_ahead(const Survey *survey)
{
	DateADT	  month = rf_partition_month_of(survey->now);
	int		  count = 0;
	ListCell *cell;

	foreach(cell, survey->hot_months)
	{
		const RfPartition *leaf = ((Month *) lfirst(cell))->leaf;
		DateADT			   next = rf_partition_next_month(month);

		if (leaf->is_default || leaf->lower != next)
			continue;
		month = next;
		count++;
	}
	return count;
}

static void
survey_tiers(Survey *survey)
{
	TierSums hot = {0};
	TierSums cold = {0};
	List	*hot_leaves;
	List	*cold_leaves;

	survey->store = rf_partition_list_tiers(survey->store, &hot_leaves,
											&cold_leaves);
	survey_hot(survey, hot_leaves, &hot);
	survey_cold(survey, cold_leaves, &cold);
	add(survey, EVENTS_HOT_BYTES, hot.bytes);
	add(survey, EVENTS_COLD_BYTES, cold.bytes);
	add(survey, HOT_EVENTS, hot.events);
	add(survey, COLD_EVENTS, cold.events);
	add(survey, DEFAULT_EVENTS, hot.default_events + cold.default_events);
	add(survey, MONTHS_AHEAD, count_months_ahead(survey));
	add(survey, REDIRECT_ENABLED,
		survey->store->redirect_enabled ||
			survey->store->backend == RF_PARTITIONED);
	add_time(survey, OLDEST_HOT, NULL, NULL, survey->oldest_hot);
}

/*
 * Streams
 */

/* Which part of the streams is cold, as ANALYZE found; negative: unknown. */
static double
cold_fraction(Oid streams)
{
	HeapTuple tuple =
		SearchSysCache3(STATRELATTINH, ObjectIdGetDatum(streams),
						Int16GetDatum(get_attnum(streams, "retention_class")),
						BoolGetDatum(false));
	AttStatsSlot slot;
	double		 result = 0;

	if (!HeapTupleIsValid(tuple))
		return -1;
	if (get_attstatsslot(&slot, tuple, STATISTIC_KIND_MCV, InvalidOid,
						 ATTSTATSSLOT_VALUES | ATTSTATSSLOT_NUMBERS))
	{
		for (int i = 0; i < slot.nvalues; i++)
		{
			if (strcmp(TextDatumGetCString(slot.values[i]), "cold") == 0)
				result = slot.numbers[i];
		}
		free_attstatsslot(&slot);
	}
	ReleaseSysCache(tuple);
	return result;
}

static void
add_streams(Survey *survey, double hot, double cold)
{
	add(survey, HOT_STREAMS, hot);
	add(survey, COLD_STREAMS, cold);
}

static void
survey_streams_of_tenants(Survey *survey)
{
	RfStore *store = survey->store;
	uint64 count = rf_query_run(rf_store_plan(store, &count_streams_of_tenants),
								NULL, NULL);

	for (uint64 i = 0; i < count; i++)
	{
		label_tenant(survey, TextDatumGetCString(rf_query_must(i, 1)));
		add_streams(survey, DatumGetInt64(rf_query_must(i, 2)),
					DatumGetInt64(rf_query_must(i, 3)));
	}
	label_store(survey);
}

/* All streams of the store; from the statistics where there are many. */
static void
survey_streams(Survey *survey)
{
	RfStore *store = survey->store;
	RfSize	 size;
	double	 fraction = -1;
	int64	 active;
	int64	 archived;

	rf_size_of_table(survey->files, store->streams, &size);
	if (size.heap <= SMALL && store->conjoined)
	{
		survey_streams_of_tenants(survey);
		return;
	}
	if (size.heap > SMALL)
		fraction = cold_fraction(store->streams);
	if (fraction >= 0)
	{
		double cold = rint(size.rows * fraction);

		add_streams(survey, size.rows - cold, cold);
		return;
	}
	rf_stream_count(store, &active, &archived);
	add_streams(survey, active, archived);
}

/*
 * Policies
 */

/* Which part of a month lies before a time? */
static double
part_before(const RfPartition *leaf, TimestampTz before)
{
	TimestampTz lower;
	TimestampTz upper;

	if (leaf->is_default || DATE_NOT_FINITE(leaf->upper))
		return 0;
	upper = rf_partition_start(leaf->upper);
	if (upper <= before)
		return 1;
	if (DATE_NOT_FINITE(leaf->lower))
		return 0;
	lower = rf_partition_start(leaf->lower);
	return before <= lower ?
			   0 :
			   (double) (before - lower) / (double) (upper - lower);
}

static double
estimate_backlog(const Survey *survey, TimestampTz before)
{
	double	  result = 0;
	ListCell *cell;

	foreach(cell, survey->hot_months)
	{
		const Month *month = lfirst(cell);

		result += month->size.rows * part_before(month->leaf, before);
	}
	return rint(result);
}

static void
add_throttles(Survey *survey, const RfPolicyState *state)
{
	for (int i = 0; i < lengthof(throttles); i++)
	{
		const char *told = throttles[i][0];
		bool		held = state->held_back_by != NULL &&
					strncmp(state->held_back_by, told, strlen(told)) == 0;

		add_labelled(survey, POLICY_THROTTLED, "", "policy", state->policy,
					 "reason", throttles[i][1], held);
	}
}

static void
survey_policy(Survey *survey, const RfPolicyState *state)
{
	const char *name = state->policy;
	bool		running = state->unfinished &&
				   rf_board_has_run(survey->store->namespace_id, name);

	if (!state->chooses)
		add_with(survey, POLICY_BACKLOG, "policy", name,
				 estimate_backlog(survey, state->before));
	if (!TIMESTAMP_NOT_FINITE(survey->oldest_hot))
		add_with(survey, POLICY_OLDEST_HOT, "policy", name,
				 Max(survey->now - survey->oldest_hot, 0) /
					 (double) USECS_PER_SEC);
	add_time(survey, POLICY_LAST_SUCCESS, "policy", name, state->last_success);
	add_time(survey, POLICY_LAST_RUN, "policy", name, state->last_run);
	add_with(survey, POLICY_FAILURES, "policy", name, state->failures);
	add_with(survey, POLICY_FAILURES_TOTAL, "policy", name, state->failed_runs);
	add_with(survey, POLICY_PAUSED, "policy", name, state->paused);
	add_with(survey, POLICY_ARMED, "policy", name, state->armed);
	add_with(survey, POLICY_RUNNING, "policy", name, running);
	add_throttles(survey, state);
}

static void
survey_policies(Survey *survey)
{
	List	 *states;
	ListCell *cell;
	RfBook	  book;

	if (!rf_policy_open_book(survey->store->namespace_id, &book))
		return;
	states = rf_policy_states(&book, survey->now);
	foreach(cell, states)
		survey_policy(survey, lfirst(cell));
}

/*
 * Consumers
 */

static void
survey_consumers(Survey *survey)
{
	List	 *consumers = rf_consumer_list(survey->store);
	int64	  highest = rf_consumer_highest(survey->store);
	int64	  lowest = PG_INT64_MAX;
	ListCell *cell;

	foreach(cell, consumers)
		lowest = Min(lowest, ((RfCheckpoint *) lfirst(cell))->global_seq);
	foreach(cell, consumers)
	{
		const RfCheckpoint *consumer = lfirst(cell);
		int64				lag = Max(highest - consumer->global_seq, 0);

		add_with(survey, CONSUMER_LAG, "consumer", consumer->name, lag);
		add_time(survey, CONSUMER_UPDATED, "consumer", consumer->name,
				 consumer->updated_at);
		add_with(survey, CONSUMER_HOLDS_BACK, "consumer", consumer->name,
				 lag > 0 && consumer->global_seq == lowest);
	}
}

/*
 * Stores
 */

/* What there is of one tenant of a conjoined store. */
static void
survey_tenant(Survey *survey)
{
	RfStore *store = survey->store;
	RfTotals totals;
	RfSize	 size;

	rf_totals_read(store->totals, GetActiveSnapshot(), store->tenant_number,
				   &totals);
	add_totals(survey, &totals);
	rf_size_of_table(survey->files, store->streams, &size);
	if (size.heap <= SMALL)
		survey_streams_of_tenants(survey);
}

static void
survey_whole(Survey *survey)
{
	survey_totals(survey);
	survey_tiers(survey);
	survey_streams(survey);
	survey_policies(survey);
	survey_consumers(survey);
}

/* Collect the metrics of a store: all, or with an error none. */
static void
survey_store(RfStore *store, void *arg)
{
	Survey *survey = arg;
	int		before = survey->samples.count;
	RfScope scope;

	survey->store = store;
	survey->hot_months = NIL;
	survey->oldest_hot = DT_NOEND;
	label_store(survey);
	PG_TRY();
	{
		rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
		if (store->tenant_number != 0)
			survey_tenant(survey);
		else
			survey_whole(survey);
		rf_query_end(&scope);
	}
	PG_CATCH();
	{
		survey->samples.count = before;
		PG_RE_THROW();
	}
	PG_END_TRY();
}

static void
survey_all(Survey *survey)
{
	int left_out;
	int seen = rf_store_survey(RF_RIGHT_MONITOR, survey_store, survey,
							   &left_out);

	rf_sample_add(&survey->samples, STORES, "", NULL, 0, seen);
	rf_sample_add(&survey->samples, STORES_UNREADABLE, "", NULL, 0, left_out);
}

/* The metrics of the store that a tenant argument names, or of all. */
static RfSamples *
collect(const char *tenant)
{
	Survey	   *survey = palloc0(sizeof(Survey));
	TimestampTz begin = GetCurrentTimestamp();
	TimestampTz end;

	survey->now = begin;
	survey->files = rf_size_begin();
	rf_sample_init(&survey->samples, families, FAMILIES);
	if (rf_store_is_all(tenant))
		survey_all(survey);
	else
		survey_store(rf_store_get(tenant, RF_RIGHT_MONITOR), survey);
	end = GetCurrentTimestamp();
	rf_sample_add(&survey->samples, SCRAPE_DURATION, "", NULL, 0,
				  (end - begin) / (double) USECS_PER_SEC);
	return &survey->samples;
}

/*
 * SQL interface
 */

PG_FUNCTION_INFO_V1(rf_metrics);
PG_FUNCTION_INFO_V1(rf_metrics_text);

Datum
rf_metrics(PG_FUNCTION_ARGS)
{
	char *tenant = RF_GETARG_STRING(0);

	InitMaterializedSRF(fcinfo, 0);
	rf_sample_put(collect(tenant), (ReturnSetInfo *) fcinfo->resultinfo);
	return (Datum) 0;
}

Datum
rf_metrics_text(PG_FUNCTION_ARGS)
{
	char *tenant = RF_GETARG_STRING(0);

	PG_RETURN_TEXT_P(cstring_to_text(rf_sample_text(collect(tenant))));
}
