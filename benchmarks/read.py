"""Reading: this reader against the floor and its peers, on the same patches, in one process and one run.

    python benchmarks/read.py [--images FOLDER] [--patches 64] [--rounds 5] [--json FILE]

Patches of 96^3 int16 are cut from CT slices below ``--images`` (any folder of DICOM) or from a synthetic volume, and
written as a dataset of patches, a dataset of whole volumes in chunks of 32^3, a memory map, and blosc2 files as nnU-Net
writes them. The page cache is warm. The floor decompresses the stored chunks from memory into one buffer. Last, every
request waits 20 and 100 ms, as an object store's does: an epoch with an empty cache folder against one of local files.

``cpu`` is samples a second of processor time with one thread of ours, which a busy machine disturbs less than wall
time; ``wall`` is samples a second of wall time with two. Every contestant runs once a round, so that all see the same
machine; the best round counts. Aims: patches at least 0.9 of the floor without checksums and 0.75 with, 4 x
zarr-python, 9 x blosc2, 50 x MONAI; crops at least as fast as tensorstore.

Peers that are not installed are left out: pip install tensorstore blosc2 monai torch.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numcodecs.blosc as blosc
import numpy as np
import pyarrow as pa
import pydicom
import zarr
from numpy.typing import NDArray
from scipy import ndimage

from builder.model.case import Sample
from builder.model.geometry import Geometry
from builder.model.layout import (
    CURRENT,
    INDEX,
    MANIFEST,
    SAMPLES,
    Manifest,
    ShardEntry,
    fingerprint,
    shard_path,
    stored_object,
    version_path,
    write_current,
)
from builder.model.parquet import parquet_bytes, read_parquet
from builder.reader import Dataset, open_dataset
from builder.shards import write_shard
from builder.storage import LocalStore, open_store

EDGE = 96
CHUNK = (32, 32, 32)
BATCH = 4
BATCHES: dict[str, Any] = {}
Array = NDArray[Any]
Run = Callable[[], int]


@dataclass(frozen=True)
class Contestant:
    """One way to read: a function that reads some samples and returns their number."""

    group: str
    name: str
    run: Run
    clock: str


def main() -> None:
    """Print rates and ratios, and keep them where ``--json`` says."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=Path)
    options.add_argument("--patches", type=int, default=64)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--json", type=Path)
    arguments = options.parse_args()
    volumes = list(find_volumes(arguments.images)) if arguments.images else []
    print(f"{len(volumes)} CT volumes" if volumes else "a synthetic volume", file=sys.stderr)
    volumes = volumes or [make_volume()]
    with tempfile.TemporaryDirectory(prefix="builder-bench-") as folder:
        contestants = [
            *patch_contestants(Path(folder), cut_patches(volumes, arguments.patches)),
            *crop_contestants(Path(folder), volumes),
        ]
        rates = measure(contestants, arguments.rounds)
        show(contestants, rates)
        rates |= measure_latency(Path(folder))
    if arguments.json:
        arguments.json.write_text(json.dumps(rates, indent=1, sort_keys=True) + "\n")


def measure(contestants: list[Contestant], rounds: int) -> dict[str, float]:
    """Best samples a second of every contestant, after one round to warm up; those below 20 run in two rounds."""
    best: dict[str, float] = {}
    for number in range(rounds + 1):
        for one in contestants:
            name = f"{one.group}/{one.name}"
            if number > 1 and best[name] < 20:
                continue
            clock = time.process_time if one.clock == "cpu" else time.perf_counter
            began = clock()
            rate = one.run() / (clock() - began)
            best[name] = max(best.get(name, 0.0), rate) if number else 0.0
            if number == 0:
                best[name] = rate if rate < 20 else 0.0
    return best


def show(contestants: list[Contestant], rates: Mapping[str, float]) -> None:
    """One line a contestant, with the ratio to the first of its group."""
    for group in dict.fromkeys(one.group for one in contestants):
        members = [one for one in contestants if one.group == group]
        first = rates[f"{group}/{members[0].name}"]
        print(f"\n{group}")
        for one in members:
            rate = rates[f"{group}/{one.name}"]
            print(f"  {one.name:48s} {rate:9.0f}/s {rate / first:7.3f} of the first, which is {first / rate:7.1f} x")


def measure_latency(folder: Path) -> dict[str, float]:
    """Share of the local rate that is kept when every request waits, and round trips to the first batch."""
    root = write_dataset(folder / "far", [cut_patches([make_volume()], 32) for _ in range(12)], chunk=None)
    options: dict[str, Any] = {"order": "shard_shuffled", "threads": 2, "requests": 8}
    train = work_of_a_step()
    warm = run_epoch(open_dataset(root), train, options)[0]
    kept = {}
    print("\nobject store that takes a while to answer, 8 requests at once, 12 shards of 32 patches, one epoch")
    for latency in (0.02, 0.1):
        store = SlowStore(LocalStore(root), latency)
        began = time.perf_counter()
        dataset = open_dataset(store, cache=folder / f"cache{latency}")  # type: ignore[arg-type]
        opened = time.perf_counter() - began
        seconds, first = run_epoch(dataset, train, options)
        kept[f"latency {latency * 1e3:.0f} ms/share of local rate"] = warm / seconds
        trips = (opened + first) / latency
        print(f"  {latency * 1e3:4.0f} ms: {warm / seconds:.2f} of the local rate, first batch after {trips:.1f} trips")
    return kept


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
    """Readers of whole patches."""
    root = write_dataset(folder / "patches", [patches[i::4] for i in range(4)], chunk=None)
    patches = [patch for i in range(4) for patch in patches[i::4]]
    dataset, bare = open_dataset(root), open_dataset(root, checksums=False)
    stored = [read_stored(dataset, i) for i in range(len(dataset))]
    ratio = sum(p.nbytes for p in patches) / sum(map(len, stored))
    print(f"{len(patches)} patches, compressed {ratio:.2f} : 1", file=sys.stderr)
    arrays = [zarr.open_array(str(p.parent), mode="r") for p in sorted(root.rglob("image/zarr.json"))]

    def read_zarr() -> int:
        return sum(len([array[i] for i in range(array.shape[0])]) for array in arrays)

    group = "patches, cpu"
    yield Contestant(group, "floor: decompress", lambda: decompress_all(stored), "cpu")
    yield Contestant(group, "floor: decompress into batches", lambda: decompress_into_batches(stored), "cpu")
    yield Contestant(group, "batches, no checksums", lambda: run_batches(bare, threads=0), "cpu")
    yield Contestant(group, "batches", lambda: run_batches(dataset, threads=0), "cpu")
    yield Contestant(group, "one by one, no checksums", lambda: run_items(bare), "cpu")
    yield Contestant(group, "one by one", lambda: run_items(dataset), "cpu")
    yield Contestant(group, "zarr-python", read_zarr, "cpu")
    yield from tensorstore_patches(group, root)
    yield from memory_map(group, folder, patches)
    yield from blosc2_crops(group, folder, patches)
    yield from monai_persistent(group, folder, patches)
    group = "patches, wall, two threads"
    yield Contestant(group, "floor: decompress", lambda: decompress_in_threads(stored), "wall")
    yield Contestant(group, "batches, no checksums", lambda: run_batches(bare, threads=2), "wall")
    yield Contestant(group, "batches", lambda: run_batches(dataset, threads=2), "wall")
    yield Contestant(group, "zarr-python", read_zarr, "wall")
    for one in tensorstore_patches(group, root):
        yield Contestant(group, one.name, one.run, "wall")


def crop_contestants(folder: Path, volumes: list[Array]) -> Iterator[Contestant]:
    """Readers of random crops out of whole volumes."""
    root = write_dataset(folder / "volumes", [volumes], chunk=CHUNK)
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

    def read_zarr() -> int:
        for number, (s, r, c) in boxes:
            arrays[number][:, s : s + EDGE, r : r + EDGE, c : c + EDGE]
        return len(boxes)

    for clock in ("cpu", "wall"):
        group = f"crops of volumes in chunks of 32^3, {clock}"
        yield from tensorstore_crops(group, paths, boxes, clock)
        yield Contestant(group, "crop, no checksums", lambda: read_ours(bare), clock)
        yield Contestant(group, "crop", lambda: read_ours(dataset), clock)
        yield Contestant(group, "zarr-python", read_zarr, clock)


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
    out = BATCHES.setdefault("buffers", np.zeros((2, BATCH, EDGE, EDGE, EDGE), np.int16))
    for number, data in enumerate(stored):
        blosc.decompress(data, out[number // BATCH % 2, number % BATCH])
    return len(stored)


def decompress_in_threads(stored: list[bytes]) -> int:
    """The floor, two threads."""
    threads = [threading.Thread(target=decompress_all, args=(stored[i::2],)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(stored)


def tensorstore_patches(group: str, root: Path) -> Iterator[Contestant]:
    """Google's tensorstore on the same arrays."""
    try:
        import tensorstore as ts
    except ImportError:
        return
    context = ts.Context({"data_copy_concurrency": {"limit": 1 if "cpu" in group else 2}})
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

    yield Contestant(group, "tensorstore", run, "cpu")


def tensorstore_crops(
    group: str, paths: list[str], boxes: list[tuple[int, Any]], clock: str
) -> Iterator[Contestant]:
    """Google's tensorstore on the same volumes."""
    try:
        import tensorstore as ts
    except ImportError:
        return
    context = ts.Context({"data_copy_concurrency": {"limit": 1}})
    arrays = [
        ts.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{p}/"}}, context=context).result()
        for p in paths
    ]

    def run() -> int:
        for number, (s, r, c) in boxes:
            arrays[number][:, s : s + EDGE, r : r + EDGE, c : c + EDGE].read().result()
        return len(boxes)

    yield Contestant(group, "tensorstore, one thread", run, clock)


def memory_map(group: str, folder: Path, patches: list[Array]) -> Iterator[Contestant]:
    """Uncompressed patches in one file."""
    path = folder / "patches.npy"
    np.save(path, np.stack(patches))
    mapped = np.load(path, mmap_mode="r")
    yield Contestant(group, "memory map, copied", lambda: len([np.array(patch) for patch in mapped]), "cpu")


def blosc2_crops(group: str, folder: Path, patches: list[Array]) -> Iterator[Contestant]:
    """A random crop of a larger blosc2 file, with codec, level and chunks as nnU-Net v2 writes them."""
    try:
        import blosc2
    except ImportError:
        return
    blosc2.set_nthreads(1)
    paths = []
    for number, patch in enumerate(patches[:8]):
        larger = np.pad(patch, 24, mode="reflect")[None].astype(np.float32)
        path = folder / f"{number}.b2nd"
        params = {"codec": blosc2.Codec.ZSTD, "clevel": 8, "nthreads": 1}
        blosc2.asarray(larger, urlpath=str(path), chunks=(1, 96, 96, 96), blocks=(1, 32, 32, 32), cparams=params)
        paths.append(str(path))

    def run() -> int:
        for number, path in enumerate(paths):
            file = blosc2.open(path, mode="r", dparams={"nthreads": 1}, mmap_mode="r")
            file[:, number : number + EDGE, 5 : 5 + EDGE, 9 : 9 + EDGE]
        return len(paths)

    yield Contestant(group, "blosc2 as nnU-Net, random crop", run, "cpu")


def monai_persistent(group: str, folder: Path, patches: list[Array]) -> Iterator[Contestant]:
    """MONAI's PersistentDataset of volumes of (160, 320, 320), with a random crop."""
    try:
        import torch
        from monai.data import PersistentDataset
        from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, RandSpatialCropd
    except ImportError:
        return
    torch.set_num_threads(1)
    items = []
    for number, patch in enumerate(patches[:4]):
        path = folder / f"larger{number}.npy"
        np.save(path, np.pad(patch, ((32, 32), (112, 112), (112, 112)), mode="symmetric"))
        items.append({"image": str(path)})
    transform = Compose(
        [
            LoadImaged(keys="image", reader="NumpyReader"),
            EnsureChannelFirstd(keys="image", channel_dim="no_channel"),
            RandSpatialCropd(keys="image", roi_size=(EDGE, EDGE, EDGE), random_size=False),
        ]
    )
    dataset = PersistentDataset(items, transform, cache_dir=folder / "monai")
    yield Contestant(group, "MONAI PersistentDataset, random crop", lambda: len(list(dataset)), "cpu")


def write_dataset(root: Path, shards: list[list[Array]], *, chunk: tuple[int, int, int] | None) -> Path:
    """A published dataset of images."""
    store, tables, entries, fields = open_store(root), [], [], {}
    for number, images in enumerate(shards):
        samples = [
            Sample({"image": image[None]}, Geometry(image.shape, np.eye(4)), {"sample_key": f"{number}-{i}"})
            for i, image in enumerate(images)
        ]
        name = fingerprint(number)
        receipt = write_shard(store, name, cases=[samples], chunk=chunk)
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
        volume = np.pad(volume, ((0, max(EDGE + 32 - len(volume), 0)), (0, 0), (0, 0)), mode="symmetric")
        if min(volume.shape) >= EDGE:
            yield volume.astype(np.int16) - np.int16(1024)
            found += 1
        if found == most:
            return


def make_volume() -> Array:
    """Smooth bodies in air with the noise of a scanner."""
    rng = np.random.default_rng(0)
    body = ndimage.gaussian_filter(rng.normal(0, 1, (160, 192, 192)).astype(np.float32), 8)
    body *= 300 / body.std()
    volume = (body + rng.normal(0, 12, body.shape)).astype(np.int16)
    volume[body < -150] = -1024
    return np.asarray(volume)


if __name__ == "__main__":
    main()
