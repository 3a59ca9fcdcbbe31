"""Decoder for NIfTI-1 and NIfTI-2 (nifti.nimh.nih.gov), through nibabel."""

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.errors import CaseError, Reason
from builder.labels.files.grid import LabelGrid, check_size, geometry_of, inflate, unreadable
from builder.model.geometry import corner_voxels

MAX_OFFSET = 2**24
GZIP = b"\x1f\x8b"
FORMS_AGREE = 0.1
"""qform and sform agree if no corner differs by more than this fraction of a voxel."""

MILLIMETRES = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}


def is_nifti(content: bytes) -> bool:
    """Return whether the first bytes, unpacked if gzipped, are the header of a single-file NIfTI."""
    head = _head(content)
    return len(head) >= 348 and (head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0")


def read_nifti(content: bytes) -> LabelGrid:
    """Read a single-file NIfTI with one layer per volume of the fourth axis, and convert its RAS affine to LPS.

    Raises
    ------
    CaseError
        LABEL_GEOMETRY if neither form has a code, or if qform and sform disagree.
    """
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        with np.errstate(all="ignore"):  # nan and inf from a damaged header are checked below
            return _read(content)
    except (HeaderDataError, ImageFileError, KeyError, ValueError, OverflowError, np.linalg.LinAlgError) as error:
        raise unreadable("a NIfTI header that cannot be read") from error


def _read(content: bytes) -> LabelGrid:
    import nibabel as nib

    head = _head(content)
    kind = nib.Nifti1Image if head[344:348] == b"n+1\0" else nib.Nifti2Image
    header = kind.header_class(head[: kind.header_class.template_dtype.itemsize], check=False)
    spatial, layers = _layers(header.get_data_shape())
    check_size((*spatial, layers))
    voxels_bytes = header.get_data_dtype().itemsize * layers * int(np.prod(spatial))
    offset = int(header["vox_offset"])
    if not 348 <= offset <= MAX_OFFSET:
        raise unreadable("a NIfTI whose voxels do not start behind its header")
    expected = offset + voxels_bytes
    data = inflate(content, expected, wbits=31) if content.startswith(GZIP) else content
    if len(data) < expected:
        raise unreadable(f"{len(data)} bytes of NIfTI, expected {expected}")
    image = kind.from_bytes(data)
    matrix = _affine(image, spatial)
    if not np.isfinite(matrix).all():
        raise CaseError(Reason.LABEL_GEOMETRY, "found a NIfTI whose affine is not finite")
    voxels: NDArray[Any] = np.asanyarray(image.dataobj).reshape((*spatial, layers), order="F")
    return LabelGrid(voxels.transpose(3, 2, 1, 0), geometry_of(spatial, matrix[:3, :3], matrix[:3, 3]))


def _affine(image: Any, spatial: tuple[int, int, int]) -> NDArray[np.float64]:
    """Return (4, 4), which maps voxels (i, j, k) to LPS mm."""
    qform, qcode = image.get_qform(coded=True)
    sform, scode = image.get_sform(coded=True)
    if not qcode and not scode:
        raise CaseError(Reason.LABEL_GEOMETRY, "found a NIfTI with neither qform nor sform, expected one with a code")
    if qcode and scode:
        corners = np.concatenate([corner_voxels(spatial), np.ones((8, 1))], axis=1)
        drift = np.linalg.solve(sform, qform @ corners.T).T - corners
        worst = float(np.abs(drift).max())
        if worst > FORMS_AGREE:
            raise CaseError(
                Reason.LABEL_GEOMETRY,
                f"found qform and sform {worst:.2f} voxels apart, expected at most {FORMS_AGREE}",
            )
    affine = np.array(sform if scode else qform, dtype=np.float64)
    unit = MILLIMETRES.get(image.header.get_xyzt_units()[0], 1.0)
    affine[:3] *= unit
    return np.asarray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)


def _layers(shape: tuple[int, ...]) -> tuple[tuple[int, int, int], int]:
    """Return the spatial shape and the number of layers. Axes beyond the fourth must have length 1."""
    if not 2 <= len(shape) <= 7 or any(n != 1 for n in shape[5:]):
        raise unreadable(f"a NIfTI of shape {tuple(shape)}, expected three axes, or four with a layer each")
    full = (*shape, 1, 1, 1)
    if len(shape) >= 5 and shape[3] != 1 and shape[4] != 1:
        raise unreadable(f"a NIfTI of shape {tuple(shape)}, expected three axes, or four with a layer each")
    return (int(full[0]), int(full[1]), int(full[2])), int(full[3] * (shape[4] if len(shape) >= 5 else 1))


def _head(content: bytes) -> bytes:
    if not content.startswith(GZIP):
        return content[:540]
    try:
        return zlib.decompressobj(31).decompress(content, 540)
    except zlib.error:
        return b""
