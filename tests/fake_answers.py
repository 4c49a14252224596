"""Sessions for the page that answer at once, without a model, and how a test asks and reads the page."""

from __future__ import annotations

import re
from html import unescape
from types import SimpleNamespace

from text2sql.abstention import Evidence
from text2sql.asking.session import Answer
from text2sql.confidence import Confidence

SURE = Confidence(0.99, 0.9)
RESULT = {"columns": ["COUNT(*)"], "rows": [[10]], "num_rows": 1}
SQL = "SELECT COUNT(*) FROM orders WHERE status = 'open'"
QUESTION = "How many orders are open?"


def answer(question, sql=SQL, result=RESULT, **fields):
    """What a session says to a question."""
    known = {"abstained": None, "evidence": Evidence((), SURE), "reads": ("orders.status",), "seconds": 0.5}
    return Answer(question, sql, result=result, **{**known, **fields})


class Sessions:
    """Opens sessions that say `answers`, a function from the question, and remembers what was opened and closed."""

    def __init__(self, answers=answer):
        self.answers, self.opened, self.closed = answers, [], 0

    def __call__(self, run, database, speaker):
        self.opened.append((run.name, database.name, "kept" if speaker else "loaded"))
        return SimpleNamespace(ask=lambda question: self.answers(question), close=self._close, speaker=object())

    def _close(self):
        self.closed += 1


def ask(client, question=QUESTION, run="0/one", database="shop", **more):
    """Ask the page."""
    return client.post("/ask", json={"question": question, "run": run, "database": database}, **more)


def words(response):
    """What a reader sees of a page."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", response.text)).split())
