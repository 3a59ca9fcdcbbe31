"""Export masks as DICOM segmentations of the series that they were drawn on, for viewers of the archive.

A segmentation belongs to the patient, study and series of its images (PS3.3 A.51): it states who that is, and a viewer
shows it only beside the archive's own images. The files are therefore as private as the archive. Segmentations with the
dataset's keyed UIDs would be harmless, but there are no images with these UIDs that a viewer could show.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final, Literal

import highdicom
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydicom.dataset import Dataset as Header
from pydicom.sr.codedict import codes

from builder.errors import SpecError, counted
from builder.headers.pinned import pin
from builder.model.geometry import Geometry
from builder.model.keyed import Key
from builder.reader.dataset import Dataset
from builder.reader.export.folder import ExportFolder, Track, silently
from builder.sources.folder import Folder
from builder.stages.fetch import read_headers
from builder.stages.index import index_partition

NUMBER: Final = 9000
"""Series Number of the segmentations, to stand behind a study's own series."""

MAKER: Final = "builder"

DRAWN_BY_PERSONS: Final = frozenset({"prospective", "consensus", "single_reader", "crowd"})
"""Tiers of evidence (``builder.model.case.EVIDENCE_TIERS``) of masks that persons drew."""

Segments = Mapping[str, tuple[int, int]]
"""Name of a structure to its channel and value in the mask."""


@dataclass(frozen=True)
class Segmented:
    """Number of files that were written, and which series got none, by why."""

    files: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Drawn:
    """What the masks of a series show, and the tiers of evidence that say who drew them."""

    label: str
    segments: Segments
    tiers: frozenset[str | None]

    @property
    def algorithm(self) -> Literal["AUTOMATIC", "MANUAL", "SEMIAUTOMATIC"]:
        """Segment Algorithm Type (0062,0008): SEMIAUTOMATIC where nobody stated whether a person or a machine drew."""
        if self.tiers <= {"machine"}:
            return "AUTOMATIC"
        return "MANUAL" if self.tiers <= DRAWN_BY_PERSONS else "SEMIAUTOMATIC"


@dataclass(frozen=True)
class Plane:
    """Where an image or frame lies: voxel (row, column) to LPS mm, as PS3.3 C.7.6.2.1.1 has it."""

    position: NDArray[np.float64]
    down: NDArray[np.float64]
    """(3,) mm from a row to the next one."""
    across: NDArray[np.float64]
    """(3,) mm from a column to the next one."""
    shape: tuple[int, int]


def export_dicomseg(
    dataset: Dataset,
    folder: ExportFolder,
    *,
    label: str,
    archive: str,
    key: Key,
    track: Track = silently,
) -> Segmented:
    """Write ``<series_key>.dcm`` for every series of the dataset: the masks of its samples, on the grid of its images.

    A voxel of the series is in a structure if the voxel of the dataset that its centre lies in is; patches of a series
    are put together. The files are readable by their owner alone, and name the patient as the archive does.

    Parameters
    ----------
    archive
        Folder with the DICOM files that the dataset was built from.
    key
        The key that the dataset was built with, which finds a series by its keyed name.

    Raises
    ------
    SpecError
        If the label lies on a grid of its own, or none of the series is in the folder.
    """
    layout = dataset.layout(label)
    if layout.grid:
        raise SpecError(f"--label: found {label} on a grid of its own, expected a label of the reference image")
    rows = dataset.table.column("series_key").to_pylist()
    found = _series(archive, key)
    keys = sorted(set(rows) & set(found))
    if not keys:
        raise SpecError(
            f"--archive: found none of {counted(len(set(rows)), 'series')} of the dataset in it, expected the DICOM "
            "files that it was built from"
        )
    folder.root.chmod(0o700)
    segments = layout.segments or {label: (0, 1)}
    tiers = _tiers(dataset, label)

    def write(number: int) -> str:
        name = keys[number]
        if folder.holds(f"{name}.dcm"):
            return ""
        images = read_headers(found[name], (Folder(url=archive),))
        own = [n for n, series in enumerate(rows) if series == name]
        drawn = Drawn(label, segments, frozenset(tiers[n] for n in own))
        boxes = [_box(dataset, n, label, segments) for n in own]
        made = _segmentation(images, boxes, drawn, dataset=dataset, key=key)
        if isinstance(made, str):
            return made
        data = io.BytesIO()
        made.save_as(data)
        folder.write(data.getvalue(), f"{name}.dcm")
        return ""

    left = [reason for reason in folder.each(write, range(len(keys)), track) if reason]
    absent = ["not in the archive that was given"] * (len(set(rows)) - len(keys))
    return Segmented(len(keys) - len(left), _without_file([*left, *absent]))


def _without_file(left: Sequence[str]) -> tuple[str, ...]:
    """Return a line for each reason for which series have no file."""
    return tuple(f"{counted(left.count(reason), 'series')} without a file: {reason}" for reason in sorted(set(left)))


def _series(archive: str, key: Key) -> dict[str, pa.Table]:
    """Return the INSTANCES rows of each series of a folder, by its keyed name, one of each instance."""
    source = Folder(url=archive)
    table = index_partition(source, 0, tuple(source.list()), on_internal_error="exclude")
    table = table.filter(pc.equal(table.column("status"), "instance"))
    places: dict[str, dict[str, int]] = {}
    uids = zip(table.column("series_uid").to_pylist(), table.column("sop_instance_uid").to_pylist(), strict=True)
    for place, (series, instance) in enumerate(uids):
        places.setdefault(series, {}).setdefault(instance, place)
    return {key.name("series", uid): table.take(sorted(own.values())) for uid, own in places.items()}


def _tiers(dataset: Dataset, label: str) -> list[str | None]:
    """Return the tier of evidence of each sample's mask; None where the dataset has no such column."""
    name = f"evidence.{label}.tier"
    return dataset.table[name].to_pylist() if name in dataset.table.schema.names else [None] * len(dataset)


def _box(dataset: Dataset, position: int, label: str, segments: Segments) -> tuple[Geometry, NDArray[np.bool_]]:
    """Return the grid of a sample and its structures, (structure, slice, row, column)."""
    item = dataset[position]
    mask = item[label]
    return item.geometry, np.stack([mask[channel] == value for channel, value in segments.values()])


def _segmentation(
    images: Sequence[Header],
    boxes: Sequence[tuple[Geometry, NDArray[np.bool_]]],
    drawn: Drawn,
    *,
    dataset: Dataset,
    key: Key,
) -> Any:
    """Return the segmentation of a series, or why there is none."""
    planes = [list(_planes(image)) for image in images]
    many = any(len(frames) != 1 for frames in planes)
    label = drawn.label
    if not all(planes) or (many and len(images) > 1):
        return "its images lie nowhere in the patient, or each has several frames"
    found = [(n, plane, masks) for n, plane in enumerate(p for f in planes for p in f)
             if (masks := _drawn(plane, boxes, len(drawn.segments))).any()]  # fmt: skip
    if not found:
        return "no voxel of it is in a structure"
    kept = _of_one_stack(found)
    if many:
        pixels = np.zeros((len(planes[0]), *kept[0][2].shape), np.uint8)
        pixels[[n for n, _, _ in kept]] = np.stack([masks for _, _, masks in kept])
        sources = list(images)
    else:
        pixels = np.stack([masks for _, _, masks in kept]).astype(np.uint8)
        sources = [images[n] for n, _, _ in kept]
    manifest = dataset.manifest
    name = f"dicomseg/{manifest.version}/{label}/{sources[0].SeriesInstanceUID}"
    uid, series_uid = key.uid(name), key.uid(f"{name}/series")
    made = highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=pixels,
        segmentation_type="BINARY",
        segment_descriptions=[
            _described(n, one, drawn, manifest.version) for n, one in enumerate(drawn.segments, start=1)
        ],
        series_instance_uid=series_uid,
        series_number=NUMBER,
        sop_instance_uid=uid,
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=MAKER,
        software_versions=version("medical-dataset-builder"),
        device_serial_number=manifest.version,
        content_label=re.sub(r"[^A-Z0-9_ ]", "_", label.upper())[:16],
        series_description=f"{label} of {manifest.name}"[:64],
    )
    pin(made, sources, rename=lambda ordinal: key.uid(f"{name}/{ordinal}"), keep={uid, series_uid})
    return made


def _planes(image: Header) -> Iterator[Plane]:
    """Yield where each frame of an image lies; nothing where it does not say so."""
    shape = (int(image.Rows), int(image.Columns))
    frames = image.get("PerFrameFunctionalGroupsSequence")
    if frames is None:
        if image.get("ImagePositionPatient") and image.get("ImageOrientationPatient") and image.get("PixelSpacing"):
            yield _plane(image.ImagePositionPatient, image.ImageOrientationPatient, image.PixelSpacing, shape)
        return
    (shared,) = image.get("SharedFunctionalGroupsSequence") or [Header()]
    for frame in frames:
        groups = [(frame if name in frame else shared).get(name) for name in
                  ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")]  # fmt: skip
        if not all(groups):
            return
        where, turned, measures = (group[0] for group in groups)
        yield _plane(where.ImagePositionPatient, turned.ImageOrientationPatient, measures.PixelSpacing, shape)


def _plane(position: Any, orientation: Any, spacing: Any, shape: tuple[int, int]) -> Plane:
    along, down = np.reshape(np.asarray(orientation, float), (2, 3))
    return Plane(np.asarray(position, float), down * float(spacing[0]), along * float(spacing[1]), shape)


def _drawn(plane: Plane, boxes: Sequence[tuple[Geometry, NDArray[np.bool_]]], count: int) -> NDArray[np.bool_]:
    """Return the structures on a plane, (row, column, structure)."""
    drawn = np.zeros((*plane.shape, count), bool)
    rows, columns = plane.shape
    edges = np.array([[r, c] for r in (0, rows - 1) for c in (0, columns - 1)])
    for grid, masks in boxes:
        corners = grid.to_voxel(plane.position + edges @ np.stack([plane.down, plane.across]))
        ends = np.array(masks.shape[1:])
        if (corners.max(axis=0) < -0.5).any() or (corners.min(axis=0) >= ends - 0.5).any():
            continue
        begin = grid.to_voxel(plane.position[None])[0]
        down, across = (grid.to_voxel((plane.position + step)[None])[0] - begin for step in (plane.down, plane.across))
        places = begin + np.arange(rows)[:, None, None] * down + np.arange(columns)[None, :, None] * across
        voxels = np.floor(places + 0.5).astype(np.int64)
        inside = ((voxels >= 0) & (voxels < ends)).all(axis=-1)
        drawn[inside] |= masks[:, *voxels[inside].T].T
    return drawn


def _of_one_stack(
    found: Sequence[tuple[int, Plane, NDArray[np.bool_]]],
) -> list[tuple[int, Plane, NDArray[np.bool_]]]:
    """Return the planes of the direction and size that most have, one of each position: a segmentation has one grid."""
    stacks: dict[tuple[Any, ...], dict[tuple[float, ...], tuple[int, Plane, NDArray[np.bool_]]]] = {}
    for one in found:
        plane = one[1]
        grid = (plane.shape, *np.round(np.concatenate([plane.down, plane.across]), 3).tolist())
        stacks.setdefault(grid, {}).setdefault(tuple(np.round(plane.position, 2).tolist()), one)
    return list(max(stacks.values(), key=len).values())


def _described(number: int, name: str, drawn: Drawn, of_version: str) -> Any:
    if drawn.algorithm == "MANUAL":
        tool = None
    else:
        family = (
            codes.cid7162.ArtificialIntelligence if drawn.algorithm == "AUTOMATIC" else codes.cid7162.ManualProcessing
        )
        tool = highdicom.AlgorithmIdentificationSequence(name=MAKER, family=family, version=of_version)
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name[:64],
        segmented_property_category=codes.SCT.Tissue,
        segmented_property_type=codes.SCT.Tissue,
        algorithm_type=drawn.algorithm,
        algorithm_identification=tool,
    )
