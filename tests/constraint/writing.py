"""A model that writes at random under the constraint, a lexeme at a time, and then looks for an end."""

from text2sql.constraint.clauses import Grammar
from text2sql.constraint.lexer import GAP, Lexer, Position
from text2sql.constraint.resolve import Scopes

INVENTED = [b"T1", b"T2", b"a", b"n_1", b"Zz"]
PREFERRED = [
    b"from",
    b"where",
    b"on",
    b"join",
    b"as",
    b"group",
    b"order",
    b"union",
    b"select",
    b"with",
    b"using",
    b"natural",
]
ENDING = [b";", b")", b"from", b"end", b"then", b"when", b"as", b"by", b"like", b"and", b"join", b"*"]


def lexer(schema, loose=False):
    return Lexer(Grammar(Scopes(schema, loose)))


def feed(machine, position, text):
    for byte in text:
        position = machine.after(position, byte)
        if position is None:
            return None
    return position


def quoted(name, quote):
    closing = b"]" if quote == b"[" else quote
    return quote + (name if quote == b"[" else name.replace(quote, quote * 2)) + closing


def lexemes(machine, position, rng):
    """Some of what may come next, of every kind, each as written."""
    expect = machine.grammar.expect(position.mode, position.select)
    words = [word for names in expect.words for word in names.bare]
    found = [*rng.sample(words, min(len(words), 12)), *(word for word in PREFERRED + ENDING if word in words)]
    names = [name for some in expect.quoted for name in some.quoted if name]
    found += [quoted(name, rng.choice([b'"', b"`", b"["])) for name in rng.sample(names, min(len(names), 4))]
    found += [b'"no such"'] * expect.text + [b"'it''s'"] * expect.string + [b"1.5e3", b"2"] * expect.number
    if expect.new:
        found += [*INVENTED, b'"new ""one"""']
    return found + sorted(expect.operators)


def step(machine, position, lexeme):
    """The position after a lexeme and a space, None where it is not allowed."""
    after = feed(machine, position, lexeme + b" ")
    return after if after is not None and after.lex == GAP else None


def written(schema, rng, length, loose=False):
    """A text of about `length` lexemes that may end, None where none was found, and the machine that read it."""
    machine = lexer(schema, loose)
    position, text = Position(GAP, b"", *machine.grammar.first()), []
    while len(text) < length:
        options = lexemes(machine, position, rng)
        steps = [(lexeme, after) for lexeme in options if (after := step(machine, position, lexeme)) is not None]
        if not steps:
            assert machine.may_end(position), f"dead end after {b' '.join(text).decode()}"
            return b" ".join(text).decode()
        preferred = [one for one in steps if one[0] in PREFERRED]
        lexeme, position = rng.choice(preferred if preferred and rng.random() < 0.5 else steps)
        text.append(lexeme)
    for _ in range(60):
        ended = _ended(machine, position, list(text), rng)
        if ended is not None:
            return ended
    return None


def _ended(machine, position, text, rng):
    for _ in range(80 + 8 * len(text)):
        if machine.may_end(position):
            return b" ".join(text).decode()
        options = lexemes(machine, position, rng) + [quoted(name, b'"') for name in _awaited(machine, position)]
        steps = [(lexeme, after) for lexeme in options if (after := step(machine, position, lexeme)) is not None]
        assert steps, f"dead end after {b' '.join(text).decode()}"
        lexeme, position = rng.choice(_shortest(machine, position, steps, rng))
        text.append(lexeme)
    return None


def _awaited(machine, position):
    select = position.select
    return [pair[0] for pair in select.pending if pair[0] and not select.finds(pair)]


def _shortest(machine, position, steps, rng):
    """The steps that lead to an end, most of the time."""
    mode, by_text = position.mode[0], dict(steps)
    names = [one for one in steps if one[0] in {quoted(name, b'"') for name in _awaited(machine, position)}]
    if mode == "table_alias" and names:
        return names
    if mode == "table" and _awaited(machine, position) and b"as" in by_text and position.mode[1] == 0:
        return [(b"as", by_text[b"as"])]
    if mode in ("operand", "items") and rng.random() < 0.8:
        return [one for one in steps if one[0] in (b"2", b"*", b"select")][:1] or steps
    for preferred in (b")", b"end", b"from", b"then", b"and", b"join", b"as", b",", b"select", b"(", b"like", b"."):
        if preferred in by_text and rng.random() < 0.8:
            return [(preferred, by_text[preferred])]
    return steps
