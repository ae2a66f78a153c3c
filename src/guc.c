/*-------------------------------------------------------------------------
 *
 * guc.c
 *	  The settings of the server process.
 *
 * Only what belongs to the process is a setting.  What a user wants kept
 * where is data, and stands in the tables of a store.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "utils/guc.h"

#include "guc.h"

int rf_guc_batch_size = 500;
int rf_guc_lock_timeout = 500;

void
rf_guc_define(void)
{
	DefineCustomIntVariable("rillflow.batch_size",
							"Events that a batch of a move holds at most.",
							"Used where a move is not given a batch_size.",
							&rf_guc_batch_size, 500, 1, RF_MAX_BATCH,
							PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"rillflow.lock_timeout",
		"Longest wait for locks on tables and for held streams.",
		"Zero waits for ever.", &rf_guc_lock_timeout, 500, 0, INT_MAX,
		PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	MarkGUCPrefixReserved("rillflow");
}
