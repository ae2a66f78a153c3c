SELECT count(*) FROM rf_metrics();
SELECT count(*) FROM rf_metrics();
\timing on
SELECT count(*) FROM rf_metrics();
