/*-------------------------------------------------------------------------
 *
 * store.c
 *	  What is known of a store: its tables, switches, rights and kept plans.
 *
 * A store is a schema with the tables that install.c makes, and a row of
 * rf_stores that says so.
 * All that a statement needs to know of it is kept in the backend, found by
 * schema, and thrown away when the relcache says that one of its tables
 * changed.  That is also how a switch takes effect: the trigger on
 * rf_archive_config sends an invalidation of that table, which arrives in
 * every session when the change commits.
 *
 * What was thrown away may still be in use by a statement that runs, so it is
 * freed at the end of the transaction.  A procedure that commits has to look
 * its store up again in each transaction.
 *
 * Events are append-only: a statement trigger on every table that holds them
 * refuses all writers but ours.  We are known by an expected write: before a
 * statement of ours runs, it names the relation it is about to write, and the
 * trigger takes the name off again, once.  A setting could be set by anybody.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "compat.h"
#include "query.h"
#include "rls.h"
#include "store.h"
#include "tenancy.h"

/* columns of rf_stores */
#define STORES_SCHEMA 1
#define STORES_TENANT 2
#define STORES_TENANCY 3
#define STORES_LAYOUT 4

/*
 * Tenants of a conjoined store that a backend knows it restricted to; with
 * more, all that is known of the store is thrown away.
 */
#define MAX_RESTRICTED 4096

/* columns of rf_archive_config */
#define CONFIG_BACKEND 2
#define CONFIG_REDIRECT 3
#define CONFIG_INCLUDE 4
#define CONFIG_NOTIFY 5

typedef struct PlanKey
{
	const RfStatement *statement;
	Oid				   source;
	Oid				   target;
	bool			   restricted; /* to whichever tenant */
} PlanKey;

typedef struct PlanEntry
{
	PlanKey key;
	RfPlan	plan;
	bool	binds_tenant;
} PlanEntry;

typedef struct StoreEntry
{
	Oid		 namespace_id;
	RfStore *store;
} StoreEntry;

/* Does the registry name tenants? */
typedef enum Registers
{
	REGISTERS_UNKNOWN,
	REGISTERS_NONE,
	REGISTERS_SOME
} Registers;

static HTAB		*stores = NULL;
static HTAB		*leaves = NULL;
static RfStore	*retired = NULL;
static Oid		 registry = InvalidOid;
static Oid		 extension_schema = InvalidOid;
static bool		 default_is_registered = false;
static Registers registers_tenants = REGISTERS_UNKNOWN;
static List		*expected_writes = NIL;

/* raised by each invalidation: what was read before may be out of date */
static uint64 invalidations = 0;

/* raised for each store that is read */
static uint64 layouts = 0;

/*
 * Cache upkeep
 */

static void
retire_store(RfStore *store)
{
	store->valid = false;
	for (uint32 i = 0; i < store->room; i++)
	{
		if (store->restricted[i] != NULL)
			store->restricted[i]->valid = false;
	}
	store->next_retired = retired;
	retired = store;
}

static bool
store_uses(const RfStore *store, Oid relid)
{
	return relid == store->events || relid == store->events_hot ||
		   relid == store->events_cold || relid == store->events_archive ||
		   relid == store->events_all || relid == store->streams ||
		   relid == store->config || relid == store->keys ||
		   relid == store->log || relid == store->totals ||
		   relid == store->consumers || relid == store->policies ||
		   relid == store->runs || relid == store->holds;
}

static void
forget_stores(Oid relid)
{
	HASH_SEQ_STATUS status;
	StoreEntry	   *entry;

	if (stores == NULL)
		return;
	hash_seq_init(&status, stores);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		if (OidIsValid(relid) && !store_uses(entry->store, relid))
			continue;
		retire_store(entry->store);
		hash_search(stores, &entry->namespace_id, HASH_REMOVE, NULL);
	}
}

static void
forget_leaves(Oid relid)
{
	HASH_SEQ_STATUS status;
	RfLeaf		   *leaf;

	if (leaves == NULL)
		return;
	if (OidIsValid(relid))
	{
		hash_search(leaves, &relid, HASH_REMOVE, NULL);
		return;
	}
	hash_seq_init(&status, leaves);
	while ((leaf = hash_seq_search(&status)) != NULL)
		hash_search(leaves, &leaf->relid, HASH_REMOVE, NULL);
}

static void
forget_registry(void)
{
	registry = extension_schema = InvalidOid;
	default_is_registered = false;
	registers_tenants = REGISTERS_UNKNOWN;
}

static void
relation_changed(Datum arg, Oid relid)
{
	invalidations++;
	forget_leaves(relid);
	if (!OidIsValid(relid) || relid == registry)
	{
		forget_registry();
		relid = InvalidOid;
	}
	forget_stores(relid);
}

static void
schema_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	rf_store_forget_all();
}

void
rf_store_forget_all(void)
{
	invalidations++;
	forget_registry();
	forget_stores(InvalidOid);
	forget_leaves(InvalidOid);
}

static void
forget_plans(RfStore *store)
{
	HASH_SEQ_STATUS status;
	PlanEntry	   *entry;

	if (store->plans == NULL)
		return;
	hash_seq_init(&status, store->plans);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		if (entry->plan.spi != NULL)
			rf_query_forget(entry->plan);
	}
}

static void
free_retired(void)
{
	while (retired != NULL)
	{
		RfStore *store = retired;

		retired = store->next_retired;
		forget_plans(store);
		MemoryContextDelete(store->context);
	}
}

static void
transaction_ended(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT ||
		event == XACT_EVENT_PREPARE)
	{
		expected_writes = NIL; /* it lived in the transaction's memory */
		free_retired();
	}
}

static void
subtransaction_ended(SubXactEvent event, SubTransactionId id,
					 SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		rf_store_expect_no_write();
}

void
rf_store_init(void)
{
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, schema_changed, (Datum) 0);
	RegisterXactCallback(transaction_ended, NULL);
	RegisterSubXactCallback(subtransaction_ended, NULL);
}

/*
 * Columns
 */

/*
 * The columns of a table that nobody has locked, as the catalog has them.  They
 * are read all at once, and the table is not opened for it: each new session
 * does that for its store, and who looks at all stores for each.
 */
static List *
read_columns(Oid relid)
{
	List	   *columns = NIL;
	Relation	rel = table_open(AttributeRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&keys[0], Anum_pg_attribute_attrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(relid));
	ScanKeyInit(&keys[1], Anum_pg_attribute_attnum, BTGreaterStrategyNumber,
				F_INT2GT, Int16GetDatum(0));
	scan = systable_beginscan(rel, AttributeRelidNumIndexId, true, NULL, 2,
							  keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_attribute att = palloc(ATTRIBUTE_FIXED_PART_SIZE);

		memcpy(att, GETSTRUCT(tuple), ATTRIBUTE_FIXED_PART_SIZE);
		columns = lappend(columns, att);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return columns;
}

/* Is it one that rows are written with, and none of that name? */
static bool
is_written(Form_pg_attribute att, const char *but)
{
	return !att->attisdropped && att->attgenerated == '\0' &&
		   (but == NULL || strcmp(NameStr(att->attname), but) != 0);
}

static char *
column_list(List *columns, const char *but, const char *nor)
{
	StringInfoData buf;
	ListCell	  *cell;

	initStringInfo(&buf);
	foreach(cell, columns)
	{
		Form_pg_attribute att = lfirst(cell);

		if (is_written(att, but) && is_written(att, nor))
			appendStringInfo(&buf, "%s%s", buf.len > 0 ? ", " : "",
							 quote_identifier(NameStr(att->attname)));
	}
	return buf.data;
}

/*
 * The columns of an event table, quoted and in the table's order.  A user may
 * have added some; they go wherever the event goes.
 */
char *
rf_store_column_list(Oid relid, const char *but, const char *nor)
{
	return column_list(read_columns(relid), but, nor);
}

/* What is kept as long as the store is. */
static char *
keep_text(const RfStore *store, const char *string)
{
	return string == NULL ? NULL : MemoryContextStrdup(store->context, string);
}

/* The columns of an event, once as a list and once each. */
static void
load_columns(RfStore *store, List *columns)
{
	int		  room = list_length(columns);
	ListCell *cell;

	store->columns = keep_text(store,
							   column_list(columns, "retention_class", NULL));
	store->column_names = MemoryContextAlloc(store->context,
											 sizeof(char *) * room);
	store->column_types = MemoryContextAlloc(store->context,
											 sizeof(Oid) * room);
	foreach(cell, columns)
	{
		Form_pg_attribute att = lfirst(cell);

		if (!is_written(att, "retention_class"))
			continue;
		store->column_names[store->ncolumns] = keep_text(store,
														 NameStr(att->attname));
		store->column_types[store->ncolumns++] = att->atttypid;
	}
}

/* NULL: there is none of that name. */
static Form_pg_attribute
find_column(List *columns, const char *name)
{
	ListCell *cell;

	foreach(cell, columns)
	{
		Form_pg_attribute att = lfirst(cell);

		if (!att->attisdropped && strcmp(NameStr(att->attname), name) == 0)
			return att;
	}
	return NULL;
}

/* Does the column take the values of the other one as they are? */
static bool
column_takes(Form_pg_attribute att, Form_pg_attribute from)
{
	return att->atttypid == from->atttypid &&
		   (att->atttypmod == -1 || att->atttypmod == from->atttypmod);
}

/* The ALTER TABLE that makes target able to hold what has these columns. */
static char *
find_missing_column(List *columns, Oid target)
{
	List	 *of_target = read_columns(target);
	char	 *result = NULL;
	ListCell *cell;

	foreach(cell, columns)
	{
		Form_pg_attribute att = lfirst(cell);
		char			 *name = NameStr(att->attname);
		Form_pg_attribute found;

		if (!is_written(att, NULL))
			continue;
		found = find_column(of_target, name);
		if (found == NULL)
			result = psprintf("ALTER TABLE %s ADD COLUMN %s %s;",
							  rf_store_relation_name(target),
							  quote_identifier(name),
							  format_type_with_typemod(att->atttypid,
													   att->atttypmod));
		else if (!column_takes(found, att))
			result = psprintf("ALTER TABLE %s ALTER COLUMN %s TYPE %s;",
							  rf_store_relation_name(target),
							  quote_identifier(name),
							  format_type_with_typemod(att->atttypid,
													   att->atttypmod));
		if (result != NULL)
			break;
	}
	list_free_deep(of_target);
	return result;
}

void
rf_store_require_same_columns(const RfStore *store)
{
	if (store->missing_column != NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg(
				 "tables \"events\" and \"events_archive\" of schema \"%s\" have different columns",
				 store->schema),
			 errdetail("An event could not become cold without loss."),
			 errhint("Run: %s", store->missing_column)));
}

/*
 * Loading
 */

static bool
get_switch(HeapTuple tuple, AttrNumber column, TupleDesc tupdesc)
{
	bool  isnull;
	Datum value = heap_getattr(tuple, column, tupdesc, &isnull);

	return !isnull && DatumGetBool(value);
}

static void
read_config(RfStore *store)
{
	Relation	rel = table_open(store->config, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0,
										  NULL);
	HeapTuple	tuple = systable_getnext(scan);

	store->backend = RF_DUAL_TABLE;
	if (HeapTupleIsValid(tuple))
	{
		TupleDesc tupdesc = RelationGetDescr(rel);
		bool	  isnull;
		Datum	  value = heap_getattr(tuple, CONFIG_BACKEND, tupdesc, &isnull);

		if (!isnull && strcmp(TextDatumGetCString(value), "partitioned") == 0)
			store->backend = RF_PARTITIONED;
		store->redirect_enabled = get_switch(tuple, CONFIG_REDIRECT, tupdesc);
		store->include_archived = get_switch(tuple, CONFIG_INCLUDE, tupdesc);
		store->notify_enabled = get_switch(tuple, CONFIG_NOTIFY, tupdesc);
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
}

Oid
rf_store_relation_owner(Oid relid)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid		  owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* A column that C reads by its number. */
typedef struct KnownColumn
{
	AttrNumber	number;
	const char *name;
	Oid			type;
} KnownColumn;

static const KnownColumn streams_columns[] =
	{{1, "stream_id", UUIDOID},
	 {2, "tenant_id", TEXTOID},
	 {3, "last_seq", INT4OID},
	 {4, "first_event_at", TIMESTAMPTZOID},
	 {5, "last_event_at", TIMESTAMPTZOID},
	 {6, "archived_at", TIMESTAMPTZOID},
	 {7, "archived_by", TEXTOID},
	 {8, "archive_reason", TEXTOID},
	 {9, "retention_class", TEXTOID},
	 {11, "updated_at", TIMESTAMPTZOID},
	 {0, NULL, InvalidOid}};

static const KnownColumn config_columns[] =
	{{CONFIG_BACKEND, "backend", TEXTOID},
	 {CONFIG_REDIRECT, "redirect_enabled", BOOLOID},
	 {CONFIG_INCLUDE, "include_archived_by_default", BOOLOID},
	 {CONFIG_NOTIFY, "notify_enabled", BOOLOID},
	 {0, NULL, InvalidOid}};

static const KnownColumn consumers_columns[] = {{1, "name", TEXTOID},
												{2, "last_global_seq", INT8OID},
												{3, "updated_at",
												 TIMESTAMPTZOID},
												{0, NULL, InvalidOid}};

static const KnownColumn holds_columns[] = {{2, "stream_id", UUIDOID},
											{3, "tenant_id", TEXTOID},
											{4, "reason", TEXTOID},
											{0, NULL, InvalidOid}};

static void
refuse_relation(Oid relid, const char *what)
{
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("relation \"%s\" is not that of a store",
						   get_rel_name(relid)),
					errdetail("%s", what)));
}

/*
 * What is read by number has to be there, of the right type.  An owner can
 * alter his tables, and an invalidation brings us here again.
 */
static void
require_columns(Oid relid, const KnownColumn *known)
{
	List *columns = read_columns(relid);

	if (get_rel_relkind(relid) != RELKIND_RELATION)
		refuse_relation(relid, "It is not a table.");
	for (; known->name != NULL; known++)
	{
		Form_pg_attribute att = find_column(columns, known->name);

		if (att == NULL || att->attnum != known->number ||
			att->atttypid != known->type)
			refuse_relation(
				relid, psprintf("Its column \"%s\" is missing, or another.",
								known->name));
	}
	list_free_deep(columns);
}

static void
require_primary_key(const RfStore *store)
{
	HeapTuple tuple = SearchSysCache1(INDEXRELID,
									  ObjectIdGetDatum(store->streams_pkey));
	bool	  fits = false;

	if (HeapTupleIsValid(tuple))
	{
		Form_pg_index index = (Form_pg_index) GETSTRUCT(tuple);
		int			  nkeys = store->conjoined ? 2 : 1;

		fits = index->indrelid == store->streams && index->indisprimary &&
			   index->indisvalid && index->indnkeyatts == nkeys;
		/* the tenant is the second column, and comes first in the key */
		for (int i = 0; i < nkeys && fits; i++)
			fits = index->indkey.values[i] ==
				   streams_columns[nkeys - 1 - i].number;
		ReleaseSysCache(tuple);
	}
	if (!fits)
		refuse_relation(store->streams_pkey,
						"It is not the primary key of \"rf_streams\".");
}

/* Tenants are compared by the bytes of their names. */
static void
require_plain_tenants(Oid relid)
{
	AttrNumber column = get_attnum(relid, "tenant_id");
	Oid		   type = InvalidOid;
	Oid		   collation = InvalidOid;
	int32	   typmod;

	if (column != InvalidAttrNumber)
		get_atttypetypmodcoll(relid, column, &type, &typmod, &collation);
	if (type != TEXTOID || collation != C_COLLATION_OID)
		refuse_relation(
			relid,
			"Its column \"tenant_id\" has another collation than \"C\".");
}

static void
require_layout(const RfStore *store)
{
	const Oid parents[] = {store->events, store->events_hot, store->events_cold,
						   store->events_archive};

	require_columns(store->streams, streams_columns);
	require_columns(store->config, config_columns);
	require_columns(store->consumers, consumers_columns);
	require_columns(store->holds, holds_columns);
	require_primary_key(store);
	if (store->conjoined)
	{
		require_plain_tenants(store->streams);
		require_plain_tenants(store->events);
		require_plain_tenants(store->events_archive);
		require_plain_tenants(store->keys);
	}
	for (int i = 0; i < lengthof(parents); i++)
	{
		if (get_rel_relkind(parents[i]) != RELKIND_PARTITIONED_TABLE)
			refuse_relation(parents[i], "It is not a partitioned table.");
	}
	if (get_rel_relkind(store->sequence) != RELKIND_SEQUENCE)
		refuse_relation(store->sequence, "It is not a sequence.");
}

static void
find_tables(RfStore *store)
{
	Oid nsp = store->namespace_id;

	store->events = get_relname_relid("events", nsp);
	store->events_hot = get_relname_relid("events_hot", nsp);
	store->events_cold = get_relname_relid("events_cold", nsp);
	store->events_archive = get_relname_relid("events_archive", nsp);
	store->events_all = get_relname_relid("events_all", nsp);
	store->streams = get_relname_relid("rf_streams", nsp);
	store->streams_pkey = get_relname_relid("rf_streams_pkey", nsp);
	store->config = get_relname_relid("rf_archive_config", nsp);
	store->keys = get_relname_relid("rf_event_keys", nsp);
	store->log = get_relname_relid("rf_archive_log", nsp);
	store->totals = get_relname_relid("rf_archive_totals", nsp);
	store->consumers = get_relname_relid("rf_consumers", nsp);
	store->policies = get_relname_relid("rf_archive_policies", nsp);
	store->runs = get_relname_relid("rf_archive_runs", nsp);
	store->holds = get_relname_relid("rf_holds", nsp);
	store->sequence = get_relname_relid("events_global_seq_seq", nsp);
}

static bool
has_all_tables(const RfStore *store)
{
	return OidIsValid(store->events) && OidIsValid(store->events_hot) &&
		   OidIsValid(store->events_cold) &&
		   OidIsValid(store->events_archive) && OidIsValid(store->events_all) &&
		   OidIsValid(store->streams) && OidIsValid(store->streams_pkey) &&
		   OidIsValid(store->config) && OidIsValid(store->keys) &&
		   OidIsValid(store->log) && OidIsValid(store->totals) &&
		   OidIsValid(store->consumers) && OidIsValid(store->policies) &&
		   OidIsValid(store->runs) && OidIsValid(store->holds) &&
		   OidIsValid(store->sequence);
}

static void
load_store(RfStore *store)
{
	List *columns;

	store->schema = keep_text(store, get_namespace_name(store->namespace_id));
	require_layout(store);
	store->owner = rf_store_relation_owner(store->events);
	store->row_security = rf_rls_is_enabled(store->events) ||
						  rf_rls_is_enabled(store->streams);
	read_config(store);
	columns = read_columns(store->events);
	load_columns(store, columns);
	store->missing_column =
		keep_text(store, find_missing_column(columns, store->events_archive));
	store->adopting = OidIsValid(rf_store_adopted_leaf(store->events_hot));
	store->whole = store;
	store->layout = ++layouts;
	store->valid = true;
}

/*
 * The registry
 */

static Oid
find_extension_schema(void)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	Oid			result = InvalidOid;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber,
				F_NAMEEQ, CStringGetDatum("rillflow"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		result = ((Form_pg_extension) GETSTRUCT(tuple))->extnamespace;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	if (!OidIsValid(result))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("extension \"%s\" does not exist", "rillflow")));
	return result;
}

Oid
rf_store_extension_schema(void)
{
	if (!OidIsValid(extension_schema))
	{
		Oid schema = find_extension_schema();

		registry = get_relname_relid("rf_stores", schema);
		extension_schema = schema;
	}
	return extension_schema;
}

typedef struct Registered
{
	char *schema;
	char *tenant; /* NULL: none */
	bool  conjoined;
	int	  layout_version;
} Registered;

static Registered *
read_registered(HeapTuple tuple, TupleDesc tupdesc)
{
	Registered *result = palloc(sizeof(Registered));
	bool		isnull;
	Datum		value;

	value = heap_getattr(tuple, STORES_SCHEMA, tupdesc, &isnull);
	result->schema = pstrdup(NameStr(*DatumGetName(value)));
	value = heap_getattr(tuple, STORES_TENANT, tupdesc, &isnull);
	result->tenant = isnull ? NULL : TextDatumGetCString(value);
	value = heap_getattr(tuple, STORES_TENANCY, tupdesc, &isnull);
	result->conjoined = !isnull &&
						strcmp(TextDatumGetCString(value), "conjoined") == 0;
	value = heap_getattr(tuple, STORES_LAYOUT, tupdesc, &isnull);
	result->layout_version = DatumGetInt32(value);
	return result;
}

/*
 * Rows of the registry, as they are now: all of them, or those that an index
 * on one column finds.
 */
static List *
scan_registry(const char *index_name, AttrNumber column, RegProcedure equal,
			  Datum value)
{
	Oid			schema = rf_store_extension_schema();
	Relation	rel = table_open(registry, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	Oid			index = InvalidOid;
	List	   *result = NIL;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	if (index_name != NULL)
	{
		index = get_relname_relid(index_name, schema);
		/* equal by its bytes, in whatever order the index is */
		ScanKeyEntryInitialize(&key, 0, column, BTEqualStrategyNumber,
							   InvalidOid,
							   TupleDescAttr(RelationGetDescr(rel), column - 1)
								   ->attcollation,
							   equal, value);
	}
	scan = systable_beginscan(rel, index, OidIsValid(index), snapshot,
							  index_name != NULL ? 1 : 0, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		result = lappend(result, read_registered(tuple, RelationGetDescr(rel)));
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return result;
}

/* The row of a schema; NULL when there is none. */
static Registered *
registered_in(const char *schema)
{
	NameData name;
	List	*rows;

	namestrcpy(&name, schema);
	rows = scan_registry("rf_stores_pkey", STORES_SCHEMA, F_NAMEEQ,
						 NameGetDatum(&name));
	return rows == NIL ? NULL : linitial(rows);
}

/*
 * The row of a tenant; NULL is the default store, which is the one in the
 * extension's own schema.
 */
static Registered *
registered_for(const char *tenant)
{
	List *rows;

	if (tenant == NULL)
		return registered_in(get_namespace_name(rf_store_extension_schema()));
	rows = scan_registry("rf_stores_tenant_key", STORES_TENANT, F_TEXTEQ,
						 CStringGetTextDatum(tenant));
	return rows == NIL ? NULL : linitial(rows);
}

/*
 * Does the registry name any tenant?  While it is empty that is not known: a
 * restore fills it without telling anybody.
 */
static Registers
look_for_tenants(void)
{
	Registers	result = REGISTERS_UNKNOWN;
	Relation	rel;
	Snapshot	snapshot;
	SysScanDesc scan;
	HeapTuple	tuple;

	(void) rf_store_extension_schema();
	rel = table_open(registry, AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	while (result != REGISTERS_SOME &&
		   HeapTupleIsValid(tuple = systable_getnext(scan)))
		result = heap_attisnull(tuple, STORES_TENANT, RelationGetDescr(rel)) ?
					 REGISTERS_NONE :
					 REGISTERS_SOME;
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return result;
}

/*
 * The row of a tenant.  A conjoined store asks for each of its tenants that a
 * session meets, and mostly no tenant has a store of its own: that is
 * remembered.
 */
static Registered *
registered_tenant(const char *tenant)
{
	if (registers_tenants == REGISTERS_UNKNOWN)
	{
		uint64	  seen = invalidations;
		Registers found = look_for_tenants();

		if (seen == invalidations)
			registers_tenants = found;
	}
	return registers_tenants == REGISTERS_NONE ? NULL : registered_for(tenant);
}

static int
compare_schemas(const ListCell *a, const ListCell *b)
{
	return strcmp(((Registered *) lfirst(a))->schema,
				  ((Registered *) lfirst(b))->schema);
}

/* All rows, in order of their schemas. */
static List *
registered_stores(void)
{
	List *rows = scan_registry(NULL, InvalidAttrNumber, InvalidOid, (Datum) 0);

	list_sort(rows, compare_schemas);
	return rows;
}

/*
 * What we make of layouts that are not ours: a newer one means things that we
 * know nothing of.  Older ones are read and written as they are, back to the
 * oldest that this library knows how to.
 */
static void
require_known_layout(const Registered *row)
{
	if (row->layout_version > RF_LAYOUT_VERSION)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the store in schema \"%s\" has layout version %d",
					row->schema, row->layout_version),
			 errdetail("This library knows layouts up to version %d.",
					   RF_LAYOUT_VERSION),
			 errhint(
				 "Install the version of the extension that wrote it, or a later one.")));
	if (row->layout_version < RF_OLDEST_LAYOUT)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the store in schema \"%s\" has layout version %d",
						row->schema, row->layout_version),
				 errdetail("This library needs version %d at least.",
						   RF_OLDEST_LAYOUT),
				 errhint("Bring it up to date: SELECT rf_upgrade_store(%s)",
						 row->tenant == NULL ?
							 "" :
							 quote_literal_cstr(row->tenant))));
}

/*
 * The cache
 */

static StoreEntry *
lookup_store(Oid namespace_id, HASHACTION action)
{
	if (stores == NULL)
	{
		HASHCTL ctl = {0};

		ctl.keysize = sizeof(Oid);
		ctl.entrysize = sizeof(StoreEntry);
		stores = hash_create("Rillflow stores", 16, &ctl,
							 HASH_ELEM | HASH_BLOBS);
	}
	return hash_search(stores, &namespace_id, action, NULL);
}

/*
 * Build what is known of the store in a schema; NULL when there is none.  What
 * is read of it goes, with what the server leaves behind while it reads the
 * bounds of months: many times what is kept.
 */
static RfStore *
build_store(Oid namespace_id)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "Rillflow store",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext,
												  "Rillflow store being read",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);
	RfStore		 *store = MemoryContextAllocZero(context, sizeof(RfStore));
	Registered	 *row;

	store->context = context;
	store->namespace_id = namespace_id;
	find_tables(store);
	row = has_all_tables(store) ?
			  registered_in(get_namespace_name(namespace_id)) :
			  NULL;
	if (row != NULL)
	{
		require_known_layout(row);
		store->tenant = keep_text(store, row->tenant);
		store->conjoined = row->conjoined;
		load_store(store);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
	if (store->valid)
		return store;
	MemoryContextDelete(context);
	return NULL;
}

/*
 * The store in a schema, which has to be registered: anybody can make tables
 * of our names.  It enters the cache when it is whole, and only if no
 * invalidation came in while it was read: that one would not find it.
 */
RfStore *
rf_store_in(Oid namespace_id, bool missing_ok)
{
	StoreEntry *entry = lookup_store(namespace_id, HASH_FIND);
	uint64		seen = invalidations;
	RfStore	   *store;

	if (entry != NULL)
		return entry->store;
	while ((store = build_store(namespace_id)) != NULL && seen != invalidations)
	{
		MemoryContextDelete(store->context);
		seen = invalidations;
	}
	if (store == NULL && missing_ok)
		return NULL;
	if (store == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there is no store in schema \"%s\"",
						get_namespace_name(namespace_id)),
				 errhint(
					 "Create it, or take it up again, with rf_install().")));
	MemoryContextSetParent(store->context, CacheMemoryContext);
	lookup_store(namespace_id, HASH_ENTER)->store = store;
	return store;
}

/* What people give names to in a store, as policies and consumers. */
void
rf_store_require_name(const char *name)
{
	if (name == NULL || *name == '\0' || strlen(name) >= NAMEDATALEN)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("\"name\" must be a text of 1 to %d bytes",
							   NAMEDATALEN - 1)));
}

/*
 * Rights
 */

/* Who may read the registry is told what there is, and others are not. */
static bool
may_read_registry(void)
{
	(void) rf_store_extension_schema();
	return pg_class_aclcheck(registry, GetUserId(), ACL_SELECT) == ACLCHECK_OK;
}

/* The one error for a tenant that is another's, and for one that is not there.
 */
void
rf_store_refuse_tenant(const char *tenant)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for tenant \"%s\"", tenant),
			 errhint("rf_tenants() has those that you have a right to.")));
}

static void
no_store(const char *tenant)
{
	if (tenant == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there is no store in schema \"%s\"",
						get_namespace_name(rf_store_extension_schema())),
				 errhint(
					 "Create it, or take it up again, with rf_install().")));
	if (!may_read_registry())
		rf_store_refuse_tenant(tenant);
	ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
					errmsg("tenant \"%s\" does not exist", tenant)));
}

/* Can it be the name of a tenant? */
void
rf_store_check_tenant(const char *tenant)
{
	if (!rf_tenancy_is_name(tenant, strlen(tenant)))
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid tenant name \"%.*s\"",
					pg_mbcliplen(tenant, strlen(tenant), NAMEDATALEN - 1),
					tenant),
			 errdetail(
				 "A name has 1 to %d bytes, and \"*\" stands for all tenants.",
				 NAMEDATALEN - 1)));
}

/* What the caller lacks; *relid is the relation that it is about. */
static AclResult
check_right(const RfStore *store, RfRight right, Oid *relid)
{
	Oid		  user = GetUserId();
	AclResult result = ACLCHECK_OK;

	*relid = store->events;
	switch (right)
	{
		case RF_RIGHT_APPEND:
			result = pg_class_aclcheck(*relid, user, ACL_INSERT);
			if (result != ACLCHECK_OK)
				result = pg_attribute_aclcheck_all(*relid, user, ACL_INSERT,
												   ACLMASK_ANY);
			break;
		case RF_RIGHT_READ:
		case RF_RIGHT_STATUS:
			*relid = store->events_all;
			result = pg_class_aclcheck(*relid, user, ACL_SELECT);
			break;
		case RF_RIGHT_ARCHIVE:
			*relid = store->streams;
			result = pg_class_aclcheck(*relid, user, ACL_UPDATE);
			break;
		case RF_RIGHT_CONSUME:
			*relid = store->consumers;
			result = pg_class_aclcheck(*relid, user, ACL_INSERT | ACL_UPDATE);
			break;
		case RF_RIGHT_MONITOR:
			*relid = store->totals;
			result = pg_class_aclcheck(*relid, user, ACL_SELECT);
			break;
		case RF_RIGHT_OWN:
			if (!rf_compat_owns_relation(*relid, user))
				result = ACLCHECK_NOT_OWNER;
			break;
	}
	return result;
}

/*
 * What is done and told as the owner of the store goes past row security; so
 * whom it applies to has to be allowed the rows of the tenant, or all of them.
 * Rows that are inserted and read as the caller are looked at once more.
 */
static bool
allows_rows(const RfStore *store, RfRight right)
{
	const char *tenant = store->tenant_number == 0 ? NULL : store->tenant;

	if (!store->row_security)
		return true;
	switch (right)
	{
		case RF_RIGHT_APPEND:
			return tenant == NULL ||
				   rf_rls_allows(store->events, CMD_INSERT, tenant, true);
		case RF_RIGHT_READ:
		case RF_RIGHT_CONSUME:
			return tenant == NULL ||
				   rf_rls_allows(store->events, CMD_SELECT, tenant, true);
		case RF_RIGHT_STATUS:
			return rf_rls_allows(store->events, CMD_SELECT, tenant, false);
		case RF_RIGHT_ARCHIVE:
			return rf_rls_allows(store->streams, CMD_UPDATE, tenant, false);
		case RF_RIGHT_MONITOR: /* sums of the store, and names of tenants */
		case RF_RIGHT_OWN:
			break;
	}
	return true;
}

/* The tenant is what the caller has named; NULL: nothing. */
static void
require_right(const RfStore *store, RfRight right, const char *tenant)
{
	Oid		  relid;
	AclResult result = check_right(store, right, &relid);

	if (result != ACLCHECK_OK && tenant != NULL && !may_read_registry())
		rf_store_refuse_tenant(tenant);
	if (result != ACLCHECK_OK)
		aclcheck_error(result,
					   relid == store->events_all ? OBJECT_VIEW : OBJECT_TABLE,
					   get_rel_name(relid));
	if (allows_rows(store, right))
		return;
	if (tenant != NULL)
		rf_store_refuse_tenant(tenant);
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for the store in schema \"%s\"",
					store->schema),
			 errdetail("Row security does not let you have all of its rows.")));
}

/* The schema that a tenant's store is registered for; NULL when there is none.
 */
char *
rf_store_schema_of_tenant(const char *tenant)
{
	Registered *row = registered_for(tenant);

	return row == NULL ? NULL : row->schema;
}

/* The tenant that a schema's store is registered for; NULL when there is none.
 */
char *
rf_store_tenant_of_schema(const char *schema)
{
	Registered *row = registered_in(schema);

	return row == NULL ? NULL : row->tenant;
}

bool
rf_store_is_registered(const char *schema)
{
	return registered_in(schema) != NULL;
}

/* The layout that a schema's store is registered with; 0 when it is not. */
int
rf_store_layout_version(const char *schema)
{
	Registered *row = registered_in(schema);

	return row == NULL ? 0 : row->layout_version;
}

/* The schemas of all stores, whole or broken, in order of their names. */
List *
rf_store_schemas(void)
{
	List	 *rows = registered_stores();
	List	 *result = NIL;
	ListCell *cell;

	foreach(cell, rows)
	{
		Oid nsp = get_namespace_oid(((Registered *) lfirst(cell))->schema,
									true);

		if (OidIsValid(nsp))
			result = lappend_oid(result, nsp);
	}
	return result;
}

/*
 * The same, for whoever works on all of them: tell of those whose schemas are
 * gone, too.
 */
List *
rf_store_list_all(void)
{
	List	 *rows = registered_stores();
	ListCell *cell;

	foreach(cell, rows)
	{
		Registered *row = lfirst(cell);

		if (!OidIsValid(get_namespace_oid(row->schema, true)) &&
			may_read_registry())
			ereport(
				WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("skipping schema \"%s\", which holds no complete store",
						row->schema)));
	}
	return rf_store_schemas();
}

/* Does a tenant argument name all stores? */
bool
rf_store_is_all(const char *tenant)
{
	return tenant != NULL && strcmp(tenant, "*") == 0;
}

/* What the cache knows of the default store; NULL: nothing. */
static RfStore *
find_default(void)
{
	StoreEntry *entry;

	if (!OidIsValid(extension_schema) || !default_is_registered)
		return NULL;
	entry = lookup_store(extension_schema, HASH_FIND);
	return entry == NULL ? NULL : entry->store;
}

/*
 * Take in what others have changed.  The server does so when it locks a table;
 * but in the middle of a transaction that holds the locks already nothing does,
 * and we decide by what is known of a store before we lock anything.
 */
static void
hear_of_changes(void)
{
	AcceptInvalidationMessages();
}

/* Is the default store registered as that of many tenants? */
static bool
has_conjoined_default(void)
{
	RfStore	   *known = find_default();
	Registered *row;

	if (known != NULL)
		return known->conjoined;
	row = registered_for(NULL);
	return row != NULL && row->conjoined;
}

/* Something concerns a conjoined store as a whole. */
static void
refuse_restriction(const char *tenant)
{
	rf_store_check_tenant(tenant);
	ereport(
		ERROR,
		(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		 errmsg("this concerns the whole store, and not tenant \"%s\" alone",
				tenant),
		 errdetail("The tenants of a conjoined store share its tables."),
		 errhint("Leave \"tenant\" out.")));
}

/*
 * Where a registered store is, which may be broken.  That it is there is told
 * to those only who may use its schema.
 */
static Oid
schema_of(const Registered *row, const char *tenant)
{
	Oid nsp = get_namespace_oid(row->schema, true);

	if (tenant != NULL && !may_read_registry() &&
		(!OidIsValid(nsp) || !rf_compat_may_use_schema(nsp, GetUserId())))
		rf_store_refuse_tenant(tenant);
	if (!OidIsValid(nsp))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there is no store in schema \"%s\"", row->schema),
				 errhint(
					 "Create it, or take it up again, with rf_install().")));
	return nsp;
}

/* The row of the store that a tenant argument names; NULL: there is none. */
static Registered *
find_registered(const char *tenant)
{
	if (rf_store_is_all(tenant))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("tenant \"*\" is not one store"),
						errhint("Name one tenant.")));
	return tenant == NULL ? registered_for(NULL) : registered_tenant(tenant);
}

/*
 * The schema of the store that a tenant argument names, which may be broken.
 */
Oid
rf_store_schema_for(const char *tenant)
{
	Registered *row;

	hear_of_changes();
	row = find_registered(tenant);
	if (row == NULL && tenant != NULL && has_conjoined_default() &&
		may_read_registry())
		refuse_restriction(tenant);
	if (row == NULL)
		no_store(tenant);
	return schema_of(row, tenant);
}

/* Has the role the right to the store that is in a schema? */
bool
rf_store_allows(Oid namespace_id, RfRight right)
{
	RfStore *store = rf_store_in(namespace_id, false);
	Oid		 relid;

	return check_right(store, right, &relid) == ACLCHECK_OK &&
		   allows_rows(store, right);
}

/*
 * All stores
 */

typedef struct StoreCall
{
	Oid			namespace_id;
	RfRight		right;
	RfStoreWork work;
	void	   *arg;
	bool		denied;
} StoreCall;

static void
work_on_store(void *arg)
{
	StoreCall *call = arg;

	call->denied = !rf_store_allows(call->namespace_id, call->right);
	if (!call->denied)
		call->work(rf_store_in(call->namespace_id, false), call->arg);
}

/*
 * A store failed, and others are to go on: tell which, and why.  False: it is
 * not for the caller to know.
 */
bool
rf_store_warn(Oid namespace_id, const ErrorData *error)
{
	char *schema = get_namespace_name(namespace_id);

	if (schema == NULL || !rf_compat_may_use_schema(namespace_id, GetUserId()))
		return false;
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("the store in schema \"%s\" failed: %s", schema,
					error->message),
			 error->detail == NULL ? 0 :
									 errdetail_internal("%s", error->detail),
			 error->hint == NULL ? 0 : errhint("%s", error->hint)));
	return true;
}

/*
 * The caller has no right to so many.  They are not named: what others have is
 * no business of his.
 */
void
rf_store_warn_denied(int count)
{
	if (count > 0)
		ereport(WARNING,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg_plural("%d store was left out, for lack of rights",
							   "%d stores were left out, for lack of rights",
							   count, count)));
}

/*
 * Work on each store, in order of the schemas.  One that fails is told of, and
 * keeps none of the others from its turn.  What is only looked at is let go of
 * after each store, locks included: those on all tables of all stores would be
 * more than the server has room for.
 */
static void
work_on_all(RfRight right, bool looks, RfStoreWork work, void *arg)
{
	List		 *schemas = rf_store_list_all();
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "Rillflow one of all stores",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	int			  denied = 0;
	ListCell	 *cell;

	foreach(cell, schemas)
	{
		StoreCall  call = {.namespace_id = lfirst_oid(cell),
						   .right = right,
						   .work = work,
						   .arg = arg};
		ErrorData *error;

		CHECK_FOR_INTERRUPTS();
		if (!(looks ? rf_query_look : rf_query_attempt)(work_on_store, &call,
														RF_ANY_ERROR, &error))
			call.denied = !rf_store_warn(call.namespace_id, error);
		denied += call.denied ? 1 : 0;
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	rf_store_warn_denied(denied);
}

/*
 * Look at each store, in order of the schemas, for who reports on all of them
 * again and again.  The result is how many could be looked at, *left_out how
 * many could not: for lack of rights, since they are broken, half restored or
 * gone.  Those are counted, and nothing is said of them.
 */
int
rf_store_survey(RfRight right, RfStoreWork work, void *arg, int *left_out)
{
	List	 *rows = registered_stores();
	int		  seen = 0;
	ListCell *cell;

	*left_out = 0;
	foreach(cell, rows)
	{
		Registered *row = lfirst(cell);
		StoreCall	call = {.right = right, .work = work, .arg = arg};
		ErrorData  *error;

		CHECK_FOR_INTERRUPTS();
		call.namespace_id = get_namespace_oid(row->schema, true);
		if (OidIsValid(call.namespace_id) &&
			rf_query_look(work_on_store, &call, RF_ANY_ERROR, &error) &&
			!call.denied)
			seen++;
		else
			(*left_out)++;
	}
	return seen;
}

/*
 * Work on the store that a tenant argument names, or on all of them.  Work that
 * only looks is done once for all, and leaves nothing but what it returns.
 */
void
rf_store_each(const char *tenant, RfRight right, bool looks, RfStoreWork work,
			  void *arg)
{
	if (rf_store_is_all(tenant))
		work_on_all(right, looks, work, arg);
	else
		work(rf_store_get(tenant, right), arg);
}

/*
 * Tenants of a conjoined store
 */

/* NULL: it is not known yet. */
static RfStore *
find_restricted(const RfStore *store, uint32 number)
{
	return number < store->room ? store->restricted[number] : NULL;
}

static void
make_room(RfStore *store, uint32 number)
{
	uint32	  room = Max(64, number * 2);
	RfStore **restricted = MemoryContextAllocZero(store->context,
												  room * sizeof(RfStore *));

	if (store->room > 0)
	{
		memcpy(restricted, store->restricted, store->room * sizeof(RfStore *));
		pfree(store->restricted);
	}
	store->restricted = restricted;
	store->room = room;
}

static RfStore *
make_restricted(RfStore *store, uint32 number)
{
	MemoryContext old = MemoryContextSwitchTo(store->context);
	RfStore		 *result = palloc(sizeof(RfStore));

	*result = *store;
	result->tenant_number = number;
	result->tenant = TextDatumGetCString(rf_tenancy_datum(number));
	result->verified = false;
	result->restricted = NULL;
	result->plans = NULL; /* those of the whole */
	result->room = result->nrestricted = 0;
	MemoryContextSwitchTo(old);
	if (number >= store->room)
		make_room(store, number);
	store->restricted[number] = result;
	store->nrestricted++;
	return result;
}

/*
 * A conjoined store as one of its tenants is to see it; with 0, the store as
 * it is.  Statements are restricted to the tenant's rows, and share the plans
 * of those of other tenants.
 */
RfStore *
rf_store_of_tenant(RfStore *store, uint32 number)
{
	RfStore *result;

	if (number == store->tenant_number)
		return store;
	store = store->whole;
	if (number == 0)
		return store;
	Assert(store->conjoined);
	result = find_restricted(store, number);
	if (result != NULL)
		return result;
	if (store->valid && store->nrestricted >= MAX_RESTRICTED)
	{
		retire_store(store);
		(void) lookup_store(store->namespace_id, HASH_REMOVE);
	}
	return make_restricted(store, number);
}

/* A store as it is now, as the same tenant sees it. */
RfStore *
rf_store_again(const RfStore *store)
{
	return rf_store_of_tenant(rf_store_in(store->namespace_id, false),
							  store->tenant_number);
}

/*
 * A tenant that has a store of its own is none of the conjoined one.  What is
 * known of it may have been found out of date just now (hear_of_changes).
 */
static void
require_no_other_store(RfStore *store)
{
	Registered *row;

	if (store->verified && store->valid)
		return;
	row = registered_tenant(store->tenant);
	if (row != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("tenant \"%s\" has a store of its own", store->tenant),
				 errdetail("It is in schema \"%s\".", row->schema),
				 errhint("Insert its events there.")));
	store->verified = true;
}

/*
 * Refuse raw rows of a tenant that the caller's policies forbid, as the server
 * does; but before anything is told of the tenant's streams.  To be asked once
 * per statement and tenant.
 */
void
rf_store_require_tenant(RfStore *store)
{
	hear_of_changes();
	if (!allows_rows(store, RF_RIGHT_APPEND))
		ereport(
			ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg(
				 "new row violates row-level security policy for table \"%s\"",
				 get_rel_name(store->events))));
	require_no_other_store(store);
}

/* A tenant of the default store that the cache knows; NULL: it does not. */
static RfStore *
find_known_tenant(const char *tenant)
{
	size_t	 len = strlen(tenant);
	RfStore *whole = find_default();
	RfStore *store;

	if (whole == NULL || !whole->conjoined || !rf_tenancy_is_name(tenant, len))
		return NULL;
	store = find_restricted(whole, rf_tenancy_number(tenant, len));
	return store != NULL && store->verified ? store : NULL;
}

/*
 * The default store.  That it is registered is remembered: appends ask for it.
 */
static RfStore *
get_default(void)
{
	uint64	 seen = invalidations;
	RfStore *store;

	if (default_is_registered)
		return rf_store_in(rf_store_extension_schema(), false);
	store = rf_store_in(rf_store_schema_for(NULL), false);
	default_is_registered = seen == invalidations;
	return store;
}

/* The store that a tenant argument names; of a conjoined one, that tenant. */
static RfStore *
find_store(const char *tenant)
{
	uint64		seen;
	RfStore	   *store;
	Registered *row;

	hear_of_changes();
	seen = invalidations;
	if (tenant == NULL)
		return get_default();
	store = find_known_tenant(tenant);
	if (store != NULL)
		return store;
	row = find_registered(tenant);
	if (row != NULL)
		return rf_store_in(schema_of(row, tenant), false);
	if (!has_conjoined_default())
		no_store(tenant);
	rf_store_check_tenant(tenant);
	store = rf_store_of_tenant(get_default(),
							   rf_tenancy_number(tenant, strlen(tenant)));
	/* none was registered just now, and nothing has changed since */
	if (seen == invalidations)
		store->verified = true;
	return store;
}

static RfStore *
allow(RfStore *store, RfRight right, const char *tenant)
{
	require_right(store, right, tenant);
	if (store->tenant_number != 0)
		require_no_other_store(store);
	return store;
}

/*
 * The store that a tenant argument names, and the caller has the right to.  In
 * a conjoined store a tenant has to be named.
 */
RfStore *
rf_store_get(const char *tenant, RfRight right)
{
	RfStore *store = find_store(tenant);

	if (store->conjoined && store->tenant_number == 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("\"tenant\" must not be null"),
			 errdetail("The store in schema \"%s\" is that of many tenants.",
					   store->schema),
			 errhint(
				 "Name one of them with tenant => '...'; where all stores can be asked for, '*' takes all tenants.")));
	return allow(store, right, tenant);
}

/* The same, of what concerns a store as a whole. */
RfStore *
rf_store_get_whole(const char *tenant, RfRight right)
{
	RfStore *store = allow(find_store(tenant), right, tenant);

	if (store->tenant_number != 0)
		refuse_restriction(tenant);
	return store;
}

/* The same, of what may concern a tenant, or a store as a whole. */
RfStore *
rf_store_get_any(const char *tenant, RfRight right)
{
	return allow(find_store(tenant), right, tenant);
}

/* The store whose events a trigger was fired for. */
RfStore *
rf_store_of_events(Relation events)
{
	RfStore *store = rf_store_in(RelationGetNamespace(events), true);

	if (store == NULL || store->events != RelationGetRelid(events))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("\"%s\" is not the events table of a store",
							   RelationGetRelationName(events)),
						errhint("rf_install() makes the triggers.")));
	return store;
}

/*
 * Statements
 */

char *
rf_store_relation_name(Oid relid)
{
	char *name = get_rel_name(relid);

	if (name == NULL)
		elog(ERROR, "cache lookup failed for relation %u", relid);
	return quote_qualified_identifier(get_namespace_name(
										  get_rel_namespace(relid)),
									  name);
}

/* $1, $2, … */
static char *
parameter_list(int count)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 1; i <= count; i++)
		appendStringInfo(&buf, "%s$%d", i > 1 ? ", " : "", i);
	return buf.data;
}

/* A statement while it is expanded. */
typedef struct Expansion
{
	const RfStore *store;
	Oid			   source;
	Oid			   target;
	int			   nargs; /* parameters that the caller gives */
	bool		   binds_tenant;
} Expansion;

/* The relation that a word stands for; InvalidOid: none. */
static Oid
relation_named(const Expansion *expansion, const char *word)
{
	const RfStore *store = expansion->store;
	const struct
	{
		const char *word;
		Oid			relid;
	} relations[] = {
		{"events", store->events},
		{"hot", store->events_hot},
		{"cold", rf_store_tier_parent(store, RF_COLD)},
		{"archive", store->events_archive},
		{"all", store->events_all},
		{"streams", store->streams},
		{"config", store->config},
		{"keys", store->keys},
		{"log", store->log},
		{"consumers", store->consumers},
		{"policies", store->policies},
		{"runs", store->runs},
		{"holds", store->holds},
		{"source", expansion->source},
		{"target", expansion->target},
	};

	for (int i = 0; i < lengthof(relations); i++)
	{
		if (strcmp(relations[i].word, word) == 0)
			return relations[i].relid;
	}
	return InvalidOid;
}

/* The parameter that the tenant is bound to. */
static int
tenant_parameter(Expansion *expansion)
{
	expansion->binds_tenant = true;
	return expansion->nargs + 1;
}

/*
 * A word about the tenant, with the aliases that follow it (empty: none); NULL
 * when it is another word.
 */
static char *
expand_tenant(Expansion *expansion, const char *word, const char *first,
			  const char *second)
{
	const RfStore *store = expansion->store;
	const char	  *dot = *first == '\0' ? "" : ".";

	if (strcmp(word, "tenant_id,") == 0)
		return store->conjoined ? "tenant_id, " : "";
	if (strcmp(word, ",tenant_id") == 0)
		return store->conjoined ? ", tenant_id" : "";
	if (strcmp(word, "owner") == 0)
		return store->conjoined ? psprintf("%s%stenant_id", first, dot) :
								  "NULL::text";
	if (strcmp(word, "same") == 0)
		return store->conjoined ?
				   psprintf(" AND %s.tenant_id = %s.tenant_id", first, second) :
				   "";
	if (strcmp(word, "mine") == 0)
		return store->tenant_number != 0 ?
				   psprintf(" AND %s%stenant_id = $%d", first, dot,
							tenant_parameter(expansion)) :
				   "";
	if (strcmp(word, "tenant,") != 0)
		return NULL;
	if (store->tenant_number == 0 && store->conjoined)
		elog(ERROR, "a row of a conjoined store without a tenant");
	return store->conjoined ? psprintf("$%d, ", tenant_parameter(expansion)) :
							  "";
}

/* What a word in braces stands for. */
static char *
expand_word(Expansion *expansion, const char *words, int len)
{
	char *parts[3] = {pnstrdup(words, len), "", ""};
	Oid	  relid;
	char *result;

	for (int i = 1; i < lengthof(parts); i++)
	{
		char *space = strchr(parts[i - 1], ' ');

		if (space == NULL)
			break;
		*space = '\0';
		parts[i] = space + 1;
	}
	relid = relation_named(expansion, parts[0]);
	if (OidIsValid(relid))
		return rf_store_relation_name(relid);
	if (strcmp(parts[0], "columns") == 0)
		return expansion->store->columns;
	if (strcmp(parts[0], "params") == 0)
		return parameter_list(expansion->store->ncolumns);
	result = expand_tenant(expansion, parts[0], parts[1], parts[2]);
	if (result == NULL)
		elog(ERROR, "unknown word \"%.*s\" in a statement", len, words);
	return result;
}

static char *
expand_statement(Expansion *expansion, const char *sql)
{
	StringInfoData buf;

	initStringInfo(&buf);
	while (*sql != '\0')
	{
		const char *close = *sql == '{' ? strchr(sql, '}') : NULL;

		/* '{}' is an empty JSON object */
		if (close == NULL || close == sql + 1)
		{
			appendStringInfoChar(&buf, *sql++);
			continue;
		}
		appendStringInfoString(&buf, expand_word(expansion, sql + 1,
												 close - sql - 1));
		sql = close + 1;
	}
	return buf.data;
}

static RfPlan
prepare(const RfStore *store, const RfStatement *statement,
		const Expansion *expansion, const char *sql)
{
	Oid	   types[RF_MAX_ARGS + 1];
	RfPlan plan;

	if (statement->nargs == RF_COLUMN_ARGS)
		return rf_query_prepare(sql, store->ncolumns, store->column_types);
	memcpy(types, statement->types, sizeof(statement->types));
	types[statement->nargs] = TEXTOID;
	plan = rf_query_prepare(sql,
							statement->nargs +
								(expansion->binds_tenant ? 1 : 0),
							types);
	plan.nargs = statement->nargs;
	return plan;
}

/* The plans of all who see a store; most who only look at it need none. */
static HTAB *
plans_of(RfStore *store)
{
	RfStore *whole = store->whole;

	if (whole->plans == NULL)
	{
		HASHCTL ctl = {0};

		ctl.keysize = sizeof(PlanKey);
		ctl.entrysize = sizeof(PlanEntry);
		ctl.hcxt = whole->context;
		whole->plans = hash_create("Rillflow plans", 32, &ctl,
								   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	return whole->plans;
}

static PlanEntry *
make_plan(RfStore *store, const PlanKey *key)
{
	const RfStatement *statement = key->statement;
	Expansion		   expansion = {.store = store,
									.source = key->source,
									.target = key->target,
									.nargs = statement->nargs};
	char			  *sql = expand_statement(&expansion, statement->sql);
	RfPlan			   plan = prepare(store, statement, &expansion, sql);
	PlanEntry *entry = hash_search(plans_of(store), key, HASH_ENTER, NULL);

	pfree(sql);
	entry->plan = plan;
	entry->binds_tenant = expansion.binds_tenant;
	return entry;
}

/* The plan of a statement, kept for as long as the store stays as it is. */
RfPlan
rf_store_plan_for(RfStore *store, const RfStatement *statement, Oid source,
				  Oid target)
{
	PlanKey	   key = {0};
	PlanEntry *entry;
	RfPlan	   plan;

	key.statement = statement;
	key.source = source;
	key.target = target;
	key.restricted = store->tenant_number != 0;
	entry = hash_search(plans_of(store), &key, HASH_FIND, NULL);
	if (entry == NULL)
		entry = make_plan(store, &key);
	plan = entry->plan;
	if (entry->binds_tenant)
		plan.tenant = rf_tenancy_datum(store->tenant_number);
	return plan;
}

RfPlan
rf_store_plan(RfStore *store, const RfStatement *statement)
{
	return rf_store_plan_for(store, statement, InvalidOid, InvalidOid);
}

/*
 * Tiers and leaves
 */

/* The table whose partitions are the months of a tier. */
Oid
rf_store_tier_parent(const RfStore *store, RfTier tier)
{
	if (tier == RF_HOT)
		return store->events_hot;
	return store->backend == RF_PARTITIONED ? store->events_cold :
											  store->events_archive;
}

/*
 * Keep the cold tier where it is until the transaction ends, and return the
 * store as it is under the lock: who moves the tier elsewhere waits.
 */
RfStore *
rf_store_lock_backend(RfStore *store)
{
	LockRelationOid(store->events, AccessShareLock);
	return store->valid ? store : rf_store_again(store);
}

/*
 * Hold the tables of events as they are until the transaction ends, and return
 * the store as it is under the locks: who writes to the cold tier takes them
 * first, and who alters the tables, or keeps the cold tier elsewhere from now
 * on, waits for them.  The tier can have been elsewhere until now.
 */
RfStore *
rf_store_lock_cold(RfStore *store)
{
	for (;;)
	{
		store = rf_store_lock_backend(store);
		LockRelationOid(rf_store_tier_parent(store, RF_COLD), RowExclusiveLock);
		if (store->valid)
			break;
		store = rf_store_again(store);
	}
	if (store->backend == RF_DUAL_TABLE)
		rf_store_require_same_columns(store);
	return store;
}

/*
 * The plain table that is being adopted into a tier: the partition for rows
 * without a month.  InvalidOid when there is none.
 */
Oid
rf_store_adopted_leaf(Oid parent)
{
	Relation		   rel = table_open(parent, AccessShareLock);
	PartitionDesc	   desc = RelationGetPartitionDesc(rel, true);
	PartitionBoundInfo bounds = desc->boundinfo;
	Oid				   result = InvalidOid;

	if (bounds != NULL && bounds->strategy == PARTITION_STRATEGY_RANGE &&
		bounds->ndatums > 1 &&
		bounds->kind[0][0] == PARTITION_RANGE_DATUM_MINVALUE &&
		bounds->kind[1][0] == PARTITION_RANGE_DATUM_VALUE &&
		DatumGetDateADT(bounds->datums[1][0]) == RF_FIRST_DAY &&
		bounds->indexes[1] >= 0)
		result = desc->oids[bounds->indexes[1]];
	table_close(rel, AccessShareLock);
	return result;
}

/* Refuse what has to wait until all events have their months. */
void
rf_store_require_adopted(const RfStore *store)
{
	Oid leaf;

	if (!store->adopting)
		return;
	leaf = rf_store_adopted_leaf(store->events_hot);
	ereport(
		ERROR,
		(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		 errmsg("the events of schema \"%s\" are being adopted", store->schema),
		 OidIsValid(leaf) ?
			 errhint("Wait for rf_adopt(), or call it again: CALL rf_adopt(%s)",
					 quote_literal_cstr(rf_store_relation_name(leaf))) :
			 0));
}

/* Let go of the plans for a leaf that is done with. */
void
rf_store_forget_plans(RfStore *store, Oid source)
{
	HASH_SEQ_STATUS status;
	PlanEntry	   *entry;

	hash_seq_init(&status, plans_of(store));
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		if (entry->key.source != source)
			continue;
		rf_query_forget(entry->plan);
		hash_search(plans_of(store), &entry->key, HASH_REMOVE, NULL);
	}
}

/* A leaf's unique index on these columns, in that order; InvalidOid: none. */
Oid
rf_store_unique_index(Relation rel, const AttrNumber *columns, int ncolumns)
{
	List	 *indexes = RelationGetIndexList(rel);
	Oid		  result = InvalidOid;
	ListCell *cell;

	foreach(cell, indexes)
	{
		HeapTuple	  tuple = SearchSysCache1(INDEXRELID,
											  ObjectIdGetDatum(lfirst_oid(cell)));
		Form_pg_index index;

		if (!HeapTupleIsValid(tuple))
			continue;
		index = (Form_pg_index) GETSTRUCT(tuple);
		if (index->indisunique && index->indisvalid && index->indimmediate &&
			index->indnkeyatts == ncolumns &&
			memcmp(index->indkey.values, columns,
				   sizeof(AttrNumber) * ncolumns) == 0 &&
			heap_attisnull(tuple, Anum_pg_index_indpred, NULL))
			result = lfirst_oid(cell);
		ReleaseSysCache(tuple);
		if (OidIsValid(result))
			break;
	}
	list_free(indexes);
	return result;
}

/*
 * The one on streams and their numbers; tenant_id is 0 where streams have no
 * tenants.
 */
Oid
rf_store_stream_index(Relation rel, AttrNumber stream_id, AttrNumber tenant_id,
					  AttrNumber stream_seq)
{
	AttrNumber columns[3];
	int		   n = 0;

	columns[n++] = stream_id;
	if (tenant_id != 0)
		columns[n++] = tenant_id;
	columns[n++] = stream_seq;
	return rf_store_unique_index(rel, columns, n);
}

static Oid
must_find_stream_index(Relation rel, const RfLeaf *leaf)
{
	bool conjoined = leaf->tenant_id != 0;
	Oid	 result = rf_store_stream_index(rel, leaf->stream_id, leaf->tenant_id,
										leaf->stream_seq);

	if (!OidIsValid(result))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" has no unique index on (%s)",
						RelationGetRelationName(rel),
						conjoined ? "stream_id, tenant_id, stream_seq" :
									"stream_id, stream_seq"),
				 errhint("Create a unique index on those %s columns of it.",
						 conjoined ? "three" : "two")));
	return result;
}

/* Are the streams in a table those of tenants, which it has to name? */
static bool
is_conjoined(Oid root)
{
	RfStore *store = rf_store_in(get_rel_namespace(root), true);

	return store != NULL && store->conjoined;
}

static AttrNumber
must_find_column(Oid relid, const char *name, Oid type)
{
	AttrNumber attnum = get_attnum(relid, name);

	if (attnum == InvalidAttrNumber || get_atttype(relid, attnum) != type)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("table \"%s\" has no column \"%s\"",
							   get_rel_name(relid), name)));
	return attnum;
}

static void
read_leaf(Oid relid, RfLeaf *leaf)
{
	Relation rel = table_open(relid, AccessShareLock);

	leaf->relid = relid;
	leaf->root = rel->rd_rel->relispartition ?
					 llast_oid(get_partition_ancestors(relid)) :
					 relid;
	leaf->global_seq = must_find_column(relid, "global_seq", INT8OID);
	leaf->stream_id = must_find_column(relid, "stream_id", UUIDOID);
	leaf->stream_seq = must_find_column(relid, "stream_seq", INT4OID);
	leaf->headers = must_find_column(relid, "headers", JSONBOID);
	leaf->created_at = must_find_column(relid, "created_at", TIMESTAMPTZOID);
	leaf->bucket_month = must_find_column(relid, "bucket_month", DATEOID);
	leaf->retention_class = must_find_column(relid, "retention_class", TEXTOID);
	leaf->tenant_id = is_conjoined(leaf->root) ?
						  must_find_column(relid, "tenant_id", TEXTOID) :
						  InvalidAttrNumber;
	leaf->last_column = Max(Max(Max(leaf->global_seq, leaf->stream_id),
								Max(leaf->stream_seq, leaf->headers)),
							Max(Max(leaf->created_at, leaf->bucket_month),
								Max(leaf->retention_class, leaf->tenant_id)));
	leaf->stream_index = must_find_stream_index(rel, leaf);
	leaf->global_index = rf_store_unique_index(rel, &leaf->global_seq, 1);
	table_close(rel, AccessShareLock);
}

void
rf_store_leaf(Oid relid, RfLeaf *result)
{
	RfLeaf	leaf;
	RfLeaf *entry;
	uint64	seen;

	if (leaves == NULL)
	{
		HASHCTL ctl = {0};

		ctl.keysize = sizeof(Oid);
		ctl.entrysize = sizeof(RfLeaf);
		leaves = hash_create("Rillflow leaves", 64, &ctl,
							 HASH_ELEM | HASH_BLOBS);
	}
	entry = hash_search(leaves, &relid, HASH_FIND, NULL);
	if (entry != NULL)
	{
		*result = *entry;
		return;
	}
	do
	{
		seen = invalidations;
		read_leaf(relid, &leaf);
	} while (seen != invalidations);
	entry = hash_search(leaves, &relid, HASH_ENTER, NULL);
	*entry = leaf;
	*result = leaf;
}

/*
 * Our own writers
 */

/* The next statement that writes relid is ours. */
void
rf_store_expect_write(Oid relid)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

	expected_writes = lappend_oid(expected_writes, relid);
	MemoryContextSwitchTo(old);
}

/* Is the statement that a trigger was fired for one of ours? */
bool
rf_store_take_expected_write(Oid relid)
{
	if (!list_member_oid(expected_writes, relid))
		return false;
	expected_writes = list_delete_oid(expected_writes, relid);
	return true;
}

/* Our statements are done; whatever triggers did not take goes. */
void
rf_store_expect_no_write(void)
{
	list_free(expected_writes);
	expected_writes = NIL;
}

/*
 * SQL interface
 */

PG_FUNCTION_INFO_V1(rf_events_append_only);
PG_FUNCTION_INFO_V1(rf_config_changed);

/* Refuse a statement that writes history, unless it is one of ours. */
Datum
rf_events_append_only(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_BEFORE(trigdata->tg_event) ||
		!TRIGGER_FIRED_FOR_STATEMENT(trigdata->tg_event))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("%s must be fired before a statement",
							   "rf_events_append_only()")));
	if (!rf_store_take_expected_write(RelationGetRelid(trigdata->tg_relation)))
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table \"%s\" is append-only",
					RelationGetRelationName(trigdata->tg_relation)),
			 strcmp(RelationGetRelationName(trigdata->tg_relation),
					"rf_archive_log") == 0 ?
				 errhint("Old entries are folded by rf_prune_log().") :
			 TRIGGER_FIRED_BY_INSERT(trigdata->tg_event) ?
				 errhint("Insert into \"events\", or call rf_append().") :
				 errhint(
					 "Events are archived with rf_archive_move(), never changed.")));
	return PointerGetDatum(NULL);
}

/* Make every session read rf_archive_config again once this commits. */
Datum
rf_config_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(trigdata->tg_event))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("%s must be fired after a change",
							   "rf_config_changed()")));
	CacheInvalidateRelcache(trigdata->tg_relation);
	return PointerGetDatum(NULL);
}
