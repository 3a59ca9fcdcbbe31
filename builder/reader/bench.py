"""How fast a dataset is read here: numbers to compare machines, stores and options by."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from builder.reader.dataset import Dataset, open_dataset


@dataclass(frozen=True)
class Reading:
    """One way of reading, measured.

    Parameters
    ----------
    name
        What was done.
    samples_per_s, megabytes_per_s
        Rate, and rate of decompressed bytes (10^6).
    median_ms, slowest_percent_ms
        Time a batch, 50th and 99th percentile.
    first_ms
        Time to the first batch; for the first line from opening the dataset.
    """

    name: str
    samples_per_s: float
    megabytes_per_s: float
    median_ms: float
    slowest_percent_ms: float
    first_ms: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def measure_reading(
    url: str | Path,
    *,
    batch_size: int = 16,
    threads: Sequence[int] = (0, 1, 2, 4),
    crop: tuple[int, int, int] | None = None,
    cache: str | Path | None = None,
    seconds: float = 5.0,
) -> Iterator[Reading]:
    """Measure one first pass, then shuffled batches with each number of threads, with and without checksums.

    Parameters
    ----------
    crop
        (slice, row, column) of random boxes; needed where samples are volumes of different shapes.
    cache
        As for ``open_dataset``.
    seconds
        Each line takes about so long, at least one epoch of at most ``seconds``.
    """
    began = time.perf_counter()
    checked = open_dataset(url, cache=cache)
    opened = time.perf_counter() - began
    yield _measure(
        "first pass", checked, opened, batch_size=batch_size, threads=max(threads), crop=crop, seconds=seconds
    )
    unchecked = open_dataset(url, cache=cache, checksums=False)
    for count in threads:
        for name, dataset in (("checksums", checked), ("no checksums", unchecked)):
            label = f"{count} threads, {name}"
            yield _measure(label, dataset, 0.0, batch_size=batch_size, threads=count, crop=crop, seconds=seconds)


def _measure(
    name: str,
    dataset: Dataset,
    opened: float,
    *,
    batch_size: int,
    threads: int,
    crop: tuple[int, int, int] | None,
    seconds: float,
) -> Reading:
    times, samples, size, epoch = [], 0, 0, 0
    began = last = time.perf_counter()
    while last - began < seconds and (epoch == 0 or samples):
        for batch in dataset.batches(batch_size, order="shuffled", epoch=epoch, threads=threads, crop=crop):
            now = time.perf_counter()
            times.append(now - last)
            last = now
            samples += len(batch)
            size += sum(array.nbytes for array in batch.arrays.values())
            if now - began >= seconds:
                break
        epoch += 1
        if name == "first pass":
            break
    spent = max(last - began, 1e-9)
    ordered = np.array(times or [0.0]) * 1e3
    return Reading(
        name,
        samples / spent,
        size / spent / 1e6,
        float(np.percentile(ordered, 50)),
        float(np.percentile(ordered, 99)),
        opened * 1e3 + float(ordered[0]),
    )
