"""Rows joined to images: which rows belong to a stack, which of them counts, and what they say of it."""

import datetime
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from builder.clinical.cells import Cell
from builder.clinical.order import Reading, Span, date_readings, largest, readings, smallest
from builder.clinical.phenotypes import CASE, CONTROL, count, decide
from builder.clinical.pick import Pick
from builder.clinical.rows import Row, Rows, declared_as, finish_row
from builder.clinical.table import ClinicalTable, Fact
from builder.clinical.tally import CellIssue
from builder.clinical.values import Value
from builder.errors import SpecError

LATE: Final = "dated after the study of an image of the person, or not at all"
"""The problem of a row whose values were not known when the image was made."""

LATE_DAY: Final = "a day after the study of an image of the person"
"""The problem of a date that is an input and was not known when the image was made."""


@dataclass(frozen=True)
class Images:
    """What a table is joined to, one entry a stack in every sequence; private.

    Parameters
    ----------
    persons
        The person of each stack.
    units
        What rows are told apart by: the person, study or series of each stack, or "" for a stack that lies outside the
        table's site or source.
    keys
        Fact to the names a row may use for each stack, e.g. every PatientID of its person.
    study_dates
        Date of the study of each stack.
    first_studies
        Person to the date of the first study.
    normal
        How a key of the table is written before it is compared.
    until_study
        Whether a row counts only if it is dated (``dated_by``), and not after the image's study.
    own_days
        Columns of dates whose values count only if they are not after the image's study.
    """

    persons: Sequence[str]
    units: Sequence[str]
    keys: Mapping[Fact, Sequence[tuple[str, ...]]]
    study_dates: Sequence[datetime.date | None]
    first_studies: Mapping[str, datetime.date]
    normal: Callable[[Fact, str], str] = lambda _, text: text
    until_study: bool = False
    own_days: tuple[str, ...] = ()


@dataclass(frozen=True)
class Joined:
    """What a table says of each stack.

    Parameters
    ----------
    values
        One entry a stack: the columns' values, or None where no row or no certain row belongs to it.
    matched, image_only, ambiguous
        Units (see ``Images``) by how they met, sorted.
    clinical_only
        First keys of the rows that belong to no image, sorted.
    homeless
        How many rows belong to no image.
    shared
        Numbers of rows whose keys several persons (or several series, for a file) have, so that they tell nobody apart.
    issues
        Cells that were lost when dates became days and events were derived.
    unclear
        One entry a stack: whether rows belong to it of which it is not certain which counts.
    owners
        Index of a row to the person whose image it belongs to.
    known_on
        One entry a stack: the latest day that a row which tells its values states for them; private.
    decided
        Phenotype to how many persons on the days of their studies are cases, controls, or neither for which reason.
    """

    values: tuple[Mapping[str, Value] | None, ...]
    matched: tuple[str, ...]
    image_only: tuple[str, ...]
    ambiguous: tuple[str, ...]
    clinical_only: tuple[str, ...]
    homeless: int
    shared: tuple[int, ...]
    issues: tuple[CellIssue, ...]
    unclear: tuple[bool, ...]
    owners: Mapping[int, str]
    known_on: tuple[datetime.date | None, ...] = field(repr=False)
    decided: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def join(rows: Rows, options: ClinicalTable, images: Images) -> Joined:
    """Find the row of each stack.

    Raises
    ------
    SpecError
        When ``pick`` has to choose by a column whose values have no certain order.
    """
    candidates = _Candidates(rows.rows, options, images)
    chooser = _Chooser(rows.rows, options)
    told: list[_Outcome] = []
    outcomes: dict[str, set[str]] = {}
    known: dict[tuple[tuple[int, ...], str, datetime.date | None], _Outcome] = {}
    late: set[int] = set()
    owners: dict[int, str] = {}
    by_day = bool(options.phenotypes or images.own_days) or (options.pick is not None and options.pick.to_study)
    for i, person in enumerate(images.persons):
        found = candidates.of(i)
        owners.update(dict.fromkeys(found, person))
        date = images.study_dates[i] if by_day else None
        if images.until_study:
            in_time = tuple(n for n in found if _is_known(rows.rows[n], images.study_dates[i]))
            late.update(rows.rows[n].number for n in {*found} - {*in_time})
            found = in_time
        place = (found, person, date)
        if place not in known:
            told_by = [rows.rows[n] for n in found]
            if options.phenotypes:
                known[place] = _phenotyped(told_by, options, date)
            else:
                known[place] = chooser.agreed(told_by, images, study=date, person=person)
        told.append(known[place])
        if images.units[i]:
            outcomes.setdefault(images.units[i], set()).add(known[place].kind)
    ambiguous = {unit for unit, kinds in outcomes.items() if "ambiguous" in kinds}
    matched = {unit for unit, kinds in outcomes.items() if "matched" in kinds} - ambiguous
    return Joined(
        values=tuple(outcome.values for outcome in told),
        matched=tuple(sorted(matched)),
        image_only=tuple(sorted({*outcomes} - matched - ambiguous)),
        ambiguous=tuple(sorted(ambiguous)),
        clinical_only=tuple(sorted({row.keys[0] for n, row in enumerate(rows.rows) if n not in candidates.used})),
        homeless=len(rows.rows) - len(candidates.used),
        shared=tuple(sorted(rows.rows[n].number for n in candidates.shared)),
        issues=tuple({issue: None for outcome in known.values() for issue in outcome.issues})
        + tuple(CellIssue(number, options.dated_by or "", LATE) for number in sorted(late)),
        unclear=tuple(outcome.kind == "ambiguous" for outcome in told),
        owners=owners,
        known_on=tuple(outcome.known_on for outcome in told),
        decided={
            name: count([outcome.decided[n] for outcome in known.values()]) for n, name in enumerate(options.phenotypes)
        },
    )


def _is_known(row: Row, study: datetime.date | None) -> bool:
    """Return whether it is certain that a row was known on the day of a study."""
    return row.known is not None and study is not None and row.known <= study


@dataclass(frozen=True)
class _Outcome:
    kind: str
    """matched, ambiguous or none."""
    values: Mapping[str, Value] | None = None
    issues: tuple[CellIssue, ...] = ()
    decided: tuple[str, ...] = ()
    """What the person is by each phenotype."""
    known_on: datetime.date | None = None
    """The latest day that the rows state for their values."""


def _phenotyped(rows: Sequence[Row], options: ClinicalTable, study: datetime.date | None) -> _Outcome:
    """Return what all rows of a person say together on the day of a study."""
    said = tuple(
        decide(phenotype, [row.coded[n] for row in rows], study)
        for n, phenotype in enumerate(options.phenotypes.values())
    )
    values = {
        name: True if found == CASE else False if found == CONTROL else None
        for name, found in zip(options.phenotypes, said, strict=True)
    }
    told = rows or any(value is not None for value in values.values())
    days = [e.day for row in rows for e in row.coded if e.counts and e.day and (study is None or e.day <= study)]
    return _Outcome(
        "matched" if rows else "none",
        values if told else None,
        decided=said,
        known_on=max(days, default=None),
    )


class _Candidates:
    """Rows by stack: those whose every key is one of the stack's names."""

    def __init__(self, rows: Sequence[Row], options: ClinicalTable, images: Images) -> None:
        self.facts = tuple(options.joins.values())
        self.images = images
        self.places: list[dict[str, set[int]]] = [{} for _ in self.facts]
        for n, row in enumerate(rows):
            for place, fact, key in zip(self.places, self.facts, row.keys, strict=True):
                place.setdefault(images.normal(fact, key), set()).add(n)
        self.known: dict[tuple[tuple[str, ...], ...], frozenset[int]] = {}
        self.used, self.shared = self._homes(by_series="file" in self.facts)
        self.own: dict[frozenset[int], tuple[int, ...]] = {}

    def of(self, stack: int) -> tuple[int, ...]:
        """Return the positions of the rows of a stack that belong to nobody else, ascending."""
        found = self._found(stack)
        if found not in self.own:
            self.own[found] = tuple(sorted(found - self.shared))
        return self.own[found]

    def _found(self, stack: int) -> frozenset[int]:
        names = tuple(self.images.keys[fact][stack] for fact in self.facts)
        if names not in self.known:
            sets = [
                {n for name in given for n in place.get(name, ())}
                for given, place in zip(names, self.places, strict=True)
            ]
            self.known[names] = frozenset(set.intersection(*sets))
        return self.known[names]

    def _homes(self, *, by_series: bool) -> tuple[set[int], frozenset[int]]:
        """Return the rows that belong to some image, and those of images of several persons (or series, for files)."""
        homes: dict[int, str] = {}
        shared: set[int] = set()
        seen: set[tuple[frozenset[int], str]] = set()
        for stack, person in enumerate(self.images.persons):
            owner = self.images.units[stack] if by_series else person
            found = self._found(stack)
            if (found, owner) in seen:
                continue
            seen.add((found, owner))
            for n in found:
                if homes.setdefault(n, owner) != owner:
                    shared.add(n)
        return {*homes}, frozenset(shared)


class _Chooser:
    """Applies ``pick`` to the rows of one unit; the column it compares is understood when it is first needed."""

    def __init__(self, rows: Sequence[Row], options: ClinicalTable) -> None:
        self.rows, self.options, self.pick = rows, options, options.pick
        self.found: tuple[Mapping[int, Span | None], ...] | None = None

    def agreed(self, rows: Sequence[Row], images: Images, *, study: datetime.date | None, person: str) -> _Outcome:
        """Return what the rows that count say of one person, if they all say the same."""
        counting = self.choose(rows, study)
        if counting is None:
            return _Outcome("ambiguous")
        if not counting:
            return _Outcome("none")
        first = images.first_studies.get(person)
        finished = [finish_row(row, self.options, first) for row in counting]
        issues = [issue for _, found in finished for issue in found]
        values = dict(finished[0][0])
        if any(other != values for other, _ in finished):
            return _Outcome("ambiguous", issues=tuple(issues))
        for name in images.own_days:
            told = values[name]
            if isinstance(told, int) and (study is None or first is None or told > (study - first).days):
                values[name] = None
                issues.append(CellIssue(counting[0].number, name, LATE_DAY))
        days = [day for row in counting if (day := self._day(row)) is not None]
        return _Outcome("matched", values, tuple(issues), known_on=max(days, default=None))

    def _day(self, row: Row) -> datetime.date | None:
        """Return the day on which a row was known: as it states, or by which it was picked or joined."""
        if row.known is not None:
            return row.known
        if self.pick is not None and self.pick.to_study:
            span = self._spans(self.pick)[0][row.number]
            day: datetime.date | None = None if span is None else span.high[0].date()
            return day
        facts = [*self.options.joins.values()]
        return datetime.date.fromisoformat(row.keys[facts.index("date")]) if "date" in facts else None

    def choose(self, rows: Sequence[Row], study: datetime.date | None) -> Sequence[Row] | None:
        """Return the rows that count; None where it is not certain which."""
        pick = self.pick
        if pick is None or pick.by is None or not rows or (len(rows) == 1 and not pick.to_study):
            return rows
        ranked = [row for row in rows if row.rank is not None]
        if not ranked:
            return [] if pick.to_study else rows
        chosen: set[tuple[int, ...]] = set()
        for spans in self._spans(pick):
            found = _chosen([(i, span) for i, row in enumerate(ranked) if (span := spans[row.number])], pick, study)
            if found is None:
                return None
            chosen.add(found)
        if len(chosen) > 1:
            raise SpecError(
                f"clinical: pick.by {pick.by!r}: found values that can be read in two ways, each of which takes "
                f"another row (first in row {ranked[0].number}); declare it as a date with its format or "
                "as a number with its decimal mark"
            )
        return [ranked[i] for i in chosen.pop()]

    def _spans(self, pick: Pick) -> tuple[Mapping[int, Span | None], ...]:
        """Map each row number to the value that is compared, under each reading of the column."""
        if self.found is None:
            cells = {row.number: row.rank for row in self.rows if row.rank is not None}
            column = declared_as(self.options, pick.by or "")
            there = list(cells.values())
            found = date_readings(there, column) if pick.to_study else readings(there, column, pick.order)
            if not found:
                raise SpecError(f"clinical: pick.by {pick.by!r}: {_disorder(pick)}")
            self.found = tuple({n: _span(reading, cell) for n, cell in cells.items()} for reading in found)
        return self.found


def _span(reading: Reading, cell: Cell) -> Span | None:
    try:
        return reading(cell)
    except ValueError:
        return None  # of a declared column: the cell is listed as one that was not taken


def _disorder(pick: Pick) -> str:
    if pick.order:
        return "found values that pick.order does not list, expected all of them there (or in missing)"
    expected = "dates" if pick.to_study else "numbers, dates, or labels that differ in one number"
    return (
        f"found values without an order that can be told, expected {expected}; state pick.order, or declare a column "
        "from it with its type and format"
    )


def _chosen(spans: Sequence[tuple[int, Span]], pick: Pick, study: datetime.date | None) -> tuple[int, ...] | None:
    """Return the positions of the rows that one reading takes; None where it is not certain."""
    if not spans:
        return None
    if pick.to_study:
        return () if study is None else _beside(spans, pick, study)
    best = (smallest if pick.take == "min" else largest)([span for _, span in spans])
    return None if best is None else tuple(spans[i][0] for i in best)


def _beside(spans: Collection[tuple[int, Span]], pick: Pick, study: datetime.date) -> tuple[int, ...] | None:
    """Return the rows nearest to, last before or first after a study."""
    days = [(i, (span.low[0].date() - study).days, span) for i, span in spans]
    if any(span.low[0].date() != span.high[0].date() for _, _, span in days):
        return None  # a month is no day
    if pick.take == "last_before":
        days = [entry for entry in days if entry[1] <= 0]
    elif pick.take == "first_after":
        days = [entry for entry in days if entry[1] >= 0]
    if pick.within_days is not None:
        days = [entry for entry in days if abs(entry[1]) <= pick.within_days]
    if not days:
        return ()
    best = min((abs(day), day) for _, day, _ in days)
    return tuple(i for i, day, _ in days if (abs(day), day) == best)
