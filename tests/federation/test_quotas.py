"""Quotas hold the ratios over all sites, whatever the sites could tell; recounted from persons dealt one by one."""

from collections import Counter
from fractions import Fraction

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import LayoutError, SpecError
from builder.federation.pooling import Pools, home_of, pool
from builder.federation.quotas import quotas
from builder.federation.suppression import suppress
from builder.federation.tables import ANY, Column, Counts, Disclosed, cells_of
from builder.split import assign_by_quotas

RATIOS = {"train": 0.70, "validation": 0.15, "test": 0.15}
SHARES = {"train": Fraction(14, 20), "validation": Fraction(3, 20), "test": Fraction(3, 20)}
SEX = Column("sex", ("F", "M"))
GRADE = Column("grade", ("high", "low", "missing"))
COLUMNS = (SEX, GRADE)


def site_tables():
    numbers = st.lists(st.integers(0, 40), min_size=6, max_size=6)
    return numbers.map(lambda found: Counts(COLUMNS, dict(zip(cells_of(COLUMNS), found, strict=True))))


@settings(max_examples=15, deadline=None)
@given(st.lists(site_tables(), min_size=1, max_size=4))
def test_pools_hold_every_person_of_every_site_once(tables):
    told = {f"site{n}": suppress(table, 5) for n, table in enumerate(tables)}
    pools = pool(told)
    for site, table in zip(told, tables, strict=True):
        if site in pools.untold:
            assert sum(table.cells.values()) < 5
            continue
        recount = dict.fromkeys(pools.patterns, 0)
        for cell, n in table.cells.items():
            recount[home_of(cell, pools.patterns)] += n
        assert tuple(recount.values()) == pools.persons[site]
        assert min(recount.values()) >= 5
    for cell in cells_of(COLUMNS):  # what every site could tell stands alone
        if all(cell in told[site].shown for site in pools.persons):
            assert not pools.persons or cell in pools.patterns


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 5).flatmap(
        lambda width: st.lists(st.lists(st.integers(0, 60), min_size=width, max_size=width), min_size=1, max_size=6)
    ),
    st.integers(0, 9),
)
def test_every_stratum_is_within_one_person_of_its_ratio_over_all_sites(numbers, seed):
    patterns = tuple((f"level{n}",) for n in range(len(numbers[0])))
    pools = Pools(patterns, {f"site{n}": tuple(row) for n, row in enumerate(numbers)}, ())
    found = quotas(pools, RATIOS, seed=seed)
    assert found == quotas(pools, RATIOS, seed=seed)
    for site, rows in found.counts.items():
        assert tuple(map(sum, rows)) == pools.persons[site]
        assert min((n for row in rows for n in row), default=0) >= 0
    for place in range(len(patterns)):
        everybody = sum(pools.persons[site][place] for site in pools.persons)
        for split, share in enumerate(SHARES.values()):
            assert abs(sum(rows[place][split] for rows in found.counts.values()) - share * everybody) < 1
    for split, share in enumerate(SHARES.values()):
        dealt = sum(row[split] for rows in found.counts.values() for row in rows)
        assert abs(dealt - share * sum(map(sum, numbers))) < 1


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.lists(st.integers(5, 60), min_size=2, max_size=2), min_size=2, max_size=4),
    st.sampled_from([0.02, 0.1, 0.9]),
    st.randoms(use_true_random=False),
)
def test_with_patients_of_two_sites_the_joint_split_is_off_by_their_surplus_alone(numbers, matched, random):
    """Each site deals its matched persons as the others do, whom the quotas do not know; recounted over all sites."""
    pools = Pools((("F",), ("M",)), {f"site{n}": tuple(row) for n, row in enumerate(numbers)}, ())
    found = quotas(pools, RATIOS, seed=0)
    joint: Counter[tuple[str, str]] = Counter()
    surplus: Counter[str] = Counter()
    for site, (women, men) in pools.persons.items():
        homes = ["F"] * women + ["M"] * men
        keys = [f"{site}-{n}" for n in range(len(homes))]
        table = pa.table({"person_key": keys, "stratum": homes})
        drawn = {key: random.choices([*RATIOS], [*RATIOS.values()])[0] for key in keys if random.random() < matched}
        rows = zip(found.patterns, found.counts[site], strict=True)
        own = {home: dict(zip(found.splits, row, strict=True)) for (home,), row in rows}
        dealt = assign_by_quotas(table, quotas=own, strata=[], seed=0, drawn=drawn)
        home_of = dict(zip(keys, homes, strict=True))
        taken = Counter((home_of[key], split) for key, split in drawn.items())
        for home, split in zip(dealt["stratum"].to_pylist(), dealt["split"].to_pylist(), strict=True):
            joint[home, split] += 1
        for (home, split), number in taken.items():
            surplus[home] += max(0, number - own[home][split])
    for place, home in enumerate("FM"):
        everybody = sum(row[place] for row in numbers)
        for split, share in SHARES.items():
            assert abs(joint[home, split] - share * everybody) < 1 + surplus[home]


def test_many_small_sites_are_one_large_one():
    """Seven sites of three persons: alone, none could fill three splits by 70/15/15."""
    pools = Pools((("F",),), {f"site{n}": (3,) for n in range(20)}, ())
    found = quotas(pools, RATIOS, seed=1)
    assert [sum(rows[0][split] for rows in found.counts.values()) for split in range(3)] == [42, 9, 9]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 30), min_size=3, max_size=3), min_size=2, max_size=2),
    st.lists(st.integers(0, 60), min_size=2, max_size=2),
)
def test_newcomers_fill_what_earlier_versions_left_open(before, newcomers):
    names = list(RATIOS)
    held = {f"site{n}": [dict(zip(names, row, strict=True))] for n, row in enumerate(before)}
    pools = Pools((("F",),), {f"site{n}": (count,) for n, count in enumerate(newcomers)}, ())
    found = quotas(pools, RATIOS, seed=0, held=held)
    assert [sum(rows[0]) for rows in found.counts.values()] == newcomers
    stood = [sum(row[split] for row in before) for split in range(3)]
    after = [stood[split] + sum(rows[0][split] for rows in found.counts.values()) for split in range(3)]
    off = [after[split] - share * sum(after) for split, share in enumerate(SHARES.values())]
    for giver in range(3):  # nobody would be better off in a split that lacks more
        if after[giver] > stood[giver]:
            assert off[giver] <= min(off) + 2


def test_a_whole_hospital_is_held_out_and_counts_in_no_share():
    pools = Pools((("F",), ("M",)), {"north": (40, 20), "south": (20, 20), "west": (13, 9)}, ())
    found = quotas(pools, RATIOS, seed=0, held_out={"west": "external"})
    assert found.splits == ("train", "validation", "test", "external")
    assert found.counts["west"] == ((0, 0, 0, 13), (0, 0, 0, 9))
    assert [sum(found.counts[s][0][split] for s in ("north", "south")) for split in range(4)] == [42, 9, 9, 0]
    with pytest.raises(SpecError, match="'east', expected one of"):
        quotas(pools, RATIOS, seed=0, held_out={"east": "external"})
    with pytest.raises(SpecError, match=r"splits.ratios: found a sum of 0.9"):
        quotas(pools, {"train": 0.9}, seed=0)


def test_a_hospital_that_is_held_out_alone_leaves_nobody_to_deal():
    pools = Pools((("F",),), {"west": (13,)}, ())
    assert quotas(pools, RATIOS, seed=0, held_out={"west": "test"}).counts == {"west": ((0, 0, 13),)}
    assert quotas(Pools((), {}, ("east",)), RATIOS, seed=0).counts == {}


def test_strata_that_one_site_hides_are_pooled_for_all():
    wide = dict.fromkeys(cells_of(COLUMNS), 50)
    told = {
        "large": suppress(Counts(COLUMNS, wide), 5),
        "women": suppress(Counts(COLUMNS, {("F", "high"): 30, ("F", "low"): 30, ("F", "missing"): 40}), 5),
    }
    pools = pool(told)
    assert all(pattern[0] in ("F", ANY) for pattern in pools.patterns)
    assert sum(pools.persons["large"]) == 300
    assert sum(pools.persons["women"]) == 100


def test_numbers_that_do_not_add_up_are_refused():
    wrong = Disclosed((SEX,), 5, {(ANY,): 20, ("F",): 18}, (("M",),))
    with pytest.raises(LayoutError, match="north: found strata that do not add up"):
        pool({"north": wrong})
    other = Disclosed((GRADE,), 5, {(ANY,): 20}, tuple((level,) for level in GRADE.levels))
    with pytest.raises(LayoutError, match="south: found a table of other columns"):
        pool({"north": Disclosed((SEX,), 5, {(ANY,): 20}, (("F",), ("M",))), "south": other})
