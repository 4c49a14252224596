"""One line on each verdict, as the page of a run explains them."""

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
