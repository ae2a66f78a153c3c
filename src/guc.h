/*-------------------------------------------------------------------------
 *
 * guc.h
 *	  The settings of the server process.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_GUC_H
#define RF_GUC_H

#include "rillflow.h"

extern int rf_guc_batch_size;
extern int rf_guc_lock_timeout;

extern void rf_guc_define(void);

#endif /* RF_GUC_H */
