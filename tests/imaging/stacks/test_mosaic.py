"""Tiles of a Siemens mosaic that is not square, where rows and columns cannot be mixed up unnoticed."""

import numpy as np
from pydicom.dataset import Dataset

from builder.deid.csa import _write
from builder.imaging.stacks.mosaic import _mosaic_tiles


def test_the_first_slice_has_the_centre_of_the_mosaic_and_the_others_follow_the_normal() -> None:
    dataset = Dataset()
    dataset.SpacingBetweenSlices = 5
    block = dataset.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    facts = {"NumberOfImagesInMosaic": (b"3",), "SliceNormalVector": (b"0.000000", b"0", b"-1.0")}
    block.add_new(0x10, "OB", _write(facts))
    tiles = _mosaic_tiles(
        dataset, 8, 12, cosines=np.eye(3)[:2], origin=np.array([100.0, 200, 300]), pixel=np.array([2.0, 3])
    )
    assert (tiles.rows, tiles.columns, tiles.across) == (4, 6, 2)
    # 12 columns of 3 mm around the centre of 6, and 8 rows of 2 mm around that of 4
    assert tiles.positions == tuple((109.0, 204.0, 300.0 - 5 * k) for k in range(3))
