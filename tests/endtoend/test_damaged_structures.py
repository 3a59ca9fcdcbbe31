"""One build of many structure sets that went wrong: each gives the right mask or its own refusal, and harms nobody."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag

import builder
from builder.errors import CaseError
from builder.labels.rtstruct import RtStruct
from builder.model.case import Mask
from builder.protocols import ImageFacts, LabelObject
from builder.run.pipeline import build
from tests import synthetic
from tests.endtoend.trees import KEY

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

SPEC = """
name: damaged-structures
license: CC0-1.0
sources: [{kind: folder, url: "${tree}"}]
labels:
  lesion: {kind: rtstruct, roi: {tumor: "^GTV$"}}
deid: {patient_key: "${env:BUILDER_KEY}"}
samples: {kind: volumes, chunk: [8, 16, 16]}
max_lost: {cases: 0.25, persons: 0.25}
splits: {ratios: {train: 0.6, test: 0.4}, seed: 7}
"""
SLICES = (3, 4, 5, 6)
FULL = {3: 144, 4: 144, 5: 144, 6: 144}
"""Voxels of the lesion by slice."""

UNREADABLE, AMBIGUOUS = "label_unreadable", "label_ambiguous"
Mutation = Callable[[Dataset], None]


def contours(dataset: Dataset, roi: int = 0) -> Items:
    found: Items = dataset.ROIContourSequence[roi].ContourSequence
    return found


def points(contour: Dataset) -> NDArray[np.float64]:
    return np.array(contour.ContourData, dtype=np.float64).reshape(-1, 3)


def like(contour: Dataset, moved: NDArray[np.float64]) -> Dataset:
    """A copy of a contour with other points."""
    made = Dataset()
    made.ContourGeometricType = contour.ContourGeometricType
    made.NumberOfContourPoints = len(moved)
    made.ContourData = [f"{v:.6g}" for v in moved.ravel()]
    return made


def raw(item: Dataset, tag: int, vr: str, value: bytes) -> None:
    """Put bytes into an element that pydicom would not write."""
    value += b" " * (len(value) % 2)
    item._dict[Tag(tag)] = RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)
    item.set_original_encoding(False, True, item._character_set)  # so that pydicom writes the bytes as they are


def again(change: Callable[[NDArray[np.float64]], NDArray[np.float64]], *, times: int = 1) -> Mutation:
    """The contour of one slice is there again, changed."""

    def mutate(dataset: Dataset) -> None:
        for n in range(times):
            contours(dataset).insert(2 + n, like(contours(dataset)[1], change(points(contours(dataset)[1]))))

    return mutate


def all_twice(dataset: Dataset) -> None:
    contours(dataset).extend([like(c, np.roll(points(c), 1, axis=0)) for c in list(contours(dataset))])


def with_inner(kind: str, *, copies: int) -> Mutation:
    """A square of 4 x 4 voxels inside the contour of slice 4."""

    def mutate(dataset: Dataset) -> None:
        outer = points(contours(dataset)[1])
        middle = outer.mean(axis=0)
        inner = [like(contours(dataset)[1], middle + (outer - middle) / 3) for _ in range(copies)]
        contours(dataset).extend(inner)
        for contour in contours(dataset):
            contour.ContourGeometricType = kind

    return mutate


def half_over(dataset: Dataset) -> None:
    """Another contour of slice 4 overlaps the first by half of its 12 rows."""
    outer = points(contours(dataset)[1])
    contours(dataset).append(like(contours(dataset)[1], outer + np.array([0.0, 6.0, 0.0])))


def split_items(*parts: slice) -> Mutation:
    """The contours of the ROI are spread over several contour items."""

    def mutate(dataset: Dataset) -> None:
        mine = list(contours(dataset))
        items = []
        for part in parts:
            item = Dataset()
            item.ReferencedROINumber = dataset.ROIContourSequence[0].ReferencedROINumber
            item.ContourSequence = Items(mine[part])
            items.append(item)
        dataset.ROIContourSequence = Items([*items[:-1], *list(dataset.ROIContourSequence)[1:], items[-1]])

    return mutate


def number_used_twice(wanted: bool) -> Mutation:
    def mutate(dataset: Dataset) -> None:
        rois = dataset.StructureSetROISequence
        rois[0 if wanted else 2].ROINumber = rois[1].ROINumber
        dataset.ROIContourSequence[0 if wanted else 2].ReferencedROINumber = rois[1].ROINumber

    return mutate


def one_roi_listed_twice(dataset: Dataset) -> None:
    dataset.StructureSetROISequence.append(dataset.StructureSetROISequence[0])


def set_number(item: str, index: int, keyword_tag: int, value: bytes | None) -> Mutation:
    def mutate(dataset: Dataset) -> None:
        target = dataset[item].value[index]
        if value is None:
            del target[Tag(keyword_tag)]
        else:
            raw(target, keyword_tag, "IS", value)

    return mutate


def contour_data(roi: int, value: bytes | None, vr: str = "DS") -> Mutation:
    def mutate(dataset: Dataset) -> None:
        target = contours(dataset, roi)[1]
        if value is None:
            del target.ContourData
        else:
            raw(target, 0x30060050, vr, value)

    return mutate


def geometric_type(roi: int, value: str) -> Mutation:
    def mutate(dataset: Dataset) -> None:
        contours(dataset, roi)[1].ContourGeometricType = value

    return mutate


def stated_points(roi: int, count: int) -> Mutation:
    def mutate(dataset: Dataset) -> None:
        contours(dataset, roi)[1].NumberOfContourPoints = count

    return mutate


def null_padded(roi: int) -> Mutation:
    def mutate(dataset: Dataset) -> None:
        text = "\\".join(f"{v:.6g}" for v in points(contours(dataset, roi)[1]).ravel()).encode()
        raw(contours(dataset, roi)[1], 0x30060050, "DS", text + b"\0" * (1 + (len(text) + 1) % 2))

    return mutate


def no_sequence(roi: int) -> Mutation:
    def mutate(dataset: Dataset) -> None:
        raw(dataset.ROIContourSequence[roi], 0x30060040, "LO", b"no sequence")

    return mutate


BAD_DATA = {
    "text": b"1\\2\\three\\4\\5\\6\\7\\8\\9",
    "an empty number": b"1\\2\\3\\4\\\\6\\7\\8\\9",
    "no triplets": b"1\\2\\3\\4",
    "not a number": b"1\\2\\nan\\4\\5\\6\\7\\8\\9",
    "a decimal comma": b"1,5\\2\\3\\4\\5\\6\\7\\8\\9",
    "an underscore": b"1_0\\2\\3\\4\\5\\6\\7\\8\\9",
    "beyond a kilometre": b"1e300\\2\\3\\4\\5\\6\\7\\8\\9",
    "nothing": b"",
    "zero bytes inside": b"1\\2\\3\\4\\\0\\6\\7\\8\\9",
}

CASES: dict[str, tuple[Mutation | None, dict[int, int] | str]] = {
    "plain": (None, FULL),
    # repeated contours
    "again, point for point": (again(lambda p: p), FULL),
    "again, three times": (again(lambda p: p, times=3), FULL),
    "again, from another start": (again(lambda p: np.roll(p, 2, axis=0)), FULL),
    "again, reversed": (again(lambda p: p[::-1]), FULL),
    "again, closed by its first point": (again(lambda p: np.concatenate([p, p[:1]])), FULL),
    "again, rounded": (again(lambda p: p + np.array([[0.04], [-0.05], [0.03], [0.05]]) * [1, 1, 0]), FULL),
    "again, a tenth of a millimetre smaller": (again(lambda p: p - np.sign(p - p.mean(0)) * [0.1, 0.1, 0]), FULL),
    "again, 0.3 mm off its plane": (again(lambda p: p + np.array([0, 0, 0.3])), FULL),
    "again, 0.3 mm below its plane": (again(lambda p: p - np.array([0, 0, 0.3])), FULL),
    "all contours twice": (all_twice, FULL),
    # contours in and over others
    "a hole": (with_inner("CLOSED_PLANAR", copies=1), {**FULL, 4: 144 - 16}),
    "a hole that is there twice": (with_inner("CLOSED_PLANAR", copies=2), {**FULL, 4: 144 - 16}),
    "toggled once": (with_inner("CLOSEDPLANAR_XOR", copies=1), {**FULL, 4: 144 - 16}),
    "toggled twice": (with_inner("CLOSEDPLANAR_XOR", copies=2), FULL),
    "half over another": (half_over, {**FULL, 4: 144 + 72}),
    # contour items
    "two contour items": (split_items(slice(0, 2), slice(2, 4)), FULL),
    "three contour items": (split_items(slice(0, 1), slice(1, 3), slice(3, 4)), FULL),
    "a contour item without contours": (split_items(slice(0, 4), slice(0, 0)), FULL),
    "an empty contour item first": (split_items(slice(0, 0), slice(0, 4)), FULL),
    "contour items that share a contour": (split_items(slice(0, 3), slice(1, 4)), FULL),
    "contour items in reverse": (split_items(slice(2, 4), slice(0, 2)), FULL),
    "a number that two ROIs use": (number_used_twice(wanted=True), AMBIGUOUS),
    "one ROI listed twice": (one_roi_listed_twice, AMBIGUOUS),
    "a number that two other ROIs use": (number_used_twice(wanted=False), FULL),
    # numbers of ROIs
    "an item without a number": (set_number("ROIContourSequence", 1, 0x30060084, b""), FULL),
    "an item whose number is absent": (set_number("ROIContourSequence", 1, 0x30060084, None), FULL),
    "an item whose number is text": (set_number("ROIContourSequence", 1, 0x30060084, b"heart"), FULL),
    "an item whose number is a fraction": (set_number("ROIContourSequence", 1, 0x30060084, b"2.5"), FULL),
    "an item whose number is huge": (set_number("ROIContourSequence", 1, 0x30060084, b"999999999999"), FULL),
    "an observation without a number": (set_number("RTROIObservationsSequence", 1, 0x30060084, b""), FULL),
    "another ROI without a number": (set_number("StructureSetROISequence", 1, 0x30060022, b""), FULL),
    "another ROI whose number is text": (set_number("StructureSetROISequence", 1, 0x30060022, b"two"), FULL),
    "the wanted ROI without a number": (set_number("StructureSetROISequence", 0, 0x30060022, b""), UNREADABLE),
    "wanted contours without a number": (set_number("ROIContourSequence", 0, 0x30060084, b""), UNREADABLE),
    # damaged contours
    **{f"elsewhere: {n}": (contour_data(1, value), FULL) for n, value in BAD_DATA.items()},
    **{f"wanted: {n}": (contour_data(0, value), UNREADABLE) for n, value in BAD_DATA.items()},
    "elsewhere: absent": (contour_data(1, None), FULL),
    "wanted: absent": (contour_data(0, None), UNREADABLE),
    "elsewhere: of another VR": (contour_data(1, b"1.2.3", "UI"), FULL),
    "wanted: of another VR": (contour_data(0, b"\1\2\3\4", "FL"), UNREADABLE),
    "elsewhere: padded by null": (null_padded(1), FULL),
    "wanted: padded by null": (null_padded(0), FULL),
    "elsewhere: an unknown type": (geometric_type(1, "BLOB"), FULL),
    "wanted: an unknown type": (geometric_type(0, "BLOB"), UNREADABLE),
    "elsewhere: another number of points": (stated_points(1, 9), FULL),
    "wanted: another number of points": (stated_points(0, 9), UNREADABLE),
    "elsewhere: no sequence": (no_sequence(1), FULL),
}


BUILT = [
    "plain",
    "again, point for point",
    "again, rounded",
    "all contours twice",
    "a hole that is there twice",
    "half over another",
    "two contour items",
    "a number that two ROIs use",
    "an item without a number",
    "an item whose number is text",
    "another ROI whose number is text",
    "wanted contours without a number",
    "elsewhere: text",
    "wanted: text",
    "wanted: an empty number",
    "wanted: of another VR",
    "elsewhere: of another VR",
    "wanted: padded by null",
    "elsewhere: padded by null",
    "elsewhere: no sequence",
]
"""Cases that go through a whole build: one of each way in which de-identification and the index meet damage."""


def write_case(folder: Path, number: int, mutate: Mutation | None) -> synthetic.Stack:
    """A CT whose every voxel is ``number``, and its structure set with GTV, Heart and Couch."""
    made = synthetic.ct_series(
        folder / "ct",
        patient_id=f"P{number}",
        study=f"s{number}",
        series=f"s{number}",
        frame=f"f{number}",
        voxels=np.full((8, 32, 32), float(number)),
    )
    box = synthetic.box_contours(made.geometry, (3, 8, 10), (7, 20, 22))
    other = synthetic.box_contours(made.geometry, (1, 2, 2), (4, 6, 6))
    dataset = synthetic.rtstruct(made, {"GTV": box, "Heart": other, "Couch": other})
    if mutate is not None:
        mutate(dataset)
    synthetic.write_all([dataset], folder / "rt", prefix="rt")
    return made


def by_slice(mask: NDArray[Any]) -> dict[int, int]:
    return {int(k): int(mask[k].sum()) for k in np.flatnonzero(mask.any(axis=(1, 2)))}


@pytest.mark.parametrize("name", CASES)
def test_the_reader_gives_the_mask_or_refuses_it(tmp_path: Path, name: str) -> None:
    mutate, expected = CASES[name]
    made = write_case(tmp_path, 0, mutate)
    image = ImageFacts(made.geometry, made.series_uid, {})
    objects = [LabelObject(pydicom.dcmread(tmp_path / "rt" / "rt-0001.dcm"))]
    reader = RtStruct(roi={"tumor": "^GTV$"})
    if isinstance(expected, str):
        with pytest.raises(CaseError) as caught:
            reader.read("lesion", objects, image)
        assert caught.value.reason.value == expected
        return
    (mask,) = reader.read("lesion", objects, image)
    assert isinstance(mask, Mask)
    assert by_slice(mask.voxels[0]) == expected
    assert mask.voxels[0, 3, 8:20, 10:22].all()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Counter[str]]:
    """Samples by the name of their case, and how often each reason excluded one."""
    folder = tmp_path_factory.mktemp("damaged")
    for number, name in enumerate(BUILT):
        write_case(folder / "tree" / f"p{number}", number, CASES[name][0])
    (folder / "spec.yaml").write_text(SPEC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_KEY", KEY)
        build(folder / "spec.yaml", to=folder / "out", parameters={"tree": str(folder / "tree")})
    samples = {BUILT[int(sample["image"].flat[0])]: sample for sample in builder.open_dataset(folder / "out")}
    version = (folder / "out" / "CURRENT").read_text().strip()
    excluded = pq.read_table(folder / "out" / "versions" / version / "exclusions.parquet")
    return samples, Counter(excluded.column("reason").to_pylist())


def test_a_build_gives_each_its_mask_or_refuses_it(built: Any) -> None:
    expected = {name: CASES[name][1] for name in BUILT}
    masks = {name: by_slice(sample["lesion"][0]) for name, sample in built[0].items()}
    assert masks == {name: voxels for name, voxels in expected.items() if isinstance(voxels, dict)}
    assert built[1] == Counter(reason for reason in expected.values() if isinstance(reason, str))


@pytest.mark.parametrize(
    ("name", "measure", "value"),
    [
        ("plain", "tumor.repeated_contours", 0),
        ("again, point for point", "tumor.repeated_contours", 1),
        ("all contours twice", "tumor.repeated_contours", 4),
        ("a hole that is there twice", "tumor.nested_contours", 1),
        ("a hole that is there twice", "tumor.repeated_contours", 1),
        ("half over another", "tumor.overlapping_contours", 2),
        ("plain", "tumor.contour_volume_mm3", 4 * 144 * 3),
        ("all contours twice", "tumor.contour_volume_mm3", 4 * 144 * 3),
        ("half over another", "tumor.contour_volume_mm3", (4 * 144 + 72) * 3),
        ("plain", "contour_items_without_roi", 0),
        ("an item without a number", "contour_items_without_roi", 1),
    ],
)
def test_what_was_found_is_counted(built: Any, name: str, measure: str, value: float) -> None:
    assert built[0][name].row[f"label.lesion.{measure}"] == pytest.approx(value, rel=0.01)
