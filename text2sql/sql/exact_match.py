"""Compare two queries part by part: exact set match, the ten component scores and the hardness of Spider's evaluator.

The rules are those of evaluation.py in github.com/taoyds/test-suite-sql-eval (Yu et al. 2018), as it is run: values and
DISTINCT do not count, and columns that foreign keys tie together are one column. Both have a limited reach there, kept
here: values are left out in conditions, in the subqueries those hold and in what set operations join, but not in
subqueries in FROM; DISTINCT and foreign keys are seen to in the query and in what set operations join, not in
subqueries; and only columns of tables in the first FROM are replaced.

Where that script ends with an error instead of a score, this module answers as follows.
- Two different subqueries in one FROM (it cannot sort them): the tables are compared as multisets.
- A condition without AND or OR before it, and an AND or OR later, so that the two trade places: an AND or OR at the
  place of a condition is passed over; a condition at the place of an AND or OR is one more connective, as where that
  script copes with it.
- A condition at the place of an AND or OR that holds a subquery (it cannot be put in a set): likewise a connective.
- Queries nested too deeply for Python's stack: the parser refuses them (spider_parser.MAX_DEPTH, MAX_CHAIN), and of two
  chains of set operations the first MAX_DEPTH queries are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from text2sql.example import Schema
from text2sql.sql.spider_parser import MAX_DEPTH, Condition, Conditions, Operand, Order, Query, Term, Value

PARTS = (
    "select",
    "select_no_agg",
    "where",
    "where_no_op",
    "group_no_having",
    "group",
    "order",
    "and_or",
    "iuen",
    "keywords",
)
"""The component scores; in the evaluator's words select, select(no AGG), where, where(no OP), group(no Having), group,
order, and/or, IUEN (intersect, union, except) and keywords."""

_EMPTY = Query(False, (), (), (), (), (), (), None, None, None, None, None)


class Part(NamedTuple):
    """One component of one pair: all of it right (1, 1, 1) or not (0, 0, 0), and how many items the two sides have.

    The totals of `and_or` are 1 and 1 where the two agree, and otherwise exchanged, as in the evaluator.
    """

    accuracy: int
    recall: int
    f1: int
    gold_total: int
    predicted_total: int


class Match(NamedTuple):
    """The comparison of one pair; `parts` has one Part for each of PARTS."""

    exact: bool
    parts: dict[str, Part]


def compare(gold: Query, prediction: Query | None, foreign_keys: Mapping[str, str]) -> Match:
    """Compare a prediction with its gold; None is a prediction that does not parse, which counts as an empty query.

    `foreign_keys` is what foreign_key_classes() returns.
    """
    gold, prediction = _cut(gold), _cut(prediction or _EMPTY)
    return _compare(
        _comparable(gold, _scope(gold), foreign_keys), _comparable(prediction, _scope(prediction), foreign_keys)
    )


def _cut(query: Query) -> Query:
    """The first queries of a chain of set operations: more than Python's stack is good for are not compared."""
    chain: list[tuple[Query, str]] = []
    rest: Query | None = query
    while rest is not None and len(chain) <= MAX_DEPTH:
        field = next((name for name in ("intersect", "union", "except_") if getattr(rest, name)), "union")
        chain.append((rest, field))
        rest = getattr(rest, field)
    if rest is None:
        return query
    shortened: Any = None
    for one, field in reversed(chain):
        changed: dict[str, Any] = {field: shortened}
        shortened = one._replace(**changed)
    return shortened


def hardness(gold: Query) -> str:
    """The level of a question by its gold query: easy, medium, hard or extra."""
    clauses, nested, others = _num_clauses(gold), _num_nested(gold), _num_others(gold)
    if nested == 0:
        if clauses <= 1 and others == 0:
            return "easy"
        if (clauses <= 1 and others <= 2) or (clauses <= 2 and others < 2):
            return "medium"
        if (clauses <= 2 and others > 2) or (clauses == 3 and others <= 2):
            return "hard"
    elif nested == 1 and clauses <= 1 and others == 0:
        return "hard"
    return "extra"


def aggregate(matches: Sequence[tuple[str, Match]]) -> dict[str, float]:
    """Metrics over (level of hardness, Match) pairs, as the evaluator prints them, for all and for each level there is.

    eval/exact_match and eval/LEVEL/exact_match are shares. eval/partial/PART/accuracy is the mean over predictions that
    have the part, recall the mean over golds that have it (0 where none has), and f1 is computed from these two means;
    where both are 0 it is 1, also when all were wrong. eval/LEVEL/partial/PART/... likewise.
    """
    groups: dict[str, list[Match]] = {}
    for level, match in matches:
        groups.setdefault("eval", []).append(match)
        groups.setdefault(f"eval/{level}", []).append(match)
    metrics: dict[str, float] = {}
    for prefix, group in groups.items():
        metrics[f"{prefix}/exact_match"] = _mean(match.exact for match in group)
        for name in PARTS:
            parts = [match.parts[name] for match in group]
            accuracy = _mean(part.accuracy for part in parts if part.predicted_total > 0)
            recall = _mean(part.recall for part in parts if part.gold_total > 0)
            f1 = 2 * accuracy * recall / (accuracy + recall) if accuracy or recall else 1.0
            scores = {"accuracy": accuracy, "recall": recall, "f1": f1}
            metrics.update({f"{prefix}/partial/{name}/{score}": value for score, value in scores.items()})
    return metrics


def foreign_key_classes(entry: Mapping[str, Any]) -> dict[str, str]:
    """The column that stands for each column of a foreign key, from one entry of Spider's tables.json.

    Columns are written "__table.column__" in lower case. Keys that share a column make one class, which its first
    column in the schema stands for; two classes that a later key ties together stay two, as in the evaluator.
    """
    tables, columns = entry["table_names_original"], entry["column_names_original"]
    names = [_name(tables[table], column) if table >= 0 else "__all__" for table, column in columns]
    return _classes(names, entry["foreign_keys"])


def foreign_key_classes_of(schema: Schema) -> dict[str, str]:
    """The same from a schema as read from a database, for data without a tables.json."""
    names = [_name(table.name, column.name) for table in schema.tables for column in table.columns]
    number = {name: position for position, name in enumerate(names)}
    pairs = [
        (_name(table.name, own), _name(key.foreign_table, foreign))
        for table in schema.tables
        for key in table.foreign_keys
        for own, foreign in zip(key.columns, key.foreign_columns)
    ]
    return _classes(
        names, [(number[own], number[foreign]) for own, foreign in pairs if {own, foreign} <= number.keys()]
    )


def _name(table: str, column: str) -> str:
    return f"__{table.lower()}.{column.lower()}__"


def _classes(names: Sequence[str], pairs: Iterable[Sequence[int]]) -> dict[str, str]:
    classes: list[set[int]] = []
    for pair in pairs:
        found = next((members for members in classes if not members.isdisjoint(pair)), None)
        if found is None:
            classes.append(set(pair))
        else:
            found.update(pair)
    return {names[member]: names[min(members)] for members in classes for member in sorted(members)}


# What does not count is taken out


def _scope(query: Query) -> frozenset[str]:
    """The tables whose columns may be replaced, as their columns' names begin."""
    return frozenset(table[:-2] for table in query.tables if isinstance(table, str))


def _comparable(query: Query, scope: frozenset[str], keys: Mapping[str, str]) -> Query:
    """The query without values and DISTINCT and with one column for each class of foreign keys."""

    def operand(one: Operand) -> Operand:
        column = one.column
        if column in keys and column.partition(".")[0] in scope:
            column = keys[column]
        return Operand(one.aggregate, column, None)

    def term(one: Term) -> Term:
        return Term(one.operator, operand(one.left), operand(one.right) if one.right else None)

    def conditions(found: Conditions) -> Conditions:
        return tuple(
            Condition(one.negated, one.operator, term(one.term), _without_value(one.value), _without_value(one.second))
            if isinstance(one, Condition) and not place % 2
            else one
            for place, one in enumerate(found)
        )

    def joined(other: Query | None) -> Query | None:
        return _comparable(other, scope, keys) if other else None

    return Query(
        None,
        tuple((aggregate, term(one)) for aggregate, one in query.selected),
        query.tables,
        conditions(query.joined_on),
        conditions(query.where),
        tuple(operand(one) for one in query.group),
        conditions(query.having),
        Order(query.order.direction, tuple(term(one) for one in query.order.terms)) if query.order else None,
        query.limit,
        joined(query.intersect),
        joined(query.union),
        joined(query.except_),
    )


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0


def _without_value(value: Value) -> Query | None:
    """A subquery, without values itself; None for all else."""
    if not isinstance(value, Query):
        return None

    def conditions(found: Conditions) -> Conditions:
        return tuple(
            one._replace(value=_without_value(one.value), second=_without_value(one.second))
            if isinstance(one, Condition) and not place % 2
            else one
            for place, one in enumerate(found)
        )

    return value._replace(
        joined_on=conditions(value.joined_on),
        where=conditions(value.where),
        having=conditions(value.having),
        intersect=_without_value(value.intersect),
        union=_without_value(value.union),
        except_=_without_value(value.except_),
    )


# The parts


def _compare(gold: Query, predicted: Query) -> Match:
    where, predicted_where = _conditions(gold.where), _conditions(predicted.where)
    parts = {
        "select": _items(gold.selected, predicted.selected),
        "select_no_agg": _items([term for _, term in gold.selected], [term for _, term in predicted.selected]),
        "where": _items(where, predicted_where),
        "where_no_op": _items([one.term for one in where], [one.term for one in predicted_where]),
        "group_no_having": _items(_unqualified(gold.group), _unqualified(predicted.group)),
        "group": _whole(bool(gold.group), bool(predicted.group), _same_group(gold, predicted)),
        "order": _whole(gold.order is not None, predicted.order is not None, _same_order(gold, predicted)),
        "and_or": _and_or(set(gold.where[1::2]), set(predicted.where[1::2])),
        "iuen": _set_operations(gold, predicted),
        "keywords": _keyword_part(_keywords(gold), _keywords(predicted)),
    }
    exact = all(part.f1 for part in parts.values())
    if exact and gold.tables:
        exact = len(gold.tables) == len(predicted.tables) == _num_shared(gold.tables, predicted.tables)
    return Match(exact, parts)


def _part(gold_total: int, predicted_total: int, num_right: int) -> Part:
    right = int(gold_total == predicted_total == num_right)
    return Part(right, right, right, gold_total, predicted_total)


def _items(gold: Sequence[object], predicted: Sequence[object]) -> Part:
    return _part(len(gold), len(predicted), _num_shared(gold, predicted))


def _num_shared(gold: Sequence[object], predicted: Sequence[object]) -> int:
    """How many items the two have in common as multisets; golds are short."""
    left = list(gold)
    for item in predicted:
        if item in left:
            left.remove(item)
    return len(gold) - len(left)


def _whole(in_gold: bool, in_prediction: bool, same: bool) -> Part:
    """A clause that is right as a whole or not at all."""
    return _part(int(in_gold), int(in_prediction), int(in_gold and in_prediction and same))


def _conditions(found: Conditions) -> list[Condition]:
    return [one for one in found[::2] if isinstance(one, Condition)]


def _unqualified(group: Sequence[Operand]) -> list[str]:
    """The columns without their tables: up to the second full stop, where a table's name has one."""
    return [one.column.split(".")[1] if "." in one.column else one.column for one in group]


def _same_group(gold: Query, predicted: Query) -> bool:
    columns, predicted_columns = [one.column for one in gold.group], [one.column for one in predicted.group]
    return columns == predicted_columns and gold.having == predicted.having


def _same_order(gold: Query, predicted: Query) -> bool:
    return gold.order == predicted.order and (gold.limit is None) == (predicted.limit is None)


def _and_or(gold: set[object], predicted: set[object]) -> Part:
    return _part(1, 1, 1) if gold == predicted else _part(len(predicted), len(gold), 0)


def _set_operations(gold: Query, predicted: Query) -> Part:
    golds = (gold.intersect, gold.except_, gold.union)
    predictions = (predicted.intersect, predicted.except_, predicted.union)
    right = [a is not None and b is not None and _compare(a, b).exact for a, b in zip(golds, predictions)]
    return _part(3 - golds.count(None), 3 - predictions.count(None), sum(right))


def _keyword_part(gold: set[str], predicted: set[str]) -> Part:
    return _part(len(gold), len(predicted), len(gold & predicted))


def _keywords(query: Query) -> set[str]:
    clauses = {
        "where": query.where,
        "group": query.group,
        "having": query.having,
        "order": query.order,
        "limit": query.limit,
        "except": query.except_,
        "union": query.union,
        "intersect": query.intersect,
    }
    found = {word for word, clause in clauses.items() if clause}
    if query.order:
        found.add(query.order.direction)
    if _num_or(query):
        found.add("or")
    for condition in _all_conditions(query):
        if condition.negated:
            found.add("not")
        if condition.operator in ("in", "like"):
            found.add(condition.operator)
    return found


def _all_conditions(query: Query) -> list[Condition]:
    return [*_conditions(query.joined_on), *_conditions(query.where), *_conditions(query.having)]


def _num_or(query: Query) -> int:
    return sum(found[1::2].count("or") for found in (query.joined_on, query.where, query.having))


# The counts that hardness is graded by


def _num_clauses(query: Query) -> int:
    present = sum(bool(clause) for clause in (query.where, query.group, query.order, query.limit))
    num_like = sum(condition.operator == "like" for condition in _all_conditions(query))
    return present + max(0, len(query.tables) - 1) + _num_or(query) + num_like


def _num_nested(query: Query) -> int:
    """Subqueries in conditions, and set operations."""
    values = [value for condition in _all_conditions(query) for value in (condition.value, condition.second)]
    return sum(isinstance(one, Query) for one in (*values, query.intersect, query.except_, query.union))


def _num_others(query: Query) -> int:
    """How many there are several of: aggregates, selected columns, conditions in WHERE, grouped columns.

    A negated condition counts as an aggregate, and so does AND or OR in HAVING, but no aggregate that HAVING compares.
    """
    ordered = (
        [operand for term in query.order.terms for operand in (term.left, term.right) if operand] if query.order else []
    )
    aggregates = [aggregate for aggregate, _ in query.selected]
    aggregates += [operand.aggregate for operand in (*query.group, *ordered)]
    num_aggregates = sum(aggregate != "none" for aggregate in aggregates)
    num_aggregates += sum(condition.negated for condition in _conditions(query.where))
    num_aggregates += sum(isinstance(one, str) or one.negated for one in query.having)
    return sum(number > 1 for number in (num_aggregates, len(query.selected), len(query.where), len(query.group)))
