-- Values that are nearly alike: 1, 1.0 and '1', large integers, NULL, empty texts, infinity, bytes, text that is not UTF-8.
CREATE TABLE reading (id INTEGER PRIMARY KEY, a, b, c, d);
CREATE TABLE pair (x INTEGER, y INTEGER, z INTEGER, w INTEGER);
CREATE TABLE label (id INTEGER, tag TEXT, note TEXT);
INSERT INTO reading VALUES
    (1, 1, 1.0, '1', 'one'), (2, 2, 2.0, '2', 'two'), (3, NULL, NULL, '', NULL), (4, 9007199254740993, 9007199254740992.0, 'big', 'x'),
    (5, 0.1, 0.30000000000000004, '0.3', x'00ff'), (6, 9e999, -9e999, 'Inf', CAST(x'61ff62' AS TEXT));
INSERT INTO pair VALUES (1, 2, 1, 2), (2, 1, 2, 1), (1, 1, 2, 2), (2, 2, 1, 1), (1, 2, 2, 1), (1, 2, 1, 2);
INSERT INTO label VALUES (1, 'red', 'USA'), (1, 'Red', 'usa'), (2, 'rød', ' USA'), (3, NULL, ''), (3, 'value', 'it''s');
