"""Normalising Manufacturer (0008,0070) to one name per vendor, with a table of the values found in practice.

The raw value is always kept beside the normalised one. Normalise acquired images only: objects derived by software
(SEG, SR, RTSTRUCT, secondary captures) have the name of the software in this attribute.
"""

import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

VENDORS: tuple[tuple[str, str], ...] = (
    ("Siemens", r"SIEMENS|ACUSON|CPS\b|CTI\b"),  # CTI and CPS Innovations: PET, bought by Siemens in 2005
    ("GE", r"GE\b|GEMS\b|GENERAL ELECTRIC|LUNAR\b|IMATRON"),  # Imatron: electron beam CT, bought by GE in 2001
    ("Philips", r"PHILIPS|ADAC\b|PICKER|MARCONI|PNMS\b"),  # Picker became Marconi, bought by Philips in 2001
    ("Canon", r"CANON|TOSHIBA"),  # Toshiba Medical Systems became Canon Medical Systems in 2018
    ("Fujifilm", r"FUJI(FILM)?\b|HITACHI|SONOSITE"),  # Fujifilm bought Hitachi's imaging business in 2021
    ("United Imaging", r"UIH\b|UNITED IMAGING|SHANGHAI UNITED"),
    ("Hologic", r"HOLOGIC|LORAD"),
    ("Carestream", r"CARESTREAM|KODAK|EASTMAN KODAK"),
    ("Agfa", r"AGFA"),
    ("Konica Minolta", r"KONICA"),
    ("Samsung", r"SAMSUNG|MEDISON|NEUROLOGICA"),
    ("Mindray", r"MINDRAY|SHENZHEN MINDRAY"),
    ("Neusoft", r"NEUSOFT|NMS\b"),
    ("Shimadzu", r"SHIMADZU"),
    ("Esaote", r"ESAOTE"),
    ("Bruker", r"BRUKER"),
    ("Varian", r"VARIAN"),
    ("Elekta", r"ELEKTA"),
    ("Accuray", r"ACCURAY|TOMOTHERAPY"),
    ("Mediso", r"MEDISO\b"),
    ("Planmed", r"PLANMED|PLANMECA"),
    ("IMS Giotto", r"IMS\b|GIOTTO"),
    ("Sectra", r"SECTRA"),
    ("EOS imaging", r"EOS IMAGING"),
    ("Hamamatsu", r"HAMAMATSU"),
    ("Leica", r"LEICA|APERIO"),
    ("3DHistech", r"3DHISTECH|MIRAX"),
    ("Zeiss", r"(CARL )?ZEISS"),
    ("Ventana", r"VENTANA|ROCHE\b|BIOIMAGENE"),
)
"""Each vendor with a pattern for the start of its name; the first match wins.

Names are compared in capitals, with spaces for punctuation.
"""

NO_NAMES = frozenset({"", "NA", "N A", "NONE", "NULL", "UNKNOWN", "UNKNOWN MANUFACTURER", "ANONYMIZED", "ANONYMOUS"})
"""Placeholder values that name no manufacturer."""

_TABLE = tuple((vendor, re.compile(pattern)) for vendor, pattern in VENDORS)
_NAMES = frozenset(vendor for vendor, _ in VENDORS)
_FORWARDED_BY = re.compile(r"\s*/\s*MIM( ?SOFTWARE|VISTA).*$", re.IGNORECASE)


@lru_cache(maxsize=4096)
def normalise(manufacturer: str | None) -> str | None:
    """Return the one name of the vendor, or None for a placeholder.

    A name that is not in the table is returned as it is, with its spaces tidied.
    """
    tidy = " ".join((manufacturer or "").split())
    capitals = _capitals(tidy)
    if capitals in NO_NAMES or not capitals.strip("0 "):
        return None
    return _known(capitals) or tidy


def is_vendor(name: str) -> bool:
    """Return whether ``name`` is one of the normalised names in the table."""
    return name in _NAMES


def unmapped(manufacturers: Iterable[str | None]) -> dict[str, int]:
    """Return the names that are not in the table, sorted, with their counts.

    They are reported one by one and never pooled into an "other" group.
    """
    found: Counter[str] = Counter()
    for raw, times in Counter(manufacturers).items():
        name = normalise(raw)
        if name is not None and _known(_capitals(name)) is None:
            found[name] += times
    return dict(sorted(found.items()))


def _capitals(name: str) -> str:
    """Return the name in capitals with single spaces, without the name of a program that forwarded the images."""
    return " ".join(re.sub(r"[^A-Z0-9]+", " ", _FORWARDED_BY.sub("", name).upper()).split())


def _known(capitals: str) -> str | None:
    return next((vendor for vendor, pattern in _TABLE if pattern.match(capitals)), None)
