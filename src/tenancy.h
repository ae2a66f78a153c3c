/*-------------------------------------------------------------------------
 *
 * tenancy.h
 *	  The tenants of a conjoined store: their names, as numbers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_TENANCY_H
#define RF_TENANCY_H

#include "rillflow.h"

#include "access/skey.h"

/* Has it the length of a tenant's name, and does not stand for all tenants? */
extern bool rf_tenancy_is_name(const char *name, size_t len);

extern uint32	   rf_tenancy_number(const char *name, size_t len);
extern uint32	   rf_tenancy_number_of(Datum tenant_id);
extern const char *rf_tenancy_name(uint32 number);
extern Datum	   rf_tenancy_datum(uint32 number);
extern bool		   rf_tenancy_is(uint32 number, Datum tenant_id);
extern int rf_tenancy_compare(const RfStreamId *left, const RfStreamId *right);
extern int rf_tenancy_keys(ScanKey keys, const RfStreamId *stream,
						   AttrNumber tenant_id, AttrNumber stream_id);
extern int rf_tenancy_leaf_keys(ScanKey keys, const RfStreamId *stream,
								AttrNumber stream_id, AttrNumber tenant_id);

#endif /* RF_TENANCY_H */
