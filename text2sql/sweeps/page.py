"""The page of a sweep, report.html: its table, its plots and the way to each job's own page, in one file without a network.

Overrides, errors and labels are anybody's text here. They are in the page only as escaped text and as values of quoted
attributes; a link is built of folder names, each percent-encoded and none absolute. The script sorts the table by moving
rows that are there, and a Content-Security-Policy allows it and the style sheet by their hashes and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from text2sql.report.page import HERE as REPORT
from text2sql.sweeps import formats, overrides, plots
from text2sql.sweeps.table import Line, Table

STYLE = """
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 1.5rem; }
.plots figure { margin: 0; }
.plots img { width: 100%; height: auto; background: #fff; border: 1px solid var(--line); border-radius: 5px; }
.plots figcaption { font-weight: 600; margin-bottom: 0.375rem; }
tbody tr.best > * { font-weight: 650; background: var(--tint); }
td.reason { min-width: 14rem; max-width: 40rem; overflow-wrap: anywhere; color: var(--quiet); }
td.setting { overflow-wrap: anywhere; max-width: 18rem; }
td.short { white-space: nowrap; }
#again pre { margin: 0.25rem 0 0.75rem; }
.failed, .interrupted, .unreadable { color: var(--wrong); }
"""
SCRIPT = """
"use strict";
// A press on a column's title sorts the rows by its cells' data-sort: numbers by size, then texts, then empty cells.
function before(first, second, sign) {
  if (first === second) return 0;
  if (first === "" || second === "") return first === "" ? 1 : -1;
  const a = Number(first), b = Number(second);
  if (Number.isNaN(a) !== Number.isNaN(b)) return Number.isNaN(a) ? 1 : -1;
  return sign * (Number.isNaN(a) ? first.localeCompare(second) : a - b);
}
for (const table of document.querySelectorAll("table.sortable")) {
  const titles = [...table.tHead.rows[0].cells];
  titles.forEach((title, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...title.childNodes);
    title.append(button);
    button.addEventListener("click", () => {
      const sign = title.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      titles.forEach((other) => other.removeAttribute("aria-sort"));
      title.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => before(a.cells[column].dataset.sort, b.cells[column].dataset.sort, sign));
      table.tBodies[0].append(...rows);
    });
  });
}
"""
POLICY = (
    "default-src 'none'; style-src '{style}'; script-src '{script}'; img-src data:; base-uri 'none'; form-action 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


def write(table: Table, sweep: Path, output: Path | None = None) -> tuple[Path, list[Path]]:
    """Write report.html and plots/*.png into `output`, by default the folder of the sweep; returns the page and the plots.

    ValueError if that folder is a run's, which has a report.html of its own, or cannot be written.
    """
    folder = output if output is not None else sweep
    if (folder / "run.json").exists() or (folder / ".hydra").exists():
        raise ValueError(f"{folder} is the folder of one run, whose report.html stays; name another with --output DIR")
    page, aside = folder / "report.html", folder / f".report.html.{os.getpid()}"
    try:
        drawn = plots.draw(table, folder / "plots")
        aside.write_text(html(table, sweep, folder, drawn), encoding="utf-8")
        aside.replace(page)
    except OSError as error:
        raise ValueError(f"cannot write into {folder}: {error.strerror}; name another with --output DIR") from None
    return page, [path for _, path in drawn]


def html(table: Table, sweep: Path, folder: Path, drawn: Sequence[tuple[str, Path]]) -> str:
    """The page as text; links to the jobs' pages lead from `folder`."""
    name = overrides.one_line(sweep.resolve().name)
    style = (REPORT / "page.css").read_text(encoding="utf-8") + STYLE
    policy = POLICY.format(style=_hash(style), script=_hash(SCRIPT))
    body = [
        f'<p class="kind"><span>text2sql sweep</span></p><h1>{escape(name)}</h1>',
        f'<p class="when">{escape(_counted(table))}</p>',
        _section("jobs", "Jobs", _note(table), _jobs(table, folder)),
        *(
            [_section("groups", f"Over {table.over}", f"<p>{escape(formats.groups_said(table))}</p>", _groups(table))]
            if table.groups
            else []
        ),
        *([_section("plots", "Plots", _plots(drawn))] if drawn else []),
        *([_section("again", "The best job once more", *_repeat(table))] if formats.repeat_lines(table) else []),
    ]
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">',
            f'<title>{escape(name)}: text2sql sweep</title>\n<link rel="icon" href="data:,">',
            f"<style>{style}</style>\n</head>\n<body>\n<main>",
            *body,
            f"</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n",
        ]
    )


def _hash(source: str) -> str:
    """A source expression of CSP: base64 of the sha256 of the element's text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode("utf-8")).digest()).decode()


def _section(name: str, heading: str, *content: str) -> str:
    return "\n".join([f'<section id="{name}"><h2>{escape(heading)}</h2>', *content, "</section>"])


def _counted(table: Table) -> str:
    counts = Counter(line.job.status for line in table.lines)
    said = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    return f"{len(table.lines)} job{'s' if len(table.lines) != 1 else ''}: {said}"


def _note(table: Table) -> str:
    return f'<p class="note">{escape(formats.order_said(table))}; a press on a title sorts by it</p>'


# The tables


def _jobs(table: Table, folder: Path) -> str:
    header, *rows = formats.job_rows(table)
    sort_by = [_sort_values(table, line) for line in table.lines]
    body = []
    for line, row, keys in zip(table.lines, rows, sort_by):
        cells = [
            _cell(text, key, _class(table, column, len(header))) for column, (text, key) in enumerate(zip(row, keys))
        ]
        cells[0] = f'<th scope="row" data-sort="{escape(keys[0])}">{_link(line, row[0], folder)}</th>'
        status = line.job.status if line.job.status.isalpha() else ""
        cells[-2] = f'<td data-sort="{escape(keys[-2])}" class="{escape(status)}">{escape(row[-2])}</td>'
        body.append(f"<tr{' class=best' if line is table.best else ''}>{''.join(cells)}</tr>")
    return _table(header, body, lambda column: _class(table, column, len(header)))


def _groups(table: Table) -> str:
    header, *rows = formats.group_rows(table)
    first_number = len(header) - len(table.metrics) - 1
    sort_by = [
        [*row[:first_number], str(group.size), *(_digits(group.mean.get(name)) for name in table.metrics)]
        for group, row in zip(table.groups, rows)
    ]

    def kind(column: int) -> str:
        return "number" if column >= first_number else "setting"

    body = [
        "<tr>" + "".join(_cell(text, key, kind(column)) for column, (text, key) in enumerate(zip(row, keys))) + "</tr>"
        for row, keys in zip(rows, sort_by)
    ]
    return _table(header, body, kind)


def _table(header: Sequence[str], body: Iterable[str], kind: Callable[[int], str]) -> str:
    titles = "".join(
        f'<th scope="col" class="{kind(column)}">{escape(text)}</th>' for column, text in enumerate(header)
    )
    rows = "\n".join(body)
    head = f'<div class="scroll"><table class="sortable"><thead><tr>{titles}</tr></thead>'
    return f"{head}\n<tbody>\n{rows}\n</tbody></table></div>"


def _cell(text: str, key: str, kind: str) -> str:
    kind += " short" if kind == "setting" and len(text) <= formats.MAX_CELL else ""
    return f'<td class="{kind}" data-sort="{escape(key)}">{escape(text)}</td>'


def _class(table: Table, column: int, width: int) -> str:
    if column == width - 1:
        return "reason"
    return "number" if width - 2 - len(table.metrics) <= column < width - 2 else "setting"


def _sort_values(table: Table, line: Line) -> list[str]:
    """What each cell of the line is sorted by: numbers with every digit."""
    before = [line.job.label] * table.has_labels + [line.phase] * table.has_phases
    values = [line.values.get(key, "") for key in table.keys]
    numbers = [_digits(line.metric(metric)) for metric in table.metrics]
    return [line.job.name, *before, *values, *numbers, line.job.status, line.job.reason]


def _digits(value: float | None) -> str:
    return "" if value is None else repr(value)


def _link(line: Line, text: str, folder: Path) -> str:
    """The job's name, as a link to its page where there is one."""
    page = line.job.folder / "report.html"
    if not page.is_file():
        return escape(text)
    relative = Path(os.path.relpath(page.resolve(), folder.resolve()))
    address = "/".join(quote(os.fsencode(part), safe="") for part in relative.parts)
    return f'<a href="./{escape(address)}">{escape(text)}</a>'


# The rest


def _plots(drawn: Sequence[tuple[str, Path]]) -> str:
    figures = []
    for what, path in drawn:
        source = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
        image = f'<img alt="{escape(what)}" src="{source}">'
        figures.append(f"<figure><figcaption>{escape(what)}</figcaption>{image}</figure>")
    return f'<div class="plots">{"".join(figures)}</div>'


def _repeat(table: Table) -> list[str]:
    return [
        f"<h3>{escape(how)}</h3><pre><code>{escape(command)}</code></pre>"
        for how, command in formats.repeat_lines(table)
    ]
