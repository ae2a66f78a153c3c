/*-------------------------------------------------------------------------
 *
 * size.h
 *	  How large tables are.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_SIZE_H
#define RF_SIZE_H

#include "rillflow.h"

typedef struct RfSize
{
	int64 bytes; /* with indexes and TOAST */
	int64 heap;	 /* of its rows alone; 0: it has none */
	int64 rows;	 /* about so many, by the statistics */
} RfSize;

/* What is known of the files of tables, for who asks for one after another. */
typedef struct RfFiles RfFiles;

extern RfFiles *rf_size_begin(void);
extern void		rf_size_of_table(RfFiles *files, Oid relid, RfSize *size);

#endif /* RF_SIZE_H */
