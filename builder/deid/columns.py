"""Which facts may cross from the inventory into a dataset's tables: an allow list that fails closed."""

import re
from collections.abc import Collection, Mapping

from builder.deid import RETAINABLE
from builder.errors import PrivacyError
from builder.model.case import Scalar

OLDEST_AGE = 90
"""Ages above 89 are one group (45 CFR 164.514(b)(2)(i)(C))."""

TECHNICAL = frozenset(
    {
        "series_key",
        "study_key",
        "person_key",
        "case_key",
        "frame_of_reference_key",
        "stack",
        "split_rule",
        "verdict",
        "source",
        "modality",
        "sop_class_uid",
        "instances",
        "frames",
        "bytes",
        "slices",
        "rows",
        "columns",
        "channels",
        "spacing_slice_mm",
        "spacing_row_mm",
        "spacing_column_mm",
        "slice_thickness_mm",
        "orientation",
        "header_findings",
        "manufacturer",
        "manufacturer_model",
        "vendor",
        "body_part",
        "convolution_kernel",
        "kvp",
        "magnetic_field_strength",
        "transfer_syntax_uid",
        "image_type",
        "units",
        "annotations",
        "license",
        "label_status",
        "repetition_time",
        "echo_time",
        "inversion_time",
        "flip_angle",
        "b_value",
        "decay_correction",
        "photometric_interpretation",
        "bits_stored",
        "lossy_image_compression",
        "patient_position",
    }
)
"""Columns about the image and its making; they cross whatever the spec retains."""

_LOOKS_LIKE_IDENTIFIER = re.compile(
    r"\^|@|\d{7,}|\b(?:19|20)\d{2}[-/.]?(?:0[1-9]|1[0-2])[-/.]?(?:0[1-9]|[12]\d|3[01])\b"
    r"|\b\d{1,2}[/.]\d{1,2}[/.]\d{2,4}\b|\b\d+(?:\.\d+){4,}"
)
_LONGEST_TEXT = 200
_FREE_OF_CHECK = frozenset({"sop_class_uid", "transfer_syntax_uid", "split_rule"})


def allowed_row(
    row: Mapping[str, Scalar], *, retain: Collection[str], clinical: Collection[str] = ()
) -> dict[str, Scalar]:
    """The part of a row that may cross into the dataset.

    A characteristic that is known but not retained is left out. ``age_years`` of 90 or more becomes 90
    and sets ``age_over_89``; ``age_band`` is made from it when retained.

    Parameters
    ----------
    row
        Column name to value.
    retain
        The characteristics the spec lets cross (``deid.retain``).
    clinical
        Names of the columns the spec's clinical block declares; they cross if their values do not look like
        identifiers.

    Raises
    ------
    PrivacyError
        For a column that is on no list, and for a text of the shape of a date, a UID, an address or a long number.
    """
    allowed: dict[str, Scalar] = {}
    for name, value in row.items():
        if name in TECHNICAL or name in clinical or name in retain:
            allowed[name] = _checked(name, value)
        elif name not in RETAINABLE:
            raise PrivacyError(
                f"column {name!r} is on no allow list, expected a technical column, one of deid.retain, or a declared "
                "clinical column"
            )
    return _with_capped_age(allowed, row, retain)


def crossing(names: Collection[str], *, retain: Collection[str], clinical: Collection[str] = ()) -> tuple[str, ...]:
    """The columns out of ``names`` that may cross, in their order; the others stay in the private workspace."""
    return tuple(n for n in names if n in TECHNICAL or n in clinical or (n in RETAINABLE and n in retain))


def age_band(age_years: float) -> str:
    """The ten-year band of an age, ``50-59``; ``90+`` from 90 on."""
    if age_years >= OLDEST_AGE:
        return "90+"
    low = int(max(age_years, 0) // 10 * 10)
    return f"{low}-{low + 9}"


def _with_capped_age(
    allowed: dict[str, Scalar], row: Mapping[str, Scalar], retain: Collection[str]
) -> dict[str, Scalar]:
    age = row.get("age_years")
    if isinstance(age, (int, float)) and not isinstance(age, bool):
        if "age_years" in allowed:
            allowed["age_years"] = min(age, OLDEST_AGE)
            allowed["age_over_89"] = age >= OLDEST_AGE
        if "age_band" in retain:
            allowed["age_band"] = age_band(age)
    return allowed


def _checked(name: str, value: Scalar) -> Scalar:
    """The value, unless it is a text that looks like an identifier."""
    if isinstance(value, str) and name not in _FREE_OF_CHECK and not name.endswith("_key"):
        if len(value) > _LONGEST_TEXT:
            raise PrivacyError(f"column {name!r}: found {len(value)} characters, expected {_LONGEST_TEXT} at most")
        if _LOOKS_LIKE_IDENTIFIER.search(value):
            raise PrivacyError(
                f"column {name!r}: found a value of the shape of a date, a person's number or an address (not shown), "
                "expected a category or a short text; recode the column or leave it out of the clinical block"
            )
    return value
