WITH gone AS (DELETE FROM events WHERE global_seq < 100 RETURNING *)
INSERT INTO events_archive SELECT * FROM gone;
\timing on
WITH gone AS (DELETE FROM events RETURNING *)
INSERT INTO events_archive SELECT * FROM gone;
\timing off
SELECT 1 / ((SELECT count(*) FROM events_archive) = 1000000)::integer;
