"""Labels of the test split in a separate store: nothing of them in what is published, everything in the store."""

import csv
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

import builder
from builder.errors import LayoutError, SpecError
from builder.library.verify import verify
from builder.phantom import write_archive
from builder.publishing.sequester import OF_IMAGES, publish_open
from builder.run.pipeline import build
from builder.spec import DatasetSpec
from builder.specfile import load_spec
from builder.storage import open_store
from tests.catalog.recount import recount
from tests.endtoend.trees import KEY, ROOT, tree

SAMPLES = "samples: {kind: patches, shape: [24, 24, 24], centred_on: tumor, per_case: 4, background: 0.25}"
CHANGES = (
    ("  stratify: [grade]\n", '  sequester: {url: "${sealed}", keep: [race]}\n'),
    (
        "report: {groups: [sex, age_band, race, vendor, site, grade]}",
        "report: {groups: [sex], outcomes: [recurrence, modality]}",
    ),
)
KINDS = {
    "grid": "samples: {kind: grid, shape: [40, 40, 40]}",
    "volumes": "samples: {kind: volumes, chunk: [24, 24, 24]}",
}
CLOSED = {"grade", "recurrence", "modality", "follow_up_days", "age_years", "sex", "foreground_voxels", "centred_on"}


def text_of(samples: str) -> str:
    text = (ROOT / "specs" / "phantom.yaml").read_text()
    for old, new in (*CHANGES, (SAMPLES, samples)):
        assert old in text
        text = text.replace(old, new)
    return text


Build = Callable[..., Path]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("phantom")
    write_archive(top / "phantom", patients=10, seed=20251121)
    return top / "phantom"


@pytest.fixture(scope="module")
def make(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Builds a dataset ``open`` and its store ``sealed``; returns their folder."""

    known: dict[str, Path] = {}

    def call(kind: str, *, top: Path | None = None, phantom: Path = archive) -> Path:
        if top is None and kind in known:
            return known[kind]
        top = top or known.setdefault(kind, tmp_path_factory.mktemp(kind))
        (top / "spec.yaml").write_text(text_of(KINDS[kind]))
        given = {"phantom": str(phantom), "sealed": str(top / "sealed")}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BUILDER_KEY", KEY)
            build(top / "spec.yaml", to=top / "open", parameters=given)
        return top

    return call


@pytest.fixture(scope="module", params=sorted(KINDS))
def made(make: Build, request: pytest.FixtureRequest) -> Path:
    return make(request.param)


@pytest.fixture(scope="module")
def grid(make: Build) -> Path:
    return make("grid")


@pytest.fixture(scope="module")
def plan_of_whole(grid: Path) -> Path:
    """The plan of the version that is in the store."""
    version = (grid / "sealed" / "CURRENT").read_text().split()[0]
    plans = (grid / "open.private").glob("plan/*/published.json")
    return next(p.parent for p in plans if json.loads(p.read_text())["published"]["version"] == version)


@pytest.fixture(scope="module")
def apart(grid: Path, plan_of_whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same whole dataset, published without the persons tested on."""
    spec = DatasetSpec.model_validate_json((plan_of_whole / "spec.json").read_text())
    assert spec.splits.sequester is not None
    options = spec.splits.sequester.model_copy(update={"what": "samples", "keep": ("race", "sex")})
    spec = spec.model_copy(update={"splits": spec.splits.model_copy(update={"sequester": options})})
    target = tmp_path_factory.mktemp("apart") / "open"
    publish_open(open_store(str(grid / "sealed")), open_store(str(target)), spec, guard=lambda: None)
    return target


def test_training_is_untouched_and_test_keeps_its_images(made: Path) -> None:
    seen, whole = builder.open_dataset(made / "open"), builder.open_dataset(made / "sealed")
    rows, labelled = (d.table.drop_columns(["shard"]).to_pylist() for d in (seen, whole))
    assert {r["split"] for r in rows} == {"train", "validation", "test"}
    marked = 0
    for place, (row, full) in enumerate(zip(rows, labelled, strict=True)):
        here, there = seen[place], whole[place]
        np.testing.assert_array_equal(here["image"], there["image"])
        if row["split"] != "test":
            assert row == full
            np.testing.assert_array_equal(here["tumor"], there["tumor"])
            continue
        marked += bool(there["tumor"].any())
        assert not here["tumor"].any()
        assert row["label_status"] == "sequestered"
        assert all(row[name] == full[name] for name in (*OF_IMAGES, "split", "vendor", "race", "person_key"))
        told = {n for n, v in row.items() if v not in (None, [])}
        assert not [n for n in told if re.match(r"(label\.|evidence\.|segment_|class_|box|landmark|text)", n)]
        assert not told & CLOSED
    assert marked, "the store has labels of the test split"


def test_other_readers_find_zeros_and_only_what_was_announced(made: Path) -> None:
    seen = builder.open_dataset(made / "open", split="test")
    for row in seen.table.to_pylist():
        shard = zarr.open_group(made / "open" / "data" / row["shard"], mode="r")
        mask = shard["tumor"]
        held: Any = mask[row["row"]] if isinstance(mask, zarr.Array) else mask[str(row["row"])][:]
        assert not np.asarray(held).any()
    files = {p.partition("/")[2].partition("/")[2] for p in tree(made / "open") if p.startswith("versions/")}
    assert files == {
        "dataset.json", "index.parquet", "splits.parquet", "registry.parquet", "exports/splits.csv",
        "exports/splits_final.json", "views/test.json", "views/train.json", "views/validation.json",
    }  # fmt: skip
    assert not [p for p in tree(made / "open") if "picture" in p]
    assert str(made / "sealed").encode() not in b"".join(p.read_bytes() for p in (made / "open").rglob("dataset.json"))


def test_whoever_holds_the_store_has_the_labels_back(made: Path, make: Build) -> None:
    joined = builder.open_dataset(made / "open", split="test", labels=made / "sealed")
    whole = builder.open_dataset(made / "sealed", split="test")
    assert joined.table.equals(whole.table)
    assert sum(int(joined[i]["tumor"].sum()) for i in range(len(joined))) == sum(
        int(whole[i]["tumor"].sum()) for i in range(len(whole))
    )
    for place in ("open", "sealed"):
        assert verify(str(made / place)).faults == ()


def test_labels_of_other_images_are_refused(grid: Path, make: Build) -> None:
    other = make("volumes")
    with pytest.raises(LayoutError, match="labels of other samples"):
        builder.open_dataset(grid / "open", labels=other / "sealed")


def test_what_is_open_does_not_depend_on_what_is_sequestered(grid: Path, make: Build, archive: Path) -> None:
    """Other outcomes of the persons tested on, and the open dataset is the same to the byte."""
    tested = builder.open_dataset(grid / "sealed", split="test").table.to_pylist()
    days = next(r["follow_up_days"] for r in tested if r["follow_up_days"] is not None)
    other = grid.parent / "other"
    shutil.copytree(archive, other / "phantom")
    rows = list(csv.reader((archive / "clinical.csv").read_text().splitlines()))
    grade, recurrence, last = (rows[0].index(c) for c in ("Grade", "Recurrence", "Follow-up (days)"))
    mine = [row for row in rows if row[last] == str(days)]
    assert len(mine) == 1
    mine[0][grade] = "Low" if mine[0][grade] != "Low" else "High"
    mine[0][recurrence] = "No" if mine[0][recurrence] == "Yes" else "Yes"
    mine[0][last] = str(days + 1)
    with (other / "phantom" / "clinical.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    make("grid", top=other, phantom=other / "phantom")
    told = builder.open_dataset(other / "sealed", split="test").table["follow_up_days"].to_pylist()
    assert days + 1 in told
    assert tree(other / "sealed") != tree(grid / "sealed")
    assert tree(other / "open") == tree(grid / "open")


def test_equal_inputs_and_an_interrupted_build_give_equal_bytes(grid: Path, make: Build, tmp_path: Path) -> None:
    first = tree(grid / "open")
    again = make("grid", top=tmp_path)
    assert tree(again / "open") == first
    receipt = next((again / "open" / "data").glob("*/receipt.json"))
    receipt.unlink()
    (again / "open" / "CURRENT").unlink()
    make("grid", top=again)
    assert tree(again / "open") == first


def test_places_are_not_mixed_up(grid: Path, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    before = {name: tree(grid / name) for name in ("open", "sealed")}
    mixed = (("open", "open", SpecError), ("sealed", "new", LayoutError), ("new", "open", LayoutError))
    for to, sealed, error in mixed:
        with pytest.raises(error, match=r"splits\.sequester"):
            build(grid / "spec.yaml", to=grid / to, parameters={"phantom": str(archive), "sealed": str(grid / sealed)})
    assert {name: tree(grid / name) for name in before} == before
    assert not (grid / "new").exists()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("keep: [race]", "keep: [recurrence]", "sequester.keep"),
        ("keep: [race]", "splits: [tests]", "sequester.splits"),
        (KINDS["grid"], SAMPLES, "centred_on"),
        (KINDS["grid"], "samples: {kind: grid, shape: [40, 40, 40], foreground_at_least: 1}", "foreground_at_least"),
        ("transforms:\n", "transforms:\n  - {kind: crop, mask: tumor}\n", "crop mask"),
        ("  seed: 7", "  hold_out: [{column: grade, values: [High], split: test}]", "hold_out"),
    ],
)
def test_what_would_tell_labels_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = text_of(KINDS["grid"])
    assert old in text
    (tmp_path / "spec.yaml").write_text(text.replace(old, new))
    with pytest.raises(SpecError, match=re.escape(said)):
        load_spec(tmp_path / "spec.yaml")


def test_an_unknown_column_is_blanked() -> None:
    from builder.publishing.sequester import blanked

    notes = ["crop_dropped/x=1", "intensity/0=1.0,0.0"]
    table = pa.table({"sample_key": ["a", "b"], "notes": [notes] * 2, "new": [1, 2]})
    assert blanked(table, [False, True], {"sample_key"}).to_pylist() == [
        {"sample_key": "a", "notes": notes, "new": 1},
        {"sample_key": "b", "notes": ["intensity/0=1.0,0.0"], "new": None},
    ]


def test_whole_persons_are_held_back(grid: Path, apart: Path) -> None:
    """Nothing of the persons tested on is in the open dataset; what is there is what the whole one stores."""
    seen, whole = builder.open_dataset(apart), builder.open_dataset(grid / "sealed")
    rows = {
        row["sample_key"]: (place, row)
        for place, row in enumerate(whole.table.drop_columns(["shard", "row"]).to_pylist())
    }
    tested = [row for _, row in rows.values() if row["split"] == "test"]
    assert tested
    kept = seen.table.drop_columns(["shard", "row"]).to_pylist()
    assert len(kept) == len(rows) - len(tested)
    for place, row in enumerate(kept):
        there, full = rows[row["sample_key"]]
        assert row == full
        assert row["split"] != "test"
        for field in ("image", "tumor"):
            np.testing.assert_array_equal(seen[place][field], whole[there][field])
    names = {value.encode() for row in tested for value in (row["sample_key"], row["case_key"])}
    voxels = {
        np.ascontiguousarray(whole[place]["image"]).tobytes() for place, row in rows.values() if row["split"] == "test"
    }
    stored = {data for group in (apart / "data").iterdir() for data in _images(group)}
    assert len(stored) == len({np.ascontiguousarray(seen[i]["image"]).tobytes() for i in range(len(seen))})
    assert not stored & voxels
    for path in apart.rglob("*"):
        if path.is_file() and path.suffix in (".json", ".html", ".csv"):
            assert not [name for name in names if name in path.read_bytes()], path.name
    for table in ("index", "splits"):
        held = pq.read_table(next((apart / "versions").glob(f"*/{table}.parquet")))
        assert not {row["person_key"] for row in tested} & {*held["person_key"].to_pylist()}
    assert verify(str(apart)).faults == ()


def test_the_page_of_persons_held_back_tells_the_balance(grid: Path, apart: Path) -> None:
    version = next((apart / "versions").iterdir())
    told = json.loads((version / "held-back.json").read_text())
    persons = pq.read_table(next((grid / "sealed" / "versions").glob("*/splits.parquet"))).to_pylist()
    assert {row["split"]: row["persons"] for row in told["splits"]} == Counter(row["split"] for row in persons)
    assert told["held_back"] == ["test"]
    told_of = {entry["column"] for entry in told["groups"]}
    assert {"sex", "vendor", "site"} <= told_of
    assert not (CLOSED - {"sex"}) & told_of
    page = (version / "held-back.html").read_text()
    assert "test (held back)" in page
    assert "<script" not in page


def test_every_number_of_the_whole_datasets_records_is_recomputed(grid: Path, plan_of_whole: Path) -> None:
    version = next((grid / "sealed" / "versions").iterdir())
    facts = json.loads((version / "catalog" / "facts.json").read_text())
    assert recount(version, facts, pd.read_parquet(plan_of_whole / "cohort.parquet")) == {}


def _images(shard: Path) -> list[bytes]:
    array: Any = zarr.open_group(shard, mode="r")["image"]
    return [np.ascontiguousarray(array[row]).tobytes() for row in range(array.shape[0])]
