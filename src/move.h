/*-------------------------------------------------------------------------
 *
 * move.h
 *	  Moving events between the tiers, by rows: one batch at a time.
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
	Oid		target;	   /* the cold leaf, or the parent of them */
	DateADT month;	   /* of the source; DATEVAL_NOEND: several */
	DateADT upper;	   /* first day after it; DATEVAL_NOEND: none */
	int64	after;	   /* global_seq, or stream_seq of one stream */
	bool	wait;	   /* wait for streams that others hold? */
	bool	exhausted; /* set: the leaf has no more events to move */
	bool	skipped;   /* set: events of a held stream were left */
} RfMoveCursor;

/* What a batch did; the arrays are in the caller's memory, or NULL. */
typedef struct RfMoveResult
{
	int64	   events;
	ArrayType *streams;	 /* streams that events were taken from */
	ArrayType *unclosed; /* streams that may be empty, but are held */
} RfMoveResult;

extern void rf_move_batch(RfStore *store, const RfMoveSpec *spec,
						  RfMoveCursor *cursor, RfMoveResult *result);
extern void rf_move_close(RfStore *store, ArrayType *streams,
						  TimestampTz before);

#endif /* RF_MOVE_H */
