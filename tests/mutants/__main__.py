"""Mutation testing of the rooms that must not be wrong: ``make mutants [ROOM=ledger] [COUNT=100]``.

A fixed random sample of small changes is made to a copy of the project, one at a time. The room's tests that execute a
changed line run until one fails. A change that no test notices is printed. With ``--seconds`` only the quickest of
these tests run, so that the score is a lower bound, for much less time.
``reasons.tsv`` lists those that cannot be noticed, and why. A hundred changes of one room take from a few minutes to
half an hour.
"""

import argparse
import csv
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.mutants.mutate import Mutation, mutations
from tests.mutants.running import ROOT, passes, record, that_execute

REASONS = Path(__file__).with_name("reasons.tsv")
COPIED = ("builder", "tests", "specs", "docs", "benchmarks", "examples", "pyproject.toml", "README.md")


@dataclass(frozen=True)
class Room:
    """Sources (globs below ``builder``) and the tests (below ``tests``) that must notice a change in them."""

    sources: tuple[str, ...]
    tests: tuple[str, ...]


def near(folder: str, *, slow: Sequence[str]) -> tuple[str, ...]:
    """Return the test files of a folder, but for slow ones: a sample runs them hundreds of times."""
    left_out = {f"test_{name}.py" for name in slow}
    names = sorted(path.name for path in (ROOT / "tests" / folder).glob("test_*.py"))
    return tuple(f"{folder}/{name}" for name in names if name not in left_out)


ROOMS: Mapping[str, Room] = {
    "geometry": Room(("model/geometry.py",), ("model/test_geometry.py",)),
    "ledger": Room(
        ("publishing/ledger.py", "publishing/accounts.py"), ("publishing/test_ledger.py", "publishing/test_accounts.py")
    ),
    "lease": Room(("run/lease.py", "storage/leases.py"), ("run/test_lease.py",)),
    "fingerprints": Room(
        ("plan.py", "model/canonical.py", "model/keyed.py"),
        ("test_plan.py", "model/test_keyed.py", "model/test_layout.py"),
    ),
    "split": Room(("split/*.py",), near("split", slow=("idc",))),
    "deid": Room(("deid/*.py",), near("deid", slow=("corpus", "linear"))),
    "labels": Room(("labels/*.py", "labels/reports/*.py"), near("labels", slow=("corpus_sweep", "damage"))),
    "files": Room(("files/*.py",), ("files",)),
    "imaging": Room(("imaging/*.py", "imaging/*/*.py"), ("imaging",)),
    "reader": Room(
        ("reader/order.py", "reader/batches.py", "reader/shard.py", "reader/dataset.py", "reader/epoch.py"),
        ("reader/test_order.py", "reader/test_batches.py", "reader/test_dataset.py"),
    ),
}


class Told(NamedTuple):
    """File, the line that a change begins on, and the text before and after."""

    file: str
    line: str
    before: str
    after: str


@dataclass(frozen=True)
class Mutant:
    """A mutation of a file below the project's root."""

    path: str
    mutation: Mutation
    line: str

    @property
    def told(self) -> Told:
        """What names it in ``reasons.tsv``, wherever the line has moved."""
        before, after = self.mutation.before, self.mutation.after
        return Told(self.path, self.line, " ".join(before.split()), " ".join(after.split()))

    def __str__(self) -> str:
        return "\t".join((f"{self.mutation.start[0]}", *self.told))


@dataclass(frozen=True)
class Sample:
    """How many mutations of a room are tried, the number of the draw, and the seconds of tests that each may take."""

    count: int
    draw: int
    seconds: float


def main() -> None:
    options = parse()
    known = read_reasons()
    bad = 0
    for name in options.room or ROOMS:
        bad += examine(name, Sample(options.count, options.draw, options.seconds), known)
    sys.exit(min(bad, 1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__)
    parser.add_argument("room", nargs="*", help=f"of {', '.join(ROOMS)}; all when none is named")
    parser.add_argument("--count", type=int, default=100, help="mutations of each room")
    parser.add_argument("--draw", type=int, default=0, help="another number draws another sample")
    parser.add_argument(
        "--seconds",
        type=float,
        default=float("inf"),
        help="run only the quickest tests, for so long, for a mutation",
    )
    options = parser.parse_args()
    unknown = sorted(set(options.room) - set(ROOMS))
    if unknown:
        parser.error(f"found the rooms {unknown}, expected some of {sorted(ROOMS)}")
    return options


def read_reasons() -> dict[Told, str]:
    """Why a change cannot be noticed."""
    with REASONS.open(newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return {Told(*(row[name] for name in Told._fields)): row["reason"] for row in rows}


def examine(name: str, drawn: Sample, known: Mapping[Told, str]) -> int:
    """Try a sample of a room's mutations, print what nobody noticed and the score; returns how many have no reason."""
    chosen = sample(name, drawn.count, draw=drawn.draw)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        place = Path(folder)
        for part in COPIED:
            source = ROOT / part
            (shutil.copytree if source.is_dir() else shutil.copy2)(source, place / part)
        unnoticed = []
        for mutant in _survivors(place, ROOMS[name], chosen, limit=drawn.seconds):
            unnoticed.append(mutant)
            print(f"  {'stated' if mutant.told in known else 'SURVIVED'}\t{mutant}", flush=True)
    without = [mutant for mutant in unnoticed if mutant.told not in known]
    noticed, stated = len(chosen) - len(unnoticed), len(unnoticed) - len(without)
    print(f"{name}: {noticed} of {len(chosen)} noticed, {stated} stated, {len(without)} not", flush=True)
    return len(without)


def sample(name: str, count: int, *, draw: int = 0) -> list[Mutant]:
    """Return the same mutations every time, until the room's code changes."""
    everything = [
        Mutant(path.relative_to(ROOT).as_posix(), mutation, source.splitlines()[mutation.start[0] - 1].strip())
        for pattern in ROOMS[name].sources
        for path in sorted((ROOT / "builder").glob(pattern))
        for source in (path.read_text(),)
        for mutation in mutations(source)
    ]
    return random.Random(f"{name} {draw}" if draw else name).sample(everything, min(count, len(everything)))


def _survivors(place: Path, room: Room, chosen: list[Mutant], *, limit: float) -> Iterator[Mutant]:
    """Yield the mutants with which all tests of the room pass, or those of them that take ``limit`` seconds in all."""
    tests = [f"tests/{test}" for test in room.tests]
    ran, seconds = record(place, tests, {mutant.path for mutant in chosen})
    print(f"  {len(ran)} tests, {seconds:.0f} processor seconds when all run", flush=True)
    for number, mutant in enumerate(chosen, 1):
        path = place / mutant.path
        source = path.read_text()
        path.write_text(mutant.mutation.apply(source))
        stamp = path.stat().st_mtime + number  # caches of compiled code go by whole seconds
        os.utime(path, (stamp, stamp))
        tests_of_it = that_execute(ran, mutant.path, mutant.mutation.lines, limit=limit)
        if passes(place, tests_of_it, seconds=seconds):
            yield mutant
        path.write_text(source)
        os.utime(path, (stamp + 0.5 + len(chosen), stamp + 0.5 + len(chosen)))


if __name__ == "__main__":
    main()
