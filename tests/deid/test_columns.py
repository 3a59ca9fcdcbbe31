"""What may cross into a table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.deid import RETAINABLE
from builder.deid.columns import TECHNICAL, age_band, allowed_row, crossing
from builder.errors import PrivacyError
from builder.model.tables import HEADER_COLUMNS, LEDGER_COLUMNS, SERIES_COLUMNS

IDENTIFYING = {
    *("patient_id", "issuer_of_patient_id", "patient_birth_date", "accession_number", "sop_instance_uid", "study_uid"),
    *("series_uid", "frame_of_reference_uid", "study_date", "series_date", "acquisition_date", "content_date"),
    *("study_time", "series_time", "acquisition_time", "content_time", "institution_name", "device_serial_number"),
    *("study_description", "series_description", "protocol_name", "path", "member", "stamp"),
}


def test_no_identifying_column_of_the_inventory_is_allowed() -> None:
    names = {c.name for c in (*LEDGER_COLUMNS, *HEADER_COLUMNS)}
    assert names >= IDENTIFYING
    assert not IDENTIFYING & (TECHNICAL | set(RETAINABLE))
    for name in IDENTIFYING:
        with pytest.raises(PrivacyError, match=name):
            allowed_row({name: "x"}, retain=RETAINABLE)


def test_every_column_of_the_keyed_series_table_is_decided_on() -> None:
    undecided = {c.name for c in SERIES_COLUMNS} - TECHNICAL - set(RETAINABLE)
    assert undecided <= {"verdict_detail", "series_number"}, undecided


def test_characteristics_cross_only_when_retained() -> None:
    row = {"sex": "F", "age_years": 61.0, "modality": "CT"}
    assert allowed_row(row, retain=()) == {"modality": "CT"}
    assert allowed_row(row, retain=("sex",)) == {"modality": "CT", "sex": "F"}
    assert crossing(["sex", "patient_id", "modality", "grade"], retain=("sex",), clinical=("grade",)) == (
        "sex",
        "modality",
        "grade",
    )


@given(st.floats(0, 130))
def test_ages_above_89_are_one_group(age: float) -> None:
    row = allowed_row({"age_years": age}, retain=("age_years", "age_band"))
    assert row["age_over_89"] == (age >= 90)
    assert row["age_years"] == (age if age < 90 else 90)
    assert row["age_band"] == (age_band(age) if age < 90 else "90+")


def test_bands() -> None:
    found = [age_band(a) for a in (0, 9.99, 10, 89, 89.9, 90, 120)]
    assert found == ["0-9", "0-9", "10-19", "80-89", "80-89", "90+", "90+"]


@pytest.mark.parametrize(
    "value",
    ["19610203", "1961-02-03", "3/2/1961", "Doe^Jane", "j@example.org", "MRN 1234567", "1.2.840.113619.2.5", "x" * 300],
)
def test_clinical_values_of_the_shape_of_an_identifier_stop_the_build(value: str) -> None:
    with pytest.raises(PrivacyError) as caught:
        allowed_row({"grade": value}, retain=(), clinical=("grade",))
    assert value not in str(caught.value)


def test_clinical_categories_cross() -> None:
    row = {"grade": "High", "histology": "Leiomyosarcoma, grade 2/3", "os_days": 812, "stage": None}
    assert allowed_row(row, retain=(), clinical=tuple(row)) == row
