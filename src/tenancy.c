/*-------------------------------------------------------------------------
 *
 * tenancy.c
 *	  The tenants of a conjoined store: their names, as numbers.
 *
 * A stream of a conjoined store is known by its id and by whose it is.  In
 * memory a tenant is a number, so that streams are hashed and compared as
 * cheaply as those of a single store, of which the number is 0.  A number is
 * given out when a name is met first, means the same for as long as the backend
 * lives, and nothing to another one.
 *
 * Names are compared by their bytes, here and in the tables: tenant_id has the
 * collation "C" there.  So whoever locks several streams goes by id, then by
 * the bytes of the tenant's name, in each backend alike.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "compat.h"
#include "tenancy.h"

typedef struct Tenant
{
	NameData name; /* hash key */
	uint32	 number;
} Tenant;

static HTAB	 *tenants = NULL;
static Datum *names = NULL; /* texts, by number */
static uint32 nnames = 1;	/* 0 is nobody's */
static uint32 maxnames = 0;

bool
rf_tenancy_is_name(const char *name, size_t len)
{
	return len > 0 && len < NAMEDATALEN && !(len == 1 && *name == '*');
}

static uint32
add_name(const char *name, size_t len)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	if (nnames >= maxnames)
	{
		uint32 room = Max(64, maxnames * 2);

		names = names == NULL ? palloc0(sizeof(Datum) * room) :
								repalloc_huge(names, sizeof(Datum) * room);
		maxnames = room;
	}
	names[nnames] = PointerGetDatum(cstring_to_text_with_len(name, len));
	MemoryContextSwitchTo(old);
	return nnames++;
}

/* The number of a name, which has to be one. */
uint32
rf_tenancy_number(const char *name, size_t len)
{
	NameData key;
	Tenant	*tenant;
	bool	 found;

	Assert(rf_tenancy_is_name(name, len));
	if (tenants == NULL)
	{
		HASHCTL ctl = {0};

		ctl.keysize = sizeof(NameData);
		ctl.entrysize = sizeof(Tenant);
		tenants = hash_create("Rillflow tenants", 64, &ctl,
							  HASH_ELEM | HASH_STRINGS);
	}
	memcpy(NameStr(key), name, len);
	NameStr(key)[len] = '\0';
	tenant = hash_search(tenants, &key, HASH_FIND, NULL);
	if (tenant == NULL)
	{
		uint32 number = add_name(name, len);

		tenant = hash_search(tenants, &key, HASH_ENTER, &found);
		tenant->number = number;
	}
	return tenant->number;
}

/*
 * The number of the tenant that a row names.  Remembers the last one: rows of
 * one tenant tend to come together.
 */
uint32
rf_tenancy_number_of(Datum tenant_id)
{
	static uint32 last = 0;
	text		 *name = DatumGetTextPP(tenant_id);
	const char	 *bytes = VARDATA_ANY(name);
	size_t		  len = VARSIZE_ANY_EXHDR(name);

	if (last != 0 && rf_tenancy_is(last, PointerGetDatum(name)))
		return last;
	if (!rf_tenancy_is_name(bytes, len))
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid tenant name \"%s\" in column \"tenant_id\"",
					text_to_cstring(name)),
			 errdetail(
				 "A name has 1 to %d bytes, and \"*\" stands for all tenants.",
				 NAMEDATALEN - 1)));
	last = rf_tenancy_number(bytes, len);
	return last;
}

/* The name as a text, which lasts. */
Datum
rf_tenancy_datum(uint32 number)
{
	Assert(number > 0 && number < nnames);
	return names[number];
}

const char *
rf_tenancy_name(uint32 number)
{
	return TextDatumGetCString(rf_tenancy_datum(number));
}

/* Is it the name of that tenant? */
bool
rf_tenancy_is(uint32 number, Datum tenant_id)
{
	text  *name = DatumGetTextPP(rf_tenancy_datum(number));
	text  *other = DatumGetTextPP(tenant_id);
	size_t len = VARSIZE_ANY_EXHDR(name);

	return VARSIZE_ANY_EXHDR(other) == len &&
		   memcmp(VARDATA_ANY(other), VARDATA_ANY(name), len) == 0;
}

static int
compare_names(uint32 left, uint32 right)
{
	text *a;
	text *b;
	int	  length;
	int	  order;

	if (left == right)
		return 0;
	if (left == 0 || right == 0)
		return left < right ? -1 : 1;
	a = DatumGetTextPP(names[left]);
	b = DatumGetTextPP(names[right]);
	length = Min(VARSIZE_ANY_EXHDR(a), VARSIZE_ANY_EXHDR(b));
	order = memcmp(VARDATA_ANY(a), VARDATA_ANY(b), length);
	return order != 0								   ? order :
		   VARSIZE_ANY_EXHDR(a) < VARSIZE_ANY_EXHDR(b) ? -1 :
														 1;
}

/* The order of streams, in which their rows are locked. */
int
rf_tenancy_compare(const RfStreamId *left, const RfStreamId *right)
{
	int order = memcmp(left->uuid.data, right->uuid.data, UUID_LEN);

	return order != 0 ? order : compare_names(left->tenant, right->tenant);
}

static void
set_tenant_key(ScanKey key, const RfStreamId *stream, AttrNumber column)
{
	ScanKeyInit(key, column, BTEqualStrategyNumber, F_TEXTEQ,
				rf_tenancy_datum(stream->tenant));
}

static void
set_stream_key(ScanKey key, const RfStreamId *stream, AttrNumber column)
{
	ScanKeyInit(key, column, BTEqualStrategyNumber, F_UUID_EQ,
				UUIDPGetDatum(&stream->uuid));
}

/*
 * Scan keys for a stream in rf_streams, in the order of its primary key;
 * returns how many.  The columns are those of the index, or of the table where
 * systable_beginscan() is to translate them.
 */
int
rf_tenancy_keys(ScanKey keys, const RfStreamId *stream, AttrNumber tenant_id,
				AttrNumber stream_id)
{
	int n = 0;

	if (stream->tenant != 0)
		set_tenant_key(&keys[n++], stream, tenant_id);
	set_stream_key(&keys[n++], stream, stream_id);
	return n;
}

/* The same in a leaf, in the order of its unique index on streams. */
int
rf_tenancy_leaf_keys(ScanKey keys, const RfStreamId *stream,
					 AttrNumber stream_id, AttrNumber tenant_id)
{
	int n = 0;

	set_stream_key(&keys[n++], stream, stream_id);
	if (stream->tenant != 0)
		set_tenant_key(&keys[n++], stream, tenant_id);
	return n;
}
