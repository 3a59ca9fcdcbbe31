"""Measure how fast a dataset is read here, to compare machines, stores, options and releases."""

import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from builder.errors import SpecError, counted
from builder.model.canonical import Json
from builder.reader.dataset import Dataset
from builder.reader.opening import open_dataset
from builder.storage import LocalStore

Three: TypeAlias = tuple[int, int, int]
Clock: TypeAlias = Literal["cold", "warm"]
RECORD_VERSION = 1


@dataclass(frozen=True)
class Reading:
    """The measurement of one way of reading.

    Parameters
    ----------
    way
        ``threads``: ``Dataset.batches``; ``loader``: PyTorch's DataLoader over ``Dataset.torch_batches``.
    workers
        Number of threads or of the loader's worker processes; with 0 the caller reads.
    checksums
        Whether the crc32c of each chunk was verified.
    pages
        ``cold``: the dataset was opened after its files were dropped from the page cache (or with a new cache folder).
    samples_per_s, megabytes_per_s
        Samples per second, and decompressed bytes (10^6) per second.
    cpu_ms_per_sample
        Processor time of all threads of this process. It excludes the worker processes of a loader.
    median_ms, slowest_percent_ms
        Time per batch, 50th and 99th percentile.
    first_ms
        Time to the first batch; when cold, it includes opening the dataset.
    """

    way: Literal["threads", "loader"]
    workers: int
    checksums: bool
    pages: Clock
    samples_per_s: float
    megabytes_per_s: float
    cpu_ms_per_sample: float
    median_ms: float
    slowest_percent_ms: float
    first_ms: float

    @property
    def name(self) -> str:
        """The way of reading in words. Readings of the same name can be compared between records."""
        sums = "checksums" if self.checksums else "no checksums"
        return f"{self.pages}, {self.workers} {'loader workers' if self.way == 'loader' else 'threads'}, {sums}"


@dataclass(frozen=True)
class Options:
    """What to measure.

    Parameters
    ----------
    threads, loader_workers
        Numbers of threads and of loader workers to try. Loaders need PyTorch.
    crop
        (slice, row, column) of random boxes; required if the samples are volumes of different shapes.
    cache
        As for ``open_dataset``. The cold reading uses a new folder below it.
    seconds
        Approximate time for each reading.
    """

    batch_size: int = 16
    threads: tuple[int, ...] = (0, 1, 2, 4)
    loader_workers: tuple[int, ...] = ()
    crop: Three | None = None
    cache: str | None = None
    seconds: float = 3.0


@dataclass(frozen=True)
class Record:
    """All readings of one dataset on one machine."""

    dataset: str
    samples: int
    options: Options
    machine: Mapping[str, Json]
    readings: tuple[Reading, ...]

    def facts(self) -> dict[str, Json]:
        """Return the record as a JSON document, which ``rates_of`` reads back."""
        readings = [{"name": one.name, **asdict(one)} for one in self.readings]
        return {**asdict(self), "record_version": RECORD_VERSION, "readings": readings}

    def text(self, before: Mapping[str, float] | None = None) -> str:
        """Return one line per reading, with the ratio to the rate in ``before`` where it has one."""
        lines = [f"{self.dataset}: {counted(self.samples, 'sample')}, batches of {self.options.batch_size}"]
        heads = ("MB/s", "CPU ms", "p50 ms", "p99 ms", "first ms")
        lines.append(f"{'':38s} {'samples/s':>10s} " + " ".join(f"{head:>8s}" for head in heads))
        for one in self.readings:
            numbers = (one.megabytes_per_s, one.cpu_ms_per_sample, one.median_ms, one.slowest_percent_ms, one.first_ms)
            line = f"{one.name:38s} {one.samples_per_s:10.0f} " + " ".join(f"{number:8.1f}" for number in numbers)
            if before and one.name in before:
                line += f"  {one.samples_per_s / before[one.name]:.2f} x before"
            lines.append(line)
        return "\n".join(lines)


def measure_reading(url: str | Path, options: Options) -> Record:
    """Measure one cold reading, then warm ones for each number of workers, with and without checksums."""
    checked = open_dataset(url, uses="off", cache=options.cache)
    if options.loader_workers:
        checked.torch_batches(1)  # import PyTorch before anything is timed
    readings = [_measure_cold(url, options)]
    unchecked = open_dataset(url, uses="off", cache=options.cache, checksums=False)
    for dataset in (checked, unchecked):
        for count in options.threads:
            readings.append(_measure(dataset, options, "threads", count))
        for count in options.loader_workers:
            readings.append(_measure(dataset, options, "loader", count))
    manifest = checked.manifest
    return Record(f"{manifest.name} {manifest.version}", len(checked), options, _machine(), tuple(readings))


def rates_of(path: Path) -> dict[str, float]:
    """Read the samples per second of each reading from a saved record. Raises SpecError if it is not a record."""
    try:
        document = json.loads(path.read_bytes())
        version = document["record_version"]
        rates = {one["name"]: float(one["samples_per_s"]) for one in document["readings"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpecError(f"{path}: found no record of this benchmark, expected one that it kept") from error
    if version != RECORD_VERSION:
        raise SpecError(f"{path}: found a record of version {version}, expected {RECORD_VERSION}; measure again")
    return rates


def _measure_cold(url: str | Path, options: Options) -> Reading:
    """Measure one epoch, or as much of it as time allows, from files that are not in memory."""
    cache = None if options.cache is None else Path(options.cache) / f"cold-{time.time_ns():x}"
    _evict(open_dataset(url, uses="off"))
    began = time.perf_counter()
    dataset = open_dataset(url, uses="off", cache=cache)
    return _measure(dataset, options, "threads", max(options.threads), opened=time.perf_counter() - began)


def _evict(dataset: Dataset) -> None:
    """Ask the system to drop the files of a local dataset from the page cache."""
    store = dataset.store
    if not isinstance(store, LocalStore) or not hasattr(os, "posix_fadvise"):
        return
    for path in store.list("data"):
        handle = os.open(store.root / path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def _measure(
    dataset: Dataset, options: Options, way: Literal["threads", "loader"], workers: int, *, opened: float | None = None
) -> Reading:
    """Measure epochs until the time is up. With ``opened`` (seconds it took to open, cold), measure at most one."""
    times, samples, size, epoch = [], 0, 0, 0
    cpu, began = time.process_time(), time.perf_counter()
    last = began
    while last - began < options.seconds and (epoch == 0 or (samples and opened is None)):
        for count, read in _epoch(dataset, options, way, workers, epoch):
            now = time.perf_counter()
            times.append(now - last)
            last = now
            samples, size = samples + count, size + read
            if now - began >= options.seconds:
                break
        epoch += 1
    cpu, spent, ordered = time.process_time() - cpu, max(last - began, 1e-9), np.array(times or [0.0]) * 1e3
    return Reading(
        way=way,
        workers=workers,
        checksums=dataset.checksums,
        pages="warm" if opened is None else "cold",
        samples_per_s=samples / spent,
        megabytes_per_s=size / spent / 1e6,
        cpu_ms_per_sample=cpu / max(samples, 1) * 1e3,
        median_ms=float(np.percentile(ordered, 50)),
        slowest_percent_ms=float(np.percentile(ordered, 99)),
        first_ms=(opened or 0.0) * 1e3 + float(ordered[0]),
    )


def _epoch(
    dataset: Dataset, options: Options, way: Literal["threads", "loader"], workers: int, epoch: int
) -> Iterator[tuple[int, int]]:
    """Yield the number of samples and bytes of every batch."""
    arguments: dict[str, Any] = {"order": "shuffled", "epoch": epoch, "crop": options.crop}
    if way == "threads":
        for batch in dataset.batches(options.batch_size, threads=workers, **arguments):
            yield len(batch), sum(array.nbytes for array in batch.arrays.values())
        return
    from torch.utils.data import DataLoader

    batches = dataset.torch_batches(options.batch_size, threads=0 if workers else 1, **arguments)
    for found in DataLoader(batches, batch_size=None, num_workers=workers):
        yield len(found["index"]), sum(found[name].nbytes for name in dataset.fields)


def _machine() -> dict[str, Json]:
    """Return the facts about this machine that are needed to compare two records."""
    return {"processors": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}


def parse_numbers(text: str, *, name: str, count: int | None = None) -> tuple[int, ...]:
    """Parse numbers such as ``0,1,2``. Raises SpecError unless there are ``count`` of them, none negative."""
    parts: Sequence[str] = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdigit() for part in parts) or (count is not None and len(parts) != count):
        raise SpecError(f"{name}: found {text!r}, expected {count or 'some'} whole numbers divided by commas")
    return tuple(int(part) for part in parts)
