"""Images that are files of their own (NIfTI, NRRD, MetaImage, PNG, JPEG, TIFF): one file is one stack."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from builder.errors import CaseError, Reason
from builder.files import FileFacts, FileFault, facts_from_json, read_voxels
from builder.imaging.pictures import NO_PLACE, along_axes
from builder.imaging.stacks.kinds import PROJECTED_MODALITIES
from builder.imaging.stacks.options import REASONS, VolumeOptions, action_on, check_limits
from builder.imaging.stacks.spacing import Verdict
from builder.imaging.stacks.stack import AIR, COLOURS, Stack
from builder.model.case import NO_SPACING, ValueDomain, Volume
from builder.model.geometry import Geometry

EXACT_FLOAT32 = 2**24
"""Whole numbers up to this are exact in a float32."""

_KEPT = ("uint8", "int16", "uint16", "float32")


@dataclass(frozen=True)
class FiledRow:
    """The columns of INSTANCES that say what an image file holds."""

    sop_instance_uid: str
    series_uid: str
    modality: str | None
    units: str | None
    pixel_spacing: Sequence[float] | None
    file_facts: str | None
    layout: str | None

    @property
    def stated(self) -> dict[str, Any]:
        """What the source's layout states about the image."""
        return dict(json.loads(self.layout or "{}"))


def is_filed(form: str | None) -> bool:
    """Return whether a ``format`` of INSTANCES is that of an image file, or its voxels, that is not DICOM."""
    return form not in (None, "dicom", "dicomdir")


def filed_rows(instances: pa.Table) -> list[FiledRow]:
    """Return the rows of INSTANCES of one image file."""
    return [FiledRow(**row) for row in instances.select([field.name for field in fields(FiledRow)]).to_pylist()]


def filed_stack(rows: Sequence[FiledRow]) -> Stack:
    """Make the stack of one image file from its row, and that of the file with its voxels where that is another one."""
    heads = [row for row in rows if row.file_facts is not None]
    uids = tuple(row.sop_instance_uid for row in rows)
    blank = Stack(
        series_uid=rows[0].series_uid, number=0, split_rule="", verdict=Verdict.UNKNOWN_GEOMETRY, detail="",
        uids=(uids,), modality=rows[0].modality or "",
    )  # fmt: skip
    if len(heads) != 1:
        found = f"found {len(heads)} headers of one image"
        return replace(blank, detail=f"{found}, expected 1: state the site or the collection of every source")
    facts = facts_from_json(heads[0].file_facts or "")
    if bool(facts.companion) != (len(rows) == 2):
        return replace(blank, detail="found a header without the file that holds its voxels, expected both")
    return _judged(blank, facts, heads[0])


def filed_parts(stack: Stack, options: VolumeOptions) -> list[tuple[Stack, int | None]]:
    """Return the stacks to assemble in place of one: itself, or its time points with their numbers."""
    if stack.verdict != Verdict.TIME_SERIES or action_on(stack, options) != "split":
        return [(stack, None)]
    return [
        (
            replace(stack, number=n, split_rule="time", verdict=stack.grid, channels=("image",), frames=stack.shape[0],
                    detail=f"{name} of {len(stack.channels)}: {stack.detail}"),
            n,
        )
        for n, name in enumerate(stack.channels)
    ]  # fmt: skip


def assemble_filed(
    stack: Stack,
    contents: Sequence[bytes],
    row: FiledRow,
    options: VolumeOptions,
    *,
    part: int | None = None,
    number_type: str = "",
) -> Volume:
    """Read the voxels of one image file.

    Parameters
    ----------
    stack
        From ``filed_stack`` or ``filed_parts``, with mapped UIDs.
    contents
        The file, or its header and the file with its voxels.
    row
        The row of the file with the header.
    part
        The time point, if it is one of several.
    number_type
        Type of the voxels that the plan chose for all images of a dataset; "" for the image's own type.

    Raises
    ------
    CaseError
        The verdict's reason when the options exclude it; UNDECODABLE_PIXELS, INCONSISTENT_PIXELS or UNKNOWN_UNITS.
    """
    if action_on(stack, options) == "exclude":
        raise CaseError(REASONS[stack.verdict], f"{stack.verdict}: {stack.detail}")
    check_limits(stack, options)
    try:
        facts, stored = read_voxels(contents)
    except FileFault as fault:
        raise CaseError(Reason.UNDECODABLE_PIXELS, fault.detail) from fault
    if facts != facts_from_json(row.file_facts or ""):
        raise CaseError(Reason.SOURCE_CHANGED, "the file's header is not the one that was planned; plan again")
    if part is not None:
        stored = stored[part : part + 1]
    geometry = stack.geometry
    if geometry is None:
        raise CaseError(Reason.UNKNOWN_GEOMETRY, f"{stack.verdict}: {stack.detail}")
    domain = domain_of(row, facts, options)
    voxels = _typed(stored, facts, number_type or stack.number_type)
    voxels, padding, notes = _without_nan(voxels, domain, options)
    if number_type and voxels.dtype != number_type:
        raise CaseError(Reason.INCONSISTENT_PIXELS, f"found {voxels.dtype}, expected {number_type}")
    return Volume(voxels, geometry, domain, stack.channels, padding, tuple(sorted({*stack.notes, *notes})))


def domain_of(row: FiledRow, facts: FileFacts, options: VolumeOptions) -> ValueDomain:
    """Return what the numbers mean, by the spec or a sidecar: nothing is taken to be HU or SUV because it looks so."""
    if facts.layer_kind == "colour":
        return ValueDomain.RGB
    stated = row.stated.get("values", "")
    if stated:
        domain = ValueDomain(stated)
    elif row.modality == "PT" and row.units == "BQML":
        domain = ValueDomain.ACTIVITY
    else:
        domain = ValueDomain.ARBITRARY if facts.scaled or row.modality in ("MR", "PT") else ValueDomain.STORED
    if row.modality == "PT" and options.pet == "require_suv" and domain != ValueDomain.SUV_BW:
        raise CaseError(Reason.UNKNOWN_UNITS, f"found {domain}, expected SUVbw; state values in the source's layout")
    return domain


def _judged(blank: Stack, facts: FileFacts, row: FiledRow) -> Stack:
    """Give the stack of a file its verdict and what its header says."""
    number_type = _projected(facts)
    stack = replace(
        blank, shape=facts.shape, frames=facts.shape[0] * facts.layers, notes=facts.notes, number_type=number_type,
        bits_allocated=8 * np.dtype(facts.dtype).itemsize,
        voxel_bytes=np.dtype(number_type).itemsize + int(np.dtype(facts.dtype).kind == "f"),
    )  # fmt: skip
    if facts.affine is None and not facts.fault:
        return _picture(stack, facts, row)
    frames = tuple(0 for _ in stack.uids[0])  # they are no slices: no annotation can name one
    stack = replace(stack, frame_numbers=(frames,), affine=facts.affine)
    if facts.fault:
        return replace(stack, detail=facts.fault.removeprefix("found "))
    if facts.layer_kind in ("vector", "colour"):
        detail = f"{facts.layers} values a voxel ({facts.layer_kind}), expected one number each"
        return replace(stack, verdict=Verdict.NOT_AN_IMAGE, detail=detail)
    grid = Geometry(facts.shape, np.array(facts.affine))
    slices, spacing = facts.shape[0], "x".join(f"{v:.4g}" for v in grid.spacing_mm)
    own = Verdict.SINGLE_SLICE if slices == 1 else Verdict.REGULAR if grid.is_orthogonal else Verdict.SHEARED
    detail = f"{slices} {'slice' if slices == 1 else 'slices'}, {spacing} mm"
    stack = replace(stack, verdict=own, grid=own, detail=detail)
    if facts.layers == 1:
        return stack
    names = tuple(row.stated.get("channels", ()))
    if len(names) == facts.layers:
        return replace(stack, verdict=Verdict.CHANNELS, channels=names)
    times = tuple(f"t{n}" for n in range(facts.layers))
    return replace(stack, verdict=Verdict.TIME_SERIES, channels=times, detail=f"{facts.layers} volumes: {detail}")


def _picture(stack: Stack, facts: FileFacts, row: FiledRow) -> Stack:
    """Give a picture its own plane, as ``imaging.pictures`` does for DICOM."""
    spacing = row.pixel_spacing
    down, across = spacing if spacing else (1.0, 1.0)
    matrix = tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in along_axes(down, across))
    verdict = Verdict.PROJECTION if row.modality in PROJECTED_MODALITIES else Verdict.STILL
    notes = (*facts.notes, NO_PLACE, *(() if spacing else (NO_SPACING,)))
    channels = COLOURS if facts.layer_kind == "colour" else ("image",)
    return replace(
        stack, verdict=verdict, grid=verdict, detail="1 picture", affine=matrix, channels=channels, notes=notes,
        frame_of_reference=stack.uids[0][0], frames=1,
    )  # fmt: skip


def _projected(facts: FileFacts) -> str:
    """Return the type that the voxels will have: the stored type if volumes have it, else float32."""
    dtype = np.dtype(facts.dtype)
    if facts.scaled:
        return "float32"
    name = dtype.newbyteorder("=").name
    return {"int8": "int16", "bool": "uint8"}.get(name, name if name in _KEPT else "float32")


def _typed(stored: NDArray[Any], facts: FileFacts, name: str) -> NDArray[Any]:
    """Return the meant values in a type that volumes have, a slice at a time. Raises CaseError if one changes."""
    dtype = np.dtype(name)
    if stored.dtype.kind in "iu" and stored.dtype.itemsize > 2 and stored.size and not facts.scaled:
        reach = max(abs(int(stored.min())), abs(int(stored.max())))
        if reach > EXACT_FLOAT32:
            raise CaseError(Reason.INCONSISTENT_PIXELS, f"found whole numbers up to {reach}, expected at most 2**24")
    voxels = np.empty(stored.shape, dtype)
    with np.errstate(all="ignore"):
        for layer, level in np.ndindex(*stored.shape[:2]):
            plane = stored[layer, level]
            if facts.scaled:
                plane = plane.astype(np.float64) * facts.slope + facts.intercept
            voxels[layer, level] = plane
    return voxels


def _without_nan(
    voxels: NDArray[Any], domain: ValueDomain, options: VolumeOptions
) -> tuple[NDArray[Any], NDArray[np.bool_] | None, tuple[str, ...]]:
    """Take NaN for "no data" as padding is in DICOM: marked, and filled if the options say so. Refuse infinities."""
    if voxels.dtype.kind != "f":
        return voxels, None, ()
    if np.isinf(voxels).any():
        raise CaseError(Reason.INCONSISTENT_PIXELS, "found infinite values, or values beyond float32, expected numbers")
    missing = np.isnan(voxels)
    if not missing.any():
        return voxels, None, ()
    share = float(missing.mean())
    if options.padding == "fill":
        voxels[missing] = AIR if domain == ValueDomain.HOUNSFIELD else 0
    return voxels, np.asarray(missing.any(axis=0)), (f"nan_share={share:.3g}",)
