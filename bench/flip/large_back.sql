SELECT rf_flip_partition('2025-01-01', 'cold');
\timing on
SELECT rf_flip_partition('2025-01-01', 'hot');
\timing off
SELECT 1 / ((SELECT count(*) FROM events) = 1000000 + 10000 + 100)::integer;
