"""The skeleton of a query: what is left of it when its values are taken out, the same for queries that differ in them alone."""

from __future__ import annotations

import re

import sqlglot
from sqlglot import expressions as exp

_VALUE = re.compile(r"'(?:[^']|'')*'|\b\d+(?:\.\d+)?\b")


def skeleton(sql: str) -> str:
    """`sql` as sqlglot writes it, in lower case, every literal a `?`, a list of them one, and table aliases by number.

    Spaces, comments, quotes and the spelling of keywords play no part. Text that sqlglot does not parse is only lower-cased.
    """
    try:
        tree = sqlglot.parse_one(sql, read="sqlite")
    except (sqlglot.errors.SqlglotError, RecursionError):
        return " ".join(_VALUE.sub("?", sql).lower().split())
    aliases = {node.name.lower(): f"t{n}" for n, node in enumerate(_aliases(tree), 1)}
    return _normal(tree, aliases).sql(dialect="sqlite", comments=False)


def _aliases(tree: exp.Expr) -> list[exp.Expr]:
    found = {node.name.lower(): node for node in tree.find_all(exp.TableAlias) if isinstance(node.parent, exp.Table)}
    return list(found.values())


def _normal(tree: exp.Expr, aliases: dict[str, str]) -> exp.Expr:
    """`tree` with its values and names replaced."""
    for node in list(tree.find_all(exp.Literal, exp.Boolean)):
        node.replace(exp.Placeholder())
    for node in list(tree.find_all(exp.In)):
        if node.expressions and all(isinstance(one, (exp.Placeholder, exp.Neg)) for one in node.expressions):
            node.set("expressions", [exp.Placeholder()])
    for node in list(tree.find_all(exp.Neg)):
        if isinstance(node.this, exp.Placeholder):
            node.replace(exp.Placeholder())
    for node in list(tree.find_all(exp.Identifier)):
        name = node.name.lower()
        of_table = isinstance(node.parent, exp.TableAlias) or node.arg_key == "table"
        node.set("this", aliases.get(name, name) if of_table else name)
        node.set("quoted", False)
    return tree
