/*-------------------------------------------------------------------------
 *
 * redirect.c
 *	  The triggers on events: numbers, heads, and archived streams.
 *
 * rf_events_open		BEFORE STATEMENT	opens the statement's frame
 * rf_events_redirect_archived	BEFORE ROW	numbers a row; sends it to the
 *						cold tier when its stream is archived
 * rf_events_close		AFTER STATEMENT		raises heads, claims keys, notifies
 *
 * The row trigger runs for each row of each INSERT, so it does in memory what
 * it can: a stream's row is read once per statement, and written once, at the
 * end.  A row that is redirected is written to the cold tier at once, and the
 * trigger returns NULL, so that the INSERT does not count it.
 *
 * Idempotency keys that raw rows carry are collected, and claimed at the end
 * of the statement.
 *
 * Locks: rf_events_open holds the replay back (watermark.c), before the first
 * row draws its global_seq; the row trigger holds it back further for a row
 * that brings a number which was drawn before.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"

#include "frame.h"
#include "key.h"
#include "partition.h"
#include "query.h"
#include "store.h"
#include "tenancy.h"
#include "totals.h"
#include "watermark.h"

static const RfStatement redirect_to_archive =
	{"INSERT INTO {archive}"
	 " ({columns}, retention_class, migrated_at, migrated_by)"
	 " VALUES ({params}, 'cold', now(), 'archive_redirect')",
	 RF_COLUMN_ARGS,
	 {0}};

static const RfStatement redirect_to_branch =
	{"INSERT INTO {events} ({columns}, retention_class)"
	 " VALUES ({params}, 'cold')",
	 RF_COLUMN_ARGS,
	 {0}};

/* A row on its way: what the trigger reads of it. */
typedef struct Row
{
	RfStreamId	stream;
	int32		stream_seq; /* 0: none given */
	TimestampTz created_at;
	DateADT		bucket_month;
	int64		global_seq;
	bool		cold; /* its retention_class */
	text	   *key;
} Row;

/* A column of a row that has been taken apart as far as that. */
static inline Datum
must_get(TupleTableSlot *slot, AttrNumber attnum)
{
	if (unlikely(slot->tts_isnull[attnum - 1]))
		ereport(ERROR, (errcode(ERRCODE_NOT_NULL_VIOLATION),
						errmsg("null value in column \"%s\" of \"events\"",
							   NameStr(TupleDescAttr(slot->tts_tupleDescriptor,
													 attnum - 1)
										   ->attname))));
	return slot->tts_values[attnum - 1];
}

/* Whose is the row?  0 in a single store. */
static uint32
read_tenant(TupleTableSlot *slot, const RfLeaf *leaf)
{
	if (leaf->tenant_id == 0)
		return 0;
	if (unlikely(slot->tts_isnull[leaf->tenant_id - 1]))
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("null value in column \"%s\" of \"events\"",
						"tenant_id"),
				 errdetail("The store is that of many tenants."),
				 errhint("Insert the name of the tenant as tenant_id, too.")));
	return rf_tenancy_number_of(slot->tts_values[leaf->tenant_id - 1]);
}

static void
read_row(TupleTableSlot *slot, const RfLeaf *leaf, Row *row)
{
	bool numbered;
	text *class;

	slot_getsomeattrs(slot, leaf->last_column);
	row->stream.uuid = *DatumGetUUIDP(must_get(slot, leaf->stream_id));
	row->stream.tenant = read_tenant(slot, leaf);
	numbered = !slot->tts_isnull[leaf->stream_seq - 1];
	row->stream_seq = numbered ?
						  DatumGetInt32(must_get(slot, leaf->stream_seq)) :
						  0;
	if (numbered && row->stream_seq <= 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("stream_seq %d is not positive", row->stream_seq),
			 errhint(
				 "The first event of a stream has number 1; leave stream_seq out to get the next number.")));
	row->created_at = DatumGetTimestampTz(must_get(slot, leaf->created_at));
	row->bucket_month = DatumGetDateADT(must_get(slot, leaf->bucket_month));
	row->global_seq = DatumGetInt64(must_get(slot, leaf->global_seq));
	class = DatumGetTextPP(must_get(slot, leaf->retention_class));
	row->cold = VARSIZE_ANY_EXHDR(class) == strlen("cold") &&
				memcmp(VARDATA_ANY(class), "cold", strlen("cold")) == 0;
	row->key = rf_key_of_headers(must_get(slot, leaf->headers));
}

/* Remembers the last one: rows of a statement tend to bear one time. */
static DateADT
month_of(TimestampTz time)
{
	static TimestampTz last_time = 0; /* of January 2000, which is month 0 */
	static DateADT	   last_month = 0;

	if (time != last_time)
	{
		last_month = rf_partition_month_of(time);
		last_time = time;
	}
	return last_month;
}

/* bucket_month was filled in, and the row routed, before we could help. */
static void
check_month(const Row *row)
{
	DateADT month;

	if (TIMESTAMP_NOT_FINITE(row->created_at))
		ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
						errmsg("created_at of an event must be finite")));
	month = month_of(row->created_at);
	if (month != row->bucket_month)
	{
		char		 wanted[MAXDATELEN + 1];
		struct pg_tm tm = {0};

		j2date(month + POSTGRES_EPOCH_JDATE, &tm.tm_year, &tm.tm_mon,
			   &tm.tm_mday);
		EncodeDateOnly(&tm, USE_ISO_DATES, wanted);
		ereport(
			ERROR,
			(errcode(ERRCODE_CHECK_VIOLATION),
			 errmsg(
				 "bucket_month of an event must be the month of its created_at"),
			 errhint(
				 "Insert DATE '%s' as bucket_month too, or append with rf_append().",
				 wanted)));
	}
}

/*
 * Redirecting
 */

/* The row's values, in the order of the store's columns. */
static void
collect_values(const RfStore *store, TupleTableSlot *slot, Oid leaf,
			   AttrNumber seq_column, int32 stream_seq, Datum *values,
			   char *nulls)
{
	for (int i = 0; i < store->ncolumns; i++)
	{
		AttrNumber attnum = get_attnum(leaf, store->column_names[i]);
		bool	   isnull = false;

		if (attnum == seq_column)
			values[i] = Int32GetDatum(stream_seq);
		else
			values[i] = slot_getattr(slot, attnum, &isnull);
		nulls[i] = isnull ? 'n' : ' ';
	}
}

/*
 * Write a row to the cold tier, under the number it got.  As the store's
 * owner, but where row security applies to the caller, as the caller: a
 * policy must not be got round by archiving.
 */
static void
write_locked_cold(RfStore *store, TupleTableSlot *slot, const RfLeaf *leaf,
				  int32 stream_seq)
{
	bool branch = store->backend == RF_PARTITIONED;
	Oid	 target = branch ? store->events : store->events_archive;
	bool as_caller = check_enable_rls(store->events, InvalidOid, true) ==
					 RLS_ENABLED;
	Datum  *values = palloc(sizeof(Datum) * store->ncolumns);
	char   *nulls = palloc(store->ncolumns);
	RfScope scope;
	RfPlan	plan;

	collect_values(store, slot, leaf->relid, leaf->stream_seq, stream_seq,
				   values, nulls);
	rf_query_begin(&scope, as_caller ? InvalidOid : store->owner, 0);
	plan = rf_store_plan(store,
						 branch ? &redirect_to_branch : &redirect_to_archive);
	/* on the same table, the triggers before ours have seen the row */
	rf_store_expect_write(target);
	if ((branch ? rf_query_run_untriggered(plan, values, nulls) :
				  rf_query_run(plan, values, nulls)) != 1)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("an event of an archived stream was not written to \"%s\"",
					get_rel_name(target)),
			 errhint("Look for a trigger or a rule that skips rows.")));
	rf_store_expect_no_write();
	rf_query_end(&scope);
	pfree(values);
	pfree(nulls);
}

static void
write_cold(RfStore *store, TupleTableSlot *slot, const RfLeaf *leaf,
		   int32 stream_seq)
{
	write_locked_cold(rf_store_lock_cold(store), slot, leaf, stream_seq);
}

/* Does an archived stream's row go to the cold tier? */
static bool
goes_cold(const RfStore *store, const RfHead *head)
{
	return head->archived &&
		   (store->redirect_enabled || store->backend == RF_PARTITIONED);
}

/*
 * The row trigger
 */

/* Number a row; false when the leaf's index is to turn it down. */
static bool
number_row(RfFrame *frame, RfHead *head, const Row *row, int32 *stream_seq)
{
	RfKey key;

	*stream_seq = rf_frame_number(frame, head, row->stream_seq);
	if (*stream_seq == 0)
		return false;
	if (row->key != NULL)
	{
		key.key = row->key;
		key.stream = row->stream;
		key.stream_seq = *stream_seq;
		key.global_seq = row->global_seq;
		rf_frame_remember_key(frame, &key);
	}
	return true;
}

static HeapTuple
with_stream_seq(HeapTuple tuple, TupleDesc tupdesc, AttrNumber attnum,
				int32 stream_seq)
{
	int	  column = attnum;
	Datum value = Int32GetDatum(stream_seq);
	bool  isnull = false;

	return heap_modify_tuple_by_cols(tuple, tupdesc, 1, &column, &value,
									 &isnull);
}

/* The row as it goes on to its leaf, NULL when it went to the cold tier. */
static HeapTuple
process_row(RfFrame *frame, TriggerData *trigdata)
{
	RfStore		   *store = frame->store;
	const RfLeaf   *leaf = &frame->leaf->leaf;
	TupleTableSlot *slot = trigdata->tg_trigslot;
	RfHead		   *head;
	Row				row;
	int32			stream_seq;
	RfLanding		landing;

	read_row(slot, leaf, &row);
	if (frame->trusted)
	{
		rf_frame_arrive(frame, &row.stream, row.stream_seq, row.global_seq);
		return trigdata->tg_trigtuple;
	}
	frame->max_global_seq = Max(frame->max_global_seq, row.global_seq);
	if (row.global_seq <= frame->drawn_above)
		frame->drawn_above = rf_watermark_hold_below(store, row.global_seq);
	check_month(&row);
	if (row.cold && store->backend != RF_PARTITIONED)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg(
				 "cold events of schema \"%s\" are kept in \"events_archive\"",
				 store->schema),
			 errhint("Insert events without retention_class.")));

	head = rf_frame_head(frame, &row.stream);
	if (!number_row(frame, head, &row, &stream_seq))
		return trigdata->tg_trigtuple;
	landing = row.cold				 ? RF_LANDS_COLD :
			  goes_cold(store, head) ? RF_REDIRECTED :
									   RF_LANDS_HOT;
	if (landing == RF_REDIRECTED)
		write_cold(store, slot, leaf, stream_seq);
	rf_frame_advance(frame, head, row.created_at, landing);
	if (landing == RF_REDIRECTED)
		return NULL;
	if (row.stream_seq != 0)
		return trigdata->tg_trigtuple;
	return with_stream_seq(trigdata->tg_trigtuple, slot->tts_tupleDescriptor,
						   leaf->stream_seq, stream_seq);
}

/*
 * SQL interface
 */

PG_FUNCTION_INFO_V1(rf_events_open);
PG_FUNCTION_INFO_V1(rf_events_redirect_archived);
PG_FUNCTION_INFO_V1(rf_events_close);

static TriggerData *
require_trigger(FunctionCallInfo fcinfo, bool before, bool row)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_BY_INSERT(trigdata->tg_event) ||
		before != !!TRIGGER_FIRED_BEFORE(trigdata->tg_event) ||
		row != !!TRIGGER_FIRED_FOR_ROW(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function is a trigger of the events table of a store"),
				 errhint("rf_install() makes the triggers.")));
	return trigdata;
}

Datum
rf_events_open(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = require_trigger(fcinfo, true, false);
	Relation	 events = trigdata->tg_relation;
	bool	 trusted = rf_store_take_expected_write(RelationGetRelid(events));
	RfFrame *frame = rf_frame_open(rf_store_of_events(events), trusted);

	/* no row has been asked for yet, and so no number drawn */
	frame->drawn_above = rf_watermark_hold(frame->store);
	return PointerGetDatum(NULL);
}

Datum
rf_events_redirect_archived(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = require_trigger(fcinfo, true, true);
	Relation	 rel = trigdata->tg_relation;
	RfFrame		*frame = rf_frame_of_leaf(rel);

	if (frame == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" takes events only through \"events\"",
						RelationGetRelationName(rel)),
				 errhint("Insert into \"events\", or call rf_append().")));
	return PointerGetDatum(process_row(frame, trigdata));
}

/* Each row is one of the tenant that its stream is of. */
static void
count_redirected(const RfFrame *frame)
{
	for (const RfHead *head = frame->heads; head != NULL; head = head->next)
		rf_totals_count(frame->store->totals, head->raise.stream.tenant,
						RF_COUNT_REDIRECTED, head->redirected);
}

Datum
rf_events_close(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = require_trigger(fcinfo, false, false);
	Relation	 events = trigdata->tg_relation;
	RfFrame		*frame = rf_frame_of_events(RelationGetRelid(events));
	RfStore		*store;
	int64		 max_global_seq;
	bool		 silent;

	if (frame == NULL)
		(void) rf_store_of_events(events); /* may have more to say */
	if (frame == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("a statement on \"events\" ends that has not begun"),
				 errhint("rf_install() makes the triggers.")));
	store = frame->store;
	max_global_seq = frame->max_global_seq;
	silent = frame->trusted || !store->notify_enabled || max_global_seq == 0;
	rf_key_claim(store, frame->keys, frame->nkeys);
	count_redirected(frame);
	rf_frame_close(frame);
	if (!silent)
		Async_Notify(RF_CHANNEL, psprintf("%s:" INT64_FORMAT, store->schema,
										  max_global_seq));
	return PointerGetDatum(NULL);
}
