/*-------------------------------------------------------------------------
 *
 * watch.c
 *	  What changes in a table while it is being adopted.
 *
 * Triggers on the source, which fire whoever changes it, note each row in a
 * table of the schema where its store is prepared.  adopt.c takes the notes up
 * before it lets the store take the source's place.
 *
 * Anybody may put our trigger on a table of his own, and name a schema of his
 * own.  So nothing is taken for granted: what is noted goes to a table of
 * exactly our columns that has the same owner, and a column of the table that
 * changes counts if it has the type that it must have.  Once the schema is
 * gone, the trigger does nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "query.h"
#include "source.h"
#include "store.h"
#include "watch.h"

#define NOTE_INSERT 'i'
#define NOTE_CHANGE 'c'
#define NOTE_STREAM 's'

/* Columns of a note, after its kind, and of the row that it is of. */
static const struct
{
	const char *name;
	Oid			type;
} noted[] = {{"stream_id", UUIDOID},
			 {"stream_seq", INT4OID},
			 {"created_at", TIMESTAMPTZOID},
			 {"global_seq", INT8OID}};

/*
 * The triggers
 */

/* Unlogged: a crash ends the adoption, and no publication has them. */
void
rf_watch_make_notes(const char *schema)
{
	rf_query_ddl("CREATE UNLOGGED TABLE %I." RF_WATCH_NOTES
				 " (kind \"char\", stream_id uuid, stream_seq integer,"
				 " created_at timestamptz, global_seq bigint)",
				 schema);
}

/* Let changes of the source be noted in that schema, whoever makes them. */
void
rf_watch_begin(const RfSource *source, const char *schema)
{
	char *extension = get_namespace_name(rf_store_extension_schema());
	Oid	  tables[RF_SOURCE_TABLES];
	int	  count = rf_source_tables(source, tables);

	for (int i = 0; i < count; i++)
	{
		const char *table = rf_store_relation_name(tables[i]);

		rf_query_ddl("CREATE TRIGGER rf_adopt_changed"
					 " AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW"
					 " EXECUTE FUNCTION %I.rf_adopt_changed(%L)",
					 table, extension, schema);
		rf_query_ddl("CREATE TRIGGER rf_adopt_truncated BEFORE TRUNCATE ON %s"
					 " EXECUTE FUNCTION %I.rf_adopt_changed(%L)",
					 table, extension, schema);
		rf_query_ddl("ALTER TABLE %s ENABLE ALWAYS TRIGGER rf_adopt_changed,"
					 " ENABLE ALWAYS TRIGGER rf_adopt_truncated",
					 table);
	}
}

bool
rf_watch_is_on(const RfSource *source)
{
	Oid	  types[3] = {OIDOID, OIDOID, OIDOID};
	Datum values[3];

	values[0] = ObjectIdGetDatum(source->events);
	values[1] = ObjectIdGetDatum(source->archive);
	values[2] = ObjectIdGetDatum(source->streams);
	return rf_query_once("SELECT 1 FROM pg_trigger WHERE tgrelid IN"
						 " ($1, $2, $3) AND tgname ~ '^rf_adopt_' LIMIT 1",
						 3, types, values, NULL) > 0;
}

void
rf_watch_end(const RfSource *source)
{
	Oid tables[RF_SOURCE_TABLES];
	int count = rf_source_tables(source, tables);

	for (int i = 0; i < count; i++)
	{
		const char *table = rf_store_relation_name(tables[i]);

		rf_query_ddl("DROP TRIGGER IF EXISTS rf_adopt_changed ON %s", table);
		rf_query_ddl("DROP TRIGGER IF EXISTS rf_adopt_truncated ON %s", table);
	}
}

/*
 * Noting
 */

static bool
has_column(TupleDesc tupdesc, int attnum, Oid type)
{
	return !TupleDescAttr(tupdesc, attnum - 1)->attisdropped &&
		   TupleDescAttr(tupdesc, attnum - 1)->atttypid == type;
}

/* Is it a table of notes of that owner? */
static bool
holds_notes(Relation rel, Oid owner)
{
	TupleDesc tupdesc = RelationGetDescr(rel);
	bool	  result = rel->rd_rel->relowner == owner &&
				  rel->rd_rel->relam == HEAP_TABLE_AM_OID &&
				  tupdesc->natts == lengthof(noted) + 1 &&
				  has_column(tupdesc, 1, CHAROID);

	for (int i = 0; result && i < lengthof(noted); i++)
		result = has_column(tupdesc, i + 2, noted[i].type);
	return result;
}

/* The table where changes are noted; NULL where there is none any more. */
static Relation
open_notes(const TriggerData *trigdata)
{
	const char *schema = trigdata->tg_trigger->tgnargs == 1 ?
							 trigdata->tg_trigger->tgargs[0] :
							 "";
	Oid			namespace_id = get_namespace_oid(schema, true);
	Oid			relid = OidIsValid(namespace_id) ?
							get_relname_relid(RF_WATCH_NOTES, namespace_id) :
							InvalidOid;
	Relation	notes;

	if (!OidIsValid(relid) || get_rel_relkind(relid) != RELKIND_RELATION)
		return NULL;
	notes = try_table_open(relid, RowExclusiveLock);
	if (notes == NULL ||
		holds_notes(notes, trigdata->tg_relation->rd_rel->relowner))
		return notes;
	table_close(notes, RowExclusiveLock);
	return NULL;
}

/* A column of the row; null where it is of another type. */
static Datum
column_of(Relation rel, HeapTuple tuple, const char *name, Oid type,
		  bool *isnull)
{
	AttrNumber attnum = get_attnum(RelationGetRelid(rel), name);

	*isnull = true;
	return attnum <= 0 || !has_column(RelationGetDescr(rel), attnum, type) ?
			   (Datum) 0 :
			   heap_getattr(tuple, attnum, RelationGetDescr(rel), isnull);
}

static void
note(Relation notes, Relation rel, HeapTuple tuple, char kind)
{
	Datum	  values[lengthof(noted) + 1];
	bool	  nulls[lengthof(noted) + 1] = {false};
	HeapTuple row;

	values[0] = CharGetDatum(kind);
	for (int i = 0; i < lengthof(noted); i++)
		values[i + 1] = column_of(rel, tuple, noted[i].name, noted[i].type,
								  &nulls[i + 1]);
	row = heap_form_tuple(RelationGetDescr(notes), values, nulls);
	simple_heap_insert(notes, row);
	heap_freetuple(row);
}

/* Is it an event that needs no other look than at its number? */
static bool
is_plain_insert(const TriggerData *trigdata)
{
	Relation  rel = trigdata->tg_relation;
	HeapTuple tuple = trigdata->tg_trigtuple;
	TupleDesc tupdesc = RelationGetDescr(rel);
	bool	  no_time;
	bool	  no_number;
	Datum	  created_at = column_of(rel, tuple, "created_at", TIMESTAMPTZOID,
									 &no_time);
	Datum	  number = column_of(rel, tuple, "stream_seq", INT4OID, &no_number);

	if (!TRIGGER_FIRED_BY_INSERT(trigdata->tg_event) || no_time || no_number ||
		TIMESTAMP_NOT_FINITE(DatumGetTimestampTz(created_at)) ||
		DatumGetInt32(number) < 1)
		return false;
	for (int i = 0; i < tupdesc->natts; i++)
	{
		if (!TupleDescAttr(tupdesc, i)->attisdropped &&
			heap_attisnull(tuple, i + 1, tupdesc) &&
			rf_source_is_filled(NameStr(TupleDescAttr(tupdesc, i)->attname)))
			return false;
	}
	return true;
}

static char
kind_of_note(const TriggerData *trigdata)
{
	if (get_attnum(RelationGetRelid(trigdata->tg_relation), "stream_seq") ==
		InvalidAttrNumber)
		return NOTE_STREAM;
	return is_plain_insert(trigdata) ? NOTE_INSERT : NOTE_CHANGE;
}

/*
 * SQL interface
 */

PG_FUNCTION_INFO_V1(rf_adopt_changed);

/* Note that a stream changed while its table is being adopted. */
Datum
rf_adopt_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	Relation	 notes;
	char		 kind;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!(TRIGGER_FIRED_BY_TRUNCATE(trigdata->tg_event) ||
		  (TRIGGER_FIRED_AFTER(trigdata->tg_event) &&
		   TRIGGER_FIRED_FOR_ROW(trigdata->tg_event))))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s must be fired after a row", "rf_adopt_changed()")));
	notes = open_notes(trigdata);
	if (notes == NULL)
		return PointerGetDatum(NULL);
	if (TRIGGER_FIRED_BY_TRUNCATE(trigdata->tg_event))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("table \"%s\" is being adopted",
							   RelationGetRelationName(trigdata->tg_relation)),
						errhint("Wait for rf_adopt(), or call it again.")));
	kind = kind_of_note(trigdata);
	note(notes, trigdata->tg_relation, trigdata->tg_trigtuple, kind);
	if (TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event))
		note(notes, trigdata->tg_relation, trigdata->tg_newtuple, kind);
	table_close(notes, NoLock);
	return PointerGetDatum(NULL);
}
