"""Grade a query easy, medium, hard or extra, by the rules published with Spider (Yu et al. 2018), from its text.

Three counts decide. Clauses: WHERE, GROUP BY, ORDER BY, LIMIT, each JOIN, each OR, each LIKE. Nesting: each subquery
in a condition, and a set operation. Others, at most one each: more than one aggregate, selected column, condition in
WHERE, and grouped column. Only the first SELECT of a set operation is counted, and subqueries only as one each.

Two oddities of the released evaluator are kept, as the released numbers rest on them: a negated condition counts as an
aggregate, and so does each AND or OR in HAVING, while the aggregates in HAVING do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import sqlglot
from sqlglot import expressions as exp

LEVELS = ("easy", "medium", "hard", "extra")

_AGGREGATES = (exp.Max, exp.Min, exp.Count, exp.Sum, exp.Avg)


class _Condition(NamedTuple):
    node: exp.Expression
    negated: bool


def hardness(sql: str) -> str:
    """One of LEVELS. Raises ValueError for text that sqlglot cannot parse as a query."""
    select, num_set_operations = _first_select(sql)
    where = list(_conditions(select.args.get("where")))
    having = list(_conditions(select.args.get("having")))
    on = [condition for join in _joins(select) for condition in _conditions(join.args.get("on"))]
    clauses = _clauses(select, where + having + on)
    nested = num_set_operations + sum(_num_subqueries(condition.node) for condition in where + having + on)
    return _level(clauses, nested, _others(select, where, having))


def _level(clauses: int, nested: int, others: int) -> str:
    if nested == 0:
        if clauses <= 1 and others == 0:
            return "easy"
        if (clauses <= 1 and others <= 2) or (clauses <= 2 and others < 2):
            return "medium"
        if (clauses <= 2 and others > 2) or (2 < clauses <= 3 and others <= 2):
            return "hard"
    elif nested == 1 and clauses <= 1 and others == 0:
        return "hard"
    return "extra"


def _first_select(sql: str) -> tuple[exp.Select, int]:
    """The leftmost SELECT, and 1 if it is in a set operation: the rules see A UNION (B UNION C) and count one level."""
    try:
        tree = sqlglot.parse_one(sql, read="sqlite")
    except sqlglot.errors.SqlglotError as error:
        raise ValueError(f"cannot grade SQL that does not parse: {sql!r}") from error
    num_set_operations = 0
    while isinstance(tree, (exp.SetOperation, exp.Subquery)):
        num_set_operations = max(num_set_operations, int(isinstance(tree, exp.SetOperation)))
        tree = tree.this
    if isinstance(tree, exp.Select):
        return tree, num_set_operations
    raise ValueError(f"cannot grade what has no SELECT: {sql!r}")


def _joins(select: exp.Select) -> list[exp.Join]:
    return select.args.get("joins") or []


def _conditions(node: exp.Expression | None, negated: bool = False) -> Iterator[_Condition]:
    """The conditions that AND, OR, NOT and brackets are put around."""
    if isinstance(node, (exp.Where, exp.Having, exp.Paren)):
        yield from _conditions(node.this, negated)
    elif isinstance(node, exp.Not):
        yield from _conditions(node.this, True)
    elif isinstance(node, exp.Connector):
        yield from _conditions(node.left, negated)
        yield from _conditions(node.right, negated)
    elif node is not None:
        yield _Condition(node, negated)


def _num_ors(node: exp.Expression | None) -> int:
    if node is None:
        return 0
    return sum(isinstance(inner, exp.Or) for inner in node.walk(prune=lambda inner: isinstance(inner, exp.Query)))


def _num_subqueries(node: exp.Expression) -> int:
    return sum(isinstance(inner, exp.Query) for inner in node.walk(prune=lambda inner: isinstance(inner, exp.Query)))


def _num_aggregates(node: exp.Expression) -> int:
    return sum(isinstance(inner, _AGGREGATES) for inner in node.walk(prune=lambda inner: isinstance(inner, exp.Query)))


def _clauses(select: exp.Select, conditions: list[_Condition]) -> int:
    joins = _joins(select)
    present = sum(select.args.get(clause) is not None for clause in ("where", "group", "order", "limit"))
    ors = sum(_num_ors(node) for node in [select.args.get("where"), select.args.get("having"), *joins])
    likes = sum(isinstance(condition.node, exp.Like) for condition in conditions)
    return present + len(joins) + ors + likes


def _others(select: exp.Select, where: list[_Condition], having: list[_Condition]) -> int:
    group, order = select.args.get("group"), select.args.get("order")
    aggregates = sum(_num_aggregates(item) > 0 for item in select.expressions)
    aggregates += _num_aggregates(order) if order else 0
    aggregates += sum(condition.negated for condition in where + having)
    aggregates += max(0, len(having) - 1)
    num_grouped = len(group.expressions) if group else 0
    return sum(count > 1 for count in (aggregates, len(select.expressions), len(where), num_grouped))
