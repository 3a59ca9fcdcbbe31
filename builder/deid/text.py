"""Free text: labels are cleaned by shape, descriptions word by word, and reports scrubbed. All three fail closed."""

import re
from functools import lru_cache
from importlib.resources import files
from typing import Protocol

from builder.deid.writing import DATE, replace

LABEL_LIMIT = 64
"""Most characters of a label: VR LO (PS3.5 Table 6.2-1)."""


class Known(Protocol):
    """Values that must be removed wherever they occur (``builder.deid.identifiers.Identifiers``)."""

    def __hash__(self) -> int: ...

    def cut_from(self, text: str, mark: str) -> str:
        """Return the text with ``mark`` in place of each of the values."""
        ...


MARK = "[...]"
"""Replaces what was removed from a report."""

_MONTHS = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|sept|oct|nov|dec)[a-z]*"
_DATE = (
    r"\b\d{1,4}\s?[-/.]\s?\d{1,2}\s?[-/.]\s?\d{2,4}\b"
    rf"|\b\d{{1,2}}(?:st|nd|rd|th)?[\s.,/-]*{_MONTHS}\b\.?(?:[\s.,/-]*\d{{2,4}}\b)?"
    rf"|\b{_MONTHS}\.?[\s,]*\d{{1,2}}(?:st|nd|rd|th)?(?:,?\s*\d{{2,4}})?\b"
    rf"|\b{_MONTHS}\.?[\s,]*\d{{4}}\b"
)
_ADDRESS = r"\S+@\S+|\b(?:https?|ftp)://\S+|\bwww\.\S+"
_PHONE = r"(?<![\w.])\+?\(?\d{2,6}\)?(?:[\s./-]\d{2,8}){2,6}(?!\w)"
_UID = r"\b\d+(?:\.\d+){3,}\b"
_LONG_NUMBER = r"[A-Za-z]{0,4}\d[\d-]*\d{4,}[A-Za-z]{0,2}|\d{5,}"
# "MR BRAIN" is a scan and no title; what follows the modality is judged word by word.
_TITLED = (
    r"\b(?!MR\b(?!\.))(?i:dr|doctor|prof|professor|mr|mrs|ms|miss|sir|herr|frau|mme|mlle|dhr|mevr|sr|sra|signor|"
    r"signora|nurse|md|"
    r"patient(?:'s)?\sname|name|physician|radiologist|technologist|operator)\b[.:]?\s+"
    r"(?:[A-Z][\w'\u2019-]*|[A-Z]\.)(?:\s+(?:[A-Z][\w'\u2019-]*|[A-Z]\.)){0,3}"
)
_PERSON_NAME = r"[^\s\\]*\^[^\s\\]*"

_SHAPES = re.compile("|".join(f"(?:{p})" for p in (_ADDRESS, _PERSON_NAME, _UID, _DATE, _PHONE)), re.IGNORECASE)
_TITLES = re.compile(_TITLED)
_NUMBERS = re.compile(_LONG_NUMBER)
_SPACES = re.compile(r"\s+")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f<>\"`{}|\\]")


_REPORT_UNSAFE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")
_OLD_AGE = re.compile(r"\b(?:9\d|1[0-4]\d)(?P<unit>[\s-]?(?:year|yr|y/o|yo\b|y\.o|years))", re.IGNORECASE)
_CLOCK = re.compile(r"\b\d{1,2}:\d{2}(?::\d{2})?(?:\s?[ap]\.?m\b\.?)?", re.IGNORECASE)
_LABELLED = re.compile(
    r"\b(?:patient(?:'s)?\s(?:name|id)|name|dob|date of birth|mrn|accession(?:\s(?:no|number))?|ssn|address|phone|tel|"
    r"fax|(?:dictated|signed|electronically signed|reported|read) by|attending|(?:referring|ordering) physician)"
    r"\s*[:#][^\n]{0,80}",
    re.IGNORECASE,
)
_PLACES = re.compile(
    r"\b(?:[A-Z][\w'\u2019.-]*\s+){1,4}(?:Hospital|Clinic|Center|Centre|University|Institute|Associates|Klinik|Krankenhaus)\b"
    r"|\b\d{1,5}\s+(?:[A-Z][\w'\u2019.-]*\s+){1,3}(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Drive|Dr|Lane|Ln)\b\.?"
)
_CAPITALISED = re.compile(r"\b[^\W\d_a-zß-öø-ÿ][^\W\d_]*(?:[-'\u2019][^\W\d_]+)*")
_TERM_ENDINGS = (
    "tion", "sion", "osis", "itis", "oma", "omas", "emia", "pathy", "graphy", "scopy", "ectomy", "plasty", "ostomy",
    "ical", "ular", "eous", "inal", "ically", "ilateral",
)  # fmt: skip

_EPONYMS = frozenset({"chiari", "foley", "ganz", "hodgkin", "hounsfield", "kerley", "schmorl", "swan"})
"""Names that are medical terms, unless the object states them as somebody's name."""

_LONG_RUN = re.compile(r"\S{65,}")
"""Longer than any word of a report; on shorter words every expression here takes bounded time."""
_BLANKS = re.compile(r"[^\S\n]+")
_LINES = re.compile(r"\n(?: ?\n){2,}")

REPORT_LIMIT = 1 << 16
"""Most characters of a report."""


@lru_cache(maxsize=1)
def vocabulary() -> frozenset[str]:
    """Return lower-case words of imaging and anatomy that say nothing about a person."""
    return frozenset((files("builder.deid") / "words.txt").read_text(encoding="ascii").split())


@lru_cache(maxsize=1)
def ordinary_words() -> frozenset[str]:
    """Return lower-case words of imaging and of reports, which are no reason to suspect a name."""
    return vocabulary() | frozenset((files("builder.deid") / "report_words.txt").read_text(encoding="ascii").split())


@lru_cache(maxsize=8192)
def clean_label(text: str, known: Known) -> str:
    """Remove names, dates, personal numbers and addresses from a short label (ROI, segment or device name).

    Words stay if they do not look like an identifier and the object states them as no name elsewhere; numbers keep up
    to four digits (``PTV_5040``). A name stated nowhere else cannot be told from the name of a structure, so labels are
    only matched against the names of the spec and never published.
    """
    text = known.cut_from(_UNSAFE.sub(" ", text[: 4 * LABEL_LIMIT]), " ")
    text = _NUMBERS.sub(" ", _TITLES.sub(" ", _SHAPES.sub(" ", text)))
    return _SPACES.sub(" ", text).strip(" _-,;:")[:LABEL_LIMIT].rstrip()


def keep_words(text: str, known: Known) -> str:
    """Reduce a description to known imaging words and numbers of up to three digits."""
    words = vocabulary()
    text = clean_label(text, known)
    pieces = re.findall(r"[^\W_]+(?:\.\d+)?", text)
    return " ".join(p for p in pieces if p.lower() in words or re.fullmatch(r"\d{1,3}(\.\d+)?", p))


def scrub(text: str, *, known: Known) -> str:
    """Replace everything in the text of a report that may name somebody by ``MARK``.

    This removes values known from the object; addresses, UIDs, dates, clock times, phone numbers and long numbers; what
    follows a title or a label such as ``Name:``; institutions and streets; and every capitalised word that belongs
    neither to imaging nor to reporting. Ages above 89 become 90. A doubtful word is removed, because a report may lose
    meaning but must not keep a name. The known gap is a name in lower case that is stated nowhere else.
    """
    if len(text) > REPORT_LIMIT:
        text = text[:REPORT_LIMIT] + " " + MARK
    text = _LONG_RUN.sub(MARK, _LINES.sub("\n\n", _BLANKS.sub(" ", _REPORT_UNSAFE.sub(" ", text))))
    text = replace(DATE, known.cut_from(text, MARK), f" {MARK} ")
    text = _OLD_AGE.sub(r"90\g<unit>", text)
    for pattern in (_LABELLED, _SHAPES, _CLOCK, _TITLES, _PLACES, _NUMBERS):
        text = pattern.sub(f" {MARK} ", text)
    lower = frozenset(re.findall(r"\b[a-z]{3,}\b", text))
    text = _CAPITALISED.sub(lambda match: match[0] if _is_ordinary(match[0], lower) else MARK, text)
    text = re.sub(rf"{re.escape(MARK)}(?:[\s,]*{re.escape(MARK)})+", MARK, text)
    return re.sub(r"[ \t]+", " ", text).strip()


def _is_ordinary(word: str, lower: frozenset[str]) -> bool:
    """Return whether a capitalised word belongs to the language of reports and is no name."""
    return all(_is_ordinary_part(part, lower) for part in re.split(r"[-'\u2019]", word.lower()))


def _is_ordinary_part(part: str, lower: frozenset[str]) -> bool:
    if len(part) < 2 or part in lower:
        return True
    if part in ordinary_words() or part.rstrip("s") in vocabulary() or part in _EPONYMS:
        return True
    return len(part) >= 7 and part.endswith(_TERM_ENDINGS)
