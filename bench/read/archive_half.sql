-- Every other stream is archived, and its events are moved by rows; all months are half cold then.
SELECT count(*) FROM rf_streams AS s, rf_archive_mark(s.stream_id) AS m WHERE get_byte(uuid_send(s.stream_id), 15) % 2 = 0;
CALL rf_archive_run('infinity', 5000, only_archived => true);
