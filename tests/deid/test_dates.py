"""Which days between two dates may leave, and the attack that the rules must withstand."""

from collections.abc import Mapping
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.deid.dates import SHARED, Lifetime, Withheld, days_between, placeholder_studies, shared_dates

DAYS = st.dates(date(1901, 1, 2), date(2199, 12, 31)).filter(lambda d: (d.month, d.day) != (1, 1))
SCAN = date(2011, 3, 5)
ADULT = Lifetime(born=date(1960, 5, 5))
NOTHING: Mapping[date, Withheld] = {}


def between(
    then: date, *, lifetime: Lifetime = ADULT, shared: Mapping[date, Withheld] = NOTHING, most: int = 365
) -> int | Withheld:
    return days_between(SCAN, then, lifetime=lifetime, shared=shared, most_days=most)


def test_a_persons_own_days_leave() -> None:
    assert between(date(2011, 3, 15)) == 10
    assert between(date(2011, 2, 28)) == -5


@pytest.mark.parametrize("then", [date(2012, 3, 5), date(2019, 7, 1), date(2099, 12, 31)])
def test_long_times_are_reported_as_one_value(then: date) -> None:
    assert between(then, lifetime=Lifetime()) == 366
    assert between(SCAN - (then - SCAN), lifetime=Lifetime()) == -366


PLACEHOLDERS = [date(1900, 1, 1), date(1970, 1, 1), date(2011, 1, 1), date(1899, 5, 5), date(9999, 9, 9)]


@pytest.mark.parametrize("then", PLACEHOLDERS)
def test_placeholder_dates_give_no_days(then: date) -> None:
    assert between(then, shared=shared_dates([("p", then)])) is Withheld.PLACEHOLDER


def test_a_study_on_a_first_of_january_is_real_unless_the_archive_makes_a_habit_of_it() -> None:
    real = [(f"p{n}", date(2010 + n, 1, 1)) for n in range(SHARED - 1)]
    assert placeholder_studies([*real, ("q", SCAN)]) == {}
    assert placeholder_studies([*real, ("p0", date(2005, 1, 1))]) == {}, "one person's studies are one habit"
    assert {*placeholder_studies([*real, ("q", date(2019, 1, 1)), ("q", SCAN)])} == {
        date(2019, 1, 1), *(day for _, day in real)
    }  # fmt: skip
    assert {*placeholder_studies([("p", day) for day in (*PLACEHOLDERS, SCAN)])} == {*PLACEHOLDERS} - {date(2011, 1, 1)}


def test_the_first_days_of_epochs_are_placeholders_even_alone() -> None:
    for year in (1900, 1904, 1970):
        assert placeholder_studies([("p", date(year, 1, 1))]) == {date(year, 1, 1): Withheld.PLACEHOLDER}
        assert placeholder_studies([("p", date(year + 1, 1, 1))]) == {}


def test_birth_and_earlier_dates_give_no_days() -> None:
    assert between(date(1960, 5, 5), most=3653) is Withheld.BIRTH
    assert between(date(1959, 5, 5), most=3653) is Withheld.BIRTH
    assert between(date(1960, 5, 6), most=3653) == -3654


def test_nothing_beyond_the_age_of_89() -> None:
    old = Lifetime(born=date(1921, 6, 1))
    assert between(date(2011, 5, 31), lifetime=old) == 87
    assert between(date(2011, 6, 1), lifetime=old) is Withheld.OVER_89
    assert between(date(2011, 3, 15), lifetime=Lifetime(age_years=90, on=SCAN)) is Withheld.OVER_89
    assert between(date(2011, 3, 15), lifetime=Lifetime(age_years=60, on=SCAN)) == 10


def test_an_age_and_a_birth_that_disagree_count_as_the_older() -> None:
    born = Lifetime(date(1960, 7, 1), 93.0, date(2020, 5, 5))
    assert born.may_be_over_89(date(2020, 5, 5))
    assert not Lifetime(date(1931, 7, 1), 88.0, date(2020, 5, 5)).may_be_over_89(date(2020, 5, 5))


def test_an_age_of_90_stands_for_any_age_above_so_no_other_day_leaves() -> None:
    assert Lifetime(age_years=90, on=SCAN).may_be_over_89(SCAN - timedelta(days=3000))
    assert not Lifetime(age_years=87, on=SCAN).may_be_over_89(SCAN)
    born_later = Lifetime(date(1921, 6, 1), 90.0, SCAN)
    assert born_later.may_be_over_89(SCAN), "90 to the day by the stated age"
    assert not born_later.may_be_over_89(SCAN - timedelta(days=1))


def test_a_date_shared_by_many_persons_counts_as_shared() -> None:
    campaign = date(2011, 6, 1)
    few = shared_dates((f"p{n}", campaign) for n in range(SHARED - 1))
    many = shared_dates((f"p{n}", campaign) for n in range(SHARED))
    assert (few, many) == ({}, {campaign: Withheld.SHARED})
    assert shared_dates([("p", campaign)] * 20) == {}
    assert between(campaign, shared=few) == 88
    assert between(campaign, shared=many) is Withheld.SHARED


@pytest.mark.parametrize(
    ("stands_for", "days"),
    [
        ("a month", [date(2011, m, 15) for m in range(2, 8)]),
        ("a month", [date(2011, m, 1) for m in range(2, 8)]),
        ("a month", [date(2011, 2, 28), date(2012, 2, 29), date(2011, 4, 30), date(2011, 5, 31), date(2011, 9, 30)]),
        ("a year", [date(y, 7, 2) for y in range(2005, 2010)]),
    ],
)
def test_days_that_an_archive_prefers_count_as_shared(stands_for: str, days: list[date]) -> None:
    """If only a month or a year is known, archives store the same day of it for many persons."""
    habit = [(f"p{n}", day) for n, day in enumerate(days)]
    own = [(f"q{n}", date(2010, 3, 2) + timedelta(days=41 * n)) for n in range(3)]
    assert shared_dates([*habit, *own]) == dict.fromkeys(days, Withheld.PLACEHOLDER)
    assert shared_dates([*habit[: SHARED - 1], *own]) == {}
    assert shared_dates((f"p{n}", date(2001, 1, 2) + timedelta(days=37 * n)) for n in range(150)) == {}


def test_many_dates_per_person_do_not_make_a_habit() -> None:
    """By chance, each of 60 persons has a date on a first, on a fifteenth and on nearly every day of the year."""
    followed = [(f"p{n}", date(2001, 1, 2) + timedelta(days=7 * n + 431 * k)) for n in range(60) for k in range(20)]
    assert {day for day in shared_dates(followed) if (day.month, day.day) != (1, 1)} == set()


@given(st.lists(st.tuples(st.integers(0, 12), DAYS), max_size=40), DAYS, st.integers(1, 3653))
def test_knowing_one_persons_date_does_not_reveal_another(
    dated: list[tuple[int, date]], campaign: date, most: int
) -> None:
    """The attack: the attacker knows one scan date, computes the label date from it, and applies it to all others."""
    scans = {person: campaign - timedelta(days=30 + 7 * person) for person, _ in dated}
    labels = dict.fromkeys(scans, campaign) if len(scans) >= SHARED else dict(dated)
    shared = shared_dates((f"{p}", d) for p, d in labels.items())
    published = {
        p: days_between(scans[p], labels[p], lifetime=Lifetime(), shared=shared, most_days=most) for p in scans
    }
    if len(scans) >= SHARED:
        assert set(published.values()) <= {*Withheld}
    assert all(isinstance(days, Withheld) or abs(days) <= most + 1 for days in published.values())
