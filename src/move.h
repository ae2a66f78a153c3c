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

#include "storage/itemptr.h"
#include "store.h"
#include "utils/hsearch.h"

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

/* What a move knows of a stream, over all of its batches. */
typedef struct RfMoveStream
{
	RfStreamId		stream; /* hash key */
	int32			head;	/* last_seq is not lower; 0: not read yet */
	ItemPointerData tid;	/* version of its row that was read */
	TransactionId	xmin;
	uint64			layout;	   /* of the store when that was read */
	int32			taken;	   /* numbers 1 to this were taken since then */
	bool			touched;   /* were events of it moved? */
	bool			undecided; /* to be looked at again when the move ends? */
	uint32			attempt;   /* in which it was changed last */
} RfMoveStream;

/* The streams of a move; a step that is undone leaves them as they were. */
typedef struct RfMoveStreams
{
	HTAB				*known;	  /* RfMoveStream */
	uint32				 attempt; /* at a step; 0: none can be undone */
	struct RfMoveChange *changes; /* of this attempt */
	int					 nchanges;
	int					 maxchanges;
	MemoryContext		 context;
} RfMoveStreams;

extern RfMoveStreams *rf_move_make_streams(MemoryContext context);
extern RfMoveStream	 *rf_move_stream(RfMoveStreams	  *streams,
									 const RfStreamId *id);
extern void			  rf_move_begin_attempt(RfMoveStreams *streams);
extern void			  rf_move_undo_attempt(RfMoveStreams *streams);

extern int64 rf_move_batch(RfStore *store, const RfMoveSpec *spec,
						   RfMoveCursor *cursor, RfMoveStreams *streams);
extern void	 rf_move_close(RfStore *store, const RfStreamId *ids, int count,
						   RfMoveStreams *streams);
extern void	 rf_move_leave_open(RfStore *store, const RfStreamId *streams,
								int count);
extern void	 rf_move_note_flips_closed(RfStore *store);

#endif /* RF_MOVE_H */
