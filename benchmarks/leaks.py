"""How long volumes take to compare with each other in tasks, and what is found, by the number of volumes.

    python benchmarks/leaks.py --volumes 2000 [--to FOLDER] [--full] [--grown 20] [--cluster local --workers 2]

Prints are made of generated volumes: an outline of varied width in air, organs of smooth noise inside, and noise. All
are distinct but for planted copies (``--planted``), one in turn of each kind: flipped, another window, cropped to
70 to 95 % of each edge, cropped and flipped, cropped to 50 to 70 %, and equal pixels. Time for making the prints is not
counted. ``--full`` also compares all pairs of hashes of all crops, without the choice by spectra. ``--grown`` removes
so many volumes, compares, and then compares all again: a second version.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from figures import figure
from numpy.typing import NDArray

from builder.copies import THRESHOLDS, Match, prints_table, screening, take_print
from builder.copies.matching import NEIGHBOURS
from builder.model.parquet import parquet_bytes
from builder.publishing import comparing
from builder.publishing.comparing import compare_in_tasks, read_facts, read_fits
from builder.run.clusters import load_cluster
from builder.stages.graph import Runner
from builder.stages.shard import prints_path
from builder.storage import open_store

Voxels = NDArray[np.int16]
SHARD = 128
KINDS = ("flipped", "another window", "cropped", "cropped and flipped", "cropped to half", "equal")


@dataclass(frozen=True)
class Made:
    """Which volumes to make: how many in all, and of how many there is a copy."""

    volumes: int
    planted: int
    to: str


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
        made = Made(given.volumes, given.planted, str(Path(given.to or scratch).resolve()))
        shards = [f"s{n}" for n in range(-(-(given.volumes + given.planted) // SHARD))]
        with ProcessPoolExecutor(2) as pool:
            list(pool.map(partial(make, made), range(len(shards))))
        if given.exact or given.full:
            serial(made, shards, given.exact)
            return
        with load_cluster(given.cluster).open(given.workers) as runner:
            if given.grown:
                tell("the earlier version", made, shards[: -(-(given.volumes - given.grown) // SHARD)], runner)
            tell("the version", made, shards, runner)


def serial(made: Made, shards: Sequence[str], exact: bool) -> None:
    """Compare digests only, or all pairs of hashes."""
    comparing.ALONE = screening.PROMISING = 1 << 40
    with load_cluster("serial").open(1) as runner:
        tell("digests" if exact else "all pairs", made, shards, runner, neighbours=0 if exact else NEIGHBOURS)


def tell(
    name: str, made: Made, shards: Sequence[str], runner: Runner, *, neighbours: int = NEIGHBOURS
) -> tuple[Match, ...]:
    """Compare, and print seconds, memory, pairs, recall and wrong merges."""
    store = open_store(made.to)
    before, cpu = time.perf_counter(), _seconds()
    facts = read_facts(store, shards)
    read = time.perf_counter() - before
    found = compare_in_tasks(store, shards, facts, runner, thresholds=THRESHOLDS, neighbours=neighbours)
    taken = time.perf_counter() - before
    right = {m.first for m in found if m.second == m.first.replace("c", "k")}
    held = {p.key for shard in facts for p in shard}
    planted = [f"c{n:07d}" for n in range(made.planted) if {f"c{n:07d}", f"k{n:07d}"} <= held]
    kinds = ", ".join(
        f"{kind} {sum(c in right for c in planted[n :: len(KINDS)])}/{len(planted[n :: len(KINDS)])}"
        for n, kind in enumerate(KINDS)
    )
    fitted = len(read_fits(store)) if neighbours and len(held) > comparing.ALONE else "some"
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    figure(f"{name}, wall", taken, "s")
    figure(f"{name}, memory of the driver", memory, "GB")
    figure(f"{name}, copies found", len(right), "pairs", better="more")
    figure(f"{name}, wrong", len(found) - len(right), "pairs")
    print(f"{name}: {len(held)} volumes, {taken:.1f} s ({read:.1f} s to read), {_seconds() - cpu:.1f} s of "
          f"the processor in this process, {memory:.2f} GB at most, {len(held) * (len(held) - 1) // 2} pairs, "
          f"{fitted} fitted, in this or the earlier version; recall {len(right)}/{len(planted)} ({kinds}); "
          f"wrong {len(found) - len(right)}", flush=True)  # fmt: skip
    return found


def _seconds() -> float:
    return time.process_time()


def make(made: Made, shard: int) -> None:
    """Write the prints of a shard; volumes beyond the number asked for are copies of the first ones."""
    store = open_store(made.to)
    path = prints_path(f"s{shard}")
    if store.exists(path):
        return
    prints = []
    for n in range(shard * SHARD, min((shard + 1) * SHARD, made.volumes + made.planted)):
        copied = n >= made.volumes
        number = n - made.volumes if copied else n
        voxels = planted(body(number), number) if copied else body(number)
        name = f"{'c' if copied else 'k'}{number:07d}"
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
