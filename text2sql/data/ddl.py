"""Reads a Schema from CREATE TABLE text of any SQL dialect, for scripts that SQLite cannot run."""

from __future__ import annotations

from collections.abc import Iterable

import sqlglot
from sqlglot import exp

from text2sql.example import Column, ForeignKey, Schema, Table

DIALECTS = (None, "mysql", "postgres", "tsql", "oracle")


def parse_schema(script: str) -> Schema:
    """The tables of `script` under the first dialect that parses it; raises ValueError when none does."""
    for dialect in DIALECTS:
        try:
            statements = sqlglot.parse(script, read=dialect)
        except sqlglot.errors.SqlglotError:
            continue
        creates = [tree for tree in statements if isinstance(tree, exp.Create) and isinstance(tree.this, exp.Schema)]
        return Schema(tuple(_table(tree.this) for tree in creates if tree.kind == "TABLE"))
    raise ValueError("the script parses in no known SQL dialect")


def _table(tree: exp.Schema) -> Table:
    primary = {column.name for key in tree.find_all(exp.PrimaryKey) for column in key.expressions}
    definitions = [node for node in tree.expressions if isinstance(node, exp.ColumnDef)]
    columns = tuple(
        Column(node.name, node.kind.sql() if node.kind else "", node.name in primary or _is_primary(node))
        for node in definitions
    )
    return Table(tree.this.name, columns, tuple(_foreign_keys(tree, definitions)))


def _is_primary(definition: exp.ColumnDef) -> bool:
    return definition.find(exp.PrimaryKeyColumnConstraint) is not None


def _foreign_keys(tree: exp.Schema, definitions: list[exp.ColumnDef]) -> Iterable[ForeignKey]:
    for definition in definitions:
        for reference in definition.find_all(exp.Reference):
            yield from _foreign_key((definition.name,), reference)
    for key in tree.find_all(exp.ForeignKey):
        yield from _foreign_key(tuple(column.name for column in key.expressions), key.args.get("reference"))


def _foreign_key(columns: tuple[str, ...], reference: exp.Expression | None) -> Iterable[ForeignKey]:
    """One key, or none where the referenced columns are not written out."""
    target = reference.this if reference is not None else None
    if isinstance(target, exp.Schema) and len(target.expressions) == len(columns):
        yield ForeignKey(columns, target.this.name, tuple(column.name for column in target.expressions))
