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

extern void rf_wall_require_insert(Oid relid, const char *tenant);
extern void rf_wall_require_update(Oid relid, const char *tenant);
extern void rf_wall_require_select(Oid relid, const char *tenant);

#endif /* RF_WALL_H */
