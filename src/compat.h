/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  What differs between PostgreSQL 15, 16, 17 and 18.
 *
 * Every test of PG_VERSION_NUM is in this file.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_COMPAT_H
#define RF_COMPAT_H

#include "postgres.h"

#include "access/genam.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_namespace.h"
#include "common/relpath.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "replication/slot.h"
#include "storage/bufmgr.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/backend_status.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#if PG_VERSION_NUM < 150000
#error "Rillflow needs PostgreSQL 15 or later"
#endif

/* 16 declares it in fmgr.h */
#if PG_VERSION_NUM < 160000
extern PGDLLEXPORT void _PG_init(void);
#endif

/* Does the role own the relation? */
static inline bool
rf_compat_owns_relation(Oid relid, Oid roleid)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(RelationRelationId, relid, roleid);
#else
	return pg_class_ownercheck(relid, roleid);
#endif
}

/* Does the role own the schema? */
static inline bool
rf_compat_owns_schema(Oid nspid, Oid roleid)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(NamespaceRelationId, nspid, roleid);
#else
	return pg_namespace_ownercheck(nspid, roleid);
#endif
}

/* May the role find what is in the schema? */
static inline bool
rf_compat_may_use_schema(Oid nspid, Oid roleid)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(NamespaceRelationId, nspid, roleid, ACL_USAGE) ==
		   ACLCHECK_OK;
#else
	return pg_namespace_aclcheck(nspid, roleid, ACL_USAGE) == ACLCHECK_OK;
#endif
}

/* 18 has constraints that are not enforced. */
static inline void
rf_compat_enforce(Constraint *constraint)
{
#if PG_VERSION_NUM >= 180000
	constraint->is_enforced = true;
#endif
}

/* A server setting by its name; NULL when there is none. */
static inline struct config_generic *
rf_compat_find_setting(const char *name)
{
#if PG_VERSION_NUM >= 160000
	return find_option(name, false, true, 0);
#else
	struct config_generic **settings = get_guc_variables();
	int						count = GetNumConfigOptions();

	for (int i = 0; i < count; i++)
	{
		if (strcmp(settings[i]->name, name) == 0)
			return settings[i];
	}
	return NULL;
#endif
}

/* Which indexes need new entries for a new version of a row?  15 knows two. */
#if PG_VERSION_NUM < 160000
typedef bool TU_UpdateIndexes;
#define TU_None false
#endif

/* Put a new version of a row in the place of the one at tid. */
static inline TM_Result
rf_compat_tuple_update(Relation rel, ItemPointer tid, TupleTableSlot *slot,
					   bool wait, TU_UpdateIndexes *update_indexes)
{
	TM_FailureData failure;
	LockTupleMode  mode;

	return table_tuple_update(rel, tid, slot, GetCurrentCommandId(true),
							  InvalidSnapshot, InvalidSnapshot, wait, &failure,
							  &mode, update_indexes);
}

/* Add the entries that it says are needed. */
static inline void
rf_compat_insert_index_entries(ResultRelInfo *result, TupleTableSlot *slot,
							   EState *estate, bool update,
							   TU_UpdateIndexes update_indexes)
{
#if PG_VERSION_NUM >= 160000
	(void) ExecInsertIndexTuples(result, slot, estate, update, false, NULL, NIL,
								 update_indexes == TU_Summarizing);
#else
	(void) ExecInsertIndexTuples(result, slot, estate, update, false, NULL,
								 NIL);
#endif
}

/* Rows that the statistics know of, 0 where there are none. */
static inline int64
rf_compat_live_tuples(const PgStat_StatTabEntry *stats)
{
	if (stats == NULL)
		return 0;
#if PG_VERSION_NUM >= 160000
	return stats->live_tuples;
#else
	return stats->n_live_tuples;
#endif
}

/* Do the statistics know of anything that was done with the table? */
static inline bool
rf_compat_has_counters(const PgStat_StatTabEntry *stats)
{
	if (stats == NULL)
		return false;
#if PG_VERSION_NUM >= 160000
	return stats->live_tuples > 0 || stats->tuples_inserted > 0 ||
		   stats->tuples_deleted > 0;
#else
	return stats->n_live_tuples > 0 || stats->tuples_inserted > 0 ||
		   stats->tuples_deleted > 0;
#endif
}

/* Where a file of a relation of this database is, that is no temporary one. */
static inline void
rf_compat_relation_path(char path[MAXPGPATH], Oid tablespace, Oid number,
						ForkNumber fork)
{
#if PG_VERSION_NUM >= 180000
	snprintf(path, MAXPGPATH, "%s",
			 GetRelationPath(MyDatabaseId, tablespace, number,
							 INVALID_PROC_NUMBER, fork)
				 .str);
#elif PG_VERSION_NUM >= 170000
	snprintf(path, MAXPGPATH, "%s",
			 GetRelationPath(MyDatabaseId, tablespace, number,
							 INVALID_PROC_NUMBER, fork));
#else
	snprintf(path, MAXPGPATH, "%s",
			 GetRelationPath(MyDatabaseId, tablespace, number, InvalidBackendId,
							 fork));
#endif
}

/* Begin a scan of an index; 18 can count what it does. */
static inline IndexScanDesc
rf_compat_index_beginscan(Relation rel, Relation index, Snapshot snapshot,
						  int nkeys)
{
#if PG_VERSION_NUM >= 180000
	return index_beginscan(rel, index, snapshot, NULL, nkeys, 0);
#else
	return index_beginscan(rel, index, snapshot, nkeys, 0);
#endif
}

/* The file of a relation. */
#if PG_VERSION_NUM >= 160000
typedef RelFileLocator RfFileLocator;
#else
typedef RelFileNode RfFileLocator;
#endif

static inline RfFileLocator
rf_compat_file_locator(Relation rel)
{
#if PG_VERSION_NUM >= 160000
	return rel->rd_locator;
#else
	return rel->rd_node;
#endif
}

static inline bool
rf_compat_same_file(RfFileLocator a, RfFileLocator b)
{
#if PG_VERSION_NUM >= 160000
	return RelFileLocatorEquals(a, b);
#else
	return RelFileNodeEquals(a, b);
#endif
}

/* Until 16, rows can be removed that an old snapshot is to show. */
static inline bool
rf_compat_snapshots_expire(void)
{
#if PG_VERSION_NUM < 170000
	return OldSnapshotThresholdActive();
#else
	return false;
#endif
}

/* Does this backend hold the lock in that mode? */
static inline bool
rf_compat_lock_is_held(const LOCKTAG *tag, LOCKMODE mode)
{
#if PG_VERSION_NUM >= 170000
	return LockHeldByMe(tag, mode, false);
#else
	return LockHeldByMe(tag, mode);
#endif
}

/* A background worker can be a role that may not log in, from 17 on. */
static inline bool
rf_compat_worker_may_be(Oid roleid)
{
#if PG_VERSION_NUM >= 170000
	return true;
#else
	HeapTuple tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(roleid));
	bool result = HeapTupleIsValid(tuple) &&
				  ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return result;
#endif
}

/* May the role connect to the database? */
static inline bool
rf_compat_may_connect(Oid database, Oid roleid)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(DatabaseRelationId, database, roleid, ACL_CONNECT) ==
		   ACLCHECK_OK;
#else
	return pg_database_aclcheck(database, roleid, ACL_CONNECT) == ACLCHECK_OK;
#endif
}

/* Connect a background worker to a database, as a role. */
static inline void
rf_compat_connect_worker(Oid database, Oid roleid)
{
#if PG_VERSION_NUM >= 170000
	BackgroundWorkerInitializeConnectionByOid(database, roleid,
											  BGWORKER_BYPASS_ROLELOGINCHECK);
#else
	BackgroundWorkerInitializeConnectionByOid(database, roleid, 0);
#endif
}

/* Has the slot lost WAL that it needs? */
static inline bool
rf_compat_slot_is_lost(const ReplicationSlotPersistentData *slot)
{
#if PG_VERSION_NUM >= 160000
	return slot->invalidated != RS_INVAL_NONE;
#else
	return !XLogRecPtrIsInvalid(slot->invalidated_at);
#endif
}

/* The application_name of a process, empty when there is none. */
static inline void
rf_compat_application_name(int pid, char name[NAMEDATALEN])
{
	int count;

	pgstat_clear_backend_activity_snapshot();
	count = pgstat_fetch_stat_numbackends();
	name[0] = '\0';
	for (int i = 1; i <= count; i++)
	{
#if PG_VERSION_NUM >= 160000
		LocalPgBackendStatus *status = pgstat_get_local_beentry_by_index(i);
#else
		LocalPgBackendStatus *status = pgstat_fetch_stat_local_beentry(i);
#endif

		if (status != NULL && status->backendStatus.st_procpid == pid)
			snprintf(name, NAMEDATALEN, "%s", status->backendStatus.st_appname);
	}
}

#endif /* RF_COMPAT_H */
