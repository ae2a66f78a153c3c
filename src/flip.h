/*-------------------------------------------------------------------------
 *
 * flip.h
 *	  Flips: a whole month changes tier as metadata.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_FLIP_H
#define RF_FLIP_H

#include "rillflow.h"

#include "partition.h"
#include "store.h"

/* the CHECK that lets ATTACH do without a scan */
#define RF_FLIP_PROOF "rf_flip_bounds"

/* What stands in the way of a flip, as the month is now. */
typedef enum RfFlipState
{
	RF_FLIP_READY,
	RF_FLIP_RIVAL_SEEN, /* the other tier's leaf is empty, but was not long ago
						 */
	RF_FLIP_RIVAL_SMALLER,	 /* the other tier holds a smaller part of it */
	RF_FLIP_RIVAL_LARGER,	 /* … a larger part */
	RF_FLIP_RIVAL_ELSEWHERE, /* its leaf lies in another tablespace */
	RF_FLIP_REFUSED
} RfFlipState;

extern RfFlipState rf_flip_state(RfStore *store, Oid from, Oid to,
								 const RfPartition *leaf, char **why);
extern Oid		   rf_flip_month(RfStore *store, RfTier tier, DateADT month,
								 bool ignore_consumers, TimestampTz *locked_at);
extern void		   rf_flip_hold(Oid leaf);
extern void		   rf_flip_let_go(Oid leaf);
extern void	 rf_flip_count(RfStore *store, Oid leaf, DateADT month, bool late);
extern List *rf_flip_uncounted(RfStore *store);
extern void	 rf_flip_add_proof(Oid leaf, const char *condition);
extern int64 rf_flip_absorb(RfStore *store, Oid small, Oid large, int limit,
							int64 up_to);
extern void	 rf_flip_cold_tier(RfStore *store, RfBackend backend);

#endif /* RF_FLIP_H */
