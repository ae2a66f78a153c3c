/*-------------------------------------------------------------------------
 *
 * launcher.h
 *	  The processes that run policies by themselves.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_LAUNCHER_H
#define RF_LAUNCHER_H

#include "rillflow.h"

#include "fmgr.h"

extern void				rf_launcher_register(void);
extern PGDLLEXPORT void rf_launcher_main(Datum arg);
extern PGDLLEXPORT void rf_scout_main(Datum arg);
extern PGDLLEXPORT void rf_worker_main(Datum arg);

#endif /* RF_LAUNCHER_H */
