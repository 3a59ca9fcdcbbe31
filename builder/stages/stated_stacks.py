"""Make the rows of STACKS of series that are planned from what tables state; the build reads their headers."""

import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa

from builder.deid.columns import age_band
from builder.errors import CaseError, Reason
from builder.headers.vendors import normalise
from builder.imaging.stacks.spacing import Verdict
from builder.model.tables import FROM_TABLES, files_in
from builder.stages.stack_rows import (
    Described,
    Grid,
    Holding,
    Origin,
    Shape,
    Usable,
    age_years,
    joined,
    tesla,
    thickness_mm,
)

PLAIN: Final = (
    "1.2.840.10008.5.1.4.1.1.2",  # CT Image
    "1.2.840.10008.5.1.4.1.1.4",  # MR Image
    "1.2.840.10008.5.1.4.1.1.128",  # PET Image
)
"""Classes of which every object is a slice, so that a number of files is a number of slices."""

VOXEL_BYTES: Final = 5
"""Bytes of a voxel that may be of any type, with its padding mask."""

TYPE: Final = "float32"
"""The type that holds whatever may be stored; which one it is, no table tells."""

WITH_HEADERS: Final = "; leave headers out of the idc source, then every header is read before the plan"


def stated_row(instances: pa.Table, *, origin: Origin) -> dict[str, Any]:
    """Return the row of a series of which tables tell, by the columns of STACKS.

    Raises
    ------
    CaseError
        When the series is listed more than once, and nobody can tell which objects are meant before they are read.
    """
    if instances.num_rows != 1:
        raise CaseError(
            Reason.DUPLICATE_CONFLICT,
            "found a series that is planned from tables and listed more than once, expected it once" + WITH_HEADERS,
        )
    (row,) = instances.select(_NEEDED).to_pylist()
    (files,) = files_in(instances)
    usable = _usable(row, files)
    regular = usable.usable_reason is None
    shape = Shape(
        0, "", (Verdict.REGULAR if regular else Verdict.UNKNOWN_GEOMETRY).value,
        "as the tables state; the build judges the headers" if regular else usable.usable_detail or "",
        instances=files, frames=files, bytes=row["size"], slices=files, channels=1,
    )  # fmt: skip
    holding = Holding([0], [files], [row["size"]], None)
    return joined(row, origin, usable, holding, shape, _grid(row, files), _described(row))


def is_stated(instances: pa.Table) -> bool:
    """Return whether any row of INSTANCES stands for a series of which only tables tell."""
    return FROM_TABLES in instances.column("format").to_pylist()


def _usable(row: Mapping[str, Any], files: int) -> Usable:
    spacing, rows, columns = row["pixel_spacing"], row["rows"], row["columns"]
    if row["sop_class_uid"] not in PLAIN:
        what = "found objects that may hold several frames, of which tables do not tell enough, expected CT, MR or PET"
        return Usable(Reason.UNSUPPORTED_OBJECT.value, what + " slices" + WITH_HEADERS)
    if files < 2:
        return Usable(Reason.SINGLE_SLICE.value, "found one file, expected several slices of a volume")
    if json.loads(row["file_facts"] or "true") is False:
        what = "found a series that volume_geometry_index does not call a regularly spaced volume, expected one"
        return Usable(Reason.IRREGULAR_SPACING.value, what + WITH_HEADERS)
    if not (rows and columns and spacing and row["spacing_between_slices"]):
        what = "found no size or spacing of the series in the tables, expected both"
        return Usable(Reason.UNKNOWN_GEOMETRY.value, what + WITH_HEADERS)
    peak = VOXEL_BYTES * files * rows * columns + 2 * 4 * rows * columns
    return Usable(None, None, peak, VOXEL_BYTES, TYPE, False)


def _grid(row: Mapping[str, Any], files: int) -> Grid:
    along = row["spacing_between_slices"]
    pair = row["pixel_spacing"] or (None, None)
    across = row["image_orientation_patient"]
    x = y = z = None
    if across and len(across) == 6:
        x, y, z = (abs(float(v)) for v in np.cross(across[:3], across[3:]))
    return Grid(
        spacing_slice_mm=along,
        spacing_row_mm=pair[0],
        spacing_column_mm=pair[1],
        coverage_mm=None if along is None else files * along,
        normal_x=x,
        normal_y=y,
        normal_z=z,
    )


def _described(row: Mapping[str, Any]) -> Described:
    age = age_years(row["patient_age"], None, row["study_date"])
    sex = (row["patient_sex"] or "").strip().upper()
    return Described(
        frame_of_reference_uid=None,
        slice_thickness_mm=thickness_mm(row["slice_thickness"]),
        header_findings=None,
        vendor=normalise(row["manufacturer"]),
        body_part=row["body_part_examined"],
        sex=sex if sex in ("F", "M", "O") else None,
        age_years=age,
        age_band=None if age is None else age_band(age),
        format="dicom",
        laterality=None,
        magnetic_field_strength=tesla(row["magnetic_field_strength"]),
    )


_NEEDED: Final = (
    "source", "size", "file_facts", "sop_class_uid", "transfer_syntax_uid", "modality", "series_uid", "study_uid",
    "patient_id", "patient_age", "patient_sex", "study_date", "series_date", "study_description", "series_description",
    "series_number", "body_part_examined", "manufacturer", "manufacturer_model", "photometric_interpretation", "rows",
    "columns", "pixel_spacing", "spacing_between_slices", "slice_thickness", "image_orientation_patient", "image_type",
    "kvp", "scan_options", "convolution_kernel", "gantry_tilt", "magnetic_field_strength", "scanning_sequence",
    "sequence_variant", "acquisition_type", "repetition_time", "inversion_time", "echo_train_length", "flip_angle",
    "sequence_name",
)  # fmt: skip

KNOWN: Final = frozenset(
    (
        *("series_key", "study_key", "person_key", "stack", "site", "country", "collection", "source", "modality"),
        *("sop_class_uid", "instances", "frames", "bytes", "slices", "channels", "format", "license", "patient_id"),
    )
)
"""Columns of SERIES and CHOICE that every table of series tells, beside those that are called as in INSTANCES."""

MADE_OF: Final[Mapping[str, str]] = {
    "spacing_slice_mm": "spacing_between_slices", "spacing_row_mm": "pixel_spacing",
    "spacing_column_mm": "pixel_spacing", "coverage_mm": "spacing_between_slices",
    "normal_x": "image_orientation_patient", "normal_y": "image_orientation_patient",
    "normal_z": "image_orientation_patient", "slice_thickness_mm": "slice_thickness", "vendor": "manufacturer",
    "body_part": "body_part_examined", "sex": "patient_sex", "age_years": "patient_age", "age_band": "patient_age",
    "study_day": "study_date", "visit_number": "study_date",
}  # fmt: skip
"""Columns of SERIES and CHOICE by the column of INSTANCES that they are made of."""
