/*-------------------------------------------------------------------------
 *
 * wait_point.c
 *	  Places where a test can make a backend wait.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "wait_point.h"

#ifdef RF_TEST_BUILD

#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "catalog/pg_collation.h"

void
rf_wait_point(const char *name)
{
	LOCKTAG tag;
	Datum	key = DirectFunctionCall1Coll(hashtext, C_COLLATION_OID,
										  CStringGetTextDatum(name));

	/* the key space of pg_advisory_lock(int, int) */
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, RF_WAIT_POINT_CLASS,
						 DatumGetUInt32(key), 2);
	(void) LockAcquire(&tag, ShareLock, false, false);
	LockRelease(&tag, ShareLock, false);
}

#endif
