-- SPDX-License-Identifier: GPL-2.0-only
-- rows.sql - what `make bench` has SQLite do: fill a table in memory, index it, query it.
CREATE TABLE item (id INTEGER PRIMARY KEY, kind INTEGER, name TEXT, size INTEGER);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
INSERT INTO item SELECT i, i * 7919 % 101, 'item ' || i * 104729 % 99991, i * 31 % 4096 FROM n;
CREATE INDEX by_name ON item (name);
CREATE INDEX by_kind ON item (kind, size);
SELECT kind, count(*), sum(size), max(name) FROM item GROUP BY kind ORDER BY kind;
SELECT count(*) FROM item a JOIN item b ON b.name = 'item ' || a.size WHERE a.kind < 20;
UPDATE item SET name = upper(name) || '!' WHERE kind % 3 = 0;
SELECT substr(name, 1, 7) AS start, group_concat(id) FROM item GROUP BY start ORDER BY start;
DELETE FROM item WHERE size % 2 = 0;
SELECT count(*), sum(length(name)) FROM item;
