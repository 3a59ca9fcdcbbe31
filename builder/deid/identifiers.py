"""What identifies a person: values stated by an object or the index, none of which may occur in what leaves."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from itertools import pairwise, permutations
from typing import Any

import pyarrow as pa
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

from builder.deid.terms import term_words
from builder.deid.text import ordinary_words
from builder.deid.uids import is_registered
from builder.deid.writing import UNSPACED_RUN, fold, replace, spellings, unspaced_forms, unspell
from builder.headers.vendors import VENDORS
from builder.model.tables import IDENTITY, IDENTITY_COLUMNS, NAME_COLUMNS

_NAME_KEYWORDS = (
    "PatientName",
    "OtherPatientNames",
    "PatientBirthName",
    "PatientMotherBirthName",
    "ReferringPhysicianName",
    "PerformingPhysicianName",
    "OperatorsName",
    "PhysiciansOfRecord",
    "NameOfPhysiciansReadingStudy",
    "RequestingPhysician",
    "ConsultingPhysicianName",
    "ScheduledPerformingPhysicianName",
    "ResponsiblePerson",
    "ContentCreatorName",
    "ROIInterpreter",
    "ReviewerName",
    "VerifyingObserverName",
    "PersonName",
    "PatientAddress",
)
_ID_KEYWORDS = (
    "PatientID",
    "OtherPatientIDs",
    "AccessionNumber",
    "MedicalRecordLocator",
    "MilitaryRank",
    "AdmissionID",
    "StudyID",
    "PatientTelephoneNumbers",
    "DeviceSerialNumber",
    "RequestedProcedureID",
    "PlacerOrderNumberImagingServiceRequest",
    "FillerOrderNumberImagingServiceRequest",
    "InstitutionName",
    "InstitutionAddress",
    "InstitutionalDepartmentName",
    "StationName",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "FrameOfReferenceUID",
)
_NAME_TAGS = tuple(BaseTag(t) for t in map(tag_for_keyword, _NAME_KEYWORDS) if t is not None)
_ID_TAGS = tuple(BaseTag(t) for t in map(tag_for_keyword, _ID_KEYWORDS) if t is not None)
_BIRTH = (BaseTag(0x00100030),)
_PATIENT_ID = (BaseTag(0x00100020),)
_PLACES = (BaseTag(0x00080080), BaseTag(0x00080081))
"""Institution Name and Address: a town alone says which hospital it was."""
UNDECODABLE = (
    *(ValueError, TypeError, LookupError, NotImplementedError, AttributeError, OverflowError, EOFError),
    *(BytesLengthException, InvalidDicomError),
)
"""Exceptions that pydicom raises for a value that does not fit its VR."""

_WORD = re.compile(r"[^\W\d_]{3,}")
_ANY_WORD = re.compile(r"[^\W\d_]+")
_DIGITS = re.compile(r"\d")
_FIGURES = re.compile(r"[\d ./_-]+")
_DOTTED = re.compile(r"(?:[^\W\d_]\.[ -]?){2,4}")
_MOST_PARTS = 4
"""Most parts of a name that are tried in every order."""

_ROW_VALUES = ("patient_id", "accession_number", "device_serial_number", "institution_name")
_ROW_UIDS = ("study_uid", "series_uid", "sop_instance_uid", "frame_of_reference_uid")


@dataclass(frozen=True)
class Identifiers:
    """Words of names, whole identifiers, and names made of short or ordinary words, all in lower case.

    ``names`` are words of three letters or more that are no words of imaging or reporting, and names written as one
    word; ``numbers`` are values of four characters or more; ``phrases`` are names written out in every order, for "Li
    Wu" and "Hand Young", whose words alone prove nothing; ``wholes`` are parts of names, initials too, that prove
    something only where a text says nothing else; ``unspaced`` are names in scripts without spaces. All are compared as
    ``fold`` writes them. The ``repr`` shows no value.
    """

    names: frozenset[str] = field(default=frozenset(), repr=False)
    numbers: frozenset[str] = field(default=frozenset(), repr=False)
    phrases: frozenset[tuple[str, ...]] = field(default=frozenset(), repr=False)
    wholes: frozenset[str] = field(default=frozenset(), repr=False)
    unspaced: frozenset[str] = field(default=frozenset(), repr=False)
    _patterns: list[re.Pattern[str] | None] = field(default_factory=list, repr=False, compare=False)

    def __or__(self, other: "Identifiers") -> "Identifiers":
        if other._within(self):
            return self
        if self._within(other):
            return other
        return Identifiers(
            self.names | other.names,
            self.numbers | other.numbers,
            self.phrases | other.phrases,
            self.wholes | other.wholes,
            self.unspaced | other.unspaced,
        )

    def _within(self, other: "Identifiers") -> bool:
        return all(mine <= theirs for mine, theirs in zip(self._values(), other._values(), strict=True))

    def _values(self) -> tuple[frozenset[Any], ...]:
        return self.names, self.numbers, self.phrases, self.wholes, self.unspaced

    @property
    def _pattern(self) -> re.Pattern[str] | None:
        if not self._patterns:
            self._patterns.append(_compile(self))
        return self._patterns[0]

    def occur_in(self, text: str) -> bool:
        """Return whether any of the values occurs in ``text``."""
        if self._pattern is None:
            return False
        folded = fold(text)
        if self._pattern.search(folded):
            return True
        words = unspell(folded)
        return words != folded and self._pattern.search(words) is not None

    def are_said_by(self, text: str) -> bool:
        """Return whether any of the values occurs in ``text``, or it says nothing but a part of a name or initials."""
        if self.wholes:
            folded = fold(text).strip()
            alone = _DOTTED.fullmatch(folded)
            said = "".join(folded.split()) if alone else " ".join(_ANY_WORD.findall(folded))
            if said in self.wholes and not _DIGITS.search(folded):
                return True
        return self.occur_in(text)

    def names_both_in(self, text: str) -> bool:
        """Return whether a whole name stands in ``text``, or an initial and a name are all of it, terms or not."""
        words = _ANY_WORD.findall(fold(text))
        return (len(words) > 1 and " ".join(words) in self.wholes) or any(
            pair in self.phrases for pair in pairwise(words)
        )

    def cut_from(self, text: str, mark: str) -> str:
        """Return the text with ``mark`` in place of each of the values."""
        return text if self._pattern is None else replace(self._pattern, text, mark)


NOTHING_KNOWN = Identifiers()


def identifiers_in(datasets: Iterable[Dataset]) -> Identifiers:
    """Return the names and identifiers of the person and the staff that the top level of these objects states.

    Pass the union over all objects of a case to ``deidentify``, because only the images may state a name that was
    written into an ROI of an RTSTRUCT.
    """
    found = NOTHING_KNOWN
    for dataset in datasets:
        names, numbers = tuple(_texts(dataset, _NAME_TAGS)), tuple(_texts(dataset, _ID_TAGS))
        names += tuple(number for number in _texts(dataset, _PATIENT_ID) if is_like_a_name(number))
        born = tuple(_texts(dataset, _BIRTH))
        places = tuple(_texts(dataset, _PLACES))
        if names or numbers or born:
            found = found | _identifiers(names, numbers, born, places)
    return found


def identifiers_of(rows: pa.Table) -> Identifiers:
    """Return the same from rows of the index (schema INSTANCES), which may lack columns."""
    found = NOTHING_KNOWN
    wanted = [n for n in (IDENTITY.name, "patient_birth_date", *_ROW_VALUES, *_ROW_UIDS) if n in rows.column_names]
    own = [n for n in wanted if n not in _ROW_UIDS[2:]]
    for row in rows.select(own).group_by(own).aggregate([]).to_pylist():
        names, numbers = parts_of(row.get(IDENTITY.name))
        names += tuple(filter(is_like_a_name, (row.get("patient_id") or "",)))
        numbers += tuple(str(row[n]) for n in own if n in (*_ROW_VALUES, *_ROW_UIDS) and row[n])
        born, place = row.get("patient_birth_date") or "", row.get("institution_name") or ""
        found = found | _identifiers(names, numbers, (born,), (place,))
    uids = {u for n in _ROW_UIDS[2:] if n in wanted for u in rows.column(n).unique().to_pylist() if u}
    return found | Identifiers(numbers=frozenset(u for u in uids if not is_registered(u)))


def is_like_a_name(patient_id: str) -> bool:
    """Return whether a Patient ID may be a name, as where each patient has a folder: words without a digit."""
    words = _ANY_WORD.findall(fold(patient_id))
    if _DIGITS.search(patient_id) or not words:
        return False
    return bool(UNSPACED_RUN.fullmatch("".join(words))) or len([word for word in words if len(word) > 1]) > 1


def parts_of(identity: str | None, *, leaving: frozenset[str] = frozenset()) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names, and the other identifying values, in a cell of the column ``identity``.

    ``leaving`` names those of ``IDENTITY_COLUMNS`` that leave.
    """
    stated = zip(IDENTITY_COLUMNS, (identity or "").split("\n"), strict=False)
    named = [(c in NAME_COLUMNS, v) for c, line in stated if c.name not in leaving for v in line.split("\\")]
    return tuple(v for is_name, v in named if is_name and v), tuple(v for is_name, v in named if not is_name and v)


def orders_of(name: str) -> Iterator[str]:
    """Return a name as people write it: parts in every order and in pairs, with blanks, commas or carets between."""
    parts = _ANY_WORD.findall(name.lower())[:_MOST_PARTS]
    for count in range(2, len(parts) + 1):
        for ordered in permutations(parts, count):
            yield " ".join(ordered)
            yield "^".join(ordered)
            if count == 2:
                yield ", ".join(ordered)


def forms_of_date(text: str) -> frozenset[str]:
    """Return a date (VR DA) as people and programs write it, in lower case; nothing for a placeholder or no date."""
    digits = text.strip().replace(".", "")
    try:
        day = date(int(digits[:4]), int(digits[4:6]), int(digits[6:])) if re.fullmatch(r"\d{8}", digits) else None
    except ValueError:
        day = None
    if day is None or (day.month, day.day) == (1, 1):  # a first of January stands for a year alone
        return frozenset()
    y, m, d = f"{day.year:04d}", day.month, day.day
    month = _MONTHS[m - 1]
    forms = {f"{y}{m:02d}{d:02d}", f"{d:02d}{m:02d}{y}", f"{m:02d}{d:02d}{y}"}
    short = y[2:]
    forms |= {f"{short}{m:02d}{d:02d}", f"{d:02d}{m:02d}{short}", f"{m:02d}{d:02d}{short}", f"{y}.{m:02d}{d:02d}"}
    forms |= {f"{y}-{m:02d}", f"{m:02d}/{y}", f"{m:02d}-{y}", f"{m:02d}.{y}", f"{m}/{y}"}
    forms |= {f"{y}-{day:%j}", f"{y}{day:%j}", f"{(day - _SPREADSHEETS).days}"}
    for mark in "-./ _":
        for a, b in ((f"{m:02d}", f"{d:02d}"), (str(m), str(d))):
            forms |= {mark.join(order) for order in ((short, a, b), (b, a, short), (a, b, short))}
    for mark in "-./ ":
        for a, b in ((f"{m:02d}", f"{d:02d}"), (str(m), str(d))):
            forms |= {mark.join(order) for order in ((y, a, b), (b, a, y), (a, b, y))}
    for name in (month, month[:3]):
        forms |= {f"{d} {name} {y}", f"{d:02d} {name} {y}", f"{d}. {name} {y}", f"{d:02d}-{name}-{y}"}
        forms |= {f"{name} {d} {y}", f"{name} {d}, {y}", f"{name} {d:02d}, {y}"}
    return frozenset(forms)


_SPREADSHEETS = date(1899, 12, 30)
"""Day 0 of the numbers that spreadsheets have for dates."""

_MONTHS = (
    *("january", "february", "march", "april", "may", "june", "july"),
    *("august", "september", "october", "november", "december"),
)


def _texts(dataset: Dataset, tags: tuple[BaseTag, ...]) -> Iterator[str]:
    """Return the values of ``tags`` as text; plain ASCII needs no decoding of the element."""
    for tag in tags:
        if tag not in dataset:
            continue
        raw = dataset.get_item(tag).value
        if not raw:
            continue
        if isinstance(raw, bytes) and raw.isascii() and b"\x1b" not in raw:
            yield from raw.decode("ascii").strip(" \0").split("\\")
            continue
        try:
            value = dataset[tag].value
        except UNDECODABLE:
            continue  # the walk drops a value that cannot be decoded; it cannot be searched for either
        for part in value if isinstance(value, (list, MultiValue)) else (value,):
            if part:
                yield str(part)


_HOUSES = """
hospital university clinic associates medical center centre institute department klinikum city county north south west
east saint community health care healthcare national children childrens memorial regional laboratory research group
street avenue road school college trust foundation room unit scanner hospitals services private
"""
_OF_HOUSES = frozenset(_HOUSES.split())
"""Words in names of hospitals that do not tell which one it is."""


def _place_words(place: str) -> frozenset[str]:
    """Return the words that tell which hospital it is: its town, saint, founder or street."""
    words = {word for word in spellings(place) if len(word) >= 4}
    makers = {word for name, _ in VENDORS for word in name.lower().split()}
    return frozenset(words - _OF_HOUSES - ordinary_words() - term_words() - makers)


@lru_cache(maxsize=4096)
def _identifiers(
    names: tuple[str, ...], numbers: tuple[str, ...], born: tuple[str, ...], places: tuple[str, ...]
) -> Identifiers:
    """Return the values worth searching for. Objects of a series state the same, so the pattern is compiled once."""
    parts = [_parts(group) for name in names for group in name.split("=")]
    words = frozenset(w for name in parts for w in name if len(w) >= 3 and w not in ordinary_words())
    words |= frozenset(other for name in names for other in spellings(name) if len(other) >= 3) - ordinary_words()
    words |= frozenset(written for name in parts for written in _as_one_word(name)) - ordinary_words()
    words |= frozenset(word for place in places for word in _place_words(place))
    values = {v for v in (fold(n.strip(" \0")) for n in numbers) if len(v) >= 4 and v not in ordinary_words()}
    values = {v for v in values if not is_registered(v)}
    values |= {d for v in values if (d := "".join(_DIGITS.findall(v))) != v and len(d) >= 5}  # a phone without marks
    joined = {"".join(re.findall(r"[^\W_]", v)) for v in values if _DIGITS.search(v)}
    values |= {v for v in joined if len(v) >= 5 and not v.isdigit()}  # "A-12/34" as a1234
    values |= {form for text in born for form in forms_of_date(text)}
    phrases = frozenset(
        pair for name in parts for pair in permutations(name, 2) if not words & {*pair} and len("".join(pair)) >= 4
    )
    wholes = frozenset(alone for name in parts for alone in _said_alone(name))
    return Identifiers(
        words, frozenset(values), phrases, wholes, frozenset(u for p in parts for u in unspaced_forms(p))
    )


def _parts(name: str) -> tuple[str, ...]:
    """Return the words of one way to write a name (PS3.5 6.2.1.2 has up to three, with "=" between them)."""
    return tuple(_ANY_WORD.findall(fold(name)))[:_MOST_PARTS]


def _as_one_word(name: tuple[str, ...]) -> Iterator[str]:
    """Return "smithjohn", "johnsmith", "jsmith", "smithj" and "oneil": how accounts, folders and labels hold a name."""
    for first, second in permutations(name, 2):
        if len(first) + len(second) >= 6 and not UNSPACED_RUN.match(first):
            yield first + second
        if len(second) >= 4:
            yield from (first[0] + second, second + first[0])
    yield from (a + b for a, b in pairwise(name) if len(a) == 1 and len(b) >= 3)
    yield from ("".join(name[start : start + 3]) for start in range(len(name) - 2))  # "vanderberg"


def _said_alone(name: tuple[str, ...]) -> Iterator[str]:
    """Return what is no name inside a sentence, but is one where nothing else is said: "Wu", "Wu, L.", "J.S."."""
    yield from (part for part in name if len(part) > 1 or UNSPACED_RUN.match(part))
    for first, second in permutations(name, 2):
        if len(second) > 1:
            yield from (f"{first[0]} {second}", f"{second} {first[0]}", first + second)
    for count in range(2, len(name) + 1):
        yield from ("".join(f"{part[0]}." for part in order) for order in permutations(name, count))


def _compile(known: Identifiers) -> re.Pattern[str] | None:
    parts = []
    if known.names:
        # A name must be a word of its own: "Long" must not match "prolonged". An underscore separates, as in ROI names.
        names = sorted({fold(name) for name in known.names})
        parts.append(r"(?<![^\W\d_])(?:" + "|".join(map(re.escape, names)) + r")(?![^\W\d_])")
    if known.phrases:
        written = sorted(r"[\W_]{1,3}".join(map(re.escape, phrase)) for phrase in known.phrases)
        parts.append(r"(?<![^\W\d_])(?:" + "|".join(written) + r")(?![^\W\d_])")
    if known.unspaced:
        parts.append("|".join(map(re.escape, sorted(known.unspaced, key=len, reverse=True))))
    # An identifier of digits must not match inside a longer number: "2000" is no part of the code "112000".
    for kind, before, after in ((True, r"(?<!\d)", r"(?!\d)"), (False, "", "")):
        chosen = "|".join(
            re.escape(fold(n)) for n in sorted(known.numbers) if (_FIGURES.fullmatch(n) is not None) is kind
        )
        if chosen:
            parts.append(f"{before}(?:{chosen}){after}")
    return re.compile("|".join(parts)) if parts else None
