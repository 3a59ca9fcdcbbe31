"""Volumes compared in tasks give the pairs that one comparison gives, also when versions follow each other."""

import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.copies import THRESHOLDS, find_matches, lists, prints_table, screening, take_print
from builder.model.parquet import parquet_bytes
from builder.publishing import comparing
from builder.publishing.comparing import compare_in_tasks, read_facts, read_fits
from builder.run.serial import SerialRunner
from builder.stages.comparing import fit_pairs
from builder.stages.shard import prints_path
from builder.storage import open_store


def volume(seed):
    """Return smooth noise in which persons differ."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(6, 7, 7))
    return np.round(500 * np.kron(coarse, np.ones((6, 6, 6))) + rng.normal(size=(36, 42, 42))).astype(np.int16)


def copy_of(seed):
    return volume(seed)[:, 4:, ::-1] * 2 + 5


@pytest.fixture(scope="module")
def taken():
    """Return prints of ten volumes, of copies of three, and of a pair with equal planes."""
    made = [(volume(n), f"k{n:02d}", f"p{n}") for n in range(10)]
    made += [(copy_of(n), f"c{n}", f"q{n}") for n in range(3)]
    made.append((volume(4), "equal", "other"))
    return [take_print(v, key=k, person_key=p, modality="CT") for v, k, p in made]


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(screening, "PROMISING", 4)
    monkeypatch.setattr(screening, "PAIRS", 0)
    monkeypatch.setattr(comparing, "ALONE", 4)
    monkeypatch.setattr(comparing, "VOLUMES", 3)


class Backwards(SerialRunner):
    """A runner that ends tasks in another order."""

    def run(self, tasks):
        return super().run(list(tasks)[::-1])


def compared(folder, prints, *, runner=None, neighbours=4, shard=2):
    """Compare prints in shards of a few, as a build does."""
    store = open_store(str(folder))
    shards = [f"s{at}" for at in range(0, len(prints), shard)]
    for at, name in zip(range(0, len(prints), shard), shards, strict=True):
        store.put(prints_path(name), parquet_bytes(prints_table(prints[at : at + shard])))
    options = {"thresholds": THRESHOLDS, "neighbours": neighbours}
    return compare_in_tasks(store, shards, read_facts(store, shards), runner or SerialRunner(), **options)


def test_tasks_find_what_one_comparison_finds(taken, tmp_path, small):
    expected = find_matches(taken)
    assert {(m.first, m.second) for m in expected} == {("c0", "k00"), ("c1", "k01"), ("c2", "k02"), ("equal", "k04")}
    assert compared(tmp_path / "a", taken) == expected
    twice = [*taken[5:], *taken]  # a series that serves several cases
    assert compared(tmp_path / "b", twice, runner=Backwards(), shard=5) == expected
    assert compared(tmp_path / "c", taken, neighbours=0) == find_matches(taken, neighbours=0) == expected[:1]
    assert sorted(open_store(str(tmp_path / "b")).list("comparison")) == []


@pytest.mark.parametrize("probed", [1, 1000])
def test_lists_of_spectra_are_the_same_in_tasks_and_all_of_them_are_the_full_choice(
    probed, taken, tmp_path, small, monkeypatch
):
    full = find_matches(taken)
    monkeypatch.setattr(lists, "LISTED", 10)
    monkeypatch.setattr(lists, "PROBED", probed)
    expected = find_matches(taken)
    assert set(expected) <= set(full)
    assert probed == 1 or expected == full
    assert compared(tmp_path / "a", taken) == expected
    assert compared(tmp_path / "b", [*taken[5:], *taken], runner=Backwards(), shard=5) == expected


def test_few_volumes_are_compared_in_one_task(taken, tmp_path):
    assert compared(tmp_path, taken) == find_matches(taken)
    assert not read_fits(open_store(str(tmp_path)))


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(versions=st.lists(st.sets(st.integers(0, 13), min_size=6, max_size=9), min_size=2, max_size=2))
def test_versions_that_grow_and_shrink_find_what_a_first_version_finds(versions, taken, tmp_path, small):
    for held in versions:
        prints = [taken[n] for n in sorted(held)]
        assert compared(tmp_path / "kept", prints) == find_matches(prints)
    shutil.rmtree(tmp_path / "kept")


def test_pairs_that_were_fitted_are_not_fitted_again(taken, tmp_path, small, monkeypatch):
    compared(tmp_path, taken[:12])
    before = read_fits(open_store(str(tmp_path)))
    fitted = []

    def noted(portion):
        found = fit_pairs(portion)
        fitted.extend(found)
        return found

    monkeypatch.setattr("builder.publishing.comparing.fit_pairs", noted)
    assert compared(tmp_path, taken[:12]) == find_matches(taken[:12])
    assert before
    assert not fitted, "nothing is new"
    assert compared(tmp_path, taken[2:]) == find_matches(taken[2:])
    assert fitted
    assert len(read_fits(open_store(str(tmp_path))).keys() & before.keys()) < len(before), "what left is forgotten"
