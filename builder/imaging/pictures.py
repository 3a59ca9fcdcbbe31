"""Decoding pictures that are not slices: radiographs, localizers, ultrasound, photographs, screen captures, films."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from builder.decode.format import PixelFormat, pixel_format
from builder.errors import CaseError, Reason
from builder.headers.boundary import elements_as
from builder.imaging.pixels.padding import padded
from builder.imaging.pixels.rescale import Rescale, padding_of, read_lut, rescale_of
from builder.imaging.pixels.stored import raw_values, stored_values, stream_notes
from builder.imaging.stacks.options import VolumeOptions
from builder.imaging.stacks.stack import COLOURS, Stack
from builder.model.case import DAMAGED_TABLE, NO_SPACING, DisplayTable, ValueDomain, Volume
from builder.model.geometry import Geometry

NO_PLACE = "no_patient_geometry"
"""Note on every picture: its grid is its own plane in mm and not patient space, so no mask in patient space fits it."""


def assemble_picture(stack: Stack, datasets: Sequence[Dataset], options: VolumeOptions) -> Volume:
    """Decode one picture or film, with frames along the slice axis and colour as three channels.

    The grid lies in the picture's own plane. Its spacing is the one that the file states at the detector (0018,1164),
    else in the object (0028,0030), else 1 mm with a note. The frame of reference is the picture's own SOPInstanceUID,
    so that no annotation in patient space can match it.

    Raises
    ------
    CaseError
        SOURCE_MISSING, UNDECODABLE_PIXELS, UNSUPPORTED_TRANSFER_SYNTAX or INCONSISTENT_PIXELS.
    """
    uid = stack.uids[0][0]
    dataset = next((d for d in datasets if str(d.get("SOPInstanceUID", "")) == uid), None)
    if dataset is None:
        raise CaseError(Reason.SOURCE_MISSING, "the picture's instance is absent")
    form = pixel_format(dataset)
    if form.frames * form.frame_values > options.max_voxels:
        raise CaseError(Reason.TOO_LARGE, f"{form.frames * form.frame_values:,} values, at most {options.max_voxels:,}")
    stored = stored_values(dataset, form)
    affine, notes = _plane(dataset)
    notes = (*notes, *stream_notes(dataset, form))
    geometry = Geometry((form.frames, form.rows, form.columns), affine, uid)
    if stored.ndim == 4:
        channels = np.ascontiguousarray(_eight_bits(stored, form).transpose(3, 0, 1, 2))
        return Volume(channels, geometry, ValueDomain.RGB, COLOURS, notes=(NO_PLACE, *notes))
    return _grey(dataset, form, stored, geometry=geometry, options=options, notes=notes)


def _grey(
    dataset: Dataset,
    form: PixelFormat,
    stored: NDArray[Any],
    *,
    geometry: Geometry,
    options: VolumeOptions,
    notes: tuple[str, ...],
) -> Volume:
    """Make the volume of a grey picture: apply the Modality LUT, and invert MONOCHROME1 when the options say so."""
    rescale = rescale_of(dataset)
    padding = None
    limits = padding_of(dataset, form)
    if limits is not None:
        raw = raw_values(dataset, form) if form.bits_allocated > 1 else stored
        padding = np.array([padded(plane, form, limits) for plane in raw])
        padding = padding if padding.any() else None
    values = _rescaled(stored, rescale)
    window = window_of(dataset)
    display, damaged = display_of(dataset)
    notes = (*notes, *damaged)
    hounsfield = dataset.get("Modality") == "CT" and rescale.stated and rescale.kind in ("", "HU")
    if form.photometric == "MONOCHROME1" and not hounsfield:
        notes = (*notes, "monochrome1" if options.monochrome1 == "keep" else "monochrome1_inverted")
        if options.monochrome1 == "invert":
            values = _inverted(values, form, rescale)
            ends = _ends(form, rescale)
            window = window and (ends - window[1], ends - window[0])
            display = display and replace(display, ends=ends)
    if padding is not None and options.padding == "fill":
        values = np.array(values)
        values[padding] = 0
    domain = ValueDomain.HOUNSFIELD if hounsfield else ValueDomain.ARBITRARY if rescale.stated else ValueDomain.STORED
    voxels = np.ascontiguousarray(values)[None]
    return Volume(voxels, geometry, domain, padding=padding, notes=(NO_PLACE, *notes), window=window, display=display)


def window_of(dataset: Dataset) -> tuple[float, float] | None:
    """Return the lowest and highest value that the first window of an object shows, or None if it states none.

    Source: Window Center and Width, and VOI LUT Function (PS3.3 C.11.2.1.2.1 and C.11.2.1.3.2).
    """
    try:
        centre, width = (
            float(value[0] if isinstance(value, MultiValue) else value)
            for value in (dataset.get("WindowCenter"), dataset.get("WindowWidth"))
        )
    except (TypeError, ValueError, IndexError):
        return None
    exact = dataset.get("VOILUTFunction", "LINEAR") == "LINEAR_EXACT"
    if not np.isfinite([centre, width]).all() or width < (0 if exact else 1):
        return None
    half, middle = (width / 2, centre) if exact else ((width - 1) / 2, centre - 0.5)
    return (middle - half, middle + half) if half > 0 else None


def display_of(dataset: Dataset) -> tuple[DisplayTable | None, tuple[str, ...]]:
    """Return the first table of the VOI LUT Sequence (0028,3010) or None, and a note if it cannot be read.

    A damaged table costs a picture only where a spec asks for tables. Source: PS3.3 C.11.2.1.1; several tables are
    alternatives.
    """
    try:
        with elements_as(Reason.INCONSISTENT_PIXELS):
            sequence = dataset.get("VOILUTSequence")
            if not sequence:
                return None, ()
            entries, first, bits = read_lut(sequence[0], "VOI LUT")
    except CaseError:
        return None, (DAMAGED_TABLE,)
    return DisplayTable(entries.astype(np.float32), first, float(2**bits - 1)), ()


def _ends(form: PixelFormat, rescale: Rescale) -> float:
    """Return the sum of the lowest and the highest value, about whose middle ``_inverted`` mirrors."""
    if rescale.table is not None:
        return float(rescale.table.max()) + float(rescale.table.min())
    return sum(form.limits) * rescale.slope + 2 * rescale.intercept


def _rescaled(stored: NDArray[Any], rescale: Rescale) -> NDArray[Any]:
    """Apply the Modality LUT; return the stored integers when it changes nothing."""
    if rescale.table is not None:
        return rescale.looked_up(stored)
    if rescale.slope == 1.0 and rescale.intercept == 0.0:
        return stored if stored.dtype.itemsize <= 2 else stored.astype(np.float32)
    return np.asarray(stored * np.float32(rescale.slope) + np.float32(rescale.intercept), dtype=np.float32)


def _inverted(values: NDArray[Any], form: PixelFormat, rescale: Rescale) -> NDArray[Any]:
    """Mirror values about the middle of the storable range, so that white is large."""
    if rescale.table is None and values.dtype.kind in "iu":
        return np.asarray(values.dtype.type(sum(form.limits)) - values)
    return np.asarray(np.float32(_ends(form, rescale)) - values, dtype=np.float32)


def _eight_bits(colour: NDArray[Any], form: PixelFormat) -> NDArray[Any]:
    """Reduce colour to 8 bits per channel."""
    if colour.dtype == np.uint8:
        return colour
    return (colour >> max(0, form.bits_stored - 8)).astype(np.uint8)


def _plane(dataset: Dataset) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return the affine of the picture in its own plane, mm, with a note when its spacing is unknown."""
    for keyword in ("ImagerPixelSpacing", "PixelSpacing", "NominalScannedPixelSpacing"):
        try:
            down, across = (float(v) for v in dataset.get(keyword) or ())
        except (TypeError, ValueError):
            continue
        if down > 0 and across > 0 and np.isfinite([down, across]).all():
            return along_axes(down, across), ()
    return along_axes(1.0, 1.0), (NO_SPACING,)


def along_axes(down: float, across: float) -> NDArray[np.float64]:
    """Return an affine with x along a row, y along a column, and z along the frames, which are 1 mm apart."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = 1.0, down, across, 1.0
    return affine
