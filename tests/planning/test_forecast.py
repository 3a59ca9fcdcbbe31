"""What a plan says of itself, apart from whole runs."""

import pyarrow as pa

from builder.imaging.stacks.options import VolumeOptions
from builder.planning.forecast import _kinds
from builder.run.outcomes import _identity_line


def test_what_the_spec_lets_in_already_gets_no_advice_to_let_it_in() -> None:
    cohort = pa.table(
        {"rule": ["geometry"] * 2, "verdict": ["still", "cine"], "reason": ["inconsistent_pixels", "cine"]}
    )
    kinds = {kind["verdict"]: kind["switch"] for kind in _kinds(cohort, VolumeOptions(still="keep"))}
    assert kinds == {"still": None, "cine": "volumes: {cine: keep}"}


def test_who_there_is_reads_as_a_sentence() -> None:
    assert _identity_line({"persons": 1, "patient_ids": 1}) == "  identity: 1 person under 1 PatientID"
    told = _identity_line({"persons": 1200, "patient_ids": 2, "shared_study": 1, "alias": 3})
    assert told == "  identity: 1,200 persons under 2 PatientIDs; shared study 1, alias 3"
