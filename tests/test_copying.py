"""text2sql copy-database: other databases, by sample, as SQLite files."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import shop

from text2sql import cli, copying

pytest.importorskip("sqlalchemy")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def rows(query, file="copy.sqlite"):
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(query).fetchall()


def test_a_sample_brings_the_rows_that_it_references(capsys):
    shop.make("shop.sqlite")
    with closing(sqlite3.connect("shop.sqlite")) as connection:
        connection.execute("UPDATE orders SET customer_id = 41 - id WHERE id <= 5")
        connection.commit()
    assert cli.main(["copy-database", "sqlite:///shop.sqlite", "copy.sqlite", "--rows", "5"]) == 0
    assert "customers: 10 rows" in capsys.readouterr().out
    assert rows("SELECT COUNT(*) FROM orders") == [(5,)]
    assert rows("SELECT COUNT(*) FROM orders JOIN customers ON orders.customer_id = customers.id") == [(5,)]
    assert rows('SELECT "group", "select" FROM "order notes" LIMIT 1') == [(1, "b")]


def test_only_the_tables_asked_for_are_copied(capsys):
    shop.make("shop.sqlite")
    assert cli.main(["copy-database", "sqlite:///shop.sqlite", "copy.sqlite", "--tables", "orders"]) == 0
    assert rows("SELECT name FROM sqlite_master WHERE type = 'table'") == [("orders",)]
    assert cli.main(["copy-database", "sqlite:///shop.sqlite", "other.sqlite", "--tables", "ordres"]) == 2
    assert "--tables ordres is no table; there are customers, order notes, orders" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_told_from_a_database_that_cannot_be_read():
    shop.make("shop.sqlite")
    with pytest.raises(ValueError, match="nowhere/copy.sqlite cannot be written: unable to open"):
        copying.copy("sqlite:///shop.sqlite", Path("nowhere/copy.sqlite"), num_rows=5)


def test_duckdb_is_read_with_its_keys_and_types(capsys):
    duckdb = pytest.importorskip("duckdb")
    pytest.importorskip("duckdb_engine")
    with duckdb.connect("shop.duckdb") as source:
        source.execute(
            "CREATE TABLE owner (id INTEGER PRIMARY KEY, name VARCHAR);"
            'CREATE TABLE pet (id INTEGER PRIMARY KEY, owner INTEGER REFERENCES owner(id), "first name" VARCHAR,'
            " price DECIMAL(8, 2), born DATE, seen TIMESTAMP, tags VARCHAR[]);"
            "INSERT INTO owner SELECT i, 'o' || i FROM range(1, 31) t(i);"
            "INSERT INTO pet SELECT i, 31 - i, 'p' || i, 2.5, DATE '2025-02-01', TIMESTAMP '2025-02-01 10:00:00', ['a']"
            " FROM range(1, 11) t(i);"
        )
    assert cli.main(["copy-database", "duckdb:///shop.duckdb", "copy.sqlite", "--rows", "4"]) == 0
    assert rows("SELECT COUNT(*) FROM pet JOIN owner ON pet.owner = owner.id") == [(4,)]
    assert rows("SELECT * FROM pet LIMIT 1") == [(1, 30, "p1", 2.5, "2025-02-01", "2025-02-01 10:00:00", '["a"]')]
    (statement,) = rows("SELECT sql FROM sqlite_master WHERE name = 'pet'")[0]
    assert '"first name" TEXT' in statement
    assert "FOREIGN KEY (owner) REFERENCES owner (id)" in statement
    assert cli.main(["copy-database", "duckdb:///none.duckdb", "none.sqlite"]) == 2
    assert "duckdb:///none.duckdb cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("shop", "shop is no database URL: write postgresql://USER@HOST/NAME"),
        ("oracle://me:secret@host/x", "no driver for oracle databases here"),
        ("sqlite:///nowhere/shop.sqlite", "cannot be read: unable to open database file"),
    ],
)
def test_what_cannot_be_reached_is_said_without_the_password(capsys, url, message):
    assert cli.main(["copy-database", url, "copy.sqlite"]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "secret" not in err
