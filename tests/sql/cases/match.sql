-- gold, a space, two dashes and the verdict; below it the prediction; then a blank line.

SELECT count(*) FROM author -- match
SELECT count(id) AS how_many FROM author;

SELECT name, born FROM author -- match
SELECT born, name FROM author

SELECT name FROM author -- match
SELECT name FROM author ORDER BY name DESC

SELECT name FROM author ORDER BY name -- match
SELECT name FROM author ORDER BY 1

SELECT name FROM author ORDER BY name LIMIT 1 -- match
SELECT min(name) FROM author

SELECT count(*) FROM book WHERE year > 2020 -- match
SELECT 0

SELECT title FROM book WHERE year > 2020 -- empty_both
SELECT title FROM book WHERE price > 100

SELECT sum(price) FROM book WHERE author_id = 1 -- match
SELECT 20

SELECT 0.3 -- match
SELECT 0.1 + 0.2

SELECT avg(days) FROM loan -- match
SELECT sum(days) * 1.0 / count(*) FROM loan

SELECT born FROM author WHERE name = 'Cy' -- match
SELECT NULL

SELECT name FROM author WHERE id IN (SELECT author_id FROM book WHERE price = 10) -- match
SELECT DISTINCT T1.name FROM author AS T1 JOIN book AS T2 ON T1.id = T2.author_id WHERE T2.price = 10

SELECT name FROM author WHERE id IN (SELECT author_id FROM book ORDER BY year) -- match
SELECT name FROM author ORDER BY name DESC

SELECT title FROM book UNION SELECT name FROM author -- match
WITH names AS (SELECT name FROM author UNION SELECT title FROM book) SELECT * FROM names

SELECT title FROM book WHERE title = 'Dust' -- match
SELECT title FROM book WHERE title = "Dust" -- a comment
