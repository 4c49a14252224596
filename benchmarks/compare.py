"""How long two results take to compare, by our rules and by Spider's official evaluator, on results that look alike.

    python benchmarks/compare.py [--reference DIR] [--limit-s 60]

--reference is a checkout of taoyds/test-suite-sql-eval (its modules need sqlparse and nltk). It tries column orders one
after the other, so it runs in a process that is ended after --limit-s, and on the narrow tables only. Times are
milliseconds of processor time: the best of three for ours, one run for the reference.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import multiprocessing
import platform
import random
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import NamedTuple

from text2sql.sql.compare import UNDECIDED, same_result, same_result_official

Rows = list[tuple]
WIDEST_FOR_REFERENCE = 10


class Case(NamedTuple):
    """Two results to compare where order does not matter."""

    name: str
    gold: Rows
    predicted: Rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", metavar="DIR", help="checkout of taoyds/test-suite-sql-eval")
    parser.add_argument("--limit-s", type=float, default=60.0, help="seconds given to the reference per case")
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, {platform.machine()}; milliseconds of processor time")
    print(f"{'case':44}{'columns x rows':>15}{'strict':>10}{'official':>10}{'reference':>12}  equal")
    for case in cases(random.Random(0)):
        strict, (equal, reason) = timed(same_result, case)
        official, _ = timed(same_result_official, case)
        reference = referenced(case, options.reference, options.limit_s) if options.reference else ""
        size = f"{len(case.gold[0])} x {len(case.gold):,}"
        verdict = "undecided" if reason == UNDECIDED else "yes" if equal else "no"
        print(f"{case.name:44}{size:>15}{strict:>10.3f}{official:>10.3f}{reference:>12}  {verdict}", flush=True)


def timed(same: Callable[..., tuple[bool, str]], case: Case) -> tuple[float, tuple[bool, str]]:
    """The best of three, each long enough to be measured, in milliseconds, and the answer."""
    best = float("inf")
    for _ in range(3):
        started, times = time.process_time(), 0
        while not times or time.process_time() - started < 0.02:
            answer = same(case.gold, case.predicted, ordered=False)
            times += 1
        best = min(best, (time.process_time() - started) / times)
    return best * 1e3, answer


def referenced(case: Case, reference: str, limit_s: float) -> str:
    """The reference's milliseconds, or what there is to say instead."""
    if len(case.gold[0]) > WIDEST_FOR_REFERENCE:
        return "not run"
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=run_reference, args=(theirs, reference, case.gold, case.predicted), daemon=True)
    process.start()
    theirs.close()
    try:
        ours.recv()
        return f"{ours.recv():.3f}" if ours.poll(limit_s) else f"> {limit_s * 1e3:.0f}"
    except EOFError:
        raise SystemExit(f"the reference in {reference} does not run: see the error above") from None
    finally:
        process.kill()
        process.join()


def run_reference(answers: Connection, reference: str, gold: Rows, predicted: Rows) -> None:
    """In a process of its own: says when it is ready, and then how long result_eq took, in milliseconds."""
    sys.path.insert(0, reference)
    evaluator = importlib.import_module("exec_eval")
    answers.send("ready")
    started = time.process_time()
    evaluator.result_eq(gold, predicted, order_matters=False)
    answers.send((time.process_time() - started) * 1e3)


def cases(chance: random.Random) -> Iterator[Case]:
    """From what most questions give to tables in which no row or column can be told from another by its content."""
    people = [(f"name {number}", number, number / 7) for number in range(5)]
    yield Case("five rows, identical", people, list(people))
    yield Case("five rows, columns permuted", people, [row[::-1] for row in people])
    yield Case("five rows, other values", people, [(name, number + 1, share) for name, number, share in people])
    for width in (6, 10):
        yield from variants(f"random 0/1, {width} columns", bits(chance, 1000, width), chance)
    for name, rows in wide(chance).items():
        yield from variants(name, rows, chance)
    for name, top in (("0/1", 1), ("0 to 50", 50), ("0 to 10**6", 10**6)):
        tall = [tuple(chance.randint(0, top) for _ in range(3)) for _ in range(100_000)]
        yield Case(f"{name}, both permuted", tall, permuted(tall, chance, rows=True))
    fractions = [tuple(chance.random() for _ in range(3)) for _ in range(100_000)]
    yield Case("fractions, both permuted", fractions, permuted(fractions, chance, rows=True))
    yield from regular(chance)


def wide(chance: random.Random) -> dict[str, Rows]:
    """Tables of about 30 columns and 1,000 rows."""
    blocks = [set(chance.sample(range(30), 5)) for _ in range(33)]
    halves = zip(*(chance.sample([0, 1] * 500, 1000) for _ in range(30)))
    return {
        "random 0/1": bits(chance, 1000, 30),
        "500 ones in each column": list(halves),
        "five ones in each row": incidence(30, [set(chance.sample(range(30), 5)) for _ in range(1000)]),
        "cyclic design": turned(30, blocks),
        "circulant": repeated(turned(30, [{0, 1, 4}])),
        "quadratic residues mod 31": repeated(turned(31, [{place * place % 31 for place in range(1, 31)}])),
        "triple system": repeated(triples(4)),
        "identity": repeated(turned(30, [{0}])),
        "rings of 3 and 6": repeated(rings(6, 6, 6, 3, 3, 3, 3)),
        "Latin square": repeated([tuple((row + place) % 30 for place in range(30)) for row in range(30)]),
        "all columns equal": [(chance.randint(0, 1),) * 30 for _ in range(1000)],
    }


def regular(chance: random.Random) -> Iterator[Case]:
    """Pairs that only a search tells apart, or that none does within its budget."""
    yield Case("rings 6,6,6,6,3,3 and 6,6,6,3,3,3,3", rings(6, 6, 6, 6, 3, 3), rings(6, 6, 6, 3, 3, 3, 3))
    rook, shrikhande = torus({(0, 1), (0, 2), (1, 0), (2, 0)}), torus({(0, 1), (1, 0), (1, 1)})
    yield Case("two strongly regular graphs", rook, permuted(shrikhande, chance, rows=True))
    yield Case("triple system of 33, both permuted", triples(5), permuted(triples(5), chance, rows=True))
    three = [beside(rook, *[shrikhande] * 3), beside(rook, rook, *[shrikhande] * 2)]
    yield Case("four such graphs side by side", three[0], permuted(three[1], chance, rows=True))


def variants(name: str, rows: Rows, chance: random.Random) -> Iterator[Case]:
    yield Case(f"{name}, identical", rows, list(rows))
    yield Case(f"{name}, columns permuted", rows, permuted(rows, chance, rows=False))
    yield Case(f"{name}, both permuted", rows, permuted(rows, chance, rows=True))
    one_off = [*rows[:-1], (1 - rows[-1][0], *rows[-1][1:])]
    yield Case(f"{name}, one cell changed", rows, permuted(one_off, chance, rows=True))
    if swapped := swap(rows, chance):
        yield Case(f"{name}, two cells swapped", rows, permuted(swapped, chance, rows=True))


def permuted(table: Rows, chance: random.Random, *, rows: bool) -> Rows:
    columns = chance.sample(range(len(table[0])), len(table[0]))
    laid_out = [tuple(row[column] for column in columns) for row in table]
    return chance.sample(laid_out, len(laid_out)) if rows else laid_out


def swap(rows: Rows, chance: random.Random) -> Rows | None:
    """Rows (1, 0) and (0, 1) in two columns become (0, 1) and (1, 0), which changes no sum; None if there are none."""
    changed = [list(row) for row in rows]
    for _ in range(10_000):
        (one, other), (left, right) = chance.sample(range(len(rows)), 2), chance.sample(range(len(rows[0])), 2)
        if rows[one][left] == rows[other][right] != rows[one][right] == rows[other][left]:
            for row in (changed[one], changed[other]):
                row[left], row[right] = row[right], row[left]
            return [tuple(row) for row in changed]
    return None


def bits(chance: random.Random, height: int, width: int) -> Rows:
    return [tuple(chance.randint(0, 1) for _ in range(width)) for _ in range(height)]


def incidence(width: int, blocks: list[set[int]]) -> Rows:
    """One row per block, with a 1 in the columns it names."""
    return [tuple(int(place in block) for place in range(width)) for block in blocks]


def turned(width: int, blocks: list[set[int]]) -> Rows:
    """All rotations of the blocks."""
    return incidence(width, [{(place + turn) % width for place in block} for block in blocks for turn in range(width)])


def rings(*sizes: int) -> Rows:
    """The edges of rings: each row holds a 1 in the columns of its two ends."""
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    edges = [(start, place, size) for start, size in zip(starts, sizes) for place in range(size)]
    return incidence(sum(sizes), [{start + place, start + (place + 1) % size} for start, place, size in edges])


def torus(steps: set[tuple[int, int]]) -> Rows:
    """The edges between cells of a 4 by 4 torus that are one of these steps apart, in one direction or the other."""
    cells = list(itertools.product(range(4), repeat=2))
    edges = [
        {one, other}
        for one, other in itertools.combinations(range(16), 2)
        for apart in [tuple((a - b) % 4 for a, b in zip(cells[one], cells[other]))]
        if apart in steps or tuple(-step % 4 for step in apart) in steps
    ]
    return incidence(16, edges)


def triples(order: int) -> Rows:
    """A Steiner triple system of 6 * order + 3 points (Bose 1939): any two columns share a 1 in one row."""
    size = 2 * order + 1
    upright = [{place, place + size, place + 2 * size} for place in range(size)]
    slanted = [
        {one + level * size, other + level * size, (one + other) * (order + 1) % size + (level + 1) % 3 * size}
        for level in range(3)
        for one, other in itertools.combinations(range(size), 2)
    ]
    return incidence(3 * size, upright + slanted)


def beside(*tables: Rows) -> Rows:
    """Tables in columns of their own, zeros elsewhere."""
    widths = [len(table[0]) for table in tables]
    return [
        (0,) * sum(widths[:index]) + row + (0,) * sum(widths[index + 1 :])
        for index, table in enumerate(tables)
        for row in table
    ]


def repeated(rows: Rows, height: int = 1000) -> Rows:
    return rows * (height // len(rows))


if __name__ == "__main__":
    main()
