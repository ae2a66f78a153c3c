\set n :n + 1
INSERT INTO events (stream_id, stream_seq, event_type, body) VALUES (md5('client ' || :client_id)::uuid, :n, 'appended', '{"path": "src/main.c"}');
