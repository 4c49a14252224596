"""The normal form of an expression, in which two that say the same are equal whatever way they are written.

Case and the order of AND, OR and = do not count, BETWEEN is two comparisons, IN a list is an OR, a quoted number is a number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sqlglot import expressions as exp

from text2sql.sql.names import INVENTED, Reading

_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?")
_SYMBOLS: dict[type[exp.Expr], str] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.GT: ">",
    exp.GTE: ">=",
    exp.LT: "<",
    exp.LTE: "<=",
}
_WORDS: dict[type[exp.Expr], str] = {
    exp.Like: "like", exp.Glob: "glob", exp.In: "in", exp.Is: "is", exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/",
}  # fmt: skip
_FLIPPED = {"=": "=", "<>": "<>", ">": "<", ">=": "<=", "<": ">", "<=": ">="}
_OPPOSITE = {"=": "<>", "<>": "=", ">": "<=", ">=": "<", "<": ">=", "<=": ">"}


@dataclass(frozen=True, order=True)
class Form:
    """The normal form of an expression: with "value" for each literal, in full, and in full with the columns as written."""

    masked: str
    plain: str
    shown: str = field(compare=False)

    @classmethod
    def of(cls, text: str) -> Form:
        return cls(text, text, text)


class View:
    """A reading in which columns of `same` are the ones that they are mapped to, and those of `keys` are never NULL."""

    def __init__(self, reading: Reading, same: Mapping[str, str], keys: Collection[str]) -> None:
        self.names = reading.names
        self.same = same
        self.keys = keys

    def named(self, column: str) -> Form:
        name = self.same.get(column, column)
        return Form(name, name, readable(column))

    def forms(self, nodes: Iterable[exp.Expr]) -> list[Form]:
        return [self.form(node) for node in nodes]

    def form(self, node: exp.Expr) -> Form:
        """The normal form of one expression, in which a subquery is only said to be there."""
        if isinstance(node, exp.Query):
            return Form.of("(subquery)")
        if isinstance(node, (exp.Paren, exp.Alias)):
            return self.form(node.this)
        if isinstance(node, exp.Column):
            return self._column(node)
        if isinstance(node, (exp.Literal, exp.Boolean)) or (isinstance(node, exp.Neg) and node.is_number):
            return Form("value", _value(node), _value(node))
        if isinstance(node, exp.Not):
            return self._not(node.this.unnest())
        if isinstance(node, exp.Connector):
            return _connected(node.key, self.forms(parts(node, type(node))))
        if isinstance(node, exp.Between):
            return _connected("and", self._between(node))
        if isinstance(node, exp.In) and node.expressions:
            return _connected("or", self._each(node, "="))
        if type(node) in _SYMBOLS:
            return _comparison(_SYMBOLS[type(node)], self.form(node.this), self.form(node.expression))
        return self._call(node)

    def conjuncts(self, node: exp.Expr) -> list[Form]:
        """The forms of a condition that is itself several connected by AND."""
        if isinstance(node, exp.Between):
            return self._between(node)
        if isinstance(node, exp.Not) and isinstance(node.this.unnest(), exp.In) and node.this.unnest().expressions:
            return self._each(node.this.unnest(), "<>")
        return [self.form(node)]

    def _between(self, node: exp.Between, symbols: tuple[str, str] = (">=", "<=")) -> list[Form]:
        bounds = (self.form(node.args["low"]), self.form(node.args["high"]))
        return [_comparison(symbol, self.form(node.this), bound) for symbol, bound in zip(symbols, bounds)]

    def _column(self, node: exp.Column) -> Form:
        name = self.names.get(id(node), node.name.lower())
        if not isinstance(name, str):
            return self.form(name)
        return self.named(name)

    def _each(self, node: exp.In, symbol: str) -> list[Form]:
        return [_comparison(symbol, self.form(node.this), value) for value in self.forms(node.expressions)]

    def _not(self, node: exp.Expr) -> Form:
        if isinstance(node, exp.Not):
            return self.form(node.this)
        if isinstance(node, exp.Between):
            return _connected("or", self._between(node, ("<", ">")))
        if isinstance(node, exp.In) and node.expressions:
            return _connected("and", self._each(node, "<>"))
        if type(node) in _SYMBOLS:
            return _comparison(_OPPOSITE[_SYMBOLS[type(node)]], self.form(node.this), self.form(node.expression))
        return built("not {}".format, [self.form(node)])

    def _call(self, node: exp.Expr) -> Form:
        """A function, an operator, or what has no parts."""
        name = node.name.lower() if isinstance(node, exp.Anonymous) else node.key
        if isinstance(node, exp.Count) and (
            isinstance(node.this, (exp.Star, exp.Literal)) or self.names.get(id(node.this)) in self.keys
        ):
            return Form.of("count(*)")
        parts = self.forms(node.iter_expressions())
        if not parts:
            return Form.of(node.sql("sqlite").lower())
        if isinstance(node, (exp.Add, exp.Mul)):
            parts.sort()
        if isinstance(node, exp.Distinct):
            return built(lambda *texts: f"distinct {', '.join(texts)}", parts)
        negation = "not " if node.args.get("negate") else ""
        if type(node) in _WORDS and len(parts) == 2:
            return built(f"{negation}{{}} {_WORDS[type(node)]} {{}}".format, parts)
        return built(lambda *texts: f"{negation}{name}({', '.join(texts)})", parts)


def built(build: Callable[..., str], forms: Sequence[Form]) -> Form:
    """A form from those of its parts; `build` is called with their texts, once for each of a form's three."""
    texts = zip(*((form.masked, form.plain, form.shown) for form in forms))
    return Form(*(build(*each) for each in texts))


def _connected(word: str, forms: list[Form]) -> Form:
    if len(forms) == 1:
        return forms[0]
    return built(lambda *texts: f"({f' {word} '.join(texts)})", sorted(forms))


def _comparison(symbol: str, left: Form, right: Form) -> Form:
    """A comparison with its value to the right; without one, the sides in a fixed order."""
    fixed = [form.masked in ("value", "(subquery)") for form in (left, right)]
    if fixed[0] > fixed[1] or (fixed[0] == fixed[1] and right < left):
        left, right, symbol = right, left, _FLIPPED[symbol]
    return built(f"{{}} {symbol} {{}}".format, [left, right])


def _value(node: exp.Expr) -> str:
    """A literal as text; a number is the same in quotes and without, unless it begins with a zero as codes do."""
    if isinstance(node, exp.Boolean):
        return str(int(node.this))
    text = f"-{node.name}" if isinstance(node, exp.Neg) else node.name
    if _NUMBER.fullmatch(text):
        return f"{float(text):.15g}"
    return f"'{text}'" if node.is_string else text


def parts(node: exp.Expr | None, connector: type[exp.Connector]) -> Iterator[exp.Expr]:
    """The conditions that AND (or OR) connects, brackets undone."""
    stack = [node]
    while stack:
        part = stack.pop()
        if isinstance(part, (exp.Where, exp.Having, exp.Paren)):
            stack.append(part.this)
        elif isinstance(part, connector):
            stack += [part.right, part.left]
        elif part is not None:
            yield part


def readable(name: str) -> str:
    """A label or column in words."""
    return name.removeprefix(INVENTED).replace("^", "outer ").replace("#", " no. ")
