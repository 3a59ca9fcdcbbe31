"""Whether what a way of building stored is what builder stores: used by build.py.

    python alike.py NAME OUT REFERENCE.npy

The script's volumes must have the same shape and, but for rounding, the same voxels. The other libraries put their
grids elsewhere by parts of a voxel: their volumes must be alike in extent and mean. nnU-Net stores normalised values:
its extent is compared.
"""

import sys
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Voxels: TypeAlias = NDArray[Any]
LEAST_SHARE = 0.999
MOST_VOXELS = 3
MOST_MEAN_HU = 20.0


def main() -> None:
    """Print what was found; exit 1 with the reason where it is not alike. The first volume becomes the reference."""
    name, out, reference = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    found = load(name, out)
    if not reference.exists():
        np.save(reference, found)
    ours = np.load(reference)
    same = name in ("builder", "expert npy", "expert zarr")
    print(check_same(found, ours) if same else check_alike(found, ours, normalised=name == "nnU-Net"))


def check_same(found: Voxels, ours: Voxels) -> str:
    """The share of voxels within 1 HU; nearly all must be."""
    if found.shape != ours.shape:
        sys.exit(f"found a volume of {found.shape}, expected {ours.shape}")
    gap = np.abs(found.astype(np.int32) - ours)
    share = float((gap <= 1).mean())
    if share < LEAST_SHARE:
        sys.exit(f"found {share:.4%} of voxels within 1 HU, expected {LEAST_SHARE:.2%}")
    return f"{share:.4%} of voxels within 1 HU, at most {gap.max()} apart"


def check_alike(found: Voxels, ours: Voxels, *, normalised: bool) -> str:
    """The shape, in any order of axes, and the mean."""
    if any(abs(a - b) > MOST_VOXELS for a, b in zip(sorted(found.shape), sorted(ours.shape), strict=True)):
        sys.exit(f"found a volume of {found.shape}, expected about {ours.shape}")
    if normalised:
        return f"{found.shape}, normalised"
    gap = float(found.mean() - ours.mean())
    if abs(gap) > MOST_MEAN_HU:
        sys.exit(f"found a mean {gap:.1f} HU from builder's, expected at most {MOST_MEAN_HU}")
    return f"{found.shape}, mean {gap:+.1f} HU"


def load(name: str, out: Path) -> Voxels:
    """The first volume that a way stored; each library is loaded where it is needed."""
    if name == "builder":
        from builder.reader import open_dataset

        return np.asarray(open_dataset(out)[0]["image"][0])
    if name == "expert zarr":
        import zarr

        return np.asarray(zarr.open_array(str(min(out.glob("*.zarr"))), mode="r")[:])
    if name == "med-imagetools":
        import SimpleITK as sitk  # noqa: N813

        return np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(str(min(out.rglob("CT.nii.gz"))))))
    if name == "nnU-Net":
        import blosc2

        return np.asarray(blosc2.open(str(min(p for p in out.glob("*.b2nd") if not p.stem.endswith("_seg"))))[0])
    return np.asarray(np.load(min(out.glob("*.npy"))))


if __name__ == "__main__":
    main()
