"""A face is taken out as a layer below the skin of the front of the head, with both ears and the air before it."""

from typing import ClassVar, Final, Literal

import numpy as np

from builder.defacers.cells import Bools
from builder.defacers.defacer import DefacerBlock
from builder.defacers.heads import Head, Scene, depth_mm

CLEAR_MM: Final = 8.0
"""What is taken out below the skin stays so far from the brain and its margin."""
DEEP_MM: Final = 21.0
"""Depth of the layer at eyes, nose, mouth and chin."""
EARS_MM: Final = 9.0
"""Depth of the layer at the ears, with the folds behind them."""

# in depths of the head, from its top down and from its front backwards
_BELOW_TOP: Final = (0.18, 1.6)
_FRONT: Final = 0.70
_EARS: Final = (0.28, 1.15)
_EARS_BACK: Final = 0.90
_BESIDE: Final = 0.28
_DEEP_BELOW: Final = 0.50
_DEEP_FRONT: Final = 0.32
_DEEP_BESIDE: Final = 0.33


class Surface(DefacerBlock):
    """Takes out a layer below the skin: 6 mm, 9 mm at the ears, and 21 mm where eyes, nose, mouth and chin are."""

    VERSION: ClassVar[int] = 2

    kind: Literal["surface"] = "surface"

    def __call__(self, scene: Scene, head: Head, brain: Bools) -> Bools:
        """Return the cells to take out, on the box of the scene. None of them is one of the brain's."""
        from scipy import ndimage

        z, y, x = np.ogrid[tuple(slice(n) for n in scene.body.shape)]
        down, behind, beside = (
            (head.top - z) / head.depth,
            (y - head.front) / head.depth,
            abs(x - head.middle) / head.depth,
        )
        high = _BELOW_TOP[0] if head.whole_top else -1.0
        levels = (down >= high) & (down <= _BELOW_TOP[1])
        zone = levels & (behind <= _FRONT)
        ears_from = _EARS[0] if head.whole_top else -1.0
        ears = (down >= ears_from) & (down <= _EARS[1]) & (behind <= _EARS_BACK) & (beside >= _BESIDE)
        deep_from = _DEEP_BELOW if head.whole_top else 0.1
        deep = levels & (down >= deep_from) & (behind <= _DEEP_FRONT) & (beside <= _DEEP_BESIDE)
        deep &= (scene.hull_mm <= DEEP_MM) & (depth_mm(brain) > CLEAR_MM)
        layer = (zone & scene.skin) | (ears & (scene.below_mm <= EARS_MM)) | deep
        return np.asarray(layer & ndimage.binary_dilation(scene.seen) & ~brain)
