"""What a plan says of itself, apart from whole runs."""

from pathlib import Path

import pyarrow as pa
import pytest

from builder.imaging.stacks.options import VolumeOptions
from builder.planning.forecast import _kinds
from builder.run.outcomes import _identity_line
from builder.run.pipeline import build, plan
from builder.spec import DatasetSpec
from tests.endtoend.trees import KEY
from tests.synthetic import ct_series


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


def test_only_finished_shards_are_there_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    for name in ("1", "2", "3"):
        ct_series(tmp_path / "archive" / name, slices=2, shape=(4, 4), patient_id=f"P{name}", series=name)
    told = {
        "name": "there",
        "license": "CC0-1.0",
        "sources": [{"kind": "folder", "url": str(tmp_path / "archive")}],
        "deid": {"patient_key": "${env:BUILDER_KEY}"},
        "samples": {"kind": "volumes"},
        "shards": {"cases": 1},
        "splits": {"ratios": {"train": 0.5, "test": 0.5}},
        "leaks": {"on_match": "report"},
    }
    spec, to = DatasetSpec.model_validate(told), tmp_path / "dataset"
    assert plan(spec, to=to).forecast["shards_already_there"] == 0
    build(spec, to=to)
    assert plan(spec, to=to).forecast["shards_already_there"] == 3
    next(to.glob("data/*/receipt.json")).unlink()
    assert plan(spec, to=to).forecast["shards_already_there"] == 2
