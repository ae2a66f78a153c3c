/*-------------------------------------------------------------------------
 *
 * lock.h
 *	  Locks on tables, taken within a limit, so that nobody waits for long.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_LOCK_H
#define RF_LOCK_H

#include "rillflow.h"

#include "storage/lockdefs.h"

/* Until when the locks of one attempt may be waited for. */
typedef struct RfLockLimit
{
	TimestampTz deadline;
} RfLockLimit;

extern void rf_lock_limit_waits(int longest_ms);
extern void rf_lock_begin(RfLockLimit *limit);
extern void rf_lock_table(const RfLockLimit *limit, Oid relid, LOCKMODE mode);
extern bool rf_lock_is_wanted(Oid relid);
extern bool rf_lock_database_is_wanted(Oid database);
extern void rf_lock_makers(const RfLockLimit *limit, Oid namespace_id);
extern void rf_lock_checkpoints(const RfLockLimit *limit, Oid namespace_id,
								bool shared);
extern bool rf_lock_try_checkpoints(Oid namespace_id);
extern bool rf_lock_run(Oid namespace_id);
extern bool rf_lock_keep_runs_away(Oid namespace_id);
extern bool rf_lock_run_is_free(Oid namespace_id);
extern void rf_lock_counters(Oid namespace_id);
extern void rf_lock_retry(void (*work)(void *arg), void *arg);
extern void rf_lock_pause(long ms);

#endif /* RF_LOCK_H */
