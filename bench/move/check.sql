-- All 100,000 are cold now, or the figures say nothing.
SELECT 1 / ((SELECT count(*) FROM events_archive) = 100000
	AND NOT EXISTS (SELECT FROM events WHERE created_at < '2026-01-01 00:00+00'))::integer;
