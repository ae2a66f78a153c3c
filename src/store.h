/*-------------------------------------------------------------------------
 *
 * store.h
 *	  What is known of a store: its tables, switches, rights and kept plans.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_STORE_H
#define RF_STORE_H

#include "rillflow.h"

#include "access/attnum.h"
#include "nodes/pg_list.h"
#include "utils/hsearch.h"
#include "utils/relcache.h"

#include "query.h"

/* What the tables of a store look like: what we make, and what we can use. */
#define RF_LAYOUT_VERSION 1
#define RF_OLDEST_LAYOUT 1

/*
 * What an append reads comes first, in one or two lines of the processor's
 * cache: of a conjoined store there is one of these for each tenant.
 */
typedef struct RfStore
{
	Oid				namespace_id;
	Oid				owner;		   /* owner of events: bookkeeping runs as it */
	uint32			tenant_number; /* that this is restricted to; 0: to none */
	RfBackend		backend;
	struct RfStore *whole;	/* what is restricted, or this itself */
	char		   *tenant; /* NULL: the default store, or all tenants of it */

	bool valid;		/* false: what is here may be out of date */
	bool conjoined; /* are its streams those of many tenants? */
	bool verified;	/* is it known to be that tenant's store? */
	bool redirect_enabled;
	bool include_archived;
	bool notify_enabled;
	bool row_security; /* is it enabled on events or on rf_streams? */
	bool adopting;	   /* are events of a plain table still to be carried? */

	Oid events;
	Oid events_hot;
	Oid streams;
	Oid streams_pkey;
	Oid sequence; /* of events.global_seq */

	Oid events_cold;
	Oid events_archive;
	Oid events_all;
	Oid config;
	Oid keys;
	Oid log;
	Oid totals;
	Oid consumers;
	Oid policies;
	Oid runs;
	Oid holds;

	/* of the whole: the stores that are restricted, by tenant's number */
	struct RfStore **restricted;
	uint32			 room; /* of the array */
	int				 nrestricted;

	uint64			layout; /* another number whenever it was read anew */
	MemoryContext	context;
	struct RfStore *next_retired;
	char		   *schema;

	int	   ncolumns; /* of an event, but for retention_class */
	char **column_names;
	Oid	  *column_types;
	char  *columns;		   /* their names, as a list */
	char  *missing_column; /* ALTER TABLE that events_archive lacks */

	HTAB *plans; /* of the whole; NULL: none yet */
} RfStore;

/*
 * A statement of a store.  {events}, {hot}, {cold}, {archive}, {all},
 * {streams}, {config}, {keys}, {log}, {consumers}, {policies}, {runs} and
 * {holds} stand for its tables, {columns} for the columns of an event but for
 * retention_class, {params} for as many parameters, and {source} and {target}
 * for the relations that a plan is for.
 *
 * Where streams belong to tenants, a stream is not known by its id alone:
 *
 * {tenant_id,} {,tenant_id}	the column, in a list of the columns of a key
 * {tenant,}		its value in a row of the tenant that the store is
 *					restricted to
 * {mine} {mine a}	AND it is that tenant's, in a condition; "a" is an alias
 * {same a b}		AND the rows are of one tenant, in a join
 * {owner} {owner a}	the column, or a null
 *
 * In a single store all but the last are nothing.
 */
#define RF_COLUMN_ARGS (-1) /* nargs: a parameter for each column */

typedef struct RfStatement
{
	const char *sql;
	int			nargs;
	Oid			types[RF_MAX_ARGS];
} RfStatement;

/* A leaf partition as row triggers need to know it. */
typedef struct RfLeaf
{
	Oid		   relid;		 /* hash key */
	Oid		   root;		 /* the topmost ancestor */
	Oid		   stream_index; /* unique (stream_id, [tenant_id,] stream_seq) */
	Oid		   global_index; /* unique (global_seq); InvalidOid: none */
	AttrNumber global_seq;
	AttrNumber stream_id;
	AttrNumber stream_seq;
	AttrNumber headers;
	AttrNumber created_at;
	AttrNumber bucket_month;
	AttrNumber retention_class;
	AttrNumber tenant_id;	/* 0: in a single store */
	AttrNumber last_column; /* of these */
} RfLeaf;

/*
 * While a plain table is adopted it is a partition of the tier's parent, for
 * rows of which the month is not known yet: '-infinity'.  This is the day
 * after which months begin, the first one that there is.
 */
#define RF_NO_MONTH "-infinity"
#define RF_FIRST_DAY (-POSTGRES_EPOCH_JDATE)
#define RF_FIRST_DAY_TEXT "4714-11-24 BC"

/* What a caller may do with a store. */
typedef enum RfRight
{
	RF_RIGHT_APPEND,  /* INSERT on events, or on a column of it */
	RF_RIGHT_READ,	  /* SELECT on events_all */
	RF_RIGHT_STATUS,  /* the same, and to see all rows */
	RF_RIGHT_ARCHIVE, /* UPDATE on rf_streams */
	RF_RIGHT_CONSUME, /* INSERT or UPDATE on rf_consumers */
	RF_RIGHT_MONITOR, /* SELECT on rf_archive_totals */
	RF_RIGHT_OWN	  /* ownership of events */
} RfRight;

extern void rf_store_init(void);

/* finding stores */
extern RfStore *rf_store_get(const char *tenant, RfRight right);
extern RfStore *rf_store_get_whole(const char *tenant, RfRight right);
extern RfStore *rf_store_get_any(const char *tenant, RfRight right);
extern RfStore *rf_store_again(const RfStore *store);
extern RfStore *rf_store_of_tenant(RfStore *store, uint32 number);
extern void		rf_store_require_tenant(RfStore *store);
extern void		rf_store_refuse_tenant(const char *tenant);
extern RfStore *rf_store_in(Oid namespace_id, bool missing_ok);
extern RfStore *rf_store_of_events(Relation events);
extern Oid		rf_store_extension_schema(void);
extern bool		rf_store_is_registered(const char *schema);
extern int		rf_store_layout_version(const char *schema);
extern List	   *rf_store_schemas(void);
extern char	   *rf_store_schema_of_tenant(const char *tenant);
extern char	   *rf_store_tenant_of_schema(const char *schema);
extern Oid		rf_store_schema_for(const char *tenant);
extern bool		rf_store_allows(Oid namespace_id, RfRight right);
extern void		rf_store_forget_all(void);

/* all stores */
extern List *rf_store_list_all(void);
typedef void (*RfStoreWork)(RfStore *store, void *arg);
extern bool rf_store_is_all(const char *tenant);
extern void rf_store_each(const char *tenant, RfRight right, bool looks,
						  RfStoreWork work, void *arg);
extern int	rf_store_survey(RfRight right, RfStoreWork work, void *arg,
							int *left_out);
extern bool rf_store_warn(Oid namespace_id, const ErrorData *error);
extern void rf_store_warn_denied(int count);

extern void rf_store_require_name(const char *name);
extern void rf_store_check_tenant(const char *tenant);

/* statements */
extern RfPlan rf_store_plan(RfStore *store, const RfStatement *statement);
extern RfPlan rf_store_plan_for(RfStore *store, const RfStatement *statement,
								Oid source, Oid target);
extern char	 *rf_store_relation_name(Oid relid);
extern Oid	  rf_store_relation_owner(Oid relid);
extern char	 *rf_store_column_list(Oid relid, const char *but, const char *nor);

/* tiers */
extern Oid		rf_store_tier_parent(const RfStore *store, RfTier tier);
extern void		rf_store_require_same_columns(const RfStore *store);
extern RfStore *rf_store_lock_backend(RfStore *store);
extern RfStore *rf_store_lock_cold(RfStore *store);
extern void		rf_store_forget_plans(RfStore *store, Oid source);
extern Oid		rf_store_adopted_leaf(Oid parent);
extern void		rf_store_require_adopted(const RfStore *store);

/* leaves */
extern void rf_store_leaf(Oid relid, RfLeaf *result);
extern Oid	rf_store_unique_index(Relation rel, const AttrNumber *columns,
								  int ncolumns);
extern Oid	rf_store_stream_index(Relation rel, AttrNumber stream_id,
								  AttrNumber tenant_id, AttrNumber stream_seq);

/* our own writers */
extern void rf_store_expect_write(Oid relid);
extern bool rf_store_take_expected_write(Oid relid);
extern void rf_store_expect_no_write(void);

#endif /* RF_STORE_H */
