/*-------------------------------------------------------------------------
 *
 * scan.h
 *	  Reading events leaf by leaf, in order, along the leaves' indexes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_SCAN_H
#define RF_SCAN_H

#include "rillflow.h"

#include "access/tupdesc.h"
#include "store.h"
#include "utils/array.h"
#include "utils/tuplestore.h"

/* The columns of an event, as they are read. */
#define RF_SCAN_COLUMNS                                                 \
	"global_seq, stream_id, stream_seq, event_type, body, headers,"     \
	" causation_id, correlation_id, event_version, tenant_id, user_id," \
	" is_tombstone, created_at, retention_class"

/* Which events to read of which tiers, and where to put them. */
typedef struct RfScan
{
	RfStore			*store;
	bool			 archived; /* those of the cold tier, too? */
	int64			 after;	   /* events of a number beyond it */
	int64			 upto;	   /* and not beyond that (rf_scan_all) */
	int64			 limit;	   /* at most so many */
	Tuplestorestate *rows;
	TupleDesc		 tupdesc;
	int64			 last; /* number of the last row (rf_scan_all) */
} RfScan;

/* What is known of the stream that is read. */
typedef struct RfScanStream
{
	pg_uuid_t stream_id;
	int32	  head; /* all numbers up to it are there, once, and no other */
	DateADT	  from; /* months of its events */
	DateADT	  to;
	bool	  backward;
} RfScanStream;

extern void rf_scan_init(void);
extern void rf_scan_lock(const RfStore *store, bool archived);
extern bool rf_scan_all(RfScan *scan, ArrayType *event_types);
extern bool rf_scan_stream(const RfScan *scan, const RfScanStream *stream);

#endif /* RF_SCAN_H */
