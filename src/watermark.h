/*-------------------------------------------------------------------------
 *
 * watermark.h
 *	  Up to which global_seq nothing is still to come.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_WATERMARK_H
#define RF_WATERMARK_H

#include "rillflow.h"

#include "store.h"
#include "utils/snapshot.h"

/* for who appends: each returns the number above which all of his are */
extern int64 rf_watermark_hold(const RfStore *store);
extern int64 rf_watermark_hold_below(const RfStore *store, int64 number);

/* for who reads */
extern int64 rf_watermark_settled(const RfStore *store, Snapshot snapshot);
extern int64 rf_watermark_push(const RfStore *store, bool count_own);

#endif /* RF_WATERMARK_H */
