"""Copies planted at two sites are found by keyed marks alone; recall and false alarms are measured."""

import numpy as np
import pytest
from scipy import ndimage

from builder.copies.prints import take_print
from builder.federation.leaks import BANDS, copies, marks
from builder.model.keyed import Key

KEY = Key(b"shared by the sites alone")
OTHER = Key(b"of somebody who is no site")
VOLUMES = 12


def body(seed):
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.normal(size=(20, 40, 40)), 3)
    return np.rint(1000 * smooth / np.abs(smooth).max()).astype(np.int16)


def noisy(volume, seed):
    return volume + np.random.default_rng(seed).normal(0, 20, volume.shape).round().astype(np.int16)


CHANGES = {
    "same": lambda v: v,
    "offset": lambda v: v + 1024,
    "slices reversed": lambda v: v[::-1],
    "windowed": lambda v: np.clip(v, -400, 600),
    "gamma": lambda v: np.rint(1000 * np.sign(v) * np.abs(v / 1000) ** 1.5).astype(np.int16),
    "noise": lambda v: noisy(v, 9),
    "smaller": lambda v: v[:, ::2, ::2],
    "mirrored": lambda v: noisy(v[:, :, ::-1], 4),
}
EXACT = ("same", "offset", "slices reversed")


@pytest.fixture(scope="module")
def own():
    return [take_print(body(n), key=f"own{n}", person_key=f"p{n}") for n in range(VOLUMES)]


@pytest.mark.parametrize("change", CHANGES)
def test_planted_copies_are_found(own, change):
    planted = [marks(take_print(CHANGES[change](body(n)), key="", person_key="x"), KEY) for n in range(6)]
    strangers = [marks(take_print(body(1000 + n), key="", person_key="y"), KEY) for n in range(6)]
    found = copies(own, "north", [*planted, *strangers], KEY)
    right = {m.own for m in found if m.own == f"own{m.number - 1}"}
    assert len(right) == 6  # recall
    assert not [m for m in found if m.number > 6]
    exact = {m.own for m in found if m.exact}
    assert len(exact) == (6 if change in EXACT else 0)


def test_without_the_key_nothing_is_found(own):
    planted = [marks(take_print(body(0), key="other", person_key="x"), OTHER)]
    assert copies(own, "north", planted, KEY) == []


def test_marks_hold_no_print(own):
    made = marks(own[0], KEY)
    assert made.exact != own[0].digest
    assert not set(made.planes) & set(map(str, own[0].planes))
    assert len(made.bands) == BANDS
    assert not set(made.bands) & set(marks(own[0], OTHER).bands)


def test_near_copies_are_found_only_where_they_count(own):
    near, exact = (marks(take_print(noisy(body(0), 9), key="", person_key="x"), KEY, near=n) for n in (True, False))
    assert [m.own for m in copies(own, "north", [near], KEY)] == ["own0"]
    assert exact.bands == []
    assert copies(own, "north", [exact], KEY) == []


def test_a_volume_without_structure_is_no_copy_of_another():
    flat = [take_print(np.full((8, 8, 8), n, np.int16), key=f"flat{n}", person_key="p") for n in range(2)]
    assert marks(flat[0], KEY).bands == []
    assert copies(flat[:1], "north", [marks(flat[1], KEY)], KEY) == []
