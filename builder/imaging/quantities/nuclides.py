"""Finding the radionuclide that a PET names, by code or in words, and its half-life."""

import re
from collections.abc import Iterator
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

HALF_LIFE_S = {
    "C-11": 1221.8, "N-13": 597.9, "O-14": 70.6, "O-15": 122.2, "F-18": 6586.2, "K-38": 458.2, "Sc-43": 14008.0,
    "Sc-44": 14551.0, "Ti-45": 11088.0, "Mn-51": 2772.0, "Mn-52": 483062.0, "Mn-52m": 1266.0, "Fe-52": 29790.0,
    "Cu-60": 1422.0, "Cu-61": 12020.0, "Cu-62": 580.2, "Cu-64": 45724.0, "Zn-62": 33094.0, "Ga-66": 34164.0,
    "Ga-68": 4062.6, "Ge-68": 23410900.0, "As-70": 3156.0, "As-72": 93600.0, "Se-73": 25740.0, "Br-75": 5802.0,
    "Br-76": 58320.0, "Br-77": 205344.0, "Rb-82": 75.5, "Y-86": 53064.0, "Y-90": 230580.0, "Zr-89": 282276.0,
    "Nb-90": 52560.0, "Tc-94m": 3120.0, "Tc-99m": 21624.0, "In-111": 242326.0, "I-120": 4896.0, "I-123": 47604.0,
    "I-124": 360806.0, "I-131": 693377.0, "Na-22": 82050000.0, "Tb-152": 63000.0, "Ho-166": 96458.0,
    "Lu-177": 574300.0,
}  # fmt: skip
"""Half-lives in seconds from the evaluated nuclear structure data file (National Nuclear Data Center, NuDat 3)."""

HALF_LIFE_TOLERANCE = 0.05
"""Largest relative difference accepted between stated and true half-life; old tables differ by 1 or 2 %."""

ELEMENTS = {
    "carbon": "C", "nitrogen": "N", "oxygen": "O", "fluorine": "F", "fluor": "F", "sodium": "Na", "potassium": "K",
    "scandium": "Sc", "titanium": "Ti", "manganese": "Mn", "iron": "Fe", "copper": "Cu", "zinc": "Zn", "gallium": "Ga",
    "germanium": "Ge", "arsenic": "As", "selenium": "Se", "bromine": "Br", "rubidium": "Rb", "yttrium": "Y",
    "zirconium": "Zr", "niobium": "Nb", "technetium": "Tc", "indium": "In", "iodine": "I", "terbium": "Tb",
    "holmium": "Ho", "lutetium": "Lu",
}  # fmt: skip
_SYMBOLS = {symbol.lower(): symbol for symbol in ELEMENTS.values()}

_MASS_FIRST = re.compile(r"(?<![a-z0-9])(\d{1,3})(m?)[- ]?([a-z]+)")
_ELEMENT_FIRST = re.compile(r"(?<![a-z0-9])([a-z]+)[- ]?(\d{1,3})(m?)(?![0-9])")
_GLUCOSE = re.compile(r"\b(fdg|fluorodeoxyglucose|fludeoxyglucose)\b")


def nuclides_of(drug: Dataset) -> frozenset[str]:
    """Return the nuclides that a Radiopharmaceutical Information Sequence item names; more than one is a conflict."""
    found: set[str] = set()
    sequences = (drug.get("RadionuclideCodeSequence"), drug.get("RadiopharmaceuticalCodeSequence"))
    for code in (code for sequence in sequences if isinstance(sequence, Items) for code in sequence):
        coded = _coded(str(code.get("CodeValue") or ""), str(code.get("CodingSchemeDesignator") or ""))
        found |= {coded} if coded else set(named(str(code.get("CodeMeaning") or "")))
    return frozenset(found | set(named(str(drug.get("Radiopharmaceutical") or ""))))


def named(text: str) -> Iterator[str]:
    """Yield the nuclides in a text, such as ``^18^Fluorine``, ``F-18`` or ``[11C]PiB``; FDG means F-18."""
    plain = text.lower().replace("^", "")
    pairs = [(element, mass + state) for mass, state, element in _MASS_FIRST.findall(plain)]
    pairs += [(state + element, mass) for mass, state, element in _MASS_FIRST.findall(plain)]  # 52Mn is not 52m
    pairs += [(element, mass + state) for element, mass, state in _ELEMENT_FIRST.findall(plain)]
    for element, mass in pairs:
        name = f"{_SYMBOLS.get(element) or ELEMENTS.get(element)}-{mass}"
        if name in HALF_LIFE_S:
            yield name
    if _GLUCOSE.search(plain):
        yield "F-18"


def nearest(half_life_s: float) -> str | None:
    """Return the nuclide whose half-life is nearest, or None when none is within the tolerance."""
    found = min(HALF_LIFE_S, key=lambda name: abs(HALF_LIFE_S[name] - half_life_s))
    return found if agrees(found, half_life_s) else None


def agrees(nuclide: str, half_life_s: float) -> bool:
    """Return whether a stated half-life is that of a nuclide."""
    true = HALF_LIFE_S[nuclide]
    return abs(half_life_s - true) <= HALF_LIFE_TOLERANCE * true


def _coded(value: str, scheme: str) -> str | None:
    """Return the nuclide of a code in PS3.16 CID 4020, given as SNOMED CT or in the older SNOMED form."""
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    if not value or not scheme:
        return None
    wanted = Code(value, scheme, "")
    names: dict[str, Any] = codes.cid4020.concepts
    meaning = next((name for name, code in names.items() if code == wanted), None)
    return next(named(meaning.strip("_")), None) if meaning else None
