\timing on
SELECT count(*) FROM rf_archive_status('*');
