"""Planted copies of real volumes are found, and no two persons are taken for one."""

import io

import numpy as np
import pytest
import SimpleITK
from PIL import Image
from scipy import ndimage

from builder.report.leakage import certify, find_matches, pixel_digest, small_copy, take_print


def body(seed):
    """An outline in air with random organs inside: as unlike its like as two persons are."""
    rng = np.random.default_rng(seed)
    organs = ndimage.gaussian_filter(rng.normal(size=(40, 64, 60)), (4, 6, 6))
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in organs.shape), indexing="ij")
    inside = (y / rng.uniform(0.75, 0.95)) ** 2 + (x / rng.uniform(0.75, 0.95)) ** 2 + 0.1 * z**2 < 1
    values = np.where(inside, 200 * organs / organs.std(), -1000) + 15 * rng.normal(size=organs.shape)
    return np.round(values).astype(np.int16)


def recompressed(volume):
    low, high = np.percentile(volume, [0.5, 99.5])
    grey = (np.clip((volume - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    planes = []
    for plane in grey:
        sink = io.BytesIO()
        Image.fromarray(plane).save(sink, "JPEG", quality=60)
        planes.append(np.asarray(Image.open(sink)))
    return np.stack(planes)


def cropped(volume):
    return volume[
        tuple(slice(int(n * a), int(n * a) + int(n * 0.8)) for n, a in zip(volume.shape, (0.15, 0, 0.1), strict=True))
    ]


COPIES = {
    "cropped": cropped,
    "rescaled": lambda v: ndimage.zoom(v.astype(np.float32), (1.3, 0.7, 0.8), order=1),
    "recompressed": recompressed,
    "flipped": lambda v: v[::-1, :, ::-1],
    "other window": lambda v: np.clip(v, *np.percentile(v, [25, 90])),
    "other units": lambda v: v.astype(np.float64) * 0.37 - 1024,
}


def test_planted_copies_of_every_kind_are_found_and_nothing_else():
    volumes = [body(seed) for seed in range(len(COPIES) + 1)]
    prints = [take_print(v, key=f"k{i}", person_key=f"p{i}", split="train") for i, v in enumerate(volumes)]
    copies = [
        take_print(copy(volumes[i]), key=f"copy{i}", person_key=f"other{i}", split="test")
        for i, copy in enumerate(COPIES.values())
    ]
    matches = find_matches([*prints, *copies])
    assert {(m.first, m.second, m.exact) for m in matches} == {(f"copy{i}", f"k{i}", False) for i in range(len(COPIES))}
    found = certify([*prints, *copies], matches)
    assert (found["near_duplicates"], found["equal_pixels"]) == (len(COPIES), 0)
    assert found["in_two_splits"] == len(COPIES)
    assert found["pairs_of_different_persons"] == 13 * 12 // 2


def test_equal_pixels_are_found_whatever_the_file_says():
    volume = body(1)
    same = [volume.astype(">i4"), volume.astype(np.int64)[::-1], np.asfortranarray(volume)]
    assert len({pixel_digest(v) for v in [volume, *same]}) == 1
    assert pixel_digest(volume + 1) == pixel_digest(volume), "another intercept"
    assert pixel_digest(volume[:, :, ::-1]) != pixel_digest(volume) != pixel_digest(volume * 2)
    prints = [
        take_print(volume, key="a", person_key="p1", split="train"),
        take_print(same[1], key="b", person_key="p2", split="train"),
        take_print(same[0], key="c", person_key="p1", split="train"),
    ]
    matches = find_matches(prints)
    assert {(m.first, m.second, m.exact, m.correlation) for m in matches} == {
        ("a", "b", True, 1.0),
        ("b", "c", True, 1.0),
    }
    assert certify(prints, matches)["in_two_splits"] == 0


def test_series_of_one_person_are_not_compared():
    prints = [take_print(body(2), key=k, person_key="p") for k in "ab"]
    assert find_matches(prints) == ()
    assert find_matches([]) == ()
    assert certify([], ())["pairs_of_different_persons"] == 0


def test_order_does_not_matter():
    prints = [take_print(body(seed % 3), key=f"k{seed}", person_key=f"p{seed}") for seed in range(5)]
    assert find_matches(prints) == find_matches(prints[::-1])
    assert len(find_matches(prints)) == 2


@pytest.mark.parametrize("volume", [np.zeros((3, 40, 40)), np.ones((1, 5, 7)), body(0)[:1]])
def test_flat_and_thin_volumes_are_compared_without_trouble(volume):
    assert np.isfinite(small_copy(volume)).all()
    prints = [take_print(volume, key="a", person_key="p"), take_print(body(3), key="b", person_key="q")]
    assert find_matches(prints) == ()


def test_no_two_patients_of_the_sarcoma_cohort_are_taken_for_one(corpus):
    folders = sorted(corpus("sts").glob("sts_cohort/STS_*/PET/image"))[:8]
    prints = []
    for folder in folders:
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
        voxels = SimpleITK.GetArrayFromImage(reader.Execute())
        prints.append(take_print(voxels, key=folder.parts[-3], person_key=folder.parts[-3], split="train"))
    assert len(prints) == 8
    assert find_matches(prints) == ()
    planted = take_print(cropped(voxels)[:, ::-1], key="planted", person_key="planted", split="test")
    assert [{m.first, m.second} for m in find_matches([*prints, planted])] == [{"planted", folders[-1].parts[-3]}]
