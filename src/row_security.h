/*-------------------------------------------------------------------------
 *
 * row_security.h
 *	  Row security: the tenants' policies, and what they let a caller do.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_ROW_SECURITY_H
#define RF_ROW_SECURITY_H

#include "rillflow.h"

#include "store.h"

/* asking */
extern bool rf_row_security_applies(Oid relid);
extern void rf_row_security_require_insert(const RfStore   *store,
										   const char	   *tenant,
										   const pg_uuid_t *stream_id);
extern void rf_row_security_require_update(const RfStore   *store,
										   const char	   *tenant,
										   const pg_uuid_t *stream_id);
extern void rf_row_security_require_select(const RfStore *store,
										   const char	 *tenant);

/* policies */
extern void rf_row_security_pass_on(Oid parent, const char *leaf);

#endif /* RF_ROW_SECURITY_H */
