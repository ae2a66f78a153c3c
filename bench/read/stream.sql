\set n random(:first, :last)
SELECT * FROM rf_read_stream(md5(:n::text)::uuid);
