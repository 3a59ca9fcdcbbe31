"""Free text: labels cleaned by shape, descriptions kept word by word, reports scrubbed. All three fail closed."""

import re
from functools import lru_cache
from importlib.resources import files
from typing import Protocol

LABEL_LIMIT = 64
"""Longest label kept, in characters: VR LO (PS3.5 Table 6.2-1)."""


class Known(Protocol):
    """Values that must go wherever they stand (``builder.deid.identifiers.Identifiers``)."""

    def __hash__(self) -> int: ...

    @property
    def pattern(self) -> re.Pattern[str] | None:
        """Finds any of the values; None when there is none."""
        ...


MARK = "[...]"
"""Stands for what was removed from a report."""

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
# "MR BRAIN" is a scan: what follows the modality is judged word by word, as everything else is.
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
"""Names that are terms, unless the object states them as somebody's."""

_LONG_RUN = re.compile(r"\S{65,}")
"""No word of a report; within shorter ones every expression here takes a bounded time."""
_BLANKS = re.compile(r"[^\S\n]+")
_LINES = re.compile(r"\n(?: ?\n){2,}")

REPORT_LIMIT = 1 << 16
"""Longest report kept, in characters."""


@lru_cache(maxsize=1)
def vocabulary() -> frozenset[str]:
    """Lower-case words of imaging and anatomy that say nothing about a person."""
    return frozenset((files("builder.deid") / "words.txt").read_text(encoding="ascii").split())


@lru_cache(maxsize=1)
def ordinary_words() -> frozenset[str]:
    """Lower-case words of imaging and of reports: no reason to suspect a name."""
    return vocabulary() | frozenset((files("builder.deid") / "report_words.txt").read_text(encoding="ascii").split())


@lru_cache(maxsize=8192)
def clean_label(text: str, known: Known) -> str:
    """A short label (ROI name, segment label, device name) without names, dates, numbers of a person, addresses.

    Kept are words that have none of the shapes of an identifier and are no name the object states elsewhere; a number
    keeps up to four digits (``PTV_5040``). A name stated nowhere else cannot be told from a structure's name, which is
    why labels are only matched against the names of the spec and never published.
    """
    text = _UNSAFE.sub(" ", text[: 4 * LABEL_LIMIT])
    if known.pattern is not None:
        text = known.pattern.sub(" ", text)
    text = _NUMBERS.sub(" ", _TITLES.sub(" ", _SHAPES.sub(" ", text)))
    return _SPACES.sub(" ", text).strip(" _-,;:")[:LABEL_LIMIT].rstrip()


def keep_words(text: str, known: Known) -> str:
    """A description reduced to known imaging words and numbers of up to three digits; anything else goes."""
    words = vocabulary()
    text = clean_label(text, known)
    pieces = re.findall(r"[^\W_]+(?:\.\d+)?", text)
    return " ".join(p for p in pieces if p.lower() in words or re.fullmatch(r"\d{1,3}(\.\d+)?", p))


def scrub(text: str, *, known: Known) -> str:
    """The text of a report with everything that may name somebody replaced by ``MARK``.

    Removed are: values known from the object; addresses, UIDs, dates, clock times, phone numbers, long numbers; what
    follows a title or a label such as ``Name:``; institutions and streets; and every capitalised word that is neither
    an imaging nor a reporting word. Ages above 89 become 90. When in doubt a word goes: a report loses meaning rather
    than a name staying. A name written in lower case and stated nowhere else is the known gap.
    """
    if len(text) > REPORT_LIMIT:
        text = text[:REPORT_LIMIT] + " " + MARK
    text = _LONG_RUN.sub(MARK, _LINES.sub("\n\n", _BLANKS.sub(" ", _REPORT_UNSAFE.sub(" ", text))))
    if known.pattern is not None:
        text = known.pattern.sub(MARK, text)
    text = _OLD_AGE.sub(r"90\g<unit>", text)
    for pattern in (_LABELLED, _SHAPES, _CLOCK, _TITLES, _PLACES, _NUMBERS):
        text = pattern.sub(f" {MARK} ", text)
    lower = frozenset(re.findall(r"\b[a-z]{3,}\b", text))
    text = _CAPITALISED.sub(lambda match: match[0] if _is_ordinary(match[0], lower) else MARK, text)
    text = re.sub(rf"{re.escape(MARK)}(?:[\s,]*{re.escape(MARK)})+", MARK, text)
    return re.sub(r"[ \t]+", " ", text).strip()


def _is_ordinary(word: str, lower: frozenset[str]) -> bool:
    """Whether a capitalised word is a word of the language of reports rather than a name."""
    return all(_is_ordinary_part(part, lower) for part in re.split(r"[-'\u2019]", word.lower()))


def _is_ordinary_part(part: str, lower: frozenset[str]) -> bool:
    if len(part) < 2 or part in lower:
        return True
    if part in ordinary_words() or part.rstrip("s") in vocabulary() or part in _EPONYMS:
        return True
    return len(part) >= 7 and part.endswith(_TERM_ENDINGS)
