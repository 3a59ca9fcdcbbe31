"""Make what a hospital's warehouse would hold of the archive's persons: FHIR R4 bundles and OMOP CDM 5.4 tables."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

MRN_SYSTEM: Final = "urn:oid:2.25.1001"
CANCER, OTHER, COMMON = "C34.9", "D14.3", "I10"
"""ICD-10 codes of a cancer of the lung, a benign tumour of it, and what every person has."""

CONCEPTS: Final = {CANCER: 2_000_000_001, OTHER: 2_000_000_002, COMMON: 2_000_000_003}
"""Local concept ids, for OMOP leaves those from 2,000,000,000 on to its users."""

PHENOTYPE: Final = "cancer_within_a_year"
YEAR: Final = 365

_STORIES: Final[tuple[tuple[str, int | None] | None, ...]] = (
    None, (CANCER, 120), (CANCER, -200), (CANCER, 500), (OTHER, 60), (CANCER, None), (CANCER, 365),
)  # fmt: skip
"""Code and day after the first visit, by the number of the person in rotation; a code may have lost its day."""


@dataclass(frozen=True)
class Warehouse:
    """Paths below the folder of the archive to the bytes of files, and the answer key of the phenotype by study."""

    files: Mapping[str, bytes]
    truth: Mapping[str, bool | None]


def warehouse(people: Sequence[Mapping[str, Any]]) -> Warehouse:
    """Return the warehouse of persons, given as they are in ``truth.json``.

    The phenotype is a cancer within a year after the study (its own day included), for those without an earlier code or
    one without a day; nobody else has such a code.
    """
    files: dict[str, bytes] = {}
    truth: dict[str, bool | None] = {}
    conditions: list[tuple[int, str, str]] = []
    for number, person in enumerate(people, start=1):
        visits = [(visit["study_uid"], _day(visit["date"])) for visit in person["visits"]]
        first = min(day for _, day in visits)
        told = _STORIES[(number - 1) % len(_STORIES)]
        events: list[tuple[str, date | None]] = [(COMMON, first - timedelta(days=900))]
        if told is not None:
            events.append((told[0], None if told[1] is None else first + timedelta(days=told[1])))
        conditions += [(number, code, "" if day is None else day.isoformat()) for code, day in events]
        files[f"warehouse/fhir/{number:04d}.json"] = _bundle(number, person, visits, events)
        truth |= {uid: _is_case(told, first, day) for uid, day in visits}
    return Warehouse({**files, **_omop(people, conditions)}, truth)


def _is_case(told: tuple[str, int | None] | None, first: date, study: date) -> bool | None:
    """Return the answer by the story of a person, without looking at events."""
    if told is None or told[0] != CANCER:
        return False
    if told[1] is None or told[1] < (study - first).days:
        return None
    return told[1] - (study - first).days <= YEAR


def _day(text: str) -> date:
    return datetime.strptime(text, "%Y%m%d").date()


def _bundle(
    number: int,
    person: Mapping[str, Any],
    visits: Sequence[tuple[str, date]],
    events: Sequence[tuple[str, date | None]],
) -> bytes:
    subject = {"reference": f"Patient/p{number}"}
    mrn = person["visits"][0]["patient_ids"][0]
    resources: list[dict[str, Any]] = [
        {"resourceType": "Patient", "id": f"p{number}", "identifier": [{"system": MRN_SYSTEM, "value": mrn}]}
    ]
    for place, (code, day) in enumerate(events):
        concept = {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10", "code": code}]}
        dated = {} if day is None else {"onsetDateTime": day.isoformat()}
        own = {"resourceType": "Condition", "id": f"p{number}-c{place}", "subject": subject, "code": concept}
        resources.append({**own, **dated})
    for place, (uid, day) in enumerate(visits):
        identifier = [{"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}]
        study = {"resourceType": "ImagingStudy", "id": f"p{number}-i{place}", "status": "available", "subject": subject}
        resources.append({**study, "identifier": identifier, "started": day.isoformat()})
    entries = [{"fullUrl": f"urn:phantom:{resource['id']}", "resource": resource} for resource in resources]
    return (json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}, indent=1) + "\n").encode()


def _omop(people: Sequence[Mapping[str, Any]], conditions: Sequence[tuple[int, str, str]]) -> dict[str, bytes]:
    persons = [[n, person["visits"][0]["patient_ids"][0]] for n, person in enumerate(people, start=1)]
    events = [[n, who, CONCEPTS[code], day, code] for n, (who, code, day) in enumerate(conditions, start=1)]
    images = [
        [n, visit["study_uid"], _day(visit["date"]).isoformat()]
        for n, person in enumerate(people, start=1)
        for visit in person["visits"]
    ]
    tables = {
        "PERSON": (["person_id", "person_source_value", "gender_concept_id"], [[*row, 0] for row in persons]),
        "CONDITION_OCCURRENCE": (
            ["condition_occurrence_id", "person_id", "condition_concept_id", "condition_start_date",
             "condition_source_value"], events,
        ),
        "IMAGE_OCCURRENCE": (
            ["image_occurrence_id", "person_id", "image_study_UID", "image_series_UID", "image_occurrence_date",
             "modality_concept_id"], [[n, who, uid, "", day, 0] for n, (who, uid, day) in enumerate(images, start=1)],
        ),
        "CONCEPT": (
            ["concept_id", "concept_name", "vocabulary_id", "concept_code"],
            [[name, "synthetic", "PHANTOM", code] for code, name in CONCEPTS.items()],
        ),
    }  # fmt: skip
    return {f"warehouse/omop/{name}.csv": _csv(*table) for name, table in tables.items()}


def _csv(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([headings, *rows])
    return stream.getvalue().encode()
