"""The subcommands for a database of one's own: `ask`, `make-pairs` and `copy-database`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Any

Commands = Any
"""The object that argparse's add_subparsers() returns."""


def add(commands: Commands) -> None:
    """Add the parsers of the three commands."""
    _add_ask(commands)
    _add_make_pairs(commands)
    _add_copy_database(commands)


def _add_ask(commands: Commands) -> None:
    ask = commands.add_parser(
        "ask",
        help="ask a SQLite database a question in words",
        usage="text2sql ask DATABASE [QUESTION] [--run RUN | --adapter ADAPTER] [options]",
        description="Write SQL for the question, check its names against the schema, run it read-only in a confined process\n"
        "and print the rows. Without a question: a conversation, with a history, \\schema, \\explain and \\q. The\n"
        "database is copied first and stays as it is. Where the schema seems not to have the answer, none is given.\n"
        "Exit code 0 for an answer, 3 for none, 2 for a mistake.",
        epilog='examples:\n  text2sql ask shop.sqlite "How many orders are open?" --run outputs/RUN\n'
        "  text2sql ask shop.sqlite --run outputs/RUN --votes 8",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    ask.add_argument("database", type=Path, metavar="DATABASE", help="a SQLite file")
    ask.add_argument("question", nargs="?", metavar="QUESTION", help="in quotes; without one, a conversation")
    whose = ask.add_mutually_exclusive_group()
    whose.add_argument("--run", type=Path, metavar="RUN", dest="run_folder", help="the training whose model answers")
    whose.add_argument("--adapter", metavar="ADAPTER", help="an adapter's folder or hub id in place of a run")
    ask.add_argument("--json", action="store_true", help="print one line of JSON in place of text")
    add_answering(ask)
    ask.set_defaults(run=answer_question)


def add_answering(parser: argparse.ArgumentParser) -> None:
    """Add the options of how a question is answered."""
    parser.add_argument(
        "--votes", type=int, default=1, metavar="N", help="of N answers take the result that most have; default: 1"
    )
    parser.add_argument(
        "--constrained",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write only tables and columns that there are (default: yes)",
    )
    parser.add_argument("--no-repair", action="store_true", help="no second try where the SQL does not run")
    parser.add_argument("--rows", type=int, default=20, metavar="N", help="show at most N rows; default: 20")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="OVERRIDE",
        dest="overrides",
        help="as for evaluate.py, such as hardware=cpu or model=tiny",
    )
    parser.add_argument(
        "--min-confidence",
        type=float,
        metavar="P",
        help="no answer where a token of the likeliest SQL has a smaller probability; default: 0",
    )
    parser.add_argument(
        "--min-agreement",
        type=float,
        metavar="P",
        help="with --votes: no answer where a smaller share agrees; default: 0.5",
    )
    parser.add_argument(
        "--always-answer",
        action="store_true",
        help="show what runs, however unsure, and whatever names it took at first",
    )


def answer_question(options: argparse.Namespace) -> int:
    """Answer one question, or converse; returns the exit code. ValueError for what keeps it from being asked."""
    from text2sql.data import snapshot

    prepare(options)
    if options.json and options.question is None:
        raise ValueError("--json prints the answer to one question: type it after the database")
    snapshot.check(options.database, "the database")  # before a second is spent on loading torch
    from text2sql.asking import console, trained
    from text2sql.asking.session import Session

    adapter = options.adapter if options.run_folder is None else trained.adapter_of(options.run_folder)
    config = compose(options, adapter)
    print(f"loading {config.model.name}{f' with {adapter}' if adapter else ''}", file=sys.stderr)
    with Session(config, options.database, thresholds(options), options.rows) as session:
        if options.question is not None:
            return console.ask_once(session, options.question, options.json)
        return console.converse(session)


def prepare(options: argparse.Namespace) -> None:
    """Have this process say little while it answers. ValueError for numbers that cannot be."""
    if options.votes < 1 or options.rows < 1:
        raise ValueError(f"--votes {options.votes} and --rows {options.rows} must be at least 1")
    for option, value in (("--min-confidence", options.min_confidence), ("--min-agreement", options.min_agreement)):
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"{option} {value:g} is no share: type one from 0 to 1")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # of kernels that it could download
    os.environ.setdefault("TQDM_DISABLE", "1")  # one question is no long work; read when tqdm is imported


def compose(options: argparse.Namespace, adapter: str | None) -> Any:
    """The Config that the options of add_answering() make with an adapter. ValueError for overrides that cannot be."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from text2sql import commandline
    from text2sql.asking import settings

    try:
        return settings.compose(adapter, options.overrides, options.votes, options.constrained, not options.no_repair)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(commandline.explain(error)) from error


def thresholds(options: argparse.Namespace) -> Any:
    """The Thresholds that the options of add_answering() ask for."""
    from text2sql.abstention import Thresholds

    if options.always_answer:
        return Thresholds(0.0, 0.0, names=False)
    given = {"confidence": options.min_confidence, "agreement": options.min_agreement}
    return Thresholds(**{name: value for name, value in given.items() if value is not None})


def _add_make_pairs(commands: Commands) -> None:
    pairs = commands.add_parser(
        "make-pairs",
        help="write questions and SQL about a SQLite database, to begin with",
        description="Write pairs of a question and its SQL about DATABASE from its schema and data, every one run and with an\n"
        "answer, for a person to edit: the wording is from templates, and what the tables mean is guessed from their names.",
        epilog="example:\n  text2sql make-pairs shop.sqlite --count 200",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    pairs.add_argument("database", type=Path, metavar="DATABASE", help="a SQLite file, or a folder of them")
    pairs.add_argument(
        "--out", type=Path, default=Path("pairs.jsonl"), metavar="FILE", help=".jsonl or .csv; default: pairs.jsonl"
    )
    pairs.add_argument("--count", type=int, default=200, metavar="N", help="pairs of each database; default: 200")
    pairs.add_argument("--seed", type=int, default=0, metavar="S", help="another seed, other pairs; default: 0")
    pairs.add_argument("--force", action="store_true", help="replace FILE where it is there")
    pairs.set_defaults(run=write_pairs)


def write_pairs(options: argparse.Namespace) -> None:
    """Write a file of pairs and say what is in it. ValueError for a database without tables or rows, or a FILE there is."""
    from text2sql.data.pairs import make, summary, write

    _refuse_existing(options.out, options.force)
    made = make(options.database, options.count, options.seed)
    write(options.out, made)
    print(summary(options.out, made))


def _add_copy_database(commands: Commands) -> None:
    copy = commands.add_parser(
        "copy-database",
        help="copy a sample of a PostgreSQL, MySQL or DuckDB database into SQLite",
        description="Read tables, keys and a sample of rows through SQLAlchemy and write them to a SQLite file, to train and\n"
        "evaluate on. Rows that the sample's foreign keys point at come along. Nothing is written to the database.",
        epilog="examples:\n  text2sql copy-database postgresql://me@localhost/shop shop.sqlite\n"
        "  text2sql copy-database duckdb:///shop.duckdb shop.sqlite --rows 500 --tables orders customers",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    copy.add_argument(
        "url", metavar="URL", help="as SQLAlchemy has it; a password can come from the driver's own files"
    )
    copy.add_argument("out", type=Path, metavar="FILE", help="the SQLite file to write")
    copy.add_argument(
        "--rows", type=int, default=1_000, metavar="N", help="rows of each table to begin with; default: 1000"
    )
    copy.add_argument("--tables", nargs="+", metavar="TABLE", help="only these; default: all of the schema")
    copy.add_argument("--schema", metavar="NAME", help="the database's schema; default: the connection's own")
    copy.add_argument("--force", action="store_true", help="replace FILE where it is there")
    copy.set_defaults(run=copy_database)


def copy_database(options: argparse.Namespace) -> None:
    """Copy a database and say what was copied. ValueError for what cannot be reached, read or written."""
    from text2sql import copying

    _refuse_existing(options.out, options.force)
    report = copying.copy(options.url, options.out, options.rows, options.tables, options.schema)
    print(report)


def _refuse_existing(file: Path, force: bool) -> None:
    if file.exists() and not force:
        raise ValueError(f"{file} is there already: name another file, or add --force to replace it")
    if not file.parent.is_dir():
        raise ValueError(f"{file.parent} is no folder: name a file in one that is there")
