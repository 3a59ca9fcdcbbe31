"""``builder bench build``: figures that add up, kept and compared."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from builder import cli
from builder.errors import SpecError
from builder.model.layout import CURRENT
from builder.run import bench
from builder.run.bench import measure_building, rates_of
from tests.endtoend.trees import KEY
from tests.synthetic import ct_series

SPEC: dict[str, Any] = {
    "name": "measured",
    "license": "CC0-1.0",
    "sources": [{"kind": "folder", "url": "${archive}", "site": "here"}],
    "deid": {"patient_key": "${env:BUILDER_KEY}"},
    "transforms": [{"kind": "resample", "spacing_mm": [1.5, 1.0, 1.0]}],
    "samples": {"kind": "volumes"},
    "splits": {"ratios": {"train": 1.0}},
}


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_measures_every_stage_and_removes_what_it_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    for number in range(3):
        ct_series(tmp_path / "archive" / str(number), patient_id=f"P{number}", study=str(number), series=str(number),
                  frame=str(number), attributes={"PatientBirthDate": "", "PatientSex": ""})  # fmt: skip
    spec, kept = tmp_path / "spec.yaml", tmp_path / "kept.json"
    spec.write_text(yaml.safe_dump(SPEC))
    place = tmp_path / "place"
    place.mkdir()
    left: list[int] = []
    real = bench.build

    def watched(*given: Any, **options: Any) -> Any:
        left.append(len(list(place.rglob(CURRENT))))
        return real(*given, **options)

    monkeypatch.setattr(bench, "build", watched)
    record = measure_building(spec, parameters={"archive": str(tmp_path / "archive")}, workers=(0, 0), folder=place)
    assert left == [0, 0], "a dataset is removed before the next one needs the room"
    assert not list(place.iterdir())
    building, _ = record.builds
    assert record.cases == 3
    assert {"start", "list", "index", "survey", "plan", "build", "finish"} <= set(building.stage_s)
    assert sum(building.stage_s.values()) == pytest.approx(building.total_s, abs=0.1)
    assert building.cases_per_s == pytest.approx(3 / building.stage_s["build"], rel=0.05)
    assert 0 <= building.idle_share < 1
    assert building.cpu_s_per_case > 0
    assert record.steps.output_bytes == record.steps.cases * 16 * 32 * 32 * 2
    assert set(record.steps.megabytes_per_s()) == {"load", "transform", "write"}
    kept.write_text(json.dumps(record.facts()))
    assert "1.00 x before" in record.text(rates_of(kept))


def test_a_record_of_something_else_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"record_version": 0}')
    with pytest.raises(SpecError, match="expected one kept with --keep"):
        rates_of(other)
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", "build", str(tmp_path / "absent.yaml"), "--compare", str(other)])
    assert ended.value.code == cli.MISUSED
