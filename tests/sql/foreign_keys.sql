-- postgres: foreign keys and deferrable keys, as psql shows them and as they work
CREATE TABLE customer (id int PRIMARY KEY, email text UNIQUE, name text);
CREATE UNIQUE INDEX customer_id_name ON customer (id, name);
CREATE TABLE "order" (
    id int PRIMARY KEY DEFERRABLE,
    customer int NOT NULL REFERENCES customer ON UPDATE CASCADE,
    email text REFERENCES customer (email) ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED,
    name text,
    UNIQUE (customer, name) DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT both_columns FOREIGN KEY (name, customer) REFERENCES customer (name, id) MATCH FULL ON DELETE SET DEFAULT
);
CREATE TABLE tree (id int PRIMARY KEY, up int REFERENCES tree ON DELETE CASCADE);
CREATE SCHEMA other;
CREATE TABLE other.note (id int, customer int, CONSTRAINT note_of FOREIGN KEY (customer) REFERENCES customer ON DELETE SET NULL (customer) NOT VALID);
ALTER TABLE other.note DROP CONSTRAINT note_of, ADD CONSTRAINT note_of FOREIGN KEY (customer) REFERENCES customer ON DELETE SET NULL (customer) NOT VALID;
\d customer
\d "order"
\d tree
\d other.note
SET search_path = other;
\d note
\d public.customer
RESET search_path;
SELECT conname, contype, condeferrable, condeferred, convalidated, conrelid::regclass, conindid::regclass, confrelid::regclass, confupdtype, confdeltype, confmatchtype, conkey, confkey, confdelsetcols FROM pg_constraint WHERE contype IN ('f', 'u', 'p') AND connamespace <> 11 ORDER BY conname;
SELECT constraint_name, constraint_type, is_deferrable, initially_deferred FROM information_schema.table_constraints WHERE constraint_type <> 'CHECK' AND table_schema IN ('public', 'other') ORDER BY 1;
SELECT constraint_name, unique_constraint_name, match_option, update_rule, delete_rule FROM information_schema.referential_constraints ORDER BY 1;
SELECT constraint_name, table_name, column_name, ordinal_position, position_in_unique_constraint FROM information_schema.key_column_usage WHERE table_schema IN ('public', 'other') ORDER BY 1, 4;
SELECT table_name, column_name, constraint_name FROM information_schema.constraint_column_usage WHERE constraint_name IN ('both_columns', 'note_of', 'tree_up_fkey') ORDER BY 3, 2;
INSERT INTO customer VALUES (1, 'a@x', 'Ann'), (2, 'b@x', 'Bob');
INSERT INTO "order" VALUES (1, 1, 'a@x', 'Ann'), (2, 2, NULL, 'Bob');
INSERT INTO "order" VALUES (3, 3, NULL, 'Cid');
INSERT INTO "order" VALUES (3, 1, NULL, NULL);
UPDATE "order" SET id = id + 1;
UPDATE customer SET id = 20 WHERE id = 2;
BEGIN;
INSERT INTO "order" VALUES (9, 1, 'nobody', 'Ann');
SET CONSTRAINTS ALL IMMEDIATE;
ROLLBACK;
DELETE FROM customer WHERE id = 1;
TRUNCATE customer;
TRUNCATE customer CASCADE;
INSERT INTO tree SELECT g, nullif(g / 2, 0) FROM generate_series(1, 10) g;
DELETE FROM tree WHERE id = 2;
SELECT * FROM tree ORDER BY id;
ALTER TABLE other.note VALIDATE CONSTRAINT note_of;
ALTER TABLE "order" ALTER CONSTRAINT order_email_fkey NOT DEFERRABLE;
\d "order"
DROP TABLE customer;
ALTER TABLE customer DROP COLUMN name;
DROP INDEX customer_id_name;
DROP INDEX customer_id_name CASCADE;
DROP SCHEMA other;
DROP TABLE customer CASCADE;
\d "order"
