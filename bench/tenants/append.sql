SELECT * FROM rf_append('6a4f0b52-0000-4000-8000-000000000001', 'first', '{}', tenant => 't1');
\timing on
SELECT * FROM rf_append('6a4f0b52-0000-4000-8000-000000000001', 'next', '{}', tenant => 't1');
