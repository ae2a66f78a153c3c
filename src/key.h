/*-------------------------------------------------------------------------
 *
 * key.h
 *	  Idempotency keys: rf_event_keys.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_KEY_H
#define RF_KEY_H

#include "rillflow.h"

#include "store.h"

extern text *rf_key_of_headers(Datum headers);
extern bool	 rf_key_find(RfStore *store, RfKey *key);
extern void	 rf_key_claim(RfStore *store, const RfKey *keys, int count);

#endif /* RF_KEY_H */
