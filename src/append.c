/*-------------------------------------------------------------------------
 *
 * append.c
 *	  Appending events through functions.
 *
 * An append raises the head of its stream first, in one UPDATE that locks the
 * stream's row to the end of the transaction.  From then on the numbers are
 * ours, whatever others do, and the rows follow.  The head is raised as the
 * store's owner, for an appender needs no right on rf_streams; the row of
 * events is written as the caller, so that row security, the caller's
 * defaults and triggers hold for it.
 *
 * The row trigger is told that the statement is ours and leaves its rows as
 * they are.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "commands/sequence.h"
#include "common/hashfn.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"
#include "utils/timestamp.h"

#include "direct.h"
#include "frame.h"
#include "key.h"
#include "partition.h"
#include "query.h"
#include "store.h"
#include "stream.h"
#include "tenancy.h"
#include "totals.h"
#include "watermark.h"

/* An event that is to be appended; its columns in the order of the INSERT. */
#define EVENT_COLUMNS 13
#define EVENT_COLUMNS_CONJOINED 14
#define COL_GLOBAL_SEQ 0
#define COL_STREAM_ID 1
#define COL_STREAM_SEQ 2
#define COL_EVENT_TYPE 3
#define COL_BODY 4
#define COL_HEADERS 5
#define COL_CAUSATION_ID 6
#define COL_CORRELATION_ID 7
#define COL_EVENT_VERSION 8
#define COL_USER_ID 9
#define COL_IS_TOMBSTONE 10
#define COL_CREATED_AT 11
#define COL_BUCKET_MONTH 12
#define COL_TENANT_ID 13 /* bound by the statement itself */

typedef struct Event
{
	Datum values[EVENT_COLUMNS_CONJOINED];
	bool  nulls[EVENT_COLUMNS_CONJOINED];
	RfKey key;		/* key.key is NULL when it has none */
	bool  repeated; /* its key was used: nothing to append */
} Event;

/* What an append was asked to do. */
typedef struct Request
{
	pg_uuid_t *stream_id;
	Event	  *events;
	int		   count;
	int32	   expected_seq; /* -1: any */
	bool	   allow_archived;
} Request;

static const RfColumn event_columns[EVENT_COLUMNS_CONJOINED] =
	{{"global_seq", INT8OID},	 {"stream_id", UUIDOID},
	 {"stream_seq", INT4OID},	 {"event_type", TEXTOID},
	 {"body", JSONBOID},		 {"headers", JSONBOID},
	 {"causation_id", UUIDOID},	 {"correlation_id", UUIDOID},
	 {"event_version", INT4OID}, {"user_id", TEXTOID},
	 {"is_tombstone", BOOLOID},	 {"created_at", TIMESTAMPTZOID},
	 {"bucket_month", DATEOID},	 {"tenant_id", TEXTOID}};

#define EVENT_NAMES                                                      \
	"stream_id, stream_seq, event_type, body, headers, causation_id,"    \
	" correlation_id, event_version, user_id, is_tombstone, created_at," \
	" bucket_month"
#define EVENT_TYPES                                                           \
	UUIDOID, INT4OID, TEXTOID, JSONBOID, JSONBOID, UUIDOID, UUIDOID, INT4OID, \
		TEXTOID, BOOLOID, TIMESTAMPTZOID, DATEOID
#define PARAMS_12 "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12"
#define PARAMS_13 PARAMS_12 ", $13"

static const RfStatement insert_hot =
	{"INSERT INTO {events} ({tenant_id,}global_seq, " EVENT_NAMES ")"
	 " VALUES ({tenant,}" PARAMS_13 ")",
	 13,
	 {INT8OID, EVENT_TYPES}};

/* for who may not name global_seq: the column's default draws it */
static const RfStatement insert_hot_by_default =
	{"INSERT INTO {events} ({tenant_id,}" EVENT_NAMES ")"
	 " VALUES ({tenant,}" PARAMS_12 ")",
	 12,
	 {EVENT_TYPES}};

static const RfStatement insert_branch =
	{"INSERT INTO {events} ({tenant_id,}global_seq, " EVENT_NAMES ","
	 " retention_class) VALUES ({tenant,}" PARAMS_13 ", 'cold')",
	 13,
	 {INT8OID, EVENT_TYPES}};

static const RfStatement insert_branch_by_default =
	{"INSERT INTO {events} ({tenant_id,}" EVENT_NAMES ", retention_class)"
	 " VALUES ({tenant,}" PARAMS_12 ", 'cold')",
	 12,
	 {EVENT_TYPES}};

static const RfStatement insert_archive =
	{"INSERT INTO {archive} ({tenant_id,}global_seq, " EVENT_NAMES ","
	 " retention_class, migrated_at, migrated_by)"
	 " VALUES ({tenant,}" PARAMS_13 ", 'cold', now(), 'archive_redirect')",
	 13,
	 {INT8OID, EVENT_TYPES}};

/* what is no object, or has keys we do not know, is reported in C */
static const RfStatement parse_batch =
	{"SELECT 0::bigint, NULL::uuid, 0, e ->> 'type', e -> 'body',"
	 " coalesce(nullif(e -> 'headers', 'null'), '{}'),"
	 " (e ->> 'causation_id')::uuid, (e ->> 'correlation_id')::uuid,"
	 " coalesce((e ->> 'version')::integer, 1), e ->> 'user_id',"
	 " coalesce((e ->> 'is_tombstone')::boolean, false),"
	 " coalesce((e ->> 'created_at')::timestamptz, now()), NULL::date,"
	 " jsonb_typeof(e) = 'object',"
	 " CASE WHEN jsonb_typeof(e) = 'object' THEN"
	 " (SELECT min(k) FROM jsonb_object_keys(e) AS k WHERE k <> ALL ($2))"
	 " END"
	 " FROM jsonb_array_elements($1) WITH ORDINALITY AS a(e, n) ORDER BY n",
	 2,
	 {JSONBOID, TEXTARRAYOID}};

#define BATCH_IS_OBJECT 14
#define BATCH_UNKNOWN_KEY 15

static const char *const batch_keys[] = {"type",		   "body",
										 "headers",		   "causation_id",
										 "correlation_id", "version",
										 "user_id",		   "created_at",
										 "is_tombstone"};

/*
 * Checking what we are given
 */

static void
refuse_event(int number, const char *what)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					number > 0 ? errmsg("event %d %s", number, what) :
								 errmsg("the event %s", what)));
}

/* Check an event and fill in what follows from the rest. */
static void
complete_event(Event *event, const pg_uuid_t *stream_id, int number)
{
	TimestampTz created_at = DatumGetTimestampTz(event->values[COL_CREATED_AT]);
	DateADT		month = rf_partition_month_of(created_at);
	Jsonb	   *headers;

	if (event->nulls[COL_EVENT_TYPE] ||
		VARSIZE_ANY_EXHDR(DatumGetPointer(event->values[COL_EVENT_TYPE])) == 0)
		refuse_event(number, "has no type");
	if (event->nulls[COL_BODY])
		refuse_event(number, "has no body");
	headers = DatumGetJsonbP(event->values[COL_HEADERS]);
	if (!JB_ROOT_IS_OBJECT(headers))
		refuse_event(number, "has headers that are no object");
	if (TIMESTAMP_NOT_FINITE(created_at))
		ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
						errmsg("created_at of an event must be finite")));
	if (!IS_VALID_TIMESTAMP(rf_partition_start(month)))
		ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
						errmsg("timestamp out of range"),
						errdetail("The month of the event begins before.")));
	event->values[COL_STREAM_ID] = UUIDPGetDatum(stream_id);
	event->nulls[COL_STREAM_ID] = false;
	event->values[COL_BUCKET_MONTH] = DateADTGetDatum(month);
	event->nulls[COL_BUCKET_MONTH] = false;
	event->key.key = rf_key_of_headers(event->values[COL_HEADERS]);
	event->key.stream.uuid = *stream_id;
}

/* Two events of one batch must not bear one key. */
static void
check_keys_differ(const Request *request)
{
	HASHCTL ctl = {0};
	HTAB   *seen;

	if (request->count == 1)
		return;
	ctl.keysize = sizeof(uint64);
	ctl.entrysize = sizeof(uint64);
	ctl.hcxt = CurrentMemoryContext;
	seen = hash_create("Rillflow batch keys", request->count, &ctl,
					   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	for (int i = 0; i < request->count; i++)
	{
		text  *key = request->events[i].key.key;
		uint64 hash;
		bool   found;

		if (key == NULL)
			continue;
		hash = DatumGetUInt64(
			hash_any_extended((unsigned char *) VARDATA_ANY(key),
							  VARSIZE_ANY_EXHDR(key), 0));
		hash_search(seen, &hash, HASH_ENTER, &found);
		if (found)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("idempotency key \"%s\" occurs twice in the batch",
							text_to_cstring(key))));
	}
	hash_destroy(seen);
}

/*
 * Appending
 */

/* Find the events whose key was used before; returns how many are new. */
static int
find_repeats(RfStore *store, Request *request)
{
	int fresh = 0;

	for (int i = 0; i < request->count; i++)
	{
		Event *event = &request->events[i];

		if (event->key.key != NULL && !event->repeated)
			event->repeated = rf_key_find(store, &event->key);
		if (!event->repeated)
			fresh++;
	}
	return fresh;
}

static void
report_wrong_head(const Request *request, int32 head)
{
	ereport(ERROR, (errcode(ERRCODE_RF_WRONG_HEAD),
					errmsg("stream %s is not at event %d",
						   rf_query_uuid_text(request->stream_id),
						   request->expected_seq),
					errdetail("The stream is at %d.", head),
					errhint("Read the stream again, and decide again.")));
}

/*
 * Raise the head by the events that are new.  Another session may have used
 * one of their keys until we got the lock; then there are fewer of them.
 * Returns the head before them.
 */
static int32
raise_head(RfStore *store, Request *request, int *fresh, bool *to_cold)
{
	bool cold_if_archived = request->allow_archived &&
							(store->redirect_enabled ||
							 store->backend == RF_PARTITIONED);
	TimestampTz first = DT_NOEND;
	TimestampTz last = DT_NOBEGIN;
	bool		archived;
	int32		head;
	int			still_fresh;

	for (int i = 0; i < request->count; i++)
	{
		TimestampTz at = DatumGetTimestampTz(
			request->events[i].values[COL_CREATED_AT]);

		first = Min(first, at);
		last = Max(last, at);
	}
	rf_frame_flush();
	head = rf_stream_raise(store, request->stream_id, *fresh, first, last,
						   !cold_if_archived, &archived);
	still_fresh = find_repeats(store, request);
	if (still_fresh != *fresh)
		rf_stream_lower(store, request->stream_id, *fresh - still_fresh);
	head -= *fresh;
	*fresh = still_fresh;

	if (archived && !request->allow_archived && *fresh > 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_RF_STREAM_MARKED),
			 errmsg("stream %s is archived",
					rf_query_uuid_text(request->stream_id)),
			 errhint(
				 "Reactivate it with rf_archive_reactivate(), or append with allow_archived => true.")));
	if (request->expected_seq >= 0 && request->expected_seq != head &&
		*fresh > 0)
		report_wrong_head(request, head);
	*to_cold = archived && cold_if_archived;
	return head;
}

/* How the rows of an append are written. */
typedef struct Writer
{
	const RfStatement *statement;
	Oid				   target;
	Oid				   as_user;	   /* InvalidOid: the caller */
	bool			   by_default; /* the column's default draws global_seq */
} Writer;

static void
choose_writer(const RfStore *store, bool to_cold, Writer *writer)
{
	bool names_global_seq = pg_class_aclcheck(store->events, GetUserId(),
											  ACL_INSERT) == ACLCHECK_OK ||
							pg_attribute_aclcheck(store->events,
												  get_attnum(store->events,
															 "global_seq"),
												  GetUserId(),
												  ACL_INSERT) == ACLCHECK_OK;

	writer->target = store->events;
	writer->as_user = InvalidOid;
	writer->by_default = !names_global_seq;
	if (!to_cold)
		writer->statement = names_global_seq ? &insert_hot :
											   &insert_hot_by_default;
	else if (store->backend == RF_PARTITIONED)
		writer->statement = names_global_seq ? &insert_branch :
											   &insert_branch_by_default;
	else
	{
		writer->statement = &insert_archive;
		writer->target = store->events_archive;
		writer->by_default = false;
		if (check_enable_rls(store->events, InvalidOid, true) != RLS_ENABLED)
			writer->as_user = store->owner;
	}
}

static void
write_event(RfStore *store, const Writer *writer, Event *event)
{
	bool		  by_trigger = writer->target == store->events;
	int			  skip = writer->by_default ? 1 : 0;
	char		  nulls[EVENT_COLUMNS];
	RfExpectedRow row = {.stream = event->key.stream,
						 .stream_seq = DatumGetInt32(
							 event->values[COL_STREAM_SEQ]),
						 .global_seq = writer->by_default ?
										   0 :
										   DatumGetInt64(
											   event->values[COL_GLOBAL_SEQ])};

	for (int i = 0; i < EVENT_COLUMNS; i++)
		nulls[i] = event->nulls[i] ? 'n' : ' ';
	rf_store_expect_write(writer->target);
	rf_frame_expect(by_trigger ? &row : NULL);
	if (rf_query_run(rf_store_plan(store, writer->statement),
					 event->values + skip, nulls + skip) != 1 ||
		(writer->by_default && !row.arrived))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("an event was not written to \"%s\"",
						get_rel_name(writer->target)),
				 errhint("Look for a trigger or a rule that skips rows.")));
	rf_store_expect_no_write();
	rf_frame_expect(NULL);
	if (writer->by_default)
		event->values[COL_GLOBAL_SEQ] = Int64GetDatum(row.global_seq);
}

static void
write_events(RfStore *store, Request *request, int32 head, bool to_cold)
{
	RfDirect direct;
	RfScope	 scope;
	Writer	 writer;
	int	 ncolumns = store->conjoined ? EVENT_COLUMNS_CONJOINED : EVENT_COLUMNS;
	bool directly;
	bool in_scope = false;

	if (to_cold)
		store = rf_store_lock_cold(store);
	(void) rf_watermark_hold(store);
	choose_writer(store, to_cold, &writer);
	directly = !to_cold && !writer.by_default && rf_frame_none_open();
	if (directly)
		rf_direct_begin(&direct, store, event_columns, ncolumns);
	for (int i = 0; i < request->count; i++)
	{
		Event *event = &request->events[i];

		CHECK_FOR_INTERRUPTS();
		if (event->repeated)
			continue;
		event->values[COL_STREAM_SEQ] = Int32GetDatum(++head);
		event->nulls[COL_STREAM_SEQ] = event->nulls[COL_GLOBAL_SEQ] = false;
		if (!writer.by_default)
			event->values[COL_GLOBAL_SEQ] = Int64GetDatum(
				nextval_internal(store->sequence, false));
		if (!directly ||
			!rf_direct_insert(&direct,
							  DatumGetDateADT(event->values[COL_BUCKET_MONTH]),
							  event->values, event->nulls))
		{
			if (!in_scope)
				rf_query_begin(&scope, writer.as_user, 0);
			in_scope = true;
			write_event(store, &writer, event);
		}
		event->key.stream_seq = head;
		event->key.global_seq = DatumGetInt64(event->values[COL_GLOBAL_SEQ]);
	}
	/* what it has opened may live in the scope */
	if (directly)
		rf_direct_end(&direct);
	if (in_scope)
		rf_query_end(&scope);
}

static void
claim_new_keys(RfStore *store, const Request *request)
{
	RfKey *keys = palloc(sizeof(RfKey) * request->count);
	int	   count = 0;

	for (int i = 0; i < request->count; i++)
	{
		if (request->events[i].key.key != NULL && !request->events[i].repeated)
			keys[count++] = request->events[i].key;
	}
	rf_key_claim(store, keys, count);
	pfree(keys);
}

static void
notify_append(const RfStore *store, const Request *request)
{
	int64 highest = 0;

	if (!store->notify_enabled)
		return;
	for (int i = 0; i < request->count; i++)
	{
		if (!request->events[i].repeated)
			highest = Max(highest, request->events[i].key.global_seq);
	}
	Async_Notify(RF_CHANNEL,
				 psprintf("%s:" INT64_FORMAT, store->schema, highest));
}

/* The events are those of the tenant that the store is restricted to. */
static void
set_tenant(const RfStore *store, Request *request)
{
	uint32 tenant = store->tenant_number;

	for (int i = 0; i < request->count && tenant != 0; i++)
	{
		Event *event = &request->events[i];

		event->key.stream.tenant = tenant;
		event->values[COL_TENANT_ID] = rf_tenancy_datum(tenant);
		event->nulls[COL_TENANT_ID] = false;
	}
}

/* Append the events of a request, all or none. */
static void
append_events(RfStore *store, Request *request)
{
	int	  fresh;
	int32 head;
	bool  to_cold;

	check_keys_differ(request);
	set_tenant(store, request);
	if (request->allow_archived) /* its backend says where the events go */
		store = rf_store_lock_backend(store);
	fresh = find_repeats(store, request);
	if (fresh == 0)
		return;
	head = raise_head(store, request, &fresh, &to_cold);
	if (fresh == 0)
		return;
	write_events(store, request, head, to_cold);
	if (to_cold)
		rf_totals_count(store->totals, store->tenant_number,
						RF_COUNT_REDIRECTED, fresh);
	claim_new_keys(store, request);
	notify_append(store, request);
}

/* Take the events of a batch out of its JSON array. */
static void
parse_events(RfStore *store, Jsonb *array, Request *request)
{
	MemoryContext context = CurrentMemoryContext;
	Datum		  keys[lengthof(batch_keys)];
	Datum		  values[2];
	RfScope		  scope;

	for (int i = 0; i < lengthof(batch_keys); i++)
		keys[i] = CStringGetTextDatum(batch_keys[i]);
	values[0] = JsonbPGetDatum(array);
	values[1] = PointerGetDatum(
		rf_query_array(keys, lengthof(batch_keys), TEXTOID));
	rf_query_begin(&scope, InvalidOid, 0);
	request->count = rf_query_run(rf_store_plan(store, &parse_batch), values,
								  NULL);
	request->events = MemoryContextAllocExtended(context,
												 sizeof(Event) * request->count,
												 MCXT_ALLOC_HUGE |
													 MCXT_ALLOC_ZERO);
	for (int i = 0; i < request->count; i++)
	{
		Event *event = &request->events[i];
		bool   isnull;
		Datum  unknown = rf_query_value(i, BATCH_UNKNOWN_KEY, &isnull);

		if (!DatumGetBool(rf_query_must(i, BATCH_IS_OBJECT)))
			refuse_event(i + 1, "is no object");
		if (!isnull)
			ereport(
				ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("event %d has the unknown key \"%s\"", i + 1,
						TextDatumGetCString(unknown)),
				 errhint(
					 "An event has type, body, headers, causation_id, correlation_id, version, user_id, created_at and is_tombstone.")));
		rf_query_copy_row(i, event->values, event->nulls, EVENT_COLUMNS,
						  context);
	}
	rf_query_end(&scope);
	for (int i = 0; i < request->count; i++)
		complete_event(&request->events[i], request->stream_id, i + 1);
}

/*
 * SQL interface
 */

PG_FUNCTION_INFO_V1(rf_append);
PG_FUNCTION_INFO_V1(rf_append_batch);

static void
return_numbers(FunctionCallInfo fcinfo, const Request *request)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	for (int i = 0; i < request->count; i++)
	{
		Datum values[2];
		bool  nulls[2] = {false, false};

		values[0] = Int64GetDatum(request->events[i].key.global_seq);
		values[1] = Int32GetDatum(request->events[i].key.stream_seq);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
}

static void
read_request(FunctionCallInfo fcinfo, int expected, int allow, Request *request)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("\"stream_id\" must not be null")));
	request->stream_id = PG_GETARG_UUID_P(0);
	request->expected_seq = PG_ARGISNULL(expected) ? -1 :
													 PG_GETARG_INT32(expected);
	if (!PG_ARGISNULL(expected) && request->expected_seq < 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("\"expected_seq\" must not be negative"),
			 errhint(
				 "Zero expects a stream without events, null expects nothing.")));
	request->allow_archived = !PG_ARGISNULL(allow) && PG_GETARG_BOOL(allow);
}

/* An argument as a column of the event, with what stands for null. */
static void
take_argument(FunctionCallInfo fcinfo, int arg, Event *event, int column,
			  Datum otherwise, bool otherwise_null)
{
	bool isnull = PG_ARGISNULL(arg);

	event->values[column] = isnull ? otherwise : PG_GETARG_DATUM(arg);
	event->nulls[column] = isnull && otherwise_null;
}

Datum
rf_append(PG_FUNCTION_ARGS)
{
	char   *tenant = RF_GETARG_STRING(12);
	Event	event = {0};
	Request request = {.events = &event, .count = 1};

	PreventCommandIfReadOnly("rf_append()");
	read_request(fcinfo, 4, 11, &request);
	take_argument(fcinfo, 1, &event, COL_EVENT_TYPE, 0, true);
	take_argument(fcinfo, 2, &event, COL_BODY, 0, true);
	take_argument(fcinfo, 3, &event, COL_HEADERS,
				  PG_ARGISNULL(3) ?
					  DirectFunctionCall1(jsonb_in, CStringGetDatum("{}")) :
					  0,
				  false);
	take_argument(fcinfo, 5, &event, COL_CAUSATION_ID, 0, true);
	take_argument(fcinfo, 6, &event, COL_CORRELATION_ID, 0, true);
	take_argument(fcinfo, 7, &event, COL_EVENT_VERSION, Int32GetDatum(1),
				  false);
	take_argument(fcinfo, 8, &event, COL_USER_ID, 0, true);
	take_argument(fcinfo, 9, &event, COL_CREATED_AT,
				  TimestampTzGetDatum(GetCurrentTransactionStartTimestamp()),
				  false);
	take_argument(fcinfo, 10, &event, COL_IS_TOMBSTONE, BoolGetDatum(false),
				  false);
	complete_event(&event, request.stream_id, 0);
	append_events(rf_store_get(tenant, RF_RIGHT_APPEND), &request);
	return_numbers(fcinfo, &request);
	return (Datum) 0;
}

Datum
rf_append_batch(PG_FUNCTION_ARGS)
{
	char	*tenant = RF_GETARG_STRING(4);
	Request	 request = {0};
	RfStore *store;
	Jsonb	*array;

	PreventCommandIfReadOnly("rf_append_batch()");
	read_request(fcinfo, 2, 3, &request);
	array = PG_ARGISNULL(1) ? NULL : PG_GETARG_JSONB_P(1);
	if (array == NULL || !JB_ROOT_IS_ARRAY(array) || JB_ROOT_IS_SCALAR(array) ||
		JB_ROOT_COUNT(array) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"events\" must be an array of at least one event")));
	store = rf_store_get(tenant, RF_RIGHT_APPEND);
	parse_events(store, array, &request);
	append_events(store, &request);
	return_numbers(fcinfo, &request);
	return (Datum) 0;
}
