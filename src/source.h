/*-------------------------------------------------------------------------
 *
 * source.h
 *	  Plain tables of events, which are to be adopted.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_SOURCE_H
#define RF_SOURCE_H

#include "rillflow.h"

#include "utils/array.h"

/* A plain table of events, and what stands beside it; InvalidOid: nothing. */
typedef struct RfSource
{
	Oid	 events;
	Oid	 archive;
	Oid	 streams;
	Oid	 sequence; /* that draws global_seq */
	bool owns_sequence;
	bool has_identity; /* then it needs no right on the sequence */
	Oid	 owner;
} RfSource;

/* how many tables it has at most */
#define RF_SOURCE_TABLES 3

extern void	 rf_source_find(Oid relid, bool alone, RfSource *source);
extern int	 rf_source_tables(const RfSource *source, Oid *tables);
extern void	 rf_source_check_shape(const RfSource *source);
extern void	 rf_source_check_rows(const RfSource *source, ArrayType *streams);
extern void	 rf_source_check_noted(const RfSource *source, const char *notes);
extern void	 rf_source_check_use(Oid relid, Oid but);
extern bool	 rf_source_is_filled(const char *name);
extern char *rf_source_rows(const RfSource *source, const char *columns);

#endif /* RF_SOURCE_H */
