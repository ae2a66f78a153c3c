/*-------------------------------------------------------------------------
 *
 * rillflow.c
 *	  Where the library begins.
 *
 * The library works whether it is preloaded or not: a session that calls one
 * of its functions, or inserts an event, loads it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"

#include "compat.h"
#include "direct.h"
#include "frame.h"
#include "guc.h"
#include "scan.h"
#include "store.h"

PG_MODULE_MAGIC;

void
_PG_init(void)
{
	rf_guc_define();
	rf_store_init();
	rf_frame_init();
	rf_direct_init();
	rf_scan_init();
}
