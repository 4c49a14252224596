"""text2sql copy-database from servers that run: MariaDB and PostgreSQL, each started here on a port of this machine."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import time
from contextlib import closing
from pathlib import Path

import pytest

from text2sql import cli

pytest.importorskip("sqlalchemy")
pytestmark = pytest.mark.slow

MYSQL = """
CREATE TABLE customers (id BIGINT UNSIGNED PRIMARY KEY, name VARCHAR(40), tier ENUM('silver', 'gold'), tags SET('b', 'a'),
  active TINYINT(1), opens TIME, born YEAR, flags BIT(8), photo BLOB, extra JSON, joined DATE,
  referred_by BIGINT UNSIGNED, FOREIGN KEY (referred_by) REFERENCES customers (id));
CREATE TABLE `größe` (id INT PRIMARY KEY AUTO_INCREMENT, `order` VARCHAR(20), `名前` TEXT);
CREATE TABLE orders (id INT, nr INT, customer BIGINT UNSIGNED, size INT, total DECIMAL(10, 2), placed DATETIME(6),
  PRIMARY KEY (id, nr), FOREIGN KEY (customer) REFERENCES customers (id), FOREIGN KEY (size) REFERENCES `größe` (id));
CREATE TABLE nothing (a INT, b BLOB);
CREATE VIEW large AS SELECT * FROM orders WHERE total > 10;
INSERT INTO customers VALUES
  (1, 'Ünal', 'gold', 'a,b', 1, '26:10:00', 1999, b'10100000', x'00ff', '{"k": ["ä"]}', '2025-02-01', NULL),
  (18446744073709551615, 'B', NULL, '', 0, '-01:02:03.5', NULL, NULL, NULL, NULL, '0000-00-00', 1);
INSERT INTO `größe` VALUES (1, 's', '小'), (2, 'm', NULL);
INSERT INTO orders VALUES (1, 1, 18446744073709551615, 2, 12.50, '2025-02-01 10:00:00.123456'), (2, 1, 1, 1, NULL, NULL);
"""

POSTGRES = """
CREATE TYPE tier AS ENUM ('silver', 'gold');
CREATE TABLE customers (id UUID PRIMARY KEY, name VARCHAR(40), tier tier, tags TEXT[], active BOOLEAN, opens TIME,
  lasts INTERVAL, photo BYTEA, extra JSONB, host INET, worth NUMERIC(40, 0), referred_by UUID REFERENCES customers (id));
CREATE TABLE "größe" (id SERIAL PRIMARY KEY, "order" TEXT, "名前" TEXT);
CREATE TABLE orders (id INT, nr INT, customer UUID REFERENCES customers (id), size INT REFERENCES "größe" (id),
  total DECIMAL(10, 2), placed TIMESTAMP, PRIMARY KEY (id, nr));
CREATE TABLE nothing (a INT, b BYTEA);
CREATE VIEW large AS SELECT * FROM orders WHERE total > 10;
INSERT INTO customers VALUES
  ('00000000-0000-0000-0000-000000000001', 'Ünal', 'gold', '{a,b}', true, '10:11:12', '26:10:00', '\\x00ff', '{"k": ["ä"]}',
   '10.0.0.1', 12, NULL),
  ('00000000-0000-0000-0000-000000000002', 'B', NULL, '{}', false, NULL, '-01:02:03.5', NULL, NULL, NULL, 'NaN',
   '00000000-0000-0000-0000-000000000001');
INSERT INTO "größe" ("order", "名前") VALUES ('s', '小'), ('m', NULL);
INSERT INTO orders VALUES (1, 1, '00000000-0000-0000-0000-000000000002', 2, 12.50, '2025-02-01 10:00:00.123456'),
  (2, 1, '00000000-0000-0000-0000-000000000001', 1, NULL, NULL);
CREATE SCHEMA other;
CREATE TABLE other.things (id INT PRIMARY KEY);
INSERT INTO other.things VALUES (7);
"""

ORDERS = """
SELECT name, total, placed, "order" FROM orders
JOIN customers ON customer = customers.id JOIN "größe" ON "größe".id = size ORDER BY orders.id
"""


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def program(name: str) -> str:
    """The path of a server's program, or a skip."""
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") or (installed[0] if installed else None)
    return str(found or pytest.skip(f"needs a database server: {name} is not installed"))


@contextlib.contextmanager
def serving(command: list[str], ready, **options):
    """The server that `command` starts, once ready() raises nothing."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options) as server:
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    ready()
                    break
                except Exception:
                    if server.poll() is not None or time.monotonic() > deadline:
                        raise
                    time.sleep(0.1)
            yield
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def mysql(tmp_path_factory):
    """The address of a MariaDB with a database shop and a user reader who may only read it."""
    server, pymysql = program("mariadbd"), pytest.importorskip("pymysql")
    folder, port, me = tmp_path_factory.mktemp("mariadb"), free_port(), pwd.getpwuid(os.getuid()).pw_name
    where = ["--no-defaults", f"--datadir={folder / 'data'}", f"--user={me}"]
    create = [program("mariadb-install-db"), *where, "--auth-root-authentication-method=normal"]
    subprocess.run(create, check=True, capture_output=True)
    socket_file = folder / "s"

    def connect(**more):
        return pymysql.connect(unix_socket=str(socket_file), user="root", charset="utf8mb4", autocommit=True, **more)

    listening = [
        f"--socket={socket_file}",
        f"--port={port}",
        "--bind-address=127.0.0.1",
        f"--pid-file={folder / 'pid'}",
    ]
    with serving([server, *where, *listening], lambda: connect().close()):
        with closing(connect()) as connection, connection.cursor() as cursor:
            for statement in (
                "SET sql_mode = ''",
                "CREATE DATABASE shop CHARACTER SET utf8mb4",
                "USE shop",
                *filter(str.strip, MYSQL.split(";\n")),
                "DROP USER IF EXISTS ''@localhost",
                "CREATE USER reader@'%' IDENTIFIED BY 's3cret'",
                "CREATE USER reader@localhost IDENTIFIED BY 's3cret'",
                "GRANT SELECT ON shop.* TO reader@'%'",
                "GRANT SELECT ON shop.* TO reader@localhost",
            ):
                cursor.execute(statement)
        yield f"127.0.0.1:{port}"


@pytest.fixture(scope="module")
def postgres():
    """The address of a PostgreSQL with a database shop and a user reader who may only read it."""
    server, psycopg = program("postgres"), pytest.importorskip("psycopg")
    port, options = free_port(), {"cwd": "/"}

    def connect(database="postgres"):
        return psycopg.connect(host="127.0.0.1", port=port, user="admin", dbname=database, autocommit=True)

    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        if os.getuid() == 0:  # it refuses to run as root
            options["user"] = "nobody"
            shutil.chown(folder, "nobody")
        files = ["-D", f"{folder}/data"]
        create = [program("initdb"), *files, "--username=admin", "--encoding=UTF8", "--auth=trust", "--no-sync"]
        subprocess.run(create, check=True, capture_output=True, **options)
        listening = ["-p", str(port), "-h", "127.0.0.1", "-k", "", "-F"]
        with serving([server, *files, *listening], lambda: connect().close(), **options):
            with connect() as connection:
                connection.execute("CREATE DATABASE shop")
                connection.execute("CREATE ROLE reader LOGIN PASSWORD 's3cret'")
            with connect("shop") as connection:
                connection.execute(POSTGRES)
                for schema in ("public", "other"):
                    connection.execute(f"GRANT USAGE ON SCHEMA {schema} TO reader")
                    connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO reader")
            yield f"127.0.0.1:{port}"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def rows(query: str) -> list[tuple]:
    with closing(sqlite3.connect("copy.sqlite")) as connection:
        return connection.execute(query).fetchall()


def copied(url: str, *options: str) -> int:
    return cli.main(["copy-database", url, "copy.sqlite", *options])


def test_mysql_is_read_with_its_keys_and_types(mysql, capsys):
    assert copied(f"mysql://reader:s3cret@{mysql}/shop") == 0
    told = capsys.readouterr().out
    assert "customers: 2 rows\n" in told and "s3cret" not in told
    assert rows("SELECT * FROM customers ORDER BY name DESC") == [
        ("1", "Ünal", "gold", "b,a", 1, "26:10:00", 1999, 160, b"\x00\xff", '{"k": ["ä"]}', "2025-02-01", None),
        ("18446744073709551615", "B", None, "", 0, "-01:02:03", None, None, None, None, "0000-00-00", 1),
    ]
    assert rows('SELECT "order", "名前" FROM "größe"') == [("s", "小"), ("m", None)]
    assert rows(ORDERS) == [("B", 12.5, "2025-02-01 10:00:00.123456", "m"), ("Ünal", None, None, "s")]
    assert rows("SELECT name, type FROM pragma_table_info('customers') WHERE name IN ('born', 'flags', 'opens')") == [
        ("opens", "TIME"),
        ("born", "INTEGER"),
        ("flags", "INTEGER"),
    ]
    assert rows('SELECT "table", "from", "to" FROM pragma_foreign_key_list(\'orders\') ORDER BY "table"') == [
        ("customers", "customer", "id"),
        ("größe", "size", "id"),
    ]
    assert rows("SELECT name FROM sqlite_master WHERE name IN ('nothing', 'large')") == [("nothing",)]


def test_postgres_is_read_with_its_keys_and_types(postgres, capsys):
    assert copied(f"postgresql://reader:s3cret@{postgres}/shop") == 0
    told = capsys.readouterr().out
    assert "customers: 2 rows\n" in told and "s3cret" not in told
    first, second = (f"00000000-0000-0000-0000-00000000000{digit}" for digit in (1, 2))
    one = (
        first,
        "Ünal",
        "gold",
        '["a", "b"]',
        1,
        "10:11:12",
        "26:10:00",
        b"\x00\xff",
        '{"k": ["ä"]}',
        "10.0.0.1",
        12,
        None,
    )
    two = (second, "B", None, "[]", 0, None, "-01:02:03.500000", None, None, None, None, first)
    assert rows("SELECT * FROM customers ORDER BY id") == [one, two]
    assert rows('SELECT "order", "名前" FROM "größe"') == [("s", "小"), ("m", None)]
    assert rows(ORDERS) == [("B", 12.5, "2025-02-01 10:00:00.123456", "m"), ("Ünal", None, None, "s")]
    assert rows("SELECT name FROM sqlite_master WHERE name IN ('nothing', 'large', 'things')") == [("nothing",)]


def test_another_schema_of_postgres_is_read_where_it_is_named(postgres):
    assert copied(f"postgresql://reader:s3cret@{postgres}/shop", "--schema", "other") == 0
    assert rows("SELECT * FROM things") == [(7,)]


@pytest.mark.parametrize("kind", ["mysql", "postgres"])
def test_a_sample_brings_the_rows_that_it_references(kind, request):
    address, scheme = request.getfixturevalue(kind), {"mysql": "mysql", "postgres": "postgresql"}[kind]
    assert copied(f"{scheme}://reader:s3cret@{address}/shop", "--rows", "1") == 0
    assert rows("SELECT COUNT(*) FROM orders") == [(1,)]
    assert [row[0] for row in rows(ORDERS)] == ["B"]


@pytest.mark.parametrize("kind", ["mysql", "postgres"])
def test_what_a_server_refuses_is_told_without_the_password(kind, request, capsys):
    address, scheme = request.getfixturevalue(kind), {"mysql": "mysql", "postgres": "postgresql"}[kind]
    assert copied(f"{scheme}://reader:s3cret@{address}/shopp") == 2
    told = capsys.readouterr().err
    assert f"{scheme}://reader:***@{address}/shopp cannot be read: " in told
    assert "shopp" in told.split("cannot be read: ")[1]
    assert not Path("copy.sqlite").exists()


def test_nothing_listens_there(capsys):
    pytest.importorskip("pymysql")
    assert copied(f"mysql://reader:s3cret@127.0.0.1:{free_port()}/shop") == 2
    told = capsys.readouterr().err
    assert "refused" in told and "s3cret" not in told
