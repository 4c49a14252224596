-- gold, a space, two dashes and the verdict; below it the prediction; then a blank line.

SELECT name FROM author -- mismatch
SELECT name, born FROM author

SELECT name FROM author WHERE born < 1900 -- mismatch
SELECT name FROM author

SELECT DISTINCT reader FROM loan -- mismatch
SELECT reader FROM loan

SELECT reader FROM loan -- mismatch
SELECT DISTINCT reader FROM loan

SELECT name FROM author ORDER BY name -- mismatch
SELECT name FROM author ORDER BY name DESC

SELECT title FROM book UNION SELECT name FROM author ORDER BY 1 -- mismatch
SELECT title FROM book UNION SELECT name FROM author ORDER BY 1 DESC

SELECT born FROM author WHERE name = 'Cy' -- mismatch
SELECT 0

SELECT born FROM author WHERE name = 'Cy' -- mismatch
SELECT ''

SELECT 1815 -- mismatch
SELECT '1815'

SELECT 'Ada' -- mismatch
SELECT x'416461'

SELECT 0.3 -- mismatch
SELECT 0.3001

SELECT 9007199254740993 -- mismatch
SELECT 9007199254740992

SELECT id, author_id FROM book -- mismatch
SELECT id, 1 FROM book

SELECT reader, days FROM loan -- mismatch
SELECT 'Eve', 3 FROM loan

SELECT title FROM book WHERE title = 'Dust' -- mismatch
SELECT "titel" FROM book WHERE title = 'Dust'

SELECT title FROM book WHERE year > 2020 -- mismatch
SELECT id, title FROM book WHERE price > 100
