"""Run lengths of challenges: pycocotools as oracle for pixels, and cells that must be refused."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco
from pydantic import ValidationError

from builder.errors import CaseError, Reason
from builder.labels.boxes import BoxTable
from builder.labels.polygons import PolygonTable
from builder.labels.runs import Runs
from builder.model.case import Boxes, Mask
from builder.model.geometry import Geometry
from builder.model.linking import ImageRow
from builder.protocols import ImageFacts, LabelObject

PICTURE = ImageFacts(Geometry((1, 5, 4), np.eye(4)[[2, 1, 0, 3]]), "2.25.1", {"m-a": 0})
ROW = ImageRow("1.2.3", "1.2", None, frozenset("a"), folder="img", fields=(("file", "a.png"), ("stem", "a")))
OPTIONS: dict[str, Any] = {
    "table": {"match": "train.csv", "by": {"ImageId": "file"}},
    "space": "pixel_corner",
    "outline": "EncodedPixels",
    "runs": {"order": "columns", "first": 1},
    "label": "ClassId",
    "structures": {"nucleus": "^1$", "cell": "^2$"},
    "empty": "keep",
}


def pairs_of(mask: NDArray[np.bool_], order: str, first: int, *, relative: bool) -> str:
    """Encode a mask: its runs are those that pycocotools counts, down the columns."""
    counts = _counts(mask if order == "columns" else mask.T)
    numbers, place, end = [], 0, 0
    for n, length in enumerate(counts):
        if n % 2 and length:
            numbers += [place - end + first if relative and not numbers else place - end if relative else place + first]
            numbers.append(length)
            end = place + length
        place += length
    return " ".join(map(str, numbers))


def _counts(mask: NDArray[np.bool_]) -> list[int]:
    """Return COCO's counts of a mask, which pycocotools decodes to that mask."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat.astype(np.int8))) + 1
    bounds = [0, *edges.tolist(), len(flat)]
    lengths = [b - a for a, b in pairwise(bounds)]
    counts = ([0] if flat[0] else []) + lengths
    packed = coco.frPyObjects({"size": list(mask.shape), "counts": counts}, *mask.shape)
    assert np.array_equal(coco.decode(packed) > 0, mask)
    return counts


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
@settings(max_examples=60)
@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1),
    st.sampled_from(["columns", "rows"]), st.sampled_from([0, 1]), st.booleans(),
)  # fmt: skip
def test_pixels_are_those_that_pycocotools_counts(
    rows: int, columns: int, seed: int, order: Any, first: Any, relative: bool
) -> None:
    mask = np.random.default_rng(seed).random((rows, columns)) < 0.4
    runs = Runs(order=order, first=first, starts="relative" if relative else "absolute")
    cell = pairs_of(mask, order, first, relative=relative)
    assert np.array_equal(runs.decode(cell, (rows, columns)), mask)


def test_the_published_example_of_kaggle() -> None:
    """``1 3 10 5`` are pixels 1, 2, 3, 10, 11, 12, 13 and 14, from top to bottom, then left to right."""
    inside = Runs(order="columns", first=1).decode("1 3 10 5", (5, 4))
    assert (np.flatnonzero(inside.ravel(order="F")) + 1).tolist() == [1, 2, 3, 10, 11, 12, 13, 14]
    assert inside[:3, 0].all()
    assert inside[4, 1]


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("1 3 10", Reason.LABEL_UNREADABLE),
        ("1 x", Reason.LABEL_UNREADABLE),
        ("1.5 2", Reason.LABEL_UNREADABLE),
        ("1 3 2 2", Reason.LABEL_UNREADABLE),
        ("0 3", Reason.LABEL_OFF_GRID),
        ("19 3", Reason.LABEL_OFF_GRID),
        ("3 0", Reason.LABEL_OFF_GRID),
        ("9223372036854775807 9223372036854775807", Reason.LABEL_OFF_GRID),
        ("9" * 40 + " 1", Reason.LABEL_UNREADABLE),
    ],
)
def test_a_cell_that_cannot_be_right_is_refused(cell: str, reason: Reason) -> None:
    with pytest.raises(CaseError) as caught:
        Runs(order="columns", first=1).decode(cell, (5, 4))
    assert caught.value.reason is reason


def read(table: str, **options: Any) -> Mask:
    reader = PolygonTable(**OPTIONS | options)
    content = reader.cut(table.encode(), ROW, map_uid=lambda uid: f"m-{uid}")
    (mask,) = reader.read("p", [LabelObject(content)], PICTURE)
    assert isinstance(mask, Mask)
    return mask


def test_rows_of_an_image_and_class_become_structures() -> None:
    mask = read("ImageId,ClassId,EncodedPixels\na.png,1,1 3\na.png,2,10 5\na.png,1,20 1\nb.png,1,1 20\n")
    assert mask.voxels[0, 0, :3, 0].all()
    assert mask.voxels[0].sum() == 4
    assert mask.voxels[1].sum() == 5


@pytest.mark.parametrize("cell", ["", " -1", "-1"])
def test_an_empty_cell_says_that_nothing_was_found(cell: str) -> None:
    assert not read(f"ImageId,ClassId,EncodedPixels\na.png,1,{cell}\n").voxels.any()


def test_what_the_numbers_mean_must_be_stated() -> None:
    with pytest.raises(ValidationError, match="first"):
        read("ImageId,ClassId,EncodedPixels\na.png,1,1 3\n", runs={"order": "columns"})
    with pytest.raises(ValidationError, match="runs without outline"):
        PolygonTable(**OPTIONS | {"outline": None, "vertex": {"x": "x", "y": "y"}, "polygon": "p"})


def test_boxes_of_a_picture_need_no_slice() -> None:
    reader = BoxTable(
        table={"match": "b.csv", "by": {"Image Index": "file"}}, space="pixel_corner",
        corner={"x": "x", "y": "y"}, size={"x": "w", "y": "h"},
    )  # fmt: skip
    content = reader.cut(b"Image Index,x,y,w,h\na,1,2,2,3\n", ROW, map_uid=str)
    (boxes,) = reader.read("b", [LabelObject(content)], PICTURE)
    assert isinstance(boxes, Boxes)
    assert PICTURE.geometry.to_voxel(boxes.corners_mm[0]).min(axis=0).tolist() == [-0.5, 1.5, 0.5]


def test_blanks_round_a_heading_are_no_part_of_it() -> None:
    """As in the table of the pneumothorax challenge."""
    assert read("ImageId , ClassId, EncodedPixels\na.png,1, 1 3\n").voxels.sum() == 3
    assert read('"ImageId","ClassId","EncodedPixels"\na.png,1,1 3\n').voxels.sum() == 3
