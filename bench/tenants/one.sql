SELECT rf_create_tenant('one');
SELECT rf_drop_tenant('one', 'one');
