"""A dataset is built apart from what it is built from, and where this process may write."""

import os
from pathlib import Path

import pytest

from builder.errors import ResourceError, SpecError
from builder.run.places import _overlap, check_places
from builder.spec import DatasetSpec
from builder.storage import private_store


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


@pytest.mark.parametrize(
    ("to", "words"),
    [
        ("/", "--to: found /, which holds everything on this machine"),
        ("file:///", "--to: found file:///, which holds everything"),
        ("~nobody-of-this-name/d", "--to: found '~nobody-of-this-name/d', but nobody of that name has a home folder"),
        ("a\0b", "--to: found a NUL character"),
        ("\u00a0", "--to: found an empty value"),
        ("s3://", "--to: found 's3://', which names no bucket"),
        ("gopher://x/y", "--to: found the URL scheme 'gopher'"),
    ],
)
def test_a_place_that_can_hold_no_dataset_is_refused(to: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        check(spec(tmp_path / "in"), to)
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize("to", ["dead", "dead/d", "loop", "loop/d"])
def test_links_to_nothing_are_refused_by_name(to: str, tmp_path: Path) -> None:
    (tmp_path / "dead").symlink_to("gone")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(SpecError, match=f"--to: found a link to nothing at {tmp_path}/{to[:4]}, expected a folder"):
        check(spec(tmp_path / "in"), f"{tmp_path}/{to}")


@pytest.mark.parametrize(
    ("here", "to"),
    [
        (".", "set"),
        (".", "./set/"),
        ("set", "."),
        ("set", "./"),
        ("set", "deep/.."),
        ("set", "../set"),
        ("set/deep", ".."),
    ],
)
def test_the_private_workspace_lies_beside_the_dataset(
    here: str, to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever passes on the folder of the dataset must not pass on what identifies persons."""
    (tmp_path / "set" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / here)
    assert Path(private_store(to).url).resolve() == tmp_path / "set.private"


def test_the_private_workspace_of_a_bucket_lies_beside_the_dataset() -> None:
    assert private_store("s3://bucket/set/").url == "s3://bucket/set.private"


def test_a_source_of_nobodys_home_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="nobody of that name has a home folder"):
        spec(Path("~nobody-of-this-name/in"))


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
