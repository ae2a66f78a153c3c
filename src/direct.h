/*-------------------------------------------------------------------------
 *
 * direct.h
 *	  Events that go into hot leaves without the executor.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_DIRECT_H
#define RF_DIRECT_H

#include "rillflow.h"

#include "access/attnum.h"
#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "store.h"
#include "utils/relcache.h"

/* A column that the writer gives, and its place among his values. */
typedef struct RfColumn
{
	const char *name;
	Oid			type;
} RfColumn;

typedef struct RfDirect
{
	const RfColumn *columns;
	int				ncolumns;
	bool			open;	/* may anything be written at all? */
	Relation		events; /* locked, and the two below it */
	Relation		hot;
	Relation		leaf;	/* the last one that was written to, or NULL */
	int			   *places; /* value of each column of the leaf; or below */
	TupleTableSlot *row;	/* what is to be written, column by column */
	TupleTableSlot *slot;	/* and as the leaf takes it */
	EState		   *estate;
	ResultRelInfo  *result;
} RfDirect;

extern void rf_direct_init(void);
extern void rf_direct_begin(RfDirect *direct, RfStore *store,
							const RfColumn *columns, int ncolumns);
extern bool rf_direct_insert(RfDirect *direct, DateADT month,
							 const Datum *values, const bool *nulls);
extern void rf_direct_end(RfDirect *direct);

#endif /* RF_DIRECT_H */
