"""Reader for DICOM Segmentations (PS3.3 A.51, A.92): BINARY, FRACTIONAL and LABELMAP frames on the image's grid."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator
from pydicom.dataset import Dataset

from builder.errors import CaseError, Reason
from builder.headers.boundary import parsing
from builder.labels.content import code_of
from builder.labels.frames import Frames, describe_frames, frame_pixels, image_slices, own_grid
from builder.labels.label import MaskLabel
from builder.labels.layers import Empty, LayerRules, Pattern, Structure, layer
from builder.labels.linking import LABEL_MAP_SEGMENTATION, SEGMENTATION, select_named, select_references
from builder.labels.placing import Interpolation, OffGrid, Placement, move, move_shares, place
from builder.labels.values import value_of
from builder.model.case import Annotation, Code, Evidence
from builder.model.geometry import Geometry
from builder.model.linking import ImageRow, Selection
from builder.model.patterns import occurs
from builder.protocols import ImageFacts, LabelObject

BACKGROUND = ("DCM", "125040")
"""Property type of the background segment of a label map (PS3.16 CID 7151)."""


CLASSES = (SEGMENTATION, LABEL_MAP_SEGMENTATION)


class Seg(MaskLabel):
    """Masks from DICOM SEG objects.

    Parameters
    ----------
    segments
        Maps the name of a structure to a regular expression that is searched in Segment Label (0062,0005).
    codes
        Maps the name of a structure to the coded property type that it must have, e.g. ``SCT:108369006`` (0062,000F). A
        structure may have an expression, a code or both; with both, both must match.
    tolerance_voxels, off_grid, interpolation
        As for mask files. A segmentation on a grid of its own is resampled, which is recorded, or refused.
    fractional
        What to do with a FRACTIONAL object: ``half`` counts a voxel as inside from one half on; ``keep`` stores shares
        of 255. With ``keep``, masks of BINARY objects and label maps hold shares too, 0 and 255, so that the field
        means the same in every case.
    several
        What to do with more than one linked object with a declared structure: ``refuse`` the case, or ``join`` them.
    """

    VERSION: ClassVar[int] = 6

    kind: Literal["seg"] = "seg"
    segments: dict[str, Pattern] = Field(default_factory=dict)
    codes: dict[str, str] = Field(default_factory=dict)
    tolerance_voxels: float = Field(default=0.01, ge=0, le=0.5)
    off_grid: OffGrid = "resample"
    interpolation: Interpolation = "nearest"
    fractional: Literal["keep", "half"] = "half"
    several: Literal["refuse", "join"] = "refuse"
    require: Literal["any", "all"] = "any"
    """``any``: one declared structure is enough. ``all``: a case that lacks one is excluded."""
    empty: Empty = "exclude"
    """What masks without a voxel mean: ``exclude`` the case, or ``keep`` it."""

    @model_validator(mode="after")
    def _something_is_asked_for(self) -> "Seg":
        if not self.segments and not self.codes:
            raise ValueError("found neither segments nor codes, expected one structure at least")
        if self.fractional == "keep" and self.layout == "map":
            raise ValueError("found layout map with fractional keep, expected channels: shares need one each")
        for code in self.codes.values():
            if not re.fullmatch(r"[^:\s]+:\S+", code):
                raise ValueError(f"codes: found {code!r}, expected <scheme>:<value> like SCT:108369006")
        return self

    @property
    def declared(self) -> tuple[str, ...]:
        """The structures that the spec names, in order."""
        return tuple(dict.fromkeys([*self.segments, *self.codes]))

    def select(self, image: ImageRow, candidates: pa.Table) -> Selection:
        """Select segmentations that refer to the image by instance, series or frame of reference and name a structure.

        The index has no codes. If codes decide, the object is kept here and checked when it is read.
        """
        found = select_references(image, candidates, sop_classes=(SEGMENTATION, LABEL_MAP_SEGMENTATION))
        return found if self.codes else select_named(found, candidates, self.structures_of)

    def structures_of(self, segment_label: str) -> tuple[str, ...]:
        """Return the structures that may take a segment of this label, as far as labels decide and not codes."""
        return tuple(part for part, pattern in self.segments.items() if occurs(pattern, segment_label))

    def read(self, name: str, objects: Sequence[LabelObject], image: ImageFacts) -> tuple[Annotation, ...]:
        """Return one mask called ``name`` with a segment for each declared structure that was found.

        Raises
        ------
        CaseError
            LABEL_MISSING, LABEL_AMBIGUOUS, LABEL_EMPTY, LABEL_UNREADABLE, LABEL_GEOMETRY or LABEL_OFF_GRID.
        """
        datasets = self._chosen(self._datasets(objects))
        declared = self.declared
        measures = {"segments": 0.0, "segments_matched": 0.0, "resampled": 0.0, "drift_voxels": 0.0}
        found: dict[str, list[Structure]] = {part: [] for part in declared}
        shares = self.fractional == "keep"
        for dataset in datasets:
            for structure in self._read_one(dataset, image, measures):
                voxels = structure.voxels
                assert voxels is not None
                scaled = _as_shares(voxels) if shares else voxels >= (1 if voxels.dtype == np.bool_ else 128)
                found[structure.name].append(Structure(structure.name, scaled, structure.category, structure.type))
        missing = [part for part in declared if not found[part]]
        if self.require == "all" and missing:
            raise CaseError(Reason.LABEL_MISSING, f"found no segment for {', '.join(missing)}; require is all")
        return (
            layer(
                name,
                [_join(part, found[part]) for part in declared],
                image.geometry,
                rules=LayerRules(self.layout, self.empty, fractional=shares),
                evidence=Evidence(tier="machine" if all(s.automatic for s in self._taken(datasets)) else self.tier),
                measures=measures,
            ),
        )

    def _datasets(self, objects: Sequence[LabelObject]) -> list[Dataset]:
        if not objects:
            raise CaseError(Reason.LABEL_MISSING, "found no segmentation linked to the image")
        datasets = [item.content for item in objects]
        for dataset in datasets:
            if not isinstance(dataset, Dataset) or value_of(dataset, "SOPClassUID") not in CLASSES:
                raise CaseError(Reason.LABEL_UNREADABLE, "found an object that is no Segmentation")
        return datasets

    def _chosen(self, datasets: list[Dataset]) -> list[Dataset]:
        """Drop objects without a declared structure if another has one, so that they do not make the case ambiguous."""
        chosen = [dataset for dataset in datasets if self._taken([dataset])]
        if len(chosen) > 1 and self.several == "refuse":
            raise CaseError(
                Reason.LABEL_AMBIGUOUS,
                f"found {len(chosen)} segmentations with declared structures, expected one an image; several: join",
            )
        return chosen or datasets

    def _taken(self, datasets: Sequence[Dataset]) -> "list[SegmentFacts]":
        """Return the segments that a declared structure takes."""
        segments = [segment for dataset in datasets for segment in describe_segments(dataset)]
        return [segment for segment in segments if any(self._fits(part, segment) for part in self.declared)]

    def _read_one(self, dataset: Dataset, image: ImageFacts, measures: dict[str, float]) -> list[Structure]:
        """Return the declared structures of one object on the image's grid: bool, or uint8 shares of 255."""
        described = describe_segments(dataset)
        wanted = {part: [s for s in described if self._fits(part, s)] for part in self.declared}
        measures["segments"] += len(described)
        measures["segments_matched"] += len({s.number for group in wanted.values() for s in group})
        if not any(wanted.values()):
            return []
        _check_numbers(described, [s for group in wanted.values() for s in group])
        taken = {s.number for group in wanted.values() for s in group if s.number is not None}
        frames = describe_frames(dataset, taken)
        _check_frame_of_reference(dataset, image)
        slices = image_slices(
            frames, image.geometry, uid_to_slice=dict(image.uid_to_slice), tolerance_voxels=self.tolerance_voxels
        )
        placement = None
        geometry = image.geometry
        if slices is None:
            geometry, slices = own_grid(frames, image.geometry)
            placement = self._place(geometry, image.geometry, measures)
        elif slices and (min(slices) < 0 or max(slices) >= geometry.shape[0]):
            measures["frames_outside"] = float(sum(not 0 <= s < geometry.shape[0] for s in slices))
        structures = []
        for part, group in wanted.items():
            if not group:
                continue
            numbers = {s.number for s in group if s.number is not None}
            own = _paint(dataset, frames, slices, numbers=numbers, geometry=geometry)
            moved = self._move(own, placement)
            for measure, volume in (
                (f"{part}/own_grid_volume_mm3", _volume(own, geometry)),
                (f"{part}/voxel_volume_mm3", _volume(moved, image.geometry)),
            ):
                measures[measure] = measures.get(measure, 0.0) + volume
            structures.append(Structure(part, moved, group[0].category, group[0].type))
        return structures

    def _fits(self, part: str, segment: "SegmentFacts") -> bool:
        if part in self.segments and not occurs(self.segments[part], segment.label):
            return False
        if part in self.codes:
            code = segment.type
            return code is not None and f"{code.scheme}:{code.value}" == self.codes[part]
        return True

    def _place(self, own: Geometry, image: Geometry, measures: dict[str, float]) -> Placement:
        placement = place(own, image, tolerance_voxels=self.tolerance_voxels)
        if placement.resampled and self.off_grid == "refuse":
            raise CaseError(
                Reason.LABEL_OFF_GRID,
                f"found a segmentation on another grid ({placement.drift_voxels:.3g} voxels off), expected the image's",
            )
        measures["resampled"] = max(measures["resampled"], float(placement.resampled))
        measures["drift_voxels"] = max(measures["drift_voxels"], placement.drift_voxels)
        return placement

    def _move(self, own: NDArray[Any], placement: Placement | None) -> NDArray[Any]:
        if placement is None:
            return own
        if own.dtype == np.bool_:
            return move(own, placement, interpolation=self.interpolation)
        return move_shares(own, placement)


@dataclass(frozen=True)
class SegmentFacts:
    """One item of the Segment Sequence (0062,0002)."""

    number: int | None
    label: str
    category: Code | None
    type: Code | None
    automatic: bool = False


def describe_segments(dataset: Dataset) -> list[SegmentFacts]:
    """Read the segments of an object, leaving out the background of a label map (PS3.3 C.8.20.4).

    Raises
    ------
    CaseError
        LABEL_UNREADABLE if the sequence does not parse.
    """
    with parsing(Reason.LABEL_UNREADABLE, "found segments that do not parse"):
        return _described(dataset)


def _described(dataset: Dataset) -> list[SegmentFacts]:
    padding = dataset.get("PixelPaddingValue") if dataset.get("SegmentationType") == "LABELMAP" else None
    facts = []
    for item in dataset.get("SegmentSequence") or []:
        number = value_of(item, "SegmentNumber")
        number = number if isinstance(number, int) else None
        category = code_of(item.get("SegmentedPropertyCategoryCodeSequence"))
        kind = code_of(item.get("SegmentedPropertyTypeCodeSequence"))
        if (padding is not None and number == int(padding)) or (kind and (kind.scheme, kind.value) == BACKGROUND):
            continue
        automatic = str(item.get("SegmentAlgorithmType") or "") == "AUTOMATIC"
        facts.append(SegmentFacts(number, str(item.get("SegmentLabel") or ""), category, kind, automatic))
    return facts


def _check_numbers(described: Sequence[SegmentFacts], wanted: Sequence[SegmentFacts]) -> None:
    """Refuse wanted segments whose number is missing or shared, because frames refer to segments by number only."""
    counts = Counter(s.number for s in described)
    for segment in wanted:
        if segment.number is None:
            raise CaseError(Reason.LABEL_UNREADABLE, "found a wanted segment whose number (0062,0004) cannot be read")
        if counts[segment.number] > 1:
            raise CaseError(
                Reason.LABEL_AMBIGUOUS,
                f"found {counts[segment.number]} segments with the number of a wanted one, expected one",
            )


def _paint(
    dataset: Dataset, frames: Frames, slices: Sequence[int], *, numbers: set[int], geometry: Geometry
) -> NDArray[Any]:
    """Paint the segments ``numbers`` to (slice, row, column): bool, or uint8 shares of 255 for fractional objects."""
    fractional = _is_fractional(dataset)
    with parsing(Reason.LABEL_UNREADABLE, "found a segmentation whose type or largest value cannot be read"):
        label_map = dataset.get("SegmentationType") == "LABELMAP"
        top = int(dataset.get("MaximumFractionalValue") or 255)
        if not 0 < top < 2**16:
            raise ValueError("MaximumFractionalValue")
    places = {
        f.index: place for f, place in zip(frames.frames, slices, strict=True)
        if (label_map or f.segment in numbers) and 0 <= place < geometry.shape[0]
    }  # fmt: skip
    out: NDArray[Any] = np.zeros(geometry.shape, dtype=np.uint8 if fractional else np.bool_)
    for index, pixels in zip(places, frame_pixels(dataset, frames, indices=list(places)), strict=True):
        if fractional:
            shares = np.round(np.minimum(pixels, top).astype(np.float64) / top * 255).astype(np.uint8)
            np.maximum(out[places[index]], shares, out=out[places[index]])
        else:
            out[places[index]] |= np.isin(pixels, list(numbers)) if label_map else pixels != 0
    return out


def _check_frame_of_reference(dataset: Dataset, image: ImageFacts) -> None:
    own, expected = str(value_of(dataset, "FrameOfReferenceUID") or ""), image.geometry.frame_of_reference
    if own and expected and own != expected:
        raise CaseError(Reason.LABEL_GEOMETRY, "found a segmentation in another frame of reference than the image's")


def _is_fractional(dataset: Dataset) -> bool:
    return str(value_of(dataset, "SegmentationType") or "") == "FRACTIONAL"


def _as_shares(voxels: NDArray[Any]) -> NDArray[Any]:
    return voxels.astype(np.uint8) * 255 if voxels.dtype == np.bool_ else voxels


def _volume(voxels: NDArray[Any], geometry: Geometry) -> float:
    inside = float(np.count_nonzero(voxels)) if voxels.dtype == np.bool_ else float(voxels.sum(dtype=np.int64)) / 255
    return inside * geometry.voxel_volume_mm3


def _join(name: str, parts: Sequence[Structure]) -> Structure:
    """Merge structures of the same name from several objects into their union."""
    if not parts:
        return Structure(name, None)
    arrays = [part.voxels for part in parts if part.voxels is not None]
    return Structure(name, np.maximum.reduce(arrays), parts[0].category, parts[0].type)
