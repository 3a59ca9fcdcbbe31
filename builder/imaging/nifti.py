"""Converting a volume to a NIfTI image, for viewing and for comparison with other tools."""

from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from builder.model.case import ValueDomain, Volume

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def to_nifti(volume: Volume) -> nibabel.Nifti1Image:
    """Convert a volume to NIfTI with axes (column, row, slice[, channel]) in RAS mm, and colour as RGB24."""
    affine = LPS_TO_RAS @ volume.geometry.affine[:, [2, 1, 0, 3]]
    voxels: NDArray[Any] = volume.voxels.transpose(3, 2, 1, 0)
    if volume.domain == ValueDomain.RGB:
        voxels = np.ascontiguousarray(voxels).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    elif len(volume.channels) == 1:
        voxels = voxels[..., 0]
    image = nibabel.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    return image
