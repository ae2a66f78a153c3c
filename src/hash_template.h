/*-------------------------------------------------------------------------
 *
 * hash_template.h
 *	  The server's template of a hash table, where warnings may be errors.
 *
 * It hides a variable of its own.  To be included once for each kind of table,
 * after what lib/simplehash.h wants defined, and so without a guard.
 *
 *-------------------------------------------------------------------------
 */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#include "lib/simplehash.h"
#pragma GCC diagnostic pop
