"""Frames of a DICOM Segmentation: their positions, contents and pixels (PS3.3 C.7.6.16, C.8.20)."""

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import pixel_array
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from builder.decode.format import NATIVE, pixel_format
from builder.decode.fragile import Encoded, decode_encoded
from builder.decode.streams import check_expansion, check_streams
from builder.errors import CaseError, Reason, counted
from builder.files.facts import MAX_VOXELS
from builder.headers.boundary import parsing
from builder.model.geometry import Geometry

MAX_FRAMES = 200_000
MAX_SIDE = 2**16
MAX_MM = 1e6
"""Largest plausible coordinate: a frame a kilometre from the origin of its frame of reference is taken as damage."""

NO_PLACE = "found frames without a plane position, orientation or spacing"
NOT_A_DIRECTION = 0.01
"""Direction cosines may deviate from unit length and from a right angle by at most this much."""

SAME_ORIENTATION = 1e-3
"""Direction cosines and (relative) spacings of one segmentation's frames must agree this closely."""

ON_LATTICE = 0.1
"""Frames are evenly spaced if each lies at most this fraction of a step away from its place."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame: LPS mm of its first pixel, segment (None in label maps), source instances, index in the pixel data."""

    position_mm: NDArray[np.float64]
    segment: int | None
    sources: tuple[str, ...]
    index: int


@dataclass(frozen=True, eq=False)
class Frames:
    """The frames of a segmentation that were asked for.

    ``steps`` holds the (3, 2) LPS mm of one row and one column. The shape is (rows, columns), and the spacing between
    slices is set only if the object states it. ``others`` are the readable frames of other segments, which help to find
    the grid, and ``count`` is the number of all frames.
    """

    frames: tuple[Frame, ...]
    steps: NDArray[np.float64]
    shape: tuple[int, int]
    slice_step_mm: float | None
    others: tuple[Frame, ...]
    count: int


def describe_frames(dataset: Dataset, wanted: Set[int]) -> Frames:
    """Read where the frames of some segments lie in patient space; in a label map, all frames.

    Damage in a frame of another segment costs nothing.

    Raises
    ------
    CaseError
        LABEL_UNREADABLE for tiled or damaged objects, for wanted frames without a plane position, and for frames whose
        segment is unknown; LABEL_GEOMETRY if wanted frames differ in orientation or spacing.
    """
    with parsing(Reason.LABEL_UNREADABLE, "found a segmentation that does not parse"):
        return _described(dataset, wanted)


def _described(dataset: Dataset, wanted: Set[int]) -> Frames:
    if "TotalPixelMatrixRows" in dataset or str(dataset.get("DimensionOrganizationType", "")).startswith("TILED"):
        raise _unreadable("found a tiled segmentation (of a slide), expected one in patient space")
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or []
    count = int(dataset.get("NumberOfFrames") or 1)
    if not (0 < rows <= MAX_SIDE and 0 < columns <= MAX_SIDE) or count != len(groups) or count > MAX_FRAMES:
        raise _unreadable(
            f"found {counted(count, 'frame')} of {rows} x {columns} with {counted(len(groups), 'description')}"
        )
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    numbers = _numbers(dataset, groups, shared)
    mine = [index for index, number in enumerate(numbers) if number is None or number in wanted]
    with parsing(Reason.LABEL_UNREADABLE, NO_PLACE):
        frames = tuple(_describe(groups[index], shared, index, segment=numbers[index]) for index in mine)
        table = np.stack([_plane(groups[index], shared) for index in mine]) if mine else np.zeros((0, 8))
        steps = _steps(table) if mine else np.zeros((3, 2))
        slice_step = _stated_step(groups[mine[0]], shared) if mine else None
    others = [
        _readable(groups[index], shared, index, segment=number, plane=table[0])
        for index, number in enumerate(numbers)
        if mine and number is not None and number not in wanted
    ]
    return Frames(frames, steps, (rows, columns), slice_step, tuple(frame for frame in others if frame), count)


def own_grid(frames: Frames, image: Geometry) -> tuple[Geometry, list[int]]:
    """Return the regular grid on which the frames lie, gaps included, and the slice of each frame on it.

    Raises
    ------
    CaseError
        LABEL_GEOMETRY if the frames are not evenly spaced.
    """
    normal = np.cross(frames.steps[:, 1], frames.steps[:, 0])
    normal /= np.linalg.norm(normal)
    positions = np.stack([f.position_mm for f in (*frames.frames, *frames.others)])
    heights = positions @ normal
    order = np.argsort(heights, kind="stable")
    step = _slice_step(np.sort(heights), frames.slice_step_mm, image, normal)
    places = (heights - heights[order[0]]) / step
    slices = np.round(places).astype(np.int64)
    if np.abs(places - slices).max() > ON_LATTICE:
        raise CaseError(Reason.LABEL_GEOMETRY, "found frames that are not evenly spaced")
    last = int(slices.max())
    if (last + 1) * frames.shape[0] * frames.shape[1] > MAX_VOXELS:
        raise _unreadable(f"found frames spread over {last + 1} slices, expected a grid of at most 2**31 voxels")
    first_mm, last_mm = positions[order[0]], positions[order[-1]]
    affine = np.eye(4)
    affine[:3, 0] = (last_mm - first_mm) / last if last else normal * step
    affine[:3, 1:3] = frames.steps
    affine[:3, 3] = first_mm
    drift = np.abs(positions - (first_mm + slices[:, None] * affine[:3, 0])).max()
    if drift > ON_LATTICE * min(step, *np.linalg.norm(frames.steps, axis=0)):
        raise CaseError(Reason.LABEL_GEOMETRY, "found frames that do not lie on one grid")
    mine = [int(s) for s in slices[: len(frames.frames)]]
    return Geometry((last + 1, *frames.shape), affine, image.frame_of_reference), mine


def image_slices(
    frames: Frames, image: Geometry, *, uid_to_slice: dict[str, int], tolerance_voxels: float
) -> list[int] | None:
    """Return the image slice of each frame, or None unless every frame lies on one of the image's slices.

    In-plane grids must agree within ``tolerance_voxels``. Across slices, a frame goes to the slice of its source
    instance if it names exactly one instance of the image and lies within half a slice of it. Otherwise its position
    decides.
    """
    if not frames.frames:
        return []
    if frames.shape != image.shape[1:]:
        return None
    corner = np.array([frames.shape[0] - 1, frames.shape[1] - 1], dtype=np.float64)
    starts = image.to_voxel(np.stack([f.position_mm for f in frames.frames]))
    ends = image.to_voxel(np.stack([f.position_mm + frames.steps @ corner for f in frames.frames]))
    off = max(np.abs(starts[:, 1:]).max(), np.abs(ends[:, 1:] - corner).max())
    if off > tolerance_voxels or np.abs(ends[:, 0] - starts[:, 0]).max() > tolerance_voxels:
        return None
    slices = []
    for frame, place in zip(frames.frames, starts[:, 0], strict=True):
        known = {uid_to_slice[uid] for uid in frame.sources if uid in uid_to_slice}
        nearest = int(np.round(place))
        if len(known) == 1 and abs(place - next(iter(known))) < 0.5:
            nearest = next(iter(known))
        elif abs(place - nearest) > tolerance_voxels:
            return None
        slices.append(nearest)
    return slices


def frame_pixels(dataset: Dataset, frames: Frames, *, indices: list[int]) -> Iterator[NDArray[Any]]:
    """Yield (row, column) pixels as stored for the frames at ``indices``, one at a time to limit memory.

    Raises
    ------
    CaseError
        LABEL_UNREADABLE if the pixel data is too short or does not decode.
    """
    with parsing(Reason.LABEL_UNREADABLE, "found pixels that cannot be read"):
        bits = int(dataset.get("BitsAllocated") or 0)
        syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", ExplicitVRLittleEndian)
        native = syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
        data = bytes(dataset.get("PixelData") or b"") if native else b""
    size = frames.shape[0] * frames.shape[1]
    if native and (bits not in (1, 8, 16) or len(data) * 8 < size * frames.count * bits):
        raise _unreadable(f"found {len(data)} bytes of pixels for {frames.count} frames of {bits} bits")
    if syntax not in NATIVE:
        yield from _encoded_pixels(dataset, frames, indices=indices)
        return
    for index in indices:
        if not native:  # big endian or deflated
            with parsing(Reason.LABEL_UNREADABLE, "found pixels that do not decode"):
                pixels = np.asarray(pixel_array(dataset, index=index))
            if pixels.shape != frames.shape:
                raise _unreadable(f"found a frame of shape {pixels.shape}, expected {frames.shape}")
            yield pixels
        elif bits == 1:
            # Frames with one bit per pixel follow each other without padding to whole bytes (PS3.5 8.1.1).
            first, last = index * size, (index + 1) * size
            packed = np.frombuffer(data, np.uint8, -(-last // 8) - first // 8, first // 8)
            yield np.unpackbits(packed, bitorder="little")[first % 8 :][:size].reshape(frames.shape)
        else:
            dtype = np.dtype("<u1" if bits == 8 else "<u2")
            yield np.frombuffer(data, dtype, size, index * size * dtype.itemsize).reshape(frames.shape)


def _encoded_pixels(dataset: Dataset, frames: Frames, *, indices: list[int]) -> Iterator[NDArray[Any]]:
    """Yield decoded frames, after the checks that images undergo. May raise CaseError LABEL_UNREADABLE."""
    try:
        form = pixel_format(dataset)
        with parsing(Reason.LABEL_UNREADABLE, "found frames that cannot be told apart"):
            content = bytes(dataset.PixelData)
            options = {**as_pixel_options(dataset), "number_of_frames": 1, "extended_offsets": None}
            encoded = list(generate_frames(content, number_of_frames=frames.count))
        check_expansion(len(content), form)
        for index in indices:
            with parsing(Reason.LABEL_UNREADABLE, f"found no frame {index + 1}"):
                frame = encoded[index]
            check_streams([frame], form)
            pixels = decode_encoded(Encoded(form.syntax, encapsulate([frame]), options, raw=True))
            if pixels.shape != frames.shape:
                raise _unreadable(f"found a frame of shape {pixels.shape}, expected {frames.shape}")
            yield pixels
    except CaseError as error:
        raise _unreadable(error.detail) from error


def _numbers(dataset: Dataset, groups: Sequence[Dataset], shared: Dataset) -> list[int | None]:
    """Return the segment of each frame, None in a label map. Raise CaseError when the segment of a frame is unknown."""
    if dataset.get("SegmentationType") == "LABELMAP":
        return [None] * len(groups)
    described = dataset.get("SegmentSequence") or []
    only = described[0].get("SegmentNumber") if len(described) == 1 else None
    numbers: list[int | None] = []
    with parsing(Reason.LABEL_UNREADABLE, "found a frame whose segment cannot be read"):
        for group in groups:
            named = group.get("SegmentIdentificationSequence") or shared.get("SegmentIdentificationSequence")
            number = named[0].get("ReferencedSegmentNumber") if named else only
            if number is None:
                raise _unreadable("found a frame that names no segment, expected a Referenced Segment Number")
            numbers.append(int(number))
    return numbers


def _readable(group: Dataset, shared: Dataset, index: int, *, segment: int, plane: NDArray[np.float64]) -> Frame | None:
    """Return a frame that nobody asked for, or None when it is damaged or lies in a plane of another direction."""
    try:
        with parsing(Reason.LABEL_UNREADABLE, NO_PLACE):
            alike = bool(np.abs(_plane(group, shared) - plane).max() <= SAME_ORIENTATION)
            return _describe(group, shared, index, segment=segment) if alike else None
    except CaseError:
        return None


def _describe(group: Dataset, shared: Dataset, index: int, *, segment: int | None) -> Frame:
    position = np.array(_first(group, shared, "PlanePositionSequence").ImagePositionPatient, dtype=np.float64)
    if position.shape != (3,) or not np.isfinite(position).all() or np.abs(position).max() > MAX_MM:
        raise ValueError("position")
    derivations = group.get("DerivationImageSequence") or []
    sources = tuple(
        str(source.get("ReferencedSOPInstanceUID", ""))
        for derivation in derivations
        for source in derivation.get("SourceImageSequence") or []
    )
    return Frame(position, segment, sources, index)


def _plane(group: Dataset, shared: Dataset) -> NDArray[np.float64]:
    """Return the six direction cosines and two pixel spacings of a frame."""
    cosines = _first(group, shared, "PlaneOrientationSequence").ImageOrientationPatient
    measures = _first(group, shared, "PixelMeasuresSequence")
    found = np.array([*cosines, *measures.PixelSpacing], dtype=np.float64)
    if found.shape != (8,) or not np.isfinite(found).all():
        raise ValueError("plane")
    return found


def _steps(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (3, 2) steps of row and column, which all frames must share."""
    if table[:, 6:].min() <= 0 or table[:, 6:].max() > MAX_MM:
        raise ValueError("spacing")
    axes = table[:, :6].reshape(-1, 2, 3)
    lengths, slant = np.linalg.norm(axes, axis=2), (axes[:, 0] * axes[:, 1]).sum(axis=1)
    if np.abs(lengths - 1).max() > NOT_A_DIRECTION or np.abs(slant).max() > NOT_A_DIRECTION:
        raise ValueError("orientation")
    if np.abs(table - table[0]).max() > SAME_ORIENTATION:
        raise CaseError(Reason.LABEL_GEOMETRY, "found frames of different orientation or spacing in one segmentation")
    along_row, along_column = table[0, :3], table[0, 3:6]
    # The first direction is that of a growing column index (PS3.3 C.7.6.2.1.1).
    return np.stack([along_column * table[0, 6], along_row * table[0, 7]], axis=1)


def _stated_step(group: Dataset, shared: Dataset) -> float | None:
    stated = _first(group, shared, "PixelMeasuresSequence").get("SpacingBetweenSlices")
    return float(stated) if stated is not None and float(stated) > 0 else None


def _slice_step(heights: NDArray[np.float64], stated: float | None, image: Geometry, normal: Any) -> float:
    """Return mm between slices: as stated if the frames fit it, else their smallest distance, else the image's."""
    gaps = np.diff(heights)
    gaps = gaps[gaps > 1e-3]
    if stated is not None and all(abs(g / stated - round(g / stated)) <= ON_LATTICE and g >= stated / 2 for g in gaps):
        return stated
    if len(gaps):
        return float(gaps.min())
    return float(1 / np.linalg.norm(np.linalg.inv(image.affine[:3, :3]) @ normal))


def _first(group: Dataset, shared: Dataset, name: str) -> Dataset:
    sequence = group.get(name) or shared.get(name)
    if not sequence:
        raise _unreadable(NO_PLACE)
    item: Dataset = sequence[0]
    return item


def _unreadable(detail: str) -> CaseError:
    return CaseError(Reason.LABEL_UNREADABLE, detail)
