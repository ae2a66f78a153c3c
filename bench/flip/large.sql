SELECT rf_flip_partition('2025-03-01', 'cold');
\timing on
SELECT rf_flip_partition('2025-01-01', 'cold');
\timing off
SELECT 1 / ((SELECT count(*) FROM events_archive) = 1000000 + 100)::integer;
