\timing on
SELECT count(*) FROM rf_metrics();
