/*-------------------------------------------------------------------------
 *
 * sample.h
 *	  Samples of metrics, and the forms that they are given out in.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RF_SAMPLE_H
#define RF_SAMPLE_H

#include "rillflow.h"

#include "funcapi.h"

#define RF_MAX_LABELS 4

/* Metrics of one name, that differ in their labels. */
typedef struct RfFamily
{
	const char *name;
	const char *type;
	const char *help;
} RfFamily;

typedef struct RfLabel
{
	const char *name;
	const char *value;
} RfLabel;

typedef struct RfSample
{
	int			family;
	const char *suffix; /* of the name: a histogram has several */
	int			nlabels;
	RfLabel		labels[RF_MAX_LABELS];
	double		value;
} RfSample;

typedef struct RfSamples
{
	MemoryContext	context; /* of the samples, and of labels' values */
	const RfFamily *families;
	int				nfamilies;
	int				count;
	int				room;
	RfSample	   *samples;
} RfSamples;

extern void	 rf_sample_init(RfSamples *samples, const RfFamily *families,
							int nfamilies);
extern void	 rf_sample_add(RfSamples *samples, int family, const char *suffix,
						   const RfLabel *labels, int nlabels, double value);
extern void	 rf_sample_put(const RfSamples *samples, ReturnSetInfo *rsinfo);
extern char *rf_sample_text(const RfSamples *samples);

#endif /* RF_SAMPLE_H */
