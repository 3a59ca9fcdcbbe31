"""Put the images of several visits of a person together as cases: which visits, in which order, how far apart."""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final

from builder.cohort import Cohort, Decisions, Visits
from builder.errors import CaseError, Reason
from builder.planning.link import Link
from builder.planning.registrations import Placement, Registrations
from builder.planning.rows import CandidateRow

RULE: Final = "visits"
"""The rule under which a visit is listed that makes no case."""


@dataclass
class ImageSet:
    """The images of a case: rows of the candidates by name, links of labels with their images, and registrations."""

    reference: str
    rows: dict[str, int]
    links: dict[str, tuple[str, Link]] = field(default_factory=dict)
    placements: dict[str, Placement] = field(default_factory=dict)


def day_of(row: CandidateRow) -> object:
    """Return what distinguishes visits of a person: the day of the study, or the study if it has no date."""
    return (row.person_key, row.study_date or row.study_key)


def together(
    sets: Sequence[ImageSet],
    options: Cohort,
    rows: Sequence[CandidateRow],
    ledger: Decisions,
    registrations: Registrations,
) -> list[ImageSet]:
    """Return the cases of several visits. A visit that makes no case is refused in the ledger.

    Parameters
    ----------
    sets
        The images of each visit, by the names that the spec gives them.
    rows
        The candidates.
    """
    maker = _Cases(options, rows, ledger, registrations)
    of_person: dict[str, list[ImageSet]] = {}
    for found in sets:
        of_person.setdefault(rows[found.rows[found.reference]].person_key, []).append(found)
    made = [case for person in sorted(of_person) for case in maker.of(of_person[person])]
    maker.refuse_others(sets, made)
    return made


@dataclass
class _Cases:
    """Makes the cases of one person at a time."""

    options: Cohort
    rows: Sequence[CandidateRow]
    ledger: Decisions
    registrations: Registrations

    @property
    def visits(self) -> Visits:
        assert self.options.visits is not None
        return self.options.visits

    def of(self, sets: Sequence[ImageSet]) -> Iterator[ImageSet]:
        """Yield the cases that the visits of a person make."""
        ordered = self._in_time(sets)
        for chosen in self._chosen(ordered):
            index = chosen[0].rows[chosen[0].reference]
            fault = self._gap_fault(chosen)
            made = CaseError(Reason.VISIT_MISSING, fault) if fault else self._joined(chosen)
            if isinstance(made, CaseError):
                self.refusals.setdefault(index, made)
            else:
                yield made

    def __post_init__(self) -> None:
        self.refusals: dict[int, CaseError] = {}

    def refuse_others(self, sets: Sequence[ImageSet], made: Sequence[ImageSet]) -> None:
        """Refuse the references of visits that no case takes, each with its reason."""
        used = {row for case in made for row in case.rows.values()}
        needed = len(self.visits.names)
        count: dict[str, int] = {}
        for found in sets:
            person = self.rows[found.rows[found.reference]].person_key
            count[person] = count.get(person, 0) + 1
        for found in sets:
            row = found.rows[found.reference]
            if row in used:
                continue
            number = count[self.rows[row].person_key]
            if row in self.refusals:
                error = self.refusals[row]
                self.ledger.refuse(row, RULE, error.reason, error.detail)
            elif number < needed:
                detail = f"found {number} visit with all images that the spec requires, expected {needed}"
                self.ledger.refuse(row, RULE, Reason.VISIT_MISSING, detail.replace("1 visits", "1 visit"))
            else:
                detail = f"choose: {self.visits.choose} takes other visits, or no visit follows in time"
                self.ledger.refuse(row, RULE, Reason.VISIT_UNUSED, detail)

    def _in_time(self, sets: Sequence[ImageSet]) -> list[ImageSet]:
        """Return the visits of a person in the order of time; those whose place is unknown are refused."""
        rows = {id(s): self.rows[s.rows[s.reference]] for s in sets}
        if all(rows[id(s)].study_date is None for s in sets) and self.visits.gap_days is None:
            numbers = {id(s): _number(rows[id(s)].visit) for s in sets}
            if None not in numbers.values() and len({*numbers.values()}) == len(sets):
                return sorted(sets, key=lambda s: numbers[id(s)] or 0)
        dated: list[tuple[date, int, ImageSet]] = []
        for found in sets:
            day = rows[id(found)].study_date
            if day is not None:
                dated.append((day, found.rows[found.reference], found))
            else:
                row = found.rows[found.reference]
                self.refusals[row] = CaseError(Reason.VISIT_UNDATED, "found no study date, expected one of each visit")
        return [found for *_, found in sorted(dated, key=lambda item: item[:2])]

    def _chosen(self, ordered: Sequence[ImageSet]) -> Iterator[tuple[ImageSet, ...]]:
        number = len(self.visits.names)
        if len(ordered) < number:
            return
        if self.visits.choose == "first_two":
            yield tuple(ordered[:2])
        elif self.visits.choose == "first_last":
            yield (ordered[0], ordered[-1])
        else:
            yield from (tuple(ordered[i : i + number]) for i in range(len(ordered) - number + 1))

    def _gap_fault(self, chosen: Sequence[ImageSet]) -> str:
        """Say what is wrong with the distance of two visits; "" if nothing is."""
        if self.visits.gap_days is None:
            return ""
        least, most = self.visits.gap_days
        dates = [day for s in chosen if (day := self.rows[s.rows[s.reference]].study_date) is not None]
        for one, two in itertools.pairwise(dates):
            if not least <= (two - one).days <= most:
                return f"found no next visit {least} to {most} days after this one (gap_days), expected one"
        return ""

    def _joined(self, chosen: Sequence[ImageSet]) -> ImageSet | CaseError:
        """Return the images of several visits as one case, if its later visits lie as the spec says."""
        names = self.visits.names
        made = ImageSet(f"{names[0]}.{chosen[0].reference}", {})
        reference = self.rows[chosen[0].rows[chosen[0].reference]]
        for visit, found in zip(names, chosen, strict=True):
            home = None if visit == names[0] else self._home(f"{visit}.{found.reference}", found, reference)
            if isinstance(home, CaseError):
                return home
            for name, row in found.rows.items():
                own, full = found.placements.get(name), f"{visit}.{name}"
                made.rows[full] = row
                moves = self.options.members[full].registrar is None and self.options.members[full].aligned != "none"
                if home is not None and moves:
                    own = home if own is None else own.then(home)
                if own is not None:
                    made.placements[full] = own
        return made

    def _home(self, name: str, found: ImageSet, reference: CandidateRow) -> Placement | CaseError | None:
        """Return where the reference of a later visit lies on the first one's; None where nothing need be known yet."""
        row, image = self.rows[found.rows[found.reference]], self.options.members[name]
        if image.aligned == "registration" and image.registrar is None:
            return self.registrations.place(name, image, row, reference)
        one, two = row.frame_of_reference_key, reference.frame_of_reference_key
        if image.aligned == "frame" and (one is None or one != two):
            detail = f"image {name}: found another frame of reference, expected the first visit's"
            return CaseError(Reason.IMAGE_NOT_ALIGNED, detail)
        return None


def _number(visit: str | None) -> int | None:
    """Return the number in the name of a session, such as 2 of ``ses-02``; None if it has none or several."""
    found = re.findall(r"[0-9]{1,9}", visit or "")
    return int(found[0]) if len(found) == 1 else None
