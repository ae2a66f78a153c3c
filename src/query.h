/*-------------------------------------------------------------------------
 *
 * query.h
 *	  Running SQL from C: the only door to the server programming interface.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_QUERY_H
#define RF_QUERY_H

#include "rillflow.h"

#include "utils/array.h"
#include "utils/tuplestore.h"

#define RF_MAX_ARGS 16

/* for rf_query_attempt(): whatever happens is caught, but for a cancel … */
#define RF_ANY_ERROR 0
/* … cancels, too, by who cleans up and throws them again … */
#define RF_ANY_END (-2)
/* … what others are the reason of: locks not to be had, and lost races */
#define RF_ANY_CONTENTION (-1)

/*
 * A kept plan.  Of a statement that is about one tenant of a conjoined store,
 * the tenant is bound as one more parameter than the caller gives.
 */
typedef struct RfPlan
{
	struct _SPI_plan *spi;
	int				  nargs;  /* that the caller gives */
	Datum			  tenant; /* 0: none is bound */
} RfPlan;

/* What to give back when a scope ends. */
typedef struct RfScope
{
	Oid	 userid;
	int	 sec_context;
	int	 guc_level;
	bool is_callers; /* does it run as the caller? */
} RfScope;

/* scopes */
extern void rf_query_begin(RfScope *scope, Oid as_user, int sec_flags);
extern void rf_query_end(RfScope *scope);
extern void rf_query_limit_lock_waits(int timeout_ms);
extern void rf_query_detect_deadlocks_after(int timeout_ms);
extern int	rf_query_deadlock_timeout(void);
extern void rf_query_be_quiet(void);
extern void rf_query_fix_text(void);
extern void rf_query_require_read_committed(const char *what);
extern void rf_query_connect_nonatomic(void);
extern void rf_query_disconnect(void);
extern void rf_query_commit(void);
extern bool rf_query_try_commit(ErrorData **error);
extern void rf_query_fire_at_once(void);

/* kept plans */
extern RfPlan rf_query_prepare(const char *sql, int nargs, const Oid *types);
extern void	  rf_query_forget(RfPlan plan);

/* running; the number of rows is returned */
extern uint64 rf_query_run(RfPlan plan, const Datum *values, const char *nulls);
extern uint64 rf_query_run_untriggered(RfPlan plan, const Datum *values,
									   const char *nulls);
extern bool	  rf_query_catches(int sqlstate, int caught_sqlstate);
extern bool	  rf_query_attempt(void (*work)(void *arg), void *arg,
							   int caught_sqlstate, ErrorData **error);
extern bool	  rf_query_look(void (*work)(void *arg), void *arg,
							int caught_sqlstate, ErrorData **error);
extern void	  rf_query_into(RfPlan plan, const Datum *values, const char *nulls,
							Tuplestorestate *store);
extern uint64 rf_query_read(const char *sql);
extern uint64 rf_query_once(const char *sql, int nargs, const Oid *types,
							const Datum *values, const char *nulls);

/* the rows of the last run in this scope */
extern uint64 rf_query_rows(void);
extern Datum  rf_query_value(uint64 row, int column, bool *isnull);
extern Datum  rf_query_must(uint64 row, int column);
extern bool	  rf_query_null(uint64 row, int column);
extern void	  rf_query_copy_row(uint64 row, Datum *values, bool *nulls,
								int ncolumns, MemoryContext context);

/* statements and values put together */
extern char		 *rf_query_format(const char *format, ...);
extern void		  rf_query_ddl(const char *format, ...);
extern Node		 *rf_query_parse_condition(const char *condition);
extern char		 *rf_query_uuid_text(const pg_uuid_t *id);
extern ArrayType *rf_query_array(Datum *elements, int count, Oid type);

#endif /* RF_QUERY_H */
