"""How long volumes take to compare with each other in tasks, and what is found, by the number of volumes.

    python benchmarks/leaks.py --volumes 2000 [--to FOLDER] [--full] [--grown 20] [--cluster local --workers 2]

Prints are made of generated volumes: an outline of varied width in air, organs of smooth noise inside, and noise. All
are distinct but for planted copies (``--planted``), one in turn of each kind: flipped, another window, cropped to
70 to 95 % of each edge, cropped and flipped, cropped to 50 to 70 %, and equal pixels. Time for making the prints is not
counted, as a build makes them in the tasks that build its shards; all else is, from reading the prints to the pairs.
Prints in ``--to`` are used again, also by another number of volumes. ``--full`` also compares all pairs of hashes of
all crops, without the choice by spectra. ``--grown`` removes so many volumes, compares, and then compares all again: a
second version. Times are of the clock and of the processor, the latter of this process and its workers together.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import psutil
from figures import figure
from numpy.typing import NDArray

from builder.copies import THRESHOLDS, Match, prints_table, screening, take_print
from builder.copies.matching import NEIGHBOURS
from builder.model.parquet import parquet_bytes
from builder.publishing import comparing
from builder.publishing.comparing import compare_in_tasks, read_facts, read_fits
from builder.run.clusters import load_cluster
from builder.stages.graph import Outcome, Runner, Task
from builder.stages.shard import prints_path
from builder.storage import open_store

Voxels = NDArray[np.int16]
SHARD = 128
KINDS = ("flipped", "another window", "cropped", "cropped and flipped", "cropped to half", "equal")


@dataclass(frozen=True)
class Shard:
    """Volumes with these numbers, or copies of them."""

    first: int
    last: int
    copies: bool = False

    @property
    def name(self) -> str:
        return f"{'copies' if self.copies else 'volumes'}-{self.first}-{self.last}"


@dataclass
class Timed:
    """A runner that notes how long the tasks of each step take, by the clock and by processors."""

    runner: Runner
    steps: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def width(self) -> int:
        return self.runner.width

    def dismiss(self) -> None:
        self.runner.dismiss()

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Run the tasks of one step."""
        given, start, cpu = list(tasks), time.perf_counter(), _seconds()
        yield from list(self.runner.run(given))
        if given:
            step = given[0].key.rpartition("-")[0] or given[0].key
            self.steps[step] = (time.perf_counter() - start, _seconds() - cpu)


def main() -> None:
    """Make the prints that are missing, compare, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--volumes", type=int, default=1000)
    parser.add_argument("--planted", type=int, default=60)
    parser.add_argument("--to")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--grown", type=int, default=0)
    parser.add_argument("--cluster", default="serial")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        to = str(Path(given.to or scratch).resolve())
        shards = [Shard(n, min(n + SHARD, given.volumes)) for n in range(0, given.volumes, SHARD)]
        shards += [Shard(n, min(n + SHARD, given.planted), copies=True) for n in range(0, given.planted, SHARD)]
        with ProcessPoolExecutor(2) as pool:
            list(pool.map(partial(make, to), shards))
        if given.exact or given.full:
            serial(to, shards, given.exact)
            return
        with load_cluster(given.cluster).open(given.workers) as runner:
            if given.grown:
                tell("the earlier version", to, shards[: -(-(given.volumes - given.grown) // SHARD)], runner)
            tell("the version", to, shards, runner)


def serial(to: str, shards: Sequence[Shard], exact: bool) -> None:
    """Compare digests only, or all pairs of hashes."""
    comparing.ALONE = screening.PROMISING = 1 << 40
    with load_cluster("serial").open(1) as runner:
        tell("digests" if exact else "all pairs", to, shards, runner, neighbours=0 if exact else NEIGHBOURS)


def tell(
    name: str, to: str, shards: Sequence[Shard], runner: Runner, *, neighbours: int = NEIGHBOURS
) -> tuple[Match, ...]:
    """Compare, and print seconds, memory, pairs, recall and wrong merges."""
    store, names, timed = open_store(to), [s.name for s in shards], Timed(runner)
    before, cpu = time.perf_counter(), _seconds()
    facts = read_facts(store, names)
    read = time.perf_counter() - before
    found = compare_in_tasks(store, names, facts, timed, thresholds=THRESHOLDS, neighbours=neighbours)
    taken, used = time.perf_counter() - before, _seconds() - cpu
    right = {m.first for m in found if m.second == m.first.replace("c", "k")}
    held = {p.key for shard in facts for p in shard}
    planted = [key for key in sorted(held) if key.startswith("c") and key.replace("c", "k") in held]
    kinds = ", ".join(
        f"{kind} {sum(c in right for c in planted[n :: len(KINDS)])}/{len(planted[n :: len(KINDS)])}"
        for n, kind in enumerate(KINDS)
    )
    fitted = len(read_fits(store)) if neighbours and len(held) > comparing.ALONE else "some"
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    figure(f"{name}, wall", taken, "s")
    figure(f"{name}, processors", used, "s")
    figure(f"{name}, memory of the driver", memory, "GB")
    figure(f"{name}, copies found", len(right), "pairs", better="more")
    figure(f"{name}, wrong", len(found) - len(right), "pairs")
    steps = ", ".join(f"{step} {wall:.1f} ({own:.1f})" for step, (wall, own) in timed.steps.items())
    print(f"{name}: {len(held)} volumes, {taken:.1f} s ({read:.1f} s to read), {used:.1f} s of processors, "
          f"{1000 * used / max(len(held), 1):.2f} ms a volume, {memory:.2f} GB at most in this process, "
          f"{len(held) * (len(held) - 1) // 2} pairs, {fitted} fitted, in this or the earlier version; "
          f"recall {len(right)}/{len(planted)} ({kinds}); wrong {len(found) - len(right)}; seconds by the clock "
          f"(of processors): {steps}", flush=True)  # fmt: skip
    return found


def _seconds() -> float:
    """Return the processor time of this process and its workers."""
    workers = [p.cpu_times() for p in psutil.Process().children(recursive=True)]
    return time.process_time() + float(sum(w.user + w.system for w in workers))


def make(to: str, shard: Shard) -> None:
    """Write the prints of a shard."""
    store = open_store(to)
    path = prints_path(shard.name)
    if store.exists(path):
        return
    prints = []
    for number in range(shard.first, shard.last):
        voxels = planted(body(number), number) if shard.copies else body(number)
        name = f"{'c' if shard.copies else 'k'}{number:07d}"
        prints.append(take_print(voxels, key=name, person_key=name, modality="CT"))
    store.put(path, parquet_bytes(prints_table(prints)))


def body(seed: int) -> Voxels:
    """Return an outline in air with organs of smooth noise inside, on 40 x 48 x 48 voxels."""
    rng = np.random.default_rng(seed)
    shape = (40, 48, 48)
    organs = rng.normal(size=tuple(int(rng.integers(5, 10)) for _ in range(3)))
    for axis, size in enumerate(shape):
        at = np.linspace(0, organs.shape[axis] - 1, size)
        low = np.minimum(at.astype(int), organs.shape[axis] - 2)
        share = (at - low).reshape([-1 if a == axis else 1 for a in range(3)])
        organs = np.take(organs, low, axis) * (1 - share) + np.take(organs, low + 1, axis) * share
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    width, depth = rng.uniform(0.6, 0.98, 2)
    inside = (y / depth) ** 2 + (x / width) ** 2 + rng.uniform(0, 0.5) * z**2 < 1
    values = np.where(inside, 200 * organs / organs.std(), -1000) + 15 * rng.normal(size=shape)
    return np.round(values).astype(np.int16)


def planted(volume: Voxels, number: int) -> Voxels:
    """Return a copy of a volume of one of the kinds, in turn."""
    rng = np.random.default_rng(number)
    kind = KINDS[number % len(KINDS)]
    if kind == "another window":
        low, high = np.percentile(volume, [rng.uniform(5, 25), rng.uniform(95, 99.5)])
        return np.asarray(np.clip((volume - low) / (high - low), 0, 1) * 255, dtype=np.int16)
    if "cropped" in kind:
        least, most = (0.5, 0.7) if kind == "cropped to half" else (0.7, 0.95)
        keep = [round(n * rng.uniform(least, most)) for n in volume.shape]
        start = [int(rng.integers(0, n - k + 1)) for n, k in zip(volume.shape, keep, strict=True)]
        volume = volume[tuple(slice(s, s + k) for s, k in zip(start, keep, strict=True))]
    return volume[:, ::-1, ::-1] if "flipped" in kind else volume


if __name__ == "__main__":
    main()
