-- Tenants :from to :until, each with 24 months that hold some events, a policy, and a transaction each.
SELECT format('SELECT rf_create_tenant(%L)', 't' || n),
	format('SELECT count(rf_create_partition(%L, (date_trunc(%L, now() AT TIME ZONE %L) - make_interval(months => m))::date, tenant => %L))
		FROM generate_series(1, 22) AS m', 'hot', 'month', 'utc', 't' || n),
	format('SELECT count(*) FROM generate_series(0, 22) AS m, rf_append(gen_random_uuid(), %L, %L,
		created_at => now() - make_interval(months => m), tenant => %L)', 'made', '{}', 't' || n),
	format('SELECT rf_policy_set(%L, %L, tenant => %L)', 'p', '10 years', 't' || n)
FROM generate_series(:from::integer, :until::integer) AS n
\gexec
