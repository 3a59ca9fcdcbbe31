"""Batches of random crops of a whole volume into one buffer, against their floor and mlarray, in one run.

    python benchmarks/crop_batches.py [--images FOLDER] [--edges 64,96,128] [--rounds 7]

The volume and the files are those of ``crops.py``, preset ``training``. ``dataset.batches`` draws the places, checks
and decodes four crops into one buffer with its table of rows; mlarray gives the same crops one by one, copied into a
buffer of four. The floor decompresses, from memory, the chunks that the same crops touch, and neither checks nor copies
them. Every contestant runs once a round, by the processor time of one thread and by the clock; ratios are medians over
rounds of the ratio to mlarray in the same round. Checksums are compared at the first touch, before the clock starts.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numcodecs.blosc as blosc
import numpy as np
from crops import Array, Reader, Start, by_mlarray, make
from figures import figure
from read import write_dataset

from builder.patches import Whole, shard_chunk
from builder.reader import Dataset, open_dataset
from builder.shards import CODECS

BATCH = 4


def main() -> int:
    """Run the benchmark. Fail if a reader gives other voxels than the volume's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--edges", default="64,96,128")
    parser.add_argument("--rounds", type=int, default=7)
    told = parser.parse_args()
    volume = make(told.images)
    for edge in map(int, told.edges.split(",")):
        with tempfile.TemporaryDirectory(prefix="builder-crops-") as name:
            show(edge, measure(ways(Path(name), volume, edge), told.rounds))
    return 0


def ways(folder: Path, volume: Array, edge: int) -> dict[str, Callable[[], int]]:
    """Return what reads one epoch of crops, by its name."""
    shape = (edge, edge, edge)
    chunk = shard_chunk(Whole(crop=shape), "training")
    assert chunk is not None
    opened = open_dataset(write_dataset(folder / "set", [[volume]], chunk=chunk, codec=CODECS["training"]))
    dataset = replace(opened, rows=np.zeros(max(20, 60_000_000 // edge**3) // BATCH * BATCH, np.int64))
    starts: list[Start] = []
    for batch in dataset.batches(BATCH, crop=shape, threads=0):
        assert batch.starts is not None
        for crop, (s, r, c) in zip(batch["image"], batch.starts.tolist(), strict=True):
            starts.append((s, r, c))
            if not np.array_equal(crop[0], volume[s : s + edge, r : r + edge, c : c + edge]):
                raise SystemExit("batches: found other voxels than the volume's")
    found = {"dataset.batches": partial(by_batches, dataset, shape)}
    found["floor: decompress the chunks"] = partial(by_chunks, touched(dataset, starts, chunk, edge), chunk)
    peer = by_mlarray(folder, volume, edge, "default", 1)
    if peer is not None:
        found["mlarray, copied into batches"] = partial(by_reader, peer[0], starts, edge)
    return found


def by_batches(dataset: Dataset, shape: Start) -> int:
    """Read an epoch as training does; every epoch of this seed has the same crops."""
    return sum(len(batch) for batch in dataset.batches(BATCH, crop=shape, threads=0))


def touched(dataset: Dataset, starts: list[Start], chunk: Start, edge: int) -> list[list[bytes]]:
    """Return the stored chunks, without checksums, that each crop touches."""
    source, _ = dataset.locate(0, "image")
    stored = [bytes(data)[:-4] for data in source.fetch(range(source.chunks))]
    grid = [-(-n // p) for n, p in zip(dataset.shape(0, "image")[1:], chunk, strict=True)]
    found = []
    for start in starts:
        spans = [range(a // p, -(-(a + edge) // p)) for a, p in zip(start, chunk, strict=True)]
        found.append([stored[int(np.ravel_multi_index(place, grid))] for place in itertools.product(*spans)])
    return found


def by_chunks(crops: list[list[bytes]], chunk: Start) -> int:
    """Decompress chunks into one array that stays in the processor's cache."""
    out = np.empty(chunk, np.int16)
    for data in itertools.chain.from_iterable(crops):
        blosc.decompress(data, out)
    return len(crops)


def by_reader(read: Reader, starts: list[Start], edge: int) -> int:
    """Copy single crops into two buffers of a batch, in turn."""
    out = np.empty((2, BATCH, edge, edge, edge), np.int16)
    for number, start in enumerate(starts):
        out[number // BATCH % 2, number % BATCH] = read(start)
    return len(starts)


def measure(found: dict[str, Callable[[], int]], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return the rates of each round, by clock and name."""
    rates: dict[str, dict[str, list[float]]] = {}
    for name, clock in (("cpu", time.process_time), ("wall", time.perf_counter)):
        rates[name] = {label: [] for label in found}
        for number in range(rounds + 1):
            for label, run in found.items():
                began = clock()
                count = run()
                if number:  # the first round warms up
                    rates[name][label].append(count / (clock() - began))
    return rates


def show(edge: int, rates: dict[str, dict[str, list[float]]]) -> None:
    """Print what was found for one edge."""
    last = list(rates["cpu"])[-1]
    for label in rates["cpu"]:
        line = f"{edge:4}  {label:32}"
        for clock, found in rates.items():
            ratio = float(np.median(np.array(found[label]) / found[last]))
            figure(f"{label}, {edge}, {clock}", max(found[label]), "crops/s", better="more")
            figure(f"{label}, {edge}, {clock}, beside {last}", ratio, "x", better="more")
            line += f"  {clock} {max(found[label]):6.0f}/s {ratio:5.2f}"
        print(line, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
