/*-------------------------------------------------------------------------
 *
 * scout.h
 *	  What is due in a database, and what each policy does.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_SCOUT_H
#define RF_SCOUT_H

#include "rillflow.h"

#include "board.h"

extern bool rf_scout_find(TimestampTz now, RfJob *job, bool *more,
						  TimestampTz *due_at);

#endif /* RF_SCOUT_H */
