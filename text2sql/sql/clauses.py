"""Compare the clauses of two queries in a normal form, and say which differ.

Aliases are the tables they stand for, case and the order of AND, OR, = and JOIN do not count, BETWEEN is two comparisons,
IN a list is an OR, a quoted number is a number, an equi-join in WHERE is a join, and columns that the gold's joins make
equal are one. A difference told here is one of form: the first of several need not be what made a result wrong.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from sqlglot import expressions as exp

from text2sql.example import Schema
from text2sql.sql import names
from text2sql.sql.forms import Form, View, built, parts, readable
from text2sql.sql.names import INVENTED, Reading

CACHED_GOLDS = 1_024

AGGREGATE = re.compile(r"\b(?:count|sum|avg|min|max|total|group_?concat)\((?:distinct)?")


class Finding(NamedTuple):
    kind: str
    detail: str


class Pair(NamedTuple):
    gold: Reading
    predicted: Reading
    schema: Schema


_read_gold = lru_cache(maxsize=CACHED_GOLDS)(names.read)


def compare(gold: str, predicted: Reading, schema: Schema) -> list[Finding]:
    """What the prediction does otherwise than the gold, the most telling first; nothing if they are one in form."""
    try:
        pair = Pair(_read_gold(gold, schema), predicted, schema)
    except ValueError as error:
        return [Finding("unclassified", f"the gold cannot be read: {error}")]
    try:
        return _queries(pair.gold.tree, predicted.tree, pair)
    except RecursionError:
        return [Finding("unparsable", "nested too deeply")]


def _queries(gold: exp.Expr, predicted: exp.Expr, pair: Pair) -> list[Finding]:
    gold, predicted = names.unwrapped(gold), names.unwrapped(predicted)
    if isinstance(gold, exp.Select) and isinstance(predicted, exp.Select):
        return _selects(gold, predicted, pair)
    operations = [_operation(gold), _operation(predicted)]
    if operations[0] != operations[1]:
        return [Finding("wrong_set_operation", f"{operations[1]} instead of {operations[0]}")]
    if isinstance(gold, exp.SetOperation) and isinstance(predicted, exp.SetOperation):
        views = [View(reading, {}, ()) for reading in (pair.gold, pair.predicted)]
        return _sides(gold, predicted, pair) + _tail(gold, predicted, *views)
    return []


def _operation(node: exp.Expr) -> str:
    if not isinstance(node, exp.SetOperation):
        return "no set operation"
    return node.key.upper() + ("" if node.args.get("distinct") else " ALL")


def _sides(gold: exp.SetOperation, predicted: exp.SetOperation, pair: Pair) -> list[Finding]:
    """What differs between the two sides of a set operation, paired the better way where they may change places."""
    straight = _queries(gold.left, predicted.left, pair) + _queries(gold.right, predicted.right, pair)
    if not straight or isinstance(gold, exp.Except):
        return straight
    crossed = _queries(gold.left, predicted.right, pair) + _queries(gold.right, predicted.left, pair)
    return min(straight, crossed, key=len)


def _selects(gold: exp.Select, predicted: exp.Select, pair: Pair) -> list[Finding]:
    joined = [Joined(gold, pair.gold), Joined(predicted, pair.predicted)]
    same = _equal_columns(joined[0].pairs)
    keys = frozenset() if any(each.outer for each in joined) else names.primary_keys(pair.schema)
    views = [View(pair.gold, same, keys), View(pair.predicted, {**_intended(pair, same), **same}, keys)]
    here, there = (Block(*each) for each in zip((gold, predicted), joined, views))
    nesting = _nesting(here, there, pair)
    return [
        *nesting,
        *_tables(here, there),
        *_projection(here, there),
        *_distinct(here, there),
        *_filters(here, there, with_subqueries=all(finding.kind != "wrong_nesting" for finding in nesting)),
        *_clause("wrong_grouping", "group by", here.grouping, there.grouping),
        *_clause("wrong_having", "keep groups where", here.having, there.having),
        *_tail(gold, predicted, *views),
    ]


class Joined:
    """What a SELECT joins: its tables, the pairs of columns it makes equal, and what is left of ON and WHERE."""

    def __init__(self, select: exp.Select, reading: Reading) -> None:
        scope = reading.scopes[id(select)]
        self.sources = scope.sources
        self.derived = scope.derived
        self.outer = sorted(join.side.upper() for join in scope.joins if join.side)
        self.pairs: list[tuple[str, ...]] = list(scope.using)
        self.conditions: list[exp.Expr] = []
        self.exists = True  # whether all the columns that ON makes equal exist
        labels = {source.label for source in scope.sources}
        on = [part for join in scope.joins for part in parts(join.args.get("on"), exp.And)]
        where = list(parts(select.args.get("where"), exp.And))
        for condition, is_on in [*((part, True) for part in on), *((part, False) for part in where)]:
            pair = _equality(condition, reading)
            tables = {column.rpartition(".")[0] for column in pair}
            if len(tables) == 2 and tables <= labels:
                self.pairs.append(pair)
            elif is_on and any(column.startswith(INVENTED) for column in pair):
                self.exists = False
            else:
                self.conditions.append(condition)


def _equality(condition: exp.Expr, reading: Reading) -> tuple[str, ...]:
    """The two columns that a condition makes equal, or nothing."""
    if not isinstance(condition, exp.EQ):
        return ()
    sides = [reading.names.get(id(side)) for side in (condition.left, condition.right)]
    columns = tuple(side for side in sides if isinstance(side, str))
    return columns if len(columns) == 2 else ()


def _equal_columns(pairs: Iterable[tuple[str, ...]]) -> dict[str, str]:
    """For each column that the pairs connect with others, one that stands for them all."""
    groups: dict[str, set[str]] = {}
    for left, right in pairs:
        merged = groups.get(left, {left}) | groups.get(right, {right})
        groups.update(dict.fromkeys(merged, merged))
    return {column: min(group) for column, group in groups.items()}


def _intended(pair: Pair, same: Mapping[str, str]) -> dict[str, str]:
    """What columns of the prediction most likely mean, given those of the gold.

    A column that does not exist where it is read from means the gold's of that name. One that the gold does not use, but
    that is tied by a foreign key to exactly one that it does, means that one: the values are the same, and that it comes
    from another table is told once, as a wrong join.
    """
    used = {column for column in pair.gold.names.values() if isinstance(column, str)}
    meant = {INVENTED + column.rpartition(".")[2]: same.get(column, column) for column in sorted(used)}
    partners = names.foreign_partners(pair.schema)
    for column in {end for start in used for end in partners.get(start, ())} - used:
        tied = {same.get(end, end) for end in partners[column] & used}
        if len(tied) == 1:
            meant[column] = tied.pop()
    return meant


class Block:
    """One SELECT without what it joins, in normal form."""

    def __init__(self, select: exp.Select, joined: Joined, view: View) -> None:
        self.joined = joined
        self.tables = Counter(source.label for source in joined.sources if not source.label.startswith("(subquery)"))
        self.projection = [form for item in select.expressions for form in _selected(item, joined, view)]
        self.distinct = select.args.get("distinct") is not None
        self.filters = _conditions(joined.conditions, view)
        self.grouping = view.forms(_referred(select.args.get("group"), select))
        self.having = _conditions(parts(select.args.get("having"), exp.And), view)
        self.subqueries = list(_subqueries([*select.expressions, *joined.conditions, select.args.get("having")]))
        # GROUP BY all that is selected, with nothing aggregated, is a DISTINCT.
        if self.grouping and set(self.grouping) == set(self.projection) and not any(select.find_all(exp.AggFunc)):
            self.distinct, self.grouping = True, []


def _conditions(nodes: Iterable[exp.Expr], view: View) -> list[Form]:
    return [form for node in nodes for form in view.conjuncts(node)]


def _selected(item: exp.Expr, joined: Joined, view: View) -> list[Form]:
    """The form of an item of the select list, or those of the columns that its * stands for."""
    if not (isinstance(item, exp.Star) or (isinstance(item, exp.Column) and isinstance(item.this, exp.Star))):
        return [view.form(item)]
    table = item.table.lower() if isinstance(item, exp.Column) else ""
    sources = [source for source in joined.sources if table in ("", source.name)]
    columns = [f"{source.label}.{column}" for source in sources for column in source.columns or ("*",)]
    return [view.named(column) for column in columns]


def _referred(clause: exp.Expr | None, query: exp.Query) -> list[exp.Expr]:
    """The terms of GROUP BY or ORDER BY; numbers are the items of the select list that they refer to."""
    terms = clause.expressions if clause else []
    items = query.selects
    nodes = [term.this if isinstance(term, exp.Ordered) else term for term in terms]
    return [items[int(node.name) - 1] if node.is_int and 0 < int(node.name) <= len(items) else node for node in nodes]


def _subqueries(nodes: Iterable[exp.Expr | None]) -> Iterator[exp.Expr]:
    for node in nodes:
        for inner in node.dfs(prune=lambda inner: isinstance(inner, exp.Query)) if node else ():
            if isinstance(inner, exp.Query):
                yield inner


def _nesting(gold: Block, predicted: Block, pair: Pair) -> list[Finding]:
    """Subqueries that only one side has, and what differs between those of both, each paired with the one most like it."""
    findings = []
    places = (
        ("FROM", gold.joined.derived, predicted.joined.derived),
        ("conditions", gold.subqueries, predicted.subqueries),
    )
    for place, golds, others in places:
        if len(golds) != len(others):
            numbers = f"{len(others)} instead of {len(golds)}"
            findings.append(Finding("wrong_nesting", f"number of subqueries in {place}: {numbers}"))
            continue
        free = list(others)
        for query in golds:
            compared = [(_queries(query, other, pair), index) for index, other in enumerate(free)]
            inner, index = min(compared, key=lambda each: len(each[0]))
            del free[index]
            findings += [Finding(finding.kind, f"in a subquery: {finding.detail}") for finding in inner]
    return findings


def _tables(gold: Block, predicted: Block) -> list[Finding]:
    missing, extra = list(gold.tables - predicted.tables), list(predicted.tables - gold.tables)
    if any(label.startswith(INVENTED) for label in extra):
        return []
    said = [names.listed(map(readable, labels)) for labels in (missing, extra)]
    if missing and extra:
        return [Finding("wrong_join", f"reads {said[1]} instead of {said[0]}")]
    if missing:
        return [Finding("missing_join", f"does not join {said[0]}")]
    if extra:
        return [Finding("extra_join", f"joins {said[1]} as well")]
    if gold.joined.outer != predicted.joined.outer:
        outer = [" ".join(block.joined.outer) or "no outer" for block in (predicted, gold)]
        return [Finding("wrong_join", f"{outer[0]} join instead of {outer[1]}")]
    if predicted.joined.exists and _equal_columns(gold.joined.pairs) != _equal_columns(predicted.joined.pairs):
        keys = [
            names.listed(readable(" = ".join(sorted(each))) for each in block.joined.pairs)
            for block in (predicted, gold)
        ]
        return [Finding("wrong_join", f"joins on {keys[0] or 'nothing'} instead of {keys[1] or 'nothing'}")]
    return []


def _projection(gold: Block, predicted: Block) -> list[Finding]:
    missing, extra = _difference(gold.projection, predicted.projection)
    if not missing and not extra:
        return []
    aggregates = [
        Counter(name for form in forms for name in AGGREGATE.findall(form.masked)) for forms in (missing, extra)
    ]
    plain = [[form for form in forms if not AGGREGATE.search(form.masked)] for forms in (missing, extra)]
    kinds = ["wrong_aggregate"] if missing and extra and aggregates[0] != aggregates[1] else []
    if not kinds or len(missing) != len(extra) or all(plain):
        kinds.append("wrong_projection")
    return [Finding(kind, _sentence("select", missing, extra)) for kind in kinds]


def _distinct(gold: Block, predicted: Block) -> list[Finding]:
    if gold.distinct and not predicted.distinct:
        return [Finding("missing_distinct", "keeps rows that are the same")]
    if predicted.distinct and not gold.distinct:
        return [Finding("extra_distinct", "merges rows that are the same")]
    return []


def _filters(gold: Block, predicted: Block, *, with_subqueries: bool) -> list[Finding]:
    conditions = [
        [form for form in block.filters if with_subqueries or "(subquery)" not in form.masked]
        for block in (gold, predicted)
    ]
    missing, extra = _difference(*conditions)
    other_value = []
    for form in list(missing):
        like = next((other for other in extra if other.masked == form.masked), None)
        if like:
            missing.remove(form)
            extra.remove(like)
            case = " (only in case)" if like.plain.lower() == form.plain.lower() else ""
            other_value.append(f"filters by {like.shown} instead of {form.shown}{case}")
    findings = [Finding("wrong_filter_value", detail) for detail in other_value]
    if missing or extra:
        findings.append(Finding("wrong_filter", _sentence("filter by", missing, extra)))
    return findings


def _clause(kind: str, verb: str, gold: list[Form], predicted: list[Form]) -> list[Finding]:
    missing, extra = _difference(gold, predicted)
    return [Finding(kind, _sentence(verb, missing, extra))] if missing or extra else []


def _tail(gold: exp.Query, predicted: exp.Query, *views: View) -> list[Finding]:
    """What differs in ORDER BY, LIMIT and OFFSET."""
    orders, limits = [], []
    for node, view in zip((gold, predicted), views):
        order = node.args.get("order")
        directions = [" desc" if term.args.get("desc") else "" for term in order.expressions] if order else []
        terms = view.forms(_referred(order, node))
        orders.append([built(f"{{}}{direction}".format, [term]) for term, direction in zip(terms, directions)])
        limits.append(
            view.forms(node.args[clause].expression for clause in ("limit", "offset") if node.args.get(clause))
        )
    findings = _clause("wrong_limit", "limit rows to", *limits)
    invented = any(INVENTED in form.masked for form in orders[1])
    if orders[0] != orders[1] and not invented:
        said = [names.listed(form.shown for form in order) or "nothing" for order in orders]
        findings.append(Finding("wrong_order", f"orders by {said[1]} instead of {said[0]}"))
    return findings


def _difference(gold: list[Form], predicted: list[Form]) -> tuple[list[Form], list[Form]]:
    """What is missing and what is extra; nothing where the extra names what does not exist, for that is told already."""
    missing, extra = Counter(gold) - Counter(predicted), Counter(predicted) - Counter(gold)
    if any(INVENTED in form.masked for form in extra):
        return [], []
    return list(missing.elements()), list(extra.elements())


def _sentence(verb: str, missing: list[Form], extra: list[Form]) -> str:
    said = [names.listed(form.shown for form in forms) for forms in (missing, extra)]
    if not extra:
        return f"does not {verb} {said[0]}"
    first, space, rest = verb.partition(" ")
    return f"{first}s{space}{rest} {said[1]} " + (f"instead of {said[0]}" if missing else "as well")
