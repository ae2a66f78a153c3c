\timing on
SELECT count(*) FROM rf_policy_due(now(), '*');
