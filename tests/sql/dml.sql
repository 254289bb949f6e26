-- postgres: changing rows
CREATE TABLE acc (id int PRIMARY KEY, owner text NOT NULL, sum numeric(10,2) NOT NULL DEFAULT 0, note text);
INSERT INTO acc VALUES (1, 'ann', 10), (2, 'bob', 20.5), (3, 'cem', DEFAULT) RETURNING id, sum;
INSERT INTO acc VALUES (1, 'dup', 1);
INSERT INTO acc VALUES (1, 'dup', 1) ON CONFLICT DO NOTHING;
INSERT INTO acc VALUES (1, 'dup', 5), (4, 'dan', 4) ON CONFLICT (id) DO UPDATE SET sum = acc.sum + excluded.sum, note = 'merged' RETURNING *;
INSERT INTO acc VALUES (5, 'eve', 1), (5, 'eve', 2) ON CONFLICT (id) DO UPDATE SET sum = excluded.sum;
INSERT INTO acc (id, owner) SELECT id + 10, owner || '!' FROM acc WHERE id < 3;
UPDATE acc SET sum = sum * 2 WHERE id = 12 RETURNING id, sum;
UPDATE acc SET (owner, note) = ('zoe', 'renamed') WHERE id = 3;
UPDATE acc SET note = r.word FROM (VALUES (1, 'one'), (2, 'two')) r(id, word) WHERE r.id = acc.id;
UPDATE acc SET id = id + 1 WHERE id = 4;
UPDATE acc SET id = 1 WHERE id = 2;
UPDATE acc SET owner = NULL WHERE id = 1;
SELECT * FROM acc ORDER BY id;
DELETE FROM acc USING (VALUES (11), (12)) d(id) WHERE d.id = acc.id RETURNING acc.id, owner;
WITH gone AS (DELETE FROM acc WHERE sum = 0 RETURNING *) SELECT owner FROM gone;
SELECT count(*), sum(sum) FROM acc;
CREATE TABLE log (at int, what text);
CREATE INDEX ON log (at);
INSERT INTO log SELECT i % 7, 'event ' || i FROM generate_series(1, 50) i;
DELETE FROM log WHERE at IN (SELECT id FROM acc);
SELECT at, count(*) FROM log GROUP BY at ORDER BY at;
UPDATE log SET at = at + 1;
SELECT count(*) FROM log WHERE at = 1;
SELECT what FROM log WHERE at BETWEEN 4 AND 5 ORDER BY what LIMIT 4;
INSERT INTO log SELECT * FROM log;
SELECT count(*) FROM log;
COPY (SELECT owner, sum, note FROM acc ORDER BY id) TO STDOUT;
COPY acc (id, owner, note) FROM STDIN;
20	tab\tbed	\N
21	back\\slash	line\nbreak
\.
COPY acc (id, owner, note) FROM STDIN WITH (FORMAT csv, HEADER, NULL 'NA');
id,owner,note
30,"quo""ted",NA
31,"two
lines",""
\.
COPY (SELECT id, owner, note, note IS NULL AS missing FROM acc WHERE id >= 20 ORDER BY id) TO STDOUT WITH (FORMAT csv, HEADER);
COPY acc (id, owner) FROM STDIN;
40	fine
41
\.
SELECT count(*) FROM acc WHERE id >= 40;
