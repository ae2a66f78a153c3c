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

extern void	 rf_policy_read_before(FunctionCallInfo fcinfo, RfMoveSpec *spec);
extern List *rf_policy_sources(RfStore *store, const RfMoveSpec *spec);
extern List *rf_policy_months(RfStore *store, const RfMoveSpec *spec,
							  const RfPartition *source);
extern ArrayType *rf_policy_left_open(RfStore *store);
extern int64	  rf_policy_estimate(RfStore *store, const RfMoveSpec *spec);
extern void		  rf_policy_count(RfStore *store, const RfMoveSpec *spec,
								  int64 *events, int64 *streams, int32 *batches);

#endif /* RF_POLICY_H */
