"""Split SQL into words as Spider's official evaluator does, which has the Natural Language Toolkit do it.

process_sql.py in github.com/taoyds/test-suite-sql-eval splits text with nltk.word_tokenize (nltk 3.10.4 was measured),
which first cuts it into sentences by what it learnt from newspapers. Its abbreviations are here, its 20,000 word
histories are not. They matter only where a full stop follows an abbreviation or a single letter, and then a word with a
capital ("ORDER BY st. Hence ..."): words of SQL are known here, and any other word of letters only is taken for one that
newspapers begin sentences with. Pairs of words that go together in newspapers ("3. Credit") are not known either, nor
what becomes of an "=" that begins a text.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from itertools import pairwise


class Unparsable(ValueError):
    """The text is no query to the official evaluator."""


_STRING = re.compile(r'"[^"]*"')
_MARKS = r";@#$%&?!*()\[\]{}<>"
_PLAIN_WORD = re.compile(rf"(?:[^\s,:{_MARKS}]+|[,:](?=\d))+|[,:{_MARKS}]")
_NOT_PLAIN = re.compile(r"[.,:`-](?:(?<=\.)(?!\w)|(?<=[,:])[,:]|(?<=`)|(?<=-)-)|cannot|gimme|gonna|gotta|lemme|wanna")

_SEPARATOR = re.compile(r"[,:](?:\D|$)")
_SPACED = r" \g<0> "
_APART = re.compile(rf"\.\.+|``|--|[`{_MARKS}«“‘„»”’\u2012-\u2015]")
_SLURRED = re.compile(r"(?i)\b(can(?=not\b)|gim(?=me\b)|gon(?=na\b)|got(?=ta\b)|lem(?=me\b)|wan(?=na\s))(not|me|na|ta)")
_CLOSING = "])}>\"' »”’"


def tokenize(sql: str) -> list[str]:
    """The words of a text in lower case; strings keep their case and get double quotes. Raises Unparsable for odd quotes.

    "<=", ">=" and "!=" are one word, also where a space is inside; "a=1" is one word too, as nothing splits at "=".
    """
    text = sql.replace("'", '"')
    strings: dict[str, str] = {}

    def named(match: re.Match[str]) -> str:
        name = f"__val_{match.start()}_{match.end() - 1}__"
        strings[name] = match[0]
        return name

    if '"' in text:
        if text.count('"') % 2:
            raise Unparsable("a quote that is not closed")
        text = _STRING.sub(named, text)
    words = [strings.get(word, word) for word in _words(text)] if strings else _words(text)
    return _with_comparisons(words) if "=" in words else words


def _words(text: str) -> list[str]:
    """What nltk.word_tokenize makes of a text without quotes, in lower case."""
    if text.isascii():
        lower = text.lower()
        if not _NOT_PLAIN.search(lower):
            return _PLAIN_WORD.findall(lower)
    text = "\n".join(map(_with_last_stop_apart, _sentences(text)))
    # Two characters at a time: of two separators in a row, the second stays with what follows it.
    text = _SEPARATOR.sub(lambda match: f" {match[0][0]} {match[0][1:]}", text)
    text = _SLURRED.sub(r" \1 \2 ", f" {_APART.sub(_SPACED, text)} ")
    return [word.lower() for word in text.split()]


def _with_last_stop_apart(sentence: str) -> str:
    body = sentence.rstrip().rstrip(_CLOSING)
    if len(body) > 1 and body[-1] == "." and body[-2] != ".":
        return f"{body[:-1]} . {sentence[len(body) :]}"
    return sentence


def _with_comparisons(words: list[str]) -> list[str]:
    second = {at for at, word in enumerate(words) if word == "=" and at and words[at - 1] in ("!", ">", "<")}
    if not second:
        return words
    return [word + "=" if at + 1 in second else word for at, word in enumerate(words) if at not in second]


# Sentences: a full stop is split from the word before it at the end of a sentence only.

_BESIDE_WORDS = r"[)\";}\]*:@'({\[‘’“”«»?!]"
_STOP = re.compile(rf"[.?!](?=(?P<after>{_BESIDE_WORDS}|\s+(?P<next>\S+)))")
_RUN = r"--+|\.\.+|(?:\.\s){2,}\."
_CHUNK = re.compile(
    rf"{_RUN}|(?![(\"`{{\[:;&#*@)}}\]\-,])\S+?(?=\s|$|{_BESIDE_WORDS}|{_RUN}|,(?:$|\s|{_BESIDE_WORDS}|{_RUN}))|\S"
)
_CLOSED = re.compile(r"[\"')\]}‘’“”«»]+?(?:\s+|(?=--)|$)", re.MULTILINE)
_INITIAL = re.compile(r"[^\W\d]\.")
_NUMBER = re.compile(r"-?[.,]?\d[\d,.-]*")

_ABBREVIATIONS = frozenset(
    """a.a a.c a.d a.g a.h a.m a.m.e a.s a.t adm ala ariz aug ave b.f b.v bros c c.i.t c.o.m.b c.v calif chg cie co col
    colo conn corp cos ct d d.c d.h d.w dec dr e e.f e.h e.l e.m f f.g f.j feb fla fri ft g g.d g.f g.k ga gen h h.c h.f
    h.m i.m.s ill inc j.b j.c j.j j.k j.p j.r jan jr k kan ky l l.a l.f l.p lt ltd m m.b.a m.d.c m.j maj messrs mg mich
    minn mr mrs ms n n.c n.d n.h n.j n.m n.v n.y nev nov oct ok okla ore p p.a.m p.m pa ph.d prof r r.a r.h r.i r.j r.k
    r.t rep reps s s.a s.a.y s.c s.g s.p.a s.s sen sep sept sr st sw t t.j tenn tues u.k u.n u.s u.s.a u.s.s.r v va vs
    vt w w.c w.r w.va w.w wash wed wis yr""".split()
)
# Words of SQL that the newspapers never wrote small, and that they wrote with a capital inside a sentence.
_NEVER_SMALL = frozenset("asc avg desc intersect max min null".split())
_CAPITAL_INSIDE = frozenset(
    """all and as by case count cross end from group having is join left like limit natural not on or order then union
    where with""".split()
)


def _sentences(text: str) -> Iterator[str]:
    spans, begin = [], 0
    for stop in _ends(text):
        spans.append((begin, stop.end()))
        begin = stop.start("next") if stop["next"] else stop.end()
    spans.append((begin, len(text.rstrip())))
    taken = 0
    for (start, end), following in zip(spans, [*spans[1:], (0, 0)]):
        start += taken
        taken = 0
        # Brackets and quotes that close after the stop belong to the sentence before.
        if closed := _CLOSED.match(text, *following):
            end = following[0] + len(closed[0].rstrip())
            taken = closed.end() - following[0]
        yield text[start:end]


def _ends(text: str) -> Iterator[re.Match[str]]:
    """The stops that end a sentence; of several in one word (between whitespace) only the last is looked at."""
    last, word_start, word_end = None, 0, 0
    for stop in _STOP.finditer(text):
        before = text[word_end : stop.start()]
        space = max(map(before.rfind, string.whitespace))
        start = word_end + space + 1 if space > 0 else word_start
        if last and word_end <= start and _has_break(text[word_start:word_end] + last[0] + last["after"]):
            yield last
        last, word_start, word_end = stop, start, stop.start()
    if last and _has_break(text[word_start:word_end] + last[0] + last["after"]):
        yield last


def _has_break(context: str) -> bool:
    chunks = [chunk for line in context.split("\n") for chunk in _CHUNK.findall(line)]
    return any(_is_break(chunk, following) for chunk, following in pairwise(chunks))


def _is_break(chunk: str, following: str) -> bool:
    """Whether `chunk` ends a sentence when `following` comes after it: the two passes of the Punkt model in one."""
    if not chunk.endswith("."):
        return chunk in ("?", "!")
    word, name = chunk[:-1].lower(), following.removesuffix(".").lower()
    inside = following[0].islower() or following in (";", ":", ",", ".", "!", "?")
    capital = following[0].isupper()
    begins = capital and name.isalpha() and name not in _NEVER_SMALL
    if _INITIAL.fullmatch(chunk):
        return word not in _ABBREVIATIONS and not inside and (begins or not capital)
    if _NUMBER.fullmatch(chunk):
        return not inside
    if word.rpartition("-")[2] in _ABBREVIATIONS or (word and not word.strip(".")):
        return begins and name not in _CAPITAL_INSIDE
    return True
