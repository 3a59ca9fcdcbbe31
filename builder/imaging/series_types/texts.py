"""Bringing descriptions to one form, so that a word is found however a site writes it."""

from collections.abc import Iterable
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

TEXTS: Final = {
    "series": "series_description",
    "protocol": "protocol_name",
    "study": "study_description",
    "body": "body_part",
    "image": "image",
}
"""The texts that rules may ask, and the column each is made of."""

_STEPS: Final = (
    (r"\p{M}+", ""),  # accents, which the decomposition before sets apart
    ("ß", "ss"),
    (r"_", " "),
    (r"\bw\s*(?:/|&|and|\+|-)?\s*w\s*/?\s*o\b|\bw\s*/?\s*o\s*(?:/|&|and|\+)?\s*w\b", " bothcontrasts "),
    (r"\bt2\s*\*", " t2star "),
    (r"\bt2\s*star", " t2star"),
    (r"\+\s*c\b|\bc\s*\+", " plusc "),
    (r"\bw/\s*o\b", " without "),
    (r"\bw/", " with "),
    (r"[^\p{L}\p{N}]+", " "),
)


def normalised(texts: pa.Array) -> pa.Array:
    """Return each text in lower case, without accents, with one space between its words; "" where it is missing."""
    found = pc.utf8_normalize(pc.utf8_lower(pc.fill_null(texts, "")), "NFKD")
    for pattern, replacement in _STEPS:
        found = pc.replace_substring_regex(found, pattern, replacement)
    return pc.utf8_trim_whitespace(found)


def pattern_of(words: Iterable[str]) -> str:
    """Return the RE2 pattern that finds any of some patterns as whole words of a normalised text."""
    return f"(?:^| )(?:{'|'.join(words)})(?: |$)"
