/*-------------------------------------------------------------------------
 *
 * plan.h
 *	  Deciding what a move takes, and in which order.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_PLAN_H
#define RF_PLAN_H

#include "rillflow.h"

#include "fmgr.h"
#include "partition.h"
#include "store.h"

/* How a month goes. */
typedef enum RfMethod
{
	RF_BY_ROWS,
	RF_BY_FLIP,
	RF_BY_FLIP_JOINED /* what is cold of it comes over first */
} RfMethod;

/* How many streams rf_plan_emptied() names at most. */
#define RF_PLAN_PAGE 1000

extern void		rf_plan_read_before(FunctionCallInfo fcinfo, RfMoveSpec *spec);
extern List	   *rf_plan_sources(RfStore *store, const RfMoveSpec *spec);
extern List	   *rf_plan_months(RfStore *store, const RfMoveSpec *spec,
							   const RfPartition *source);
extern RfMethod rf_plan_method(RfStore *store, const RfMoveSpec *spec,
							   const RfPartition *source, char **reason);
extern DateADT	rf_plan_flipped_until(RfStore *store);
extern RfStreamId *rf_plan_emptied(RfStore *store, const RfMoveSpec *spec,
								   DateADT until, const RfStreamId *from,
								   int *count);
extern RfStreamId *rf_plan_left_open(RfStore *store, int *count);
extern int64	   rf_plan_estimate_leaf(RfStore *store, Oid leaf);
extern int64	   rf_plan_estimate(RfStore *store, const RfMoveSpec *spec);
extern bool rf_plan_report_held_back(RfStore *store, const RfMoveSpec *spec);
extern void rf_plan_count(RfStore *store, const RfMoveSpec *spec, int64 *events,
						  int64 *streams, int32 *batches, int32 *flips);

#endif /* RF_PLAN_H */
