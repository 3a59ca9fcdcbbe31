"""Headers of NIfTI-1 and NIfTI-2, single files and pairs (nifti.nimh.nih.gov), through nibabel."""

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.files.facts import FileFacts, Layers, Matrix, check_size, grid_of, unreadable
from builder.files.grid import GZIP
from builder.model.geometry import corner_voxels

MAX_OFFSET = 2**24
HEADER_BYTES = 540
ENDS = b"\r\n\x1a\n"
"""What follows the magic of a NIfTI-2, to show whether a transfer as text has changed line ends (nifti2.h)."""

SINGLE, PAIR = (b"n+1\0", b"n+2\0" + ENDS), (b"ni1\0", b"ni2\0" + ENDS)
FORMS_AGREE = 0.1
"""qform and sform agree if no corner differs by more than this fraction of a voxel."""

CODES = frozenset(range(6))
"""Codes of qform and sform (nifti1.h)."""

MILLIMETRES = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}


def is_nifti(content: bytes) -> bool:
    """Return whether the first bytes, unpacked if gzipped, are a NIfTI header."""
    return _magic(_head(content)) in (*SINGLE, *PAIR)


def nifti_facts(content: bytes) -> FileFacts:
    """Return what a NIfTI header says; ``content`` is the file or its beginning. The RAS affine becomes LPS.

    Raises
    ------
    FileFault
        ``unreadable``. A grid that is refused is a ``fault`` of the result instead.
    """
    from nibabel.spatialimages import HeaderDataError

    try:
        with np.errstate(all="ignore"):  # nan and inf from a damaged header are checked below
            return _facts(content)
    except (HeaderDataError, KeyError, ValueError, OverflowError, TypeError) as error:
        raise unreadable("a NIfTI header that cannot be read") from error


def _facts(content: bytes) -> FileFacts:
    import nibabel as nib

    head = _head(content)
    magic = _magic(head)
    kind = nib.Nifti1Header if magic in (SINGLE[0], PAIR[0]) else nib.Nifti2Header
    header = kind(head[: kind.template_dtype.itemsize], check=False)
    if header["pixdim"][0] == 0:
        header["pixdim"][0] = 1  # as the definition says (nifti1.h: "if pixdim[0]=0, we take qfac=1")
    spatial, layers, layer_kind = _layers(header.get_data_shape())
    dtype = header.get_data_dtype()
    colours = dtype.names
    if colours is not None:
        dtype, layers, layer_kind = np.dtype("u1"), layers * len(colours), "colour"
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise unreadable(f"voxels of type {dtype}, expected one real number each")
    check_size((*spatial, layers))
    offset = int(header["vox_offset"])
    paired = magic in PAIR
    if not (0 if paired else kind.template_dtype.itemsize) <= offset <= MAX_OFFSET:
        raise unreadable("a NIfTI whose voxels do not start behind its header")
    slope, intercept = _scale(header)
    affine, fault, notes = _placed(header, spatial)
    return FileFacts(
        shape=(spatial[2], spatial[1], spatial[0]), dtype=dtype.str, layers=layers, layer_kind=layer_kind,
        layers_first=layer_kind == "colour", slope=slope, intercept=intercept, affine=affine, fault=fault,
        offset=offset, whole_gzip=content.startswith(GZIP), companion=".img" if paired else "", notes=notes,
    )  # fmt: skip


def _placed(header: Any, spatial: tuple[int, int, int]) -> tuple[Matrix | None, str, tuple[str, ...]]:
    """Return the LPS affine with notes, or why the grid is refused."""
    from nibabel.spatialimages import HeaderDataError

    try:
        qform, qcode = header.get_qform(coded=True)
        sform, scode = header.get_sform(coded=True)
        if not qcode and not scode:
            return None, "found a NIfTI with neither qform nor sform, expected one with a code", ()
        if not {int(qcode), int(scode)} <= CODES:
            return None, "found a NIfTI with a code of qform or sform that is not defined, expected 0 to 5", ()
        form = np.array(sform if scode else qform, dtype=np.float64)
        if not np.isfinite(form).all():
            return None, "found a NIfTI whose affine is not finite, expected numbers", ()
        if qcode and scode and (worst := _apart(qform, sform, spatial)) > FORMS_AGREE:
            return None, f"found qform and sform {worst:.2f} voxels apart, expected at most {FORMS_AGREE}", ()
    except (HeaderDataError, ValueError, np.linalg.LinAlgError):
        return None, "found a NIfTI whose qform or sform is no map of voxels to places, expected a regular one", ()
    try:
        unit = header.get_xyzt_units()[0]
    except KeyError:
        return None, "found a NIfTI in units that are not known, expected mm, m or microns", ()
    form[:3] *= MILLIMETRES[unit]
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ form
    affine, fault = grid_of(spatial, lps[:3, :3], lps[:3, 3])
    return affine, fault, ("spatial_unit_unstated",) if unit == "unknown" else ()


def _apart(qform: NDArray[Any], sform: NDArray[Any], spatial: tuple[int, int, int]) -> float:
    """Return by how many voxels the corners differ under both forms; infinite where they cannot be compared."""
    corners = np.concatenate([corner_voxels(spatial), np.ones((8, 1))], axis=1)
    worst = float(np.abs(np.linalg.solve(sform, qform @ corners.T).T - corners).max())
    return worst if np.isfinite(worst) else float("inf")


def _scale(header: Any) -> tuple[float, float]:
    """Return slope and intercept. A slope of 0, NaN or infinity means that nothing is scaled, as in nibabel."""
    from nibabel.spatialimages import HeaderDataError

    try:
        slope, intercept = header.get_slope_inter()
    except HeaderDataError as error:
        stated = f"scl_slope {float(header['scl_slope']):g} and scl_inter {float(header['scl_inter']):g}"
        raise unreadable(
            f"{stated}, expected a number for scl_inter, or scl_slope 0 where nothing is scaled"
        ) from error
    return (1.0, 0.0) if slope is None else (float(slope), float(intercept))


def _layers(shape: tuple[int, ...]) -> tuple[tuple[int, int, int], int, Layers]:
    """Return the spatial shape, and the number and kind of layers. At most one further axis may be longer than 1."""
    more = [(axis, n) for axis, n in enumerate(shape[3:]) if n != 1]
    stated = f"a NIfTI of shape {tuple(int(n) for n in shape)}"
    if not 2 <= len(shape) <= 7:
        raise unreadable(f"{stated}, expected two to seven axes")
    if [axis for axis, _ in more] == [0, 1]:
        raise unreadable(f"{stated}, time points (axis 4) of vectors (axis 5), expected one number a voxel")
    if len(more) > 1 or (more and more[0][0] > 1):
        raise unreadable(f"{stated}, expected three axes, or a fourth of volumes or a fifth of vectors")
    full = (*shape[:3], 1)
    kind: Layers = "" if not more else "volumes" if more[0][0] == 0 else "vector"
    return (int(full[0]), int(full[1]), int(full[2])), int(more[0][1]) if more else 1, kind


def _magic(head: bytes) -> bytes:
    """Return the magic of a header, as long as its size agrees with it."""
    if len(head) >= 348 and 348 in _sizes(head):
        return head[344:348] if head[344:348] in (SINGLE[0], PAIR[0]) else b""
    whole = len(head) >= HEADER_BYTES and 540 in _sizes(head)
    return head[4:12] if whole and head[4:12] in (SINGLE[1], PAIR[1]) else b""


def _sizes(head: bytes) -> tuple[int, int]:
    return int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")


def _head(content: bytes) -> bytes:
    if not content.startswith(GZIP):
        return content[:HEADER_BYTES]
    try:
        return zlib.decompressobj(31).decompress(content, HEADER_BYTES)
    except zlib.error:
        return b""
