-- What happens on the server of monitoring/picture: three stores, their history, and what clients do for two minutes.
-- Nothing of it is made up: these are the product's own functions and its worker.
\set ON_ERROR_STOP on
\set QUIET on

CREATE EXTENSION rillflow;
SELECT rf_create_tenant('Acme Inc.'), rf_create_tenant('Globex') \g (tuples_only) /dev/null

CREATE SCHEMA demo;

-- Events of the months before this one, a stream of a customer at a time.
CREATE FUNCTION demo.load(schema text, months int, streams int, each int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	month date;
BEGIN
	FOR n IN 0 .. months - 1 LOOP
		month := date_trunc('month', now() AT TIME ZONE 'UTC') - n * interval '1 month';
		PERFORM rf_create_partition('hot', month, tenant => (SELECT tenant FROM rf_stores AS s WHERE s.schema = load.schema));
		EXECUTE format($insert$
			INSERT INTO %I.events (stream_id, event_type, body, created_at, bucket_month)
			SELECT md5(s || ' of ' || %L)::uuid, 'order ' || (ARRAY['placed', 'paid', 'shipped'])[1 + e %% 3],
				jsonb_build_object('order', e, 'customer', s, 'note', repeat('x', 40 + e %% 100)), at, %L
			FROM generate_series(1, %s) AS s, generate_series(1, %s) AS e,
				LATERAL (SELECT least(%L::date + (e * 25.0 / %s + s %% 3) * interval '1 day',
					now() - interval '1 hour')) AS t(at)
			WHERE date_trunc('month', at) = %L::date ORDER BY at
			$insert$, schema, schema, month, streams, each, month, each, month);
	END LOOP;
END $$;

-- Appends to streams at random, so many a second and some more or less.
CREATE PROCEDURE demo.append(tenant text, per_second float8, duration interval) LANGUAGE plpgsql AS $$
DECLARE
	until timestamptz := clock_timestamp() + duration;
	pace float8;
BEGIN
	WHILE clock_timestamp() < until LOOP
		pace := per_second * (1 + 0.6 * sin(extract(epoch FROM clock_timestamp()) / 9));
		PERFORM rf_append_batch(gen_random_uuid(), (SELECT jsonb_agg(jsonb_build_object('type', 'order placed',
			'body', jsonb_build_object('n', n, 'note', repeat('y', (random() * 200)::int)))) FROM generate_series(1, 5) AS n),
			tenant => append.tenant);
		COMMIT;
		PERFORM pg_sleep(5 / pace);
	END LOOP;
END $$;

-- A projection that reads and advances; it stands still for half of each half a minute.
CREATE PROCEDURE demo.consume(tenant text, duration interval) LANGUAGE plpgsql AS $$
DECLARE
	until timestamptz := clock_timestamp() + duration;
	read bigint := 0;
BEGIN
	WHILE clock_timestamp() < until LOOP
		IF extract(epoch FROM clock_timestamp())::int % 30 < 15 THEN
			read := coalesce((SELECT max(global_seq) FROM rf_read_all(read, 5000, include_archived => true,
				tenant => consume.tenant)), read);
			PERFORM rf_consumer_advance('orders', read, tenant => consume.tenant);
			COMMIT;
		END IF;
		PERFORM pg_sleep(0.3);
	END LOOP;
END $$;

-- Somebody closes customers' accounts, and takes some back; what still comes for them is redirected.
CREATE PROCEDURE demo.mark(duration interval) LANGUAGE plpgsql AS $$
DECLARE
	until timestamptz := clock_timestamp() + duration;
	n int := 0;
BEGIN
	WHILE clock_timestamp() < until LOOP
		n := n + 1;
		PERFORM rf_archive_mark(md5(n || ' of public')::uuid, 'customer closed account');
		INSERT INTO public.events (stream_id, event_type, body)
			SELECT md5(n || ' of public')::uuid, 'newsletter bounced', '{}' FROM generate_series(1, 1 + n % 4);
		IF n % 4 = 0 THEN
			PERFORM rf_archive_reactivate(md5(n - 2 || ' of public')::uuid, restore_events => false);
		END IF;
		COMMIT;
		PERFORM pg_sleep(0.4 + 0.3 * sin(n / 12.0));
	END LOOP;
END $$;

SELECT demo.load('public', 6, 400, 40), demo.load(schema, 4, 200, 50) FROM rf_stores WHERE tenant IS NOT NULL \g (tuples_only) /dev/null
SELECT rf_archive_set_redirect(true) \g (tuples_only) /dev/null
SELECT rf_consumer_advance('orders', 0, tenant => 'Acme Inc.') \g (tuples_only) /dev/null
ANALYZE;
