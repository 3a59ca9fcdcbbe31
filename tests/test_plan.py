"""Shard buckets: order-free, bounded, stable under growth; fingerprints that notice what matters."""

from hypothesis import given, settings
from hypothesis import strategies as st

from builder.model.keyed import Key
from builder.plan import CasePlan, assign_buckets

KEY = Key(b"0123456789abcdef")


def case(number: int, person: int, size: int = 10) -> CasePlan:
    return CasePlan(f"case{number:04d}", f"person{person}", f"series{number}", 0, 100, size, 1000)


cases = st.lists(st.integers(0, 40), min_size=1, max_size=80).map(
    lambda people: [case(i, p) for i, p in enumerate(people)]
)


@given(cases=cases, limit=st.integers(1, 9), order=st.randoms(use_true_random=False))
def test_every_case_is_in_one_bucket_and_order_does_not_matter(cases, limit, order):
    buckets = assign_buckets(cases, key=KEY, most_cases=limit, most_bytes=10**9)
    shuffled = list(cases)
    order.shuffle(shuffled)
    assert assign_buckets(shuffled, key=KEY, most_cases=limit, most_bytes=10**9) == buckets
    assert sorted(c.case_key for held in buckets.values() for c in held) == sorted(c.case_key for c in cases)
    for held in buckets.values():
        assert len(held) <= limit or len({c.person_key for c in held}) == 1
    homes = {}
    for bucket, held in buckets.items():
        for c in held:
            assert homes.setdefault(c.person_key, bucket) == bucket


@settings(max_examples=30)
@given(cases=cases, person=st.integers(0, 60))
def test_one_more_case_touches_one_bucket_or_splits_it(cases, person):
    before = assign_buckets(cases, key=KEY, most_cases=4, most_bytes=10**9)
    after = assign_buckets([*cases, case(9999, person)], key=KEY, most_cases=4, most_bytes=10**9)
    changed = {b for b, held in after.items() if before.get(b) != held}
    gone = set(before) - set(after)
    assert len(gone) <= 1
    home = next(b for b, held in after.items() if any(c.case_key == "case9999" for c in held))
    stem = next(iter(gone)) if gone else home
    assert all(b.startswith(stem) for b in changed)


def test_bytes_bound_a_bucket_too():
    buckets = assign_buckets([case(i, i, size=60) for i in range(16)], key=KEY, most_cases=99, most_bytes=130)
    assert all(len(held) <= 2 for held in buckets.values())
