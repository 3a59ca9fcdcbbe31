"""Small groups of persons in a real plan and build: shown, and withheld where the spec says so."""

import json
from pathlib import Path

import pydicom
import pytest

import builder
from builder.errors import PrivacyError
from builder.model.parquet import read_parquet
from builder.run.pipeline import build, plan
from tests.endtoend.trees import KEY
from tests.synthetic import ct_series

SPEC = """
name: groups
license: CC0-1.0
sources:
  - {{kind: folder, url: "{north}", site: north}}
  - {{kind: folder, url: "{south}", site: south}}
deid: {{patient_key: "${{env:BUILDER_KEY}}", retain: [site], anonymity: {{k: 3, below: {below}}}}}
samples: {{kind: volumes}}
splits: {{ratios: {{train: 1.0}}}}
report: {{thumbnails: 0}}
"""


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four patients of one site and one of another."""
    monkeypatch.setenv("BUILDER_KEY", KEY)
    for number in range(5):
        site = "south" if number == 4 else "north"
        ct_series(tmp_path / site / str(number), slices=4, shape=(8, 8), patient_id=f"P{number}", voxels=None)
    return tmp_path


def spec(archive: Path, below: str) -> Path:
    path = archive / f"{below}.yaml"
    path.write_text(SPEC.format(north=archive / "north", south=archive / "south", below=below))
    return path


def test_a_plan_shows_the_smallest_group(archive: Path):
    planned = plan(spec(archive, "report"), to=archive / "dataset")
    assert "k-anonymity: 2 groups of 5 persons by site, vendor; the smallest has 1, 1 person is in" in planned.text()
    assert planned.facts()["anonymity"]["smallest"][0]["values"]["site"] == "south"
    with pytest.raises(PrivacyError, match="expected groups of 3 persons or more by site, vendor"):
        plan(spec(archive, "stop"), to=archive / "dataset")


def test_a_build_withholds_what_falls_short(archive: Path):
    build(spec(archive, "suppress"), to=archive / "dataset")
    table = builder.open_dataset(archive / "dataset").table
    assert sorted(table["site"].to_pylist(), key=str) == [None, "north", "north", "north", "north"]
    version = archive / "dataset" / "versions" / (archive / "dataset" / "CURRENT").read_text().strip()
    certificate = json.loads((version / "leaks.json").read_bytes())
    assert (certificate["anonymity"]["k"], certificate["anonymity"]["suppressed"]) == (4, 1)
    assert "withheld for 1 person, not counted here" in (version / "report" / "index.html").read_text()
    rows = [read_parquet(path.read_bytes()).to_pylist() for path in version.rglob("*.parquet")]
    assert not [row for table in rows for row in table if "person_key" in row and "south" in row.values()]


def test_neither_source_nor_stratum_tells_a_site_that_is_not_retained(archive: Path) -> None:
    """The published spec names the site of each source: its position would tell everybody's."""
    text = SPEC.format(north=archive / "north", south=archive / "south", below="report").replace("retain: [site], ", "")
    text = text.replace("splits: {", "leaks: {pixels: 'off'}\nsplits: {stratify: [site, verdict], ")
    (archive / "plain.yaml").write_text(text)
    build(archive / "plain.yaml", to=archive / "dataset")
    version = archive / "dataset" / "versions" / (archive / "dataset" / "CURRENT").read_text().strip()
    tables = {path.name: read_parquet(path.read_bytes()) for path in version.rglob("*.parquet")}
    assert not [name for name, table in tables.items() if name != "origins.parquet" and "source" in table.column_names]
    origins = tables["origins.parquet"]
    assert origins["source"].null_count == origins.num_rows == 5
    assert origins["series_key"].to_pylist() == sorted(origins["series_key"].to_pylist())
    assert set(tables["splits.parquet"]["stratum"].to_pylist()) == {"site=(withheld); verdict=regular"}
    said = [row for table in tables.values() for row in table.to_pylist()]
    assert not [row for row in said if "south" in str(row) or "north" in str(row)]
    assert b"north" not in (version / "exports" / "splits.csv").read_bytes()


def test_groups_are_counted_after_the_gate_has_dropped_values(archive: Path):
    """A vendor whom no table knows is shown by no plan, and two such vendors are one group."""
    for number, maker in enumerate(("QZ000000XQ Clinic", "QZ000001XQ Clinic", "SIEMENS", "SIEMENS")):
        for path in (archive / "north" / str(number)).rglob("*.dcm"):
            dataset = pydicom.dcmread(path)
            dataset.Manufacturer = maker
            dataset.save_as(path)
    planned = plan(spec(archive, "report"), to=archive / "dataset")
    found = planned.facts()["anonymity"]
    assert (found["groups"], found["k"]) == (3, 1)
    assert {"values": {"site": "north", "vendor": None}, "persons": 2} in found["smallest"]
    assert "QZ" not in json.dumps(planned.facts())


def test_a_band_of_ages_does_not_hide_that_somebody_is_90_from_the_retained_times(archive: Path):
    """Bands replace the ages that say whose days may not leave: those of who is 93 stay all the same."""
    for number, (age, days) in enumerate((("093Y", ("20200505", "20200606")), ("061Y", ("20190303", "20190413")))):
        for study, day in enumerate(days):
            where = archive / "old" / f"{number}{study}"
            ct_series(
                where, slices=4, shape=(8, 8), patient_id=f"Q{number}", study=f"{number}{study}", series=f"{study}"
            )
            for path in where.rglob("*.dcm"):
                dataset = pydicom.dcmread(path)
                dataset.PatientAge, dataset.StudyDate, dataset.PatientBirthDate = age, day, ""
                dataset.save_as(path)
    text = SPEC.format(north=archive / "old", south=archive / "south", below="report")
    text = text.replace("retain: [site]", "retain: [age_years, age_band, study_day]").replace(
        "{k: 3,", "{k: 2, age_bands: 60,"
    )
    (archive / "old.yaml").write_text(text)
    build(archive / "old.yaml", to=archive / "dataset")
    rows = builder.open_dataset(archive / "dataset").table.to_pylist()
    assert {row["age_years"] for row in rows} == {None}
    by_band: dict[str, set[int | None]] = {}
    for row in rows:
        by_band.setdefault(row["age_band"], set()).add(row["study_day"])
    assert by_band["60-89"] == {0, 41}
    assert by_band["90+"] == {None}
