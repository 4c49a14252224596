"""Rewrite SQL as Spider's official evaluator does before it runs it, which is part of what its verdicts mean.

The rules are those of evaluation.py, exec_eval.py and parse.py in github.com/taoyds/test-suite-sql-eval: `value` in a
prediction becomes `1`; "> =", "< =" and "! =" are joined; unless `keep_distinct`, every word DISTINCT is taken out and
only the first statement is left; YEAR(CURDATE()) becomes 2020 together with the space after it.

The evaluator reads DISTINCT and statements with sqlparse (0.6.1 was measured), whose full parse takes milliseconds.
Where the answer is plain without it, it is not asked; else its lexer is, which finds the same words. For texts that end
the evaluator with an error (empty ones, and those too large or too deep for sqlparse's parser) the same rules hold
here: an empty text stays empty. That evaluator reads one query a line, up to the first tab: a text with line breaks or
tabs is here taken whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from typing import Any

MAX_LENGTH = 10_000
"""Characters of a text that sqlparse is asked about: in a longer one, where it is not plain, DISTINCT stays, and nothing is
plugged into or taken from it."""

_SPACED_OPERATORS = (("> =", ">="), ("< =", "<="), ("! =", "!="))
_THIS_YEAR = re.compile(r"YEAR\s*\(\s*CURDATE\s*\(\s*\)\s*\)\s*", re.IGNORECASE)


def gold_text(sql: str, *, keep_distinct: bool) -> str:
    """A gold as it is run."""
    return _dated(_rewritten(sql, keep_distinct))


def prediction_text(sql: str, *, keep_distinct: bool) -> str:
    """A prediction as it is run."""
    return _dated(_rewritten(without_value_words(sql), keep_distinct))


def without_value_words(sql: str) -> str:
    """A prediction as it is parsed for exact match; `value` is what models without values predict for each of them."""
    return sql.replace("value", "1")


def is_ordered(gold: str) -> bool:
    """Whether the order of rows counts: "order by" is anywhere in what gold_text() returned, also in a subquery."""
    return "order by" in gold.lower()


def _rewritten(sql: str, keep_distinct: bool) -> str:
    sql = sql.strip()  # in Python's sense, as the evaluator does with lines: SQLite takes no-break spaces for names
    if " =" in sql:
        for spaced, joined in _SPACED_OPERATORS:
            sql = sql.replace(spaced, joined)
    return sql if keep_distinct else _without_distinct(sql)


def _dated(sql: str) -> str:
    return _THIS_YEAR.sub("2020", sql) if "curdate" in sql.lower() else sql


# DISTINCT and the first statement

_QUOTED = re.compile(r"""('[^'\\]*'|"[^"\\]*"|`[^`\\]*`)""")
_DISTINCT = re.compile(r"\bdistinct\b", re.IGNORECASE | re.ASCII)
# What stands for a quoted piece is a quote. Nothing else but plain characters: no comment, bracket or placeholder, no
# quote after a word (WITH') or after a quote, no semicolon but at the end.
_NOT_PLAIN = re.compile(r"[^\w\s.,()*=<>!+|/';-]|--|/\*|[\w']'|;(?!\Z)|GO\b", re.ASCII)
_STATEMENT_END = re.compile(r";(?!\Z)|GO\b")  # sqlparse ends a statement after the keyword GO too


def _without_distinct(sql: str) -> str:
    if "distinct" not in sql.lower() and not _STATEMENT_END.search(sql):
        return sql
    pieces = _QUOTED.split(sql)
    plain = "'".join(pieces[::2])
    if not _NOT_PLAIN.search(plain):
        num_taken = 0
        for place in range(0, len(pieces), 2):
            pieces[place], num = _DISTINCT.subn("", pieces[place])
            num_taken += num
        if num_taken == plain.lower().count("distinct"):  # none inside a longer word: sqlparse splits 1e5distinct
            return "".join(pieces)
    return _lexed_without_distinct(sql)


def _lexed_without_distinct(sql: str) -> str:
    """The same by sqlparse's lexer, for any text."""
    if len(sql) > MAX_LENGTH or not sql.strip():
        return sql
    return "".join(value for _, value in _first_statement(sql) if value.lower() != "distinct")


def _first_statement(sql: str) -> list[tuple[Any, str]]:
    """The tokens of sqlparse.parse(sql)[0] as (type, text), without the costly grouping; [] for white space."""
    from sqlparse.engine import FilterStack

    statement = next(FilterStack().run(sql), None)
    return [(token.ttype, token.value) for token in statement.flatten()] if statement else []


# Values of the gold in the places of the prediction's

_SLOT = "VALUERARE"
_FRACTION = re.compile(r"[-+]?(?:(?<!\d)\d+)?\.\d+")
_INTEGER = re.compile(r"[^tT]\d+")


def plugged(gold: str, prediction: str, *, keep_distinct: bool) -> Iterator[str]:
    """The prediction, as it is run, with the gold's values in place of its own, in all ways, one at a time.

    Takes the SQL itself, not what gold_text() and prediction_text() return: these have one more rewriting behind them.
    Values are what the evaluator takes for them: strings, and numbers that are words by themselves. They are tried in
    sorted order, the first place changing slowest. There are (values in the gold) ** (places) texts: none where the
    gold has no value for a place, one where there is no place. All are in lower case but for the values. The evaluator
    tries them after prediction_text().
    """
    if max(len(gold), len(prediction)) > MAX_LENGTH:
        return
    _, values = _words_and_values(_rewritten(gold, keep_distinct))
    words, _ = _words_and_values(_rewritten(without_value_words(prediction), keep_distinct))
    places = [place for place, word in enumerate(words) if word == _SLOT.lower()]
    for chosen in product(sorted(set(values)), repeat=len(places)):
        for place, value in zip(places, chosen):
            words[place] = value
        yield _dated(" ".join(words))


def _words_and_values(sql: str) -> tuple[list[str], list[str]]:
    """The words of a query with _SLOT, in lower case, for each value, and the values."""
    import sqlparse
    from sqlparse.tokens import String, Whitespace

    sql = sql.strip().replace(";", "").replace("\t", "")
    sql = " ".join(value for kind, value in _first_statement(sql) if kind is not Whitespace)
    for all_columns in ("t1.*", "t2.*", "t3.*", "T1.*", "T2.*", "T3.*"):
        sql = sql.replace(all_columns, "*")
    sql = re.sub(r"(T\d+\.)\s", r"\1", sqlparse.format(sql, keyword_case="upper"))
    values = [value for kind, value in _first_statement(sql) if kind in (String.Single, String.Symbol)]
    for value in values:
        sql = sql.replace(value, _SLOT)
    words = sql.split()
    for number in (_FRACTION, _INTEGER):
        found = {match.strip() for match in number.findall(" ".join(words))}
        values += [word for word in words if word in found]
        words = [_SLOT if word in found else word for word in words]
    return [part.lower() for word in words for part in _parts(word)], values


def _parts(word: str) -> list[str]:
    """A column of T1, T2 and so on in three words, as the evaluator has it."""
    return word.replace(".", " . ").split() if re.search(r"[Tt]\d+\.", word) else [word]
