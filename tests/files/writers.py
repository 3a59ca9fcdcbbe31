"""Image files of every format that is read, written by nibabel, SimpleITK and Pillow with a known grid."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK
from numpy.typing import NDArray

OBLIQUE = np.array([[0.9, -0.1, 0.2, -30.0], [0.15, 1.1, -0.1, 12.0], [-0.3, 0.1, 2.4, 44.0], [0, 0, 0, 1.0]])
"""A sheared, rotated RAS affine, voxel (i, j, k) to mm."""

STRAIGHT = np.array([[0.0, -0.8, 0.0, 30.0], [0.0, 0.0, 2.5, -12.0], [-1.2, 0.0, 0.0, 44.0], [0, 0, 0, 1.0]])
"""A right-angled RAS affine whose axes are permuted and left-handed."""


def values(shape: tuple[int, ...] = (5, 4, 3), dtype: str = "int16", seed: int = 0) -> NDArray[Any]:
    """Voxels (i, j, k) that are all different, so that no swap of axes goes unseen."""
    count = int(np.prod(shape))
    return np.random.default_rng(seed).permutation(count).reshape(shape).astype(dtype)


def nifti(
    path: Path, voxels: NDArray[Any], affine: NDArray[Any] = STRAIGHT, *, kind: Any = nibabel.Nifti1Image, **header: Any
) -> Path:
    """Write a NIfTI; ``header`` sets fields after everything else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = kind(voxels, affine)
    image.set_qform(affine if np.linalg.det(affine) and affine is not OBLIQUE else None, code=1)
    if affine is OBLIQUE:
        image.set_qform(None, code=0)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm")
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


def written_by_itk(path: Path, voxels: NDArray[Any], *, packed: bool = False) -> Path:
    """Write (k, j, i) voxels on an oblique right-angled grid with SimpleITK, in the format that the suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(voxels)
    image.SetSpacing((0.7, 1.3, 2.1))
    image.SetOrigin((-11.0, 22.5, 3.25))
    turn = np.deg2rad(20)
    image.SetDirection((np.cos(turn), -np.sin(turn), 0, np.sin(turn), np.cos(turn), 0, 0, 0, 1))
    SimpleITK.WriteImage(image, str(path), useCompression=packed)
    return path


def lps_of(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Read voxels (slice, row, column) and the affine to LPS mm with nibabel for NIfTI, else with SimpleITK."""
    if path.name.endswith((".nii", ".nii.gz", ".hdr")):
        image: Any = nibabel.load(path)
        ras = np.asarray(image.affine)
        lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ ras
        return np.asarray(image.dataobj).T, lps[:, [2, 1, 0, 3]]
    found = SimpleITK.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.array(found.GetDirection()).reshape(3, 3) * np.array(found.GetSpacing())
    affine[:3, 3] = found.GetOrigin()
    return SimpleITK.GetArrayFromImage(found), affine[:, [2, 1, 0, 3]]
