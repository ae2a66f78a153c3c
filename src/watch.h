/*-------------------------------------------------------------------------
 *
 * watch.h
 *	  What changes in a table while it is being adopted.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_WATCH_H
#define RF_WATCH_H

#include "rillflow.h"

#include "source.h"

/*
 * The table of notes: an event that was inserted, 'i', a stream of which events
 * changed otherwise, 'c', a row of rf_streams, 's'.
 */
#define RF_WATCH_NOTES "rf_adopt_changes"

extern void rf_watch_make_notes(const char *schema);
extern void rf_watch_begin(const RfSource *source, const char *schema);
extern bool rf_watch_is_on(const RfSource *source);
extern void rf_watch_end(const RfSource *source);

#endif /* RF_WATCH_H */
