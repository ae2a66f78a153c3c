/*-------------------------------------------------------------------------
 *
 * hold.h
 *	  Holds: what may be neither dropped nor redacted, and why.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_HOLD_H
#define RF_HOLD_H

#include "rillflow.h"

#include "lock.h"
#include "nodes/pg_list.h"
#include "store.h"

typedef struct RfHold
{
	bool of_all; /* streams, of a tenant or the store; also those to come? */
	RfStreamId stream; /* without one, only whose they are */
	char	  *reason;
} RfHold;

extern void	 rf_hold_keep(const RfStore *store, const RfLockLimit *limit);
extern List *rf_hold_list(const RfStore *store, const RfStreamId *stream);
extern void	 rf_hold_refuse(const RfStore *store, const RfHold *hold,
							const char *what);
extern void	 rf_hold_require_free(const RfStore *store, const pg_uuid_t *id);
extern void	 rf_hold_require_none(const RfStore *store);

#endif /* RF_HOLD_H */
