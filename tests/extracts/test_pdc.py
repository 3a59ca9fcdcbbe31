"""Answers of the PDC, made by the types of its GraphQL schema from the rows of a Biotab file, against that file."""

from typing import Any

import pytest

from builder.errors import SpecError
from builder.extracts import Pdc
from tests.extracts.test_fhir import Files
from tests.extracts.test_gdc import MISSING, biotab

__all__ = ["biotab"]  # the fixture

CASE = ("case_id", "case_submitter_id", "disease_type", "primary_site")
CLINICAL = (
    "demographic_id", "ethnicity", "gender", "race", "vital_status", "diagnosis_id", "age_at_diagnosis", "laterality",
    "ajcc_pathologic_stage", "tumor_grade",
)  # fmt: skip
"""Fields of the types Case and Clinical (``graphql/pdc/schemas`` of the PDC's public code); all are texts or null."""


def taken(entity: str, **files: Any) -> Any:
    return Pdc(kind="pdc", url="there", entity=entity).take(Files(**files))


def said(row: dict[str, str], name: str) -> str:
    return "Not Reported" if row[name] in MISSING else row[name]


def as_case(row: dict[str, str]) -> dict[str, str | None]:
    """A value of the type Case, without what is nested."""
    found = (row["bcr_patient_uuid"].lower(), row["bcr_patient_barcode"], "Adenomas and Adenocarcinomas", "Kidney")
    return dict(zip(CASE, found, strict=True))


def as_clinical(row: dict[str, str]) -> dict[str, str | None]:
    """The fields that the type Clinical adds."""
    age = row["birth_days_to"]
    found = (
        f"m-{row['bcr_patient_barcode']}", said(row, "ethnicity"), row["gender"].lower(), said(row, "race").lower(),
        row["vital_status"], f"d-{row['bcr_patient_barcode']}", None if age in MISSING else age.removeprefix("-"),
        row["laterality"], said(row, "ajcc_pathologic_tumor_stage"), said(row, "tumor_grade"),
    )  # fmt: skip
    return dict(zip(CLINICAL, found, strict=True))


def answer(query: str, cases: list[dict[str, Any]], page: str = "") -> dict[str, Any]:
    found: Any = {"total": len(cases), page: cases, "pagination": {"count": len(cases), "from": 0}} if page else cases
    return {"data": {query: found}}


def test_answers_made_of_biotab_rows_give_what_the_biotab_file_gives(biotab):
    flat = [as_case(row) | as_clinical(row) for row in biotab]
    nested, people = [], []
    for row in biotab:
        clinical = as_clinical(row)
        people.append(as_case(row) | {"demographics": [{name: clinical[name] for name in CLINICAL[:5]}]})
        nested.append(as_case(row) | {"diagnoses": [{name: clinical[name] for name in CLINICAL[5:]}]})
    by_study = taken("cases", a__json=answer("clinicalPerStudy", flat)).table.to_pylist()
    by_page = taken(
        "diagnoses",
        a__json=answer("paginatedCaseDiagnosesPerStudy", nested[:300], "caseDiagnosesPerStudy"),
        b__json=answer("paginatedCaseDiagnosesPerStudy", nested[300:], "caseDiagnosesPerStudy"),
        c__json=answer("paginatedCaseDemographicsPerStudy", people, "caseDemographicsPerStudy"),
        d__json=answer("allCases", [as_case(row) for row in biotab]),
    )
    assert by_page.notes == ()
    assert len(by_study) == by_page.table.num_rows == len(biotab) > 500
    for row, one, other in zip(biotab, by_study, by_page.table.to_pylist(), strict=True):
        assert one["case_submitter_id"] == other["case_submitter_id"] == row["bcr_patient_barcode"]
        assert one["gender"] == other["demographics.gender"] == row["gender"].lower()
        race = None if row["race"] in MISSING else row["race"].lower()
        assert one["race"] == other["demographics.race"] == race
        stage = None if (found := row["ajcc_pathologic_tumor_stage"]) in MISSING else found
        assert one["ajcc_pathologic_stage"] == other["diagnoses.ajcc_pathologic_stage"] == stage
        age = None if row["birth_days_to"] in MISSING else row["birth_days_to"].removeprefix("-")
        assert one["age_at_diagnosis"] == other["diagnoses.age_at_diagnosis"] == age


def test_entities_are_rows_and_answers_about_one_case_are_put_together():
    case = {"case_id": "1", "case_submitter_id": "C1", "demographics": [{"gender": "female"}]}
    follow_ups = [{"follow_up_id": "f1", "days_to_follow_up": "3"}, {"follow_up_id": "f2", "days_to_follow_up": "9"}]
    treated = {"case_id": "2", "treatments": [{"treatment_type": "Surgery"}], "follow_ups": None}
    files = {"a__json": answer("case", [case | {"follow_ups": follow_ups[:1]}, treated]),
             "b__json": answer("case", [case | {"follow_ups": follow_ups, "primary_site": "Breast"}])}  # fmt: skip
    found = taken("follow_ups", **files)
    assert found.notes == ("1 of 2 cases have no follow_ups",)
    assert [(row["primary_site"], row["demographics.gender"], row["follow_ups.days_to_follow_up"])
            for row in found.table.to_pylist()] == [("Breast", "female", "3"), ("Breast", "female", "9")]  # fmt: skip
    assert taken("demographics", **files).table.num_rows == 1
    assert taken("cases", **files).table.num_rows == 2
    with pytest.raises(SpecError, match="file 2: found another case_submitter_id of a case"):
        taken("cases", a__json=answer("case", [case]), b__json=answer("case", [case | {"case_submitter_id": "C2"}]))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "found no JSON"), ([{"case_id": "Meyer"}], "found no answer about cases"),
        ({"data": {"clinicalMetadata": [{"aliquot_id": "Meyer"}]}}, "found no answer about cases"),
        ({"data": {"case": [{"case_submitter_id": "Meyer"}]}}, "found a case without a case_id"),
        ({"data": {"case": []}, "errors": [{"message": "Meyer"}]}, "tells of errors"),
        ({"data": {"case": None}}, "found no case in"),
    ],
)  # fmt: skip
def test_files_that_are_no_answers_are_named_by_number(data, message):
    with pytest.raises(SpecError, match=message) as refused:
        taken("cases", Meyer__json=data)
    assert "pdc cases" in str(refused.value)
    assert "Meyer" not in str(refused.value)
