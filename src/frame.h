/*-------------------------------------------------------------------------
 *
 * frame.h
 *	  The heads that INSERT statements raise in memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_FRAME_H
#define RF_FRAME_H

#include "rillflow.h"

#include "nodes/bitmapset.h"
#include "store.h"
#include "stream.h"
#include "utils/relcache.h"

/* Where a row ends up. */
typedef enum RfLanding
{
	RF_LANDS_HOT,
	RF_LANDS_COLD,
	RF_REDIRECTED
} RfLanding;

/* A row that our own writer inserts. */
typedef struct RfExpectedRow
{
	RfStreamId stream;
	int32	   stream_seq;
	int64	   global_seq; /* 0: set when the row has got it */
	bool	   arrived;
} RfExpectedRow;

/* A leaf that rows of a statement go to. */
typedef struct RfFrameLeaf
{
	RfLeaf leaf;			/* its relid is the hash key */
	int64  inserted_before; /* the server's count when it was new */
	int64  numbered;		/* rows that were given a number for it */
} RfFrameLeaf;

/* Numbers first..last of a stream, whose rows went to one leaf. */
typedef struct RfRun
{
	RfFrameLeaf *leaf;
	int32		 first;
	int32		 last;
} RfRun;

/* A stream that rows of a statement belong to. */
typedef struct RfHead
{
	RfRaise			 raise;
	bool			 known; /* false: read it again */
	bool			 archived;
	bool			 locked;
	SubTransactionId flushed_in; /* raised in the table, by whom */
	int64			 redirected; /* rows that went to the cold tier instead */
	RfRun			 run;		 /* the last one */
	struct RfHead	*next;
} RfHead;

/* A statement that inserts into events. */
typedef struct RfFrame
{
	struct RfFrame	*below;
	RfStore			*store;
	SubTransactionId subid;	  /* that it runs in */
	bool			 trusted; /* rows come numbered, from our own writer */
	bool count_proves;		  /* is the server's count of rows to be trusted? */
	MemoryContext	   context;
	RfExpectedRow	  *expected_row; /* of a trusted statement */
	int				   nflushed;   /* heads that subtransactions have raised */
	Bitmapset		  *tenants;	   /* that the caller was found to be allowed */
	RfFrameLeaf		  *leaf;	   /* where the last row went */
	RfHead			  *last_head;  /* stream of the last row */
	RfHead			  *heads;	   /* all streams, the newest first */
	RfHead			   first_head; /* most statements write one stream */
	struct heads_hash *others;	   /* the others, by stream */
	RfFrameLeaf		   first_leaf; /* in one month */
	HTAB			  *leaves;
	int				   nleaves;
	struct RfOldRun	  *runs; /* runs before the last one of each stream */
	int				   nruns;
	int				   maxruns;
	RfKey			  *keys; /* idempotency keys of its rows */
	int				   nkeys;
	int				   maxkeys;
	int64			   max_global_seq;
	int64			   drawn_above; /* our locks say that numbers are */
} RfFrame;

extern void rf_frame_init(void);

extern RfFrame *rf_frame_open(RfStore *store, bool trusted);
extern RfFrame *rf_frame_of_leaf(Relation rel);
extern RfFrame *rf_frame_of_events(Oid events);
extern bool		rf_frame_is_open(Oid events);
extern RfHead  *rf_frame_head(RfFrame *frame, const RfStreamId *stream);
extern int32	rf_frame_number(RfFrame *frame, RfHead *head, int32 wanted);
extern void		rf_frame_advance(RfFrame *frame, RfHead *head,
								 TimestampTz created_at, RfLanding landing);
extern void		rf_frame_remember_key(RfFrame *frame, const RfKey *key);
extern void		rf_frame_close(RfFrame *frame);
extern void		rf_frame_expect(RfExpectedRow *row);
extern void		rf_frame_arrive(RfFrame *frame, const RfStreamId *stream,
								int32 stream_seq, int64 global_seq);
extern void		rf_frame_flush(void);
extern bool		rf_frame_none_open(void);

#endif /* RF_FRAME_H */
