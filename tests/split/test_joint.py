"""A site deals its newcomers by the quotas of a joint plan."""

from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import SpecError
from builder.split import assign_by_quotas

SPLITS = ("train", "validation", "test")


def people(rows):
    keys = [f"p{n:04d}" for n in range(len(rows))]
    return pa.table(
        {"person_key": keys, "stratum": [home for home, _ in rows], "sex": pa.array([s for _, s in rows], pa.string())}
    )


def homes(result):
    return Counter(zip(result["stratum"].to_pylist(), result["split"].to_pylist(), strict=True))


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(0, 12), min_size=3, max_size=3), min_size=1),
    st.randoms(use_true_random=False),
)
def test_every_quota_is_filled_to_the_person_and_the_order_of_rows_does_not_matter(asked, random):
    quotas = {home: dict(zip(SPLITS, numbers, strict=True)) for home, numbers in asked.items()}
    rows = [(home, random.choice("FM")) for home, numbers in asked.items() for _ in range(sum(numbers))]
    table = people(rows)
    found = assign_by_quotas(table, quotas=quotas, strata=["sex"], seed=3)
    assert homes(found) == Counter({(h, s): n for h, quota in quotas.items() for s, n in quota.items() if n})
    mixed = table.take(pa.array(random.sample(range(len(rows)), len(rows)), pa.int64()))
    assert assign_by_quotas(mixed, quotas=quotas, strata=["sex"], seed=3) == found


def test_what_a_quota_does_not_say_is_spread_evenly():
    rows = [("a", "FM"[n % 2]) for n in range(40)]
    found = assign_by_quotas(
        people(rows), quotas={"a": {"train": 28, "validation": 6, "test": 6}}, strata=["sex"], seed=0
    )
    sexes = people(rows)["sex"].to_pylist()
    assert Counter(zip(found["split"].to_pylist(), sexes, strict=True)) == {
        ("train", "F"): 14, ("train", "M"): 14, ("validation", "F"): 3, ("validation", "M"): 3, ("test", "F"): 3,
        ("test", "M"): 3,
    }  # fmt: skip


def test_who_was_dealt_before_stays_and_fills_no_quota():
    rows = [("a", "F")] * 10
    before = pa.table({"person_key": ["p0000", "p0001"], "split": ["test", "external"]})
    found = assign_by_quotas(
        people(rows), quotas={"a": {"train": 8, "test": 0}}, strata=["sex"], seed=0, previous=before
    )
    assert found["split"].to_pylist() == ["test", "external", *["train"] * 8]


@settings(max_examples=12, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(0, 12), min_size=3, max_size=3), min_size=1),
    st.floats(0, 1),
    st.randoms(use_true_random=False),
)
def test_who_is_drawn_takes_a_place_of_the_quota(asked, share, random):
    """A quota with places for them is filled to the person; of another no split is off by more than the surplus."""
    quotas = {home: dict(zip(SPLITS, numbers, strict=True)) for home, numbers in asked.items()}
    table = people([(home, random.choice("FM")) for home, numbers in asked.items() for _ in range(sum(numbers))])
    rows = table.to_pylist()
    drawn = {row["person_key"]: random.choice(SPLITS) for row in rows if random.random() < share}
    found = assign_by_quotas(table, quotas=quotas, strata=["sex"], seed=3, drawn=drawn)
    splits = dict(zip(found["person_key"].to_pylist(), found["split"].to_pylist(), strict=True))
    assert drawn.items() <= splits.items()
    taken = Counter((row["stratum"], drawn[row["person_key"]]) for row in rows if row["person_key"] in drawn)
    for home, quota in quotas.items():
        surplus = sum(max(0, taken[home, split] - n) for split, n in quota.items())
        assert all(abs(homes(found)[home, split] - n) <= surplus for split, n in quota.items())


def test_more_or_fewer_newcomers_than_were_offered_get_shares_of_the_quota():
    for persons in (6, 14):
        found = assign_by_quotas(
            people([("a", "F")] * persons), quotas={"a": {"train": 5, "test": 5}}, strata=["sex"], seed=0
        )
        assert Counter(found["split"].to_pylist()) == {"train": persons // 2, "test": persons // 2}


def test_a_stratum_without_a_quota_is_refused():
    with pytest.raises(SpecError, match="stratum 'b', for which the joint plan has no quota; offer again"):
        assign_by_quotas(people([("a", "F"), ("b", "F")]), quotas={"a": {"train": 1}}, strata=["sex"], seed=0)
