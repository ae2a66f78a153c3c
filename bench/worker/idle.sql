CREATE EXTENSION rillflow;
SELECT rf_policy_set('idle', older_than => '1 year', every => '1 day');
