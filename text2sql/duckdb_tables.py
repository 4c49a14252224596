"""The tables of a DuckDB database as SQLAlchemy objects, read from DuckDB's own catalogue.

duckdb_engine (0.17) describes itself as PostgreSQL, and SQLAlchemy then asks for catalogue tables that DuckDB has not.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy
from sqlalchemy import types

TYPES = {
    "BOOLEAN": types.Boolean,
    "DATE": types.Date,
    "TIMESTAMP": types.DateTime,
    "TIME": types.Time,
    "BLOB": types.LargeBinary,
    "DECIMAL": types.Numeric,
    "DOUBLE": types.Float,
    "FLOAT": types.Float,
}


def names(source: Any, schema: str | None) -> list[str]:
    """The names of the base tables in `schema`, by default the connection's own."""
    query = "SELECT table_name FROM duckdb_tables() WHERE schema_name = coalesce(:schema, current_schema()) AND NOT internal"
    return [name for (name,) in source.execute(sqlalchemy.text(query), {"schema": schema})]


def reflect(source: Any, metadata: sqlalchemy.MetaData, wanted: set[str]) -> None:
    """Put the `wanted` tables into `metadata`, with types, primary keys and the foreign keys between them."""
    where = "WHERE schema_name = coalesce(:schema, current_schema())"
    columns = (
        f"SELECT table_name, column_name, data_type FROM duckdb_columns() {where} ORDER BY table_oid, column_index"
    )
    keys = (
        "SELECT table_name, constraint_type, constraint_column_names, referenced_table, referenced_column_names "
        f"FROM duckdb_constraints() {where} AND constraint_type IN ('PRIMARY KEY', 'FOREIGN KEY')"
    )
    parts: dict[str, list[Any]] = {}
    for table, name, kind in source.execute(sqlalchemy.text(columns), {"schema": metadata.schema}):
        parts.setdefault(table, []).append(sqlalchemy.Column(name, _type(kind)))
    for table, kind, own, target, theirs in source.execute(sqlalchemy.text(keys), {"schema": metadata.schema}):
        if kind == "PRIMARY KEY":
            parts[table].append(sqlalchemy.PrimaryKeyConstraint(*own))
        elif target in wanted:
            place = f"{metadata.schema}.{target}" if metadata.schema else target
            parts[table].append(sqlalchemy.ForeignKeyConstraint(own, [f"{place}.{column}" for column in theirs]))
    for table in parts:
        if table in wanted:
            sqlalchemy.Table(table, metadata, *parts[table])


def _type(declared: str) -> Any:
    name = declared.upper().split("(")[0].split(" ")[0]
    if declared.endswith("[]"):
        return types.NullType()
    if name.endswith("INT") or name in ("INTEGER", "HUGEINT"):
        return types.Integer()
    return TYPES.get(name, types.NullType)()
