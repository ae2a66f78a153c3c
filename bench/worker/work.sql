-- All of the month but its last hours is due, so that it goes by rows; batches are small, so that it takes long.
SELECT rf_policy_set('busy', older_than => now() - timestamptz '2024-01-28 12:00+00', every => '1 second', batch_size => 20);
