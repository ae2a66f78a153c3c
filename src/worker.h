/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  Moves as a whole: the loop over leaves and batches, and its commits.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_WORKER_H
#define RF_WORKER_H

#include "rillflow.h"

#include "store.h"
#include "throttle.h"

/* How far a loop is. */
typedef struct RfProgress
{
	int64 expected; /* about how many events there are to move */
	int64 events;
	int64 batches;
	int64 months;	  /* that were flipped */
	int	  batch_size; /* that the next batch holds at most */
	char  held_back_by[RF_HELD_BACK_LEN]; /* empty: nothing */
} RfProgress;

/* What the owner of a loop has a say in. */
typedef struct RfLoopControl
{
	TimestampTz deadline; /* stop there; DT_NOEND: never */
	RfThrottle *throttle; /* NULL: batches of one size, and no yielding */

	/* in the transaction of each step, before it commits; false: stop then */
	bool (*on_step)(RfStore *store, const RfProgress *progress, void *arg);
	void *arg;
} RfLoopControl;

extern bool rf_worker_move(const RfStore *store, const RfMoveSpec *spec,
						   const RfLoopControl *control, RfProgress *progress);

#endif /* RF_WORKER_H */
