-- Everything before 2026 is due at once.
SELECT rf_policy_set('due', older_than => now() - timestamptz '2026-01-01 00:00+00', every => '2 seconds');
