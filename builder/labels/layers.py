"""Makes a Mask of structures on one grid: a channel each, or one label map."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator

from builder.errors import CaseError, Reason
from builder.model.case import Code, Evidence, Mask, Segment
from builder.model.geometry import Geometry
from builder.model.patterns import check_pattern

Layout: TypeAlias = Literal["channels", "map"]
"""``channels``: every declared structure has a channel of its own, so overlap is kept and the shape never depends on
the case. ``map``: one channel, structure k has value k + 1; where structures overlap the one declared first wins."""


Empty: TypeAlias = Literal["exclude", "keep"]
"""A case whose declared structures cover no voxel: excluded as LABEL_EMPTY, or kept as a true negative."""


Pattern: TypeAlias = Annotated[str, AfterValidator(check_pattern)]
"""A regular expression of the spec, as RE2 runs it: searched anywhere in a name."""


@dataclass(frozen=True, eq=False)
class Structure:
    """A declared structure: (slice, row, column) voxels (bool, or uint8 shares of 255), None when it is absent."""

    name: str
    voxels: NDArray[Any] | None
    category: Code | None = None
    type: Code | None = None


def layer(  # noqa: PLR0913
    name: str,
    structures: Sequence[Structure],
    geometry: Geometry,
    *,
    layout: Layout = "channels",
    fractional: bool = False,
    empty: Empty = "exclude",
    evidence: Evidence | None = None,
    measures: Mapping[str, float] | None = None,
) -> Mask:
    """The mask of ``structures``, in their order; those the case lacks keep their channel, without a segment.

    Raises
    ------
    CaseError
        LABEL_MISSING when the case has none of them, LABEL_EMPTY when all it has are without a voxel.
    """
    present = [s for s in structures if s.voxels is not None]
    if not present:
        raise CaseError(Reason.LABEL_MISSING, f"found none of the {len(structures)} declared structures")
    if empty == "exclude" and not any(np.any(s.voxels) for s in present):
        raise CaseError(Reason.LABEL_EMPTY, f"found {len(present)} declared structures, none with a voxel of the image")
    overlap = float(_overlap(present, geometry.shape))
    # nine digits: what lies beyond is the rounding of one machine's linear algebra
    facts = {
        key: round(float(f"{value:.9g}"), 9) for key, value in {**(measures or {}), "overlap_voxels": overlap}.items()
    }
    build = _channels if layout == "channels" or fractional else _label_map
    voxels, segments = build(structures, geometry.shape)
    return Mask(name, voxels, geometry, segments, fractional, evidence or Evidence(), facts)


def blank_layer(name: str, structures: int, geometry: Geometry, *, layout: Layout) -> Mask:
    """The mask of a case without this label: as large as others', without a voxel and without a segment."""
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
    """Voxels in more than one structure."""
    if len(present) < 2:
        return 0
    count = np.zeros(shape, dtype=np.uint8)
    for structure in present:
        assert structure.voxels is not None
        count += structure.voxels.astype(np.bool_)
    return int(np.count_nonzero(count > 1))
