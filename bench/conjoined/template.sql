-- A store of the form that :tenancy says, with 50,000 events of other streams, so that every plan is one for tables
-- that hold something; of 100 tenants, where it has any.

CREATE EXTENSION rillflow;
SELECT rf_uninstall('public', 'public');
SELECT rf_install('public', tenancy => :'tenancy');

INSERT INTO events (tenant_id, stream_id, stream_seq, event_type, body, headers)
SELECT CASE :'tenancy' WHEN 'conjoined' THEN (10000000000 + n % 100)::text END, md5((n % 2000)::text)::uuid, n / 2000 + 1,
	'added', jsonb_build_object('path', md5(n::text)), '{}'
FROM generate_series(0, 49999) AS n;

VACUUM ANALYZE;
