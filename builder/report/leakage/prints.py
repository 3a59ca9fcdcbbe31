"""What the comparison keeps of a volume: digests of its planes, and a small copy of its ranks."""

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

QUANTILES = (0.01, 0.5, 0.99)

PRINTS = pa.schema(
    [
        pa.field("case_key", pa.string()),
        pa.field("person_key", pa.string()),
        pa.field("modality", pa.string()),
        pa.field("digest", pa.string()),
        pa.field("planes", pa.list_(pa.int64())),
        pa.field("small", pa.binary()),
        pa.field("quantiles", pa.list_(pa.float64())),
    ]
)
"""One row a volume. Private: a small copy shows what samples may have left out."""


@dataclass(frozen=True, eq=False)
class Print:
    """What the comparison keeps of a volume.

    Parameters
    ----------
    key, person_key, split, modality
        Keyed names; the split where it is known.
    digest
        SHA-256 of the canonical pixels, whatever their order of slices.
    planes
        Sorted 64-bit digests of the planes that are not of one value.
    small
        (32, 32, 32) ranks between -0.5 and 0.5.
    quantiles
        1 %, 50 % and 99 % of the block means the ranks were taken of, in the volume's own unit.
    """

    key: str
    person_key: str
    split: str | None
    digest: str
    small: Reals
    planes: tuple[int, ...] = ()
    modality: str = ""
    quantiles: tuple[float, ...] = ()


def take_print(
    voxels: NDArray[Any], *, key: str, person_key: str, split: str | None = None, modality: str = ""
) -> Print:
    """The print of (slice, row, column) or (channel, slice, row, column) values, before any transform.

    The small copy is that of the first channel.
    """
    stack = voxels if voxels.ndim == 4 else voxels[None]
    digests = plane_digests(stack)
    planes = tuple(sorted({int.from_bytes(d[:8], "big", signed=True) for d in digests if d != FLAT}))
    means = block_means(stack[0], SMALL)
    found = tuple(np.quantile(means, QUANTILES, method="inverted_cdf").tolist())
    return Print(key, person_key, split, _joined(digests, stack.shape), _ranks(means), planes, modality, found)


def pixel_digest(voxels: NDArray[Any]) -> str:
    """SHA-256 of the pixels whatever their type, byte order, encoding, offset and order of slices."""
    stack = np.asarray(voxels)
    if stack.ndim != 3:
        raise ValueError(f"voxels: found shape {stack.shape}, expected (slice, row, column)")
    return _joined(plane_digests(stack[None]), stack[None].shape)


FLAT = b"\0" * 32
"""The digest of a plane of one value: air, padding, a blanked plane."""


LARGEST_WHOLE = 2**53
"""Up to here a float holds every whole number."""


def plane_digests(voxels: NDArray[Any]) -> list[bytes]:
    """SHA-256 of every plane of (channel, slice, row, column) values in canonical form.

    Whole numbers are taken above the lowest of their plane, so that an intercept does not matter; other numbers by
    their rank among the distinct values of their plane, so that no factor does (rescale slopes, SUV). Both as
    little-endian integers.
    """
    return [_plane_digest(plane) for channel in voxels for plane in channel]


def small_copy(voxels: NDArray[Any]) -> Reals:
    """(32, 32, 32) block means of a volume as ranks between -0.5 and 0.5: windows and rescaling of intensities, as
    long as they keep the order of values, hardly change it."""
    return _ranks(block_means(voxels, SMALL))


def _ranks(small: NDArray[np.float64]) -> Reals:
    largest = float(np.abs(small).max(initial=0.0)) or 1.0
    # rounding: noise of the sums is no order
    _, inverse, counts = np.unique(np.round(small / largest, 7).ravel(), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse].reshape(small.shape)  # ties share their mean
    return _from_bytes(_to_bytes(np.asarray(ranks / ranks.size - 0.5, dtype=np.float32)))


def prints_table(prints: Sequence[Print]) -> pa.Table:
    """Prints as rows by schema PRINTS, without splits; ``parse_prints`` is its inverse."""
    rows = [
        {
            "case_key": p.key, "person_key": p.person_key, "modality": p.modality, "digest": p.digest,
            "planes": list(p.planes), "small": _to_bytes(p.small), "quantiles": list(p.quantiles),
        }
        for p in prints
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=PRINTS)


def parse_prints(table: pa.Table) -> list[Print]:
    """Prints from rows by schema PRINTS."""
    return [
        Print(
            row["case_key"], row["person_key"], None, row["digest"], _from_bytes(row["small"]), tuple(row["planes"]),
            row["modality"], tuple(row["quantiles"]),
        )
        for row in table.to_pylist()
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
        # in range at the end, so arithmetic that wraps on the way comes out right
        return _hashed(plane.astype("<u2") - np.array(low & 0xFFFF, dtype="<u2"), plane.shape)
    return _hashed(plane.astype("<i8") - low, plane.shape)


def _hashed(values: NDArray[Any], shape: tuple[int, ...]) -> bytes:
    kind = values.dtype.newbyteorder("<")
    head = f"{shape[0]} {shape[1]} ".encode()
    return hashlib.sha256(head + np.ascontiguousarray(values, dtype=kind).tobytes()).digest()


def _joined(digests: Sequence[bytes], shape: tuple[int, ...]) -> str:
    head = f"{shape[2]} {shape[3]} {len(digests)} ".encode()
    return hashlib.sha256(head + b"".join(sorted(digests))).hexdigest()


def _to_bytes(small: Reals) -> bytes:
    """Half steps of the ranks as 16-bit integers: all that 32,768 ranks can tell but ties of odd size."""
    return np.round((small + 0.5) * 65535).clip(0, 65535).astype("<u2").tobytes()


def _from_bytes(data: bytes) -> Reals:
    values = np.frombuffer(data, dtype="<u2").astype(np.float32) / np.float32(65535) - np.float32(0.5)
    return np.asarray(values.reshape((SMALL,) * 3), dtype=np.float32)
