"""Rewrite a query so that every column says which table it is of: `singer.name` in place of `name` or `T1.name`."""

from __future__ import annotations

from collections import Counter

from sqlglot import expressions as exp
from sqlglot.dialects.sqlite import SQLite

from text2sql.example import Schema
from text2sql.sql import identifiers, names


def qualified(sql: str, schema: Schema) -> str:
    """The same query in one form: columns qualified by table, no table aliases, names in lower case.

    Where a table stands twice in one FROM, or an inner query reads a table that the outer one reads as well and looks out at
    it, its aliases stay. Strings are in single quotes, keywords in capitals. A query that cannot be read, or whose names are
    not all in `schema`, comes back as it is. (Without T1 and T2 a small model need not decide at the first column which
    table will have which alias; Li et al. 2023, RESDSQL, write their targets so.)
    """
    try:
        reading = names.read(sql, schema)
    except ValueError:
        return sql
    if not schema.tables or any(not name.is_text for name in reading.unknown):
        return sql
    catalog = names.catalog(schema)
    kept = _aliases_to_keep(reading)
    for select in list(reading.tree.find_all(exp.Select)):
        scope = reading.scopes[id(select)]
        plain = {source.name: source.label for source in scope.sources if source.label in catalog.tables}
        for column in _own_columns(select):
            found = reading.names.get(id(column))
            if isinstance(found, exp.Literal):
                column.replace(exp.Literal.string(column.name))
            elif isinstance(found, str) and not isinstance(column.this, exp.Star):
                _rename(column, found, scope, catalog, kept)
            elif isinstance(column.this, exp.Star) and plain.get(column.table.lower()) not in (None, *kept):
                column.set("table", _identifier(catalog.tables[plain[column.table.lower()]].name))
    for table in reading.tree.find_all(exp.Table):
        known = catalog.tables.get(table.name.lower())
        if known is not None and isinstance(table.this, exp.Identifier) and not _is_cte(table):
            table.set("this", _identifier(known.name))
            if known.name.lower() not in kept:
                table.set("alias", None)
    return _Writer(normalize_functions="lower", comments=False).generate(reading.tree)


class _Writer(SQLite().generator_class):  # type: ignore[misc]
    """SQL as the data sets have it, where sqlglot writes the same otherwise: NOT IN, !=, JOIN without ON."""

    def not_sql(self, expression: exp.Not) -> str:
        inner = expression.this
        if isinstance(inner, (exp.In, exp.Like, exp.Between)):
            left = self.sql(inner, "this")
            return f"{left} NOT{self.sql(inner)[len(left) :]}"
        if isinstance(inner, exp.Is):
            return f"{self.sql(inner, 'this')} IS NOT {self.sql(inner, 'expression')}"
        return str(super().not_sql(expression))

    def neq_sql(self, expression: exp.NEQ) -> str:
        return str(self.binary(expression, "!="))

    def join_sql(self, expression: exp.Join) -> str:
        if isinstance(expression.args.get("on"), exp.Boolean):  # sqlglot adds ON TRUE to a join that has none
            return f" JOIN {self.sql(expression, 'this')}"
        return str(super().join_sql(expression))


def _aliases_to_keep(reading: names.Reading) -> set[str]:
    """The tables (in lower case) that one SELECT reads twice, or that are read both inside and outside of one another."""
    kept: set[str] = set()
    for scope in reading.scopes.values():
        counts = Counter(source.label.split("#")[0] for source in scope.sources)
        kept |= {label for label, count in counts.items() if count > 1}
        outer = scope.outer
        while outer is not None:
            kept |= set(counts) & {source.label.split("#")[0] for source in outer.sources}
            outer = outer.outer
    outward = any(isinstance(found, str) and found.startswith("^") for found in reading.names.values())
    repeated = {
        label
        for scope in reading.scopes.values()
        for label in Counter(source.label.split("#")[0] for source in scope.sources if "#" in source.label)
    }
    return kept if outward else repeated


def _own_columns(select: exp.Select) -> list[exp.Column]:
    return [column for column in select.find_all(exp.Column) if column.parent_select is select]


def _rename(column: exp.Column, found: str, scope: names.Scope, catalog: names.Catalog, kept: set[str]) -> None:
    depth = len(found) - len(found.lstrip("^"))
    label, _, name = found.lstrip("^").rpartition(".")
    spelt = catalog.columns.get(label, {}).get(name)
    if label in kept or "#" in label:
        return
    if spelt is None or label not in catalog.tables:
        return
    around: names.Scope | None = scope
    for _ in range(depth):
        assert around is not None
        around = around.outer
    assert around is not None
    if name in around.merged:
        return
    column.set("this", _identifier(spelt))
    column.set("table", _identifier(catalog.tables[label].name))


def _identifier(name: str) -> exp.Identifier:
    return exp.to_identifier(identifiers.lower(name), quoted=not identifiers.is_bare(name))


def _is_cte(table: exp.Table) -> bool:
    select: exp.Expr | None = table
    while select is not None:
        definition = select.args.get("with_")
        if definition is not None and any(cte.alias.lower() == table.name.lower() for cte in definition.expressions):
            return True
        select = select.parent
    return False
