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
#include "common/hashfn.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"

#include "compat.h"
#include "tenancy.h"

/*
 * Each append for a tenant asks for its number and then for its name.  The
 * tenant was mostly not here lately, so that what is read for it is not in the
 * processor's cache: it is kept together, in few places.
 */
typedef struct TenantName
{
	const char *bytes;
	uint32		len;
} TenantName;

typedef struct Tenant
{
	TenantName name; /* hash key; its bytes are those of the text */
	uint32	   hash;
	uint32	   number;
	char	   status; /* of the hash table's */
} Tenant;

/* a name as a text, and aligned as one */
typedef union NameText
{
	text  text;
	int32 header;
	char  room[VARHDRSZ + NAMEDATALEN - 1];
} NameText;

#define BLOCK_NAMES 64

#define SH_PREFIX tenants
#define SH_ELEMENT_TYPE Tenant
#define SH_KEY_TYPE TenantName
#define SH_KEY name
#define SH_HASH_KEY(table, key) \
	hash_bytes((const unsigned char *) (key).bytes, (key).len)
#define SH_EQUAL(table, a, b) \
	((a).len == (b).len && memcmp((a).bytes, (b).bytes, (a).len) == 0)
/* grows once at most for each entry: see add_tenant() */
#define SH_GROW_MAX_DIB PG_INT32_MAX
#define SH_GROW_MAX_MOVE PG_INT32_MAX
#define SH_STORE_HASH
#define SH_GET_HASH(table, entry) (entry)->hash
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "hash_template.h"

static tenants_hash *tenants = NULL;
static NameText	   **blocks = NULL; /* of names, by number */
static uint32		 nblocks = 0;
static uint32		 maxblocks = 0;
static uint32		 nnames = 1; /* 0 is nobody's */

bool
rf_tenancy_is_name(const char *name, size_t len)
{
	return len > 0 && len < NAMEDATALEN && !(len == 1 && *name == '*');
}

static text *
get_name(uint32 number)
{
	Assert(number > 0 && number < nnames);
	return &blocks[number / BLOCK_NAMES][number % BLOCK_NAMES].text;
}

static void
add_block(void)
{
	if (nblocks == maxblocks)
	{
		uint32 room = Max(16, maxblocks * 2);
		Size   size = sizeof(NameText *) * room;

		blocks = blocks == NULL ? MemoryContextAlloc(TopMemoryContext, size) :
								  repalloc(blocks, size);
		maxblocks = room;
	}
	blocks[nblocks] = MemoryContextAlloc(TopMemoryContext,
										 sizeof(NameText) * BLOCK_NAMES);
	nblocks++;
}

static uint32
add_name(const char *name, size_t len)
{
	uint32 number;
	text  *kept;

	if (nnames >= nblocks * BLOCK_NAMES)
		add_block();
	number = nnames++;
	kept = get_name(number);
	SET_VARSIZE(kept, VARHDRSZ + len);
	memcpy(VARDATA(kept), name, len);
	return number;
}

/*
 * A table that gets no memory to grow is left, before version 17, with its new
 * size and the entries of the old one.
 */
static Tenant *
add_tenant(TenantName key)
{
	tenants_hash before = *tenants;
	Tenant		*result;
	bool		 found;

	PG_TRY();
	{
		result = tenants_insert(tenants, key, &found);
	}
	PG_CATCH();
	{
		*tenants = before;
		PG_RE_THROW();
	}
	PG_END_TRY();
	return result;
}

/* The number of a name, which has to be one. */
uint32
rf_tenancy_number(const char *name, size_t len)
{
	TenantName key = {name, len};
	Tenant	  *tenant;

	Assert(rf_tenancy_is_name(name, len));
	if (tenants == NULL)
		tenants = tenants_create(TopMemoryContext, 64, NULL);
	tenant = tenants_lookup(tenants, key);
	if (tenant == NULL)
	{
		uint32 number = add_name(name, len);

		key.bytes = VARDATA(get_name(number));
		tenant = add_tenant(key);
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
	return PointerGetDatum(get_name(number));
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
	text  *name = get_name(number);
	text  *other = DatumGetTextPP(tenant_id);
	size_t len = VARSIZE(name) - VARHDRSZ;

	return VARSIZE_ANY_EXHDR(other) == len &&
		   memcmp(VARDATA_ANY(other), VARDATA(name), len) == 0;
}

static int
compare_names(uint32 left, uint32 right)
{
	text *a;
	text *b;
	int	  order;

	if (left == right)
		return 0;
	if (left == 0 || right == 0)
		return left < right ? -1 : 1;
	a = get_name(left);
	b = get_name(right);
	order = memcmp(VARDATA(a), VARDATA(b),
				   Min(VARSIZE(a), VARSIZE(b)) - VARHDRSZ);
	return order != 0 ? order : VARSIZE(a) < VARSIZE(b) ? -1 : 1;
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
