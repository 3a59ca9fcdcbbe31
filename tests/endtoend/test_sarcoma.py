"""Real studies through the whole house: accounted for, the same bytes from every runner, and readable."""

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import fsspec
import nibabel
import numpy as np
import openpyxl
import pyarrow.parquet as pq
import pydicom
import pytest
import zarr

import builder
from builder.library.explain import explain
from builder.library.inspect import inspect
from builder.publishing.report import render_again
from builder.run.pipeline import build
from tests.endtoend.trees import KEY, SARCOMA, SARCOMA_CT_MR, run, tree


@pytest.fixture(scope="session")
def recount(corpus) -> dict[str, Counter]:
    """The archive counted by pydicom alone: modality by series, instances, and every other file."""
    folder = corpus("sts") / "sts_cohort"
    found: dict[str, Counter] = {"files": Counter(), "series": Counter(), "persons": Counter()}
    series = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            header = pydicom.dcmread(path, specific_tags=["SeriesInstanceUID", "Modality", "PatientID"])
        except pydicom.errors.InvalidDicomError:
            found["files"]["other"] += 1
            continue
        found["files"][header.Modality] += 1
        series[header.SeriesInstanceUID] = header.Modality
        found["persons"][header.PatientID] += 1
    found["series"] = Counter(series.values())
    return found


def test_every_file_is_accounted_for(sarcoma: Path, recount):
    document = inspect(str(sarcoma), environment={}).facts()
    totals = document["totals"]
    by_level = {
        level: sum(n for name, n in totals.items() if name.startswith(level + "."))
        for level in ("files", "instances", "series", "persons")
    }
    images = recount["series"]["PT"] + recount["series"]["CT"] + recount["series"]["MR"]
    assert images == 48
    assert by_level["files"] == sum(recount["files"].values()) == 2902
    assert by_level["instances"] == sum(n for m, n in recount["files"].items() if m != "other")
    assert by_level["series"] == sum(recount["series"].values())
    assert by_level["persons"] == len(recount["persons"]) == 34
    assert totals["instances.used"] == recount["files"]["PT"]
    assert totals["instances.label"] == recount["series"]["PT"]
    assert totals["instances.excluded"] == recount["files"]["CT"] + recount["files"]["MR"] + (
        recount["files"]["RTSTRUCT"] - recount["series"]["PT"]
    )


def test_every_instance_can_be_explained(sarcoma: Path, corpus):
    for modality, status in (("PET", "used"), ("CT", "excluded")):
        path = next((corpus("sts") / "sts_cohort" / "STS_002" / modality / "image").iterdir())
        header = pydicom.dcmread(path, stop_before_pixels=True)
        for uid in (header.SOPInstanceUID, header.SeriesInstanceUID):
            answer = explain(str(sarcoma), str(uid), environment={"BUILDER_KEY": KEY})
            assert [f["status"] for f in answer.facts()["fates"]] == [status]
    with pytest.raises(builder.errors.LayoutError, match="found nothing by that name"):
        explain(str(sarcoma), "STS_002", environment={})


def test_no_person_is_in_two_splits_and_the_clinical_columns_are_the_sheets(sarcoma: Path, corpus):
    table = builder.open_dataset(sarcoma).table
    homes = set(zip(table["person_key"].to_pylist(), table["split"].to_pylist(), strict=True))
    assert len(homes) == len({p for p, _ in homes}) == 34
    sheet = openpyxl.load_workbook(corpus("sts") / "sts_clinical" / "INFOclinical_STS.xlsx").active
    ages = {row[0]: row[1] for row in sheet.iter_rows(min_row=2, values_only=True) if str(row[0]).startswith("STS_")}
    cohort = {p.name for p in (corpus("sts") / "sts_cohort").iterdir() if p.is_dir()}
    expected = Counter(min(float(str(ages[p])), 90.0) for p in cohort)
    people = dict(zip(table["person_key"].to_pylist(), table["age_years"].to_pylist(), strict=True))
    assert Counter(people.values()) == expected


def test_splits_are_the_stated_shares_within_one_person(sarcoma: Path):
    version = (sarcoma / "CURRENT").read_text().strip()
    splits = pq.read_table(sarcoma / "versions" / version / "splits.parquet")
    counts = Counter(splits["split"].to_pylist())
    shares = {"train": 0.7, "validation": 0.15, "test": 0.15}
    assert all(abs(counts[name] - share * 34) < 1 for name, share in shares.items())


def test_another_zarr_reader_sees_the_same_voxels(sarcoma: Path):
    dataset = builder.open_dataset(sarcoma)
    for position in range(0, len(dataset), 17):
        sample = dataset[position]
        group = zarr.open_group(sarcoma / "data" / sample.row["shard"], mode="r")
        for name in ("image", "tumor"):
            np.testing.assert_array_equal(group[name][sample.row["row"]], sample[name])


def test_ct_and_mr_are_whole_volumes_of_their_own_grids(ct_mr: Path, corpus):
    dataset = builder.open_dataset(ct_mr)
    assert Counter(dataset.table["modality"].to_pylist()) == {"CT": 7, "MR": 7}
    assert len(set(dataset.table["person_key"].to_pylist())) == 7
    expected = set()
    for name in ("002", "003", "008", "019", "024", "025", "041"):
        for modality in ("CT", "MR_T1"):
            mask = nibabel.load(corpus("sts") / "sts_cohort" / f"STS_{name}" / modality / f"{modality}_mask.nii.gz")
            expected.add(tuple(reversed(mask.shape)))
    assert {sample["image"].shape[1:] for sample in dataset} == expected


def test_dask_writes_the_same_volumes(ct_mr: Path, corpus, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("BUILDER_KEY", KEY)
    target = tmp_path / "dataset"
    build(SARCOMA_CT_MR, to=target, parameters={"corpus": str(corpus("sts"))}, cluster="local", workers=3)
    assert tree(target) == tree(ct_mr)


@dataclass(frozen=True)
class Few:
    """Twelve persons of the cohort in more shards than workers, built serially; and what that gave."""

    spec: Path
    parameters: dict[str, str]
    dataset: Path
    shards: int
    cases: int
    version: str
    tree: dict[str, str]


@pytest.fixture(scope="module")
def few(corpus, tmp_path_factory) -> Few:
    home = tmp_path_factory.mktemp("few")
    (home / "corpus" / "sts_cohort").mkdir(parents=True)
    (home / "corpus" / "sts_clinical").symlink_to(corpus("sts") / "sts_clinical")
    for person in sorted((corpus("sts") / "sts_cohort").glob("STS_*"))[:12]:
        shutil.copytree(person, home / "corpus" / "sts_cohort" / person.name)
    spec, parameters = home / "spec.yaml", {"corpus": str(home / "corpus")}
    spec.write_text(SARCOMA.read_text().replace("cases: 8}", "cases: 3, codec: fast}"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_KEY", KEY)
        done = build(spec, to=home / "dataset", parameters=parameters)
    assert done.resumed == 0
    found = tree(home / "dataset")
    published = done.published
    return Few(spec, parameters, home / "dataset", done.shards, published.cases, published.version, found)


def test_dask_writes_the_same_tree(few: Few, tmp_path: Path, monkeypatch):
    """And of the whole cohort in ``test_survival``, after a kill."""
    monkeypatch.setenv("BUILDER_KEY", KEY)
    build(few.spec, to=tmp_path / "dataset", parameters=few.parameters, cluster="local", workers=2)
    assert tree(tmp_path / "dataset") == few.tree


def test_an_unchanged_build_does_nothing_and_says_so(sarcoma: Path, corpus):
    before = {p: p.stat().st_mtime_ns for p in sarcoma.rglob("*")}
    done = run("build", SARCOMA, "--to", sarcoma, "--param", f"corpus={corpus('sts')}")
    assert "nothing to do" in done.stdout
    assert before == {p: p.stat().st_mtime_ns for p in sarcoma.rglob("*")}


def test_changed_lines_rebuild_only_what_they_touch(few: Few, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("BUILDER_KEY", KEY)
    text, spec = few.spec.read_text(), tmp_path / "spec.yaml"

    def built(old: str, new: str):
        assert old in text
        spec.write_text(text.replace(old, new))
        return build(spec, to=few.dataset, parameters=few.parameters)

    other_split = built("seed: 7", "seed: 8")
    assert other_split.resumed == other_split.shards == few.shards
    assert other_split.published.version != few.version
    fewer = built("modality == 'PT' and instances >= 20", "modality == 'PT' and instances >= 30")
    assert 0 < fewer.resumed < fewer.shards or fewer.published.cases == few.cases
    voxels = built("clip: [0, 25]", "clip: [0, 20]")
    assert voxels.resumed == 0
    assert builder.open_dataset(few.dataset)[0]["image"].max() <= 20


def test_views_show_each_split_as_one_array(sarcoma: Path):
    version = (sarcoma / "CURRENT").read_text().strip()
    for split in ("train", "validation", "test"):
        system = fsspec.filesystem(
            "reference", fo=str(sarcoma / "versions" / version / "views" / f"{split}.json"), remote_protocol="file",
            template_overrides={"root": str(sarcoma)}, asynchronous=True, skip_instance_cache=True,
        )  # fmt: skip
        group = zarr.open_group(zarr.storage.FsspecStore(system, read_only=True), mode="r")
        dataset = builder.open_dataset(sarcoma, split=split)
        assert group["image"].shape[0] == len(dataset)
        np.testing.assert_array_equal(group["image"][len(dataset) - 1], dataset[len(dataset) - 1]["image"])


def test_the_report_can_be_rendered_again_from_its_numbers(sarcoma: Path):
    version = (sarcoma / "CURRENT").read_text().strip()
    assert render_again(str(sarcoma)) == f"{sarcoma}/versions/{version}/report/index.html"
