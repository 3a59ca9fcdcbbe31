"""Locating the tiles of mosaics, which hold many slices in one picture and give their places only in private headers.

Siemens writes the places to its CSA header, whose layout is described in nibabel's documentation ("Siemens format
DICOM with CSA header"). United Imaging calls the picture a grid and lists the slices in a private sequence.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from builder.errors import CaseError, Reason

CSA_IMAGE_HEADER = Tag(0x0029, 0x1010)
TILES = Tag(0x0019, 0x100A)
"""NumberOfImagesInMosaic, private creator ``SIEMENS MR HEADER``."""

UIH_GROUP, UIH_CREATOR = 0x0065, "Image Private Header"
UIH_TILES, UIH_FRAMES = 0x50, 0x51
"""Number of slices in a grid (0065,xx50), and the sequence (0065,xx51) with ImagePositionPatient of each."""

MAX_TAGS = 1_000
MAX_TILES = 1_024


@dataclass(frozen=True)
class Tiles:
    """The slices of a mosaic.

    Parameters
    ----------
    rows, columns
        Size of one tile in pixels.
    across
        Number of tiles in a row of the picture.
    positions
        ImagePositionPatient of each slice, mm.
    """

    rows: int
    columns: int
    across: int
    positions: tuple[tuple[float, float, float], ...]


def tiles_of(dataset: Dataset) -> Tiles:
    """Return where the tiles of a mosaic or grid lie.

    Raises
    ------
    CaseError
        UNKNOWN_GEOMETRY when the private header or another input is absent.
    """
    if CSA_IMAGE_HEADER not in dataset and is_grid(dataset):
        return _grid_tiles(dataset)
    try:
        cosines = np.array([float(v) for v in dataset.ImageOrientationPatient]).reshape(2, 3)
        origin = np.array([float(v) for v in dataset.ImagePositionPatient])
        pixel = np.array([float(v) for v in dataset.PixelSpacing])
        rows, columns = int(dataset.Rows), int(dataset.Columns)
    except (AttributeError, TypeError, ValueError):
        raise CaseError(Reason.UNKNOWN_GEOMETRY, "mosaic without position, orientation, spacing or size") from None
    if len(origin) != 3 or len(pixel) != 2:
        raise CaseError(Reason.UNKNOWN_GEOMETRY, "mosaic without position, orientation, spacing or size")
    return _mosaic_tiles(dataset, rows, columns, cosines=cosines, origin=origin, pixel=pixel)


def is_grid(dataset: Dataset) -> bool:
    """Return whether this is a United Imaging picture of several slices."""
    count = _private(dataset, UIH_TILES)
    try:
        return count is not None and int(count) > 1
    except (TypeError, ValueError):
        return False


def _grid_tiles(dataset: Dataset) -> Tiles:
    """Return the tiles of a United Imaging grid: each slice states its position, and rows without slices are absent."""
    count = int(_private(dataset, UIH_TILES))
    try:
        rows, columns = int(dataset.Rows), int(dataset.Columns)
    except (AttributeError, TypeError, ValueError):
        raise CaseError(Reason.UNKNOWN_GEOMETRY, "grid without a size") from None
    frames = _private(dataset, UIH_FRAMES)
    try:
        positions = [tuple(float(v) for v in item.ImagePositionPatient) for item in frames]
    except (AttributeError, TypeError, ValueError):
        raise CaseError(Reason.UNKNOWN_GEOMETRY, "grid without the positions of its slices (0065,xx51)") from None
    if len(positions) != count or any(len(position) != 3 for position in positions):
        raise CaseError(Reason.UNKNOWN_GEOMETRY, f"grid of {count} slices with {len(positions)} positions")
    across = _side(count)
    down = ceil(count / across)
    if rows % down or columns % across:
        raise CaseError(Reason.UNKNOWN_GEOMETRY, f"{rows} x {columns} grid of {down} x {across} tiles")
    return Tiles(rows // down, columns // across, across, tuple((x, y, z) for x, y, z in positions))


def _private(dataset: Dataset, element: int) -> Any:
    """Return the value of an element in United Imaging's private block, or None."""
    try:
        return dataset.private_block(UIH_GROUP, UIH_CREATOR)[element].value
    except KeyError:
        return None


def _side(count: int) -> int:
    """Return the tiles per side of the smallest square that holds ``count``. May raise CaseError UNKNOWN_GEOMETRY."""
    if not 1 <= count <= MAX_TILES:
        raise CaseError(Reason.UNKNOWN_GEOMETRY, f"mosaic of {count} tiles, expected 1 to {MAX_TILES}")
    return ceil(sqrt(count))


def _cut(rows: int, columns: int, count: int) -> tuple[int, tuple[int, int]]:
    """Return the tiles per side of a square mosaic, and the rows and columns of one tile. May raise CaseError."""
    side = _side(count)
    if rows % side or columns % side:
        raise CaseError(Reason.UNKNOWN_GEOMETRY, f"{rows} x {columns} mosaic of {count} tiles, {side} a side")
    return side, (rows // side, columns // side)


def _mosaic_tiles(
    dataset: Dataset,
    rows: int,
    columns: int,
    *,
    cosines: NDArray[np.float64],
    origin: NDArray[np.float64],
    pixel: NDArray[np.float64],
) -> Tiles:
    """Return the tiles of a Siemens mosaic.

    ImagePositionPatient of a mosaic is the corner of a slice as large as the whole mosaic, so half the difference in
    size moves it to the corner of the first slice. Slices follow the CSA slice normal at SpacingBetweenSlices.
    """
    csa = read_csa(_bytes(dataset, CSA_IMAGE_HEADER))
    count = _count(dataset, csa)
    normal = csa.get("SliceNormalVector", ())
    spacing = float(dataset.get("SpacingBetweenSlices") or 0)
    if len(normal) != 3 or spacing <= 0:
        raise CaseError(Reason.UNKNOWN_GEOMETRY, "mosaic without SliceNormalVector or SpacingBetweenSlices")
    side, size = _cut(rows, columns, count)
    tile = np.array(size)
    shift = (np.array([rows, columns]) - tile) / 2 * pixel
    first = origin + cosines[1] * shift[0] + cosines[0] * shift[1]
    step = _normal(cosines, np.array([float(v) for v in normal])) * spacing
    positions = first + np.arange(count)[:, None] * step
    return Tiles(int(tile[0]), int(tile[1]), side, tuple((float(x), float(y), float(z)) for x, y, z in positions))


def _normal(cosines: NDArray[np.float64], stated: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the exact normal of the image plane, on the side that the CSA header points to."""
    normal = np.cross(cosines[0], cosines[1])
    normal /= np.linalg.norm(normal)
    along = float(normal @ stated)
    if abs(abs(along) - 1) > 1e-2:
        raise CaseError(Reason.UNKNOWN_GEOMETRY, "the CSA slice normal is not the normal of the image plane")
    return np.asarray(normal if along > 0 else -normal)


def _count(dataset: Dataset, csa: Mapping[str, tuple[str, ...]]) -> int:
    stated = csa.get("NumberOfImagesInMosaic", ())
    element = dataset.get(TILES)
    try:
        return int(stated[0]) if stated else int(element.value)
    except (AttributeError, TypeError, ValueError):
        raise CaseError(Reason.UNKNOWN_GEOMETRY, "mosaic without NumberOfImagesInMosaic") from None


def _bytes(dataset: Dataset, tag: int) -> bytes:
    element = dataset.get(tag)
    value = getattr(element, "value", None)
    if not isinstance(value, bytes):
        raise CaseError(Reason.UNKNOWN_GEOMETRY, "mosaic without Siemens' CSA image header (0029,1010)")
    return value


def read_csa(content: bytes) -> Mapping[str, tuple[str, ...]]:
    """Read the named values of a CSA header of type 1 or 2.

    Raises
    ------
    CaseError
        UNKNOWN_GEOMETRY when the bytes do not follow the layout. Every length is checked against the available bytes.
    """
    start = 8 if content[:4] == b"SV10" else 0
    try:
        (tags,) = struct.unpack_from("<I", content, start)
        if not 0 < tags <= MAX_TAGS:
            raise ValueError
        return dict(_tags(content, offset=start + 8, count=tags, newer=start == 8))
    except (struct.error, ValueError):
        raise CaseError(Reason.UNKNOWN_GEOMETRY, "Siemens' CSA image header is malformed") from None


def _tags(content: bytes, *, offset: int, count: int, newer: bool) -> list[tuple[str, tuple[str, ...]]]:
    """Read tags of 84 bytes, each followed by items that have a header of 16 bytes and a padded value."""
    found = []
    first_items = 0
    for index in range(count):
        name, _, _, _, items, _ = struct.unpack_from("<64sI4sIII", content, offset)
        offset += 84
        if items > 10_000:
            raise ValueError
        first_items = items if index == 0 else first_items
        values = []
        for _ in range(items):
            lengths = struct.unpack_from("<4I", content, offset)
            offset += 16
            # In type 1 headers the stated length includes the number of items of the first tag.
            length = lengths[1] if newer else lengths[0] - first_items
            if length < 0 or offset + length > len(content):
                raise ValueError
            values.append(content[offset : offset + length].split(b"\0", 1)[0].strip().decode("latin-1"))
            offset += (length + 3) // 4 * 4
        label = name.split(b"\0", 1)[0].decode("latin-1")
        found.append((label, tuple(value for value in values if value)))
    return found
