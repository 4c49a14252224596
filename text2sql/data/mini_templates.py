"""What a question of the generated `mini` data is made from: an SQL pattern and several ways to ask for it.

Slots without a prefix speak about one table `t`; `c_`/`p_` about a child and the parent it references; `a_`/`z_` about
the two parents of a table `b` that joins them. `{x}` is the SQL name, `{x.one}` and `{x.many}` its words, `{x.a}` the
word with its article, `{v.sql}` a literal.
"""

from __future__ import annotations

from dataclasses import dataclass

# Shares of the tiers, after Spider's notion of hardness; easier than Spider, so that a small model learns in minutes.
TIERS = {"easy": 0.45, "medium": 0.32, "hard": 0.14, "extra": 0.09}


@dataclass(frozen=True)
class Template:
    tier: str
    weight: int
    sql: str
    questions: tuple[str, ...]


def ask(subject: str, condition: str = "") -> tuple[str, ...]:
    """Ways to ask for column {x.one}/{x.many} of a table's rows; `subject` is the slot of the column, `t` or `c`..."""
    table = {"show": "t", "label": "t", "c_show": "c", "p_label": "p", "z_label": "z"}[subject]
    one, many, rows = f"{{{subject}.one}}", f"{{{subject}.many}}", f"{{{table}.many}}"
    return tuple(
        f"{start} {rows}{condition}{end}"
        for start, end in (
            (f"Show the {many} of", "."),
            (f"List the {many} of all", "."),
            (f"What are the {many} of", "?"),
            (f"Find the {one} of", "."),
            (f"Give the {many} of the", "."),
        )
    )


def easy(weight: int, sql: str, *questions: str) -> Template:
    return Template("easy", weight, sql, questions)


def medium(weight: int, sql: str, *questions: str) -> Template:
    return Template("medium", weight, sql, questions)


def hard(weight: int, sql: str, *questions: str) -> Template:
    return Template("hard", weight, sql, questions)


def extra(weight: int, sql: str, *questions: str) -> Template:
    return Template("extra", weight, sql, questions)
