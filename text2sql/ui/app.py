"""The page's addresses: asking, lists of runs and sweeps, two runs side by side, and the reports that runs have written.

Pages are written by templates that escape all they are given, and scripts add text nodes only: questions, model output and
database content are never markup. A report has scripts of its own and may come from anywhere, so it is served into a
sandbox: it runs in an origin of its own, without this page's cookie and without a network.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.types import ASGIApp

from text2sql import sweeps
from text2sql.asking import trained
from text2sql.asking.question import normalised
from text2sql.data import snapshot
from text2sql.data.sqlite import read_tables
from text2sql.report import page as report
from text2sql.sweeps import formats
from text2sql.ui import listing, samples
from text2sql.ui.access import Access, Guard
from text2sql.ui.answerer import Answerer, Busy
from text2sql.ui.places import Places

log = logging.getLogger(__name__)

HERE = Path(__file__).resolve().parent
ASSETS = {
    "page.css": report.HERE / "page.css",
    "elements.js": report.HERE / "elements.js",
    "sql.js": report.HERE / "sql.js",
    "detail.js": report.HERE / "detail.js",
    "ui.css": HERE / "assets" / "ui.css",
    "ask.js": HERE / "assets" / "ask.js",
    "compare.js": HERE / "assets" / "compare.js",
}
"""Our own files by the name that a page asks for; the look of a report and how it shows SQL and rows are a report's."""
TYPES = {".css": "text/css", ".js": "text/javascript"}
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Asked(BaseModel):
    """A question, the name of a database and the key of a run."""

    question: str
    database: str
    run: str


def build(places: Places, answerer: Answerer, access: Access) -> ASGIApp:
    """The page as an ASGI application."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(answerer.close)

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    render = _renderer()
    _add_asking(app, places, answerer, render)
    _add_browsing(app, places, render)
    _add_files(app, places)
    _add_errors(app, render)
    return Guard(app, access)


def _renderer() -> Callable[..., Response]:
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def render(name: str, status: int = 200, **values: Any) -> Response:
        text = templates.get_template(f"{name}.html").render(page=name, **values)
        return Response(text.encode("utf-8", "xmlcharrefreplace"), status, media_type="text/html")

    return render


def _json(value: Any, status: int = 200) -> Response:
    """ASCII, so that half a surrogate pair is no error."""
    return Response(json.dumps(value, allow_nan=False), status, media_type="application/json")


def _add_asking(app: FastAPI, places: Places, answerer: Answerer, render: Callable[..., Response]) -> None:
    @app.get("/")
    def ask_page(run: str = "", database: str = "") -> Response:
        trained = [row for row in listing.all_rows(places) if row.has_adapter]
        return render("ask", runs=trained, databases=list(places.databases), run=run, database=database)

    @app.post("/ask")
    async def ask(asked: Asked) -> Response:
        run, database = places.run(asked.run), places.databases[asked.database]
        trained.adapter_of(run)
        answer = await asyncio.wrap_future(answerer.ask(run, database, normalised(asked.question)))
        return _json(_answer(answer))

    @app.get("/work")
    def work() -> Response:
        """What is being done, for a page that waits; an empty text for nothing."""
        now = answerer.work
        return _json({"doing": now.doing if now else "", "seconds": now.seconds if now else 0})

    @app.get("/schema")
    def schema(database: str) -> Response:
        file = places.databases[database]
        return _json(asdict(read_tables(snapshot.take(file, "the database"), str(file))))


def _answer(answer: Any) -> dict[str, Any]:
    """A text2sql.asking.session.Answer for the page, its cells as a report shows them."""
    result = answer.result
    if result is not None:
        result = {**result, "rows": [[report.cell(value) for value in row] for row in result["rows"]]}
    return {
        "question": answer.question,
        "sql": answer.sql,
        "abstained": answer.abstained,
        "result": result,
        "missing": answer.evidence.missing,
        "reads": answer.reads,
        "repaired": answer.repaired,
        "agreed": max((one["votes"] for one in answer.candidates), default=0),
        "asked": sum(one["count"] for one in answer.candidates),
        "confidence": answer.evidence.confidence.lowest,
        "seconds": answer.seconds,
    }


def _add_browsing(app: FastAPI, places: Places, render: Callable[..., Response]) -> None:
    @app.get("/runs")
    def runs_page() -> Response:
        return render("runs", runs=listing.single_rows(places), sweeps=listing.sweeps(places), roots=places.roots)

    @app.get("/sweeps/{key:path}")
    def sweep_page(key: str) -> Response:
        """A sweep's jobs, best first, with links to those that have reports, and its groups over seeds."""
        folder = places.folder(key)
        table = sweeps.read([folder])
        header, *lines = formats.job_rows(table)
        return render(
            "sweep",
            key=key,
            folder=folder,
            report=(folder / listing.PAGE).is_file(),
            note=formats.order_said(table),
            header=header,
            lines=list(zip(lines, listing.linked_jobs(places, table))),
            groups=formats.group_rows(table) if table.groups else [],
            groups_said=formats.groups_said(table) if table.groups else "",
            repeat=formats.repeat_lines(table),
        )

    @app.get("/compare")
    def compare_page(a: str = "", b: str = "", show: str = "all", words: str = "", number: int = 1) -> Response:
        """Page `number` of what runs `a` and `b` answered to the same questions, those that `show` and `words` leave."""
        answered = [row for row in listing.all_rows(places) if row.has_answers]
        known: dict[str, Any] = {"runs": answered, "a": a, "b": b, "show": show, "words": words}
        if not (a and b):
            return render("compare", **known, pairs=None)
        found = samples.pairs(places.run(a), places.run(b))
        chosen = samples.chosen(found, show, words)
        last = max(1, -(-len(chosen) // samples.PER_PAGE))
        number = min(max(1, number), last)
        return render(
            "compare",
            **known,
            pairs=chosen[(number - 1) * samples.PER_PAGE : number * samples.PER_PAGE],
            kinds=[(name, title, samples.counts(found)[name]) for name, (title, _) in samples.SHOWN.items()],
            total=len(chosen),
            number=number,
            last=last,
        )


def _add_files(app: FastAPI, places: Places) -> None:
    @app.get("/reports/{key:path}/report.html")
    def report_page(key: str) -> Response:
        file = places.folder(key) / listing.PAGE
        if not file.is_file() or file.is_symlink():
            raise KeyError(key)
        headers = {"Content-Security-Policy": REPORT_POLICY}
        return Response(file.read_bytes(), media_type="text/html", headers=headers)

    @app.get("/assets/{name}")
    def asset(name: str) -> Response:
        file = ASSETS[name]
        return Response(file.read_bytes(), media_type=TYPES[file.suffix])


def _add_errors(app: FastAPI, render: Callable[..., Response]) -> None:
    """Every error as a message: JSON where a script waits for it, a page elsewhere."""

    def said(request: Request, status: int, message: str) -> Response:
        if request.url.path in ("/ask", "/schema"):
            return _json({"error": message}, status)
        return render("error", status, message=message)

    @app.exception_handler(ValueError)
    async def mistake(request: Request, error: ValueError) -> Response:
        return said(request, 400, str(error))

    @app.exception_handler(RequestValidationError)
    async def no_question(request: Request, error: RequestValidationError) -> Response:
        return said(request, 400, f"not a request of this page: {error.errors()[0]['msg']}")

    @app.exception_handler(Busy)
    async def busy(request: Request, error: Busy) -> Response:
        return said(request, 409, str(error))

    @app.exception_handler(KeyError)
    async def unknown(request: Request, error: KeyError) -> Response:
        return said(request, 404, "there is no such run, sweep or database among those that this page was started with")

    @app.exception_handler(404)
    async def nothing(request: Request, error: Exception) -> Response:
        return said(request, 404, "there is no page at this address")

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> Response:
        return said(request, 500, f"{type(error).__name__}: {error}; the terminal of `text2sql ui` has the details")
