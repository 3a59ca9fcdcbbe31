"""Cases of several visits: which are put together, on which grids, and what may be known at the first."""

import datetime
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import builder
from builder.errors import SpecError
from builder.reader.export import export_nnunet
from builder.run.pipeline import build, plan
from builder.spec import DatasetSpec
from tests.endtoend.test_image_sets import blobs, published, spec
from tests.endtoend.trees import KEY
from tests.synthetic import box_contours, mr_series, rtstruct

FLAIR, T1 = "series_description == 'FLAIR'", "series_description == 'T1'"
IMAGES = {"flair": {"select": FLAIR}, "t1": {"select": T1}}
TWO = {"names": ["baseline", "followup"]}


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)


def visit(folder: Path, name: str, date: str, *, frame: str = "", slices: int = 6, contrast: bool = True) -> None:
    """A FLAIR, a T1 in its frame, and a lesion on the FLAIR; the grid of each visit is another."""
    where = folder / name / (date or "undated")
    study, origin = f"s{date}", (-14.0, -13.0, -2.0 * slices)
    shape, spacing = (slices, 20, 22), (4.0, 1.5, 1.4)
    voxels = blobs(shape, spacing, origin)
    shared: dict[str, Any] = {"patient_id": name, "study": study, "frame": frame or date, "date": date or "20200101"}
    undate = {"StudyDate": None, "SeriesDate": None, "AcquisitionDate": None, "ContentDate": None} if not date else {}
    flair = mr_series(
        where / "flair", series="1", slices=slices, shape=shape[1:], spacing=spacing, origin=origin, voxels=voxels,
        attributes={"SeriesDescription": "FLAIR", **undate}, **shared,
    )  # fmt: skip
    if contrast:
        mr_series(
            where / "t1", series="2", slices=8, shape=(16, 16), spacing=(3.0, 2.0, 2.0), origin=origin,
            voxels=blobs((8, 16, 16), (3.0, 2.0, 2.0), origin) + slices,
            attributes={"SeriesDescription": "T1", **undate}, **shared,
        )  # fmt: skip
    rtstruct(flair, {"GTV": box_contours(flair.geometry, (1, 4, 4), (3, 8, 9))}, directory=where, name=f"rt{date}")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """P1 with three visits, P2 with one, P3 with two of which one lacks the T1, P4 with two years apart."""
    folder = tmp_path_factory.mktemp("visits")
    for date, slices in (("20190103", 6), ("20190501", 7), ("20190901", 6)):
        visit(folder, "P1", date, slices=slices)
    visit(folder, "P2", "20190201")
    visit(folder, "P3", "20190201")
    visit(folder, "P3", "20190601", contrast=False)
    visit(folder, "P4", "20170201")
    visit(folder, "P4", "20190601")
    return folder


def visits(folder: Path, *, options: dict[str, Any] | None = None, **blocks: Any) -> DatasetSpec:
    lesion = {"kind": "rtstruct", "on": "followup.flair", "layout": "map", "roi": {"lesion": "GTV"}}
    base: dict[str, Any] = {
        "cohort": {"case": "person", "visits": TWO | {"gap_days": [90, 400]} | (options or {}), "images": IMAGES},
        "labels": {"lesion": lesion},
        "volumes": {},
        "transforms": [{"kind": "intensity", "of": ["t1"], "scale": [0, 1]}, {"kind": "intensity", "dtype": "float32"}],
    }
    return spec(folder, **base | blocks)


def test_neighbouring_visits_are_samples_with_a_field_for_each_grid(archive: Path, tmp_path: Path):
    build(visits(archive, deid={"patient_key": "${env:BUILDER_KEY}", "retain": ["delta_days"]}), to=tmp_path / "data")
    dataset = builder.open_dataset(tmp_path / "data")
    assert dataset.image_fields == ("baseline", "followup")
    assert dataset.channels("followup") == ("followup.flair", "followup.t1")
    first, second = sorted(dataset, key=lambda s: s["baseline"].shape)
    assert (first["baseline"].shape, first["followup"].shape) == ((2, 6, 20, 22), (2, 7, 20, 22))
    assert (second["baseline"].shape, second["followup"].shape) == ((2, 7, 20, 22), (2, 6, 20, 22))
    assert first["lesion"].shape == (1, 7, 20, 22)
    assert first.geometry_of("lesion").same_grid(first.geometry_of("followup"))
    assert first.geometry_of("followup").same_grid(second.geometry_of("baseline"))
    assert (first["followup"] == second["baseline"]).all()
    assert first["followup"][1].max() == 1.0  # the T1 was scaled at both visits
    assert (first["lesion"] > 0).sum() == 2 * 4 * 5
    assert [s.row["followup.delta_days"] for s in (first, second)] == [118, 123]
    assert first.row["person_key"] == second.row["person_key"]
    with pytest.raises(SpecError, match="on grids of their own"):
        export_nnunet(dataset, tmp_path / "out", label="lesion", number=1)
    with pytest.raises(ValueError, match="crop: found fields on several grids"):
        next(iter(dataset.batches(1, crop=(2, 2, 2))))
    cohort = published(tmp_path / "data", "cohort")
    served = Counter(len(r["serves"]) for r in cohort)
    assert served == {1: 4, 2: 2, 0: 9}
    reasons = Counter((r["image_name"] or "", r["rule"], r["reason"]) for r in cohort if not r["serves"])
    assert (
        reasons
        == {
            ("", "visits", "visit_missing"): 4,  # one of P2 and of P3, and the first of P4; its second has no next
            ("", "images", "image_missing"): 1,
            ("", "images", "image_unused"): 4,
        }
        or reasons[("", "visits", "visit_unused")] == 1
    )
    used = Counter(r["status"] for r in published(tmp_path / "data", "ledger"))["used"]
    assert used == 3 * 8 + 6 + 7 + 6


def test_choices_and_gaps(archive: Path, tmp_path: Path):
    def chosen(**options: Any) -> list[tuple[int, int]]:
        found = plan(visits(archive, options=options), to=tmp_path / "data").plan
        days = found.cohort["study_date"].to_pylist()
        names = [*found.cohort["case_key"].to_pylist(), *found.cohort["stack_key"].to_pylist()]
        dates = dict(zip(names, days * 2, strict=True))
        keys = [(c.case_key, next(p.stack_key for p in c.partners if p.name == "followup.flair")) for c in found.cases]
        return sorted((dates[one].month, dates[two].month) for one, two in keys)

    assert chosen() == [(1, 5), (5, 9)]
    assert chosen(choose="first_two") == [(1, 5)]
    assert chosen(choose="first_last") == [(1, 9)]
    assert chosen(gap_days=[122, 2000]) == [(2, 6), (5, 9)]
    assert chosen(gap_days=None, choose="first_last") == [(1, 9), (2, 6)]


def test_a_case_is_named_by_the_references_of_all_its_visits(archive: Path, tmp_path: Path):
    def named(**blocks: Any) -> set[str]:
        return {c.case_key for c in plan(visits(archive, **blocks), to=tmp_path / "data").plan.cases}

    last = named(options={"choose": "first_last"})
    first = named(options={"choose": "first_two"})
    assert len(first) == len(last) == 1
    assert first != last  # both have one index visit
    cohort = {"case": "person", "visits": TWO | {"gap_days": [90, 400]}, "images": {"flair": IMAGES["flair"]}}
    assert first <= named()  # other cases change no name
    assert first <= named(cohort=cohort, transforms=[])  # nor does another image


def test_one_grid_for_all_visits_where_a_frame_is_shared(tmp_path: Path):
    for date in ("20190103", "20190501"):
        visit(tmp_path / "in", "P1", date, frame="one")
    made = visits(tmp_path / "in", options={"aligned": "frame"})
    assert {r["reason"] for r in plan(made, to=tmp_path / "none").plan.cohort.to_pylist()} >= {"image_not_aligned"}
    # frames of two studies differ in this archive, so the same is taken as it is
    build(visits(tmp_path / "in", options={"aligned": "assumed"}), to=tmp_path / "data")
    dataset = builder.open_dataset(tmp_path / "data")
    assert dataset.channels() == ("baseline.flair", "baseline.t1", "followup.flair", "followup.t1")
    (sample,) = list(dataset)
    assert np.abs(sample["image"][0] - sample["image"][2]).max() == 0
    assert sample["lesion"].shape[1:] == sample["image"].shape[1:]


def test_persons_stay_whole(archive: Path, tmp_path: Path):
    for seed in range(3):
        shares = {"ratios": {"train": 0.5, "test": 0.5}, "seed": seed, "may_be_empty": ["train", "test"]}
        found = plan(visits(archive, options={"gap_days": [1, 4000]}, splits=shares), to=tmp_path / "data").plan
        split_of = dict(zip(*(found.splits.column(c).to_pylist() for c in ("person_key", "split")), strict=True))
        assert len(found.splits) == 2
        assert len(found.cases) == 3
        assert all(case.person_key in split_of for case in found.cases)


@pytest.mark.parametrize(
    ("cohort", "message"),
    [
        ({"case": "study", "visits": TWO, "images": IMAGES}, "visits: found case: study, expected person"),
        ({"case": "person", "visits": TWO}, "visits: found it without images"),
        ({"case": "person", "visits": {"names": ["a", "a"]}, "images": IMAGES}, "expected each name once"),
        ({"case": "person", "visits": {"names": ["a", "b", "c"], "choose": "first_last"}, "images": IMAGES}, "two"),
        ({"case": "person", "visits": TWO | {"gap_days": [9, 3]}, "images": IMAGES}, "the fewest days and then"),
        ({"case": "person", "visits": {"names": ["t1", "b"]}, "images": IMAGES}, "'t1', which is an image"),
    ],
)
def test_what_visits_may_not_say(tmp_path: Path, cohort: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        spec(tmp_path, cohort=cohort, labels={})


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ({"samples": {"kind": "patches", "shape": [2, 2, 2]}}, "patches for images on 2 grids, expected volumes"),
        ({"samples": {"kind": "volumes", "fields": {"a": ["baseline.flair", "followup.flair"]}}}, "images of one grid"),
        ({"samples": {"kind": "volumes", "fields": {"lesion": ["baseline.flair", "baseline.t1"]}}}, "'lesion' twice"),
        ({"labels": {"lesion": {"kind": "rtstruct", "on": "flair", "roi": {"l": "G"}}}}, "lesion.on: found 'flair'"),
    ],
)  # fmt: skip
def test_what_a_spec_of_visits_may_not_say(tmp_path: Path, blocks: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        visits(tmp_path, **blocks)


def clinical(folder: Path, rows: str, **options: Any) -> dict[str, Any]:
    (folder / "facts.csv").write_text("id,seen,score,sex\n" + rows)
    columns = {"score": {"from": "score", "type": "integer"}, "gender": {"from": "sex", "type": "category"}}
    return {"url": str(folder / "facts.csv"), "person_id": "id", "columns": columns, "min_matched": 0, **options}


def test_a_clinical_value_from_after_the_index_visit_cannot_get_in(archive: Path, tmp_path: Path):
    rows = "P1,2018-12-30,3,F\nP1,2019-01-04,9,F\nP1,,8,F\nP4,2018-01-01,7,M\n"
    pick = {"cardinality": "many", "pick": {"by": "seen", "take": "last_before"}}
    table = clinical(tmp_path, rows, dated_by="seen", **pick)
    found = plan(visits(archive, options={"choose": "first_last"}, clinical=[table]), to=tmp_path / "data").plan.cohort
    scores = {(r["study_date"], r["score"]) for r in found.to_pylist() if r["included"]}
    assert scores == {(datetime.date(2019, 1, 3), 3)}
    nearest = clinical(tmp_path, rows, dated_by="seen", **{**pick, "pick": {"by": "seen", "take": "nearest"}})
    found = plan(
        visits(archive, options={"choose": "first_last"}, clinical=[nearest]), to=tmp_path / "data"
    ).plan.cohort
    assert {r["score"] for r in found.to_pylist() if r["included"]} == {3}  # the row of the day after is nearer


def test_undated_columns_need_to_be_timeless(tmp_path: Path):
    with pytest.raises(ValueError, match="found the column 'score' of an unknown date"):
        visits(tmp_path, clinical=[clinical(tmp_path, "P1,,1,F\n", timeless=["gender"])])
    both = clinical(tmp_path, "P1,,1,F\n", timeless=["gender", "score"])
    assert visits(tmp_path, clinical=[both]).clinical[0].timeless == ("gender", "score")
    dated = clinical(tmp_path, "P1,2019-01-01,1,F\n", dated_by="seen")
    with pytest.raises(ValueError, match="at a later visit"):
        visits(tmp_path, clinical=[dated], report={"groups": ["followup.flair.score"]})
    late = {"name": "late", "keep": "followup.flair.slices > 2 and followup.flair.score > 1"}
    cohort = {"case": "person", "visits": TWO, "images": IMAGES, "rules": [late]}
    with pytest.raises(ValueError, match="score: found a clinical column as it was at a later visit"):
        visits(tmp_path, clinical=[dated], cohort=cohort)  # the rule's columns would be in the dataset's tables
    assert visits(tmp_path, clinical=[both], cohort=cohort)
    outcome = clinical(tmp_path, "P1,2019-01-01,1,F\n", dated_by="seen")
    with pytest.raises(ValueError, match="found the outcome 'score' beside other columns"):
        visits(tmp_path, clinical=[outcome], report={"outcomes": ["score"]})
