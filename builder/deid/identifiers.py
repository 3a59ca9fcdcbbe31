"""What an object says about who it is: the values that must not be found again in anything kept from it."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

from builder.deid.text import ordinary_words

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
    "PatientBirthDate",
    "InstitutionName",
    "InstitutionAddress",
    "InstitutionalDepartmentName",
    "StationName",
)
_NAME_TAGS = tuple(BaseTag(t) for t in map(tag_for_keyword, _NAME_KEYWORDS) if t is not None)
_ID_TAGS = tuple(BaseTag(t) for t in map(tag_for_keyword, _ID_KEYWORDS) if t is not None)
UNDECODABLE = (
    *(ValueError, TypeError, LookupError, NotImplementedError, AttributeError, OverflowError, EOFError),
    *(BytesLengthException, InvalidDicomError),
)
"""What pydicom raises for a value that is not what its VR says."""

_WORD = re.compile(r"[^\W\d_]{3,}")


@dataclass(frozen=True)
class Identifiers:
    """Words of names (three letters or more, no ordinary imaging word) and whole identifiers (four characters or more).

    ``names`` and ``numbers`` are lower case. Their ``repr`` shows no value.
    """

    names: frozenset[str] = field(default=frozenset(), repr=False)
    numbers: frozenset[str] = field(default=frozenset(), repr=False)
    _patterns: list[re.Pattern[str] | None] = field(default_factory=list, repr=False, compare=False)

    def __or__(self, other: "Identifiers") -> "Identifiers":
        if other.names <= self.names and other.numbers <= self.numbers:
            return self
        if self.names <= other.names and self.numbers <= other.numbers:
            return other
        return Identifiers(self.names | other.names, self.numbers | other.numbers)

    @property
    def pattern(self) -> re.Pattern[str] | None:
        """Finds any of the values, whatever their case; None when there is none."""
        if not self._patterns:
            self._patterns.append(_compile(self.names, self.numbers))
        return self._patterns[0]

    def occur_in(self, text: str) -> bool:
        """Whether any of the values is found in ``text``."""
        pattern = self.pattern
        return pattern is not None and pattern.search(text) is not None


NOTHING_KNOWN = Identifiers()


def identifiers_in(datasets: Iterable[Dataset]) -> Identifiers:
    """The names and identifiers the top level of these objects states about the person and the staff.

    Give the union over all objects of a case to ``deidentify``: a name written into an RTSTRUCT's ROI may be stated
    only by the images it belongs to.
    """
    found = NOTHING_KNOWN
    for dataset in datasets:
        names = tuple(_texts(dataset, _NAME_TAGS))
        numbers = tuple(_texts(dataset, _ID_TAGS))
        if names or numbers:
            found = found | _identifiers(names, numbers)
    return found


def _texts(dataset: Dataset, tags: tuple[BaseTag, ...]) -> Iterator[str]:
    """The values of ``tags`` as text, plain ASCII ones without decoding the element."""
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


@lru_cache(maxsize=4096)
def _identifiers(names: tuple[str, ...], numbers: tuple[str, ...]) -> Identifiers:
    """The values worth searching for; the objects of a series state the same ones, so the pattern is compiled once."""
    words = frozenset(w for name in names for w in _WORD.findall(name.lower()) if w not in ordinary_words())
    values = frozenset(v for v in (n.strip().lower() for n in numbers) if len(v) >= 4 and v not in ordinary_words())
    return Identifiers(words, values)


def _compile(names: frozenset[str], numbers: frozenset[str]) -> re.Pattern[str] | None:
    parts = []
    if names:
        # A name counts as a word of its own: "Long" must not hit "prolonged". An underscore separates, as in ROI names.
        parts.append(r"(?<![^\W\d_])(?:" + "|".join(re.escape(n) for n in sorted(names)) + r")(?![^\W\d_])")
    # An identifier of digits alone must not hit inside a longer number: "2000" is no part of the code "112000".
    for kind, before, after in ((True, r"(?<!\d)", r"(?!\d)"), (False, "", "")):
        chosen = "|".join(re.escape(n) for n in sorted(numbers) if n.isdigit() is kind)
        if chosen:
            parts.append(f"{before}(?:{chosen}){after}")
    return re.compile("|".join(parts), re.IGNORECASE) if parts else None
