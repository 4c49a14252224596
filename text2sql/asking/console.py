"""What `text2sql ask` prints, and the conversation that it has where no question is given."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from text2sql import cache, prompts, serialise
from text2sql.asking.session import Answer, Session
from text2sql.asking.table import legible, table
from text2sql.example import Schema

ABSTAINED = 3
"""The exit code of a question that gets no answer."""

PROMPT = "> "
COMMANDS = r"\schema [TABLE]   the tables and columns        \explain   how SQLite ran the last query" + "\n"
COMMANDS += r"\help             these lines                   \q         leave (or Ctrl-D)"
MAX_HISTORY = 1_000


def ask_once(session: Session, question: str, as_json: bool) -> int:
    """Print the answer to one question; returns the exit code."""
    answer = session.ask(question)
    print(to_json(answer) if as_json else as_text(answer))
    return ABSTAINED if answer.abstained else 0


def to_json(answer: Answer) -> str:
    """Everything that is known of the answer, as one line of JSON."""
    found: dict[str, Any] = {**asdict(answer), "abstained": answer.abstained is not None, "reason": answer.abstained}
    found["evidence"]["confidence"] = answer.evidence.confidence._asdict()
    return json.dumps(found, ensure_ascii=False)


def as_text(answer: Answer, width: int | None = None) -> str:
    """The SQL, then its rows or the reason why there are none."""
    width = width or shutil.get_terminal_size().columns
    lines = [legible(prompts.target(answer.sql)) + (";" if not answer.abstained else "")]
    if answer.repaired:
        lines.append("-- the second try: the first did not run")
    if len(answer.candidates) > 1:
        agreed, asked = max(one["votes"] for one in answer.candidates), sum(one["count"] for one in answer.candidates)
        lines.append(f"-- {agreed} of {asked} answers have this result")
    if answer.abstained:
        return "\n".join([f"-- not run: {lines[0]}", *lines[1:], f"no answer: {legible(answer.abstained)}"])
    assert answer.result is not None
    return "\n".join([*lines, "", table(answer.result, width)])


def converse(session: Session, read: Callable[[str], str] = input) -> int:
    """Answer question after question until the end of input; Ctrl-C ends a question, not the conversation."""
    print(f"{session.path}: {len(session.schema.tables)} tables. Ask, or type \\help.")
    last = ""
    with _history():
        while True:
            try:
                line = read(PROMPT).strip()
                if line in (r"\q", r"\quit"):
                    return 0
                if line.startswith("\\"):
                    print(command(session, line, last))
                elif line:
                    answer = session.ask(line)
                    last = answer.sql
                    print(as_text(answer), end="\n\n")
            except EOFError:
                print()
                return 0
            except KeyboardInterrupt:
                print()
            except ValueError as error:
                print(f"error: {error}", file=sys.stderr)


def command(session: Session, line: str, last: str) -> str:
    """What a line that begins with a backslash prints; `last` is the SQL of the last answer."""
    name, _, argument = line[1:].partition(" ")
    if name == "schema":
        return schema_text(session.schema, argument.strip())
    if name == "explain":
        return explained(session, last) if last else "nothing has been asked yet"
    return COMMANDS if name == "help" else f"{line}: no such command\n{COMMANDS}"


def schema_text(schema: Schema, name: str) -> str:
    """One table as its CREATE TABLE statement, or all tables, a line each."""
    if not name:
        return "\n".join(serialise.names(schema, serialise.Content()).splitlines())
    found = [one for one in schema.tables if one.name.lower() == name.lower()]
    return serialise.create_table(found[0], keys=True) if found else f"no table '{legible(name)}'; \\schema lists them"


def explained(session: Session, sql: str) -> str:
    """The query, what it reads, and SQLite's plan."""
    executed = session.explain(sql)
    if executed.result is None:
        return f"{legible(sql)}\nno plan: {legible(executed.reason)}"
    return "\n".join([legible(sql), *(f"  {legible(str(row[-1]))}" for row in executed.result["rows"])])


@contextlib.contextmanager
def _history() -> Any:
    """Lines of earlier conversations, by the arrow keys, where this Python has readline; kept in the cache folder."""
    try:
        import readline
    except ImportError:  # Windows, and Pythons that were built without
        yield
        return
    file = cache.folder() / "ask_history"
    with contextlib.suppress(OSError):
        readline.read_history_file(file)
    readline.set_history_length(MAX_HISTORY)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(file)
