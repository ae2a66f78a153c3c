-- From when to when the 24 months flipped, in seconds.
SELECT 1 / (count(*) = 24)::integer, extract(epoch FROM min(logged_at - duration)), extract(epoch FROM max(logged_at)),
	1000 * extract(epoch FROM max(duration))
FROM rf_archive_log WHERE action = 'flip';
