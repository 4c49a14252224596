"""Which names may be written in a SELECT at this point, by SQLite's rules of scope and the tables of one Schema."""

from __future__ import annotations

import string
from collections.abc import Iterator

from text2sql.constraint.scope import (
    FROM,
    GROUP,
    LIMIT,
    LIST,
    ON,
    ORDER,
    ROWID,
    STAR,
    Reference,
    Select,
    Source,
    changed,
)
from text2sql.constraint.words import Names, known
from text2sql.example import Schema

MAX_KEPT = 100_000
USUAL = frozenset(
    [f"{a}{b}".encode() for a in string.ascii_lowercase for b in ("", *string.digits)]
    + [f"t{number}".encode() for number in range(10, 100)]
)
"""The aliases that may be used before the FROM that makes them, unless all may: T1, a, s2."""


class Scopes:
    """The tables of a schema, and what a SELECT may name; `loose` as in `Constraint`."""

    def __init__(self, schema: Schema, loose: bool) -> None:
        self.loose = loose
        self.tables = {
            lowered(table.name): known(lowered(column.name) for column in table.columns) for table in schema.tables
        }
        self.rowid = known(ROWID)
        self.usual = known(USUAL)
        self._selects: dict[tuple[object, ...], Select] = {}
        self._names: dict[frozenset[bytes], Names] = {}

    def names(self, names: frozenset[bytes]) -> Names:
        """The same object for the same names."""
        found = self._names.get(names)
        if found is None:
            if len(self._names) > MAX_KEPT:
                self._names.clear()
            found = self._names[names] = known(names)
        return found

    def changed(self, select: Select, **changes: object) -> Select:
        """A copy with these changes; the same object for the same SELECT."""
        return self.interned(changed(select, **changes))

    def interned(self, select: Select) -> Select:
        if len(self._selects) > MAX_KEPT:
            self._selects.clear()
        return self._selects.setdefault(select.key(), select)

    def readable(self, select: Select) -> dict[bytes, tuple[Names, bool]]:
        """The columns of what FROM may name here, and whether it is a table; a CTE hides a table of its name."""
        cached = select.cache.get("readable")
        if cached is None:
            cached = select.cache["readable"] = {
                **{name: (columns, True) for name, columns in self.tables.items()},
                **{name: (columns, False) for name, columns in select.ctes},
            }
        return cached

    # --- columns without qualifier

    def columns(self, select: Select) -> tuple[Names, ...]:
        """The columns that may be written without qualifier; more than `allows` where names are free."""
        cached = select.cache.get("columns")
        if cached is None:
            cached = select.cache["columns"] = tuple(dict.fromkeys(self._columns(select)))
        return cached

    def _columns(self, select: Select) -> Iterator[Names]:
        if select.clause == LIMIT:
            return
        if select.clause == ORDER and select.first is not None:
            yield from (source.columns for source in select.sources)
            yield self.names((frozenset(select.output()) | select.parts | select.aliases) - {b""})
            return
        for one in self.chain(select):
            yield from (source.columns for source in one.seen)
            if len(one.sources) == 1 and one.sources[0].is_table and one.clause not in (LIST, FROM):
                yield self.rowid
            if one.aliases and one.sees_aliases:
                yield self.names(one.aliases)
        if self.grows(select):
            yield from (columns for _, columns in self._joinable(select))
            if select.clause == LIST and self._rowid_can_wait(select):
                yield self.rowid
        for one in self.chain(select):
            if one is not select and one.is_open:
                yield from (columns for _, columns in self._joinable(one))

    def chain(self, select: Select | None) -> Iterator[Select]:
        """The SELECT and those around it, from the inside out, as far as names are seen: GROUP BY and ORDER BY see no other."""
        while select is not None and select.clause != LIMIT:
            yield select
            select = None if select.clause in (GROUP, ORDER) else select.outer

    def grows(self, select: Select) -> bool:
        """Whether a column may be written here before its table."""
        return select.clause == LIST or (self.loose and select.is_open)

    def _joinable(self, select: Select) -> list[tuple[bytes, Names]]:
        """What may be added to FROM; where a rowid waits, what holds all that waits with it."""
        readable = self.readable(select)
        if not select.waits_for_rowid:
            return [(name, columns) for name, (columns, _) in readable.items()]
        needed = {name for _, name in select.pending} - ROWID
        return [(name, columns) for name, (columns, table) in readable.items() if table and needed <= columns.quoted]

    def joinable(self, select: Select) -> Names:
        """The tables and CTEs that FROM may name here."""
        names = frozenset(name for name, _ in self._joinable(select))
        if self.forced(select):
            names = (names - {source.name for source in select.sources}) or names
        return self.names(names).after_dot

    def _rowid_can_wait(self, select: Select) -> bool:
        if any(qualifier for qualifier, _ in select.pending):
            return False
        needed = {name for _, name in select.pending} - ROWID
        return any(table and needed <= columns.quoted for columns, table in self.readable(select).values())

    def allows(self, select: Select, name: bytes) -> bool:
        """Whether a column may be written without qualifier."""
        found = any(name in names.quoted for names in self.columns(select))
        return found or (self.free_names(select) and name not in ROWID)

    def free_names(self, select: Select) -> bool:
        """Whether any name at all may be written: a derived table may be going to have it."""
        if not self.loose or select.clause == LIMIT or (select.clause == ORDER and select.first is not None):
            return False
        own = select.is_open
        return own or any(one.is_open for one in self.chain(select.outer))

    # --- columns with a qualifier

    def qualifiers(self, select: Select) -> tuple[Names, ...]:
        cached = select.cache.get("qualifiers")
        if cached is None:
            cached = select.cache["qualifiers"] = tuple(dict.fromkeys(self._qualifiers(select)))
        return cached

    def _qualifiers(self, select: Select) -> Iterator[Names]:
        if select.clause == LIMIT:
            return
        bound = {s.name for one in self.chain(select) for s in one.seen if s.name and self.of_source(s)}
        yield self.names(frozenset(bound))
        for one in self.chain(select):
            if self._awaits(one, select):
                yield self.names(
                    frozenset(name for name, (c, table) in self.readable(one).items() if table or c.quoted)
                )
                yield self.names(frozenset(qualifier for qualifier, _ in one.pending if qualifier))
                if self.readable(one):
                    yield self.usual

    def _awaits(self, one: Select, select: Select) -> bool:
        """Whether a qualifier written in `select` may be that of a table still to come in `one`, itself or around it."""
        return (self.grows(one) if one is select else True) and one.is_open

    def of_source(self, source: Source) -> bool:
        return source.is_table or bool(source.columns.quoted)

    def qualified(self, select: Select, qualifier: bytes) -> tuple[Names, ...]:
        """The columns that may follow a qualifier and its dot."""
        found: list[Names] = []
        for one in self.chain(select):
            for source in one.seen:
                if source.name == qualifier:
                    found += [source.columns, self.rowid] if source.is_table else [source.columns]
            if self._awaits(one, select):
                for columns, table in self._candidates(one, select, qualifier):
                    found += [columns, self.rowid] if table else [columns]
        return tuple(dict.fromkeys(names.after_dot for names in found))

    def _candidates(self, one: Select, select: Select, qualifier: bytes) -> list[tuple[Names, bool]]:
        """What the qualifier may come to stand for in `one`: it has all columns that were written with it."""
        readable = self.readable(one)
        needed = self._written(one, qualifier)
        for inner in self.chain(select):
            if inner is one:
                break
            needed |= {name for q, name in inner.outward if q == qualifier}
        if qualifier in readable and not self.loose:
            readable = {qualifier: readable[qualifier]}
        elif qualifier not in self.usual.quoted and not self.loose:
            return []
        return [
            (columns, table)
            for columns, table in readable.values()
            if all(name in columns.quoted or (table and name in ROWID) for name in needed)
        ]

    def _written(self, select: Select, qualifier: bytes) -> set[bytes]:
        return {
            name
            for q, name in select.pending
            if q == qualifier and name != STAR and self.found_around(select.outer, (q, name)) is not True
        }

    # --- what a reference does to its SELECT

    def refer(self, select: Select, reference: Reference) -> Select:
        """The SELECT after a column was written in it."""
        if select.finds(reference) or self.found_around(select.outer, reference) is True:
            return select
        if not reference[0] and reference[1] in select.aliases and select.sees_aliases:
            return select
        if select.clause == ORDER and select.first is not None:
            return select
        if self.grows(select):
            return self.changed(select, pending=select.pending | {reference})
        return self.changed(select, outward=select.outward | {reference})

    def found_around(self, outer: Select | None, reference: Reference) -> bool | None:
        """Whether a column is in a SELECT from `outer` on; None where it may still come to be."""
        answer: bool | None = False
        qualifier, name = reference
        for one in self.chain(outer):
            if one.finds(reference) or (not qualifier and name in one.aliases and one.sees_aliases):
                return True
            if answer is False and one.is_open and self._may_join(one, reference):
                answer = None
        return answer

    def _may_join(self, one: Select, reference: Reference) -> bool:
        qualifier, name = reference
        if self.loose:
            return True
        if not qualifier:
            return any(name in columns.quoted for columns, _ in self.readable(one).values())
        return any(
            name in columns.quoted or (table and name in ROWID)
            for columns, table in self._candidates(one, one, qualifier)
        )

    def leftover(self, select: Select) -> frozenset[Reference] | None:
        """The columns for the SELECTs around if FROM ends here; None where one of them can be in none of these."""
        if "leftover" not in select.cache:
            select.cache["leftover"] = self._leftover(select)
        return select.cache["leftover"]

    def _leftover(self, select: Select) -> frozenset[Reference] | None:
        rest = [reference for reference in select.pending if not select.finds(reference)]
        if any(name == STAR for _, name in rest) or (
            not select.sources and any(name == STAR for _, name in select.outs)
        ):
            return None
        waiting = set()
        for reference in (*rest, *select.outward):
            found = self.found_around(select.outer, reference)
            if found is False:
                return None
            if found is None:
                waiting.add(reference)
        return frozenset(waiting)

    def forced(self, select: Select) -> bool:
        """Whether FROM cannot end yet, for want of a table that an earlier column is of: what the model wants may be barred.

        It would then dodge, into aliases that read like keywords and conditions without end; so only a short ON, the usual
        aliases and tables that are not there yet may come next. Never in loose mode.
        """
        return not self.loose and select.clause in (FROM, ON) and self.leftover(select) is None

    def known_aliases(self, select: Select) -> Names:
        """The aliases that the last source may have where they are not free: usual ones, and those that columns wait for."""
        names = USUAL | {qualifier for qualifier, _ in select.pending if qualifier}
        return self.names(frozenset(name for name in names if self.may_be_called(select, name)))

    def handed(self, back: Select, references: frozenset[Reference], skip_own: bool) -> Select:
        """`back` with the columns that a subquery in it left over; `skip_own` where it sees none of its neighbours."""
        for reference in references:
            if not skip_own and back.is_open and self._may_join(back, reference):
                back = self.changed(back, pending=back.pending | {reference})
            elif skip_own or not back.finds(reference):
                back = self.changed(back, outward=back.outward | {reference})
        return back

    def may_be_called(self, select: Select, name: bytes) -> bool:
        """Whether the last source may have this alias: it has all columns that were written with it."""
        source = select.sources[-1]
        return self.loose or all(
            column == STAR or source.has(column) or self.found_around(select.outer, (qualifier, column)) is True
            for qualifier, column in select.pending
            if qualifier == name
        )


def lowered(name: str) -> bytes:
    """As SQLite compares names: only ASCII has a lower case."""
    return name.encode("utf-8", "replace").lower()
