/*-------------------------------------------------------------------------
 *
 * wait_point.h
 *	  Places where a test can make a backend wait.
 *
 * Compiled into test builds only (RF_TEST_BUILD).  A test holds the advisory
 * lock (RF_WAIT_POINT_CLASS, hashtext(name)); who comes to the point waits
 * until it lets go.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_WAIT_POINT_H
#define RF_WAIT_POINT_H

#ifdef RF_TEST_BUILD
#define RF_WAIT_POINT_CLASS 7270
extern void rf_wait_point(const char *name);
#define RF_WAIT_POINT(name) rf_wait_point(name)
#else
#define RF_WAIT_POINT(name) ((void) 0)
#endif

#endif /* RF_WAIT_POINT_H */
