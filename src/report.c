/*-------------------------------------------------------------------------
 *
 * report.c
 *	  Lines in the server's log: what was done, as fields.
 *
 * A line is what was done, a colon, and fields: key=value, with blanks between.
 * Values are what people have written, too.  One that has anything but plain
 * characters is quoted, and what could end the quotes or the line is escaped:
 * an action is one line, and no value can pass for another field.
 *
 * What a transaction has done is logged when it commits, and so never logged
 * when it was undone; of a prepared one, when it is prepared.  A crash right
 * after the commit can lose the line; the ledger is the record.
 *
 * Neither the statement nor its context goes along, for they can have events.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#include "guc.h"
#include "report.h"

/* Of longer values, the beginning. */
#define LONGEST_VALUE 1000

/* A line of a (sub)transaction. */
typedef struct Line
{
	struct Line		*next;
	SubTransactionId subid;
	char			*text;
} Line;

/* the newest first */
static Line *lines = NULL;

/*
 * Is it to be logged?  At zero, everything is but what comes by the hundred;
 * above, what took as long, in milliseconds that have begun.  What takes no
 * time worth measuring (negative) is always logged, unless nothing is.
 */
bool
rf_report_wanted(RfPace pace, int64 microseconds)
{
	if (rf_guc_log_min_duration < 0)
		return false;
	if (rf_guc_log_min_duration == 0)
		return pace == RF_NOW_AND_THEN;
	return microseconds < 0 ||
		   (microseconds + 999) / 1000 >= rf_guc_log_min_duration;
}

/*
 * Making a line
 */

static bool
is_plain(const char *value)
{
	if (*value == '\0')
		return false;
	for (const char *p = value; *p != '\0'; p++)
	{
		if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
			  (*p >= '0' && *p <= '9') || strchr("_.:+-/", *p) != NULL))
			return false;
	}
	return true;
}

/* Readers of logs may take these for ends of lines, too; their first bytes. */
static bool
ends_line(const char *p, int len)
{
	if (GetDatabaseEncoding() != PG_UTF8)
		return false;
	return (len == 2 && memcmp(p, "\xc2\x85", 2) == 0) ||
		   (len == 3 && (memcmp(p, "\xe2\x80\xa8", 3) == 0 ||
						 memcmp(p, "\xe2\x80\xa9", 3) == 0));
}

static void
append_escaped(StringInfo line, const char *p, int len)
{
	switch (*p)
	{
		case '"':
		case '\\':
			appendStringInfoChar(line, '\\');
			appendStringInfoChar(line, *p);
			break;
		case '\n':
			appendStringInfoString(line, "\\n");
			break;
		case '\r':
			appendStringInfoString(line, "\\r");
			break;
		case '\t':
			appendStringInfoString(line, "\\t");
			break;
		default:
			if ((unsigned char) *p < ' ' || *p == '\x7f' || ends_line(p, len))
			{
				for (int i = 0; i < len; i++)
					appendStringInfo(line, "\\x%02x", (unsigned char) p[i]);
			}
			else
				appendBinaryStringInfo(line, p, len);
	}
}

void
rf_report_begin(StringInfo line, const char *what)
{
	initStringInfo(line);
	appendStringInfo(line, "%s:", what);
}

/* A field; none where there is no value. */
void
rf_report_text(StringInfo line, const char *key, const char *value)
{
	int length;
	int end;

	if (value == NULL)
		return;
	appendStringInfo(line, " %s=", key);
	if (is_plain(value) && strlen(value) <= LONGEST_VALUE)
	{
		appendStringInfoString(line, value);
		return;
	}
	length = strlen(value);
	end = pg_mbcliplen(value, length, LONGEST_VALUE);
	appendStringInfoChar(line, '"');
	for (int i = 0, len; i < end; i += len)
	{
		len = Min(pg_mblen(value + i), end - i);
		append_escaped(line, value + i, len);
	}
	appendStringInfoString(line, end < length ? "...\"" : "\"");
}

/* The same; none where the number is negative. */
void
rf_report_number(StringInfo line, const char *key, int64 value)
{
	if (value >= 0)
		appendStringInfo(line, " %s=" INT64_FORMAT, key, value);
}

void
rf_report_time(StringInfo line, int64 microseconds)
{
	if (microseconds >= 0)
		appendStringInfo(line, " ms=%.3f", microseconds / 1000.0);
}

/*
 * Logging it
 */

static void
log_line(const char *line)
{
	ereport(LOG_SERVER_ONLY, (errmsg_internal("%s", line), errhidestmt(true),
							  errhidecontext(true)));
}

void
rf_report_now(StringInfo line)
{
	log_line(line->data);
}

void
rf_report_at_commit(StringInfo line)
{
	Line *item = MemoryContextAlloc(TopTransactionContext, sizeof(Line));

	item->text = MemoryContextStrdup(TopTransactionContext, line->data);
	item->subid = GetCurrentSubTransactionId();
	item->next = lines;
	lines = item;
}

static void
log_lines(void)
{
	Line *first = NULL;

	while (lines != NULL)
	{
		Line *item = lines;

		lines = item->next;
		item->next = first;
		first = item;
	}
	for (; first != NULL; first = first->next)
		log_line(first->text);
}

static void
transaction_ended(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_PREPARE)
		log_lines();
	else if (event == XACT_EVENT_ABORT)
		lines = NULL; /* they lived in the transaction's memory */
}

static void
subtransaction_ended(SubXactEvent event, SubTransactionId id,
					 SubTransactionId parent, void *arg)
{
	Line **link = &lines;

	if (event != SUBXACT_EVENT_ABORT_SUB && event != SUBXACT_EVENT_COMMIT_SUB)
		return;
	/* those of a subtransaction are the newest ones */
	while (*link != NULL && (*link)->subid == id)
	{
		if (event == SUBXACT_EVENT_ABORT_SUB)
			*link = (*link)->next;
		else
		{
			(*link)->subid = parent;
			link = &(*link)->next;
		}
	}
}

void
rf_report_init(void)
{
	RegisterXactCallback(transaction_ended, NULL);
	RegisterSubXactCallback(subtransaction_ended, NULL);
}
