"""Loads pairs of a question and its SQL about SQLite databases of one's own, every pair tried before it is used.

Pairs are split by the skeleton of their SQL: two that differ in values alone are never on both sides of a split.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from functools import lru_cache
from pathlib import Path

import sqlglot

from text2sql.config import Data, Dialect
from text2sql.data import files, snapshot
from text2sql.data.source import Row, Source, Unusable, sample_of_groups, text
from text2sql.data.syntax import parses
from text2sql.example import Example, Schema
from text2sql.sql import names
from text2sql.sql.database import open_readonly, read_schema, sha256
from text2sql.sql.judge import Limits, Place, Rules, Run
from text2sql.sql.pool import Pool
from text2sql.sql.qualify import qualified
from text2sql.sql.skeleton import skeleton

log = logging.getLogger(__name__)

COLUMNS, OPTIONAL = ("question", "sql"), ("id", "db")
SUFFIXES = (".sqlite", ".sqlite3", ".db", ".db3")
FEWEST_SKELETONS = 3
"""One each for training, validation and test."""
SHOWN = 5
LIMITS = Limits()


def check(config: Data) -> None:
    """ValueError for shares that leave no room for training."""
    if not 0 < config.test_fraction < 1 or config.test_fraction + config.validation_fraction >= 1:
        raise ValueError(
            f"data.test_fraction={config.test_fraction} and data.validation_fraction={config.validation_fraction} must lie "
            "between 0 and 1 and leave a share for training, such as 0.15 and 0.1"
        )


def load(config: Data, split: str) -> Source:
    """The pairs of `split` (train: with those of validation; test) in data.pairs about the databases at data.path.

    Pairs that cannot be used stand among those of train, with the reason. ValueError for a file that is not there or none of
    its kind, for a database without tables, and where fewer than FEWEST_SKELETONS skeletons can be used.
    """
    databases = _databases(Path(config.path).expanduser())
    pairs = _pairs_file(config)
    tried = _tried(
        tuple(databases.items()),
        tuple(sha256(path) for path in databases.values()),
        str(pairs),
        sha256(str(pairs)),
        config.dialect,
        config.keep_empty,
    )
    groups = Counter(row.group for row in tried.rows if row.group is not None)
    _check_enough(config, groups, len(tried.rows))
    test = sample_of_groups(groups, config.test_fraction * groups.total(), config.split_seed, leave=2)
    rest = {name: count for name, count in groups.items() if name not in test}
    validation = sample_of_groups(rest, config.validation_fraction * groups.total(), config.split_seed)
    rows = [row for row in tried.rows if (row.group in test) == (split == "test")]
    return Source(rows, tried.build, validation)


def _check_enough(config: Data, groups: Mapping[str, int], read: int) -> None:
    if len(groups) < FEWEST_SKELETONS:
        raise ValueError(
            f"data.pairs={config.pairs} has {sum(groups.values())} usable pairs of {read}, with {len(groups)} SQL skeletons "
            f"(SQL without its values); train, validation and test need one each: mend the pairs, or add some until at "
            f"least {FEWEST_SKELETONS} differ in more than values (`text2sql make-pairs` writes some)"
        )


def database_files(path: Path, setting: str = "data.path") -> dict[str, Path]:
    """The SQLite files at `path` by name: one, or those of a folder, NAME.sqlite or NAME/NAME.sqlite.

    ValueError, which names the `setting`, for a folder without any or with two of one name.
    """
    if path.is_file() or not path.exists():
        return {path.stem: path}
    found = [one for one in sorted(path.iterdir()) if one.suffix in SUFFIXES and one.is_file()]
    found += [
        one for folder in sorted(path.iterdir()) for end in SUFFIXES if (one := folder / (folder.name + end)).is_file()
    ]
    if not found:
        raise ValueError(
            f"{setting}={path} holds no database: name a SQLite file, or a folder with NAME{SUFFIXES[0]} files"
        )
    if twice := [name for name, count in Counter(one.stem for one in found).items() if count > 1]:
        both = " and ".join(str(one) for one in found if one.stem == twice[0])
        raise ValueError(f"{setting}={path} holds {both}: pairs name a database by {twice[0]} alone, so rename one")
    return {one.stem: one for one in found}


def _databases(path: Path) -> dict[str, str]:
    """The copies of the databases that are read, by name."""
    return {name: snapshot.take(file, "data.path") for name, file in database_files(path).items()}


def read_tables(database: str, named: str) -> Schema:
    """The schema of a copy; ValueError, naming the original, for one without tables."""
    with closing(open_readonly(database)) as connection:
        schema = read_schema(connection)
    if not schema.tables:
        raise ValueError(f"{named} has no tables: nothing can be asked of an empty schema; create its tables first")
    return schema


def _pairs_file(config: Data) -> Path:
    if config.pairs is None:
        raise ValueError("data=sqlite needs data.pairs: a .jsonl or .csv file with question and sql in each row")
    file = Path(config.pairs).expanduser()
    if not file.is_file():
        raise ValueError(
            f"data.pairs={file} is no file: name a .jsonl or .csv file with question and sql in each row; "
            f"`text2sql make-pairs {config.path} --out {file}` writes a first one"
        )
    return file


class _Tried:
    """The rows of a file of pairs, each with the example that it makes or why it makes none."""

    def __init__(self, databases: Mapping[str, str], dialect: Dialect) -> None:
        self.paths, self.dialect = databases, dialect
        self.schemas = {name: read_tables(path, f"data.path: {name}") for name, path in databases.items()}
        self.made: dict[str, Example | Unusable] = {}
        self.rows: list[Row] = []
        self.said: list[str] = []

    def build(self, row: Row) -> Example:
        made = self.made[row.id]
        if isinstance(made, Unusable):
            raise made
        return made

    def drop(self, row: Row, reason: str, detail: str = "") -> None:
        self.made[row.id] = Unusable(reason)
        self.said.append(f"{row.id}: {detail or reason}")

    def example(self, row: Row) -> Example:
        """The pair as an Example, its SQL in SQLite's dialect; Unusable where it is none."""
        question, sql = text(row.question, "question"), text(row.sql, "sql")
        name = self._database(row)
        if self.dialect is Dialect.sqlite:
            if not parses(sql):
                raise Unusable("SQL does not parse")
        else:
            sql = transpiled(sql, self.dialect)
        return Example(row.id, question.strip(), sql, name, self.schemas[name], database=self.paths[name])

    def _database(self, row: Row) -> str:
        if row.db_id is None and len(self.paths) == 1:
            return next(iter(self.paths))
        name = text(row.db_id, "db")
        if name not in self.paths:
            raise Unusable("unknown db")
        return name


def transpiled(sql: str, dialect: Dialect) -> str:
    """SQL of another dialect in SQLite's; Unusable where sqlglot cannot say it there."""
    try:
        (found,) = sqlglot.transpile(
            sql, read=dialect.value, write="sqlite", unsupported_level=sqlglot.ErrorLevel.RAISE, comments=False
        )
    except (sqlglot.errors.SqlglotError, ValueError, RecursionError):
        raise Unusable(f"SQL does not transpile from {dialect.value}") from None
    return found


@lru_cache(maxsize=4)
def _tried(
    databases: tuple[tuple[str, str], ...],
    hashes: tuple[str, ...],
    pairs: str,
    pairs_hash: str,
    dialect: Dialect,
    keep_empty: bool,
) -> _Tried:
    """Every pair checked and run once; the hashes make one of changed files another."""
    tried = _Tried(dict(databases), dialect)
    seen: set[tuple[str, str]] = set()
    usable: list[tuple[Row, Example]] = []
    rows = _rows(Path(pairs))
    for row in rows:
        try:
            example = tried.example(row)
        except Unusable as reason:
            tried.drop(row, str(reason))
            continue
        asked = example.db_id, " ".join(example.question.casefold().split())
        if asked in seen:
            tried.drop(row, "duplicate question")
            continue
        seen.add(asked)
        usable.append((row, example))
    _run(tried, usable, keep_empty)
    groups: dict[str, str] = {}
    for row in rows:
        made = tried.made[row.id]
        group = None
        if isinstance(made, Example):  # with its tables in full: prompt.sql_form=qualified makes one text of both
            group = groups.setdefault(skeleton(qualified(made.sql, made.schema)), skeleton(made.sql))
        tried.rows.append(Row(row.id, row.question, row.sql, row.db_id, group))
    if tried.said:
        more = [f"and {len(tried.said) - SHOWN} more"] * (len(tried.said) > SHOWN)
        log.warning(
            "of %d pairs %d cannot be used: %s", len(rows), len(tried.said), "; ".join(tried.said[:SHOWN] + more)
        )
    return tried


def _rows(file: Path) -> list[Row]:
    """Rows with an id that names the file and, unless they have an id, their number from 1."""
    rows = []
    for number, one in enumerate(files.read(file, COLUMNS, OPTIONAL, setting="data.pairs"), 1):
        given = one.get("id")
        name = f"{file.name}:{number}" if given is None else f"{file.name}/{given}"
        rows.append(Row(name, one.get("question"), one.get("sql"), one.get("db"), None))
    if twice := [name for name, count in Counter(row.id for row in rows).items() if count > 1]:
        raise ValueError(f"data.pairs={file} has the id {twice[0]} twice: give every pair its own, or none")
    return rows


def _run(tried: _Tried, usable: list[tuple[Row, Example]], keep_empty: bool) -> None:
    """Run each pair's SQL in the confined process, under the limits of an evaluation."""
    from tqdm import tqdm

    keys = {path: sha256(path) for path in tried.paths.values()}
    pool = Pool(LIMITS, Rules(), workers=1)
    try:
        tasks = [Run(one.sql, [Place(keys[one.database], one.database)]) for _, one in usable]
        outcomes = tqdm(pool.judge(tasks), "running pairs", len(tasks), unit="pair", delay=2)
        for (row, example), outcome in zip(usable, outcomes, strict=True):
            if "verdict" in outcome:
                tried.drop(row, f"SQL does not run ({outcome['verdict']})", _complaint(example, outcome["reason"]))
            elif not outcome["num_rows"] and not keep_empty:
                tried.drop(row, "returns no rows")
            else:
                tried.made[row.id] = example
    finally:
        pool.close()


def _complaint(example: Example, reason: str) -> str:
    """What SQLite says of SQL that does not run, and of a name that is none, the nearest that is one."""
    try:
        unknown = [one.detail for one in names.read(example.sql, example.schema).unknown if not one.is_text]
    except ValueError:
        unknown = []
    return f"SQL does not run: {(unknown or [reason])[0]}"
