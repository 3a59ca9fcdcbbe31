"""Reduce a volume to what the comparison needs: digests of its planes, and a small copy of its ranks."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from builder.kernels.blocks import block_means
from builder.kernels.ranks import dense_ranks

Reals = NDArray[np.float32]

SMALL = 32
"""Edge of the small copy in voxels."""

LEVELS = 257
"""How many values of the small copy are kept in addition to its ranks."""

STEPS = np.linspace(-0.5, 0.5, LEVELS)
"""The ranks at which those values are taken."""

QUANTILES = (0.01, 0.5, 0.99)

PRINTS = pa.schema(
    [
        pa.field("case_key", pa.string()),
        pa.field("person_key", pa.string()),
        pa.field("modality", pa.string()),
        pa.field("digest", pa.string()),
        pa.field("planes", pa.list_(pa.int64())),
        pa.field("small", pa.binary()),
        pa.field("levels", pa.list_(pa.float32())),
        pa.field("shape", pa.list_(pa.int64())),
        pa.field("quantiles", pa.list_(pa.float64())),
    ]
)
"""One row per volume. The table is private, because a small copy shows parts that the samples may have left out."""

COMPARED = ("small", "levels")
"""The columns that only the comparison of small copies needs: nearly all bytes of a print."""

NOTHING: Reals = np.empty(0, np.float32)

PRINTS_VERSION = 2
"""Raised whenever the print of the same volume changes; prints of an earlier version are taken again, not read."""


@dataclass(frozen=True, eq=False)
class Print:
    """What the comparison keeps of a volume.

    Parameters
    ----------
    key, person_key, split, modality
        Keyed names and the modality; the split if known.
    digest
        SHA-256 of the canonical pixels, independent of the order of slices.
    shape
        Number of voxels along each axis.
    planes
        Sorted 64-bit digests of the planes that are not constant.
    small
        (32, 32, 32) ranks between -0.5 and 0.5.
    levels
        The 257 values at equal steps of rank, lowest to highest, scaled from 0 to 1. Together with the ranks they give
        the small copy in its own window.
    quantiles
        1 %, 50 % and 99 % quantiles of the block means (32 blocks per axis), in the volume's own unit.
    """

    key: str
    person_key: str
    split: str | None
    digest: str
    small: Reals
    levels: Reals
    shape: tuple[int, ...]
    planes: tuple[int, ...] = ()
    modality: str = ""
    quantiles: tuple[float, ...] = ()


def take_print(
    voxels: NDArray[Any], *, key: str, person_key: str, split: str | None = None, modality: str = ""
) -> Print:
    """Return the print of (slice, row, column) or (channel, slice, row, column) values, before any transform.

    The small copy is made from the first channel.
    """
    stack = voxels if voxels.ndim == 4 else voxels[None]
    digests = plane_digests(stack)
    planes = tuple(sorted({int.from_bytes(d[:8], "big", signed=True) for d in digests if d != FLAT}))
    means = _means(stack[0])
    blocks = block_means(means, (SMALL,) * 3)
    small = _stretched(means)
    return Print(
        key, person_key, split, _joined(digests, stack.shape), _ranks(small), _levels(small), stack.shape[1:], planes,
        modality, tuple(np.quantile(blocks, QUANTILES, method="inverted_cdf").tolist()),
    )  # fmt: skip


def pixel_digest(voxels: NDArray[Any]) -> str:
    """Return the SHA-256 of the pixels, independent of type, byte order, encoding, offset and order of slices."""
    stack = np.asarray(voxels)
    if stack.ndim != 3:
        raise ValueError(f"voxels: found shape {stack.shape}, expected (slice, row, column)")
    return _joined(plane_digests(stack[None]), stack[None].shape)


FLAT = b"\0" * 32
"""The digest of a constant plane (air, padding, a blanked plane), which says nothing about its origin."""


LARGEST_WHOLE = 2**53
"""Up to this value, float64 represents every whole number exactly."""


def plane_digests(voxels: NDArray[Any]) -> list[bytes]:
    """Return the SHA-256 of every plane of (channel, slice, row, column) values in canonical form.

    The minimum of the plane is subtracted from whole numbers, so that an intercept does not matter. Other numbers are
    replaced by their rank among the distinct values of the plane, so that no factor matters (rescale slopes, SUV). Both
    are hashed as little-endian integers.
    """
    return [_plane_digest(plane) for channel in voxels for plane in channel]


def small_copy(voxels: NDArray[Any]) -> Reals:
    """Return the (32, 32, 32) block means of a volume as ranks between -0.5 and 0.5.

    Windowing and rescaling of intensities hardly change ranks, as long as they keep the order of values.
    """
    return _ranks(_stretched(_means(voxels)))


def _means(volume: NDArray[Any]) -> NDArray[np.float64]:
    """Return block means along the axes that have more voxels than the small copy; other axes stay as they are."""
    slices, rows, columns = (min(n, SMALL) for n in volume.shape)
    return block_means(volume, (slices, rows, columns))


def _stretched(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Stretch axes shorter than the small copy by linear interpolation, so that crops of few slices vary smoothly."""
    for axis, size in enumerate(means.shape):
        at = np.clip((np.arange(SMALL) + 0.5) * size / SMALL - 0.5, 0, size - 1)
        low = np.minimum(at.astype(np.int64), max(size - 2, 0))
        share = (at - low).reshape([-1 if a == axis else 1 for a in range(3)])
        high = np.minimum(low + 1, size - 1)
        means = np.take(means, low, axis) * (1 - share) + np.take(means, high, axis) * share
    return means


def _levels(small: NDArray[np.float64]) -> Reals:
    values = np.sort(small, axis=None)[np.arange(LEVELS) * (small.size - 1) // (LEVELS - 1)]
    return np.asarray((values - values[0]) / max(float(values[-1] - values[0]), 1e-30), dtype=np.float32)


def _ranks(small: NDArray[np.float64]) -> Reals:
    largest = float(np.abs(small).max(initial=0.0)) or 1.0
    # rounded so that noise in the sums does not decide the order
    _, inverse, counts = np.unique(np.round(small / largest, 7).ravel(), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse].reshape(small.shape)  # ties share their mean rank
    return unpacked(packed(np.asarray(ranks / ranks.size - 0.5, dtype=np.float32)))


def prints_table(prints: Sequence[Print]) -> pa.Table:
    """Return prints as rows of schema PRINTS, without splits; ``parse_prints`` is the inverse."""
    rows = [
        {
            "case_key": p.key, "person_key": p.person_key, "modality": p.modality, "digest": p.digest,
            "planes": list(p.planes), "small": packed(p.small),
            "levels": p.levels.tolist(), "shape": list(p.shape), "quantiles": list(p.quantiles),
        }
        for p in prints
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=PRINTS)


def parse_prints(table: pa.Table) -> list[Print]:
    """Read prints from rows of schema PRINTS. Without the columns of COMPARED they can be certified, not compared."""
    rows = table.select([name for name in table.column_names if name not in COMPARED]).to_pylist()
    if set(COMPARED) <= set(table.column_names):
        levels = table["levels"].combine_chunks().flatten().to_numpy().reshape(-1, LEVELS)  # lists are slow
        seen = list(zip(map(unpacked, table["small"].to_pylist()), levels, strict=True))
    else:
        seen = [(NOTHING, NOTHING)] * len(rows)
    return [
        Print(
            row["case_key"], row["person_key"], None, row["digest"], small, levels_of,
            tuple(row["shape"]), tuple(row["planes"]), row["modality"], tuple(row["quantiles"]),
        )
        for row, (small, levels_of) in zip(rows, seen, strict=True)
    ]  # fmt: skip


def _plane_digest(plane: NDArray[Any]) -> bytes:
    if plane.dtype.kind == "f":
        if not np.array_equal(plane, np.rint(plane)) or np.abs(plane).max(initial=0) > LARGEST_WHOLE:
            ranks = dense_ranks(plane)
            return FLAT if not ranks.any() else _hashed(ranks, plane.shape)
        plane = plane.astype(np.int64)
    low, high = int(plane.min()), int(plane.max())
    if low == high:
        return FLAT
    if high - low < 1 << 16:
        # The result fits in 16 bits, so arithmetic that wraps around on the way still gives the right value.
        return _hashed(plane.astype("<u2") - np.array(low & 0xFFFF, dtype="<u2"), plane.shape)
    return _hashed(plane.astype("<i8") - low, plane.shape)


def _hashed(values: NDArray[Any], shape: tuple[int, ...]) -> bytes:
    kind = values.dtype.newbyteorder("<")
    digest = hashlib.sha256(f"{shape[0]} {shape[1]} ".encode())
    digest.update(np.ascontiguousarray(values, dtype=kind).data)
    return digest.digest()


def _joined(digests: Sequence[bytes], shape: tuple[int, ...]) -> str:
    head = f"{shape[2]} {shape[3]} {len(digests)} ".encode()
    return hashlib.sha256(head + b"".join(sorted(digests))).hexdigest()


def packed(small: Reals) -> bytes:
    """Store ranks in half steps as 16-bit integers, which tell 32,768 ranks apart except for ties of odd size."""
    return np.round((small + 0.5) * 65535).clip(0, 65535).astype("<u2").tobytes()


def unpacked(data: bytes) -> Reals:
    """Return the ranks that ``packed`` stored."""
    values = np.frombuffer(data, dtype="<u2").astype(np.float32) / np.float32(65535) - np.float32(0.5)
    return np.asarray(values.reshape((SMALL,) * 3), dtype=np.float32)
