"""Closed vocabularies: the values of an archive that may leave although the spec does not name them."""

import re
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import Final

from builder.deid.text import ordinary_words, vocabulary
from builder.deid.uids import is_registered
from builder.headers.vendors import VENDORS, is_vendor, normalise
from builder.model.tables import WORKED_OUT

REPLACED: Final = "REMOVED"
"""Replaces a value of a multi-valued attribute that is in no vocabulary."""

_LONGEST: Final = 64
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?")
_MOST_DIGITS: Final = 6
_INITIAL: Final = re.compile(r"(?<![A-Za-z0-9])[A-Za-z](?![A-Za-z0-9])")
_DAY: Final = re.compile(
    r"\d{1,2}[ ./-]\d{1,2}[ ./-]\d{2}|(?:19|20)\d\d[^\d]{1,3}\d{3,4}|\d{3,4}[^\d]{1,3}(?:19|20)\d\d"
)
"""A day, month and year, and a year beside a day and month."""


@cache
def _lists() -> Mapping[str, frozenset[str]]:
    """Read the lists of ``terms.txt``: ``[[name]]``, then terms with commas between them."""
    found: dict[str, frozenset[str]] = {}
    for part in (files("builder.deid") / "terms.txt").read_text(encoding="ascii").split("[[")[1:]:
        name, _, terms = part.partition("]]")
        found[name] = frozenset(term.strip() for term in terms.replace("\n", " ").split(", "))
    return MappingProxyType(found)


def _terms(name: str) -> frozenset[str]:
    return _lists()[name]


@cache
def term_words() -> frozenset[str]:
    """Return every word of the defined terms in lower case, except names of programs, which places may share."""
    terms = (term for name, listed in _lists().items() if name != "tool" for term in listed)
    return frozenset(word for term in terms for word in re.findall(r"[^\W\d_]+", term.lower()))


MODALITIES: Final = _terms("modality")
"""PS3.3 C.7.3.1.1.1, retired ones too."""

_TERMS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "modality": MODALITIES,
        "photometric_interpretation": _terms("photometric_interpretation"),  # PS3.3 C.7.6.3.1.2
        "patient_position": _terms("patient_position"),
        "units": _terms("units"),  # PS3.3 C.8.9.1.1.3
        "decay_correction": frozenset({"NONE", "START", "ADMIN"}),
        "lossy_image_compression": frozenset({"00", "01"}),
        "view_position": _terms("view_position"),  # PS3.3 C.8.7.5, PS3.16 CID 4014
        "laterality": _terms("laterality"),
        **{name: _terms(name) for name in WORKED_OUT},  # the values of builder/imaging/series_types/rules.toml
    }
)

RESCALE_TYPES: Final = _terms("rescale_type")
"""PS3.3 C.11.1.1.2, and units that PET systems write there."""

_IMAGE_TYPES: Final = _terms("image_type")
"""Defined terms of Image Type (PS3.3 C.7.6.1.1.2 and the modules of each modality), and what vendors add to them."""
_FEW_DIGITS: Final = re.compile(r"\d{1,4}")
_COUNTED_TERM: Final = re.compile(r"([A-Z]+)\d{1,2}")

_BODY_PARTS: Final = _terms("body_part")
"""PS3.16 Annex L, and what consoles write if no part was chosen."""

_KERNELS: Final = _terms("kernel")
_KERNEL_FORMS: Final = re.compile(
    r"[A-Z][a-z]?\d{2}[a-z]?(?:[\\/ ]\d)?|FC\d{2}(?:-H)?|I\d{2}[a-z](?:[\\/]\d)?|[A-Z]_[A-Z]{4,6}_[A-Z]{1,2}"
)
"""Siemens (``B30f``, ``Br40d\\3``), Canon (``FC08-H``), United Imaging (``B_SOFT_B``)."""

_MODEL_NUMBERS: Final = frozenset({"1023", "1024", "1062", "1080", "1093", "1094", "700WB"})
"""Models that are numbers: PET scanners of CPS and CTI, an XA system of Siemens."""

_TOOLS: Final = _terms("tool")
"""Words of the names of programs that draw and measure."""

SHAPES: Final = _terms("shape")
"""Names of graphics (PS3.3 C.18.6.1.2, AIM 4), and lines of two points."""


def term(column: str, value: str) -> str | None:
    """Return a defined term of the attribute behind ``column``, or a registered UID; None for anything else."""
    known = _TERMS.get(column)
    if known is None:
        return value if is_registered(value) else None
    return value if value in known else None


def image_type(value: str) -> str | None:
    """Return Image Type (0008,0008), backslashes between values, with ``REPLACED`` for values in no vocabulary."""
    parts = [part if _is_image_type(part) else REPLACED for part in value[:512].split("\\")]
    if not _numbers_may_leave(" ".join(parts)):
        parts = [REPLACED if re.search(r"\d", part) else part for part in parts]
    return "\\".join(parts) if any(part != REPLACED for part in parts) else None


def body_part(value: str) -> str | None:
    """Return Body Part Examined if it is a term of PS3.16 Annex L or words of anatomy."""
    words = re.findall(r"[^\W_]+", value.upper()) if len(value) <= _LONGEST else []
    known = [w in _BODY_PARTS or w.lower() in vocabulary() for w in words if len(w) > 1]
    fits = words and all(known) and len(words) - len(known) <= min(len(known) + 1, 2)
    alone = len(words) == 1 or known
    return value if fits and alone and _is_plain(value) and _numbers_may_leave(value) else None


def kernel(value: str) -> str | None:
    """Return Convolution Kernel if it is a word or a form that vendors use."""
    if _KERNEL_FORMS.fullmatch(value):
        return value
    words = re.findall(r"[^\W_]+", value.upper()) if len(value) <= _LONGEST else []
    fits = words and all(word in _KERNELS or _FEW_DIGITS.fullmatch(word) for word in words)
    fits = fits and not all(map(str.isdigit, words)) and _numbers_may_leave(value)
    return value if fits and _is_plain(value) else None


def vendor(value: str) -> str | None:
    """Return the vendor's one name in the shipped table; None if the table lacks it."""
    found = normalise(value)
    return found if found is not None and is_vendor(found) else None


def model(value: str) -> str | None:
    """Return a model, blanks tidied, if each of its words is in the shipped table."""
    return value if value in _MODEL_NUMBERS else _worded(value, _model_words())


def tool(value: str) -> str | None:
    """Return the name of a vendor, model or program if each of its words is in the shipped tables."""
    return _worded(value, _model_words() | _vendor_words() | _TOOLS | vocabulary()) or vendor(value)


def imaging_words(value: str) -> str | None:
    """Return words of anatomy, imaging and reporting, with numbers of up to three digits."""
    words = re.findall(r"[^\W_]+", value.lower()) if len(value) <= _LONGEST else []
    known = [word in ordinary_words() or word in SHAPES for word in words]
    fits = words and any(known) and all(k or re.fullmatch(r"\d{1,3}", w) for k, w in zip(known, words, strict=True))
    return value if fits and _is_plain(value) and _numbers_may_leave(value) else None


def unit(value: str) -> str | None:
    """Return a UCUM unit (case-sensitive form), or the bare words that annotation tools write for one."""
    if value in _UNIT_WORDS:
        return value
    return value if value and len(value) <= 24 and _UNIT.fullmatch(value) else None


def concept(code: str) -> str | None:
    """Return ``<scheme>:<value>`` if DICOM's context groups (PS3.16) hold the code, else None."""
    return code if meaning(code) is not None else None


@lru_cache(maxsize=4096)
def meaning(code: str) -> str | None:
    """Return the meaning of ``<scheme>:<value>`` in PS3.16, whatever the object says; None if it lacks the code."""
    scheme, _, value = code.partition(":")
    if scheme == ROI_TYPES:
        return value if value in _terms("roi_type") else None
    if scheme in _SNOMED_RT:
        mapped = _retired().get(value)
        return None if mapped is None else meaning(f"SCT:{mapped}")
    return _meanings().get((_SCHEMES.get(scheme, scheme), value))


def number(value: str) -> str | None:
    """Return a number of up to six digits before the point."""
    return value if re.fullmatch(r"-?\d{1,6}(\.\d{1,12})?(e[+-]?\d{1,3})?", value) else None


def _is_image_type(part: str) -> bool:
    if not part or part in _IMAGE_TYPES or _FEW_DIGITS.fullmatch(part):
        return True
    words = re.findall(r"[^\W]+", part)
    known = _is_plain(part) and all(_is_image_word(word) for word in words)
    return known and not all(map(str.isdigit, words))


def _is_image_word(word: str) -> bool:
    if word in _IMAGE_TYPES or word.lower() in vocabulary() or _FEW_DIGITS.fullmatch(word):
        return True
    counted = _COUNTED_TERM.fullmatch(word)
    return counted is not None and counted[1] in _IMAGE_TYPES


def _worded(value: str, words: frozenset[str]) -> str | None:
    """Return the text, blanks tidied, if every run of letters is one of the words and its numbers are short."""
    tidy = " ".join(value.split())
    runs = re.findall(r"[^\W\d_]+|\d+", tidy.lower()) if len(tidy) <= 2 * _LONGEST else []
    known = [run in words for run in runs]
    rest = [run for run, k in zip(runs, known, strict=True) if not k]
    fits = any(known) and all(len(run) == 1 or (run.isdigit() and len(run) <= 4) for run in rest)
    fits = fits and len(_INITIAL.findall(tidy)) <= 1
    return tidy if fits and _is_plain(tidy) and _numbers_may_leave(tidy) else None


def _numbers_may_leave(text: str) -> bool:
    """Return whether the numbers beside known words are too few to be a date of birth or a telephone number."""
    numbers = _NUMBER.findall(text)
    digits = sum(sum(map(str.isdigit, number)) for number in numbers)
    return len(numbers) <= 2 and digits <= _MOST_DIGITS and not _DAY.search(text)


def _is_plain(value: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9 _+/.,&():;\\-]*", value) is not None


@cache
def _model_words() -> frozenset[str]:
    return frozenset((files("builder.deid") / "models.txt").read_text(encoding="ascii").lower().split())


@cache
def _vendor_words() -> frozenset[str]:
    names = " ".join(name for name, _ in VENDORS) + " healthineers healthcare medical systems corporation inc gmbh ag"
    return frozenset(re.findall(r"[a-z]+", names.lower()))


_SCHEMES: Mapping[str, str] = MappingProxyType(
    {"SNOMED": "SCT", "SNOMED-CT": "SCT", "NCIT": "NCIt", "RadLex": "RADLEX", "Radlex": "RADLEX", "LOINC": "LN"}
)
"""Other designators of the same schemes, as annotation tools write them."""
ROI_TYPES: Final = "99DICOM-RTROI"
"""Our scheme for RT ROI Interpreted Type (3006,00A4)."""
_SNOMED_RT: Final = frozenset({"SRT", "SNM3", "99SDM"})


@cache
def _meanings() -> Mapping[tuple[str, str], str]:
    from pydicom.sr._concepts_dict import concepts

    return MappingProxyType(
        {
            (scheme, code): text
            for scheme, keywords in concepts.items()
            for codes in keywords.values()
            for code, (text, *_) in codes.items()
        }
    )


@cache
def _retired() -> Mapping[str, str]:
    """Map SNOMED RT codes to SNOMED CT (PS3.16 Annex O)."""
    from pydicom.sr._snomed_dict import mapping

    found: Mapping[str, str] = mapping["SRT"]
    return found


_ATOMS = _terms("ucum_atom")
_PREFIX = "(?:da|[YZEPTGMkhdcmunpfazy])?"
_ATOM = "|".join(re.escape(atom) for atom in sorted(_ATOMS, key=len, reverse=True))
_NOTE = r"(?:\{(?:SUVbw|SUVlbm|SUVbsa|SUVibw|counts|ratio|beats|voxels|pixels|slices|fraction|RBC|WBC)\})"
_POWER = r"(?:10[*^][+-]?\d{1,2})"
_BASE = rf"(?:{_POWER}?{_PREFIX}(?:{_ATOM})(?:[+-]?[1-6])?|{_POWER}|1)"
_ONE = rf"(?:{_NOTE}?{_BASE}{_NOTE}?|{_NOTE})"
_UNIT: Final = re.compile(rf"/?{_ONE}(?:[./]{_ONE}){{0,4}}")
"""Terms of UCUM (PS3.16 CID 82 and kin), of known atoms and annotations only."""
_UNIT_WORDS: Final = frozenset(
    {"no units", "no unit", "none", "pixel", "pixels", "voxel", "voxels", "HU", "SUV", "linear", "degrees", "percent"}
    | {"mm^2", "mm^3", "cm^2", "cm^3", "cc", "ml", "mm", "cm", "GML", "SUVbw", "Bq/ml", "hu", "ratio", "1"}
)

Check = Callable[[str], str | None]
