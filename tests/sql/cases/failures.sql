-- gold, a space, two dashes and the verdict; below it the prediction; then a blank line.

SELECT 1 -- empty_prediction
;

SELECT 1 -- empty_prediction
/* no idea */

SELECT 1 -- syntax
SELEC 1

SELECT 1 -- syntax
SELECT (1

SELECT 1 -- syntax
SELECT 'one

SELECT 1 -- syntax
SELECT ?

SELECT 1 -- syntax
SELECT id FROM book UNION SELECT id, title FROM book

SELECT 1 -- syntax
SELECT id FROM book ORDER BY 2

SELECT 1 -- syntax
I think the answer is one.

SELECT 1 -- unknown_table
SELECT 1 FROM books

SELECT 1 -- unknown_table
SELECT 1 FROM `on full`

SELECT 1 -- unknown_column
SELECT author.age FROM author

SELECT 1 -- unknown_column
SELECT title FROM book JOIN loan USING (title)

SELECT 1 -- ambiguous
SELECT id FROM author JOIN book ON author.id = author_id

SELECT 1 -- function
SELECT concat_all(name) FROM author

SELECT 1 -- function
SELECT abs(1, 2)

SELECT 1 -- function
SELECT name FROM author WHERE max(born) = born

SELECT 1 -- type
SELECT name FROM author LIMIT 'one'

SELECT 1 -- type
SELECT abs(-9223372036854775808)

SELECT 1 -- type
SELECT zeroblob(2000000000)

SELECT 1 -- type
SELECT json('{')

SELECT 1 -- denied_write
DELETE FROM author

SELECT 1 -- multiple_statements
SELECT 1; SELECT 1

SELECT 1 -- too_many_rows
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n

SELECT books FROM author -- gold_error
SELECT 1
