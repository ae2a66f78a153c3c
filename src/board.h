/*-------------------------------------------------------------------------
 *
 * board.h
 *	  Shared memory: what sessions, launchers and their processes tell each
 *	  other.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_BOARD_H
#define RF_BOARD_H

#include "rillflow.h"

#include "storage/lwlock.h"

#define RF_MAX_LAUNCHERS 8

/* The workers, and for each launcher one process that looks for work. */
#define RF_MAX_PROCESSES (RF_MAX_WORKERS + RF_MAX_LAUNCHERS)

#define RF_MAX_CHANGED 64

#define RF_MAX_TROUBLES 64

/* A policy that is to run. */
typedef struct RfJob
{
	Oid	 database;
	Oid	 role; /* whom to connect as */
	Oid	 namespace_id;
	char policy[NAMEDATALEN];
} RfJob;

/* What a process has to tell its launcher before it ends. */
typedef struct RfFinding
{
	bool		found;		/* did the scout find work, and which? */
	RfJob		job;		/* that */
	bool		more;		/* is there more that could run now? */
	TimestampTz due_at;		/* when to look again */
	bool		limits_lag; /* does a policy have a max_replica_lag? */
} RfFinding;

/* A process that a launcher has started. */
typedef struct RfBoardProcess
{
	bool		used;
	pid_t		launcher;
	pid_t		pid;	  /* 0 before it has begun */
	RfJob		job;	  /* a scout's has a database only */
	TimestampTz deadline; /* it hangs if it is there much later */
	bool		reported; /* did it live to tell what it found? */
	RfFinding	finding;
} RfBoardProcess;

/* A store in which nothing can be looked up, or put on record. */
typedef struct RfBoardTrouble
{
	Oid			database;
	Oid			namespace_id;
	TimestampTz rest_until; /* it is left alone until then */
} RfBoardTrouble;

typedef struct RfBoardLauncher
{
	pid_t pid;		/* 0: none */
	Oid	  database; /* the only one that it serves; InvalidOid: all */
} RfBoardLauncher;

typedef struct RfBoard
{
	LWLock			lock; /* over all of this */
	RfBoardLauncher launchers[RF_MAX_LAUNCHERS];
	RfBoardProcess	processes[RF_MAX_PROCESSES];

	/* databases in which policies have changed since launchers looked */
	int	 nchanged;
	Oid	 changed[RF_MAX_CHANGED];
	bool all_changed; /* there were too many to tell */

	TimestampTz no_slot_since; /* no process could be had since; 0: all well */

	RfBoardTrouble troubles[RF_MAX_TROUBLES];
} RfBoard;

extern void		rf_board_request(void);
extern void		rf_board_shmem_init(void);
extern RfBoard *rf_board_attach(void);
extern void		rf_board_init(void);

/* sessions */
extern void	 rf_board_tell_of_change(void);
extern void	 rf_board_stop_run(Oid namespace_id, const char *policy);
extern pid_t rf_board_launcher_of(Oid database);

/* launchers */
extern bool rf_board_enter_launcher(Oid database);
extern int	rf_board_take_changed(Oid database, Oid *changed, bool *all);
extern int	rf_board_enter_process(const RfJob *job, TimestampTz deadline);
extern TimestampTz rf_board_deadline_of(int number);
extern void		   rf_board_leave_process(int number, RfBoardProcess *report);

/* their processes */
extern void		   rf_board_begin_process(int number, RfJob *job);
extern void		   rf_board_set_deadline(TimestampTz deadline);
extern void		   rf_board_report(int number, const RfFinding *finding);
extern void		   rf_board_note_trouble(Oid database, Oid namespace_id);
extern bool		   rf_board_has_run(Oid namespace_id, const char *policy);
extern TimestampTz rf_board_rests_until(Oid namespace_id);

#endif /* RF_BOARD_H */
