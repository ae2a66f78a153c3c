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
#include "miscadmin.h"
#include "storage/ipc.h"

#include "board.h"
#include "compat.h"
#include "direct.h"
#include "frame.h"
#include "guc.h"
#include "launcher.h"
#include "report.h"
#include "scan.h"
#include "store.h"
#include "throttle.h"
#include "totals.h"

PG_MODULE_MAGIC;

static shmem_request_hook_type next_shmem_request;
static shmem_startup_hook_type next_shmem_startup;

static void
request_shmem(void)
{
	if (next_shmem_request != NULL)
		next_shmem_request();
	rf_board_request();
	rf_throttle_shmem_request();
}

static void
start_shmem(void)
{
	if (next_shmem_startup != NULL)
		next_shmem_startup();
	rf_board_shmem_init();
	rf_throttle_shmem_init();
}

/* What only a server that preloads the library gets; pg_upgrade moves nothing.
 */
static void
init_preloaded(void)
{
	next_shmem_request = shmem_request_hook;
	shmem_request_hook = request_shmem;
	next_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = start_shmem;
	if (!IsBinaryUpgrade)
		rf_launcher_register();
}

void
_PG_init(void)
{
	rf_guc_define();
	rf_store_init();
	rf_totals_init();
	rf_report_init();
	rf_frame_init();
	rf_direct_init();
	rf_scan_init();
	rf_board_init();
	if (process_shared_preload_libraries_in_progress)
		init_preloaded();
}
