"""Questions of the generated `mini` data about a table and the one it references, or two that a third one joins."""

from __future__ import annotations

from text2sql.data.mini_templates import ask, extra, hard, medium

MANY_TABLES = [
    medium(
        4,
        "SELECT {c}.{c_show} FROM {join} WHERE {p}.{p_label} = {p_l.sql}",
        *ask("c_show", " whose {p.one} has {p_label.one} {p_l}"),
        *ask("c_show", " of the {p.one} {p_l}"),
    ),
    medium(
        3,
        "SELECT {c}.{c_show} FROM {join} WHERE {p}.{p_cat} = {p_v.sql}",
        *ask("c_show", " whose {p.one} has {p_cat.one} {p_v}"),
    ),
    medium(
        3,
        "SELECT COUNT(*) FROM {join} WHERE {p}.{p_label} = {p_l.sql}",
        "How many {c.many} does the {p.one} {p_l} have?",
        "Count the {c.many} whose {p.one} has {p_label.one} {p_l}.",
    ),
    medium(
        2,
        "SELECT {c}.{c_show}, {p}.{p_label} FROM {join}",
        "Show the {c_show.one} of each {c.one} and the {p_label.one} of its {p.one}.",
        "List the {c_show.many} of {c.many} with the {p_label.one} of the {p.one}.",
    ),
    medium(
        3,
        "SELECT {p}.{p_label}, COUNT(*) FROM {join} GROUP BY {p}.{p_label}",
        "Show the {p_label.one} of each {p.one} and its number of {c.many}.",
        "For each {p.one}, show the {p_label.one} and the number of {c.many}.",
    ),
    hard(
        4,
        "SELECT {p_label} FROM {p} WHERE {pk} NOT IN (SELECT {fk} FROM {c})",
        *ask("p_label", " that have no {c.many}"),
        *ask("p_label", " without {c.many}"),
    ),
    hard(
        2,
        "SELECT {p_label} FROM {p} WHERE {pk} IN (SELECT {fk} FROM {c} WHERE {c_num} > {c_n})",
        *ask("p_label", " that have {c.a} with {c_num.one} greater than {c_n}"),
    ),
    hard(
        2,
        "SELECT {p}.{p_label} FROM {join} GROUP BY {p}.{p_label} HAVING COUNT(*) > {k}",
        *ask("p_label", " with more than {k} {c.many}"),
    ),
    extra(
        4,
        "SELECT {p}.{p_label} FROM {join} GROUP BY {p}.{p_label} ORDER BY COUNT(*) DESC LIMIT 1",
        "What is the {p_label.one} of the {p.one} with the most {c.many}?",
        "Which {p.one} has the most {c.many}? Show the {p_label.one}.",
    ),
    extra(
        2,
        "SELECT {p}.{p_label} FROM {join} GROUP BY {p}.{p_label} ORDER BY SUM({c}.{c_sum}) DESC LIMIT 1",
        "What is the {p_label.one} of the {p.one} with the highest total {c_sum.one} of {c.many}?",
        "Which {p.one} has the largest sum of {c_sum.one} over its {c.many}? Show the {p_label.one}.",
    ),
    extra(
        2,
        "SELECT {p}.{p_label} FROM {join} ORDER BY {c}.{c_num} DESC LIMIT 1",
        "What is the {p_label.one} of the {p.one} whose {c.one} has the highest {c_num.one}?",
        "Find the {p_label.one} of the {p.one} of the {c.one} with the largest {c_num.one}.",
    ),
    extra(
        3,
        "SELECT {z}.{z_label} FROM {bridge} WHERE {a}.{a_label} = {a_l.sql}",
        *ask("z_label", " that have {b.a} with the {a.one} {a_l}"),
    ),
    extra(
        1,
        "SELECT {p_label} FROM {p} WHERE {p_cat} = {p_v.sql} AND {pk} NOT IN (SELECT {fk} FROM {c})",
        *ask("p_label", " whose {p_cat.one} is {p_v} and that have no {c.many}"),
    ),
]
