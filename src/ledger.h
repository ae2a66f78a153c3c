/*-------------------------------------------------------------------------
 *
 * ledger.h
 *	  rf_archive_log: what was done, by whom, when, to how many events.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_LEDGER_H
#define RF_LEDGER_H

#include "rillflow.h"

#include "store.h"

/*
 * What a ledger row tells; what does not apply is null or negative.  The tenant
 * is that which the store is restricted to.
 */
typedef struct RfLedgerEntry
{
	const char		*action;
	const pg_uuid_t *stream_id;
	DateADT			 bucket_month; /* DATEVAL_NOEND: of no one month */
	int64			 events;
	bool			 estimated; /* are events from the statistics? */
	int64			 streams;
	TimestampTz		 started_at; /* 0: no duration */
	const char		*detail;
	const char		*by; /* for the log alone; NULL: the session user */
} RfLedgerEntry;

#define RF_LEDGER_ENTRY(what)                                          \
	{                                                                  \
		.action = (what), .bucket_month = DATEVAL_NOEND, .events = -1, \
		.streams = -1                                                  \
	}

extern void rf_ledger_write(RfStore *store, const RfLedgerEntry *entry);
extern void rf_ledger_write_streams(RfStore *store, const char *action,
									const RfStreamId *streams, int count,
									const char *detail);

#endif /* RF_LEDGER_H */
