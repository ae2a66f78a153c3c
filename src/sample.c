/*-------------------------------------------------------------------------
 *
 * sample.c
 *	  Samples of metrics, and the forms that they are given out in.
 *
 * They are collected store by store, and given out family by family, as the
 * text format of Prometheus (version 0.0.4) wants it; the rows come in the same
 * order.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/shortest_dec.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "sample.h"

void
rf_sample_init(RfSamples *samples, const RfFamily *families, int nfamilies)
{
	samples->context = CurrentMemoryContext;
	samples->families = families;
	samples->nfamilies = nfamilies;
	samples->count = 0;
	samples->room = 64;
	samples->samples = palloc(sizeof(RfSample) * samples->room);
}

/* The labels' values are copied. */
void
rf_sample_add(RfSamples *samples, int family, const char *suffix,
			  const RfLabel *labels, int nlabels, double value)
{
	RfSample *sample;

	Assert(nlabels <= RF_MAX_LABELS);
	if (samples->count == samples->room)
	{
		samples->room *= 2;
		samples->samples = repalloc(samples->samples,
									sizeof(RfSample) * samples->room);
	}
	sample = &samples->samples[samples->count++];
	sample->family = family;
	sample->suffix = suffix;
	sample->nlabels = nlabels;
	for (int i = 0; i < nlabels; i++)
	{
		sample->labels[i].name = labels[i].name;
		sample->labels[i].value = MemoryContextStrdup(samples->context,
													  labels[i].value);
	}
	sample->value = value;
}

/* Call for each sample, family by family, and in order within each. */
static void
walk(const RfSamples *samples,
	 void (*visit)(const RfSamples *samples, const RfSample *sample, bool first,
				   void *arg),
	 void *arg)
{
	int *next = palloc(sizeof(int) * (samples->count + 1));
	int *heads = palloc(sizeof(int) * samples->nfamilies);

	for (int i = 0; i < samples->nfamilies; i++)
		heads[i] = -1;
	for (int i = samples->count - 1; i >= 0; i--)
	{
		next[i] = heads[samples->samples[i].family];
		heads[samples->samples[i].family] = i;
	}
	for (int family = 0; family < samples->nfamilies; family++)
	{
		for (int i = heads[family]; i >= 0; i = next[i])
			visit(samples, &samples->samples[i], i == heads[family], arg);
	}
	pfree(next);
	pfree(heads);
}

/*
 * Rows
 */

static Datum
labels_as_jsonb(const RfSample *sample)
{
	JsonbParseState *state = NULL;
	JsonbValue		 value;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < sample->nlabels; i++)
	{
		value.type = jbvString;
		value.val.string.val = unconstify(char *, sample->labels[i].name);
		value.val.string.len = strlen(sample->labels[i].name);
		(void) pushJsonbValue(&state, WJB_KEY, &value);
		value.val.string.val = unconstify(char *, sample->labels[i].value);
		value.val.string.len = strlen(sample->labels[i].value);
		(void) pushJsonbValue(&state, WJB_VALUE, &value);
	}
	return JsonbPGetDatum(
		JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}

static void
put_row(const RfSamples *samples, const RfSample *sample, bool first, void *arg)
{
	ReturnSetInfo  *rsinfo = arg;
	const RfFamily *family = &samples->families[sample->family];
	Datum			values[5];
	bool			nulls[5] = {0};

	values[0] = CStringGetTextDatum(
		psprintf("%s%s", family->name, sample->suffix));
	values[1] = CStringGetTextDatum(family->type);
	values[2] = CStringGetTextDatum(family->help);
	values[3] = labels_as_jsonb(sample);
	values[4] = Float8GetDatum(sample->value);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

void
rf_sample_put(const RfSamples *samples, ReturnSetInfo *rsinfo)
{
	walk(samples, put_row, rsinfo);
}

/*
 * Text
 */

static void
append_label(StringInfo buf, const RfLabel *label, bool first)
{
	appendStringInfo(buf, "%s%s=\"", first ? "{" : ",", label->name);
	for (const char *p = label->value; *p != '\0'; p++)
	{
		if (*p == '\\' || *p == '"')
			appendStringInfoChar(buf, '\\');
		if (*p == '\n')
			appendStringInfoString(buf, "\\n");
		else
			appendStringInfoChar(buf, *p);
	}
	appendStringInfoChar(buf, '"');
}

static void
append_line(const RfSamples *samples, const RfSample *sample, bool first,
			void *arg)
{
	StringInfo		buf = arg;
	const RfFamily *family = &samples->families[sample->family];
	char			number[DOUBLE_SHORTEST_DECIMAL_LEN];

	if (first)
		appendStringInfo(buf, "# HELP %s %s\n# TYPE %s %s\n", family->name,
						 family->help, family->name, family->type);
	appendStringInfo(buf, "%s%s", family->name, sample->suffix);
	for (int i = 0; i < sample->nlabels; i++)
		append_label(buf, &sample->labels[i], i == 0);
	double_to_shortest_decimal_buf(sample->value, number);
	appendStringInfo(buf, "%s %s\n", sample->nlabels > 0 ? "}" : "", number);
}

char *
rf_sample_text(const RfSamples *samples)
{
	StringInfoData buf;

	initStringInfo(&buf);
	walk(samples, append_line, &buf);
	return buf.data;
}
