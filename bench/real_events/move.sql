\timing on
CALL rf_archive_run('2026-01-01 00:00+00', 5000);
\timing off
