"""How much each table and column of a schema has to do with a question: by words, by cell values, by foreign keys."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from text2sql.example import Schema

STOP_WORDS = frozenset(
    "a all also an and any are as at be been both but by can did do does each either every find for from get give had has have "
    "how i if in is it its list many me more most much no not of on one only or other out per please s shall show so some "
    "such than that the their them then there these they this those to too under us was we were what when where which who "
    "whom whose will with would you your".split()
)
_WORD = re.compile(r"[^\W_]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def fold(text: str) -> str:
    """Lower case without accents: what SQLite's full-text index compares."""
    if text.isascii():
        return text.lower()
    return "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """A word in lower case without its plural ending."""
    if len(word) <= 3 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes", "zes")):
        return word[:-2]
    return word[:-1]


def words(text: str) -> list[str]:
    """The words of a text in order, in lower case without accents; an underscore parts words, a capital does not."""
    return _WORD.findall(fold(text))


@lru_cache(maxsize=65536)
def name_words(name: str) -> tuple[str, ...]:
    """The stems of an identifier's words, parted at underscores and capitals."""
    return tuple(map(stem, words(_CAMEL.sub(" ", name))))


# Scores.

HINTS = {
    "name": "who whom whose called named",
    "title": "named called",
    "first": "who whose",
    "last": "who whose",
    "date": "when recent recently latest earliest newest oldest day month year before after since",
    "year": "when recent recently latest earliest newest oldest before after since",
    "time": "when long fast fastest slow slowest",
    "birth": "old older oldest young younger youngest age born",
    "age": "old older oldest young younger youngest",
    "city": "where location located",
    "country": "where nation nationality",
    "location": "where",
    "address": "where live lives",
    "price": "cost costs expensive cheap cheapest",
    "cost": "price expensive cheap cheapest",
    "amount": "total sum",
    "salary": "earn earns paid",
    "phone": "telephone",
    "population": "people inhabitants",
    "gender": "male female man woman men women sex",
    "sex": "male female man woman men women gender",
}
"""Words that ask for what columns of another name hold."""

PARTIAL, HINTED = 0.6, 0.4
"""What a word counts that has its beginning or end in common with one of the question, and what one that is hinted at."""

LABELS, LABEL = frozenset({"name", "title"}), 0.05
"""What names the rows of a table may always be asked for."""

MAX_SEEDS, MAX_STEPS = 8, 3
"""So many of the best tables are connected with each other, over at most so many foreign keys."""


@dataclass(frozen=True)
class Relevance:
    """Scores from 0 upwards, by position in the schema; `related` are the tables that the question asks of or joins over."""

    tables: tuple[float, ...]
    columns: tuple[tuple[float, ...], ...]
    related: frozenset[int]


@dataclass(frozen=True)
class Vocabulary:
    """The words of a schema's names, and how much each says: little where it is everywhere, such as id and name.

    `references` are by table those that its foreign keys refer to, `keys` the columns in a key of either kind and `foreign` the
    columns in a foreign key.
    """

    tables: tuple[tuple[str, ...], ...]
    columns: tuple[tuple[tuple[str, ...], ...], ...]
    weight: Mapping[str, float]
    references: tuple[frozenset[int], ...]
    keys: tuple[frozenset[int], ...]
    foreign: tuple[frozenset[int], ...]


@lru_cache(maxsize=256)
def vocabulary(schema: Schema) -> Vocabulary:
    """The words of a schema's names and their weights from 0 to 1, rare ones more, with its keys; made once a schema."""
    tables = tuple(name_words(table.name) for table in schema.tables)
    columns = tuple(tuple(name_words(column.name) for column in table.columns) for table in schema.tables)
    counts = Counter(word for own, of in zip(tables, columns) for word in {w for name in of for w in name} | set(own))
    weight = {word: 1 - math.log(count) / math.log(len(tables) + 2) for word, count in counts.items()}
    numbers = {table.name.lower(): i for i, table in enumerate(schema.tables)}
    places = [{column.name.lower(): j for j, column in enumerate(table.columns)} for table in schema.tables]
    keys = [{j for j, column in enumerate(table.columns) if column.primary_key} for table in schema.tables]
    foreign: list[set[int]] = [set() for _ in tables]
    references: list[set[int]] = [set() for _ in tables]
    for i, table in enumerate(schema.tables):
        for key in table.foreign_keys:
            foreign[i].update(places[i][own.lower()] for own in key.columns if own.lower() in places[i])
            to = numbers.get(key.foreign_table.lower())
            if to is not None:
                keys[to].update(places[to][name.lower()] for name in key.foreign_columns if name.lower() in places[to])
                references[i].add(to)
    return Vocabulary(
        tables,
        columns,
        weight,
        tuple(frozenset(to - {i}) for i, to in enumerate(references)),
        tuple(frozenset(own | of) for own, of in zip(keys, foreign)),
        tuple(map(frozenset, foreign)),
    )


def rank(question: str, schema: Schema, mentioned: Mapping[tuple[str, str], float]) -> Relevance:
    """The relevance of each table and column to a question; `mentioned` scores the columns whose values it mentions."""
    known = vocabulary(schema)
    said = dict.fromkeys(words(question))
    asked = [stem(word) for word in said if word not in STOP_WORDS]
    strength = {word: _strength(word, asked) or HINTED * _hinted(word, said) for word in known.weight}
    strength = {word: found * known.weight[word] for word, found in strength.items()}
    columns, tables = [], []
    for i, table in enumerate(schema.tables):
        own = known.tables[i]
        scores = [_score(name, strength, frozenset(own)) for name in known.columns[i]]
        if mentioned:
            scores = [score + mentioned.get((table.name, c.name), 0) for score, c in zip(scores, table.columns)]
        # A foreign key speaks of the other table.
        best = max((score * (0.2 if j in known.foreign[i] else 1) for j, score in enumerate(scores)), default=0)
        tables.append(_score(own, strength) + 0.5 * best)
        labels = (LABEL if LABELS.intersection(name) else 0 for name in known.columns[i])
        columns.append(tuple(max(score, label) for score, label in zip(scores, labels)))
    related = _connect(tables, known.references)
    return Relevance(tuple(tables), tuple(columns), related)


def _strength(word: str, asked: list[str]) -> float:
    if word in asked:
        return 1
    for other in asked:
        short, long = sorted((word, other), key=len)
        if len(short) >= 4 and (long.startswith(short) or long.endswith(short)):
            return PARTIAL
        least = max(5, math.ceil(0.6 * len(long)))
        if len(short) >= least and word[:least] == other[:least]:
            return PARTIAL
    return 0


def _hinted(word: str, said: Mapping[str, None]) -> bool:
    if word == "year" and any(len(other) == 4 and other.isdecimal() for other in said):
        return True
    return word in HINTS and not said.keys().isdisjoint(HINTS[word].split())


def _score(name: Sequence[str], strength: Mapping[str, float], known: frozenset[str] = frozenset()) -> float:
    """The weight of a name's words that are asked for, less where others stand beside them; words of the table count little."""
    matched = sum(strength[word] * (0.2 if word in known else 1) for word in name)
    if not matched:
        return 0
    return matched * (0.5 + 0.5 * sum(strength[word] > 0 for word in name) / len(name))


def _connect(scores: list[float], references: Sequence[frozenset[int]]) -> frozenset[int]:
    """Raise the tables that join two of the best to nearly the score of the lesser; returns the best with those."""
    best = max(scores, default=0)
    seeds = sorted((i for i, score in enumerate(scores) if score > 0.4 * best), key=lambda i: (-scores[i], i))
    seeds = seeds[:MAX_SEEDS]
    referring: list[set[int]] = [set() for _ in scores]
    for i, others in enumerate(references):
        for other in others:
            referring[other].add(i)
    related, before = set(seeds), list(scores)
    for start in seeds:
        paths = _paths(start, references, referring)
        for end in seeds:
            for i in paths.get(end, ())[1:-1]:
                scores[i] = max(scores[i], 0.9 * min(before[start], before[end]))
                related.add(i)
    return frozenset(related)


def _paths(
    start: int, references: Sequence[frozenset[int]], referring: Sequence[set[int]]
) -> dict[int, tuple[int, ...]]:
    """The shortest way over foreign keys to each table within reach.

    None leads over a table that two others refer to, as students and courses to a department: that joins nothing.
    """
    paths: dict[int, tuple[int, ...]] = {}
    edge: dict[tuple[int, bool], tuple[int, ...]] = {
        (start, False): (start,)
    }  # by table, and whether it was come to by a reference to it
    seen = set(edge)
    for _ in range(MAX_STEPS + 1):
        reached: dict[tuple[int, bool], tuple[int, ...]] = {}
        for (i, referred), path in edge.items():
            paths.setdefault(i, path)
            ways = [(j, True) for j in sorted(references[i])]
            ways += [] if referred else [(j, False) for j in sorted(referring[i])]
            reached.update({way: (*path, way[0]) for way in ways if way not in seen and way not in reached})
        seen.update(reached)
        edge = reached
    return paths
