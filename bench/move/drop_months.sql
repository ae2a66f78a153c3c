-- As if no cold month had been made yet.
SELECT format('DROP TABLE %s', relid::regclass) FROM pg_partition_tree('events_archive')
WHERE isleaf AND relid <> 'events_archive_default'::regclass
\gexec
