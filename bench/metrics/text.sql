SELECT length(rf_metrics_text());
SELECT length(rf_metrics_text());
\timing on
SELECT length(rf_metrics_text());
