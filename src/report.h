/*-------------------------------------------------------------------------
 *
 * report.h
 *	  Lines in the server's log: what was done, as fields.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_REPORT_H
#define RF_REPORT_H

#include "rillflow.h"

#include "lib/stringinfo.h"

/* How often what a line tells of is done. */
typedef enum RfPace
{
	RF_NOW_AND_THEN,  /* by people, or once a month */
	RF_BY_THE_HUNDRED /* again and again, by a loop */
} RfPace;

extern void rf_report_init(void);
extern bool rf_report_wanted(RfPace pace, int64 microseconds);
extern void rf_report_begin(StringInfo line, const char *what);
extern void rf_report_text(StringInfo line, const char *key, const char *value);
extern void rf_report_number(StringInfo line, const char *key, int64 value);
extern void rf_report_time(StringInfo line, int64 microseconds);
extern void rf_report_at_commit(StringInfo line);
extern void rf_report_now(StringInfo line);

#endif /* RF_REPORT_H */
