/*-------------------------------------------------------------------------
 *
 * seek.c
 *	  The next number in an index on global_seq, without a scan.
 *
 * A replay asks each leaf of a store, batch by batch, for the events after a
 * number.  Most leaves have nothing to say: all of their numbers are lower, or
 * the lowest is far ahead.  That is read from one page of the leaf's index, and
 * most often from the page that told it the last time.
 *
 * Such a page is remembered with the buffer it was in, and looked at again
 * without opening the leaf, or locking it.  What it says is not remembered: it
 * is read anew each time, under the lock on the buffer.  If the buffer holds
 * that block of that file still, and the page is a leaf of the tree, then
 *
 *	- all numbers between two that it bears are on it, as are all that are
 *	  lower, when no page is left of it, and all that are higher, when none is
 *	  right of it;
 *	- no number between its highest and its high key is anywhere.
 *
 * Who inserts into the index changes that page, or splits it, which shows.  An
 * event that a snapshot shows was put into the index before its transaction
 * committed, and so before the snapshot was taken; who looks after that finds
 * it.  The entries may be of rows that are gone or not committed: what comes
 * out is a bound, and the rows are read by an ordinary scan of the index.
 *
 * The file of an index changes (REINDEX, CLUSTER, TRUNCATE) under a lock that
 * keeps writers of the table out until the relcache has been told.  So the
 * caller has to read invalidations between taking his snapshot and looking
 * here, and to forget a place when its table or index is invalidated.
 *
 * No predicate locks are taken: this is not for serializable transactions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/itup.h"
#include "access/nbtree.h"
#include "catalog/pg_am.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "seek.h"

/* Is the index ordered by a column as the type is by default? */
bool
rf_seek_suits(Relation index, int column, Oid type)
{
	return index->rd_rel->relam == BTREE_AM_OID &&
		   index->rd_index->indisvalid && !index->rd_index->indcheckxmin &&
		   index->rd_opcintype[column] == type &&
		   index->rd_indoption[column] == 0 &&
		   index->rd_opfamily[column] ==
			   get_opclass_family(GetDefaultOpClass(type, BTREE_AM_OID));
}

/*
 * Pages
 */

/* The number that an entry bears; the column is the first, and never null. */
static int64
number_at(Page page, OffsetNumber offset)
{
	IndexTuple tuple = (IndexTuple) PageGetItem(page,
												PageGetItemId(page, offset));
	int64	   number;

	memcpy(&number, (char *) tuple + IndexInfoFindDataOffset(tuple->t_info),
		   sizeof(number));
	return number;
}

/* The first entry of a higher number, or the place behind the last one. */
static OffsetNumber
find_higher(Page page, OffsetNumber first, int64 after)
{
	OffsetNumber low = first;
	OffsetNumber high = OffsetNumberNext(PageGetMaxOffsetNumber(page));

	while (low < high)
	{
		OffsetNumber middle = low + (high - low) / 2;

		if (number_at(page, middle) > after)
			high = middle;
		else
			low = OffsetNumberNext(middle);
	}
	return low;
}

/* Is the next number to the right of the page, for all one can tell? */
static bool
ends_before(Page page, int64 after)
{
	BTPageOpaque opaque = BTPageGetOpaque(page);

	return P_IGNORE(opaque) ||
		   (!P_RIGHTMOST(opaque) && number_at(page, P_HIKEY) <= after);
}

/*
 * What a leaf of the tree says.  From_left: all pages left of it are known to
 * bear no higher number.
 */
static RfSought
ask_page(Page page, int64 after, bool from_left, int64 *next)
{
	BTPageOpaque opaque = BTPageGetOpaque(page);
	OffsetNumber first = P_FIRSTDATAKEY(opaque);
	OffsetNumber higher;

	if (ends_before(page, after))
		return RF_SOUGHT_UNKNOWN;
	higher = find_higher(page, first, after);
	if (higher == first && !from_left && !P_LEFTMOST(opaque))
		return RF_SOUGHT_UNKNOWN;
	if (higher <= PageGetMaxOffsetNumber(page))
		*next = number_at(page, higher);
	else if (P_RIGHTMOST(opaque))
		return RF_SOUGHT_NONE;
	else
		*next = number_at(page, P_HIKEY);
	return RF_SOUGHT_NEXT;
}

/* The same of any page, with nothing known of the others. */
static RfSought
ask_any_page(Page page, int64 after, int64 *next)
{
	BTPageOpaque opaque;

	if (PageIsNew(page))
		return RF_SOUGHT_UNKNOWN;
	opaque = BTPageGetOpaque(page);
	if (P_ISMETA(opaque))
		return BTPageGetMeta(page)->btm_root == P_NONE ? RF_SOUGHT_NONE :
														 RF_SOUGHT_UNKNOWN;
	return P_ISLEAF(opaque) ? ask_page(page, after, false, next) :
							  RF_SOUGHT_UNKNOWN;
}

/*
 * Remembered pages
 */

void
rf_seek_forget(RfSeek *seek)
{
	for (int i = 0; i < RF_SEEK_PAGES; i++)
		seek->pages[i].buffer = InvalidBuffer;
}

/* The page told something; others move down, and the last one is forgotten. */
static void
remember(RfSeek *seek, int from, BlockNumber block, Buffer buffer)
{
	for (int i = from; i > 0; i--)
		seek->pages[i] = seek->pages[i - 1];
	seek->pages[0].block = block;
	seek->pages[0].buffer = buffer;
}

/*
 * The next number after a given one, from the pages that are remembered.
 * Needs no lock on the table; see above what it needs instead.
 */
RfSought
rf_seek_again(RfSeek *seek, int64 after, int64 *next)
{
	for (int i = 0; i < RF_SEEK_PAGES; i++)
	{
		RfSeekPage page = seek->pages[i];
		RfSought   sought;

		if (page.buffer == InvalidBuffer ||
			!ReadRecentBuffer(seek->file, MAIN_FORKNUM, page.block,
							  page.buffer))
			continue;
		LockBuffer(page.buffer, BUFFER_LOCK_SHARE);
		sought = ask_any_page(BufferGetPage(page.buffer), after, next);
		UnlockReleaseBuffer(page.buffer);
		if (sought == RF_SOUGHT_UNKNOWN)
			continue;
		if (i > 0)
			remember(seek, i, page.block, page.buffer);
		return sought;
	}
	return RF_SOUGHT_UNKNOWN;
}

/*
 * Descents
 */

/*
 * Where to go from a page that does not tell: to the right, or down to the last
 * page whose numbers may begin at the given one or below.  The first entry of
 * an inner page bears no number, and stands for the lowest.
 */
static BlockNumber
go_on(Page page, int64 after)
{
	BTPageOpaque opaque = BTPageGetOpaque(page);
	OffsetNumber first = P_FIRSTDATAKEY(opaque);
	OffsetNumber higher;
	ItemId		 item;

	if (ends_before(page, after))
		return opaque->btpo_next;
	higher = find_higher(page, OffsetNumberNext(first), after);
	item = PageGetItemId(page, OffsetNumberPrev(higher));
	return BTreeTupleGetDownLink((IndexTuple) PageGetItem(page, item));
}

static Buffer
read_page(Relation index, BlockNumber block)
{
	Buffer buffer = ReadBuffer(index, block);

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	if (PageIsNew(BufferGetPage(buffer)))
		ereport(ERROR, (errcode(ERRCODE_INDEX_CORRUPTED),
						errmsg("index \"%s\" contains a zero page at block %u",
							   RelationGetRelationName(index), block),
						errhint("Please REINDEX it.")));
	return buffer;
}

/* Where a descent begins; P_NONE when the index is empty. */
static BlockNumber
find_root(Relation index, RfSeek *seek)
{
	Buffer		buffer = read_page(index, BTREE_METAPAGE);
	BlockNumber root = BTPageGetMeta(BufferGetPage(buffer))->btm_root;

	if (root == P_NONE)
		remember(seek, RF_SEEK_PAGES - 1, BTREE_METAPAGE, buffer);
	UnlockReleaseBuffer(buffer);
	return root;
}

/* The same by a descent of the index, which the caller has locked. */
RfSought
rf_seek(Relation index, RfSeek *seek, int64 after, int64 *next)
{
	RfFileLocator file = rf_compat_file_locator(index);
	BlockNumber	  block;

	if (!rf_compat_same_file(file, seek->file))
		rf_seek_forget(seek);
	seek->file = file;
	block = find_root(index, seek);
	while (block != P_NONE)
	{
		Buffer	 buffer = read_page(index, block);
		Page	 page = BufferGetPage(buffer);
		RfSought sought = P_ISLEAF(BTPageGetOpaque(page)) ?
							  ask_page(page, after, true, next) :
							  RF_SOUGHT_UNKNOWN;

		if (sought != RF_SOUGHT_UNKNOWN)
			remember(seek, RF_SEEK_PAGES - 1, block, buffer);
		else
			block = go_on(page, after);
		UnlockReleaseBuffer(buffer);
		if (sought != RF_SOUGHT_UNKNOWN)
			return sought;
		CHECK_FOR_INTERRUPTS();
	}
	return RF_SOUGHT_NONE;
}
