/*-------------------------------------------------------------------------
 *
 * key.c
 *	  Idempotency keys: rf_event_keys.
 *
 * An event may carry a key in headers ->> 'idempotency_key'.  A key belongs to
 * one event of the whole store, or of a tenant of a conjoined one, hot or
 * cold, of whatever month, which no index on partitions could promise; so keys
 * have a table of their own, which is not partitioned.  An append that repeats
 * a key of its own stream gets the first event's numbers; one that bears
 * another stream's key fails with RF003.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

#include "key.h"
#include "query.h"
#include "store.h"
#include "tenancy.h"

#define KEY_HEADER "idempotency_key"

/* a row of an index holds more, but not much */
#define MAX_KEY_BYTES 1000

static const RfStatement find_key =
	{"SELECT stream_id, stream_seq, global_seq FROM {keys}"
	 " WHERE idempotency_key = $1{mine}",
	 1,
	 {TEXTOID}};

static const RfStatement claim_keys =
	{"INSERT INTO {keys} (idempotency_key, stream_id, stream_seq, global_seq"
	 "{,tenant_id})"
	 " SELECT w.key, w.id, w.seq, w.number{,tenant_id}"
	 " FROM unnest($1, $2, $3, $4, $5) AS w(key, id, seq, number, tenant_id)"
	 " ON CONFLICT ({tenant_id,}idempotency_key) DO NOTHING",
	 5,
	 {TEXTARRAYOID, UUIDARRAYOID, INT4ARRAYOID, INT8ARRAYOID, TEXTARRAYOID}};

static const RfStatement find_taken =
	{"SELECT w.key, k.stream_id = w.id FROM unnest($1, $2, $3, $5)"
	 " AS w(key, id, seq, tenant_id)"
	 " JOIN {keys} AS k ON k.idempotency_key = w.key{same k w}"
	 " WHERE (k.stream_id, k.stream_seq) <> (w.id, w.seq) LIMIT 1",
	 5,
	 {TEXTARRAYOID, UUIDARRAYOID, INT4ARRAYOID, INT8ARRAYOID, TEXTARRAYOID}};

static const RfStatement prune_keys =
	{"DELETE FROM {keys} WHERE created_at < $1", 1, {TIMESTAMPTZOID}};

/*
 * Is the name of the key among these bytes?  For each row of each INSERT, so
 * it looks for what few names have, the underscore.
 */
static bool
mentions_key(const char *data, size_t size)
{
	const size_t before = strchr(KEY_HEADER, '_') - KEY_HEADER;
	const size_t after = strlen(KEY_HEADER) - before;
	const char	*end = data + size;
	const char	*at = data;

	while ((at = memchr(at, '_', end - at)) != NULL)
	{
		if (at - data >= before && end - at >= after &&
			memcmp(at - before, KEY_HEADER, strlen(KEY_HEADER)) == 0)
			return true;
		at++;
	}
	return false;
}

/* The key among an event's headers, NULL when it has none. */
text *
rf_key_of_headers(Datum headers)
{
	struct varlena *raw = (struct varlena *) DatumGetPointer(headers);
	Jsonb		   *jb;
	JsonbValue		buf;
	JsonbValue	   *value;
	text		   *key;

	/* most events have none: find that out without unpacking */
	if (!VARATT_IS_EXTERNAL(raw) && !VARATT_IS_COMPRESSED(raw) &&
		!mentions_key(VARDATA_ANY(raw), VARSIZE_ANY_EXHDR(raw)))
		return NULL;
	jb = DatumGetJsonbP(headers);
	if (!JB_ROOT_IS_OBJECT(jb) || JB_ROOT_COUNT(jb) == 0)
		return NULL;
	value = getKeyJsonValueFromContainer(&jb->root, KEY_HEADER,
										 strlen(KEY_HEADER), &buf);
	if (value == NULL || value->type == jbvNull)
		return NULL;
	key = DatumGetTextPP(DirectFunctionCall2(jsonb_object_field_text,
											 JsonbPGetDatum(jb),
											 CStringGetTextDatum(KEY_HEADER)));
	if (VARSIZE_ANY_EXHDR(key) > MAX_KEY_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("idempotency key is too long"),
				 errdetail("It has %d bytes, of at most %d.",
						   (int) VARSIZE_ANY_EXHDR(key), MAX_KEY_BYTES)));
	return key;
}

static void
report_foreign_key(text *key)
{
	ereport(ERROR, (errcode(ERRCODE_RF_KEY_TAKEN),
					errmsg("idempotency key \"%s\" belongs to another stream",
						   text_to_cstring(key))));
}

/*
 * Look a key of a stream up, and fill in the event that bears it.  False when
 * the key is free.
 */
bool
rf_key_find(RfStore *store, RfKey *key)
{
	RfScope scope;
	Datum	value = PointerGetDatum(key->key);
	bool	found;

	rf_query_begin(&scope, store->owner, 0);
	found = rf_query_run(rf_store_plan(store, &find_key), &value, NULL) > 0;
	if (found)
	{
		if (!rf_uuid_equal(DatumGetUUIDP(rf_query_must(0, 1)),
						   &key->stream.uuid))
			report_foreign_key(key->key);
		key->stream_seq = DatumGetInt32(rf_query_must(0, 2));
		key->global_seq = DatumGetInt64(rf_query_must(0, 3));
	}
	rf_query_end(&scope);
	return found;
}

/* Keys as arrays: key, stream_id, stream_seq, global_seq, tenant_id. */
#define NARRAYS 5

static void
make_arrays(const RfStore *store, const RfKey *keys, int count, Datum *values)
{
	static const Oid types[NARRAYS] = {TEXTOID, UUIDOID, INT4OID, INT8OID,
									   TEXTOID};
	int				 narrays = NARRAYS - (store->conjoined ? 0 : 1);
	Datum			*elements[NARRAYS];

	for (int i = 0; i < NARRAYS; i++)
		elements[i] = palloc(sizeof(Datum) * count);
	for (int i = 0; i < count; i++)
	{
		elements[0][i] = PointerGetDatum(keys[i].key);
		elements[1][i] = UUIDPGetDatum(&keys[i].stream.uuid);
		elements[2][i] = Int32GetDatum(keys[i].stream_seq);
		elements[3][i] = Int64GetDatum(keys[i].global_seq);
		if (store->conjoined)
			elements[4][i] = rf_tenancy_datum(keys[i].stream.tenant);
	}
	for (int i = 0; i < narrays; i++)
		values[i] = PointerGetDatum(
			rf_query_array(elements[i], count, types[i]));
}

static void
report_taken(RfStore *store, const Datum *values, const char *nulls)
{
	text *key;

	if (rf_query_run(rf_store_plan(store, &find_taken), values, nulls) == 0)
		elog(ERROR, "could not claim idempotency keys");
	key = DatumGetTextPP(rf_query_must(0, 1));
	if (!DatumGetBool(rf_query_must(0, 2)))
		report_foreign_key(key);
	ereport(
		ERROR,
		(errcode(ERRCODE_UNIQUE_VIOLATION),
		 errmsg("an event with idempotency key \"%s\" exists already",
				text_to_cstring(key)),
		 errhint(
			 "Append with rf_append() to get the numbers of the first event.")));
}

/* Let keys belong to events, or fail when one of them is taken. */
void
rf_key_claim(RfStore *store, const RfKey *keys, int count)
{
	RfScope scope;
	Datum	values[NARRAYS] = {0};
	char	nulls[NARRAYS] = {' ', ' ', ' ', ' ', store->conjoined ? ' ' : 'n'};

	if (count == 0)
		return;
	make_arrays(store, keys, count, values);
	rf_query_begin(&scope, store->owner, 0);
	if (rf_query_run(rf_store_plan(store, &claim_keys), values, nulls) != count)
		report_taken(store, values, nulls);
	rf_query_end(&scope);
}

/*
 * SQL interface
 */

PG_FUNCTION_INFO_V1(rf_prune_keys);

Datum
rf_prune_keys(PG_FUNCTION_ARGS)
{
	char	*tenant = RF_GETARG_STRING(1);
	RfStore *store;
	RfScope	 scope;
	Datum	 value;
	uint64	 pruned;

	PreventCommandIfReadOnly("rf_prune_keys()");
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("\"before\" must not be null")));
	store = rf_store_get_whole(tenant, RF_RIGHT_OWN);
	value = PG_GETARG_DATUM(0);
	rf_query_begin(&scope, store->owner, SECURITY_RESTRICTED_OPERATION);
	pruned = rf_query_run(rf_store_plan(store, &prune_keys), &value, NULL);
	rf_query_end(&scope);
	PG_RETURN_INT64((int64) pruned);
}
