"""Planted copies end in one split, or stop the build; the certificate of a build says what was compared."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import ndimage

from builder.errors import LayoutError
from builder.run.pipeline import build
from builder.spec import DatasetSpec
from tests.endtoend.trees import KEY, tree
from tests.synthetic import ct_series

PERSONS = 9


def body(seed: int) -> np.ndarray:
    """Organs at random in an ellipse of water in air."""
    rng = np.random.default_rng(seed)
    organs = ndimage.gaussian_filter(rng.normal(size=(12, 32, 32)), (1.5, 2.5, 2.5))
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in organs.shape), indexing="ij")
    inside = y**2 + x**2 + 0.1 * z**2 < rng.uniform(0.6, 0.9)
    return np.round(np.where(inside, 200 * organs / organs.std(), -900) + 10 * rng.normal(size=organs.shape))


COPIES = {
    "same pixels under other UIDs": lambda v: v,
    "stored with another intercept": lambda v: v + 24,
    "a slab of the slices": lambda v: v[4:],
    "cropped": lambda v: v[1:, 3:30, 4:31],
    "flipped": lambda v: v[::-1, :, ::-1],
    "rescaled": lambda v: ndimage.zoom(v, (1.4, 0.8, 0.8), order=1),
    "another window": lambda v: np.clip(v, -160, 240),
}


def write(folder: Path, patient: str, voxels: np.ndarray, **options) -> None:
    slices, *shape = voxels.shape
    ct_series(folder / patient, slices=slices, shape=tuple(shape), voxels=voxels, patient_id=patient, **options)


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """Twelve persons, and a copy of each kind of the first of them under other names."""
    folder = tmp_path_factory.mktemp("archive")
    for i in range(PERSONS):
        write(folder, f"P{i:02d}", body(i))
    for i, copy in enumerate(COPIES.values()):
        write(folder, f"copy{i}", copy(body(i)))
    return folder


def spec(archive: Path, **leaks) -> DatasetSpec:
    return DatasetSpec.model_validate(
        {
            "name": "copies", "license": "CC0-1.0",
            "sources": [{"kind": "folder", "url": str(archive)}],
            "cohort": {"image": "modality == 'CT'"},
            "deid": {"patient_key": "${env:BUILDER_KEY}"},
            "transforms": [{"kind": "intensity", "clip": [-2000, 2000], "dtype": "float32"}],
            "samples": {"kind": "volumes"},
            "splits": {"ratios": {"train": 0.5, "test": 0.5}},
            "report": {"thumbnails": 0},
            "leaks": leaks,
        }
    )  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def key():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_KEY", KEY)
        yield


@pytest.fixture(scope="module")
def parted(archive, tmp_path_factory) -> Path:
    """A dataset in which nobody was joined."""
    target = tmp_path_factory.mktemp("parted") / "d"
    build(spec(archive, on_match="report"), to=target)
    return target


def published(dataset: Path, name: str) -> Path:
    return dataset / "versions" / (dataset / "CURRENT").read_text().split()[0] / name


def test_copies_of_every_kind_share_a_split_with_what_they_copy(archive, tmp_path):
    build(spec(archive), to=tmp_path / "d")
    found = json.loads(published(tmp_path / "d", "leaks.json").read_bytes())
    pixels = found["pixels"]
    assert (pixels["volumes"], pixels["persons"]) == (PERSONS + len(COPIES), PERSONS + len(COPIES))
    assert len(pixels["matches"]) == len(COPIES), "every copy, and nothing else"
    assert pixels["equal_pixels"] == 2
    assert sum(m["planes"] == 8 for m in pixels["matches"]) == 1, "the slab, by its planes"
    assert found["found"] == pixels["in_two_splits"] == 0
    split = dict(zip(*(pq.read_table(published(tmp_path / "d", "splits.parquet"))[c].to_pylist()
                       for c in ("person_key", "split")), strict=True))  # fmt: skip
    assert all(split[a] == split[b] for a, b in (m["persons"] for m in pixels["matches"]))
    assert 7 <= Counter(split.values())["train"] <= 9, "pairs are dealt whole, the shares stay"
    page = published(tmp_path / "d", "report/index.html").read_text()
    assert "7 pairs" not in page
    assert "2 pairs have equal pixels, 5 are copies" in page


def test_without_joining_the_copies_lie_in_two_splits_and_the_certificate_says_so(parted):
    found = json.loads(published(parted, "leaks.json").read_bytes())
    assert found["found"] == found["pixels"]["in_two_splits"] > 0


def test_a_build_can_be_told_to_stop(archive, tmp_path):
    with pytest.raises(LayoutError, match="3 pairs of volumes of different persons that show one image"):
        build(spec(archive, on_match="stop", pixels="exact"), to=tmp_path / "d")
    assert not (tmp_path / "d" / "CURRENT").exists()
    build(spec(archive, on_match="merge", pixels="exact"), to=tmp_path / "d")
    pixels = json.loads(published(tmp_path / "d", "leaks.json").read_bytes())["pixels"]
    assert (len(pixels["matches"]), pixels["equal_pixels"], pixels["compared"]) == (3, 2, "exact")
    assert pixels["method"] is None


def test_lost_prints_are_taken_again_and_give_the_same_version(archive, parted):
    version = (parted / "CURRENT").read_text()
    for path in parted.with_name("d.private").rglob("prints/*.parquet"):
        path.unlink()
    (parted / "CURRENT").unlink()
    again = build(spec(archive, on_match="report"), to=parted)
    assert (parted / "CURRENT").read_text() == version
    assert again.resumed == again.shards


def test_prints_of_an_earlier_version_are_not_read_but_taken_again(archive, parted):
    version = (parted / "CURRENT").read_text()
    private = parted.with_name("d.private")
    taken = {path: path.read_bytes() for path in private.rglob("prints/*.parquet")}
    for path in taken:
        path.rename(path.with_name(path.name.split(".")[0] + ".parquet"))  # where version 1 lay
    for path in private.rglob("prints/*.parquet"):
        pq.write_table(pq.read_table(path).drop_columns(["levels", "shape"]), path)
    (parted / "CURRENT").unlink()
    build(spec(archive, on_match="report"), to=parted)
    assert (parted / "CURRENT").read_text() == version
    assert {path: path.read_bytes() for path in taken} == taken


def test_workers_find_and_write_the_same(archive, parted, tmp_path):
    build(spec(archive, on_match="report"), to=tmp_path / "d", cluster="local", workers=2)
    assert tree(tmp_path / "d") == tree(parted)
    assert published(parted, "leaks.json").read_bytes() == published(tmp_path / "d", "leaks.json").read_bytes()


def test_persons_whom_an_earlier_version_parted_cannot_be_joined(archive, parted, tmp_path):
    earlier = published(parted, "splits.parquet")
    document = spec(archive).model_dump()
    document["splits"] = {**document["splits"], "previous": str(earlier)}
    with pytest.raises(LayoutError, match="or to share images"):
        build(DatasetSpec.model_validate(document), to=tmp_path / "d")


def test_a_frame_of_reference_of_two_persons_joins_them_before_any_pixel_is_read(tmp_path):
    for i in range(8):
        shared = {"FrameOfReferenceUID": "1.2.3.4"} if i < 2 else {}
        numbers = {"AccessionNumber": "A1" if i in (2, 3) else "none" if i > 3 else ""}
        write(tmp_path / "archive", f"P{i}", body(i), attributes={**shared, **numbers})
    build(spec(tmp_path / "archive", pixels="off"), to=tmp_path / "d")
    found = json.loads(published(tmp_path / "d", "leaks.json").read_bytes())
    assert found["pixels"] is None
    assert {s["key"]: (s["groups"], s["persons"]) for s in found["shared"]} == {
        "frame_of_reference_key": (1, 2),
        "accession_key": (2, 6),
    }
    assert {k["key"]: k["in_two_splits"] for k in found["keys"]} == dict.fromkeys(
        ("person_key", "study_key", "series_key", "case_key", "frame_of_reference_key", "accession_key"), 0
    )


def test_images_that_are_all_alike_are_not_joined_silently(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(11):
        write(tmp_path / "archive", f"P{i:02d}", np.round(body(0) + 15 * rng.normal(size=(12, 32, 32))))
    with pytest.raises(LayoutError, match="11 persons whose volumes are all alike"):
        build(spec(tmp_path / "archive"), to=tmp_path / "d")
