"""What one SELECT knows while it is being written: its tables, its aliases, and the columns that still lack a table."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

from text2sql.constraint.words import Names

LIST, FROM, ON, WHERE, GROUP, HAVING, ORDER, LIMIT, WITH = (
    "list", "from", "on", "where", "group", "having", "order", "limit", "with",
)  # fmt: skip
OPEN = frozenset({LIST, FROM, ON})
"""The clauses during which tables may still be added."""
ROWID = frozenset({b"rowid", b"oid", b"_rowid_"})
STAR = b"*"

Reference = tuple[bytes, bytes]
"""A column by qualifier (empty where there is none) and name; the name `*` stands for all columns of the qualifier."""


class Source(NamedTuple):
    """One item of a FROM clause; `name` is what qualifies its columns, empty for a subquery without alias."""

    name: bytes
    columns: Names
    is_table: bool

    def has(self, name: bytes) -> bool:
        return name in self.columns.quoted or (self.is_table and name in ROWID)


@dataclass(frozen=True, eq=False)
class Select:
    """A SELECT so far; equal ones are one object (see `Scopes.changed`), so that they compare by identity.

    `outer` is the SELECT whose names it sees besides its own, `back` the one that goes on after its closing bracket.
    `pending` are columns written before the tables they need, `outward` those that only a SELECT around it can have.
    `parens` are the brackets and CASEs open in it, `outs` the names of its columns so far; `first` and `parts` those of
    the first SELECT and of all SELECTs before it in a UNION. `making` is the CTE that is being defined in a WITH.
    `signs` counts the operators of an ON that is kept short, see `Scopes.forced`.
    """

    clause: str = LIST
    kind: str = ""  # what it is for: "" the statement, "expr", "derived" or "cte"
    parens: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    right_from: int = 0  # the first of the sources to the right of the last JOIN
    joined: bool = False  # whether an ON or USING may follow
    signs: int = 0
    pending: frozenset[Reference] = frozenset()
    outward: frozenset[Reference] = frozenset()
    aliases: frozenset[bytes] = frozenset()
    outs: tuple[Reference, ...] = ()
    first: tuple[bytes, ...] | None = None
    parts: frozenset[bytes] = frozenset()
    ctes: tuple[tuple[bytes, Names], ...] = ()
    making: tuple[bytes, tuple[bytes, ...]] | None = None
    outer: Select | None = None
    back: Select | None = None
    cache: dict = field(default_factory=dict, repr=False)

    def key(self) -> tuple[object, ...]:
        return (
            self.clause, self.kind, self.parens, self.sources, self.right_from, self.joined, self.signs, self.pending,
            self.outward, self.aliases, self.outs, self.first, self.parts, self.ctes, self.making, self.outer, self.back,
        )  # fmt: skip

    @property
    def top(self) -> str:
        """The innermost open bracket; empty where there is none."""
        return self.parens[-1] if self.parens else ""

    @property
    def flat(self) -> bool:
        """Whether no bracket of an expression is open."""
        return not self.parens or self.parens[-1][0] == "j"

    @property
    def seen(self) -> tuple[Source, ...]:
        """The sources that names may refer to: in an ON within brackets, SQLite sees only those in the same brackets."""
        if self.clause == ON:
            for opened in reversed(self.parens):
                if opened[0] == "j":
                    return self.sources[int(opened.split(":")[2]) :]
        return self.sources

    @property
    def waits_for_rowid(self) -> bool:
        """Whether a rowid without qualifier waits for its table, which must then be the only one."""
        return any(not qualifier and name in ROWID for qualifier, name in self.pending)

    @property
    def sees_aliases(self) -> bool:
        return self.clause not in (LIST, FROM, LIMIT)

    @property
    def is_open(self) -> bool:
        """Whether a table may still be added for the sake of a column."""
        return self.clause in OPEN and not self.waits_for_rowid

    def finds(self, reference: Reference) -> bool:
        """Whether a column is in the tables of this very SELECT."""
        (qualifier, name), sources = reference, self.seen
        if name == STAR:
            return any(source.name == qualifier for source in sources)
        if qualifier:
            return any(source.name == qualifier and source.has(name) for source in sources)
        if len(sources) == 1:
            return sources[0].has(name)
        return any(name in source.columns.quoted for source in sources)

    def output(self) -> tuple[bytes, ...]:
        """The names of its columns, `*` expanded; one that nobody can name is empty."""
        names: list[bytes] = []
        for qualifier, name in self.outs:
            if name == STAR:
                starred = [source for source in self.sources if qualifier in (b"", source.name)]
                names += [column for source in starred for column in sorted(source.columns.quoted)]
            else:
                names.append(name)
        return tuple(names)


def changed(select: Select, **changes: object) -> Select:
    return replace(select, **changes, cache={})  # type: ignore[arg-type]
