"""The b-value of an image that is no enhanced object: where makers put it before the standard had a place for it."""

from collections.abc import Mapping
from typing import Any

PRIVATE = (("siemens", "siemens_b_value"), ("ge", "ge_b_value"), ("philips", "philips_b_value"), ("uih", "uih_b_value"))
"""What the normalised manufacturer starts with, and the column of its private attribute: Siemens (0019,100C),
GE (0043,1039), Philips (2001,1003), United Imaging (0065,1009)."""

GE_OFFSET = 100_000
"""GE adds large round numbers to the b-value, which is what is left of them."""


def b_value_of(row: Mapping[str, Any]) -> float | None:
    """Diffusion b-value (0018,9087) of an INSTANCES row, else what its maker states privately; s/mm2.

    A private element counts only in the files of its own maker: others use the same number for something else.
    """
    stated: float | None = row["b_value"]
    if stated is not None or row["modality"] != "MR":
        return stated
    maker = (row["manufacturer"] or "").strip().lower()
    for prefix, column in PRIVATE:
        found = row[column] if maker.startswith(prefix) else None
        value = found[0] if isinstance(found, list) and found else found
        if isinstance(value, float) and value >= 0:
            return value % GE_OFFSET if prefix == "ge" else value
    return None
