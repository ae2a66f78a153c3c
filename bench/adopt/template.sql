-- What an application has that does not archive: 1,000,000 events of 20,000 streams and 24 months, in a plain table.

CREATE TABLE events (
	global_seq bigserial PRIMARY KEY,
	stream_id uuid NOT NULL,
	stream_seq integer NOT NULL,
	event_type text NOT NULL,
	body jsonb NOT NULL,
	headers jsonb NOT NULL DEFAULT '{}',
	causation_id uuid,
	correlation_id uuid,
	event_version integer NOT NULL DEFAULT 1,
	tenant_id text,
	user_id text,
	is_tombstone boolean NOT NULL DEFAULT false,
	created_at timestamptz NOT NULL DEFAULT now(),
	UNIQUE (stream_id, stream_seq));

INSERT INTO events (stream_id, stream_seq, event_type, body, created_at)
SELECT md5((n % 20000)::text)::uuid, n / 20000 + 1, 'modified',
	jsonb_build_object('path', 'src/file' || n % 20000 || '.c', 'commit', md5(n::text)),
	'2023-01-01 00:00+00'::timestamptz + n * interval '63 seconds'
FROM generate_series(0, 999999) AS n;

VACUUM ANALYZE;

SET client_min_messages = error;
CREATE EXTENSION rillflow;
