"""A small published dataset, written with the shard writer and put together as the last stage of a build does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from builder.model.canonical import fingerprint
from builder.model.case import ClearedSample
from builder.model.geometry import Geometry
from builder.model.layout import (
    CURRENT,
    INDEX,
    MANIFEST,
    SAMPLES,
    Manifest,
    ShardEntry,
    shard_path,
    stored_object,
    version_path,
    write_current,
)
from builder.model.parquet import parquet_bytes, read_parquet
from builder.model.samples import index_schema
from builder.shards import FieldStorage, open_shard
from builder.storage import open_store

FACTS = pa.schema([("age_years", pa.float64()), ("sex", pa.string())])


@dataclass(frozen=True)
class Made:
    """A dataset on disk and what is in it, in the order of its index."""

    root: Path
    samples: tuple[ClearedSample, ...]
    splits: tuple[str, ...]

    def stack(self, name: str, positions: Sequence[int]) -> NDArray[Any]:
        return np.stack([np.asarray(self.samples[i].arrays[name]) for i in positions])


def make_sample(number: int, shape: tuple[int, int, int]) -> ClearedSample:
    rng = np.random.default_rng(number)
    image = np.cumsum(rng.integers(-3, 4, (1, *shape)), axis=-1).astype(np.int16)
    image[0, 0, 0, 0] = number  # every sample can be told from the others
    row: dict[str, Any] = {
        "sample_key": f"s{number:05d}",
        "case_key": f"c{number // 2:05d}",
        "age_years": None if number % 7 == 6 else float(number % 90),
        "sex": "FM"[number % 2],
        "domain": "HU",
    }
    ragged: dict[str, Any] = {"segment_names": ["tumor/x"]}
    mask = (image > 2).astype(np.uint8)
    geometry = Geometry(shape, np.array([[0, 0, 1, 2.5], [0, 1, 0, number], [2, 0, 0, 0], [0, 0, 0, 1]], float))
    return ClearedSample({"image": image, "tumor": mask}, geometry, row, ragged)


def publish(
    root: Path,
    shards: Sequence[Sequence[ClearedSample]],
    *,
    chunk: tuple[int, int, int] | None = None,
    version: str = "v1",
    splits: Sequence[str] = ("train", "train", "validation", "test"),
    described: Mapping[str, tuple[str, Mapping[str, tuple[int, int]]]] = MappingProxyType({}),
    storage: Mapping[str, FieldStorage] = MappingProxyType({}),
) -> Made:
    """Write shards, index, manifest and CURRENT."""
    store = open_store(root)
    tables, entries, fields = [], [], {}
    for number, samples in enumerate(shards):
        name = fingerprint("shard", number)
        with open_shard(store, name, facts=FACTS, chunk=chunk, storage=storage) as writer:
            for sample in samples:
                writer.add_case([sample])
            for field, (unit, segments) in described.items():
                writer.describe(field, unit=unit, segments=segments)
            receipt = writer.finish()
        rows = read_parquet(store.read(shard_path(name, SAMPLES)))
        places = {
            "split": [splits[(number + i) % len(splits)] for i in range(len(samples))],
            "shard": [name] * len(samples),
            "row": list(range(len(samples))),
        }
        merged = pa.table({**places, **{c: rows.column(c) for c in rows.schema.names}})
        tables.append(merged.select(index_schema(FACTS).names).cast(index_schema(FACTS)))
        entries.append(ShardEntry(name, receipt.rows, receipt.objects))
        fields.update({f.name: f for f in receipt.fields})
    table = pa.concat_tables(tables)
    index = parquet_bytes(table)
    manifest = Manifest(
        name="made",
        version=version,
        spec={},
        lock={},
        fields=tuple(fields[n] for n in sorted(fields)),
        shards=tuple(entries),
        files=(stored_object(INDEX, index),),
        totals={"samples": table.num_rows},
    )
    store.put(version_path(version, INDEX), index)
    store.put(version_path(version, MANIFEST), manifest.to_json())
    store.put(CURRENT, write_current(version))
    flat = tuple(sample for samples in shards for sample in samples)
    return Made(root, flat, tuple(table.column("split").to_pylist()))


def make_patches(root: Path, *, sizes: Sequence[int] = (5, 1, 7, 4), shape: tuple[int, int, int] = (6, 7, 8)) -> Made:
    number, shards = 0, []
    for size in sizes:
        shards.append([make_sample(number + i, shape) for i in range(size)])
        number += size
    return publish(root, shards)


@pytest.fixture(scope="session")
def patches(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """17 patches of one shape in four shards."""
    return make_patches(tmp_path_factory.mktemp("patches") / "set")


@pytest.fixture(scope="session")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Five volumes of different shapes in two shards, in chunks of (4, 5, 6)."""
    shapes = [(9, 10, 11), (4, 5, 6), (13, 6, 7), (5, 20, 6), (8, 8, 8)]
    samples = [make_sample(i, shape) for i, shape in enumerate(shapes)]
    return publish(tmp_path_factory.mktemp("volumes") / "set", [samples[:3], samples[3:]], chunk=(4, 5, 6))


@pytest.fixture(scope="session")
def patch_maker() -> Callable[..., Made]:
    """A function that makes a dataset of patches."""
    return make_patches


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[..., Made]:
    """A function that makes a dataset the test may damage."""
    return lambda **options: make_patches(tmp_path / "set", **options)


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Eight patches with two segments, values 3 and 5, in HU."""
    samples = []
    for number in range(8):
        sample = make_sample(number, (4, 5, 6))
        mask = np.random.default_rng(number).choice(np.array([0, 3, 5], np.uint8), (1, 4, 5, 6))
        samples.append(ClearedSample({**sample.arrays, "tumor": mask}, sample.geometry, sample.row))
    described = {"image": ("HU", {}), "tumor": ("", {"edema": (0, 5), "core": (0, 3)})}
    return publish(tmp_path_factory.mktemp("labelled") / "set", [samples[:5], samples[5:]], described=described)


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Made]:
    """Four samples in HU, halves of a unit, stored as int16: as patches, and as volumes in chunks."""
    rule = FieldStorage(dtype="int16", factor=0.5, offset=-100.0)
    samples = []
    for number in range(4):
        sample = make_sample(number, (6, 7, 8))
        halves = {**sample.arrays, "image": np.asarray(sample.arrays["image"]) * np.float32(0.5)}
        samples.append(ClearedSample(halves, sample.geometry, sample.row))
    root = tmp_path_factory.mktemp("packed")
    options: dict[str, Any] = {"storage": {"image": rule}, "described": {"image": ("HU", {})}}
    return {
        "patches": publish(root / "patches", [samples], **options),
        "volumes": publish(root / "volumes", [samples], chunk=(3, 4, 4), **options),
    }
