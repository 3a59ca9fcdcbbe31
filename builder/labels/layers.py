"""Builds a Mask from structures on one grid: one channel each, or one label map."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator

from builder.errors import CaseError, Reason, counted
from builder.model.case import Code, Evidence, Mask, Segment
from builder.model.geometry import Geometry
from builder.model.patterns import check_pattern

Layout: TypeAlias = Literal["channels", "map"]
"""``channels``: every declared structure has its own channel, so overlap is kept and the shape is the same in every
case. ``map``: one channel, in which structure k has the value k + 1. Where structures overlap, the one declared first
wins."""


Empty: TypeAlias = Literal["exclude", "keep"]
"""How to treat a case whose declared structures cover no voxel: exclude as LABEL_EMPTY, or keep as a true negative."""


Pattern: TypeAlias = Annotated[str, AfterValidator(check_pattern)]
"""A regular expression in the spec. RE2 runs it, and it may match anywhere in a name."""


@dataclass(frozen=True, eq=False)
class Structure:
    """A declared structure: (slice, row, column) voxels (bool, or uint8 shares of 255), or None if it is absent."""

    name: str
    voxels: NDArray[Any] | None
    category: Code | None = None
    type: Code | None = None


@dataclass(frozen=True)
class LayerRules:
    """How a mask is laid out and when it is refused. A fractional mask holds shares of 255 and always has channels."""

    layout: Layout = "channels"
    empty: Empty = "exclude"
    fractional: bool = False


def layer(
    name: str,
    structures: Sequence[Structure],
    geometry: Geometry,
    *,
    rules: LayerRules = LayerRules(),
    evidence: Evidence | None = None,
    measures: Mapping[str, float] | None = None,
) -> Mask:
    """Build the mask of ``structures``, in their order. An absent structure keeps its channel but gets no segment.

    Raises
    ------
    CaseError
        LABEL_MISSING if the case has none of them, LABEL_EMPTY if none that it has covers a voxel.
    """
    present = [s for s in structures if s.voxels is not None]
    if not present:
        raise CaseError(Reason.LABEL_MISSING, f"found none of {counted(len(structures), 'declared structure')}")
    if rules.empty == "exclude" and not any(np.any(s.voxels) for s in present):
        raise CaseError(
            Reason.LABEL_EMPTY, f"found {counted(len(present), 'declared structure')}, none with a voxel of the image"
        )
    overlap = float(_overlap(present, geometry.shape))
    # Nine digits are kept because later ones depend on how a machine's linear algebra rounds.
    facts = {
        key: round(float(f"{value:.9g}"), 9) for key, value in {**(measures or {}), "overlap_voxels": overlap}.items()
    }
    build = _channels if rules.layout == "channels" or rules.fractional else _label_map
    voxels, segments = build(structures, geometry.shape)
    return Mask(name, voxels, geometry, segments, rules.fractional, evidence or Evidence(), facts)


def blank_layer(name: str, structures: int, geometry: Geometry, *, layout: Layout) -> Mask:
    """Return the mask of a case without this label: the same shape as others', but without voxels or segments."""
    channels = structures if layout == "channels" else 1
    kind = np.uint8 if layout == "channels" or structures < 256 else np.uint16
    return Mask(name, np.zeros((channels, *geometry.shape), kind), geometry, ())


def _channels(structures: Sequence[Structure], shape: tuple[int, int, int]) -> tuple[NDArray[Any], tuple[Segment, ...]]:
    voxels = np.zeros((len(structures), *shape), dtype=np.uint8)
    segments = []
    for channel, structure in enumerate(structures):
        if structure.voxels is not None:
            voxels[channel] = structure.voxels
            segments.append(Segment(structure.name, channel, 1, structure.category, structure.type))
    return voxels, tuple(segments)


def _label_map(
    structures: Sequence[Structure], shape: tuple[int, int, int]
) -> tuple[NDArray[Any], tuple[Segment, ...]]:
    voxels = np.zeros((1, *shape), dtype=np.uint8 if len(structures) < 256 else np.uint16)
    segments = []
    for index, structure in reversed(list(enumerate(structures))):
        if structure.voxels is not None:
            voxels[0][structure.voxels.astype(np.bool_)] = index + 1
            segments.append(Segment(structure.name, 0, index + 1, structure.category, structure.type))
    return voxels, tuple(reversed(segments))


def _overlap(present: Sequence[Structure], shape: tuple[int, int, int]) -> int:
    """Count the voxels that lie in more than one structure."""
    if len(present) < 2:
        return 0
    count = np.zeros(shape, dtype=np.uint8)
    for structure in present:
        assert structure.voxels is not None
        count += structure.voxels.astype(np.bool_)
    return int(np.count_nonzero(count > 1))
