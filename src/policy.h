/*-------------------------------------------------------------------------
 *
 * policy.h
 *	  Policies: what a worker archives, and when.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_POLICY_H
#define RF_POLICY_H

#include "rillflow.h"

#include "nodes/pg_list.h"

#include "store.h"

/* The tables of a store that a worker needs, though the rest be broken. */
typedef struct RfBook
{
	Oid	  namespace_id;
	Oid	  owner;
	char *schema;
	char *policies; /* their names, to be put into statements */
	char *runs;
} RfBook;

/* When a policy is due. */
typedef struct RfPolicyDue
{
	char	   *policy;
	char	   *tenant; /* of a conjoined store; NULL: all of the store */
	char	   *owner;
	bool		due;
	TimestampTz due_at;		/* DT_NOEND: not before it is changed */
	TimestampTz since;		/* its time has come, the window aside */
	bool		limits_lag; /* has it a max_replica_lag, and may act? */
	char	   *reason;
} RfPolicyDue;

/* What a policy asks for, at a time. */
typedef struct RfPolicy
{
	char	   *owner;
	char	   *tenant;		/* of a conjoined store; NULL: all of the store */
	TimestampTz before;		/* the cut-off */
	TimestampTz window_end; /* of the window that is open; DT_NOEND: none */
	TimestampTz deadline;	/* by max_runtime */
	int			batch_size; /* at most; 0: as batches go */
	bool		only_archived;
	int			premake;
	Interval   *max_replica_lag; /* NULL: no limit */
} RfPolicy;

/* How a policy is doing. */
typedef struct RfPolicyState
{
	char	   *policy;
	int			failures; /* in a row */
	int64		failed_runs;
	bool		paused;
	bool		armed;
	bool		chooses;  /* some events of a month, and not all? */
	TimestampTz before;	  /* the cut-off of a run that begins now */
	TimestampTz last_run; /* DT_NOBEGIN: none yet, and so below */
	TimestampTz last_success;
	bool		unfinished;	  /* is the last run not finished? */
	char	   *held_back_by; /* in the last run; NULL: nothing */
} RfPolicyState;

extern bool	 rf_policy_open_book(Oid namespace_id, RfBook *book);
extern void	 rf_policy_disarm_all(const char *schema);
extern List *rf_policy_look(const RfBook *book, TimestampTz now);
extern bool	 rf_policy_read(const RfBook *book, const char *name,
							TimestampTz now, RfPolicy *policy);
extern List *rf_policy_states(const RfBook *book, TimestampTz now);
extern void	 rf_policy_take_request(const RfBook *book, const char *name);
extern int	 rf_policy_note_failure(const RfBook *book, const char *name,
									const char *message);
extern void	 rf_policy_note_cut_runs(const RfBook *book);
extern void	 rf_policy_note_success(const RfBook *book, const char *name);

extern void rf_policy_pass_on(RfStore *store, const char *before);

/* A policy that has failed so often in a row is paused. */
#define RF_POLICY_MAX_FAILURES 5

#endif /* RF_POLICY_H */
