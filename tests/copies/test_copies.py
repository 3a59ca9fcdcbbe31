"""Planted copies of real volumes are found, and different persons never match."""

import io
import tracemalloc
from dataclasses import fields, replace

import numpy as np
import pytest
import SimpleITK
from PIL import Image
from scipy import ndimage

from builder.copies import (
    certify,
    find_matches,
    fitting,
    lists,
    matching,
    parse_prints,
    pixel_digest,
    prints_table,
    screening,
    small_copy,
    take_print,
)
from builder.kernels.flips import parts


def body(seed):
    """Return an outline in air with random organs inside; two of them differ as much as two persons do."""
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


def test_equal_pixels_are_found_regardless_of_the_header():
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
def test_flat_and_thin_volumes_are_compared(volume):
    assert np.isfinite(small_copy(volume)).all()
    prints = [take_print(volume, key="a", person_key="p"), take_print(body(3), key="b", person_key="q")]
    assert find_matches(prints) == ()


CORPUS_COPIES = {
    **COPIES,
    "cropped, flipped, recompressed": lambda v: recompressed(cropped(v)[:, :, ::-1]),
    "cropped, rescaled": lambda v: ndimage.zoom(cropped(v).astype(np.float32), (0.7, 1.2, 0.8), order=1),
    "turned": lambda v: v.transpose(2, 0, 1)[::-1],
    "white on black": lambda v: v.max() - cropped(v),
}


@pytest.fixture(scope="module")
def patients(corpus):
    """Return series of PET, CT and MR of the sarcoma cohort, with the patient of each."""
    found = {}
    for modality, most in (("PET", 8), ("CT", 3), ("MR_T1", 3)):
        for folder in sorted(corpus("sts").glob(f"sts_cohort/STS_*/{modality}/image"))[:most]:
            reader = SimpleITK.ImageSeriesReader()
            reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
            found[modality, folder.parts[-3]] = SimpleITK.GetArrayFromImage(reader.Execute())
    assert len(found) == 14
    return found


@pytest.fixture(scope="module")
def patients_prints(patients):
    return [
        take_print(v, key=f"{modality} {person}", person_key=person, modality=modality[:2])
        for (modality, person), v in patients.items()
    ]


def test_different_patients_of_the_sarcoma_cohort_never_match(patients_prints):
    assert len({p.person_key for p in patients_prints}) >= 8
    assert find_matches(patients_prints) == ()


@pytest.fixture(scope="module")
def planted(patients):
    """Return a copy of each kind of some of the series, with the name of the original."""
    return {
        kind: [
            (take_print(copy(patients[name]), key=f"{kind} {n}", person_key=f"{kind} {n}", modality=name[0][:2]), name)
            for n, name in enumerate(list(patients)[::3])
        ]
        for kind, copy in CORPUS_COPIES.items()
    }


@pytest.mark.parametrize("kind", CORPUS_COPIES)
def test_planted_copies_of_patients_are_found_and_nothing_else(kind, planted, patients_prints):
    expected = {tuple(sorted((copy.key, " ".join(name)))) for copy, name in planted[kind]}
    matches = find_matches([*patients_prints, *(copy for copy, _ in planted[kind])])
    assert {(m.first, m.second) for m in matches} == expected


def test_the_order_of_volumes_does_not_matter(planted, patients_prints):
    some = [copies[n % len(copies)][0] for n, copies in enumerate(planted.values())]
    together = [*patients_prints, *some]
    matches = find_matches(together)
    assert len(matches) >= len(some)
    np.random.default_rng(0).shuffle(together)
    assert find_matches(together) == matches


def test_only_the_nearest_of_many_volumes_are_fitted(monkeypatch):
    """Of many volumes, each is compared fully as a crop of those only whose spectra are nearest."""
    volumes = [body(seed) for seed in range(14)]
    prints = [take_print(v, key=f"k{i:02d}", person_key=f"p{i}") for i, v in enumerate(volumes)]
    copies = [take_print(copy(volumes[i]), key=f"c{i}", person_key=f"q{i}") for i, copy in enumerate(COPIES.values())]
    closely = find_matches([*prints, *copies])
    assert len(closely) == len(COPIES)
    seen = []
    scored = screening.scored
    monkeypatch.setattr(screening, "PROMISING", 4)
    monkeypatch.setattr(screening, "PAIRS", 0)
    monkeypatch.setattr(
        screening, "scored", lambda s, n, cropped, p: seen.append(len(cropped)) or scored(s, n, cropped, p)
    )
    assert find_matches([*copies, *prints]) == closely
    assert sum(seen) == 4 * len([*prints, *copies])


def test_few_strangers_come_to_the_last_steps_of_a_fit(monkeypatch):
    refined, fitted = [], []
    fit, refine = fitting._fitted, fitting._refined
    monkeypatch.setattr(fitting, "_fitted", lambda *given: fitted.append(1) or fit(*given))
    monkeypatch.setattr(fitting, "_refined", lambda *given: refined.append(1) or refine(*given))
    assert find_matches([take_print(body(seed), key=f"k{seed}", person_key=f"p{seed}") for seed in range(9)]) == ()
    assert len(fitted) > 50
    assert len(refined) < 0.8 * len(fitted), "without the check on ranks, more than one each"


def test_hashes_are_compared_in_whole_numbers():
    """Scores, and so the pairs that are fitted, are the same for any number of threads and any processor."""
    first, second = (screening.views_of(small_copy(body(seed)), screening._ALL)[:512] for seed in (1, 2))
    for hashes in (first, second):
        lengths = (hashes.astype(np.int64) ** 2).sum(axis=(1, 2, 3))
        assert np.array_equal(hashes, np.rint(hashes))
        assert len(lengths) == 8**3
        assert np.abs(np.sqrt(lengths) - screening.UNIT).max() < 12
        assert 8 * lengths.max() < 2**24
    scores, _ = screening._compared(parts(first), parts(second))
    for flip in range(8):
        axes = tuple(1 + axis for axis, bit in enumerate((4, 2, 1)) if flip & bit)
        exact = np.flip(second, axes).reshape(512, -1).astype(np.int64) @ first.reshape(512, -1).T.astype(np.int64)
        assert np.array_equal(scores[:, flip], 8 * np.abs(exact).max(axis=1))


def test_a_volume_without_structure_has_no_hash():
    assert not screening.views_of(small_copy(np.ones((3, 4, 5))), screening._ALL).any()


def test_a_threshold_in_the_spec_is_used_and_reported():
    prints = [take_print(body(n), key=f"k{n}", person_key=f"p{n}", modality="CT") for n in (4, 5)]
    assert find_matches(prints) == ()
    (alike,) = find_matches(prints, thresholds={"CT": 0.5})
    assert 0.6 < alike.correlation < 0.85, "one outline, other organs"
    for threshold, found in ((alike.correlation, (alike,)), (alike.correlation + 0.0001, ())):
        assert find_matches(prints, thresholds={"CT": threshold}) == found
        assert certify(prints, found, thresholds={"CT": threshold})["thresholds"] == {"CT": threshold}


def test_another_modality_and_few_planes_raise_the_threshold():
    noise = np.random.default_rng(0).normal(0, 340, body(2).shape)
    a, b = (take_print(v, key=k, person_key=k, modality="CT") for k, v in (("a", body(2)), ("b", body(2) + noise)))
    (found,) = find_matches([a, b])
    assert 0.85 <= found.correlation < 0.9
    assert find_matches([a, replace(b, planes=b.planes[:4])]) == (found,)
    assert find_matches([a, replace(b, planes=b.planes[:3])]) == ()
    assert find_matches([a, replace(b, modality="MR")]) == ()


def test_prints_read_from_a_table_equal_those_written():
    prints = [take_print(body(n)[: n or 40], key=f"k{n}", person_key="p", modality="CT") for n in range(4)]
    again = parse_prints(prints_table(prints))
    for one, other in zip(prints, again, strict=True):
        for field in fields(one):
            assert np.array_equal(getattr(one, field.name), getattr(other, field.name)), field.name


def test_spectra_vary_alike_at_every_frequency_in_whatever_portions_they_are_counted():
    rng = np.random.default_rng(0)
    spectra = (rng.normal(size=(300, 2, 68)) * rng.uniform(1, 200, 68) + rng.uniform(0, 900, 68)).astype(np.int16)
    spectra[7] = 0
    whole = screening.moments(spectra)
    assert np.array_equal(whole, screening.moments(spectra[:100]) + screening.moments(spectra[100:]))
    found = screening.standardised(spectra, whole).astype(np.float64)
    assert np.array_equal(screening.standardised(spectra[:9], whole), found[:9])
    assert not found[7].any(), "no structure stays none"
    rest = np.delete(found, 7, axis=0).reshape(-1, 68)
    assert np.abs(np.linalg.norm(rest, axis=1) - screening.SPECTRUM).max() < 10
    assert np.abs(rest.mean(axis=0)).max() < 0.01 * screening.SPECTRUM
    assert np.ptp(rest.std(axis=0)) < 0.1 * rest.std()


def test_hashes_of_crops_are_what_plain_arithmetic_gives():
    small = small_copy(body(3))
    found = screening.views_of(small, screening._ALL)
    means, blur = screening._ALL.astype(np.float64), screening._BLUR.astype(np.float64)
    for view, (z, y, x) in enumerate(np.ndindex(8, 8, 8)):
        if view % 73 == 0:
            cells = np.einsum("az,by,cx,zyx->abc", means[z], means[y], means[x], small.astype(np.float64))
            fine = cells - np.einsum("az,by,cx,zyx->abc", blur, blur, blur, cells)
            fine -= fine.mean()
            assert np.abs(found[view] - screening.UNIT * fine / np.linalg.norm(fine)).max() < 0.51
    for turned, turn in zip(found[512:], screening.TURNS[1:], strict=True):
        assert np.array_equal(turned, found[0].transpose(turn))


def test_few_volumes_are_examined_as_crops_of_all_and_many_of_the_likest(monkeypatch):
    rng = np.random.default_rng(1)
    spectra, persons, everybody = rng.integers(-500, 500, (9, 4, 68)).astype(np.int16), np.arange(9) // 2, np.arange(9)
    halves = [(everybody[5:], spectra[5:]), (everybody[:5], spectra[:5])]
    found = screening.promising(everybody, spectra[:, 0], halves, persons)
    assert sorted(map(tuple, found.tolist())) == [(a, b) for a in range(9) for b in range(9) if a // 2 != b // 2]
    monkeypatch.setattr(screening, "PROMISING", 2)
    monkeypatch.setattr(screening, "PAIRS", 0)
    products = np.einsum("avf,bf->abv", spectra.astype(int), spectra[:, 0].astype(int)).max(axis=2)
    products[persons[:, None] == persons] = -(10**9)
    likest = {(int(a), b) for b in range(9) for a in np.argsort(-products[:, b], kind="stable")[:2]}
    found = screening.promising(everybody, spectra[:, 0], halves, persons)
    assert {tuple(pair) for pair in found.tolist()} == {pair for pair in likest if products[pair] >= 0}


def test_volumes_are_compared_with_what_lies_in_their_nearest_lists_only(monkeypatch):
    monkeypatch.setattr(lists, "PROBED", 3)
    views = np.random.default_rng(2).integers(-400, 400, (60, 5, 68)).astype(np.int16)
    centres = lists.centres_of(views[:: lists.sampled(60)], 60, screening.SPECTRUM)
    labels = lists.labels_of(views, centres)
    assert len(centres) == 35
    exact = views.astype(int) @ centres.astype(int).T
    assert np.array_equal(labels, exact.argmax(axis=2))
    some, wholes = np.array([4, 9, 50]), views[:20, 0]
    near = np.argsort(-(wholes.astype(int) @ centres.astype(int).T), axis=1, kind="stable")[:, :3]
    products = np.einsum("avf,bf->abv", views[some].astype(float), wholes.astype(float))
    listed = (labels[some][:, None, :, None] == near[None, :, None]).any(axis=3)
    expected = np.where(listed, products, -np.inf).max(axis=2)
    assert np.isinf(expected).any()
    index = lists.Lists(centres, labels)
    found = np.full((60, 20), -np.inf)
    for owners, held, columns in index.met(some, views[some], index.near(wholes)):
        place = (owners[:, None], columns[None, :])
        np.maximum.at(found, place, held.astype(float) @ wholes[columns].astype(float).T)
    assert np.array_equal(found[some], expected)


def test_lists_take_little_memory_where_half_of_all_views_lie_in_one():
    volumes, rng = np.arange(1000), np.random.default_rng(3)
    spectra, centres = (rng.integers(-400, 400, shape).astype(np.int16) for shape in ((1000, 32, 68), (1000, 68)))
    spectra[:500] = 0  # volumes without structure
    index = lists.Lists(centres[:50], lists.labels_of(spectra, centres[:50]))
    screening.promising(volumes[:2], spectra[:2, 0], [(volumes, spectra)], volumes, lists=index)  # compiles the kernel
    tracemalloc.start()
    try:
        screening.promising(volumes[:500], spectra[:500, 0], [(volumes, spectra)], volumes, lists=index)
        assert tracemalloc.get_traced_memory()[1] < 24e6  # all scores of one list would take 32 MB
        tracemalloc.reset_peak()
        lists.Lists(centres, index.labels).near(spectra[:, :4].reshape(-1, 68))
        assert tracemalloc.get_traced_memory()[1] < 40e6  # and the order of all lists for all volumes 64 MB
    finally:
        tracemalloc.stop()


def test_of_many_volumes_only_the_nearest_is_fitted_unless_it_is_a_copy(monkeypatch):
    monkeypatch.setattr(screening, "PROMISING", 4)
    monkeypatch.setattr(screening, "PAIRS", 0)
    volumes = [body(seed) for seed in range(8)]
    prints = [take_print(v, key=f"k{i}", person_key=f"p{i}") for i, v in enumerate(volumes)]
    fitted = []
    agreed = matching.agreement
    monkeypatch.setattr(
        matching, "agreement", lambda a, b, *s, **o: fitted.append((a.key, b.key)) or agreed(a, b, *s, **o)
    )
    assert find_matches(prints) == ()
    assert sorted(crop for _, crop in fitted) == [p.key for p in prints]
    copies = [take_print(volumes[0][:, ::-n], key=f"c{n}", person_key=f"q{n}") for n in (1, -1)]
    assert len(find_matches([*prints, *copies])) == 3, "copies of copies, too"
