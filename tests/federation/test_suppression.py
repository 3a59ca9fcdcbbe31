"""A hidden number stays unknown to whoever solves for it: recomputed with a solver from nothing but what was told."""

import os
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, milp

from builder.errors import PrivacyError, SpecError
from builder.federation.suppression import suppress
from builder.federation.tables import ANY, Column, Counts, Disclosed, count

EXAMPLES = int(os.environ.get("BUILDER_EXAMPLES", "10"))

SEX = Column("sex", ("F", "M"))
GRADE = Column("grade", ("high", "low", "missing"))
SITE = Column("site", ("north", "south"))


def attacked(columns, told, target):
    """Smallest and largest number of a pattern in any whole table with what was told; the attacker's own arithmetic."""
    cells = list(product(*[c.levels for c in columns]))

    def row(pattern):
        return [float(all(want in (ANY, have) for want, have in zip(pattern, c, strict=True))) for c in cells]

    facts = [(row(pattern), n) for table in told for pattern, n in table.shown.items()]
    rules = (
        [LinearConstraint(np.array([r for r, _ in facts]), [n for _, n in facts], [n for _, n in facts])]
        if facts
        else []
    )
    ends = []
    for sign in (1, -1):
        answer = milp(sign * np.array(row(target)), constraints=rules, integrality=np.ones(len(cells), dtype=int))
        ends.append(np.inf if answer.x is None else sign * answer.fun)  # unbounded above
    return ends[0], ends[1]


def assert_unknown(disclosed: Disclosed, told=()):
    for pattern in disclosed.hidden:
        low, high = attacked(disclosed.columns, [disclosed, *told], pattern)
        assert high - low >= disclosed.k, (pattern, low, high)


def tables(columns):
    cells = list(product(*[c.levels for c in columns]))
    small = st.one_of(st.integers(0, 6), st.integers(0, 60))
    return st.lists(small, min_size=len(cells), max_size=len(cells)).map(
        lambda numbers: Counts(columns, dict(zip(cells, numbers, strict=True)))
    )


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.sampled_from([(GRADE,), (SEX, GRADE), (SEX, SITE, GRADE)]).flatmap(tables), st.integers(3, 10))
def test_no_hidden_number_can_be_narrowed_down(counts, k):
    told = suppress(counts, k)
    assert all(n >= k for n in told.shown.values())
    for pattern, n in told.shown.items():  # what is told is true
        assert n == sum(
            v for cell, v in counts.cells.items() if all(p in (ANY, c) for p, c in zip(pattern, cell, strict=True))
        )
    assert_unknown(told)


def test_a_lone_small_cell_takes_a_partner_with_it():
    counts = Counts((SEX, GRADE), {("F", "high"): 2, ("F", "low"): 20, ("F", "missing"): 9, ("M", "high"): 11,
                                   ("M", "low"): 30, ("M", "missing"): 7})  # fmt: skip
    told = suppress(counts, 5)
    assert ("F", "high") in told.hidden
    assert told.shown[(ANY, ANY)] == 79
    assert len([p for p in told.hidden if ANY not in p]) == 4  # a rectangle: two rows and two columns
    assert_unknown(told)


def test_zeros_are_hidden_like_every_small_number():
    told = suppress(Counts((SEX,), {("F",): 12}), 5)
    assert told.hidden == (("F",), ("M",))  # 12 beside the total of 12 would tell the zero
    assert told.shown == {(ANY,): 12}


def test_fewer_than_k_persons_are_not_even_counted():
    told = suppress(Counts((SEX,), {("F",): 2, ("M",): 2}), 5)
    assert not told.shown
    assert (ANY,) in told.hidden


def test_enough_persons_are_always_counted():
    for n in (5, 11):
        assert suppress(Counts((SEX, GRADE), {("F", "low"): n}), 5).shown == {(ANY, ANY): n}


@settings(max_examples=EXAMPLES // 2, deadline=None)
@given(tables((SEX, SITE, GRADE)))
def test_a_second_table_of_the_same_persons_gives_nothing_of_the_first_away(counts):
    first = suppress(counts, 5, asked=[(), ("sex",), ("grade",), ("sex", "grade")])
    second = suppress(counts, 5, asked=[(), ("site",), ("sex", "site"), ("sex", "site", "grade")], told=[first])
    assert_unknown(first, told=[second])
    assert_unknown(second, told=[first])


def test_a_choice_of_other_partners_would_give_the_first_table_away():
    """Why the tables told before must be known: alone, the second one is safe."""
    counts = Counts((GRADE,), {("high",): 2, ("low",): 20, ("missing",): 21})
    first = Disclosed((GRADE,), 5, {(ANY,): 43, ("low",): 20}, (("high",), ("missing",)))
    other = Disclosed((GRADE,), 5, {(ANY,): 43, ("missing",): 21}, (("high",), ("low",)))
    assert_unknown(first)
    assert_unknown(other)
    assert attacked((GRADE,), [first, other], ("high",)) == (2, 2)
    assert suppress(counts, 5, told=[first]).hidden == first.hidden
    assert suppress(counts, 5, told=[other]).hidden == other.hidden


def test_what_is_lost_already_is_refused():
    counts = Counts((GRADE,), {("high",): 2, ("low",): 20, ("missing",): 21})
    both = Disclosed((GRADE,), 2, {(ANY,): 43, ("low",): 20, ("missing",): 21}, (("high",),))
    with pytest.raises(PrivacyError, match="give away a hidden number"):
        suppress(counts, 5, told=[both])


def test_other_levels_than_before_are_refused():
    young = Column("age", ("below 60", "60 and above"), "60")
    other = Column("age", ("below 60", "60 and above"), "61")
    counts = Counts((young,), {("below 60",): 20, ("60 and above",): 30})
    first = suppress(counts, 5)
    with pytest.raises(PrivacyError, match="age: found other levels"):
        suppress(Counts((other,), {("below 60",): 22, ("60 and above",): 28}), 5, told=[first])


def test_strata_that_are_too_fine_are_refused():
    fine = Column("day", tuple(map(str, range(4000))))
    with pytest.raises(PrivacyError, match="4,000 cells of day, expected at most"):
        suppress(Counts((fine,), {("1",): 90}), 5)
    with pytest.raises(PrivacyError, match="k: found 2"):
        suppress(Counts((SEX,), {("F",): 90}), 2)


def test_a_word_beside_the_vocabulary_is_not_counted_and_not_quoted():
    with pytest.raises(SpecError, match="column sex: found a value beside its levels") as found:
        count((SEX,), [("F",), ("Smith",)])
    assert "Smith" not in str(found.value)


def test_a_table_of_many_cells_is_done_in_time():
    columns = (SEX, Column("age", tuple("abcdefghi")), Column("vendor", tuple("ABCDE")))
    random = np.random.default_rng(3)
    rows = [(x, y, z) for x, y, z in zip(random.choice(list("FM"), 400), random.choice(list("abcdefghi"), 400),
                                         random.choice(list("ABCDE"), 400), strict=True)]  # fmt: skip
    told = suppress(count(columns, rows), 5)
    assert told.shown[(ANY, ANY, ANY)] == 400
    assert_unknown(Disclosed(columns, 5, told.shown, told.hidden[:10]))
