"""Changes of a parsed gold: mutations, which mean something else, and rewritings, which mean the same."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlglot import expressions as exp

from text2sql.sql import database

# Mutations: each takes a parsed gold and changes one place in it, or returns None where there is none


def _one(tree: exp.Expression, rng: random.Random, *kinds: type[exp.Expression]) -> Any:
    found = list(tree.find_all(*kinds))
    return rng.choice(found) if found else None


def drop_condition(tree: Any, rng: random.Random) -> Any:
    where = _one(tree, rng, exp.Where, exp.Having)
    if where is None:
        return None
    if isinstance(where.this, (exp.And, exp.Or)):
        where.this.replace(rng.choice([where.this.this, where.this.expression]))
    else:
        where.pop()
    return tree


def swap_aggregate(tree: Any, rng: random.Random) -> Any:
    swaps = {exp.Max: exp.Min, exp.Min: exp.Max, exp.Avg: exp.Sum, exp.Sum: exp.Avg}
    node = _one(tree, rng, *swaps)
    if node is None:
        return None
    other = swaps[type(node)](this=node.this.copy())
    if node is tree:
        return other
    node.replace(other)
    return tree


def drop_distinct(tree: Any, rng: random.Random) -> Any:
    node = _one(tree, rng, exp.Distinct)
    if node is None:
        return None
    if isinstance(node.parent, exp.Select):
        node.pop()
    else:
        node.replace(node.expressions[0])
    return tree


def add_distinct(tree: Any, rng: random.Random) -> Any:
    """Of no use to results that have one row, or one for each group."""
    if not isinstance(tree, exp.Select) or any(tree.args.get(name) for name in ("distinct", "group", "limit")):
        return None
    if any(isinstance(item.unalias(), exp.AggFunc) for item in tree.selects):
        return None
    tree.set("distinct", exp.Distinct())
    return tree


def move_boundary(tree: Any, rng: random.Random) -> Any:
    swaps = {exp.GT: exp.GTE, exp.GTE: exp.GT, exp.LT: exp.LTE, exp.LTE: exp.LT}
    node = _one(tree, rng, *swaps)
    if node is None:
        return None
    node.replace(swaps[type(node)](this=node.this.copy(), expression=node.expression.copy()))
    return tree


def flip_order(tree: Any, rng: random.Random) -> Any:
    node = _one(tree, rng, exp.Ordered)
    if node is None:
        return None
    node.set("desc", not node.args.get("desc"))
    node.set("nulls_first", None)
    return tree


def change_join(tree: Any, rng: random.Random) -> Any:
    node = _one(tree, rng, exp.Join)
    if node is None or not node.args.get("on"):
        return None
    node.set("side", None if node.args.get("side") else "LEFT")
    return tree


def change_limit(tree: Any, rng: random.Random) -> Any:
    node = _one(tree, rng, exp.Limit)
    if node is None:
        return None
    node.set("expression", exp.Literal.number(int(node.expression.name) + 1))
    return tree


def drop_join_key(tree: Any, rng: random.Random) -> Any:
    node = _one(tree, rng, exp.Join)
    if node is None or not node.args.get("on"):
        return None
    node.set("on", None)
    return tree


def drop_join(tree: Any, rng: random.Random) -> Any:
    """Of no use where the other table is named elsewhere: that does not run and so is no match."""
    node = _one(tree, rng, exp.Join)
    if node is None:
        return None
    node.pop()
    return tree


def change_count(tree: Any, rng: random.Random, columns: Columns) -> Any:
    node = _one(tree, rng, exp.Count)
    if node is None:
        return None
    if isinstance(node.this, exp.Distinct):
        node.set("this", node.this.expressions[0])
    elif isinstance(node.this, exp.Star):
        other = columns.any_of(node, rng)
        if other is None:
            return None
        node.set("this", exp.Distinct(expressions=[other]))
    else:
        node.set("this", exp.Distinct(expressions=[node.this.copy()]))
    return tree


def swap_column(tree: Any, rng: random.Random, columns: Columns) -> Any:
    node = _one(tree, rng, exp.Column)
    other = columns.beside(node, rng) if node is not None else None
    if other is None:
        return None
    node.set("this", exp.to_identifier(other, quoted=not other.isidentifier()))
    return tree


class Columns:
    """The columns of a database, to put one in another's place."""

    def __init__(self, path: Path) -> None:
        connection = database.open_readonly(str(path))
        self._tables = [[column.name for column in table.columns] for table in database.read_schema(connection).tables]
        self._names = {
            table.name.lower(): [c.name for c in table.columns] for table in database.read_schema(connection).tables
        }
        connection.close()

    def beside(self, node: exp.Column, rng: random.Random) -> str | None:
        """Another column of a table that has this one."""
        found = [names for names in self._tables if node.name.lower() in map(str.lower, names)]
        others = [name for names in found[:1] for name in names if name.lower() != node.name.lower()]
        return rng.choice(others) if others else None

    def any_of(self, node: exp.Expression, rng: random.Random) -> exp.Column | None:
        """Some column of some table in the SELECT around a node."""
        tables = [table for table in node.parent_select.find_all(exp.Table) if table.name.lower() in self._names]
        if not tables:
            return None
        table = rng.choice(tables)
        name = rng.choice(self._names[table.name.lower()])
        return exp.column(exp.to_identifier(name, quoted=not name.isidentifier()), table=table.alias_or_name)


MUTATIONS: list[Callable[..., Any]] = [
    drop_condition, swap_aggregate, drop_distinct, add_distinct, move_boundary, flip_order, change_join, change_limit,
    drop_join_key, drop_join,
]  # fmt: skip
WITH_COLUMNS: list[Callable[..., Any]] = [change_count, swap_column]


# Rewritings that keep the meaning


def other_aliases(tree: Any) -> Any:
    names: dict[str, str] = {}
    for table in tree.find_all(exp.Table):
        if table.alias:
            names.setdefault(table.alias.lower(), f"q{len(names)}")
            table.set("alias", exp.TableAlias(this=exp.to_identifier(names[table.alias.lower()])))
    for column in tree.find_all(exp.Column):
        if column.table.lower() in names:
            column.set("table", exp.to_identifier(names[column.table.lower()]))
    return tree if names else None


def commuted_conditions(tree: Any) -> Any:
    found = list(tree.find_all(exp.And, exp.Or))
    for node in found:
        left, right = node.this.copy(), node.expression.copy()
        node.set("this", right if not isinstance(right, exp.Or) else exp.paren(right))
        node.set("expression", left if not isinstance(left, exp.Connector) else exp.paren(left))
    return tree if found else None


def turned_comparisons(tree: Any) -> Any:
    turned = {exp.GT: exp.LT, exp.LT: exp.GT, exp.GTE: exp.LTE, exp.LTE: exp.GTE, exp.EQ: exp.EQ, exp.NEQ: exp.NEQ}
    found = [node for node in tree.find_all(*turned) if not node.find(exp.Select)]
    for node in found:
        node.replace(turned[type(node)](this=node.expression.copy(), expression=node.this.copy()))
    return tree if found else None


def added_brackets(tree: Any) -> Any:
    found = [node for node in tree.find_all(exp.EQ, exp.NEQ, exp.GT, exp.LT, exp.Like) if not node.find(exp.Select)]
    for node in found:
        node.replace(exp.paren(node.copy()))
    return tree if found else None


def joins_turned(tree: Any) -> Any:
    """FROM a JOIN b ON x becomes FROM b JOIN a WHERE x, for inner joins."""
    changed = False
    for select in tree.find_all(exp.Select):
        joins, start = select.args.get("joins") or [], select.find(exp.From)
        if (
            not joins
            or any(join.args.get("side") or join.args.get("using") for join in joins)
            or not isinstance(start.this, exp.Table)
        ):
            continue
        on = [join.args["on"].copy() for join in joins if join.args.get("on")]
        tables = [start.this.copy(), *(join.this.copy() for join in joins)][::-1]
        start.set("this", tables[0])
        select.set("joins", [exp.Join(this=table) for table in tables[1:]])
        select.where(*on, copy=False)
        changed = True
    return tree if changed else None


def in_or_equal(tree: Any) -> Any:
    changed = False
    for node in list(tree.find_all(exp.In)):
        if node.expressions:
            node.replace(
                exp.paren(
                    exp.or_(*(exp.EQ(this=node.this.copy(), expression=value.copy()) for value in node.expressions))
                )
            )
            changed = True
    for node in list(tree.find_all(exp.Or)):
        sides = (node.this, node.expression)
        if all(isinstance(side, exp.EQ) for side in sides) and sides[0].this == sides[1].this:
            node.replace(exp.In(this=sides[0].this.copy(), expressions=[side.expression.copy() for side in sides]))
            changed = True
    return tree if changed else None


def between_or_two(tree: Any) -> Any:
    found = list(tree.find_all(exp.Between))
    for node in found:
        low = exp.GTE(this=node.this.copy(), expression=node.args["low"].copy())
        high = exp.LTE(this=node.this.copy(), expression=node.args["high"].copy())
        node.replace(exp.paren(exp.and_(low, high)))
    return tree if found else None


def counted_ones(tree: Any) -> Any:
    found = [node for node in tree.find_all(exp.Count) if isinstance(node.this, exp.Star)]
    for node in found:
        node.set("this", exp.Literal.number(1))
    return tree if found else None


def denied_opposites(tree: Any) -> Any:
    opposite = {exp.GT: exp.LTE, exp.LT: exp.GTE, exp.GTE: exp.LT, exp.LTE: exp.GT}
    found = [node for node in tree.find_all(*opposite) if not node.find(exp.Select)]
    for node in found:
        other = opposite[type(node)](this=node.this.copy(), expression=node.expression.copy())
        node.replace(exp.paren(exp.not_(exp.paren(other))))
    return tree if found else None


def added_tie_breaks(tree: Any) -> Any:
    """ORDER BY a becomes ORDER BY a, b: what the gold leaves open is settled in one of the ways that it allows."""
    changed = False
    for order in tree.find_all(exp.Order):
        select = order.parent
        last = select.selects[-1].unalias() if isinstance(select, exp.Select) else None
        if isinstance(last, exp.Column) and not select.args.get("distinct"):
            order.append("expressions", exp.Ordered(this=last.copy(), desc=True))
            changed = True
    return tree if changed else None


def grouped_by_partner(tree: Any) -> Any:
    """GROUP BY a.x becomes GROUP BY b.y where an inner join makes the two equal."""
    changed = False
    for select in tree.find_all(exp.Select):
        joins = [join for join in select.args.get("joins") or [] if not join.args.get("side")]
        pairs = [pair for join in joins if join.args.get("on") for pair in join.args["on"].find_all(exp.EQ)]
        other = {pair.this: pair.expression for pair in pairs} | {pair.expression: pair.this for pair in pairs}
        group = select.args.get("group")
        if group and len(pairs) == len(joins) and any(key in other for key in group.expressions):
            group.set("expressions", [other.get(key, key).copy() for key in group.expressions])
            changed = True
    return tree if changed else None


REWRITINGS: list[Callable[[Any], Any]] = [
    other_aliases, commuted_conditions, turned_comparisons, added_brackets, joins_turned, in_or_equal, between_or_two,
    counted_ones, denied_opposites, added_tie_breaks, grouped_by_partner,
]  # fmt: skip
