-- Foreign tables, as psql shows them. The foreign bee is the database's own log: any core can be read by its key.
SELECT bee_key() AS key \gset
CREATE TABLE items (id int PRIMARY KEY, name text NOT NULL, price numeric(8,2));
INSERT INTO items SELECT i, 'item ' || i, i * 1.5 FROM generate_series(1, 50) i;
CREATE SERVER self FOREIGN DATA WRAPPER hyperbee OPTIONS (bee_key :'key');
CREATE SCHEMA far;
IMPORT FOREIGN SCHEMA public LIMIT TO (items) FROM SERVER self INTO far;
\d far.items
SELECT * FROM far.items WHERE id = 7;
EXPLAIN (COSTS OFF) SELECT count(*) FROM far.items WHERE id BETWEEN 3 AND 9;
SELECT count(*) FROM far.items WHERE id BETWEEN 3 AND 9;
-- The same rows as entries of a bee: table 16384's keys begin with its oid.
CREATE FOREIGN TABLE entries (key bytea, value bytea, block bigint OPTIONS (column 'seq')) SERVER self OPTIONS (sub_hex '0300004000');
\d+ entries
SELECT count(*) FROM entries;
SELECT key FROM entries ORDER BY key DESC LIMIT 1;
EXPLAIN (COSTS OFF) SELECT key FROM entries WHERE key > '\x80000007' ORDER BY key LIMIT 2;
\det+ *.*
\dew
\dE
COMMENT ON FOREIGN TABLE entries IS 'rows as they are stored';
SELECT obj_description('entries'::regclass);
SELECT table_schema, table_name, table_type FROM information_schema.tables WHERE table_type = 'FOREIGN' ORDER BY 1, 2;
INSERT INTO entries VALUES ('a', 'b');
DROP SERVER self;
DROP SERVER self CASCADE;
\det *.*
