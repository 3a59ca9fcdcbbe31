"""What files mean, read straight from the standard with pydicom and numpy, slowly and without any tolerance.

Nothing here is shared with the engine. References: PS3.3 C.7.6.2 (image plane), C.7.6.16 (functional groups), C.11.1
(Modality LUT), C.7.5.1.1.2 (padding), C.8.9.1 (PET), C.8.8.6 (contours), C.8.20 (segmentations); PS3.5 8 (pixels).
"""

import io
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian

Vector: TypeAlias = NDArray[np.float64]
Frame: TypeAlias = tuple[str, int]
"""SOPInstanceUID, and number of the frame from 0."""

NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"}


@dataclass(frozen=True, eq=False)
class Plane:
    """One image in space: LPS mm of its first pixel, steps in mm to the next row and column, values after the rescale.

    ``padding`` is where the file says that there is no data, ``doubtful`` where only the value 0 says so, which tissue
    may have too.
    """

    origin: Vector
    down: Vector
    along: Vector
    values: Vector
    padding: NDArray[np.bool_]
    doubtful: NDArray[np.bool_]
    modality: str
    rescaled: bool


def planes(files: dict[str, bytes]) -> dict[Frame, Plane]:
    """All images of some files that can be read whole."""
    found: dict[Frame, Plane] = {}
    for content in files.values():
        try:
            ds = pydicom.dcmread(io.BytesIO(content))
        except Exception:  # noqa: BLE001 - a file that pydicom cannot read gives no image
            continue
        if "PixelData" not in ds or ds.get("Modality") in ("SEG", None):
            continue
        try:
            stored, bits = stored_values(ds)
            for index in range(len(stored)):
                found[str(ds.SOPInstanceUID), index] = _plane(ds, index, stored[index], bits[index])
        except (ValueError, AttributeError, TypeError, IndexError, KeyError):
            continue
    return found


def stored_values(ds: Dataset) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Stored values and whole pixels, both (frame, row, column), by PS3.5 8.1.1: BitsStored bits up to HighBit."""
    rows, columns, frames = int(ds.Rows), int(ds.Columns), int(ds.get("NumberOfFrames") or 1)
    width = int(ds.BitsAllocated)
    syntax = str(ds.file_meta.TransferSyntaxUID)
    count = rows * columns * frames
    if syntax in NATIVE:
        data = bytes(ds.PixelData)
        order = ">" if syntax == ExplicitVRBigEndian else "<"
        if width == 8 and order == ">" and ds["PixelData"].VR == "OW":
            data = np.frombuffer(data, ">u2").astype("<u2").tobytes()
        cells = np.frombuffer(data, f"{order}u{width // 8}")
        if len(cells) < count:
            raise ValueError("too few pixels")
        whole = cells[:count].astype(np.int64).reshape(frames, rows, columns)
    else:
        whole = np.asarray(ds.pixel_array).astype(np.int64).reshape(frames, rows, columns) & ((1 << width) - 1)
    stored, high = int(ds.BitsStored), int(ds.HighBit)
    values = (whole >> (high + 1 - stored)) & ((1 << stored) - 1)
    if ds.PixelRepresentation:
        values = np.where(values >> (stored - 1), values - (1 << stored), values)
    return values, whole


def _plane(ds: Dataset, index: int, stored: NDArray[np.int64], whole: NDArray[np.int64]) -> Plane:
    position = group(ds, index, "PlanePositionSequence", "ImagePositionPatient")
    cosines = np.array(group(ds, index, "PlaneOrientationSequence", "ImageOrientationPatient"), dtype=float)
    spacing = [float(v) for v in group(ds, index, "PixelMeasuresSequence", "PixelSpacing")]
    slope = group(ds, index, "PixelValueTransformationSequence", "RescaleSlope")
    intercept = group(ds, index, "PixelValueTransformationSequence", "RescaleIntercept")
    rescaled = slope not in (None, "") and intercept not in (None, "")
    values = stored * float(slope) + float(intercept) if rescaled else stored.astype(float)
    padding, doubtful = _padding(ds, stored, whole)
    return Plane(
        np.array(position, dtype=float), cosines[3:] * spacing[0], cosines[:3] * spacing[1],
        values.astype(np.float64), padding, doubtful, str(ds.Modality), rescaled,
    )  # fmt: skip


def group(ds: Dataset, index: int, name: str, keyword: str) -> Any:
    """The value that holds for a frame: its own functional group, the shared one, or the data set."""
    own = (ds.get("PerFrameFunctionalGroupsSequence") or [])[index : index + 1]
    for place in (*own, *(ds.get("SharedFunctionalGroupsSequence") or [])):
        if place.get(name):
            return place[name].value[0].get(keyword)
    return ds.get(keyword)


def _padding(
    ds: Dataset, stored: NDArray[np.int64], whole: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where values lie between Pixel Padding Value and its Range Limit; whole pixels if the value needs their bits."""
    none = np.zeros(stored.shape, dtype=bool)
    value = ds.get("PixelPaddingValue")
    if value is None:
        return none, none
    limit = ds.get("PixelPaddingRangeLimit")
    low, high = sorted((int(value), int(value if limit is None else limit)))
    bits, signed = int(ds.BitsStored), bool(ds.PixelRepresentation)
    least, most = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    fits = least <= low and high <= most
    compared = stored if fits else whole
    found = (compared >= low) & (compared <= high)
    if not fits and str(ds.file_meta.TransferSyntaxUID) not in NATIVE:
        found |= stored == (low & ((1 << bits) - 1))  # whether the decoder kept the other bits is its own affair
        return none, found
    return (none, found) if low == high == 0 else (found, none)


def filled(plane: Plane) -> float:
    """The number that stands for no data: air in Hounsfield units, else 0."""
    return -1024.0 if plane.modality == "CT" and plane.rescaled else 0.0


# --- contours and segmentations --------------------------------------------------------------------------------------


def inside(points: Vector, polygon: Vector) -> NDArray[np.bool_]:
    """Whether (n, 2) points lie inside a polygon, by counting its edges to the right of them."""
    result = np.zeros(len(points), dtype=bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        crosses = (points[:, 1] >= min(y0, y1)) & (points[:, 1] < max(y0, y1))
        at = x0 + (points[:, 1] - y0) * (x1 - x0) / (y1 - y0)
        result ^= crosses & (points[:, 0] < at)
    return result


def near(points: Vector, polygon: Vector, distance: float) -> NDArray[np.bool_]:
    """Whether points lie within a distance of a polygon's edges, where rounding decides."""
    result = np.zeros(len(points), dtype=bool)
    for start, end in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        edge = end - start
        share = np.clip(((points - start) @ edge) / max(float(edge @ edge), 1e-12), 0, 1)
        result |= np.linalg.norm(points - start - share[:, None] * edge, axis=1) <= distance
    return result


def segment_planes(content: bytes, wanted: set[int]) -> list[tuple[Vector, NDArray[np.bool_]]]:
    """Position and pixels of the frames of some segments of a BINARY or FRACTIONAL segmentation."""
    ds = pydicom.dcmread(io.BytesIO(content))
    rows, columns, frames = int(ds.Rows), int(ds.Columns), int(ds.NumberOfFrames)
    if ds.BitsAllocated == 1:
        bits = np.unpackbits(np.frombuffer(bytes(ds.PixelData), np.uint8), bitorder="little")
        values = bits[: rows * columns * frames].reshape(frames, rows, columns) > 0
    else:
        top = float(ds.MaximumFractionalValue)
        data = np.frombuffer(bytes(ds.PixelData), np.uint8)[: rows * columns * frames]
        values = data.reshape(frames, rows, columns) >= top / 2
    found = []
    for index in range(frames):
        identity = group(ds, index, "SegmentIdentificationSequence", "ReferencedSegmentNumber")
        position = group(ds, index, "PlanePositionSequence", "ImagePositionPatient")
        if identity is not None and int(identity) in wanted:
            found.append((np.array(position, dtype=float), values[index]))
    return found
