/*-------------------------------------------------------------------------
 *
 * model.h
 *	  What one table takes over from another.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_MODEL_H
#define RF_MODEL_H

#include "rillflow.h"

#include "utils/array.h"

/* What can be taken over; several are taken in this order. */
#define RF_MODEL_COLUMNS 0x01 /* those that the other lacks */
#define RF_MODEL_DEFAULTS 0x02
#define RF_MODEL_NOT_NULL 0x04
#define RF_MODEL_CHECKS 0x08
#define RF_MODEL_INDEXES 0x10
#define RF_MODEL_TRIGGERS 0x20
#define RF_MODEL_RIGHTS 0x40
#define RF_MODEL_POLICIES 0x80
#define RF_MODEL_COMMENTS 0x100
#define RF_MODEL_BARE_COLUMNS 0x200 /* with neither default nor NOT NULL */
#define RF_MODEL_READERS 0x400		/* of rights that to SELECT, on a view */

/* what an application sees of its table */
#define RF_MODEL_MANNERS                                      \
	(RF_MODEL_DEFAULTS | RF_MODEL_CHECKS | RF_MODEL_INDEXES | \
	 RF_MODEL_TRIGGERS | RF_MODEL_COMMENTS)

#define RF_MODEL_DRAWERS 0x800 /* USAGE on a sequence for who may INSERT */

extern void	 rf_model_take(Oid from, Oid to, int what);
extern void	 rf_model_run(const char *sql, Oid first, Oid second);
extern void	 rf_model_close(Oid namespace_id);
extern char *rf_model_state(ArrayType *relids);

#endif /* RF_MODEL_H */
