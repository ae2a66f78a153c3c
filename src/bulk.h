/*-------------------------------------------------------------------------
 *
 * bulk.h
 *	  Events of a batch, from leaf to leaf on the heap.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_BULK_H
#define RF_BULK_H

#include "rillflow.h"

#include "store.h"
#include "utils/palloc.h"
#include "utils/timestamp.h"

/* A stream that events were taken from. */
typedef struct RfTouched
{
	RfStreamId stream;
	int32	   lowest; /* number taken */
	int32	   highest;
	int32	   count; /* how many; 0: not known, and the two neither */
} RfTouched;

/* What to take, and what was taken. */
typedef struct RfBulk
{
	Oid			  source;
	Oid			  target;
	int64		  after;   /* events with a higher global_seq */
	int64		  up_to;   /* but none higher than that */
	TimestampTz	  before;  /* and an earlier created_at */
	uint32		  tenant;  /* of one tenant only; 0: of all */
	int			  limit;   /* so many of them */
	MemoryContext context; /* where the streams go */
	int64		  upper;   /* set: the last one seen; 0: none */
	int64		  picked;  /* set: seen */
	int64		  moved;   /* set: taken out, and put in */
	RfTouched	 *streams; /* set: their streams */
	int			  nstreams;
} RfBulk;

extern bool rf_bulk_suffices(Oid source, Oid target);
extern void rf_bulk_move(void *arg);

#endif /* RF_BULK_H */
