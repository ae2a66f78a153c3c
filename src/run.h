/*-------------------------------------------------------------------------
 *
 * run.h
 *	  Runs of policies, on record.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_RUN_H
#define RF_RUN_H

#include "rillflow.h"

#include "board.h"

extern bool rf_run_find(TimestampTz now, RfJob *job, bool *more,
						TimestampTz *due_at);
extern bool rf_run_policy(Oid namespace_id, const char *policy);

#endif /* RF_RUN_H */
