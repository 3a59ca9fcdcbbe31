"""Files that belong to an image by their path: its own source and site, its own patient, one person a file."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import SpecError
from builder.labels.linking import select_files
from builder.labels.mask import MaskFile
from builder.labels.polygons import PolygonTable
from builder.model.linking import ImageRow
from builder.model.tables import INSTANCES
from builder.planning.link import Annotations, Link, check_files_serve_one_person, longer_ids


def files(*paths: str | tuple[str, int]) -> pa.Table:
    named = [(p, 0) if isinstance(p, str) else p for p in paths]
    rows = [{"path": path, "format": "nifti", "source": source} for path, source in named]
    return pa.Table.from_pylist(rows, schema=INSTANCES)


def matched(pattern: str, image: ImageRow, table: pa.Table) -> list[str]:
    rows = select_files(image, table, pattern=pattern, formats=("nifti",)).rows
    return [table.column("path")[row].as_py() for row in rows]


IMAGE = ImageRow("1.2.3", "1.2", folder="case1/CT", modality="CT", patient_id="P1", source=0)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("{patient}*.nii", ["P1.nii", "P1_mask.nii", "P1-a.nii"], ["P10.nii", "P1a.nii", "AP1.nii"]),
        ("*{patient}.nii.gz", ["P1.nii.gz", "mask_P1.nii.gz"], ["XP1.nii.gz", "0P1.nii.gz", "P1x.nii.gz"]),
        ("*{patient}*", ["a_P1_b", "P1"], ["a_P12_b", "aP1_b"]),
        ("masks/{patient}?.nii", ["masks/P1_.nii"], ["masks/P10.nii"]),
        ("**/{patient}**.nii", ["a/b/P1.nii", "P1/x/y.nii"], ["a/P12.nii", "P12/x.nii"]),
        ("{parent}*/mask.nii.gz", ["case1/mask.nii.gz", "case1_b/mask.nii.gz"], ["case10/mask.nii.gz"]),
        ("{parent_name}*.nii", ["case1.nii"], ["case11.nii", "case1b.nii"]),
        ("{study}*.nii", ["1.2.nii"], ["1.23.nii"]),
        ("{series}_*.nii", ["1.2.3_m.nii"], ["1.2.34_m.nii", "11.2.3_m.nii"]),
        ("{parent}/../{patient}.nii", ["P1.nii"], ["case1/P1.nii"]),
        ("{parent}/mask.nii.gz", ["case1/mask.nii.gz"], ["case1/CT/mask.nii.gz", "case2/mask.nii.gz", "mask.nii.gz"]),
    ],
)
def test_a_wildcard_never_continues_the_word_of_a_field(pattern: str, yes: list[str], no: list[str]) -> None:
    assert matched(pattern, IMAGE, files(*yes, *no)) == yes


def test_a_file_of_the_longer_id_is_not_taken() -> None:
    table = files("P1_mask.nii", "P1-2_mask.nii", "P1_2.nii", "X-P1_mask.nii")
    alone = ImageRow("1", patient_id="P1")
    beside = ImageRow("1", patient_id="P1", longer_ids=("P1-2", "P1_2", "X-P1"))
    assert matched("{patient}*.nii", alone, table) == ["P1_mask.nii", "P1-2_mask.nii", "P1_2.nii"]
    assert matched("{patient}*.nii", beside, table) == ["P1_mask.nii"]
    assert matched("*{patient}*.nii", beside, table) == ["P1_mask.nii"]
    assert matched("{patient}*.nii", ImageRow("1", patient_id="P1-2"), table) == ["P1-2_mask.nii"]
    # a pattern without the patient does not ask whose ID a path holds
    assert matched("P1-2*.nii", beside, table) == ["P1-2_mask.nii"]


@pytest.mark.parametrize("field", ["patient", "study", "modality"])
def test_a_field_that_the_image_lacks_matches_nothing(field: str) -> None:
    image = ImageRow("1.2.3", folder="a", patient_id=" ")
    assert matched(f"{{{field}}}*.nii", image, files("mask.nii", "_mask.nii", ".nii")) == []


def test_files_match_in_their_own_source_and_site() -> None:
    table = files(("case1/mask.nii", 0), ("case1/mask.nii", 1), ("P1.nii", 1), ("P1.nii", 2), ("P1.nii", 3))
    image = ImageRow("1", folder="case1/CT", patient_id="P1", source=0, site_sources=frozenset({0, 2, 3}))
    assert select_files(image, table, pattern="{parent}/mask.nii", formats=("nifti",)).rows == (0,)
    assert select_files(image, table, pattern="{patient}.nii", formats=("nifti",)).rows == (3, 4)
    assert select_files(image, table, pattern="{parent}/../{patient}.nii", formats=("nifti",)).rows == ()


@pytest.mark.parametrize("folder", ["", ".", "CT"])
def test_images_at_the_root_of_a_source_have_files_beside_them(folder: str) -> None:
    image = ImageRow("1", folder=folder)
    expected = "mask.nii" if folder != "CT" else "CT/mask.nii"
    assert matched("{folder}/mask.nii", image, files("mask.nii", "CT/mask.nii")) == [expected]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("ab-1", min_size=1, max_size=4), max_size=12))
def test_longer_ids_are_all_that_begin_or_end_with_one(ids: list[str]) -> None:
    expected = {a: tuple(sorted({b for b in ids if b != a and (b.startswith(a) or b.endswith(a))})) for a in ids}
    assert longer_ids(ids) == {a: others for a, others in expected.items() if others}


TABLE: dict[str, Any] = {"match": "t.json", "by": {"a": "series"}}
LABELS = {
    "mask": MaskFile(match="*.nii", values={1: "t"}),
    "table": PolygonTable.model_validate(
        {"kind": "polygons", "table": TABLE, "space": "pixel_corner", "outline": "o", "structures": {"t": "."}}
    ),
}


def links(*rows: tuple[int, ...], label: str = "mask") -> list[list[Link]]:
    return [[Link(label, own, "name")] for own in rows]


@pytest.mark.parametrize(
    ("found", "persons", "stops"),
    [
        (links((0,), (1,)), "ab", False),
        (links((0,), (0,)), "aa", False),
        (links((0,), (0,)), "ab", True),
        (links((0, 1), (2,), (1,)), "abc", True),
        (links((0,), (0,), label="table"), "ab", False),
    ],
)
def test_a_file_that_serves_two_persons_stops_the_plan(found: Any, persons: str, stops: bool) -> None:
    annotations = Annotations(files("a.nii", "b.nii", "c.nii"), {}, (0, 1, 2))
    if not stops:
        check_files_serve_one_person(found, persons, annotations, LABELS)
        return
    with pytest.raises(SpecError) as caught:
        check_files_serve_one_person(found, persons, annotations, LABELS)
    assert "labels.mask.match: found 1 file that fits images of up to 2 persons" in str(caught.value)
    assert ".nii" not in str(caught.value)
