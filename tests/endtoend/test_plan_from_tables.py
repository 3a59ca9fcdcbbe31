"""A plan of the IDC that stands from its tables: no request before the build, and the voxels of a plan from headers."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import pytest

import builder
from builder.errors import LayoutError, OutcomeError, SpecError
from builder.library.verify import verify
from builder.run import serial
from builder.run.pipeline import build, plan
from builder.run.withdraw import withdraw
from builder.run.withdrawals import Policy
from builder.sources import contents
from builder.stages import shard
from builder.stages.shard import write
from tests.endtoend.trees import KEY, tree
from tests.sources.servers import Reply, http_server
from tests.sources.test_tcia_and_idc import Bucket
from tests.synthetic import ct_series, to_bytes

SPEC = """
name: from-tables
license: CC0-1.0
sources:
  - {{kind: idc, index: "{at}/index.parquet", collections: [mine], modalities: [CT], endpoint: "{url}",
     select: SliceThickness < 100,
     tables: {{ct_index: "{at}/ct.parquet", volume_geometry_index: "{at}/geometry.parquet"}}{more}}}
clinical: [{{url: "{at}/notes.csv", person_id: id, columns: {{note: {{from: note, type: category}}}}}}]
cohort: {{image: "modality == 'CT' and slice_thickness_mm < 100", one_per: person}}
deid: {{patient_key: "${{env:BUILDER_KEY}}"}}
transforms: [{{kind: intensity, dtype: float32}}]
samples: {{kind: patches, shape: [4, 8, 8], per_case: 2}}
splits: {{ratios: {{train: 0.5, test: 0.5}}, stratify: [manufacturer], may_be_empty: [test]}}
leaks: {{pixels: exact}}
report: {{thumbnails: 0}}
shards: {{cases: 2}}
"""
LATE = ", headers: when_needed"


class Counting(Bucket):
    """A bucket that counts what it is asked for."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        super().__init__(objects)
        self.listed: list[str] = []

    def __call__(self, target: str, headers: dict[str, str]) -> Reply:
        query = parse_qs(urlsplit(target).query)
        if "list-type" in query and "continuation-token" not in query:
            self.listed.append(query["prefix"][0])
        return super().__call__(target, headers)

    def forget(self) -> None:
        self.ranges.clear()
        self.listed.clear()


def write_tables(at: Path, series: dict[str, list[pydicom.Dataset]], **wrong: Callable[[str, Any], Any]) -> None:
    """The index, ct_index and volume_geometry_index of series, as pydicom reads them; ``wrong`` changes columns."""
    rows: dict[str, list[dict[str, Any]]] = {"index": [], "ct": [], "geometry": []}
    for uuid, slices in series.items():
        first = slices[0]
        places = sorted(float(s.ImagePositionPatient[2]) for s in slices)
        own = {
            "collection_id": "mine", "PatientID": str(first.PatientID), "Modality": first.Modality,
            "SeriesInstanceUID": first.SeriesInstanceUID, "StudyInstanceUID": first.StudyInstanceUID,
            "SOPClassUID": first.SOPClassUID, "StudyDate": "2001-01-02", "Manufacturer": first.get("Manufacturer"),
            "SeriesDescription": first.get("SeriesDescription"), "license_short_name": "CC BY 4.0",
            "instanceCount": len(slices), "aws_bucket": "idc-open-data", "crdc_series_uuid": uuid,
            "series_size_MB": 1.0, "Rows": first.Rows, "Columns": first.Columns,
            "PixelSpacing_row_mm": float(first.PixelSpacing[0]), "PixelSpacing_col_mm": float(first.PixelSpacing[1]),
            "SliceThickness": float(first.SliceThickness), "regularly_spaced_3d_volume": True,
            "slice_spacing_mm": (places[-1] - places[0]) / max(1, len(places) - 1),
            "ImageOrientationPatient": [float(v) for v in first.ImageOrientationPatient],
        }  # fmt: skip
        own |= {name: change(uuid, own[name]) for name, change in wrong.items()}
        geometry = ("regularly_spaced_3d_volume", "slice_spacing_mm", "ImageOrientationPatient")
        ct = ("Rows", "Columns", "PixelSpacing_row_mm", "PixelSpacing_col_mm", "SliceThickness")
        rows["ct"].append({n: own[n] for n in ("SeriesInstanceUID", *ct)})
        rows["geometry"].append({n: own[n] for n in ("SeriesInstanceUID", *geometry)})
        rows["index"].append({n: v for n, v in own.items() if n not in (*ct, *geometry)})
    for name, table in rows.items():
        pq.write_table(pa.Table.from_pylist(table), at / f"{name}.parquet")


@pytest.fixture(scope="module")
def archive() -> tuple[dict[str, bytes], dict[str, list[pydicom.Dataset]]]:
    """The objects of a bucket, and the series in it by UUID: two of the first person, and one of two others."""
    people = [("70001", "Vogel^Hugo"), ("70001", "Vogel^Hugo"), ("70002", "Silva^Ada"), ("70003", "Moreau^Ines")]
    objects: dict[str, bytes] = {}
    series: dict[str, list[pydicom.Dataset]] = {}
    for number, (patient, name) in enumerate(people):
        uuid = f"{number:08x}-0000-4000-8000-000000000000"
        made = ct_series(
            slices=9 - number % 2, patient_id=patient, series=str(number), attributes={"PatientName": name},
            encoding="jpegls" if number == 3 else "explicit",
        )  # fmt: skip
        series[uuid] = list(made.images)
        objects |= {f"{uuid}/{image.SOPInstanceUID}.dcm": to_bytes(image) for image in made.images}
    return objects, series


@pytest.fixture
def server(archive: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Counting, str]]:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    monkeypatch.setattr(serial, "_apart", lambda task, apart: task.function(task.argument))
    contents._opened.cache_clear()
    objects, series = archive
    write_tables(tmp_path, series)
    people = {str(slices[0].PatientID): slices[0].PatientName.family_name for slices in series.values()}
    (tmp_path / "notes.csv").write_text("id,note\n" + "".join(f"{n},{name} walks\n" for n, name in people.items()))
    held = Counting(objects)
    with http_server(held) as url:
        yield held, url


def spec(at: Path, url: str, more: str = LATE, **changes: str) -> Path:
    text = SPEC.format(at=at, url=url, more=more)
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (at / "spec.yaml").write_text(text)
    return at / "spec.yaml"


def test_the_voxels_are_those_of_a_plan_from_headers(server: tuple[Counting, str], tmp_path: Path) -> None:
    held, url = server
    made = spec(tmp_path, url)
    planned = plan(made, to=tmp_path / "late")
    assert (held.listed, held.ranges) == ([], [])  # the plan asked the server nothing
    cases = planned.plan.cases
    assert len(cases) == 3
    assert len(planned.plan.shards) > 1
    done = build(made, to=tmp_path / "late")
    assert len(held.listed) == len(cases)  # one list for each series of a shard, and none for the others
    used = done.published.totals["instances"]["used"]
    assert len(held.ranges) == used < len(held.objects)  # each file once, and whole
    assert sum(done.published.totals["files"].values()) == len(held.objects)
    held.forget()
    assert build(made, to=tmp_path / "late").published.unchanged
    assert (held.listed, held.ranges) == ([], [])
    assert not verify(str(tmp_path / "late")).faults
    build(spec(tmp_path, url, ""), to=tmp_path / "first")
    late, first = (builder.open_dataset(tmp_path / name) for name in ("late", "first"))
    assert len(late) == len(first) > 0
    others = {sample.row["sample_key"]: sample for sample in first}
    for sample in late:
        np.testing.assert_array_equal(sample["image"], others[sample.row["sample_key"]]["image"])
        # only the headers say what the person is called, and the note with the name stays behind all the same
        assert sample.row["note"] is others[sample.row["sample_key"]].row["note"] is None


def test_a_killed_build_goes_on(server: tuple[Counting, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, url = server
    calls = []

    def killed(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return write(*arguments, **options)

    monkeypatch.setattr(shard, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        build(spec(tmp_path, url), to=tmp_path / "late")
    before = sorted(held.ranges)
    done = set(held.listed)
    held.forget()
    monkeypatch.setattr(shard, "write", write)
    build(spec(tmp_path, url), to=tmp_path / "late")
    assert held.listed  # the shard that was not finished
    assert len(held.listed) < len(done)
    assert held.ranges == []  # what was checked and kept before the kill is not fetched again
    assert before


def test_a_person_leaves_without_the_server(server: tuple[Counting, str], tmp_path: Path) -> None:
    held, url = server
    made, at = spec(tmp_path, url), tmp_path / "late"
    build(made, to=at)
    version = (at / "CURRENT").read_text().strip()
    table = builder.open_dataset(at).table
    person = table["person_key"][0].as_py()
    others = [key for key in table["person_key"].to_pylist() if key != person]
    held.forget()
    gone = withdraw(str(at), people=[person], policy=Policy("consent"))
    assert (held.listed, held.ranges) == ([], [])
    assert gone.certificate is not None
    assert gone.certificate["absent"]
    assert builder.open_dataset(at).table["person_key"].to_pylist() == others
    assert not verify(str(at)).faults
    with pytest.raises(LayoutError, match=r"^withdrawn: "):
        builder.open_dataset(at, version=version)
    after = tree(at)
    build(made, to=at)
    assert {name: data for name, data in tree(at).items() if name in after} == after


def test_headers_that_are_not_what_the_tables_say(server: tuple[Counting, str], archive: Any, tmp_path: Path) -> None:
    _, url = server
    one, _, two, three = sorted(archive[1])
    write_tables(
        tmp_path, archive[1],
        PatientID=lambda uuid, value: "70009" if uuid == two else value,
        Rows=lambda uuid, value: value + 1 if uuid == three else value,
        slice_spacing_mm=lambda uuid, value: value * 1.02 if uuid == one else value,
    )  # fmt: skip
    with pytest.raises(OutcomeError, match="headers_disagree: 3 cases of 3 persons"):
        build(spec(tmp_path, url), to=tmp_path / "late")
    (found,) = (tmp_path / "late.private" / "plan").glob("*/exclusions.parquet")
    details = {row["detail"] for row in pq.read_table(found).to_pylist() if row["reason"] == "headers_disagree"}
    assert len(details) == 3
    for said in ("another patient_id", "8 x 32 x 32 voxels where the tables state 8 x 33 x 32", "a spacing of"):
        assert any(said in detail for detail in details), (said, details)
    assert not any("70009" in detail for detail in details)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("stratify: [manufacturer]", "stratify: [orientation]", "found orientation in cohort or splits"),
        ("slice_thickness_mm < 100", "kvp > 100", "found kvp in cohort or splits"),
        ("{kind: intensity, dtype: float32}", "{kind: orient, to: LPS}", "found nothing that says the number type"),
        ("deid: {", "deid: {faces: refuse, ", "found deid.faces: refuse"),
        ("person_id: id", "by: {id: accession}", "found a clinical table joined by accession"),
        ("deid:", "labels: {tumor: {kind: seg, segments: {tumor: gtv}}}\ndeid:", "found labels"),
        (", volume_geometry_index: ", ", ct_too: ", "found no table with slice_spacing_mm"),
    ],
)
def test_what_tables_cannot_tell_is_refused(
    old: str, new: str, message: str, server: tuple[Counting, str], tmp_path: Path
) -> None:
    held, url = server
    made = spec(tmp_path, url, **{old: new})
    if "ct_too" in new:
        (tmp_path / "geometry.parquet").write_bytes((tmp_path / "ct.parquet").read_bytes())
    with pytest.raises(SpecError, match=message) as found:
        plan(made, to=tmp_path / "late")
    assert "leave headers" in str(found.value)
    assert (held.listed, held.ranges) == ([], [])
