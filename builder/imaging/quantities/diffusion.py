"""Reading the b-value of a classic MR image, where vendors stored it before the standard had an attribute for it."""

from builder.imaging.rows import Row

PRIVATE = (("siemens", "siemens_b_value"), ("ge", "ge_b_value"), ("philips", "philips_b_value"), ("uih", "uih_b_value"))
"""Prefix of the manufacturer's name, and the column of its private attribute: Siemens (0019,100C), GE (0043,1039),
Philips (2001,1003), United Imaging (0065,1009)."""

GE_OFFSET = 100_000
"""GE adds a multiple of a large round number to the b-value; the remainder by this number is the b-value."""


def b_value_of(row: Row) -> float | None:
    """Return the b-value (0018,9087) of an INSTANCES row, else the one in its vendor's private element; s/mm2.

    A private element counts only in files of its own vendor, because others use the same tag for other values.
    """
    stated = row.b_value
    if stated is not None or row.modality != "MR":
        return stated
    maker = (row.manufacturer or "").strip().lower()
    for prefix, column in PRIVATE:
        found = getattr(row, column) if maker.startswith(prefix) else None
        value = found[0] if isinstance(found, list) and found else found
        if isinstance(value, float) and value >= 0:
            return value % GE_OFFSET if prefix == "ge" else value
    return None
