"""The columns that may enter a published table."""

from builder.deid import RETAINABLE
from builder.deid.columns import TECHNICAL, age_band, crossing
from builder.model.tables import HEADER_COLUMNS, IDENTITY, LEDGER_COLUMNS, SERIES_COLUMNS

IDENTIFYING = {
    *("patient_id", "issuer_of_patient_id", "patient_birth_date", "accession_number", "sop_instance_uid", "study_uid"),
    *("series_uid", "frame_of_reference_uid", "study_date", "series_date", "acquisition_date", "content_date"),
    *("study_time", "series_time", "acquisition_time", "content_time", "institution_name", "device_serial_number"),
    *("study_description", "series_description", "protocol_name", "path", "member", "stamp", "identity"),
}


def test_no_identifying_column_of_the_inventory_is_allowed() -> None:
    names = {c.name for c in (*LEDGER_COLUMNS, *HEADER_COLUMNS, IDENTITY)}
    assert names >= IDENTIFYING
    assert not IDENTIFYING & (TECHNICAL | set(RETAINABLE))
    assert not crossing(sorted(IDENTIFYING), retain=RETAINABLE)


def test_every_column_of_the_keyed_series_table_has_a_decision() -> None:
    undecided = {c.name for c in SERIES_COLUMNS} - TECHNICAL - set(RETAINABLE)
    private = {"verdict_detail", "series_number", "format", "image", "visit"}  # these do not cross
    assert undecided <= private, undecided


def test_characteristics_cross_only_when_retained() -> None:
    assert crossing(["sex", "age_years", "modality"], retain=()) == ("modality",)
    assert crossing(["sex", "age_years", "modality"], retain=("sex",)) == ("sex", "modality")
    assert crossing(["sex", "patient_id", "modality", "grade"], retain=("sex",), clinical=("grade",)) == (
        "sex",
        "modality",
        "grade",
    )


def test_bands() -> None:
    found = [age_band(a) for a in (0, 9.99, 10, 89, 89.9, 90, 120)]
    assert found == ["0-9", "0-9", "10-19", "80-89", "80-89", "90+", "90+"]
