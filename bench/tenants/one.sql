\timing on
SELECT rf_create_tenant('one');
\timing off
SELECT rf_drop_tenant('one', 'one');
