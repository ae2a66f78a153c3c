-- The real events, from standard input, as rows of the table staged; every month of them is there, hot and cold.

CREATE EXTENSION rillflow;

CREATE TABLE input (at bigint, repository text, path text, kind text, hash text);

\copy input FROM pstdin

CREATE TABLE staged AS
SELECT row_number() OVER (ORDER BY at, repository, path, hash) AS n,
	md5(repository || '/' || path)::uuid AS stream_id,
	row_number() OVER (PARTITION BY repository, path ORDER BY at, hash)::integer AS stream_seq,
	jsonb_build_object('repository', repository, 'path', path, 'commit', hash) AS body,
	CASE kind WHEN 'A' THEN 'added' WHEN 'D' THEN 'deleted' ELSE 'modified' END AS event_type,
	to_timestamp(at) AS created_at
FROM input;

DROP TABLE input;

SELECT rf_create_partition('hot', month), rf_create_partition('cold', month)
FROM (SELECT DISTINCT date_trunc('month', created_at)::date AS month FROM staged ORDER BY 1) AS m;

-- A replay as a projection does it: batch by batch, each from the last event of the one before.
CREATE PROCEDURE replay()
LANGUAGE plpgsql AS $$
DECLARE
	last bigint := 0;
	next bigint;
BEGIN
	LOOP
		SELECT max(global_seq) INTO next FROM rf_read_all(last, 500);
		EXIT WHEN next IS NULL;
		last := next;
	END LOOP;
END
$$;

VACUUM ANALYZE;
