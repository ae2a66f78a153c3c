/*-------------------------------------------------------------------------
 *
 * frame.c
 *	  The heads that INSERT statements raise in memory.
 *
 * An INSERT of an application that knows nothing of us is kept sound by three
 * triggers.  The BEFORE STATEMENT trigger opens a frame, the row trigger gives
 * each row a number and raises the stream's head in the frame, and the AFTER
 * STATEMENT trigger closes it: checks that each number has its row, and raises
 * the heads in the table.
 *
 * A number whose row was dropped after we gave it out, by a trigger of the
 * user or by ON CONFLICT, would be a gap.  The server counts the rows that a
 * transaction inserts into each table; where its count for each leaf is ours,
 * all rows are there.  Where it is not, or where that proves nothing, because
 * other statements inserted at the same time or other triggers see the rows
 * after ours, each number is looked up in the leaf.
 *
 * A statement can call functions that append in their turn.  Before anything
 * reads a head, all frames are flushed, so that it sees what the statements
 * around it have given out.  If that happened in a subtransaction which is
 * rolled back, the raise is undone in the table with it, and is pending in
 * its frame again.  A frame belongs to the subtransaction it was opened in,
 * and is dropped with it.
 *
 * Locks: a statement that leaves stream_seq out locks its streams in row
 * order, so that two of them can deadlock as two UPDATEs can.  Others lock
 * them when they end, in order of id, and of tenant in a conjoined store.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "frame.h"
#include "query.h"
#include "store.h"
#include "stream.h"
#include "tenancy.h"

/* A run that is not the last one of its stream. */
typedef struct RfOldRun
{
	RfStreamId stream;
	RfRun	   run;
} RfOldRun;

/*
 * The streams of a statement.  A statement of many streams looks one of
 * them up for each row, so entries are small, and the compiler knows the table,
 * which dynahash would hide from it.
 */
typedef struct HeadEntry
{
	RfHead *head;
	uint32	hash;
	char	status;
} HeadEntry;

/* All bytes count: who makes ids may put what tells them apart anywhere. */
static inline uint32
hash_stream(const RfStreamId *stream)
{
	uint64 halves[2];
	uint64 hash;

	memcpy(halves, stream->uuid.data, UUID_LEN);
	hash = hash_combine64(halves[0], halves[1] + stream->tenant);
	return murmurhash32((uint32) (hash ^ (hash >> 32)));
}

#define SH_PREFIX heads
#define SH_ELEMENT_TYPE HeadEntry
#define SH_KEY_TYPE RfHead *
#define SH_KEY head
#define SH_HASH_KEY(table, key) hash_stream(&(key)->raise.stream)
#define SH_EQUAL(table, a, b) \
	rf_same_stream(&(a)->raise.stream, &(b)->raise.stream)
#define SH_STORE_HASH
#define SH_GET_HASH(table, entry) (entry)->hash
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "hash_template.h"

static RfFrame *frames = NULL;

/* the row that our own writer is about to insert */
static RfExpectedRow *expected_row = NULL;

static const RfStatement lock_event =
	{"SELECT 1 FROM ONLY {source} WHERE stream_id = $1 AND stream_seq = $2"
	 "{mine} FOR KEY SHARE",
	 2,
	 {UUIDOID, INT4OID}};

/*
 * Opening
 */

RfFrame *
rf_frame_open(RfStore *store, bool trusted)
{
	MemoryContext context;
	RfFrame		 *frame;

	if (!trusted)
		rf_frame_flush();
	for (frame = frames; frame != NULL; frame = frame->below)
		frame->count_proves = false;
	context = AllocSetContextCreate(TopTransactionContext, "Rillflow frame",
									ALLOCSET_SMALL_SIZES);
	frame = MemoryContextAllocZero(context, sizeof(RfFrame));
	frame->context = context;
	frame->store = store;
	frame->subid = GetCurrentSubTransactionId();
	frame->trusted = trusted;
	if (trusted)
	{
		frame->expected_row = expected_row;
		expected_row = NULL;
	}
	frame->count_proves = frames == NULL;
	frame->below = frames;
	frames = frame;
	return frame;
}

/* The innermost open frame of a statement on that events table. */
RfFrame *
rf_frame_of_events(Oid events)
{
	SubTransactionId subid = GetCurrentSubTransactionId();

	for (RfFrame *frame = frames; frame != NULL; frame = frame->below)
	{
		if (frame->store->events == events && frame->subid == subid)
			return frame;
	}
	return NULL;
}

/* Does any statement insert into events, one that others run in included? */
bool
rf_frame_is_open(Oid events)
{
	for (RfFrame *frame = frames; frame != NULL; frame = frame->below)
	{
		if (frame->store->events == events)
			return true;
	}
	return false;
}

/* How many rows has this transaction inserted, less those it took out? */
static int64
inserted_rows(Oid relid)
{
	Datum value = ObjectIdGetDatum(relid);

	return DatumGetInt64(
			   DirectFunctionCall1(pg_stat_get_xact_tuples_inserted, value)) -
		   DatumGetInt64(
			   DirectFunctionCall1(pg_stat_get_xact_tuples_deleted, value));
}

static HTAB *
make_leaf_table(RfFrame *frame)
{
	HASHCTL ctl = {0};

	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(RfFrameLeaf);
	ctl.hcxt = frame->context;
	return hash_create("Rillflow frame leaves", 256, &ctl,
					   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/*
 * Look at the triggers of a leaf: events in it must be guarded; and where a
 * trigger can change a row after ours has numbered it, the count of the rows
 * proves nothing.
 */
static bool
others_come_later(Relation rel)
{
	TriggerDesc *triggers = rel->trigdesc;
	bool		 ours_seen = false;
	bool		 later = false;
	bool		 guarded = false;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		Trigger *trigger = &triggers->triggers[i];

		guarded |= strcmp(trigger->tgname, "rf_events_append_only") == 0;
		if (!TRIGGER_TYPE_MATCHES(trigger->tgtype, TRIGGER_TYPE_ROW,
								  TRIGGER_TYPE_BEFORE, TRIGGER_TYPE_INSERT))
			continue;
		later |= ours_seen;
		ours_seen |= strcmp(trigger->tgname, "rf_events_redirect_archived") ==
					 0;
	}
	if (!guarded)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("nothing keeps the events of \"%s\" from being changed",
						RelationGetRelationName(rel)),
				 errhint("Run rf_install(%s), which makes the missing trigger.",
						 quote_literal_cstr(
							 get_namespace_name(RelationGetNamespace(rel))))));
	return later;
}

/* Let rows go to a leaf from now on. */
static void
enter_leaf(RfFrame *frame, Relation rel, const RfLeaf *leaf)
{
	RfFrameLeaf *entry = &frame->first_leaf;
	bool		 found = frame->nleaves > 0 && entry->leaf.relid == leaf->relid;

	if (frame->nleaves > 0 && !found)
	{
		if (frame->leaves == NULL)
			frame->leaves = make_leaf_table(frame);
		entry = hash_search(frame->leaves, &leaf->relid, HASH_ENTER, &found);
	}
	if (!found)
	{
		entry->leaf = *leaf;
		entry->inserted_before = inserted_rows(leaf->relid);
		entry->numbered = 0;
		frame->nleaves++;
		frame->count_proves &= !others_come_later(rel);
	}
	frame->leaf = entry;
}

/*
 * The frame of the statement that brings a row to this leaf; NULL when there
 * is none, because the statement does not go through events.
 */
RfFrame *
rf_frame_of_leaf(Relation rel)
{
	RfFrame *frame = frames;
	RfLeaf	 leaf;

	if (frame != NULL && frame->leaf != NULL &&
		frame->leaf->leaf.relid == RelationGetRelid(rel) &&
		frame->subid == GetCurrentSubTransactionId())
		return frame;
	rf_store_leaf(RelationGetRelid(rel), &leaf);
	frame = rf_frame_of_events(leaf.root);
	if (frame != NULL)
		enter_leaf(frame, rel, &leaf);
	return frame;
}

/*
 * Numbering
 */

static RfHead *
add_head(RfFrame *frame, RfHead *head, const RfStreamId *stream)
{
	head->raise.stream = *stream;
	head->next = frame->heads;
	frame->heads = head;
	return head;
}

static RfHead *
enter_head(RfFrame *frame, const RfStreamId *stream)
{
	RfHead	   key;
	HeadEntry *entry;
	RfHead	  *head;
	bool	   found;

	if (frame->heads == NULL)
		return add_head(frame, &frame->first_head, stream);
	if (rf_same_stream(&frame->first_head.raise.stream, stream))
		return &frame->first_head;
	if (frame->others == NULL)
		frame->others = heads_create(frame->context, 64, NULL);
	key.raise.stream = *stream;
	entry = heads_lookup(frame->others, &key);
	if (entry != NULL)
		return entry->head;
	head = add_head(frame,
					MemoryContextAllocZero(frame->context, sizeof(RfHead)),
					stream);
	heads_insert(frame->others, head, &found);
	return head;
}

/* The store as the owner of a stream sees it. */
static RfStore *
store_of(const RfFrame *frame, const RfHead *head)
{
	return rf_store_of_tenant(frame->store, head->raise.stream.tenant);
}

/* Ask once per tenant whether the caller may have to do with it. */
static void
require_tenant(RfFrame *frame, RfHead *head)
{
	uint32		  tenant = head->raise.stream.tenant;
	MemoryContext old;

	if (tenant == 0 || bms_is_member(tenant, frame->tenants))
		return;
	rf_store_require_tenant(store_of(frame, head));
	old = MemoryContextSwitchTo(frame->context);
	frame->tenants = bms_add_member(frame->tenants, tenant);
	MemoryContextSwitchTo(old);
}

static void
read_head(RfFrame *frame, RfHead *head)
{
	RfStreamState state;
	RfRaise		 *raise = &head->raise;

	require_tenant(frame, head);
	rf_stream_read_latest(store_of(frame, head), &raise->stream.uuid, &state);
	head->known = true;
	head->archived = state.archived;
	head->locked = false;
	head->flushed_in = InvalidSubTransactionId;
	raise->exists = state.exists;
	raise->tid = state.tid;
	raise->base = raise->head = state.last_seq;
	raise->first = DT_NOEND;
	raise->last = DT_NOBEGIN;
	raise->reopens = false;
	raise->expected = RF_EXPECT_NOTHING;
}

/* What the statement knows of a stream: read once, then kept. */
RfHead *
rf_frame_head(RfFrame *frame, const RfStreamId *stream)
{
	RfHead *head = frame->last_head;

	if (head == NULL || !rf_same_stream(&head->raise.stream, stream))
	{
		head = enter_head(frame, stream);
		frame->last_head = head;
	}
	if (!head->known)
		read_head(frame, head);
	return head;
}

/* Does the row's leaf hold the event?  Then it holds it until we are done. */
static bool
leaf_holds(RfFrame *frame, RfHead *head, int32 number)
{
	RfStore *store = store_of(frame, head);
	RfScope	 scope;
	Datum	 values[2];
	uint64	 rows;

	values[0] = UUIDPGetDatum(&head->raise.stream.uuid);
	values[1] = Int32GetDatum(number);
	rf_query_begin(&scope, store->owner, 0);
	rows = rf_query_run(rf_store_plan_for(store, &lock_event,
										  frame->leaf->leaf.relid, InvalidOid),
						values, NULL);
	rf_query_end(&scope);
	return rows > 0;
}

/* Lock the stream's row, before a row gets the next number, whatever it is. */
static void
lock_head(RfFrame *frame, RfHead *head)
{
	RfRaise		 *raise = &head->raise;
	RfStreamState state;

	rf_stream_lock(store_of(frame, head), &raise->stream.uuid, &state);
	if (raise->head == raise->base)
	{
		raise->base = raise->head = state.last_seq;
		head->archived = state.archived;
	}
	else if (state.last_seq != raise->base)
		rf_stream_report_taken(&raise->stream.uuid, raise->base + 1,
							   state.last_seq);
	raise->tid = state.tid;
	raise->exists = head->locked = true;
}

/*
 * The number of a row: the one it wants, or the next one where it wants none
 * (0).  The result is 0 for a row that is left to the leaf's unique index,
 * which holds that number: ON CONFLICT gets its conflict there.
 */
int32
rf_frame_number(RfFrame *frame, RfHead *head, int32 wanted)
{
	RfRaise *raise = &head->raise;

	if (wanted == 0 && !head->locked)
		lock_head(frame, head);
	if (wanted == 0 || wanted == raise->head + 1)
	{
		if (raise->head == PG_INT32_MAX)
			rf_stream_report_full(&raise->stream.uuid);
		return raise->head + 1;
	}
	if (wanted > raise->head)
		ereport(ERROR, (errcode(ERRCODE_RF_WRONG_HEAD),
						errmsg("event %d of stream %s would leave a gap",
							   wanted, rf_query_uuid_text(&raise->stream.uuid)),
						errdetail("The stream is at %d.", raise->head),
						errhint("Insert number %d, or leave stream_seq out.",
								raise->head + 1)));
	if (!leaf_holds(frame, head, wanted))
		rf_stream_report_taken(&raise->stream.uuid, wanted, raise->head);
	return 0;
}

/* Room for twice as many elements, in the frame's memory. */
static void *
grow(RfFrame *frame, void *elements, int *room, Size element_size)
{
	Size size;

	*room = Max(4, *room * 2);
	size = element_size * *room;
	if (elements == NULL)
		return MemoryContextAllocHuge(frame->context, size);
	return repalloc_huge(elements, size);
}

static void
remember_run(RfFrame *frame, RfHead *head)
{
	RfRun *run = &head->run;
	int32  number = head->raise.head;

	frame->leaf->numbered++;
	if (run->leaf == frame->leaf && run->last + 1 == number)
	{
		run->last = number;
		return;
	}
	if (run->leaf != NULL)
	{
		if (frame->nruns == frame->maxruns)
			frame->runs = grow(frame, frame->runs, &frame->maxruns,
							   sizeof(RfOldRun));
		frame->runs[frame->nruns].stream = head->raise.stream;
		frame->runs[frame->nruns++].run = *run;
	}
	run->leaf = frame->leaf;
	run->first = run->last = number;
}

/*
 * The next number of the stream goes to a row, which lands in the leaf it was
 * on its way to, hot or cold, or was redirected.  Once archived streams are
 * redirected, it matters that the stream stays as it was found to be.
 */
void
rf_frame_advance(RfFrame *frame, RfHead *head, TimestampTz created_at,
				 RfLanding landing)
{
	RfRaise		  *raise = &head->raise;
	const RfStore *store = frame->store;

	raise->head++;
	raise->first = Min(raise->first, created_at);
	raise->last = Max(raise->last, created_at);
	if (landing == RF_REDIRECTED)
	{
		raise->expected = RF_EXPECT_ARCHIVED;
		head->redirected++;
		return;
	}
	remember_run(frame, head);
	if (landing == RF_LANDS_HOT)
	{
		raise->reopens = true;
		if (store->redirect_enabled || store->backend == RF_PARTITIONED)
			raise->expected = RF_EXPECT_ACTIVE;
	}
}

/*
 * The next trusted statement inserts this row, and tells the global_seq that
 * it gets.  NULL: none any more.
 */
void
rf_frame_expect(RfExpectedRow *row)
{
	expected_row = row;
}

/* A row of our own writer has come: is it the one that was expected? */
void
rf_frame_arrive(RfFrame *frame, const RfStreamId *stream, int32 stream_seq,
				int64 global_seq)
{
	RfExpectedRow *row = frame->expected_row;
	RfHead		  *head;

	if (row == NULL || row->arrived || row->stream_seq != stream_seq ||
		!rf_same_stream(&row->stream, stream) ||
		(row->global_seq != 0 && row->global_seq != global_seq))
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("an event of stream %s was changed on its way",
					rf_query_uuid_text(&stream->uuid)),
			 errhint(
				 "Look for a trigger that changes stream_id, stream_seq or global_seq.")));
	row->arrived = true;
	row->global_seq = global_seq;
	head = enter_head(frame, stream);
	head->raise.head = stream_seq;
	remember_run(frame, head);
}

/* A row of the statement bears a key, to be claimed when it ends. */
void
rf_frame_remember_key(RfFrame *frame, const RfKey *key)
{
	MemoryContext old = MemoryContextSwitchTo(frame->context);
	RfKey		 *copy;

	if (frame->nkeys == frame->maxkeys)
		frame->keys = grow(frame, frame->keys, &frame->maxkeys, sizeof(RfKey));
	copy = &frame->keys[frame->nkeys++];
	*copy = *key;
	copy->key = (text *) PG_DETOAST_DATUM_COPY(PointerGetDatum(key->key));
	MemoryContextSwitchTo(old);
}

/*
 * Checking that each number has its row
 */

static bool
leaf_count_agrees(const RfFrameLeaf *leaf)
{
	return inserted_rows(leaf->leaf.relid) - leaf->inserted_before ==
		   leaf->numbered;
}

static bool
counts_agree(RfFrame *frame)
{
	HASH_SEQ_STATUS status;
	RfFrameLeaf	   *leaf;

	if (!frame->count_proves ||
		(frame->nleaves > 0 && !leaf_count_agrees(&frame->first_leaf)))
		return false;
	if (frame->leaves == NULL)
		return true;
	hash_seq_init(&status, frame->leaves);
	while ((leaf = hash_seq_search(&status)) != NULL)
	{
		if (!leaf_count_agrees(leaf))
		{
			hash_seq_term(&status);
			return false;
		}
	}
	return true;
}

/* Count the rows that bear the numbers of a run: all, and those of ours. */
static void
count_rows(const RfStreamId *stream, const RfRun *run, int64 *all, int64 *ours)
{
	const RfLeaf *leaf = &run->leaf->leaf;
	Relation	  rel = table_open(leaf->relid, AccessShareLock);
	ScanKeyData	  keys[4];
	int			  n = rf_tenancy_leaf_keys(keys, stream, leaf->stream_id,
										   leaf->tenant_id);
	SysScanDesc	  scan;
	HeapTuple	  tuple;

	*all = *ours = 0;
	ScanKeyInit(&keys[n++], leaf->stream_seq, BTGreaterEqualStrategyNumber,
				F_INT4GE, Int32GetDatum(run->first));
	ScanKeyInit(&keys[n++], leaf->stream_seq, BTLessEqualStrategyNumber,
				F_INT4LE, Int32GetDatum(run->last));
	scan = systable_beginscan(rel, leaf->stream_index, true, SnapshotSelf, n,
							  keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		TransactionId xmin = HeapTupleHeaderGetXmin(tuple->t_data);

		(*all)++;
		if (TransactionIdIsCurrentTransactionId(xmin))
			(*ours)++;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

static void
verify_run(const RfStreamId *stream, const RfRun *run)
{
	int64 expected = (int64) run->last - run->first + 1;
	int64 all;
	int64 ours;

	CHECK_FOR_INTERRUPTS();
	if (run->leaf == NULL)
		return;
	count_rows(stream, run, &all, &ours);
	if (ours == expected)
		return;
	if (all == expected)
		ereport(
			ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("another transaction has appended to stream %s meanwhile",
					rf_query_uuid_text(&stream->uuid)),
			 errhint("Run the transaction again.")));
	ereport(
		ERROR,
		(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		 errmsg("a row of stream %s was numbered, but not inserted",
				rf_query_uuid_text(&stream->uuid)),
		 errdetail("Of the numbers %d to %d, " INT64_FORMAT " have a row.",
				   run->first, run->last, ours),
		 errhint(
			 "Another trigger or ON CONFLICT skips or changes rows; let such triggers sort before \"rf_events_redirect_archived\".")));
}

static void
verify_runs(RfFrame *frame)
{
	for (int i = 0; i < frame->nruns; i++)
		verify_run(&frame->runs[i].stream, &frame->runs[i].run);
	for (RfHead *head = frame->heads; head != NULL; head = head->next)
		verify_run(&head->raise.stream, &head->run);
}

/*
 * Flushing
 */

static bool
is_pending(const RfHead *head)
{
	return head->known && head->raise.head != head->raise.base;
}

static int
compare_heads(const void *a, const void *b)
{
	return rf_tenancy_compare(&(*(RfHead *const *) a)->raise.stream,
							  &(*(RfHead *const *) b)->raise.stream);
}

/*
 * The heads of a frame that wait to be raised in the table, in their order.
 * Those without new events are read again when they are needed next.
 */
static RfHead **
pending_heads(RfFrame *frame, int *count)
{
	int		 most = frame->others == NULL ? 1 : frame->others->members + 1;
	RfHead **result = palloc(sizeof(RfHead *) * most);

	*count = 0;
	for (RfHead *head = frame->heads; head != NULL; head = head->next)
	{
		if (!is_pending(head))
			head->known = false;
		else if (head->flushed_in == InvalidSubTransactionId)
			result[(*count)++] = head;
	}
	qsort(result, *count, sizeof(RfHead *), compare_heads);
	return result;
}

/* Raise in the table what is pending in a frame. */
static void
flush_frame(RfFrame *frame)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	int				 count;
	RfHead		   **pending = pending_heads(frame, &count);

	if (count > 0)
	{
		RfRaise *raises = palloc(sizeof(RfRaise) * count);

		for (int i = 0; i < count; i++)
			raises[i] = pending[i]->raise;
		rf_stream_compare_and_raise(frame->store, raises, count);
		pfree(raises);
	}
	for (int i = 0; i < count; i++)
	{
		if (frame->subid == subid)
			pending[i]->known = false;
		else
		{
			pending[i]->flushed_in = subid;
			frame->nflushed++;
		}
	}
	pfree(pending);
}

/*
 * Let whoever reads a head next, and is about to write, see what the open
 * statements have given out.
 */
void
rf_frame_flush(void)
{
	for (RfFrame *frame = frames; frame != NULL; frame = frame->below)
	{
		frame->count_proves = false;
		if (!frame->trusted)
			flush_frame(frame);
	}
}

/* Is there no statement open that counts the rows of a leaf? */
bool
rf_frame_none_open(void)
{
	return frames == NULL;
}

/*
 * Closing
 */

static void
drop_frame(RfFrame *frame)
{
	RfFrame **link = &frames;

	while (*link != frame)
		link = &(*link)->below;
	*link = frame->below;
	MemoryContextDelete(frame->context);
}

/* End a statement: check its rows, raise its heads. */
void
rf_frame_close(RfFrame *frame)
{
	if (!counts_agree(frame))
		verify_runs(frame);
	if (!frame->trusted)
		flush_frame(frame);
	drop_frame(frame);
}

/*
 * Ends of transactions
 */

/* What a subtransaction has flushed is its parent's now, or undone. */
static void
end_flush(RfFrame *frame, RfHead *head, SubXactEvent event, SubTransactionId id,
		  SubTransactionId parent)
{
	if (head->flushed_in != id)
		return;
	if (event == SUBXACT_EVENT_COMMIT_SUB && frame->subid != parent)
	{
		head->flushed_in = parent;
		return;
	}
	if (event == SUBXACT_EVENT_COMMIT_SUB)
		head->known = false;
	head->flushed_in = InvalidSubTransactionId;
	frame->nflushed--;
}

static void
subtransaction_ended(SubXactEvent event, SubTransactionId id,
					 SubTransactionId parent, void *arg)
{
	RfFrame *below;

	if (event != SUBXACT_EVENT_ABORT_SUB && event != SUBXACT_EVENT_COMMIT_SUB)
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
		expected_row = NULL;
	for (RfFrame *frame = frames; frame != NULL; frame = below)
	{
		below = frame->below;
		if (frame->subid == id)
		{
			drop_frame(frame);
			continue;
		}
		if (frame->nflushed == 0)
			continue;
		for (RfHead *head = frame->heads; head != NULL; head = head->next)
			end_flush(frame, head, event, id, parent);
	}
}

static void
transaction_ended(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT ||
		event == XACT_EVENT_PREPARE)
	{
		frames = NULL; /* they lived in the transaction's memory */
		expected_row = NULL;
	}
}

void
rf_frame_init(void)
{
	RegisterXactCallback(transaction_ended, NULL);
	RegisterSubXactCallback(subtransaction_ended, NULL);
}
