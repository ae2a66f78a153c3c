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

extern int	rf_guc_batch_size;
extern int	rf_guc_lock_timeout;
extern int	rf_guc_naptime;
extern int	rf_guc_max_workers;
extern bool rf_guc_worker;
extern int	rf_guc_log_min_duration;

extern void rf_guc_define(void);

#endif /* RF_GUC_H */
