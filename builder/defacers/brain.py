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
UPPER: Final = 0.85
"""The brain lies less than so many depths of the head below its top."""


def brain_of(scene: Scene, head: Head) -> Bools:
    """Return the cells of the brain and a margin of ``MARGIN_MM``, on the box of a scene; none if none is found.

    In CT soft tissue ends at bone, in MR at the dark skull, in PET at what takes up little. The largest part that is
    left at a distance of ``CORE_MM`` from where it ends is grown back by that distance and the margin, but not into
    the skin.
    """
    from scipy import ndimage

    soft = _soft(scene, head)
    core_mm = CORE_MM if scene.domain in _TOLD_APART else MR_CORE_MM
    parts, count = ndimage.label(ndimage.distance_transform_edt(soft) * CELL_MM >= core_mm)
    if not count:
        return np.zeros_like(soft)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    core = parts == int(sizes.argmax())
    near = ndimage.distance_transform_edt(~core) * CELL_MM <= core_mm + MARGIN_MM
    return np.asarray(near & (scene.hull_mm > RIM_MM))


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
