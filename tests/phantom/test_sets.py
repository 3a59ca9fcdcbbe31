"""The phantom's sets: four contrasts of a brain, visits with growing tumours, and mammograms in four views."""

import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

import builder
from builder.errors import SpecError
from builder.phantom import write_sets
from builder.phantom.sets import GROWTH, VISIT_DAYS
from builder.reader.export import export_datalist, export_nnunet, export_nnunet_preprocessed, export_webdataset
from builder.run.pipeline import build
from builder.spec import DatasetSpec
from builder.specfile import fill_parameters, load_spec
from tests.endtoend.trees import KEY, ROOT

CONTRASTS = ("t1", "t1c", "t2", "flair")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "sets"
    write_sets(folder, patients=2, visits=2)
    return folder


def with_blocks(spec: DatasetSpec, **blocks: Any) -> DatasetSpec:
    """The spec with some blocks replaced."""
    return DatasetSpec.model_validate({**spec.model_dump(mode="json", by_alias=True, exclude_unset=True), **blocks})


@pytest.fixture(scope="module")
def brains(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The recipe of brain tumours, built of the first visit's studies and the second's alike."""
    recipe = fill_parameters(load_spec(ROOT / "specs" / "brain-tumour.yaml"), {"phantom": str(phantom)})
    folder = tmp_path_factory.mktemp("brains") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_KEY", KEY)
        build(with_blocks(recipe, splits={"ratios": {"train": 1.0}}), to=folder)
    return builder.open_dataset(folder)


def test_the_recipe_of_brain_tumours_sees_the_misaligned_contrast_and_the_true_volumes(brains, phantom: Path):
    truth = json.loads((phantom / "truth.json").read_text())["brain"]
    assert brains.channels() == CONTRASTS
    assert len(brains) == len(truth) == 4
    moved = Counter(any("t2/misaligned" in f for f in item.row["findings"]) for item in brains)
    assert moved == {True: 2, False: 2}  # both visits of the last person
    assert not any("flair/misaligned" in f or "t1c/misaligned" in f for item in brains for f in item.row["findings"])
    found = sorted(item.row["label.tumour.core.volume_mm3"] for item in brains)
    expected = sorted(visit["core_mm3"] for visit in truth)
    assert found == pytest.approx(expected, rel=0.12)


def test_four_channels_go_to_nnunet_monai_and_webdataset(brains, tmp_path: Path):
    raw = export_nnunet(brains, tmp_path, number=7, label="tumour")
    about = json.loads((raw / "dataset.json").read_text())
    assert about["channel_names"] == {str(n): name for n, name in enumerate(CONTRASTS)}
    assert about["labels"] == {"background": 0, "core": 1, "oedema": 2}
    item = brains[0]
    for channel in range(4):
        image = nibabel.load(raw / "imagesTr" / f"{item.row['sample_key']}_{channel:04d}.nii.gz")
        assert np.array_equal(np.transpose(image.get_fdata(), (2, 1, 0)), item["image"][channel])
    pytest.importorskip("blosc2")
    ready = export_nnunet_preprocessed(brains, tmp_path / "ready", number=7, label="tumour", patch=(16, 32, 32))
    with next(ready.rglob("*.pkl")).open("rb") as stream:
        assert set(pickle.load(stream)["class_locations"]) == {1, 2}  # noqa: S301 - our own file
    datalist = json.loads(export_datalist(brains, tmp_path / "monai", label="tumour").read_text())
    assert datalist["channel_names"] == {"image": [*CONTRASTS]}
    assert len(export_webdataset(brains, tmp_path / "tars")) == 1


def test_two_visits_are_one_sample_whose_tumour_has_grown(phantom: Path, tmp_path: Path):
    recipe = fill_parameters(load_spec(ROOT / "specs" / "brain-tumour.yaml"), {"phantom": str(phantom)})
    images = {
        name: image.model_dump(exclude_unset=True) for name, image in recipe.cohort.images.items() if name != "t2"
    }
    seg = {"kind": "seg", "layout": "map", "segments": {"core": "(?i)core"}}
    two = with_blocks(
        recipe,
        cohort={"case": "person", "visits": {"names": ["before", "after"]}, "images": images},
        labels={"then": {**seg, "on": "before.t1c"}, "now": {**seg, "on": "after.t1c"}},
        samples={"kind": "volumes"},
        splits={"ratios": {"train": 0.5, "test": 0.5}},
        deid={"patient_key": "${env:BUILDER_KEY}", "retain": ["delta_days"]},
    )
    build(two, to=tmp_path / "data")
    dataset = builder.open_dataset(tmp_path / "data")
    assert dataset.image_fields == ("after", "before")
    assert Counter(dataset.table["split"].to_pylist()) == {"train": 1, "test": 1}
    for item in dataset:
        row = item.row
        assert row["after.delta_days"] == VISIT_DAYS
        assert row["label.now.core.volume_mm3"] / row["label.then.core.volume_mm3"] == pytest.approx(
            GROWTH**3, rel=0.15
        )
        assert item.geometry_of("now").same_grid(item.geometry_of("after"))


def _grown(row: dict[str, Any]) -> float:
    return float(row["label.now.core.volume_mm3"] / row["label.then.core.volume_mm3"])


def test_views_are_fields_of_one_exam_and_an_exam_that_lacks_one_says_which(phantom: Path, tmp_path: Path):
    views = {"r_cc": ("R", "CC"), "r_mlo": ("R", "MLO"), "l_cc": ("L", "CC"), "l_mlo": ("L", "MLO")}
    images = {
        name: {
            "select": f"modality == 'MG' and laterality == '{side}' and view_position == '{view}'",
            **({"aligned": "none"} if name != "r_cc" else {}),
        }
        for name, (side, view) in views.items()
    }
    spec = DatasetSpec.model_validate({
        "name": "views", "license": "CC0-1.0", "sources": [{"kind": "folder", "url": str(phantom / "mammo")}],
        "cohort": {"case": "study", "images": images}, "volumes": {"projection": "keep"},
        "deid": {"patient_key": "${env:BUILDER_KEY}"}, "samples": {"kind": "volumes"},
        "splits": {"ratios": {"train": 1.0}}, "leaks": {"pixels": "off"},
    })  # fmt: skip
    build(spec, to=tmp_path / "data")
    dataset = builder.open_dataset(tmp_path / "data")
    (item,) = list(dataset)
    shapes = {name: item[name].shape for name in dataset.image_fields}
    assert shapes == {
        "image": (1, 1, 96, 72), "r_mlo": (1, 1, 104, 72), "l_cc": (1, 1, 96, 72), "l_mlo": (1, 1, 104, 72),
    }  # fmt: skip
    assert item["l_cc"][0, 0, 48, 0] > 1000 > item["l_cc"][0, 0, 0, 71]  # the chest wall is on the left in the picture
    table = builder.model.parquet.read_parquet(
        next((tmp_path / "data").glob("versions/*/exclusions.parquet")).read_bytes()
    )
    details = [r["detail"] for r in table.to_pylist() if r["reason"] == "image_missing"]
    assert details == ["image l_mlo: found no usable series in the study that it selects, expected one"]


def test_the_same_arguments_write_the_same_bytes(tmp_path: Path):
    for name in ("one", "two"):
        write_sets(tmp_path / name, patients=1)
    one, two = (
        {p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*.*")} for n in ("one", "two")
    )
    assert one.keys() == two.keys()
    assert one == two
    with pytest.raises(SpecError, match="expected an empty or new folder"):
        write_sets(tmp_path / "one")
