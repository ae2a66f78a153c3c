-- The original application's way: per stream INSERT … SELECT, DELETE, count, upsert, and two commits.

CREATE PROCEDURE pg_temp.move_streams(before timestamptz)
LANGUAGE plpgsql AS $$
DECLARE
	stream uuid;
	left_over bigint;
BEGIN
	FOR stream IN
		SELECT DISTINCT stream_id FROM events WHERE created_at < before
	LOOP
		INSERT INTO events_archive (global_seq, stream_id, stream_seq, event_type, body, headers, causation_id,
			correlation_id, event_version, tenant_id, user_id, is_tombstone, created_at, bucket_month,
			retention_class, migrated_at, migrated_by)
		SELECT global_seq, stream_id, stream_seq, event_type, body, headers, causation_id, correlation_id,
			event_version, tenant_id, user_id, is_tombstone, created_at, bucket_month, 'cold', now(),
			'archive_move'
		FROM events WHERE stream_id = stream AND created_at < before
		ON CONFLICT DO NOTHING;
		DELETE FROM events WHERE stream_id = stream AND created_at < before;
		COMMIT;
		SELECT count(*) INTO left_over FROM events WHERE stream_id = stream;
		IF left_over = 0 THEN
			INSERT INTO rf_streams (stream_id, archived_at, archived_by, archive_reason, retention_class)
			VALUES (stream, now(), 'archive_move', 'auto', 'cold')
			ON CONFLICT (stream_id) DO UPDATE SET archived_at = excluded.archived_at,
				archived_by = excluded.archived_by, archive_reason = excluded.archive_reason,
				retention_class = excluded.retention_class, updated_at = now();
		END IF;
		COMMIT;
	END LOOP;
END
$$;

\timing on
CALL pg_temp.move_streams('2026-01-01 00:00+00');
\timing off
