"""Questions of the generated `mini` data about one table."""

from __future__ import annotations

from text2sql.data.mini_templates import Template, ask, easy, extra, hard, medium

SHOW = "SELECT {show} FROM {t}"
BOTH = "SELECT {show}, {show2} FROM {t}"
COUNT = "SELECT COUNT(*) FROM {t}"


def _aggregates() -> list[Template]:
    words = {
        "AVG": ("average", "mean"),
        "SUM": ("total", "sum of the"),
        "MAX": ("highest", "maximum"),
        "MIN": ("lowest", "minimum"),
    }
    templates = []
    for function, (first, second) in words.items():
        number = "sum" if function == "SUM" else "num"
        plain = (
            f"What is the {first} {{{number}.one}} of {{t.many}}?",
            f"Find the {second} {{{number}.one}} of all {{t.many}}.",
            f"Show the {first} {{{number}.one}} of all {{t.many}}.",
        )
        where = (
            f"What is the {first} {{{number}.one}} of {{t.many}} whose {{cat.one}} is {{v}}?",
            f"Find the {second} {{{number}.one}} of {{t.many}} with {{cat.one}} {{v}}.",
        )
        templates.append(Template("easy", 2, f"SELECT {function}({{{number}}}) FROM {{t}}", plain))
        templates.append(
            Template("easy", 1, f"SELECT {function}({{{number}}}) FROM {{t}} WHERE {{cat}} = {{v.sql}}", where)
        )
    return templates


ONE_TABLE = [
    *_aggregates(),
    easy(3, COUNT, "How many {t.many} are there?", "Count the {t.many}.", "What is the number of {t.many}?"),
    easy(2, SHOW, *ask("show")),
    easy(
        4,
        f"{SHOW} WHERE {{cat}} = {{v.sql}}",
        *ask("show", " whose {cat.one} is {v}"),
        *ask("show", " with {cat.one} {v}"),
    ),
    easy(
        4,
        f"{SHOW} WHERE {{num}} > {{n}}",
        *ask("show", " with {num.one} greater than {n}"),
        *ask("show", " whose {num.one} is above {n}"),
    ),
    easy(
        3,
        f"{SHOW} WHERE {{num}} < {{n}}",
        *ask("show", " with {num.one} less than {n}"),
        *ask("show", " whose {num.one} is below {n}"),
    ),
    easy(2, f"{SHOW} WHERE {{num}} BETWEEN {{n}} AND {{m}}", *ask("show", " with {num.one} between {n} and {m}")),
    easy(2, f"{SHOW} WHERE {{date}} > {{d.sql}}", *ask("show", " with {date.one} after {d}")),
    easy(1, f"{SHOW} WHERE {{date}} < {{d.sql}}", *ask("show", " with {date.one} before {d}")),
    easy(
        2,
        f"{SHOW} WHERE {{null}} IS NULL",
        *ask("show", " that have no {null.one}"),
        *ask("show", " without {null.one}"),
    ),
    easy(1, f"{SHOW} WHERE {{null}} IS NOT NULL", *ask("show", " that have {null.a}")),
    easy(
        3,
        "SELECT {other} FROM {t} WHERE {label} = {l.sql}",
        "What is the {other.one} of the {t.one} whose {label.one} is {l}?",
        "Show the {other.one} of the {t.one} with {label.one} {l}.",
        "Find the {other.one} of {t.one} {l}.",
    ),
    easy(
        3,
        f"{COUNT} WHERE {{cat}} = {{v.sql}}",
        "How many {t.many} have {cat.one} {v}?",
        "Count the {t.many} whose {cat.one} is {v}.",
        "What is the number of {t.many} with {cat.one} {v}?",
    ),
    easy(
        3,
        f"{COUNT} WHERE {{num}} > {{n}}",
        "How many {t.many} have {num.a} greater than {n}?",
        "Count the {t.many} with {num.one} above {n}.",
    ),
    easy(
        1,
        f"{COUNT} WHERE {{date}} > {{d.sql}}",
        "How many {t.many} have {date.a} after {d}?",
        "Count the {t.many} with {date.one} after {d}.",
    ),
    easy(
        1,
        f"{COUNT} WHERE {{null}} IS NULL",
        "How many {t.many} have no {null.one}?",
        "Count the {t.many} without {null.one}.",
    ),
    easy(
        2,
        "SELECT DISTINCT {cat} FROM {t}",
        "What are the different {cat.many} of {t.many}?",
        "List the distinct {cat.many} of {t.many}.",
    ),
    easy(
        1,
        "SELECT COUNT(DISTINCT {cat}) FROM {t}",
        "How many different {cat.many} do the {t.many} have?",
        "Count the distinct {cat.many} of {t.many}.",
    ),
    easy(
        2,
        "SELECT {label} FROM {t} ORDER BY {num}",
        *ask("label", " sorted by {num.one}"),
        *ask("label", " in ascending order of {num.one}"),
    ),
    easy(1, "SELECT {label} FROM {t} ORDER BY {num} DESC", *ask("label", " in descending order of {num.one}")),
    medium(
        2,
        BOTH,
        "Show the {show.one} and {show2.one} of all {t.many}.",
        "List the {show.many} and {show2.many} of {t.many}.",
    ),
    medium(
        2,
        f"{BOTH} WHERE {{cat}} = {{v.sql}}",
        "Show the {show.one} and {show2.one} of {t.many} whose {cat.one} is {v}.",
        "What are the {show.many} and {show2.many} of {t.many} with {cat.one} {v}?",
    ),
    medium(
        3,
        "SELECT {cat}, COUNT(*) FROM {t} GROUP BY {cat}",
        "How many {t.many} are there for each {cat.one}?",
        "Count the {t.many} of each {cat.one}.",
        "Show each {cat.one} and its number of {t.many}.",
    ),
    medium(
        2,
        "SELECT {cat}, AVG({num}) FROM {t} GROUP BY {cat}",
        "What is the average {num.one} of {t.many} for each {cat.one}?",
        "Show each {cat.one} and the average {num.one} of its {t.many}.",
    ),
    medium(
        1,
        "SELECT {cat}, MAX({num}) FROM {t} GROUP BY {cat}",
        "What is the highest {num.one} of {t.many} for each {cat.one}?",
        "Show each {cat.one} and the maximum {num.one} of its {t.many}.",
    ),
    medium(
        4,
        "SELECT {label} FROM {t} ORDER BY {num} DESC LIMIT 1",
        "What is the {label.one} of the {t.one} with the highest {num.one}?",
        "Which {t.one} has the highest {num.one}? Show the {label.one}.",
        "Find the {label.one} of the {t.one} with the largest {num.one}.",
    ),
    medium(
        2,
        "SELECT {label} FROM {t} ORDER BY {num} LIMIT 1",
        "What is the {label.one} of the {t.one} with the lowest {num.one}?",
        "Find the {label.one} of the {t.one} with the smallest {num.one}.",
    ),
    medium(
        2,
        "SELECT {label} FROM {t} ORDER BY {num} DESC LIMIT 3",
        "Show the {label.many} of the 3 {t.many} with the highest {num.one}.",
        "What are the {label.many} of the top 3 {t.many} by {num.one}?",
    ),
    medium(
        2,
        f"{SHOW} WHERE {{cat}} = {{v.sql}} AND {{num}} > {{n}}",
        *ask("show", " whose {cat.one} is {v} and {num.one} is greater than {n}"),
    ),
    medium(
        1, f"{SHOW} WHERE {{cat}} = {{v.sql}} OR {{cat}} = {{v2.sql}}", *ask("show", " whose {cat.one} is {v} or {v2}")
    ),
    medium(
        2, "SELECT {label} FROM {t} WHERE {label} LIKE '%{word}%'", *ask("label", " whose {label.one} contains {word}")
    ),
    medium(
        1,
        "SELECT MIN({num}), MAX({num}) FROM {t}",
        "What are the minimum and maximum {num.one} of {t.many}?",
        "Show the lowest and highest {num.one} of all {t.many}.",
    ),
    medium(
        2,
        "SELECT {cat} FROM {t} GROUP BY {cat} HAVING COUNT(*) > {k}",
        "Which {cat.many} have more than {k} {t.many}?",
        "Show the {cat.many} with more than {k} {t.many}.",
    ),
    hard(
        4,
        "SELECT {label} FROM {t} WHERE {num} > (SELECT AVG({num}) FROM {t})",
        *ask("label", " whose {num.one} is above the average {num.one}"),
    ),
    hard(
        2,
        "SELECT COUNT(*) FROM {t} WHERE {num} < (SELECT AVG({num}) FROM {t})",
        "How many {t.many} have {num.a} below the average?",
        "Count the {t.many} whose {num.one} is below the average {num.one}.",
    ),
    hard(
        4,
        "SELECT {cat} FROM {t} GROUP BY {cat} ORDER BY COUNT(*) DESC LIMIT 1",
        "Which {cat.one} has the most {t.many}?",
        "What is the most common {cat.one} of {t.many}?",
    ),
    hard(
        1,
        "SELECT {cat} FROM {t} WHERE {num} > {m} INTERSECT SELECT {cat} FROM {t} WHERE {num} < {n}",
        "Which {cat.many} have both {t.many} with {num.one} above {m} and {t.many} with {num.one} below {n}?",
    ),
    hard(
        1,
        "SELECT {cat} FROM {t} EXCEPT SELECT {cat} FROM {t} WHERE {num} > {m}",
        "Which {cat.many} have no {t.many} with {num.one} above {m}?",
    ),
    hard(
        1,
        "SELECT {label} FROM {t} WHERE {cat} = {v.sql} UNION SELECT {label} FROM {t} WHERE {num} > {m}",
        "Show the {label.many} of {t.many} with {cat.one} {v} and those of {t.many} with {num.one} above {m}.",
    ),
    extra(
        1,
        "SELECT {label} FROM {t} WHERE {cat} = {v.sql} AND {num} > (SELECT AVG({num}) FROM {t})",
        *ask("label", " whose {cat.one} is {v} and {num.one} is above the average {num.one}"),
    ),
]
