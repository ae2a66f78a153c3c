-- Where each batch of the replay begins, hot only and whole; and what autovacuum does while a benchmark sleeps.
CREATE TABLE batches AS
SELECT archived, row_number() OVER (PARTITION BY archived ORDER BY global_seq) AS n, global_seq - 1 AS after
FROM (SELECT false AS archived, global_seq, row_number() OVER (ORDER BY global_seq) AS n
		FROM events_all WHERE retention_class = 'hot'
	UNION ALL SELECT true, global_seq, row_number() OVER (ORDER BY global_seq) FROM events_all) AS e
WHERE n % 500 = 1;
CREATE UNIQUE INDEX ON batches (archived, n) INCLUDE (after);
VACUUM ANALYZE;
