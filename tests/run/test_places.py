"""A dataset is built apart from what it is built from, and where this process may write."""

import os
from pathlib import Path

import pytest

from builder.errors import ResourceError, SpecError
from builder.run.places import _overlap, check_places
from builder.spec import DatasetSpec


def check(options: DatasetSpec, to: str) -> None:
    check_places(options.sources, to, sealed=options.splits.sequester)


def spec(source: Path, **more: object) -> DatasetSpec:
    return DatasetSpec.model_validate(
        {
            "name": "small",
            "license": "CC0-1.0",
            "sources": [{"kind": "folder", "url": str(source)}],
            "deid": {"patient_key": "${env:BUILDER_KEY}"},
            "samples": {"kind": "volumes"},
            **more,
        }
    )


@pytest.mark.parametrize(
    ("to", "how"),
    [
        ("in", "is"),
        ("in/", "is"),
        ("./x/../in", "is"),
        ("in/out", "lies in"),
        ("in/deep/er/out", "lies in"),
        ("link/out", "lies in"),
        (".", "holds"),
        ("in.away/../in/../in", "is"),
    ],
)
def test_a_dataset_and_a_source_lie_apart(to: str, how: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(
        SpecError, match=rf"--to: found .*, which {how} the source sources\.0 .*; expected a place apart"
    ):
        check(spec(tmp_path / "in"), f"{tmp_path}/{to}")


def test_a_source_may_not_lie_in_the_private_workspace(tmp_path: Path) -> None:
    (tmp_path / "d.private" / "in").mkdir(parents=True)
    with pytest.raises(SpecError, match="which holds the source"):
        check(spec(tmp_path / "d.private" / "in"), f"{tmp_path}/d")


def test_a_place_of_a_similar_name_is_apart(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for place in ("in2", "in-dataset", "in.dataset", "other/in"):
        check(spec(tmp_path / "in"), f"{tmp_path}/{place}")


def test_the_place_of_sequestered_labels_is_checked_too(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    splits = {"sequester": {"url": f"{tmp_path}/in/labels"}}
    with pytest.raises(SpecError, match=r"splits\.sequester\.url: found .* which lies in the source"):
        check(spec(tmp_path / "in", splits=splits), f"{tmp_path}/d")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_said_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "ro").mkdir(mode=0o555)
    with pytest.raises(ResourceError, match="cannot be written by this user"):
        check(spec(tmp_path / "in"), f"{tmp_path}/ro/d")


@pytest.mark.parametrize(
    ("to", "overlaps"),
    [
        ("s3://bucket/archive", True),
        ("s3://bucket/archive/out", True),
        ("s3://bucket", True),
        ("s3://bucket/archive2", False),
        ("s3://other/archive", False),
    ],
)
def test_a_dataset_in_a_bucket_is_apart_from_a_source_there(to: str, overlaps: bool) -> None:
    assert _overlap(to, "s3://bucket/archive") is overlaps
