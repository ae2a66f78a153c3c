\set n :n % :batches + 1
SELECT e.* FROM batches AS b, rf_read_all(b.after, 500, include_archived => b.archived) AS e
WHERE b.n = :n AND b.archived = :archived;
