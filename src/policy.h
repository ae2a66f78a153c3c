/*-------------------------------------------------------------------------
 *
 * policy.h
 *	  Deciding what a move takes, and in which order.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_POLICY_H
#define RF_POLICY_H

#include "rillflow.h"

#include "fmgr.h"
#include "partition.h"
#include "store.h"
#include "utils/array.h"

/* How a month goes. */
typedef enum RfMethod
{
	RF_BY_ROWS,
	RF_BY_FLIP,
	RF_BY_FLIP_JOINED /* what is cold of it comes over first */
} RfMethod;

/* How many streams rf_policy_emptied() names at most. */
#define RF_POLICY_PAGE 1000

extern void	 rf_policy_read_before(FunctionCallInfo fcinfo, RfMoveSpec *spec);
extern List *rf_policy_sources(RfStore *store, const RfMoveSpec *spec);
extern List *rf_policy_months(RfStore *store, const RfMoveSpec *spec,
							  const RfPartition *source);
extern RfMethod	  rf_policy_method(RfStore *store, const RfMoveSpec *spec,
								   const RfPartition *source, char **reason);
extern DateADT	  rf_policy_flipped_until(RfStore *store);
extern ArrayType *rf_policy_emptied(RfStore *store, const RfMoveSpec *spec,
									DateADT until, const pg_uuid_t *from);
extern ArrayType *rf_policy_left_open(RfStore *store);
extern int64	  rf_policy_estimate(RfStore *store, const RfMoveSpec *spec);
extern void		  rf_policy_count(RfStore *store, const RfMoveSpec *spec,
								  int64 *events, int64 *streams, int32 *batches,
								  int32 *flips);

#endif /* RF_POLICY_H */
