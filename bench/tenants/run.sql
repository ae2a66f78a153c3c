\timing on
CALL rf_archive_run(now() - interval '10 years', tenant => '*');
