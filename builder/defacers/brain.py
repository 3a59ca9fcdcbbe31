"""Where the brain is, with a margin: so that no face is taken out through it."""

from typing import Final

import numpy as np

from builder.defacers.cells import CELL_MM, Bools
from builder.defacers.heads import RIM_MM, Head, Scene
from builder.model.case import ValueDomain

SOFT_HU: Final = (-60.0, 160.0)
CORE_MM: Final = 10.0
"""The brain is the largest part of the head's soft tissue that lies at least so far from anything else."""
MR_CORE_MM: Final = 18.0
"""The same in MR, where cheeks, tongue and brain are hardly told apart by their values."""
MARGIN_MM: Final = 6.0
"""What counts as brain reaches so far beyond it: into the skull."""
_TOLD_APART: Final = (ValueDomain.HOUNSFIELD, ValueDomain.SUV_BW, ValueDomain.ACTIVITY)
CLEFT_MM: Final = 12.0
"""Clefts of up to twice this width inside of it are filled."""
UPPER: Final = 0.85
"""The brain lies less than so many depths of the head below its top."""


def brain_of(scene: Scene, head: Head) -> Bools:
    """Return the cells of the brain and a margin of ``MARGIN_MM``, on the box of a scene; none if none is found.

    In CT soft tissue ends at bone, in MR at the dark skull, in PET at what takes up little. The largest part that is
    left at a distance of ``CORE_MM`` from where it ends is grown back by that distance and the margin, of which all
    but the first cell stays out of the skin.
    """
    from scipy import ndimage

    soft = _soft(scene, head)
    core_mm = CORE_MM if scene.domain in _TOLD_APART else MR_CORE_MM
    # beyond the end of the field of view the brain may go on
    inner = ndimage.distance_transform_edt(soft | ~scene.seen) * CELL_MM >= core_mm
    parts, count = ndimage.label(inner & soft)
    if not count:
        return np.zeros_like(soft)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    core = parts == int(sizes.argmax())
    # clefts between its parts, dark in some MR, belong to it
    closed = ndimage.distance_transform_edt(~core) * CELL_MM <= CLEFT_MM
    core = ndimage.distance_transform_edt(closed) * CELL_MM > CLEFT_MM
    away = ndimage.distance_transform_edt(~core) * CELL_MM
    margin = (away <= core_mm + MARGIN_MM) & (scene.hull_mm > RIM_MM)
    return np.asarray(margin | (away < core_mm + CELL_MM))


def _soft(scene: Scene, head: Head) -> Bools:
    values, body = scene.values, scene.body
    if scene.domain == ValueDomain.HOUNSFIELD:
        soft = (values > SOFT_HU[0]) & (values < SOFT_HU[1])
    elif scene.domain in (ValueDomain.SUV_BW, ValueDomain.ACTIVITY):
        soft = values > 0.3 * float(np.percentile(values[body], 99.0))
    else:
        soft = body.copy()
    soft &= body
    levels = np.arange(len(soft))
    soft[(levels < head.top - UPPER * head.depth) | (levels >= head.top)] = False
    return soft
