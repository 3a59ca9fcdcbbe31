"""The ``consensus`` block of a spec: fuses several readers' annotations of a case and measures their agreement."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from builder.errors import CaseError, Reason
from builder.labels.agreement import dice, hausdorff_mm
from builder.labels.consensus import fuse_lines, majority, majority_labels, staple, staple_labels
from builder.labels.evidence import weakest
from builder.labels.label import Stated
from builder.labels.proof import Proof
from builder.model.case import (
    Annotation,
    Classes,
    Evidence,
    Landmarks,
    Mask,
    Measurement,
    Measurements,
    Reading,
    Segment,
    Tier,
)
from builder.model.geometry import Geometry

Method: TypeAlias = Literal["majority", "staple", "dawid_skene", "lines"]


class Consensus(BaseModel):
    """One label made from the labels of several readers.

    Parameters
    ----------
    of
        The labels to fuse, or structures of one label (``drawn/reader_a``), each drawn by its own reader. A single
        label is enough if its table names the readers.
    method
        ``majority`` votes on masks voxel by voxel and on classes; a tie gives no result. ``staple`` fuses masks by the
        estimated performance of each reader, and label maps with all their values at once. ``dawid_skene`` fuses
        classes by the estimated confusion of each reader over all cases of the dataset. ``lines`` chooses the slice
        first, then the ends.
    least
        Minimum number of readers per case. A case with fewer does not get the label.
    margin_voxels
        Masks are fused, and specificity is measured, in the box around all readers' voxels, grown by this margin.
        Voxels beyond it are excluded because all readers agree there, which would make every specificity look perfect.
    readers
        Whether to keep the readers' own annotations in the dataset beside the consensus.
    evidence
        As for other labels. Several single readers together have the tier ``consensus``; otherwise the weakest tier
        counts.
    proof
        Thresholds for the fused annotation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    VERSION: ClassVar[int] = 1

    of: Annotated[tuple[str, ...], Field(min_length=1)]
    method: Method
    least: Annotated[int, Field(ge=1)] = 2
    margin_voxels: Annotated[int, Field(ge=0)] = 8
    readers: Literal["keep", "drop"] = "keep"
    evidence: Stated = Stated()
    proof: Proof = Proof()

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels that the consensus is made from."""
        return tuple(dict.fromkeys(part.partition("/")[0] for part in self.of))

    def fuse(self, name: str, annotations: Sequence[Annotation], geometry: Geometry) -> tuple[Annotation, ...]:
        """Return the consensus called ``name`` for a case, or nothing if the case has too few readers.

        Classes are settled later, in ``settle_classes``, because a reader's confusion shows only over all cases.

        Raises
        ------
        CaseError
            LABEL_AMBIGUOUS if the masks cannot be compared.
        """
        if self.method == "lines":
            return self._fuse_lines(name, annotations, geometry)
        members = [m for m in (_member(part, name, annotations) for part in self.of) if m is not None]
        if len(members) < self.least:
            return ()
        return (self._fuse_masks(name, members),)

    def votes(self, annotations: Sequence[Annotation]) -> tuple[Reading, ...]:
        """Return what each reader said about the fused classes and lines.

        A label that names no readers counts as one reader.
        """
        found: list[Reading] = []
        for annotation in annotations:
            if annotation.name.partition("/")[0] not in self.labels:
                continue
            if isinstance(annotation, Measurements | Classes) and annotation.readings:
                found.extend(annotation.readings)
            elif isinstance(annotation, Classes) and annotation.name in self.of:
                values = sorted(annotation.values.items())
                found.extend(Reading(annotation.name, finding, v) for finding, v in values if v is not None)
        return tuple(found)

    def fuses_masks(self, annotations: Sequence[Annotation]) -> bool:
        """Return whether any of the fused labels is a mask."""
        return any(isinstance(a, Mask) and a.name in self.labels for a in annotations)

    def blank(self, name: str, annotations: Sequence[Annotation]) -> tuple[Mask, ...]:
        """Return the mask of a case without this consensus: the usual shape, but without voxels or segments."""
        model = next((a for a in annotations if isinstance(a, Mask) and a.name in self.labels), None)
        if model is None:
            return ()
        whole = self.of[0] in self.labels
        voxels = np.zeros_like(model.voxels) if whole else np.zeros((1, *model.geometry.shape), np.uint8)
        return (Mask(name, voxels, model.geometry, ()),)

    def remaining(self, annotations: Sequence[Annotation]) -> tuple[Annotation, ...]:
        """Return the annotations to keep beside the consensus. Classes stay until they are settled with all cases."""
        if self.readers == "keep":
            return tuple(annotations)
        return tuple(a for a in annotations if a.name.partition("/")[0] not in self.labels or isinstance(a, Classes))

    def _fuse_masks(self, name: str, members: "Sequence[_Member]") -> Mask:
        model = members[0].mask
        segments = _common_segments(members)
        shape = model.voxels.shape
        if any(m.mask.voxels.shape != shape or m.mask.fractional for m in members):
            detail = "found masks of unlike layout, or of shares, expected whole voxels in the same channels"
            raise CaseError(Reason.LABEL_AMBIGUOUS, f"consensus {name}: {detail}")
        voxels = np.zeros(shape, model.voxels.dtype)
        measures = {"readers": float(len(members))}
        box = _box([m.mask.voxels for m in members], self.margin_voxels)
        if box is not None:
            window = (slice(None), *box)
            stacked = [m.mask.voxels[window] for m in members]
            voxels[window] = self._settle(stacked, segments, dtype=model.voxels.dtype)
            fused = replace(model, voxels=voxels, segments=segments)
            for segment in segments:
                said = {m.name: m.inside(segment)[box] for m in members}
                figures = _agreement(said, fused.inside(segment)[box], model.geometry.spacing_mm)
                measures.update({f"{segment.name}/{figure}": value for figure, value in figures.items()})
        evidence = _evidence([m.mask.evidence for m in members], [m.name for m in members], self)
        return Mask(name, voxels, model.geometry, segments, evidence=evidence, measures=measures)

    def _settle(self, stacked: Sequence[NDArray[Any]], segments: Sequence[Segment], *, dtype: Any) -> NDArray[Any]:
        """Fuse to (channel, ...) voxels: a label map as a whole, channels one by one."""
        if len({s.channel for s in segments}) < len(segments):
            settled = staple_labels(stacked)[0] if self.method == "staple" else majority_labels(stacked)
            return np.asarray(settled, dtype)
        out = np.zeros(stacked[0].shape, dtype)
        for segment in segments:
            votes = [maps[segment.channel] == segment.value for maps in stacked]
            inside = staple(votes).probability > 0.5 if self.method == "staple" else majority(votes)
            out[segment.channel][inside] = segment.value
        return out

    def _fuse_lines(self, name: str, annotations: Sequence[Annotation], geometry: Geometry) -> tuple[Annotation, ...]:
        drawn = [a for a in annotations if isinstance(a, Landmarks) and a.name in self.of]
        said = [a for a in annotations if isinstance(a, Measurements) and a.name in {f"{n}/length" for n in self.of}]
        readings = [r for a in said for r in a.readings]
        names = sorted({r.reader for r in readings})
        if len(names) < self.least or not drawn:
            return ()
        ends = np.concatenate([a.points_mm for a in drawn]).reshape(-1, 2, 3)
        lines = np.stack([geometry.to_voxel(line) for line in ends])
        fused = fuse_lines(lines, spacing_mm=geometry.spacing_mm)
        placed = geometry.to_world(fused)
        length = float(np.linalg.norm(placed[1] - placed[0]))
        evidence = _evidence([a.evidence for a in drawn], names, self)
        measures = _line_agreement(lines, fused, np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1), length)
        measures = {"readers": float(len(names)), **measures}
        return (
            Landmarks(name, placed, ("start", "end"), ("0", "0"), evidence, measures),
            Measurements(f"{name}/length", (Measurement("long_axis", length, "mm"),), evidence),
        )


@dataclass(frozen=True, eq=False)
class _Member:
    """One reader's mask."""

    name: str
    mask: Mask

    def inside(self, segment: Segment) -> NDArray[np.bool_]:
        """Return the reader's voxels of a segment."""
        return self.mask.inside(segment)


def _member(part: str, consensus: str, annotations: Sequence[Annotation]) -> _Member | None:
    """Return the mask of a label, or of one structure renamed to the consensus, or None if the case lacks it."""
    label, _, structure = part.partition("/")
    mask = next((a for a in annotations if isinstance(a, Mask) and a.name == label), None)
    if mask is None or not mask.segments:
        return None
    if not structure:
        return _Member(part, mask)
    segment = next((s for s in mask.segments if s.name == structure), None)
    if segment is None:
        return None
    own = Segment(consensus, 0, 1, segment.category, segment.type)
    voxels = mask.inside(segment)[None].astype(np.uint8)
    return _Member(structure, Mask(part, voxels, mask.geometry, (own,), evidence=mask.evidence))


def _common_segments(members: Sequence[_Member]) -> tuple[Segment, ...]:
    """Return all segments that any member has. A name must have the same channel and value in every member."""
    found: dict[str, Segment] = {}
    for member in members:
        for segment in member.mask.segments:
            known = found.setdefault(segment.name, segment)
            if (known.channel, known.value) != (segment.channel, segment.value):
                detail = "found a structure in another channel or value than another reader's, expected one order"
                raise CaseError(Reason.LABEL_AMBIGUOUS, f"{segment.name}: {detail} of structures in all of the labels")
    return tuple(sorted(found.values(), key=lambda s: (s.channel, s.value)))


def _box(voxels: Sequence[NDArray[Any]], margin: int) -> tuple[slice, ...] | None:
    """Return the box around everything anybody drew, grown by ``margin`` within the volume, or None if nobody drew."""
    bounds = []
    for axis in range(3):
        others = tuple(a for a in range(4) if a != axis + 1)
        used = np.flatnonzero(np.logical_or.reduce([v.any(axis=others) for v in voxels]))
        if not len(used):
            return None
        bounds.append(slice(max(0, int(used[0]) - margin), int(used[-1]) + 1 + margin))
    return tuple(bounds)


def _agreement(
    said: Mapping[str, NDArray[np.bool_]], truth: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> dict[str, float]:
    """Compare each reader with the consensus, and each pair of readers. Undefined figures are left out."""
    figures: dict[str, float] = {}
    inside, outside = int(np.count_nonzero(truth)), int(np.count_nonzero(~truth))
    for name, mask in said.items():
        if inside:
            figures[f"{name}/sensitivity"] = int(np.count_nonzero(mask & truth)) / inside
        if outside:
            figures[f"{name}/specificity"] = int(np.count_nonzero(~mask & ~truth)) / outside
    for (a, first), (b, second) in itertools.combinations(said.items(), 2):
        figures[f"{a}~{b}/dice"] = dice(first, second)
        if first.any() and second.any():
            figures[f"{a}~{b}/hd95_mm"] = hausdorff_mm(first, second, spacing_mm)
    return {name: round(float(f"{value:.9g}"), 9) for name, value in figures.items()}


def _line_agreement(
    lines: NDArray[np.float64], fused: NDArray[np.float64], lengths_mm: NDArray[np.float64], length_mm: float
) -> dict[str, float]:
    apart = np.abs(np.round(lines[:, 0, 0]) - fused[0, 0])
    figures = {
        "lines": float(len(lines)),
        "lines_within_two_slices_fraction": float(np.mean(apart <= 2)),
        "shortest_line_mm": float(lengths_mm.min()),
        "longest_line_mm": float(lengths_mm.max()),
        "median_difference_mm": float(np.median(np.abs(lengths_mm - length_mm))),
    }
    return {name: round(float(f"{value:.9g}"), 9) for name, value in figures.items()}


def _evidence(members: Sequence[Evidence], readers: Sequence[str], options: Consensus) -> Evidence:
    named = tuple(dict.fromkeys(r for e in members for r in e.readers)) or tuple(readers)
    tier: Tier = weakest([e.tier for e in members])
    if tier in ("single_reader", "unstated") and len(readers) > 1:
        tier = "consensus"
    return Evidence(
        tier=options.evidence.tier or tier,
        readers=options.evidence.readers or named,
        tool=options.evidence.tool or f"{options.method}/{options.VERSION}",
        time=options.evidence.time,
    )
