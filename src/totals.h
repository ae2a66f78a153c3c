/*-------------------------------------------------------------------------
 *
 * totals.h
 *	  rf_archive_totals: what was done since the store was made, in sums.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_TOTALS_H
#define RF_TOTALS_H

#include "rillflow.h"

#include "nodes/pg_list.h"
#include "utils/snapshot.h"

/* Counters, in the order of their columns. */
typedef enum RfCounter
{
	RF_COUNT_MARKED,
	RF_COUNT_REACTIVATED,
	RF_COUNT_MOVED,		 /* events that became cold by rows */
	RF_COUNT_FLIPPED,	 /* … by flips; see totals.c */
	RF_COUNT_EXCESS,	 /* how many too many those are */
	RF_COUNT_REDIRECTED, /* events */
	RF_COUNTERS
} RfCounter;

/* What is timed. */
typedef enum RfTimer
{
	RF_TIME_BATCH,
	RF_TIME_FLIP,
	RF_TIMERS
} RfTimer;

/* Durations up to so many microseconds; longer ones are in the last bucket. */
#define RF_TIME_BOUNDS                                                       \
	{                                                                        \
		5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, \
			5000000, 10000000                                                \
	}
#define RF_TIME_BUCKETS 12

typedef struct RfTimes
{
	int64 microseconds; /* in all */
	int64 buckets[RF_TIME_BUCKETS];
} RfTimes;

typedef struct RfTotals
{
	int64	counters[RF_COUNTERS];
	RfTimes times[RF_TIMERS];
} RfTotals;

/* The totals of a tenant of a conjoined store. */
typedef struct RfTenantTotals
{
	uint32		tenant; /* 0: of none, or of many */
	const char *name;	/* '' there */
	RfTotals	totals;
} RfTenantTotals;

/*
 * Columns of the table: the slot, whose it is, the counters, the times and
 * their buckets.
 */
#define RF_TOTALS_SLOT 1
#define RF_TOTALS_TENANT 2
#define RF_TOTALS_COUNTER(counter) (3 + (counter))
#define RF_TOTALS_TIME(timer) (3 + RF_COUNTERS + 2 * (timer))
#define RF_TOTALS_BUCKETS(timer) (RF_TOTALS_TIME(timer) + 1)
#define RF_TOTALS_COLUMNS (2 + RF_COUNTERS + 2 * RF_TIMERS)

extern const int64 rf_totals_bounds[RF_TIME_BUCKETS - 1];

extern void	 rf_totals_init(void);
extern void	 rf_totals_count(Oid relid, uint32 tenant, RfCounter counter,
							 int64 by);
extern void	 rf_totals_time(Oid relid, uint32 tenant, RfTimer timer,
							int64 microseconds);
extern void	 rf_totals_count_flip(Oid relid, int64 estimate);
extern void	 rf_totals_correct_flip(Oid relid, int64 estimate, int64 events);
extern void	 rf_totals_read(Oid relid, Snapshot snapshot, uint32 tenant,
							RfTotals *totals);
extern List *rf_totals_read_all(Oid relid, Snapshot snapshot);

#endif /* RF_TOTALS_H */
