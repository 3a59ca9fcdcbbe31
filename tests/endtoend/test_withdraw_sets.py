"""A person leaves a dataset whose cases have several images, in a folder and in a bucket: the same bytes in both."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import builder
from builder.deid import resolve_key
from builder.run.pipeline import build
from builder.run.withdraw import withdraw
from builder.run.withdrawals import Gone, Policy
from builder.spec import DatasetSpec
from builder.storage import open_store
from tests.cluster.test_s3 import objects
from tests.endtoend.published import everything
from tests.endtoend.test_image_sets import spec
from tests.endtoend.trees import KEY, tree
from tests.synthetic import box_contours, ct_series, pattern, pt_series, rtstruct

WHO = "SETS-02"


@pytest.fixture(autouse=True, scope="module")
def _key() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_KEY", KEY)
        yield


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> DatasetSpec:
    """Five persons with a CT and a PET in one place, and a tumour that is drawn on the PET; no slices are alike."""
    folder = tmp_path_factory.mktemp("sets")
    for number in range(5):
        name, where = f"SETS-{number:02d}", folder / str(number)
        ct_series(where, patient_id=name, study=name, voxels=pattern((8, 32, 32)) + 7 * number)
        pet = pt_series(
            where, patient_id=name, study=name, series="2", shape=(16, 16), spacing=(1.0, 2.0, 2.0), slope=1.0,
            voxels=abs(pattern((8, 16, 16))) + 11 * number,
        )  # fmt: skip
        rtstruct(pet, {"GTV": box_contours(pet.geometry, (2, 4, 4), (6, 12, 12))}, directory=where)
    images = {"ct": {"select": "modality == 'CT'"}, "pet": {"select": "modality == 'PT'"}}
    return spec(
        folder,
        cohort={"case": "study", "images": images},
        transforms=[{"kind": "intensity", "dtype": "float32"}],
        splits={"ratios": {"train": 0.6, "test": 0.4}, "seed": 3},
        shards={"cases": 2},
    )


@pytest.fixture(scope="module")
def left(asked: DatasetSpec, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Gone]:
    """The dataset before and after the withdrawal, and what was said then."""
    before, after = (tmp_path_factory.mktemp(name) / "dataset" for name in ("before", "after"))
    build(asked, to=before)
    for suffix in ("", ".private"):
        shutil.copytree(f"{before}{suffix}", f"{after}{suffix}", dirs_exist_ok=True)
    return before, after, withdraw(str(after), people=[WHO], policy=Policy("consent"))


def needles(before: Path) -> set[bytes]:
    """Names of the person, and rows of each of the person's images that nobody else has."""
    who = resolve_key("${env:BUILDER_KEY}", {"BUILDER_KEY": KEY}).name("patient", "", WHO, "here")
    (index,) = before.glob("versions/*/index.parquet")
    people = pq.read_table(index)["person_key"].to_pylist()
    samples = list(zip(people, builder.open_dataset(before, uses="off"), strict=True))
    found = {who.encode(), WHO.encode()}
    for channel in (0, 1):
        others = b"".join(sample["image"][channel].tobytes() for owner, sample in samples if owner != who)
        (mine,) = (sample["image"][channel].tobytes() for owner, sample in samples if owner == who)
        rows = {mine[start : start + 64] for start in range(0, len(mine), 64)}
        unique = sorted(row for row in rows if row not in others)[:8]
        assert unique, channel
        found.update(unique)
    return found


def test_every_image_of_the_person_goes(left: tuple[Path, Path, Gone]) -> None:
    before, after, outcome = left
    assert outcome.certificate is not None
    assert outcome.certificate["absent"]
    assert outcome.certificate["searched_for"]["image_chunks"] == 1  # both images are channels of one
    wanted = needles(before)
    assert {n for n in wanted if any(n in data for _, data in everything(before))} == wanted - {WHO.encode()}
    for home in (after, after.with_name("dataset.private")):
        for where, data in everything(home):
            assert not [n for n in wanted if n in data], where


def test_a_build_from_the_sources_gives_the_same_version(
    asked: DatasetSpec, left: tuple[Path, Path, Gone], tmp_path: Path
) -> None:
    now = tmp_path / "dataset"
    shutil.copytree(left[1], now)
    shutil.rmtree(now / "withdrawals")
    found = tree(now)
    shutil.rmtree(now / "data")
    assert build(asked, to=now).resumed == 0
    assert tree(now) == found


@pytest.mark.skipif(not Path(sys.executable).with_name("weed").exists(), reason="needs a server: make withdrawals")
def test_the_same_in_a_bucket(asked: DatasetSpec, left: tuple[Path, Path, Gone], bucket: str) -> None:
    """The private workspace lies in the bucket, too."""
    url = f"{bucket}/sets"
    build(asked, to=url)
    outcome = withdraw(url, people=[WHO], policy=Policy("consent"))
    assert outcome.certificate == left[2].certificate
    assert objects(url) == tree(left[1])
    wanted = needles(left[0])
    for store in (open_store(url), open_store(f"{url}.private")):
        paths = list(store.list())
        assert paths
        assert not [path for path in paths if any(n in store.read(path) for n in wanted)]
    build(asked, to=url)
    assert objects(url) == tree(left[1])
