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

extern void rf_scout_find(TimestampTz now, RfFinding *finding);

#endif /* RF_SCOUT_H */
