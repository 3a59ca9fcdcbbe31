"""Nested JSON of the GDC, made by its documented schema from the rows of a Biotab file, against that file itself."""

from typing import Any

import pytest

from builder.clinical import read_sheet
from builder.errors import SpecError
from builder.extracts import Gdc
from tests.extracts.test_fhir import Files

MISSING = {"[Not Available]", "[Not Applicable]", "[Unknown]", "[Not Evaluated]"}


def taken(entity: str, **files: Any) -> Any:
    return Gdc(kind="gdc", url="there", entity=entity).take(Files(**files))


@pytest.fixture(scope="module")
def biotab(corpus) -> list[dict[str, str]]:
    """The patients of TCGA-KIRC as the clinical room reads the Biotab file."""
    sheet = read_sheet((corpus("tables") / "tables" / "tcga_clinical_patient_kirc.txt").read_bytes())
    return [dict(zip(sheet.headings, cells, strict=True)) for _, cells in sheet.texts()]


def as_case(row: dict[str, str]) -> dict[str, Any]:
    """A case by the GDC's data dictionary: ages and times in days, and "not reported" for what is not there."""

    def said(name: str) -> str | None:
        return None if row[name] in MISSING else row[name]

    def days(name: str) -> int | None:
        return int(row[name]) if (said(name) or "").lstrip("-").isdigit() else None

    birth = days("birth_days_to")
    return {
        "case_id": row["bcr_patient_uuid"].lower(),
        "submitter_id": row["bcr_patient_barcode"],
        "project": {"project_id": "TCGA-KIRC"},
        "demographic": {
            "gender": row["gender"].lower(), "vital_status": row["vital_status"],
            "race": (said("race") or "not reported").lower(), "days_to_birth": birth,
            "days_to_death": days("death_days_to"),
        },
        "diagnoses": [{
            "diagnosis_id": f"d-{row['bcr_patient_barcode']}", "laterality": row["laterality"].lower(),
            "ajcc_pathologic_stage": said("ajcc_pathologic_tumor_stage"),
            "age_at_diagnosis": None if birth is None else -birth,
            "treatments": [{"treatment_type": kind, "treatment_or_therapy": row["radiation_treatment_adjuvant"].lower()}
                           for kind in ("Radiation Therapy, NOS", "Pharmaceutical Therapy, NOS")],
        }],
        "exposures": [],
    }  # fmt: skip


def test_json_made_of_biotab_rows_gives_what_the_biotab_file_gives(biotab):
    cases = [as_case(row) for row in biotab]
    assert len(cases) > 500
    for document in (cases, {"data": {"hits": cases, "pagination": {"count": len(cases)}}, "warnings": {}}):
        found = taken("diagnoses", clinical__json=document).table.to_pylist()
        assert len(found) == len(biotab)
        for row, told in zip(biotab, found, strict=True):
            assert told["submitter_id"] == row["bcr_patient_barcode"]
            assert told["demographic.gender"] == row["gender"].lower()
            assert told["demographic.race"] == (None if row["race"] in MISSING else row["race"].lower())
            stage = row["ajcc_pathologic_tumor_stage"]
            assert told["diagnoses.ajcc_pathologic_stage"] == (None if stage in MISSING else stage)
            age = row["birth_days_to"]
            assert told["diagnoses.age_at_diagnosis"] == (None if age in MISSING else age.removeprefix("-"))
            death = row["death_days_to"]
            assert told["demographic.days_to_death"] == (death if death.isdigit() else None)


def test_each_entity_has_rows_of_its_own(biotab):
    cases = [as_case(row) for row in biotab[:40]]
    cases[0]["diagnoses"] = []
    cases[1]["follow_ups"] = [
        {"days_to_follow_up": 3, "molecular_tests": [{"gene_symbol": "VHL"}, {"gene_symbol": "PBRM1"}]}
    ]
    cases[2]["disease_types"] = ["one", "two"]
    assert taken("cases", a__json=cases).table.num_rows == 40
    assert taken("cases", a__json=cases[:2], b__json=cases[2:]).table.num_rows == 40
    treated = taken("treatments", a__json=cases)
    assert treated.table.num_rows == 78
    assert treated.notes == ("1 of 40 cases have no treatments",)
    assert treated.table["diagnoses.diagnosis_id"].null_count == 0
    tests = taken("molecular_tests", a__json=cases).table.to_pylist()
    assert [(row["follow_ups.days_to_follow_up"], row["molecular_tests.gene_symbol"]) for row in tests] == [
        ("3", "VHL"), ("3", "PBRM1")
    ]  # fmt: skip
    assert taken("cases", a__json=cases).table["disease_types"].to_pylist()[:3] == [None, None, "one;two"]


@pytest.mark.parametrize("data", [b"{", b"[" * 100_000, [{"name": "Meyer"}], {"data": []}, [1]])
def test_files_that_are_none_are_named_by_number(data):
    with pytest.raises(SpecError, match="gdc cases: file 1: found") as refused:
        taken("cases", Meyer__json=data)
    assert "Meyer" not in str(refused.value)
    with pytest.raises(SpecError, match="found no case"):
        taken("cases", Meyer__txt=b"")
