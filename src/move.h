/*-------------------------------------------------------------------------
 *
 * move.h
 *	  Moving events to the cold tier, by rows: one batch at a time.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_MOVE_H
#define RF_MOVE_H

#include "rillflow.h"

#include "store.h"
#include "utils/array.h"

/* Where a move stands in one hot leaf. */
typedef struct RfMoveCursor
{
	Oid		source;	   /* the hot leaf */
	Oid		target;	   /* set: the cold leaf, or the parent of them */
	DateADT month;	   /* of the source; DATEVAL_NOEND: several */
	DateADT upper;	   /* first day after it; DATEVAL_NOEND: none */
	int64	after;	   /* global_seq, or stream_seq of one stream */
	bool	exhausted; /* set: the leaf has no more events to move */
	bool	skipped;   /* set: events of a held stream were left */
} RfMoveCursor;

/* What a batch did; the arrays are in the caller's memory, or NULL. */
typedef struct RfMoveResult
{
	int64	   events;
	ArrayType *streams;	  /* streams that events were taken from */
	ArrayType *undecided; /* streams to look at again when the move ends */
} RfMoveResult;

extern void		  rf_move_batch(RfStore *store, const RfMoveSpec *spec,
								RfMoveCursor *cursor, RfMoveResult *result);
extern ArrayType *rf_move_close(RfStore *store, ArrayType *streams);
extern void		  rf_move_leave_open(RfStore *store, ArrayType *streams);

#endif /* RF_MOVE_H */
