"""The keyed UID map: a source UID has the same replacement wherever it occurs."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from pydicom.uid import UID_dictionary

from builder.model.keyed import Key

_UID = re.compile(r"\d+(?:\.\d+)+")
_LONGEST_UID = 64

_REMEMBERED = 200_000
"""Number of replacements kept for reuse. A whole-body study has a few thousand UIDs, and an RTSTRUCT repeats them."""

_REGISTERED_ELSEWHERE = frozenset(
    {
        "2.16.840.1.113883.6.96",  # SNOMED CT
        "2.16.840.1.113883.6.1",  # LOINC
        "2.16.840.1.113883.6.8",  # UCUM
        "2.16.840.1.113883.6.256",  # RadLex
        "2.16.840.1.113883.6.3",  # ICD-10
        "2.16.840.1.113883.3.26.1.1",  # NCI Thesaurus
        "2.16.840.1.119.1",  # University of Washington Anatomist (FMA)
    }
)


_REGISTERED_SINCE = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation Storage
        "1.2.840.10008.1.2.8.1",  # Deflated Image Frame Compression
        "1.2.840.10008.1.2.4.110",  # JPEG XL Lossless
        "1.2.840.10008.1.2.4.111",  # JPEG XL JPEG Recompression
        "1.2.840.10008.1.2.4.112",  # JPEG XL
    }
)
"""Registered in PS3.6 Annex A, and not known to every pydicom in use."""


@dataclass(frozen=True)
class UidMap:
    """Replaces UIDs by ``Key.uid``; registered ones (SOP classes, transfer syntaxes, well-known frames of reference,
    coding schemes, context groups: PS3.6 Annex A) stay as they are.

    Only UIDs that are registered themselves stay. A private UID under the standard's root is replaced like any other.
    """

    key: Key
    seen: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, uid: str) -> str:
        """Return the replacement of ``uid``. Blanks and padding are ignored, and an empty UID stays empty."""
        source = uid.strip(" \0")
        found = self.seen.get(source)
        if found is not None:
            return found
        mapped = source if not source or is_registered(source) else self.key.uid(source)
        if len(self.seen) < _REMEMBERED:
            self.seen[source] = mapped
        return mapped

    def mapping(self, uids: Iterable[str]) -> dict[str, str]:
        """Return the replacement of each given UID."""
        return {uid: self(uid) for uid in uids}


def is_uid(text: str) -> bool:
    """Return whether a text has the shape of a UID (PS3.5 9.1); leading zeros, which some writers use, do not count."""
    return len(text) <= _LONGEST_UID and _UID.fullmatch(text) is not None


def is_registered(uid: str) -> bool:
    """Return whether the standard or a terminology publishes a UID, so that it says nothing about a patient."""
    return uid in UID_dictionary or uid in _REGISTERED_SINCE or uid in _REGISTERED_ELSEWHERE
