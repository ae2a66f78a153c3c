-- By ranges of global_seq, a transaction for each, which closes the streams that have no events left, too.

CREATE PROCEDURE pg_temp.move_ranges(before timestamptz, batch_size bigint)
LANGUAGE plpgsql AS $$
DECLARE
	lower bigint;
	upper bigint;
	touched uuid[];
BEGIN
	SELECT min(global_seq) - 1, max(global_seq) INTO lower, upper FROM events;
	WHILE lower < upper LOOP
		WITH gone AS (
			DELETE FROM events
			WHERE global_seq > lower AND global_seq <= lower + batch_size AND created_at < before
			RETURNING *),
		come AS (
			INSERT INTO events_archive (global_seq, stream_id, stream_seq, event_type, body, headers, causation_id,
				correlation_id, event_version, tenant_id, user_id, is_tombstone, created_at, bucket_month,
				retention_class, migrated_at, migrated_by)
			SELECT global_seq, stream_id, stream_seq, event_type, body, headers, causation_id, correlation_id,
				event_version, tenant_id, user_id, is_tombstone, created_at, bucket_month, 'cold', now(),
				'archive_move'
			FROM gone
			RETURNING stream_id)
		SELECT array_agg(DISTINCT stream_id) INTO touched FROM come;
		UPDATE rf_streams AS s SET archived_at = now(), archived_by = 'archive_move', archive_reason = 'auto',
			retention_class = 'cold', updated_at = now()
		WHERE stream_id = ANY (touched) AND NOT EXISTS (SELECT FROM events AS e WHERE e.stream_id = s.stream_id);
		COMMIT;
		lower := lower + batch_size;
	END LOOP;
END
$$;

\timing on
CALL pg_temp.move_ranges('2026-01-01 00:00+00', 5000);
\timing off
