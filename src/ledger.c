/*-------------------------------------------------------------------------
 *
 * ledger.c
 *	  rf_archive_log: what was done, by whom, when, to how many events.
 *
 * A row is written in the transaction that it describes, so the ledger never
 * tells of what did not happen.  The table is append-only like the events;
 * rf_prune_log() alone takes old rows out, and leaves their sums behind.
 *
 * What a row tells is also added to the sums of the store (totals.c), and
 * logged when the transaction commits (report.c).
 *
 * The functions here expect to be called inside a scope of the store's owner.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "ledger.h"
#include "query.h"
#include "report.h"
#include "store.h"
#include "tenancy.h"
#include "totals.h"

/* Rows that are put into the table at a time. */
#define ROWS_AT_ONCE 200

static const RfStatement insert_entry =
	{"INSERT INTO {log} (actor, action, stream_id, tenant_id, bucket_month,"
	 " events, estimated, streams, duration, detail)"
	 " VALUES (session_user, $1, $2, $9, $3, $4, $5, $6, $7, $8)",
	 9,
	 {TEXTOID, UUIDOID, DATEOID, INT8OID, BOOLOID, INT8OID, INTERVALOID,
	  TEXTOID, TEXTOID}};

static const RfStatement insert_streams =
	{"INSERT INTO {log} (actor, action, stream_id, tenant_id, streams, detail)"
	 " SELECT session_user, $3, id, tenant_id, 1, $4"
	 " FROM unnest($1, $2) AS w(id, tenant_id)",
	 4,
	 {UUIDARRAYOID, TEXTARRAYOID, TEXTOID, TEXTOID}};

/*
 * Old rows become one row per action and tenant, which bears their sums and the
 * time of the youngest of them.  A note that a stream was left open stays until
 * the stream has been taken care of.  What was redacted, held and released
 * stays, with its reason, and so does all that is told of a stream on hold.
 * Where a flip stays, so does what came of it: it would be counted again.
 */
#define OF_FLIPS "'flip', 'flip back', 'flip counted', 'convert'"
#define IS_FOLDED                                                            \
	"logged_at < $1"                                                         \
	" AND action NOT IN ('left open', 'flips closed', 'redact', 'hold',"     \
	" 'release') AND NOT EXISTS (SELECT FROM {holds} AS h"                   \
	" WHERE (h.stream_id = l.stream_id OR h.stream_id IS NULL)"              \
	" AND (h.tenant_id = l.tenant_id OR h.tenant_id IS NULL))"               \
	" AND NOT (action ~ '^adopt ' AND log_id > coalesce((SELECT max(log_id)" \
	" FROM {log} WHERE action = 'adopt'), 0))"                               \
	" AND NOT (action IN (" OF_FLIPS ") AND log_id > coalesce("              \
	"(SELECT max(log_id) FROM {log} WHERE action = 'flips closed'), 0))"

static const RfStatement fold_entries =
	{"WITH old AS (DELETE FROM {log} AS l WHERE " IS_FOLDED " RETURNING *),"
	 " forgotten AS (DELETE FROM {log} AS l WHERE logged_at < $1"
	 " AND action = 'left open' AND EXISTS (SELECT FROM {log} AS n"
	 " WHERE n.stream_id = l.stream_id{same n l} AND n.log_id > l.log_id"
	 " AND n.action IN ('close', 'mark', 'reactivate')))"
	 " INSERT INTO {log} (logged_at, actor, action, tenant_id, events,"
	 " estimated, streams, duration, detail, entries)"
	 " SELECT max(logged_at), session_user, action, tenant_id, sum(events),"
	 " bool_or(estimated), sum(streams), sum(duration), 'pruned', sum(entries)"
	 " FROM old GROUP BY action, tenant_id",
	 1,
	 {TIMESTAMPTZOID}};

static const RfStatement count_old_entries =
	{"SELECT count(*) FROM {log} AS l WHERE " IS_FOLDED " AND entries = 1",
	 1,
	 {TIMESTAMPTZOID}};

/*
 * What becomes of an entry beside its row: lines of the log, and sums.
 */

/* What an action is called in the log, and what its detail is there. */
typedef struct LogForm
{
	const char *action;
	const char *message;
	const char *detail;
	const char *tier; /* NULL: that is not said */
	RfPace		pace;
} LogForm;

#define FORM(what, said, means) \
	.action = (what), .message = (said), .detail = (means)

static const LogForm log_forms[] = {
	{FORM("mark", "stream marked archived", "reason")},
	{FORM("reactivate", "stream reactivated", "detail")},
	{FORM("redact", "stream redacted", "reason")},
	{FORM("hold", "hold placed", "reason")},
	{FORM("release", "hold released", "reason")},
	{FORM("batch", "archive move batch", "source"), .pace = RF_BY_THE_HUNDRED},
	{FORM("flip", "month flipped", "partition"), .tier = "cold"},
	{FORM("flip back", "month flipped", "partition"), .tier = "hot"},
	{FORM("flip counted", "flipped month counted", "partition"),
	 .tier = "cold"},
	{FORM("flips closed", NULL, NULL)}, /* tells of nothing that was done */
	{FORM("convert", "month converted", "partition")},
	{FORM("switch", "switch changed", "switch")},
	{FORM("partition made", "partition made", "partition")},
	{FORM("partition dropped", "partition dropped", "partition")},
	{FORM("policy set", "policy set", "policy")},
	{FORM("policy removed", "policy removed", "policy")},
	{FORM("policy paused", "policy paused", "policy")},
	{FORM("policy resumed", "policy resumed", "policy")},
	{FORM("policy run", "policy run requested", "policy")},
	{FORM("adopt batch", "adopt batch", "checksum"), .pace = RF_BY_THE_HUNDRED},
};

static const LogForm *
log_form_of(const RfLedgerEntry *entry)
{
	static LogForm other = {.detail = "detail"};

	for (int i = 0; i < lengthof(log_forms); i++)
	{
		if (strcmp(log_forms[i].action, entry->action) == 0)
			return &log_forms[i];
	}
	other.action = other.message = entry->action;
	return &other;
}

static char *
month_text(DateADT month)
{
	int year, mon, day;

	j2date(month + POSTGRES_EPOCH_JDATE, &year, &mon, &day);
	return psprintf("%04d-%02d", year, mon);
}

/* Have the entry logged when the transaction commits. */
static void
report_entry(const RfStore *store, const RfLedgerEntry *entry,
			 int64 microseconds)
{
	const LogForm *form = log_form_of(entry);
	StringInfoData line;

	if (form->message == NULL || !rf_report_wanted(form->pace, microseconds))
		return;
	rf_report_begin(&line, form->message);
	rf_report_text(&line, "schema", store->schema);
	rf_report_text(&line, "tenant", store->tenant == NULL ? "" : store->tenant);
	if (entry->stream_id != NULL)
		rf_report_text(&line, "stream", rf_query_uuid_text(entry->stream_id));
	if (!DATE_NOT_FINITE(entry->bucket_month))
		rf_report_text(&line, "month", month_text(entry->bucket_month));
	rf_report_text(&line, "tier", form->tier);
	rf_report_number(&line, "events", entry->events);
	rf_report_number(&line, "streams",
					 entry->stream_id != NULL ? -1 : entry->streams);
	rf_report_time(&line, microseconds);
	rf_report_text(&line, "by",
				   entry->by != NULL ?
					   entry->by :
					   GetUserNameFromId(GetSessionUserId(), false));
	rf_report_text(&line, form->detail, entry->detail);
	rf_report_at_commit(&line);
	pfree(line.data);
}

/* Add the entry to the sums that the metrics are. */
static void
count_entry(const RfStore *store, const RfLedgerEntry *entry,
			int64 microseconds)
{
	const char *action = entry->action;
	bool		flips = strcmp(action, "flip") == 0;
	uint32		tenant = store->tenant_number;

	if (strcmp(action, "mark") == 0)
		rf_totals_count(store->totals, tenant, RF_COUNT_MARKED, 1);
	else if (strcmp(action, "reactivate") == 0)
		rf_totals_count(store->totals, tenant, RF_COUNT_REACTIVATED, 1);
	else if (strcmp(action, "batch") == 0)
	{
		rf_totals_count(store->totals, tenant, RF_COUNT_MOVED, entry->events);
		rf_totals_time(store->totals, tenant, RF_TIME_BATCH, microseconds);
	}
	else if (flips && entry->estimated)
		rf_totals_count_flip(store->totals, entry->events);
	else if (flips)
		rf_totals_count(store->totals, tenant, RF_COUNT_MOVED, entry->events);
	if (flips || strcmp(action, "flip back") == 0)
		rf_totals_time(store->totals, tenant, RF_TIME_FLIP, microseconds);
}

static Datum
interval_of(TimestampTz start, int64 microseconds)
{
	return DirectFunctionCall2(timestamp_mi,
							   TimestampTzGetDatum(start + microseconds),
							   TimestampTzGetDatum(start));
}

void
rf_ledger_write(RfStore *store, const RfLedgerEntry *entry)
{
	int64 microseconds = entry->started_at == 0 ?
							 -1 :
							 GetCurrentTimestamp() - entry->started_at;
	Datum values[9] = {0};
	char  nulls[9];

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
	values[4] = BoolGetDatum(entry->estimated);
	nulls[4] = ' ';
	values[5] = Int64GetDatum(entry->streams);
	nulls[5] = entry->streams < 0 ? 'n' : ' ';
	if (entry->started_at != 0)
	{
		values[6] = interval_of(entry->started_at, microseconds);
		nulls[6] = ' ';
	}
	if (entry->detail != NULL)
	{
		values[7] = CStringGetTextDatum(entry->detail);
		nulls[7] = ' ';
	}
	if (store->tenant_number != 0)
	{
		values[8] = rf_tenancy_datum(store->tenant_number);
		nulls[8] = ' ';
	}
	rf_query_run(rf_store_plan(store, &insert_entry), values, nulls);
	count_entry(store, entry, microseconds);
	report_entry(store, entry, microseconds);
}

/*
 * Rows for many streams
 */

/* Columns that a row of a stream fills; the others have their defaults. */
typedef enum StreamColumn
{
	COLUMN_ACTOR,
	COLUMN_ACTION,
	COLUMN_STREAM_ID,
	COLUMN_TENANT_ID,
	COLUMN_STREAMS,
	COLUMN_DETAIL
} StreamColumn;

static const struct
{
	const char *name;
	Oid			type;
} stream_columns[] = {
	[COLUMN_ACTOR] = {"actor", TEXTOID},
	[COLUMN_ACTION] = {"action", TEXTOID},
	[COLUMN_STREAM_ID] = {"stream_id", UUIDOID},
	[COLUMN_TENANT_ID] = {"tenant_id", TEXTOID},
	[COLUMN_STREAMS] = {"streams", INT8OID},
	[COLUMN_DETAIL] = {"detail", TEXTOID},
};

/* Are the columns what we make values for, so that nothing is to be cast? */
static bool
columns_suffice(Relation rel)
{
	for (int i = 0; i < lengthof(stream_columns); i++)
	{
		AttrNumber attnum = get_attnum(RelationGetRelid(rel),
									   stream_columns[i].name);

		if (attnum <= 0 ||
			TupleDescAttr(RelationGetDescr(rel), attnum - 1)->atttypid !=
				stream_columns[i].type)
			return false;
	}
	return true;
}

/* Can rows be put into the ledger without the executor? */
static bool
heap_suffices(Relation rel)
{
	TriggerDesc *triggers = rel->trigdesc;
	TupleDesc	 tupdesc = RelationGetDescr(rel);

	if (rel->rd_rel->relkind != RELKIND_RELATION || rel->rd_rules != NULL ||
		rel->rd_rel->relforcerowsecurity || !columns_suffice(rel) ||
		(tupdesc->constr != NULL && tupdesc->constr->has_generated_stored))
		return false;
	return triggers == NULL || !(triggers->trig_insert_before_row ||
								 triggers->trig_insert_after_row ||
								 triggers->trig_insert_before_statement ||
								 triggers->trig_insert_after_statement);
}

/* Rows that differ in the stream alone, and whose it is. */
typedef struct StreamRows
{
	Relation		rel;
	EState		   *estate;
	ResultRelInfo  *result;
	Datum		   *values; /* of each column that is the same in all */
	bool		   *given;
	ExprState	  **defaults; /* of the others; NULL: none */
	AttrNumber		stream_id;
	AttrNumber		tenant_id;
	TupleTableSlot *slots[ROWS_AT_ONCE];
	int				nslots;
	int				nrows;
} StreamRows;

static void
give(StreamRows *rows, StreamColumn column, Datum value)
{
	AttrNumber attnum = get_attnum(RelationGetRelid(rows->rel),
								   stream_columns[column].name);

	rows->values[attnum - 1] = value;
	rows->given[attnum - 1] = true;
	if (column == COLUMN_STREAM_ID)
		rows->stream_id = attnum;
	if (column == COLUMN_TENANT_ID)
		rows->tenant_id = attnum;
}

static void
prepare_defaults(StreamRows *rows)
{
	TupleDesc tupdesc = RelationGetDescr(rows->rel);

	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);
		Node			 *value;

		if (att->attisdropped || att->attgenerated != '\0' || rows->given[i])
			continue;
		value = build_column_default(rows->rel, i + 1);
		if (value != NULL)
			rows->defaults[i] = ExecPrepareExpr((Expr *) value, rows->estate);
	}
}

static void
begin_rows(StreamRows *rows, Relation rel, const char *action,
		   const char *detail)
{
	int natts = RelationGetDescr(rel)->natts;

	memset(rows, 0, sizeof(*rows));
	rows->rel = rel;
	rows->estate = CreateExecutorState();
	rows->result = makeNode(ResultRelInfo);
	InitResultRelInfo(rows->result, rel, 0, NULL, 0);
	ExecOpenIndices(rows->result, false);
	rows->values = palloc0(sizeof(Datum) * natts);
	rows->given = palloc0(sizeof(bool) * natts);
	rows->defaults = palloc0(sizeof(ExprState *) * natts);
	give(rows, COLUMN_ACTOR,
		 CStringGetTextDatum(GetUserNameFromId(GetSessionUserId(), false)));
	give(rows, COLUMN_ACTION, CStringGetTextDatum(action));
	give(rows, COLUMN_STREAM_ID, (Datum) 0);
	give(rows, COLUMN_TENANT_ID, (Datum) 0);
	give(rows, COLUMN_STREAMS, Int64GetDatum(1));
	give(rows, COLUMN_DETAIL, CStringGetTextDatum(detail));
	prepare_defaults(rows);
}

static void
flush_rows(StreamRows *rows)
{
	if (rows->nrows == 0)
		return;
	table_multi_insert(rows->rel, rows->slots, rows->nrows,
					   GetCurrentCommandId(true), 0, NULL);
	for (int i = 0; i < rows->nrows; i++)
	{
		rf_compat_insert_index_entries(rows->result, rows->slots[i],
									   rows->estate, false, TU_None);
		ExecClearTuple(rows->slots[i]);
		ResetPerTupleExprContext(rows->estate);
	}
	rows->nrows = 0;
}

static void
add_row(StreamRows *rows, const RfStreamId *stream)
{
	ExprContext	   *context = GetPerTupleExprContext(rows->estate);
	TupleDesc		tupdesc = RelationGetDescr(rows->rel);
	TupleTableSlot *slot;

	if (rows->nrows == rows->nslots)
		rows->slots[rows->nslots++] = table_slot_create(rows->rel, NULL);
	slot = rows->slots[rows->nrows++];
	for (int i = 0; i < tupdesc->natts; i++)
	{
		slot->tts_values[i] = rows->values[i];
		slot->tts_isnull[i] = !rows->given[i];
		if (rows->defaults[i] != NULL)
			slot->tts_values[i] =
				ExecEvalExprSwitchContext(rows->defaults[i], context,
										  &slot->tts_isnull[i]);
	}
	slot->tts_values[rows->stream_id - 1] = UUIDPGetDatum(&stream->uuid);
	slot->tts_isnull[rows->tenant_id - 1] = stream->tenant == 0;
	if (stream->tenant != 0)
		slot->tts_values[rows->tenant_id - 1] = rf_tenancy_datum(
			stream->tenant);
	ExecStoreVirtualTuple(slot);
	slot->tts_tableOid = RelationGetRelid(rows->rel);
	if (tupdesc->constr != NULL)
		ExecConstraints(rows->result, slot, rows->estate);
	ExecMaterializeSlot(slot);
	ResetPerTupleExprContext(rows->estate);
	if (rows->nrows == ROWS_AT_ONCE)
		flush_rows(rows);
}

static void
end_rows(StreamRows *rows)
{
	flush_rows(rows);
	for (int i = 0; i < rows->nslots; i++)
		ExecDropSingleTupleTableSlot(rows->slots[i]);
	ExecCloseIndices(rows->result);
	FreeExecutorState(rows->estate);
	CommandCounterIncrement();
}

static void
write_streams_on_heap(Relation rel, const char *action,
					  const RfStreamId *streams, int count, const char *detail)
{
	StreamRows rows;

	begin_rows(&rows, rel, action, detail);
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		add_row(&rows, &streams[i]);
	}
	end_rows(&rows);
}

static void
write_streams_by_query(RfStore *store, const char *action,
					   const RfStreamId *streams, int count, const char *detail)
{
	Datum *ids = palloc(sizeof(Datum) * count);
	Datum *tenants = palloc0(sizeof(Datum) * count);
	Datum  values[4];
	char   nulls[4] = {' ', store->conjoined ? ' ' : 'n', ' ', ' '};

	for (int i = 0; i < count; i++)
	{
		ids[i] = UUIDPGetDatum(&streams[i].uuid);
		if (store->conjoined)
			tenants[i] = rf_tenancy_datum(streams[i].tenant);
	}
	values[0] = PointerGetDatum(rf_query_array(ids, count, UUIDOID));
	values[1] = store->conjoined ?
					PointerGetDatum(rf_query_array(tenants, count, TEXTOID)) :
					(Datum) 0;
	values[2] = CStringGetTextDatum(action);
	values[3] = CStringGetTextDatum(detail);
	rf_query_run(rf_store_plan(store, &insert_streams), values, nulls);
}

/*
 * A row for each of the streams.  A move closes them by the thousand, and the
 * rows go to the heap where nothing forbids it.
 */
void
rf_ledger_write_streams(RfStore *store, const char *action,
						const RfStreamId *streams, int count,
						const char *detail)
{
	Relation rel = table_open(store->log, RowExclusiveLock);

	if (heap_suffices(rel))
		write_streams_on_heap(rel, action, streams, count, detail);
	else
		write_streams_by_query(store, action, streams, count, detail);
	table_close(rel, NoLock);
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
	PG_RETURN_INT64(prune_log(rf_store_get_whole(tenant, RF_RIGHT_OWN),
							  PG_GETARG_TIMESTAMPTZ(0)));
}
