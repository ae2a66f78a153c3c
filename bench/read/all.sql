\set after (:after + 500) % :events
SELECT * FROM rf_read_all(:after, 500);
