/*-------------------------------------------------------------------------
 *
 * consumer.h
 *	  Consumers: how far readers of rf_read_all() have come.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_CONSUMER_H
#define RF_CONSUMER_H

#include "rillflow.h"

#include "store.h"

extern List *rf_consumer_list(const RfStore *store);
extern int64 rf_consumer_highest(RfStore *store);
extern void	 rf_consumer_limit(const RfStore *store, bool ignore,
							   RfCheckpoint *limit);
extern void	 rf_consumer_keep(const RfStore *store, bool patient);
extern bool	 rf_consumer_lags(RfStore *store, RfCheckpoint *checkpoint);

#endif /* RF_CONSUMER_H */
