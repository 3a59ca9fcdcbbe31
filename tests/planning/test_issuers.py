"""Patients' numbers joined together with who issued them (0010,0021), and who has images but no row."""

from typing import Any

import pytest

from builder.errors import SpecError
from builder.model.options import withhold_locations
from builder.run.pipeline import plan
from builder.spec import DatasetSpec
from tests.endtoend.trees import KEY
from tests.synthetic import ct_series

GRADE = {"grade": {"from": "Grade", "type": "category"}}
IMAGES = (
    ("1.2.1", "NORTH", "7"), ("1.2.2", "SOUTH", "7"), ("1.2.3", None, "8"), ("1.2.4", "north ", "9"),
    ("1.2.4", "SOUTH", "10"),
)  # fmt: skip
"""Study, issuer and number: two persons have the number 7, and one has two numbers, which a study tells."""


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Plan with a table given as its options and text: study to grade, and what is said of the table."""
    top = tmp_path_factory.mktemp("issuers")
    for study, issuer, number in IMAGES:
        who = {} if issuer is None else {"IssuerOfPatientID": issuer}
        ct_series(
            top / "archive" / f"{study}-{number}", slices=3, shape=(16, 16), patient_id=number,
            series=f"{study}-{number}", attributes={"StudyInstanceUID": study, **who},
        )  # fmt: skip

    def ask(text: str, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        (top / "table.csv").write_text(f"mrn,hospital,Grade\n{text}")
        spec = {
            "name": "issuers", "license": "CC0-1.0", "sources": [{"kind": "folder", "url": str(top / "archive")}],
            "clinical": [{"url": str(top / "table.csv"), "columns": GRADE, **options}],
            "deid": {"patient_key": "${env:BUILDER_KEY}"}, "samples": {"kind": "volumes"},
        }  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BUILDER_KEY", KEY)
            planned = plan(DatasetSpec.model_validate(spec), to=top / "data").plan
        names = {planned.key.name("study", study): study for study, _, _ in IMAGES}
        rows = planned.cohort.select(["study_key", "grade"]).to_pylist()
        return {names[row["study_key"]]: row["grade"] for row in rows}, dict(planned.clinical[0])

    return ask


ROWS = "7,NORTH,low\n7,south,high\n8,NORTH,nobody\n10,NORTH,nobody\n10,SOUTH,mid\n99,NORTH,gone\n"


def test_a_row_belongs_to_a_number_of_its_own_issuer(asked: Any) -> None:
    grades, facts = asked(ROWS, by={"mrn": "person", "hospital": "issuer"})
    # no number of the last study is 10 of NORTH
    assert grades == {"1.2.1": "low", "1.2.2": "high", "1.2.3": None, "1.2.4": "mid"}
    assert (facts["rows"], facts["rows_without_image"], facts["clinical_only"]) == (6, 3, 3)
    assert facts["levels"] == {
        "person": {"with_images": 4, "with_a_row": 3}, "study": {"with_images": 4, "with_a_row": 3},
        "series": {"with_images": 5, "with_a_row": 4},
    }  # fmt: skip


def test_a_number_alone_may_be_two_persons(asked: Any) -> None:
    with pytest.raises(SpecError, match="1 row names several persons"):
        asked("7,NORTH,low\n", person_id="mrn")


def test_the_issuer_of_a_table_and_other_words_for_issuers(asked: Any) -> None:
    grades, _ = asked("7,,low\n9,,high\n10,,no\n", person_id="mrn", issuer="North")
    assert grades == {"1.2.1": "low", "1.2.2": None, "1.2.3": None, "1.2.4": "high"}
    by = {"by": {"mrn": "person", "hospital": "issuer"}, "issuer_names": {"urn:oid:1.2": "SOUTH"}}
    grades, _ = asked("7,urn:oid:1.2,high\n10,urn:oid:1.2,low\n7,urn:oid:1.3,no\n", **by)
    assert grades == {"1.2.1": None, "1.2.2": "high", "1.2.3": None, "1.2.4": "low"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": {"uid": "study"}, "issuer": "N"}, "an issuer without a column for the person"),
        ({"by": {"h": "issuer"}}, "an issuer without a column for the person"),
        ({"person_id": "m", "by": {"h": "issuer"}, "issuer": "N"}, "an issuer of the table and a column of issuers"),
        ({"person_id": "m", "issuer_names": {"a": "b"}}, "issuer_names without a column of issuers"),
    ],
)
def test_issuers_that_say_nothing_are_refused(asked: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        asked("", **options)


def test_who_issues_numbers_is_not_published() -> None:
    spec = DatasetSpec.model_validate({
        "name": "x", "license": "CC0-1.0", "sources": [{"kind": "folder", "url": "there"}],
        "deid": {"patient_key": "${env:BUILDER_KEY}"}, "samples": {"kind": "volumes"},
        "clinical": [
            {"url": "t.csv", "person_id": "m", "issuer": "Charite", "columns": GRADE, "site": "a"},
            {"url": "t.csv", "by": {"m": "person", "h": "issuer"}, "issuer_names": {"Charite": "Charite"},
             "columns": GRADE, "site": "b"},
        ],
    })  # fmt: skip
    assert "Charite" not in str(withhold_locations(spec.model_dump(mode="json", by_alias=True)))
