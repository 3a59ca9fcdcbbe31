"""Score the header walk: real headers of the corpus, planted values, and what the walk leaves of both."""

import io
import random
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from pydicom import Dataset, config, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from builder.deid import Deid
from builder.deid.headers import deidentify
from builder.deid.identifiers import identifiers_in
from builder.deid.pixels import judge_pixels
from builder.deid.profile import Profile
from builder.deid.uids import UidMap
from builder.deid.values import shift_of
from builder.errors import CaseError
from builder.model.keyed import Key
from builder.release.cleaning import Rules, Whose, clean_object
from builder.release.labels import keep_labels
from builder.release.references import Released, prune
from builder.release.unit import file_bytes
from tests.score.actions import Tally
from tests.score.people import Human, human
from tests.score.planting import SCIENCE_NUMBERS, SCIENCE_TEXT, Planted, plant

LARGEST = 40_000
"""Bytes of a header at most: huge enhanced objects say the same again and again."""
SERIES_EACH = 3
"""Objects that one person has: their UIDs and dates must agree."""


@dataclass(frozen=True)
class Person:
    """What the key of one person rests on."""

    human: Human
    study: str
    series: str
    frame: str
    studied: date


def real_headers(corpus: Path, most: int) -> list[bytes]:
    """Headers of the corpus, one a series, as bytes before the pixels."""
    found: dict[tuple[str, str, str], bytes] = {}
    for path in sorted(p for p in corpus.rglob("*") if p.is_file() and "malformed" not in p.parts):
        header = _read(path)
        if header is None:
            continue
        key = (path.parent.name, str(header.get("SeriesInstanceUID")), str(header.get("SOPClassUID")))
        if key not in found and not _shows_text(header):
            data = _bytes(header)
            if data is not None and len(data) <= LARGEST:
                found[key] = data
    chosen = list(found.values())
    random.Random(16).shuffle(chosen)
    return chosen[:most]


def _read(path: Path) -> Dataset | None:
    try:
        with path.open("rb") as file:
            if file.read(132)[128:] != b"DICM":
                return None
        header = dcmread(path, stop_before_pixels=True)
        scored = not str(header.get("SOPClassUID", "")).startswith(_NOT_SCORED) and "SOPClassUID" in header
        return header if scored and "BurnedInAnnotation" not in header else None
    except (InvalidDicomError, ValueError, KeyError, OSError, AttributeError, NotImplementedError, EOFError):
        return None


def _shows_text(header: Dataset) -> bool:
    """Whether the default refuses the picture as it is, before anything is planted (overlays in its pixels)."""
    try:
        judge_pixels(header, deid=_DEID)
    except CaseError:
        return True
    return False


_NOT_SCORED = (
    "1.2.840.10008.5.1.4.1.1.7",  # secondary captures
    "1.2.840.10008.5.1.4.1.1.104",  # documents
    "1.2.840.10008.5.1.4.1.1.77.1",  # photographs, slides
    "1.2.840.10008.5.1.4.1.1.12",  # angiography
    "1.2.840.10008.5.1.4.1.1.3",  # ultrasound of several frames
    "1.2.840.10008.5.1.4.1.1.6",  # ultrasound
)
"""Classes whose pictures show text as a rule: ``tests.score.pictures`` scores those."""


def _bytes(dataset: Dataset) -> bytes | None:
    """An object as a file, in the syntax that headers without pixels have."""
    try:
        implicit = bool(dataset.original_encoding[0])
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=False, implicit_vr=implicit, little_endian=True)
        return buffer.getvalue()
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, NotImplementedError):
        return None


def walked(source: Dataset, person: Person, uids: UidMap) -> Dataset:
    """The object as the header walk leaves it."""
    known = identifiers_in((source,))
    return deidentify(source, profile=Profile(), uids=uids, person=person.human.mrn, known=known)


def released(source: Dataset, person: Person, uids: UidMap) -> Dataset:
    """The object as a release writes it, read again: cleaned, its references checked, and written as a file."""
    rules = Rules(Profile(), uids, retain=frozenset({"sex", "age_years"}))
    moved = shift_of(uids.key, person.study)
    clean = clean_object(source, rules, Whose(PSEUDONYM, moved, identifiers_in((source,))))
    keep_labels(clean, frozenset())
    series, instance = str(clean.SeriesInstanceUID), (str(clean.SOPClassUID), str(clean.SOPInstanceUID))
    prune(clean, Released({series: [instance]}, {series: str(clean.StudyInstanceUID)}))
    return dcmread(io.BytesIO(file_bytes(clean)))


PSEUDONYM = "0123456789abcdefghjkmnpqrs"
Cleaned = Callable[[Dataset, Person, UidMap], Dataset]


def score_headers(
    headers: list[bytes], tally: Tally, *, actions: int, seed: int = 16, clean: Cleaned = walked
) -> list[tuple[str, str]]:
    """Plant into the headers again and again, with other people, until so many actions are counted.

    ``clean`` is what is scored: the walk alone, or what a release writes.

    Returns
    -------
    list
        (PatientID, StudyInstanceUID) of every object that was made.
    """
    rng, uids = random.Random(seed), UidMap(Key(b"a key of the score, thirty-two by"))
    identities: list[tuple[str, str]] = []
    config.settings.writing_validation_mode = config.IGNORE
    config.settings.reading_validation_mode = config.IGNORE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        number = 0
        while sum(tally.asked.values()) < actions:
            person = _person(rng, number)
            for _ in range(SERIES_EACH):
                made = _made(headers[number % len(headers)], person, rng, number)
                if made is not None:
                    identities.append((person.human.mrn, person.study))
                    _score(*made, person, uids, tally, clean)
                number += 1
    return identities


def _person(rng: random.Random, number: int) -> Person:
    root = f"1.3.6.1.4.1.{rng.randrange(10**5, 10**6)}.{rng.randrange(10**8, 10**9)}"
    day = date(2010, 1, 1) + timedelta(days=rng.randrange(4000))
    return Person(human(rng), f"{root}.{number}.1", f"{root}.{number}.2", f"{root}.{number}.3", day)


def _made(header: bytes, person: Person, rng: random.Random, number: int) -> tuple[Dataset, Dataset, Planted] | None:
    """The source as read again, the source as it was before planting, and the key."""
    before = dcmread(io.BytesIO(header), force=True)
    planted = dcmread(io.BytesIO(header), force=True)
    uids = {"StudyInstanceUID": person.study, "SeriesInstanceUID": person.series,
            "SOPInstanceUID": f"{person.series}.{number}", "FrameOfReferenceUID": person.frame}  # fmt: skip
    try:
        key = plant(planted, person.human, rng, uids=uids, studied=person.studied)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, NotImplementedError):
        return None  # the source itself cannot be changed: a broken file of the corpus
    data = _bytes(planted)
    return None if data is None else (before, dcmread(io.BytesIO(data), force=True), key)


def _score(
    before: Dataset, source: Dataset, key: Planted, person: Person, uids: UidMap, tally: Tally, cleaned: Cleaned
) -> None:
    try:
        judge_pixels(source, deid=_DEID)
        clean = cleaned(source, person, uids)
        said = _whole(clean)
    except CaseError as refused:
        clean, said = None, b""
        tally.refused[refused.reason.value] += 1
    _removed(key, said, tally, clean)
    if clean is None:
        clean = Dataset()
    _dates(key, clean, person, tally)
    for place, uid in key.uids:
        tally.count("uid_changed", place, done=uid.encode() not in said)
    for place, uid in key.uids[:4]:
        found = str(clean.get(place, ""))
        tally.count("uid_consistent", place, done=found == uids(uid) and found != uid)
    for place, uid in key.references:
        texts = _at(clean, place)
        if texts or place.split("/")[0] in _LINKS:
            tally.count("uid_consistent", place, done=texts[-1:] == [uids(uid)])
    _retained(before, clean, key, tally)
    for keyword in _NOT_EMPTY:
        if before.get(keyword) not in (None, ""):
            tally.count("text_notnull", keyword, done=clean.get(keyword) not in (None, ""))


_LOOKED_AT = ("US", "XA", "OT", "SC", "OP", "SM", "XC", "RF", "GM", "ES", "EC")
_DEID = Deid(patient_key="${env:BUILDER_KEY}", reviewed=_LOOKED_AT)
"""A spec whose author looked at the pictures: pixels are scored apart (``tests.score.pictures``)."""
_LINKS = ("ReferencedImageSequence", "SourceImageSequence")
"""Sequences by which labels find their images."""
_NOT_EMPTY = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "StudyDate", "ContentDate"),
    *("SeriesDate", "FrameOfReferenceUID", "Rows", "Columns", "PixelSpacing", "ImagePositionPatient"),
)
"""Attributes of type 1 in images and labels, and the dates that science needs."""


def _removed(key: Planted, said: bytes, tally: Tally, clean: Dataset | None) -> None:
    left = {secret: where for _, secret in key.texts if (where := _found(secret, said)) is not None}
    blamed: set[str] = set()
    for place, secret in key.texts:
        bad = clean is not None and secret.encode() in said and any(secret in t.lower() for t in _at(clean, place))
        blamed |= {secret} if bad else set()
        tally.count("text_removed", place, done=not bad, example=secret)
    for secret in left.keys() - blamed:
        tally.count("text_removed", "elsewhere", done=False, example=(secret, left[secret]))


def _found(secret: str, said: bytes) -> str | None:
    """Where a secret stands.

    A number of some digits stands by chance in keyed UIDs, which have 39, and in the decimals of coordinates. Inside
    any other number it counts.
    """
    text = said.decode(errors="replace")
    place = text.find(secret)
    if place >= 0 and secret.isdigit():
        runs = (run for run in re.finditer(r"\d+", text) if secret in run[0])
        place = next((run.start() for run in runs if run[0] == secret or not _by_chance(run)), -1)
    return None if place < 0 else text[max(place - 40, 0) : place + 60]


def _by_chance(run: re.Match[str]) -> bool:
    decimals = run.string[max(run.start() - 1, 0) : run.start()] == "."
    return len(run[0]) >= 20 or decimals


def _dates(key: Planted, clean: Dataset, person: Person, tally: Tally) -> None:
    """Dates must be gone or moved, all of them by as many days, and those that science needs must be there."""
    moved = _day(clean.get("StudyDate"))
    shift = None if moved is None else (moved - person.studied).days
    for keyword, day in key.dates:
        found = _day(clean.get(keyword))
        needed = keyword in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")
        gone = found is None and not needed
        tally.count("date_shifted", keyword, done=gone or (found is not None and (found - day).days == shift != 0))


def _day(value: object) -> date | None:
    text = str(value or "")
    if not text[:8].isdigit() or text.startswith("19000101"):
        return None
    return date(int(text[:4]), int(text[4:6]), int(text[6:8]))


def _retained(before: Dataset, clean: Dataset, key: Planted, tally: Tally) -> None:
    for keyword, value in key.kept:
        found = str(clean.get(keyword, ""))
        tally.count("text_retained", keyword, done=found.upper() == value, example=(value, found))
    for kind, keywords in (("text_retained", SCIENCE_TEXT), ("tag_retained", SCIENCE_NUMBERS)):
        for keyword in keywords:
            value = before.get(keyword)
            if value not in (None, "") and not (keyword == "SOPClassUID" and not value.startswith(_DICOM)):
                tally.count(kind, keyword, done=_same(value, clean.get(keyword)), example=(value, clean.get(keyword)))


_DICOM = "1.2.840.10008."
"""Private classes are somebody's: their UIDs are replaced like any other."""


def _same(before: object, after: object) -> bool:
    return " ".join(str(before).split()) == " ".join(str(after).split())


def _at(dataset: Dataset, place: str) -> list[str]:
    """What an object says at a place of the key; of private places and file meta whatever is there."""
    if place.startswith("file meta "):
        return [str(dataset.file_meta.get(place.removeprefix("file meta "), ""))]
    if place.startswith("private "):
        return [str(e.value) for e in dataset.iterall() if e.tag.is_private]
    level = [dataset]
    *sequences, keyword = place.split("/")
    for name in sequences:
        level = [item for d in level for item in (d.get(name) or [])]
    return [str(d.get(keyword)) for d in level if d.get(keyword) is not None]


def _whole(dataset: Dataset) -> bytes:
    """Every value of an object and of its file meta, lower case, as it stands in memory or would be written."""
    found: list[bytes] = []
    todo = [dataset, dataset.file_meta]
    while todo:
        for element in todo.pop().values():
            value = element.value
            if isinstance(value, Sequence):
                todo += list(value)
            else:
                found.append(value if isinstance(value, bytes) else str(value).encode())
    return b"\\".join(found).lower()
