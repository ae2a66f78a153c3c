-- Within the last month, which goes by rows therefore.
\timing on
CALL rf_archive_run('2025-03-30 00:00+00', 5000);
\timing off
