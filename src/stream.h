/*-------------------------------------------------------------------------
 *
 * stream.h
 *	  Rows of rf_streams: state and head of a stream.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_STREAM_H
#define RF_STREAM_H

#include "rillflow.h"

#include "access/genam.h"
#include "executor/tuptable.h"
#include "storage/itemptr.h"
#include "store.h"
#include "utils/array.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

/* What rf_streams says of a stream. */
typedef struct RfStreamState
{
	bool			exists;
	ItemPointerData tid;  /* with xmin, says which version of the row it is */
	TransactionId	xmin; /* set by reads, not by rf_stream_lock() */
	int32			last_seq; /* the head: 0 when it has no event yet */
	bool			archived;
	TimestampTz		first_event_at; /* DT_NOEND, DT_NOBEGIN when it has none */
	TimestampTz		last_event_at;
} RfStreamState;

/* What it takes to read one stream after the other. */
typedef struct RfStreamReader
{
	Relation		rel;
	Relation		index;
	IndexScanDesc	scan;
	TupleTableSlot *slot;
	bool			conjoined;
} RfStreamReader;

/* A stream that seems to have no hot event left. */
typedef struct RfCandidate
{
	RfStreamId		stream;
	ItemPointerData tid;	/* version of the row that was read */
	bool			closed; /* set when it has been archived */
} RfCandidate;

/* What an INSERT has found a stream to be, and relies on. */
typedef enum RfExpected
{
	RF_EXPECT_NOTHING,
	RF_EXPECT_ACTIVE,
	RF_EXPECT_ARCHIVED
} RfExpected;

/* A head to be raised from base to head, if it still is at base. */
typedef struct RfRaise
{
	RfStreamId		stream;
	bool			exists;
	ItemPointerData tid; /* version of the row that was read */
	int32			base;
	int32			head;
	TimestampTz		first; /* range of created_at of the new events */
	TimestampTz		last;
	bool			reopens;  /* opens a closed stream again? */
	RfExpected		expected; /* fail when it was archived, or taken back */
} RfRaise;

/*
 * Where one stream is meant, an id stands for the stream of the tenant that
 * the store is restricted to.
 */

/* state */
extern RfStreamId  rf_stream_of(const RfStore *store, const pg_uuid_t *id);
extern RfStreamId  rf_stream_in_row(uint64 row);
extern RfStreamId *rf_stream_of_arrays(Datum ids, Datum tenants, int *count);
extern void		   rf_stream_make_arrays(const RfStore	  *store,
										 const RfStreamId *streams, int count,
										 Datum *values);
extern void		   rf_stream_read(RfStore *store, const pg_uuid_t *id,
								  Snapshot snapshot, RfStreamState *state);
extern void		   rf_stream_begin_read(RfStreamReader *reader, RfStore *store,
										Snapshot snapshot);
extern void		   rf_stream_read_next(RfStreamReader	*reader,
									   const RfStreamId *stream, RfStreamState *state);
extern void		   rf_stream_end_read(RfStreamReader *reader);
extern void		   rf_stream_count(const RfStore *store, int64 *active,
								   int64 *archived);
extern void		   rf_stream_read_latest(RfStore *store, const pg_uuid_t *id,
										 RfStreamState *state);
extern void		   rf_stream_read_active(RfStore *store, const pg_uuid_t *id,
										 RfStreamState *state);
extern void		   rf_stream_lock(RfStore *store, const pg_uuid_t *id,
								  RfStreamState *state);

/* the head, raised at once */
extern int32 rf_stream_raise(RfStore *store, const pg_uuid_t *id, int32 by,
							 TimestampTz first, TimestampTz last, bool reopen,
							 bool *archived);
extern void	 rf_stream_report_full(const pg_uuid_t *id);
extern void	 rf_stream_lower(RfStore *store, const pg_uuid_t *id, int32 by);

/* closing */
extern void rf_stream_close(RfStore *store, RfCandidate *candidates, int count);

/* the heads of a statement */
extern void rf_stream_compare_and_raise(RfStore *store, RfRaise *raises,
										int count);
extern void rf_stream_report_taken(const pg_uuid_t *id, int32 number,
								   int32 last_seq);

#endif /* RF_STREAM_H */
