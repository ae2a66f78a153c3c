/*-------------------------------------------------------------------------
 *
 * rillflow.h
 *	  Words that every part of Rillflow shares.
 *
 * Nothing here depends on another file of the project.  What a word means is
 * told in src/README.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RILLFLOW_H
#define RILLFLOW_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/date.h"
#include "utils/uuid.h"

/* Conditions an application wants to tell apart; class RF is ours. */
#define ERRCODE_RF_WRONG_HEAD MAKE_SQLSTATE('R', 'F', '0', '0', '1')
#define ERRCODE_RF_STREAM_MARKED MAKE_SQLSTATE('R', 'F', '0', '0', '2')
#define ERRCODE_RF_KEY_TAKEN MAKE_SQLSTATE('R', 'F', '0', '0', '3')

/* The highest number of events that one batch may hold. */
#define RF_MAX_BATCH 100000

/* The most policies that run at the same time. */
#define RF_MAX_WORKERS 32

/* Who archived a stream, and why, when a move emptied its hot part. */
#define RF_CLOSED_BY "archive_move"
#define RF_CLOSED_REASON "auto"

/* The channel that appends notify. */
#define RF_CHANNEL "rillflow_events"

/* A text argument of a SQL function as a string, null as NULL. */
#define RF_GETARG_STRING(n) \
	(PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n)))

/* Where an event lives. */
typedef enum RfTier
{
	RF_HOT,
	RF_COLD
} RfTier;

/* What keeps the cold tier. */
typedef enum RfBackend
{
	RF_DUAL_TABLE,
	RF_PARTITIONED
} RfBackend;

/*
 * A stream: its id and, in a conjoined store, whose it is, as a number
 * (tenancy.h); 0 in a single store.
 */
typedef struct RfStreamId
{
	pg_uuid_t uuid;
	uint32	  tenant;
} RfStreamId;

/* How far a consumer has read; of none: no name, and PG_INT64_MAX. */
typedef struct RfCheckpoint
{
	char	   *name;
	int64		global_seq; /* the last event it has read */
	TimestampTz updated_at;
} RfCheckpoint;

/* Which events a move is asked to take. */
typedef struct RfMoveSpec
{
	TimestampTz before;		   /* events created before this */
	int			batch_size;	   /* events a batch holds at most */
	bool		has_stream;	   /* of one stream only? */
	pg_uuid_t	stream_id;	   /* that stream */
	bool		only_archived; /* of archived streams only? */
	bool		commits;	   /* may it commit between its steps? */
	TimestampTz now;

	bool		 ignore_consumers; /* go beyond their checkpoints? */
	RfCheckpoint limit;			   /* events up to there, as of this step */
} RfMoveSpec;

/* An idempotency key, and the event that bears it. */
typedef struct RfKey
{
	text	  *key;
	RfStreamId stream;
	int32	   stream_seq;
	int64	   global_seq;
} RfKey;

static inline bool
rf_uuid_equal(const pg_uuid_t *a, const pg_uuid_t *b)
{
	return memcmp(a->data, b->data, UUID_LEN) == 0;
}

static inline bool
rf_same_stream(const RfStreamId *a, const RfStreamId *b)
{
	return a->tenant == b->tenant && rf_uuid_equal(&a->uuid, &b->uuid);
}

#endif /* RILLFLOW_H */
