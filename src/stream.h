/*-------------------------------------------------------------------------
 *
 * stream.h
 *	  Rows of rf_streams: state, head and mark of a stream.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_STREAM_H
#define RF_STREAM_H

#include "rillflow.h"

#include "store.h"
#include "utils/snapshot.h"

/* What rf_streams says of a stream. */
typedef struct RfStreamState
{
	bool		exists;
	int32		last_seq; /* the head: 0 when it has no event yet */
	bool		archived;
	TimestampTz first_event_at; /* DT_NOEND, DT_NOBEGIN when it has none */
	TimestampTz last_event_at;
} RfStreamState;

/* A head that a statement has raised in memory, and not yet in the table. */
typedef struct RfHead
{
	pg_uuid_t		 stream_id; /* hash key */
	bool			 known;		/* false: read it again */
	bool			 exists;
	bool			 archived;
	bool			 locked;
	bool			 landed_hot; /* a row of it went to the hot tier */
	int32			 base;		 /* head in the table */
	int32			 head;		 /* head with the rows of this statement */
	TimestampTz		 first;		 /* range of created_at of those rows */
	TimestampTz		 last;
	SubTransactionId flushed_in;
} RfHead;

typedef struct RfFrame RfFrame;

extern void rf_stream_init(void);

/* state */
extern void	 rf_stream_read(RfStore *store, const pg_uuid_t *id,
							Snapshot snapshot, RfStreamState *state);
extern void	 rf_stream_read_latest(RfStore *store, const pg_uuid_t *id,
								   RfStreamState *state);
extern void	 rf_stream_lock(RfStore *store, const pg_uuid_t *id,
							RfStreamState *state);
extern char *rf_stream_id_text(const pg_uuid_t *id);

/* the head, raised at once */
extern int32 rf_stream_raise(RfStore *store, const pg_uuid_t *id, int32 by,
							 TimestampTz first, TimestampTz last, bool reopen,
							 bool *archived);
extern void	 rf_stream_lower(RfStore *store, const pg_uuid_t *id, int32 by);

/* the heads of a statement */
extern RfFrame		*rf_stream_open_frame(RfStore *store, bool trusted);
extern RfFrame		*rf_stream_find_frame(Oid leaf);
extern RfFrame		*rf_stream_frame_of_events(Oid events);
extern bool			 rf_stream_frame_trusted(const RfFrame *frame);
extern RfStore		*rf_stream_frame_store(const RfFrame *frame);
extern const RfLeaf *rf_stream_frame_leaf(const RfFrame *frame);
extern RfHead		*rf_stream_head(RfFrame *frame, const pg_uuid_t *id);
extern int32 rf_stream_number(RfFrame *frame, RfHead *head, int32 wanted);
extern void	 rf_stream_advance(RfFrame *frame, RfHead *head,
							   TimestampTz created_at, bool in_leaf, bool hot);
extern void	 rf_stream_saw_global_seq(RfFrame *frame, int64 global_seq);
extern void	 rf_stream_remember_key(RfFrame *frame, const RfKey *key);
extern const RfKey *rf_stream_frame_keys(const RfFrame *frame, int *count);
extern int64		rf_stream_frame_max_global_seq(const RfFrame *frame);
extern int64		rf_stream_last_global_seq(void);
extern void			rf_stream_close_frame(RfFrame *frame);
extern void			rf_stream_flush(void);

#endif /* RF_STREAM_H */
