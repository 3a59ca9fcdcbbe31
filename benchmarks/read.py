"""Reading: this reader against the floor and its peers, on the same patches, in one run.

    python benchmarks/read.py [--images FOLDER] [--volumes 2] [--patches 64] [--rounds 5]
                              [--peer-python PYTHON]

Patches of 96^3 int16 are cut from CT slices below ``--images`` (any folder of DICOM) or from a synthetic volume, and
written as a dataset of patches and a dataset of whole volumes in the chunks that are chosen for such crops. The page
cache is warm. The floor decompresses the stored chunks from memory, into one buffer that stays in the processor's cache
or, as whoever makes batches must, into batches that do not.

``cpu`` is samples a second of processor time with one thread of ours, which a busy machine disturbs less than wall
time; ``wall`` is samples a second of wall time with two. Every contestant runs once a round, so that all see the same
machine. The rate is that of the best round, the ratio the median over rounds of the ratio to the floor in the same
round. Aims: patches at least 0.9 of the floor without checksums and 0.75 with, 4 x zarr-python, 9 x blosc2 as nnU-Net
wrote it (zstd, level 8), 50 x MONAI; crops at least as fast as tensorstore.

Other libraries run in a process of their own, ``benchmarks/peers/reading.py``, by the Python of ``--peer-python``
(``make test-peers`` makes one that has them all); those it lacks are left out. They read their own files of the same
voxels.

Last, every request waits 20 and 100 ms, as an object store's does: an epoch with an empty cache folder against one of
local files, and against a store that does not wait.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numcodecs.blosc as blosc
import numpy as np
import pyarrow as pa
import pydicom
import zarr
from figures import figure
from numpy.typing import NDArray
from scipy import ndimage

from builder.model.canonical import fingerprint
from builder.model.case import Sample
from builder.model.geometry import Geometry
from builder.model.layout import (
    CURRENT,
    INDEX,
    MANIFEST,
    SAMPLES,
    Manifest,
    ShardEntry,
    shard_path,
    stored_object,
    version_path,
    write_current,
)
from builder.model.parquet import parquet_bytes, read_parquet
from builder.model.zarr_format import Codec
from builder.patches import choose_chunk
from builder.reader import Dataset, open_dataset
from builder.shards import CODECS, write_shard
from builder.storage import LocalStore, open_store

EDGE = 96
SHAPE = (160, 320, 320)
"""Volumes have at least so many voxels along each axis."""
BATCH = 4
BATCHES: dict[Any, Any] = {}
Array = NDArray[Any]
Run = Callable[[], tuple[int, float]]
"""Reads some samples; their number and the seconds it took, of the clock it is measured by."""


@dataclass(frozen=True)
class Contestant:
    """One way to read."""

    group: str
    name: str
    run: Run


def main() -> None:
    """Print rates and ratios."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=Path)
    options.add_argument("--volumes", type=int, default=2, help="CT volumes to read at most")
    options.add_argument("--patches", type=int, default=64)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--peer-python", default=sys.executable)
    arguments = options.parse_args()
    volumes = list(find_volumes(arguments.images, arguments.volumes)) if arguments.images else []
    print(f"{len(volumes)} CT volumes" if volumes else "a synthetic volume", file=sys.stderr)
    volumes = volumes or [make_volume()]
    patches = cut_patches(volumes, arguments.patches)
    with tempfile.TemporaryDirectory(prefix="builder-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        contestants = [
            *patch_contestants(folder, patches),
            *peer_contestants(folder / "peers", patches, volumes, arguments.peer_python, stack),
            *thread_contestants(folder / "patches"),
            *crop_contestants(folder, volumes),
        ]
        show(contestants, measure(contestants, arguments.rounds))
        measure_latency(folder, patches)


def measure(contestants: list[Contestant], rounds: int) -> dict[str, float]:
    """Best rate of every contestant, and the median of its ratios to the first of its group."""
    rates: dict[str, list[float]] = {f"{one.group}/{one.name}": [] for one in contestants}
    for number in range(rounds + 1):
        for one in contestants:
            count, seconds = one.run()
            if number:  # the first round warms up
                rates[f"{one.group}/{one.name}"].append(count / seconds)
    found: dict[str, float] = {}
    for one in contestants:
        name = f"{one.group}/{one.name}"
        first = next(other for other in contestants if other.group == one.group)
        floor = rates[f"{one.group}/{first.name}"]
        found[name] = max(rates[name])
        found[f"{name}/ratio"] = float(np.median(np.array(rates[name]) / floor))
    return found


def show(contestants: list[Contestant], results: Mapping[str, float]) -> None:
    """One line a contestant, with the ratio to the first of its group."""
    for group in dict.fromkeys(one.group for one in contestants):
        print(f"\n{group}")
        for one in contestants:
            if one.group == group:
                rate, ratio = (results[f"{group}/{one.name}{part}"] for part in ("", "/ratio"))
                figure(f"{group}, {one.name}", rate, "/s", better="more")
                figure(f"{group}, {one.name}, of the first", ratio, "x", better="more")
                print(f"  {one.name:60s} {rate:8.0f}/s {ratio:7.3f} of the first, which is {1 / ratio:6.1f} x")


def by_clock(run: Callable[[], int], clock: Callable[[], float]) -> Run:
    """``run`` with the time it takes."""

    def timed() -> tuple[int, float]:
        began = clock()
        return run(), clock() - began

    return timed


def measure_latency(folder: Path, patches: list[Array]) -> None:
    """Share of the rate that is kept when every request waits, and round trips to the first batch."""
    root = write_dataset(folder / "far", [patches[:32] for _ in range(12)], chunk=None)
    options: dict[str, Any] = {"order": "shard_shuffled", "threads": 1, "requests": 8}
    print("\nobject store that takes a while to answer, 8 requests at once, 12 shards, one epoch, one thread")
    for name, train in (("as fast as it can", lambda batch: None), ("steps of 4 ms a sample", work_of_a_step())):
        local = min(run_epoch(open_dataset(root), train, options)[0] for _ in range(2))
        best: dict[float, tuple[float, float]] = {}
        for number, latency in enumerate((0.0, 0.02, 0.1) * 2):
            began = time.perf_counter()
            store = SlowStore(LocalStore(root), latency)
            dataset = open_dataset(store, cache=folder / f"cache {name} {number}")  # type: ignore[arg-type]
            opened = time.perf_counter() - began
            seconds, first = run_epoch(dataset, train, options)
            before = best.get(latency, (seconds, opened + first))
            best[latency] = min(before[0], seconds), min(before[1], opened + first)
        for latency in (0.02, 0.1):
            at_once, first = best[0.0][0] / best[latency][0], best[latency][1]
            label = f"latency {latency * 1e3:.0f} ms, {name}"
            figure(f"{label}, of local files", local / best[latency][0], "x", better="more")
            figure(f"{label}, of a store at once", at_once, "x", better="more")
            figure(f"{label}, trips to the first batch", first / latency, "trips")
            shares = f"{local / best[latency][0]:.2f} of local files, {at_once:.2f} of a store at once"
            trips = f"first batch after {first / latency:.1f} trips ({best[0.0][1] * 1e3:.0f} ms without latency)"
            print(f"  {label}: {shares}, {trips}")


def work_of_a_step() -> Callable[[Array], None]:
    """What a training step does with a batch on a processor: enough for reading to be ahead of it."""
    return lambda batch: time.sleep(0.004 * len(batch))


def run_epoch(dataset: Dataset, train: Callable[[Array], None], options: Mapping[str, Any]) -> tuple[float, float]:
    """Seconds of an epoch, and until its first batch."""
    began, first = time.perf_counter(), 0.0
    for batch in dataset.batches(BATCH, **options):
        first = first or time.perf_counter() - began
        train(batch["image"])
    return time.perf_counter() - began, first


@dataclass(frozen=True)
class SlowStore:
    """A store whose every answer comes late."""

    inner: LocalStore
    latency: float

    @property
    def url(self) -> str:
        """Of the store behind."""
        return self.inner.url

    def read(self, path: str) -> bytes:
        """A whole object, late."""
        time.sleep(self.latency)
        return self.inner.read(path)


def patch_contestants(folder: Path, patches: list[Array]) -> Iterator[Contestant]:
    """Readers of whole patches, by processor time."""
    root = write_dataset(folder / "patches", [patches[i::4] for i in range(4)], chunk=None)
    dataset, bare = open_dataset(root), open_dataset(root, checksums=False)
    stored = [read_stored(dataset, i) for i in range(len(dataset))]
    ratio = sum(p.nbytes for p in patches) / sum(map(len, stored))
    print(f"{len(patches)} patches, compressed {ratio:.2f} : 1", file=sys.stderr)
    path = folder / "patches.npy"
    np.save(path, np.stack(patches))
    mapped = np.load(path, mmap_mode="r")
    for name, run in (
        ("floor: decompress", lambda: decompress_all(stored)),
        ("floor of batches: decompress into batches", lambda: decompress_into_batches(stored)),
        ("one by one, no checksums", lambda: run_items(bare)),
        ("one by one", lambda: run_items(dataset)),
        ("batches, no checksums", lambda: run_batches(bare, threads=0)),
        ("batches", lambda: run_batches(dataset, threads=0)),
        ("zarr-python", lambda: read_zarr(root)),
        ("tensorstore", tensorstore_patches(root, threads=1)),
        ("memory map, copied", lambda: len([np.array(patch) for patch in mapped])),
    ):
        if run is not None:
            yield Contestant("patches, cpu", name, by_clock(run, time.process_time))


def thread_contestants(root: Path) -> Iterator[Contestant]:
    """Readers of whole patches, two threads, by wall time."""
    dataset, bare = open_dataset(root), open_dataset(root, checksums=False)
    stored = [read_stored(dataset, i) for i in range(len(dataset))]
    for name, run in (
        ("floor: decompress", lambda: decompress_in_threads(stored, decompress_all)),
        ("floor of batches: decompress into batches", lambda: decompress_in_threads(stored, decompress_into_batches)),
        ("batches, no checksums", lambda: run_batches(bare, threads=2)),
        ("batches", lambda: run_batches(dataset, threads=2)),
        ("zarr-python", lambda: read_zarr(root)),
        ("tensorstore", tensorstore_patches(root, threads=2)),
    ):
        if run is not None:
            yield Contestant("patches, wall, two threads", name, by_clock(run, time.perf_counter))


def peer_contestants(
    folder: Path, patches: list[Array], volumes: list[Array], python: str, stack: contextlib.ExitStack
) -> Iterator[Contestant]:
    """Other libraries, by the processor time of their own process."""
    folder.mkdir()
    np.save(folder / "patches.npy", np.stack(patches[:32]))
    for number, volume in enumerate(volumes):
        np.save(folder / f"volume{number}.npy", volume)
    command = [python, str(Path(__file__).parent / "peers" / "reading.py"), str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    stack.callback(process.wait)
    stack.callback(process.stdin.close)  # type: ignore[union-attr]

    def ask(name: str) -> tuple[int, float]:
        assert process.stdin is not None
        assert process.stdout is not None
        print(name, file=process.stdin, flush=True)
        answer = json.loads(process.stdout.readline())
        return answer["samples"], answer["cpu"]

    assert process.stdout is not None
    for name, remark in json.loads(process.stdout.readline()):
        yield Contestant("patches, cpu", f"{name}; {remark}", partial(ask, name))


def crop_contestants(folder: Path, volumes: list[Array]) -> Iterator[Contestant]:
    """Readers of random crops out of whole volumes, by processor and by wall time."""
    chunk = choose_chunk((EDGE, EDGE, EDGE))
    root = write_dataset(folder / "volumes", [volumes], chunk=chunk)
    dataset, bare = open_dataset(root), open_dataset(root, checksums=False)
    rng = np.random.default_rng(0)
    boxes = []
    for _ in range(24):
        number = int(rng.integers(len(volumes)))
        start = [int(rng.integers(0, n - EDGE + 1)) for n in volumes[number].shape]
        boxes.append((number, tuple(start)))
    paths = [str(root / shard_path(dataset.manifest.shards[0].fingerprint, f"image/{i}")) for i in range(len(volumes))]
    arrays = [zarr.open_array(path, mode="r") for path in paths]

    def read_ours(source: Dataset) -> int:
        for number, (s, r, c) in boxes:
            source.crop(number, (s, r, c), (EDGE, EDGE, EDGE))
        return len(boxes)

    def read_arrays() -> int:
        for number, (s, r, c) in boxes:
            arrays[number][:, s : s + EDGE, r : r + EDGE, c : c + EDGE]
        return len(boxes)

    for clock, name in ((time.process_time, "cpu"), (time.perf_counter, "wall")):
        for label, run in (
            ("tensorstore, one thread", tensorstore_crops(paths, boxes)),
            ("crop, no checksums", lambda: read_ours(bare)),
            ("crop", lambda: read_ours(dataset)),
            ("zarr-python", read_arrays),
        ):
            if run is not None:
                group = f"crops of volumes in chunks of {' x '.join(map(str, chunk))}, {name}"
                yield Contestant(group, label, by_clock(run, clock))


def read_zarr(root: Path) -> int:
    """Every patch by zarr-python."""
    if root not in BATCHES:
        BATCHES[root] = [zarr.open_array(str(p.parent), mode="r") for p in sorted(root.rglob("image/zarr.json"))]
    return sum(len([array[i] for i in range(array.shape[0])]) for array in BATCHES[root])


def run_batches(dataset: Dataset, *, threads: int) -> int:
    """An epoch of shuffled batches."""
    return sum(len(batch) for batch in dataset.batches(BATCH, order="shuffled", threads=threads))


def run_items(dataset: Dataset) -> int:
    """Every sample by its number."""
    for position in range(len(dataset)):
        dataset[position]
    return len(dataset)


def read_stored(dataset: Dataset, position: int) -> bytes:
    """The Blosc buffer of a patch."""
    source, chunk = dataset.locate(position, "image")
    return bytes(next(iter(source.fetch([chunk]))))[:-4]


def decompress_all(stored: list[bytes]) -> int:
    """The floor, one thread."""
    out = np.empty((EDGE, EDGE, EDGE), np.int16)
    for data in stored:
        blosc.decompress(data, out)
    return len(stored)


def decompress_into_batches(stored: list[bytes]) -> int:
    """The floor of whoever makes batches: two of them in turn, which do not stay in the processor's cache."""
    key = id(stored[0])  # each thread has its own
    if key not in BATCHES:
        BATCHES[key] = np.zeros((2, BATCH, EDGE, EDGE, EDGE), np.int16)
    out = BATCHES[key]
    for number, data in enumerate(stored):
        blosc.decompress(data, out[number // BATCH % 2, number % BATCH])
    return len(stored)


def decompress_in_threads(stored: list[bytes], run: Callable[[list[bytes]], int]) -> int:
    """A floor, two threads."""
    threads = [threading.Thread(target=run, args=(stored[i::2],)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(stored)


def tensorstore_patches(root: Path, *, threads: int) -> Callable[[], int] | None:
    """Google's tensorstore on the same arrays."""
    try:
        import tensorstore as ts
    except ImportError:
        return None
    context = ts.Context({"data_copy_concurrency": {"limit": threads}})
    arrays = [
        ts.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{p.parent}/"}}, context=context).result()
        for p in sorted(root.rglob("image/zarr.json"))
    ]

    def run() -> int:
        count = 0
        for array in arrays:
            for first in range(0, array.shape[0], BATCH):
                futures = [array[i].read() for i in range(first, min(first + BATCH, array.shape[0]))]
                count += len([future.result() for future in futures])
        return count

    return run


def tensorstore_crops(paths: list[str], boxes: list[tuple[int, Any]]) -> Callable[[], int] | None:
    """Google's tensorstore on the same volumes."""
    try:
        import tensorstore as ts
    except ImportError:
        return None
    context = ts.Context({"data_copy_concurrency": {"limit": 1}})
    arrays = [
        ts.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{p}/"}}, context=context).result()
        for p in paths
    ]

    def run() -> int:
        for number, (s, r, c) in boxes:
            arrays[number][:, s : s + EDGE, r : r + EDGE, c : c + EDGE].read().result()
        return len(boxes)

    return run


def write_dataset(
    root: Path,
    shards: list[list[Array]],
    *,
    chunk: tuple[int, int, int] | None,
    codec: Codec = CODECS["fast"],
) -> Path:
    """A published dataset of images."""
    store, tables, entries, fields = open_store(root), [], [], {}
    for number, images in enumerate(shards):
        samples = [
            Sample({"image": image[None]}, Geometry(image.shape, np.eye(4)), {"sample_key": f"{number}-{i}"})
            for i, image in enumerate(images)
        ]
        name = fingerprint(number)
        receipt = write_shard(store, name, cases=[samples], chunk=chunk, codec=codec)
        rows = read_parquet(store.read(shard_path(name, SAMPLES)))
        place = {"split": ["train"] * len(samples), "shard": [name] * len(samples), "row": list(range(len(samples)))}
        tables.append(pa.table({**place, **{c: rows.column(c) for c in rows.column_names}}))
        entries.append(ShardEntry(name, receipt.rows, receipt.objects))
        fields.update({f.name: f for f in receipt.fields})
    index = parquet_bytes(pa.concat_tables(tables))
    files = (stored_object(INDEX, index),)
    manifest = Manifest("bench", "v1", {}, {}, tuple(fields.values()), tuple(entries), files)
    store.put(version_path("v1", INDEX), index)
    store.put(version_path("v1", MANIFEST), manifest.to_json())
    store.put(CURRENT, write_current("v1"))
    return root


def cut_patches(volumes: list[Array], count: int) -> list[Array]:
    """Random patches."""
    rng = np.random.default_rng(1)
    patches = []
    for number in range(count):
        volume = volumes[number % len(volumes)]
        s, r, c = (int(rng.integers(0, n - EDGE + 1)) for n in volume.shape)
        patches.append(np.ascontiguousarray(volume[s : s + EDGE, r : r + EDGE, c : c + EDGE]))
    return patches


def find_volumes(folder: Path, most: int = 4) -> Iterator[Array]:
    """CT series below a folder, stacked by position; short ones are mirrored, so that they still compress like CT."""
    found = 0
    for place in sorted({path.parent for path in folder.rglob("*") if path.is_file()}):
        slices = {}
        for path in sorted(place.iterdir()):
            header = pydicom.dcmread(path, force=True, stop_before_pixels=True) if path.is_file() else None
            if header is not None and header.get("Modality") == "CT" and "ImagePositionPatient" in header:
                slices[float(header.ImagePositionPatient[2])] = path
        if len(slices) < EDGE // 4:
            continue
        images = [pydicom.dcmread(slices[z]).pixel_array for z in sorted(slices)[:160]]
        volume = np.stack(images)
        missing = [(0, max(n - m, 0)) for n, m in zip(SHAPE, volume.shape, strict=True)]
        volume = np.pad(volume, missing, mode="symmetric")
        if min(volume.shape) >= EDGE:
            yield volume.astype(np.int16) - np.int16(1024)
            found += 1
        if found == most:
            return


def make_volume() -> Array:
    """Smooth bodies in air with the noise of a scanner."""
    rng = np.random.default_rng(0)
    body = ndimage.gaussian_filter(rng.normal(0, 1, SHAPE).astype(np.float32), 8)
    body *= 300 / body.std()
    volume = (body + rng.normal(0, 12, body.shape)).astype(np.int16)
    volume[body < -150] = -1024
    return np.asarray(volume)


if __name__ == "__main__":
    main()
