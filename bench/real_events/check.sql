-- What the move is to leave, or the figures say nothing.
SELECT 1 / ((SELECT count(*) FROM events_archive) = 172203 AND (SELECT count(*) FROM events) = 18960
	AND (SELECT (hot_streams, cold_streams) = (5660, 21504) FROM rf_archive_status()))::integer;
