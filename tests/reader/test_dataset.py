"""The map-style reader: what was written comes back, and nothing damaged does."""

import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import LayoutError, SpecError
from builder.reader import open_dataset

ROOT = Path(__file__).resolve().parents[2]


def test_every_sample_comes_back(patches: Any) -> None:
    dataset = open_dataset(patches.root)
    assert len(dataset) == 17
    for number, item in enumerate(dataset):
        sample = patches.samples[number]
        for name, array in sample.arrays.items():
            np.testing.assert_array_equal(item[name], array)
            assert item[name].dtype == array.dtype
        row = item.row
        assert (row["sample_key"], row["sex"]) == (sample.row["sample_key"], sample.row["sex"])
        assert row["age_years"] == sample.row["age_years"]
        np.testing.assert_array_equal(item.geometry.affine, sample.geometry.affine)
    with pytest.raises(IndexError):
        dataset[17]
    np.testing.assert_array_equal(dataset[-1]["image"], patches.samples[16].arrays["image"])


def test_splits_expressions_and_selections(patches: Any) -> None:
    dataset = open_dataset(patches.root)
    train = open_dataset(patches.root, split="train", fields=["image"])
    assert train.rows.tolist() == [i for i, s in enumerate(patches.splits) if s == "train"]
    assert set(train[0].arrays) == {"image"}
    women = train.where("sex = 'F' and age_years is not missing")
    expected = [i for i in train.rows if i % 2 == 0 and i % 7 != 6]
    assert women.rows.tolist() == expected
    assert women.table.column("sample_key").to_pylist() == [f"s{i:05d}" for i in expected]
    assert women.select([2, 0, 2]).rows.tolist() == [expected[2], expected[0], expected[2]]
    assert women[1:3].rows.tolist() == expected[1:3]
    assert women.where("sex = 'M'").rows.tolist() == []
    for call in (lambda: dataset.split("holdout"), lambda: open_dataset(patches.root, fields=["liver"])):
        with pytest.raises(SpecError, match="expected"):
            call()
    with pytest.raises(SpecError, match="did you mean 'age_years'"):
        dataset.where("age_year > 3")


def test_arrow_filters_and_sql_select(patches: Any) -> None:
    dataset = open_dataset(patches.root, split="train")
    older = dataset.where(pc.field("age_years") > 8)
    assert older.rows.tolist() == dataset.where("age_years > 8").rows.tolist() != []
    found = dataset.sql("select sex, count(*) as n from samples group by sex order by sex").to_pylist()
    assert {row["sex"]: row["n"] for row in found} == {
        sex: dataset.where(f"sex = '{sex}'").rows.size for sex in ("F", "M")
    }
    ordered = dataset.select(
        dataset.sql("select position from samples where age_years is not null order by age_years desc")["position"]
    )
    ages = ordered.table.column("age_years").to_pylist()
    assert ages == sorted(ages, reverse=True)
    assert len(ages) == len(dataset.where("age_years is not missing"))
    np.testing.assert_array_equal(ordered[0]["image"], patches.samples[int(ordered.rows[0])].arrays["image"])
    for query in ("select nothing from samples", f"select * from read_parquet('{patches.root}/**/*.parquet')"):
        with pytest.raises(SpecError, match="expected one over samples"):
            dataset.sql(query)


@settings(max_examples=30, deadline=None)
@given(positions=st.lists(st.integers(-17, 16), min_size=1, max_size=30))
def test_any_batch_in_any_order(patches: Any, positions: list[int]) -> None:
    dataset = open_dataset(patches.root)
    batch = dataset.get(positions)
    normal = [p % 17 for p in positions]
    for name in ("image", "tumor"):
        np.testing.assert_array_equal(batch[name], patches.stack(name, normal))
    assert batch.indices.tolist() == normal
    assert batch.table.column("sample_key").to_pylist() == [f"s{i:05d}" for i in normal]


def test_batches_are_decoded_into_given_buffers(patches: Any) -> None:
    dataset = open_dataset(patches.root, fields=["image"])
    out = {"image": np.zeros((3, 1, 6, 7, 8), np.int16)}
    assert dataset.get([4, 1, 9], out=out)["image"] is out["image"]
    np.testing.assert_array_equal(out["image"], patches.stack("image", [4, 1, 9]))
    for wrong in (np.zeros((2, 1, 6, 7, 8), np.int16), np.zeros((3, 1, 6, 7, 8), np.int32), out["image"][..., ::-1]):
        with pytest.raises(ValueError, match="expected C-contiguous int16"):
            dataset.get([4, 1, 9], out={"image": wrong})


def test_volumes_and_their_crops(volumes: Any) -> None:
    dataset = open_dataset(volumes.root)
    for number, sample in enumerate(volumes.samples):
        item = dataset[number]
        for name, array in sample.arrays.items():
            np.testing.assert_array_equal(item[name], array)
    with pytest.raises(ValueError, match="shapes"):
        dataset.get([0, 1])
    np.testing.assert_array_equal(dataset.get([1])["image"][0], volumes.samples[1].arrays["image"])


@pytest.mark.parametrize("kind", ["patches", "volumes"])
def test_packed_fields_become_values(packed: Any, kind: str) -> None:
    made = packed[kind]
    dataset, stored = open_dataset(made.root), open_dataset(made.root, values="stored")
    packing = stored.layout("image").packing
    assert packing is not None
    assert (dataset.dtype("image"), stored.dtype("image")) == ("float32", "int16")
    expected = made.stack("image", range(4))
    for found in (dataset.get(range(4))["image"], np.stack([item["image"] for item in dataset])):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)
    raw = stored.get(range(4))["image"]
    assert raw.dtype == np.int16
    np.testing.assert_array_equal(raw * packing.factor + packing.offset, expected)
    np.testing.assert_array_equal(dataset.crop(2, (1, 2, 3), (4, 3, 5))["image"], expected[2, :, 1:5, 2:5, 3:8])
    larger = (8, 7, 8)  # than the samples of (6, 7, 8): filled up with air
    padded, bare = (next(iter(d.batches(4, crop=larger)))["image"] for d in (dataset, stored))
    assert (padded[:, :, 6:] == -1024).all()
    np.testing.assert_array_equal(bare * packing.factor + packing.offset, padded)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_crop(volumes: Any, patches: Any, data: st.DataObject) -> None:
    made = data.draw(st.sampled_from([volumes, patches]))
    dataset = open_dataset(made.root)
    position = data.draw(st.integers(0, len(dataset) - 1))
    sample = made.samples[position]
    start = [data.draw(st.integers(0, n - 1)) for n in sample.geometry.shape]
    shape = [data.draw(st.integers(1, n - a)) for a, n in zip(start, sample.geometry.shape, strict=True)]
    box = (slice(None), *(slice(a, a + n) for a, n in zip(start, shape, strict=True)))
    found = dataset.crop(position, tuple(start), tuple(shape))  # type: ignore[arg-type]
    for name, array in sample.arrays.items():
        np.testing.assert_array_equal(found[name], array[box])
    with pytest.raises(ValueError, match="inside"):
        dataset.crop(position, (0, 0, -1), (1, 1, 1))


def test_pickled_datasets_read(patches: Any) -> None:
    dataset = open_dataset(patches.root, split="train")
    dataset[0]
    again = pickle.loads(pickle.dumps(dataset))  # noqa: S301
    np.testing.assert_array_equal(again[1]["image"], dataset[1]["image"])


def test_many_shards_do_not_use_up_the_file_handles(fresh: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made = fresh(sizes=[1] * 12)
    monkeypatch.setattr("builder.reader.shard.MOST_OPEN_FILES", 3)
    dataset = open_dataset(made.root)
    for _ in range(2):
        for number, item in enumerate(dataset):
            assert item["image"][0, 0, 0, 0] == number
    handles = [p.resolve() for p in Path("/proc/self/fd").iterdir() if p.exists()]
    assert sum(made.root in p.parents for p in handles) <= 3


def damage(made: Any, name: str, change: Callable[[bytearray], Any]) -> None:
    for path in made.root.rglob("c/0/0/0/0/0"):
        if f"/{name}/" in str(path):
            data = bytearray(path.read_bytes())
            change(data)
            path.write_bytes(data)


def test_a_flipped_bit_in_any_byte_is_noticed(fresh: Callable[..., Any]) -> None:
    made = fresh(sizes=[2], shape=(3, 3, 4))
    path = next(p for p in made.root.rglob("c/0/0/0/0/0") if "/image/" in str(p))
    good = path.read_bytes()
    for place in range(len(good)):
        data = bytearray(good)
        data[place] ^= 1 << (place * 5 % 8)
        path.write_bytes(data)
        with pytest.raises(LayoutError, match=r"damaged|outside"):
            open_dataset(made.root).get([0, 1])
    path.write_bytes(good)
    open_dataset(made.root).get([0, 1])


def test_without_checksums_damage_never_crashes(fresh: Callable[..., Any]) -> None:
    made = fresh(sizes=[1])
    path = next(p for p in made.root.rglob("c/0/0/0/0/0") if "/image/" in str(p))
    good = path.read_bytes()
    dataset = open_dataset(made.root, checksums=False)
    dataset[0]
    rng = np.random.default_rng(0)
    for _ in range(200):
        data = np.frombuffer(good, np.uint8).copy()
        body = len(good) - 20
        data[rng.integers(0, body, 8)] = rng.integers(0, 256, 8)
        path.write_bytes(data.tobytes())
        try:
            open_dataset(made.root, checksums=False)[0]
        except LayoutError as error:
            assert "damaged" in str(error)  # noqa: PT017


def test_cut_and_missing_objects_are_refused(fresh: Callable[..., Any]) -> None:
    made = fresh(sizes=[3])
    damage(made, "image", lambda data: data.__delitem__(slice(100, None)))
    with pytest.raises(LayoutError, match=r"image.*damaged index"):
        open_dataset(made.root)[0]
    shutil.rmtree(next((made.root / "data").iterdir()) / "tumor")
    with pytest.raises(LayoutError, match=r"tumor.*found no object"):
        open_dataset(made.root, fields=["tumor"])[0]


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("CURRENT", lambda b: b"", "CURRENT: found ''"),
        ("CURRENT", lambda b: b"v1\nv2\n", "one line"),
        ("CURRENT", lambda b: b"../v1\n", "one line"),
        ("CURRENT", lambda b: b"v2\n", "found no versions/v2"),
        ("versions/v1/dataset.json", lambda b: b[:50], "no valid JSON"),
        ("versions/v1/dataset.json", lambda b: b.replace(b'version":2', b'version":1'), "version 1, expected 2"),
        ("versions/v1/dataset.json", lambda b: b.replace(b'"rows":5', b'"rows":4'), "beyond the rows"),
        ("versions/v1/dataset.json", lambda b: b.replace(b'"shards":', b'"sherds":'), "found nothing as shards"),
        ("versions/v1/index.parquet", lambda b: b[:-1], "SHA-256"),
    ],
)
def test_a_dataset_that_is_not_what_it_says_is_refused(
    fresh: Callable[..., Any], file: str, change: Callable[[bytes], bytes], message: str
) -> None:
    made = fresh()
    path = made.root / file
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(LayoutError, match=message):
        open_dataset(made.root)


def test_no_dataset_there(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="found no CURRENT, expected a published dataset"):
        open_dataset(tmp_path)


def test_readers_never_list(patches: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("os.walk", "os.listdir", "os.scandir", "pathlib.Path.iterdir", "pathlib.Path.glob"):
        monkeypatch.setattr(name, lambda *a, **k: pytest.fail("listed a folder"))
    open_dataset(patches.root).get(range(17))


def test_the_reader_loads_no_build_machinery() -> None:
    code = (
        "import sys, builder, builder.reader; builder.open_dataset\n"
        "heavy = {'dask', 'distributed', 'pydicom', 'SimpleITK', 'zarr', 'torch', 'pandas', 'numba', 'pydantic'}\n"
        "sys.exit(repr(sorted(heavy & set(sys.modules))) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
