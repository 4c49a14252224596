"""Asks about a generated database: fills the slots of templates from its tables and checks the gold SQL."""

from __future__ import annotations

import random
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from text2sql.data.mini_many_tables import MANY_TABLES
from text2sql.data.mini_one_table import ONE_TABLE
from text2sql.data.mini_rows import Filled, Filling, literal
from text2sql.data.mini_templates import TIERS, Template
from text2sql.sql.identifiers import quote

TEMPLATES = (*ONE_TABLE, *MANY_TABLES)

SHOW_LABEL = 0.7
ATTEMPTS_PER_QUESTION = 40
# Words of numbers whose total means nothing.
NEVER_SUMMED = set("age year temperature office rate ratio percent percentage latitude longitude lat lon".split())
_KEY = r'(?:"(?:[^"]|"")*"|\S)+?'


@dataclass(frozen=True)
class Noun:
    """An SQL name and its words; formats as the name, in quotes where SQLite wants them."""

    name: str
    one: str
    many: str

    def __str__(self) -> str:
        return quote(self.name)

    @property
    def a(self) -> str:
        return f"{'an' if self.one[0] in 'aeiou' else 'a'} {self.one}"


@dataclass(frozen=True)
class Value:
    """A literal; formats as plain text for the question, `.sql` for the query."""

    value: object

    def __str__(self) -> str:
        return str(self.value)

    @property
    def sql(self) -> str:
        return literal(self.value)


@dataclass(frozen=True)
class Question:
    template: Template
    text: str
    sql: str


def words_of(name: str) -> str:
    """The words of a name: `unitPrice` and `unit_price` are `unit price`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return " ".join(re.sub(r"[\W_]+", " ", spaced).lower().split()) or name


def plural(words: str) -> str:
    if words.endswith("y") and words[-2] not in "aeiou":
        return words[:-1] + "ies"
    return words + ("es" if words.endswith(("s", "x", "ch", "sh")) else "s")


def _column_noun(name: str, number: bool) -> Noun:
    words = words_of(name)
    if number and words.endswith("s") and not words.endswith("ss"):
        return Noun(name, f"number of {words}", f"numbers of {words}")
    return Noun(name, words, plural(words))


def table_slots(table: Filled, rng: random.Random) -> dict[str, object]:
    """Slots about one table; what the table cannot offer is absent. `n` < `m` are both values of the column `num`."""
    spec = table.spec
    slots: dict[str, object] = {"": Noun(spec.name, spec.singular, spec.plural or spec.name.replace("_", " "))}
    chosen = set()
    for slot, kind in (("label", "label"), ("cat", "category"), ("num", "number"), ("date", "date")):
        if columns := spec.kind(kind):
            column = rng.choice(columns)
            chosen.add(column.name)
            slots[slot] = _column_noun(column.name, kind == "number")
            slots.update(_value_slots(slot, table.values(column.name), rng))
            if kind == "number" and not NEVER_SUMMED & set(words_of(column.name).split()):
                slots["sum"] = slots[slot]
    if nullable := [column for column in spec.columns if column.nullable]:
        slots["null"] = _column_noun(rng.choice(nullable).name, False)
    rest = [
        _column_noun(c.name, c.kind == "number")
        for c in spec.kind("category", "number", "date", "label")
        if c.name not in chosen
    ]
    label = slots.get("label")
    others = [
        c for c in spec.kind("category", "number", "date") if not (isinstance(label, Noun) and label.name == c.name)
    ]
    if others:
        other = rng.choice(others)
        slots["other"] = _column_noun(other.name, other.kind == "number")
    rng.shuffle(rest)
    _show_slots(slots, rest, table, rng)
    return slots


def _show_slots(slots: dict[str, object], rest: list[Noun], table: Filled, rng: random.Random) -> None:
    label = slots.get("label")
    if label and (not rest or rng.random() < SHOW_LABEL):
        shown = [label, *rest]
    elif rest:
        shown = [*rest, *([label] if label else [])]
    else:
        shown = [_column_noun(table.key, False)] if table.key else []
    slots.update(zip(("show", "show2"), shown))


def _value_slots(slot: str, values: list, rng: random.Random) -> dict[str, object]:
    if slot == "label":
        value = rng.choice(values)
        words = [word for word in re.findall(r"[A-Za-z']+", value) if len(word) > 3]
        return {"l": Value(value), **({"word": rng.choice(words)} if words and "'" not in value else {})}
    if slot == "cat":
        first = rng.choice(values)
        others = sorted(set(values) - {first})
        return {"v": Value(first), **({"v2": Value(rng.choice(others))} if others else {}), "k": rng.choice((2, 3))}
    ordered = sorted(values)
    middle = ordered[len(ordered) // 5 : 1 + len(ordered) * 4 // 5]
    if slot == "date":
        return {"d": Value(rng.choice(middle))}
    low, high = sorted(rng.sample(middle, 2))
    return {"n": Value(low), "m": Value(high)} if low < high else {"n": Value(low)}


def slots(filling: Filling, rng: random.Random) -> dict[str, object]:
    """All slots of one random choice of table, child-parent pair and joining table."""
    result = _prefixed("t", "", table_slots(rng.choice(filling.tables), rng))
    links = [(table, column) for table in filling.tables for column in table.spec.kind("ref")]
    if links:
        child, column = rng.choice(links)
        parent = filling.table(column.source)
        result.update(_prefixed("c", "c_", table_slots(child, rng)), **_prefixed("p", "p_", table_slots(parent, rng)))
        result.update(
            fk=quote(column.name),
            pk=quote(parent.key),
            join=f"{quote(child.spec.name)} {_join(child, column, parent)}",
            k=rng.choice((2, 3)),
        )
    bridges = [table for table in filling.tables if len({ref.source for ref in table.spec.kind("ref")}) > 1]
    if bridges:
        bridge = rng.choice(bridges)
        first, second = rng.sample(bridge.spec.kind("ref"), 2)
        if first.source == second.source:
            return result
        left, right = filling.table(first.source), filling.table(second.source)
        result.update(_prefixed("a", "a_", table_slots(left, rng)), **_prefixed("z", "z_", table_slots(right, rng)))
        result["b"] = table_slots(bridge, rng)[""]
        result["bridge"] = f"{quote(bridge.spec.name)} {_join(bridge, first, left)} {_join(bridge, second, right)}"
    return result


def _prefixed(table: str, prefix: str, found: dict[str, object]) -> dict[str, object]:
    return {prefix + name if name else table: value for name, value in found.items()}


def _join(child: Filled, column: Any, parent: Filled) -> str:
    own, other = quote(child.spec.name), quote(parent.spec.name)
    return f"JOIN {other} ON {own}.{quote(column.name)} = {other}.{quote(parent.key)}"


def ask(
    filling: Filling, connection: sqlite3.Connection, count: int, rng: random.Random, repeats: int = 1
) -> list[Question]:
    """Up to `count` different questions, each gold at most `repeats` times, every gold run and its answer not empty."""
    questions: list[Question] = []
    golds: Counter[str] = Counter()
    asked: set[str] = set()
    for _ in range(count):
        for question in tries(filling, rng):
            if question is None or question.text in asked or golds[question.sql] >= repeats:
                continue
            if answers(question.sql, lambda sql: connection.execute(sql).fetchall()):
                questions.append(question)
                asked.add(question.text)
                golds[question.sql] += 1
                break
    return questions


def tries(filling: Filling, rng: random.Random) -> Iterator[Question | None]:
    """Questions of one tier, drawn by its share; None for a template whose slots could not be filled that time."""
    (tier,) = rng.choices(list(TIERS), list(TIERS.values()))
    templates = [template for template in TEMPLATES if template.tier == tier]
    for _ in range(ATTEMPTS_PER_QUESTION):
        (template,) = rng.choices(templates, [template.weight for template in templates])
        yield _bind(template, slots(filling, rng), rng)


def _bind(template: Template, found: dict[str, object], rng: random.Random) -> Question | None:
    try:
        sql = template.sql.format(**found)
        text = rng.choice(template.questions).format(**found)
    except KeyError:
        return None
    return Question(template, text[0].upper() + text[1:], sql)


def answers(sql: str, fetch: Callable[[str], list[tuple]]) -> bool:
    """Whether the gold has an answer worth asking for: a value that is not NULL or 0, in an order without ties.

    `fetch` gives the rows of a query, none for one that does not run.
    """
    rows = fetch(sql)
    if not any(value not in (None, 0) for row in rows for value in row):
        return False
    match = re.fullmatch(rf"SELECT .*? (FROM .*) ORDER BY ({_KEY})( DESC)?( LIMIT (\d+))?", sql)
    if match is None:
        return True
    source, key, _, _, limit = match.groups()
    keys = [row[0] for row in fetch(f"SELECT {key} {source} ORDER BY 1{match.group(3) or ''}")]
    seen = keys[: int(limit) + 1] if limit else keys
    return len(seen) == len(set(seen))
