"""Patches: each is the box of the volume its row says, at the place the keyed hash says."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import CaseError
from builder.model.case import (
    Boxes,
    Case,
    Classes,
    Landmarks,
    Mask,
    Measurement,
    Measurements,
    Sample,
    Segment,
    Text,
    ValueDomain,
    Volume,
)
from builder.model.geometry import Geometry, corner_voxels
from builder.model.keyed import Key
from builder.patches import (
    CHUNK_COST,
    CHUNK_COSTS,
    Grid,
    Patches,
    Whole,
    choose_chunk,
    cut,
    describe_fields,
    estimate,
    shard_chunk,
)

KEY = Key(b"0" * 32)
AFFINE = np.array([[0, 0, 0.7, -10], [0, 0.7, 0, 20], [2.5, 0, 0, 5], [0, 0, 0, 1]], float)


def make_case(
    shape: tuple[int, int, int] = (20, 30, 40), *, key: str = "abc", lesion: Any = None, row: Any = None
) -> Case:
    rng = np.random.default_rng(1)
    geometry = Geometry(shape, AFFINE)
    mask = np.zeros((1, *shape), np.uint8)
    mask[0][lesion if lesion is not None else np.s_[2:5, 20:24, 30:38]] = 1
    volume = Volume(rng.integers(-1000, 1000, (1, *shape), dtype=np.int16), geometry, ValueDomain.HOUNSFIELD)
    return Case(key, volume, (Mask("tumor", mask, geometry, (Segment("core"), Segment("edema", 0, 2))),), row or {})


def expected_box(case: Case, sample: Sample) -> np.ndarray[Any, Any]:
    """The sample's image by padding the whole volume first."""
    shape = sample.geometry.shape
    margin = [(n, n) for n in shape]
    padded = np.pad(case.volume.voxels[0], margin, constant_values=-1024)
    start = [int(str(sample.row[f"start_{a}"])) + n for a, n in zip(("slice", "row", "column"), shape, strict=True)]
    return padded[tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))]


def test_patches_are_what_their_rows_say() -> None:
    case = make_case(row={"age_years": 4.0})
    options = Patches(shape=(8, 10, 12), centred_on="tumor", per_case=8, background=0.25)
    samples = list(cut(case, options, key=KEY, seed=7))
    assert [s.row["centred_on"] for s in samples] == ["tumor"] * 6 + ["background"] * 2
    for number, sample in enumerate(samples):
        np.testing.assert_array_equal(sample.arrays["image"][0], expected_box(case, sample))
        centre_is_lesion = bool(sample.arrays["tumor"][0, 4, 5, 6])
        assert centre_is_lesion == (number < 6)
        assert sample.row["sample_key"] == f"abc-{number:04d}"
        assert sample.row["age_years"] == 4.0
        assert sample.ragged["segment_names"] == ["tumor/core", "tumor/edema"]
        assert sample.ragged["segment_voxels"] == [int((sample.arrays["tumor"] == 1).sum()), 0]
        start: Any = [sample.row[f"start_{a}"] for a in ("slice", "row", "column")]
        np.testing.assert_allclose(sample.geometry.to_world([[0, 0, 0]]), case.volume.geometry.to_world([start]))
    assert len({tuple(s.row[f"start_{a}"] for a in ("slice", "row", "column")) for s in samples}) > 5


def test_padding_is_counted() -> None:
    case = make_case((4, 5, 6), lesion=np.s_[0, 0, 0])
    sample = next(cut(case, Patches(shape=(6, 6, 6), centred_on="tumor", per_case=1, background=0), key=KEY, seed=0))
    assert (sample.row["start_slice"], sample.row["start_row"], sample.row["start_column"]) == (-3, -3, -3)
    assert sample.row["pad_voxels"] == 6**3 - 27 == int((sample.arrays["image"] == -1024).sum())
    np.testing.assert_array_equal(sample.arrays["image"][0, 3:, 3:, 3:], case.volume.voxels[0, :3, :3, :3])


@pytest.mark.parametrize(
    ("dtype", "domain", "fill"),
    [
        (np.int16, ValueDomain.HOUNSFIELD, -1024),
        (np.uint16, ValueDomain.HOUNSFIELD, 0),
        (np.uint8, ValueDomain.HOUNSFIELD, 0),
        (np.int8, ValueDomain.HOUNSFIELD, -128),
        (np.float32, ValueDomain.HOUNSFIELD, -1024),
        (np.uint8, ValueDomain.ARBITRARY, 0),
    ],
)
def test_padding_is_the_value_of_the_type_nearest_to_air(dtype: Any, domain: ValueDomain, fill: int) -> None:
    voxels = np.full((1, 2, 2, 2), 7, dtype)
    case = Case("abc", Volume(voxels, Geometry((2, 2, 2), AFFINE), domain))
    (sample,) = cut(case, Grid(shape=(3, 2, 2)), key=KEY, seed=0)
    image = sample.arrays["image"]
    assert image.dtype == dtype
    assert image[0].ravel().tolist() == [7] * 8 + [fill] * 4


def test_draws_depend_on_key_seed_case_and_nothing_else() -> None:
    options = Patches(shape=(4, 4, 4), centred_on="tumor", per_case=4)

    def starts(case: Case, key: Key = KEY, seed: int = 0) -> list[Any]:
        samples = cut(case, options, key=key, seed=seed)
        return [[s.row[f"start_{a}"] for a in ("slice", "row", "column")] for s in samples]

    first = starts(make_case())
    assert first == starts(make_case())
    for other in (starts(make_case(key="abd")), starts(make_case(), Key(b"1" * 32)), starts(make_case(), seed=1)):
        assert other != first


def test_every_voxel_of_the_label_is_as_likely() -> None:
    inside = np.s_[[3, 3, 9, 15], [4, 5, 0, 29], [7, 8, 39, 0]]
    counts: dict[Any, int] = {}
    options = Patches(shape=(1, 1, 1), centred_on="tumor", per_case=8, background=0)
    for number in range(50):
        case = make_case(key=f"case{number}", lesion=inside)
        for sample in cut(case, options, key=KEY, seed=0):
            start = tuple(sample.row[f"start_{a}"] for a in ("slice", "row", "column"))
            counts[start] = counts.get(start, 0) + 1
    assert set(counts) == set(zip(*inside, strict=True))
    assert min(counts.values()) > 60  # 100 each expected; 60 is five standard deviations away


def test_nothing_to_cut_is_said() -> None:
    empty = make_case(lesion=np.s_[0:0])
    with pytest.raises(CaseError, match="label_empty"):
        list(cut(empty, Patches(shape=(4, 4, 4), centred_on="tumor"), key=KEY, seed=0))
    with pytest.raises(CaseError, match="label_missing"):
        list(cut(empty, Patches(shape=(4, 4, 4), centred_on="liver"), key=KEY, seed=0))
    with pytest.raises(CaseError, match="no_samples"):
        list(cut(make_case(lesion=np.s_[:]), Patches(shape=(4, 4, 4), centred_on="tumor"), key=KEY, seed=0))
    with pytest.raises(CaseError, match="no_samples"):
        list(cut(empty, Grid(shape=(8, 8, 8), foreground_at_least=1), key=KEY, seed=0))


def test_padding_of_the_source_is_never_a_centre() -> None:
    case = make_case()
    padding = np.ones(case.volume.geometry.shape, bool)
    padding[5, 6, 7] = False
    volume = Volume(case.volume.voxels, case.volume.geometry, padding=padding)
    samples = cut(Case("x", volume), Patches(shape=(1, 1, 1), per_case=3), key=KEY, seed=0)
    assert {(s.row["start_slice"], s.row["start_row"], s.row["start_column"]) for s in samples} == {(5, 6, 7)}


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 12)] * 3),
    patch=st.tuples(*[st.integers(1, 9)] * 3),
    data=st.data(),
)
def test_a_grid_covers_every_voxel(
    shape: tuple[int, int, int], patch: tuple[int, int, int], data: st.DataObject
) -> None:
    stride = data.draw(st.none() | st.tuples(*[st.integers(1, n) for n in patch]))
    options = Grid(shape=patch, stride=stride)
    case = make_case(shape, lesion=np.s_[0, 0, 0])
    seen = np.zeros(shape, int)
    samples = list(cut(case, options, key=KEY, seed=0))
    for sample in samples:
        np.testing.assert_array_equal(sample.arrays["image"][0], expected_box(case, sample))
        start = [int(str(sample.row[f"start_{a}"])) for a in ("slice", "row", "column")]
        seen[tuple(slice(a, a + n) for a, n in zip(start, patch, strict=True))] += 1
    assert seen.min() >= 1
    assert estimate(options, shape, bytes_per_voxel=3).samples == len(samples)


def test_whole_volumes() -> None:
    case = make_case()
    (sample,) = cut(case, Whole(chunk=(8, 8, 8)), key=KEY, seed=0)
    assert sample.arrays["image"] is case.volume.voxels
    assert sample.row["pad_voxels"] == 0
    assert estimate(Whole(), (20, 30, 40), bytes_per_voxel=3).bytes == 72000
    assert shard_chunk(Whole(chunk=(8, 8, 8)), "fast") == (8, 8, 8)
    assert shard_chunk(Patches(shape=(1, 1, 1)), "fast") is None
    assert describe_fields(case)["tumor"].segments == {"core": (0, 1), "edema": (0, 2)}


def test_other_annotations_move_into_the_sample() -> None:
    case = make_case()
    geometry = case.volume.geometry
    low, high = np.array([2, 20, 30]), np.array([4, 23, 37])
    corners = geometry.to_world(low + corner_voxels((2, 2, 2)) * (high - low))
    far = geometry.to_world(corner_voxels((2, 2, 2)))
    notes = (
        Boxes("lesion", np.stack([corners, far]), ("a", "b")),
        Landmarks("apex", geometry.to_world([[3, 21, 31], [19, 29, 0]]), ("x", "y")),
        Measurements("recist", (Measurement("long_axis", 12.5, "mm"),)),
        Classes("read", {"malignant": True, "grade": 3, "other": None}),
        Text("impression", "none"),
    )
    case = Case(case.case_key, case.volume, (*case.annotations, *notes))
    options = Patches(shape=(4, 4, 4), centred_on="tumor", per_case=4, background=0)
    for sample in cut(case, options, key=KEY, seed=0):
        start = np.array([sample.row[f"start_{a}"] for a in ("slice", "row", "column")])
        assert sample.ragged["box_classes"] == ["a"]
        np.testing.assert_allclose(sample.ragged["boxes"], np.concatenate([low - start, high - start]), atol=1e-5)
        point = np.array([3, 21, 31]) - start
        inside = bool(((point >= 0) & (point < 4)).all())
        assert sample.ragged["landmark_classes"] == (["x"] if inside else [])
        assert sample.ragged["measurement_values"] == [12.5]
        assert sample.ragged["class_names"] == ["read/grade", "read/malignant", "read/other"]
        assert sample.ragged["class_values"] == ["3", "true", None]
        assert sample.ragged["texts"] == ["none"]


@pytest.mark.parametrize(("codec", "beside"), [("fast", CHUNK_COST), *CHUNK_COSTS.items()])
@pytest.mark.parametrize("crop", [(96, 96, 96), (16, 128, 128), (1, 256, 256), (24, 24, 24), (9, 40, 33)])
def test_chunks_are_chosen_for_the_crops(crop: tuple[int, int, int], codec: str, beside: int) -> None:
    """Against the voxels really decoded for crops at every place of a chunk's period, axis by axis."""

    def cost(chunk: tuple[int, ...]) -> float:
        met = [np.mean([(a + n - 1) // c - a // c + 1 for a in range(c)]) for n, c in zip(crop, chunk, strict=True)]
        return float(np.prod(met) * (np.prod(chunk) + beside))

    chosen = shard_chunk(Whole(kind="volumes", crop=crop), codec)
    assert chosen == choose_chunk(crop, chunk_cost=beside)
    for other in [(32, 32, 32), (64, 64, 64), (16, 16, 16), crop, (1, 128, 128), (8, 32, 32)]:
        assert cost(chosen) <= cost(other) * (1 + 1e-9)
    assert shard_chunk(Whole(kind="volumes", crop=crop, chunk=(5, 6, 7)), codec) == (5, 6, 7)
    assert shard_chunk(Whole(kind="volumes"), codec) == (32, 32, 32)
