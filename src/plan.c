/*-------------------------------------------------------------------------
 *
 * plan.c
 *	  Deciding what a move takes, and in which order.
 *
 * A move goes through the hot leaves from the oldest month on, and through
 * the default partition last, so that the streams which end early are emptied
 * early.  A whole month flips; the rest, and what is not worth a flip, goes by
 * rows.  Nothing here writes or reads the clock: cut-off and time come in as
 * arguments, and what would be done can be shown without doing it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "consumer.h"
#include "flip.h"
#include "frame.h"
#include "partition.h"
#include "plan.h"
#include "query.h"
#include "store.h"
#include "stream.h"
#include "tenancy.h"

/*
 * A month of fewer events goes by rows.  A flip stops everybody for some
 * milliseconds, in which so many rows can be moved; rows stop nobody.
 */
#define FEW_EVENTS 1000

/*
 * Is a row of {source} or {hot} one that the move takes?  DUE is one that it
 * would take if no consumer had to read it first.
 */
#define DUE                                                       \
	"created_at < $1 AND ($2::uuid IS NULL OR e.stream_id = $2)"  \
	"{mine e}"                                                    \
	" AND (NOT $3::boolean OR EXISTS (SELECT FROM {streams} AS s" \
	" WHERE s.stream_id = e.stream_id{same s e}"                  \
	" AND s.archived_at IS NOT NULL))"
#define ELIGIBLE DUE " AND e.global_seq <= $4"
#define ELIGIBLE_ARGS TIMESTAMPTZOID, UUIDOID, BOOLOID, INT8OID
#define NELIGIBLE 4

static const RfStatement has_eligible =
	{"SELECT 1 FROM ONLY {source} AS e WHERE " ELIGIBLE " LIMIT 1",
	 NELIGIBLE,
	 {ELIGIBLE_ARGS}};

static const RfStatement has_held =
	{"SELECT 1 FROM ONLY {source} AS e WHERE " DUE
	 " AND e.global_seq > $4 LIMIT 1",
	 NELIGIBLE,
	 {ELIGIBLE_ARGS}};

static const RfStatement eligible_months =
	{"SELECT DISTINCT bucket_month FROM ONLY {source} AS e WHERE " ELIGIBLE,
	 NELIGIBLE,
	 {ELIGIBLE_ARGS}};

static const RfStatement estimate_leaf =
	{"SELECT greatest(CASE WHEN pg_stat_get_live_tuples($1) > 0"
	 " THEN pg_stat_get_live_tuples($1) ELSE reltuples::bigint END, 0)"
	 " FROM pg_class WHERE oid = $1",
	 1,
	 {OIDOID}};

/* a row a month: month, events, streams, bytes in proportion */
static const RfStatement plan_leaf =
	{"SELECT bucket_month, events, streams,"
	 " (pg_total_relation_size($5) * events / total)::bigint FROM"
	 " (SELECT bucket_month, count(*) FILTER (WHERE ok) AS events,"
	 " count(DISTINCT ({tenant_id,}stream_id)) FILTER (WHERE ok) AS streams,"
	 " sum(count(*)) OVER () AS total FROM"
	 " (SELECT bucket_month, stream_id{,tenant_id}, " ELIGIBLE " AS ok"
	 " FROM ONLY {source} AS e) AS r"
	 " GROUP BY bucket_month) AS m WHERE events > 0 ORDER BY bucket_month",
	 NELIGIBLE + 1,
	 {ELIGIBLE_ARGS, OIDOID}};

static const RfStatement count_streams =
	{"SELECT count(DISTINCT ({tenant_id,}stream_id)) FROM {hot} AS e"
	 " WHERE " ELIGIBLE,
	 NELIGIBLE,
	 {ELIGIBLE_ARGS}};

static const RfStatement list_candidates =
	{"SELECT stream_id, events, oldest, newest,"
	 " NOT EXISTS (SELECT FROM {hot} AS h"
	 " WHERE h.stream_id = o.stream_id{same h o}"
	 " AND (h.created_at >= $1 OR h.global_seq > $4)) FROM"
	 " (SELECT stream_id{,tenant_id}, count(*) AS events,"
	 " min(created_at) AS oldest, max(created_at) AS newest"
	 " FROM {hot} AS e WHERE " ELIGIBLE " GROUP BY stream_id{,tenant_id}"
	 " ORDER BY oldest, stream_id{,tenant_id} LIMIT $5) AS o"
	 " ORDER BY oldest, stream_id{,tenant_id}",
	 NELIGIBLE + 1,
	 {ELIGIBLE_ARGS, INT4OID}};

/*
 * Streams that a move has left open, because somebody held them when it ended,
 * and that nobody has closed, marked or reactivated since.
 */
static const RfStatement left_open =
	{"SELECT DISTINCT stream_id, {owner} FROM {log} AS l"
	 " WHERE action = 'left open' AND stream_id IS NOT NULL{mine l}"
	 " AND NOT EXISTS (SELECT FROM {log} AS n"
	 " WHERE n.stream_id = l.stream_id{same n l} AND n.log_id > l.log_id"
	 " AND n.action IN ('close', 'mark', 'reactivate'))",
	 0,
	 {0}};

/* Does a leaf hold so many events? */
static const RfStatement has_many =
	{"SELECT 1 FROM ONLY {source} OFFSET $1 LIMIT 1", 1, {INT4OID}};

/* The last month that was flipped since streams were closed for flips. */
static const RfStatement flipped_until =
	{"SELECT max(bucket_month) FROM {log} WHERE action = 'flip'"
	 " AND log_id > coalesce((SELECT max(log_id) FROM {log}"
	 " WHERE action = 'flips closed'), 0)",
	 0,
	 {0}};

/*
 * Streams that may have lost their last hot event by a flip.  In the order of
 * the primary key, since an index on last_event_at would make every append
 * dearer.  A page begins with the last of the one before, or with the nil UUID,
 * and nobody's name.
 */
#define MAY_BE_EMPTIED                                 \
	" AND archived_at IS NULL AND first_event_at < $2" \
	" AND last_event_at < $3"
#define EMPTIED_ARGS                                              \
	5,                                                            \
	{                                                             \
		UUIDOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT4OID, TEXTOID \
	}

static const RfStatement list_emptied[2] = {
	{"SELECT stream_id, NULL::text FROM {streams} WHERE stream_id >= $1" MAY_BE_EMPTIED
	 " ORDER BY stream_id LIMIT $4",
	 EMPTIED_ARGS},
	{"SELECT stream_id, tenant_id FROM {streams}"
	 " WHERE (tenant_id, stream_id) >= ($5, $1)" MAY_BE_EMPTIED
	 " ORDER BY tenant_id, stream_id LIMIT $4",
	 EMPTIED_ARGS}};

static void
bind_spec(const RfMoveSpec *spec, Datum *values, char *nulls)
{
	values[0] = TimestampTzGetDatum(spec->before);
	values[1] = UUIDPGetDatum(&spec->stream_id);
	values[2] = BoolGetDatum(spec->only_archived);
	values[3] = Int64GetDatum(spec->limit.global_seq);
	nulls[0] = nulls[2] = nulls[3] = nulls[4] = ' ';
	nulls[1] = spec->has_stream ? ' ' : 'n';
}

/*
 * The hot leaves that can hold an event which the move takes.  A move of a
 * stream that is not there is an error.
 */
List *
rf_plan_sources(RfStore *store, const RfMoveSpec *spec)
{
	List	 *leaves = rf_partition_list(store->events_hot);
	List	 *result = NIL;
	DateADT	  from = DATEVAL_NOBEGIN;
	DateADT	  to = DATEVAL_NOEND;
	ListCell *cell;

	rf_store_require_adopted(store);
	if (spec->has_stream)
	{
		RfStreamState state;

		if (store->conjoined && store->tenant_number == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"stream_id\" does not tell whose stream it is"),
					 errhint("Name the tenant, and not all of them.")));
		rf_frame_flush();
		rf_stream_read_latest(store, &spec->stream_id, &state);
		if (!state.exists)
			ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
							errmsg("stream %s does not exist",
								   rf_query_uuid_text(&spec->stream_id))));
		from = rf_partition_month_of(state.first_event_at);
		to = rf_partition_month_of(state.last_event_at);
	}
	foreach(cell, leaves)
	{
		RfPartition *leaf = lfirst(cell);

		if (rf_partition_start(leaf->lower) < spec->before &&
			leaf->lower <= to && from < leaf->upper)
			result = lappend(result, leaf);
	}
	return result;
}

/*
 * What consumers have not read
 */

/* Are all events of the leaf such that the move leaves them to a consumer? */
static bool
is_unread(const RfMoveSpec *spec, const RfPartition *source)
{
	return spec->limit.name != NULL &&
		   rf_partition_lowest(source->relid) > spec->limit.global_seq;
}

/* Is any? */
static bool
is_partly_unread(const RfMoveSpec *spec, const RfPartition *source)
{
	return spec->limit.name != NULL &&
		   rf_partition_highest(source->relid) > spec->limit.global_seq;
}

/* Does the move leave events of the leaf that are due? */
static bool
holds_due(RfStore *store, const RfMoveSpec *spec, const RfPartition *source)
{
	Datum	values[NELIGIBLE];
	char	nulls[NELIGIBLE + 1];
	RfScope scope;
	bool	found;

	if (!is_partly_unread(spec, source))
		return false;
	bind_spec(spec, values, nulls);
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	found = rf_query_run(rf_store_plan_for(store, &has_held, source->relid,
										   InvalidOid),
						 values, nulls) > 0;
	rf_query_end(&scope);
	return found;
}

/* Does a consumer keep the move from taking events that are due? */
static bool
is_held_back(RfStore *store, const RfMoveSpec *spec)
{
	List	 *sources;
	ListCell *cell;

	if (spec->limit.name == NULL)
		return false;
	sources = rf_plan_sources(store, spec);
	foreach(cell, sources)
	{
		CHECK_FOR_INTERRUPTS();
		if (holds_due(store, spec, lfirst(cell)))
			return true;
	}
	return false;
}

/* The same; and tell which one does. */
bool
rf_plan_report_held_back(RfStore *store, const RfMoveSpec *spec)
{
	if (!is_held_back(store, spec))
		return false;
	ereport(
		NOTICE,
		(errmsg("schema \"%s\": consumer \"%s\" holds events back",
				store->schema, spec->limit.name),
		 errdetail("Its checkpoint is " INT64_FORMAT ".",
				   spec->limit.global_seq),
		 errhint(
			 "They move once it has read them, or with ignore_consumers; rf_consumer_remove() removes one that is no more.")));
	return true;
}

/*
 * The months of the events that the move takes from a leaf: one at most, but
 * for the default partition.
 */
List *
rf_plan_months(RfStore *store, const RfMoveSpec *spec,
			   const RfPartition *source)
{
	bool		  one_month = rf_partition_is_month(source);
	List		 *months = NIL;
	Datum		  values[NELIGIBLE];
	char		  nulls[NELIGIBLE + 1];
	RfScope		  scope;
	uint64		  rows;
	MemoryContext context = CurrentMemoryContext;

	if (is_unread(spec, source))
		return NIL;
	bind_spec(spec, values, nulls);
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	rows = rf_query_run(rf_store_plan_for(store,
										  one_month ? &has_eligible :
													  &eligible_months,
										  source->relid, InvalidOid),
						values, nulls);
	for (uint64 i = 0; i < rows; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		months = lappend_int(months, one_month ?
										 source->lower :
										 DatumGetDateADT(rf_query_must(i, 1)));
		MemoryContextSwitchTo(old);
	}
	rf_query_end(&scope);
	return months;
}

/*
 * How a month goes
 */

static bool
leaf_has_many(RfStore *store, Oid leaf)
{
	RfScope scope;
	Datum	value = Int32GetDatum(FEW_EVENTS - 1);
	bool	result;

	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	result = rf_query_run(rf_store_plan_for(store, &has_many, leaf, InvalidOid),
						  &value, NULL) > 0;
	rf_query_end(&scope);
	return result;
}

/* Why not all of a leaf is to go; NULL: all of it is. */
static char *
partial_reason(const RfStore *store, const RfMoveSpec *spec,
			   const RfPartition *source)
{
	if (spec->has_stream)
		return "one stream";
	if (store->tenant_number != 0)
		return "one tenant";
	if (spec->only_archived)
		return "archived streams only";
	if (source->is_default)
		return "rows in the default partition";
	if (rf_partition_start(source->upper) > spec->before)
		return "the cut-off lies within the month";
	if (source->upper > rf_partition_month_of(spec->now))
		return "the month is not over";
	return NULL;
}

/* How the events of a leaf go that the move takes, and why. */
RfMethod
rf_plan_method(RfStore *store, const RfMoveSpec *spec,
			   const RfPartition *source, char **reason)
{
	RfFlipState state;

	*reason = partial_reason(store, spec, source);
	if (*reason == NULL && is_partly_unread(spec, source))
		*reason = psprintf("consumer \"%s\" has read up to " INT64_FORMAT,
						   spec->limit.name, spec->limit.global_seq);
	if (*reason != NULL)
		return RF_BY_ROWS;
	if (!leaf_has_many(store, source->relid))
	{
		*reason = "few events";
		return RF_BY_ROWS;
	}
	state = rf_flip_state(store, store->events_hot,
						  rf_store_tier_parent(store, RF_COLD), source, reason);
	if (state == RF_FLIP_RIVAL_SMALLER && spec->commits)
	{
		*reason = "the whole month, with what is cold of it";
		return RF_BY_FLIP_JOINED;
	}
	if (state != RF_FLIP_READY && state != RF_FLIP_RIVAL_SEEN)
		return RF_BY_ROWS;
	*reason = "the whole month";
	return RF_BY_FLIP;
}

/*
 * The last month that was flipped to cold since streams were closed for flips;
 * DATEVAL_NOBEGIN if there is none.
 */
DateADT
rf_plan_flipped_until(RfStore *store)
{
	RfScope scope;
	bool	isnull;
	Datum	value;

	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	rf_query_run(rf_store_plan(store, &flipped_until), NULL, NULL);
	value = rf_query_value(0, 1, &isnull);
	rf_query_end(&scope);
	return isnull ? DATEVAL_NOBEGIN : DatumGetDateADT(value);
}

/* The streams that the last statement has found, in that memory. */
static RfStreamId *
copy_streams(uint64 rows, MemoryContext context)
{
	RfStreamId *result = MemoryContextAlloc(context,
											sizeof(RfStreamId) * Max(rows, 1));

	for (uint64 row = 0; row < rows; row++)
		result[row] = rf_stream_in_row(row);
	return result;
}

/* A page of the streams that flips may have emptied, of the whole store. */
RfStreamId *
rf_plan_emptied(RfStore *store, const RfMoveSpec *spec, DateADT until,
				const RfStreamId *from, int *count)
{
	MemoryContext context = CurrentMemoryContext;
	TimestampTz	  end = rf_partition_start(rf_partition_next_month(until));
	RfStreamId	 *result;
	RfScope		  scope;
	Datum		  values[5];

	values[0] = UUIDPGetDatum(&from->uuid);
	values[1] = TimestampTzGetDatum(end);
	values[2] = TimestampTzGetDatum(Max(end, spec->before));
	values[3] = Int32GetDatum(RF_PLAN_PAGE);
	values[4] = from->tenant == 0 ? CStringGetTextDatum("") :
									rf_tenancy_datum(from->tenant);
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	*count = rf_query_run(rf_store_plan(store, &list_emptied[store->conjoined]),
						  values, NULL);
	result = copy_streams(*count, context);
	rf_query_end(&scope);
	return result;
}

/* Streams that earlier moves have left open. */
RfStreamId *
rf_plan_left_open(RfStore *store, int *count)
{
	MemoryContext context = CurrentMemoryContext;
	RfStreamId	 *result;
	RfScope		  scope;

	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	*count = rf_query_run(rf_store_plan(store, &left_open), NULL, NULL);
	result = copy_streams(*count, context);
	rf_query_end(&scope);
	return result;
}

/* About how many events there are in a leaf. */
int64
rf_plan_estimate_leaf(RfStore *store, Oid leaf)
{
	Datum	value = ObjectIdGetDatum(leaf);
	RfScope scope;
	int64	result;

	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	rf_query_run(rf_store_plan(store, &estimate_leaf), &value, NULL);
	result = DatumGetInt64(rf_query_must(0, 1));
	rf_query_end(&scope);
	return result;
}

/* About how many events a move takes, by the statistics of its leaves. */
int64
rf_plan_estimate(RfStore *store, const RfMoveSpec *spec)
{
	List	 *sources = rf_plan_sources(store, spec);
	int64	  result = 0;
	ListCell *cell;

	foreach(cell, sources)
		result += rf_plan_estimate_leaf(store,
										((RfPartition *) lfirst(cell))->relid);
	return result;
}

/*
 * Plans
 */

static uint64
run_plan(RfStore *store, const RfMoveSpec *spec, const RfPartition *source)
{
	Datum values[NELIGIBLE + 1];
	char  nulls[NELIGIBLE + 1];

	bind_spec(spec, values, nulls);
	values[NELIGIBLE] = ObjectIdGetDatum(source->relid);
	return rf_query_run(rf_store_plan_for(store, &plan_leaf, source->relid,
										  InvalidOid),
						values, nulls);
}

/*
 * Count what a move would take, in how many batches, and how many months would
 * flip, which are among the events.
 */
void
rf_plan_count(RfStore *store, const RfMoveSpec *spec, int64 *events,
			  int64 *streams, int32 *batches, int32 *flips)
{
	List	 *sources = rf_plan_sources(store, spec);
	Datum	  values[NELIGIBLE];
	char	  nulls[NELIGIBLE + 1];
	RfScope	  scope;
	ListCell *cell;

	*events = *batches = *flips = 0;
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	foreach(cell, sources)
	{
		char *reason;
		bool  by_rows = rf_plan_method(store, spec, lfirst(cell), &reason) ==
					   RF_BY_ROWS;
		uint64 rows = run_plan(store, spec, lfirst(cell));
		int64  of_leaf = 0;

		for (uint64 i = 0; i < rows; i++)
			of_leaf += DatumGetInt64(rf_query_must(i, 2));
		*events += of_leaf;
		if (by_rows)
			*batches += (of_leaf + spec->batch_size - 1) / spec->batch_size;
		else
			*flips += 1;
	}
	bind_spec(spec, values, nulls);
	rf_query_run(rf_store_plan(store, &count_streams), values, nulls);
	*streams = DatumGetInt64(rf_query_must(0, 1));
	rf_query_end(&scope);
}

static void
put_plan(RfStore *store, const RfMoveSpec *spec, ReturnSetInfo *rsinfo)
{
	List	 *sources = rf_plan_sources(store, spec);
	RfScope	  scope;
	ListCell *cell;

	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	foreach(cell, sources)
	{
		const RfPartition *source = lfirst(cell);
		char			  *reason;
		RfMethod method = rf_plan_method(store, spec, source, &reason);
		uint64	 rows = run_plan(store, spec, source);

		for (uint64 i = 0; i < rows; i++)
		{
			Datum values[7];
			bool  nulls[7] = {0};

			values[0] = rf_query_must(i, 1);
			values[1] = ObjectIdGetDatum(source->relid);
			values[2] = CStringGetTextDatum(method == RF_BY_ROWS ? "rows" :
																   "flip");
			values[3] = rf_query_must(i, 2);
			values[4] = rf_query_must(i, 3);
			values[5] = rf_query_must(i, 4);
			values[6] = CStringGetTextDatum(reason);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values,
								 nulls);
		}
	}
	rf_query_end(&scope);
}

static void
put_candidates(RfStore *store, const RfMoveSpec *spec, int max_streams,
			   ReturnSetInfo *rsinfo)
{
	Datum	values[NELIGIBLE + 1];
	char	nulls[NELIGIBLE + 1];
	RfScope scope;

	bind_spec(spec, values, nulls);
	values[NELIGIBLE] = Int32GetDatum(max_streams);
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	rf_query_into(rf_store_plan(store, &list_candidates), values, nulls,
				  rsinfo->setResult);
	rf_query_end(&scope);
}

/* What is asked of one store, or of each. */
typedef struct PlanCall
{
	RfMoveSpec	  *spec;
	int			   max_streams;
	ReturnSetInfo *rsinfo;
} PlanCall;

static void
plan_store(RfStore *store, void *arg)
{
	PlanCall   *call = arg;
	RfMoveSpec *spec = call->spec;

	rf_consumer_limit(store, spec->ignore_consumers, &spec->limit);
	put_plan(store, spec, call->rsinfo);
	(void) rf_plan_report_held_back(store, spec);
}

static void
list_store(RfStore *store, void *arg)
{
	PlanCall   *call = arg;
	RfMoveSpec *spec = call->spec;

	rf_consumer_limit(store, spec->ignore_consumers, &spec->limit);
	put_candidates(store, spec, call->max_streams, call->rsinfo);
	(void) rf_plan_report_held_back(store, spec);
}

/* The cut-off, which is the first argument of all that move or plan. */
void
rf_plan_read_before(FunctionCallInfo fcinfo, RfMoveSpec *spec)
{
	memset(spec, 0, sizeof(*spec));
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("\"before\" must not be null"),
						errhint("'infinity' takes everything.")));
	spec->before = PG_GETARG_TIMESTAMPTZ(0);
	spec->batch_size = RF_MAX_BATCH;
	spec->limit.global_seq = PG_INT64_MAX;
	spec->now = GetCurrentTimestamp();
}

/*
 * SQL interface
 */

PG_FUNCTION_INFO_V1(rf_archive_plan);
PG_FUNCTION_INFO_V1(rf_archive_candidates);

Datum
rf_archive_plan(PG_FUNCTION_ARGS)
{
	char	  *tenant = RF_GETARG_STRING(4);
	RfMoveSpec spec;
	PlanCall   call = {.spec = &spec};

	rf_plan_read_before(fcinfo, &spec);
	spec.has_stream = !PG_ARGISNULL(1);
	if (spec.has_stream)
		spec.stream_id = *PG_GETARG_UUID_P(1);
	spec.only_archived = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
	spec.ignore_consumers = !PG_ARGISNULL(3) && PG_GETARG_BOOL(3);
	spec.commits = true; /* as rf_archive_run() would do it */
	InitMaterializedSRF(fcinfo, 0);
	call.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	rf_store_each(tenant, RF_RIGHT_ARCHIVE, true, plan_store, &call);
	return (Datum) 0;
}

Datum
rf_archive_candidates(PG_FUNCTION_ARGS)
{
	char	  *tenant = RF_GETARG_STRING(4);
	RfMoveSpec spec;
	PlanCall   call = {.spec = &spec};

	rf_plan_read_before(fcinfo, &spec);
	call.max_streams = PG_ARGISNULL(1) ? 100 : PG_GETARG_INT32(1);
	if (call.max_streams < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("\"max_streams\" must not be negative")));
	spec.only_archived = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
	spec.ignore_consumers = !PG_ARGISNULL(3) && PG_GETARG_BOOL(3);
	InitMaterializedSRF(fcinfo, 0);
	call.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	rf_store_each(tenant, RF_RIGHT_ARCHIVE, true, list_store, &call);
	return (Datum) 0;
}
