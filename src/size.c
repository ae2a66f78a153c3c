/*-------------------------------------------------------------------------
 *
 * size.c
 *	  How large tables are.
 *
 * The functions of the server open each table with all its indexes, to ask the
 * file system.  Of 500 stores that makes a hundred thousand relations to lock,
 * to read from the catalogs, and to keep in the backend's memory.  Here the
 * catalogs are asked where the files are, and nothing is opened, locked or
 * kept. A relation that is dropped or rewritten meanwhile counts as far as its
 * files are found.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "compat.h"
#include "size.h"

/* What pg_class says of a relation. */
typedef struct Entry
{
	bool   found;
	bool   is_index;
	Oid	   file; /* its number; InvalidOid: no file of its own */
	Oid	   tablespace;
	Oid	   toast;
	float4 rows;
} Entry;

static SysScanDesc
begin_scan(Relation catalog, Oid index, AttrNumber column, Oid value)
{
	ScanKeyData key;

	ScanKeyInit(&key, column, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(value));
	return systable_beginscan(catalog, index, true, NULL, 1, &key);
}

static Entry
make_entry(HeapTuple tuple)
{
	Entry entry = {0};

	if (HeapTupleIsValid(tuple))
	{
		Form_pg_class form = (Form_pg_class) GETSTRUCT(tuple);

		entry.found = true;
		entry.is_index = form->relkind == RELKIND_INDEX;
		entry.file = form->relfilenode;
		entry.tablespace = OidIsValid(form->reltablespace) ?
							   form->reltablespace :
							   MyDatabaseTableSpace;
		entry.toast = form->reltoastrelid;
		entry.rows = form->reltuples;
	}
	return entry;
}

/* Of what nobody else asks for: it is to fill no cache. */
static Entry
read_entry(Relation pg_class, Oid relid)
{
	SysScanDesc scan = begin_scan(pg_class, ClassOidIndexId, Anum_pg_class_oid,
								  relid);
	Entry		entry = make_entry(systable_getnext(scan));

	systable_endscan(scan);
	return entry;
}

/* Of a leaf, which who lists the partitions of its parent has in the cache. */
static Entry
find_entry(Oid relid)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Entry	  entry = make_entry(tuple);

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return entry;
}

/* The bytes of a file, which is in segments: all but the last are full. */
static int64
file_bytes(const char *path)
{
	const int64 full = (int64) RELSEG_SIZE * BLCKSZ;
	int64		bytes = 0;
	int64		of_segment = full;

	for (unsigned segment = 0; of_segment == full; segment++)
	{
		char		name[MAXPGPATH];
		struct stat found;

		if (segment == 0)
			snprintf(name, MAXPGPATH, "%s", path);
		else
			snprintf(name, MAXPGPATH, "%s.%u", path, segment);
		if (stat(name, &found) == 0)
			of_segment = found.st_size;
		else if (errno == ENOENT)
			of_segment = 0;
		else
			ereport(ERROR, (errcode_for_file_access(),
							errmsg("could not stat file \"%s\": %m", name)));
		bytes += of_segment;
	}
	return bytes;
}

static int64
fork_bytes(const Entry *entry, ForkNumber fork)
{
	char path[MAXPGPATH];

	rf_compat_relation_path(path, entry->tablespace, entry->file, fork);
	return file_bytes(path);
}

/*
 * All files of a relation; *rows is how much is in the one with its rows.  One
 * without rows has no other file that counts, and only tables have a map of
 * what is visible.  An index that is no more than its first page and a root has
 * never had a page to spare, of which a map would tell.
 */
static int64
relation_bytes(const Entry *entry, int64 *rows)
{
	int64 bytes;

	*rows = 0;
	if (!entry->found || !OidIsValid(entry->file))
		return 0;
	bytes = *rows = fork_bytes(entry, MAIN_FORKNUM);
	if (bytes > (entry->is_index ? 2 * BLCKSZ : 0))
		bytes += fork_bytes(entry, FSM_FORKNUM);
	if (bytes > 0 && !entry->is_index)
		bytes += fork_bytes(entry, VISIBILITYMAP_FORKNUM);
	return bytes;
}

static int64
index_bytes(Relation pg_class, Relation pg_index, Oid table)
{
	SysScanDesc scan = begin_scan(pg_index, IndexIndrelidIndexId,
								  Anum_pg_index_indrelid, table);
	int64		bytes = 0;
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Entry entry =
			read_entry(pg_class,
					   ((Form_pg_index) GETSTRUCT(tuple))->indexrelid);
		int64 rows;

		bytes += relation_bytes(&entry, &rows);
	}
	systable_endscan(scan);
	return bytes;
}

/* The counters of the server where it has any, else what ANALYZE found. */
static int64
count_rows(const Entry *entry, Oid relid)
{
	PgStat_StatTabEntry *stats = pgstat_fetch_stat_tabentry(relid);

	if (rf_compat_has_counters(stats))
		return Max(rf_compat_live_tuples(stats), 0);
	return entry->rows > 0 ? (int64) entry->rows : 0;
}

/* All zero where there is no such table any more. */
void
rf_size_of_table(Oid relid, RfSize *size)
{
	Relation pg_class = table_open(RelationRelationId, AccessShareLock);
	Relation pg_index = table_open(IndexRelationId, AccessShareLock);
	Entry	 entry = find_entry(relid);

	memset(size, 0, sizeof(*size));
	if (entry.found)
	{
		size->bytes = relation_bytes(&entry, &size->heap) +
					  index_bytes(pg_class, pg_index, relid);
		size->rows = count_rows(&entry, relid);
	}
	if (OidIsValid(entry.toast))
	{
		Entry toast = read_entry(pg_class, entry.toast);
		int64 rows;

		size->bytes += relation_bytes(&toast, &rows) +
					   index_bytes(pg_class, pg_index, entry.toast);
	}
	table_close(pg_index, AccessShareLock);
	table_close(pg_class, AccessShareLock);
}
