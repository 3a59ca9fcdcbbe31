"""Sliding windows that cover a sample, for inference over whole volumes."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from numpy.typing import NDArray

from builder.reader.dataset import Dataset

Three: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Window:
    """A box of a sample: its first voxel (slice, row, column) and the voxels of every field."""

    start: Three
    arrays: Mapping[str, NDArray[Any]]


def read_windows(dataset: Dataset, position: int, shape: Three, *, stride: Three | None = None) -> Iterator[Window]:
    """Yield windows of ``shape`` that together cover a sample. Only one window is decoded at a time.

    The last window along an axis is moved back so that it ends where the sample ends. Where the sample is shorter than
    ``shape``, the window has the length of the sample.

    Parameters
    ----------
    stride
        Distance between neighbouring windows; ``shape`` when None.
    """
    whole = dataset.shape(int(dataset.rows[position]), dataset.fields[0])[1:]
    s, r, c = (min(n, m) for n, m in zip(shape, whole, strict=True))
    for start in window_starts(whole, (s, r, c), stride=stride or shape):
        yield Window(start, dataset.crop(position, start, (s, r, c)))


def window_starts(whole: Three, shape: Three, *, stride: Three) -> Iterator[Three]:
    """Yield the first voxel of each window of ``shape`` needed to cover ``whole``, in C order.

    Raises
    ------
    ValueError
        If the windows would leave gaps, or would be larger than ``whole``.
    """
    for n, m, d in zip(whole, shape, stride, strict=True):
        if not 0 < m <= n or d < 1 or (d > m and m < n):
            raise ValueError(f"found windows of {shape} every {stride} in {whole}, expected them to fit and to meet")
    axes = [
        sorted({min(start, n - m) for start in range(0, n - m + d, d)})
        for n, m, d in zip(whole, shape, stride, strict=True)
    ]
    yield from itertools.product(axes[0], axes[1], axes[2])
