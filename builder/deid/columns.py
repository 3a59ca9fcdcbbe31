"""Which columns may cross from the inventory into a dataset's tables: an allow list that fails closed."""

from collections.abc import Collection

from builder.deid import RETAINABLE
from builder.model.classes import PREFIX as LABELS

OLDEST_AGE = 90
"""Ages above 89 are one group (45 CFR 164.514(b)(2)(i)(C))."""

TECHNICAL = frozenset(
    {
        "series_key",
        "study_key",
        "person_key",
        "case_key",
        "image_name",
        "serves",
        "frame_of_reference_key",
        "stack",
        "split_rule",
        "verdict",
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
        "split_published",
    }
)
"""Columns about the image and how it was made. They cross whatever the spec retains."""


def crossing(names: Collection[str], *, retain: Collection[str], clinical: Collection[str] = ()) -> tuple[str, ...]:
    """Return those of ``names`` that may cross, in their order; the others stay in the private workspace.

    Parameters
    ----------
    retain
        The characteristics that the spec lets cross (``deid.retain``).
    clinical
        Names of the columns that the spec's clinical block declares, without the times it does not retain.
    """

    def crosses(name: str) -> bool:
        return name in TECHNICAL or name in clinical or (name in RETAINABLE and name in retain)

    def bare(name: str) -> str:
        """Return the plain column of ``NAME.column``, which holds the same of another image of the case."""
        return name.rpartition(".")[2]

    return tuple(n for n in names if crosses(n) or n.startswith(("present.", LABELS)) or crosses(bare(n)))


def age_band(age_years: float) -> str:
    """Return the ten-year band of an age, such as ``50-59``; ``90+`` from 90 on."""
    if age_years >= OLDEST_AGE:
        return "90+"
    low = int(max(age_years, 0) // 10 * 10)
    return f"{low}-{low + 9}"
