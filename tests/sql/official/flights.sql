-- Two foreign keys to one table, a chain of foreign keys, routes there and back.
CREATE TABLE airport (code TEXT PRIMARY KEY, city TEXT, country TEXT, elevation INTEGER);
CREATE TABLE airline (aid INTEGER PRIMARY KEY, name TEXT, home TEXT REFERENCES airport (code));
CREATE TABLE flight (
    fid INTEGER PRIMARY KEY,
    airline INTEGER REFERENCES airline (aid),
    source TEXT REFERENCES airport (code),
    destination TEXT REFERENCES airport (code),
    distance INTEGER,
    price REAL
);
CREATE TABLE booking (bid INTEGER PRIMARY KEY, fid INTEGER REFERENCES flight (fid), passenger TEXT, seats INTEGER);
INSERT INTO airport VALUES
    ('AAA', 'Arles', 'France', 10), ('BBB', 'Bonn', 'Germany', 60), ('CCC', 'Cork', 'Ireland', 153), ('DDD', 'Delft', NULL, -3);
INSERT INTO airline VALUES (1, 'Heron', 'AAA'), (2, 'Kite', 'BBB'), (3, 'Stork', NULL);
INSERT INTO flight VALUES
    (1, 1, 'AAA', 'BBB', 700, 90.0), (2, 1, 'BBB', 'AAA', 700, 95.0), (3, 2, 'BBB', 'CCC', 1200, 150.0),
    (4, 2, 'CCC', 'AAA', 1000, 90.0), (5, 1, 'AAA', 'CCC', 1000, 120.5);
INSERT INTO booking VALUES (1, 1, 'Ida', 1), (2, 1, 'Jon', 2), (3, 3, 'Ida', 1), (4, 5, 'Kim', 4), (5, 4, 'Jon', 1);
