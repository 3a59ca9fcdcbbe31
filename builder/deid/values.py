"""How to treat one value: each function returns the cleaned value, or None if the value must be removed."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from types import MappingProxyType

from builder.deid.allowed import Form
from builder.deid.identifiers import Identifiers
from builder.deid.text import clean_label, keep_words, scrub
from builder.deid.uids import is_uid
from builder.model.keyed import Key

OLDEST_AGE = 90
"""Ages above 89 are one group (45 CFR 164.514(b)(2)(i)(C))."""

REPLACED = "REMOVED"
"""Replaces a component of a code that does not look like a code."""

_NUMBER_TEXT = re.compile(r"[+\-0-9.eE ]*")
_CODE = re.compile(r"[A-Za-z0-9_ ./+\-:#%*'{}\[\]()]{0,64}")
_SUSPICIOUS = re.compile(r"\d{6,}|\^|\d+(?:\.\d+){4,}")
_TIME = re.compile(r"\d{2}:?(?:\d{2}:?(?:\d{2}(?:\.\d{1,6})?)?)?")
_DATE = re.compile(r"(\d{4})[.]?(\d{2})[.]?(\d{2})")
_DATETIME = re.compile(r"(\d{8})(\d{0,6}(?:\.\d{1,6})?(?:[+\-]\d{4})?)")
_AGE = re.compile(r"(\d{3})([DWMY])")
_SCHEME = re.compile(r"(?:99|[A-Za-z])[A-Za-z0-9_.\-]{0,15}")
_SPELLINGS = frozenset({"SNOMED CT", "SNOMED RT", "ICD 10", "ICD-10 CM", "NCI Thesaurus"})
_SCHEME_VERSION = re.compile(r"[Vv]?\d{1,2}(?:\.\d)?")
_CONTEXT = re.compile(r"(?:[CT]ID ?)?\d{1,5}[A-Z]?|DCMR|SDM|UCUM|FMA|NCIt?")
_LONG_CODE = re.compile(r"[A-Za-z0-9_.\-]{1,18}")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")


@dataclass(frozen=True)
class Treatment:
    """What the treatment of a value depends on in addition to the value: the map of UIDs, the shift, what is known.

    ``shift_days`` is added to every date; 0 where full dates are retained.
    """

    uids: Callable[[str], str]
    shift_days: int
    known: Identifiers


PUBLIC_SCHEMES = frozenset(
    {
        *("SCT", "SRT", "SNM3", "99SDM", "DCM", "UCUM", "FMA", "RADLEX", "RADELEMENT", "LN", "NCIt", "NCIT", "UMLS"),
        *("MA", "IBSI", "ICD10", "ICDO3", "MSH", "BI", "NDC", "RXNORM"),
    }
)
"""Published coding schemes, in which a long number is a concept and no personal number (PS3.16 clause 8)."""


def treat_code_value(value: str, treatment: Treatment, *, scheme: str) -> str:
    """Treat a Code Value (0008,0100). Long numbers stay only if the coding scheme is published."""
    value = value.strip(" \0")
    if scheme in PUBLIC_SCHEMES and _LONG_CODE.fullmatch(value) and not treatment.known.occur_in(value):
        return value
    return _code(value, treatment)


def shift_of(key: Key, person: str) -> int:
    """Return the days by which a person's dates move, the same for all objects of a person: 1 to 10 years back.

    Whole days preserve times of day and every difference (injection to scan, scan to scan). The shift is drawn with the
    key, so nobody can compute it from the person's name alone.
    """
    return -(366 + key.number("date shift", person) % 3287)


def treat(form: Form, values: Iterable[str], treatment: Treatment) -> list[str]:
    """Return the cleaned values of one text attribute in order; a value that must be removed becomes empty."""
    return [_BY_FORM[form](value.strip(" \0"), treatment) for value in values]


def _number(value: str, _: Treatment) -> str:
    return value if _NUMBER_TEXT.fullmatch(value) else ""


def _code(value: str, treatment: Treatment) -> str:
    if not value:
        return value
    safe = _CODE.fullmatch(value) and not _SUSPICIOUS.search(value) and not treatment.known.occur_in(value)
    return value if safe else REPLACED


def _scheme(value: str, treatment: Treatment) -> str:
    """Coding Scheme Designator (0008,0102): free text of 16 characters would hold a name or a date."""
    if not value or value in _SPELLINGS:
        return value
    return _code(value, treatment) if _SCHEME.fullmatch(value) else REPLACED


def _scheme_version(value: str, treatment: Treatment) -> str:
    """Coding Scheme Version (0008,0103): nothing here reads it, so that only short numbers stay."""
    return value if not value or _SCHEME_VERSION.fullmatch(value) else REPLACED


def _context(value: str, treatment: Treatment) -> str:
    """Context Identifier, Template Identifier and Mapping Resource: numbers of PS3.16, and names of resources."""
    known = _CONTEXT.fullmatch(value) and not treatment.known.occur_in(value)
    return value if not value or known else REPLACED


def _label(value: str, treatment: Treatment) -> str:
    return clean_label(value, treatment.known)


def _words(value: str, treatment: Treatment) -> str:
    return keep_words(value, treatment.known)


def _prose(value: str, treatment: Treatment) -> str:
    return scrub(value, known=treatment.known)


def _uid(value: str, treatment: Treatment) -> str:
    return treatment.uids(value)


def _kept_uid(value: str, treatment: Treatment) -> str:
    return value if is_uid(value) else treatment.uids(value)


def _date(value: str, treatment: Treatment) -> str:
    match = _DATE.fullmatch(value)
    if match is None:
        return ""
    try:
        day = date.fromordinal(date(int(match[1]), int(match[2]), int(match[3])).toordinal() + treatment.shift_days)
        return f"{day.year:04d}{day.month:02d}{day.day:02d}"
    except (ValueError, OverflowError):
        return ""


def _datetime(value: str, treatment: Treatment) -> str:
    match = _DATETIME.fullmatch(value)
    if match is None:
        return ""
    day = _date(match[1], treatment)
    return day + match[2] if day else ""


def _time(value: str, _: Treatment) -> str:
    return value if _TIME.fullmatch(value) else ""


def _age(value: str, _: Treatment) -> str:
    match = _AGE.fullmatch(value)
    if match is None:
        return ""
    return f"{min(int(match[1]), OLDEST_AGE):03d}Y" if match[2] == "Y" else value


def _keep(value: str, _: Treatment) -> str:
    return "" if _CONTROL.search(value) else value


_BY_FORM: Mapping[Form, Callable[[str, Treatment], str]] = MappingProxyType(
    {
        Form.NUMBER_TEXT: _number,
        Form.CODE: _code,
        Form.SCHEME: _scheme,
        Form.SCHEME_VERSION: _scheme_version,
        Form.CONTEXT: _context,
        Form.LABEL: _label,
        Form.WORDS: _words,
        Form.PROSE: _prose,
        Form.UID: _uid,
        Form.KEPT_UID: _kept_uid,
        Form.DATE: _date,
        Form.DATETIME: _datetime,
        Form.TIME: _time,
        Form.AGE: _age,
        Form.KEEP: _keep,
    }
)
