/*-------------------------------------------------------------------------
 *
 * size.c
 *	  How large tables are.
 *
 * The functions of the server open each table with all its indexes, to ask the
 * file system.  Of 500 stores that makes a hundred thousand relations to lock,
 * to read from the catalogs, and to keep in the backend's memory.  Here the
 * catalogs are asked where the files are, and nothing is opened, locked or
 * kept.  A relation that is dropped or rewritten meanwhile counts as far as its
 * files are found.
 *
 * To look the relations of one table up takes as long as to read some pages of
 * the catalogs.  Who asks for so many tables that he could have read all of the
 * catalogs has them read, once, and all others looked up in memory.  Where that
 * has grown old, and a file is not what it was, the catalogs are asked again;
 * an index that was made since is not seen.
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
#include "common/hashfn.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "compat.h"
#include "size.h"
#include "wait_point.h"

/* So many pages of the catalogs are read while one table is looked up. */
#define PAGES_PER_TABLE 8

/* What the catalogs say of a relation that has a file. */
typedef struct Entry
{
	Oid	   relid; /* hash key; InvalidOid: there is none */
	Oid	   file;  /* its number */
	Oid	   tablespace;
	Oid	   toast;
	Oid	   next_index; /* of a table the first one, of an index the next */
	float4 rows;
	bool   is_index;
	char   status; /* of the hash table's */
} Entry;

#define SH_PREFIX entries
#define SH_ELEMENT_TYPE Entry
#define SH_KEY_TYPE Oid
#define SH_KEY relid
#define SH_HASH_KEY(table, key) murmurhash32(key)
#define SH_EQUAL(table, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "hash_template.h"

/* The files of the tables that somebody asks for. */
struct RfFiles
{
	MemoryContext context;
	entries_hash *all;	 /* what was read at once; NULL: nothing yet */
	BlockNumber	  asked; /* tables */
};

/*
 * Catalogs
 */

static SysScanDesc
begin_scan(Relation catalog, Oid index, AttrNumber column, Oid value)
{
	ScanKeyData key;

	ScanKeyInit(&key, column, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(value));
	return systable_beginscan(catalog, index, true, NULL, 1, &key);
}

static void
fill_entry(Entry *entry, Form_pg_class form)
{
	entry->relid = form->oid;
	entry->file = form->relfilenode;
	entry->tablespace = OidIsValid(form->reltablespace) ? form->reltablespace :
														  MyDatabaseTableSpace;
	entry->toast = form->reltoastrelid;
	entry->next_index = InvalidOid;
	entry->rows = form->reltuples;
	entry->is_index = form->relkind == RELKIND_INDEX;
}

static bool
has_file(Form_pg_class form)
{
	return OidIsValid(form->relfilenode) &&
		   (form->relkind == RELKIND_RELATION ||
			form->relkind == RELKIND_TOASTVALUE ||
			form->relkind == RELKIND_INDEX);
}

/* One row, which is to fill no cache. */
static Entry
read_entry(Relation pg_class, Oid relid)
{
	SysScanDesc scan = begin_scan(pg_class, ClassOidIndexId, Anum_pg_class_oid,
								  relid);
	HeapTuple	tuple = systable_getnext(scan);
	Entry		entry = {0};

	if (HeapTupleIsValid(tuple) && has_file((Form_pg_class) GETSTRUCT(tuple)))
		fill_entry(&entry, (Form_pg_class) GETSTRUCT(tuple));
	systable_endscan(scan);
	return entry;
}

static void
read_all_entries(entries_hash *all, Relation pg_class)
{
	SysScanDesc scan = systable_beginscan(pg_class, InvalidOid, false, NULL, 0,
										  NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_class form = (Form_pg_class) GETSTRUCT(tuple);
		bool		  found;

		CHECK_FOR_INTERRUPTS();
		if (has_file(form))
			fill_entry(entries_insert(all, form->oid, &found), form);
	}
	systable_endscan(scan);
}

/* Let each table know its indexes. */
static void
chain_all_indexes(entries_hash *all, Relation pg_index)
{
	SysScanDesc scan = systable_beginscan(pg_index, InvalidOid, false, NULL, 0,
										  NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_index form = (Form_pg_index) GETSTRUCT(tuple);
		Entry		 *table = entries_lookup(all, form->indrelid);
		Entry		 *index = entries_lookup(all, form->indexrelid);

		CHECK_FOR_INTERRUPTS();
		if (table != NULL && index != NULL)
		{
			index->next_index = table->next_index;
			table->next_index = index->relid;
		}
		else if (table != NULL) /* it is younger: look for this table again */
			entries_delete_item(all, table);
	}
	systable_endscan(scan);
}

/* It is kept when it is whole; an error in between takes it along. */
static void
read_all(RfFiles *files, Relation pg_class, Relation pg_index)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "Rillflow files",
												  ALLOCSET_SMALL_SIZES);
	float4		  rows = RelationGetForm(pg_class)->reltuples;
	entries_hash *all = entries_create(context, Max(rows, 1024), NULL);

	read_all_entries(all, pg_class);
	chain_all_indexes(all, pg_index);
	MemoryContextSetParent(context, files->context);
	files->all = all;
	RF_WAIT_POINT("size_catalogs_read");
}

/*
 * Files
 */

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
		else if (errno == ENOENT && segment == 0)
			return -1;
		else if (errno == ENOENT)
			of_segment = 0;
		else
			ereport(ERROR, (errcode_for_file_access(),
							errmsg("could not stat file \"%s\": %m", name)));
		bytes += of_segment;
	}
	return bytes;
}

/* -1: there is no such file. */
static int64
fork_bytes(const Entry *entry, ForkNumber fork)
{
	char path[MAXPGPATH];

	rf_compat_relation_path(path, entry->tablespace, entry->file, fork);
	return file_bytes(path);
}

/*
 * Tables
 */

/* One look at a table. */
typedef struct Look
{
	Relation	  pg_class;
	Relation	  pg_index;
	entries_hash *all;	 /* where relations are looked up; NULL: catalogs */
	bool		  stale; /* something is no longer as it was there */
} Look;

static Entry
find_entry(Look *look, Oid relid)
{
	Entry  none = {0};
	Entry *entry;

	if (look->all == NULL)
		return read_entry(look->pg_class, relid);
	entry = entries_lookup(look->all, relid);
	if (entry == NULL)
		look->stale = true;
	return entry == NULL ? none : *entry;
}

/*
 * All files of a relation; *rows is how much is in the one with its rows.  One
 * without rows has no other file that counts, and only tables have a map of
 * what is visible.  An index that is no more than its first page and a root has
 * never had a page to spare, of which a map would tell.
 *
 * The server keeps an empty file in the place of one that it has removed, until
 * the next checkpoint.  A table may be empty, but no index that is whole; and
 * who gives a table another file gives one to its indexes, or at least to that
 * of its TOAST table.
 */
static int64
relation_bytes(Look *look, const Entry *entry, int64 *rows)
{
	int64 bytes;

	*rows = 0;
	if (!OidIsValid(entry->relid))
		return 0;
	bytes = fork_bytes(entry, MAIN_FORKNUM);
	if (bytes < (entry->is_index ? 1 : 0))
		look->stale = true;
	*rows = bytes = Max(bytes, 0);
	if (bytes > (entry->is_index ? 2 * BLCKSZ : 0))
		bytes += Max(fork_bytes(entry, FSM_FORKNUM), 0);
	if (bytes > 0 && !entry->is_index)
		bytes += Max(fork_bytes(entry, VISIBILITYMAP_FORKNUM), 0);
	return bytes;
}

/* Returns the next one. */
static Oid
add_index(Look *look, Oid relid, int64 *bytes)
{
	Entry entry = find_entry(look, relid);
	int64 rows;

	*bytes += relation_bytes(look, &entry, &rows);
	return entry.next_index;
}

static int64
index_bytes(Look *look, const Entry *table)
{
	int64		bytes = 0;
	Oid			index = table->next_index;
	SysScanDesc scan;
	HeapTuple	tuple;

	if (look->all != NULL)
	{
		while (OidIsValid(index))
			index = add_index(look, index, &bytes);
		return bytes;
	}
	scan = begin_scan(look->pg_index, IndexIndrelidIndexId,
					  Anum_pg_index_indrelid, table->relid);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		(void) add_index(look, ((Form_pg_index) GETSTRUCT(tuple))->indexrelid,
						 &bytes);
	systable_endscan(scan);
	return bytes;
}

/* The counters of the server where it has any, else what ANALYZE found. */
static int64
count_rows(const Entry *entry)
{
	PgStat_StatTabEntry *stats = pgstat_fetch_stat_tabentry(entry->relid);

	if (rf_compat_has_counters(stats))
		return Max(rf_compat_live_tuples(stats), 0);
	return entry->rows > 0 ? (int64) entry->rows : 0;
}

static void
measure(Look *look, Oid relid, RfSize *size)
{
	Entry entry = find_entry(look, relid);
	Entry toast;
	int64 rows;

	memset(size, 0, sizeof(*size));
	if (!OidIsValid(entry.relid))
		return;
	size->bytes = relation_bytes(look, &entry, &size->heap) +
				  index_bytes(look, &entry);
	if (size->heap > 0)
		size->rows = count_rows(&entry);
	if (!OidIsValid(entry.toast))
		return;
	toast = find_entry(look, entry.toast);
	size->bytes += relation_bytes(look, &toast, &rows) +
				   index_bytes(look, &toast);
}

RfFiles *
rf_size_begin(void)
{
	RfFiles *files = palloc0(sizeof(RfFiles));

	files->context = CurrentMemoryContext;
	return files;
}

/* All zero where there is no such table any more. */
void
rf_size_of_table(RfFiles *files, Oid relid, RfSize *size)
{
	Look look = {.pg_class = table_open(RelationRelationId, AccessShareLock),
				 .pg_index = table_open(IndexRelationId, AccessShareLock)};

	if (files->all == NULL &&
		++files->asked > (RelationGetNumberOfBlocks(look.pg_class) +
						  RelationGetNumberOfBlocks(look.pg_index)) /
							 PAGES_PER_TABLE)
		read_all(files, look.pg_class, look.pg_index);
	look.all = files->all;
	measure(&look, relid, size);
	if (look.stale && look.all != NULL)
	{
		look.all = NULL;
		measure(&look, relid, size);
	}
	table_close(look.pg_index, AccessShareLock);
	table_close(look.pg_class, AccessShareLock);
}
