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
#include "utils/array.h"

/* What to take, and what was taken. */
typedef struct RfBulk
{
	Oid			  source;
	Oid			  target;
	int64		  after;   /* events with a higher global_seq */
	TimestampTz	  before;  /* and an earlier created_at */
	int			  limit;   /* so many of them */
	MemoryContext context; /* where the arrays go */
	int64		  upper;   /* set: the last one seen; 0: none */
	int64		  picked;  /* set: seen */
	int64		  moved;   /* set: taken out, and put in */
	ArrayType	 *streams; /* set: their streams */
	ArrayType	 *highest; /* set: highest number moved of each */
} RfBulk;

extern bool rf_bulk_suffices(Oid source, Oid target);
extern void rf_bulk_move(void *arg);

#endif /* RF_BULK_H */
