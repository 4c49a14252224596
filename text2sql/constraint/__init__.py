"""Schema-constrained decoding: only tokens after which the text can still become SQL whose names all exist in a Schema.

`constraint.of(schema, vocabulary)` gives the Constraint of a schema, `accepts` and `explain` try whole texts, and
`text2sql.constraint.processor` holds the LogitsProcessor for transformers.
What it does NOT cover: syntax beyond what names need (a model may still write `count()` of two things), ambiguous columns,
types and values. Not writable: comments, VALUES, blobs, named windows, table-valued functions, SQLite's own tables, `main.`
before a table, bare aliases that are keywords or not ASCII (in quotes they are).
"""

from text2sql.constraint.masks import Constraint, State, of
from text2sql.constraint.text import accepts, explain
from text2sql.constraint.vocabulary import Vocabulary

__all__ = ["Constraint", "State", "Vocabulary", "accepts", "explain", "of"]
