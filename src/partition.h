/*-------------------------------------------------------------------------
 *
 * partition.h
 *	  Months: the leaf partitions of a store.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_PARTITION_H
#define RF_PARTITION_H

#include "rillflow.h"

#include "store.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

/* the CHECK of a month: the date and the times of its events */
#define RF_MONTH_CHECK "rf_month_bounds"

/* the CHECK of any other leaf: the date of an event is that of its time */
#define RF_TIE_CHECK "rf_bucket_month_tie"
#define RF_TIE                                \
	"isfinite(created_at) AND bucket_month =" \
	" date_trunc('month', created_at AT TIME ZONE 'UTC')::date"

/* A leaf: the days it holds, upper excluded. */
typedef struct RfPartition
{
	Oid		relid;
	DateADT lower;
	DateADT upper;
	bool	is_default;
} RfPartition;

/* The leaves of a tier, while they are searched for one stream after another.
 */
typedef struct RfSearch
{
	Snapshot			 snapshot;
	int					 nleaves;
	struct SearchedLeaf *leaves;
} RfSearch;

/* What came of an attempt to make a month. */
typedef enum RfMonthMade
{
	RF_MONTH_MADE,
	RF_MONTH_LOCKED, /* its locks were not to be had */
	RF_MONTH_NAMED	 /* another table has its name */
} RfMonthMade;

extern DateADT	   rf_partition_month_of(TimestampTz time);
extern TimestampTz rf_partition_start(DateADT month);
extern DateADT	   rf_partition_next_month(DateADT month);

extern char *rf_partition_date_text(DateADT date);
extern char *rf_partition_name(Oid parent, DateADT month);

extern RfTier rf_partition_tier_argument(const char *retention);
extern void	  rf_partition_check_month(DateADT month);

extern List		   *rf_partition_list(Oid parent);
extern RfStore	   *rf_partition_list_tiers(RfStore *store, List **hot,
											List **cold);
extern void			rf_partition_lock_default(Oid parent);
extern Oid			rf_partition_default_of(Oid parent);
extern Oid			rf_partition_of_month(Oid parent, DateADT month);
extern Oid			rf_partition_receiving(Relation parent, DateADT month);
extern RfPartition *rf_partition_find(Oid parent, DateADT month);
extern bool			rf_partition_is_month(const RfPartition *leaf);
extern bool			rf_partition_month_has_name(DateADT month);
extern List *rf_partition_waiting(RfStore *store, RfTier tier, int64 most,
								  int64 *events, int64 *left);
extern Oid	 rf_partition_create(RfStore *store, RfTier tier, DateADT month,
								 const char *tablespace);
extern RfMonthMade rf_partition_try_create(RfStore *store, RfTier tier,
										   DateADT month, ErrorData **error);
extern void	 rf_partition_index_streams(const char *name, const char *qualified,
										bool conjoined, const char *tablespace);
extern void	 rf_partition_guard(const char *table);
extern bool	 rf_partition_holds_stream(Oid leaf, const RfStreamId *stream,
									   Snapshot snapshot);
extern bool	 rf_partition_holds_tenant(Oid leaf, uint32 tenant,
									   Snapshot snapshot);
extern void	 rf_partition_begin_search(RfSearch *search, Oid parent,
									   Snapshot snapshot);
extern bool	 rf_partition_search(RfSearch *search, const RfStreamId *stream,
								 int32 highest, TimestampTz first,
								 TimestampTz last);
extern void	 rf_partition_end_search(RfSearch *search);
extern int64 rf_partition_lowest(Oid leaf);
extern int64 rf_partition_highest(Oid leaf);
extern TimestampTz rf_partition_oldest(Oid leaf);
extern bool		   rf_partition_is_seen(Oid relid);
extern void		   rf_partition_require_silent(Oid relid, bool is_target);
extern void		   rf_partition_require_all_silent(Oid parent);
extern void rf_partition_require_moved(int64 gone, int64 come, Oid source);

#endif /* RF_PARTITION_H */
