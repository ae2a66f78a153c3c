/*-------------------------------------------------------------------------
 *
 * row_security.h
 *	  Row security: the policies that tell tenants apart.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_ROW_SECURITY_H
#define RF_ROW_SECURITY_H

#include "rillflow.h"

extern void rf_row_security_pass_on(Oid parent, const char *leaf);

#endif /* RF_ROW_SECURITY_H */
