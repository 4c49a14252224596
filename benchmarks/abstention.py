"""Measure how well abstaining tells questions that a schema can answer from those that it cannot, for one adapter.

    python benchmarks/abstention.py --adapter outputs/RUN/adapter --data data/spider --questions 100 --out abstention.jsonl

Answerable are questions of Spider's dev set as they are. Unanswerable is each of them once more, on a copy of its database from
which a column that its gold needs was dropped (no key, and no other column of that name in the database). Whether to give an
answer is then decided by each rule. Precision: of the abstentions, the share that is of unanswerable questions; recall: of
the unanswerable questions, the share abstained from; answered: of the answerable ones; accuracy: of the answers given to
answerable questions, the share that is right. The answer is that of `text2sql ask`: the free greedy one, and where that does
not run, one under the constraint; --votes N has N answers under the constraint vote. --rows FILE prints the table from an
earlier run's rows.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from text2sql import abstention, answering, commandline, confidence, data, generation, prompts, scoring
from text2sql.constraint import nearest
from text2sql.example import Example, Schema
from text2sql.scorer import Scorer
from text2sql.sql import names
from text2sql.sql.database import open_readonly, read_schema


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", default="")
    parser.add_argument("--data", default="data/spider")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--votes", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=20, help="questions asked together; a GPU wants some hundred")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("abstention.jsonl"))
    parser.add_argument("--rows", type=Path)
    parser.add_argument("overrides", nargs="*", help="such as hardware=cpu")
    options = parser.parse_args()
    if not options.rows:
        measure(options)
    print(table(read(options.rows or options.out)))


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def measure(options: argparse.Namespace) -> None:
    """Write a row of evidence for each question, answerable or not, to options.out; goes on where an earlier run stopped."""
    import hydra

    overrides = ["data=spider", f"data.path={options.data}", f"adapter={options.adapter}", *options.overrides]
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(commandline.CONF)):
        config = scoring.settings(hydra.compose("evaluate", overrides), overrides)
    config = replace(config, eval=replace(config.eval, constrained=True, votes=options.votes))
    examples = data.load(config.data, "test", seed=0).examples
    random.Random(options.seed).shuffle(examples)
    with tempfile.TemporaryDirectory() as folder, Scorer(workers=1) as scorer:
        pairs = unanswerable(examples, Path(folder), options.questions)
        asked = [one for pair in pairs for one in pair]
        done = len(read(options.out)) if options.out.exists() else 0
        speaker = answering.Speaker(config)
        for start in range(done, len(asked), options.at_once):
            rows = evidence(speaker, asked[start : start + options.at_once], scorer)
            with options.out.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)


def unanswerable(examples: list[Example], folder: Path, count: int) -> list[tuple[Example, Example]]:
    """Examples and their twins on a database that lacks a column of the gold."""
    found = []
    for example in examples:
        if len(found) == count:
            break
        if twin := next(without_a_column(example, folder / f"{len(found)}"), None):
            found.append((example, twin))
    assert len(found) == count, f"only {len(found)} of the examples have a column that can be dropped"
    return found


def without_a_column(example: Example, folder: Path) -> Iterator[Example]:
    known = names.catalog(example.schema)
    keys = names.primary_keys(example.schema) | set(names.foreign_partners(example.schema))
    reading = names.read(example.sql, example.schema)
    labels = [label for label in reading.names.values() if isinstance(label, str) and "." in label]
    for label in dict.fromkeys(labels):
        column = label.rpartition(".")[2]
        owners = known.owners.get(column.lower(), ())
        if len(owners) != 1 or f"{owners[0]}.{column}".lower() in keys:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        copy = folder / Path(example.database).name
        shutil.copyfile(example.database, copy)
        try:
            with closing(sqlite3.connect(copy)) as connection:
                connection.execute(f'ALTER TABLE "{owners[0]}" DROP COLUMN "{column}"')
                connection.commit()
        except sqlite3.Error:
            continue
        with closing(open_readonly(str(copy))) as connection:
            schema = read_schema(connection)
        yield replace(example, id=f"{example.id}-{owners[0]}.{column}", schema=schema, database=str(copy))


def evidence(speaker: answering.Speaker, examples: list[Example], scorer: Scorer) -> list[dict]:
    """A row an example, every second one answerable; all are asked at once, which takes a CPU a third of the time."""
    encoded = [prompts.encode_prompt(speaker.tokenizer, example, speaker.config).ids for example in examples]
    said = speaker.say(encoded, [0.0] * len(encoded), None, "free")
    free = [generation.extract_sql(one) for one in said]
    runs = list(scorer.run_all(list(zip(examples, free))))
    again = [i for i, run in enumerate(runs) if run.error is not None or speaker.config.eval.votes > 1]
    answered = answering.answer(speaker, [examples[i] for i in again], scorer) if again else []
    rows: list[dict] = [{}] * len(examples)
    for i, row in zip(again, answered):
        rows[i] = row
    found = []
    for i, example in enumerate(tqdm(examples, "judging")):
        answer = speaker.tokenizer(said[i], add_special_tokens=False)["input_ids"] + [speaker.tokenizer.eos_token_id]
        sure = confidence.confidence(speaker.network.eval(), encoded[i], answer)
        answerable, prediction = i % 2 == 0, rows[i].get("prediction", free[i])
        found.append(
            {
                "answerable": answerable,
                "id": example.id,
                "question": example.question,
                "free": free[i],
                "prediction": prediction,
                "missing": abstention.missing_names(free[i], example.schema),
                "unknown": unknown_names(free[i], example.schema),
                "nothing_alike": nothing_alike(free[i], example.schema),
                "free_fails": runs[i].error is not None,
                "mean": sure.mean,
                "lowest": sure.lowest,
                "agreement": abstention.agreement(rows[i].get("candidates", [])),
                "correct": answerable and scorer.score(example, prediction).correct,
            }
        )
    return found


def unknown_names(sql: str, schema: Schema) -> list[tuple[str, str]]:
    """The kind and name of each table and column that is nowhere in the schema, whatever its spelling."""
    try:
        found = names.read(sql, schema).unknown
    except ValueError:
        return []
    return [(one.kind, one.name) for one in found if one.kind in (names.NO_TABLE, names.NO_COLUMN)]


def nothing_alike(sql: str, schema: Schema) -> bool:
    """Whether one of these has no real name that the constraint would take for what is meant."""
    tables = [table.name.lower().encode() for table in schema.tables]
    columns = [column.name.lower().encode() for table in schema.tables for column in table.columns]
    return any(
        not nearest.meant(name.lower().encode(), tables if kind == names.NO_TABLE else columns)
        for kind, name in unknown_names(sql, schema)
    )


Rule = Callable[[dict], bool]


def rules(votes: bool) -> dict[str, Rule]:
    """Whether to abstain, by the name of the rule."""
    found: dict[str, Rule] = {
        "never": lambda row: False,
        "a name is missing": lambda row: bool(row["missing"]),
        "a name is missing, in whatever spelling": lambda row: bool(row["unknown"]),
        "a name is missing and none is like it": lambda row: row["nothing_alike"],
        "the free answer fails": lambda row: row["free_fails"],
    }
    for least in (0.5, 0.625, 0.75, 0.875, 1.0) if votes else ():
        found[f"agreement below {least:g}"] = lambda row, least=least: row["agreement"] < least
    for least in (0.8, 0.85, 0.9, 0.92, 0.94, 0.96, 0.98):
        found[f"mean probability below {least:g}"] = lambda row, least=least: row["mean"] < least
    for least in (0.3, 0.4, 0.5, 0.6):
        found[f"lowest probability below {least:g}"] = lambda row, least=least: row["lowest"] < least
    for least in (0.8, 0.85, 0.9, 0.92, 0.94, 0.96):
        found[f"missing, or mean below {least:g}"] = lambda row, least=least: (
            bool(row["missing"]) or row["mean"] < least
        )
    for least in (0.3, 0.4, 0.5, 0.6):
        found[f"missing, or lowest below {least:g}"] = lambda row, least=least: (
            bool(row["missing"]) or row["lowest"] < least
        )
    for least in (0.5, 0.625, 0.75) if votes else ():
        found[f"missing, or agreement below {least:g}"] = lambda row, least=least: (
            bool(row["missing"]) or row["agreement"] < least
        )
    return found


def table(rows: list[dict]) -> str:
    lines = [
        "| rule | precision | recall | F1 | answered | accuracy of answers |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, rule in rules(all(row["agreement"] is not None for row in rows)).items():
        abstained = [row for row in rows if rule(row)]
        right = sum(not row["answerable"] for row in abstained)
        bad, good = [sum(row["answerable"] is kind for row in rows) for kind in (False, True)]
        precision, recall = right / max(1, len(abstained)), right / bad
        given = [row for row in rows if row["answerable"] and not rule(row)]
        accuracy = sum(row["correct"] for row in given) / max(1, len(given))
        f1 = 2 * precision * recall / max(1e-9, precision + recall)
        cells = (precision, recall, f1, len(given) / good, accuracy)
        lines.append(f"| {name} | " + " | ".join(f"{100 * cell:.0f} %" for cell in cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
