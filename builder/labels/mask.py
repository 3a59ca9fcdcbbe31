"""Reader for mask files (NIfTI, NRRD with .seg.nrrd, MetaImage, PNG, TIFF) that are paired with images by path."""

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from builder.errors import CaseError, Reason, counted
from builder.files import FileFault, FileGrid, FileSegment, read_labels
from builder.labels.label import MaskLabel
from builder.labels.layers import Empty, LayerRules, Pattern, Structure, layer
from builder.labels.linking import check_pattern, select_files
from builder.labels.placing import Interpolation, OffGrid, Placement, move, move_shares, place
from builder.model.case import Annotation, Evidence
from builder.model.geometry import Geometry
from builder.model.globs import fits, pieces_of
from builder.model.linking import ImageRow, Selection
from builder.model.patterns import occurs
from builder.protocols import ImageFacts, LabelObject

HEADS = (".mhd", ".nhdr", ".hdr", ".hdr.gz")
"""Suffixes of headers whose voxels lie in a file beside them."""

LARGEST_WHOLE = 2.0**53
"""From here on, floating-point numbers cannot represent every whole number."""

FORMATS = ("nifti", "nrrd", "mha", "mhd", "raw", "png", "tiff")


def _files_of(given: Any) -> Any:
    """Turn the short forms of ``structures`` into a map of names to names of files."""
    if isinstance(given, list | tuple):
        return {name: (name,) for name in given}
    if isinstance(given, dict):
        return {name: (files,) if isinstance(files, str) else files for name, files in given.items()}
    return given


class MaskFile(MaskLabel):
    """Masks from label files beside the images.

    Parameters
    ----------
    match
        Glob over the source's paths, with fields filled in from the image, e.g. ``{parent}/*_mask.nii.gz``; see
        ``builder.labels.linking.select_files``.
    values
        Maps a value in the file to the name of a structure. Several values may share a name.
    names
        Maps the name of a structure to a regular expression, for files that name their segments (.seg.nrrd).
    structures
        Names of structures that have a file each, where ``{structure}`` stands in ``match``; or a map of the name of a
        structure to the names of its files, which are joined.
    empty_file
        With ``structures``: what a file without a voxel says. ``absent``: the structure was looked for and is not
        there. ``not_annotated``: nobody can tell, as without a file.
    content
        ``labels``: whole numbers. ``probability``: shares from 0 to 1, with one layer for each key (0, 1, ...) of
        ``values``.
    tolerance_voxels
        Grids count as equal if their voxel centres agree this closely. A hundredth of a voxel allows for rounding.
    off_grid
        What to do with a label on another grid: ``resample`` it and record that in ``measures``, or ``refuse`` the
        case.
    interpolation
        ``nearest``, or ``linear`` with a threshold of one half.
    undeclared
        What to do with values that ``values`` does not list: ``ignore`` them and count their voxels, or ``refuse`` the
        case.
    several
        What to do with more than one file: ``refuse`` the case, or ``join`` the files.
    empty
        What to do if the files have no declared voxel: ``exclude`` the case, or ``keep`` it as a true negative.
    """

    VERSION: ClassVar[int] = 3

    kind: Literal["mask"] = "mask"
    match: Annotated[str, AfterValidator(check_pattern)]
    values: dict[int, str] = Field(default_factory=dict)
    names: dict[str, Pattern] = Field(default_factory=dict)
    structures: Annotated[
        dict[str, tuple[str, ...]],
        BeforeValidator(_files_of, json_schema_input_type=tuple[str, ...] | dict[str, str | tuple[str, ...]]),
    ] = Field(default_factory=dict)
    empty_file: Literal["absent", "not_annotated"] | None = None
    content: Literal["labels", "probability"] = "labels"
    tolerance_voxels: float = Field(default=0.01, ge=0, le=0.5)
    off_grid: OffGrid = "resample"
    interpolation: Interpolation = "nearest"
    undeclared: Literal["ignore", "refuse"] = "ignore"
    several: Literal["refuse", "join"] = "refuse"
    empty: Empty = "exclude"

    @model_validator(mode="after")
    def _one_way_to_name(self) -> "MaskFile":
        if [bool(self.values), bool(self.names), bool(self.structures)].count(True) != 1:
            raise ValueError("found values and names both set or both missing, expected one of them")
        if bool(self.structures) != ("{structure}" in self.match.rpartition("/")[2]) or (
            bool(self.structures) != (self.empty_file is not None)
        ):
            raise ValueError(
                "found structures without {structure} in the file's name of match or without empty_file, or the other "
                "way round; expected all three: empty_file says whether an empty file means absent or not_annotated"
            )
        if self.structures and self.content == "probability":
            raise ValueError("found structures with content probability, expected values")
        if self.content == "probability" and self.layout == "map":
            raise ValueError("found layout map with content probability, expected channels: shares need one each")
        if self.content == "probability" and self.names:
            raise ValueError("found names with content probability, expected values: {0: <name of the first layer>}")
        if 0 in self.values and self.content == "labels":
            raise ValueError("found value 0 among values, expected it to stay background")
        return self

    @property
    def declared(self) -> tuple[str, ...]:
        """The structures that the spec names, in order."""
        return tuple(dict.fromkeys(self.values.values())) or tuple(self.names) or tuple(self.structures)

    def select(self, image: ImageRow, candidates: pa.Table) -> Selection:
        """Select the files whose path matches the pattern."""
        names = [name for files in self.structures.values() for name in files]
        return select_files(image, candidates, pattern=self.match, formats=FORMATS, structures=names)

    def read(self, name: str, objects: Sequence[LabelObject], image: ImageFacts) -> tuple[Annotation, ...]:
        """Return one mask called ``name`` on the image's grid.

        Raises
        ------
        CaseError
            LABEL_MISSING, LABEL_AMBIGUOUS, LABEL_EMPTY, LABEL_UNREADABLE, LABEL_GEOMETRY or LABEL_OFF_GRID.
        """
        measures = {"resampled": 0.0, "drift_voxels": 0.0, "undeclared_voxels": 0.0}
        found: dict[str, list[Structure]] = {}
        for part, grid in self._grids(objects):
            own = _own_grid(grid, image)
            placement = place(own, image.geometry, tolerance_voxels=self.tolerance_voxels)
            if placement.resampled and self.off_grid == "refuse":
                raise CaseError(
                    Reason.LABEL_OFF_GRID,
                    f"found a label on another grid ({placement.drift_voxels:.3g} voxels off), expected the image's",
                )
            if placement.resampled and not image.in_patient_space:
                raise CaseError(
                    Reason.LABEL_GEOMETRY,
                    "found a mask on another grid than the picture's, expected the same one: a picture's plane has no "
                    "place in the patient",
                )
            measures["resampled"] = max(measures["resampled"], float(placement.resampled))
            measures["drift_voxels"] = max(measures["drift_voxels"], placement.drift_voxels)
            for structure in self._structures(grid, placement, measures, voxel_mm3=own.voxel_volume_mm3, part=part):
                found.setdefault(structure.name, []).append(structure)
        declared = self.declared
        return (
            layer(
                name,
                [_join(part, found.get(part, [])) for part in declared],
                image.geometry,
                rules=LayerRules(self.layout, self.empty, fractional=self.content == "probability"),
                evidence=Evidence(tier=self.tier),
                measures=measures,
            ),
        )

    def _grids(self, objects: Sequence[LabelObject]) -> Iterator[tuple[str, FileGrid]]:
        """Yield the grids of all files, each with the name of its structure if the file's name says it."""
        if not objects:
            raise CaseError(Reason.LABEL_MISSING, "found no mask file linked to the image")
        contents = [item.content for item in objects]
        if not all(isinstance(content, bytes | bytearray | memoryview) for content in contents):
            raise CaseError(Reason.LABEL_UNREADABLE, "found a DICOM object, expected a mask file")
        files = [bytes(content) for content in contents]
        if len(files) == 1 or (len(files) == 2 and any(item.name.lower().endswith(HEADS) for item in objects)):
            yield self._structure_in(objects[0].name), read_label_file(files)
            return
        if self.several == "refuse" and not self.structures:
            raise CaseError(
                Reason.LABEL_AMBIGUOUS,
                f"found {len(files)} mask files for the image, expected one; several: join",
            )
        for item, content in zip(objects, files, strict=True):
            yield self._structure_in(item.name), read_label_file([content])

    def _structure_in(self, name: str) -> str:
        """Return the structure that a file's name says it holds; "" if the file says it itself. May raise CaseError."""
        if not self.structures:
            return ""
        before, _, after = self.match.rpartition("/")[2].partition("{structure}")
        ends = [pieces_of(re.sub(r"(?:\{[^{}]*\}|\*|\?)+", "**", end)) for end in (before, after)]
        fitting = [
            (len(file), part) for part, files in self.structures.items() for file in files
            if fits((*ends[0], file, *ends[1]), name)
        ]  # fmt: skip
        if not fitting:
            raise CaseError(Reason.LABEL_AMBIGUOUS, "found a mask file whose name says none of the structures")
        return max(fitting)[1]

    def _structures(
        self, grid: FileGrid, placement: Placement, measures: dict[str, float], *, voxel_mm3: float, part: str
    ) -> list[Structure]:
        if self.content == "probability":
            return self._shares(grid, placement)
        layers = _whole_numbers(grid.layers)
        segments = self._alone(layers, part) if part else self._declared(grid, layers, measures)
        structures = []
        for part in dict.fromkeys(s.name for s in segments):
            mine = [s for s in segments if s.name == part]
            own = np.logical_or.reduce([layers[s.layer] == s.value for s in mine])
            moved = move(own, placement, interpolation=self.interpolation)
            before = float(np.count_nonzero(own)) * voxel_mm3
            after = float(np.count_nonzero(moved)) * placement.target.voxel_volume_mm3
            measures[f"{part}/own_grid_volume_mm3"] = measures.get(f"{part}/own_grid_volume_mm3", 0.0) + before
            measures[f"{part}/voxel_volume_mm3"] = measures.get(f"{part}/voxel_volume_mm3", 0.0) + after
            structures.append(Structure(part, moved, mine[0].category, mine[0].type))
        return structures

    def _declared(self, grid: FileGrid, layers: NDArray[Any], measures: dict[str, float]) -> list[FileSegment]:
        """Return the segments of the file that the spec asks for, renamed as in the spec."""
        if self.names:
            segments = [
                FileSegment(part, s.layer, s.value, s.category, s.type)
                for part, pattern in self.names.items()
                for s in grid.segments
                if occurs(pattern, s.name) and s.layer < len(layers)
            ]
            measures["segments"] = float(len(grid.segments))
            measures["segments_matched"] = float(len({(s.layer, s.value) for s in segments}))
            return segments
        if len(layers) != 1:
            raise CaseError(Reason.LABEL_AMBIGUOUS, f"found {len(layers)} layers, expected one; set names instead")
        foreign = int(np.count_nonzero(layers) - sum(np.count_nonzero(layers == value) for value in self.values))
        measures["undeclared_voxels"] += float(foreign)
        if foreign and self.undeclared == "refuse":
            raise CaseError(
                Reason.LABEL_AMBIGUOUS, f"found {counted(foreign, 'voxel')} with values that the spec does not name"
            )
        return [FileSegment(part, 0, value) for value, part in self.values.items()]

    def _alone(self, layers: NDArray[Any], part: str) -> list[FileSegment]:
        """Return the one segment of a file with one structure; none if it is empty and says nothing by that."""
        if len(layers) != 1:
            raise CaseError(Reason.LABEL_AMBIGUOUS, f"found {len(layers)} layers in the file of one structure")
        values = [int(v) for v in np.unique(layers) if v != 0]
        if len(values) > 1:
            raise CaseError(
                Reason.LABEL_AMBIGUOUS, f"found {len(values)} values in the file of one structure, expected 1 besides 0"
            )
        if not values and self.empty_file == "not_annotated":
            return []
        return [FileSegment(part, 0, values[0] if values else 1)]

    def _shares(self, grid: FileGrid, placement: Placement) -> list[Structure]:
        structures = []
        for index, part in self.values.items():
            if not 0 <= index < len(grid.layers):
                raise CaseError(
                    Reason.LABEL_MISSING, f"found {counted(len(grid.layers), 'layer')}, expected layer {index}"
                )
            shares = grid.layers[index]
            if not np.isfinite(shares).all() or shares.min() < 0 or shares.max() > 1:
                raise CaseError(Reason.LABEL_UNREADABLE, "found values beyond 0 to 1, expected probabilities")
            scaled = np.round(np.asarray(shares, dtype=np.float64) * 255).astype(np.uint8)
            structures.append(Structure(part, move_shares(scaled, placement)))
        return structures


def read_label_file(contents: Sequence[bytes]) -> FileGrid:
    """Read a label file with plain numbers as voxels: one file, or a header with its raw companion.

    Raises
    ------
    CaseError
        LABEL_UNREADABLE or LABEL_GEOMETRY.
    """
    try:
        return read_labels(contents)
    except FileFault as fault:
        reason = Reason.LABEL_GEOMETRY if fault.kind == "geometry" else Reason.LABEL_UNREADABLE
        raise CaseError(reason, fault.detail) from fault


def _own_grid(grid: FileGrid, image: ImageFacts) -> Geometry:
    """Return the grid of a label; a picture's mask has that of its picture, pixel for pixel. May raise CaseError."""
    if grid.geometry is not None:
        return grid.geometry
    shape = grid.layers.shape[1:]
    if image.in_patient_space or shape != image.geometry.shape:
        found = f"found a mask that is a picture of {shape[1]} x {shape[2]} pixels"
        raise CaseError(Reason.LABEL_GEOMETRY, f"{found}, expected one of the picture's {image.geometry.shape[1:]}")
    return image.geometry


def _whole_numbers(layers: NDArray[Any]) -> NDArray[Any]:
    if layers.dtype.kind in "biu":
        return layers
    if not np.isfinite(layers).all() or np.abs(layers).max() >= LARGEST_WHOLE:
        raise CaseError(Reason.LABEL_UNREADABLE, "found label values beyond all whole numbers, expected a label map")
    if not np.array_equal(layers, np.round(layers)):
        raise CaseError(
            Reason.LABEL_UNREADABLE,
            "found fractions, expected whole numbers; or set content: probability",
        )
    return layers.astype(np.int64)


def _join(name: str, parts: Sequence[Structure]) -> Structure:
    """Merge structures of the same name from several files into their union."""
    arrays = [part.voxels for part in parts if part.voxels is not None]
    if not arrays:
        return Structure(name, None)
    return Structure(name, np.maximum.reduce(arrays), parts[0].category, parts[0].type)
