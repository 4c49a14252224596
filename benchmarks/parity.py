"""Scores pairs of queries with the official evaluator of Spider and with ours, and counts where the two differ.

    NLTK_DATA=... python benchmarks/parity.py --reference DIR --spider DIR --pairs 24000 --seed 0 --cache FILE

`--reference` is a checkout of github.com/taoyds/test-suite-sql-eval, which needs nltk with its punkt data and sqlparse;
`--spider` is the official archive. Both evaluators run on every pair under every setting; what the reference answered
is kept in the cache, ours runs anew each time. The exit code is 1 where the two differ on any pair the reference judged.
Predictions that write are no part of this: `--damage` shows what each does to a copy of its database in the reference.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache as remembered
from pathlib import Path
from time import monotonic
from typing import Any

from pairs import DESTRUCTIVE, EXTREME, EXTREME_DATABASE, Pair, generate
from reference import SETTINGS, Answer, Answers, Task, answers, build_suite, copy_databases, damage

from text2sql.evaluation import Scorer, grade
from text2sql.example import Example
from text2sql.sql.judge import Limits, Rules

PLUGGED_PAIRS = 3_000
MAX_ALTERNATIVES = 64
SUITE_DATABASES = 20
CACHE = Path(tempfile.gettempdir()) / "parity.jsonl"
LIMITS = Limits(timeout_s=60)
_LITERAL = re.compile(r"'[^']*'|\"[^\"]*\"|(?<![\w.])\d+(?:\.\d+)?(?![\w.])")

Sources = dict[str, list[Pair]]


def read_sources(spider: Path, reference: Path, count: int, seed: int) -> Sources:
    """Pairs by where they come from: generated, Spider's dev, the reference's examples, and those that it cannot judge."""
    dev = json.loads((spider / "dev.json").read_text(encoding="utf-8"))
    return {
        "generated": list(generate(spider, count, seed)),
        "dev gold as prediction": [Pair(row["db_id"], row["query"], row["query"], "dev") for row in dev],
        "evaluation_examples": _examples(reference / "evaluation_examples", spider),
        "extreme": [Pair(EXTREME_DATABASE, pair[0], pair[1], kind) for kind, pair in EXTREME.items()],
    }


def _examples(folder: Path, spider: Path) -> list[Pair]:
    """The examples that the reference comes with; blank lines, which part its sessions, are left out."""
    golds = (folder / "gold.txt").read_text(encoding="utf-8").splitlines()
    predictions = (folder / "predict.txt").read_text(encoding="utf-8").splitlines()
    pairs = []
    for gold_line, prediction in zip(golds, predictions):
        if gold_line.strip() and prediction.strip():
            gold, db_id = gold_line.strip().split("\t")
            if (spider / "database" / db_id / f"{db_id}.sqlite").is_file():
                pairs.append(Pair(db_id, gold, prediction.strip().split("\t")[0], "example"))
    return pairs


def choose(sources: Sources, setting: str, seed: int) -> Sources:
    """The pairs for a setting: all, or those that end soon with values plugged in, or those a test suite is built for."""
    wanted = {kind for kind, pair in EXTREME.items() if setting in (pair[2:] or ("default",))}
    chosen = {**sources, "extreme": [pair for pair in sources["extreme"] if pair.kind in wanted]}
    if SETTINGS[setting].plug_value:
        generated = [pair for pair in sources["generated"] if _num_alternatives(pair) <= MAX_ALTERNATIVES]
        plugged = [pair for pair in generated if _num_alternatives(pair) > 1][: PLUGGED_PAIRS * 4 // 5]
        others = [pair for pair in generated if _num_alternatives(pair) <= 1][: PLUGGED_PAIRS - len(plugged)]
        return {**chosen, "generated": plugged + others}
    if SETTINGS[setting].suite:
        db_ids = suite_databases(sources, seed)
        return {source: [pair for pair in pairs if pair.db_id in db_ids] for source, pairs in chosen.items()}
    return chosen


def suite_databases(sources: Sources, seed: int) -> set[str]:
    """The databases of the reference's examples and others by chance, SUITE_DATABASES together."""
    first = sorted({pair.db_id for pair in sources["evaluation_examples"]})
    others = sorted({pair.db_id for pair in sources["generated"]} - set(first))
    more = min(SUITE_DATABASES - len(first), len(others))
    return {*first, *random.Random(seed).sample(others, more)}


def _num_alternatives(pair: Pair) -> int:
    """About how many predictions the reference makes of one by plugging the gold's values into it."""
    return len(set(_LITERAL.findall(pair.gold))) ** len(_LITERAL.findall(pair.prediction))


@dataclass(frozen=True)
class Ours:
    """What ours says of a pair; `exact`, `hardness` and `parts` are None where it does not read the gold."""

    execution: bool | None
    exact: bool | None
    hardness: str | None
    parts: list[list[float]] | None
    reason: str = ""


@remembered
def _graded(database: str, pair: Pair) -> tuple[str, bool | None, list[list[float]] | None]:
    hardness, match = grade(_example(pair, Path(database)), pair.prediction)
    return (
        (hardness, None, None) if match is None else (hardness, match.exact, [[*part] for part in match.parts.values()])
    )


def _example(pair: Pair, databases: Path) -> Example:
    return Example("", "", pair.gold, pair.db_id, database=str(databases / pair.db_id / f"{pair.db_id}.sqlite"))


def score(pairs: Sequence[Pair], setting: str, databases: Path, processes: int) -> list[Ours]:
    """Score pairs with ours; Spider's tables.json must lie beside the folder of databases."""
    from tqdm import tqdm

    options = SETTINGS[setting]
    rules = Rules(official=True, keep_distinct=options.keep_distinct, plug_value=options.plug_value)
    examples = [_example(pair, databases) for pair in pairs]
    found = []
    with Scorer(LIMITS, rules, workers=processes) as scorer:
        scores = scorer.score_all(zip(examples, (pair.prediction for pair in pairs)))
        for pair, one in zip(pairs, tqdm(scores, f"ours, {setting}", len(pairs), unit="pair")):
            hardness, exact, parts = _graded(str(databases), pair)
            known = hardness if exact is not None else None
            found.append(Ours(one.official, exact, known, parts, f"{one.verdict.value}: {one.reason}"))
    return found


def differences(answer: Answer, ours: Ours) -> list[str]:
    """In what the two differ: "execution", "exact", "hardness", and the names of parts; nothing if there is no verdict."""
    if not answer.judged:
        return []
    names = [
        name
        for name, same in (
            ("execution", ours.execution is not None and bool(answer.execution) == ours.execution),
            ("exact", ours.exact is not None and bool(answer.exact) == ours.exact),
            ("hardness", answer.hardness == ours.hardness),
        )
        if not same
    ]
    theirs = list(answer.parts.items())
    parts = ours.parts if ours.parts is not None else [[]] * len(theirs)
    return names + [name for (name, values), own in zip(theirs, parts, strict=True) if values != own]


@dataclass(frozen=True)
class Comparison:
    setting: str
    source: str
    pair: Pair
    answer: Answer
    ours: Ours

    @property
    def differences(self) -> list[str]:
        return differences(self.answer, self.ours)


def table(comparisons: Sequence[Comparison]) -> str:
    """A row for each setting and source: how many pairs, how many the reference judged, how many differ in what."""
    header = ["setting", "source", "pairs", "judged", "execution", "exact", "parts", "hardness", "any"]
    rows = [header]
    for setting, source in dict.fromkeys((one.setting, one.source) for one in comparisons):
        group = [one for one in comparisons if (one.setting, one.source) == (setting, source)]
        found = [set(one.differences) for one in group]
        counts = [len(group), sum(one.answer.judged for one in group)]
        counts += [sum(name in names for names in found) for name in ("execution", "exact")]
        counts += [sum(bool(names - {"execution", "exact", "hardness"}) for names in found)]
        counts += [sum("hardness" in names for names in found), sum(map(bool, found))]
        rows.append([setting, source, *map(str, counts)])
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join([*map(str.ljust, row[:2], widths), *map(str.rjust, row[2:], widths[2:])]) for row in rows
    )


def summary(comparisons: Sequence[Comparison]) -> str:
    """How long the reference took, how it ended, and how many pairs were right by its verdict."""
    judged = [one.answer for one in comparisons if one.answer.judged]
    seconds = sum(answer.seconds for answer in judged)
    endings = Counter(one.answer.status for one in comparisons)
    lines = [f"reference: {1000 * seconds / max(1, len(judged)):.1f} ms a pair it judged"]
    lines += [f"reference: {status}: {count}" for status, count in endings.most_common()]
    lines += [
        f"of those judged, execution right: {sum(a.execution for a in judged)}, exact: {sum(a.exact for a in judged)}"
    ]
    return "\n".join(lines)


def compare(
    sources: Sources, settings: Sequence[str], *, reference: Path, spider: Path, cache: Path, seed: int, processes: int
) -> Iterator[Comparison]:
    """Run both evaluators on copies of the databases; see the module for what they need."""
    with tempfile.TemporaryDirectory() as folder:
        places = {False: Path(folder) / "single", True: Path(folder) / "suite"}
        db_ids = {pair.db_id for pairs in sources.values() for pair in pairs}
        copy_databases(spider / "database", places[False], db_ids)
        build_suite(spider / "database", places[True], suite_databases(sources, seed))
        shutil.copyfile(spider / "tables.json", Path(folder) / "tables.json")
        for setting in settings:
            chosen = [(name, pair) for name, pairs in choose(sources, setting, seed).items() for pair in pairs]
            tasks = [Task(setting, pair.db_id, pair.gold, pair.prediction) for _, pair in chosen]
            theirs: Answers = answers(
                tasks,
                reference=reference,
                tables=spider / "tables.json",
                databases=places,
                cache=cache,
                processes=processes,
            )
            ours = score([pair for _, pair in chosen], setting, places[SETTINGS[setting].suite], processes)
            for (name, pair), task, own in zip(chosen, tasks, ours):
                yield Comparison(setting, name, pair, theirs[task], own)


def damage_report(reference: Path, spider: Path) -> str:
    """What each statement that writes does to a copy of its database in the reference, and what the two say of it."""
    pairs = [Pair(EXTREME_DATABASE, gold, prediction, "destructive") for gold, prediction in DESTRUCTIVE]
    lines = []
    for pair, ours in zip(pairs, score(pairs, "default", spider / "database", 1)):
        task = Task("default", pair.db_id, pair.gold, pair.prediction)
        answer, changes = damage(task, reference, spider / "tables.json", spider / "database")
        found = f"{len(changes)} changes, first {changes[0][:60]!r}" if changes else "no change"
        theirs = bool(answer.execution) if answer.judged else answer.status
        lines.append(f"{pair.prediction}: {found}; reference {theirs}, ours {ours.execution} ({ours.reason[:40]})")
    return "\n".join(lines)


def main() -> int:
    arguments = _arguments()
    if arguments.damage:
        sys.stdout.write(f"{damage_report(arguments.reference, arguments.spider)}\n")
        return 0
    start = monotonic()
    sources = read_sources(arguments.spider, arguments.reference, arguments.pairs, arguments.seed)
    comparisons = list(
        compare(
            sources,
            arguments.settings,
            reference=arguments.reference,
            spider=arguments.spider,
            cache=arguments.cache,
            seed=arguments.seed,
            processes=arguments.processes,
        )
    )
    differing = [one for one in comparisons if one.differences]
    if arguments.differences:
        arguments.differences.write_text("".join(f"{_line(one)}\n" for one in differing), encoding="utf-8")
    kinds = len({pair.kind for pair in sources["generated"]})
    sys.stdout.write(f"{table(comparisons)}\n\n{summary(comparisons)}\n{kinds} kinds, {monotonic() - start:.0f} s\n")
    return 1 if differing else 0


def _line(one: Comparison) -> str:
    shown: dict[str, Any] = {
        "setting": one.setting,
        "source": one.source,
        "kind": one.pair.kind,
        "db_id": one.pair.db_id,
    }
    shown |= {"differs": one.differences, "gold": one.pair.gold, "prediction": one.pair.prediction}
    theirs = {**vars(one.answer), "parts": list(one.answer.parts.values())}
    return json.dumps({**shown, "reference": theirs, "ours": vars(one.ours)}, ensure_ascii=False)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path, required=True, help="checkout of taoyds/test-suite-sql-eval")
    parser.add_argument("--spider", type=Path, required=True, help="folder with dev.json, tables.json, database/, ...")
    parser.add_argument("--pairs", type=int, default=24_000, help="how many pairs to generate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=CACHE, help="the reference's answers, which grows")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--processes", type=int, default=1, help="how many processes run either evaluator")
    parser.add_argument("--differences", type=Path, help="file to write differing pairs to, one JSON object a line")
    parser.add_argument("--damage", action="store_true", help="only show what predictions that write do, on copies")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
