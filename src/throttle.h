/*-------------------------------------------------------------------------
 *
 * throttle.h
 *	  How large a batch of a worker is, and when it waits for others.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_THROTTLE_H
#define RF_THROTTLE_H

#include "rillflow.h"

/* Room for what holds a run back: a name, and what it is the name of. */
#define RF_HELD_BACK_LEN (NAMEDATALEN + 64)

/* How long a batch waits for a lock at most. */
#define RF_BATCH_LOCK_WAIT_MS 100

typedef struct RfThrottle
{
	int	  size; /* events that the next batch holds at most */
	int	  smallest;
	int	  largest;
	int64 max_lag;	 /* of a replica, in microseconds; 0: no limit */
	long  pause;	 /* ms until what was refused is tried again; 0: now */
	long  waited;	 /* ms of such pauses since something was moved */
	long  patience;	 /* … after which it had better be left */
	bool  is_behind; /* is it a replica that holds the run back? */
	char  held_back_by[RF_HELD_BACK_LEN]; /* empty: nothing */
} RfThrottle;

extern void rf_throttle_init(RfThrottle *throttle, int batch_size,
							 const Interval *max_replica_lag);
extern void rf_throttle_moved(RfThrottle *throttle);
extern void rf_throttle_took(RfThrottle *throttle, bool full, int64 work,
							 int64 commit);
extern bool rf_throttle_refused(RfThrottle *throttle, int sqlstate);
extern bool rf_throttle_is_behind(RfThrottle *throttle);

/* where the WAL was, and when: for all processes of the server */
extern void rf_throttle_shmem_request(void);
extern void rf_throttle_shmem_init(void);
extern void rf_throttle_sample(void);

#endif /* RF_THROTTLE_H */
