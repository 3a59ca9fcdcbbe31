"""Random crops of a whole volume: the preset ``training`` against mlarray and tensorstore, in one run.

    python benchmarks/crops.py [--images FOLDER] [--edges 64,96,128] [--rounds 7]

The volume is (375, 400, 400) int16: CT slices below ``--images`` (any folder of DICOM, resampled along the slices with
noise of 3 HU, so that it stays as hard to compress), or a synthetic one. mlarray (``pip install mlarray``) writes it
with its own defaults and with the patch size of the crops, and the better of both counts; it is left out where it is
not installed. Lines with ``own threads`` let mlarray use two threads for one crop. Every reader opens its file once.
Checksums are on: ours compares that of a chunk at the first touch, before the clock starts; mlarray has none.

``cpu`` is crops a second of processor time with one thread, ``wall`` of the clock with one and with two threads. Every
contestant runs once a round; the ratio is the median over rounds of the ratio to mlarray in the same round.
Aim: 1.2 times mlarray at every edge, in a file that is no larger.
"""

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import tensorstore
from figures import figure
from numpy.typing import NDArray
from read import make_volume, write_dataset

from builder.model.layout import shard_path
from builder.patches import Whole, shard_chunk
from builder.reader import open_dataset
from builder.shards import CODECS

SHAPE = (375, 400, 400)
Array = NDArray[Any]
Start = tuple[int, int, int]
Reader = Callable[[Start], Array]


def main() -> int:
    """Run the benchmark. Fail if a reader gives other voxels than the volume's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--edges", default="64,96,128")
    parser.add_argument("--rounds", type=int, default=7)
    told = parser.parse_args()
    volume = make(told.images)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="builder-crops-") as name:
        for edge in map(int, told.edges.split(",")):
            readers, megabytes = contestants(Path(name), volume, edge)
            results[str(edge)] = {"MB": megabytes, **measure(volume, readers, edge, told.rounds)}
            show(edge, results[str(edge)])
    return 0


def make(images: Path | None) -> Array:
    """Return the volume."""
    whole = (make_volume() if images is None else read_slices(images)).astype(np.float32)
    whole = np.pad(whole, [(0, 0), *((0, max(0, n - m)) for n, m in zip(SHAPE[1:], whole.shape[1:], strict=True))])
    place = np.linspace(0, len(whole) - 1, SHAPE[0])
    below = np.minimum(place.astype(int), len(whole) - 2)
    share = (place - below)[:, None, None].astype(np.float32)
    middle = whole[:, *(slice((m - n) // 2, (m - n) // 2 + n) for n, m in zip(SHAPE[1:], whole.shape[1:], strict=True))]
    noise = np.random.default_rng(0).normal(0, 3, SHAPE)
    made: Array = np.rint(middle[below] * (1 - share) + middle[below + 1] * share + noise).astype(np.int16)
    return made


def read_slices(images: Path) -> Array:
    """Return the slices of the size that most files below a folder have, in HU, sorted by their position."""
    found: dict[tuple[int, int], list[tuple[float, Array]]] = {}
    for path in sorted(p for p in images.rglob("*") if p.is_file()):
        header = pydicom.dcmread(path, force=True)
        if "ImagePositionPatient" in header and "PixelData" in header:
            values = header.pixel_array * float(header.RescaleSlope) + float(header.RescaleIntercept)
            found.setdefault(values.shape, []).append((float(header.ImagePositionPatient[2]), values))
    if not found:
        raise SystemExit(f"{images}: found no CT slices, expected a folder of them")
    slices = max(found.values(), key=len)
    return np.stack([values for _, values in sorted(slices, key=lambda pair: pair[0])])


def contestants(folder: Path, volume: Array, edge: int) -> tuple[dict[str, Reader], dict[str, float]]:
    """Return a reader of crops for each contestant, and the size of what it reads in 10^6 bytes."""
    readers: dict[str, Reader] = {}
    megabytes: dict[str, float] = {}
    for preset in ("training", "crops", "fast"):
        chunk = shard_chunk(Whole(crop=(edge, edge, edge)), preset)
        began = time.process_time()
        root = write_dataset(folder / f"{preset}-{edge}", [[volume]], chunk=chunk, codec=CODECS[preset])
        seconds = time.process_time() - began
        label = f"{preset} {' x '.join(map(str, chunk or ()))}"
        print(f"{label}: written in {seconds:.1f} s of processor time", file=sys.stderr)
        dataset = open_dataset(root)
        place = root / shard_path(dataset.manifest.shards[0].fingerprint, "image/0")
        readers[label] = partial(ours, dataset, edge)
        megabytes[label] = size(place)
        if preset == "training":
            readers["tensorstore, the same file"] = partial(by_tensorstore, opened(place), edge)
    for patch, threads in itertools.product(("default", edge), (1, 2)):
        made = by_mlarray(folder, volume, edge, patch, threads)
        if made is not None:
            label = f"mlarray, patch size {patch}{', own threads' if threads > 1 else ''}"
            readers[label], megabytes[label] = made
    return readers, megabytes


def ours(dataset: Any, edge: int, start: Start) -> Array:
    """Read a crop through the dataset."""
    found: Array = dataset.crop(0, start, (edge, edge, edge))["image"][0]
    return found


def opened(place: Path) -> Any:
    """Open an array with tensorstore, with one thread."""
    limit = {"data_copy_concurrency": {"limit": 1}, "file_io_concurrency": {"limit": 1}}
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(place)}, "context": limit}
    return tensorstore.open(spec, open=True).result()


def by_tensorstore(array: Any, edge: int, start: Start) -> Array:
    """Read a crop with tensorstore."""
    s, r, c = start
    found: Array = array[0, s : s + edge, r : r + edge, c : c + edge].read().result()
    return found


def by_mlarray(folder: Path, volume: Array, edge: int, patch: Any, threads: int) -> tuple[Reader, float] | None:
    """Write the volume as mlarray does, and return how it reads with so many threads a crop, and its file's size."""
    try:
        import blosc2
        from mlarray import MLArray  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return None
    blosc2.set_nthreads(1)
    path = folder / f"{patch}-{edge}-{threads}.mla"
    MLArray(volume, patch_size=patch).save(path)
    array = MLArray.open(path, dparams={"nthreads": threads})

    def read(start: Start) -> Array:
        found: Array = array[tuple(slice(a, a + edge) for a in start)]
        return found

    return read, path.stat().st_size / 1e6


def size(place: Path) -> float:
    """Return the size of an array's files in 10^6 bytes."""
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) / 1e6


def measure(volume: Array, readers: dict[str, Reader], edge: int, rounds: int) -> dict[str, Any]:
    """Return the rates and the ratios of every reader by each clock."""
    rng = np.random.default_rng(edge)
    count = max(20, 60_000_000 // edge**3)
    starts = [tuple(int(rng.integers(0, n - edge + 1)) for n in volume.shape) for _ in range(count)]
    for label, read in readers.items():
        for start in starts:  # which touches every chunk that the clock will see
            box = tuple(slice(a, a + edge) for a in start)
            if not np.array_equal(read(start), volume[box]):  # type: ignore[arg-type]
                raise SystemExit(f"{label}: found other voxels than the volume's")
    clocks = {
        "cpu": (time.process_time, 1),
        "wall": (time.perf_counter, 1),
        "wall, 2": (time.perf_counter, 2),
    }
    found: dict[str, Any] = {}
    for name, (clock, threads) in clocks.items():
        rates: dict[str, list[float]] = {label: [] for label in readers}
        for _ in range(rounds):
            for label, read in readers.items():
                rates[label].append(rate(read, starts, clock, threads))  # type: ignore[arg-type]
        peers = [rates[label] for label in rates if label.startswith("mlarray")]
        best = np.array(max(peers, key=np.median) if peers else rates["tensorstore, the same file"])
        found[name] = {label: (max(r), float(np.median(np.array(r) / best))) for label, r in rates.items()}
    return found


def rate(read: Reader, starts: Sequence[Start], clock: Callable[[], float], threads: int) -> float:
    """Return crops a second."""
    began = clock()
    if threads == 1:
        for start in starts:
            read(start)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(read, starts))
    return len(starts) / (clock() - began)


def show(edge: int, found: dict[str, Any]) -> None:
    """Print what was found for one edge."""
    for label in found["cpu"]:
        figures = [
            f"{name} {found[name][label][0]:6.0f}/s {found[name][label][1]:5.2f}" for name in found if name != "MB"
        ]
        for name in (name for name in found if name != "MB"):
            figure(f"{label}, {edge}, {name}", found[name][label][0], "crops/s", better="more")
            figure(f"{label}, {edge}, {name}, beside the best peer", found[name][label][1], "x", better="more")
        megabytes = found["MB"].get(label)
        if megabytes is not None:
            figure(f"{label}, {edge}, size", megabytes, "MB")
        print(
            f"{edge:4}  {label:32} {'' if megabytes is None else f'{megabytes:.1f} MB':9}",
            "   ".join(figures),
            flush=True,
        )


if __name__ == "__main__":
    raise SystemExit(main())
