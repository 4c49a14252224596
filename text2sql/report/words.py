"""One line on each verdict and on each kind of diagnosis, as the page of a run explains them."""

from __future__ import annotations

VERDICTS = {
    "match": "both ran and returned the same",
    "empty_both": "both ran and neither returned a row: counted as correct, and says little",
    "mismatch": "both ran and returned different results",
    "empty_prediction": "no SQL in the answer",
    "syntax": "SQLite refuses the SQL as it is written",
    "unknown_table": "a table that the database does not have",
    "unknown_column": "a column that the tables in the query do not have",
    "ambiguous": "a column that several tables have, without saying of which",
    "function": "a function that SQLite does not have, or not in this use",
    "type": "a value that cannot be computed: an overflow, too long a text, malformed JSON",
    "denied_write": "tries to change the database, where only reading is allowed",
    "multiple_statements": "more than one statement",
    "step_budget": "more of SQLite's steps than are allowed",
    "timeout": "more time than is allowed",
    "too_many_rows": "more rows than are allowed",
    "gold_error": "the gold does not run: left out of every rate",
    "gold_budget": "the gold takes more steps, time or rows than are allowed: left out of every rate",
}

DIAGNOSES = {
    "empty": "no SQL at all",
    "not_a_query": "prose, a statement that writes, or more than one statement",
    "unparsable": "SQLite or the parser does not take it as SQL",
    "too_costly": "stopped by the limit on steps, time or rows",
    "hallucinated_table": "a table that the database does not have",
    "hallucinated_column": "a column that no table of the database has",
    "column_of_other_table": "a real column, but of a table that is not joined",
    "column_of_other_alias": "a column of a joined table, read through the alias of another or of none",
    "ambiguous_column": "a column of several joined tables, without saying of which",
    "wrong_function": "a function that SQLite does not have, or not in this use",
    "wrong_set_operation": "UNION, INTERSECT or EXCEPT missing, too much, or another one",
    "wrong_nesting": "a subquery where the gold has none, or the reverse",
    "wrong_join": "other tables, or the same ones joined on other columns or by another kind of join",
    "missing_join": "a table of the gold is missing",
    "extra_join": "a table that the gold does without",
    "wrong_aggregate": "another aggregate function, one too many or one too few",
    "wrong_projection": "other columns, too many or too few",
    "wrong_filter": "another condition, one too many or one too few",
    "wrong_filter_value": "the right condition with another value",
    "wrong_grouping": "another GROUP BY",
    "wrong_having": "another HAVING",
    "wrong_order": "another ORDER BY",
    "wrong_limit": "another LIMIT or OFFSET",
    "extra_distinct": "DISTINCT, or GROUP BY to the same end, where the gold has none",
    "missing_distinct": "no DISTINCT, nor GROUP BY to the same end, where the gold has one",
    "unclassified": "the same form by these rules, and yet another result",
}
"""The kinds of text2sql.sql.diagnose; their lines stand here because a report needs no SQL parser."""
