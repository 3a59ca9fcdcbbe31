"""Shards against zarr-python and tensorstore, and against themselves: any way of writing gives the same bytes."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorstore
import xarray
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from builder.errors import CaseError, Reason
from builder.model.case import ClearedSample, Slabs
from builder.model.cleared import SEAL, Cleared
from builder.model.geometry import Geometry
from builder.model.layout import SAMPLES, parse_receipt
from builder.shards import CODECS, FieldStorage, open_shard, write_shard
from builder.storage import open_store

FINGERPRINT = "0123456789abcdef" * 2
FACTS = pa.schema([("age_years", pa.float64())])


def make_sample(
    number: int, *, shape: tuple[int, int, int] = (6, 7, 8), dtype: str = "int16", channels: int = 1
) -> ClearedSample:
    rng = np.random.default_rng(number)
    image = rng.integers(0, 200, (channels, *shape)).astype(dtype)
    mask = (image[:1] > 100).astype(np.uint8)
    row: dict[str, Any] = {"sample_key": f"case-{number:04d}", "case_key": "case", "age_years": float(number)}
    return ClearedSample({"image": image, "tumor": mask}, Geometry(shape, np.diag([2.0, 1.0, 1.0, 1.0])), row)


def read_all(folder: Path) -> dict[str, NDArray[np.generic]]:
    group = zarr.open_group(str(folder), mode="r")
    return {name: array[:] for name, array in group.arrays()}


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize("codec", sorted(CODECS))
@pytest.mark.parametrize("dtype", ["int16", "uint8", "uint16", "float32", "float64"])
def test_zarr_python_reads_equal_arrays(tmp_path: Path, codec: str, dtype: str) -> None:
    samples = [make_sample(i, dtype=dtype, channels=2) for i in range(5)]
    cases = [samples[:2], samples[2:]]
    receipt = write_shard(open_store(tmp_path), FINGERPRINT, cases=cases, codec=CODECS[codec], facts=FACTS)
    found = read_all(tmp_path / "data" / FINGERPRINT)
    assert sorted(found) == ["image", "tumor"]
    for name, array in found.items():
        np.testing.assert_array_equal(array, np.stack([np.asarray(s.arrays[name]) for s in samples]))
        assert array.dtype == samples[0].arrays[name].dtype
    assert (receipt.rows, receipt.cases) == (5, 2)


def with_zarrs(path: Path) -> NDArray[Any]:
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        array = zarr.open_array(str(path), mode="r")
        assert "Zarrs" in type(array._async_array.codec_pipeline).__name__
        return np.asarray(array[:])


def with_tensorstore(path: Path) -> NDArray[Any]:
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/"}}
    return np.asarray(tensorstore.open(spec).result().read().result())


def with_dask(path: Path) -> NDArray[Any]:
    array = dask.array.from_zarr(str(path))
    assert array.npartitions >= 1
    return np.asarray(array.compute(scheduler="synchronous"))


def with_xarray(path: Path) -> NDArray[Any]:
    root = next(parent for parent in path.parents if parent.name == FINGERPRINT)
    group = path.parent.relative_to(root).as_posix().removeprefix(".") or None
    others = [other.name for other in path.parent.iterdir() if other.name != path.name]  # of other shapes
    with xarray.open_zarr(str(root), group=group, chunks=None, drop_variables=others) as found:
        channel = "channel" if "image" in path.parts else "tumor_channel"
        names = ("sample", channel, "slice", "row", "column")
        assert found[path.name].dims == names[-found[path.name].ndim :]
        return np.asarray(found[path.name].values)


READERS: Mapping[str, Callable[[Path], NDArray[Any]]] = {
    "zarrs": with_zarrs,
    "tensorstore": with_tensorstore,
    "dask.array": with_dask,
    "xarray": with_xarray,
}


@pytest.mark.parametrize("codec", sorted(CODECS))
@pytest.mark.parametrize("name", sorted(READERS))
def test_other_libraries_read_equal_arrays(tmp_path: Path, name: str, codec: str) -> None:
    for dtype in ("int16", "float32"):
        samples = [make_sample(i, dtype=dtype, channels=2) for i in range(3)]
        store = open_store(tmp_path / dtype)
        write_shard(store, FINGERPRINT, cases=[samples], codec=CODECS[codec], facts=FACTS)
        for member in ("image", "tumor"):
            found = READERS[name](tmp_path / dtype / "data" / FINGERPRINT / member)
            np.testing.assert_array_equal(found, np.stack([np.asarray(s.arrays[member]) for s in samples]))
            assert found.dtype == samples[0].arrays[member].dtype


@pytest.mark.parametrize("name", sorted(READERS))
def test_other_libraries_read_whole_volumes(tmp_path: Path, name: str) -> None:
    samples = [make_sample(i, shape=shape) for i, shape in enumerate([(9, 17, 33), (40, 8, 5)])]
    write_shard(open_store(tmp_path), FINGERPRINT, cases=[samples], facts=FACTS, chunk=(8, 8, 16))
    for number, sample in enumerate(samples):
        found = READERS[name](tmp_path / "data" / FINGERPRINT / "image" / str(number))
        np.testing.assert_array_equal(found, sample.arrays["image"])


def test_whole_volumes_are_arrays_of_their_own(tmp_path: Path) -> None:
    samples = [make_sample(i, shape=shape) for i, shape in enumerate([(9, 17, 33), (40, 8, 5)])]
    cases = [[s] for s in samples]
    receipt = write_shard(open_store(tmp_path), FINGERPRINT, cases=cases, facts=FACTS, chunk=(8, 8, 16))
    for number, sample in enumerate(samples):
        for name in ("image", "tumor"):
            array = zarr.open_array(str(tmp_path / "data" / FINGERPRINT / name / str(number)), mode="r")
            np.testing.assert_array_equal(array[:], sample.arrays[name])
            assert array.chunks[1:] == (8, 8, 16)
            channel = "channel" if name == "image" else "tumor_channel"
            assert array.metadata.dimension_names == (channel, "slice", "row", "column")
    assert {f.shape for f in receipt.fields} == {None}


def test_receipt_names_every_object_with_its_digest(tmp_path: Path) -> None:
    receipt = write_shard(open_store(tmp_path), FINGERPRINT, cases=[[make_sample(0)]], facts=FACTS)
    folder = tmp_path / "data" / FINGERPRINT
    found = digests(folder)
    assert parse_receipt((folder / "receipt.json").read_bytes()) == receipt
    del found["receipt.json"]
    assert {o.path: o.sha256 for o in receipt.objects} == found
    assert {o.path: o.bytes for o in receipt.objects} == {p: (folder / p).stat().st_size for p in found}


def test_bytes_do_not_depend_on_how_samples_arrive(tmp_path: Path) -> None:
    samples = [make_sample(i) for i in range(6)]

    def lazily() -> Iterator[ClearedSample]:
        for sample in samples:
            strided = {n: np.asfortranarray(a) for n, a in sample.arrays.items()}
            yield ClearedSample(strided, sample.geometry, dict(reversed(list(sample.row.items()))))

    write_shard(open_store(tmp_path / "a"), FINGERPRINT, cases=[samples[:3], samples[3:]], facts=FACTS)
    with open_shard(open_store(tmp_path / "b"), FINGERPRINT, facts=FACTS) as writer:
        writer.add_case(samples[:3])
        with pytest.raises(CaseError):  # a case that fails half way leaves no trace
            writer.add_case([make_sample(9), make_sample(10, dtype="float32")])
        it = lazily()
        for _ in range(3):
            next(it)
        writer.add_case(it)
        writer.finish()
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


@pytest.mark.parametrize("chunk", [(2, 3, 8), (4, 4, 4), (32, 32, 32)], ids=str)
def test_slabs_are_written_like_the_array_they_make(
    tmp_path: Path, chunk: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = make_sample(0, shape=(9, 7, 8), channels=2)
    image = np.asarray(sample.arrays["image"])
    asked: list[tuple[int, int]] = []

    def make(slices: int, rows: int) -> Iterator[NDArray[Any]]:
        asked.append((slices, rows))
        room = np.empty(image.size, image.dtype)
        for first in range(0, image.shape[1], slices):
            for top in range(0, image.shape[2], rows):
                part = image[:, first : first + slices, top : top + rows]
                room[: part.size] = part.ravel()
                yield room[: part.size].reshape(part.shape)

    slabs = Slabs((2, 9, 7, 8), image.dtype, make)
    made = replace(sample, arrays={**sample.arrays, "image": slabs})
    monkeypatch.setattr("builder.shards.streams.SLAB_BYTES", 1)
    for name, one in (("whole", sample), ("slabs", made)):
        write_shard(open_store(tmp_path / name), FINGERPRINT, cases=[[one]], facts=FACTS, chunk=chunk)
    assert digests(tmp_path / "slabs") == digests(tmp_path / "whole")
    assert asked == [chunk[:2]]


def test_slabs_need_chunks_and_their_own_type(tmp_path: Path) -> None:
    sample = make_sample(0)
    image = np.asarray(sample.arrays["image"])
    slabs = Slabs((1, 6, 7, 8), image.dtype, lambda *size: iter([image]))
    made = replace(sample, arrays={**sample.arrays, "image": slabs})
    with pytest.raises(ValueError, match="expected chunks"):
        write_shard(open_store(tmp_path), FINGERPRINT, cases=[[made]], facts=FACTS)
    storage = {"image": FieldStorage(dtype="float32")}
    with pytest.raises(ValueError, match="stored as float32"):
        write_shard(open_store(tmp_path), FINGERPRINT, cases=[[made]], facts=FACTS, chunk=(2, 2, 2), storage=storage)


def test_failed_first_case_and_volumes_leave_no_trace(tmp_path: Path) -> None:
    def broken() -> Iterator[ClearedSample]:
        yield make_sample(5, dtype="float32")
        raise CaseError(Reason.LABEL_EMPTY, "found no voxel")

    for name, chunk in (("patches", None), ("volumes", (4, 4, 4))):
        with open_shard(open_store(tmp_path / name), FINGERPRINT, facts=FACTS, chunk=chunk) as writer:
            with pytest.raises(CaseError) as caught:
                writer.add_case(broken())
            writer.exclude("lost", caught.value.reason, Cleared(caught.value.detail, SEAL))
            writer.add_case([make_sample(0)])
            receipt = writer.finish()
        assert (receipt.rows, receipt.cases, receipt.excluded[0].case_key) == (1, 1, "lost")
        group = zarr.open_group(str(tmp_path / name / "data" / FINGERPRINT), mode="r")
        image = group["image"] if chunk is None else group["image/0"]
        np.testing.assert_array_equal(np.squeeze(image[:]), np.squeeze(np.asarray(make_sample(0).arrays["image"])))


def test_unlike_samples_exclude_the_case(tmp_path: Path) -> None:
    with open_shard(open_store(tmp_path), FINGERPRINT, facts=FACTS) as writer:
        writer.add_case([make_sample(0)])
        whole = make_sample(1)
        with pytest.raises(CaseError, match="label_missing"):
            writer.add_case([ClearedSample({"image": whole.arrays["image"]}, whole.geometry, whole.row)])
        with pytest.raises(CaseError, match="inconsistent_pixels"):
            writer.add_case([make_sample(1, shape=(6, 7, 9))])
        with pytest.raises(ValueError, match="weight"):
            writer.add_case([ClearedSample(whole.arrays, whole.geometry, {**whole.row, "weight": 1})])


def test_empty_shard_is_valid(tmp_path: Path) -> None:
    receipt = write_shard(open_store(tmp_path), FINGERPRINT, cases=[], facts=FACTS)
    assert receipt.rows == 0
    assert pq.read_table(tmp_path / "data" / FINGERPRINT / SAMPLES).num_rows == 0
    assert not list(zarr.open_group(str(tmp_path / "data" / FINGERPRINT), mode="r").arrays())


def test_describe_merges_segments_and_units(tmp_path: Path) -> None:
    with open_shard(open_store(tmp_path), FINGERPRINT, facts=FACTS) as writer:
        writer.add_case([make_sample(0)])
        writer.describe("image", unit="HU")
        writer.describe("image", unit="HU")
        writer.describe("tumor", segments={"edema": (0, 2)})
        writer.describe("tumor", segments={"core": (0, 1)})
        with pytest.raises(CaseError, match="label_ambiguous"):
            writer.describe("tumor", segments={"core": (0, 3)})
        fields = {f.name: f for f in writer.finish().fields}
    assert fields["image"].unit == "HU"
    assert fields["tumor"].segments == {"core": (0, 1), "edema": (0, 2)}
    attributes = json.loads((tmp_path / "data" / FINGERPRINT / "tumor" / "zarr.json").read_bytes())["attributes"]
    assert attributes["segments"] == {"core": [0, 1], "edema": [0, 2]}


@dataclass(frozen=True)
class Facts:
    unit: str = ""
    segments: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    channels: tuple[tuple[str, str], ...] = ()
    grid: str = ""


def test_a_case_whose_segments_clash_leaves_no_trace(tmp_path: Path) -> None:
    with open_shard(open_store(tmp_path), FINGERPRINT, facts=FACTS) as writer:
        writer.add_case([make_sample(0)], described={"image": Facts("HU"), "tumor": Facts("", {"core": (0, 1)})})
        with pytest.raises(CaseError, match="label_ambiguous"):
            writer.add_case([make_sample(1)], described={"image": Facts("SUVbw"), "tumor": Facts("", {"core": (0, 2)})})
        receipt = writer.finish()
    assert (receipt.rows, receipt.cases) == (1, 1)
    assert {f.name: f.unit for f in receipt.fields} == {"image": "HU", "tumor": ""}
    np.testing.assert_array_equal(read_all(tmp_path / "data" / FINGERPRINT)["image"], [make_sample(0).arrays["image"]])


def test_a_flipped_bit_is_noticed_by_zarr_python(tmp_path: Path) -> None:
    write_shard(open_store(tmp_path), FINGERPRINT, cases=[[make_sample(0)]], facts=FACTS)
    path = tmp_path / "data" / FINGERPRINT / "image" / "c" / "0" / "0" / "0" / "0" / "0"
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)
    with pytest.raises(ValueError, match="checksum"):
        read_all(tmp_path / "data" / FINGERPRINT)


@settings(max_examples=15, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 11)] * 3),
    chunk=st.tuples(*[st.integers(1, 6)] * 3),
    channels=st.integers(1, 3),
)
def test_any_volume_in_any_chunks(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, int, int], chunk: tuple[int, int, int], channels: int
) -> None:
    root = tmp_path_factory.mktemp("volume")
    sample = make_sample(1, shape=shape, channels=channels)
    write_shard(open_store(root), FINGERPRINT, cases=[[sample]], facts=FACTS, chunk=chunk)
    array = zarr.open_array(str(root / "data" / FINGERPRINT / "image" / "0"), mode="r")
    np.testing.assert_array_equal(array[:], sample.arrays["image"])
