-- All 100,000 are cold now, or the figures say nothing.
SELECT 1 / ((SELECT count(*) FROM events_archive) = 100000 AND (SELECT count(*) FROM events) = 0)::integer;
