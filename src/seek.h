/*-------------------------------------------------------------------------
 *
 * seek.h
 *	  The next number in an index on global_seq, without a scan.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_SEEK_H
#define RF_SEEK_H

#include "rillflow.h"

#include "compat.h"
#include "storage/block.h"
#include "storage/buf.h"
#include "utils/relcache.h"

/* Pages of one index that told something, the last one first. */
#define RF_SEEK_PAGES 2

typedef struct RfSeekPage
{
	BlockNumber block;
	Buffer		buffer; /* where it was; InvalidBuffer: nothing is known */
} RfSeekPage;

typedef struct RfSeek
{
	RfFileLocator file; /* of the index */
	RfSeekPage	  pages[RF_SEEK_PAGES];
} RfSeek;

/* What is known of the next number. */
typedef enum RfSought
{
	RF_SOUGHT_UNKNOWN,
	RF_SOUGHT_NEXT, /* it is not lower than that */
	RF_SOUGHT_NONE	/* there is none */
} RfSought;

extern bool		rf_seek_suits(Relation index, int column, Oid type);
extern void		rf_seek_forget(RfSeek *seek);
extern RfSought rf_seek_again(RfSeek *seek, int64 after, int64 *next);
extern RfSought rf_seek(Relation index, RfSeek *seek, int64 after, int64 *next);

#endif /* RF_SEEK_H */
