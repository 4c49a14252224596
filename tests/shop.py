"""A small shop as a SQLite file, with names that want quotes, and pairs about it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

SCRIPT = """
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT, city TEXT, joined DATE, email TEXT);
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER REFERENCES customers(id), total REAL, status TEXT);
CREATE TABLE "order notes" ("group" INTEGER PRIMARY KEY, "naïve ""quoted"" tëxt" TEXT, "Größe" INTEGER, "select" TEXT);
"""
PAIRS = [
    ("How many customers are there?", "SELECT COUNT(*) FROM customers"),
    ("Who lives in Oslo?", "SELECT name FROM customers WHERE city = 'Oslo'"),
    ("Who lives in Lyon?", "SELECT name FROM customers WHERE city = 'Lyon'"),
    ("Who lives in Porto?", "SELECT name FROM customers WHERE city = 'Porto'"),
    ("What states are orders in?", "SELECT DISTINCT status FROM orders"),
    ("What is the largest total?", "SELECT MAX(total) FROM orders"),
    ("How many orders has each customer?", "SELECT customer_id, COUNT(*) FROM orders GROUP BY customer_id"),
    ("Which groups are there?", 'SELECT "group" FROM "order notes"'),
]


def make(file):
    """Write the shop; returns the file."""
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(SCRIPT)
        for n in range(1, 41):
            mail = f"c{n}@example.org" if n % 3 else None
            row = (
                n,
                f"Person {chr(64 + n % 26 or 90)}{n}",
                ("Oslo", "Lyon", "Porto")[n % 3],
                f"2025-01-{n % 28 + 1:02}",
                mail,
            )
            connection.execute("INSERT INTO customers VALUES (?, ?, ?, ?, ?)", row)
            state = ("open", "paid", "sent", "back")[n % 4]
            connection.execute("INSERT INTO orders VALUES (?, ?, ?, ?)", (n, n // 2 + 1, n * 7.25, state))
            connection.execute(
                'INSERT INTO "order notes" VALUES (?, ?, ?, ?)', (n, f"größe {n}", n * 3, ("a", "b")[n % 2])
            )
        connection.commit()
    return file


def write_pairs(file, pairs=PAIRS):
    """Write pairs as .jsonl; returns the file."""
    rows = [one if isinstance(one, dict) else {"question": one[0], "sql": one[1]} for one in pairs]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file
