"""How much of the time between two dates may leave.

The difference of two true dates tells as much as a date: whoever knows one of them can compute the other. Labels of
one campaign share a date, so a single known scan date would give away all others; a placeholder date gives them away
without any knowledge. A time therefore leaves only if the spec retains it and both dates are the person's own.
"""

from calendar import monthrange
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Final

from builder.deid.columns import OLDEST_AGE

SHARED: Final = 5
"""A date of labels, or of columns, that so many persons share belongs to a campaign, not to a person."""

_ROUNDED: Final = 1 / 4
_ANNIVERSARY: Final = 1 / 20
"""Shares of the dates from which a day of the month, or of the year, is a habit. By chance 1 in 30 is on it, or 1 in
365. Shares of dates and not of persons, because a person with many dates has one of every kind by chance."""

DAYS_A_YEAR: Final = 365.2425
"""Mean length of a year of the Gregorian calendar."""


class Withheld(StrEnum):
    """Why a time may not leave; private, because it tells which kind of date a withheld one is."""

    NO_DAY = "no study of the person has a day to count from"
    BIRTH = "a date of birth, or a day not after it"
    SHARED = "five or more persons share the date"
    PLACEHOLDER = "the day stands for a month, a year or nothing"
    OVER_89 = "the person may be 90 or older"


@dataclass(frozen=True)
class Lifetime:
    """What is known of a person's age: the date of birth, or else the largest age that can be true on a date."""

    born: date | None = None
    age_years: float | None = None
    on: date | None = None

    def may_be_over_89(self, day: date) -> bool:
        """Return whether the person may be 90 or older on a day; False if nothing is known."""
        if self.age_years is not None and self.on is not None:
            then = self.age_years + (day - self.on).days / DAYS_A_YEAR
            if then >= OLDEST_AGE:
                return True
            if self.born is None:  # the next birthday may be any day
                return self.age_years >= OLDEST_AGE or then + 1 > OLDEST_AGE
        if self.born is None:
            return False
        years = day.year - self.born.year - ((day.month, day.day) < (self.born.month, self.born.day))
        return years >= OLDEST_AGE

    def or_older(self, age_years: float, on: date) -> "Lifetime":
        """Return the same with another stated age, if the person was born earlier by it than by the one known so far.

        A table may state one age of a person who was imaged over years: it then counts for the first of these days.
        """
        if self.age_years is not None and self.on is not None:
            born_later = (on - self.on).days - (age_years - self.age_years) * DAYS_A_YEAR
            if born_later >= 0:
                return self
        return Lifetime(self.born, age_years, on)

    def holds(self, day: date) -> bool:
        """Return whether a day can belong to the person's own care, because it is after the day of birth."""
        return self.born is None or day > self.born


def shared_dates(dates: Iterable[tuple[str, date]]) -> dict[date, Withheld]:
    """Return the dates of labels or table cells, given as (person, date), that are no person's own, and why.

    These are dates that ``SHARED`` or more persons have, and placeholders: a first of January may stand for a year or
    for nothing. So may another day if many persons have it in different months or years: where only the month is known,
    a first, a fifteenth or a last day of the month is written, and where only the year is, often 1 July or 31 December.
    Such habits belong to a column, and show only among the dates of that column alone.
    """
    persons: dict[date, set[str]] = {}
    for person, day in dates:
        persons.setdefault(day, set()).add(person)
    rounded = _habits(persons, _day_of_month, _ROUNDED)
    yearly = _habits(persons, lambda day: (day.month, day.day), _ANNIVERSARY)
    found: dict[date, Withheld] = {}
    for day, who in persons.items():
        if _first_of_january(day) or _impossible(day):
            found[day] = Withheld.PLACEHOLDER
        elif len(who) >= SHARED:
            found[day] = Withheld.SHARED
        elif day in rounded or day in yearly:
            found[day] = Withheld.PLACEHOLDER
    return found


def _habits(persons: Mapping[date, set[str]], kind: Callable[[date], Hashable | None], share: float) -> frozenset[date]:
    """Return the dates of every kind that at least ``SHARED`` persons have, and that is at least a share of all dates.

    A date counts once for each person who has it.
    """
    least = share * sum(map(len, persons.values()))
    kinds: dict[Hashable, set[date]] = {}
    for day in persons:
        if (found := kind(day)) is not None:
            kinds.setdefault(found, set()).add(day)
    return frozenset(
        day
        for days in kinds.values()
        if sum(len(persons[d]) for d in days) >= least and len(set().union(*(persons[d] for d in days))) >= SHARED
        for day in days
    )


def _day_of_month(day: date) -> str | None:
    """Return which of the days that stand for a whole month this is; None for all others."""
    if day.day == monthrange(day.year, day.month)[1]:
        return "last"
    return {1: "first", 15: "middle"}.get(day.day)


def placeholder_studies(dates: Iterable[tuple[str, date]]) -> dict[date, Withheld]:
    """Return the study dates, given as (person, date), that stand for a year or for nothing.

    Some people are scanned on a first of January, so it counts as a placeholder only in an archive where ``SHARED`` or
    more persons have a study on one, in any year. The first day of an epoch always counts as one.
    """
    seen = set(dates)
    persons = {person for person, day in seen if _first_of_january(day)}
    habit = len(persons) >= SHARED
    return {
        day: Withheld.PLACEHOLDER
        for _, day in seen
        if _impossible(day) or (_first_of_january(day) and (habit or day.year in _EPOCHS))
    }


_EPOCHS: Final = (1900, 1904, 1970)


def _first_of_january(day: date) -> bool:
    return (day.month, day.day) == (1, 1)


def _impossible(day: date) -> bool:
    return not 1900 <= day.year <= 2200


def days_between(
    first: date, then: date, *, lifetime: Lifetime, shared: Mapping[date, Withheld], most_days: int
) -> int | Withheld:
    """Return the whole days from ``first`` to ``then`` in the form in which they may leave, or why they may not.

    ``first`` is the date of a study that is no placeholder (``placeholder_studies``).

    Parameters
    ----------
    lifetime
        What is known of the age of the person whose dates they are.
    shared
        Dates that are nobody's own, and why (``shared_dates``).
    most_days
        A longer time becomes ``most_days + 1``, or its negative, so that all longer times are alike.
    """
    if then in shared:
        return shared[then]
    if not (lifetime.holds(first) and lifetime.holds(then)):
        return Withheld.BIRTH
    if lifetime.may_be_over_89(max(first, then)):
        return Withheld.OVER_89
    days = (then - first).days
    return max(-most_days - 1, min(most_days + 1, days))
