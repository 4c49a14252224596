-- A table that references itself, a link table with two keys, equal rows.
CREATE TABLE person (pid INTEGER PRIMARY KEY, name TEXT, born INTEGER, mentor INTEGER REFERENCES person (pid));
CREATE TABLE film (fid INTEGER PRIMARY KEY, title TEXT, year INTEGER, rating REAL, director INTEGER REFERENCES person (pid));
CREATE TABLE role (fid INTEGER REFERENCES film (fid), pid INTEGER REFERENCES person (pid), part TEXT);
CREATE TABLE prize (fid INTEGER, name TEXT, year INTEGER, FOREIGN KEY (fid) REFERENCES film (fid));
INSERT INTO person VALUES (1, 'Lee', 1950, NULL), (2, 'Mo', 1970, 1), (3, 'Nan', 1980, 1), (4, 'Oz', 1990, 2), (5, 'Lee', 1985, 3);
INSERT INTO film VALUES
    (1, 'Rain', 1999, 7.5, 1), (2, 'Snow', 2005, 6.0, 2), (3, 'Wind', 2005, 7.5, 1), (4, 'Fog', 2012, NULL, 3);
INSERT INTO role VALUES (1, 2, 'lead'), (1, 3, 'extra'), (2, 4, 'lead'), (2, 4, 'lead'), (3, 5, 'extra'), (4, 2, 'lead');
INSERT INTO prize VALUES (1, 'Gold', 2000), (1, 'Silver', 2000), (3, 'Gold', 2006);
