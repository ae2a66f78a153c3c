/*-------------------------------------------------------------------------
 *
 * wall.h
 *	  What row security lets a caller do with the rows of a tenant.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_WALL_H
#define RF_WALL_H

#include "rillflow.h"

#include "nodes/nodes.h"

extern bool rf_wall_allows(Oid relid, CmdType command, const char *tenant,
						   bool if_unknown);

#endif /* RF_WALL_H */
