"""One name a vendor: a table of what Manufacturer (0008,0070) holds in practice.

The raw value always stays beside the normalised one. Use it on acquired images only: objects derived by software (SEG,
SR, RTSTRUCT, secondary captures) carry the name of the software there.
"""

import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

VENDORS: tuple[tuple[str, str], ...] = (
    ("Siemens", r"SIEMENS|ACUSON|CPS\b|CTI\b"),  # CTI and CPS Innovations: PET, bought by Siemens in 2005
    ("GE", r"GE\b|GEMS\b|GENERAL ELECTRIC|LUNAR\b|IMATRON"),  # Imatron: electron beam CT, bought by GE in 2001
    ("Philips", r"PHILIPS|ADAC\b|PICKER|MARCONI|PNMS\b"),  # Picker became Marconi, bought by Philips in 2001
    ("Canon", r"CANON|TOSHIBA"),  # Toshiba Medical Systems is called Canon Medical Systems since 2018
    ("Fujifilm", r"FUJI(FILM)?\b|HITACHI|SONOSITE"),  # Hitachi's imaging business is Fujifilm's since 2021
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
"""Vendor and what its name begins with, in capitals, punctuation as spaces; the first that fits decides."""

NO_NAMES = frozenset({"", "NA", "N A", "NONE", "NULL", "UNKNOWN", "UNKNOWN MANUFACTURER", "ANONYMIZED", "ANONYMOUS"})
"""What stands there when nobody filled it in."""

_TABLE = tuple((vendor, re.compile(pattern)) for vendor, pattern in VENDORS)
_NAMES = frozenset(vendor for vendor, _ in VENDORS)
_FORWARDED_BY = re.compile(r"\s*/\s*MIM( ?SOFTWARE|VISTA).*$", re.IGNORECASE)


@lru_cache(maxsize=4096)
def normalise(manufacturer: str | None) -> str | None:
    """The vendor's one name; a name the table does not know stays as it is (blanks tidied), a blank is None."""
    tidy = " ".join((manufacturer or "").split())
    capitals = _capitals(tidy)
    if capitals in NO_NAMES or not capitals.strip("0 "):
        return None
    return _known(capitals) or tidy


def is_vendor(name: str) -> bool:
    """Whether this is one of the names that the table gives."""
    return name in _NAMES


def unmapped(manufacturers: Iterable[str | None]) -> dict[str, int]:
    """Names the table does not know and how often each occurs, sorted; they are reported, never pooled."""
    found: Counter[str] = Counter()
    for raw, times in Counter(manufacturers).items():
        name = normalise(raw)
        if name is not None and _known(_capitals(name)) is None:
            found[name] += times
    return dict(sorted(found.items()))


def _capitals(name: str) -> str:
    """Capitals and single blanks only, without the name of a program that forwarded the images."""
    return " ".join(re.sub(r"[^A-Z0-9]+", " ", _FORWARDED_BY.sub("", name).upper()).split())


def _known(capitals: str) -> str | None:
    return next((vendor for vendor, pattern in _TABLE if pattern.match(capitals)), None)
