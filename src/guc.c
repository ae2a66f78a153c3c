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

int	 rf_guc_batch_size = 500;
int	 rf_guc_lock_timeout = 500;
int	 rf_guc_naptime = 10;
int	 rf_guc_max_workers = 2;
bool rf_guc_worker = true;
int	 rf_guc_log_min_duration = 0;

/* policies read it (row_security.c), and no code of ours */
static char *tenant = NULL;

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
	DefineCustomIntVariable("rillflow.naptime",
							"Longest time that a launcher sleeps.", NULL,
							&rf_guc_naptime, 10, 1, 3600, PGC_SIGHUP,
							GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("rillflow.max_workers",
							"Policies that run at the same time at most.", NULL,
							&rf_guc_max_workers, 2, 1, RF_MAX_WORKERS,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("rillflow.worker",
							 "Do policies run by themselves?", NULL,
							 &rf_guc_worker, true, PGC_SIGHUP, 0, NULL, NULL,
							 NULL);
	DefineCustomIntVariable("rillflow.log_min_duration",
							"Shortest action that is logged.",
							"Zero logs all but single batches, -1 none.",
							&rf_guc_log_min_duration, 0, -1, INT_MAX, PGC_SUSET,
							GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomStringVariable(
		"rillflow.tenant", "The tenant that the session is of.",
		"The policies that rf_enable_rls() makes show the rows of that tenant.",
		&tenant, "", PGC_USERSET, 0, NULL, NULL, NULL);
	MarkGUCPrefixReserved("rillflow");
}
