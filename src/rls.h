/*-------------------------------------------------------------------------
 *
 * rls.h
 *	  What row security lets a caller do with the rows of a tenant.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_RLS_H
#define RF_RLS_H

#include "rillflow.h"

#include "nodes/nodes.h"

extern bool rf_rls_is_enabled(Oid relid);
extern bool rf_rls_allows(Oid relid, CmdType command, const char *tenant,
						  bool if_unknown);

#endif /* RF_RLS_H */
