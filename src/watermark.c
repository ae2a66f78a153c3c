/*-------------------------------------------------------------------------
 *
 * watermark.c
 *	  Up to which global_seq nothing is still to come.
 *
 * Numbers are drawn in ascending order, and their transactions commit in any.
 * A reader that remembers the highest number it got must not get one while a
 * lower one may still commit.
 *
 * Before a transaction draws its first number of a store, it reads from the
 * sequence's page the number that was drawn last, and takes a shared lock
 * whose key says "all that I draw is above it".  Nobody ever asks for that lock
 * in another mode, so nobody waits for it; the lock manager lets go of it when
 * the transaction, or the subtransaction that took it, is over, and hands it on
 * when it is prepared.  It is let go after the commit has become visible.
 *
 * A reader has a snapshot, looks at all locks, and takes a second snapshot.  An
 * event of number n which the first snapshot shows may be read unless a key
 * lower than n is held, or an event lower than n is there which only the second
 * snapshot shows.  For whoever draws a lower number has drawn it before n was,
 * and so had his lock before the first snapshot was taken.  Either he held it
 * when the reader looked; or he was done by then, and the second snapshot shows
 * what he committed.  This holds at any isolation level, for any snapshot that
 * is older than the look, and for numbers that no sequence has given, as long
 * as they are written in ascending order.
 *
 * What is settled stays settled.  So once a reader has looked, all numbers up
 * to the lowest key and to the last number drawn before the look are known to
 * be settled in each snapshot that is not older than the second one, and a
 * reader that is behind looks at no locks.  Setting the sequence back undoes
 * that; it is noticed while the sequence stands below what was known.
 *
 * A lock's tag has 48 bits for the key.  Lower and higher numbers take the
 * nearest lower key, which is safe and keeps readers back more than need be.
 *
 * On a standby no locks are to be seen, and the sequence is ahead of what was
 * drawn.  Where triggers do not fire (logical replication, restores), no locks
 * are taken.  There nothing is held back.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_sequence.h"
#include "commands/sequence.h"
#include "lib/qunique.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "compat.h"
#include "store.h"
#include "watermark.h"

/* What fits into the tag of a lock; zero is for numbers below all others. */
#define LOWEST_KEY UINT64CONST(0)
#define HIGHEST_KEY ((UINT64CONST(1) << 48) - 1)

/* A lock of this backend; it may have been let go since. */
typedef struct Hold
{
	LOCKTAG tag;
	int64	above; /* the holder draws no number that is not higher */
} Hold;

/* What is known of a sequence. */
typedef struct Watermark
{
	Oid			  sequence; /* hash key */
	Hold		  drawing;	/* of who draws */
	Hold		  late;		/* of who brings a number drawn before */
	int64		  settled;	/* all numbers up to it are settled ... */
	TransactionId xmax;		/* ... in a snapshot that ends there ... */
	int			  running;	/* ... and shows so many transactions running */
} Watermark;

static HTAB *watermarks = NULL;

static Watermark *
get_watermark(Oid sequence)
{
	Watermark *mark;
	bool	   found;

	if (watermarks == NULL)
	{
		HASHCTL ctl = {0};

		ctl.keysize = sizeof(Oid);
		ctl.entrysize = sizeof(Watermark);
		watermarks = hash_create("Rillflow watermarks", 16, &ctl,
								 HASH_ELEM | HASH_BLOBS);
	}
	mark = hash_search(watermarks, &sequence, HASH_ENTER, &found);
	if (!found)
	{
		memset(&mark->drawing, 0, sizeof(Hold));
		memset(&mark->late, 0, sizeof(Hold));
		mark->late.above = PG_INT64_MAX;
		mark->settled = PG_INT64_MIN;
		mark->xmax = InvalidTransactionId;
		mark->running = 0;
	}
	return mark;
}

/*
 * The sequence
 */

/* The number that was drawn last, from the sequence's only page. */
static int64
read_last_number(Relation sequence)
{
	Buffer				  buffer = ReadBuffer(sequence, 0);
	HeapTupleData		  tuple;
	Form_pg_sequence_data data;
	Page				  page;
	int64				  result;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	tuple.t_data = (HeapTupleHeader)
		PageGetItem(page, PageGetItemId(page, FirstOffsetNumber));
	data = (Form_pg_sequence_data) GETSTRUCT(&tuple);
	result = data->last_value;
	if (!data->is_called && result > PG_INT64_MIN)
		result--;
	UnlockReleaseBuffer(buffer);
	return result;
}

static int64
last_number(Oid relid)
{
	Relation sequence = relation_open(relid, AccessShareLock);
	int64	 result = read_last_number(sequence);

	relation_close(sequence, AccessShareLock);
	return result;
}

/* A number that comes from the cache of a session can be lower than any. */
static void
require_ascending(const RfStore *store)
{
	HeapTuple		 tuple = SearchSysCache1(SEQRELID,
											 ObjectIdGetDatum(store->sequence));
	Form_pg_sequence form;
	bool			 ascends;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for sequence %u", store->sequence);
	form = (Form_pg_sequence) GETSTRUCT(tuple);
	ascends = form->seqincrement > 0 && form->seqcache == 1 && !form->seqcycle;
	ReleaseSysCache(tuple);
	if (!ascends)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg(
				 "sequence \"events_global_seq_seq\" of schema \"%s\" does not number events in the order in which they are written",
				 store->schema),
			 errdetail(
				 "A replay could pass events that are still to be committed."),
			 errhint("Run: ALTER SEQUENCE %s INCREMENT 1 CACHE 1 NO CYCLE.",
					 rf_store_relation_name(store->sequence))));
}

/*
 * Who appends
 */

static void
acquire(Hold *hold, Oid sequence, int64 above)
{
	uint64 key = above < 0 ? LOWEST_KEY : Min((uint64) above + 1, HIGHEST_KEY);

	hold->above = above;
	hold->tag.locktag_field1 = MyDatabaseId;
	hold->tag.locktag_field2 = sequence;
	hold->tag.locktag_field3 = (uint32) key;
	hold->tag.locktag_field4 = (uint16) (key >> 32);
	hold->tag.locktag_type = LOCKTAG_USERLOCK;
	hold->tag.locktag_lockmethodid = USER_LOCKMETHOD;
	(void) LockAcquire(&hold->tag, ShareLock, false, false);
}

static bool
is_held(const Hold *hold)
{
	return rf_compat_lock_is_held(&hold->tag, ShareLock);
}

/*
 * To be called before numbers are drawn.  The sequence is locked as who draws
 * from it does, so that it is not altered in between.
 */
int64
rf_watermark_hold(const RfStore *store)
{
	Watermark *mark = get_watermark(store->sequence);

	if (!is_held(&mark->drawing))
	{
		Relation sequence = relation_open(store->sequence, RowExclusiveLock);

		acquire(&mark->drawing, store->sequence, read_last_number(sequence));
		relation_close(sequence, NoLock);
	}
	if (mark->late.above < mark->drawing.above && is_held(&mark->late))
		return mark->late.above;
	return mark->drawing.above;
}

/*
 * To be called before an event is written whose number is not above what
 * rf_watermark_hold() has returned.  Rows may come in descending order, so the
 * second lock is for all numbers.
 */
int64
rf_watermark_hold_below(const RfStore *store, int64 number)
{
	Watermark *mark = get_watermark(store->sequence);
	bool	   again = mark->late.above < PG_INT64_MAX && is_held(&mark->late);

	acquire(&mark->late, store->sequence,
			again || number == PG_INT64_MIN ? PG_INT64_MIN : number - 1);
	return mark->late.above;
}

/*
 * Who reads
 */

/*
 * Does the snapshot show all that had ended when the watermark was read?  While
 * no higher transaction ends, those below xmax can only become fewer; so of two
 * snapshots of one xmax, the one with fewer of them running is the later one.
 */
static bool
is_known_in(const Watermark *mark, Snapshot snapshot)
{
	if (!TransactionIdIsValid(mark->xmax) || snapshot->takenDuringRecovery)
		return false;
	return TransactionIdPrecedes(mark->xmax, snapshot->xmax) ||
		   (mark->xmax == snapshot->xmax &&
			(int64) snapshot->xcnt <= mark->running);
}

/* The number up to which all are known to be settled in the snapshot. */
int64
rf_watermark_settled(const RfStore *store, Snapshot snapshot)
{
	Watermark *mark;

	if (RecoveryInProgress())
		return PG_INT64_MAX;
	require_ascending(store);
	mark = get_watermark(store->sequence);
	if (last_number(store->sequence) < mark->settled)
		mark->settled = PG_INT64_MIN;
	return is_known_in(mark, snapshot) ? mark->settled : PG_INT64_MIN;
}

/* The lowest numbers above which holders draw. */
static void
find_lowest(Oid sequence, int64 *own, int64 *others)
{
	LockData *locks = GetLockStatusData();

	*own = *others = PG_INT64_MAX;
	for (int i = 0; i < locks->nelements; i++)
	{
		const LockInstanceData *lock = &locks->locks[i];
		const LOCKTAG		   *tag = &lock->locktag;
		int64				   *lowest = lock->pid == MyProcPid ? own : others;
		uint64					key;

		if (tag->locktag_type != LOCKTAG_USERLOCK ||
			tag->locktag_field1 != MyDatabaseId ||
			tag->locktag_field2 != sequence)
			continue;
		key = ((uint64) tag->locktag_field4 << 32) | tag->locktag_field3;
		*lowest = Min(*lowest,
					  key == LOWEST_KEY ? PG_INT64_MIN : (int64) key - 1);
	}
	pfree(locks->locks);
	pfree(locks);
}

/* One that is being prepared can stand in a snapshot twice. */
static int
count_running(Snapshot snapshot)
{
	size_t		   size = sizeof(TransactionId);
	TransactionId *xids;
	int			   result;

	if (snapshot->xcnt == 0)
		return 0;
	xids = palloc(size * snapshot->xcnt);
	memcpy(xids, snapshot->xip, size * snapshot->xcnt);
	qsort(xids, snapshot->xcnt, size, xidComparator);
	result = qunique(xids, snapshot->xcnt, size, xidComparator);
	pfree(xids);
	return result;
}

/* A transaction that keeps its snapshot keeps what is known in that, too. */
static void
remember_settled(Watermark *mark, int64 settled, Snapshot before,
				 Snapshot after)
{
	if (settled <= mark->settled ||
		(IsolationUsesXactSnapshot() && is_known_in(mark, before)))
		return;
	mark->settled = settled;
	mark->xmax = after->xmax;
	mark->running = count_running(after);
}

/*
 * Look for the lowest number above which others may still write, and make a
 * snapshot that was taken after that the active one.  What our own transaction
 * has written we see ourselves; its lock counts where it has numbers that are
 * on their way.
 */
int64
rf_watermark_push(const RfStore *store, bool count_own)
{
	Snapshot before = GetActiveSnapshot();
	int64	 last = last_number(store->sequence);
	int64	 own;
	int64	 others;

	find_lowest(store->sequence, &own, &others);
	PushActiveSnapshot(GetLatestSnapshot());
	remember_settled(get_watermark(store->sequence),
					 Min(last, Min(own, others)), before, GetActiveSnapshot());
	return count_own ? Min(own, others) : others;
}
