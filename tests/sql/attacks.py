"""SQL that tries to write, to hang, to take all memory or to break what runs it, each with the verdicts it may get.

Every statement is asked of a database with one table, pet (name, age, note), and the folder of that database stands for
{folder}. More than one verdict is allowed where versions of SQLite or of Python differ, or where two limits are close.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

from text2sql.example import Verdict

DENIED = {Verdict.DENIED_WRITE}
SYNTAX = {Verdict.SYNTAX}
EMPTY = {Verdict.EMPTY_PREDICTION}
FUNCTION = {Verdict.FUNCTION}
STACKED = {Verdict.MULTIPLE_STATEMENTS}
ENDLESS = {Verdict.STEP_BUDGET, Verdict.TIMEOUT}
RAN = {Verdict.MISMATCH}
NAMES = {Verdict.UNKNOWN_TABLE, Verdict.UNKNOWN_COLUMN}
# Before Python 3.11 the length of a value has no limit but memory and time.
TOO_BIG = {Verdict.TYPE, Verdict.TIMEOUT, Verdict.TOO_MANY_ROWS} | (RAN if sys.version_info < (3, 11) else set())
TOO_MUCH = {Verdict.STEP_BUDGET, Verdict.TIMEOUT, Verdict.TOO_MANY_ROWS, Verdict.TYPE}
# Extensions, and names of SQLite's own that only some builds have.
ABSENT = DENIED | FUNCTION | NAMES


class Attack(NamedTuple):
    """A name for the reports of pytest, the SQL, and the verdicts that are right."""

    name: str
    sql: str
    verdicts: frozenset[Verdict]


NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {limit}) "
FOREVER = NUMBERS.replace(" LIMIT {limit}", "")
HUNDRED = NUMBERS.format(limit=100)
EIGHT_NUMBERS = ", ".join(f"n AS n{i}" for i in range(8))
"""A hundred rows to the eighth power."""

INSIDE_ONE_INSTRUCTION = "SELECT length(printf('" + "%.*c" * 8 + "'" + ", 900000000, 'x'" * 8 + "))"
"""Ten seconds or more, in which SQLite looks at none of its limits."""

LINES = [
    # Writing rows
    (DENIED, "INSERT INTO pet VALUES ('x', 1, 'x')"),
    (DENIED, "INSERT INTO pet SELECT * FROM pet"),
    (DENIED, "INSERT INTO pet DEFAULT VALUES"),
    (DENIED, "INSERT INTO pet VALUES ('x', 1, 'x') RETURNING name"),
    (DENIED, "INSERT INTO pet VALUES ('Rex', 1, '') ON CONFLICT (name) DO UPDATE SET age = 0"),
    (DENIED, "INSERT OR REPLACE INTO pet VALUES ('Rex', 1, '')"),
    (DENIED, "REPLACE INTO pet VALUES ('x', 1, 'x')"),
    (DENIED, "UPDATE pet SET name = 'x'"),
    (DENIED, "UPDATE pet SET age = 0 RETURNING *"),
    (DENIED, "UPDATE OR IGNORE pet SET name = 'x' FROM (SELECT 1) WHERE 1"),
    (DENIED, "DELETE FROM pet"),
    (DENIED, "DELETE FROM pet WHERE name = 'Rex' RETURNING *"),
    (DENIED, "WITH x AS (SELECT 1) DELETE FROM pet"),
    (DENIED, "WITH x AS (SELECT 1) INSERT INTO pet SELECT 1, 2, 3 FROM x"),
    (DENIED, "WITH x AS (SELECT 1) UPDATE pet SET age = (SELECT * FROM x)"),
    # Changing the schema
    (DENIED, "CREATE TABLE other (a)"),
    (DENIED, "CREATE TABLE other AS SELECT * FROM pet"),
    (DENIED, "CREATE TABLE IF NOT EXISTS other (a)"),
    (DENIED, "CREATE TEMP TABLE other (a)"),
    (DENIED, "CREATE TEMP TABLE other AS SELECT * FROM pet"),
    (DENIED, "CREATE VIEW other AS SELECT * FROM pet"),
    (DENIED, "CREATE TEMP VIEW pet AS SELECT 'fake' AS name"),
    (DENIED, "CREATE TRIGGER t AFTER INSERT ON pet BEGIN SELECT 1; END"),
    (DENIED, "CREATE TEMP TRIGGER t AFTER INSERT ON pet BEGIN DELETE FROM pet; END"),
    (DENIED, "CREATE INDEX by_age ON pet (age)"),
    (DENIED, "CREATE UNIQUE INDEX by_age ON pet (age)"),
    (DENIED, "DROP TABLE pet"),
    (DENIED | NAMES | SYNTAX, "DROP TABLE sqlite_master"),
    (DENIED, "DROP TABLE IF EXISTS pet"),
    (DENIED, "ALTER TABLE pet ADD COLUMN owner"),
    (DENIED, "ALTER TABLE pet RENAME TO animal"),
    (DENIED, "ALTER TABLE pet RENAME COLUMN name TO title"),
    (DENIED, "ALTER TABLE pet DROP COLUMN note"),
    # Other files
    (DENIED, "ATTACH '{folder}/new.sqlite' AS other"),
    (DENIED, "ATTACH 'file:{folder}/new.sqlite?mode=rwc' AS other"),
    (DENIED, "ATTACH ':memory:' AS other"),
    (DENIED, "ATTACH '' AS other"),
    (DENIED, "ATTACH DATABASE (SELECT '{folder}/new.sqlite') AS other"),
    (DENIED | NAMES, "DETACH main"),
    (DENIED, "VACUUM"),
    (DENIED, "VACUUM main INTO '{folder}/new.sqlite'"),
    (DENIED, "VACUUM INTO 'file:{folder}/new.sqlite?mode=rwc'"),
    (DENIED | FUNCTION, "SELECT load_extension('{folder}/new')"),
    (DENIED | FUNCTION, "SELECT load_extension('{folder}/new', 'sqlite3_extension_init')"),
    (FUNCTION, "SELECT readfile('/etc/passwd')"),
    (FUNCTION, "SELECT writefile('{folder}/new.txt', 'x')"),
    (FUNCTION, "SELECT edit('x', 'touch {folder}/new.txt')"),
    (FUNCTION, "SELECT eval('DELETE FROM pet')"),
    (ABSENT, "SELECT * FROM fsdir('/')"),
    # Settings
    (DENIED, "PRAGMA writable_schema = 1"),
    (DENIED, "PRAGMA query_only = 0"),
    (DENIED, "PRAGMA journal_mode = WAL"),
    (DENIED, "PRAGMA journal_mode"),
    (DENIED, "PRAGMA locking_mode = EXCLUSIVE"),
    (DENIED, "PRAGMA page_size = 512"),
    (DENIED, "PRAGMA user_version = 7"),
    (DENIED, "PRAGMA temp_store_directory = '{folder}'"),
    (DENIED, "PRAGMA temp_store = FILE"),
    (DENIED, "PRAGMA hard_heap_limit = 1"),
    (DENIED, "PRAGMA soft_heap_limit = 1"),
    (DENIED, "PRAGMA trusted_schema = 1"),
    (DENIED, "PRAGMA case_sensitive_like = 1"),
    (DENIED, "PRAGMA mmap_size = 1000000000000"),
    (DENIED, "PRAGMA cache_size = 1000000000"),
    (DENIED, "PRAGMA integrity_check"),
    (DENIED, "PRAGMA optimize"),
    (DENIED, "PRAGMA wal_checkpoint(TRUNCATE)"),
    (DENIED, "PRAGMA incremental_vacuum(1)"),
    (DENIED, "PRAGMA foreign_keys = 1"),
    (DENIED | RAN, "PRAGMA no_such_setting = 1"),
    (ABSENT, "SELECT * FROM pragma_journal_mode('WAL')"),
    (ABSENT, "SELECT * FROM pragma_wal_checkpoint('TRUNCATE')"),
    (ABSENT, "SELECT * FROM pragma_table_info('pet')"),
    (ABSENT, "SELECT * FROM pragma_database_list"),
    # SQLite's own tables and functions
    (DENIED | NAMES | SYNTAX, "UPDATE sqlite_master SET sql = 'CREATE TABLE pet (a)'"),
    (DENIED | NAMES | SYNTAX, "DELETE FROM sqlite_master"),
    (DENIED | NAMES | SYNTAX, "INSERT INTO sqlite_master VALUES ('table', 'x', 'x', 2, 'CREATE TABLE x (a)')"),
    (DENIED | FUNCTION, "CREATE VIRTUAL TABLE temp.words USING fts5(text)"),
    (DENIED | FUNCTION, "CREATE VIRTUAL TABLE temp.boxes USING rtree(id, low, high)"),
    (DENIED | FUNCTION, "CREATE VIRTUAL TABLE temp.sizes USING dbstat"),
    (ABSENT | RAN, "SELECT count(*) FROM dbstat"),
    (ABSENT, "UPDATE sqlite_dbpage SET data = zeroblob(4096) WHERE pgno = 1"),
    (ABSENT, "SELECT data FROM sqlite_dbpage WHERE pgno = 1"),
    (ABSENT, "SELECT * FROM sqlite_stmt"),
    (ABSENT | ENDLESS, "SELECT count(*) FROM generate_series(1, 1000000000000)"),
    (ABSENT, "SELECT * FROM fts3tokenize WHERE input = 'a b c'"),
    (DENIED | FUNCTION, "SELECT fts3_tokenizer('simple')"),
    (DENIED | FUNCTION, "SELECT fts3_tokenizer('simple', x'4141414141414141')"),
    (FUNCTION | {Verdict.TYPE}, "SELECT optimize(name) FROM pet"),
    (ABSENT | RAN, "SELECT rtreecheck('main', 'pet')"),
    (FUNCTION | {Verdict.TYPE} | SYNTAX, "SELECT rtreenode(2, randomblob(1000)), rtreedepth(x'00')"),
    (RAN, "SELECT sqlite_log(1, 'x')"),
    (FUNCTION | DENIED, "SELECT sqlite_rename_table(1, 2, 3, 4, 5, 6, 7)"),
    (FUNCTION, "SELECT name FROM pet WHERE name REGEXP '(a+)+$'"),
    (FUNCTION, "SELECT name FROM pet WHERE name MATCH 'x'"),
    # Transactions and upkeep
    (DENIED, "BEGIN"),
    (DENIED, "BEGIN EXCLUSIVE"),
    (DENIED | SYNTAX, "COMMIT"),
    (DENIED | SYNTAX, "ROLLBACK"),
    (DENIED, "SAVEPOINT s"),
    (DENIED | SYNTAX, "RELEASE s"),
    (DENIED, "REINDEX"),
    (DENIED, "ANALYZE"),
    (DENIED, "EXPLAIN DELETE FROM pet"),
    (DENIED, "EXPLAIN QUERY PLAN DROP TABLE pet"),
    (DENIED, "EXPLAIN PRAGMA journal_mode = WAL"),
    (RAN, "EXPLAIN SELECT * FROM pet"),
    # More than one statement, and statements in hiding
    (STACKED, "SELECT 1; DROP TABLE pet"),
    (STACKED, "SELECT 1;; SELECT 2"),
    (STACKED | SYNTAX, "SELECT 1; nonsense"),
    (STACKED, "SELECT name FROM pet; -- a comment\nDELETE FROM pet"),
    (STACKED, "SELECT 1 /* ; */; /* */ DELETE FROM pet"),
    (DENIED, "/* SELECT 1 */ DELETE FROM pet -- SELECT 1"),
    (DENIED, "-- SELECT 1\nDELETE FROM pet"),
    (DENIED, "DELETE FROM pet /* never closed"),
    (DENIED | STACKED, "DELETE FROM pet; SELECT 1"),
    (EMPTY, ""),
    (EMPTY, " \t\r\n\f"),
    (EMPTY, ";"),
    (EMPTY, ";;;;"),
    (EMPTY, "-- nothing"),
    (EMPTY, "/* never closed"),
    (SYNTAX, "/* closed */ */"),
    # Text that is not SQL
    (SYNTAX, "SELECT 'never closed"),
    (SYNTAX, 'SELECT "never closed'),
    (SYNTAX, "SELECT [never closed"),
    (SYNTAX, "```sql\nSELECT 1\n```"),
    (SYNTAX, "SELECT 1\0; DROP TABLE pet"),
    (SYNTAX, "\0"),
    (SYNTAX, "SELECT '\ud800'"),
    (SYNTAX, "SELECT \udcff FROM pet"),
    (SYNTAX, "\ufeffSELEC\u200bT 1"),
    (NAMES | SYNTAX, "SELECT nаme FROM pet"),  # a Cyrillic letter
    (NAMES | SYNTAX, "SELECT name FROM p\u200bet"),
    (SYNTAX, "SEL\uff25CT name FROM pet"),  # a wide E
    (NAMES | SYNTAX, "SELECT name FROM pet WHERE name = “Rex”—"),
    (NAMES, "SELECT \"a\nb\".'\x1b[2J' FROM pet"),
    (NAMES, 'SELECT 1 FROM "%s%n{0}</script>"'),
    (SYNTAX, "SELECT ?"),
    (SYNTAX, "SELECT name FROM pet WHERE age = :age"),
    (SYNTAX, "SELECT @a, $b, ?7"),
    (SYNTAX | {Verdict.TYPE}, "SELECT ?99999999999999999999"),
    # Values that cannot be, or that cannot be told
    ({Verdict.TYPE}, "SELECT abs(-9223372036854775808)"),
    ({Verdict.TYPE}, "SELECT sum(9223372036854775807) FROM pet"),
    ({Verdict.TYPE}, "SELECT json('{')"),
    ({Verdict.TYPE}, "SELECT json_extract('{}', '$[')"),
    ({Verdict.TYPE}, "SELECT json_extract('{}', CAST(x'24FF' AS TEXT))"),  # SQLite's message is not UTF-8
    (RAN, "SELECT CAST(x'FFFE00FF' AS TEXT), 9e999, -9e999, CAST('x' AS BLOB) FROM pet"),
    (RAN, "SELECT char(0, 55296, 1114111, 1114112, -1)"),
    (RAN, "SELECT CAST(x'410042' AS TEXT)"),
    # Endless or too long
    (ENDLESS | {Verdict.TOO_MANY_ROWS}, FOREVER + "SELECT i FROM n"),
    (ENDLESS, FOREVER + "SELECT count(*) FROM n"),
    (ENDLESS, FOREVER + "SELECT i FROM n WHERE i < 0"),
    (ENDLESS, FOREVER + "SELECT count(*) FROM n JOIN pet ON n.i = pet.age - pet.age"),
    (ENDLESS, "WITH RECURSIVE n(i) AS (SELECT 1 UNION SELECT (i + 1) % 1000000007 FROM n) SELECT max(i) FROM n"),
    (ENDLESS, FOREVER + "SELECT 1 WHERE 5 NOT IN (SELECT i + 9 FROM n)"),
    (ENDLESS, "SELECT " + FOREVER.join(["(", "SELECT max(i) FROM n)"])),
    (TOO_MUCH, "WITH RECURSIVE s(t) AS (SELECT 'xx' UNION ALL SELECT t || t FROM s) SELECT max(length(t)) FROM s"),
    (TOO_MUCH, "WITH RECURSIVE s(t) AS (SELECT 'x' UNION SELECT t || 'x' FROM s) SELECT count(*) FROM s"),
    (TOO_MUCH, "WITH RECURSIVE s(t) AS (SELECT 'x' UNION ALL SELECT t || hex(t) FROM s) SELECT t FROM s"),
    (ENDLESS, HUNDRED + f"SELECT count(*) FROM {EIGHT_NUMBERS}"),
    (ENDLESS, HUNDRED + f"SELECT sum(n1.i * n7.i) FROM {EIGHT_NUMBERS}"),
    (TOO_MUCH, HUNDRED + f"SELECT n0.i FROM {EIGHT_NUMBERS}"),
    (TOO_MUCH, HUNDRED + f"SELECT * FROM {EIGHT_NUMBERS}"),
    (TOO_MUCH, HUNDRED + f"SELECT n0.i FROM {EIGHT_NUMBERS} ORDER BY n1.i, n2.i, n3.i"),
    (TOO_MUCH, HUNDRED + f"SELECT n0.i FROM {EIGHT_NUMBERS} ORDER BY random() LIMIT 1"),
    (TOO_MUCH, HUNDRED + f"SELECT n1.i, count(*) FROM {EIGHT_NUMBERS} GROUP BY n1.i, n2.i, n3.i, n4.i, n5.i"),
    (TOO_MUCH, HUNDRED + f"SELECT DISTINCT n1.i, n2.i, n3.i, n4.i, n5.i FROM {EIGHT_NUMBERS}"),
    (TOO_MUCH, HUNDRED + f"SELECT n1.i + n2.i FROM {EIGHT_NUMBERS} UNION SELECT n3.i * n4.i FROM {EIGHT_NUMBERS}"),
    (TOO_MUCH, HUNDRED + f"SELECT n1.i FROM {EIGHT_NUMBERS} EXCEPT SELECT n3.i FROM {EIGHT_NUMBERS}"),
    (TOO_MUCH, HUNDRED + f"SELECT row_number() OVER (ORDER BY n1.i) FROM {EIGHT_NUMBERS}"),
    (
        TOO_MUCH,
        HUNDRED + f"SELECT sum(n1.i) OVER (ROWS UNBOUNDED PRECEDING) FROM {EIGHT_NUMBERS} LIMIT 1 OFFSET 99999999",
    ),
    (TOO_MUCH, HUNDRED + f"SELECT group_concat(n1.i) OVER (ORDER BY n2.i, n3.i) FROM {EIGHT_NUMBERS}"),
    (TOO_MUCH, HUNDRED + f"SELECT max(hex(n1.i)) FROM {EIGHT_NUMBERS} ORDER BY quote(n2.i)"),
    (ENDLESS, HUNDRED + f"SELECT count(*) FROM (SELECT 1 FROM {EIGHT_NUMBERS} LIMIT 999999999 OFFSET 999999999)"),
    # Much in one value: inside a single instruction, where no limit but the process's own is looked at
    (TOO_BIG, "SELECT printf('%.*c', 900000000, 'x')"),
    ({Verdict.TIMEOUT}, INSIDE_ONE_INSTRUCTION),
    (TOO_BIG | RAN, "SELECT printf('%999999999d', 1)"),
    (TOO_BIG | RAN, "SELECT format('%.*f', 900000000, 1.5)"),
    (TOO_BIG | RAN, "SELECT printf('%*s', 2000000000, 'x')"),
    (TOO_BIG, "SELECT zeroblob(900000000)"),
    (TOO_BIG | RAN, "SELECT length(zeroblob(2000000000))"),
    (TOO_BIG | RAN, "SELECT length(zeroblob(-1)) + length(zeroblob(9e18))"),
    (TOO_BIG, "SELECT randomblob(900000000)"),
    (TOO_BIG, "SELECT hex(randomblob(400000000))"),
    (TOO_BIG, "SELECT hex(zeroblob(900000))"),
    (TOO_BIG, "SELECT quote(zeroblob(900000))"),
    (TOO_BIG, "SELECT replace(hex(zeroblob(400000)), '0', hex(zeroblob(400000)))"),
    (TOO_BIG, "SELECT upper(hex(zeroblob(300000))) || lower(hex(zeroblob(300000)))"),
    (TOO_MUCH, HUNDRED + f"SELECT group_concat(hex(zeroblob(1000))) FROM {EIGHT_NUMBERS}"),
    (TOO_MUCH, HUNDRED + f"SELECT json_group_array(hex(zeroblob(1000))) FROM {EIGHT_NUMBERS}"),
    (TOO_MUCH, HUNDRED + f"SELECT json_group_object(n1.i, hex(zeroblob(1000))) FROM {EIGHT_NUMBERS}"),
    (TOO_MUCH, HUNDRED + "SELECT hex(zeroblob(250000)) FROM n AS a, n AS b"),
    (TOO_MUCH, HUNDRED + "SELECT hex(randomblob(250000)) FROM n AS a, n AS b"),
    (TOO_MUCH, HUNDRED + "SELECT hex(randomblob(2500)) FROM n AS a, n AS b, n AS c"),
    (TOO_MUCH, HUNDRED + "SELECT randomblob(900000) AS r FROM n AS a, n AS b ORDER BY r"),
    (TOO_MUCH, HUNDRED + "SELECT count(DISTINCT randomblob(90000)) FROM n AS a, n AS b"),
    (TOO_MUCH, HUNDRED + "SELECT count(*) FROM (SELECT randomblob(900) AS r FROM n AS a, n AS b, n AS c ORDER BY r)"),
    (TOO_MUCH, HUNDRED + "SELECT max(r) FROM (SELECT DISTINCT randomblob(9000) AS r FROM n AS a, n AS b, n AS c)"),
    (TOO_MUCH | RAN, "SELECT hex(zeroblob(450000)) LIKE '" + "%0" * 2_000 + "%1'"),
    (TOO_MUCH | RAN, "SELECT hex(zeroblob(450000)) GLOB '" + "*0" * 2_000 + "*1'"),
    ({Verdict.TYPE}, "SELECT 'x' LIKE hex(zeroblob(90000))"),
    (TOO_MUCH | RAN, "SELECT instr(hex(zeroblob(450000)), hex(zeroblob(200000)) || '1')"),
    (TOO_MUCH | RAN, "SELECT trim(hex(zeroblob(450000)), hex(zeroblob(450000)))"),
    (TOO_MUCH | RAN, "SELECT soundex(hex(zeroblob(450000))), unicode(hex(zeroblob(450000)))"),
    (TOO_MUCH | FUNCTION | RAN, "SELECT json_valid(replace(hex(zeroblob(400000)), '0', '['))"),
    (TOO_MUCH | FUNCTION, "SELECT json(replace(hex(zeroblob(400000)), '00', '[1,') || '1')"),
    (TOO_MUCH | FUNCTION | RAN, "SELECT json_extract('{}', '$' || replace(hex(zeroblob(100000)), '0', '.a'))"),
    (TOO_MUCH | FUNCTION, "SELECT json_patch('{}', replace(hex(zeroblob(200)), '00', '{\"a\":') || 1)"),
    (
        TOO_MUCH | FUNCTION | RAN,
        "WITH RECURSIVE j(v) AS (SELECT '[1,2]' UNION ALL SELECT json_array(json(v), json(v)) FROM j) SELECT max(v) FROM j",
    ),
    (TOO_MUCH | FUNCTION, "SELECT count(*) FROM json_each('[1,2,3,4,5,6,7,8]') AS a" + ", json_each(a.json)" * 12),
    (
        TOO_MUCH | FUNCTION,
        "SELECT count(*) FROM json_tree('[" + "[1,2,3]," * 20_000 + "0]') AS a, json_tree(a.json) AS b",
    ),
    (RAN, "SELECT strftime('" + "%J" * 20_000 + "', 'now')"),
]

TABLES_64 = ", ".join(f"pet AS p{i}" for i in range(64))
NATURAL_64 = " NATURAL JOIN ".join(f"pet AS p{i}" for i in range(64))
CHAINED_64 = "pet AS p0" + "".join(f" JOIN pet AS p{i} ON p{i}.age = p{i - 1}.age" for i in range(1, 64))
VIEWS = ", ".join(
    ["v0 AS (SELECT * FROM pet)", *(f"v{i} AS (SELECT a.* FROM v{i - 1} AS a, v{i - 1} AS b)" for i in range(1, 16))]
)
NESTED_VIEWS = ", ".join(["v0 AS (SELECT 1 AS a)", *(f"v{i} AS (SELECT a FROM v{i - 1})" for i in range(1, 5_000))])
LIMITED = SYNTAX | TOO_MUCH
"""The parser's own limits, or those on what the query takes."""

LARGE = [
    ("10,000 terms of AND", RAN | LIMITED, "SELECT 1 WHERE " + " AND ".join(["1"] * 10_000)),
    ("10,000 terms of OR", RAN | LIMITED, "SELECT name FROM pet WHERE " + " OR ".join(f"age = {i}" for i in range(10_000))),
    ("10,000 terms of +", RAN | LIMITED, "SELECT " + "+".join(["1"] * 10_000)),
    ("10,000 terms of ||", RAN | LIMITED, "SELECT " + "||".join(["'x'"] * 10_000)),
    ("100,000 values of IN", RAN, "SELECT name FROM pet WHERE age IN (" + ",".join(map(str, range(100_000))) + ")"),
    ("10,000 branches of CASE", RAN | LIMITED, "SELECT CASE 0" + "".join(f" WHEN {i} THEN {i}" for i in range(1, 10_000)) + " END"),
    ("100,000 brackets", LIMITED, "SELECT " + "(" * 100_000 + "1" + ")" * 100_000),
    ("100,000 open brackets", LIMITED, "SELECT " + "(" * 100_000),
    ("100,000 closed brackets", LIMITED, "SELECT 1" + ")" * 100_000),
    ("5,000 subqueries", LIMITED, "SELECT " + "(SELECT " * 5_000 + "1" + ")" * 5_000),
    ("5,000 tables in tables", LIMITED, "SELECT 1 FROM " + "(SELECT 1 FROM " * 5_000 + "pet" + ")" * 5_000),
    ("50,000 NOT", LIMITED, "SELECT " + "NOT " * 50_000 + "1"),
    ("100,000 minus signs", LIMITED, "SELECT " + "- " * 100_000 + "1"),
    ("50,000 nested CASE", LIMITED, "SELECT " + "CASE WHEN " * 50_000 + "1" + " THEN 1 END" * 50_000),
    ("20,000 nested functions", LIMITED, "SELECT " + "abs(" * 20_000 + "1" + ")" * 20_000),
    ("1,000 arguments", FUNCTION | SYNTAX, "SELECT max(" + ",".join("1" * 1_000) + ")"),
    ("400 UNION ALL", RAN, "SELECT 1" + " UNION ALL SELECT 1" * 400),
    ("600 UNION", LIMITED, "SELECT 1" + " UNION SELECT 1" * 600),
    ("20,000 EXCEPT", LIMITED, "SELECT 1" + " EXCEPT SELECT 1" * 20_000),
    ("20,000 rows of VALUES", RAN | LIMITED, "VALUES (1)" + ", (1)" * 20_000),
    ("64 tables", LIMITED, f"SELECT count(*) FROM {TABLES_64}"),
    ("65 tables", LIMITED, f"SELECT count(*) FROM {TABLES_64}, pet"),
    ("a natural join of 64 tables", RAN | LIMITED, f"SELECT count(*) FROM {NATURAL_64}"),
    ("a chain of 64 tables", RAN | LIMITED, f"SELECT count(*) FROM {CHAINED_64}"),
    ("views over views", LIMITED | NAMES, f"WITH {VIEWS} SELECT count(*) FROM v15"),
    ("5,000 nested views", RAN | LIMITED, f"WITH {NESTED_VIEWS} SELECT a FROM v4999"),
    ("2,000 columns", RAN, "SELECT " + ",".join(["1"] * 2_000)),
    ("2,001 columns", LIMITED, "SELECT " + ",".join(["1"] * 2_001)),
    ("2,000 columns of many rows", TOO_MUCH, HUNDRED + "SELECT " + ",".join(["a.i"] * 2_000) + " FROM n AS a, n AS b"),
    ("2,000 columns, sorted", TOO_MUCH, HUNDRED + "SELECT " + ",".join(["a.i"] * 2_000) + " FROM n AS a, n AS b ORDER BY b.i"),
    ("2,000 terms of ORDER BY", RAN | LIMITED, "SELECT name FROM pet ORDER BY " + ",".join(["age"] * 2_000)),
    ("1,000 windows", RAN | LIMITED, "SELECT " + ",".join(f"sum(age) OVER (ORDER BY age + {i})" for i in range(1_000)) + " FROM pet"),
    ("100 MB of SQL", SYNTAX, "SELECT '" + "x" * 100_000_000 + "'"),
    ("20 MB of letters outside ASCII", SYNTAX, "SELECT '" + "ü" * 10_000_000 + "'"),
    ("900,000 spaces", RAN | SYNTAX, "SELECT" + " " * 900_000 + "1"),
    ("900,000 letters of comment", RAN | SYNTAX, "SELECT 1 /*" + "*" * 900_000),
    ("900,000 single quotes", SYNTAX | RAN, "SELECT " + "'" * 900_001),
    ("900,000 square brackets", SYNTAX, "SELECT " + "[" * 900_000),
    ("900,000 slashes and stars", SYNTAX | RAN, "SELECT 1 " + "/*" * 450_000),
    ("900,000 semicolons", EMPTY | STACKED | SYNTAX, "SELECT 1" + ";" * 900_000 + "SELECT 2"),
    ("900,000 letters in a string", RAN, "SELECT '" + "x" * 900_000 + "'"),
    ("900,000 letters in a name", NAMES, 'SELECT pet."' + "x" * 900_000 + '" FROM pet'),
    ("900,000 letters in an alias", RAN, 'SELECT 1 AS "' + "x" * 900_000 + '"'),
    ("900,000 letters in a word", NAMES, "SELECT " + "x" * 900_000),
    ("900,000 digits", RAN, "SELECT " + "9" * 900_000),
    ("a pattern of 900,000 letters", {Verdict.TYPE}, "SELECT 'x' LIKE '" + "%_" * 450_000 + "'"),
]  # fmt: skip

ATTACKS = [Attack(" ".join(sql.split())[:60], sql, frozenset(verdicts)) for verdicts, sql in LINES]
# A busy machine may take a second only to compile these.
ATTACKS += [Attack(name, sql, frozenset(verdicts | {Verdict.TIMEOUT})) for name, verdicts, sql in LARGE]
