/*-------------------------------------------------------------------------
 *
 * install.h
 *	  Making a store, and removing it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_INSTALL_H
#define RF_INSTALL_H

#include "rillflow.h"

#include "store.h"

extern void rf_install_create_store(Oid namespace_id, const char *tenant,
									const char *tenancy);
extern void rf_install_create_view(Oid namespace_id);
extern void rf_install_drop_triggers(const RfStore *store);
extern void rf_install_restart_log(const char *schema);
extern void rf_install_register(const char *schema, const char *tenant,
								const char *tenancy);
extern void rf_install_unregister(const char *schema);
extern void rf_install_note_layout(const char *schema);
extern void rf_install_take_up_layout(Oid namespace_id);
extern void rf_install_drop_store(RfStore *store, bool with_events);
extern void rf_install_require_free_tenant(const char *schema,
										   const char *tenant);

#endif /* RF_INSTALL_H */
