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

extern bool rf_run_policy(Oid namespace_id, const char *policy);

#endif /* RF_RUN_H */
