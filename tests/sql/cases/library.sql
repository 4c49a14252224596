-- The database the cases are asked of. "born" is NULL for one author, two books have one price, one price is a fraction.
CREATE TABLE author (id INTEGER PRIMARY KEY, name TEXT, born INTEGER);
CREATE TABLE book (id INTEGER PRIMARY KEY, title TEXT, author_id INTEGER REFERENCES author (id), year INTEGER, price REAL);
CREATE TABLE loan (book_id INTEGER REFERENCES book (id), reader TEXT, days INTEGER);
INSERT INTO author VALUES (1, 'Ada', 1815), (2, 'Ben', 1920), (3, 'Cy', NULL);
INSERT INTO book VALUES (1, 'Engines', 1, 1843, 10.0), (2, 'Notes', 1, 1842, 10.0), (3, 'Wires', 2, 1950, 12.5), (4, 'Dust', 3, 1999, 0.1);
INSERT INTO loan VALUES (1, 'Eve', 3), (1, 'Fay', 5), (3, 'Eve', 3), (3, 'Eve', 3);
